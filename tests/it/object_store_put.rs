//! Uploads that pass through to an object store.

use std::io::Write;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::dir::TempDir;
use crate::harness::http::{HOST, chunked};
use crate::harness::s3::fault::{Fault, Gate, Stage};
use crate::harness::s3::{Options, S3};
use crate::harness::signing::{Claims, DELETE_SECRET, KEY, UUID, delete_query, put_query};
use crate::harness::site::{ROMEO, ROMEO_FOLDER, begin};
use crate::harness::{Client, Plan, Site, Slot, eventually, pseudo_random, request, tls, unix_now};

/// The largest file.
const LARGEST: usize = 6 << 20;

pub(crate) fn plan(store: &S3) -> Plan {
    store
        .plan("")
        .set("api", "{port: 0}")
        .set("max_file_size", LARGEST)
        .set("external_secret", format!("'{KEY}'"))
        .set("external_delete_secret", format!("'{DELETE_SECRET}'"))
        .set("file_share_secret", format!("'{KEY}'"))
}

pub(crate) fn start(plan: Plan) -> Site {
    let mut site = plan.start();
    site.program.allow("secret");
    site
}

pub(crate) fn slot(site: &Site, name: &str, size: usize) -> Slot {
    site.api_slot(&format!("jid={ROMEO}&name={name}&size={size}"))
}

/// The key of the object of a slot.
pub(crate) fn key(slot: &Slot) -> String {
    slot.stored_at().into_os_string().into_string().unwrap()
}

/// Lets an administrator delete the files of Romeo, which revokes his slots.
pub(crate) fn revoke_slots(site: &mut Site) {
    let commands = "http://jabber.org/protocol/commands";
    let mut command = |attributes: &str, form: &str| {
        let payload =
            format!("<command xmlns='{commands}' node='delete-user' {attributes}>{form}</command>");
        let reply = site.link().iq("set", "admin@montague.tld/a", &payload);
        let session = reply.expect("command", commands).attribute("sessionid");
        session.unwrap_or_default().to_owned()
    };
    let session = command("action='execute'", "");
    let form = format!(
        "<x xmlns='jabber:x:data' type='submit'><field var='user'><value>{ROMEO}</value></field></x>"
    );
    command(&format!("sessionid='{session}' action='next'"), &form);
    command(&format!("sessionid='{session}' action='complete'"), "");
}

pub(crate) fn assert_stored(store: &S3, key: &str, body: &[u8]) {
    let object = store.object(key).unwrap_or_else(|| panic!("no {key}"));
    assert!(*object.bytes == *body, "{key} has another content");
}

/// Checks that the program still stores files.
#[track_caller]
fn assert_works(site: &Site, store: &S3) {
    let slot = slot(site, "after.bin", 5);
    site.put(&slot, b"after").is(201);
    assert_stored(store, &key(&slot), b"after");
}

/// The head of a PUT.
fn head(slot: &Slot, size: usize) -> Vec<u8> {
    let length = size.to_string();
    request("PUT", &slot.put, &[("Content-Length", &length)], b"")
}

