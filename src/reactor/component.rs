//! The driver of the link to the XMPP server: resolves its name, connects, carries the stream, and reconnects.
//!
//! ```text
//!   Resting ── due ──▶ Resolving ──▶ Connecting ── connected ──▶ Streaming
//!      ▲                   │ no address   │ no address left          │ ended
//!      └───────────────────┴──────────────┴──────────────────────────┘   (backoff, 1 s to 60 s)
//! ```
//!
//! The first connect is not special: if it fails, it is retried like any other. HTTP is served in every state.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token, Waker};

use crate::jid::BareJid;
use crate::now::Now;
use crate::reactor::random;
use crate::resolve::{self, Lookup};
use crate::setup::LinkTarget;
use crate::sys;
use crate::xmpp::backoff::Backoff;
use crate::xmpp::element::Element;
use crate::xmpp::stream::{self, Stream};
use crate::xmpp::xml::Skipped;

/// The time limit for connecting to one address.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// Maximum number of bytes read per turn. A stanza that is skipped has no other limit.
const BYTES: usize = 64 * 1024;

/// The link to the XMPP server.
#[derive(Debug)]
pub struct Link {
    target: LinkTarget,
    state: LinkState,
    /// At most one at a time. It is for an earlier name if the target has changed meanwhile, because a lookup cannot be
    /// cancelled.
    lookup: Option<Lookup>,
    backoff: Backoff,
    token: Token,
    /// The reason that was logged last for the link being down. The same reason is not logged again as a warning.
    logged: Option<String>,
    closing: bool,
    /// The last addresses of the server's name, which are used while name resolution fails.
    last_good: Vec<SocketAddr>,
}

#[derive(Debug)]
enum LinkState {
    Resting {
        until: Instant,
    },
    Resolving,
    Connecting {
        stream: TcpStream,
        server: SocketAddr,
        until: Instant,
        left: AddressQueue,
    },
    Streaming(Box<Streaming>),
    /// Closed by [`Link::close`].
    Closed,
}

/// The addresses not tried yet, and why the earlier ones failed.
#[derive(Debug, Default)]
struct AddressQueue {
    left: VecDeque<SocketAddr>,
    failures: Vec<String>,
}

/// A stanza from the server.
#[derive(Debug)]
pub enum Incoming {
    Stanza(Element),
    /// One that was not parsed.
    Skipped(Skipped),
}

#[derive(Debug)]
struct Streaming {
    socket: TcpStream,
    server: SocketAddr,
    machine: Stream,
    is_up: bool,
    /// Why the stream ended, if it did; handled by [`Link::settle`].
    ended: Option<String>,
    readable: bool,
    writable: bool,
}

impl Link {
    /// A link that connects immediately. All its sockets use this token. Only one is open at a time, and a late event of
    /// an earlier one causes no more than a futile read.
    pub fn new(target: LinkTarget, token: Token, now: Now) -> Link {
        Link {
            target,
            state: LinkState::Resting { until: now.mono },
            lookup: None,
            backoff: Backoff::new(),
            token,
            logged: None,
            closing: false,
            last_good: Vec::new(),
        }
    }

