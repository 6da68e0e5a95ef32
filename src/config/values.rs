//! The checked configuration, as the rest of the program reads it. [`crate::config::read`] creates it from text.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use log::LevelFilter;

use crate::config::address::Listen;
use crate::config::object_store::ObjectStore;
use crate::config::secret::Secret;
use crate::config::url::BaseUrl;
use crate::jid::BareJid;
use crate::policy::rules::{Rule, Rules};
use crate::purpose::Purpose;

/// Time between two sweeps if `expire_interval` is off and files may expire anyway.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(3600);

/// All keys. Their names, units and defaults are in [`crate::config::keys`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The link to the XMPP server; `None`: HTTP only.
    pub component: Option<Component>,
    /// Root of the stored files; never the root of the file system. May be relative to the working directory. Empty with
    /// `s3`.
    pub storage_path: PathBuf,
    /// The store that holds the files instead of a folder.
    pub s3: Option<Box<ObjectStore>>,
    /// Permissions of stored files; at least 0600.
    pub file_mode: u32,
    /// Permissions of folders; at least 0700.
    pub dir_mode: u32,
    /// JIDs that may request slots; `None` allows all, an empty list none. A bare JID means itself; a domain means itself
    /// and its users, not those of its subdomains.
    pub whitelist: Option<Vec<BareJid>>,
    /// Bare JIDs that may execute the commands of administrators.
    pub admins: Vec<BareJid>,
    /// Bytes; a file of exactly this size is allowed. At least 1.
    pub max_file_size: u64,
    /// Patterns of the MIME types that may be uploaded, `type/subtype`, `type/*` or `*/*` in lower case; `None` is
    /// all of them.
    pub allowed_file_types: Option<Vec<String>>,
    /// Patterns of the MIME types that are shown inline, as above; `None` is the built-in list. Wildcards exclude types
    /// that can carry script.
    pub safe_file_types: Option<Vec<String>>,
    /// Public listeners; at least one, none of which covers another.
    pub listen: Vec<Listen>,
    /// The certificate, when the listeners speak TLS.
    pub tls: Option<TlsFiles>,
    /// Prefix of GET URLs.
    pub get_url: BaseUrl,
    /// Prefix of PUT URLs.
    pub put_url: BaseUrl,
    /// CORS fields on every response.
    pub allow_web_clients: bool,
    /// Fields added to every response, in the order of the file; they replace upslot's own. Names are unique tokens, values
    /// visible ASCII; none of them frames a message or describes one file.
    pub custom_headers: Vec<(String, String)>,
    /// Whether GET and HEAD are answered; false if another server serves the files.
    pub serve_downloads: bool,
    /// Time between slot and start of the PUT; 1 s to a year.
    pub put_timeout: Duration,
    /// Key that signs slots; at least 16 bytes. Never together with `slot_secret_file`.
    pub slot_secret: Option<Secret>,
    /// File that holds the key; with neither of the two, a key is created at the first start. With `s3` there is one.
    pub slot_secret_file: Option<PathBuf>,
    /// Time between two sweeps; zero is off.
    pub expire_interval: Duration,
    /// Age at which a file expires; zero is never.
    pub expire_maxage: Duration,
    /// Bytes that one owner may store; 0 is off.
    pub user_quota_hard: u64,
    /// Bytes to which a sweep trims an owner's files; 0 is off.
    pub user_quota_soft: u64,
    /// Whether the owner's oldest files are evicted instead of a refusal at `user_quota_hard`.
    pub evict_on_quota: bool,
    /// Bytes that all files together may use; 0 is off.
    pub global_quota: u64,
    /// Bytes of the disk that uploads leave free; 0 is off.
    pub min_free_space: u64,
    /// Peers whose `Forwarded` and `X-Forwarded-For` are trusted. IPv4 networks are never in their mapped form. Peers on a
    /// Unix socket have no address; they are trusted if this list is not empty.
    pub trusted_proxies: Vec<IpNet>,
    /// Most open HTTP connections, 1 to 65000; `None` is 1024, or fewer where descriptors are scarce.
    pub max_connections: Option<usize>,
    /// Most open HTTP connections of one client address; 0 is off.
    pub max_connections_per_address: usize,
    /// For a whole request head, and for the TLS handshake; 1 s to a day.
    pub header_timeout: Duration,
    /// For each 4 KiB of a body, in either direction; 1 s to a day.
    pub body_timeout: Duration,
    /// For the next request on a keep-alive connection; 1 s to a day.
    pub idle_timeout: Duration,
    /// For transfers in progress at shutdown; 1 s to a day.
    pub shutdown_timeout: Duration,
    /// Access rules, first match wins; empty is no further restriction.
    pub access: Rules,
    /// The purposes that are announced, and the limits of each.
    pub purposes: Purposes,
    /// The listener of the slot API, `/health` and `/metrics`.
    pub api: Option<Api>,
    /// Key of PUTs that are signed by mod_http_upload_external, Metronome or ejabberd.
    pub external_secret: Option<Secret>,
    /// Metronome's secret of signed DELETEs; without it there are none.
    pub external_delete_secret: Option<Secret>,
    /// Key of the tokens of mod_http_file_share.
    pub file_share_secret: Option<Secret>,
    /// URIs at which people reach the operator, `mailto:`, `xmpp:` or `https:`; at most [`crate::config::contact::MAX_ADDRESSES`].
    pub contact: Vec<String>,
    /// The URL of the terms of use.
    pub terms_url: Option<String>,
    /// Whether a 201 is sent only when file and name are on stable storage.
    pub fsync: bool,
    /// Whether the process confines itself, as far as the kernel supports it.
    pub sandbox: bool,
    /// How much is logged.
    pub log_level: LevelFilter,
}

