//! Wrappers for all system calls that std and mio do not provide, as small functions with a single purpose.
//!
//! - `errors`: classes of errors;
//! - `files`: creation, metadata, attributes, links, reading and writing;
//! - `folders`: paths and entries of folders;
//! - `disk`: space of file systems;
//! - `sockets`: sending and receiving;
//! - `process`: limits, memory, umask and user;
//! - `clock`: the clocks.
//!
//! Callers import from here, not from the files.

use std::io;

use rustix::io::Errno;

mod clock;
mod disk;
mod errors;
mod files;
mod folders;
mod process;
mod sockets;

pub use clock::*;
pub use disk::*;
pub use errors::*;
pub use files::*;
pub use folders::*;
pub use process::*;
pub use sockets::*;

/// Repeats a call that a signal interrupts.
fn retry(mut call: impl FnMut() -> rustix::io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}
