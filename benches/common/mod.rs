//! What both benches share. A file imports only from those before it:
//!
//! - [`outcome`] how a bench fails;
//! - [`kind`] the servers that are compared.

pub mod outcome;

pub mod kind;
