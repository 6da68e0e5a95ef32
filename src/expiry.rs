//! Which files expire: by age, or at the fixed end that their path tells; and which are the oldest files of an owner.
//!
//! Pure: it gets paths, sizes and times, and selects files; the store removes them.

use std::collections::BinaryHeap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::clock::FileTimes;
use crate::layout::{Expiry, StorePath, Tag};
use crate::policy::pool::Pool;
use crate::purpose::Purpose;

/// The lifetime of files by purpose; zero is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetime {
    /// Also applies to legacy and foreign files.
    pub message: Duration,
    pub profile: Duration,
    pub ephemeral: Duration,
    pub permanent: Duration,
}

impl Lifetime {
    /// The age at which a file of this purpose expires; zero is never.
    pub fn of(&self, purpose: Purpose) -> Duration {
        match purpose {
            Purpose::Message => self.message,
            Purpose::Profile => self.profile,
            Purpose::Ephemeral { .. } => self.ephemeral,
            Purpose::Permanent => self.permanent,
        }
    }

    /// The time at which a file expires; `None` if it never does. `tag` comes from its path.
    pub fn end(&self, tag: Option<Tag>, modified: SystemTime) -> Option<SystemTime> {
        let tag = tag.unwrap_or(Purpose::Message.into());
        let max_age = match tag.end {
            Expiry::Age(age) => Duration::from_secs(age),
            Expiry::Default | Expiry::Never | Expiry::At(_) => self.of(tag.purpose),
        };
        let aged = || modified.checked_add(max_age).filter(|_| !max_age.is_zero());
        let own = hard_end(Some(tag));
        match (tag.purpose, tag.end) {
            (Purpose::Ephemeral { .. }, _) => match (own, aged()) {
                (Some(own), Some(aged)) => Some(own.min(aged)),
                (own, aged) => own.or(aged),
            },
            (_, Expiry::Default | Expiry::Age(_)) => aged(),
            (_, Expiry::Never) => None,
            (_, Expiry::At(_)) => own,
        }
    }
}

/// The fixed end in a file's path, after which it must not be served even if the sweep has not removed it: of an
/// ephemeral file (XEP-0363 §5), or set by a rule or another server.
pub fn hard_end(tag: Option<Tag>) -> Option<SystemTime> {
    let end = match tag? {
        Tag {
            purpose: Purpose::Ephemeral { expire_before },
            ..
        } => expire_before,
        Tag {
            end: Expiry::At(end),
            ..
        } => end,
        _ => return None,
    };
    UNIX_EPOCH.checked_add(Duration::from_secs(end))
}

/// A stored file; the oldest first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoredFile {
    pub modified: SystemTime,
    pub path: StorePath,
    /// Bytes.
    pub size: u64,
}

/// Picks the oldest files that together have at least a number of bytes. Memory does not grow with the number of files
/// considered.
#[derive(Debug)]
pub struct Oldest {
    need: u64,
    sum: u64,
    /// Bytes of all files considered.
    seen: u64,
    most: usize,
    picked: BinaryHeap<StoredFile>,
}

impl Oldest {
    /// Picks files for `need` bytes, but at most `most` files.
    pub fn new(need: u64, most: usize) -> Oldest {
        Oldest {
            need,
            sum: 0,
            seen: 0,
            most,
            picked: BinaryHeap::new(),
        }
    }

    /// Considers one more file.
    pub fn consider(&mut self, candidate: StoredFile) {
        self.seen = self.seen.saturating_add(candidate.size);
        if self.sum >= self.need && self.picked.peek().is_some_and(|top| *top <= candidate) {
            return;
        }
        self.sum = self.sum.saturating_add(candidate.size);
        self.picked.push(candidate);
        while let Some(top) = self.picked.peek() {
            let superfluous = self.sum - top.size >= self.need;
            if !superfluous && self.picked.len() <= self.most {
                break;
            }
            self.sum -= top.size;
            self.picked.pop();
        }
    }

    /// The files picked.
    pub fn finish(self) -> Victims {
        let coverage = if self.sum >= self.need {
            Coverage::Enough
        } else if self.seen >= self.need {
            Coverage::Part
        } else {
            Coverage::Never
        };
        Victims {
            victims: self.picked.into_sorted_vec(),
            coverage,
        }
    }
}

/// The files picked, and whether they suffice.
#[derive(Debug)]
pub struct Victims {
    /// Oldest first.
    pub victims: Vec<StoredFile>,
    pub coverage: Coverage,
}

/// Whether enough bytes can be freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// The picked files suffice.
    Enough,
    /// The maximum number of files was picked; another search will find more.
    Part,
    /// All files together do not suffice, so none should be removed.
    Never,
}

/// Which files to remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub owner: Vec<u8>,
    /// Bytes to free.
    pub need: u64,
    /// The classes of files that may be removed.
    pub pool: Pool,
    /// If false, nothing is removed; only [`Trimmed::newest`] is determined.
    pub remove: bool,
}

/// The result of an order.
#[derive(Debug)]
pub struct Trimmed {
    pub order: Order,
    /// Bytes and files removed.
    pub freed: u64,
    pub files: u64,
    /// The modification time of the youngest file that would have to be removed; `None` if all files together do not
    /// suffice.
    pub newest: Option<SystemTime>,
}

