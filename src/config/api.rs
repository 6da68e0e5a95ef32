//! The keys `api` and `purposes`.
//!
//! Both are maps without a predecessor in HttpUploadComponent, so unknown entries can be errors: a misspelt `token` would
//! leave the API open.

use std::cell::Cell;
use std::time::Duration;

use ipnet::IpNet;

use crate::config::address::{self, Listen};
use crate::config::keys::{self, KeyInfo};
use crate::config::network;
use crate::config::reader::ConfigReader;
use crate::config::secret::Secret;
use crate::config::secrets;
use crate::config::values::{Api, PurposeLimits, Purposes};

/// Length of a bearer token, in characters. Peers that reach the API can guess tokens without limit.
const TOKEN: std::ops::RangeInclusive<usize> = 16..=1024;

/// Reads `api`; `public` are the public listeners.
pub fn api(r: &mut ConfigReader, public: &[Listen]) -> Option<Api> {
    if !r.given(&keys::API) {
        return None;
    }
    let mut section = r.map(&keys::API)?;
    let api = Api {
        listen: listen(&mut section, public),
        prefix: section.value(&keys::API_PREFIX).unwrap_or_default(),
        allow: allow(&mut section),
        token: token(&mut section),
    };
    let open = api.allow.iter().any(|net| net.prefix_len() == 0);
    if open && api.token.is_none() {
        let text = "has a network of all addresses, and without a token anyone can request slots in any user's name";
        section.warn(&keys::API_ALLOW, text);
    }
    r.close(section);
    Some(api)
}

/// Reads `purposes`.
pub fn purposes(r: &mut ConfigReader) -> Purposes {
    let section = r.given(&keys::PURPOSES).then(|| r.map(&keys::PURPOSES));
    let Some(mut section) = section.flatten() else {
        return Purposes::default();
    };
    let never = Some(Duration::ZERO);
    let purposes = Purposes {
        message: purpose(&mut section, &keys::PURPOSE_MESSAGE, None),
        profile: purpose(&mut section, &keys::PURPOSE_PROFILE, never),
        ephemeral: purpose(&mut section, &keys::PURPOSE_EPHEMERAL, None),
        permanent: purpose(&mut section, &keys::PURPOSE_PERMANENT, never),
    };
    r.close(section);
    purposes
}

/// Reads the API's listeners. A port is needed unless every address is a Unix socket or has its own.
fn listen(section: &mut ConfigReader, public: &[Listen]) -> Vec<Listen> {
    let (key, port_key) = (&keys::API_ADDRESS, &keys::API_PORT);
    let port = section.get(port_key).unwrap_or(0);
    let needs_port = Cell::new(false);
    let wanted = network::addresses(section, key, |text| {
        if address::listen(text, 1) != address::listen(text, 2) {
            needs_port.set(true);
        }
        address::listen(text, port)
    });
    if needs_port.get() && !section.given(port_key) {
        section.require(port_key);
        return Vec::new();
    }
    let overlap = |listen: &Listen| public.iter().find(|other| other.overlaps(listen));
    let mut kept = Vec::new();
    for listen in wanted {
        match overlap(&listen) {
            Some(other) => {
                let found = format!(
                    "{listen}, which overlaps {other} of {}",
                    keys::HTTP_ADDRESS.name
                );
                let expected =
                    "a different port or address, because the API has listeners of its own";
                section.error(key, found, expected);
            }
            None => kept.push(listen),
        }
    }
    network::without_covered(section, key, kept)
}

/// Reads the networks that are accepted; by default this machine alone.
fn allow(section: &mut ConfigReader) -> Vec<IpNet> {
    let key = &keys::API_ALLOW;
    let listed = section.items(key).map(|listed| listed.concat());
    listed.or_else(|| section.value(key)).unwrap_or_default()
}

/// Reads one purpose, if it is listed; an empty value lists it, as an empty map does.
fn purpose(
    section: &mut ConfigReader,
    key: &KeyInfo,
    maxage: Option<Duration>,
) -> Option<PurposeLimits> {
    let mut inner = section.map(key)?;
    let limits = PurposeLimits {
        max_file_size: inner.get(&keys::PURPOSE_MAX_FILE_SIZE),
        expire_maxage: inner.get(&keys::PURPOSE_EXPIRE_MAXAGE).or(maxage),
        user_quota_hard: inner.get(&keys::PURPOSE_USER_QUOTA_HARD),
    };
    section.close(inner);
    Some(limits)
}

