//! The XMPP server's side of the component's link (XEP-0114 §3), scripted: it proves that the component knows the
//! secret, asks for slots (XEP-0363 §4) many at a time, and answers pings. It reads only what upslot writes, so it
//! needs no XML parser: top-level elements, attributes, five entities.

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
/// The uploaders' domain.
pub const DOMAIN: &str = "bench.localhost";
/// So many accounts upload in turn, as a folder per owner is what a store looks like.
pub const OWNERS: usize = 64;
/// Slot requests under way at a time; a busy server asks for no more.
const WINDOW: usize = 64;
const STREAM_ID: &str = "bench-1";
const CLOSE: &str = "</stream:stream>";
/// For the component to connect and to prove itself, and for any one answer.
const TIMEOUT: Duration = Duration::from_secs(20);
/// More than any stanza of upslot.
const STANZA_LIMIT: usize = 256 * 1024;

/// Both URLs, without what stands before the path.
#[derive(Clone, Debug)]
pub struct Target {
    pub put: String,
    pub get: String,
}

/// An open link. Its reader ends with it.
#[derive(Debug)]
pub struct Link {
    stream: Arc<Mutex<TcpStream>>,
    /// Whole answers, in batches as they were read, with the moment.
    answers: Receiver<Outcome<(Instant, Vec<String>)>>,
    reader: Option<JoinHandle<()>>,
    /// Requests sent so far; their number is their id.
    serial: usize,
}

/// Where upslot is expected to connect.
#[derive(Debug)]
pub struct LinkListener {
    listener: TcpListener,
    pub address: SocketAddr,
}

impl LinkListener {
    pub fn new() -> Outcome<LinkListener> {
        let shown = |e| format!("The scripted XMPP server cannot listen: {e}");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(shown)?;
        listener.set_nonblocking(true).map_err(shown)?;
        let address = listener.local_addr().map_err(shown)?;
        Ok(LinkListener { listener, address })
    }

    /// Waits for the component and plays the stream's opening.
    pub fn accept(self, process: &mut Process, stop: &StopSignal) -> Outcome<Link> {
        let deadline = Instant::now() + TIMEOUT;
        let stream = loop {
            match self.listener.accept() {
                Ok((stream, _)) => break stream,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => return Err(format!("accept of the component: {e}")),
            }
            stop.check()?;
            process.check_running()?;
            if Instant::now() > deadline {
                return Err("upslot did not connect to the scripted XMPP server.".to_owned());
            }
            thread::sleep(Duration::from_millis(2));
        };
        Link::open(stream)
    }
}

impl Link {
    fn open(mut stream: TcpStream) -> Outcome<Link> {
        let shown = |e| format!("The component's link: {e}");
        stream.set_nonblocking(false).map_err(shown)?;
        stream.set_nodelay(true).map_err(shown)?;
        stream.set_read_timeout(Some(TIMEOUT)).map_err(shown)?;
        stream.set_write_timeout(Some(TIMEOUT)).map_err(shown)?;
        let mut input = LinkInput::default();
        input.read_until(&mut stream, |text| {
            text.contains("<stream:stream") && text.ends_with('>')
        })?;
        input.text.clear();
        let header = format!(
            "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' \
             xmlns:stream='http://etherx.jabber.org/streams' from='{COMPONENT}' id='{STREAM_ID}'>"
        );
        stream.write_all(header.as_bytes()).map_err(shown)?;
        input.read_until(&mut stream, |text| text.contains("</handshake>"))?;
        let proof = Sha1::from(format!("{STREAM_ID}{SECRET}"))
            .digest()
            .to_string();
        if !input.text.contains(&format!(">{proof}</handshake>")) {
            return Err(format!("A wrong handshake came: {}", input.text));
        }
        input.text.clear();
        stream.write_all(b"<handshake/>").map_err(shown)?;
        // From here on the reader waits as long as it takes; it ends when the socket is shut down.
        stream.set_read_timeout(None).map_err(shown)?;
        let (sender, answers) = mpsc::channel();
        let reading = stream.try_clone().map_err(shown)?;
        let stream = Arc::new(Mutex::new(stream));
        let writing = Arc::clone(&stream);
        let reader = thread::Builder::new()
            .name("link".to_owned())
            .spawn(move || read(reading, input, &writing, &sender))
            .map_err(shown)?;
        Ok(Link {
            stream,
            answers,
            reader: Some(reader),
            serial: 0,
        })
    }

    /// Gets slots for `count` files of `size` bytes, a window of requests at a time, and how long each took. Fewer
    /// come when the limit passes first.
    pub fn request_slots(
        &mut self,
        count: usize,
        size: u64,
        limit: Duration,
        stop: &StopSignal,
    ) -> Outcome<(Vec<Target>, Sample)> {
        let mut targets = Vec::with_capacity(count);
        let mut latencies = Vec::with_capacity(count);
        let mut sent_at = HashMap::with_capacity(WINDOW);
        let began = Instant::now();
        let mut sent = 0;
        while sent < count || !sent_at.is_empty() {
            if sent < count && began.elapsed() > limit {
                sent = count;
                continue;
            }
            // Half a window at a time: one write for many stanzas, as a busy server does it.
            if sent < count && sent_at.len() <= WINDOW / 2 {
                let batch = (WINDOW - sent_at.len()).min(count - sent);
                let now = Instant::now();
                let mut stanzas = String::new();
                for _ in 0..batch {
                    sent_at.insert(self.serial, now);
                    write_slot_request(&mut stanzas, self.serial, size);
                    self.serial += 1;
                }
                sent += batch;
                write(&self.stream, &stanzas)?;
            }
            let (moment, stanzas) = self.next_results(stop)?;
            for stanza in stanzas {
                let (id, target) = parse_slot(&stanza)?;
                let Some(sent_at) = sent_at.remove(&id) else {
                    return Err(format!("An answer to nothing that was asked: {stanza}"));
                };
                let took = moment.saturating_duration_since(sent_at);
                latencies.push(took.as_nanos().try_into().unwrap_or(u64::MAX));
                targets.push(target);
            }
        }
        let sample = Sample {
            requests: targets.len() as u64,
            wall: began.elapsed(),
            latencies,
        };
        Ok((targets, sample))
    }

