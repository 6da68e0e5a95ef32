//! Errors and warnings about a configuration, and their texts.
//!
//! Every text names the key, its line, the value found and the value expected. Text from the file is escaped and
//! truncated; secrets are never quoted.

use std::fmt;

/// Longest quotation from the file, in characters.
const MAX_QUOTED: usize = 80;

/// One error of the configuration. With any of them the configuration is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Line in the file, from 1; `None` for a missing key.
    pub line: Option<usize>,
    /// The key; empty for errors that are not about one key, as in broken YAML.
    pub key: String,
    /// The text after "found".
    pub found: String,
    /// The text after "expected".
    pub expected: String,
}

impl ConfigError {
    /// An error that is not about one key.
    pub fn in_file(
        line: Option<usize>,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> ConfigError {
        ConfigError {
            line,
            key: String::new(),
            found: found.into(),
            expected: expected.into(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_position(f, &self.key, self.line)?;
        write!(f, "found {}, expected {}.", self.found, self.expected)
    }
}

/// A value that is allowed but probably not intended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Line in the file, from 1; `None` for a missing key.
    pub line: Option<usize>,
    /// The key.
    pub key: String,
    /// A clause, without its full stop.
    pub text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_position(f, &self.key, self.line)?;
        write!(f, "{}.", self.text)
    }
}

/// An unusable configuration: all its errors, in the order of their lines, and its warnings (a misspelt key explains a
/// missing one).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    pub errors: Vec<ConfigError>,
    pub warnings: Vec<Warning>,
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> ConfigErrors {
        ConfigErrors {
            errors: vec![error],
            warnings: Vec::new(),
        }
    }
}

impl fmt::Display for ConfigErrors {
    /// One error per line, without a line end after the last.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.errors.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Why a value was refused, without key and line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidValue {
    /// What to report instead of quoting the value: for secrets, and where the reason is not evident from the value.
    pub found: Option<String>,
    /// The text after "expected".
    pub expected: String,
}

impl InvalidValue {
    /// A value that is described instead of quoted.
    pub fn found(found: impl Into<String>, expected: impl Into<String>) -> InvalidValue {
        InvalidValue {
            found: Some(found.into()),
            expected: expected.into(),
        }
    }

    /// The same, with the value quoted if nothing else describes it.
    pub fn about(self, text: &str) -> InvalidValue {
        let found = self.found.unwrap_or_else(|| quote(text));
        InvalidValue::found(found, self.expected)
    }
}

impl<T: Into<String>> From<T> for InvalidValue {
    fn from(expected: T) -> InvalidValue {
        InvalidValue {
            found: None,
            expected: expected.into(),
        }
    }
}

/// Text from the file in quotes, escaped and truncated.
pub fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    quoted.extend(text.chars().take(MAX_QUOTED).flat_map(char::escape_debug));
    quoted.push('"');
    if text.chars().nth(MAX_QUOTED).is_some() {
        quoted.push_str(" and more");
    }
    quoted
}

fn write_position(f: &mut fmt::Formatter<'_>, key: &str, line: Option<usize>) -> fmt::Result {
    match (key, line) {
        ("", None) => Ok(()),
        ("", Some(line)) => write!(f, "line {line}: "),
        (key, None) => write!(f, "{key}: "),
        (key, Some(line)) => write!(f, "{key} (line {line}): "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(key: &str, line: Option<usize>, text: &str) {
        let error = ConfigError {
            line,
            key: key.into(),
            found: quote("1\n2"),
            expected: "a number".into(),
        };
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn a_message_names_key_line_value_and_expectation() {
        check(
            "http_port",
            Some(3),
            r#"http_port (line 3): found "1\n2", expected a number."#,
        );
        check(
            "http_port",
            None,
            r#"http_port: found "1\n2", expected a number."#,
        );
        check("", Some(3), r#"line 3: found "1\n2", expected a number."#);
        check("", None, r#"found "1\n2", expected a number."#);
    }

    #[test]
    fn quotations_are_truncated_and_escaped() {
        assert_eq!(quote("a\u{1b}[m\"é"), "\"a\\u{1b}[m\\\"é\"");
        assert_eq!(quote(&"x".repeat(80)).len(), 82);
        assert_eq!(
            quote(&"é".repeat(81)),
            format!("\"{}\" and more", "é".repeat(80))
        );
    }
}
