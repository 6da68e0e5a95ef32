//! Access rules: who may upload, file sizes and types, totals and rates.

use std::path::Path;
use std::time::{Duration, Instant, UNIX_EPOCH};
use std::{fs, thread};

use crate::harness::files::{age, seed};
use crate::harness::server::{UPLOAD_0, error_of};
use crate::harness::site::{JULIET, ROMEO, ROMEO_FOLDER, owner_folder};
use crate::harness::xml::Element;
use crate::harness::{Plan, Site, eventually, unix_now};

const DENIED: &str = "You are not allowed to upload files.";
const OUT: &str = "User is temporarily out of quota.";

fn ruled(rules: &str) -> Plan {
    Plan::new().set("api", "{port: 0}").set("access", rules)
}

/// Asserts an error of that type and condition; returns the stanza.
#[track_caller]
fn refused(site: &mut Site, owner: &str, size: u64, kind: &str, condition: &str) -> Element {
    let answer = site
        .ask(owner, "a.bin", size, None, "")
        .expect_err("granted");
    let (found_kind, found, text) = error_of(&answer);
    assert_eq!((&*found_kind, &*found), (kind, condition), "{answer:?}");
    assert!(!text.is_empty());
    answer
}

/// The Unix time at which the same slot would be granted.
#[track_caller]
fn retry(site: &mut Site, owner: &str, size: u64) -> Option<u64> {
    let answer = refused(site, owner, size, "wait", "resource-constraint");
    let retry = answer.child("error").unwrap().child("retry")?;
    assert_eq!(retry.space, UPLOAD_0);
    Some(seconds_of(retry.attribute("stamp").unwrap()))
}

/// The Unix time of `2026-11-21T22:49:55Z`.
#[track_caller]
fn seconds_of(stamp: &str) -> u64 {
    let shape: String = stamp
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    assert_eq!(shape, "0000-00-00T00:00:00Z", "{stamp}");
    let number = |from: usize, to: usize| stamp[from..to].parse::<u64>().unwrap();
    let (year, month, day) = (number(0, 4), number(5, 7), number(8, 10));
    // Days from civil: March is the first month, so that the odd day comes last.
    let (year, month) = if month < 3 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let days =
        year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    days * 86_400 + number(11, 13) * 3600 + number(14, 16) * 60 + number(17, 19)
}

/// Sets a file's time to a whole second.
fn stamp(file: &Path, at: u64) {
    let file = fs::File::options().write(true).open(file).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_secs(at))
        .unwrap();
}

#[test]
fn the_first_match_decides() {
    let mut site = ruled(
        "[{jid: '^romeo@'}, {jid: ['^blocked@', '^mercutio@'], upload: false}, \
         {jid: '@montague\\.tld$', max_file_size: 100}, {jid: '@evil\\.tld$'}]",
    )
    .set("max_file_size", 1000)
    .start();
    site.slot(ROMEO, "a.bin", 1000, None);
    refused(&mut site, ROMEO, 1001, "modify", "not-acceptable");
    refused(&mut site, "mercutio@montague.tld", 1, "auth", "forbidden");
    site.slot("benvolio@montague.tld", "a.bin", 100, None);
    let large = refused(
        &mut site,
        "benvolio@montague.tld",
        101,
        "modify",
        "not-acceptable",
    );
    let detail = large
        .child("error")
        .unwrap()
        .expect("file-too-large", UPLOAD_0);
    assert_eq!(detail.expect("max-file-size", UPLOAD_0).text, "100");
    // No rule matches; a rule matches, but the whitelist does not.
    refused(&mut site, JULIET, 1, "auth", "forbidden");
    refused(&mut site, "tybalt@evil.tld", 1, "auth", "forbidden");
    for (owner, size, status, text) in [
        ("mercutio@montague.tld", 1, 403, DENIED),
        (
            "benvolio@montague.tld",
            101,
            413,
            "Files may not be larger than 100 bytes.",
        ),
        (JULIET, 1, 403, DENIED),
        ("tybalt@evil.tld", 1, 403, DENIED),
    ] {
        let reply = site
            .ask_api(&format!("/slot/?jid={owner}&name=a&size={size}"))
            .is(status);
        assert_eq!(reply.text(), text);
    }
    // The limit of the requesting user is announced.
    const INFO: &str = "http://jabber.org/protocol/disco#info";
    for (owner, limit) in [
        ("benvolio@montague.tld/x", "100"),
        ("romeo@montague.tld/x", "1000"),
    ] {
        let info = site
            .link()
            .iq("get", owner, &format!("<query xmlns='{INFO}'/>"));
        let forms: Vec<String> = info
            .expect("query", INFO)
            .children
            .iter()
            .filter(|child| child.name == "x")
            .flat_map(|form| &form.children)
            .filter(|field| field.attribute("var") == Some("max-file-size"))
            .map(|field| field.child("value").unwrap().text.clone())
            .collect();
        assert_eq!(forms, [limit, limit], "{owner}");
    }
    for (owner, rule) in [
        ("mercutio@montague.tld", "rule 2"),
        ("benvolio@montague.tld", "rule 3"),
        (JULIET, "rule=none"),
    ] {
        let owner = format!("owner={owner}");
        site.program.wait_line(&["slot refused ", &owner, rule]);
    }
}

