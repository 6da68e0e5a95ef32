//! The exchange, driven without a socket and on a virtual clock.

mod driver;
mod splits;

use std::mem;
use std::time::UNIX_EPOCH;

use super::*;
use crate::http::head::{Framing, Method};
use crate::http::response::{Common, FileFacts};
use crate::now::Now;

use driver::Driver;

fn with_input(input: &str, step: usize) -> Driver {
    let mut driver = Driver::new(1_800_000_000);
    driver.input = input.as_bytes().to_vec();
    driver.step = step;
    driver
}

impl Driver {
    /// Runs until more input or time is needed.
    fn run(&mut self) -> &mut Driver {
        while self.advance() {}
        self
    }

    /// Closes the client's sending direction.
    fn end_input(&mut self) -> &mut Driver {
        self.run().exchange.peer_closed();
        self.run()
    }

    fn wait(&mut self, seconds: u64) -> &mut Driver {
        self.pass(seconds);
        self.run()
    }

    fn feed_text(&mut self, input: &str) -> &mut Driver {
        self.input.extend_from_slice(input.as_bytes());
        self.run()
    }

    /// The statuses of the responses, and `close` where one has that connection option.
    fn statuses(&self) -> String {
        let text = String::from_utf8_lossy(&self.output);
        let mut found = Vec::new();
        for line in text.split("\r\n") {
            // The next status line may follow a body without a line end.
            if let Some((_, status)) = line.split_once("HTTP/1.1 ") {
                let status = status.get(..3).unwrap_or_default();
                if status.bytes().all(|b| b.is_ascii_digit()) {
                    found.push(status.to_owned());
                }
            }
            if line == "Connection: close" {
                found.push("close".to_owned());
            }
        }
        found.join(" ")
    }
}

/// Runs the input whole, byte by byte and in pieces of 7; the result must always be the same.
#[track_caller]
fn check(input: &str, statuses: &str, stored: &[&str], ended: Option<Ended>) {
    for step in [usize::MAX, 1, 7] {
        let mut driver = with_input(input, step);
        driver.run();
        assert_eq!(driver.statuses(), statuses, "{input:?} in steps of {step}");
        let bodies: Vec<&[u8]> = stored.iter().map(|body| body.as_bytes()).collect();
        assert_eq!(driver.stored, bodies, "{input:?} in steps of {step}");
        if ended.is_some() {
            driver.end_input();
            assert_eq!(
                driver.exchange.ended(),
                ended.as_ref(),
                "{input:?} in steps of {step}"
            );
        }
    }
}

