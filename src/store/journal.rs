//! The journal: how a process that removes or imports files notifies every upslot that runs on the same store.
//!
//! `upslot remove` deletes files itself, whether upslot is running or not, and appends to `.upslot/removals` before and
//! after it does. A running upslot checks the size of that file in every turn, before it handles requests, and once more
//! after each publication; it reads the new lines, and updates counters and revoked slots.
//!
//! It is a file and not a socket, because only the store is sure to be shared: by several nodes on one network file
//! system, by a container and the host, by processes of different users, and by a process that is sandboxed to the
//! store. A file cannot flood the loop, is never stale after a crash, needs no process at its other end, and survives a
//! restart, as the revocation of slots must. The price is one stat per turn.
//!
//! Guarantees: on one machine, a request that arrives after the command has returned is answered as if the running
//! process had removed the files itself, and no upload in progress can restore a removed file, because both sides write
//! before they check. Between machines this holds once the attribute cache of the network file system has expired,
//! after some seconds by default.
//!
//! One line is one note: Unix seconds, a word, the owner folder (percent-encoded), files, bytes. Unknown
//! lines are ignored, so that a later version may add some. The file is rotated when it is a day old.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, SystemTime};

use crate::layout::{decode_segment, encode_segment};
use crate::slot::revoked::REMEMBERED;
use crate::store::{Store, UNFINISHED};
use crate::sys::{self, FileKind};

/// The file in the internal folder.
const FILE: &[u8] = b"removals";

/// The previous journal.
const OLD: &[u8] = b"removals.old";

/// Maximum number of bytes read at a time, to keep the turn short.
const MAX_READ: u64 = 256 * 1024;

/// Maximum length of a valid line: a name has at most 255 bytes, encoded as up to three bytes each.
const MAX_LINE: u64 = 1024;

/// Maximum number of attempts if another process removes the new file.
const TRIES: usize = 4;

/// The event of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// All files of the owner are about to be removed; slots issued until now are revoked.
    Revoked,
    /// Files of the owner are about to be removed; their tombstones are recorded.
    Begun,
    /// Files of the owner were removed.
    Removed { files: u64, bytes: u64 },
    /// Files of the owner were imported.
    Added { files: u64, bytes: u64 },
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Unix seconds.
    pub at: u64,
    pub owner: Vec<u8>,
    pub what: What,
}

/// The read position in the journal.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// The file that was read.
    identity: Option<(u64, u64)>,
    /// Bytes of complete lines read.
    offset: u64,
    /// The file's size when all of it was read.
    size: u64,
}

impl Note {
    fn line(&self) -> String {
        let (word, files, bytes) = match self.what {
            What::Revoked => ("revoked", 0, 0),
            What::Begun => ("begun", 0, 0),
            What::Removed { files, bytes } => ("removed", files, bytes),
            What::Added { files, bytes } => ("added", files, bytes),
        };
        let owner = encode_segment(&self.owner);
        format!("{} {word} {owner} {files} {bytes}\n", self.at)
    }

    fn parse(line: &[u8]) -> Option<Note> {
        let mut words = std::str::from_utf8(line).ok()?.split(' ');
        let at = words.next()?.parse().ok()?;
        let word = words.next()?;
        let owner = decode_segment(words.next()?.as_bytes())?.into_owned();
        let (files, bytes) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let what = match word {
            "revoked" => What::Revoked,
            "begun" => What::Begun,
            "removed" => What::Removed { files, bytes },
            "added" => What::Added { files, bytes },
            _ => return None,
        };
        (words.next().is_none() && !owner.is_empty()).then_some(Note { at, owner, what })
    }
}

impl Store {
    /// The lines added to the journal since the last call, or since the store was opened. An empty result means that
    /// there are no more; otherwise there may be more than is read in a turn.
    pub fn new_notes(&mut self) -> io::Result<Vec<Note>> {
        loop {
            let before = self.removals.journal.offset;
            let notes = self.read_notes()?;
            // Skip over lines that are not valid.
            if !notes.is_empty() || self.removals.journal.offset == before {
                return Ok(notes);
            }
        }
    }

