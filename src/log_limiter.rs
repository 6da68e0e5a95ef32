//! How many log lines others can provoke: enough to see what happens and to whom, not enough to fill a disk.
//!
//! Knows neither the log nor a clock. Each kind of line has a limiter of its own; within it, each subject (a user, an
//! address) has an allowance, so that one that floods does not hide the lines about the others.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

/// Lines about one subject: so many at once, and then one in so long a time.
const ONE: Rate = Rate {
    burst: 60,
    each: Duration::from_secs(10),
};

/// Lines about all of them together: with 300 bytes each, 26 MB a day.
const ALL: Rate = Rate {
    burst: 200,
    each: Duration::from_secs(1),
};

/// Subjects that are told apart; the one that was quiet for longest makes room.
const SUBJECTS: usize = 64;

#[derive(Clone, Copy, Debug)]
struct Rate {
    burst: u32,
    each: Duration,
}

/// The lines of one kind.
#[derive(Debug, Default)]
pub struct LogLimiter {
    all: Allowance,
    /// By the hash of the subject; two that share one share an allowance.
    subjects: Vec<(u64, Allowance)>,
    suppressed: u64,
}

/// How many lines were left out before one that is written. Stands at the end of it, and shows nothing if there are
/// none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suppressed(u64);

impl LogLimiter {
    /// Whether a line about this subject is to be written now.
    pub fn allows(&mut self, subject: &str, now: Instant) -> Option<Suppressed> {
        if self.subject(subject).has(ONE, now) && self.all.has(ALL, now) {
            self.subject(subject).used += 1;
            self.all.used += 1;
            return Some(Suppressed(std::mem::take(&mut self.suppressed)));
        }
        self.suppressed += 1;
        None
    }

    fn subject(&mut self, subject: &str) -> &mut Allowance {
        let mut hasher = DefaultHasher::new();
        subject.hash(&mut hasher);
        let hash = hasher.finish();
        let found = self.subjects.iter().position(|(known, _)| *known == hash);
        let at = found.unwrap_or_else(|| {
            if self.subjects.len() >= SUBJECTS {
                let quiet = self.subjects.iter().enumerate();
                let quiet = quiet.min_by_key(|(_, (_, allowance))| allowance.asked);
                if let Some((at, _)) = quiet {
                    self.subjects.swap_remove(at);
                }
            }
            self.subjects.push((hash, Allowance::default()));
            self.subjects.len() - 1
        });
        &mut self.subjects[at].1
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
struct Allowance {
    /// Lines that count against the burst.
    used: u32,
    /// Up to when they were given back.
    since: Option<Instant>,
    asked: Option<Instant>,
}

impl Allowance {
    fn has(&mut self, rate: Rate, now: Instant) -> bool {
        self.asked = Some(now);
        let since = *self.since.get_or_insert(now);
        let back = now.saturating_duration_since(since).as_nanos() / rate.each.as_nanos();
        match u32::try_from(back) {
            Ok(back) if back < self.used => {
                self.used -= back;
                self.since = Some(since + rate.each * back);
            }
            _ => {
                self.used = 0;
                self.since = Some(now);
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
    fn a_flood_is_a_burst_and_then_a_drip() {
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
    fn what_was_left_out_is_told_with_the_next_line() {
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
    fn one_subject_does_not_silence_another_and_all_have_a_limit() {
        let start = Instant::now();
        let mut limiter = LogLimiter::default();
        for _ in 0..10_000 {
            limiter.allows("flood", start);
        }
        assert!(limiter.allows("other", start).is_some());
        let lines = (0..10_000).filter(|n| limiter.allows(&n.to_string(), start).is_some());
        assert_eq!(lines.count(), 200 - 61);
        assert_eq!(limiter.subjects.len(), SUBJECTS);
        let lines = (0..10_000).filter(|n| {
            let subject = n.to_string();
            limiter.allows(&subject, after(start, 5)).is_some()
        });
        assert_eq!(lines.count(), 5);
    }
}
