//! Random bytes for slots, secrets and jitter.

use ring::rand::{SecureRandom, SystemRandom};

/// Random bytes; `None` if the system's generator fails.
pub fn bytes<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(bytes)
}
