//! Tests of [`super`]. Each test confines a thread of its own, so the others stay unconfined.

#![allow(clippy::print_stderr, reason = "skipped tests are reported")]

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::thread;

use super::*;
use crate::jid::BareJid;

/// A new folder that holds all paths named in the configuration, each in a folder of its own, and one folder
/// `elsewhere` that is not named there.
fn folder(name: &str) -> PathBuf {
    let base = std::env::temp_dir().join(format!("upslot-sandbox-{name}-{}", std::process::id()));
    let base = base
        .parent()
        .unwrap()
        .canonicalize()
        .unwrap()
        .join(base.file_name().unwrap());
    for folder in [
        "config",
        "secrets",
        "live",
        "archive",
        "var/store",
        "log",
        "run",
        "elsewhere",
    ] {
        fs::create_dir_all(base.join(folder)).unwrap();
    }
    for file in [
        "config/config.yml",
        "secrets/one",
        "archive/cert1.pem",
        "archive/key.pem",
        "elsewhere/secret",
    ] {
        fs::write(base.join(file), "text").unwrap();
    }
    for file in ["cert", "key"] {
        let target = if file == "cert" { "cert1" } else { "key" };
        symlink(
            format!("../archive/{target}.pem"),
            base.join(format!("live/{file}.pem")),
        )
        .unwrap();
    }
    base
}

fn config(base: &Path) -> Config {
    let base = base.display();
    let text = format!(
        "storage_path: {base}/var/store\nget_url: https://a/\nput_url: https://a/\nwhitelist: a.example\n\
         component_jid: up.example\ncomponent_secret_file: {base}/secrets/one\nhttp_certfile: {base}/live/cert.pem\n\
         http_keyfile: {base}/live/key.pem\nhttp_address: 'unix:{base}/run/http.sock'\n"
    );
    crate::config::read(&text).unwrap().config
}

fn target(host: &str, port: u16) -> LinkTarget {
    LinkTarget {
        jid: BareJid::parse("up.example").unwrap(),
        secret: "secret".to_owned(),
        host: host.to_owned(),
        port,
    }
}

fn permissions(base: &Path, target: Option<&LinkTarget>) -> Permissions {
    let (config_path, logfile) = (base.join("config/config.yml"), base.join("log/upslot.log"));
    Permissions::new(&config(base), &config_path, Some(&logfile), target)
}

/// Runs a test on a confined thread, and passes it the sandbox and the ABI version.
fn confined(base: &Path, target: &LinkTarget, test: impl FnOnce(&Sandbox, i32) + Send + 'static) {
    let permissions = permissions(base, Some(target));
    let thread = thread::spawn(move || {
        let sandbox = Sandbox::enter(permissions);
        match sandbox.enforcement {
            Enforcement::Landlock(abi) => test(&sandbox, abi),
            // Reported, because nothing was tested.
            Enforcement::Off(ref why) => {
                eprintln!("NOT TESTED, this kernel cannot confine: {why}");
            }
        }
    });
    let result = thread.join();
    fs::remove_dir_all(base).unwrap();
    result.unwrap();
}

#[track_caller]
fn allowed<T>(action: &str, result: io::Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{action}: {error}"))
}

#[track_caller]
fn denied<T>(action: &str, result: io::Result<T>) {
    match result {
        Ok(_) => panic!("{action} was not denied"),
        // Landlock reports a denied link or rename between folders as one across devices.
        Err(error) => assert!(
            matches!(
                error.kind(),
                ErrorKind::PermissionDenied | ErrorKind::CrossesDevices
            ),
            "{action}: {error}"
        ),
    }
}

#[test]
fn access_to_other_files_is_denied() {
    let base = folder("elsewhere");
    let elsewhere = base.join("elsewhere");
    confined(&base.clone(), &target("127.0.0.1", 5347), move |_, _| {
        denied("reading", fs::read(elsewhere.join("secret")));
        denied(
            "writing",
            fs::OpenOptions::new()
                .append(true)
                .open(elsewhere.join("secret")),
        );
        denied("listing", fs::read_dir(&elsewhere));
        denied("making a file", fs::write(elsewhere.join("new"), ""));
        denied("making a folder", fs::create_dir(elsewhere.join("new")));
        denied("removing", fs::remove_file(elsewhere.join("secret")));
        denied("linking", symlink("secret", elsewhere.join("new")));
        denied("reading the system's", fs::read("/etc/passwd"));
        denied("listing the root", fs::read_dir("/"));
        denied("reading another process's", fs::read("/proc/1/status"));
        // Nor through the store.
        let store = base.join("var/store");
        denied(
            "a second name",
            fs::hard_link(elsewhere.join("secret"), store.join("x")),
        );
        denied(
            "moving in",
            fs::rename(elsewhere.join("secret"), store.join("x")),
        );
        allowed(
            "a link of our own",
            symlink(elsewhere.join("secret"), store.join("y")),
        );
        denied("reading through a link", fs::read(store.join("y")));
        // Helper threads, which are started later, inherit the restrictions.
        let secret = elsewhere.join("secret");
        denied(
            "reading on a helper thread",
            thread::spawn(move || fs::read(secret)).join().unwrap(),
        );
        denied(
            "starting a program",
            Command::new("/bin/true").stdin(Stdio::null()).spawn(),
        );
    });
}

