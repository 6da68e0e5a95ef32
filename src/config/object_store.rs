//! The values of the section `s3`: the object store that holds the files instead of a folder, and the parsers of its
//! single values.

use std::net::IpAddr;
use std::path::PathBuf;

use crate::config::address;
use crate::config::error::InvalidValue;
use crate::config::secret::{self, SecretKey};
use crate::config::url;
use crate::http::origin::Origin;

/// Length of the name of a bucket, in characters.
const BUCKET: std::ops::RangeInclusive<usize> = 3..=63;

/// Longest region and access key, in bytes.
const MAX_SCOPE: usize = 128;

/// Longest prefix of keys, in bytes. A key has at most 1024, and the path of a file takes the rest.
const MAX_PREFIX: usize = 256;

/// The folder of upslot's own objects below the prefix of keys.
const INTERNAL: &str = ".upslot";

/// Endings of names that are not resolved outside a private network.
const PRIVATE_NAMES: [&str; 4] = [".localhost", ".local", ".internal", ".home.arpa"];

/// An S3-compatible store, and how uploads and downloads pass it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectStore {
    /// As clients reach the store; presigned URLs are for this host. The authority leaves out the default port of the
    /// scheme, as clients do in `Host`, which is signed.
    pub endpoint: Origin,
    /// As upslot reaches the store; by default the same.
    pub internal_endpoint: Origin,
    /// 3 to 63 letters, digits, `.`, `-` and `_`; without `path_style` those that a host name may have.
    pub bucket: String,
    /// Visible ASCII without `/`; not empty.
    pub region: String,
    /// Beginning of all keys: empty, or segments that each end with `/`. UTF-8 without control characters.
    pub prefix: String,
    /// Whether the bucket is the first segment of the path, instead of the first label of the host.
    pub path_style: bool,
    /// Visible ASCII without `/`; not empty.
    pub access_key: String,
    /// Empty until [`crate::setup`] has read `secret_key_file`, if there is one.
    pub secret_key: SecretKey,
    /// File that holds the secret key; the configuration itself holds it otherwise.
    pub secret_key_file: Option<PathBuf>,
    /// Root certificates for `internal_endpoint`; `None` is the system's bundle.
    pub ca_file: Option<PathBuf>,
    pub put: PutMode,
    pub get: GetMode,
    /// Prefix of public links to objects, ending in `/`; `Some` exactly if `get` is [`GetMode::Public`].
    pub public_url: Option<String>,
    /// Whether presigned PUT URLs are for the type that the slot request named.
    pub sign_content_type: bool,
}

impl ObjectStore {
    /// Where upslot connects to: `internal_endpoint`, and the bucket if it is the first label of the host.
    pub fn internal_origin(&self) -> Origin {
        let mut origin = self.internal_endpoint.clone();
        if !self.path_style {
            origin.host = format!("{}.{}", self.bucket, origin.host);
            origin.authority = format!("{}.{}", self.bucket, origin.authority);
        }
        origin
    }

    /// Whether both name the same objects over the same connections; everything else can be changed while running.
    pub fn is_same_place(&self, other: &ObjectStore) -> bool {
        self.endpoint == other.endpoint
            && self.internal_endpoint == other.internal_endpoint
            && self.bucket == other.bucket
            && self.region == other.region
            && self.prefix == other.prefix
            && self.path_style == other.path_style
    }
}

/// The way of an upload to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutMode {
    /// Through upslot.
    Relay,
    /// From the client to a presigned URL.
    Direct,
}

/// The way of a download from the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GetMode {
    /// upslot redirects to a presigned URL.
    Redirect,
    /// Through upslot.
    Relay,
    /// Links lead to `public_url`.
    Public,
}

/// Reads the URL of a store: scheme, host and port.
pub fn endpoint(text: &str) -> Result<Origin, InvalidValue> {
    let expected = "the URL of the store without a path, such as https://s3.example.org or http://[fd00::1]:3900; \
                    the bucket has a key of its own";
    let url = url::base_url(text)?;
    let (mut origin, path) =
        Origin::split(&url.prefix).ok_or_else(|| InvalidValue::from(expected))?;
    if path != "/" {
        return Err(expected.into());
    }
    // As clients write it into `Host`, which is signed.
    let is_default = origin.port == if origin.tls { 443 } else { 80 };
    let host = match address::ip(&origin.host) {
        Some(IpAddr::V6(ip)) => format!("[{ip}]"),
        _ => origin.host.clone(),
    };
    origin.authority = match is_default {
        true => host,
        false => format!("{host}:{}", origin.port),
    };
    Ok(origin)
}

