//! Notifications to the service manager (sd_notify(3)), written by hand because each is a datagram of a few lines.
//!
//! All of them are sent from the thread of the loop, also the watchdog's heartbeat: a loop that hangs sends none. The
//! socket is connected before the sandbox starts, and never blocks. A message for which the manager's queue has no room is
//! sent again later.

use std::collections::VecDeque;
use std::fmt::Write;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::sys;

/// Time until the next attempt if the manager's queue is full.
const RETRY: Duration = Duration::from_millis(100);

/// Most unsent messages; beyond that the oldest is dropped.
const MAX_UNSENT: usize = 16;

/// The connection to the service manager, if there is one.
#[derive(Debug, Default)]
pub struct Notifier {
    manager: Option<Manager>,
    /// Half of the watchdog's timeout; `None` without a watchdog.
    interval: Option<Duration>,
    next_heartbeat: Option<Instant>,
    unsent: VecDeque<String>,
    retry_at: Option<Instant>,
    /// Whether a failure was logged.
    logged: bool,
    /// The last status.
    status: String,
}

#[derive(Debug)]
struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl Notifier {
    /// Connects to the manager that `NOTIFY_SOCKET` names, and reads the watchdog's timeout.
    pub fn from_environment() -> Notifier {
        let variable = |name: &str| std::env::var(name).ok();
        let Some(name) = variable("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Notifier::default();
        };
        let manager = address(&name).and_then(Manager::connect);
        let mut notifier = Notifier::default();
        match manager {
            Ok(manager) => {
                notifier.manager = Some(manager);
                notifier.interval = interval(
                    variable("WATCHDOG_USEC").as_deref(),
                    variable("WATCHDOG_PID").as_deref(),
                    std::process::id(),
                );
            }
            Err(error) => notifier.log_failure(&error),
        }
        notifier
    }

    /// The service is ready. Heartbeats begin.
    pub fn ready(&mut self, now: Instant) {
        self.next_heartbeat = self.interval.map(|interval| now + interval);
        self.send("READY=1\n", now);
    }

    /// A reload begins. It ends with [`Notifier::ready`], also if it fails.
    pub fn reloading(&mut self, now: Instant) {
        let micros = sys::monotonic_micros();
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\n"), now);
    }

    /// The shutdown begins.
    pub fn stopping(&mut self, now: Instant) {
        self.send("STOPPING=1\n", now);
    }

    /// Sets the status line; sent when it changes.
    pub fn set_status(&mut self, status: &str, now: Instant) {
        if self.status != status {
            self.status.clear();
            self.status.push_str(status);
            self.send("", now);
        }
    }

    /// To be called every turn, and at [`Notifier::due`].
    pub fn beat(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.flush(now);
        }
        if self.next_heartbeat.is_some_and(|at| at <= now) {
            self.next_heartbeat = self.interval.map(|interval| now + interval);
            // If the manager's queue is full, older messages in it serve as the heartbeat.
            if self.unsent.is_empty() {
                self.send("WATCHDOG=1\n", now);
            }
        }
    }

    /// When [`Notifier::beat`] must be called.
    pub fn due(&self) -> Option<Instant> {
        [self.next_heartbeat, self.retry_at]
            .into_iter()
            .flatten()
            .min()
    }

    fn send(&mut self, state: &str, now: Instant) {
        if self.manager.is_none() {
            return;
        }
        let mut message = state.to_owned();
        if !message.starts_with("WATCHDOG") && !self.status.is_empty() {
            let _ = writeln!(message, "STATUS={}", self.status);
        }
        if message.is_empty() {
            return;
        }
        if self.unsent.len() == MAX_UNSENT {
            self.unsent.pop_front();
        }
        self.unsent.push_back(message);
        self.flush(now);
    }

    fn flush(&mut self, now: Instant) {
        self.retry_at = None;
        while let Some(message) = self.unsent.front() {
            let Some(manager) = &mut self.manager else {
                return;
            };
            match manager.send(message.as_bytes()) {
                Ok(()) => {
                    self.unsent.pop_front();
                    self.logged = false;
                }
                Err(error) if is_full(&error) => {
                    self.retry_at = Some(now + RETRY);
                    return;
                }
                Err(error) => {
                    self.unsent.pop_front();
                    self.log_failure(&error);
                }
            }
        }
    }

    fn log_failure(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.logged, true) {
            let why = error.to_string();
            log::warn!("service manager not notified why={why:?}");
        }
    }
}

impl Manager {
    fn connect(address: SocketAddr) -> io::Result<Manager> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect_addr(&address)?;
        Ok(Manager { socket, address })
    }

    /// Sends one message; reconnects if the manager has reopened its socket.
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let sent = self.socket.send(message);
        let sent = match sent {
            Err(error) if is_disconnected(&error) => {
                self.socket.connect_addr(&self.address)?;
                self.socket.send(message)
            }
            other => other,
        };
        sent.map(|_| ())
    }
}

fn is_full(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    error.kind() == io::ErrorKind::WouldBlock
        || matches!(errno, Some(Errno::NOBUFS | Errno::INTR | Errno::NOMEM))
}

fn is_disconnected(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::CONNREFUSED | Errno::NOTCONN | Errno::CONNRESET | Errno::DESTADDRREQ)
    )
}

