//! Answers as object stores give them: errors in XML, objects and parts of them, pages of a listing.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use super::signature::{Head, decoded, encoded, extended_date};
use crate::harness::xml::escape;

/// An error of a store.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub status: u16,
    pub code: &'static str,
    message: String,
    /// Further elements of the XML.
    more: Vec<(&'static str, String)>,
    fields: Vec<(&'static str, String)>,
}

impl Refusal {
    pub fn new(status: u16, code: &'static str, message: &str) -> Refusal {
        Refusal {
            status,
            code,
            message: message.to_owned(),
            more: Vec::new(),
            fields: Vec::new(),
        }
    }

    pub fn with(mut self, name: &'static str, value: &str) -> Refusal {
        self.more.push((name, value.to_owned()));
        self
    }

    /// A bucket in another region of AWS.
    pub fn redirect(bucket: &str, region: &str) -> Refusal {
        let endpoint = format!("{bucket}.s3.{region}.amazonaws.com");
        let why = "Please re-send this request to the specified temporary endpoint.";
        let mut refusal = Refusal::new(307, "TemporaryRedirect", why)
            .with("Bucket", bucket)
            .with("Endpoint", &endpoint);
        refusal.fields = vec![
            ("Location", format!("http://{endpoint}/")),
            ("x-amz-bucket-region", region.to_owned()),
        ];
        refusal
    }
}

/// A stored object. Its content is `bytes`, repeated up to the size.
#[derive(Clone, Debug)]
pub struct Object {
    pub bytes: Arc<[u8]>,
    pub size: u64,
    /// Unix seconds.
    pub modified: u64,
    pub content_type: String,
}

impl Object {
    /// Up to 64 KiB of the content.
    pub fn piece(&self, range: Range<u64>) -> Vec<u8> {
        let length = self.bytes.len() as u64;
        let end = range.end.min(range.start + 64 * 1024);
        let mut piece = Vec::new();
        let mut at = range.start;
        while at < end {
            let rest = &self.bytes[usize::try_from(at % length).unwrap()..];
            let rest = &rest[..rest.len().min(usize::try_from(end - at).unwrap())];
            piece.extend_from_slice(rest);
            at += rest.len() as u64;
        }
        piece
    }
}

#[derive(Debug)]
pub enum Content {
    Bytes(Vec<u8>),
    Part(Object, Range<u64>),
}

impl Content {
    pub fn length(&self) -> u64 {
        match self {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Part(_, range) => range.end - range.start,
        }
    }
}

/// A response without the fields that every response has.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub fields: Vec<(&'static str, String)>,
    pub content: Content,
}

impl Answer {
    pub fn empty(status: u16) -> Answer {
        Answer {
            status,
            fields: Vec::new(),
            content: Content::Bytes(Vec::new()),
        }
    }

    pub fn xml(status: u16, text: &str) -> Answer {
        let text = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{text}");
        Answer {
            fields: vec![("Content-Type", "application/xml".to_owned())],
            content: Content::Bytes(text.into_bytes()),
            ..Answer::empty(status)
        }
    }

    pub fn refusal(refusal: &Refusal, resource: &str) -> Answer {
        let elements = [
            ("Code", refusal.code.to_owned()),
            ("Message", refusal.message.clone()),
        ];
        let end = [
            ("Resource", resource.to_owned()),
            ("RequestId", "tx0000017c-upslot".to_owned()),
            ("HostId", "a/Zq+1==".to_owned()),
        ];
        let elements = elements.iter().chain(&refusal.more).chain(&end);
        let elements: String = elements
            .map(|(name, value)| format!("<{name}>{}</{name}>", escape(value)))
            .collect();
        let mut answer = Answer::xml(refusal.status, &format!("<Error>{elements}</Error>"));
        answer.fields.extend(refusal.fields.iter().cloned());
        answer
    }

