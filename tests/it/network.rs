//! A network at its worst: crowds that say nothing, readers that do not read, segments of one byte, and connections
//! that end in every way. Nobody else suffers, memory stays bounded, and waiting costs no processor time.
//!
//! What is public here takes its time, and is called by [`crate::a_long_silence`].

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::{ClientConfig, ClientConnection};

use crate::harness::http::{HOST, chunked};
use crate::harness::server::{COMPONENT, SECRET};
use crate::harness::site::{ROMEO, ROMEO_FOLDER};
use crate::harness::{
    Client, Plan, Server, Site, eventually, pseudo_random, raise_descriptors, request,
};
use crate::tls;

/// The link works: a ping is answered.
#[track_caller]
fn assert_alive(site: &mut Site) {
    let ping = "<ping xmlns='urn:xmpp:ping'/>";
    let answer = site.link().iq("get", ROMEO, ping);
    assert_eq!(answer.attribute("type"), Some("result"));
}

/// A plan with a large file, and its target.
fn with_large_file(plan: Plan, length: usize) -> (Plan, String, Vec<u8>) {
    let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/large.bin");
    let body = pseudo_random(20, length);
    let plan = plan.seed(&path, &body);
    (plan, format!("/files/{path}"), body)
}

/// What a client says first over TLS.
fn hello(config: &Arc<ClientConfig>) -> Vec<u8> {
    let mut hello = Vec::new();
    let name = HOST.try_into().unwrap();
    ClientConnection::new(Arc::clone(config), name)
        .unwrap()
        .write_tls(&mut hello)
        .unwrap();
    hello
}

/// Two thousand connections that say nothing, or a little, or all but the last byte of something. `working` asks
/// for a file and gets it, on a connection of its own.
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
    eventually("all of them to be accepted", || {
        site.program.sockets() >= sockets + CROWD
    });
    // Everybody else works on.
    early.get("/").is(200);
    working(site.http).get("/").is(200);
    assert_alive(site);
    let slot = site.slot(ROMEO, "a.txt", 5, None);
    let body = b"hello";
    working(site.http).ask("PUT", &slot.put, &[], body).is(201);
    site.program.rests("2,000 half-open connections");
    let grown = site.program.memory("VmRSS:").saturating_sub(memory);
    assert!(
        grown < CROWD as u64 * each,
        "{grown} KiB for {CROWD} half-open connections"
    );
    assert!(
        start.elapsed() > Duration::from_secs(1),
        "they were open while it rested"
    );
    // Each of them has its time and no more; who began to say something is told.
    for (number, client) in crowd.iter_mut().enumerate() {
        let end = String::from_utf8_lossy(&client.drain()).into_owned();
        let told = end.starts_with("HTTP/1.1 408 ");
        let plain = beginning.starts_with(b"GET");
        assert_eq!(told, plain && number % 4 > 0, "{number}: {end:?}");
    }
    eventually("all of them to be gone", || {
        site.program.sockets() <= sockets + 1
    });
    working(site.http).get("/").is(200);
    assert_alive(site);
    site.program.rests("after 2,000 half-open connections");
}

pub fn two_thousand_half_open() {
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
            // A handshake has the time of a head.
            let (plan, certificate) = tls::plan(plan().set("idle_timeout", 60));
            let config = Arc::new(tls::trusting(&[&certificate], tls::BOTH));
            half_open(&mut plan.start(), &hello(&config), 24, |address| {
                Client::tls(address, &config, HOST)
            });
        });
    });
}

