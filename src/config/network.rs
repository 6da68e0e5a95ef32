//! The keys about connections: the link to the XMPP server, the listeners and their certificate, the public URLs,
//! the proxies.
//!
//! These belong together, because one of them is often wrong only beside another.

use ipnet::IpNet;

use crate::config::address::{self, Listen};
use crate::config::error::InvalidValue;
use crate::config::reader::ConfigReader;
use crate::config::scalar;
use crate::config::url::{self, BaseUrl};
use crate::config::values::{Component, SecretSource, TlsFiles};

/// Ports of XMPP servers that take no components.
const OTHER_PORTS: [(u16, &str); 6] = [
    (5222, "of clients"),
    (5223, "of clients"),
    (5269, "of other servers"),
    (5270, "of other servers"),
    (5280, "of HTTP"),
    (5281, "of HTTPS"),
];

/// Reads the component; absent without `component_jid`.
pub fn component(r: &mut ConfigReader) -> Option<Component> {
    let has_jid = r.given("component_jid");
    let has_inline = r.given("component_secret");
    let has_file = r.given("component_secret_file");
    if has_inline && has_file {
        let found = "a file beside component_secret";
        r.error("component_secret_file", found, "only one of both");
    }
    if has_jid && !has_inline && !has_file {
        let expected = "the secret of component_jid, or component_secret_file";
        r.error("component_secret", "nothing", expected);
    }
    if !has_jid && (has_inline || has_file) {
        r.error(
            "component_jid",
            "nothing",
            "the address that the component's secret is for",
        );
    }
    let jid = r.one("component_jid", address::jid_domain);
    let inline = r
        .secret("component_secret", 1, Some("component_secret_file"))
        .map(SecretSource::Inline);
    let file = r
        .one("component_secret_file", scalar::path)
        .map(SecretSource::File);
    let host = r.one("component_host", address::host);
    let port = r.one("component_port", |text| port(text, 1));
    if jid.as_deref().is_some_and(address::is_punycode) {
        let text = "is in punycode, which XMPP servers do not have in names of components: write it in its own letters";
        r.warn("component_jid", text);
    }
    if let Some((port, whose)) =
        port.and_then(|port| OTHER_PORTS.iter().find(|(other, _)| *other == port))
    {
        r.warn(
            "component_port",
            format!("is {port}, the usual port {whose}; servers take components at 5347 or 5275"),
        );
    }
    if !has_jid && !has_inline && !has_file {
        r.warn(
            "component_jid",
            "is absent, so nobody can ask for slots over XMPP",
        );
    }
    Some(Component {
        jid: jid?,
        secret: inline.or(file)?,
        host: host.unwrap_or_else(|| "localhost".into()),
        port: port.unwrap_or(5347),
    })
}

/// Reads where to listen. What another listener takes already is left out, because binding it would fail.
pub fn listen(r: &mut ConfigReader) -> Vec<Listen> {
    let port = r.one("http_port", |text| port(text, 0)).unwrap_or(8080);
    let default = if r.quoted_nothing("http_address") {
        // What Python's HTTP server makes of it, and so what HttpUploadComponent did.
        r.warn(
            "http_address",
            "is empty, which means every IPv4 address; 0.0.0.0 says so, and :: takes IPv6 too",
        );
        "0.0.0.0"
    } else {
        "127.0.0.1"
    };
    if !r.given("http_address") {
        return address::listen(default, port).unwrap_or_default();
    }
    if r.empty_list("http_address") {
        r.error("http_address", "an empty list", "at least one address");
    }
    let read = |text: &str| address::listen(text, port);
    let wanted = r
        .many("http_address", false, read)
        .unwrap_or_default()
        .concat();
    let covered_by = |at: usize| {
        let covers = |&other: &usize| {
            let mutual = wanted[at].covers(&wanted[other]);
            other != at && wanted[other].covers(&wanted[at]) && (!mutual || other < at)
        };
        (0..wanted.len()).find(covers)
    };
    let mut listen = Vec::new();
    for (at, place) in wanted.iter().enumerate() {
        match covered_by(at) {
            None => listen.push(place.clone()),
            Some(other) => {
                let text = format!("has {place}, which {} takes already", wanted[other]);
                r.warn("http_address", text);
            }
        }
    }
    listen
}

/// Reads the certificate's files.
pub fn tls(r: &mut ConfigReader) -> Option<TlsFiles> {
    for (key, other) in [
        ("http_certfile", "http_keyfile"),
        ("http_keyfile", "http_certfile"),
    ] {
        if r.given(other) && !r.given(key) {
            r.error(
                key,
                "nothing",
                format!("a PEM file, because {other} is set"),
            );
        }
    }
    let certfile = r.one("http_certfile", scalar::path);
    let keyfile = r.one("http_keyfile", scalar::path);
    Some(TlsFiles {
        certfile: certfile?,
        keyfile: keyfile?,
    })
}

/// Reads `get_url` or `put_url`. The result is empty when there is a fault.
pub fn base_url(r: &mut ConfigReader, key: &str) -> BaseUrl {
    let url = r.needed(
        key,
        "a URL such as https://upload.example.org/",
        url::base_url,
    );
    if url.as_ref().is_some_and(|url| !url.secure) {
        r.warn(
            key,
            "is not https, and many clients refuse such slots (XEP-0363 demands HTTPS)",
        );
    }
    url.unwrap_or_default()
}

/// Reads the networks of trusted proxies.
pub fn trusted_proxies(r: &mut ConfigReader) -> Vec<IpNet> {
    let networks = r
        .many("trusted_proxies", true, address::networks)
        .unwrap_or_default()
        .concat();
    if networks.iter().any(|net| net.prefix_len() == 0) {
        r.warn(
            "trusted_proxies",
            "has a network of all addresses, so everyone can forge where a request comes from",
        );
    }
    networks
}

fn port(text: &str, least: u64) -> Result<u16, InvalidValue> {
    let number = scalar::number(text, least..=65_535)?;
    u16::try_from(number).map_err(|_| "a port".into())
}
