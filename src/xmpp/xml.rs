//! Parses the bytes of an XMPP stream into bounded elements (RFC 6120 §11, XML 1.0, Namespaces in XML 1.0).
//!
//! ```text
//!   bytes ─► scanner finds the end ─┬─ within the bounds ─► quick-xml ─► Element ─► XmlEvent::Stanza
//!                                   └─ otherwise ─► addresses and reason ─────────► XmlEvent::Skipped
//! ```
//!
//! Only the scanner decides whether the stream is well-formed. At most the first [`MAX_STANZA`] bytes of a stanza are
//! buffered. A stanza that is larger, deeper than [`MAX_DEPTH`], or not namespace-well-formed is skipped without ending
//! the stream, because users can make servers send such stanzas: ejabberd drops the namespace declarations on a stanza's
//! own tag but keeps the prefixes inside, and both ejabberd and Prosody can expand 100 KB from a user to megabytes.

use std::borrow::Cow;
use std::{fmt, mem};

use quick_xml::XmlVersion;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::attributes::Attribute as RawAttribute;
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::name::QName;

use super::element::{Attribute, COMPONENT, Element, Name, Node, XML};
use super::scanner::{Boundary, Scanner};
use super::syntax::{SPACE, malformed};

pub use super::syntax::XmlError;

/// Largest stanza that is parsed, in bytes from its first `<` to its last `>`. A slot request has a few hundred.
pub const MAX_STANZA: usize = 64 * 1024;

/// Deepest nesting of a stanza that is parsed; the stanza itself is level 1.
pub const MAX_DEPTH: u64 = 32;

/// Longest `id` in bytes that is repeated in a reply. Clients use at most 36; the limit bounds the size of replies and of
/// pending requests.
pub const MAX_ID: usize = 1024;

/// Longest address in bytes: three parts of at most 1023 (RFC 7622 §3.1), an `@` and a `/`.
pub const MAX_ADDRESS: usize = 3 * 1023 + 2;

/// Longest name and namespace of a skipped stanza that are kept, in bytes. All that matter here are shorter.
const MAX_NAME: usize = 64;

/// Most namespace declarations in scope at one place. Requests need two or three; a linear search through thousands
/// for each prefix would be slow.
const MAX_BINDINGS: usize = 64;

/// Up to this many names are compared pairwise.
const MAX_PAIRWISE: usize = 8;

/// Capacity up to which the buffer of a stanza is kept for the next one, in bytes.
const KEPT_BUFFER: usize = 8 * 1024;

/// Namespace of namespace declarations; no prefix may be bound to it (Namespaces in XML 1.0 §3).
const XMLNS: &str = "http://www.w3.org/2000/xmlns/";

/// A parsed part of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum XmlEvent {
    /// The stream's opening tag, without children.
    Opened(Element),
    /// A complete child of the stream.
    Stanza(Element),
    /// A complete child of the stream that was skipped.
    Skipped(Skipped),
    /// The stream's closing tag. Any input after it is discarded.
    Closed,
}

/// A stanza that was skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    pub why: Why,
    /// The stanza without its content. Of its attributes, it has `type`, `id`, `from` and `to`, if they are within the
    /// first [`MAX_STANZA`] bytes and not longer than [`MAX_ID`] and [`MAX_ADDRESS`].
    pub stanza: Element,
}

/// Why a stanza is skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    TooLarge,
    TooDeep,
    /// An `id` or an address that is too long to be repeated in a reply.
    LongAddress,
    /// A violation of the namespace rules; the text names it.
    Names(&'static str),
}

impl Why {
    /// The label of the metric.
    pub fn reason(self) -> &'static str {
        match self {
            Why::TooLarge => "too_large",
            Why::TooDeep => "too_deep",
            Why::LongAddress => "long_address",
            Why::Names(_) => "names",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::TooLarge => write!(f, "more than {} KiB", MAX_STANZA / 1024),
            Why::TooDeep => write!(f, "more than {MAX_DEPTH} levels"),
            Why::LongAddress => f.write_str("an id or an address that is too long"),
            Why::Names(what) => f.write_str(what),
        }
    }
}

