//! Which files must go: by age, by an ephemeral file's own end, or as the oldest of an owner.
//!
//! Pure: it is told paths, sizes and times, and names victims; the store removes them.

use std::collections::BinaryHeap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::layout::{Expiry, Tag};
use crate::purpose::Purpose;

/// How long files live, by purpose: the age from which a file may go; zero is for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetime {
    /// Also of files of other making.
    pub message: Duration,
    pub profile: Duration,
    pub ephemeral: Duration,
    pub permanent: Duration,
}

impl Lifetime {
    /// The age from which a file of this purpose may go; zero is for ever.
    pub fn of(&self, purpose: Purpose) -> Duration {
        match purpose {
            Purpose::Message => self.message,
            Purpose::Profile => self.profile,
            Purpose::Ephemeral { .. } => self.ephemeral,
            Purpose::Permanent => self.permanent,
        }
    }

    /// The moment from which a file must be gone; `None` when it has no end. `tag` is what the tree tells.
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

/// The moment from which a file must not be served, swept or not, because its path says so: an ephemeral file's
/// (XEP-0363 §5), or one that a rule or another server has set.
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

/// One file that may have to go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    pub modified: SystemTime,
    /// Relative to `storage_path`.
    pub path: Vec<u8>,
    /// Bytes.
    pub size: u64,
}

/// Picks the oldest files that together hold at least a number of bytes, in memory that does not grow with the
/// number of files looked at.
#[derive(Debug)]
pub struct Oldest {
    need: u64,
    sum: u64,
    /// Bytes of all files that were looked at.
    seen: u64,
    most: usize,
    picked: BinaryHeap<Candidate>,
}

impl Oldest {
    /// `need` bytes are to be freed; at most `most` files are held at a time.
    pub fn new(need: u64, most: usize) -> Oldest {
        Oldest {
            need,
            sum: 0,
            seen: 0,
            most,
            picked: BinaryHeap::new(),
        }
    }

    /// Looks at one more file.
    pub fn consider(&mut self, candidate: Candidate) {
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

    /// What was found.
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

/// The victims, and how far they go.
#[derive(Debug)]
pub struct Victims {
    /// Oldest first.
    pub victims: Vec<Candidate>,
    pub coverage: Coverage,
}

/// Whether enough bytes can be freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// The victims are enough.
    Enough,
    /// They are as many as may be held at a time; a further look finds more.
    Part,
    /// All files together are too few, so none should go.
    Never,
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
    fn age_zero_is_for_ever() {
        let ephemeral = |expire_before| Some(Purpose::Ephemeral { expire_before }.into());
        let message = |end| {
            Some(Tag {
                purpose: Purpose::Message,
                end,
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
    fn an_age_of_its_own_goes_before_that_of_the_purpose() {
        let aged = |purpose, age| {
            Some(Tag {
                purpose,
                end: Expiry::Age(age),
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

    #[track_caller]
    fn picks(need: u64, most: usize, files: &[(u64, u64)], victims: &[u64], coverage: Coverage) {
        let mut oldest = Oldest::new(need, most);
        for (modified, size) in files {
            oldest.consider(Candidate {
                modified: at(*modified),
                path: modified.to_string().into_bytes(),
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
    fn the_oldest_go_first_and_no_more_than_needed() {
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
