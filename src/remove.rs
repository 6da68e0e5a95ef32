//! `upslot remove`: deletes all files of an owner, or one file, so that no upload link brings them back.
//!
//! It works on the store directly, whether upslot is running or not, and notifies a running one through the store's
//! journal, see [`crate::store::journal`]. Everything is on stable storage before the command reports success:
//!
//! ```text
//!   note ──▶ record tombstones ──▶ note ──▶ sync ──▶ unlink ──▶ note ──▶ sync
//!            └──────────────────── for every batch of files ──────────────┘
//! ```
//!
//! The note before the removal is for a running upslot that publishes an upload at the same time: either it reads this
//! note first and then finds the tombstones, or it finds the note when it checks the journal after publishing.
//!
//! The first note revokes every slot issued to the owner until then, so that uploads in progress are not stored either;
//! this covers upslot's own slots and tokens of Prosody's file share, which carry a time. Paths for which a signature
//! without a time may exist get a tombstone, and so do those of own slots that may be valid. So no removed file can be
//! stored again, even if the command is killed. A tombstone that cannot be recorded because the disk is full is recorded
//! at the end, when space is free.
//!
//! Run by the superuser, the command leaves nothing that the user of a running upslot cannot read; see
//! `Store::open_own`.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use crate::config::Config;
use crate::expiry::StoredFile;
use crate::layout::Owner;
use crate::layout::StorePath;
use crate::list::{self, Lines};
use crate::service::{DownloadRequest, Service};
use crate::slot::revoked::REMEMBERED;
use crate::store::Store;
use crate::store::journal::{Note, What};
use crate::store::removal::{Batch, TombstonePolicy};
use crate::store::walk::WalkMode;
use crate::sys;
use crate::units;

/// Files whose tombstones are recorded and synced together.
const BATCH: usize = 256;

/// Maximum number of passes over an owner's folder until nothing is found: entries may be missed while others are
/// removed, and slots issued after the command has begun are valid.
const PASSES: u32 = 16;

/// Maximum number of tombstones to be recorded at the end.
const MAX_LATE: usize = 65_536;

/// The files to be removed.
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

/// Where the files to be removed are.
#[derive(Debug)]
pub enum Wanted {
    /// In this owner folder.
    Owner(Vec<u8>),
    /// Under the first of these paths that exists.
    File(DownloadRequest),
}

impl Wanted {
    /// Fails if a URL is not one of this service.
    pub fn new(config: &Config, target: &Target) -> Result<Wanted, String> {
        let url = match target {
            Target::Owner(owner) => return Ok(Wanted::Owner(owner.folder().into_bytes())),
            Target::Url(url) => url,
        };
        let service = Service::unsigned(config);
        #[cfg(feature = "s3")]
        if let Some(path) = service.bucket().and_then(|bucket| bucket.path_of_url(url)) {
            return Ok(Wanted::File(DownloadRequest {
                path: Some(path),
                ..DownloadRequest::default()
            }));
        }
        service.files_of_url(url).map(Wanted::File).ok_or_else(|| {
            format!(
                "{url} is not a URL of a file of this service: get_url is {}, put_url is {}.",
                config.get_url, config.put_url
            )
        })
    }
}

/// Removes the target, or with `dry_run` only lists it. Fails if a file was not removed, or may be stored again.
pub fn remove(
    config: &Config,
    target: &Target,
    dry_run: bool,
    out: &mut dyn Write,
) -> Result<(), String> {
    // A foreign URL is an error whether there is a store or not.
    let wanted = Wanted::new(config, target)?;
    let store = Store::open_beside(&config.storage_path, !dry_run).map_err(|e| e.to_string())?;
    let Some(mut store) = store else {
        return list::say(out, "Nothing is stored yet.");
    };
    if dry_run {
        return list_wanted(config, &wanted, &store, out);
    }
    store.set_tombstone_policy(tombstone_policy(config), sys::monotonic());
    store.trim_journal(sys::now().wall);
    let mut command = Command {
        store,
        files: 0,
        bytes: 0,
        late: Vec::new(),
        notes: Vec::new(),
        failures: Vec::new(),
    };
    match &wanted {
        Wanted::Owner(owner) => command.owner(owner)?,
        Wanted::File(request) => command.file(request)?,
    }
    command.finish();
    command.report(target, out)
}

