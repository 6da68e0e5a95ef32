//! `upslot remove`: deletes all files of an owner, or one file, so that no upload link brings them back.
//!
//! It works on the store itself, whether upslot runs or not; what a running one has to know goes through the store's
//! journal, see [`crate::store::journal`]. Everything is on stable storage before the command says that it is done:
//!
//! ```text
//!   note ──▶ record paths ──▶ note ──▶ sync ──▶ unlink ──▶ note ──▶ sync
//!            └───────────────── for every portion of files ───────────┘
//! ```
//!
//! The note between record and removal is for a running upslot that is just giving an upload its name: it has either
//! read this note before it looked for records, which are there, or finds it when it looks for notes afterwards.
//!
//! The first note makes every slot void that was issued to the owner until then, so that what is under way is not
//! stored either; that holds for our own slots and for tokens of Prosody's file share, which tell their time. A path
//! that a signature without a time may be for is recorded, and so is that of our own slots which may be good still: so
//! whatever is removed cannot be stored again, whenever the command is killed. A path that cannot be recorded because the
//! disk is full is recorded at the end, when there is room.
//!
//! The superuser leaves nothing behind that the user of a running upslot cannot read; see `Store::open_own`.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::{Duration, SystemTime};

use crate::config::Config;
use crate::layout::StorePath;
use crate::list::{self, Lines, Owner};
use crate::service::{DownloadRequest, Service};
use crate::slot::revoked::REMEMBERED;
use crate::store::Store;
use crate::store::journal::{Note, What};
use crate::store::removal::{Batch, TombstonePolicy, Victim};
use crate::sys;

/// Files whose paths are recorded and synced together.
const PORTION: usize = 256;

/// How often an owner's folder is looked through, until nothing is found: an entry may be missed while others are
/// removed, and slots that are issued after the command has begun are good.
const PASSES: u32 = 16;

/// Paths that are remembered because they could not be recorded.
const MAX_LATE: usize = 65_536;

/// What is to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Owner(Owner),
    Url(String),
}

impl Target {
    /// Takes an address, the name of an owner folder, or a URL.
    pub fn parse(word: &str) -> Option<Target> {
        match word.contains("://") {
            true => Some(Target::Url(word.to_owned())),
            false => Owner::parse(word).map(Target::Owner),
        }
    }
}

/// What was removed so far, and what could not be.
#[derive(Debug, Default)]
struct Done {
    files: u64,
    bytes: u64,
    /// Paths that could not be recorded yet.
    late: Vec<StorePath>,
    /// Notes that could not be written yet.
    notes: Vec<Note>,
    failures: Vec<String>,
}

/// Removes what is asked for, or with `dry_run` only says what that would be. Fails when not all of it was removed, or
/// some of it may come back.
pub fn remove(
    config: &Config,
    target: &Target,
    dry_run: bool,
    out: &mut dyn Write,
) -> Result<(), String> {
    let service = Service::new(config, b"nothing is signed here");
    // What is no URL of ours is wrong whether there is a store or not.
    let wanted = match target {
        Target::Owner(_) => None,
        Target::Url(url) => Some(service.files_of_url(url).ok_or_else(|| {
            format!(
                "{url} is not a URL of a file here: get_url is {}, put_url is {}.",
                config.get_url, config.put_url
            )
        })?),
    };
    let store = Store::open_beside(&config.storage_path, !dry_run).map_err(|e| e.to_string())?;
    let Some(mut store) = store else {
        return list::say(out, "Nothing is stored yet.");
    };
    // Longer than any slot lives, because put_timeout may have been longer when a slot was issued.
    let life = config.put_timeout.max(Duration::from_secs(REMEMBERED));
    let policy = TombstonePolicy {
        foreign: true,
        slot_life: life,
    };
    store.set_tombstone_policy(policy, sys::monotonic());
    if dry_run {
        return rehearse(config, target, wanted, &store, out);
    }
    store.trim_journal(sys::now().wall);
    let mut command = Command {
        store,
        done: Done::default(),
    };
    let (owner, whose) = match (target, wanted) {
        (Target::Owner(owner), _) => (Some(owner.folder().into_bytes()), owner.to_string()),
        (Target::Url(url), Some(wanted)) => {
            command.file(&wanted)?;
            (None, url.clone())
        }
        (Target::Url(_), None) => return Ok(()),
    };
    if let Some(owner) = &owner {
        command.owner(owner)?;
    }
    command.finish();
    let Command { store, done } = command;
    let text = match (done.files, owner.is_some()) {
        (0, _) => format!("Nothing is stored of {whose}."),
        (_, true) => format!(
            "Removed {} of {whose}, {}.",
            list::files(done.files),
            list::size(done.bytes)
        ),
        (_, false) => format!("Removed {whose}, {}.", list::size(done.bytes)),
    };
    list::say(out, &text)?;
    if let Some(owner) = owner.filter(|owner| sys::stat_at(store.root(), owner).is_ok()) {
        let folder = store.path().join(owner.escape_ascii().to_string());
        let text = format!(
            "The folder {} is still there; what it holds was not stored by upslot.",
            folder.display()
        );
        if done.failures.is_empty() {
            list::say(out, &text)?;
        }
    }
    match done.failures.is_empty() {
        true => Ok(()),
        false => Err(done.failures.join("\n")),
    }
}