#[test]
fn bodies_pass_through() {
    let store = S3::new();
    let site = start(plan(&store));
    for size in [1, 10 << 10, LARGEST * 9 / 10] {
        let body = pseudo_random(1, size);
        let plain = slot(&site, "a.bin", size);
        let reply = site.put(&plain, &body).is(201);
        assert!(reply.expect("Location").ends_with(&plain.get));
        assert_stored(&store, &key(&plain), &body);
        site.put(&plain, &body).is(409);
        let in_chunks = slot(&site, "b.bin", size);
        let fields = [("Transfer-Encoding", "chunked")];
        let sent = chunked(&body, 1000.max(size / 3));
        site.put_at(&in_chunks.put, &fields, &sent).is(201);
        assert_stored(&store, &key(&in_chunks), &body);
        let expecting = slot(&site, "c.bin", size);
        let mut client = begin(&site, &expecting, size);
        client.send(&body);
        client.reply().is(201);
        assert_stored(&store, &key(&expecting), &body);
    }
    // Many small chunks.
    let body = pseudo_random(2, 20_000);
    let slot_of_chunks = slot(&site, "d.bin", body.len());
    let fields = [("Transfer-Encoding", "chunked")];
    site.put_at(&slot_of_chunks.put, &fields, &chunked(&body, 1))
        .is(201);
    assert_stored(&store, &key(&slot_of_chunks), &body);
    // A type, and names that have to be encoded.
    let typed = site.api_slot(&format!(
        "jid={ROMEO}&name=tr%C3%A8s+%26%2B%25.jpg&size=5&content_type=image/jpeg"
    ));
    let fields = [("Content-Type", "image/jpeg")];
    site.put_at(&typed.put, &fields, b"hello").is(201);
    let object = store.object(&key(&typed)).unwrap();
    assert_eq!(object.content_type, "image/jpeg");
    // Requests that follow on the same connection, before the response.
    let (first, second) = (slot(&site, "e", 5), slot(&site, "f", 5));
    let mut client = site.client();
    let mut requests = request("PUT", &first.put, &[], b"first");
    requests.extend(request("PUT", &first.put, &[], b"again"));
    requests.extend(request("PUT", &second.put, &[], b"other"));
    requests.extend(request("GET", "/", &[], b""));
    client.send(&requests);
    for status in [201, 409, 201, 200] {
        client.reply().is(status);
    }
    assert_stored(&store, &key(&first), b"first");
    assert_stored(&store, &key(&second), b"other");
    // HTTP/1.0, and a client that closes its sending side.
    let old = slot(&site, "g", 5);
    let mut client = site.client();
    client.send(format!("PUT {} HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello", old.put).as_bytes());
    client.shut_write();
    client.reply().is(201);
    client.ends();
    assert_stored(&store, &key(&old), b"hello");
    let put = store.requests("PUT").pop().unwrap();
    // A small body is sent along, a large one after the store has asked for it.
    let large = store.requests("PUT").into_iter().find(|put| {
        let length = put.head.field("content-length");
        length == Some((LARGEST * 9 / 10).to_string().as_str())
    });
    for (put, length, expect) in [
        (put, 5, None),
        (large.unwrap(), LARGEST * 9 / 10, Some("100-continue")),
    ] {
        let length = length.to_string();
        for (name, value) in [
            ("content-length", Some(length.as_str())),
            ("if-none-match", Some("*")),
            ("expect", expect),
        ] {
            assert_eq!(put.head.field(name), value, "{name}");
        }
    }
    // A few connections carried all requests.
    assert!(
        store.connections().accepted <= 16,
        "{:?}",
        store.connections()
    );
    assert!(
        site.program
            .lines()
            .iter()
            .any(|line| line.contains("upload published"))
    );
}

#[test]
fn the_first_whole_body_wins() {
    for conditional in [true, false] {
        let store = S3::new();
        store.change(|engine| engine.conditional = conditional);
        let site = start(plan(&store));
        let contested = slot(&site, "a.bin", 5);
        // Both have begun when the first ends.
        let mut late = begin(&site, &contested, 5);
        late.send(b"lat");
        let gate = Gate::new();
        store.fail(
            "PUT",
            "a.bin",
            1,
            Fault::Hold(Stage::Response, gate.clone()),
        );
        let mut first = begin(&site, &contested, 5);
        first.send(b"first");
        gate.wait_arrived(1);
        late.send(b"er");
        late.reply().is(409);
        gate.open();
        first.reply().is(201);
        let mut third = site.client();
        third.ask("PUT", &contested.put, &[], b"third").is(409);
        assert_stored(&store, &key(&contested), b"first");

        // The first fails, and the other one takes its place.
        let contested = slot(&site, "b.bin", 5);
        let mut late = begin(&site, &contested, 5);
        let mut later = begin(&site, &contested, 5);
        store.fail("PUT", "b.bin", 1, Fault::LateError(400, "BadDigest"));
        let mut first = begin(&site, &contested, 5);
        first.send(b"first");
        first.reply().is(503);
        late.send(b"later");
        late.reply().is(201);
        later.send(b"third");
        later.reply().is(409);
        assert_stored(&store, &key(&contested), b"later");
        let mut site = site;
        site.program.allow("store failed");
    }
}

