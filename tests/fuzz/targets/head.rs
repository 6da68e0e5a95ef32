//! Request heads: the result does not depend on how they are split, and the reference reader reads the same.

use upslot::http::head::{
    Expect, Framing, HeadError, HeadScan, MAX_FIELDS, MAX_HEAD, MAX_TARGET, Method, RequestHead,
    Version,
};

use super::{Choices, assert_sentence, expand, reference, split};

/// The parsed parts of a head, in a form that can be compared.
#[derive(Debug, PartialEq, Eq)]
struct Summary {
    method: Method,
    name: String,
    path: Vec<u8>,
    query: Option<Vec<u8>>,
    version: Version,
    framing: Framing,
    expect: Expect,
    keep_alive: bool,
    plain: bool,
}

impl Summary {
    fn of(head: &RequestHead) -> Summary {
        Summary {
            method: head.method(),
            name: head.method_str().to_owned(),
            path: head.path().to_vec(),
            query: head.query().map(<[u8]>::to_vec),
            version: head.version(),
            framing: head.framing(),
            expect: head.expect(),
            keep_alive: head.keep_alive(),
            plain: head.is_plain_get(),
        }
    }
}

type ScanOutcome = Option<Result<(usize, RequestHead), HeadError>>;

/// Scans the bytes of a connection in pieces, as the exchange does, for the first head or error.
fn scan(bytes: &[u8], pieces: &[&[u8]]) -> ScanOutcome {
    let mut search = HeadScan::default();
    let mut end = 0;
    for piece in pieces {
        end += piece.len();
        match search.scan(&bytes[..end]) {
            Ok(None) => {}
            Ok(Some(n)) => {
                return Some(RequestHead::from_scan(&search, &bytes[..n]).map(|head| (n, head)));
            }
            Err(error) => return Some(Err(error)),
        }
    }
    None
}

fn summarize(outcome: &ScanOutcome) -> Option<Result<(usize, Summary), HeadError>> {
    outcome.as_ref().map(|outcome| match outcome {
        Ok((n, head)) => Ok((*n, Summary::of(head))),
        Err(error) => Err(*error),
    })
}

pub fn run(data: &[u8]) {
    let mut choices = Choices(data);
    let seed = choices.number();
    let bytes = &expand(choices.rest())[..];

    let whole = scan(bytes, &[bytes]);
    let expected = summarize(&whole);
    for pieces in [split(bytes, seed), split(bytes, 1)] {
        assert_eq!(summarize(&scan(bytes, &pieces)), expected, "in pieces");
    }
    match &whole {
        None => assert!(bytes.len() < MAX_HEAD, "an oversized head without an error"),
        Some(Err(error)) => {
            assert!([400, 414, 431, 501, 505].contains(&error.status()));
            assert_sentence(&error.to_string());
        }
        Some(Ok((n, head))) => {
            check_accepted(&bytes[..*n], head);
            // Bytes after a head do not change it.
            let longer = [&bytes[..*n], &b"\0\r\n\x0bGET"[..]].concat();
            assert_eq!(
                summarize(&scan(&longer, &[&longer])),
                expected,
                "followed by other bytes"
            );
        }
    }
}

/// Everything that holds for a head that is accepted.
fn check_accepted(bytes: &[u8], head: &RequestHead) {
    assert!(bytes.len() <= MAX_HEAD);
    let parsed = RequestHead::parse(bytes).expect("accepted in pieces, rejected whole");
    assert_eq!(Summary::of(&parsed), Summary::of(head));

    let other = reference::head(bytes).expect("the reference reader rejects the head");
    assert_eq!(other.length, bytes.len(), "the head ends elsewhere");
    assert_eq!(other.framing, head.framing(), "the body ends elsewhere");
    assert_eq!(other.method, head.method_str());
    assert_eq!(other.is_1_1, head.version() == Version::V11);
    assert!(other.fields.len() <= MAX_FIELDS && other.target.len() <= MAX_TARGET);
    for (name, value) in &other.fields {
        let all: Vec<&[u8]> = head.fields(name).collect();
        let others = other.fields.iter().filter(|(n, _)| n == name);
        assert_eq!(all, others.map(|(_, v)| v.as_slice()).collect::<Vec<_>>());
        assert!(!value.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)));
    }
    let has_element = |name: &str, element: &[u8]| {
        let same = other.fields.iter().filter(|(n, _)| n == name);
        let mut parts = same.flat_map(|(_, value)| value.split(|b| *b == b','));
        parts.any(|part| reference::trim(part).eq_ignore_ascii_case(element))
    };
    if head.keep_alive() {
        assert!(!has_element("connection", b"close"));
    }
    if head.expect() == Expect::Continue {
        assert!(other.is_1_1 && has_element("expect", b"100-continue"));
    }

    let path = head.path();
    match head.method() {
        Method::Options if path == b"*" => {}
        Method::Unsupported if head.method_str() == "CONNECT" => assert!(path.is_empty()),
        _ => assert_eq!(path.first(), Some(&b'/')),
    }
    let is_invalid = |b: &u8| *b <= b' ' || *b == 0x7f || *b == b'#' || *b == b'?';
    assert!(!path.iter().any(is_invalid) && std::str::from_utf8(path).is_ok());

    // The head written out again from its parsed form is parsed to the same.
    let mut text = [other.method.as_bytes(), b" ", &other.target, b" "].concat();
    text.extend_from_slice(if other.is_1_1 {
        b"HTTP/1.1\r\n"
    } else {
        b"HTTP/1.0\r\n"
    });
    for (name, value) in &other.fields {
        text.extend([name.as_bytes(), b":", value, b"\r\n"].concat());
    }
    text.extend_from_slice(b"\r\n");
    let again = RequestHead::parse(&text).expect("a head that was written out is rejected");
    assert_eq!(Summary::of(&again), Summary::of(head), "written out");
}
