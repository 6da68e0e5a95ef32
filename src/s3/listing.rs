//! The pages of a list of objects (ListObjectsV2 with `encoding-type=url`).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use percent_encoding::percent_decode_str;

use crate::decimal;
use crate::http::client::Response;
use crate::now::{Now, unix_from_civil};
use crate::s3::bucket::{MAX_KEY, MAX_SIZE, ObjectKey};
use crate::s3::error::StoreFailure;
use crate::s3::xml::{EndedElement, InvalidXml, XmlPosition, visit_some};

/// Most objects of a page.
pub const MAX_OBJECTS: usize = 1000;

/// A stored object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredObject {
    pub key: String,
    /// Bytes.
    pub size: u64,
    pub modified: SystemTime,
}

/// One page, in the order of the keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectPage {
    pub objects: Vec<StoredObject>,
    /// Objects whose keys are not UTF-8, or too long, so that they are no files of upslot.
    pub skipped: u64,
    /// The token of the next page, if there is one.
    pub next: Option<String>,
}

impl ObjectPage {
    /// The page of an answer to a request for the first one.
    pub fn of(response: Response, now: Now) -> Result<ObjectPage, StoreFailure> {
        StoreFailure::check(&response, now.wall)?;
        let page = ObjectPage::parse(response.body);
        page.map_err(|error| StoreFailure::malformed(200, error.0))
    }

    /// Whether it has all objects that there are.
    pub fn is_whole(&self) -> bool {
        self.next.is_none() && self.skipped == 0
    }

    pub fn contains(&self, key: &ObjectKey) -> bool {
        let mut objects = self.objects.iter();
        objects.any(|object| object.key == key.as_str())
    }

    /// Reads a whole first page, of few objects.
    pub fn parse(body: Vec<u8>) -> Result<ObjectPage, InvalidXml> {
        let mut reader = PageReader::new(body)?;
        while !reader.go_on(MAX_OBJECTS)? {}
        reader.finish(None)
    }
}

/// Reads a page in small steps, because a whole one takes longer than other work should wait.
#[derive(Debug)]
pub struct PageReader {
    body: String,
    position: XmlPosition,
    is_parsed: bool,
    /// Number of objects whose keys are decoded.
    decoded: usize,
    parser: Parser,
}

impl PageReader {
    pub fn new(body: Vec<u8>) -> Result<PageReader, InvalidXml> {
        let body = String::from_utf8(body).map_err(|_| InvalidXml("the answer is broken XML"))?;
        Ok(PageReader {
            body,
            position: XmlPosition::default(),
            is_parsed: false,
            decoded: 0,
            parser: Parser::default(),
        })
    }

    /// Parses or decodes so many objects; true at the end of the page.
    pub fn go_on(&mut self, most: usize) -> Result<bool, InvalidXml> {
        let parser = &mut self.parser;
        if !self.is_parsed {
            self.is_parsed = visit_some(&self.body, &mut self.position, most, |ended| {
                parser.visit(&ended)
            })?;
            return Ok(false);
        }
        // Only the end of a page tells for sure whether its keys are encoded.
        if parser.is_encoded {
            let left = parser.objects.iter_mut().skip(self.decoded);
            for object in left.take(most) {
                object.key = decode_key(&object.key).unwrap_or_default();
                self.decoded += 1;
            }
        }
        Ok(!parser.is_encoded || self.decoded == parser.objects.len())
    }

    /// The page, once the whole of it was read. The request had this continuation token.
    pub fn finish(self, continuation: Option<&str>) -> Result<ObjectPage, InvalidXml> {
        self.parser.finish(continuation)
    }
}

/// What was read so far.
#[derive(Debug, Default)]
struct Parser {
    is_list: bool,
    is_encoded: bool,
    is_truncated: Option<bool>,
    next: Option<String>,
    /// The object whose element is being read.
    key: Option<String>,
    size: Option<u64>,
    modified: Option<SystemTime>,
    /// With keys as they were sent, until they are decoded; those that are too long are empty.
    objects: Vec<StoredObject>,
}