/// Parses one stream.
#[derive(Debug, Default)]
pub struct Reader {
    scanner: Scanner,
    /// The beginning of an incomplete tag or stanza, unless it is skipped.
    kept: Vec<u8>,
    /// The current stanza, if it is too large.
    skipped: Option<Skipped>,
    /// The namespace declarations of the stream's opening tag.
    bindings: Vec<Binding>,
    /// After the closing tag or an error.
    end: Option<Result<(), XmlError>>,
}

#[derive(Clone, Debug)]
struct Binding {
    /// Empty for the default namespace.
    prefix: String,
    /// Empty only where the default namespace was undeclared.
    namespace: Name,
}

/// Why a tag or stanza cannot be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unread {
    /// Fatal for the stream.
    XmlError(XmlError),
    /// The stanza violates the namespace rules and is skipped.
    Names(&'static str),
}

impl From<XmlError> for Unread {
    fn from(error: XmlError) -> Unread {
        Unread::XmlError(error)
    }
}

impl Reader {
    pub fn new() -> Reader {
        Reader::default()
    }

    /// Consumes `input` up to the next event; `None` when all input was consumed or the stream is closed. After an error,
    /// every call returns it again.
    pub fn next_event(&mut self, input: &mut &[u8]) -> Result<Option<XmlEvent>, XmlError> {
        if let Some(end) = self.end {
            *input = &[];
            return end.map(|()| None);
        }
        let event = self.read(input);
        let end = match &event {
            Ok(Some(XmlEvent::Closed)) => Ok(()),
            Ok(_) => return event,
            Err(error) => Err(*error),
        };
        *self = Reader {
            end: Some(end),
            ..Reader::new()
        };
        event
    }

    /// Number of buffered bytes.
    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    fn read(&mut self, input: &mut &[u8]) -> Result<Option<XmlEvent>, XmlError> {
        loop {
            *input = &input[self.scanner.skip_white_space(input)..];
            if input.is_empty() {
                return Ok(None);
            }
            let (taken, boundary) = self.scanner.scan(self.window(input)?)?;
            let (piece, rest) = input.split_at(taken);
            *input = rest;
            self.keep(piece);
            let Some(boundary) = boundary else {
                continue;
            };
            let mut bytes = mem::take(&mut self.kept);
            let event = self.take(boundary, &bytes)?;
            if bytes.capacity() <= KEPT_BUFFER {
                bytes.clear();
                self.kept = bytes;
            }
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    /// The part of the input that may be scanned now. Declaration and header are never skipped, so their size is limited.
    fn window<'a>(&self, input: &'a [u8]) -> Result<&'a [u8], XmlError> {
        if self.scanner.has_header() {
            return Ok(input);
        }
        match MAX_STANZA - self.kept.len() {
            0 => malformed("a stream header of more than 64 KiB"),
            room => Ok(&input[..input.len().min(room)]),
        }
    }

    /// Buffers a piece of an incomplete part, unless the part is too large.
    fn keep(&mut self, piece: &[u8]) {
        if self.skipped.is_some() {
            return;
        }
        let room = MAX_STANZA - self.kept.len();
        self.kept.extend_from_slice(&piece[..piece.len().min(room)]);
        if piece.len() > room {
            self.skipped = Some(Skipped::new(Why::TooLarge, &self.kept));
            self.kept = Vec::new();
        }
    }

    /// Handles the end of a part, of which `bytes` were buffered, unless it was skipped.
    fn take(&mut self, boundary: Boundary, bytes: &[u8]) -> Result<Option<XmlEvent>, XmlError> {
        let skipped = self.skipped.take();
        let text = text_of(bytes)?;
        let outside = self.bindings.len();
        Ok(Some(match boundary {
            Boundary::Declaration => return check_declaration(text).map(|()| None),
            Boundary::Header => XmlEvent::Opened(read_header(text, &mut self.bindings)?),
            Boundary::Closed => XmlEvent::Closed,
            Boundary::Stanza => {
                let why = match skipped {
                    Some(skipped) => return Ok(Some(XmlEvent::Skipped(skipped))),
                    None if self.scanner.levels() > MAX_DEPTH => Why::TooDeep,
                    None => {
                        let stanza = read_stanza(text, &mut self.bindings);
                        self.bindings.truncate(outside);
                        match stanza {
                            Ok(stanza) if !has_long_address(&stanza) => {
                                return Ok(Some(XmlEvent::Stanza(stanza)));
                            }
                            Ok(_) => Why::LongAddress,
                            Err(Unread::XmlError(error)) => return Err(error),
                            Err(Unread::Names(what)) => Why::Names(what),
                        }
                    }
                };
                XmlEvent::Skipped(Skipped::new(why, bytes))
            }
        }))
    }
}

