//! Tombstones and revocations that other nodes have left in an object store: one list tells all uploads that wait.

use rustix::process::Signal;

use crate::harness::s3::S3;
use crate::harness::s3::fault::{Fault, Gate, Stage};
use crate::harness::signing::{DELETE_SECRET, UUID, delete_query, put_query};
use crate::harness::site::ROMEO_FOLDER;
use crate::harness::{Client, Site, Slot, eventually, request, unix_now};
use crate::object_store_put::{assert_stored, key, plan, slot, start};

const TOMBSTONES: &str = ".upslot/tombstones/";

/// What is listed.
const NOTES: &str = ".upslot/ after .upslot/q";

fn count(store: &S3, operation: &str, key: &str) -> usize {
    let requests = store.requests(operation);
    requests.iter().filter(|one| one.key.contains(key)).count()
}

/// Lists of the notes; others are of the probes.
fn lists(store: &S3) -> usize {
    count(store, "LIST", NOTES)
}

/// Begins an upload, and waits until the store is asked whether its object exists.
fn put_and_check(site: &Site, store: &S3, slot: &Slot, body: &[u8]) -> Client {
    let before = count(store, "HEAD", &key(slot));
    let mut client = site.client();
    client.send(&request("PUT", &slot.put, &[], body));
    eventually("the check", || count(store, "HEAD", &key(slot)) > before);
    client
}

/// The path and the target of an upload that another server has signed.
fn signed(name: &str) -> (String, String) {
    let path = format!("{UUID}/v2/{name}");
    let query = put_query("v2", &path, 5, "image/png");
    let target = format!("/files/{path}?{query}");
    (path, target)
}

/// Uploads and deletes a file on one node; returns the key of the tombstone.
fn leave_tombstone(site: &Site, store: &S3, name: &str) -> String {
    let (path, target) = signed(name);
    let fields = [("Content-Type", "image/png")];
    let before = store.keys();
    site.put_at(&target, &fields, b"hello").is(201);
    let delete = format!("/files/{path}?{}", delete_query(&path, DELETE_SECRET));
    site.client().ask("DELETE", &delete, &[], b"").is(204);
    let mut left = store.keys();
    left.retain(|key| key.starts_with(TOMBSTONES) && !before.contains(key));
    assert_eq!(left.len(), 1, "{left:?}");
    left.remove(0)
}

#[test]
fn one_list_tells_of_other_nodes() {
    let store = S3::new();
    let (first, second) = (start(plan(&store)), start(plan(&store)));
    let typed = [("Content-Type", "image/png")];
    // In ordinary life there is nothing to be read.
    let plain = slot(&second, "a.bin", 5);
    second.put(&plain, b"hello").is(201);
    assert_eq!((lists(&store), store.requests("GET").len()), (1, 0));
    assert_eq!(count(&store, "HEAD", TOMBSTONES), 0);
    // A deletion, and a revocation, between two uploads.
    leave_tombstone(&first, &store, "b.png");
    second.put_at(&signed("b.png").1, &typed, b"hello").is(409);
    second.put_at(&signed("c.png").1, &typed, b"hello").is(201);
    let old = slot(&second, "old.bin", 5);
    let revoked = format!(".upslot/revoked/{ROMEO_FOLDER}");
    store.seed(&revoked, unix_now().to_string().as_bytes(), 0);
    second.put(&old, b"hello").is(403);
    // One of another owner.
    store.remove(&revoked);
    store.seed(
        ".upslot/revoked/Q_7dsld2o0PGmDXH553Cx_WVmK",
        b"9999999999",
        0,
    );
    second.put(&old, b"hello").is(201);
    // Neither is asked for itself.
    assert_eq!(count(&store, "HEAD", TOMBSTONES), 0);
    assert_eq!(count(&store, "GET", ".upslot/"), 1);
}

