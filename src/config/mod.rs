//! The configuration: YAML text to a checked [`Config`], and what changed between two of them.
//!
//! - [`error`] errors and warnings, and how they are said;
//! - [`raw`] YAML to a tree in which everything knows its line;
//! - [`scalar`] numbers, sizes, durations, modes; [`secret`]; [`address`]; [`url`]; [`headers`];
//! - [`values`] the checked configuration;
//! - [`keys`] the names of all keys, [`nearest`] which of them a misspelt one was meant to be;
//! - [`reader`] takes values out of the tree and gathers what is wrong;
//! - [`network`] the keys about connections; [`access`] the rules; [`api`] the local API, purposes, signed uploads;
//! - this file: what the keys mean, alone and together.
//!
//! It reads text and nothing else: no file, no environment, no resolver. Files that are named in it are opened by
//! others. A file written for HttpUploadComponent means here what it meant there.

pub mod access;
pub mod address;
pub mod api;
pub mod error;
pub mod headers;
pub mod keys;
pub mod nearest;
pub mod network;
pub mod raw;
pub mod reader;
pub mod scalar;
pub mod secret;
pub mod url;
pub mod values;

#[cfg(test)]
mod tests;

use std::path::{self, Path, PathBuf};
use std::time::Duration;

use log::LevelFilter;

pub use crate::config::address::Listen;
pub use crate::config::error::{ConfigError, ConfigErrors, Warning};
pub use crate::config::raw::MAX_TEXT;
pub use crate::config::secret::{Secret, SecretKey};
pub use crate::config::url::BaseUrl;
pub use crate::config::values::{
    Api, Component, Config, PurposeLimits, Purposes, SecretSource, TlsFiles,
};

use crate::config::error::InvalidValue;
use crate::config::reader::ConfigReader;
use crate::jid::BareJid;

/// Shortest slot secret, in bytes. Everybody who gets a slot can try secrets against its signature at leisure, so
/// a short one is as good as none.
const MIN_SLOT_SECRET: usize = 16;

/// Most connections that can be asked for; the connections' keys number them with 16 bits.
const MAX_CONNECTIONS: u64 = 65_000;

/// Longest time between slot and PUT, in seconds: a year.
const MAX_PUT_TIMEOUT: u64 = 365 * 86_400;

/// A usable configuration, and what is odd about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    pub config: Config,
    pub warnings: Vec<Warning>,
    pub lines: Lines,
}

/// Where the keys stand in the file, for what is found out about their values later.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines(Vec<(String, usize)>);

impl Lines {
    /// The key with its line, as it is named in messages: `storage_path (line 7)`.
    pub fn named(&self, key: &str) -> String {
        match self.0.iter().find(|(known, _)| known == key) {
            Some((_, line)) => format!("{key} (line {line})"),
            None => key.to_owned(),
        }
    }
}

/// Reads the bytes of a file, which must be UTF-8.
pub fn read_bytes(bytes: &[u8]) -> Result<Reading, ConfigErrors> {
    match std::str::from_utf8(bytes) {
        Ok(text) => read(text),
        Err(_) if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) => {
            let error = ConfigError {
                line: None,
                key: String::new(),
                found: "text in UTF-16".into(),
                expected: "text in UTF-8".into(),
            };
            Err(error.into())
        }
        Err(error) => {
            let valid = &bytes[..error.valid_up_to()];
            let error = ConfigError {
                line: Some(1 + valid.iter().filter(|&&b| b == b'\n').count()),
                key: String::new(),
                found: "bytes that are not UTF-8".into(),
                expected: "text in UTF-8".into(),
            };
            Err(error.into())
        }
    }
}

