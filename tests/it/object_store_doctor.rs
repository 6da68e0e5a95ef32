//! `upslot doctor` and `--check-config --online` with an object store.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::dir::TempDir;
use crate::harness::program::{self, run};
use crate::harness::s3::fault::{Fault, Gate, Stage};
use crate::harness::s3::{Options, S3};
use crate::harness::{Plan, Site, tls};

/// An answer to a preflight request.
const PREFLIGHT: &[u8] =
    b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: 0\r\n\r\n";

const CHECKS: [&str; 12] = [
    "store-list",
    "store-clock",
    "store-put",
    "store-head",
    "store-range",
    "store-conditional",
    "store-url-put",
    "store-url-get",
    "store-anonymous",
    "store-cors",
    "store-delete",
    "store-gone",
];

/// A configuration for the store, without a running upslot.
fn configured(store: &S3, more: &str) -> Plan {
    let plan = store
        .plan(&format!("prefix: chat{more}"))
        .set("allow_web_clients", true);
    plan.write();
    plan
}

/// The exit code and the output of `--check-config --online`.
fn check(dir: &Path) -> (Option<i32>, String) {
    run(&["--check-config", "--online"], dir)
}

/// The line of a check.
#[track_caller]
fn line<'a>(said: &'a str, check: &str) -> &'a str {
    let mut lines = said.lines();
    let found = lines.find(|line| line.split_whitespace().nth(1) == Some(check));
    found.unwrap_or_else(|| panic!("no line about {check}:\n{said}"))
}

#[track_caller]
fn is_good(said: &str) {
    for check in CHECKS {
        assert!(line(said, check).starts_with("ok "), "{check}:\n{said}");
    }
}

#[test]
fn a_good_store_is_good_in_all_modes() {
    let store = S3::new();
    store.fail("OPTIONS", "", 100, Fault::Raw(PREFLIGHT));
    for (more, count) in [("", "12 ok"), (", put: direct", "13 ok")] {
        let plan = configured(&store, more);
        let (code, said) = check(plan.dir());
        assert_eq!(code, Some(0), "{said}");
        is_good(&said);
        assert!(
            said.contains(&format!("No check failed: {count}")),
            "{said}"
        );
        assert_eq!(store.keys(), [""; 0]);
    }
    // An object was stored, below the prefix.
    let put = &store.requests("PUT")[0];
    assert!(put.key.starts_with("chat/"), "{put:?}");
    assert!(!put.key.contains(".upslot"), "{put:?}");
}

#[test]
fn weaknesses_of_a_store_are_notices() {
    let store = S3::new();
    store.change(|engine| {
        engine.conditional = false;
        engine.clock = 100;
    });
    let plan = configured(&store, ", put: direct");
    let (code, said) = check(plan.dir());
    assert_eq!(code, Some(0), "{said}");
    let cors = line(&said, "store-cors");
    let named = "contrib/docs/object-store.md#cors-for-web-clients";
    assert!(
        cors.starts_with("notice ") && cors.contains(named),
        "{said}"
    );
    let conditional = line(&said, "store-conditional");
    assert!(
        conditional.contains("ignores If-None-Match"),
        "{conditional}"
    );
    let clock = line(&said, "store-clock");
    assert!(
        clock.starts_with("notice ") && clock.contains("NTP"),
        "{clock}"
    );
    let plan = configured(&store, ", get: relay");
    let (code, said) = check(plan.dir());
    assert_eq!(code, Some(0), "{said}");
    assert!(line(&said, "store-cors").starts_with("skipped "), "{said}");
    assert_eq!(store.keys(), [""; 0]);
}

#[test]
fn a_store_that_takes_what_was_not_signed_is_noticed() {
    let store = S3::new();
    store.change(|engine| engine.lax = true);
    let plan = configured(&store, ", put: direct");
    let (code, said) = check(plan.dir());
    assert_eq!(code, Some(1), "{said}");
    let size = line(&said, "store-url-put");
    assert!(
        size.starts_with("fail ") && size.contains("one byte more"),
        "{said}"
    );
    let kind = line(&said, "store-url-type");
    assert!(
        kind.starts_with("notice ") && kind.contains("[store-type]"),
        "{said}"
    );
    store.change(|engine| {
        engine.lax = false;
        engine.public = true;
    });
    let (_, said) = check(plan.dir());
    let anonymous = line(&said, "store-anonymous");
    assert!(anonymous.contains("[store-public]"), "{said}");
    assert_eq!(store.keys(), [""; 0]);
}

#[test]
fn an_unknown_authority_is_named() {
    let (own, other) = (TempDir::new(), TempDir::new());
    tls::certify(own.path());
    tls::certify(other.path());
    let store = S3::with(Options {
        tls: Some(tls::server(own.path())),
        ..Options::default()
    });
    for (authority, good) in [(&other, false), (&own, true)] {
        let file = authority.path().join("cert.pem");
        let plan = configured(&store, &format!(", ca_file: '{}'", file.display()));
        let (_, said) = check(plan.dir());
        let list = line(&said, "store-list");
        let named = list.contains("name the root certificate in `ca_file`");
        assert_eq!((list.starts_with("ok "), named), (good, !good), "{said}");
    }
}

/// The test object is deleted after Ctrl-C, too.
#[test]
fn nothing_stays_after_an_interruption() {
    let store = S3::new();
    let plan = configured(&store, "");
    let gate = Gate::new();
    store.fail("HEAD", "", 1, Fault::Hold(Stage::Head, gate.clone()));
    let mut child = program::command()
        .args(["--check-config", "--online"])
        .current_dir(plan.dir())
        .spawn()
        .unwrap();
    gate.wait_arrived(1);
    assert_eq!(store.keys().len(), 1);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(store.keys(), [""; 0]);
    gate.open();
}

