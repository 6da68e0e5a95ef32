//! The client's address behind reverse proxies: `X-Forwarded-For`, or `Forwarded` (RFC 7239) if there is none.
//!
//! Every proxy appends an address, so the list is read from its end: the first address that is not that of a trusted
//! proxy is the client's. Everything before it was sent by the client and is ignored.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::http::head::RequestHead;

/// The client's address, as reported by trusted proxies. `None` if they report none.
pub fn client_address(request: &RequestHead, trusted: &[IpNet]) -> Option<IpAddr> {
    let lists = |name: &str| -> Vec<String> {
        request
            .fields(name)
            .flat_map(|value| value.split(|b| *b == b','))
            .map(|entry| String::from_utf8_lossy(entry).trim().to_owned())
            .collect()
    };
    let mut entries = lists("x-forwarded-for");
    if entries.is_empty() {
        entries = lists("forwarded")
            .iter()
            .map(|entry| for_parameter(entry))
            .collect();
    }
    let mut found = None;
    for entry in entries.iter().rev() {
        // Nothing before an invalid entry can be trusted.
        let Some(address) = parse_address(entry) else {
            break;
        };
        found = Some(address);
        if !is_trusted(address, trusted) {
            break;
        }
    }
    found
}

/// Whether this is the address of a trusted proxy.
pub fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&address))
}

/// The unquoted value of `for` in one element of `Forwarded`; empty if there is none.
fn for_parameter(element: &str) -> String {
    element
        .split(';')
        .filter_map(|pair| pair.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))
        .map(|(_, value)| value.trim().trim_matches('"').to_owned())
        .unwrap_or_default()
}

/// Parses an address with or without a port, IPv6 with or without brackets.
fn parse_address(text: &str) -> Option<IpAddr> {
    let bare = match text.strip_prefix('[') {
        Some(rest) => rest.split(']').next()?,
        None if text.matches(':').count() == 1 => text.split(':').next()?,
        None => text,
    };
    bare.parse::<IpAddr>()
        .ok()
        .map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(fields: &str, client: Option<&str>) {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let request = RequestHead::parse(head.as_bytes()).unwrap();
        let trusted = ["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        let found = client_address(&request, &trusted);
        assert_eq!(found, client.map(|c| c.parse().unwrap()), "{fields}");
    }

    #[test]
    fn the_last_untrusted_address_is_the_client() {
        check("", None);
        check("X-Forwarded-For: 192.0.2.1\r\n", Some("192.0.2.1"));
        check(
            "X-Forwarded-For: 6.6.6.6, 192.0.2.1, 10.1.2.3\r\n",
            Some("192.0.2.1"),
        );
        check(
            "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 192.0.2.1\r\n",
            Some("192.0.2.1"),
        );
        check("X-Forwarded-For: 10.0.0.1\r\n", Some("10.0.0.1"));
        check("X-Forwarded-For: 192.0.2.1:1234\r\n", Some("192.0.2.1"));
        check(
            "X-Forwarded-For: [2001:db8::1]:99, ::1\r\n",
            Some("2001:db8::1"),
        );
        check("X-Forwarded-For: ::ffff:192.0.2.1\r\n", Some("192.0.2.1"));
        check(
            "X-Forwarded-For: 6.6.6.6, unknown, 10.0.0.1\r\n",
            Some("10.0.0.1"),
        );
        check("X-Forwarded-For: rubbish\r\n", None);
        check(
            "Forwarded: for=6.6.6.6, for=\"[2001:db8::1]:99\";proto=https\r\n",
            Some("2001:db8::1"),
        );
        check(
            "Forwarded: proto=https;For=192.0.2.1\r\n",
            Some("192.0.2.1"),
        );
        check(
            "Forwarded: for=6.6.6.6\r\nX-Forwarded-For: 192.0.2.1\r\n",
            Some("192.0.2.1"),
        );
        check("Forwarded: for=_hidden\r\n", None);
    }
}
