//! Purposes (XEP-0363 1.2): announcement, folder names, limits, quotas and expiry by purpose.

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::harness::files::{age, seed};
use crate::harness::server::{UPLOAD_0, error_of};
use crate::harness::site::ROMEO;
use crate::harness::{Plan, Site, Slot, eventually, unix_now};

const PURPOSE: &str = "urn:xmpp:http:upload:purpose:0";
const ALL: &str = "{message: {}, profile: {}, ephemeral: {}, permanent: {}}";

pub fn inside(purpose: &str) -> String {
    format!("<{purpose} xmlns='{PURPOSE}'/>")
}

/// An ephemeral purpose that ends at that second.
pub fn until(at: u64) -> String {
    format!(
        "<ephemeral xmlns='{PURPOSE}' expire-before='{}'/>",
        stamp_of(at)
    )
}

/// Unix time as XEP-0082 writes it; `httpdate` knows the calendar.
fn stamp_of(at: u64) -> String {
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(at));
    let parts: Vec<&str> = date.split(' ').collect();
    let months = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let month = months.iter().position(|month| *month == parts[2]).unwrap() + 1;
    format!("{}-{month:02}-{}T{}Z", parts[3], parts[1], parts[4])
}

#[track_caller]
fn slot(site: &mut Site, size: u64, inside: &str) -> Slot {
    site.ask(ROMEO, "a.txt", size, None, inside)
        .unwrap_or_else(|refused| panic!("refused: {refused:?}"))
}

#[track_caller]
fn upload(site: &mut Site, size: usize, inside: &str) -> Slot {
    let slot = slot(site, size as u64, inside);
    site.put(&slot, &vec![b'x'; size]).is(201);
    slot
}

#[track_caller]
fn refused(site: &mut Site, size: u64, inside: &str) -> (String, String) {
    let answer = site
        .ask(ROMEO, "a.txt", size, None, inside)
        .expect_err("granted");
    let (kind, condition, text) = error_of(&answer);
    assert!(!text.is_empty());
    (kind, condition)
}

fn suffix(slot: &Slot) -> &str {
    slot.get
        .split('/')
        .nth(3)
        .unwrap()
        .rsplit_once('~')
        .unwrap()
        .1
}

#[test]
fn configured_purposes_are_announced() {
    const INFO: &str = "http://jabber.org/protocol/disco#info";
    for (purposes, announced) in [
        (ALL, &["message", "profile", "ephemeral", "permanent"][..]),
        ("{message: , permanent: }", &["message", "permanent"]),
    ] {
        let mut site = Plan::new().set("purposes", purposes).start();
        let info = site
            .link()
            .iq("get", ROMEO, &format!("<query xmlns='{INFO}'/>"));
        let found: HashSet<&str> = info
            .expect("query", INFO)
            .children
            .iter()
            .filter_map(|child| {
                child
                    .attribute("var")?
                    .strip_prefix(PURPOSE)?
                    .strip_prefix('#')
            })
            .collect();
        assert_eq!(found, announced.iter().copied().collect());
        for purpose in ["message", "profile", "permanent"] {
            if announced.contains(&purpose) {
                slot(&mut site, 5, &inside(purpose));
            } else {
                assert_eq!(
                    refused(&mut site, 5, &inside(purpose)),
                    ("modify".into(), "bad-request".into())
                );
            }
        }
        let ephemeral = site.ask(ROMEO, "a.txt", 5, None, &until(unix_now() + 100));
        assert_eq!(ephemeral.is_ok(), announced.contains(&"ephemeral"));
    }
}

