//! The command `upslot doctor`, without a proxy: the component port, silent servers, Ctrl-C, its output. With proxies it is
//! tested end to end.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::dir::TempDir;
use crate::harness::program::{command, run};
use crate::harness::server::{COMPONENT, SECRET};
use crate::harness::{Link, Plan, Server, Site};

/// A free loopback port; other tests do not take it.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A site whose URLs lead to its own listener.
fn site(more: &[(&str, String)]) -> (Site, PathBuf) {
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}/files/");
    let plan = Plan::new()
        .set("http_port", port)
        .set("put_url", &url)
        .set("get_url", &url);
    let plan = more
        .iter()
        .fold(plan, |plan, (key, value)| plan.set(key, value));
    let site = plan.start();
    let config = site.dir.path().join("config.yml");
    (site, config)
}

/// Runs `upslot doctor` with this configuration; its exit code and output.
fn doctor(config: &Path, more: &[&str]) -> (Option<i32>, String) {
    let words = [&["-c", config.to_str().unwrap(), "doctor"], more].concat();
    run(&words, Path::new("/"))
}

/// The line of a check.
#[track_caller]
fn line<'a>(said: &'a str, check: &str) -> &'a str {
    let mut lines = said.lines();
    let found = lines.find(|line| line.split_whitespace().nth(1) == Some(check));
    found.unwrap_or_else(|| panic!("no line about {check}:\n{said}"))
}

#[test]
fn everything_is_good_and_nothing_stays() {
    let (site, config) = site(&[("api", format!("{{port: {}}}", free_port()))]);
    let (code, said) = doctor(&config, &["--full"]);
    assert_eq!(code, Some(0), "{said}");
    for check in [
        "storage",
        "slot-secret",
        "listener",
        "api",
        "component",
        "connect",
        "preflight",
        "upload",
        "download",
        "names",
        "upload-size",
        "upload-full",
        "upload-slow",
        "request-buffering",
        "clean-up",
        "removed-file",
    ] {
        assert!(line(&said, check).starts_with("ok "), "{said}");
    }
    assert!(line(&said, "component").contains("/health"), "{said}");
    assert!(
        line(&said, "tls-certificate").starts_with("skipped "),
        "{said}"
    );
    assert!(said.contains("\nNo check failed: "), "{said}");
    assert!(!said.contains('\x1b'), "no colours in a pipe: {said}");
    assert!(!said.contains(SECRET), "{said}");
    assert_eq!(site.files(), [""; 0]);
}

#[test]
fn the_report_can_be_json() {
    let (site, config) = site(&[]);
    let server = site.server.as_ref().unwrap();
    // Without an API, the doctor opens a stream, but leaves the link alone.
    let said = thread::scope(|scope| {
        let opened = scope.spawn(|| {
            let mut link = server.accept();
            link.open();
            link.next_stanza()
        });
        let (code, said) = doctor(&config, &["--json"]);
        assert_eq!(code, Some(0), "{said}");
        let stanza = opened.join().unwrap();
        assert_eq!(stanza, None, "no handshake");
        said
    });
    let json = said.lines().next_back().unwrap();
    assert!(
        json.starts_with("{\"version\":\"") && json.ends_with("]}"),
        "{said}"
    );
    for part in [
        "\"ok\":true",
        "{\"check\":\"upload\",\"status\":\"ok\",\"problem\":null,\"found\":\"",
        "{\"check\":\"component\",\"status\":\"ok\",",
        "the secret was not sent",
        "\"check\":\"api\",\"status\":\"skipped\"",
    ] {
        assert!(json.contains(part), "{part}: {said}");
    }
    assert_eq!(site.files(), [""; 0]);
}

