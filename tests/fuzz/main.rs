//! Runs the fuzz targets ([`targets`]) over their seeds and over a fixed number of mutated seeds, which are the same in
//! every run. `tests/run fuzz` runs the same targets with libFuzzer, which is guided by coverage; inputs that it finds
//! become seeds.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test ends at the first failure and shows the input"
)]

mod targets;

use std::fs;
use std::path::{Path, PathBuf};

use targets::{Dice, TARGETS};

/// Maximum length of a mutated input in bytes.
const LONGEST: usize = 4000;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

/// The files of a folder, by name.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found: Vec<_> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.display().to_string(), fs::read(&path).unwrap()))
        .collect();
    found.sort();
    found
}

/// The words of all dictionaries: the text between the quotes, in which `\x..` is any byte.
fn words() -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    for (name, text) in files(&folder().join("dictionaries")) {
        let text = String::from_utf8(text).unwrap();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let word = line
                .strip_prefix('"')
                .and_then(|rest| rest.strip_suffix('"'))
                .unwrap_or_else(|| panic!("{name}: {line}"));
            let mut bytes = Vec::new();
            let mut rest = word;
            while let Some(c) = rest.chars().next() {
                let (byte, length) = match rest.as_bytes() {
                    [b'\\', b'x', ..] => (u8::from_str_radix(&rest[2..4], 16).unwrap(), 4),
                    [b'\\', other, ..] => (*other, 2),
                    [other, ..] => (*other, 1),
                    [] => unreachable!("{c}"),
                };
                bytes.push(byte);
                rest = &rest[length..];
            }
            words.push(bytes);
        }
    }
    words
}

/// Shows the input if the target ends in a panic.
struct Shown<'a>(&'a str, &'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("input derived from {}:\n{}", self.0, self.1.escape_ascii());
        }
    }
}

/// A mutation of a seed, with parts of another seed and with words.
fn mutated(seed: &[u8], other: &[u8], words: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=dice.below(4) {
        let at = dice.below(bytes.len() + 1);
        let end = (at + dice.below(20)).min(bytes.len());
        match dice.below(9) {
            0 => {
                bytes.drain(at..end);
            }
            1 => {
                let piece = bytes[at..end].to_vec();
                let to = dice.below(bytes.len() + 1);
                bytes.splice(to..to, piece);
            }
            2 => {
                let word = &words[dice.below(words.len())];
                bytes.splice(at..at, word.iter().copied());
            }
            3 => {
                let word = &words[dice.below(words.len())];
                bytes.splice(at..end, word.iter().copied());
            }
            4 => {
                let from = dice.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            5 => {
                const SPECIAL: &[u8] = b"\0\x01\t\n\r \"%&'+,-./0159:;<=>?\\aZ\x7f\x80\xc3\xff";
                bytes.insert(at, SPECIAL[dice.below(SPECIAL.len())]);
            }
            6 => {
                // A repeated byte, see `targets::expand`.
                let byte = bytes.get(at).copied().unwrap_or(b' ');
                let times = [1, 7, 52, 205, 255][dice.below(5)];
                bytes.splice(at..at, [1, byte, times]);
            }
            7 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
            _ if at < bytes.len() => bytes[at] = dice.below(256) as u8,
            _ => bytes.push(dice.below(256) as u8),
        }
        bytes.truncate(LONGEST);
    }
    bytes
}

/// Runs a target over its seeds and over this number of mutations; thirty times as many in the long form.
fn run(name: &str, inputs: usize) {
    let target = TARGETS.iter().find(|(known, _)| *known == name).unwrap().1;
    let seeds = files(&folder().join("seeds").join(name));
    assert!(seeds.len() > 5, "{name} has no seeds");
    for (path, seed) in &seeds {
        let _shown = Shown(path, seed);
        target(seed);
    }
    let long = std::env::var_os("UPSLOT_TESTS").is_some_and(|form| form == "long");
    let words = words();
    let mut dice = Dice::new(name.len() as u64);
    for _ in 0..if long { inputs * 30 } else { inputs } {
        let (path, seed) = &seeds[dice.below(seeds.len())];
        let other = &seeds[dice.below(seeds.len())].1;
        let input = mutated(seed, other, &words, &mut dice);
        let _shown = Shown(path, &input);
        target(&input);
    }
}

#[test]
fn every_folder_of_seeds_has_its_target() {
    let mut folders: Vec<_> = fs::read_dir(folder().join("seeds"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    folders.sort();
    assert_eq!(folders, TARGETS.map(|(name, _)| name.to_owned()));
}

#[test]
fn api() {
    run("api", 3000);
}

#[test]
fn body() {
    run("body", 1000);
}

#[test]
fn config() {
    run("config", 1000);
}

#[test]
fn exchange() {
    run("exchange", 1000);
}

#[test]
fn head() {
    run("head", 3000);
}

#[test]
fn import() {
    run("import", 1000);
}

#[test]
fn names() {
    run("names", 3000);
}

#[test]
fn paths() {
    run("paths", 5000);
}

#[test]
fn ranges() {
    run("ranges", 5000);
}

#[test]
fn response() {
    run("response", 1000);
}

#[test]
fn service() {
    run("service", 3000);
}

#[test]
fn signed() {
    run("signed", 3000);
}

#[test]
fn store() {
    run("store", 3000);
}

#[test]
fn stream() {
    run("stream", 1000);
}

#[test]
fn xml() {
    run("xml", 1000);
}
