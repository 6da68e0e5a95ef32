//! GET and HEAD: files, validators, ranges, names, types, and everything that is not there.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::harness::site::{ROMEO_FOLDER, age, seed, set_attribute, set_kept_type};
use crate::harness::{Client, Plan, Reply, Site, pseudo_random, request, unix_now};

const DIGITS: &[u8] = b"0123456789";

/// A day, so that a modification time is a strong validator (RFC 9110 §8.8.2.2).
const DAY: u64 = 86_400;

/// A site with one old file of ten digits, and the target of that file.
fn digits() -> (Site, String) {
    let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/digits.txt");
    let site = Plan::alone().seed(&path, DIGITS).start();
    age(&site.store().join(&path), DAY);
    (site, format!("/files/{path}"))
}

fn http_date(time: SystemTime) -> String {
    httpdate::fmt_http_date(time)
}

/// No script of an upload runs, whatever its type.
#[track_caller]
fn assert_tame(reply: &Reply) {
    assert_eq!(reply.expect("X-Content-Type-Options"), "nosniff");
    let policy = reply.expect("Content-Security-Policy");
    let of = |name: &str| {
        policy
            .split(';')
            .map(str::trim)
            .find_map(|part| part.strip_prefix(name))
            .map(str::trim)
    };
    let sources = of("script-src ")
        .or_else(|| of("default-src "))
        .unwrap_or("*");
    let sandboxed = policy.contains("sandbox") && !policy.contains("allow-scripts");
    assert!(
        sources == "'none'" || sandboxed,
        "scripts may run: {policy}"
    );
}

#[test]
fn a_file_comes_with_all_its_fields() {
    let (site, target) = digits();
    let reply = site.get(&target).is(200);
    assert_eq!(reply.body, DIGITS);
    assert_eq!(reply.expect("Content-Length"), "10");
    assert_eq!(reply.expect("Content-Type"), "text/plain; charset=utf-8");
    assert_eq!(reply.expect("Accept-Ranges"), "bytes");
    let etag = reply.expect("ETag");
    assert!(
        etag.len() > 2 && etag.starts_with('"') && etag.ends_with('"'),
        "{etag}"
    );
    assert!(!etag[1..etag.len() - 1].contains('"'), "{etag}");
    let modified = httpdate::parse_http_date(reply.expect("Last-Modified")).unwrap();
    let age = SystemTime::now().duration_since(modified).unwrap();
    assert!(
        age >= Duration::from_secs(DAY) && age < Duration::from_secs(DAY + 120),
        "{age:?}"
    );
    let cache = reply.expect("Cache-Control");
    for part in ["immutable", "no-transform", "max-age="] {
        assert!(cache.contains(part), "{cache}");
    }
    assert!(
        reply.expect("Content-Disposition").starts_with("inline"),
        "{reply:?}"
    );
    assert_eq!(reply.expect("Access-Control-Allow-Origin"), "*");
    assert_tame(&reply);
}

#[test]
fn head_says_what_get_would_say() {
    let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/très cool.jpg");
    let site = Plan::alone().seed(&path, &pseudo_random(1, 70_000)).start();
    let mut client = site.client();
    for target in [
        &format!("/files/{ROMEO_FOLDER}/Abcdefghijk12/tr%C3%A8s%20cool.jpg"),
        "/",
        "/files/no/such",
    ] {
        let get = client.get(target);
        let head = client.ask("HEAD", target, &[], b"");
        assert_eq!(head.status, get.status);
        assert_eq!(head.lasting_fields(), get.lasting_fields());
        assert_eq!(get.body.len().to_string(), head.expect("Content-Length"));
    }
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
        // Not a range by the grammar, or of a unit that nobody knows: the field is ignored.
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

/// The parts of a multipart/byteranges body (RFC 9110 §14.6): type, Content-Range, bytes.
fn parts_of(reply: &Reply) -> Vec<(String, String, Vec<u8>)> {
    let kind = reply.expect("Content-Type");
    let boundary = kind
        .strip_prefix("multipart/byteranges; boundary=")
        .unwrap_or_else(|| panic!("{kind}"));
    let boundary = boundary.trim_matches('"');
    let mut rest = &reply.body[..];
    let mut parts = Vec::new();
    let find =
        |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).position(|window| window == part);
    loop {
        let line = format!("--{boundary}");
        let start = find(rest, line.as_bytes()).expect("a boundary") + line.len();
        if rest[start..].starts_with(b"--") {
            return parts;
        }
        let head_end = find(&rest[start..], b"\r\n\r\n").unwrap() + start + 4;
        let head = String::from_utf8(rest[start..head_end].to_vec()).unwrap();
        let field = |name: &str| {
            let line = head
                .lines()
                .find(|line| line.to_ascii_lowercase().starts_with(name));
            line.unwrap_or_else(|| panic!("no {name} in {head:?}"))
                .split_once(": ")
                .unwrap()
                .1
                .to_owned()
        };
        let end =
            find(&rest[head_end..], format!("\r\n--{boundary}").as_bytes()).unwrap() + head_end;
        parts.push((
            field("content-type"),
            field("content-range"),
            rest[head_end..end].to_vec(),
        ));
        rest = &rest[end..];
    }
}

