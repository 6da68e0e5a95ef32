//! The request head: the same verdict however it arrives, and the meaning that a second reading finds.

use upslot::http::head::{
    Expect, Framing, HeadFault, MAX_FIELDS, MAX_HEAD, MAX_TARGET, Method, RequestHead, Scan,
    Version,
};

use super::{Choices, assert_sentence, expand, reference, split};

/// What a head says, in a form that compares.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    method: Method,
    name: String,
    path: Vec<u8>,
    query: Option<Vec<u8>>,
    authority: Option<Vec<u8>>,
    version: Version,
    framing: Framing,
    expect: Expect,
    keep_alive: bool,
    plain: bool,
}

impl Seen {
    fn of(head: &RequestHead) -> Seen {
        Seen {
            method: head.method(),
            name: head.method_str().to_owned(),
            path: head.path().to_vec(),
            query: head.query().map(<[u8]>::to_vec),
            authority: head.authority().map(<[u8]>::to_vec),
            version: head.version(),
            framing: head.framing(),
            expect: head.expect(),
            keep_alive: head.keep_alive(),
            plain: head.is_plain_get(),
        }
    }
}

type Verdict = Option<Result<(usize, RequestHead), HeadFault>>;

/// Feeds a connection's bytes in pieces, as the exchange does, to the first verdict.
fn verdict(bytes: &[u8], pieces: &[&[u8]]) -> Verdict {
    let mut scan = Scan::default();
    let mut end = 0;
    for piece in pieces {
        end += piece.len();
        match scan.scan(&bytes[..end]) {
            Ok(None) => {}
            Ok(Some(n)) => {
                return Some(RequestHead::scanned(&scan, &bytes[..n]).map(|head| (n, head)));
            }
            Err(fault) => return Some(Err(fault)),
        }
    }
    None
}

fn seen(verdict: &Verdict) -> Option<Result<(usize, Seen), HeadFault>> {
    verdict.as_ref().map(|verdict| match verdict {
        Ok((n, head)) => Ok((*n, Seen::of(head))),
        Err(fault) => Err(*fault),
    })
}

pub fn run(data: &[u8]) {
    let mut choices = Choices(data);
    let seed = choices.number();
    let bytes = &expand(choices.rest())[..];

    let whole = verdict(bytes, &[bytes]);
    let expected = seen(&whole);
    for pieces in [split(bytes, seed), split(bytes, 1)] {
        assert_eq!(seen(&verdict(bytes, &pieces)), expected, "in pieces");
    }
    match &whole {
        None => assert!(bytes.len() < MAX_HEAD, "too long, and no verdict"),
        Some(Err(fault)) => {
            assert!([400, 414, 431, 501, 505].contains(&fault.status()));
            assert_sentence(&fault.to_string());
        }
        Some(Ok((n, head))) => {
            accepted(&bytes[..*n], head);
            // What follows a head does not change it.
            let longer = [&bytes[..*n], &b"\0\r\n\x0bGET"[..]].concat();
            assert_eq!(seen(&verdict(&longer, &[&longer])), expected, "longer");
        }
    }
}

/// What must hold for a head that is accepted.
fn accepted(bytes: &[u8], head: &RequestHead) {
    assert!(bytes.len() <= MAX_HEAD);
    let parsed = RequestHead::parse(bytes).expect("accepted in pieces, refused at once");
    assert_eq!(Seen::of(&parsed), Seen::of(head));

    let other = reference::head(bytes).expect("accepted, and no head to a second reader");
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
    let expects = |name: &str, what: &[u8]| {
        let same = other.fields.iter().filter(|(n, _)| n == name);
        let mut parts = same.flat_map(|(_, value)| value.split(|b| *b == b','));
        parts.any(|part| reference::trim(part).eq_ignore_ascii_case(what))
    };
    if head.keep_alive() {
        assert!(!expects("connection", b"close"));
    }
    if head.expect() == Expect::Continue {
        assert!(other.is_1_1 && expects("expect", b"100-continue"));
    }

    let path = head.path();
    match head.method() {
        Method::Options if path == b"*" => {}
        Method::Known if head.method_str() == "CONNECT" => assert!(path.is_empty()),
        _ => assert_eq!(path.first(), Some(&b'/')),
    }
    let bad = |b: &u8| *b <= b' ' || *b == 0x7f || *b == b'#' || *b == b'?';
    assert!(!path.iter().any(bad) && std::str::from_utf8(path).is_ok());

    // What was understood can be written down, and is then understood in the same way.
    let mut again = [other.method.as_bytes(), b" ", &other.target, b" "].concat();
    again.extend_from_slice(if other.is_1_1 {
        b"HTTP/1.1\r\n"
    } else {
        b"HTTP/1.0\r\n"
    });
    for (name, value) in &other.fields {
        again.extend([name.as_bytes(), b":", value, b"\r\n"].concat());
    }
    again.extend_from_slice(b"\r\n");
    let again = RequestHead::parse(&again).expect("written down, and refused");
    assert_eq!(Seen::of(&again), Seen::of(head), "written down");
}
