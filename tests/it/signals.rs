//! Signals: graceful and forced shutdown, reload; exit codes.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;

use crate::harness::dir::TempDir;
use crate::harness::program::{self, run};
use crate::harness::site::{ROMEO, ROMEO_FOLDER, begin};
use crate::harness::wait::long;
use crate::harness::{Client, Plan, Program, Site, eventually, pseudo_random, request};

/// Starts a PUT of ten bytes and sends five.
#[track_caller]
fn half_a_put(site: &mut Site) -> Client {
    let slot = site.slot(ROMEO, "a.txt", 10, None);
    let mut client = begin(site, &slot, 10);
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
fn graceful_shutdown() {
    for (signal, name) in [(Signal::TERM, "SIGTERM"), (Signal::INT, "SIGINT")] {
        let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/large.bin");
        let body = pseudo_random(13, 12_000_000);
        let mut site = Plan::new()
            .set("shutdown_timeout", 20)
            .seed(&path, &body)
            .start();
        let mut upload = half_a_put(&mut site);
        let mut download = Client::with_small_buffer(site.http);
        download.send(&request("GET", &format!("/files/{path}"), &[], b""));
        download.reply_head().is(200);
        let mut idle = site.client();
        idle.get("/").is(200);
        let mut fresh = site.client();

        site.program.signal(signal);
        site.program
            .wait_line(&["shutting down ", &format!("signal={name}")]);
        // Idle connections are closed at once, new ones are refused, and the XMPP stream is closed.
        idle.ends();
        fresh.ends();
        assert_refuses(&site);
        assert!(
            site.link().closed_in_order(),
            "the XML stream was not closed"
        );
        // Running uploads and downloads complete.
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
fn shutdown_timeout() {
    let mut site = Plan::new().set("shutdown_timeout", 1).start();
    let mut upload = half_a_put(&mut site);
    site.program.allow("shutdown_timeout");
    site.program.signal(Signal::TERM);
    assert_eq!(site.program.exit_code(), Some(0));
    upload.drain();
    assert!(site.entries().is_empty());
}

#[test]
fn a_second_signal_forces_the_shutdown() {
    let mut site = Plan::new().set("shutdown_timeout", 600).start();
    let mut upload = half_a_put(&mut site);
    site.program.signal(Signal::TERM);
    site.program.wait_line(&["shutting down "]);
    site.program.signal(Signal::TERM);
    assert!(
        site.program.exit_within(Duration::from_secs(10)).is_some(),
        "it still waits"
    );
    upload.drain();
    assert!(site.entries().is_empty());
    site.program.allow("forced shutdown");
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

    // An invalid one is reported with key and line, and the old one stays.
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

    // Keys that need a restart are reported.
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
fn other_signals_are_harmless() {
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

/// A configuration without an XMPP side, in a folder of its own.
fn plain_config() -> (TempDir, PathBuf, String) {
    let dir = TempDir::new();
    let config = dir.path().join("config.yml");
    let text = format!(
        "storage_path: {}/store\nget_url: https://a/\nput_url: https://a/\nhttp_port: 0\nwhitelist: a\n",
        dir.path().display()
    );
    fs::write(&config, &text).unwrap();
    (dir, config, text)
}

/// Starts the program.
fn program(config: &Path) -> Program {
    let mut program = Program::start(config, None, &[]);
    program.allow("component_jid: is absent");
    program
}

/// At any time after the program has installed its signal handlers.
#[test]
fn signals_during_the_start() {
    let (_dir, config, _) = plain_config();
    let started = Instant::now();
    let first = program(&config);
    first.wait_line(&["ready "]);
    let usual = started.elapsed();
    drop(first);
    let rounds = if long() { 600 } else { 150 };
    let moments = pseudo_random(29, rounds);
    for (round, moment) in moments.into_iter().enumerate() {
        let signal = [Signal::HUP, Signal::TERM, Signal::INT][round % 3];
        let mut program = program(&config);
        program.catches_signals();
        // Some signals come at once, the others spread over the duration of a start.
        let wait = usual * u32::from(moment) / 255;
        let until = Instant::now() + if round % 2 == 0 { Duration::ZERO } else { wait };
        while Instant::now() < until {
            std::thread::yield_now();
        }
        program.signal(signal);
        if signal == Signal::HUP {
            program.wait_line(&["config reloaded"]);
            let lines = program.lines();
            let at = |part: &str| lines.iter().position(|line| line.contains(part)).unwrap();
            assert!(at(" ready pid=") < at("config reloaded"), "{lines:?}");
            program.signal(Signal::TERM);
        }
        assert_eq!(program.exit_code(), Some(0), "{:?}", program.lines());
    }
}

/// Replaces the configuration with a FIFO, so that reading it blocks.
fn fifo(config: &Path) {
    fs::remove_file(config).unwrap();
    mknodat(CWD, config, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
}

#[test]
fn an_early_reload_rereads_the_file() {
    let (dir, config, text) = plain_config();
    fifo(&config);
    let program = program(&config);
    program.catches_signals();
    let mut program = program;
    program.signal(Signal::HUP);
    // Opening the FIFO waits for the reader.
    let new = dir.path().join("new.yml");
    let mut writer = fs::File::options().write(true).open(&config).unwrap();
    fs::write(&new, format!("{text}custom_headers: {{X-Second: yes}}\n")).unwrap();
    fs::rename(&new, &config).unwrap();
    std::io::Write::write_all(&mut writer, text.as_bytes()).unwrap();
    drop(writer);
    program.wait_line(&["config reloaded"]);
    let address = program.listening(1).remove(0);
    let address = address.strip_prefix("http://").unwrap().parse().unwrap();
    let reply = Client::connect(address).get("/").is(200);
    assert!(reply.has("X-Second"), "{reply:?}");
}

#[test]
fn shutdown_while_reading_the_configuration_blocks() {
    for signal in [Signal::TERM, Signal::INT] {
        let (_dir, config, _) = plain_config();
        fifo(&config);
        let mut program = program(&config);
        program.catches_signals();
        program.signal(Signal::HUP);
        program.signal(signal);
        assert_eq!(program.exit_code(), Some(0));
        assert_eq!(program.lines(), [""; 0]);
    }
}

#[test]
fn a_failed_start_exits_with_1() {
    let (_dir, config, text) = plain_config();
    fs::write(&config, format!("{text}max_file_size: lots\n")).unwrap();
    for round in 0..60 {
        let mut program = program(&config);
        program.allow("ERROR");
        program.wait_line(&["ERROR", "cannot start"]);
        let signal = [Signal::HUP, Signal::TERM, Signal::INT][round % 3];
        program.signal_if_running(signal);
        program.signal_if_running(signal);
        assert_eq!(program.exit_code(), Some(1), "{:?}", program.lines());
    }
}

/// Commands that only read keep the default actions of signals.
#[test]
fn offline_commands_keep_the_default_signal_actions() {
    for arguments in [
        &["--check-config"][..],
        &["explain", "romeo@montague.tld"],
        &["health"],
    ] {
        for (signal, number) in [(Signal::HUP, 1), (Signal::TERM, 15), (Signal::INT, 2)] {
            let (_dir, config, _) = plain_config();
            fifo(&config);
            // Signals may be ignored where the tests are run, as under nohup.
            let mut command = std::process::Command::new("env");
            command.arg("--default-signal=HUP,TERM,INT");
            command.args(program::command_line());
            command.arg("-c").arg(&config).args(arguments);
            let mut child = command.spawn().unwrap();
            // It waits for a writer, and then for data.
            let opened = std::thread::spawn(move || fs::File::options().write(true).open(&config));
            eventually("the configuration to be opened", || opened.is_finished());
            let writer = opened.join().unwrap().unwrap();
            rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal)
                .unwrap();
            let mut ended = None;
            eventually("the end by the signal", || {
                ended = child.try_wait().unwrap();
                ended.is_some()
            });
            drop(writer);
            let status = ended.unwrap();
            let signal_number = std::os::unix::process::ExitStatusExt::signal(&status);
            assert_eq!(signal_number, Some(number), "{arguments:?}: {status:?}");
        }
    }
}

/// Runs the program with that configuration; its exit code and output.
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
fn exit_codes() {
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
