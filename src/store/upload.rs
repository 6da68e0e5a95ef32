//! Uploads: a body is received into an unnamed file, which is published when it is complete.
//!
//! So partial files are never visible, and none is left behind by a crash. A published file is never replaced: of two
//! uploads to one slot, the first complete one wins.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use rustix::io::Errno;

use crate::http::charset::Utf8Check;
use crate::layout::StorePath;
use crate::store::{Naming, Store};
use crate::sys;

/// The prefix of temporary names in the internal folder.
pub(super) const TEMPORARY: &str = "upload-";

/// Maximum number of attempts to publish, because another node may remove an empty folder meanwhile.
const TRIES: usize = 4;

/// Small pieces of a slow body are coalesced up to this size; bytes.
const COALESCED: usize = 2048;

/// One body being stored. Dropped unpublished, it leaves nothing.
#[derive(Debug)]
pub struct Upload {
    /// Shared with the helper thread while it is synced.
    file: Arc<OwnedFd>,
    temporary: Option<Temporary>,
    /// Small pieces that are not written yet: less than [`COALESCED`].
    unflushed: Vec<u8>,
    /// Bytes still to be written, according to the announced size.
    unwritten: u64,
    /// The check for UTF-8, if requested.
    charset: Option<Utf8Check>,
    /// [`Store`]'s number of clock jumps when the body was complete.
    jumps: u32,
}

/// A temporary name, removed when the upload ends, published or not.
#[derive(Debug)]
struct Temporary {
    folder: OwnedFd,
    name: Vec<u8>,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = sys::remove_file(&self.folder, &self.name);
    }
}

/// The folders whose entries publishing has changed, open so that they can be synced if that was requested.
#[derive(Debug)]
pub struct Published {
    pub folders: Vec<OwnedFd>,
}

/// Why an upload was not published.
#[derive(Debug)]
pub enum PublishError {
    /// The slot has been used meanwhile.
    Taken,
    Io(io::Error),
}

impl From<io::Error> for PublishError {
    fn from(error: io::Error) -> PublishError {
        PublishError::Io(error)
    }
}

impl Upload {
    /// Checks while the body is received whether it is UTF-8; [`Store::complete`] stores the result with the file.
    pub fn check_charset(&mut self) {
        self.charset = Some(Utf8Check::default());
    }

    /// The file, to be synced.
    pub fn file(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.file)
    }
}

impl Store {
    /// Begins an upload of `size` bytes.
    pub fn begin(&mut self, size: u64) -> io::Result<Upload> {
        let (file, temporary) = match self.naming {
            Naming::Descriptor | Naming::Proc => (
                sys::open_unnamed(&self.root, self.mode(self.modes.file))?,
                None,
            ),
            Naming::Temporary => {
                self.serial += 1;
                let name =
                    format!("{TEMPORARY}{}-{}", std::process::id(), self.serial).into_bytes();
                let folder = self.internal.try_clone()?;
                let file = sys::open_new(&self.internal, &name, self.mode(self.modes.file))?;
                (file, Some(Temporary { folder, name }))
            }
        };
        self.disk.unwritten = self.disk.unwritten.saturating_add(size);
        Ok(Upload {
            file: Arc::new(file),
            temporary,
            unflushed: Vec::new(),
            unwritten: size,
            charset: None,
            jumps: self.file_clock.jumps,
        })
    }

    /// An upload of an existing, complete file of the same file system: it gets a second name when it is published.
    pub fn adopt(&self, file: OwnedFd) -> Upload {
        Upload {
            file: Arc::new(file),
            temporary: None,
            unflushed: Vec::new(),
            unwritten: 0,
            charset: None,
            jumps: self.file_clock.jumps,
        }
    }

    /// Probes whether the store works: does all that an upload does except publishing.
    pub fn probe_upload(&mut self, bytes: &[u8]) -> io::Result<Upload> {
        self.probe_naming()?;
        self.try_folder()?;
        let mut upload = self.begin(bytes.len() as u64)?;
        let written = self
            .append(&mut upload, bytes)
            .and_then(|()| self.complete(&mut upload, None));
        match written {
            Ok(()) => Ok(upload),
            Err(error) => {
                self.end(upload);
                Err(error)
            }
        }
    }

