//! Conditional requests (RFC 9110 §13).
//!
//! The conditions are evaluated against the validators of the requested file, in the order of §13.2.2. The caller
//! passes the validators, or none if there is no file.
//!
//! A malformed condition never lets a PUT succeed. A malformed `If-Match` matches nothing. A malformed `If-None-Match`
//! matches nothing for GET and HEAD, so that the file is sent, and everything for PUT, so that nothing is stored. An
//! invalid or repeated date is ignored, as §13.1.3 and §13.1.4 require.

use std::str;
use std::time::SystemTime;

use crate::http::head::{Method, RequestHead};
use crate::now::unix;

/// The validators of a file: they distinguish its versions.
#[derive(Clone, Copy, Debug)]
pub struct Validators<'a> {
    /// The entity tag with its quotation marks, and with `W/` if it is weak.
    pub etag: &'a str,
    /// The modification time; only whole seconds matter, as in `Last-Modified`.
    pub modified: SystemTime,
}

/// The result of the conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Perform the request.
    Proceed,
    /// 304; for GET and HEAD only.
    NotModified,
    /// 412.
    Failed,
}

/// Evaluates the conditions of a GET, HEAD or PUT; other methods ignore them (RFC 9110 §13.2.1). Without `validators`
/// there is no file of this name.
pub fn evaluate(head: &RequestHead, validators: Option<&Validators<'_>>) -> Verdict {
    let is_read = match head.method() {
        Method::Get | Method::Head => true,
        Method::Put => false,
        Method::Options | Method::Known | Method::Unknown => return Verdict::Proceed,
    };
    match match_list(head, "if-match", validators, is_strong_match) {
        Some(Match::Yes) => {}
        Some(Match::No | Match::Malformed) => return Verdict::Failed,
        None => {
            if is_modified_after(head, "if-unmodified-since", validators) == Some(true) {
                return Verdict::Failed;
            }
        }
    }
    match match_list(head, "if-none-match", validators, is_weak_match) {
        Some(Match::Yes) if is_read => Verdict::NotModified,
        Some(Match::Yes | Match::Malformed) if !is_read => Verdict::Failed,
        Some(_) => Verdict::Proceed,
        None if is_read
            && is_modified_after(head, "if-modified-since", validators) == Some(false) =>
        {
            Verdict::NotModified
        }
        None => Verdict::Proceed,
    }
}

/// Whether `Range` applies: there is no `If-Range`, or it names exactly this version (RFC 9110 §13.1.5). An entity tag
/// must be strong. A date must equal `Last-Modified`, which is a strong validator here, because a file never changes
/// once it has a name.
pub fn range_applies(head: &RequestHead, validators: &Validators<'_>) -> bool {
    let mut lines = head.fields("if-range");
    match (lines.next(), lines.next()) {
        (None, _) => true,
        (Some(_), Some(_)) => false,
        (Some(value), None) => match parse_tag(value) {
            Some((found, [])) => is_strong_match(found, validators.etag.as_bytes()),
            Some(_) => false,
            None => parse_date(value) == Some(unix(validators.modified)),
        },
    }
}

/// Whether a list of entity tags contains that of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Match {
    Yes,
    No,
    /// The list is malformed.
    Malformed,
}

/// Compares the entity tags of a field with that of the file. All lines of the field form one list (RFC 9110 §5.3).
/// `None`: there is no such field.
fn match_list(
    head: &RequestHead,
    name: &str,
    validators: Option<&Validators<'_>>,
    is_match: fn(&[u8], &[u8]) -> bool,
) -> Option<Match> {
    let mut lines = head.fields(name).peekable();
    let first = *lines.peek()?;
    if first == b"*" && head.fields(name).count() == 1 {
        return Some(if validators.is_some() {
            Match::Yes
        } else {
            Match::No
        });
    }
    let mut result = Match::No;
    for mut rest in lines {
        loop {
            // A list may have empty elements (RFC 9110 §5.6.1.2).
            while let [b',' | b' ' | b'\t', after @ ..] = rest {
                rest = after;
            }
            if rest.is_empty() {
                break;
            }
            let Some((found, after)) = parse_tag(rest) else {
                return Some(Match::Malformed);
            };
            if validators.is_some_and(|validators| is_match(found, validators.etag.as_bytes())) {
                result = Match::Yes;
            }
            rest = after;
            while let [b' ' | b'\t', after @ ..] = rest {
                rest = after;
            }
            if !matches!(rest, [] | [b',', ..]) {
                return Some(Match::Malformed);
            }
        }
    }
    Some(result)
}

