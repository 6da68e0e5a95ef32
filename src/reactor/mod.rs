//! The loop: one thread, one poll.
//!
//! - [`table`] connections by key; [`deadlines`] when to wake whom;
//! - [`listener`] listening sockets;
//! - [`shared`] what the drivers share;
//! - [`client`] drives one HTTP connection; [`component`] drives the link to the XMPP server;
//! - this file: the turn.
//!
//! A turn goes in this order, always:
//!
//! 1. sleep until the earliest of run queue, deadlines, sweep and one minute;
//! 2. read both clocks;
//! 3. collect events into readiness bits and put their connections on the run queue;
//! 4. work the run queue, as long as it was at the start, each connection within its budget;
//! 5. pass due deadlines, busy or not;
//! 6. accept a few connections;
//! 7. one slice of counting, trimming and sweeping;
//! 8. look at signals.
//!
//! Events only set bits; work happens at the loop's own pace. A handler never frees its own connection: it says that
//! it is over, and the loop removes it.

pub mod client;
pub mod component;
pub mod deadlines;
pub mod listener;
pub mod shared;
pub mod table;

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use mio::{Events, Poll, Token, Waker};
use rustls::ServerConfig;

use crate::config::{self, Config, Listen};
use crate::http::forwarded;
use crate::layout;
use crate::now::Now;
use crate::reactor::client::{Client, Outcome, Welcome};
use crate::reactor::component::Link;
use crate::reactor::deadlines::Deadlines;
use crate::reactor::listener::{Listener, Peer};
use crate::reactor::shared::{Admission, Effort, Shared, Waiter};
use crate::reactor::table::{Key, Table};
use crate::resolve::Resolver;
use crate::service::Service;
use crate::setup::{self, Setup};
use crate::signals::Signals;
use crate::slot::Refusal;
use crate::store::Store;
use crate::store::sweep::{Plan, Sweep};
use crate::store::walk::Slice;
use crate::syncer::Syncer;
use crate::sys;
use crate::transport::{Socket, Transport};
use crate::xmpp::element::Element;
use crate::xmpp::iq::{self, Answer, Identity};
use crate::xmpp::upload::SlotIq;

const LINK: Token = Token(0xfff0);
const WAKER: Token = Token(0xfff1);
const SIGNALS: Token = Token(0xfff2);

/// The longest sleep, so that no mistake can cost more.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Connections accepted per turn.
const ACCEPTS: usize = 16;

/// When to try again after nothing could be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// Connections beyond the limit that are taken only to be told so.
const TURNED_AWAY: usize = 64;

/// Most connections where the configuration names no number.
const MAX_CONNECTIONS: usize = 1024;

/// Descriptors kept for everything but connections: listeners, the link, the store, walks, the log.
const RESERVED_DESCRIPTORS: u64 = 40;

/// A request head that has been under way for so long may be given up to make room.
const HEAD_PATIENCE: Duration = Duration::from_secs(1);

/// Purposes that are announced.
const PURPOSES: [&str; 1] = ["message"];

/// The name of the generated slot secret in the store's internal folder, and its length in bytes.
const SECRET_FILE: &str = "slot_secret";
const SECRET_LENGTH: usize = 32;

/// Everything that runs.
#[derive(Debug)]
pub struct Reactor {
    poll: Poll,
    listeners: Vec<Listener>,
    table: Table<Client>,
    run_queue: VecDeque<Key>,
    deadlines: Deadlines,
    shared: Shared,
    link: Option<Link>,
    link_has_work: bool,
    resolver: Resolver,
    signals: Signals,
    sweep: Sweep,
    tls: Option<Arc<ServerConfig>>,
    slot_secret: Vec<u8>,
    config_path: PathBuf,
    most_connections: usize,
    /// Set when nothing could be accepted: the moment at which to try again.
    accept_pause: Option<Instant>,
    /// Whether the lack of descriptors has been logged.
    out_of_descriptors: bool,
    /// What else is to be done at a reload: the log's level and file are not ours.
    on_reload: fn(log::LevelFilter),
    /// Set when the process is ending: the moment by which it must have ended.
    ending: Option<Instant>,
}

