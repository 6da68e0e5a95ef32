//! Downloads of files that are in an object store.

use std::fs::File;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use data_encoding::BASE64URL_NOPAD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::harness::downloads::{DAY, parts_of};
use crate::harness::s3::S3;
use crate::harness::s3::fault::{Fault, Gate, Stage};
use crate::harness::signing::KEY;
use crate::harness::site::{ROMEO_FOLDER, seed};
use crate::harness::{
    Client, Fields, Plan, Reply, Site, eventually, pseudo_random, request, tls, unix_now,
};

const DIGITS: &[u8] = b"0123456789";

/// The key of a file of this name, which is its path too.
fn key(name: &str) -> String {
    format!("{ROMEO_FOLDER}/Abcdefghijk12/{name}")
}

/// The target of a key.
fn target(key: &str) -> String {
    let segments: Vec<String> = key
        .split('/')
        .map(|segment| utf8_percent_encode(segment, NON_ALPHANUMERIC).to_string())
        .collect();
    format!("/files/{}", segments.join("/"))
}

/// A store with a picture of ten bytes, and the target of the picture.
fn with_digits() -> (S3, String) {
    let store = S3::new();
    store.seed_typed(&key("digits.png"), DIGITS, "image/png", unix_now() - DAY);
    (store, target(&key("digits.png")))
}

/// The requests of clients so far, without those by which upslot learns whether the store works.
fn asked(store: &S3) -> Vec<String> {
    let requests = store.requests("*").into_iter();
    let of_clients = requests.filter(|request| request.operation != "LIST");
    of_clients
        .map(|request| match request.head.field("range") {
            Some(range) => format!("{} {range}", request.operation),
            None => request.operation,
        })
        .collect()
}

/// Sends the request that a redirection asks for.
#[track_caller]
fn follow(store: &S3, method: &str, reply: &Reply) -> Reply {
    let location = reply.expect("Location");
    let address = store.address();
    let target = location
        .strip_prefix(&format!("http://{address}"))
        .unwrap_or_else(|| panic!("{location}"));
    let mut client = Client::connect(address);
    client.send(format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes());
    client.reply_to(method)
}

/// The store failed, and the program has said so.
fn allow_failure(site: &mut Site) {
    site.program.allow("store failed");
}

/// Relayed responses are those of a file in a folder, to the last field.
#[test]
fn relayed_objects_are_like_local_files() {
    let modified = unix_now() - DAY;
    let store = S3::new();
    let local = Plan::alone();
    let names = [
        ("digits.png", "image/png"),
        ("tr\u{e8}s cool #1?%41&+~'().png", "image/png"),
        ("page.html", "text/html"),
        ("code.js", "text/javascript"),
        ("a.bin", "application/octet-stream"),
        ("none.jpg", "binary/octet-stream"),
        ("empty.png", "image/png"),
    ];
    for (name, kind) in names {
        let body = if name == "empty.png" { b"" } else { DIGITS };
        if !body.is_empty() {
            store.seed_typed(&key(name), body, kind, modified);
        }
        seed(&local.store(), &key(name), body);
        let file = File::options()
            .write(true)
            .open(local.store().join(key(name)))
            .unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(modified))
            .unwrap();
    }
    // The fake store cannot repeat nothing.
    store.seed_sized(&key("empty.png"), b"x", 0, DAY);
    let local = local.start();
    let site = store.plan("get: relay").start();
    let etag = local
        .get(&target(&key("digits.png")))
        .expect("ETag")
        .to_owned();
    let requests: [(&str, Fields<'_>); 13] = [
        ("GET", &[]),
        ("HEAD", &[]),
        ("GET", &[("Range", "bytes=2-4")]),
        ("HEAD", &[("Range", "bytes=2-4")]),
        ("GET", &[("Range", "bytes=-3")]),
        ("GET", &[("Range", "bytes=0-0,5-6,9-")]),
        ("GET", &[("Range", "bytes=10-")]),
        ("GET", &[("If-None-Match", &etag)]),
        ("GET", &[("If-Match", "\"other\"")]),
        ("GET", &[("If-Range", &etag), ("Range", "bytes=4-")]),
        ("GET", &[("If-Range", "\"other\""), ("Range", "bytes=4-")]),
        (
            "GET",
            &[("If-Modified-Since", "Fri, 01 Jan 2038 00:00:00 GMT")],
        ),
        ("GET", &[("Origin", "https://web.example")]),
    ];
    let (mut near, mut far) = (local.client(), site.client());
    for (name, _) in names {
        for (method, fields) in requests {
            let expected = near.ask(method, &target(&key(name)), fields, b"");
            let found = far.ask(method, &target(&key(name)), fields, b"");
            let what = format!("{method} {name} {fields:?}");
            assert_eq!(found.status, expected.status, "{what}");
            if name != "empty.png" {
                assert_eq!(found.lasting_fields(), expected.lasting_fields(), "{what}");
            }
            assert_eq!(found.body, expected.body, "{what}");
        }
    }
    let parts = far.ask("GET", &target(&key("digits.png")), requests[5].1, b"");
    assert_eq!(parts_of(&parts).len(), 3);
    // One more when the program starts.
    assert!(store.connections().accepted <= 2, "connections are kept");
}

