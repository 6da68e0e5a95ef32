//! How a server is to be started.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::certificate::Certificate;
use crate::stop::StopSignal;
use crate::stream::Endpoint;

/// How many every server is told to serve at a time, but for cases that need more.
pub const CONNECTIONS: usize = 2048;

/// How a server is to be started.
#[derive(Clone, Debug)]
pub struct ServerSetup<'a> {
    /// Its own, empty.
    pub folder: PathBuf,
    pub tls: Option<&'a Certificate>,
    /// Whether it answers a PUT only when the file is on the disk. upslot alone can.
    pub durable: bool,
    /// What it is for: a limit line can do one thing only.
    pub for_put: bool,
    /// Bytes of a body; a limit line knows one size only.
    pub size: u64,
    /// A file of that size: what a limit line has to send.
    pub body_file: PathBuf,
    /// How many it is told to serve at a time.
    pub connections: usize,
    /// More lines for upslot's configuration.
    pub extra_config: String,
    pub stop: &'a StopSignal,
}

impl ServerSetup<'_> {
    pub fn endpoint(&self, address: SocketAddr) -> Endpoint {
        Endpoint {
            address,
            tls: self.tls.map(|certificate| Arc::clone(&certificate.client)),
        }
    }
}
