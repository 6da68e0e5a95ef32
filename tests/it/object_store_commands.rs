//! The commands `list`, `remove` and `explain` with an object store.

use crate::harness::program::run;
use crate::harness::s3::S3;
use crate::harness::s3::fault::Fault;
use crate::harness::signing::KEY;
use crate::harness::site::{JULIET, ROMEO, ROMEO_FOLDER, owner_folder};
use crate::harness::{Plan, Site, unix_now};

/// More than a page of a list.
const MANY: usize = 700;

fn key(owner: &str, number: usize, name: &str) -> String {
    format!("{}/{number:020}~a~m/{name}", owner_folder(owner))
}

fn plan(store: &S3) -> Plan {
    store
        .plan("prefix: chat")
        .set("api", "{port: 0}")
        .set("put_timeout", 300)
        .set("global_quota", "1 GiB")
        .set("user_quota_hard", 100_000)
        .set("max_file_size", 1000)
        .set("file_share_secret", format!("'{KEY}'"))
}

fn start(store: &S3) -> Site {
    let mut site = plan(store).start();
    site.program.allow("secret");
    site
}

fn seed(store: &S3, owner: &str, count: usize) {
    for number in 0..count {
        let key = format!("chat/{}", key(owner, number, "f.bin"));
        store.seed(&key, b"ten bytes.", 100_000 - number as u64);
    }
}

/// The exit code and the output of a command beside a running program.
#[track_caller]
fn ask(site: &Site, words: &[&str], code: i32) -> String {
    let (found, output) = run(words, site.dir.path());
    assert_eq!(found, Some(code), "{words:?}: {output}");
    output
}

#[test]
fn files_are_listed() {
    let store = S3::new();
    seed(&store, ROMEO, MANY);
    seed(&store, JULIET, 3);
    store.seed("chat/.upslot/tombstones/x", b"", 10);
    store.seed("other/a/b", b"", 10);
    let site = start(&store);
    let output = ask(&site, &["list", ROMEO], 0);
    assert_eq!(output.lines().count(), MANY + 1, "{output}");
    let oldest = output.lines().next().unwrap();
    assert!(oldest.ends_with(&key(ROMEO, 0, "f.bin")), "{oldest}");
    assert!(
        output.contains(&format!("{MANY} files of {ROMEO}")),
        "{output}"
    );
    let output = ask(&site, &["list", "--all"], 0);
    let mut lines = output.lines();
    assert!(lines.next().unwrap().contains(ROMEO_FOLDER), "{output}");
    assert!(
        lines.next().unwrap().contains(&owner_folder(JULIET)),
        "{output}"
    );
    assert!(lines.next().unwrap().contains("of 2 owners"), "{output}");
    let output = ask(&site, &["list", "nobody@montague.tld"], 0);
    assert!(output.contains("Nothing is stored of"), "{output}");
    let output = ask(&site, &["explain", ROMEO, "1000"], 0);
    assert!(output.contains("(7000 bytes) of 97.6 KiB"), "{output}");
    let output = ask(&site, &["import", "prosody-file-share", "/nowhere"], 1);
    assert!(output.contains("into a folder only"), "{output}");
}

#[test]
fn files_of_an_owner_are_removed() {
    let store = S3::new();
    seed(&store, ROMEO, MANY);
    seed(&store, JULIET, 3);
    let site = start(&store);
    let open = site.api_slot(&format!("jid={ROMEO}&name=a.bin&size=2"));
    let output = ask(&site, &["remove", ROMEO, "--dry-run"], 0);
    assert!(
        output.contains(&format!("{MANY} files would be removed")),
        "{output}"
    );
    assert_eq!(store.requests("DELETE").len(), 0);
    let before = unix_now();
    let output = ask(&site, &["remove", ROMEO], 0);
    assert!(
        output.contains(&format!("Removed {MANY} files of {ROMEO}")),
        "{output}"
    );
    let revoked = store.object(&format!("chat/.upslot/revoked/{ROMEO_FOLDER}"));
    let until: u64 = String::from_utf8(revoked.unwrap().bytes.to_vec())
        .unwrap()
        .parse()
        .unwrap();
    assert!((before..=unix_now()).contains(&until));
    let files = store.keys();
    let files = files.iter().filter(|key| !key.contains(".upslot"));
    assert_eq!(files.count(), 3);
    // A running upslot knows it, too.
    site.put(&open, b"ab").is(403);
    let output = ask(&site, &["remove", ROMEO], 0);
    assert!(output.contains("Nothing is stored of"), "{output}");
}

#[test]
fn the_file_of_a_url_is_removed() {
    let store = S3::new();
    let site = start(&store);
    let slot = site.api_slot(&format!("jid={ROMEO}&name=a%20b.bin&size=2"));
    site.put(&slot, b"ab").is(201);
    let url = format!("https://upload.localhost{}", slot.get);
    let output = ask(&site, &["remove", &url, "--dry-run"], 0);
    assert!(output.contains("1 file would be removed"), "{output}");
    let output = ask(&site, &["remove", &url], 0);
    assert!(output.contains(&format!("Removed {url}")), "{output}");
    // The slot is still valid, but its path must not come back.
    site.put(&slot, b"ab").is(409);
    let output = ask(&site, &["remove", &url], 0);
    assert!(output.contains("Nothing is stored of"), "{output}");
    // Those of the store itself, too.
    for number in [1, 2] {
        let key = key(ROMEO, number, "f.bin");
        store.seed(&format!("chat/{key}"), b"ab", 100);
        let url = format!("http://{}/uploads/chat/{key}?X-Amz-Date=1", store.address());
        let output = ask(&site, &["remove", &url], 0);
        assert!(output.contains(&format!("Removed {url}")), "{output}");
        assert!(store.object(&format!("chat/{key}")).is_none());
    }
    let output = ask(&site, &["remove", "https://elsewhere.example/a/b"], 1);
    assert!(
        output.contains("is not a URL of a file of this service"),
        "{output}"
    );
}

#[test]
fn failures_name_the_remedy() {
    let mut store = S3::new();
    seed(&store, ROMEO, 3);
    let mut site = start(&store);
    site.program.allow("store failed");
    site.program.allow("store not counted");
    for (code, remedy) in [
        ("SignatureDoesNotMatch", "secret_key"),
        ("InvalidAccessKeyId", "access_key"),
        ("AccessDenied", "list objects"),
    ] {
        store.fail("LIST", "", 100, Fault::Error(403, code));
        let output = ask(&site, &["list", ROMEO], 1);
        assert!(output.contains(code) && output.contains(remedy), "{output}");
        store.heal();
    }
    store.fail("LIST", "", 2, Fault::Error(503, "SlowDown"));
    assert_eq!(ask(&site, &["list", ROMEO], 0).lines().count(), 4);
    let last = key(ROMEO, 2, "f.bin");
    store.fail("DELETE", &last, 100, Fault::Error(403, "AccessDenied"));
    let output = ask(&site, &["remove", ROMEO], 1);
    assert!(output.contains("Removed 2 files"), "{output}");
    assert!(
        output.contains("cannot remove all files: access denied"),
        "{output}"
    );
    store.stop();
    let output = ask(&site, &["list", ROMEO], 1);
    assert!(output.contains("cannot be reached"), "{output}");
}