/// Clients that ask for much and read little of it are freed by `body_timeout`, over TLS, too; until then they cost
/// little.
pub fn readers_that_stall() {
    let plan = || Plan::alone().set("body_timeout", 6);
    thread::scope(|scope| {
        scope.spawn(|| stall(plan(), Client::narrow));
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
            // Some ask for more than one answer, and some say that they ask for no more.
            client.send(&get.repeat(1 + number % 3));
            client.reply_head().is(200);
            if number % 4 == 0 {
                client.shut_write();
            }
            client
        })
        .collect();
    site.program.rests("blocked writes");
    assert_eq!(site.program.sockets(), sockets + 20, "dropped too early");
    other.get("/").is(200);
    let grown = site.program.memory("VmRSS:").saturating_sub(memory);
    assert!(grown < 20 * 150, "20 slow readers cost {grown} KiB");
    // One of them reads a little now and then, which is no progress. At its first deadline a reader may be found to
    // have made some room, and gets as much time again; not more.
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
        // What was in the sockets can still be read, and is not the whole.
        let mut read = 0;
        while let Ok([_, ..]) = client
            .read(1 << 20)
            .as_deref()
            .inspect(|piece| read += piece.len())
        {}
        assert!(read < body.len());
    }
    site.program.rests("after slow readers");
}

/// Who ends its own side still gets the whole answer, however slowly it reads; meanwhile an end that was read already
/// wakes nobody.
#[test]
fn half_closed_and_slow() {
    let (plan, target, body) = with_large_file(Plan::alone(), 12_000_000);
    let site = plan.start();
    let get = request("GET", &target, &[], b"");
    let mut clients: Vec<Client> = (1..4)
        .map(|times| {
            let mut client = Client::narrow(site.http);
            client.send(&get.repeat(times));
            client.shut_write();
            assert_eq!(client.reply_head().is(200).body_length, body.len());
            client
        })
        .collect();
    site.program.rests("half-closed peers");
    for (more, client) in clients.iter_mut().enumerate() {
        let mut received = Vec::new();
        while received.len() < body.len() {
            let piece = client.read(body.len() - received.len()).unwrap();
            assert!(!piece.is_empty(), "the end after {}", received.len());
            received.extend(piece);
        }
        assert!(received == body);
        for _ in 0..more {
            assert!(client.reply().is(200).body == body);
        }
        client.ends();
    }
    site.program.rests("after half-closed peers");
}

/// A body that ends early by a half close, and one that ends by a reset, store nothing; both leave the slot good.
#[test]
fn bodies_that_end_early() {
    let mut site = Plan::new().start();
    let body = pseudo_random(21, 600_000);
    let slot = site.slot(ROMEO, "a.bin", body.len() as u64, None);
    let sockets = site.program.sockets();
    let head = request("PUT", &slot.put, &[("Content-Length", "600000")], b"");
    let in_chunks = request("PUT", &slot.put, &[("Transfer-Encoding", "chunked")], b"");
    for cut in [0, 1, 4096, 300_000, body.len() - 1] {
        for (head, wire) in [(&head, body.clone()), (&in_chunks, chunked(&body, 50_000))] {
            for resets in [false, true] {
                let mut client = site.client();
                client.send(head);
                client.send(&wire[..cut]);
                if resets {
                    client.reset();
                } else {
                    client.shut_write();
                    client.drain();
                }
            }
        }
    }
    eventually("all of them to be gone", || {
        site.program.sockets() <= sockets
    });
    eventually("an empty store", || site.entries().is_empty());
    site.program.rests("after broken bodies");
    site.put(&slot, &body).is(201);
    assert!(site.get(&slot.get).is(200).body == body);
}

/// Sends each byte in a segment of its own.
#[track_caller]
fn byte_by_byte(client: &Client, bytes: &[u8]) {
    let mut writer = client.writer();
    for byte in bytes {
        writer.write_all(&[*byte]).unwrap();
        // The kernel decides what makes a segment; giving way makes it likely that each byte does.
        thread::yield_now();
    }
}

