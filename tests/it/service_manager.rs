//! Notifications of the service manager (`sd_notify`), and its watchdog.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;

use crate::harness::dir::TempDir;
use crate::harness::program;
use crate::harness::site::minimal_config;
use crate::harness::{PATIENCE, Plan, Program};

/// The service manager's side.
struct Manager {
    socket: UnixDatagram,
    variable: String,
}

impl Manager {
    fn at_path(dir: &Path) -> Manager {
        let path = dir.join("notify");
        Manager {
            socket: UnixDatagram::bind(&path).unwrap(),
            variable: path.to_str().unwrap().to_owned(),
        }
    }

    fn abstract_one(dir: &Path) -> Manager {
        let name = dir.to_str().unwrap();
        let address = SocketAddr::from_abstract_name(name).unwrap();
        Manager {
            socket: UnixDatagram::bind_addr(&address).unwrap(),
            variable: format!("@{name}"),
        }
    }

    fn start(&self, config: &Path, watchdog: Option<Duration>) -> Program {
        let mut command = program::command();
        command.arg("-c").arg(config);
        command.env("NOTIFY_SOCKET", &self.variable);
        if let Some(watchdog) = watchdog {
            command.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        }
        let mut program = Program::spawn(command);
        program.allow("component_jid: is absent");
        program
    }

    /// The next message, if one arrives in time.
    fn message_within(&self, patience: Duration) -> Option<String> {
        let mut buffer = [0; 4096];
        self.socket.set_read_timeout(Some(patience)).unwrap();
        let length = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    /// The next message that has this line.
    #[track_caller]
    fn expect(&self, line: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        while Instant::now() < deadline {
            let Some(message) = self.message_within(PATIENCE) else {
                break;
            };
            if message.lines().any(|one| one.starts_with(line)) {
                return message;
            }
            seen.push(message);
        }
        panic!("no {line:?} among {seen:?}");
    }
}

#[test]
fn notifications_of_start_reload_and_stop() {
    for make in [Manager::at_path, Manager::abstract_one] {
        let dir = TempDir::new();
        let config = minimal_config(dir.path(), "http_port: 0\n");
        let manager = make(dir.path());
        let mut program = manager.start(&config, None);
        manager.expect("READY=1");
        manager.expect("STATUS=No XMPP link configured");

        // A valid and an invalid reload: both complete.
        for (text, outcome) in [
            (fs::read_to_string(&config).unwrap(), "config reloaded"),
            ("max_file_size: lots\n".to_owned(), "config not reloaded"),
        ] {
            fs::write(&config, text).unwrap();
            program.allow("config");
            program.allow("storage_path");
            program.signal(Signal::HUP);
            let message = manager.expect("RELOADING=1");
            let micros = message
                .lines()
                .find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
            let uptime = fs::read_to_string("/proc/uptime").unwrap();
            let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
            let micros: f64 = micros.unwrap().parse().unwrap();
            // /proc/uptime includes suspend, the monotonic clock does not.
            assert!(
                micros > 0.0 && micros / 1e6 <= uptime + 1.0,
                "{message} {uptime}"
            );
            manager.expect("READY=1");
            program.wait_line(&[outcome]);
        }
        program.signal(Signal::TERM);
        manager.expect("STOPPING=1");
        assert_eq!(program.exit_code(), Some(0));
        // Without a watchdog there are no watchdog messages.
        assert_eq!(manager.message_within(Duration::from_millis(1)), None);
    }
}

#[test]
fn the_status_shows_the_link() {
    let dir = TempDir::new();
    let manager = Manager::at_path(dir.path());
    // The first start creates the configuration.
    let mut site = Plan::new().start();
    let config = site.dir.path().join("config.yml");
    let server = site.server.take().unwrap();
    drop(site.link.take());
    site.program.allow("link down");
    site.program.signal(Signal::TERM);
    assert_eq!(site.program.exit_code(), Some(0));
    let mut program = manager.start(&config, None);
    manager.expect("STATUS=XMPP link down");
    let link = server.accept_link();
    manager.expect("STATUS=XMPP link up");
    drop(link);
    program.allow("link down");
    manager.expect("STATUS=XMPP link down");
    drop(server);
    program.signal(Signal::TERM);
    assert_eq!(program.exit_code(), Some(0));
}

#[test]
fn watchdog_messages_stop_when_the_loop_hangs() {
    let dir = TempDir::new();
    let config = minimal_config(dir.path(), "http_port: 0\n");
    let manager = Manager::at_path(dir.path());
    let watchdog = Duration::from_millis(1000);
    let mut program = manager.start(&config, Some(watchdog));
    manager.expect("READY=1");
    // An idle loop wakes for it.
    let mut last = Instant::now();
    for _ in 0..6 {
        manager.expect("WATCHDOG=1");
        let passed = last.elapsed();
        assert!(passed < watchdog, "{passed:?} between two heartbeats");
        last = Instant::now();
    }
    // A hanging loop sends no message: it reads a FIFO without a writer.
    let held = fs::read(&config).unwrap();
    fs::remove_file(&config).unwrap();
    mknodat(CWD, &config, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    program.signal(Signal::HUP);
    manager.expect("RELOADING=1");
    let message = manager.message_within(watchdog * 4);
    assert_eq!(message, None, "a hanging loop sent a watchdog message");
    // It continues once unblocked.
    fs::write(&config, held).unwrap();
    manager.expect("READY=1");
    manager.expect("WATCHDOG=1");
    program.wait_line(&["config reloaded"]);
    program.signal(Signal::TERM);
    manager.expect("STOPPING=1");
    assert_eq!(program.exit_code(), Some(0));
}

#[test]
fn foreign_watchdog_and_absent_manager() {
    let dir = TempDir::new();
    let config = minimal_config(dir.path(), "http_port: 0\n");
    let manager = Manager::at_path(dir.path());
    let mut command = program::command();
    command.arg("-c").arg(&config);
    command.env("NOTIFY_SOCKET", &manager.variable);
    command
        .env("WATCHDOG_USEC", "100000")
        .env("WATCHDOG_PID", "1");
    let mut program = Program::spawn(command);
    program.allow("component_jid: is absent");
    manager.expect("READY=1");
    while let Some(message) = manager.message_within(Duration::from_millis(500)) {
        assert!(!message.contains("WATCHDOG"), "{message}");
    }
    drop(program);
    for variable in ["/nowhere/notify", "vsock:2:1", "relative", "@"] {
        let mut command = program::command();
        command
            .arg("-c")
            .arg(&config)
            .env("NOTIFY_SOCKET", variable);
        let mut program = Program::spawn(command);
        program.allow("component_jid: is absent");
        program.allow("service manager not notified");
        program.wait_line(&["ready "]);
        program.signal(Signal::TERM);
        assert_eq!(program.exit_code(), Some(0));
    }
}
