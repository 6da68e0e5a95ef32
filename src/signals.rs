//! Signals, as bytes in pipes that the loop polls.

use std::io::{self, Read};
use std::sync::Arc;

use mio::net::UnixStream;
use mio::{Interest, Registry, Token};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;
use signal_hook::low_level::pipe;

/// The two things that a signal can ask for.
#[derive(Debug)]
pub struct Signals {
    terminate: UnixStream,
    interrupt: UnixStream,
    reload: UnixStream,
}

/// What was asked for since the last look.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    /// How often SIGTERM and SIGINT came.
    pub terminate: usize,
    pub interrupt: usize,
    pub reload: bool,
}

impl Signals {
    /// Takes SIGTERM, SIGINT and SIGHUP over from the system's defaults. SIGXFSZ is of no interest, but must not end the
    /// process: the write that went over the limit of file sizes says so, too.
    pub fn register(registry: &Registry, token: Token) -> io::Result<Signals> {
        flag::register(SIGXFSZ, Arc::default())?;
        let take_over = |signal| -> io::Result<UnixStream> {
            let (mut receiver, sender) = UnixStream::pair()?;
            registry.register(&mut receiver, token, Interest::READABLE)?;
            pipe::register(signal, sender)?;
            Ok(receiver)
        };
        Ok(Signals {
            terminate: take_over(SIGTERM)?,
            interrupt: take_over(SIGINT)?,
            reload: take_over(SIGHUP)?,
        })
    }

    /// Takes what came.
    pub fn take(&mut self) -> Asked {
        Asked {
            terminate: drain(&mut self.terminate),
            interrupt: drain(&mut self.interrupt),
            reload: drain(&mut self.reload) > 0,
        }
    }
}

fn drain(pipe: &mut UnixStream) -> usize {
    let mut buffer = [0; 64];
    let mut count = 0;
    // Until it would block, as edges demand.
    while let Ok(n @ 1..) = pipe.read(&mut buffer) {
        count += n;
    }
    count
}
