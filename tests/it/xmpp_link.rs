//! The link to the XMPP server: refusals, losses, reconnects.

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::program::value_of;
use crate::harness::server::SECRET;
use crate::harness::site::{ROMEO, assert_alive};
use crate::harness::{Plan, Server};

const STREAMS: &str = "urn:ietf:params:xml:ns:xmpp-streams";

/// The component reconnects at once after a link that was up, whatever ended it and however soon.
#[test]
fn quick_reconnect() {
    let mut site = Plan::new().start();
    site.program.allow("link down");
    let server = site.server.take().unwrap();
    for loss in 0..4 {
        if loss == 1 {
            // Up for a short while.
            thread::sleep(Duration::from_secs(2));
        }
        assert_alive(&mut site);
        match loss {
            0 | 1 => {}
            2 => site.link().try_send(b"<!-- -->"),
            _ => site.link().try_send(b"</stream:stream>"),
        }
        site.link().close();
        let lost = Instant::now();
        let mut link = server.accept_within(Duration::from_secs(20)).unwrap();
        let away = lost.elapsed();
        assert!(away < Duration::from_millis(3_500), "{loss}: {away:?}");
        link.open();
        link.check_handshake(SECRET);
        link.send("<handshake/>");
        site.link = Some(link);
    }
    assert_alive(&mut site);
    site.server = Some(server);
}

/// Each reason for a refusal is logged, and the component reconnects in any case.
#[test]
fn refused_links() {
    let reasons = std::sync::Mutex::new(HashSet::new());
    thread::scope(|scope| {
        for condition in [
            "not-authorized",
            "conflict",
            "host-unknown",
            "system-shutdown",
        ] {
            let reasons = &reasons;
            scope.spawn(move || {
                let mut site = Plan::new().without_link().start();
                site.program.allow("link down");
                for _ in 0..2 {
                    let mut link = site.server.as_ref().unwrap().accept();
                    link.open();
                    link.check_handshake(SECRET);
                    link.send(&format!(
                        "<stream:error><{condition} xmlns='{STREAMS}'/>\
                         <text xmlns='{STREAMS}'>As the server says it</text></stream:error></stream:stream>"
                    ));
                    link.wait_closed();
                    assert_eq!(site.client().get("/").status, 200);
                }
                let line = site.program.wait_line(&["link down ", "why="]);
                reasons.lock().unwrap().insert(value_of(&line, "why").unwrap());
                site.link = Some(site.server.as_ref().unwrap().accept_link());
                site.program.wait_line(&["link up ", "jid=upload.localhost", "server=127.0.0.1:"]);
                assert_alive(&mut site);
                // The repeated reason is logged once.
                let lines = site.program.lines();
                let logged = lines.iter().filter(|line| line.contains("link down ")).count();
                assert_eq!(logged, 1, "{}", lines.join("\n"));
            });
        }
    });
    assert_eq!(reasons.lock().unwrap().len(), 4, "{reasons:?}");
}

/// Stream errors and unknown elements instead of the handshake's answer; a header without an id.
#[test]
fn malformed_server_responses() {
    let header = |rest: &str| {
        format!(
            "<?xml version='1.0'?><stream:stream xmlns:stream='http://etherx.jabber.org/streams' \
             xmlns='jabber:component:accept' {rest}>"
        )
    };
    let answers = [
        header("from='upload.localhost'"),
        "HTTP/1.1 400 Bad Request\r\n\r\n".to_owned(),
        header("id='1'") + "<handshake/>" + "<failure/>",
        "<iq/>".to_owned(),
        String::new(),
        "\u{16}\u{3}\u{3}\0\u{2}\0\0".to_owned(),
        "<!DOCTYPE a [<!ENTITY b 'c'>]>".to_owned() + &header("id='1'"),
        "<!-- a -->".to_owned() + &header("id='1'"),
        "<stream:stream xmlns:stream='urn:example:x' xmlns='jabber:component:accept' id='1'>"
            .to_owned(),
        "<stream xmlns='http://etherx.jabber.org/streams' id='1'>".to_owned(),
        header(&format!("id='{}'", "x".repeat(70_000))),
        header("id='1'") + &"<a>".repeat(5000),
        header("id='1'") + "<handshake/>".repeat(3).as_str() + "<!-- a -->",
        header("id='1'") + "hello",
        "-ERR unknown command\r\n".repeat(100),
    ];
    thread::scope(|scope| {
        for answer in answers {
            scope.spawn(move || {
                let mut site = Plan::new().without_link().start();
                site.program.allow("link down");
                let mut link = site.server.as_ref().unwrap().accept();
                link.read_header();
                link.try_send(answer.as_bytes());
                link.close();
                drop(link);
                site.link = Some(site.server.as_ref().unwrap().accept_link());
                assert_alive(&mut site);
            });
        }
    });
}

#[test]
fn a_server_that_starts_later() {
    // A separate address, so that no other test takes the port in the meantime.
    let server = Server::at("127.0.0.77:0".parse().unwrap());
    let address = server.address();
    drop(server);
    let mut site = Plan::new()
        .without_link()
        .set("component_host", "127.0.0.77")
        .set("component_port", address.port())
        .start();
    site.program.allow("link");
    site.program.wait_line(&["link down ", "why="]);
    assert_eq!(site.get("/").status, 200);
    site.server = Some(Server::at(address));
    site.link = Some(site.server.as_ref().unwrap().accept_link());
    assert_alive(&mut site);
    let slot = site.slot(ROMEO, "a.txt", 5, None);
    site.put(&slot, b"hello").is(201);
}

#[test]
fn a_server_on_either_loopback() {
    let Ok(probe) = std::net::TcpListener::bind("[::1]:0") else {
        return;
    };
    drop(probe);
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let server = Server::at(address.parse().unwrap());
        // Every address of the name is tried.
        let mut site = Plan::new()
            .without_link()
            .set("component_host", "localhost")
            .set("component_port", server.address().port())
            .start();
        site.link = Some(server.accept_link());
        site.program.allow("link down");
        assert_alive(&mut site);
        site.server = Some(server);
    }
}

#[test]
fn a_restarted_server() {
    let mut site = Plan::new().start();
    let slot = site.slot(ROMEO, "a.txt", 5, None);
    for end in [
        format!(
            "<stream:error><system-shutdown xmlns='{STREAMS}'/></stream:error></stream:stream>"
        ),
        String::new(),
    ] {
        site.link().send(&end);
        site.link().close();
        site.relink();
        assert_alive(&mut site);
    }
    site.put(&slot, b"hello").is(201);
    let lines = site.program.lines();
    let up = lines
        .iter()
        .filter(|line| line.contains("link up "))
        .count();
    assert!(up >= 2, "{}", lines.join("\n"));
}
