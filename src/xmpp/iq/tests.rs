//! Unit tests.

use super::super::adhoc::{Action, CommandError, CommandNode};
use super::super::tests::written;
use super::super::xml::{Reader, XmlEvent};
use super::*;

/// 2026-01-01T00:00:00Z.
const NOW: u64 = 1_767_225_600;
const OPEN: &str = "<s xmlns='jabber:component:accept'>";

fn parse(xml: &str) -> Vec<Element> {
    let mut reader = Reader::new();
    let stream = format!("{OPEN}{xml}");
    let mut rest = stream.as_bytes();
    let mut stanzas = Vec::new();
    while let Ok(Some(event)) = reader.next_event(&mut rest) {
        if let XmlEvent::Stanza(element) = event {
            stanzas.push(element);
        }
    }
    stanzas
}

fn ask(stanza: Element, contact: &[String]) -> StanzaAction {
    let jid = BareJid::parse("upload.montague.tld").unwrap();
    let identity = Identity {
        jid: &jid,
        purposes: &["message", "profile"],
        contact,
    };
    route(stanza, identity, NOW, |asker| {
        let length = asker.as_str().len();
        u64::try_from(length).unwrap() * 1000
    })
}

/// The written reply; `slot` for a slot request, and empty for silence.
fn answer(xml: &str) -> String {
    answer_with(xml, &[])
}

fn answer_with(xml: &str, contact: &[String]) -> String {
    let mut stanzas = parse(xml);
    assert_eq!(stanzas.len(), 1, "{xml}");
    match ask(stanzas.remove(0), contact) {
        StanzaAction::Ignore => String::new(),
        StanzaAction::Slot(iq) => match iq.request {
            Ok(_) => "slot".to_owned(),
            Err(refusal) => format!("slot: {refusal}"),
        },
        StanzaAction::Command(iq) => format!("command {} {:?}", iq.node, iq.action),
        StanzaAction::Node(iq) => written(&iq.failed(&CommandError::NotFound)),
        StanzaAction::Reply(element) => written(&element),
    }
}

#[track_caller]
fn check(xml: &str, expected: &str) {
    assert_eq!(answer(xml), expected, "{xml}");
}

const ADDRESSES: &str = "id='1' from='romeo@montague.tld/garden' to='upload.montague.tld'";
const BACK: &str = "id='1' from='upload.montague.tld' to='romeo@montague.tld/garden'";

/// Checks the type and the content of the reply to a request.
#[track_caller]
fn check_request(kind: &str, inner: &str, answer_kind: &str, answer: &str) {
    let answer = match answer {
        "" => format!("<iq {BACK} type='{answer_kind}'/>"),
        answer => format!("<iq {BACK} type='{answer_kind}'>{answer}</iq>"),
    };
    check(
        &format!("<iq type='{kind}' {ADDRESSES}>{inner}</iq>"),
        &answer,
    );
}

const UNAVAILABLE: &str = "<error type='cancel'><service-unavailable \
                               xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
const NOT_FOUND: &str = "<error type='cancel'><item-not-found \
                             xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";

fn bad_request(text: &str) -> String {
    format!(
        "<error type='modify'><bad-request xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>\
             <text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas' xml:lang='en'>{text}</text></error>"
    )
}

#[test]
fn answers_discovery() {
    let form = |namespace: &str| {
        format!(
            "<x xmlns='jabber:x:data' type='result'>\
                 <field var='FORM_TYPE' type='hidden'><value>{namespace}</value></field>\
                 <field var='max-file-size'><value>18000</value></field></x>"
        )
    };
    let info = format!(
        "<query xmlns='http://jabber.org/protocol/disco#info'>\
             <identity category='store' type='file' name='HTTP File Upload'/>\
             <feature var='http://jabber.org/protocol/disco#info'/>\
             <feature var='http://jabber.org/protocol/disco#items'/>\
             <feature var='urn:xmpp:http:upload:0'/><feature var='urn:xmpp:http:upload'/>\
             <feature var='eu:siacs:conversations:http:upload'/>\
             <feature var='urn:xmpp:ping'/><feature var='jabber:iq:version'/>\
             <feature var='http://jabber.org/protocol/commands'/><feature var='jabber:x:data'/>\
             <feature var='urn:xmpp:http:upload:purpose:0#message'/>\
             <feature var='urn:xmpp:http:upload:purpose:0#profile'/>{}{}</query>",
        form("urn:xmpp:http:upload:0"),
        form("urn:xmpp:http:upload")
    );
    for query in [
        "<query xmlns='http://jabber.org/protocol/disco#info'/>",
        "\n <query xmlns='http://jabber.org/protocol/disco#info' node=''>\n</query>\n",
        "<d:query xmlns:d='http://jabber.org/protocol/disco#info'/>",
    ] {
        check_request("get", query, "result", &info);
    }
    check_request(
        "get",
        "<query xmlns='http://jabber.org/protocol/disco#items'/>",
        "result",
        "<query xmlns='http://jabber.org/protocol/disco#items'/>",
    );
    for what in ["info", "items"] {
        check_request(
            "get",
            &format!("<query xmlns='http://jabber.org/protocol/disco#{what}' node='n'/>"),
            "error",
            NOT_FOUND,
        );
        check_request(
            "set",
            &format!("<query xmlns='http://jabber.org/protocol/disco#{what}'/>"),
            "error",
            UNAVAILABLE,
        );
    }
}

