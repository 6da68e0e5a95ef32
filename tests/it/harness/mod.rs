//! Fixtures and helpers, in reading order.
//!
//! - [`wait`] deadlines;
//! - [`dir`] a temporary folder;
//! - [`files`] files in a store and their attributes;
//! - [`program`] the child process and its log;
//! - [`xml`] a parser for stanzas;
//! - [`server`] the XMPP server's side of XEP-0114;
//! - [`http`] a client on a raw socket, and [`reply`], a strict parser of responses;
//! - [`tls`] certificates and TLS clients;
//! - [`s3`] an object store that misbehaves on demand;
//! - [`site`] a running program with its configuration and link;
//! - [`signing`] signed links and tokens;
//! - [`raw`], [`downloads`], [`local_api`] requests and checks that several modules share.

pub mod dir;
pub mod downloads;
pub mod files;
pub mod http;
pub mod local_api;
pub mod program;
pub mod raw;
pub mod reply;
pub mod s3;
pub mod server;
pub mod signing;
pub mod site;
pub mod tls;
pub mod wait;
pub mod xml;

pub use http::{Client, Fields, request};
pub use program::Program;
pub use reply::Reply;
pub use server::{Link, Server};
pub use site::{Plan, Site, Slot};
pub use wait::{PATIENCE, eventually, pseudo_random, raise_descriptors, unix_now};
