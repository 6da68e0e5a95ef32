//! Each test confines a thread of its own; the others stay as they are.

#![allow(clippy::print_stderr, reason = "what was not tested is said")]

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

/// A new folder with all that a configuration names in folders of their own, and one folder that it does not name.
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

fn target(host: &str, port: u16) -> Target {
    Target {
        jid: BareJid::parse("up.example").unwrap(),
        secret: "secret".to_owned(),
        host: host.to_owned(),
        port,
    }
}

fn needs(base: &Path, target: Option<&Target>) -> Needs {
    let (config_path, logfile) = (base.join("config/config.yml"), base.join("log/upslot.log"));
    Needs::new(&config(base), &config_path, Some(&logfile), target)
}

/// Runs a test on a confined thread, and what it starts, with what holds there.
fn confined(base: &Path, target: &Target, test: impl FnOnce(&Sandbox, i32) + Send + 'static) {
    let needs = needs(base, Some(target));
    let ran = thread::spawn(move || {
        let sandbox = Sandbox::enter(needs);
        match sandbox.holds {
            Holds::From(abi) => test(&sandbox, abi),
            // Said aloud, because nothing was tested.
            Holds::Nothing(ref why) => eprintln!("NOT TESTED, this kernel cannot confine: {why}"),
        }
    });
    let ended = ran.join();
    fs::remove_dir_all(base).unwrap();
    ended.unwrap();
}

#[track_caller]
fn works<T>(what: &str, outcome: io::Result<T>) -> T {
    outcome.unwrap_or_else(|error| panic!("{what}: {error}"))
}

#[track_caller]
fn refused<T>(what: &str, outcome: io::Result<T>) {
    match outcome {
        Ok(_) => panic!("{what} was not refused"),
        // A link from outside is one to another device.
        Err(error) => assert!(
            matches!(
                error.kind(),
                ErrorKind::PermissionDenied | ErrorKind::CrossesDevices
            ),
            "{what}: {error}"
        ),
    }
}

#[test]
fn files_elsewhere_are_out_of_reach() {
    let base = folder("elsewhere");
    let elsewhere = base.join("elsewhere");
    confined(&base.clone(), &target("127.0.0.1", 5347), move |_, _| {
        refused("reading", fs::read(elsewhere.join("secret")));
        refused(
            "writing",
            fs::OpenOptions::new()
                .append(true)
                .open(elsewhere.join("secret")),
        );
        refused("listing", fs::read_dir(&elsewhere));
        refused("making a file", fs::write(elsewhere.join("new"), ""));
        refused("making a folder", fs::create_dir(elsewhere.join("new")));
        refused("removing", fs::remove_file(elsewhere.join("secret")));
        refused("linking", symlink("secret", elsewhere.join("new")));
        refused("reading the system's", fs::read("/etc/passwd"));
        refused("listing the root", fs::read_dir("/"));
        refused("reading another process's", fs::read("/proc/1/status"));
        // Nor by a way through the store.
        let store = base.join("var/store");
        refused(
            "a second name",
            fs::hard_link(elsewhere.join("secret"), store.join("x")),
        );
        refused(
            "moving in",
            fs::rename(elsewhere.join("secret"), store.join("x")),
        );
        works(
            "a link of our own",
            symlink(elsewhere.join("secret"), store.join("y")),
        );
        refused("reading through a link", fs::read(store.join("y")));
        // What is only read cannot be written, and what is only written cannot be read.
        refused(
            "writing the configuration",
            fs::write(base.join("config/config.yml"), ""),
        );
        refused(
            "removing the configuration",
            fs::remove_file(base.join("config/config.yml")),
        );
        refused(
            "writing a certificate",
            fs::write(base.join("archive/cert1.pem"), ""),
        );
        refused(
            "making a socket's neighbour",
            fs::write(base.join("run/x"), ""),
        );
        works("making the log", fs::write(base.join("log/upslot.log"), ""));
        refused("reading the log", fs::read(base.join("log/upslot.log")));
        // Helper threads are started later.
        let secret = elsewhere.join("secret");
        refused(
            "reading on a helper thread",
            thread::spawn(move || fs::read(secret)).join().unwrap(),
        );
        refused(
            "starting a program",
            Command::new("/bin/true").stdin(Stdio::null()).spawn(),
        );
    });
}

