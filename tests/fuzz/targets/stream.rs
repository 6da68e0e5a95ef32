//! The state machine of the link, with arbitrary input from the server, and the replies to its stanzas. The output is a
//! well-formed XML stream.

use std::time::{Duration, Instant};

use upslot::jid::BareJid;
use upslot::refusal::Refusal;
use upslot::slot::Slot;
use upslot::xmpp::adhoc::{Action, CommandError, CommandNode};
use upslot::xmpp::element::Element;
use upslot::xmpp::form::Form;
use upslot::xmpp::iq::{self, Identity, StanzaAction};
use upslot::xmpp::stream::{Event, Stream};
use upslot::xmpp::xml::XmlEvent;

use super::xml::{check_round_trip, read};
use super::{Choices, Dice, NOW, assert_sentence, expand, split};

const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns:stream='http://etherx.jabber.org/streams' \
                      xmlns='jabber:component:accept' from='upload.montague.tld' id='3BF96D32'><handshake/>";

struct Link {
    stream: Stream,
    now: Instant,
    output: Vec<u8>,
    events: Vec<String>,
    ended: bool,
    dice: Dice,
    disturbed: bool,
}

impl Link {
    fn new(seed: u16, disturbed: bool) -> Link {
        let now = Instant::now();
        let stream = Stream::new("upload.montague.tld".to_owned(), "secret".to_owned(), now);
        Link {
            stream,
            now,
            output: Vec::new(),
            events: Vec::new(),
            ended: false,
            dice: Dice::new(seed),
            disturbed,
        }
    }

    fn run(mut self, pieces: &[&[u8]]) -> Link {
        for piece in pieces {
            if self.disturbed {
                self.disturb();
            }
            self.stream.received(piece, self.now);
            self.settle();
        }
        self.settle();
        self
    }

    /// Lets time pass, or closes the link.
    fn disturb(&mut self) {
        match self.dice.below(12) {
            0 => self.now += Duration::from_secs(5),
            1 => self.now += Duration::from_secs(70),
            2 if self.dice.below(8) == 0 => self.stream.close(self.now),
            3 if self.dice.below(8) == 0 => self.stream.peer_closed(),
            _ => {}
        }
        if self
            .stream
            .deadline()
            .is_some_and(|deadline| deadline <= self.now)
        {
            let before = self.stream.deadline();
            self.stream.deadline_passed(self.now);
            assert_ne!(
                self.stream.deadline(),
                before,
                "a deadline that does not change when it passes"
            );
        }
        self.settle();
    }

    /// Handles and answers all events, then writes.
    fn settle(&mut self) {
        while let Some(event) = self.stream.next_event(self.now) {
            assert!(!self.ended, "an event after the end");
            self.events.push(format!("{event:?}"));
            match event {
                Event::Up => {}
                Event::Stanza(stanza) => {
                    if let Some(answer) = answer(stanza) {
                        self.stream.send(&answer);
                    }
                }
                Event::Skipped(skipped) => {
                    let jid = BareJid::parse("upload.montague.tld").unwrap();
                    let identity = Identity {
                        jid: &jid,
                        purposes: &[],
                        contact: &[],
                    };
                    let from = skipped.stanza.attribute("from").map(str::to_owned);
                    if let Some(answer) = iq::reject(skipped, identity) {
                        assert_eq!(answer.attribute("to"), from.as_deref());
                        assert_eq!(answer.attribute("type"), Some("error"));
                        assert!(answer.weight() < 10_000, "bounded");
                        check_round_trip(&answer);
                        self.stream.send(&answer);
                    }
                }
                Event::Ended(_) => self.ended = true,
            }
        }
        assert_eq!(self.stream.deadline().is_none(), self.ended);
        while !self.stream.output().is_empty() {
            let all = self.stream.output();
            let n = if self.disturbed {
                1 + self.dice.below(all.len())
            } else {
                all.len()
            };
            self.output.extend_from_slice(&all[..n]);
            self.stream.wrote(n, self.now);
        }
    }
}

