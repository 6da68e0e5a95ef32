//! The delay before the next connection attempt.
//!
//! It reads no clock and does not depend on why the link ended; whether the link was open and a random number are
//! arguments.

use std::time::Duration;

/// The shortest delay, and the lower bound of the first one.
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest delay.
const LONGEST: Duration = Duration::from_secs(60);

/// Exponential backoff from 1 s to 60 s with jitter: each delay is drawn from the upper half of its range, so that
/// components that lost the same server do not all reconnect at once.
#[derive(Clone, Debug)]
pub struct Backoff {
    /// The next delay is at most this and at least half of it.
    bound: Duration,
}

impl Backoff {
    pub fn new() -> Backoff {
        Backoff {
            bound: 2 * SHORTEST,
        }
    }

    /// The link ended or could not be established; returns the delay before the next attempt. After a link that was
    /// open, the backoff starts from its first delay again, because the configuration evidently works and users are
    /// waiting. `random` is uniformly distributed.
    pub fn ended(&mut self, was_open: bool, random: u32) -> Duration {
        if was_open {
            *self = Backoff::new();
        }
        let half = self.bound / 2;
        let delay = half + half.mul_f64(f64::from(random) / f64::from(u32::MAX));
        self.bound = (2 * self.bound).min(LONGEST);
        delay.clamp(SHORTEST, LONGEST)
    }
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(random: u32, was_open: bool, delays: &[f64]) {
        let mut backoff = Backoff::new();
        for (attempt, expected) in delays.iter().enumerate() {
            let delay = backoff.ended(was_open, random).as_secs_f64();
            assert!(
                (delay - expected).abs() < 0.001,
                "attempt {attempt}: {delay}"
            );
        }
    }

    #[test]
    fn doubles_from_one_second_to_sixty() {
        check(0, false, &[1., 2., 4., 8., 16., 30., 30., 30.]);
        check(u32::MAX, false, &[2., 4., 8., 16., 32., 60., 60., 60.]);
        check(u32::MAX / 2, false, &[1.5, 3., 6., 12., 24., 45., 45.]);
    }

    #[test]
    fn starts_again_after_a_link_that_was_open() {
        check(0, true, &[1., 1., 1.]);
        check(u32::MAX, true, &[2., 2., 2.]);
        let mut backoff = Backoff::new();
        for _ in 0..10 {
            backoff.ended(false, 7);
        }
        assert_eq!(backoff.ended(true, 0), SHORTEST);
        assert_eq!(backoff.ended(false, 0), 2 * SHORTEST);
    }

    #[test]
    fn always_stays_within_bounds() {
        let mut backoff = Backoff::new();
        let mut random = 1u32;
        for _ in 0..10_000 {
            random = random.wrapping_mul(747_796_405).wrapping_add(1);
            let delay = backoff.ended(random % 100 == 0, random);
            assert!((SHORTEST..=LONGEST).contains(&delay), "{delay:?}");
        }
    }
}
