//! The local slot API: how an XMPP server asks for slots over HTTP, and what it is answered.
//!
//! It speaks as django-xmpp-http-upload does, to the letter of its texts, so that ejabberd's `service_url` and scripts
//! written for that service go on working; `application/xml` as an output is an addition, with the elements of
//! XEP-0363 §4 and §8. Bearer tokens are those of RFC 6750, in the header field alone.
//!
//! Pure: who may ask and how much is judged by others. Their judgement stands between the checks of the form and the
//! check of `output`, which comes last:
//!
//! ```text
//!   peer ─▶ bearer ─▶ route ─▶ method ─▶ slot_request ─▶ whitelist, size, totals, rates ─▶ output ─▶ the slot
//!    403      401      404      405          400              402, 403, 413, 415, 507        400       200
//! ```

use std::fmt;

use ring::hmac;

use crate::http::head::Method;
use crate::http::mime;
use crate::http::query::{Query, QueryFault};
use crate::jid::BareJid;
use crate::metrics::{self, Link};
use crate::slot::{Purpose, Refusal, Slot, SlotRequest};

/// The type of every body that is no result.
const PLAIN: &str = "text/plain; charset=utf-8";

/// Labels the two sides of the comparison of tokens. It is no secret: its use is that digests are compared.
const COMPARISON: &[u8] = b"upslot bearer token";

/// What a path of the local listener names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `<prefix>slot/`
    Slot,
    /// `<prefix>max_size/`
    MaxSize,
    /// `/health`
    Health,
    /// `/metrics`
    Metrics,
    /// Nothing.
    Unknown,
}

impl Endpoint {
    /// Whether the method is served. HEAD is not for slots, because its answer would be lost and the slot counted.
    pub fn takes(self, method: Method) -> bool {
        match method {
            Method::Get => true,
            Method::Head => self != Endpoint::Slot,
            _ => false,
        }
    }

    /// The value of `Allow`.
    fn allow(self) -> &'static str {
        match self {
            Endpoint::Slot => "GET",
            _ => "GET, HEAD",
        }
    }
}

/// What `path`, as it was sent, names. `prefix` begins and ends with `/`. Each endpoint has one spelling only: no
/// percent-encoding, no doubled slash, and `slot/` and `max_size/` not without their last.
pub fn route(prefix: &str, path: &[u8]) -> Endpoint {
    match path {
        b"/health" => return Endpoint::Health,
        b"/metrics" => return Endpoint::Metrics,
        _ => {}
    }
    match path.strip_prefix(prefix.as_bytes()) {
        Some(b"slot/") => Endpoint::Slot,
        Some(b"max_size/") => Endpoint::MaxSize,
        _ => Endpoint::Unknown,
    }
}

/// In which form a result is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    #[default]
    Text,
    Json,
    Xml,
}

impl Output {
    fn parse(query: &Query) -> Result<Output, ApiRefusal> {
        match query.get("output") {
            None | Some("text/plain") => Ok(Output::Text),
            Some("application/json") => Ok(Output::Json),
            Some("application/xml") => Ok(Output::Xml),
            Some(_) => Err(ApiRefusal::Output),
        }
    }

    /// The `Content-Type` of the result: the word that asks for it, and no more.
    fn content_type(self) -> &'static str {
        match self {
            Output::Text => "text/plain",
            Output::Json => "application/json",
            Output::Xml => "application/xml",
        }
    }
}

/// Why a request to the API is wrong in itself; the status is always 400. The `Display` is for the log: where the
/// original sends an empty body, this still says what is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiRefusal {
    Query(QueryFault),
    /// A parameter that must be there is not.
    Missing(&'static str),
    /// The size is no integer.
    Size,
    /// The JID, the size or the cleaned name is empty, or the size not positive.
    Empty,
    /// The JID is no address.
    Address,
    /// There is no such output.
    Output,
}

impl ApiRefusal {
    /// The body.
    fn text(&self) -> String {
        match self {
            ApiRefusal::Missing(_) | ApiRefusal::Size => String::new(),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for ApiRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ApiRefusal::Query(fault) => fault.fmt(f),
            ApiRefusal::Missing(name) => write!(f, "The parameter {name} is missing."),
            ApiRefusal::Size => f.write_str("The size is not an integer."),
            ApiRefusal::Empty => f.write_str("Empty JID or size passed."),
            ApiRefusal::Address => f.write_str("The JID is not an address."),
            ApiRefusal::Output => f.write_str("Unsupported content type in output."),
        }
    }
}

/// A slot request whose form is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotAsked {
    /// With a cleaned name and the purpose `message`: the API has no word for another.
    pub request: SlotRequest,
    /// To be looked at when the slot would be granted, and before anything is counted.
    pub output: Result<Output, ApiRefusal>,
}

