//! Random bytes. Those for slots are fetched from the system in blocks, because one system call costs as much as building
//! the rest of a slot's URL; they are wiped as they are handed out, so that issued ones cannot be recovered from memory.

use ring::rand::{SecureRandom, SystemRandom};

use crate::layout::RANDOM_BYTES;

/// Number of bytes fetched at a time; a multiple of the length needed per slot.
const BLOCK: usize = 128 * RANDOM_BYTES;

/// Random bytes from the system; `None` if its generator fails.
pub fn bytes<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(bytes)
}

/// A pool of random bytes.
#[derive(Default)]
pub struct RandomPool {
    /// Empty until first used.
    block: Vec<u8>,
    /// Number of bytes of the block already handed out.
    used: usize,
}

impl RandomPool {
    /// Takes fresh bytes; `None` if the system's generator fails.
    pub fn take(&mut self) -> Option<[u8; RANDOM_BYTES]> {
        if self.used == self.block.len() {
            self.block.resize(BLOCK, 0);
            // The block counts as used up until the system has filled it.
            self.used = BLOCK;
            SystemRandom::new().fill(&mut self.block).ok()?;
            self.used = 0;
        }
        let bytes = self.block[self.used..].first_chunk_mut()?;
        self.used += RANDOM_BYTES;
        Some(std::mem::replace(bytes, [0; RANDOM_BYTES]))
    }
}

/// Does not show the bytes.
impl std::fmt::Debug for RandomPool {
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
    fn bytes_are_unique_and_wiped() {
        let mut random = RandomPool::default();
        let mut seen = HashSet::new();
        for _ in 0..3 * BLOCK / RANDOM_BYTES + 1 {
            assert!(seen.insert(random.take().unwrap()));
            let used = &random.block[..random.used];
            assert!(used.iter().all(|b| *b == 0), "used bytes are wiped");
            let left = &random.block[random.used..];
            assert!(
                left.len() % RANDOM_BYTES == 0
                    && left.chunks(RANDOM_BYTES).all(|c| c != [0; RANDOM_BYTES])
            );
        }
        assert!(!seen.contains(&[0; RANDOM_BYTES]));
    }

    #[test]
    fn bytes_do_not_overlap() {
        let mut random = RandomPool::default();
        random.take().unwrap();
        let block = random.block.clone();
        let next: Vec<u8> = (0..3).flat_map(|_| random.take().unwrap()).collect();
        assert_eq!(next, block[RANDOM_BYTES..4 * RANDOM_BYTES]);
    }
}
