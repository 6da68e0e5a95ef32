//! Times an operation and counts its allocations.
//!
//! A sample is a series of operations that is timed as a whole, so that the clock is read only twice per sample. The
//! minimum of several samples is what the machine can do, the median what it usually does, and the maximum shows how
//! much it was disturbed. The number of allocations does not vary.

use std::alloc::System;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use stats_alloc::{Region, StatsAlloc};

use crate::common::outcome::Outcome;

#[global_allocator]
static ALLOCATOR: StatsAlloc<System> = StatsAlloc::system();

/// How many counters of [`StatsAlloc`] are incremented by one allocation and its deallocation.
const COUNTS: usize = 4;

/// How many samples of which duration.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    samples: usize,
    /// Minimum duration of a sample.
    duration: Duration,
}

impl Sampling {
    pub fn full() -> Sampling {
        Sampling {
            samples: 15,
            duration: Duration::from_millis(20),
        }
    }

    pub fn quick() -> Sampling {
        Sampling {
            samples: 3,
            duration: Duration::from_millis(1),
        }
    }

    /// For the report.
    pub fn description(&self) -> String {
        format!("{} of {} ms each", self.samples, self.duration.as_millis())
    }
}

/// The cost of one part of an operation.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Median of the samples in nanoseconds.
    pub time: f64,
    /// Minimum of the samples in nanoseconds.
    pub least: f64,
    /// Maximum of the samples in nanoseconds.
    pub largest: f64,
    /// Allocations and reallocations.
    pub allocations: f64,
    /// Bytes allocated.
    pub bytes: f64,
}

/// Measures an operation that consists of `parts` equal parts. An error if it ever returns false.
pub fn measure(
    sampling: &Sampling,
    parts: usize,
    operation: &mut impl FnMut() -> bool,
) -> Outcome<Figures> {
    let mut count = 1;
    // Samples of growing length warm the caches, and determine how many operations a sample needs.
    while sample(count, operation)? < sampling.duration {
        count *= 2;
    }
    let mut times = Vec::with_capacity(sampling.samples);
    let region = Region::new(&ALLOCATOR);
    for _ in 0..sampling.samples {
        times.push(sample(count, operation)?);
    }
    let counted = region.change();
    times.sort_unstable();
    let per_sample = (count * parts) as f64;
    let nanoseconds = |time: Duration| time.as_nanos() as f64 / per_sample;
    let all = per_sample * sampling.samples as f64;
    Ok(Figures {
        time: nanoseconds(times[sampling.samples / 2]),
        least: nanoseconds(times[0]),
        largest: nanoseconds(times[sampling.samples - 1]),
        allocations: (counted.allocations + counted.reallocations) as f64 / all,
        bytes: counted.bytes_allocated as f64 / all,
    })
}

/// How many nanoseconds counting adds to one allocation and its deallocation, measured by counting without allocating.
pub fn counting_time() -> f64 {
    const ROUNDS: usize = 100_000;
    let counter = AtomicUsize::new(0);
    let before = Instant::now();
    for _ in 0..ROUNDS * COUNTS {
        black_box(&counter).fetch_add(1, Ordering::SeqCst);
    }
    before.elapsed().as_nanos() as f64 / ROUNDS as f64
}

/// The duration of `count` operations.
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
        Err("the result of the operation is wrong".to_owned())
    }
}
