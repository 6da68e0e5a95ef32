//! Ranges and conditions: of a small file every answer is taken apart, and its bytes are those that were asked for.

use upslot::http::head::{Method, RequestHead};
use upslot::http::range::{self, MARGIN, Ranges, Spec};
use upslot::http::response::Common;

use super::exchange::{facts, written};
use super::{Choices, NOW, reference};
use std::time::{Duration, Instant, UNIX_EPOCH};
use upslot::now::Now;

/// When the file was changed, as a field says it.
const MODIFIED: &str = "Fri, 15 Jan 2027 07:43:20 GMT";

pub fn run(data: &[u8]) {
    let mut choices = Choices(data);
    let method = ["GET", "GET", "GET", "HEAD", "PUT", "OPTIONS"][usize::from(choices.byte()) % 6];
    let size = u64::from(choices.number()) % 3001;
    let size = if size > 2000 { size - 2000 } else { size % 40 };
    let lines = choices.rest();
    specs(lines, size);

    // `@` and `~` stand for the file's entity tag and date, which no fuzzer guesses.
    let etag = format!("\"{:x}-{size:x}\"", u128::from(NOW - 1000) * 1_000_000_000);
    let mut text = format!("{method} / HTTP/1.1\r\nHost: a\r\n").into_bytes();
    for line in lines.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        for byte in line {
            match byte {
                b'@' => text.extend_from_slice(etag.as_bytes()),
                b'~' => text.extend_from_slice(MODIFIED.as_bytes()),
                byte => text.push(*byte),
            }
        }
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    let Ok(request) = RequestHead::parse(&text) else {
        return;
    };
    if matches!(request.method(), Method::Put | Method::Options) {
        return;
    }
    let now = Now {
        mono: Instant::now(),
        wall: UNIX_EPOCH + Duration::from_secs(NOW),
    };
    let answer = Common::new(false, vec![]).file(&request, &facts(size), now);
    let output = written(&text, answer);
    let (answer, used) = reference::answer(&output, method == "HEAD").expect("a whole answer");
    assert_eq!(used, output.len());
    check(&request, &answer, size, &etag);
}

fn file(size: u64) -> Vec<u8> {
    (0..size).map(|at| b'a' + (at % 26) as u8).collect()
}

fn check(request: &RequestHead, answer: &reference::Answer, size: u64, etag: &str) {
    let has = |name: &str| request.field(name).is_some();
    let file = file(size);
    assert!([200, 206, 304, 412, 416].contains(&answer.status));
    if matches!(answer.status, 200 | 206 | 304) {
        assert_eq!(answer.field("etag"), Some(etag));
        assert_eq!(answer.field("last-modified"), Some(MODIFIED));
    }
    if request.method() == Method::Head || answer.status == 304 {
        assert!(answer.body.is_empty() && answer.status != 206 && answer.status != 416);
    } else {
        match answer.status {
            200 => assert!(answer.body == file, "another file"),
            206 => parts(answer, &file),
            _ => assert!(answer.body.len() < 200),
        }
    }
    // A range needs a range, 304 and 412 a condition.
    match answer.status {
        206 | 416 => assert!(has("range")),
        304 => assert!(has("if-none-match") || has("if-modified-since")),
        412 => assert!(has("if-match") || has("if-unmodified-since")),
        _ => {}
    }
    let tags = |name: &str| -> Vec<Vec<u8>> { request.fields(name).map(<[u8]>::to_vec).collect() };
    let only = |name: &str, value: &str| tags(name) == [value.as_bytes().to_vec()];
    let strong = only("if-match", etag) || only("if-match", "*") || !has("if-match");
    if has("if-match") {
        if only("if-match", etag) || only("if-match", "*") {
            assert_ne!(answer.status, 412);
        }
        // Without the tag in it no list matches.
        let named = tags("if-match")
            .iter()
            .any(|list| reference::find(list, etag.as_bytes()).is_some() || list.contains(&b'*'));
        assert!(named || answer.status == 412);
    }
    if strong && (has("if-match") || !has("if-unmodified-since")) {
        let weak = format!("W/{etag}");
        if only("if-none-match", etag) || only("if-none-match", "*") || only("if-none-match", &weak)
        {
            assert_eq!(answer.status, 304);
        }
        if !has("if-none-match") && only("if-modified-since", MODIFIED) {
            assert_eq!(answer.status, 304);
        }
    }
    if has("if-range") && !only("if-range", etag) && answer.status == 206 {
        // Other forms of the same date are as good.
        assert!(!tags("if-range")[0].starts_with(b"\"") && !tags("if-range")[0].starts_with(b"W"));
    }
}

