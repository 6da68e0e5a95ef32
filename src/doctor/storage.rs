//! The storage folder: rights, space, features of the file system; and the key that signs slots.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use crate::config::{Config, SecretKey};
use crate::doctor::judge::{Problem, Verdict, finding};
use crate::doctor::report::Finding;
use crate::layout::INTERNAL;
use crate::setup::Setup;
use crate::store::{Naming, Store, open};
use crate::sys;
use crate::units;

/// The storage folder as this user can access it.
#[derive(Debug)]
pub struct Storage {
    pub store: Option<Store>,
    /// Whether test files can be removed.
    pub writable: bool,
    /// Its owner, as whom upslot presumably runs.
    pub user: Option<u32>,
}

/// Checks the folder.
pub fn check(config: &Config) -> (Vec<Finding>, Storage) {
    let path = &config.storage_path;
    let shown = path.display();
    let mut storage = Storage {
        store: None,
        writable: false,
        user: None,
    };
    let root = match sys::open_root(path) {
        Ok(root) => root,
        Err(error) => {
            let remedy = match error.kind() {
                io::ErrorKind::NotFound => "start upslot, which creates it, and check storage_path",
                _ => "run upslot doctor as the superuser or as the user of upslot",
            };
            let text = format!("storage_path {shown}: {error}");
            return (
                vec![Finding::fail("storage", "storage-missing", text, remedy)],
                storage,
            );
        }
    };
    storage.user = sys::owner_of(&root).ok().map(|owner| owner.0);
    storage.writable = sys::not_writable(path).is_none();
    let mut findings = vec![finding("storage", rights(path, &root, &storage))];
    findings.push(finding("storage-space", space(config, &root)));
    match Store::open_beside(path, storage.writable) {
        Ok(store) => storage.store = store,
        Err(_) => storage.writable = false,
    }
    findings.push(match (&mut storage.store, storage.writable) {
        (Some(store), true) => finding("storage-features", features(store)),
        _ => Finding::skipped("storage-features", no_access(&storage)),
    });
    (findings, storage)
}

/// Why something in the folder cannot be accessed.
pub fn no_access(storage: &Storage) -> String {
    let owner = storage
        .user
        .map_or(String::new(), |user| format!(" or as user {user}"));
    format!(
        "user {} may not write to storage_path; run upslot doctor as the superuser{owner}",
        sys::user()
    )
}

/// Whether all of upslot's own files belong to one user.
fn rights(path: &Path, root: impl AsFd, storage: &Storage) -> Verdict {
    let shown = path.display();
    let owner = storage.user.unwrap_or_default();
    let internal = sys::open_folder_below(root.as_fd(), INTERNAL.as_bytes());
    let secret = internal
        .as_ref()
        .ok()
        .and_then(|internal| sys::open_below(internal.as_fd(), Store::SLOT_SECRET.as_bytes()).ok());
    let owner_of = |fd: Option<&std::os::fd::OwnedFd>| fd.and_then(|fd| sys::owner_of(fd).ok());
    let found = [
        (".upslot", owner_of(internal.as_ref().ok())),
        (".upslot/slot_secret", owner_of(secret.as_ref())),
    ];
    for (name, other) in found {
        // In a store for changing users of one group, owners differ.
        if let Some((other, _)) =
            other.filter(|other| other.0 != owner && !sys::is_shared_by_group(root.as_fd()))
        {
            let text = format!("{shown} belongs to user {owner}, but {name} in it to user {other}");
            let remedy = format!("chown -R {owner} {shown}");
            return Err(Problem::new("storage-owner", text, remedy));
        }
    }
    let user = sys::user();
    match storage.writable || user == 0 {
        true => Ok(format!(
            "{shown} belongs to user {owner} and is writable for user {user}"
        )),
        false => Ok(format!(
            "{shown} belongs to user {owner}; user {user} cannot write to it"
        )),
    }
}

fn space(config: &Config, root: impl AsFd) -> Verdict {
    let space = sys::space(root).map_err(|error| {
        Problem::new(
            "storage-space",
            format!("free space is unknown: {error}"),
            "check the file system",
        )
    })?;
    let needed = config.min_free_space.saturating_add(config.max_file_size);
    let free = units::size(space.bytes);
    if let Some(inodes) = space.inodes.filter(|inodes| *inodes < space.least_inodes) {
        let text = format!("{inodes} inodes are free");
        return Err(Problem::new(
            "storage-inodes",
            text,
            "remove small files, or create the file system with more inodes",
        ));
    }
    match space.bytes < needed {
        true => {
            let text = format!(
                "{free} are free, and a file of max_file_size needs {} with min_free_space",
                units::size(needed)
            );
            Err(Problem::new(
                "storage-space",
                text,
                "free space on the disk of storage_path",
            ))
        }
        false => Ok(format!("{free} are free")),
    }
}

/// What the file system can do; each is tried.
fn features(store: &mut Store) -> Verdict {
    let failed = |what: &str, error: io::Error| {
        let remedy = "check the mount options, quotas and rights of storage_path";
        Problem::new("storage-write", format!("{what}: {error}"), remedy)
    };
    let naming = store.probe_naming();
    let naming =
        naming.map_err(|error| failed("a test file cannot be created and named", error))?;
    let attributes = open::has_attributes(store);
    let attributes = attributes.map_err(|error| failed("a test file cannot be created", error))?;
    let text = naming.text();
    if !attributes {
        let text = format!("{text}, but no extended attributes");
        let remedy = "mount with user_xattr, or put storage_path on ext4, xfs or btrfs; without them the name of a file decides its type";
        return Err(Problem::new("storage-no-attributes", text, remedy).minor());
    }
    match naming != Naming::Temporary {
        true => Ok(format!("{text}, hard links, extended attributes")),
        false => {
            let text = format!("{text}, because the file system has no unnamed files");
            let remedy = "nothing must be changed; ext4, xfs, btrfs and tmpfs have them";
            Err(Problem::new("storage-temporary-names", text, remedy).minor())
        }
    }
}

/// The key with which the running upslot signs slots, or why it is not known.
pub fn slot_secret(setup: &Setup, storage: &Storage) -> Result<SecretKey, String> {
    if let Some(secret) = &setup.slot_secret {
        return Ok(secret.clone());
    }
    if setup.config.slot_secret_file.is_some() {
        return Err(
            "slot_secret_file cannot be read by this user; systemd provides it to the unit alone"
                .to_owned(),
        );
    }
    let stored = match &storage.store {
        Some(store) => store.slot_secret(),
        None => return Err(no_access(storage)),
    };
    match stored {
        Ok(Some(secret)) => Ok(SecretKey::new(secret)),
        Ok(None) => Err(
            "there is no .upslot/slot_secret yet; upslot creates it at its first start".to_owned(),
        ),
        Err(error) => Err(format!(
            "cannot read .upslot/slot_secret: {error}; {}",
            no_access(storage)
        )),
    }
}
