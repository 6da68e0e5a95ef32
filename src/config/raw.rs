//! YAML text to a small tree in which everything knows its line.
//!
//! It refuses to know what any key means. Scalars stay text: `0640`, `yes` and `5347` mean what their key says they
//! mean, not what a YAML schema would make of them. Anchors, aliases and tags are refused, depth and size are
//! bounded, so that a file can cost no more than its own length (YAML 1.2.2, chapters 6 and 7).

use yaml_rust2::parser::{Event, Parser, Tag};
use yaml_rust2::scanner::{ScanError, TScalarStyle};

use crate::config::fault::{Fault, quote};

/// Longest configuration, in bytes.
pub const MAX_TEXT: usize = 1 << 20;

/// Deepest nesting; no key needs more than half of it.
const MAX_DEPTH: usize = 16;

/// Longest line that is searched for a comment, in bytes.
const MAX_COMMENTED: usize = 1000;

/// A value with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// From 1; where a scalar starts. An empty value, list or map has the line of its key.
    pub line: usize,
    pub value: Value,
    pub form: Form,
}

/// How a value is written, as far as that is worth a warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A scalar without quotes. `commented`: a comment follows it on its line.
    Plain { commented: bool },
    /// A scalar in quotes or below a `|` or `>`; a list; a map.
    Other,
}

/// What a value is, as far as YAML tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing, `~` or `null`, without quotes.
    Null,
    /// The text of a scalar, quoted or not.
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

impl Value {
    /// What to call it in a sentence that must not repeat it.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "an empty value",
            Value::Scalar(text) if text.is_empty() => "an empty value",
            Value::Scalar(_) => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

/// One key of a map, with its value. A map may hold the same key twice; who reads it decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    /// Line of the key, from 1.
    pub line: usize,
    pub node: Node,
}

/// Reads the entries of a file that is one map. An empty file has none.
///
/// Fails with a single fault, because nothing after it can be trusted to mean what it seems to.
pub fn parse(text: &str) -> Result<Vec<Entry>, Fault> {
    if text.len() > MAX_TEXT {
        let found = format!("a file of {} bytes", text.len());
        return Err(fault(None, &found, &format!("at most {MAX_TEXT}")));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // The scanner takes NUL for the end of the file; whatever came after it would be ignored in silence.
    if let Some(at) = text.find(|c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r')) {
        let line = 1 + text[..at].matches('\n').count();
        return Err(fault(
            Some(line),
            "a control character",
            "text, blanks, tabs and line ends only",
        ));
    }
    let mut parser = Parser::new_from_str(text);
    let mut tree = Tree {
        lines: lines(text),
        ..Tree::default()
    };
    loop {
        // Events are pulled, because the library's own loop recurses as deep as the file says.
        let (event, mark) = parser
            .next_token()
            .map_err(|error| broken(&error, &tree.lines))?;
        if event == Event::StreamEnd {
            break;
        }
        tree.take(event, mark.line(), mark.col())?;
    }
    match tree.root {
        None => Ok(Vec::new()),
        Some(node) => match node.value {
            Value::Null => Ok(Vec::new()),
            Value::Map(entries) => Ok(entries),
            other => Err(fault(
                Some(node.line),
                other.kind(),
                "lines of the form \"key: value\"",
            )),
        },
    }
}

/// The lines of a text, without what ends them. YAML 1.2.2 §5.4 knows three line ends.
fn lines(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(end) = rest.find(['\n', '\r']) {
        lines.push(&rest[..end]);
        let both = rest[end..].starts_with("\r\n");
        rest = &rest[end + 1 + usize::from(both)..];
    }
    lines.push(rest);
    lines
}

/// The tree as far as it is built.
#[derive(Default)]
struct Tree<'a> {
    /// The text, line by line.
    lines: Vec<&'a str>,
    documents: usize,
    root: Option<Node>,
    open: Vec<Frame>,
}

/// A list or map whose end was not seen yet.
enum Frame {
    List {
        line: usize,
        items: Vec<Node>,
    },
    Map {
        line: usize,
        entries: Vec<Entry>,
        /// A key whose value comes next, with its line.
        key: Option<(String, usize)>,
    },
}