    /// Creates and removes a folder, which may fail for lack of space or inodes where a file does not.
    fn try_folder(&self) -> io::Result<()> {
        let name = format!("{TEMPORARY}folder-{}", std::process::id());
        sys::create_folder(&self.internal, name.as_bytes(), 0o700)?;
        sys::remove_folder(&self.internal, name.as_bytes())?;
        Ok(())
    }

    /// Appends to an upload. Small pieces are coalesced, at the latest until [`Store::complete`].
    pub fn append(&mut self, upload: &mut Upload, bytes: &[u8]) -> io::Result<()> {
        if let Some(charset) = &mut upload.charset {
            charset.update(bytes);
        }
        if upload.unflushed.len() + bytes.len() < COALESCED {
            upload.unflushed.extend_from_slice(bytes);
            return Ok(());
        }
        self.flush(upload)?;
        self.write(upload, bytes)
    }

    /// The body is complete: flushes it and stores type and charset, if the file system can. Then the upload may be
    /// synced and published.
    pub fn complete(&mut self, upload: &mut Upload, content_type: Option<&str>) -> io::Result<()> {
        self.flush(upload)?;
        if let Some(content_type) = content_type {
            sys::set_mime_type(&upload.file, content_type)?;
        }
        if let Some(charset) = &upload.charset {
            sys::set_charset(&upload.file, charset.is_utf8())?;
        }
        upload.jumps = self.file_clock.jumps;
        Ok(())
    }

    fn flush(&mut self, upload: &mut Upload) -> io::Result<()> {
        let unflushed = std::mem::take(&mut upload.unflushed);
        self.write(upload, &unflushed)
    }

    fn write(&mut self, upload: &mut Upload, bytes: &[u8]) -> io::Result<()> {
        sys::write_all(&upload.file, bytes)?;
        let written = upload.unwritten.min(bytes.len() as u64);
        upload.unwritten -= written;
        self.disk.unwritten = self.disk.unwritten.saturating_sub(written);
        if let Some((_, space)) = &mut self.disk.space {
            space.bytes = space.bytes.saturating_sub(written);
        }
        Ok(())
    }

    /// Ends an upload, published or not; an unpublished one leaves nothing.
    pub fn end(&mut self, upload: Upload) {
        self.disk.unwritten = self.disk.unwritten.saturating_sub(upload.unwritten);
    }

    /// Publishes a complete upload. `sync` says that the folders must be synced before the client gets its 201.
    pub fn publish(
        &mut self,
        upload: &Upload,
        path: &StorePath,
        sync: bool,
        now: SystemTime,
    ) -> Result<Published, PublishError> {
        if !upload.unflushed.is_empty() {
            return Err(io::Error::other("the body is not complete").into());
        }
        if upload.jumps != self.file_clock.jumps {
            // Its time comes from a wrong clock, and the sweep may already have passed its folder.
            sys::set_modified(&upload.file, now)?;
        }
        let mut tries = 0;
        loop {
            tries += 1;
            match self.try_publish(upload, path, sync) {
                Err(PublishError::Io(error))
                    if error.kind() == io::ErrorKind::NotFound && tries < TRIES => {}
                other => return other,
            }
        }
    }

    /// Removes a published file that could not be made durable. False if it is still there.
    pub fn unpublish(&mut self, path: &StorePath, now: Instant) -> bool {
        match self.unlink(path) {
            Ok(true) => true,
            Ok(false) => {
                self.remove_empty_folders(path);
                true
            }
            Err(error) => {
                self.warn_limited("file not removed", path, &error, now);
                false
            }
        }
    }

