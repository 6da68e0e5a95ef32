//! How long the link rests before it is tried again.
//!
//! Knows neither why the link ended nor any clock: how long it was up and a random number come in as arguments.

use std::time::Duration;

/// The shortest rest, and the lower edge of the first one.
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest rest.
const LONGEST: Duration = Duration::from_secs(60);
/// Rests that double from 1 s to 60 s. Each is drawn from the upper half of its bound, so that many components that
/// lost the same server do not come back in the same moment.
#[derive(Clone, Debug)]
pub struct Backoff {
    /// The next rest is at most this and at least half of it.
    bound: Duration,
}

impl Backoff {
    pub fn new() -> Backoff {
        Backoff {
            bound: 2 * SHORTEST,
        }
    }

    /// The link ended, or could not be had: how long to rest. A link that was open worked, whatever ended it and however
    /// soon, and users wait for the next one: the rest is a first one again. `random` is any number, evenly
    /// distributed.
    pub fn ended(&mut self, was_open: bool, random: u32) -> Duration {
        if was_open {
            *self = Backoff::new();
        }
        let half = self.bound / 2;
        let rest = half + half.mul_f64(f64::from(random) / f64::from(u32::MAX));
        self.bound = (2 * self.bound).min(LONGEST);
        rest.clamp(SHORTEST, LONGEST)
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
    fn check(random: u32, was_open: bool, rests: &[f64]) {
        let mut backoff = Backoff::new();
        for (turn, expected) in rests.iter().enumerate() {
            let rest = backoff.ended(was_open, random).as_secs_f64();
            assert!((rest - expected).abs() < 0.001, "turn {turn}: {rest}");
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
    fn stays_in_bounds_for_ever() {
        let mut backoff = Backoff::new();
        let mut random = 1u32;
        for _ in 0..10_000 {
            random = random.wrapping_mul(747_796_405).wrapping_add(1);
            let rest = backoff.ended(random % 100 == 0, random);
            assert!((SHORTEST..=LONGEST).contains(&rest), "{rest:?}");
        }
    }
}
