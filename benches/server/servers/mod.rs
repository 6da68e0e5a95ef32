//! The servers under test, each with a configuration and folders of its own. Beyond their start they differ in one
//! thing only: where the paths for new files come from.
//!
//! - [`launch`] programs, ports and files;
//! - [`setup`] how a server is to be started;
//! - [`server`] one that runs;
//! - [`upslot`] the subject;
//! - [`nginx`] what everybody's ratio is to;
//! - [`lighttpd`] a second peer;
//! - [`limit`] bare loops, for how far it can be brought at all;
//! - [`installed`] which of them are there.

mod launch;
mod setup;

mod server;

mod upslot;

mod nginx;

mod lighttpd;
mod limit;

mod installed;

pub use crate::servers::installed::InstalledServers;
pub use crate::servers::launch::free_address;
pub use crate::servers::server::Server;
pub use crate::servers::setup::{CONNECTIONS, ServerSetup};
