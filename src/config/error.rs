//! What can be wrong in a configuration, and how it is said.
//!
//! Every sentence names the key, the line where there is one, what was found and what is expected, so that nobody
//! has to search. Text from the file is escaped and cut; secrets are never quoted at all.

use std::fmt;

/// Longest piece of the file that a sentence repeats, in characters.
const MAX_QUOTED: usize = 80;

/// One error of the configuration. With any of them the configuration is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Line in the file, from 1; absent when something is missing from the file.
    pub line: Option<usize>,
    /// The key; empty when the fault is not about one key, as in broken YAML.
    pub key: String,
    /// What stands there, ready to be read after "found".
    pub found: String,
    /// What should stand there, ready to be read after "expected".
    pub expected: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        place(f, &self.key, self.line)?;
        write!(f, "found {}, expected {}.", self.found, self.expected)
    }
}

/// Something that is allowed but probably not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Line in the file, from 1; absent when it is about something that is not in the file.
    pub line: Option<usize>,
    /// The key that it is about.
    pub key: String,
    /// A clause, without its full stop.
    pub text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        place(f, &self.key, self.line)?;
        write!(f, "{}.", self.text)
    }
}

/// A configuration that cannot be used: all its faults, in the order of their lines, and what was odd besides (a
/// misspelt key explains a missing one).
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
    /// One fault a line, without a line end after the last.
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

/// Why one value was not taken, before it is known where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidValue {
    /// What to say instead of quoting the value; for values that hold a secret, or are right but for their context.
    pub found: Option<String>,
    /// What should stand there.
    pub expected: String,
}

impl<T: Into<String>> From<T> for InvalidValue {
    fn from(expected: T) -> InvalidValue {
        InvalidValue {
            found: None,
            expected: expected.into(),
        }
    }
}

/// A piece of the file in quotes, escaped and cut to a readable length.
pub fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    quoted.extend(text.chars().take(MAX_QUOTED).flat_map(char::escape_debug));
    quoted.push('"');
    if text.chars().nth(MAX_QUOTED).is_some() {
        quoted.push_str(" and more");
    }
    quoted
}

fn place(f: &mut fmt::Formatter<'_>, key: &str, line: Option<usize>) -> fmt::Result {
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
    fn says_everything_in_one_sentence() {
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
    fn cuts_and_escapes_what_it_quotes() {
        assert_eq!(quote("a\u{1b}[m\"é"), "\"a\\u{1b}[m\\\"é\"");
        assert_eq!(quote(&"x".repeat(80)).len(), 82);
        assert_eq!(
            quote(&"é".repeat(81)),
            format!("\"{}\" and more", "é".repeat(80))
        );
    }
}
