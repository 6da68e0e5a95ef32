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

mod access;
mod api;
mod api_access;
mod api_metrics;
mod backoff_and_timeouts;
mod charset;
mod client_address;
mod commands;
mod config;
mod content_types;
mod cors;
mod crash;
mod erasure;
mod expect_continue;
mod expiry;
mod external_secret;
mod file_share;
mod forged_slots;
mod framing;
mod health_command;
mod hostile;
mod http_get;
mod http_put;
mod http_ranges;
mod injection;
mod limits;
mod network;
mod persistence;
mod planted_links;
mod purposes;
mod quota;
mod sandbox;
mod service_manager;
mod signals;
mod slots;
mod supply;
mod tidy;
mod tls;
mod tls_certificates;
mod tls_handshakes;
mod traversal;
mod volumes;
mod xmpp;
mod xmpp_endless;
mod xmpp_floods;
mod xmpp_link;
mod xmpp_stanzas;
