//! The configuration: YAML text to a checked [`Config`], and the differences between two of them.
//!
//! - [`error`] errors and warnings, and their texts;
//! - [`raw`] YAML to a tree whose nodes know their lines;
//! - [`scalar`] numbers, sizes, durations, paths; [`secret`]; [`address`]; [`url`]; [`contact`]; [`headers`]; [`stray`];
//! - [`values`] the checked configuration;
//! - [`keys`] the registry of all keys; [`nearest`] the key that a misspelt one most resembles;
//! - [`reader`] takes values out of the tree and collects errors; [`secrets`] those that are never repeated;
//! - [`access`] the rules; [`network`] the keys about connections; [`api`] the local API and the purposes; [`object_store`]
//!   and [`s3`] the store of objects;
//! - this file: all other keys, and relations between keys.
//!
//! It reads text and nothing else: no file, no environment, no resolver. Files named in it are opened by the caller. A
//! file written for HttpUploadComponent means the same here.

pub mod access;
pub mod address;
pub mod api;
pub mod contact;
pub mod error;
pub mod headers;
pub mod keys;
pub mod nearest;
pub mod network;
pub mod object_store;
pub mod raw;
pub mod reader;
pub mod s3;
pub mod scalar;
pub mod secret;
pub mod secrets;
pub mod stray;
pub mod url;
pub mod values;

#[cfg(test)]
mod tests;

use log::LevelFilter;

pub use crate::config::address::Listen;
pub use crate::config::error::{ConfigError, ConfigErrors, Warning};
pub use crate::config::keys::restart_keys;
pub use crate::config::object_store::{GetMode, ObjectStore, PutMode};
pub use crate::config::raw::MAX_TEXT;
pub use crate::config::secret::{Secret, SecretKey};
pub use crate::config::url::BaseUrl;
pub use crate::config::values::{
    Api, Component, Config, PurposeLimits, Purposes, SecretSource, TlsFiles,
};

use crate::config::keys::{ConfigKey, KEYS, KeyInfo};
use crate::config::raw::Value;
use crate::config::reader::ConfigReader;
use crate::decimal;
use crate::jid::BareJid;

/// A usable configuration, and the warnings about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    pub config: Config,
    pub warnings: Vec<Warning>,
    pub lines: KeyLines,
}

/// The lines of the keys, for errors in their values that are found later.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyLines(Vec<(String, usize)>);

impl KeyLines {
    /// The key with its line: `storage_path (line 7)`.
    pub fn named(&self, key: &str) -> String {
        match self.0.iter().find(|(name, _)| name == key) {
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
            Err(ConfigError::in_file(None, "text in UTF-16", "text in UTF-8").into())
        }
        Err(error) => {
            let valid = &bytes[..error.valid_up_to()];
            let line = 1 + valid.iter().filter(|&&b| b == b'\n').count();
            let found = "bytes that are not UTF-8";
            Err(ConfigError::in_file(Some(line), found, "text in UTF-8").into())
        }
    }
}

/// Reads a configuration. Fails with all errors at once; of broken YAML with the first only.
pub fn read(text: &str) -> Result<Reading, ConfigErrors> {
    let mut reader = ConfigReader::new(raw::parse(text)?);
    let config = config(&mut reader);
    if !reader.has_errors() {
        warn(&mut reader, &config);
    }
    let lines = KeyLines(reader.lines());
    let warnings = reader.finish()?;
    Ok(Reading {
        config,
        warnings,
        lines,
    })
}

