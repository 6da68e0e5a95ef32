//! The event loop: one thread, one poll.
//!
//! - [`table`] the connections, by key;
//! - [`listener`] the listening sockets;
//! - [`open_files`] a cache of files that are requested often; [`random`] random bytes for slots;
//! - [`storage`] where files are kept; [`shared`] the state common to all connections: [`admission`] quotas, rates and
//!   [`waiting`] requests, [`store_monitor`] the health of the store, [`connection_limits`] the counts of connections;
//! - `upstream` drives the connections to an object store, `bucket_store` is its state with `path_claims`, `note_lists`,
//!   `conditional_puts`, `revocations` and `bucket_tasks`, its searches and deletions; `bucket` does the turn's work on it;
//! - [`client`] drives one HTTP connection, [`connections`] holds all of them, [`run_queue`] orders them; [`component`]
//!   drives the link to the XMPP server; [`executions`] the commands of users in progress;
//! - [`sync_token`] identifies sync jobs; [`timekeeper`] the wall clock and its jumps;
//! - [`lifecycle`] start, reload, shutdown; [`accept`] accepts connections; [`slots`] slot requests over XMPP, and the walks
//!   through the store; [`commands`] users' commands over XMPP;
//! - this file: the turn.
//!
//! The order of a turn:
//!
//! 1. sleep until there is work in a queue or a deadline passes, at most one minute;
//! 2. read both clocks, and check whether the wall clock has jumped;
//! 3. turn events into readiness bits and put their connections on the run queue; read which files other processes have
//!    deleted from the store;
//! 4. work the run queue: first short work, then large bodies, until together these have used the budget of one
//!    connection; the rest continues in the next turn, after new events were collected;
//! 5. handle due deadlines, unless the process was suspended;
//! 6. accept a few connections;
//! 7. count, trim and sweep the store for one slice, and search it for commands for another; in an object store all this is
//!    the work of tasks, of which one goes on for a few dozen objects;
//! 8. send the requests to an object store that were made in this turn, and submit its sync jobs;
//! 9. handle signals, update the status, and notify the service manager.
//!
//! Events only set bits. A handler never frees its own connection: it returns that the connection has ended, and the
//! loop removes it.

pub mod admission;
#[cfg(feature = "s3")]
pub mod bucket_store;
#[cfg(feature = "s3")]
pub mod bucket_tasks;
pub mod client;
pub mod component;
#[cfg(feature = "s3")]
pub mod conditional_puts;
pub mod connection_limits;
pub mod executions;
pub mod listener;
#[cfg(feature = "s3")]
pub mod note_lists;
#[cfg(feature = "s3")]
pub mod object_facts;
pub mod open_files;
#[cfg(feature = "s3")]
pub mod path_claims;
pub mod random;
#[cfg(feature = "s3")]
pub mod revocations;
pub mod run_queue;
pub mod shared;
pub mod storage;
pub mod store_monitor;
pub mod sync_token;
pub mod table;
pub mod timekeeper;
#[cfg(feature = "s3")]
pub mod upstream;
pub mod waiting;

mod accept;
#[cfg(feature = "s3")]
mod bucket;
mod commands;
mod connections;
mod lifecycle;
mod slots;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};
use rustls::ServerConfig;

use crate::certificate::{ExpiryMonitor, Notice};
use crate::config::SecretKey;
use crate::metrics;
use crate::notify::Notifier;
use crate::now::Now;
use crate::reactor::client::DriveOutcome;
use crate::reactor::component::Link;
use crate::reactor::connections::Connections;
use crate::reactor::executions::Executions;
use crate::reactor::listener::Listener;
use crate::reactor::shared::Shared;
use crate::reactor::sync_token::SyncToken;
use crate::reactor::table::Key;
use crate::reactor::timekeeper::Timekeeper;
use crate::sandbox::Sandbox;
use crate::signals::Signals;
use crate::store::sweep::Sweep;
use crate::sys;

// The tokens of the loop's own event sources are below those of connections.
const LINK: Token = Token(0);
const WAKER: Token = Token(1);
const SIGNALS: Token = Token(2);
const FIRST_LISTENER: usize = 3;