/// Reads a configuration. Fails with all its faults at once; of broken YAML there is only the first.
pub fn read(text: &str) -> Result<Reading, ConfigErrors> {
    let mut r = ConfigReader::new(raw::parse(text)?);
    let allow_web_clients = r.one("allow_web_clients", scalar::boolean).unwrap_or(true);
    let storage_path = r.needed(
        "storage_path",
        "the folder of the stored files",
        storage_path,
    );
    // An empty path or URL is never seen: what is missing or wrong is a fault, and then there is no config.
    let storage_path = storage_path.unwrap_or_default();
    let (slot_secret, slot_secret_file) = slot_secret(&mut r);
    let listen = network::listen(&mut r);
    let config = Config {
        api: api::api(&mut r, &listen),
        access: access::access(&mut r),
        purposes: api::purposes(&mut r),
        external_secret: api::signing_secret(&mut r, "external_secret"),
        external_delete_secret: api::signing_secret(&mut r, "external_delete_secret"),
        file_share_secret: api::signing_secret(&mut r, "file_share_secret"),
        listen,
        component: network::component(&mut r),
        storage_path,
        file_mode: mode(&mut r, "file_mode", 0o600, 0o640),
        dir_mode: mode(&mut r, "dir_mode", 0o700, 0o750),
        whitelist: whitelist(&mut r),
        max_file_size: size(&mut r, "max_file_size", 1, 20 << 20),
        allowed_file_types: file_types(&mut r, "allowed_file_types"),
        safe_file_types: file_types(&mut r, "safe_file_types"),
        tls: network::tls(&mut r),
        get_url: network::base_url(&mut r, "get_url"),
        put_url: network::base_url(&mut r, "put_url"),
        allow_web_clients,
        custom_headers: custom_headers(&mut r, allow_web_clients),
        serve_downloads: r.one("serve_downloads", scalar::boolean).unwrap_or(true),
        put_timeout: put_timeout(&mut r),
        slot_secret,
        slot_secret_file,
        expire_interval: span(&mut r, "expire_interval"),
        expire_maxage: span(&mut r, "expire_maxage"),
        user_quota_hard: size(&mut r, "user_quota_hard", 0, 0),
        user_quota_soft: size(&mut r, "user_quota_soft", 0, 0),
        evict_on_quota: r.one("evict_on_quota", scalar::boolean).unwrap_or(false),
        global_quota: size(&mut r, "global_quota", 0, 0),
        min_free_space: size(&mut r, "min_free_space", 0, 64 << 20),
        trusted_proxies: network::trusted_proxies(&mut r),
        max_connections: count(&mut r, "max_connections", 1),
        max_connections_per_address: count(&mut r, "max_connections_per_address", 0).unwrap_or(0),
        header_timeout: timeout(&mut r, "header_timeout", 10),
        body_timeout: timeout(&mut r, "body_timeout", 60),
        idle_timeout: timeout(&mut r, "idle_timeout", 60),
        shutdown_timeout: timeout(&mut r, "shutdown_timeout", 30),
        fsync: r.one("fsync", scalar::boolean).unwrap_or(true),
        sandbox: r.one("sandbox", scalar::sandbox).unwrap_or(true),
        log_level: r
            .one("log_level", scalar::log_level)
            .unwrap_or(LevelFilter::Info),
    };
    if !r.is_faulty() {
        warn(&mut r, &config);
    }
    let lines = Lines(r.lines());
    let warnings = r.finish()?;
    Ok(Reading {
        config,
        warnings,
        lines,
    })
}

/// The keys whose change takes effect only after a restart: what is bound or opened once. Everything else can be
/// applied to a running process, a renewed certificate too; a changed component means a new link.
pub fn restart_keys(old: &Config, new: &Config) -> Vec<&'static str> {
    let address = |listen: &Listen| match listen {
        Listen::Tcp(address) => Listen::Tcp((address.ip(), 0).into()),
        Listen::Unix(path) => Listen::Unix(path.clone()),
    };
    let moved = !old
        .listen
        .iter()
        .map(address)
        .eq(new.listen.iter().map(address));
    let changes = [
        ("http_address", moved),
        ("http_port", !moved && old.listen != new.listen),
        ("http_certfile", old.tls.is_some() != new.tls.is_some()),
        (
            "api",
            old.api.as_ref().map(|api| &api.listen) != new.api.as_ref().map(|api| &api.listen),
        ),
        ("storage_path", old.storage_path != new.storage_path),
        ("slot_secret", old.slot_secret != new.slot_secret),
        (
            "slot_secret_file",
            old.slot_secret_file != new.slot_secret_file,
        ),
        ("sandbox", old.sandbox != new.sandbox),
    ];
    changes
        .iter()
        .filter(|(_, changed)| *changed)
        .map(|(key, _)| *key)
        .collect()
}

fn slot_secret(r: &mut ConfigReader) -> (Option<Secret>, Option<PathBuf>) {
    if r.given("slot_secret") && r.given("slot_secret_file") {
        r.error(
            "slot_secret_file",
            "a file beside slot_secret",
            "only one of both",
        );
    }
    let secret = r.secret("slot_secret", MIN_SLOT_SECRET, Some("slot_secret_file"));
    (secret, r.one("slot_secret_file", scalar::path))
}

fn whitelist(r: &mut ConfigReader) -> Option<Vec<BareJid>> {
    if !r.written("whitelist") {
        r.warn(
            "whitelist",
            "is absent, so everyone who reaches the component may upload",
        );
    } else if !r.given("whitelist") {
        let expected = "domains or addresses; without the key everyone may upload, with [] nobody";
        r.error("whitelist", "an empty value", expected);
    } else if r.empty_list("whitelist") {
        r.warn("whitelist", "is an empty list, so nobody may upload");
    }
    let list = r.many("whitelist", true, address::bare_jid);
    let foreign = |jid: &&BareJid| address::is_punycode(jid.domain());
    if let Some(jid) = list.iter().flatten().find(foreign) {
        r.warn("whitelist", punycode(jid.domain()));
    }
    list
}

/// Why a domain in punycode lets nobody in.
fn punycode(domain: &str) -> String {
    format!(
        "has {domain}, which no JID has: XMPP writes names in their own letters, as in münchen.example; only URLs and \
         DNS take xn--"
    )
}

fn file_types(r: &mut ConfigReader, key: &str) -> Option<Vec<String>> {
    if r.written(key) && !r.given(key) {
        let expected = "MIME types; without the key the default holds, with [] there are none";
        r.error(key, "an empty value", expected);
    }
    if key == "allowed_file_types" && r.empty_list(key) {
        r.warn(key, "is an empty list, so nothing may be uploaded");
    }
    r.many(key, true, scalar::mime_pattern)
}