    fn read_notes(&mut self) -> io::Result<Vec<Note>> {
        let stat = match sys::stat_at(&self.internal, FILE) {
            Ok(stat) if stat.kind == FileKind::File => stat,
            Ok(_) => return Ok(Vec::new()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let reader = &mut self.removals.journal;
        if reader.identity != Some(stat.identity) || stat.size < reader.offset {
            *reader = Reader {
                identity: Some(stat.identity),
                ..Reader::default()
            };
        }
        if stat.size == reader.size {
            return Ok(Vec::new());
        }
        let file = sys::open_below(self.internal.as_fd(), FILE)?;
        let most = MAX_READ.min(stat.size - reader.offset);
        let mut bytes = vec![0; usize::try_from(most).unwrap_or(0)];
        let read = sys::read_at(&file, &mut bytes, reader.offset)?;
        bytes.truncate(read);
        let end = reader.offset + read as u64;
        let whole = match bytes.iter().rposition(|b| *b == b'\n') {
            Some(last) => last + 1,
            None if read as u64 > MAX_LINE => read,
            None => 0,
        };
        reader.offset += whole as u64;
        if whole == 0 || end >= stat.size {
            reader.size = stat.size;
        }
        let lines = bytes[..whole].split(|b| *b == b'\n');
        Ok(lines.filter_map(Note::parse).collect())
    }

    /// Appends notes; returns what has to be synced to make them durable, from the outside in.
    pub fn note(&self, notes: &[Note]) -> io::Result<Vec<OwnedFd>> {
        let mut text: String = notes.iter().map(Note::line).collect();
        for _ in 0..TRIES {
            let file = self.open_own(self.internal.as_fd(), FILE)?;
            let size = sys::stat_open(&file)?.size;
            let mut last = [b'\n'];
            if size > 0 {
                sys::read_at(
                    sys::open_below(self.internal.as_fd(), FILE)?,
                    &mut last,
                    size - 1,
                )?;
            }
            // A line that a crash cut short must not swallow this one.
            if last != *b"\n" {
                text.insert(0, '\n');
            }
            // Short enough for a write to be complete or to fail.
            if sys::write(&file, text.as_bytes())? != text.len() {
                return Err(io::ErrorKind::WriteZero.into());
            }
            // Another process may have rotated the file.
            let named = sys::stat_at(&self.internal, FILE).map(|stat| stat.identity);
            if named.is_ok_and(|named| sys::stat_open(&file).is_ok_and(|f| f.identity == named)) {
                return Ok(vec![self.internal.try_clone()?, file]);
            }
        }
        Err(io::Error::other("the journal is being removed repeatedly"))
    }

    /// Rotates the journal once nothing in it matters.
    pub fn trim_journal(&self, now: SystemTime) {
        let old = sys::stat_at(&self.internal, FILE).is_ok_and(|stat| {
            let end = stat.modified + Duration::from_secs(REMEMBERED);
            stat.kind == FileKind::File && stat.size > 0 && end < now
        });
        if old {
            // The old file is kept until the next rotation, so that the new one gets another inode.
            let _ = sys::rename(&self.internal, FILE, OLD);
        }
    }

    /// Opens a folder in the internal folder, and creates it with the same owner if it is missing.
    pub(super) fn make_own_folder(&self, name: &[u8]) -> io::Result<OwnedFd> {
        let owner = sys::owner_of(&self.internal)?;
        if self.is_ours(owner) {
            sys::create_folder(&self.internal, name, self.mode(0o700))?;
            return sys::open_folder_below(self.internal.as_fd(), name);
        }
        make_owned(self.internal.as_fd(), name, owner)
    }

    /// Whether files of the running upslot may belong to this process's user: it is the same user, or a member of the
    /// group that shares the store.
    fn is_ours(&self, (user, _): (u32, u32)) -> bool {
        user == sys::user() || (self.modes.shared && sys::user() != 0)
    }

    /// Opens an internal file for appending, in the internal folder or below it. A missing file is created, and belongs
    /// to the internal folder's owner from the start: the superuser must leave nothing that the running upslot cannot
    /// read.
    pub(super) fn open_own(&self, folder: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
        let owner = sys::owner_of(&self.internal)?;
        if self.is_ours(owner) {
            return sys::open_to_append(folder, name, self.mode(0o600));
        }
        let open = || -> io::Result<OwnedFd> {
            let file = sys::open_to_append_existing(folder, name)?;
            let stat = sys::stat_open(&file)?;
            // A link must not make the superuser write into another file.
            if stat.kind != FileKind::File || stat.links != 1 {
                return Err(io::Error::other(
                    "this is not a regular file with a single link",
                ));
            }
            if sys::owner_of(&file)? != owner {
                sys::set_owner(&file, owner)?;
            }
            Ok(file)
        };
        let temporary = format!("own-{}{UNFINISHED}", std::process::id()).into_bytes();
        for _ in 0..TRIES {
            match open() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => return other,
            }
            let _ = sys::remove_file(&self.internal, &temporary);
            let file = sys::open_new(&self.internal, &temporary, self.mode(0o600))?;
            sys::set_owner(&file, owner)?;
            let linked = sys::hard_link(&self.internal, &temporary, folder, name);
            let _ = sys::remove_file(&self.internal, &temporary);
            if let Err(error) = linked {
                // Another process was faster, or cleaned up.
                let again = [io::ErrorKind::AlreadyExists, io::ErrorKind::NotFound];
                if !again.contains(&error.kind()) {
                    return Err(error);
                }
            }
        }
        open()
    }
}

/// Opens a folder, and creates it if it is missing so that it never belongs to another user.
pub(super) fn make_owned(
    parent: BorrowedFd<'_>,
    name: &[u8],
    owner: (u32, u32),
) -> io::Result<OwnedFd> {
    match sys::open_folder_below(parent, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let temporary = format!(".upslot-{}{UNFINISHED}", std::process::id()).into_bytes();
    sys::create_folder(parent, &temporary, 0o700)?;
    sys::set_owner(sys::open_folder_below(parent, &temporary)?, owner)?;
    if sys::rename_folder(parent, &temporary, name).is_err() {
        // Another process was faster.
        let _ = sys::remove_folder(parent, &temporary);
    }
    sys::open_folder_below(parent, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_written_and_parsed() {
        for (owner, what) in [
            (&b"Q_7dsld2o0PGmDXH553Cx_WVmKY"[..], What::Revoked),
            (b"a b\n\xff%", What::Begun),
            (b"y", What::Added { files: 1, bytes: 2 }),
            (
                b"x",
                What::Removed {
                    files: 3,
                    bytes: u64::MAX,
                },
            ),
        ] {
            let note = Note {
                at: 1_800_000_000,
                owner: owner.to_vec(),
                what,
            };
            let line = note.line();
            assert_eq!(line.matches('\n').count(), 1, "{line}");
            let bare = line.trim_end().as_bytes();
            assert_eq!(Note::parse(bare), Some(note));
            for cut in 0..bare.len() {
                // Cut within the last number it is another number, which is as good as unsaid.
                let note = Note::parse(&bare[..cut]);
                assert!(
                    note.is_none() || bare[cut].is_ascii_digit(),
                    "{cut} of {line}"
                );
            }
        }
        for line in [
            &b""[..],
            b"x",
            b"1 revoked",
            b"1 other x 0 0",
            b"1 revoked  0 0",
            b"-1 revoked x 0 0",
            b"1 revoked x 0 0 0",
            b"1 removed %zz 0 0",
            b"\xff revoked x 0 0",
        ] {
            assert_eq!(Note::parse(line), None, "{}", line.escape_ascii());
        }
    }
}
