//! XMPP syntax of slot requests, slots and refusals (XEP-0363 v1.2, and its two older namespaces).
//!
//! A request uses one of two syntaxes, attributes or child elements, and one of three namespaces. Either syntax is
//! accepted in any namespace, and the reply uses the namespace and syntax of the request. This module only checks that a
//! request is well-formed; it applies no policy.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::element::{Element, stanza_error};
use super::syntax::SPACE;
use crate::decimal;
use crate::jid::BareJid;
use crate::now;
use crate::purpose::Purpose;
use crate::refusal::Refusal;
use crate::slot::{Slot, SlotRequest};

/// The namespace since XEP-0363 v0.3.
pub const UPLOAD_0: &str = "urn:xmpp:http:upload:0";
/// The namespace of XEP-0363 v0.1 and v0.2.
pub const UPLOAD: &str = "urn:xmpp:http:upload";
/// The namespace used before there was a XEP.
pub const UPLOAD_CONVERSATIONS: &str = "eu:siacs:conversations:http:upload";
/// Namespace of purpose elements (XEP-0363 §5).
pub const PURPOSE: &str = "urn:xmpp:http:upload:purpose:0";

/// Largest request element that is kept while the request is pending and repeated in an error, in bytes. Usual requests
/// are far smaller; a large one may need many times its size when it is written again ([`Element::weight`]).
const MAX_ECHO: usize = 4 * 1024;

/// Namespace and syntax of the request, which the reply uses as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Dialect {
    namespace: &'static str,
    syntax: Syntax,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Syntax {
    Attributes,
    Elements,
}

/// A slot request with the information for the reply, which is made by [`granted`](SlotIq::granted) or
/// [`refused`](SlotIq::refused).
#[derive(Clone, Debug)]
pub struct SlotIq {
    /// The requester.
    pub owner: BareJid,
    /// The request, or why it is malformed.
    pub request: Result<SlotRequest, Refusal>,
    dialect: Dialect,
    /// The reply: addressed, but without a type and children.
    reply: Element,
    /// The request's element, which an error repeats; `None` if it is larger than [`MAX_ECHO`].
    echo: Option<Element>,
}

/// The namespace of a slot request; `None` if `payload` is not one.
pub fn namespace(payload: &Element) -> Option<&'static str> {
    [UPLOAD_0, UPLOAD, UPLOAD_CONVERSATIONS]
        .into_iter()
        .find(|namespace| payload.is("request", namespace))
}

impl SlotIq {
    /// Parses a request. `payload` is the child of the iq, and `namespace` the result of [`namespace`] for it. `reply` is
    /// addressed but empty. `is_get` is whether the iq has the type `get`, `purposes` are the words of the supported
    /// purposes, and `now` is Unix time in seconds.
    pub fn read(
        payload: Element,
        namespace: &'static str,
        reply: Element,
        owner: BareJid,
        is_get: bool,
        purposes: &[&str],
        now: u64,
    ) -> SlotIq {
        let dialect = Dialect {
            namespace,
            syntax: syntax(&payload, namespace),
        };
        let request = match is_get {
            true => parse(&payload, dialect, &owner, purposes, now),
            false => Err(malformed("A slot request is an iq of type get.")),
        };
        SlotIq {
            owner,
            request,
            dialect,
            reply,
            echo: (payload.weight() <= MAX_ECHO).then_some(payload),
        }
    }

    /// The reply with the slot.
    pub fn granted(self, slot: Slot) -> Element {
        let url = |name: &'static str, url: String| {
            let element = Element::new(name, self.dialect.namespace);
            match self.dialect.syntax {
                Syntax::Attributes => element.with("url", url),
                Syntax::Elements => element.with_text(url),
            }
        };
        self.reply.with("type", "result").with_child(
            Element::new("slot", self.dialect.namespace)
                .with_child(url("put", slot.put))
                .with_child(url("get", slot.get)),
        )
    }

    /// The error reply for a refusal.
    pub fn refused(self, refusal: &Refusal) -> Element {
        self.reply
            .with("type", "error")
            .with_children(self.echo)
            .with_child(refusal_error(refusal, self.dialect.namespace))
    }
}

/// Maps a refusal to a stanza error (XEP-0363 §6; RFC 6120 §8.3.3).
fn refusal_error(refusal: &Refusal, namespace: &'static str) -> Element {
    let (kind, condition, detail) = match refusal {
        Refusal::Malformed(_) => ("modify", "bad-request", None),
        Refusal::NotAllowed { .. } => match namespace {
            UPLOAD_0 => ("auth", "forbidden", None),
            _ => ("cancel", "not-allowed", None),
        },
        Refusal::TooLarge { limit, .. } => {
            let max = Element::new("max-file-size", namespace).with_text(limit.to_string());
            let detail = Element::new("file-too-large", namespace).with_child(max);
            ("modify", "not-acceptable", Some(detail))
        }
        Refusal::TypeNotAllowed { .. } => ("modify", "not-acceptable", None),
        Refusal::OwnerQuota { retry, .. } | Refusal::Rate { retry, .. } => {
            let detail =
                retry.map(|at| Element::new("retry", UPLOAD_0).with("stamp", format_date_time(at)));
            ("wait", "resource-constraint", detail)
        }
        Refusal::GlobalQuota { .. } | Refusal::FreeSpace { .. } | Refusal::Busy => {
            ("wait", "resource-constraint", None)
        }
    };
    stanza_error(kind, condition, Some(&refusal.to_string())).with_children(detail)
}

fn malformed(sentence: impl Into<String>) -> Refusal {
    Refusal::Malformed(sentence.into())
}

