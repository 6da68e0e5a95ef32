//! Unit tests.

use super::super::element::COMPONENT;
use super::super::tests::{parse, written};
use super::*;

fn jid(text: &str) -> BareJid {
    BareJid::parse(text).unwrap()
}

fn reply() -> Element {
    Element::new("iq", COMPONENT).with("id", "1")
}

fn command(attributes: &str, inside: &str) -> CommandIq {
    let xml = format!("<command xmlns='{COMMANDS}' {attributes}>{inside}</command>");
    CommandIq::read(parse(&xml), reply(), jid("romeo@montague.tld"))
}

#[test]
fn requests_are_read() {
    for (attributes, node, session, action) in [
        ("node='n'", "n", None, Ok(Action::Execute)),
        (
            "node='n' action='execute' status='completed'",
            "n",
            None,
            Ok(Action::Execute),
        ),
        (
            "node='n' sessionid='s' action='cancel'",
            "n",
            Some("s"),
            Ok(Action::Cancel),
        ),
        (
            "node='n' sessionid='' action='prev'",
            "n",
            None,
            Ok(Action::Prev),
        ),
        ("action='next' xml:lang='de-CH'", "", None, Ok(Action::Next)),
        (
            "action='complete' xml:lang=''",
            "",
            None,
            Ok(Action::Complete),
        ),
        (
            "action='Execute'",
            "",
            None,
            Err(CommandError::MalformedAction),
        ),
        ("action=''", "", None, Err(CommandError::MalformedAction)),
        ("xml:lang='en us'", "", None, Err(CommandError::BadLocale)),
        ("xml:lang='-'", "", None, Err(CommandError::BadLocale)),
        (
            "xml:lang='abcdefghi'",
            "",
            None,
            Err(CommandError::BadLocale),
        ),
        ("lang='en us'", "", None, Ok(Action::Execute)),
    ] {
        let mut iq = command(attributes, "<x xmlns='jabber:x:data' type='submit'/>");
        assert_eq!(iq.node, node, "{attributes}");
        assert_eq!(iq.session.as_deref(), session, "{attributes}");
        assert_eq!(iq.action, action, "{attributes}");
        assert!(iq.take_form().is_some() && iq.take_form().is_none());
    }
    assert!(command("node='n'", "<x/>").take_form().is_none());
}

#[test]
fn replies_name_the_session_and_its_actions() {
    let form = || Form::to_fill_in("t");
    let x = "<x xmlns='jabber:x:data' type='form'><field var='FORM_TYPE' type='hidden'><value>t</value></field></x>";
    let begin = |status: &str| {
        format!(
            "<iq id='1' type='result'><command xmlns='{COMMANDS}' node='n' sessionid='s' status='{status}' xml:lang='en'"
        )
    };
    let notes = [NoteKind::Info, NoteKind::Warn, NoteKind::Error].map(|kind| Note {
        kind,
        text: "a & b".to_owned(),
    });
    let iq = || command("node='n'", "");
    let actions = [Action::Complete, Action::Prev];
    assert_eq!(
        written(&iq().executing("s", &actions, &notes[..1], form())),
        format!(
            "{}><actions execute='complete'><prev/><complete/></actions>\
             <note type='info'>a &amp; b</note>{x}</command></iq>",
            begin("executing")
        )
    );
    assert_eq!(
        written(&iq().completed("s", &notes[1..], None)),
        format!(
            "{}><note type='warn'>a &amp; b</note><note type='error'>a &amp; b</note></command></iq>",
            begin("completed")
        )
    );
    assert_eq!(
        written(&iq().completed("s", &[], Some(form()))),
        format!("{}>{x}</command></iq>", begin("completed"))
    );
    assert_eq!(
        written(&iq().canceled("s")),
        format!("{}/></iq>", begin("canceled"))
    );
}

