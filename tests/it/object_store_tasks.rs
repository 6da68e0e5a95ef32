//! What upslot does with many objects of a store: counts, quotas, eviction, expiry, and users' commands; and slots whose
//! uploads it does not see.

use crate::harness::s3::S3;
use crate::harness::s3::fault::Fault;
use crate::harness::site::{JULIET, ROMEO, ROMEO_FOLDER, owner_folder};
use crate::harness::{Client, Plan, Reply, Site, Slot, eventually};

/// More than two pages of a list.
const MANY: usize = 1200;

/// The key of a file of this owner, with the tag of its folder.
fn file(owner: &str, number: usize, size: usize, suffix: &str) -> String {
    format!(
        "{}/{number:020}~{size:x}~{suffix}/f.bin",
        owner_folder(owner)
    )
}

fn seed(store: &S3, owner: &str, number: usize, size: usize, age: u64) -> String {
    let key = file(owner, number, size, "m");
    store.seed(&key, &vec![b'x'; size], age);
    key
}

fn plan(store: &S3, more: &str) -> Plan {
    store
        .plan(more)
        .set("api", "{port: 0}")
        .set("max_file_size", 1000)
}

fn start(plan: Plan) -> Site {
    let mut site = plan.start();
    site.program.allow("secret");
    site.program.allow("config warning");
    site
}

/// The answer to a slot request.
fn ask(site: &Site, owner: &str, size: usize) -> Reply {
    site.ask_api(&format!("/slot/?jid={owner}&name=a.bin&size={size}"))
}

fn slot(site: &Site, owner: &str, size: usize) -> Slot {
    site.api_slot(&format!("jid={owner}&name=a.bin&size={size}"))
}

#[test]
fn files_of_an_owner_are_counted_over_all_pages() {
    let store = S3::new();
    for number in 0..MANY {
        seed(&store, ROMEO, number, 10, 1000);
    }
    // Neither another owner's nor another program's.
    seed(&store, JULIET, 1, 5000, 1000);
    store.seed("backup.tar", &[0; 5000], 1000);
    store.seed(&format!("{ROMEO_FOLDER}-not/a/b"), &[0; 5000], 1000);
    let quota = MANY * 10 + 25;
    let site = start(plan(&store, "").set("user_quota_hard", quota));
    let slot = slot(&site, ROMEO, 25);
    assert_eq!(store.requests("LIST").len(), 1 + MANY.div_ceil(500));
    site.put(&slot, &[b'x'; 25]).is(201);
    let refused = ask(&site, ROMEO, 1).is(403);
    let text = refused.text();
    assert!(text.contains(&quota.to_string()), "{text}");
    ask(&site, JULIET, 900).is(200);
    // What is known is not asked for again.
    let lists = store.requests("LIST").len();
    ask(&site, ROMEO, 1).is(403);
    assert_eq!(store.requests("LIST").len(), lists);
}

#[test]
fn no_refusal_is_based_on_an_old_count() {
    let store = S3::new();
    let key = seed(&store, ROMEO, 1, 900, 1000);
    let site = start(plan(&store, "").set("user_quota_hard", 1000));
    ask(&site, ROMEO, 200).is(403);
    // As another node does it.
    store.remove(&key);
    eventually("the quota is free", || ask(&site, ROMEO, 200).status == 200);
}

#[test]
fn a_list_that_fails_refuses_only_those_who_need_it() {
    let store = S3::new();
    let mut site =
        start(plan(&store, "").set("access", "[{jid: romeo, max_total_size: 1000}, {jid: .}]"));
    store.fail(
        "LIST",
        ROMEO_FOLDER,
        1000,
        Fault::Error(403, "AccessDenied"),
    );
    site.program.allow("store failed");
    ask(&site, ROMEO, 10).is(503);
    let slot = slot(&site, JULIET, 10);
    site.put(&slot, &[b'x'; 10]).is(201);
    store.heal();
    ask(&site, ROMEO, 10).is(200);
    site.program.wait_line(&["store recovered"]);
}

