//! Takes values out of the tree, key by key, and collects errors and warnings.
//!
//! An invalid value reads as an absent one, so that reading continues and all errors are reported at once. Relations
//! between keys are checked elsewhere.

use std::collections::HashMap;

use crate::config::error::{ConfigError, ConfigErrors, InvalidValue, Warning, quote};
use crate::config::keys::{ConfigKey, DefaultValue, KEYS, KeyInfo};
use crate::config::nearest::nearest;
use crate::config::raw::{MapEntry, Value, ValueForm, YamlNode};
use crate::config::stray::{STRAIGHT, stray};

/// Most errors that are reported in full; a file with more is not a configuration.
const MAX_ERRORS: usize = 200;

/// The known keys of a file, or of a map in it, and the errors and warnings so far.
#[derive(Debug, Default)]
pub struct ConfigReader {
    /// Prefix of a key in messages: empty for the file itself, `access.2.` in a map.
    path: String,
    /// Line of the map, for keys missing from it; the file itself has none.
    line: Option<usize>,
    has_unknown: bool,
    entries: Vec<MapEntry>,
    errors: Vec<ConfigError>,
    warnings: Vec<Warning>,
}

impl ConfigReader {
    /// Reports duplicate and unknown keys.
    pub fn new(entries: Vec<MapEntry>) -> ConfigReader {
        let mut reader = ConfigReader::default();
        reader.sort(entries, KEYS);
        reader
    }

    fn inner(path: String, line: usize) -> ConfigReader {
        ConfigReader {
            path,
            line: Some(line),
            ..ConfigReader::default()
        }
    }

    fn sort(&mut self, entries: Vec<MapEntry>, keys: &[&KeyInfo]) {
        let mut seen: HashMap<String, usize> = HashMap::new();
        for entry in entries {
            if let Some(first) = seen.get(&entry.key) {
                self.errors.push(ConfigError {
                    line: Some(entry.line),
                    key: self.named(&printable(&entry.key)),
                    found: "a duplicate key".into(),
                    expected: once(*first),
                });
                continue;
            }
            seen.insert(entry.key.clone(), entry.line);
            if keys.iter().any(|key| key.name == entry.key) {
                self.entries.push(entry);
            } else {
                self.has_unknown = true;
                let hint = match nearest(&entry.key, keys.iter().map(|key| key.name)) {
                    Some(key) => format!("unknown key, ignored (did you mean {key}?)"),
                    None => "unknown key, ignored".to_owned(),
                };
                self.warnings.push(Warning {
                    line: Some(entry.line),
                    key: self.named(&printable(&entry.key)),
                    text: hint,
                });
            }
        }
    }

