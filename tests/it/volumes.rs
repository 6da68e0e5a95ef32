//! The store on a volume of a container platform, and a store of another user.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::harness::dir::TempDir;
use crate::harness::program::{copy_program, value_of};
use crate::harness::site::minimal_config;
use crate::harness::{Client, Program, request};

/// A folder that every user can enter, with a copy of the program; `None`, with a message, if not root.
fn open_to_all() -> Option<(TempDir, PathBuf)> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT TESTED: only root can become other users");
        return None;
    }
    let dir = TempDir::new();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let binary = dir.path().join("upslot");
    copy_program(&binary);
    Some((dir, binary))
}

/// A storage folder like a volume of a container platform.
fn volume(path: &Path, owner: u32, group: u32, mode: u32) {
    fs::create_dir(path).unwrap();
    chown(path, Some(owner), Some(group)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn start_as(binary: &Path, config: &Path, user: u32, group: u32) -> Program {
    let mut command = Command::new("sh");
    // Container engines use umask 022, some images a stricter one.
    command.args(["-c", "umask 077; exec \"$@\"", "sh"]);
    command
        .arg(binary)
        .arg("-c")
        .arg(config)
        .uid(user)
        .gid(group);
    Program::spawn(command)
}

/// Uploads a file through the local API.
#[track_caller]
fn upload(program: &Program, name: &str) {
    let at = |part: &str| {
        let line = program.wait_line(&["listening ", part]);
        let address = value_of(&line, "on").unwrap();
        address.strip_prefix("http://").unwrap().parse().unwrap()
    };
    let api = at("for=api");
    let public = at("on=http");
    let query = format!("/slot/?jid=romeo@montague.tld&name={name}&size=5");
    let reply = Client::local(api).get(&query).is(200);
    let put = reply.text().lines().next().unwrap();
    let target = put.strip_prefix("https://upload.localhost").unwrap();
    let mut client = Client::connect(public);
    client.send(&request(
        "PUT",
        target,
        &[("Content-Length", "5")],
        b"hello",
    ));
    client.reply().is(201);
}

#[test]
fn a_group_0_volume_serves_the_next_user() {
    let Some((dir, binary)) = open_to_all() else {
        return;
    };
    let config = minimal_config(
        dir.path(),
        "http_port: 0\napi: {port: 0}\nmax_file_size: 10\nuser_quota_hard: 12\nevict_on_quota: true\n",
    );
    let store = dir.path().join("store");
    volume(&store, 0, 0, 0o770);
    let mut secrets = Vec::new();
    for (user, name) in [
        (1_000_640_000, "a.txt"),
        (1_000_650_000, "b.txt"),
        (1_000_660_000, "c.txt"),
    ] {
        let mut program = start_as(&binary, &config, user, 0);
        program.allow("component_jid: is absent");
        program.wait_line(&["ready "]);
        // From the third on, a file of another user is evicted, which writes a tombstone.
        upload(&program, name);
        program.signal(Signal::TERM);
        assert_eq!(program.exit_code(), Some(0));
        secrets.push(fs::read(store.join(".upslot/slot_secret")).unwrap());
    }
    assert!(
        secrets.windows(2).all(|pair| pair[0] == pair[1]),
        "slots were not kept"
    );
    let mut files = 0;
    let mut folders = vec![store];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let facts = entry.metadata().unwrap();
            let mode = facts.mode() & 0o777;
            assert_eq!(facts.gid(), 0, "{entry:?}");
            assert_eq!(mode >> 6 & 7, mode >> 3 & 7, "{entry:?} has mode {mode:o}");
            assert_eq!(mode & 7, 0, "{entry:?} has mode {mode:o}");
            match facts.is_dir() {
                true => folders.push(entry.path()),
                false => files += 1,
            }
        }
    }
    // Two uploads are left, besides the secret and a tombstone.
    assert!(files >= 4, "{files} files");
}

#[test]
fn a_new_folder_in_a_group_0_volume_is_shared() {
    let Some((dir, binary)) = open_to_all() else {
        return;
    };
    volume(&dir.path().join("data"), 0, 0, 0o770);
    let config = minimal_config(dir.path(), "http_port: 0\napi: {port: 0}\n");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("/store\n", "/data/in/it\n")).unwrap();
    for (user, name) in [(1_000_640_000, "a.txt"), (1_000_650_000, "b.txt")] {
        let mut program = start_as(&binary, &config, user, 0);
        program.allow("component_jid: is absent");
        program.wait_line(&["ready "]);
        upload(&program, name);
    }
}

/// In other stores, new files stay private.
#[test]
fn other_stores_stay_private() {
    let Some((dir, binary)) = open_to_all() else {
        return;
    };
    let config = minimal_config(dir.path(), "http_port: 0\napi: {port: 0}\n");
    let store = dir.path().join("store");
    for (user, group, folder_group, mode) in [
        (4000, 4000, 4000, 0o770),
        (4000, 4000, 0, 0o777),
        (4000, 0, 0, 0o757),
    ] {
        volume(&store, 4000, folder_group, mode);
        let mut program = start_as(&binary, &config, user, group);
        program.allow("component_jid: is absent");
        program.wait_line(&["ready "]);
        upload(&program, "a.txt");
        drop(program);
        let mode = |path: &str| fs::metadata(store.join(path)).unwrap().mode() & 0o777;
        assert_eq!(mode(".upslot"), 0o700);
        assert_eq!(mode(".upslot/slot_secret"), 0o600);
        assert_eq!(mode(crate::harness::site::ROMEO_FOLDER), 0o750);
        fs::remove_dir_all(&store).unwrap();
    }
}

#[test]
fn a_store_of_another_user_is_reported() {
    let Some((dir, binary)) = open_to_all() else {
        return;
    };
    let config = minimal_config(dir.path(), "http_port: 0\n");
    let store = dir.path().join("store");
    volume(&store, 0, 0, 0o770);
    fs::create_dir(store.join(".upslot")).unwrap();
    fs::write(store.join(".upslot/slot_secret"), [7; 32]).unwrap();
    chown(store.join(".upslot"), Some(4001), Some(0)).unwrap();
    fs::set_permissions(store.join(".upslot"), fs::Permissions::from_mode(0o770)).unwrap();
    chown(store.join(".upslot/slot_secret"), Some(4001), Some(0)).unwrap();
    fs::set_permissions(
        store.join(".upslot/slot_secret"),
        fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    let mut program = start_as(&binary, &config, 4002, 0);
    program.allow("component_jid: is absent");
    program.allow("cannot start");
    let line = program.wait_line(&["cannot start", "slot_secret", "Permission denied"]);
    assert!(line.contains("chmod -R g=u"), "{line}");
    assert_eq!(program.exit_code(), Some(1));
}