/// The parts of a 206 are what they say they are.
fn parts(answer: &reference::Answer, file: &[u8]) {
    let part = |range: &str| -> Vec<u8> {
        let (range, size) = range
            .strip_prefix("bytes ")
            .unwrap()
            .split_once('/')
            .unwrap();
        let (first, last) = range.split_once('-').unwrap();
        assert_eq!(size.parse(), Ok(file.len()));
        file[first.parse().unwrap()..=last.parse::<usize>().unwrap()].to_vec()
    };
    let content_type = answer.field("content-type").unwrap();
    if let Some(range) = answer.field("content-range") {
        assert_eq!(content_type, "image/jpeg");
        assert_eq!(part(range), answer.body);
        return;
    }
    assert!(
        answer.body.len() as u64 <= file.len() as u64 + MARGIN + 256,
        "amplified"
    );
    let boundary = content_type
        .strip_prefix("multipart/byteranges; boundary=")
        .unwrap();
    let mut rest = &answer.body[..];
    let mut count = 0;
    loop {
        let mark = format!("\r\n--{boundary}");
        rest = rest.strip_prefix(mark.as_bytes()).expect("a boundary");
        if rest == b"--\r\n" {
            break;
        }
        let end = reference::find(rest, b"\r\n\r\n").expect("a part's head");
        let head = std::str::from_utf8(&rest[..end]).unwrap();
        let range = head
            .strip_prefix("\r\nContent-Type: image/jpeg\r\nContent-Range: ")
            .expect("a part's fields");
        let data = part(range);
        rest = rest[end + 4..]
            .strip_prefix(&data[..])
            .expect("a part's bytes");
        count += 1;
    }
    assert!(count > 1);
}

/// Ranges by themselves, of files of any size.
fn specs(value: &[u8], small: u64) {
    let Some(specs) = range::parse(value) else {
        return;
    };
    assert!(!specs.is_empty() && specs.len() <= range::MAX_SPECS);
    for size in [small, 0, 1, 1 << 40, u64::MAX - 1] {
        let ranges = match range::resolve(&specs, size) {
            Ranges::Whole => continue,
            Ranges::Unsatisfiable => Vec::new(),
            Ranges::One(range) => vec![range],
            Ranges::Many(ranges) => {
                assert!(ranges.len() > 1);
                ranges
            }
        };
        for (n, range) in ranges.iter().enumerate() {
            assert!(range.start < range.end && range.end <= size);
            let apart =
                |other: &std::ops::Range<u64>| range.end <= other.start || other.end <= range.start;
            assert!(ranges[..n].iter().all(apart), "bytes twice: {ranges:?}");
        }
        let there = |at: u64| ranges.iter().any(|range| range.contains(&at));
        for spec in &specs {
            let asked = match *spec {
                Spec::From(first, last) => {
                    (first, last.unwrap_or(u64::MAX).min(size.wrapping_sub(1)))
                }
                Spec::Suffix(n) => (size.saturating_sub(n), size.wrapping_sub(1)),
            };
            if size > 0 && asked.0 < size && asked.0 <= asked.1 && *spec != Spec::Suffix(0) {
                assert!(
                    there(asked.0) && there(asked.1),
                    "{specs:?} of {size}: {ranges:?}"
                );
            }
        }
        if size <= 300 {
            let asked = |at: u64| {
                specs.iter().any(|spec| match *spec {
                    Spec::From(first, last) => first <= at && last.is_none_or(|last| at <= last),
                    Spec::Suffix(n) => at >= size.saturating_sub(n),
                })
            };
            assert!((0..size).all(|at| !asked(at) || there(at)), "{specs:?}");
        }
    }
}