impl Tree<'_> {
    fn take(&mut self, event: Event, line: usize, column: usize) -> Result<(), Fault> {
        match event {
            Event::DocumentStart => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(fault(
                        Some(line),
                        "a second document",
                        "one document, without \"---\" in it",
                    ));
                }
            }
            Event::Alias(_) => return Err(fault(Some(line), "an alias", "the value itself")),
            Event::Scalar(text, style, anchor, tag) => {
                plain(anchor, tag, line)?;
                let bare = style == TScalarStyle::Plain;
                let form = match bare {
                    true => Form::Plain {
                        commented: self.has_comment(&text, line, column),
                    },
                    false => Form::Other,
                };
                let value = match text.as_str() {
                    "" | "~" | "null" | "Null" | "NULL" if bare => Value::Null,
                    _ => Value::Scalar(text),
                };
                self.attach(Node { line, value, form })?;
            }
            Event::SequenceStart(anchor, tag) => {
                plain(anchor, tag, line)?;
                let items = Vec::new();
                self.open(Frame::List { line, items }, line)?;
            }
            Event::MappingStart(anchor, tag) => {
                plain(anchor, tag, line)?;
                let entries = Vec::new();
                let key = None;
                self.open(Frame::Map { line, entries, key }, line)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let (line, value) = match self.open.pop() {
                    Some(Frame::List { line, items }) => (line, Value::List(items)),
                    Some(Frame::Map { line, entries, .. }) => (line, Value::Map(entries)),
                    None => return Err(fault(Some(line), "an end without a start", "YAML")),
                };
                let form = Form::Other;
                self.attach(Node { line, value, form })?;
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    /// Whether a comment follows a plain scalar on its line.
    fn has_comment(&self, text: &str, line: usize, column: usize) -> bool {
        let whole = line.checked_sub(1).and_then(|at| self.lines.get(at));
        // Many scalars on a long line would cost the square of its length.
        let whole = whole.filter(|whole| whole.len() <= MAX_COMMENTED);
        let Some((start, _)) = whole.and_then(|whole| whole.char_indices().nth(column)) else {
            return false;
        };
        let rest = whole.and_then(|whole| whole[start..].strip_prefix(text));
        rest.is_some_and(|rest| rest.trim_start_matches([' ', '\t']).starts_with('#'))
    }

    fn open(&mut self, frame: Frame, line: usize) -> Result<(), Fault> {
        if self.open.len() >= MAX_DEPTH {
            let found = format!("more than {MAX_DEPTH} levels of lists and maps");
            return Err(fault(Some(line), &found, "fewer"));
        }
        self.open.push(frame);
        Ok(())
    }

    fn attach(&mut self, mut node: Node) -> Result<(), Fault> {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Frame::List { items, .. }) => items.push(node),
            Some(Frame::Map { entries, key, .. }) => match key.take() {
                None => match node.value {
                    Value::Scalar(text) if !text.is_empty() => *key = Some((text, node.line)),
                    Value::Map(_) if has_template(&self.lines, node.line) => {
                        return Err(template(node.line));
                    }
                    other => return Err(fault(Some(node.line), other.kind(), "a word as the key")),
                },
                Some((key, line)) => {
                    // YAML places what is empty, and a list, on the line of whatever comes next.
                    if !matches!(node.value, Value::Scalar(_)) {
                        node.line = line;
                    }
                    entries.push(Entry { key, line, node });
                }
            },
        }
        Ok(())
    }
}

/// Nothing but the value itself may stand there.
fn plain(anchor: usize, tag: Option<Tag>, line: usize) -> Result<(), Fault> {
    if anchor != 0 {
        return Err(fault(Some(line), "an anchor (&)", "the value alone"));
    }
    match tag {
        None => Ok(()),
        Some(tag) => {
            let found = format!(
                "the tag {}",
                quote(&format!("{}{}", tag.handle, tag.suffix))
            );
            Err(fault(Some(line), &found, "the value alone"))
        }
    }
}

/// Whether a line holds a placeholder of a template, which is a map in a map to YAML, if it is anything.
fn has_template(lines: &[&str], line: usize) -> bool {
    let line = line.checked_sub(1).and_then(|at| lines.get(at));
    line.is_some_and(|line| line.contains("{{"))
}

