//! The parameters for starting a server.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::certificate::Certificate;
use crate::stop::StopSignal;
use crate::stream::Endpoint;

/// The configured limit of connections, except in scenarios that need more.
pub const CONNECTIONS: usize = 2048;

/// The parameters for starting a server.
#[derive(Clone, Debug)]
pub struct ServerSetup<'a> {
    /// For its configuration, its log and its files.
    pub folder: PathBuf,
    pub tls: Option<&'a Certificate>,
    /// Whether to answer a PUT only once the file is on stable storage; upslot only.
    pub durable: bool,
    /// Whether it is for PUTs or for GETs; a limit server supports only one of them.
    pub for_put: bool,
    /// Size of every file in bytes; a limit server supports only one size.
    pub size: u64,
    /// A file of that size, for a limit server to serve.
    pub body_file: PathBuf,
    /// The limit of connections to configure.
    pub connections: usize,
    /// More lines for upslot's configuration.
    pub extra_config: String,
    pub stop: &'a StopSignal,
}

impl ServerSetup<'_> {
    /// The endpoint of a server that listens on an address.
    pub fn endpoint(&self, address: SocketAddr) -> Endpoint {
        Endpoint {
            address,
            tls: self.tls.map(|certificate| Arc::clone(&certificate.client)),
        }
    }
}
