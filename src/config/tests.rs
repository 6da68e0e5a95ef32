//! Whole configurations, as operators write them.

use std::collections::BTreeSet;

use super::keys::DefaultValue;
use super::*;
use crate::policy::rules::Rules;
use ipnet::IpNet;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod each_key;
#[cfg(feature = "s3")]
mod object_store;

const SAMPLE: &str = include_str!("../../config.yml.sample");

/// The smallest configuration without warnings.
const LEAST: &str = "\
component_jid: upload.example.org
component_secret: hunter2
storage_path: /srv/files
get_url: https://up.example/
put_url: https://up.example/
whitelist: [example.org]
";

#[track_caller]
fn good(text: &str) -> Reading {
    read(text).unwrap_or_else(|errors| panic!("{text}\n{errors}"))
}

/// [`LEAST`] without some keys and with more lines at its end; the first of these is line 7 if no key is left out.
fn with(without: &[&str], lines: &str) -> String {
    let stays = |line: &&str| {
        !without
            .iter()
            .any(|key| line.starts_with(&format!("{key}:")))
    };
    let kept: Vec<&str> = LEAST.lines().filter(stays).collect();
    format!("{}\n{lines}", kept.join("\n"))
}

/// The errors of a text, as `key@line`.
#[track_caller]
fn errors(text: &str) -> Vec<String> {
    let errors = read(text).expect_err(text);
    assert_eq!(errors.errors.len(), errors.to_string().lines().count());
    let position = |error: &ConfigError| match error.line {
        Some(line) => format!("{}@{line}", error.key),
        None => error.key.clone(),
    };
    errors.errors.iter().map(position).collect()
}

/// The warnings of a text without errors.
#[track_caller]
fn warnings(text: &str) -> Vec<String> {
    good(text).warnings.iter().map(Warning::to_string).collect()
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_minimal_configuration_has_the_documented_defaults() {
    let Reading {
        config, warnings, ..
    } = good(LEAST);
    assert_eq!(warnings, []);
    let url = url::base_url("https://up.example/").expect("a good URL");
    let expected = Config {
        component: Some(Component {
            jid: "upload.example.org".into(),
            secret: SecretSource::Inline(Secret::new("hunter2")),
            host: "localhost".into(),
            port: 5347,
        }),
        storage_path: "/srv/files".into(),
        s3: None,
        file_mode: 0o640,
        dir_mode: 0o750,
        whitelist: BareJid::parse("example.org").map(|jid| vec![jid]),
        admins: Vec::new(),
        access: Rules::default(),
        purposes: Purposes::default(),
        api: None,
        external_secret: None,
        external_delete_secret: None,
        file_share_secret: None,
        max_file_size: 20_971_520,
        allowed_file_types: None,
        safe_file_types: None,
        listen: vec![Listen::Tcp(([127, 0, 0, 1], 8080).into())],
        tls: None,
        get_url: url.clone(),
        put_url: url,
        allow_web_clients: true,
        custom_headers: Vec::new(),
        serve_downloads: true,
        put_timeout: secs(360),
        slot_secret: None,
        slot_secret_file: None,
        expire_interval: Duration::ZERO,
        expire_maxage: Duration::ZERO,
        user_quota_hard: 0,
        user_quota_soft: 0,
        evict_on_quota: false,
        global_quota: 0,
        min_free_space: 67_108_864,
        trusted_proxies: Vec::new(),
        max_connections: None,
        max_connections_per_address: 0,
        header_timeout: secs(10),
        body_timeout: secs(60),
        idle_timeout: secs(60),
        shutdown_timeout: secs(30),
        contact: Vec::new(),
        terms_url: None,
        fsync: true,
        sandbox: true,
        log_level: LevelFilter::Info,
    };
    assert_eq!(config, expected);
    assert!(!format!("{config:?}").contains("hunter2"));
}

/// The sample with a secret instead of its placeholder.
fn ready_sample() -> String {
    assert_eq!(SAMPLE.matches("\"change me\"").count(), 1);
    SAMPLE.replace("\"change me\"", "hunter2")
}

#[test]
fn the_sample_is_valid_but_for_its_placeholder() {
    let errors = read(SAMPLE).expect_err("the sample has a placeholder");
    assert_eq!(errors.errors.len(), 1, "{errors}");
    assert_eq!(errors.errors[0].key, "component_secret");
    let Reading {
        config, warnings, ..
    } = good(&ready_sample());
    assert_eq!(warnings, []);
    assert_eq!(config.get_url.prefix, "https://upload.example.org/");
    assert_eq!(config.storage_path, Path::new("/var/lib/upslot"));
}

/// The sample with every key uncommented.
fn whole_sample() -> String {
    let key = |line: &str| {
        line.strip_prefix('#')
            .is_some_and(|line| line.starts_with(|c: char| c.is_ascii_lowercase()))
    };
    let active = |line| if key(line) { &line[1..] } else { line };
    let sample = ready_sample();
    sample.lines().map(active).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_sample_shows_the_defaults() {
    let as_it_stands = good(&ready_sample()).config;
    let Reading {
        mut config,
        warnings,
        ..
    } = good(&whole_sample());
    assert_eq!(warnings, []);
    // The values of these three are equivalent to the default, but not equal.
    assert!(!std::mem::take(&mut config.access).is_empty());
    assert_eq!(
        config.allowed_file_types.take(),
        Some(vec!["*/*".to_owned()])
    );
    let safe = SAFE.map(str::to_owned).to_vec();
    assert_eq!(config.safe_file_types.take(), Some(safe));
    assert_eq!(config, as_it_stands);
}

/// The default of `safe_file_types` in the sample.
const SAFE: [&str; 4] = ["image/*", "video/*", "audio/*", "text/plain"];

#[test]
fn the_sample_has_every_key_once_and_in_order() {
    let entries = raw::parse(&whole_sample()).expect("the sample is YAML");
    let shown: Vec<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
    let registered: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
    assert_eq!(shown, registered);
    let distinct: BTreeSet<&str> = registered.iter().copied().collect();
    assert_eq!(distinct.len(), KEYS.len());
}

/// The text after each key of the sample, commented out or not.
fn sample_value(name: &str) -> &'static str {
    let value = |line: &'static str| {
        line.trim_start_matches('#')
            .strip_prefix(name)?
            .strip_prefix(':')
    };
    let mut values = SAMPLE.lines().filter_map(value);
    let value = values.next().unwrap_or_else(|| panic!("{name} is missing"));
    assert_eq!(values.next(), None, "{name} is there twice");
    value.trim()
}

