//! What service managers and container platforms need: notifications and a watchdog, a command that asks for health, a
//! store that outlives a change of user.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;

use crate::harness::dir::TempDir;
use crate::harness::program::{BINARY, run, value_of};
use crate::harness::{Client, PATIENCE, Plan, Program, Site, request};

/// The least configuration without an XMPP side.
fn config(dir: &Path, more: &str) -> PathBuf {
    let config = dir.join("config.yml");
    let store = dir.join("store");
    let text = format!(
        "storage_path: {}\nget_url: https://upload.localhost/files/\nput_url: https://upload.localhost/files/\n\
         whitelist: montague.tld\n{more}",
        store.display()
    );
    fs::write(&config, text).unwrap();
    config
}

/// A free port of loopback; another program could take it, but none of these tests does.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

// Notifications --------------------------------------------------------------------------------------------------------

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
        let mut command = Command::new(BINARY);
        command.arg("-c").arg(config);
        command.env("NOTIFY_SOCKET", &self.variable);
        if let Some(watchdog) = watchdog {
            command.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        }
        let mut program = Program::spawn(command);
        program.allow("component_jid: is absent");
        program
    }

    /// The next message, if one comes in time.
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
fn the_service_manager_hears_of_start_reload_and_end() {
    for make in [Manager::at_path, Manager::abstract_one] {
        let dir = TempDir::new();
        let config = config(dir.path(), "http_port: 0\n");
        let manager = make(dir.path());
        let mut program = manager.start(&config, None);
        manager.expect("READY=1");
        manager.expect("STATUS=No XMPP link configured");

        // A good reload and a faulty one: both end.
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
            // The monotonic clock stands still in suspend, which /proc/uptime counts.
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
        // Without a watchdog there is no heartbeat.
        assert_eq!(manager.message_within(Duration::from_millis(1)), None);
    }
}

#[test]
fn the_status_tells_of_the_link() {
    let dir = TempDir::new();
    let manager = Manager::at_path(dir.path());
    // The first of two starts makes the configuration.
    let mut site = Plan::new().start();
    let config = site.dir.path().join("config.yml");
    let server = site.server.take().unwrap();
    drop(site.link.take());
    site.program.allow("link down");
    site.program.signal(Signal::TERM);
    assert_eq!(site.program.exit_code(), Some(0));
    let mut program = manager.start(&config, None);
    manager.expect("STATUS=XMPP link down");
    let link = server.welcome();
    manager.expect("STATUS=XMPP link up");
    drop(link);
    program.allow("link down");
    manager.expect("STATUS=XMPP link down");
    drop(server);
    program.signal(Signal::TERM);
    assert_eq!(program.exit_code(), Some(0));
}

