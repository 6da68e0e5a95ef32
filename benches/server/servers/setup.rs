//! The parameters for starting a server.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cases::GetKind;
use crate::certificate::Certificate;
use crate::common::outcome::Outcome;
use crate::servers::launch::create_folder;
use crate::stop::StopSignal;
use crate::stream::Endpoint;

/// The configured limit of connections, except in scenarios that need more.
pub const CONNECTIONS: usize = 2048;

/// The prefix of all paths, on all servers, unless they serve shared files.
pub const PREFIX: &str = "/upload/";

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
    /// The folder of the files that all servers of a case serve; the paths of their URLs begin with its name. None for
    /// a folder of the server's own.
    pub shared_files: Option<&'a Path>,
    /// How a limit server responds to GETs of shared files.
    pub kind: GetKind,
    /// The object store that is used instead of files.
    pub object_store: Option<SocketAddr>,
    /// More lines for upslot's configuration.
    pub extra_config: String,
    pub stop: &'a StopSignal,
}

impl ServerSetup<'_> {
    /// The document root of a server whose URLs name the folder of shared files: that folder's parent, or the folder
    /// `name` of the server's own.
    pub fn document_root(&self, name: &str) -> Outcome<PathBuf> {
        match self.shared_files {
            Some(files) => Ok(files.parent().unwrap_or(files).to_owned()),
            None => create_folder(&self.folder, name),
        }
    }

    /// The start of the path of all URLs.
    pub fn prefix(&self) -> String {
        let name = self.shared_files.and_then(Path::file_name);
        name.map_or(PREFIX.to_owned(), |name| {
            format!("/{}/", name.to_string_lossy())
        })
    }

    /// The endpoint of a server that listens on an address.
    pub fn endpoint(&self, address: SocketAddr) -> Endpoint {
        Endpoint {
            address,
            tls: self.tls.map(|certificate| Arc::clone(&certificate.client)),
        }
    }
}