/// For which removed paths an upload URL may still be valid, whatever the configuration was when it was issued.
pub(crate) fn tombstone_policy(config: &Config) -> TombstonePolicy {
    TombstonePolicy {
        foreign: true,
        // At least a day, because put_timeout may have been longer.
        slot_life: config.put_timeout.max(Duration::from_secs(REMEMBERED)),
    }
}

/// Lists the files that would be removed.
fn list_wanted(
    config: &Config,
    wanted: &Wanted,
    store: &Store,
    out: &mut dyn Write,
) -> Result<(), String> {
    let lines = Lines::new(config);
    let (mut files, mut bytes) = (0u64, 0u64);
    let mut show = |victim: StoredFile| {
        files += 1;
        bytes = bytes.saturating_add(victim.size);
        list::say(out, &lines.line(&victim))
    };
    match wanted {
        Wanted::Owner(owner) => list::walk(store.root(), owner, WalkMode::Files, &mut show)?,
        Wanted::File(request) => find(store, request)?.map_or(Ok(()), show)?,
    }
    say_dry_run(files, bytes, out)
}

/// Prints how much would be removed.
pub(crate) fn say_dry_run(files: u64, bytes: u64, out: &mut dyn Write) -> Result<(), String> {
    let text = match files {
        0 => "Nothing would be removed.".to_owned(),
        _ => format!(
            "{} would be removed, {}.",
            units::files(files),
            units::size(bytes)
        ),
    };
    list::say(out, &text)
}