/// A path, or `@` and an abstract name.
fn address(name: &str) -> io::Result<SocketAddr> {
    match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None if name.starts_with('/') => SocketAddr::from_pathname(name),
        None => Err(io::Error::other(format!(
            "NOTIFY_SOCKET is {name:?}, which is neither a path nor an abstract name"
        ))),
    }
}

/// Time between two heartbeats: half of the watchdog's timeout.
fn interval(micros: Option<&str>, pid: Option<&str>, own: u32) -> Option<Duration> {
    if pid.is_some_and(|pid| pid.parse() != Ok(own)) {
        return None;
    }
    let micros: u64 = micros?.parse().ok()?;
    (micros > 0).then(|| Duration::from_micros(micros / 2).max(Duration::from_millis(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (UnixDatagram, Notifier) {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("upslot-notify-{}-{number}", std::process::id());
        let address = address(&format!("@{name}")).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        manager.set_nonblocking(true).unwrap();
        let notifier = Notifier {
            manager: Some(Manager::connect(address).unwrap()),
            interval: Some(Duration::from_secs(10)),
            ..Notifier::default()
        };
        (manager, notifier)
    }

    fn received(manager: &UnixDatagram) -> Option<String> {
        let mut buffer = [0; 512];
        let length = manager.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    #[test]
    fn each_state_is_sent_with_the_status() {
        let (manager, mut notifier) = pair();
        let now = sys::monotonic();
        notifier.set_status("link down", now);
        assert_eq!(received(&manager).unwrap(), "STATUS=link down\n");
        notifier.set_status("link down", now);
        assert_eq!(received(&manager), None);
        notifier.ready(now);
        assert_eq!(received(&manager).unwrap(), "READY=1\nSTATUS=link down\n");
        notifier.reloading(now);
        let text = received(&manager).unwrap();
        assert!(
            text.starts_with("RELOADING=1\nMONOTONIC_USEC=")
                && text.ends_with("STATUS=link down\n")
        );
        notifier.stopping(now);
        assert_eq!(
            received(&manager).unwrap(),
            "STOPPING=1\nSTATUS=link down\n"
        );
    }

    #[test]
    fn heartbeats_are_sent_when_due() {
        let (manager, mut notifier) = pair();
        let start = sys::monotonic();
        let at = |seconds| start + Duration::from_secs(seconds);
        // None before the service is ready.
        assert_eq!(notifier.due(), None);
        notifier.beat(at(100));
        assert_eq!(received(&manager), None);
        notifier.ready(start);
        assert_eq!(received(&manager).unwrap(), "READY=1\n");
        assert_eq!(notifier.due(), Some(at(10)));
        notifier.beat(at(9));
        assert_eq!(received(&manager), None);
        notifier.beat(at(10));
        assert_eq!(received(&manager).unwrap(), "WATCHDOG=1\n");
        // A late heartbeat is sent once; missed ones are not repeated.
        notifier.beat(at(75));
        assert_eq!(received(&manager).unwrap(), "WATCHDOG=1\n");
        assert_eq!(received(&manager), None);
        assert_eq!(notifier.due(), Some(at(85)));
    }

    #[test]
    fn messages_for_a_full_queue_are_sent_later() {
        let (manager, mut notifier) = pair();
        let now = sys::monotonic();
        while notifier.retry_at.is_none() {
            notifier.reloading(now);
        }
        for _ in 0..100 {
            notifier.stopping(now);
        }
        assert_eq!(notifier.unsent.len(), MAX_UNSENT);
        assert_eq!(notifier.due(), Some(now + RETRY));
        while received(&manager).is_some() {}
        notifier.beat(now + RETRY);
        assert!(received(&manager).is_some());
        let mut last = None;
        for _ in 0..10 {
            while let Some(text) = received(&manager) {
                last = Some(text);
            }
            notifier.beat(now + RETRY * 2);
        }
        assert_eq!(last.as_deref(), Some("STOPPING=1\n"));
        assert!(notifier.unsent.is_empty());
    }

    #[test]
    fn a_restarted_manager_is_reconnected() {
        let (manager, mut notifier) = pair();
        let now = sys::monotonic();
        let address = manager.local_addr().unwrap();
        drop(manager);
        // There is no manager.
        notifier.ready(now);
        assert!(notifier.logged && notifier.unsent.is_empty());
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        manager.set_nonblocking(true).unwrap();
        notifier.stopping(now);
        assert_eq!(received(&manager).unwrap(), "STOPPING=1\n");
    }

    #[test]
    fn reads_the_environment() {
        let seconds = |n| Some(Duration::from_secs(n));
        for (micros, pid, expected) in [
            (None, None, None),
            (Some("60000000"), None, seconds(30)),
            (Some("60000000"), Some("7"), seconds(30)),
            (Some("60000000"), Some("8"), None),
            (Some("60000000"), Some("x"), None),
            (Some("0"), None, None),
            (Some("-5"), None, None),
            (Some("soon"), None, None),
            (Some("1"), None, Some(Duration::from_millis(1))),
        ] {
            assert_eq!(interval(micros, pid, 7), expected, "{micros:?} {pid:?}");
        }
        for (name, good) in [
            ("/run/systemd/notify", true),
            ("@abstract", true),
            ("relative", false),
            ("vsock:2:1234", false),
        ] {
            assert_eq!(address(name).is_ok(), good, "{name}");
        }
        assert!(address(&format!("/{}", "x".repeat(200))).is_err());
    }
}