/// A plain GET is one request, and what is known needs no HEAD.
#[test]
fn the_store_is_asked_as_little_as_possible() {
    let (store, digits) = with_digits();
    let site = store.plan("get: relay").start();
    let mut client = site.client();
    assert_eq!(client.get(&digits).is(200).body, DIGITS);
    client.ask("HEAD", &digits, &[], b"").is(200);
    client
        .ask("GET", &digits, &[("If-None-Match", "*")], b"")
        .is(304);
    let range = client
        .ask("GET", &digits, &[("Range", "bytes=1-2,8-9")], b"")
        .is(206);
    assert_eq!(parts_of(&range)[1].2, b"89");
    assert_eq!(asked(&store), ["GET", "GET bytes=1-2", "GET bytes=8-9"]);

    let site = store.plan("get: redirect").start();
    for _ in 0..3 {
        site.get(&digits).is(307);
    }
    assert_eq!(asked(&store)[3..], ["HEAD"]);
    // Pipelined requests have their responses in order.
    let mut client = site.client();
    let one = format!("GET {digits} HTTP/1.1\r\nHost: a\r\n\r\n");
    let none = one.replace("digits", "none");
    client.send([one.as_str(), &none, &one].concat().as_bytes());
    assert_eq!([307, 404, 307], [0; 3].map(|_| client.reply().status));
}

/// Nothing that is remembered of an object outlives what it depends on.
#[test]
fn repeated_downloads_show_every_change() {
    let (store, digits) = with_digits();
    let mut site = store.plan("get: relay").start();
    let mut client = site.client();
    let first = client.get(&digits).is(200);
    for _ in 0..3 {
        let reply = client.get(&digits).is(200);
        assert_eq!(reply.body, DIGITS);
        assert_eq!(reply.expect("ETag"), first.expect("ETag"));
    }
    client
        .ask("GET", &digits, &[("Range", "bytes=1-2")], b"")
        .is(206);
    store.seed_typed(&key("digits.png"), b"others", "image/png", unix_now() - 60);
    for _ in 0..3 {
        let reply = client.get(&digits).is(200);
        assert_eq!(reply.body, b"others");
        assert_ne!(reply.expect("ETag"), first.expect("ETag"));
    }
    site.rewrite("custom_headers", "{X-Site: new}");
    site.program.signal(rustix::process::Signal::HUP);
    site.program.wait_line(&["config reloaded"]);
    assert_eq!(client.get(&digits).is(200).expect("X-Site"), "new");
}

