//! The command line and the configuration, from outside.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::harness::dir::TempDir;
use crate::harness::program::{copy_program, run};
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
        let (code, output) = run(&[flag], dir.path());
        assert_eq!(
            (code, output.trim()),
            (Some(0), concat!("upslot ", env!("CARGO_PKG_VERSION")))
        );
    }
    for flag in ["-h", "--help"] {
        let (code, output) = run(&[flag], dir.path());
        assert_eq!(code, Some(0));
        for part in ["--config", "--logfile", "--check-config", "--version"] {
            assert!(output.contains(part), "{output}");
        }
    }
    assert_eq!(run(&["--nonsense"], dir.path()).0, Some(2));
    assert_eq!(run(&["-c"], dir.path()).0, Some(2));
}

/// A typical configuration of HttpUploadComponent.
#[test]
fn the_predecessors_configuration() {
    let (code, output) = check_config(
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
    assert_eq!(code, Some(0), "{output}");
    assert!(!output.contains("ERROR"), "{output}");
}

#[test]
fn all_errors_are_reported_at_once() {
    let (code, output) = check_config(
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
    assert_eq!(code, Some(1), "{output}");
    for (key, line, found) in [
        ("get_url", 4, "ftp://a/"),
        ("max_file_size", 5, "lots"),
        ("http_port", 6, "99999"),
        ("expire_interval", 7, "-5"),
        ("allow_web_clients", 8, "perhaps"),
        ("file_mode", 9, "0999"),
    ] {
        let line = format!("line {line}");
        let is_reported = output
            .lines()
            .any(|output| output.contains(key) && output.contains(&line) && output.contains(found));
        assert!(
            is_reported,
            "{key} with {line} and {found:?}, in:\n{output}"
        );
    }
    // A missing required key; an unknown one with the nearest known.
    assert!(
        output.lines().any(|line| line.contains("put_url")),
        "{output}"
    );
    let unknown = output
        .lines()
        .find(|line| line.contains("whitelst"))
        .unwrap_or_else(|| panic!("{output}"));
    assert!(
        unknown.contains("line 10") && unknown.replace("whitelst", "").contains("whitelist"),
        "{unknown}"
    );
    assert!(!output.contains("do-not-tell"), "{output}");
}

#[test]
fn an_unknown_key_is_a_warning_only() {
    let good =
        "storage_path: DIR/store\nget_url: https://a/\nput_url: https://a/\nwhitelist: a.example\n";
    let (code, output) = check_config(good);
    assert_eq!(code, Some(0), "{output}");
    let (code, output) = check_config(&format!("{good}max_filesize: 5\n"));
    assert_eq!(code, Some(0), "{output}");
    assert!(
        output.contains("max_filesize") && output.contains("max_file_size"),
        "{output}"
    );
}

#[test]
fn files_that_are_not_a_configuration() {
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
        let (code, output) = check_config(text);
        assert_eq!(code, Some(1), "{text:?}: {output}");
        assert!(!output.trim().is_empty(), "{text:?}");
    }
    let dir = TempDir::new();
    let (code, output) = run(&["--check-config", "-c", "absent.yml"], dir.path());
    assert_eq!(code, Some(1));
    assert!(output.contains("absent.yml"), "{output}");
}

#[test]
fn an_incomplete_component_is_an_error() {
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
        let (code, output) = check_config(&format!("{rest}{text}"));
        assert_eq!(code, Some(1), "{text}: {output}");
        assert!(output.contains(part), "{text}: {output}");
    }
}

