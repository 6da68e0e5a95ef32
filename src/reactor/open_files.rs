//! A cache of open files, for files that are requested several times within a second, such as pictures just sent to a
//! room; and of their responses to plain GETs. Entries last until the end of the present second.
//!
//! A published file never changes, and the time-dependent fields of a head (`Date`, `Cache-Control`) have a resolution
//! of one second, so within a second the same request has the same response. A deletion by upslot clears the cache; a
//! file that another process deletes is served until the second is over. A file that is requested once in two seconds is
//! not cached.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::http::response::Answer;
use crate::layout::StorePath;
use crate::now::Now;
use crate::service::StoredFile;

/// Maximum number of cached files, if the limit of descriptors allows for so many. With their heads they take about a
/// megabyte.
const MAX_FILES: usize = 1024;

/// Capacity if no descriptors are left for the cache. When they run out, the cache is closed.
const MIN_FILES: usize = 32;

/// Longest path of a cached file in bytes, which bounds the memory of the cache.
const MAX_PATH: usize = 1024;

/// Number of sets, to one of which each path belongs, and number of paths kept in each. Single places would be shared by
/// every fifth of a thousand files that are requested in turn, so that none of these would be cached.
const SETS: usize = 1024;
const SET_SIZE: usize = 4;

/// How long entries are kept if the wall clock stands still.
const SECOND: Duration = Duration::from_secs(1);

/// The cache.
#[derive(Debug)]
pub struct OpenFileCache {
    /// The Unix second and the number of removals for which the entries are valid.
    stamp: (u64, u64),
    /// The paths of each set that were requested last, the latest first.
    seen: Box<[[Request; SET_SIZE]]>,
    hasher: RandomState,
    /// By path, as in the request's target.
    files: HashMap<Box<[u8]>, CachedFile, RandomState>,
    /// Maximum number of cached files.
    capacity: usize,
    /// When to close the files if there is no request before.
    until: Option<Instant>,
}

/// The last request for a path.
#[derive(Clone, Copy, Debug, Default)]
struct Request {
    /// Of the path.
    hash: u32,
    /// Low bits of the Unix second.
    second: u32,
}

/// An open file, and what its responses depend on.
#[derive(Debug)]
pub struct OpenFile {
    pub file: Arc<OwnedFd>,
    pub path: StorePath,
    pub facts: StoredFile,
}

/// A file in the cache.
#[derive(Debug)]
pub struct CachedFile {
    pub open: OpenFile,
    /// The response to a plain GET, once there was one.
    pub answer: Option<Answer>,
}

impl Default for OpenFileCache {
    fn default() -> OpenFileCache {
        let hasher = RandomState::new();
        OpenFileCache {
            stamp: (0, 0),
            seen: vec![[Request::default(); SET_SIZE]; SETS].into_boxed_slice(),
            files: HashMap::with_hasher(hasher.clone()),
            hasher,
            capacity: MIN_FILES,
            until: None,
        }
    }
}

impl OpenFileCache {
    /// Sets the capacity, within bounds, to the number of descriptors that are `unused` even with all connections open.
    pub fn set_capacity(&mut self, unused: usize) {
        self.capacity = unused.clamp(MIN_FILES, MAX_FILES);
    }

    /// The file of a request for this path. `removals` as [`crate::store::Store::removals`] has it.
    pub fn get(&mut self, path: &[u8], removals: u64, now: Now) -> Option<&mut CachedFile> {
        if self.files.is_empty() {
            return None;
        }
        self.expire(removals, now);
        self.files.get_mut(path)
    }

    /// Records a request for this path. Caches its file if it is not the first in this second and the previous one. If
    /// the cache is full, it stays as it is until the second is over.
    pub fn record(&mut self, path: &[u8], open: OpenFile, removals: u64, now: Now) {
        self.expire(removals, now);
        let is_repeated = self.is_repeated(path);
        if !is_repeated || self.files.len() >= self.capacity || path.len() > MAX_PATH {
            return;
        }
        let cached = CachedFile { open, answer: None };
        self.files.insert(path.into(), cached);
        self.until.get_or_insert(now.mono + SECOND);
    }

