//! The state machine of a component's XML stream to its XMPP server (XEP-0114, RFC 6120 §4).
//!
//! ```text
//!   new ─► Opening ── stream header ─► Proving ── <handshake/> ─► Open ◄─┐
//!             │ 10 s                     │ 10 s                  │  │ any │ bytes
//!             │                          │                       │  60 s  │
//!             │                          │              close()  │  ▼     │
//!             │                          │          ┌────────────┤ ping ──┘
//!             ▼                          ▼          ▼            ▼ 30 s
//!          Ended ◄────────────────────────────── Closing       Ended
//!                    3 s, or the server's closing tag
//! ```
//!
//! From every state, the stream ends when the server sends a `<stream:error/>`, closes the stream or the connection,
//! sends malformed XML (upslot then queues a stream error), or accepts no output for 60 s. After [`Event::Ended`] only
//! output may be left, which the driver may try to write before it closes the connection.
//!
//! The machine uses no socket and no clock, does not interpret stanzas, and does not reconnect.

use std::collections::VecDeque;
use std::fmt;
use std::time::Instant;

use super::element::{COMPONENT, Element};
use super::ended::{
    CLOSING_TIMEOUT, OPENING_TIMEOUT, PING_TIMEOUT, SILENCE, STALL_TIMEOUT, STREAM_ERRORS,
    stream_error,
};
use super::xml::{Reader, Skipped, XmlError, XmlEvent};

pub use super::ended::{Ended, Phase};

/// Namespace of the stream's own elements (RFC 6120 §4.8.1).
const STREAMS: &str = "http://etherx.jabber.org/streams";
/// Namespace of a ping (XEP-0199).
const PING: &str = "urn:xmpp:ping";

/// While more output than this is pending, no input is read and no stanza is processed. Output exceeds it by at most one
/// reply, and by replies that were waiting for the store.
const MAX_OUTPUT: usize = 256 * 1024;
/// A larger buffer is freed when it is empty; this one holds the replies to a burst of requests.
const KEPT_OUTPUT: usize = 16 * 1024;
/// The same for the input; the driver reads at most this much at a time.
const KEPT_INPUT: usize = 64 * 1024;

/// An event on the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The server accepted the handshake; stanzas can be sent.
    Up,
    /// A stanza from the server.
    Stanza(Element),
    /// A stanza from the server that was skipped.
    Skipped(Skipped),
    /// The stream ended. This is the last event.
    Ended(Ended),
}

/// A stream. The driver writes [`output`](Stream::output), passes received bytes in, and takes events one by one. Input is
/// parsed only as far as the next event needs, so the driver decides how many events it handles at a time. It reads more
/// when [`wants_input`](Stream::wants_input) is true.
pub struct Stream {
    /// The component's address.
    jid: String,
    state: State,
    reader: Reader,
    input: Vec<u8>,
    /// How much of `input` has been parsed.
    taken: usize,
    /// The server closed its side; nothing follows `input`.
    peer_closed: bool,
    output: Vec<u8>,
    /// How much of `output` has been written.
    written: usize,
    /// While output is pending: when some of it was last accepted, or when it was queued.
    stalled: Option<Instant>,
    events: VecDeque<Event>,
    /// Number of pings sent, from which their ids are made.
    pings: u64,
}

enum State {
    Opening {
        secret: String,
        deadline: Instant,
    },
    Proving {
        deadline: Instant,
        /// Whether the handshake was sent. False if the server's header has no stream id; then only a stream error can
        /// follow.
        proved: bool,
    },
    Open {
        /// When to send the next ping, or to end the stream if one was sent.
        deadline: Instant,
        pinged: bool,
    },
    Closing {
        deadline: Instant,
    },
    Ended,
}

impl Stream {
    /// Starts a stream on a new connection and queues the stream header.
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

    /// Bytes were received.
    pub fn received(&mut self, bytes: &[u8], now: Instant) {
        if bytes.is_empty() || matches!(self.state, State::Ended) {
            return;
        }
        self.record_activity(now);
        self.input.drain(..self.taken);
        self.taken = 0;
        self.input.extend_from_slice(bytes);
    }

