//! Takes values out of the tree, key by key, and gathers everything that is wrong on the way.
//!
//! A faulty value reads as an absent one, so that reading goes on and all faults are told at once. What the keys
//! mean together is not decided here.

use std::collections::HashMap;

use crate::config::error::{ConfigError, ConfigErrors, InvalidValue, Warning, quote};
use crate::config::keys::KEYS;
use crate::config::nearest::{nearest, nearest_of};
use crate::config::raw::{Form, MapEntry, Value, YamlNode};
use crate::config::secret::{self, Secret};

/// Most faults that are told in full; a file with more is no configuration.
const MAX_ERRORS: usize = 200;

/// The known keys of a file, or of a map in it, and what was wrong so far.
#[derive(Debug, Default)]
pub struct ConfigReader {
    /// What goes before a key in what is said: nothing in the file itself, `access.2.` in a map.
    path: String,
    /// Where the map is, for what is missing from it; the file itself has no such line.
    place: Option<usize>,
    /// Whether a key was ignored because it is not known.
    has_unknown: bool,
    entries: Vec<MapEntry>,
    errors: Vec<ConfigError>,
    warnings: Vec<Warning>,
}

impl ConfigReader {
    /// Sorts out what is doubled or unknown.
    pub fn new(entries: Vec<MapEntry>) -> ConfigReader {
        let mut reader = ConfigReader::default();
        reader.sort(entries, &KEYS, &nearest);
        reader
    }

    fn sort(
        &mut self,
        entries: Vec<MapEntry>,
        keys: &[&str],
        nearest: &dyn Fn(&str) -> Option<&'static str>,
    ) {
        let mut seen: HashMap<String, usize> = HashMap::new();
        for entry in entries {
            if let Some(first) = seen.get(&entry.key) {
                self.errors.push(ConfigError {
                    line: Some(entry.line),
                    key: self.named(&printable(&entry.key)),
                    found: "the key a second time".into(),
                    expected: once(*first),
                });
                continue;
            }
            seen.insert(entry.key.clone(), entry.line);
            if keys.contains(&entry.key.as_str()) {
                self.entries.push(entry);
            } else {
                self.has_unknown = true;
                let hint = match nearest(&entry.key) {
                    Some(key) => format!("is not a known key and is ignored; {key} may be meant"),
                    None => "is not a known key and is ignored".to_owned(),
                };
                self.warnings.push(Warning {
                    line: Some(entry.line),
                    key: self.named(&printable(&entry.key)),
                    text: hint,
                });
            }
        }
    }