fn request(line: &str, fields: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

#[test]
fn pipelined_requests() {
    let get = request("GET /3", "");
    check(&get, "200", &[], Some(Ended::ClientClosed));
    check(
        &format!("{get}{get}{get}"),
        "200 200 200",
        &[],
        Some(Ended::ClientClosed),
    );
    check(
        &format!("\r\n{get}\r\n{get}"),
        "200 200",
        &[],
        Some(Ended::ClientClosed),
    );
    check("", "", &[], Some(Ended::ClientClosed));
    check("GET /3 HT", "", &[], Some(Ended::Aborted));
    check(
        &request("GET /3", "Connection: close\r\n"),
        "200 close",
        &[],
        Some(Ended::Done),
    );
    check(
        "GET /3 HTTP/1.0\r\n\r\n",
        "200 close",
        &[],
        Some(Ended::Done),
    );
    check(
        "GET /3 HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /3 HTTP/1.0\r\n\r\n",
        "200 200 close",
        &[],
        None,
    );
    check(
        &request("HEAD /3", ""),
        "200",
        &[],
        Some(Ended::ClientClosed),
    );
    let zero = request("GET /0", "");
    check(&format!("{zero}{zero}"), "200 200", &[], None);
}

#[test]
fn request_bodies() {
    let put = request("PUT /5", "Content-Length: 5\r\n");
    let get = request("GET /3", "");
    check(
        &format!("{put}hello"),
        "201",
        &["hello"],
        Some(Ended::ClientClosed),
    );
    check(
        &format!("{put}hello{put}world{get}"),
        "201 201 200",
        &["hello", "world"],
        None,
    );
    check(&format!("{put}hell"), "", &[], Some(Ended::Aborted));
    for fields in ["Content-Length: 0\r\n", "", "Content-Length: 4\r\n"] {
        let short = request("PUT /5", fields);
        check(&format!("{short}hell"), "400 close", &[], None);
    }
    let chunked = request("PUT /5", "Transfer-Encoding: chunked\r\n");
    check(
        &format!("{chunked}2\r\nhe\r\n3;a=b\r\nllo\r\n0\r\n\r\n{get}"),
        "201 200",
        &["hello"],
        None,
    );
    check(
        &format!("{chunked}2\r\nhe\r\n0\r\n\r\n{get}"),
        "400 close",
        &[],
        None,
    );
    check(&format!("{chunked}ffffffff\r\n"), "413 close", &[], None);
    check(
        &format!("{chunked}6\r\nhello!\r\n0\r\n\r\n{get}"),
        "413 close",
        &[],
        None,
    );
    check(
        &format!("{chunked}5\r\nhelloXX{get}"),
        "400 close",
        &[],
        None,
    );
    check(&format!("{chunked}zz\r\n{get}"), "400 close", &[], None);
    check(&format!("{chunked}5\r\nhel"), "", &[], Some(Ended::Aborted));
}

#[test]
fn expect_100_continue() {
    let put = request("PUT /5", "Content-Length: 5\r\nExpect: 100-continue\r\n");
    let mut driver = with_input(&put, usize::MAX);
    assert_eq!(driver.run().statuses(), "100");
    assert_eq!(driver.feed_text("hello").statuses(), "100 201");
    // A client that does not wait for the 100 gets none.
    let mut eager = with_input(&format!("{put}hello"), usize::MAX);
    assert_eq!(eager.run().statuses(), "201");
    let refused = request("PUT /x", "Content-Length: 5\r\nExpect: 100-continue\r\n");
    check(&refused, "403 close", &[], Some(Ended::Done));
    // HTTP/1.0 has no interim responses.
    let old = "PUT /5 HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    assert_eq!(with_input(old, usize::MAX).run().statuses(), "");
}

#[test]
fn small_unwanted_bodies_are_skipped() {
    let get = request("GET /3", "");
    let refused = request("PUT /x", "Content-Length: 5\r\n");
    check(
        &format!("{refused}hello{get}"),
        "403 200",
        &[],
        Some(Ended::ClientClosed),
    );
    let with_body = request("GET /3", "Content-Length: 5\r\n");
    check(
        &format!("{with_body}hello{get}"),
        "200 200",
        &[],
        Some(Ended::ClientClosed),
    );
    let large = request("PUT /x", "Content-Length: 65537\r\n");
    check(
        &format!("{large}hello{get}"),
        "403 close",
        &[],
        Some(Ended::Done),
    );
    let mut driver = with_input(&large, usize::MAX);
    assert!(
        driver.run().lingered,
        "the client must be able to read the response"
    );
    // A body that does not arrive ends the connection.
    let mut driver = with_input(&with_body, usize::MAX);
    assert_eq!(driver.run().statuses(), "200");
    assert!(driver.wait(2).lingered);
}

#[test]
fn unwanted_chunked_bodies_are_skipped_when_complete() {
    let refused = request("PUT /x", "Transfer-Encoding: chunked\r\n");
    let get = request("GET /3", "");
    let mut whole = with_input(
        &format!("{refused}5\r\nhello\r\n0\r\n\r\n{get}"),
        usize::MAX,
    );
    assert_eq!(whole.run().statuses(), "403 200");
    let mut part = with_input(&format!("{refused}5\r\nhel"), usize::MAX);
    assert_eq!(part.run().statuses(), "403 close");
    let mut bad = with_input(&format!("{refused}5\r\nhelloXX{get}"), usize::MAX);
    assert_eq!(bad.run().statuses(), "403 close");
}

#[test]
fn nothing_is_parsed_after_an_error() {
    let get = request("GET /3", "");
    for (bad, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("GET / HTTP/1.1\nHost: a\n\n", "400"),
        ("\u{16}\u{3}\u{1}", "400"),
        ("GET / HTTP/2.0\r\n", "505"),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
            "501",
        ),
    ] {
        check(
            &format!("{bad}{get}"),
            &format!("{status} close"),
            &[],
            Some(Ended::Done),
        );
    }
    // The response to a malformed HEAD has no body either.
    for bad in [
        "HEAD /# HTTP/1.1\r\n\r\n",
        "\r\nHEAD / HTTP/1.1\r\nA : b\r\n\r\n",
    ] {
        let mut driver = with_input(bad, usize::MAX);
        assert_eq!(driver.run().statuses(), "400 close");
        assert!(driver.output.ends_with(b"\r\n\r\n"), "{bad:?}");
    }
    let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(9000));
    check(&long, "414 close", &[], None);
    let many = format!("GET / HTTP/1.1\r\n{}", "A: b\r\n".repeat(101));
    check(&many, "431 close", &[], None);
    let large = format!("GET / HTTP/1.1\r\nA: {}", "b".repeat(40_000));
    check(&large, "431 close", &[], None);
}

