//! Secrets, which must not reach a log, and the detection of placeholders.

use std::fmt;

use crate::config::error::{InvalidValue, quote};

/// Shortest slot secret, in bytes. Every client that gets a slot can guess offline against its signature.
pub const MIN_SLOT_SECRET: usize = 16;

/// A secret text. Its `Debug` does not show it, and it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes the text as it is; callers that read a file trim the line end first.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The secret, for hashing.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The secret as text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A secret key of arbitrary bytes; its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretKey(Vec<u8>);

impl SecretKey {
    pub fn new(bytes: impl Into<Vec<u8>>) -> SecretKey {
        SecretKey(bytes.into())
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

/// Secrets in examples, also upslot's own, in lower case and reduced to letters and digits.
const EXAMPLES: [&str; 16] = [
    "thesecretthatthexmppserverknows",
    "thecontentofetcupslotcomponentsecret",
    "alongsecretword",
    "anothersecretword",
    "alongwordwithoutblanks",
    "yoursecret",
    "yoursecrethere",
    "yourpassword",
    "yourpasswordhere",
    "insertsecrethere",
    "secrethere",
    "somesecret",
    "placeholder",
    "todo",
    "fixme",
    "tbd",
];

/// Words that occur in placeholders only, in the same form.
const CHANGE: [&str; 6] = [
    "changeme",
    "changeit",
    "changethis",
    "replaceme",
    "replacethis",
    "replacewith",
];

/// Characters that mark an omission when there are no others.
const LEFT_OUT: &str = ".*-?_#\u{2026}\u{2022}";

/// How template placeholders begin and end.
const TEMPLATES: [(&str, &str); 6] = [
    ("${", "}"),
    ("$(", ")"),
    ("{{", "}}"),
    ("{%", "%}"),
    ("<%", "%>"),
    ("#{", "}"),
];

/// Delimiters of a placeholder that makes up the whole text.
const WHOLE: [(&str, &str); 6] = [
    ("$", ""),
    ("%", "%"),
    ("@", "@"),
    ("<", ">"),
    ("__", "__"),
    ("[", "]"),
];

/// Why a text cannot be a secret, without repeating any of it; `None` if it can.
pub fn flaw(text: &str) -> Option<&'static str> {
    if text.trim_end_matches(['\n', '\r']).contains(['\n', '\r']) {
        return Some("more than one line");
    }
    if text.contains(char::is_control) {
        // From an escape in double quotes, or from a `|` block.
        return Some(
            "a control character or a line end, as from a \\ in double quotes or a | block",
        );
    }
    if text.starts_with('\u{feff}') {
        return Some("a byte order mark");
    }
    placeholder(text)
}

/// The kind of placeholder that a text is, for a message; `None` if it is none. Never repeats the text.
pub fn placeholder(text: &str) -> Option<&'static str> {
    let text = text.trim();
    let bare: String = text
        .chars()
        .filter(|c| c.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect();
    if CHANGE.iter().any(|word| bare.contains(word)) || EXAMPLES.contains(&bare.as_str()) {
        return Some("an example value, such as \"change me\"");
    }
    let first = text.chars().next().unwrap_or_default();
    let one = text.len() > 2 && text.chars().all(|c| c == first) && LEFT_OUT.contains(first);
    if one || bare.len() > 2 && bare.bytes().all(|b| b == b'x') {
        return Some("a placeholder, such as ... or xxx");
    }
    template(text)
}

/// The same for values that are not secrets: unexpanded template placeholders only.
fn template(text: &str) -> Option<&'static str> {
    let text = text.trim();
    for (begin, end) in TEMPLATES {
        let inner = text
            .split_once(begin)
            .and_then(|(before, rest)| Some((before, rest.split_once(end)?)));
        let Some((before, (inner, after))) = inner else {
            continue;
        };
        // Within other text only a name is one: random secrets hold all kinds of characters.
        let name = is_name(inner.trim().trim_start_matches('.'));
        if name || before.is_empty() && after.is_empty() {
            return Some(match begin {
                "${" => "a placeholder of the form ${NAME}",
                "$(" => "a placeholder of the form $(name)",
                "{{" => "a placeholder of the form {{ name }}",
                _ => "a placeholder of a template",
            });
        }
    }
    let whole = WHOLE.iter().any(|(begin, end)| {
        let inner = text
            .strip_prefix(begin)
            .and_then(|rest| rest.strip_suffix(end));
        inner.is_some_and(|inner| {
            let spaced = inner.replace([' ', '-'], "_");
            // A lower-case word behind a $ may be a secret.
            is_name(&spaced) && (!end.is_empty() || spaced == spaced.to_ascii_uppercase())
        })
    });
    whole.then_some("a placeholder such as $NAME, %NAME% or <name>")
}

