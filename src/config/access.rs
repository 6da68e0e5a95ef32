//! The key `access`: rules about who may upload how much, into [`Rules`].
//!
//! A rule that restricts less than its author intended grants uploads, so this is stricter than other keys: an empty
//! value is an error, and so is a rule whose only restriction is an unknown key.

use std::cell::Cell;

use crate::config::error::{InvalidValue, quote};
use crate::config::keys::{self, KeyInfo, RULE_KEYS};
use crate::config::reader::ConfigReader;
use crate::policy::rules::{
    ByteWindow, JidPattern, Limits, MAX_WINDOWS, Rule, RuleAction, Rules, UploadWindow,
};

/// Most rules.
const MOST_RULES: usize = 1000;

/// Most patterns in all rules together, because each of them may be searched at every request.
const MOST_PATTERNS: usize = 1000;

/// Patterns that match every address.
const MATCH_ALL: [&str; 6] = [".", ".*", ".+", "^.*$", "^.+$", "^"];

/// Reads the rules; empty without the key.
pub fn access(r: &mut ConfigReader) -> Rules {
    let key = &keys::ACCESS;
    let patterns_left = Cell::new(MOST_PATTERNS);
    let mut rules = Vec::new();
    for mut inner in r.maps(key) {
        let patterns = patterns(&mut inner, &patterns_left);
        let action = action(&mut inner);
        r.close(inner);
        rules.push((patterns, action));
    }
    if rules.len() > MOST_RULES {
        let found = format!("{} rules", rules.len());
        r.error(key, found, format!("at most {MOST_RULES}"));
    }
    let rules = Rules::new(rules);
    if let Some((rule, next)) = unreachable_rule(&rules) {
        let text = format!("never reaches rule {next}, because {rule} matches every address");
        r.warn(key, text);
    }
    rules
}

/// The first rule that matches every address although another one follows, with the number of that one.
fn unreachable_rule(rules: &Rules) -> Option<(&Rule, usize)> {
    let matches_all = |rule: &&Rule| {
        rule.patterns
            .iter()
            .any(|pattern| MATCH_ALL.contains(&pattern.as_str()))
    };
    let rule = rules.iter().find(matches_all)?;
    // Numbers begin at 1.
    let next = rules.iter().nth(rule.number)?;
    Some((rule, next.number))
}

fn patterns(r: &mut ConfigReader, left: &Cell<usize>) -> Vec<JidPattern> {
    let key = &keys::RULE_JID;
    let parse = |text: &str| {
        if left.get() == 0 {
            return Err(format!("at most {MOST_PATTERNS} patterns in all rules").into());
        }
        left.set(left.get() - 1);
        let why = match JidPattern::parse(text) {
            // "\b", "\t", "\e", "\a" and others are escapes of YAML.
            _ if text.contains(char::is_control) => {
                "with a control character, which YAML makes of a \\ in double quotes".to_owned()
            }
            Ok(pattern) => return Ok(pattern),
            Err(why) => why.to_string(),
        };
        let found = format!("{} ({why})", quote(text));
        Err(InvalidValue::found(found, keys::PATTERNS))
    };
    r.require(key);
    let patterns = r.many(key, false, parse).unwrap_or_default();
    for (pattern, why) in [
        (
            patterns.iter().find(|pattern| has_punycode(pattern)),
            "but no JID contains xn--: XMPP uses Unicode names, as in '@münchen\\.example$'",
        ),
        (
            patterns.iter().find(|pattern| needs_resource(pattern)),
            "which matches nothing: rules apply to bare JIDs, which have no resource",
        ),
    ] {
        if let Some(pattern) = pattern {
            r.warn(key, format!("has {}, {why}", quote(pattern.as_str())));
        }
    }
    patterns
}

/// Whether a pattern contains a punycode label.
fn has_punycode(pattern: &JidPattern) -> bool {
    pattern.as_str().to_ascii_lowercase().contains("xn--")
}

/// Whether a pattern requires a resource. Patterns with alternatives may match without it.
fn needs_resource(pattern: &JidPattern) -> bool {
    let text = pattern.as_str();
    text.contains('/') && !text.contains(['|', '?', '*', '[', '{'])
}