/// The syntax of a request. If a request has no known field, the syntax that its namespace specifies is assumed.
fn syntax(request: &Element, namespace: &str) -> Syntax {
    let names = ["filename", "size"];
    if names.iter().any(|name| request.attribute(name).is_some()) {
        Syntax::Attributes
    } else if names
        .iter()
        .any(|name| request.child(name, namespace).is_some())
        || namespace != UPLOAD_0
    {
        Syntax::Elements
    } else {
        Syntax::Attributes
    }
}

/// Checks the form of a request and extracts its fields.
fn parse(
    request: &Element,
    dialect: Dialect,
    owner: &BareJid,
    purposes: &[&str],
    now: u64,
) -> Result<SlotRequest, Refusal> {
    let field = |name: &str| match dialect.syntax {
        Syntax::Attributes => request.attribute(name).map(Cow::Borrowed),
        Syntax::Elements => request
            .child(name, dialect.namespace)
            .map(|child| Cow::Owned(trim(&child.text()).to_owned())),
    };
    let name = field("filename")
        .filter(|name| !trim(name).is_empty())
        .ok_or_else(|| malformed("The file name is missing or empty."))?;
    let size = field("size").ok_or_else(|| malformed("The file size is missing."))?;
    let content_type = field("content-type")
        .map(|content_type| trim(&content_type).to_owned())
        .filter(|content_type| !content_type.is_empty());
    Ok(SlotRequest {
        owner: owner.clone(),
        name: name.into_owned(),
        size: read_size(&size)?,
        content_type,
        purpose: read_purpose(request, purposes, now)?,
    })
}

/// Parses a positive number of bytes. A number that does not fit 64 bits becomes the largest that does, so that the
/// error states the size limit and not a syntax error.
fn read_size(text: &str) -> Result<u64, Refusal> {
    let size = decimal::parse_saturating(trim(text).as_bytes());
    match size.ok_or_else(|| malformed("The file size is not a number of bytes."))? {
        0 => Err(malformed(
            "The file is empty; only files of at least one byte are accepted.",
        )),
        size => Ok(size),
    }
}

/// Parses the purpose (XEP-0363 §5). The default is `message`, which is always accepted.
fn read_purpose(request: &Element, purposes: &[&str], now: u64) -> Result<Purpose, Refusal> {
    let mut named = request
        .elements()
        .filter(|child| *child.namespace == *PURPOSE);
    let Some(element) = named.next() else {
        return Ok(Purpose::Message);
    };
    if named.next().is_some() {
        return Err(malformed("More than one purpose is given."));
    }
    let purpose = match &*element.name {
        "message" => return Ok(Purpose::Message),
        "profile" => Purpose::Profile,
        "permanent" => Purpose::Permanent,
        "ephemeral" => Purpose::Ephemeral {
            expire_before: read_expire_before(element, now)?,
        },
        _ => return Err(malformed("The purpose is unknown.")),
    };
    if !purposes.contains(&purpose.word()) {
        return Err(malformed(format!(
            "The purpose {} is not offered here.",
            purpose.word()
        )));
    }
    Ok(purpose)
}

/// The Unix second by which an ephemeral file must be deleted; fractions are cut off.
fn read_expire_before(element: &Element, now: u64) -> Result<u64, Refusal> {
    let stamp = element
        .attribute("expire-before")
        .ok_or_else(|| malformed("The purpose ephemeral needs the attribute expire-before."))?;
    let seconds = parse_date_time(trim(stamp)).ok_or_else(|| {
        malformed("expire-before is not a date and time such as 2026-12-31T23:59:59Z (XEP-0082).")
    })?;
    match u64::try_from(seconds) {
        Ok(seconds) if seconds > now => Ok(seconds),
        _ => Err(malformed("expire-before is in the past.")),
    }
}

/// Trims the white space of XML only: names may begin with other white space.
fn trim(text: &str) -> &str {
    text.trim_matches(SPACE)
}

/// Unix time of an XEP-0082 DateTime, `CCYY-MM-DDThh:mm:ss[.sss]TZD`, in whole seconds, fractions cut off.
fn parse_date_time(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let number = |from: usize, digits: usize| decimal::parse(bytes.get(from..from + digits)?);
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if separators
        .iter()
        .any(|(at, separator)| bytes.get(*at) != Some(separator))
    {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);

    let mut zone = 19;
    if bytes.get(zone) == Some(&b'.') {
        let digits = bytes[zone + 1..].iter().take_while(|b| b.is_ascii_digit());
        let digits = digits.count();
        if digits == 0 {
            return None;
        }
        zone += 1 + digits;
    }
    let offset = match bytes.get(zone)? {
        b'Z' if bytes.len() == zone + 1 => 0,
        sign @ (b'+' | b'-') if bytes.len() == zone + 6 && bytes[zone + 3] == b':' => {
            let (hours, minutes) = (number(zone + 1, 2)?, number(zone + 4, 2)?);
            // XML Schema Part 2 §3.2.7.3: at most 14 hours.
            if minutes > 59 || hours * 60 + minutes > 14 * 60 {
                return None;
            }
            let offset = i64::try_from(hours * 3600 + minutes * 60).ok()?;
            if *sign == b'+' { offset } else { -offset }
        }
        _ => return None,
    };
    Some(now::unix_from_civil([year, month, day, hour, minute, second])? - offset)
}

/// Formats an XEP-0082 DateTime in UTC. Fractions are rounded up, so that a retry at this time is not too early.
fn format_date_time(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs() + u64::from(since.subsec_nanos() > 0);
    now::date_time(UNIX_EPOCH + Duration::from_secs(seconds.min(now::LAST_SECOND)))
}

#[cfg(test)]
mod tests;
