//! How an operation is timed, and its allocations counted.
//!
//! A sample is a run of as many operations as take a while, timed as a whole: the clock is read twice per sample. The
//! least of several samples is what the machine can do, the median what it did, the largest how much it was disturbed.
//! Allocations do not depend on the mood of the machine.

use std::alloc::System;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use stats_alloc::{Region, StatsAlloc};

use crate::common::outcome::Outcome;

#[global_allocator]
static ALLOCATOR: StatsAlloc<System> = StatsAlloc::system();

/// What one allocation and its release add to the counters of [`StatsAlloc`].
const COUNTS: usize = 4;

/// How much is done for a figure.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    samples: usize,
    /// Least length of a sample.
    length: Duration,
}

impl Sampling {
    pub fn full() -> Sampling {
        Sampling {
            samples: 15,
            length: Duration::from_millis(20),
        }
    }

    pub fn quick() -> Sampling {
        Sampling {
            samples: 3,
            length: Duration::from_millis(1),
        }
    }

    /// For the user.
    pub fn description(&self) -> String {
        format!("{} of {} ms each", self.samples, self.length.as_millis())
    }
}

/// What one part of an operation costs.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Nanoseconds: the median of the samples, the least and the largest.
    pub time: f64,
    pub least: f64,
    pub largest: f64,
    /// How often memory was asked for, be it new or more of it.
    pub allocations: f64,
    /// Bytes asked for.
    pub bytes: f64,
}

/// Measures an operation; what it does is `parts` times what the figures are for. An error when it is once false.
pub fn measure(
    sampling: &Sampling,
    parts: usize,
    operation: &mut impl FnMut() -> bool,
) -> Outcome<Figures> {
    let mut count = 1;
    // Runs of growing length warm the caches, and tell how many operations a sample has.
    while sample(count, operation)? < sampling.length {
        count *= 2;
    }
    let mut times = Vec::with_capacity(sampling.samples);
    let region = Region::new(&ALLOCATOR);
    for _ in 0..sampling.samples {
        times.push(sample(count, operation)?);
    }
    let counted = region.change();
    times.sort_unstable();
    let each = (count * parts) as f64;
    let nanoseconds = |time: Duration| time.as_nanos() as f64 / each;
    let all = each * sampling.samples as f64;
    Ok(Figures {
        time: nanoseconds(times[sampling.samples / 2]),
        least: nanoseconds(times[0]),
        largest: nanoseconds(times[sampling.samples - 1]),
        allocations: (counted.allocations + counted.reallocations) as f64 / all,
        bytes: counted.bytes_allocated as f64 / all,
    })
}

/// Nanoseconds by which counting lengthens one allocation and its release, found by counting without allocating.
pub fn counting_time() -> f64 {
    const ROUNDS: usize = 100_000;
    let counter = AtomicUsize::new(0);
    let before = Instant::now();
    for _ in 0..ROUNDS * COUNTS {
        black_box(&counter).fetch_add(1, Ordering::SeqCst);
    }
    before.elapsed().as_nanos() as f64 / ROUNDS as f64
}

fn sample(count: usize, operation: &mut impl FnMut() -> bool) -> Outcome<Duration> {
    let mut right = true;
    let before = Instant::now();
    for _ in 0..count {
        right &= black_box(operation());
    }
    let time = before.elapsed();
    if right {
        Ok(time)
    } else {
        Err("it did not come to what it must.".to_owned())
    }
}