fn action(r: &mut ConfigReader) -> RuleAction {
    let upload = r.value(&keys::RULE_UPLOAD).unwrap_or(true);
    let limits = Limits {
        max_file_size: r.get(&keys::RULE_MAX_FILE_SIZE),
        max_total_size: r.get(&keys::RULE_MAX_TOTAL_SIZE),
        bytes: windows(r, &keys::RULE_BYTES, |inner| {
            let delta = inner.value(&keys::BYTE_WINDOW_DELTA);
            let bytes = inner.value(&keys::BYTE_WINDOW_BYTES)?;
            delta.map(|delta| ByteWindow { delta, bytes })
        }),
        uploads: windows(r, &keys::RULE_UPLOADS, |inner| {
            let delta = inner.value(&keys::UPLOAD_WINDOW_DELTA);
            let uploads = inner.value(&keys::UPLOAD_WINDOW_UPLOADS)?;
            delta.map(|delta| UploadWindow { delta, uploads })
        }),
        expire_maxage: r.get(&keys::RULE_EXPIRE_MAXAGE),
        allowed_file_types: r.items(&keys::RULE_FILE_TYPES),
    };
    let limit = RULE_KEYS[2..].iter().find(|key| r.written(key));
    match limit {
        Some(key) if !upload => {
            let found = "a limit together with \"upload: false\"";
            r.error(key, found, "only one of the two");
        }
        None if !r.written(&keys::RULE_UPLOAD) && r.has_unknown() => {
            let found = "no limit but an unknown key, so the rule would restrict nothing";
            let expected = "a limit, or \"upload: true\" if this is intended";
            r.error(&keys::RULE_JID, found, expected);
        }
        _ => {}
    }
    if upload {
        RuleAction::Allow(limits)
    } else {
        RuleAction::Deny
    }
}

