//! Puts files of another program into the store.
//!
//! ```text
//!   link or copy, publish ──▶ note ──▶ sync ──▶ set old links
//!   └───── each file ─────┘  └────── each batch ───────────┘
//! ```
//!
//! A file's path follows from its record, and its old link is set when the file is on stable storage. So an import that
//! was killed can be repeated: a file with an old link is not looked at again, and one without is found at its path.
//! Since the old link outlasts the file, a repeated import does not bring deleted files back.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::config::Config;
use crate::expiry::Lifetime;
use crate::import::record::{FileOwner, HIDDEN, Reason, Record};
use crate::import::report::Report;
use crate::jid::BareJid;
use crate::layout::{self, LinkDigest, StorePath, Tag};
use crate::purpose::Purpose;
use crate::service::Service;
use crate::store::Store;
use crate::store::journal::{Note, What};
use crate::store::upload::{PublishError, Upload};
use crate::sys::{self, FileKind, FileStat};

/// Files that are synced together. A sync may wait for what others write to the disk.
const BATCH: usize = 4096;

/// Files of which a running upslot is notified together.
const NOTED: u64 = 256;

/// Bytes that are read at a time.
const PIECE: usize = 128 * 1024;

/// The owner of files for which the other program tells none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fallback {
    Jid(BareJid),
    /// The domain for which the other program tells the local part.
    Domain(String),
}

impl Fallback {
    /// Parses `JID` or `@DOMAIN`.
    pub fn parse(word: &str) -> Option<Fallback> {
        match word.strip_prefix('@') {
            Some(domain) => {
                BareJid::parse(&format!("a@{domain}")).map(|_| Fallback::Domain(domain.to_owned()))
            }
            None => BareJid::parse(word).map(Fallback::Jid),
        }
    }
}

/// What became of a record.
enum Placed {
    Linked(u64),
    Copied(u64),
    Present(u64),
    LeftOut(Reason),
}

/// The import in progress.
pub struct Placer {
    store: Store,
    /// The folder of the other program's files.
    source: OwnedFd,
    fallback: Option<Fallback>,
    /// User and group of the storage folder.
    owner: (u32, u32),
    /// The device of the storage folder.
    device: u64,
    lifetime: Lifetime,
    min_free_space: u64,
    dry_run: bool,
    /// Published files whose old links are not set yet.
    batch: BTreeMap<LinkDigest, StorePath>,
    /// Files and bytes of each owner that a running upslot does not know of.
    added: BTreeMap<Vec<u8>, (u64, u64)>,
    /// Number of files published since the last note.
    unnoted: u64,
    pub report: Report,
}

impl Placer {
    pub fn new(
        config: &Config,
        store: Store,
        source: OwnedFd,
        fallback: Option<Fallback>,
        dry_run: bool,
    ) -> io::Result<Placer> {
        Ok(Placer {
            owner: sys::owner_of(store.root())?,
            device: sys::stat_open(store.root())?.identity.0,
            store,
            source,
            fallback,
            lifetime: Service::unsigned(config).lifetime(),
            min_free_space: config.min_free_space,
            dry_run,
            batch: BTreeMap::new(),
            added: BTreeMap::new(),
            unnoted: 0,
            report: Report::default(),
        })
    }

    /// The folder of the other program's files.
    pub fn source(&self) -> &OwnedFd {
        &self.source
    }

