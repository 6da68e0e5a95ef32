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
/// digits of any script, `_`, `-` and `.`. Empty when only dots would be left of it.
fn valid_name(name: &str) -> String {
    let kept = |c: char| match c {
        ' ' => Some('_'),
        '_' | '-' | '.' => Some(c),
        c => c.is_alphanumeric().then_some(c),
    };
    let cleaned: String = name.trim().chars().filter_map(kept).collect();
    if matches!(cleaned.as_str(), "." | "..") {
        return String::new();
    }
    cleaned
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
mod tests {
    use super::*;

    const GOOD: &str = "jid=romeo%40montague.tld&name=tr%C3%A8s%20cool.jpg&size=23456";

    fn refusals() -> Vec<(Refusal, u16, &'static str)> {
        vec![
            (
                Refusal::Malformed("The file name cannot be stored.".to_owned()),
                400,
                "The file name cannot be stored.",
            ),
            (
                Refusal::NotAllowed {
                    owner: BareJid::parse("a@b").unwrap(),
                },
                403,
                "You are not allowed to upload files.",
            ),
            (
                Refusal::TooLarge {
                    size: 11,
                    limit: 10,
                },
                413,
                "Files may not be larger than 10 bytes.",
            ),
            (
                Refusal::TypeNotAllowed {
                    content_type: "a/b".to_owned(),
                },
                415,
                "Files of the type a/b may not be uploaded here.",
            ),
            (
                Refusal::OwnerQuota {
                    size: 1,
                    stored: 100,
                    limit: 100,
                    retry: None,
                },
                403,
                "User may not upload more than 100 bytes.",
            ),
            (
                Refusal::GlobalQuota {
                    size: 1,
                    stored: 9,
                    limit: 9,
                },
                507,
                "The service stores 9 of at most 9 bytes, which leaves no room for 1 bytes.",
            ),
            (
                Refusal::FreeSpace {
                    size: 1,
                    free: 0,
                    reserve: 5,
                },
                507,
                "The service's disk is full; there is no room for 1 bytes.",
            ),
            (
                Refusal::Busy,
                503,
                "The service is busy; please try again in a moment.",
            ),
        ]
    }

    /// The query asks for a slot with this name, size and type.
    #[track_caller]
    fn check(query: &str, name: &str, size: u64, content_type: Option<&str>) {
        let asked = slot_request(query.as_bytes()).unwrap_or_else(|r| panic!("{query}: {r}"));
        let request = SlotRequest {
            owner: BareJid::parse("romeo@montague.tld").unwrap(),
            name: name.to_owned(),
            size,
            content_type: content_type.map(str::to_owned),
            purpose: Purpose::Message,
        };
        assert_eq!(asked.request, request, "{query}");
    }

    #[track_caller]
    fn malformed(query: &str, refusal: ApiRefusal, body: &str) {
        assert_eq!(slot_request(query.as_bytes()), Err(refusal), "{query}");
        let reply = Reply::malformed(&refusal);
        assert_eq!((reply.status, reply.body.as_str()), (400, body), "{query}");
        assert!(refusal.to_string().ends_with('.'));
    }

    #[track_caller]
    fn check_route(prefix: &str, path: &str, endpoint: Endpoint) {
        assert_eq!(
            route(prefix, path.as_bytes()),
            endpoint,
            "{path} at {prefix}"
        );
    }

    #[test]
    fn each_endpoint_has_one_spelling() {
        check_route("/", "/slot/", Endpoint::Slot);
        check_route("/", "/max_size/", Endpoint::MaxSize);
        check_route("/", "/health", Endpoint::Health);
        check_route("/", "/metrics", Endpoint::Metrics);
        check_route("/up/load/", "/up/load/slot/", Endpoint::Slot);
        check_route("/up/load/", "/up/load/max_size/", Endpoint::MaxSize);
        check_route("/up/load/", "/health", Endpoint::Health);
        check_route("/up/load/", "/metrics", Endpoint::Metrics);
        for path in [
            "",
            "/",
            "*",
            "/slot",
            "/slot//",
            "//slot/",
            "/./slot/",
            "/x/../slot/",
            "/SLOT/",
            "/%73lot/",
            "/slot%2F",
            "/slot/x",
            "/max_size",
            "/health/",
            "/metrics/",
            "/Health",
            "/up/slot/",
        ] {
            check_route("/", path, Endpoint::Unknown);
        }
        for path in [
            "/slot/",
            "/up/slot/",
            "/up/load/",
            "/up/loadslot/",
            "/up/load/health",
            "/up/load/up/load/slot/",
        ] {
            check_route("/up/load/", path, Endpoint::Unknown);
        }
    }

    #[test]
    fn endpoints_are_for_reading() {
        for endpoint in [Endpoint::MaxSize, Endpoint::Health, Endpoint::Metrics] {
            assert!(endpoint.takes(Method::Get) && endpoint.takes(Method::Head));
        }
        assert!(Endpoint::Slot.takes(Method::Get));
        for method in [
            Method::Head,
            Method::Put,
            Method::Options,
            Method::Known,
            Method::Unknown,
        ] {
            assert!(!Endpoint::Slot.takes(method), "{method:?}");
        }
        assert!(!Endpoint::Health.takes(Method::Put));
        let reply = Reply::method(Endpoint::Slot);
        assert_eq!((reply.status, reply.field), (405, Some(("Allow", "GET"))));
    }

    #[test]
    fn reads_slot_requests() {
        check(GOOD, "très_cool.jpg", 23456, None);
        check(
            &format!("{GOOD}&content_type=image%2Fjpeg"),
            "très_cool.jpg",
            23456,
            Some("image/jpeg"),
        );
        // As ejabberd sends it, with a resource, and with what nobody knows.
        check(
            "jid=Romeo@montague.tld/orchard&name=a.jpg&size=1&x=y&content_type=image/jpeg",
            "a.jpg",
            1,
            Some("image/jpeg"),
        );
        check(
            "size=1&size=7&name=b&name=a&jid=x&jid=romeo@montague.tld",
            "a",
            7,
            None,
        );
        check(
            "jid=ro%00meo%0a@montague.tld&name=a%00%0db&size=1",
            "ab",
            1,
            None,
        );
        assert_eq!(
            slot_request(GOOD.as_bytes()).unwrap().output,
            Ok(Output::Text)
        );
    }

    #[test]
    fn a_type_may_go_by_two_names() {
        for (rest, content_type) in [
            ("type=a/b", Some("a/b")),
            ("content_type=a/b", Some("a/b")),
            ("type=a/b&content_type=c/d", Some("a/b")),
            ("content_type=c/d&type=a/b", Some("a/b")),
            ("type=&content_type=c/d", Some("c/d")),
            ("type=+&content_type=+c/d+", Some("c/d")),
            (
                "type=text/plain%3B+charset%3Dutf-8",
                Some("text/plain; charset=utf-8"),
            ),
            ("content_type=application/octet-stream", None),
            ("content_type=Application%2FOctet-Stream", None),
            (
                "type=application/octet-stream",
                Some("application/octet-stream"),
            ),
            ("type=&content_type=", None),
            ("", None),
        ] {
            check(
                &format!("{GOOD}&{rest}"),
                "très_cool.jpg",
                23456,
                content_type,
            );
        }
    }

    #[test]
    fn the_form_is_checked_in_the_order_of_the_original() {
        let missing = ApiRefusal::Missing;
        malformed("", missing("jid"), "");
        malformed("name=a&size=1", missing("jid"), "");
        malformed("jid=a@b&size=1", missing("name"), "");
        malformed("jid=a@b&name=a", missing("size"), "");
        malformed("JID=a@b&name=a&size=1", missing("jid"), "");
        for size in [
            "", "x", "1.0", "0x10", "1e3", "1 000", "1_000", "--1", "+", "%D9%A1",
        ] {
            malformed(&format!("jid=&name=&size={size}"), ApiRefusal::Size, "");
        }
        let empty = "Empty JID or size passed.";
        for query in [
            "jid=&name=a&size=1",
            "jid=a@b&name=&size=1",
            "jid=a@b&name=%2F%20&size=1",
            "jid=a@b&name=/&size=1",
            "jid=a@b&name=..&size=1",
            "jid=a@b&name=%2F.%2F.&size=1",
            "jid=a@b&name=a&size=0",
            "jid=a@b&name=a&size=-1",
            "jid=a@b&name=a&size=-99999999999999999999999",
            "jid=a@@b&name=a&size=0&output=x",
        ] {
            malformed(query, ApiRefusal::Empty, empty);
        }
        let address = "The JID is not an address.";
        for jid in ["a@@b", "@b", "%00", "%20", "a b@c", "/x"] {
            malformed(
                &format!("jid={jid}&name=a&size=1&output=x"),
                ApiRefusal::Address,
                address,
            );
        }
        malformed(
            "jid=a@b&name=a&size=%",
            ApiRefusal::Query(QueryFault::Percent),
            "The query has a % without two hex digits.",
        );
    }

    #[test]
    fn sizes_are_integers_of_any_length() {
        for (text, size) in [
            ("1", Some(1)),
            ("007", Some(7)),
            (" 5 ", Some(5)),
            ("+5", Some(5)),
            ("-0", Some(0)),
            ("-5", Some(0)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", Some(u64::MAX)),
            ("- 5", None),
            ("5-", None),
            ("", None),
        ] {
            assert_eq!(integer(text), size, "{text:?}");
        }
    }

    #[test]
    fn the_output_is_judged_last() {
        for (rest, output) in [
            ("", Ok(Output::Text)),
            ("&output=text/plain", Ok(Output::Text)),
            ("&output=application%2Fjson", Ok(Output::Json)),
            ("&output=application/xml", Ok(Output::Xml)),
            ("&output=text/xml", Err(ApiRefusal::Output)),
            ("&output=", Err(ApiRefusal::Output)),
            ("&output=Text/Plain", Err(ApiRefusal::Output)),
            ("&output=text/plain;q=1", Err(ApiRefusal::Output)),
        ] {
            let asked = slot_request(format!("{GOOD}{rest}").as_bytes()).unwrap();
            assert_eq!(asked.output, output, "{rest}");
            let asked = max_size_request(format!("jid=a@b{rest}").as_bytes()).unwrap();
            assert_eq!(asked.output, output, "{rest}");
        }
        assert_eq!(
            Reply::malformed(&ApiRefusal::Output).body,
            "Unsupported content type in output."
        );
    }

    #[test]
    fn names_are_cleaned_as_django_does() {
        for (name, cleaned) in [
            ("a/b.jpg", "ab.jpg"),
            ("../../etc/passwd", "....etcpasswd"),
            (" très  cool.jpg\n", "très__cool.jpg"),
            ("a\tb\u{a0}c", "abc"),
            ("фото №1.jpg", "фото_1.jpg"),
            ("写真①.png", "写真①.png"),
            ("😀.png", ".png"),
            ("tre\u{300}s.jpg", "tres.jpg"),
            ("a\\b:c*d?e\"f<g>h|i%#&+=~.x", "abcdefghi.x"),
            ("a-b_c.d", "a-b_c.d"),
            ("a\0\u{7f}\u{85}b", "ab"),
            ("...", "..."),
            (".", ""),
            ("..", ""),
            ("/", ""),
            ("", ""),
        ] {
            assert_eq!(valid_name(name), cleaned, "{name:?}");
            assert_eq!(valid_name(cleaned), cleaned, "{name:?}");
        }
    }

    #[test]
    fn reads_questions_for_the_largest_file() {
        let asked = max_size_request(b"jid=Romeo%40montague.tld%2Forchard").unwrap();
        assert_eq!(asked.jid.as_str(), "romeo@montague.tld");
        for (query, refusal) in [
            ("", ApiRefusal::Missing("jid")),
            ("jid", ApiRefusal::Address),
            ("jid=@", ApiRefusal::Address),
            ("jid=%zz", ApiRefusal::Query(QueryFault::Percent)),
        ] {
            assert_eq!(max_size_request(query.as_bytes()), Err(refusal), "{query}");
        }
    }

    #[test]
    fn results_have_the_type_that_was_asked_for() {
        let slot = Slot {
            put: "https://up.example/a/b/tr%C3%A8s_cool.jpg?size=1&sig=x".to_owned(),
            get: "https://up.example/a/b/tr%C3%A8s_cool.jpg".to_owned(),
        };
        for (output, content_type, granted, max_size) in [
            (
                Output::Text,
                "text/plain",
                "https://up.example/a/b/tr%C3%A8s_cool.jpg?size=1&sig=x\nhttps://up.example/a/b/tr%C3%A8s_cool.jpg",
                "20971520",
            ),
            (
                Output::Json,
                "application/json",
                r#"{"get": "https://up.example/a/b/tr%C3%A8s_cool.jpg", "put": "https://up.example/a/b/tr%C3%A8s_cool.jpg?size=1&sig=x"}"#,
                r#"{"max_size": 20971520}"#,
            ),
            (
                Output::Xml,
                "application/xml",
                r#"<slot xmlns="urn:xmpp:http:upload:0"><put url="https://up.example/a/b/tr%C3%A8s_cool.jpg?size=1&amp;sig=x"/><get url="https://up.example/a/b/tr%C3%A8s_cool.jpg"/></slot>"#,
                r#"<max-file-size xmlns="urn:xmpp:http:upload:0">20971520</max-file-size>"#,
            ),
        ] {
            let reply = Reply::granted(&slot, output);
            assert_eq!((reply.status, reply.content_type), (200, content_type));
            assert_eq!(reply.body, granted);
            let reply = Reply::max_size(20_971_520, output);
            assert_eq!((reply.status, reply.content_type), (200, content_type));
            assert_eq!(reply.body, max_size);
        }
        assert_eq!(Reply::max_size(0, Output::Text).body, "0");
    }

    #[test]
    fn whatever_a_url_holds_stays_inside_its_quotes() {
        let hostile = "a\"b\\c<d>&'\n\0é\u{ffff}";
        assert_eq!(
            Json(hostile).to_string(),
            "\"a\\\"b\\\\c<d>&'\\u000a\\u0000é\u{ffff}\""
        );
        assert_eq!(
            Xml(hostile).to_string(),
            "a&quot;b\\c&lt;d&gt;&amp;&apos;\u{fffd}\u{fffd}é\u{fffd}"
        );
    }

    #[test]
    fn refusals_have_the_texts_of_the_original() {
        for (refusal, status, text) in refusals() {
            let reply = Reply::refused(&refusal);
            assert_eq!((reply.status, reply.body.as_str()), (status, text));
            assert_eq!(reply.content_type, "text/plain; charset=utf-8");
            assert_eq!(status_and_text(&refusal), (status, text.to_owned()));
        }
    }

    #[test]
    fn the_token_is_taken_from_its_field_alone() {
        let token = "0123456789abcdef";
        for (header, good) in [
            ("Bearer 0123456789abcdef", true),
            ("bearer 0123456789abcdef", true),
            ("BEARER   0123456789abcdef", true),
            ("Bearer 0123456789abcdeF", false),
            ("Bearer 0123456789abcde", false),
            ("Bearer 0123456789abcdef0", false),
            ("Bearer 0123456789abcdef, Bearer x", false),
            ("Bearer0123456789abcdef", false),
            ("Bearer", false),
            ("Bearer ", false),
            ("Basic 0123456789abcdef", false),
            ("0123456789abcdef", false),
            ("", false),
            ("é", false),
        ] {
            assert_eq!(authorised(Some(header.as_bytes()), token), good, "{header}");
        }
        assert!(!authorised(None, token));
        assert!(!authorised(Some(b"Bearer "), ""));
        assert!(!authorised(Some(b"Bearer \xff\xfe"), token));
        let bare = Reply::unauthorised(None);
        assert_eq!(bare.status, 401);
        assert_eq!(
            bare.field,
            Some(("WWW-Authenticate", "Bearer realm=\"upslot\""))
        );
        let wrong = Reply::unauthorised(Some(b"Bearer x"));
        assert!(wrong.field.unwrap().1.ends_with("error=\"invalid_token\""));
    }

    #[test]
    fn health_needs_link_and_store() {
        for (link, store, status, body) in [
            (Link::Up, StoreHealth::Good, 200, "link up\nstore good\n"),
            (
                Link::None,
                StoreHealth::Good,
                200,
                "link none\nstore good\n",
            ),
            (
                Link::Down,
                StoreHealth::Good,
                503,
                "link down\nstore good\n",
            ),
            (Link::Up, StoreHealth::Full, 503, "link up\nstore full\n"),
            (
                Link::None,
                StoreHealth::Failing,
                503,
                "link none\nstore failing\n",
            ),
        ] {
            let reply = Reply::health(Health { link, store });
            assert_eq!((reply.status, reply.body.as_str()), (status, body));
        }
    }

    #[test]
    fn mutated_requests_do_no_harm() {
        let seed = format!("{GOOD}&content_type=image%2Fjpeg&output=application%2Fjson");
        let pieces: [&[u8]; 8] = [
            b"%", b"&size=", b"=", b"+", b"\xff", b"%00", b"&jid=@", b"-",
        ];
        let mut dice = 0x9e37_79b9_u64;
        for _ in 0..5000 {
            let mut raw = seed.as_bytes().to_vec();
            for _ in 0..3 {
                dice ^= dice << 13;
                dice ^= dice >> 7;
                dice ^= dice << 17;
                let at = (dice >> 8) as usize % raw.len();
                let piece = pieces[dice as usize % pieces.len()];
                raw.splice(at..=at, piece.iter().copied());
            }
            if let Ok(SlotAsked { request, .. }) = slot_request(&raw) {
                assert!(request.size > 0 && !request.name.is_empty());
                assert!(!request.name.contains(['/', '\0', ' ', '%']));
                assert!(!request.owner.as_str().is_empty());
            }
            assert_eq!(route("/", &raw), Endpoint::Unknown);
            assert!(!authorised(Some(&raw), "0123456789abcdef"));
        }
    }
}
