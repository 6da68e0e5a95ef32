//! The XMPP side: a XEP-0114 component that hands out XEP-0363 slots.
//!
//! In reading order:
//!
//! - [`element`] one XML element as a value: how it is built, asked, answered and written;
//! - [`scanner`] where stanzas of any size end in a stream of bytes, and what ends the stream (RFC 6120 §11);
//! - [`xml`] bytes of a stream to bounded elements, and to stanzas that are skipped;
//! - [`ended`] why a stream is over, and what its operator can do about it;
//! - [`stream`] the link's machine: stream header, handshake, probe, orderly end (XEP-0114);
//! - [`backoff`] how long to rest before the link is tried again;
//! - [`upload`] slot requests, slots and refusals in three namespaces (XEP-0363);
//! - [`iq`] what answers which stanza: disco, ping, version, slot requests, and the no to all else.
//!
//! Nothing here knows a socket, a clock, a configuration file or a policy. Bytes and moments come in as arguments,
//! and what is wanted goes out as values.

pub mod backoff;
pub mod element;
pub mod ended;
pub mod iq;
pub mod scanner;
pub mod stream;
pub mod upload;
pub mod xml;
