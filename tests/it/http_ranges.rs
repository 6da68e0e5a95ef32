//! Ranges and conditions of GET and HEAD (RFC 9110 §13 and §14).

use std::time::{Duration, SystemTime};

use crate::harness::downloads::{digits, parts_of};
use crate::harness::site::ROMEO_FOLDER;
use crate::harness::{Plan, pseudo_random};

fn http_date(time: SystemTime) -> String {
    httpdate::fmt_http_date(time)
}

#[test]
fn single_ranges() {
    let (site, target) = digits();
    let mut client = site.client();
    let whole = client.get(&target).is(200);
    let cases: &[(&str, u16, &str, &str)] = &[
        ("bytes=0-0", 206, "bytes 0-0/10", "0"),
        ("bytes=0-1", 206, "bytes 0-1/10", "01"),
        ("bytes=5-", 206, "bytes 5-9/10", "56789"),
        ("bytes=0-", 206, "bytes 0-9/10", "0123456789"),
        ("bytes=-3", 206, "bytes 7-9/10", "789"),
        ("bytes=-20", 206, "bytes 0-9/10", "0123456789"),
        ("bytes=9-20", 206, "bytes 9-9/10", "9"),
        (
            "bytes=2-18446744073709551615",
            206,
            "bytes 2-9/10",
            "23456789",
        ),
        (
            "bytes=2-99999999999999999999999999",
            206,
            "bytes 2-9/10",
            "23456789",
        ),
        ("BYTES=1-2", 206, "bytes 1-2/10", "12"),
        ("bytes= 1-2", 206, "bytes 1-2/10", "12"),
        ("bytes=,1-2", 206, "bytes 1-2/10", "12"),
        ("bytes=10-", 416, "bytes */10", ""),
        ("bytes=10-12", 416, "bytes */10", ""),
        ("bytes=18446744073709551616-", 416, "bytes */10", ""),
        ("bytes=-0", 416, "bytes */10", ""),
        ("bytes=20-30,40-", 416, "bytes */10", ""),
        // Invalid by the grammar, or of an unknown unit: the field is ignored.
        ("bytes=5-4", 200, "", "0123456789"),
        ("bytes=a-b", 200, "", "0123456789"),
        ("bytes=--3", 200, "", "0123456789"),
        ("bytes=1", 200, "", "0123456789"),
        ("bytes=", 200, "", "0123456789"),
        ("bytes", 200, "", "0123456789"),
        ("items=0-1", 200, "", "0123456789"),
        ("bytes=+1-2", 200, "", "0123456789"),
        ("bytes=1-2;3", 200, "", "0123456789"),
    ];
    for (range, status, content_range, body) in cases {
        let reply = client.ask("GET", &target, &[("Range", range)], b"");
        assert_eq!(reply.status, *status, "Range: {range}");
        assert_eq!(
            reply.field("Content-Range").unwrap_or_default(),
            *content_range,
            "Range: {range}"
        );
        if *status != 416 {
            assert_eq!(reply.body, body.as_bytes(), "Range: {range}");
        }
        if *status == 206 {
            for (name, value) in whole.lasting_fields() {
                if !name.eq_ignore_ascii_case("content-length") {
                    assert_eq!(
                        reply.field(&name),
                        Some(value.as_str()),
                        "206 without the 200's {name}"
                    );
                }
            }
        }
        assert_eq!(
            reply.expect("Access-Control-Allow-Origin"),
            "*",
            "Range: {range}"
        );
    }
}

#[test]
fn multiple_ranges() {
    let (site, target) = digits();
    let mut client = site.client();
    let reply = client
        .ask("GET", &target, &[("Range", "bytes=0-1, 4-5,-1")], b"")
        .is(206);
    let parts = parts_of(&reply);
    let expected = [
        ("bytes 0-1/10", "01"),
        ("bytes 4-5/10", "45"),
        ("bytes 9-9/10", "9"),
    ];
    assert_eq!(parts.len(), expected.len());
    for ((kind, range, body), (expected_range, expected_body)) in parts.iter().zip(expected) {
        assert_eq!(kind, "text/plain; charset=utf-8");
        assert_eq!(range, expected_range);
        assert_eq!(body, expected_body.as_bytes());
    }
    assert!(!reply.has("Content-Range"), "RFC 9110 §15.3.7.2");

    // Unsatisfiable ranges are left out; a single one may be sent in either form.
    let reply = client
        .ask("GET", &target, &[("Range", "bytes=20-30,3-4")], b"")
        .is(206);
    match reply.field("Content-Range") {
        Some(range) => assert_eq!((range, &reply.body[..]), ("bytes 3-4/10", &b"34"[..])),
        None => assert_eq!(parts_of(&reply)[0].2, b"34"),
    }
}

