//! The operator's `access` rules: which rule applies to a JID, and what it allows.
//!
//! The first rule with a pattern that is found in the bare JID decides; without a match, access is denied. This module
//! does not know what was uploaded so far: [`rates`](crate::policy::rates) counts issued slots, and the quotas count
//! stored files.
//!
//! JIDs come from outside, patterns from the operator. The regular expression engine never backtracks, so a search
//! takes time proportional to pattern size times JID length, and both are bounded.

use std::fmt;
use std::time::Duration;

use regex_lite::{Regex, RegexBuilder};

use crate::jid::BareJid;

/// Maximum length of a pattern in bytes.
const MAX_PATTERN: usize = 1000;

/// Maximum memory of a compiled pattern in bytes. The limit rejects counted repetitions such as `((a{99}){99}){99}`,
/// which compile to a large program; a pattern of maximum length without them stays below it.
const MAX_PROGRAM: usize = 64 << 10;

/// Maximum number of windows of one kind in a rule.
pub const MOST_WINDOWS: usize = 8;

/// Maximum number of characters of a pattern that are shown in a rule's name.
const MAX_SHOWN: usize = 60;

/// A case-insensitive regular expression that is searched in bare JIDs.
#[derive(Clone, Debug)]
pub struct Pattern {
    regex: Regex,
    /// An equivalent plain comparison, if there is one; about a hundred times as fast as the engine.
    plain: Option<Plain>,
}

/// A pattern without operators other than anchors, like most patterns: `^romeo@montague\.tld$`, `@montague\.tld$`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plain {
    /// In lower case, like JIDs.
    text: String,
    from_start: bool,
    to_end: bool,
}

impl Plain {
    /// `None` for patterns that need the engine.
    fn of(pattern: &str) -> Option<Plain> {
        let (from_start, rest) = match pattern.strip_prefix('^') {
            Some(rest) => (true, rest),
            None => (false, pattern),
        };
        let (to_end, rest) = match rest.strip_suffix('$') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let mut text = String::with_capacity(rest.len());
        let mut chars = rest.chars();
        while let Some(c) = chars.next() {
            match c {
                '\\' if chars.next() == Some('.') => text.push('.'),
                'a'..='z' | 'A'..='Z' | '0'..='9' | '@' | '-' | '_' | '/' => {
                    text.push(c.to_ascii_lowercase());
                }
                _ => return None,
            }
        }
        Some(Plain {
            text,
            from_start,
            to_end,
        })
    }

    fn matches(&self, jid: &str) -> bool {
        let text = self.text.as_str();
        match (self.from_start, self.to_end) {
            (true, true) => jid == text,
            (true, false) => jid.starts_with(text),
            (false, true) => jid.ends_with(text),
            (false, false) => jid.contains(text),
        }
    }
}

impl Pattern {
    /// Compiles a regular expression. An error is a clause that says what is wrong with it.
    pub fn parse(text: &str) -> Result<Pattern, String> {
        if text.is_empty() {
            return Err("it is empty and would match every address".into());
        }
        if text.len() > MAX_PATTERN {
            let bytes = text.len();
            return Err(format!("it has {bytes} bytes, more than {MAX_PATTERN}"));
        }
        RegexBuilder::new(text)
            // JIDs are already folded to lower case; a pattern with a capital letter would never match.
            .case_insensitive(true)
            .size_limit(MAX_PROGRAM)
            .build()
            .map(|regex| Pattern {
                regex,
                plain: Plain::of(text),
            })
            .map_err(|error| error.to_string())
    }

    /// Whether the pattern is found anywhere in the JID.
    pub fn matches(&self, jid: &BareJid) -> bool {
        match &self.plain {
            Some(plain) => plain.matches(jid.as_str()),
            None => self.regex.is_match(jid.as_str()),
        }
    }