#[test]
fn segments_of_one_byte() {
    let mut site = Plan::new().start();
    let body = pseudo_random(22, 2000);
    let fields = [("Transfer-Encoding", "chunked"), ("Expect", "100-continue")];
    for size in [1, 7, 2000] {
        let slot = site.slot(ROMEO, "a.bin", body.len() as u64, None);
        let mut client = site.client();
        byte_by_byte(&client, &request("PUT", &slot.put, &fields, b""));
        client.reply().is(100);
        let mut wire = Vec::new();
        for chunk in body.chunks(size) {
            // All extensions together are bounded.
            let extension = if size == 1 { "" } else { ";name=\"a \\\" b\"" };
            wire.extend(format!("{:x}{extension}\r\n", chunk.len()).into_bytes());
            wire.extend_from_slice(chunk);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(b"0\r\nX-Trailer: yes\r\n\r\n");
        // The next requests follow in the same stream of bytes.
        wire.extend(request("GET", &slot.get, &[], b""));
        wire.extend(request("HEAD", &slot.get, &[], b""));
        wire.extend(request("GET", "/none", &[], b"ignored"));
        wire.extend(request(
            "GET",
            &slot.get,
            &[("Range", "bytes=5-9,20-")],
            b"",
        ));
        byte_by_byte(&client, &wire);
        client.reply_to("PUT").is(201);
        assert!(client.reply().is(200).body == body);
        client.reply_to("HEAD").is(200);
        client.reply().is(404);
        client.reply().is(206);
        assert!(client.get(&slot.get).is(200).body == body);
    }
}

/// The whole of an XML stream, byte by byte: header, handshake, stanzas, end.
#[test]
fn a_stream_of_single_bytes() {
    let mut site = Plan::new().unwelcome().start();
    let server = site.server.take().unwrap();
    let mut link = server.accept();
    link.read_header();
    let drip = |link: &mut crate::harness::Link, text: &str| {
        for byte in text.as_bytes() {
            link.send_bytes(&[*byte]);
            thread::yield_now();
        }
    };
    let header = format!(
        "<?xml version='1.0'?>\n<stream:stream xmlns:stream='http://etherx.jabber.org/streams' \
         xmlns='jabber:component:accept' from='{COMPONENT}' id='3BF9&#x26;6D32'>"
    );
    drip(&mut link, &header);
    link.prove(SECRET);
    drip(&mut link, "<handshake/>");
    site.program.wait_line(&["link up "]);
    for id in ["a", "ü&amp;"] {
        let ping = format!(
            " \n<iq type='get' id='{id}' from='{ROMEO}' to='{COMPONENT}'><ping xmlns='urn:xmpp:ping'/></iq>"
        );
        drip(&mut link, &ping);
        assert_eq!(link.stanza().attribute("type"), Some("result"));
    }
    site.program.allow("link down");
    drip(&mut link, "</stream:stream>");
    link.gone();
    site.link = Some(server.welcome());
    assert_alive(&mut site);
    site.server = Some(server);
}

/// Deadlines of every kind come, and what they leave behind rests.
pub fn deadlines_just_past() {
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
        // A refusal that leaves a body unread lingers.
        request("PUT", "/files/none", &[length], b"beginning"),
        request("POST", "/", &[("Content-Length", "9")], b"rest"),
        request("GET", &target, &[], b""),
    ];
    let clients: Vec<Client> = beginnings
        .iter()
        .flat_map(|bytes| {
            (0..5).map(|_| {
                let mut client = Client::narrow(site.http);
                client.send(bytes);
                client
            })
        })
        .collect();
    site.program.rests("deadlines and lingering");
    eventually("all of them to be freed", || {
        site.program.sockets() <= sockets
    });
    site.program.rests("deadlines just past");
    // All of it together: a second of processor time would be a spin.
    let used = site.program.cpu_ticks();
    assert!(used < 50, "{used} ticks for 40 connections");
    drop(clients);
    site.put(&slot, &[0; 100_000]).is(201);
    assert_alive(&mut site);
}

/// Out of descriptors: what cannot be accepted is tried again now and then, no more.
#[test]
fn without_descriptors_it_rests() {
    let mut site = Plan::new().descriptors(64).start();
    site.program.allow("descriptor");
    site.program.allow("connection");
    let mut early = site.client();
    early.get("/").is(200);
    let slot = site.slot(ROMEO, "a.txt", 5, None);
    // These are at work, so that none of them is closed to make room.
    let crowd: Vec<Client> = (0..100)
        .map(|_| {
            let mut client = site.client();
            client.send(&request(
                "PUT",
                &slot.put,
                &[("Content-Length", "5")],
                b"hell",
            ));
            client
        })
        .collect();
    site.program.rests("out of descriptors");
    drop((crowd, early));
    eventually("room", || {
        site.client().ask("GET", "/", &[], b"").status == 200
    });
    assert_alive(&mut site);
    site.program.rests("descriptors again");
}

