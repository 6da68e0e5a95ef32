//! The removal journal: how a process that removes files tells every upslot that runs on the same store.
//!
//! `upslot remove` deletes files itself, whether upslot runs or not, and notes in `.upslot/removals` what it is about to
//! do and what it did. A running upslot looks at the size of that file in every turn, before it works on requests, and
//! once more whenever an upload was given its name; it reads what was added, and so learns which of its numbers and
//! slots no longer hold.
//!
//! It is a file and not a socket, because the store is all that is sure to be shared: by several nodes on one network
//! file system, by a container and the host, by processes of different users, by a process that its sandbox confines
//! to the store. A file cannot be flooded into the loop, is never stale after a crash, needs no process at its other
//! end, and survives a restart, which the revocation of slots must. The price is one look per turn.
//!
//! What that guarantees: on one machine a request that comes after the command has returned is answered as if the
//! running process had removed the files itself, and no upload under way can put back what was removed, because both
//! sides write first and look afterwards. Between machines this is true after the time for which their network file
//! system keeps attributes, some seconds by default.
//!
//! One line is one note: Unix seconds, a word, the owner folder (percent-encoded), files, bytes. Lines that are not
//! understood are passed by, so that a later version may add some. The file is started again when it is a day old.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, SystemTime};

use crate::layout::{decode_segment, encode_segment};
use crate::slot::revoked::REMEMBERED;
use crate::store::{Store, UNFINISHED};
use crate::sys::{self, Kind};

/// The file in the internal folder.
const FILE: &[u8] = b"removals";

/// The journal of the day before.
const OLD: &[u8] = b"removals.old";

/// Most bytes that are read at a time, so that a turn stays short.
const MOST_READ: u64 = 256 * 1024;

/// A line that is longer is no line of ours: a name has 255 bytes at most, three for each when encoded.
const LONGEST_LINE: u64 = 1024;

/// How often it is tried again when another process removes what was just made.
const TRIES: usize = 4;

/// What is noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// All files of the owner are about to be removed; slots that were issued until now are void.
    Revoked,
    /// Files of the owner are about to be removed, and their paths are recorded.
    Begun,
    /// Files of the owner were removed.
    Removed { files: u64, bytes: u64 },
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Unix seconds.
    pub at: u64,
    pub owner: Vec<u8>,
    pub what: What,
}

/// How far the journal was read.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// The file that was read.
    identity: Option<(u64, u64)>,
    /// Bytes of whole lines that were read.
    offset: u64,
    /// Its size when all of it was read.
    size: u64,
}

impl Note {
    fn line(&self) -> String {
        let (word, files, bytes) = match self.what {
            What::Revoked => ("revoked", 0, 0),
            What::Begun => ("begun", 0, 0),
            What::Removed { files, bytes } => ("removed", files, bytes),
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
            _ => return None,
        };
        (words.next().is_none() && !owner.is_empty()).then_some(Note { at, owner, what })
    }
}

impl Store {
    /// What was added to the journal since the last call, or since the store was opened. Nothing is left when there is
    /// none; else there may be more than may be read in a turn.
    pub fn new_notes(&mut self) -> io::Result<Vec<Note>> {
        loop {
            let before = self.journal.offset;
            let notes = self.read_notes()?;
            // Lines that are no notes are not the end.
            if !notes.is_empty() || self.journal.offset == before {
                return Ok(notes);
            }
        }
    }

