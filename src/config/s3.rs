//! The section `s3`, and what it means for other keys.
//!
//! It has no predecessor in HttpUploadComponent, so unknown entries can be errors, as in `api`.

use std::time::Duration;

use crate::config::address;
use crate::config::keys::{self, KeyInfo};
use crate::config::network;
use crate::config::object_store::{self, GetMode, ObjectStore, PutMode};
use crate::config::reader::ConfigReader;
use crate::config::secret::SecretKey;
use crate::config::secrets;
use crate::config::url::{self, BaseUrl};
use crate::config::values::Config;
use crate::http::origin::Origin;

/// Longest validity of a presigned URL that stores accept.
const MAX_PRESIGNED: Duration = Duration::from_secs(7 * 86_400);

/// The largest object that AWS and Ceph accept in one PUT, in bytes.
const MAX_PUT: u64 = 5 << 30;

/// Reads `s3`. `get_url` tells where clients come from.
pub fn object_store(r: &mut ConfigReader, get_url: &BaseUrl) -> Option<Box<ObjectStore>> {
    if !r.given(&keys::S3) {
        return None;
    }
    if !cfg!(feature = "s3") {
        let expected = "no such section, because this upslot was built without object stores";
        r.error(&keys::S3, "an object store", expected);
        return None;
    }
    let mut section = r.map(&keys::S3)?;
    let store = entries(&mut section);
    if let Some(store) = &store {
        check_bucket(&mut section, store);
        warn_of_endpoints(&mut section, store, get_url);
        warn_of_unused(&mut section, store);
    }
    r.close(section);
    store.map(Box::new)
}

/// Every entry; `None` after an error.
fn entries(section: &mut ConfigReader) -> Option<ObjectStore> {
    let endpoint = section.value(&keys::S3_ENDPOINT);
    let internal_endpoint = section.get(&keys::S3_INTERNAL_ENDPOINT);
    let bucket = section.value(&keys::S3_BUCKET);
    let region = section.value(&keys::S3_REGION);
    let prefix = section.get(&keys::S3_PREFIX);
    let path_style = section.value(&keys::S3_PATH_STYLE);
    let access_key = section.value(&keys::S3_ACCESS_KEY);
    let (key, file_key) = (&keys::S3_SECRET_KEY, &keys::S3_SECRET_KEY_FILE);
    if !section.given(key) && !section.given(file_key) {
        let (access_key, file_key) = (keys::S3_ACCESS_KEY.name, file_key.name);
        let expected = format!("the secret of {access_key}, or {file_key}");
        section.error(key, "nothing", expected);
    }
    let (secret_key, secret_key_file) = secrets::inline_or_file(section, key, 1, file_key);
    let ca_file = section.get(&keys::S3_CA_FILE);
    let put = section.value(&keys::S3_PUT);
    let get = section.value(&keys::S3_GET);
    let public_url = public_url(section, get);
    let sign_content_type = section.value(&keys::S3_SIGN_CONTENT_TYPE);
    let endpoint = endpoint?;
    let secret_key = secret_key.map(|secret| SecretKey::new(secret.as_bytes()));
    Some(ObjectStore {
        internal_endpoint: internal_endpoint.unwrap_or_else(|| endpoint.clone()),
        endpoint,
        bucket: bucket?,
        region: region?,
        prefix: prefix.unwrap_or_default(),
        path_style: path_style?,
        access_key: access_key?,
        secret_key: secret_key.unwrap_or_else(|| SecretKey::new("")),
        secret_key_file,
        ca_file,
        put: put?,
        get: get?,
        public_url,
        sign_content_type: sign_content_type?,
    })
}

/// Reads `public_url`, which belongs to `get: public`.
fn public_url(section: &mut ConfigReader, get: Option<GetMode>) -> Option<String> {
    let key = &keys::S3_PUBLIC_URL;
    let is_public = get == Some(GetMode::Public);
    if is_public && !section.given(key) {
        let expected = "the URL under which anyone can read the bucket, because get is public";
        section.error(key, "nothing", expected);
    }
    if !is_public {
        let url = section.get(key);
        if url.is_some() && get.is_some() {
            section.warn(key, "has no effect, because get is not public");
        }
        return None;
    }
    let url = network::base_url(section, key);
    (!url.prefix.is_empty()).then_some(url.prefix)
}

/// Checks a bucket that is the first label of the host name.
fn check_bucket(section: &mut ConfigReader, store: &ObjectStore) {
    if store.path_style {
        return;
    }
    let path_style: &KeyInfo = &keys::S3_PATH_STYLE;
    if !object_store::is_host_label(&store.bucket) {
        let found = format!("{:?}, which cannot be part of a host name", store.bucket);
        let expected = format!("lower-case letters, or {}: true", path_style.name);
        section.error(&keys::S3_BUCKET, found, expected);
    }
    let ips: Vec<&str> = endpoints(section, store)
        .filter(|(_, origin)| address::ip(&origin.host).is_some())
        .map(|(key, _)| key.name)
        .collect();
    for key in ips {
        let found = format!("false, although {key} is an IP address");
        let expected = "true, or a name there, because the bucket becomes the first label of it";
        section.error(path_style, found, expected);
    }
    let is_tls = store.endpoint.tls || store.internal_endpoint.tls;
    if is_tls && store.bucket.contains('.') {
        let text = "is false, and with dots in the name of the bucket no wildcard certificate is valid for the host";
        section.warn(path_style, text);
    }
}

