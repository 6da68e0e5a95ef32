//! The command line and the configuration, as far as they show from outside.

use std::fs;

use crate::harness::dir::TempDir;
use crate::harness::program::run;
use crate::harness::site::{BASE, ROMEO_FOLDER, seed};
use crate::harness::{Client, Plan, Program};

/// Checks a configuration.
fn check_config(text: &str) -> (Option<i32>, String) {
    let dir = TempDir::new();
    fs::create_dir(dir.path().join("store")).unwrap();
    fs::write(
        dir.path().join("config.yml"),
        text.replace("DIR", &dir.path().display().to_string()),
    )
    .unwrap();
    run(&["--check-config"], dir.path())
}

#[test]
fn version_and_help() {
    let dir = TempDir::new();
    for flag in ["-V", "--version"] {
        let (code, said) = run(&[flag], dir.path());
        assert_eq!(
            (code, said.trim()),
            (Some(0), concat!("upslot ", env!("CARGO_PKG_VERSION")))
        );
    }
    for flag in ["-h", "--help"] {
        let (code, said) = run(&[flag], dir.path());
        assert_eq!(code, Some(0));
        for part in ["--config", "--logfile", "--check-config", "--version"] {
            assert!(said.contains(part), "{said}");
        }
    }
    assert_eq!(run(&["--nonsense"], dir.path()).0, Some(2));
    assert_eq!(run(&["-c"], dir.path()).0, Some(2));
}

/// A configuration of HttpUploadComponent, with its way of writing.
#[test]
fn the_predecessors_configuration() {
    let (code, said) = check_config(
        "# a comment\n\
         component_jid: upload.example.net\n\
         component_secret : 'secret'   # quoted\n\
         component_port : 5347\n\
         storage_path : DIR/store\n\
         \n\
         whitelist:\n  - example.net\n  - \"friend@example.com\"\n\
         max_file_size: 20971520 #20MiB\n\
         http_address: 127.0.0.1 #use 0.0.0.0 without a proxy\n\
         http_port: \"8080\"\n\
         get_url : http://upload.example.net:8080\n\
         put_url : http://upload.example.net:8080\n\
         expire_interval: 82800\n\
         expire_maxage: 2592000\n\
         user_quota_hard: 104857600\n\
         user_quota_soft: 78643200\n\
         allow_web_clients: true\n",
    );
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("ERROR"), "{said}");
}

#[test]
fn all_faults_at_once() {
    let (code, said) = check_config(
        "component_jid: upload.localhost\n\
         component_secret: do-not-tell\n\
         storage_path: DIR/store\n\
         get_url: ftp://a/\n\
         max_file_size: lots\n\
         http_port: 99999\n\
         expire_interval: -5\n\
         allow_web_clients: perhaps\n\
         file_mode: 0999\n\
         whitelst: example.com\n",
    );
    assert_eq!(code, Some(1), "{said}");
    for (key, line, found) in [
        ("get_url", 4, "ftp://a/"),
        ("max_file_size", 5, "lots"),
        ("http_port", 6, "99999"),
        ("expire_interval", 7, "-5"),
        ("allow_web_clients", 8, "perhaps"),
        ("file_mode", 9, "0999"),
    ] {
        let line = format!("line {line}");
        let told = said
            .lines()
            .any(|said| said.contains(key) && said.contains(&line) && said.contains(found));
        assert!(told, "{key} with {line} and {found:?}, in:\n{said}");
    }
    // A key that is required and absent; an unknown one with the nearest known.
    assert!(said.lines().any(|said| said.contains("put_url")), "{said}");
    let unknown = said
        .lines()
        .find(|said| said.contains("whitelst"))
        .unwrap_or_else(|| panic!("{said}"));
    assert!(
        unknown.contains("line 10") && unknown.replace("whitelst", "").contains("whitelist"),
        "{unknown}"
    );
    assert!(!said.contains("do-not-tell"), "{said}");
}

#[test]
fn an_unknown_key_is_a_warning_only() {
    let good =
        "storage_path: DIR/store\nget_url: https://a/\nput_url: https://a/\nwhitelist: a.example\n";
    let (code, said) = check_config(good);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = check_config(&format!("{good}max_filesize: 5\n"));
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("max_filesize") && said.contains("max_file_size"),
        "{said}"
    );
}

#[test]
fn what_is_no_configuration() {
    for text in [
        "",
        "[]",
        "just text",
        "a: [\n",
        "storage_path: a\nstorage_path: b\n",
        "\u{0}",
        "storage_path:\n  deeper: 1\nget_url: https://a/\nput_url: https://a/\n",
        "&a [*a, *a]\n",
    ] {
        let (code, said) = check_config(text);
        assert_eq!(code, Some(1), "{text:?}: {said}");
        assert!(!said.trim().is_empty(), "{text:?}");
    }
    let dir = TempDir::new();
    let (code, said) = run(&["--check-config", "-c", "absent.yml"], dir.path());
    assert_eq!(code, Some(1));
    assert!(said.contains("absent.yml"), "{said}");
}

