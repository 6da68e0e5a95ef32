//! The keys about the other doors: the local slot API, the secrets of signed uploads, and the purposes of XEP-0363.
//!
//! Two of them hold maps. Their names are new with upslot, so that nothing old has to be let pass: an unknown one is
//! a fault, because a misspelt `token` would leave the API open.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::config::address::{self, Listen};
use crate::config::error::InvalidValue;
use crate::config::reader::ConfigReader;
use crate::config::scalar;
use crate::config::secret::Secret;
use crate::purpose::Purpose;

/// Length of a bearer token, in characters. Whoever reaches the API can try tokens at leisure.
const TOKEN: std::ops::RangeInclusive<usize> = 16..=1024;

/// Length from which a secret of signed uploads is not warned about, in bytes: whoever gets a URL can try secrets
/// against its signature. It is the other server's setting too, so a short one is not refused.
const GOOD_SECRET: usize = 16;

/// Longest prefix, in bytes.
const MAX_PREFIX: usize = 256;

const API_KEYS: [&str; 5] = ["address", "port", "prefix", "allow", "token"];

const PURPOSES: [&str; 4] = ["message", "profile", "ephemeral", "permanent"];

const PURPOSE_KEYS: [&str; 3] = ["max_file_size", "expire_maxage", "user_quota_hard"];

/// The listener of the slot API, `/health` and `/metrics`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// At least one; none of them covers another, or one of the public listeners.
    pub listen: Vec<Listen>,
    /// What stands before `slot/` and `max_size/`; begins and ends with `/`, and holds nothing that could be spelt in
    /// another way.
    pub prefix: String,
    /// Peers that may ask; see [`Api::admits`]. IPv4 networks are never in their mapped form.
    pub allow: Vec<IpNet>,
    /// 16 to 1024 visible ASCII characters.
    pub token: Option<Secret>,
}

impl Api {
    /// Whether this peer may ask at all. `None` is a peer on a Unix socket, which has no address: who may open the
    /// socket is for its folder's permissions to say.
    pub fn admits(&self, peer: Option<IpAddr>) -> bool {
        peer.is_none_or(|peer| {
            let peer = peer.to_canonical();
            self.allow.iter().any(|net| net.contains(&peer))
        })
    }
}

/// What holds for the files of one purpose, where it differs from what holds for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PurposeLimits {
    /// Bytes, at least 1; `None` is the general `max_file_size`.
    pub max_file_size: Option<u64>,
    /// Age at which a file goes, zero is never; `None` is the general `expire_maxage`.
    pub expire_maxage: Option<Duration>,
    /// Bytes that one owner may store, 0 is off; `None` is the general `user_quota_hard`.
    pub user_quota_hard: Option<u64>,
}

/// The purposes that are listed, and so announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purposes {
    pub message: Option<PurposeLimits>,
    /// `expire_maxage` is never `None`: these files do not go by age unless it is said.
    pub profile: Option<PurposeLimits>,
    pub ephemeral: Option<PurposeLimits>,
    /// As for `profile`.
    pub permanent: Option<PurposeLimits>,
}

impl Default for Purposes {
    /// `message` alone, with what holds for all.
    fn default() -> Purposes {
        Purposes {
            message: Some(PurposeLimits::default()),
            profile: None,
            ephemeral: None,
            permanent: None,
        }
    }
}

impl Purposes {
    /// The words of the listed purposes, for service discovery.
    pub fn announced(&self) -> Vec<&'static str> {
        let listed = [self.message, self.profile, self.ephemeral, self.permanent];
        let words = PURPOSES.iter().zip(listed);
        words
            .filter(|(_, limits)| limits.is_some())
            .map(|(word, _)| *word)
            .collect()
    }

    /// What holds for a purpose; `None` when it is not served. `message` is served always: it is what a request
    /// without a purpose means (XEP-0363 §5).
    pub fn limits(&self, purpose: Purpose) -> Option<PurposeLimits> {
        match purpose {
            Purpose::Message => Some(self.message.unwrap_or_default()),
            Purpose::Profile => self.profile,
            Purpose::Ephemeral { .. } => self.ephemeral,
            Purpose::Permanent => self.permanent,
        }
    }
}

/// Reads `api`; `public` is where the public side listens.
pub fn api(r: &mut ConfigReader, public: &[Listen]) -> Option<Api> {
    if !r.given("api") {
        return None;
    }
    let mut section = r.map("api", &API_KEYS)?;
    let api = Api {
        listen: listen(&mut section, public),
        prefix: section.one("prefix", prefix).unwrap_or_else(|| "/".into()),
        allow: allow(&mut section),
        token: token(&mut section),
    };
    let open = api.allow.iter().any(|net| net.prefix_len() == 0);
    if open && api.token.is_none() {
        let text = "has a network of all addresses, and without a token everyone gets slots in anybody's name";
        section.warn("allow", text);
    }
    r.close(section);
    Some(api)
}

