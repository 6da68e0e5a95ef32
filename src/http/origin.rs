//! The origin of a URL (RFC 6454): where to connect to, and what to send as `Host`.

use std::fmt;

use crate::decimal;

/// Scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Whether the scheme is https.
    pub tls: bool,
    /// A name, or an IP address without brackets.
    pub host: String,
    pub port: u16,
    /// Host and port as in the URL, for `Host`.
    pub authority: String,
}

impl Origin {
    /// The origin of a URL that the configuration accepted, and the rest of the URL.
    pub fn split(url: &str) -> Option<(Origin, &str)> {
        let (scheme, rest) = url.split_once("://")?;
        let (authority, target) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let tls = scheme.eq_ignore_ascii_case("https");
        let (host, port) = split_port(authority);
        let port = match port {
            Some(port) => u16::try_from(decimal::parse(port.as_bytes())?).ok()?,
            None if tls => 443,
            None => 80,
        };
        let origin = Origin {
            tls,
            host: host
                .trim_start_matches('[')
                .trim_end_matches(']')
                .to_owned(),
            port,
            authority: authority.to_owned(),
        };
        Some((origin, target))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority)
    }
}

/// Host and port; the colons inside brackets belong to the host.
pub fn split_port(authority: &str) -> (&str, Option<&str>) {
    let from = authority.rfind(']').map_or(0, |at| at + 1);
    match authority[from..].find(':') {
        None => (authority, None),
        Some(at) => (&authority[..from + at], Some(&authority[from + at + 1..])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins() {
        for (url, expected, target) in [
            (
                "https://up.example/",
                (true, "up.example", 443, "up.example"),
                "/",
            ),
            (
                "http://up.example:8080/a/?b",
                (false, "up.example", 8080, "up.example:8080"),
                "/a/?b",
            ),
            (
                "https://[2001:db8::1]/",
                (true, "2001:db8::1", 443, "[2001:db8::1]"),
                "/",
            ),
            ("https://[::1]:99/x", (true, "::1", 99, "[::1]:99"), "/x"),
        ] {
            let (origin, rest) = Origin::split(url).unwrap();
            let Origin {
                tls,
                host,
                port,
                authority,
            } = &origin;
            assert_eq!((*tls, host.as_str(), *port, authority.as_str()), expected);
            assert_eq!(rest, target);
            assert!(url.starts_with(&origin.to_string()));
        }
        assert_eq!(Origin::split("up.example"), None);
        assert_eq!(Origin::split("http://a:x/"), None);
    }
}
