//! `explain` and `--demo`: the two commands for people.

use std::fs;
use std::net::SocketAddr;

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

/// Asks a question about a store in which romeo has 600 bytes in one new file.
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

#[track_caller]
fn check(words: &[&str], parts: &[&str]) {
    let (code, said) = explain(words);
    assert_eq!(code, Some(0), "{said}");
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }
}

#[test]
fn explain_says_what_decides_and_how_much_is_used() {
    check(
        &["romeo@montague.tld", "400", "image/jpeg"],
        &[
            ROMEO_FOLDER,
            "rule 2",
            "user_quota_hard: 600 of 1000 bytes",
            "uploads per 3600 s: 1 of 2",
            "A slot for 400 bytes would be granted.",
        ],
    );
    check(
        &["romeo@montague.tld/orchard", "401"],
        &["refused (owner_quota)", "600 of 1000"],
    );
    check(
        &["romeo@montague.tld", "501"],
        &["refused (too_large)", "at most 500 bytes"],
    );
    check(
        &["romeo@montague.tld", "1 KiB"],
        &["A slot for 1024 bytes would be refused"],
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
fn help_and_what_was_meant() {
    let dir = TempDir::new();
    for words in [&["help"][..], &["--help"], &["-h"]] {
        let (code, said) = run(words, dir.path());
        assert_eq!(code, Some(0), "{words:?}: {said}");
        for part in [
            "explain JID [SIZE] [TYPE]",
            "--check-config",
            "/etc/upslot/config.yml",
        ] {
            assert!(said.contains(part), "{words:?}, {part:?}: {said}");
        }
    }
    for words in [&["help", "explain"][..], &["explain", "--help"]] {
        let (code, said) = run(words, dir.path());
        assert_eq!(code, Some(0), "{words:?}: {said}");
        assert!(
            said.starts_with("Usage: upslot [-c FILE] explain JID"),
            "{said}"
        );
    }
    for (words, parts) in [
        (
            &["explian", "a@b"][..],
            &["explian", "explain may be meant"][..],
        ),
        (&["help", "explian"], &["explain may be meant"]),
        (&["demo"], &["--demo may be meant"]),
        (&["--chek-config"], &["--check-config may be meant"]),
        (&["site.yml"], &["-c site.yml"]),
        (&["--nonsense"], &["unknown option --nonsense"]),
        (&["--demo", "--check-config"], &["exclude each other"]),
    ] {
        let (code, said) = run(words, dir.path());
        assert_eq!(code, Some(2), "{words:?}: {said}");
        assert!(said.starts_with("error: "), "{words:?}: {said}");
        assert!(said.contains("upslot help"), "{words:?}: {said}");
        for part in parts {
            assert!(said.contains(part), "{words:?}, {part:?}: {said}");
        }
    }
}

#[test]
fn explain_takes_no_nonsense() {
    for words in [
        &[][..],
        &["a b"],
        &["romeo@montague.tld", "many"],
        &["a@b", "1", "t/t", "more"],
    ] {
        let (code, said) = explain(words);
        assert_eq!(code, Some(2), "{words:?}: {said}");
    }
    let dir = TempDir::new();
    assert_eq!(
        run(&["explain", "romeo@montague.tld"], dir.path()).0,
        Some(1),
        "no configuration"
    );
}

#[test]
fn the_demonstration_takes_an_upload_and_leaves_nothing() {
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
    assert_eq!(got.expect("Content-Type"), "text/plain");
    drop((api, client));
    program.signal(rustix::process::Signal::TERM);
    assert_eq!(program.exit_code(), Some(0));
    assert!(
        !std::path::Path::new(&store).exists(),
        "{store} is still there"
    );
}
