//! Slot requests: from the bytes of stanzas to the bytes of responses, and the steps in between.

use std::env;
use std::fs;
use std::hint::black_box;
use std::process;
use std::sync::Arc;
use std::time::Duration;

use mio::{Poll, Token, Waker};
use upslot::config::SecretKey;
use upslot::config::object_store::{GetMode, ObjectStore, PutMode};
use upslot::http::origin::Origin;
use upslot::jid::BareJid;
use upslot::layout::StorePath;
use upslot::now::Now;
use upslot::reactor::shared::{Attempt, Shared};
use upslot::reactor::storage::Storage;
use upslot::s3::bucket::Bucket;
use upslot::store::Store;
use upslot::syncer::Syncer;
use upslot::xmpp::element::Element;
use upslot::xmpp::iq::{self, Identity, StanzaAction};
use upslot::xmpp::stream::{Event, Stream};
use upslot::xmpp::xml::{Reader, XmlEvent};

use crate::bench::Bench;
use crate::common::outcome::Outcome;
use crate::fixtures::{self, JID, NAME, OWNER, SIZE, TYPE};

/// Requests that are received at once.
const BATCH: usize = 64;
/// Numbers of access rules, and the operations that have them.
const RULES: [(usize, &str); 3] = [(0, "policy-0"), (10, "policy-10"), (100, "policy-100")];
const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns:stream='http://etherx.jabber.org/streams' \
                      xmlns='jabber:component:accept' from='upload.example.org' id='3BF96D32'>";
/// A message with a link to a picture, as sent by Conversations.
const MESSAGE: &str = "<message from='romeo@example.org/balcony' to='juliet@example.net' type='chat' \
    id='fa35cd91-9f9b-4c4a-8e67-8f0a3d6b5b6a'><body>https://upload.example.org/a/b/balcony%20at%20night.jpg</body>\
    <x xmlns='jabber:x:oob'><url>https://upload.example.org/a/b/balcony%20at%20night.jpg</url></x>\
    <markable xmlns='urn:xmpp:chat-markers:0'/><request xmlns='urn:xmpp:receipts'/>\
    <origin-id xmlns='urn:xmpp:sid:0' id='fa35cd91-9f9b-4c4a-8e67-8f0a3d6b5b6a'/><store xmlns='urn:xmpp:hints'/></message>";

pub fn run(bench: &mut Bench<'_>) -> Outcome<()> {
    let mut link = Link::open()?;
    let one = request(1);
    bench.case("slot", 1, || {
        link.request_slots(black_box(one.as_bytes()), 1)
    })?;
    let mut link = Link::open()?;
    let batch: String = (0..BATCH).map(request).collect();
    bench.case("slot-64", BATCH, || {
        link.request_slots(black_box(batch.as_bytes()), BATCH)
    })?;
    bench.case("presign-put", 1, presigned()?)?;
    for (rules, name) in RULES {
        let service = fixtures::service(&access(rules))?;
        let request = fixtures::slot_request(OWNER)?;
        bench.case(name, 1, || {
            black_box(service.check_request(black_box(&request))).is_ok()
        })?;
    }
    bench.case("xml-slot-request", 1, read(one.clone())?)?;
    bench.case("xml-message", 1, read(MESSAGE.to_owned())?)
}