    /// The map below a key, or the list of maps, each with a reader of its own. [`ConfigReader::close`] takes each of
    /// them back.
    pub fn maps(&mut self, key: &str, keys: &[&KeyInfo]) -> Vec<ConfigReader> {
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
            match node.value {
                Value::Map(entries) => {
                    let mut reader = ConfigReader::inner(path, node.line);
                    reader.sort(entries, keys);
                    readers.push(reader);
                }
                other => self.errors.push(ConfigError {
                    line: Some(node.line),
                    key: path.trim_end_matches('.').to_owned(),
                    found: other.kind().to_owned(),
                    expected: format!("a map of {}", names(keys)),
                }),
            }
        }
        readers
    }

    /// The one map below a key, with a reader of its own, which [`ConfigReader::close`] takes back; an empty value is an
    /// empty map. An unknown entry is an error here: ignoring a misspelt `token` would leave the API open.
    pub fn map(&mut self, key: &str, keys: &[&KeyInfo]) -> Option<ConfigReader> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        let (line, value) = (entry.node.line, entry.node.value.clone());
        let entries = match value {
            Value::Map(entries) => entries,
            Value::Null => Vec::new(),
            other => {
                let expected = format!("a map of {}", names(keys));
                self.error(key, other.kind(), expected);
                return None;
            }
        };
        let mut reader = ConfigReader::inner(format!("{}.", self.named(key)), line);
        reader.sort(entries, keys);
        // So far there are only warnings about unknown entries.
        for unknown in std::mem::take(&mut reader.warnings) {
            reader.errors.push(ConfigError {
                line: unknown.line,
                key: unknown.key,
                found: "an unknown key".into(),
                expected: format!("one of {}", names(keys)),
            });
        }
        Some(reader)
    }

    /// Takes over the errors and warnings of a map.
    pub fn close(&mut self, inner: ConfigReader) {
        self.errors.extend(inner.errors);
        self.warnings.extend(inner.warnings);
    }

    /// Whether an unknown key was ignored.
    pub fn has_unknown(&self) -> bool {
        self.has_unknown
    }

    /// Whether the key is in the file, with a value or without.
    pub fn written(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }

    /// Whether the key has a value, valid or not.
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

    /// How the value of a key is written.
    pub fn form(&self, key: &str) -> Option<ValueForm> {
        self.node(key).map(|node| node.form)
    }

    /// The value of a key, or its default. `None` after an error, and for an absent key without a default.
    pub fn value<T>(&mut self, key: &ConfigKey<T>) -> Option<T> {
        match key.info.default {
            DefaultValue::Text(text) if !self.given(key.name()) => {
                let result = (key.parse)(text);
                let line = self.line(key.name()).unwrap_or_default();
                self.keep(key.name(), line, text, result)
            }
            _ => self.get(key),
        }
    }

    /// The value of a key, without its default.
    pub fn get<T>(&mut self, key: &ConfigKey<T>) -> Option<T> {
        self.one(key.name(), key.parse)
    }

    /// The value of a required key; `expected` describes it.
    pub fn required<T>(&mut self, key: &ConfigKey<T>, expected: &str) -> Option<T> {
        if !self.given(key.name()) {
            self.error(key.name(), "nothing", expected);
        }
        self.get(key)
    }

    /// The items of a list, without the default. A single value may hold several, separated by spaces.
    pub fn items<T>(&mut self, key: &ConfigKey<T>) -> Option<Vec<T>> {
        self.many(key.name(), true, key.parse)
    }

    /// A single value with a parser that depends on other keys.
    pub fn one<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&str) -> Result<T, InvalidValue>,
    ) -> Option<T> {
        let (line, text) = self.single(key)?;
        let result = read(&text);
        self.keep(key, line, &text, result)
    }

    /// A list of single values, or one. With `words`, a single value may hold several, separated by spaces.
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

    /// A map of single values. Names are unique, ignoring case.
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
                            .map_err(|invalid| (quote(&entry.key), invalid))
                            .and_then(|()| value(text).map_err(|invalid| (quote(text), invalid)))
                            .map(|()| (entry.key.clone(), text.clone())),
                        (other, None) => Err((other.kind().to_owned(), "a single value".into())),
                    };
                    results.push((node.line, result));
                }
            }
            other => {
                let invalid = InvalidValue::from("a map of names and values");
                results.push((node.line, Err((other.kind().to_owned(), invalid))));
            }
        }
        let mut pairs = Vec::with_capacity(results.len());
        for (line, result) in results {
            match result {
                Ok(pair) => pairs.push(pair),
                Err((found, invalid)) => self.refuse(key, line, found, invalid),
            }
        }
        pairs
    }

    /// The lines of all keys.
    pub fn lines(&self) -> Vec<(String, usize)> {
        let line = |entry: &MapEntry| (entry.key.clone(), entry.line);
        self.entries.iter().map(line).collect()
    }

    /// A number without a unit.
    pub fn bare_number(&self, key: &str) -> Option<u64> {
        match &self.node(key)?.value {
            Value::Scalar(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// Reports an error about a key as a whole.
    pub fn error(&mut self, key: &str, found: impl Into<String>, expected: impl Into<String>) {
        let line = self.line(key);
        self.push_error(key, line, found.into(), expected.into());
    }

    /// Warns about a key as a whole; `text` is a clause without its full stop.
    pub fn warn(&mut self, key: &str, text: impl Into<String>) {
        self.push_warning(key, text.into());
    }

    /// Whether there is an error so far.
    pub fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    /// The warnings, or all errors, in the order of the lines; missing keys come last.
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
                found: format!("{more} more errors"),
                expected: "none".into(),
            });
        }
        self.warnings.truncate(MAX_ERRORS);
        Err(ConfigErrors {
            errors: self.errors,
            warnings: self.warnings,
        })
    }

    /// The value of a key; an empty one counts as absent.
    fn node(&self, key: &str) -> Option<&YamlNode> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        match &entry.node.value {
            Value::Null => None,
            Value::Scalar(text) if text.is_empty() => None,
            _ => Some(&entry.node),
        }
    }

    fn line(&self, key: &str) -> Option<usize> {
        self.entries
            .iter()
            .find(|entry| entry.key == key)
            .map(|entry| entry.line)
            .or(self.line)
    }

    /// The key as it is named in messages.
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
            Err(invalid) => {
                self.refuse(key, line, quote(text), invalid);
                None
            }
        }
    }

    // The rest is kept out of line: the generic functions above are compiled for every type of value, and code size
    // matters more here than speed.

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
    fn refuse(&mut self, key: &str, line: usize, found: String, invalid: InvalidValue) {
        let found = invalid.found.unwrap_or(found);
        self.push_error(key, Some(line), found, invalid.expected);
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

/// A key from the file in printable form.
fn printable(key: &str) -> String {
    let valid = key.len() <= 64
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if valid { key.to_owned() } else { quote(key) }
}

/// The expectation for a key that is already in the file.
fn once(first: usize) -> String {
    format!("each key once; it is already in line {first}")
}

/// The names of some keys, for a message.
fn names(keys: &[&KeyInfo]) -> String {
    let names: Vec<&str> = keys.iter().map(|key| key.name).collect();
    names.join(", ")
}
