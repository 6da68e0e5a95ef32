//! The state machine of a connection, fed with any stream in any pieces. The reference reader finds every request that
//! the exchange finds, and every body that it stores; and it sends one valid response to each request.

use std::collections::VecDeque;
use std::time::{Duration, Instant, UNIX_EPOCH};

use upslot::http::exchange::{Ended, Exchange, RequestError, Timeouts, Want};
use upslot::http::head::{Framing, Method};
use upslot::http::response::{Common, FileFacts};
use upslot::now::Now;

use super::{Choices, Dice, NOW, expand, reference, split};

/// Largest file that is served, in bytes.
const LARGEST: u64 = 3000;

/// A request that was decided on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Request {
    method: String,
    path: Vec<u8>,
    framing: Framing,
}

struct Driver<'a> {
    exchange: Exchange,
    now: Now,
    input: VecDeque<&'a [u8]>,
    output: Vec<u8>,
    requests: Vec<Request>,
    /// For each response, whether it answers a HEAD; `None` for a malformed request.
    answered: Vec<Option<bool>>,
    body: Vec<u8>,
    stored: Vec<Vec<u8>>,
    errors: usize,
    dice: Dice,
    /// Whether time passes and writes are partial.
    is_disturbed: bool,
}

fn now() -> Now {
    Now {
        mono: Instant::now(),
        wall: UNIX_EPOCH + Duration::from_secs(NOW),
    }
}

impl<'a> Driver<'a> {
    fn new(pieces: Vec<&'a [u8]>, seed: u16, is_disturbed: bool) -> Driver<'a> {
        let now = now();
        let seconds = Duration::from_secs;
        let timeouts = Timeouts::new(seconds(10), seconds(60), seconds(60));
        Driver {
            exchange: Exchange::new(timeouts, now.mono),
            now,
            input: pieces.into(),
            output: Vec::new(),
            requests: Vec::new(),
            answered: Vec::new(),
            body: Vec::new(),
            stored: Vec::new(),
            errors: 0,
            dice: Dice::new(seed),
            is_disturbed,
        }
    }

    /// The next piece, or as much of it as is wanted.
    fn take(&mut self, limit: usize) -> Option<&'a [u8]> {
        let piece = self.input.pop_front()?;
        let (now, later) = piece.split_at(piece.len().min(limit));
        if !later.is_empty() {
            self.input.push_front(later);
        }
        Some(now)
    }

    /// Runs until all input is used and nothing more can be done; returns what the exchange wants then.
    fn run(&mut self) -> Want {
        let input: usize = self.input.iter().map(|piece| piece.len()).sum();
        // Every step uses input or writes output, and the size of a response is limited.
        for _ in 0..input * 20 + 100_000 {
            if self.is_disturbed && self.dice.below(50) == 0 {
                self.now = self
                    .now
                    .later(Duration::from_secs(self.dice.below(30) as u64));
                self.exchange.deadline_passed(self.now.mono);
            }
            let want = self.exchange.want();
            let progressed = match want {
                Want::Close => false,
                Want::Head(limit) => self.feed(limit, Exchange::received),
                Want::Discard(limit) => self.feed(limit, Exchange::discard),
                Want::Linger => self.feed(usize::MAX, |exchange, bytes, now| {
                    exchange.lingered(bytes.len() as u64, now);
                }),
                Want::Body(limit) => self.receive(limit),
                Want::Decide | Want::Publish | Want::Write | Want::File { .. } => {
                    self.respond(want);
                    true
                }
            };
            if !progressed {
                return want;
            }
        }
        panic!("the exchange makes no progress: {:?}", self.exchange);
    }

    /// Reports input; false if there is none.
    fn feed(&mut self, limit: usize, report: fn(&mut Exchange, &[u8], Instant)) -> bool {
        let input = self.take(limit);
        if let Some(bytes) = input {
            report(&mut self.exchange, bytes, self.now.mono);
        }
        input.is_some()
    }

