//! Sockets, where mio lacks the call or its flags.

use std::io;
use std::os::fd::AsFd;

use rustix::net::{RecvFlags, SendFlags};

use super::retry;

/// Sends at most `most` bytes from an offset of a file to a socket; 0 at the end of the file.
pub fn send_file(
    socket: impl AsFd,
    file: impl AsFd,
    offset: u64,
    most: usize,
) -> io::Result<usize> {
    let mut offset = offset;
    retry(|| rustix::fs::sendfile(&socket, &file, Some(&mut offset), most))
}

/// Sends bytes; `more` means that file data follows immediately and should share the packet.
pub fn send(socket: impl AsFd, bytes: &[u8], more: bool) -> io::Result<usize> {
    let mut flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    flags.set(SendFlags::MORE, more);
    retry(|| rustix::net::send(&socket, bytes, flags))
}

/// Receives bytes; 0 at the end of input.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    retry(|| rustix::net::recv(&socket, &mut *buffer, RecvFlags::DONTWAIT).map(|(n, _)| n))
}

/// Whether there is input that [`receive`] would return. The end of input is none.
pub fn has_unread_input(socket: impl AsFd) -> bool {
    let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
    let peek = || rustix::net::recv(&socket, &mut [0; 1][..], flags).map(|(n, _)| n);
    retry(peek).is_ok_and(|length| length > 0)
}

/// Whether an attempt to connect has succeeded; the error if it has failed. A writable socket need not be connected.
pub fn is_connected(socket: impl AsFd) -> io::Result<bool> {
    rustix::net::sockopt::socket_error(&socket)??;
    match rustix::net::getpeername(&socket) {
        Ok(_) => Ok(true),
        Err(rustix::io::Errno::NOTCONN) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Sends small writes at once.
pub fn set_nodelay(socket: impl AsFd) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_tcp_nodelay(socket, true)?)
}
