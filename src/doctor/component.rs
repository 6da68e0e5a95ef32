//! The component port of the XMPP server, and the secret (XEP-0114).
//!
//! The link of the running upslot stays untouched: if `/health` says that it is up, the secret is known to be valid; if
//! the kernel lists a connection of upslot's user to the port, the stream is opened, but the secret is not sent, because
//! some servers would replace that connection or divide the stanzas between both.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use crate::client::{self, Endpoint, Limits, TimedSocket, describe};
use crate::doctor::judge::{Problem, Verdict, finding};
use crate::doctor::report::Finding;
use crate::metrics::LinkStatus;
use crate::setup::{LinkTarget, Setup};
use crate::sys;
use crate::xmpp::stream::{Ended, Event, Stream};

const CHECK: &str = "component";

/// Time limit of opening a stream.
const STREAM_TIMEOUT: Duration = Duration::from_secs(8);

/// What is known of the running upslot.
#[derive(Clone, Copy, Debug)]
pub struct Running {
    /// Whether its listener answers.
    pub answers: bool,
    /// What its `/health` says.
    pub link: Option<LinkStatus>,
    /// The user that it presumably runs as, the owner of the storage folder.
    pub user: Option<u32>,
}

/// How far an attempt came.
#[derive(Debug, PartialEq, Eq)]
enum Attempt {
    /// The server accepted the secret.
    Up,
    /// The server answered with its stream header; the secret was not sent.
    Header,
    Ended(Ended),
}

/// Checks the port and the secret.
pub fn check(setup: &Setup, running: Running, limits: &Limits) -> Finding {
    let Some(target) = &setup.target else {
        let why = match setup.config.component {
            Some(_) => {
                "component_secret_file cannot be read by this user; systemd provides it to the unit alone"
            }
            None => "component_jid is not set",
        };
        return Finding::skipped(CHECK, why);
    };
    if running.link == Some(LinkStatus::Up) {
        return Finding::ok(
            CHECK,
            format!("upslot is linked as {}, as /health says", target.jid),
        );
    }
    finding(CHECK, connect(target, running, limits))
}

fn connect(target: &LinkTarget, running: Running, limits: &Limits) -> Verdict {
    let LinkTarget { host, port, .. } = target;
    let addresses = client::lookup(host, *port, limits).map_err(|why| {
        let text = format!("component_host {host}: {why}");
        Problem::new(
            "component-host",
            text,
            "check component_host and the name servers of this machine",
        )
    })?;
    let mut failures = Vec::new();
    for address in addresses {
        let linked = running.answers && is_connected(address, running.user);
        match attempt(target, address, linked, limits) {
            Ok(attempt) => return judge(target, address, &attempt, running),
            Err(why) => failures.push(format!("{address}: {why}")),
        }
    }
    let remedy = "let the XMPP server accept components at component_host and component_port (Prosody: component_ports; ejabberd: ejabberd_service)";
    Err(Problem::new("component-port", failures.join("; "), remedy))
}

fn judge(target: &LinkTarget, address: SocketAddr, attempt: &Attempt, running: Running) -> Verdict {
    let jid = &target.jid;
    let ended = match attempt {
        Attempt::Up if running.answers => {
            return Ok(format!(
                "{address} accepts {jid} and its secret; the running upslot was not linked, or shares the name"
            ));
        }
        Attempt::Up => return Ok(format!("{address} accepts {jid} and its secret")),
        Attempt::Header => {
            return Ok(format!(
                "{address} accepts components, and the running upslot is connected; the secret was not sent, in order to leave that link alone"
            ));
        }
        Attempt::Ended(Ended::Conflict) if running.answers => {
            return Ok(format!(
                "{address} accepts the secret, and the running upslot already has the name {jid} (conflict)"
            ));
        }
        Attempt::Ended(ended) => ended,
    };
    let (name, remedy) = match ended {
        Ended::NotAuthorized => (
            "component-secret",
            "write the same secret into component_secret and into the XMPP server's configuration",
        ),
        Ended::Conflict => (
            "component-conflict",
            "stop the other program that uses this name, or choose another component_jid",
        ),
        Ended::HostUnknown => (
            "component-unknown",
            "add the component to the XMPP server's configuration under the name in component_jid",
        ),
        Ended::SystemShutdown => ("component-port", "wait until the XMPP server has restarted"),
        _ => (
            "component-port",
            "compare component_host and component_port with the XMPP server's configuration",
        ),
    };
    Err(Problem::new(name, format!("{address}: {ended}"), remedy))
}

