//! Addresses in the configuration: listeners, networks, hosts, domains and JIDs.
//!
//! Names are never resolved here, except `localhost`. IPv4-mapped IPv6 addresses become plain IPv4, so that addresses
//! compare equal (RFC 4291 §2.5.5.2).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net};

use crate::config::error::InvalidValue;
use crate::decimal;
use crate::jid::BareJid;

/// Longest path of a Unix socket, in bytes: the size of `sun_path` without its final NUL.
const MAX_UNIX_PATH: usize = 107;

/// The address of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// An address and a port; port 0 lets the system choose. `[::]` takes IPv4 too.
    Tcp(SocketAddr),
    /// A Unix socket at this path.
    Unix(PathBuf),
}

impl Listen {
    /// Whether a listener at `self` accepts all connections to `other`: the same address, or an unspecified address with
    /// the same port. `[::]` covers IPv4 as well.
    pub fn covers(&self, other: &Listen) -> bool {
        match (self, other) {
            (Listen::Unix(path), Listen::Unix(other)) => path == other,
            (Listen::Tcp(address), Listen::Tcp(other)) => {
                let ip = address.ip();
                let wide = ip.is_unspecified() && (ip.is_ipv6() || other.is_ipv4());
                address.port() != 0 && address.port() == other.port() && (wide || ip == other.ip())
            }
            _ => false,
        }
    }

