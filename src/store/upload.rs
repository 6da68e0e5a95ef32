//! A body on its way into the store.
//!
//! It goes to a file without a name and gets its name only when it is complete, so that nothing partial is ever
//! visible or left behind, whatever dies. A taken name is never replaced: of two uploads of one slot the first
//! complete one wins.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;

use crate::http::charset::Utf8Check;
use crate::layout::StorePath;
use crate::store::{Naming, Store};
use crate::sys;

/// How temporary names in the internal folder begin.
pub(super) const TEMPORARY: &str = "upload-";

/// How often publishing is tried anew when another node removes an empty folder under it.
const TRIES: usize = 4;

/// A body that trickles in is written in portions of this size, so that it costs no write per byte; bytes.
const HELD: usize = 2048;

/// One body being stored. Dropped unpublished, it leaves nothing.
#[derive(Debug)]
pub struct Upload {
    /// Shared with the helper thread while it is synced.
    file: Arc<OwnedFd>,
    temporary: Option<Temporary>,
    /// Small pieces that are not written yet: less than [`HELD`].
    held: Vec<u8>,
    /// Bytes that are still to come, as announced.
    unwritten: u64,
    /// Whether it is UTF-8 so far, if that is asked of it.
    charset: Option<Utf8Check>,
    /// [`Store`]'s number of jumps of the clock when the body was complete.
    jumps: u32,
}

/// A temporary name, removed when the upload is over, published or not.
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

/// Folders whose entries publishing has changed; they must reach stable storage before the upload is promised.
#[derive(Debug)]
pub struct Published {
    pub folders: Vec<OwnedFd>,
}

/// Why an upload did not get its name.
#[derive(Debug)]
pub enum PublishError {
    /// The slot was used meanwhile.
    Taken,
    Io(io::Error),
}

impl From<io::Error> for PublishError {
    fn from(error: io::Error) -> PublishError {
        PublishError::Io(error)
    }
}