impl Config {
    /// Time between two sweeps; zero is off. Expiry by path, rule or purpose needs sweeps even if `expire_interval` is off.
    pub fn sweep_interval(&self) -> Duration {
        if self.expire_interval.is_zero() && self.has_other_expiry() {
            return DEFAULT_INTERVAL;
        }
        self.expire_interval
    }

    /// Whether files expire for other reasons than `expire_maxage` and `user_quota_soft`.
    pub fn has_other_expiry(&self) -> bool {
        let expires = |age: Option<Duration>| age.is_some_and(|age| !age.is_zero());
        let Purposes {
            message,
            profile,
            ephemeral,
            permanent,
        } = self.purposes;
        let mut purposes = [message, profile, permanent].into_iter().flatten();
        let mut limits = self.access.iter().filter_map(Rule::limits);
        ephemeral.is_some()
            || self.file_share_secret.is_some()
            || purposes.any(|purpose| expires(purpose.expire_maxage))
            || limits.any(|limits| expires(limits.expire_maxage))
    }
}

/// The link to the XMPP server (XEP-0114).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// The component's own address, a domain in lower case.
    pub jid: String,
    pub secret: SecretSource,
    /// Host name, IPv4 address, or IPv6 address without brackets.
    pub host: String,
    /// Never 0.
    pub port: u16,
}

/// The source of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// In the configuration; not empty.
    Inline(Secret),
    /// In this file, which the caller reads.
    File(PathBuf),
}

/// PEM files of a TLS server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain.
    pub certfile: PathBuf,
    /// The private key.
    pub keyfile: PathBuf,
}

/// The listener of the slot API, `/health` and `/metrics`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// At least one; none of them covers another, or one of the public listeners.
    pub listen: Vec<Listen>,
    /// Path before `slot/` and `max_size/`; begins and ends with `/`, and has only one spelling.
    pub prefix: String,
    /// Peers that are accepted; see [`Api::admits`]. IPv4 networks are never in their mapped form.
    pub allow: Vec<IpNet>,
    /// 16 to 1024 visible ASCII characters.
    pub token: Option<Secret>,
}

impl Api {
    /// Whether this peer is accepted. `None` is a peer on a Unix socket, which has no address: the permissions of its
    /// folder decide.
    pub fn admits(&self, peer: Option<IpAddr>) -> bool {
        peer.is_none_or(|peer| {
            let peer = peer.to_canonical();
            self.allow.iter().any(|net| net.contains(&peer))
        })
    }
}

/// The limits of one purpose, where they differ from the global ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PurposeLimits {
    /// Bytes, at least 1; `None` is the global `max_file_size`.
    pub max_file_size: Option<u64>,
    /// Age at which a file expires, zero is never; `None` is the global `expire_maxage`.
    pub expire_maxage: Option<Duration>,
    /// Bytes that one owner may store, 0 is off; `None` is the global `user_quota_hard`.
    pub user_quota_hard: Option<u64>,
}

/// The purposes that are listed, and therefore announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purposes {
    pub message: Option<PurposeLimits>,
    /// `expire_maxage` is never `None`: these files inherit no global age.
    pub profile: Option<PurposeLimits>,
    pub ephemeral: Option<PurposeLimits>,
    /// As for `profile`.
    pub permanent: Option<PurposeLimits>,
}

impl Default for Purposes {
    /// `message` alone, with the global limits.
    fn default() -> Purposes {
        Purposes {
            message: Some(PurposeLimits::default()),
            profile: None,
            ephemeral: None,
            permanent: None,
        }
    }
}

impl Purposes {
    /// The names of the listed purposes, for service discovery.
    pub fn announced(&self) -> Vec<&'static str> {
        let limits = [self.message, self.profile, self.ephemeral, self.permanent];
        Purpose::ALL
            .iter()
            .zip(limits)
            .filter(|(_, limits)| limits.is_some())
            .map(|(purpose, _)| purpose.word())
            .collect()
    }

    /// The limits of a purpose; `None` if it is not offered. `message` always is: requests without a purpose mean it
    /// (XEP-0363 §5).
    pub fn limits(&self, purpose: Purpose) -> Option<PurposeLimits> {
        match purpose {
            Purpose::Message => Some(self.message.unwrap_or_default()),
            Purpose::Profile => self.profile,
            Purpose::Ephemeral { .. } => self.ephemeral,
            Purpose::Permanent => self.permanent,
        }
    }
}
