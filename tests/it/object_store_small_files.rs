//! Small uploads to an object store, whose bodies are collected and sent along with their requests.

use crate::harness::s3::S3;
use crate::harness::s3::fault::{Fault, Gate, Stage};
use crate::harness::site::begin;
use crate::harness::{eventually, pseudo_random, request};
use crate::object_store_put::{assert_stored, key, plan, slot, start};

/// The largest body that is collected.
const SMALL: usize = 64 << 10;

/// The requests that stored files, and the bytes of their bodies that came.
fn puts(store: &S3) -> Vec<u64> {
    let mut puts = store.requests("PUT");
    puts.retain(|put| !put.key.starts_with(".upslot/"));
    puts.iter().map(|put| put.received).collect()
}

#[test]
fn the_whole_body_comes_before_the_request() {
    let store = S3::new();
    let site = start(plan(&store));
    let body = pseudo_random(11, SMALL + 1);
    for (size, is_small) in [(1, true), (SMALL, true), (SMALL + 1, false)] {
        let slot = slot(&site, "a.bin", size);
        let before = puts(&store).len();
        let mut client = begin(&site, &slot, size);
        client.send(&body[..size - 1]);
        // Another request has been answered since.
        site.get("/nothing/here").is(404);
        assert_eq!(puts(&store).len() == before, is_small, "{size}");
        client.send(&body[size - 1..size]);
        client.reply().is(201);
        assert_stored(&store, &key(&slot), &body[..size]);
    }
    // The client goes away in its body, or sends a byte too many.
    let (sent, small) = (puts(&store).len(), slot(&site, "b.bin", 1000));
    for end in [0, 1, 999] {
        let mut client = begin(&site, &small, 1000);
        client.send(&body[..end]);
        client.reset();
    }
    site.put(&small, &body[..1001]).is(413);
    assert_eq!(puts(&store).len(), sent);
    site.put(&small, &body[..1000]).is(201);
    assert_stored(&store, &key(&small), &body[..1000]);
}

#[test]
fn a_busy_store_gets_the_body_again() {
    let store = S3::new();
    let mut site = start(plan(&store));
    let body = pseudo_random(12, 20_000);
    for fault in [
        Fault::Error(503, "SlowDown"),
        Fault::LateError(503, "SlowDown"),
        Fault::LateError(429, "TooManyRequests"),
    ] {
        let slot = slot(&site, "busy.bin", body.len());
        store.fail("PUT", "busy.bin", 2, fault);
        site.put(&slot, &body).is(201);
        assert_stored(&store, &key(&slot), &body);
        site.put(&slot, &body).is(409);
    }
    // Not endlessly.
    site.program.allow("store failed");
    let busy = slot(&site, "busy.bin", body.len());
    store.fail("PUT", "busy.bin", 100, Fault::Error(503, "SlowDown"));
    assert!(site.put(&busy, &body).is(503).has("Retry-After"));
    store.heal();
    site.put(&busy, &body).is(201);
    site.program.wait_line(&["store recovered"]);
}

#[test]
fn a_lost_connection() {
    let mut store = S3::new();
    let mut site = start(plan(&store));
    site.program.allow("store failed");
    let body = pseudo_random(13, 20_000);
    let length = body.len() as u64;
    // On a new connection: the object is there, or it is not.
    for (fault, status) in [
        (Fault::CutResponse(0), 201),
        (Fault::CutRequest(length), 503),
        (Fault::CutRequest(0), 503),
        (Fault::LateError(500, "InternalError"), 503),
    ] {
        for is_kept in [false, true] {
            let slot = slot(&site, "lost.bin", body.len());
            store.change(|engine| engine.closes = !is_kept);
            if !is_kept {
                store.stop();
                store.start();
            }
            store.fail("PUT", "lost.bin", 1, fault.clone());
            let reply = site.put(&slot, &body);
            // On a kept connection, which the store may have closed before, the request is repeated.
            let lost = !matches!(fault, Fault::LateError(..));
            let expected = if is_kept && lost { 201 } else { status };
            assert_eq!(reply.status, expected, "{fault:?} {is_kept}");
            store.heal();
            store.change(|engine| engine.closes = false);
            site.put(&slot, &body)
                .is(if expected == 201 { 409 } else { 201 });
            assert_stored(&store, &key(&slot), &body);
        }
    }
}

/// A client that goes away when its body is whole leaves a whole object.
#[test]
fn a_client_that_goes_away() {
    let store = S3::new();
    let site = start(plan(&store));
    for fault in [
        Fault::Hold(Stage::Response, Gate::new()),
        Fault::Error(503, "SlowDown"),
    ] {
        let slot = slot(&site, "a.bin", 5);
        store.fail("PUT", "a.bin", 1, fault.clone());
        let mut client = site.client();
        let count = puts(&store).len();
        client.send(&request("PUT", &slot.put, &[], b"first"));
        eventually("the request", || puts(&store).len() > count);
        client.reset();
        store.heal();
        eventually("the object", || store.object(&key(&slot)).is_some());
        site.put(&slot, b"other").is(409);
        assert_stored(&store, &key(&slot), b"first");
    }
    assert_eq!(store.files().len(), 2);
}
