//! YAML text to a small tree whose nodes know their lines.
//!
//! It knows no keys. Scalars stay text: the key determines the type of `0640`, `yes` or `5347`, not a YAML schema. Anchors,
//! aliases and tags are refused, and depth and size are bounded, so that the cost is linear in the size of the file (YAML
//! 1.2.2, chapters 6 and 7).

use std::str::Chars;

use yaml_rust2::parser::{Event, Parser, Tag};
use yaml_rust2::scanner::{Marker, ScanError, TScalarStyle};

use crate::config::error::{ConfigError, quote};

/// Longest configuration, in bytes.
pub const MAX_TEXT: usize = 1 << 20;

/// Deepest nesting; the keys need less than half of it.
const MAX_DEPTH: usize = 16;

/// Longest line that is searched for a comment, in bytes.
const MAX_COMMENTED: usize = 1000;

/// A value with its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct YamlNode {
    /// From 1; where a scalar starts. An empty value, list or map has the line of its key.
    pub line: usize,
    pub value: Value,
    pub form: ValueForm,
}

/// How a value is written, as far as warnings depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueForm {
    /// A scalar without quotes. `commented`: a comment follows it on its line.
    Plain { commented: bool },
    /// A scalar in quotes or below a `|` or `>`; a list; a map.
    Other,
}

/// The YAML type of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing, `~` or `null`, without quotes.
    Null,
    /// The text of a scalar, quoted or not.
    Scalar(String),
    List(Vec<YamlNode>),
    Map(Vec<MapEntry>),
}

impl Value {
    /// Whether it is nothing, or `''`.
    pub fn is_empty(&self) -> bool {
        matches!(self, Value::Null) || matches!(self, Value::Scalar(text) if text.is_empty())
    }

    /// Whether it is `[]`.
    pub fn is_empty_list(&self) -> bool {
        matches!(self, Value::List(items) if items.is_empty())
    }

    /// Its type, for messages that must not repeat the value.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
            value if value.is_empty() => "an empty value",
            _ => "a single value",
        }
    }
}

/// One key of a map, with its value. Duplicate keys are left to the reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapEntry {
    pub key: String,
    /// Line of the key, from 1.
    pub line: usize,
    pub node: YamlNode,
}

/// Reads the entries of a file that is one map. An empty file has none.
///
/// Fails with one error, because what follows it cannot be interpreted reliably.
pub fn parse(text: &str) -> Result<Vec<MapEntry>, ConfigError> {
    if text.len() > MAX_TEXT {
        let found = format!("a file of {} bytes", text.len());
        return Err(ConfigError::in_file(
            None,
            found,
            format!("at most {MAX_TEXT}"),
        ));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // The scanner takes NUL for the end of the file and would silently ignore the rest.
    if let Some(at) = text.find(|c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r')) {
        let line = 1 + text[..at].matches('\n').count();
        return Err(error_at(
            line,
            "a control character",
            "text, spaces, tabs and line ends only",
        ));
    }
    // The three line ends of YAML 1.2.2 §5.4.
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut parser = TreeParser {
        lines: text.split('\n').collect(),
        events: Parser::new_from_str(&text),
    };
    match parser.root()? {
        None => Ok(Vec::new()),
        Some(node) => match node.value {
            Value::Null => Ok(Vec::new()),
            Value::Map(entries) => Ok(entries),
            other => Err(error_at(
                node.line,
                other.kind(),
                "lines of the form \"key: value\"",
            )),
        },
    }
}

/// Builds the tree from the library's events. It pulls them, because the library's own loop recurses without a limit.
struct TreeParser<'a> {
    /// The text, line by line.
    lines: Vec<&'a str>,
    events: Parser<Chars<'a>>,
}

