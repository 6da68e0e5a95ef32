//! The key `access`: rules about who may upload how much, into [`Rules`].
//!
//! A rule that says less than its author thinks lets people in, so this is stricter than other keys: an empty value
//! is a fault, and so is a rule that restricts nothing but for a key that is not known.

use std::cell::Cell;
use std::time::Duration;

use crate::config::fault::{Wrong, quote};
use crate::config::reader::Reader;
use crate::config::scalar;
use crate::policy::rules::{
    ByteWindow, Limits, MOST_WINDOWS, Pattern, Rule, Rules, UploadWindow, Verdict,
};

/// Most rules.
const MOST_RULES: usize = 1000;

/// Most patterns in all rules together, because each of them may be searched at every request.
const MOST_PATTERNS: usize = 1000;

/// The keys of a rule; all but the first two are limits.
const RULE: [&str; 8] = [
    "jid",
    "upload",
    "max_file_size",
    "max_total_size",
    "bytes_per_timedelta",
    "uploads_per_timedelta",
    "expire_maxage",
    "allowed_file_types",
];

/// The keys of a window of bytes.
const BYTES: [&str; 2] = ["delta", "bytes"];

/// The keys of a window of uploads.
const UPLOADS: [&str; 2] = ["delta", "uploads"];

/// Patterns that are found in every address.
const EVERYONE: [&str; 6] = [".", ".*", ".+", "^.*$", "^.+$", "^"];

/// Reads the rules; empty without the key.
pub fn access(r: &mut Reader) -> Rules {
    if r.written("access") && !r.given("access") {
        let expected = "a list of rules; without the key the whitelist alone decides";
        r.fault("access", "an empty value", expected);
    } else if r.empty_list("access") {
        let found = "an empty list, with which nobody could upload";
        let expected = "at least one rule; without the key the whitelist alone decides";
        r.fault("access", found, expected);
    }
    let patterns_left = Cell::new(MOST_PATTERNS);
    let mut rules = Vec::new();
    for mut inner in r.maps("access", &RULE) {
        let patterns = patterns(&mut inner, &patterns_left);
        let verdict = verdict(&mut inner);
        r.close(inner);
        rules.push((patterns, verdict));
    }
    if rules.len() > MOST_RULES {
        let found = format!("{} rules", rules.len());
        r.fault("access", found, format!("at most {MOST_RULES}"));
    }
    let rules = Rules::new(rules);
    if let Some((rule, next)) = cut_off(&rules) {
        let text = format!("never gets to rule {next}, because {rule} matches every address");
        r.warn("access", text);
    }
    rules
}

/// The first rule that leaves nobody to the next one, with that one's number.
fn cut_off(rules: &Rules) -> Option<(&Rule, usize)> {
    let for_all = |rule: &&Rule| {
        rule.patterns
            .iter()
            .any(|pattern| EVERYONE.contains(&pattern.as_str()))
    };
    let rule = rules.iter().find(for_all)?;
    let next = rule.number + 1;
    rules
        .iter()
        .any(|other| other.number == next)
        .then_some((rule, next))
}

