//! Symlinks, pipes and devices planted in the store.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, thread};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use crate::harness::files::{age, seed};
use crate::harness::raw::{Asker, CANARY, contains, every_integration, snapshot};
use crate::harness::signing::{DELETE_SECRET, delete_query, put_query};
use crate::harness::site::{JULIET, ROMEO, ROMEO_FOLDER};
use crate::harness::wait::long;
use crate::harness::{Plan, Site, Slot, eventually};

fn plant_node(at: &Path, kind: FileType, device: u64) -> bool {
    mknodat(CWD, at, kind, Mode::from_raw_mode(0o666), device).is_ok()
}

/// Plants links, pipes and devices: in the folder of a slot, and in place of folders. False if devices need root.
fn plant(store: &Path, folder: &Path, outside: &Path) -> bool {
    for (target, name) in [
        (outside.join("secret.txt"), "out.txt"),
        (PathBuf::from("real.txt"), "beside.txt"),
        (PathBuf::from("nowhere"), "broken.txt"),
        (PathBuf::from("loop.txt"), "loop.txt"),
        (PathBuf::from("/proc/self/environ"), "environ.txt"),
        (PathBuf::from("/proc/self/fd/0"), "magic.txt"),
        (store.join(".upslot/slot_secret"), "key.txt"),
        (PathBuf::from("/dev/zero"), "zero.txt"),
    ] {
        symlink(target, folder.join(name)).unwrap();
    }
    for (target, at) in [
        (outside.to_owned(), store.join("Linkedowner")),
        (store.join(".upslot"), store.join("Linkedsecret")),
        (PathBuf::from("."), store.join("Linkedself")),
        (PathBuf::from("/proc/self/cwd"), store.join("Linkedmagic")),
        (
            outside.join("x"),
            store.join(ROMEO_FOLDER).join("Linkedrandom"),
        ),
        (
            folder.to_owned(),
            store.join(ROMEO_FOLDER).join("Linkedinside"),
        ),
    ] {
        symlink(target, at).unwrap();
    }
    assert!(plant_node(&folder.join("pipe.txt"), FileType::Fifo, 0));
    assert!(plant_node(
        &store.join(ROMEO_FOLDER).join("Pipe"),
        FileType::Fifo,
        0
    ));
    assert!(plant_node(&store.join("Pipeowner"), FileType::Fifo, 0));
    // Only root can create devices.
    let devices = plant_node(
        &folder.join("device.txt"),
        FileType::CharacterDevice,
        makedev(1, 5),
    );
    if !devices {
        eprintln!("NOT TESTED: devices, which need root");
    }
    devices
}

/// The paths of all that was planted and of files behind it.
fn planted_paths(below: &str, devices: bool) -> Vec<String> {
    let mut paths: Vec<String> = [
        "out", "beside", "broken", "loop", "environ", "magic", "key", "zero", "pipe", "sock",
        "folder",
    ]
    .iter()
    .map(|name| format!("{below}/{name}.txt"))
    .collect();
    for path in [
        "Linkedowner/secret.txt",
        "Linkedowner/x/secret.txt",
        "Linkedsecret/slot_secret",
        "Linkedmagic/etc/passwd",
        "Pipeowner/x.txt",
    ] {
        paths.push(path.to_owned());
    }
    paths.push(format!("Linkedself/{below}/real.txt"));
    paths.push(format!("{ROMEO_FOLDER}/Linkedrandom/secret.txt"));
    paths.push(format!("{ROMEO_FOLDER}/Linkedinside/real.txt"));
    paths.push(format!("{ROMEO_FOLDER}/Pipe/x.txt"));
    paths.push(format!("Linkedowner/{ROMEO_FOLDER}/x/old.txt"));
    if devices {
        paths.push(format!("{below}/device.txt"));
    }
    paths
}

/// PUTs in slots of the component whose path is obstructed.
fn check_obstructed_slots(site: &mut Site, outside: &Path, before: &BTreeMap<PathBuf, String>) {
    for kind in ["link", "dangling link", "pipe", "folder", "hard link"] {
        let slot = site.slot(ROMEO, "a.txt", 5, None);
        let file = site.store().join(slot.stored_at());
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        match kind {
            "link" => symlink(outside.join("secret.txt"), &file).unwrap(),
            "dangling link" => symlink(outside.join("new.txt"), &file).unwrap(),
            "pipe" => assert!(plant_node(&file, FileType::Fifo, 0)),
            "folder" => fs::create_dir(&file).unwrap(),
            _ => fs::hard_link(outside.join("secret.txt"), &file).unwrap(),
        }
        site.put(&slot, b"owned").is(409);
        assert_eq!(&snapshot(outside), before, "{kind}");
    }
    for level in 1..=2 {
        let owner = format!("level{level}@montague.tld");
        let slot = site.slot(&owner, "a.txt", 5, None);
        let at = slot.stored_at().iter().take(level).collect::<PathBuf>();
        let at = site.store().join(at);
        if level == 2 {
            fs::create_dir(at.parent().unwrap()).unwrap();
        }
        symlink(outside, &at).unwrap();
        let status = site.put(&slot, b"owned").status;
        assert!(matches!(status, 409 | 503), "level {level}: {status}");
        assert_eq!(&snapshot(outside), before, "level {level}");
        fs::remove_file(&at).unwrap();
        site.put(&slot, b"hello").is(201);
    }
}

