//! In which order files are requested: uniformly, or a few of them much more often than the rest.

/// How requests are distributed over the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// Each file is requested with the same probability.
    Uniform,
    /// Zipf's law with s = 1: the n-th file is requested n times less often than the first.
    Zipf,
}

impl Distribution {
    /// Indices of `count` files out of `files`. The same seed gives the same order.
    pub fn order(self, files: usize, count: usize, seed: u64) -> Vec<u32> {
        let mut random = Random::new(seed);
        if self == Distribution::Uniform {
            return (0..count)
                .map(|_| (random.next() % files as u64) as u32)
                .collect();
        }
        let mut sum = 0.0;
        let sums: Vec<f64> = (1..=files)
            .map(|rank| {
                sum += 1.0 / rank as f64;
                sum
            })
            .collect();
        (0..count)
            .map(|_| {
                let at = random.fraction() * sum;
                sums.partition_point(|sum| *sum <= at).min(files - 1) as u32
            })
            .collect()
    }
}

/// Marsaglia's xorshift*.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        // Any state but 0 is allowed; the multiplication spreads small seeds.
        Random((seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    /// From 0 to 1, without 1.
    fn fraction(&mut self) -> f64 {
        const BITS: u32 = 48;
        self.next() as f64 / (1_u64 << BITS) as f64
    }
}
