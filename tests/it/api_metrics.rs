//! `/health` and `/metrics` of the local API.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use rustix::fs::IFlags;
use rustix::process::Signal;

use crate::harness::files::{age, seed};
use crate::harness::local_api::{check, with_api};
use crate::harness::site::ROMEO_FOLDER;
use crate::harness::{Plan, Site, eventually, request};

const ROMEO: &str = "jid=romeo%40montague.tld";

#[test]
fn health() {
    let site = with_api().start();
    check(&site, "/health", 200, "link none\nstore good\n");
    drop(site);
    let site = with_api().set("min_free_space", 1_u64 << 60).start();
    check(&site, "/health", 503, "link none\nstore full\n");
    drop(site);
    let mut site = Plan::new().set("api", "{port: 0}").start();
    check(&site, "/health", 200, "link up\nstore good\n");
    site.link().close();
    site.program.wait_line(&["link down "]);
    check(&site, "/health", 503, "link down\nstore good\n");
    site.relink();
    eventually("the link", || site.ask_api("/health").status == 200);
    let metrics = metrics(&site);
    assert_eq!(metrics["upslot_link_reconnects_total"], 1.0);
    assert_eq!(metrics["upslot_link_up"], 1.0);
}

/// Every sample of the page, checked against the rules of the exposition format.
#[track_caller]
fn metrics(site: &Site) -> HashMap<String, f64> {
    let reply = site.ask_api("/metrics").is(200);
    assert_eq!(
        reply.expect("Content-Type"),
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let text = reply.text();
    assert!(text.ends_with('\n'));
    let mut samples = HashMap::new();
    let mut kinds: HashMap<&str, &str> = HashMap::new();
    let is_name = |name: &str| {
        name.starts_with("upslot_")
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').unwrap();
            assert!(is_name(name) && !words.is_empty(), "{line}");
            continue;
        }
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(
                is_name(name) && matches!(kind, "counter" | "gauge"),
                "{line}"
            );
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(kinds.insert(name, kind).is_none(), "{name} twice");
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap();
        let value: f64 = value.parse().unwrap();
        assert!(value.is_finite() && value >= 0.0, "{line}");
        let name = sample.split('{').next().unwrap();
        assert!(kinds.contains_key(name), "no type for {line}");
        if let Some(labels) = sample
            .strip_prefix(name)
            .filter(|labels| !labels.is_empty())
        {
            let labels = labels.strip_prefix('{').unwrap().strip_suffix('}').unwrap();
            for label in labels.split(',') {
                let (name, text) = label.split_once("=\"").unwrap();
                assert!(name.bytes().all(|b| b.is_ascii_lowercase()), "{line}");
                assert!(
                    text.ends_with('"') && !text[..text.len() - 1].contains('"'),
                    "{line}"
                );
            }
        }
        assert!(
            samples.insert(sample.to_owned(), value).is_none(),
            "{sample} twice"
        );
    }
    samples
}

#[test]
fn counters_increase() {
    let site = with_api().set("max_file_size", 1000).start();
    let before = metrics(&site);
    let slot = site.api_slot(&format!("{ROMEO}&name=a&size=5"));
    site.ask_api(&format!("/slot/?{ROMEO}&name=a&size=1001"))
        .is(413);
    site.ask_api("/slot/?jid=tybalt@evil.tld&name=a&size=5")
        .is(403);
    site.put(&slot, b"hello").is(201);
    site.put(&slot, b"hello").is(409);
    site.client().ask("PUT", "/files/a/b", &[], b"").is(403);
    site.get(&slot.get).is(200);
    let moved = [
        ("upslot_slots_total{outcome=\"granted\"}", 1.0),
        ("upslot_slots_total{outcome=\"refused\"}", 2.0),
        ("upslot_slot_refusals_total{reason=\"too_large\"}", 1.0),
        ("upslot_slot_refusals_total{reason=\"not_allowed\"}", 1.0),
        ("upslot_uploads_total{outcome=\"published\"}", 1.0),
        ("upslot_uploads_total{outcome=\"refused\"}", 2.0),
        ("upslot_upload_bytes_total", 5.0),
        (
            "upslot_upload_refusals_total{reason=\"used\",status=\"409\"}",
            1.0,
        ),
        (
            "upslot_upload_refusals_total{reason=\"unsigned\",status=\"403\"}",
            1.0,
        ),
        ("upslot_downloads_total", 1.0),
        ("upslot_download_bytes_total", 5.0),
    ];
    // A download counts once it is complete or aborted.
    eventually("the download", || {
        metrics(&site)["upslot_downloads_total"] > 0.0
    });
    let after = metrics(&site);
    for (name, by) in moved {
        let difference = after[name] - before.get(name).copied().unwrap_or(0.0);
        assert!((difference - by).abs() < 0.1, "{name}: {difference}");
    }
    for name in [
        "upslot_connections",
        "upslot_connections_limit",
        "upslot_connections_accepted_total",
        "upslot_sweeps_total",
        "upslot_free_bytes",
        "upslot_resident_memory_bytes",
        "upslot_uptime_seconds",
    ] {
        assert!(after.contains_key(name), "no {name}");
    }
    assert!(after["upslot_resident_memory_bytes"] > 100_000.0);
}