/// Splits an entity tag off the start of a text (RFC 9110 §8.8.3).
fn parse_tag(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let open = match text {
        [b'"', ..] => 1,
        [b'W', b'/', b'"', ..] => 3,
        _ => return None,
    };
    let close = open + text[open..].iter().position(|&byte| byte == b'"')?;
    let is_valid = text[open..close]
        .iter()
        .all(|&byte| byte > b' ' && byte != 0x7f);
    is_valid.then(|| text.split_at(close + 1))
}

/// Strong comparison (RFC 9110 §8.8.3.2): equal, and neither is weak.
fn is_strong_match(a: &[u8], b: &[u8]) -> bool {
    a == b && a.starts_with(b"\"")
}

/// Weak comparison (RFC 9110 §8.8.3.2): equal apart from `W/`.
fn is_weak_match(a: &[u8], b: &[u8]) -> bool {
    a.strip_prefix(b"W/").unwrap_or(a) == b.strip_prefix(b"W/").unwrap_or(b)
}

/// Whether the file was modified after the date in a field. `None`: the field is absent, repeated or not a date, or
/// there is no file.
fn is_modified_after(
    head: &RequestHead,
    name: &str,
    validators: Option<&Validators<'_>>,
) -> Option<bool> {
    let mut lines = head.fields(name);
    let value = lines.next()?;
    if lines.next().is_some() {
        return None;
    }
    Some(unix(validators?.modified) > parse_date(value)?)
}

