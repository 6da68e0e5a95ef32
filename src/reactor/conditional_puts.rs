//! Whether an object store honours `If-None-Match: *`, so that an upload need not ask for its object before.
//!
//! ```text
//!   Unknown ──▶ Asked ── 412 ───────────────────────────▶ Honoured
//!      ▲          │ 200 ──▶ AskedAgain ── 412 ──────────────▲
//!      │          │             └── 200 ──▶ Ignored
//!      │          ├─ 400, 501 ──▶ Refused
//!      └─ later ──┴─ anything else
//! ```
//!
//! That is learned by storing a tiny object, which stays: not all stores do what their versions promise, and a proxy may
//! drop the field.

use std::time::{Duration, Instant};

/// How long to wait after an answer that tells nothing.
const INTERVAL: Duration = Duration::from_secs(60);

/// What is known of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConditionalPuts {
    #[default]
    Unknown,
    Asked,
    AskedAgain,
    /// Nothing was learned; it is asked again at this time.
    Failed(Instant),
    Honoured,
    Ignored,
    /// Requests with the field are refused.
    Refused,
}

impl ConditionalPuts {
    /// Whether an object that exists is not stored again.
    pub fn are_honoured(self) -> bool {
        self == ConditionalPuts::Honoured
    }

    /// Whether the field may be sent.
    pub fn are_possible(self) -> bool {
        self != ConditionalPuts::Refused
    }

    /// Whether the tiny object is to be stored now.
    pub fn begin(&mut self, now: Instant) -> bool {
        let begins = match self {
            ConditionalPuts::Unknown => true,
            ConditionalPuts::Failed(until) => *until <= now,
            _ => false,
        };
        if begins {
            *self = ConditionalPuts::Asked;
        }
        begins
    }

    /// The status of the answer to it, if there is one. Returns whether it is to be stored again.
    pub fn answered(&mut self, status: Option<u16>, now: Instant) -> bool {
        *self = match (*self, status) {
            (ConditionalPuts::Asked | ConditionalPuts::AskedAgain, Some(412)) => {
                ConditionalPuts::Honoured
            }
            (ConditionalPuts::Asked, Some(200)) => ConditionalPuts::AskedAgain,
            (ConditionalPuts::AskedAgain, Some(200)) => ConditionalPuts::Ignored,
            (ConditionalPuts::Asked | ConditionalPuts::AskedAgain, Some(400 | 501)) => {
                ConditionalPuts::Refused
            }
            _ => ConditionalPuts::Failed(now + INTERVAL),
        };
        *self == ConditionalPuts::AskedAgain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_answers_tell_what_the_store_does() {
        let now = Instant::now();
        for (answers, expected) in [
            (&[Some(412)][..], ConditionalPuts::Honoured),
            (&[Some(200), Some(412)], ConditionalPuts::Honoured),
            (&[Some(200), Some(200)], ConditionalPuts::Ignored),
            (&[Some(501)], ConditionalPuts::Refused),
            (&[Some(200), Some(400)], ConditionalPuts::Refused),
            (&[None], ConditionalPuts::Failed(now + INTERVAL)),
            (
                &[Some(200), Some(503)],
                ConditionalPuts::Failed(now + INTERVAL),
            ),
        ] {
            let mut puts = ConditionalPuts::default();
            assert!(puts.begin(now) && !puts.begin(now));
            for (number, status) in answers.iter().enumerate() {
                let is_last = number + 1 == answers.len();
                assert!(!puts.are_honoured() && puts.are_possible());
                assert_eq!(puts.answered(*status, now), !is_last, "{answers:?}");
            }
            assert_eq!(puts, expected, "{answers:?}");
            assert_eq!(puts.are_honoured(), expected == ConditionalPuts::Honoured);
            assert_eq!(puts.are_possible(), expected != ConditionalPuts::Refused);
        }
        let mut failed = ConditionalPuts::Failed(now + INTERVAL);
        assert!(!failed.begin(now) && failed.begin(now + INTERVAL));
    }
}