/// Reads `purposes`.
pub fn purposes(r: &mut ConfigReader) -> Purposes {
    if !r.given("purposes") {
        return Purposes::default();
    }
    let Some(mut section) = r.map("purposes", &PURPOSES) else {
        return Purposes::default();
    };
    let message = purpose(&mut section, "message", None);
    let profile = purpose(&mut section, "profile", Some(Duration::ZERO));
    let ephemeral = purpose(&mut section, "ephemeral", None);
    let permanent = purpose(&mut section, "permanent", Some(Duration::ZERO));
    r.close(section);
    Purposes {
        message,
        profile,
        ephemeral,
        permanent,
    }
}

/// Reads `external_secret` or `file_share_secret`.
pub fn signing_secret(r: &mut ConfigReader, key: &str) -> Option<Secret> {
    let secret = r.secret(key, 1, None)?;
    let length = secret.as_bytes().len();
    if length < GOOD_SECRET {
        let text =
            format!("has {length} bytes, which can be guessed; at least {GOOD_SECRET} are better");
        r.warn(key, text);
    }
    Some(secret)
}

/// Reads where the API listens. A port is needed unless every address is a Unix socket or brings its own.
fn listen(section: &mut ConfigReader, public: &[Listen]) -> Vec<Listen> {
    let port_given = section.given("port");
    let port = section.one("port", port).unwrap_or(0);
    let read = |text: &str| {
        let needs_port = address::listen(text, 1) != address::listen(text, 2);
        address::listen(text, port).map(|places| (places, needs_port))
    };
    let read = match section.many("address", false, read) {
        Some(places) => places,
        None => read("127.0.0.1").into_iter().collect(),
    };
    if section.empty_list("address") {
        section.error("address", "an empty list", "at least one address");
    }
    if !port_given && read.iter().any(|(_, needs_port)| *needs_port) {
        let expected = "the port of the API, a whole number from 0 to 65535";
        section.error("port", "nothing", expected);
        return Vec::new();
    }
    let wanted: Vec<Listen> = read.into_iter().flat_map(|(places, _)| places).collect();
    let mut listen = Vec::new();
    for (at, place) in wanted.iter().enumerate() {
        let meets = |other: &&Listen| other.covers(place) || place.covers(other);
        let covers = |(number, other): &(usize, &Listen)| {
            let first = *number < at || !place.covers(other);
            *number != at && other.covers(place) && first
        };
        if let Some(other) = public.iter().find(meets) {
            let found = format!("{place}, beside {other} of http_address");
            let expected = "another port or address, because the API never shares the public one";
            section.error("address", found, expected);
        } else if let Some((_, other)) = wanted.iter().enumerate().find(covers) {
            let text = format!("has {place}, which {other} takes already");
            section.warn("address", text);
        } else {
            listen.push(place.clone());
        }
    }
    listen
}

/// Reads who may ask; without the key this machine alone.
fn allow(section: &mut ConfigReader) -> Vec<IpNet> {
    if !section.given("allow") {
        return address::networks("localhost").unwrap_or_default();
    }
    if section.empty_list("allow") {
        section.warn("allow", "is an empty list, so only Unix sockets can ask");
    }
    section
        .many("allow", true, address::networks)
        .unwrap_or_default()
        .concat()
}

/// Reads one purpose, if it is listed; an empty value lists it as an empty map does.
fn purpose(
    section: &mut ConfigReader,
    word: &str,
    maxage: Option<Duration>,
) -> Option<PurposeLimits> {
    let mut inner = section.map(word, &PURPOSE_KEYS)?;
    let limits = PurposeLimits {
        max_file_size: inner.one("max_file_size", |text| scalar::size(text, 1)),
        expire_maxage: inner
            .one("expire_maxage", |text| scalar::span(text, 0))
            .or(maxage),
        user_quota_hard: inner.one("user_quota_hard", |text| scalar::size(text, 0)),
    };
    section.close(inner);
    Some(limits)
}

fn port(text: &str) -> Result<u16, InvalidValue> {
    let number = scalar::number(text, 0..=65_535)?;
    u16::try_from(number).map_err(|_| "a port".into())
}

/// Reads a path prefix, whose last `/` may be missing. Only characters that nobody percent-encodes (RFC 3986 §3.3).
fn prefix(text: &str) -> Result<String, InvalidValue> {
    let inner = text
        .strip_prefix('/')
        .map(|t| t.strip_suffix('/').unwrap_or(t));
    let valid = |segment: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&b);
        !matches!(segment, "" | "." | "..") && segment.bytes().all(plain)
    };
    match inner {
        _ if text == "/" => Ok("/".to_owned()),
        Some(inner) if text.len() <= MAX_PREFIX && inner.split('/').all(valid) => {
            Ok(format!("/{inner}/"))
        }
        _ => Err("a path such as / or /upload/, without characters that need encoding".into()),
    }
}

