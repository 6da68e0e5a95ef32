//! The whole machine of a connection, fed with a stream of requests. Whatever is in the stream and however it
//! arrives, the machine sees no request that a second reading does not find at that place, stores no other body than
//! the one that is delimited there, and what it writes is a sequence of sound answers, one to each request.

use std::collections::VecDeque;
use std::time::{Duration, Instant, UNIX_EPOCH};

use upslot::http::exchange::{Ended, Exchange, Fault, Timeouts, Want};
use upslot::http::head::{Framing, Method};
use upslot::http::response::{Common, FileFacts};
use upslot::now::Now;

use super::{Choices, Dice, NOW, expand, reference, split};

/// Files up to this size are served; bytes.
const LARGEST: u64 = 3000;

/// What the machine asked to be decided, and whether as a HEAD.
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
    /// What each answer answers: whether a HEAD, where the request was understood.
    answered: Vec<Option<bool>>,
    body: Vec<u8>,
    stored: Vec<Vec<u8>>,
    faults: usize,
    dice: Dice,
    /// Whether time goes by and writes are short.
    restless: bool,
}

fn now() -> Now {
    Now {
        mono: Instant::now(),
        wall: UNIX_EPOCH + Duration::from_secs(NOW),
    }
}

impl<'a> Driver<'a> {
    fn new(pieces: Vec<&'a [u8]>, seed: u16, restless: bool) -> Driver<'a> {
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
            faults: 0,
            dice: Dice::new(seed),
            restless,
        }
    }

