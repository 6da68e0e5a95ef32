//! HTTP/1.1 and 1.0 without a socket (RFC 9110, 9111 and 9112), in reading order:
//!
//! - [`syntax`] grammar rules that several fields share; [`origin`] scheme, host and port of a URL;
//! - [`head`] the request head and every reason to reject it;
//! - [`body`] the framing of a request body;
//! - [`range`], [`condition`] range requests and conditional requests (RFC 9110 §14 and §13);
//! - [`forwarded`] the client's address behind reverse proxies;
//! - [`mime`], [`disposition`] the types and names of files; [`charset`] whether text is UTF-8;
//! - [`cors`] access for web clients of other origins;
//! - [`accept`], [`landing`] the page for people, and which clients get it;
//! - [`response`] response heads, and the responses that every route shares;
//! - [`client`] responses, read as a client;
//! - [`query`], [`api`] the slot API for programs on this host;
//! - [`route`] from a request target to a path in the store;
//! - [`exchange`] the state machine of one connection, which combines them.

pub mod accept;
pub mod api;
pub mod body;
pub mod charset;
pub mod client;
pub mod condition;
pub mod cors;
pub mod disposition;
pub mod exchange;
pub mod forwarded;
pub mod head;
pub mod landing;
pub mod mime;
pub mod origin;
pub mod query;
pub mod range;
pub mod response;
pub mod route;
pub mod syntax;

#[cfg(test)]
mod tests;