    /// The server closed the connection or its side of it.
    pub fn peer_closed(&mut self) {
        self.peer_closed = true;
    }

    /// The next event; `None` when more input is needed, or while too much output is pending.
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
                    self.discard_input();
                    return None;
                }
                Err(error) => self.take_error(error),
            }
        }
    }

    /// Whether [`next_event`](Stream::next_event) may return an event without more input.
    pub fn has_events(&self) -> bool {
        let input = self.taken < self.input.len() || self.peer_closed;
        let taken = input && !matches!(self.state, State::Ended) && !self.is_congested();
        taken || !self.events.is_empty()
    }

    /// Bytes to write.
    pub fn output(&self) -> &[u8] {
        &self.output[self.written..]
    }

    /// `n` bytes of [`output`](Stream::output) were written; 0 if the socket accepted none.
    pub fn wrote(&mut self, n: usize, now: Instant) {
        if n > 0 && self.is_congested() {
            // Nothing is read while congested, so a write is the only evidence that the server is alive.
            self.record_activity(now);
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

    /// Whether the driver should read: not after the end, not before all input was parsed, and not while too much output
    /// is pending.
    pub fn wants_input(&self) -> bool {
        let ended = matches!(self.state, State::Ended) || self.peer_closed;
        !ended && self.taken == self.input.len() && !self.is_congested()
    }

    /// Whether so much output is pending that no input is processed.
    pub fn is_congested(&self) -> bool {
        self.output().len() > MAX_OUTPUT
    }

    /// Restarts the keepalive timer: the server is alive.
    fn record_activity(&mut self, now: Instant) {
        if let State::Open { deadline, pinged } = &mut self.state {
            *deadline = now + SILENCE;
            *pinged = false;
        }
    }

    fn discard_input(&mut self) {
        self.input.clear();
        self.taken = 0;
        if self.input.capacity() > KEPT_INPUT {
            self.input = Vec::new();
        }
    }

    /// Queues a stanza. Dropped unless the stream is open, since the request was received on an earlier stream.
    pub fn send(&mut self, stanza: &Element) {
        if matches!(self.state, State::Open { .. }) {
            self.queue(stanza);
        }
    }

    /// Closes the stream: queues the closing tag and waits for the server's.
    pub fn close(&mut self, now: Instant) {
        if matches!(self.state, State::Closing { .. } | State::Ended) {
            return;
        }
        self.queue_end();
        self.state = State::Closing {
            deadline: now + CLOSING_TIMEOUT,
        };
    }

    /// The time at which [`deadline_passed`](Stream::deadline_passed) must be called.
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

    /// Handles an expired deadline; does nothing before it.
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
        let timeout = Some("connection-timeout");
        match &mut self.state {
            State::Open {
                pinged: pinged @ false,
                deadline,
            } => {
                *pinged = true;
                *deadline = now + PING_TIMEOUT;
                self.ping();
            }
            State::Open { pinged: true, .. } => self.end(Ended::Silent, timeout),
            State::Proving { proved: false, .. } => self.end_without_id(),
            State::Opening { .. } | State::Proving { .. } => {
                let phase = self.phase();
                self.end(Ended::Timeout { phase }, timeout);
            }
            State::Closing { .. } => self.end(Ended::Closed, None),
            State::Ended => {}
        }
    }

    /// Handles the server's stream header (XEP-0114 §3, example 2): queues the handshake.
    fn take_header(&mut self, header: &Element, now: Instant) {
        if !header.is("stream", STREAMS) {
            let why = "the server does not begin with a stream header";
            return self.end_malformed(Phase::Opening, why, "invalid-namespace");
        }
        // In Closing the header is ignored.
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

    /// Handles a child of the stream.
    fn take_stanza(&mut self, stanza: Element, now: Instant) {
        if stanza.is("error", STREAMS) {
            return self.end(stream_error(&stanza), None);
        }
        match self.state {
            // Stream features (RFC 6120 §4.3.2) do not concern components.
            State::Proving { .. } if stanza.is("features", STREAMS) => {}
            State::Proving { proved: false, .. } => self.end_without_id(),
            State::Proving { .. } if stanza.is("handshake", COMPONENT) => {
                self.state = State::Open {
                    deadline: now + SILENCE,
                    pinged: false,
                };
                self.events.push_back(Event::Up);
            }
            State::Proving { .. } => self.end_unproved(),
            State::Open { .. } if self.is_about_our_ping(&stanza) => {}
            State::Open { .. } => self.events.push_back(Event::Stanza(stanza)),
            // No reply can be sent any more. The reader returns no stanza before a header.
            State::Opening { .. } | State::Closing { .. } | State::Ended => {}
        }
    }

    /// Handles a child of the stream that was skipped.
    fn take_skipped(&mut self, skipped: Skipped) {
        match self.state {
            State::Open { .. } => self.events.push_back(Event::Skipped(skipped)),
            State::Proving { .. } => self.end_unproved(),
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

    fn take_error(&mut self, error: XmlError) {
        match error {
            XmlError::Malformed(why) => self.end_malformed(self.phase(), why, "not-well-formed"),
            XmlError::Restricted(what) => {
                self.end(Ended::RestrictedXml { what }, Some("restricted-xml"))
            }
        }
    }

    /// Sends a ping (XEP-0199) to the component's own address, which the server routes back like any stanza for the
    /// component. A component does not know its server's domain: the stream header does not name it, and the parent
    /// domain of the component may be served elsewhere or not at all.
    ///
    /// A server that balances the stanzas for one component over several connections (as ejabberd does) may route the
    /// ping, or any response to it, to another connection. Such a link stays up as long as other data arrives.
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

    /// Whether this is one of our pings or a response to one, including late ones. Only the component itself can send
    /// from its address.
    fn is_about_our_ping(&self, stanza: &Element) -> bool {
        let is_ping_id = |id: &str| {
            let number = id.strip_prefix(PING_ID).and_then(|n| n.parse().ok());
            number.is_some_and(|n: u64| (1..=self.pings).contains(&n))
        };
        stanza.is("iq", COMPONENT)
            && stanza.attribute("id").is_some_and(is_ping_id)
            && match stanza.attribute("type") {
                Some("result" | "error") => true,
                _ => stanza.attribute("from") == Some(&self.jid),
            }
    }

    /// Ends the stream because the header has no id, without which no handshake is possible, and no stream error
    /// explained why.
    fn end_without_id(&mut self) {
        let why = "the server's stream header has no id";
        self.end_malformed(Phase::Proving, why, "invalid-id");
    }

    fn end_unproved(&mut self) {
        let why = "the server sent something else than a response to the handshake";
        self.end_malformed(Phase::Proving, why, "not-authorized");
    }

    fn end_malformed(&mut self, phase: Phase, why: &'static str, error: &str) {
        self.end(Ended::Malformed { phase, why }, Some(error));
    }

    fn phase(&self) -> Phase {
        match self.state {
            State::Opening { .. } => Phase::Opening,
            State::Proving { .. } => Phase::Proving,
            State::Open { .. } | State::Closing { .. } | State::Ended => Phase::Open,
        }
    }

    /// Ends the stream: queues a stream error, if any, and the closing tag. In Closing the closing tag was already
    /// queued, and nothing may follow it.
    fn end(&mut self, ended: Ended, error: Option<&str>) {
        if !matches!(self.state, State::Closing { .. }) {
            if let Some(condition) = error {
                // Written by hand because `Element` has no prefixes; our header declares the prefix `stream`.
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

    /// Queues the stream's opening tag, which the element writer cannot leave open.
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

/// Omits the secret, and the output, which may contain the handshake.
impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("jid", &self.jid)
            .finish_non_exhaustive()
    }
}

/// The handshake of XEP-0114 §3: lower-case hexadecimal SHA-1 of the stream id and the secret.
fn handshake(id: &str, secret: &str) -> String {
    let mut digest = sha1_smol::Sha1::new();
    digest.update(id.as_bytes());
    digest.update(secret.as_bytes());
    digest.digest().to_string()
}

/// Prefix of the ids of our pings.
const PING_ID: &str = "upslot-ping-";

fn ping_id(number: u64) -> String {
    format!("{PING_ID}{number}")
}

#[cfg(test)]
mod tests;