#[test]
fn announces_contact_addresses() {
    let xml = format!("<iq type='get' {ADDRESSES}><query xmlns='{DISCO_INFO}'/></iq>");
    let contact = ["mailto:a@b.example?subject=x&y", "xmpp:a@b.example"].map(str::to_owned);
    let values = "<value>mailto:a@b.example?subject=x&amp;y</value><value>xmpp:a@b.example</value>";
    let fields = ["abuse", "admin", "support"]
        .map(|role| format!("<field var='{role}-addresses' type='list-multi'>{values}</field>"));
    let form = format!(
        "<x xmlns='jabber:x:data' type='result'><field var='FORM_TYPE' type='hidden'>\
         <value>http://jabber.org/network/serverinfo</value></field>{}</x></query></iq>",
        fields.concat()
    );
    let with = answer_with(&xml, &contact);
    // Some clients read the first form only.
    assert_eq!(with, answer(&xml).replace("</query></iq>", &form));
    assert_ne!(with, answer(&xml));
}

#[test]
fn answers_version_and_ping() {
    check_request(
        "get",
        "<query xmlns='jabber:iq:version'/>",
        "result",
        &format!(
            "<query xmlns='jabber:iq:version'><name>upslot</name><version>{}</version></query>",
            env!("CARGO_PKG_VERSION")
        ),
    );
    check_request("get", "<ping xmlns='urn:xmpp:ping'/>", "result", "");
}

#[test]
fn refuses_every_other_request() {
    for inner in [
        "<query xmlns='jabber:iq:roster'/>",
        "<query/>",
        "<ping xmlns='urn:xmpp:pong'/>",
        "<info xmlns='http://jabber.org/protocol/disco#info'/>",
        "<slot xmlns='urn:xmpp:http:upload:0'/>",
        "<error type='cancel'/>",
    ] {
        check_request("get", inner, "error", UNAVAILABLE);
        check_request("set", inner, "error", UNAVAILABLE);
    }
    check_request("set", "<ping xmlns='urn:xmpp:ping'/>", "error", UNAVAILABLE);
    check_request(
        "set",
        "<query xmlns='jabber:iq:version'/>",
        "error",
        UNAVAILABLE,
    );
}

#[test]
fn reads_requests_for_slots() {
    let slot = "<request xmlns='urn:xmpp:http:upload:0' filename='a' size='1'/>";
    check(&format!("<iq type='get' {ADDRESSES}>{slot}</iq>"), "slot");
    check(
        &format!("<iq type='set' {ADDRESSES}>{slot}</iq>"),
        "slot: A slot request is an iq of type get.",
    );
    check(
        &format!(
            "<iq type='get' {ADDRESSES}><u:request xmlns:u='urn:xmpp:http:upload'>\
                 <u:filename>a</u:filename><u:size>1</u:size></u:request></iq>"
        ),
        "slot",
    );
    check(
        &format!("<iq type='get' {ADDRESSES}><request xmlns='urn:xmpp:http:upload:0'/></iq>"),
        "slot: The file name is missing or empty.",
    );
    // The reply goes to the full address; the owner is the bare address.
    let mut stanzas = parse(&format!("<iq type='get' {ADDRESSES}>{slot}</iq>"));
    let StanzaAction::Slot(iq) = ask(stanzas.remove(0), &[]) else {
        panic!("no slot");
    };
    assert_eq!(iq.owner.as_str(), "romeo@montague.tld");
    let refused = iq.refused(&crate::refusal::Refusal::Busy);
    assert_eq!(refused.attribute("id"), Some("1"));
    assert_eq!(refused.attribute("type"), Some("error"));
    assert_eq!(refused.attribute("to"), Some("romeo@montague.tld/garden"));
    assert_eq!(refused.attribute("from"), Some("upload.montague.tld"));
    assert_eq!(*refused.elements().next().unwrap(), parse(slot)[0]);
}

