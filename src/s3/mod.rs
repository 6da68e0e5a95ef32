//! An S3-compatible object store: which requests to send, and what its answers mean. It uses no socket.
//!
//! - [`bucket`] keys, presigned URLs and requests;
//! - [`error`] what went wrong, and what to change;
//! - [`listing`] the pages of a list of objects;
//! - [`tasks`] work that needs many requests.

pub mod bucket;
pub mod error;
pub mod listing;
pub mod tasks;
mod xml;