    /// The next piece, or as much of it as is wanted.
    fn take(&mut self, most: usize) -> Option<&'a [u8]> {
        let piece = self.input.pop_front()?;
        let (now, later) = piece.split_at(piece.len().min(most));
        if !later.is_empty() {
            self.input.push_front(later);
        }
        Some(now)
    }

    /// Runs until all input is used and nothing more can be done; tells what is wanted then.
    fn run(&mut self) -> Want {
        let pieces: usize = self.input.iter().map(|piece| piece.len()).sum();
        // Every turn uses input or writes output; an answer is bounded by what is served.
        for _ in 0..pieces * 20 + 100_000 {
            if self.restless && self.dice.below(50) == 0 {
                self.now = self
                    .now
                    .later(Duration::from_secs(self.dice.below(30) as u64));
                self.exchange.deadline_passed(self.now.mono);
            }
            let want = self.exchange.want();
            let moment = self.now.mono;
            match want {
                Want::Close => return want,
                Want::Head(most) => match self.take(most) {
                    Some(bytes) => self.exchange.received(bytes, moment),
                    None => return want,
                },
                Want::Decide => self.decide(),
                Want::Body(most) => {
                    let body = &mut self.body;
                    let mut sink = |data: &[u8]| {
                        body.extend_from_slice(data);
                        Ok(())
                    };
                    if let Some((_, done)) = self.exchange.receive_kept(moment, &mut sink) {
                        done.unwrap();
                        continue;
                    }
                    let Some(bytes) = self.take(most) else {
                        return want;
                    };
                    let body = &mut self.body;
                    let sink = |data: &[u8]| {
                        body.extend_from_slice(data);
                        Ok(())
                    };
                    self.exchange.receive(bytes, moment, sink).unwrap();
                }
                Want::Publish => {
                    self.stored.push(std::mem::take(&mut self.body));
                    let answer = Common::new(false, vec![]).answer(201).bodiless();
                    self.exchange.answer(answer, moment);
                }
                Want::Write => {
                    let ready = self.exchange.output();
                    assert!(!ready.is_empty(), "nothing to write is wanted written");
                    let n = match self.restless {
                        true => 1 + self.dice.below(ready.len()),
                        false => ready.len(),
                    };
                    self.output.extend_from_slice(&ready[..n]);
                    self.exchange.wrote(n, moment);
                }
                Want::File { start, end } => {
                    assert!(start < end && end <= LARGEST);
                    self.output.extend((start..end).map(byte_at));
                    self.exchange.sent_file(end - start, moment);
                }
                Want::Discard(most) => match self.take(most) {
                    Some(bytes) => self.exchange.discard(bytes, moment),
                    None => return want,
                },
                Want::Linger => match self.take(usize::MAX) {
                    Some(bytes) => self.exchange.lingered(bytes.len() as u64, moment),
                    None => return want,
                },
            }
        }
        panic!("the machine turns in circles at {:?}", self.exchange);
    }

    /// PUT takes a body of the size in its path, GET serves a file of the size in its path, anything else is refused.
    fn decide(&mut self) {
        let common = Common::new(true, vec![]);
        let answer = match self.exchange.request().unwrap() {
            Err(fault) => {
                self.faults += 1;
                self.body.clear();
                // The fault of a body answers the request that was under way.
                if matches!(fault, Fault::Head(_) | Fault::SlowHead) {
                    self.answered.push(None);
                }
                common.refusal(fault.status(), fault)
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

    /// The answers that the client got, the interim ones left out, and whether the last one is cut short.
    fn answers(&self) -> (Vec<reference::Answer>, bool) {
        let mut answers = Vec::new();
        let mut rest = &self.output[..];
        while !rest.is_empty() {
            let head = match self.answered.get(answers.len()) {
                Some(Some(head)) => *head,
                // Of what is malformed the machine knows best; the answer is the last one.
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
        end: None,
    }
}

/// The requests of a stream, and their bodies, as far as they are sound.
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

/// What must hold after any run over this stream.
fn check(stream: &[u8], driver: &Driver<'_>, want: Want) {
    let expected = expected(stream);
    let mut puts = Vec::new();
    for (n, request) in driver.requests.iter().enumerate() {
        let Some((head, body)) = expected.get(n) else {
            panic!("a request that nobody sent: {request:?}");
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
    // Each body that is stored is that of a PUT, whole, in order, and as long as the path says.
    let mut puts = puts.into_iter();
    for stored in &driver.stored {
        let same = |path: &str, body: &Option<Vec<u8>>| {
            path[1..].parse() == Ok(stored.len()) && body.as_ref() == Some(stored)
        };
        assert!(
            puts.any(|(path, body)| same(&path, body)),
            "a body that nobody sent: {}",
            stored.escape_ascii()
        );
    }
    let (answers, cut) = driver.answers();
    let settled = !driver.restless;
    if settled {
        assert!(!cut, "an answer is cut short");
        let pending = usize::from(matches!(want, Want::Body(_)));
        assert_eq!(answers.len(), driver.answered.len() - pending);
    }
    assert!(driver.faults <= 1, "understood something after a fault");
    for (n, answer) in answers.iter().enumerate() {
        if answer.field("connection") == Some("close") {
            assert_eq!(n + 1, answers.len(), "an answer after the last one");
            assert!(!settled || matches!(want, Want::Close | Want::Linger));
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
        let want_then = driver.run();
        check(stream, &driver, want_then);
        // A body that nobody wants may end a connection earlier when it arrives late; nothing else may differ.
        let both = whole.requests.len().min(driver.requests.len());
        assert_eq!(whole.requests[..both], driver.requests[..both]);
        let both = whole.stored.len().min(driver.stored.len());
        assert_eq!(whole.stored[..both], driver.stored[..both]);
        for (one, want, other) in [(&whole, want, &driver), (&driver, want_then, &whole)] {
            if one.requests.len() < other.requests.len() || one.stored.len() < other.stored.len() {
                assert!(matches!(want, Want::Close | Want::Linger), "{want:?}");
            }
        }
        driver.exchange.peer_closed();
        let want = driver.run();
        assert_eq!(want, Want::Close, "the client is gone");
        assert!(driver.exchange.ended().is_some());
    }
    let mut restless = Driver::new(split(stream, seed), seed, true);
    let want = restless.run();
    check(stream, &restless, want);
    // Time alone ends every connection.
    for _ in 0..8 {
        restless.now = restless.now.later(Duration::from_secs(61));
        restless.exchange.deadline_passed(restless.now.mono);
        restless.run();
    }
    assert!(matches!(restless.exchange.ended(), Some(ended) if *ended != Ended::Left));
}

/// The answer to one request, as the client gets it from the machine.
pub fn written(head: &[u8], answer: upslot::http::response::Answer) -> Vec<u8> {
    let mut driver = Driver::new(vec![], 0, false);
    driver.exchange.received(head, driver.now.mono);
    assert_eq!(driver.exchange.want(), Want::Decide);
    driver.exchange.answer(answer, driver.now.mono);
    driver.run();
    driver.output
}
