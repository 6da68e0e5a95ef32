//! Request heads, whole and in pieces.

mod fields;
mod line;

use super::*;
use crate::http::tests::Rng;

/// The parsed parts of a head, in a form that can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Summary {
    method: Method,
    path: String,
    query: Option<String>,
    version: Version,
    framing: Framing,
    expect: Expect,
    keep_alive: bool,
    host: Option<String>,
}

fn summarize(bytes: &[u8]) -> Result<Summary, HeadFault> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    RequestHead::parse(bytes).map(|head| Summary {
        method: head.method(),
        path: text(head.path()),
        query: head.query().map(text),
        version: head.version(),
        framing: head.framing(),
        expect: head.expect(),
        keep_alive: head.keep_alive(),
        host: head.field("host").map(text),
    })
}

/// Scans the bytes of a connection in pieces that end at these offsets: the length and the parts of the first head,
/// an error, or `None` when more bytes are needed.
fn feed(
    bytes: &[u8],
    ends: impl Iterator<Item = usize>,
) -> Option<Result<(usize, Summary), HeadFault>> {
    let mut scan = Scan::default();
    for end in ends.chain([bytes.len()]) {
        match scan.scan(&bytes[..end]) {
            Ok(None) => {}
            Ok(Some(n)) => return Some(summarize(&bytes[..n]).map(|summary| (n, summary))),
            Err(error) => return Some(Err(error)),
        }
    }
    None
}

/// Scans the bytes whole, in pieces of several sizes, and followed by other bytes; the result must always be the same.
#[track_caller]
fn outcome(bytes: &[u8]) -> Option<Result<(usize, Summary), HeadFault>> {
    let whole = feed(bytes, [].into_iter());
    assert_eq!(
        feed(bytes, 0..bytes.len()),
        whole,
        "byte by byte: {:?}",
        bytes.escape_ascii().to_string()
    );
    assert_eq!(
        feed(bytes, (0..bytes.len()).step_by(7)),
        whole,
        "in pieces of 7"
    );
    if whole.is_some() && bytes.len() < MAX_HEAD {
        for trailing in ["GET / HTTP/1.1\r\n\r\n", "\0\0", "\n", "body"] {
            let longer = [bytes, trailing.as_bytes()].concat();
            assert_eq!(
                feed(&longer, [].into_iter()),
                whole,
                "followed by {trailing:?}"
            );
            assert_eq!(
                feed(&longer, 0..longer.len()),
                whole,
                "byte by byte, followed by {trailing:?}"
            );
        }
    }
    whole
}

#[track_caller]
fn accepts(text: impl AsRef<[u8]>) -> Summary {
    let text = text.as_ref();
    let shown = text.escape_ascii();
    match outcome(text) {
        Some(Ok((n, summary))) => {
            assert_eq!(n, text.len(), "{shown}");
            summary
        }
        other => panic!("{shown}: {other:?}"),
    }
}

#[track_caller]
fn rejects(text: impl AsRef<[u8]>, status: u16) {
    let text = text.as_ref();
    let shown = text.escape_ascii();
    match outcome(text) {
        Some(Err(error)) => {
            assert_eq!(error.status(), status, "{shown}: {error}");
            let sentence = error.to_string();
            assert!(sentence.ends_with('.') && sentence.is_ascii(), "{sentence}");
            // `parse` rejects it, too.
            assert!(RequestHead::parse(text).is_err(), "{shown}");
        }
        other => panic!("{shown}: {other:?}"),
    }
}

