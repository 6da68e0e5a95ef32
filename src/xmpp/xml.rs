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

use std::sync::Arc;

use quick_xml::XmlVersion;
use quick_xml::escape::{EscapeError, unescape};
use quick_xml::events::attributes::Attribute as RawAttribute;
use quick_xml::events::{BytesCData, BytesStart, BytesText};

use super::element::{Attribute, Element, Node, XML, is_xml_char};
use super::token::{Token, Tokens};

pub use super::token::{Fault, MAX_STANZA};

/// The most elements inside each other in one stanza, itself included.
pub const MAX_DEPTH: usize = 32;

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
    namespace: Arc<str>,
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
        let declared = &mut self.bindings[outer_bindings..];
        declared.sort_by(|a, b| a.prefix.cmp(&b.prefix));
        if declared.windows(2).any(|b| b[0].prefix == b[1].prefix) {
            return Err(Fault::Malformed("a namespace declared twice"));
        }

        let (prefix, name) = split_name(written)?;
        let mut element = Element {
            name: name.to_owned(),
            namespace: self.resolve(prefix)?,
            attributes: Vec::with_capacity(plain.len()),
            children: Vec::new(),
        };
        for (name, value) in plain {
            let (prefix, name) = split_name(name)?;
            element.attributes.push(Attribute {
                name: name.to_owned(),
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
            namespace: Arc::from(namespace),
        });
        Ok(())
    }

    /// The namespace that a prefix stands for, or the default one.
    fn resolve(&self, prefix: &str) -> Result<Arc<str>, Fault> {
        let bound = self.bindings.iter().rev().find(|b| b.prefix == prefix);
        match (bound, prefix) {
            (Some(binding), _) => Ok(Arc::clone(&binding.namespace)),
            (None, "") => Ok(Arc::from("")),
            (None, "xml") => Ok(Arc::from(XML)),
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
    let mut names: Vec<(Option<&str>, &str)> = attributes
        .iter()
        .map(|a| (a.namespace.as_deref(), a.name.as_str()))
        .collect();
    names.sort_unstable();
    match names.windows(2).any(|pair| pair[0] == pair[1]) {
        true => Err(Fault::Malformed("an attribute given twice")),
        false => Ok(()),
    }
}

/// The value with its references resolved and its white space made blanks (XML 1.0 §3.3.3).
fn attribute_value(attribute: &RawAttribute<'_>) -> Result<String, Fault> {
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
    match text.chars().all(is_xml_char) {
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
mod tests {
    use super::super::element::COMPONENT;
    use super::*;

    const OPEN: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' \
                        xmlns:stream='http://etherx.jabber.org/streams' id='3BF96D32'>";

    /// Everything that comes out when the bytes come in in these pieces.
    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<XmlEvent>, Option<Fault>) {
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
                assert!(events.len() < 100_000);
            }
            assert!(reader.tokens.waiting() <= MAX_STANZA);
        }
        (events, None)
    }

    /// The same whole, byte by byte, and split at every byte.
    #[track_caller]
    fn read_all_ways(bytes: &[u8]) -> (Vec<XmlEvent>, Option<Fault>) {
        let whole = read([bytes]);
        assert_eq!(read(bytes.chunks(1)), whole, "byte by byte");
        if bytes.len() < 2000 {
            for at in 0..bytes.len() {
                let (a, b) = bytes.split_at(at);
                assert_eq!(read([a, b]), whole, "split at {at}");
            }
        }
        whole
    }

    /// One stanza, as it is written again inside a component's stream.
    #[track_caller]
    fn check(stanza: &str, written: &str) {
        let (events, fault) = read_all_ways(format!("{OPEN}{stanza}<after/>").as_bytes());
        assert_eq!(fault, None, "{stanza}");
        let [
            XmlEvent::Opened(_),
            XmlEvent::Stanza(element),
            XmlEvent::Stanza(_),
        ] = &events[..]
        else {
            panic!("{events:?}");
        };
        let mut out = Vec::new();
        element.write(COMPONENT, &mut out);
        assert_eq!(String::from_utf8(out.clone()).unwrap(), written);

        // What was written is read back as the same element.
        let again = [OPEN.as_bytes(), &out].concat();
        let (events, fault) = read([&again[..]]);
        assert_eq!(fault, None);
        assert_eq!(events[1], XmlEvent::Stanza(element.clone()));
    }

    /// Bytes after the stream's header that are a fault.
    #[track_caller]
    fn check_fault(stanza: impl AsRef<[u8]>, expected: fn(&'static str) -> Fault) {
        let mut bytes = OPEN.as_bytes().to_vec();
        bytes.extend_from_slice(stanza.as_ref());
        bytes.extend_from_slice(b" <after/></stream:stream>");
        let (events, fault) = read_all_ways(&bytes);
        let stanza = String::from_utf8_lossy(stanza.as_ref());
        let fault = fault.unwrap_or_else(|| panic!("no fault in {stanza}: {events:?}"));
        let (Fault::Malformed(what) | Fault::Restricted(what) | Fault::TooLarge(what)) = fault;
        assert_eq!(fault, expected(what), "{stanza}");
        assert_eq!(events.len(), 1, "{stanza}: {events:?}");
    }

    #[test]
    fn reads_a_stream_from_end_to_end() {
        let text = format!("{OPEN} \n<a/>\t<b x='1'>t</b>\r\n</stream:stream >trailing <<");
        let (events, fault) = read_all_ways(text.as_bytes());
        assert_eq!(fault, None);
        let [
            XmlEvent::Opened(root),
            XmlEvent::Stanza(a),
            XmlEvent::Stanza(b),
            XmlEvent::Closed,
        ] = &events[..]
        else {
            panic!("{events:?}");
        };
        assert!(root.is("stream", "http://etherx.jabber.org/streams"));
        assert_eq!(root.attribute("id"), Some("3BF96D32"));
        assert!(root.attributes.len() == 1 && root.children.is_empty());
        assert!(a.is("a", COMPONENT) && b.is("b", COMPONENT));
        assert_eq!(b.text(), "t");
    }

    #[test]
    fn refuses_text_after_a_stanza() {
        let (events, fault) = read_all_ways(format!("{OPEN}<a>x</a> text").as_bytes());
        assert_eq!(events.len(), 2);
        assert_eq!(fault, Some(Fault::Malformed("text outside of a stanza")));
    }

    #[test]
    fn takes_every_form_of_tag_and_text() {
        check("<a/>", "<a/>");
        check("<a></a>", "<a/>");
        check("<a  x = '1'\n\ty=\"2\" />", "<a x='1' y='2'/>");
        check("<a x='>' y='/>'/>", "<a x='&gt;' y='/&gt;'/>");
        check("<a x='\"' y=\"'\"/>", "<a x='&quot;' y='&apos;'/>");
        check("<a x=''></a\n>", "<a x=''/>");
        check("<a>one<b/>two</a>", "<a>one<b/>two</a>");
        check("<a> \n </a>", "<a> \n </a>");
        check("<a>]] ></a>", "<a>]] &gt;</a>");
        check("<ü-1.2·/>", "<ü-1.2·/>");
        check("<a>😀 é</a>", "<a>😀 é</a>");
    }

    #[test]
    fn resolves_references_and_sections() {
        check(
            "<a>&lt;&gt;&amp;&apos;&quot;</a>",
            "<a>&lt;&gt;&amp;'\"</a>",
        );
        check("<a>&#65;&#x41;&#x1F600;</a>", "<a>AA😀</a>");
        check("<a>&amp;lt;&amp;amp;</a>", "<a>&amp;lt;&amp;amp;</a>");
        check(
            "<a x='&lt;&amp;&gt;&apos;&quot;&#65;'/>",
            "<a x='&lt;&amp;&gt;&apos;&quot;A'/>",
        );
        check("<a x='&amp;amp;'/>", "<a x='&amp;amp;'/>");
        check(
            "<a><![CDATA[<b>&amp;]]]]></a>",
            "<a>&lt;b&gt;&amp;amp;]]</a>",
        );
        check("<a>x<![CDATA[y]]>z<![CDATA[]]></a>", "<a>xyz</a>");
        check("<a><![CDATA[]]></a>", "<a/>");
        check("<a><![CDATA[]>]]]></a>", "<a>]&gt;]</a>");
    }

    #[test]
    fn makes_line_ends_and_blanks_what_xml_says() {
        check("<a>1\r\n2\r3\n4&#13;5</a>", "<a>1\n2\n3\n4&#13;5</a>");
        check("<a><![CDATA[1\r\n2]]></a>", "<a>1\n2</a>");
        check(
            "<a x='1\r\n2\r3\n4\t5&#13;&#10;&#9;6'/>",
            "<a x='1 2 3 4 5&#13;&#10;&#9;6'/>",
        );
    }

    #[test]
    fn resolves_namespaces() {
        check("<p:a xmlns:p='n'/>", "<a xmlns='n'/>");
        check(
            "<p:a xmlns:p='n'><b/><p:c/></p:a>",
            "<a xmlns='n'><b xmlns='jabber:component:accept'/><c/></a>",
        );
        check(
            "<a xmlns='n'><b xmlns=''><c/></b><d/></a>",
            "<a xmlns='n'><b xmlns=''><c/></b><d/></a>",
        );
        check(
            "<a xmlns:p='1'><p:b xmlns:p='2'/><p:c/></a>",
            "<a><b xmlns='2'/><c xmlns='1'/></a>",
        );
        check("<a xml:lang='en'/>", "<a xml:lang='en'/>");
        check(
            "<a xmlns:xml='http://www.w3.org/XML/1998/namespace' xml:lang='en'/>",
            "<a xml:lang='en'/>",
        );
        check(
            "<a p:x='1' x='2' xmlns:p='n'/>",
            "<a xmlns:ns0='n' ns0:x='1' x='2'/>",
        );
        check("<a xmlnsx='1'/>", "<a xmlnsx='1'/>");
        check(
            "<stream:a/>",
            "<a xmlns='http://etherx.jabber.org/streams'/>",
        );
        check("<a xmlns='a&amp;b'/>", "<a xmlns='a&amp;b'/>");
    }

    #[test]
    fn refuses_what_is_no_xml() {
        for stanza in [
            "text",
            "&amp;",
            "<![CDATA[x]]>",
            "<>",
            "</>",
            "< a/>",
            "<a",
            "<<a/>",
            "<a<b/>",
            "<a/ >",
            "<a//>",
            "<a / >",
            "<a/b>",
            "<1/>",
            "<-a/>",
            "<a!/>",
            "<a x/>",
            "<a x=1/>",
            "<a x='1/>",
            "<a x='1'y='2'/>",
            "<a x='<'/>",
            "<a 'x'/>",
            "<a x='1''/>",
            "<a ='1'/>",
            "<a x='1' x='2'/>",
            "<a 1='1'/>",
            "<a x=='1'/>",
            "<a></b>",
            "<a></ a>",
            "<a></a x='1'>",
            "<a></a/>",
            "</a>",
            "<a></A>",
            "<p:a xmlns:p='n'></a>",
            "<a>]]></a>",
            "<a>&</a>",
            "<a>& </a>",
            "<a>&amp</a>",
            "<a>&amp<b/>;</a>",
            "<a>&#;</a>",
            "<a>&#x;</a>",
            "<a>&#+65;</a>",
            "<a>&#xG;</a>",
            "<a>&#65 ;</a>",
            "<a>&#x110000;</a>",
            "<a>&#xD800;</a>",
            "<a x='&'/>",
            "<a x='&#99999999999;'/>",
        ] {
            check_fault(stanza, Fault::Malformed);
        }
    }

    #[test]
    fn refuses_characters_that_xml_forbids() {
        for c in ["\u{0}", "\u{1}", "\u{B}", "\u{1F}", "\u{FFFE}", "\u{FFFF}"] {
            check_fault(format!("<a>{c}</a>"), Fault::Malformed);
            check_fault(format!("<a x='{c}'/>"), Fault::Malformed);
            check_fault(format!("<a><![CDATA[{c}]]></a>"), Fault::Malformed);
            check_fault(c, Fault::Malformed);
            let reference = format!("&#{};", u32::from(c.chars().next().unwrap()));
            check_fault(format!("<a>{reference}</a>"), Fault::Malformed);
            check_fault(format!("<a x='{reference}'/>"), Fault::Malformed);
        }
        for bytes in [
            &b"\xFF"[..],
            b"\xC3",
            b"\xC0\x80",
            b"\xED\xA0\x80",
            b"\xF8\x88\x80\x80\x80",
        ] {
            check_fault([b"<a>", bytes, b"</a>"].concat(), Fault::Malformed);
            check_fault([b"<a x='", bytes, b"'/>"].concat(), Fault::Malformed);
            check_fault([b"<a", bytes, b"/>"].concat(), Fault::Malformed);
        }
    }

    #[test]
    fn refuses_namespaces_that_are_none() {
        for stanza in [
            "<p:a/>",
            "<a p:x='1'/>",
            "<a xmlns:p=''/>",
            "<a xmlns:='n'/>",
            "<a xmlns:1='n'/>",
            "<:a/>",
            "<a:/>",
            "<xmlns:a/>",
            "<a xmlns:p:q='n'/>",
            "<p:q:a xmlns:p='n'/>",
            "<a :x='1'/>",
            "<a xmlns:xml='n'/>",
            "<a xmlns:xmlns='n'/>",
            "<a xmlns:p='http://www.w3.org/XML/1998/namespace'/>",
            "<a xmlns='http://www.w3.org/XML/1998/namespace'/>",
            "<a xmlns='http://www.w3.org/2000/xmlns/'/>",
            "<a xmlns:p='http://www.w3.org/2000/xmlns/'/>",
            "<a xmlns='1' xmlns='2'/>",
            "<a xmlns:p='1' xmlns:p='2'/>",
            "<a xmlns:p='n' xmlns:q='n' p:x='1' q:x='2'/>",
            "<a xml:lang='en' xml:lang='de'/>",
            "<a><b xmlns:p='n'/><p:c/></a>",
        ] {
            check_fault(stanza, Fault::Malformed);
        }
    }

    #[test]
    fn refuses_what_xmpp_forbids() {
        for stanza in [
            "<!-- c -->",
            "<a><!-- c --></a>",
            "<?pi?>",
            "<a><?pi x?></a>",
            "<?xml version='1.0'?>",
            "<!DOCTYPE a>",
            "<!ENTITY a 'b'>",
            "<a><![cdata[x]]></a>",
            "<a><![INCLUDE[x]]></a>",
            "<a>&nbsp;</a>",
            "<a x='&foo;'/>",
            "<a>&;</a>",
            "<a>&AMP;</a>",
        ] {
            check_fault(stanza, Fault::Restricted);
        }
        for start in [
            "<?xml-stylesheet?><s>",
            "<?pi x?><s>",
            " <?xml version='1.0'?><s>",
        ] {
            let (events, fault) = read_all_ways(start.as_bytes());
            assert!(events.is_empty());
            assert!(
                matches!(fault, Some(Fault::Restricted(_))),
                "{start}: {fault:?}"
            );
        }
    }

    #[test]
    fn takes_only_a_declaration_of_utf_8() {
        for (declaration, sound) in [
            ("", true),
            ("\n ", true),
            ("<?xml version='1.0'?>", true),
            (
                "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone='yes'?>\n",
                true,
            ),
            ("<?xml version='1.0' encoding='utf-8' ?>", true),
            ("<?xml version='1.1'?>", false),
            ("<?xml version='1.0' encoding='latin1'?>", false),
            ("<?xml encoding='utf-8'?>", false),
            ("<?xml version='1.0' version='1.0'?>", false),
            ("<?xml version='1.0' x?>", false),
            ("\u{FEFF}", false),
            ("x", false),
            ("</a>", false),
            ("<a/>", false),
        ] {
            let (events, fault) = read_all_ways(format!("{declaration}<s>").as_bytes());
            assert_eq!(
                (events.len(), fault.is_none()),
                (sound.into(), sound),
                "{declaration}"
            );
        }
    }

    /// A stanza of exactly `size` bytes.
    fn stanza_of(size: usize, filler: &str) -> String {
        let (start, end) = ("<a>", "</a>");
        let count = (size - start.len() - end.len()) / filler.len();
        let mut stanza = format!("{start}{}", filler.repeat(count));
        stanza.push_str(&"x".repeat(size - stanza.len() - end.len()));
        stanza.push_str(end);
        stanza
    }

    #[test]
    fn stops_at_the_limit_of_a_stanza_to_the_byte() {
        for filler in ["x", "<b/>", "<![CDATA[]]>", "&lt;", "<b xmlns='n'>é</b>"] {
            let stanza = stanza_of(MAX_STANZA, filler);
            let twice = format!("{OPEN}{stanza}  {stanza}");
            let (events, fault) = read_all_ways(twice.as_bytes());
            assert_eq!((events.len(), fault), (3, None), "{filler}");
            check_fault(stanza_of(MAX_STANZA + 1, filler), Fault::TooLarge);
        }
        let x = "x".repeat(MAX_STANZA);
        check_fault(format!("<{x}"), Fault::TooLarge);
        check_fault(format!("<a {x}"), Fault::TooLarge);
        check_fault(format!("<a x='{x}"), Fault::TooLarge);
        check_fault(format!("<a></{x}"), Fault::TooLarge);
        check_fault(format!("</{x}"), Fault::TooLarge);
        check_fault(format!("<a><![CDATA[{x}"), Fault::TooLarge);
        check_fault(format!("<a>{x}<!-- -->"), Fault::TooLarge);
        check_fault(format!("<a>\u{1}{x}"), Fault::TooLarge);
        for start in [format!("<?xml {x}"), format!("<s x='{x}'>")] {
            let (_, fault) = read_all_ways(start.as_bytes());
            assert!(matches!(fault, Some(Fault::TooLarge(_))), "{fault:?}");
        }
    }

    #[test]
    fn stops_at_the_limit_of_levels() {
        let nested = |levels| format!("{}{}", "<a>".repeat(levels), "</a>".repeat(levels));
        let (events, fault) = read_all_ways(format!("{OPEN}{}", nested(MAX_DEPTH)).as_bytes());
        assert_eq!((events.len(), fault), (2, None));
        check_fault(nested(MAX_DEPTH + 1), Fault::TooLarge);
        check_fault("<a>".repeat(20_000), Fault::TooLarge);
    }

    #[test]
    fn drops_white_space_between_stanzas_at_once() {
        let mut reader = Reader::new();
        reader.received(OPEN.as_bytes());
        assert!(reader.next_event().unwrap().is_some());
        for _ in 0..1000 {
            reader.received(&[b' '; 1024]);
            assert_eq!(reader.next_event(), Ok(None));
            assert_eq!(reader.tokens.waiting(), 0);
        }
    }

    #[test]
    fn shares_a_long_namespace_among_children() {
        let stanza = format!(
            "<a xmlns='{}'>{}</a>",
            "n".repeat(30_000),
            "<b/>".repeat(8_000)
        );
        let (events, _) = read([OPEN.as_bytes(), stanza.as_bytes()]);
        let XmlEvent::Stanza(element) = &events[1] else {
            panic!("no stanza");
        };
        assert!(
            element
                .elements()
                .all(|b| Arc::ptr_eq(&b.namespace, &element.namespace))
        );
        assert!(element.weight() > 200_000_000);
    }

    #[test]
    fn is_not_slow_with_many_attributes_and_prefixes() {
        // Quadratic work over these would take seconds, not milliseconds.
        let attributes: String = (0..6_000).map(|n| format!(" a{n}=''")).collect();
        let (events, fault) = read([OPEN.as_bytes(), format!("<a{attributes}/>").as_bytes()]);
        assert_eq!((events.len(), fault), (2, None));
        let declared: String = (0..3_000).map(|n| format!(" xmlns:p{n}='n'")).collect();
        let (events, fault) = read([OPEN.as_bytes(), format!("<a{declared}/>").as_bytes()]);
        assert_eq!((events.len(), fault), (2, None));
    }

    #[test]
    fn never_panics_and_never_depends_on_the_split() {
        let corpus = [
            "<iq type='get' id='1' to='u.x' from='a@b/c'><query xmlns='n'/></iq>",
            "<p:a xmlns:p='n' p:x='&lt;&#65;' xml:lang=\"en\">t&amp;<![CDATA[<x>]]]>]]><b/></p:a>",
            "<message><body>é😀\r\n</body></message> \n <presence/>",
            "<stream:error><conflict xmlns='e'/></stream:error></stream:stream>",
        ];
        let spice: &[&[u8]] = &[
            b"<",
            b">",
            b"/",
            b"'",
            b"\"",
            b"&",
            b";",
            b"]",
            b"!",
            b"?",
            b"=",
            b":",
            b"]]>",
            b"<![CDATA[",
            b"<a>",
            b"</a>",
            b"&#0;",
            b"xmlns",
            b" xmlns:p='q'",
            b"\0",
            b"\xFF",
            b"\xC3",
            b" ",
            b"-->",
        ];
        let mut random = 0x9E37_79B9_7F4A_7C15_u64;
        let mut next = |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            usize::try_from(random % below as u64).unwrap()
        };
        let (mut sound, mut faulty) = (0, 0);
        for _ in 0..8_000 {
            let mut bytes = OPEN.as_bytes().to_vec();
            let from = bytes.len();
            bytes.extend_from_slice(corpus[next(corpus.len())].as_bytes());
            bytes.extend_from_slice(corpus[next(corpus.len())].as_bytes());
            for _ in 0..=next(3) {
                let at = from + next(bytes.len() - from);
                match next(3) {
                    0 => drop(bytes.remove(at)),
                    1 => bytes[at] = spice[next(spice.len())][0],
                    _ => drop(bytes.splice(at..at, spice[next(spice.len())].iter().copied())),
                }
            }
            let whole = read([&bytes[..]]);
            assert_eq!(read(bytes.chunks(1)), whole);
            let at = next(bytes.len());
            assert_eq!(read([&bytes[..at], &bytes[at..]]), whole);
            for event in &whole.0 {
                let XmlEvent::Stanza(element) = event else {
                    continue;
                };
                let mut out = OPEN.as_bytes().to_vec();
                element.write(COMPONENT, &mut out);
                let (again, fault) = read([&out[..]]);
                assert_eq!(fault, None);
                assert_eq!(again[1], *event);
            }
            match whole.1 {
                None => sound += 1,
                Some(_) => faulty += 1,
            }
        }
        assert!(
            sound > 200 && faulty > 2_000,
            "{sound} sound, {faulty} faulty"
        );
    }
}