#[test]
fn the_sample_shows_the_registered_defaults() {
    for key in KEYS {
        let active = SAMPLE
            .lines()
            .any(|line| line.starts_with(&format!("{}:", key.name)));
        match key.default {
            DefaultValue::Text(default) => {
                assert!(!active, "{} is set", key.name);
                assert_eq!(sample_value(key.name), default, "{}", key.name);
            }
            DefaultValue::Unset if !active => {
                assert_eq!(sample_value(key.name), "", "{}", key.name)
            }
            DefaultValue::Unset => {}
            DefaultValue::Required(_) => assert!(active, "{} is commented out", key.name),
        }
    }
}

#[test]
fn every_registered_default_is_valid_and_its_own_value() {
    let absent = good(LEAST).config;
    for key in KEYS {
        let DefaultValue::Text(default) = key.default else {
            continue;
        };
        let mut written = good(&with(&[], &format!("{}: {default}", key.name))).config;
        // The defaults of these are equivalent to the absent key, but not equal.
        match key.name {
            "access" => written.access = absent.access.clone(),
            "allowed_file_types" => written.allowed_file_types = None,
            "safe_file_types" => written.safe_file_types = None,
            _ => {}
        }
        assert_eq!(written, absent, "{}: {default}", key.name);
    }
}

#[test]
fn the_listing_has_every_key_and_entry_once() {
    let listing = keys::listing();
    for key in KEYS {
        let line = format!("\n  {} (", key.name);
        assert_eq!(listing.matches(&line).count(), 1, "{}", key.name);
        assert!(
            listing.contains(key.doc) && key.doc.ends_with('.'),
            "{}",
            key.doc
        );
    }
    for line in [
        "\n  max_file_size (bytes; default: 20971520)\n",
        "\n  storage_path (path; required; needs a restart)\n",
        "\n  api.port (port; required)\n",
        "\n  access.bytes_per_timedelta.delta (seconds; required)\n",
        "\n  purposes.profile.max_file_size (bytes; no default)\n",
    ] {
        assert!(listing.contains(line), "{line}{listing}");
    }
    assert!(
        listing.lines().all(|line| line.chars().count() <= 120),
        "{listing}"
    );
}

/// A typical file of HttpUploadComponent.
const OLD: &str = r#"# XMPP
component_jid : upload.example.org
component_secret : 12345
component_port : 5347

storage_path : /var/lib/xmppupload/

# who may upload
whitelist :
    - example.org
    - romeo@montague.tld
    #- capulet.tld

max_file_size: 20971520 # 20 MiB
http_address: '0.0.0.0'
http_port: "8080"
# http_keyfile: /etc/ssl/private/key.pem
# http_certfile: /etc/ssl/certs/cert.pem
http_keyfile: ''
http_certfile: ""
get_url : http://upload.example.org:8080
put_url : 'http://upload.example.org:8080'
expire_interval: 82800
expire_maxage: 2592000
user_quota_hard: 104857600
user_quota_soft: 78643200
allow_web_clients: True
"#;

