//! An XMPP server that sends endless data.

use std::io::Write;
use std::thread;
use std::time::Duration;

use crate::harness::site::assert_alive;
use crate::harness::{Plan, Site};

/// Far more than the component and the kernel may buffer.
const ENOUGH: usize = 64 << 20;

/// Memory that may be used meanwhile, and pages touched for the first time; KiB.
const FEW: u64 = 8 * 1024;

/// The same where all data is read.
const MUCH: usize = 16 << 20;

/// Repeats the piece until the component closes the link or has read `enough` bytes; returns how many it read.
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

/// An endless header or forbidden XML: the component closes the link, and its memory stays bounded.
#[test]
fn endless_headers_end_the_link() {
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

/// An endless stanza is skipped: the component keeps reading, and its memory stays bounded.
#[test]
fn endless_stanzas_are_skipped() {
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
        link.close();
        // Data in the kernel's buffers is skipped first, which takes a while on a busy machine.
        let (down, patience) = (
            ["link down ", "closed the connection"],
            Duration::from_secs(60),
        );
        site.program.wait_lines_for(&down, 1, patience);
    });
}

/// Runs each case on its own link, before or after the header; afterwards a new link works.
fn each(
    cases: &[(bool, &'static str, &'static str)],
    run: impl Fn(&mut Site, &mut crate::harness::Link, &str, &str) + Sync,
) {
    let next = std::sync::Mutex::new(cases.iter());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some(&(open, beginning, piece)) = next.lock().unwrap().next() else {
                        return;
                    };
                    let mut site = Plan::new().without_link().start();
                    site.program.allow("link down");
                    let server = site.server.take().unwrap();
                    let mut link = if open {
                        server.accept_link()
                    } else {
                        let mut link = server.accept();
                        link.read_header();
                        link
                    };
                    site.client().get("/").is(200);
                    let before = site.program.memory("VmHWM:");
                    run(&mut site, &mut link, beginning, piece);
                    let grown = site.program.memory("VmHWM:").saturating_sub(before);
                    assert!(grown < FEW, "{beginning}{piece}… cost {grown} KiB");
                    site.client().get("/").is(200);
                    site.program.assert_idle("after endless data");
                    site.link = Some(server.accept_link());
                    assert_alive(&mut site);
                    site.server = Some(server);
                }
            });
        }
    });
}

/// Endless white space and ignored stanzas use no memory either, and the link stays up.
#[test]
fn endless_ignored_input() {
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
    site.program.assert_idle("after ignored stanzas");
}
