//! Landlock as seen from outside, and the confidentiality of secrets.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use landlock::{Access, AccessFs, LandlockStatus, Ruleset, RulesetAttr};

use crate::harness::dir::TempDir;
use crate::harness::program::run;
use crate::harness::site::BASE;
use crate::harness::{Client, Plan, Program, Server, Site, eventually};

/// The kernel's Landlock version, 0 without. Determined on a thread, which is confined afterwards.
fn kernel_abi() -> i32 {
    let asked = std::thread::spawn(|| {
        let rules = Ruleset::default().handle_access(AccessFs::from_all(landlock::ABI::V1));
        let status = rules.unwrap().create().unwrap().restrict_self().unwrap();
        match status.landlock {
            LandlockStatus::Available {
                effective_abi,
                kernel_abi,
            } => kernel_abi.unwrap_or(effective_abi as i32),
            _ => 0,
        }
    });
    asked.join().unwrap()
}

/// Whether files are confined here; reports if not.
fn confines() -> bool {
    let abi = kernel_abi();
    if abi < 2 {
        eprintln!("NOT TESTED: this kernel has version {abi} of Landlock, and 2 is needed");
    }
    abi >= 2
}

fn reload(site: &mut Site) {
    site.program.signal(rustix::process::Signal::HUP);
}

#[test]
fn one_line_reports_the_sandbox() {
    let plan = Plan::new();
    let store = plan.store().canonicalize().unwrap();
    let mut site = plan.start();
    let line = site.program.wait_line(&["sandbox "]);
    let abi = kernel_abi();
    if abi < 2 {
        assert!(line.contains("sandbox none why="), "{line}");
    } else {
        let port = site.server.as_ref().unwrap().address().port();
        assert!(
            line.contains(&format!(
                "sandbox landlock={abi} store=\"{} ",
                store.display()
            )),
            "{line}"
        );
        let network = match abi {
            2 | 3 => "connect=any bind=any signal=any".to_owned(),
            4 | 5 => format!("connect={port} bind=none signal=any"),
            _ => format!("connect={port} bind=none signal=own"),
        };
        assert!(line.ends_with(&network), "{line}");
    }
    assert_eq!(
        site.program
            .lines()
            .iter()
            .filter(|line| line.contains("sandbox "))
            .count(),
        1
    );
    site.upload("a.txt", None, b"hello");
}

#[test]
fn a_reload_does_not_reach_another_folder() {
    let elsewhere = TempDir::new();
    let secret = elsewhere.path().join("secret");
    fs::write(&secret, "a secret of its own\n").unwrap();
    let mut site = Plan::new().start();
    site.program.allow("config not reloaded");
    site.program.allow("needs a restart");
    let slot = site.upload("a.txt", None, b"hello");
    site.rewrite("slot_secret_file", secret.display());
    site.rewrite("max_file_size", 1);
    reload(&mut site);
    if confines() {
        site.program.wait_line(&[
            "config not reloaded",
            "slot_secret_file",
            "Permission denied",
        ]);
        let line = site.program.wait_line(&[
            "config key=slot_secret_file needs a restart",
            "the sandbox does not reach",
        ]);
        assert!(line.contains(secret.to_str().unwrap()), "{line}");
        // The whole old configuration stays in effect.
        site.upload("b.txt", None, b"more than a byte");
    } else {
        site.program.wait_line(&["config reloaded"]);
    }
    site.get(&slot.get).is(200);

    // A file next to the configuration can be read, also one that replaces another.
    let near = site.dir.path().join("secret");
    fs::copy(&secret, &near).unwrap();
    site.rewrite("slot_secret_file", near.display());
    reload(&mut site);
    site.program.wait_line(&["config reloaded"]);
    site.ask("romeo@montague.tld/garden", "b.txt", 2, None, "")
        .unwrap_err();
}

