//! One target for each parser of outside input. A target takes any bytes and asserts more than the absence of panics:
//! the result does not depend on how the input is split, a simple reference implementation ([`reference`]) agrees on the
//! meaning of accepted input, and output can be parsed again.
//!
//! The same targets are run by libFuzzer (`libfuzzer/`) and by `cargo test --test fuzz`, which needs only a stable
//! compiler.

#![allow(clippy::unwrap_used, reason = "a target ends at the first failure")]

pub mod api;
pub mod body;
pub mod config;
pub mod exchange;
pub mod head;
pub mod import;
pub mod names;
pub mod paths;
pub mod ranges;
pub mod reference;
pub mod response;
pub mod service;
pub mod signed;
pub mod store;
pub mod stream;
pub mod xml;

/// A target with its name, which is also the name of its folder of seeds.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: [Target; 15] = [
    ("api", api::run),
    ("body", body::run),
    ("config", config::run),
    ("exchange", exchange::run),
    ("head", head::run),
    ("import", import::run),
    ("names", names::run),
    ("paths", paths::run),
    ("ranges", ranges::run),
    ("response", response::run),
    ("service", service::run),
    ("signed", signed::run),
    ("store", store::run),
    ("stream", stream::run),
    ("xml", xml::run),
];

/// The time of every run, in Unix seconds.
pub const NOW: u64 = 1_800_000_000;

/// Maximum length of the output of [`expand`] in bytes.
const MOST: usize = 200_000;

/// Reads choices from the front of an input; zeros after its end.
pub struct Choices<'a>(pub &'a [u8]);

impl<'a> Choices<'a> {
    pub fn byte(&mut self) -> u8 {
        match self.0 {
            [first, rest @ ..] => {
                self.0 = rest;
                *first
            }
            [] => 0,
        }
    }

    pub fn number(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// The bytes up to the next byte of this value, which is skipped.
    pub fn until(&mut self, end: u8) -> &'a [u8] {
        match self.0.iter().position(|b| *b == end) {
            Some(at) => {
                let found = &self.0[..at];
                self.0 = &self.0[at + 1..];
                found
            }
            None => self.rest(),
        }
    }

    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

/// Expands a short input: 1, a byte and a number `n` stand for `n` × 160 times this byte. A fuzzer prefers short inputs,
/// which would otherwise not reach limits of many KiB.
pub fn expand(data: &[u8]) -> Vec<u8> {
    let mut long = Vec::with_capacity(data.len());
    let mut rest = data;
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (1, [byte, times, after @ ..]) => {
                long.resize(long.len() + usize::from(*times) * 160, *byte);
                rest = after;
            }
            _ => long.push(*first),
        }
        if long.len() > MOST {
            long.truncate(MOST);
            break;
        }
    }
    long
}

/// Splits an input as the seed says: 0 into one piece, 1 into single bytes (a long input into pieces of a few bytes).
pub fn split(bytes: &[u8], seed: u16) -> Vec<&[u8]> {
    let largest = match seed % 8 {
        0 => return vec![bytes],
        1 => 1,
        2 => 2,
        3 => 7,
        4 => 30,
        5 => 300,
        6 => 5000,
        _ => 70_000,
    };
    // Bounds the number of pieces.
    let largest = largest + bytes.len() / 2000;
    let mut dice = Dice::new(seed);
    let mut pieces = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.len().min(1 + dice.below(largest)));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

/// Pseudo-random numbers (xorshift).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: impl Into<u64>) -> Dice {
        Dice(seed.into().wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 8
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// Asserts that the text of a refusal or an error is one readable line, which can be logged or sent.
#[track_caller]
pub fn assert_sentence(text: &str) {
    assert!(!text.is_empty() && text.ends_with('.'), "{text:?}");
    assert!(!text.contains(char::is_control), "{text:?}");
}