#[test]
fn several_ranges_make_parts() {
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

    // Ranges that cannot be satisfied are left out; what is left may be told either way.
    let reply = client
        .ask("GET", &target, &[("Range", "bytes=20-30,3-4")], b"")
        .is(206);
    match reply.field("Content-Range") {
        Some(range) => assert_eq!((range, &reply.body[..]), ("bytes 3-4/10", &b"34"[..])),
        None => assert_eq!(parts_of(&reply)[0].2, b"34"),
    }
}

#[test]
fn many_ranges_are_no_amplifier() {
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
    // A few ranges over a larger file come byte for byte.
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
    // The obsolete forms of a date have to be read (RFC 9110 §5.6.7).
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

/// RFC 850 and asctime forms of a moment.
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

#[test]
fn types_and_dispositions() {
    // Extension, kept type, type expected, inline.
    let cases: &[(&str, Option<&[u8]>, &str, bool)] = &[
        ("jpg", None, "image/jpeg", true),
        ("JPEG", None, "image/jpeg", true),
        ("png", None, "image/png", true),
        ("gif", None, "image/gif", true),
        ("webp", None, "image/webp", true),
        ("avif", None, "image/avif", true),
        ("jxl", None, "image/jxl", true),
        ("heic", None, "image/heic", true),
        ("svg", None, "image/svg+xml", false),
        ("mp4", None, "video/mp4", true),
        ("webm", None, "video/webm", true),
        ("mp3", None, "audio/mpeg", true),
        ("txt", None, "text/plain", true),
        ("pdf", None, "application/pdf", false),
        ("html", None, "text/html", false),
        ("xhtml", None, "application/xhtml+xml", false),
        ("zip", None, "application/zip", false),
        (
            "apk",
            None,
            "application/vnd.android.package-archive",
            false,
        ),
        ("unheardof", None, "application/octet-stream", false),
        // Script is told to be nothing in particular, so that no page can load it.
        ("js", None, "application/octet-stream", false),
        ("mjs", None, "application/octet-stream", false),
        (
            "txt",
            Some(b"text/JavaScript; charset=utf-8"),
            "application/octet-stream",
            false,
        ),
        ("bin", Some(b"image/png"), "image/png", true),
        ("jpg", Some(b"text/html"), "text/html", false),
        ("png", Some(b"image/svg+xml"), "image/svg+xml", false),
        (
            "dat",
            Some(b"text/plain; charset=utf-8"),
            "text/plain",
            true,
        ),
        // A kept type that is none is as good as absent.
        ("jpg", Some(b"image/png\r\nX-Evil: 1"), "image/jpeg", true),
        ("jpg", Some(b"nonsense"), "image/jpeg", true),
        ("jpg", Some(b""), "image/jpeg", true),
        ("jpg", Some(b"image/\xff\xfe"), "image/jpeg", true),
    ];
    let site = Plan::alone().start();
    let mut client = site.client();
    for (number, (extension, kept, kind, inline)) in cases.iter().enumerate() {
        let path = format!("{ROMEO_FOLDER}/Abcdefghijk{number:02}/file.{extension}");
        let file = seed(&site.store(), &path, DIGITS);
        if let Some(kept) = kept {
            if !set_kept_type(&file, kept) {
                continue;
            }
        }
        let reply = client.get(&format!("/files/{path}")).is(200);
        let told = reply.expect("Content-Type");
        assert_eq!(told.split(';').next(), Some(*kind), "{path} {kept:?}");
        assert!(
            kept.is_some() || *kind == "text/plain" || told == *kind,
            "a parameter that nobody gave: {told}"
        );
        assert!(!reply.has("X-Evil"));
        let disposition = reply.expect("Content-Disposition");
        let expected = if *inline { "inline" } else { "attachment" };
        assert!(
            disposition.starts_with(expected),
            "{path} {kept:?}: {disposition}"
        );
        assert_tame(&reply);
    }
    // Without an extension there is nothing to go by.
    let path = format!("{ROMEO_FOLDER}/Abcdefghijkxx/README");
    seed(&site.store(), &path, DIGITS);
    assert_eq!(
        client
            .get(&format!("/files/{path}"))
            .is(200)
            .expect("Content-Type"),
        "application/octet-stream"
    );
}

/// The types of a file in the answers to GET, HEAD, a range, and several; they must agree.
#[track_caller]
fn type_of(site: &Site, target: &str) -> String {
    let mut client = site.client();
    let whole = client.get(target).is(200);
    let told = whole.expect("Content-Type").to_owned();
    let head = client.ask("HEAD", target, &[], b"").is(200);
    assert_eq!(head.expect("Content-Type"), told, "HEAD of {target}");
    let etag = whole.expect("ETag").to_owned();
    let same = client.ask("GET", target, &[("If-None-Match", &etag)], b"");
    assert!(!same.is(304).has("Content-Type"), "{target}");
    if whole.body.len() >= 5 {
        let one = client.ask("GET", target, &[("Range", "bytes=1-2")], b"");
        assert_eq!(
            one.is(206).expect("Content-Type"),
            told,
            "a part of {target}"
        );
    }
    if whole.body.len() > 4000 {
        let many = client.ask("GET", target, &[("Range", "bytes=1-2,-3")], b"");
        for (kind, ..) in parts_of(&many.is(206)) {
            assert_eq!(kind, told, "parts of {target}");
        }
    }
    told
}

/// Files that upslot has not stored itself, in the trees of its predecessors.
#[test]
fn text_that_is_utf8_is_labelled() {
    let long = |text: &str, size: usize| text.repeat(size / text.len() + 1);
    let mixed = long("Grüße ☕ 😀 aaa", 300_000);
    let with = |at: usize, byte: u8| {
        let mut bytes = long("plain ", 300_000).into_bytes();
        bytes[at] = byte;
        bytes
    };
    let utf16: Vec<u8> = "\u{feff}Grüße"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let labelled = "text/plain; charset=utf-8";
    // Name, content, kept type, type told.
    type Case<'a> = (&'a str, &'a [u8], Option<&'a [u8]>, &'a str);
    let cases: &[Case<'_>] = &[
        ("a.txt", "Grüße ☕".as_bytes(), None, labelled),
        ("a.log", b"ascii\n", None, labelled),
        ("a.txt", b"", None, labelled),
        ("a.txt", "\u{feff}mark".as_bytes(), None, labelled),
        ("a.txt", mixed.as_bytes(), None, labelled),
        ("a.txt", &mixed.as_bytes()[..8009], None, "text/plain"),
        ("a.txt", b"Gr\xfc\xdfe", None, "text/plain"),
        ("a.txt", &utf16, None, "text/plain"),
        ("a.txt", b"h\0i\0", None, "text/plain"),
        ("a.txt", &with(10, 0xe9), None, "text/plain"),
        ("a.txt", &with(150_000, 0xe9), None, "text/plain"),
        ("a.txt", &with(299_990, 0xe9), None, "text/plain"),
        ("a.bin", "é".as_bytes(), Some(b"text/plain"), labelled),
        (
            "a.bin",
            "é".as_bytes(),
            Some(b"Text/Plain; format=flowed"),
            "Text/Plain; format=flowed; charset=utf-8",
        ),
        (
            "a.txt",
            "é".as_bytes(),
            Some(b"text/plain; charset=iso-8859-1"),
            "text/plain; charset=iso-8859-1",
        ),
        (
            "a.txt",
            "é".as_bytes(),
            Some(b"text/plain;CHARSET=\"UTF-8\""),
            "text/plain;CHARSET=\"UTF-8\"",
        ),
        // Not shown, or no text.
        ("a.html", "é".as_bytes(), None, "text/html"),
        ("a.csv", "é".as_bytes(), None, "text/csv"),
        ("a.json", "é".as_bytes(), None, "application/json"),
        ("a.js", "é".as_bytes(), None, "application/octet-stream"),
        ("a.jpg", b"ascii", None, "image/jpeg"),
        ("a", "é".as_bytes(), None, "application/octet-stream"),
    ];
    let site = Plan::alone().start();
    for (number, (name, content, kept, told)) in cases.iter().enumerate() {
        for path in [
            format!("{ROMEO_FOLDER}/Abcdefghijk{number:02}/{name}"),
            format!("{ROMEO_FOLDER}/{number:02}{name}"),
            format!("4a771ac1-f0b2-4a4a-9700-f2a26fa2bb{number:02}/{name}"),
            format!("thomas/{number}/{name}"),
        ] {
            let file = seed(&site.store(), &path, content);
            age(&file, DAY);
            if kept.is_some_and(|kept| !set_kept_type(&file, kept)) {
                continue;
            }
            let found = type_of(&site, &format!("/files/{path}"));
            assert_eq!(found, *told, "{path} {kept:?}, {} bytes", content.len());
        }
    }
}

#[test]
fn a_kept_charset_is_believed() {
    let site = Plan::alone().start();
    for (number, (kept, told)) in [
        ("utf-8", "text/plain; charset=utf-8"),
        ("UTF-8", "text/plain; charset=utf-8"),
        ("unknown-8bit", "text/plain"),
        ("iso-8859-1", "text/plain"),
        (&*"x".repeat(200), "text/plain"),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("{ROMEO_FOLDER}/Abcdefghijk{number:02}/a.txt");
        let file = seed(&site.store(), &path, "é".as_bytes());
        if set_attribute(&file, "user.charset", kept.as_bytes()) {
            assert_eq!(type_of(&site, &format!("/files/{path}")), told, "{kept}");
        }
    }
}

#[test]
fn text_of_any_safe_type_is_labelled() {
    let site = Plan::alone()
        .set("safe_file_types", "['text/*', text/html]")
        .start();
    for (name, told) in [
        ("a.html", "text/html; charset=utf-8"),
        ("a.csv", "text/csv; charset=utf-8"),
        ("a.md", "text/markdown; charset=utf-8"),
        ("a.js", "application/octet-stream"),
        ("a.xml", "application/xml"),
    ] {
        let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/{name}");
        seed(&site.store(), &path, "é".as_bytes());
        assert_eq!(type_of(&site, &format!("/files/{path}")), told, "{name}");
    }
}

#[test]
fn safe_types_are_configured() {
    let site = Plan::alone()
        .set("safe_file_types", "[text/html, 'audio/*']")
        .start();
    for (name, inline) in [
        ("a.html", true),
        ("a.mp3", true),
        ("a.png", false),
        ("a.txt", false),
    ] {
        let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/{name}");
        seed(&site.store(), &path, DIGITS);
        let reply = site.get(&format!("/files/{path}")).is(200);
        assert_eq!(
            reply.expect("Content-Disposition").starts_with("inline"),
            inline,
            "{name}"
        );
        assert_tame(&reply);
    }
}

/// The file name that a client reads from a Content-Disposition (RFC 6266 §4.3, RFC 8187).
pub fn name_of(disposition: &str) -> String {
    if let Some(at) = disposition.find("filename*=") {
        let value = disposition[at + 10..].split(';').next().unwrap().trim();
        let encoded = value
            .strip_prefix("UTF-8''")
            .unwrap_or_else(|| panic!("{disposition}"));
        let attr_char = |c: char| c.is_ascii_alphanumeric() || "!#$&+-.^_`|~%".contains(c);
        assert!(
            encoded.chars().all(attr_char),
            "not of attr-char: {disposition}"
        );
        return percent_encoding::percent_decode_str(encoded)
            .decode_utf8()
            .unwrap()
            .into_owned();
    }
    let at = disposition
        .find("filename=")
        .unwrap_or_else(|| panic!("no name in {disposition}"));
    let value = &disposition[at + 9..];
    let Some(quoted) = value.strip_prefix('"') else {
        return value.split(';').next().unwrap().trim().to_owned();
    };
    let mut name = String::new();
    let mut chars = quoted.chars();
    loop {
        match chars.next().expect("the closing quote") {
            '"' => return name,
            '\\' => name.push(chars.next().unwrap()),
            c => name.push(c),
        }
    }
}

#[test]
fn names_are_told() {
    let site = Plan::alone().start();
    let mut client = site.client();
    let names = [
        "plain.txt",
        "two words.txt",
        "très cool.jpg",
        "💚.png",
        "a\"b\\c.txt",
        "a;b=c, d'e.txt",
        "100%.txt",
        "a\tb",
    ];
    for name in names {
        seed(
            &site.store(),
            &format!("{ROMEO_FOLDER}/Abcdefghijk12/{name}"),
            DIGITS,
        );
        let encoded =
            percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
        let reply = client.get(&format!("/files/{ROMEO_FOLDER}/Abcdefghijk12/{encoded}"));
        let disposition = reply.is(200).expect("Content-Disposition").to_owned();
        // A control character cannot be told, the rest of the name can.
        assert_eq!(
            name_of(&disposition).replace(['\t', '_'], " "),
            name.replace('\t', " "),
            "{disposition}"
        );
    }
}

#[test]
fn what_is_not_there_looks_always_the_same() {
    let site = Plan::alone().start();
    let store = site.store();
    let file = seed(
        &store,
        &format!("{ROMEO_FOLDER}/Abcdefghijk12/real.txt"),
        DIGITS,
    );
    let outside = seed(site.dir.path(), "outside.txt", b"outside");
    let folder = file.parent().unwrap().to_owned();
    seed(
        &store,
        &format!("{ROMEO_FOLDER}/Abcdefghijk12/.hidden.txt"),
        DIGITS,
    );
    seed(&store, &format!("{ROMEO_FOLDER}/.hidden/real.txt"), DIGITS);
    seed(&store, ".dots", DIGITS);
    symlink(&file, folder.join("link-inside.txt")).unwrap();
    symlink("real.txt", folder.join("link-beside.txt")).unwrap();
    symlink(&outside, folder.join("link-out.txt")).unwrap();
    symlink("nowhere", folder.join("link-broken.txt")).unwrap();
    symlink(&folder, store.join(ROMEO_FOLDER).join("Linkedfolder1")).unwrap();
    symlink(site.dir.path(), store.join("Linkedfolder2")).unwrap();
    mknodat(
        CWD,
        folder.join("pipe.txt"),
        FileType::Fifo,
        Mode::from_raw_mode(0o644),
        0,
    )
    .unwrap();
    let listener = std::os::unix::net::UnixListener::bind(folder.join("sock.txt")).unwrap();
    let below = format!("{ROMEO_FOLDER}/Abcdefghijk12");
    let long = "x".repeat(300);
    let deep = "x/".repeat(500);
    let targets = [
        format!("/files/{below}/missing.txt"),
        "/files/AAAAAAAAAAAAAAAAAAAAAAAAAAA/Abcdefghijk12/missing.txt".to_owned(),
        format!("/files/{ROMEO_FOLDER}/Missingfoldr/missing.txt"),
        format!("/files/{ROMEO_FOLDER}"),
        format!("/files/{ROMEO_FOLDER}/"),
        format!("/files/{below}"),
        format!("/files/{below}/"),
        format!("/files/{below}/real.txt/"),
        format!("/files/{below}/real.txt/more"),
        "/files/AAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned(),
        "/files/AAAAAAAAAAAAAAAAAAAAAAAAAAA/".to_owned(),
        "/files/missing.txt".to_owned(),
        format!("/files/{below}/.hidden.txt"),
        format!("/files/{ROMEO_FOLDER}/.hidden/real.txt"),
        "/files/.dots".to_owned(),
        "/files/.upslot".to_owned(),
        "/files/.upslot/slot_secret".to_owned(),
        "/files/%2eupslot/slot_secret".to_owned(),
        format!("/files/{below}/link-inside.txt"),
        format!("/files/{below}/link-beside.txt"),
        format!("/files/{below}/link-out.txt"),
        format!("/files/{below}/link-broken.txt"),
        format!("/files/{ROMEO_FOLDER}/Linkedfolder1/real.txt"),
        "/files/Linkedfolder2/outside.txt".to_owned(),
        format!("/files/{below}/pipe.txt"),
        format!("/files/{below}/sock.txt"),
        "/files/../outside.txt".to_owned(),
        "/../outside.txt".to_owned(),
        "/files/%2e%2e/outside.txt".to_owned(),
        "/files/..%2foutside.txt".to_owned(),
        "/files/%2E%2E%2Foutside.txt".to_owned(),
        format!("/files/{ROMEO_FOLDER}/../../../outside.txt"),
        format!("/files/{below}/../Abcdefghijk12/real.txt"),
        format!("/files/{below}/./real.txt"),
        format!("/files/{below}/%2e/real.txt"),
        format!("/files/{ROMEO_FOLDER}%2fAbcdefghijk12%2freal.txt"),
        format!("/files/{below}//real.txt"),
        format!("/files//{below}/real.txt"),
        format!("/files/{below}/real.txt%00"),
        format!("/files/{below}/real.txt%00.jpg"),
        format!("/files/{below}/%252e%252e/Abcdefghijk12/real.txt"),
        format!("/files/{below}/real%25252etxt"),
        format!("/files/{below}/%ff%fe"),
        format!("/files/{below}/{long}"),
        format!("/files/{deep}"),
        format!("/files/files/files/{below}/real.txt"),
        format!("/file/{below}/real.txt"),
        "/etc/passwd".to_owned(),
        "/files//etc/passwd".to_owned(),
        "/files/%2fetc/passwd".to_owned(),
        "/favicon.ico".to_owned(),
        "/metrics".to_owned(),
        "/health".to_owned(),
        "/slot/?jid=romeo%40montague.tld&name=a&size=1".to_owned(),
    ];
    let mut client = site.client();
    let model = client.get(&targets[0]).is(404);
    let model_head = client.ask("HEAD", &targets[0], &[], b"").is(404);
    let cache = model.field("Cache-Control").unwrap_or("no-store");
    let seconds = cache.split("max-age=").nth(1).map_or(0, |rest| {
        rest.chars()
            .take_while(char::is_ascii_digit)
            .collect::<String>()
            .parse::<u64>()
            .unwrap()
    });
    assert!(
        seconds <= 300 && !cache.contains("immutable"),
        "a 404 is kept too long: {cache}"
    );
    for target in &targets {
        let reply = client.get(target);
        assert_eq!(reply.status, 404, "{target}");
        assert_eq!(reply.body, model.body, "{target}");
        assert_eq!(reply.lasting_fields(), model.lasting_fields(), "{target}");
        let head = client.ask("HEAD", target, &[], b"");
        assert_eq!(
            (head.status, head.lasting_fields()),
            (404, model_head.lasting_fields()),
            "HEAD {target}"
        );
        // A condition or a range tells no more.
        let ranged = client.ask(
            "GET",
            target,
            &[("Range", "bytes=0-0"), ("If-None-Match", "*")],
            b"",
        );
        assert_eq!(
            (ranged.status, &ranged.body),
            (404, &model.body),
            "{target}"
        );
    }
    assert_eq!(
        client.get(&format!("/files/{below}/real.txt")).is(200).body,
        DIGITS
    );
    drop(listener);
}

#[test]
fn prefix_kept_stripped_or_doubled() {
    let (site, target) = digits();
    let below = target.strip_prefix("/files").unwrap();
    let mut client = site.client();
    for target in [
        target.clone(),
        below.to_owned(),
        format!("/files{target}"),
        format!("{target}?x=1"),
        format!("{target}?"),
        format!("http://upload.localhost{target}"),
        format!("https://upload.localhost:443{target}"),
        format!("HTTP://elsewhere.example{below}"),
    ] {
        assert_eq!(client.get(&target).is(200).body, DIGITS, "{target}");
    }
}

#[test]
fn a_prefix_without_a_path() {
    let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/a.txt");
    for base in [
        "https://upload.localhost",
        "https://upload.localhost/",
        "https://upload.localhost/a/b%20c",
    ] {
        let site = Plan::alone()
            .set("get_url", base)
            .set("put_url", base)
            .seed(&path, DIGITS)
            .start();
        assert_eq!(site.get(&format!("/{path}")).is(200).body, DIGITS);
        if base.ends_with("c") {
            assert_eq!(site.get(&format!("/a/b%20c/{path}")).is(200).body, DIGITS);
        }
    }
}

#[test]
fn paths_are_decoded_once() {
    let site = Plan::alone().start();
    let below = format!("{ROMEO_FOLDER}/Abcdefghijk12");
    for name in [
        "très cool.jpg",
        "a+b c.txt",
        "100%25.txt",
        "~tilde-._.txt",
        "q?h#.txt",
    ] {
        seed(&site.store(), &format!("{below}/{name}"), name.as_bytes());
    }
    let cases = [
        ("tr%C3%A8s%20cool.jpg", Some("très cool.jpg")),
        ("tr%c3%a8s%20cool.jpg", Some("très cool.jpg")),
        ("%74%72%C3%a8s%20cool%2Ejpg", Some("très cool.jpg")),
        ("très%20cool.jpg", Some("très cool.jpg")),
        ("a+b%20c.txt", Some("a+b c.txt")),
        ("a%2Bb%20c.txt", Some("a+b c.txt")),
        ("a+b+c.txt", None),
        ("100%2525.txt", Some("100%25.txt")),
        ("100%25.txt", None),
        ("~tilde-._.txt", Some("~tilde-._.txt")),
        ("%7Etilde%2D%2E%5F.txt", Some("~tilde-._.txt")),
        ("q%3Fh%23.txt", Some("q?h#.txt")),
        ("q?h#.txt", None),
    ];
    for (encoded, name) in cases {
        // A connection of its own: `#` in a target may be answered with 400 and the end.
        let reply = site.get(&format!("/files/{below}/{encoded}"));
        match name {
            Some(name) => assert_eq!(reply.is(200).body, name.as_bytes(), "{encoded}"),
            None => assert!(
                matches!(reply.status, 400 | 404),
                "{encoded}: {}",
                reply.status
            ),
        }
    }
}

#[test]
fn old_trees_are_served_in_place() {
    let site = Plan::alone()
        .seed(&format!("{ROMEO_FOLDER}/0123456789abc/a b.txt"), b"three")
        .seed(&format!("{ROMEO_FOLDER}/0123456789abd"), b"two")
        .seed(
            "4a771ac1-f0b2-4a4a-9700-f2a26fa2bb67/très cool.jpg",
            b"filer",
        )
        .start();
    let mut client = site.client();
    for (target, body) in [
        (
            format!("/files/{ROMEO_FOLDER}/0123456789abc/a%20b.txt"),
            "three",
        ),
        (format!("/files/{ROMEO_FOLDER}/0123456789abd"), "two"),
        (
            "/files/4a771ac1-f0b2-4a4a-9700-f2a26fa2bb67/tr%c3%a8s%20cool.jpg".to_owned(),
            "filer",
        ),
    ] {
        assert_eq!(
            client.get(&target).is(200).body,
            body.as_bytes(),
            "{target}"
        );
    }
}

#[test]
fn the_root_says_what_this_is() {
    let site = Plan::alone().start();
    let reply = site.get("/").is(200);
    assert!(reply.expect("Content-Type").starts_with("text/plain"));
    let text = String::from_utf8(reply.body).unwrap();
    assert_eq!(text.trim_end().lines().count(), 1, "{text:?}");
    assert!(text.contains("upslot"), "{text:?}");
}

#[test]
fn other_methods() {
    let (site, target) = digits();
    for method in ["POST", "DELETE", "PATCH", "TRACE"] {
        let reply = site.client().ask(method, &target, &[], b"").is(405);
        let allow = reply.expect("Allow");
        for known in ["GET", "HEAD", "PUT", "OPTIONS"] {
            assert!(allow.split(',').any(|word| word.trim() == known), "{allow}");
        }
        assert_ne!(reply.body, b"", "{method}");
    }
    for method in ["BREW", "get", "GETS", "X-PUT", "!#$%&'*+-.^_`|~"] {
        site.client().ask(method, &target, &[], b"").is(501);
    }
    assert_eq!(site.get(&target).is(200).body, DIGITS);
}

#[test]
fn downloads_by_another_server() {
    let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/a.txt");
    let site = Plan::alone()
        .set("serve_downloads", false)
        .seed(&path, DIGITS)
        .start();
    let mut client = site.client();
    let there = client.get(&format!("/files/{path}")).is(403);
    let missing = client.get("/files/no/such/file").is(403);
    assert_eq!(
        (there.lasting_fields(), there.body),
        (missing.lasting_fields(), missing.body)
    );
    client
        .ask("HEAD", &format!("/files/{path}"), &[], b"")
        .is(403);
}

#[test]
fn custom_fields_stand_on_every_answer() {
    let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/a.txt");
    let site = Plan::alone()
        .set(
            "custom_headers",
            "{X-Served-By: 'a house', Strict-Transport-Security: max-age=31536000}",
        )
        .seed(&path, DIGITS)
        .start();
    let requests = [
        request("GET", &format!("/files/{path}"), &[], b""),
        request(
            "GET",
            &format!("/files/{path}"),
            &[("Range", "bytes=0-1")],
            b"",
        ),
        request(
            "GET",
            &format!("/files/{path}"),
            &[("Range", "bytes=99-")],
            b"",
        ),
        request(
            "GET",
            &format!("/files/{path}"),
            &[("If-None-Match", "*")],
            b"",
        ),
        request("GET", "/files/none", &[], b""),
        request("PUT", "/files/none", &[], b"x"),
        request("POST", "/", &[], b""),
        request("OPTIONS", "/", &[], b""),
        request("BREW", "/", &[], b""),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
    ];
    for bytes in requests {
        let mut client = site.client();
        client.send(&bytes);
        let reply = client.reply();
        assert_eq!(
            reply.expect("X-Served-By"),
            "a house",
            "{}",
            String::from_utf8_lossy(&bytes)
        );
        assert_eq!(
            reply.expect("Strict-Transport-Security"),
            "max-age=31536000"
        );
    }
}

/// `max-age` of an answer.
fn max_age(reply: &Reply) -> u64 {
    let cache = reply.expect("Cache-Control");
    let rest = cache
        .split("max-age=")
        .nth(1)
        .unwrap_or_else(|| panic!("{cache}"));
    rest.chars()
        .take_while(char::is_ascii_digit)
        .collect::<String>()
        .parse()
        .unwrap()
}

#[test]
fn caches_forget_a_file_when_it_goes() {
    let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/a.txt");
    let site = Plan::alone()
        .set("expire_interval", 3600)
        .set("expire_maxage", 1000)
        .seed(&path, DIGITS)
        .start();
    age(&site.store().join(&path), 400);
    let left = max_age(&site.get(&format!("/files/{path}")).is(200));
    assert!(left <= 600 && left > 480, "{left}");

    // The name of its folder tells when an ephemeral file goes.
    let path = format!(
        "{ROMEO_FOLDER}/Abcdefghijklmnopqrst~e{:x}/short.txt",
        unix_now() + 500
    );
    seed(&site.store(), &path, b"short");
    let left = max_age(&site.get(&format!("/files/{path}")).is(200));
    assert!(left <= 500 && left > 380, "{left}");
}

#[test]
fn a_large_file_comes_byte_for_byte() {
    let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/large.bin");
    let body = pseudo_random(3, 5_000_001);
    let site = Plan::alone().seed(&path, &body).start();
    let mut client = site.client();
    let bytes = request("GET", &format!("/files/{path}"), &[], b"");
    client.send(&[&bytes[..], &bytes[..]].concat());
    for _ in 0..2 {
        assert!(client.reply().is(200).body == body);
    }
    let tail = client
        .ask(
            "GET",
            &format!("/files/{path}"),
            &[("Range", "bytes=4999990-")],
            b"",
        )
        .is(206);
    assert_eq!(tail.body, body[4_999_990..]);
}

/// A file beside the one that is asked for, and access times, are nobody's business.
#[test]
fn reading_changes_nothing() {
    let (site, target) = digits();
    let before = site.entries();
    let stamp = |site: &Site| {
        let file = site.store().join(target.strip_prefix("/files/").unwrap());
        fs::metadata(file).unwrap().modified().unwrap()
    };
    let modified = stamp(&site);
    let mut client: Client = site.client();
    for _ in 0..3 {
        client.get(&target).is(200);
    }
    assert_eq!((site.entries(), stamp(&site)), (before, modified));
}
