//! GETs of one small file, which is sent from memory with one send.

use std::fs;
use std::io::{self, Write};

use mio::net::TcpStream;

use crate::limit::config::LimitConfig;
use crate::limit::event_loop::Handler;
use crate::limit::http::{read_request, response_head};

/// The name of the file.
pub const MEMORY_FILE: &str = "0";

#[derive(Debug)]
pub struct MemoryGet {
    /// Head and body.
    pub response: Vec<u8>,
}

impl MemoryGet {
    pub fn new(config: &LimitConfig) -> io::Result<MemoryGet> {
        let body = fs::read(config.root.join(MEMORY_FILE))?;
        let mut response = response_head(body.len());
        response.extend(body);
        Ok(MemoryGet { response })
    }
}

impl Handler for MemoryGet {
    type State = ();

    fn new_state(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn advance(&mut self, mut socket: &TcpStream, (): &mut ()) -> io::Result<bool> {
        match read_request(socket)? {
            // The client does not pipeline, so the send buffer always has room for the response.
            Some(true) => socket.write_all(&self.response).map(|()| true),
            Some(false) => Ok(false),
            None => Ok(true),
        }
    }
}
