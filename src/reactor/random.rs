//! Random bytes of slots, fetched from the system many at a time: one fetch costs as much as the rest of a slot's URL.
//!
//! Bytes are handed out once and wiped, so that what was given away is not to be found in memory afterwards.

use ring::rand::{SecureRandom, SystemRandom};

use crate::layout::RANDOM;

/// Bytes that are fetched at a time; a whole number of slots.
const BLOCK: usize = 128 * RANDOM;

/// The bytes that wait.
#[derive(Default)]
pub struct Random {
    /// Empty until the first is asked for.
    block: Vec<u8>,
    /// How many of the block were handed out.
    used: usize,
}

impl Random {
    /// Bytes that nobody had before; `None` when the system gives none.
    pub fn take(&mut self) -> Option<[u8; RANDOM]> {
        if self.used == self.block.len() {
            self.block.resize(BLOCK, 0);
            // Until the system has filled it, nothing of the block is there to be had.
            self.used = BLOCK;
            SystemRandom::new().fill(&mut self.block).ok()?;
            self.used = 0;
        }
        let bytes = self.block[self.used..].first_chunk_mut()?;
        self.used += RANDOM;
        Some(std::mem::replace(bytes, [0; RANDOM]))
    }
}

/// Shows none of the bytes.
impl std::fmt::Debug for Random {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Random")
            .field("used", &self.used)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_bytes_come_twice_and_none_stay() {
        let mut random = Random::default();
        let mut seen = HashSet::new();
        for _ in 0..3 * BLOCK / RANDOM + 1 {
            assert!(seen.insert(random.take().unwrap()));
            let used = &random.block[..random.used];
            assert!(used.iter().all(|b| *b == 0), "what was handed out is wiped");
            let left = &random.block[random.used..];
            assert!(left.len() % RANDOM == 0 && left.chunks(RANDOM).all(|c| c != [0; RANDOM]));
        }
        assert!(!seen.contains(&[0; RANDOM]));
    }

    #[test]
    fn bytes_do_not_overlap() {
        let mut random = Random::default();
        random.take().unwrap();
        let block = random.block.clone();
        let next: Vec<u8> = (0..3).flat_map(|_| random.take().unwrap()).collect();
        assert_eq!(next, block[RANDOM..4 * RANDOM]);
    }
}