fn patterns(r: &mut Reader, left: &Cell<usize>) -> Vec<Pattern> {
    let expected =
        "a regular expression or a list of them, in single quotes such as '@example\\.org$'";
    if !r.given("jid") {
        let found = if r.written("jid") {
            "an empty value"
        } else {
            "nothing"
        };
        r.fault("jid", found, expected);
    }
    if r.empty_list("jid") {
        r.fault("jid", "an empty list", expected);
    }
    let read = |text: &str| {
        if left.get() == 0 {
            return Err(format!("at most {MOST_PATTERNS} patterns in all rules").into());
        }
        left.set(left.get() - 1);
        if text.contains(char::is_control) {
            // "\b", "\t", "\e", "\a" and others are escapes of YAML.
            let found = format!(
                "{} (it holds a control character, which YAML makes of a \\ in double quotes)",
                quote(text)
            );
            return Err(Wrong {
                found: Some(found),
                expected: expected.into(),
            });
        }
        Pattern::parse(text).map_err(|why| Wrong {
            found: Some(format!("{} ({why})", quote(text))),
            expected: expected.into(),
        })
    };
    let patterns = r.many("jid", false, read).unwrap_or_default();
    if let Some(pattern) = patterns.iter().find(|pattern| has_punycode(pattern)) {
        let text = format!(
            "has {}, but no JID has xn--: XMPP writes names in their own letters, as in '@münchen\\.example$'",
            quote(pattern.as_str())
        );
        r.warn("jid", text);
    }
    if let Some(pattern) = patterns.iter().find(|pattern| needs_resource(pattern)) {
        let text = format!(
            "has {}, which matches nothing: rules see bare JIDs, without a resource",
            quote(pattern.as_str())
        );
        r.warn("jid", text);
    }
    patterns
}

/// Whether a pattern looks for a label in punycode.
fn has_punycode(pattern: &Pattern) -> bool {
    pattern.as_str().to_ascii_lowercase().contains("xn--")
}

/// Whether a pattern without alternatives looks for a resource.
fn needs_resource(pattern: &Pattern) -> bool {
    let text = pattern.as_str();
    text.contains('/') && !text.contains(['|', '?', '*', '[', '{'])
}

fn verdict(r: &mut Reader) -> Verdict {
    for key in &RULE[1..] {
        if r.written(key) && !r.given(key) {
            r.fault(key, "an empty value", "a value; without the key no limit");
        }
    }
    let upload = r.one("upload", scalar::boolean).unwrap_or(true);
    let limits = Limits {
        max_file_size: r.one("max_file_size", |text| scalar::size(text, 1)),
        max_total_size: r.one("max_total_size", |text| scalar::size(text, 1)),
        bytes: byte_windows(r),
        uploads: upload_windows(r),
        expire_maxage: r.one("expire_maxage", |text| scalar::span(text, 0)),
        allowed_file_types: file_types(r),
    };
    let limited = RULE[2..].iter().find(|key| r.written(key));
    match limited {
        Some(key) if !upload => {
            r.fault(key, "a limit beside \"upload: false\"", "only one of both");
        }
        None if !r.written("upload") && r.has_unknown() => {
            let found = "no limit and an unknown key, so that nothing would be restricted";
            let expected = "a limit, or \"upload: true\" if this is meant";
            r.fault("jid", found, expected);
        }
        _ => {}
    }
    if upload {
        Verdict::Allow(limits)
    } else {
        Verdict::Deny
    }
}

fn byte_windows(r: &mut Reader) -> Vec<ByteWindow> {
    let read = |inner: &mut Reader| {
        let delta = delta(inner);
        let expected = "a number of bytes above 0, such as 20971520 or 20 MiB";
        let bytes = inner.needed("bytes", expected, |text| scalar::size(text, 1));
        Some(ByteWindow {
            delta: delta?,
            bytes: bytes?,
        })
    };
    windows(r, "bytes_per_timedelta", &BYTES, read)
}

fn upload_windows(r: &mut Reader) -> Vec<UploadWindow> {
    let read = |inner: &mut Reader| {
        let delta = delta(inner);
        let expected = "a whole number of uploads above 0";
        let uploads = inner.needed("uploads", expected, |text| {
            scalar::number(text, 1..=scalar::MAX_SIZE).map_err(|_| expected.into())
        });
        Some(UploadWindow {
            delta: delta?,
            uploads: uploads?,
        })
    };
    windows(r, "uploads_per_timedelta", &UPLOADS, read)
}