#[test]
fn the_header_timeout_is_for_the_whole_head() {
    let mut driver = with_input("G", 1);
    driver.run();
    for _ in 0..9 {
        driver.wait(1);
        assert_eq!(driver.feed_text("E").statuses(), "");
    }
    assert_eq!(driver.wait(1).statuses(), "408 close");
    assert!(driver.lingered);
}

#[test]
fn an_idle_connection_closes_without_a_response() {
    let mut driver = with_input("\r\n", usize::MAX);
    driver.run().wait(59);
    assert_eq!(driver.exchange.ended(), None);
    driver.wait(1);
    assert_eq!(driver.exchange.ended(), Some(&Ended::Idle));
    assert!(driver.output.is_empty());
}

#[test]
fn single_bytes_are_no_progress() {
    let put = request("PUT /100000", "Content-Length: 100000\r\n");
    let mut driver = with_input(&put, usize::MAX);
    driver.run();
    for _ in 0..3 {
        driver.wait(59).feed_text(&"x".repeat(4096));
    }
    assert_eq!(driver.statuses(), "");
    for _ in 0..5 {
        driver.wait(10).feed_text("x");
    }
    assert_eq!(driver.wait(10).statuses(), "408 close");
    assert!(driver.stored.is_empty());
}

#[test]
fn only_stalled_readers_are_dropped() {
    let mut driver = with_input(&request("GET /100000", ""), 4096);
    driver
        .exchange
        .received(&mem::take(&mut driver.input), driver.now.mono);
    driver.decide();
    let head = driver.exchange.output().len();
    driver.exchange.wrote(head, driver.now.mono);
    for _ in 0..3 {
        driver.now = driver.now.later(Duration::from_secs(59));
        driver.exchange.sent_file(4096, driver.now.mono);
    }
    driver.now = driver.now.later(Duration::from_secs(60));
    driver.exchange.flushed(4096, driver.now.mono);
    driver.exchange.deadline_passed(driver.now.mono);
    assert_eq!(driver.exchange.ended(), None);
    driver.now = driver.now.later(Duration::from_secs(60));
    driver.exchange.deadline_passed(driver.now.mono);
    assert_eq!(driver.exchange.ended(), Some(&Ended::Stalled));
}

#[test]
fn a_pause_is_not_charged_to_the_client() {
    let put = request("PUT /100000", "Content-Length: 100000\r\n");
    let mut driver = with_input(&put, usize::MAX);
    driver.run().wait(40);
    driver.exchange.pause(driver.now.mono);
    assert_eq!(driver.exchange.deadline(), None);
    driver.pass(1000);
    driver.exchange.pause(driver.now.mono);
    driver.pass(1000);
    driver.exchange.resume(driver.now.mono);
    driver.exchange.resume(driver.now.mono);
    assert_eq!(driver.wait(19).statuses(), "");
    assert_eq!(driver.wait(1).statuses(), "408 close");
}

#[test]
fn lingering_is_limited() {
    let large = request("PUT /x", "Content-Length: 1000000000\r\n");
    let mut silent = with_input(&large, usize::MAX);
    silent.run().wait(6);
    assert_eq!(silent.exchange.ended(), Some(&Ended::Done));
    let mut busy = with_input(&large, usize::MAX);
    let start = busy.run().now.mono;
    for _ in 0..4 {
        busy.wait(4).feed_text("more");
        assert_eq!(busy.exchange.ended(), None);
    }
    busy.wait(4);
    assert_eq!(busy.exchange.ended(), Some(&Ended::Done));
    assert!(busy.now.mono - start <= LINGER_TIME);
    let mut flood = with_input(&large, usize::MAX);
    flood.run();
    flood.exchange.lingered(6 << 20, flood.now.mono);
    assert_eq!(flood.exchange.ended(), None);
    flood.exchange.lingered(LINGER_BYTES, flood.now.mono);
    assert_eq!(flood.exchange.ended(), Some(&Ended::Done));
}

#[test]
fn make_last_closes_after_the_response() {
    let mut driver = with_input(&request("GET /3", ""), usize::MAX);
    driver.exchange.disable_keep_alive();
    assert_eq!(driver.run().statuses(), "200 close");
    assert_eq!(driver.exchange.ended(), Some(&Ended::Done));
}

#[test]
fn a_half_closed_client_gets_all_responses() {
    let get = request("GET /3", "");
    let mut driver = with_input(&format!("{get}{get}"), usize::MAX);
    assert_eq!(driver.end_input().statuses(), "200 200");
    assert_eq!(driver.exchange.ended(), Some(&Ended::ClientClosed));
}

#[test]
fn an_idle_exchange_holds_no_buffer() {
    let get = request("GET /3", "");
    let mut driver = with_input(&get.repeat(3), usize::MAX);
    driver.run();
    assert!(driver.exchange.is_idle());
    assert_eq!(driver.exchange.input.bytes.capacity(), 0);
}