#[test]
fn sandbox_off() {
    let elsewhere = TempDir::new();
    let secret = elsewhere.path().join("secret");
    fs::write(&secret, "a secret of its own\n").unwrap();
    let mut site = Plan::new().set("sandbox", "off").start();
    site.program.allow("needs a restart");
    let line = site.program.wait_line(&["sandbox "]);
    assert!(
        line.ends_with("sandbox none why=\"it is off in the configuration\""),
        "{line}"
    );
    site.rewrite("slot_secret_file", secret.display());
    site.rewrite("sandbox", "auto");
    reload(&mut site);
    site.program
        .wait_line(&["config key=sandbox needs a restart to take effect"]);
    site.program.wait_line(&["config reloaded"]);
}

#[test]
fn a_renewed_certificate_behind_symlinks_is_loaded() {
    // As with certbot: the configured names are symlinks into another folder.
    let folder = TempDir::new();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("live")).unwrap();
    fs::create_dir(at("archive")).unwrap();
    let issue = |number: u32| {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["upload.localhost".to_owned()])
            .unwrap()
            .self_signed(&key)
            .unwrap();
        for (name, text) in [("cert", certificate.pem()), ("key", key.serialize_pem())] {
            fs::write(at(&format!("archive/{name}{number}.pem")), text).unwrap();
            let (link, new) = (at(&format!("live/{name}.pem")), at("live/new"));
            symlink(format!("../archive/{name}{number}.pem"), &new).unwrap();
            fs::rename(new, link).unwrap();
        }
    };
    issue(1);
    let mut site = Plan::new()
        .set("http_certfile", at("live/cert.pem").display())
        .set("http_keyfile", at("live/key.pem").display())
        .start();
    issue(2);
    reload(&mut site);
    site.program.wait_line(&["config reloaded"]);
}

#[test]
fn a_reload_does_not_reach_another_port() {
    let other = Server::new();
    let mut site = Plan::new().start();
    site.program.allow("needs a restart");
    site.rewrite("component_port", other.address().port());
    site.rewrite("max_file_size", 5);
    reload(&mut site);
    if kernel_abi() < 4 {
        eprintln!("NOT TESTED: this kernel does not confine the network");
        site.link.take();
        other.accept_link();
        return;
    }
    site.program.wait_line(&[
        "config key=component_port needs a restart to take effect",
        "the sandbox",
    ]);
    site.program.wait_line(&["config reloaded"]);
    // The link stays up, and the rest of the configuration takes effect.
    site.upload("a.txt", None, b"hello");
    site.ask("romeo@montague.tld/garden", "b.txt", 6, None, "")
        .unwrap_err();
    // Likewise a host name instead of an address.
    site.rewrite("component_host", "xmpp.invalid");
    site.rewrite(
        "component_port",
        site.server.as_ref().unwrap().address().port(),
    );
    reload(&mut site);
    site.program
        .wait_line(&["config key=component_host needs a restart to take effect"]);
    site.upload("c.txt", None, b"hello");
}

#[test]
fn unix_socket_removal_and_log_rotation() {
    let (run, log) = (TempDir::new(), TempDir::new());
    let (socket, log) = (run.path().join("http.sock"), log.path().join("upslot.log"));
    let dir = TempDir::new();
    fs::create_dir(dir.path().join("store")).unwrap();
    let config = dir.path().join("config.yml");
    let text = format!(
        "storage_path: {}/store\nhttp_address: unix:{}\nget_url: {BASE}\nput_url: {BASE}\nwhitelist: a.example\n",
        dir.path().display(),
        socket.display()
    );
    fs::write(&config, text).unwrap();
    let mut program = Program::start(&config, None, &["-l", log.to_str().unwrap()]);
    let says =
        |path: &Path, text: &str| fs::read_to_string(path).is_ok_and(|log| log.contains(text));
    eventually("the start", || says(&log, "ready pid="));
    assert!(socket.exists());
    let old = log.with_extension("1");
    fs::rename(&log, &old).unwrap();
    program.signal(rustix::process::Signal::HUP);
    eventually("the new log", || says(&log, "config reloaded"));
    program.signal(rustix::process::Signal::TERM);
    assert_eq!(program.exit_code(), Some(0));
    assert!(!socket.exists());
}

