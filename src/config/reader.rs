//! Takes values out of the tree, key by key, and collects errors and warnings.
//!
//! An invalid value reads as an absent one, so that reading continues and all errors are reported at once. Relations
//! between keys are checked elsewhere.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::config::error::{ConfigError, ConfigErrors, InvalidValue, Warning, quote};
use crate::config::keys::{ConfigKey, DefaultValue, EmptyList, KEYS, KeyInfo};
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
    /// The names of unknown keys, with their lines.
    unknown: Vec<(String, usize)>,
    /// The lines of the keys in the maps that were taken back.
    inner: Vec<(String, usize)>,
    entries: Vec<MapEntry>,
    errors: Vec<ConfigError>,
    warnings: Vec<Warning>,
}

impl ConfigReader {
    /// Reports duplicate and unknown keys.
    pub fn new(entries: Vec<MapEntry>) -> ConfigReader {
        let mut reader = ConfigReader::default();
        reader.sort(entries, KEYS);
        reader.warn_of_unknown(KEYS);
        reader
    }

    /// Keeps the known keys. Reports duplicates, and empty values where the registry forbids them.
    fn sort(&mut self, entries: Vec<MapEntry>, keys: &[&KeyInfo]) {
        let mut seen: HashMap<String, usize> = HashMap::new();
        for entry in entries {
            match seen.entry(entry.key.clone()) {
                Entry::Occupied(first) => {
                    let invalid = InvalidValue::found("a duplicate key", once(*first.get()));
                    self.refuse(&printable(&entry.key), entry.line, invalid);
                    continue;
                }
                Entry::Vacant(first) => first.insert(entry.line),
            };
            match keys.iter().find(|key| key.name == entry.key) {
                Some(key) => {
                    self.check_empty(key, &entry);
                    self.entries.push(entry);
                }
                None => self.unknown.push((entry.key, entry.line)),
            }
        }
    }

    fn check_empty(&mut self, key: &KeyInfo, entry: &MapEntry) {
        let value = &entry.node.value;
        match (key.empty_value, key.empty_list) {
            (Some(expected), _) if value.is_empty() => {
                let invalid = InvalidValue::found("an empty value", expected);
                self.refuse(key.name, entry.line, invalid);
            }
            (_, EmptyList::Refused(found, expected)) if value.is_empty_list() => {
                let invalid = InvalidValue::found(found, expected);
                self.refuse(key.name, entry.line, invalid);
            }
            (_, EmptyList::Warned(text)) if value.is_empty_list() => {
                self.push_warning(key.name, Some(entry.line), text.to_owned());
            }
            _ => {}
        }
    }

    fn warn_of_unknown(&mut self, keys: &[&KeyInfo]) {
        for (name, line) in self.unknown.clone() {
            let hint = match nearest(&name, keys.iter().map(|key| key.name)) {
                Some(key) => format!("unknown key, ignored (did you mean {key}?)"),
                None => "unknown key, ignored".to_owned(),
            };
            self.push_warning(&printable(&name), Some(line), hint);
        }
    }

    /// The map below a key, or the list of maps, each with a reader of its own. [`ConfigReader::close`] takes each of
    /// them back.
    pub fn maps(&mut self, key: &KeyInfo) -> Vec<ConfigReader> {
        let Some(node) = self.node(key).cloned() else {
            return Vec::new();
        };
        let maps = match node.value {
            Value::List(items) => (1..)
                .zip(items)
                .map(|(number, item)| (format!("{}.{number}", key.name), item))
                .collect(),
            _ => vec![(key.name.to_owned(), node)],
        };
        let mut readers = Vec::new();
        for (name, node) in maps {
            readers.extend(self.inner(&name, node, key.entries));
        }
        for reader in &mut readers {
            reader.warn_of_unknown(key.entries);
        }
        readers
    }

    /// The one map below a key, with a reader of its own, which [`ConfigReader::close`] takes back; an empty value is an
    /// empty map. An unknown entry is an error here: ignoring a misspelt `token` would leave the API open.
    pub fn map(&mut self, key: &KeyInfo) -> Option<ConfigReader> {
        let entry = self.entry(key)?;
        let line = entry.line;
        let value = match &entry.node.value {
            Value::Null => Value::Map(Vec::new()),
            value => value.clone(),
        };
        let form = ValueForm::Other;
        let mut reader = self.inner(key.name, YamlNode { line, value, form }, key.entries)?;
        for (name, line) in std::mem::take(&mut reader.unknown) {
            let expected = format!("one of {}", names(key.entries));
            let invalid = InvalidValue::found("an unknown key", expected);
            reader.refuse(&printable(&name), line, invalid);
        }
        Some(reader)
    }

