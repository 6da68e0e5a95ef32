//! The component: its link, what it answers, and what it leaves unanswered.

use std::collections::HashSet;
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::program::value_of;
use crate::harness::server::{
    COMPONENT, SECRET, STANZAS, UPLOAD, UPLOAD_0, UPLOAD_LEGACY, error_of,
};
use crate::harness::site::ROMEO;
use crate::harness::xml::{Element, escape};
use crate::harness::{Plan, Server, Site, Slot, pseudo_random};

const INFO: &str = "http://jabber.org/protocol/disco#info";
const ITEMS: &str = "http://jabber.org/protocol/disco#items";
const JULIET: &str = "juliet@capulet.tld/balcony";
const STREAMS: &str = "urn:ietf:params:xml:ns:xmpp-streams";

/// The link works: a ping is answered.
#[track_caller]
fn assert_alive(site: &mut Site) {
    let answer = site
        .link()
        .iq("get", ROMEO, "<ping xmlns='urn:xmpp:ping'/>");
    assert_eq!(answer.attribute("type"), Some("result"));
}

#[test]
fn discovery() {
    let mut site = Plan::new().set("max_file_size", 12345).start();
    let info = site
        .link()
        .iq("get", JULIET, &format!("<query xmlns='{INFO}'/>"));
    assert_eq!(info.attribute("type"), Some("result"));
    let query = info.expect("query", INFO);
    let identity = query.expect("identity", INFO);
    assert_eq!(identity.attribute("category"), Some("store"));
    assert_eq!(identity.attribute("type"), Some("file"));
    assert_eq!(identity.attribute("name"), Some("HTTP File Upload"));
    let features: HashSet<&str> = query
        .children
        .iter()
        .filter(|child| child.name == "feature")
        .map(|child| child.attribute("var").unwrap())
        .collect();
    for feature in [
        UPLOAD_0,
        UPLOAD,
        UPLOAD_LEGACY,
        "urn:xmpp:http:upload:purpose:0#message",
        "urn:xmpp:ping",
        "jabber:iq:version",
        INFO,
    ] {
        assert!(features.contains(feature), "no {feature} in {features:?}");
    }
    assert!(
        !features.contains("urn:xmpp:http:upload:purpose:0#permanent"),
        "not in the configuration"
    );
    let mut forms = HashSet::new();
    for form in query.children.iter().filter(|child| child.name == "x") {
        assert_eq!(form.space, "jabber:x:data");
        assert_eq!(form.attribute("type"), Some("result"));
        let field = |var: &str| {
            let field = form
                .children
                .iter()
                .find(|field| field.attribute("var") == Some(var));
            field.unwrap_or_else(|| panic!("no {var} in {form:?}"))
        };
        assert_eq!(field("FORM_TYPE").attribute("type"), Some("hidden"));
        assert_eq!(field("max-file-size").child("value").unwrap().text, "12345");
        forms.insert(field("FORM_TYPE").child("value").unwrap().text.clone());
    }
    assert_eq!(
        forms,
        HashSet::from([UPLOAD_0.to_owned(), UPLOAD.to_owned()])
    );

    let items = site
        .link()
        .iq("get", JULIET, &format!("<query xmlns='{ITEMS}'/>"));
    assert!(items.expect("query", ITEMS).children.is_empty());
    for space in [INFO, ITEMS] {
        let unknown = site
            .link()
            .iq("get", JULIET, &format!("<query xmlns='{space}' node='x'/>"));
        assert_eq!(error_of(&unknown).1, "item-not-found");
    }
}

#[test]
fn ping_and_version() {
    let mut site = Plan::new().start();
    assert_alive(&mut site);
    let answer = site
        .link()
        .iq("get", JULIET, "<query xmlns='jabber:iq:version'/>");
    let query = answer.expect("query", "jabber:iq:version");
    assert_eq!(query.child("name").unwrap().text, "upslot");
    assert_eq!(
        query.child("version").unwrap().text,
        env!("CARGO_PKG_VERSION")
    );
}