#[test]
fn the_log_quotes_the_rule() {
    let mut site = ruled("[{jid: ['^mercutio@', '^blocked@'], upload: false}, {jid: .}]").start();
    refused(&mut site, "mercutio@montague.tld", 1, "auth", "forbidden");
    let line = site.program.wait_line(&["slot refused ", "rule 1"]);
    // The value ends at the first unescaped quote.
    let rest = line.split(" rule=\"").nth(1).unwrap();
    let bytes = rest.as_bytes();
    let end =
        (0..bytes.len()).find(|at| bytes[*at] == b'"' && (*at == 0 || bytes[at - 1] != b'\\'));
    assert!(rest[end.unwrap()..].starts_with("\" why="), "{line}");
}

#[test]
fn types_by_rule() {
    let mut site = ruled("[{jid: '^romeo@', allowed_file_types: [image/*, video/mp4]}, {jid: .}]")
        .set("allowed_file_types", "[image/*, text/plain]")
        .start();
    for (owner, kind, allowed) in [
        (ROMEO, Some("image/png"), true),
        (ROMEO, Some("text/plain"), false),
        (ROMEO, Some("video/mp4"), false),
        (ROMEO, None, false),
        (JULIET, Some("text/plain"), true),
        (JULIET, Some("video/mp4"), false),
    ] {
        let answer = site.ask(owner, "a", 5, kind, "");
        assert_eq!(answer.is_ok(), allowed, "{owner} {kind:?}");
        if let Err(answer) = answer {
            assert_eq!(error_of(&answer).1, "not-acceptable");
        }
        let query = format!(
            "/slot/?jid={owner}&name=a&size=5&type={}",
            kind.unwrap_or("")
        );
        site.ask_api(&query).is(if allowed { 200 } else { 415 });
    }
}

#[test]
fn upload_rate_limit() {
    let mut site = ruled(
        "[{jid: ., uploads_per_timedelta: [{delta: 100, uploads: 2}, {delta: 1000, uploads: 3}]}]",
    )
    .start();
    let before = unix_now();
    // Requests that are refused for other reasons do not count.
    for _ in 0..4 {
        refused(&mut site, ROMEO, 99_999_999, "modify", "not-acceptable");
        site.ask_api(&format!("/slot/?jid={ROMEO}&name=a&size=5&output=text/xml"))
            .is(400);
    }
    site.slot(ROMEO, "a.bin", 5, None);
    let after = unix_now();
    site.ask_api(&format!("/slot/?jid={ROMEO}&name=a&size=5"))
        .is(200);
    let at = retry(&mut site, ROMEO, 5).expect("a stamp");
    assert!(
        (before + 100..=after + 100).contains(&at),
        "{at}, issued {before} to {after}"
    );
    // Refusals do not postpone it.
    assert_eq!(retry(&mut site, "romeo@montague.tld/x", 5), Some(at));
    let reply = site
        .ask_api(&format!("/slot/?jid={ROMEO}&name=a&size=5"))
        .is(402);
    assert_eq!(reply.text(), OUT);
    site.slot(JULIET, "a.bin", 5, None);
    let line = site.program.wait_line(&[
        "slot refused ",
        "owner=romeo@montague.tld",
        "rule 1",
        "100 seconds",
    ]);
    assert!(line.contains(" 2 "), "{line}");
}

