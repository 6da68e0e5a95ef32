//! The driver of the link to the XMPP server: resolve, connect, keep the stream, and come back for ever.
//!
//! ```text
//!   Resting ── due ──▶ Resolving ──▶ Connecting ── connected ──▶ Streaming
//!      ▲                   │ no address   │ no address left          │ ended
//!      └───────────────────┴──────────────┴──────────────────────────┘   (backoff, 1 s to 60 s)
//! ```
//!
//! A first connect that fails is no different from a later one. HTTP goes on serving in every state.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::jid::BareJid;
use crate::now::Now;
use crate::resolve::{self, Resolver};
use crate::setup::Target;
use crate::sys;
use crate::xmpp::backoff::Backoff;
use crate::xmpp::element::Element;
use crate::xmpp::stream::{self, Ended, Stream};
use crate::xmpp::xml::Skipped;

/// How long one address may take to accept the connection.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// Most bytes read per turn; a stanza that is skipped has no other limit.
const BYTES: usize = 64 * 1024;

/// The link.
#[derive(Debug)]
pub struct Link {
    target: Target,
    state: State,
    backoff: Backoff,
    token: Token,
    /// What was logged last about a link that is down; repeated only when it changes.
    logged: Option<String>,
    closing: bool,
    /// The state of the jitter's generator; it need not be unpredictable.
    jitter: u32,
}

#[derive(Debug)]
enum State {
    Resting {
        until: Instant,
    },
    Resolving,
    Connecting {
        stream: TcpStream,
        server: SocketAddr,
        until: Instant,
        left: Addresses,
    },
    Streaming(Box<Streaming>),
    /// Ended for good, as asked.
    Over,
}

/// Addresses that are still to be tried, and why those before them would not do.
#[derive(Debug, Default)]
struct Addresses {
    left: VecDeque<SocketAddr>,
    failures: Vec<String>,
}

impl From<Vec<SocketAddr>> for Addresses {
    fn from(addresses: Vec<SocketAddr>) -> Addresses {
        Addresses {
            left: addresses.into(),
            failures: Vec::new(),
        }
    }
}

/// What the server sent.
#[derive(Debug)]
pub enum Incoming {
    Stanza(Element),
    /// One that is not read.
    Skipped(Skipped),
}

#[derive(Debug)]
struct Streaming {
    socket: TcpStream,
    server: SocketAddr,
    machine: Stream,
    is_up: bool,
    /// Why it is over, if it is; followed up at the end of the turn.
    ended: Option<Ended>,
    failed: Option<io::Error>,
    readable: bool,
    writable: bool,
}

impl Link {
    /// A link that is tried at once. All its sockets get this token; only one is open at a time, and a late event
    /// of an earlier one does no more than provoke an attempt.
    pub fn new(target: Target, token: Token, jitter: u32, now: Now) -> Link {
        Link {
            target,
            state: State::Resting { until: now.mono },
            backoff: Backoff::new(),
            token,
            logged: None,
            closing: false,
            jitter,
        }
    }