#[test]
fn redirected_downloads_are_as_safe_as_local_ones() {
    let store = S3::new();
    let modified = unix_now() - DAY;
    for (name, kind) in [
        ("a.html", "text/html"),
        ("b c.jpg", "image/jpeg"),
        ("d.js", "text/javascript"),
    ] {
        store.seed_typed(&key(name), DIGITS, kind, modified);
    }
    let site = store.plan("get: redirect, prefix: ''").start();
    for (name, kind, disposition) in [
        ("a.html", "text/html", "attachment"),
        ("b c.jpg", "image/jpeg", "inline"),
        ("d.js", "application/octet-stream", "attachment"),
    ] {
        let reply = site.get(&target(&key(name))).is(307);
        assert_eq!(reply.body, b"");
        let max_age: u64 = reply
            .expect("Cache-Control")
            .strip_prefix("private, max-age=")
            .unwrap()
            .parse()
            .unwrap();
        assert!((900..=1800).contains(&max_age), "{max_age}");
        assert_eq!(reply.expect("Access-Control-Allow-Origin"), "*");
        let found = follow(&store, "GET", &reply).is(200);
        assert_eq!(found.body, DIGITS);
        assert_eq!(found.expect("Content-Type"), kind, "{name}");
        let shown = found.expect("Content-Disposition");
        assert!(
            shown.starts_with(&format!("{disposition};")),
            "{name}: {shown}"
        );
        assert!(
            found.expect("Cache-Control").contains("immutable"),
            "{name}"
        );
        // A URL for GET is none for HEAD.
        let head = site
            .client()
            .ask("HEAD", &target(&key(name)), &[], b"")
            .is(307);
        let found = follow(&store, "HEAD", &head).is(200);
        assert_eq!(found.expect("Content-Length"), "10");
        assert_ne!(head.expect("Location"), reply.expect("Location"));
    }
    let location = || {
        site.get(&target(&key("a.html")))
            .expect("Location")
            .to_owned()
    };
    let first = location();
    thread::sleep(Duration::from_millis(1100));
    // Unless a quarter of an hour has just begun.
    let is_early = unix_now() % 900 < 3;
    assert!(location() == first || is_early && location() == location());
}

#[test]
fn public_objects_are_elsewhere() {
    let (store, digits) = with_digits();
    let site = store
        .plan("get: public, public_url: 'https://cdn.example/up'")
        .start();
    let reply = site.get(&digits).is(307);
    let url = format!("https://cdn.example/up/{}", key("digits.png"));
    assert_eq!(reply.expect("Location"), url);
    assert!(
        reply
            .expect("Cache-Control")
            .starts_with("public, max-age=")
    );
    site.get(&target(&key("none.png"))).is(404);
}

/// The name of an internal object for these bytes.
fn digest(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    BASE64URL_NOPAD.encode(&digest.as_ref()[..15])
}

