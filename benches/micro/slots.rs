//! Slot requests: from the bytes of stanzas to the bytes of replies, and what is in between.

use std::env;
use std::fs;
use std::hint::black_box;
use std::process;
use std::sync::Arc;

use mio::{Poll, Token, Waker};
use upslot::jid::BareJid;
use upslot::now::Now;
use upslot::reactor::shared::{Effort, Shared};
use upslot::store::Store;
use upslot::syncer::Syncer;
use upslot::xmpp::element::Element;
use upslot::xmpp::iq::{self, Answer, Identity};
use upslot::xmpp::stream::{Event, Stream};
use upslot::xmpp::xml::{Reader, XmlEvent};

use crate::site::{self, JID, NAME, OWNER, SIZE, TYPE};
use crate::{Bench, Outcome};

/// Requests that come in at once.
const BATCH: usize = 64;
/// Numbers of rules.
const RULES: [(usize, &str, &str); 3] = [
    (0, "policy-0", "a slot request judged, without rules"),
    (
        10,
        "policy-10",
        "the same, and the last of 10 rules is theirs",
    ),
    (
        100,
        "policy-100",
        "the same, and the last of 100 rules is theirs",
    ),
];
const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns:stream='http://etherx.jabber.org/streams' \
                      xmlns='jabber:component:accept' from='upload.example.org' id='3BF96D32'>";
/// A message that brings somebody a picture, as Conversations sends it.
const MESSAGE: &str = "<message from='romeo@example.org/balcony' to='juliet@example.net' type='chat' \
    id='fa35cd91-9f9b-4c4a-8e67-8f0a3d6b5b6a'><body>https://upload.example.org/a/b/balcony%20at%20night.jpg</body>\
    <x xmlns='jabber:x:oob'><url>https://upload.example.org/a/b/balcony%20at%20night.jpg</url></x>\
    <markable xmlns='urn:xmpp:chat-markers:0'/><request xmlns='urn:xmpp:receipts'/>\
    <origin-id xmlns='urn:xmpp:sid:0' id='fa35cd91-9f9b-4c4a-8e67-8f0a3d6b5b6a'/><store xmlns='urn:xmpp:hints'/></message>";

pub fn run(bench: &mut Bench) -> Outcome<()> {
    let about = "the bytes of a slot request to those of the slot";
    let mut link = Link::open()?;
    let one = request(1);
    bench.case("slot", about, 1, || {
        link.asked(black_box(one.as_bytes()), 1)
    })?;
    let about = "the same, 64 in one piece; for each";
    let mut link = Link::open()?;
    let batch: String = (0..BATCH).map(request).collect();
    bench.case("slot-64", about, BATCH, || {
        link.asked(black_box(batch.as_bytes()), BATCH)
    })?;
    for (rules, name, about) in RULES {
        let service = site::service(&access(rules))?;
        let wish = site::wish(OWNER)?;
        bench.case(name, about, 1, || {
            black_box(service.judge(black_box(&wish))).is_ok()
        })?;
    }
    let about = "the bytes of a slot request to an element";
    bench.case("xml-slot-request", about, 1, read(one.clone())?)?;
    let about = "the bytes of a message to an element";
    bench.case("xml-message", about, 1, read(MESSAGE.to_owned())?)
}

/// As slixmpp asks, by way of a server.
fn request(id: usize) -> String {
    format!(
        "<iq type='get' id='upload-{id:06}' to='{JID}' from='{OWNER}/balcony'>\
         <request xmlns='urn:xmpp:http:upload:0' filename='{NAME}' size='{SIZE}' content-type='{TYPE}'/></iq>"
    )
}

/// Rules of which the last lets [`OWNER`] in.
fn access(rules: usize) -> String {
    if rules == 0 {
        return String::new();
    }
    let mut text = "access:\n".to_owned();
    for rule in 1..rules {
        text.push_str(&format!(
            "  - {{jid: '^.+@department{rule}\\.example\\.org$', max_file_size: 1 MiB}}\n"
        ));
    }
    text + "  - {jid: '@example\\.org$', max_file_size: 10 MiB}\n"
}

