//! A minimal object store (S3): keeps keys and sizes, and sends the pattern for every object. It is neither measured nor
//! strict: it accepts any signature, and discards what it receives. The bench starts itself as this store, so that all
//! servers have the same one.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::ops::Bound;
use std::time::{Duration, SystemTime};

use mio::net::TcpStream;
use percent_encoding::percent_decode_str;

use crate::common::outcome::Outcome;
use crate::limit::event_loop::{Handler, serve};
use crate::limit::http::head_end;
use crate::pattern::Pattern;
use crate::response::field;

/// The first argument, which makes the bench run as an object store.
pub const ARGUMENT: &str = "--as-object-store";
/// The name of its only bucket.
pub const BUCKET: &str = "uploads";
/// The bucket as the start of a path.
const BUCKET_PATH: &str = "/uploads/";
/// The response to a GET of this path has the number of objects in the field [`COUNT`].
pub const COUNT_PATH: &str = "/";
pub const COUNT: &str = "x-objects";
/// The last argument of a store that accepts uploads and reads none of them.
pub const STALLED: &str = "stalled";
/// How long ago half of the objects that it has at the start were stored; the others are new.
const OLD: Duration = Duration::from_secs(30 * 24 * 3600);
/// The size of these objects in bytes.
const SIZE: u64 = 100;
/// Of the buffer that receives, in bytes.
const BUFFER_SIZE: usize = 256 * 1024;
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

#[derive(Debug)]
struct Store {
    objects: BTreeMap<String, Object>,
    is_stalled: bool,
    pattern: Pattern,
    buffer: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Object {
    size: u64,
    modified: SystemTime,
}

/// A connection: what it received and not yet handled, and what it has to send.
#[derive(Debug, Default)]
struct Exchange {
    input: Vec<u8>,
    upload: Option<Upload>,
    output: Vec<u8>,
    /// Bytes of the output that were sent.
    sent: usize,
    /// The part of an object that follows.
    start: u64,
    end: u64,
}

/// An upload that is received.
#[derive(Debug)]
struct Upload {
    name: String,
    size: u64,
    /// Bytes that were not received yet.
    missing: u64,
    /// Whether an object is not replaced.
    once: bool,
}

/// Runs as an object store until the process is killed. Takes the arguments that follow [`ARGUMENT`]: the address, the
/// number of objects at the start, and [`STALLED`].
pub fn run(arguments: impl Iterator<Item = OsString>) -> Outcome<()> {
    let arguments: Vec<String> = arguments
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let invalid = || "invalid arguments of an object store".to_owned();
    let [address, count, rest @ ..] = arguments.as_slice() else {
        return Err(invalid());
    };
    let address: SocketAddr = address.parse().map_err(|_| invalid())?;
    let count: usize = count.parse().map_err(|_| invalid())?;
    let mut store = Store::new(count, rest == [STALLED]);
    serve(address, &mut store).map_err(|e| format!("object store: {e}"))
}

impl Store {
    fn new(count: usize, is_stalled: bool) -> Store {
        let now = SystemTime::now();
        let object = |number| {
            let old = number % 2 == 0;
            let object = Object {
                size: SIZE,
                modified: if old { now - OLD } else { now },
            };
            (key(number), object)
        };
        Store {
            objects: (0..count).map(object).collect(),
            is_stalled,
            pattern: Pattern::new(),
            buffer: vec![0; BUFFER_SIZE],
        }
    }

    /// Handles the head of a request.
    fn handle(&mut self, head: &[u8], exchange: &mut Exchange) -> io::Result<()> {
        let text = String::from_utf8_lossy(head);
        let mut words = text.split(' ');
        let method = words.next().unwrap_or_default();
        let target = words.next().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let name = path.strip_prefix(BUCKET_PATH).unwrap_or_default();
        let name = percent_decode_str(name).decode_utf8_lossy().into_owned();
        let found = self.objects.get(&name).copied();
        match method {
            "PUT" => {
                let length = field(head, "content-length");
                let length =
                    length.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
                let length = length.ok_or_else(|| io::Error::other("a PUT without its length"))?;
                if field(head, "expect").is_some() {
                    exchange.output.extend_from_slice(CONTINUE);
                }
                exchange.upload = Some(Upload {
                    name,
                    size: length,
                    missing: length,
                    once: field(head, "if-none-match").is_some(),
                });
                if length == 0 {
                    self.finish_upload(exchange);
                }
            }
            "DELETE" => {
                self.objects.remove(&name);
                exchange.respond("204 No Content", "", "");
            }
            _ if path == COUNT_PATH => {
                let fields = format!("{COUNT}: {}\r\n", self.objects.len());
                exchange.respond("200 OK", &fields, "");
            }
            _ if name.is_empty() => {
                let page = self.page(query);
                exchange.respond("200 OK", "Content-Type: application/xml\r\n", &page);
            }
            _ => match found {
                Some(object) => exchange.send_object(object, head, method == "HEAD"),
                None => exchange.respond("404 Not Found", "", ""),
            },
        }
        Ok(())
    }

