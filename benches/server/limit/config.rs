//! The arguments of a limit server.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::cases::GetKind;

/// The first argument, which makes the bench run as a limit server.
pub const ARGUMENT: &str = "--as-limit";

/// The operation of a limit server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitMode {
    /// Serves one file from memory.
    Memory,
    /// Opens the file of each request.
    Open(GetKind),
    /// Receives files through a buffer.
    Write,
    /// Receives files with splice.
    Splice,
}

impl LimitMode {
    const ALL: &[LimitMode] = &[
        LimitMode::Memory,
        LimitMode::Open(GetKind::Whole),
        LimitMode::Open(GetKind::Range),
        LimitMode::Open(GetKind::Head),
        LimitMode::Open(GetKind::NotModified),
        LimitMode::Write,
        LimitMode::Splice,
    ];

    pub fn name(self) -> &'static str {
        match self {
            LimitMode::Memory => "memory",
            LimitMode::Open(GetKind::Whole) => "open",
            LimitMode::Open(GetKind::Range) => "open-range",
            LimitMode::Open(GetKind::Head) => "open-head",
            LimitMode::Open(GetKind::NotModified) => "open-not-modified",
            LimitMode::Write => "write",
            LimitMode::Splice => "splice",
        }
    }
}

/// The other arguments.
#[derive(Debug)]
pub struct LimitConfig {
    pub address: SocketAddr,
    /// Contains the files to serve, or receives the folders `0`, `1`, ... of uploaded files.
    pub root: PathBuf,
    /// Size of every uploaded file in bytes.
    pub size: u64,
    /// PEM files with chain and key; none for plain HTTP.
    pub tls: Option<(PathBuf, PathBuf)>,
}

/// Parses `MODE ADDRESS ROOT SIZE [CHAIN KEY]`.
pub fn parse(arguments: &[OsString]) -> Option<(LimitMode, LimitConfig)> {
    let (required, rest) = arguments.split_at_checked(4)?;
    let mode = LimitMode::ALL
        .iter()
        .find(|mode| required[0] == mode.name())?;
    Some((
        *mode,
        LimitConfig {
            address: required[1].to_str()?.parse().ok()?,
            root: PathBuf::from(&required[2]),
            size: required[3].to_str()?.parse().ok()?,
            tls: match rest {
                [chain, key] => Some((PathBuf::from(chain), PathBuf::from(key))),
                _ => None,
            },
        },
    ))
}
