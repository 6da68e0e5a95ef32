//! Timeouts and back-off that take long by design: a silent server is probed after a minute and dropped half a minute
//! later; a server that accepts and sends nothing is left after ten seconds; one that closes is retried less and less
//! often; silent clients are closed by their timeouts.
//!
//! These tests mostly wait, and run in parallel in one test. Tests start in alphabetical order, so the module's name lets
//! this one start early; each part is named in the failure message.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType};
use rustls::{ClientConfig, ClientConnection};

use crate::harness::downloads::with_large_file;
use crate::harness::http::HOST;
use crate::harness::server::{COMPONENT, SECRET};
use crate::harness::site::{ROMEO, assert_alive};
use crate::harness::{Client, Plan, Server, Site, eventually, raise_descriptors, request, tls};

/// The silence before a probe, the wait for its answer, and time for a busy machine.
const PROBE: Duration = Duration::from_secs(75);
const GIVE_UP: Duration = Duration::from_secs(45);

#[test]
fn long_waits() {
    let parts: [(&str, fn()); 8] = [
        ("probe", probe),
        ("silent_servers", silent_servers),
        ("flapping_servers", flapping_servers),
        ("full_accept_queue", full_accept_queue),
        ("two_thousand_half_open", two_thousand_half_open),
        ("readers_that_stall", readers_that_stall),
        ("deadlines_just_past", deadlines_just_past),
        ("a_stopped_server", a_stopped_server),
    ];
    thread::scope(|scope| {
        let parts = parts.map(|(name, part)| {
            let thread = thread::Builder::new().name(name.to_owned());
            (name, thread.spawn_scoped(scope, part).unwrap())
        });
        let failed: Vec<&str> = parts
            .into_iter()
            .filter_map(|(name, part)| part.join().is_err().then_some(name))
            .collect();
        assert!(failed.is_empty(), "failed: {failed:?}");
    });
}

/// Waits for the component's own ping.
#[track_caller]
fn next_probe(site: &mut Site) -> String {
    site.link().set_patience(PROBE);
    let probe = site.link().stanza();
    assert_eq!(
        (probe.name.as_str(), probe.attribute("type")),
        ("iq", Some("get")),
        "{probe:?}"
    );
    probe.expect("ping", "urn:xmpp:ping");
    assert_eq!(probe.attribute("from"), Some(COMPONENT));
    probe.attribute("id").unwrap().to_owned()
}

fn probe() {
    let mut site = Plan::new().start();
    let start = Instant::now();
    site.program.assert_idle("a silent link");
    next_probe(&mut site);
    assert!(
        start.elapsed() > Duration::from_secs(20),
        "an idle link is probed too often"
    );
    site.program.assert_idle("an unanswered ping");
    // No answer: the link is closed, and the component reconnects.
    site.link().set_patience(GIVE_UP);
    site.link().wait_closed();
    site.relink();
    let answer = site
        .link()
        .iq("get", "romeo@montague.tld", "<ping xmlns='urn:xmpp:ping'/>");
    assert_eq!(answer.attribute("type"), Some("result"));
}

/// Silence where the stream header is due, and where the handshake's answer is due.
fn silent_servers() {
    let mut site = Plan::new().without_link().start();
    site.program.allow("link down");
    let server = site.server.take().unwrap();
    let mut silent = server.accept_within(Duration::from_secs(30)).unwrap();
    site.program.assert_idle("a silent server");
    silent.wait_closed();
    assert_eq!(site.client().get("/").status, 200);
    let mut silent = server.accept_within(Duration::from_secs(30)).unwrap();
    silent.open();
    site.program.assert_idle("an unanswered handshake");
    silent.wait_closed();
    site.link = Some(server.accept_link());
    let answer = site
        .link()
        .iq("get", "romeo@montague.tld", "<ping xmlns='urn:xmpp:ping'/>");
    assert_eq!(answer.attribute("type"), Some("result"));
    site.server = Some(server);
}

