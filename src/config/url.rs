//! The URL prefixes of uploads and downloads (RFC 3986).
//!
//! Only scheme, host, port and path are accepted, in ASCII: the parts that a slot's URL is built on. The URL is never
//! requested.

use std::fmt;

use percent_encoding::{CONTROLS, utf8_percent_encode};

use crate::config::address;
use crate::config::error::InvalidValue;
use crate::config::secret;
use crate::http::origin::split_port;
use crate::layout;

/// Longest prefix, in bytes; a file's URL must stay below what clients and proxies take.
const MAX_URL: usize = 1024;

/// Longest prefix of a path, in bytes.
const MAX_PATH_PREFIX: usize = 256;

/// A valid `http://` or `https://` prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BaseUrl {
    /// The whole URL, ASCII, ending in `/`. Scheme and host are in lower case.
    pub prefix: String,
    /// Its path, beginning and ending with `/`, percent-encoded.
    pub path: String,
    /// The path, percent-decoded, for comparison with a decoded request path.
    pub decoded: String,
    /// HTTPS, or plain HTTP to a host that is local or an onion service. Many clients refuse other URLs.
    pub secure: bool,
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.prefix)
    }
}

/// Reads a prefix, with or without a path and a final `/`.
pub fn base_url(text: &str) -> Result<BaseUrl, InvalidValue> {
    let invalid = || {
        InvalidValue::from(
            "a URL such as https://upload.example.org/ or https://example.org/upload/",
        )
    };
    secret::refuse_template(text, "the URL")?;
    if text.contains(char::is_whitespace) {
        return Err("one URL without spaces".into());
    }
    if text.ends_with([',', ';']) {
        return Err("a URL that does not end with a comma or semicolon".into());
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err("a URL that begins with https://, such as https://upload.example.org/".into());
    };
    let scheme = scheme.to_ascii_lowercase();
    if scheme != "http" && scheme != "https" {
        return Err("a URL that begins with https:// or http://".into());
    }
    if text.contains(['?', '#']) {
        return Err("a URL without ? and #".into());
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if authority.contains('@') {
        let found = "a URL with a user name or password";
        return Err(InvalidValue::found(found, "a URL without them"));
    }
    if !authority.is_ascii() {
        return Err("the host name in punycode (xn--...)".into());
    }
    let authority = authority.to_ascii_lowercase();
    let host = host(&authority).ok_or_else(invalid)?;
    let (path, decoded) = base_path(path)?;
    let prefix = format!("{scheme}://{authority}{path}");
    if prefix.len() > MAX_URL {
        return Err(format!("a URL of at most {MAX_URL} bytes").into());
    }
    Ok(BaseUrl {
        secure: is_secure(scheme == "https", host),
        prefix,
        path,
        decoded,
    })
}

/// Reads a path prefix, whose last `/` may be missing. Only characters that are never percent-encoded (RFC 3986 §3.3), so
/// that it has one spelling.
pub fn path_prefix(text: &str) -> Result<String, InvalidValue> {
    let is_plain = text.starts_with('/') && !text.ends_with("//") && text.len() <= MAX_PATH_PREFIX;
    match base_path(text) {
        Ok((path, decoded)) if is_plain && path == decoded => Ok(path),
        _ => Err("a path such as / or /upload/, without characters that need encoding".into()),
    }
}

/// The host of a host with or without a port, if both are valid.
pub fn host(authority: &str) -> Option<&str> {
    let (host, port) = split_port(authority);
    let port_is_valid = port.is_none_or(|port| address::port(port).is_some_and(|port| port > 0));
    let bracketed = host.starts_with('[');
    let host_is_valid = match address::ip(host) {
        Some(ip) => ip.is_ipv6() == bracketed,
        None => address::is_host_name(host),
    };
    (port_is_valid && host_is_valid).then_some(host)
}

/// The path and its decoded form, both with one `/` at each end.
fn base_path(path: &str) -> Result<(String, String), InvalidValue> {
    let invalid = || {
        InvalidValue::from(
            "a path without empty or dot segments, of characters that are allowed in a URL (%XX for others)",
        )
    };
    let trimmed = path.trim_end_matches('/');
    let allowed =
        |b: u8| !b.is_ascii() || b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%/".contains(&b);
    if !trimmed.bytes().all(allowed) {
        return Err(invalid());
    }
    let encoded = utf8_percent_encode(trimmed, CONTROLS).to_string();
    let mut decoded = String::new();
    for segment in encoded.split('/').skip(1) {
        let bytes = layout::decode_segment(segment.as_bytes()).ok_or_else(invalid)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| invalid())?;
        if matches!(text, "" | "." | "..") || text.contains(|c: char| c == '/' || c.is_control()) {
            return Err(invalid());
        }
        decoded.push('/');
        decoded.push_str(text);
    }
    Ok((format!("{encoded}/"), format!("{decoded}/")))
}

/// Whether requests to this host are encrypted, or need not be: they stay on this machine, or go to an onion service.
pub fn is_secure(https: bool, host: &str) -> bool {
    https || is_loopback(host) || without_dot(host).ends_with(".onion")
}

/// Whether a host is this machine.
pub fn is_loopback(host: &str) -> bool {
    let name = without_dot(host);
    match address::ip(host) {
        Some(ip) => ip.to_canonical().is_loopback(),
        None => name == "localhost" || name.ends_with(".localhost"),
    }
}

