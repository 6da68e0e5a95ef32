//! The requests of upslot itself, signed by their query, as presigned URLs are, so that no field but `host` is part of the
//! signature.

use std::ops::Range;

use crate::layout::INTERNAL;
use crate::now::Now;
use crate::s3::bucket::{Bucket, ObjectKey, Shown, is_value};
use crate::slot::presign::Unsigned;

/// How long a request of upslot itself may wait for its turn, in seconds. AWS tolerates clocks that differ as much.
pub const REQUEST_LIFETIME: u64 = 900;

/// Most notes about slots that are listed at once, and what their keys follow below the prefix: not the aliases, which may
/// be many.
const MAX_NOTES: usize = 50;
pub(super) const BEFORE_NOTES: &str = "/q";

/// A signed request; it is valid for [`REQUEST_LIFETIME`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreRequest {
    pub method: &'static str,
    /// The head, and a small body after it.
    pub bytes: Vec<u8>,
    /// Bytes of a streamed body that follows.
    pub body_length: u64,
    /// Whether the request may be sent again if the connection breaks.
    pub idempotent: bool,
}

impl Bucket {
    pub fn head(&self, key: &ObjectKey, now: Now) -> StoreRequest {
        self.request("HEAD", &key.0, &[], &[], now)
    }

    /// Gets an object, or a range of its bytes.
    pub fn get(&self, key: &ObjectKey, range: Option<Range<u64>>, now: Now) -> StoreRequest {
        match range {
            None => self.request("GET", &key.0, &[], &[], now),
            Some(range) => {
                let last = range.end.saturating_sub(1);
                let range = format!("bytes={}-{last}", range.start);
                self.request("GET", &key.0, &[], &[("Range", &range)], now)
            }
        }
    }

    /// Begins to store an object, with a condition unless the key exists; its body of `size` bytes follows after
    /// `100 Continue`. Stores without conditional requests ignore the condition, or refuse it. They send what is `shown`
    /// with downloads that ask for nothing else.
    pub fn put(
        &self,
        key: &ObjectKey,
        size: u64,
        shown: &Shown<'_>,
        is_conditional: bool,
        now: Now,
    ) -> StoreRequest {
        let length = size.to_string();
        let mut fields = put_fields(&length, shown, is_conditional);
        fields.push(("Expect", "100-continue"));
        StoreRequest {
            body_length: size,
            idempotent: false,
            ..self.request("PUT", &key.0, &[], &fields, now)
        }
    }

    /// The same with a body that is known, and sent along. It may be sent again: the content is the same.
    pub fn put_whole(
        &self,
        key: &ObjectKey,
        body: &[u8],
        shown: &Shown<'_>,
        is_conditional: bool,
        now: Now,
    ) -> StoreRequest {
        let length = body.len().to_string();
        let fields = put_fields(&length, shown, is_conditional);
        let mut request = self.request("PUT", &key.0, &[], &fields, now);
        request.bytes.reserve_exact(body.len());
        request.bytes.extend_from_slice(body);
        request
    }

    /// Stores an object, or replaces it.
    pub fn put_small(&self, key: &ObjectKey, body: &[u8], now: Now) -> StoreRequest {
        self.put_whole(key, body, &Shown::default(), false, now)
    }

    /// Deletes an object; the answer is the same if there is none.
    pub fn delete(&self, key: &ObjectKey, now: Now) -> StoreRequest {
        self.request("DELETE", &key.0, &[], &[], now)
    }

    /// Lists at most `max_keys` objects (1 to 1000) in the order of their keys: those whose keys begin with the configured
    /// prefix and `below`.
    pub fn list(
        &self,
        below: &str,
        continuation: Option<&str>,
        max_keys: usize,
        now: Now,
    ) -> StoreRequest {
        let start = continuation.map(|token| ("continuation-token", token));
        self.list_from(below, start, max_keys, now)
    }

    /// Lists the notes about slots, which are tombstones and revocations, as far as they fit one page. A store may list
    /// other internal objects as well.
    pub fn list_notes(&self, now: Now) -> StoreRequest {
        let below = [INTERNAL, "/"].concat();
        let after = [&self.prefix, INTERNAL, BEFORE_NOTES].concat();
        self.list_from(&below, Some(("start-after", &after)), MAX_NOTES, now)
    }

    fn list_from(
        &self,
        below: &str,
        start: Option<(&str, &str)>,
        max_keys: usize,
        now: Now,
    ) -> StoreRequest {
        let prefix = [&self.prefix, below].concat();
        let max_keys = max_keys.to_string();
        let mut query = vec![
            ("list-type", "2"),
            ("encoding-type", "url"),
            ("max-keys", max_keys.as_str()),
            ("prefix", prefix.as_str()),
        ];
        query.extend(start);
        self.request("GET", "", &query, &[], now)
    }

    /// An idempotent request without a body, for an object, or for the bucket if the key is empty.
    fn request(
        &self,
        method: &'static str,
        key: &str,
        query: &[(&str, &str)],
        fields: &[(&str, &str)],
        now: Now,
    ) -> StoreRequest {
        let path = self.internal.path(key);
        let mut target = path.clone();
        let request = Unsigned {
            method,
            host: &self.internal.host,
            path: &path,
            query,
            fields: &[],
            time: now.unix(),
            lifetime: REQUEST_LIFETIME,
        };
        self.signer.sign(&request, &mut target);
        let mut head = [method, " ", &target, " HTTP/1.1\r\n"].concat();
        let common = [
            ("Host", self.internal.host.as_str()),
            ("User-Agent", "upslot"),
            ("Accept-Encoding", "identity"),
            ("Connection", "keep-alive"),
        ];
        for (name, value) in common.iter().chain(fields) {
            head.extend([name, ": ", value, "\r\n"]);
        }
        head.push_str("\r\n");
        StoreRequest {
            method,
            bytes: head.into_bytes(),
            body_length: 0,
            idempotent: true,
        }
    }
}

/// The fields of a request that stores a file.
fn put_fields<'a>(
    length: &'a str,
    shown: &Shown<'a>,
    is_conditional: bool,
) -> Vec<(&'static str, &'a str)> {
    let content_type = match is_value(shown.content_type) {
        true => shown.content_type,
        false => "application/octet-stream",
    };
    let mut fields = vec![("Content-Length", length), ("Content-Type", content_type)];
    if is_conditional {
        fields.push(("If-None-Match", "*"));
    }
    if !shown.disposition.is_empty() {
        fields.push(("Content-Disposition", shown.disposition));
    }
    fields
}
