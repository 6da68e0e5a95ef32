//! The driver of one HTTP connection. It moves bytes between the transport, the exchange and the store, as the exchange
//! wants.
//!
//! - [`activity`] the state of the present request;
//! - [`decide`] acts on a request head, and refuses requests; [`address`] the client's address, behind a proxy or not;
//! - [`get`] sends a file; [`put`] stores a body; [`delete`] deletes a file; [`api`] answers the local API;
//! - `object_get`, `object_relay`, `object_put` and `object_delete` do the same with an object store;
//! - this file: the budget, the deadlines, and the steps.
//!
//! A request that needs more than a response from memory has its state in [`Activity`].

mod activity;
mod address;
mod api;
mod decide;
mod delete;
mod get;
#[cfg(feature = "s3")]
mod object_delete;
#[cfg(feature = "s3")]
mod object_get;
#[cfg(feature = "s3")]
mod object_put;
#[cfg(feature = "s3")]
mod object_relay;
mod put;

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use crate::http::exchange::{Ended, Exchange, Want};
use crate::now::Now;
use crate::reactor::run_queue::Work;
use crate::reactor::shared::Shared;
use crate::reactor::table::Key;
use crate::sys;
use crate::transport::{Moved, Transport};

use activity::Activity;
pub use address::ClientAddress;
use put::WaitingForUsage;

/// Maximum number of steps of one connection per turn.
const STEPS: usize = 16;

/// Maximum number of bytes that one connection may transfer per turn, and all with [`Work::Bulk`] together. On an SD card
/// this limits a turn to tens of milliseconds.
pub const BYTES: usize = 256 * 1024;

/// A connection whose file was not sent with [`BYTES`] may go on until the turn has taken this long, or [`STEPS`] are
/// used up. Cached pages that the client accepts at once cost so little that changing connections would cost more. A
/// piece that has to be read from a slow disk takes longer than this, and remains the only one.
const FILE_TIME: Duration = Duration::from_micros(500);

/// Most bytes read at once while a request head is awaited.
const HEAD_READ: usize = 16 * 1024;

/// How long the last TLS records may take at the end of a connection.
const CLOSING_TIME: Duration = Duration::from_secs(20);

/// The result of driving a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum DriveOutcome {
    /// The connection waits for an event, a result or a deadline.
    Blocked,
    /// The budget of this turn is used up.
    Again,
    /// The connection is over.
    Ended,
}

/// Whether a connection is served; decided when it is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    Admitted,
    /// Too many connections: every request is answered with 503.
    Rejected,
}

/// The listener through which a connection came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Public,
    LocalApi,
}

/// The properties of a connection that was just accepted.
#[derive(Clone, Copy, Debug)]
pub struct AcceptedSocket {
    pub address: ClientAddress,
    pub endpoint: Endpoint,
    pub acceptance: Acceptance,
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    key: Key,
    address: ClientAddress,
    transport: Transport,
    exchange: Exchange,
    activity: Activity,
    acceptance: Acceptance,
    endpoint: Endpoint,
    phase: TransportPhase,
    /// Why the connection ended, if the exchange does not know.
    why: Option<Box<str>>,
    /// Whether it is on the run queue.
    pub queued: bool,
    /// Its entry among the deadlines of the loop, in ticks.
    pub armed: Option<u32>,
}

/// The deadlines of the transport; those of HTTP are in the exchange.
#[derive(Clone, Copy, Debug)]
enum TransportPhase {
    /// The TLS handshake and the first request must be complete by this time.
    Handshake(Instant),
    Open,
    /// The last TLS records must be written by this time.
    Closing(Instant),
}

/// The result of one step.
enum StepResult {
    Moved,
    Blocked,
}

impl Client {
    /// A connection that was just accepted.
    pub fn new(
        key: Key,
        accepted: AcceptedSocket,
        transport: Transport,
        shared: &Shared,
        now: Now,
    ) -> Client {
        let mut timeouts = shared.service.timeouts();
        if accepted.acceptance == Acceptance::Rejected {
            timeouts = timeouts.with_short_idle();
        }
        Client {
            key,
            address: accepted.address,
            phase: match transport.is_tls() {
                true => TransportPhase::Handshake(now.mono + timeouts.header()),
                false => TransportPhase::Open,
            },
            transport,
            exchange: Exchange::new(timeouts, now.mono),
            activity: Activity::None,
            acceptance: accepted.acceptance,
            endpoint: accepted.endpoint,
            why: None,
            queued: false,
            armed: None,
        }
    }

    pub fn transport(&mut self) -> &mut Transport {
        &mut self.transport
    }

