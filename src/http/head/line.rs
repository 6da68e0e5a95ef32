//! The request line (RFC 9112 §3): method, target and version.

use std::net::Ipv6Addr;
use std::str;

use crate::http::head::error::{HeadFault, MAX_TARGET};
use crate::http::head::span::Span;
use crate::http::syntax::{decimal, is_token};

/// The request's method. Methods are case-sensitive (RFC 9110 §9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    Get,
    Head,
    Put,
    Options,
    /// Registered with IANA, but nothing for this service: 405.
    Known,
    /// No method of HTTP: 501.
    Unknown,
}

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
            _ if REGISTERED.iter().any(|known| known.as_bytes() == name) => Method::Known,
            _ => Method::Unknown,
        }
    }
}

/// The request's version of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    V10,
    V11,
}

/// The parts of a request line, as offsets from its first byte.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestLine {
    pub(super) method: Span,
    pub(super) target: Target,
    pub(super) version: Version,
    /// Where the line ends, without its line end.
    end: u16,
}

/// The four forms of a target (RFC 9112 §3.2).
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    /// origin-form; absolute-form if it has an authority. An empty path stands for `/`.
    Path {
        authority: Option<Span>,
        path: Span,
        query: Option<Span>,
    },
    /// authority-form, for CONNECT alone.
    Authority(Span),
    /// asterisk-form, for OPTIONS alone.
    Asterisk,
}

impl RequestLine {
    /// Takes the line without its line end.
    pub(super) fn parse(line: &[u8]) -> Result<RequestLine, HeadFault> {
        let mut parts = line.split(|&byte| byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(HeadFault::REQUEST_LINE);
        };
        if !is_token(method) {
            return Err(HeadFault::NO_METHOD);
        }
        if target.len() > MAX_TARGET {
            return Err(HeadFault::TargetTooLong);
        }
        let version = match version {
            b"HTTP/1.1" => Version::V11,
            b"HTTP/1.0" => Version::V10,
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
                if major.is_ascii_digit() && minor.is_ascii_digit() =>
            {
                return Err(HeadFault::Version);
            }
            _ => return Err(HeadFault::VERSION),
        };
        Ok(RequestLine {
            method: Span::new(0, method.len()),
            target: Target::parse(method, target)?,
            version,
            end: line.len() as u16,
        })
    }

    /// Bytes of the line with its line end.
    pub(super) fn len(&self) -> usize {
        usize::from(self.end) + 2
    }
}

impl Target {
    fn parse(method: &[u8], target: &[u8]) -> Result<Target, HeadFault> {
        // Only what would be ambiguous is refused; predecessors put `[`, `\` and `^` into their URLs.
        if target
            .iter()
            .any(|&byte| byte <= b' ' || byte == 0x7f || byte == b'#')
        {
            return Err(HeadFault::TARGET);
        }
        if str::from_utf8(target).is_err() {
            return Err(HeadFault::TARGET_TEXT);
        }
        let start = method.len() + 1;
        let end = start + target.len();
        if method == b"CONNECT" {
            let port = target.iter().rposition(|&byte| byte == b':');
            let has_port =
                port.is_some_and(|at| at + 1 < target.len() && target.last() != Some(&b']'));
            if !has_port || !is_authority(target) {
                return Err(HeadFault::TARGET);
            }
            return Ok(Target::Authority(Span::new(start, end)));
        }
        if target == b"*" {
            return if method == b"OPTIONS" {
                Ok(Target::Asterisk)
            } else {
                Err(HeadFault::TARGET)
            };
        }
        let mut path_at = 0;
        let mut authority = None;
        if target.first() != Some(&b'/') {
            let host_at = scheme(target).ok_or(HeadFault::TARGET)?;
            let rest = &target[host_at..];
            let host = rest.iter().position(|&byte| byte == b'/' || byte == b'?');
            path_at = host_at + host.unwrap_or(rest.len());
            if !is_authority(&target[host_at..path_at]) {
                return Err(HeadFault::TARGET);
            }
            authority = Some(Span::new(start + host_at, start + path_at));
        }
        let question = target[path_at..].iter().position(|&byte| byte == b'?');
        let path_end = question.map_or(target.len(), |at| path_at + at);
        Ok(Target::Path {
            authority,
            path: Span::new(start + path_at, start + path_end),
            query: question.map(|_| Span::new(start + path_end + 1, end)),
        })
    }
}

/// How far `http://` or `https://` goes, if the target begins with it.
fn scheme(target: &[u8]) -> Option<usize> {
    let begins = |scheme: &&str| {
        let prefix = target.get(..scheme.len()).unwrap_or_default();
        prefix.eq_ignore_ascii_case(scheme.as_bytes())
    };
    ["http://", "https://"]
        .into_iter()
        .find(begins)
        .map(str::len)
}

/// Whether this is a host with an optional port (RFC 9110 §7.2, RFC 3986 §3.2): a name, an IPv4
/// address, or an IPv6 address in brackets. An empty host is none: the http schemes forbid it
/// (RFC 9110 §4.2.1). Neither is one with a comma, which is what a proxy makes of two fields.
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
    let port_is_sound = match port {
        [] | [b':'] => true,
        [b':', digits @ ..] => digits.len() <= 5 && decimal(digits).is_some_and(|n| n <= 65535),
        _ => false,
    };
    !host.is_empty() && port_is_sound
}

/// RFC 3986 §3.2.2, reg-name without the comma; covers IPv4 addresses.
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
