//! What the machine says: the one thing that it wants, a fault that it found, and why it is over.

use std::fmt;
use std::time::Duration;

use crate::http::body::BodyFault;
use crate::http::head::HeadFault;

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Milliseconds: every connection has a copy, and none lasts for 49 days.
    header: u32,
    body: u32,
    idle: u32,
}

impl Timeouts {
    /// `header`: for a whole request head, from its first byte. `body`: for 4 KiB of a body, either way. `idle`: between
    /// requests.
    pub fn new(header: Duration, body: Duration, idle: Duration) -> Timeouts {
        let short = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        Timeouts {
            header: short(header),
            body: short(body),
            idle: short(idle),
        }
    }

    pub fn header(&self) -> Duration {
        Duration::from_millis(self.header.into())
    }

    pub fn body(&self) -> Duration {
        Duration::from_millis(self.body.into())
    }

    pub fn idle(&self) -> Duration {
        Duration::from_millis(self.idle.into())
    }

    /// Takes no longer for the next request than for a head.
    pub fn hurried(self) -> Timeouts {
        Timeouts {
            idle: self.idle.min(self.header),
            ..self
        }
    }
}

/// The one thing that the machine needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Up to so many bytes of input, for [`Exchange::received`].
    Head(usize),
    /// A look at [`Exchange::request`], then [`Exchange::accept`] or [`Exchange::answer`].
    Decide,
    /// Input for [`Exchange::receive`]; at most so many bytes.
    Body(usize),
    /// The body is complete: store it, then [`Exchange::answer`].
    Publish,
    /// [`Exchange::output`] written, then [`Exchange::wrote`].
    Write,
    /// A span of the open file sent, then [`Exchange::sent_file`].
    File { start: u64, end: u64 },
    /// Input for [`Exchange::discard`]; at most so many bytes.
    Discard(usize),
    /// The write side shut, then input dropped and told to [`Exchange::lingered`].
    Linger,
    /// Nothing any more.
    Close,
}

/// Why a request cannot be served, found by the machine itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    Head(HeadFault),
    Body(BodyFault),
    /// It came without TLS to a port that speaks TLS.
    NotEncrypted,
    SlowHead,
    SlowBody,
    /// More bytes than the slot allows; fewer; the slot's size.
    TooLong(u64),
    TooShort(u64),
}

impl Fault {
    /// The HTTP status that says so.
    pub fn status(&self) -> u16 {
        match self {
            Fault::Head(fault) => fault.status(),
            Fault::Body(_) | Fault::NotEncrypted | Fault::TooShort(_) => 400,
            Fault::SlowHead | Fault::SlowBody => 408,
            Fault::TooLong(_) => 413,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Head(fault) => fault.fmt(f),
            Fault::Body(fault) => fault.fmt(f),
            Fault::NotEncrypted => {
                f.write_str("This port speaks HTTPS: the address begins with https://.")
            }
            Fault::SlowHead => f.write_str("The request head took too long."),
            Fault::SlowBody => f.write_str("The body took too long."),
            Fault::TooLong(size) => {
                write!(f, "The body has more than the {size} bytes of its slot.")
            }
            Fault::TooShort(size) => {
                write!(f, "The body has less than the {size} bytes of its slot.")
            }
        }
    }
}

/// Why a connection is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// After an answer that said so, or at the end of lingering.
    Done,
    /// The client closed between requests.
    Left,
    /// The client closed or reset within a request.
    Broken,
    /// Nothing came for `idle_timeout`.
    Idle,
    /// The client stopped reading an answer.
    Stalled,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ended::Done => "the exchange is complete",
            Ended::Left => "the client closed it",
            Ended::Broken => "the client broke off within a request",
            Ended::Idle => "it was idle for too long",
            Ended::Stalled => "the client stopped reading",
        })
    }
}