#[test]
fn broken_off_bodies_leave_nothing() {
    let store = S3::new();
    let site = start(plan(&store).set("body_timeout", 1));
    let size = 1 << 20;
    let body = pseudo_random(3, size);
    let slot = slot(&site, "a.bin", size);
    let fields = [("Transfer-Encoding", "chunked")];
    for sent in [0, 1, 100_000, size - 1] {
        let mut client = begin(&site, &slot, size);
        client.send(&body[..sent]);
        client.reset();
        let mut client = begin(&site, &slot, size);
        client.send(&body[..sent]);
        client.shut_write();
        client.ends();
        // One byte is missing, or too many follow.
        let mut short = chunked(&body[..sent], 70_000);
        site.put_at(&slot.put, &fields, &short).is(400);
        short.truncate(short.len() - 5);
        let mut client = site.client();
        client.send(&request("PUT", &slot.put, &fields, &short));
        client.reply().is(408);
    }
    // The whole body arrives with the head, and with a byte too many.
    let small = self::slot(&site, "b.bin", 10_000);
    let mut sent = chunked(&body[..10_000], 10_000);
    sent.truncate(sent.len() - 5);
    sent.extend(b"1\r\nx\r\n0\r\n\r\n");
    site.put_at(&small.put, &fields, &sent).is(413);
    let long = [&body[..], b"x"].concat();
    site.put_at(&slot.put, &fields, &chunked(&long, 70_000))
        .is(413);
    let mut last = chunked(&body, size);
    last.truncate(last.len() - 5);
    last.extend(b"1\r\nx\r\n0\r\n\r\n");
    site.put_at(&slot.put, &fields, &last).is(413);
    site.put(&slot, &long).is(413);
    eventually("all requests to end", || {
        store.requests("PUT").iter().all(|request| request.ended)
    });
    assert_eq!(store.files(), [""; 0]);
    site.put(&slot, &body).is(201);
    assert_stored(&store, &key(&slot), &body);
}

#[test]
fn a_store_that_fails() {
    let store = S3::new();
    let mut site = start(plan(&store));
    site.program.allow("store failed");
    let size = 300_000;
    let body = pseudo_random(4, size);
    for at in [0, 1, 70_000, size as u64 - 1] {
        let slot = slot(&site, "cut.bin", size);
        store.fail("PUT", "cut.bin", 1, Fault::CutRequest(at));
        let reply = site.put(&slot, &body).is(503);
        assert!(reply.has("Retry-After"));
        site.put(&slot, &body).is(201);
    }
    // The whole body was sent, and the object is there or not.
    let unsure = slot(&site, "unsure.bin", size);
    store.fail("PUT", "unsure.bin", 1, Fault::CutResponse(0));
    site.put(&unsure, &body).is(201);
    assert_stored(&store, &key(&unsure), &body);
    let unsure = slot(&site, "lost.bin", size);
    store.fail("PUT", "lost.bin", 1, Fault::CutRequest(size as u64));
    site.put(&unsure, &body).is(503);
    site.put(&unsure, &body).is(201);
    // Failures that pass.
    for (operation, times) in [("HEAD", 1), ("LIST", 1), ("PUT", 2)] {
        let slot = slot(&site, "busy.bin", size);
        store.fail(operation, "", times, Fault::Error(503, "SlowDown"));
        site.put(&slot, &body).is(201);
        store.heal();
    }
    // Failures that stay.
    let slot = slot(&site, "no.bin", size);
    for (operation, fault, status, told) in [
        ("PUT", Fault::Error(503, "SlowDown"), 503, "limits the rate"),
        (
            "PUT",
            Fault::LateError(503, "SlowDown"),
            503,
            "limits the rate",
        ),
        (
            "PUT",
            Fault::Error(403, "AccessDenied"),
            503,
            "Let the access key",
        ),
        (
            "PUT",
            Fault::Error(403, "QuotaExceeded"),
            507,
            "Raise the quota",
        ),
        ("HEAD", Fault::Error(403, ""), 503, "Let the access key"),
        (
            "LIST",
            Fault::Error(404, "NoSuchBucket"),
            503,
            "Create the bucket",
        ),
        ("LIST", Fault::Text("tomorrow"), 503, "no XML"),
        (
            "PUT",
            Fault::Raw(b"SSH-2.0-OpenSSH\r\n"),
            503,
            "store failed",
        ),
        ("PUT", Fault::Redirect("eu-west-1"), 503, "Set `region`"),
    ] {
        store.fail(operation, "", 100, fault.clone());
        let mut client = site.client();
        let length = size.to_string();
        let fields = [("Content-Length", &*length), ("Expect", "100-continue")];
        client.send(&request("PUT", &slot.put, &fields, b""));
        let mut reply = client.reply();
        if reply.status == 100 {
            client.send(&body);
            reply = client.reply();
        }
        assert_eq!(reply.status, status, "{operation} {fault:?}");
        site.program.wait_line(&["store failed", told]);
        store.heal();
    }
    assert!(!store.files().contains(&key(&slot)));
    site.put(&slot, &body).is(201);
    site.program.wait_line(&["store recovered"]);
}