    /// Imports the file of a record; `shown` is for messages. Fails if the import cannot go on.
    pub fn place(&mut self, record: Result<Record, Reason>, shown: &[u8]) -> Result<(), String> {
        let placed = match record {
            Ok(record) => self.place_record(&record)?,
            Err(reason) => Placed::LeftOut(reason),
        };
        match placed {
            Placed::Linked(bytes) => self.report.linked.add(bytes),
            Placed::Copied(bytes) => self.report.copied.add(bytes),
            Placed::Present(bytes) => self.report.present.add(bytes),
            Placed::LeftOut(reason) => self.report.leave_out(reason, shown),
        }
        match self.batch.len() >= BATCH {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn place_record(&mut self, record: &Record) -> Result<Placed, String> {
        if record.is_hidden {
            return Ok(Placed::LeftOut(HIDDEN));
        }
        if self.batch.contains_key(&record.link) {
            return Ok(Placed::LeftOut(
                "there is a second record for the same link",
            ));
        }
        if let Some(path) = self.store.old_link(&record.link) {
            let found = self
                .store
                .find(&path)
                .map_err(|e| self.cannot("read", &e))?;
            return Ok(match found {
                Some(file) => Placed::Present(file.size),
                None => Placed::LeftOut("the file was imported before, and deleted since"),
            });
        }
        let Some(owner) = self.owner_folder(&record.owner) else {
            return Ok(Placed::LeftOut("the owner is not known; see --owner"));
        };
        let (file, stat) = match self.open_source(&record.file) {
            Ok(opened) => opened,
            Err(reason) => return Ok(Placed::LeftOut(reason)),
        };
        if record.size.is_some_and(|size| size != stat.size) {
            return Ok(Placed::LeftOut("the file does not have its recorded size"));
        }
        let now = sys::now();
        let told = record.stored.map(Duration::from_secs);
        let told = told.and_then(|since| UNIX_EPOCH.checked_add(since));
        let stored = told
            .filter(|told| *told <= now.wall)
            .unwrap_or(stat.modified);
        let tag = Tag {
            size: Some(stat.size),
            ..Purpose::Message.into()
        };
        if self
            .lifetime
            .end(Some(tag), stored)
            .is_some_and(|end| end <= now.wall)
        {
            return Ok(Placed::LeftOut("the file is older than expire_maxage"));
        }
        let path = StorePath::in_owner_folder(&owner, tag, &record.link, &record.name);
        let Some(path) = path else {
            return Ok(Placed::LeftOut("the file cannot have this name here"));
        };
        self.publish(record, file, stat, stored, path)
    }

    /// The name of the owner folder.
    fn owner_folder(&self, owner: &FileOwner) -> Option<String> {
        let jid = match (owner, &self.fallback) {
            (FileOwner::Folder(folder), _) => return Some(folder.clone()),
            (FileOwner::Local(local), Some(Fallback::Domain(domain))) => {
                BareJid::parse(&format!("{local}@{domain}"))
            }
            (_, Some(Fallback::Jid(jid))) => Some(jid.clone()),
            _ => None,
        };
        jid.map(|jid| layout::owner_folder(&jid))
    }

    /// Opens a regular file of the other program without following links, and without opening anything else.
    fn open_source(&self, path: &[u8]) -> Result<(OwnedFd, FileStat), Reason> {
        const NOT_REGULAR: Reason = "it is not a regular file";
        let (folder, name) = match path.iter().rposition(|b| *b == b'/') {
            Some(at) => (Some(&path[..at]), &path[at + 1..]),
            None => (None, path),
        };
        let why = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => "the file is missing",
            _ if sys::is_no_folder(&error) => NOT_REGULAR,
            _ => "the file cannot be read",
        };
        let folder = folder.map(|folder| sys::open_folder_below(self.source.as_fd(), folder));
        let folder = folder.transpose().map_err(why)?;
        let folder = folder.as_ref().unwrap_or(&self.source);
        if sys::stat_at(folder, name).map_err(why)?.kind != FileKind::File {
            return Err(NOT_REGULAR);
        }
        let file = sys::open_below(folder.as_fd(), name).map_err(why)?;
        let stat = sys::stat_open(&file).map_err(why)?;
        match stat.kind {
            FileKind::File => Ok((file, stat)),
            _ => Err(NOT_REGULAR),
        }
    }

    /// Links or copies a file into the store.
    fn publish(
        &mut self,
        record: &Record,
        file: OwnedFd,
        stat: FileStat,
        stored: SystemTime,
        path: StorePath,
    ) -> Result<Placed, String> {
        let may_link = self.may_link(&file, &stat);
        let may_link = may_link.map_err(|error| self.cannot("read", &error))?;
        if self.dry_run {
            self.batch.insert(record.link, path);
            return Ok(match may_link {
                true => Placed::Linked(stat.size),
                false => Placed::Copied(stat.size),
            });
        }
        let mut placed = None;
        if may_link && self.keep_facts(&file, record, &stat, stored) {
            placed = self.link(&file, &stat, &path)?;
        }
        let placed = match placed {
            Some(placed) => placed,
            None => self.copy(record, &file, &stat, stored, &path)?,
        };
        if !matches!(placed, Placed::LeftOut(_)) {
            let is_new = !matches!(placed, Placed::Present(_));
            self.published(record.link, path, stored, is_new.then_some(stat.size))?;
        }
        Ok(placed)
    }

    /// Gives a file its name in the store; `None` if it cannot be linked.
    fn link(
        &mut self,
        file: &OwnedFd,
        stat: &FileStat,
        path: &StorePath,
    ) -> Result<Option<Placed>, String> {
        let file = file.try_clone();
        let file = file.map_err(|error| self.cannot("read", &error))?;
        let upload = self.store.adopt(file);
        match self.store.publish(&upload, path, false, sys::now().wall) {
            Ok(_) => Ok(Some(Placed::Linked(stat.size))),
            // An import that was killed has published it.
            Err(PublishError::Taken) => Ok(Some(Placed::Present(stat.size))),
            Err(PublishError::Io(error)) if sys::is_store_error(&error) => {
                Err(self.cannot("write into", &error))
            }
            // Not all file systems link what has been opened, or so often.
            Err(PublishError::Io(_)) => Ok(None),
        }
    }

    /// Completes the folders of a file that was published, now or by an import that was killed, and notes it with its
    /// bytes, if it was not there before.
    fn published(
        &mut self,
        link: LinkDigest,
        path: StorePath,
        stored: SystemTime,
        added: Option<u64>,
    ) -> Result<(), String> {
        let timed = self.store.set_folder_time(&path, stored);
        timed.map_err(|error| self.cannot("set the times of folders in", &error))?;
        if self.owner.0 != sys::user() {
            let given = self.store.give_folders(&path, self.owner);
            given.map_err(|error| self.cannot("change the owner of folders in", &error))?;
        }
        let sum = self.added.entry(path.owner_folder().to_vec()).or_default();
        if let Some(bytes) = added {
            sum.0 += 1;
            sum.1 = sum.1.saturating_add(bytes);
        }
        self.unnoted += 1;
        if self.unnoted >= NOTED {
            self.note();
        }
        self.batch.insert(link, path);
        Ok(())
    }

    /// Whether a hard link is safe: the file is on the same file system, the user of the store can read it, and no other
    /// user can change it later.
    fn may_link(&self, file: &OwnedFd, stat: &FileStat) -> io::Result<bool> {
        Ok(self.device == stat.identity.0 && sys::is_writable_only_by(file, self.owner.0)?)
    }

    /// Stores type and time with a file that is to be linked; false if that fails.
    fn keep_facts(
        &self,
        file: &OwnedFd,
        record: &Record,
        stat: &FileStat,
        stored: SystemTime,
    ) -> bool {
        let typed = match &record.content_type {
            // A file system without attributes has none for a copy either.
            Some(content_type) => sys::set_mime_type(file, content_type).is_ok(),
            None => true,
        };
        typed && (stored == stat.modified || sys::set_modified(file, stored).is_ok())
    }

    /// Copies a file into the store.
    fn copy(
        &mut self,
        record: &Record,
        file: &OwnedFd,
        stat: &FileStat,
        stored: SystemTime,
        path: &StorePath,
    ) -> Result<Placed, String> {
        let needed = stat.size.saturating_add(self.min_free_space);
        let free = self.store.free_space(sys::monotonic());
        if free.is_some_and(|free| free < needed) {
            return Err("the disk has too little free space; see min_free_space.".to_owned());
        }
        let upload = self.store.begin(stat.size);
        let mut upload = upload.map_err(|error| self.cannot("write into", &error))?;
        let filled = self.fill(&mut upload, record, file, stat, stored);
        let placed = filled
            .map_err(PublishError::Io)
            .and_then(|left_out| match left_out {
                Some(reason) => Ok(Placed::LeftOut(reason)),
                None => {
                    let published = self.store.publish(&upload, path, false, sys::now().wall);
                    published.map(|_| Placed::Copied(stat.size))
                }
            });
        self.store.end(upload);
        match placed {
            Ok(placed) => Ok(placed),
            Err(PublishError::Taken) => Ok(Placed::Present(stat.size)),
            Err(PublishError::Io(error)) => Err(self.cannot("write into", &error)),
        }
    }

    /// Returns why the file is left out, if so; fails if the store cannot be written.
    fn fill(
        &mut self,
        upload: &mut Upload,
        record: &Record,
        file: &OwnedFd,
        stat: &FileStat,
        stored: SystemTime,
    ) -> io::Result<Option<Reason>> {
        let mut buffer = vec![0; PIECE];
        let mut done = 0;
        loop {
            let read = match sys::read_at(file, &mut buffer, done) {
                Ok(0) => break,
                Ok(read) => read,
                Err(_) => return Ok(Some("the file cannot be read")),
            };
            done += read as u64;
            if done > stat.size {
                break;
            }
            self.store.append(upload, &buffer[..read])?;
        }
        if done != stat.size {
            return Ok(Some("the file changed while it was copied"));
        }
        self.store
            .complete(upload, record.content_type.as_deref())?;
        sys::set_modified(upload.file(), stored)?;
        if self.owner.0 != sys::user() {
            sys::set_owner(upload.file(), self.owner)?;
        }
        Ok(None)
    }

    /// Notifies a running upslot of the files published.
    fn note(&mut self) {
        let note = |(owner, (files, bytes))| Note {
            at: sys::now().unix(),
            owner,
            what: What::Added { files, bytes },
        };
        let added = std::mem::take(&mut self.added);
        let notes: Vec<Note> = added.into_iter().map(note).collect();
        self.unnoted = 0;
        // Without a note, a running upslot counts again within the hour.
        if let Err(error) = self.store.note(&notes) {
            log::warn!("note not written why={:?}", error.to_string());
        }
    }

    /// Makes the batch durable, and sets its old links.
    fn flush(&mut self) -> Result<(), String> {
        let batch = std::mem::take(&mut self.batch);
        if self.dry_run || batch.is_empty() {
            return Ok(());
        }
        self.note();
        self.sync()?;
        let set = self.store.set_old_links(&batch);
        set.map_err(|error| self.cannot("write into", &error))
    }

    fn sync(&self) -> Result<(), String> {
        let synced = sys::sync_file_system(self.store.root());
        synced.map_err(|error| self.cannot("sync", &error))
    }

    /// Makes the old links durable as well.
    pub fn finish(&mut self) -> Result<(), String> {
        self.flush()?;
        match self.dry_run {
            true => Ok(()),
            false => self.sync(),
        }
    }

    fn cannot(&self, what: &str, error: &io::Error) -> String {
        let user = self.owner.0;
        let advice = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                format!("; run the command as user {user}, or as the superuser")
            }
            _ => String::new(),
        };
        let folder = self.store.path().display();
        let this = sys::user();
        format!("cannot {what} {folder} as user {this}: {error}{advice}.")
    }
}
