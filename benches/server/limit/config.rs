//! What a limit line is told.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

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
pub struct Told {
    pub address: SocketAddr,
    /// Where the file `0` lies or the folders `0`, `1`, ... of the files go.
    pub root: PathBuf,
    /// Of every body; bytes.
    pub size: u64,
    /// PEM files of chain and key.
    pub tls: Option<(PathBuf, PathBuf)>,
}

pub fn told(arguments: &[OsString]) -> Option<(Line, Told)> {
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