#[test]
fn a_store_that_only_denies_writes_is_not_healthy() {
    let store = S3::new();
    let mut site = start(plan(&store));
    site.program.allow("store failed");
    site.ask_api("/health").is(200);
    store.fail("PUT", "", 1000, Fault::Error(403, "AccessDenied"));
    let slot = slot(&site, "a.bin", 10);
    site.put(&slot, &[b'x'; 10]).is(503);
    site.ask_api("/health").is(503);
    // It is probed by a write, which fails as well, although a list would not.
    let probed = || {
        let requests = store.requests("PUT");
        requests.iter().any(|put| put.key == ".upslot/probe")
    };
    eventually("a probe", probed);
    site.ask_api("/health").is(503);
    store.heal();
    eventually("health", || site.ask_api("/health").status == 200);
    site.program.wait_line(&["store recovered"]);
    site.put(&slot, &[b'x'; 10]).is(201);
}

#[test]
fn a_slow_store_delays_no_one_else() {
    let store = S3::with(Options {
        small_buffers: true,
        ..Options::default()
    });
    let mut site = start(plan(&store).set("body_timeout", 4));
    site.program.allow("store failed");
    let body = pseudo_random(5, LARGEST);
    let (slow, stuck) = (
        slot(&site, "slow.bin", body.len()),
        slot(&site, "stuck.bin", body.len()),
    );
    let gate = Gate::new();
    for (name, at) in [("slow.bin", 100_000), ("stuck.bin", 200_000)] {
        store.fail("PUT", name, 1, Fault::Hold(Stage::Body(at), gate.clone()));
    }
    let (mut client, mut other) = (site.client(), site.client());
    let writing = [(&client, &slow), (&other, &stuck)].map(|(client, slot)| {
        let mut writer = client.writer();
        let sent = request("PUT", &slot.put, &[], &body);
        // The program closes the connection when it has read for long enough.
        thread::spawn(move || drop(writer.write_all(&sent)))
    });
    gate.wait_arrived(2);
    site.program.assert_idle("a store that takes nothing");
    let begun = Instant::now();
    assert_works(&site, &store);
    site.get("/").is(200);
    assert!(begun.elapsed() < Duration::from_secs(1));
    // The store is too slow, not the client.
    let (reply, took) = (other.reply().is(503), begun.elapsed());
    assert!(reply.has("Retry-After"));
    assert!(took < Duration::from_secs(8), "{took:?}");
    client.reply().is(503);
    gate.open();
    for writing in writing {
        writing.join().unwrap();
    }
    // A store that pauses less long.
    let gate = Gate::new();
    store.fail(
        "PUT",
        "slow.bin",
        1,
        Fault::Hold(Stage::Body(100_000), gate.clone()),
    );
    let mut client = site.client();
    let mut writer = client.writer();
    let sent = request("PUT", &slow.put, &[], &body);
    let writing = thread::spawn(move || writer.write_all(&sent).unwrap());
    gate.wait_arrived(1);
    thread::sleep(Duration::from_millis(2500));
    gate.open();
    client.reply().is(201);
    writing.join().unwrap();
    assert_stored(&store, &key(&slow), &body);
}

#[test]
fn a_dead_store() {
    let mut store = S3::new();
    let mut site = start(plan(&store));
    site.program.allow("store failed");
    assert_works(&site, &store);
    store.stop();
    let slot = slot(&site, "a.bin", 5);
    for _ in 0..3 {
        let begun = Instant::now();
        let reply = site.put(&slot, b"hello").is(503);
        assert!(
            begun.elapsed() < Duration::from_secs(1),
            "{:?}",
            begun.elapsed()
        );
        assert!(reply.has("Retry-After"));
    }
    site.program
        .wait_line(&["store failed", "Check that the store runs"]);
    site.ask_api("/health").is(503);
    store.start();
    eventually("the store to be used", || {
        site.put(&slot, b"hello").status == 201
    });
    assert_stored(&store, &key(&slot), b"hello");
    site.ask_api("/health").is(200);
}