    fn next_results(&self, stop: &StopSignal) -> Outcome<(Instant, Vec<String>)> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            match self.answers.recv_timeout(Duration::from_millis(500)) {
                Ok(answers) => return answers,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err("The component's link is closed.".to_owned());
                }
                Err(RecvTimeoutError::Timeout) => stop.check()?,
            }
            if Instant::now() > deadline {
                return Err("A slot request was not answered.".to_owned());
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

/// What was read and not yet used.
#[derive(Debug, Default)]
struct LinkInput {
    text: String,
    /// Bytes that do not yet end a character.
    partial: Vec<u8>,
}

impl LinkInput {
    /// Reads once; false at the end of the input.
    fn read(&mut self, stream: &mut TcpStream) -> Outcome<bool> {
        let mut buffer = [0; 16 * 1024];
        let n = match stream.read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::Interrupted => return Ok(true),
            Err(e) => return Err(format!("The component's link: {e}")),
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
            return Err("The component sent something strange.".to_owned());
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
                return Err(format!("The component left after it said: {}", self.text));
            }
        }
        Ok(())
    }

    /// Takes out the stanzas that are complete. White space between them keeps a link alive and means nothing.
    fn stanzas(&mut self) -> Vec<String> {
        let mut stanzas = Vec::new();
        let mut from = 0;
        while let Some(length) = stanza_length(self.text[from..].trim_start()) {
            from = self.text.len() - self.text[from..].trim_start().len();
            stanzas.push(self.text[from..from + length].to_owned());
            from += length;
        }
        self.text.drain(..from);
        stanzas
    }
}

/// The reader's thread: pings are answered here, answers go to who asked.
fn read(
    mut stream: TcpStream,
    mut input: LinkInput,
    writing: &Mutex<TcpStream>,
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
        let mut answers = input.stanzas();
        if answers.iter().any(|stanza| stanza == CLOSE) {
            // Who closes a stream waits for the same from the other side (RFC 6120 §4.4).
            let _ = write(writing, CLOSE);
            let _ = stream.shutdown(Shutdown::Both);
            return;
        }
        answers.retain(|stanza| !answer_ping(stanza, writing));
        if !answers.is_empty() && sender.send(Ok((now, answers))).is_err() {
            return;
        }
    }
}

/// XEP-0199: an idle link is probed by the component.
fn answer_ping(stanza: &str, writing: &Mutex<TcpStream>) -> bool {
    let head = stanza.split('>').next().unwrap_or_default();
    if attribute(head, "type").as_deref() != Some("get") {
        return false;
    }
    let id = attribute(head, "id").unwrap_or_default();
    let answer = format!(
        "<iq type='result' from='localhost' to='{COMPONENT}' id='{}'/>",
        escape(&id)
    );
    // Where this fails the link is gone, which the next read tells.
    let _ = write(writing, &answer);
    true
}

fn write(stream: &Mutex<TcpStream>, text: &str) -> Outcome<()> {
    let mut stream = stream
        .lock()
        .map_err(|_| "The link's reader failed.".to_owned())?;
    stream
        .write_all(text.as_bytes())
        .map_err(|e| format!("The component's link: {e}"))
}

fn write_slot_request(stanzas: &mut String, serial: usize, size: u64) {
    let owner = serial % OWNERS;
    // Writing to a String cannot fail.
    let _ = write!(
        stanzas,
        "<iq type='get' from='user{owner}@{DOMAIN}/phone' to='{COMPONENT}' id='{serial}'>\
         <request xmlns='urn:xmpp:http:upload:0' filename='photo.jpg' size='{size}' content-type='image/jpeg'/></iq>"
    );
}

/// The id and the URLs of an answer.
fn parse_slot(stanza: &str) -> Outcome<(usize, Target)> {
    let strange = || format!("No slot came, but: {stanza}");
    let head = stanza.split('>').next().unwrap_or_default();
    let id = attribute(head, "id")
        .and_then(|id| id.parse().ok())
        .ok_or_else(strange)?;
    let url = |name: &str| {
        let tag = stanza.split_once(name)?.1.split('>').next()?;
        let url = attribute(tag, "url")?;
        let path = url.strip_prefix("http://localhost/")?;
        Some(format!("/{path}"))
    };
    match (attribute(head, "type").as_deref(), url("<put"), url("<get")) {
        (Some("result"), Some(put), Some(get)) => Ok((id, Target { put, get })),
        _ => Err(strange()),
    }
}

/// Bytes of the complete element at the start of a text. Stanzas hold no element of their own name.
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
            // The ampersand comes last, so that nothing is unescaped twice.
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