/// Every field. An invalid or missing value is replaced by a placeholder that is never used: the error is recorded
/// in the reader, and [`read`] fails.
fn config(r: &mut ConfigReader) -> Config {
    let (slot_secret, slot_secret_file) = secrets::inline_or_file(
        r,
        &keys::SLOT_SECRET,
        secret::MIN_SLOT_SECRET,
        &keys::SLOT_SECRET_FILE,
    );
    let listen = network::listen(r);
    let allow_web_clients = r.value(&keys::ALLOW_WEB_CLIENTS).unwrap_or_default();
    let has_store = r.given(&keys::S3);
    let storage_path = match has_store {
        true => None,
        false => r.value(&keys::STORAGE_PATH),
    };
    let get_url = network::base_url(r, &keys::GET_URL);
    let mut config = Config {
        s3: s3::object_store(r, &get_url),
        api: api::api(r, &listen),
        access: access::access(r),
        purposes: api::purposes(r),
        external_secret: secrets::integration(r, &keys::EXTERNAL_SECRET),
        external_delete_secret: secrets::integration(r, &keys::EXTERNAL_DELETE_SECRET),
        file_share_secret: secrets::integration(r, &keys::FILE_SHARE_SECRET),
        listen,
        component: network::component(r),
        storage_path: storage_path.unwrap_or_default(),
        file_mode: mode(r, &keys::FILE_MODE),
        dir_mode: mode(r, &keys::DIR_MODE),
        whitelist: whitelist(r),
        admins: r.items(&keys::ADMINS).unwrap_or_default(),
        max_file_size: r.value(&keys::MAX_FILE_SIZE).unwrap_or_default(),
        allowed_file_types: r.items(&keys::ALLOWED_FILE_TYPES),
        safe_file_types: r.items(&keys::SAFE_FILE_TYPES),
        tls: network::tls(r),
        get_url,
        put_url: network::base_url(r, &keys::PUT_URL),
        allow_web_clients,
        custom_headers: custom_headers(r, allow_web_clients),
        serve_downloads: r.value(&keys::SERVE_DOWNLOADS).unwrap_or_default(),
        put_timeout: r.value(&keys::PUT_TIMEOUT).unwrap_or_default(),
        slot_secret,
        slot_secret_file,
        expire_interval: r.value(&keys::EXPIRE_INTERVAL).unwrap_or_default(),
        expire_maxage: r.value(&keys::EXPIRE_MAXAGE).unwrap_or_default(),
        user_quota_hard: r.value(&keys::USER_QUOTA_HARD).unwrap_or_default(),
        user_quota_soft: r.value(&keys::USER_QUOTA_SOFT).unwrap_or_default(),
        evict_on_quota: r.value(&keys::EVICT_ON_QUOTA).unwrap_or_default(),
        global_quota: r.value(&keys::GLOBAL_QUOTA).unwrap_or_default(),
        min_free_space: r.value(&keys::MIN_FREE_SPACE).unwrap_or_default(),
        trusted_proxies: network::trusted_proxies(r),
        max_connections: r.value(&keys::MAX_CONNECTIONS),
        max_connections_per_address: r
            .value(&keys::MAX_CONNECTIONS_PER_ADDRESS)
            .unwrap_or_default(),
        header_timeout: r.value(&keys::HEADER_TIMEOUT).unwrap_or_default(),
        body_timeout: r.value(&keys::BODY_TIMEOUT).unwrap_or_default(),
        idle_timeout: r.value(&keys::IDLE_TIMEOUT).unwrap_or_default(),
        shutdown_timeout: r.value(&keys::SHUTDOWN_TIMEOUT).unwrap_or_default(),
        contact: contacts(r),
        terms_url: r.get(&keys::TERMS_URL),
        fsync: r.value(&keys::FSYNC).unwrap_or_default(),
        sandbox: r.value(&keys::SANDBOX).unwrap_or_default(),
        log_level: r.value(&keys::LOG_LEVEL).unwrap_or(LevelFilter::Off),
    };
    if has_store {
        s3::adapt(r, &mut config);
    }
    config
}

fn whitelist(r: &mut ConfigReader) -> Option<Vec<BareJid>> {
    let key = &keys::WHITELIST;
    if !r.written(key) {
        r.warn(
            key,
            "is absent, so every user who reaches the component may upload",
        );
    }
    let list = r.items(key);
    let in_punycode = |jid: &&BareJid| address::is_punycode(jid.domain());
    if let Some(jid) = list.iter().flatten().find(in_punycode) {
        let text = format!(
            "has {}, which matches no JID: XMPP uses Unicode names such as münchen.example; only URLs and DNS use xn--",
            jid.domain()
        );
        r.warn(key, text);
    }
    list
}