#[test]
fn what_it_does_not_know() {
    let mut site = Plan::new().start();
    for kind in ["get", "set"] {
        for payload in [
            "<x xmlns='urn:example:nothing'/>",
            "<query xmlns='jabber:iq:roster'/>",
            "<vCard xmlns='vcard-temp'/>",
            "",
        ] {
            let answer = site.link().iq(kind, JULIET, payload);
            let (error, condition, _) = error_of(&answer);
            // An empty request is no request at all; either name for it will do.
            let expected: &[&str] = if payload.is_empty() {
                &["service-unavailable", "bad-request"]
            } else {
                &["service-unavailable"]
            };
            assert!(
                expected.contains(&condition.as_str()),
                "{payload}: {condition}"
            );
            assert!(
                payload.is_empty() || error == "cancel",
                "{payload}: {error}"
            );
        }
    }
    // Never an answer to these; the next thing that is said is the answer to a ping.
    site.link().send(&format!(
        "<iq type='result' id='a' from='{JULIET}' to='{COMPONENT}'/>\
         <iq type='result' id='b' from='{JULIET}' to='{COMPONENT}'><query xmlns='{INFO}'/></iq>\
         <iq type='error' id='c' from='{JULIET}' to='{COMPONENT}'><error type='cancel'><gone xmlns='{STANZAS}'/></error></iq>\
         <presence from='{JULIET}' to='{COMPONENT}'/>\
         <presence type='subscribe' from='{JULIET}' to='{COMPONENT}'/>\
         <presence type='error' from='{JULIET}' to='{COMPONENT}'/>\
         <message from='{JULIET}' to='{COMPONENT}'><body>{}</body></message>\
         <message type='error' from='{JULIET}' to='{COMPONENT}'/>\n \t\n",
        escape("<iq type='get' id='d'> & \"'")
    ));
    assert_alive(&mut site);
}

/// Elements or attributes under any of the namespaces; the answer follows.
#[test]
fn slots_in_three_namespaces() {
    let mut site = Plan::new().start();
    for space in [UPLOAD_0, UPLOAD, UPLOAD_LEGACY] {
        for attributes in [true, false] {
            let request = if attributes {
                format!(
                    "<request xmlns='{space}' filename='très cool.jpg' size='23456' content-type='image/jpeg'/>"
                )
            } else {
                format!(
                    "<request xmlns='{space}'>\n <filename>très cool.jpg</filename>\n <size>23456</size>\n \
                     <content-type>image/jpeg</content-type>\n</request>"
                )
            };
            let answer = site.link().iq("get", JULIET, &request);
            assert_eq!(answer.attribute("type"), Some("result"), "{answer:?}");
            let slot = answer.expect("slot", space);
            assert_eq!(
                slot.child("put").unwrap().attribute("url").is_some(),
                attributes,
                "{answer:?}"
            );
            assert_eq!(
                slot.child("get").unwrap().attribute("url").is_some(),
                attributes,
                "{answer:?}"
            );
            let slot = Slot::of(slot);
            assert!(slot.get.ends_with("/tr%C3%A8s%20cool.jpg"), "{slot:?}");
            site.client()
                .ask(
                    "PUT",
                    &slot.put,
                    &[("Content-Type", "image/jpeg")],
                    &[1; 23456],
                )
                .is(201);
        }
    }
    // Odd but legal spellings of a request.
    for request in [
        format!("<u:request xmlns:u='{UPLOAD_0}' size=\"5\" filename=\"a.txt\"></u:request>"),
        format!("<request xmlns='{UPLOAD_0}' filename='a&amp;b&#x2e;txt' size='5'> \n </request>"),
        format!(
            "<request xmlns='{UPLOAD_0}' filename='a.txt' size='5'><message xmlns='urn:xmpp:http:upload:purpose:0'/></request>"
        ),
        format!("<request xmlns='{UPLOAD_0}' filename='a.txt' size='5' content-type=''/>"),
        format!(
            "<request xmlns='{UPLOAD_0}' filename='a.txt' size='5' other='x'><other xmlns='urn:example:x'/></request>"
        ),
        format!(
            "<request xmlns='{UPLOAD_LEGACY}'><filename><![CDATA[a<b.txt]]></filename><size>5</size></request>"
        ),
    ] {
        let answer = site.link().iq("get", JULIET, &request);
        assert_eq!(
            answer.attribute("type"),
            Some("result"),
            "{request}: {answer:?}"
        );
    }
}