#[test]
fn memory_metric_in_the_sandbox() {
    let site = Plan::alone().set("api", "{port: 0}").start();
    let metrics = site.ask_api("/metrics").is(200);
    let line = metrics
        .text()
        .lines()
        .find(|line| line.starts_with("upslot_resident_memory_bytes "))
        .map(str::to_owned);
    let bytes: u64 = line.unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    assert!((100_000..1_000_000_000).contains(&bytes), "{bytes}");
}

/// Values of secrets that occur nowhere else.
const SECRETS: [(&str, &str); 6] = [
    ("component_secret", "hush-component-8c1f"),
    ("slot_secret", "hush-slots-0123456789-77ab"),
    ("external_secret", "hush-external-5d20"),
    ("external_delete_secret", "hush-delete-4b6e"),
    ("file_share_secret", "hush-share-0123456789-e3"),
    ("api", "hush-token-0123456789-9f"),
];

fn config_with_secrets(dir: &Path) -> String {
    let mut text = format!(
        "storage_path: {}/store\nhttp_port: 0\nget_url: {BASE}\nput_url: {BASE}\nwhitelist: montague.tld\n\
         component_jid: upload.localhost\ncomponent_host: 127.0.0.1\ncomponent_port: 1\nlog_level: trace\n",
        dir.display()
    );
    for (key, secret) in SECRETS {
        match key {
            "api" => text += &format!("api: {{port: 0, token: {secret}}}\n"),
            _ => text += &format!("{key}: {secret}\n"),
        }
    }
    text
}

#[test]
fn secrets_are_never_disclosed() {
    let dir = TempDir::new();
    fs::create_dir(dir.path().join("store")).unwrap();
    let config = dir.path().join("config.yml");
    fs::write(&config, config_with_secrets(dir.path())).unwrap();
    let name = config.to_str().unwrap();
    let assert_no_secrets = |what: &str, said: &str| {
        for (key, secret) in SECRETS {
            assert!(!said.contains(secret), "{what} discloses {key}:\n{said}");
        }
    };
    for arguments in [
        &["-c", name, "--check-config"][..],
        &[
            "-c",
            name,
            "explain",
            "romeo@montague.tld",
            "1",
            "text/plain",
        ],
    ] {
        let (code, said) = run(arguments, dir.path());
        assert_eq!(code, Some(0), "{said}");
        assert_no_secrets(&arguments.join(" "), &said);
    }
    // Nor if each of them is invalid.
    let wrong = config_with_secrets(dir.path()).replace("hush-", "\u{7f}hush-");
    fs::write(dir.path().join("wrong.yml"), wrong).unwrap();
    let (_, said) = run(&["-c", "wrong.yml", "--check-config"], dir.path());
    assert_no_secrets("an invalid configuration", &said);

    // The trace log, with requests that carry secrets and derived values.
    let mut plan = Plan::new().set("log_level", "trace");
    for (key, secret) in &SECRETS[1..] {
        plan = match *key {
            "api" => plan.set("api", format!("{{port: 0, token: {secret}}}")),
            key => plan.set(key, secret),
        };
    }
    let mut site = plan.start();
    for (_, secret) in SECRETS {
        site.program.hide(secret);
    }
    site.upload("a.txt", None, b"hello");
    let bearer = format!("Bearer {}", SECRETS[5].1);
    let query = "/slot/?jid=romeo@montague.tld&name=a.txt&size=5&type=text/plain";
    let slot = Client::local(site.api())
        .ask("GET", query, &[("Authorization", &bearer)], b"")
        .is(200);
    let (put, _) = slot.text().split_once('\n').unwrap();
    let put = put.strip_prefix("https://upload.localhost").unwrap();
    // The signature is the last value of the query; the harness knows the proof of the handshake.
    site.program.hide(put.rsplit('=').next().unwrap());
    site.client()
        .ask("PUT", put, &[("Authorization", &bearer)], b"hello")
        .is(201);
    reload(&mut site);
    site.program.wait_line(&["config reloaded"]);

    // What other users can see of the process.
    for file in ["cmdline", "environ"] {
        let bytes = fs::read(format!("/proc/{}/{file}", site.program.pid())).unwrap();
        assert_no_secrets(file, &String::from_utf8_lossy(&bytes));
    }
}

