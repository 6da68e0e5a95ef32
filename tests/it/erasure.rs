//! The commands `list` and `remove`, with and without a running program, and files that are deleted by hand.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::harness::files::{age, seed};
use crate::harness::http::request;
use crate::harness::program::run;
use crate::harness::signing::{Claims, KEY, put_query};
use crate::harness::site::{JULIET, ROMEO, ROMEO_FOLDER, assert_no_room, owner_folder};
use crate::harness::{PATIENCE, Plan, Site, eventually, unix_now};

/// Runs a command with the site's configuration; its output.
#[track_caller]
fn command(site: &Site, words: &[&str], code: i32) -> String {
    command_in(site.dir.path(), words, code)
}

#[track_caller]
fn command_in(dir: &Path, words: &[&str], code: i32) -> String {
    let (ended, said) = run(words, dir);
    assert_eq!(ended, Some(code), "{words:?}: {said}");
    said
}

/// The target of a signed PUT, which never expires.
fn signed(path: &str, size: usize) -> String {
    format!("/files/{path}?{}", put_query("v", path, size, ""))
}

fn url(target: &str) -> String {
    format!("https://upload.localhost{target}")
}

#[test]
fn list_shows_expiry_and_link() {
    let plan = Plan::alone()
        .set("expire_interval", 3600)
        .set("expire_maxage", 86_400)
        .set("purposes", "{permanent: {}}")
        .seed(
            &format!("{ROMEO_FOLDER}/0123456789abc/old ü.txt"),
            &[0; 3000],
        )
        .seed(&format!("{ROMEO_FOLDER}/0123456789abd"), &[0; 10])
        .seed(
            &format!("{ROMEO_FOLDER}/Abcdefghijklmnopqrst~k/kept.bin"),
            &vec![0; 10 << 20],
        )
        .seed(
            &format!("{}/0123456789abc/j.txt", owner_folder(JULIET)),
            &[0; 5],
        );
    let store = plan.store();
    for (file, seconds) in [
        ("0123456789abc/old ü.txt", 3000),
        ("0123456789abd", 1000),
        ("Abcdefghijklmnopqrst~k/kept.bin", 2000),
    ] {
        age(&store.join(ROMEO_FOLDER).join(file), seconds);
    }
    let site = plan.start();
    for owner in [ROMEO, "Romeo@Montague.tld/orchard", ROMEO_FOLDER] {
        let said = command(&site, &["list", owner], 0);
        let lines: Vec<Vec<&str>> = said
            .lines()
            .map(|line| {
                line.split("  ")
                    .filter(|part| !part.is_empty())
                    .map(str::trim)
                    .collect()
            })
            .collect();
        assert_eq!(lines.len(), 4, "{said}");
        let links: Vec<&str> = lines[..3].iter().map(|line| line[4]).collect();
        let base = url(&format!("/files/{ROMEO_FOLDER}"));
        assert_eq!(
            links,
            [
                format!("{base}/0123456789abc/old%20%C3%BC.txt"),
                format!("{base}/Abcdefghijklmnopqrst~k/kept.bin"),
                format!("{base}/0123456789abd"),
            ]
        );
        assert_eq!(&lines[0][1..3], ["2.9 KiB", "message"]);
        assert_eq!(&lines[1][1..4], ["10.0 MiB", "permanent", "never"]);
        assert_eq!(&lines[2][1..3], ["10 B", "message"]);
        for line in &lines[..3] {
            assert_eq!(line[0].len(), "2026-11-21T22:49:55Z".len(), "{said}");
        }
        // Stored and expiring one day apart.
        assert_eq!(lines[0][0][11..], lines[0][3][11..], "{said}");
        assert_ne!(lines[0][0], lines[0][3]);
        assert!(lines[3][0].starts_with("3 files of "), "{said}");
        assert!(lines[3][0].ends_with(", 10.0 MiB."), "{said}");
        // Each link works.
        for link in links {
            site.get(link.strip_prefix("https://upload.localhost").unwrap())
                .is(200);
        }
    }
    let said = command(&site, &["list", "--all"], 0);
    let lines: Vec<&str> = said.lines().map(str::trim).collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert!(
        lines[0].starts_with("10.0 MiB") && lines[0].ends_with(ROMEO_FOLDER),
        "{said}"
    );
    assert!(lines[0].contains(" 3 files "), "{said}");
    assert!(
        lines[1].starts_with("5 B") && lines[1].ends_with(&owner_folder(JULIET)),
        "{said}"
    );
    assert_eq!(lines[2], "4 files of 2 owners, 10.0 MiB.");
    let said = command(&site, &["list", "absent@montague.tld"], 0);
    assert_eq!(said, "Nothing is stored of absent@montague.tld.\n");
    for words in [
        &["list"][..],
        &["list", "a b"],
        &["list", ROMEO, "--all"],
        &["list", ROMEO, JULIET],
        &["list", ROMEO, "--dry-run"],
        &["remove"],
        &["remove", "a b"],
        &["remove", ROMEO, JULIET],
        &["remove", ROMEO, "--all"],
    ] {
        command(&site, words, 2);
    }
    assert_eq!(site.files().len(), 4);
}

