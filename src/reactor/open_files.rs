//! Files that are asked for over and over, such as a picture just sent to a room: kept open, with the head of their
//! answer, for the rest of the second in which they were asked for.
//!
//! A published file never changes, and what a head says of the moment (`Date`, `Cache-Control`) it says in whole
//! seconds: so within one second the same request has the same answer. Whatever upslot itself removes is forgotten at
//! once; a file that somebody else removes can be had until the second is over, and no longer. Nothing is kept of a
//! file that is asked for once.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::http::response::Answer;
use crate::now::Now;

/// Files that are kept open at most.
const MOST: usize = 32;

/// Places for what was asked for once in this second; a power of two.
const SEEN: usize = 256;

/// For how long the wall clock can show the same second, if it is a sound one.
const SECOND: Duration = Duration::from_secs(1);

/// The kept files.
#[derive(Debug)]
pub struct OpenFileCache {
    /// The Unix second and the number of removals for which everything here holds.
    stamp: (u64, u64),
    /// Digests of paths; an empty place is zero.
    seen: Box<[u32; SEEN]>,
    kept: Vec<CachedFile>,
    /// The oldest of those kept, once there are as many as may be.
    next: usize,
    /// When to close what is kept, if nobody asks before.
    until: Option<Instant>,
}

#[derive(Debug)]
struct CachedFile {
    digest: u32,
    /// As in the request's target.
    path: Box<[u8]>,
    file: Arc<OwnedFd>,
    answer: Answer,
}

impl Default for OpenFileCache {
    fn default() -> OpenFileCache {
        OpenFileCache {
            stamp: (0, 0),
            seen: Box::new([0; SEEN]),
            kept: Vec::new(),
            next: 0,
            until: None,
        }
    }
}

impl OpenFileCache {
    /// The file of a plain GET for this path, and its answer. `removals` as [`crate::store::Store::removals`] has it.
    pub fn get(&mut self, path: &[u8], removals: u64, now: Now) -> Option<(Arc<OwnedFd>, Answer)> {
        if self.kept.is_empty() {
            return None;
        }
        self.look_at_time(removals, now);
        let digest = digest(path);
        let kept = self
            .kept
            .iter()
            .find(|kept| kept.digest == digest && *kept.path == *path)?;
        Some((Arc::clone(&kept.file), kept.answer.repeated()))
    }

    /// A plain GET for this path is about to be answered; kept when it is not the first in this second.
    pub fn record(
        &mut self,
        path: &[u8],
        file: &Arc<OwnedFd>,
        answer: &Answer,
        removals: u64,
        now: Now,
    ) {
        self.look_at_time(removals, now);
        let digest = digest(path);
        let seen = &mut self.seen[digest as usize % SEEN];
        if std::mem::replace(seen, digest) != digest {
            return;
        }
        let kept = CachedFile {
            digest,
            path: path.into(),
            file: Arc::clone(file),
            answer: answer.repeated(),
        };
        if self.kept.len() < MOST {
            self.kept.push(kept);
        } else {
            self.kept[self.next] = kept;
            self.next = (self.next + 1) % MOST;
        }
        self.until.get_or_insert(now.mono + SECOND);
    }

    /// The moment at which [`OpenFileCache::close`] must be called.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Closes everything.
    pub fn close(&mut self) {
        self.seen.fill(0);
        self.kept = Vec::new();
        self.next = 0;
        self.until = None;
    }

    /// Forgets what holds no longer.
    fn look_at_time(&mut self, removals: u64, now: Now) {
        let stamp = (now.unix(), removals);
        if self.stamp != stamp {
            self.close();
            self.stamp = stamp;
        }
    }
}

