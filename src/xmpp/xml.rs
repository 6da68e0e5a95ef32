//! The bytes of an XMPP stream to bounded elements (RFC 6120 §11, XML 1.0, Namespaces in XML 1.0).
//!
//! ```text
//!   bytes ─► token, by its end ─► quick-xml takes it apart ─► tree of the open stanza ─► XmlEvent
//! ```
//!
//! A stanza is counted while it is read and given up at its limits; what was read of it by then is all that is ever
//! kept. This file does not know what a stream, a stanza or a name means. What XMPP forbids (RFC 6120 §11.1:
//! comments, processing instructions, document types, entities of one's own) is a fault like any malformed XML, and
//! after a fault nothing more is read.

use quick_xml::XmlVersion;
use quick_xml::escape::{EscapeError, unescape};
use quick_xml::events::attributes::Attribute as RawAttribute;
use quick_xml::events::{BytesCData, BytesStart, BytesText};

use super::element::{Attribute, Element, Name, Node, XML, is_xml_text};
use super::token::{Token, Tokens};

pub use super::token::{Fault, MAX_STANZA};

/// The most elements inside each other in one stanza, itself included.
pub const MAX_DEPTH: usize = 32;

/// Up to so many names are compared each with each, which is quicker than to sort them.
const COMPARED: usize = 8;

/// Namespace of declarations of namespaces; nothing may be bound to it (Namespaces in XML 1.0 §3).
const XMLNS: &str = "http://www.w3.org/2000/xmlns/";

/// What the reader found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum XmlEvent {
    /// The stream's opening tag, without children.
    Opened(Element),
    /// A complete child of the stream.
    Stanza(Element),
    /// The stream's closing tag. Whatever follows it is dropped.
    Closed,
}

/// Reads one stream. Give it bytes, then take events until there is none.
#[derive(Debug)]
pub struct Reader {
    tokens: Tokens,
    tree: Tree,
    end: Option<End>,
}

/// Reading is over.
#[derive(Clone, Copy, Debug)]
enum End {
    Closed,
    Fault(Fault),
}

#[derive(Debug)]
struct Open {
    /// The name as it was written, which the closing tag must repeat.
    written: String,
    element: Element,
    /// How many bindings held outside of it.
    outer_bindings: usize,
}

#[derive(Debug)]
struct Binding {
    /// Empty for the default namespace.
    prefix: String,
    /// Empty only where the default namespace was taken back.
    namespace: Name,
}

/// What is open.
#[derive(Debug)]
struct Tree {
    /// The elements that are open, the stream first.
    open: Vec<Open>,
    /// The prefixes that hold now, the innermost last.
    bindings: Vec<Binding>,
    /// Bytes of the stanza under way so far.
    stanza_bytes: usize,
}

impl Reader {
    pub fn new() -> Reader {
        Reader {
            tokens: Tokens::new(),
            tree: Tree {
                open: Vec::new(),
                bindings: Vec::new(),
                stanza_bytes: 0,
            },
            end: None,
        }
    }

    /// These bytes came in. Take events before the next ones: bytes are kept until then, and after that never more
    /// than [`MAX_STANZA`] of them.
    pub fn received(&mut self, bytes: &[u8]) {
        if self.end.is_none() {
            self.tokens.received(bytes);
        }
    }

    /// The next thing in what came in; `None` when more bytes are needed or the stream is closed. A fault stays.
    pub fn next_event(&mut self) -> Result<Option<XmlEvent>, Fault> {
        match self.end {
            Some(End::Closed) => return Ok(None),
            Some(End::Fault(fault)) => return Err(fault),
            None => {}
        }
        let event = self.read();
        match &event {
            Ok(Some(XmlEvent::Closed)) => self.end(End::Closed),
            Ok(_) => {}
            Err(fault) => self.end(End::Fault(*fault)),
        }
        event
    }

    /// Nothing that was read is of use any more.
    fn end(&mut self, end: End) {
        *self = Reader::new();
        self.end = Some(end);
    }