/// Quotas, open files and slots, immediately and after a restart.
#[test]
fn removal_takes_effect_at_once() {
    for key in ["user_quota_hard", "global_quota"] {
        let mut site = Plan::new()
            .set(key, 1000)
            .set("max_file_size", 1000)
            .set(
                "access",
                "[{jid: '.', uploads_per_timedelta: {delta: 3600, uploads: 4}}]",
            )
            .start();
        let old = site.fill(ROMEO, 300);
        let used = site.fill(ROMEO, 300);
        let open = site.slot(ROMEO, "open.bin", 400, None);
        let other = site.fill(JULIET, 100);
        // Cached as an open file, because it is requested often.
        let mut client = site.client();
        for _ in 0..3 {
            client.get(&used.get).is(200);
        }
        assert_no_room(&mut site, ROMEO, 901);
        let said = command(&site, &["remove", ROMEO], 0);
        assert!(
            said.contains("Removed 2 files of romeo@montague.tld, 600 B."),
            "{said}"
        );
        let removed = said.matches("file removed owner=").count();
        assert_eq!(removed, 2, "{said}");
        assert!(said.contains("why=command"), "{said}");
        client.get(&used.get).is(404);
        client.get(&old.get).is(404);
        client.get(&other.get).is(200);
        let fresh = site.slot(ROMEO, "new.bin", 890, None);
        // Used and unused slots are void.
        site.put(&used, &[b'x'; 300]).is(403);
        site.put(&open, &[b'x'; 400]).is(403);
        assert_eq!(site.files().len(), 1);
        site.put(&fresh, &[b'y'; 890]).is(201);
        site.program.wait_line(&[
            "files removed elsewhere",
            ROMEO_FOLDER,
            "files=2",
            "bytes=600",
        ]);
        site.program.wait_line(&["slots revoked", ROMEO_FOLDER]);
        let second = site.fill(ROMEO, 1).get;
        site.restart();
        site.program.allow("api.");
        site.put(&open, &[b'x'; 400]).is(403);
        site.put(&used, &[b'x'; 300]).is(403);
        site.get(&fresh.get).is(200);
        site.get(&second).is(200);
    }
}