#[test]
fn the_oldest_objects_are_evicted() {
    let store = S3::new();
    let keys: Vec<String> = (0..3)
        .map(|number| seed(&store, ROMEO, number, 300, 1000 - 100 * number as u64))
        .collect();
    let other = seed(&store, JULIET, 9, 300, 9000);
    let site = start(
        plan(&store, "")
            .set("user_quota_hard", 1000)
            .set("max_file_size", 1000)
            .set("evict_on_quota", true),
    );
    let slot = slot(&site, ROMEO, 350);
    site.put(&slot, &[b'x'; 350]).is(201);
    assert!(store.object(&keys[0]).is_none());
    for key in [&keys[1], &keys[2], &other] {
        assert!(store.object(key).is_some(), "{key}");
    }
    site.program.wait_line(&["owner trimmed"]);
}

#[test]
fn expired_objects_are_swept() {
    let store = S3::new();
    let old = seed(&store, ROMEO, 1, 10, 4000);
    let young = seed(&store, ROMEO, 2, 10, 100);
    let permanent = file(ROMEO, 3, 10, "k");
    store.seed(&permanent, &[b'x'; 10], 1_000_000);
    let foreign = "backup.tar";
    store.seed(foreign, &[0; 10], 1_000_000);
    for number in 10..MANY {
        seed(&store, JULIET, number, 10, 1_000_000);
    }
    let site = start(
        plan(&store, "")
            .set("expire_interval", 1)
            .set("expire_maxage", 1800)
            .set("purposes", "{message: {}, permanent: {}}")
            .set("global_quota", "1 MiB"),
    );
    eventually("the sweep", || store.files().len() == 3);
    for key in [&young, &permanent] {
        assert!(store.object(key).is_some(), "{key}");
    }
    assert!(store.object(foreign).is_some());
    assert!(store.object(&old).is_none());
    site.program.wait_line(&["sweep done"]);
    // Slots are issued meanwhile, and what was found is the total.
    let slot = slot(&site, ROMEO, 10);
    site.put(&slot, &[b'x'; 10]).is(201);
}

#[test]
fn a_sweep_goes_on_after_failures() {
    let store = S3::new();
    let keys = [1, 2].map(|number| seed(&store, ROMEO, number, 10, 4000));
    store.fail("DELETE", &keys[0], 1000, Fault::Error(403, "AccessDenied"));
    let mut site = start(
        plan(&store, "")
            .set("expire_interval", 1)
            .set("expire_maxage", 1800),
    );
    site.program.allow("sweep not complete");
    eventually("the other object is deleted", || {
        store.object(&keys[1]).is_none()
    });
    assert!(store.object(&keys[0]).is_some());
    site.program.wait_line(&["sweep not complete"]);
    store.heal();
    eventually("a later sweep", || store.object(&keys[0]).is_none());
}

/// The targets of the PUT and the GET URL of a direct slot, and the place of the latter.
fn direct_slot(site: &Site, store: &S3, query: &str) -> (String, String) {
    let reply = site.ask_api(&format!("/slot/?{query}")).is(200);
    let (put, get) = reply.text().split_once('\n').expect("two lines");
    let at = |url: &str, origin: &str| url.strip_prefix(origin).expect(url).to_owned();
    let store = format!("http://{}", store.address());
    (at(put, &store), at(get, "https://upload.localhost"))
}

/// The status of a request to the store, as a client makes it.
fn ask_store(store: &S3, method: &str, target: &str, fields: &str, body: &[u8]) -> Reply {
    let address = store.address();
    // The texts of the store are its own.
    let mut client = Client::local(address);
    let length = body.len();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\n{fields}\r\n"
    );
    client.send(&[head.as_bytes(), body].concat());
    client.reply_to(method)
}

#[track_caller]
fn put_direct(store: &S3, target: &str, fields: &str, body: &[u8], status: u16) {
    ask_store(store, "PUT", target, fields, body).is(status);
}