/// Reads the bearer token.
fn token(section: &mut ConfigReader) -> Option<Secret> {
    let key = &keys::API_TOKEN;
    let secret = secrets::secret(section, key, 1, None)?;
    let text = secret.expose();
    let (least, most) = (TOKEN.start(), TOKEN.end());
    let expected = format!("{least} to {most} visible ASCII characters, without spaces");
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        section.error(key, "a token with other characters", expected);
    } else if !TOKEN.contains(&text.len()) {
        let found = format!("a token of {} characters", text.len());
        section.error(key, found, expected);
    }
    Some(secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::error::{ConfigError, Warning};
    use crate::config::keys::PURPOSE_NAMES;
    use crate::config::raw;
    use crate::purpose::Purpose;

    /// The value that `read` finds in a text, its errors and its warnings.
    #[track_caller]
    fn reading<T>(
        text: &str,
        read: impl Fn(&mut ConfigReader) -> T,
    ) -> (T, Vec<String>, Vec<String>) {
        let mut r = ConfigReader::new(raw::parse(text).expect(text));
        let value = read(&mut r);
        let (errors, warnings) = match r.finish() {
            Ok(warnings) => (Vec::new(), warnings),
            Err(errors) => (errors.errors, errors.warnings),
        };
        let errors = errors.iter().map(ConfigError::to_string).collect();
        let warnings = warnings.iter().map(Warning::to_string).collect();
        (value, errors, warnings)
    }

    fn public() -> Vec<Listen> {
        address::listen("127.0.0.1", 8080).unwrap()
    }

    /// Checks a value without errors or warnings.
    #[track_caller]
    fn check<T: PartialEq + std::fmt::Debug>(
        text: &str,
        read: impl Fn(&mut ConfigReader) -> T,
        expected: T,
    ) {
        let (value, errors, warnings) = reading(text, read);
        assert_eq!((errors, warnings), (vec![], vec![]), "{text}");
        assert_eq!(value, expected, "{text}");
    }

    /// Checks that a text has exactly these errors.
    #[track_caller]
    fn errors<T>(text: &str, read: impl Fn(&mut ConfigReader) -> T, expected: &[&str]) {
        let (_, errors, _) = reading(text, read);
        assert_eq!(errors, expected, "{text}");
    }

    /// Checks that a text has no errors, and one warning that begins like this.
    #[track_caller]
    fn warned<T>(text: &str, read: impl Fn(&mut ConfigReader) -> T, begin: &str) -> T {
        let (value, errors, warnings) = reading(text, read);
        assert_eq!(errors, [""; 0], "{text}");
        assert!(
            warnings.len() == 1 && warnings[0].starts_with(begin),
            "{text}: {warnings:?}"
        );
        value
    }

    fn read_api(r: &mut ConfigReader) -> Option<Api> {
        api(r, &public())
    }

    fn least() -> Api {
        Api {
            listen: address::listen("127.0.0.1", 8081).unwrap(),
            prefix: "/".into(),
            allow: address::networks("localhost").unwrap(),
            token: None,
        }
    }

    #[test]
    fn reads_the_api() {
        for off in ["", "api:", "api: ~", "api: ''"] {
            check(off, read_api, None);
        }
        check("api: {port: 8081}", read_api, Some(least()));
        check(
            "api: {port: 8081, address: , prefix: '', allow: ~, token: ''}",
            read_api,
            Some(least()),
        );
        let whole = "
api:
  address: ['::1', 'unix:/run/upslot/api.sock', 'localhost:9000']
  port: 0
  prefix: /up/load
  allow: [192.0.2.7, fd00::/8]
  token: 0123456789abcdef
";
        let whole_api = Api {
            listen: [
                address::listen("::1", 0),
                address::listen("unix:/run/upslot/api.sock", 0),
                address::listen("localhost", 9000),
            ]
            .map(Result::unwrap)
            .concat(),
            prefix: "/up/load/".into(),
            allow: [
                address::networks("192.0.2.7"),
                address::networks("fd00::/8"),
            ]
            .map(Result::unwrap)
            .concat(),
            token: Some(Secret::new("0123456789abcdef")),
        };
        check(whole, read_api, Some(whole_api));
        check(
            "api: {port: 8081, allow: 'localhost, 192.0.2.0/24'}",
            |r| read_api(r).map(|api| api.allow.len()),
            Some(3),
        );
    }

    #[test]
    fn a_port_is_needed_where_an_address_has_none() {
        for text in [
            "api: {address: 'unix:/run/api.sock'}",
            "api: {address: ['unix:/run/api.sock', '127.0.0.1:8081', '[::1]:0']}",
        ] {
            check(text, |r| read_api(r).is_some(), true);
        }
        let expected =
            "found nothing, expected the port of the API, a whole number from 0 to 65535.";
        let error = format!("api.port (line 1): {expected}");
        for text in [
            "api: {}",
            "api: {port: }",
            "api: {address: '::1'}",
            "api: {address: ['unix:/run/api.sock', localhost]}",
        ] {
            errors(text, read_api, &[&error]);
        }
    }

    #[test]
    fn the_api_does_not_share_a_public_listener() {
        for address in [
            "127.0.0.1",
            "0.0.0.0",
            "'::'",
            "localhost",
            "'127.0.0.1:8080'",
        ] {
            let (_, errors, _) = reading(
                &format!("api: {{port: 8080, address: {address}}}"),
                read_api,
            );
            assert_eq!(errors.len(), 1, "{address}: {errors:?}");
            assert!(
                errors[0].starts_with("api.address (line 1): found ")
                    && errors[0]
                        .contains(", which overlaps 127.0.0.1:8080 of http_address, expected "),
                "{errors:?}"
            );
        }
        check(
            "api: {port: 8080, address: '::1'}",
            |r| read_api(r).is_some(),
            true,
        );
        let begin = "api.address (line 1): has 127.0.0.1:8081, which [::]:8081 already covers";
        for address in ["[127.0.0.1, '::']", "['::', 127.0.0.1]"] {
            let text = format!("api: {{port: 8081, address: {address}}}");
            let api = warned(&text, read_api, begin).unwrap();
            assert_eq!(api.listen, address::listen("::", 8081).unwrap());
        }
        let begin = "api.address (line 1): has [::1]:8081, which [::1]:8081 already covers";
        let text = "api: {port: 8081, address: ['::1', '::1']}";
        assert_eq!(warned(text, read_api, begin).unwrap().listen.len(), 1);
    }

    #[test]
    fn reports_all_errors_of_the_api_with_their_lines() {
        let text = "
api:
  port: 70000
  address:
    - 127.0.0.1
    - example.org
  prefix: up//load
  allow: [10.0.0.0/8, x]
  tokne: 0123456789abcdef
  token: [hunter2hunter2hunter2]
  port: 8081
";
        errors(
            text,
            read_api,
            &[
                "api.port (line 3): found \"70000\", expected a whole number from 0 to 65535.",
                "api.address (line 6): found \"example.org\", expected an IP address such as 127.0.0.1 or ::, localhost, or unix:/path.",
                "api.prefix (line 7): found \"up//load\", expected a path such as / or /upload/, without characters that need encoding.",
                "api.allow (line 8): found \"x\", expected a network such as 10.0.0.0/8 or fd00::/8, or an IP address.",
                "api.tokne (line 9): found an unknown key, expected one of address, port, prefix, allow, token.",
                "api.token (line 10): found a list, expected a single value.",
                "api.port (line 11): found a duplicate key, expected each key once; it is already in line 3.",
            ],
        );
        for text in ["api: 8081", "api: [8081]"] {
            let (api, errors, _) = reading(text, read_api);
            assert_eq!((api, errors.len()), (None, 1));
            assert!(
                errors[0].ends_with("expected a map of address, port, prefix, allow, token."),
                "{errors:?}"
            );
        }
        errors(
            "api: {port: 1, address: []}",
            read_api,
            &["api.address (line 1): found an empty list, expected at least one address."],
        );
    }

    #[test]
    fn tokens_are_long_and_never_shown() {
        for token in [
            "hunter2",
            "hunter2 hunter2 hunter2",
            "hunter2hunter2hünter2",
        ] {
            let (_, errors, _) = reading(&format!("api: {{port: 1, token: {token}}}"), read_api);
            assert_eq!(errors.len(), 1, "{token}");
            assert!(
                !errors[0].contains("unter2") && errors[0].starts_with("api.token (line 1): "),
                "{errors:?}"
            );
        }
        for (length, errors) in [(15, 1), (16, 0), (1024, 0), (1025, 1)] {
            let text = format!(
                "api: {{port: 1, token: {}}}",
                "xy".repeat(1024)[..length].to_owned()
            );
            assert_eq!(reading(&text, read_api).1.len(), errors, "{length}");
        }
        let text = "api: {port: 1, token: hunter2hunter2hunter2}";
        let (api, ..) = reading(text, read_api);
        assert!(!format!("{api:?}").contains("hunter2"));
    }

    #[test]
    fn accepts_peers_by_network() {
        let api = Api {
            allow: ["localhost", "192.0.2.0/24"]
                .map(|text| address::networks(text).unwrap())
                .concat(),
            ..least()
        };
        for (peer, admitted) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("::ffff:127.0.0.1", true),
            ("::1", true),
            ("192.0.2.255", true),
            ("::ffff:192.0.2.1", true),
            ("192.0.3.0", false),
            ("::2", false),
            ("0.0.0.0", false),
        ] {
            assert_eq!(api.admits(peer.parse().ok()), admitted, "{peer}");
        }
        assert!(api.admits(None));
        let none = warned(
            "api: {port: 1, allow: []}",
            read_api,
            "api.allow (line 1): is",
        )
        .unwrap();
        assert!(!none.admits("127.0.0.1".parse().ok()) && none.admits(None));
    }

    #[test]
    fn warns_about_an_open_api() {
        for net in ["0.0.0.0/0", "'::/0'", "[localhost, '::/0']"] {
            let open = format!("api: {{port: 8081, allow: {net}}}");
            warned(&open, read_api, "api.allow (line 1): has a network of all");
            let closed = format!("api: {{port: 8081, allow: {net}, token: 0123456789abcdef}}");
            check(&closed, |r| read_api(r).is_some(), true);
        }
    }

    #[test]
    fn reads_purposes() {
        let general = PurposeLimits::default();
        let kept = PurposeLimits {
            expire_maxage: Some(Duration::ZERO),
            ..general
        };
        for text in ["", "purposes:", "purposes: ~"] {
            check(text, purposes, Purposes::default());
        }
        check("purposes: {message: {}}", purposes, Purposes::default());
        assert_eq!(Purposes::default().announced(), ["message"]);
        let none = Purposes {
            message: None,
            ..Purposes::default()
        };
        check("purposes: {}", purposes, none);
        assert_eq!(none.announced(), [""; 0]);
        assert_eq!(none.limits(Purpose::Message), Some(general));
        assert_eq!(none.limits(Purpose::Profile), None);
        let all = Purposes {
            message: Some(general),
            profile: Some(kept),
            ephemeral: Some(general),
            permanent: Some(kept),
        };
        check(
            "purposes:\n  permanent: {}\n  message:\n  ephemeral: ~\n  profile:\n",
            purposes,
            all,
        );
        assert_eq!(
            all.announced(),
            ["message", "profile", "ephemeral", "permanent"]
        );
        let text = "
purposes:
  profile: {max_file_size: 1 MiB, expire_maxage: 365 d, user_quota_hard: 5 MiB}
  permanent: {expire_maxage: 0, user_quota_hard: 0}
  ephemeral:
    max_file_size: 7
";
        let some = Purposes {
            message: None,
            profile: Some(PurposeLimits {
                max_file_size: Some(1 << 20),
                expire_maxage: Some(Duration::from_secs(365 * 86_400)),
                user_quota_hard: Some(5 << 20),
            }),
            ephemeral: Some(PurposeLimits {
                max_file_size: Some(7),
                ..general
            }),
            permanent: Some(PurposeLimits {
                user_quota_hard: Some(0),
                ..kept
            }),
        };
        check(text, purposes, some);
        let ephemeral = Purpose::Ephemeral { expire_before: 1 };
        assert_eq!(some.limits(ephemeral), some.ephemeral);
        assert_eq!(some.limits(Purpose::Permanent), some.permanent);
    }

    #[test]
    fn the_entries_are_named_as_the_purposes() {
        let purposes = [
            Purpose::Message,
            Purpose::Profile,
            Purpose::Ephemeral { expire_before: 0 },
            Purpose::Permanent,
        ];
        let names: Vec<&str> = PURPOSE_NAMES.iter().map(|key| key.name).collect();
        assert_eq!(purposes.map(|purpose| purpose.word()), *names);
    }

    #[test]
    fn reports_all_errors_of_the_purposes() {
        let text = "
purposes:
  profil: {}
  message: {max_file_size: 0, max_size: 1}
  permanent: yes
  ephemeral: {expire_maxage: [1], user_quota_hard: -1}
  message: {}
";
        let entries = "max_file_size, expire_maxage, user_quota_hard";
        errors(
            text,
            purposes,
            &[
                "purposes.profil (line 3): found an unknown key, expected one of message, profile, ephemeral, permanent.",
                &format!(
                    "purposes.message.max_size (line 4): found an unknown key, expected one of {entries}."
                ),
                "purposes.message.max_file_size (line 4): found \"0\", expected a number of bytes above 0, such as 20971520 or 20 MiB.",
                &format!(
                    "purposes.permanent (line 5): found a single value, expected a map of {entries}."
                ),
                "purposes.ephemeral.expire_maxage (line 6): found a list, expected a single value.",
                "purposes.ephemeral.user_quota_hard (line 6): found \"-1\", expected a number of bytes, such as 20971520 or 20 MiB.",
                "purposes.message (line 7): found a duplicate key, expected each key once; it is already in line 4.",
            ],
        );
        for text in ["purposes: message", "purposes: [message, profile]"] {
            let (_, errors, _) = reading(text, purposes);
            assert_eq!(errors.len(), 1, "{text}");
        }
    }
}