/// A name without the dot that may end it.
pub fn without_dot(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, prefix: &str, path: &str, decoded: &str) {
        let url = base_url(text).unwrap_or_else(|invalid| panic!("{text:?}: {}", invalid.expected));
        assert_eq!(
            (url.prefix.as_str(), url.path.as_str(), url.decoded.as_str()),
            (prefix, path, decoded),
            "{text:?}"
        );
        assert!(
            url.prefix.is_ascii() && url.prefix.ends_with(&url.path),
            "{text:?}"
        );
        assert_eq!(base_url(prefix), Ok(url), "{text:?}");
    }

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        let invalid = base_url(text).expect_err(text);
        assert!(
            invalid.expected.contains(expected),
            "{text:?}: {}",
            invalid.expected
        );
    }

    #[test]
    fn accepts_prefixes() {
        check("https://up.example", "https://up.example/", "/", "/");
        check("HTTPS://Up.Example/", "https://up.example/", "/", "/");
        check(
            "https://up.example/Files",
            "https://up.example/Files/",
            "/Files/",
            "/Files/",
        );
        check(
            "https://up.example:8443/a/b//",
            "https://up.example:8443/a/b/",
            "/a/b/",
            "/a/b/",
        );
        check("http://127.0.0.1:8080", "http://127.0.0.1:8080/", "/", "/");
        check("http://[::1]:8080/x", "http://[::1]:8080/x/", "/x/", "/x/");
        check(
            "http://[2001:DB8::1]/x",
            "http://[2001:db8::1]/x/",
            "/x/",
            "/x/",
        );
        check(
            "https://xn--mnchen-3ya.example/",
            "https://xn--mnchen-3ya.example/",
            "/",
            "/",
        );
        check(
            "https://up.example/a%20b/",
            "https://up.example/a%20b/",
            "/a%20b/",
            "/a b/",
        );
        check(
            "https://up.example/é",
            "https://up.example/%C3%A9/",
            "/%C3%A9/",
            "/é/",
        );
        check(
            "https://up.example/~x:@!$&'()*+,;=",
            "https://up.example/~x:@!$&'()*+,;=/",
            "/~x:@!$&'()*+,;=/",
            "/~x:@!$&'()*+,;=/",
        );
    }

    #[test]
    fn refuses_other_urls() {
        for text in ["https://", "https:///x", "https://a..b/"] {
            refused(text, "a URL such as");
        }
        for text in ["", "up.example", "//up.example/", "https:/up.example"] {
            refused(text, "begins with https://");
        }
        for text in [
            "https://a b/",
            "https://a/ b",
            "https://up.example/a b",
            "https://a/ https://b/",
        ] {
            refused(text, "without spaces");
        }
        for text in [
            "https://up.example/,",
            "https://up.example/;",
            "https://up.example,",
        ] {
            refused(text, "a comma");
        }
        for text in [
            "https://${HOST}/",
            "${URL}",
            "https://{{ host }}/x",
            "https://$(hostname)/",
        ] {
            refused(text, "not expanded");
        }
        for text in [
            "https://up.example:/",
            "https://up.example:0/",
            "https://up.example:65536/",
            "https://up.example:+80/",
        ] {
            refused(text, "a URL such as");
        }
        for text in [
            "https://::1/",
            "https://[127.0.0.1]/",
            "https://[::1/",
            "https://[::1]x/",
            "https://256.0.0.1/",
        ] {
            refused(text, "a URL such as");
        }
        refused("ftp://up.example/", "https://");
        refused("https://münchen.example/", "punycode");
        refused("https://up.example/?x", "without ?");
        refused("https://up.example/#x", "without ?");
        for path in [
            "a//b", "//a", "a/./b", "../a", "%2e%2E", "a\"b", "a\\b", "<a>", "%", "%4", "%zz",
            "%+1a", "%2f", "%00", "%ff", "a\u{1}b",
        ] {
            refused(&format!("https://up.example/{path}"), "a path without");
        }
        refused(
            &format!("https://up.example/{}", "x".repeat(1024)),
            "at most 1024",
        );
    }

    #[test]
    fn does_not_repeat_a_password() {
        let invalid = base_url("https://romeo:hunter2@up.example/").expect_err("user information");
        assert_eq!(
            invalid.found.as_deref(),
            Some("a URL with a user name or password")
        );
    }

    #[test]
    fn recognises_hosts_where_plain_http_is_safe() {
        for (text, secure) in [
            ("https://up.example", true),
            ("http://up.example", false),
            ("http://192.0.2.1", false),
            ("http://[2001:db8::1]", false),
            ("http://127.0.0.2:80", true),
            ("http://[::1]", true),
            ("http://localhost:8080", true),
            ("http://upload.localhost", true),
            ("http://abcdefgh.onion", true),
            ("http://notlocalhost", false),
        ] {
            assert_eq!(base_url(text).expect(text).secure, secure, "{text}");
        }
    }

    #[test]
    fn a_prefix_has_one_spelling() {
        for (text, read) in [
            ("/", "/"),
            ("/up", "/up/"),
            ("/up/", "/up/"),
            ("/up/load.v1~/", "/up/load.v1~/"),
            ("/health", "/health/"),
        ] {
            assert_eq!(path_prefix(text), Ok(read.to_owned()), "{text}");
        }
        let long = format!("/{}", "x".repeat(256));
        for text in [
            "", "up", "//", "/up//", "//up", "/./", "/../up", "/up/..", "/u%70/", "/a b/", "/é/",
            "/up?", "/up#", "/a\\b", &long,
        ] {
            assert!(path_prefix(text).is_err(), "{text}");
        }
    }
}