fn custom_headers(r: &mut ConfigReader, cors: bool) -> Vec<(String, String)> {
    let key = &keys::CUSTOM_HEADERS;
    let headers = r.pairs(key, |name| headers::name(name, cors), headers::value);
    if headers.len() > headers::MAX_HEADERS {
        let found = format!("{} header fields", headers.len());
        r.error(key, found, format!("at most {}", headers::MAX_HEADERS));
    }
    headers
}

fn contacts(r: &mut ConfigReader) -> Vec<String> {
    let key = &keys::CONTACT;
    let addresses = r.items(key).unwrap_or_default();
    if addresses.len() > contact::MAX_ADDRESSES {
        let found = format!("{} addresses", addresses.len());
        r.error(key, found, format!("at most {}", contact::MAX_ADDRESSES));
    }
    addresses
}

fn mode(r: &mut ConfigReader, key: &ConfigKey<u32>) -> u32 {
    let mode = r.value(key).unwrap_or_default();
    if mode & 0o002 != 0 {
        let text = format!("is 0{mode:o}, which lets every user of this machine write");
        r.warn(key, text);
    }
    mode
}

/// Numbers below these are hardly meant as bytes or seconds.
const FEW_BYTES: u64 = 1000;
const FEW_SECONDS: u64 = 366;

/// Warns about numbers that are probably meant in another unit.
fn warn_of_units(r: &mut ConfigReader) {
    for key in KEYS.iter().filter(|key| key.kind == keys::BYTES) {
        if let Some(n) = bare_number(r, key).filter(|n| (1..FEW_BYTES).contains(n)) {
            let text = format!("has no unit, so it is in bytes; for mebibytes write {n} MiB");
            r.warn(key, text);
        }
    }
    let key = &keys::EXPIRE_MAXAGE;
    if let Some(n) = bare_number(r, key).filter(|n| (1..FEW_SECONDS).contains(n)) {
        let text = format!("has no unit, so it is in seconds; for days write {n} d");
        r.warn(key, text);
    }
}

/// A number without a unit.
fn bare_number(r: &ConfigReader, key: &KeyInfo) -> Option<u64> {
    match &r.node(key)?.value {
        Value::Scalar(text) => decimal::parse(text.as_bytes()),
        _ => None,
    }
}

/// Warns about values that have no effect, or another effect than it seems.
fn warn(r: &mut ConfigReader, config: &Config) {
    warn_of_units(r);
    warn_of_expiry(r, config);
    let hard = keys::USER_QUOTA_HARD.name;
    if config.user_quota_hard > 0 {
        if config.user_quota_soft > config.user_quota_hard {
            let text = format!("is above {hard}, so nothing is ever trimmed");
            r.warn(&keys::USER_QUOTA_SOFT, text);
        }
        if config.max_file_size > config.user_quota_hard {
            let text = format!("is above {hard}, so no file of this size fits");
            r.warn(&keys::MAX_FILE_SIZE, text);
        }
    } else if config.evict_on_quota {
        let text = format!("has no effect, because {hard} is 0");
        r.warn(&keys::EVICT_ON_QUOTA, text);
    }
}

fn warn_of_expiry(r: &mut ConfigReader, config: &Config) {
    let interval: &KeyInfo = &keys::EXPIRE_INTERVAL;
    let ages: (&KeyInfo, bool) = (&keys::EXPIRE_MAXAGE, !config.expire_maxage.is_zero());
    let trims: (&KeyInfo, bool) = (&keys::USER_QUOTA_SOFT, config.user_quota_soft > 0);
    if config.expire_interval.is_zero() {
        for (key, _) in [ages, trims].iter().filter(|(_, is_set)| *is_set) {
            let interval = interval.name;
            let text = format!("has no effect, because {interval} is 0 and there are no sweeps");
            r.warn(key, text);
        }
    } else if !ages.1 && !trims.1 && !config.has_other_expiry() {
        let (ages, trims) = (ages.0.name, trims.0.name);
        let text = format!("has no effect, because neither {ages} nor {trims} is set");
        r.warn(interval, text);
    }
}
