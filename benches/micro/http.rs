//! Request heads, and whole requests through the HTTP state machine.

use std::hint::black_box;

use upslot::http::exchange::{Exchange, Want};
use upslot::http::head::{HeadScan, RequestHead};
use upslot::http::response::Answer;
use upslot::now::Now;
use upslot::service::{Decision, Service, StoredFile};

use crate::bench::Bench;
use crate::common::outcome::Outcome;
use crate::fixtures::{self, SIZE, TYPE};

pub fn run(bench: &mut Bench<'_>) -> Outcome<()> {
    let service = fixtures::service("")?;
    let (put, get) = fixtures::targets(&service)?;
    heads(bench, &put, &get)?;
    let now = fixtures::now();
    let found = StoredFile {
        size: SIZE,
        modified: fixtures::seconds_ago(3600),
        content_type: Some(TYPE.to_owned()),
        stored: fixtures::seconds_ago(3600),
        utf8: false,
    };
    let answers_with = |head: &[u8], status: u16| {
        let request = fixtures::parsed(head)?;
        let (service, found) = (&service, &found);
        Ok::<_, String>(move || {
            let answer = answer(service, black_box(&request), found, now);
            answer.is_some_and(|answer| black_box(answer).status == status)
        })
    };
    let get_with = |field: &str| {
        let mut head = fixtures::curl(&get);
        head.truncate(head.len() - 2);
        head.extend_from_slice(field.as_bytes());
        head.extend_from_slice(b"\r\n\r\n");
        head
    };
    bench.case("get-answer", 1, answers_with(&fixtures::curl(&get), 200)?)?;
    let ranged = get_with("Range: bytes=1024-2047");
    bench.case("get-answer-range", 1, answers_with(&ranged, 206)?)?;
    let cached = get_with("If-None-Match: *");
    bench.case("get-answer-304", 1, answers_with(&cached, 304)?)?;

    let head = fixtures::curl(&get);
    let mut exchange = Exchange::new(service.timeouts(), now.mono);
    bench.case("get-exchange", 1, || {
        exchange.received(black_box(&head), now.mono);
        let Some(Ok(request)) = exchange.request() else {
            return false;
        };
        let Some(answer) = answer(&service, request, &found, now) else {
            return false;
        };
        exchange.answer(answer, now.mono);
        write_out(&mut exchange, now);
        let sends_file = exchange.want()
            == (Want::File {
                start: 0,
                end: SIZE,
            });
        exchange.sent_file(SIZE, now.mono);
        sends_file && exchange.is_idle()
    })?;

    let head = fixtures::slixmpp(&put, "");
    let body = vec![b'x'; SIZE as usize];
    let mut exchange = Exchange::new(service.timeouts(), now.mono);
    bench.case("put-exchange", 1, || {
        exchange.received(black_box(&head), now.mono);
        let Some(Ok(request)) = exchange.request() else {
            return false;
        };
        let Decision::Upload(grant) = service.decide(request, now) else {
            return false;
        };
        exchange.accept(grant.size, now.mono);
        let mut stored = 0;
        let received = exchange.receive(black_box(&body), now.mono, |bytes| {
            stored += black_box(bytes).len() as u64;
            Ok(())
        });
        let complete = received.is_ok() && stored == SIZE && exchange.want() == Want::Publish;
        exchange.answer(service.created(&grant), now.mono);
        write_out(&mut exchange, now);
        complete && exchange.is_idle()
    })
}

fn heads(bench: &mut Bench, put: &str, get: &str) -> Outcome<()> {
    let parse = |head: Vec<u8>| {
        move || {
            let head = black_box(head.as_slice());
            let end = HeadScan::default().scan(head);
            end == Ok(Some(head.len())) && black_box(RequestHead::parse(head)).is_ok()
        }
    };
    bench.case("head-curl", 1, parse(fixtures::curl(get)))?;
    bench.case("head-browser", 1, parse(fixtures::browser(get)))?;
    bench.case("head-slixmpp-put", 1, parse(fixtures::slixmpp(put, "")))
}

/// Decides a GET as the driver of a connection does, for a file that is already open.
fn answer(
    service: &Service,
    request: &RequestHead,
    found: &StoredFile,
    now: Now,
) -> Option<Answer> {
    match service.decide(request, now) {
        Decision::Download(download) => {
            let path = download.path?;
            Some(service.download(request, &path, found, now))
        }
        _ => None,
    }
}

/// Takes all output, as if the socket had room for it.
fn write_out(exchange: &mut Exchange, now: Now) {
    while exchange.want() == Want::Write {
        let written = black_box(exchange.output()).len();
        exchange.wrote(written, now.mono);
    }
}