#[test]
fn refuses_malformed_requests() {
    let one = "A request has exactly one child element.";
    for inner in [
        "",
        "text",
        "<ping xmlns='urn:xmpp:ping'/><ping xmlns='urn:xmpp:ping'/>",
    ] {
        check_request("get", inner, "error", &bad_request(one));
        check_request("set", inner, "error", &bad_request(one));
    }
    let kinds = "An iq is of type get, set, result or error.";
    check_request("", "<a/>", "error", &bad_request(kinds));
    check_request("GET", "<a/>", "error", &bad_request(kinds));
    let ping = "<ping xmlns='urn:xmpp:ping'/>";
    let addresses = ADDRESSES.replace("id='1' ", "");
    let back = BACK.replace("id='1' ", "");
    check(
        &format!("<iq type='get' {addresses}>{ping}</iq>"),
        &format!(
            "<iq {back} type='error'>{}</iq>",
            bad_request("An iq needs an id.")
        ),
    );
    check(
        &format!("<iq {ADDRESSES}>{ping}</iq>"),
        &format!("<iq {BACK} type='error'>{}</iq>", bad_request(kinds)),
    );
}

#[test]
fn ignores_stanzas_that_are_not_requests() {
    let ping = "<ping xmlns='urn:xmpp:ping'/>";
    for kind in ["result", "error"] {
        for inner in [
            ping,
            "",
            "<request xmlns='urn:xmpp:http:upload:0'/>",
            "<a/><b/>",
        ] {
            check(&format!("<iq type='{kind}' {ADDRESSES}>{inner}</iq>"), "");
        }
    }
    for name in ["presence", "message", "iQ", "handshake"] {
        for kind in ["get", "set", "subscribe", "chat", "error"] {
            check(
                &format!("<{name} type='{kind}' {ADDRESSES}>{ping}</{name}>"),
                "",
            );
        }
    }
    check(
        &format!("<iq xmlns='jabber:server' type='get' {ADDRESSES}>{ping}</iq>"),
        "",
    );
    for from in [
        "",
        "from=''",
        "from='@'",
        "from='upload.montague.tld'",
        "from='upload.montague.tld/x'",
        "from='x@upload.montague.tld'",
        "from='UPLOAD.montague.tld'",
    ] {
        check(
            &format!("<iq type='get' id='1' to='upload.montague.tld' {from}>{ping}</iq>"),
            "",
        );
    }
    for to in [
        "montague.tld",
        "x@montague.tld",
        "other.upload.montague.tld",
        "@",
        "",
    ] {
        check(
            &format!("<iq type='get' id='1' from='romeo@montague.tld' to='{to}'>{ping}</iq>"),
            "",
        );
    }
}

#[test]
fn replies_come_from_the_address_that_was_asked() {
    let ping = "<ping xmlns='urn:xmpp:ping'/>";
    let check = |from: &str, to: Option<&str>, answer_from: &str, kind: &str, inner: &str| {
        let to = to.map(|to| format!(" to='{to}'")).unwrap_or_default();
        let answer = match inner {
            "" => format!("<iq id='1' from='{answer_from}' to='{from}' type='{kind}'/>"),
            _ => format!("<iq id='1' from='{answer_from}' to='{from}' type='{kind}'>{inner}</iq>"),
        };
        check(
            &format!("<iq type='get' id='1' from='{from}'{to}>{ping}</iq>"),
            &answer,
        );
    };
    let us = "upload.montague.tld";
    for from in [
        "romeo@montague.tld/garden",
        "romeo@montague.tld",
        "montague.tld",
        "irc.montague.tld/x@y",
        "montague.tld/&apos;&lt;&quot;",
        "jürgen@münchen.example/bü",
    ] {
        check(from, Some(us), us, "result", "");
        check(from, None, us, "result", "");
    }
    let there = "upload.montague.tld/r";
    check("montague.tld", Some(there), there, "result", "");
    // Our domain has no users.
    for absent in ["x@upload.montague.tld", "x@upload.montague.tld/y"] {
        check("montague.tld", Some(absent), absent, "error", UNAVAILABLE);
    }
}