    /// The map below a key, or the list of maps, each with a reader for keys of its own. [`ConfigReader::close`] takes each
    /// of them back.
    pub fn maps(&mut self, key: &str, keys: &[&'static str]) -> Vec<ConfigReader> {
        let Some(node) = self.node(key).cloned() else {
            return Vec::new();
        };
        let path = self.named(key);
        let maps: Vec<(String, YamlNode)> = match node.value {
            Value::List(items) => (1..)
                .zip(items)
                .map(|(number, item)| (format!("{path}.{number}."), item))
                .collect(),
            _ => vec![(format!("{path}."), node)],
        };
        let mut readers = Vec::with_capacity(maps.len());
        for (path, node) in maps {
            let place = Some(node.line);
            match node.value {
                Value::Map(entries) => {
                    let mut reader = ConfigReader {
                        path,
                        place,
                        ..ConfigReader::default()
                    };
                    reader.sort(entries, keys, &|text| nearest_of(text, keys));
                    readers.push(reader);
                }
                other => self.errors.push(ConfigError {
                    line: place,
                    key: path.trim_end_matches('.').to_owned(),
                    found: other.kind().to_owned(),
                    expected: format!("a map of {}", keys.join(", ")),
                }),
            }
        }
        readers
    }

    /// Takes over what was wrong inside a map.
    pub fn close(&mut self, inner: ConfigReader) {
        self.absorb(inner.errors, inner.warnings);
    }

    /// Whether a key was ignored because it is not known.
    pub fn has_unknown(&self) -> bool {
        self.has_unknown
    }

    /// Whether the key stands in the file, with a value or without.
    pub fn written(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }

    /// Whether the key has a value, right or wrong.
    pub fn given(&self, key: &str) -> bool {
        self.node(key).is_some()
    }

    /// Whether the key has the value `''`, in quotes.
    pub fn quoted_nothing(&self, key: &str) -> bool {
        let nothing = Value::Scalar(String::new());
        self.entries
            .iter()
            .any(|entry| entry.key == key && entry.node.value == nothing)
    }

    /// Whether the key has the value `[]`.
    pub fn empty_list(&self, key: &str) -> bool {
        self.node(key)
            .is_some_and(|node| node.value == Value::List(Vec::new()))
    }

    /// The one map below a key, with a reader of its own, which [`ConfigReader::close`] takes back; an empty value is an
    /// empty map. Here an unknown entry is a fault: passing over a misspelt one could open a door.
    pub fn map(&mut self, key: &str, keys: &[&'static str]) -> Option<ConfigReader> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        let (line, value) = (entry.node.line, entry.node.value.clone());
        let entries = match value {
            Value::Map(entries) => entries,
            Value::Null => Vec::new(),
            other => {
                let expected = format!("a map of {}", keys.join(", "));
                self.error(key, other.kind(), expected);
                return None;
            }
        };
        let mut reader = ConfigReader {
            path: format!("{}.", self.named(key)),
            place: Some(line),
            ..ConfigReader::default()
        };
        reader.sort(entries, keys, &|text| nearest_of(text, keys));
        // So far there are only warnings about unknown entries.
        for unknown in std::mem::take(&mut reader.warnings) {
            reader.errors.push(ConfigError {
                line: unknown.line,
                key: unknown.key,
                found: "an unknown key".into(),
                expected: format!("one of {}", keys.join(", ")),
            });
        }
        Some(reader)
    }

    /// Adds what was wrong inside such a value.
    pub fn absorb(&mut self, errors: Vec<ConfigError>, warnings: Vec<Warning>) {
        self.errors.extend(errors);
        self.warnings.extend(warnings);
    }

    /// A single value.
    pub fn one<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&str) -> Result<T, InvalidValue>,
    ) -> Option<T> {
        let (line, text) = self.single(key)?;
        let result = read(&text);
        self.keep(key, line, &text, result)
    }

