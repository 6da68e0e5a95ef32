//! The component: discovery, slot requests, refusals, and stanzas without an answer.

use std::collections::HashSet;
use std::thread;

use crate::harness::program::value_of;
use crate::harness::server::{COMPONENT, STANZAS, UPLOAD, UPLOAD_0, UPLOAD_LEGACY, error_of};
use crate::harness::site::{ROMEO, assert_alive};
use crate::harness::xml::{Element, escape};
use crate::harness::{Plan, Site, Slot};

const INFO: &str = "http://jabber.org/protocol/disco#info";
const ITEMS: &str = "http://jabber.org/protocol/disco#items";
const JULIET: &str = "juliet@capulet.tld/balcony";

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
fn unknown_requests() {
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
            // An empty request may get either error.
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
    // These get no answer; the next stanza is the answer to a ping.
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

/// Requests with attributes or elements in each namespace; the answer has the same form.
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
    // Unusual but valid forms of a request.
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

/// Asserts type and condition of the error, which has a text and contains the request.
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
        "the error does not contain the request: {answer:?}"
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
    // By address.
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
    // By size and type.
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
fn fragmented_and_batched_stanzas() {
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
