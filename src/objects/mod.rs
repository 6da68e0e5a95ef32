//! Commands on the files in an object store: the same as those on a folder.
//!
//! - [`client`] a blocking client of the store;
//! - [`commands`] lists, removes and counts objects.

pub mod client;
pub mod commands;
