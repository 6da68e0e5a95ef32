//! The limit lines: what the same traffic costs when a program does nothing but move its bytes. The bench starts
//! itself again as one of these loops, so that they are measured as the servers are. They trust the client: no head
//! is parsed, an handler is a constant, and an error ends the program.
//!
//! - [`config`] what they are config;
//! - [`event_loop`] the loop that they share;
//! - [`http`] as much HTTP as they know;
//! - [`get`] an handler from memory, or head and sendfile;
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
use crate::limit::config::parse;
pub use crate::limit::config::{ARGUMENT, LimitMode};
use crate::limit::get::{FileGet, MemoryGet};
pub use crate::limit::put::FILE_NAME;
use crate::limit::put::{SplicePut, WritePut};
use crate::limit::tls::{InnerHandler, TlsHandler};

/// Runs until it is ended from outside: `LINE ADDRESS ROOT SIZE [CHAIN KEY]`.
pub fn run(arguments: impl Iterator<Item = OsString>) -> Outcome<()> {
    let arguments: Vec<OsString> = arguments.collect();
    let (mode, config) = parse(&arguments).ok_or("No such limit mode.")?;
    let result = match (mode, &config.tls) {
        (LimitMode::Memory, None) => {
            let handler = MemoryGet::new(&config);
            handler.and_then(|mut handler| event_loop::serve(config.address, &mut handler))
        }
        (LimitMode::File, None) => FileGet::new(&config)
            .and_then(|mut handler| event_loop::serve(config.address, &mut handler)),
        (LimitMode::Write, None) => WritePut::new(&config)
            .and_then(|mut handler| event_loop::serve(config.address, &mut handler)),
        (LimitMode::Splice, None) => SplicePut::new(&config)
            .and_then(|mut handler| event_loop::serve(config.address, &mut handler)),
        (mode, Some((chain, key))) => {
            let tls = tls::config(chain, key)?;
            let handler = match mode {
                LimitMode::Memory => MemoryGet::new(&config).map(InnerHandler::Memory),
                LimitMode::File => FileGet::new(&config).map(InnerHandler::File),
                LimitMode::Write | LimitMode::Splice => {
                    WritePut::new(&config).map(InnerHandler::Write)
                }
            };
            handler.and_then(|handler| {
                event_loop::serve(config.address, &mut TlsHandler::new(tls, handler))
            })
        }
    };
    result.map_err(|e| format!("the limit mode {}: {e}", mode.name()))
}
