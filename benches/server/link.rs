//! A scripted XMPP server at the other end of the component's link (XEP-0114 §3): it verifies the handshake, requests
//! many slots at a time (XEP-0363 §4), and answers pings. It reads only what upslot writes, so it needs no XML parser:
//! top-level elements, attributes, five entities.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use sha1_smol::Sha1;

use crate::common::outcome::Outcome;
use crate::load::Sample;
use crate::process::Process;
use crate::stop::StopSignal;

pub const COMPONENT: &str = "upload.localhost";
pub const SECRET: &str = "a secret of the bench";
/// The domain of the owners.
pub const DOMAIN: &str = "bench.localhost";
/// How many owners take turns in uploading, each with a folder of its own in the store.
pub const OWNERS: usize = 64;
/// Maximum number of outstanding slot requests, about that of a busy server.
const WINDOW: usize = 64;
const STREAM_ID: &str = "bench-1";
const CLOSE: &str = "</stream:stream>";
/// For the component to connect, to finish its handshake, and to answer a request.
const TIMEOUT: Duration = Duration::from_secs(20);
/// In bytes; larger than any stanza from upslot.
const STANZA_LIMIT: usize = 256 * 1024;

/// The request targets of a PUT and of the GET of the same file: paths, with queries.
#[derive(Clone, Debug)]
pub struct Target {
    pub put: String,
    pub get: String,
}

/// An open link. Dropping it closes the stream and joins the reader thread.
#[derive(Debug)]
pub struct Link {
    stream: Arc<Mutex<TcpStream>>,
    /// Complete stanzas, in batches as they were read, with the time of the read.
    results: Receiver<Outcome<(Instant, Vec<String>)>>,
    reader: Option<JoinHandle<()>>,
    /// Requests sent so far; used as ids.
    serial: usize,
    /// How many owners take turns; [`OWNERS`] at first.
    pub owners: usize,
}

/// The port to which upslot connects.
#[derive(Debug)]
pub struct LinkListener {
    listener: TcpListener,
    pub address: SocketAddr,
}

impl LinkListener {
    pub fn new() -> Outcome<LinkListener> {
        let failed = |e| format!("the scripted XMPP server cannot listen: {e}");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(LinkListener { listener, address })
    }

    /// Waits for the component to connect, opens the stream and verifies the handshake.
    pub fn accept(self, process: &mut Process, stop: &StopSignal) -> Outcome<Link> {
        let deadline = Instant::now() + TIMEOUT;
        let stream = loop {
            match self.listener.accept() {
                Ok((stream, _)) => break stream,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => return Err(format!("accept: {e}")),
            }
            stop.check()?;
            process.check_running()?;
            if Instant::now() > deadline {
                return Err("upslot did not connect to the scripted XMPP server".to_owned());
            }
            thread::sleep(Duration::from_millis(2));
        };
        Link::open(stream)
    }
}

impl Link {
    fn open(mut stream: TcpStream) -> Outcome<Link> {
        let failed = |e| format!("link to the component: {e}");
        stream.set_nonblocking(false).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        stream.set_read_timeout(Some(TIMEOUT)).map_err(failed)?;
        stream.set_write_timeout(Some(TIMEOUT)).map_err(failed)?;
        let mut input = LinkInput::default();
        input.read_until(&mut stream, |text| {
            text.contains("<stream:stream") && text.ends_with('>')
        })?;
        input.text.clear();
        let header = format!(
            "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' \
             xmlns:stream='http://etherx.jabber.org/streams' from='{COMPONENT}' id='{STREAM_ID}'>"
        );
        stream.write_all(header.as_bytes()).map_err(failed)?;
        input.read_until(&mut stream, |text| text.contains("</handshake>"))?;
        let proof = Sha1::from(format!("{STREAM_ID}{SECRET}"))
            .digest()
            .to_string();
        if !input.text.contains(&format!(">{proof}</handshake>")) {
            return Err(format!("wrong handshake: {}", input.text));
        }
        input.text.clear();
        stream.write_all(b"<handshake/>").map_err(failed)?;
        // From here on the reader waits without a timeout; it ends when the socket is shut down.
        stream.set_read_timeout(None).map_err(failed)?;
        let (sender, results) = mpsc::channel();
        let read_half = stream.try_clone().map_err(failed)?;
        let stream = Arc::new(Mutex::new(stream));
        let write_half = Arc::clone(&stream);
        let reader = thread::Builder::new()
            .name("link".to_owned())
            .spawn(move || read(read_half, input, &write_half, &sender))
            .map_err(failed)?;
        Ok(Link {
            stream,
            results,
            reader: Some(reader),
            serial: 0,
            owners: OWNERS,
        })
    }