#[test]
fn read_only_files_cannot_be_written_and_the_log_cannot_be_read() {
    let base = folder("modes");
    confined(&base.clone(), &target("127.0.0.1", 5347), move |_, _| {
        denied(
            "writing the configuration",
            fs::write(base.join("config/config.yml"), ""),
        );
        denied(
            "removing the configuration",
            fs::remove_file(base.join("config/config.yml")),
        );
        denied(
            "writing a certificate",
            fs::write(base.join("archive/cert1.pem"), ""),
        );
        denied(
            "making a file beside a socket",
            fs::write(base.join("run/x"), ""),
        );
        allowed("making the log", fs::write(base.join("log/upslot.log"), ""));
        denied("reading the log", fs::read(base.join("log/upslot.log")));
    });
}

/// Does everything that the store does with files, folders and links.
fn use_store(store: &Path) {
    allowed(
        "making folders",
        fs::create_dir_all(store.join("owner/random")),
    );
    let root = allowed("opening the root", crate::sys::open_root(store));
    let unnamed = allowed("an unnamed file", crate::sys::open_unnamed(&root, 0o600));
    let folder = allowed(
        "opening a folder",
        crate::sys::open_root(&store.join("owner/random")),
    );
    allowed(
        "naming it",
        crate::sys::link_through_proc(&unnamed, &folder, b"a"),
    );
    allowed("reading it", fs::read(store.join("owner/random/a")));
    allowed(
        "a second name",
        fs::hard_link(store.join("owner/random/a"), store.join("b")),
    );
    allowed(
        "cutting it",
        fs::OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(store.join("b")),
    );
    allowed("a symbolic link", symlink("text", store.join("c")));
    allowed("listing", fs::read_dir(store.join("owner")));
    for name in ["b", "c"] {
        allowed("removing a file", fs::remove_file(store.join(name)));
    }
    allowed("removing all", fs::remove_dir_all(store.join("owner")));
}

#[test]
fn everything_the_program_does_is_allowed() {
    let base = folder("works");
    drop(UnixListener::bind(base.join("run/http.sock")).unwrap());
    confined(&base.clone(), &target("127.0.0.1", 5347), move |_, _| {
        let store = base.join("var/store");
        use_store(&store);
        // The storage folder is moved away and back, then deleted and recreated.
        allowed("moving it away", fs::rename(&store, base.join("var/away")));
        allowed("moving it back", fs::rename(base.join("var/away"), &store));
        use_store(&store);
        allowed("removing it", fs::remove_dir_all(&store));
        allowed("recreating it", fs::create_dir(&store));
        use_store(&store);
        // The files read at a reload, and the socket, which is removed at shutdown.
        for path in [
            "config/config.yml",
            "secrets/one",
            "live/cert.pem",
            "live/key.pem",
        ] {
            allowed(path, fs::read(base.join(path)));
        }
        allowed(
            "removing the socket",
            fs::remove_file(base.join("run/http.sock")),
        );
        allowed("the log", fs::write(base.join("log/upslot.log"), ""));
        allowed("starting a thread", thread::Builder::new().spawn(|| ()))
            .join()
            .unwrap();
    });
}

#[test]
fn renewed_files_are_readable() {
    let base = folder("renewed");
    let outside = base.clone();
    // An unconfined thread renews the files, as certbot does, after the first thread was confined.
    let (start, started) = std::sync::mpsc::channel::<()>();
    let (finish, finished) = std::sync::mpsc::channel::<()>();
    let other = thread::spawn(move || {
        if started.recv().is_ok() {
            fs::write(outside.join("archive/cert2.pem"), "new").unwrap();
            fs::remove_file(outside.join("live/cert.pem")).unwrap();
            symlink("../archive/cert2.pem", outside.join("live/cert.pem")).unwrap();
            fs::write(outside.join("config/new"), "new").unwrap();
            fs::rename(
                outside.join("config/new"),
                outside.join("config/config.yml"),
            )
            .unwrap();
            fs::rename(
                outside.join("log/upslot.log"),
                outside.join("log/upslot.log.1"),
            )
            .unwrap();
            finish.send(()).unwrap();
        }
    });
    confined(&base.clone(), &target("127.0.0.1", 5347), move |_, _| {
        allowed("the log", fs::write(base.join("log/upslot.log"), ""));
        start.send(()).unwrap();
        finished.recv().unwrap();
        for path in ["live/cert.pem", "config/config.yml"] {
            assert_eq!(allowed(path, fs::read(base.join(path))), b"new");
        }
        allowed(
            "the log after its rotation",
            fs::write(base.join("log/upslot.log"), ""),
        );
    });
    other.join().unwrap();
}