    /// The object, or the part of it that the request asks for.
    pub fn object(head: &Head, object: &Object, ranges: bool) -> Result<Answer, Refusal> {
        let asked = head.field("range").filter(|_| ranges);
        let part = match asked.map(|value| range_of(value, object.size)) {
            Some(Asked::Outside) => {
                let why = "The requested range is not satisfiable";
                return Err(Refusal::new(416, "InvalidRange", why));
            }
            Some(Asked::Part(range)) => Some(range),
            Some(Asked::Other) | None => None,
        };
        let modified = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(object.modified));
        let etag = format!("\"{:x}-{:x}\"", object.modified, object.size);
        if head.field("if-none-match") == Some(&etag) {
            return Ok(Answer {
                fields: vec![("ETag", etag)],
                ..Answer::empty(304)
            });
        }
        let mut fields = vec![
            ("Last-Modified", modified),
            ("ETag", etag),
            ("Accept-Ranges", "bytes".to_owned()),
        ];
        let shown = |name: &str| {
            head.parameter(&format!("response-{name}"))
                .map(str::to_owned)
        };
        let kind = shown("content-type").unwrap_or_else(|| object.content_type.clone());
        fields.push(("Content-Type", kind));
        for (name, field) in [
            ("content-disposition", "Content-Disposition"),
            ("cache-control", "Cache-Control"),
        ] {
            fields.extend(shown(name).map(|value| (field, value)));
        }
        if let Some(range) = &part {
            let value = format!("bytes {}-{}/{}", range.start, range.end - 1, object.size);
            fields.push(("Content-Range", value));
        }
        Ok(Answer {
            status: if part.is_some() { 206 } else { 200 },
            fields,
            content: Content::Part(object.clone(), part.unwrap_or(0..object.size)),
        })
    }
}

enum Asked {
    Part(Range<u64>),
    Outside,
    /// A store answers other units and several ranges with the whole object.
    Other,
}

fn range_of(value: &str, size: u64) -> Asked {
    let range = value.strip_prefix("bytes=");
    let Some((first, last)) = range.and_then(|range| range.split_once('-')) else {
        return Asked::Other;
    };
    let range = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => first..size.min(last + 1),
        (Ok(first), Err(_)) if last.is_empty() => first..size,
        (Err(_), Ok(length)) if first.is_empty() => size.saturating_sub(length)..size,
        _ => return Asked::Other,
    };
    if range.is_empty() {
        Asked::Outside
    } else {
        Asked::Part(range)
    }
}

/// How a store encodes keys in a listing with `encoding-type=url`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyEncoding {
    /// As AWS: a space is a plus sign, a slash stays.
    Form,
    /// As Ceph and Garage: everything but unreserved characters is encoded.
    Percent,
}

/// One page of ListObjectsV2; the keys are sorted.
pub fn page<'a>(
    head: &Head,
    bucket: &str,
    objects: impl Iterator<Item = (&'a String, &'a Object)>,
    most: usize,
    encoding: KeyEncoding,
) -> Result<Answer, Refusal> {
    let invalid = |what: &str| {
        let why = format!("The {what} provided is incorrect");
        Refusal::new(400, "InvalidArgument", &why)
    };
    let prefix = head.parameter("prefix").unwrap_or_default();
    let after = match head.parameter("continuation-token") {
        Some(token) => Some(key_of(token).ok_or_else(|| invalid("continuation token"))?),
        None => head.parameter("start-after").map(str::to_owned),
    };
    let most = match head.parameter("max-keys") {
        Some(keys) => most.min(keys.parse().map_err(|_| invalid("max-keys"))?),
        None => most,
    };
    let url = head.parameter("encoding-type") == Some("url");
    let shown = |key: &str| match encoding {
        _ if !url => escape(key),
        KeyEncoding::Form => encoded(key, "/ ").replace(' ', "+"),
        KeyEncoding::Percent => encoded(key, ""),
    };
    let mut left = objects
        .filter(|(key, _)| key.starts_with(prefix))
        .filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after));
    let found: Vec<_> = left.by_ref().take(most).collect();
    let contents: String = found
        .iter()
        .map(|(key, object)| {
            format!(
                "<Contents><Key>{}</Key><LastModified>{}</LastModified><ETag>&#34;d41d&#34;</ETag><Size>{}</Size>\
                 <StorageClass>STANDARD</StorageClass></Contents>",
                shown(key),
                extended_date(object.modified),
                object.size
            )
        })
        .collect();
    let next = match (found.last(), left.next()) {
        (Some((key, _)), Some(_)) => {
            format!(
                "<NextContinuationToken>{}</NextContinuationToken>",
                token_of(key)
            )
        }
        _ => String::new(),
    };
    let encoding = if url {
        "<EncodingType>url</EncodingType>"
    } else {
        ""
    };
    Ok(Answer::xml(
        200,
        &format!(
            "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>{bucket}</Name>\
             <Prefix>{}</Prefix><KeyCount>{}</KeyCount><MaxKeys>{most}</MaxKeys>{encoding}\
             <IsTruncated>{}</IsTruncated>{next}{contents}</ListBucketResult>",
            shown(prefix),
            found.len(),
            !next.is_empty()
        ),
    ))
}

/// Opaque, and with characters that a query has to encode.
fn token_of(key: &str) -> String {
    format!("]+/{}=", encoded(key, ""))
}

fn key_of(token: &str) -> Option<String> {
    let key = token.strip_prefix("]+/")?.strip_suffix('=')?;
    Some(decoded(key))
}
