//! What the store says about an object, and a cache of that.
//!
//! Objects never change, but other nodes delete some. A fact is therefore kept for a minute at most, and dropped when this
//! process deletes the object. That an object does not exist is not remembered, because it may be uploaded next.

use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::decimal;
use crate::http::client::Response;
use crate::http::mime;
use crate::layout::StorePath;
use crate::s3::bucket::MAX_SIZE;
use crate::service::StoredFile;

/// Most objects in one generation of the cache. Two full ones take about a quarter of a megabyte.
const GENERATION_SIZE: usize = 512;

/// How long a generation takes entries. An entry is kept for one to two times as long.
const GENERATION_TIME: Duration = Duration::from_secs(30);

/// The type of objects that were stored without one, on AWS and others.
const DEFAULT_TYPE: &str = "binary/octet-stream";

/// The object whose bytes a response contains, or would contain if it were the response to a GET.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectHead {
    pub facts: StoredFile,
    /// The range of the object's bytes.
    pub span: Range<u64>,
    /// The store's validator, which tells objects apart that were stored within the same second.
    pub etag: Option<Box<str>>,
}

impl ObjectHead {
    /// Reads a response with the status 200 or 206; `None` if it lacks what every store sends, or contradicts itself.
    pub fn of(head: &Response) -> Option<ObjectHead> {
        let length = decimal::parse(head.field("content-length")?.as_bytes())?;
        let (span, size) = match head.status {
            200 => (0..length, length),
            206 => content_range(head.field("content-range")?)?,
            _ => return None,
        };
        if span.end - span.start != length || size > MAX_SIZE {
            return None;
        }
        let modified = httpdate::parse_http_date(head.field("last-modified")?).ok()?;
        let content_type = head.field("content-type");
        let content_type = content_type.filter(|value| mime::is_valid(value));
        let content_type = content_type.filter(|value| *value != DEFAULT_TYPE);
        Some(ObjectHead {
            facts: StoredFile {
                size,
                modified,
                stored: modified,
                content_type: content_type.map(str::to_owned),
                // The bytes were not seen when they were stored, or by another node.
                utf8: false,
            },
            span,
            etag: head.field("etag").map(Box::from),
        })
    }

    /// Whether it is this range of the object that was looked up, as far as that is known.
    pub fn is_part_of(&self, facts: &StoredFile, etag: Option<&str>, span: &Range<u64>) -> bool {
        let is_same = etag.is_none() || self.etag.as_deref() == etag;
        let facts = (facts.size, facts.modified);
        is_same && self.span == *span && (self.facts.size, self.facts.modified) == facts
    }
}

/// Parses `bytes 0-4/10` into a range and the size of the whole.
fn content_range(value: &str) -> Option<(Range<u64>, u64)> {
    let (range, size) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let number = |text: &str| decimal::parse(text.as_bytes());
    let (first, last, size) = (number(first)?, number(last)?, number(size)?);
    (first <= last && last < size).then_some((first..last + 1, size))
}

/// The cache: two generations, of which the older one is dropped when the younger one is full or old enough.
#[derive(Debug, Default)]
pub struct ObjectFacts {
    young: HashMap<StorePath, StoredFile>,
    old: HashMap<StorePath, StoredFile>,
    /// When the young generation becomes the old one.
    until: Option<Instant>,
}

impl ObjectFacts {
    pub fn get(&mut self, path: &StorePath, now: Instant) -> Option<&StoredFile> {
        self.expire(now);
        self.young.get(path).or_else(|| self.old.get(path))
    }

    pub fn record(&mut self, path: &StorePath, facts: &StoredFile, now: Instant) {
        self.expire(now);
        if self.young.len() >= GENERATION_SIZE && !self.young.contains_key(path) {
            self.age(now + GENERATION_TIME);
        }
        self.until.get_or_insert(now + GENERATION_TIME);
        self.old.remove(path);
        self.young.insert(path.clone(), facts.clone());
    }

    /// The object was deleted, or turned out to be another one.
    pub fn forget(&mut self, path: &StorePath) {
        self.young.remove(path);
        self.old.remove(path);
    }

    /// All objects may be other ones.
    pub fn clear(&mut self) {
        *self = ObjectFacts::default();
    }

    fn expire(&mut self, now: Instant) {
        let Some(until) = self.until.filter(|until| *until <= now) else {
            return;
        };
        let next = until + GENERATION_TIME;
        match next <= now {
            true => self.clear(),
            false => self.age(next),
        }
    }

    /// Begins a generation, which takes entries until then.
    fn age(&mut self, until: Instant) {
        self.old = std::mem::take(&mut self.young);
        self.until = Some(until);
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn head(status: u16, fields: &[(&str, &str)]) -> Option<ObjectHead> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        ObjectHead::of(&Response {
            status,
            fields: fields.iter().map(owned).collect(),
            ..Response::default()
        })
    }

    const MODIFIED: (&str, &str) = ("last-modified", "Tue, 15 Nov 1994 08:12:31 GMT");