    fn try_publish(
        &mut self,
        upload: &Upload,
        path: &StorePath,
        sync: bool,
    ) -> Result<Published, PublishError> {
        let mut folders: Vec<OwnedFd> = Vec::new();
        let outcome = self
            .create_folder(path.folder(), sync, &mut folders)
            .and_then(|folder| {
                let name = path.name();
                match (&upload.temporary, self.naming) {
                    (Some(temporary), _) => {
                        sys::hard_link(&temporary.folder, &temporary.name, &folder, name)?;
                    }
                    (None, Naming::Descriptor) => {
                        sys::link_descriptor(&upload.file, &folder, name)?;
                    }
                    (None, _) => sys::link_through_proc(&upload.file, &folder, name)?,
                }
                Ok(folder)
            });
        match outcome {
            Ok(folder) => {
                folders.push(folder);
                Ok(Published { folders })
            }
            Err(error) => {
                let taken = Errno::from_io_error(&error) == Some(Errno::EXIST);
                // A folder that existed before and holds a file of that name is not empty.
                if !taken || !folders.is_empty() {
                    // Cleaning up takes descriptors, whose lack may be the cause of the failure.
                    drop(folders);
                    self.remove_empty_folders(path);
                }
                Err(match taken {
                    true => PublishError::Taken,
                    false => PublishError::Io(error),
                })
            }
        }
    }

    /// Gives the folders of a published file to a user, if they belong to this process's user.
    pub fn give_folders(&self, path: &StorePath, owner: (u32, u32)) -> io::Result<()> {
        for folder in [path.owner_folder(), path.folder()] {
            let folder = sys::open_folder_below(self.root(), folder)?;
            if sys::owner_of(&folder)?.0 == sys::user() {
                sys::set_owner(&folder, owner)?;
            }
        }
        Ok(())
    }

    /// Sets the time of a published file's folder to the file's own, because the sweep judges files by their folders.
    pub fn set_folder_time(&self, path: &StorePath, stored: SystemTime) -> io::Result<()> {
        sys::set_modified(sys::open_folder_below(self.root(), path.folder())?, stored)
    }

    /// Opens a folder, and creates it with all missing parents. The parents of new folders are appended to `changed`,
    /// from the outside in. Only folders that are opened to `sync` them can be synced.
    fn create_folder(
        &self,
        path: &[u8],
        sync: bool,
        changed: &mut Vec<OwnedFd>,
    ) -> io::Result<OwnedFd> {
        let open = match sync {
            true => sys::open_folder_below,
            false => sys::locate_folder_below,
        };
        let (outer, name) = split(path);
        // The folder of a new slot never exists yet, its parent nearly always.
        let parent = match outer.map(|outer| (outer, open(self.root(), outer))) {
            Some((outer, Err(error))) if error.kind() == io::ErrorKind::NotFound => {
                Some(self.create_folder(outer, sync, changed)?)
            }
            Some((_, opened)) => Some(opened?),
            None => None,
        };
        let parent_fd = parent.as_ref().map_or(self.root(), |fd| fd.as_fd());
        let new = sys::create_folder(parent_fd, name, self.mode(self.modes.folder))?;
        if new && parent.is_none() {
            changed.push(self.root.try_clone()?);
        }
        let folder = open(parent_fd, name);
        changed.extend(parent.filter(|_| new));
        folder
    }

    /// Removes the empty folders above a path, from the inside out.
    pub(super) fn remove_empty_folders(&self, path: &StorePath) {
        let mut inner = path.folder();
        loop {
            let (outer, name) = split(inner);
            let removed = match outer {
                Some(outer) => sys::open_folder_below(self.root(), outer)
                    .and_then(|folder| sys::remove_folder(&folder, name)),
                None => sys::remove_folder(self.root(), name),
            };
            let removed = match removed {
                Ok(removed) => removed,
                Err(error) => error.kind() == io::ErrorKind::NotFound,
            };
            match outer {
                Some(outer) if removed => inner = outer,
                _ => return,
            }
        }
    }
}

/// Splits a path into its parent, if any, and the last segment.
fn split(path: &[u8]) -> (Option<&[u8]>, &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (Some(&path[..at]), &path[at + 1..]),
        None => (None, path),
    }
}
