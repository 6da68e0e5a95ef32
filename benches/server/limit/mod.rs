//! The limit servers: bare loops that do nothing but move bytes, which show the least that the same traffic can cost.
//! The bench starts itself as one of them, so that they are measured like the servers. They trust the client: heads are
//! not parsed, a response is a constant, and any error ends the program.
//!
//! - [`config`] the arguments;
//! - [`event_loop`] the loop that they share;
//! - [`http`] the little HTTP that they need;
//! - [`memory`] GETs of one file from memory;
//! - [`open`] GETs that open the file of each request;
//! - [`put`] PUTs, through a buffer or with splice;
//! - [`tls`] the same over TLS.

mod config;
pub mod event_loop;

pub mod http;

mod memory;
mod open;
mod put;
mod tls;

use std::ffi::OsString;

use crate::common::outcome::Outcome;
use crate::limit::config::parse;
pub use crate::limit::config::{ARGUMENT, LimitMode};
pub use crate::limit::memory::MEMORY_FILE;
use crate::limit::memory::MemoryGet;
use crate::limit::open::OpenGet;
pub use crate::limit::put::FILE_NAME;
use crate::limit::put::{SplicePut, WritePut};
use crate::limit::tls::{InnerHandler, TlsHandler};

/// Runs as a limit server until the process is killed. Takes the arguments that follow [`ARGUMENT`].
pub fn run(arguments: impl Iterator<Item = OsString>) -> Outcome<()> {
    let arguments: Vec<OsString> = arguments.collect();
    let (mode, config) = parse(&arguments).ok_or("invalid arguments of a limit server")?;
    let result = match (mode, &config.tls) {
        (LimitMode::Memory, None) => {
            let handler = MemoryGet::new(&config);
            handler.and_then(|mut handler| event_loop::serve(config.address, &mut handler))
        }
        (LimitMode::Open(kind), None) => OpenGet::new(&config, kind)
            .and_then(|mut handler| event_loop::serve(config.address, &mut handler)),
        (LimitMode::Write, None) => WritePut::new(&config)
            .and_then(|mut handler| event_loop::serve(config.address, &mut handler)),
        (LimitMode::Splice, None) => SplicePut::new(&config)
            .and_then(|mut handler| event_loop::serve(config.address, &mut handler)),
        (mode, Some((chain, key))) => {
            let tls = tls::config(chain, key)?;
            let handler = match mode {
                LimitMode::Memory => MemoryGet::new(&config).map(InnerHandler::Memory),
                LimitMode::Open(kind) => OpenGet::new(&config, kind).map(InnerHandler::Open),
                LimitMode::Write | LimitMode::Splice => {
                    WritePut::new(&config).map(InnerHandler::Write)
                }
            };
            handler.and_then(|handler| {
                event_loop::serve(config.address, &mut TlsHandler::new(tls, handler))
            })
        }
    };
    result.map_err(|e| format!("limit server {}: {e}", mode.name()))
}
