//! The keys about connections: the link to the XMPP server, the listeners and their certificate, the public URLs, the
//! proxies.

use ipnet::IpNet;

use crate::config::address::{self, Listen};
use crate::config::keys::{self, ConfigKey};
use crate::config::reader::ConfigReader;
use crate::config::secrets;
use crate::config::url::BaseUrl;
use crate::config::values::{Component, SecretSource, TlsFiles};

/// Ports of XMPP servers that do not accept components.
const OTHER_PORTS: [(u16, &str); 6] = [
    (5222, "client"),
    (5223, "client"),
    (5269, "server-to-server"),
    (5270, "server-to-server"),
    (5280, "HTTP"),
    (5281, "HTTPS"),
];

/// Reads the component; absent without `component_jid`.
pub fn component(r: &mut ConfigReader) -> Option<Component> {
    check_component(r);
    let jid = r.get(&keys::COMPONENT_JID);
    let secret_key = keys::COMPONENT_SECRET.name();
    let inline = secrets::secret(r, secret_key, 1, Some(&keys::COMPONENT_SECRET_FILE))
        .map(SecretSource::Inline);
    let file = r.get(&keys::COMPONENT_SECRET_FILE).map(SecretSource::File);
    let host = r.value(&keys::COMPONENT_HOST);
    let port = r.value(&keys::COMPONENT_PORT);
    if jid.as_deref().is_some_and(address::is_punycode) {
        let text =
            "is in punycode, which XMPP does not use in domain names; write the Unicode name";
        r.warn(keys::COMPONENT_JID.name(), text);
    }
    if let Some((port, kind)) =
        port.and_then(|port| OTHER_PORTS.iter().find(|(other, _)| *other == port))
    {
        r.warn(
            keys::COMPONENT_PORT.name(),
            format!("is {port}, the usual {kind} port; servers accept components on 5347 or 5275"),
        );
    }
    Some(Component {
        jid: jid?,
        secret: inline.or(file)?,
        host: host?,
        port: port?,
    })
}

/// Reports missing and contradictory keys of the component.
fn check_component(r: &mut ConfigReader) {
    let jid = keys::COMPONENT_JID.name();
    let secret = keys::COMPONENT_SECRET.name();
    let file = keys::COMPONENT_SECRET_FILE.name();
    match (r.given(jid), r.given(secret), r.given(file)) {
        (true, false, false) => {
            r.error(secret, "nothing", format!("the secret of {jid}, or {file}"));
        }
        (false, false, false) => r.warn(jid, "is absent, so no slots can be requested over XMPP"),
        (false, ..) => r.error(
            jid,
            "nothing",
            "the address that the component's secret belongs to",
        ),
        (true, ..) => {}
    }
    if r.given(secret) && r.given(file) {
        let found = format!("a file in addition to {secret}");
        r.error(file, found, "only one of the two");
    }
}

/// Reads the public listeners. One that another covers is left out, because it could not be bound.
pub fn listen(r: &mut ConfigReader) -> Vec<Listen> {
    let key = &keys::HTTP_ADDRESS;
    let port = r.value(&keys::HTTP_PORT).unwrap_or_default();
    if r.quoted_nothing(key.name()) {
        // As in Python's HTTP server, and so in HttpUploadComponent.
        r.warn(
            key.name(),
            "is empty, which is read as every IPv4 address; write 0.0.0.0, or :: for IPv6 too",
        );
        return address::listen("0.0.0.0", port).unwrap_or_default();
    }
    if r.empty_list(key.name()) {
        r.error(key.name(), "an empty list", "at least one address");
    }
    let parse = |text: &str| address::listen(text, port);
    let wanted = match r.many(key.name(), false, parse) {
        Some(wanted) => wanted,
        None => r.value(key).iter().flat_map(|text| parse(text)).collect(),
    };
    without_covered(r, key, wanted.concat())
}

/// The listeners without those that another one covers, with a warning about each of these.
pub fn without_covered(
    r: &mut ConfigReader,
    key: &ConfigKey<String>,
    wanted: Vec<Listen>,
) -> Vec<Listen> {
    let (kept, covered) = address::without_covered(wanted);
    for (listen, other) in covered {
        let text = format!("has {listen}, which {other} already covers");
        r.warn(key.name(), text);
    }
    kept
}

/// Reads the certificate's files.
pub fn tls(r: &mut ConfigReader) -> Option<TlsFiles> {
    let (certfile, keyfile) = (&keys::HTTP_CERTFILE, &keys::HTTP_KEYFILE);
    for (key, other) in [(certfile, keyfile), (keyfile, certfile)] {
        if r.given(other.name()) && !r.given(key.name()) {
            let expected = format!("a PEM file, because {} is set", other.name());
            r.error(key.name(), "nothing", expected);
        }
    }
    let certfile = r.get(certfile);
    let keyfile = r.get(keyfile);
    Some(TlsFiles {
        certfile: certfile?,
        keyfile: keyfile?,
    })
}

/// Reads `get_url` or `put_url`. The result is empty after an error.
pub fn base_url(r: &mut ConfigReader, key: &ConfigKey<BaseUrl>) -> BaseUrl {
    let url = r.required(key, "a URL such as https://upload.example.org/");
    if url.as_ref().is_some_and(|url| !url.secure) {
        r.warn(
            key.name(),
            "is not https, and many clients refuse such slots (XEP-0363 requires HTTPS)",
        );
    }
    url.unwrap_or_default()
}

/// Reads the networks of trusted proxies.
pub fn trusted_proxies(r: &mut ConfigReader) -> Vec<IpNet> {
    let key = &keys::TRUSTED_PROXIES;
    let networks = r.items(key).unwrap_or_default().concat();
    if networks.iter().any(|net| net.prefix_len() == 0) {
        r.warn(
            key.name(),
            "has a network of all addresses, so any client can forge its address",
        );
    }
    networks
}
