//! The limit lines: what the same traffic costs when a program does nothing but move its bytes. The bench starts
//! itself again as one of these loops, so that they are measured as the servers are. They trust the client: no head
//! is parsed, an answer is a constant, and an error ends the program.
//!
//! - [`turn`] the loop that they share;
//! - [`get`] an answer from memory, or head and sendfile;
//! - [`put`] receive and write, or splice, to an unnamed file that gets a name in a folder of its own;
//! - [`tls`] the same works behind rustls.

mod get;
mod put;
mod tls;
mod turn;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::Outcome;
use crate::limit::get::{FromFile, FromMemory};
pub use crate::limit::put::FILE_NAME;
use crate::limit::put::{Spliced, Written};
use crate::limit::tls::{Answered, Tls};

/// The first argument that makes the bench one of these loops.
pub const ARGUMENT: &str = "--as-limit";

/// What a loop does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// Answers with the file's bytes, held in memory.
    Memory,
    /// Answers with the file.
    File,
    /// Receives files into a buffer.
    Write,
    /// Receives files without seeing their bytes.
    Splice,
}

impl Line {
    const ALL: &[Line] = &[Line::Memory, Line::File, Line::Write, Line::Splice];

    pub fn name(self) -> &'static str {
        match self {
            Line::Memory => "memory",
            Line::File => "file",
            Line::Write => "write",
            Line::Splice => "splice",
        }
    }
}

/// What the loops are told.
#[derive(Debug)]
struct Told {
    address: SocketAddr,
    /// Where the file `0` lies or the folders `0`, `1`, ... of the files go.
    root: PathBuf,
    /// Of every body; bytes.
    size: u64,
    /// PEM files of chain and key.
    tls: Option<(PathBuf, PathBuf)>,
}

/// Runs until it is ended from outside: `LINE ADDRESS ROOT SIZE [CHAIN KEY]`.
pub fn run(arguments: impl Iterator<Item = OsString>) -> Outcome<()> {
    let arguments: Vec<OsString> = arguments.collect();
    let (line, told) = told(&arguments).ok_or("No such limit line.")?;
    let result = match (line, &told.tls) {
        (Line::Memory, None) => {
            let answer = FromMemory::new(&told);
            answer.and_then(|mut answer| turn::serve(told.address, &mut answer))
        }
        (Line::File, None) => {
            FromFile::new(&told).and_then(|mut answer| turn::serve(told.address, &mut answer))
        }
        (Line::Write, None) => {
            Written::new(&told).and_then(|mut store| turn::serve(told.address, &mut store))
        }
        (Line::Splice, None) => {
            Spliced::new(&told).and_then(|mut store| turn::serve(told.address, &mut store))
        }
        (line, Some((chain, key))) => {
            let config = tls::config(chain, key)?;
            let answered = match line {
                Line::Memory => FromMemory::new(&told).map(Answered::Memory),
                Line::File => FromFile::new(&told).map(Answered::File),
                Line::Write | Line::Splice => Written::new(&told).map(Answered::Written),
            };
            answered.and_then(|answered| turn::serve(told.address, &mut Tls::new(config, answered)))
        }
    };
    result.map_err(|e| format!("the limit line {}: {e}", line.name()))
}

fn told(arguments: &[OsString]) -> Option<(Line, Told)> {
    let (needed, rest) = arguments.split_at_checked(4)?;
    let line = Line::ALL.iter().find(|line| needed[0] == line.name())?;
    Some((
        *line,
        Told {
            address: needed[1].to_str()?.parse().ok()?,
            root: PathBuf::from(&needed[2]),
            size: needed[3].to_str()?.parse().ok()?,
            tls: match rest {
                [chain, key] => Some((PathBuf::from(chain), PathBuf::from(key))),
                _ => None,
            },
        },
    ))
}

/// Where the head in these bytes ends, if it does.
fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .map(|at| at + 4)
}
