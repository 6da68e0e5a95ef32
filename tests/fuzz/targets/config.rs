//! The configuration: any text is either rejected with errors that have a line and a sentence, or yields a usable
//! configuration.

use upslot::config::{self, MAX_TEXT};
use upslot::service::Service;

use super::{Choices, expand};

pub fn run(data: &[u8]) {
    let bytes = expand(Choices(data).rest());
    let reading = config::read_bytes(&bytes);
    let lines = bytes.iter().filter(|b| **b == b'\n').count() + 1;
    let carriages = bytes.iter().filter(|b| **b == b'\r').count();
    let placed = |line: Option<usize>| {
        assert!(
            line.is_none_or(|line| (1..=lines + carriages + 1).contains(&line)),
            "{line:?}"
        );
    };
    let assert_printable = |text: &str| assert!(!text.contains(char::is_control), "{text:?}");
    let reading = match reading {
        Ok(reading) => reading,
        Err(rejected) => {
            assert!(!rejected.errors.is_empty());
            for error in &rejected.errors {
                placed(error.line);
                assert_printable(&error.to_string());
                let secret = ["secret", "token"]
                    .iter()
                    .any(|end| error.key.ends_with(end));
                assert!(
                    !secret || !error.found.starts_with('"'),
                    "a secret is quoted: {error}"
                );
                assert!(
                    error.to_string().len() < 4000,
                    "an error that repeats the file"
                );
            }
            assert_eq!(config::read_bytes(&bytes), Err(rejected), "read twice");
            return;
        }
    };
    assert!(bytes.len() <= MAX_TEXT);
    for warning in &reading.warnings {
        placed(warning.line);
        assert_printable(&warning.to_string());
    }
    let config = &reading.config;
    assert!(config.max_file_size > 0 && !config.listen.is_empty());
    assert!(config.storage_path.parent().is_some() || config.storage_path.is_relative());
    assert!(config.file_mode & 0o600 == 0o600 && config.dir_mode & 0o700 == 0o700);
    assert!(config.file_mode <= 0o7777 && config.dir_mode <= 0o7777);
    for url in [&config.get_url, &config.put_url] {
        assert!(
            url.prefix.is_ascii() && url.prefix.ends_with(&url.path) && url.prefix.len() <= 1024
        );
        assert!(url.path.starts_with('/') && url.path.ends_with('/'));
        assert!(url.prefix.starts_with("http://") || url.prefix.starts_with("https://"));
        assert!(!url.prefix.contains([' ', '"', '<', '?', '#']));
        assert_eq!(config::url::base_url(&url.prefix).as_ref(), Ok(url));
    }
    // Configured fields cannot break the head of a response.
    for (name, value) in &config.custom_headers {
        assert!(super::reference::is_token(name.as_bytes()), "{name:?}");
        assert!(
            value.bytes().all(|b| matches!(b, b' '..=b'~' | b'\t')),
            "{value:?}"
        );
    }
    if let Some(secret) = &config.slot_secret {
        assert!(secret.as_bytes().len() >= 16 && config.slot_secret_file.is_none());
    }
    assert!(config::restart_keys(config, config).is_empty());
    let service = Service::new(config, b"a secret of some length");
    assert!(service.purposes().contains(&"message"));
    assert_eq!(config::read_bytes(&bytes), Ok(reading), "read twice");
}