impl TreeParser<'_> {
    fn next(&mut self) -> Result<(Event, Marker), ConfigError> {
        let next = self.events.next_token();
        next.map_err(|error| invalid_yaml(&error, &self.lines))
    }

    /// The next event inside a list or map; `None` at its end.
    fn next_inside(&mut self) -> Result<Option<(Event, Marker)>, ConfigError> {
        let next = self.next()?;
        let is_end = matches!(next.0, Event::SequenceEnd | Event::MappingEnd);
        Ok((!is_end).then_some(next))
    }

    /// The value of the only document; `None` without one.
    fn root(&mut self) -> Result<Option<YamlNode>, ConfigError> {
        let mut root = None;
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(root),
                (Event::DocumentStart, marker) if root.is_some() => {
                    return Err(error_at(
                        marker.line(),
                        "a second document",
                        "one document, without \"---\" in it",
                    ));
                }
                (Event::DocumentStart, _) => {
                    let first = self.next()?;
                    root = Some(self.node(first, 0)?);
                }
                _ => {}
            }
        }
    }

    /// The value that begins with this event, inside `depth` lists and maps.
    fn node(
        &mut self,
        (event, marker): (Event, Marker),
        depth: usize,
    ) -> Result<YamlNode, ConfigError> {
        let line = marker.line();
        let mut form = ValueForm::Other;
        let value = match event {
            Event::SequenceStart(..) | Event::MappingStart(..) if depth >= MAX_DEPTH => {
                let found = format!("more than {MAX_DEPTH} levels of lists and maps");
                return Err(error_at(line, found, "fewer"));
            }
            Event::Scalar(text, style, anchor, tag) => {
                refuse_properties(anchor, tag, line)?;
                let is_plain = style == TScalarStyle::Plain;
                if is_plain {
                    let commented = self.has_comment(&text, line, marker.col());
                    form = ValueForm::Plain { commented };
                }
                match text.as_str() {
                    "" | "~" | "null" | "Null" | "NULL" if is_plain => Value::Null,
                    _ => Value::Scalar(text),
                }
            }
            Event::SequenceStart(anchor, tag) => {
                refuse_properties(anchor, tag, line)?;
                let mut items = Vec::new();
                while let Some(first) = self.next_inside()? {
                    items.push(self.node(first, depth + 1)?);
                }
                Value::List(items)
            }
            Event::MappingStart(anchor, tag) => {
                refuse_properties(anchor, tag, line)?;
                let mut entries = Vec::new();
                while let Some(first) = self.next_inside()? {
                    entries.push(self.entry(first, depth + 1)?);
                }
                Value::Map(entries)
            }
            Event::Alias(_) => return Err(error_at(line, "an alias", "the value itself")),
            _ => return Err(error_at(line, "an unexpected end", "YAML")),
        };
        Ok(YamlNode { line, value, form })
    }

    /// The entry of a map whose key begins with this event.
    fn entry(&mut self, first: (Event, Marker), depth: usize) -> Result<MapEntry, ConfigError> {
        let YamlNode { line, value, .. } = self.node(first, depth)?;
        let key = match value {
            Value::Scalar(text) if !text.is_empty() => text,
            Value::Map(_) if has_template(&self.lines, line) => return Err(template(line)),
            other => return Err(error_at(line, other.kind(), "a word as the key")),
        };
        let first = self.next()?;
        let mut node = self.node(first, depth)?;
        // The parser gives an empty value or a list the line of the next token.
        if !matches!(node.value, Value::Scalar(_)) {
            node.line = line;
        }
        Ok(MapEntry { key, line, node })
    }

    /// Whether a comment follows a plain scalar on its line.
    fn has_comment(&self, text: &str, line: usize, column: usize) -> bool {
        let whole = line.checked_sub(1).and_then(|at| self.lines.get(at));
        // Many scalars on a long line would take quadratic time.
        let whole = whole.filter(|whole| whole.len() <= MAX_COMMENTED);
        let Some((start, _)) = whole.and_then(|whole| whole.char_indices().nth(column)) else {
            return false;
        };
        let rest = whole.and_then(|whole| whole[start..].strip_prefix(text));
        rest.is_some_and(|rest| rest.trim_start_matches([' ', '\t']).starts_with('#'))
    }
}

/// Refuses anchors and tags.
fn refuse_properties(anchor: usize, tag: Option<Tag>, line: usize) -> Result<(), ConfigError> {
    let found = match tag {
        _ if anchor != 0 => "an anchor (&)".to_owned(),
        Some(tag) => {
            let tag = format!("{}{}", tag.handle, tag.suffix);
            format!("the tag {}", quote(&tag))
        }
        None => return Ok(()),
    };
    Err(error_at(line, found, "the value alone"))
}

/// Whether a line contains a template placeholder, which YAML reads as nested maps or as an error.
fn has_template(lines: &[&str], line: usize) -> bool {
    let line = line.checked_sub(1).and_then(|at| lines.get(at));
    line.is_some_and(|line| line.contains("{{"))
}

fn template(line: usize) -> ConfigError {
    error_at(
        line,
        "a placeholder of the form {{ name }}",
        "the value itself, or a file in component_secret_file or slot_secret_file; environment variables are not \
         expanded",
    )
}

