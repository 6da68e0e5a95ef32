//! The load generator: a closed loop over a few connections on one thread. Each connection sends its next request when
//! the response to the previous one is complete. It is the same for every server and uses little CPU time: bodies are
//! sent from and received into fixed buffers, and a request on a persistent connection allocates nothing.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::common::outcome::Outcome;
use crate::pattern::Pattern;
use crate::response::{ExpectedResponse, ResponseReader};
use crate::stop::StopSignal;
use crate::stream::{ClientStream, Endpoint};

/// Longest time without progress on any connection; longer than any disk takes to write back its cache.
const STALL_TIMEOUT: Duration = Duration::from_secs(120);
/// How often a wait checks for stop signals.
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// How often a spinning client polls before it checks the clock.
const POLLS_PER_CHECK: u32 = 1000;
/// Size of the read buffer in bytes.
const READ_SIZE: usize = 256 * 1024;

#[derive(Debug)]
pub struct Request {
    /// The whole head, with the empty line.
    pub head: Vec<u8>,
    /// Length of the body, which consists of the pattern, in bytes.
    pub body: u64,
    pub expected: ExpectedResponse,
}

impl Request {
    pub fn get(target: &str, size: u64) -> Request {
        let expected = ExpectedResponse {
            status: 200,
            length: Some(size),
            has_body: true,
        };
        Request::without_body("GET", target, "", expected)
    }

    /// A GET with one more header field, such as `Range: bytes=0-1`.
    pub fn get_with(target: &str, field: &str, expected: ExpectedResponse) -> Request {
        Request::without_body("GET", target, &format!("{field}\r\n"), expected)
    }

    /// A HEAD of a file of `size` bytes.
    pub fn head(target: &str, size: u64) -> Request {
        let expected = ExpectedResponse {
            status: 200,
            length: Some(size),
            has_body: false,
        };
        Request::without_body("HEAD", target, "", expected)
    }

    /// `fields` end with a line break, if there are any.
    fn without_body(
        method: &str,
        target: &str,
        fields: &str,
        expected: ExpectedResponse,
    ) -> Request {
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n{fields}\r\n"
        );
        Request {
            head: head.into_bytes(),
            body: 0,
            expected,
        }
    }

    pub fn put(target: &str, size: u64) -> Request {
        let head = format!(
            "PUT {target} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n\
             Content-Type: image/jpeg\r\nContent-Length: {size}\r\n\r\n"
        );
        Request {
            head: head.into_bytes(),
            body: size,
            expected: ExpectedResponse {
                status: 201,
                length: None,
                has_body: true,
            },
        }
    }
}

/// The requests to send, and when to stop.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// Sent in this order unless `order` names another; the first follows the last.
    pub requests: &'a [Request],
    /// Indices of the requests to send, the first again after the last; if empty, all in turn.
    pub order: &'a [u32],
    /// How many requests to send.
    pub count: usize,
    /// The first connection to use; those before it stay idle.
    pub first_connection: usize,
    /// No request is started after this time, except the first of each connection.
    pub time_limit: Duration,
    /// Opens a new connection for every request; its latency includes the connect.
    pub reconnect: bool,
    /// Whether to compare the bodies of responses.
    pub compare_bodies: bool,
}

/// The result of a plan.
#[derive(Debug, Default)]
pub struct Sample {
    pub requests: u64,
    pub wall: Duration,
    /// From the first byte of a request, or the start of the connect, to the last byte of the response; nanoseconds.
    pub latencies: Vec<u64>,
}

#[derive(Debug)]
pub struct LoadGenerator<'a> {
    endpoint: &'a Endpoint,
    /// Whether to poll without ever sleeping, which takes a core of its own. Waking a sleeping client costs the server
    /// CPU time, as it does for a proxy on the same machine. How often that happens depends on which of the two is
    /// faster, so results with a spinning client vary less from round to round.
    spin: bool,
    pattern: &'a Pattern,
    stop: &'a StopSignal,
    poll: Poll,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Connection {
    stream: ClientStream,
    /// The outstanding request, as an index into the plan.
    request: Option<usize>,
    /// Bytes of it sent so far, head and body.
    sent: u64,
    response: ResponseReader,
    started: Instant,
}