/// Servers that close at once. Before the handshake, retries and log lines become rare; after a link that was up, the
/// component retries after one to two seconds.
fn flapping_servers() {
    const WATCHED: Duration = Duration::from_secs(12);
    thread::scope(|scope| {
        for completes_handshake in [false, true] {
            scope.spawn(move || {
                let mut site = Plan::new().without_link().start();
                site.program.allow("link down");
                let server = site.server.take().unwrap();
                let start = Instant::now();
                let mut tries = 0;
                while start.elapsed() < WATCHED {
                    let left = WATCHED.saturating_sub(start.elapsed());
                    if left.is_zero() {
                        break;
                    }
                    let Some(mut link) = server.accept_within(left) else {
                        break;
                    };
                    tries += 1;
                    if completes_handshake {
                        link.open();
                        link.check_handshake(SECRET);
                        link.send("<handshake/>");
                    }
                    link.close();
                    site.client().get("/").is(200);
                }
                // After at least 1, 2, 4 and 8 seconds, or after 1 to 2 seconds each.
                let expected = if completes_handshake { 5..=12 } else { 2..=4 };
                assert!(expected.contains(&tries), "{tries} tries in 12 s");
                site.program.assert_idle("a link between two tries");
                let lines = site.program.lines();
                let logged = |part: &str| lines.iter().filter(|line| line.contains(part)).count();
                let changes = if completes_handshake { tries } else { 1 };
                assert!(logged("link down") <= changes, "{}", lines.join("\n"));
                let most = 20 + if completes_handshake { 2 * tries } else { 0 };
                assert!(lines.len() < most, "{}", lines.join("\n"));
                site.link = Some(server.accept_link());
                site.server = Some(server);
            });
        }
    });
}

/// A connection attempt that is never answered: the accept queue is full.
fn full_accept_queue() {
    let listener = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&listener, &std::net::SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let address = std::net::TcpListener::from(listener.try_clone().unwrap())
        .local_addr()
        .unwrap();
    let mut crowd = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) {
        crowd.push(stream);
        assert!(crowd.len() < 100, "the queue has no end");
    }
    let mut site = Plan::alone()
        .set("component_jid", COMPONENT)
        .set("component_secret", SECRET)
        .set("component_host", "127.0.0.1")
        .set("component_port", address.port())
        .start();
    site.program.allow("link down");
    site.program.assert_idle("a pending connection");
    site.client().get("/").is(200);
    site.program
        .wait_line(&["WARN", "link down ", "no answer within 10 s"]);
    site.client().get("/").is(200);
}

/// Two thousand connections that send nothing, a part, or all but the last byte of a request. `working` opens a connection
/// for complete requests.
#[track_caller]
fn half_open(site: &mut Site, beginning: &[u8], each: u64, working: impl Fn(SocketAddr) -> Client) {
    const CROWD: usize = 2000;
    let mut early = working(site.http);
    early.get("/").is(200);
    let sockets = site.program.sockets();
    let memory = site.program.memory("VmRSS:");
    let start = Instant::now();
    let mut crowd: Vec<Client> = (0..CROWD)
        .map(|number| {
            let mut client = Client::over(TcpStream::connect(site.http).unwrap());
            client.send(match number % 4 {
                0 => b"",
                1 => &beginning[..1],
                2 => &beginning[..beginning.len() / 2],
                _ => &beginning[..beginning.len() - 1],
            });
            client
        })
        .collect();
    eventually("all connections to be accepted", || {
        site.program.sockets() >= sockets + CROWD
    });
    // Other clients are served.
    early.get("/").is(200);
    working(site.http).get("/").is(200);
    assert_alive(site);
    let slot = site.slot(ROMEO, "a.txt", 5, None);
    let body = b"hello";
    working(site.http).ask("PUT", &slot.put, &[], body).is(201);
    site.program.assert_idle("2,000 half-open connections");
    let grown = site.program.memory("VmRSS:").saturating_sub(memory);
    assert!(
        grown < CROWD as u64 * each,
        "{grown} KiB for {CROWD} half-open connections"
    );
    assert!(
        start.elapsed() > Duration::from_secs(1),
        "they were open while it rested"
    );
    // Each is closed by its timeout; those that began a request get a 408.
    for (number, client) in crowd.iter_mut().enumerate() {
        let end = String::from_utf8_lossy(&client.drain()).into_owned();
        let answered = end.starts_with("HTTP/1.1 408 ");
        let plain = beginning.starts_with(b"GET");
        assert_eq!(answered, plain && number % 4 > 0, "{number}: {end:?}");
    }
    eventually("all connections to be closed", || {
        site.program.sockets() <= sockets + 1
    });
    working(site.http).get("/").is(200);
    assert_alive(site);
    site.program
        .assert_idle("after 2,000 half-open connections");
}