#[test]
fn failures_name_what_to_change() {
    let mut store = S3::new();
    let plan = configured(&store, "");
    let error = |code| Fault::Error(403, code);
    let cases = [
        (
            "*",
            error("SignatureDoesNotMatch"),
            "store-list",
            "secret_key",
        ),
        ("*", error("InvalidAccessKeyId"), "store-list", "access_key"),
        (
            "*",
            Fault::Error(404, "NoSuchBucket"),
            "store-list",
            "Create the bucket",
        ),
        (
            "*",
            Fault::Redirect("eu-north-1"),
            "store-list",
            "Set `region`",
        ),
        ("LIST", error("AccessDenied"), "store-list", "right to list"),
        ("PUT", error("AccessDenied"), "store-put", "right to write"),
        ("HEAD", error("AccessDenied"), "store-head", "right to read"),
        ("GET", error("AccessDenied"), "store-range", "right to read"),
    ];
    for (operation, fault, check_name, remedy) in cases {
        store.fail(operation, "", 100, fault);
        let (code, said) = check(plan.dir());
        store.heal();
        assert_eq!(code, Some(1), "{said}");
        let found = line(&said, check_name);
        assert!(
            found.starts_with("fail ") && found.contains(remedy),
            "{remedy}:\n{said}"
        );
        for check in CHECKS {
            line(&said, check);
        }
        // Whatever failed before.
        assert_eq!(store.keys(), [""; 0], "{said}");
    }
    store.fail("DELETE", "", 100, error("AccessDenied"));
    let (code, said) = check(plan.dir());
    store.heal();
    assert_eq!(code, Some(1), "{said}");
    let found = line(&said, "store-delete");
    let [key] = &store.keys()[..] else {
        panic!("{said}");
    };
    assert!(
        found.contains("right to delete") && found.contains(&key[..40]),
        "{said}"
    );
    store.change(|engine| engine.clock = 3600);
    let (code, said) = check(plan.dir());
    assert_eq!(code, Some(1), "{said}");
    let found = line(&said, "store-list");
    assert!(
        found.contains("[store-clock] Remedy: Set the clocks"),
        "{said}"
    );
    store.stop();
    let (code, said) = check(plan.dir());
    assert_eq!(code, Some(1), "{said}");
    let found = line(&said, "store-list");
    assert!(found.contains("[store-unreachable]"), "{said}");
}

#[test]
fn online_needs_check_config_and_a_store() {
    let plan = Plan::alone();
    plan.write();
    let (code, said) = run(&["--online"], plan.dir());
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("--online needs --check-config"), "{said}");
    let (code, said) = check(plan.dir());
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("nothing to check online"), "{said}");
}

/// A site with its files in the store, whose URLs lead to its own listener.
fn site(store: &S3, more: &str) -> (Site, PathBuf) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let url = format!("http://127.0.0.1:{port}/files/");
    let plan = store
        .plan(more)
        .set("http_port", port)
        .set("put_url", &url)
        .set("get_url", &url);
    let config = plan.write();
    (plan.start(), config)
}

#[test]
fn the_whole_way_is_checked_and_nothing_stays() {
    let store = S3::new();
    store.fail("OPTIONS", "", 100, Fault::Raw(PREFLIGHT));
    let uploads = [
        "upload",
        "upload-response",
        "names",
        "upload-size",
        "clean-up",
    ];
    let downloads = ["not-found", "download", "download-cors", "removed-file"];
    let variants = ["download-caching", "head", "range", "not-modified"];
    let all = [&uploads[..], &downloads, &variants].concat();
    // What concerns uploads through upslot.
    let of_upslot = ["upload-response", "upload-size", "request-buffering"];
    let direct: Vec<&str> = all
        .iter()
        .copied()
        .filter(|check| !of_upslot.contains(check))
        .collect();
    let fields = ["download-fields"];
    let public = format!(
        "put: direct, get: public, public_url: 'http://localhost:{}/uploads/'",
        store.address().port()
    );
    for (more, good, skipped) in [
        ("get: redirect", all.clone(), &fields[..]),
        ("get: relay", [&all[..], &fields].concat(), &[]),
        (
            "put: direct",
            direct.clone(),
            &[&of_upslot[..], &fields].concat(),
        ),
        (&*public, direct, &of_upslot),
    ] {
        store.change(|engine| engine.public = more.contains("public"));
        let (mut site, config) = site(&store, more);
        let (code, said) = run(&["-c", config.to_str().unwrap(), "doctor"], Path::new("/"));
        assert_eq!(code, Some(0), "{more}: {said}");
        let checks = CHECKS.iter().filter(|check| **check != "store-cors");
        for check in checks {
            assert!(line(&said, check).starts_with("ok "), "{more}: {said}");
        }
        for check in good {
            assert!(line(&said, check).starts_with("ok "), "{more}: {said}");
        }
        for check in skipped {
            assert!(line(&said, check).starts_with("skipped "), "{more}: {said}");
        }
        // Nothing that keeps deleted files deleted either. The server has found out what the store is able to do.
        let mut keys = store.keys();
        keys.retain(|key| key != ".upslot/conditional");
        assert_eq!(keys, [""; 0], "{more}");
        site.program.signal(Signal::TERM);
    }
}
