//! Signals: the orderly end, the hasty one, and a new configuration.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::dir::TempDir;
use crate::harness::program::run;
use crate::harness::site::{ROMEO, ROMEO_FOLDER};
use crate::harness::{Client, Plan, Site, eventually, pseudo_random, request};

/// A PUT of ten bytes of which five are on their way.
#[track_caller]
fn half_a_put(site: &mut Site) -> Client {
    let slot = site.slot(ROMEO, "a.txt", 10, None);
    let mut client = site.client();
    client.send(&request(
        "PUT",
        &slot.put,
        &[("Content-Length", "10"), ("Expect", "100-continue")],
        b"",
    ));
    client.reply().is(100);
    client.send(b"01234");
    client
}

#[track_caller]
fn assert_refuses(site: &Site) {
    eventually("the port to be closed", || {
        match TcpStream::connect(site.http) {
            Err(error) => error.kind() == ErrorKind::ConnectionRefused,
            Ok(_) => false,
        }
    });
}

#[test]
fn an_orderly_end() {
    for (signal, name) in [(Signal::TERM, "SIGTERM"), (Signal::INT, "SIGINT")] {
        let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/large.bin");
        let body = pseudo_random(13, 12_000_000);
        let mut site = Plan::new()
            .set("shutdown_timeout", 20)
            .seed(&path, &body)
            .start();
        let mut upload = half_a_put(&mut site);
        let mut download = Client::narrow(site.http);
        download.send(&request("GET", &format!("/files/{path}"), &[], b""));
        download.reply_head().is(200);
        let mut idle = site.client();
        idle.get("/").is(200);
        let mut fresh = site.client();

        site.program.signal(signal);
        site.program
            .wait_line(&["shutting down ", &format!("signal={name}")]);
        // Who waits for nothing is let go at once; nobody new gets in; the server is told.
        idle.ends();
        fresh.ends();
        assert_refuses(&site);
        assert!(
            site.link().closed_in_order(),
            "the XML stream was not closed"
        );
        // What is under way ends well.
        upload.send(b"56789");
        let reply = upload.reply().is(201);
        assert_eq!(reply.expect("Connection"), "close");
        upload.ends();
        let mut received = Vec::new();
        while received.len() < body.len() {
            let piece = download.read(1 << 20).unwrap();
            assert!(!piece.is_empty(), "cut after {} bytes", received.len());
            received.extend_from_slice(&piece);
        }
        assert!(received == body);
        drop(download);
        assert_eq!(site.program.exit_code(), Some(0));
        site.program.wait_line(&["stopped"]);
        assert_eq!(site.files().len(), 2);
    }
}

#[test]
fn patience_has_an_end() {
    let mut site = Plan::new().set("shutdown_timeout", 1).start();
    let mut upload = half_a_put(&mut site);
    site.program.allow("shutdown_timeout");
    site.program.signal(Signal::TERM);
    assert_eq!(site.program.exit_code(), Some(0));
    upload.drain();
    assert!(site.entries().is_empty());
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut site = Plan::new().set("shutdown_timeout", 600).start();
    let mut upload = half_a_put(&mut site);
    site.program.signal(Signal::TERM);
    site.program.wait_line(&["shutting down "]);
    site.program.signal(Signal::TERM);
    assert!(
        site.program.exit_within(Duration::from_secs(10)).is_some(),
        "it goes on waiting"
    );
    upload.drain();
    assert!(site.entries().is_empty());
    site.program.allow("at once");
}

