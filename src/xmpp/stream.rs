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
//! sent, after a stream error of our own was queued. After [`Event::Ended`] the machine only has output left, which
//! the driver may try to write before it closes the connection.
//!
//! The machine sees no socket and no clock, does not know what a stanza means, and does not try again by itself.

use std::collections::VecDeque;
use std::fmt;
use std::time::Instant;

use super::element::{COMPONENT, Element};
use super::ended::{
    CLOSING_TIMEOUT, OPENING_TIMEOUT, PING_TIMEOUT, SILENCE, STREAM_ERRORS, stream_error,
};
use super::xml::{Fault, Reader, XmlEvent};

pub use super::ended::{Ended, Phase};

/// Namespace of the stream's own elements (RFC 6120 §4.8.1).
const STREAMS: &str = "http://etherx.jabber.org/streams";
/// Namespace of a ping (XEP-0199).
const PING: &str = "urn:xmpp:ping";

/// While more output than this waits, nothing should be read: who does not take answers gets no more questions in.
const MAX_OUTPUT: usize = 256 * 1024;
/// Input is parsed in pieces of this size, so that a large read is not kept twice.
const PIECE: usize = 16 * 1024;

/// What happened on the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The server took the handshake; stanzas can be sent.
    Up,
    /// A stanza from the server.
    Stanza(Element),
    /// The stream is over. Nothing comes after this.
    Ended(Ended),
}

