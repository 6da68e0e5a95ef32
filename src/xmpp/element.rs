//! One XML element as a value.
//!
//! Elements have resolved namespaces and no prefixes: the parser ([`super::xml`]) discards prefixes, and the writer
//! declares the namespaces it needs. The only XMPP-specific part is the stanza error (RFC 6120 §8.3).

use std::sync::Arc;

use super::syntax::{is_xml_char, plain_length};

/// Namespace of the prefix `xml`, which needs no declaration (Namespaces in XML 1.0 §3).
pub const XML: &str = "http://www.w3.org/XML/1998/namespace";
/// Namespace of stanzas on a component's stream (XEP-0114).
pub const COMPONENT: &str = "jabber:component:accept";
/// Namespace of stanza error conditions (RFC 6120 §8.3).
pub const STANZA_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";

/// Names of nearly every stanza; these are not allocated.
const NAMES: [&str; 12] = [
    "id",
    "to",
    "from",
    "type",
    "iq",
    "size",
    "request",
    "filename",
    "content-type",
    "query",
    "message",
    "presence",
];

/// Namespaces of nearly every stanza; these are not allocated.
const NAMESPACES: [&str; 2] = [COMPONENT, "urn:xmpp:http:upload:0"];

/// A local name or a namespace.
#[derive(Clone, Debug, Eq)]
pub enum Name {
    /// A constant of this crate.
    Known(&'static str),
    /// Received from the peer. Shared, because children inherit their parent's namespace: a long namespace must not be
    /// stored once for each of thousands of children.
    Read(Arc<str>),
}

impl Name {
    /// Makes a local name of received text.
    pub fn local(text: &str) -> Name {
        Name::common(text.as_bytes()).unwrap_or_else(|| Name::Read(Arc::from(text)))
    }

    /// Makes a namespace of received text.
    pub fn namespace(text: &str) -> Name {
        match NAMESPACES.iter().find(|known| **known == text) {
            Some(known) => Name::Known(known),
            None => Name::Read(Arc::from(text)),
        }
    }

    /// The local name of these bytes if it is a common one, which needs no check.
    pub fn common(bytes: &[u8]) -> Option<Name> {
        let known = NAMES.iter().find(|known| known.as_bytes() == bytes)?;
        Some(Name::Known(known))
    }
}

impl std::ops::Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Name::Known(text) => text,
            Name::Read(text) => text,
        }
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Name) -> bool {
        **self == **other
    }
}

/// An element with its attributes and children.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// The name without a prefix.
    pub name: Name,
    /// The namespace; empty when none is declared.
    pub namespace: Name,
    /// In document order; no two have the same name and namespace.
    pub attributes: Vec<Attribute>,
    pub children: Vec<Node>,
}

/// One attribute; namespace declarations are not among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// The name without a prefix.
    pub name: Name,
    /// `None` for a name without a prefix, which is in no namespace.
    pub namespace: Option<Name>,
    /// The value with its references resolved.
    pub value: String,
}

/// A child of an element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    Element(Element),
    /// Text with its references resolved. The parser never produces two adjacent text nodes.
    Text(String),
}

/// Construction.
impl Element {
    /// An empty element. The name must be an XML name without a colon; it is written without escaping.
    pub fn new(name: &'static str, namespace: &'static str) -> Element {
        Element {
            name: Name::Known(name),
            namespace: Name::Known(namespace),
            attributes: Vec::new(),
            children: Vec::new(),
        }
    }

    /// Sets an attribute without a namespace.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Element {
        self.set(name, None, value.into());
        self
    }

    /// Sets an attribute without a namespace if the value is `Some`.
    pub fn with_some(self, name: &'static str, value: Option<String>) -> Element {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// Sets `xml:lang`, the language of the text (XML 1.0 §2.12).
    pub fn with_language(mut self, tag: &str) -> Element {
        self.set("lang", Some(Name::Known(XML)), tag.to_owned());
        self
    }

    /// Appends a child.
    pub fn with_child(mut self, child: Element) -> Element {
        self.children.push(Node::Element(child));
        self
    }

    /// Appends several children.
    pub fn with_children(mut self, children: impl IntoIterator<Item = Element>) -> Element {
        self.children
            .extend(children.into_iter().map(Node::Element));
        self
    }

    /// Appends text.
    pub fn with_text(mut self, text: impl Into<String>) -> Element {
        self.children.push(Node::Text(text.into()));
        self
    }

    fn set(&mut self, name: &'static str, namespace: Option<Name>, value: String) {
        let name = Name::Known(name);
        let same = |a: &&mut Attribute| a.name == name && a.namespace == namespace;
        match self.attributes.iter_mut().find(same) {
            Some(attribute) => attribute.value = value,
            None => self.attributes.push(Attribute {
                name,
                namespace,
                value,
            }),
        }
    }
}

