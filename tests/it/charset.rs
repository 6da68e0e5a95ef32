//! The `charset` of text: detected in uploads, stored with the file, sent with downloads.

use crate::harness::downloads::{DAY, parts_of};
use crate::harness::files::{age, attribute, seed, set_attribute, set_kept_type};
use crate::harness::http::chunked;
use crate::harness::signing::{Claims, KEY, UUID, external_plan, put_query};
use crate::harness::site::{ROMEO, ROMEO_FOLDER};
use crate::harness::{Plan, Site, request};

/// The type of a file, which must be the same for GET, HEAD, one range and several.
#[track_caller]
fn type_of(site: &Site, target: &str) -> String {
    let mut client = site.client();
    let whole = client.get(target).is(200);
    let label = whole.expect("Content-Type").to_owned();
    let head = client.ask("HEAD", target, &[], b"").is(200);
    assert_eq!(head.expect("Content-Type"), label, "HEAD of {target}");
    let etag = whole.expect("ETag").to_owned();
    let same = client.ask("GET", target, &[("If-None-Match", &etag)], b"");
    assert!(!same.is(304).has("Content-Type"), "{target}");
    if whole.body.len() >= 5 {
        let one = client.ask("GET", target, &[("Range", "bytes=1-2")], b"");
        assert_eq!(
            one.is(206).expect("Content-Type"),
            label,
            "a part of {target}"
        );
    }
    if whole.body.len() > 4000 {
        let many = client.ask("GET", target, &[("Range", "bytes=1-2,-3")], b"");
        for (kind, ..) in parts_of(&many.is(206)) {
            assert_eq!(kind, label, "parts of {target}");
        }
    }
    label
}

/// Legacy and foreign files, in the layouts of other programs.
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
    // Name, content, stored type, type sent.
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
        // Not shown inline, or not text.
        ("a.html", "é".as_bytes(), None, "text/html"),
        ("a.csv", "é".as_bytes(), None, "text/csv"),
        ("a.json", "é".as_bytes(), None, "application/json"),
        ("a.js", "é".as_bytes(), None, "application/octet-stream"),
        ("a.jpg", b"ascii", None, "image/jpeg"),
        ("a", "é".as_bytes(), None, "application/octet-stream"),
    ];
    let site = Plan::alone().start();
    for (number, (name, content, kept, label)) in cases.iter().enumerate() {
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
            assert_eq!(found, *label, "{path} {kept:?}, {} bytes", content.len());
        }
    }
}

#[test]
fn the_stored_charset_is_used() {
    let site = Plan::alone().start();
    for (number, (kept, label)) in [
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
            assert_eq!(type_of(&site, &format!("/files/{path}")), label, "{kept}");
        }
    }
}

#[test]
fn text_of_any_safe_type_is_labelled() {
    let site = Plan::alone()
        .set("safe_file_types", "['text/*', text/html]")
        .start();
    for (name, label) in [
        ("a.html", "text/html; charset=utf-8"),
        ("a.csv", "text/csv; charset=utf-8"),
        ("a.md", "text/markdown; charset=utf-8"),
        ("a.js", "application/octet-stream"),
        ("a.xml", "application/xml"),
    ] {
        let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/{name}");
        seed(&site.store(), &path, "é".as_bytes());
        assert_eq!(type_of(&site, &format!("/files/{path}")), label, "{name}");
    }
}