fn windows<T>(
    r: &mut ConfigReader,
    key: &KeyInfo,
    read: impl Fn(&mut ConfigReader) -> Option<T>,
) -> Vec<T> {
    let mut windows = Vec::new();
    let inner = r.maps(key);
    if inner.len() > MAX_WINDOWS {
        let found = format!("{} windows", inner.len());
        r.error(key, found, format!("at most {MAX_WINDOWS}"));
    }
    for mut inner in inner {
        windows.extend(read(&mut inner));
        r.close(inner);
    }
    windows
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::error::{ConfigError, Warning};
    use crate::config::raw;
    use crate::jid::BareJid;
    use crate::policy::rules::RuleDecision;

    /// The rules of a text, its errors and its warnings.
    #[track_caller]
    fn reading(text: &str) -> (Rules, Vec<String>, Vec<String>) {
        let mut r = ConfigReader::new(raw::parse(text).expect(text));
        let rules = access(&mut r);
        let (errors, warnings) = match r.finish() {
            Ok(warnings) => (Vec::new(), warnings),
            Err(errors) => (errors.errors, errors.warnings),
        };
        let errors = errors.iter().map(ConfigError::to_string).collect();
        let warnings = warnings.iter().map(Warning::to_string).collect();
        (rules, errors, warnings)
    }

    /// The rules of a text without errors or warnings.
    #[track_caller]
    fn good(text: &str) -> Rules {
        let (rules, errors, warnings) = reading(text);
        assert_eq!((errors, warnings), (vec![], vec![]), "{text}");
        rules
    }

    /// The limits of a text's only rule.
    #[track_caller]
    fn limits(text: &str) -> Limits {
        let rules = good(text);
        let all: Vec<&Rule> = rules.iter().collect();
        match &all[..] {
            [rule] => match &rule.action {
                RuleAction::Allow(limits) => limits.clone(),
                RuleAction::Deny => panic!("{text}: denied"),
            },
            _ => panic!("{text}: {} rules", all.len()),
        }
    }

    /// Checks that a text has exactly these errors.
    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let (_, errors, _) = reading(text);
        assert_eq!(errors, expected, "{text}");
    }

    fn rule_keys() -> String {
        let names: Vec<&str> = RULE_KEYS.iter().map(|key| key.name).collect();
        names.join(", ")
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// The example in the documentation of django-xmpp-http-upload, as YAML.
    const DJANGO: &str = r"
access:
  - jid: ^admin@jabber\.at$
  - jid: ^blocked@jabber.at$
    upload: false
  - jid: ['@jabber\.at$', '@jabber\.zone$']
    max_file_size: 512 KiB
    max_total_size: 10 MiB
    bytes_per_timedelta: {delta: 1 h, bytes: 1 MiB}
    uploads_per_timedelta: {delta: 1 h, uploads: 3}
  - jid: .*
    upload: false
";

    #[test]
    fn reads_a_translation_of_django_settings() {
        let rules = good(DJANGO);
        let restricted = Limits {
            max_file_size: Some(512 << 10),
            max_total_size: Some(10 << 20),
            bytes: vec![ByteWindow {
                delta: secs(3600),
                bytes: 1 << 20,
            }],
            uploads: vec![UploadWindow {
                delta: secs(3600),
                uploads: 3,
            }],
            ..Limits::default()
        };
        for (jid, number, limits) in [
            ("admin@jabber.at", 1, Some(Limits::default())),
            ("blocked@jabber.at", 2, None),
            ("someone@jabber.at", 3, Some(restricted.clone())),
            ("someone@jabber.zone", 3, Some(restricted)),
            ("admin@jabber.zone.example.org", 4, None),
            ("jabber.at", 4, None),
        ] {
            let jid = BareJid::parse(jid).expect(jid);
            let found = match rules.decide(&jid) {
                RuleDecision::Allowed { rule, limits } => (rule.number, Some(limits.clone())),
                RuleDecision::Denied { rule: Some(rule) } => (rule.number, None),
                other => panic!("{jid}: {other:?}"),
            };
            assert_eq!(found, (number, limits), "{jid}");
        }
        let names: Vec<String> = rules.iter().map(Rule::to_string).collect();
        assert_eq!(names[2], r#"rule 3 ("@jabber\.at$" and 1 more)"#);
    }

    #[test]
    fn reads_every_key() {
        assert_eq!(good("whitelist: [a.tld]"), Rules::default());
        assert_eq!(limits("access: {jid: x}"), Limits::default());
        assert_eq!(limits("access: [{jid: x, upload: yes}]"), Limits::default());
        let whole = "
access:
  jid: [x]
  upload: true
  max_file_size: 1
  max_total_size: 3 GB
  bytes_per_timedelta:
    - delta: 60
      bytes: 5
    - {delta: 1 d, bytes: 1 MiB}
  uploads_per_timedelta:
    - {delta: 1.5 m, uploads: 1_000}
  expire_maxage: 0
  allowed_file_types: image/*, Text/Plain
";
        let window = |seconds, bytes| ByteWindow {
            delta: secs(seconds),
            bytes,
        };
        let expected = Limits {
            max_file_size: Some(1),
            max_total_size: Some(3_000_000_000),
            bytes: vec![window(60, 5), window(86_400, 1 << 20)],
            uploads: vec![UploadWindow {
                delta: secs(90),
                uploads: 1000,
            }],
            expire_maxage: Some(Duration::ZERO),
            allowed_file_types: Some(vec!["image/*".into(), "text/plain".into()]),
        };
        assert_eq!(limits(whole), expected);
    }

    #[test]
    fn reports_all_errors_with_their_lines() {
        let text = "
access:
  - jid: ['@a$', '(b', '']
    max_file_size: lots
  - upload: false
    max_total_size: 1
  - jid: x
    bytes_per_timedelta:
      - bytes: 0
      - {delta: 0, bytes: 1}
      - 5
    uploads_per_timedelta: {delta: 1 w}
    jid: y
  - hello
  - jid: []
    allowed_file_types: []
    expire_maxage:
    upload:
";
        let regex = "expected a regular expression or a list of them, in single quotes such as '@example\\.org$'.";
        let expected = [
            format!(
                "access.1.jid (line 3): found \"(b\" (found open group without closing ')'), {regex}"
            ),
            format!(
                "access.1.jid (line 3): found \"\" (it is empty and would match every address), {regex}"
            ),
            "access.1.max_file_size (line 4): found \"lots\", expected a number of bytes above 0, such as 20971520 or 20 MiB.".into(),
            format!("access.2.jid (line 5): found nothing, {regex}"),
            "access.2.max_total_size (line 6): found a limit together with \"upload: false\", expected only one of the two.".into(),
            "access.3.bytes_per_timedelta.1.delta (line 9): found nothing, expected the length of the window in seconds, such as 3600 or 1 h.".into(),
            "access.3.bytes_per_timedelta.1.bytes (line 9): found \"0\", expected a number of bytes above 0, such as 20971520 or 20 MiB.".into(),
            "access.3.bytes_per_timedelta.2.delta (line 10): found \"0\", expected a number of whole seconds above 0, such as 2592000 or 30 d.".into(),
            "access.3.bytes_per_timedelta.3 (line 11): found a single value, expected a map of delta, bytes.".into(),
            "access.3.uploads_per_timedelta.delta (line 12): found \"1 w\", expected a number of whole seconds above 0, such as 2592000 or 30 d.".into(),
            "access.3.uploads_per_timedelta.uploads (line 12): found nothing, expected a whole number of uploads above 0.".into(),
            "access.3.jid (line 13): found a duplicate key, expected each key once; it is already in line 7.".into(),
            format!("access.4 (line 14): found a single value, expected a map of {}.", rule_keys()),
            format!("access.5.jid (line 15): found an empty list, {regex}"),
            "access.5.allowed_file_types (line 16): found an empty list, expected at least one MIME type; \"upload: false\" refuses all of them.".into(),
            "access.5.expire_maxage (line 17): found an empty value, expected a value; without the key there is no limit.".into(),
            "access.5.upload (line 18): found an empty value, expected a value; without the key there is no limit.".into(),
        ];
        let (_, mut errors, warnings) = reading(text);
        let mut wanted = expected.to_vec();
        errors.sort();
        wanted.sort();
        assert_eq!(errors, wanted);
        assert_eq!(warnings, [""; 0]);
    }

    #[test]
    fn empty_values_are_errors() {
        let without = "without the key only the whitelist applies";
        check(
            "access:",
            &[&format!(
                "access (line 1): found an empty value, expected a list of rules; {without}."
            )],
        );
        check(
            "access: []",
            &[&format!(
                "access (line 1): found an empty list, which refuses all uploads, expected at least one rule; {without}."
            )],
        );
        let map = format!("expected a map of {}.", rule_keys());
        check(
            "access: .*",
            &[&format!("access (line 1): found a single value, {map}")],
        );
        check(
            "access: [~]",
            &[&format!("access.1 (line 1): found an empty value, {map}")],
        );
        check(
            "access: {jid: x, bytes_per_timedelta: []}",
            &[
                "access.bytes_per_timedelta (line 1): found an empty list, expected at least one window; without the key there is no limit.",
            ],
        );
    }

    #[test]
    fn an_unknown_key_is_ignored_only_beside_a_known_one() {
        let (rules, errors, warnings) =
            reading("access:\n  - {jid: x, max_filesize: 5, upload: true}");
        assert_eq!((rules.iter().count(), errors), (1, vec![]));
        assert_eq!(
            warnings,
            ["access.1.max_filesize (line 2): unknown key, ignored (did you mean max_file_size?)."]
        );
        let (_, errors, warnings) = reading("access:\n  - {jid: x, uplaod: false}");
        assert_eq!(warnings.len(), 1);
        assert_eq!(
            errors,
            [
                "access.1.jid (line 2): found no limit but an unknown key, so the rule would restrict nothing, expected a limit, or \"upload: true\" if this is intended."
            ]
        );
        let (_, errors, warnings) =
            reading("access: {jid: x, uploads_per_timedelta: {delta: 1, uploads: 1, burst: 2}}");
        assert_eq!((errors, warnings.len()), (vec![], 1));
        assert!(
            warnings[0].starts_with("access.uploads_per_timedelta.burst (line 1): unknown key")
        );
    }

    #[test]
    fn warns_about_an_unreachable_rule() {
        let (_, errors, warnings) =
            reading("access: [{jid: [a, .*]}, {jid: b, upload: false}, {jid: .}]");
        assert_eq!(errors, [""; 0]);
        assert_eq!(
            warnings,
            [
                r#"access (line 1): never reaches rule 2, because rule 1 ("a" and 1 more) matches every address."#
            ]
        );
    }

    #[test]
    fn numbers_of_rules_patterns_and_windows_are_bounded() {
        good(&format!("access:\n{}", "- jid: x\n".repeat(1000)));
        let (_, errors, _) = reading(&format!("access:\n{}", "- jid: x\n".repeat(1001)));
        assert_eq!(errors.len(), 2, "{errors:?}");
        let (_, errors, _) = reading(&format!("access: {{jid: [{}]}}", "x,".repeat(1002)));
        assert_eq!(errors.len(), 2);
        assert!(errors[0].contains("at most 1000 patterns in all rules"));
        let windows = "{delta: 1, bytes: 1},".repeat(9);
        let (_, errors, _) = reading(&format!(
            "access: {{jid: x, bytes_per_timedelta: [{windows}]}}"
        ));
        assert_eq!(
            errors,
            ["access.bytes_per_timedelta (line 1): found 9 windows, expected at most 8."]
        );
    }
}
