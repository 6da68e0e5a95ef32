//! Stanzas that are malformed, too large, too deep or unusual.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::program::value_of;
use crate::harness::server::{COMPONENT, UPLOAD_0, error_of};
use crate::harness::site::{ROMEO, assert_alive};
use crate::harness::{Plan, pseudo_random};

const JULIET: &str = "juliet@capulet.tld/balcony";
const STREAMS: &str = "urn:ietf:params:xml:ns:xmpp-streams";

#[test]
fn forbidden_xml_ends_the_stream() {
    // Skipped content is checked as well.
    let big = format!("<message><body>{}<!-- -->", "x".repeat(70_000));
    let deep = "<x>".repeat(20_000) + "</y>" + &"</x>".repeat(19_999);
    let entity = "<iq type='get' id='a' from='a@montague.tld'>&nbsp;</iq>";
    let wild = pseudo_random(12, 5000);
    let laughs = "<!DOCTYPE iq [<!ENTITY a 'ha'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;'>\
        <!ENTITY c '&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;'>]><iq type='get' id='a'>&c;</iq>";
    let header = "x".repeat(70_000);
    let header = format!("</stream:stream><stream:stream id='{header}'>");
    let utf_16: Vec<u8> = "<iq type='get' id='a'/>"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let errors = format!("<stream:error><reset xmlns='{STREAMS}'/></stream:error>").repeat(2000);
    let cases: Vec<(&str, &[u8])> = vec![
        ("a DTD", b"<!DOCTYPE x [<!ENTITY a 'b'>]><iq/>"),
        ("a comment", b"<!-- comment -->"),
        ("a comment within", b"<iq type='get' id='a' from='a@montague.tld'><!-- x --><ping xmlns='urn:xmpp:ping'/></iq>"),
        ("an instruction", b"<?php evil ?>"),
        ("an entity", entity.as_bytes()),
        ("a comment after 64 KiB", big.as_bytes()),
        ("an end tag without its start in the depth", deep.as_bytes()),
        ("not well-formed", b"<iq><a></b></iq>"),
        ("an attribute without quotes", b"<iq type=get id='a'/>"),
        ("an attribute twice", b"<iq id='a' id='b'/>"),
        ("a bare ampersand", b"<message><body>a & b</body></message>"),
        ("not UTF-8", b"<message><body>\xff\xfe</body></message>"),
        ("a control character", b"<message><body>\x01</body></message>"),
        ("text between stanzas", b"hello"),
        ("anything", &wild),
        ("entities in entities", laughs.as_bytes()),
        ("another stream", header.as_bytes()),
        ("UTF-16", &utf_16),
        ("NUL", b"<message><body>\0</body></message>"),
        ("errors over errors", errors.as_bytes()),
        ("the end of the stream", b"</stream:stream>"),
    ];
    // Each loss is followed by a back-off, so the cases run in parallel.
    let next = std::sync::Mutex::new(cases.into_iter());
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                loop {
                    let Some((what, bytes)) = next.lock().unwrap().next() else {
                        return;
                    };
                    let mut site = Plan::new().start();
                    site.link().try_send(bytes);
                    // The component closes the link; HTTP is not affected.
                    site.link().wait_closed();
                    assert_eq!(site.client().get("/").status, 200, "{what}");
                    let line = site.program.wait_line(&["WARN", "link down ", "why="]);
                    assert!(
                        value_of(&line, "why").is_some_and(|why| !why.is_empty()),
                        "{what}: {line}"
                    );
                    site.relink();
                    assert_alive(&mut site);
                    let slot = site.slot(ROMEO, "a.txt", 5, None);
                    site.put(&slot, b"hello").is(201);
                }
            });
        }
    });
}