#[test]
fn one_file_is_removed_by_any_of_its_urls() {
    let mut site = Plan::new()
        .set("user_quota_hard", 1000)
        .set("max_file_size", 1000)
        .start();
    let kept = site.fill(ROMEO, 100);
    for spelling in ["get", "put", "stripped", "upper", "fragment", "port", "raw"] {
        let slot = site.fill(ROMEO, 900);
        let given = match spelling {
            "get" => url(&slot.get),
            "put" => url(&slot.put),
            "stripped" => url(slot.get.strip_prefix("/files").unwrap()),
            "upper" => url(&slot.get).replace("https://upload", "HTTPS://UPLOAD"),
            "fragment" => url(&slot.get).replace("https", "aesgcm") + "#0123",
            "port" => url(&slot.get).replace("localhost/", "localhost:443/"),
            _ => url(&slot.get).replace("%20", " "),
        };
        let said = command(&site, &["remove", &given, "--dry-run"], 0);
        assert!(
            said.contains("1 file would be removed, 900 B."),
            "{spelling}: {said}"
        );
        assert!(said.contains(&url(&slot.get)), "{spelling}: {said}");
        site.get(&slot.get).is(200);
        let said = command(&site, &["remove", &given], 0);
        assert!(said.contains("Removed "), "{spelling}: {said}");
        site.get(&slot.get).is(404);
        site.put(&slot, &[b'x'; 900]).is(409);
        let said = command(&site, &["remove", &given], 0);
        assert!(said.contains("Nothing is stored of "), "{spelling}: {said}");
        assert_eq!(site.files().len(), 1, "{spelling}");
    }
    // The owner's other slots stay valid.
    let open = site.slot(ROMEO, "open.bin", 900, None);
    command(&site, &["remove", &url(&kept.get)], 0);
    site.put(&open, &[b'x'; 900]).is(201);
    for given in [
        "https://upload.example.org/files/a/b/c",
        "ftp://upload.localhost/files/a/b/c",
        "https://upload.localhost.evil.tld/files/a/b/c",
        "https://upload.localhost:444/files/a/b/c",
        "https://upload.localhost/",
        "https://upload.localhost/files/.upslot/slot_secret",
        "https://upload.localhost/files/a/../b/c",
        "https://upload.localhost",
    ] {
        let said = command(&site, &["remove", given], 1);
        assert!(
            said.contains("error: ") && said.contains("not a URL"),
            "{given}: {said}"
        );
    }
    assert_eq!(site.files().len(), 1);
}

/// Signatures that never expire, and tokens.
#[test]
fn signed_links_do_not_restore_removed_files() {
    let mut site = Plan::new()
        .set("external_secret", format!("\"{KEY}\""))
        .set("file_share_secret", format!("\"{KEY}\""))
        .set("fsync", false)
        .start();
    site.program.hide(KEY);
    let path = format!("{ROMEO_FOLDER}/random/a.txt");
    site.put_at(&signed(&path, 5), &[], b"hello").is(201);
    site.put_at(&signed("elsewhere/a.txt", 5), &[], b"hello")
        .is(201);
    let issued = unix_now() - 5;
    let bearer = |slot: &str, issued: u64| Claims::new(slot).with_raw("iat", issued).bearer();
    let (used, open) = (bearer("used", issued), bearer("open", issued));
    site.put_at("/files/used/a.txt", &[("Authorization", &used)], b"hello")
        .is(201);
    site.get("/files/used/a.txt").is(200);
    let said = command(&site, &["remove", ROMEO], 0);
    assert!(said.contains("Removed 2 files"), "{said}");
    for _ in 0..2 {
        site.get("/files/used/a.txt").is(404);
        site.put_at(&signed(&path, 5), &[], b"hello").is(409);
        site.put_at("/files/used/a.txt", &[("Authorization", &used)], b"hello")
            .is(403);
        site.put_at("/files/open/a.txt", &[("Authorization", &open)], b"hello")
            .is(403);
        assert_eq!(site.files(), ["elsewhere/a.txt"]);
        // No alias names the owner any more.
        for entry in fs::read_dir(site.store().join(".upslot/share")).unwrap() {
            let target = fs::read_link(entry.unwrap().path()).unwrap();
            assert!(
                !target.to_str().unwrap().contains(ROMEO_FOLDER),
                "{target:?}"
            );
        }
        site.restart();
    }
    // A later token is valid, and its file can be removed by its shared link.
    let late = bearer("late", unix_now() + 2);
    site.put_at("/files/late/a.txt", &[("Authorization", &late)], b"hello")
        .is(201);
    command(&site, &["remove", &url("/files/late/other.txt")], 0);
    site.get("/files/late/a.txt").is(404);
    site.put_at("/files/late/a.txt", &[("Authorization", &late)], b"hello")
        .is(409);
    command(&site, &["remove", &url("/files/elsewhere/a.txt")], 0);
    site.put_at(&signed("elsewhere/a.txt", 5), &[], b"hello")
        .is(409);
    assert!(site.files().is_empty());
}

