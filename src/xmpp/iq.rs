//! What answers which stanza (RFC 6120 §8.2.3).
//!
//! Answered here: service discovery (XEP-0030, with the form of XEP-0363 §3 as XEP-0128 has it), the software's
//! version (XEP-0092) and pings (XEP-0199). A request for a slot is read here and answered by the caller. Any other
//! request is refused, and whatever is no request has no answer. This file knows no policy: the limit that is
//! announced comes from the caller.

use super::element::{COMPONENT, Element, stanza_error};
use super::upload::{self, PURPOSE, SlotIq, UPLOAD, UPLOAD_0, UPLOAD_CONVERSATIONS};
use super::xml::Skipped;
use crate::jid::BareJid;

const DISCO_INFO: &str = "http://jabber.org/protocol/disco#info";
const DISCO_ITEMS: &str = "http://jabber.org/protocol/disco#items";
const PING: &str = "urn:xmpp:ping";
const VERSION: &str = "jabber:iq:version";
const DATA_FORM: &str = "jabber:x:data";
/// The namespace of stanzas on a client's stream, which some server might leave on what it passes on.
const CLIENT: &str = "jabber:client";

/// What the component says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// Our own name.
    pub jid: &'a BareJid,
    /// The words of the purposes that are announced ([`crate::slot::Purpose::word`]).
    pub purposes: &'a [&'a str],
}

/// What to do about a stanza.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Nothing.
    Silence,
    /// Send this.
    Reply(Element),
    /// Decide about this, and send what it makes of the decision.
    Slot(Box<SlotIq>),
}

/// Finds the answer to a stanza. `max_file_size` gives the limit in bytes for who asks; `now` is Unix time in
/// seconds.
///
/// A request whose `from` is missing or no address cannot be answered, nor may one from our own domain: nobody lives
/// there but ourselves.
pub fn route(
    mut stanza: Element,
    identity: Identity<'_>,
    now: u64,
    max_file_size: impl FnOnce(&BareJid) -> u64,
) -> Answer {
    let Some(Addressed {
        asker,
        asked,
        is_get,
        has_id,
        answer,
    }) = address(&mut stanza, identity)
    else {
        return Answer::Silence;
    };
    let error = |answer: Element, kind: &str, condition: &'static str, text: Option<&str>| {
        let error = stanza_error(kind, condition, text);
        Answer::Reply(answer.with("type", "error").with_child(error))
    };
    let bad_request = |answer, text| error(answer, "modify", "bad-request", Some(text));

    let Some(is_get) = is_get else {
        return bad_request(answer, "An iq is of type get, set, result or error.");
    };
    if !has_id {
        return bad_request(answer, "An iq needs an id.");
    }
    let mut payloads = stanza.into_elements();
    let (Some(payload), None) = (payloads.next(), payloads.next()) else {
        return bad_request(answer, "A request has exactly one child element.");
    };

    // People and resources at our domain do not exist, and do not say whether they might.
    if asked == *identity.jid {
        if let Some(namespace) = upload::namespace(&payload) {
            let purposes = identity.purposes;
            let iq = SlotIq::read(payload, namespace, answer, asker, is_get, purposes, now);
            return Answer::Slot(Box::new(iq));
        }
        let has_node = payload.attribute("node").is_some_and(|n| !n.is_empty());
        let result = match (&*payload.name, &*payload.namespace) {
            ("query", DISCO_INFO | DISCO_ITEMS) if is_get && has_node => {
                return error(answer, "cancel", "item-not-found", None);
            }
            ("query", DISCO_INFO) if is_get => Some(Some(info(identity, max_file_size(&asker)))),
            ("query", DISCO_ITEMS) if is_get => Some(Some(Element::new("query", DISCO_ITEMS))),
            ("query", VERSION) if is_get => Some(Some(version())),
            ("ping", PING) if is_get => Some(None),
            _ => None,
        };
        if let Some(payload) = result {
            return Answer::Reply(answer.with("type", "result").with_children(payload));
        }
    }
    error(answer, "cancel", "service-unavailable", None)
}