#[test]
fn a_file_of_the_predecessor_works_unchanged() {
    let Reading {
        config, warnings, ..
    } = good(OLD);
    let component = config.component.expect("a component");
    assert_eq!(component.jid, "upload.example.org");
    assert_eq!(component.secret, SecretSource::Inline(Secret::new("12345")));
    assert_eq!(
        (component.host.as_str(), component.port),
        ("localhost", 5347)
    );
    assert_eq!(config.storage_path, Path::new("/var/lib/xmppupload/"));
    let allowed: Vec<String> = config
        .whitelist
        .iter()
        .flatten()
        .map(BareJid::to_string)
        .collect();
    assert_eq!(allowed, ["example.org", "romeo@montague.tld"]);
    assert_eq!(config.max_file_size, 20_971_520);
    assert_eq!(config.listen, [Listen::Tcp(([0, 0, 0, 0], 8080).into())]);
    assert_eq!(config.tls, None);
    assert_eq!(config.get_url.prefix, "http://upload.example.org:8080/");
    assert_eq!(
        (config.expire_interval, config.expire_maxage),
        (secs(82_800), secs(2_592_000))
    );
    assert_eq!(
        (config.user_quota_hard, config.user_quota_soft),
        (104_857_600, 78_643_200)
    );
    assert!(config.allow_web_clients);
    let about: Vec<(&str, Option<usize>)> =
        warnings.iter().map(|w| (w.key.as_str(), w.line)).collect();
    assert_eq!(
        about,
        [("get_url", Some(21)), ("put_url", Some(22))],
        "plain HTTP is warned about"
    );
}

#[test]
fn all_line_ends_are_accepted() {
    for text in [
        OLD.replace('\n', "\r\n"),
        OLD.trim_end().to_owned(),
        format!("\u{feff}{OLD}"),
        format!("---\n{OLD}"),
    ] {
        assert_eq!(good(&text).config, good(OLD).config);
    }
    assert_eq!(read_bytes(OLD.as_bytes()), read(OLD));
    let errors = read_bytes(b"\xff\xfea\0:\0").expect_err("UTF-16");
    assert_eq!(errors.errors[0].found, "text in UTF-16");
    let errors = read_bytes(b"a: 1\nb: \xe9\n").expect_err("Latin-1");
    assert_eq!(errors.errors[0].line, Some(2));
}

#[test]
fn reports_all_errors_at_once_in_the_order_of_lines() {
    let text = "\
component_jid: a@b
component_secret:
  - hunter2
http_port: 99999
max_file_size: lots
whitelist:
  - example.org
  - no such
  - '@'
max_file_size: 1
access:
  - jid: (
trusted_proxies: [10.0.0.0/8, x]
put_url: ftp://up.example/
fsync: perhaps
storagepath: /srv/files
";
    let expected = [
        "component_jid@1",
        "component_secret@2",
        "http_port@4",
        "max_file_size@5",
        "whitelist@8",
        "whitelist@9",
        "max_file_size@10",
        "access.1.jid@12",
        "trusted_proxies@13",
        "put_url@14",
        "fsync@15",
        "storage_path",
        "get_url",
    ];
    let mut found = errors(text);
    let mut wanted = expected.map(str::to_owned).to_vec();
    assert_eq!(found[..11], wanted[..11]);
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted);
    let errors = read(text).expect_err("errors");
    let output = errors.to_string();
    assert!(!output.contains("hunter2"), "{output}");
    for sentence in [
        "http_port (line 4): found \"99999\", expected a whole number from 0 to 65535.",
        "max_file_size (line 10): found a duplicate key, expected each key once; it is already in line 5.",
        "access.1.jid (line 12): found \"(\" (found open group without closing ')'), expected a regular expression or a list of them, in single quotes such as '@example\\.org$'.",
        "storage_path: found nothing, expected the folder of the stored files.",
    ] {
        assert!(
            output.lines().any(|line| line == sentence),
            "{sentence}\n{output}"
        );
    }
    let hint = "storagepath (line 16): unknown key, ignored (did you mean storage_path?).";
    assert!(
        errors
            .warnings
            .iter()
            .any(|warning| warning.to_string() == hint)
    );
}

#[test]
fn the_number_of_errors_is_bounded() {
    let text = format!("whitelist:\n{}", "- '@'\n".repeat(300));
    let errors = read(&text).expect_err("errors");
    let last = errors.errors.last().map(ConfigError::to_string);
    assert_eq!(errors.errors.len(), 201);
    assert_eq!(
        last.as_deref(),
        Some("found 103 more errors, expected none.")
    );
}

#[test]
fn an_empty_file_lacks_the_required_keys() {
    for text in ["", "# nothing\n", "---\n...\n", "{}"] {
        assert_eq!(
            errors(text),
            ["storage_path", "get_url", "put_url"],
            "{text:?}"
        );
    }
}