#[test]
fn retry_stamp_is_exact() {
    let mut site = ruled("[{jid: ., uploads_per_timedelta: {delta: 3, uploads: 1}}]").start();
    site.slot(ROMEO, "a.bin", 5, None);
    let at = retry(&mut site, ROMEO, 5).expect("a stamp");
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        let before = unix_now();
        let granted = site.ask(ROMEO, "a.bin", 5, None, "").is_ok();
        let after = unix_now();
        if granted {
            assert!(after >= at, "granted at {after}, before {at}");
            break;
        }
        assert!(before < at, "refused at {before}, past {at}");
        assert!(Instant::now() < deadline, "still refused");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn byte_rate_limit_counts_stored_files() {
    let now = unix_now();
    let plan = ruled("[{jid: ., bytes_per_timedelta: {delta: 1000, bytes: 1000}}]");
    for (name, size, ago) in [
        ("0123456789abc/a", 600, 700),
        ("0123456789abd", 300, 200),
        ("0123456789abe/c", 500, 1100),
    ] {
        let file = seed(
            &plan.store(),
            &format!("{ROMEO_FOLDER}/{name}"),
            &vec![0; size],
        );
        stamp(&file, now - ago);
    }
    let mut site = plan.start();
    // The first request counts 900 stored bytes, and the stamp is when enough of them leave the window.
    assert_eq!(retry(&mut site, ROMEO, 101), Some(now - 700 + 1000));
    assert_eq!(retry(&mut site, ROMEO, 700), Some(now - 700 + 1000));
    assert_eq!(retry(&mut site, ROMEO, 701), Some(now - 200 + 1000));
    assert_eq!(retry(&mut site, ROMEO, 1000), Some(now - 200 + 1000));
    // It will never fit.
    assert_eq!(retry(&mut site, ROMEO, 1001), None);
    let reply = site
        .ask_api(&format!("/slot/?jid={ROMEO}&name=a&size=101"))
        .is(402);
    assert_eq!(reply.text(), OUT);
    // Exactly the limit is allowed; a slot counts when it is granted.
    site.slot(ROMEO, "a.bin", 100, None);
    assert_eq!(retry(&mut site, ROMEO, 1), Some(now - 700 + 1000));
    site.slot(JULIET, "a.bin", 1000, None);
}

#[test]
fn rate_windows_survive_a_restart() {
    let mut site = ruled("[{jid: ., uploads_per_timedelta: {delta: 1000, uploads: 2}}]").start();
    let before = unix_now();
    site.fill(ROMEO, 5);
    site.fill(ROMEO, 5);
    let after = unix_now();
    assert!(retry(&mut site, ROMEO, 5).is_some());
    site.restart();
    let at = retry(&mut site, ROMEO, 5).expect("a stamp");
    assert!((before + 1000..=after + 1000).contains(&at), "{at}");
    site.slot(JULIET, "a.bin", 5, None);
    site.program.signal(rustix::process::Signal::HUP);
    site.program.wait_line(&["reload"]);
    assert_eq!(retry(&mut site, ROMEO, 5), Some(at));
}

#[test]
fn total_size_is_enforced_at_the_put() {
    let mut site = ruled("[{jid: '^romeo@', max_total_size: 1000}, {jid: .}]")
        .seed(&format!("{ROMEO_FOLDER}/0123456789abc/old.bin"), &[0; 100])
        .start();
    assert_eq!(retry(&mut site, ROMEO, 901), None);
    let slots: Vec<_> = (0..3)
        .map(|_| site.slot(ROMEO, "a.bin", 400, None))
        .collect();
    site.put(&slots[0], &[b'x'; 400]).is(201);
    site.put(&slots[1], &[b'x'; 400]).is(201);
    site.put(&slots[2], &[b'x'; 400]).is(507);
    let reply = site
        .ask_api(&format!("/slot/?jid={ROMEO}&name=a&size=101"))
        .is(403);
    assert_eq!(reply.text(), "User may not upload more than 1000 bytes.");
    site.fill(ROMEO, 100);
    refused(&mut site, ROMEO, 1, "wait", "resource-constraint");
    site.fill(JULIET, 2000);
    assert_eq!(site.files().len(), 5);
    // The signature covers the total, which also holds after a restart.
    let altered = slots[2].put.replace("total=1000", "total=9999");
    assert_ne!(altered, slots[2].put);
    site.client()
        .ask("PUT", &altered, &[], &[b'x'; 400])
        .is(403);
    site.restart();
    site.put(&slots[2], &[b'x'; 400]).is(507);
    refused(&mut site, ROMEO, 1, "wait", "resource-constraint");
}

#[test]
fn file_age_by_rule() {
    let mut site = ruled(
        "[{jid: '^romeo@', expire_maxage: 2}, {jid: '^juliet@', expire_maxage: 0}, {jid: .}]",
    )
    .set("expire_interval", 1)
    .set("expire_maxage", 1000)
    .start();
    let short = site.slot(ROMEO, "a.bin", 5, None);
    assert!(short.get.contains("~mt2/"), "{short:?}");
    let unlimited = site.slot(JULIET, "a.bin", 5, None);
    assert!(unlimited.get.contains("~mn/"), "{unlimited:?}");
    let usual = site.slot("benvolio@montague.tld", "a.bin", 5, None);
    assert!(usual.get.contains("~m/"), "{usual:?}");
    // The age counts from the upload, not from the slot.
    thread::sleep(Duration::from_secs(1));
    let stored = unix_now();
    for slot in [&short, &unlimited, &usual] {
        site.put(slot, b"hello").is(201);
    }
    age(&site.store().join(unlimited.stored_at()), 100_000);
    eventually("the sweep", || site.files().len() == 2);
    assert!(unix_now() >= stored + 2);
    site.get(&short.get).is(404);
    age(&site.store().join(usual.stored_at()), 1100);
    eventually("the next sweep", || site.files().len() == 1);
    site.get(&unlimited.get).is(200);
    assert!(site.files()[0].starts_with(&owner_folder(JULIET)));
}

#[test]
fn rules_change_at_a_reload() {
    let mut site = ruled("[{jid: .}]").start();
    site.slot(ROMEO, "a.bin", 5, None);
    site.rewrite("access", "[{jid: '^romeo@', upload: false}, {jid: .}]");
    site.program.signal(rustix::process::Signal::HUP);
    site.program.wait_line(&["reload"]);
    refused(&mut site, ROMEO, 5, "auth", "forbidden");
    site.slot(JULIET, "a.bin", 5, None);
}