#[test]
fn pipelined_downloads_are_counted() {
    let site = with_api().start();
    let slot = site.api_slot(&format!("{ROMEO}&name=a&size=5"));
    site.put(&slot, b"hello").is(201);
    let before = metrics(&site);
    let mut client = site.client();
    client.send(&request("GET", &slot.get, &[], b"").repeat(3));
    for _ in 0..3 {
        client.reply_to("GET").is(200);
    }
    let counted = || {
        let after = metrics(&site);
        let difference = |name: &str| after[name] - before[name];
        (
            difference("upslot_downloads_total"),
            difference("upslot_download_bytes_total"),
        )
    };
    eventually("three downloads", || counted() == (3.0, 15.0));
}

#[test]
fn failed_reloads_are_shown() {
    let mut site = with_api().start();
    let reloaded = |site: &Site| metrics(site)["upslot_config_last_reload_successful"];
    assert_eq!(reloaded(&site), 1.0);
    site.program.allow("config not reloaded");
    site.rewrite("max_file_size", "a lot");
    site.program.signal(Signal::HUP);
    site.program.wait_line(&["config not reloaded"]);
    assert_eq!(reloaded(&site), 0.0);
    site.rewrite("max_file_size", 1000);
    site.program.signal(Signal::HUP);
    site.program.wait_line(&["config reloaded"]);
    assert_eq!(reloaded(&site), 1.0);
}

/// An expired file whose folder allows no changes, or that is immutable, because root may change any folder.
#[test]
fn failed_sweeps_are_counted() {
    let plan = with_api()
        .set("expire_interval", 1)
        .set("expire_maxage", 1000);
    let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/a.txt");
    let file = seed(&plan.store(), &path, b"hello");
    age(&file, 2000);
    let folder = file.parent().unwrap();
    let protect = |on: bool| -> bool {
        if !rustix::process::geteuid().is_root() {
            let mode = if on { 0o555 } else { 0o755 };
            return fs::set_permissions(folder, fs::Permissions::from_mode(mode)).is_ok();
        }
        let opened = fs::File::open(&file).unwrap();
        let flags = rustix::fs::ioctl_getflags(&opened).unwrap_or(IFlags::empty());
        let flags = if on {
            flags | IFlags::IMMUTABLE
        } else {
            flags - IFlags::IMMUTABLE
        };
        rustix::fs::ioctl_setflags(&opened, flags).is_ok()
    };
    if !protect(true) {
        eprintln!("NOT TESTED: the file system has no immutable files");
        return;
    }
    let mut site = plan.start();
    site.program.allow("file not removed");
    site.program.wait_lines(&["sweep done ", "removed=0"], 2);
    let failures = metrics(&site)["upslot_sweep_failures_total"];
    assert!(protect(false));
    assert!(failures >= 2.0, "{failures}");
    site.program.wait_line(&["sweep done ", "removed=1"]);
    let settled = metrics(&site)["upslot_sweep_failures_total"];
    site.program.wait_lines(&["sweep done ", "files=0"], 1);
    assert_eq!(metrics(&site)["upslot_sweep_failures_total"], settled);
}