/// Symlinks of every kind at every level: nothing is read, written, counted or deleted through them, and nothing hangs.
#[test]
fn planted_links_pipes_and_devices() {
    let outside_name = format!("outside/{ROMEO_FOLDER}/x/old.txt");
    let plan = every_integration()
        .set("expire_interval", 1)
        .set("expire_maxage", 1000)
        .set("max_file_size", 100_000)
        .set("user_quota_hard", 100_000);
    let store = plan.store();
    let outside = plan.dir().join("outside");
    for path in ["secret.txt", "x/secret.txt"] {
        age(&seed(&outside, path, CANARY), 5000);
    }
    age(&seed(plan.dir(), &outside_name, CANARY), 5000);
    // Planted before the start, so that counting and sweeping find them.
    let folder = store.join(ROMEO_FOLDER).join("Abcdefghijk12");
    age(&seed(&folder, "expired.txt", b"hello"), 5000);
    seed(&folder, "real.txt", b"hello");
    let devices = plant(&store, &folder, &outside);
    let listener = std::os::unix::net::UnixListener::bind(folder.join("sock.txt")).unwrap();
    seed(&folder, "folder.txt/x", b"x");
    let hard = seed(&outside, "hard.txt", CANARY);
    fs::hard_link(&hard, folder.join("hard.txt")).unwrap();

    let before = snapshot(&outside);
    let mut site = plan.start();
    site.program.allow("external_delete_secret");
    eventually("the sweep", || !folder.join("expired.txt").exists());
    let below = format!("{ROMEO_FOLDER}/Abcdefghijk12");
    let paths = planted_paths(&below, devices);
    let in_store = |site: &Site| {
        let mut all = snapshot(&site.store());
        all.retain(|path, _| !path.starts_with(".upslot/tombstones"));
        all
    };
    site.program.allow("owner folder cannot be used");
    let planted = in_store(&site);
    let mut asker = Asker::new(&site);
    for path in &paths {
        for method in ["GET", "HEAD"] {
            let (status, body) = asker.ask(method, format!("/files/{path}").as_bytes(), b"");
            assert_eq!(status, 404, "{method} {path}");
            assert!(!contains(&body, CANARY), "{path}");
        }
        let target = format!("/files/{path}?{}", put_query("v", path, 5, ""));
        let (status, _) = asker.ask("PUT", target.as_bytes(), b"owned");
        assert!(matches!(status, 409 | 503), "PUT {path}: {status}");
        // Only regular files can be deleted.
        let target = format!("/files/{path}?{}", delete_query(path, DELETE_SECRET));
        let (status, _) = asker.ask("DELETE", target.as_bytes(), b"");
        assert!(matches!(status, 404 | 503), "DELETE {path}: {status}");
        assert_eq!(snapshot(&outside), before, "{path}");
    }
    // Nothing is created through a linked folder.
    for path in [
        "Linkedowner/new/a.txt",
        "Linkedsecret/a.txt",
        "Linkedmagic/tmp/a.txt",
    ] {
        let target = format!("/files/{path}?{}", put_query("v", path, 5, ""));
        let (status, _) = asker.ask("PUT", target.as_bytes(), b"owned");
        assert!(matches!(status, 409 | 503), "PUT {path}: {status}");
    }
    assert_eq!(snapshot(&outside), before);
    assert_eq!(in_store(&site), planted);
    // A hard link is a file like any other: served, never written, and only its name is deleted.
    let hard = format!("{below}/hard.txt");
    assert_eq!(site.get(&format!("/files/{hard}")).is(200).body, CANARY);
    let target = format!("/files/{hard}?{}", put_query("v", &hard, 5, ""));
    assert_eq!(asker.ask("PUT", target.as_bytes(), b"owned").0, 409);
    let target = format!("/files/{hard}?{}", delete_query(&hard, DELETE_SECRET));
    assert_eq!(asker.ask("DELETE", target.as_bytes(), b"").0, 204);
    assert!(!folder.join("hard.txt").exists());
    assert_eq!(snapshot(&outside), before);

    check_obstructed_slots(&mut site, &outside, &before);
    drop(listener);
    let slot = site.slot(ROMEO, "still.txt", 5, None);
    site.put(&slot, b"hello").is(201);
}