/// Nothing at all to do: no link, a link, TLS; connections kept open.
#[test]
fn idle_is_idle() {
    let plain = Plan::alone().start();
    let linked = Plan::new().start();
    let (plan, certificate) = tls::plan(Plan::alone());
    let secure = plan.start();
    let config = Arc::new(tls::trusting(&[&certificate], tls::BOTH));
    let mut kept = vec![
        plain.client(),
        linked.client(),
        Client::tls(secure.http, &config, HOST),
    ];
    // Some say nothing at all, or nothing but a handshake.
    let _fresh = [plain.client(), secure.client()];
    let _mute = Client::tls(secure.http, &config, HOST);
    for client in &mut kept {
        client.get("/").is(200);
    }
    thread::scope(|scope| {
        for site in [&plain, &linked, &secure] {
            scope.spawn(|| site.program.rests("idle"));
        }
    });
    for client in &mut kept {
        client.get("/").is(200);
    }
}

/// A store without room refuses PUTs; who waits at its door costs nothing.
#[test]
fn a_full_store_rests() {
    let mut site = Plan::new().start();
    let slots: Vec<_> = (0..10)
        .map(|i| site.slot(ROMEO, &format!("{i}.bin"), 1_000_000, None))
        .collect();
    site.rewrite("min_free_space", u64::MAX / 2);
    site.program.signal(rustix::process::Signal::HUP);
    site.program.wait_line(&["config reloaded"]);
    let mut clients: Vec<Client> = slots
        .iter()
        .map(|slot| {
            let mut client = site.client();
            let fields = [("Content-Length", "1000000")];
            client.send(&request("PUT", &slot.put, &fields, b"beginning"));
            client.reply().is(507);
            client
        })
        .collect();
    // Each of them lingers, because its body was refused and is still to come.
    site.program.rests("a full store");
    site.client().get("/").is(200);
    for client in &mut clients {
        let _ = client.try_send(&[0; 100_000]);
    }
    drop(clients);
    assert_alive(&mut site);
    site.program.rests("after a full store");
}

/// The XMPP server's side of a component link that says things without end.
mod endless {
    use super::*;

    /// Far more than the component and the kernel may keep of a gigabyte.
    const ENOUGH: usize = 64 << 20;

    /// What may be kept meanwhile, and what the program touches for the first time; KiB.
    const FEW: u64 = 8 * 1024;

    /// The same where all of it is taken.
    const MUCH: usize = 16 << 20;

    /// Sends the piece over and over, as a server would that means to send a gigabyte, until the component hangs up or
    /// has taken more than enough; how much that was.
    fn pour(link: &mut crate::harness::Link, beginning: &str, piece: &str, enough: usize) -> usize {
        let mut writer = link.writer();
        let mut taken = 0;
        let piece = piece.repeat(64 * 1024 / piece.len());
        if writer.write_all(beginning.as_bytes()).is_err() {
            return taken;
        }
        while taken < enough && writer.write_all(piece.as_bytes()).is_ok() {
            taken += piece.len();
        }
        taken
    }

    /// A header without an end, or what no server may send: the component hangs up, and its memory does not follow.
    #[test]
    fn headers_are_cut_off() {
        let cases = [
            (true, "<!--", "x"),
            (true, "<message><!--", "x"),
            (true, "<?", "x"),
            (true, "", "x"),
            (true, "<message><body>&", "x"),
            (false, "<?xml version='1.0'?><stream:stream id='", "x"),
            (false, "<stream:stream ", "x"),
            (false, "<?xml ", "x"),
            (false, "", "x"),
            (false, "<stream:features>", "<a/>"),
        ];
        each(&cases, |site, link, beginning, piece| {
            let taken = pour(link, beginning, piece, ENOUGH);
            assert!(taken < ENOUGH, "{beginning}{piece}… for {taken} bytes");
            site.program.wait_line(&["link down ", "why="]);
        });
    }

