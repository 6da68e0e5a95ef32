//! The registry of all keys: the only place where a key's name, type, default and reload behaviour are written.
//!
//! Reading a value, its default, the nearest-key hints, the warnings about a missing unit, the keys that need a restart
//! and `upslot help config` all follow from these tables; a test compares `config.yml.sample` with them. To add a key:
//! one entry here, one field in [`Config`], one line in [`crate::config::read`], its text in the sample, and the manual
//! page written again (tests/README.md, "Conventions").

use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use log::LevelFilter;

use crate::config::address::{self, Listen};
use crate::config::contact;
use crate::config::error::InvalidValue;
use crate::config::object_store::{self, GetMode, PutMode};
use crate::config::scalar;
use crate::config::url::{self, BaseUrl};
use crate::config::values::Config;
use crate::http::origin::Origin;
use crate::jid::BareJid;

use DefaultValue::{Required, Text, Unset};
use EmptyList::{Refused, Warned};
use Reload::Restart;

/// One key of the file, or one entry of a map in it.
#[derive(Debug)]
pub struct KeyInfo {
    /// The heading that it stands under in `config.yml.sample`; for an entry, the key of its map.
    pub section: &'static str,
    pub name: &'static str,
    /// The type and unit of a value, for operators.
    pub kind: &'static str,
    pub default: DefaultValue,
    pub reload: Reload,
    /// One sentence.
    pub doc: &'static str,
    /// The entries of a map; none if their names are free.
    pub entries: &'static [&'static KeyInfo],
    /// What is expected instead of an empty value, if that is an error; else it is an absent key.
    pub empty_value: Option<&'static str>,
    pub empty_list: EmptyList,
}

impl KeyInfo {
    /// The default in words.
    pub fn default_in_words(&self) -> String {
        match self.default {
            Required(_) => "required".to_owned(),
            Unset => "no default".to_owned(),
            Text(default) => format!("default: {default}"),
        }
    }
}

/// A key with the parser of its values.
#[derive(Debug)]
pub struct ConfigKey<T> {
    pub info: KeyInfo,
    /// Parses a single value, or one item of a list.
    pub parse: fn(&str) -> Result<T, InvalidValue>,
}

impl<T> ConfigKey<T> {
    pub fn name(&self) -> &'static str {
        self.info.name
    }
}

impl<T> Deref for ConfigKey<T> {
    type Target = KeyInfo;

    fn deref(&self) -> &KeyInfo {
        &self.info
    }
}

/// Sizes; a small number without a unit is warned about.
pub const BYTES: &str = "bytes";