#[test]
fn the_watchdog_hears_of_a_loop_that_turns_and_of_no_other() {
    let dir = TempDir::new();
    let config = config(dir.path(), "http_port: 0\n");
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
    // A loop that hangs in the middle of a turn sends none: it reads a FIFO that has no writer.
    let held = fs::read(&config).unwrap();
    fs::remove_file(&config).unwrap();
    mknodat(CWD, &config, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    program.signal(Signal::HUP);
    manager.expect("RELOADING=1");
    let message = manager.message_within(watchdog * 4);
    assert_eq!(message, None, "a loop that hangs has a heartbeat");
    // It goes on as soon as it can.
    fs::write(&config, held).unwrap();
    manager.expect("READY=1");
    manager.expect("WATCHDOG=1");
    program.wait_line(&["config reloaded"]);
    program.signal(Signal::TERM);
    manager.expect("STOPPING=1");
    assert_eq!(program.exit_code(), Some(0));
}

#[test]
fn a_watchdog_of_another_process_and_a_manager_that_is_not_there_do_no_harm() {
    let dir = TempDir::new();
    let config = config(dir.path(), "http_port: 0\n");
    let manager = Manager::at_path(dir.path());
    let mut command = Command::new(BINARY);
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
        let mut command = Command::new(BINARY);
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

// Health ---------------------------------------------------------------------------------------------------------------

/// `upslot health` with the site's configuration; its exit code and its one line.
#[track_caller]
fn health(config: &Path) -> (Option<i32>, String) {
    let started = Instant::now();
    let (code, said) = run(&["-c", config.to_str().unwrap(), "health"], Path::new("/"));
    assert!(
        started.elapsed() < Duration::from_secs(15),
        "it took its time"
    );
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

/// A site with ports that the configuration tells, and its configuration.
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
        // What is not well is named.
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
fn health_asks_the_public_side_where_there_is_no_api() {
    let (mut site, config) = site_at_fixed_ports("");
    is_healthy(&config, "127.0.0.1");
    site.program.allow("link down");
    site.link.take();
    site.server.take();
    site.program.wait_line(&["link down"]);
    // The page knows nothing of the link: an XMPP server that is away is no reason for a restart.
    is_healthy(&config, "127.0.0.1");
    drop(site);
    // Another program at the same port is not taken for upslot.
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
    config(dir, &format!("http_port: {port}\n"))
}

#[test]
fn health_is_asked_of_every_kind_of_listener() {
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
        // A certificate that nothing would verify.
        format!(
            "http_port: {port}\nhttp_certfile: {}\nhttp_keyfile: {}\n",
            at("cert.pem").display(),
            at("key.pem").display()
        ),
        format!("http_address: unix:{}\n", socket.display()),
        format!("http_address: 0.0.0.0\nhttp_port: {port}\n"),
        format!("http_address: '::'\nhttp_port: {port}\n"),
        // The first of them is not known.
        format!("http_address: ['127.0.0.1:0', '127.0.0.1:{port}']\n"),
        // The API does not admit this host.
        format!(
            "http_port: {port}\napi: {{port: {}, allow: 192.0.2.0/24}}\n",
            free_port()
        ),
    ] {
        let config = config(dir.path(), &more);
        let mut program = Program::start(&config, None, &[]);
        program.allow("component_jid: is absent");
        program.allow("http_address");
        program.wait_line(&["ready "]);
        let before = program.lines().len();
        is_healthy(
            &config,
            if more.contains("allow") {
                "allow in api"
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
fn health_needs_nothing_that_the_configuration_names() {
    let (site, config) = site_at_fixed_ports("");
    // The secret of a container that only runs the check.
    let text = fs::read_to_string(&config).unwrap();
    let without = text.replace("component_secret: ", "component_secret_file: /nowhere/");
    let other = site.dir.path().join("other.yml");
    fs::write(&other, without).unwrap();
    is_healthy(&other, "answers");
}

#[test]
fn health_has_an_end_where_nothing_answers() {
    let dir = TempDir::new();
    // Listens, and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let config_path = config_with_port(dir.path(), listener.local_addr().unwrap().port());
    is_unhealthy(&config_path, "no answer within 5 s");
    let path = dir.path().join("deaf.sock");
    let _deaf = UnixListener::bind(&path).unwrap();
    let config_path = config(
        dir.path(),
        &format!("http_address: unix:{}\n", path.display()),
    );
    is_unhealthy(&config_path, "no answer within 5 s");
    // Nothing is known of where to ask.
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

// Changing users -------------------------------------------------------------------------------------------------------

/// A folder that every user can enter, with the program in it; `None`, with a message, without root's rights.
fn open_to_all() -> Option<(TempDir, PathBuf)> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT TESTED: only root can become other users");
        return None;
    }
    let dir = TempDir::new();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let binary = dir.path().join("upslot");
    fs::copy(BINARY, &binary).unwrap();
    Some((dir, binary))
}

/// A storage folder as a volume of a container platform.
fn volume(path: &Path, owner: u32, group: u32, mode: u32) {
    fs::create_dir(path).unwrap();
    chown(path, Some(owner), Some(group)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn start_as(binary: &Path, config: &Path, user: u32, group: u32) -> Program {
    let mut command = Command::new("sh");
    // What container engines leave is 022, what some images set is worse.
    command.args(["-c", "umask 077; exec \"$@\"", "sh"]);
    command
        .arg(binary)
        .arg("-c")
        .arg(config)
        .uid(user)
        .gid(group);
    Program::spawn(command)
}

/// Uploads a file through the local API.
#[track_caller]
fn upload(program: &Program, name: &str) {
    let at = |part: &str| {
        let line = program.wait_line(&["listening ", part]);
        let address = value_of(&line, "on").unwrap();
        address.strip_prefix("http://").unwrap().parse().unwrap()
    };
    let api = at("for=api");
    let public = at("on=http");
    let query = format!("/slot/?jid=romeo@montague.tld&name={name}&size=5");
    let reply = Client::local(api).get(&query).is(200);
    let put = reply.text().lines().next().unwrap();
    let target = put.strip_prefix("https://upload.localhost").unwrap();
    let mut client = Client::connect(public);
    client.send(&request(
        "PUT",
        target,
        &[("Content-Length", "5")],
        b"hello",
    ));
    client.reply().is(201);
}

#[test]
fn a_volume_of_group_0_serves_the_next_user_too() {
    let Some((dir, binary)) = open_to_all() else {
        return;
    };
    let config = config(
        dir.path(),
        "http_port: 0\napi: {port: 0}\nmax_file_size: 10\nuser_quota_hard: 12\nevict_on_quota: true\n",
    );
    let store = dir.path().join("store");
    volume(&store, 0, 0, 0o770);
    let mut secrets = Vec::new();
    for (user, name) in [
        (1_000_640_000, "a.txt"),
        (1_000_650_000, "b.txt"),
        (1_000_660_000, "c.txt"),
    ] {
        let mut program = start_as(&binary, &config, user, 0);
        program.allow("component_jid: is absent");
        program.wait_line(&["ready "]);
        // From the third on another user's file has to go for it, and its path is remembered.
        upload(&program, name);
        program.signal(Signal::TERM);
        assert_eq!(program.exit_code(), Some(0));
        secrets.push(fs::read(store.join(".upslot/slot_secret")).unwrap());
    }
    assert!(
        secrets.windows(2).all(|pair| pair[0] == pair[1]),
        "slots were not kept"
    );
    let mut files = 0;
    let mut folders = vec![store];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let facts = entry.metadata().unwrap();
            let mode = facts.mode() & 0o777;
            assert_eq!(facts.gid(), 0, "{entry:?}");
            assert_eq!(mode >> 6 & 7, mode >> 3 & 7, "{entry:?} has mode {mode:o}");
            assert_eq!(mode & 7, 0, "{entry:?} has mode {mode:o}");
            match facts.is_dir() {
                true => folders.push(entry.path()),
                false => files += 1,
            }
        }
    }
    // Two uploads are left, beside the secret and what is remembered of the third.
    assert!(files >= 4, "{files} files");
}

#[test]
fn a_folder_that_is_made_in_a_volume_of_group_0_is_shared_as_well() {
    let Some((dir, binary)) = open_to_all() else {
        return;
    };
    volume(&dir.path().join("data"), 0, 0, 0o770);
    let config = config(dir.path(), "http_port: 0\napi: {port: 0}\n");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("/store\n", "/data/in/it\n")).unwrap();
    for (user, name) in [(1_000_640_000, "a.txt"), (1_000_650_000, "b.txt")] {
        let mut program = start_as(&binary, &config, user, 0);
        program.allow("component_jid: is absent");
        program.wait_line(&["ready "]);
        upload(&program, name);
    }
}

/// On other hosts nothing is opened to a group: what is made is as private as ever.
#[test]
fn a_store_of_another_kind_stays_private() {
    let Some((dir, binary)) = open_to_all() else {
        return;
    };
    let config = config(dir.path(), "http_port: 0\napi: {port: 0}\n");
    let store = dir.path().join("store");
    for (user, group, folder_group, mode) in [
        (4000, 4000, 4000, 0o770),
        (4000, 4000, 0, 0o777),
        (4000, 0, 0, 0o757),
    ] {
        volume(&store, 4000, folder_group, mode);
        let mut program = start_as(&binary, &config, user, group);
        program.allow("component_jid: is absent");
        program.wait_line(&["ready "]);
        upload(&program, "a.txt");
        drop(program);
        let mode = |path: &str| fs::metadata(store.join(path)).unwrap().mode() & 0o777;
        assert_eq!(mode(".upslot"), 0o700);
        assert_eq!(mode(".upslot/slot_secret"), 0o600);
        assert_eq!(mode(crate::harness::site::ROMEO_FOLDER), 0o750);
        fs::remove_dir_all(&store).unwrap();
    }
}

#[test]
fn a_store_of_another_user_is_reported() {
    let Some((dir, binary)) = open_to_all() else {
        return;
    };
    let config = config(dir.path(), "http_port: 0\n");
    let store = dir.path().join("store");
    volume(&store, 0, 0, 0o770);
    fs::create_dir(store.join(".upslot")).unwrap();
    fs::write(store.join(".upslot/slot_secret"), [7; 32]).unwrap();
    chown(store.join(".upslot"), Some(4001), Some(0)).unwrap();
    fs::set_permissions(store.join(".upslot"), fs::Permissions::from_mode(0o770)).unwrap();
    chown(store.join(".upslot/slot_secret"), Some(4001), Some(0)).unwrap();
    fs::set_permissions(
        store.join(".upslot/slot_secret"),
        fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    let mut program = start_as(&binary, &config, 4002, 0);
    program.allow("component_jid: is absent");
    program.allow("cannot start");
    let line = program.wait_line(&["cannot start", "slot_secret", "Permission denied"]);
    assert!(line.contains("chmod -R g=u"), "{line}");
    assert_eq!(program.exit_code(), Some(1));
}
