//! One connection of a client to the store.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rustix::net::sockopt::set_socket_linger;
use rustls::{ServerConnection, StreamOwned};

use super::answer::{Answer, Content, Object, Refusal, page};
use super::fault::{Fault, Gate, Stage};
use super::signature::{Head, check, decoded};
use super::{BUCKET, Open, Request, Shared};

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

struct Connection<'a> {
    shared: &'a Shared,
    number: usize,
    stream: Box<dyn Stream>,
    socket: TcpStream,
    unread: Vec<u8>,
    /// The index of the current request in the log.
    request: usize,
    /// How many more bytes may be written before the connection is cut.
    budget: usize,
}

/// Counts a new connection; returns its number.
pub(super) fn register(shared: &Shared, socket: &TcpStream) -> usize {
    shared.change(|state| {
        state.accepted += 1;
        let socket = socket.try_clone().unwrap();
        state.open.insert(
            state.accepted,
            Open {
                socket,
                idle: false,
            },
        );
        state.most = state.most.max(state.open.len());
        state.accepted
    })
}

/// Serves a connection to its end.
pub(super) fn serve(shared: &Shared, socket: TcpStream, number: usize) {
    socket.set_nodelay(true).unwrap();
    let handle = socket.try_clone().unwrap();
    let stream: Box<dyn Stream> = match &shared.tls {
        Some(config) => {
            let tls = ServerConnection::new(Arc::clone(config)).unwrap();
            Box::new(StreamOwned::new(tls, socket))
        }
        None => Box::new(socket),
    };
    let mut connection = Connection {
        shared,
        number,
        stream,
        socket: handle,
        unread: Vec::new(),
        request: 0,
        budget: usize::MAX,
    };
    // The client may close or reset at any time.
    while let Ok(true) = connection.exchange() {}
    shared.change(|state| state.open.remove(&number));
}

