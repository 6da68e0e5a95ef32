//! What takes its time by design: a silent server is probed after a minute and dropped half a minute later; a server
//! that accepts and says nothing is left after ten seconds.
//!
//! These tests only wait. The first letter of the module's name lets them begin first, beside all the others.

use std::thread;
use std::time::{Duration, Instant};

use crate::harness::server::COMPONENT;
use crate::harness::{Plan, Site};

/// The silence before a probe, the wait for its answer, and time for a busy machine.
const PROBE: Duration = Duration::from_secs(75);
const GIVE_UP: Duration = Duration::from_secs(45);

#[test]
fn is_probed_and_ended() {
    thread::scope(|scope| {
        scope.spawn(probe);
        scope.spawn(mute_servers);
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
    next_probe(&mut site);
    assert!(
        start.elapsed() > Duration::from_secs(20),
        "an idle link is not to be bothered all the time"
    );
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
    mute.gone();
    assert_eq!(site.client().get("/").status, 200);
    let mut mute = server.accept_within(Duration::from_secs(30)).unwrap();
    mute.open();
    mute.gone();
    site.link = Some(server.welcome());
    let answer = site
        .link()
        .iq("get", "romeo@montague.tld", "<ping xmlns='urn:xmpp:ping'/>");
    assert_eq!(answer.attribute("type"), Some("result"));
    site.server = Some(server);
}
