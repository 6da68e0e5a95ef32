//! XML of a stream: the elements do not depend on how the bytes are split, their size is limited, and they are unchanged
//! when they are serialised and parsed again.

use upslot::xmpp::element::{Element, Node};
use upslot::xmpp::scanner::{Boundary, Scanner};
use upslot::xmpp::syntax::is_xml_char;
use upslot::xmpp::xml::{
    BROKEN, MAX_ADDRESS, MAX_DEPTH, MAX_ID, MAX_STANZA, Reader, Skipped, Why, XmlError, XmlEvent,
};

use super::{Choices, expand, split};

const HEADER: &str = "<stream:stream xmlns:stream='http://etherx.jabber.org/streams' xmlns='jabber:component:accept'>";

/// Parses pieces; returns the events, and the error that ended parsing.
pub fn read(pieces: &[&[u8]]) -> (Vec<XmlEvent>, Option<XmlError>) {
    let mut reader = Reader::new();
    let mut events = Vec::new();
    for piece in pieces {
        let mut rest = *piece;
        loop {
            match reader.next_event(&mut rest) {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(
                        reader.next_event(&mut rest),
                        Err(error),
                        "an error is permanent"
                    );
                    assert_ne!(error, BROKEN, "the scanner and the parser differ");
                    return (events, Some(error));
                }
            }
        }
        assert!(rest.is_empty() && reader.kept() <= MAX_STANZA);
    }
    (events, None)
}

pub fn run(data: &[u8]) {
    let mut choices = Choices(data);
    let (seed, bare) = (choices.number(), choices.byte() & 1 == 1);
    let mut bytes = if bare {
        Vec::new()
    } else {
        HEADER.as_bytes().to_vec()
    };
    bytes.extend(expand(choices.rest()));

    let (events, error) = read(&[&bytes]);
    for pieces in [split(&bytes, seed), split(&bytes, 1)] {
        let (others, other) = read(&pieces);
        assert!(
            events == others && error == other,
            "{error:?} in pieces {other:?}"
        );
    }
    boundaries(&bytes, seed, &events, error);
    for (n, event) in events.iter().enumerate() {
        match event {
            XmlEvent::Opened(element) => assert!(n == 0 && element.children.is_empty()),
            XmlEvent::Stanza(element) => {
                assert!(n > 0);
                check_element(element, 1);
                assert!(bytes_of(element) <= MAX_STANZA, "a stanza above the limit");
                check_round_trip(element);
            }
            XmlEvent::Skipped(skipped) => {
                assert!(n > 0);
                check_skipped(skipped);
            }
            XmlEvent::Closed => assert_eq!(n + 1, events.len(), "an event after the end"),
        }
    }
}