/// Why the program cannot start; one sentence.
pub type StartError = String;

impl Reactor {
    /// Opens everything: the store, the listeners, the signals. The link is tried with the first turn.
    pub fn start(setup: Setup, config_path: PathBuf) -> Result<Reactor, StartError> {
        let Setup {
            config,
            target,
            slot_secret,
            tls,
            ..
        } = setup;
        let poll = Poll::new().map_err(|e| format!("cannot poll: {e}."))?;
        let descriptors = sys::raise_descriptor_limit();
        let listeners = listen(&config, tls.is_some(), poll.registry())?;
        let store = Store::open(&config.storage_path, config.file_mode, config.dir_mode)
            .map_err(|error| error.to_string())?;
        sys::clear_umask();
        log::info!(
            "store open path={} naming={:?}",
            config.storage_path.display(),
            store.naming()
        );
        let slot_secret = match slot_secret {
            Some(secret) => secret,
            None => own_secret(&store)?,
        };
        let waker =
            Waker::new(poll.registry(), WAKER).map_err(|e| format!("cannot make a waker: {e}."))?;
        let waker = Arc::new(waker);
        let signals = Signals::register(poll.registry(), SIGNALS)
            .map_err(|e| format!("cannot take over signals: {e}."))?;
        let now = sys::now();
        let service = Service::new(&config, &slot_secret);
        let syncer = Syncer::new(Arc::clone(&waker));
        let sweep = Sweep::new(&plan(&config, &service), now.mono);
        let most_connections = most_connections(&config, descriptors);
        let mut shared = Shared::new(config, service, store, syncer);
        shared.count_total();
        let link = target.map(|target| Link::new(target, LINK, jitter(&shared), now));
        for listener in &listeners {
            log::info!("listening on={listener}");
        }
        log::info!("ready pid={}", std::process::id());
        Ok(Reactor {
            poll,
            listeners,
            table: Table::default(),
            run_queue: VecDeque::new(),
            deadlines: Deadlines::default(),
            shared,
            link,
            link_has_work: false,
            resolver: Resolver::new(waker),
            signals,
            sweep,
            tls,
            slot_secret,
            config_path,
            most_connections,
            accept_pause: None,
            out_of_descriptors: false,
            on_reload: |_| {},
            ending: None,
        })
    }

    /// Calls this at every reload, with the log level of the new configuration.
    pub fn on_reload(&mut self, hook: fn(log::LevelFilter)) {
        self.on_reload = hook;
    }

    /// Turns until the process is to end.
    pub fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        loop {
            let timeout = self.sleep(sys::now());
            match self.poll.poll(&mut events, Some(timeout)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            let now = sys::now();
            self.shared.service.set_date(now);
            let mut signalled = false;
            let mut woken = false;
            for event in &events {
                match event.token() {
                    LINK => {
                        if let Some(link) = &mut self.link {
                            link.set_ready(event);
                            self.link_has_work = true;
                        }
                    }
                    WAKER => woken = true,
                    SIGNALS => signalled = true,
                    Token(token) => match Key::from_token(token) {
                        Some(key) => {
                            if let Some(client) = self.table.get_mut(key) {
                                client.transport().set_ready(event);
                                self.enqueue(key);
                            }
                        }
                        None => {
                            let index = token.wrapping_sub(Key::FIRST_RESERVED as usize);
                            if let Some(listener) = self.listeners.get_mut(index) {
                                listener.readable = true;
                            }
                        }
                    },
                }
            }
            if woken {
                self.take_results(now);
            }
            self.work_run_queue(now);
            self.drive_link(now);
            self.pass_deadlines(now);
            self.accept(now);
            self.walk_a_slice(now);
            if signalled && self.obey_signals(now) {
                return Ok(());
            }
            if self.has_ended(now) {
                return Ok(());
            }
        }
    }

