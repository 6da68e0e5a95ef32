//! How a server is to be started.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::certificate::Certificate;
use crate::stop::Stop;
use crate::stream::Door;

/// How many every server is told to serve at a time, but for cases that need more.
pub const CONNECTIONS: usize = 2048;

/// How a server is to be started.
#[derive(Clone, Debug)]
pub struct Setup<'a> {
    /// Its own, empty.
    pub folder: PathBuf,
    pub tls: Option<&'a Certificate>,
    /// Whether it answers a PUT only when the file is on the disk. upslot alone can.
    pub durable: bool,
    /// What it is for: a limit line can do one thing only.
    pub put: bool,
    /// Bytes of a body; a limit line knows one size only.
    pub size: u64,
    /// A file of that size: what a limit line has to send.
    pub body: PathBuf,
    /// How many it is told to serve at a time.
    pub connections: usize,
    /// More lines for upslot's configuration.
    pub config: String,
    pub stop: &'a Stop,
}

impl Setup<'_> {
    pub fn door(&self, address: SocketAddr) -> Door {
        Door {
            address,
            tls: self.tls.map(|certificate| Arc::clone(&certificate.client)),
        }
    }
}