    /// When [`Client::due`] must be called.
    pub fn deadline(&self) -> Option<Instant> {
        let deadlines = [
            self.exchange.deadline(),
            self.phase.deadline(),
            self.activity.deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Since when the connection has been waiting for a whole request head; `None` if it must not be closed to make room.
    /// Rejected connections end by themselves.
    pub fn evictable_since(&self) -> Option<Instant> {
        match self.acceptance {
            Acceptance::Admitted => self.exchange.awaiting_request_since(),
            Acceptance::Rejected => None,
        }
    }

    /// Records that the connection is closed to make room.
    pub fn mark_evicted(&mut self) {
        self.why = Some("evicted for another connection".into());
    }

    /// Changes the timeouts.
    pub fn set_timeouts(&mut self, shared: &Shared) {
        self.exchange.set_timeouts(shared.service.timeouts());
    }

    /// Accepts no further request. True if no request is under way.
    pub fn disable_keep_alive(&mut self) -> bool {
        self.exchange.disable_keep_alive();
        self.exchange.is_awaiting_request()
    }

    /// How long the work is for which it is put on the run queue.
    pub fn work(&self) -> Work {
        work_of(self.exchange.want())
    }

    /// Takes steps until the connection is blocked or over, or its budget is used up.
    pub fn drive(&mut self, shared: &mut Shared, now: Now) -> DriveOutcome {
        let mut budget = BYTES;
        let outcome = self.drive_within(&mut budget, shared, now);
        shared.connections.moved += BYTES - budget;
        outcome
    }

    fn drive_within(&mut self, budget: &mut usize, shared: &mut Shared, now: Now) -> DriveOutcome {
        let work = self.work();
        for _ in 0..STEPS {
            let want = self.exchange.want();
            if want == Want::Close {
                return self.close(shared, now);
            }
            if work == Work::Short && work_of(want) == Work::Bulk {
                return DriveOutcome::Again;
            }
            match self.step(want, shared, now, budget) {
                Ok(StepResult::Moved) if *budget > 0 => {}
                Ok(StepResult::Moved) if self.may_send_more(now) => {
                    shared.connections.moved += BYTES;
                    *budget = BYTES;
                }
                Ok(StepResult::Moved) => return DriveOutcome::Again,
                Ok(StepResult::Blocked) => return DriveOutcome::Blocked,
                Err(error) => {
                    if matches!(self.activity, Activity::Get(_)) && sys::is_disk_error(&error) {
                        shared.unreadable(&error, now);
                    }
                    self.why = Some(error.to_string().into());
                    return DriveOutcome::Ended;
                }
            }
        }
        DriveOutcome::Again
    }

    /// Whether it may send another [`BYTES`] of its file in this turn.
    fn may_send_more(&self, now: Now) -> bool {
        matches!(self.exchange.want(), Want::File { .. })
            && sys::monotonic().saturating_duration_since(now.mono) < FILE_TIME
    }

    /// Handles a deadline.
    pub fn due(&mut self, shared: &mut Shared, now: Now) -> DriveOutcome {
        let is_due = |deadline: Option<Instant>| deadline.is_some_and(|at| at <= now.mono);
        if is_due(self.phase.deadline()) {
            if let TransportPhase::Closing(_) = self.phase {
                return DriveOutcome::Ended;
            }
            if !self.transport.is_established() {
                self.why = Some("the TLS handshake took too long".into());
                return DriveOutcome::Ended;
            }
            self.phase = TransportPhase::Open;
        }
        if self.exchange.is_answering() && is_due(self.exchange.deadline()) {
            // The kernel reports a socket as writable only when much of its buffer is free, so a slow client may have
            // made some progress without an event.
            self.transport.assume_writable();
            match self.drive(shared, now) {
                DriveOutcome::Blocked => {}
                other => return other,
            }
        }
        #[cfg(feature = "s3")]
        if self.exchange.is_answering() && is_due(self.exchange.deadline()) {
            self.relay_timed_out(shared, now);
        }
        self.exchange.deadline_passed(now.mono);
        self.drive(shared, now)
    }

    /// Releases what it holds of the shared state. Called before the connection is dropped.
    pub fn dispose(&mut self, shared: &mut Shared) {
        if let Some(path) = self.activity.upload_path() {
            log::info!("upload aborted path={path:?} from={}", self.address);
            shared.status.metrics.upload_refused("aborted", 0);
        }
        self.end_activity(shared);
        if self.transport.is_tls() {
            // Sends close_notify, if the socket has space for it.
            let _ = self.transport.shut_write();
        }
        self.address.uncount(shared);
    }

    /// Writes the last TLS records and discards input. Without the latter the kernel would answer unread input with a
    /// reset, which can overtake the response.
    fn close(&mut self, shared: &mut Shared, now: Now) -> DriveOutcome {
        // All input was read and nothing is left to write, or the client does not read.
        if let Some(Ended::ClientClosed | Ended::Stalled) = self.exchange.ended() {
            return DriveOutcome::Ended;
        }
        match self.transport.shut_write() {
            Ok(false) => {
                if !matches!(self.phase, TransportPhase::Closing(_)) {
                    self.phase = TransportPhase::Closing(now.mono + CLOSING_TIME);
                }
                DriveOutcome::Blocked
            }
            Ok(true) => {
                let _ = self.transport.discard_input(&mut shared.buffers.scratch);
                DriveOutcome::Ended
            }
            Err(_) => DriveOutcome::Ended,
        }
    }

    /// Does the one thing that the exchange wants.
    fn step(
        &mut self,
        want: Want,
        shared: &mut Shared,
        now: Now,
        budget: &mut usize,
    ) -> io::Result<StepResult> {
        if !self.flush_tls(want, now)? {
            return Ok(StepResult::Blocked);
        }
        match want {
            Want::Head(_) | Want::Discard(_) => self.read_input(want, shared, now, budget),
            Want::Decide => Ok(self.decide(shared, now)),
            #[cfg(feature = "s3")]
            Want::Body(most) if shared.storage.is_bucket() => {
                self.relay_body(most, shared, now, budget)
            }
            #[cfg(feature = "s3")]
            Want::Publish if shared.storage.is_bucket() => self.finish_object(shared, now),
            #[cfg(feature = "s3")]
            Want::File { start, end } if shared.storage.is_bucket() => {
                self.relay_object(start, end, shared, now, budget)
            }
            Want::Body(most) => self.receive_body(most, shared, now, budget),
            Want::Publish => self.finish_upload(shared, now),
            Want::Write => self.write(shared, now, budget),
            Want::File { start, end } => self.send_file(start, end, shared, now, budget),
            Want::Linger => self.linger(shared, now, budget),
            Want::Close => Ok(StepResult::Moved),
        }
    }

    /// Writes buffered TLS records. False if the socket is full and the exchange wants to write more.
    fn flush_tls(&mut self, want: Want, now: Now) -> io::Result<bool> {
        if !self.transport.is_tls() {
            return Ok(true);
        }
        let flushed = self.transport.flush()?;
        self.exchange
            .flushed(self.transport.take_flushed(), now.mono);
        let reads = matches!(
            want,
            Want::Head(_) | Want::Body(_) | Want::Discard(_) | Want::Decide
        );
        Ok(flushed || reads)
    }

    /// Reads a part of a request head, or of a body that is discarded.
    fn read_input(
        &mut self,
        want: Want,
        shared: &mut Shared,
        now: Now,
        budget: &mut usize,
    ) -> io::Result<StepResult> {
        let most = match want {
            Want::Head(most) => {
                self.end_activity(shared);
                self.address.end_request(shared);
                most.min(HEAD_READ)
            }
            Want::Discard(most) => most.min(shared.buffers.scratch.len()),
            _ => return Ok(StepResult::Blocked),
        };
        let buffers = &mut shared.buffers;
        let buffer = &mut buffers.scratch[..most];
        match self.transport.read(buffer, &mut buffers.wire)? {
            Moved::Bytes(n) => {
                *budget = budget.saturating_sub(n);
                match want {
                    Want::Head(_) => self.exchange.received(&buffer[..n], now.mono),
                    _ => self.exchange.discard(&buffer[..n], now.mono),
                }
            }
            Moved::End => self.exchange.peer_closed(),
            Moved::NoBytes if self.transport.received_plain_http() => {
                self.exchange.reject_plain_http();
            }
            Moved::NoBytes => {}
            Moved::Blocked => return Ok(StepResult::Blocked),
        }
        Ok(StepResult::Moved)
    }

    fn linger(
        &mut self,
        shared: &mut Shared,
        now: Now,
        budget: &mut usize,
    ) -> io::Result<StepResult> {
        if !self.transport.shut_write()? {
            return Ok(StepResult::Blocked);
        }
        match self.transport.discard_input(&mut shared.buffers.scratch)? {
            Moved::Bytes(n) => {
                *budget = budget.saturating_sub(n);
                self.exchange.lingered(n as u64, now.mono);
            }
            Moved::End => self.exchange.peer_closed(),
            Moved::NoBytes => {}
            Moved::Blocked => return Ok(StepResult::Blocked),
        }
        Ok(StepResult::Moved)
    }
}

/// Whether the rest of a body is so long that it takes several turns.
fn work_of(want: Want) -> Work {
    let is_bulk = match want {
        Want::Body(rest) => rest > BYTES,
        Want::File { start, end } => end - start > BYTES as u64,
        Want::Linger => true,
        _ => false,
    };
    match is_bulk {
        true => Work::Bulk,
        false => Work::Short,
    }
}

impl TransportPhase {
    fn deadline(self) -> Option<Instant> {
        match self {
            TransportPhase::Handshake(deadline) | TransportPhase::Closing(deadline) => {
                Some(deadline)
            }
            TransportPhase::Open => None,
        }
    }
}

impl fmt::Display for Client {
    /// For the log: the connection, its address, and why it ended.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "conn={} from={} why=\"", self.key, self.address)?;
        match (&self.why, self.exchange.ended()) {
            (Some(why), _) => write!(f, "{}", why.escape_debug())?,
            (None, Some(ended)) => write!(f, "{ended}")?,
            (None, None) => f.write_str("the process ends")?,
        }
        f.write_str("\"")
    }
}
