//! Socket activation: listening sockets that the service manager opens and passes on (systemd's sd_listen_fds(3), also
//! supported by container engines).
//!
//! `LISTEN_FDNAMES` names each socket: `api` for the local API, `http` or no name for the public listener. This module
//! checks that a socket is listening; [`crate::reactor`] decides which configured addresses they replace.
//!
//! Turning a number into a descriptor takes unsafe code, so a crate does it. The only safe way, `pidfd_getfd` on the own
//! process, is blocked by systemd's `@system-service` filter and in containers.

use std::os::fd::{AsFd, IntoRawFd, OwnedFd};

use rustix::io::FdFlags;
use rustix::net::SocketType;
use rustix::net::sockopt;

/// Most sockets that are accepted.
const MAX_SOCKETS: u32 = 64;

/// A listening socket from the service manager; non-blocking and close-on-exec.
#[derive(Debug)]
pub struct PassedSocket {
    pub socket: OwnedFd,
    /// Whether it is for the local API.
    pub local: bool,
}

/// Takes over the sockets that were passed to this process. Must be called once, before any descriptor is opened. Fails
/// with one sentence for the operator.
pub fn sockets() -> Result<Vec<PassedSocket>, String> {
    let variable = |name: &str| std::env::var(name).ok();
    let (pid, count) = (variable("LISTEN_PID"), variable("LISTEN_FDS"));
    if !is_for(pid.as_deref(), count.as_deref(), std::process::id())? {
        return Ok(Vec::new());
    }
    let passed = sd_listen_fds::get().map_err(|error| format!("LISTEN_FDS: {error}."))?;
    let passed: Vec<(Option<String>, OwnedFd)> = passed
        .into_iter()
        .map(|(name, socket)| (name, socket.into_std()))
        .collect();
    let mut sockets = Vec::new();
    let mut first_error = None;
    for (number, (name, socket)) in passed.into_iter().enumerate() {
        let name = name.unwrap_or_default();
        let fit = is_local(&name).and_then(|local| match prepare(&socket) {
            true => Ok(local),
            false => Err(format!(
                "the service manager passes descriptor {} as {name:?}, which is not a listening stream socket (with systemd: \
                 ListenStream= and Accept=no).",
                number + 3
            )),
        });
        match fit {
            Ok(local) => sockets.push(PassedSocket { socket, local }),
            Err(error) => {
                // The number may not be an open descriptor, or may belong to another part of the program: do not close it.
                let _ = socket.into_raw_fd();
                first_error.get_or_insert(error);
            }
        }
    }
    match first_error {
        Some(error) => Err(error),
        None => Ok(sockets),
    }
}

/// Whether sockets were passed to this process.
fn is_for(pid: Option<&str>, count: Option<&str>, own: u32) -> Result<bool, String> {
    let (Some(pid), Some(count)) = (pid, count) else {
        return Ok(false);
    };
    if pid.parse() != Ok(own) {
        return Ok(false);
    }
    match count.parse::<u32>() {
        Ok(count) if count <= MAX_SOCKETS => Ok(count > 0),
        _ => Err(format!(
            "LISTEN_FDS is {count:?}, expected a number of sockets from 0 to {MAX_SOCKETS}."
        )),
    }
}

/// Whether a socket of this name is for the local API. Without `FileDescriptorName=`, systemd uses the name of the socket
/// unit; managers without names pass "unknown" or nothing.
fn is_local(name: &str) -> Result<bool, String> {
    match name {
        "api" => Ok(true),
        "" | "http" | "https" | "unknown" => Ok(false),
        unit if unit.ends_with(".socket") => Ok(false),
        _ => Err(format!(
            "the service manager passes a socket named {name:?}, expected http or api (with systemd: \
             FileDescriptorName=)."
        )),
    }
}

/// Makes a socket non-blocking and close-on-exec; false if it is not a listening stream socket.
fn prepare(socket: &OwnedFd) -> bool {
    let listens = || -> rustix::io::Result<bool> {
        let is_listening = sockopt::socket_type(socket.as_fd())? == SocketType::STREAM
            && sockopt::socket_acceptconn(socket.as_fd())?;
        if is_listening {
            rustix::io::fcntl_setfd(socket, FdFlags::CLOEXEC)?;
            rustix::io::ioctl_fionbio(socket, true)?;
        }
        Ok(is_listening)
    };
    listens().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_local_from_public_sockets() {
        for name in ["", "http", "https", "unknown", "upslot.socket"] {
            assert_eq!(is_local(name), Ok(false), "{name:?}");
        }
        assert_eq!(is_local("api"), Ok(true));
        for name in ["apis", "API", "connection", "stored", "api.sock"] {
            assert!(is_local(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn sockets_for_another_process_are_ignored() {
        for (pid, count, expected) in [
            (None, None, Some(false)),
            (None, Some("1"), Some(false)),
            (Some("7"), None, Some(false)),
            (Some("8"), Some("1"), Some(false)),
            (Some("x"), Some("1"), Some(false)),
            (Some("7"), Some("0"), Some(false)),
            (Some("7"), Some("1"), Some(true)),
            (Some("7"), Some("64"), Some(true)),
            (Some("7"), Some("65"), None),
            (Some("7"), Some("4294967296"), None),
            (Some("7"), Some("-1"), None),
            (Some("7"), Some("one"), None),
        ] {
            assert_eq!(is_for(pid, count, 7).ok(), expected, "{pid:?} {count:?}");
        }
    }

    #[test]
    fn only_listening_sockets_are_accepted() {
        use std::os::unix::net::{UnixDatagram, UnixStream};
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(prepare(&tcp.into()));
        let (stream, _other) = UnixStream::pair().unwrap();
        assert!(!prepare(&stream.into()));
        assert!(!prepare(&UnixDatagram::unbound().unwrap().into()));
        assert!(!prepare(&std::fs::File::open("/").unwrap().into()));
    }
}
