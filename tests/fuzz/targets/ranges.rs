//! Range and conditional requests: every response about a small file has exactly the bytes that were requested.

use std::time::{Duration, Instant, UNIX_EPOCH};

use upslot::http::head::{Method, RequestHead};
use upslot::http::range::{self, MARGIN, Ranges, Spec};
use upslot::http::response::Common;
use upslot::now::Now;

use super::exchange::{facts, written};
use super::{Choices, NOW, reference};

/// The value of `Last-Modified`.
const MODIFIED: &str = "Fri, 15 Jan 2027 07:43:20 GMT";

pub fn run(data: &[u8]) {
    let mut choices = Choices(data);
    let method = ["GET", "GET", "GET", "HEAD", "PUT", "OPTIONS"][usize::from(choices.byte()) % 6];
    let size = u64::from(choices.number()) % 3001;
    let size = if size > 2000 { size - 2000 } else { size % 40 };
    let lines = choices.rest();
    check_specs(lines, size);

    // `@` and `~` stand for the file's entity tag and modification date, which no fuzzer would guess.
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
    let (answer, used) = reference::answer(&output, method == "HEAD").expect("a whole response");
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
            200 => assert!(answer.body == file, "wrong content"),
            206 => check_parts(answer, &file),
            _ => assert!(answer.body.len() < 200),
        }
    }
    // 206 and 416 require a range in the request, 304 and 412 a condition.
    match answer.status {
        206 | 416 => assert!(has("range")),
        304 => assert!(has("if-none-match") || has("if-modified-since")),
        412 => assert!(has("if-match") || has("if-unmodified-since")),
        _ => {}
    }
    let tags = |name: &str| -> Vec<Vec<u8>> { request.fields(name).map(<[u8]>::to_vec).collect() };
    let only = |name: &str, value: &str| tags(name) == [value.as_bytes().to_vec()];
    let matches = only("if-match", etag) || only("if-match", "*") || !has("if-match");
    if has("if-match") {
        if only("if-match", etag) || only("if-match", "*") {
            assert_ne!(answer.status, 412);
        }
        // A list without the tag does not match.
        let named = tags("if-match")
            .iter()
            .any(|list| reference::find(list, etag.as_bytes()).is_some() || list.contains(&b'*'));
        assert!(named || answer.status == 412);
    }
    if matches && (has("if-match") || !has("if-unmodified-since")) {
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
        // A date in another form is valid, too.
        assert!(!tags("if-range")[0].starts_with(b"\"") && !tags("if-range")[0].starts_with(b"W"));
    }
}

/// The parts of a 206 have the bytes that their `Content-Range` says.
fn check_parts(answer: &reference::Answer, file: &[u8]) {
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
        "the response is much larger than the file"
    );
    let boundary = content_type
        .strip_prefix("multipart/byteranges; boundary=")
        .unwrap();
    let mut rest = &answer.body[..];
    let mut count = 0;
    loop {
        let delimiter = format!("\r\n--{boundary}");
        rest = rest.strip_prefix(delimiter.as_bytes()).expect("a boundary");
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

/// Ranges without a response, for files of any size.
fn check_specs(value: &[u8], small: u64) {
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
            let is_disjoint =
                |other: &std::ops::Range<u64>| range.end <= other.start || other.end <= range.start;
            assert!(
                ranges[..n].iter().all(is_disjoint),
                "overlapping ranges: {ranges:?}"
            );
        }
        let is_sent = |at: u64| ranges.iter().any(|range| range.contains(&at));
        for spec in &specs {
            let (first, last) = match *spec {
                Spec::From(first, last) => {
                    (first, last.unwrap_or(u64::MAX).min(size.wrapping_sub(1)))
                }
                Spec::Suffix(n) => (size.saturating_sub(n), size.wrapping_sub(1)),
            };
            if size > 0 && first < size && first <= last && *spec != Spec::Suffix(0) {
                assert!(
                    is_sent(first) && is_sent(last),
                    "{specs:?} of {size}: {ranges:?}"
                );
            }
        }
        if size <= 300 {
            let is_requested = |at: u64| {
                specs.iter().any(|spec| match *spec {
                    Spec::From(first, last) => first <= at && last.is_none_or(|last| at <= last),
                    Spec::Suffix(n) => at >= size.saturating_sub(n),
                })
            };
            assert!(
                (0..size).all(|at| !is_requested(at) || is_sent(at)),
                "{specs:?}"
            );
        }
    }
}