    /// How long nothing is to be done.
    fn sleep(&self, now: Now) -> Duration {
        let may_accept = self.accept_pause.is_none() && self.listeners.iter().any(|l| l.readable);
        let walking = self.shared.usage.is_counting() || !self.shared.trims.is_empty();
        if !self.run_queue.is_empty() || self.link_has_work || may_accept || walking {
            return Duration::ZERO;
        }
        let earliest = [
            self.deadlines.next(),
            self.link.as_ref().and_then(Link::deadline),
            self.sweep.due(),
            self.accept_pause,
            self.ending,
        ]
        .into_iter()
        .flatten()
        .min();
        earliest.map_or(LONGEST_SLEEP, |at| {
            at.saturating_duration_since(now.mono).min(LONGEST_SLEEP)
        })
    }

    fn enqueue(&mut self, key: Key) {
        if let Some(client) = self.table.get_mut(key) {
            if !std::mem::replace(&mut client.queued, true) {
                self.run_queue.push_back(key);
            }
        }
    }

    fn work_run_queue(&mut self, now: Now) {
        for _ in 0..self.run_queue.len() {
            let Some(key) = self.run_queue.pop_front() else {
                return;
            };
            let Some(client) = self.table.get_mut(key) else {
                continue;
            };
            client.queued = false;
            let outcome = client.drive(&mut self.shared, now);
            self.follow_up(key, outcome);
        }
    }

    /// What becomes of a connection that was driven.
    fn follow_up(&mut self, key: Key, outcome: Outcome) {
        match outcome {
            Outcome::Again => self.enqueue(key),
            Outcome::Blocked => {}
            Outcome::Ended => return self.remove(key),
        }
        let Some(client) = self.table.get_mut(key) else {
            return;
        };
        if let Some(deadline) = client.deadline() {
            if client.armed.is_none_or(|armed| deadline < armed) {
                client.armed = Some(deadline);
                self.deadlines.push(deadline, key);
            }
        }
    }

    /// Removes a connection; dropping it closes everything that it holds.
    fn remove(&mut self, key: Key) {
        let Some(mut client) = self.table.remove(key) else {
            return;
        };
        client.dispose(&mut self.shared);
        log::debug!("connection closed {client}");
        // There is room again, and perhaps a descriptor.
        self.accept_pause = None;
        let Reactor {
            table, deadlines, ..
        } = self;
        if deadlines.is_crowded(table.len()) {
            deadlines.retain(|at, key| {
                table
                    .get_mut(key)
                    .is_some_and(|client| client.armed == Some(at))
            });
        }
    }

    fn pass_deadlines(&mut self, now: Now) {
        while let Some((at, key)) = self.deadlines.pop_due(now.mono) {
            let Some(client) = self.table.get_mut(key) else {
                continue;
            };
            if client.armed != Some(at) {
                continue;
            }
            client.armed = None;
            let due = client
                .deadline()
                .is_some_and(|deadline| deadline <= now.mono);
            let outcome = if due {
                client.due(&mut self.shared, now)
            } else {
                Outcome::Blocked
            };
            self.follow_up(key, outcome);
        }
        if let Some(link) = &mut self.link {
            if link.deadline().is_some_and(|deadline| deadline <= now.mono) {
                link.due(self.poll.registry(), &mut self.resolver, now);
                self.link_has_work = true;
            }
        }
    }