/// A PUT with these field lines.
fn put_with(fields: &str) -> String {
    format!("PUT /f HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

fn put_1_0_with(fields: &str) -> String {
    format!("PUT /f HTTP/1.0\r\n{fields}\r\n")
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")
}

fn get_from_host(host: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost:{host}\r\n\r\n")
}

#[test]
fn parses_a_request() {
    let text = b"PUT /a/b%20c?size=1&x HTTP/1.1\r\nHost: up.example:8443\r\nContent-Length: 12\r\n\
            X-Empty:\r\nx-two:  1 \t\r\nX-TWO:2\r\nX-Text: \xc3\xa8 \xff\t.\r\n\r\n";
    let summary = accepts(text);
    assert_eq!(
        summary,
        Summary {
            method: Method::Put,
            path: "/a/b%20c".into(),
            query: Some("size=1&x".into()),
            version: Version::V11,
            framing: Framing::Length(12),
            expect: Expect::None,
            keep_alive: true,
            host: Some("up.example:8443".into()),
        }
    );
    let head = RequestHead::parse(text).unwrap();
    assert_eq!(head.method_str(), "PUT");
    assert_eq!(head.field("content-LENGTH"), Some(&b"12"[..]));
    assert_eq!(head.field("x-empty"), Some(&b""[..]));
    assert_eq!(head.fields("X-Two").collect::<Vec<_>>(), [b"1", b"2"]);
    assert_eq!(head.field("x-text"), Some(&b"\xc3\xa8 \xff\t."[..]));
    assert_eq!(head.field("x"), None);
    assert!(!format!("{head:?}").contains("size=1"), "{head:?}");
}

#[test]
#[rustfmt::skip]
fn empty_lines_before_the_request() {
    for n in 0..=4 {
        let summary = accepts("\r\n".repeat(n) + &get("/x?y"));
        assert_eq!((&*summary.path, summary.query.as_deref()), ("/x", Some("y")));
    }
    rejects("\r\n".repeat(5) + &get("/"), 400);
    for text in [
        "\n", "\n\r\n", "\r\n\n", "\r\r\n", " \r\n", "\r\n \r\n", "\r\nx\r\n", "\rG",
    ] {
        rejects(text.to_owned() + &get("/"), 400);
    }
    let mut scan = Scan::default();
    for (bytes, skipped, started) in [
        ("", 0, false),
        ("\r", 0, false),
        ("\r\n", 2, false),
        ("\r\n\r", 2, false),
        ("\r\n\r\nG", 4, true),
    ] {
        assert_eq!(scan.scan(bytes.as_bytes()), Ok(None));
        assert_eq!(
            (scan.skipped(), scan.started()),
            (skipped, started),
            "{bytes:?}"
        );
    }
}

#[test]
#[rustfmt::skip]
fn errors_are_reported_early() {
    for (bytes, status) in [
        ("\0", 400),
        ("\u{16}\u{3}", 400),
        (" ", 400),
        ("\n", 400),
        ("GET\r", 400),
        ("GET /\r\n", 400),
        ("GET / HTTP/2.0\r\n", 505),
        ("GET / HTTP/1.1\r\nX: y\n", 400),
        ("GET / HTTP/1.1\r\nX: y\rz", 400),
        ("GET / HTTP/1.1\r\nX: \0", 400),
        ("GET /\0", 400),
    ] {
        assert_eq!(
            Scan::default()
                .scan(bytes.as_bytes())
                .map_err(|error| error.status()),
            Err(status),
            "{bytes:?}"
        );
        rejects(bytes, status);
    }
    for bytes in [
        "", "G", "GET", "GET ", "GET /", "GET / HTTP/2.0", "GET / HTTP/1.1\r\n\r",
        "GET / HTTP/1.1\r\nX",
    ] {
        assert_eq!(outcome(bytes.as_bytes()), None, "{bytes:?}");
    }
}

#[test]
fn size_limits() {
    let target = |n: usize| get(&format!("/{}", "a".repeat(n - 1)));
    assert_eq!(accepts(target(8000)).path.len(), 8000);
    assert_eq!(accepts(target(MAX_TARGET)).path.len(), MAX_TARGET);
    rejects(target(MAX_TARGET + 1), 414);
    rejects(target(MAX_TARGET + 2), 414);
    rejects(target(MAX_TARGET + 20), 414);
    rejects(target(40_000), 414);
    rejects(format!("GET /{}", "a".repeat(MAX_TARGET + 20)), 414);
    rejects(format!("GET /{}\0", "a".repeat(MAX_TARGET + 20)), 414);

    let fields = |n: usize| put_with(&"X: y\r\n".repeat(n - 1));
    accepts(fields(60));
    accepts(fields(MAX_FIELDS));
    rejects(fields(MAX_FIELDS + 1), 431);
    rejects(fields(1000), 431);

    let sized = |n: usize| {
        let rest = n - put_with("X: \r\n").len();
        put_with(&format!("X: {}\r\n", "a".repeat(rest)))
    };
    accepts(sized(4096 + 100));
    assert_eq!(sized(MAX_HEAD).len(), MAX_HEAD);
    accepts(sized(MAX_HEAD));
    rejects(sized(MAX_HEAD + 1), 431);
    rejects(sized(MAX_HEAD + 2), 431);
    rejects(sized(MAX_HEAD + 4), 431);
    rejects(sized(100_000), 431);
    assert_eq!(outcome(&sized(100_000).as_bytes()[..MAX_HEAD - 1]), None);
}

#[test]
fn parse_needs_a_whole_head() {
    let text = get("/");
    for n in 0..text.len() {
        assert!(
            RequestHead::parse(&text.as_bytes()[..n]).is_err(),
            "{n} bytes"
        );
    }
    assert!(RequestHead::parse(format!("{text}x").as_bytes()).is_err());
    assert!(RequestHead::parse(format!("{text}{text}").as_bytes()).is_err());
}

/// The scan looks at each byte once, however the bytes arrive.
#[test]
fn scan_resumes_where_it_stopped() {
    let text = put_with(&format!("X: {}\r\n", "a".repeat(30_000)));
    let mut scan = Scan::default();
    for end in 0..text.len() {
        let before = scan.position;
        assert_eq!(scan.scan(&text.as_bytes()[..end]), Ok(None));
        assert!(
            scan.position >= before && scan.position + 1 >= end,
            "{} of {end}",
            scan.position
        );
    }
}

#[test]
#[rustfmt::skip]
fn splitting_does_not_change_the_result_of_mutated_heads() {
    let corpus = [
        get("/a?b"),
        get("http://up.example:80/a?b"),
        put_with("Content-Length: 5\r\n"),
        put_with("Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n"),
        put_with("Connection: close, te\r\nX: \u{e9}\r\n"),
        put_1_0_with("Connection: keep-alive\r\n"),
        "OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\n\r\n".into(),
        "\r\n\r\nCONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n".into(),
    ];
    let tokens: [&[u8]; 16] = [
        b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b"chunked",
        b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"\xff", b"HTTP/1.1",
        b"?", b"#", b"\r\n\r\n",
    ];
    let mut rng = Rng::new(1);
    let (mut accepted, mut rejected) = (0, 0);
    for round in 0..20_000 {
        let mut bytes = corpus[round % corpus.len()].clone().into_bytes();
        rng.mutate(&mut bytes, &tokens);
        let shown = bytes.escape_ascii();
        let whole = feed(&bytes, [].into_iter());
        assert_eq!(feed(&bytes, 0..bytes.len()), whole, "{shown}");
        let cut = rng.below(bytes.len() + 1);
        assert_eq!(feed(&bytes, [cut].into_iter()), whole, "{shown} cut at {cut}");
        match whole {
            Some(Ok((n, _))) => {
                accepted += 1;
                let head = &bytes[..n];
                assert!(head.ends_with(b"\r\n\r\n"));
                let is_bare = |pair: &[u8]| (pair[0] == b'\r') != (pair[1] == b'\n');
                assert!(!head.windows(2).any(is_bare), "{shown}");
            }
            Some(Err(error)) => {
                rejected += 1;
                assert!([400, 414, 431, 501, 505].contains(&error.status()));
            }
            None => {}
        }
    }
    assert!(accepted > 1000 && rejected > 1000, "{accepted} accepted, {rejected} rejected");
}