/// A ClientHello.
fn hello(config: &Arc<ClientConfig>) -> Vec<u8> {
    let mut hello = Vec::new();
    let name = HOST.try_into().unwrap();
    ClientConnection::new(Arc::clone(config), name)
        .unwrap()
        .write_tls(&mut hello)
        .unwrap();
    hello
}

fn two_thousand_half_open() {
    raise_descriptors(10_000);
    let plan = || {
        Plan::new()
            .set("max_connections", 3000)
            .set("header_timeout", 15)
            .set("idle_timeout", 15)
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            let beginning = b"GET / HTTP/1.1\r\nHost: upload.localhost\r\n\r\n";
            half_open(&mut plan().start(), beginning, 4, Client::connect);
        });
        scope.spawn(|| {
            // header_timeout applies to a handshake.
            let (plan, certificate) = tls::plan(plan().set("idle_timeout", 60));
            let config = Arc::new(tls::trusting(&[&certificate], tls::BOTH));
            half_open(&mut plan.start(), &hello(&config), 24, |address| {
                Client::tls(address, &config, HOST)
            });
        });
    });
}

/// Clients that do not read a large response are closed by `body_timeout`, also over TLS; until then they use little
/// memory.
fn readers_that_stall() {
    let plan = || Plan::alone().set("body_timeout", 6);
    thread::scope(|scope| {
        scope.spawn(|| stall(plan(), Client::with_small_buffer));
        scope.spawn(|| {
            let (plan, certificate) = tls::plan(plan());
            let config = Arc::new(tls::trusting(&[&certificate], tls::BOTH));
            stall(plan, |address| Client::tls(address, &config, HOST));
        });
    });
}

fn stall(plan: Plan, connect: impl Fn(SocketAddr) -> Client) {
    let (plan, target, body) = with_large_file(plan, 30_000_000);
    let site = plan.start();
    let mut other = connect(site.http);
    assert!(other.get(&target).is(200).body == body);
    let sockets = site.program.sockets();
    let memory = site.program.memory("VmRSS:");
    let get = request("GET", &target, &[], b"");
    let start = Instant::now();
    let mut stalled: Vec<Client> = (0..20)
        .map(|number| {
            let mut client = connect(site.http);
            // Some pipeline requests, some half-close.
            client.send(&get.repeat(1 + number % 3));
            client.reply_head().is(200);
            if number % 4 == 0 {
                client.shut_write();
            }
            client
        })
        .collect();
    site.program.assert_idle("blocked writes");
    assert_eq!(site.program.sockets(), sockets + 20, "dropped too early");
    other.get("/").is(200);
    let grown = site.program.memory("VmRSS:").saturating_sub(memory);
    assert!(grown < 20 * 150, "20 slow readers cost {grown} KiB");
    // One of them reads a little now and then, which is no progress. A reader that made some room before its first
    // deadline gets one more period.
    let mut drip = stalled.pop().unwrap();
    while site.program.sockets() > sockets {
        assert!(
            start.elapsed() < Duration::from_secs(26),
            "{} still there",
            site.program.sockets() - sockets
        );
        let _ = drip.read(1);
        thread::sleep(Duration::from_millis(50));
    }
    other.get("/").is(200);
    for mut client in stalled {
        // Buffered data can still be read, but not the whole file.
        let mut read = 0;
        while let Ok([_, ..]) = client
            .read(1 << 20)
            .as_deref()
            .inspect(|piece| read += piece.len())
        {}
        assert!(read < body.len());
    }
    site.program.assert_idle("after slow readers");
}