/// One stream. The driver writes [`output`](Stream::output), reports what came in and when, and takes events until
/// there is none after each report.
pub struct Stream {
    /// Our own name.
    jid: String,
    state: State,
    reader: Reader,
    output: Vec<u8>,
    /// How much of `output` was written already.
    written: usize,
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
            output: Vec::new(),
            written: 0,
            events: VecDeque::new(),
            pings: 0,
        };
        stream.queue_header();
        stream
    }

    /// These bytes came in.
    pub fn received(&mut self, bytes: &[u8], now: Instant) {
        if bytes.is_empty() {
            return;
        }
        if let State::Open { deadline, pinged } = &mut self.state {
            *deadline = now + SILENCE;
            *pinged = false;
        }
        for piece in bytes.chunks(PIECE) {
            self.reader.received(piece);
            loop {
                if matches!(self.state, State::Ended) {
                    return;
                }
                match self.reader.next_event() {
                    Ok(Some(XmlEvent::Opened(header))) => self.take_header(&header, now),
                    Ok(Some(XmlEvent::Stanza(stanza))) => self.take_stanza(stanza, now),
                    Ok(Some(XmlEvent::Closed)) => self.peer_closed(),
                    Ok(None) => break,
                    Err(fault) => self.take_fault(fault),
                }
            }
        }
    }

    /// The server closed the connection or its side of it.
    pub fn peer_closed(&mut self) {
        let ended = match self.state {
            State::Ended => return,
            State::Closing { .. } => Ended::Closed,
            _ => Ended::PeerClosed {
                phase: self.phase(),
            },
        };
        self.end(ended, None);
    }

    /// Bytes to write, the oldest first.
    pub fn output(&self) -> &[u8] {
        &self.output[self.written..]
    }

    /// So many bytes of [`output`](Stream::output) were written.
    pub fn wrote(&mut self, n: usize) {
        self.written = (self.written + n).min(self.output.len());
        if self.written == self.output.len() {
            self.output = Vec::new();
            self.written = 0;
        } else if self.written > MAX_OUTPUT / 4 {
            self.output.drain(..self.written);
            self.written = 0;
        }
    }

    /// Whether the driver should read: not after the end, and not while too much output waits. Between two looks
    /// at this, output grows by no more than what the stanzas of one read are answered with.
    pub fn wants_input(&self) -> bool {
        !matches!(self.state, State::Ended) && self.output().len() <= MAX_OUTPUT
    }

    /// The next thing that happened.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
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
        match self.state {
            State::Opening { deadline, .. }
            | State::Proving { deadline, .. }
            | State::Open { deadline, .. }
            | State::Closing { deadline } => Some(deadline),
            State::Ended => None,
        }
    }

    /// Time went by. Nothing happens before the deadline.
    pub fn deadline_passed(&mut self, now: Instant) {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return;
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
                self.queue(&Element::new("handshake", COMPONENT).with_text(&proof));
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

    fn take_fault(&mut self, fault: Fault) {
        match fault {
            Fault::Malformed(why) => {
                let phase = self.phase();
                self.end(Ended::Malformed { phase, why }, Some("not-well-formed"));
            }
            Fault::Restricted(what) => {
                self.end(Ended::RestrictedXml { what }, Some("restricted-xml"))
            }
            Fault::TooLarge(what) => self.end(Ended::TooLarge { what }, Some("policy-violation")),
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
            .with("id", &ping_id(self.pings))
            .with("from", &self.jid)
            .with("to", &self.jid)
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

    /// Queues the stream's end, after a stream error of ours if there is one.
    fn end(&mut self, ended: Ended, error: Option<&str>) {
        if let Some(condition) = error {
            // `stream` is the prefix that our header declared. Elements carry none, so this one is written by hand.
            let error =
                format!("<stream:error><{condition} xmlns='{STREAM_ERRORS}'/></stream:error>");
            self.output.extend_from_slice(error.as_bytes());
        }
        if !matches!(self.state, State::Closing { .. }) {
            self.queue_end();
        }
        self.state = State::Ended;
        self.events.push_back(Event::Ended(ended));
    }

    /// The opening tag, which is never closed by the element writer.
    fn queue_header(&mut self) {
        let mut header = Vec::new();
        Element::new("stream:stream", COMPONENT)
            .with("xmlns:stream", STREAMS)
            .with("to", &self.jid)
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
mod tests {
    use std::time::Duration;

    use super::*;

    const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns:stream='http://etherx.jabber.org/streams' \
                          xmlns='jabber:component:accept' from='u.example' id='3BF96D32'>";
    const OUR_HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' \
                              xmlns:stream='http://etherx.jabber.org/streams' to='u.example'>";

    /// A machine with its virtual clock.
    struct Bench {
        stream: Stream,
        start: Instant,
        now: Instant,
    }

    impl Bench {
        fn new() -> Bench {
            let now = Instant::now();
            let mut stream = Stream::new("u.example".to_owned(), "test".to_owned(), now);
            assert_eq!(stream.output(), OUR_HEADER.as_bytes());
            stream.wrote(OUR_HEADER.len());
            Bench {
                stream,
                start: now,
                now,
            }
        }

        fn open() -> Bench {
            let mut bench = Bench::new();
            bench.receive(HEADER);
            bench.output();
            bench.receive("<handshake/>");
            assert_eq!(bench.events(), [Event::Up]);
            bench
        }

        fn receive(&mut self, text: &str) {
            self.stream.received(text.as_bytes(), self.now);
        }

        /// Goes on to a moment so many seconds after the start; a deadline on the way passes.
        fn at(&mut self, seconds: u64) {
            let then = self.start + Duration::from_secs(seconds);
            while let Some(deadline) = self.stream.deadline().filter(|d| *d <= then) {
                // A driver may come early, and that does nothing.
                let (before, events) = (self.stream.output().len(), self.stream.events.len());
                self.stream
                    .deadline_passed(deadline - Duration::from_millis(1));
                assert_eq!(self.stream.output().len(), before);
                assert_eq!(self.stream.events.len(), events);
                self.stream.deadline_passed(deadline);
                assert!(self.stream.deadline().is_none_or(|next| next > deadline));
            }
            self.now = then;
        }

        /// Everything that waits, written in small pieces.
        fn output(&mut self) -> String {
            let mut all = Vec::new();
            while !self.stream.output().is_empty() {
                let n = self.stream.output().len().min(7);
                all.extend_from_slice(&self.stream.output()[..n]);
                self.stream.wrote(n);
            }
            String::from_utf8(all).unwrap()
        }

        fn events(&mut self) -> Vec<Event> {
            std::iter::from_fn(|| self.stream.next_event()).collect()
        }

        #[track_caller]
        fn ended(&mut self, ended: Ended, output: &str) {
            assert_eq!(self.events(), [Event::Ended(ended)]);
            assert_eq!(self.output(), output);
            assert_eq!(self.stream.deadline(), None);
            assert!(!self.stream.wants_input());
            // Nothing comes after the end.
            self.receive("<iq/></stream:stream>");
            self.stream.peer_closed();
            self.stream.close(self.now);
            self.stream.send(&Element::new("iq", COMPONENT));
            self.stream
                .deadline_passed(self.now + Duration::from_secs(999));
            assert_eq!((self.events(), self.output()), (vec![], String::new()));
        }
    }

    const TIMEOUT_ERROR: &str = "<stream:error><connection-timeout \
                                 xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>";

    #[test]
    fn proves_itself_with_the_published_vectors() {
        assert_eq!(
            handshake("3BF96D32", "test"),
            "aaee83c26aeeafcbabeabfcbcd50df997e0a2a1e"
        );
        assert_eq!(
            handshake("3BF96D32", "secret"),
            "b09ea9b3b7f586be8a08d0a3dd7466f110aeb136"
        );
    }

    #[test]
    fn comes_up_whatever_pieces_come_in() {
        let input = format!("{HEADER}\n<handshake/> <iq type='get' id='1'/>");
        for piece in [1, 2, 3, 50, 1000] {
            let mut bench = Bench::new();
            for bytes in input.as_bytes().chunks(piece) {
                bench.stream.received(bytes, bench.now);
            }
            assert_eq!(
                bench.output(),
                "<handshake>aaee83c26aeeafcbabeabfcbcd50df997e0a2a1e</handshake>"
            );
            let events = bench.events();
            assert_eq!(events.len(), 2);
            assert_eq!(events[0], Event::Up);
            let Event::Stanza(iq) = &events[1] else {
                panic!("{events:?}");
            };
            assert_eq!(iq.attribute("id"), Some("1"));
        }
    }

    #[test]
    fn decodes_the_stream_id_before_it_proves() {
        let mut bench = Bench::new();
        bench.receive(&HEADER.replace("3BF96D32", "a&amp;b&#x27;&lt;"));
        let proof = handshake("a&b'<", "test");
        assert_eq!(bench.output(), format!("<handshake>{proof}</handshake>"));
    }

    #[test]
    fn escapes_its_name() {
        let stream = Stream::new("a'><b".to_owned(), String::new(), Instant::now());
        assert!(stream.output().ends_with(b" to='a&apos;&gt;&lt;b'>"));
    }

    #[test]
    fn shows_no_secret() {
        let mut stream = Stream::new("u.x".to_owned(), "s3cr3t".to_owned(), Instant::now());
        assert!(!format!("{stream:?}").contains("s3cr3t"));
        stream.received(HEADER.as_bytes(), Instant::now());
        let proof = handshake("3BF96D32", "s3cr3t");
        assert!(stream.output().windows(40).any(|w| w == proof.as_bytes()));
        assert!(!format!("{stream:?}").contains(&proof));
    }

    #[test]
    fn waits_ten_seconds_for_each_step() {
        let mut bench = Bench::new();
        bench.at(9);
        assert_eq!(bench.events(), []);
        bench.receive(" ");
        bench.at(10);
        let phase = Phase::Opening;
        bench.ended(Ended::Timeout { phase }, TIMEOUT_ERROR);

        let mut bench = Bench::new();
        bench.at(9);
        bench.receive(HEADER);
        bench.output();
        bench.at(18);
        bench.receive("  ");
        assert_eq!(bench.events(), []);
        bench.at(19);
        let phase = Phase::Proving;
        bench.ended(Ended::Timeout { phase }, TIMEOUT_ERROR);
    }

    const PING_1: &str = "<iq type='get' id='upslot-ping-1' from='u.example' to='u.example'>\
                          <ping xmlns='urn:xmpp:ping'/></iq>";

    #[test]
    fn pings_a_silent_server_and_gives_it_up() {
        let mut bench = Bench::open();
        bench.at(59);
        assert_eq!(bench.output(), "");
        bench.at(60);
        assert_eq!(bench.output(), PING_1);
        bench.at(89);
        assert_eq!((bench.events(), bench.output()), (vec![], String::new()));
        bench.at(90);
        bench.ended(Ended::Silent, TIMEOUT_ERROR);
    }

    #[test]
    fn takes_anything_as_a_sign_of_life_and_keeps_ping_answers_to_itself() {
        let returned = PING_1.to_owned();
        let result = "<iq type='result' id='upslot-ping-1' to='u.example' from='x'/>".to_owned();
        let error = "<iq type='error' id='upslot-ping-1'><error type='cancel'/></iq>".to_owned();
        for (answer, passed_on) in [
            (returned, 0),
            (result, 0),
            (error, 0),
            (" ".to_owned(), 0),
            ("<iq".to_owned(), 0),
            ("<presence/>".to_owned(), 1),
            ("<iq type='result' id='upslot-ping-2'/>".to_owned(), 1),
            ("<iq type='result' id='upslot-ping-'/>".to_owned(), 1),
            ("<iq type='result' id='1'/>".to_owned(), 1),
            (
                "<iq type='get' id='upslot-ping-1' from='a@b'/>".to_owned(),
                1,
            ),
            ("<message type='error' id='upslot-ping-1'/>".to_owned(), 1),
        ] {
            let mut bench = Bench::open();
            bench.at(60);
            assert_eq!(bench.output(), PING_1);
            bench.at(89);
            bench.receive(&answer);
            assert_eq!(bench.events().len(), passed_on, "{answer}");
            bench.at(148);
            assert_eq!(bench.output(), "", "{answer}");
            bench.at(149);
            assert!(bench.output().contains("upslot-ping-2"), "{answer}");
        }
        let mut bench = Bench::open();
        bench.receive("<iq type='result' id='upslot-ping-1'/>");
        assert_eq!(bench.events().len(), 1, "no ping was sent yet");
    }

    #[test]
    fn closes_in_good_order() {
        let mut bench = Bench::open();
        bench.stream.close(bench.now);
        bench.stream.close(bench.now);
        bench.stream.send(&Element::new("iq", COMPONENT));
        assert_eq!(bench.output(), "</stream:stream>");
        bench.receive("<iq type='get' id='1'/>");
        assert_eq!(bench.events(), []);
        bench.receive("</stream:stream>");
        bench.ended(Ended::Closed, "");

        let mut bench = Bench::open();
        bench.stream.close(bench.now);
        bench.stream.peer_closed();
        bench.ended(Ended::Closed, "</stream:stream>");

        let mut bench = Bench::new();
        bench.stream.close(bench.now);
        bench.receive(HEADER);
        assert_eq!(bench.output(), "</stream:stream>");
        bench.at(2);
        assert_eq!(bench.events(), []);
        bench.at(3);
        bench.ended(Ended::Closed, "");
    }

    #[test]
    fn tells_a_peer_that_closes_from_one_that_says_why() {
        let mut bench = Bench::new();
        bench.stream.peer_closed();
        let phase = Phase::Opening;
        bench.ended(Ended::PeerClosed { phase }, "</stream:stream>");

        let mut bench = Bench::new();
        bench.receive(HEADER);
        bench.output();
        bench.stream.peer_closed();
        let phase = Phase::Proving;
        bench.ended(Ended::PeerClosed { phase }, "</stream:stream>");

        let mut bench = Bench::open();
        bench.receive("<presence/></stream:stream>");
        assert!(matches!(bench.stream.next_event(), Some(Event::Stanza(_))));
        let phase = Phase::Open;
        bench.ended(Ended::PeerClosed { phase }, "</stream:stream>");
    }

    /// A stream error, its text, and the end it makes, in every state.
    #[track_caller]
    fn check_error(inner: &str, ended: Ended) {
        let error = format!("<stream:error>{inner}</stream:error></stream:stream>");
        let mut bench = Bench::new();
        bench.receive(&format!("{HEADER}{error}"));
        bench.output();
        bench.ended(ended.clone(), "");
        let mut bench = Bench::new();
        bench.receive(&HEADER.replace(" id='3BF96D32'", ""));
        bench.receive(&error);
        bench.ended(ended.clone(), "</stream:stream>");
        let mut bench = Bench::open();
        bench.receive(&error);
        bench.ended(ended.clone(), "</stream:stream>");
        let mut bench = Bench::open();
        bench.stream.close(bench.now);
        bench.receive(&error);
        bench.ended(ended, "</stream:stream>");
    }

    #[test]
    fn reads_stream_errors() {
        let known = [
            ("not-authorized", Ended::NotAuthorized),
            ("conflict", Ended::Conflict),
            ("host-unknown", Ended::HostUnknown),
            ("system-shutdown", Ended::SystemShutdown),
        ];
        for (name, ended) in known {
            let condition = format!("<{name} xmlns='{STREAM_ERRORS}'/>");
            check_error(&condition, ended.clone());
            let text = format!("<text xmlns='{STREAM_ERRORS}'>Because.</text>");
            check_error(&format!("{text}{condition}"), ended);
        }
        let other = |condition: &str, text: &str| Ended::StreamError {
            condition: condition.to_owned(),
            text: text.to_owned(),
        };
        check_error(
            &format!(
                "<reset xmlns='{STREAM_ERRORS}'/><text xmlns='{STREAM_ERRORS}' xml:lang='en'>Why &amp; how</text>"
            ),
            other("reset", "Why & how"),
        );
        check_error("", other("undefined-condition", ""));
        check_error("<conflict/>", other("undefined-condition", ""));
        let long = "x".repeat(9000);
        check_error(
            &format!(
                "<{long} xmlns='{STREAM_ERRORS}'/><text xmlns='{STREAM_ERRORS}'>{long}</text>"
            ),
            other(&long[..500], &long[..500]),
        );
    }

    #[test]
    fn answers_faults_with_a_stream_error() {
        let open = |input: &str| {
            let mut bench = Bench::open();
            bench.receive(input);
            bench
        };
        let error = |name| {
            format!(
                "<stream:error><{name} xmlns='{STREAM_ERRORS}'/></stream:error></stream:stream>"
            )
        };
        open("<iq><!-- -->").ended(
            Ended::RestrictedXml { what: "a comment" },
            &error("restricted-xml"),
        );
        open("<iq></presence>").ended(
            Ended::Malformed {
                phase: Phase::Open,
                why: "an end tag without its start",
            },
            &error("not-well-formed"),
        );
        let huge = format!("<iq id='{}'/>", "x".repeat(70_000));
        open(&huge).ended(
            Ended::TooLarge {
                what: "a stanza of more than 64 KiB",
            },
            &error("policy-violation"),
        );
        // What came before the fault still counts.
        let mut bench = open("<presence/>&");
        assert!(matches!(bench.stream.next_event(), Some(Event::Stanza(_))));
        assert!(matches!(
            bench.stream.next_event(),
            Some(Event::Ended(Ended::Malformed { .. }))
        ));
        // A fault after our end: the error comes too late to be sent.
        let mut bench = Bench::open();
        bench.stream.close(bench.now);
        bench.receive("&");
        assert!(bench.output().starts_with("</stream:stream>"));
    }

    #[test]
    fn takes_no_other_protocol_for_a_server() {
        let mut bench = Bench::new();
        bench.receive("HTTP/1.1 400 Bad Request\r\n");
        assert!(matches!(
            bench.events()[..],
            [Event::Ended(Ended::Malformed { .. })]
        ));
        let mut bench = Bench::new();
        bench.receive("<html>");
        assert!(matches!(
            bench.events()[..],
            [Event::Ended(Ended::Malformed { .. })]
        ));
        // A stream without an id, and then no stream error.
        let without_id = HEADER.replace(" id='3BF96D32'", "");
        let mut bench = Bench::new();
        bench.receive(&format!("{without_id}<handshake/>"));
        assert!(matches!(
            bench.events()[..],
            [Event::Ended(Ended::Malformed { .. })]
        ));
        let mut bench = Bench::new();
        bench.receive(&without_id);
        bench.at(10);
        assert!(matches!(
            bench.events()[..],
            [Event::Ended(Ended::Malformed { .. })]
        ));
        let mut bench = Bench::new();
        bench.receive(&format!("{HEADER}<iq/>"));
        assert!(matches!(
            bench.events()[..],
            [Event::Ended(Ended::Malformed { .. })]
        ));
        // Stream features before the answer do no harm.
        let mut bench = Bench::new();
        bench.receive(&format!("{HEADER}<stream:features/><handshake/>"));
        assert_eq!(bench.events(), [Event::Up]);
    }

    #[test]
    fn wants_no_input_while_output_waits() {
        let mut bench = Bench::open();
        let stanza = Element::new("message", COMPONENT).with_text(&"x".repeat(1000));
        while bench.stream.wants_input() {
            bench.stream.send(&stanza);
        }
        let waiting = bench.stream.output().len();
        assert!((MAX_OUTPUT..MAX_OUTPUT + 2000).contains(&waiting));
        bench.stream.wrote(2000);
        assert!(bench.stream.wants_input());
        assert_eq!(bench.stream.output().len(), waiting - 2000);
        // The rest keeps its order and its bytes whatever was dropped in front of it.
        bench.stream.wrote(MAX_OUTPUT / 2);
        let rest = bench.output();
        assert!(rest.ends_with("x</message>") && rest.len() == waiting - 2000 - MAX_OUTPUT / 2);
        bench.stream.wrote(99);
        assert!(bench.stream.output().is_empty());
    }

    #[test]
    fn never_panics() {
        let corpus = format!(
            "{HEADER}<handshake/><iq type='get' id='upslot-ping-1' from='u.example'/><presence/>\
             <stream:error><conflict xmlns='{STREAM_ERRORS}'/></stream:error></stream:stream>"
        );
        let mut random = 42_u32;
        let mut next = |below: usize| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 8) as usize % below
        };
        let mut ends = 0;
        for _ in 0..5_000 {
            let mut bytes = corpus.clone().into_bytes();
            for _ in 0..next(4) {
                let at = next(bytes.len());
                bytes[at] = b"<>/'&; x!?\0\xFF"[next(12)];
            }
            bytes.truncate(next(bytes.len()));
            let now = Instant::now();
            let mut stream = Stream::new("u.example".to_owned(), "test".to_owned(), now);
            for piece in bytes.chunks(1 + next(99)) {
                stream.received(piece, now);
                stream.wrote(next(200));
                if next(20) == 0 {
                    stream.deadline_passed(now + Duration::from_secs(next(100) as u64));
                }
            }
            stream.peer_closed();
            let events: Vec<Event> = std::iter::from_fn(|| stream.next_event()).collect();
            let is_end = |event: &Event| matches!(event, Event::Ended(_));
            assert!(events.last().is_some_and(is_end), "{events:?}");
            ends += events.iter().filter(|event| is_end(event)).count();
        }
        assert_eq!(ends, 5_000);
    }
}