#[test]
fn exactly_the_limit_is_allowed() {
    let mut site = Plan::new().set("max_file_size", 1000).start();
    let slot = site.slot(ROMEO, "a.bin", 1000, None);
    site.put(&slot, &[0; 1000]).is(201);
    for space in [UPLOAD_0, UPLOAD, UPLOAD_LEGACY] {
        let request =
            format!("<request xmlns='{space}'><filename>a</filename><size>1001</size></request>");
        let refused = site.link().iq("get", ROMEO, &request);
        let (kind, condition, text) = error_of(&refused);
        assert_eq!(
            (kind.as_str(), condition.as_str()),
            ("modify", "not-acceptable")
        );
        assert!(text.contains("1000"), "{text}");
        let large = refused
            .child("error")
            .unwrap()
            .expect("file-too-large", space);
        assert_eq!(large.expect("max-file-size", space).text, "1000");
    }
}

/// Asks, and compares type and condition; the answer names the reason and holds the request.
#[track_caller]
fn assert_refused(site: &mut Site, kind: &str, from: &str, request: &str, expected: (&str, &str)) {
    let answer = site.link().iq(kind, from, request);
    let (error, condition, text) = error_of(&answer);
    assert_eq!(
        (error.as_str(), condition.as_str()),
        expected,
        "{request} from {from}"
    );
    assert!(
        text.ends_with('.') && text.len() > 10,
        "{request}: text {text:?}"
    );
    let original: Vec<&Element> = answer
        .children
        .iter()
        .filter(|child| child.name == "request")
        .collect();
    assert_eq!(
        original.len(),
        1,
        "the request belongs into its refusal: {answer:?}"
    );
}