/// Reads the name of a bucket. Capital letters and underscores, which some engines allow, are for `path_style` only;
/// see [`is_host_label`].
pub fn bucket(text: &str) -> Result<String, InvalidValue> {
    secret::refuse_template(text, "the name")?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let edged = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    let valid = BUCKET.contains(&bytes.len())
        && bytes.iter().all(|b| allowed(*b))
        && edged(bytes.first())
        && edged(bytes.last())
        && !text.contains("..");
    match valid {
        true => Ok(text.to_owned()),
        false => Err("the name of a bucket: 3 to 63 of a-z, 0-9, - and .".into()),
    }
}

/// Whether a bucket can be part of a host name, which ignores case.
pub fn is_host_label(bucket: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-".contains(&b);
    bucket.bytes().all(allowed)
}

/// Reads the name of a region.
pub fn region(text: &str) -> Result<String, InvalidValue> {
    secret::refuse_template(text, "the region")?;
    match is_scope(text) {
        true => Ok(text.to_owned()),
        false => Err("the name of a region, such as us-east-1 or garage".into()),
    }
}

/// Reads the name of a key, which is no secret, but may be a placeholder like one.
pub fn access_key(text: &str) -> Result<String, InvalidValue> {
    let expected = "the access key itself";
    if let Some(found) = secret::flaw(text) {
        let expected = format!("{expected}; environment variables are not expanded");
        return Err(InvalidValue::found(found, expected));
    }
    match is_scope(text) {
        true => Ok(text.to_owned()),
        false => Err(format!("{expected}, without spaces and slashes").into()),
    }
}

/// Whether a text can be part of a signature's scope, whose parts are separated by `/`.
fn is_scope(text: &str) -> bool {
    (1..=MAX_SCOPE).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b'/')
}

/// Reads the prefix of keys, with or without a `/` at either end.
pub fn prefix(text: &str) -> Result<String, InvalidValue> {
    secret::refuse_template(text, "the prefix")?;
    let inner = text.strip_prefix('/').unwrap_or(text);
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    if inner.is_empty() {
        return Ok(String::new());
    }
    let is_valid =
        |segment: &str| !matches!(segment, "" | "." | "..") && !segment.contains(char::is_control);
    if !inner.split('/').all(is_valid) || inner.len() >= MAX_PREFIX {
        return Err(format!(
            "a prefix of keys such as uploads/, without empty or dot segments, of at most {MAX_PREFIX} bytes"
        )
        .into());
    }
    if inner.split('/').any(|segment| segment == INTERNAL) {
        return Err(
            format!("another prefix of keys: {INTERNAL} is for upslot's own objects").into(),
        );
    }
    Ok(format!("{inner}/"))
}

/// Reads the way of uploads.
pub fn put_mode(text: &str) -> Result<PutMode, InvalidValue> {
    match text.to_ascii_lowercase().as_str() {
        "relay" => Ok(PutMode::Relay),
        "direct" => Ok(PutMode::Direct),
        _ => Err("relay or direct".into()),
    }
}

/// Reads the way of downloads.
pub fn get_mode(text: &str) -> Result<GetMode, InvalidValue> {
    match text.to_ascii_lowercase().as_str() {
        "redirect" => Ok(GetMode::Redirect),
        "relay" => Ok(GetMode::Relay),
        "public" => Ok(GetMode::Public),
        _ => Err("redirect, relay or public".into()),
    }
}

