//! Percentiles, medians and ratios.

use std::time::Duration;

use crate::load::Sample;
use crate::process::CpuTime;

/// The measurements of one server in one case.
#[derive(Debug)]
pub struct Tally {
    /// Bytes of body per request; 0 if requests have none.
    size: u64,
    rounds: Vec<Round>,
    /// Nanoseconds, of all rounds.
    latencies: Vec<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Round {
    requests: u64,
    wall: Duration,
    cpu: CpuTime,
}

impl Tally {
    pub fn new(size: u64) -> Tally {
        Tally {
            size,
            rounds: Vec::new(),
            latencies: Vec::new(),
        }
    }

    /// Adds a round.
    pub fn add_round(&mut self, sample: Sample, cpu: CpuTime) {
        self.rounds.push(Round::default());
        self.add_to_round(sample, cpu);
    }

    /// Adds to the last round.
    pub fn add_to_round(&mut self, sample: Sample, cpu: CpuTime) {
        if let Some(round) = self.rounds.last_mut() {
            round.requests += sample.requests;
            round.wall += sample.wall;
            round.cpu.add(cpu);
        }
        self.latencies.extend(sample.latencies);
    }

    pub fn requests(&self) -> u64 {
        self.rounds.iter().map(|round| round.requests).sum()
    }

    /// Microseconds of server CPU time per request; the median of the rounds.
    pub fn cpu_per_request(&self) -> f64 {
        self.median(Round::cpu_per_request)
    }

    /// Milliseconds of server CPU time per GiB of bodies; the median of the rounds.
    pub fn cpu_per_gib(&self) -> Option<f64> {
        const GIB: f64 = (1 << 30) as f64;
        (self.size > 0).then(|| self.cpu_per_request() / 1e3 * GIB / self.size as f64)
    }

    /// The share of the CPU time that was spent in the kernel, in percent, over all rounds; none if there was too
    /// little.
    pub fn kernel_percentage(&self) -> Option<f64> {
        let user: Duration = self.rounds.iter().map(|round| round.cpu.user).sum();
        let system: Duration = self.rounds.iter().map(|round| round.cpu.system).sum();
        let all = user + system;
        // With fewer ticks the percentage would be too inaccurate.
        (all >= Duration::from_millis(100))
            .then(|| 100.0 * system.as_secs_f64() / all.as_secs_f64())
    }

    /// How often the server went to sleep per request; the median of the rounds. A server that sleeps often had little
    /// work at a time, and waking up costs it CPU time.
    pub fn sleeps(&self) -> f64 {
        self.median(|round| round.cpu.sleeps as f64 / round.requests as f64)
    }

    /// The median of the rounds.
    pub fn requests_per_second(&self) -> f64 {
        self.median(|round| round.requests as f64 / round.wall.as_secs_f64())
    }

    /// MiB of bodies per second; the median of the rounds.
    pub fn rate(&self) -> f64 {
        self.requests_per_second() * self.size as f64 / f64::from(1 << 20)
    }

    /// A percentile of the latencies of all rounds, in microseconds; `share` is from 0 to 1.
    pub fn latency(&mut self, share: f64) -> f64 {
        percentile(&mut self.latencies, share)
    }

    /// CPU time per request relative to another server's in the same round: median, minimum and maximum.
    pub fn ratio(&self, other: &Tally) -> (f64, f64, f64) {
        let pairs = self.rounds.iter().zip(&other.rounds);
        let ratios: Vec<f64> = pairs
            .map(|(a, b)| a.cpu_per_request() / b.cpu_per_request())
            .collect();
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let largest = ratios.iter().copied().fold(0.0, f64::max);
        (median(&ratios), least, largest)
    }

    fn median(&self, figure: impl Fn(&Round) -> f64) -> f64 {
        median(&self.rounds.iter().map(figure).collect::<Vec<_>>())
    }
}

impl Round {
    fn cpu_per_request(&self) -> f64 {
        self.cpu.microseconds() / self.requests as f64
    }
}

/// A percentile of nanoseconds, in microseconds; `share` is from 0 to 1.
pub fn percentile(latencies: &mut [u64], share: f64) -> f64 {
    latencies.sort_unstable();
    let last = latencies.len().saturating_sub(1);
    let rank = (last as f64 * share).ceil() as usize;
    latencies.get(rank).map_or(f64::NAN, |ns| *ns as f64 / 1e3)
}

/// The median of the ratios between two series, round by round.
pub fn median_ratio(values: &[f64], others: &[f64]) -> f64 {
    let ratios = values.iter().zip(others).map(|(a, b)| a / b);
    median(&ratios.collect::<Vec<_>>())
}

/// The middle value, or the mean of the two in the middle.
pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle), values.len() % 2) {
        (Some(value), 1) => *value,
        (Some(value), _) => (value + values[middle - 1]) / 2.0,
        (None, _) => f64::NAN,
    }
}
