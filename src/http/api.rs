//! The local slot API, through which an XMPP server requests slots over HTTP.
//!
//! It is compatible with django-xmpp-http-upload down to the response texts, so that ejabberd's `service_url` and
//! scripts written for that service keep working. The output `application/xml`, with the elements of XEP-0363 §4 and §8,
//! is an addition. Bearer tokens (RFC 6750) are accepted in the header field only.
//!
//! This module applies no policy: the caller checks permissions and limits after the syntax of the request and before
//! `output`:
//!
//! ```text
//!   peer ─▶ bearer ─▶ route ─▶ method ─▶ slot_request ─▶ whitelist, size, totals, rates ─▶ output ─▶ the slot
//!    403      401      404      405          400              402, 403, 413, 415, 507        400       200
//! ```

use std::fmt;

use ring::hmac;

use crate::decimal;
use crate::http::head::Method;
use crate::http::mime;
use crate::http::query::{Query, QueryError};
use crate::http::syntax::bearer_token;
use crate::jid::BareJid;
use crate::metrics::{self, LinkStatus};
use crate::purpose::Purpose;
use crate::refusal::Refusal;
use crate::slot::{Slot, SlotRequest};

/// The type of every body that is not a result.
const PLAIN: &str = "text/plain; charset=utf-8";

/// Key of the HMAC with which tokens are compared. It need not be secret, because only digests of equal length are
/// compared.
const COMPARISON: &[u8] = b"upslot bearer token";

/// An endpoint of the local listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiRoute {
    /// `<prefix>slot/`
    Slot,
    /// `<prefix>max_size/`
    MaxSize,
    /// `/health`
    Health,
    /// `/metrics`
    Metrics,
    /// Any other path.
    Unknown,
}

impl ApiRoute {
    /// Whether the method is allowed. HEAD is not allowed for slots: the slot would be counted, but its URLs lost.
    pub fn takes(self, method: Method) -> bool {
        match method {
            Method::Get => true,
            Method::Head => self != ApiRoute::Slot,
            _ => false,
        }
    }

    /// The value of `Allow`.
    fn allow(self) -> &'static str {
        match self {
            ApiRoute::Slot => "GET",
            _ => "GET, HEAD",
        }
    }
}

/// The endpoint of `path`, which is compared as sent. `prefix` begins and ends with `/`. Each endpoint has exactly one
/// spelling: percent-encoding, doubled slashes, and a missing slash after `slot` or `max_size` do not match.
pub fn route(prefix: &str, path: &[u8]) -> ApiRoute {
    match path {
        b"/health" => return ApiRoute::Health,
        b"/metrics" => return ApiRoute::Metrics,
        _ => {}
    }
    match path.strip_prefix(prefix.as_bytes()) {
        Some(b"slot/") => ApiRoute::Slot,
        Some(b"max_size/") => ApiRoute::MaxSize,
        _ => ApiRoute::Unknown,
    }
}

/// The format of a result.
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

    /// The `Content-Type` of the result: the value of `output`, without parameters.
    fn content_type(self) -> &'static str {
        match self {
            Output::Text => "text/plain",
            Output::Json => "application/json",
            Output::Xml => "application/xml",
        }
    }
}

/// Why a request to the API is malformed; the status is always 400. The `Display` is for the log; it names the cause even
/// where the body is empty, as in django-xmpp-http-upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiRefusal {
    Query(QueryError),
    /// A required parameter is missing.
    Missing(&'static str),
    /// The size is not an integer.
    Size,
    /// The JID, the size or the cleaned name is empty, or the size is not positive.
    Empty,
    /// The JID is invalid.
    Address,
    /// The output is not supported.
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

/// A well-formed slot request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotQuery {
    /// With a cleaned name and the purpose `message`, since the API has no parameter for the purpose.
    pub request: SlotRequest,
    /// To be checked after all other checks and before the slot is counted.
    pub output: Result<Output, ApiRefusal>,
}

