//! GET and HEAD: response fields, paths and prefixes, 404s, other methods, caching.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::harness::downloads::{DAY, DIGITS, assert_no_scripts, digits};
use crate::harness::files::{age, seed};
use crate::harness::site::ROMEO_FOLDER;
use crate::harness::{Client, Plan, Reply, Site, pseudo_random, request, unix_now};

#[test]
fn response_fields() {
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
    assert_no_scripts(&reply);
}

#[test]
fn head_matches_get() {
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
fn repeated_requests_have_the_same_response() {
    let (site, target) = digits();
    let mut client = site.client();
    let etag = client.get(&target).is(200).expect("ETag").to_owned();
    type Request<'a> = (&'static str, &'a [(&'a str, &'a str)], u16);
    let requests: [Request<'_>; 7] = [
        ("GET", &[], 200),
        ("HEAD", &[], 200),
        ("GET", &[("Range", "bytes=2-4")], 206),
        ("GET", &[("Range", "bytes=0-1,5-6")], 206),
        ("GET", &[("Range", "bytes=99-")], 416),
        ("GET", &[("If-None-Match", &etag)], 304),
        ("GET", &[("If-Match", "\"other\"")], 412),
    ];
    let first = requests.map(|(method, fields, _)| client.ask(method, &target, fields, b""));
    // From the second round on, the file is open if the second is not over.
    for _ in 0..20 {
        for ((method, fields, status), first) in requests.iter().zip(&first) {
            let reply = client.ask(method, &target, fields, b"").is(*status);
            assert_eq!(reply.body.len(), first.body.len(), "{method} {fields:?}");
            if first
                .field("Content-Type")
                .is_none_or(|kind| !kind.starts_with("multipart/"))
            {
                assert_eq!(reply.body, first.body, "{method} {fields:?}");
                assert_eq!(reply.lasting_fields(), first.lasting_fields());
            }
        }
    }
}

/// Targets that lead to no file that may be served; `below` is the folder of a slot.
fn missing_targets(below: &str) -> Vec<String> {
    let long = "x".repeat(300);
    let deep = "x/".repeat(500);
    vec![
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
    ]
}

#[test]
fn all_404s_are_identical() {
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
    let targets = missing_targets(&below);
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
        "a 404 is cached too long: {cache}"
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
        // A condition or a range reveals no more.
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
fn url_prefix_without_a_path() {
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
        // On its own connection: `#` in a target may be answered with 400 and a close.
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
fn existing_trees_are_served_in_place() {
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
fn root_page() {
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
fn serve_downloads_off() {
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
fn custom_headers_on_every_response() {
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
fn max_age_ends_with_the_file() {
    let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/a.txt");
    let site = Plan::alone()
        .set("expire_interval", 3600)
        .set("expire_maxage", 1000)
        .seed(&path, DIGITS)
        .start();
    age(&site.store().join(&path), 400);
    let left = max_age(&site.get(&format!("/files/{path}")).is(200));
    assert!(left <= 600 && left > 480, "{left}");

    // The folder name encodes the expiry of an ephemeral file.
    let path = format!(
        "{ROMEO_FOLDER}/Abcdefghijklmnopqrst~e{:x}/short.txt",
        unix_now() + 500
    );
    seed(&site.store(), &path, b"short");
    let left = max_age(&site.get(&format!("/files/{path}")).is(200));
    assert!(left <= 500 && left > 380, "{left}");
}

#[test]
fn a_large_file_is_complete() {
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

/// A download changes neither files nor modification times.
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