impl Skipped {
    /// `bytes` are the first bytes of the stanza.
    fn new(why: Why, bytes: &[u8]) -> Skipped {
        // The bytes may end within a character.
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
        };
        let tag = start_tag(text);
        let name = tag.split(SPACE).next().unwrap_or_default();
        let name = name.strip_suffix('/').unwrap_or(name);
        let mut stanza = Element::new("", COMPONENT);
        let content = BytesStart::from_content(tag, name.len());
        // They end early at the `/` of an empty tag, or where the tag is incomplete.
        for attribute in content
            .attributes()
            .with_checks(false)
            .map_while(Result::ok)
        {
            let key = attribute.key.into_inner();
            if key == b"xmlns" {
                let namespace = attribute_value(&attribute).unwrap_or_default();
                // None of the supported namespaces is longer.
                let namespace = Some(namespace).filter(|n| n.len() <= MAX_NAME);
                stanza.namespace = Name::namespace(&namespace.unwrap_or_default());
            }
            let known = REPEATED.iter().find(|(name, _)| name.as_bytes() == key);
            let Some(&(name, most)) = known else {
                continue;
            };
            // A character takes at most twelve bytes as a reference without redundant zeros.
            if attribute.value.len() > 12 * most || stanza.attribute(name).is_some() {
                continue;
            }
            match attribute_value(&attribute) {
                Ok(value) if value.len() <= most => stanza = stanza.with(name, value),
                _ => {}
            }
        }
        if name.len() <= MAX_NAME {
            stanza.name = Name::local(name);
        }
        Skipped { why, stanza }
    }
}

/// Attributes of a stanza that a reply repeats or depends on, and their maximum lengths in bytes.
const REPEATED: [(&str, usize); 4] = [
    ("type", MAX_NAME),
    ("id", MAX_ID),
    ("from", MAX_ADDRESS),
    ("to", MAX_ADDRESS),
];

fn has_long_address(stanza: &Element) -> bool {
    let long = |name, most| {
        stanza
            .attribute(name)
            .is_some_and(|value| value.len() > most)
    };
    REPEATED[1..].iter().any(|(name, most)| long(name, *most))
}

/// The text between the `<` and the `>` of the first tag, or all text after the `<` if the tag is incomplete.
fn start_tag(text: &str) -> &str {
    let tag = text.strip_prefix('<').unwrap_or_default();
    let mut quote = None;
    for (at, byte) in tag.bytes().enumerate() {
        match (quote, byte) {
            (None, b'>') => return &tag[..at],
            (None, b'\'' | b'"') => quote = Some(byte),
            (Some(q), byte) if byte == q => quote = None,
            _ => {}
        }
    }
    tag
}

/// Parses the stream's opening tag, whose namespace declarations apply to all stanzas.
fn read_header(text: &str, bindings: &mut Vec<Binding>) -> Result<Element, XmlError> {
    let Ok(Event::Start(tag)) = quick_xml::Reader::from_str(text).read_event() else {
        return Err(BROKEN);
    };
    read_start(&tag, bindings).map_err(|unread| match unread {
        Unread::XmlError(error) => error,
        Unread::Names(what) => XmlError::Malformed(what),
    })
}