#[test]
fn half_a_component_is_a_fault() {
    let rest =
        "storage_path: DIR/store\nget_url: https://a/\nput_url: https://a/\nwhitelist: a.example\n";
    for (text, part) in [
        ("component_jid: upload.localhost\n", "component_secret"),
        ("component_secret: abc\n", "component_jid"),
        (
            "component_jid: a b\ncomponent_secret: abc\n",
            "component_jid",
        ),
        ("http_certfile: DIR/a.pem\n", "http_keyfile"),
    ] {
        let (code, said) = check_config(&format!("{rest}{text}"));
        assert_eq!(code, Some(1), "{text}: {said}");
        assert!(said.contains(part), "{text}: {said}");
    }
}

#[test]
fn checking_opens_no_port() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let (code, said) = check_config(&format!(
        "storage_path: DIR/store\nget_url: https://a/\nput_url: https://a/\nwhitelist: a.example\nhttp_port: {port}\n"
    ));
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn secrets_from_files() {
    let plan = Plan::new();
    let secret = plan.dir().join("secret");
    fs::write(&secret, "not-to-be-logged\n").unwrap();
    let slots = plan.dir().join("slots");
    fs::write(&slots, "a-secret-for-slots-0123456789\n").unwrap();
    // The harness checks the handshake against the secret of the file.
    let mut site = plan
        .set("component_secret_file", secret.display())
        .without("component_secret")
        .set("slot_secret_file", slots.display())
        .start();
    site.program.hide("a-secret-for-slots");
    site.upload("a.txt", None, b"hello");
}

#[test]
fn every_address_is_listened_on() {
    let plan = Plan::alone();
    let path = plan.dir().join("http.sock");
    // Left over from a program that was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let file = format!("{ROMEO_FOLDER}/Abcdefghijk12/a.txt");
    let site = plan
        .set(
            "http_address",
            format!("[127.0.0.1, '::1', 'unix:{}']", path.display()),
        )
        .seed(&file, b"hello")
        .start();
    let target = format!("/files/{file}");
    let places = site.program.listening(3);
    assert_eq!(
        places
            .iter()
            .filter(|place| place.starts_with("http://127.0.0.1:"))
            .count(),
        1,
        "{places:?}"
    );
    assert!(
        places.contains(&format!("unix:{}", path.display())),
        "{places:?}"
    );
    for place in &places {
        let mut client = match place.strip_prefix("http://") {
            Some(address) => Client::connect(address.parse().unwrap()),
            None => Client::unix(&path),
        };
        assert_eq!(client.get(&target).is(200).body, b"hello", "{place}");
        assert_eq!(client.get(&target).is(200).body, b"hello", "{place}");
    }
}

#[test]
fn an_unspecified_address_takes_both_families() {
    let site = Plan::alone().set("http_address", "'::'").start();
    let place = site.program.listening(1).remove(0);
    let port: u16 = place.rsplit(':').next().unwrap().parse().unwrap();
    for address in ["127.0.0.1", "::1"] {
        Client::connect((address.parse::<std::net::IpAddr>().unwrap(), port).into())
            .get("/")
            .is(200);
    }
}

#[test]
fn the_log_may_go_to_a_file() {
    let dir = TempDir::new();
    fs::create_dir(dir.path().join("store")).unwrap();
    let config = dir.path().join("config.yml");
    let text = format!(
        "storage_path: {}/store\nhttp_port: 0\nget_url: {BASE}\nput_url: {BASE}\nwhitelist: a.example\n",
        dir.path().display()
    );
    fs::write(&config, text).unwrap();
    let log = dir.path().join("upslot.log");
    let mut program = Program::start(&config, None, &["-l", log.to_str().unwrap()]);
    crate::harness::eventually("the log", || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains("ready pid="))
    });
    program.signal(rustix::process::Signal::TERM);
    assert_eq!(program.exit_code(), Some(0));
    assert!(program.lines().is_empty(), "{:?}", program.lines());
    assert!(
        fs::read_to_string(&log)
            .unwrap()
            .trim_end()
            .ends_with("stopped")
    );
}

#[test]
fn everyone_is_warned_about() {
    let mut site = Plan::alone().without("whitelist").start();
    site.program.allow("whitelist");
    site.program.wait_line(&["WARN", "whitelist"]);
}

#[test]
fn debug_tells_no_secrets_either() {
    let mut site = Plan::new().set("log_level", "trace").start();
    let slot = site.slot("romeo@montague.tld", "a.txt", 5, None);
    site.program.hide(slot.put.split_once('?').unwrap().1);
    site.put(&slot, b"hello").is(201);
    site.get(&format!("{}?password=hunter2", slot.get)).is(200);
    site.program.hide("hunter2");
    site.program.wait_line(&["slot issued "]);
    seed(&site.store(), &format!("{ROMEO_FOLDER}/x"), b"x");
}

#[test]
fn control_characters_do_not_reach_the_log() {
    let mut site = Plan::new().set("log_level", "debug").start();
    let _ = site.ask(
        "romeo@montague.tld",
        "a\nERROR forged line\t\u{7f}b",
        5,
        None,
        "",
    );
    let mut client = site.client();
    client
        .send(b"GET /%0aERROR%20forged%1b[31m HTTP/1.1\r\nHost: a\r\nUser-Agent: \xff\xfe\r\n\r\n");
    client.reply().is(404);
    let mut client = site.client();
    client.send(b"G\x1bT /\x1b[31m HTTP/1.1\r\n\r\n");
    client.reply().is(400);
    // The harness looks through the log when the test ends.
}