    /// The source text of the pattern.
    pub fn as_str(&self) -> &str {
        self.regex.as_str()
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Pattern {}

/// A limit on the bytes of slots issued within any period of `delta`. Stored files do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteWindow {
    /// Whole seconds, at least one.
    pub delta: Duration,
    /// Bytes; inclusive.
    pub bytes: u64,
}

/// A limit on the number of slots issued within any period of `delta`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadWindow {
    /// Whole seconds, at least one.
    pub delta: Duration,
    /// Slots; inclusive.
    pub uploads: u64,
}

/// The limits of an `allow` rule. A limit that is absent leaves the global one in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Maximum size of a file in bytes; inclusive.
    pub max_file_size: Option<u64>,
    /// Maximum total size of an owner's files in bytes.
    pub max_total_size: Option<u64>,
    /// A slot must pass all of them; at most [`MOST_WINDOWS`].
    pub bytes: Vec<ByteWindow>,
    /// A slot must pass all of them; at most [`MOST_WINDOWS`].
    pub uploads: Vec<UploadWindow>,
    /// Age at which files expire, instead of the global one; zero means never.
    pub expire_maxage: Option<Duration>,
    /// MIME type patterns as in the configuration: `type/subtype`, `type/*` or `*/*` in lower case.
    pub allowed_file_types: Option<Vec<String>>,
}

/// The effect of a rule on the JIDs that it matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Deny,
    Allow(Limits),
}

/// One rule of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Position in the list, counted from 1.
    pub number: usize,
    /// At least one of them must match; never empty.
    pub patterns: Vec<Pattern>,
    pub verdict: Verdict,
}

impl fmt::Display for Rule {
    /// Names the rule for operators: `rule 2 ("^blocked@example\.org$" and 1 more)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule {}", self.number)?;
        let Some(first) = self.patterns.first().map(Pattern::as_str) else {
            return Ok(());
        };
        f.write_str(" (\"")?;
        for c in first.chars().take(MAX_SHOWN) {
            // Backslashes are not escaped, so that operators can search the configuration for the pattern.
            if c.is_control() {
                write!(f, "{}", c.escape_default())?;
            } else {
                write!(f, "{c}")?;
            }
        }
        if first.chars().nth(MAX_SHOWN).is_some() {
            f.write_str("...")?;
        }
        f.write_str("\"")?;
        if self.patterns.len() > 1 {
            write!(f, " and {} more", self.patterns.len() - 1)?;
        }
        f.write_str(")")
    }
}

impl Rule {
    /// The limits of an `allow` rule.
    pub fn limits(&self) -> Option<&Limits> {
        match &self.verdict {
            Verdict::Allow(limits) => Some(limits),
            Verdict::Deny => None,
        }
    }
}

/// The decision of the rules on a JID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision<'a> {
    /// There are no rules and therefore no further restrictions.
    NoRules,
    /// The JID may not upload: either `rule` denies it, or no rule matches.
    Denied { rule: Option<&'a Rule> },
    /// The JID may upload within these limits.
    Allowed { rule: &'a Rule, limits: &'a Limits },
}

