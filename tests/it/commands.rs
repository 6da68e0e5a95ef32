//! The command line: `explain`, `help` and `--demo`.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use crate::harness::dir::TempDir;
use crate::harness::program::run;
use crate::harness::site::{ROMEO_FOLDER, seed};
use crate::harness::{Client, Program};

const RULES: &str = "\
user_quota_hard: 1000
access:
  - {jid: '^tybalt@', upload: false}
  - {jid: '@montague\\.tld$', max_file_size: 500, uploads_per_timedelta: {delta: 3600, uploads: 2}}
";

/// Runs `explain` on a store with one new file of 600 bytes, romeo's.
fn explain(words: &[&str]) -> (Option<i32>, String) {
    let dir = TempDir::new();
    let store = dir.path().join("store");
    fs::create_dir(&store).unwrap();
    seed(
        &store,
        &format!("{ROMEO_FOLDER}/Abcdefghijk12/old.jpg"),
        &[0; 600],
    );
    let config = format!(
        "storage_path: {}\nget_url: http://up.test/\nput_url: http://up.test/\n{RULES}",
        store.display()
    );
    fs::write(dir.path().join("config.yml"), config).unwrap();
    run(&[&["explain"], words].concat(), dir.path())
}

/// Checks the output, and that the exit code is 0 only if the slot would be granted.
#[track_caller]
fn check(words: &[&str], parts: &[&str]) {
    let (code, output) = explain(words);
    let expected = if output.contains("would be granted.") {
        0
    } else {
        1
    };
    assert_eq!(code, Some(expected), "{output}");
    for part in parts {
        assert!(output.contains(part), "{part:?} is not in:\n{output}");
    }
}

#[test]
fn explain_shows_rules_limits_and_their_use() {
    check(
        &["romeo@montague.tld", "400", "image/jpeg"],
        &[
            ROMEO_FOLDER,
            "rule 2",
            "user_quota_hard: 600 bytes of 1000 bytes",
            "uploads per 1 h: 1 of 2",
            "A slot for 400 bytes would be granted.",
        ],
    );
    check(
        &["romeo@montague.tld/orchard", "401"],
        &["refused (owner_quota)", "600 bytes of 1000 bytes"],
    );
    check(
        &["romeo@montague.tld", "501"],
        &["refused (too_large)", "at most 500 bytes"],
    );
    check(
        &["romeo@montague.tld", "1 KiB"],
        &["A slot for 1 KiB would be refused"],
    );
    check(
        &["romeo@montague.tld", "10", "MiB", "image/png"],
        &["A slot for 10 MiB would be refused (too_large)"],
    );
    check(
        &["romeo@montague.tld"],
        &["A slot for 1 byte would be granted."],
    );
    check(
        &["tybalt@montague.tld"],
        &["rule 1", "denies", "refused (not_allowed)"],
    );
    check(
        &["juliet@capulet.tld"],
        &["no rule matches", "refused (not_allowed)"],
    );
}

#[test]
fn help_and_suggestions() {
    let dir = TempDir::new();
    for words in [&["help"][..], &["--help"], &["-h"]] {
        let (code, output) = run(words, dir.path());
        assert_eq!(code, Some(0), "{words:?}: {output}");
        for part in [
            "explain JID [SIZE] [TYPE]",
            "--check-config",
            "/etc/upslot/config.yml",
        ] {
            assert!(output.contains(part), "{words:?}, {part:?}: {output}");
        }
    }
    for words in [&["help", "explain"][..], &["explain", "--help"]] {
        let (code, output) = run(words, dir.path());
        assert_eq!(code, Some(0), "{words:?}: {output}");
        assert!(
            output.starts_with("Usage: upslot [-c FILE] explain JID"),
            "{output}"
        );
    }
    for (words, parts) in [
        (
            &["explian", "a@b"][..],
            &["explian", "did you mean explain?"][..],
        ),
        (&["help", "explian"], &["did you mean explain?"]),
        (&["demo"], &["did you mean --demo?"]),
        (&["--chek-config"], &["did you mean --check-config?"]),
        (&["site.yml"], &["-c site.yml"]),
        (&["--nonsense"], &["unknown option --nonsense"]),
        (&["--demo", "--check-config"], &["cannot be combined"]),
    ] {
        let (code, output) = run(words, dir.path());
        assert_eq!(code, Some(2), "{words:?}: {output}");
        assert!(output.starts_with("error: "), "{words:?}: {output}");
        assert!(output.contains("upslot help"), "{words:?}: {output}");
        for part in parts {
            assert!(output.contains(part), "{words:?}, {part:?}: {output}");
        }
    }
}

