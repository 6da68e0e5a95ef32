//! XML of a stream: the same elements however the bytes arrive, bounded, and written so that they can be read again.

use upslot::xmpp::element::{Element, Node};
use upslot::xmpp::scanner::{Boundary, Scanner};
use upslot::xmpp::syntax::is_xml_char;
use upslot::xmpp::xml::{
    BROKEN, MAX_ADDRESS, MAX_DEPTH, MAX_ID, MAX_STANZA, Reader, Skipped, Why, XmlError, XmlEvent,
};

use super::{Choices, expand, split};

const HEADER: &str = "<stream:stream xmlns:stream='http://etherx.jabber.org/streams' xmlns='jabber:component:accept'>";

/// What comes of pieces: the events, and the fault at which reading stopped.
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
                    assert_eq!(reader.next_event(&mut rest), Err(error), "a fault stays");
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
                sound(element, 1);
                assert!(
                    bytes_of(element) <= MAX_STANZA,
                    "larger than a stanza may be"
                );
                again(element);
            }
            XmlEvent::Skipped(skipped) => {
                assert!(n > 0);
                bounded(skipped);
            }
            XmlEvent::Closed => assert_eq!(n + 1, events.len(), "something after the end"),
        }
    }
}

/// The scanner finds the same ends however the bytes come; each belongs to an event, and what is read by itself from
/// between two of them is the same.
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
            // What the scanner cannot see: an attribute twice, a bad declaration or header.
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

/// What is kept of a skipped stanza.
fn bounded(skipped: &Skipped) {
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

/// Bytes of the names that are not inherited, the values and the texts: all of them were in the stanza.
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

fn sound(element: &Element, depth: u64) {
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
            "an attribute twice"
        );
    }
    let mut text_before = false;
    for node in &element.children {
        match node {
            Node::Element(child) => sound(child, depth + 1),
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

/// Nothing that would be markup where a name is written.
fn is_name(text: &str) -> bool {
    !text.contains(|c: char| c.is_whitespace() || "<>&'\"/=:?!".contains(c))
}

/// Written and read again it is the same.
pub fn again(element: &Element) {
    let mut written = HEADER.as_bytes().to_vec();
    element.write("jabber:component:accept", &mut written);
    // References take more room, and so do namespaces that are declared in every child.
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
