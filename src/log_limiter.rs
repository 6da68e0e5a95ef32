//! Rate limits for log lines that clients can cause: enough lines to diagnose a problem, too few to fill a disk.
//!
//! Knows neither the log nor a clock. Each kind of line has its own limiter. Within a limiter each subject (a user or an
//! address) has its own rate, so that a flood from one subject does not suppress lines about the others.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

/// The rate for one subject.
const PER_SUBJECT: Rate = Rate {
    burst: 60,
    interval: Duration::from_secs(10),
};

/// The rate for all subjects together; with 300 bytes a line, 26 MB a day.
const TOTAL: Rate = Rate {
    burst: 200,
    interval: Duration::from_secs(1),
};

/// Maximum number of subjects that are tracked; the least recently used one is replaced.
const MAX_SUBJECTS: usize = 64;

#[derive(Clone, Copy, Debug)]
struct Rate {
    /// Lines allowed at once.
    burst: u32,
    /// Time after which one more line is allowed.
    interval: Duration,
}

/// The limiter for lines of one kind.
#[derive(Debug, Default)]
pub struct LogLimiter {
    total: Bucket,
    /// By the hash of the subject; subjects with the same hash share a bucket.
    subjects: Vec<(u64, Bucket)>,
    /// Lines suppressed since the last allowed one.
    suppressed: u64,
}

/// The number of lines suppressed since the last one. Displayed at the end of a line; empty if the number is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suppressed(u64);

impl LogLimiter {
    /// `Some` if a line about this subject may be logged now.
    pub fn allows(&mut self, subject: &str, now: Instant) -> Option<Suppressed> {
        if self.subject(subject).allows(PER_SUBJECT, now) && self.total.allows(TOTAL, now) {
            self.subject(subject).used += 1;
            self.total.used += 1;
            return Some(Suppressed(std::mem::take(&mut self.suppressed)));
        }
        self.suppressed += 1;
        None
    }

    fn subject(&mut self, subject: &str) -> &mut Bucket {
        let mut hasher = DefaultHasher::new();
        subject.hash(&mut hasher);
        let hash = hasher.finish();
        let found = self.subjects.iter().position(|(other, _)| *other == hash);
        let index = found.unwrap_or_else(|| {
            if self.subjects.len() >= MAX_SUBJECTS {
                let subjects = self.subjects.iter().enumerate();
                let oldest = subjects.min_by_key(|(_, (_, bucket))| bucket.last_used);
                if let Some((index, _)) = oldest {
                    self.subjects.swap_remove(index);
                }
            }
            self.subjects.push((hash, Bucket::default()));
            self.subjects.len() - 1
        });
        &mut self.subjects[index].1
    }
}

impl fmt::Display for Suppressed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            lines => write!(f, " suppressed={lines}"),
        }
    }
}

#[derive(Debug, Default)]
struct Bucket {
    /// Lines that count against the burst.
    used: u32,
    /// When `used` was last reduced.
    refilled: Option<Instant>,
    last_used: Option<Instant>,
}

impl Bucket {
    fn allows(&mut self, rate: Rate, now: Instant) -> bool {
        self.last_used = Some(now);
        let refilled = *self.refilled.get_or_insert(now);
        let elapsed = now.saturating_duration_since(refilled).as_nanos();
        match u32::try_from(elapsed / rate.interval.as_nanos()) {
            Ok(lines) if lines < self.used => {
                self.used -= lines;
                self.refilled = Some(refilled + rate.interval * lines);
            }
            _ => {
                self.used = 0;
                self.refilled = Some(now);
            }
        }
        self.used < rate.burst
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_flood_is_limited_to_a_burst_and_then_a_rate() {
        let start = Instant::now();
        let mut limiter = LogLimiter::default();
        let written = |limiter: &mut LogLimiter, at: u64| {
            let lines = (0..1000).filter(|_| limiter.allows("a", after(start, at)).is_some());
            lines.count()
        };
        assert_eq!(written(&mut limiter, 0), 60);
        assert_eq!(written(&mut limiter, 9), 0);
        assert_eq!(written(&mut limiter, 10), 1);
        assert_eq!(written(&mut limiter, 35), 2);
        assert_eq!(written(&mut limiter, 40), 1);
        assert_eq!(written(&mut limiter, 100_000), 60);
    }

    #[test]
    fn the_next_line_has_the_number_of_suppressed_lines() {
        let start = Instant::now();
        let mut limiter = LogLimiter::default();
        let first = limiter.allows("a", start).unwrap();
        assert_eq!(first.to_string(), "");
        for _ in 0..100 {
            limiter.allows("a", start);
        }
        let next = limiter.allows("b", start).unwrap();
        assert_eq!(next.to_string(), " suppressed=41");
        assert_eq!(limiter.allows("b", start), Some(Suppressed(0)));
    }

    #[test]
    fn one_subject_does_not_suppress_another_and_the_total_is_limited() {
        let start = Instant::now();
        let mut limiter = LogLimiter::default();
        for _ in 0..10_000 {
            limiter.allows("flood", start);
        }
        assert!(limiter.allows("other", start).is_some());
        let lines = (0..10_000).filter(|n| limiter.allows(&n.to_string(), start).is_some());
        assert_eq!(lines.count(), 200 - 61);
        assert_eq!(limiter.subjects.len(), MAX_SUBJECTS);
        let lines = (0..10_000).filter(|n| {
            let subject = n.to_string();
            limiter.allows(&subject, after(start, 5)).is_some()
        });
        assert_eq!(lines.count(), 5);
    }
}