    fn read(&mut self) -> Result<Option<XmlEvent>, Fault> {
        loop {
            let (outside, spent) = (self.tree.open.len() < 2, self.tree.stanza_bytes);
            let Some((token, bytes)) = self.tokens.next_token(outside, spent)? else {
                return Ok(None);
            };
            if let Some(event) = self.tree.take(token, bytes)? {
                return Ok(Some(event));
            }
        }
    }
}

impl Tree {
    /// One complete token.
    fn take(&mut self, token: Token, bytes: &[u8]) -> Result<Option<XmlEvent>, Fault> {
        self.stanza_bytes += bytes.len();
        let text = std::str::from_utf8(bytes).map_err(|_| Fault::Malformed("invalid UTF-8"))?;
        check_characters(text)?;
        let event = match token {
            Token::Declaration => check_declaration(text).map(|()| None),
            Token::Text => self.take_text(text).map(|()| None),
            Token::Cdata => self.take_cdata(text).map(|()| None),
            Token::Start => self.take_start(&text[1..text.len() - 1]),
            Token::Empty => match self.take_start(&text[1..text.len() - 2])? {
                Some(_) => Err(Fault::Malformed("a stream that is one empty element")),
                None => self.close(),
            },
            Token::End => self.take_end(&text[2..text.len() - 1]),
        }?;
        if self.open.len() < 2 {
            self.stanza_bytes = 0;
        }
        Ok(event)
    }

    /// Text inside a stanza.
    fn take_text(&mut self, text: &str) -> Result<(), Fault> {
        if text.contains("]]>") {
            return Err(Fault::Malformed("]]> in text"));
        }
        let text = BytesText::from_escaped(text);
        let text = text.xml10_content();
        let text = text.map_err(|_| Fault::Malformed("invalid UTF-8"))?;
        let text = unescape(&text).map_err(|fault| escape_fault(&fault))?;
        check_characters(&text)?;
        self.push_text(&text);
        Ok(())
    }

    /// A whole section with its marks.
    fn take_cdata(&mut self, text: &str) -> Result<(), Fault> {
        let text = BytesCData::new(&text["<![CDATA[".len()..text.len() - "]]>".len()]);
        let text = text.xml10_content();
        let text = text.map_err(|_| Fault::Malformed("invalid UTF-8"))?;
        self.push_text(&text);
        Ok(())
    }

    /// Text and sections that follow each other are one text.
    fn push_text(&mut self, text: &str) {
        let Some(parent) = self.open.last_mut() else {
            return;
        };
        match parent.element.children.last_mut() {
            Some(Node::Text(before)) => before.push_str(text),
            _ if text.is_empty() => {}
            _ => parent.element.children.push(Node::Text(text.to_owned())),
        }
    }

    /// A start tag without its marks.
    fn take_start(&mut self, tag: &str) -> Result<Option<XmlEvent>, Fault> {
        if self.open.len() > MAX_DEPTH {
            return Err(Fault::TooLarge("a stanza of more than 32 levels"));
        }
        let written = tag.split(is_space_char).next().unwrap_or_default();
        let outer_bindings = self.bindings.len();
        let mut plain = Vec::new();
        let tag = BytesStart::from_content(tag, written.len());
        for attribute in tag.attributes().with_checks(false) {
            let attribute = attribute.map_err(|_| Fault::Malformed("a malformed attribute"))?;
            let name = std::str::from_utf8(attribute.key.into_inner())
                .map_err(|_| Fault::Malformed("invalid UTF-8"))?;
            let value = attribute_value(&attribute)?;
            match name.strip_prefix("xmlns:") {
                Some("") => return Err(Fault::Malformed("a malformed name")),
                Some(prefix) => self.bind(prefix, value)?,
                None if name == "xmlns" => self.bind("", value)?,
                None => plain.push((name, value)),
            }
        }
        let declared = &self.bindings[outer_bindings..];
        if has_double(declared.iter().map(|b| (None, b.prefix.as_str()))) {
            return Err(Fault::Malformed("a namespace declared twice"));
        }

        let (prefix, name) = split_name(written)?;
        let mut element = Element {
            name: Name::read(name),
            namespace: self.resolve(prefix)?,
            attributes: Vec::with_capacity(plain.len()),
            children: Vec::new(),
        };
        for (name, value) in plain {
            let (prefix, name) = split_name(name)?;
            element.attributes.push(Attribute {
                name: Name::read(name),
                namespace: match prefix {
                    "" => None,
                    prefix => Some(self.resolve(prefix)?),
                },
                value,
            });
        }
        check_attributes(&element.attributes)?;

        let opened = self
            .open
            .is_empty()
            .then(|| XmlEvent::Opened(element.clone()));
        self.open.push(Open {
            written: written.to_owned(),
            element,
            outer_bindings,
        });
        Ok(opened)
    }