#[test]
fn names_the_keys_that_need_a_restart() {
    let old = good(LEAST).config;
    let cases: [(&[&str], &str, &[&str]); 9] = [
        (&[], "", &[]),
        (&[], "http_address: 127.0.0.2", &["http_address"]),
        (&[], "http_port: 8081", &["http_port"]),
        (
            &[],
            "http_address: [127.0.0.1, ::1]\nhttp_port: 8081",
            &["http_address"],
        ),
        (
            &[],
            "http_certfile: /c\nhttp_keyfile: /k",
            &["http_certfile"],
        ),
        (&["storage_path"], "storage_path: /other", &["storage_path"]),
        (&[], "slot_secret: 0123456789abcdef", &["slot_secret"]),
        (&[], "slot_secret_file: /k", &["slot_secret_file"]),
        (
            &["component_jid", "whitelist", "get_url"],
            "component_jid: b.example\nwhitelist: b.example\nget_url: https://b.example\nmax_file_size: 7\nlog_level: debug",
            &[],
        ),
    ];
    for (without, lines, keys) in cases {
        let new = good(&with(without, lines)).config;
        assert_eq!(restart_keys(&old, &new), keys, "{lines}");
        assert_eq!(restart_keys(&new, &old), keys, "{lines}");
        assert_eq!(restart_keys(&new, &new), [""; 0], "{lines}");
    }
    let renewed = ["/c", "/d"]
        .map(|c| good(&with(&[], &format!("http_certfile: {c}\nhttp_keyfile: /k"))).config);
    assert_eq!(restart_keys(&renewed[0], &renewed[1]), [""; 0]);
}

#[cfg(not(feature = "s3"))]
#[test]
fn a_build_without_object_stores_refuses_the_section() {
    let text = with(&[], "s3: {bucket: uploads}\nslot_secret: 0123456789abcdef");
    assert_eq!(errors(&text), ["s3@7"]);
    assert!(good(&with(&[], "s3:")).config.s3.is_none());
}

/// Xorshift; the same numbers in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % n as u64).unwrap_or(0)
    }
}

/// Removes, doubles, replaces or inserts a few pieces.
fn mutate(text: &str, dice: &mut Dice) -> String {
    const PIECES: [&str; 32] = [
        ":",
        ": ",
        "\n",
        "\n  ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        ", ",
        "'",
        "\"",
        "#",
        " #",
        "&a ",
        "*a",
        "!!x ",
        "|\n",
        ">\n",
        "? ",
        "~",
        "\t",
        "\r",
        "%YAML 1.1\n",
        "---\n",
        "...\n",
        "\\",
        "0",
        "99999999999999999999",
        "é",
        "\u{0}",
        "\u{feff}",
    ];
    let mut chars: Vec<char> = text.chars().collect();
    for _ in 0..=dice.below(4) {
        let at = dice.below(chars.len() + 1);
        let end = (at + dice.below(12)).min(chars.len());
        let piece: Vec<char> = match dice.below(4) {
            0 => Vec::new(),
            1 => chars[at..end]
                .iter()
                .chain(&chars[at..end])
                .copied()
                .collect(),
            _ => PIECES[dice.below(PIECES.len())].chars().collect(),
        };
        let end = if dice.below(2) == 0 { at } else { end };
        chars.splice(at..end, piece);
    }
    chars.into_iter().collect()
}

#[test]
fn mutated_files_are_accepted_or_refused_without_a_panic() {
    let whole = whole_sample();
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    let (mut taken, mut refused) = (0, 0);
    for round in 0..MUTATIONS {
        let text = mutate([LEAST, OLD, &whole][round % 3], &mut dice);
        match read(&text) {
            Ok(reading) => {
                taken += 1;
                assert!(
                    reading.config.get_url.prefix.is_ascii() && !reading.config.listen.is_empty(),
                    "{text}"
                );
                assert!(reading.config.storage_path != Path::new(""), "{text}");
            }
            Err(errors) => {
                refused += 1;
                assert!(!errors.errors.is_empty(), "{text}");
                let lines = text.split(['\n', '\r']).count();
                let inside = |error: &ConfigError| {
                    error
                        .line
                        .is_none_or(|line| (1..=lines + 1).contains(&line))
                };
                assert!(errors.errors.iter().all(inside), "{text}\n{errors}");
                assert_eq!(
                    errors.to_string().lines().count(),
                    errors.errors.len(),
                    "{text}\n{errors}"
                );
                assert!(
                    !errors.to_string().contains(char::is_control) || errors.errors.len() > 1,
                    "{text}"
                );
            }
        }
    }
    assert!(
        taken > MUTATIONS / 50 && refused > MUTATIONS / 50,
        "{taken} taken, {refused} refused"
    );
}

/// How many files the test above tries; a few seconds without optimization.
const MUTATIONS: usize = 3_000;