#[test]
fn slots_of_other_servers() {
    let store = S3::new();
    let mut site = start(plan(&store));
    let claims = Claims::new("0192f0aa");
    claims.put(&site, b"hello").is(201);
    let alias = |store: &S3| {
        let mut keys = store.keys();
        keys.retain(|key| key.starts_with(".upslot/aliases/"));
        keys.pop().map(|key| store.object(&key).unwrap().bytes)
    };
    let file = store.files().pop().unwrap();
    assert_eq!(*alias(&store).unwrap(), *file.as_bytes());
    claims.put(&site, b"hello").is(409);
    // The slot stays used when its file is gone; with another name it is the same.
    claims.clone().named("b.txt").put(&site, b"hello").is(409);
    // Without an alias nothing is left.
    let failing = Claims::new("0192f0ab");
    store.fail(
        "PUT",
        ".upslot/aliases/",
        3,
        Fault::Error(403, "AccessDenied"),
    );
    failing.put(&site, b"hello").is(503);
    site.program.allow("store failed");
    assert_eq!(store.files(), [file.as_str()]);
    store.heal();
    failing.put(&site, b"hello").is(201);

    for scheme in ["v", "v2"] {
        let path = format!("{UUID}/{scheme}/a.bin");
        let target = format!("/files/{path}?{}", put_query(scheme, &path, 5, "image/png"));
        let fields = [("Content-Type", "image/png")];
        site.put_at(&target, &fields, b"hello").is(201);
        site.put_at(&target, &fields, b"hello").is(409);
        assert_stored(&store, &path, b"hello");
        // Deletion leaves a tombstone.
        let delete = format!("/files/{path}?{}", delete_query(&path, DELETE_SECRET));
        store.fail("DELETE", &path, 3, Fault::Error(403, "AccessDenied"));
        site.client().ask("DELETE", &delete, &[], b"").is(503);
        store.heal();
        let mut client = site.client();
        client.ask("DELETE", &delete, &[], b"").is(204);
        client.ask("DELETE", &delete, &[], b"").is(404);
        assert!(store.object(&path).is_none());
        site.put_at(&target, &fields, b"hello").is(409);
    }
    site.program.wait_line(&["file deleted"]);
}

#[test]
fn revoked_slots() {
    let store = S3::new();
    let mut site = start(plan(&store));
    site.program.allow("store failed");
    let old = slot(&site, "old.bin", 5);
    let revoked = format!(".upslot/revoked/{ROMEO_FOLDER}");
    store.seed(&revoked, b"tomorrow", 0);
    site.put(&old, b"hello").is(503);
    site.program.wait_line(&["store failed", "no time"]);
    store.seed(&revoked, unix_now().to_string().as_bytes(), 0);
    site.put(&old, b"hello").is(403);
    store.seed(&revoked, (unix_now() - 100).to_string().as_bytes(), 0);
    // During a long upload.
    let mut client = begin(&site, &old, 5);
    client.send(b"hel");
    thread::sleep(Duration::from_millis(1100));
    store.seed(&revoked, unix_now().to_string().as_bytes(), 0);
    client.send(b"lo");
    client.reply().is(403);
    assert_eq!(store.files(), [""; 0]);
    store.seed(&revoked, (unix_now() - 100).to_string().as_bytes(), 0);
    site.put(&old, b"hello").is(201);
}

/// The deletion of all files of an owner takes the unused slots along, on all nodes.
#[test]
fn slots_are_revoked_with_the_files() {
    let store = S3::new();
    let mut site = store
        .keep(Plan::new().set("admins", "[admin@montague.tld]"), "")
        .start();
    site.program.allow("store failed");
    let done = site.upload("done.bin", None, b"hello");
    let unused = site.slot(ROMEO, "unused.bin", 5, None);
    let ending = site.slot(ROMEO, "ending.bin", 5, None);
    let gate = Gate::new();
    store.fail(
        "PUT",
        "ending.bin",
        1,
        Fault::Hold(Stage::Response, gate.clone()),
    );
    let mut client = begin(&site, &ending, 5);
    client.send(b"hello");
    gate.wait_arrived(1);
    store.fail(
        "PUT",
        ".upslot/revoked/",
        1,
        Fault::Error(403, "AccessDenied"),
    );
    revoke_slots(&mut site);
    assert!(store.object(&key(&done)).is_none());
    gate.open();
    client.reply().is(403);
    site.put(&unused, b"hello").is(403);
    assert_eq!(store.files(), [""; 0]);
    // That it cannot be recorded for other nodes is only for a while.
    let revoked = format!(".upslot/revoked/{ROMEO_FOLDER}");
    eventually("the revocation", || store.object(&revoked).is_some());
    let until = String::from_utf8(store.object(&revoked).unwrap().bytes.to_vec()).unwrap();
    let age = unix_now() - until.parse::<u64>().unwrap();
    assert!(age < 30, "{until}");
    site.upload("later.bin", None, b"hello");
}

