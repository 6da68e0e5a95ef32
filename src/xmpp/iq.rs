//! Routes incoming stanzas (RFC 6120 §8.2.3).
//!
//! This module replies to service discovery (XEP-0030, with the data forms of XEP-0363 §3 and XEP-0157 per XEP-0128),
//! software version (XEP-0092) and ping (XEP-0199). It parses slot requests and commands, which the caller decides. Any
//! other request is refused with an error; a stanza that is not a request gets no reply. There is no policy here: the
//! announced limit comes from the caller.

use super::adhoc::{COMMANDS, CommandIq, DISCO_INFO, DISCO_ITEMS, NodeIq};
use super::element::{COMPONENT, Element, stanza_error};
use super::form::{DATA_FORM, Form};
use super::upload::{self, PURPOSE, SlotIq, UPLOAD, UPLOAD_0, UPLOAD_CONVERSATIONS};
use super::xml::Skipped;
use crate::jid::BareJid;

const PING: &str = "urn:xmpp:ping";
const VERSION: &str = "jabber:iq:version";
const SERVER_INFO: &str = "http://jabber.org/network/serverinfo";
/// The namespace of stanzas on client streams, in case a server forwards them without changing it.
const CLIENT: &str = "jabber:client";

/// What the component announces about itself.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// The component's address.
    pub jid: &'a BareJid,
    /// The words of the supported purposes ([`crate::purpose::Purpose::word`]).
    pub purposes: &'a [&'a str],
    /// URIs of the operator's contact addresses; none are announced if it is empty.
    pub contact: &'a [String],
}

/// What to do with a stanza.
#[derive(Clone, Debug)]
pub enum StanzaAction {
    /// Nothing.
    Ignore,
    /// Send this.
    Reply(Element),
    /// Decide on this slot request, and send the reply that it makes of the decision.
    Slot(Box<SlotIq>),
    /// Execute this command, and send the reply that it makes of the result.
    Command(Box<CommandIq>),
    /// Send the reply that this request makes of the commands that the requester may use.
    Node(Box<NodeIq>),
}

/// Routes a stanza. `max_file_size` returns the limit of a requester in bytes; `now` is Unix time in seconds.
///
/// A request whose `from` is missing or invalid cannot be answered. A request from the component's own domain is
/// ignored, because no user has an address there; it could only be an echo of one of our own stanzas.
pub fn route(
    mut stanza: Element,
    identity: Identity<'_>,
    now: u64,
    max_file_size: impl FnOnce(&BareJid) -> u64,
) -> StanzaAction {
    let Some(Addressed {
        requester,
        is_for_component,
        is_get,
        has_id,
        reply,
    }) = address(&mut stanza, identity)
    else {
        return StanzaAction::Ignore;
    };
    let error = |reply: Element, kind: &str, condition: &'static str, text: Option<&str>| {
        let error = stanza_error(kind, condition, text);
        StanzaAction::Reply(reply.with("type", "error").with_child(error))
    };
    let bad_request = |reply, text| error(reply, "modify", "bad-request", Some(text));

    let Some(is_get) = is_get else {
        return bad_request(reply, "An iq is of type get, set, result or error.");
    };
    if !has_id {
        return bad_request(reply, "An iq needs an id.");
    }
    let mut payloads = stanza.into_elements();
    let (Some(payload), None) = (payloads.next(), payloads.next()) else {
        return bad_request(reply, "A request has exactly one child element.");
    };

    // Users and resources at our domain do not exist; each gets the same error.
    if !is_for_component {
        return error(reply, "cancel", "service-unavailable", None);
    }
    if let Some(namespace) = upload::namespace(&payload) {
        let purposes = identity.purposes;
        let iq = SlotIq::read(payload, namespace, reply, requester, is_get, purposes, now);
        return StanzaAction::Slot(Box::new(iq));
    }
    let has_node = payload.attribute("node").is_some_and(|n| !n.is_empty());
    let result = match (&*payload.name, &*payload.namespace) {
        ("query", DISCO_INFO | DISCO_ITEMS) if is_get && has_node => {
            return StanzaAction::Node(Box::new(NodeIq::read(payload, reply, requester)));
        }
        ("command", COMMANDS) if !is_get => {
            return StanzaAction::Command(Box::new(CommandIq::read(payload, reply, requester)));
        }
        ("query", DISCO_INFO) if is_get => Some(info(identity, max_file_size(&requester))),
        ("query", DISCO_ITEMS) if is_get => Some(Element::new("query", DISCO_ITEMS)),
        ("query", VERSION) if is_get => Some(version()),
        ("ping", PING) if is_get => None,
        _ => return error(reply, "cancel", "service-unavailable", None),
    };
    StanzaAction::Reply(reply.with("type", "result").with_children(result))
}

