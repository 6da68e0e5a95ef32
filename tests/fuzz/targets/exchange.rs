//! The state machine of a connection, fed with any stream in any pieces. The reference reader finds every request that
//! the exchange finds, and every body that it stores; and it sends one valid response to each request.

use std::time::{Duration, Instant, UNIX_EPOCH};

use upslot::http::exchange::{Ended, Exchange, RequestError, Timeouts, Want};
use upslot::http::head::{Framing, Method};
use upslot::http::response::{Common, FileFacts};
use upslot::now::Now;

use super::{Choices, Dice, NOW, expand, reference, split};

#[path = "../../../src/http/exchange/tests/driver.rs"]
mod driver;

use driver::{Driver, Request};

pub use driver::facts;

/// Largest file that is served, in bytes.
const LARGEST: u64 = 3000;

/// Reads all pieces and does what can be done after each.
fn driven(pieces: Vec<&[u8]>) -> Driver {
    let mut driver = Driver::new(NOW);
    driver.largest = LARGEST;
    for piece in pieces {
        driver.input.extend_from_slice(piece);
        while driver.advance() {}
    }
    driver
}

/// The same, while time passes and reads and writes are partial.
fn disturbed(pieces: Vec<&[u8]>, seed: u16) -> Driver {
    let mut dice = Dice::new(seed);
    let mut driver = driven(vec![]);
    for piece in pieces {
        driver.input.extend_from_slice(piece);
        loop {
            if dice.below(50) == 0 {
                driver.pass(dice.below(30) as u64);
            }
            driver.step = 1 + dice.below(2000);
            if !driver.advance() {
                break;
            }
        }
    }
    driver
}

/// For each response, whether it answers a HEAD; `None` for a malformed request. An error in a body is answered on
/// behalf of the request that it belongs to.
fn answered(driver: &Driver) -> Vec<Option<bool>> {
    let to_head = |request: &Result<Request, RequestError>| match request {
        Ok(request) => Some(Some(request.method == "HEAD")),
        Err(RequestError::Head(_) | RequestError::HeadTimeout) => Some(None),
        Err(_) => None,
    };
    driver.requests.iter().filter_map(to_head).collect()
}

/// The valid requests that were decided on.
fn valid(driver: &Driver) -> Vec<&Request> {
    driver.requests.iter().flatten().collect()
}

/// The final responses that the client has received, and whether the last one is incomplete.
fn answers(driver: &Driver) -> (Vec<reference::Answer>, bool) {
    let answered = answered(driver);
    let mut answers = Vec::new();
    let mut rest = &driver.output[..];
    while !rest.is_empty() {
        let head = match answered.get(answers.len()) {
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

/// Everything that holds after any run over this stream. `is_settled`: no time has passed, and nothing is partial.
fn check(stream: &[u8], driver: &Driver, is_settled: bool) {
    let want = driver.exchange.want();
    let expected = expected(stream);
    let mut puts = Vec::new();
    for (n, request) in valid(driver).into_iter().enumerate() {
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
    let (answers, cut) = answers(driver);
    if is_settled {
        assert!(!cut, "an incomplete response");
        let pending = usize::from(matches!(want, Want::Body(_)));
        assert_eq!(answers.len(), answered(driver).len() - pending);
    }
    let errors = driver.requests.len() - valid(driver).len();
    assert!(errors <= 1, "a request was parsed after an error");
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

    let whole = driven(vec![stream]);
    check(stream, &whole, true);
    for pieces in [seed, 1] {
        let mut driver = driven(split(stream, pieces));
        check(stream, &driver, true);
        // An unwanted body may end the connection earlier if it arrives late; nothing else may differ.
        let (one, other) = (valid(&whole), valid(&driver));
        let both = one.len().min(other.len());
        assert_eq!(one[..both], other[..both]);
        let both = whole.stored.len().min(driver.stored.len());
        assert_eq!(whole.stored[..both], driver.stored[..both]);
        for (one, other) in [(&whole, &driver), (&driver, &whole)] {
            let want = one.exchange.want();
            if valid(one).len() < valid(other).len() || one.stored.len() < other.stored.len() {
                assert!(matches!(want, Want::Close | Want::Linger), "{want:?}");
            }
        }
        driver.exchange.peer_closed();
        assert!(!driver.advance(), "the client closed the connection");
        assert!(driver.exchange.ended().is_some());
    }
    let mut disturbed = disturbed(split(stream, seed), seed);
    check(stream, &disturbed, false);
    // Every connection ends by timeouts alone.
    for _ in 0..8 {
        disturbed.pass(61);
        while disturbed.advance() {}
    }
    assert!(matches!(disturbed.exchange.ended(), Some(ended) if *ended != Ended::ClientClosed));
}

/// The response to one request, as the client receives it from the exchange.
pub fn written(head: &[u8], answer: upslot::http::response::Answer) -> Vec<u8> {
    let mut driver = Driver::new(NOW);
    driver.exchange.received(head, driver.now.mono);
    assert_eq!(driver.exchange.want(), Want::Decide);
    driver.exchange.answer(answer, driver.now.mono);
    while driver.advance() {}
    driver.output
}