    fn accept(&mut self, now: Now) {
        if self.accept_pause.is_some_and(|until| now.mono < until) {
            return;
        }
        self.accept_pause = None;
        let mut left = ACCEPTS;
        for index in 0..self.listeners.len() {
            while left > 0 && self.listeners[index].readable {
                let full = self.table.len() >= self.most_connections;
                let crowded = self.table.len() >= self.most_connections + TURNED_AWAY;
                let welcome = match full {
                    true if self.make_room(now) => Welcome::Served,
                    // Whoever comes now waits in the kernel's queue.
                    true if crowded => return self.pause_accepting(now),
                    true => Welcome::Turned,
                    false => Welcome::Served,
                };
                match self.listeners[index].accept() {
                    Ok((socket, peer)) => {
                        self.out_of_descriptors = false;
                        left -= 1;
                        self.welcome(index, socket, peer, welcome, now);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.listeners[index].readable = false;
                    }
                    Err(error) if sys::is_out_of_descriptors(&error) => {
                        if !std::mem::replace(&mut self.out_of_descriptors, true) {
                            log::warn!("out of descriptors connections={}", self.table.len());
                        }
                        self.make_room(now);
                        return self.pause_accepting(now);
                    }
                    // This one is gone already; the next may not be.
                    Err(error) => {
                        left -= 1;
                        log::debug!("connection not accepted why={:?}", error.to_string());
                    }
                }
            }
        }
    }

    fn pause_accepting(&mut self, now: Now) {
        self.accept_pause = Some(now.mono + ACCEPT_PAUSE);
    }

    fn welcome(
        &mut self,
        index: usize,
        socket: Socket,
        peer: Peer,
        mut welcome: Welcome,
        now: Now,
    ) {
        let counted = self.count_address(peer, &mut welcome);
        let tls = self.listeners[index]
            .is_tls()
            .then(|| self.tls.clone())
            .flatten();
        let registry = self.poll.registry();
        let shared = &self.shared;
        let inserted = self.table.insert_with(|key| {
            let mut socket = socket;
            socket.register(registry, Token(key.to_token()))?;
            let transport = Transport::new(socket, tls)?;
            Ok::<_, io::Error>(Client::new(
                key, peer, transport, welcome, counted, shared, now,
            ))
        });
        match inserted {
            Some(Ok(key)) => {
                log::debug!("connection accepted conn={key} from={peer}");
                self.enqueue(key);
            }
            Some(Err(error)) => log::warn!(
                "connection not taken from={peer} why={:?}",
                error.to_string()
            ),
            None => log::warn!("connection not taken from={peer} why=\"the table is full\""),
        }
    }

    /// Counts a connection for its address, unless a trusted proxy stands there.
    fn count_address(&mut self, peer: Peer, welcome: &mut Welcome) -> Option<IpAddr> {
        let most = self.shared.config.max_connections_per_address;
        let Peer::Tcp(address) = peer else {
            return None;
        };
        let address = address.ip().to_canonical();
        if most == 0 || forwarded::is_trusted(address, &self.shared.config.trusted_proxies) {
            return None;
        }
        let (count, group) = self.shared.addresses.add(address);
        if count > most {
            *welcome = Welcome::Turned;
        }
        Some(group)
    }

    /// Closes the connection that has been idle for longest, or owes a request head for longest; false when all are
    /// at work.
    fn make_room(&mut self, now: Now) -> bool {
        let patience = self
            .shared
            .service
            .timeouts()
            .header
            .saturating_sub(HEAD_PATIENCE);
        let victim = self
            .table
            .iter_mut()
            .filter_map(|(key, client)| {
                client
                    .expendable()
                    .map(|(begun, until)| (begun, until, key))
            })
            .filter(|(begun, until, _)| !begun || *until <= now.mono + patience)
            .min();
        match victim {
            Some((_, _, key)) => {
                self.remove(key);
                true
            }
            None => false,
        }
    }

    /// Results of the helper threads.
    fn take_results(&mut self, now: Now) {
        while let Some((token, result)) = self.shared.syncer.next_done() {
            let Some(key) = Key::from_token(token) else {
                continue;
            };
            if let Some(client) = self.table.get_mut(key) {
                client.synced(result, &mut self.shared, now);
                self.enqueue(key);
            }
        }
        if let (Some(answer), Some(link)) = (self.resolver.answer(), &mut self.link) {
            link.resolved(answer, self.poll.registry(), now);
            self.link_has_work = true;
        }
    }