/// The longest sleep, which limits the effect of a missed deadline.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// If the loop wakes this much later than it asked for, the process was suspended. Deadlines are then handled in the
/// next turn, because input that arrived in time may not be read yet.
const OVERSLEPT: Duration = Duration::from_millis(500);

/// When to check a deadline again that passed while its connection was on the run queue.
const RECHECK: Duration = Duration::from_millis(50);

/// Maximum number of connections beyond the limit, which are accepted only to be answered with 503.
const MAX_REJECTED: usize = 64;

/// The loop and everything that it owns.
#[derive(Debug)]
pub struct Reactor {
    poll: Poll,
    acceptor: Acceptor,
    connections: Connections,
    shared: Shared,
    xmpp: Xmpp,
    signals: Signals,
    notifier: Notifier,
    sweep: Sweep,
    timekeeper: Timekeeper,
    tls: Tls,
    context: Context,
    /// Set during shutdown: the time by which the process must exit.
    ending: Option<Instant>,
}

/// The listeners, and the limits of accepted connections.
#[derive(Debug, Default)]
struct Acceptor {
    listeners: Vec<Listener>,
    /// Maximum number of connections.
    limit: usize,
    /// Maximum number of connections beyond the limit, which are accepted only to be answered with 503.
    max_rejected: usize,
    /// When to accept again, after nothing could be accepted.
    paused_until: Option<Instant>,
    /// Whether the lack of descriptors has been logged.
    out_of_descriptors: bool,
}

impl Acceptor {
    /// `limits`: the maximum number of connections, and of connections beyond it.
    fn new(listeners: Vec<Listener>, limits: (usize, usize)) -> Acceptor {
        Acceptor {
            listeners,
            limit: limits.0,
            max_rejected: limits.1,
            ..Acceptor::default()
        }
    }
}

/// The link to the XMPP server.
#[derive(Debug)]
struct Xmpp {
    link: Option<Link>,
    has_work: bool,
    /// Whether the link was ever up.
    was_up: bool,
    executions: Executions,
    /// For lookups of the server's name.
    waker: Arc<Waker>,
}

impl Xmpp {
    fn new(link: Option<Link>, waker: Arc<Waker>, executions: Executions) -> Xmpp {
        Xmpp {
            link,
            has_work: false,
            was_up: false,
            executions,
            waker,
        }
    }
}

/// The TLS identity of new connections.
#[derive(Debug, Default)]
struct Tls {
    config: Option<Arc<ServerConfig>>,
    certificate: Option<ExpiryMonitor>,
}

/// State of the process that a reload needs.
#[derive(Debug)]
struct Context {
    config_path: PathBuf,
    slot_secret: SecretKey,
    sandbox: Sandbox,
    /// Applies the log level and reopens the log file, which are not part of the loop.
    on_reload: fn(log::LevelFilter),
}

/// Why the program cannot start; one sentence a line.
pub type StartError = String;

impl Reactor {
    /// Runs until the process must exit.
    pub fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut overslept = false;
        loop {
            let before = sys::now();
            let timeout = self.sleep(before);
            match self.poll.poll(&mut events, Some(timeout)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            let now = sys::now();
            // Not in two turns in a row, so that deadlines pass even on a machine that is always late.
            let late = now.mono.saturating_duration_since(before.mono) > timeout + OVERSLEPT;
            overslept = late && !overslept;
            self.shared.service.set_date(now);
            self.timekeeper
                .watch(&mut self.shared, &mut self.sweep, now);
            let has_signal = self.note_events(&events);
            self.take_results(now);
            #[cfg(feature = "s3")]
            self.drive_upstream(now);
            self.shared.look_for_removals(now);
            self.work_run_queue(now);
            self.drive_link(now);
            if !overslept {
                self.pass_deadlines(now);
            }
            self.accept(now);
            self.walk_a_slice(now);
            self.work_on_commands(now);
            #[cfg(feature = "s3")]
            self.work_on_tasks(now);
            #[cfg(feature = "s3")]
            self.follow_up_upstream(now);
            self.shared.syncer.submit_batch();
            if has_signal && self.handle_signals(now) {
                return Ok(());
            }
            if self.has_ended(now) {
                return Ok(());
            }
            self.publish_status(now);
        }
    }