    /// Whether the two cannot both be bound.
    pub fn overlaps(&self, other: &Listen) -> bool {
        self.covers(other) || other.covers(self)
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => write!(f, "{address}"),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Reads one entry of `http_address`; `port` is for addresses without one of their own. `localhost` gives two.
pub fn listen(text: &str, port: u16) -> Result<Vec<Listen>, InvalidValue> {
    if let Some(path) = text.strip_prefix("unix:") {
        let valid =
            path.starts_with('/') && !path.ends_with('/') && !path.contains(char::is_control);
        if !valid || path.len() > MAX_UNIX_PATH {
            return Err(
                format!("an absolute path of at most {MAX_UNIX_PATH} bytes after unix:").into(),
            );
        }
        return Ok(vec![Listen::Unix(PathBuf::from(path))]);
    }
    let tcp = |ip: IpAddr, port| Listen::Tcp(SocketAddr::new(ip.to_canonical(), port));
    if let Some(ip) = ip(text) {
        return Ok(vec![tcp(ip, port)]);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        let scoped = matches!(address, SocketAddr::V6(v6) if v6.scope_id() != 0);
        if !scoped {
            return Ok(vec![tcp(address.ip(), address.port())]);
        }
    }
    let port = match text.split_once(':') {
        None if text.eq_ignore_ascii_case("localhost") => Some(port),
        Some((name, port)) if name.eq_ignore_ascii_case("localhost") => self::port(port),
        _ => None,
    };
    match port {
        Some(port) => Ok(vec![
            tcp(Ipv4Addr::LOCALHOST.into(), port),
            tcp(Ipv6Addr::LOCALHOST.into(), port),
        ]),
        None => Err("an IP address such as 127.0.0.1 or ::, localhost, or unix:/path".into()),
    }
}

/// Reads one entry of `trusted_proxies`: a network, an address, or `localhost`, which gives two.
pub fn networks(text: &str) -> Result<Vec<IpNet>, InvalidValue> {
    if text.eq_ignore_ascii_case("localhost") {
        let loopback = IpAddr::from(Ipv6Addr::LOCALHOST);
        let v4 = Ipv4Net::new(Ipv4Addr::new(127, 0, 0, 0), 8).map(IpNet::V4);
        return Ok(v4.into_iter().chain([IpNet::from(loopback)]).collect());
    }
    if let Some(ip) = ip(text) {
        return Ok(vec![IpNet::from(ip.to_canonical())]);
    }
    match text.parse::<IpNet>() {
        Ok(net) => Ok(vec![canonical(net)]),
        Err(_) => Err("a network such as 10.0.0.0/8 or fd00::/8, or an IP address".into()),
    }
}

/// Reads the name or address of the XMPP server. Brackets around an IPv6 address are removed.
pub fn host(text: &str) -> Result<String, InvalidValue> {
    if let Some(ip) = ip(text) {
        return Ok(ip.to_string());
    }
    if is_host_name(text) {
        return Ok(text.to_ascii_lowercase());
    }
    Err("a host name, an IPv4 or an IPv6 address, without a port and without http://".into())
}

/// Reads an XMPP domain (RFC 7622 §3.2), in lower case.
pub fn jid_domain(text: &str) -> Result<String, InvalidValue> {
    match BareJid::parse(text) {
        Some(jid) if !text.contains(['@', '/']) && is_domain(jid.domain()) => {
            Ok(jid.as_str().to_owned())
        }
        _ => Err("a domain such as upload.example.org".into()),
    }
}

/// Reads an XMPP domain or a bare JID. There are no wildcards: a domain means all its users.
pub fn bare_jid(text: &str) -> Result<BareJid, InvalidValue> {
    let expected = "a domain such as example.org, or an address such as romeo@example.org";
    let lower = text.to_ascii_lowercase();
    if NOT_DOMAINS.contains(&&*lower) {
        return Err(format!("{expected}; {WHITELIST_HINT}").into());
    }
    if text.starts_with(['*', '@', '.']) {
        let more = "a domain means all its users, and subdomains are named one by one";
        return Err(format!("{expected}; {more}").into());
    }
    if text.contains('/') {
        return Err(format!("{expected}, without a resource or URL scheme").into());
    }
    // RFC 7622 §3.3.1 excludes these from the localpart; this also refuses xmpp: and mailto:.
    let local = text.split_once('@').map_or("", |(local, _)| local);
    BareJid::parse(text)
        .filter(|jid| is_domain(jid.domain()) && !local.contains(['"', '&', '\'', ':', '<', '>']))
        .ok_or_else(|| expected.into())
}

/// The address of a user: a bare JID with a local part.
pub fn user_jid(text: &str) -> Result<BareJid, InvalidValue> {
    let is_user = text.contains('@') && !text.starts_with('@');
    let parsed = Some(text).filter(|_| is_user).map(bare_jid);
    parsed
        .and_then(Result::ok)
        .ok_or_else(|| "the address of a user, such as romeo@example.org".into())
}

/// How to allow all users or none, for messages about an invalid whitelist.
pub const WHITELIST_HINT: &str = "remove the key to let all users upload, or write [] for none";

/// Words that are not domains, but are used in the hope of allowing or refusing all users.
const NOT_DOMAINS: [&str; 14] = [
    "true",
    "false",
    "yes",
    "no",
    "on",
    "off",
    "null",
    "all",
    "any",
    "anyone",
    "everyone",
    "everybody",
    "none",
    "nobody",
];

/// Whether a label of a domain is in punycode, which DNS uses, but XMPP does not (RFC 7622 §3.2.1).
pub fn is_punycode(domain: &str) -> bool {
    domain.split('.').any(|label| {
        let begin = label.get(..4);
        begin.is_some_and(|begin| begin.eq_ignore_ascii_case("xn--"))
    })
}

/// A port in digits alone, also 0.
pub fn port(text: &str) -> Option<u16> {
    u16::try_from(decimal::parse(text.as_bytes())?).ok()
}

/// An IP address; IPv6 with or without brackets.
pub fn ip(text: &str) -> Option<IpAddr> {
    match text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
    {
        Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    }
}

/// Labels of letters, digits, hyphens and underscores (RFC 1123 §2.1; container networks use underscores). A name with a
/// numeric last label is refused: it is a malformed IPv4 address.
pub fn is_host_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= 253
        && name.is_ascii()
        && is_name(name)
        && !last.bytes().all(|b| b.is_ascii_digit())
}

/// An XMPP domain: a name with letters of any script, or an IP address. A numeric last label is refused, as in host
/// names.
fn is_domain(text: &str) -> bool {
    let last = text.rsplit('.').next().unwrap_or_default();
    is_name(text) && !last.bytes().all(|b| b.is_ascii_digit()) || ip(text).is_some()
}

fn is_name(text: &str) -> bool {
    text.split('.').all(|label| {
        let valid = |c: char| {
            c.is_alphanumeric() || c == '-' || c == '_' || !c.is_ascii() && !is_punctuation(c)
        };
        let edged = label.starts_with('-') || label.ends_with('-');
        (1..=63).contains(&label.chars().count()) && !edged && label.chars().all(valid)
    })
}

/// Punctuation and spaces outside ASCII that copied text often contains and that no domain does (RFC 5892 §2.6). The
/// joiners U+200C and U+200D are valid in some scripts, U+00B7 in Catalan.
fn is_punctuation(c: char) -> bool {
    match c {
        '\u{aa}' | '\u{b5}' | '\u{b7}' | '\u{ba}' | '\u{200c}' | '\u{200d}' => false,
        '\u{80}'..='\u{bf}'
        | '\u{2000}'..='\u{206f}'
        | '\u{2e00}'..='\u{2e7f}'
        | '\u{3000}'..='\u{3003}'
        | '\u{3008}'..='\u{3020}'
        | '\u{ff01}'..='\u{ff0f}'
        | '\u{feff}'
        | '\u{fffd}' => true,
        _ => false,
    }
}

/// Without host bits; IPv4-mapped IPv6 networks as IPv4.
fn canonical(net: IpNet) -> IpNet {
    if let (IpAddr::V6(ip), Some(prefix)) = (net.addr(), net.prefix_len().checked_sub(96)) {
        if let Some(Ok(net)) = ip.to_ipv4_mapped().map(|ip| Ipv4Net::new(ip, prefix)) {
            return IpNet::V4(net.trunc());
        }
    }
    net.trunc()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check<T>(
        read: impl Fn(&str) -> Result<T, InvalidValue>,
        show: impl Fn(T) -> String,
        text: &str,
        shown: Option<&str>,
    ) {
        assert_eq!(read(text).ok().map(show).as_deref(), shown, "{text:?}");
    }

    fn join<T: ToString>(list: Vec<T>) -> String {
        list.iter().map(T::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn reads_listeners() {
        let good = [
            ("127.0.0.1", "127.0.0.1:80"),
            ("0.0.0.0", "0.0.0.0:80"),
            ("::", "[::]:80"),
            ("[::]", "[::]:80"),
            ("::1", "[::1]:80"),
            ("[2001:DB8::1]", "[2001:db8::1]:80"),
            ("::ffff:127.0.0.1", "127.0.0.1:80"),
            ("localhost", "127.0.0.1:80 [::1]:80"),
            ("LocalHost:8081", "127.0.0.1:8081 [::1]:8081"),
            ("127.0.0.1:8081", "127.0.0.1:8081"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("[::1]:8081", "[::1]:8081"),
            ("unix:/run/upslot/http.sock", "unix:/run/upslot/http.sock"),
        ];
        for (text, shown) in good {
            check(|t| listen(t, 80), join, text, Some(shown));
        }
        let long = format!("unix:/{}", "x".repeat(107));
        let bad = [
            "*",
            "",
            "example.org",
            "127.0.0.1:",
            "127.0.0.1:x",
            "127.0.0.1:65536",
            "localhost:",
            "127.0.0.256",
            "127.1",
            "[127.0.0.1]",
            "[::1",
            "::1]",
            "fe80::1%eth0",
            "[fe80::1%2]:80",
            "unix:",
            "unix:relative",
            "unix:/",
            "unix:/a\n",
            "http://127.0.0.1",
            "10.0.0.0/8",
            &long,
        ];
        for text in bad {
            check(|t| listen(t, 80), join, text, None);
        }
    }

    #[test]
    fn covers_equal_and_narrower_listeners() {
        let one = |text: &str| listen(text, 80).expect(text).remove(0);
        let cases = [
            ("::", "0.0.0.0", true),
            ("::", "127.0.0.1", true),
            ("::", "::1", true),
            ("::", "127.0.0.1:81", false),
            ("0.0.0.0", "127.0.0.1", true),
            ("0.0.0.0", "::1", false),
            ("0.0.0.0", "::", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "0.0.0.0", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("unix:/a", "unix:/a", true),
            ("unix:/a", "unix:/b", false),
            ("::", "unix:/a", false),
        ];
        for (wide, narrow, covers) in cases {
            assert_eq!(one(wide).covers(&one(narrow)), covers, "{wide} {narrow}");
        }
    }

    #[test]
    fn reads_networks() {
        let good = [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("::1", "::1/128"),
            ("[::1]", "::1/128"),
            ("fd00::/8", "fd00::/8"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.0.0.1", "10.0.0.1/32"),
            ("::/0", "::/0"),
            ("localhost", "127.0.0.0/8 ::1/128"),
        ];
        for (text, shown) in good {
            check(networks, join, text, Some(shown));
        }
        for text in [
            "",
            "unix",
            "proxy.example.org",
            "10.0.0.0/33",
            "10.0.0/8",
            "10.0.0.0/",
            "fd00::/129",
            "/8",
            "10.0.0.1-9",
        ] {
            check(networks, join, text, None);
        }
    }

    #[test]
    fn reads_hosts() {
        let good = [
            ("localhost", "localhost"),
            ("XMPP.Example.org", "xmpp.example.org"),
            ("prosody_1", "prosody_1"),
            ("example.org.", "example.org."),
            ("127.0.0.1", "127.0.0.1"),
            ("[::1]", "::1"),
            ("2001:DB8::1", "2001:db8::1"),
        ];
        for (text, shown) in good {
            check(host, |t| t, text, Some(shown));
        }
        let long = format!("{}.org", "x".repeat(64));
        let bad = [
            "",
            ".",
            "a..b",
            "-a",
            "a-.org",
            "münchen.example",
            "a b",
            "localhost:5347",
            "127.0.0.1:5347",
            "1.2.3",
            "256.1.1.1",
            "a/b",
            "a@b",
            &long,
        ];
        for text in bad {
            check(host, |t| t, text, None);
        }
    }

    #[test]
    fn reads_domains_and_jids() {
        for text in [
            "upload.example.org",
            "localhost",
            "münchen.example",
            "192.0.2.1",
            "[::1]",
        ] {
            check(jid_domain, |t| t, text, Some(text));
        }
        check(
            jid_domain,
            |t| t,
            "Upload.Example.ORG.",
            Some("upload.example.org"),
        );
        for text in [
            "",
            "a@b.example",
            "b.example/x",
            "a b",
            "*.example.org",
            "a,b",
            "http://x",
            "a..b",
            "x:5222",
        ] {
            check(jid_domain, |t| t, text, None);
        }
        for text in ["example.org", "romeo@example.org", "jürgen@münchen.example"] {
            check(bare_jid, |t| t.to_string(), text, Some(text));
        }
        for text in [
            "",
            "@example.org",
            "romeo@",
            "romeo@example.org/home",
            "*@example.org",
            "@",
            "a@b@c",
            "a@*.c",
        ] {
            check(bare_jid, |t| t.to_string(), text, None);
        }
    }
}
