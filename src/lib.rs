//! upslot: the XMPP HTTP File Upload service (XEP-0363).
//!
//! One thread, one reactor, one poll. It carries the link to the XMPP server (XEP-0114) and all HTTP connections,
//! moves bodies between socket and disk, and runs expiry in small slices. Two kinds of helper thread only wait: for stable
//! storage ([`syncer`]) and for name servers ([`resolve`]).
//!
//! # Layers
//!
//! Decisions are pure: they use no socket, file or clock, and are tested without them. Code with side effects is small. A
//! module imports from lower layers only.
//!
//! | layer | modules |
//! | --- | --- |
//! | 0 values | [`now`] [`decimal`] [`units`] [`jid`] [`purpose`] [`refusal`] [`metrics`] [`log_limiter`] |
//! | 1 decisions | [`layout`] [`policy`] [`slot`] [`clock`] [`expiry`] [`listing`] [`certificate`] |
//! | 2 protocols | [`xmpp`] [`http`] |
//! | 3 program | [`config`] [`s3`] [`service`] |
//! | 4 system | [`sys`] [`tls`] [`setup`] [`transport`] [`store`] [`sandbox`] [`syncer`] [`resolve`] [`signals`] [`activation`] [`notify`] |
//! | 5 loop | [`reactor`] |
//! | top | [`client`] [`list`] `objects` [`explain`] [`remove`] [`import`] [`demo`] [`health`] [`doctor`] |
//!
//! # Where to start
//!
//! Start with [`reactor`], which describes one turn of the loop. Then [`http::exchange`], the state machine of a
//! connection: it returns the next operation, and the driver in [`reactor::client`] performs it and reports its progress.
//! Then [`service`], which decides, and [`slot::own`], which signs slots so that none has to be stored. The configuration
//! begins at [`config::keys`].

#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

pub mod now;

pub mod decimal;
pub mod units;

pub mod jid;

pub mod purpose;
pub mod refusal;

pub mod metrics;

pub mod log_limiter;

pub mod layout;
pub mod policy;

pub mod slot;

pub mod clock;
pub mod expiry;
pub mod listing;

pub mod certificate;

pub mod xmpp;

pub mod http;

pub mod config;
#[cfg(feature = "s3")]
pub mod s3;
pub mod service;

pub mod sys;

pub mod tls;

pub mod setup;
pub mod transport;

pub mod store;

pub mod sandbox;
pub mod syncer;

pub mod activation;
pub mod notify;
pub mod resolve;
pub mod signals;

pub mod reactor;

pub mod client;

pub mod demo;
pub mod doctor;
pub mod health;

#[cfg(feature = "s3")]
pub mod objects;

pub mod list;

pub mod explain;
pub mod import;
pub mod remove;
