//! The client: a closed loop over a few connections on one thread. Each connection sends its next request when the
//! answer to the last is complete. It is the same for every server, and light: bodies come from and go to one fixed
//! buffer, and nothing is allocated per request on a connection that is kept.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::common::outcome::Outcome;
use crate::pattern::Pattern;
use crate::response::{Answer, Expected};
use crate::stop::Stop;
use crate::stream::{Door, Stream};

/// How long nothing at all may move: more than any disk takes to write back what it was given.
const STALL: Duration = Duration::from_secs(120);
/// How often a wait looks at the stop signals.
const LOOK: Duration = Duration::from_millis(500);
/// How often a client that spins looks for events before it looks at the clock.
const SPINS: u32 = 1000;
/// Bytes read at once.
const BUFFER: usize = 256 * 1024;

#[derive(Debug)]
pub struct Request {
    /// The whole head, blank line included.
    pub head: Vec<u8>,
    /// Bytes of the pattern that follow it.
    pub body: u64,
    pub expected: Expected,
}

impl Request {
    pub fn get(target: &str, size: u64) -> Request {
        let head = format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"
        );
        Request {
            head: head.into_bytes(),
            body: 0,
            expected: Expected {
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
            expected: Expected {
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
    pub first: usize,
    /// No request is begun after this time, but for the first.
    pub limit: Duration,
    /// A new connection for every request; its set-up counts as part of the request.
    pub fresh: bool,
    /// Whether bodies of answers are compared.
    pub compared: bool,
}

/// What came of a plan.
#[derive(Debug, Default)]
pub struct Sample {
    pub requests: u64,
    pub wall: Duration,
    /// From before the first byte of a request, or before the connect, to the last byte of the answer; nanoseconds.
    pub latencies: Vec<u64>,
}

#[derive(Debug)]
pub struct Load<'a> {
    door: &'a Door,
    /// Whether it asks for events without ever sleeping, which takes a core of its own. To wake a client that sleeps is
    /// the server's work, as it is for a proxy on the same machine; how often it has to depends on which of the two is
    /// faster, so that figures with a client that spins differ less from round to round.
    spins: bool,
    pattern: &'a Pattern,
    stop: &'a Stop,
    poll: Poll,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Connection {
    stream: Stream,
    /// The request under way, as an index into the plan.
    request: Option<usize>,
    /// Bytes of it that are sent, head and body.
    sent: u64,
    answer: Answer,
    started: Instant,
}

impl<'a> Load<'a> {
    /// Opens the connections.
    pub fn open(
        door: &'a Door,
        connections: usize,
        pattern: &'a Pattern,
        stop: &'a Stop,
        spins: bool,
    ) -> Outcome<Load<'a>> {
        let mut load = Load {
            door,
            spins,
            pattern,
            stop,
            poll: Poll::new().map_err(|e| format!("poll: {e}"))?,
            connections: Vec::with_capacity(connections),
            buffer: vec![0; BUFFER],
        };
        for _ in 0..connections {
            load.add()?;
        }
        Ok(load)
    }

    /// Opens one more connection.
    pub fn add(&mut self) -> Outcome<()> {
        let stream = self.connect(self.connections.len())?;
        self.connections.push(Connection {
            stream,
            request: None,
            sent: 0,
            answer: Answer::default(),
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
        let mut moved = began;
        let mut begun = 0;
        let last = self.connections.len().min(plan.first + plan.count);
        for place in plan.first..last {
            if plan.fresh {
                self.renew(place)?;
            }
            self.begin(place, begun, &plan)?;
            begun += 1;
        }
        while sample.latencies.len() < begun {
            self.wait(&mut events)?;
            if events.is_empty() {
                self.stop.check()?;
                if moved.elapsed() > STALL {
                    return Err(format!("Nothing moved for {} seconds.", STALL.as_secs()));
                }
                continue;
            }
            moved = Instant::now();
            for event in &events {
                let place = event.token().0;
                if event.is_writable() {
                    self.send(place, &plan)?;
                }
                let shaking = self.connections[place].stream.is_shaking_hands();
                if !(event.is_readable() && self.receive(place, &plan)?) {
                    // The event that the socket is writable came before the handshake was over.
                    if shaking && !self.connections[place].stream.is_shaking_hands() {
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
                if begun < plan.count && began.elapsed() < plan.limit {
                    if plan.fresh {
                        self.renew(place)?;
                    }
                    self.begin(place, begun, &plan)?;
                    begun += 1;
                }
            }
        }
        self.stop.check()?;
        sample.wall = began.elapsed();
        sample.requests = begun as u64;
        Ok(sample)
    }

    /// Waits for events, for a while.
    fn wait(&mut self, events: &mut Events) -> Outcome<()> {
        let (times, timeout) = if self.spins {
            (SPINS, Duration::ZERO)
        } else {
            (1, LOOK)
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

    fn begin(&mut self, place: usize, index: usize, plan: &Plan<'_>) -> Outcome<()> {
        let connection = &mut self.connections[place];
        connection.request = Some(index % plan.requests.len());
        connection.sent = 0;
        connection.answer.clear();
        if !plan.fresh {
            connection.started = Instant::now();
        }
        self.send(place, plan)
    }

    /// Replaces a connection by a new one.
    fn renew(&mut self, place: usize) -> Outcome<()> {
        let started = Instant::now();
        let stream = self.connect(place)?;
        let connection = &mut self.connections[place];
        // The old stream is closed here, which also ends its registration.
        connection.stream = stream;
        connection.started = started;
        Ok(())
    }

    fn connect(&self, place: usize) -> Outcome<Stream> {
        Stream::connect(self.door, self.poll.registry(), Token(place))
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
                let body = self.pattern.at(offset, request.body - offset);
                connection.stream.write(rest.unwrap_or_default(), body)
            };
            match written {
                Ok(n) => connection.sent += n as u64,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                // The server may have said why before it went.
                Err(e) => return Err(format!("write: {e}. {}", self.last_words(place))),
            }
        }
    }

    /// Reads on; true when the answer is complete.
    fn receive(&mut self, place: usize, plan: &Plan<'_>) -> Outcome<bool> {
        let connection = &mut self.connections[place];
        let Some(request) = connection.request.map(|index| &plan.requests[index]) else {
            return Ok(false);
        };
        // An answer of any length is a remark of the server's, not what was stored.
        let stored = plan.compared && request.expected.length.is_some();
        let pattern = stored.then_some(self.pattern);
        loop {
            match connection.stream.read(&mut self.buffer) {
                Ok(0) => {
                    return Err(
                        "The server closed a connection before its answer was complete.".to_owned(),
                    );
                }
                Ok(n) => {
                    if connection
                        .answer
                        .take(&self.buffer[..n], request.expected, pattern)?
                    {
                        if connection.sent < request.head.len() as u64 + request.body {
                            return Err(
                                "The answer came before the request was complete.".to_owned()
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
    fn last_words(&mut self, place: usize) -> String {
        match self.connections[place].stream.read(&mut self.buffer) {
            Ok(n) if n > 0 => {
                let shown = &self.buffer[..n.min(1000)];
                format!("The server said: {}", String::from_utf8_lossy(shown))
            }
            _ => "The server said nothing.".to_owned(),
        }
    }
}