/// The answer to a stanza that is not read: none, unless it is a request of which enough was seen.
pub fn reject(mut skipped: Skipped, identity: Identity<'_>) -> Option<Element> {
    let addressed = address(&mut skipped.stanza, identity)?;
    if addressed.is_get.is_none() || !addressed.has_id {
        return None;
    }
    let text = format!("The request cannot be read: it has {}.", skipped.why);
    let error = stanza_error("modify", "not-acceptable", Some(&text));
    Some(addressed.answer.with("type", "error").with_child(error))
}

/// An iq that may be answered.
struct Addressed {
    /// The sender.
    asker: BareJid,
    /// The address at our domain that is asked.
    asked: BareJid,
    /// Whether the type is `get` or `set`; `None` when it is neither.
    is_get: Option<bool>,
    has_id: bool,
    /// The answer, addressed but without a type and empty.
    answer: Element,
}

/// Takes from an iq what its answer needs; `None` when it has no answer.
fn address(stanza: &mut Element, identity: Identity<'_>) -> Option<Addressed> {
    if !stanza.is("iq", COMPONENT) && !stanza.is("iq", CLIENT) {
        return None;
    }
    let is_get = match stanza.attribute("type") {
        Some("result" | "error") => return None,
        Some("get") => Some(true),
        Some("set") => Some(false),
        _ => None,
    };
    let from = stanza.take("from")?;
    let asker = BareJid::parse(&from).filter(|asker| asker.domain() != identity.jid.as_str())?;
    let to = stanza.take("to");
    let to = to.unwrap_or_else(|| identity.jid.as_str().to_owned());
    // A server ends the stream of a component that answers in another's name.
    let asked = BareJid::parse(&to).filter(|asked| asked.domain() == identity.jid.as_str())?;
    let id = stanza.take("id");
    let has_id = id.as_ref().is_some_and(|id| !id.is_empty());
    let answer = Element::new("iq", COMPONENT)
        .with_some("id", id)
        .with("from", to)
        .with("to", from);
    Some(Addressed {
        asker,
        asked,
        is_get,
        has_id,
        answer,
    })
}

/// XEP-0363 §3: who we are, what we can, and the limit for who asks.
fn info(identity: Identity<'_>, max_file_size: u64) -> Element {
    let feature = |name: String| Element::new("feature", DISCO_INFO).with("var", name);
    let features = [
        DISCO_INFO,
        DISCO_ITEMS,
        UPLOAD_0,
        UPLOAD,
        UPLOAD_CONVERSATIONS,
        PING,
        VERSION,
    ];
    let purposes = identity.purposes.iter();
    Element::new("query", DISCO_INFO)
        .with_child(
            Element::new("identity", DISCO_INFO)
                .with("category", "store")
                .with("type", "file")
                .with("name", "HTTP File Upload"),
        )
        .with_children(features.map(|name| feature(name.to_owned())))
        .with_children(purposes.map(|word| feature(format!("{PURPOSE}#{word}"))))
        .with_child(limit_form(UPLOAD_0, max_file_size))
        .with_child(limit_form(UPLOAD, max_file_size))
}

/// XEP-0128: a form whose type stands in a hidden field.
fn limit_form(form_type: &str, max_file_size: u64) -> Element {
    let field = |name: &str, value: &str| {
        Element::new("field", DATA_FORM)
            .with("var", name)
            .with_child(Element::new("value", DATA_FORM).with_text(value))
    };
    Element::new("x", DATA_FORM)
        .with("type", "result")
        .with_child(field("FORM_TYPE", form_type).with("type", "hidden"))
        .with_child(field("max-file-size", &max_file_size.to_string()))
}

/// XEP-0092, without the operating system.
fn version() -> Element {
    Element::new("query", VERSION)
        .with_child(Element::new("name", VERSION).with_text("upslot"))
        .with_child(Element::new("version", VERSION).with_text(env!("CARGO_PKG_VERSION")))
}

#[cfg(test)]
mod tests;