#[cfg(feature = "s3")]
#[test]
fn an_object_store_needs_no_storage_folder() {
    let rest = "get_url: https://a/\nput_url: https://a/\nwhitelist: a.example\n";
    let store = "s3:\n  endpoint: https://s3.example\n  bucket: uploads\n  access_key: k\n  secret_key: hunter2\n  \
                 ca_file: DIR/ca.pem\n";
    let made = rcgen::generate_simple_self_signed(vec!["s3.example".to_owned()]).unwrap();
    let check = |text: &str| {
        output_of(text, &["--check-config"], |dir| {
            fs::write(dir.join("ca.pem"), made.cert.pem()).unwrap();
        })
    };
    let (code, output) = check(&format!("{rest}slot_secret: 0123456789abcdef\n{store}"));
    assert_eq!(code, Some(0), "{output}");
    line(&output, &["no errors"]);
    let text = format!("{rest}{store}  regoin: x\n").replace("ca.pem", "none.pem");
    let (code, output) = check(&text);
    assert_eq!(code, Some(1), "{output}");
    line(&output, &["error: ", "slot_secret: found nothing, "]);
    line(
        &output,
        &["error: ", "s3.regoin (line 10): found an unknown key"],
    );
    let (code, output) = check(&text.replace("regoin", "region").replace(
        "s3:",
        "slot_secret: 0123456789abcdef\nstorage_path: DIR/store\ns3:",
    ));
    assert_eq!(code, Some(1), "{output}");
    line(&output, &["error: ", "s3.ca_file (line 11): cannot read "]);
    line(
        &output,
        &["warning: ", "storage_path (line 5): is not used"],
    );
    assert!(!output.contains("hunter2"), "{output}");
}

#[test]
fn checking_opens_no_port() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let (code, output) = check_config(&format!(
        "storage_path: DIR/store\nget_url: https://a/\nput_url: https://a/\nwhitelist: a.example\nhttp_port: {port}\n"
    ));
    assert_eq!(code, Some(0), "{output}");
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
    let urls = site.program.listening(3);
    assert_eq!(
        urls.iter()
            .filter(|url| url.starts_with("http://127.0.0.1:"))
            .count(),
        1,
        "{urls:?}"
    );
    assert!(
        urls.contains(&format!("unix:{}", path.display())),
        "{urls:?}"
    );
    for url in &urls {
        let mut client = match url.strip_prefix("http://") {
            Some(address) => Client::connect(address.parse().unwrap()),
            None => Client::unix(&path),
        };
        assert_eq!(client.get(&target).is(200).body, b"hello", "{url}");
        assert_eq!(client.get(&target).is(200).body, b"hello", "{url}");
    }
}

#[test]
fn an_unspecified_address_takes_both_families() {
    let site = Plan::alone().set("http_address", "'::'").start();
    let url = site.program.listening(1).remove(0);
    let port: u16 = url.rsplit(':').next().unwrap().parse().unwrap();
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
fn a_missing_whitelist_is_warned_about() {
    let mut site = Plan::alone().without("whitelist").start();
    site.program.allow("whitelist");
    site.program.wait_line(&["WARN", "whitelist"]);
}

#[test]
fn debug_logs_contain_no_secrets() {
    let mut site = Plan::new().set("log_level", "trace").start();
    let slot = site.slot("romeo@montague.tld", "a.txt", 5, None);
    site.program.hide(slot.put.split_once('?').unwrap().1);
    site.put(&slot, b"hello").is(201);
    site.get(&format!("{}?password=hunter2", slot.get)).is(200);
    site.program.hide("hunter2");
    site.program.wait_line(&["slot granted "]);
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
    // The harness checks the log when the test ends.
}

/// A configuration without an XMPP side, and without other warnings.
const LEAST: &str = "storage_path: DIR/store\nhttp_port: 0\nget_url: https://a.example/\n\
                     put_url: https://a.example/\nwhitelist: [a.example]\n";

/// The exit code and output for a configuration in a new folder that `prepare` has filled.
fn output_of(text: &str, more: &[&str], prepare: impl Fn(&Path)) -> (Option<i32>, String) {
    let dir = TempDir::new();
    fs::create_dir(dir.path().join("store")).unwrap();
    prepare(dir.path());
    let text = text.replace("DIR", &dir.path().display().to_string());
    fs::write(dir.path().join("config.yml"), text).unwrap();
    run(more, dir.path())
}

/// The first line of the output with all these parts.
#[track_caller]
fn line<'a>(output: &'a str, parts: &[&str]) -> &'a str {
    let all = |line: &&str| parts.iter().all(|part| line.contains(part));
    output
        .lines()
        .find(all)
        .unwrap_or_else(|| panic!("no line with {parts:?} in:\n{output}"))
}