#[test]
fn what_the_program_does_works() {
    let base = folder("works");
    drop(UnixListener::bind(base.join("run/http.sock")).unwrap());
    confined(&base.clone(), &target("127.0.0.1", 5347), move |_, _| {
        let store = base.join("var/store");
        let fill = |store: &Path| {
            works(
                "making folders",
                fs::create_dir_all(store.join("owner/random")),
            );
            let root = works("opening the root", crate::sys::open_root(store));
            let unnamed = works("an unnamed file", crate::sys::open_unnamed(&root, 0o600));
            let folder = works(
                "opening a folder",
                crate::sys::open_root(&store.join("owner/random")),
            );
            works(
                "naming it",
                crate::sys::link_through_proc(&unnamed, &folder, b"a"),
            );
            works("reading it", fs::read(store.join("owner/random/a")));
            works(
                "a second name",
                fs::hard_link(store.join("owner/random/a"), store.join("b")),
            );
            works(
                "cutting it",
                fs::OpenOptions::new()
                    .write(true)
                    .truncate(true)
                    .open(store.join("b")),
            );
            works("a symbolic link", symlink("text", store.join("c")));
            works("listing", fs::read_dir(store.join("owner")));
            for name in ["b", "c"] {
                works("removing a file", fs::remove_file(store.join(name)));
            }
            works("removing all", fs::remove_dir_all(store.join("owner")));
        };
        fill(&store);
        // Removed and put back, and made anew.
        works("moving it away", fs::rename(&store, base.join("var/away")));
        works("moving it back", fs::rename(base.join("var/away"), &store));
        fill(&store);
        works("removing it", fs::remove_dir_all(&store));
        works("making it anew", fs::create_dir(&store));
        fill(&store);
        // What a reload reads, and what removes the socket at the end.
        for path in [
            "config/config.yml",
            "secrets/one",
            "live/cert.pem",
            "live/key.pem",
        ] {
            works(path, fs::read(base.join(path)));
        }
        works(
            "removing the socket",
            fs::remove_file(base.join("run/http.sock")),
        );
        works("the log", fs::write(base.join("log/upslot.log"), ""));
        works(
            "a clock and random bytes",
            thread::Builder::new().spawn(|| ()),
        )
        .join()
        .unwrap();
    });
}

#[test]
fn what_was_renewed_is_read() {
    let base = folder("renewed");
    let outside = base.clone();
    // Somebody else renews, as certbot does, when the thread is confined.
    let (ask, asked) = std::sync::mpsc::channel::<()>();
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    let other = thread::spawn(move || {
        if asked.recv().is_ok() {
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
            done.send(()).unwrap();
        }
    });
    confined(&base.clone(), &target("127.0.0.1", 5347), move |_, _| {
        works("the log", fs::write(base.join("log/upslot.log"), ""));
        ask.send(()).unwrap();
        is_done.recv().unwrap();
        for path in ["live/cert.pem", "config/config.yml"] {
            assert_eq!(works(path, fs::read(base.join(path))), b"new");
        }
        works(
            "the log after its rotation",
            fs::write(base.join("log/upslot.log"), ""),
        );
    });
    other.join().unwrap();
}