#[test]
fn refusals() {
    let mut site = Plan::new()
        .set("max_file_size", 1000)
        .set("allowed_file_types", "['image/*', application/pdf]")
        .set("whitelist", "[montague.tld, juliet@capulet.tld]")
        .start();
    let bad = ("modify", "bad-request");
    let with = |attributes: &str, inside: &str| {
        format!(
            "<request xmlns='{UPLOAD_0}' content-type='image/png' {attributes}>{inside}</request>"
        )
    };
    let good = with("filename='a.png' size='5'", "");
    let purpose = "urn:xmpp:http:upload:purpose:0";
    for request in [
        with("size='5'", ""),
        with("filename='' size='5'", ""),
        with("filename='a.png'", ""),
        with("filename='a.png' size=''", ""),
        with("filename='a.png' size='0'", ""),
        with("filename='a.png' size='-1'", ""),
        with("filename='a.png' size='1.5'", ""),
        with("filename='a.png' size='5 5'", ""),
        with("filename='a.png' size='0x5'", ""),
        with("filename='a.png' size='five'", ""),
        with(
            "filename='a.png' size='5'",
            &format!("<nonsense xmlns='{purpose}'/>"),
        ),
        with(
            "filename='a.png' size='5'",
            &format!("<ephemeral xmlns='{purpose}'/>"),
        ),
        with(
            "filename='a.png' size='5'",
            &format!("<ephemeral xmlns='{purpose}' expire-before='2001-01-01T00:00:00Z'/>"),
        ),
    ] {
        assert_refused(&mut site, "get", ROMEO, &request, bad);
    }
    for space in [UPLOAD, UPLOAD_LEGACY] {
        for inside in [
            "",
            "<filename/><size>5</size>",
            "<filename>a</filename><size>x</size>",
        ] {
            assert_refused(
                &mut site,
                "get",
                ROMEO,
                &format!("<request xmlns='{space}'>{inside}</request>"),
                bad,
            );
        }
    }
    assert_refused(&mut site, "set", ROMEO, &good, bad);
    // Who may.
    for allowed in [
        ROMEO,
        "romeo@montague.tld/x",
        "juliet@capulet.tld/balcony",
        "JULIET@Capulet.TLD",
        "montague.tld",
    ] {
        let answer = site.link().iq("get", allowed, &good);
        assert_eq!(
            answer.attribute("type"),
            Some("result"),
            "{allowed}: {answer:?}"
        );
    }
    let denied = [
        "nurse@capulet.tld",
        "capulet.tld",
        "x@sub.montague.tld",
        "x@notmontague.tld",
        "juliet@montague.tld.example",
        "montague.tld@example.com",
    ];
    for denied in denied {
        assert_refused(&mut site, "get", denied, &good, ("auth", "forbidden"));
        let line = site
            .program
            .wait_line(&["slot refused ", &format!("owner={denied}"), "why="]);
        assert!(
            value_of(&line, "why").is_some_and(|why| why.len() > 5),
            "{line}"
        );
    }
    for space in [UPLOAD, UPLOAD_LEGACY] {
        let request = format!(
            "<request xmlns='{space}'><filename>a.png</filename><size>5</size>\
             <content-type>image/png</content-type></request>"
        );
        assert_refused(
            &mut site,
            "get",
            "nurse@capulet.tld",
            &request,
            ("cancel", "not-allowed"),
        );
    }
    // How much, and what.
    for size in ["1001", "99999999999999999999999999"] {
        let large = with(&format!("filename='a.png' size='{size}'"), "");
        let expected = ("modify", "not-acceptable");
        assert_refused(&mut site, "get", ROMEO, &large, expected);
    }
    for kind in ["text/html", "image", "application/pdfx"] {
        let request =
            format!("<request xmlns='{UPLOAD_0}' filename='a' size='5' content-type='{kind}'/>");
        assert_refused(
            &mut site,
            "get",
            ROMEO,
            &request,
            ("modify", "not-acceptable"),
        );
    }
    for kind in [
        "image/svg+xml",
        "IMAGE/PNG",
        "application/pdf",
        "application/pdf; version=1",
    ] {
        let request =
            format!("<request xmlns='{UPLOAD_0}' filename='a' size='5' content-type='{kind}'/>");
        let answer = site.link().iq("get", ROMEO, &request);
        assert_eq!(
            answer.attribute("type"),
            Some("result"),
            "{kind}: {answer:?}"
        );
    }
}

#[test]
fn a_whitelist_may_be_one_string_or_absent() {
    let mut site = Plan::new().set("whitelist", "capulet.tld").start();
    assert!(site.ask("juliet@capulet.tld", "a", 5, None, "").is_ok());
    assert!(site.ask(ROMEO, "a", 5, None, "").is_err());
    let mut site = Plan::new().without("whitelist").start();
    site.program.allow("whitelist");
    assert!(site.ask("anybody@example.com", "a", 5, None, "").is_ok());
}

#[test]
fn in_pieces_and_many_at_once() {
    let mut site = Plan::new().start();
    let stanza = |id: usize| {
        format!(
            "<iq type='get' id='é{id}' from='{ROMEO}/x' to='{COMPONENT}'><request xmlns='{UPLOAD_0}' \
             filename='a&gt;b.txt' size='5'/></iq>\n"
        )
    };
    for byte in stanza(0).into_bytes() {
        site.link().send_bytes(&[byte]);
        thread::yield_now();
    }
    assert_eq!(site.link().stanza().attribute("id"), Some("é0"));
    let all: String = (1..50).map(stanza).collect();
    site.link().send(&all);
    for id in 1..50 {
        assert_eq!(
            site.link().stanza().attribute("id"),
            Some(format!("é{id}").as_str())
        );
    }
}