    /// Receives a piece of a body; false if there is none.
    fn receive(&mut self, limit: usize) -> bool {
        let moment = self.now.mono;
        let body = &mut self.body;
        let mut sink = |data: &[u8]| {
            body.extend_from_slice(data);
            Ok(())
        };
        if let Some((_, received)) = self.exchange.receive_buffered(moment, &mut sink) {
            received.unwrap();
            return true;
        }
        let Some(bytes) = self.take(limit) else {
            return false;
        };
        let body = &mut self.body;
        let sink = |data: &[u8]| {
            body.extend_from_slice(data);
            Ok(())
        };
        self.exchange.receive(bytes, moment, sink).unwrap();
        true
    }

    /// Decides on a request, stores a body, or sends a part of a response.
    fn respond(&mut self, want: Want) {
        let moment = self.now.mono;
        match want {
            Want::Decide => self.decide(),
            Want::Publish => {
                self.stored.push(std::mem::take(&mut self.body));
                let answer = Common::new(false, vec![]).answer(201).empty_body();
                self.exchange.answer(answer, moment);
            }
            Want::File { start, end } => {
                assert!(start < end && end <= LARGEST);
                self.output.extend((start..end).map(byte_at));
                self.exchange.sent_file(end - start, moment);
            }
            _ => {
                let output = self.exchange.output();
                assert!(!output.is_empty(), "a write of nothing is wanted");
                let n = match self.is_disturbed {
                    true => 1 + self.dice.below(output.len()),
                    false => output.len(),
                };
                self.output.extend_from_slice(&output[..n]);
                self.exchange.wrote(n, moment);
            }
        }
    }

    /// Accepts a PUT with the size in its path and answers a GET with a file of the size in its path. Everything else
    /// is refused.
    fn decide(&mut self) {
        let common = Common::new(true, vec![]);
        let answer = match self.exchange.request().unwrap() {
            Err(error) => {
                self.errors += 1;
                self.body.clear();
                // An error in a body is answered on behalf of the request that it belongs to.
                if matches!(error, RequestError::Head(_) | RequestError::HeadTimeout) {
                    self.answered.push(None);
                }
                common.refusal(error.status(), error)
            }
            Ok(request) => {
                self.requests.push(Request {
                    method: request.method_str().to_owned(),
                    path: request.path().to_vec(),
                    framing: request.framing(),
                });
                self.answered.push(Some(request.method() == Method::Head));
                let size = request.path().get(1..).unwrap_or_default();
                let size = std::str::from_utf8(size)
                    .ok()
                    .and_then(|s| s.parse::<u64>().ok());
                match (request.method(), size) {
                    (Method::Put, Some(size)) => {
                        return self.exchange.accept(size, self.now.mono);
                    }
                    (Method::Get | Method::Head, Some(size)) if size <= LARGEST => {
                        common.file(request, &facts(size), self.now)
                    }
                    (Method::Options, _) => common.options(),
                    _ => common.refusal(403, &"No."),
                }
            }
        };
        self.exchange.answer(answer, self.now.mono);
    }

    /// The final responses that the client has received, and whether the last one is incomplete.
    fn answers(&self) -> (Vec<reference::Answer>, bool) {
        let mut answers = Vec::new();
        let mut rest = &self.output[..];
        while !rest.is_empty() {
            let head = match self.answered.get(answers.len()) {
                Some(Some(head)) => *head,
                // Only the exchange knows whether a malformed request is a HEAD; this response is the last one.
                _ => rest.ends_with(b"\r\n\r\n"),
            };
            let Some((answer, used)) = reference::answer(rest, head) else {
                return (answers, true);
            };
            rest = &rest[used..];
            if answer.status >= 200 {
                answers.push(answer);
            }
        }
        (answers, false)
    }
}

fn byte_at(at: u64) -> u8 {
    b'a' + (at % 26) as u8
}

pub fn facts(size: u64) -> FileFacts<'static> {
    FileFacts {
        name: b"a b.jpg",
        size,
        modified: UNIX_EPOCH + Duration::from_secs(NOW - 1000),
        content_type: "image/jpeg",
        inline: true,
        expires_at: None,
    }
}

/// The valid requests at the start of a stream, with their bodies.
fn expected(stream: &[u8]) -> Vec<(reference::Head, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    let mut rest = stream;
    while let Some(head) = reference::head(rest) {
        rest = &rest[head.length..];
        let body = reference::body(head.framing, rest);
        let used = body.as_ref().map(|(_, used)| *used);
        found.push((head, body.map(|(data, _)| data)));
        match used {
            Some(used) => rest = &rest[used..],
            None => break,
        }
    }
    found
}