/// Whether a host is this machine or in a private network, as far as its name or address tells. Names without a dot are
/// those of containers and of /etc/hosts.
pub fn is_private(host: &str) -> bool {
    match address::ip(host).map(|ip| ip.to_canonical()) {
        Some(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        Some(IpAddr::V6(ip)) => {
            ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()
        }
        None => {
            let name = url::without_dot(host);
            !name.contains('.') || PRIVATE_NAMES.iter().any(|end| name.ends_with(end))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused<T: std::fmt::Debug>(
        read: impl Fn(&str) -> Result<T, InvalidValue>,
        texts: &[&str],
        part: &str,
    ) {
        for text in texts {
            let invalid = read(text).expect_err(text);
            assert!(
                invalid.expected.contains(part),
                "{text:?}: {}",
                invalid.expected
            );
        }
    }

    #[test]
    fn endpoints_have_the_authority_that_clients_send() {
        for (text, (tls, host, port, authority)) in [
            (
                "https://S3.Example.org",
                (true, "s3.example.org", 443, "s3.example.org"),
            ),
            (
                "https://s3.example.org:443/",
                (true, "s3.example.org", 443, "s3.example.org"),
            ),
            (
                "https://s3.example.org:80",
                (true, "s3.example.org", 80, "s3.example.org:80"),
            ),
            ("http://garage:0080", (false, "garage", 80, "garage")),
            (
                "http://127.0.0.1:3900/",
                (false, "127.0.0.1", 3900, "127.0.0.1:3900"),
            ),
            (
                "http://[FD00:0::1]:3900",
                (false, "fd00:0::1", 3900, "[fd00::1]:3900"),
            ),
            ("https://[::1]", (true, "::1", 443, "[::1]")),
        ] {
            let origin = endpoint(text).unwrap_or_else(|why| panic!("{text}: {}", why.expected));
            let Origin {
                tls: https,
                host: name,
                port: number,
                authority: sent,
            } = origin;
            assert_eq!(
                (https, name.as_str(), number, sent.as_str()),
                (tls, host, port, authority),
                "{text}"
            );
        }
    }

    #[test]
    fn endpoints_have_nothing_but_scheme_host_and_port() {
        refused(
            endpoint,
            &["https://s3.example.org/uploads", "http://a/b/"],
            "without a path",
        );
        refused(
            endpoint,
            &["", "s3.example.org", "ftp://s3.example.org", "s3://uploads"],
            "https://",
        );
        refused(endpoint, &["https://a/?x", "https://a/#x"], "without ?");
        refused(endpoint, &["https://key:hunter2@a/"], "without them");
        refused(endpoint, &["https://münchen.example"], "punycode");
        refused(endpoint, &["https://${HOST}"], "not expanded");
        refused(
            endpoint,
            &[
                "http://::1",
                "http://[::1",
                "http://a:0",
                "http://a:65536",
                "http://a b",
            ],
            "URL",
        );
    }

    #[test]
    fn buckets_fit_a_path_and_some_a_host_name() {
        let longest = "x".repeat(63);
        for (name, in_host) in [
            ("abc", true),
            ("my-uploads.example", true),
            ("0-9", true),
            (longest.as_str(), true),
            ("Uploads", false),
            ("up_loads", false),
        ] {
            assert_eq!(bucket(name), Ok(name.to_owned()));
            assert_eq!(is_host_label(name), in_host, "{name}");
        }
        let too_long = "x".repeat(64);
        let texts = [
            "", "ab", &too_long, ".abc", "abc.", "-abc", "abc-", "a..b", "...", "a/b", "a b",
            "a%b", "a?b", "a#b", "a:b", "bücket", "a\nb",
        ];
        refused(bucket, &texts, "3 to 63");
        refused(bucket, &["${BUCKET}"], "not expanded");
    }

    #[test]
    fn regions_and_access_keys_are_one_part_of_the_scope() {
        for text in ["us-east-1", "garage", "eu_west.2", "AKIAIOSFODNN7", "u:s"] {
            assert_eq!(region(text), Ok(text.to_owned()));
            assert_eq!(access_key(text), Ok(text.to_owned()));
        }
        let long = "x1".repeat(65);
        for text in ["", "a/b", "a b", "é", &long] {
            assert!(region(text).is_err() && access_key(text).is_err(), "{text}");
        }
        refused(region, &["${REGION}"], "not expanded");
        refused(
            access_key,
            &["change me", "${KEY}", "xxxx", "a\nb"],
            "environment variables are not expanded",
        );
        refused(access_key, &["a/b"], "without spaces and slashes");
    }

    #[test]
    fn prefixes_are_whole_segments() {
        for (text, read) in [
            ("", ""),
            ("/", ""),
            ("uploads", "uploads/"),
            ("/uploads/", "uploads/"),
            ("a/b c/ü", "a/b c/ü/"),
            (".upslots", ".upslots/"),
        ] {
            assert_eq!(prefix(text), Ok(read.to_owned()), "{text:?}");
        }
        let long = "x".repeat(256);
        refused(
            prefix,
            &[
                "//a", "a//", "a//b", ".", "..", "a/./b", "../a", "a\tb", &long,
            ],
            "empty or dot segments",
        );
        refused(
            prefix,
            &[".upslot", "/.upslot/", "a/.upslot/b"],
            "another prefix",
        );
        refused(prefix, &["${PREFIX}/a"], "not expanded");
    }

    #[test]
    fn modes_are_words() {
        assert_eq!(put_mode("Relay"), Ok(PutMode::Relay));
        assert_eq!(put_mode("direct"), Ok(PutMode::Direct));
        refused(put_mode, &["", "redirect", "true"], "relay or direct");
        let modes = ["redirect", "relay", "PUBLIC"].map(|word| get_mode(word).unwrap());
        assert_eq!(modes, [GetMode::Redirect, GetMode::Relay, GetMode::Public]);
        refused(
            get_mode,
            &["", "direct", "yes"],
            "redirect, relay or public",
        );
    }

    #[test]
    fn private_hosts() {
        for (host, private) in [
            ("127.0.0.1", true),
            ("10.1.2.3", true),
            ("192.168.0.1", true),
            ("169.254.1.1", true),
            ("::1", true),
            ("::ffff:10.0.0.1", true),
            ("fd00::1", true),
            ("fe80::1", true),
            ("garage", true),
            ("localhost", true),
            ("s3.localhost", true),
            ("store.internal.", true),
            ("nas.local", true),
            ("192.0.2.1", false),
            ("2001:db8::1", false),
            ("s3.example.org", false),
            ("internal.example.org", false),
        ] {
            assert_eq!(is_private(host), private, "{host}");
        }
    }
}
