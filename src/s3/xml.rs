//! The elements of a small XML document. Depth and texts are bounded.

use std::fmt;

use quick_xml::Reader;
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
const TOO_DEEP: InvalidXml = InvalidXml("the answer has too many levels");

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

/// How far a document has been read: not at all, or up to the end of a child of its root.
#[derive(Debug, Default)]
pub struct XmlPosition {
    /// Bytes.
    at: usize,
    /// The name of the root, with its prefix, once it has begun.
    root: Option<String>,
}

impl XmlPosition {
    /// Reads a document from here.
    fn reader<'a>(&mut self, document: &'a str) -> Result<Reader<&'a [u8]>, InvalidXml> {
        if self.at == 0 && document.starts_with('\u{feff}') {
            self.at = '\u{feff}'.len_utf8();
        }
        let mut reader = Reader::from_str(document.get(self.at..).ok_or(BROKEN)?);
        reader.config_mut().expand_empty_elements = true;
        // Another reader has seen where the root begins.
        reader.config_mut().allow_unmatched_ends = self.root.is_some();
        Ok(reader)
    }

    fn begin_root(&mut self, name: &[u8]) -> Result<(), InvalidXml> {
        let name = std::str::from_utf8(name).map_err(|_| BROKEN)?;
        match self.root.replace(name.to_owned()) {
            None => Ok(()),
            Some(_) => Err(BROKEN),
        }
    }

    fn is_root(&self, name: &[u8]) -> bool {
        let root = self.root.as_ref();
        root.is_some_and(|root| root.as_bytes() == name)
    }
}

/// Visits each element of a document at its end, children before their parents.
pub fn visit_elements(
    document: &[u8],
    visit: impl FnMut(EndedElement<'_>) -> Result<(), InvalidXml>,
) -> Result<(), InvalidXml> {
    let document = std::str::from_utf8(document).map_err(|_| BROKEN)?;
    visit_some(document, &mut XmlPosition::default(), usize::MAX, visit).map(|_| ())
}

/// Like [`visit_elements`], but stops after so many children of the root, and goes on from there when it is called again.
/// Returns whether the whole document was read.
pub fn visit_some(
    document: &str,
    position: &mut XmlPosition,
    most: usize,
    mut visit: impl FnMut(EndedElement<'_>) -> Result<(), InvalidXml>,
) -> Result<bool, InvalidXml> {
    let mut reader = position.reader(document)?;
    let mut depth = usize::from(position.root.is_some());
    let mut children = 0;
    let mut text = ElementText::default();
    loop {
        match reader.read_event().map_err(|_| BROKEN)? {
            Event::Start(_) if depth == MAX_DEPTH => return Err(TOO_DEEP),
            Event::Start(tag) => {
                if depth == 0 {
                    position.begin_root(tag.name().0)?;
                }
                depth += 1;
                text.clear();
            }
            Event::End(tag) => {
                // The parser has compared the names of all other elements.
                if depth == 0 || depth == 1 && !position.is_root(tag.name().0) {
                    return Err(BROKEN);
                }
                let name = tag.local_name();
                visit(EndedElement {
                    depth,
                    name: std::str::from_utf8(name.as_ref()).map_err(|_| BROKEN)?,
                    text: &text.text,
                    is_cut: text.is_cut,
                })?;
                depth -= 1;
                text.clear();
                children += usize::from(depth == 1);
                if depth == 1 && children == most {
                    // It is at most the length of the text.
                    position.at += reader.buffer_position() as usize;
                    return Ok(false);
                }
            }
            Event::Text(part) if depth == 0 => {
                if !part
                    .xml10_content()
                    .is_ok_and(|text| text.trim().is_empty())
                {
                    return Err(InvalidXml("the answer is no XML"));
                }
            }
            Event::Text(part) => text.push(&part.xml10_content().map_err(|_| BROKEN)?),
            Event::CData(part) => text.push(&part.xml10_content().map_err(|_| BROKEN)?),
            Event::GeneralRef(reference) => text.push_reference(&reference)?,
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            Event::DocType(_) => return Err(InvalidXml("the answer has a document type")),
            Event::Eof if depth == 0 && position.root.is_some() => return Ok(true),
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