/// The storage folder itself may be a symlink, and is followed when it is redirected.
#[test]
fn the_storage_folder_may_be_a_symlink() {
    let plan = Plan::new();
    let (link, one, two) = (
        plan.dir().join("link"),
        plan.dir().join("one"),
        plan.dir().join("two"),
    );
    for folder in [&one, &two] {
        fs::create_dir(folder).unwrap();
    }
    symlink(&one, &link).unwrap();
    let mut site = plan.set("storage_path", link.display()).start();
    let slot = site.slot(ROMEO, "a.txt", 5, None);
    site.put(&slot, b"hello").is(201);
    assert!(one.join(slot.stored_at()).is_file());
    site.program.allow("storage folder replaced");
    fs::remove_file(&link).unwrap();
    symlink(&two, &link).unwrap();
    eventually("the other folder", || {
        let slot = site.slot(ROMEO, "b.txt", 5, None);
        site.put(&slot, b"hello").is(201);
        two.join(slot.stored_at()).is_file()
    });
    // The program's own folder may not.
    let plan = Plan::alone();
    let elsewhere = plan.dir().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, plan.store().join(".upslot")).unwrap();
    let config = plan.dir().join("config.yml");
    fs::write(
        &config,
        format!(
            "storage_path: {}\nhttp_port: 0\nget_url: https://a/\nput_url: https://a/\n",
            plan.store().display()
        ),
    )
    .unwrap();
    let (code, said) = crate::harness::program::run(&["-c", config.to_str().unwrap()], plan.dir());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(".upslot"), "{said}");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
}

/// Sets the flag when dropped, so that a waiting thread ends even if the test fails.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Another process with write access keeps replacing the folder of an upload with a symlink while the upload is published.
#[test]
fn a_symlink_planted_during_publication() {
    for fsync in [false, true] {
        let mut site = Plan::new().set("fsync", fsync).start();
        site.program.allow("store failed");
        let outside = site.dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let slots: Vec<Slot> = (0..if long() { 2000 } else { 150 })
            .map(|_| site.slot(ROMEO, "a.txt", 5, None))
            .collect();
        let contested = Mutex::new(None::<PathBuf>);
        let over = AtomicBool::new(false);
        fs::create_dir_all(site.store().join(ROMEO_FOLDER)).unwrap();
        let mut stored = 0;
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let Some(folder) = contested.lock().unwrap().clone() else {
                        thread::yield_now();
                        continue;
                    };
                    for _ in 0..50 {
                        let _ = fs::remove_dir(&folder);
                        if symlink(&outside, &folder).is_ok() {
                            let _ = fs::remove_file(&folder);
                        }
                    }
                }
            });
            let _end = SetOnDrop(&over);
            for slot in &slots {
                let folder = site.store().join(slot.stored_at());
                *contested.lock().unwrap() = Some(folder.parent().unwrap().to_owned());
                let status = site.put(slot, b"hello").status;
                assert!(matches!(status, 201 | 409 | 503), "{status}");
                stored += usize::from(status == 201);
            }
        });
        assert_eq!(
            fs::read_dir(&outside).unwrap().count(),
            0,
            "{stored} stored"
        );
    }
}

/// It is logged once, and the client gets a 503 with `Retry-After`, not a 409.
#[test]
fn owner_folder_replaced_by_a_file_or_symlink() {
    for kind in ["file", "link"] {
        let mut site = Plan::new()
            .set("user_quota_hard", 1000)
            .set("max_file_size", 1000)
            .start();
        let place = site.store().join(ROMEO_FOLDER);
        let outside = site.dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        match kind {
            "file" => fs::write(&place, b"mine").unwrap(),
            _ => std::os::unix::fs::symlink(&outside, &place).unwrap(),
        }
        site.program.allow("owner folder cannot be used");
        for _ in 0..3 {
            let slot = site.slot(ROMEO, "a.bin", 5, None);
            let reply = site.put(&slot, b"hello").is(503);
            assert!(reply.field("Retry-After").is_some(), "{reply:?}");
        }
        let line = site.program.wait_line(&["owner folder cannot be used"]);
        assert!(
            line.contains(place.to_str().unwrap()) && line.contains(kind),
            "{line}"
        );
        let said = |line: &String| line.contains("WARN") || line.contains("ERROR");
        let lines: Vec<String> = site.program.lines().into_iter().filter(said).collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        site.fill(JULIET, 5);
        fs::remove_file(&place).unwrap();
        site.fill(ROMEO, 5);
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }
}