fn template(line: usize) -> Fault {
    fault(
        Some(line),
        "a placeholder of the form {{ name }}",
        "the value itself, or the file of a secret in component_secret_file or slot_secret_file; nothing is expanded \
         from the environment",
    )
}

fn broken(error: &ScanError, lines: &[&str]) -> Fault {
    if has_template(lines, error.marker().line()) {
        return template(error.marker().line());
    }
    let info = error.info().replace(char::is_control, " ");
    let expected = if info.contains("escape") {
        // Most often a regular expression, whose backslashes double quotes claim for themselves.
        "single quotes around values with a backslash, as in '@example\\.org$': in double quotes YAML takes a \
         backslash for the beginning of an escape of its own"
    } else {
        "lines of the form \"key: value\", with a blank after the colon, without tabs, and special characters in single \
         quotes"
    };
    fault(
        Some(error.marker().line()),
        &format!("broken YAML here or just above ({info})"),
        expected,
    )
}

fn fault(line: Option<usize>, found: &str, expected: &str) -> Fault {
    Fault {
        line,
        key: String::new(),
        found: found.into(),
        expected: expected.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a tree as `key@line=value@line`.
    fn show(entries: &[Entry]) -> String {
        let entry = |e: &Entry| format!("{}@{}={}", e.key, e.line, show_node(&e.node));
        entries.iter().map(entry).collect::<Vec<_>>().join(" ")
    }

    fn show_node(node: &Node) -> String {
        let value = match &node.value {
            Value::Null => "null".to_owned(),
            Value::Scalar(text) => format!("{text:?}"),
            Value::List(items) => format!(
                "[{}]",
                items.iter().map(show_node).collect::<Vec<_>>().join(" ")
            ),
            Value::Map(entries) => format!("{{{}}}", show(entries)),
        };
        format!("{value}@{}", node.line)
    }

    #[track_caller]
    fn check(text: &str, tree: &str) {
        match parse(text) {
            Ok(entries) => assert_eq!(show(&entries), tree, "{text:?}"),
            Err(fault) => panic!("{text:?}: {fault}"),
        }
    }

    #[track_caller]
    fn refused(text: &str, line: usize, found: &str) {
        let fault = parse(text).expect_err(text);
        assert_eq!(fault.line, Some(line), "{text:?}: {fault}");
        assert!(fault.found.contains(found), "{text:?}: {fault}");
    }

    #[test]
    fn keeps_text_and_lines() {
        check("", "");
        check("# only this\n", "");
        check("---\n", "");
        check("\u{feff}a: 1", r#"a@1="1"@1"#);
        check("a : 1\nb:   'x y'  # why\n", r#"a@1="1"@1 b@2="x y"@2"#);
        check("---\na: 0640\n...\n", r#"a@2="0640"@2"#);
        check(
            "a: 1\r\nb: 2\r\n\r\nc: 3",
            r#"a@1="1"@1 b@2="2"@2 c@4="3"@4"#,
        );
        check("a: 1\na: 2", r#"a@1="1"@1 a@2="2"@2"#);
        check(
            "a:\n  first\n  second\nb: 2",
            r#"a@1="first second"@2 b@4="2"@4"#,
        );
        check("a: \"\\u0041\"", r#"a@1="A"@1"#);
    }

    #[test]
    fn tells_how_a_scalar_is_written() {
        for (text, form) in [
            ("a: x", Form::Plain { commented: false }),
            ("a: x #y", Form::Plain { commented: true }),
            (
                "b: 1\r\n\r\né: äö x \t# y\r\n",
                Form::Plain { commented: true },
            ),
            ("a: x#y", Form::Plain { commented: false }),
            ("a:\n  x #y\n", Form::Plain { commented: true }),
            ("a: 'x' #y", Form::Other),
            ("a: \"x\" #y", Form::Other),
            ("a: |\n  x #y\n", Form::Other),
            ("a: [x, y] #y", Form::Other),
        ] {
            let entries = parse(text).expect(text);
            assert_eq!(entries.last().unwrap().node.form, form, "{text:?}");
        }
        let long = format!("a: {} # y", "x ".repeat(2000));
        let form = Form::Plain { commented: false };
        assert_eq!(parse(&long).unwrap()[0].node.form, form);
        let many = format!("a: [{}x]", "x, ".repeat(MAX_TEXT / 4));
        assert!(parse(&many).is_ok());
    }

    #[test]
    fn a_template_that_was_not_filled_in_is_named() {
        for text in [
            "a: 1\nb: {{ name }}",
            "a: 1\nb: {{name}}\n",
            "a: 1\nb: {{ lookup('env', 'X') }}\n",
        ] {
            let fault = parse(text).expect_err(text);
            assert_eq!(fault.line, Some(2), "{fault}");
            assert!(fault.found.contains("{{ name }}"), "{fault}");
            assert!(fault.expected.contains("component_secret_file"), "{fault}");
        }
    }

    #[test]
    fn a_backslash_in_double_quotes_is_explained() {
        for text in [r#"a: "@example\.org$""#, r#"a: ["\d+"]"#] {
            let fault = parse(text).expect_err(text);
            assert!(fault.expected.contains(r"single quotes"), "{fault}");
            assert!(fault.expected.contains(r"'@example\.org$'"), "{fault}");
        }
    }

    #[test]
    fn places_empty_values_at_their_keys() {
        check(
            "a:\n\n\nb: ~\nc: null\nd: ''\n",
            r#"a@1=null@1 b@4=null@4 c@5=null@5 d@6=""@6"#,
        );
        check(
            "a: 'null'\nb: Null\nc: nUll",
            r#"a@1="null"@1 b@2=null@2 c@3="nUll"@3"#,
        );
    }

    #[test]
    fn builds_lists_and_maps() {
        check(
            "a:\n  - x\n  -\n  - y z\n",
            r#"a@1=["x"@2 null@4 "y z"@4]@1"#,
        );
        check("a:\n- x\n- y\nb: 1", r#"a@1=["x"@2 "y"@3]@1 b@4="1"@4"#);
        check("a: [x, 'y', [::1]]", r#"a@1=["x"@1 "y"@1 ["::1"@1]@1]@1"#);
        check(
            "a:\n  b: 1\n  c: {d: 2}",
            r#"a@1={b@2="1"@2 c@3={d@3="2"@3}@3}@1"#,
        );
        check("a: {}\nb: []", "a@1={}@1 b@2=[]@2");
    }

    #[test]
    fn refuses_broken_yaml_with_its_line() {
        refused("a: 1\nb: 'x\n", 2, "broken YAML");
        refused("a: 1\n b: 2\n", 2, "broken YAML");
        refused("a: x: y\n", 1, "broken YAML");
        refused("a: 1\nb: @x\n", 2, "broken YAML");
        refused("a: 1\nb: [1, 2\n", 3, "broken YAML");
        refused("a: 1\nfoo\nb: 1", 3, "broken YAML here or just above");
    }

    #[test]
    fn refuses_what_it_will_not_follow() {
        refused("a: &x 1\n", 1, "an anchor");
        refused("a: 1\nb: &x [1]\nc: *x", 2, "an anchor");
        refused("a: *x\n", 1, "anchor");
        refused("a: 1\nb: !!python/object 1\n", 2, "the tag");
        refused("a: !!str 1\n", 1, "the tag");
        refused("a: 1\n---\nb: 2\n", 2, "a second document");
        refused("[1, 2]", 1, "a list");
        refused("hello", 1, "a single value");
        refused("a: 1\n? [x]\n: 2", 2, "a list");
        refused("a: 1\n'': 2", 2, "an empty value");
        refused("a: 1\nb: x\u{0}y\nc: 2", 2, "a control character");
        refused("a: 1\r\nb: \u{1b}", 2, "a control character");
    }

    #[test]
    fn bounds_depth_and_size() {
        check(&format!("a: {}{}", "[".repeat(14), "]".repeat(14)), &{
            format!("a@1={}[]@1{}", "[".repeat(13), "]@1".repeat(13))
        });
        for deep in ["[", "{a: ", "- ", "? "] {
            refused(
                &format!("a:\n {}", deep.repeat(60)),
                2,
                "more than 16 levels",
            );
            // However deep, the answer is a fault.
            assert!(parse(&format!("a:\n {}", deep.repeat(200_000))).is_err());
        }
        let long = format!("a: 1 #{}", "x".repeat(MAX_TEXT));
        assert_eq!(parse(&long).expect_err("too long").line, None);
    }
}