/// The rules in configuration order. Without rules, every JID may upload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// Numbers the rules in order.
    pub fn new(rules: impl IntoIterator<Item = (Vec<Pattern>, Verdict)>) -> Rules {
        let number = |(at, (patterns, verdict))| Rule {
            number: at + 1,
            patterns,
            verdict,
        };
        Rules(rules.into_iter().enumerate().map(number).collect())
    }

    /// All rules, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.0.iter()
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Decides on a JID.
    pub fn decide(&self, jid: &BareJid) -> Decision<'_> {
        if self.is_empty() {
            return Decision::NoRules;
        }
        let matches = |rule: &&Rule| rule.patterns.iter().any(|pattern| pattern.matches(jid));
        match self.0.iter().find(matches) {
            None => Decision::Denied { rule: None },
            Some(rule) => match &rule.verdict {
                Verdict::Deny => Decision::Denied { rule: Some(rule) },
                Verdict::Allow(limits) => Decision::Allowed { rule, limits },
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn jid(text: &str) -> BareJid {
        BareJid::parse(text).unwrap()
    }

    fn rule(patterns: &[&str], verdict: Verdict) -> (Vec<Pattern>, Verdict) {
        let parse = |text: &&str| Pattern::parse(text).unwrap();
        (patterns.iter().map(parse).collect(), verdict)
    }

    fn anything() -> Verdict {
        Verdict::Allow(Limits::default())
    }

    fn at_most(bytes: u64) -> Verdict {
        Verdict::Allow(Limits {
            max_file_size: Some(bytes),
            ..Limits::default()
        })
    }

    /// `none`, `denied`, `denied by 2`, `allowed by 1`, or `at most 512 by 3`.
    #[track_caller]
    fn check(rules: &Rules, address: &str, decision: &str) {
        let found = match rules.decide(&jid(address)) {
            Decision::NoRules => "none".to_owned(),
            Decision::Denied { rule: None } => "denied".to_owned(),
            Decision::Denied { rule: Some(rule) } => format!("denied by {}", rule.number),
            Decision::Allowed { rule, limits } => match limits.max_file_size {
                None => format!("allowed by {}", rule.number),
                Some(bytes) => format!("at most {bytes} by {}", rule.number),
            },
        };
        assert_eq!(found, decision, "{address}");
    }

    #[test]
    fn plain_patterns_match_like_the_engine() {
        let patterns = [
            (r"^romeo@montague\.tld$", true),
            (r"@MONTAGUE\.tld$", true),
            (r"^romeo", true),
            (r"montague", true),
            ("^", true),
            ("$", true),
            ("^$", true),
            (r"montague.tld$", false),
            (r"tld\$", false),
            (r"\^romeo", false),
            (r"romeo|juliet", false),
            (r"^^romeo", false),
            (r"tld$$", false),
            (r"\w", false),
        ];
        let addresses = [
            "romeo@montague.tld",
            "xromeo@montague.tld",
            "romeo@montague.tldx",
            "romeo@montagueXtld",
            "juliet@capulet.tld",
            "montague",
        ];
        for (text, plain) in patterns {
            let pattern = Pattern::parse(text).unwrap();
            assert_eq!(pattern.plain.is_some(), plain, "{text}");
            for address in addresses {
                let jid = jid(address);
                let by_engine = pattern.regex.is_match(jid.as_str());
                assert_eq!(pattern.matches(&jid), by_engine, "{text} {address}");
            }
        }
    }

    #[test]
    fn the_first_match_decides() {
        let rules = Rules::new([
            rule(&[r"^admin@example\.org$"], anything()),
            rule(&["^blocked@example.org$"], Verdict::Deny),
            rule(&[r"@example\.org$", r"@example\.net$"], at_most(512)),
            rule(&["^gateway\\."], anything()),
        ]);
        check(&rules, "admin@example.org", "allowed by 1");
        check(&rules, "Admin@Example.ORG/phone", "allowed by 1");
        check(&rules, "admin@example.net", "at most 512 by 3");
        check(&rules, "sysadmin@example.org", "at most 512 by 3");
        check(&rules, "blocked@example.org", "denied by 2");
        // An unescaped dot is any character.
        check(&rules, "blocked@exampleXorg", "denied by 2");
        check(&rules, "unblocked@example.org", "at most 512 by 3");
        check(&rules, "romeo@example.net", "at most 512 by 3");
        check(&rules, "romeo@example.net.evil.tld", "denied");
        check(&rules, "romeo@sub.example.org", "denied");
        check(&rules, "gateway.example.org", "allowed by 4");
        check(&rules, "example.org", "denied");
    }

    #[test]
    fn patterns_are_case_insensitive() {
        let rules = Rules::new([
            rule(&["OBS"], Verdict::Deny),
            rule(&["^Jürgen@|ß"], at_most(1)),
            rule(&[".*"], anything()),
        ]);
        check(&rules, "jobs@a.tld", "denied by 1");
        check(&rules, "a@jobs.tld", "denied by 1");
        check(&rules, "jürgen@a.tld", "at most 1 by 2");
        check(&rules, "straße@a.tld", "at most 1 by 2");
        check(&rules, "a.tld", "allowed by 3");
    }

    #[test]
    fn no_rules_allow_every_jid_and_no_match_denies() {
        check(&Rules::default(), "romeo@montague.tld", "none");
        check(
            &Rules::new([rule(&["^$"], anything())]),
            "romeo@montague.tld",
            "denied",
        );
    }

    #[test]
    fn pattern_errors_say_what_is_wrong() {
        for (text, why) in [
            ("", "empty"),
            ("(a", "without closing"),
            ("a)", "without matching"),
            ("[a", "closing bracket"),
            ("*a", "repetition"),
            ("a{2,1}", "min bigger than its max"),
            ("(?!a)b", "look-around"),
            (r"(a)\1", "backreferences"),
            (r"\p{L}", "Unicode"),
            (r"a\Z", "escape"),
            ("\\", "escape"),
            ("((((a{99}){99}){99}){99}){99}", "size limit"),
            ("(?:){4294967295}", "size limit"),
            (r"\w{4294967295}", "size limit"),
            (&"(".repeat(1000), "nesting"),
            (&format!("a{}", "*".repeat(999)), "nesting"),
            (&"a".repeat(1001), "more than 1000"),
        ] {
            let error = Pattern::parse(text).expect_err(text);
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }

    #[test]
    fn long_patterns_without_counted_repetition_compile() {
        for text in [
            "a".repeat(MAX_PATTERN),
            "ß".repeat(MAX_PATTERN / 2),
            "[a-c]".repeat(MAX_PATTERN / 5),
            format!("^(?:{}z)@", "a|".repeat(490)),
            format!("a{}", "*".repeat(40)),
            r"\S".repeat(MAX_PATTERN / 2),
            "(?:[0-9a-f]{8}-){12}".to_owned(),
        ] {
            if let Err(error) = Pattern::parse(&text) {
                panic!("{text}: {error}");
            }
        }
    }

    #[test]
    fn no_pattern_causes_excessive_search_time() {
        let address = jid(&format!("{}!@{}", "a".repeat(1000), "a".repeat(1000)));
        for text in [
            "^(a+)+$",
            "(a|aa)+$",
            "(a*)*b",
            "(.*)*x$",
            "^(([a-z])+.)+[A-Z]([a-z])+$",
            "(a?){60}a{60}$",
            "(x+x+)+y",
            &format!("{}{}$", "a?".repeat(200), "a".repeat(200)),
            &format!("a{}!$", "*".repeat(40)),
            &format!("(?:{}b)+$", "a|".repeat(400)),
            r"(\w{1,40}){1,40}x",
        ] {
            let Ok(pattern) = Pattern::parse(text) else {
                // Rejected for its size, which is fine, too.
                continue;
            };
            let start = Instant::now();
            pattern.matches(&address);
            let spent = start.elapsed();
            // Backtracking would take years; the bound allows for unoptimised builds on slow machines.
            assert!(spent.as_secs() < 10, "{text}: {spent:?}");
        }
    }

    #[test]
    fn a_rule_is_named_by_number_and_pattern() {
        let rules = Rules::new([
            rule(&[r"^a@b\.c$"], Verdict::Deny),
            rule(&["x\u{1b}0m", "y", "z"], anything()),
            rule(&[&"é".repeat(61)], anything()),
        ]);
        let names: Vec<String> = rules.iter().map(Rule::to_string).collect();
        assert_eq!(names[0], r#"rule 1 ("^a@b\.c$")"#);
        assert_eq!(names[1], r#"rule 2 ("x\u{1b}0m" and 2 more)"#);
        assert_eq!(names[2], format!("rule 3 (\"{}...\")", "é".repeat(60)));
    }
}
