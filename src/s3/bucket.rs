//! The keys of a bucket, URLs for users, and requests of upslot itself.
//!
//! The key of a file is the configured prefix and its path. Internal objects are below `.upslot/`, which is never the
//! beginning of a file's path:
//!
//! | key | body |
//! | --- | --- |
//! | `.upslot/aliases/<digest of a slot of another server>` | the path of the file |
//! | `.upslot/tombstones/<digest of a path>` | none; the path must not be stored again |
//! | `.upslot/revoked/<owner folder>` | Unix seconds; slots of this owner that were issued until then are void |
//! | `.upslot/conditional` | none; stored to see whether the store honours `If-None-Match` |
//! | `.upslot/probe` | none; stored after a failure, to see whether the store works again |
//!
//! - [`requests`] the requests of upslot itself;
//! - this file: keys, and URLs for users.

mod requests;

use std::time::{Duration, SystemTime};

use data_encoding::BASE64URL_NOPAD;
use percent_encoding::percent_decode_str;

use crate::config::object_store::ObjectStore;
use crate::decimal::{self, DigitBuffer};
use crate::http::origin::Origin;
use crate::layout::{INTERNAL, StorePath, encode_path, slot_digest};
use crate::now::Now;
use crate::slot::presign::{MAX_LIFETIME, Presigner, Unsigned};

pub use requests::{REQUEST_LIFETIME, StoreRequest};

/// Longest key in bytes (AWS, "Object key naming guidelines").
pub const MAX_KEY: usize = 1024;

/// The largest object in bytes. No store has any that is as large, so that one which says so is wrong; sums of the sizes of
/// some thousand objects fit 64 bits.
pub const MAX_SIZE: u64 = 1 << 50;

/// The body of the alias of a deleted file: the path would reveal owner and name, but the slot still counts as used. All
/// paths of aliases are longer.
pub const REMOVED_ALIAS: &[u8] = b"removed/removed";

/// GET URLs are the same within this many seconds, so that clients and caches recognise them, and are valid for twice as
/// long.
const URL_PERIOD: u64 = 900;

/// The bucket, as clients and as upslot reach it.
#[derive(Debug)]
pub struct Bucket {
    signer: Presigner,
    public: Place,
    internal: Place,
    /// Begins all keys; empty, or ends with a slash.
    prefix: String,
    public_url: Option<String>,
    sign_content_type: bool,
}

/// Where a bucket is reached.
#[derive(Debug)]
struct Place {
    scheme: &'static str,
    /// For `Host`.
    host: String,
    /// What precedes the `/` and the key in a path: the bucket, or nothing.
    base: String,
}

/// The key of an object, which is valid UTF-8 of at most [`MAX_KEY`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(String);

/// What the store is to send with a presigned download; empty values are left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shown<'a> {
    pub content_type: &'a str,
    pub disposition: &'a str,
    pub cache_control: &'a str,
}

impl ObjectKey {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Bucket {
    pub fn new(store: &ObjectStore) -> Bucket {
        let place = |origin| Place::new(origin, &store.bucket, store.path_style);
        Bucket {
            signer: Presigner::new(
                &store.access_key,
                store.secret_key.as_bytes(),
                &store.region,
            ),
            public: place(&store.endpoint),
            internal: place(&store.internal_endpoint),
            prefix: store.prefix.clone(),
            public_url: store.public_url.clone(),
            sign_content_type: store.sign_content_type,
        }
    }

    /// Prepares for signatures of this day; others take longer.
    pub fn set_date(&mut self, now: Now) {
        self.signer.set_date(now.unix());
    }

    /// A URL for the upload of a file of this size, which may begin within `lifetime`. If it has a type, the upload must
    /// have the same one. `None` if the path is no key.
    pub fn put_url(
        &self,
        path: &StorePath,
        size: u64,
        content_type: Option<&str>,
        lifetime: Duration,
        now: Now,
    ) -> Option<String> {
        let mut buffer = DigitBuffer::default();
        let size = std::str::from_utf8(decimal::digits(size, &mut buffer)).ok()?;
        // No client could send another type.
        let content_type = content_type.filter(|value| self.sign_content_type && is_value(value));
        let fields = [
            ("content-length", size),
            ("content-type", content_type.unwrap_or_default()),
        ];
        let request = Unsigned {
            method: "PUT",
            host: &self.public.host,
            path: &self.public.path(&self.key(path)?.0),
            query: &[],
            fields: &fields[..1 + usize::from(content_type.is_some())],
            time: now.unix(),
            lifetime: lifetime.as_secs().clamp(1, MAX_LIFETIME),
        };
        Some(self.sign_url(&request))
    }