/// Refuses such values of paths and URLs; `what` names the value.
pub fn refuse_template(text: &str, what: &str) -> Result<(), InvalidValue> {
    match template(text) {
        None => Ok(()),
        Some(found) => Err(InvalidValue::found(
            format!("{} ({found})", quote(text)),
            format!("{what} itself; environment variables are not expanded"),
        )),
    }
}

/// The name of a variable: letters of ASCII, digits, underscores and dots, not beginning with a digit.
fn is_name(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.');
    !text.is_empty() && text.bytes().all(word) && !text.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_no_secrets() {
        for text in [
            "change me",
            "CHANGE-ME!",
            "changeme",
            "change_me_please_1234567890",
            "ChangeIt",
            "<change me>",
            "replace with your secret",
            "your secret here",
            "YOUR_SECRET",
            "...",
            "\u{2026}",
            "********",
            "xxxxxxxx",
            "XXXX-XXXX",
            "a long secret word",
            "the secret that the XMPP server knows",
            "the content of /etc/upslot/component_secret",
            "a-long-word-without-blanks",
            "TODO",
            "${UPLOAD_SECRET}",
            "${UPLOAD_SECRET:-fallback}",
            "${a.b}",
            " ${X} ",
            "prefix-${X}-suffix",
            "$(name)",
            "$(cat /run/secrets/x)",
            "{{ name }}",
            "{{name}}",
            "{{ lookup('file', 'x') }}",
            "{{ .Values.secret }}",
            "x{{ name }}y",
            "{% raw %}",
            "<%= @secret %>",
            "#{secret}",
            "$SECRET",
            "%SECRET%",
            "@SECRET@",
            "<secret>",
            "<your-secret-here>",
            "__SECRET__",
            "[secret]",
        ] {
            assert!(placeholder(text).is_some(), "{text:?}");
        }
        for text in [
            "",
            "secret",
            "hunter2",
            "12345",
            "0123456789abcdef",
            "correct horse battery staple",
            "8f4e1c0b2d3a5968",
            "p$ssw{r}d(x)",
            "a${b c}d",
            "a$(b{c)d",
            "$word",
            "$2y$10$abcdefghijk",
            "<a>b",
            "%41%42",
            "x",
            "xyx",
            "me@example.org",
            "/tmp{}",
            "q1w2${e3!}r4",
            "!@#$%^&*()",
        ] {
            assert_eq!(placeholder(text), None, "{text:?}");
        }
    }

    #[test]
    fn does_not_show_itself() {
        let secret = Secret::new("hunter2");
        assert_eq!(
            format!("{secret:?} {:#?}", Some(&secret)),
            "Secret(..) Some(\n    Secret(..),\n)"
        );
        let key = SecretKey::new(*b"hunter2");
        assert_eq!(
            (format!("{key:?}"), key.as_bytes()),
            ("SecretKey(..)".to_owned(), &b"hunter2"[..])
        );
        assert_eq!(
            (secret.as_bytes(), secret.expose()),
            (&b"hunter2"[..], "hunter2")
        );
    }
}
