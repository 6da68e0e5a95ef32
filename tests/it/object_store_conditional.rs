//! Whether an object store honours `If-None-Match`, and uploads of small files that rely on it.

use crate::harness::s3::S3;
use crate::harness::s3::fault::Fault;
use crate::harness::signing::Claims;
use crate::harness::{Site, eventually};
use crate::object_store_put::{assert_stored, key, plan, slot, start};

/// The object that is stored to learn it.
const TRIAL: &str = ".upslot/conditional";

fn count(store: &S3, operation: &str, key: &str) -> usize {
    let requests = store.requests(operation);
    requests.iter().filter(|one| one.key.contains(key)).count()
}

/// Uploads a small and a large file; returns how many of them were looked for, and stored with a condition.
fn upload(site: &Site, store: &S3) -> (usize, usize) {
    let before = count(store, "HEAD", "~");
    let mut conditions = 0;
    for (name, size) in [("small.bin", 1000), ("large.bin", 100_000)] {
        let slot = slot(site, name, size);
        let body = vec![b'x'; size];
        site.put(&slot, &body).is(201);
        assert_stored(store, &key(&slot), &body);
        let put = store.requests("PUT").pop().unwrap();
        conditions += usize::from(put.head.field("if-none-match").is_some());
    }
    (count(store, "HEAD", "~") - before, conditions)
}

#[test]
fn what_the_store_does_is_learned() {
    for (conditional, fault, trials, then) in [
        (true, None, 2, (1, 2)),
        (false, None, 2, (2, 2)),
        (true, Some(Fault::Error(501, "NotImplemented")), 1, (2, 0)),
        // Nothing is learned.
        (true, Some(Fault::Error(403, "AccessDenied")), 1, (2, 2)),
    ] {
        let store = S3::new();
        store.change(|engine| engine.conditional = conditional);
        let is_failing = fault.is_some();
        if let Some(fault) = fault.clone() {
            store.fail("PUT", TRIAL, 1, fault);
        }
        let site = start(plan(&store));
        let first = slot(&site, "first.bin", 5);
        site.put(&first, b"hello").is(201);
        store.wait_requests("PUT", trials + 1);
        eventually("what follows", || upload(&site, &store) == then);
        assert_eq!(upload(&site, &store), then, "{conditional} {fault:?}");
        assert_eq!(count(&store, "PUT", TRIAL), trials);
        site.put(&first, b"hello").is(409);
        if is_failing || !conditional {
            continue;
        }
        // Another node learns it at once, and finds what the first has stored.
        let other = start(plan(&store));
        upload(&other, &store);
        eventually("what follows", || upload(&other, &store) == then);
        assert_eq!(count(&store, "PUT", TRIAL), trials + 1);
        let looks = count(&store, "HEAD", "first.bin");
        other.put(&first, b"other").is(409);
        assert_eq!(count(&store, "HEAD", "first.bin"), looks);
        assert_stored(&store, &key(&first), b"hello");
        // A file whose alias was not stored.
        let claims = Claims::new("0192f0aa");
        claims.put(&site, b"hello").is(201);
        let mut aliases = store.keys();
        aliases.retain(|key| key.starts_with(".upslot/aliases/"));
        store.remove(&aliases[0]);
        claims.put(&other, b"other").is(409);
        assert!(store.object(&aliases[0]).is_some());
    }
}

/// The object is looked for where more than its body is at stake.
#[test]
fn used_slots_without_room() {
    for evict in [false, true] {
        let store = S3::new();
        let limited = || {
            plan(&store)
                .set("max_file_size", 1000)
                .set("user_quota_hard", 1000)
                .set("evict_on_quota", evict)
        };
        let (site, other) = (start(limited()), start(limited()));
        let first = slot(&site, "first.bin", 600);
        site.put(&first, &[b'x'; 600]).is(201);
        let second = slot(&site, "second.bin", 300);
        site.put(&second, &[b'x'; 300]).is(201);
        eventually("the condition", || count(&store, "PUT", TRIAL) == 2);
        let warm_up = slot(&other, "third.bin", 10);
        other.put(&warm_up, &[b'x'; 10]).is(201);
        eventually("the condition", || count(&store, "PUT", TRIAL) == 3);
        let looks = count(&store, "HEAD", "first.bin");
        other.put(&first, &[b'x'; 600]).is(409);
        assert_eq!(count(&store, "HEAD", "first.bin"), looks + 1, "{evict}");
        assert_eq!(store.files().len(), 3);
    }
}
