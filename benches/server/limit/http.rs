//! As much HTTP as a limit line knows.

use std::io::{self, ErrorKind, Read};

use mio::net::TcpStream;

/// Requests are shorter, and come whole.
const REQUEST: usize = 4096;

pub const CREATED: &[u8] = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n";

pub fn response_head(size: u64) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {size}\r\n\r\n")
        .into_bytes()
}

/// Receives a request. None: nothing is there; false: the client has gone.
pub fn read_request(mut socket: &TcpStream) -> io::Result<Option<bool>> {
    let mut request = [0; REQUEST];
    match socket.read(&mut request) {
        Ok(0) => Ok(Some(false)),
        Ok(n) if head_end(&request[..n]) == Some(n) => Ok(Some(true)),
        Ok(_) => Err(io::Error::other("A request came in pieces.")),
        Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(e),
    }
}

/// Where the head in these bytes ends, if it does.
pub fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .map(|at| at + 4)
}
