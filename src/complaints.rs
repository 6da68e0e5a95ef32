//! What was complained about lately, so that a flood of the same trouble is one line in the log.

use std::time::{Duration, Instant};

/// For how long the same words are not said again.
const QUIET: Duration = Duration::from_secs(60);

/// Words that are remembered; the oldest go first.
const MOST: usize = 16;

/// What was said, and when.
#[derive(Debug, Default)]
pub struct Complaints {
    said: Vec<(String, Instant)>,
}

impl Complaints {
    /// Whether this is to be said now: not if it was within the last minute.
    pub fn is_news(&mut self, what: &str, now: Instant) -> bool {
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
        let mut complaints = Complaints::default();
        assert!(complaints.is_news("a", start));
        assert!(complaints.is_news("b", start));
        for second in 0..60 {
            let now = start + Duration::from_secs(second);
            assert!(!complaints.is_news("a", now), "{second}");
            assert!(!complaints.is_news("b", now), "{second}");
        }
        assert!(complaints.is_news("a", start + QUIET));
        assert!(!complaints.is_news("a", start + QUIET));
    }

    #[test]
    fn few_are_remembered() {
        let start = Instant::now();
        let mut complaints = Complaints::default();
        for number in 0..1000 {
            assert!(complaints.is_news(&number.to_string(), start));
        }
        assert_eq!(complaints.said.len(), MOST);
    }
}