    /// Requests slots for `count` files of `size` bytes, with up to [`WINDOW`] requests outstanding. Returns the slots
    /// and the latencies; fewer than `count` if the time limit passes first.
    pub fn request_slots(
        &mut self,
        count: usize,
        size: u64,
        time_limit: Duration,
        stop: &StopSignal,
    ) -> Outcome<(Vec<Target>, Sample)> {
        let mut targets = Vec::with_capacity(count);
        let mut latencies = Vec::with_capacity(count);
        let mut sent_at = HashMap::with_capacity(WINDOW);
        let start = Instant::now();
        let mut sent = 0;
        while sent < count || !sent_at.is_empty() {
            if sent < count && start.elapsed() > time_limit {
                sent = count;
                continue;
            }
            // Half a window at a time: one write for many stanzas, as from a busy server.
            if sent < count && sent_at.len() <= WINDOW / 2 {
                let batch = (WINDOW - sent_at.len()).min(count - sent);
                let now = Instant::now();
                let mut stanzas = String::new();
                for _ in 0..batch {
                    sent_at.insert(self.serial, now);
                    let owner = self.serial % self.owners;
                    write_slot_request(&mut stanzas, self.serial, owner, size);
                    self.serial += 1;
                }
                sent += batch;
                write(&self.stream, &stanzas)?;
            }
            let (received_at, stanzas) = self.next_results(stop)?;
            for stanza in stanzas {
                let (id, target) = parse_slot(&stanza)?;
                let Some(sent_at) = sent_at.remove(&id) else {
                    return Err(format!("unexpected response: {stanza}"));
                };
                let latency = received_at.saturating_duration_since(sent_at);
                latencies.push(latency.as_nanos().try_into().unwrap_or(u64::MAX));
                targets.push(target);
            }
        }
        let sample = Sample {
            requests: targets.len() as u64,
            wall: start.elapsed(),
            latencies,
        };
        Ok((targets, sample))
    }

    /// Waits for the next batch of stanzas.
    fn next_results(&self, stop: &StopSignal) -> Outcome<(Instant, Vec<String>)> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            match self.results.recv_timeout(Duration::from_millis(500)) {
                Ok(results) => return results,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err("the link to the component is closed".to_owned());
                }
                Err(RecvTimeoutError::Timeout) => stop.check()?,
            }
            if Instant::now() > deadline {
                return Err("a slot request was not answered in time".to_owned());
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Ok(mut stream) = self.stream.lock() {
            let _ = stream.write_all(CLOSE.as_bytes());
            let _ = stream.shutdown(Shutdown::Both);
        }
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// Input that was read but not yet processed.
#[derive(Debug, Default)]
struct LinkInput {
    text: String,
    /// The start of a UTF-8 sequence whose end is not yet received.
    partial: Vec<u8>,
}

impl LinkInput {
    /// Reads once; false at the end of input.
    fn read(&mut self, stream: &mut TcpStream) -> Outcome<bool> {
        let mut buffer = [0; 16 * 1024];
        let n = match stream.read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::Interrupted => return Ok(true),
            Err(e) => return Err(format!("link to the component: {e}")),
        };
        self.partial.extend_from_slice(&buffer[..n]);
        let valid = match std::str::from_utf8(&self.partial) {
            Ok(text) => text.len(),
            Err(e) => e.valid_up_to(),
        };
        let rest = self.partial.split_off(valid);
        self.text.push_str(&String::from_utf8_lossy(&self.partial));
        self.partial = rest;
        if self.text.len() > STANZA_LIMIT || self.partial.len() > 3 {
            return Err("the component sent invalid UTF-8 or a stanza that is too long".to_owned());
        }
        Ok(true)
    }

    fn read_until(
        &mut self,
        stream: &mut TcpStream,
        complete: impl Fn(&str) -> bool,
    ) -> Outcome<()> {
        while !complete(&self.text) {
            if !self.read(stream)? {
                return Err(format!(
                    "the component closed the link after sending: {}",
                    self.text
                ));
            }
        }
        Ok(())
    }

    /// Removes and returns the complete stanzas, without the white space between them, which only keeps the link alive.
    fn stanzas(&mut self) -> Vec<String> {
        let mut stanzas = Vec::new();
        let mut start = 0;
        while let Some(length) = stanza_length(self.text[start..].trim_start()) {
            start = self.text.len() - self.text[start..].trim_start().len();
            stanzas.push(self.text[start..start + length].to_owned());
            start += length;
        }
        self.text.drain(..start);
        stanzas
    }
}