    /// A stanza of a gigabyte is skipped: the component takes all of it, and its memory does not follow.
    #[test]
    fn stanzas_are_skipped() {
        let cases = [
            (true, "<message><body>", "x"),
            (true, "<message from='", "x"),
            (true, "<", "x"),
            (true, "<message>", "<a/>"),
            (true, "<message>", "<a>"),
            (true, "<message>", "<a b='c' d='e'>f&amp;</a>"),
            (true, "<message><body><![CDATA[", "x"),
            (true, "<message ", "xmlns:a='b' "),
            (true, "<message a=", " "),
            (true, "<message><body>&#", "0"),
        ];
        each(&cases, |site, link, beginning, piece| {
            let taken = pour(link, beginning, piece, MUCH);
            assert!(taken >= MUCH, "{beginning}{piece}… for {taken} bytes");
            let lines = site.program.lines();
            assert!(!lines.iter().any(|line| line.contains("link down ")));
            link.hang_up();
            // What the kernels keep is skipped first, which takes a while where others work, too.
            let (down, patience) = (
                ["link down ", "closed the connection"],
                Duration::from_secs(60),
            );
            site.program.wait_lines_for(&down, 1, patience);
        });
    }

    /// Plays each case on a link of its own, whether open or without a header; in the end a new one works.
    fn each(
        cases: &[(bool, &'static str, &'static str)],
        play: impl Fn(&mut Site, &mut crate::harness::Link, &str, &str) + Sync,
    ) {
        let next = std::sync::Mutex::new(cases.iter());
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    loop {
                        let Some(&(open, beginning, piece)) = next.lock().unwrap().next() else {
                            return;
                        };
                        let mut site = Plan::new().unwelcome().start();
                        site.program.allow("link down");
                        let server = site.server.take().unwrap();
                        let mut link = if open {
                            server.welcome()
                        } else {
                            let mut link = server.accept();
                            link.read_header();
                            link
                        };
                        site.client().get("/").is(200);
                        let before = site.program.memory("VmHWM:");
                        play(&mut site, &mut link, beginning, piece);
                        let grown = site.program.memory("VmHWM:").saturating_sub(before);
                        assert!(grown < FEW, "{beginning}{piece}… cost {grown} KiB");
                        site.client().get("/").is(200);
                        site.program.rests("after what has no end");
                        site.link = Some(server.welcome());
                        assert_alive(&mut site);
                        site.server = Some(server);
                    }
                });
            }
        });
    }

    /// What is allowed to go on for ever, white space and stanzas for nobody, costs no memory either, and the link
    /// stays.
    #[test]
    fn what_may_go_on_goes_on() {
        let mut site = Plan::new().start();
        assert_alive(&mut site);
        let before = site.program.memory("VmHWM:");
        for piece in [
            " ",
            "\n\t ",
            "<presence from='a@b'/>",
            "<message from='a@b'><body>x</body></message>",
        ] {
            let mut writer = site.link().writer();
            let piece = piece.repeat((1 << 20) / piece.len());
            for _ in 0..4 {
                writer.write_all(piece.as_bytes()).unwrap();
            }
            site.client().get("/").is(200);
        }
        assert_alive(&mut site);
        let grown = site.program.memory("VmHWM:").saturating_sub(before);
        assert!(grown < FEW, "{grown} KiB");
        site.program.rests("after much that nobody asked for");
    }
}

/// A server that is stopped: the tries become rare, the log says it once, and HTTP does not mind.
pub fn a_stopped_server() {
    // An address of its own, so that nobody else takes the port in the meantime.
    let server = Server::at("127.0.0.78:0".parse().unwrap());
    let address = server.address();
    let mut site = Plan::new()
        .set("component_host", "127.0.0.78")
        .set("component_port", address.port())
        .set("log_level", "debug")
        .unwelcome()
        .start();
    site.program.allow("link down");
    site.link = Some(server.welcome());
    assert_alive(&mut site);
    drop(server);
    site.link().hang_up();
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
    // The end of the stream, and that nobody answers any more.
    assert_eq!(warned(&site), 2, "{:?}", site.program.lines());
    site.program.rests("a link that is down");
    site.client().get("/").is(200);
    let server = Server::at(address);
    site.link = Some(server.welcome());
    assert_alive(&mut site);
    site.server = Some(server);
}