#[test]
fn errors_and_warnings_begin_alike() {
    let (code, output) = output_of(
        &format!("{LEAST}max_file_size: lots\nmax_filesize: 5\n"),
        &["--check-config"],
        |_| {},
    );
    assert_eq!(code, Some(1), "{output}");
    assert!(!output.is_empty());
    for line in output.lines() {
        let known = ["error: config.yml: ", "warning: config.yml: "];
        assert!(known.iter().any(|begin| line.starts_with(begin)), "{line}");
    }
    line(&output, &["error: ", "max_file_size (line 6)"]);
    line(&output, &["warning: ", "max_filesize (line 7)"]);
}

#[test]
fn placeholders_in_files_are_errors() {
    for (content, part) in [
        ("change me\n", "an example value"),
        (
            "${UPSLOT_SECRET_FROM_ENV}\n",
            "a placeholder of the form ${NAME}",
        ),
        ("$(upslot_secret_name)", "a placeholder of the form $(name)"),
        (
            "{{ upslot_secret_name }}\r\n",
            "a placeholder of the form {{ name }}",
        ),
    ] {
        for (key, rest) in [
            ("component_secret_file", "component_jid: up.a.example\n"),
            ("slot_secret_file", ""),
        ] {
            let text = format!("{LEAST}{rest}{key}: DIR/secret\n");
            for more in [&["--check-config"][..], &[]] {
                let (code, output) = output_of(&text, more, |dir| {
                    fs::write(dir.join("secret"), content).unwrap();
                });
                assert_eq!(code, Some(1), "{content:?}: {output}");
                let position = format!("{key} (line {}): found {part}", 6 + rest.lines().count());
                line(&output, &[&position, " in /", "/secret, expected"]);
            }
        }
    }
    for (content, part) in [
        (&b"hunter2\nhunter3\n"[..], "more than one line"),
        (b"\xef\xbb\xbfhunter2\n", "a byte order mark"),
        (b"hunter2\0", "a control character"),
        (b"hunter2\xff", "not UTF-8"),
        (b"\n", "found nothing"),
    ] {
        let text =
            format!("{LEAST}component_jid: up.a.example\ncomponent_secret_file: DIR/secret\n");
        let (code, output) = output_of(&text, &["--check-config"], |dir| {
            fs::write(dir.join("secret"), content).unwrap();
        });
        assert_eq!(code, Some(1), "{output}");
        line(
            &output,
            &["error: ", "component_secret_file (line 7): ", part],
        );
        assert!(!output.contains("hunter"), "{output}");
    }
    let text = format!("{LEAST}component_jid: up.a.example\ncomponent_secret_file: DIR/secret\n");
    let (code, output) = output_of(&text, &["--check-config"], |dir| {
        fs::write(dir.join("secret"), "hunter2 \n").unwrap();
    });
    assert_eq!(code, Some(0), "{output}");
    line(
        &output,
        &[
            "warning: ",
            "component_secret_file (line 7): ",
            "ends with a space",
        ],
    );
}

