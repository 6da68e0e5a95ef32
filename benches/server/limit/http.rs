//! The little HTTP that limit servers need.

use std::io::{self, ErrorKind, Read};

use mio::net::TcpStream;

/// In bytes; requests are shorter and arrive in one piece.
pub const REQUEST_LIMIT: usize = 4096;

/// The response to a PUT.
pub const CREATED: &[u8] = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n";

/// The head of the response to a GET.
pub fn response_head(size: usize) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {size}\r\n\r\n")
        .into_bytes()
}

/// Receives a request. None if there is none yet, false if the client has closed the connection.
pub fn read_request(mut socket: &TcpStream) -> io::Result<Option<bool>> {
    let mut request = [0; REQUEST_LIMIT];
    match socket.read(&mut request) {
        Ok(0) => Ok(Some(false)),
        Ok(n) if head_end(&request[..n]) == Some(n) => Ok(Some(true)),
        Ok(_) => Err(io::Error::other("a request arrived in pieces")),
        Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(e),
    }
}

/// The length of the head at the start of these bytes, if it is complete.
pub fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .map(|at| at + 4)
}