    /// Sets the readiness bits of all events, and puts their connections on the run queue. True if there is a signal.
    fn note_events(&mut self, events: &Events) -> bool {
        let mut has_signal = false;
        for event in events {
            match event.token() {
                LINK => {
                    if let Some(link) = &mut self.xmpp.link {
                        link.set_ready(event);
                        self.xmpp.has_work = true;
                    }
                }
                // The results are taken in every turn.
                WAKER => {}
                SIGNALS => has_signal = true,
                #[cfg(feature = "s3")]
                token if upstream::is_upstream(token) => {
                    if let Some(bucket) = self.shared.storage.bucket_mut() {
                        bucket.upstream.set_ready(token, event);
                    }
                }
                Token(token) => match Key::from_token(token) {
                    Some(key) => {
                        if let Some(client) = self.connections.table.get_mut(key) {
                            client.transport().set_ready(event);
                            self.enqueue(key);
                        }
                    }
                    None => {
                        let index = token.wrapping_sub(FIRST_LISTENER);
                        if let Some(listener) = self.acceptor.listeners.get_mut(index) {
                            listener.readable = true;
                        }
                    }
                },
            }
        }
        has_signal
    }

    /// How long there is nothing to do.
    fn sleep(&self, now: Now) -> Duration {
        let may_accept = self.acceptor.paused_until.is_none()
            && self.acceptor.listeners.iter().any(|l| l.readable);
        let admission = &self.shared.admission;
        let walking = self.shared.storage.folder().is_some()
            && (admission.usage.is_counting() || admission.trims.has_work());
        let queued = !self.connections.run_queue.is_empty();
        let storing = self.shared.storage.has_work();
        if queued || storing || self.xmpp.has_work || may_accept || walking || self.is_searching() {
            return Duration::ZERO;
        }
        let earliest = [
            self.connections.next_deadline(),
            self.xmpp.link.as_ref().and_then(Link::deadline),
            self.sweep.due(),
            self.acceptor.paused_until,
            self.ending,
            self.shared.open_files.until(),
            self.tls.certificate.as_ref().map(ExpiryMonitor::deadline),
            self.shared.monitor.due(),
            self.shared.storage.deadline(),
            self.shared.admission.usage.due(),
            self.notifier.due(),
        ]
        .into_iter()
        .flatten()
        .min();
        earliest.map_or(LONGEST_SLEEP, |at| {
            at.saturating_duration_since(now.mono).min(LONGEST_SLEEP)
        })
    }

    /// Updates what `/health` and `/metrics` report of the loop, and notifies the service manager.
    fn publish_status(&mut self, now: Now) {
        let (link, text) = match &self.xmpp.link {
            None => (metrics::LinkStatus::None, "No XMPP link configured"),
            Some(link) if link.is_up() => (metrics::LinkStatus::Up, "XMPP link up"),
            Some(_) => (metrics::LinkStatus::Down, "XMPP link down"),
        };
        let Shared {
            status,
            connections,
            ..
        } = &mut self.shared;
        if link == metrics::LinkStatus::Up && status.link != link {
            let was_up = std::mem::replace(&mut self.xmpp.was_up, true);
            status.metrics.linked(was_up);
        }
        status.link = link;
        connections.open = self.connections.table.len();
        connections.limit = self.acceptor.limit;
        self.notifier.set_status(text, now.mono);
        self.notifier.beat(now.mono);
    }

    /// Puts a connection on the run queue, if it is not there.
    fn enqueue(&mut self, key: Key) {
        if let Some(client) = self.connections.table.get_mut(key) {
            if !std::mem::replace(&mut client.queued, true) {
                let work = client.work();
                self.connections.run_queue.push(key, work);
            }
        }
    }