#[test]
fn a_list_answers_only_earlier_uploads() {
    let store = S3::new();
    // So that each upload asks for its object.
    store.change(|engine| engine.conditional = false);
    let mut site = start(plan(&store));
    let tombstone = leave_tombstone(&site, &store, "late.png");
    store.remove(&tombstone);
    let revoked = format!(".upslot/revoked/{ROMEO_FOLDER}");
    for is_revoked in [false, true] {
        let [first, late, gone] = ["first", "late", "gone"].map(|name| slot(&site, name, 5));
        let before = lists(&store);
        // The list is made before another node deletes, and arrives later.
        let gate = Gate::new();
        let hold = Fault::Hold(Stage::Response, gate.clone());
        store.fail("LIST", NOTES, 1, hold);
        let mut first = put_and_check(&site, &store, &first, b"hello");
        gate.wait_arrived(1);
        let (path, target) = signed("late.png");
        let mut late = match is_revoked {
            true => {
                store.seed(&revoked, unix_now().to_string().as_bytes(), 0);
                put_and_check(&site, &store, &late, b"hello")
            }
            false => {
                store.seed(&tombstone, b"", 0);
                let checks = count(&store, "HEAD", &path);
                let mut client = site.client();
                let fields = [("Content-Type", "image/png")];
                client.send(&request("PUT", &target, &fields, b"hello"));
                eventually("the check", || count(&store, "HEAD", &path) > checks);
                client
            }
        };
        put_and_check(&site, &store, &gone, b"hello").reset();
        site.program.signal(Signal::HUP);
        site.program.wait_line(&["config reloaded"]);
        gate.open();
        first.reply().is(201);
        late.reply().is(if is_revoked { 403 } else { 409 });
        // One list for all that came while the first was under way.
        assert_eq!(lists(&store), before + 2);
        store.remove(&tombstone);
        store.remove(&revoked);
        let last = slot(&site, "last.bin", 5);
        site.put(&last, b"hello").is(201);
        assert_stored(&store, &key(&last), b"hello");
    }
}

#[test]
fn many_notes() {
    let store = S3::new();
    let site = start(plan(&store));
    let tombstone = leave_tombstone(&site, &store, "b.png");
    let aliases: Vec<String> = (0..100).map(|n| format!(".upslot/aliases/{n}")).collect();
    for alias in &aliases {
        store.seed(alias, b"a/b/c", 0);
    }
    // Aliases do not count.
    let plain = slot(&site, "a.bin", 5);
    site.put(&plain, b"hello").is(201);
    assert_eq!(count(&store, "HEAD", TOMBSTONES), 0);
    let before = lists(&store);
    for number in 0..60 {
        store.seed(&format!("{TOMBSTONES}-{number:02}"), b"", 0);
    }
    let revoked = format!(".upslot/revoked/{ROMEO_FOLDER}");
    let typed = [("Content-Type", "image/png")];
    for _ in 0..2 {
        let plain = slot(&site, "a.bin", 5);
        let void = slot(&site, "void.bin", 5);
        site.put(&plain, b"hello").is(201);
        site.put_at(&signed("b.png").1, &typed, b"hello").is(409);
        store.seed(&revoked, unix_now().to_string().as_bytes(), 0);
        site.put(&void, b"hello").is(403);
        store.remove(&revoked);
    }
    // Each asks for its own notes, and the list is not tried in vain each time.
    assert_eq!(lists(&store), before + 1);
    assert_eq!(count(&store, "HEAD", &tombstone), 2);
    assert_eq!(count(&store, "GET", &revoked), 4);
}

#[test]
fn a_list_that_fails() {
    let store = S3::new();
    // So that each upload asks for its object.
    store.change(|engine| engine.conditional = false);
    let mut site = start(plan(&store));
    site.program.allow("store failed");
    let (a, b) = (slot(&site, "a.bin", 5), slot(&site, "b.bin", 5));
    let gate = Gate::new();
    let hold = Fault::Hold(Stage::Response, gate.clone());
    store.fail("LIST", NOTES, 1, hold);
    let denied = Fault::Error(403, "AccessDenied");
    store.fail("LIST", NOTES, 1, denied);
    let mut first = site.client();
    first.send(&request("PUT", &a.put, &[], b"hello"));
    gate.wait_arrived(1);
    let mut second = site.client();
    second.send(&request("PUT", &b.put, &[], b"hello"));
    eventually("the check", || count(&store, "HEAD", &key(&b)) == 1);
    gate.open();
    first.reply().is(201);
    assert!(second.reply().is(503).has("Retry-After"));
    site.program
        .wait_line(&["store failed", "Let the access key"]);
    site.put(&b, b"hello").is(201);
    site.program.wait_line(&["store recovered"]);
}