    fn read_notes(&mut self) -> io::Result<Vec<Note>> {
        let facts = match sys::look_at(&self.internal, FILE) {
            Ok(facts) if facts.kind == Kind::File => facts,
            Ok(_) => return Ok(Vec::new()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let reader = &mut self.journal;
        if reader.identity != Some(facts.identity) || facts.size < reader.offset {
            *reader = Reader {
                identity: Some(facts.identity),
                ..Reader::default()
            };
        }
        if facts.size == reader.size {
            return Ok(Vec::new());
        }
        let file = sys::open_below(self.internal.as_fd(), FILE)?;
        let most = MOST_READ.min(facts.size - reader.offset);
        let mut bytes = vec![0; usize::try_from(most).unwrap_or(0)];
        let read = sys::read_at(&file, &mut bytes, reader.offset)?;
        bytes.truncate(read);
        let end = reader.offset + read as u64;
        let whole = match bytes.iter().rposition(|b| *b == b'\n') {
            Some(last) => last + 1,
            None if read as u64 > LONGEST_LINE => read,
            None => 0,
        };
        reader.offset += whole as u64;
        if whole == 0 || end >= facts.size {
            reader.size = facts.size;
        }
        let lines = bytes[..whole].split(|b| *b == b'\n');
        Ok(lines.filter_map(Note::parse).collect())
    }

    /// Adds notes, and returns what has to be synced for them to last, from the outside in.
    pub fn note(&self, notes: &[Note]) -> io::Result<Vec<OwnedFd>> {
        let mut text: String = notes.iter().map(Note::line).collect();
        for _ in 0..TRIES {
            let file = self.open_own(self.internal.as_fd(), FILE)?;
            let size = sys::look_open(&file)?.size;
            let mut last = [b'\n'];
            if size > 0 {
                sys::read_at(
                    sys::open_below(self.internal.as_fd(), FILE)?,
                    &mut last,
                    size - 1,
                )?;
            }
            // A line that a crash cut short spoils no other.
            if last != *b"\n" {
                text.insert(0, '\n');
            }
            // Short enough to be written at once or not at all.
            if sys::write(&file, text.as_bytes())? != text.len() {
                return Err(io::ErrorKind::WriteZero.into());
            }
            // Another process may have started the file again.
            let named = sys::look_at(&self.internal, FILE).map(|facts| facts.identity);
            if named.is_ok_and(|named| sys::look_open(&file).is_ok_and(|f| f.identity == named)) {
                return Ok(vec![self.internal.try_clone()?, file]);
            }
        }
        Err(io::Error::other("the journal is removed again and again"))
    }

    /// Starts the journal again when nothing in it matters any more.
    pub fn trim_journal(&self, now: SystemTime) {
        let old = sys::look_at(&self.internal, FILE).is_ok_and(|facts| {
            let end = facts.modified + Duration::from_secs(REMEMBERED);
            facts.kind == Kind::File && facts.size > 0 && end < now
        });
        if old {
            // It stays for another day, so that the new file is not taken for it.
            let _ = sys::rename(&self.internal, FILE, OLD);
        }
    }

    /// Opens a folder in the internal folder, made where it is missing, and of the same owner.
    pub(super) fn make_own_folder(&self, name: &[u8]) -> io::Result<OwnedFd> {
        let owner = sys::owner_of(&self.internal)?;
        if self.is_ours(owner) {
            sys::make_folder(&self.internal, name, self.mode(0o700))?;
            return sys::open_folder_below(self.internal.as_fd(), name);
        }
        make_owned(self.internal.as_fd(), name, owner)
    }

    /// Whether files of the running upslot may belong to this process's user: it is the same user, or a member of the
    /// group that shares the store.
    fn is_ours(&self, (user, _): (u32, u32)) -> bool {
        user == sys::user() || (self.shared && sys::user() != 0)
    }

    /// Opens a file of our own to append to it, in the internal folder or below it. One that is missing is made, and
    /// belongs to whom the internal folder belongs to from the first moment on: the superuser must leave nothing that
    /// the running upslot cannot read.
    pub(super) fn open_own(&self, folder: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
        let owner = sys::owner_of(&self.internal)?;
        if self.is_ours(owner) {
            return sys::open_to_append(folder, name, self.mode(0o600));
        }
        let open = || -> io::Result<OwnedFd> {
            let file = sys::open_to_append_existing(folder, name)?;
            let facts = sys::look_open(&file)?;
            // Not a way to have the superuser write into something else.
            if facts.kind != Kind::File || facts.links != 1 {
                return Err(io::Error::other(
                    "something else has the place of a file of upslot's own",
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
            let linked = sys::link_name(&self.internal, &temporary, folder, name);
            let _ = sys::remove_file(&self.internal, &temporary);
            if let Err(error) = linked {
                // Somebody else was quicker, or tidied up.
                let again = [io::ErrorKind::AlreadyExists, io::ErrorKind::NotFound];
                if !again.contains(&error.kind()) {
                    return Err(error);
                }
            }
        }
        open()
    }
}

/// Opens a folder, made where it is missing so that it never belongs to anybody else.
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
    sys::make_folder(parent, &temporary, 0o700)?;
    sys::set_owner(sys::open_folder_below(parent, &temporary)?, owner)?;
    if sys::rename_folder(parent, &temporary, name).is_err() {
        // Somebody else was quicker.
        let _ = sys::remove_folder(parent, &temporary);
    }
    sys::open_folder_below(parent, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_what_was_noted() {
        for (owner, what) in [
            (&b"Q_7dsld2o0PGmDXH553Cx_WVmKY"[..], What::Revoked),
            (b"a b\n\xff%", What::Begun),
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
