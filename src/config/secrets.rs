//! Reads the keys whose values are secrets, which are never repeated in a message.

use std::path::PathBuf;

use crate::config::error::InvalidValue;
use crate::config::keys::{ConfigKey, KeyInfo};
use crate::config::raw::ValueForm;
use crate::config::reader::ConfigReader;
use crate::config::secret::{self, Secret};

/// Length from which the secret of an integration is not warned about, in bytes: holders of a URL can guess secrets
/// offline against its signature. The other server chooses it, so a short one is not refused.
const GOOD_SECRET: usize = 16;

/// How the value of a secret begins if the path of a file was put there.
const PATH_PREFIXES: [&str; 6] = ["/run/", "/etc/", "/var/", "./", "~/", "file:"];

/// Reads a secret of at least `least` bytes. `file_key` is the key that takes a file instead, where there is one.
pub fn secret(
    r: &mut ConfigReader,
    key: &KeyInfo,
    least: usize,
    file_key: Option<&KeyInfo>,
) -> Option<Secret> {
    let form = r.node(key)?.form;
    let or_file =
        |begin: &str| file_key.map_or_else(String::new, |key| format!("{begin}{}", key.name));
    let secret = r.one(key, |text| {
        if let Some(found) = secret::flaw(text) {
            let file = or_file(", or the path of its file in ");
            let expected =
                format!("the secret itself{file}; environment variables are not expanded");
            return Err(InvalidValue::found(found, expected));
        }
        if text.len() >= least {
            return Ok(Secret::new(text));
        }
        let found = format!("a secret of {} bytes", text.len());
        Err(InvalidValue::found(found, format!("at least {least}")))
    })?;
    let text = secret.expose();
    if (form == ValueForm::Plain { commented: true }) {
        let text = "ends where a comment begins; use single quotes to keep a # in the secret, or move the comment to \
                    its own line";
        r.warn(key, text);
    } else if text.trim() != text {
        r.warn(
            key,
            "begins or ends with a space, which is part of the secret",
        );
    } else if PATH_PREFIXES.iter().any(|prefix| text.starts_with(prefix)) {
        let file = or_file("; to name a file, use ");
        let text = format!("looks like a path, but is used as the secret itself{file}");
        r.warn(key, text);
    }
    Some(secret)
}

/// Reads the secret of an integration.
pub fn integration(r: &mut ConfigReader, key: &KeyInfo) -> Option<Secret> {
    let secret = secret(r, key, 1, None)?;
    let length = secret.as_bytes().len();
    if length < GOOD_SECRET {
        let text =
            format!("has only {length} bytes and can be guessed; use at least {GOOD_SECRET}");
        r.warn(key, text);
    }
    Some(secret)
}

/// Reads a secret of at least `least` bytes and the key that takes a file instead, of which one may be given.
pub fn inline_or_file(
    r: &mut ConfigReader,
    key: &KeyInfo,
    least: usize,
    file_key: &ConfigKey<PathBuf>,
) -> (Option<Secret>, Option<PathBuf>) {
    if r.given(key) && r.given(file_key) {
        let found = format!("a file in addition to {}", key.name);
        r.error(file_key, found, "only one of the two");
    }
    (secret(r, key, least, Some(file_key)), r.get(file_key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::error::{ConfigError, Warning};
    use crate::config::keys;
    use crate::config::raw;

    /// The secret of a text, its errors and its warnings.
    fn reading(text: &str, key: &ConfigKey<String>) -> (Option<Secret>, Vec<String>, Vec<String>) {
        let mut r = ConfigReader::new(raw::parse(text).expect(text));
        let secret = integration(&mut r, key);
        let (errors, warnings) = match r.finish() {
            Ok(warnings) => (Vec::new(), warnings),
            Err(errors) => (errors.errors, errors.warnings),
        };
        let errors = errors.iter().map(ConfigError::to_string).collect();
        let warnings = warnings.iter().map(Warning::to_string).collect();
        (secret, errors, warnings)
    }

    #[test]
    fn reads_the_secrets_of_integrations() {
        for key in [&keys::EXTERNAL_SECRET, &keys::FILE_SHARE_SECRET] {
            let name = key.name();
            for (text, secret) in [
                (String::new(), None),
                (format!("{name}:"), None),
                (
                    format!("{name}: 'correct horse battery staple'"),
                    Some("correct horse battery staple"),
                ),
                (
                    format!("{name}: 0123456789012345"),
                    Some("0123456789012345"),
                ),
            ] {
                let expected = (secret.map(Secret::new), vec![], vec![]);
                assert_eq!(reading(&text, key), expected, "{text}");
            }
            let (secret, errors, warnings) = reading(&format!("{name}: hunter2"), key);
            assert_eq!((secret, errors), (Some(Secret::new("hunter2")), vec![]));
            let begin = format!("{name} (line 1): has only 7 bytes");
            assert!(
                warnings.len() == 1 && warnings[0].starts_with(&begin),
                "{warnings:?}"
            );
            let (secret, errors, _) = reading(&format!("{name}: [hunter2]"), key);
            assert_eq!((secret, errors.len()), (None, 1));
            assert!(!errors[0].contains("hunter2"), "{errors:?}");
        }
    }
}
