//! The request line: method, target and version (RFC 9112 §3).

use std::net::Ipv6Addr;
use std::str;

use crate::decimal;
use crate::http::head::error::{HeadError, MAX_TARGET};
use crate::http::head::span::Span;
use crate::http::syntax::is_token;

/// The request's method. Methods are case-sensitive (RFC 9110 §9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    Get,
    Head,
    Put,
    Options,
    /// Registered with IANA, but not supported here: 405.
    Unsupported,
    /// Not a registered method: 501.
    Unknown,
}

/// The beginning of the text form of HAProxy's PROXY protocol.
const PROXY_LINE: &[u8] = b"PROXY ";

/// The rest of IANA's method registry, sorted.
#[rustfmt::skip]
pub(super) const REGISTERED: [&str; 36] = [
    "ACL", "BASELINE-CONTROL", "BIND", "CHECKIN", "CHECKOUT", "CONNECT", "COPY", "DELETE", "LABEL",
    "LINK", "LOCK", "MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL", "MKREDIRECTREF", "MKWORKSPACE",
    "MOVE", "ORDERPATCH", "PATCH", "POST", "PRI", "PROPFIND", "PROPPATCH", "QUERY", "REBIND",
    "REPORT", "SEARCH", "TRACE", "UNBIND", "UNCHECKOUT", "UNLINK", "UNLOCK", "UPDATE",
    "UPDATEREDIRECTREF", "VERSION-CONTROL",
];

impl Method {
    pub(super) fn of(name: &[u8]) -> Method {
        match name {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"PUT" => Method::Put,
            b"OPTIONS" => Method::Options,
            _ if REGISTERED.iter().any(|method| method.as_bytes() == name) => Method::Unsupported,
            _ => Method::Unknown,
        }
    }
}

/// The request's HTTP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    V10,
    V11,
}

/// The parts of a request line, as offsets from its first byte.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestLine {
    pub(super) method: Span,
    pub(super) target: RequestTarget,
    pub(super) version: Version,
    /// Length of the line in bytes, without its CRLF.
    length: u16,
}

/// The four forms of a target (RFC 9112 §3.2).
#[derive(Clone, Copy, Debug)]
pub(super) enum RequestTarget {
    /// origin-form or absolute-form, whose authority is checked and dropped. An empty path means `/`.
    Path { path: Span, query: Option<Span> },
    /// authority-form, for CONNECT only.
    Authority,
    /// asterisk-form, for OPTIONS only.
    Asterisk,
}

impl RequestLine {
    /// Parses a line without its CRLF.
    pub(super) fn parse(line: &[u8]) -> Result<RequestLine, HeadError> {
        if line.starts_with(PROXY_LINE) {
            return Err(HeadError::PROXY);
        }
        let mut parts = line.split(|&byte| byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(HeadError::REQUEST_LINE);
        };
        if !is_token(method) {
            return Err(HeadError::NO_METHOD);
        }
        if target.len() > MAX_TARGET {
            return Err(HeadError::TargetTooLong);
        }
        let version = match version {
            b"HTTP/1.1" => Version::V11,
            b"HTTP/1.0" => Version::V10,
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
                if major.is_ascii_digit() && minor.is_ascii_digit() =>
            {
                return Err(HeadError::Version);
            }
            _ => return Err(HeadError::VERSION),
        };
        Ok(RequestLine {
            method: Span::new(0, method.len()),
            target: RequestTarget::parse(method, target)?,
            version,
            length: line.len() as u16,
        })
    }

    /// Length of the line in bytes, with its CRLF.
    pub(super) fn len(&self) -> usize {
        usize::from(self.length) + 2
    }
}