/// Asserts the properties of any run over this stream.
fn check(stream: &[u8], driver: &Driver<'_>, want: Want) {
    let expected = expected(stream);
    let mut puts = Vec::new();
    for (n, request) in driver.requests.iter().enumerate() {
        let Some((head, body)) = expected.get(n) else {
            panic!("a request that is not in the stream: {request:?}");
        };
        assert_eq!(
            (&request.method, request.framing),
            (&head.method, head.framing)
        );
        let target = String::from_utf8_lossy(&head.target);
        let path = String::from_utf8_lossy(&request.path);
        assert!(
            target.contains(&*path) || path == "/",
            "{target} is not {path}"
        );
        if request.method == "PUT" {
            puts.push((path.into_owned(), body));
        }
    }
    // Every stored body is the whole body of a PUT, in order, and of the size in its path.
    let mut puts = puts.into_iter();
    for stored in &driver.stored {
        let same = |path: &str, body: &Option<Vec<u8>>| {
            path[1..].parse() == Ok(stored.len()) && body.as_ref() == Some(stored)
        };
        assert!(
            puts.any(|(path, body)| same(&path, body)),
            "a stored body that is not in the stream: {}",
            stored.escape_ascii()
        );
    }
    let (answers, cut) = driver.answers();
    let is_settled = !driver.is_disturbed;
    if is_settled {
        assert!(!cut, "an incomplete response");
        let pending = usize::from(matches!(want, Want::Body(_)));
        assert_eq!(answers.len(), driver.answered.len() - pending);
    }
    assert!(driver.errors <= 1, "a request was parsed after an error");
    for (n, answer) in answers.iter().enumerate() {
        if answer.field("connection") == Some("close") {
            assert_eq!(n + 1, answers.len(), "a response after the last one");
            assert!(!is_settled || matches!(want, Want::Close | Want::Linger));
        }
    }
}

pub fn run(data: &[u8]) {
    let mut choices = Choices(data);
    let seed = choices.number();
    let stream = &expand(choices.rest())[..];

    let mut whole = Driver::new(vec![stream], seed, false);
    let want = whole.run();
    check(stream, &whole, want);
    for pieces in [seed, 1] {
        let mut driver = Driver::new(split(stream, pieces), seed, false);
        let split_want = driver.run();
        check(stream, &driver, split_want);
        // An unwanted body may end the connection earlier if it arrives late; nothing else may differ.
        let both = whole.requests.len().min(driver.requests.len());
        assert_eq!(whole.requests[..both], driver.requests[..both]);
        let both = whole.stored.len().min(driver.stored.len());
        assert_eq!(whole.stored[..both], driver.stored[..both]);
        for (one, want, other) in [(&whole, want, &driver), (&driver, split_want, &whole)] {
            if one.requests.len() < other.requests.len() || one.stored.len() < other.stored.len() {
                assert!(matches!(want, Want::Close | Want::Linger), "{want:?}");
            }
        }
        driver.exchange.peer_closed();
        let want = driver.run();
        assert_eq!(want, Want::Close, "the client closed the connection");
        assert!(driver.exchange.ended().is_some());
    }
    let mut disturbed = Driver::new(split(stream, seed), seed, true);
    let want = disturbed.run();
    check(stream, &disturbed, want);
    // Every connection ends by timeouts alone.
    for _ in 0..8 {
        disturbed.now = disturbed.now.later(Duration::from_secs(61));
        disturbed.exchange.deadline_passed(disturbed.now.mono);
        disturbed.run();
    }
    assert!(matches!(disturbed.exchange.ended(), Some(ended) if *ended != Ended::ClientClosed));
}

/// The response to one request, as the client receives it from the exchange.
pub fn written(head: &[u8], answer: upslot::http::response::Answer) -> Vec<u8> {
    let mut driver = Driver::new(vec![], 0, false);
    driver.exchange.received(head, driver.now.mono);
    assert_eq!(driver.exchange.want(), Want::Decide);
    driver.exchange.answer(answer, driver.now.mono);
    driver.run();
    driver.output
}
