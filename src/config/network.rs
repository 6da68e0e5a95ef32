//! The keys about connections: the link to the XMPP server, the listeners and their certificate, the public URLs, the
//! proxies.

use ipnet::IpNet;

use crate::config::address::{self, Listen};
use crate::config::error::InvalidValue;
use crate::config::keys::{self, ConfigKey, KeyInfo};
use crate::config::raw::Value;
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
    let (jid_key, secret_key) = (&keys::COMPONENT_JID, &keys::COMPONENT_SECRET);
    let file_key = &keys::COMPONENT_SECRET_FILE;
    let has_secret = r.given(secret_key) || r.given(file_key);
    match (r.given(jid_key), has_secret) {
        (true, false) => {
            let expected = format!("the secret of {}, or {}", jid_key.name, file_key.name);
            r.error(secret_key, "nothing", expected);
        }
        (false, true) => {
            let expected = "the address that the component's secret belongs to";
            r.error(jid_key, "nothing", expected);
        }
        (false, false) => r.warn(jid_key, "is absent, so no slots can be requested over XMPP"),
        (true, true) => {}
    }
    let jid = r.get(jid_key);
    let (inline, file) = secrets::inline_or_file(r, secret_key, 1, file_key);
    let host = r.value(&keys::COMPONENT_HOST);
    let port = r.value(&keys::COMPONENT_PORT);
    if jid.as_deref().is_some_and(address::is_punycode) {
        let text =
            "is in punycode, which XMPP does not use in domain names; write the Unicode name";
        r.warn(jid_key, text);
    }
    let other = OTHER_PORTS.iter().find(|(other, _)| port == Some(*other));
    if let Some((port, kind)) = other {
        r.warn(
            &keys::COMPONENT_PORT,
            format!("is {port}, the usual {kind} port; servers accept components on 5347 or 5275"),
        );
    }
    let secret = inline.map(SecretSource::Inline);
    Some(Component {
        jid: jid?,
        secret: secret.or(file.map(SecretSource::File))?,
        host: host?,
        port: port?,
    })
}

/// Reads the public listeners. One that another covers is left out, because it could not be bound.
pub fn listen(r: &mut ConfigReader) -> Vec<Listen> {
    let key = &keys::HTTP_ADDRESS;
    let port = r.value(&keys::HTTP_PORT).unwrap_or_default();
    let nothing = Value::Scalar(String::new());
    if r.entry(key)
        .is_some_and(|entry| entry.node.value == nothing)
    {
        // As in Python's HTTP server, and so in HttpUploadComponent.
        r.warn(
            key,
            "is empty, which is read as every IPv4 address; write 0.0.0.0, or :: for IPv6 too",
        );
        return address::listen("0.0.0.0", port).unwrap_or_default();
    }
    let wanted = addresses(r, key, |text| address::listen(text, port));
    without_covered(r, key, wanted)
}

/// The listeners that a key lists, or its default.
pub fn addresses(
    r: &mut ConfigReader,
    key: &ConfigKey<String>,
    parse: impl Fn(&str) -> Result<Vec<Listen>, InvalidValue>,
) -> Vec<Listen> {
    match r.many(key, false, &parse) {
        Some(listed) => listed.concat(),
        None => {
            let default = r.value(key).unwrap_or_default();
            parse(&default).unwrap_or_default()
        }
    }
}

/// The listeners without those that another one covers, with a warning about each of these. Of two equal ones the first
/// stays.
pub fn without_covered(r: &mut ConfigReader, key: &KeyInfo, wanted: Vec<Listen>) -> Vec<Listen> {
    let mut kept = Vec::new();
    for (at, listen) in wanted.iter().enumerate() {
        let mut others = wanted.iter().enumerate();
        let covering = others
            .find(|(other, wide)| wide.covers(listen) && (*other < at || !listen.covers(wide)));
        match covering {
            None => kept.push(listen.clone()),
            Some((_, wide)) => r.warn(key, format!("has {listen}, which {wide} already covers")),
        }
    }
    kept
}

/// Reads the certificate's files.
pub fn tls(r: &mut ConfigReader) -> Option<TlsFiles> {
    let (certfile, keyfile) = (&keys::HTTP_CERTFILE, &keys::HTTP_KEYFILE);
    for (key, other) in [(certfile, keyfile), (keyfile, certfile)] {
        if r.given(other) && !r.given(key) {
            let expected = format!("a PEM file, because {} is set", other.name);
            r.error(key, "nothing", expected);
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
    let url = r.value(key);
    if url.as_ref().is_some_and(|url| !url.secure) {
        r.warn(
            key,
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
            key,
            "has a network of all addresses, so any client can forge its address",
        );
    }
    networks
}