    /// A reader of the map below this name.
    fn inner(&mut self, name: &str, node: YamlNode, keys: &[&KeyInfo]) -> Option<ConfigReader> {
        let Value::Map(entries) = node.value else {
            let expected = format!("a map of {}", names(keys));
            let invalid = InvalidValue::found(node.value.kind(), expected);
            self.refuse(name, node.line, invalid);
            return None;
        };
        let mut reader = ConfigReader {
            path: format!("{}.", self.named(name)),
            line: Some(node.line),
            ..ConfigReader::default()
        };
        reader.sort(entries, keys);
        Some(reader)
    }

    /// Takes over the errors and warnings of a map, and the lines of its keys.
    pub fn close(&mut self, inner: ConfigReader) {
        self.inner.extend(inner.lines());
        self.errors.extend(inner.errors);
        self.warnings.extend(inner.warnings);
    }

    /// Whether an unknown key was ignored.
    pub fn has_unknown(&self) -> bool {
        !self.unknown.is_empty()
    }

    /// Whether the key is in the file, with a value or without.
    pub fn written(&self, key: &KeyInfo) -> bool {
        self.entry(key).is_some()
    }

    /// Whether the key has a value, valid or not.
    pub fn given(&self, key: &KeyInfo) -> bool {
        self.node(key).is_some()
    }

    /// The value of a key; an empty one counts as absent.
    pub fn node(&self, key: &KeyInfo) -> Option<&YamlNode> {
        let node = &self.entry(key)?.node;
        (!node.value.is_empty()).then_some(node)
    }

    /// The key in the file, with a value or without.
    pub fn entry(&self, key: &KeyInfo) -> Option<&MapEntry> {
        self.entries.iter().find(|entry| entry.key == key.name)
    }

    /// The value of a key, or its default. `None` after an error, and for an absent key without a default.
    pub fn value<T>(&mut self, key: &ConfigKey<T>) -> Option<T> {
        match key.default {
            DefaultValue::Text(text) if !self.given(key) => {
                let line = self.line(key).unwrap_or_default();
                let result = (key.parse)(text).map_err(|invalid| invalid.about(text));
                self.keep(key, line, result)
            }
            _ => {
                self.require(key);
                self.get(key)
            }
        }
    }

    /// Reports a required key that is absent, unless its empty value has been reported.
    pub fn require(&mut self, key: &KeyInfo) {
        let is_reported = key.empty_value.is_some() && self.written(key);
        match key.default {
            DefaultValue::Required(expected) if !self.given(key) && !is_reported => {
                self.error(key, "nothing", expected);
            }
            _ => {}
        }
    }

    /// The value of a key, without its default.
    pub fn get<T>(&mut self, key: &ConfigKey<T>) -> Option<T> {
        self.one(key, key.parse)
    }

    /// The items of a list, without the default. A single value may hold several, separated by spaces.
    pub fn items<T>(&mut self, key: &ConfigKey<T>) -> Option<Vec<T>> {
        self.many(key, true, key.parse)
    }

    /// A single value with a parser that depends on other keys.
    pub fn one<T>(
        &mut self,
        key: &KeyInfo,
        parse: impl FnOnce(&str) -> Result<T, InvalidValue>,
    ) -> Option<T> {
        let node = self.node(key)?;
        let line = node.line;
        let result = scalar(node).and_then(|text| parse(text).map_err(|why| why.about(text)));
        self.keep(key, line, result)
    }

    /// A list of single values, or one. With `words`, a single value may hold several, separated by spaces.
    pub fn many<T>(
        &mut self,
        key: &KeyInfo,
        words: bool,
        parse: impl Fn(&str) -> Result<T, InvalidValue>,
    ) -> Option<Vec<T>> {
        let node = self.node(key)?.clone();
        let mut values = Vec::new();
        for (line, text) in scalars(&node, words) {
            let result = text.and_then(|text| parse(text).map_err(|why| why.about(text)));
            values.extend(self.keep(key, line, result));
        }
        Some(values)
    }