/// Says what would be removed.
fn rehearse(
    config: &Config,
    target: &Target,
    wanted: Option<DownloadRequest>,
    store: &Store,
    out: &mut dyn Write,
) -> Result<(), String> {
    let lines = Lines::new(config);
    let (mut files, mut bytes) = (0u64, 0u64);
    let mut show = |victim: &Victim| {
        files += 1;
        bytes = bytes.saturating_add(victim.size);
        list::say(out, &lines.line(&victim.path, victim.size, victim.modified))
    };
    match (target, wanted) {
        (Target::Owner(owner), _) => {
            let folder = owner.folder();
            list::walk(
                store.root(),
                folder.as_bytes(),
                false,
                |path, size, modified| match victim(path, size, modified) {
                    Some(victim) => show(&victim),
                    None => Ok(()),
                },
            )?;
        }
        (Target::Url(_), Some(wanted)) => {
            if let Some(victim) = find(store, &wanted)? {
                show(&victim)?;
            }
        }
        (Target::Url(_), None) => {}
    }
    let text = match files {
        0 => "Nothing would be removed.".to_owned(),
        _ => format!(
            "{} would be removed, {}.",
            list::files(files),
            list::size(bytes)
        ),
    };
    list::say(out, &text)
}

fn victim(path: &[u8], size: u64, modified: SystemTime) -> Option<Victim> {
    let path = StorePath::from_segments(path.split(|b| *b == b'/'))?;
    Some(Victim {
        path,
        size,
        modified,
    })
}