#[test]
fn many_ranges_do_not_amplify() {
    let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/big.bin");
    let body = pseudo_random(2, 300_000);
    let site = Plan::alone().seed(&path, &body).start();
    let target = format!("/files/{path}");
    let mut client = site.client();
    let overlapping = format!("bytes=0-{}", ",0-".repeat(1000));
    let tiny = format!(
        "bytes={}",
        (0..1000)
            .map(|i| format!("{}-{}", i * 2, i * 2))
            .collect::<Vec<_>>()
            .join(",")
    );
    let backwards = format!(
        "bytes={}",
        (0..500)
            .rev()
            .map(|i| format!("{i}-"))
            .collect::<Vec<_>>()
            .join(",")
    );
    for range in [overlapping, tiny, backwards] {
        let reply = client.ask("GET", &target, &[("Range", &range)], b"");
        assert!(matches!(reply.status, 200 | 206 | 416), "{}", reply.status);
        assert!(
            reply.body.len() < body.len() + body.len() / 4,
            "{} bytes for {}",
            reply.body.len(),
            body.len()
        );
    }
    // A few ranges of a larger file are complete.
    let reply = client
        .ask(
            "GET",
            &target,
            &[("Range", "bytes=100000-199999,250000-250009")],
            b"",
        )
        .is(206);
    let parts = parts_of(&reply);
    assert!(parts[0].2 == body[100_000..200_000] && parts[1].2 == body[250_000..250_010]);
}

#[test]
fn conditions() {
    let (site, target) = digits();
    let mut client = site.client();
    let whole = client.get(&target).is(200);
    let etag = whole.expect("ETag").to_owned();
    let weak = format!("W/{etag}");
    let list = format!("\"a\", {etag} , \"b\"");
    let same = whole.expect("Last-Modified").to_owned();
    let modified = httpdate::parse_http_date(&same).unwrap();
    let before = http_date(modified - Duration::from_secs(1));
    let after = http_date(modified + Duration::from_secs(1));
    // The obsolete date formats must be accepted (RFC 9110 §5.6.7).
    let old_forms = old_dates(modified);
    let mut cases: Vec<(Vec<(&str, &str)>, u16)> = vec![
        (vec![("If-None-Match", &etag)], 304),
        (vec![("If-None-Match", &weak)], 304),
        (vec![("If-None-Match", "*")], 304),
        (vec![("If-None-Match", &list)], 304),
        (
            vec![("If-None-Match", "\"a\""), ("If-None-Match", &etag)],
            304,
        ),
        (vec![("If-None-Match", "\"a\"")], 200),
        (vec![("If-None-Match", "\"a, *\"")], 200),
        (
            vec![("If-None-Match", "\"a\""), ("If-Modified-Since", &same)],
            200,
        ),
        (
            vec![("If-None-Match", &etag), ("If-Modified-Since", &before)],
            304,
        ),
        (vec![("If-Modified-Since", &same)], 304),
        (vec![("If-Modified-Since", &after)], 304),
        (vec![("If-Modified-Since", &before)], 200),
        (vec![("If-Modified-Since", "yesterday")], 200),
        (vec![("If-Modified-Since", "")], 200),
        (vec![("If-Match", &etag)], 200),
        (vec![("If-Match", "*")], 200),
        (vec![("If-Match", &list)], 200),
        (vec![("If-Match", &weak)], 412),
        (vec![("If-Match", "\"a\"")], 412),
        (vec![("If-Match", "\"a\""), ("If-Match", &etag)], 200),
        (vec![("If-Unmodified-Since", &same)], 200),
        (vec![("If-Unmodified-Since", &after)], 200),
        (vec![("If-Unmodified-Since", &before)], 412),
        (vec![("If-Unmodified-Since", "yesterday")], 200),
        (
            vec![("If-Match", &etag), ("If-Unmodified-Since", &before)],
            200,
        ),
        (vec![("If-Match", "\"a\""), ("If-None-Match", &etag)], 412),
        (vec![("If-Match", &etag), ("If-None-Match", &etag)], 304),
        (vec![("If-None-Match", &etag), ("Range", "bytes=0-1")], 304),
        (vec![("If-Match", "\"a\""), ("Range", "bytes=99-")], 412),
        (
            vec![("If-None-Match", "\"a\""), ("Range", "bytes=0-1")],
            206,
        ),
        // If-Range (RFC 9110 §13.1.5): a strong comparison, and the whole file otherwise.
        (vec![("If-Range", &etag), ("Range", "bytes=0-1")], 206),
        (vec![("If-Range", &same), ("Range", "bytes=0-1")], 206),
        (vec![("If-Range", &weak), ("Range", "bytes=0-1")], 200),
        (vec![("If-Range", "\"a\""), ("Range", "bytes=0-1")], 200),
        (vec![("If-Range", &before), ("Range", "bytes=0-1")], 200),
        (vec![("If-Range", &after), ("Range", "bytes=0-1")], 200),
        (vec![("If-Range", "\"a\""), ("Range", "bytes=99-")], 200),
        (vec![("If-Range", &etag), ("Range", "bytes=99-")], 416),
        (vec![("If-Range", &etag)], 200),
    ];
    for date in &old_forms {
        cases.push((vec![("If-Modified-Since", date)], 304));
    }
    for (fields, status) in &cases {
        let reply = client.ask("GET", &target, fields, b"");
        assert_eq!(reply.status, *status, "{fields:?}");
        assert_eq!(
            reply.expect("Access-Control-Allow-Origin"),
            "*",
            "{fields:?}"
        );
        if *status == 304 {
            assert_eq!(reply.expect("ETag"), etag);
            assert_eq!(reply.expect("Cache-Control"), whole.expect("Cache-Control"));
        }
        let ranged = fields.iter().any(|(name, _)| *name == "Range");
        let head = client.ask("HEAD", &target, fields, b"");
        let expected = match status {
            206 | 416 if ranged => 200,
            status => *status,
        };
        assert_eq!(head.status, expected, "HEAD {fields:?}");
    }
}