/// Signs the PUT URL of a slot.
fn presigned() -> Outcome<impl FnMut() -> bool> {
    let (origin, _) = Origin::split("https://s3.example.org/").ok_or("not an origin")?;
    let mut bucket = Bucket::new(&ObjectStore {
        endpoint: origin.clone(),
        internal_endpoint: origin,
        bucket: "uploads".to_owned(),
        region: "us-east-1".to_owned(),
        prefix: String::new(),
        path_style: true,
        access_key: "AKIAIOSFODNN7EXAMPLE".to_owned(),
        secret_key: SecretKey::new(*b"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
        secret_key_file: None,
        ca_file: None,
        put: PutMode::Direct,
        get: GetMode::Redirect,
        public_url: None,
        sign_content_type: true,
    });
    let now = fixtures::now();
    bucket.set_date(now);
    let request = fixtures::slot_request(OWNER)?;
    let path = StorePath::for_slot(&request.owner, request.purpose.into(), &[7; 15], NAME);
    let path = path.ok_or("not a path")?;
    let lifetime = Duration::from_secs(360);
    Ok(move || {
        let url = bucket.put_url(black_box(&path), SIZE, Some(TYPE), lifetime, now);
        black_box(url).is_some()
    })
}

/// A slot request from slixmpp, as forwarded by the XMPP server.
fn request(id: usize) -> String {
    format!(
        "<iq type='get' id='upload-{id:06}' to='{JID}' from='{OWNER}/balcony'>\
         <request xmlns='urn:xmpp:http:upload:0' filename='{NAME}' size='{SIZE}' content-type='{TYPE}'/></iq>"
    )
}

/// The configuration of access rules, of which only the last matches [`OWNER`].
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

/// Reads a stanza, on a stream that stays open.
fn read(stanza: String) -> Outcome<impl FnMut() -> bool> {
    let mut reader = Reader::new();
    match reader.next_event(&mut HEADER.as_bytes()) {
        Ok(Some(XmlEvent::Opened(_))) => {}
        other => return Err(format!("the stream begins with {other:?}")),
    }
    Ok(move || {
        let mut rest = black_box(stanza.as_bytes());
        let stanza = reader.next_event(&mut rest);
        matches!(black_box(stanza), Ok(Some(XmlEvent::Stanza(_))))
            && matches!(reader.next_event(&mut rest), Ok(None))
    })
}

/// An open link without a socket, and all that decides about slots.
struct Link {
    stream: Stream,
    jid: BareJid,
    shared: Shared,
    now: Now,
    /// Keeps the waker of the syncer valid.
    _poll: Poll,
}

impl Link {
    fn open() -> Outcome<Link> {
        let now = fixtures::now();
        let mut stream = Stream::new(JID.to_owned(), "a secret".to_owned(), now.mono);
        let mut up = None;
        for bytes in [HEADER, "<handshake/>"] {
            stream.received(bytes.as_bytes(), now.mono);
            up = stream.next_event(now.mono);
            let written = stream.output().len();
            stream.wrote(written, now.mono);
        }
        if up != Some(Event::Up) {
            return Err("the link did not come up".to_owned());
        }
        let poll = Poll::new().map_err(|e| e.to_string())?;
        let waker = Waker::new(poll.registry(), Token(0)).map_err(|e| e.to_string())?;
        let mut shared = Shared::new(
            fixtures::config("")?,
            fixtures::service("")?,
            Storage::Folder(Box::new(store()?)),
            Syncer::new(Arc::new(waker)),
            now,
        );
        // Cached: upslot asks for it once a second, not for every slot.
        shared.storage.free_space(now.mono);
        Ok(Link {
            stream,
            jid: BareJid::parse(JID).ok_or("the component's name is not a valid JID")?,
            shared,
            now,
            _poll: poll,
        })
    }

    /// Does what the event loop does when `count` slot requests were received and the link is writable; false unless
    /// all are granted.
    fn request_slots(&mut self, bytes: &[u8], count: usize) -> bool {
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
        // The two URLs of a slot are longer than this.
        granted == count && written > 200 * count
    }

    /// Answers a slot request; false unless it is granted.
    fn answer(&mut self, stanza: Element) -> bool {
        let service = &self.shared.service;
        let identity = Identity {
            jid: &self.jid,
            purposes: service.purposes(),
            contact: &[],
        };
        let answer = iq::route(stanza, identity, self.now.unix(), |requester| {
            service.max_file_size(requester)
        });
        let StanzaAction::Slot(iq) = answer else {
            return false;
        };
        let Ok(request) = &iq.request else {
            return false;
        };
        let checked = self
            .shared
            .check_slot(request, Attempt::default(), self.now);
        let Ok(Some(ready)) = checked else {
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

/// A store whose folder is already removed: nothing is stored in it, and nothing is left behind.
fn store() -> Outcome<Store> {
    let folder = env::temp_dir().join(format!("upslot-micro-{}", process::id()));
    let store = Store::open(&folder, 0o640, 0o750).map_err(|e| e.to_string());
    fs::remove_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    store
}