/// Parses `jid`, `name`, `size`, `type` or `content_type`, and `output`. `query` is the part after the `?`.
pub fn slot_request(query: &[u8]) -> Result<SlotQuery, ApiRefusal> {
    let query = Query::parse(query).map_err(ApiRefusal::Query)?;
    let needed = |name| query.get(name).ok_or(ApiRefusal::Missing(name));
    let (jid, name, size) = (needed("jid")?, needed("name")?, needed("size")?);
    let size = integer(size).ok_or(ApiRefusal::Size)?;
    let name = valid_name(name);
    if jid.is_empty() || name.is_empty() || size == 0 {
        return Err(ApiRefusal::Empty);
    }
    Ok(SlotQuery {
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

/// A well-formed request for the maximum file size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaxSizeQuery {
    pub jid: BareJid,
    /// To be checked after the check that the JID may upload.
    pub output: Result<Output, ApiRefusal>,
}

/// Parses `jid` and `output`.
pub fn max_size_request(query: &[u8]) -> Result<MaxSizeQuery, ApiRefusal> {
    let query = Query::parse(query).map_err(ApiRefusal::Query)?;
    let jid = query.get("jid").ok_or(ApiRefusal::Missing("jid"))?;
    Ok(MaxSizeQuery {
        jid: address(jid)?,
        output: Output::parse(&query),
    })
}

/// A response of the API. It must not be cached and has no CORS fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub content_type: &'static str,
    /// A field required by the status: `Allow` or `WWW-Authenticate`.
    pub field: Option<(&'static str, &'static str)>,
    /// Sent unchanged, without a final line break, because peers may compare it.
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

    /// The slot in the requested format.
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

    /// The maximum file size in bytes; 0 means no limit.
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

    /// The request is malformed.
    pub fn malformed(refusal: &ApiRefusal) -> Reply {
        Reply::plain(400, refusal.text())
    }

    /// The request is refused by policy.
    pub fn refused(refusal: &Refusal) -> Reply {
        let (status, text) = status_and_text(refusal);
        Reply::plain(status, text)
    }

    /// The peer's address is not in `allow`.
    pub fn forbidden() -> Reply {
        Reply::plain(403, "This address may not use the local API.")
    }

    /// No token, or a wrong one (RFC 6750 §3); `header` as for [`authorised`].
    pub fn unauthorised(header: Option<&[u8]>) -> Reply {
        // RFC 6750 §3.1: no error code for a request without a token.
        let challenge = match header {
            None => "Bearer realm=\"upslot\"",
            Some(_) => "Bearer realm=\"upslot\", error=\"invalid_token\"",
        };
        Reply {
            field: Some(("WWW-Authenticate", challenge)),
            ..Reply::plain(401, "The local API needs its bearer token.")
        }
    }

    /// The endpoint does not exist.
    pub fn not_found() -> Reply {
        Reply::plain(404, "There is nothing here.")
    }

    /// The endpoint does not allow this method.
    pub fn method_not_allowed(endpoint: ApiRoute) -> Reply {
        Reply {
            field: Some(("Allow", endpoint.allow())),
            ..Reply::plain(405, format!("Only {} is served here.", endpoint.allow()))
        }
    }

    /// The health of the service: 200 or 503, with one line for each part.
    pub fn health(health: Health) -> Reply {
        let link = match health.link {
            LinkStatus::None => "none",
            LinkStatus::Up => "up",
            LinkStatus::Down => "down",
        };
        let store = match health.store {
            StoreStatus::Good => "good",
            StoreStatus::Full => "full",
            StoreStatus::Failing => "failing",
        };
        let good = health.link != LinkStatus::Down && health.store == StoreStatus::Good;
        let body = format!("link {link}\nstore {store}\n");
        Reply::plain(if good { 200 } else { 503 }, body)
    }

    /// The page written by [`metrics::Metrics::expose`].
    pub fn metrics(page: String) -> Reply {
        Reply {
            content_type: metrics::CONTENT_TYPE,
            ..Reply::plain(200, page)
        }
    }
}

/// The health that `/health` reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    pub link: LinkStatus,
    pub store: StoreStatus,
}

/// The state of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreStatus {
    Good,
    /// No room for uploads, on the disk or in the global quota.
    Full,
    /// The last access failed.
    Failing,
}

/// The status and the body for a refusal, as in django-xmpp-http-upload where it has the same reason. ejabberd maps 402
/// to resource-constraint, 403 to not-allowed, 413 to not-acceptable, and all others to service-unavailable.
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

/// Whether the value of `Authorization` holds the token (RFC 6750 §2.1). Tokens are compared in constant time.
pub fn authorised(header: Option<&[u8]>, token: &str) -> bool {
    let Some(shown) = header.and_then(bearer_token) else {
        return false;
    };
    if token.is_empty() {
        return false;
    }
    let key = hmac::Key::new(hmac::HMAC_SHA256, COMPARISON);
    let tag = hmac::sign(&key, token.as_bytes());
    hmac::verify(&key, shown, tag.as_ref()).is_ok()
}

/// Parses an integer as Python does: white space around it and a sign are allowed. Negative numbers become 0 and numbers
/// over 64 bits the largest one, because the checks that follow treat them alike.
fn integer(text: &str) -> Option<u64> {
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let size = decimal::parse_saturating(digits.as_bytes())?;
    Some(if negative { 0 } else { size })
}

/// Parses the owner's address. Control characters are dropped, as in django-xmpp-http-upload.
fn address(jid: &str) -> Result<BareJid, ApiRefusal> {
    let jid: String = jid.chars().filter(|c| !c.is_control()).collect();
    BareJid::parse(&jid).ok_or(ApiRefusal::Address)
}

/// The value of `type`, which django-xmpp-http-upload reads, or else of `content_type`, which it documents. ejabberd
/// always sends the latter, with `application/octet-stream` if the client gave no type.
fn content_type(query: &Query) -> Option<String> {
    let value = |name| query.get(name).map(str::trim).filter(|t| !t.is_empty());
    let documented = || value("content_type").filter(|t| mime::essence(t) != mime::UNKNOWN);
    value("type").or_else(documented).map(str::to_owned)
}

/// Cleans a name as Django's `get_valid_filename` does: trims it, replaces spaces by `_`, and removes all characters but
/// letters and digits of any script, `_`, `-` and `.`. If nothing remains before the extension, as of an emoji, `_` is
/// put there, so that the request succeeds and the extension is kept. Empty for a name such as `/` or `..`.
fn valid_name(name: &str) -> String {
    let allowed = |c: char| match c {
        ' ' => Some('_'),
        '_' | '-' | '.' => Some(c),
        c => c.is_alphanumeric().then_some(c),
    };
    let significant = |c: &char| !(*c == '/' || c.is_whitespace() || c.is_control());
    if matches!(
        &*name.chars().filter(significant).collect::<String>(),
        "" | "." | ".."
    ) {
        return String::new();
    }
    let cleaned: String = name.trim().chars().filter_map(allowed).collect();
    match cleaned.trim_end_matches('.') {
        "" => "_".to_owned(),
        _ if cleaned.starts_with('.') => format!("_{cleaned}"),
        _ => cleaned,
    }
}

/// Writes a JSON string, with quotes (RFC 8259 §7).
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

/// Writes the value of an XML attribute, without quotes (XML 1.0 §2.3). Characters that XML forbids become U+FFFD.
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