#[test]
fn encrypted_connections() {
    let dir = TempDir::new();
    let ca_file = dir.path().join("cert.pem");
    tls::certify(dir.path());
    let store = S3::with(Options {
        tls: Some(tls::server(dir.path())),
        ..Options::default()
    });
    let section = format!("ca_file: {}", ca_file.display());
    let plan = store.plan(&section).set("api", "{port: 0}");
    let (plan, certificate) = tls::plan(plan);
    let site = plan.start();
    let config = Arc::new(tls::trusting(&[&certificate], tls::BOTH));
    let body = pseudo_random(7, 3 << 20);
    let (large, small) = (slot(&site, "a.bin", body.len()), slot(&site, "b.bin", 5));
    let mut client = Client::tls(site.http, &config, HOST);
    let mut requests = request("PUT", &large.put, &[], &body);
    requests.extend(request("PUT", &small.put, &[], b"hello"));
    client.send(&requests);
    client.reply().is(201);
    client.reply().is(201);
    assert_stored(&store, &key(&large), &body);
    assert_stored(&store, &key(&small), b"hello");
}

#[test]
fn quotas() {
    let store = S3::new();
    let site = start(
        plan(&store)
            .set("max_file_size", 1000)
            .set("user_quota_hard", 1000),
    );
    let first = slot(&site, "a.bin", 900);
    let second = slot(&site, "b.bin", 200);
    let mut client = begin(&site, &first, 900);
    // Bytes in transit count.
    site.put(&second, &[b'x'; 200]).is(507);
    client.send(&[b'x'; 900]);
    client.reply().is(201);
    site.put(&second, &[b'x'; 200]).is(507);
    assert_eq!(store.files().len(), 1);
}

#[test]
fn memory_is_bounded() {
    const UPLOADS: usize = 50;
    let mut store = S3::with(Options {
        small_buffers: true,
        ..Options::default()
    });
    let size = 8 << 20;
    let mut site = start(plan(&store).set("max_file_size", size));
    assert_works(&site, &store);
    let before = site.program.memory("VmRSS");
    let gate = Gate::new();
    let hold = Fault::Hold(Stage::Body(50_000), gate.clone());
    store.fail("PUT", "large.bin", 100, hold);
    let body: Arc<[u8]> = pseudo_random(6, size).into();
    let uploads: Vec<_> = (0..UPLOADS)
        .map(|_| {
            let slot = slot(&site, "large.bin", size);
            let (mut client, body) = (Client::connect(site.http), body.clone());
            // The program may close the connection before everything is sent.
            thread::spawn(move || {
                client.send(&head(&slot, size));
                client
                    .try_send(&body)
                    .is_ok()
                    .then(|| client.reply().status)
            })
        })
        .collect();
    gate.wait_arrived(UPLOADS);
    site.program.assert_idle("many uploads that wait");
    let used = site.program.memory("VmRSS") - before;
    assert!(used < 50 * 100, "{used} KiB for {UPLOADS} uploads");
    site.program.allow("store failed");
    store.stop();
    for upload in uploads {
        assert!(matches!(upload.join().unwrap(), None | Some(503)));
    }
    assert!(store.keys().iter().all(|key| !key.contains("large.bin")));
}

#[test]
fn a_shutdown_waits_for_uploads() {
    let store = S3::new();
    let mut site = start(plan(&store));
    let slot = slot(&site, "a.bin", 5);
    let gate = Gate::new();
    store.fail(
        "PUT",
        "a.bin",
        1,
        Fault::Hold(Stage::Response, gate.clone()),
    );
    let mut client = begin(&site, &slot, 5);
    client.send(b"hello");
    gate.wait_arrived(1);
    site.program.signal(Signal::TERM);
    site.program.wait_line(&["shutting down"]);
    gate.open();
    client.reply().is(201);
    client.ends();
    assert_eq!(site.program.exit_code(), Some(0));
    assert_stored(&store, &key(&slot), b"hello");
}