/// The file of a URL, under the first of its possible paths that exists.
fn find(store: &Store, wanted: &DownloadRequest) -> Result<Option<StoredFile>, String> {
    let DownloadRequest { path, again, slot } = wanted.clone();
    let by_slot = slot.and_then(|slot| store.alias(&slot));
    let by_old_link = path
        .as_ref()
        .and_then(|path| store.old_link_of(path.as_bytes()));
    let aliases = by_slot.into_iter().chain(by_old_link);
    for path in path.into_iter().chain(again).chain(aliases) {
        let found = store
            .find(&path)
            .map_err(|error| format!("cannot read {path:?}: {error}."))?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The command in progress: what was removed, and what failed.
struct Command {
    store: Store,
    files: u64,
    bytes: u64,
    /// Paths whose tombstones could not be recorded yet.
    late: Vec<StorePath>,
    /// Notes that could not be written yet.
    notes: Vec<Note>,
    failures: Vec<String>,
}

impl Command {
    /// Removes one file.
    fn file(&mut self, wanted: &DownloadRequest) -> Result<(), String> {
        let Some(victim) = find(&self.store, wanted)? else {
            return Ok(());
        };
        let owner = victim.path.owner_folder().to_vec();
        self.remove_batch(&owner, vec![victim])
    }

    /// Removes all files of an owner.
    fn owner(&mut self, owner: &[u8]) -> Result<(), String> {
        self.note(owner, What::Revoked);
        self.sync();
        for _ in 0..PASSES {
            let before = self.files;
            let mut batch = Vec::new();
            let root = self.store.root().try_clone_to_owned();
            let root = root.map_err(|error| format!("cannot open the store: {error}."))?;
            // A killed command may have left empty folders.
            list::walk(root.as_fd(), owner, WalkMode::Tidy, |file| {
                batch.push(file);
                match batch.len() >= BATCH {
                    true => self.remove_batch(owner, std::mem::take(&mut batch)),
                    false => Ok(()),
                }
            })?;
            self.remove_batch(owner, batch)?;
            if self.files == before {
                return Ok(());
            }
        }
        let failure = "new files are stored as fast as they are removed.";
        self.failures.push(failure.to_owned());
        Ok(())
    }

    /// Removes some files.
    fn remove_batch(&mut self, owner: &[u8], victims: Vec<StoredFile>) -> Result<(), String> {
        if victims.is_empty() {
            return Ok(());
        }
        let now = sys::now();
        let mut batch = Batch::default();
        for victim in victims {
            let path = victim.path.clone();
            match batch.add(victim, &mut self.store, now) {
                Ok(()) => {}
                Err(error) if sys::is_full(&error) && self.late.len() < MAX_LATE => {
                    self.late.push(path);
                }
                Err(error) => return Err(self.cannot("record the tombstone of", &path, &error)),
            }
        }
        self.note(owner, What::Begun);
        // This covers the tombstones and the note.
        self.sync();
        batch.close(false);
        let (mut files, mut bytes) = (0u64, 0u64);
        let mut failure = None;
        while let Some(StoredFile { path, size, .. }) = batch.next_victim() {
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
        self.files += files;
        self.bytes = self.bytes.saturating_add(bytes);
        if files > 0 {
            self.note(owner, What::Removed { files, bytes });
        }
        self.sync();
        failure.map_or(Ok(()), Err)
    }

    /// Records the tombstones and notes that could not be recorded before.
    fn finish(&mut self) {
        let late = std::mem::take(&mut self.late);
        let notes = std::mem::take(&mut self.notes);
        if late.is_empty() && notes.is_empty() {
            return;
        }
        for path in late {
            if let Err(error) = self.store.record_tombstone(&path) {
                let failure = format!("{path:?} may be stored again by an old link: {error}.");
                self.failures.push(failure);
            }
        }
        if !notes.is_empty() {
            if let Err(error) = self.store.note(&notes) {
                let failure = format!("a running upslot was not notified: {error}; restart it.");
                self.failures.push(failure);
            }
        }
        self.sync();
    }

    /// Prints the outcome; fails with all failures.
    fn report(&self, target: &Target, out: &mut dyn Write) -> Result<(), String> {
        let size = units::size(self.bytes);
        let text = match target {
            Target::Owner(owner) if self.files == 0 => format!("Nothing is stored of {owner}."),
            Target::Owner(owner) => {
                format!("Removed {} of {owner}, {size}.", units::files(self.files))
            }
            Target::Url(url) if self.files == 0 => format!("Nothing is stored of {url}."),
            Target::Url(url) => format!("Removed {url}, {size}."),
        };
        list::say(out, &text)?;
        if !self.failures.is_empty() {
            return Err(self.failures.join("\n"));
        }
        let Target::Owner(owner) = target else {
            return Ok(());
        };
        let folder = owner.folder();
        if sys::stat_at(self.store.root(), folder.as_bytes()).is_err() {
            return Ok(());
        }
        let folder = self.store.path().join(folder);
        let text = format!(
            "The folder {} is still there; what it holds was not stored by upslot.",
            folder.display()
        );
        list::say(out, &text)
    }

    fn note(&mut self, owner: &[u8], what: What) {
        let note = Note {
            at: sys::now().unix(),
            owner: owner.to_vec(),
            what,
        };
        if let Err(error) = self.store.note(std::slice::from_ref(&note)) {
            log::debug!("note not written why={:?}", error.to_string());
            self.notes.push(note);
        }
    }

    /// Syncs everything to stable storage.
    fn sync(&mut self) {
        if let Err(error) = sys::sync_file_system(self.store.root()) {
            let failure = format!(
                "the removal may be lost in a power cut, because the disk cannot be synced: {error}."
            );
            if !self.failures.contains(&failure) {
                self.failures.push(failure);
            }
        }
    }

    fn cannot(&self, what: &str, path: &StorePath, error: &io::Error) -> String {
        let user = sys::owner_of(self.store.root()).map_or(0, |owner| owner.0);
        let advice = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                format!("; run the command as user {user}, or as the superuser")
            }
            _ => String::new(),
        };
        format!(
            "cannot {what} {path:?} as user {}: {error}{advice}.",
            sys::user()
        )
    }
}