/// FNV-1a, never zero. Two paths with the same digest cost one of them its place, no more.
fn digest(path: &[u8]) -> u32 {
    let hash = path.iter().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    hash | 1
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::time::{Instant, SystemTime};

    use super::*;
    use crate::http::head::RequestHead;
    use crate::http::response::{Common, FileFacts};

    fn now() -> Now {
        let whole = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
        Now {
            mono: Instant::now(),
            wall: whole,
        }
    }

    /// An open file that holds its own number, and an answer that says so.
    fn file(number: usize) -> (Vec<u8>, Arc<OwnedFd>, Answer) {
        let path = format!("/o/r/{number}").into_bytes();
        let text = number.to_string();
        let (reader, mut writer) = UnixStream::pair().unwrap();
        std::io::Write::write_all(&mut writer, text.as_bytes()).unwrap();
        let facts = FileFacts {
            name: text.as_bytes(),
            size: text.len() as u64,
            modified: now().wall,
            content_type: "text/plain",
            inline: true,
            expires_at: None,
        };
        let head = [b"GET ", &path[..], b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
        let request = RequestHead::parse(&head).unwrap();
        let answer = Common::new(false, Vec::new()).file(&request, &facts, now());
        (path, Arc::new(OwnedFd::from(reader)), answer)
    }

    fn ask(open_files: &mut OpenFileCache, number: usize, removals: u64, now: Now) -> bool {
        let (path, own, answer) = file(number);
        match open_files.get(&path, removals, now) {
            Some((found, repeated)) => {
                assert_eq!(repeated.head_for_test(), answer.head_for_test());
                let mut text = String::new();
                let mut found = std::fs::File::from(found.try_clone().unwrap());
                drop((own, repeated));
                let read = found.read_to_string(&mut text);
                // A socket is read once; what it gave is what was kept under this path.
                assert!(read.is_ok() && (text.is_empty() || text == number.to_string()));
                true
            }
            None => {
                open_files.record(&path, &own, &answer, removals, now);
                false
            }
        }
    }

    #[test]
    fn the_second_request_is_the_first_to_be_kept() {
        let mut open_files = OpenFileCache::default();
        assert!(!ask(&mut open_files, 1, 0, now()));
        assert_eq!(
            open_files.until(),
            None,
            "nothing is held of what is asked for once"
        );
        assert!(!ask(&mut open_files, 1, 0, now()));
        assert!(open_files.until().is_some());
        assert!(ask(&mut open_files, 1, 0, now()));
        assert!(ask(
            &mut open_files,
            1,
            0,
            now().later(Duration::from_millis(999))
        ));
        assert!(
            !ask(&mut open_files, 2, 0, now()),
            "another path is another file"
        );
    }

    #[test]
    fn nothing_outlives_its_second_or_a_removal() {
        for (removals, later) in [(0, 1), (1, 0), (0, 3600)] {
            let mut open_files = OpenFileCache::default();
            for _ in 0..2 {
                ask(&mut open_files, 1, 0, now());
            }
            let then = now().later(Duration::from_secs(later));
            assert!(
                !ask(&mut open_files, 1, removals, then),
                "{removals} {later}"
            );
            assert_eq!(open_files.until(), None, "it is closed, too");
        }
        let mut open_files = OpenFileCache::default();
        for _ in 0..2 {
            ask(&mut open_files, 1, 0, now());
        }
        let mut back = now();
        back.wall -= Duration::from_secs(3600);
        assert!(
            !ask(&mut open_files, 1, 0, back),
            "the wall clock was set back"
        );
        open_files.close();
        assert!(open_files.kept.is_empty());
    }

    #[test]
    fn few_are_kept_however_many_are_asked_for() {
        let mut open_files = OpenFileCache::default();
        for _ in 0..3 {
            for number in 0..1000 {
                ask(&mut open_files, number, 0, now());
            }
        }
        for number in 0..MOST + 8 {
            for _ in 0..2 {
                ask(&mut open_files, 10_000 + number, 0, now());
            }
        }
        assert_eq!(open_files.kept.len(), MOST);
        assert!(
            ask(&mut open_files, 10_000 + MOST + 7, 0, now()),
            "the last one is kept"
        );
    }
}
