//! Request heads, and the way from a GET to an answer's head.

use std::hint::black_box;

use upslot::http::exchange::{Exchange, Want};
use upslot::http::head::{RequestHead, Scan};
use upslot::http::response::Answer;
use upslot::now::Now;
use upslot::service::{Decision, Found, Service};

use crate::site::{self, SIZE, TYPE};
use crate::{Bench, Outcome};

pub fn run(bench: &mut Bench) -> Outcome<()> {
    let service = site::service("")?;
    let (put, get) = site::targets(&service)?;
    heads(bench, &put, &get)?;
    let now = site::now();
    let found = Found {
        size: SIZE,
        modified: site::moment(3600),
        content_type: Some(TYPE),
        stored: site::moment(3600),
        utf8: false,
    };
    let answered = |head: &[u8], status: u16| {
        let request = site::parsed(head)?;
        let service = &service;
        Ok::<_, String>(move || {
            let answer = answer(service, black_box(&request), &found, now);
            answer.is_some_and(|answer| black_box(answer).status == status)
        })
    };
    let with = |field: &str| {
        let mut head = site::curl(&get);
        head.truncate(head.len() - 2);
        head.extend_from_slice(field.as_bytes());
        head.extend_from_slice(b"\r\n\r\n");
        head
    };
    let about = "a parsed GET to the answer's head";
    bench.case("get-answer", about, 1, answered(&site::curl(&get), 200)?)?;
    let about = "the same, with a range";
    let ranged = with("Range: bytes=1024-2047");
    bench.case("get-answer-range", about, 1, answered(&ranged, 206)?)?;
    let about = "the same, of what the browser has";
    let cached = with("If-None-Match: *");
    bench.case("get-answer-304", about, 1, answered(&cached, 304)?)?;

    let head = site::curl(&get);
    let about = "a whole GET through the machine of a kept connection, but for file and socket";
    let mut exchange = Exchange::new(service.timeouts(), now.mono);
    bench.case("get-exchange", about, 1, || {
        exchange.received(black_box(&head), now.mono);
        let Some(Ok(request)) = exchange.request() else {
            return false;
        };
        let Some(answer) = answer(&service, request, &found, now) else {
            return false;
        };
        exchange.answer(answer, now.mono);
        write_out(&mut exchange, now);
        let sends = exchange.want()
            == (Want::File {
                start: 0,
                end: SIZE,
            });
        exchange.sent_file(SIZE, now.mono);
        sends && exchange.is_idle()
    })?;

    let head = site::slixmpp(&put, "");
    let body = vec![b'x'; SIZE as usize];
    let about = "a whole PUT of 10 KiB through it, but for file and socket";
    let mut exchange = Exchange::new(service.timeouts(), now.mono);
    bench.case("put-exchange", about, 1, || {
        exchange.received(black_box(&head), now.mono);
        let Some(Ok(request)) = exchange.request() else {
            return false;
        };
        let Decision::Upload(grant) = service.decide(request, now) else {
            return false;
        };
        exchange.accept(grant.size, now.mono);
        let mut stored = 0;
        let sunk = exchange.receive(black_box(&body), now.mono, |bytes| {
            stored += black_box(bytes).len() as u64;
            Ok(())
        });
        let whole = sunk.is_ok() && stored == SIZE && exchange.want() == Want::Publish;
        exchange.answer(service.created(&grant), now.mono);
        write_out(&mut exchange, now);
        whole && exchange.is_idle()
    })
}

fn heads(bench: &mut Bench, put: &str, get: &str) -> Outcome<()> {
    let parse = |head: Vec<u8>| {
        move || {
            let head = black_box(head.as_slice());
            let end = Scan::default().scan(head);
            end == Ok(Some(head.len())) && black_box(RequestHead::parse(head)).is_ok()
        }
    };
    bench.case(
        "head-curl",
        "the head of a GET by curl",
        1,
        parse(site::curl(get)),
    )?;
    let about = "the head of a GET by a browser";
    bench.case("head-browser", about, 1, parse(site::browser(get)))?;
    let about = "the head of a PUT by slixmpp";
    bench.case("head-slixmpp-put", about, 1, parse(site::slixmpp(put, "")))
}

/// What the driver of a connection does with a GET, but for the file.
fn answer(service: &Service, request: &RequestHead, found: &Found<'_>, now: Now) -> Option<Answer> {
    match service.decide(request, now) {
        Decision::Download(wanted) => {
            let path = wanted.path?;
            Some(service.download(request, &path, found, now))
        }
        _ => None,
    }
}

fn write_out(exchange: &mut Exchange, now: Now) {
    while exchange.want() == Want::Write {
        let written = black_box(exchange.output()).len();
        exchange.wrote(written, now.mono);
    }
}