impl RequestTarget {
    fn parse(method: &[u8], target: &[u8]) -> Result<RequestTarget, HeadError> {
        // Only ambiguous bytes are rejected; existing services put `[`, `\` and `^` into their URLs.
        if target
            .iter()
            .any(|&byte| byte <= b' ' || byte == 0x7f || byte == b'#')
        {
            return Err(HeadError::TARGET);
        }
        if str::from_utf8(target).is_err() {
            return Err(HeadError::TARGET_TEXT);
        }
        match (method, target) {
            (b"CONNECT", _) if has_port(target) && is_authority(target) => {
                Ok(RequestTarget::Authority)
            }
            (b"OPTIONS", b"*") => Ok(RequestTarget::Asterisk),
            (b"CONNECT", _) | (_, b"*") => Err(HeadError::TARGET),
            _ => RequestTarget::parse_path(method.len() + 1, target),
        }
    }

    /// Parses a target in origin-form or absolute-form that starts at this offset in its line.
    fn parse_path(offset: usize, target: &[u8]) -> Result<RequestTarget, HeadError> {
        let mut path_start = 0;
        if target.first() != Some(&b'/') {
            let host_start = scheme_length(target).ok_or(HeadError::TARGET)?;
            let rest = &target[host_start..];
            let host_length = rest.iter().position(|&byte| byte == b'/' || byte == b'?');
            path_start = host_start + host_length.unwrap_or(rest.len());
            if !is_authority(&target[host_start..path_start]) {
                return Err(HeadError::TARGET);
            }
        }
        let question_mark = target[path_start..].iter().position(|&byte| byte == b'?');
        let path_end = question_mark.map_or(target.len(), |length| path_start + length);
        Ok(RequestTarget::Path {
            path: Span::new(offset + path_start, offset + path_end),
            query: question_mark.map(|_| Span::new(offset + path_end + 1, offset + target.len())),
        })
    }
}

/// Length of the `http://` or `https://` that the target starts with, if it does.
fn scheme_length(target: &[u8]) -> Option<usize> {
    let is_prefix = |scheme: &&str| {
        let prefix = target.get(..scheme.len()).unwrap_or_default();
        prefix.eq_ignore_ascii_case(scheme.as_bytes())
    };
    ["http://", "https://"]
        .into_iter()
        .find(is_prefix)
        .map(str::len)
}

/// Whether a non-empty port follows the last colon of an authority. A colon inside an IPv6 address does not count.
fn has_port(authority: &[u8]) -> bool {
    authority.contains(&b':') && !matches!(authority.last(), Some(b':' | b']'))
}

/// Whether the text is a host with an optional port (RFC 9110 §7.2, RFC 3986 §3.2): a name, an IPv4 address, or an IPv6
/// address in brackets. The host must not be empty (RFC 9110 §4.2.1) or contain a comma, with which proxies join
/// repeated fields.
pub(super) fn is_authority(text: &[u8]) -> bool {
    let (host, port) = match text {
        [b'[', rest @ ..] => {
            let Some(close) = rest.iter().position(|&byte| byte == b']') else {
                return false;
            };
            let address = str::from_utf8(&rest[..close]).unwrap_or_default();
            if address.parse::<Ipv6Addr>().is_err() {
                return false;
            }
            (&rest[..close], &rest[close + 1..])
        }
        _ => {
            let colon = text.iter().position(|&byte| byte == b':');
            let (host, port) = text.split_at(colon.unwrap_or(text.len()));
            if !is_registered_name(host) {
                return false;
            }
            (host, port)
        }
    };
    let is_port_valid = match port {
        [] | [b':'] => true,
        [b':', digits @ ..] => {
            digits.len() <= 5 && decimal::parse(digits).is_some_and(|port| port <= 65535)
        }
        _ => false,
    };
    !host.is_empty() && is_port_valid
}

/// Whether the text is a reg-name (RFC 3986 §3.2.2) without a comma. IPv4 addresses are reg-names, too.
fn is_registered_name(mut host: &[u8]) -> bool {
    loop {
        host = match host {
            [] => return true,
            [b'%', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                rest
            }
            [byte, rest @ ..]
                if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=".contains(byte) =>
            {
                rest
            }
            _ => return false,
        };
    }
}