fn custom_headers(r: &mut ConfigReader, cors: bool) -> Vec<(String, String)> {
    let headers = r.pairs(
        "custom_headers",
        |name| headers::name(name, cors),
        headers::value,
    );
    if headers.len() > headers::MAX_HEADERS {
        let found = format!("{} header fields", headers.len());
        r.error(
            "custom_headers",
            found,
            format!("at most {}", headers::MAX_HEADERS),
        );
    }
    headers
}

fn put_timeout(r: &mut ConfigReader) -> Duration {
    let read = |text: &str| {
        let span = scalar::span(text, 1)?;
        if span.as_secs() > MAX_PUT_TIMEOUT {
            return Err("at most a year".into());
        }
        Ok(span)
    };
    r.one("put_timeout", read)
        .unwrap_or(Duration::from_secs(360))
}

fn mode(r: &mut ConfigReader, key: &str, needed: u32, default: u32) -> u32 {
    let mode = r
        .one(key, |text| scalar::mode(text, needed))
        .unwrap_or(default);
    if mode & 0o002 != 0 {
        r.warn(
            key,
            format!("is 0{mode:o}, which lets every user of this machine write"),
        );
    }
    mode
}

fn size(r: &mut ConfigReader, key: &str, least: u64, default: u64) -> u64 {
    r.one(key, |text| scalar::size(text, least))
        .unwrap_or(default)
}

fn span(r: &mut ConfigReader, key: &str) -> Duration {
    r.one(key, |text| scalar::span(text, 0)).unwrap_or_default()
}

fn timeout(r: &mut ConfigReader, key: &str, default: u64) -> Duration {
    r.one(key, scalar::timeout)
        .unwrap_or(Duration::from_secs(default))
}

fn count(r: &mut ConfigReader, key: &str, least: u64) -> Option<usize> {
    let number = r.one(key, |text| scalar::number(text, least..=MAX_CONNECTIONS))?;
    usize::try_from(number).ok()
}

/// Folders of the system, in which other programs' files are.
const SYSTEM: [&str; 14] = [
    "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/proc", "/root", "/run", "/sbin",
    "/sys", "/usr", "/var",
];

/// Files are served and removed below this folder, so neither the root of the file system nor one of its first folders
/// is ever meant.
fn storage_path(text: &str) -> Result<PathBuf, InvalidValue> {
    let named = |part: path::Component<'_>| matches!(part, path::Component::Normal(_));
    let whole = Path::new(text);
    if whole.has_root() && !whole.components().any(named) {
        return Err("a folder of its own, not the root of the file system".into());
    }
    if SYSTEM.iter().any(|system| whole == Path::new(system)) {
        return Err(
            "a folder of its own, not one of the system, whose files would be served and removed"
                .into(),
        );
    }
    scalar::path(text)
}

/// Numbers below these are hardly bytes or seconds.
const FEW_BYTES: u64 = 1000;
const FEW_SECONDS: u64 = 366;

/// Says where a number is probably meant in another unit than the one that it has.
fn warn_of_units(r: &mut ConfigReader) {
    for key in [
        "max_file_size",
        "user_quota_hard",
        "user_quota_soft",
        "global_quota",
        "min_free_space",
    ] {
        if let Some(n) = r.bare_number(key).filter(|n| (1..FEW_BYTES).contains(n)) {
            r.warn(
                key,
                format!("is a number of bytes, because it has no unit; {n} MiB is written so"),
            );
        }
    }
    let maxage = r.bare_number("expire_maxage");
    if let Some(n) = maxage.filter(|n| (1..FEW_SECONDS).contains(n)) {
        r.warn(
            "expire_maxage",
            format!("is a number of seconds, because it has no unit; {n} d are days"),
        );
    }
}

/// Says what is allowed but has no effect, or another effect than it seems.
fn warn(r: &mut ConfigReader, config: &Config) {
    warn_of_units(r);
    let ages = !config.expire_maxage.is_zero();
    let trims = config.user_quota_soft > 0;
    if config.expire_interval.is_zero() {
        let idle = "has no effect, because expire_interval is 0 and the expiry never runs";
        if ages {
            r.warn("expire_maxage", idle);
        }
        if trims {
            r.warn("user_quota_soft", idle);
        }
    } else if !ages && !trims && !config.has_other_expiry() {
        let idle = "has no effect, because neither expire_maxage nor user_quota_soft is set";
        r.warn("expire_interval", idle);
    }
    if config.user_quota_hard > 0 {
        if config.user_quota_soft > config.user_quota_hard {
            r.warn(
                "user_quota_soft",
                "is above user_quota_hard, so nothing is ever trimmed",
            );
        }
        if config.max_file_size > config.user_quota_hard {
            r.warn(
                "max_file_size",
                "is above user_quota_hard, so no file of this size fits",
            );
        }
    } else if config.evict_on_quota {
        r.warn(
            "evict_on_quota",
            "has no effect, because user_quota_hard is 0",
        );
    }
}
