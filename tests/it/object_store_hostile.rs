//! Clients and object stores that misbehave: nothing is lost, nothing is stored that was not confirmed, and no other
//! client waits.

use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::http::chunked;
use crate::harness::program::{run, value_of};
use crate::harness::s3::S3;
use crate::harness::s3::fault::Fault;
use crate::harness::signing::{KEY, UUID, put_query};
use crate::harness::site::{ROMEO, begin, owner_folder};
use crate::harness::{Client, Plan, Site, Slot, eventually, request};
use crate::object_store_put::revoke_slots;

fn start(store: &S3) -> Site {
    let plan = store.plan("").set("api", "{port: 0}");
    let mut site = plan.set("external_secret", format!("'{KEY}'")).start();
    site.program.allow("secret");
    site
}

fn slot(site: &Site, name: &str, size: usize) -> Slot {
    site.api_slot(&format!("jid={ROMEO}&name={name}&size={size}"))
}

/// The last chunk says that the body is whole; what came before it may be one of a body that is too long.
#[test]
fn nothing_is_stored_before_the_last_chunk() {
    let store = S3::new();
    let site = start(&store);
    for size in [5, 10_000, 300_000] {
        let body = vec![b'x'; size];
        let slot = slot(&site, "a.bin", size);
        let mut client = begin_chunked(&site, &slot);
        let mut sent = chunked(&body, 70_000);
        sent.truncate(sent.len() - 5);
        client.send(&sent);
        // The program reads all of it, and waits.
        thread::sleep(Duration::from_millis(300));
        assert!(
            store
                .requests("PUT")
                .iter()
                .all(|put| put.received < size as u64)
        );
        client.send(b"1\r\nx\r\n0\r\n\r\n");
        client.reply().is(413);
        eventually("all requests to end", || {
            store.requests("PUT").iter().all(|request| request.ended)
        });
        assert_eq!(store.files(), [""; 0]);
    }
}

/// A PUT in chunks whose body was asked for.
fn begin_chunked(site: &Site, slot: &Slot) -> Client {
    let mut client = site.client();
    let fields = [("Transfer-Encoding", "chunked"), ("Expect", "100-continue")];
    client.send(&request("PUT", &slot.put, &fields, b""));
    client.reply().is(100);
    client
}

/// Whatever the store says after the whole body, the answer to the client agrees with what is stored.
#[test]
fn an_object_that_is_stored_is_confirmed() {
    let store = S3::new();
    let mut site = start(&store);
    // One of the answers is not HTTP.
    site.program.allow("store failed");
    let answers: [&[u8]; 4] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
        b"nonsense\r\n\r\n",
    ];
    for answer in answers {
        let slot = slot(&site, "a.bin", 5);
        store.fail("PUT", "a.bin", 1, Fault::LateRaw(answer));
        site.put(&slot, b"hello").is(201);
        site.get(&slot.get);
        site.put(&slot, b"hello").is(409);
    }
    assert_eq!(store.files().len(), answers.len());
}

#[test]
fn files_without_content_are_stored() {
    let store = S3::new();
    let site = start(&store);
    for number in 0..10 {
        let path = format!("{UUID}/{number}.bin");
        let query = put_query("v", &path, 0, "");
        let target = format!("/files/{path}?{query}");
        site.put_at(&target, &[], b"").is(201);
    }
    assert_eq!(store.files().len(), 10);
}

/// The holder of a slot uploads to two nodes. The file of one is removed before the other has all of it.
#[test]
fn a_file_that_was_removed_does_not_come_back() {
    let store = S3::new();
    let site = start(&store);
    let path = format!("{UUID}/a.bin");
    let own = slot(&site, "a.bin", 5);
    let external = Slot {
        put: format!("/files/{path}?{}", put_query("v", &path, 5, "")),
        get: format!("/files/{path}"),
    };
    for slot in [own, external] {
        let key = slot.stored_at().into_os_string().into_string().unwrap();
        let mut client = begin(&site, &slot, 5);
        client.send(b"hel");
        store.seed(&key, b"hello", 1);
        let url = format!("https://upload.localhost{}", slot.get);
        let (code, output) = run(&["remove", &url], site.dir.path());
        assert_eq!(code, Some(0), "{output}");
        // Quicker uploads are not checked again.
        thread::sleep(Duration::from_millis(1100));
        client.send(b"lo");
        client.reply().is(409);
        assert!(store.object(&key).is_none());
    }
}

/// Other nodes, and this one after its start, know revoked slots from the store alone.
#[test]
fn a_revocation_is_recorded_before_the_end() {
    let store = S3::new();
    let plan = Plan::new().set("admins", "[admin@montague.tld]");
    let mut site = store.keep(plan, "").start();
    site.upload("done.bin", None, b"hello");
    // It is sent again after a while.
    let busy = Fault::Error(503, "SlowDown");
    store.fail("PUT", ".upslot/revoked/", 2, busy);
    revoke_slots(&mut site);
    site.program.signal(Signal::TERM);
    assert!(site.link().closed_in_order());
    site.link().close();
    assert_eq!(site.program.exit_code(), Some(0));
    let revoked = format!(".upslot/revoked/{}", owner_folder(ROMEO));
    assert!(store.object(&revoked).is_some());
}

/// However many clients there are, small requests find a descriptor for their connection to the store.
#[test]
fn clients_leave_descriptors_for_the_store() {
    let store = S3::new();
    let plan = store.plan("").descriptors(400).set("api", "{port: 0}");
    let mut site = plan.start();
    site.program.allow("max_connections limited");
    let line = site.program.wait_line(&["max_connections limited"]);
    let limit: usize = value_of(&line, "to").unwrap().parse().unwrap();
    assert!(2 * limit + 100 + 40 <= 400, "{line}");
}