    /// A single value that must be there; `expected` says what, when it is not.
    pub fn needed<T>(
        &mut self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&str) -> Result<T, InvalidValue>,
    ) -> Option<T> {
        if !self.given(key) {
            self.error(key, "nothing", expected);
        }
        self.one(key, read)
    }

    /// A single value that is never repeated in a message. At least `least` bytes. `file_key` is the key that names a
    /// file with the same secret, where there is one.
    pub fn secret(&mut self, key: &str, least: usize, file_key: Option<&str>) -> Option<Secret> {
        let (_, form) = self.place(key)?;
        let secret = self.one(key, |text| {
            if let Some(found) = secret::flaw(text) {
                let file =
                    file_key.map_or_else(String::new, |key| format!(" here, or its file in {key}"));
                return Err(InvalidValue {
                    found: Some(found.into()),
                    expected: format!(
                        "the secret itself{file}; nothing is expanded from the environment"
                    ),
                });
            }
            if text.len() >= least {
                return Ok(Secret::new(text));
            }
            Err(InvalidValue {
                found: Some(format!("a secret of {} bytes", text.len())),
                expected: format!("at least {least}"),
            })
        })?;
        let text = secret.expose();
        let path = ["/run/", "/etc/", "/var/", "./", "~/", "file:"];
        if (form == Form::Plain { commented: true }) {
            let text = "ends where a comment begins; single quotes around the secret keep a # in it, and a comment on \
                        a line of its own ends this warning";
            self.warn(key, text);
        } else if text.trim() != text {
            self.warn(
                key,
                "begins or ends with a blank, which counts as a part of the secret",
            );
        } else if path.iter().any(|begin| text.starts_with(begin)) {
            let file =
                file_key.map_or_else(String::new, |key| format!("; a file is named with {key}"));
            self.warn(
                key,
                format!("looks like a path, but is taken as the secret itself{file}"),
            );
        }
        Some(secret)
    }

    /// A list of single values, or one. With `words`, a single value may hold several with blanks between.
    pub fn many<T>(
        &mut self,
        key: &str,
        words: bool,
        read: impl Fn(&str) -> Result<T, InvalidValue>,
    ) -> Option<Vec<T>> {
        let texts = self.singles(key, words)?;
        let mut values = Vec::with_capacity(texts.len());
        for (line, text) in texts {
            let result = read(&text);
            values.extend(self.keep(key, line, &text, result));
        }
        Some(values)
    }

    /// A map of single values. A name may stand in it once, in whatever case.
    pub fn pairs(
        &mut self,
        key: &str,
        name: impl Fn(&str) -> Result<(), InvalidValue>,
        value: impl Fn(&str) -> Result<(), InvalidValue>,
    ) -> Vec<(String, String)> {
        let Some(node) = self.node(key) else {
            return Vec::new();
        };
        let mut seen: HashMap<String, usize> = HashMap::new();
        let mut results = Vec::new();
        match &node.value {
            Value::Map(entries) => {
                for entry in entries {
                    let first = seen.get(&entry.key.to_ascii_lowercase()).copied();
                    seen.entry(entry.key.to_ascii_lowercase())
                        .or_insert(entry.line);
                    let node = &entry.node;
                    let result = match (&node.value, first) {
                        (_, Some(first)) => Err((quote(&entry.key), once(first).into())),
                        (Value::Scalar(text), None) if stray(text, node.form).is_some() => {
                            let found = stray(text, node.form).unwrap_or_default();
                            Err((found.to_owned(), STRAIGHT.into()))
                        }
                        (Value::Scalar(text), None) => name(&entry.key)
                            .map_err(|wrong| (quote(&entry.key), wrong))
                            .and_then(|()| value(text).map_err(|wrong| (quote(text), wrong)))
                            .map(|()| (entry.key.clone(), text.clone())),
                        (other, None) => Err((other.kind().to_owned(), "a single value".into())),
                    };
                    results.push((node.line, result));
                }
            }
            other => {
                let wrong = InvalidValue::from("a map of names and values");
                results.push((node.line, Err((other.kind().to_owned(), wrong))));
            }
        }
        let mut pairs = Vec::with_capacity(results.len());
        for (line, result) in results {
            match result {
                Ok(pair) => pairs.push(pair),
                Err((found, wrong)) => self.refuse(key, line, found, wrong),
            }
        }
        pairs
    }

    /// The lines of all keys.
    pub fn lines(&self) -> Vec<(String, usize)> {
        let line = |entry: &MapEntry| (entry.key.clone(), entry.line);
        self.entries.iter().map(line).collect()
    }

    /// A number without a unit, as it stands there.
    pub fn bare_number(&self, key: &str) -> Option<u64> {
        match &self.node(key)?.value {
            Value::Scalar(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// Reports a fault about a key as a whole.
    pub fn error(&mut self, key: &str, found: impl Into<String>, expected: impl Into<String>) {
        let line = self.line(key);
        self.push_error(key, line, found.into(), expected.into());
    }

    /// Reports an oddity about a key as a whole; `text` is a clause without its full stop.
    pub fn warn(&mut self, key: &str, text: impl Into<String>) {
        self.push_warning(key, text.into());
    }

    /// Whether anything was wrong so far, beyond warnings.
    pub fn is_faulty(&self) -> bool {
        !self.errors.is_empty()
    }

    /// Everything that was wrong, in the order of the lines; what is missing comes last.
    pub fn finish(mut self) -> Result<Vec<Warning>, ConfigErrors> {
        self.errors
            .sort_by_key(|error| error.line.unwrap_or(usize::MAX));
        self.warnings
            .sort_by_key(|warning| warning.line.unwrap_or(usize::MAX));
        if self.errors.is_empty() {
            return Ok(self.warnings);
        }
        let more = self.errors.len().saturating_sub(MAX_ERRORS);
        if more > 0 {
            self.errors.truncate(MAX_ERRORS);
            self.errors.push(ConfigError {
                line: None,
                key: String::new(),
                found: format!("{more} more faults"),
                expected: "none".into(),
            });
        }
        self.warnings.truncate(MAX_ERRORS);
        Err(ConfigErrors {
            errors: self.errors,
            warnings: self.warnings,
        })
    }

    /// The value of a key; an empty one counts as none.
    fn node(&self, key: &str) -> Option<&YamlNode> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        match &entry.node.value {
            Value::Null => None,
            Value::Scalar(text) if text.is_empty() => None,
            _ => Some(&entry.node),
        }
    }

    /// Where the value of a key stands, and how it is written.
    fn place(&self, key: &str) -> Option<(usize, Form)> {
        self.node(key).map(|node| (node.line, node.form))
    }

    fn line(&self, key: &str) -> Option<usize> {
        self.entries
            .iter()
            .find(|entry| entry.key == key)
            .map(|entry| entry.line)
            .or(self.place)
    }

    /// The key as it is named in what is said.
    fn named(&self, key: &str) -> String {
        format!("{}{key}", self.path)
    }

    fn keep<T>(
        &mut self,
        key: &str,
        line: usize,
        text: &str,
        result: Result<T, InvalidValue>,
    ) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(wrong) => {
                self.refuse(key, line, quote(text), wrong);
                None
            }
        }
    }

    // What follows is kept out of line, because what is above is compiled anew for every type of value, and its size
    // counts more than its speed.

    /// The text of a single value.
    #[inline(never)]
    fn single(&mut self, key: &str) -> Option<(usize, String)> {
        let node = self.node(key)?;
        let line = node.line;
        match &node.value {
            Value::Scalar(text) => match stray(text, node.form) {
                None => Some((line, text.clone())),
                Some(found) => {
                    self.refuse(key, line, found.into(), STRAIGHT.into());
                    None
                }
            },
            other => {
                let kind = other.kind().to_owned();
                self.refuse(key, line, kind, "a single value".into());
                None
            }
        }
    }

    /// The texts of [`ConfigReader::many`].
    #[inline(never)]
    fn singles(&mut self, key: &str, words: bool) -> Option<Vec<(usize, String)>> {
        let node = self.node(key)?;
        let line = node.line;
        let mut texts = Vec::new();
        let mut others = Vec::new();
        match &node.value {
            Value::Scalar(text) if stray(text, node.form).is_some() => {
                others.extend(stray(text, node.form).map(|found| (line, found, STRAIGHT)));
            }
            Value::Scalar(text) if words => {
                let words = text.split_whitespace();
                texts.extend(words.map(|word| (line, word.trim_end_matches(',').to_owned())));
            }
            Value::Scalar(text) => texts.push((line, text.clone())),
            Value::List(items) => {
                for item in items {
                    match &item.value {
                        Value::Scalar(text) => match stray(text, item.form) {
                            None => texts.push((item.line, text.clone())),
                            Some(found) => others.push((item.line, found, STRAIGHT)),
                        },
                        other => others.push((item.line, other.kind(), "a single value")),
                    }
                }
            }
            other => others.push((line, other.kind(), "a list or a single value")),
        }
        for (line, kind, expected) in others {
            self.refuse(key, line, kind.to_owned(), expected.into());
        }
        Some(texts)
    }

    #[cold]
    #[inline(never)]
    fn refuse(&mut self, key: &str, line: usize, found: String, wrong: InvalidValue) {
        let found = wrong.found.unwrap_or(found);
        self.push_error(key, Some(line), found, wrong.expected);
    }

    #[cold]
    #[inline(never)]
    fn push_error(&mut self, key: &str, line: Option<usize>, found: String, expected: String) {
        let key = self.named(key);
        self.errors.push(ConfigError {
            line,
            key,
            found,
            expected,
        });
    }

    #[cold]
    #[inline(never)]
    fn push_warning(&mut self, key: &str, text: String) {
        let (line, key) = (self.line(key), self.named(key));
        self.warnings.push(Warning { line, key, text });
    }
}