    /// A URL for the download of a file by GET or HEAD, which may begin within [`Bucket::url_lifetime`], and not after the
    /// Unix second `until`. `None` if the path is no key.
    pub fn get_url(
        &self,
        path: &StorePath,
        method: &str,
        shown: &Shown<'_>,
        until: u64,
        now: Now,
    ) -> Option<String> {
        let time = period_start(now);
        let mut query = vec![
            ("response-content-type", shown.content_type),
            ("response-content-disposition", shown.disposition),
            ("response-cache-control", shown.cache_control),
        ];
        query.retain(|(_, value)| !value.is_empty());
        let request = Unsigned {
            method,
            host: &self.public.host,
            path: &self.public.path(&self.key(path)?.0),
            query: &query,
            fields: &[],
            time,
            lifetime: until.saturating_sub(time).clamp(1, 2 * URL_PERIOD),
        };
        Some(self.sign_url(&request))
    }

    /// How long [`Bucket::get_url`] is valid from now on, in seconds, if nothing limits it.
    pub fn url_lifetime(now: Now) -> u64 {
        period_start(now) + 2 * URL_PERIOD - now.unix()
    }

    /// Until when [`Bucket::get_url`] returns the same URL.
    pub fn same_url_until(now: Now) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(period_start(now) + URL_PERIOD)
    }

    /// The URL of a file in a public bucket, if there is one.
    pub fn public_url(&self, path: &StorePath) -> Option<String> {
        let mut url = self.public_url.clone()?;
        encode_path(self.key(path)?.0.as_bytes(), &mut url);
        Some(url)
    }

    /// The file of a URL that leads to the store itself: a presigned or a public one. The query is ignored.
    pub fn path_of_url(&self, url: &str) -> Option<StorePath> {
        let url = url.split(['?', '#']).next().unwrap_or_default();
        let Place { scheme, host, base } = &self.public;
        let place = [scheme, "://", host, base, "/"].concat();
        let prefixes = [Some(&place), self.public_url.as_ref()];
        let mut keys = prefixes.into_iter().flatten();
        let key = keys.find_map(|prefix| url.strip_prefix(prefix.as_str()))?;
        self.path_of(&percent_decode_str(key).decode_utf8().ok()?)
    }

    fn sign_url(&self, request: &Unsigned<'_>) -> String {
        let mut url = String::with_capacity(512 + request.path.len());
        for part in [self.public.scheme, "://", request.host, request.path] {
            url.push_str(part);
        }
        self.signer.sign(request, &mut url);
        url
    }

    /// The key of a file; `None` if its path is not UTF-8, or too long.
    pub fn key(&self, path: &StorePath) -> Option<ObjectKey> {
        self.key_of(std::str::from_utf8(path.as_bytes()).ok()?)
    }

    /// The file of a key; `None` for internal objects and those of other programs.
    pub fn path_of(&self, key: &str) -> Option<StorePath> {
        let path = key.strip_prefix(&self.prefix)?;
        StorePath::from_segments(path.as_bytes().split(|b| *b == b'/'))
    }

    /// What the keys of an owner's files begin with, without the configured prefix; for [`Bucket::list`]. `None` if there
    /// can be none.
    pub fn owner_prefix(owner: &[u8]) -> Option<String> {
        let owner = std::str::from_utf8(owner).ok()?;
        let is_name = !owner.is_empty() && !owner.starts_with('.') && !owner.contains('/');
        is_name.then(|| [owner, "/"].concat())
    }

    /// The key of the alias of a slot that another server gave out.
    pub fn alias_key(&self, slot: &[u8]) -> Option<ObjectKey> {
        self.internal_key(Internal::Aliases, &digest(slot))
    }

    /// The key of the alias that the file at this path may have: the random part of the path is the digest of the slot.
    pub fn alias_key_of(&self, path: &StorePath) -> Option<ObjectKey> {
        let folder = path.segments().nth(1)?;
        let random = folder.split(|b| *b == b'~').next()?;
        self.internal_key(Internal::Aliases, std::str::from_utf8(random).ok()?)
    }