#[test]
fn direct_uploads_bypass_upslot() {
    let store = S3::new();
    let site = start(plan(&store, "put: direct"));
    let query = format!("jid={ROMEO}&name=tr%C3%A8s+%23%25.png&size=10&content_type=image/png");
    let (put, get) = direct_slot(&site, &store, &query);
    let png = "Content-Type: image/png\r\n";
    for (fields, body) in [
        (png, &b"elevenbytes"[..]),
        (png, b"ninebytes"),
        ("Content-Type: text/html\r\n", b"ten bytes."),
        ("", b"ten bytes."),
    ] {
        put_direct(&store, &put, fields, body, 403);
    }
    assert_eq!(store.files(), [""; 0]);
    put_direct(&store, &put, png, b"ten bytes.", 200);
    let reply = site.get(&get).is(307);
    let location = reply.expect("Location");
    let target = location.strip_prefix(&format!("http://{}", store.address()));
    let found = ask_store(&store, "GET", target.unwrap(), "", b"").is(200);
    assert_eq!(found.body, b"ten bytes.");
    // A request without a type is for any type.
    let (put, _) = direct_slot(&site, &store, &format!("jid={ROMEO}&name=b&size=2"));
    put_direct(
        &store,
        &put,
        "Content-Type: application/x-any\r\n",
        b"ab",
        200,
    );
    // The types of slots are not signed if clients cannot be relied on to send them.
    let site = start(plan(&store, "put: direct, sign_content_type: false"));
    let (put, _) = direct_slot(&site, &store, &query);
    put_direct(&store, &put, "", b"ten bytes.", 200);
}

#[test]
fn slots_of_direct_uploads_count() {
    let store = S3::new();
    let site = start(plan(&store, "put: direct").set("user_quota_hard", 1000));
    for _ in 0..2 {
        ask(&site, ROMEO, 400).is(200);
    }
    // Nothing is uploaded yet, but it may be.
    ask(&site, ROMEO, 400).is(403);
    ask(&site, JULIET, 400).is(200);
    ask(&site, ROMEO, 200).is(200);
}

#[test]
fn slots_of_direct_uploads_survive_a_new_count() {
    let store = S3::new();
    let plan = plan(&store, "put: direct")
        .set("user_quota_hard", 1000)
        .set("global_quota", 1500)
        .set("expire_interval", 1)
        .set("expire_maxage", 3600);
    let site = start(plan);
    let (put, _) = direct_slot(&site, &store, &format!("jid={ROMEO}&name=a&size=400"));
    ask(&site, ROMEO, 400).is(200);
    // After each sweep, all is counted again.
    let sweeps = || {
        let mut lists = store.requests("LIST");
        let owners = [ROMEO, JULIET].map(owner_folder);
        lists.retain(|list| !owners.iter().any(|owner| list.key.contains(owner)));
        lists.len()
    };
    let pass_sweeps = || {
        let before = sweeps();
        eventually("sweeps", || sweeps() >= before + 3);
    };
    pass_sweeps();
    ask(&site, ROMEO, 400).is(403);
    // Nothing counts twice: neither the file that is stored by now, nor the slot that is not.
    let any = "Content-Type: application/x-any\r\n";
    put_direct(&store, &put, any, &[b'x'; 400], 200);
    pass_sweeps();
    ask(&site, ROMEO, 201).is(403);
    ask(&site, JULIET, 701).is(507);
    ask(&site, ROMEO, 200).is(200);
    pass_sweeps();
    ask(&site, ROMEO, 1).is(403);
    ask(&site, JULIET, 501).is(507);
    ask(&site, JULIET, 500).is(200);
}

#[test]
fn slots_of_direct_uploads_are_given_back() {
    let store = S3::new();
    let plan = plan(&store, "put: direct").set("user_quota_hard", 1000);
    let site = start(plan.set("put_timeout", 2));
    ask(&site, ROMEO, 600).is(200);
    eventually("the slot has expired", || {
        ask(&site, ROMEO, 600).status == 200
    });
}
