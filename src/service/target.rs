//! The stored files that a request target or URL may name.

use crate::config::Config;
use crate::http::head::RequestHead;
use crate::http::route::{Prefixes, Resource};
use crate::layout::StorePath;
use crate::service::{Decision, Service};

/// Characters that must be percent-encoded in a request target but occur in pasted URLs. `%` stays as it is.
const IN_A_TARGET: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'`');

/// Length of a UUID as text.
const UUID: usize = 36;

/// Digits of a time in microseconds and the number of a node, in base 36.
const TIME_AND_NODE: std::ops::RangeInclusive<usize> = 11..=16;

/// The candidates for the file that a GET names, in the order in which they are tried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DownloadRequest {
    /// The path as sent. Of one segment only for objects of other programs.
    pub path: Option<StorePath>,
    /// The path decoded once more: ejabberd 23.01 percent-encodes the URLs of the slot API a second time.
    pub again: Option<StorePath>,
    /// The slot of Prosody's mod_http_file_share, to be looked up as an alias.
    pub slot: Option<Vec<u8>>,
}

/// The URLs of the service.
#[derive(Debug)]
pub(super) struct Urls {
    /// The paths below which files are.
    pub prefixes: Prefixes,
    /// What the path of a file is appended to.
    pub put_prefix: String,
    pub get_prefix: String,
}

impl Urls {
    pub fn new(config: &Config) -> Urls {
        let (put, get) = (&config.put_url, &config.get_url);
        Urls {
            prefixes: Prefixes::new(&[put.decoded.as_bytes(), get.decoded.as_bytes()]),
            put_prefix: put.prefix.clone(),
            get_prefix: get.prefix.clone(),
        }
    }
}

impl Service {
    /// The candidates for the file that a PUT or GET URL of this service names; the query is ignored. `None` for URLs of
    /// other services and URLs that cannot name a file.
    pub fn files_of_url(&self, url: &str) -> Option<DownloadRequest> {
        let url = url.split('#').next().unwrap_or_default();
        let (authority, target) = split_url(url)?;
        let matches =
            |prefix: &&String| split_url(prefix).is_some_and(|prefix| prefix.0 == authority);
        if ![&self.urls.put_prefix, &self.urls.get_prefix]
            .iter()
            .any(matches)
        {
            return None;
        }
        // A URL copied from a browser or a message may contain characters that a request must encode.
        let target: String = percent_encoding::utf8_percent_encode(target, IN_A_TARGET).collect();
        let head = format!("GET {target} HTTP/1.1\r\nHost: upslot\r\n\r\n");
        let request = RequestHead::parse(head.as_bytes()).ok()?;
        let resource = self.urls.prefixes.resource(request.path());
        match self.download_request(&request, resource) {
            Decision::Download(download_request) => Some(download_request),
            _ => None,
        }
    }

    /// The candidates for the file that a GET names.
    pub(super) fn download_request(&self, request: &RequestHead, resource: Resource) -> Decision {
        let path = match resource {
            Resource::File(path) => Some(path),
            Resource::NotFound => self.flat_path(request),
            Resource::Root => None,
        };
        let again = self.encoded_again(request).map(|(path, _)| path);
        let download_request = DownloadRequest {
            again: again.filter(|again| Some(again) != path.as_ref()),
            slot: self.share(request).map(|(slot, _)| slot),
            path,
        };
        if download_request == DownloadRequest::default() {
            return Decision::Answer(self.common.not_found());
        }
        Decision::Download(download_request)
    }

    /// The path of an object that Prosody's mod_http_upload_s3 or ejabberd's mod_s3_upload stored: one segment, which begins
    /// with a UUID, or with a time and the number of a node. Other names of one segment are none of ours, even if they are in
    /// the same bucket.
    fn flat_path(&self, request: &RequestHead) -> Option<StorePath> {
        if !self.keeps_objects() {
            return None;
        }
        let segments = self.urls.prefixes.segments(request.path())?;
        let [segment] = &segments[..] else {
            return None;
        };
        (begins_with_uuid(segment) || begins_with_time(segment))
            .then(|| StorePath::flat(segment))?
    }

    /// The path and the query if the whole URL, including its `?`, was percent-encoded a second time on its way to the
    /// client. The result is checked like any other path, and its signature too.
    pub(super) fn encoded_again(&self, request: &RequestHead) -> Option<(StorePath, Vec<u8>)> {
        let raw = request.path();
        // An encoded slash is never a separator.
        let slash = |w: &[u8]| w.eq_ignore_ascii_case(b"%2f");
        if !raw.contains(&b'%') || raw.windows(3).any(slash) {
            return None;
        }
        let decode = |raw: &[u8]| -> Vec<u8> { percent_encoding::percent_decode(raw).collect() };
        let mut path = decode(request.path());
        let query = match (request.query(), path.iter().position(|b| *b == b'?')) {
            (Some(query), _) => decode(query),
            (None, Some(at)) => path.split_off(at).split_off(1),
            (None, None) => Vec::new(),
        };
        match self.urls.prefixes.resource(&path) {
            Resource::File(path) => Some((path, query)),
            Resource::Root | Resource::NotFound => None,
        }
    }

    /// The slot and the file name in a URL of Prosody's mod_http_file_share. The name is cosmetic and not checked.
    pub(super) fn share(&self, request: &RequestHead) -> Option<(Vec<u8>, Vec<u8>)> {
        self.schemes.file_share.as_ref()?;
        let segments = self.urls.prefixes.segments(request.path())?;
        let [slot, name] = &segments[..] else {
            return None;
        };
        (!slot.is_empty() && !name.is_empty()).then(|| (slot.to_vec(), name.to_vec()))
    }
}

/// Whether a name is a UUID, which may be followed by a hyphen and another name.
fn begins_with_uuid(segment: &[u8]) -> bool {
    let Some((uuid, name)) = segment.split_at_checked(UUID) else {
        return false;
    };
    let is_uuid = uuid.iter().enumerate().all(|(at, b)| match at {
        8 | 13 | 18 | 23 => *b == b'-',
        _ => b.is_ascii_hexdigit(),
    });
    is_uuid && (name.is_empty() || name.starts_with(b"-") && name.len() > 1)
}

/// Whether a name begins with microseconds and a number of up to 27 bits, both in base 36 and upper case, and a hyphen.
fn begins_with_time(segment: &[u8]) -> bool {
    let hyphen = segment.iter().position(|b| *b == b'-');
    hyphen.is_some_and(|at| {
        let number = &segment[..at];
        TIME_AND_NODE.contains(&at)
            && number
                .iter()
                .all(|b| b.is_ascii_digit() || b.is_ascii_uppercase())
            && at + 1 < segment.len()
    })
}

/// The authority of a URL, in lower case and without the default port, and the rest of the URL. `aesgcm` is the scheme
/// that clients use instead of `https` for encrypted files (XEP-0454).
fn split_url(url: &str) -> Option<(String, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let port = match &*scheme.to_ascii_lowercase() {
        "https" | "aesgcm" => ":443",
        "http" => ":80",
        _ => return None,
    };
    let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let authority = authority.to_ascii_lowercase();
    let authority = authority.strip_suffix(port).unwrap_or(&authority);
    let target = if target.starts_with('/') { target } else { "/" };
    Some((authority.to_owned(), target))
}
