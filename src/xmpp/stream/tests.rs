//! Unit tests.

use std::time::Duration;

use super::*;

const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns:stream='http://etherx.jabber.org/streams' \
                          xmlns='jabber:component:accept' from='u.example' id='3BF96D32'>";
const OUR_HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' \
                              xmlns:stream='http://etherx.jabber.org/streams' to='u.example'>";

/// A stream with a virtual clock.
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
        stream.wrote(OUR_HEADER.len(), now);
        Bench {
            stream,
            start: now,
            now,
        }
    }

    fn open() -> Bench {
        let mut bench = Bench::new();
        bench.receive(HEADER);
        assert_eq!(bench.events(), []);
        bench.output();
        bench.receive("<handshake/>");
        assert_eq!(bench.events(), [Event::Up]);
        bench
    }

    fn receive(&mut self, text: &str) {
        self.stream.received(text.as_bytes(), self.now);
    }

    /// Advances the clock to this many seconds after the start and handles the deadlines on the way.
    fn at(&mut self, seconds: u64) {
        let then = self.start + Duration::from_secs(seconds);
        while let Some(deadline) = self.stream.deadline().filter(|d| *d <= then) {
            // An early call does nothing.
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

    /// Takes all pending output, written in small pieces.
    fn output(&mut self) -> String {
        let mut all = Vec::new();
        while !self.stream.output().is_empty() {
            let n = self.stream.output().len().min(7);
            all.extend_from_slice(&self.stream.output()[..n]);
            self.stream.wrote(n, self.now);
        }
        String::from_utf8(all).unwrap()
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.stream.next_event(self.now)).collect()
    }

    #[track_caller]
    fn ended(&mut self, ended: Ended, output: &str) {
        assert_eq!(self.events(), [Event::Ended(ended)]);
        assert_eq!(self.output(), output);
        assert_eq!(self.stream.deadline(), None);
        assert!(!self.stream.wants_input());
        // There are no events after the end.
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
fn the_handshake_matches_the_published_vectors() {
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
fn opens_for_any_split_of_the_input() {
    let input = format!("{HEADER}\n<handshake/> <iq type='get' id='1'/>");
    for piece in [1, 2, 3, 50, 1000] {
        let mut bench = Bench::new();
        for bytes in input.as_bytes().chunks(piece) {
            bench.stream.received(bytes, bench.now);
        }
        let events = bench.events();
        assert_eq!(
            bench.output(),
            "<handshake>aaee83c26aeeafcbabeabfcbcd50df997e0a2a1e</handshake>"
        );
        assert_eq!(events.len(), 2);
        assert_eq!(events[0], Event::Up);
        let Event::Stanza(iq) = &events[1] else {
            panic!("{events:?}");
        };
        assert_eq!(iq.attribute("id"), Some("1"));
    }
}

#[test]
fn decodes_the_stream_id_before_the_handshake() {
    let mut bench = Bench::new();
    bench.receive(&HEADER.replace("3BF96D32", "a&amp;b&#x27;&lt;"));
    assert_eq!(bench.events(), []);
    let proof = handshake("a&b'<", "test");
    assert_eq!(bench.output(), format!("<handshake>{proof}</handshake>"));
}

#[test]
fn escapes_its_name() {
    let stream = Stream::new("a'><b".to_owned(), String::new(), Instant::now());
    assert!(stream.output().ends_with(b" to='a&apos;&gt;&lt;b'>"));
}

#[test]
fn debug_output_contains_no_secret() {
    let mut stream = Stream::new("u.x".to_owned(), "s3cr3t".to_owned(), Instant::now());
    assert!(!format!("{stream:?}").contains("s3cr3t"));
    stream.received(HEADER.as_bytes(), Instant::now());
    assert_eq!(stream.next_event(Instant::now()), None);
    let proof = handshake("3BF96D32", "s3cr3t");
    assert!(stream.output().windows(40).any(|w| w == proof.as_bytes()));
    assert!(!format!("{stream:?}").contains(&proof));
}

#[test]
fn times_out_after_ten_seconds_in_each_phase() {
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
    assert_eq!(bench.events(), []);
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
fn pings_a_silent_server_and_then_ends() {
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
fn any_input_counts_as_activity_and_ping_responses_are_not_passed_on() {
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
fn closes_after_the_peer_or_a_timeout() {
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
    assert_eq!(
        (bench.events(), bench.output()),
        (vec![], "</stream:stream>".to_owned())
    );
    bench.at(2);
    assert_eq!(bench.events(), []);
    bench.at(3);
    bench.ended(Ended::Closed, "");

    // Nothing is sent after our closing tag, whatever the server sends.
    let mut bench = Bench::open();
    bench.stream.close(bench.now);
    assert_eq!(bench.output(), "</stream:stream>");
    bench.receive("<!-- no -->");
    let what = "a comment";
    bench.ended(Ended::RestrictedXml { what }, "");
}

#[test]
fn distinguishes_a_close_from_a_stream_error() {
    let mut bench = Bench::new();
    bench.stream.peer_closed();
    let phase = Phase::Opening;
    bench.ended(Ended::PeerClosed { phase }, "</stream:stream>");

    let mut bench = Bench::new();
    bench.receive(HEADER);
    assert_eq!(bench.events(), []);
    bench.output();
    bench.stream.peer_closed();
    let phase = Phase::Proving;
    bench.ended(Ended::PeerClosed { phase }, "</stream:stream>");

    let mut bench = Bench::open();
    bench.receive("<presence/></stream:stream>");
    assert!(matches!(
        bench.stream.next_event(bench.now),
        Some(Event::Stanza(_))
    ));
    let phase = Phase::Open;
    bench.ended(Ended::PeerClosed { phase }, "</stream:stream>");
}

/// Checks a stream error in every state.
#[track_caller]
fn check_error(inner: &str, ended: Ended) {
    let error = format!("<stream:error>{inner}</stream:error></stream:stream>");
    let mut bench = Bench::new();
    bench.receive(HEADER);
    assert_eq!(bench.events(), []);
    bench.output();
    bench.receive(&error);
    bench.ended(ended.clone(), "</stream:stream>");
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
        &format!("<{long} xmlns='{STREAM_ERRORS}'/><text xmlns='{STREAM_ERRORS}'>{long}</text>"),
        other(&long[..500], &long[..500]),
    );
}

#[test]
fn malformed_xml_gets_a_stream_error() {
    let open = |input: &str| {
        let mut bench = Bench::open();
        bench.receive(input);
        bench
    };
    let error = |name| {
        format!("<stream:error><{name} xmlns='{STREAM_ERRORS}'/></stream:error></stream:stream>")
    };
    open("<iq><!-- -->").ended(
        Ended::RestrictedXml { what: "a comment" },
        &error("restricted-xml"),
    );
    open("<iq></presence>").ended(
        Ended::Malformed {
            phase: Phase::Open,
            why: "an end tag without a matching start tag",
        },
        &error("not-well-formed"),
    );
    // Stanzas before the error are still returned.
    let mut bench = open("<presence/>&");
    assert!(matches!(
        bench.stream.next_event(bench.now),
        Some(Event::Stanza(_))
    ));
    assert!(matches!(
        bench.stream.next_event(bench.now),
        Some(Event::Ended(Ended::Malformed { .. }))
    ));
    // After our closing tag, no stream error is sent.
    let mut bench = Bench::open();
    bench.stream.close(bench.now);
    bench.receive("&");
    assert_eq!(bench.events().len(), 1);
    assert_eq!(bench.output(), "</stream:stream>");
}

#[test]
fn rejects_other_protocols() {
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
    // A stream header without an id, not followed by a stream error.
    let without_id = HEADER.replace(" id='3BF96D32'", "");
    let mut bench = Bench::new();
    bench.receive(&format!("{without_id}<handshake/>"));
    assert!(matches!(
        bench.events()[..],
        [Event::Ended(Ended::Malformed { .. })]
    ));
    let mut bench = Bench::new();
    bench.receive(&without_id);
    assert_eq!(bench.events(), []);
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
    // Stream features before the response are ignored.
    let mut bench = Bench::new();
    bench.receive(&format!("{HEADER}<stream:features/><handshake/>"));
    assert_eq!(bench.events(), [Event::Up]);
}

#[test]
fn processes_no_input_while_output_is_pending() {
    let mut bench = Bench::open();
    let stanza = Element::new("message", COMPONENT).with_text("x".repeat(1000));
    bench.receive(&"<presence/>".repeat(1000));
    let mut taken = 0;
    while let Some(event) = bench.stream.next_event(bench.now) {
        assert!(matches!(event, Event::Stanza(_)));
        bench.stream.send(&stanza);
        taken += 1;
    }
    // Replies are queued up to the limit; the other requests wait.
    let waiting = bench.stream.output().len();
    assert!((MAX_OUTPUT..MAX_OUTPUT + 2000).contains(&waiting));
    assert!(taken < 300 && !bench.stream.has_events() && !bench.stream.wants_input());
    bench.stream.wrote(2000, bench.now);
    assert!(bench.stream.has_events() && !bench.stream.wants_input());
    let rest = std::iter::from_fn(|| bench.stream.next_event(bench.now));
    assert_eq!(rest.count() + taken, 1000);
    assert!(!bench.stream.has_events() && bench.stream.wants_input());
    assert_eq!(bench.stream.output().len(), waiting - 2000);
    // Draining written bytes does not change the rest.
    bench.stream.wrote(MAX_OUTPUT / 2, bench.now);
    let rest = bench.output();
    assert!(rest.ends_with("x</message>") && rest.len() == waiting - 2000 - MAX_OUTPUT / 2);
    bench.stream.wrote(99, bench.now);
    assert!(bench.stream.output().is_empty());
}

#[test]
fn ends_when_the_server_accepts_no_output() {
    let stanza = Element::new("message", COMPONENT).with_text("x".repeat(1000));
    // For little and much pending output, and regardless of input.
    for answers in [1, 1000] {
        let mut bench = Bench::open();
        for _ in 0..answers {
            bench.stream.send(&stanza);
        }
        bench.stream.wrote(0, bench.now);
        bench.at(30);
        bench.stream.wrote(0, bench.now);
        bench.receive(" ");
        bench.at(59);
        assert_eq!(bench.events(), []);
        bench.at(60);
        assert_eq!(bench.events(), [Event::Ended(Ended::Stalled)]);
        assert_eq!(bench.stream.deadline(), None);
    }
    // A server that accepts a little from time to time is only slow.
    let mut bench = Bench::open();
    for _ in 0..1000 {
        bench.stream.send(&stanza);
    }
    for minute in 1..10 {
        bench.stream.wrote(1, bench.now);
        assert!(!bench.stream.wants_input());
        bench.at(minute * 59);
        assert_eq!(bench.events(), []);
    }
    // Once all output is accepted, the keepalive applies.
    let before = bench.now;
    bench.output();
    bench
        .stream
        .deadline_passed(before + Duration::from_secs(59));
    assert!(!bench.output().contains("ping"));
    bench
        .stream
        .deadline_passed(before + Duration::from_secs(60));
    assert!(bench.output().contains("ping"));
}

#[test]
fn survives_stanzas_that_users_can_cause() {
    for stanza in [
        format!("<message><body>{}</body></message>", "x".repeat(70_000)),
        format!(
            "<message>{}{}</message>",
            "<x>".repeat(41),
            "</x>".repeat(41)
        ),
        format!("<message x='{}'/>", "x".repeat(70_000)),
        "<message><y xmlns='http://www.w3.org/XML/1998/namespace'/></message>".to_owned(),
        "<message><y q:a='1'/></message>".to_owned(),
        format!("<iq id='{}'/>", "x".repeat(2000)),
    ] {
        let mut bench = Bench::open();
        bench.receive(&format!("{stanza}<presence/>"));
        let events = bench.events();
        assert!(
            matches!(&events[..], [Event::Skipped(_), Event::Stanza(_)]),
            "{events:?}"
        );
        // Before the handshake response, it ends the stream.
        let mut bench = Bench::new();
        bench.receive(&format!("{HEADER}{stanza}<handshake/>"));
        assert!(matches!(
            bench.events()[..],
            [Event::Ended(Ended::Malformed { .. })]
        ));
        // After our closing tag, it is ignored.
        let mut bench = Bench::open();
        bench.stream.close(bench.now);
        bench.receive(&format!("{stanza}</stream:stream>"));
        assert_eq!(bench.events(), [Event::Ended(Ended::Closed)]);
    }
}

#[test]
fn an_endless_stanza_counts_as_activity_and_uses_no_memory() {
    let mut bench = Bench::open();
    bench.receive("<message><body>");
    for second in 1..300 {
        bench.at(second * 50);
        bench.receive(&"x".repeat(50_000));
        assert_eq!((bench.events(), bench.output()), (vec![], String::new()));
        assert!(
            bench.stream.input.capacity() <= 2 * KEPT_INPUT && bench.stream.reader.kept() == 0
                || second < 3
        );
    }
    bench.receive("</body></message><presence/>");
    assert!(matches!(
        &bench.events()[..],
        [Event::Skipped(_), Event::Stanza(_)]
    ));
}

/// Events and output do not depend on how the input is split.
#[test]
fn never_depends_on_the_split() {
    let outcome = |pieces: &[&[u8]]| {
        let mut bench = Bench::new();
        let mut events = Vec::new();
        for piece in pieces {
            bench.stream.received(piece, bench.now);
            events.extend(bench.events());
        }
        (events, bench.output())
    };
    for rest in [
        "<handshake/> <iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>\n<presence/></stream:stream>",
        "<stream:features/><handshake/><message><body>&lt;a&#62;<![CDATA[<]]]]></body></message><!-- -->",
        "<stream:error><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>",
        "<handshake/><iq></message>",
        "<handshake/><iq a='1' a='2'/><iq/>",
    ] {
        let stream = format!("{HEADER}{rest}");
        let bytes = stream.as_bytes();
        let whole = outcome(&[bytes]);
        assert!(!whole.0.is_empty());
        let each: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(outcome(&each), whole, "{rest} byte by byte");
        for at in 1..bytes.len() {
            let (one, two) = bytes.split_at(at);
            assert_eq!(outcome(&[one, two]), whole, "{rest} cut at {at}");
        }
    }
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
            stream.wrote(next(200), now);
            while next(3) > 0
                && stream.next_event(now).is_some_and(|event| {
                    let is_end = matches!(event, Event::Ended(_));
                    ends += usize::from(is_end);
                    !is_end
                })
            {}
            if next(20) == 0 {
                stream.deadline_passed(now + Duration::from_secs(next(100) as u64));
            }
        }
        stream.peer_closed();
        let events: Vec<Event> = std::iter::from_fn(|| stream.next_event(now)).collect();
        let is_end = |event: &Event| matches!(event, Event::Ended(_));
        ends += events.iter().filter(|event| is_end(event)).count();
        assert_eq!(stream.deadline(), None);
    }
    assert_eq!(ends, 5_000);
}