/// RFC 850 and asctime formats of a time.
fn old_dates(time: SystemTime) -> [String; 2] {
    // Sun, 06 Nov 1994 08:49:37 GMT
    let fixed = http_date(time);
    let (day, month, year, clock) = (&fixed[5..7], &fixed[8..11], &fixed[12..16], &fixed[17..25]);
    let long = match &fixed[..3] {
        "Mon" => "Monday",
        "Tue" => "Tuesday",
        "Wed" => "Wednesday",
        "Thu" => "Thursday",
        "Fri" => "Friday",
        "Sat" => "Saturday",
        _ => "Sunday",
    };
    let padded = day
        .strip_prefix('0')
        .map_or_else(|| day.to_owned(), |digit| format!(" {digit}"));
    [
        format!("{long}, {day}-{month}-{} {clock} GMT", &year[2..]),
        format!("{} {month} {padded} {clock} {year}", &fixed[..3]),
    ]
}

#[test]
fn head_ignores_ranges() {
    let (site, target) = digits();
    let mut client = site.client();
    for range in ["bytes=0-1", "bytes=99-", "bytes=0-1,3-4"] {
        let reply = client
            .ask("HEAD", &target, &[("Range", range)], b"")
            .is(200);
        assert_eq!(reply.expect("Content-Length"), "10");
        assert!(!reply.has("Content-Range"));
    }
}

#[test]
fn an_empty_file() {
    let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/empty.txt");
    let site = Plan::alone().seed(&path, b"").start();
    let target = format!("/files/{path}");
    let mut client = site.client();
    assert_eq!(client.get(&target).is(200).expect("Content-Length"), "0");
    assert_eq!(
        client
            .ask("HEAD", &target, &[], b"")
            .is(200)
            .expect("Content-Length"),
        "0"
    );
    let reply = client
        .ask("GET", &target, &[("Range", "bytes=0-")], b"")
        .is(416);
    assert_eq!(reply.expect("Content-Range"), "bytes */0");
}