#[test]
fn a_thousand_requests_without_a_pause() {
    let mut site = Plan::new().start();
    assert_alive(&mut site);
    let before = site.program.memory("VmHWM");
    let mut writer = site.link().writer();
    let sender = thread::spawn(move || {
        for id in 0..1000 {
            let stanza = format!(
                "<iq type='get' id='{id}' from='{ROMEO}/x' to='{COMPONENT}'><request xmlns='{UPLOAD_0}' \
                 filename='{}.txt' size='5'/></iq>",
                "x".repeat(500)
            );
            writer.write_all(stanza.as_bytes()).unwrap();
        }
    });
    let mut puts = HashSet::new();
    for id in 0..1000 {
        let answer = site.link().stanza();
        assert_eq!(answer.attribute("id"), Some(id.to_string().as_str()));
        puts.insert(Slot::of(answer.expect("slot", UPLOAD_0)).put);
    }
    sender.join().unwrap();
    assert_eq!(puts.len(), 1000);
    let grown = site.program.memory("VmHWM") - before;
    assert!(grown < 16 * 1024, "{grown} KiB more");
    // A server that does not read gets no more than its share of memory, either.
    let mut writer = site.link().writer();
    let sender = thread::spawn(move || {
        let ping = format!(
            "<iq type='get' id='x' from='{ROMEO}' to='{COMPONENT}'><ping xmlns='urn:xmpp:ping'/></iq>"
        );
        for _ in 0..1000 {
            writer.write_all(ping.repeat(50).as_bytes()).unwrap();
        }
    });
    thread::sleep(Duration::from_millis(500));
    for _ in 0..50_000 {
        assert_eq!(site.link().stanza().attribute("id"), Some("x"));
    }
    sender.join().unwrap();
    let grown = site.program.memory("VmHWM") - before;
    assert!(grown < 24 * 1024, "{grown} KiB more");
}

