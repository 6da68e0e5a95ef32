//! The real program from outside: a scripted XMPP server on one side, raw sockets on the other.
//!
//! One module per feature. Every test starts programs of its own on free ports with a folder of its own, so all of
//! them run side by side; each wait has a deadline, and what a program writes to standard error is judged when its
//! test ends.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test ends at the first surprise, and says what it saw"
)]

mod harness;

mod a_long_silence;
mod access;
mod api;
mod attack;
mod commands;
mod config;
mod cors;
mod crash;
mod erasure;
mod expiry;
mod framing;
mod hostile;
mod http_get;
mod http_put;
mod limits;
mod network;
mod orchestration;
mod purposes;
mod quota;
mod sandbox;
mod signals;
mod signed;
mod supply;
mod tidy;
mod tls;
mod xmpp;