#[test]
fn the_folder_name_encodes_the_purpose() {
    let mut site = Plan::new().set("purposes", ALL).start();
    let at = unix_now() + 1000;
    for (inside, expected) in [
        (String::new(), "m".to_owned()),
        (inside("message"), "m".into()),
        (inside("profile"), "p".into()),
        (inside("permanent"), "k".into()),
        (until(at), format!("e{at:x}")),
        (until(at).replace("Z'", ".5+00:00'"), format!("e{at:x}")),
    ] {
        let slot = slot(&mut site, 5, &inside);
        assert_eq!(suffix(&slot), expected);
        // The signature covers the path, and with it the purpose.
        let forged = slot.put.replacen(&format!("~{expected}/"), "~kn/", 1);
        site.client().ask("PUT", &forged, &[], b"hello").is(403);
        site.put(&slot, b"hello").is(201);
        site.get(&slot.get).is(200);
    }
    let bad = |inside: String| (inside, "modify", "bad-request");
    for (inside, kind, condition) in [
        bad(inside("ephemeral")),
        bad(until(unix_now() - 5)),
        bad(format!(
            "<ephemeral xmlns='{PURPOSE}' expire-before='tomorrow'/>"
        )),
        bad(format!("<ephemeral xmlns='{PURPOSE}' expire-before=''/>")),
        bad(format!("{}{}", inside("profile"), inside("permanent"))),
        bad(inside("eternal")),
    ] {
        assert_eq!(
            refused(&mut site, 5, &inside),
            (kind.to_owned(), condition.to_owned()),
            "{inside}"
        );
    }
    // An element of another namespace is not a purpose.
    let slot = slot(&mut site, 5, "<permanent xmlns='urn:example:other'/>");
    assert_eq!(suffix(&slot), "m");
}

#[test]
fn ephemeral_files_expire_and_are_swept() {
    let mut site = Plan::new()
        .set("purposes", ALL)
        .set("expire_interval", 3600)
        .set("expire_maxage", 100_000)
        .start();
    let at = unix_now() + 3;
    let short = upload(&mut site, 5, &until(at));
    let long = upload(&mut site, 5, &until(at + 3600));
    // Caches must not keep it longer.
    let cached = site.get(&short.get).is(200);
    let control = cached.expect("Cache-Control").to_owned();
    let max_age = control
        .split(',')
        .find_map(|part| part.trim().strip_prefix("max-age="))
        .expect("max-age");
    assert!(max_age.parse::<u64>().unwrap() <= 3, "{control}");
    let late = slot(&mut site, 5, &until(at));
    let mut client = site.client();
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        let before = unix_now();
        let status = client.get(&short.get).status;
        let after = unix_now();
        if status == 404 {
            assert!(after >= at, "not served at {after}, before {at}");
            break;
        }
        assert_eq!(status, 200);
        assert!(before < at, "served at {before}, past {at}");
        assert!(Instant::now() < deadline, "still served");
        thread::sleep(Duration::from_millis(50));
    }
    for method in ["GET", "HEAD"] {
        client.ask(method, &short.get, &[], b"").is(404);
        client
            .ask(method, &short.get.replace("~", "%7E"), &[], b"")
            .is(404);
    }
    // A late upload is not served.
    let status = site.put(&late, b"hello").status;
    assert!((200..500).contains(&status), "{status}");
    client.get(&late.get).is(404);
    site.rewrite("expire_interval", 1);
    site.restart();
    eventually("the sweep", || site.files().len() == 1);
    site.get(&long.get).is(200);
}

#[test]
fn limits_by_purpose() {
    let mut site = Plan::new()
        .set("max_file_size", 1000)
        .set(
            "purposes",
            "{message: {}, profile: {max_file_size: 100}, permanent: {max_file_size: 5000}}",
        )
        .start();
    for (purpose, limit) in [("message", 1000), ("profile", 100), ("permanent", 5000)] {
        slot(&mut site, limit, &inside(purpose));
        let answer = site
            .ask(ROMEO, "a.txt", limit + 1, None, &inside(purpose))
            .expect_err("granted");
        let detail = answer
            .child("error")
            .unwrap()
            .expect("file-too-large", UPLOAD_0);
        assert_eq!(
            detail.expect("max-file-size", UPLOAD_0).text,
            limit.to_string()
        );
    }
}

