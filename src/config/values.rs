//! The checked configuration: what every key has come to mean.
//!
//! Plain values without a way back to the text. [`crate::config::read`] makes them; the rest of the program reads them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use log::LevelFilter;

use crate::config::address::Listen;
use crate::config::secret::Secret;
use crate::config::url::BaseUrl;
use crate::jid::BareJid;
use crate::policy::rules::{Rule, Rules};
use crate::slot::Purpose;

/// Time between two sweeps where none is named and there is something to sweep.
const USUAL_INTERVAL: Duration = Duration::from_secs(3600);

/// The names of the purposes (XEP-0363 §5).
pub const PURPOSES: [&str; 4] = ["message", "profile", "ephemeral", "permanent"];

/// Everything an operator can choose, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The link to the XMPP server; without it upslot serves HTTP alone.
    pub component: Option<Component>,
    /// Root of the stored files; never the root of the file system. May be relative to the working directory.
    pub storage_path: PathBuf,
    /// Permissions of stored files; at least 0600.
    pub file_mode: u32,
    /// Permissions of folders; at least 0700.
    pub dir_mode: u32,
    /// Who may ask for slots; `None` is everyone, an empty list is nobody. A bare address means itself; a domain
    /// means itself and every user at exactly this domain, not at its subdomains.
    pub whitelist: Option<Vec<BareJid>>,
    /// Bytes; a file of exactly this size is allowed. At least 1.
    pub max_file_size: u64,
    /// Patterns of the MIME types that may be uploaded, `type/subtype`, `type/*` or `*/*` in lower case; `None` is
    /// all of them.
    pub allowed_file_types: Option<Vec<String>>,
    /// Patterns of the MIME types that are shown inline, as above; `None` is upslot's own choice. No wildcard stands
    /// for a type that can carry script.
    pub safe_file_types: Option<Vec<String>>,
    /// Where HTTP is served; at least one, none of which covers another.
    pub listen: Vec<Listen>,
    /// The certificate, when the listeners speak TLS.
    pub tls: Option<TlsFiles>,
    /// What GET URLs begin with.
    pub get_url: BaseUrl,
    /// What PUT URLs begin with.
    pub put_url: BaseUrl,
    /// CORS fields on every response.
    pub allow_web_clients: bool,
    /// Fields added to every response, in the order of the file; one that upslot sets too replaces upslot's. Names
    /// are tokens and unique, values visible ASCII; none of them frames a message or describes one file.
    pub custom_headers: Vec<(String, String)>,
    /// Whether GET and HEAD are answered; false when another server has that task.
    pub serve_downloads: bool,
    /// Time between slot and start of the PUT; 1 s to a year.
    pub put_timeout: Duration,
    /// Key that signs slots; at least 16 bytes. Never together with `slot_secret_file`.
    pub slot_secret: Option<Secret>,
    /// File that holds the key; neither of both: one is made at the first start.
    pub slot_secret_file: Option<PathBuf>,
    /// Time between two runs of the expiry; zero is off.
    pub expire_interval: Duration,
    /// Age at which a file goes; zero is never.
    pub expire_maxage: Duration,
    /// Bytes that one owner may store; 0 is off.
    pub user_quota_hard: u64,
    /// Bytes to which an owner's files are trimmed when the expiry runs; 0 is off.
    pub user_quota_soft: u64,
    /// Whether the owner's oldest files make room instead of a refusal at `user_quota_hard`.
    pub evict_on_quota: bool,
    /// Bytes that all files together may use; 0 is off.
    pub global_quota: u64,
    /// Bytes of the disk that uploads leave free; 0 is off.
    pub min_free_space: u64,
    /// Peers whose `Forwarded` and `X-Forwarded-For` are believed. IPv4 networks are never in their mapped form. A
    /// peer on a Unix socket has no address: it is believed when this list is not empty.
    pub trusted_proxies: Vec<IpNet>,
    /// Most open HTTP connections; `None` is 1024, or what the limit of descriptors allows. 1 to 65000.
    pub max_connections: Option<usize>,
    /// Most open HTTP connections of one client address; 0 is off.
    pub max_connections_per_address: usize,
    /// For the whole head of a request, and the TLS handshake; 1 s to a day.
    pub header_timeout: Duration,
    /// For 4 KiB of progress in a body, either way; 1 s to a day.
    pub body_timeout: Duration,
    /// For the next request on a kept connection; 1 s to a day.
    pub idle_timeout: Duration,
    /// For what is under way when the process is asked to end; 1 s to a day.
    pub shutdown_timeout: Duration,
    /// What may be uploaded by whom, first match wins; empty is no further restriction.
    pub access: Rules,
    /// The purposes that are announced, and what holds for each.
    pub purposes: Purposes,
    /// The listener of the slot API, `/health` and `/metrics`.
    pub api: Option<Api>,
    /// Key of PUTs that are signed by mod_http_upload_external, Metronome or ejabberd.
    pub external_secret: Option<Secret>,
    /// What Metronome puts into the signature of a DELETE; without it nobody can delete.
    pub external_delete_secret: Option<Secret>,
    /// Key of the tokens of mod_http_file_share.
    pub file_share_secret: Option<Secret>,
    /// Whether a 201 waits until file and name are on stable storage.
    pub fsync: bool,
    /// Whether the process is confined as far as the kernel can do it.
    pub sandbox: bool,
    /// How much is logged.
    pub log_level: LevelFilter,
}