impl Connection<'_> {
    /// One request and its answer; whether the connection stays open.
    fn exchange(&mut self) -> io::Result<bool> {
        let Some(head) = self.read_head()? else {
            return Ok(false);
        };
        let (operation, key) = operation_of(&head);
        let fault = self.shared.change(|state| {
            self.request = state.requests.len();
            state.requests.push(Request {
                connection: self.number,
                operation: operation.clone(),
                head: head.clone(),
                key: key.clone(),
                received: 0,
                status: None,
                ended: false,
            });
            let mut rules = state.rules.iter_mut();
            rules.find_map(|rule| rule.take(&operation, &key))
        });
        let kept = self.answer(&head, &operation, &key, fault.as_ref());
        self.shared.change(|state| {
            state.requests[self.request].ended = true;
            if let Some(open) = state.open.get_mut(&self.number) {
                open.idle = matches!(kept, Ok(true));
            }
        });
        kept
    }

    fn answer(
        &mut self,
        head: &Head,
        operation: &str,
        key: &str,
        fault: Option<&Fault>,
    ) -> io::Result<bool> {
        wait_at(Stage::Head, fault);
        match fault {
            Some(Fault::Silence) => {
                while self.fill()? {}
                return Ok(false);
            }
            Some(Fault::Raw(bytes)) => {
                self.write(bytes)?;
                return self.linger();
            }
            _ => {}
        }
        let early = match fault {
            Some(Fault::Error(status, code)) => Err(Refusal::new(*status, code, "It was told to")),
            Some(Fault::Redirect(region)) => Err(Refusal::redirect(BUCKET, region)),
            _ => self.check(head, operation, key),
        };
        let length = match early {
            Ok(length) => length,
            Err(refusal) => {
                let answer = Answer::refusal(&refusal, &head.path);
                let kept = self.send(head, answer, fault)?;
                let has_body = head.field("transfer-encoding").is_some()
                    || head
                        .field("content-length")
                        .is_some_and(|length| length != "0");
                return if has_body { self.linger() } else { Ok(kept) };
            }
        };
        let Some(body) = self.read_body(head, length, fault)? else {
            return Ok(false);
        };
        let answer = match fault {
            Some(Fault::LateError(status, code)) => {
                Err(Refusal::new(*status, code, "It was told to"))
            }
            Some(Fault::Text(text)) => Ok(Answer {
                content: Content::Bytes(text.as_bytes().to_vec()),
                ..Answer::empty(200)
            }),
            _ => self.execute(head, operation, key, body),
        };
        wait_at(Stage::Response, fault);
        if let Some(Fault::LateRaw(bytes)) = fault {
            self.write(bytes)?;
            return self.linger();
        }
        let answer = answer.unwrap_or_else(|refusal| Answer::refusal(&refusal, &head.path));
        self.send(head, answer, fault)
    }

    /// What a store checks before it reads a body; the body's length.
    fn check(&self, head: &Head, operation: &str, key: &str) -> Result<u64, Refusal> {
        let state = self.shared.lock();
        let is_signed = head.parameter("X-Amz-Signature").is_some();
        let is_open = match operation {
            "GET" | "HEAD" => state.engine.public && !is_signed,
            "PUT" => state.engine.lax && is_signed,
            _ => false,
        };
        if !is_open {
            check(head, &self.shared.access, state.now())?;
        }
        let bucket = decoded(head.path.trim_start_matches('/'));
        if bucket.split('/').next() != Some(BUCKET) {
            let why = "The specified bucket does not exist";
            return Err(Refusal::new(404, "NoSuchBucket", why).with("BucketName", &bucket));
        }
        if key.len() > 1024 {
            return Err(Refusal::new(400, "KeyTooLongError", "Your key is too long"));
        }
        let length = head.field("content-length").map(str::parse);
        if operation != "PUT" {
            return Ok(length.and_then(Result::ok).unwrap_or(0));
        }
        let Some(Ok(length)) = length.filter(|_| head.field("transfer-encoding").is_none()) else {
            let why = "You must provide the Content-Length HTTP header.";
            return Err(Refusal::new(411, "MissingContentLength", why));
        };
        let stored: u64 = state.objects.values().map(|object| object.size).sum();
        if stored + length > state.engine.capacity {
            return Err(Refusal::new(403, "QuotaExceeded", "The bucket is full"));
        }
        let exists = state.objects.contains_key(key);
        if state.engine.conditional && head.field("if-none-match") == Some("*") && exists {
            return Err(precondition_failed());
        }
        Ok(length)
    }

    /// The body; `None` if the connection is to be closed in it.
    fn read_body(
        &mut self,
        head: &Head,
        length: u64,
        fault: Option<&Fault>,
    ) -> io::Result<Option<Vec<u8>>> {
        let expects = head.field("expect") == Some("100-continue");
        if expects && self.shared.lock().engine.sends_continue {
            self.write(CONTINUE)?;
        }
        let mut body = Vec::new();
        loop {
            let taken = body.len() as u64;
            // Reads up to the point at which something is to happen.
            let mut target = length;
            match fault {
                Some(Fault::CutRequest(at)) if taken >= *at => {
                    set_socket_linger(&self.socket, Some(Duration::ZERO))?;
                    return Ok(None);
                }
                Some(Fault::CutRequest(at)) => target = target.min(*at),
                Some(Fault::Hold(Stage::Body(at), gate)) if taken == *at => gate.pass(),
                Some(Fault::Hold(Stage::Body(at), _)) if taken < *at => target = target.min(*at),
                _ => {}
            }
            if taken == length {
                // What was held when the store stopped is lost.
                return Ok((!self.shared.lock().stopped).then_some(body));
            }
            if self.unread.is_empty() && !self.fill()? {
                return Ok(None);
            }
            let wanted = usize::try_from(target - taken).unwrap_or(usize::MAX);
            let here = self.unread.len().min(wanted);
            body.extend(self.unread.drain(..here));
            let index = self.request;
            self.shared
                .change(|state| state.requests[index].received = body.len() as u64);
        }
    }

    fn execute(
        &self,
        head: &Head,
        operation: &str,
        key: &str,
        body: Vec<u8>,
    ) -> Result<Answer, Refusal> {
        let mut state = self.shared.lock();
        match operation {
            "LIST" if head.parameter("list-type") == Some("2") => {
                let (most, encoding) = (state.engine.page, state.engine.encoding);
                page(head, BUCKET, state.objects.iter(), most, encoding)
            }
            "GET" | "HEAD" => match state.objects.get(key) {
                Some(object) => Answer::object(head, object, state.engine.ranges),
                None => {
                    let why = "The specified key does not exist.";
                    Err(Refusal::new(404, "NoSuchKey", why).with("Key", key))
                }
            },
            "PUT" if !key.is_empty() => {
                let once = head.field("if-none-match") == Some("*") && state.engine.conditional;
                if once && state.objects.contains_key(key) {
                    return Err(precondition_failed());
                }
                let kind = head.field("content-type").unwrap_or("binary/octet-stream");
                let object = Object {
                    size: body.len() as u64,
                    bytes: body.into(),
                    modified: state.now(),
                    content_type: kind.to_owned(),
                };
                state.objects.insert(key.to_owned(), object);
                let mut answer = Answer::empty(200);
                answer
                    .fields
                    .push(("ETag", "\"d41d8cd98f00b204\"".to_owned()));
                Ok(answer)
            }
            "DELETE" if !key.is_empty() => {
                state.objects.remove(key);
                Ok(Answer::empty(204))
            }
            _ => Err(Refusal::new(
                501,
                "NotImplemented",
                "This is not implemented",
            )),
        }
    }

    /// Sends an answer; whether the connection stays open.
    fn send(&mut self, head: &Head, answer: Answer, fault: Option<&Fault>) -> io::Result<bool> {
        let (number, index) = (self.number, self.request);
        let has_body = head.method != "HEAD" && answer.status != 204;
        let asked = head.field("connection") == Some("close");
        let (now, chunked, closes) = self.shared.change(|state| {
            state.requests[index].status = Some(answer.status);
            let chunked = state.engine.chunked && matches!(answer.content, Content::Bytes(_));
            (
                state.now(),
                chunked && has_body,
                state.engine.closes || asked,
            )
        });
        let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(now));
        let mut text = format!(
            "HTTP/1.1 {} Whatever\r\nServer: fake\r\nDate: {date}\r\nx-amz-request-id: {number}-{index}\r\n",
            answer.status
        );
        for (name, value) in &answer.fields {
            text += &format!("{name}: {value}\r\n");
        }
        let length = answer.content.length();
        let declared = match fault {
            Some(Fault::WrongLength(difference)) => length.saturating_add_signed(*difference),
            _ => length,
        };
        if chunked {
            text += "Transfer-Encoding: chunked\r\n";
        } else if answer.status != 204 {
            text += &format!("Content-Length: {declared}\r\n");
        }
        if closes {
            text += "Connection: close\r\n";
        }
        text += "\r\n";
        self.budget = match fault {
            Some(Fault::CutResponse(at)) => *at,
            Some(Fault::CutBody(at)) => text.len() + at,
            _ => usize::MAX,
        };
        self.write(text.as_bytes())?;
        if has_body {
            self.send_body(&answer.content, chunked, fault)?;
        }
        let cut = self.budget != usize::MAX;
        let closed = matches!(fault, Some(Fault::WrongLength(_) | Fault::CloseAfter));
        Ok(!closes && !cut && !closed)
    }

    fn send_body(
        &mut self,
        content: &Content,
        chunked: bool,
        fault: Option<&Fault>,
    ) -> io::Result<()> {
        let hold = match fault {
            Some(Fault::Hold(Stage::ResponseBody(at), gate)) => Some((*at as u64, gate)),
            _ => None,
        };
        let (mut sent, length) = (0, content.length());
        while sent < length {
            let mut end = length.min(sent + 64 * 1024);
            match hold {
                Some((at, gate)) if sent == at => gate.pass(),
                Some((at, _)) if sent < at => end = end.min(at),
                _ => {}
            }
            let piece = match content {
                Content::Bytes(bytes) => {
                    let index = |at: u64| usize::try_from(at).unwrap();
                    bytes[index(sent)..index(end)].to_vec()
                }
                Content::Part(object, range) => object.piece(range.start + sent..range.start + end),
            };
            if chunked {
                self.write(format!("{:x}\r\n", piece.len()).as_bytes())?;
            }
            self.write(&piece)?;
            if chunked {
                self.write(b"\r\n")?;
            }
            sent = end;
        }
        if chunked {
            self.write(b"0\r\n\r\n")
        } else {
            Ok(())
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = bytes.len().min(self.budget);
        if self.budget != usize::MAX {
            self.budget -= length;
        }
        self.stream.write_all(&bytes[..length])?;
        self.stream.flush()
    }

    /// Ends the connection in a way that lets the client read the answer although it may still be sending.
    fn linger(&mut self) -> io::Result<bool> {
        self.socket.shutdown(Shutdown::Write)?;
        while self.fill()? {
            self.unread.clear();
        }
        Ok(false)
    }

    fn fill(&mut self) -> io::Result<bool> {
        let mut chunk = vec![0; 64 * 1024];
        let length = self.stream.read(&mut chunk)?;
        self.unread.extend_from_slice(&chunk[..length]);
        Ok(length > 0)
    }

    /// The next head; `None` if the client has closed between requests.
    fn read_head(&mut self) -> io::Result<Option<Head>> {
        loop {
            if !self.unread.is_empty() {
                self.shared.change(|state| {
                    if let Some(open) = state.open.get_mut(&self.number) {
                        open.idle = false;
                    }
                });
                let mut fields = [httparse::EMPTY_HEADER; 64];
                let mut request = httparse::Request::new(&mut fields);
                let parsed = request.parse(&self.unread);
                // No other client than the program connects.
                if let httparse::Status::Complete(length) = parsed.expect("a request") {
                    let mut head = Head::new(request.method.unwrap(), request.path.unwrap());
                    let fields = request.headers.iter().map(|field| {
                        let value = std::str::from_utf8(field.value).expect("a field in UTF-8");
                        (field.name.to_ascii_lowercase(), value.to_owned())
                    });
                    head.fields = fields.collect();
                    self.unread.drain(..length);
                    return Ok(Some(head));
                }
            }
            if !self.fill()? {
                return Ok(None);
            }
        }
    }
}

fn wait_at(stage: Stage, fault: Option<&Fault>) {
    match fault {
        Some(Fault::Hold(at, gate)) if *at == stage => Gate::pass(gate),
        _ => {}
    }
}

fn precondition_failed() -> Refusal {
    let why = "At least one of the pre-conditions you specified did not hold";
    Refusal::new(412, "PreconditionFailed", why).with("Condition", "If-None-Match")
}

/// The operation and the key or prefix that a request is about.
fn operation_of(head: &Head) -> (String, String) {
    let path = decoded(&head.path);
    let key = path.trim_start_matches('/').split_once('/');
    let key = key.map_or("", |(_, key)| key).to_owned();
    match head.method.as_str() {
        "GET" if key.is_empty() => {
            let prefix = head.parameter("prefix").unwrap_or_default();
            let after = head.parameter("start-after");
            let key = after.map(|after| format!("{prefix} after {after}"));
            ("LIST".to_owned(), key.unwrap_or_else(|| prefix.to_owned()))
        }
        method => (method.to_owned(), key),
    }
}