    fn drive_link(&mut self, now: Now) {
        if !std::mem::take(&mut self.link_has_work) {
            return;
        }
        let Some(link) = &mut self.link else {
            return;
        };
        let mut stanzas = Vec::new();
        let registry = self.poll.registry();
        let scratch = &mut self.shared.scratch;
        self.link_has_work = link.drive(registry, scratch, now, |stanza| stanzas.push(stanza));
        for stanza in stanzas {
            self.answer_stanza(&stanza, now);
        }
        self.flush_link(now);
    }

    fn flush_link(&mut self, now: Now) {
        if let Some(link) = &mut self.link {
            link.flush(now);
        }
    }

    fn answer_stanza(&mut self, stanza: &Element, now: Now) {
        let service = &self.shared.service;
        let Some(link) = &self.link else {
            return;
        };
        let identity = Identity {
            jid: link.jid(),
            purposes: &PURPOSES,
        };
        let answer = iq::route(stanza, identity, now.unix(), |asker| {
            service.max_file_size(asker)
        });
        match answer {
            Answer::Silence => {}
            Answer::Reply(reply) => self.reply(&reply),
            Answer::Slot(iq) => self.answer_slot_request(iq, Effort::default(), now),
        }
    }

    fn reply(&mut self, reply: &Element) {
        if let Some(link) = &mut self.link {
            link.send(reply);
        }
    }

    fn answer_slot_request(&mut self, iq: Box<SlotIq>, effort: Effort, now: Now) {
        let refusal = match self.judge_slot_request(&iq, effort, now) {
            Ok(Some(reply)) => return self.reply(&reply),
            Ok(None) => {
                let owner = layout::owner_folder(&iq.owner);
                match self
                    .shared
                    .waiting
                    .push(owner.as_bytes(), Waiter::Slot(iq, effort))
                {
                    Ok(()) => return,
                    Err(Waiter::Slot(iq, _)) => return self.refuse_slot(&iq, &Refusal::Busy),
                    Err(Waiter::Put(_)) => return,
                }
            }
            Err(refusal) => refusal,
        };
        self.refuse_slot(&iq, &refusal);
    }

    /// The reply with the slot; `None` while the store is being looked at.
    fn judge_slot_request(
        &mut self,
        iq: &SlotIq,
        effort: Effort,
        now: Now,
    ) -> Result<Option<Element>, Refusal> {
        let request = iq.request.as_ref().map_err(Refusal::clone)?;
        self.shared.service.judge(request)?;
        let owner = layout::owner_folder(&request.owner);
        match self
            .shared
            .admit(owner.as_bytes(), request.size, effort, now)
        {
            Admission::Granted => {}
            Admission::Wait => return Ok(None),
            Admission::Refused(refusal) => return Err(refusal),
        }
        let random = self.shared.random().ok_or(Refusal::Busy)?;
        let slot = self.shared.service.issue(request, &random, now)?;
        log::debug!(
            "slot issued owner={} name={:?} size={} purpose={}",
            request.owner,
            request.name,
            request.size,
            request.purpose.word()
        );
        Ok(Some(iq.granted(&slot)))
    }

    fn refuse_slot(&mut self, iq: &SlotIq, refusal: &Refusal) {
        log::info!(
            "slot refused owner={} why={:?}",
            iq.owner,
            refusal.to_string()
        );
        self.reply(&iq.refused(refusal));
    }