#[test]
fn what_xmpp_forbids_ends_the_stream() {
    // What is skipped is looked at, too.
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
        ("an end tag without a matching start tag in the depth", deep.as_bytes()),
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
    // Each loss is followed by a pause before the next try, so that they are tried side by side.
    let next = std::sync::Mutex::new(cases.into_iter());
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                loop {
                    let Some((what, bytes)) = next.lock().unwrap().next() else {
                        return;
                    };
                    let mut site = Plan::new().start();
                    site.link().send_to_deaf(bytes);
                    // The component hangs up; HTTP does not mind.
                    site.link().gone();
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

/// Content of a stanza that is well-formed, or all but well-formed in its names, and more than is read. Each was seen to
/// come out of Prosody or ejabberd, or could.
fn strange_contents() -> Vec<(&'static str, String)> {
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
            "a namespace again and again",
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

/// Whatever a user sends, the stream stays and everybody else's slots come; a request is answered.
#[test]
fn what_a_user_sends_costs_nobody_anything() {
    let mut site = Plan::new().set("api", "{port: 0}").start();
    let contents = strange_contents();
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
    // What is wrong in the stanza's own tag; for some of it there is no answer.
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
    // Enough lines to see it, and no more.
    let lines = site.program.lines();
    let told = lines.iter().filter(|line| line.contains("stanza skipped "));
    let told = told.count();
    assert!((60..90).contains(&told), "{told} of {skipped}");
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
    site.program.rests("after a large stanza");
}

/// A server that takes no answers is asked to wait, and costs no memory; when it reads again, nothing is lost.
#[test]
fn a_server_that_does_not_read() {
    let mut site = Plan::new().start();
    assert_alive(&mut site);
    let before = site.program.memory("VmHWM:");
    let mut writer = site.link().writer();
    // More than the kernel keeps, either way.
    let blank = " ".repeat(1_000);
    let question = move |id: usize| {
        format!(
            "<iq type='get' id='{id}' from='{ROMEO}' to='{COMPONENT}'><query xmlns='{INFO}'/>{blank}</iq>"
        )
    };
    let count = 20_000;
    let sender = thread::spawn(move || {
        for id in 0..count {
            writer.write_all(question(id).as_bytes()).unwrap();
        }
    });
    // The component stops reading, so that this cannot come to its end.
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(50));
        let asked = Instant::now();
        site.client().get("/").is(200);
        assert!(asked.elapsed() < Duration::from_secs(1));
    }
    assert!(!sender.is_finished(), "all was taken in");
    let grown = site.program.memory("VmHWM:") - before;
    assert!(grown < 4 * 1024, "{grown} KiB more");
    site.program.rests("while the server does not read");
    for id in 0..count {
        let answer = site.link().stanza();
        assert_eq!(answer.attribute("id"), Some(id.to_string().as_str()));
    }
    sender.join().unwrap();
    assert!(site.ask(JULIET, "a.txt", 5, None, "").is_ok());
    let grown = site.program.memory("VmHWM:") - before;
    assert!(grown < 4 * 1024, "{grown} KiB more");
}

/// Requests and garbage of one user without a pause: HTTP goes on, and so do the slots of another.
#[test]
fn a_flood_of_one_user() {
    let mut site = Plan::new().start();
    assert_alive(&mut site);
    let from = format!("from='{ROMEO}/x' to='{COMPONENT}'");
    let flood = [
        format!("<iq type='get' id='f' {from}><query xmlns='{INFO}'/></iq>"),
        format!("<iq type='get' id='f' {from}><ping xmlns='urn:xmpp:ping'/></iq>"),
        format!(
            "<iq type='get' id='f' {from}><request xmlns='{UPLOAD_0}' filename='a' size='5'/></iq>"
        ),
        format!(
            "<iq type='set' id='f' {from}><x>{}</x></iq>",
            "<y>".repeat(99) + &"</y>".repeat(99)
        ),
        format!("<presence {from}/>"),
        format!("<message {from}><y q:a='1'/></message>"),
    ];
    let mut writer = site.link().writer();
    let (rounds, each) = (200, 20);
    let request = format!("<request xmlns='{UPLOAD_0}' filename='a.txt' size='5'/>");
    let sender = thread::spawn(move || {
        for round in 0..rounds {
            let mut batch = flood.concat().repeat(each);
            batch.push_str(&format!(
                "<iq type='get' id='j{round}' from='{JULIET}' to='{COMPONENT}'>{request}</iq>"
            ));
            writer.write_all(batch.as_bytes()).unwrap();
        }
    });
    let http = site.http;
    let browser = thread::spawn(move || {
        let mut slowest = Duration::ZERO;
        for _ in 0..50 {
            let asked = Instant::now();
            crate::harness::Client::connect(http).get("/").is(200);
            slowest = slowest.max(asked.elapsed());
        }
        slowest
    });
    let (mut flooded, mut granted) = (0, 0);
    while granted < rounds {
        let answer = site.link().stanza();
        if answer.attribute("to") == Some(JULIET) {
            assert_eq!(answer.attribute("id"), Some(format!("j{granted}").as_str()));
            Slot::of(answer.expect("slot", UPLOAD_0));
            granted += 1;
        } else {
            flooded += 1;
        }
    }
    sender.join().unwrap();
    assert_eq!(flooded, 4 * rounds * each);
    let slowest = browser.join().unwrap();
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    let lines = site.program.lines();
    let told = lines.iter().filter(|line| line.contains("slot granted"));
    let told = told.count();
    assert!((60..300).contains(&told), "{told} of {flooded}");
    site.program.rests("after a flood");
}

/// A line for each refusal, but not for each of a flood; who floods does not hide the others.
#[test]
fn a_flood_of_refusals_is_few_lines() {
    let mut site = Plan::new().start();
    for _ in 0..500 {
        assert!(
            site.ask("mallory@evil.example/x", "a", 5, None, "")
                .is_err()
        );
    }
    assert!(site.ask("nurse@evil.example", "a", 5, None, "").is_err());
    let line = site
        .program
        .wait_line(&["slot refused ", "owner=nurse@evil.example"]);
    let suppressed: u64 = value_of(&line, "suppressed").unwrap().parse().unwrap();
    let lines = site.program.lines();
    let told = lines.iter().filter(|line| line.contains("owner=mallory@"));
    let told = told.count();
    assert!((60..100).contains(&told), "{told}");
    assert!(suppressed + 100 > 500 && suppressed <= 440, "{suppressed}");
}

/// A link that worked is made again at once, whatever ended it and however soon it did.
#[test]
fn a_link_that_was_up_comes_back_quickly() {
    let mut site = Plan::new().start();
    site.program.allow("link down");
    let server = site.server.take().unwrap();
    for loss in 0..4 {
        if loss == 1 {
            // Up for a while, but not for long.
            thread::sleep(Duration::from_secs(2));
        }
        assert_alive(&mut site);
        match loss {
            0 | 1 => {}
            2 => site.link().send_to_deaf(b"<!-- -->"),
            _ => site.link().send_to_deaf(b"</stream:stream>"),
        }
        site.link().hang_up();
        let lost = Instant::now();
        let mut link = server.accept_within(Duration::from_secs(20)).unwrap();
        let away = lost.elapsed();
        assert!(away < Duration::from_millis(3_500), "{loss}: {away:?}");
        link.open();
        link.prove(SECRET);
        link.send("<handshake/>");
        site.link = Some(link);
    }
    assert_alive(&mut site);
    site.server = Some(server);
}

#[test]
fn just_below_64_kib_is_a_stanza() {
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

/// The reasons of a server's refusal are told apart, and the component comes back all the same.
#[test]
fn refused_links() {
    let reasons = std::sync::Mutex::new(HashSet::new());
    thread::scope(|scope| {
        for condition in [
            "not-authorized",
            "conflict",
            "host-unknown",
            "system-shutdown",
        ] {
            let reasons = &reasons;
            scope.spawn(move || {
                let mut site = Plan::new().unwelcome().start();
                site.program.allow("link down");
                for _ in 0..2 {
                    let mut link = site.server.as_ref().unwrap().accept();
                    link.open();
                    link.prove(SECRET);
                    link.send(&format!(
                        "<stream:error><{condition} xmlns='{STREAMS}'/>\
                         <text xmlns='{STREAMS}'>As the server says it</text></stream:error></stream:stream>"
                    ));
                    link.gone();
                    assert_eq!(site.client().get("/").status, 200);
                }
                let line = site.program.wait_line(&["link down ", "why="]);
                reasons.lock().unwrap().insert(value_of(&line, "why").unwrap());
                site.link = Some(site.server.as_ref().unwrap().welcome());
                site.program.wait_line(&["link up ", "jid=upload.localhost", "server=127.0.0.1:"]);
                assert_alive(&mut site);
                // The same trouble again is not told again.
                let lines = site.program.lines();
                let told = lines.iter().filter(|line| line.contains("link down ")).count();
                assert_eq!(told, 1, "{}", lines.join("\n"));
            });
        }
    });
    assert_eq!(reasons.lock().unwrap().len(), 4, "{reasons:?}");
}

/// A stream error, or an element nobody knows, where the handshake's answer belongs; a header with no id.
#[test]
fn strange_servers() {
    let header = |rest: &str| {
        format!(
            "<?xml version='1.0'?><stream:stream xmlns:stream='http://etherx.jabber.org/streams' \
             xmlns='jabber:component:accept' {rest}>"
        )
    };
    let answers = [
        header("from='upload.localhost'"),
        "HTTP/1.1 400 Bad Request\r\n\r\n".to_owned(),
        header("id='1'") + "<handshake/>" + "<failure/>",
        "<iq/>".to_owned(),
        String::new(),
        "\u{16}\u{3}\u{3}\0\u{2}\0\0".to_owned(),
        "<!DOCTYPE a [<!ENTITY b 'c'>]>".to_owned() + &header("id='1'"),
        "<!-- a -->".to_owned() + &header("id='1'"),
        "<stream:stream xmlns:stream='urn:example:x' xmlns='jabber:component:accept' id='1'>"
            .to_owned(),
        "<stream xmlns='http://etherx.jabber.org/streams' id='1'>".to_owned(),
        header(&format!("id='{}'", "x".repeat(70_000))),
        header("id='1'") + &"<a>".repeat(5000),
        header("id='1'") + "<handshake/>".repeat(3).as_str() + "<!-- a -->",
        header("id='1'") + "hello",
        "-ERR unknown command\r\n".repeat(100),
    ];
    thread::scope(|scope| {
        for answer in answers {
            scope.spawn(move || {
                let mut site = Plan::new().unwelcome().start();
                site.program.allow("link down");
                let mut link = site.server.as_ref().unwrap().accept();
                link.read_header();
                link.send_to_deaf(answer.as_bytes());
                link.hang_up();
                drop(link);
                site.link = Some(site.server.as_ref().unwrap().welcome());
                assert_alive(&mut site);
            });
        }
    });
}

/// Stanzas that are well-formed and make no sense: the link outlives them, and none is answered as if it did.
#[test]
fn curious_stanzas() {
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
        // Whatever is said about it is said before the answer to the next ping.
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
    site.program.rests("after curious stanzas");
}

#[test]
fn a_server_that_is_not_there_yet() {
    // An address of its own, so that nobody else takes the port in the meantime.
    let server = Server::at("127.0.0.77:0".parse().unwrap());
    let address = server.address();
    drop(server);
    let mut site = Plan::new()
        .unwelcome()
        .set("component_host", "127.0.0.77")
        .set("component_port", address.port())
        .start();
    site.program.allow("link");
    site.program.wait_line(&["link down ", "why="]);
    assert_eq!(site.get("/").status, 200);
    site.server = Some(Server::at(address));
    site.link = Some(site.server.as_ref().unwrap().welcome());
    assert_alive(&mut site);
    let slot = site.slot(ROMEO, "a.txt", 5, None);
    site.put(&slot, b"hello").is(201);
}

#[test]
fn a_server_on_either_loopback() {
    let Ok(probe) = std::net::TcpListener::bind("[::1]:0") else {
        return;
    };
    drop(probe);
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let server = Server::at(address.parse().unwrap());
        // Every address of the name is tried; one of them answers.
        let mut site = Plan::new()
            .unwelcome()
            .set("component_host", "localhost")
            .set("component_port", server.address().port())
            .start();
        site.link = Some(server.welcome());
        site.program.allow("link down");
        assert_alive(&mut site);
        site.server = Some(server);
    }
}

#[test]
fn a_restarted_server() {
    let mut site = Plan::new().start();
    let slot = site.slot(ROMEO, "a.txt", 5, None);
    for farewell in [
        format!(
            "<stream:error><system-shutdown xmlns='{STREAMS}'/></stream:error></stream:stream>"
        ),
        String::new(),
    ] {
        site.link().send(&farewell);
        site.link().hang_up();
        site.relink();
        assert_alive(&mut site);
    }
    site.put(&slot, b"hello").is(201);
    let lines = site.program.lines();
    let up = lines
        .iter()
        .filter(|line| line.contains("link up "))
        .count();
    assert!(up >= 2, "{}", lines.join("\n"));
}