/// Access.
impl Element {
    /// Whether the element has this name in this namespace.
    pub fn is(&self, name: &str, namespace: &str) -> bool {
        *self.name == *name && *self.namespace == *namespace
    }

    /// The value of an attribute without a namespace.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|a| a.namespace.is_none() && *a.name == *name)
            .map(|a| a.value.as_str())
    }

    /// Takes the value of an attribute without a namespace and leaves an empty one in its place.
    pub fn take(&mut self, name: &str) -> Option<String> {
        self.attributes
            .iter_mut()
            .find(|a| a.namespace.is_none() && *a.name == *name)
            .map(|a| std::mem::take(&mut a.value))
    }

    /// The child elements, in order.
    pub fn elements(&self) -> impl Iterator<Item = &Element> {
        self.children.iter().filter_map(|node| match node {
            Node::Element(element) => Some(element),
            Node::Text(_) => None,
        })
    }

    /// The child elements, in order.
    pub fn into_elements(self) -> impl Iterator<Item = Element> {
        self.children.into_iter().filter_map(|node| match node {
            Node::Element(element) => Some(element),
            Node::Text(_) => None,
        })
    }

    /// The first child of this name in this namespace.
    pub fn child(&self, name: &str, namespace: &str) -> Option<&Element> {
        self.elements().find(|child| child.is(name, namespace))
    }

    /// The concatenated text of the element, without that of its child elements.
    pub fn text(&self) -> String {
        let texts = self.children.iter().filter_map(|node| match node {
            Node::Element(_) => None,
            Node::Text(text) => Some(text.as_str()),
        });
        texts.collect()
    }

    /// Approximate length in bytes when written, without escaping. A namespace is counted for each element that may have
    /// to declare it, so this can be far more than the length of the source.
    pub fn weight(&self) -> usize {
        let own = 2 * self.name.len() + self.namespace.len() + 5;
        let attributes = self.attributes.iter().map(|a| {
            let namespace = a.namespace.as_ref().map_or(0, |namespace| namespace.len());
            a.name.len() + namespace + a.value.len() + 4
        });
        let children = self.children.iter().map(|node| match node {
            Node::Element(element) => element.weight(),
            Node::Text(text) => text.len(),
        });
        attributes.chain(children).fold(own, usize::saturating_add)
    }
}

/// Serialisation.
impl Element {
    /// Appends the element as XML for a place where `inherited` is the default namespace. Characters that XML forbids
    /// become U+FFFD.
    pub fn write(&self, inherited: &str, out: &mut Vec<u8>) {
        out.push(b'<');
        out.extend_from_slice(self.name.as_bytes());
        if *self.namespace != *inherited {
            write_attribute("xmlns", &self.namespace, out);
        }
        for (index, attribute) in self.attributes.iter().enumerate() {
            match attribute.namespace.as_deref() {
                None => write_attribute(&attribute.name, &attribute.value, out),
                Some(XML) => {
                    write_attribute(&format!("xml:{}", &*attribute.name), &attribute.value, out);
                }
                Some(namespace) => {
                    write_attribute(&format!("xmlns:ns{index}"), namespace, out);
                    let name = format!("ns{index}:{}", &*attribute.name);
                    write_attribute(&name, &attribute.value, out);
                }
            }
        }
        if self.children.is_empty() {
            out.extend_from_slice(b"/>");
            return;
        }
        out.push(b'>');
        for node in &self.children {
            match node {
                Node::Element(element) => element.write(&self.namespace, out),
                Node::Text(text) => escape(text, false, out),
            }
        }
        out.extend_from_slice(b"</");
        out.extend_from_slice(self.name.as_bytes());
        out.push(b'>');
    }
}

/// An `<error/>` child (RFC 6120 §8.3.2): its type, the condition, and a human-readable sentence.
pub fn stanza_error(kind: &str, condition: &'static str, text: Option<&str>) -> Element {
    let error = Element::new("error", COMPONENT)
        .with("type", kind)
        .with_child(Element::new(condition, STANZA_ERRORS));
    match text {
        Some(text) => error.with_child(
            Element::new("text", STANZA_ERRORS)
                .with_language("en")
                .with_text(text),
        ),
        None => error,
    }
}

fn write_attribute(name: &str, value: &str, out: &mut Vec<u8>) {
    out.push(b' ');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"='");
    escape(value, true, out);
    out.push(b'\'');
}