    /// When [`OpenFileCache::close`] must be called.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Closes all files.
    pub fn close(&mut self) {
        self.files = HashMap::with_hasher(self.hasher.clone());
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

    /// Whether the path was requested before in this second or the previous one, so that a file in demand is opened once
    /// a second. It may be missed, if many other paths were requested since.
    fn is_repeated(&mut self, path: &[u8]) -> bool {
        let hash = self.hasher.hash_one(path);
        let request = Request {
            hash: (hash >> 32) as u32,
            second: self.stamp.0 as u32,
        };
        let set = &mut self.seen[hash as usize % SETS];
        let found = set.iter().position(|last| last.hash == request.hash);
        let place = found.unwrap_or(SET_SIZE - 1);
        let last = set[place];
        set[..=place].rotate_right(1);
        set[0] = request;
        found.is_some() && request.second.wrapping_sub(last.second) <= 1
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::time::{Instant, SystemTime};

    use super::*;

    fn now() -> Now {
        let whole = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
        Now {
            mono: Instant::now(),
            wall: whole,
        }
    }

    /// An open file that contains its own number.
    fn file(number: usize) -> Arc<OwnedFd> {
        let text = number.to_string();
        let (reader, mut writer) = UnixStream::pair().unwrap();
        std::io::Write::write_all(&mut writer, text.as_bytes()).unwrap();
        Arc::new(OwnedFd::from(reader))
    }

    fn open(file: &Arc<OwnedFd>, number: usize) -> OpenFile {
        OpenFile {
            file: Arc::clone(file),
            path: StorePath::from_segments([&b"o"[..], b"r", b"name"].into_iter()).unwrap(),
            facts: StoredFile {
                size: number as u64,
                modified: now().wall,
                stored: now().wall,
                content_type: None,
                utf8: false,
            },
        }
    }

    fn ask(open_files: &mut OpenFileCache, number: usize, removals: u64, now: Now) -> bool {
        let path = format!("/o/r/{number}").into_bytes();
        match open_files.get(&path, removals, now) {
            Some(CachedFile { open, answer }) => {
                assert_eq!(open.facts.size, number as u64);
                assert!(answer.is_none());
                let mut text = String::new();
                let mut found = std::fs::File::from(open.file.try_clone().unwrap());
                let read = found.read_to_string(&mut text);
                // A socket can be read only once.
                assert!(read.is_ok() && (text.is_empty() || text == number.to_string()));
                true
            }
            None => {
                open_files.record(&path, open(&file(number), number), removals, now);
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
            assert!(ask(&mut open_files, 1, 0, now()));
            let then = now().later(Duration::from_secs(later));
            assert!(
                !ask(&mut open_files, 2, removals, then),
                "{removals} {later}"
            );
            assert_eq!(open_files.until(), None, "the file is closed");
            assert!(
                !ask(&mut open_files, 1, removals, then),
                "{removals} {later}"
            );
            assert_eq!(ask(&mut open_files, 1, removals, then), later <= 1);
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

    /// How many of these paths are cached, when each is requested once. All of them name one file.
    fn hits(
        open_files: &mut OpenFileCache,
        file: &Arc<OwnedFd>,
        numbers: std::ops::Range<usize>,
        now: Now,
    ) -> usize {
        let mut is_cached = |number: &usize| {
            let path = format!("/o/r/{number}").into_bytes();
            let cached = open_files.get(&path, 0, now).is_some();
            if !cached {
                open_files.record(&path, open(file, *number), 0, now);
            }
            cached
        };
        numbers.filter(|number| is_cached(number)).count()
    }

    #[test]
    fn the_number_of_cached_files_is_bounded() {
        let file = file(1);
        for (unused, capacity) in [(0, MIN_FILES), (100, 100), (100_000, MAX_FILES)] {
            let mut open_files = OpenFileCache::default();
            open_files.set_capacity(unused);
            for number in 0..capacity + 8 {
                for _ in 0..2 {
                    assert_eq!(hits(&mut open_files, &file, number..number + 1, now()), 0);
                }
            }
            assert_eq!(open_files.files.len(), capacity, "{unused}");
            assert_eq!(Arc::strong_count(&file), capacity + 1, "{unused}");
            let last = capacity + 7..capacity + 8;
            assert_eq!(hits(&mut open_files, &file, last.clone(), now()), 0);
            assert_eq!(hits(&mut open_files, &file, 0..1, now()), 1);
            let then = now().later(SECOND);
            assert_eq!(hits(&mut open_files, &file, last.clone(), then), 0);
            assert_eq!(
                hits(&mut open_files, &file, last, then),
                1,
                "the next second begins with an empty cache"
            );
            assert_eq!(Arc::strong_count(&file), 2, "{unused}");
        }
    }

    #[test]
    fn a_thousand_files_in_turn_are_cached() {
        let file = file(1);
        let mut open_files = OpenFileCache::default();
        open_files.set_capacity(MAX_FILES);
        let mut hits = |now: Now| hits(&mut open_files, &file, 0..1000, now);
        assert_eq!([hits(now()), hits(now())], [0, 0]);
        // A few are in sets with many others.
        assert!(hits(now()) > 900);
        let then = now().later(SECOND);
        assert_eq!(hits(then), 0);
        assert!(hits(then) > 900);
        let later = now().later(3 * SECOND);
        assert_eq!([hits(later), hits(later)], [0, 0]);
    }

    #[test]
    fn a_long_path_is_not_cached() {
        let mut open_files = OpenFileCache::default();
        let file = file(1);
        for (length, cached) in [(MAX_PATH, true), (MAX_PATH + 1, false)] {
            let path = vec![b'a'; length];
            for _ in 0..2 {
                open_files.record(&path, open(&file, 1), 0, now());
            }
            assert_eq!(open_files.get(&path, 0, now()).is_some(), cached);
        }
    }
}