fn windows<T>(
    r: &mut Reader,
    key: &str,
    keys: &[&'static str],
    read: impl Fn(&mut Reader) -> Option<T>,
) -> Vec<T> {
    if r.empty_list(key) {
        let expected = "at least one window; without the key there is none";
        r.fault(key, "an empty list", expected);
    }
    let mut windows = Vec::new();
    let inner = r.maps(key, keys);
    if inner.len() > MOST_WINDOWS {
        let found = format!("{} windows", inner.len());
        r.fault(key, found, format!("at most {MOST_WINDOWS}"));
    }
    for mut inner in inner {
        windows.extend(read(&mut inner));
        r.close(inner);
    }
    windows
}

fn delta(r: &mut Reader) -> Option<Duration> {
    let expected = "the length of the window in seconds, such as 3600 or 1 h";
    r.needed("delta", expected, |text| scalar::span(text, 1))
}

fn file_types(r: &mut Reader) -> Option<Vec<String>> {
    let key = "allowed_file_types";
    if r.empty_list(key) {
        let expected = "at least one MIME type; \"upload: false\" forbids all of them";
        r.fault(key, "an empty list", expected);
    }
    r.many(key, true, scalar::mime_pattern)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fault::{Fault, Warning};
    use crate::config::raw;
    use crate::jid::BareJid;
    use crate::policy::rules::Decision;

    /// The rules of a text, its faults and its warnings.
    #[track_caller]
    fn reading(text: &str) -> (Rules, Vec<String>, Vec<String>) {
        let mut r = Reader::new(raw::parse(text).expect(text));
        let rules = access(&mut r);
        let (faults, warnings) = match r.finish() {
            Ok(warnings) => (Vec::new(), warnings),
            Err(faulty) => (faulty.faults, faulty.warnings),
        };
        let faults = faults.iter().map(Fault::to_string).collect();
        let warnings = warnings.iter().map(Warning::to_string).collect();
        (rules, faults, warnings)
    }

    /// The text gives rules without a fault or a warning.
    #[track_caller]
    fn good(text: &str) -> Rules {
        let (rules, faults, warnings) = reading(text);
        assert_eq!((faults, warnings), (vec![], vec![]), "{text}");
        rules
    }

    /// The text gives one rule, which allows within limits.
    #[track_caller]
    fn limits(text: &str) -> Limits {
        let rules = good(text);
        let all: Vec<&Rule> = rules.iter().collect();
        match &all[..] {
            [rule] => match &rule.verdict {
                Verdict::Allow(limits) => limits.clone(),
                Verdict::Deny => panic!("{text}: denied"),
            },
            _ => panic!("{text}: {} rules", all.len()),
        }
    }

    /// The text has exactly these faults.
    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let (_, faults, _) = reading(text);
        assert_eq!(faults, expected, "{text}");
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// What the settings of django-xmpp-http-upload say in its own documentation, in YAML.
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
                Decision::Allowed { rule, limits } => (rule.number, Some(limits.clone())),
                Decision::Denied { rule: Some(rule) } => (rule.number, None),
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
    fn tells_all_faults_with_their_places() {
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
            "access.2.max_total_size (line 6): found a limit beside \"upload: false\", expected only one of both.".into(),
            "access.3.bytes_per_timedelta.1.delta (line 9): found nothing, expected the length of the window in seconds, such as 3600 or 1 h.".into(),
            "access.3.bytes_per_timedelta.1.bytes (line 9): found \"0\", expected a number of bytes above 0, such as 20971520 or 20 MiB.".into(),
            "access.3.bytes_per_timedelta.2.delta (line 10): found \"0\", expected a number of whole seconds above 0, such as 2592000 or 30 d.".into(),
            "access.3.bytes_per_timedelta.3 (line 11): found a single value, expected a map of delta, bytes.".into(),
            "access.3.uploads_per_timedelta.delta (line 12): found \"1 w\", expected a number of whole seconds above 0, such as 2592000 or 30 d.".into(),
            "access.3.uploads_per_timedelta.uploads (line 12): found nothing, expected a whole number of uploads above 0.".into(),
            "access.3.jid (line 13): found the key a second time, expected it once only, and it is in line 7 already.".into(),
            format!("access.4 (line 14): found a single value, expected a map of {}.", RULE.join(", ")),
            format!("access.5.jid (line 15): found an empty list, {regex}"),
            "access.5.allowed_file_types (line 16): found an empty list, expected at least one MIME type; \"upload: false\" forbids all of them.".into(),
            "access.5.expire_maxage (line 17): found an empty value, expected a value; without the key no limit.".into(),
            "access.5.upload (line 18): found an empty value, expected a value; without the key no limit.".into(),
        ];
        let (_, mut faults, warnings) = reading(text);
        let mut wanted = expected.to_vec();
        faults.sort();
        wanted.sort();
        assert_eq!(faults, wanted);
        assert_eq!(warnings, [""; 0]);
    }

    #[test]
    fn nothing_is_not_everything() {
        let without = "without the key the whitelist alone decides";
        check(
            "access:",
            &[&format!(
                "access (line 1): found an empty value, expected a list of rules; {without}."
            )],
        );
        check(
            "access: []",
            &[&format!(
                "access (line 1): found an empty list, with which nobody could upload, expected at least one rule; {without}."
            )],
        );
        let map = format!("expected a map of {}.", RULE.join(", "));
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
                "access.bytes_per_timedelta (line 1): found an empty list, expected at least one window; without the key there is none.",
            ],
        );
    }

    #[test]
    fn an_unknown_key_is_ignored_only_beside_a_known_one() {
        let (rules, faults, warnings) =
            reading("access:\n  - {jid: x, max_filesize: 5, upload: true}");
        assert_eq!((rules.iter().count(), faults), (1, vec![]));
        assert_eq!(
            warnings,
            [
                "access.1.max_filesize (line 2): is not a known key and is ignored; max_file_size may be meant."
            ]
        );
        let (_, faults, warnings) = reading("access:\n  - {jid: x, uplaod: false}");
        assert_eq!(warnings.len(), 1);
        assert_eq!(
            faults,
            [
                "access.1.jid (line 2): found no limit and an unknown key, so that nothing would be restricted, expected a limit, or \"upload: true\" if this is meant."
            ]
        );
        let (_, faults, warnings) =
            reading("access: {jid: x, uploads_per_timedelta: {delta: 1, uploads: 1, burst: 2}}");
        assert_eq!((faults, warnings.len()), (vec![], 1));
        assert!(warnings[0].starts_with("access.uploads_per_timedelta.burst (line 1): is not"));
    }

    #[test]
    fn says_when_a_rule_is_never_asked() {
        let (_, faults, warnings) =
            reading("access: [{jid: [a, .*]}, {jid: b, upload: false}, {jid: .}]");
        assert_eq!(faults, [""; 0]);
        assert_eq!(
            warnings,
            [
                r#"access (line 1): never gets to rule 2, because rule 1 ("a" and 1 more) matches every address."#
            ]
        );
    }

    #[test]
    fn numbers_of_rules_patterns_and_windows_are_bounded() {
        good(&format!("access:\n{}", "- jid: x\n".repeat(1000)));
        let (_, faults, _) = reading(&format!("access:\n{}", "- jid: x\n".repeat(1001)));
        assert_eq!(faults.len(), 2, "{faults:?}");
        let (_, faults, _) = reading(&format!("access: {{jid: [{}]}}", "x,".repeat(1002)));
        assert_eq!(faults.len(), 2);
        assert!(faults[0].contains("at most 1000 patterns in all rules"));
        let windows = "{delta: 1, bytes: 1},".repeat(9);
        let (_, faults, _) = reading(&format!(
            "access: {{jid: x, bytes_per_timedelta: [{windows}]}}"
        ));
        assert_eq!(
            faults,
            ["access.bytes_per_timedelta (line 1): found 9 windows, expected at most 8."]
        );
    }
}
