//! Checks after each restart.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use ring::digest::{SHA256, digest};

use super::{Deletion, Dice, HARD, Item, Kind, SOFT, TOLERANCE, Wire, World, one_more};
use crate::harness::{Site, eventually, request};

/// Checks everything that must hold after a restart.
pub fn check(site: &Site, world: &World, dice: &mut Dice, round: u64, all: bool) {
    let store = site.store();
    let mut items = world.items.lock().unwrap();
    let mut wire = Wire::open(site.http).unwrap();
    for item in items.iter_mut() {
        let recent = item.round + 1 >= round;
        if !all && !recent && dice.below(10) > 0 {
            continue;
        }
        let (missing, served) = (item.must_be_missing(), item.must_be_served());
        let (status, body) = wire.ask("GET", &item.get).unwrap();
        match status {
            200 => assert!(
                body == item.body(&world.pool),
                "{} bytes: {item:?}",
                body.len()
            ),
            404 => {}
            _ => panic!("{status}: {item:?}"),
        }
        assert!(status == 404 || !missing, "restored: {item:?}");
        assert!(
            status == 200 || !served || !item.must_be_served(),
            "lost: {item:?}"
        );
        if status == 404 && item.stored.is_some() && !item.deleted {
            item.deleted = true;
            let seen = &world.seen;
            one_more(match (item.until, item.evictable) {
                (Some(_), _) => &seen.ephemeral,
                (None, true) => &seen.evicted,
                (None, false) => &seen.expired,
            });
        }
        let removed =
            item.deletion == Deletion::Done || (item.deleted && item.kind == Kind::External);
        if removed {
            assert!(has_tombstone(&store, &item.path), "no tombstone: {item:?}");
        }
        if item.stored.is_none() && recent && !item.evictable && item.until.is_none() {
            // Aborted or not answered: the file is either complete or can be uploaded. A published file without its alias
            // gets one.
            let was_there = store.join(&item.path).exists();
            assert!(was_there || status == 404, "served from nowhere: {item:?}");
            one_more(&world.seen.unanswered);
            let fields: Vec<_> = item.token.iter().map(|t| ("Authorization", &**t)).collect();
            let put = request("PUT", &item.put, &fields, item.body(&world.pool));
            // A refusal may close its connection.
            let mut other = Wire::open(site.http).unwrap();
            other.stream.write_all(&put).unwrap();
            let (again, text) = other.reply().unwrap();
            let expected = if was_there { 409 } else { 201 };
            assert_eq!(
                again,
                expected,
                "{:?}: {item:?}",
                String::from_utf8_lossy(&text)
            );
            let (status, body) = wire.ask("GET", &item.get).unwrap();
            assert!(
                status == 200 && body == item.body(&world.pool),
                "{status}: {item:?}"
            );
            item.stored = Some(Instant::now());
        }
    }
    check_tree(&store, world, &items);
    check_evictions(&store, &items, world);
    // A sweep may be running.
    eventually("sums that match the tree", || {
        let before = tree(&store).0;
        let sums = (
            metric(site, "upslot_stored_files"),
            metric(site, "upslot_stored_bytes"),
        );
        let (files, bytes) = (before.len() as u64, before.values().sum());
        sums == (Some(files), Some(bytes)) || {
            let changed = tree(&store).0 != before || sums.0.is_none();
            assert!(changed, "{sums:?}, not {files} and {bytes}");
            false
        }
    });
}

/// Files and empty folders below the storage folder, without the program's own.
pub fn tree(store: &Path) -> (HashMap<String, u64>, Vec<String>) {
    let (mut files, mut empty) = (HashMap::new(), Vec::new());
    let mut folders = vec![store.to_owned()];
    while let Some(folder) = folders.pop() {
        let mut entries = 0;
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let below = path.strip_prefix(store).unwrap().to_str().unwrap();
            if below == ".upslot" {
                continue;
            }
            entries += 1;
            match entry.metadata() {
                Ok(facts) if facts.is_dir() => folders.push(path),
                Ok(facts) => {
                    files.insert(below.to_owned(), facts.len());
                }
                Err(_) => {}
            }
        }
        if entries == 0 && folder != store {
            empty.push(
                folder
                    .strip_prefix(store)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned(),
            );
        }
    }
    (files, empty)
}