/// systemd credentials exist while the unit runs, and for this unit only.
#[test]
fn credentials_that_do_not_exist_yet_are_warned_about() {
    let folder = format!(
        "/run/credentials/upslot-test-{}.service",
        std::process::id()
    );
    let text = format!(
        "{LEAST}component_jid: up.a.example\ncomponent_secret_file: {folder}/component_secret\n\
         slot_secret_file: {folder}/slot_secret\nhttp_certfile: {folder}/cert\nhttp_keyfile: {folder}/key\n"
    );
    let keys = [
        "component_secret_file",
        "slot_secret_file",
        "http_certfile",
        "http_keyfile",
    ];
    for more in [&["--check-config"][..], &["explain", "romeo@a.example"]] {
        let (code, output) = output_of(&text, more, |_| {});
        assert_eq!(code, Some(0), "{more:?}: {output}");
        for key in keys {
            let position = format!("{key} (line ");
            line(
                &output,
                &[
                    "warning: config.yml: ",
                    &position,
                    &folder,
                    "does not exist yet",
                ],
            );
        }
    }
    let (code, output) = output_of(&text, &[], |_| {});
    assert_eq!(code, Some(1), "{output}");
    for key in &keys {
        line(&output, &["ERROR cannot start", key, "No such file"]);
    }
    line(&output, &["component_secret_file", "LoadCredential="]);
    // A file that is missing elsewhere is an error for all of them.
    let text = text.replace("/run/credentials/", "/run/credentials-of-others/");
    let (code, output) = output_of(&text, &["--check-config"], |_| {});
    assert_eq!(code, Some(1), "{output}");
    for key in keys {
        line(
            &output,
            &["error: ", &format!("{key} (line "), "cannot read"],
        );
    }
}

#[test]
fn swapped_or_mismatched_certificates_and_keys_are_reported() {
    let made = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
    let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let locked = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let foreign = other.signing_key.serialize_pem();
    let text = format!("{LEAST}http_certfile: DIR/cert.pem\nhttp_keyfile: DIR/key.pem\n");
    let certfile = "http_certfile (line 6): ";
    let keyfile = "http_keyfile (line 7): ";
    for (cert, key, expected) in [
        (
            None,
            None,
            &[
                (certfile, "cert.pem: No such file"),
                (keyfile, "key.pem: No such file"),
            ][..],
        ),
        (Some(&cert), None, &[(keyfile, "cannot read ")]),
        (None, Some(&key), &[(certfile, "cannot read ")]),
        (
            Some(&cert),
            Some(&cert),
            &[(keyfile, "found a certificate alone in ")],
        ),
        (
            Some(&key),
            Some(&key),
            &[(certfile, "found a private key alone in ")],
        ),
        (
            Some(&key),
            Some(&cert),
            &[
                (certfile, "a private key alone"),
                (keyfile, "a certificate alone"),
            ],
        ),
        (
            Some(&cert),
            Some(&locked),
            &[(keyfile, "found a key with a passphrase")],
        ),
        (
            Some(&cert),
            Some(&foreign),
            &[(keyfile, "does not match http_certfile")],
        ),
        (
            Some(&cert),
            Some(&String::new()),
            &[(keyfile, "found nothing in ")],
        ),
        (Some(&cert), Some(&key), &[]),
    ] {
        let (code, output) = output_of(&text, &["--check-config"], |dir| {
            for (name, content) in [("cert.pem", cert), ("key.pem", key)] {
                content.inspect(|content| fs::write(dir.join(name), content).unwrap());
            }
        });
        let errors = output.lines().filter(|line| line.starts_with("error: "));
        assert_eq!(errors.count(), expected.len(), "{output}");
        assert_eq!(code, Some(i32::from(!expected.is_empty())), "{output}");
        for (position, part) in expected {
            line(&output, &["error: config.yml: ", position, part]);
        }
    }
}

#[test]
fn all_ports_in_use_are_reported_at_once() {
    let taken = [0; 3].map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let ports = taken
        .each_ref()
        .map(|listener| listener.local_addr().unwrap().port());
    let text = format!(
        "{}http_address: ['127.0.0.1:{}', '127.0.0.1:{}']\napi: {{port: {}}}\n",
        LEAST.replace("http_port: 0\n", ""),
        ports[0],
        ports[1],
        ports[2]
    );
    let (code, output) = output_of(&text, &[], |_| {});
    assert_eq!(code, Some(1), "{output}");
    for (key, port) in ["http_address", "http_address", "api"].iter().zip(ports) {
        let position = format!("{key}: cannot listen on 127.0.0.1:{port}: ");
        let found = line(&output, &["ERROR cannot start", &position]);
        for part in [
            "another program uses the port",
            &format!("sport = :{port} shows"),
            "another port",
        ] {
            assert!(found.contains(part), "{part:?}: {found}");
        }
    }
}