/// Content that is too large, too deep or has invalid names, and that Prosody or ejabberd forward or might forward.
fn odd_contents() -> Vec<(&'static str, String)> {
    let attributes: String = (0..10_000).map(|i| format!(" a{i}='{i}'")).collect();
    let declared: String = (0..10_000).map(|i| format!(" xmlns:p{i}='n'")).collect();
    let few: String = (0..100).map(|i| format!(" xmlns:p{i}='n'")).collect();
    let long = "n".repeat(20_000);
    let xml = "http://www.w3.org/XML/1998/namespace";
    vec![
        ("41 levels", "<x>".repeat(41) + &"</x>".repeat(41)),
        (
            "20,000 levels",
            "<x>".repeat(20_000) + &"</x>".repeat(20_000),
        ),
        ("text", "x".repeat(70_000)),
        ("references", "&amp;&#65;".repeat(10_000)),
        ("sections", "<![CDATA[</iq><!-- & ]] > ]]>".repeat(5_000)),
        ("attributes", format!("<x{attributes}/>")),
        ("declarations", format!("<x{declared}/>")),
        ("a hundred declarations", format!("<x{few}/>")),
        ("a long value", format!("<x a='{}'/>", "x".repeat(70_000))),
        ("a long name", format!("<{0}></{0}>", "x".repeat(70_000))),
        (
            "a repeated namespace",
            format!("<y xmlns='{long}'/>").repeat(20),
        ),
        ("<xml:y/>, from Prosody", format!("<y xmlns='{xml}'/>")),
        (
            "xml:z, from Prosody",
            format!("<y xmlns:ns1='{xml}' ns1:z='1'/>"),
        ),
        (
            "<xml:y/>, from ejabberd",
            format!("<y xmlns='{xml}' xml:z='1'/>"),
        ),
        (
            "no declaration, from ejabberd",
            "<y xmlns='u' q:a='1'/>".to_owned(),
        ),
        ("two of them", "<z xmlns='u' q:a='1' r:a='2'/>".to_owned()),
        ("no declaration of an element", "<q:y/>".to_owned()),
        ("xmlns:xml", "<y xmlns:xml='n'/>".to_owned()),
        ("xmlns:xmlns", "<y xmlns:xmlns='n'/>".to_owned()),
        ("no namespace", "<y xmlns:p=''/>".to_owned()),
        (
            "two prefixes",
            "<y xmlns:p='n' xmlns:q='n' p:a='1' q:a='2'/>".to_owned(),
        ),
        ("colons", "<a:b:c/><:a/><a:/>".to_owned()),
        ("an arrow in a name", "<a\u{2192}/>".to_owned()),
    ]
}

/// Whatever a user sends, the stream stays open, other users get slots, and requests are answered.
#[test]
fn one_user_s_stanzas_do_not_affect_others() {
    let mut site = Plan::new().set("api", "{port: 0}").start();
    let contents = odd_contents();
    let mut skipped = 0;
    for (what, content) in &contents {
        for (name, more) in [
            ("message", "type='chat'"),
            ("presence", ""),
            ("iq", "type='result' id='a'"),
            ("iq", "type='error' id='a'"),
            ("iq", "type='get'"),
        ] {
            site.link().send(&format!(
                "<{name} xml:lang='en' to='{COMPONENT}' from='{ROMEO}/x' {more}>{content}</{name}>"
            ));
            skipped += 1;
        }
        for kind in ["get", "set"] {
            let answer = site.link().iq(kind, &format!("{ROMEO}/x"), content);
            let (error, condition, text) = error_of(&answer);
            let expected = ("modify", "not-acceptable");
            assert_eq!((error.as_str(), condition.as_str()), expected, "{what}");
            assert!(text.ends_with('.') && text.len() > 20, "{what}: {text:?}");
            skipped += 1;
        }
        let asked = Instant::now();
        assert!(site.ask(JULIET, "a.txt", 5, None, "").is_ok(), "{what}");
        assert!(asked.elapsed() < Duration::from_secs(1), "{what}");
    }
    // Invalid attributes of the stanza itself; some get no answer.
    let big = "x".repeat(70_000);
    for attributes in [
        format!("id='{}' type='get' from='{ROMEO}'", "i".repeat(2_000)),
        format!("id='{big}' type='get' from='{ROMEO}'"),
        format!("from='{ROMEO}/{big}' id='1' type='get'"),
        format!("x='{big}' from='{ROMEO}' id='1' type='get'"),
        format!("type='{big}' from='{ROMEO}' id='1'"),
    ] {
        site.link()
            .send(&format!("<iq to='{COMPONENT}' {attributes}/>"));
        skipped += 1;
    }
    site.link().send(&format!(
        "<x:iq type='get' id='a' from='{ROMEO}' to='{COMPONENT}'/>"
    ));
    skipped += 1;
    assert_alive(&mut site);

    let page = site.ask_api("/metrics").is(200).text().to_owned();
    let counts = page.lines().filter_map(|line| {
        let line = line.strip_prefix("upslot_stanzas_skipped_total{")?;
        line.split_once("} ")?.1.parse::<u64>().ok()
    });
    assert_eq!(counts.sum::<u64>(), skipped, "{page}");
    for reason in ["too_large", "too_deep", "names", "long_address"] {
        assert!(page.contains(&format!("stanzas_skipped_total{{reason=\"{reason}\"}}")));
    }
    let line = site
        .program
        .wait_line(&["stanza skipped ", "why=", "from="]);
    assert_eq!(value_of(&line, "from").unwrap(), format!("{ROMEO}/x"));
    assert_eq!(value_of(&line, "kind").unwrap(), "message");
    // Log lines are limited.
    let lines = site.program.lines();
    let logged = lines.iter().filter(|line| line.contains("stanza skipped "));
    let logged = logged.count();
    assert!((60..90).contains(&logged), "{logged} of {skipped}");
    assert!(!lines.iter().any(|line| line.contains("link down ")));
}

