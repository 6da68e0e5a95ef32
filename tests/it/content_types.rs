//! Media types and file names of slots, uploads and downloads.

use crate::harness::Plan;
use crate::harness::downloads::{DIGITS, assert_no_scripts, name_of};
use crate::harness::files::{kept_type, seed, set_kept_type};
use crate::harness::signing::{UUID, external_plan, put_query};
use crate::harness::site::{ROMEO, ROMEO_FOLDER};

#[test]
fn types_and_dispositions() {
    // Extension, stored type, type expected, inline.
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
        // Scripts are sent as application/octet-stream, so that no page can load them.
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
        // An invalid stored type is ignored.
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
        let label = reply.expect("Content-Type");
        assert_eq!(label.split(';').next(), Some(*kind), "{path} {kept:?}");
        assert!(
            kept.is_some() || *kind == "text/plain" || label == *kind,
            "an unexpected parameter: {label}"
        );
        assert!(!reply.has("X-Evil"));
        let disposition = reply.expect("Content-Disposition");
        let expected = if *inline { "inline" } else { "attachment" };
        assert!(
            disposition.starts_with(expected),
            "{path} {kept:?}: {disposition}"
        );
        assert_no_scripts(&reply);
    }
    // Without an extension the type is unknown.
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
        assert_no_scripts(&reply);
    }
}

#[test]
fn download_names() {
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
        // A control character cannot be sent, the rest of the name can.
        assert_eq!(
            name_of(&disposition).replace(['\t', '_'], " "),
            name.replace('\t', " "),
            "{disposition}"
        );
    }
}

#[test]
fn the_type_of_the_slot_is_binding() {
    let mut site = Plan::new().start();
    let accepted: &[(Option<&str>, Option<&str>, &str)] = &[
        (Some("image/jpeg"), Some("image/jpeg"), "image/jpeg"),
        (Some("image/jpeg"), Some("IMAGE/JPEG"), "image/jpeg"),
        (Some("image/jpeg"), Some("image/jpeg; q=1"), "image/jpeg"),
        (Some("image/jpeg"), Some("image/jpeg;q=1"), "image/jpeg"),
        (Some("image/jpeg"), None, "image/jpeg"),
        (Some("image/jpeg"), Some(""), "image/jpeg"),
        (
            Some("image/jpeg"),
            Some("application/octet-stream"),
            "image/jpeg",
        ),
        (
            Some("text/plain; charset=utf-8"),
            Some("text/plain; charset=utf-8"),
            "text/plain",
        ),
        (
            Some("text/plain; charset=utf-8"),
            Some("text/plain"),
            "text/plain",
        ),
        (Some("Text/Plain"), Some("text/plain"), "text/plain"),
        // The slot has no type: that of the PUT is used, else the extension's.
        (None, Some("image/png"), "image/png"),
        (None, Some("text/html; charset=utf-8"), "text/html"),
        (None, None, "image/gif"),
        (None, Some(""), "image/gif"),
    ];
    let keeps_types = set_kept_type(&site.dir.path().join("config.yml"), b"probe/probe");
    for (slot_type, put_type, served) in accepted {
        let slot = site.slot(ROMEO, "a.gif", 5, *slot_type);
        let fields: Vec<_> = put_type
            .iter()
            .map(|kind| ("Content-Type", *kind))
            .collect();
        let mut client = site.client();
        let reply = client.ask("PUT", &slot.put, &fields, b"hello");
        assert_eq!(reply.status, 201, "slot {slot_type:?}, PUT {put_type:?}");
        if keeps_types {
            let reply = client.get(&slot.get).is(200);
            let label = reply.expect("Content-Type").to_ascii_lowercase();
            assert_eq!(
                label.split(';').next(),
                Some(*served),
                "slot {slot_type:?}, PUT {put_type:?}"
            );
            let kept = kept_type(&site.store().join(slot.stored_at()));
            let kept = kept.map(|kept| kept.to_ascii_lowercase());
            let kept = kept.as_deref().and_then(|kept| kept.split(';').next());
            let label = Some(*served).filter(|served| *served != "image/gif");
            assert_eq!(kept, label, "slot {slot_type:?}, PUT {put_type:?}");
        }
    }
    let refused: &[(&str, &str)] = &[
        ("image/jpeg", "image/png"),
        ("image/jpeg", "text/html"),
        ("image/jpeg", "image/*"),
        ("image/jpeg", "image/jpegx"),
        ("image/jpeg", "nonsense"),
        ("text/plain", "text/html; charset=utf-8"),
    ];
    for (slot_type, put_type) in refused {
        let slot = site.slot(ROMEO, "b.gif", 5, Some(slot_type));
        let reply = site
            .client()
            .ask("PUT", &slot.put, &[("Content-Type", put_type)], b"hello");
        assert_eq!(reply.status, 415, "slot {slot_type:?}, PUT {put_type:?}");
    }
    assert_eq!(site.files().len(), accepted.len());
}

#[test]
fn the_signed_type_is_kept_and_served() {
    let site = external_plan().start();
    for (number, (signed, sent, name, served)) in [
        ("image/jpeg", Some("image/jpeg"), "a.jpg", "image/jpeg"),
        ("image/jpeg", Some("IMAGE/JPEG; a=b"), "a.bin", "image/jpeg"),
        ("image/jpeg", None, "a.jpg", "image/jpeg"),
        (
            "image/jpeg",
            Some("application/octet-stream"),
            "a.jpg",
            "image/jpeg",
        ),
        (
            "text/plain; charset=utf-8",
            Some("text/plain; charset=utf-8"),
            "a.bin",
            "text/plain; charset=utf-8",
        ),
        (
            "application/octet-stream",
            Some("text/html"),
            "a.html",
            "application/octet-stream",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        for scheme in ["v2", "token"] {
            let path = format!("{UUID}/{scheme}{number}/{name}");
            let target = format!("/files/{path}?{}", put_query(scheme, &path, 5, signed));
            let fields: Vec<_> = sent
                .map(|sent| ("Content-Type", sent))
                .into_iter()
                .collect();
            site.client().ask("PUT", &target, &fields, b"hello").is(201);
            let got = site.get(&format!("/files/{path}")).is(200);
            assert_eq!(
                got.expect("Content-Type"),
                served,
                "signed {signed}, sent {sent:?}"
            );
        }
    }
    // v signs no type: that of the PUT is used, else the extension's.
    for (name, sent, served) in [
        ("a.bin", Some("image/png"), "image/png"),
        ("a.png", None, "image/png"),
    ] {
        let path = format!("{UUID}/v/{name}");
        let fields: Vec<_> = sent
            .map(|sent| ("Content-Type", sent))
            .into_iter()
            .collect();
        site.client()
            .ask(
                "PUT",
                &format!("/files/{path}?{}", put_query("v", &path, 5, "")),
                &fields,
                b"hello",
            )
            .is(201);
        assert_eq!(
            site.get(&format!("/files/{path}"))
                .is(200)
                .expect("Content-Type"),
            served
        );
    }
}
