//! Paths in any encoding, signed or not: none escapes the store or reaches hidden files.

use std::collections::BTreeSet;
use std::fs;

use crate::harness::files::seed;
use crate::harness::raw::{
    Asker, CANARY, assert_plain_fields, contains, every_integration, hidden_files,
};
use crate::harness::signing::{Claims, DELETE_SECRET, delete_query, put_query};
use crate::harness::site::{ROMEO, ROMEO_FOLDER, owner_folder};
use crate::harness::wait::long;
use crate::harness::{Plan, Site};

/// Bytes of a text in which `\xNN` is a raw byte.
fn raw(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("\\x") {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        bytes.push(u8::from_str_radix(&rest[at + 2..at + 4], 16).unwrap());
        rest = &rest[at + 4..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// Encodings that a server could decode to a dot.
const DOTS: [&str; 16] = [
    ".",
    "%2e",
    "%2E",
    "%252e",
    "%25252e",
    "%c0%ae",
    "%e0%80%ae",
    "%f0%80%80%ae",
    "\\xc0\\xae",
    "%c0%2e",
    "%u002e",
    "%00.",
    ".%00",
    "%EF%BC%8E",
    "%E2%80%A4",
    "%E3%80%82",
];

/// Encodings that a server could decode to a slash.
const SLASHES: [&str; 20] = [
    "/",
    "//",
    "/./",
    "/%2e/",
    "%2f",
    "%2F",
    "%252f",
    "%5c",
    "%5C",
    "%255c",
    "\\x5c",
    "%c0%af",
    "%e0%80%af",
    "\\xc0\\xaf",
    "%c1%9c",
    "%u2215",
    "%E2%88%95",
    "%EF%BC%8F",
    ";/",
    "/;x=1/",
];

/// Suffixes that a server could strip from a name.
const TAILS: [&str; 15] = [
    "",
    ".",
    "...",
    "%20",
    "%00",
    "%00.jpg",
    "%2500.jpg",
    ";.jpg",
    ";jsessionid=1",
    "::$DATA",
    "%3a%3a$DATA",
    "/",
    "/.",
    "%0a",
    "~",
];

/// Every spelling of a path to a file that must not be served.
fn spellings() -> BTreeSet<Vec<u8>> {
    let below = format!("{ROMEO_FOLDER}/Abcdefghijk12");
    let mut found = BTreeSet::new();
    for dot in DOTS {
        for slash in SLASHES {
            let up = format!("{dot}{dot}{slash}");
            for way in [
                format!("{up}outside.txt"),
                format!("{below}{slash}{up}{up}{up}outside.txt"),
                format!("{ROMEO_FOLDER}{slash}{up}{dot}upslot{slash}slot_secret"),
                format!("{dot}upslot{slash}slot_secret"),
                format!("{dot}upslot{slash}share{slash}alias"),
                format!("{dot}upslot{slash}tombstones{slash}00"),
                format!("{dot}well-known{slash}acme"),
                format!("{ROMEO_FOLDER}{slash}{dot}hidden"),
                format!("{below}{slash}{dot}hidden{slash}x"),
                format!("{slash}etc{slash}passwd"),
            ] {
                found.insert(raw(&way));
            }
        }
        for tail in TAILS {
            found.insert(raw(&format!("{dot}{dot}/outside.txt{tail}")));
            found.insert(raw(&format!("{dot}upslot/slot_secret{tail}")));
            found.insert(raw(&format!("{dot}upslot{tail}/slot_secret")));
            found.insert(raw(&format!("{ROMEO_FOLDER}/{dot}hidden{tail}")));
        }
    }
    for length in [254, 255, 256, 4000] {
        let long = "x".repeat(length);
        found.insert(format!("{long}/../../outside.txt").into_bytes());
        found.insert(format!("{ROMEO_FOLDER}/{long}/.hidden").into_bytes());
        found.insert(format!("{}outside.txt", "../".repeat(length / 4)).into_bytes());
        found.insert(format!("{}outside.txt", "%2e%2e/".repeat(length / 8)).into_bytes());
        found.insert(format!("a{}/outside.txt", "/..".repeat(length / 4)).into_bytes());
    }
    found
}

/// A site with files outside the store and hidden in it.
fn site_with_hidden_files() -> Site {
    let mut site = every_integration().start();
    site.program.allow("external_delete_secret");
    let store = site.store();
    seed(site.dir.path(), "outside.txt", CANARY);
    for path in [
        ".well-known/acme",
        ".dots",
        ".upslot/share/alias",
        &format!("{ROMEO_FOLDER}/.hidden"),
        &format!("{ROMEO_FOLDER}/Abcdefghijk12/.hidden/x"),
    ] {
        seed(&store, path, CANARY);
    }
    seed(
        &store,
        &format!("{ROMEO_FOLDER}/Abcdefghijk12/real.txt"),
        b"hello",
    );
    site
}

#[test]
fn no_path_escapes_the_store() {
    let site = site_with_hidden_files();
    let secret = fs::read(site.store().join(".upslot/slot_secret")).unwrap();
    let before = hidden_files(&site);
    let spellings = spellings();
    assert!(spellings.len() > 2000, "{}", spellings.len());
    let mut asker = Asker::new(&site);
    let (_, missing) = asker.ask("GET", b"/files/none", b"");
    for way in &spellings {
        for prefix in ["/files/", "/", "/files", "http://a/files/"] {
            let target = [prefix.as_bytes(), way].concat();
            let shown = || String::from_utf8_lossy(&target).into_owned();
            let (status, body) = asker.ask("GET", &target, b"");
            assert!(matches!(status, 400 | 404), "GET {}: {status}", shown());
            assert!(
                !contains(&body, CANARY) && !contains(&body, &secret),
                "{}",
                shown()
            );
            assert!(status == 400 || body == missing, "GET {}", shown());
        }
        let target = [b"/files/", &way[..]].concat();
        let (status, _) = asker.ask("HEAD", &target, b"");
        assert!(matches!(status, 400 | 404), "HEAD: {status}");
    }
    assert_eq!(hidden_files(&site), before);
}

/// The same with a valid signature for the path as sent, decoded once and decoded twice: even a client that can make the
/// XMPP server sign anything reaches only the visible store.
#[test]
fn no_signed_path_escapes_the_store() {
    let site = site_with_hidden_files();
    let before = hidden_files(&site);
    let mut asker = Asker::new(&site);
    let decode = |bytes: &[u8]| percent_encoding::percent_decode(bytes).collect::<Vec<u8>>();
    let mut stored = 0;
    // The short form tries one path in four.
    let step = if long() { 1 } else { 4 };
    for (number, way) in spellings().iter().enumerate().step_by(step) {
        let (once, twice) = (decode(way), decode(&decode(way)));
        let mut signed = vec![way, &once, &twice];
        signed.dedup();
        for path in signed {
            let shown = || String::from_utf8_lossy(way).into_owned();
            for (method, query) in [
                ("PUT", put_query("v", path, 5, "")),
                ("DELETE", delete_query(path, DELETE_SECRET)),
            ] {
                // Some with the prefix stripped.
                let prefix = if number % 3 == 0 { "/" } else { "/files/" };
                let target = [prefix.as_bytes(), way, b"?", query.as_bytes()].concat();
                let (status, _) = asker.ask(method, &target, b"owned");
                let expected = match method {
                    "PUT" => matches!(status, 201 | 400 | 401 | 403 | 409 | 414),
                    _ => matches!(status, 204 | 400 | 403 | 404 | 405 | 409 | 414),
                };
                assert!(expected, "{method} {}: {status}", shown());
                stored += usize::from(status == 201);
            }
        }
    }
    // Names that only look dangerous are stored.
    assert!(stored > 20, "{stored}");
    let mut after = hidden_files(&site);
    // Deleted files leave tombstones.
    after.retain(|path, _| !path.starts_with("store/.upslot/tombstones"));
    assert_eq!(after, before);
    let real = format!("/files/{ROMEO_FOLDER}/Abcdefghijk12/real.txt");
    assert_eq!(site.get(&real).is(200).body, b"hello");
}

/// Names and addresses from users and XMPP servers never change the depth of a path.
#[test]
fn names_and_addresses_stay_one_segment() {
    let mut site = every_integration().start();
    site.program.allow("external_delete_secret");
    let before = hidden_files(&site);
    let names = [
        "../../../outside.txt",
        "/etc/passwd",
        "..",
        ".",
        "...",
        ".upslot",
        ".htaccess",
        "a/../../b",
        "a\\..\\..\\b",
        "%2e%2e%2fb",
        "\u{ff0e}\u{ff0e}\u{ff0f}b",
        "\u{2024}\u{2024}\u{2215}b",
        "a\u{202e}gpj.exe",
        "C:\\con",
        "a::$DATA",
        "<script>alert(1)</script>.html",
        "' onload='alert(1)",
        "\"; filename=\"b.html",
        "a\r\nX-Evil: 1",
        "?size=1&until=2#",
    ];
    for name in names {
        let slot = site.slot(ROMEO, name.trim_matches(['\r', '\n']), 5, None);
        assert_eq!(slot.get.split('/').count(), 5, "{name:?}: {slot:?}");
        site.put(&slot, b"hello").is(201);
        let reply = site.get(&slot.get).is(200);
        assert_plain_fields(&reply.fields);
        let path = slot.stored_at();
        assert_eq!(path.components().count(), 3, "{path:?}");
        assert!(path.starts_with(ROMEO_FOLDER), "{path:?}");
    }
    for owner in [
        "..@montague.tld",
        ".upslot@montague.tld",
        "a\\b@montague.tld",
    ] {
        let slot = site.slot(owner, "a.txt", 5, None);
        site.put(&slot, b"hello").is(201);
        assert!(slot.stored_at().starts_with(owner_folder(owner)));
        assert_eq!(slot.stored_at().components().count(), 3, "{slot:?}");
    }
    // Users choose the values in a token of the file share as well.
    for (number, name) in names.iter().enumerate() {
        let escaped: String = name
            .chars()
            .map(|c| format!("\\u{:04x}", c as u32))
            .collect();
        let claims = Claims::new(&format!("share-{number}")).with("filename", &escaped);
        let reply = claims.put(&site, b"hello");
        assert_eq!(reply.status, 201, "{name:?}: {}", reply.text());
        assert_plain_fields(&reply.fields);
        let got = site.get(&claims.target).is(200);
        assert_plain_fields(&got.fields);
    }
    for slot in ["..", ".", ".upslot", "../../x", "a/b", "%2e%2e"] {
        let escaped: String = slot
            .chars()
            .map(|c| format!("\\u{:04x}", c as u32))
            .collect();
        let mut claims = Claims::new(&escaped);
        claims.target = format!(
            "/files/{}/x",
            percent_encoding::utf8_percent_encode(slot, percent_encoding::NON_ALPHANUMERIC)
        );
        let status = claims.put(&site, b"hello").status;
        assert!(matches!(status, 201 | 403), "{slot}: {status}");
    }
    for file in site.files() {
        let segments: Vec<&str> = file.split('/').collect();
        assert_eq!(segments.len(), 3, "{file}");
        assert!(!segments.iter().any(|part| part.starts_with('.')), "{file}");
    }
    let mut after = hidden_files(&site);
    after.retain(|path, _| !path.starts_with("store/.upslot/share"));
    assert_eq!(after, before);
}

#[test]
fn double_encoded_traversal() {
    let site = Plan::alone()
        .set("api", "{port: 0}")
        .seed(&format!("{ROMEO_FOLDER}/0123456789abc/a.txt"), b"hello")
        .start();
    std::fs::write(site.dir.path().join("secret.txt"), b"secret").unwrap();
    std::fs::write(site.store().join(ROMEO_FOLDER).join(".hidden"), b"secret").unwrap();
    let mut client = site.client();
    let missing = client.get("/files/none").is(404);
    for path in [
        "%252e%252e/secret.txt",
        "%252e%252e%252fsecret.txt",
        "..%252fsecret.txt",
        &format!("{ROMEO_FOLDER}/%252e%252e/%252e%252e/secret.txt"),
        &format!("{ROMEO_FOLDER}/..%252f..%252f..%252fsecret.txt"),
        &format!("{ROMEO_FOLDER}/%252ehidden"),
        &format!("{ROMEO_FOLDER}/0123456789abc%252fa.txt"),
        &format!("{ROMEO_FOLDER}/0123456789abc/a.txt%2500"),
        &format!("{ROMEO_FOLDER}/0123456789abc/%252e/a.txt"),
        &format!("{ROMEO_FOLDER}/0123456789abc/%25252e%25252e/a.txt"),
        "%252eupslot/secret",
        "%252eupslot/slot_secret",
        "%25zz/%252e",
    ] {
        for prefix in ["/files/", "/", "/%2566iles/"] {
            let reply = client.get(&format!("{prefix}{path}")).is(404);
            assert_eq!(
                (reply.lasting_fields(), reply.body),
                (missing.lasting_fields(), missing.body.clone()),
                "{prefix}{path}"
            );
        }
        client
            .ask(
                "PUT",
                &format!("/files/{path}?size=5&until=9999999999&sig=AAAA"),
                &[],
                b"hello",
            )
            .is(403);
    }
}