    /// One slice of what walks the store: first what somebody waits for.
    fn walk_a_slice(&mut self, now: Now) {
        let plan = plan(&self.shared.config, &self.shared.service);
        let Shared {
            store,
            usage,
            trims,
            ..
        } = &mut self.shared;
        let busy = usage.is_counting() || !trims.is_empty();
        if !busy && self.sweep.due().is_none_or(|due| due > now.mono) {
            return;
        }
        let mut slice = Slice::begin();
        let counted = usage.go_on(store.root(), &mut slice, now.mono);
        let trimmed = trims.go_on(store, usage, &mut slice);
        let swept = self
            .sweep
            .go_on(&plan, store, usage, trims, &mut slice, now);
        if let Some(report) = swept {
            log::info!(
                "sweep done files={} removed={} bytes={} ms={}",
                report.files,
                report.removed,
                report.bytes,
                report.took.as_millis()
            );
        }
        if let Some(owner) = counted {
            self.wake(&owner, None, now);
        }
        if let Some(trimmed) = trimmed {
            if trimmed.files > 0 {
                log::info!(
                    "owner trimmed owner={} files={} bytes={}",
                    trimmed.order.owner.escape_ascii(),
                    trimmed.files,
                    trimmed.freed
                );
            }
            self.wake(&trimmed.order.owner, Some(trimmed.newest), now);
        }
    }

    /// Everybody who waits for this owner asks again. `looked` tells what a search for room found.
    fn wake(&mut self, owner: &[u8], looked: Option<Option<SystemTime>>, now: Now) {
        for waiter in self.shared.waiting.take(owner) {
            match waiter {
                Waiter::Put(key) => {
                    if let Some(client) = self.table.get_mut(key) {
                        client.wake(looked.is_some());
                        self.enqueue(key);
                    }
                }
                Waiter::Slot(iq, effort) => {
                    let effort = looked.map_or(effort, |newest| effort.repeated(newest));
                    self.answer_slot_request(iq, effort, now);
                }
            }
        }
        self.flush_link(now);
    }

    /// True when the process is to end at once.
    fn obey_signals(&mut self, now: Now) -> bool {
        let asked = self.signals.take();
        let ends = asked.terminate + asked.interrupt;
        if ends > 0 {
            if self.ending.is_some() || ends > 1 {
                log::warn!("ending at once");
                return true;
            }
            let signal = if asked.terminate > 0 {
                "SIGTERM"
            } else {
                "SIGINT"
            };
            log::info!("shutting down signal={signal}");
            self.begin_to_end(now);
        }
        if asked.reload && self.ending.is_none() {
            self.reload(now);
        }
        false
    }

    /// No new connection, no new request; what is under way is finished.
    fn begin_to_end(&mut self, now: Now) {
        self.ending = Some(now.mono + self.shared.config.shutdown_timeout);
        self.listeners.clear();
        if let Some(link) = &mut self.link {
            link.close(now);
            self.link_has_work = true;
        }
        let idle: Vec<Key> = self
            .table
            .iter_mut()
            .filter_map(|(key, client)| client.make_last().then_some(key))
            .collect();
        for key in idle {
            self.remove(key);
        }
    }

    fn has_ended(&self, now: Now) -> bool {
        let Some(until) = self.ending else {
            return false;
        };
        let link_is_over = self.link.as_ref().is_none_or(Link::is_over);
        if self.table.is_empty() && link_is_over {
            return true;
        }
        if until <= now.mono {
            log::warn!("shutdown_timeout is over connections={}", self.table.len());
            return true;
        }
        false
    }

    /// Reads the configuration anew and applies what can be applied to a running process.
    fn reload(&mut self, now: Now) {
        let setup = match setup::read(&self.config_path) {
            Ok(setup) => setup,
            Err(faults) => {
                for fault in faults {
                    log::error!("config not reloaded why={fault:?}");
                }
                return;
            }
        };
        for warning in &setup.warnings {
            log::warn!("config warning={warning:?}");
        }
        for key in config::restart_keys(&self.shared.config, &setup.config) {
            log::warn!("config key={key} needs a restart to take effect");
        }
        (self.on_reload)(setup.config.log_level);
        self.apply(setup, now);
        log::info!("config reloaded");
    }