#[test]
fn a_reload_changes_limits_without_dropping_anything() {
    let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/a.txt");
    let mut site = Plan::new()
        .set("max_file_size", 1000)
        .seed(&path, b"hello")
        .start();
    let mut upload = half_a_put(&mut site);
    let mut kept = site.client();
    kept.get(&format!("/files/{path}")).is(200);
    assert!(site.ask(ROMEO, "a", 1001, None, "").is_err());
    assert!(site.ask("x@example.com", "a", 5, None, "").is_err());

    site.rewrite("max_file_size", 2000);
    site.rewrite("whitelist", "[example.com]");
    site.rewrite("custom_headers", "{X-New: yes}");
    site.program.signal(Signal::HUP);
    site.program.wait_line(&["config reloaded"]);
    assert!(site.ask("x@example.com", "a", 2000, None, "").is_ok());
    assert!(site.ask(ROMEO, "a", 5, None, "").is_err());
    // The connections, the link and the upload are the same as before.
    let reply = kept.get(&format!("/files/{path}")).is(200);
    assert!(reply.has("X-New"), "{reply:?}");
    upload.send(b"56789");
    upload.reply().is(201);
    assert!(
        !site
            .program
            .lines()
            .iter()
            .any(|line| line.contains("link down"))
    );

    // A faulty one is reported, with key and line, and the old one stays.
    site.program.allow("config");
    site.rewrite("max_file_size", "lots");
    site.program.signal(Signal::HUP);
    let line = site
        .program
        .wait_line(&["ERROR", "config not reloaded ", "why="]);
    let all = site.program.lines().join("\n");
    assert!(all.contains("max_file_size"), "{line}");
    assert!(site.ask("x@example.com", "a", 2000, None, "").is_ok());
    assert!(site.ask("x@example.com", "a", 2001, None, "").is_err());

    // What needs a restart is named.
    site.rewrite("max_file_size", 3000);
    site.rewrite("http_port", 1);
    site.program.signal(Signal::HUP);
    site.program.allow("restart");
    site.program.wait_line(&["http_port", "restart"]);
    eventually("the new limit", || {
        site.ask("x@example.com", "a", 3000, None, "").is_ok()
    });
    kept.get("/").is(200);
}

#[test]
fn other_signals_do_no_harm() {
    let mut site = Plan::new().start();
    site.program.signal(Signal::PIPE);
    let mut kept = site.client();
    kept.get("/").is(200);
    for _ in 0..20 {
        site.program.signal(Signal::HUP);
    }
    site.program.wait_line(&["config reloaded"]);
    kept.get("/").is(200);
    let slot = site.slot(ROMEO, "a.txt", 5, None);
    site.put(&slot, b"hello").is(201);
}

/// Starts the program with that configuration; its exit code and what it said.
#[track_caller]
fn run_with(text: &str, more: &[&str]) -> (Option<i32>, String) {
    let dir = TempDir::new();
    let config = dir.path().join("config.yml");
    fs::write(
        &config,
        text.replace("STORE", &dir.path().display().to_string()),
    )
    .unwrap();
    run(
        &[&["-c", config.to_str().unwrap()], more].concat(),
        dir.path(),
    )
}

#[test]
fn exit_codes_tell_a_fault_from_a_misuse() {
    let good = "storage_path: STORE\nget_url: https://a/\nput_url: https://a/\nhttp_port: 0\nwhitelist: a\n";
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for (text, more, code, part) in [
        ("", &[][..], 1, "storage_path"),
        ("storage_path: [\n", &[], 1, ""),
        (
            &good.replace("STORE", "/proc/nowhere"),
            &[],
            1,
            "/proc/nowhere",
        ),
        (
            &good.replace("http_port: 0", &format!("http_port: {port}")),
            &[],
            1,
            &port.to_string(),
        ),
        (
            &format!("{good}http_certfile: STORE/none.pem\nhttp_keyfile: STORE/none.pem\n"),
            &[],
            1,
            "none.pem",
        ),
        (good, &["--nonsense"], 2, "nonsense"),
        (good, &["stray"], 2, "stray"),
        (good, &["-l"], 2, ""),
        (good, &["--check-config"], 0, ""),
    ] {
        let (exit, said) = run_with(text, more);
        assert_eq!(exit, Some(code), "{more:?} {text}\n{said}");
        assert!(said.contains(part), "{more:?} {text}\n{said}");
    }
    let (exit, said) = run(&["-c", "/nonexistent/config.yml"], Path::new("/"));
    assert_eq!(exit, Some(1));
    assert!(said.contains("/nonexistent/config.yml"), "{said}");
}