#[test]
fn a_skipped_stanza_of_50_mib_takes_no_memory() {
    let mut site = Plan::new().start();
    assert_alive(&mut site);
    let before = site.program.memory("VmHWM:");
    let piece = "<y xmlns='n' a='&lt;'>x &#233; é<![CDATA[<]]></y>".repeat(1_000);
    let pieces = 50 * 1024 * 1024 / piece.len() + 1;
    let mut writer = site.link().writer();
    write!(
        writer,
        "<iq type='get' id='big' from='{ROMEO}/x' to='{COMPONENT}'>"
    )
    .unwrap();
    for number in 0..pieces {
        writer.write_all(piece.as_bytes()).unwrap();
        if number % 100 == 0 {
            let asked = Instant::now();
            site.client().get("/").is(200);
            assert!(asked.elapsed() < Duration::from_secs(1));
        }
    }
    write!(writer, "</iq>").unwrap();
    let answer = site.link().stanza();
    assert_eq!(answer.attribute("id"), Some("big"));
    assert_eq!(error_of(&answer).1, "not-acceptable");
    let grown = site.program.memory("VmHWM:") - before;
    assert!(grown < 2 * 1024, "{grown} KiB more");
    assert!(site.ask(JULIET, "a.txt", 5, None, "").is_ok());
    site.program.assert_idle("after a large stanza");
}

#[test]
fn a_stanza_just_below_64_kib() {
    let mut site = Plan::new().start();
    site.link().send(&format!(
        "<message from='{ROMEO}' to='{COMPONENT}'><body>{}</body></message>",
        "x".repeat(65_000)
    ));
    assert_alive(&mut site);
    let answer = site.link().iq(
        "get",
        ROMEO,
        &format!("<x xmlns='urn:example:x'>{}</x>", "y".repeat(60_000)),
    );
    assert_eq!(error_of(&answer).1, "service-unavailable");
}

/// Well-formed but unusual stanzas: the link stays up, and each gets a slot, an error or no answer.
#[test]
fn odd_stanzas() {
    let mut site = Plan::new().start();
    let from = format!("from='{ROMEO}' to='{COMPONENT}'");
    let request = format!("<request xmlns='{UPLOAD_0}' filename='a' size='5'/>");
    let deep = format!("{}{}", "<x>".repeat(20), "</x>".repeat(20));
    for stanza in [
        format!("<iq xmlns='jabber:client' type='get' id='a' {from}>{request}</iq>"),
        format!("<iq xmlns='urn:example:x' type='get' id='a' {from}>{request}</iq>"),
        format!("<x:iq xmlns:x='urn:example:x' type='get' id='a' {from}>{request}</x:iq>"),
        format!("<IQ type='get' id='a' {from}>{request}</IQ>"),
        format!("<iq type='get' {from}>{request}</iq>"),
        format!("<iq type='nonsense' id='a' {from}>{request}</iq>"),
        format!("<iq id='a' {from}>{request}</iq>"),
        format!("<iq type='get' id='a' to='{COMPONENT}'>{request}</iq>"),
        format!("<iq type='get' id='a' from='' to=''>{request}</iq>"),
        format!("<iq type='get' id='a' from='@@//' to='{COMPONENT}'>{request}</iq>"),
        format!(
            "<iq type='get' id='{}' {from}>{request}</iq>",
            "x".repeat(50_000)
        ),
        format!("<iq type='get' id='a' {from}>{request}{request}</iq>"),
        format!("<iq type='get' id='a' {from}>{deep}</iq>"),
        format!("<iq type='get' id='a' {from}>text{request}text</iq>"),
        format!("<message {from}>{request}</message>"),
        format!("<presence {from}>{request}</presence>"),
        "<stream:features xmlns:stream='http://etherx.jabber.org/streams'/>".to_owned(),
        "<handshake/>".repeat(100),
    ] {
        let shown: String = stanza.chars().take(120).collect();
        site.link().send(&stanza);
        // Any answer comes before that to the next ping.
        let ping = format!("<iq type='get' id='end' {from}><ping xmlns='urn:xmpp:ping'/></iq>");
        site.link().send(&ping);
        loop {
            let Some(answer) = site.link().next_stanza() else {
                panic!("the link ended after {shown}");
            };
            if answer.attribute("id") == Some("end") {
                break;
            }
            // An answer to what looks like a request: a slot, or an error.
            assert_eq!(answer.name, "iq", "{shown}");
            assert!(
                matches!(answer.attribute("type"), Some("result" | "error")),
                "{shown}: {answer:?}"
            );
        }
    }
    site.program.assert_idle("after curious stanzas");
}