/// Run as another user if root, because root may write everywhere.
#[test]
fn an_unwritable_store_is_warned_about() {
    let dir = TempDir::new();
    let at = |name: &str| dir.path().join(name);
    for name in ["store", "closed"] {
        fs::create_dir(at(name)).unwrap();
        fs::set_permissions(at(name), fs::Permissions::from_mode(0o555)).unwrap();
    }
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(at("file"), "").unwrap();
    // The binary may be in a folder that other users cannot enter.
    copy_program(&at("upslot"));
    let root = rustix::process::geteuid().is_root();
    for (path, part) in [
        ("store", "cannot write to "),
        ("closed/inside", "does not exist, and user "),
        ("file", "is not a folder"),
    ] {
        let text = LEAST.replace("DIR/store", &at(path).display().to_string());
        fs::write(at("config.yml"), text).unwrap();
        let mut command = match root {
            true => std::process::Command::new("setpriv"),
            false => std::process::Command::new("env"),
        };
        if root {
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        }
        let output = command
            .arg(at("upslot"))
            .arg("-c")
            .arg(at("config.yml"))
            .arg("--check-config")
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        // The check may run as another user than the service.
        assert_eq!(output.status.code(), Some(0), "{text}");
        line(&text, &["warning: ", "storage_path (line 1): ", part]);
    }
}

#[test]
fn a_granted_slot_is_logged_with_the_path_of_its_file() {
    let mut site = Plan::new().set("api", "{port: 0}").start();
    let romeo = "romeo@montague.tld";
    let over_xmpp = site.slot(romeo, "très cool.txt", 5, None);
    let over_api = site.api_slot("jid=juliet@capulet.tld&name=b.txt&size=5");
    for (slot, owner) in [(over_xmpp, romeo), (over_api, "juliet@capulet.tld")] {
        let owner = format!("slot granted owner={owner} ");
        let granted = site.program.wait_line(&["INFO ", &owner, " bytes=5 "]);
        assert!(
            !granted.contains('?') && !granted.contains("sig"),
            "{granted}"
        );
        site.put(&slot, b"hello").is(201);
        let path = granted.split(" path=").nth(1).unwrap();
        let path = path.split(" bytes=").next().unwrap();
        let folder = slot.stored_at().parent().unwrap().display().to_string();
        assert!(
            path.trim_matches('"').starts_with(&format!("{folder}/")),
            "{path} {folder}"
        );
        site.program
            .wait_line(&["upload published ", &format!("path={path} ")]);
    }
}

#[test]
fn other_protocols_are_named_in_the_log() {
    let site = Plan::alone().start();
    let hello = [&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 500]].concat();
    let proxied = [
        &b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..],
        &[1; 12],
        b"GET / HTTP/1.1\r\n\r\n",
    ]
    .concat();
    for (bytes, part) in [
        (&hello[..], "the client speaks TLS"),
        (
            b"<?xml version='1.0'?><stream:stream to='a'>",
            "the client speaks XMPP",
        ),
        (
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\n\r\n",
            "The PROXY protocol is not supported",
        ),
        (&proxied, "The PROXY protocol is not supported"),
    ] {
        let mut client = site.client();
        client.send(bytes);
        let reply = client.reply().is(400);
        assert!(reply.text().contains(part), "{}", reply.text());
    }
    for (part, count) in [("speaks TLS", 1), ("speaks XMPP", 1), ("PROXY protocol", 2)] {
        site.program
            .wait_lines(&["INFO ", "request refused status=400", part], count);
    }
}
