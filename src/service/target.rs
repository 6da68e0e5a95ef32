//! Which stored files a URL may name.

use crate::http::head::RequestHead;
use crate::http::route::Resource;
use crate::layout::StorePath;
use crate::service::{Decision, Service};

/// What a request target encodes of characters that people put into URLs; `%` is taken as it is.
const IN_A_TARGET: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'`');

/// What a GET may mean, in the order in which it is tried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DownloadRequest {
    /// The path as it was sent.
    pub path: Option<StorePath>,
    /// The path if the whole URL had been percent-encoded once more, as ejabberd 23.01 does to the URLs of the slot
    /// API.
    pub again: Option<StorePath>,
    /// The slot that Prosody's file share gave it.
    pub slot: Option<Vec<u8>>,
}

impl Service {
    /// The files that a URL of ours may stand for, in the order in which they are tried: the path of a slot's PUT or
    /// GET URL, whatever its query says. `None` when it is a URL of another service, or stands for no file.
    pub fn files_of_url(&self, url: &str) -> Option<DownloadRequest> {
        let url = url.split('#').next().unwrap_or_default();
        let (authority, target) = split_url(url)?;
        let ours = [&self.put_prefix, &self.get_prefix];
        let is_ours = |prefix: &&String| split_url(prefix).is_some_and(|own| own.0 == authority);
        if !ours.iter().any(is_ours) {
            return None;
        }
        // Whoever copied it from a browser or a message may have brought characters along that a request must encode.
        let target: String = percent_encoding::utf8_percent_encode(target, IN_A_TARGET).collect();
        let head = format!("GET {target} HTTP/1.1\r\nHost: upslot\r\n\r\n");
        let request = RequestHead::parse(head.as_bytes()).ok()?;
        let resource = self.prefixes.resource(request.path());
        match self.download_request(&request, resource) {
            Decision::Download(download_request) => Some(download_request),
            _ => None,
        }
    }

    /// What a GET may mean.
    pub(super) fn download_request(&self, request: &RequestHead, resource: Resource) -> Decision {
        let path = match resource {
            Resource::File(path) => Some(path),
            Resource::Root | Resource::NotFound => None,
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

    /// The path and the query if the whole URL was percent-encoded once more on its way to the client, its `?`
    /// included. What comes of it has to be as sound as any other path, and as well signed.
    pub(super) fn encoded_again(&self, request: &RequestHead) -> Option<(StorePath, Vec<u8>)> {
        let raw = request.path();
        // A slash that was encoded once is no separator, here or anywhere.
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
        match self.prefixes.resource(&path) {
            Resource::File(path) => Some((path, query)),
            Resource::Root | Resource::NotFound => None,
        }
    }

    /// The slot and the file name in a URL of Prosody's file share. The name is cosmetic, so it may be anything.
    pub(super) fn share(&self, request: &RequestHead) -> Option<(Vec<u8>, Vec<u8>)> {
        self.file_share.as_ref()?;
        let segments = self.prefixes.segments(request.path())?;
        let [slot, name] = &segments[..] else {
            return None;
        };
        (!slot.is_empty() && !name.is_empty()).then(|| (slot.to_vec(), name.to_vec()))
    }
}

/// What a URL has between its scheme and its path, in lower case and without the scheme's own port, and the rest of
/// it. `aesgcm` is what clients make of `https` for files that they encrypt (XEP-0454).
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