    /// A map of single values. Names are unique, ignoring case.
    pub fn pairs(
        &mut self,
        key: &KeyInfo,
        name: impl Fn(&str) -> Result<(), InvalidValue>,
        value: impl Fn(&str) -> Result<(), InvalidValue>,
    ) -> Vec<(String, String)> {
        let Some(node) = self.node(key).cloned() else {
            return Vec::new();
        };
        let Value::Map(entries) = node.value else {
            let invalid = InvalidValue::found(node.value.kind(), "a map of names and values");
            self.refuse(key.name, node.line, invalid);
            return Vec::new();
        };
        let mut seen: HashMap<String, usize> = HashMap::new();
        let mut pairs = Vec::new();
        for entry in entries {
            let result = match seen.entry(entry.key.to_ascii_lowercase()) {
                Entry::Occupied(first) => {
                    Err(InvalidValue::from(once(*first.get())).about(&entry.key))
                }
                Entry::Vacant(first) => {
                    first.insert(entry.line);
                    scalar(&entry.node).and_then(|text| {
                        name(&entry.key).map_err(|why| why.about(&entry.key))?;
                        value(text).map_err(|why| why.about(text))?;
                        Ok(text.to_owned())
                    })
                }
            };
            let value = self.keep(key, entry.node.line, result);
            pairs.extend(value.map(|value| (entry.key, value)));
        }
        pairs
    }

    /// The lines of all keys, also of those in maps, as `s3.bucket`.
    pub fn lines(&self) -> Vec<(String, usize)> {
        let line = |entry: &MapEntry| (self.named(&entry.key), entry.line);
        let own = self.entries.iter().map(line);
        own.chain(self.inner.iter().cloned()).collect()
    }

    /// Reports an error about a key as a whole.
    pub fn error(&mut self, key: &KeyInfo, found: impl Into<String>, expected: impl Into<String>) {
        let (line, key) = (self.line(key), self.named(key.name));
        self.errors.push(ConfigError {
            line,
            key,
            found: found.into(),
            expected: expected.into(),
        });
    }

    /// Warns about a key as a whole; `text` is a clause without its full stop.
    pub fn warn(&mut self, key: &KeyInfo, text: impl Into<String>) {
        self.push_warning(key.name, self.line(key), text.into());
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
            let found = format!("{more} more errors");
            self.errors.push(ConfigError::in_file(None, found, "none"));
        }
        self.warnings.truncate(MAX_ERRORS);
        Err(ConfigErrors {
            errors: self.errors,
            warnings: self.warnings,
        })
    }

    /// The line of a key, or of the map that lacks it.
    fn line(&self, key: &KeyInfo) -> Option<usize> {
        self.entry(key).map(|entry| entry.line).or(self.line)
    }

    /// The key as it is named in messages.
    fn named(&self, name: &str) -> String {
        format!("{}{name}", self.path)
    }

    /// A valid value; reports the error of an invalid one.
    fn keep<T>(
        &mut self,
        key: &KeyInfo,
        line: usize,
        result: Result<T, InvalidValue>,
    ) -> Option<T> {
        result
            .map_err(|invalid| self.refuse(key.name, line, invalid))
            .ok()
    }

    #[cold]
    fn refuse(&mut self, name: &str, line: usize, invalid: InvalidValue) {
        self.errors.push(ConfigError {
            line: Some(line),
            key: self.named(name),
            found: invalid.found.unwrap_or_default(),
            expected: invalid.expected,
        });
    }

    #[cold]
    fn push_warning(&mut self, name: &str, line: Option<usize>, text: String) {
        let key = self.named(name);
        self.warnings.push(Warning { line, key, text });
    }
}

/// The text of a single value.
fn scalar(node: &YamlNode) -> Result<&str, InvalidValue> {
    match &node.value {
        Value::Scalar(text) => match stray(text, node.form) {
            None => Ok(text),
            Some(found) => Err(InvalidValue::found(found, STRAIGHT)),
        },
        other => Err(InvalidValue::found(other.kind(), "a single value")),
    }
}

/// The texts of [`ConfigReader::many`], with their lines.
fn scalars(node: &YamlNode, words: bool) -> Vec<(usize, Result<&str, InvalidValue>)> {
    if let Value::List(items) = &node.value {
        return items.iter().map(|item| (item.line, scalar(item))).collect();
    }
    match scalar(node) {
        Ok(text) if words => text
            .split_whitespace()
            .map(|word| (node.line, Ok(word.trim_end_matches(','))))
            .collect(),
        Err(_) if matches!(node.value, Value::Map(_)) => {
            let invalid = InvalidValue::found(node.value.kind(), "a list or a single value");
            vec![(node.line, Err(invalid))]
        }
        text => vec![(node.line, text)],
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
