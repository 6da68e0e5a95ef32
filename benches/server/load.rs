//! The client: a closed loop over a few connections on one thread. Each connection sends its next request when the
//! response to the last is complete. It is the same for every server, and light: bodies come from and go to one fixed
//! buffer, and nothing is allocated per request on a connection that is kept.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::common::outcome::Outcome;
use crate::pattern::Pattern;
use crate::response::{ExpectedResponse, ResponseReader};
use crate::stop::StopSignal;
use crate::stream::{ClientStream, Endpoint};

/// How long nothing at all may move: more than any disk takes to write back what it was given.
const STALL_TIMEOUT: Duration = Duration::from_secs(120);
/// How often a wait looks at the stop signals.
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// How often a client that spin looks for events before it looks at the clock.
const POLLS_PER_CHECK: u32 = 1000;
/// Bytes read at once.
const READ_SIZE: usize = 256 * 1024;

#[derive(Debug)]
pub struct Request {
    /// The whole head, blank line included.
    pub head: Vec<u8>,
    /// Bytes of the pattern that follow it.
    pub body: u64,
    pub expected: ExpectedResponse,
}

impl Request {
    pub fn get(target: &str, size: u64) -> Request {
        let head = format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"
        );
        Request {
            head: head.into_bytes(),
            body: 0,
            expected: ExpectedResponse {
                status: 200,
                length: Some(size),
            },
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
            },
        }
    }
}

/// What is to be sent, and when to stop.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// Sent in turn, from the start again after the last.
    pub requests: &'a [Request],
    /// Requests in all.
    pub count: usize,
    /// The first connection that is used; those before it stay idle.
    pub first_connection: usize,
    /// No request is started_requests after this time, but for the first.
    pub time_limit: Duration,
    /// A new connection for every request; its set-up counts as part of the request.
    pub reconnect: bool,
    /// Whether bodies of answers are compared.
    pub compare_bodies: bool,
}

/// What came of a plan.
#[derive(Debug, Default)]
pub struct Sample {
    pub requests: u64,
    pub wall: Duration,
    /// From before the first byte of a request, or before the connect, to the last byte of the response; nanoseconds.
    pub latencies: Vec<u64>,
}

#[derive(Debug)]
pub struct LoadGenerator<'a> {
    endpoint: &'a Endpoint,
    /// Whether it asks for events without ever sleeping, which takes a core of its own. To wake a client that sleeps is
    /// the server's work, as it is for a proxy on the same machine; how often it has to depends on which of the two is
    /// faster, so that figures with a client that spin differ less from round to round.
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
    /// The request under way, as an index into the plan.
    request: Option<usize>,
    /// Bytes of it that are sent, head and body.
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

    pub fn run(&mut self, plan: Plan<'_>) -> Outcome<Sample> {
        let mut events = Events::with_capacity(self.connections.len());
        let mut sample = Sample {
            latencies: Vec::with_capacity(plan.count),
            ..Sample::default()
        };
        let began = Instant::now();
        let mut last_event = began;
        let mut started_requests = 0;
        let last = self
            .connections
            .len()
            .min(plan.first_connection + plan.count);
        for place in plan.first_connection..last {
            if plan.reconnect {
                self.reconnect(place)?;
            }
            self.start_request(place, started_requests, &plan)?;
            started_requests += 1;
        }
        while sample.latencies.len() < started_requests {
            self.wait(&mut events)?;
            if events.is_empty() {
                self.stop.check()?;
                if last_event.elapsed() > STALL_TIMEOUT {
                    return Err(format!(
                        "Nothing last_event for {} seconds.",
                        STALL_TIMEOUT.as_secs()
                    ));
                }
                continue;
            }
            last_event = Instant::now();
            for event in &events {
                let place = event.token().0;
                if event.is_writable() {
                    self.send(place, &plan)?;
                }
                let handshaking = self.connections[place].stream.is_handshaking();
                if !(event.is_readable() && self.receive(place, &plan)?) {
                    // The event that the socket is writable came before the handshake was over.
                    if handshaking && !self.connections[place].stream.is_handshaking() {
                        self.send(place, &plan)?;
                    }
                    continue;
                }
                let connection = &mut self.connections[place];
                let latency = connection.started.elapsed();
                connection.request = None;
                sample
                    .latencies
                    .push(latency.as_nanos().try_into().unwrap_or(u64::MAX));
                if started_requests < plan.count && began.elapsed() < plan.time_limit {
                    if plan.reconnect {
                        self.reconnect(place)?;
                    }
                    self.start_request(place, started_requests, &plan)?;
                    started_requests += 1;
                }
            }
        }
        self.stop.check()?;
        sample.wall = began.elapsed();
        sample.requests = started_requests as u64;
        Ok(sample)
    }

    /// Waits for events, for a while.
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

    fn start_request(&mut self, place: usize, index: usize, plan: &Plan<'_>) -> Outcome<()> {
        let connection = &mut self.connections[place];
        connection.request = Some(index % plan.requests.len());
        connection.sent = 0;
        connection.response.reset();
        if !plan.reconnect {
            connection.started = Instant::now();
        }
        self.send(place, plan)
    }

    /// Replaces a connection by a new one.
    fn reconnect(&mut self, place: usize) -> Outcome<()> {
        let started = Instant::now();
        let stream = self.connect(place)?;
        let connection = &mut self.connections[place];
        // The old stream is closed here, which also ends its registration.
        connection.stream = stream;
        connection.started = started;
        Ok(())
    }

    fn connect(&self, place: usize) -> Outcome<ClientStream> {
        ClientStream::connect(self.endpoint, self.poll.registry(), Token(place))
    }

    /// Writes on, as far as the socket takes it: the head and the start of the body at once.
    fn send(&mut self, place: usize, plan: &Plan<'_>) -> Outcome<()> {
        let connection = &mut self.connections[place];
        let Some(request) = connection.request.map(|index| &plan.requests[index]) else {
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
                // The server may have said why before it went.
                Err(e) => return Err(format!("write: {e}. {}", self.rest_of_response(place))),
            }
        }
    }

    /// Reads on; true when the response is complete.
    fn receive(&mut self, place: usize, plan: &Plan<'_>) -> Outcome<bool> {
        let connection = &mut self.connections[place];
        let Some(request) = connection.request.map(|index| &plan.requests[index]) else {
            return Ok(false);
        };
        // An response of any length is a remark of the server's, not what was stored.
        let stored = plan.compare_bodies && request.expected.length.is_some();
        let pattern = stored.then_some(self.pattern);
        loop {
            match connection.stream.read(&mut self.buffer) {
                Ok(0) => {
                    return Err(
                        "The server closed a connection before its response was complete."
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
                                "The response came before the request was complete.".to_owned()
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

    /// What is left to read on a connection that broke.
    fn rest_of_response(&mut self, place: usize) -> String {
        match self.connections[place].stream.read(&mut self.buffer) {
            Ok(n) if n > 0 => {
                let shown = &self.buffer[..n.min(1000)];
                format!("The server said: {}", String::from_utf8_lossy(shown))
            }
            _ => "The server said nothing.".to_owned(),
        }
    }
}