fn invalid_yaml(error: &ScanError, lines: &[&str]) -> ConfigError {
    if has_template(lines, error.marker().line()) {
        return template(error.marker().line());
    }
    let info = error.info().replace(char::is_control, " ");
    let expected = if info.contains("escape") {
        // Most often a regular expression with backslashes in double quotes.
        "single quotes around values with a backslash, as in '@example\\.org$': in double quotes a \
         backslash begins an escape of YAML"
    } else {
        "lines of the form \"key: value\", with a space after the colon, no tabs, and special characters in single \
         quotes"
    };
    error_at(
        error.marker().line(),
        format!("invalid YAML in this line or just above ({info})"),
        expected,
    )
}

fn error_at(line: usize, found: impl Into<String>, expected: &str) -> ConfigError {
    ConfigError::in_file(Some(line), found, expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a tree as `key@line=value@line`.
    fn show(entries: &[MapEntry]) -> String {
        let entry = |e: &MapEntry| format!("{}@{}={}", e.key, e.line, show_node(&e.node));
        entries.iter().map(entry).collect::<Vec<_>>().join(" ")
    }

    fn show_node(node: &YamlNode) -> String {
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
            Err(error_at) => panic!("{text:?}: {error_at}"),
        }
    }

    #[track_caller]
    fn refused(text: &str, line: usize, found: &str) {
        let error_at = parse(text).expect_err(text);
        assert_eq!(error_at.line, Some(line), "{text:?}: {error_at}");
        assert!(error_at.found.contains(found), "{text:?}: {error_at}");
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
    fn records_how_a_scalar_is_written() {
        for (text, form) in [
            ("a: x", ValueForm::Plain { commented: false }),
            ("a: x #y", ValueForm::Plain { commented: true }),
            (
                "b: 1\r\n\r\né: äö x \t# y\r\n",
                ValueForm::Plain { commented: true },
            ),
            ("a: x#y", ValueForm::Plain { commented: false }),
            ("a:\n  x #y\n", ValueForm::Plain { commented: true }),
            ("a: 'x' #y", ValueForm::Other),
            ("a: \"x\" #y", ValueForm::Other),
            ("a: |\n  x #y\n", ValueForm::Other),
            ("a: [x, y] #y", ValueForm::Other),
        ] {
            let entries = parse(text).expect(text);
            assert_eq!(entries.last().unwrap().node.form, form, "{text:?}");
        }
        let long = format!("a: {} # y", "x ".repeat(2000));
        let form = ValueForm::Plain { commented: false };
        assert_eq!(parse(&long).unwrap()[0].node.form, form);
        let many = format!("a: [{}x]", "x, ".repeat(MAX_TEXT / 4));
        assert!(parse(&many).is_ok());
    }

    #[test]
    fn template_placeholders_are_reported() {
        for text in [
            "a: 1\nb: {{ name }}",
            "a: 1\nb: {{name}}\n",
            "a: 1\nb: {{ lookup('env', 'X') }}\n",
        ] {
            let error_at = parse(text).expect_err(text);
            assert_eq!(error_at.line, Some(2), "{error_at}");
            assert!(error_at.found.contains("{{ name }}"), "{error_at}");
            assert!(
                error_at.expected.contains("component_secret_file"),
                "{error_at}"
            );
        }
    }

    #[test]
    fn a_backslash_in_double_quotes_is_explained() {
        for text in [r#"a: "@example\.org$""#, r#"a: ["\d+"]"#] {
            let error_at = parse(text).expect_err(text);
            assert!(error_at.expected.contains(r"single quotes"), "{error_at}");
            assert!(
                error_at.expected.contains(r"'@example\.org$'"),
                "{error_at}"
            );
        }
    }

    #[test]
    fn empty_values_have_the_lines_of_their_keys() {
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
    fn refuses_invalid_yaml_with_its_line() {
        refused("a: 1\nb: 'x\n", 2, "invalid YAML");
        refused("a: 1\n b: 2\n", 2, "invalid YAML");
        refused("a: x: y\n", 1, "invalid YAML");
        refused("a: 1\nb: @x\n", 2, "invalid YAML");
        refused("a: 1\nb: [1, 2\n", 3, "invalid YAML");
        refused(
            "a: 1\nfoo\nb: 1",
            3,
            "invalid YAML in this line or just above",
        );
    }

    #[test]
    fn refuses_unsupported_yaml() {
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
            // Any depth is an error, not a stack overflow.
            assert!(parse(&format!("a:\n {}", deep.repeat(200_000))).is_err());
        }
        let long = format!("a: 1 #{}", "x".repeat(MAX_TEXT));
        assert_eq!(parse(&long).expect_err("too long").line, None);
    }
}