/// Reads the bearer token.
fn token(section: &mut ConfigReader) -> Option<Secret> {
    let secret = section.secret("token", 1, None)?;
    let text = secret.expose();
    let (least, most) = (TOKEN.start(), TOKEN.end());
    let expected = format!("{least} to {most} visible ASCII characters, without blanks");
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        section.error("token", "a token with other characters", expected);
    } else if !TOKEN.contains(&text.len()) {
        let found = format!("a token of {} characters", text.len());
        section.error("token", found, expected);
    }
    Some(secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::error::{ConfigError, Warning};
    use crate::config::raw;

    /// What `read` makes of a text whose only known keys are those of this file.
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

    /// The text gives this without a fault or a warning.
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

    /// The text has these faults, each said to its end.
    #[track_caller]
    fn errors<T>(text: &str, read: impl Fn(&mut ConfigReader) -> T, expected: &[&str]) {
        let (_, errors, _) = reading(text, read);
        assert_eq!(errors, expected, "{text}");
    }

    /// The text has no faults, and one warning that begins so.
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
    fn the_api_has_a_place_of_its_own() {
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
                    && errors[0].contains(", beside 127.0.0.1:8080 of http_address, expected "),
                "{errors:?}"
            );
        }
        check(
            "api: {port: 8080, address: '::1'}",
            |r| read_api(r).is_some(),
            true,
        );
        let begin = "api.address (line 1): has 127.0.0.1:8081, which [::]:8081 takes already";
        for address in ["[127.0.0.1, '::']", "['::', 127.0.0.1]"] {
            let text = format!("api: {{port: 8081, address: {address}}}");
            let api = warned(&text, read_api, begin).unwrap();
            assert_eq!(api.listen, address::listen("::", 8081).unwrap());
        }
        let begin = "api.address (line 1): has [::1]:8081, which [::1]:8081 takes already";
        let text = "api: {port: 8081, address: ['::1', '::1']}";
        assert_eq!(warned(text, read_api, begin).unwrap().listen.len(), 1);
    }

    #[test]
    fn says_every_fault_of_the_api_with_its_line() {
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
                "api.port (line 11): found the key a second time, expected it once only, and it is in line 3 already.",
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
    fn tokens_are_long_and_never_said() {
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
    fn a_prefix_has_one_spelling() {
        for (text, read) in [
            ("/", "/"),
            ("/up", "/up/"),
            ("/up/", "/up/"),
            ("/up/load.v1~/", "/up/load.v1~/"),
            ("/health", "/health/"),
        ] {
            assert_eq!(prefix(text), Ok(read.to_owned()), "{text}");
        }
        let long = format!("/{}", "x".repeat(256));
        for text in [
            "", "up", "//", "/up//", "//up", "/./", "/../up", "/up/..", "/u%70/", "/a b/", "/é/",
            "/up?", "/up#", "/a\\b", &long,
        ] {
            assert!(prefix(text).is_err(), "{text}");
        }
    }

    #[test]
    fn admits_by_network() {
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
        let nobody = warned(
            "api: {port: 1, allow: []}",
            read_api,
            "api.allow (line 1): is",
        )
        .unwrap();
        assert!(!nobody.admits("127.0.0.1".parse().ok()) && nobody.admits(None));
    }

    #[test]
    fn warns_of_an_open_api() {
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
    fn the_words_are_those_of_the_purposes() {
        let purposes = [
            Purpose::Message,
            Purpose::Profile,
            Purpose::Ephemeral { expire_before: 0 },
            Purpose::Permanent,
        ];
        assert_eq!(purposes.map(|p| p.word()), PURPOSES);
    }

    #[test]
    fn says_every_fault_of_the_purposes() {
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
                "purposes.message (line 7): found the key a second time, expected it once only, and it is in line 4 already.",
            ],
        );
        for text in ["purposes: message", "purposes: [message, profile]"] {
            let (_, errors, _) = reading(text, purposes);
            assert_eq!(errors.len(), 1, "{text}");
        }
    }

    #[test]
    fn reads_signing_secrets() {
        for key in ["external_secret", "file_share_secret"] {
            let read = |r: &mut ConfigReader| signing_secret(r, key);
            check("", read, None);
            check(&format!("{key}:"), read, None);
            let text = format!("{key}: 'correct horse battery staple'");
            check(
                &text,
                read,
                Some(Secret::new("correct horse battery staple")),
            );
            check(
                &format!("{key}: 0123456789012345"),
                read,
                Some(Secret::new("0123456789012345")),
            );
            let begin = format!("{key} (line 1): has 7 bytes");
            let secret = warned(&format!("{key}: hunter2"), read, &begin);
            assert_eq!(secret, Some(Secret::new("hunter2")));
            let (secret, errors, _) = reading(&format!("{key}: [hunter2]"), read);
            assert_eq!((secret, errors.len()), (None, 1));
            assert!(!errors[0].contains("hunter2"), "{errors:?}");
        }
    }
}