/// A configuration without a running upslot.
fn lonely(dir: &Path, server: &Server, url: &str) -> PathBuf {
    let path = dir.join("config.yml");
    fs::create_dir_all(dir.join("store")).unwrap();
    let text = format!(
        "storage_path: {}\nget_url: {url}\nput_url: {url}\nhttp_port: {}\nwhitelist: []\n\
         component_jid: {COMPONENT}\ncomponent_secret: {SECRET}\ncomponent_host: 127.0.0.1\ncomponent_port: {}\n",
        dir.join("store").display(),
        free_port(),
        server.address().port()
    );
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn stream_errors_are_explained() {
    let error = |condition: &'static str| {
        move |link: &mut Link| {
            link.send(&format!(
                "<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>"
            ));
        }
    };
    type Reply = Box<dyn FnOnce(&mut Link) + Send>;
    let cases: [(&str, &str, Reply); 5] = [
        (
            "ok ",
            "accepts upload.localhost and its secret",
            Box::new(|link| link.send("<handshake/>")),
        ),
        ("fail ", "[component-conflict]", Box::new(error("conflict"))),
        (
            "fail ",
            "[component-secret]",
            Box::new(error("not-authorized")),
        ),
        (
            "fail ",
            "[component-unknown]",
            Box::new(error("host-unknown")),
        ),
        ("fail ", "[component-port]", Box::new(Link::close)),
    ];
    let dir = TempDir::new();
    let url = format!("http://127.0.0.1:{}/", free_port());
    for (status, part, reply) in cases {
        let server = Server::new();
        let config = lonely(dir.path(), &server, &url);
        let said = thread::scope(|scope| {
            scope.spawn(|| {
                let mut link = server.accept();
                link.open();
                link.check_handshake(SECRET);
                reply(&mut link);
                link.next_stanza()
            });
            let (code, said) = doctor(&config, &[]);
            assert_eq!(code, Some(1), "{said}");
            said
        });
        let component = line(&said, "component");
        assert!(
            component.starts_with(status) && component.contains(part),
            "{said}"
        );
        assert!(line(&said, "listener").contains("[not-running]"), "{said}");
        assert!(line(&said, "connect").contains("[connect]"), "{said}");
        assert!(line(&said, "slot-secret").starts_with("skipped "), "{said}");
    }
}

#[test]
fn a_silent_server_does_not_stop_it() {
    let dir = TempDir::new();
    // Accepts connections, but never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let begun = Instant::now();
    let server = Server::at("127.0.0.1:0".parse().unwrap());
    let config = lonely(dir.path(), &server, &url);
    let text = fs::read_to_string(&config).unwrap();
    fs::write(
        &config,
        format!("{text}slot_secret: 0123456789abcdef\n").replace("component_", "#"),
    )
    .unwrap();
    let (code, said) = doctor(&config, &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(line(&said, "preflight").contains("[no-response]"), "{said}");
    assert!(line(&said, "upload").starts_with("skipped "), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(19), "{said}");
}

#[test]
fn garbage_is_named() {
    let dir = TempDir::new();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", other.local_addr().unwrap());
    thread::spawn(move || {
        for stream in other.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"220 \x1b[31mmail\r\n");
        }
    });
    let config = lonely(dir.path(), &Server::new(), &url);
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("component_", "#")).unwrap();
    let (code, said) = doctor(&config, &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(line(&said, "preflight").contains("not HTTP"), "{said}");
    assert!(!said.contains('\x1b'), "{said}");
}

#[test]
fn an_interrupted_run_removes_its_files() {
    let (site, config) = site(&[("api", format!("{{port: {}}}", free_port()))]);
    let mut child = command()
        .args(["-c", config.to_str().unwrap(), "doctor"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let before: Vec<String> = lines
        .by_ref()
        .map(Result::unwrap)
        .take_while(|line| !line.contains(" upload-size "))
        .collect();
    assert!(!site.files().is_empty(), "{before:?}");
    // A pause of some seconds follows.
    let begun = Instant::now();
    let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let after: Vec<String> = lines.map(Result::unwrap).collect();
    let said = after.join("\n");
    assert_eq!(child.wait().unwrap().code(), Some(1), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(4), "{said}");
    assert!(line(&said, "upload-slow").contains("interrupted"), "{said}");
    assert!(line(&said, "complete").contains("[interrupted]"), "{said}");
    assert!(line(&said, "clean-up").starts_with("ok "), "{said}");
    assert_eq!(site.files(), [""; 0]);
}

#[test]
fn wrong_arguments_are_refused() {
    let dir = TempDir::new();
    for words in [
        &["doctor", "x"][..],
        &["doctor", "--ca-file"],
        &["list", "--json"],
    ] {
        let (code, said) = run(words, dir.path());
        assert_eq!(code, Some(2), "{said}");
    }
}