/// Every kind of deadline passes, and afterwards the program is idle.
fn deadlines_just_past() {
    let (plan, target, _) = with_large_file(
        Plan::new()
            .set("header_timeout", 1)
            .set("body_timeout", 1)
            .set("idle_timeout", 1),
        12_000_000,
    );
    let mut site = plan.start();
    let slot = site.slot(ROMEO, "a.bin", 100_000, None);
    let sockets = site.program.sockets();
    let length = ("Content-Length", "100000");
    let waits = ("Expect", "100-continue");
    let beginnings: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"G".to_vec(),
        b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec(),
        request("PUT", &slot.put, &[length], b"beginning"),
        request("PUT", &slot.put, &[length, waits], b""),
        // A refusal with an unread body lingers.
        request("PUT", "/files/none", &[length], b"beginning"),
        request("POST", "/", &[("Content-Length", "9")], b"rest"),
        request("GET", &target, &[], b""),
    ];
    let clients: Vec<Client> = beginnings
        .iter()
        .flat_map(|bytes| {
            (0..5).map(|_| {
                let mut client = Client::with_small_buffer(site.http);
                client.send(bytes);
                client
            })
        })
        .collect();
    site.program.assert_idle("deadlines and lingering");
    eventually("all connections to be closed", || {
        site.program.sockets() <= sockets
    });
    site.program.assert_idle("deadlines just past");
    // Together far less than the second of processor time that a busy loop would use.
    let used = site.program.cpu_ticks();
    assert!(used < 50, "{used} ticks for 40 connections");
    drop(clients);
    site.put(&slot, &[0; 100_000]).is(201);
    assert_alive(&mut site);
}

/// A stopped server: retries become rare, the log reports it once, and HTTP is not affected.
fn a_stopped_server() {
    // A separate address, so that no other test takes the port in the meantime.
    let server = Server::at("127.0.0.78:0".parse().unwrap());
    let address = server.address();
    let mut site = Plan::new()
        .set("component_host", "127.0.0.78")
        .set("component_port", address.port())
        .set("log_level", "debug")
        .without_link()
        .start();
    site.program.allow("link down");
    site.link = Some(server.accept_link());
    assert_alive(&mut site);
    drop(server);
    site.link().close();
    site.link = None;
    let lines =
        site.program
            .wait_lines_for(&["link down ", "retry_ms="], 4, Duration::from_secs(60));
    let rests: Vec<u64> = lines
        .iter()
        .map(|line| {
            let rest = crate::harness::program::value_of(line, "retry_ms").unwrap();
            rest.parse().unwrap()
        })
        .collect();
    for (number, rest) in rests.iter().enumerate() {
        let least = 1000 << number;
        assert!((least..=2 * least).contains(rest), "{rests:?}");
    }
    let warned = |site: &Site| {
        let lines = site.program.lines();
        lines.iter().filter(|line| line.contains("WARN")).count()
    };
    // The end of the stream, and the refused connection.
    assert_eq!(warned(&site), 2, "{:?}", site.program.lines());
    site.program.assert_idle("a link that is down");
    site.client().get("/").is(200);
    let server = Server::at(address);
    site.link = Some(server.accept_link());
    assert_alive(&mut site);
    site.server = Some(server);
}