fn metric(site: &Site, name: &str) -> Option<u64> {
    let page = site.ask_api("/metrics").is(200);
    let line = page
        .text()
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|number| number.parse().ok())
}

fn has_tombstone(store: &Path, path: &str) -> bool {
    let digest = digest(&SHA256, path.as_bytes());
    let shard = store.join(format!(".upslot/tombstones/{:02x}", digest.as_ref()[0]));
    let tombstones = fs::read(shard).unwrap_or_default();
    tombstones
        .chunks_exact(16)
        .any(|tombstone| tombstone == &digest.as_ref()[1..17])
}

/// Every file belongs to an item and is complete; there are no other files.
fn check_tree(store: &Path, world: &World, items: &[Item]) {
    let by_path: HashMap<&str, &Item> = items.iter().map(|i| (i.path.as_str(), i)).collect();
    let (files, empty) = tree(store);
    for (path, size) in &files {
        let item = by_path
            .get(path.as_str())
            .unwrap_or_else(|| panic!("unknown file: {path}"));
        assert_eq!(*size, item.size as u64, "partial: {item:?}");
        // The sweep may delete it at any time.
        if let Ok(content) = fs::read(store.join(path)) {
            assert!(content == item.body(&world.pool), "other bytes: {item:?}");
        }
    }
    // A folder may have been created for a file that was not published.
    for folder in &empty {
        let waits = |item: &&Item| item.path.starts_with(&format!("{folder}/"));
        assert!(
            items.iter().any(|item| waits(&item)),
            "unexpected folder: {folder}"
        );
    }
    let aliases: HashSet<String> = items
        .iter()
        .filter(|item| item.kind == Kind::Shared)
        .map(|item| item.path.split(['/', '~']).nth(1).unwrap().to_owned())
        .collect();
    for entry in fs::read_dir(store.join(".upslot")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        for inner in fs::read_dir(entry.path()).into_iter().flatten() {
            let inner = inner.unwrap();
            let file = inner.file_name().into_string().unwrap();
            match name.as_str() {
                "share" => {
                    assert!(aliases.contains(&file), "unexpected alias: {file}");
                    let target = fs::read_link(inner.path()).unwrap();
                    assert!(by_path.contains_key(target.to_str().unwrap()), "{target:?}");
                }
                "tombstones" => {
                    let size = inner.metadata().unwrap().len();
                    assert!(file.len() == 2 && size % 16 == 0, "{file}: {size}");
                }
                _ => {}
            }
        }
        let own = ["slot_secret", "share", "tombstones", "clock"];
        assert!(own.contains(&name.as_str()), "left over: .upslot/{name}");
    }
}

/// Owners above their quota lose the oldest files, and only as many as necessary.
fn check_evictions(store: &Path, items: &[Item], world: &World) {
    let asked = world.requested.lock().unwrap();
    for (owner, asked) in asked.iter() {
        let files: Vec<&Item> = items
            .iter()
            .filter(|item| item.evictable && item.owner == *owner)
            .collect();
        let (left, evicted): (Vec<&Item>, Vec<&Item>) = files
            .iter()
            .partition(|item| store.join(&item.path).exists());
        let stored: u64 = left.iter().map(|item| item.size as u64).sum();
        assert!(stored <= HARD, "{owner} has {stored} bytes");
        let evicted: Vec<&&Item> = evicted
            .iter()
            .filter(|item| item.stored.is_some())
            .collect();
        assert!(
            evicted.is_empty() || *asked > SOFT,
            "evicted without need: {evicted:?}"
        );
        let oldest_left = left.iter().filter_map(|item| item.stored).min();
        let newest_evicted = evicted.iter().max_by_key(|item| item.begun);
        if let (Some(left), Some(evicted)) = (oldest_left, newest_evicted) {
            assert!(
                evicted.begun < left + TOLERANCE,
                "evicted before older ones: {evicted:?}"
            );
        }
    }
}