/// The warnings of `--check-config` about file permissions.
fn exposed(dir: &Path) -> Vec<String> {
    let (code, said) = run(&["-c", "config.yml", "--check-config"], dir);
    assert_eq!(code, Some(0), "{said}");
    let about = |line: &&str| line.contains("every user of this machine can read it");
    said.lines().filter(about).map(str::to_owned).collect()
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn world_readable_secrets_are_reported() {
    let dir = TempDir::new();
    let at = |name: &str| -> PathBuf { dir.path().join(name) };
    fs::create_dir(at("store")).unwrap();
    let certificate = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    fs::write(at("cert.pem"), certificate.cert.pem()).unwrap();
    fs::write(at("key.pem"), certificate.signing_key.serialize_pem()).unwrap();
    fs::write(at("component"), "hush-component").unwrap();
    fs::write(at("slots"), "hush-slots-0123456789").unwrap();
    let rest = format!(
        "storage_path: {0}/store\nhttp_port: 0\nget_url: {BASE}\nput_url: {BASE}\nwhitelist: montague.tld\n\
         component_jid: upload.localhost\ncomponent_secret_file: {0}/component\nslot_secret_file: {0}/slots\n\
         http_certfile: {0}/cert.pem\nhttp_keyfile: {0}/key.pem\ncomponent_host: 127.0.0.1\ncomponent_port: 1\n",
        dir.path().display()
    );
    fs::write(at("config.yml"), &rest).unwrap();
    let files = ["component", "slots", "key.pem", "config.yml", "cert.pem"];
    let all = |mode: u32| files.map(|name| chmod(&at(name), mode));
    // The files are world-readable, but their folder is private.
    all(0o644);
    chmod(dir.path(), 0o700);
    assert_eq!(exposed(dir.path()), [""; 0]);
    chmod(dir.path(), 0o755);
    if exposed(dir.path()).is_empty() {
        panic!(
            "{} is not open to all, so nothing can be tested below it",
            std::env::temp_dir().display()
        );
    }

    let check = |expected: &[(&str, &str)]| {
        let found = exposed(dir.path());
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (key, file) in expected {
            let remedy = format!(
                "chmod o-rwx {}.",
                at(file).canonicalize().unwrap().display()
            );
            let line = found
                .iter()
                .find(|line| line.contains(key) && line.ends_with(&remedy));
            assert!(line.is_some(), "{key} {file}: {found:?}");
        }
    };
    let files_alone = [
        ("component_secret_file", "component"),
        ("slot_secret_file", "slots"),
        ("http_keyfile", "key.pem"),
    ];
    check(&files_alone);
    // The group may.
    all(0o640);
    chmod(&at("component"), 0o604);
    check(&files_alone[..1]);
    all(0o600);
    check(&[]);
    // Secrets in the configuration itself.
    fs::write(
        at("config.yml"),
        format!("{rest}external_secret: hush-external\n"),
    )
    .unwrap();
    chmod(&at("config.yml"), 0o644);
    check(&[("it contains secrets (external_secret)", "config.yml")]);
    chmod(&at("config.yml"), 0o640);
    check(&[]);

    // At start, and at a reload.
    chmod(&at("slots"), 0o644);
    let mut program = Program::start(&at("config.yml"), None, &[]);
    for level in ["WARN", "ERROR"] {
        program.allow(level);
    }
    program.wait_line(&[
        "WARN",
        "slot_secret_file",
        "every user of this machine can read it",
    ]);
    program.wait_line(&["ready "]);
    chmod(&at("slots"), 0o600);
    chmod(&at("key.pem"), 0o604);
    program.signal(rustix::process::Signal::HUP);
    program.wait_line(&[
        "WARN",
        "http_keyfile",
        "every user of this machine can read it",
    ]);
    program.wait_line(&["config reloaded"]);
    assert_eq!(
        program
            .lines()
            .iter()
            .filter(|line| line.contains("every user"))
            .count(),
        2
    );
}