    #[test]
    fn responses_are_read() {
        let whole = [
            MODIFIED,
            ("content-length", "10"),
            ("content-type", "text/plain"),
            ("etag", "\"a\""),
        ];
        let read = head(200, &whole).unwrap();
        assert_eq!((read.facts.size, read.span.clone()), (10, 0..10));
        assert_eq!(read.facts.content_type.as_deref(), Some("text/plain"));
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(784_887_151);
        assert_eq!(
            (read.facts.modified, read.facts.stored),
            (modified, modified)
        );
        let range = [
            MODIFIED,
            ("content-length", "3"),
            ("content-range", "bytes 4-6/10"),
            ("etag", "\"a\""),
        ];
        let part = head(206, &range).unwrap();
        assert_eq!((part.facts.size, part.span.clone()), (10, 4..7));
        assert!(part.is_part_of(&read.facts, Some("\"a\""), &(4..7)));
        assert!(part.is_part_of(&read.facts, None, &(4..7)));
        assert!(!part.is_part_of(&read.facts, Some("\"b\""), &(4..7)));
        assert!(!part.is_part_of(&read.facts, None, &(0..10)));
        let longer = StoredFile {
            size: 11,
            ..read.facts.clone()
        };
        assert!(!part.is_part_of(&longer, None, &(4..7)));
        let later = StoredFile {
            modified: modified + Duration::from_secs(1),
            ..read.facts
        };
        assert!(!part.is_part_of(&later, None, &(4..7)));
    }

    #[test]
    fn types_that_say_nothing_are_ignored() {
        for (sent, read) in [
            ("image/png", Some("image/png")),
            ("application/octet-stream", Some("application/octet-stream")),
            ("binary/octet-stream", None),
            ("blob", None),
            ("", None),
        ] {
            let fields = [MODIFIED, ("content-length", "0"), ("content-type", sent)];
            let found = head(200, &fields).unwrap().facts.content_type;
            assert_eq!(found.as_deref(), read, "{sent}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        let range =
            |range: &'static str| [MODIFIED, ("content-length", "3"), ("content-range", range)];
        assert!(head(206, &range("bytes 4-6/10")).is_some());
        for wrong in [
            "bytes 4-7/10",
            "bytes 6-4/10",
            "bytes 8-10/10",
            "bytes */10",
            "bytes 4-6/*",
            "bytes 4-6",
            "items 4-6/10",
            "bytes 4-18446744073709551615/18446744073709551616",
            "",
        ] {
            assert_eq!(head(206, &range(wrong)), None, "{wrong}");
        }
        for (status, fields) in [
            (200, &[("content-length", "3")][..]),
            (200, &[MODIFIED]),
            (200, &[MODIFIED, ("content-length", "+3")]),
            (200, &[("last-modified", "now"), ("content-length", "3")]),
            (206, &[MODIFIED, ("content-length", "3")]),
            // 8 EiB and more.
            (200, &[MODIFIED, ("content-length", "9223372036854775808")]),
            (204, &[MODIFIED, ("content-length", "3")]),
        ] {
            assert_eq!(head(status, fields), None, "{status} {fields:?}");
        }
    }

    fn path(name: usize) -> StorePath {
        let name = name.to_string();
        StorePath::from_segments([b"o", name.as_bytes()].into_iter()).unwrap()
    }

    #[test]
    fn facts_are_kept_for_a_minute_at_most() {
        let facts = head(200, &[MODIFIED, ("content-length", "3")])
            .unwrap()
            .facts;
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut cache = ObjectFacts::default();
        cache.record(&path(1), &facts, at(0));
        cache.record(&path(2), &facts, at(29));
        assert!(cache.get(&path(1), at(29)).is_some());
        assert!(cache.get(&path(1), at(31)).is_some());
        cache.record(&path(3), &facts, at(32));
        assert!(cache.get(&path(2), at(59)).is_some());
        assert!(cache.get(&path(2), at(60)).is_none());
        assert!(cache.get(&path(3), at(61)).is_some());
        cache.forget(&path(3));
        assert!(cache.get(&path(3), at(61)).is_none());
        cache.record(&path(4), &facts, at(62));
        assert!(cache.get(&path(4), at(1000)).is_none());
        assert!(cache.young.is_empty() && cache.old.is_empty());
    }

    #[test]
    fn the_cache_is_bounded() {
        let facts = head(200, &[MODIFIED, ("content-length", "3")])
            .unwrap()
            .facts;
        let now = Instant::now();
        let mut cache = ObjectFacts::default();
        for name in 0..5 * GENERATION_SIZE {
            cache.record(&path(name), &facts, now);
            assert!(cache.young.len() <= GENERATION_SIZE && cache.old.len() <= GENERATION_SIZE);
            assert!(cache.get(&path(name), now).is_some());
        }
        assert!(
            cache
                .get(&path(4 * GENERATION_SIZE), now + 2 * GENERATION_TIME)
                .is_none()
        );
        cache.record(&path(4 * GENERATION_SIZE), &facts, now);
        // What is recorded again does not displace others.
        for _ in 0..2 * GENERATION_SIZE {
            cache.record(&path(5 * GENERATION_SIZE - 1), &facts, now);
        }
        assert!(cache.get(&path(4 * GENERATION_SIZE), now).is_some());
    }
}
