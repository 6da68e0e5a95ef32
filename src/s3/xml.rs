//! The elements of a small XML document. Depth and texts are bounded.

use std::fmt;

use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesRef, Event};

/// The deepest element; the root is level 1. Answers of stores have 4 levels.
const MAX_DEPTH: usize = 16;

/// Longest text of an element in bytes: a key of 1024 bytes that is percent-encoded, and encoded again as a continuation
/// token.
const MAX_TEXT: usize = 8192;

/// Why a document cannot be read; a clause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidXml(pub &'static str);

impl fmt::Display for InvalidXml {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

const BROKEN: InvalidXml = InvalidXml("the answer is broken XML");

/// An element that ends.
#[derive(Debug)]
pub struct EndedElement<'a> {
    /// The root's is 1.
    pub depth: usize,
    /// Without its prefix.
    pub name: &'a str,
    /// What follows the last child; empty if `is_cut`.
    pub text: &'a str,
    /// Whether the text is longer than [`MAX_TEXT`].
    pub is_cut: bool,
}

/// Visits each element of a document at its end, children before their parents.
pub fn visit_elements(
    document: &[u8],
    mut visit: impl FnMut(EndedElement<'_>) -> Result<(), InvalidXml>,
) -> Result<(), InvalidXml> {
    let document = std::str::from_utf8(document).map_err(|_| BROKEN)?;
    let mut reader = quick_xml::Reader::from_str(document.trim_start_matches('\u{feff}'));
    reader.config_mut().expand_empty_elements = true;
    let (mut depth, mut has_root) = (0, false);
    let mut text = ElementText::default();
    loop {
        match reader.read_event().map_err(|_| BROKEN)? {
            Event::Start(_) if depth == 0 && has_root => return Err(BROKEN),
            Event::Start(_) if depth == MAX_DEPTH => {
                return Err(InvalidXml("the answer has too many levels"));
            }
            Event::Start(_) => {
                (depth, has_root) = (depth + 1, true);
                text.clear();
            }
            // The parser has compared the names.
            Event::End(tag) => {
                let name = tag.local_name();
                visit(EndedElement {
                    depth,
                    name: std::str::from_utf8(name.as_ref()).map_err(|_| BROKEN)?,
                    text: &text.text,
                    is_cut: text.is_cut,
                })?;
                depth -= 1;
                text.clear();
            }
            Event::Text(part) => {
                let part = part.xml10_content().map_err(|_| BROKEN)?;
                if depth == 0 && !part.trim().is_empty() {
                    return Err(InvalidXml("the answer is no XML"));
                }
                text.push(&part);
            }
            Event::CData(part) => text.push(&part.xml10_content().map_err(|_| BROKEN)?),
            Event::GeneralRef(reference) => text.push_reference(&reference)?,
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            Event::DocType(_) => return Err(InvalidXml("the answer has a document type")),
            Event::Eof if depth == 0 && has_root => return Ok(()),
            Event::Eof => return Err(InvalidXml("the answer is cut off")),
            Event::Empty(_) => return Err(BROKEN),
        }
    }
}

/// The text since the last tag.
#[derive(Default)]
struct ElementText {
    text: String,
    is_cut: bool,
}

impl ElementText {
    fn clear(&mut self) {
        self.text.clear();
        self.is_cut = false;
    }

    fn push(&mut self, part: &str) {
        if self.is_cut || self.text.len() + part.len() > MAX_TEXT {
            self.text.clear();
            self.is_cut = true;
        } else {
            self.text.push_str(part);
        }
    }

    fn push_reference(&mut self, reference: &BytesRef<'_>) -> Result<(), InvalidXml> {
        match reference.resolve_char_ref().map_err(|_| BROKEN)? {
            Some(character) => self.push(character.encode_utf8(&mut [0; 4])),
            None => {
                let name = std::str::from_utf8(reference).map_err(|_| BROKEN)?;
                self.push(resolve_predefined_entity(name).ok_or(BROKEN)?);
            }
        }
        Ok(())
    }
}