#[test]
fn only_the_xmpp_server_can_be_connected_to() {
    let base = folder("network");
    let (server, other) = (
        TcpListener::bind("127.0.0.1:0").unwrap(),
        TcpListener::bind("127.0.0.1:0").unwrap(),
    );
    let port = server.local_addr().unwrap().port();
    confined(&base, &target("127.0.0.1", port), move |sandbox, abi| {
        allowed(
            "connecting to the server",
            TcpStream::connect(server.local_addr().unwrap()),
        );
        let elsewhere = TcpStream::connect(other.local_addr().unwrap());
        let bound = TcpListener::bind("127.0.0.1:0");
        if abi >= 4 {
            denied("connecting elsewhere", elsewhere);
            denied("binding", bound);
            assert!(
                sandbox
                    .to_string()
                    .ends_with(&format!("connect={port} bind=none signal=own"))
                    || abi < 6
            );
        } else {
            allowed("connecting elsewhere", elsewhere);
            assert!(
                sandbox
                    .to_string()
                    .ends_with("connect=any bind=any signal=any")
            );
        }
    });
}

/// A child process that is killed at the end of the test.
struct KilledOnDrop(std::process::Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn signals_and_abstract_sockets_of_other_processes_are_denied() {
    let base = folder("scope");
    let name =
        SocketAddr::from_abstract_name(format!("upslot-sandbox-{}", std::process::id())).unwrap();
    let _listener = UnixListener::bind_addr(&name).unwrap();
    let child = KilledOnDrop(
        Command::new("sleep")
            .arg("600")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let pid = rustix::process::Pid::from_child(&child.0);
    confined(&base, &target("127.0.0.1", 5347), move |_, abi| {
        let signalled = rustix::process::test_kill_process(pid).map_err(io::Error::from);
        let reached = UnixStream::connect_addr(&name);
        if abi >= 6 {
            denied("signalling", signalled);
            denied("an abstract socket", reached);
        } else {
            allowed("signalling", signalled);
        }
    });
}

#[test]
fn name_resolution_is_allowed_only_for_a_host_name() {
    let base = folder("names");
    for (host, names) in [
        ("localhost", false),
        ("127.0.0.1", false),
        ("[::1]", false),
        ("xmpp.example", true),
    ] {
        let permissions = permissions(&base, Some(&target(host, 5347)));
        assert_eq!(permissions.names, names, "{host}");
        assert_eq!(
            permissions.read.contains(&PathBuf::from("/etc")),
            names,
            "{host}"
        );
        assert_eq!(permissions.ports.contains(&DNS_PORT), names, "{host}");
        assert!(permissions.ports.contains(&5347), "{host}");
    }
    assert_eq!(permissions(&base, None).ports, [0; 0]);
    confined(&base, &target("xmpp.example", 5347), |_, _| {
        allowed("the resolver's settings", fs::read("/etc/hosts"));
        // The lookup itself is not tested, because its result depends on the network.
        let modules = Path::new("/usr/lib");
        assert!(!modules.exists() || fs::read_dir(modules).is_ok());
    });
}

#[cfg(feature = "s3")]
#[test]
fn an_object_store_needs_its_port_and_no_folder() {
    let base = folder("s3");
    let at = |endpoint: &str, style: &str| {
        let ca_file = base.join("archive/ca.pem");
        let text = format!(
            "get_url: https://a/\nput_url: https://a/\nwhitelist: a.example\nslot_secret: 0123456789abcdef\ns3:\n  \
             endpoint: https://s3.example\n  internal_endpoint: {endpoint}\n  bucket: uploads\n  access_key: k\n  \
             secret_key_file: {}\n  ca_file: {}\n  path_style: {style}\n",
            base.join("secrets/one").display(),
            ca_file.display()
        );
        let config = crate::config::read(&text).unwrap().config;
        Permissions::new(&config, &base.join("config/config.yml"), None, None)
    };
    let own = ["config", "secrets", "archive"].map(|folder| base.join(folder));
    let plain = at("http://127.0.0.1:3900", "true");
    assert_eq!((&plain.ports[..], plain.names), (&[3900][..], false));
    assert_eq!((&plain.store[..], &plain.read[..]), (&[][..], &own[..]));
    let sandbox = Sandbox {
        permissions: plain,
        enforcement: Enforcement::Landlock(6),
    };
    let shown = sandbox.to_string();
    assert!(
        shown.starts_with("landlock=6 read=")
            && shown.ends_with("connect=3900 bind=none signal=own"),
        "{shown}"
    );
    let named = at("https://store.example:8443", "true");
    assert_eq!(
        (&named.ports[..], named.names),
        (&[8443, DNS_PORT][..], true)
    );
    let own_and_system = own.iter().all(|folder| named.read.contains(folder));
    assert!(own_and_system && named.read.contains(&PathBuf::from("/etc")));
    let virtual_host = at("http://localhost:3900", "false");
    assert_eq!(virtual_host.ports, [3900, DNS_PORT]);
    let bundle = tls::system_bundle().map_or_else(Vec::new, |path| places(&path));
    let encrypted = at("https://127.0.0.1", "true");
    assert!(bundle.iter().all(|place| encrypted.read.contains(place)));
    assert_eq!(encrypted.read.len(), own.len() + bundle.len());
    fs::remove_dir_all(base).unwrap();
}

#[test]
fn the_root_and_the_home_are_not_opened_for_the_storage_folder() {
    let check = |store: &str, home: Option<&str>, parent: Option<&str>| {
        let found = parent_of_store(Path::new(store), home.map(Path::new));
        assert_eq!(found.as_deref(), parent.map(Path::new), "{store} {home:?}");
    };
    check("/var/lib/upslot", Some("/var/lib/upslot"), Some("/var/lib"));
    check("/srv/upload", None, Some("/srv"));
    check("/data", None, None);
    check("/data", Some("/"), None);
    check("/users/jo/upload", Some("/users/jo"), None);
    check(
        "/users/jo/xmpp/upload",
        Some("/users/jo"),
        Some("/users/jo/xmpp"),
    );
}

#[test]
fn a_file_in_the_root_takes_the_place_of_its_folder() {
    assert_eq!(
        places(Path::new("/config.yml")),
        [PathBuf::from("/config.yml")]
    );
    assert!(places(Path::new("/no/such/folder/file")).is_empty());
    let base = folder("places");
    assert_eq!(
        places(&base.join("live/cert.pem")),
        [base.join("live"), base.join("archive")]
    );
    symlink("loop", base.join("live/loop")).unwrap();
    assert_eq!(places(&base.join("live/loop")).len(), MAX_LINKS);
    fs::remove_dir_all(base).unwrap();
}

#[test]
fn targets_and_files_blocked_after_a_reload_are_reported() {
    let base = folder("reload");
    let permissions = permissions(&base, Some(&target("127.0.0.1", 5347)));
    let with = |enforcement: Enforcement| Sandbox {
        permissions: permissions.clone(),
        enforcement,
    };
    for (abi, port, host) in [
        (7, Some("component_port"), Some("component_host")),
        (4, Some("component_port"), Some("component_host")),
        (3, None, Some("component_host")),
    ] {
        let sandbox = with(Enforcement::Landlock(abi));
        assert_eq!(sandbox.blocking_key(&target("127.0.0.1", 5347)), None);
        assert_eq!(sandbox.blocking_key(&target("localhost", 5347)), None);
        assert_eq!(sandbox.blocking_key(&target("127.0.0.1", 5348)), port);
        assert_eq!(sandbox.blocking_key(&target("xmpp.example", 5347)), host);
        assert!(sandbox.allows_reading(&base.join("secrets/two")));
        assert!(sandbox.allows_reading(&base.join("live/cert.pem")));
        assert!(sandbox.allows_reading(&base.join("var/anything")));
        assert!(!sandbox.allows_reading(&base.join("elsewhere/secret")));
    }
    let open = with(Enforcement::Off("reason".to_owned()));
    assert_eq!(open.blocking_key(&target("xmpp.example", 1)), None);
    assert!(open.allows_reading(&base.join("elsewhere/secret")));
    assert_eq!(open.to_string(), "none why=\"reason\"");
    let list = with(Enforcement::Landlock(3)).to_string();
    let store = format!(
        "landlock=3 store=\"{0}/var/store {0}/var\" read=",
        base.display()
    );
    assert!(
        list.starts_with(&store) && list.ends_with("connect=any bind=any signal=any"),
        "{list}"
    );
    fs::remove_dir_all(base).unwrap();
}