/// The endpoints that the file names, with their keys.
fn endpoints<'a>(
    section: &ConfigReader,
    store: &'a ObjectStore,
) -> impl Iterator<Item = (&'static KeyInfo, &'a Origin)> + use<'a> {
    let (key, internal): (&KeyInfo, &KeyInfo) = (&keys::S3_ENDPOINT, &keys::S3_INTERNAL_ENDPOINT);
    let internal = section
        .given(internal)
        .then_some((internal, &store.internal_endpoint));
    [(key, &store.endpoint)].into_iter().chain(internal)
}

/// Warns about endpoints that clients do not reach, or do not accept, and about files that travel unencrypted; at most
/// once about each key.
fn warn_of_endpoints(section: &mut ConfigReader, store: &ObjectStore, get_url: &BaseUrl) {
    let (key, internal_key) = (&keys::S3_ENDPOINT, &keys::S3_INTERNAL_ENDPOINT);
    let ObjectStore {
        endpoint,
        internal_endpoint,
        ..
    } = store;
    let is_for_clients = store.put == PutMode::Direct || store.get == GetMode::Redirect;
    let service = Origin::split(&get_url.prefix).map(|(origin, _)| origin);
    let is_local_service = service.is_none_or(|origin| url::is_loopback(&origin.host));
    let is_unreachable = url::is_loopback(&endpoint.host) && !is_local_service;
    let is_warned =
        is_for_clients && (is_unreachable || !url::is_secure(endpoint.tls, &endpoint.host));
    if is_warned && is_unreachable {
        let text = format!(
            "is this machine, but clients are sent there; name the store as clients reach it, and {endpoint} as {}",
            internal_key.name
        );
        section.warn(key, text);
    } else if is_warned {
        let text = "is not https, and many clients refuse such links; use https, or relay uploads and downloads";
        section.warn(key, text);
    }
    let used: &KeyInfo = match section.given(internal_key) {
        true => internal_key,
        false => key,
    };
    let is_plain = !internal_endpoint.tls && !object_store::is_private(&internal_endpoint.host);
    if is_plain && !(is_warned && used.name == key.name) {
        section.warn(
            used,
            "is not https, so that files travel unencrypted between upslot and the store",
        );
    }
}

/// Warns about entries without effect.
fn warn_of_unused(section: &mut ConfigReader, store: &ObjectStore) {
    let (ca_file, sign) = (&keys::S3_CA_FILE, &keys::S3_SIGN_CONTENT_TYPE);
    if store.ca_file.is_some() && !store.internal_endpoint.tls {
        section.warn(
            ca_file,
            "has no effect, because upslot does not reach the store by https",
        );
    }
    if section.given(sign) && store.put == PutMode::Relay {
        section.warn(sign, "has no effect, because put is relay");
    }
}

/// Adapts the keys that are about a folder, and checks those that depend on the store.
pub fn adapt(r: &mut ConfigReader, config: &mut Config) {
    let (secret, secret_file) = (&keys::SLOT_SECRET, &keys::SLOT_SECRET_FILE);
    if !r.given(secret) && !r.given(secret_file) {
        let expected = format!(
            "a key of at least 16 bytes, or {}, because with s3 there is no folder in which upslot could keep its own, \
             and all nodes need the same",
            secret_file.name
        );
        r.error(secret, "nothing", expected);
    }
    let folder: [&KeyInfo; 3] = [&keys::STORAGE_PATH, &keys::FILE_MODE, &keys::DIR_MODE];
    let unused = folder.into_iter().filter(|key| r.given(key));
    let space = (r.given(&keys::MIN_FREE_SPACE) && config.min_free_space > 0)
        .then_some(&keys::MIN_FREE_SPACE.info);
    for key in unused.chain(space).collect::<Vec<_>>() {
        r.warn(
            key,
            "is not used, because with s3 nothing is stored on the disk",
        );
    }
    config.min_free_space = 0;
    if !config.fsync {
        let text =
            "has no effect, because an upload is confirmed when the store of s3 has confirmed it";
        r.warn(&keys::FSYNC, text);
        config.fsync = true;
    }
    if !config.serve_downloads {
        let text =
            "has no effect, because no other web server can serve the files of s3; see its key get";
        r.warn(&keys::SERVE_DOWNLOADS, text);
        config.serve_downloads = true;
    }
    let Some(store) = &config.s3 else {
        return;
    };
    if store.put == PutMode::Direct && config.put_timeout > MAX_PRESIGNED {
        let found = format!("{} s", config.put_timeout.as_secs());
        let expected = "at most 7 d, because stores accept no presigned URL that is valid for longer (put: direct)";
        r.error(&keys::PUT_TIMEOUT, found, expected);
    }
    if config.max_file_size > MAX_PUT {
        let text = "is above 5 GiB, the most that AWS and Ceph accept in one upload";
        r.warn(&keys::MAX_FILE_SIZE, text);
    }
    if store.get == GetMode::Public && config.safe_file_types.is_some() {
        let text = "has no effect on public links, which the store answers (get: public)";
        r.warn(&keys::SAFE_FILE_TYPES, text);
    }
}