#[test]
fn every_link_finds_its_object() {
    let store = S3::new();
    let uuid = "4a771ac1-f0b2-4a4a-9700-f2a26fa2bb67";
    let ejabberd = "3b1f0c2a9d/aB3dE5fG7hI9jK1lM3nO/photo.png";
    let found = [
        key("a b.png"),
        ejabberd.to_owned(),
        format!("{}/c.png", "5e".repeat(32)),
        uuid.to_owned(),
        format!("{uuid}-d e.png"),
        "HN5QJ8XK2A1TQ9B3-d e.png".to_owned(),
        key("%41.png"),
    ];
    let ended = format!("{:x}", unix_now() - 10);
    let hidden = [
        ".upslot/tombstones/x".to_owned(),
        ".hidden/a/b.png".to_owned(),
        format!("{ROMEO_FOLDER}/.a/b.png"),
        "backup.tar".to_owned(),
        format!("{}-", &uuid[1..]),
        "HN5QJ8XK2A1TQ9B3-".to_owned(),
        "hn5qj8xk2a1tq9b3-f.png".to_owned(),
        "HN5QJ8XK2A-f.png".to_owned(),
        format!("{ROMEO_FOLDER}/{}~e{ended}/f.png", "A".repeat(20)),
    ];
    for name in found.iter().chain(&hidden) {
        store.seed(&format!("chat/{name}"), name.as_bytes(), DAY);
    }
    // The slot of mod_http_file_share, and where its file is.
    let alias = format!("chat/.upslot/aliases/{}", digest(b"slot"));
    store.seed(&alias, key("a b.png").as_bytes(), DAY);
    let plan = |mode: &str| {
        let plan = store.plan(&format!("get: {mode}, prefix: chat"));
        plan.set("file_share_secret", format!("'{KEY}'"))
    };
    let relay = plan("relay").start();
    let redirect = plan("redirect").start();
    let check = |target: &str, name: &str| {
        assert_eq!(relay.get(target).is(200).text(), name, "{target}");
        let reply = redirect.get(target).is(307);
        assert_eq!(
            follow(&store, "GET", &reply).is(200).text(),
            name,
            "{target}"
        );
        relay.client().ask("HEAD", target, &[], b"").is(200);
    };
    for name in &found {
        check(&target(name), name);
    }
    // Encoded a second time, and by the slot of another server.
    check(
        &target(&key("a b.png")).replace('%', "%25"),
        &key("a b.png"),
    );
    check("/files/slot/anything.png", &key("a b.png"));
    for site in [&relay, &redirect] {
        for name in &hidden {
            site.get(&target(name)).is(404);
        }
        for other in [
            "/files/slot2/a.png",
            "/files/",
            "/files/o//n",
            "/files/o/%00",
        ] {
            assert_ne!(site.get(other).status / 100, 3, "{other}");
        }
        site.get(&format!("/files/{ROMEO_FOLDER}/a/%ff.png"))
            .is(404);
    }
    let secret = |request: &crate::harness::s3::Request| {
        request.key.contains("tombstones") || request.key.contains("~e")
    };
    assert!(
        !store.requests("*").iter().any(secret),
        "not asked for at all"
    );
}

/// What can be known before the response has begun has a response of its own.
#[test]
fn a_store_that_fails_is_not_the_clients_fault() {
    let (mut store, digits) = with_digits();
    let mut site = store.plan("get: relay").set("api", "{port: 0}").start();
    allow_failure(&mut site);
    let mut client = site.client();
    for (what, operation, fault) in [
        ("denied", "GET", Fault::Error(403, "AccessDenied")),
        ("no bucket", "GET", Fault::Error(404, "NoSuchBucket")),
        ("overload", "*", Fault::Error(503, "SlowDown")),
        ("not HTTP", "*", Fault::Raw(b"SSH-2.0-x\r\n")),
        ("a web page", "*", Fault::Text("<html>welcome</html>")),
        ("region", "GET", Fault::Redirect("eu-west-1")),
    ] {
        store.fail(operation, "digits", 100, fault);
        let reply = client.get(&digits).is(503);
        assert!(reply.has("Retry-After"), "{what}");
        store.heal();
        assert_eq!(client.get(&digits).is(200).body, DIGITS, "{what}");
    }
    // One failure is nothing that a client learns of.
    for fault in [
        Fault::Error(503, "SlowDown"),
        Fault::Error(500, "InternalError"),
        Fault::CutResponse(20),
    ] {
        store.fail("GET", "digits", 1, fault);
        assert_eq!(client.get(&digits).is(200).body, DIGITS);
    }
    store.stop();
    let begun = Instant::now();
    for _ in 0..3 {
        client.get(&digits).is(503);
    }
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    site.ask_api("/health").is(503);
    let metrics = site.ask_api("/metrics");
    assert!(metrics.text().contains("\nupslot_store_up 0\n"));
    store.start();
    eventually("health", || site.ask_api("/health").status == 200);
    assert_eq!(client.get(&digits).is(200).body, DIGITS);
    site.program.wait_line(&["store recovered"]);
}

