//! The servers that are compared, each with its own configuration and folders. Once started, they differ only in where
//! the paths of new files come from.
//!
//! - [`launch`] programs, ports and files;
//! - [`setup`] the parameters for starting a server;
//! - [`server`] a running server;
//! - [`upslot`] the server under test;
//! - [`nginx`] the reference: ratios are relative to it;
//! - [`lighttpd`] another server for comparison;
//! - [`limit`] a bare loop as the lower bound;
//! - [`store`] the object store of some of them;
//! - [`installed`] which of them are installed, and their start.

mod launch;
mod setup;

mod server;

mod upslot;

mod nginx;

mod lighttpd;
mod limit;

mod store;

mod installed;

pub use crate::servers::installed::InstalledServers;
pub use crate::servers::launch::free_address;
pub use crate::servers::server::Server;
pub use crate::servers::setup::{CONNECTIONS, ServerSetup};
pub use crate::servers::store::{StoreProcess, StoredObjects};
pub use crate::servers::upslot::{DIRECT, RELAY};