#[test]
fn the_network_is_the_xmpp_server_alone() {
    let base = folder("network");
    let (server, other) = (
        TcpListener::bind("127.0.0.1:0").unwrap(),
        TcpListener::bind("127.0.0.1:0").unwrap(),
    );
    let port = server.local_addr().unwrap().port();
    confined(&base, &target("127.0.0.1", port), move |sandbox, abi| {
        works(
            "connecting to the server",
            TcpStream::connect(server.local_addr().unwrap()),
        );
        let elsewhere = TcpStream::connect(other.local_addr().unwrap());
        let bound = TcpListener::bind("127.0.0.1:0");
        if abi >= 4 {
            refused("connecting elsewhere", elsewhere);
            refused("binding", bound);
            assert!(
                sandbox
                    .to_string()
                    .ends_with(&format!("connect={port} bind=none signal=own"))
                    || abi < 6
            );
        } else {
            works("connecting elsewhere", elsewhere);
            assert!(
                sandbox
                    .to_string()
                    .ends_with("connect=any bind=any signal=any")
            );
        }
    });
}

/// A child that does not outlive its test.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn nobody_outside_is_signalled_or_reached_by_an_abstract_name() {
    let base = folder("scope");
    let name =
        SocketAddr::from_abstract_name(format!("upslot-sandbox-{}", std::process::id())).unwrap();
    let _listener = UnixListener::bind_addr(&name).unwrap();
    let child = Ended(
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
            refused("signalling", signalled);
            refused("an abstract socket", reached);
        } else {
            works("signalling", signalled);
        }
    });
}

#[test]
fn names_are_looked_up_only_if_there_is_one() {
    let base = folder("names");
    for (host, names) in [
        ("localhost", false),
        ("127.0.0.1", false),
        ("[::1]", false),
        ("xmpp.example", true),
    ] {
        let needs = needs(&base, Some(&target(host, 5347)));
        assert_eq!(needs.names, names, "{host}");
        assert_eq!(needs.read.contains(&PathBuf::from("/etc")), names, "{host}");
        assert_eq!(needs.ports.contains(&DNS), names, "{host}");
        assert!(needs.ports.contains(&5347), "{host}");
    }
    assert_eq!(needs(&base, None).ports, [0; 0]);
    confined(&base, &target("xmpp.example", 5347), |_, _| {
        works("the resolver's settings", fs::read("/etc/hosts"));
        // It is asked on a thread that is started by then; what it answers is the network's.
        let modules = Path::new("/usr/lib");
        assert!(!modules.exists() || fs::read_dir(modules).is_ok());
    });
}

#[test]
fn a_storage_folder_does_not_open_the_root_or_a_home() {
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
fn a_file_in_the_root_stands_for_itself() {
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
    assert_eq!(places(&base.join("live/loop")).len(), MOST_LINKS);
    fs::remove_dir_all(base).unwrap();
}

#[test]
fn tells_what_a_reload_cannot_reach() {
    let base = folder("reload");
    let needs = needs(&base, Some(&target("127.0.0.1", 5347)));
    let with = |holds: Holds| Sandbox {
        needs: needs.clone(),
        holds,
    };
    for (abi, port, host) in [
        (7, Some("component_port"), Some("component_host")),
        (4, Some("component_port"), Some("component_host")),
        (3, None, Some("component_host")),
    ] {
        let sandbox = with(Holds::From(abi));
        assert_eq!(sandbox.bars(&target("127.0.0.1", 5347)), None);
        assert_eq!(sandbox.bars(&target("localhost", 5347)), None);
        assert_eq!(sandbox.bars(&target("127.0.0.1", 5348)), port);
        assert_eq!(sandbox.bars(&target("xmpp.example", 5347)), host);
        assert!(sandbox.reads(&base.join("secrets/two")));
        assert!(sandbox.reads(&base.join("live/cert.pem")));
        assert!(sandbox.reads(&base.join("var/anything")));
        assert!(!sandbox.reads(&base.join("elsewhere/secret")));
    }
    let open = with(Holds::Nothing("reason".to_owned()));
    assert_eq!(open.bars(&target("xmpp.example", 1)), None);
    assert!(open.reads(&base.join("elsewhere/secret")));
    assert_eq!(open.to_string(), "none why=\"reason\"");
    let list = with(Holds::From(3)).to_string();
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
