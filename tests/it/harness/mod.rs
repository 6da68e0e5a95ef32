//! What the tests stand on, in reading order.
//!
//! - [`wait`] deadlines;
//! - [`dir`] a folder that goes away;
//! - [`program`] the child process and its log;
//! - [`xml`] one element out of a stream of bytes;
//! - [`server`] the XMPP server's side of XEP-0114;
//! - [`http`] a client on a raw socket, and answers read strictly;
//! - [`site`] all of it together: a configured program with its link up.

pub mod dir;
pub mod downloads;
pub mod http;
pub mod local_api;
pub mod program;
pub mod raw;
pub mod server;
pub mod signing;
pub mod site;
pub mod tls;
pub mod wait;
pub mod xml;

pub use http::{Client, Fields, Reply, request};
pub use program::Program;
pub use server::{Link, Server};
pub use site::{Plan, Site, Slot};
pub use wait::{PATIENCE, eventually, pseudo_random, raise_descriptors, unix_now};