#[test]
fn repeats_any_id_unchanged() {
    let long = "x".repeat(1024);
    for id in [
        "&apos;&quot;&lt;&gt;&amp;",
        "&#13;&#10;&#9; x",
        "😀",
        long.as_str(),
    ] {
        check(
            &format!(
                "<iq type='get' id='{id}' from='a@b' to='upload.montague.tld'>\
                     <ping xmlns='urn:xmpp:ping'/></iq>"
            ),
            &format!("<iq id='{id}' from='upload.montague.tld' to='a@b' type='result'/>"),
        );
    }
}

#[test]
fn accepts_stanzas_in_the_client_namespace() {
    check(
        &format!(
            "<iq xmlns='jabber:client' type='get' {ADDRESSES}><ping xmlns='urn:xmpp:ping'/></iq>"
        ),
        &format!("<iq {BACK} type='result'/>"),
    );
}

#[test]
fn commands_are_iqs_of_type_set() {
    let command = "<command xmlns='http://jabber.org/protocol/commands' node='n' action='next'/>";
    check(
        &format!("<iq type='set' {ADDRESSES}>{command}</iq>"),
        "command n Ok(Next)",
    );
    // There are no users at our domain.
    let elsewhere = ADDRESSES.replace("to='upload", "to='user@upload");
    for (kind, addresses) in [("get", ADDRESSES), ("set", &elsewhere)] {
        let refused = answer(&format!("<iq type='{kind}' {addresses}>{command}</iq>"));
        assert!(refused.contains("<service-unavailable "), "{refused}");
    }
}

#[test]
fn never_panics_and_never_replies_to_itself() {
    let corpus = [
        format!("<iq type='get' {ADDRESSES}><query xmlns='{DISCO_INFO}' node='x'/></iq>"),
        format!("<iq type='get' {ADDRESSES}><query xmlns='{VERSION}'/></iq>"),
        format!(
            "<iq type='get' {ADDRESSES}><request xmlns='{UPLOAD_0}' filename='a' size='12' content-type='t/s'>\
                 <ephemeral xmlns='{PURPOSE}' expire-before='2026-12-31T23:59:59.5+01:00'/></request></iq>"
        ),
        format!(
            "<iq type='set' {ADDRESSES}><request xmlns='{UPLOAD}'><filename>a</filename><size>1</size>\
                 </request></iq>"
        ),
        format!(
            "<iq type='set' {ADDRESSES}><command xmlns='{COMMANDS}' node='x' sessionid='s' action='next' xml:lang='en'>\
                 <x xmlns='{DATA_FORM}' type='submit'><field var='a'><value>v</value></field></x></command></iq>"
        ),
    ];
    let jid = BareJid::parse("upload.montague.tld").unwrap();
    let mut random = 7_u32;
    let mut next = |below: usize| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 8) as usize % below
    };
    let mut answers = 0;
    for _ in 0..30_000 {
        let mut bytes = corpus[next(corpus.len())].clone().into_bytes();
        for _ in 0..=next(4) {
            let at = next(bytes.len());
            match next(3) {
                0 => drop(bytes.remove(at)),
                1 => bytes[at] = b"-1:Zgx ./@'9"[next(12)],
                _ => {
                    let from = next(bytes.len());
                    let to = (from + next(20)).min(bytes.len());
                    let piece = bytes[from..to].to_vec();
                    bytes.splice(at..at, piece);
                }
            }
        }
        let Ok(xml) = String::from_utf8(bytes) else {
            continue;
        };
        for stanza in parse(&xml) {
            let reply = match ask(stanza, &[]) {
                StanzaAction::Ignore => continue,
                StanzaAction::Reply(reply) => reply,
                StanzaAction::Node(iq) => iq.list(
                    &jid,
                    &[CommandNode {
                        node: "n",
                        name: "N",
                    }],
                ),
                StanzaAction::Command(mut iq) => match (iq.action.clone(), iq.take_form()) {
                    (Err(error), _) => iq.failed(&error),
                    (Ok(Action::Cancel), _) => iq.canceled("s"),
                    (Ok(_), Some(form)) => {
                        let value = form.value("a").unwrap_or_else(|| "none".to_owned());
                        let form = Form::to_fill_in("t").text("a", &value, &value);
                        iq.executing("s", &[Action::Next], &[], form)
                    }
                    (Ok(_), None) => iq.completed("s", &[], None),
                },
                StanzaAction::Slot(iq) => match iq.request.clone() {
                    Ok(request) => {
                        assert!(request.size > 0 && !request.name.is_empty());
                        iq.granted(crate::slot::Slot {
                            put: xml.clone(),
                            get: xml.clone(),
                        })
                    }
                    Err(refusal) => iq.refused(&refusal),
                },
            };
            answers += 1;
            assert!(matches!(reply.attribute("type"), Some("result" | "error")));
            assert!(matches!(ask(reply.clone(), &[]), StanzaAction::Ignore));
            let mut out = Vec::new();
            reply.write(COMPONENT, &mut out);
            assert_eq!(parse(std::str::from_utf8(&out).unwrap()), [reply]);
        }
    }
    assert!(answers > 3_000, "{answers}");
}