/// What is found out later ends the connection, so that no client takes it for the file.
#[test]
fn bytes_of_two_objects_are_never_mixed() {
    let store = S3::new();
    let body = pseudo_random(3, 3_000_000);
    let (name, path) = (key("large.png"), target(&key("large.png")));
    let replace = |bytes: &[u8], age: u64| {
        store.seed_typed(&name, bytes, "image/png", unix_now() - age);
    };
    replace(&body, DAY);
    let mut site = store.plan("get: relay").start();
    allow_failure(&mut site);
    site.program.allow("object cut short");
    let cut_short = |fields: Fields<'_>, length: usize| {
        let mut client = site.client();
        client.send(&request("GET", &path, fields, b""));
        let head = client.reply_head();
        assert_eq!(head.expect("Content-Length"), length.to_string());
        let rest = client.drain();
        assert!(rest.len() < length, "{}", rest.len());
        rest
    };
    // A connection that breaks once is nothing that a client learns of.
    store.fail("GET", "large", 1, Fault::CutBody(1_000_000));
    assert!(site.get(&path).is(200).body == body);
    store.fail("GET", "large", 2, Fault::CutBody(1_000_000));
    let rest = cut_short(&[], body.len());
    assert!(rest.len() >= 1_000_000 && body.starts_with(&rest));
    store.fail("GET", "large", 2, Fault::WrongLength(10));
    site.get(&path);
    // Replaced between the connection that broke and the next one.
    let gate = Gate::new();
    store.fail("GET", "large", 1, Fault::CutBody(1_000_000));
    store.fail("GET", "large", 1, Fault::Hold(Stage::Head, gate.clone()));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| cut_short(&[], body.len()));
        gate.wait_arrived(1);
        replace(&pseudo_random(4, body.len()), DAY / 2);
        gate.open();
        let rest = waiting.join().unwrap();
        assert!(body.starts_with(&rest));
    });
    // Replaced between two ranges.
    replace(&body, DAY);
    store.fail("GET", "large", 2, Fault::Hold(Stage::Head, Gate::new()));
    store.heal();
    site.get(&path).is(200);
    // Replaced since the facts were learnt: found out in time.
    replace(DIGITS, DAY / 2);
    assert_eq!(site.get(&path).is(200).body, DIGITS);
    let reply = site
        .client()
        .ask("GET", &path, &[("Range", "bytes=2-3")], b"");
    assert_eq!(reply.is(206).body, b"23");
    replace(b"abc", DAY / 3);
    let reply = site
        .client()
        .ask("GET", &path, &[("Range", "bytes=-2")], b"");
    assert_eq!(reply.is(206).body, b"bc");
    store.change(|engine| engine.ranges = false);
    site.client()
        .ask("GET", &path, &[("Range", "bytes=-2")], b"")
        .is(503);
}

/// A response may leave in any pieces, which end within its head or within its body.
#[test]
fn a_client_that_reads_late_gets_every_byte() {
    const REQUESTS: usize = 100;
    let store = S3::new();
    let sizes = [1, 9_000, 15_000, 40_000, 200_000];
    let bodies: Vec<Vec<u8>> = (7..)
        .zip(sizes)
        .map(|(seed, size)| pseudo_random(seed, size))
        .collect();
    for (number, body) in bodies.iter().enumerate() {
        store.seed(&key(&format!("{number}.png")), body, DAY);
    }
    let site = store.plan("get: relay").start();
    let requests = (0..REQUESTS).map(|number| {
        let target = target(&key(&format!("{}.png", number % bodies.len())));
        format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")
    });
    let mut client = Client::with_small_buffer(site.http);
    client.send(requests.collect::<String>().as_bytes());
    for number in 0..REQUESTS {
        if number % 20 == 0 {
            thread::sleep(Duration::from_millis(20));
        }
        let reply = client.reply().is(200);
        assert!(reply.body == bodies[number % bodies.len()], "{number}");
    }
}