/// The value of a key that is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultValue {
    /// None: the key must be there. Its value, as errors describe it.
    Required(&'static str),
    /// None: the feature is off, or the program chooses.
    Unset,
    /// This value, written as in the file.
    Text(&'static str),
}

/// How a change takes effect.
#[derive(Clone, Copy, Debug)]
pub enum Reload {
    /// At SIGHUP.
    Applied,
    /// After a restart, if these two configurations differ in it.
    Restart(fn(&Config, &Config) -> bool),
}

/// What `[]` means.
#[derive(Clone, Copy, Debug)]
pub enum EmptyList {
    /// Nothing special.
    Allowed,
    /// A clause that warns about it.
    Warned(&'static str),
    /// An error: what was found, and what is expected.
    Refused(&'static str, &'static str),
}

/// The values of the fields that a key leaves out.
const OMITTED: KeyInfo = KeyInfo {
    section: "",
    name: "",
    kind: "",
    default: Unset,
    reload: Reload::Applied,
    doc: "",
    entries: &[],
    empty_value: None,
    empty_list: EmptyList::Allowed,
};

/// Defines each key as a static of its own, and the table of them in this order. After its sentence, a key may have
/// further fields of [`KeyInfo`].
macro_rules! keys {
    (
        $(#[$attribute:meta])*
        $table:ident
        $($section:literal {
            $($id:ident: $type:ty = $name:literal, $kind:expr, $default:expr, $parse:expr, $doc:literal
            $(, $field:ident: $value:expr)*;)*
        })*
    ) => {
        $($(
            #[doc = $doc]
            pub static $id: ConfigKey<$type> = ConfigKey {
                info: KeyInfo {
                    section: $section,
                    name: $name,
                    kind: $kind,
                    default: $default,
                    doc: $doc,
                    $($field: $value,)*
                    ..OMITTED
                },
                parse: $parse,
            };
        )*)*
        $(#[$attribute])*
        pub static $table: &[&KeyInfo] = &[$($(&$id.info),*),*];
    };
}

// Texts of several keys.
const EMPTY: &str = "an empty list";
const ALL_REFUSED: &str = "is an empty list, so all uploads are refused";
const NO_LIMIT: &str = "a value; without the key there is no limit";
const MIME_TYPES: &str = "MIME types; remove the key for the default, or write [] for none";
const A_URL: &str = "a URL such as https://upload.example.org/";
const DELTA: &str = "the length of the window in seconds, such as 3600 or 1 h";
/// What is expected of the patterns of a rule.
pub const PATTERNS: &str =
    "a regular expression or a list of them, in single quotes such as '@example\\.org$'";

keys! {
    /// Every key of the file, in the order of `config.yml.sample`.
    KEYS
    "XMPP server" {
        COMPONENT_JID: String = "component_jid", "domain", Unset, address::jid_domain,
            "The domain of the component (XEP-0114), which clients discover; without it there is no XMPP side.";
        COMPONENT_SECRET: String = "component_secret", "secret", Unset, scalar::text,
            "The secret shared with the XMPP server.";
        COMPONENT_SECRET_FILE: PathBuf = "component_secret_file", "path", Unset, scalar::path,
            "A file that holds the secret, instead of component_secret.";
        COMPONENT_HOST: String = "component_host", "host name or address", Text("localhost"), address::host,
            "The host on which the XMPP server listens for components.";
        COMPONENT_PORT: u16 = "component_port", "port", Text("5347"), |text| scalar::number(text, 1..=MAX_PORT),
            "The port on which the XMPP server listens for components.";
    }
    "HTTP" {
        HTTP_ADDRESS: String = "http_address", "list of addresses", Text("127.0.0.1"), scalar::text,
            "The addresses to listen on: IPv4, IPv6, localhost or unix:/path, each with or without a port of its own.",
            empty_list: Refused(EMPTY, "at least one address"),
            reload: Restart(addresses_changed);
        HTTP_PORT: u16 = "http_port", "port", Text("8080"), |text| scalar::number(text, 0..=MAX_PORT),
            "The port for addresses without one; 0 lets the system choose.",
            reload: Restart(ports_changed);
        HTTP_CERTFILE: PathBuf = "http_certfile", "path", Unset, scalar::path,
            "PEM file with the certificate chain; turning TLS on or off needs a restart, a renewed certificate does not.",
            reload: Restart(|old, new| old.tls.is_some() != new.tls.is_some());
        HTTP_KEYFILE: PathBuf = "http_keyfile", "path", Unset, scalar::path,
            "PEM file with the private key of http_certfile.";
        GET_URL: BaseUrl = "get_url", "URL", Required(A_URL), url::base_url,
            "The URL prefix of downloads, as clients see it.";
        PUT_URL: BaseUrl = "put_url", "URL", Required(A_URL), url::base_url,
            "The URL prefix of uploads, as clients see it.";
        ALLOW_WEB_CLIENTS: bool = "allow_web_clients", "true or false", Text("true"), scalar::boolean,
            "Whether browsers may use the service from any web site (CORS).";
        CUSTOM_HEADERS: String = "custom_headers", "map", Text("{}"), scalar::text,
            "Header fields that are added to every response.";
        SERVE_DOWNLOADS: bool = "serve_downloads", "true or false", Text("true"), scalar::boolean,
            "Whether GET and HEAD are answered; false if another web server serves storage_path.";
        SAFE_FILE_TYPES: String = "safe_file_types", "list of MIME types", Text("[image/*, video/*, audio/*, text/plain]"), scalar::mime_pattern,
            "The types that browsers may show inline instead of saving them.",
            empty_value: Some(MIME_TYPES);
        TRUSTED_PROXIES: Vec<IpNet> = "trusted_proxies", "list of networks", Text("[]"), address::networks,
            "The proxies whose Forwarded and X-Forwarded-For fields name the client.";
    }
    "Storage" {
        STORAGE_PATH: PathBuf = "storage_path", "path", Required("the folder of the stored files"), scalar::storage_path,
            "The folder of the stored files; not used with s3.",
            reload: Restart(|old, new| old.storage_path != new.storage_path);
        FILE_MODE: u32 = "file_mode", "octal permissions", Text("0640"), |text| scalar::mode(text, 0o600),
            "Permissions of new files.";
        DIR_MODE: u32 = "dir_mode", "octal permissions", Text("0750"), |text| scalar::mode(text, 0o700),
            "Permissions of new folders.";
        FSYNC: bool = "fsync", "true or false", Text("true"), scalar::boolean,
            "Whether an upload is confirmed only when it is on stable storage.";
        MIN_FREE_SPACE: u64 = "min_free_space", BYTES, Text("67108864"), |text| scalar::size(text, 0),
            "Disk space that uploads leave free; 0 is off.";
        GLOBAL_QUOTA: u64 = "global_quota", BYTES, Text("0"), |text| scalar::size(text, 0),
            "Disk space that all files together may use; 0 is off.";
    }
    "Object store" {
        S3: String = "s3", "map", Unset, scalar::text,
            "An S3-compatible store that holds the files instead of storage_path.",
            entries: S3_KEYS,
            reload: Restart(store_changed);
    }
    "Users and limits" {
        WHITELIST: BareJid = "whitelist", "list of domains and addresses", Unset, address::bare_jid,
            "The domains and bare JIDs that may ask for slots; without the key all may, with [] none.",
            empty_value: Some("domains or addresses; remove the key to let all users upload, or write [] for none"),
            empty_list: Warned(ALL_REFUSED);
        ADMINS: BareJid = "admins", "list of addresses", Text("[]"), address::user_jid,
            "The bare JIDs of administrators, who see all usage and can delete a user's files by commands over XMPP.",
            empty_value: Some("addresses; remove the key, or write [], for none");
        MAX_FILE_SIZE: u64 = "max_file_size", BYTES, Text("20971520"), |text| scalar::size(text, 1),
            "Size of the largest file.";
        ALLOWED_FILE_TYPES: String = "allowed_file_types", "list of MIME types", Text("[\"*/*\"]"), scalar::mime_pattern,
            "The types that may be uploaded.",
            empty_value: Some(MIME_TYPES),
            empty_list: Warned(ALL_REFUSED);
        PUT_TIMEOUT: Duration = "put_timeout", "seconds", Text("360"), put_timeout,
            "Longest time between a slot and the start of its upload.";
        SLOT_SECRET: String = "slot_secret", "secret", Unset, scalar::text,
            "The key that signs slots, at least 16 bytes; one is created at the first start if none is set.",
            reload: Restart(|old, new| old.slot_secret != new.slot_secret);
        SLOT_SECRET_FILE: PathBuf = "slot_secret_file", "path", Unset, scalar::path,
            "A file that holds the key, instead of slot_secret.",
            reload: Restart(|old, new| old.slot_secret_file != new.slot_secret_file);
    }
    "Expiry and quotas" {
        EXPIRE_INTERVAL: Duration = "expire_interval", "seconds", Text("0"), |text| scalar::span(text, 0),
            "Time between two sweeps, which delete expired files and apply user_quota_soft; 0 is off.";
        EXPIRE_MAXAGE: Duration = "expire_maxage", "seconds", Text("0"), |text| scalar::span(text, 0),
            "Age at which a file expires; 0 is never.";
        USER_QUOTA_HARD: u64 = "user_quota_hard", BYTES, Text("0"), |text| scalar::size(text, 0),
            "Disk space that one user may use; larger requests are refused; 0 is off.";
        USER_QUOTA_SOFT: u64 = "user_quota_soft", BYTES, Text("0"), |text| scalar::size(text, 0),
            "Size to which a sweep trims the files of one user, the oldest first; 0 is off.";
        EVICT_ON_QUOTA: bool = "evict_on_quota", "true or false", Text("false"), scalar::boolean,
            "Whether a user's oldest files are deleted for a new one that user_quota_hard would refuse.";
    }
    "Connection limits" {
        MAX_CONNECTIONS: usize = "max_connections", "number", Unset, |text| scalar::number(text, 1..=MOST_CONNECTIONS),
            "Most open HTTP connections, 1 to 65000; by default 1024, or fewer where descriptors are scarce.";
        MAX_CONNECTIONS_PER_ADDRESS: usize = "max_connections_per_address", "number", Text("0"), |text| scalar::number(text, 0..=MOST_CONNECTIONS),
            "Most open HTTP connections of one client address; 0 is off.";
        HEADER_TIMEOUT: Duration = "header_timeout", "seconds", Text("10"), scalar::timeout,
            "Time limit for a whole request head, and for the TLS handshake.";
        BODY_TIMEOUT: Duration = "body_timeout", "seconds", Text("60"), scalar::timeout,
            "Time limit for each 4 KiB of a body.";
        IDLE_TIMEOUT: Duration = "idle_timeout", "seconds", Text("60"), scalar::timeout,
            "Longest time between two requests on a connection.";
        SHUTDOWN_TIMEOUT: Duration = "shutdown_timeout", "seconds", Text("30"), scalar::timeout,
            "Time limit for transfers in progress at shutdown.";
    }
    "Access rules and purposes" {
        ACCESS: String = "access", "map", Text("[{jid: \".*\"}]"), scalar::text,
            "Rules about who may upload how much; the first matching rule decides, and without a match the answer is no.",
            entries: RULE_KEYS,
            empty_value: Some("a list of rules; without the key only the whitelist applies"),
            empty_list: Refused(
                "an empty list, which refuses all uploads",
                "at least one rule; without the key only the whitelist applies",
            );
        PURPOSES: String = "purposes", "map", Text("{message: {}}"), scalar::text,
            "The purposes (XEP-0363) that are announced, each with limits of its own.",
            entries: PURPOSE_NAMES;
    }
    "Other integrations" {
        API: String = "api", "map", Unset, scalar::text,
            "The local API: slots for other programs, /health and /metrics; a new address or port needs a restart.",
            entries: API_KEYS,
            reload: Restart(api_changed);
        EXTERNAL_SECRET: String = "external_secret", "secret", Unset, scalar::text,
            "The secret of PUTs signed by mod_http_upload_external, Metronome or ejabberd.";
        EXTERNAL_DELETE_SECRET: String = "external_delete_secret", "secret", Unset, scalar::text,
            "Metronome's http_file_delete_secret; without it no DELETE is allowed.";
        FILE_SHARE_SECRET: String = "file_share_secret", "secret", Unset, scalar::text,
            "The secret of Prosody's mod_http_file_share.";
    }
    "Contact" {
        CONTACT: String = "contact", "list of mailto:, xmpp: or https: addresses", Unset, contact::address,
            "How people reach the operator: shown on the page / to browsers, and in service discovery (XEP-0157).";
        TERMS_URL: String = "terms_url", "URL", Unset, contact::web_page,
            "The terms of use, to which the page / links.";
    }
    "Sandbox" {
        SANDBOX: bool = "sandbox", "auto or off", Text("auto"), scalar::sandbox,
            "Whether the process restricts itself as far as the kernel supports it (Landlock).",
            reload: Restart(|old, new| old.sandbox != new.sandbox);
    }
    "Log" {
        LOG_LEVEL: LevelFilter = "log_level", "error, warn, info, debug or trace", Text("info"), scalar::log_level,
            "How much is logged; the environment variable RUST_LOG takes precedence.";
    }
}

keys! {
    /// The entries of `api`.
    API_KEYS
    "api" {
        API_ADDRESS: String = "address", "list of addresses", Text("127.0.0.1"), scalar::text,
            "The addresses to listen on, as in http_address.",
            empty_list: Refused(EMPTY, "at least one address");
        API_PORT: u16 = "port", "port", Required("the port of the API, a whole number from 0 to 65535"), |text| scalar::number(text, 0..=MAX_PORT),
            "The port for addresses without one.";
        API_PREFIX: String = "prefix", "path", Text("/"), url::path_prefix,
            "The path before slot/ and max_size/.";
        API_ALLOW: Vec<IpNet> = "allow", "list of networks", Text("localhost"), address::networks,
            "The networks whose requests are accepted.",
            empty_list: Warned("is an empty list, so only Unix sockets are accepted");
        API_TOKEN: String = "token", "secret", Unset, scalar::text,
            "A bearer token of 16 to 1024 characters that every request must carry.";
    }
}

keys! {
    /// The entries of `s3`. Its place is opened once; everything else is applied at SIGHUP.
    S3_KEYS
    "s3" {
        S3_ENDPOINT: Origin = "endpoint", "URL", Required("the URL of the store, such as https://s3.example.org"), object_store::endpoint,
            "The store as clients reach it; presigned URLs begin with it.",
            reload: Restart(store_changed);
        S3_INTERNAL_ENDPOINT: Origin = "internal_endpoint", "URL", Unset, object_store::endpoint,
            "The store as upslot reaches it, if not as clients do.",
            reload: Restart(store_changed);
        S3_BUCKET: String = "bucket", "name", Required("the name of the bucket"), object_store::bucket,
            "The bucket, which must exist.",
            reload: Restart(store_changed);
        S3_REGION: String = "region", "name", Text("us-east-1"), object_store::region,
            "The region, which is part of every signature.",
            reload: Restart(store_changed);
        S3_PREFIX: String = "prefix", "text", Unset, object_store::prefix,
            "The beginning of all keys, such as uploads/.",
            reload: Restart(store_changed);
        S3_PATH_STYLE: bool = "path_style", "true or false", Text("true"), scalar::boolean,
            "Whether the bucket is part of the path; false: of the host name.",
            reload: Restart(store_changed);
        S3_ACCESS_KEY: String = "access_key", "text", Required("the access key of the bucket's user"), object_store::access_key,
            "The name of the key.";
        S3_SECRET_KEY: String = "secret_key", "secret", Unset, scalar::text,
            "The secret that belongs to access_key.";
        S3_SECRET_KEY_FILE: PathBuf = "secret_key_file", "path", Unset, scalar::path,
            "A file that holds the secret, instead of secret_key.";
        S3_CA_FILE: PathBuf = "ca_file", "path", Unset, scalar::path,
            "PEM file with root certificates for the store, instead of those of the system.";
        S3_PUT: PutMode = "put", "relay or direct", Text("relay"), object_store::put_mode,
            "The way of uploads: through upslot, or from the client to a presigned URL.";
        S3_GET: GetMode = "get", "redirect, relay or public", Text("redirect"), object_store::get_mode,
            "The way of downloads: from a presigned URL, through upslot, or from public_url.";
        S3_PUBLIC_URL: BaseUrl = "public_url", "URL", Unset, url::base_url,
            "The URL prefix of public links to objects, for get: public.";
        S3_SIGN_CONTENT_TYPE: bool = "sign_content_type", "true or false", Text("true"), scalar::boolean,
            "Whether the store refuses a PUT of another type than the slot's, with put: direct.";
    }
}

keys! {
    /// The entries of `purposes`.
    PURPOSE_NAMES
    "purposes" {
        PURPOSE_MESSAGE: String = "message", "map", Unset, scalar::text,
            "Files without a purpose, and those sent in messages.",
            entries: PURPOSE_KEYS;
        PURPOSE_PROFILE: String = "profile", "map", Unset, scalar::text,
            "Profile pictures; never evicted or trimmed.",
            entries: PURPOSE_KEYS;
        PURPOSE_EPHEMERAL: String = "ephemeral", "map", Unset, scalar::text,
            "Files that expire at a time that the client may choose.",
            entries: PURPOSE_KEYS;
        PURPOSE_PERMANENT: String = "permanent", "map", Unset, scalar::text,
            "Files that are meant to stay; never evicted or trimmed.",
            entries: PURPOSE_KEYS;
    }
}

keys! {
    /// The entries of each purpose.
    PURPOSE_KEYS
    "purpose" {
        PURPOSE_MAX_FILE_SIZE: u64 = "max_file_size", BYTES, Unset, |text| scalar::size(text, 1),
            "Size of the largest file, instead of the global max_file_size.";
        PURPOSE_EXPIRE_MAXAGE: Duration = "expire_maxage", "seconds", Unset, |text| scalar::span(text, 0),
            "Age at which a file expires; 0 is never, which is the default of profile and permanent.";
        PURPOSE_USER_QUOTA_HARD: u64 = "user_quota_hard", BYTES, Unset, |text| scalar::size(text, 0),
            "Disk space that one user may use; counted apart from all other purposes.";
    }
}

keys! {
    /// The entries of each rule of `access`; all but the first two are limits.
    RULE_KEYS
    "access" {
        RULE_JID: String = "jid", "list of regular expressions", Required(PATTERNS), scalar::text,
            "Searched in the bare JID, ignoring case.",
            empty_value: Some(PATTERNS),
            empty_list: Refused(EMPTY, PATTERNS);
        RULE_UPLOAD: bool = "upload", "true or false", Text("true"), scalar::boolean,
            "Whether uploads are allowed at all.",
            empty_value: Some(NO_LIMIT);
        RULE_MAX_FILE_SIZE: u64 = "max_file_size", BYTES, Unset, |text| scalar::size(text, 1),
            "Size of the largest file.",
            empty_value: Some(NO_LIMIT);
        RULE_MAX_TOTAL_SIZE: u64 = "max_total_size", BYTES, Unset, |text| scalar::size(text, 1),
            "Disk space that all files of one user may use.",
            empty_value: Some(NO_LIMIT);
        RULE_BYTES: String = "bytes_per_timedelta", "map", Unset, scalar::text,
            "Bytes of slots within a window; a map or a list of up to 8.",
            entries: BYTE_WINDOW_KEYS,
            empty_value: Some(NO_LIMIT),
            empty_list: Refused(EMPTY, "at least one window; without the key there is no limit");
        RULE_UPLOADS: String = "uploads_per_timedelta", "map", Unset, scalar::text,
            "Number of slots within a window; a map or a list of up to 8.",
            entries: UPLOAD_WINDOW_KEYS,
            empty_value: Some(NO_LIMIT),
            empty_list: Refused(EMPTY, "at least one window; without the key there is no limit");
        RULE_EXPIRE_MAXAGE: Duration = "expire_maxage", "seconds", Unset, |text| scalar::span(text, 0),
            "Age at which a file expires; 0 is never.",
            empty_value: Some(NO_LIMIT);
        RULE_FILE_TYPES: String = "allowed_file_types", "list of MIME types", Unset, scalar::mime_pattern,
            "The types that may be uploaded, of those that the global allowed_file_types allows.",
            empty_value: Some(NO_LIMIT),
            empty_list: Refused(EMPTY, "at least one MIME type; \"upload: false\" refuses all of them");
    }
}

keys! {
    /// The entries of a window of bytes.
    BYTE_WINDOW_KEYS
    "bytes_per_timedelta" {
        BYTE_WINDOW_DELTA: Duration = "delta", "seconds", Required(DELTA), |text| scalar::span(text, 1),
            "Length of the window.";
        BYTE_WINDOW_BYTES: u64 = "bytes", BYTES, Required("a number of bytes above 0, such as 20971520 or 20 MiB"), |text| scalar::size(text, 1),
            "Most bytes within it.";
    }
}

keys! {
    /// The entries of a window of uploads.
    UPLOAD_WINDOW_KEYS
    "uploads_per_timedelta" {
        UPLOAD_WINDOW_DELTA: Duration = "delta", "seconds", Required(DELTA), |text| scalar::span(text, 1),
            "Length of the window.";
        UPLOAD_WINDOW_UPLOADS: u64 = "uploads", "number", Required("a whole number of uploads above 0"), uploads,
            "Most slots within it.";
    }
}

const MAX_PORT: u64 = u16::MAX as u64;

/// Longest time between slot and PUT.
const MAX_PUT_TIMEOUT: Duration = Duration::from_secs(365 * 86_400);

/// Upper bound of the connection limits; connection keys have 16 bits for the index.
const MOST_CONNECTIONS: u64 = 65_000;

fn put_timeout(text: &str) -> Result<Duration, InvalidValue> {
    let span = scalar::span(text, 1)?;
    if span > MAX_PUT_TIMEOUT {
        return Err("at most a year".into());
    }
    Ok(span)
}

fn uploads(text: &str) -> Result<u64, InvalidValue> {
    scalar::number(text, 1..=scalar::MAX_SIZE)
        .map_err(|_| "a whole number of uploads above 0".into())
}

fn addresses_changed(old: &Config, new: &Config) -> bool {
    let without_port = |listen: &Listen| match listen {
        Listen::Tcp(address) => Listen::Tcp((address.ip(), 0).into()),
        Listen::Unix(path) => Listen::Unix(path.clone()),
    };
    let old = old.listen.iter().map(without_port);
    !old.eq(new.listen.iter().map(without_port))
}

fn ports_changed(old: &Config, new: &Config) -> bool {
    old.listen != new.listen && !addresses_changed(old, new)
}

fn api_changed(old: &Config, new: &Config) -> bool {
    let listen = |config: &Config| config.api.as_ref().map(|api| api.listen.clone());
    listen(old) != listen(new)
}

fn store_changed(old: &Config, new: &Config) -> bool {
    match (&old.s3, &new.s3) {
        (Some(old), Some(new)) => !old.is_same_place(new),
        (old, new) => old.is_some() != new.is_some(),
    }
}

/// The keys in which the new configuration differs from the running one in a way that takes a restart: addresses are
/// bound and files opened once. Everything else is applied to the running process.
pub fn restart_keys(old: &Config, new: &Config) -> Vec<&'static str> {
    let needs_restart = |key: &&&KeyInfo| match key.reload {
        Reload::Applied => false,
        Reload::Restart(changed) => changed(old, new),
    };
    KEYS.iter()
        .filter(needs_restart)
        .map(|key| key.name)
        .collect()
}

/// All keys for operators, by section: type, default, whether a change needs a restart, and one line about each.
pub fn listing() -> String {
    let mut text = String::from(
        "Keys of the configuration file. Sizes take units such as MiB and MB, times s, m, h and d. Changes apply at SIGHUP\n\
         unless a restart is noted.\n",
    );
    let mut section = "";
    for key in KEYS {
        if key.section != section {
            section = key.section;
            text.push_str(&format!("\n{section}\n"));
        }
        describe(&mut text, "", key);
    }
    text
}

fn describe(text: &mut String, path: &str, key: &KeyInfo) {
    let KeyInfo {
        name, kind, doc, ..
    } = key;
    let default = key.default_in_words();
    let restart = match key.reload {
        Reload::Applied => "",
        Reload::Restart(_) => "; needs a restart",
    };
    text.push_str(&format!(
        "  {path}{name} ({kind}; {default}{restart})\n      {doc}\n"
    ));
    let path = format!("{path}{name}.");
    for entry in key.entries {
        describe(text, &path, entry);
    }
}