/// The order and the defaults are compared with the sample in the unit tests.
#[test]
fn help_config_lists_every_key() {
    let dir = TempDir::new();
    let (code, listing) = run(&["help", "config"], dir.path());
    assert_eq!(code, Some(0), "{listing}");
    let sample = include_str!("../../config.yml.sample");
    let keys = sample.lines().filter_map(|line| {
        let (key, _) = line.trim_start_matches('#').split_once(':')?;
        let is_key = key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        (is_key && !key.is_empty()).then_some(key)
    });
    let mut count = 0;
    for key in keys {
        count += 1;
        let found = listing
            .lines()
            .filter(|line| line.starts_with(&format!("  {key} (")));
        assert_eq!(found.count(), 1, "{key}: {listing}");
    }
    assert!(count > 40, "{count} keys in the sample");
    for line in [
        "  http_port (port; default: 8080; needs a restart)",
        "  max_file_size (bytes; default: 20971520)",
        "  api.token (secret; no default)",
    ] {
        assert!(listing.lines().any(|l| l == line), "{line}: {listing}");
    }
    let (code, output) = run(&["help", "config", "more"], dir.path());
    assert_eq!(code, Some(2), "{output}");
}

#[test]
fn explain_refuses_invalid_arguments() {
    for words in [
        &[][..],
        &["a b"],
        &["romeo@montague.tld", "many"],
        &["romeo@montague.tld", "10", "MiBs"],
        &["romeo@montague.tld", "10", "png"],
        &["romeo@montague.tld", "10", "MiB", "image/*"],
        &["a@b", "1", "t/t", "more"],
    ] {
        let (code, output) = explain(words);
        assert_eq!(code, Some(2), "{words:?}: {output}");
    }
    let (_, output) = explain(&["romeo@montague.tld", "10", "png"]);
    assert!(output.contains("such as image/png"), "{output}");
}

#[test]
fn a_missing_configuration_is_reported_with_its_whole_path() {
    let dir = TempDir::new();
    let here = dir.path().canonicalize().unwrap();
    for words in [
        &["-c", "absent.yml"][..],
        &["-c", "absent.yml", "--check-config"],
        &["-c", "absent.yml", "explain", "romeo@montague.tld"],
    ] {
        let (code, output) = run(words, &here);
        assert_eq!(code, Some(1), "{words:?}: {output}");
        let path = here.join("absent.yml").display().to_string();
        assert!(
            output.contains(&path) && output.contains("--demo"),
            "{words:?}: {output}"
        );
        let expected_line = if words.len() > 2 {
            "error: "
        } else {
            "ERROR cannot start why="
        };
        assert!(output.contains(expected_line), "{words:?}: {output}");
    }
    // Without -c, /etc/upslot/config.yml is the fallback.
    let (_, output) = run(&["--check-config"], &here);
    let system = Path::new("/etc/upslot/config.yml");
    let read = match system.exists() {
        true => system.display().to_string(),
        false => here.join("config.yml").display().to_string(),
    };
    assert!(output.contains(&read), "{output}");
    assert!(
        system.exists() || output.contains("/etc/upslot/config.yml"),
        "{output}"
    );
}

#[test]
fn the_demo_accepts_an_upload_and_leaves_nothing() {
    let dir = TempDir::new();
    let mut program = Program::start(&dir.path().join("none.yml"), None, &["--demo"]);
    let listening = program.listening(2);
    let address =
        |url: &str| -> SocketAddr { url.strip_prefix("http://").unwrap().parse().unwrap() };
    let opened = program.wait_line(&["store open", "path="]);
    let store = opened
        .split("path=")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .to_owned();
    let mut api = Client::local(address(&listening[1]));
    let slot = api
        .get("/slot/?jid=romeo@example.org&name=hello.txt&size=6&type=text/plain")
        .is(200);
    let urls: Vec<String> = slot.text().lines().map(str::to_owned).collect();
    let target = |url: &str| url.strip_prefix(&listening[0]).unwrap().to_owned();
    let mut client = Client::connect(address(&listening[0]));
    client
        .ask(
            "PUT",
            &target(&urls[0]),
            &[("Content-Type", "text/plain")],
            b"hello\n",
        )
        .is(201);
    let got = client.get(&target(&urls[1])).is(200);
    assert_eq!(got.text(), "hello\n");
    assert_eq!(got.expect("Content-Type"), "text/plain; charset=utf-8");
    drop((api, client));
    program.signal(rustix::process::Signal::TERM);
    assert_eq!(program.exit_code(), Some(0));
    assert!(
        !std::path::Path::new(&store).exists(),
        "{store} is still there"
    );
}