/// A client that reads slowly holds one piece in memory, and a store that sends slowly delays no one else.
#[test]
fn slow_clients_and_stores_delay_no_one() {
    const CLIENTS: usize = 40;
    let store = S3::new();
    let pattern = pseudo_random(5, 65_536 - 7);
    let size = 32 << 20;
    store.seed_sized(&key("big.png"), &pattern, size, DAY);
    store.seed(&key("small.png"), DIGITS, DAY);
    store.seed(&key("held.png"), DIGITS, DAY);
    let site = store.plan("get: relay").start();
    let (big, small) = (target(&key("big.png")), target(&key("small.png")));
    site.get(&small).is(200);
    let before = site.program.memory("VmRSS");
    let slow: Vec<Client> = (0..CLIENTS)
        .map(|number| {
            let mut client = match number {
                0 => site.client(),
                _ => Client::with_small_buffer(site.http),
            };
            client.send(format!("GET {big} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
            client.reply_head();
            client
        })
        .collect();
    let gate = Gate::new();
    store.fail("GET", "held", 1, Fault::Hold(Stage::Response, gate.clone()));
    let mut held = site.client();
    held.send(
        format!(
            "GET {} HTTP/1.1\r\nHost: a\r\n\r\n",
            target(&key("held.png"))
        )
        .as_bytes(),
    );
    gate.wait_arrived(1);
    let ticks = site.program.cpu_ticks();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(1) {
        site.get(&small).is(200);
        thread::sleep(Duration::from_millis(50));
    }
    assert!(site.program.cpu_ticks() - ticks < 30, "the loop spins");
    let grown = site.program.memory("VmRSS").saturating_sub(before);
    assert!(grown < CLIENTS as u64 * 72 + 1024, "{grown} KiB");
    gate.open();
    assert_eq!(held.reply().is(200).body, DIGITS);
    let mut slow = slow.into_iter();
    let mut client = slow.next().unwrap();
    let mut at = 0;
    while at < usize::try_from(size).unwrap() {
        let bytes = client.read(60_000).unwrap();
        assert!(!bytes.is_empty(), "the end after {at}");
        let pattern = [&pattern[at % pattern.len()..], &pattern].concat();
        assert!(pattern.starts_with(&bytes), "other bytes after {at}");
        at += bytes.len();
    }
    // The connection of a client that is gone carries no further request.
    drop(slow);
    eventually("closed connections", || store.connections().open < 8);
    assert_eq!(client.get(&small).is(200).body, DIGITS);
}

/// It is the store's failure, although the client is waited for as well.
#[test]
fn a_store_that_stops_sending_ends_the_connection() {
    let store = S3::new();
    store.seed(&key("large.png"), &pseudo_random(7, 1_000_000), DAY);
    let plan = store.plan("get: relay").set("body_timeout", 2);
    let mut site = plan.start();
    allow_failure(&mut site);
    let gate = Gate::new();
    let stage = Stage::ResponseBody(300_000);
    // The rest is requested once more.
    store.fail("GET", "large", 2, Fault::Hold(stage, gate.clone()));
    site.program.allow("object cut short");
    let mut client = site.client();
    let begun = Instant::now();
    client.send(&request("GET", &target(&key("large.png")), &[], b""));
    client.reply_head();
    assert!((300_000..=600_000).contains(&client.drain().len()));
    assert!(begun.elapsed() < Duration::from_secs(10));
    site.program.wait_line(&["store failed", "stopped"]);
    gate.open();
}

/// Over TLS on both sides.
#[test]
fn both_sides_may_be_encrypted() {
    let dir = crate::harness::dir::TempDir::new();
    let certificate = tls::certify(dir.path());
    let store = S3::with(crate::harness::s3::Options {
        tls: Some(tls::server(dir.path())),
        ..Default::default()
    });
    let body = pseudo_random(6, 2_000_000);
    store.seed(&key("large.png"), &body, DAY);
    let plan = store.plan(&format!(
        "get: relay, ca_file: {}",
        dir.path().join("cert.pem").display()
    ));
    let (plan, own) = tls::plan(plan);
    let site = plan.start();
    let config = std::sync::Arc::new(tls::trusting(&[&own], tls::BOTH));
    let mut client = Client::tls(site.http, &config, "127.0.0.1");
    for _ in 0..2 {
        assert!(client.get(&target(&key("large.png"))).is(200).body == body);
    }
    let range = [("Range", "bytes=1000000-1000009,5-9")];
    let reply = client
        .ask("GET", &target(&key("large.png")), &range, b"")
        .is(206);
    let parts = parts_of(&reply);
    assert_eq!(parts.iter().map(|part| part.2.len()).sum::<usize>(), 15);
    drop(certificate);
}