/// Every text upload is checked as a whole, however it arrives, and labelled accordingly.
#[test]
fn received_text_is_labelled() {
    let mut site = Plan::new().start();
    let keeps = set_attribute(&site.dir.path().join("config.yml"), "user.charset", b"a");
    let long = "Grüße ☕ 😀\n".repeat(20_000);
    let mut late = long.clone().into_bytes();
    // At an offset that the sampling of an existing file does not cover.
    let at = late.len() / 4;
    late[at..at + 20].fill(0xe9);
    let utf16: Vec<u8> = "\u{feff}Grüße"
        .encode_utf16()
        .flat_map(u16::to_be_bytes)
        .collect();
    let labelled = "text/plain; charset=utf-8";
    // Type of the slot, name, body, type sent, stored charset.
    type Case<'a> = (Option<&'a str>, &'a str, &'a [u8], &'a str, Option<&'a str>);
    let cases: &[Case<'_>] = &[
        (
            Some("text/plain"),
            "a.txt",
            "Grüße ☕".as_bytes(),
            labelled,
            Some("utf-8"),
        ),
        (
            None,
            "a.txt",
            "Grüße ☕".as_bytes(),
            labelled,
            Some("utf-8"),
        ),
        (
            Some("text/plain"),
            "a.bin",
            long.as_bytes(),
            labelled,
            Some("utf-8"),
        ),
        (None, "a.txt", b"x", labelled, Some("utf-8")),
        (
            None,
            "a.txt",
            "\u{feff}a".as_bytes(),
            labelled,
            Some("utf-8"),
        ),
        (
            None,
            "a.txt",
            b"Gr\xfc\xdfe",
            "text/plain",
            Some("unknown-8bit"),
        ),
        (None, "a.txt", &utf16, "text/plain", Some("unknown-8bit")),
        (
            None,
            "a.txt",
            "é".as_bytes().split_at(1).0,
            "text/plain",
            Some("unknown-8bit"),
        ),
        (
            Some("text/plain; charset=koi8-r"),
            "a.txt",
            "é".as_bytes(),
            "text/plain; charset=koi8-r",
            None,
        ),
        (
            Some("text/html"),
            "a.html",
            "é".as_bytes(),
            "text/html",
            Some("utf-8"),
        ),
        (None, "a.json", "é".as_bytes(), "application/json", None),
        (None, "a.jpg", b"ascii", "image/jpeg", None),
    ];
    for (kind, name, body, label, kept) in cases {
        for way in ["whole", "chunked", "drip"] {
            let slot = site.slot(ROMEO, name, body.len() as u64, *kind);
            let mut client = site.client();
            match way {
                "whole" => client.send(&request("PUT", &slot.put, &[], body)),
                "chunked" => {
                    let fields = [("Transfer-Encoding", "chunked")];
                    client.send(&request("PUT", &slot.put, &fields, b""));
                    client.send(&chunked(body, 1021));
                }
                _ => {
                    let length = body.len().to_string();
                    client.send(&request(
                        "PUT",
                        &slot.put,
                        &[("Content-Length", &length)],
                        b"",
                    ));
                    let (first, rest) = body.split_at(body.len().min(30));
                    for byte in first {
                        client.send(&[*byte]);
                    }
                    client.send(rest);
                }
            }
            client.reply().is(201);
            let got = client.get(&slot.get).is(200);
            assert_eq!(got.expect("Content-Type"), *label, "{kind:?} {name} {way}");
            assert!(got.body == *body);
            if keeps {
                let found = attribute(&site.store().join(slot.stored_at()), "user.charset");
                assert_eq!(found.as_deref(), *kept, "{kind:?} {name} {way}");
            }
        }
    }
    if keeps {
        let slot = site.upload("a.txt", None, &late);
        let got = site.get(&slot.get).is(200);
        assert_eq!(
            got.expect("Content-Type"),
            "text/plain",
            "an invalid byte anywhere counts"
        );
    }
}

/// The charset of an upload is detected with every scheme.
#[test]
fn signed_text_is_labelled() {
    let site = external_plan()
        .set("file_share_secret", format!("'{KEY}'"))
        .start();
    let coffee = "Grüße ☕".as_bytes();
    let labelled = "text/plain; charset=utf-8";
    let cases: &[(&str, &str, &[u8], &str)] = &[
        ("a.bin", "text/plain", coffee, labelled),
        ("a.txt", "text/plain", coffee, labelled),
        ("a.bin", "text/plain", b"Gr\xfc\xdfe", "text/plain"),
        (
            "a.txt",
            "text/plain;charset=latin1",
            coffee,
            "text/plain;charset=latin1",
        ),
        (
            "a.txt",
            "application/pgp-encrypted",
            coffee,
            "application/pgp-encrypted",
        ),
    ];
    for (number, (name, kind, body, label)) in cases.iter().enumerate() {
        for scheme in ["v", "v2", "token"] {
            let path = format!("{UUID}/{scheme}{number}/{name}");
            let target = format!(
                "/files/{path}?{}",
                // Nor the other way round.
                put_query(scheme, &path, body.len(), kind)
            );
            site.client()
                .ask("PUT", &target, &[("Content-Type", kind)], body)
                .is(201);
            let got = site.get(&format!("/files/{path}")).is(200);
            assert_eq!(got.expect("Content-Type"), *label, "{scheme} {name} {kind}");
        }
        let claims = Claims::new(&format!("slot-{number}"))
            .named(name)
            .with("filetype", kind)
            .sized(body.len());
        claims.put(&site, body).is(201);
        let got = site.get(&claims.target).is(200);
        assert_eq!(got.expect("Content-Type"), *label, "JWT {name} {kind}");
    }
    // Without a type, the extension decides.
    for scheme in ["v", "v2", "token"] {
        let path = format!("{UUID}/{scheme}/untyped.txt");
        let kind = if scheme == "v" { "" } else { "text/plain" };
        let target = format!(
            "/files/{path}?{}",
            // Nor the other way round.
            put_query(scheme, &path, coffee.len(), kind)
        );
        site.client().ask("PUT", &target, &[], coffee).is(201);
        let got = site.get(&format!("/files/{path}")).is(200);
        assert_eq!(got.expect("Content-Type"), labelled, "{scheme}");
    }
}