impl Upload {
    /// Finds out, while the body comes, whether it is UTF-8; [`Store::complete`] keeps the answer with the file.
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
                sys::open_unnamed(&self.root, self.mode(self.file_mode))?,
                None,
            ),
            Naming::Temporary => {
                self.serial += 1;
                let name =
                    format!("{TEMPORARY}{}-{}", std::process::id(), self.serial).into_bytes();
                let folder = self.internal.try_clone()?;
                let file = sys::open_new(&self.internal, &name, self.mode(self.file_mode))?;
                (file, Some(Temporary { folder, name }))
            }
        };
        self.unwritten = self.unwritten.saturating_add(size);
        Ok(Upload {
            file: Arc::new(file),
            temporary,
            held: Vec::new(),
            unwritten: size,
            charset: None,
            jumps: self.jumps,
        })
    }

    /// Does all that an upload needs but to stay: finds out whether the store works.
    pub fn try_upload(&mut self, bytes: &[u8]) -> io::Result<Upload> {
        self.try_out()?;
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

    /// Makes a folder and removes it again: it may lack room, or an inode, where a file does not.
    fn try_folder(&self) -> io::Result<()> {
        let name = format!("{TEMPORARY}folder-{}", std::process::id());
        sys::make_folder(&self.internal, name.as_bytes(), 0o700)?;
        sys::remove_folder(&self.internal, name.as_bytes())?;
        Ok(())
    }

    /// Appends to an upload. Small pieces are held until there are enough of them, or [`Store::complete`].
    pub fn append(&mut self, upload: &mut Upload, bytes: &[u8]) -> io::Result<()> {
        if let Some(charset) = &mut upload.charset {
            charset.update(bytes);
        }
        if upload.held.len() + bytes.len() < HELD {
            upload.held.extend_from_slice(bytes);
            return Ok(());
        }
        self.write_held(upload)?;
        self.write(upload, bytes)
    }

    /// Writes what is held, and keeps type and charset where the file system can: the body is complete, and may be
    /// synced and published.
    pub fn complete(&mut self, upload: &mut Upload, content_type: Option<&str>) -> io::Result<()> {
        self.write_held(upload)?;
        if let Some(content_type) = content_type {
            sys::set_mime_type(&upload.file, content_type)?;
        }
        if let Some(charset) = &upload.charset {
            sys::set_charset(&upload.file, charset.is_utf8())?;
        }
        upload.jumps = self.jumps;
        Ok(())
    }

    fn write_held(&mut self, upload: &mut Upload) -> io::Result<()> {
        let held = std::mem::take(&mut upload.held);
        self.write(upload, &held)
    }

    fn write(&mut self, upload: &mut Upload, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let written = sys::write(&upload.file, rest)?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            rest = &rest[written..];
        }
        let written = upload.unwritten.min(bytes.len() as u64);
        upload.unwritten -= written;
        self.unwritten = self.unwritten.saturating_sub(written);
        if let Some((_, space)) = &mut self.free {
            space.bytes = space.bytes.saturating_sub(written);
        }
        Ok(())
    }

    /// Ends an upload, published or not; an unpublished one leaves nothing.
    pub fn end(&mut self, upload: Upload) {
        self.unwritten = self.unwritten.saturating_sub(upload.unwritten);
    }

    /// Gives a complete upload its name.
    pub fn publish(
        &mut self,
        upload: &Upload,
        path: &StorePath,
    ) -> Result<Published, PublishError> {
        if !upload.held.is_empty() {
            return Err(io::Error::other("the body is not complete").into());
        }
        if upload.jumps != self.jumps {
            // Its time is that of a clock that was wrong, and the sweep may have passed its place already.
            sys::set_modified(&upload.file, sys::now().wall)?;
        }
        let mut tries = 0;
        loop {
            tries += 1;
            match self.try_publish(upload, path) {
                Err(PublishError::Io(error))
                    if error.kind() == io::ErrorKind::NotFound && tries < TRIES => {}
                other => return other,
            }
        }
    }

    /// Takes a published file back, because it could not be made durable. False when it is still there.
    pub fn take_back(&mut self, path: &StorePath) -> bool {
        self.removals += 1;
        let removed = sys::open_folder_below(self.root(), path.folder())
            .and_then(|folder| sys::remove_file(&folder, path.name()));
        self.remove_empty_folders(path);
        match removed {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => {
                self.complain("file not removed", path, &error);
                false
            }
        }
    }

    fn try_publish(
        &mut self,
        upload: &Upload,
        path: &StorePath,
    ) -> Result<Published, PublishError> {
        let mut folders: Vec<OwnedFd> = Vec::new();
        let outcome = self
            .make_folder(path.folder(), &mut folders)
            .and_then(|folder| {
                let name = path.name();
                match (&upload.temporary, self.naming) {
                    (Some(temporary), _) => {
                        sys::link_name(&temporary.folder, &temporary.name, &folder, name)?;
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
                // Whatever stands in a folder that was there keeps it there.
                if !taken || !folders.is_empty() {
                    // To clean up takes descriptors, and the lack of them may be why it failed.
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

    /// Opens a folder, made with all that is missing above it. The parents of those that were made go to `changed`,
    /// from the outside in.
    fn make_folder(&self, path: &[u8], changed: &mut Vec<OwnedFd>) -> io::Result<OwnedFd> {
        let (outer, name) = split(path);
        // The folder of a new slot is never there yet, what is above it nearly always.
        let parent = match outer.map(|outer| (outer, sys::open_folder_below(self.root(), outer))) {
            Some((outer, Err(error))) if error.kind() == io::ErrorKind::NotFound => {
                Some(self.make_folder(outer, changed)?)
            }
            Some((_, opened)) => Some(opened?),
            None => None,
        };
        let parent_fd = parent.as_ref().map_or(self.root(), |fd| fd.as_fd());
        let new = sys::make_folder(parent_fd, name, self.mode(self.dir_mode))?;
        if new && parent.is_none() {
            changed.push(self.root.try_clone()?);
        }
        let folder = sys::open_folder_below(parent_fd, name);
        changed.extend(parent.filter(|_| new));
        folder
    }

    /// Removes the folders above a path from the inside out, as far as they are empty.
    pub(super) fn remove_empty_folders(&self, path: &StorePath) {
        let mut inner = path.folder();
        loop {
            let (outer, name) = split(inner);
            let removed = match outer {
                Some(outer) => sys::open_folder_below(self.root(), outer)
                    .and_then(|folder| sys::remove_folder(&folder, name)),
                None => sys::remove_folder(self.root(), name),
            };
            // One that is not there is as good as removed.
            let gone = match removed {
                Ok(removed) => removed,
                Err(error) => error.kind() == io::ErrorKind::NotFound,
            };
            match outer {
                Some(outer) if gone => inner = outer,
                _ => return,
            }
        }
    }
}

/// What is above the last segment of a path, if anything, and the segment.
fn split(path: &[u8]) -> (Option<&[u8]>, &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (Some(&path[..at]), &path[at + 1..]),
        None => (None, path),
    }
}