/// Parses a complete stanza. `bindings` are the declarations outside it; those inside it are added.
fn read_stanza(text: &str, bindings: &mut Vec<Binding>) -> Result<Element, Unread> {
    // Each with the number of bindings outside it.
    let mut open: Vec<(Element, usize)> = Vec::new();
    let mut reader = quick_xml::Reader::from_str(text);
    loop {
        let outside = bindings.len();
        let complete = match reader.read_event() {
            Ok(Event::Start(tag)) => {
                open.push((read_start(&tag, bindings)?, outside));
                continue;
            }
            Ok(Event::Empty(tag)) => {
                let element = read_start(&tag, bindings)?;
                bindings.truncate(outside);
                Some(element)
            }
            // quick-xml has compared the names.
            Ok(Event::End(_)) => open.pop().map(|(element, outside)| {
                bindings.truncate(outside);
                element
            }),
            Ok(Event::Text(text)) => {
                let text = text.xml10_content();
                push_text(&mut open, &text.map_err(|_| BROKEN)?);
                continue;
            }
            Ok(Event::CData(text)) => {
                let text = text.xml10_content();
                push_text(&mut open, &text.map_err(|_| BROKEN)?);
                continue;
            }
            Ok(Event::GeneralRef(reference)) => {
                push_reference(&mut open, &reference)?;
                continue;
            }
            _ => None,
        };
        let Some(element) = complete else {
            return Err(BROKEN.into());
        };
        match open.last_mut() {
            Some((parent, _)) => parent.children.push(Node::Element(element)),
            // quick-xml must find the same end as the scanner.
            None if usize::try_from(reader.buffer_position()) == Ok(text.len()) => {
                return Ok(element);
            }
            None => return Err(BROKEN.into()),
        }
    }
}

/// An error that quick-xml reports although the scanner did not; this must not happen.
pub const BROKEN: XmlError = XmlError::Malformed("broken XML");

/// Merges adjacent text, CDATA sections and references into one text node.
fn push_text(open: &mut [(Element, usize)], text: &str) {
    let Some((parent, _)) = open.last_mut() else {
        return;
    };
    match parent.children.last_mut() {
        Some(Node::Text(before)) => before.push_str(text),
        _ if text.is_empty() => {}
        _ => parent.children.push(Node::Text(text.to_owned())),
    }
}

fn push_reference(open: &mut [(Element, usize)], reference: &BytesRef<'_>) -> Result<(), XmlError> {
    match reference.resolve_char_ref() {
        Ok(Some(character)) => push_text(open, character.encode_utf8(&mut [0; 4])),
        Ok(None) => {
            let name = std::str::from_utf8(reference).map_err(|_| BROKEN)?;
            push_text(open, resolve_predefined_entity(name).ok_or(BROKEN)?);
        }
        Err(_) => return Err(BROKEN),
    }
    Ok(())
}

/// Parses a start tag and adds its declarations to the bindings.
fn read_start(tag: &BytesStart<'_>, bindings: &mut Vec<Binding>) -> Result<Element, Unread> {
    let outside = bindings.len();
    let mut written = Vec::with_capacity(MAX_PAIRWISE);
    for attribute in tag.attributes().with_checks(false) {
        written.push(attribute.map_err(|_| BROKEN)?);
    }
    if has_double(written.iter().map(|attribute| attribute.key)) {
        return Err(XmlError::Malformed("an attribute given twice").into());
    }
    for attribute in &written {
        if let Some(prefix) = declared_prefix(attribute) {
            bind(text_of(prefix)?, &attribute_value(attribute)?, bindings)?;
        }
    }
    let declared = bindings.len() - outside;

    let (prefix, name) = read_name(tag.name())?;
    let mut element = Element {
        name,
        namespace: resolve(prefix, bindings)?,
        attributes: Vec::with_capacity(written.len() - declared),
        children: Vec::new(),
    };
    for attribute in &written {
        if declared_prefix(attribute).is_some() {
            continue;
        }
        let (prefix, name) = read_name(attribute.key)?;
        element.attributes.push(Attribute {
            name,
            namespace: match prefix {
                "" => None,
                prefix => Some(resolve(prefix, bindings)?),
            },
            value: attribute_value(attribute)?.into_owned(),
        });
    }
    // Once more with resolved namespaces: two prefixes may be bound to the same namespace.
    let names = element.attributes.iter().filter_map(|a| {
        let namespace = a.namespace.as_deref()?;
        Some((namespace, &*a.name))
    });
    match has_double(names) {
        true => Err(Unread::Names("an attribute given twice")),
        false => Ok(element),
    }
}

/// The prefix that this attribute declares, empty for the default namespace; `None` if it is not a declaration.
fn declared_prefix<'a>(attribute: &RawAttribute<'a>) -> Option<&'a [u8]> {
    match attribute.key.into_inner().strip_prefix(b"xmlns")? {
        [] => Some(&[]),
        [b':', prefix @ ..] if !prefix.is_empty() => Some(prefix),
        _ => None,
    }
}

