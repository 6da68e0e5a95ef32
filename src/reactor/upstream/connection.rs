//! One connection to the store, from the first address that is tried to the end of the TLS handshake.
//!
//! ```text
//!   Connecting ── connected ──▶ Handshaking ── established ──▶ Open ◀──▶ Idle
//!      └▲ next address              (TLS only)                  a request, or none
//! ```

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Registry, Token};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use crate::reactor::upstream::buffers::{IoBuffers, MAX_READS};
use crate::reactor::upstream::call::CallId;
use crate::resolve;
use crate::transport::{Moved, Transport};

/// The time limit for connecting to the last address of the store, and to those before it.
const CONNECT_TIME: Duration = Duration::from_secs(5);
const FIRST_CONNECT_TIME: Duration = Duration::from_secs(2);

const HANDSHAKE_TIME: Duration = Duration::from_secs(5);

/// How the server proves that it is the store; `None` for plain HTTP.
pub(super) type ClientTls = Option<(Arc<ClientConfig>, ServerName<'static>)>;

/// A connection to the store.
#[derive(Debug)]
pub(super) struct UpstreamConnection {
    pub(super) transport: Transport,
    pub(super) stage: Stage,
    pub(super) server: SocketAddr,
    /// The request that it carries, or is opened for.
    pub(super) call: Option<CallId>,
    /// Whether it has carried another request.
    pub(super) is_reused: bool,
    /// Whether it is on the queue of connections with work.
    pub(super) is_queued: bool,
    /// When its deadline is checked.
    pub(super) armed: Option<Instant>,
    /// The target that it belongs to.
    pub(super) generation: u32,
}

#[derive(Debug)]
pub(super) enum Stage {
    Connecting {
        until: Instant,
        left: VecDeque<SocketAddr>,
        /// Why the earlier addresses failed.
        failures: Vec<String>,
    },
    Handshaking {
        until: Instant,
    },
    Open,
    /// Open and in the pool.
    Idle {
        until: Instant,
    },
}

impl UpstreamConnection {
    /// Begins to connect to the first of the addresses.
    pub(super) fn open(
        candidates: VecDeque<SocketAddr>,
        registry: &Registry,
        token: Token,
        tls: &ClientTls,
        now: Instant,
    ) -> Result<UpstreamConnection, String> {
        let (transport, server, stage) =
            connect(candidates, Vec::new(), registry, token, tls, now)?;
        Ok(UpstreamConnection {
            transport,
            stage,
            server,
            call: None,
            is_reused: false,
            is_queued: false,
            armed: None,
            generation: 0,
        })
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open | Stage::Idle { .. })
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Connecting { until, .. }
            | Stage::Handshaking { until }
            | Stage::Idle { until } => Some(until),
            Stage::Open => None,
        }
    }

    /// Continues until the connection is open; an error says why it cannot be.
    pub(super) fn proceed(
        &mut self,
        registry: &Registry,
        token: Token,
        tls: &ClientTls,
        buffers: &mut IoBuffers,
        now: Instant,
    ) -> Result<(), String> {
        if let Stage::Connecting { until, .. } = &self.stage {
            let is_due = *until <= now;
            let failure = match self.transport.is_connected() {
                Ok(true) => {
                    self.stage = Stage::Handshaking {
                        until: now + HANDSHAKE_TIME,
                    };
                    None
                }
                Ok(false) if is_due => Some(format!("{}: no answer", self.server)),
                Ok(false) => return Ok(()),
                Err(error) => Some(resolve::connect_failure(self.server, &error)),
            };
            if let Some(failure) = failure {
                return self.try_next(failure, registry, token, tls, now);
            }
        }
        if let Stage::Handshaking { until } = self.stage {
            let server = self.server;
            self.shake_hands(buffers)
                .map_err(|error| format!("{server}: {error}"))?;
            if self.transport.is_established() {
                self.stage = Stage::Open;
            } else if until <= now {
                return Err(format!("{server}: the TLS handshake took too long"));
            }
        }
        Ok(())
    }

    fn try_next(
        &mut self,
        failure: String,
        registry: &Registry,
        token: Token,
        tls: &ClientTls,
        now: Instant,
    ) -> Result<(), String> {
        let Stage::Connecting { left, failures, .. } = &mut self.stage else {
            return Err(failure);
        };
        let (left, mut failures) = (std::mem::take(left), std::mem::take(failures));
        failures.push(failure);
        let (transport, server, stage) = connect(left, failures, registry, token, tls, now)?;
        self.transport = transport;
        self.server = server;
        self.stage = stage;
        Ok(())
    }

    fn shake_hands(&mut self, buffers: &mut IoBuffers) -> io::Result<()> {
        self.transport.flush()?;
        while !self.transport.is_established() {
            let IoBuffers { wire, scratch, .. } = buffers;
            match self.transport.read(scratch, wire) {
                Ok(Moved::NoBytes) => {}
                Ok(Moved::Blocked) => return Ok(()),
                Ok(Moved::End) => {
                    return Err(io::Error::other(
                        "the connection was closed in the TLS handshake",
                    ));
                }
                Ok(Moved::Bytes(_)) => {
                    return Err(io::Error::other("there was data in the TLS handshake"));
                }
                Err(error) => {
                    // The alert is sent as far as possible.
                    let _ = self.transport.flush();
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Whether the server was silent on a connection without a request. TLS may have sent tickets.
    pub(super) fn is_silent(&mut self, buffers: &mut IoBuffers) -> bool {
        for _ in 0..MAX_READS {
            let IoBuffers { wire, scratch, .. } = buffers;
            match self.transport.read(scratch, wire) {
                Ok(Moved::Blocked) => return true,
                Ok(Moved::NoBytes) => {}
                Ok(Moved::Bytes(_) | Moved::End) | Err(_) => return false,
            }
        }
        false
    }
}

/// Begins to connect to the first address for which that is possible.
fn connect(
    mut left: VecDeque<SocketAddr>,
    mut failures: Vec<String>,
    registry: &Registry,
    token: Token,
    tls: &ClientTls,
    now: Instant,
) -> Result<(Transport, SocketAddr, Stage), String> {
    while let Some(server) = left.pop_front() {
        match Transport::connect(server, registry, token, tls.clone()) {
            Ok(transport) => {
                let time = match left.is_empty() {
                    true => CONNECT_TIME,
                    false => FIRST_CONNECT_TIME,
                };
                let until = now + time;
                let stage = Stage::Connecting {
                    until,
                    left,
                    failures,
                };
                return Ok((transport, server, stage));
            }
            Err(error) => failures.push(resolve::connect_failure(server, &error)),
        }
    }
    Err(format!("cannot connect to {}", failures.join("; ")))
}