/// The reader thread: answers pings, and passes all other stanzas on.
fn read(
    mut stream: TcpStream,
    mut input: LinkInput,
    write_half: &Mutex<TcpStream>,
    sender: &Sender<Outcome<(Instant, Vec<String>)>>,
) {
    loop {
        match input.read(&mut stream) {
            Ok(true) => {}
            Ok(false) => return,
            Err(why) => {
                let _ = sender.send(Err(why));
                return;
            }
        }
        let now = Instant::now();
        let mut stanzas = input.stanzas();
        if stanzas.iter().any(|stanza| stanza == CLOSE) {
            // The component waits for the closing tag of the other side (RFC 6120 §4.4).
            let _ = write(write_half, CLOSE);
            let _ = stream.shutdown(Shutdown::Both);
            return;
        }
        stanzas.retain(|stanza| !answer_ping(stanza, write_half));
        if !stanzas.is_empty() && sender.send(Ok((now, stanzas))).is_err() {
            return;
        }
    }
}

/// Answers a ping, which the component sends on an idle link (XEP-0199); false if the stanza is not a request.
fn answer_ping(stanza: &str, write_half: &Mutex<TcpStream>) -> bool {
    let head = stanza.split('>').next().unwrap_or_default();
    if attribute(head, "type").as_deref() != Some("get") {
        return false;
    }
    let id = attribute(head, "id").unwrap_or_default();
    let result = format!(
        "<iq type='result' from='localhost' to='{COMPONENT}' id='{}'/>",
        escape(&id)
    );
    // If this fails the link is broken, and the next read fails as well.
    let _ = write(write_half, &result);
    true
}

fn write(stream: &Mutex<TcpStream>, text: &str) -> Outcome<()> {
    let mut stream = stream
        .lock()
        .map_err(|_| "the link's reader thread panicked".to_owned())?;
    stream
        .write_all(text.as_bytes())
        .map_err(|e| format!("link to the component: {e}"))
}

fn write_slot_request(stanzas: &mut String, serial: usize, owner: usize, size: u64) {
    // Writing to a String cannot fail.
    let _ = write!(
        stanzas,
        "<iq type='get' from='user{owner}@{DOMAIN}/phone' to='{COMPONENT}' id='{serial}'>\
         <request xmlns='urn:xmpp:http:upload:0' filename='photo.jpg' size='{size}' content-type='image/jpeg'/></iq>"
    );
}

/// The id and the targets in the result of a slot request.
fn parse_slot(stanza: &str) -> Outcome<(usize, Target)> {
    let unexpected = || format!("not a slot: {stanza}");
    let head = stanza.split('>').next().unwrap_or_default();
    let id = attribute(head, "id")
        .and_then(|id| id.parse().ok())
        .ok_or_else(unexpected)?;
    let url = |name: &str| {
        let tag = stanza.split_once(name)?.1.split('>').next()?;
        let url = attribute(tag, "url")?;
        let path = url.strip_prefix("http://")?.split_once('/')?.1;
        Some(format!("/{path}"))
    };
    match (attribute(head, "type").as_deref(), url("<put"), url("<get")) {
        (Some("result"), Some(put), Some(get)) => Ok((id, Target { put, get })),
        _ => Err(unexpected()),
    }
}

/// Length of the element at the start of a text, if it is complete. No element contains one of the same name.
fn stanza_length(text: &str) -> Option<usize> {
    let head = text.find('>')? + 1;
    if text[..head].ends_with("/>") || text.starts_with("</") {
        return Some(head);
    }
    let name = text[1..head].split([' ', '>', '\n']).next()?;
    let close = format!("</{name}>");
    Some(text.find(&close)? + close.len())
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    for quote in ['\'', '"'] {
        if let Some((_, rest)) = tag.split_once(&format!(" {name}={quote}")) {
            let value = rest.split(quote).next()?;
            // The ampersand last, so that nothing is unescaped twice.
            return Some(
                value
                    .replace("&lt;", "<")
                    .replace("&gt;", ">")
                    .replace("&quot;", "\"")
                    .replace("&apos;", "'")
                    .replace("&amp;", "&"),
            );
        }
    }
    None
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('\'', "&apos;")
}