/// Writes text so that a parser restores it exactly. Parsers normalise white space in attributes to spaces (XML 1.0
/// §3.3.3) and CR to LF everywhere (§2.11), so these are written as references.
fn escape(text: &str, in_attribute: bool, out: &mut Vec<u8>) {
    let mut rest = text;
    loop {
        let (plain, special) = rest.split_at(plain_length(rest.as_bytes()));
        out.extend_from_slice(plain.as_bytes());
        let mut after = special.chars();
        let Some(c) = after.next() else {
            return;
        };
        rest = after.as_str();
        let written = match c {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            '\r' => "&#13;",
            '\'' if in_attribute => "&apos;",
            '"' if in_attribute => "&quot;",
            '\t' if in_attribute => "&#9;",
            '\n' if in_attribute => "&#10;",
            c if is_xml_char(c) => &special[..c.len_utf8()],
            _ => "\u{FFFD}",
        };
        out.extend_from_slice(written.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(element: &Element, written: &str) {
        let mut out = Vec::new();
        element.write(COMPONENT, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), written);
    }

    #[test]
    fn declares_a_namespace_only_where_it_changes() {
        check(&Element::new("iq", COMPONENT), "<iq/>");
        check(&Element::new("a", ""), "<a xmlns=''/>");
        let tree = Element::new("iq", COMPONENT).with_child(
            Element::new("query", "q")
                .with_child(Element::new("x", "q"))
                .with_child(Element::new("y", "z").with_text("t"))
                .with_child(Element::new("n", "")),
        );
        check(
            &tree,
            "<iq><query xmlns='q'><x/><y xmlns='z'>t</y><n xmlns=''/></query></iq>",
        );
    }

    #[test]
    fn escapes_markup_and_white_space() {
        let element = Element::new("a", COMPONENT)
            .with("v", "<&>'\"\t\r\n ü😀")
            .with_text("<&>'\"\t\r\n ]]> ü😀");
        check(
            &element,
            "<a v='&lt;&amp;&gt;&apos;&quot;&#9;&#13;&#10; ü😀'>\
             &lt;&amp;&gt;'\"\t&#13;\n ]]&gt; ü😀</a>",
        );
        check(
            &Element::new("a", COMPONENT).with_text("\u{0}\u{1B}\u{FFFE}\u{FFFF}x"),
            "<a>\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}x</a>",
        );
    }

    #[test]
    fn writes_attributes_of_other_namespaces() {
        let mut element = Element::new("a", COMPONENT)
            .with("x", "1")
            .with_language("en");
        element.set("x", Some(Name::namespace("urn:o'")), "2".to_owned());
        check(
            &element,
            "<a x='1' xml:lang='en' xmlns:ns2='urn:o&apos;' ns2:x='2'/>",
        );
        assert_eq!(element.attribute("x"), Some("1"));
        assert_eq!(element.attribute("lang"), None);
    }

    #[test]
    fn replaces_a_value_and_skips_an_absent_one() {
        check(
            &Element::new("a", COMPONENT)
                .with("x", "1")
                .with("x", "2")
                .with_some("y", None)
                .with_some("z", Some("3".to_owned())),
            "<a x='2' z='3'/>",
        );
    }

    #[test]
    fn finds_children_and_text() {
        let element = Element::new("a", "n")
            .with_text("one ")
            .with_child(Element::new("b", "other"))
            .with_child(Element::new("b", "n").with_text("inner"))
            .with_text("two");
        assert_eq!(element.text(), "one two");
        assert_eq!(element.child("b", "n").unwrap().text(), "inner");
        assert!(element.child("c", "n").is_none());
        assert_eq!(element.elements().count(), 2);
        assert!(element.is("a", "n") && !element.is("a", "m") && !element.is("b", "n"));
    }

    #[test]
    fn the_weight_counts_every_declaration() {
        let long = "n".repeat(1000);
        let child = || Element {
            namespace: Name::namespace(&long),
            ..Element::new("c", "")
        };
        let element = Element::new("p", "").with_children((0..10).map(|_| child()));
        assert!(element.weight() > 10_000 && element.weight() < 11_000);
    }

    #[test]
    fn an_error_has_a_condition_and_a_text_with_its_language() {
        check(
            &stanza_error("modify", "bad-request", Some("No <good>.")),
            "<error type='modify'><bad-request xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>\
             <text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas' xml:lang='en'>No &lt;good&gt;.</text></error>",
        );
        check(
            &stanza_error("cancel", "service-unavailable", None),
            "<error type='cancel'>\
             <service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>",
        );
    }
}