    /// An end tag without its marks.
    fn take_end(&mut self, tag: &str) -> Result<Option<XmlEvent>, Fault> {
        match self.open.last() {
            Some(open) if open.written == tag.trim_end_matches(is_space_char) => self.close(),
            _ => Err(Fault::Malformed("an end tag without its start")),
        }
    }

    /// The innermost element is complete.
    fn close(&mut self) -> Result<Option<XmlEvent>, Fault> {
        let Some(closed) = self.open.pop() else {
            return Err(Fault::Malformed("an end tag without its start"));
        };
        self.bindings.truncate(closed.outer_bindings);
        let depth = self.open.len();
        Ok(match self.open.last_mut() {
            None => Some(XmlEvent::Closed),
            Some(_) if depth == 1 => Some(XmlEvent::Stanza(closed.element)),
            Some(parent) => {
                parent.element.children.push(Node::Element(closed.element));
                None
            }
        })
    }

    /// Binds a prefix, or the default namespace when it is empty (Namespaces in XML 1.0 §3).
    fn bind(&mut self, prefix: &str, namespace: String) -> Result<(), Fault> {
        let sound = match prefix {
            "" => namespace != XML && namespace != XMLNS,
            "xml" => namespace == XML,
            "xmlns" => false,
            prefix => {
                is_name(prefix) && !namespace.is_empty() && namespace != XML && namespace != XMLNS
            }
        };
        if !sound {
            return Err(Fault::Malformed("a declaration that no namespace may have"));
        }
        self.bindings.push(Binding {
            prefix: prefix.to_owned(),
            namespace: Name::read(&namespace),
        });
        Ok(())
    }

    /// The namespace that a prefix stands for, or the default one.
    fn resolve(&self, prefix: &str) -> Result<Name, Fault> {
        let bound = self.bindings.iter().rev().find(|b| b.prefix == prefix);
        match (bound, prefix) {
            (Some(binding), _) => Ok(binding.namespace.clone()),
            (None, "") => Ok(Name::Known("")),
            (None, "xml") => Ok(Name::Known(XML)),
            (None, _) => Err(Fault::Malformed("a prefix that is not declared")),
        }
    }
}

impl Default for Reader {
    fn default() -> Reader {
        Reader::new()
    }
}

/// `<?xml ...?>`: UTF-8 and XML 1.0, or nothing (RFC 6120 §11.5, §11.6).
fn check_declaration(text: &str) -> Result<(), Fault> {
    let content = &text["<?".len()..text.len() - "?>".len()];
    if !content.starts_with("xml") || !content[3..].starts_with(is_space_char) {
        return Err(Fault::Restricted("a processing instruction"));
    }
    let declaration = BytesStart::from_content(content, 3);
    let mut versions = 0;
    for attribute in declaration.attributes() {
        let attribute = attribute.map_err(|_| Fault::Malformed("a malformed XML declaration"))?;
        let value = attribute_value(&attribute)?;
        match attribute.key.into_inner() {
            b"version" if value == "1.0" => versions += 1,
            b"encoding" if value.eq_ignore_ascii_case("utf-8") => {}
            b"standalone" => {}
            _ => return Err(Fault::Malformed("XML that is not version 1.0 in UTF-8")),
        }
    }
    match versions {
        1 => Ok(()),
        _ => Err(Fault::Malformed("a malformed XML declaration")),
    }
}

