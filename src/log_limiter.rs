//! Rate limits for log lines: enough lines to diagnose a problem, too few to fill a disk.
//!
//! Knows neither the log nor a clock. A [`LogLimiter`] is for lines of one kind that clients can cause; each subject (a
//! user or an address) has its own rate, so that a flood from one subject does not suppress lines about the others. A
//! [`RepeatLimiter`] is for lines about a state of the host, such as a failing disk.

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

/// The rate of a repeated message.
const PER_MESSAGE: Rate = Rate {
    burst: 1,
    interval: Duration::from_secs(60),
};

/// Maximum number of subjects that are tracked; the one that has logged least is replaced.
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
    total: TokenBucket,
    subjects: Subjects,
    /// Lines suppressed since the last allowed one.
    suppressed: u64,
}

/// The number of lines suppressed since the last one. Displayed at the end of a line; empty if the number is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suppressed(u64);

impl LogLimiter {
    /// `Some` if a line about this subject may be logged now.
    pub fn allows(&mut self, subject: &str, now: Instant) -> Option<Suppressed> {
        let subject = self.subjects.bucket(subject, now);
        let after = (
            subject.after_line(PER_SUBJECT, now),
            self.total.after_line(TOTAL, now),
        );
        let (Some(of_subject), Some(total)) = after else {
            self.suppressed += 1;
            return None;
        };
        (*subject, self.total) = (of_subject, total);
        Some(Suppressed(std::mem::take(&mut self.suppressed)))
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

/// The limiter for repeated messages.
#[derive(Debug, Default)]
pub struct RepeatLimiter(Subjects);

impl RepeatLimiter {
    /// Whether to log this message now: not if it was logged within the last minute.
    pub fn should_log(&mut self, message: &str, now: Instant) -> bool {
        let bucket = self.0.bucket(message, now);
        let after = bucket.after_line(PER_MESSAGE, now);
        *bucket = after.unwrap_or(*bucket);
        after.is_some()
    }
}

/// Buckets by the hash of the subject; subjects with the same hash share a bucket.
#[derive(Debug, Default)]
struct Subjects(Vec<(u64, TokenBucket)>);

impl Subjects {
    fn bucket(&mut self, subject: &str, now: Instant) -> &mut TokenBucket {
        let mut hasher = DefaultHasher::new();
        subject.hash(&mut hasher);
        let hash = hasher.finish();
        let found = self.0.iter().position(|(other, _)| *other == hash);
        let index = found.unwrap_or_else(|| {
            if self.0.len() >= MAX_SUBJECTS {
                let subjects = self.0.iter().enumerate();
                let fullest = subjects.min_by_key(|(_, (_, bucket))| bucket.full_at);
                if let Some((index, _)) = fullest {
                    self.0.swap_remove(index);
                }
            }
            self.0.push((hash, TokenBucket { full_at: Some(now) }));
            self.0.len() - 1
        });
        &mut self.0[index].1
    }
}

/// Holds the lines that may be logged at once; refilled with one line per interval.
#[derive(Clone, Copy, Debug, Default)]
struct TokenBucket {
    /// When it holds the whole burst again.
    full_at: Option<Instant>,
}

impl TokenBucket {
    /// The bucket after one more line; `None` if it is empty.
    fn after_line(self, rate: Rate, now: Instant) -> Option<TokenBucket> {
        let full_at = self.full_at.map_or(now, |at| at.max(now));
        let is_empty = full_at - now > rate.interval * (rate.burst - 1);
        (!is_empty).then(|| TokenBucket {
            full_at: Some(full_at + rate.interval),
        })
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
        assert_eq!(limiter.subjects.0.len(), MAX_SUBJECTS);
        let lines = (0..10_000).filter(|n| {
            let subject = n.to_string();
            limiter.allows(&subject, after(start, 5)).is_some()
        });
        assert_eq!(lines.count(), 5);
    }

    #[test]
    fn a_message_is_logged_once_a_minute() {
        let start = Instant::now();
        let mut repeat_limiter = RepeatLimiter::default();
        assert!(repeat_limiter.should_log("a", start));
        assert!(repeat_limiter.should_log("b", start));
        for second in 0..60 {
            let now = start + Duration::from_secs(second);
            assert!(!repeat_limiter.should_log("a", now), "{second}");
            assert!(!repeat_limiter.should_log("b", now), "{second}");
        }
        assert!(repeat_limiter.should_log("a", start + PER_MESSAGE.interval));
        assert!(!repeat_limiter.should_log("a", start + PER_MESSAGE.interval));
    }

    #[test]
    fn the_number_of_remembered_messages_is_bounded() {
        let start = Instant::now();
        let mut repeat_limiter = RepeatLimiter::default();
        for number in 0..1000 {
            assert!(repeat_limiter.should_log(&number.to_string(), start));
        }
        assert_eq!(repeat_limiter.0.0.len(), MAX_SUBJECTS);
    }
}