/// The file that a URL stands for, whichever of its meanings is there.
fn find(store: &Store, wanted: &DownloadRequest) -> Result<Option<Victim>, String> {
    let DownloadRequest { path, again, slot } = wanted.clone();
    let by_slot = slot.and_then(|slot| store.alias(&slot));
    for path in path.into_iter().chain(again).chain(by_slot) {
        let found = store
            .find(&path)
            .map_err(|error| format!("cannot read {path:?}: {error}."))?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// A removal under way.
struct Command {
    store: Store,
    done: Done,
}

impl Command {
    /// Removes one file.
    fn file(&mut self, wanted: &DownloadRequest) -> Result<(), String> {
        let Some(victim) = find(&self.store, wanted)? else {
            return Ok(());
        };
        let owner = victim.path.owner_folder().to_vec();
        self.portion(&owner, vec![victim])
    }

    /// Removes all files of an owner.
    fn owner(&mut self, owner: &[u8]) -> Result<(), String> {
        self.note(owner, What::Revoked);
        self.sync();
        for _ in 0..PASSES {
            let before = self.done.files;
            let mut portion = Vec::new();
            let root = self.store.root().try_clone_to_owned();
            let root = root.map_err(|error| format!("cannot open the store: {error}."))?;
            // A command that was killed may have left empty folders.
            list::walk(root.as_fd(), owner, true, |path, size, modified| {
                portion.extend(victim(path, size, modified));
                match portion.len() >= PORTION {
                    true => self.portion(owner, std::mem::take(&mut portion)),
                    false => Ok(()),
                }
            })?;
            self.portion(owner, portion)?;
            if self.done.files == before {
                return Ok(());
            }
        }
        self.done
            .failures
            .push("new files come in as fast as they are removed.".to_owned());
        Ok(())
    }

    /// Removes some files.
    fn portion(&mut self, owner: &[u8], victims: Vec<Victim>) -> Result<(), String> {
        if victims.is_empty() {
            return Ok(());
        }
        let now = sys::now();
        let mut batch = Batch::default();
        for victim in victims {
            let path = victim.path.clone();
            match batch.add(victim, &mut self.store, now) {
                Ok(()) => {}
                Err(error) if sys::is_full(&error) && self.done.late.len() < MAX_LATE => {
                    self.done.late.push(path);
                }
                Err(error) => return Err(self.cannot("record", &path, &error)),
            }
        }
        self.note(owner, What::Begun);
        // This covers the tombstones and the note.
        self.sync();
        batch.close(false);
        let (mut files, mut bytes) = (0u64, 0u64);
        let mut failure = None;
        while let Some(Victim { path, size, .. }) = batch.next_victim() {
            match self.store.unlink(&path) {
                Ok(false) => {}
                Ok(true) => {
                    self.store.blank_alias(&path);
                    files += 1;
                    bytes = bytes.saturating_add(size);
                    log::info!(
                        "file removed owner={} path={path:?} bytes={size} why=command",
                        owner.escape_ascii()
                    );
                }
                Err(error) => {
                    failure = Some(self.cannot("remove", &path, &error));
                    break;
                }
            }
        }
        self.done.files += files;
        self.done.bytes = self.done.bytes.saturating_add(bytes);
        if files > 0 {
            self.note(owner, What::Removed { files, bytes });
        }
        self.sync();
        failure.map_or(Ok(()), Err)
    }

    /// Records what could not be recorded before.
    fn finish(&mut self) {
        let late = std::mem::take(&mut self.done.late);
        let notes = std::mem::take(&mut self.done.notes);
        if late.is_empty() && notes.is_empty() {
            return;
        }
        for path in late {
            if let Err(error) = self.store.record_tombstone(&path) {
                let failure = format!("{path:?} may be stored again by an old link: {error}.");
                self.done.failures.push(failure);
            }
        }
        if !notes.is_empty() {
            if let Err(error) = self.store.note(&notes) {
                let failure = format!("a running upslot was not told: {error}; restart it.");
                self.done.failures.push(failure);
            }
        }
        self.sync();
    }

    fn note(&mut self, owner: &[u8], what: What) {
        let note = Note {
            at: sys::now().unix(),
            owner: owner.to_vec(),
            what,
        };
        if let Err(error) = self.store.note(std::slice::from_ref(&note)) {
            log::debug!("note not written why={:?}", error.to_string());
            self.done.notes.push(note);
        }
    }

    /// Brings all of it to stable storage.
    fn sync(&mut self) {
        if let Err(error) = sys::sync_file_system(self.store.root()) {
            let failure = format!("the removal may not last, the disk does not sync: {error}.");
            if !self.done.failures.contains(&failure) {
                self.done.failures.push(failure);
            }
        }
    }

    fn cannot(&self, what: &str, path: &StorePath, error: &io::Error) -> String {
        let user = sys::owner_of(self.store.root()).map_or(0, |owner| owner.0);
        let who = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                format!("; run the command as user {user}, or as the superuser")
            }
            _ => String::new(),
        };
        format!(
            "cannot {what} {path:?} as user {}: {error}{who}.",
            sys::user()
        )
    }
}