    /// The moment at which [`Link::due`] must be called.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Resting { until } | State::Connecting { until, .. } => Some(*until),
            State::Streaming(streaming) => streaming.machine.deadline(),
            State::Resolving | State::Over => None,
        }
    }

    /// Our own name.
    pub fn jid(&self) -> &BareJid {
        &self.target.jid
    }

    /// Where it leads.
    pub fn target(&self) -> &Target {
        &self.target
    }

    pub fn is_up(&self) -> bool {
        matches!(&self.state, State::Streaming(streaming) if streaming.is_up)
    }

    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Takes a target that changed: the present stream is closed and a new one opened.
    pub fn set_target(&mut self, target: Target, now: Now) {
        if target == self.target {
            return;
        }
        if let State::Streaming(streaming) = &mut self.state {
            streaming.machine.close(now.mono);
            // What fits into the socket's buffer is sent; nobody waits for the rest.
            let _ = streaming.write(now);
        }
        let token = self.token;
        *self = Link::new(target, token, self.jitter, now);
    }

    /// Ends the link in order.
    pub fn close(&mut self, now: Now) {
        self.closing = true;
        match &mut self.state {
            State::Streaming(streaming) => {
                streaming.machine.close(now.mono);
                if streaming.write(now).is_err() {
                    self.state = State::Over;
                }
            }
            _ => self.state = State::Over,
        }
    }

    /// A deadline has come.
    pub fn due(&mut self, registry: &Registry, resolver: &mut Resolver, now: Now) {
        if self.deadline().is_none_or(|deadline| deadline > now.mono) {
            return;
        }
        match &mut self.state {
            State::Resting { .. } => {
                self.state = State::Resolving;
                if let Some(addresses) = resolver.resolve(&self.target.host, self.target.port) {
                    self.connect(addresses.into(), registry, now);
                }
            }
            State::Connecting { left, server, .. } => {
                let mut left = std::mem::take(left);
                left.failures
                    .push(format!("{server}: no answer within 10 s"));
                self.connect(left, registry, now);
            }
            State::Streaming(streaming) => streaming.machine.deadline_passed(now.mono),
            State::Resolving | State::Over => {}
        }
    }

    /// A look-up has its outcome.
    pub fn resolved(&mut self, answer: io::Result<Vec<SocketAddr>>, registry: &Registry, now: Now) {
        if !matches!(self.state, State::Resolving) {
            return;
        }
        match answer {
            Ok(addresses) => self.connect(addresses.into(), registry, now),
            Err(error) => self.rest(&error.to_string(), false, now),
        }
    }

    /// Remembers what an event says.
    pub fn set_ready(&mut self, event: &Event) {
        if let State::Streaming(streaming) = &mut self.state {
            streaming.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
            streaming.writable |= event.is_writable() || event.is_error();
        }
    }

    /// Goes on connecting, or writes what waits and reads what came, of that as much as one turn may.
    pub fn receive(&mut self, registry: &Registry, scratch: &mut [u8], now: Now) {
        if let State::Connecting { .. } = self.state {
            self.finish_connect(registry, now);
        }
        if let State::Streaming(streaming) = &mut self.state {
            let wrote = streaming.write(now);
            // What the server says about the end is read even when nothing can be written any more.
            let read = streaming.read(scratch, now);
            streaming.failed = read.and(wrote).err();
        }
    }

    /// The next stanza of what was read; `None` when there is none, or while the server takes no answers.
    pub fn next_stanza(&mut self, now: Now) -> Option<Incoming> {
        let State::Streaming(streaming) = &mut self.state else {
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
                stream::Event::Ended(why) => streaming.ended = Some(why),
            }
        }
    }

    /// Writes what was answered, and follows up an end. True when there is more to do without an event.
    pub fn settle(&mut self, now: Now) -> bool {
        let State::Streaming(streaming) = &mut self.state else {
            return false;
        };
        let wrote = streaming.write(now);
        let why = match (streaming.ended.take(), streaming.failed.take()) {
            (Some(why), _) => why.to_string(),
            (None, Some(error)) => error.to_string(),
            (None, None) => match wrote {
                Ok(()) => return streaming.has_work(),
                Err(error) => error.to_string(),
            },
        };
        let was_open = streaming.is_up;
        self.rest(&why, was_open, now);
        false
    }

    /// Sends a stanza, if the link is up; a reply for which there is no link any more is of no use to anybody.
    pub fn send(&mut self, stanza: &Element) {
        if let State::Streaming(streaming) = &mut self.state {
            if streaming.is_up {
                streaming.machine.send(stanza);
            }
        }
    }

    /// Brings out what was sent.
    pub fn flush(&mut self, now: Now) {
        if let State::Streaming(streaming) = &mut self.state {
            if let Err(error) = streaming.write(now) {
                let was_open = streaming.is_up;
                self.rest(&error.to_string(), was_open, now);
            }
        }
    }

    /// Tries addresses until one can be connected to, or none is left.
    fn connect(&mut self, mut addresses: Addresses, registry: &Registry, now: Now) {
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
                    self.state = State::Connecting {
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

    /// Looks whether the connection is made: writable does not mean connected.
    fn finish_connect(&mut self, registry: &Registry, now: Now) {
        let State::Connecting { stream, .. } = &self.state else {
            return;
        };
        let failure = match stream.take_error() {
            Ok(None) => match stream.peer_addr() {
                Ok(_) => None,
                // Not yet; an event or the deadline will tell.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return,
                Err(error) => Some(error),
            },
            Ok(Some(error)) | Err(error) => Some(error),
        };
        let State::Connecting {
            stream,
            server,
            mut left,
            ..
        } = std::mem::replace(&mut self.state, State::Resolving)
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
        self.state = State::Streaming(Box::new(Streaming {
            socket: stream,
            server,
            machine: Stream::new(
                self.target.jid.to_string(),
                self.target.secret.clone(),
                now.mono,
            ),
            is_up: false,
            ended: None,
            failed: None,
            readable: true,
            writable: true,
        }));
    }

    fn rest(&mut self, why: &str, was_open: bool, now: Now) {
        if self.closing {
            self.state = State::Over;
            return;
        }
        // Numerical Recipes' generator; only the high bits are used.
        self.jitter = self
            .jitter
            .wrapping_mul(1_664_525)
            .wrapping_add(1_013_904_223);
        let rest = self.backoff.ended(was_open, self.jitter);
        if self.logged.as_deref() == Some(why) {
            log::debug!("link down why={why:?} retry_ms={}", rest.as_millis());
        } else {
            log::warn!("link down why={why:?} retry_ms={}", rest.as_millis());
            self.logged = Some(why.to_owned());
        }
        self.state = State::Resting {
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
                // What came is looked at before more is read.
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
        // What waits now waits since now, unless it did already.
        self.machine.wrote(0, now.mono);
        Ok(())
    }

    /// Whether there is something to do without an event.
    fn has_work(&self) -> bool {
        self.machine.has_events() || (self.readable && self.machine.wants_input())
    }
}
