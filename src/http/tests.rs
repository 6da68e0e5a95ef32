//! Helpers that the tests of several modules share.

/// A generator of random numbers, the same in every run (xorshift).
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number from 0 up to but not including `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 8) % end as u64) as usize
    }

    /// Makes one to four small changes: a byte is replaced, bytes are removed or repeated, or a token is inserted.
    pub(super) fn mutate(&mut self, bytes: &mut Vec<u8>, tokens: &[&[u8]]) {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            match self.below(4) {
                0 if at < bytes.len() => bytes[at] = self.below(256) as u8,
                1 if at < bytes.len() => {
                    let end = bytes.len().min(at + 1 + self.below(8));
                    bytes.drain(at..end);
                }
                2 => {
                    let end = bytes.len().min(at + self.below(20));
                    let copy = bytes[at..end].to_vec();
                    bytes.splice(at..at, copy);
                }
                _ => {
                    let token = tokens[self.below(tokens.len())];
                    bytes.splice(at..at, token.iter().copied());
                }
            }
        }
    }
}
