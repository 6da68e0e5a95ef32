//! Limits repeated log messages: the same message is logged at most once a minute.
//!
//! For lines about a state of the host, such as a failing disk. [`crate::log_limiter`] limits lines that clients cause.

use std::time::{Duration, Instant};

/// How long a message is not repeated.
const INTERVAL: Duration = Duration::from_secs(60);

/// Maximum number of remembered messages; the oldest is dropped first.
const MAX_MESSAGES: usize = 16;

/// The recent messages, and when each was logged.
#[derive(Debug, Default)]
pub struct RepeatLimiter {
    logged: Vec<(String, Instant)>,
}

impl RepeatLimiter {
    /// Whether to log this message now: not if it was logged within the last minute.
    pub fn should_log(&mut self, message: &str, now: Instant) -> bool {
        self.logged
            .retain(|(_, at)| now.saturating_duration_since(*at) < INTERVAL);
        if self.logged.iter().any(|(logged, _)| logged == message) {
            return false;
        }
        if self.logged.len() >= MAX_MESSAGES {
            self.logged.remove(0);
        }
        self.logged.push((message.to_owned(), now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(repeat_limiter.should_log("a", start + INTERVAL));
        assert!(!repeat_limiter.should_log("a", start + INTERVAL));
    }

    #[test]
    fn the_number_of_remembered_messages_is_bounded() {
        let start = Instant::now();
        let mut repeat_limiter = RepeatLimiter::default();
        for number in 0..1000 {
            assert!(repeat_limiter.should_log(&number.to_string(), start));
        }
        assert_eq!(repeat_limiter.logged.len(), MAX_MESSAGES);
    }
}