#[test]
fn quotas_by_purpose() {
    let mut site = Plan::new()
        .set("user_quota_hard", 1000)
        .set("max_file_size", 500)
        .set(
            "purposes",
            "{message: {}, profile: {}, permanent: {user_quota_hard: 500}}",
        )
        .start();
    let full = ("wait".to_owned(), "resource-constraint".to_owned());
    upload(&mut site, 500, &inside("permanent"));
    assert_eq!(refused(&mut site, 1, &inside("permanent")), full);
    // The general quota is separate, and shared by purposes without their own.
    upload(&mut site, 300, "");
    upload(&mut site, 300, "");
    upload(&mut site, 400, &inside("profile"));
    for purpose in ["message", "profile", "permanent"] {
        assert_eq!(refused(&mut site, 1, &inside(purpose)), full);
    }
    site.restart();
    for purpose in ["message", "profile", "permanent"] {
        assert_eq!(refused(&mut site, 1, &inside(purpose)), full);
    }
    assert_eq!(site.files().len(), 4);
}

#[test]
fn permanent_files_are_not_evicted() {
    let mut site = Plan::new()
        .set("user_quota_hard", 1000)
        .set("max_file_size", 500)
        .set("evict_on_quota", true)
        .set("purposes", ALL)
        .start();
    let permanent = upload(&mut site, 300, &inside("permanent"));
    let profile = upload(&mut site, 300, &inside("profile"));
    let message = upload(&mut site, 300, "");
    for (slot, seconds) in [(&permanent, 300), (&profile, 200), (&message, 100)] {
        age(&site.store().join(slot.stored_at()), seconds);
    }
    let new = upload(&mut site, 400, "");
    site.get(&message.get).is(404);
    for slot in [&permanent, &profile, &new] {
        site.get(&slot.get).is(200);
    }
    // More than evicting all messages could free is refused, and nothing is evicted.
    assert_eq!(
        refused(&mut site, 401, ""),
        ("wait".into(), "resource-constraint".into())
    );
    site.get(&new.get).is(200);
}

#[test]
fn age_by_purpose() {
    let plan = Plan::new()
        .set("expire_interval", 1)
        .set("expire_maxage", 1000)
        .set("purposes", "{message: , profile: , ephemeral: {expire_maxage: 500}, permanent: {expire_maxage: 5000}}");
    let far = unix_now() + 100_000;
    let ephemeral = format!("e{far:x}");
    for (number, (mark, ago)) in [
        ("m", 1100),
        ("m", 900),
        ("p", 100_000),
        ("k", 4900),
        ("k", 5100),
        (&*ephemeral, 600),
        (&*ephemeral, 400),
    ]
    .into_iter()
    .enumerate()
    {
        let file = seed(
            &plan.store(),
            &format!("owner/Abcdefghijklmnopqrs{number}~{mark}/a.txt"),
            b"hello",
        );
        age(&file, ago);
    }
    let site = plan.start();
    eventually("the sweep", || site.files().len() == 4);
    let left = [1, 2, 3, 6].map(|number| format!("owner/Abcdefghijklmnopqrs{number}~"));
    for (file, left) in site.files().iter().zip(left) {
        assert!(file.starts_with(&left), "{file}");
    }
}

#[test]
fn no_idle_sweep_warning_with_expiry_rules() {
    // Without a general age, but with files that expire: no warning about an idle sweep.
    for (key, value) in [
        ("purposes", "{message: {}, ephemeral: {}}"),
        ("purposes", "{message: {expire_maxage: 1000}}"),
        ("access", "[{jid: ., expire_maxage: 1000}]"),
        ("file_share_secret", "correct-horse-battery-staple"),
    ] {
        drop(
            Plan::new()
                .set("expire_interval", 3600)
                .set(key, value)
                .start(),
        );
    }
}
