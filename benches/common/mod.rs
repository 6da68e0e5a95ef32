//! The code that both benches share. A file imports only from those before it:
//!
//! - [`outcome`] the errors of the benches;
//! - [`server_kind`] the servers that are compared;
//! - [`catalogue`] the names of all cases of both benches;
//! - [`options`] the command line;
//! - [`report`] numbers as lines, as a table and as JSON;
//! - [`start`] from the command line to the exit code.

pub mod outcome;

pub mod server_kind;

pub mod catalogue;

pub mod options;
pub mod report;
pub mod start;
