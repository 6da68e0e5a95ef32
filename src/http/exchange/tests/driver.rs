//! An exchange that is driven without a socket and on a virtual clock: for its unit tests and its fuzz target, which both
//! include this file and import the names that it needs.

use super::{Common, Exchange, FileFacts, Framing, Instant, Method, Now, RequestError, Timeouts};
use super::{Duration, UNIX_EPOCH, Want};

/// Most steps of one driver; more mean that the exchange makes no progress.
const MAX_STEPS: usize = 10_000_000;

/// A request that was decided on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    pub path: Vec<u8>,
    pub framing: Framing,
}

/// The input is a buffer, and a file is a pattern of bytes.
pub struct Driver {
    pub exchange: Exchange,
    pub now: Now,
    /// Input that has arrived.
    pub input: Vec<u8>,
    /// Everything that was sent to the client.
    pub output: Vec<u8>,
    /// The requests that were decided on, and the errors that were found instead of one or in its body.
    pub requests: Vec<Result<Request, RequestError>>,
    /// The bodies that were stored.
    pub stored: Vec<Vec<u8>>,
    /// The body that is being received.
    body: Vec<u8>,
    /// Most bytes moved at a time.
    pub step: usize,
    /// Largest file that is served, in bytes.
    pub largest: u64,
    pub lingered: bool,
    steps: usize,
}

impl Driver {
    /// Time starts at this Unix second.
    pub fn new(unix: u64) -> Driver {
        let now = Now {
            mono: Instant::now(),
            wall: UNIX_EPOCH + Duration::from_secs(unix),
        };
        let seconds = Duration::from_secs;
        let timeouts = Timeouts::new(seconds(10), seconds(60), seconds(60));
        Driver {
            exchange: Exchange::new(timeouts, now.mono),
            now,
            input: Vec::new(),
            output: Vec::new(),
            requests: Vec::new(),
            stored: Vec::new(),
            body: Vec::new(),
            step: usize::MAX,
            largest: u64::MAX,
            lingered: false,
            steps: 0,
        }
    }

    /// Lets time pass.
    pub fn pass(&mut self, seconds: u64) {
        self.now = self.now.later(Duration::from_secs(seconds));
        self.exchange.deadline_passed(self.now.mono);
    }

    /// Does what the exchange wants next; false if there is no input for it, or nothing more to do.
    pub fn advance(&mut self) -> bool {
        self.steps += 1;
        assert!(self.steps < MAX_STEPS, "no progress: {:?}", self.exchange);
        let now = self.now.mono;
        match self.exchange.want() {
            Want::Close => return false,
            Want::Head(limit) => return self.feed(limit, Exchange::received),
            Want::Discard(limit) => return self.feed(limit, Exchange::discard),
            Want::Linger => {
                self.lingered = true;
                return self.feed(usize::MAX, |exchange, bytes, now| {
                    exchange.lingered(bytes.len() as u64, now);
                });
            }
            Want::Body(limit) => return self.receive(limit),
            Want::Decide => self.decide(),
            Want::Publish => {
                self.stored.push(std::mem::take(&mut self.body));
                let answer = Common::new(false, vec![]).answer(201).text(&"Stored.");
                self.exchange.answer(answer, now);
            }
            Want::File { start, end } => {
                assert!(start < end && end <= self.largest);
                let n = (end - start).min(self.step as u64);
                let bytes = (start..start + n).map(|at| b'a' + (at % 26) as u8);
                self.output.extend(bytes);
                self.exchange.sent_file(n, now);
            }
            Want::Write => {
                let output = self.exchange.output();
                assert!(!output.is_empty(), "a write of nothing is wanted");
                let n = output.len().min(self.step);
                self.output.extend_from_slice(&output[..n]);
                self.exchange.wrote(n, now);
            }
        }
        true
    }

    fn take(&mut self, limit: usize) -> Option<Vec<u8>> {
        let n = limit.min(self.step).min(self.input.len());
        (n > 0).then(|| self.input.drain(..n).collect())
    }

    /// Reports input; false if there is none.
    fn feed(&mut self, limit: usize, report: fn(&mut Exchange, &[u8], Instant)) -> bool {
        let input = self.take(limit);
        if let Some(bytes) = &input {
            report(&mut self.exchange, bytes, self.now.mono);
        }
        input.is_some()
    }

    /// Receives a piece of a body; false if there is none.
    fn receive(&mut self, limit: usize) -> bool {
        let now = self.now.mono;
        let mut body = std::mem::take(&mut self.body);
        let mut sink = |data: &[u8]| {
            body.extend_from_slice(data);
            Ok(())
        };
        let received = match self.exchange.receive_buffered(now, &mut sink) {
            Some((_, received)) => Some(received),
            None => self
                .take(limit)
                .map(|bytes| self.exchange.receive(&bytes, now, sink)),
        };
        self.body = body;
        received.map(Result::unwrap).is_some()
    }

    /// Accepts a PUT with the size in its path and answers a GET with a file of the size in its path. Everything else
    /// is refused.
    pub fn decide(&mut self) {
        let common = Common::new(true, vec![]);
        let answer = match self.exchange.request().unwrap() {
            Err(error) => {
                self.requests.push(Err(error.clone()));
                self.body.clear();
                common.refusal(error.status(), error)
            }
            Ok(request) => {
                self.requests.push(Ok(Request {
                    method: request.method_str().to_owned(),
                    path: request.path().to_vec(),
                    framing: request.framing(),
                }));
                let size = request.path().get(1..).unwrap_or_default();
                let size = std::str::from_utf8(size)
                    .ok()
                    .and_then(|size| size.parse::<u64>().ok());
                match (request.method(), size) {
                    (Method::Put, Some(size)) => {
                        return self.exchange.accept(size, self.now.mono);
                    }
                    (Method::Get | Method::Head, Some(size)) if size <= self.largest => {
                        common.file(request, &facts(size), self.now)
                    }
                    (Method::Options, _) => common.options(),
                    _ => common.refusal(403, &"No."),
                }
            }
        };
        self.exchange.answer(answer, self.now.mono);
    }
}

/// A file of this size that was modified before the tests start.
pub fn facts(size: u64) -> FileFacts<'static> {
    FileFacts {
        name: b"a b.jpg",
        size,
        modified: UNIX_EPOCH + Duration::from_secs(1_799_999_000),
        content_type: "image/jpeg",
        inline: true,
        expires_at: None,
    }
}