    /// A page of the list of objects.
    fn page(&self, query: &str) -> String {
        let parameter = |name: &str| {
            let mut parameters = query.split('&').filter_map(|one| one.split_once('='));
            let value = parameters.find(|(found, _)| *found == name)?.1;
            Some(percent_decode_str(value).decode_utf8_lossy().into_owned())
        };
        let prefix = parameter("prefix").unwrap_or_default();
        let most = parameter("max-keys").and_then(|most| most.parse().ok());
        let after = parameter("continuation-token").or_else(|| parameter("start-after"));
        let from = match &after {
            Some(after) => Bound::Excluded(after.as_str()),
            None => Bound::Included(prefix.as_str()),
        };
        let mut objects = self
            .objects
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(&prefix))
            .peekable();
        let mut page = String::from("<?xml version=\"1.0\"?><ListBucketResult>");
        let mut last = "";
        for (key, object) in objects.by_ref().take(most.unwrap_or(1000)) {
            let time = timestamp(object.modified);
            page.push_str(&format!(
                "<Contents><Key>{key}</Key><LastModified>{time}</LastModified><Size>{}</Size></Contents>",
                object.size
            ));
            last = key;
        }
        if objects.peek().is_some() {
            page.push_str(&format!(
                "<IsTruncated>true</IsTruncated><NextContinuationToken>{last}</NextContinuationToken>"
            ));
        } else {
            page.push_str("<IsTruncated>false</IsTruncated>");
        }
        page.push_str("</ListBucketResult>");
        page
    }

    fn finish_upload(&mut self, exchange: &mut Exchange) {
        let Some(upload) = exchange.upload.take() else {
            return;
        };
        let Upload { name, size, .. } = upload;
        if upload.once && self.objects.contains_key(&name) {
            return exchange.respond("412 Precondition Failed", "", "");
        }
        let modified = SystemTime::now();
        self.objects.insert(name, Object { size, modified });
        exchange.respond("200 OK", "ETag: \"0\"\r\n", "");
    }

    /// Receives once; false at the end of input.
    fn receive(&mut self, mut socket: &TcpStream, exchange: &mut Exchange) -> io::Result<bool> {
        let n = socket.read(&mut self.buffer)?;
        if n == 0 {
            return Ok(false);
        }
        let mut body = n;
        if exchange.upload.is_none() {
            exchange.input.extend_from_slice(&self.buffer[..n]);
            let Some(end) = head_end(&exchange.input) else {
                return Ok(true);
            };
            body = exchange.input.len() - end;
            let mut head = std::mem::take(&mut exchange.input);
            head.truncate(end);
            self.handle(&head, exchange)?;
        }
        let Some(Upload { missing, .. }) = &mut exchange.upload else {
            return match body {
                0 => Ok(true),
                _ => Err(io::Error::other("a request before the response")),
            };
        };
        *missing = missing
            .checked_sub(body as u64)
            .ok_or_else(|| io::Error::other("a body that is too long"))?;
        if *missing == 0 {
            self.finish_upload(exchange);
        }
        Ok(true)
    }

    fn exchange(&mut self, socket: &TcpStream, exchange: &mut Exchange) -> io::Result<bool> {
        loop {
            exchange.send(socket, &self.pattern)?;
            if self.is_stalled && exchange.upload.is_some() {
                return Ok(true);
            }
            if !self.receive(socket, exchange)? {
                return Ok(false);
            }
        }
    }
}

impl Exchange {
    fn respond(&mut self, status: &str, fields: &str, body: &str) {
        let response = format!(
            "HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.output.extend_from_slice(response.as_bytes());
    }

    /// Sends an object, or the part of it that `Range` names.
    fn send_object(&mut self, object: Object, head: &[u8], head_only: bool) {
        let size = object.size;
        let range = field(head, "range").and_then(|range| {
            let (start, last) = std::str::from_utf8(range)
                .ok()?
                .strip_prefix("bytes=")?
                .split_once('-')?;
            Some((start.parse().ok()?, last.parse::<u64>().ok()? + 1))
        });
        let (start, end) = range.unwrap_or((0, size));
        let (status, content_range) = match range {
            Some(_) => (
                "206 Partial Content",
                format!("Content-Range: bytes {start}-{}/{size}\r\n", end - 1),
            ),
            None => ("200 OK", String::new()),
        };
        let response = format!(
            "HTTP/1.1 {status}\r\nContent-Type: image/jpeg\r\nETag: \"0\"\r\nLast-Modified: {}\r\n\
             {content_range}Content-Length: {}\r\n\r\n",
            httpdate::fmt_http_date(object.modified),
            end - start,
        );
        self.output.extend_from_slice(response.as_bytes());
        if !head_only {
            (self.start, self.end) = (start, end);
        }
    }

    /// Sends everything; an error if the socket does not take it now.
    fn send(&mut self, mut socket: &TcpStream, pattern: &Pattern) -> io::Result<()> {
        while self.sent < self.output.len() || self.start < self.end {
            let head = io::IoSlice::new(&self.output[self.sent..]);
            let body = io::IoSlice::new(pattern.bytes_at(self.start, self.end - self.start));
            let n = socket.write_vectored(&[head, body])?;
            let of_head = n.min(self.output.len() - self.sent);
            self.sent += of_head;
            self.start += (n - of_head) as u64;
        }
        self.output.clear();
        self.sent = 0;
        Ok(())
    }
}

impl Handler for Store {
    type State = Exchange;

    fn new_state(&mut self) -> io::Result<Exchange> {
        Ok(Exchange::default())
    }

    fn advance(&mut self, socket: &TcpStream, exchange: &mut Exchange) -> io::Result<bool> {
        match self.exchange(socket, exchange) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(true),
            Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(false),
            other => other,
        }
    }
}

/// The key of an object that the store has at the start, in the form that upslot gives it.
fn key(number: usize) -> String {
    format!("{:040x}/{number:022}/photo.jpg", number % 1000)
}

/// A time as in lists of objects (ISO 8601): the store knows two, which differ by whole days.
fn timestamp(time: SystemTime) -> String {
    let date = httpdate::fmt_http_date(time);
    let months = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let month = months.iter().position(|month| date[8..].starts_with(month));
    format!(
        "{}-{:02}-{}T{}.000Z",
        &date[12..16],
        month.map_or(0, |month| month + 1),
        &date[5..7],
        &date[17..25]
    )
}