/// Binds a prefix, or the default namespace when it is empty (Namespaces in XML 1.0 §3).
fn bind(prefix: &str, namespace: &str, bindings: &mut Vec<Binding>) -> Result<(), Unread> {
    let valid = match prefix {
        "" => namespace != XML && namespace != XMLNS,
        "xml" => namespace == XML,
        "xmlns" => false,
        prefix => {
            is_name(prefix) && !namespace.is_empty() && namespace != XML && namespace != XMLNS
        }
    };
    if !valid {
        return Err(Unread::Names("an invalid namespace declaration"));
    }
    if bindings.len() >= MAX_BINDINGS {
        return Err(Unread::Names("more than 64 namespace declarations"));
    }
    bindings.push(Binding {
        prefix: prefix.to_owned(),
        namespace: Name::namespace(namespace),
    });
    Ok(())
}

/// The namespace of a prefix, or the default namespace for an empty one.
fn resolve(prefix: &str, bindings: &[Binding]) -> Result<Name, Unread> {
    let bound = bindings.iter().rev().find(|b| b.prefix == prefix);
    match (bound, prefix) {
        (Some(binding), _) => Ok(binding.namespace.clone()),
        (None, "") => Ok(Name::Known("")),
        (None, "xml") => Ok(Name::Known(XML)),
        (None, _) => Err(Unread::Names("an undeclared prefix")),
    }
}

/// Checks that `<?xml ...?>` declares XML 1.0 in UTF-8 (RFC 6120 §11.5, §11.6).
fn check_declaration(text: &str) -> Result<(), XmlError> {
    let content = text.strip_prefix("<?").and_then(|t| t.strip_suffix("?>"));
    let content = content.unwrap_or_default();
    if !content
        .strip_prefix("xml")
        .is_some_and(|rest| rest.starts_with(SPACE))
    {
        return Err(XmlError::Restricted("a processing instruction"));
    }
    let declaration = BytesStart::from_content(content, 3);
    let mut versions = 0;
    for attribute in declaration.attributes() {
        let attribute =
            attribute.map_err(|_| XmlError::Malformed("a malformed XML declaration"))?;
        let value = attribute_value(&attribute)?;
        match attribute.key.into_inner() {
            b"version" if value == "1.0" => versions += 1,
            b"encoding" if value.eq_ignore_ascii_case("utf-8") => {}
            b"standalone" => {}
            _ => return Err(XmlError::Malformed("XML that is not version 1.0 in UTF-8")),
        }
    }
    match versions {
        1 => Ok(()),
        _ => Err(XmlError::Malformed("a malformed XML declaration")),
    }
}

fn text_of(bytes: &[u8]) -> Result<&str, XmlError> {
    std::str::from_utf8(bytes).map_err(|_| BROKEN)
}

/// Whether a name occurs twice. Few names, as in nearly every tag, are compared pairwise; sorting takes care of
/// thousands.
fn has_double<N: Ord>(mut names: impl Iterator<Item = N> + Clone) -> bool {
    if names.clone().nth(MAX_PAIRWISE).is_none() {
        while let Some(name) = names.next() {
            if names.clone().any(|other| other == name) {
                return true;
            }
        }
        return false;
    }
    let mut names: Vec<N> = names.collect();
    names.sort_unstable();
    names.windows(2).any(|pair| pair[0] == pair[1])
}

/// The value with references resolved and white space normalised to spaces (XML 1.0 §3.3.3).
fn attribute_value<'a>(attribute: &'a RawAttribute<'_>) -> Result<Cow<'a, str>, XmlError> {
    let value = attribute.normalized_value(XmlVersion::Explicit1_0);
    value.map_err(|_| BROKEN)
}

/// The prefix of a name (empty if there is none), and its local name.
fn read_name(written: QName<'_>) -> Result<(&str, Name), Unread> {
    let written = written.into_inner();
    if let Some(name) = Name::common(written) {
        return Ok(("", name));
    }
    let written = text_of(written)?;
    let (prefix, name) = written.split_once(':').unwrap_or(("", written));
    let prefixed = name.len() < written.len();
    if !is_name(name) || (prefixed && (!is_name(prefix) || prefix == "xmlns")) {
        return Err(Unread::Names("a malformed name"));
    }
    Ok((prefix, Name::local(name)))
}

/// Whether the text is a name without a colon (XML 1.0 §2.3).
fn is_name(text: &str) -> bool {
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

#[cfg(test)]
mod tests;