impl Parser {
    fn visit(&mut self, ended: &EndedElement<'_>) -> Result<(), InvalidXml> {
        let text = ended.text;
        match (ended.depth, ended.name) {
            (1, name) => self.is_list = name == "ListBucketResult",
            (2, "Contents") => self.push_object()?,
            (2, "EncodingType") => self.is_encoded = text.trim() == "url",
            (2, "IsTruncated") => {
                self.is_truncated = match text.trim() {
                    "true" => Some(true),
                    "false" => Some(false),
                    _ => return Err(InvalidXml("the list has an invalid IsTruncated")),
                };
            }
            (2, "NextContinuationToken") if ended.is_cut => {
                return Err(InvalidXml("the list has a token that is too long"));
            }
            (2, "NextContinuationToken") => self.next = Some(text.to_owned()),
            (3, "Key") => self.key = Some(text.to_owned()),
            (3, "Size") => {
                let size = decimal::parse(text.trim().as_bytes());
                let size = size.filter(|size| *size <= MAX_SIZE);
                self.size = Some(size.ok_or(InvalidXml("the list has an invalid size"))?);
            }
            (3, "LastModified") => {
                let time = parse_time(text.trim());
                self.modified = Some(time.ok_or(InvalidXml("the list has an invalid time"))?);
            }
            _ => {}
        }
        if ended.depth == 2 {
            (self.key, self.size, self.modified) = (None, None, None);
        }
        Ok(())
    }

    fn push_object(&mut self) -> Result<(), InvalidXml> {
        let (Some(key), Some(size), Some(modified)) =
            (self.key.take(), self.size.take(), self.modified.take())
        else {
            return Err(InvalidXml("the list has an incomplete object"));
        };
        if self.objects.len() == MAX_OBJECTS {
            return Err(InvalidXml("the list has more objects than wanted"));
        }
        self.objects.push(StoredObject {
            key,
            size,
            modified,
        });
        Ok(())
    }

    fn finish(mut self, continuation: Option<&str>) -> Result<ObjectPage, InvalidXml> {
        if !self.is_list {
            return Err(InvalidXml("the answer is no list of objects"));
        }
        let all = self.objects.len();
        self.objects
            .retain(|object| !object.key.is_empty() && object.key.len() <= MAX_KEY);
        let next = self.next.filter(|token| !token.is_empty());
        let next = match (self.is_truncated, next) {
            (Some(true), None) => return Err(InvalidXml("the list ends without its next token")),
            (Some(true), Some(next)) if Some(next.as_str()) == continuation => {
                return Err(InvalidXml("the list repeats its token"));
            }
            (Some(true), next) => next,
            (Some(false) | None, _) => None,
        };
        Ok(ObjectPage {
            skipped: (all - self.objects.len()) as u64,
            objects: self.objects,
            next,
        })
    }
}

/// Decodes a key; a `+` is a space, as AWS and SeaweedFS write it, and no store leaves a `+` as it is.
fn decode_key(key: &str) -> Option<String> {
    let key = key.replace('+', " ");
    let decoded = percent_decode_str(&key).decode_utf8().ok()?;
    Some(decoded.into_owned())
}

/// Parses a time as in `2026-11-28T14:12:03.000Z`; the fraction is ignored.
fn parse_time(text: &str) -> Option<SystemTime> {
    let (time, fraction) = text.strip_suffix('Z')?.split_at_checked(19)?;
    let is_fraction = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit());
    if !fraction.is_empty() && !fraction.strip_prefix('.').is_some_and(is_fraction) {
        return None;
    }
    let bytes = time.as_bytes();
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if separators.iter().any(|(at, byte)| bytes[*at] != *byte) {
        return None;
    }
    let mut civil = [0; 6];
    let parts = [0..4, 5..7, 8..10, 11..13, 14..16, 17..19];
    for (number, part) in civil.iter_mut().zip(parts) {
        *number = decimal::parse(&bytes[part])?;
    }
    let seconds = u64::try_from(unix_from_civil(civil)?).ok()?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests;