    pub fn tombstone_key(&self, path: &StorePath) -> Option<ObjectKey> {
        self.internal_key(Internal::Tombstones, &digest(path.as_bytes()))
    }

    /// The key of the note that all earlier slots of an owner are void.
    pub fn revocation_key(&self, owner: &[u8]) -> Option<ObjectKey> {
        let owner = std::str::from_utf8(owner).ok()?;
        self.internal_key(Internal::Revoked, owner)
    }

    /// The key of an object that is only stored to see whether that is possible.
    pub fn probe_key(&self) -> Option<ObjectKey> {
        self.key_of(&[INTERNAL, "/probe"].concat())
    }

    /// The key of an object that is only stored to see whether that is done twice.
    pub fn condition_key(&self) -> Option<ObjectKey> {
        self.key_of(&[INTERNAL, "/conditional"].concat())
    }

    /// The kind of an internal object, and its name; `None` for all other keys.
    pub fn internal_of<'a>(&self, key: &'a str) -> Option<(Internal, &'a str)> {
        let below = key.strip_prefix(&self.prefix)?;
        let (folder, name) = below
            .strip_prefix(INTERNAL)?
            .strip_prefix('/')?
            .split_once('/')?;
        // upslot's own names are digests and owner folders.
        let is_own = !name.is_empty() && !name.starts_with('.') && !name.contains('/');
        let mut kinds = Internal::ALL.into_iter();
        let kind = kinds.find(|kind| is_own && kind.folder() == folder)?;
        Some((kind, name))
    }

    /// Whether a key is that of an internal object.
    pub fn is_internal(&self, key: &str) -> bool {
        let below = key.strip_prefix(&self.prefix);
        let rest = below.and_then(|below| below.strip_prefix(INTERNAL));
        rest.is_some_and(|rest| rest.starts_with('/'))
    }

    /// The key of an object in a list, if it has the configured prefix.
    pub fn listed_key(&self, key: &str) -> Option<ObjectKey> {
        self.key_of(key.strip_prefix(&self.prefix)?)
    }

    /// The key of an internal object.
    pub fn internal_key(&self, kind: Internal, name: &str) -> Option<ObjectKey> {
        self.key_of(&[INTERNAL, "/", kind.folder(), "/", name].concat())
    }

    /// The key of an object whose name without the configured prefix is this.
    fn key_of(&self, below: &str) -> Option<ObjectKey> {
        let key = [&self.prefix, below].concat();
        (key.len() <= MAX_KEY).then_some(ObjectKey(key))
    }
}

/// Kinds of internal objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Internal {
    Aliases,
    Tombstones,
    Revoked,
}

impl Internal {
    pub const ALL: [Internal; 3] = [Internal::Aliases, Internal::Tombstones, Internal::Revoked];

    pub fn folder(self) -> &'static str {
        match self {
            Internal::Aliases => "aliases",
            Internal::Tombstones => "tombstones",
            Internal::Revoked => "revoked",
        }
    }

    /// What the keys of these objects begin with, without the configured prefix; for [`Bucket::list`].
    pub fn prefix(self) -> String {
        [INTERNAL, "/", self.folder(), "/"].concat()
    }
}

impl Place {
    fn new(origin: &Origin, bucket: &str, path_style: bool) -> Place {
        let host = &origin.authority;
        let mut base = String::new();
        if path_style {
            base.push('/');
            encode_path(bucket.as_bytes(), &mut base);
        }
        Place {
            scheme: if origin.tls { "https" } else { "http" },
            host: match path_style {
                true => host.clone(),
                false => [bucket, ".", host].concat(),
            },
            base,
        }
    }

    /// The path of an object, or of the bucket if the key is empty.
    fn path(&self, key: &str) -> String {
        let mut path = String::with_capacity(self.base.len() + 1 + key.len() + 16);
        path.push_str(&self.base);
        if !key.is_empty() || path.is_empty() {
            path.push('/');
        }
        encode_path(key.as_bytes(), &mut path);
        path
    }
}

/// The time of GET URLs.
fn period_start(now: Now) -> u64 {
    now.unix() - now.unix() % URL_PERIOD
}

/// Whether a text can be the value of a field as it is.
fn is_value(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| matches!(b, b' '..=b'~'))
}

fn digest(bytes: &[u8]) -> String {
    BASE64URL_NOPAD.encode(&slot_digest(bytes))
}

#[cfg(test)]
pub(crate) mod tests;
