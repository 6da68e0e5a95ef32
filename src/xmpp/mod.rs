//! XMPP: a XEP-0114 component that issues XEP-0363 slots and executes XEP-0050 commands.
//!
//! In reading order:
//!
//! - [`syntax`]: errors, and the characters, references and names that XML allows;
//! - [`element`]: one XML element as a value, with builders, accessors and a writer;
//! - [`scanner`]: finds the end of stanzas of any size in constant memory (RFC 6120 §11);
//! - [`xml`]: parses the bytes of a stream into bounded elements and skips stanzas that exceed the bounds;
//! - [`ended`]: why a stream ended, as a message for the operator;
//! - [`stream`]: the state machine of the link: stream header, handshake, keepalive ping, closing (XEP-0114);
//! - [`backoff`]: the delay before the next connection attempt;
//! - [`upload`]: slot requests, slots and refusals in three namespaces (XEP-0363);
//! - [`form`]: data forms (XEP-0004);
//! - [`adhoc`]: ad-hoc commands and their replies (XEP-0050);
//! - [`iq`]: routes stanzas: disco, ping, version, slot requests and commands; all other requests are refused.
//!
//! These modules use no socket, clock, configuration file or policy. Bytes and times are arguments; results are values.

pub mod adhoc;
pub mod backoff;
pub mod element;
pub mod ended;
pub mod form;
pub mod iq;
pub mod scanner;
pub mod stream;
pub mod syntax;
pub mod upload;
pub mod xml;

#[cfg(test)]
mod tests;
