//! A parser for the subset of XML that XMPP allows.
//!
//! It is deliberately strict, because it checks the program's output.

/// An element: name as written, namespace, content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    pub name: String,
    pub space: String,
    pub attributes: Vec<(String, String)>,
    pub children: Vec<Element>,
    pub text: String,
}

/// What the next bytes contain.
#[derive(Debug)]
pub enum Found {
    /// More bytes are needed.
    Incomplete,
    /// An element, and how many bytes it took.
    Whole(Element, usize),
    /// A closing tag without its opening tag, which ends a stream.
    Close(usize),
}

impl Element {
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The first child of that name in any namespace.
    pub fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The first child of that name and namespace.
    #[track_caller]
    pub fn expect(&self, name: &str, space: &str) -> &Element {
        let found = self
            .children
            .iter()
            .find(|child| child.name == name && child.space == space);
        found.unwrap_or_else(|| panic!("no <{name} xmlns='{space}'> in {self:?}"))
    }
}

/// Parses the beginning of `bytes`; white space and an XML declaration may precede the element.
pub fn next(bytes: &[u8]) -> Found {
    let mut reader = Reader { bytes, at: 0 };
    match reader.top(false) {
        Some((Some(element), _)) => Found::Whole(element, reader.at),
        Some((None, _)) => Found::Close(reader.at),
        None => Found::Incomplete,
    }
}

/// The opening tag of a stream, as an element without children.
pub fn opening(bytes: &[u8]) -> Found {
    let mut reader = Reader { bytes, at: 0 };
    match reader.top(true) {
        Some((Some(element), _)) => Found::Whole(element, reader.at),
        Some((None, _)) => Found::Close(reader.at),
        None => Found::Incomplete,
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn top(&mut self, opening_only: bool) -> Option<(Option<Element>, ())> {
        loop {
            while self.peek()?.is_ascii_whitespace() {
                self.at += 1;
            }
            if self.bytes[self.at..].starts_with(b"<?xml ") {
                self.until(b"?>")?;
                continue;
            }
            self.peek_at(1)?;
            assert_eq!(
                self.bytes[self.at],
                b'<',
                "text between stanzas: {}",
                self.rest()
            );
            if self.bytes[self.at + 1] == b'/' {
                self.until(b">")?;
                return Some((None, ()));
            }
            let scope = vec![(String::new(), "jabber:component:accept".to_owned())];
            return Some((Some(self.element(&scope, opening_only)?), ()));
        }
    }

    fn element(&mut self, outer: &[(String, String)], opening_only: bool) -> Option<Element> {
        let tag = self.until(b">")?;
        let tag = tag.strip_prefix('<').unwrap().strip_suffix('>').unwrap();
        let (tag, empty) = match tag.strip_suffix('/') {
            Some(tag) => (tag, true),
            None => (tag, false),
        };
        let name: String = tag
            .chars()
            .take_while(|c| !c.is_ascii_whitespace())
            .collect();
        assert!(
            !name.is_empty() && !name.starts_with(['!', '?']),
            "<{tag}> is not allowed in XMPP"
        );
        let mut attributes = Vec::new();
        let mut scope = outer.to_vec();
        let mut rest = tag[name.len()..].trim_start();
        while !rest.is_empty() {
            let (key, value) = rest
                .split_once('=')
                .unwrap_or_else(|| panic!("attribute without value in <{tag}>"));
            let quote = value.chars().next().unwrap();
            assert!(
                matches!(quote, '"' | '\''),
                "attribute without quotes in <{tag}>"
            );
            let end = value[1..].find(quote).unwrap() + 1;
            let text = unescape(&value[1..end]);
            if key == "xmlns" {
                scope.push((String::new(), text.clone()));
            } else if let Some(prefix) = key.strip_prefix("xmlns:") {
                scope.push((prefix.to_owned(), text.clone()));
            }
            assert!(
                !attributes.iter().any(|(other, _)| other == key),
                "attribute twice in <{tag}>"
            );
            attributes.push((key.to_owned(), text));
            rest = value[end + 1..].trim_start();
        }
        let prefix = name.split_once(':').map_or("", |(prefix, _)| prefix);
        let space = scope
            .iter()
            .rev()
            .find(|(key, _)| key == prefix)
            .map_or("", |(_, space)| space)
            .to_owned();
        let mut element = Element {
            name: name.clone(),
            space,
            attributes,
            children: Vec::new(),
            text: String::new(),
        };
        if empty || opening_only {
            return Some(element);
        }
        loop {
            self.peek_at(1)?;
            if self.bytes[self.at] != b'<' {
                let start = self.at;
                while *self.peek()? != b'<' {
                    self.at += 1;
                }
                element.text +=
                    &unescape(std::str::from_utf8(&self.bytes[start..self.at]).unwrap());
            } else if self.bytes[self.at + 1] == b'/' {
                let close = self.until(b">")?;
                assert_eq!(close[2..close.len() - 1].trim_end(), name, "closing tag");
                return Some(element);
            } else {
                element.children.push(self.element(&scope, false)?);
            }
        }
    }

    fn peek(&self) -> Option<&u8> {
        self.bytes.get(self.at)
    }

    fn peek_at(&self, ahead: usize) -> Option<&u8> {
        self.bytes.get(self.at + ahead)
    }

    /// The bytes through `end`.
    fn until(&mut self, end: &[u8]) -> Option<String> {
        let rest = &self.bytes[self.at..];
        let length = rest.windows(end.len()).position(|window| window == end)? + end.len();
        self.at += length;
        Some(std::str::from_utf8(&rest[..length]).unwrap().to_owned())
    }

    fn rest(&self) -> String {
        String::from_utf8_lossy(&self.bytes[self.at..])
            .chars()
            .take(200)
            .collect()
    }
}

fn unescape(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        plain += &rest[..at];
        let end = rest[at..]
            .find(';')
            .unwrap_or_else(|| panic!("bare & in {text:?}"))
            + at;
        match &rest[at + 1..end] {
            "lt" => plain.push('<'),
            "gt" => plain.push('>'),
            "amp" => plain.push('&'),
            "quot" => plain.push('"'),
            "apos" => plain.push('\''),
            number => {
                let number = number
                    .strip_prefix('#')
                    .unwrap_or_else(|| panic!("entity in {text:?}"));
                let code = match number.strip_prefix('x') {
                    Some(hex) => u32::from_str_radix(hex, 16),
                    None => number.parse(),
                };
                plain.push(char::from_u32(code.unwrap()).unwrap());
            }
        }
        rest = &rest[end + 1..];
    }
    plain + rest
}