/// The reply to a stanza. Slot requests are granted or refused, depending on their size.
fn answer(stanza: Element) -> Option<Element> {
    let jid = BareJid::parse("upload.montague.tld").unwrap();
    let identity = Identity {
        jid: &jid,
        purposes: &["message", "ephemeral"],
        contact: &[],
    };
    let from = stanza.attribute("from").map(str::to_owned);
    let id = stanza.attribute("id").map(str::to_owned);
    let kind = stanza.attribute("type").map(str::to_owned);
    let answer = match iq::route(stanza, identity, NOW, |_| 1000) {
        StanzaAction::Ignore => return None,
        StanzaAction::Reply(answer) => answer,
        StanzaAction::Node(iq) => {
            let command = CommandNode {
                node: "n",
                name: "N",
            };
            match iq.node.len() % 2 {
                0 => iq.list(&jid, &[command]),
                _ => iq.command(command),
            }
        }
        StanzaAction::Command(mut iq) => match (iq.action.clone(), iq.take_form()) {
            (Err(error), _) => iq.failed(&error),
            (Ok(_), Some(form)) => {
                let values: Vec<String> = form.values("a").map(|value| value + ".").collect();
                let form = Form::result("t").lines("a", "A", values.iter().map(String::as_str));
                iq.executing("s", &[Action::Complete], &[], form)
            }
            (Ok(_), None) => iq.failed(&CommandError::SessionExpired),
        },
        StanzaAction::Slot(iq) => match &iq.request {
            Err(refusal) => {
                let refusal = refusal.clone();
                assert_sentence(&refusal.to_string());
                iq.refused(&refusal)
            }
            Ok(request) => {
                assert!(!request.name.is_empty() && request.size > 0);
                let slot = Slot {
                    put: "https://montague.tld/a?b=c&d=e".to_owned(),
                    get: "https://montague.tld/a".to_owned(),
                };
                match request.size % 2 {
                    0 => iq.granted(slot),
                    _ => {
                        let (size, limit) = (request.size, 10);
                        iq.refused(&Refusal::TooLarge { size, limit })
                    }
                }
            }
        },
    };
    // Addressed to the requester, and never a reply to a reply.
    assert_eq!(answer.attribute("to"), from.as_deref());
    assert!(matches!(answer.attribute("type"), Some("result" | "error")));
    assert!(!matches!(kind.as_deref(), Some("result" | "error")));
    assert_eq!(answer.attribute("id"), id.as_deref());
    check_round_trip(&answer);
    Some(answer)
}

/// Checks that a strict reader accepts the output.
fn check_output(link: &Link) {
    let (events, error) = read(&[&link.output]);
    assert_eq!(error, None, "{}", link.output.escape_ascii());
    assert!(matches!(events.first(), Some(XmlEvent::Opened(_))));
    assert_eq!(
        matches!(events.last(), Some(XmlEvent::Closed)),
        link.output.ends_with(b"</stream:stream>")
    );
    if link.ended {
        assert!(link.output.ends_with(b"</stream:stream>"));
    }
}

pub fn run(data: &[u8]) {
    let mut choices = Choices(data);
    let (seed, bare) = (choices.number(), choices.byte() & 1 == 1);
    let mut bytes = if bare {
        Vec::new()
    } else {
        HEADER.as_bytes().to_vec()
    };
    bytes.extend(expand(choices.rest()));

    let whole = Link::new(seed, false).run(&[&bytes]);
    check_output(&whole);
    let pieces = Link::new(seed, false).run(&split(&bytes, seed));
    assert!(whole.events == pieces.events, "in pieces");
    // Some replies may be missing only if the stream has ended.
    assert!(whole.output == pieces.output || whole.ended, "in pieces");
    check_output(&pieces);
    check_output(&Link::new(seed, true).run(&split(&bytes, seed)));
}