/// Reads a stanza on a stream that stays open.
fn read(stanza: String) -> Outcome<impl FnMut() -> bool> {
    let mut reader = Reader::new();
    match reader.next_event(&mut HEADER.as_bytes()) {
        Ok(Some(XmlEvent::Opened(_))) => {}
        other => return Err(format!("A stream begins with {other:?}.")),
    }
    Ok(move || {
        let mut rest = black_box(stanza.as_bytes());
        let stanza = reader.next_event(&mut rest);
        matches!(black_box(stanza), Ok(Some(XmlEvent::Stanza(_))))
            && matches!(reader.next_event(&mut rest), Ok(None))
    })
}

/// An open link without a socket, and everything that decides about slots.
struct Link {
    stream: Stream,
    jid: BareJid,
    shared: Shared,
    now: Now,
    /// What the syncer's waker needs to be there.
    _poll: Poll,
}

impl Link {
    fn open() -> Outcome<Link> {
        let now = site::now();
        let mut stream = Stream::new(JID.to_owned(), "a secret".to_owned(), now.mono);
        let mut up = None;
        for bytes in [HEADER, "<handshake/>"] {
            stream.received(bytes.as_bytes(), now.mono);
            up = stream.next_event(now.mono);
            let written = stream.output().len();
            stream.wrote(written, now.mono);
        }
        if up != Some(Event::Up) {
            return Err("The link does not come up.".to_owned());
        }
        let poll = Poll::new().map_err(|e| e.to_string())?;
        let waker = Waker::new(poll.registry(), Token(0)).map_err(|e| e.to_string())?;
        let mut shared = Shared::new(
            site::config("")?,
            site::service("")?,
            store()?,
            Syncer::new(Arc::new(waker)),
            now,
        );
        // Found once a second, and not in every slot.
        shared.store.free_space(now.mono);
        Ok(Link {
            stream,
            jid: BareJid::parse(JID).ok_or("The component's name is no address.")?,
            shared,
            now,
            _poll: poll,
        })
    }

    /// Does what the loop does when `count` slot requests came in and the link can be written to.
    fn asked(&mut self, bytes: &[u8], count: usize) -> bool {
        self.stream.received(bytes, self.now.mono);
        let mut granted = 0;
        while let Some(event) = self.stream.next_event(self.now.mono) {
            match event {
                Event::Stanza(stanza) => granted += usize::from(self.answer(stanza)),
                Event::Skipped(_) | Event::Up | Event::Ended(_) => return false,
            }
        }
        let written = black_box(self.stream.output()).len();
        self.stream.wrote(written, self.now.mono);
        // The URLs of a slot have more bytes than this together.
        granted == count && written > 200 * count
    }

    /// True when the stanza asked for a slot and gets one.
    fn answer(&mut self, stanza: Element) -> bool {
        let service = &self.shared.service;
        let identity = Identity {
            jid: &self.jid,
            purposes: service.purposes(),
        };
        let answer = iq::route(stanza, identity, self.now.unix(), |asker| {
            service.max_file_size(asker)
        });
        let Answer::Slot(iq) = answer else {
            return false;
        };
        let Ok(request) = &iq.request else {
            return false;
        };
        let judged = self.shared.judge_slot(request, Effort::default(), self.now);
        let Ok(Some(ready)) = judged else {
            return false;
        };
        match self.shared.issue_slot(request, &ready, self.now) {
            Ok(slot) => {
                self.stream.send(&iq.granted(slot));
                true
            }
            Err(_) => false,
        }
    }
}

/// A store whose folder is gone again: nothing is put into it, and nothing is left behind.
fn store() -> Outcome<Store> {
    let folder = env::temp_dir().join(format!("upslot-micro-{}", process::id()));
    let store = Store::open(&folder, 0o640, 0o750).map_err(|e| e.to_string());
    fs::remove_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    store
}