/// What is expected where word processors and web pages have put other characters.
const STRAIGHT: &str = "straight quotes (' or \") or none, and plain blanks; single quotes around the value keep it as it is";

/// A character that was not typed into a value without quotes, but came along when it was copied.
fn stray(text: &str, form: Form) -> Option<&'static str> {
    if form == Form::Other {
        return None;
    }
    let typographic = |c: char| {
        matches!(
            c,
            '\u{2018}'..='\u{201f}' | '\u{ab}' | '\u{bb}' | '\u{2039}' | '\u{203a}'
        )
    };
    let invisible = |c: char| {
        matches!(
            c,
            '\u{a0}' | '\u{ad}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'
                ..='\u{202f}' | '\u{2060}' | '\u{3000}' | '\u{feff}'
        )
    };
    if text.starts_with(typographic) || text.ends_with(typographic) {
        return Some("typographic quotes, which are a part of the value");
    }
    if text.starts_with(['\u{2013}', '\u{2014}', '\u{2022}']) {
        return Some("a dash or bullet that is not the \"-\" of a list");
    }
    text.contains(invisible)
        .then_some("a blank or an invisible character that is no plain blank")
}

/// A key from outside, as it may be printed.
fn printable(key: &str) -> String {
    let valid = key.len() <= 64
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if valid { key.to_owned() } else { quote(key) }
}

/// What is expected of a key that stands in the file already.
fn once(first: usize) -> String {
    format!("it once only, and it is in line {first} already")
}