/// Reads `jid`, `name`, `size`, `type` or `content_type`, and `output`. `query` is what follows the `?`.
pub fn slot_request(query: &[u8]) -> Result<SlotAsked, ApiRefusal> {
    let query = Query::parse(query).map_err(ApiRefusal::Query)?;
    let needed = |name| query.get(name).ok_or(ApiRefusal::Missing(name));
    let (jid, name, size) = (needed("jid")?, needed("name")?, needed("size")?);
    let size = integer(size).ok_or(ApiRefusal::Size)?;
    let name = valid_name(name);
    if jid.is_empty() || name.is_empty() || size == 0 {
        return Err(ApiRefusal::Empty);
    }
    Ok(SlotAsked {
        request: SlotRequest {
            owner: address(jid)?,
            name,
            size,
            content_type: content_type(&query),
            purpose: Purpose::Message,
        },
        output: Output::parse(&query),
    })
}

/// A question for the largest file, whose form is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaxSizeAsked {
    pub jid: BareJid,
    /// To be looked at after it is known that the JID may upload.
    pub output: Result<Output, ApiRefusal>,
}

/// Reads `jid` and `output`.
pub fn max_size_request(query: &[u8]) -> Result<MaxSizeAsked, ApiRefusal> {
    let query = Query::parse(query).map_err(ApiRefusal::Query)?;
    let jid = query.get("jid").ok_or(ApiRefusal::Missing("jid"))?;
    Ok(MaxSizeAsked {
        jid: address(jid)?,
        output: Output::parse(&query),
    })
}

/// One answer of the API. It is never cached, and carries no CORS fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub content_type: &'static str,
    /// A field that belongs to the status: `Allow` or `WWW-Authenticate`.
    pub field: Option<(&'static str, &'static str)>,
    /// To be sent as it is; the peer may compare it, so no line end is added.
    pub body: String,
}

impl Reply {
    fn plain(status: u16, body: impl Into<String>) -> Reply {
        Reply {
            status,
            content_type: PLAIN,
            field: None,
            body: body.into(),
        }
    }

    fn result(output: Output, body: String) -> Reply {
        Reply {
            content_type: output.content_type(),
            ..Reply::plain(200, body)
        }
    }

    /// The slot, in the form that was asked for.
    pub fn granted(slot: &Slot, output: Output) -> Reply {
        let Slot { put, get } = slot;
        let body = match output {
            Output::Text => format!("{put}\n{get}"),
            Output::Json => format!("{{\"get\": {}, \"put\": {}}}", Json(get), Json(put)),
            Output::Xml => format!(
                "<slot xmlns=\"urn:xmpp:http:upload:0\"><put url=\"{}\"/><get url=\"{}\"/></slot>",
                Xml(put),
                Xml(get)
            ),
        };
        Reply::result(output, body)
    }

    /// Bytes of the largest file; 0 is no limit.
    pub fn max_size(bytes: u64, output: Output) -> Reply {
        let body = match output {
            Output::Text => bytes.to_string(),
            Output::Json => format!("{{\"max_size\": {bytes}}}"),
            Output::Xml => {
                format!("<max-file-size xmlns=\"urn:xmpp:http:upload:0\">{bytes}</max-file-size>")
            }
        };
        Reply::result(output, body)
    }

    /// The request is wrong in itself.
    pub fn malformed(refusal: &ApiRefusal) -> Reply {
        Reply::plain(400, refusal.text())
    }

    /// The slot, or the largest size, is refused.
    pub fn refused(refusal: &Refusal) -> Reply {
        let (status, text) = status_and_text(refusal);
        Reply::plain(status, text)
    }

    /// The peer's address is not on the list.
    pub fn stranger() -> Reply {
        Reply::plain(403, "This address may not use the local API.")
    }

    /// No token, or a wrong one (RFC 6750 §3); `header` as for [`authorised`].
    pub fn unauthorised(header: Option<&[u8]>) -> Reply {
        // RFC 6750 §3.1: a client that shows nothing is told nothing but how to.
        let challenge = match header {
            None => "Bearer realm=\"upslot\"",
            Some(_) => "Bearer realm=\"upslot\", error=\"invalid_token\"",
        };
        Reply {
            field: Some(("WWW-Authenticate", challenge)),
            ..Reply::plain(401, "The local API needs its bearer token.")
        }
    }

    /// There is nothing of this name.
    pub fn not_found() -> Reply {
        Reply::plain(404, "There is nothing here.")
    }

    /// The endpoint is not for this method.
    pub fn method(endpoint: Endpoint) -> Reply {
        Reply {
            field: Some(("Allow", endpoint.allow())),
            ..Reply::plain(405, format!("Only {} is served here.", endpoint.allow()))
        }
    }

    /// Whether the service can do its work: 200 or 503, and one line for each part.
    pub fn health(health: Health) -> Reply {
        let link = match health.link {
            Link::None => "none",
            Link::Up => "up",
            Link::Down => "down",
        };
        let store = match health.store {
            StoreHealth::Good => "good",
            StoreHealth::Full => "full",
            StoreHealth::Failing => "failing",
        };
        let good = health.link != Link::Down && health.store == StoreHealth::Good;
        let body = format!("link {link}\nstore {store}\n");
        Reply::plain(if good { 200 } else { 503 }, body)
    }