#[test]
fn a_running_upload_is_not_stored() {
    for fsync in [true, false] {
        let mut site = Plan::new().set("fsync", fsync).start();
        let slot = site.slot(ROMEO, "a.bin", 10, None);
        let other = site.slot(JULIET, "a.bin", 10, None);
        let mut clients = [&slot, &other].map(|slot| {
            let mut client = site.client();
            let asks = [("Expect", "100-continue"), ("Content-Length", "10")];
            client.send(&request("PUT", &slot.put, &asks, b""));
            client.reply_head().is(100);
            client.send(b"hello");
            client
        });
        let said = command(&site, &["remove", ROMEO], 0);
        assert!(said.contains("Nothing is stored of"), "{said}");
        for (client, status) in clients.iter_mut().zip([403, 201]) {
            client.send(b"world");
            client.reply().is(status);
        }
        site.get(&slot.get).is(404);
        assert_eq!(site.files().len(), 1);
        // The next slot is valid.
        site.fill(ROMEO, 10);
    }
}

#[test]
fn removal_without_a_running_program() {
    let mut site = Plan::new()
        .set("external_secret", format!("\"{KEY}\""))
        .start();
    site.program.hide(KEY);
    let used = site.fill(ROMEO, 5);
    let open = site.slot(ROMEO, "open.bin", 5, None);
    site.put_at(&signed("elsewhere/a.txt", 5), &[], b"hello")
        .is(201);
    site.program.kill();
    command(&site, &["remove", ROMEO, "--dry-run"], 0);
    assert_eq!(site.files().len(), 2);
    command(&site, &["remove", ROMEO], 0);
    command(&site, &["remove", &url("/files/elsewhere/a.txt")], 0);
    assert!(site.entries().is_empty(), "{:?}", site.entries());
    site.link = None;
    site.start_again();
    site.put(&used, b"hello").is(403);
    site.put(&open, b"hello").is(403);
    site.put_at(&signed("elsewhere/a.txt", 5), &[], b"hello")
        .is(409);
    site.fill(ROMEO, 5);
    // A store that was never opened.
    let dir = crate::harness::dir::TempDir::new();
    let store = dir.path().join("store");
    let config = format!(
        "storage_path: {}\nget_url: https://upload.localhost/files/\nput_url: https://upload.localhost/files/\n",
        store.display()
    );
    fs::write(dir.path().join("config.yml"), config).unwrap();
    for words in [&["list", ROMEO][..], &["list", "--all"], &["remove", ROMEO]] {
        let said = command_in(dir.path(), words, 0);
        assert!(said.contains("Nothing is stored"), "{said}");
    }
    assert!(!store.exists());
    seed(
        &store,
        &format!("{ROMEO_FOLDER}/0123456789abc/old.txt"),
        b"old",
    );
    command_in(dir.path(), &["remove", ROMEO, "--dry-run"], 0);
    command_in(dir.path(), &["list", ROMEO], 0);
    assert!(!store.join(".upslot").exists(), "a dry run changes nothing");
    command_in(dir.path(), &["remove", ROMEO], 0);
    assert!(!store.join(ROMEO_FOLDER).exists());
}

/// Files that are not uploads stay, and are reported.
#[test]
fn foreign_files_are_left_alone() {
    let mut site = Plan::new().start();
    site.fill(ROMEO, 5);
    let folder = site.store().join(ROMEO_FOLDER);
    fs::write(folder.join(".hidden"), b"mine").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", folder.join("link")).unwrap();
    let said = command(&site, &["remove", ROMEO], 0);
    assert!(
        said.contains("Removed 1 file ") && said.contains("is still there"),
        "{said}"
    );
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
}