/// Opens a stream, sends the secret unless upslot is already `linked`, and closes the stream.
fn attempt(
    target: &LinkTarget,
    address: SocketAddr,
    linked: bool,
    limits: &Limits,
) -> Result<Attempt, String> {
    let mut socket = TimedSocket::connect(&Endpoint::Tcp(address), limits);
    let socket = socket.as_mut().map_err(|error| describe(error))?;
    let now = sys::monotonic();
    socket.set_deadline(limits.until(STREAM_TIMEOUT));
    let mut stream = Stream::new(target.jid.to_string(), target.secret.clone(), now);
    flush(&mut stream, socket)?;
    let mut buffer = [0; 4096];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => stream.peer_closed(),
            Ok(n) => stream.received(&buffer[..n], now),
            Err(error) => return Err(describe(&error)),
        }
        match stream.next_event(now) {
            Some(Event::Up) => {
                stream.close(now);
                flush(&mut stream, socket)?;
                return Ok(Attempt::Up);
            }
            Some(Event::Ended(ended)) => return Ok(Attempt::Ended(ended)),
            Some(Event::Stanza(_) | Event::Skipped(_)) | None => {}
        }
        // After the header, the next output is the proof of the secret.
        if linked && !stream.output().is_empty() {
            let _ = socket.write_all(b"</stream:stream>");
            return Ok(Attempt::Header);
        }
        flush(&mut stream, socket)?;
    }
}

fn flush(stream: &mut Stream, socket: &mut TimedSocket) -> Result<(), String> {
    let length = stream.output().len();
    let written = socket.write_all(stream.output());
    stream.wrote(length, sys::monotonic());
    // A server that refuses may have closed the connection; what it said is read next.
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(describe(&error)),
        _ => Ok(()),
    }
}

/// Whether a process of this user has a connection to the address.
fn is_connected(address: SocketAddr, user: Option<u32>) -> bool {
    let table = match address {
        SocketAddr::V4(_) => "/proc/net/tcp",
        SocketAddr::V6(_) => "/proc/net/tcp6",
    };
    let text = std::fs::read_to_string(table).unwrap_or_default();
    user.is_some_and(|user| lists_connection(&text, address, user))
}

/// Whether a table of the kernel has an established connection to the address (proc(5), `/proc/net/tcp`).
fn lists_connection(table: &str, address: SocketAddr, user: u32) -> bool {
    // The octets of the address are shown as numbers in the byte order of the machine.
    let octets = match address.ip() {
        std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
        std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let words = octets.chunks_exact(4);
    let words = words.map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
    let ip: String = words.map(|word| format!("{word:08X}")).collect();
    let remote = format!("{ip}:{:04X}", address.port());
    let user = user.to_string();
    table.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(2) == Some(&remote.as_str())
            && fields.get(3) == Some(&"01")
            && fields.get(7) == Some(&user.as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn established_connections_are_found() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:14E3 00000000:0000 0A 00000000:00000000 00:00000000 00000000   107        0 1 1
   1: 0100007F:C350 0100007F:14E3 01 00000000:00000000 00:00000000 00000000   998        0 2 1
   2: 0100007F:C351 0100007F:14E4 06 00000000:00000000 00:00000000 00000000   998        0 3 1
";
        for (address, user, found) in [
            ("127.0.0.1:5347", 998, true),
            ("127.0.0.1:5347", 107, false),
            ("127.0.0.1:5348", 998, false),
            ("127.0.0.2:5347", 998, false),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(
                lists_connection(table, address, user),
                found,
                "{address} {user}"
            );
        }
        let six = "0: 0:1 00000000000000000000000001000000:14E3 01 0:0 0:0 0 998 0 1 1";
        assert!(lists_connection(six, "[::1]:5347".parse().unwrap(), 998));
    }
}