/// The error reply to a skipped stanza; `None` unless it is a request with enough known of it for a reply.
pub fn reject(mut skipped: Skipped, identity: Identity<'_>) -> Option<Element> {
    let addressed = address(&mut skipped.stanza, identity)?;
    if addressed.is_get.is_none() || !addressed.has_id {
        return None;
    }
    let text = format!("The request was not parsed: it has {}.", skipped.why);
    let error = stanza_error("modify", "not-acceptable", Some(&text));
    Some(addressed.reply.with("type", "error").with_child(error))
}

/// An iq that may get a reply.
struct Addressed {
    /// The sender.
    requester: BareJid,
    /// Whether it was sent to the component itself, not to a user at our domain.
    is_for_component: bool,
    /// Whether the type is `get` or `set`; `None` when it is neither.
    is_get: Option<bool>,
    has_id: bool,
    /// The reply: addressed, but without a type and children.
    reply: Element,
}

/// Extracts from an iq what a reply needs; `None` when it gets no reply.
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
    let domain = identity.jid.as_str();
    let requester = BareJid::parse(&from).filter(|requester| requester.domain() != domain)?;
    let to = stanza.take("to");
    let to = to.unwrap_or_else(|| domain.to_owned());
    let is_for_component = to == domain || {
        // A server closes the stream of a component that sends from an address outside its domain.
        let recipient = BareJid::parse(&to).filter(|recipient| recipient.domain() == domain)?;
        recipient == *identity.jid
    };
    let id = stanza.take("id");
    let has_id = id.as_ref().is_some_and(|id| !id.is_empty());
    let reply = Element::new("iq", COMPONENT)
        .with_some("id", id)
        .with("from", to)
        .with("to", from);
    Some(Addressed {
        requester,
        is_for_component,
        is_get,
        has_id,
        reply,
    })
}

/// XEP-0363 §3: identity, features, and the limit for the requester.
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
        COMMANDS,
        DATA_FORM,
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
        .with_children(contact_form(identity.contact))
}

/// XEP-0157: the same addresses for each role that people look for; `None` without an address.
fn contact_form(contact: &[String]) -> Option<Element> {
    let roles = ["abuse-addresses", "admin-addresses", "support-addresses"];
    let fill = |form: Form, role| form.list(role, contact.iter().map(String::as_str));
    let form = || roles.into_iter().fold(Form::result(SERVER_INFO), fill);
    (!contact.is_empty()).then(|| form().into_element())
}

/// XEP-0128: a form whose type is in a hidden field.
fn limit_form(form_type: &str, max_file_size: u64) -> Element {
    Form::result(form_type)
        .value("max-file-size", &max_file_size.to_string())
        .into_element()
}

/// XEP-0092, without the optional operating system.
fn version() -> Element {
    Element::new("query", VERSION)
        .with_child(Element::new("name", VERSION).with_text("upslot"))
        .with_child(Element::new("version", VERSION).with_text(env!("CARGO_PKG_VERSION")))
}

#[cfg(test)]
mod tests;
