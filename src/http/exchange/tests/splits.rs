//! The split of a connection's bytes into reads changes neither the requests nor the responses nor the stored bodies,
//! and never more than a head and one read is buffered.

use super::*;
use crate::http::tests::Rng;

/// The result of a connection. Responses with status 100 are left out: they depend on what has arrived by then.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    statuses: Vec<String>,
    stored: Vec<Vec<u8>>,
    ended: Option<Ended>,
}

/// Feeds the pieces one by one, then the end of input.
fn outcome<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut driver = with_input("", usize::MAX);
    for piece in pieces {
        driver.input.extend_from_slice(piece);
        driver.run();
        assert!(driver.input.is_empty() || driver.exchange.ended().is_some());
        assert!(driver.exchange.input.bytes.len() <= MAX_HEAD + 4 + piece.len());
    }
    driver.end_input();
    let statuses = driver.statuses();
    Outcome {
        statuses: statuses
            .split(' ')
            .filter(|status| *status != "100")
            .map(str::to_owned)
            .collect(),
        stored: driver.stored.clone(),
        ended: driver.exchange.ended().cloned(),
    }
}

/// Streams whose result does not depend on how they are split. An unwanted chunked body is not among them (see
/// `unwanted_chunked_bodies_are_skipped_when_complete`).
fn streams() -> Vec<String> {
    let get = request("GET /3", "");
    let put = request("PUT /5", "Content-Length: 5\r\n");
    let chunked = request("PUT /5", "Transfer-Encoding: chunked\r\n");
    let expecting = request("PUT /5", "Content-Length: 5\r\nExpect: 100-continue\r\n");
    let unwanted = request("PUT /x", "Content-Length: 5\r\n");
    vec![
        format!("\r\n{get}\r\n\r\n{get}"),
        format!("{put}hello{put}world{get}"),
        format!("{put}GET /{get}"),
        format!("{chunked}2\r\nhe\r\n3;a=\"\\\"b\"\r\nllo\r\n0\r\nA: b\r\n\r\n{get}"),
        format!("{chunked}5\r\nhello\r\n00\r\n\r\n{chunked}1\r\nx\r\n4\r\nyzzz\r\n0\r\n\r\n"),
        format!("{expecting}hello{get}"),
        format!("{unwanted}hello{get}"),
        format!("{}hello{get}", request("POST /", "Content-Length: 5\r\n")),
        format!("{chunked}5\r\nhelloXX{get}"),
        format!("{chunked}0x5\r\nhello\r\n0\r\n\r\n{get}"),
        format!("{chunked}6\r\nhello!\r\n0\r\n\r\n{get}"),
        format!("{chunked}2\r\nhe\r\n0\r\n\r\n{get}"),
        format!("{get}GET /3 HTTP/1.1\nHost: a\n\n{get}"),
        format!("{get}GET /3 HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n{get}"),
        format!(
            "{}hello{get}",
            request("PUT /5", "Content-Length: 5\r\nContent-Length: 6\r\n")
        ),
        format!("GET /3 HTTP/1.0\r\nConnection: keep-alive\r\n\r\nHEAD /3 HTTP/1.0\r\n\r\n{get}"),
        format!("{put}hel"),
        format!("{chunked}5\r\nhel"),
        "GET /3 HTT".to_owned(),
    ]
}

#[test]
fn streams_in_two_pieces() {
    for stream in streams() {
        let bytes = stream.as_bytes();
        let whole = outcome([bytes]);
        assert_eq!(outcome(bytes.chunks(1)), whole, "{stream:?} byte by byte");
        for at in 1..bytes.len() {
            let (one, two) = bytes.split_at(at);
            assert_eq!(outcome([one, two]), whole, "{one:?} and {two:?}");
        }
    }
}

#[test]
fn streams_in_random_pieces() {
    let mut rng = Rng::new(7);
    // Long enough to exceed limits within one piece and between two.
    let long = [
        request("GET /3", &format!("A: {}\r\n", "b".repeat(32_700))),
        format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(8_250)),
        format!(
            "{}{}",
            request("PUT /40000", "Content-Length: 40000\r\n"),
            "x".repeat(40_000)
        ),
    ];
    for stream in streams().into_iter().chain(long) {
        let bytes = stream.as_bytes();
        let whole = outcome([bytes]);
        for _ in 0..40 {
            let largest = 1 + rng.below(bytes.len());
            let mut pieces = Vec::new();
            let mut rest = bytes;
            while !rest.is_empty() {
                let (piece, after) = rest.split_at((1 + rng.below(largest)).min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            let sizes: Vec<usize> = pieces.iter().map(|piece| piece.len()).collect();
            assert_eq!(outcome(pieces), whole, "in pieces of {sizes:?}");
        }
    }
}