/// No two of the same name and namespace, whatever prefixes they were written with.
fn check_attributes(attributes: &[Attribute]) -> Result<(), Fault> {
    let names = attributes
        .iter()
        .map(|a| (a.namespace.as_deref(), &*a.name));
    match has_double(names) {
        true => Err(Fault::Malformed("an attribute given twice")),
        false => Ok(()),
    }
}

/// Whether any of these stands there twice.
fn has_double<'a>(
    names: impl ExactSizeIterator<Item = (Option<&'a str>, &'a str)> + Clone,
) -> bool {
    if names.len() <= COMPARED {
        let mut left = names;
        while let Some(name) = left.next() {
            if left.clone().any(|other| other == name) {
                return true;
            }
        }
        return false;
    }
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names.windows(2).any(|pair| pair[0] == pair[1])
}

/// The value with its references resolved and its white space made blanks (XML 1.0 §3.3.3).
fn attribute_value(attribute: &RawAttribute<'_>) -> Result<String, Fault> {
    // What is printable ASCII without a reference stands for itself.
    let plain = |b: &u8| matches!(b, b' '..=b'~') && *b != b'&';
    if attribute.value.iter().all(plain) {
        if let Ok(value) = std::str::from_utf8(&attribute.value) {
            return Ok(value.to_owned());
        }
    }
    let value = attribute.normalized_value(XmlVersion::Explicit1_0);
    let value = value.map_err(|fault| match fault {
        quick_xml::Error::Escape(fault) => escape_fault(&fault),
        _ => Fault::Malformed("a malformed attribute"),
    })?;
    check_characters(&value)?;
    Ok(value.into_owned())
}

fn escape_fault(fault: &EscapeError) -> Fault {
    match fault {
        EscapeError::UnrecognizedEntity(..) => Fault::Restricted("an entity beyond the five"),
        _ => Fault::Malformed("a malformed reference"),
    }
}

/// Both as they were written and after references were resolved: `&#0;` is as wrong as a NUL.
fn check_characters(text: &str) -> Result<(), Fault> {
    match is_xml_text(text) {
        true => Ok(()),
        false => Err(Fault::Malformed("a character that XML forbids")),
    }
}

/// Prefix, empty when there is none, and local name.
fn split_name(written: &str) -> Result<(&str, &str), Fault> {
    let (prefix, name) = written.split_once(':').unwrap_or(("", written));
    let prefixed = name.len() < written.len();
    if !is_name(name) || (prefixed && (!is_name(prefix) || prefix == "xmlns")) {
        return Err(Fault::Malformed("a malformed name"));
    }
    Ok((prefix, name))
}

/// Whether this is a name without a colon (XML 1.0 §2.3).
fn is_name(text: &str) -> bool {
    if let [b'A'..=b'Z' | b'_' | b'a'..=b'z', rest @ ..] = text.as_bytes() {
        let usual = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        if rest.iter().all(usual) {
            return true;
        }
    }
    let starts = |c: char| {
        matches!(c, 'A'..='Z' | '_' | 'a'..='z'
            | '\u{C0}'..='\u{D6}' | '\u{D8}'..='\u{F6}' | '\u{F8}'..='\u{2FF}'
            | '\u{370}'..='\u{37D}' | '\u{37F}'..='\u{1FFF}' | '\u{200C}'..='\u{200D}'
            | '\u{2070}'..='\u{218F}' | '\u{2C00}'..='\u{2FEF}' | '\u{3001}'..='\u{D7FF}'
            | '\u{F900}'..='\u{FDCF}' | '\u{FDF0}'..='\u{FFFD}' | '\u{10000}'..='\u{EFFFF}')
    };
    let continues = |c: char| {
        starts(c)
            || matches!(c, '-' | '.' | '0'..='9' | '\u{B7}' | '\u{300}'..='\u{36F}' | '\u{203F}'..='\u{2040}')
    };
    text.starts_with(starts) && text.chars().all(continues)
}

fn is_space_char(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

#[cfg(test)]
mod tests;
