//! The outputs of an exchange: what it needs next, why a request is rejected, and why the connection has ended.

use std::fmt;
use std::time::Duration;

use crate::http::body::BodyFault;
use crate::http::head::HeadFault;

/// How long a client may take. In milliseconds, because every connection has a copy; none lasts 49 days.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    header: u32,
    body: u32,
    idle: u32,
}

impl Timeouts {
    /// `header`: for a whole request head, from its first byte. `body`: for 4 KiB of a body, in either direction.
    /// `idle`: between requests.
    pub fn new(header: Duration, body: Duration, idle: Duration) -> Timeouts {
        let millis = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        Timeouts {
            header: millis(header),
            body: millis(body),
            idle: millis(idle),
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

    /// The same, with an idle timeout no longer than the header timeout.
    pub fn hurried(self) -> Timeouts {
        Timeouts {
            idle: self.idle.min(self.header),
            ..self
        }
    }
}

/// The one thing that an exchange needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// At most this many bytes of input, for `Exchange::received`.
    Head(usize),
    /// A decision on `Exchange::request`: `Exchange::accept` or `Exchange::answer`.
    Decide,
    /// At most this many bytes of input, for `Exchange::receive`.
    Body(usize),
    /// The body is complete: store it, then call `Exchange::answer`.
    Publish,
    /// Write `Exchange::output`, then call `Exchange::wrote`.
    Write,
    /// Send this span of the open file, then call `Exchange::sent_file`.
    File { start: u64, end: u64 },
    /// At most this many bytes of input, for `Exchange::discard`.
    Discard(usize),
    /// Shut the write side, drop input and report it to `Exchange::lingered`.
    Linger,
    /// Nothing more: close the connection.
    Close,
}

/// Why a request is rejected by the exchange itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    Head(HeadFault),
    Body(BodyFault),
    /// Plain HTTP on a port that expects TLS.
    NotEncrypted,
    SlowHead,
    SlowBody,
    /// The body has more bytes than the slot; with the size of the slot.
    TooLong(u64),
    /// The body has fewer bytes than the slot; with the size of the slot.
    TooShort(u64),
}

impl Fault {
    /// The HTTP status of the response.
    pub fn status(&self) -> u16 {
        match self {
            Fault::Head(error) => error.status(),
            Fault::Body(_) | Fault::NotEncrypted | Fault::TooShort(_) => 400,
            Fault::SlowHead | Fault::SlowBody => 408,
            Fault::TooLong(_) => 413,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Head(error) => error.fmt(f),
            Fault::Body(error) => error.fmt(f),
            Fault::NotEncrypted => {
                f.write_str("This port speaks HTTPS: use a URL that starts with https://.")
            }
            Fault::SlowHead => f.write_str("The request head took too long to arrive."),
            Fault::SlowBody => f.write_str("The request body took too long to arrive."),
            Fault::TooLong(size) => write!(
                f,
                "The request body is longer than the {size} bytes of the slot."
            ),
            Fault::TooShort(size) => write!(
                f,
                "The request body is shorter than the {size} bytes of the slot."
            ),
        }
    }
}

/// Why a connection has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The last response was sent, and lingering is over where it was needed.
    Done,
    /// The client closed the connection between requests.
    Left,
    /// The client closed or reset the connection during a request, or the response could not be completed.
    Broken,
    /// No request arrived within `idle_timeout`.
    Idle,
    /// The client stopped reading the response.
    Stalled,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ended::Done => "the last response was sent",
            Ended::Left => "the client closed the connection",
            Ended::Broken => "the request was aborted",
            Ended::Idle => "the idle timeout expired",
            Ended::Stalled => "the client stopped reading",
        })
    }
}
