//! XML of a stream: the same elements however the bytes arrive, bounded, and written so that they can be read again.

use upslot::xmpp::element::{Element, Node, is_xml_text};
use upslot::xmpp::token::{Fault, MAX_STANZA, Tokens};
use upslot::xmpp::xml::{MAX_DEPTH, Reader, XmlEvent};

use super::{Choices, expand, split};

const HEADER: &str = "<stream:stream xmlns:stream='http://etherx.jabber.org/streams' xmlns='jabber:component:accept'>";

/// What comes of pieces: the events, and the fault at which reading stopped.
pub fn read(pieces: &[&[u8]]) -> (Vec<XmlEvent>, Option<Fault>) {
    let mut reader = Reader::new();
    let mut events = Vec::new();
    for piece in pieces {
        reader.received(piece);
        loop {
            match reader.next_event() {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(fault) => {
                    assert_eq!(reader.next_event(), Err(fault), "a fault stays");
                    return (events, Some(fault));
                }
            }
        }
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

    let (events, fault) = read(&[&bytes]);
    for pieces in [split(&bytes, seed), split(&bytes, 1)] {
        let (others, other) = read(&pieces);
        assert!(
            events == others && fault == other,
            "{fault:?} in pieces {other:?}"
        );
    }
    tokens(&bytes, seed);
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
            XmlEvent::Closed => assert_eq!(n + 1, events.len(), "something after the end"),
        }
    }
}

/// No more is kept of a token than a stanza may have.
fn tokens(bytes: &[u8], seed: u16) {
    let mut tokens = Tokens::new();
    let mut spent = 0;
    for piece in split(bytes, seed) {
        tokens.received(piece);
        while let Ok(Some((_, token))) = tokens.next_token(false, spent) {
            assert!(!token.is_empty() && spent + token.len() <= MAX_STANZA);
            spent = (spent + token.len()) % MAX_STANZA;
        }
        if tokens.next_token(false, spent).is_err() {
            return;
        }
        assert!(tokens.waiting() <= MAX_STANZA);
    }
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

fn sound(element: &Element, depth: usize) {
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
    let (events, fault) = read(&[&written]);
    assert_eq!(fault, None, "{}", written.escape_ascii());
    match &events[..] {
        [XmlEvent::Opened(_), XmlEvent::Stanza(read)] => {
            assert!(read == element, "{element:?} became {read:?}");
        }
        other => panic!("{other:?}"),
    }
}