    /// When [`Link::due`] must be called.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            LinkState::Resting { until } | LinkState::Connecting { until, .. } => Some(*until),
            LinkState::Streaming(streaming) => streaming.machine.deadline(),
            LinkState::Resolving | LinkState::Closed => None,
        }
    }

    /// The JID of the component.
    pub fn jid(&self) -> &BareJid {
        &self.target.jid
    }

    /// The server and the component that the link is for.
    pub fn target(&self) -> &LinkTarget {
        &self.target
    }

    pub fn is_up(&self) -> bool {
        matches!(&self.state, LinkState::Streaming(streaming) if streaming.is_up)
    }

    /// Whether so much output is pending that there should not be more.
    pub fn is_congested(&self) -> bool {
        matches!(&self.state, LinkState::Streaming(streaming) if streaming.machine.is_congested())
    }

    pub fn is_closed(&self) -> bool {
        matches!(self.state, LinkState::Closed)
    }

    /// Changes the target: closes the present stream, and opens a new one.
    pub fn set_target(&mut self, target: LinkTarget, now: Now) {
        if target == self.target {
            return;
        }
        if let LinkState::Streaming(streaming) = &mut self.state {
            streaming.machine.close(now.mono);
            // Only what fits into the socket's buffer is sent.
            let _ = streaming.write(now);
        }
        let mut link = Link::new(target, self.token, now);
        link.lookup = self.lookup.take();
        if link.target.host == self.target.host && link.target.port == self.target.port {
            link.last_good = std::mem::take(&mut self.last_good);
        }
        *self = link;
    }

    /// Closes the stream and ends the link.
    pub fn close(&mut self, now: Now) {
        self.closing = true;
        match &mut self.state {
            LinkState::Streaming(streaming) => {
                streaming.machine.close(now.mono);
                if streaming.write(now).is_err() {
                    self.state = LinkState::Closed;
                }
            }
            _ => self.state = LinkState::Closed,
        }
    }

    /// Handles a deadline.
    pub fn due(&mut self, registry: &Registry, waker: &Arc<Waker>, now: Now) {
        if self.deadline().is_none_or(|deadline| deadline > now.mono) {
            return;
        }
        match &mut self.state {
            LinkState::Resting { .. } => {
                match resolve::known_addresses(&self.target.host, self.target.port) {
                    Some(addresses) => self.begin_connecting(addresses, registry, now),
                    None => self.look_up(waker, now),
                }
            }
            LinkState::Connecting { left, server, .. } => {
                let mut left = std::mem::take(left);
                left.failures
                    .push(format!("{server}: no answer within 10 s"));
                self.connect(left, registry, now);
            }
            LinkState::Streaming(streaming) => streaming.machine.deadline_passed(now.mono),
            LinkState::Resolving | LinkState::Closed => {}
        }
    }

    /// Starts to look up the name of the server, or waits for the end of an earlier lookup.
    fn look_up(&mut self, waker: &Arc<Waker>, now: Now) {
        self.state = LinkState::Resolving;
        if self.lookup.is_none() {
            match Lookup::start(&self.target.host, self.target.port, Arc::clone(waker)) {
                Ok(lookup) => self.lookup = Some(lookup),
                Err(error) => self.rest(&error.to_string(), false, now),
            }
        }
    }

    /// Connects, if the name of the server was looked up.
    pub fn take_lookup(&mut self, registry: &Registry, waker: &Arc<Waker>, now: Now) {
        let Some(answer) = self.lookup.as_ref().and_then(Lookup::answer) else {
            return;
        };
        let lookup = self.lookup.take();
        if !matches!(self.state, LinkState::Resolving) {
            return;
        }
        if !lookup.is_some_and(|lookup| lookup.is_for(&self.target.host, self.target.port)) {
            return self.look_up(waker, now);
        }
        match answer {
            Ok(addresses) => self.last_good = addresses,
            Err(error) if self.last_good.is_empty() => {
                return self.rest(&error.to_string(), false, now);
            }
            Err(_) => {}
        }
        self.begin_connecting(self.last_good.clone(), registry, now);
    }

    /// Sets the readiness bits of an event.
    pub fn set_ready(&mut self, event: &Event) {
        if let LinkState::Streaming(streaming) = &mut self.state {
            streaming.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
            streaming.writable |= event.is_writable() || event.is_error();
        }
    }

    /// Continues to connect; or writes pending output, and reads input up to the limit of a turn.
    pub fn receive(&mut self, registry: &Registry, scratch: &mut [u8], now: Now) {
        if let LinkState::Connecting { .. } = self.state {
            self.finish_connect(registry, now);
        }
        if let LinkState::Streaming(streaming) = &mut self.state {
            let wrote = streaming.write(now);
            // A stream error from the server is read even if writing fails.
            let read = streaming.read(scratch, now);
            streaming.ended = read.and(wrote).err().map(|error| error.to_string());
        }
    }

    /// The next stanza of the input; `None` if there is none, or while the output is blocked.
    pub fn next_stanza(&mut self, now: Now) -> Option<Incoming> {
        let LinkState::Streaming(streaming) = &mut self.state else {
            return None;
        };
        loop {
            match streaming.machine.next_event(now.mono)? {
                stream::Event::Up => {
                    streaming.is_up = true;
                    self.logged = None;
                    log::info!(
                        "link up jid={} server={}",
                        self.target.jid,
                        streaming.server
                    );
                }
                stream::Event::Stanza(stanza) => return Some(Incoming::Stanza(stanza)),
                stream::Event::Skipped(skipped) => return Some(Incoming::Skipped(skipped)),
                stream::Event::Ended(why) => streaming.ended = Some(why.to_string()),
            }
        }
    }

    /// Writes the answers, and handles the end of the stream. True if there is more to do without an event.
    pub fn settle(&mut self, now: Now) -> bool {
        let LinkState::Streaming(streaming) = &mut self.state else {
            return false;
        };
        let wrote = streaming.write(now);
        let why = match (streaming.ended.take(), wrote) {
            (Some(why), _) => why,
            (None, Err(error)) => error.to_string(),
            (None, Ok(())) => return streaming.has_work(),
        };
        let was_open = streaming.is_up;
        self.rest(&why, was_open, now);
        false
    }

    /// Queues a stanza, if the link is up. Replies for a stream that has ended are dropped.
    pub fn send(&mut self, stanza: &Element) {
        if let LinkState::Streaming(streaming) = &mut self.state {
            if streaming.is_up {
                streaming.machine.send(stanza);
            }
        }
    }

    fn begin_connecting(&mut self, addresses: Vec<SocketAddr>, registry: &Registry, now: Now) {
        let addresses = AddressQueue {
            left: addresses.into(),
            failures: Vec::new(),
        };
        self.connect(addresses, registry, now);
    }

    /// Tries addresses until a connection is begun, or none is left.
    fn connect(&mut self, mut addresses: AddressQueue, registry: &Registry, now: Now) {
        while let Some(server) = addresses.left.pop_front() {
            let connecting = TcpStream::connect(server).and_then(|mut stream| {
                registry.register(
                    &mut stream,
                    self.token,
                    Interest::READABLE | Interest::WRITABLE,
                )?;
                Ok(stream)
            });
            match connecting {
                Ok(stream) => {
                    self.state = LinkState::Connecting {
                        stream,
                        server,
                        until: now.mono + CONNECT_TIME,
                        left: addresses,
                    };
                    return;
                }
                Err(failure) => {
                    let failure = resolve::connect_failure(server, &failure);
                    addresses.failures.push(failure);
                }
            }
        }
        let why = format!("cannot connect to {}", addresses.failures.join("; "));
        self.rest(&why, false, now);
    }

    /// Checks whether the connection is established: a writable socket need not be connected.
    fn finish_connect(&mut self, registry: &Registry, now: Now) {
        let LinkState::Connecting { stream, .. } = &self.state else {
            return;
        };
        let failure = match stream.take_error() {
            Ok(None) => match stream.peer_addr() {
                Ok(_) => None,
                // Not yet: an event or the deadline follows.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return,
                Err(error) => Some(error),
            },
            Ok(Some(error)) | Err(error) => Some(error),
        };
        let LinkState::Connecting {
            stream,
            server,
            mut left,
            ..
        } = std::mem::replace(&mut self.state, LinkState::Closed)
        else {
            return;
        };
        if let Some(failure) = failure {
            drop(stream);
            left.failures
                .push(resolve::connect_failure(server, &failure));
            self.connect(left, registry, now);
            return;
        }
        // Without it two small writes cost 40 ms.
        let _ = stream.set_nodelay(true);
        log::debug!("link connected server={server}");
        self.state = LinkState::Streaming(Box::new(Streaming {
            socket: stream,
            server,
            machine: Stream::new(
                self.target.jid.to_string(),
                self.target.secret.clone(),
                now.mono,
            ),
            is_up: false,
            ended: None,
            readable: true,
            writable: true,
        }));
    }

    /// Logs why the link is down, and waits before the next attempt.
    fn rest(&mut self, why: &str, was_open: bool, now: Now) {
        if self.closing {
            self.state = LinkState::Closed;
            return;
        }
        let jitter = random::bytes().map_or(0, u32::from_le_bytes);
        let rest = self.backoff.ended(was_open, jitter);
        if self.logged.as_deref() == Some(why) {
            log::debug!("link down why={why:?} retry_ms={}", rest.as_millis());
        } else {
            log::warn!("link down why={why:?} retry_ms={}", rest.as_millis());
            self.logged = Some(why.to_owned());
        }
        self.state = LinkState::Resting {
            until: now.mono + rest,
        };
    }
}

impl Streaming {
    fn read(&mut self, scratch: &mut [u8], now: Now) -> io::Result<()> {
        let most = BYTES.min(scratch.len());
        while self.readable && self.machine.wants_input() {
            match sys::receive(&self.socket, &mut scratch[..most]) {
                Ok(0) => {
                    self.machine.peer_closed();
                    break;
                }
                // The machine handles this input before it wants more.
                Ok(n) => self.machine.received(&scratch[..n], now.mono),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn write(&mut self, now: Now) -> io::Result<()> {
        while self.writable && !self.machine.output().is_empty() {
            match sys::send(&self.socket, self.machine.output(), false) {
                Ok(n) => self.machine.wrote(n, now.mono),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) => return Err(error),
            }
        }
        // Starts the write timeout, if output is pending.
        self.machine.wrote(0, now.mono);
        Ok(())
    }

    /// Whether there is work that no event will announce.
    fn has_work(&self) -> bool {
        self.machine.has_events() || (self.readable && self.machine.wants_input())
    }
}
