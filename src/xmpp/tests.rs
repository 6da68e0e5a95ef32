//! Helpers that the tests of several modules share.

use super::element::{COMPONENT, Element};
use super::xml::{Reader, XmlEvent};

/// The element that arrives as a stanza on a component's stream.
#[track_caller]
pub(super) fn parse(xml: &str) -> Element {
    let mut reader = Reader::new();
    let open = format!("<s xmlns='{COMPONENT}'>");
    reader.next_event(&mut open.as_bytes()).unwrap();
    match reader.next_event(&mut xml.as_bytes()) {
        Ok(Some(XmlEvent::Stanza(element))) => element,
        other => panic!("{xml}: {other:?}"),
    }
}

/// The element as it is sent on such a stream.
pub(super) fn written(element: &Element) -> String {
    let mut out = Vec::new();
    element.write(COMPONENT, &mut out);
    String::from_utf8(out).unwrap()
}