/// The written reply to a skipped stanza; empty for silence.
fn rejected(xml: &str) -> String {
    let mut reader = Reader::new();
    reader.next_event(&mut OPEN.as_bytes()).unwrap();
    let Ok(Some(XmlEvent::Skipped(skipped))) = reader.next_event(&mut xml.as_bytes()) else {
        panic!("not skipped: {xml}");
    };
    let jid = BareJid::parse("upload.montague.tld").unwrap();
    let identity = Identity {
        jid: &jid,
        purposes: &[],
        contact: &[],
    };
    let mut out = Vec::new();
    if let Some(answer) = reject(skipped, identity) {
        answer.write(COMPONENT, &mut out);
    }
    String::from_utf8(out).unwrap()
}

#[test]
fn rejects_skipped_requests() {
    let addressed = "id='i&apos;' from='a@b/&lt;' to='upload.montague.tld'";
    let answer = |why: &str| {
        format!(
            "<iq id='i&apos;' from='upload.montague.tld' to='a@b/&lt;' type='error'>\
             <error type='modify'><not-acceptable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>\
             <text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas' xml:lang='en'>\
             The request was not parsed: it has {why}.</text></error></iq>"
        )
    };
    for (kind, inside, why) in [
        ("get", "<p:x/>".to_owned(), "an undeclared prefix"),
        ("set", "x".repeat(70_000), "more than 64 KiB"),
        (
            "get",
            "<x>".repeat(40) + &"</x>".repeat(40),
            "more than 32 levels",
        ),
    ] {
        let iq = format!("<iq type='{kind}' {addressed}>{inside}</iq>");
        assert_eq!(rejected(&iq), answer(why));
    }
    let client = format!("<iq xmlns='jabber:client' type='get' {addressed} p:x=''/>");
    assert_eq!(rejected(&client), answer("an undeclared prefix"));
    for silent in [
        format!("<iq type='result' {addressed}><p:x/></iq>"),
        format!("<iq type='error' {addressed}><p:x/></iq>"),
        format!("<iq type='x' {addressed}><p:x/></iq>"),
        format!("<iq {addressed}><p:x/></iq>"),
        format!("<message type='get' {addressed}><p:x/></message>"),
        format!("<presence {addressed}><p:x/></presence>"),
        format!("<iq xmlns='x' type='get' {addressed}><p:x/></iq>"),
        "<iq type='get' id='1' to='upload.montague.tld'><p:x/></iq>".to_owned(),
        "<iq type='get' from='a@b' to='upload.montague.tld'><p:x/></iq>".to_owned(),
        "<iq type='get' id='' from='a@b' to='upload.montague.tld'><p:x/></iq>".to_owned(),
        "<iq type='get' id='1' from='upload.montague.tld' to='a@upload.montague.tld'><p:x/></iq>"
            .to_owned(),
        "<iq type='get' id='1' from='a@b' to='other.tld'><p:x/></iq>".to_owned(),
        format!(
            "<iq type='get' id='{}' from='a@b' to='upload.montague.tld'/>",
            "i".repeat(1025)
        ),
    ] {
        assert_eq!(rejected(&silent), "", "{silent}");
    }
}