/// For which removed paths an upload URL may still be valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TombstonePolicy {
    /// Whether signatures of other servers are accepted; they never expire, and are for paths without a tag.
    pub foreign: bool,
    /// The lifetime of upslot's own slots.
    pub slot_life: Duration,
}

impl TombstonePolicy {
    /// Whether an upload URL for this path may still be valid after the file is deleted. A slot was issued before its
    /// file was stored, and the path of a file with a fixed end is refused from then on.
    pub fn needs_tombstone(
        &self,
        path: &StorePath,
        modified: SystemTime,
        times: &FileTimes,
        now: SystemTime,
    ) -> bool {
        if path.tag().is_none() {
            return self.foreign;
        }
        let stored = times.stored(modified);
        let age = now.duration_since(stored).unwrap_or_default();
        let has_ended = hard_end(path.tag()).is_some_and(|end| end <= now);
        age <= self.slot_life && !has_ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[track_caller]
    fn check(max_age: u64, tag: Option<Tag>, end: Option<u64>) {
        let max_age = Duration::from_secs(max_age);
        let lifetime = Lifetime {
            message: max_age,
            ephemeral: max_age,
            ..Lifetime::default()
        };
        assert_eq!(
            lifetime.end(tag, at(1000)),
            end.map(at),
            "{max_age:?} {tag:?}"
        );
    }

    #[test]
    fn age_zero_is_unlimited() {
        let ephemeral = |expire_before| Some(Purpose::Ephemeral { expire_before }.into());
        let message = |end| {
            Some(Tag {
                purpose: Purpose::Message,
                end,
                size: None,
            })
        };
        check(0, None, None);
        check(0, message(Expiry::Default), None);
        check(0, message(Expiry::At(1234)), Some(1234));
        check(60, None, Some(1060));
        check(60, message(Expiry::Default), Some(1060));
        check(60, message(Expiry::Never), None);
        check(60, message(Expiry::At(9999)), Some(9999));
        check(60, message(Expiry::At(u64::MAX)), None);
        check(60, Some(Purpose::Profile.into()), None);
        check(60, Some(Purpose::Permanent.into()), None);
        check(0, ephemeral(1020), Some(1020));
        check(60, ephemeral(1020), Some(1020));
        check(60, ephemeral(2000), Some(1060));
        check(u64::MAX, None, None);
    }

    #[test]
    fn an_explicit_age_overrides_that_of_the_purpose() {
        let aged = |purpose, age| {
            Some(Tag {
                purpose,
                end: Expiry::Age(age),
                size: None,
            })
        };
        for purpose in [Purpose::Message, Purpose::Profile, Purpose::Permanent] {
            check(0, aged(purpose, 70), Some(1070));
            check(60, aged(purpose, 70), Some(1070));
            check(60, aged(purpose, u64::MAX), None);
        }
        let ephemeral = |expire_before| Purpose::Ephemeral { expire_before };
        check(60, aged(ephemeral(1020), 70), Some(1020));
        check(60, aged(ephemeral(2000), 70), Some(1070));
        check(60, aged(ephemeral(2000), u64::MAX), Some(2000));
        assert_eq!(hard_end(aged(Purpose::Message, 1)), None);
        assert_eq!(hard_end(aged(ephemeral(1020), 1)), Some(at(1020)));
    }

    fn path(name: &str) -> StorePath {
        StorePath::from_segments([&b"owner"[..], name.as_bytes()].into_iter()).unwrap()
    }

    #[track_caller]
    fn picks(need: u64, most: usize, files: &[(u64, u64)], victims: &[u64], coverage: Coverage) {
        let mut oldest = Oldest::new(need, most);
        for (modified, size) in files {
            oldest.consider(StoredFile {
                modified: at(*modified),
                path: path(&modified.to_string()),
                size: *size,
            });
        }
        let Victims {
            victims: found,
            coverage: covered,
        } = oldest.finish();
        let times: Vec<SystemTime> = victims.iter().copied().map(at).collect();
        assert_eq!(
            found.iter().map(|c| c.modified).collect::<Vec<_>>(),
            times,
            "need {need}"
        );
        assert_eq!(covered, coverage, "need {need}");
    }

    #[test]
    fn only_as_many_of_the_oldest_files_are_picked_as_needed() {
        let files = [(30, 10), (10, 10), (40, 10), (20, 10)];
        picks(0, 9, &files, &[], Coverage::Enough);
        picks(1, 9, &files, &[10], Coverage::Enough);
        picks(10, 9, &files, &[10], Coverage::Enough);
        picks(11, 9, &files, &[10, 20], Coverage::Enough);
        picks(40, 9, &files, &[10, 20, 30, 40], Coverage::Enough);
        picks(41, 9, &files, &[10, 20, 30, 40], Coverage::Never);
        picks(40, 2, &files, &[10, 20], Coverage::Part);
        picks(
            15,
            9,
            &[(3, 1), (2, 100), (1, 1)],
            &[1, 2],
            Coverage::Enough,
        );
        picks(5, 9, &[], &[], Coverage::Never);
        picks(
            u64::MAX,
            9,
            &[(1, u64::MAX), (2, u64::MAX)],
            &[1],
            Coverage::Enough,
        );
    }
}