    /// Drives the connections on the run queue. Those that the budget of the turn does not cover stay there.
    fn work_run_queue(&mut self, now: Now) {
        let mut turn = self.connections.run_queue.start_turn(client::BYTES);
        let mut moved = 0;
        while let Some(key) = self.connections.run_queue.next(&mut turn, moved) {
            self.shared.connections.moved = 0;
            self.drive(key, now);
            moved = self.shared.connections.moved;
        }
    }

    fn drive(&mut self, key: Key, now: Now) {
        if let Some(client) = self.connections.table.get_mut(key) {
            client.queued = false;
            let outcome = client.drive(&mut self.shared, now);
            self.follow_up(key, outcome);
        }
    }

    /// Enqueues, removes or arms a connection that was driven.
    fn follow_up(&mut self, key: Key, outcome: DriveOutcome) {
        match outcome {
            DriveOutcome::Again => self.enqueue(key),
            DriveOutcome::Blocked => {}
            DriveOutcome::Ended => return self.remove(key),
        }
        let client = self.connections.table.get_mut(key);
        if let Some(deadline) = client.and_then(|client| client.deadline()) {
            self.connections.arm(key, deadline);
        }
    }

    /// Removes a connection; dropping it closes everything that it holds.
    fn remove(&mut self, key: Key) {
        let Some(mut client) = self.connections.remove(key) else {
            return;
        };
        client.dispose(&mut self.shared);
        log::debug!("connection closed {client}");
        // There is a free place again, and perhaps a descriptor.
        self.acceptor.paused_until = None;
    }

    /// Handles all deadlines that are due.
    fn pass_deadlines(&mut self, now: Now) {
        while let Some(key) = self.connections.take_due(now.mono) {
            let Some(client) = self.connections.table.get_mut(key) else {
                continue;
            };
            if client.queued {
                // Its input may have arrived in time, and be unread only because the disk or the process was slow.
                self.connections.arm(key, now.mono + RECHECK);
                continue;
            }
            let due = client
                .deadline()
                .is_some_and(|deadline| deadline <= now.mono);
            let outcome = if due {
                client.due(&mut self.shared, now)
            } else {
                DriveOutcome::Blocked
            };
            self.follow_up(key, outcome);
        }
        if self
            .shared
            .open_files
            .until()
            .is_some_and(|until| until <= now.mono)
        {
            self.shared.open_files.close();
        }
        self.watch_certificate(now);
        self.shared.probe_store(now);
        if let Some(link) = &mut self.xmpp.link {
            if link.deadline().is_some_and(|deadline| deadline <= now.mono) {
                link.due(self.poll.registry(), &self.xmpp.waker, now);
                self.xmpp.has_work = true;
            }
        }
    }

    /// Logs when the certificate expires, if that is due.
    fn watch_certificate(&mut self, now: Now) {
        let watch = self.tls.certificate.as_mut();
        match watch
            .filter(|watch| watch.deadline() <= now.mono)
            .and_then(|watch| watch.look(now))
        {
            Some(notice @ Notice::ExpiresSoon(_)) => log::warn!("{notice}"),
            Some(notice @ Notice::Expired(_)) => log::error!("{notice}"),
            None => {}
        }
    }

    /// Passes on the results of the helper threads.
    fn take_results(&mut self, now: Now) {
        while let Some((token, result)) = self.shared.syncer.next_done() {
            match token {
                SyncToken::Sweep => self.sweep.tombstones_synced(result),
                SyncToken::Trim => self.shared.admission.trims.synced(result),
                SyncToken::Job(number) => self.xmpp.executions.jobs.synced(number, result),
                SyncToken::Clock => self.timekeeper.synced(result, &mut self.shared, now),
                SyncToken::Probe => {
                    let Shared {
                        monitor, storage, ..
                    } = &mut self.shared;
                    if let Some(store) = storage.folder_mut() {
                        monitor.probed(result, store, now.mono);
                    }
                }
                SyncToken::Connection(key) => {
                    if let Some(client) = self.connections.table.get_mut(key) {
                        client.synced(result, &mut self.shared, now);
                        self.enqueue(key);
                    }
                }
            }
        }
        if let Some(link) = &mut self.xmpp.link {
            link.take_lookup(self.poll.registry(), &self.xmpp.waker, now);
        }
    }
}