/// Text as an attribute's value or as character data.
pub fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&apos;",
            '\t' | '\n' | '\r' => escaped += &format!("&#{};", c as u32),
            c => escaped.push(c),
        }
    }
    escaped
}

#[test]
fn elements_are_found_whole_and_in_pieces() {
    let text = "<?xml version='1.0'?>\n<a:b xmlns:a='urn:a' xmlns='urn:d' k=\"&lt;&#x41;\"><c/>t&amp;u<c>v</c></a:b>";
    for length in 0..text.len() {
        assert!(
            matches!(next(&text.as_bytes()[..length]), Found::Incomplete),
            "{length}"
        );
    }
    let Found::Whole(element, used) = next(format!("{text}<more/>").as_bytes()) else {
        panic!()
    };
    assert_eq!(used, text.len());
    assert_eq!(
        (element.name.as_str(), element.space.as_str()),
        ("a:b", "urn:a")
    );
    assert_eq!(element.attribute("k"), Some("<A"));
    assert_eq!((element.text.as_str(), element.children.len()), ("t&u", 2));
    assert_eq!(element.children[1].space, "urn:d");
    assert!(matches!(next(b" </stream:stream>"), Found::Close(17)));
    assert!(matches!(opening(b"<s t='"), Found::Incomplete));
    assert!(
        matches!(opening(b"<s t=''><a"), Found::Whole(header, 8) if header.children.is_empty())
    );
}

/// Parses a text that is exactly one element.
pub fn whole(text: &str) -> Option<Element> {
    match next(text.as_bytes()) {
        Found::Whole(element, used) if used == text.len() => Some(element),
        _ => None,
    }
}
