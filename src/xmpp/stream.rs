//! One XML stream of a component to its XMPP server (XEP-0114, RFC 6120 §4), as a machine.
//!
//! ```text
//!   new ─► Opening ── stream header ─► Proving ── <handshake/> ─► Open ◄─┐
//!             │ 10 s                     │ 10 s                  │  │ any │ bytes
//!             │                          │                       │  60 s  │
//!             │                          │              close()  │  ▼     │
//!             │                          │          ┌────────────┤ ping ──┘
//!             ▼                          ▼          ▼            ▼ 30 s
//!          Ended ◄────────────────────────────── Closing       Ended
//!                        3 s, or the peer's end
//! ```
//!
//! A `<stream:error/>` and the peer's end lead from every state to `Ended`, and so does a fault in what the server
//! sent, after a stream error of our own was queued; so does a server that takes nothing of our output for 60 s. After [`Event::Ended`] the machine only has output left, which
//! the driver may try to write before it closes the connection.
//!
//! The machine sees no socket and no clock, does not know what a stanza means, and does not try again by itself.

use std::collections::VecDeque;
use std::fmt;
use std::time::Instant;

use super::element::{COMPONENT, Element};
use super::ended::{
    CLOSING_TIMEOUT, OPENING_TIMEOUT, PING_TIMEOUT, SILENCE, STALL_TIMEOUT, STREAM_ERRORS,
    stream_error,
};
use super::xml::{Fault, Reader, Skipped, XmlEvent};

pub use super::ended::{Ended, Phase};

/// Namespace of the stream's own elements (RFC 6120 §4.8.1).
const STREAMS: &str = "http://etherx.jabber.org/streams";
/// Namespace of a ping (XEP-0199).
const PING: &str = "urn:xmpp:ping";

/// While more output than this waits, nothing is read and no stanza is taken: output grows past it by one answer at
/// most, and by those that had to wait for the store.
const MAX_OUTPUT: usize = 256 * 1024;
/// A larger buffer is given back when it is empty; this one holds the answers to a burst of requests.
const KEPT_OUTPUT: usize = 16 * 1024;
/// The same for the input; the driver reads no more at a time.
const KEPT_INPUT: usize = 64 * 1024;

/// What happened on the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The server took the handshake; stanzas can be sent.
    Up,
    /// A stanza from the server.
    Stanza(Element),
    /// A stanza from the server that is not read.
    Skipped(Skipped),
    /// The stream is over. Nothing comes after this.
    Ended(Ended),
}

/// One stream. The driver writes [`output`](Stream::output), reports what came in and when, and takes events one by one:
/// what was received is looked at no further than the next event needs, so the driver decides how many it takes at a
/// time. It reads more when [`wants_input`](Stream::wants_input) says so.
pub struct Stream {
    /// Our own name.
    jid: String,
    state: State,
    reader: Reader,
    input: Vec<u8>,
    /// How much of `input` was read already.
    taken: usize,
    /// The server closed its side; nothing comes after `input`.
    peer_closed: bool,
    output: Vec<u8>,
    /// How much of `output` was written already.
    written: usize,
    /// While output waits: when some of it was last taken, or it began to wait.
    stalled: Option<Instant>,
    events: VecDeque<Event>,
    /// How many pings were sent; numbers their ids.
    pings: u64,
}

enum State {
    Opening {
        secret: String,
        deadline: Instant,
    },
    Proving {
        deadline: Instant,
        /// False when the server's header named no stream id: then only a stream error can follow.
        proved: bool,
    },
    Open {
        /// The next ping, or the end when one was sent.
        deadline: Instant,
        pinged: bool,
    },
    Closing {
        deadline: Instant,
    },
    Ended,
}

impl Stream {
    /// A stream on a connection that was just made. The stream header is queued.
    pub fn new(jid: String, secret: String, now: Instant) -> Stream {
        let mut stream = Stream {
            state: State::Opening {
                secret,
                deadline: now + OPENING_TIMEOUT,
            },
            jid,
            reader: Reader::new(),
            input: Vec::new(),
            taken: 0,
            peer_closed: false,
            output: Vec::new(),
            written: 0,
            stalled: None,
            events: VecDeque::new(),
            pings: 0,
        };
        stream.queue_header();
        stream
    }

