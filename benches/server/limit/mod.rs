//! The limit lines: what the same traffic costs when a program does nothing but move its bytes. The bench starts
//! itself again as one of these loops, so that they are measured as the servers are. They trust the client: no head
//! is parsed, an answer is a constant, and an error ends the program.
//!
//! - [`config`] what they are told;
//! - [`event_loop`] the loop that they share;
//! - [`http`] as much HTTP as they know;
//! - [`get`] an answer from memory, or head and sendfile;
//! - [`put`] receive and write, or splice, to an unnamed file that gets a name in a folder of its own;
//! - [`tls`] the same works behind rustls.

mod config;
mod event_loop;

mod http;

mod get;
mod put;
mod tls;

use std::ffi::OsString;

use crate::common::outcome::Outcome;
use crate::limit::config::told;
pub use crate::limit::config::{ARGUMENT, Line};
use crate::limit::get::{FromFile, FromMemory};
pub use crate::limit::put::FILE_NAME;
use crate::limit::put::{Spliced, Written};
use crate::limit::tls::{Answered, Tls};

/// Runs until it is ended from outside: `LINE ADDRESS ROOT SIZE [CHAIN KEY]`.
pub fn run(arguments: impl Iterator<Item = OsString>) -> Outcome<()> {
    let arguments: Vec<OsString> = arguments.collect();
    let (line, told) = told(&arguments).ok_or("No such limit line.")?;
    let result =
        match (line, &told.tls) {
            (Line::Memory, None) => {
                let answer = FromMemory::new(&told);
                answer.and_then(|mut answer| event_loop::serve(told.address, &mut answer))
            }
            (Line::File, None) => FromFile::new(&told)
                .and_then(|mut answer| event_loop::serve(told.address, &mut answer)),
            (Line::Write, None) => Written::new(&told)
                .and_then(|mut store| event_loop::serve(told.address, &mut store)),
            (Line::Splice, None) => Spliced::new(&told)
                .and_then(|mut store| event_loop::serve(told.address, &mut store)),
            (line, Some((chain, key))) => {
                let config = tls::config(chain, key)?;
                let answered = match line {
                    Line::Memory => FromMemory::new(&told).map(Answered::Memory),
                    Line::File => FromFile::new(&told).map(Answered::File),
                    Line::Write | Line::Splice => Written::new(&told).map(Answered::Written),
                };
                answered.and_then(|answered| {
                    event_loop::serve(told.address, &mut Tls::new(config, answered))
                })
            }
        };
    result.map_err(|e| format!("the limit line {}: {e}", line.name()))
}