impl Config {
    /// Time between two sweeps; zero is off. Files whose end stands in their path, or for which a purpose says so, are
    /// swept even if nothing goes by the general age.
    pub fn sweep_interval(&self) -> Duration {
        if self.expire_interval.is_zero() && self.has_other_expiry() {
            return USUAL_INTERVAL;
        }
        self.expire_interval
    }

    /// Whether files go for other reasons than the general age and quota.
    pub fn has_other_expiry(&self) -> bool {
        let ages = |age: Option<Duration>| age.is_some_and(|age| !age.is_zero());
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
            || purposes.any(|purpose| ages(purpose.expire_maxage))
            || limits.any(|limits| ages(limits.expire_maxage))
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

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// In the configuration; not empty.
    Inline(Secret),
    /// In this file, which somebody else reads.
    File(PathBuf),
}

/// PEM files of a TLS server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and those that lead to a root.
    pub certfile: PathBuf,
    /// The private key.
    pub keyfile: PathBuf,
}

/// The listener of the slot API, `/health` and `/metrics`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// At least one; none of them covers another, or one of the public listeners.
    pub listen: Vec<Listen>,
    /// What stands before `slot/` and `max_size/`; begins and ends with `/`, and holds nothing that could be spelt in
    /// another way.
    pub prefix: String,
    /// Peers that may ask; see [`Api::admits`]. IPv4 networks are never in their mapped form.
    pub allow: Vec<IpNet>,
    /// 16 to 1024 visible ASCII characters.
    pub token: Option<Secret>,
}

impl Api {
    /// Whether this peer may ask at all. `None` is a peer on a Unix socket, which has no address: who may open the
    /// socket is for its folder's permissions to say.
    pub fn admits(&self, peer: Option<IpAddr>) -> bool {
        peer.is_none_or(|peer| {
            let peer = peer.to_canonical();
            self.allow.iter().any(|net| net.contains(&peer))
        })
    }
}

/// What holds for the files of one purpose, where it differs from what holds for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PurposeLimits {
    /// Bytes, at least 1; `None` is the general `max_file_size`.
    pub max_file_size: Option<u64>,
    /// Age at which a file goes, zero is never; `None` is the general `expire_maxage`.
    pub expire_maxage: Option<Duration>,
    /// Bytes that one owner may store, 0 is off; `None` is the general `user_quota_hard`.
    pub user_quota_hard: Option<u64>,
}

/// The purposes that are listed, and so announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purposes {
    pub message: Option<PurposeLimits>,
    /// `expire_maxage` is never `None`: these files do not go by age unless it is said.
    pub profile: Option<PurposeLimits>,
    pub ephemeral: Option<PurposeLimits>,
    /// As for `profile`.
    pub permanent: Option<PurposeLimits>,
}

impl Default for Purposes {
    /// `message` alone, with what holds for all.
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
    /// The words of the listed purposes, for service discovery.
    pub fn announced(&self) -> Vec<&'static str> {
        let listed = [self.message, self.profile, self.ephemeral, self.permanent];
        let words = PURPOSES.iter().zip(listed);
        words
            .filter(|(_, limits)| limits.is_some())
            .map(|(word, _)| *word)
            .collect()
    }

    /// What holds for a purpose; `None` when it is not served. `message` is served always: it is what a request
    /// without a purpose means (XEP-0363 §5).
    pub fn limits(&self, purpose: Purpose) -> Option<PurposeLimits> {
        match purpose {
            Purpose::Message => Some(self.message.unwrap_or_default()),
            Purpose::Profile => self.profile,
            Purpose::Ephemeral { .. } => self.ephemeral,
            Purpose::Permanent => self.permanent,
        }
    }
}
