//! What was complained about lately, so that a flood of the same trouble is one line in the log.

use std::time::{Duration, Instant};

/// For how long the same words are not said again.
const QUIET: Duration = Duration::from_secs(60);

/// Words that are remembered; the oldest go first.
const MOST: usize = 16;

/// What was said, and when.
#[derive(Debug, Default)]
pub struct RepeatLimiter {
    said: Vec<(String, Instant)>,
}

impl RepeatLimiter {
    /// Whether this is to be said now: not if it was within the last minute.
    pub fn should_log(&mut self, what: &str, now: Instant) -> bool {
        self.said
            .retain(|(_, at)| now.saturating_duration_since(*at) < QUIET);
        if self.said.iter().any(|(said, _)| said == what) {
            return false;
        }
        if self.said.len() >= MOST {
            self.said.remove(0);
        }
        self.said.push((what.to_owned(), now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_a_minute() {
        let start = Instant::now();
        let mut repeat_limiter = RepeatLimiter::default();
        assert!(repeat_limiter.should_log("a", start));
        assert!(repeat_limiter.should_log("b", start));
        for second in 0..60 {
            let now = start + Duration::from_secs(second);
            assert!(!repeat_limiter.should_log("a", now), "{second}");
            assert!(!repeat_limiter.should_log("b", now), "{second}");
        }
        assert!(repeat_limiter.should_log("a", start + QUIET));
        assert!(!repeat_limiter.should_log("a", start + QUIET));
    }

    #[test]
    fn few_are_remembered() {
        let start = Instant::now();
        let mut repeat_limiter = RepeatLimiter::default();
        for number in 0..1000 {
            assert!(repeat_limiter.should_log(&number.to_string(), start));
        }
        assert_eq!(repeat_limiter.said.len(), MOST);
    }
}