/// The ends that the scanner finds do not depend on how the bytes are split. Each belongs to an event, and the part
/// between two of them is parsed to the same event.
fn boundaries(bytes: &[u8], seed: u16, events: &[XmlEvent], error: Option<XmlError>) {
    let ends = |pieces: &[&[u8]]| {
        let (mut scanner, mut ends, mut before) = (Scanner::new(), Vec::new(), 0);
        for piece in pieces {
            let mut at = 0;
            while at < piece.len() {
                let Ok((taken, boundary)) = scanner.scan(&piece[at..]) else {
                    return ends;
                };
                at += taken;
                if let Some(boundary) = boundary {
                    ends.push((before + at, boundary, scanner.levels()));
                    if boundary == Boundary::Closed {
                        return ends;
                    }
                }
            }
            before += piece.len();
        }
        ends
    };
    let whole = ends(&[bytes]);
    assert!(whole == ends(&split(bytes, seed)), "in pieces");
    let mut events = events.iter();
    let mut from = 0;
    let mut header = 0..0;
    for (end, boundary, levels) in whole {
        let part = &bytes[from..end];
        from = end;
        if boundary == Boundary::Declaration {
            continue;
        }
        let Some(event) = events.next() else {
            // The scanner does not detect a duplicate attribute, or an invalid declaration or header.
            assert!(error.is_some());
            return;
        };
        match (boundary, event) {
            (Boundary::Header, XmlEvent::Opened(_)) => header = 0..end,
            (Boundary::Stanza, XmlEvent::Stanza(_) | XmlEvent::Skipped(_)) => {
                let (alone, error) = read(&[&bytes[header.clone()], part]);
                assert!(error.is_none() && alone.last() == Some(event));
                let size = part.trim_ascii_start().len();
                let large = size > MAX_STANZA;
                let deep = levels > MAX_DEPTH;
                match event {
                    XmlEvent::Skipped(skipped) => {
                        assert_eq!(large, skipped.why == Why::TooLarge);
                        assert_eq!(deep && !large, skipped.why == Why::TooDeep);
                    }
                    _ => assert!(!large && !deep),
                }
            }
            (Boundary::Closed, XmlEvent::Closed) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(events.next().is_none());
}

/// Checks the limits of the remembered parts of a skipped stanza.
fn check_skipped(skipped: &Skipped) {
    let stanza = &skipped.stanza;
    assert!(stanza.children.is_empty() && stanza.name.len() <= 64 && stanza.namespace.len() <= 64);
    for attribute in &stanza.attributes {
        let most = match &*attribute.name {
            "type" => 64,
            "id" => MAX_ID,
            "from" | "to" => MAX_ADDRESS,
            other => panic!("{other}"),
        };
        assert!(attribute.value.len() <= most && is_xml_text(&attribute.value));
    }
    assert!(stanza.attributes.len() <= 4);
}

/// Bytes of the names, values and texts, which were all in the stanza; inherited namespaces do not count.
fn bytes_of(element: &Element) -> usize {
    let attributes = element
        .attributes
        .iter()
        .map(|a| a.name.len() + a.value.len());
    let children = element.children.iter().map(|node| match node {
        Node::Element(element) => bytes_of(element),
        Node::Text(text) => text.len(),
    });
    element.name.len() + attributes.chain(children).sum::<usize>()
}

fn check_element(element: &Element, depth: u64) {
    assert!(depth <= MAX_DEPTH);
    assert!(
        !element.name.is_empty() && is_name(&element.name),
        "{:?}",
        element.name
    );
    for (n, attribute) in element.attributes.iter().enumerate() {
        assert!(is_name(&attribute.name) && is_xml_text(&attribute.value));
        let same = |other: &upslot::xmpp::element::Attribute| {
            other.name == attribute.name && other.namespace == attribute.namespace
        };
        assert!(
            !element.attributes[..n].iter().any(same),
            "a duplicate attribute"
        );
    }
    let mut text_before = false;
    for node in &element.children {
        match node {
            Node::Element(child) => check_element(child, depth + 1),
            Node::Text(text) => {
                assert!(!text_before && !text.is_empty() && is_xml_text(text));
            }
        }
        text_before = matches!(node, Node::Text(_));
    }
}

fn is_xml_text(text: &str) -> bool {
    text.chars().all(is_xml_char)
}

/// Whether the text has no character that is markup within a name.
fn is_name(text: &str) -> bool {
    !text.contains(|c: char| c.is_whitespace() || "<>&'\"/=:?!".contains(c))
}

/// Checks that an element is unchanged when it is serialised and parsed again.
pub fn check_round_trip(element: &Element) {
    let mut written = HEADER.as_bytes().to_vec();
    element.write("jabber:component:accept", &mut written);
    // The result may be longer: references replace characters, and each child may declare a namespace.
    if written.len() > MAX_STANZA {
        return;
    }
    let (events, error) = read(&[&written]);
    assert_eq!(error, None, "{}", written.escape_ascii());
    match &events[..] {
        [XmlEvent::Opened(_), XmlEvent::Stanza(read)] => {
            assert!(read == element, "{element:?} became {read:?}");
        }
        other => panic!("{other:?}"),
    }
}