/// Parses a date in any of the three formats (RFC 9110 §5.6.7); Unix time in seconds.
fn parse_date(value: &[u8]) -> Option<u64> {
    let text = str::from_utf8(value).ok()?;
    httpdate::parse_http_date(text).ok().map(unix)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::Verdict::*;
    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT.
    const MODIFIED: u64 = 784_111_777;
    const SAME: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn head(method: &str, fields: &[&str]) -> RequestHead {
        let mut text = format!("{method} / HTTP/1.1\r\nHost: a\r\n").into_bytes();
        for field in fields {
            text.extend_from_slice(field.as_bytes());
            text.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(b"\r\n");
        RequestHead::parse(&text).unwrap()
    }

    /// A file whose modification time has a fraction of a second, which is ignored.
    fn file() -> Validators<'static> {
        Validators {
            etag: "\"a,b\"",
            modified: UNIX_EPOCH + Duration::from_millis(MODIFIED * 1000 + 700),
        }
    }

    #[track_caller]
    fn check(method: &str, fields: &[&str], present: Verdict, absent: Verdict) {
        let head = head(method, fields);
        assert_eq!(
            evaluate(&head, Some(&file())),
            present,
            "{method} {fields:?}, with a file"
        );
        assert_eq!(
            evaluate(&head, None),
            absent,
            "{method} {fields:?}, without a file"
        );
    }

    #[test]
    fn without_conditions() {
        for method in ["GET", "HEAD", "PUT", "OPTIONS", "POST"] {
            check(method, &[], Proceed, Proceed);
        }
    }

    #[test]
    #[rustfmt::skip]
    fn if_match() {
        for method in ["GET", "HEAD", "PUT"] {
            check(method, &["If-Match: \"a,b\""], Proceed, Failed);
            check(method, &["If-Match: *"], Proceed, Failed);
            check(
                method,
                &["If-Match: \"x\", \"a,b\" ,\"y\""],
                Proceed,
                Failed,
            );
            check(
                method,
                &["If-Match: \"x\"", "if-match: ,\"a,b\","],
                Proceed,
                Failed,
            );
            for value in [
                "", ",", "\"x\"", "W/\"a,b\"", "a,b", "\"a,b", "\"a,b\"x", "\"a,b\" \"x\"",
                "\"x\" \"a,b\"", "**", "*, \"a,b\"", "\"a,b\", *", "w/\"a,b\"", "\"a,b\", x",
                "\"a b\", \"a,b\"", "\"A,B\"", "\"a\",b\"",
            ] {
                check(method, &[&format!("If-Match: {value}")], Failed, Failed);
            }
            check(method, &["If-Match: *", "If-Match: *"], Failed, Failed);
        }
        check("OPTIONS", &["If-Match: \"x\""], Proceed, Proceed);
        check("DELETE", &["If-Match: \"x\""], Proceed, Proceed);
    }

    #[test]
    #[rustfmt::skip]
    fn if_none_match() {
        for value in [
            "\"a,b\"", "W/\"a,b\"", "*", "\"x\",\"a,b\"", ", ,\"x\" , W/\"a,b\",", "\"\", \"a,b\"",
        ] {
            let field = format!("If-None-Match: {value}");
            check("GET", &[&field], NotModified, Proceed);
            check("HEAD", &[&field], NotModified, Proceed);
            check("PUT", &[&field], Failed, Proceed);
        }
        for value in ["", "\"x\"", "\"\"", "W/\"x\"", "\"a\", \"b\""] {
            let field = format!("If-None-Match: {value}");
            check("GET", &[&field], Proceed, Proceed);
            check("PUT", &[&field], Proceed, Proceed);
        }
        for value in [
            "a,b", "\"a,b", "w/\"a,b\"", "W/ \"a,b\"", "*, \"a,b\"", "\"a,b\" \"x\"", "\"x\", y",
        ] {
            let field = format!("If-None-Match: {value}");
            check("GET", &[&field], Proceed, Proceed);
            check("PUT", &[&field], Failed, Failed);
        }
        check(
            "GET",
            &["If-None-Match: \"x\"", "If-None-Match: \"a,b\""],
            NotModified,
            Proceed,
        );
        check(
            "GET",
            &["If-None-Match: \"a,b\"", "If-None-Match: \"x\""],
            NotModified,
            Proceed,
        );
        check(
            "GET",
            &["If-None-Match: \"y\"", "If-None-Match: \"x\""],
            Proceed,
            Proceed,
        );
        check("OPTIONS", &["If-None-Match: *"], Proceed, Proceed);
    }

    #[test]
    #[rustfmt::skip]
    fn if_modified_since() {
        let field = |date: &str| format!("If-Modified-Since: {date}");
        check("GET", &[&field(SAME)], NotModified, Proceed);
        check("HEAD", &[&field(AFTER)], NotModified, Proceed);
        check("GET", &[&field(BEFORE)], Proceed, Proceed);
        check(
            "GET",
            &[&field("Sunday, 06-Nov-94 08:49:37 GMT")],
            NotModified,
            Proceed,
        );
        check(
            "GET",
            &[&field("Sun Nov  6 08:49:37 1994")],
            NotModified,
            Proceed,
        );
        check(
            "GET",
            &[&field("Sun Nov  6 08:49:36 1994")],
            Proceed,
            Proceed,
        );
        check("PUT", &[&field(AFTER)], Proceed, Proceed);
        for value in [
            "", "yesterday", "784111777", "Sun, 06 Nov 2094 08:49:37 GMT", "2094-11-06T08:49:37Z",
            "\u{e9}",
        ] {
            check("GET", &[&field(value)], Proceed, Proceed);
        }
        check("GET", &[&field(SAME), &field(SAME)], Proceed, Proceed);
    }

    #[test]
    fn if_unmodified_since() {
        let field = |date: &str| format!("If-Unmodified-Since: {date}");
        for method in ["GET", "HEAD", "PUT"] {
            check(method, &[&field(SAME)], Proceed, Proceed);
            check(method, &[&field(AFTER)], Proceed, Proceed);
            check(method, &[&field(BEFORE)], Failed, Proceed);
            check(
                method,
                &[&field("Sun Nov  6 08:49:36 1994")],
                Failed,
                Proceed,
            );
            check(method, &[&field("never")], Proceed, Proceed);
            check(method, &[&field(BEFORE), &field(BEFORE)], Proceed, Proceed);
        }
        check("OPTIONS", &[&field(BEFORE)], Proceed, Proceed);
    }

    #[test]
    fn precedence() {
        let since = format!("If-Modified-Since: {SAME}");
        let since_before = format!("If-Modified-Since: {BEFORE}");
        let unmodified_before = format!("If-Unmodified-Since: {BEFORE}");
        let unmodified = format!("If-Unmodified-Since: {SAME}");
        check("GET", &["If-None-Match: \"x\"", &since], Proceed, Proceed);
        check("GET", &["If-None-Match: x", &since], Proceed, Proceed);
        check(
            "GET",
            &["If-None-Match: \"a,b\"", &since_before],
            NotModified,
            Proceed,
        );
        check(
            "GET",
            &["If-Match: \"a,b\"", &unmodified_before],
            Proceed,
            Failed,
        );
        check("GET", &["If-Match: \"x\"", &unmodified], Failed, Failed);
        check(
            "GET",
            &["If-Match: \"a,b\"", "If-None-Match: \"a,b\""],
            NotModified,
            Failed,
        );
        check(
            "GET",
            &["If-Match: \"x\"", "If-None-Match: \"a,b\""],
            Failed,
            Failed,
        );
        check("GET", &["If-Match: \"a,b\"", &since], NotModified, Failed);
        check(
            "GET",
            &[&unmodified, "If-None-Match: \"a,b\""],
            NotModified,
            Proceed,
        );
        check(
            "GET",
            &[&unmodified_before, "If-None-Match: \"a,b\""],
            Failed,
            Proceed,
        );
        check("GET", &[&unmodified_before, &since], Failed, Proceed);
        check("PUT", &["If-Match: *", "If-None-Match: *"], Failed, Failed);
    }

    #[test]
    #[rustfmt::skip]
    fn if_range() {
        let applies = |fields: &[&str]| range_applies(&head("GET", fields), &file());
        assert!(applies(&[]));
        assert!(applies(&["If-Range: \"a,b\""]));
        assert!(applies(&[&format!("If-Range: {SAME}")]));
        assert!(applies(&["If-Range: Sun Nov  6 08:49:37 1994"]));
        for value in [
            BEFORE,
            AFTER,
            "", "*", "\"x\"", "W/\"a,b\"", "a,b", "\"a,b", "\"a,b\",\"a,b\"", "\"a,b\" x",
        ] {
            assert!(!applies(&[&format!("If-Range: {value}")]), "{value:?}");
        }
        assert!(!applies(&["If-Range: \"a,b\"", "If-Range: \"a,b\""]));
    }

    #[test]
    fn a_weak_tag_of_the_file_only_matches_weakly() {
        let weak = Validators {
            etag: "W/\"w\"",
            ..file()
        };
        let with = |field: &str| evaluate(&head("GET", &[field]), Some(&weak));
        assert_eq!(with("If-Match: W/\"w\""), Failed);
        assert_eq!(with("If-Match: \"w\""), Failed);
        assert_eq!(with("If-None-Match: \"w\""), NotModified);
        assert_eq!(with("If-None-Match: W/\"w\""), NotModified);
        assert!(!range_applies(&head("GET", &["If-Range: W/\"w\""]), &weak));
    }

    #[test]
    fn modification_times_before_1970() {
        let old = Validators {
            etag: "\"o\"",
            modified: UNIX_EPOCH - Duration::from_secs(1),
        };
        let field = format!("If-Modified-Since: {SAME}");
        assert_eq!(evaluate(&head("GET", &[&field]), Some(&old)), NotModified);
    }
}