    /// These bytes came in.
    pub fn received(&mut self, bytes: &[u8], now: Instant) {
        if bytes.is_empty() || matches!(self.state, State::Ended) {
            return;
        }
        self.is_alive(now);
        self.input.drain(..self.taken);
        self.taken = 0;
        self.input.extend_from_slice(bytes);
    }

    /// The server closed the connection or its side of it.
    pub fn peer_closed(&mut self) {
        self.peer_closed = true;
    }

    /// The next thing that happened; `None` when more input is needed, or while too much output waits.
    pub fn next_event(&mut self, now: Instant) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if matches!(self.state, State::Ended) || self.is_congested() {
                return None;
            }
            let mut rest = &self.input[self.taken..];
            let event = self.reader.next_event(&mut rest);
            self.taken = self.input.len() - rest.len();
            match event {
                Ok(Some(XmlEvent::Opened(header))) => self.take_header(&header, now),
                Ok(Some(XmlEvent::Stanza(stanza))) => self.take_stanza(stanza, now),
                Ok(Some(XmlEvent::Skipped(skipped))) => self.take_skipped(skipped),
                Ok(Some(XmlEvent::Closed)) => self.take_end(),
                Ok(None) if self.peer_closed => self.take_end(),
                Ok(None) => {
                    self.drop_input();
                    return None;
                }
                Err(fault) => self.take_fault(fault),
            }
        }
    }

    /// Whether [`next_event`](Stream::next_event) may have something without more input.
    pub fn has_events(&self) -> bool {
        let input = self.taken < self.input.len() || self.peer_closed;
        let taken = input && !matches!(self.state, State::Ended) && !self.is_congested();
        taken || !self.events.is_empty()
    }

    /// Bytes to write, the oldest first.
    pub fn output(&self) -> &[u8] {
        &self.output[self.written..]
    }

    /// So many bytes of [`output`](Stream::output) were written; none when they could not be.
    pub fn wrote(&mut self, n: usize, now: Instant) {
        if n > 0 && self.is_congested() {
            // Nothing is read meanwhile, so that this is the only sign of life.
            self.is_alive(now);
        }
        self.written = (self.written + n).min(self.output.len());
        if self.written == self.output.len() {
            self.stalled = None;
            self.output.clear();
            self.written = 0;
            if self.output.capacity() > KEPT_OUTPUT {
                self.output = Vec::new();
            }
            return;
        }
        if n > 0 {
            self.stalled = Some(now);
        } else {
            self.stalled.get_or_insert(now);
        }
        if self.written > MAX_OUTPUT / 4 {
            self.output.drain(..self.written);
            self.written = 0;
        }
    }

    /// Whether the driver should read: not after the end, not before what came last was looked at, and not while too
    /// much output waits.
    pub fn wants_input(&self) -> bool {
        let ended = matches!(self.state, State::Ended) || self.peer_closed;
        !ended && self.taken == self.input.len() && !self.is_congested()
    }

    /// Whether so much output waits that nothing is taken in.
    fn is_congested(&self) -> bool {
        self.output().len() > MAX_OUTPUT
    }

    /// The server gave a sign of life.
    fn is_alive(&mut self, now: Instant) {
        if let State::Open { deadline, pinged } = &mut self.state {
            *deadline = now + SILENCE;
            *pinged = false;
        }
    }

    fn drop_input(&mut self) {
        self.input.clear();
        self.taken = 0;
        if self.input.capacity() > KEPT_INPUT {
            self.input = Vec::new();
        }
    }

    /// Queues a stanza. Dropped unless the stream is open: an answer to an earlier stream is nobody's answer.
    pub fn send(&mut self, stanza: &Element) {
        if matches!(self.state, State::Open { .. }) {
            self.queue(stanza);
        }
    }

    /// Ends the stream in good order: queues its closing tag and waits a moment for the server's.
    pub fn close(&mut self, now: Instant) {
        if matches!(self.state, State::Closing { .. } | State::Ended) {
            return;
        }
        self.queue_end();
        self.state = State::Closing {
            deadline: now + CLOSING_TIMEOUT,
        };
    }

    /// When [`deadline_passed`](Stream::deadline_passed) must be called at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        let deadline = match self.state {
            State::Opening { deadline, .. }
            | State::Proving { deadline, .. }
            | State::Open { deadline, .. }
            | State::Closing { deadline } => deadline,
            State::Ended => return None,
        };
        let stalled = self.stalled.map(|since| since + STALL_TIMEOUT);
        Some(stalled.map_or(deadline, |stalled| stalled.min(deadline)))
    }

    /// Time went by. Nothing happens before the deadline.
    pub fn deadline_passed(&mut self, now: Instant) {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        if self
            .stalled
            .is_some_and(|since| now >= since + STALL_TIMEOUT)
        {
            return self.end(Ended::Stalled, None);
        }
        let late = Some("connection-timeout");
        match &mut self.state {
            State::Open {
                pinged: pinged @ false,
                deadline,
            } => {
                *pinged = true;
                *deadline = now + PING_TIMEOUT;
                self.ping();
            }
            State::Open { pinged: true, .. } => self.end(Ended::Silent, late),
            State::Opening { .. } => self.end(
                Ended::Timeout {
                    phase: Phase::Opening,
                },
                late,
            ),
            State::Proving { proved: false, .. } => self.end_without_id(),
            State::Proving { .. } => self.end(
                Ended::Timeout {
                    phase: Phase::Proving,
                },
                late,
            ),
            State::Closing { .. } => self.end(Ended::Closed, None),
            State::Ended => {}
        }
    }

    /// The server's stream header (XEP-0114 §3, example 2): answered with the proof.
    fn take_header(&mut self, header: &Element, now: Instant) {
        if !header.is("stream", STREAMS) {
            return self.end(
                Ended::Malformed {
                    phase: Phase::Opening,
                    why: "the server does not begin with a stream header",
                },
                Some("invalid-namespace"),
            );
        }
        // In Closing the header comes too late to matter.
        if let State::Opening { secret, .. } = &self.state {
            let proof = header.attribute("id").map(|id| handshake(id, secret));
            self.state = State::Proving {
                deadline: now + OPENING_TIMEOUT,
                proved: proof.is_some(),
            };
            if let Some(proof) = proof {
                self.queue(&Element::new("handshake", COMPONENT).with_text(proof));
            }
        }
    }

    /// A child of the stream, whatever it is.
    fn take_stanza(&mut self, stanza: Element, now: Instant) {
        if stanza.is("error", STREAMS) {
            return self.end(stream_error(&stanza), None);
        }
        match self.state {
            // A server that offers stream features (RFC 6120 §4.3.2) offers them to others.
            State::Proving { .. } if stanza.is("features", STREAMS) => {}
            State::Proving { proved: false, .. } => self.end_without_id(),
            State::Proving { .. } if stanza.is("handshake", COMPONENT) => {
                self.state = State::Open {
                    deadline: now + SILENCE,
                    pinged: false,
                };
                self.events.push_back(Event::Up);
            }
            State::Proving { .. } => self.end(
                Ended::Malformed {
                    phase: Phase::Proving,
                    why: "the server does not answer the handshake but sends something else",
                },
                Some("not-authorized"),
            ),
            State::Open { .. } if self.is_about_our_ping(&stanza) => {}
            State::Open { .. } => self.events.push_back(Event::Stanza(stanza)),
            // Nothing can be answered any more. The reader gives no stanza before a header.
            State::Opening { .. } | State::Closing { .. } | State::Ended => {}
        }
    }

    /// A child of the stream that is not read.
    fn take_skipped(&mut self, skipped: Skipped) {
        match self.state {
            State::Open { .. } => self.events.push_back(Event::Skipped(skipped)),
            State::Proving { .. } => self.end(
                Ended::Malformed {
                    phase: Phase::Proving,
                    why: "the server does not answer the handshake but sends something else",
                },
                Some("not-authorized"),
            ),
            State::Opening { .. } | State::Closing { .. } | State::Ended => {}
        }
    }

    /// The server ended the stream or the connection.
    fn take_end(&mut self) {
        let ended = match self.state {
            State::Ended => return,
            State::Closing { .. } => Ended::Closed,
            _ => Ended::PeerClosed {
                phase: self.phase(),
            },
        };
        self.end(ended, None);
    }

    fn take_fault(&mut self, fault: Fault) {
        match fault {
            Fault::Malformed(why) => {
                let phase = self.phase();
                self.end(Ended::Malformed { phase, why }, Some("not-well-formed"));
            }
            Fault::Restricted(what) => {
                self.end(Ended::RestrictedXml { what }, Some("restricted-xml"))
            }
        }
    }

    /// Asks whether the server is there (XEP-0199). The ping is addressed to ourselves, and the server has to send it
    /// back like any stanza for us. A component does not know the domain of its server: the stream header does not
    /// name it, and the domain above our own name may be served elsewhere, or nowhere.
    ///
    /// A server that spreads one name's stanzas over several connections (ejabberd does) may give the ping, like any
    /// answer to any ping, to another of them. Such a link lives as long as something else comes in.
    fn ping(&mut self) {
        self.pings += 1;
        let ping = Element::new("iq", COMPONENT)
            .with("type", "get")
            .with("id", ping_id(self.pings))
            .with("from", self.jid.as_str())
            .with("to", self.jid.as_str())
            .with_child(Element::new("ping", PING));
        self.queue(&ping);
    }

    /// Whether this is our ping, come back, or an answer to it, late ones too. Nobody else can send in our name.
    fn is_about_our_ping(&self, stanza: &Element) -> bool {
        let ours = |id: &str| {
            let number = id.strip_prefix(PING_ID).and_then(|n| n.parse().ok());
            number.is_some_and(|n: u64| (1..=self.pings).contains(&n))
        };
        stanza.is("iq", COMPONENT)
            && stanza.attribute("id").is_some_and(ours)
            && match stanza.attribute("type") {
                Some("result" | "error") => true,
                _ => stanza.attribute("from") == Some(&self.jid),
            }
    }

    /// Without a stream id there is nothing to prove with, and the server did not say why it gave none.
    fn end_without_id(&mut self) {
        let (phase, why) = (Phase::Proving, "the server's stream header has no id");
        self.end(Ended::Malformed { phase, why }, Some("invalid-id"));
    }

    fn phase(&self) -> Phase {
        match self.state {
            State::Opening { .. } => Phase::Opening,
            State::Proving { .. } => Phase::Proving,
            State::Open { .. } | State::Closing { .. } | State::Ended => Phase::Open,
        }
    }

    /// Queues the stream's end, after a stream error of ours if there is one. In Closing our end is out already, and
    /// nothing may follow it.
    fn end(&mut self, ended: Ended, error: Option<&str>) {
        if !matches!(self.state, State::Closing { .. }) {
            if let Some(condition) = error {
                // `stream` is the prefix that our header declared. Elements carry none, so this one is written by
                // hand.
                let error =
                    format!("<stream:error><{condition} xmlns='{STREAM_ERRORS}'/></stream:error>");
                self.output.extend_from_slice(error.as_bytes());
            }
            self.queue_end();
        }
        self.state = State::Ended;
        self.input = Vec::new();
        self.taken = 0;
        self.events.push_back(Event::Ended(ended));
    }

    /// The opening tag, which is never closed by the element writer.
    fn queue_header(&mut self) {
        let mut header = Vec::new();
        Element::new("stream:stream", COMPONENT)
            .with("xmlns:stream", STREAMS)
            .with("to", self.jid.as_str())
            .write("", &mut header);
        header.truncate(header.len() - "/>".len());
        self.output.extend_from_slice(b"<?xml version='1.0'?>");
        self.output.extend_from_slice(&header);
        self.output.push(b'>');
    }

    fn queue_end(&mut self) {
        self.output.extend_from_slice(b"</stream:stream>");
    }

    fn queue(&mut self, element: &Element) {
        element.write(COMPONENT, &mut self.output);
    }
}

/// Shows neither the secret nor the proof that waits in the output.
impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Opening { .. } => "Opening",
            State::Proving { .. } => "Proving",
            State::Open { .. } => "Open",
            State::Closing { .. } => "Closing",
            State::Ended => "Ended",
        };
        f.debug_struct("Stream")
            .field("jid", &self.jid)
            .field("state", &state)
            .field("output", &self.output().len())
            .field("events", &self.events.len())
            .finish_non_exhaustive()
    }
}

/// The proof of XEP-0114 §3: lower-case hexadecimal SHA-1 of the stream id and the secret.
fn handshake(id: &str, secret: &str) -> String {
    let mut digest = sha1_smol::Sha1::new();
    digest.update(id.as_bytes());
    digest.update(secret.as_bytes());
    digest.digest().to_string()
}

/// How the ids of our pings begin.
const PING_ID: &str = "upslot-ping-";

fn ping_id(number: u64) -> String {
    format!("{PING_ID}{number}")
}

#[cfg(test)]
mod tests;