#[test]
fn errors_are_those_of_the_specification() {
    for (error, kind, condition, specific) in [
        (
            CommandError::MalformedAction,
            "modify",
            "bad-request",
            Some("malformed-action"),
        ),
        (
            CommandError::BadAction,
            "modify",
            "bad-request",
            Some("bad-action"),
        ),
        (
            CommandError::BadLocale,
            "modify",
            "bad-request",
            Some("bad-locale"),
        ),
        (
            CommandError::BadPayload("No <b>.".to_owned()),
            "modify",
            "bad-request",
            Some("bad-payload"),
        ),
        (
            CommandError::BadSession,
            "modify",
            "bad-request",
            Some("bad-sessionid"),
        ),
        (
            CommandError::SessionExpired,
            "cancel",
            "not-allowed",
            Some("session-expired"),
        ),
        (CommandError::Forbidden, "cancel", "forbidden", None),
        (CommandError::NotFound, "cancel", "item-not-found", None),
        (CommandError::Busy, "wait", "resource-constraint", None),
        (CommandError::Failed, "wait", "internal-server-error", None),
    ] {
        let reply = command("node='n' sessionid='s'", "").failed(&error);
        assert_eq!(reply.attribute("type"), Some("error"));
        // Clients find what failed by node and session.
        let echo = reply.child("command", COMMANDS).unwrap();
        assert_eq!(
            (echo.attribute("node"), echo.attribute("sessionid")),
            (Some("n"), Some("s"))
        );
        let element = reply.child("error", COMPONENT).unwrap();
        assert_eq!(element.attribute("type"), Some(kind));
        assert!(
            element
                .child(condition, super::super::element::STANZA_ERRORS)
                .is_some(),
            "{error:?}"
        );
        let found = element
            .elements()
            .find(|child| *child.namespace == *COMMANDS);
        assert_eq!(found.map(|child| &*child.name), specific);
        assert!(written(&reply).contains("</text>"), "{error:?}");
    }
    let long = "n".repeat(10_000);
    let reply = command(&format!("node='{long}' sessionid='{long}'"), "");
    assert!(written(&reply.failed(&CommandError::NotFound)).len() < 500);
}

#[test]
fn nodes_are_described() {
    let ask = |namespace: &str, node: &str| {
        let query = parse(&format!("<query xmlns='{namespace}' node='{node}'/>"));
        NodeIq::read(query, reply(), jid("romeo@montague.tld"))
    };
    let node = CommandNode {
        node: "n",
        name: "A name",
    };
    let component = jid("upload.montague.tld");
    let head = |namespace: &str, node: &str| {
        format!("<iq id='1' type='result'><query xmlns='{namespace}' node='{node}'")
    };
    assert_eq!(
        written(&ask(DISCO_ITEMS, COMMANDS).list(&component, &[node])),
        format!(
            "{}><item jid='upload.montague.tld' node='n' name='A name'/></query></iq>",
            head(DISCO_ITEMS, COMMANDS)
        )
    );
    assert_eq!(
        written(&ask(DISCO_INFO, COMMANDS).list(&component, &[node])),
        format!(
            "{}><identity category='automation' type='command-list' name='Commands'/>\
             <feature var='{COMMANDS}'/></query></iq>",
            head(DISCO_INFO, COMMANDS)
        )
    );
    assert_eq!(
        written(&ask(DISCO_INFO, "n").command(node)),
        format!(
            "{}><identity category='automation' type='command-node' name='A name'/>\
             <feature var='{COMMANDS}'/><feature var='jabber:x:data'/></query></iq>",
            head(DISCO_INFO, "n")
        )
    );
    assert_eq!(
        written(&ask(DISCO_ITEMS, "n").command(node)),
        format!("{}/></iq>", head(DISCO_ITEMS, "n"))
    );
    let failed = written(&ask(DISCO_INFO, "n").failed(&CommandError::Forbidden));
    assert!(failed.contains("<forbidden "), "{failed}");
}