    fn apply(&mut self, setup: Setup, now: Now) {
        let Setup {
            config,
            target,
            tls,
            ..
        } = setup;
        if self.tls.is_some() && tls.is_some() {
            self.tls = tls;
        }
        match (&mut self.link, target) {
            (Some(link), Some(target)) => link.set_target(target, now),
            (Some(_), None) => self.link = None,
            (None, Some(target)) => {
                self.link = Some(Link::new(target, LINK, jitter(&self.shared), now))
            }
            (None, None) => {}
        }
        self.shared.service = Service::new(&config, &self.slot_secret);
        self.shared.service.set_date(now);
        self.shared
            .store
            .set_modes(config.file_mode, config.dir_mode);
        self.sweep
            .set_plan(&plan(&config, &self.shared.service), now.mono);
        self.most_connections = most_connections(&config, sys::raise_descriptor_limit());
        self.shared.config = config;
        self.shared.count_total();
        for (_, client) in self.table.iter_mut() {
            client.set_timeouts(&self.shared);
        }
    }
}

/// Where the link's jitter begins.
fn jitter(shared: &Shared) -> u32 {
    let [a, b, c, d, ..] = shared.random().unwrap_or_default();
    u32::from_le_bytes([a, b, c, d])
}

/// What the sweep goes by.
fn plan(config: &Config, service: &Service) -> Plan {
    Plan {
        interval: config.expire_interval,
        lifetime: service.lifetime(),
        soft_quota: config.user_quota_soft,
    }
}

/// Connections that can be had: each may need a second descriptor for its file.
fn most_connections(config: &Config, descriptors: u64) -> usize {
    let possible =
        usize::try_from(descriptors.saturating_sub(RESERVED_DESCRIPTORS) / 2).unwrap_or(usize::MAX);
    let wanted = config.max_connections.unwrap_or(MAX_CONNECTIONS);
    let most = Key::FIRST_RESERVED as usize - TURNED_AWAY;
    let granted = wanted.min(possible.max(1)).min(most);
    if granted < wanted {
        log::warn!("max_connections limited to={granted} descriptors={descriptors}");
    }
    granted
}

/// Opens all listeners. One on `::1` may fail where the host has no IPv6, if it is not the only one.
fn listen(
    config: &Config,
    tls: bool,
    registry: &mio::Registry,
) -> Result<Vec<Listener>, StartError> {
    let mut listeners: Vec<Listener> = Vec::new();
    for listen in &config.listen {
        let spare = matches!(listen, Listen::Tcp(address) if address.ip().is_loopback() && address.is_ipv6())
            && config.listen.len() > 1;
        let bound = Listener::bind(listen, tls).and_then(|mut listener| {
            let token = Token(Key::FIRST_RESERVED as usize + listeners.len());
            listener.register(registry, token)?;
            Ok(listener)
        });
        match bound {
            Ok(listener) => listeners.push(listener),
            Err(error) if spare && error.kind() == io::ErrorKind::AddrNotAvailable => {
                log::warn!("not listening on={listen} why={:?}", error.to_string());
            }
            Err(error) => return Err(format!("http_address: cannot listen on {listen}: {error}.")),
        }
    }
    Ok(listeners)
}

/// The slot secret that the store keeps; made at the first start.
fn own_secret(store: &Store) -> Result<Vec<u8>, StartError> {
    let fault = |what: &str, error: io::Error| {
        format!("slot_secret: cannot {what} .upslot/{SECRET_FILE}: {error}.")
    };
    if let Some(secret) = store
        .read_internal(SECRET_FILE)
        .map_err(|e| fault("read", e))?
    {
        if secret.len() >= SECRET_LENGTH {
            return Ok(secret);
        }
    }
    let mut secret = vec![0; SECRET_LENGTH];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut secret)
        .map_err(|_| "slot_secret: the system gives no random bytes.".to_owned())?;
    store
        .write_internal(SECRET_FILE, &secret)
        .map_err(|e| fault("write", e))?;
    Ok(secret)
}
