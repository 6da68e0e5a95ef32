//! Black-box tests: the real program between a scripted XMPP server and raw client sockets.
//!
//! One module per feature. Every test starts programs of its own on free ports with a folder of its own, so all of
//! them run in parallel; each wait has a deadline, and the log of a program is checked when its test ends.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails at the first unexpected value and prints it"
)]

mod harness;

mod access;
mod ad_hoc;
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
mod doctor_command;
mod erasure;
mod expect_continue;
mod expiry;
mod external_secret;
mod fake_store;
mod file_share;
mod forged_slots;
mod framing;
mod health_command;
mod hostile;
mod http_get;
mod http_put;
mod http_ranges;
mod import;
mod injection;
mod landing;
mod limits;
mod network;
#[cfg(feature = "s3")]
mod object_store_commands;
#[cfg(feature = "s3")]
mod object_store_conditional;
mod object_store_doctor;
#[cfg(feature = "s3")]
mod object_store_get;
#[cfg(feature = "s3")]
mod object_store_hostile;
#[cfg(feature = "s3")]
mod object_store_notes;
#[cfg(feature = "s3")]
mod object_store_put;
#[cfg(feature = "s3")]
mod object_store_small_files;
#[cfg(feature = "s3")]
mod object_store_tasks;
mod package;
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
mod wide_numbers;
mod xmpp;
mod xmpp_endless;
mod xmpp_floods;
mod xmpp_link;
mod xmpp_stanzas;