impl<'a> LoadGenerator<'a> {
    /// Opens the connections.
    pub fn open(
        endpoint: &'a Endpoint,
        connections: usize,
        pattern: &'a Pattern,
        stop: &'a StopSignal,
        spin: bool,
    ) -> Outcome<LoadGenerator<'a>> {
        let mut load = LoadGenerator {
            endpoint,
            spin,
            pattern,
            stop,
            poll: Poll::new().map_err(|e| format!("poll: {e}"))?,
            connections: Vec::with_capacity(connections),
            buffer: vec![0; READ_SIZE],
        };
        for _ in 0..connections {
            load.open_connection()?;
        }
        Ok(load)
    }

    /// Opens one more connection.
    pub fn open_connection(&mut self) -> Outcome<()> {
        let stream = self.connect(self.connections.len())?;
        self.connections.push(Connection {
            stream,
            request: None,
            sent: 0,
            response: ResponseReader::default(),
            started: Instant::now(),
        });
        Ok(())
    }

    /// Sends the requests of a plan and waits for all responses.
    pub fn run(&mut self, plan: Plan<'_>) -> Outcome<Sample> {
        let mut events = Events::with_capacity(self.connections.len());
        let mut sample = Sample {
            latencies: Vec::with_capacity(plan.count),
            ..Sample::default()
        };
        let start = Instant::now();
        let mut last_event = start;
        let mut requests = 0;
        let last = self
            .connections
            .len()
            .min(plan.first_connection + plan.count);
        for index in plan.first_connection..last {
            if plan.reconnect {
                self.reconnect(index)?;
            }
            self.start_request(index, requests, &plan)?;
            requests += 1;
        }
        while sample.latencies.len() < requests {
            self.wait(&mut events)?;
            if events.is_empty() {
                self.stop.check()?;
                if last_event.elapsed() > STALL_TIMEOUT {
                    return Err(format!(
                        "no connection made progress for {} seconds",
                        STALL_TIMEOUT.as_secs()
                    ));
                }
                continue;
            }
            last_event = Instant::now();
            for event in &events {
                let index = event.token().0;
                if event.is_writable() {
                    self.send(index, &plan)?;
                }
                let handshaking = self.connections[index].stream.is_handshaking();
                if !(event.is_readable() && self.receive(index, &plan)?) {
                    // The socket was reported as writable during the handshake, and will not be again.
                    if handshaking && !self.connections[index].stream.is_handshaking() {
                        self.send(index, &plan)?;
                    }
                    continue;
                }
                let connection = &mut self.connections[index];
                let latency = connection.started.elapsed();
                connection.request = None;
                sample
                    .latencies
                    .push(latency.as_nanos().try_into().unwrap_or(u64::MAX));
                if requests < plan.count && start.elapsed() < plan.time_limit {
                    if plan.reconnect {
                        self.reconnect(index)?;
                    }
                    self.start_request(index, requests, &plan)?;
                    requests += 1;
                }
            }
        }
        self.stop.check()?;
        sample.wall = start.elapsed();
        sample.requests = requests as u64;
        Ok(sample)
    }

    /// The head of the last response on a connection.
    pub fn last_head(&self, index: usize) -> &[u8] {
        self.connections[index].response.head()
    }

    /// Waits for events, but not for longer than until the next check for stop signals.
    fn wait(&mut self, events: &mut Events) -> Outcome<()> {
        let (times, timeout) = if self.spin {
            (POLLS_PER_CHECK, Duration::ZERO)
        } else {
            (1, STOP_CHECK_INTERVAL)
        };
        for _ in 0..times {
            match self.poll.poll(events, Some(timeout)) {
                Ok(()) if events.is_empty() => {}
                Ok(()) => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(format!("poll: {e}")),
            }
        }
        Ok(())
    }

    fn start_request(&mut self, index: usize, number: usize, plan: &Plan<'_>) -> Outcome<()> {
        let connection = &mut self.connections[index];
        connection.request = Some(match plan.order {
            [] => number % plan.requests.len(),
            order => order[number % order.len()] as usize,
        });
        connection.sent = 0;
        connection.response.reset();
        if !plan.reconnect {
            connection.started = Instant::now();
        }
        self.send(index, plan)
    }

    /// Replaces a connection with a new one.
    fn reconnect(&mut self, index: usize) -> Outcome<()> {
        let started = Instant::now();
        let stream = self.connect(index)?;
        let connection = &mut self.connections[index];
        // This closes the old stream, which also deregisters it.
        connection.stream = stream;
        connection.started = started;
        Ok(())
    }

    fn connect(&self, index: usize) -> Outcome<ClientStream> {
        ClientStream::connect(self.endpoint, self.poll.registry(), Token(index))
    }

    /// Sends as much as the socket takes, beginning with the head and the start of the body in one write.
    fn send(&mut self, index: usize, plan: &Plan<'_>) -> Outcome<()> {
        let connection = &mut self.connections[index];
        let Some(request) = connection.request.map(|number| &plan.requests[number]) else {
            return Ok(());
        };
        let head = request.head.len() as u64;
        loop {
            let offset = connection.sent.saturating_sub(head);
            let rest = request.head.get(connection.sent as usize..);
            let written = if connection.sent == head + request.body {
                match connection.stream.flush() {
                    Ok(()) => return Ok(()),
                    Err(e) => Err(e),
                }
            } else {
                let body = self.pattern.bytes_at(offset, request.body - offset);
                connection.stream.write(rest.unwrap_or_default(), body)
            };
            match written {
                Ok(n) => connection.sent += n as u64,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                // The server may have sent the reason before it closed the connection.
                Err(e) => return Err(format!("write: {e}; {}", self.rest_of_response(index))),
            }
        }
    }

    /// Receives as much as there is; true when the response is complete.
    fn receive(&mut self, index: usize, plan: &Plan<'_>) -> Outcome<bool> {
        let connection = &mut self.connections[index];
        let Some(request) = connection.request.map(|number| &plan.requests[number]) else {
            return Ok(false);
        };
        // A response of any length is a message from the server, not a stored file.
        let expected = request.expected;
        let is_file = plan.compare_bodies && expected.length.is_some() && expected.status == 200;
        let pattern = is_file.then_some(self.pattern);
        loop {
            match connection.stream.read(&mut self.buffer) {
                Ok(0) => {
                    return Err(
                        "the server closed a connection before its response was complete"
                            .to_owned(),
                    );
                }
                Ok(n) => {
                    if connection
                        .response
                        .receive(&self.buffer[..n], request.expected, pattern)?
                    {
                        if connection.sent < request.head.len() as u64 + request.body {
                            return Err(
                                "the server responded before the request was complete".to_owned()
                            );
                        }
                        return Ok(true);
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(format!("read: {e}")),
            }
        }
    }

    /// The response that can still be read from a connection that failed.
    fn rest_of_response(&mut self, index: usize) -> String {
        match self.connections[index].stream.read(&mut self.buffer) {
            Ok(n) if n > 0 => {
                let text = &self.buffer[..n.min(1000)];
                format!("the server sent: {}", String::from_utf8_lossy(text))
            }
            _ => "the server sent no response".to_owned(),
        }
    }
}
