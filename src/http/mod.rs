//! HTTP/1.1 and 1.0 without a socket (RFC 9110, 9111, 9112), in reading order:
//!
//! - [`head`] the request head: what it says, and everything that makes it unacceptable;
//! - [`body`] the framing of a request body;
//! - [`range`], [`condition`] the parts of RFC 9110 §13 and §14;
//! - [`forwarded`] whom a proxy speaks for;
//! - [`mime`], [`disposition`] types and names of files; [`charset`] which text is UTF-8;
//! - [`cors`] what browsers of other origins may do;
//! - [`response`] response heads, and the answers that every route shares;
//! - [`query`], [`api`] the slot API for programs on this host;
//! - [`route`] from a request target to a path in the store;
//! - [`exchange`] the machine of one connection, which puts these together.

pub mod api;
pub mod body;
pub mod charset;
pub mod condition;
pub mod cors;
pub mod disposition;
pub mod exchange;
pub mod forwarded;
pub mod head;
pub mod mime;
pub mod query;
pub mod range;
pub mod response;
pub mod route;
