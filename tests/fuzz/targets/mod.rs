//! One function for each parser of what comes from outside. It takes any bytes at all and asserts what must hold for
//! them, which is more than that nothing panics: that the way in which input arrives changes nothing, that what is
//! accepted means the same to a second, simple reading ([`reference`]), that what is written can be read back.
//!
//! The same functions serve libFuzzer (`libfuzzer/`) and `cargo test --test fuzz`, which needs no more than a stable
//! compiler.

#![allow(clippy::unwrap_used)]

pub mod api;
pub mod body;
pub mod config;
pub mod exchange;
pub mod head;
pub mod names;
pub mod paths;
pub mod ranges;
pub mod reference;
pub mod service;
pub mod signed;
pub mod stream;
pub mod xml;

/// A target and its name, which is also that of its folder of seeds.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: [Target; 12] = [
    ("api", api::run),
    ("body", body::run),
    ("config", config::run),
    ("exchange", exchange::run),
    ("head", head::run),
    ("names", names::run),
    ("paths", paths::run),
    ("ranges", ranges::run),
    ("service", service::run),
    ("signed", signed::run),
    ("stream", stream::run),
    ("xml", xml::run),
];

/// The moment at which everything happens, Unix time.
pub const NOW: u64 = 1_800_000_000;

/// Most bytes that [`expand`] makes of an input.
const MOST: usize = 200_000;

/// Reads choices from the front of an input; an input that is used up answers zero.
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

    /// Everything up to the next byte of this value, which is dropped.
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

/// Lets a short input be a long one: 1, a byte and a number stand for that byte so many times 160. So limits of many
/// KiB are within reach of a fuzzer that prefers short inputs.
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

/// The input in pieces; which ones depends on the seed. 0 is one piece, 1 is byte by byte (a long one in pieces of a
/// few bytes).
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
    // So that no input takes long.
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

/// Numbers that depend on a seed alone (xorshift).
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

/// The text of a refusal or an error: one readable line that can be logged or sent as it is.
#[track_caller]
pub fn assert_sentence(text: &str) {
    assert!(!text.is_empty() && text.ends_with('.'), "{text:?}");
    assert!(!text.contains(char::is_control), "{text:?}");
}