    /// What [`metrics::Metrics::expose`] has written.
    pub fn metrics(page: String) -> Reply {
        Reply {
            content_type: metrics::CONTENT_TYPE,
            ..Reply::plain(200, page)
        }
    }
}

/// What `/health` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    pub link: Link,
    pub store: StoreHealth,
}

/// How the store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreHealth {
    Good,
    /// The disk, or the quota of all files, leaves no room for uploads.
    Full,
    /// The last attempt to use it failed.
    Failing,
}

/// The status and the body of a refused slot. Where the original knows the reason, both are its own; ejabberd makes
/// resource-constraint of 402, not-allowed of 403, not-acceptable of 413, and service-unavailable of all else.
pub fn status_and_text(refusal: &Refusal) -> (u16, String) {
    match refusal {
        Refusal::Malformed(how) => (400, how.clone()),
        Refusal::NotAllowed { .. } => (403, "You are not allowed to upload files.".to_owned()),
        Refusal::TooLarge { limit, .. } => {
            (413, format!("Files may not be larger than {limit} bytes."))
        }
        Refusal::TypeNotAllowed { .. } => (415, refusal.to_string()),
        Refusal::OwnerQuota { limit, .. } => {
            (403, format!("User may not upload more than {limit} bytes."))
        }
        Refusal::Rate { .. } => (402, "User is temporarily out of quota.".to_owned()),
        Refusal::GlobalQuota { .. } | Refusal::FreeSpace { .. } => (507, refusal.to_string()),
        Refusal::Busy => (503, refusal.to_string()),
    }
}

/// Whether the value of `Authorization` carries the token (RFC 6750 §2.1). The comparison takes the same time
/// wherever two tokens differ.
pub fn authorised(header: Option<&[u8]>, token: &str) -> bool {
    let Some((scheme, rest)) = header.and_then(|header| header.split_at_checked(6)) else {
        return false;
    };
    let shown = rest.trim_ascii_start();
    if !scheme.eq_ignore_ascii_case(b"bearer") || shown.len() == rest.len() || token.is_empty() {
        return false;
    }
    let key = hmac::Key::new(hmac::HMAC_SHA256, COMPARISON);
    let tag = hmac::sign(&key, token.as_bytes());
    hmac::verify(&key, shown, tag.as_ref()).is_ok()
}

/// An integer as the original reads it: blanks around it and a sign are fine. Negative is 0, and what no number holds
/// is the largest one: the checks that follow treat them alike.
fn integer(text: &str) -> Option<u64> {
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // Only too many digits can make it fail.
    let size = digits.parse().unwrap_or(u64::MAX);
    Some(if negative { 0 } else { size })
}

/// The owner; control characters are dropped, as the original does.
fn address(jid: &str) -> Result<BareJid, ApiRefusal> {
    let jid: String = jid.chars().filter(|c| !c.is_control()).collect();
    BareJid::parse(&jid).ok_or(ApiRefusal::Address)
}

/// `type`, which the original reads, before `content_type`, which it documents. ejabberd always sends the latter, and
/// puts `application/octet-stream` where the client named none.
fn content_type(query: &Query) -> Option<String> {
    let said = |name| query.get(name).map(str::trim).filter(|t| !t.is_empty());
    let documented = || said("content_type").filter(|t| mime::essence(t) != mime::UNKNOWN);
    said("type").or_else(documented).map(str::to_owned)
}

/// The name as Django's `get_valid_filename` leaves it: trimmed, blanks to `_`, and of the rest only letters and
/// digits of any script, `_`, `-` and `.`. A `_` stands for what was there and left nothing before the extension, as of
/// an emoji, so that neither the slot nor the extension is lost. Empty for a name such as `/` or `..`.
fn valid_name(name: &str) -> String {
    let kept = |c: char| match c {
        ' ' => Some('_'),
        '_' | '-' | '.' => Some(c),
        c => c.is_alphanumeric().then_some(c),
    };
    let something = |c: &char| !(*c == '/' || c.is_whitespace() || c.is_control());
    if matches!(
        &*name.chars().filter(something).collect::<String>(),
        "" | "." | ".."
    ) {
        return String::new();
    }
    let cleaned: String = name.trim().chars().filter_map(kept).collect();
    match cleaned.trim_end_matches('.') {
        "" => "_".to_owned(),
        _ if cleaned.starts_with('.') => format!("_{cleaned}"),
        _ => cleaned,
    }
}

/// A string of JSON, in quotes (RFC 8259 §7).
struct Json<'a>(&'a str);

impl fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for c in self.0.chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c))?,
                c => write!(f, "{c}")?,
            }
        }
        f.write_str("\"")
    }
}

/// The value of an attribute, for between its quotes (XML 1.0 §2.3). What XML cannot hold is replaced.
struct Xml<'a>(&'a str);

impl fmt::Display for Xml<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&apos;")?,
                c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {
                    f.write_str("\u{fffd}")?;
                }
                c => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