/// Of files that are requested all the time, none is served after `remove` has reported its removal, and one that is
/// removed or replaced by hand is served as it was for a second at most.
#[test]
fn files_in_demand_are_removed_at_once() {
    let names: Vec<String> = (0..100).map(|n| format!("{n}.bin")).collect();
    let mut plan = Plan::alone();
    for owner in [ROMEO, JULIET] {
        for name in &names {
            plan = plan.seed(&format!("{}/r/{name}", owner_folder(owner)), b"old");
        }
    }
    let site = plan.start();
    let targets = |owner: &str| -> Vec<String> {
        let folder = owner_folder(owner);
        let target = |name| format!("/files/{folder}/r/{name}");
        names.iter().map(target).collect()
    };
    let (romeo, juliet) = (targets(ROMEO), targets(JULIET));
    let removed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = site.client();
            let end = Instant::now() + PATIENCE;
            while !removed.load(Ordering::Relaxed) && Instant::now() < end {
                for target in romeo.iter().chain(&juliet) {
                    client.get(target);
                }
            }
        });
        let files = format!("/proc/{}/fd", site.program.pid());
        eventually("the files are open", || {
            fs::read_dir(&files).is_ok_and(|files| files.count() > 150)
        });
        let mut client = site.client();
        command(&site, &["remove", ROMEO], 0);
        for target in &romeo {
            client.get(target).is(404);
        }
        let folder = site.store().join(owner_folder(JULIET)).join("r");
        fs::remove_file(folder.join(&names[0])).unwrap();
        fs::write(folder.join("new"), "new").unwrap();
        fs::rename(folder.join("new"), folder.join(&names[1])).unwrap();
        std::thread::sleep(Duration::from_millis(1100));
        client.get(&juliet[0]).is(404);
        assert_eq!(client.get(&juliet[1]).is(200).body, b"new");
        removed.store(true, Ordering::Relaxed);
    });
    let files = format!("/proc/{}/fd", site.program.pid());
    eventually("the files are closed", || {
        fs::read_dir(&files).is_ok_and(|files| files.count() < 50)
    });
}

/// The next sweep corrects the sums, a reload does so at once, and a used slot stays used.
#[test]
fn manual_removal_is_noticed() {
    for (key, interval) in [
        ("user_quota_hard", 1),
        ("global_quota", 1),
        ("user_quota_hard", 0),
        ("global_quota", 0),
    ] {
        let mut plan = Plan::new().set(key, 1000).set("max_file_size", 1000);
        if interval > 0 {
            plan = plan
                .set("expire_interval", interval)
                .set("expire_maxage", 86_400);
        }
        let mut site = plan.start();
        let slot = site.fill(ROMEO, 600);
        site.fill(JULIET, 100);
        assert_no_room(&mut site, ROMEO, 901);
        fs::remove_dir_all(site.store().join(ROMEO_FOLDER)).unwrap();
        if interval == 0 {
            site.program.signal(rustix::process::Signal::HUP);
            site.program.wait_line(&["config reloaded"]);
        }
        eventually("the quota free again", || {
            site.ask(ROMEO, "b.bin", 900, None, "").is_ok()
        });
        site.put(&slot, &[b'x'; 600]).is(409);
        assert_eq!(site.files().len(), 1);
    }
}

/// The journal is truncated when it is a day old, and then read from its beginning.
#[test]
fn the_journal_is_truncated() {
    let mut site = Plan::new()
        .set("user_quota_hard", 1000)
        .set("max_file_size", 1000)
        .start();
    let journal = site.store().join(".upslot/removals");
    let mut sizes = Vec::new();
    for _ in 0..4 {
        let slot = site.fill(ROMEO, 900);
        command(&site, &["remove", ROMEO], 0);
        site.get(&slot.get).is(404);
        site.put(&slot, &[b'x'; 900]).is(403);
        sizes.push(fs::metadata(&journal).unwrap().len());
        age(&journal, 90_000);
    }
    assert!(sizes.iter().all(|size| *size == sizes[0]), "{sizes:?}");
    site.program.wait_lines(&["slots revoked"], 4);
    // Unknown or torn records do no harm.
    for nonsense in [
        &b"nonsense\n"[..],
        b"1 other x 0 0\n",
        &[0xff; 5000],
        b"\n\n1 revo",
    ] {
        let mut old = fs::read(&journal).unwrap_or_default();
        old.extend_from_slice(nonsense);
        fs::write(&journal, old).unwrap();
        let slot = site.fill(ROMEO, 900);
        command(&site, &["remove", ROMEO], 0);
        site.put(&slot, &[b'x'; 900]).is(403);
        site.fill(ROMEO, 900);
        command(&site, &["remove", ROMEO], 0);
    }
    site.restart();
    site.fill(ROMEO, 900);
}
