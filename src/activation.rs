//! Sockets that a service manager has opened and passes to the program: systemd's socket activation (sd_listen_fds(3)),
//! which container engines hand on.
//!
//! `LISTEN_FDNAMES` says what each is for: `api` is the local API's, `http` the public side's, and so is a socket with
//! no name of its own. Whether a socket can be listened on is checked here; which of them take the place of configured
//! addresses is decided in [`crate::reactor`].
//!
//! To make a descriptor out of a number takes unsafe code, which is why a crate does that. The one safe way,
//! `pidfd_getfd` on the own process, is closed under systemd's `@system-service` filter and in containers.

use std::os::fd::{AsFd, IntoRawFd, OwnedFd};

use rustix::io::FdFlags;
use rustix::net::SocketType;
use rustix::net::sockopt;

/// Most sockets that are taken.
const MOST: u32 = 64;

/// A listening socket from the service manager; it does not block, and no child would inherit it.
#[derive(Debug)]
pub struct PassedSocket {
    pub socket: OwnedFd,
    /// Whether it is the local API's.
    pub local: bool,
}

/// Takes the sockets that were passed to this process. Must be called once, before anything else opens descriptors.
/// Fails with one sentence for the operator.
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
    let mut wrong = None;
    for (number, (name, socket)) in passed.into_iter().enumerate() {
        let name = name.unwrap_or_default();
        let fit = is_local(&name).and_then(|local| match prepare(&socket) {
            true => Ok(local),
            false => Err(format!(
                "the service manager passes descriptor {} as {name:?}, which is no listening stream socket (with systemd: \
                 ListenStream=, and Accept=no).",
                number + 3
            )),
        });
        match fit {
            Ok(local) => sockets.push(PassedSocket { socket, local }),
            Err(error) => {
                // The number may belong to no descriptor, or to another part of the program: do not close it.
                let _ = socket.into_raw_fd();
                wrong.get_or_insert(error);
            }
        }
    }
    match wrong {
        Some(error) => Err(error),
        None => Ok(sockets),
    }
}

/// Whether sockets were passed, and to this process.
fn is_for(pid: Option<&str>, count: Option<&str>, own: u32) -> Result<bool, String> {
    let (Some(pid), Some(count)) = (pid, count) else {
        return Ok(false);
    };
    if pid.parse() != Ok(own) {
        return Ok(false);
    }
    match count.parse::<u32>() {
        Ok(count) if count <= MOST => Ok(count > 0),
        _ => Err(format!(
            "LISTEN_FDS is {count:?}, expected a number of sockets from 0 to {MOST}."
        )),
    }
}

/// What a socket's name says. Without `FileDescriptorName=` it is the name of the socket unit; "unknown" and nothing
/// come from managers that give no names.
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

/// Makes a socket ours; false where that cannot be.
fn prepare(socket: &OwnedFd) -> bool {
    let listens = || -> rustix::io::Result<bool> {
        let fits = sockopt::socket_type(socket.as_fd())? == SocketType::STREAM
            && sockopt::socket_acceptconn(socket.as_fd())?;
        if fits {
            rustix::io::fcntl_setfd(socket, FdFlags::CLOEXEC)?;
            rustix::io::ioctl_fionbio(socket, true)?;
        }
        Ok(fits)
    };
    listens().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_a_socket_is_for() {
        for name in ["", "http", "https", "unknown", "upslot.socket"] {
            assert_eq!(is_local(name), Ok(false), "{name:?}");
        }
        assert_eq!(is_local("api"), Ok(true));
        for name in ["apis", "API", "connection", "stored", "api.sock"] {
            assert!(is_local(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn sockets_for_another_process_are_left_alone() {
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
    fn only_what_listens_is_taken() {
        use std::os::unix::net::{UnixDatagram, UnixStream};
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(prepare(&tcp.into()));
        let (stream, _other) = UnixStream::pair().unwrap();
        assert!(!prepare(&stream.into()));
        assert!(!prepare(&UnixDatagram::unbound().unwrap().into()));
        assert!(!prepare(&std::fs::File::open("/").unwrap().into()));
    }
}
