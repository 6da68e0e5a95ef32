//! What a limit mode is told.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The first argument that makes the bench one of these loops.
pub const ARGUMENT: &str = "--as-limit";

/// What a loop does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitMode {
    /// Answers with the file's bytes, held in memory.
    Memory,
    /// Answers with the file.
    File,
    /// Receives files into a buffer.
    Write,
    /// Receives files without seeing their bytes.
    Splice,
}

impl LimitMode {
    const ALL: &[LimitMode] = &[
        LimitMode::Memory,
        LimitMode::File,
        LimitMode::Write,
        LimitMode::Splice,
    ];

    pub fn name(self) -> &'static str {
        match self {
            LimitMode::Memory => "memory",
            LimitMode::File => "file",
            LimitMode::Write => "write",
            LimitMode::Splice => "splice",
        }
    }
}

/// What the loops are told.
#[derive(Debug)]
pub struct LimitConfig {
    pub address: SocketAddr,
    /// Where the file `0` lies or the folders `0`, `1`, ... of the files go.
    pub root: PathBuf,
    /// Of every body; bytes.
    pub size: u64,
    /// PEM files of chain and key.
    pub tls: Option<(PathBuf, PathBuf)>,
}

pub fn parse(arguments: &[OsString]) -> Option<(LimitMode, LimitConfig)> {
    let (needed, rest) = arguments.split_at_checked(4)?;
    let mode = LimitMode::ALL
        .iter()
        .find(|mode| needed[0] == mode.name())?;
    Some((
        *mode,
        LimitConfig {
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
