//! What takes its time by design: a silent server is probed after a minute and dropped half a minute later; a server
//! that accepts and says nothing is left after ten seconds; one that hangs up is asked less and less often; a crowd
//! that says nothing has until its timeouts.
//!
//! These tests mostly wait, and wait together. The first letter of the module's name lets them begin first, beside all
//! the others; each part has its name in the message of its failure.

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType};

use crate::harness::server::{COMPONENT, SECRET};
use crate::harness::{Plan, Site};
use crate::network;

/// The silence before a probe, the wait for its answer, and time for a busy machine.
const PROBE: Duration = Duration::from_secs(75);
const GIVE_UP: Duration = Duration::from_secs(45);

#[test]
fn what_takes_its_time() {
    let parts: [(&str, fn()); 8] = [
        ("probe", probe),
        ("mute_servers", mute_servers),
        ("flapping_servers", flapping_servers),
        ("an_address_that_takes_nobody", an_address_that_takes_nobody),
        ("two_thousand_half_open", network::two_thousand_half_open),
        ("readers_that_stall", network::readers_that_stall),
        ("deadlines_just_past", network::deadlines_just_past),
        ("a_stopped_server", network::a_stopped_server),
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
    site.program.rests("a silent link");
    next_probe(&mut site);
    assert!(
        start.elapsed() > Duration::from_secs(20),
        "an idle link is not to be bothered all the time"
    );
    site.program.rests("a ping that nobody answers");
    // No answer: the link is taken for dead, and made anew.
    site.link().set_patience(GIVE_UP);
    site.link().gone();
    site.relink();
    let answer = site
        .link()
        .iq("get", "romeo@montague.tld", "<ping xmlns='urn:xmpp:ping'/>");
    assert_eq!(answer.attribute("type"), Some("result"));
}

/// Silence where the stream header is due, and where the handshake's answer is due.
fn mute_servers() {
    let mut site = Plan::new().unwelcome().start();
    site.program.allow("link down");
    let server = site.server.take().unwrap();
    let mut mute = server.accept_within(Duration::from_secs(30)).unwrap();
    site.program.rests("a server that says nothing");
    mute.gone();
    assert_eq!(site.client().get("/").status, 200);
    let mut mute = server.accept_within(Duration::from_secs(30)).unwrap();
    mute.open();
    site.program.rests("a handshake that nobody answers");
    mute.gone();
    site.link = Some(server.welcome());
    let answer = site
        .link()
        .iq("get", "romeo@montague.tld", "<ping xmlns='urn:xmpp:ping'/>");
    assert_eq!(answer.attribute("type"), Some("result"));
    site.server = Some(server);
}

/// Servers that hang up at once. Before the handshake is done the retries become rare, and so do the lines of the log; a
/// link that was up is tried again after a second or two each time.
fn flapping_servers() {
    const WATCHED: Duration = Duration::from_secs(12);
    thread::scope(|scope| {
        for welcomes in [false, true] {
            scope.spawn(move || {
                let mut site = Plan::new().unwelcome().start();
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
                    if welcomes {
                        link.open();
                        link.prove(SECRET);
                        link.send("<handshake/>");
                    }
                    link.hang_up();
                    site.client().get("/").is(200);
                }
                // After 1, 2, 4 and 8 seconds at least; or after 1 to 2 seconds each.
                let expected = if welcomes { 5..=12 } else { 2..=4 };
                assert!(expected.contains(&tries), "{tries} tries in 12 s");
                site.program.rests("a link between two tries");
                let lines = site.program.lines();
                let told = |part: &str| lines.iter().filter(|line| line.contains(part)).count();
                let changes = if welcomes { tries } else { 1 };
                assert!(told("link down") <= changes, "{}", lines.join("\n"));
                let most = 20 + if welcomes { 2 * tries } else { 0 };
                assert!(lines.len() < most, "{}", lines.join("\n"));
                site.link = Some(server.welcome());
                site.server = Some(server);
            });
        }
    });
}

/// A connection that is never made: nobody accepts, and the queue is full.
fn an_address_that_takes_nobody() {
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
    site.program.rests("a connection that is not made");
    site.client().get("/").is(200);
    site.program
        .wait_line(&["WARN", "link down ", "no answer within 10 s"]);
    site.client().get("/").is(200);
}
