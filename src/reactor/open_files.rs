//! A cache of open files with their response heads, for files that many clients request at the same time, such as a
//! picture just sent to a room. Entries last until the end of the present second.
//!
//! A published file never changes, and the time-dependent fields of a head (`Date`, `Cache-Control`) have a resolution
//! of one second, so within a second the same request has the same response. A deletion by upslot clears the cache; a
//! file that another process deletes is served until the second is over. A file that is requested once is not cached.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::http::response::Answer;
use crate::now::Now;

/// Maximum number of cached files.
const MAX_FILES: usize = 32;

/// Number of places for the paths requested in this second; a power of two.
const SEEN: usize = 256;

/// How long entries are kept if the wall clock stands still.
const SECOND: Duration = Duration::from_secs(1);

/// The cache.
#[derive(Debug)]
pub struct OpenFileCache {
    /// The Unix second and the number of removals for which the entries are valid.
    stamp: (u64, u64),
    /// Digests of requested paths; zero in an empty place.
    seen: Box<[u32; SEEN]>,
    files: Vec<CachedFile>,
    /// The oldest entry, which is replaced next if the cache is full.
    next: usize,
    /// When to close the files if there is no request before.
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
            files: Vec::new(),
            next: 0,
            until: None,
        }
    }
}

impl OpenFileCache {
    /// The file of a plain GET for this path, and its answer. `removals` as [`crate::store::Store::removals`] has it.
    pub fn get(&mut self, path: &[u8], removals: u64, now: Now) -> Option<(Arc<OwnedFd>, Answer)> {
        if self.files.is_empty() {
            return None;
        }
        self.expire(removals, now);
        let digest = digest(path);
        let cached = self
            .files
            .iter()
            .find(|file| file.digest == digest && *file.path == *path)?;
        Some((Arc::clone(&cached.file), cached.answer.clone()))
    }

    /// Records a plain GET for this path and its response. Caches it if it is not the first in this second.
    pub fn record(
        &mut self,
        path: &[u8],
        file: &Arc<OwnedFd>,
        answer: &Answer,
        removals: u64,
        now: Now,
    ) {
        self.expire(removals, now);
        let digest = digest(path);
        let seen = &mut self.seen[digest as usize % SEEN];
        if std::mem::replace(seen, digest) != digest {
            return;
        }
        let cached = CachedFile {
            digest,
            path: path.into(),
            file: Arc::clone(file),
            answer: answer.clone(),
        };
        if self.files.len() < MAX_FILES {
            self.files.push(cached);
        } else {
            self.files[self.next] = cached;
            self.next = (self.next + 1) % MAX_FILES;
        }
        self.until.get_or_insert(now.mono + SECOND);
    }

    /// When [`OpenFileCache::close`] must be called.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Closes all files.
    pub fn close(&mut self) {
        self.seen.fill(0);
        self.files = Vec::new();
        self.next = 0;
        self.until = None;
    }

    /// Closes all files if the second is over or a file was deleted.
    fn expire(&mut self, removals: u64, now: Now) {
        let stamp = (now.unix(), removals);
        if self.stamp != stamp {
            self.close();
            self.stamp = stamp;
        }
    }
}

/// FNV-1a, never zero. Of two paths with the same digest one may be missed by the cache.
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

    /// An open file that contains its own number, with a response.
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
                assert_eq!(repeated.head, answer.head);
                let mut text = String::new();
                let mut found = std::fs::File::from(found.try_clone().unwrap());
                drop((own, repeated));
                let read = found.read_to_string(&mut text);
                // A socket can be read only once.
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
    fn a_file_is_cached_at_the_second_request() {
        let mut open_files = OpenFileCache::default();
        assert!(!ask(&mut open_files, 1, 0, now()));
        assert_eq!(
            open_files.until(),
            None,
            "a file that is requested once is not cached"
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
            "another path is another entry"
        );
    }

    #[test]
    fn entries_end_with_their_second_or_a_removal() {
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
            assert_eq!(open_files.until(), None, "the file is closed");
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
        assert!(open_files.files.is_empty());
    }

    #[test]
    fn the_number_of_cached_files_is_bounded() {
        let mut open_files = OpenFileCache::default();
        for _ in 0..3 {
            for number in 0..1000 {
                ask(&mut open_files, number, 0, now());
            }
        }
        for number in 0..MAX_FILES + 8 {
            for _ in 0..2 {
                ask(&mut open_files, 10_000 + number, 0, now());
            }
        }
        assert_eq!(open_files.files.len(), MAX_FILES);
        assert!(
            ask(&mut open_files, 10_000 + MAX_FILES + 7, 0, now()),
            "the last one is cached"
        );
    }
}
