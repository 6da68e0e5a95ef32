//! Floods of stanzas, and a server that does not read: bounded memory, bounded log.

use std::collections::HashSet;
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::program::value_of;
use crate::harness::server::{COMPONENT, UPLOAD_0};
use crate::harness::site::{ROMEO, assert_alive};
use crate::harness::{Plan, Slot};

const INFO: &str = "http://jabber.org/protocol/disco#info";
const JULIET: &str = "juliet@capulet.tld/balcony";

#[test]
fn a_thousand_requests() {
    let mut site = Plan::new().start();
    assert_alive(&mut site);
    let before = site.program.memory("VmHWM");
    let mut writer = site.link().writer();
    let sender = thread::spawn(move || {
        for id in 0..1000 {
            let stanza = format!(
                "<iq type='get' id='{id}' from='{ROMEO}/x' to='{COMPONENT}'><request xmlns='{UPLOAD_0}' \
                 filename='{}.txt' size='5'/></iq>",
                "x".repeat(500)
            );
            writer.write_all(stanza.as_bytes()).unwrap();
        }
    });
    let mut puts = HashSet::new();
    for id in 0..1000 {
        let answer = site.link().stanza();
        assert_eq!(answer.attribute("id"), Some(id.to_string().as_str()));
        // Nor the other way round.
        puts.insert(Slot::of(answer.expect("slot", UPLOAD_0)).put);
    }
    sender.join().unwrap();
    assert_eq!(puts.len(), 1000);
    let grown = site.program.memory("VmHWM") - before;
    assert!(grown < 16 * 1024, "{grown} KiB more");
    // A server that does not read uses no more memory either.
    let mut writer = site.link().writer();
    let sender = thread::spawn(move || {
        let ping = format!(
            "<iq type='get' id='x' from='{ROMEO}' to='{COMPONENT}'><ping xmlns='urn:xmpp:ping'/></iq>"
        );
        for _ in 0..1000 {
            writer.write_all(ping.repeat(50).as_bytes()).unwrap();
        }
    });
    thread::sleep(Duration::from_millis(500));
    for _ in 0..50_000 {
        assert_eq!(site.link().stanza().attribute("id"), Some("x"));
    }
    sender.join().unwrap();
    let grown = site.program.memory("VmHWM") - before;
    assert!(grown < 24 * 1024, "{grown} KiB more");
}

/// The component stops reading from a server that does not read its answers; memory stays bounded and no answer is lost.
#[test]
fn a_server_that_does_not_read() {
    let mut site = Plan::new().start();
    assert_alive(&mut site);
    let before = site.program.memory("VmHWM:");
    let mut writer = site.link().writer();
    // More than the kernel buffers in both directions.
    let blank = " ".repeat(1_000);
    let question = move |id: usize| {
        format!(
            "<iq type='get' id='{id}' from='{ROMEO}' to='{COMPONENT}'><query xmlns='{INFO}'/>{blank}</iq>"
        )
    };
    let count = 20_000;
    let sender = thread::spawn(move || {
        for id in 0..count {
            writer.write_all(question(id).as_bytes()).unwrap();
        }
    });
    // The component stops reading, so the sender blocks.
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(50));
        let asked = Instant::now();
        site.client().get("/").is(200);
        assert!(asked.elapsed() < Duration::from_secs(1));
    }
    assert!(!sender.is_finished(), "everything was read");
    let grown = site.program.memory("VmHWM:") - before;
    assert!(grown < 4 * 1024, "{grown} KiB more");
    site.program.assert_idle("while the server does not read");
    for id in 0..count {
        let answer = site.link().stanza();
        assert_eq!(answer.attribute("id"), Some(id.to_string().as_str()));
    }
    sender.join().unwrap();
    assert!(site.ask(JULIET, "a.txt", 5, None, "").is_ok());
    let grown = site.program.memory("VmHWM:") - before;
    assert!(grown < 4 * 1024, "{grown} KiB more");
}

/// A continuous flood from one user delays neither HTTP nor the slots of another user.
#[test]
fn a_flood_from_one_user() {
    let mut site = Plan::new().start();
    assert_alive(&mut site);
    let from = format!("from='{ROMEO}/x' to='{COMPONENT}'");
    let flood = [
        format!("<iq type='get' id='f' {from}><query xmlns='{INFO}'/></iq>"),
        format!("<iq type='get' id='f' {from}><ping xmlns='urn:xmpp:ping'/></iq>"),
        format!(
            "<iq type='get' id='f' {from}><request xmlns='{UPLOAD_0}' filename='a' size='5'/></iq>"
        ),
        format!(
            "<iq type='set' id='f' {from}><x>{}</x></iq>",
            "<y>".repeat(99) + &"</y>".repeat(99)
        ),
        format!("<presence {from}/>"),
        format!("<message {from}><y q:a='1'/></message>"),
    ];
    let mut writer = site.link().writer();
    let (rounds, each) = (200, 20);
    let request = format!("<request xmlns='{UPLOAD_0}' filename='a.txt' size='5'/>");
    let sender = thread::spawn(move || {
        for round in 0..rounds {
            let mut batch = flood.concat().repeat(each);
            batch.push_str(&format!(
                "<iq type='get' id='j{round}' from='{JULIET}' to='{COMPONENT}'>{request}</iq>"
            ));
            writer.write_all(batch.as_bytes()).unwrap();
        }
    });
    let http = site.http;
    let browser = thread::spawn(move || {
        let mut slowest = Duration::ZERO;
        for _ in 0..50 {
            let asked = Instant::now();
            crate::harness::Client::connect(http).get("/").is(200);
            slowest = slowest.max(asked.elapsed());
        }
        slowest
    });
    let (mut flooded, mut granted) = (0, 0);
    while granted < rounds {
        let answer = site.link().stanza();
        if answer.attribute("to") == Some(JULIET) {
            assert_eq!(answer.attribute("id"), Some(format!("j{granted}").as_str()));
            Slot::of(answer.expect("slot", UPLOAD_0));
            granted += 1;
        } else {
            flooded += 1;
        }
    }
    sender.join().unwrap();
    assert_eq!(flooded, 4 * rounds * each);
    let slowest = browser.join().unwrap();
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    let lines = site.program.lines();
    let logged = lines.iter().filter(|line| line.contains("slot granted"));
    let logged = logged.count();
    assert!((60..300).contains(&logged), "{logged} of {flooded}");
    site.program.assert_idle("after a flood");
}

/// Refusals are logged one by one, but limited per owner: a flood does not hide other owners.
#[test]
fn refusal_log_lines_are_limited() {
    let mut site = Plan::new().start();
    for _ in 0..500 {
        assert!(
            site.ask("mallory@evil.example/x", "a", 5, None, "")
                .is_err()
        );
    }
    assert!(site.ask("nurse@evil.example", "a", 5, None, "").is_err());
    let line = site
        .program
        .wait_line(&["slot refused ", "owner=nurse@evil.example"]);
    let suppressed: u64 = value_of(&line, "suppressed").unwrap().parse().unwrap();
    let lines = site.program.lines();
    let logged = lines.iter().filter(|line| line.contains("owner=mallory@"));
    let logged = logged.count();
    assert!((60..100).contains(&logged), "{logged}");
    assert!(suppressed + 100 > 500 && suppressed <= 440, "{suppressed}");
}
