//! The command `upslot health`, with and without a running program.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::dir::TempDir;
use crate::harness::program::run;
use crate::harness::site::minimal_config;
use crate::harness::{Plan, Program, Site};

/// A free loopback port; other tests do not take it.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Runs `upslot health` with this configuration; its exit code and output line.
#[track_caller]
fn health(config: &Path) -> (Option<i32>, String) {
    let started = Instant::now();
    let (code, said) = run(&["-c", config.to_str().unwrap(), "health"], Path::new("/"));
    assert!(started.elapsed() < Duration::from_secs(15), "too slow");
    assert_eq!(said.matches('\n').count(), 1, "not one line: {said}");
    (code, said.trim_end().to_owned())
}

#[track_caller]
fn is_healthy(config: &Path, part: &str) {
    let (code, said) = health(config);
    assert!(
        said.starts_with("healthy: ") && said.contains(part),
        "{said}"
    );
    assert_eq!(code, Some(0), "{said}");
}

#[track_caller]
fn is_unhealthy(config: &Path, part: &str) {
    let (code, said) = health(config);
    assert!(
        said.starts_with("unhealthy: ") && said.contains(part),
        "{said}"
    );
    assert_eq!(code, Some(1), "{said}");
}

/// A site with fixed ports, and its configuration.
fn site_at_fixed_ports(api: &str) -> (Site, PathBuf) {
    let plan = Plan::new().set("http_port", free_port());
    let plan = match api {
        "" => plan,
        more => plan.set("api", format!("{{port: {}{more}}}", free_port())),
    };
    let site = plan.start();
    let config = site.dir.path().join("config.yml");
    (site, config)
}

#[test]
fn health_asks_the_local_api() {
    for api in [
        ", prefix: /",
        ", token: a-token-of-some-length",
        ", address: localhost",
    ] {
        let (mut site, config) = site_at_fixed_ports(api);
        is_healthy(&config, "/health says 200: link up, store good");
        // The failing part is named.
        site.program.allow("link down");
        site.link.take();
        site.server.take();
        site.program.wait_line(&["link down"]);
        is_unhealthy(&config, "/health says 503: link down, store good");
        site.program.signal(Signal::TERM);
        assert_eq!(site.program.exit_code(), Some(0));
        is_unhealthy(&config, "Connection refused");
    }
}

#[test]
fn health_asks_the_public_listener_without_an_api() {
    let (mut site, config) = site_at_fixed_ports("");
    is_healthy(&config, "127.0.0.1");
    site.program.allow("link down");
    site.link.take();
    site.server.take();
    site.program.wait_line(&["link down"]);
    // The page does not report the link: an unreachable XMPP server is no reason for a restart.
    is_healthy(&config, "127.0.0.1");
    drop(site);
    // Another program on the same port is detected.
    let dir = TempDir::new();
    let port = free_port();
    let config = config_with_port(dir.path(), port);
    let other = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = other.accept().unwrap();
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi");
    });
    is_unhealthy(&config, "another program");
    answering.join().unwrap();
}

fn config_with_port(dir: &Path, port: u16) -> PathBuf {
    minimal_config(dir, &format!("http_port: {port}\n"))
}

#[test]
fn health_on_every_kind_of_listener() {
    let dir = TempDir::new();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["upload.localhost".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("cert.pem"), certificate.pem()).unwrap();
    fs::write(at("key.pem"), key.serialize_pem()).unwrap();
    let socket = dir.path().join("http.sock");
    let port = free_port();
    for more in [
        // A certificate that cannot be verified.
        format!(
            "http_port: {port}\nhttp_certfile: {}\nhttp_keyfile: {}\n",
            at("cert.pem").display(),
            at("key.pem").display()
        ),
        format!("http_address: unix:{}\n", socket.display()),
        format!("http_address: 0.0.0.0\nhttp_port: {port}\n"),
        format!("http_address: '::'\nhttp_port: {port}\n"),
        // The port of the first listener is unknown.
        format!("http_address: ['127.0.0.1:0', '127.0.0.1:{port}']\n"),
        // The API does not allow this host.
        format!(
            "http_port: {port}\napi: {{port: {}, allow: 192.0.2.0/24}}\n",
            free_port()
        ),
    ] {
        let config = minimal_config(dir.path(), &more);
        let mut program = Program::start(&config, None, &[]);
        program.allow("component_jid: is absent");
        program.allow("http_address");
        program.wait_line(&["ready "]);
        let before = program.lines().len();
        is_healthy(
            &config,
            if more.contains("allow") {
                "api.allow"
            } else {
                "answers"
            },
        );
        assert!(
            !program.lines()[before..]
                .iter()
                .any(|line| line.contains("WARN")),
            "{:?}",
            program.lines()
        );
        program.signal(Signal::TERM);
        assert_eq!(program.exit_code(), Some(0), "{more}");
        let (code, said) = health(&config);
        assert_eq!(code, Some(1), "{said}");
    }
}

#[test]
fn health_reads_no_secrets_or_certificates() {
    let (site, config) = site_at_fixed_ports("");
    // A secret that is missing in a container that only runs the check.
    let text = fs::read_to_string(&config).unwrap();
    let without = text.replace("component_secret: ", "component_secret_file: /nowhere/");
    let other = site.dir.path().join("other.yml");
    fs::write(&other, without).unwrap();
    is_healthy(&other, "answers");
}

#[test]
fn health_times_out() {
    let dir = TempDir::new();
    // Listens, but never answers.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let config_path = config_with_port(dir.path(), listener.local_addr().unwrap().port());
    is_unhealthy(&config_path, "no answer within 5 s");
    let path = dir.path().join("deaf.sock");
    let _deaf = UnixListener::bind(&path).unwrap();
    let config_path = minimal_config(
        dir.path(),
        &format!("http_address: unix:{}\n", path.display()),
    );
    is_unhealthy(&config_path, "no answer within 5 s");
    // The address is unknown.
    let config_path = config_with_port(dir.path(), 0);
    is_unhealthy(&config_path, "not known");
}

#[test]
fn health_reports_a_configuration_that_cannot_be_read() {
    let dir = TempDir::new();
    let config = config_with_port(dir.path(), 1);
    for text in [
        None,
        Some("storage_path: [\n"),
        Some("max_file_size: lots\n"),
    ] {
        match text {
            None => fs::remove_file(&config).unwrap(),
            Some(text) => fs::write(&config, text).unwrap(),
        }
        let (code, said) = run(&["-c", config.to_str().unwrap(), "health"], dir.path());
        assert_eq!(code, Some(1), "{said}");
        assert!(
            said.starts_with("error: ") && said.contains("config.yml"),
            "{said}"
        );
    }
    let (code, said) = run(&["health", "stray"], dir.path());
    assert_eq!(code, Some(2), "{said}");
}
