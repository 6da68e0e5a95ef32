//! What [`super`] must do, case by case.

use super::line::REGISTERED;
use super::scan::MAX_METHOD;
use super::*;

/// The outcome of a head, in a form that compares.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    method: Method,
    path: String,
    query: Option<String>,
    version: Version,
    framing: Framing,
    expect: Expect,
    keep_alive: bool,
    authority: Option<String>,
}

fn judge(bytes: &[u8]) -> Result<Seen, HeadFault> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    RequestHead::parse(bytes).map(|head| Seen {
        method: head.method(),
        path: text(head.path()),
        query: head.query().map(text),
        version: head.version(),
        framing: head.framing(),
        expect: head.expect(),
        keep_alive: head.keep_alive(),
        authority: head.authority().map(text),
    })
}

/// Feeds a connection's bytes in pieces that end at the given places, to the first verdict: where
/// the head ended and what it said, the fault, or `None` when more is needed.
fn feed(
    bytes: &[u8],
    ends: impl Iterator<Item = usize>,
) -> Option<Result<(usize, Seen), HeadFault>> {
    let mut scan = Scan::default();
    for end in ends.chain([bytes.len()]) {
        match scan.scan(&bytes[..end]) {
            Ok(None) => {}
            Ok(Some(n)) => return Some(judge(&bytes[..n]).map(|seen| (n, seen))),
            Err(fault) => return Some(Err(fault)),
        }
    }
    None
}

/// Whole, byte by byte, in odd pieces, and with the next request behind it.
#[track_caller]
fn outcome(bytes: &[u8]) -> Option<Result<(usize, Seen), HeadFault>> {
    let whole = feed(bytes, [].into_iter());
    assert_eq!(
        feed(bytes, 0..bytes.len()),
        whole,
        "byte by byte: {:?}",
        bytes.escape_ascii().to_string()
    );
    assert_eq!(feed(bytes, (0..bytes.len()).step_by(7)), whole, "in sevens");
    if whole.is_some() && bytes.len() < MAX_HEAD {
        for trailing in ["GET / HTTP/1.1\r\n\r\n", "\0\0", "\n", "body"] {
            let longer = [bytes, trailing.as_bytes()].concat();
            assert_eq!(
                feed(&longer, [].into_iter()),
                whole,
                "with {trailing:?} behind it"
            );
            assert_eq!(
                feed(&longer, 0..longer.len()),
                whole,
                "byte by byte, with {trailing:?} behind it"
            );
        }
    }
    whole
}

#[track_caller]
fn good(text: impl AsRef<[u8]>) -> Seen {
    let text = text.as_ref();
    let shown = text.escape_ascii();
    match outcome(text) {
        Some(Ok((n, seen))) => {
            assert_eq!(n, text.len(), "{shown}");
            seen
        }
        other => panic!("{shown}: {other:?}"),
    }
}

#[track_caller]
fn bad(text: impl AsRef<[u8]>, status: u16) {
    let text = text.as_ref();
    let shown = text.escape_ascii();
    match outcome(text) {
        Some(Err(fault)) => {
            assert_eq!(fault.status(), status, "{shown}: {fault}");
            let sentence = fault.to_string();
            assert!(sentence.ends_with('.') && sentence.is_ascii(), "{sentence}");
            // A head that `parse` sees alone is refused as well.
            assert!(RequestHead::parse(text).is_err(), "{shown}");
        }
        other => panic!("{shown}: {other:?}"),
    }
}

/// A request with these field lines beside `Host`.
fn with(fields: &str) -> String {
    format!("PUT /f HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

fn with_1_0(fields: &str) -> String {
    format!("PUT /f HTTP/1.0\r\n{fields}\r\n")
}

fn to(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")
}

fn hosted(host: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost:{host}\r\n\r\n")
}

#[test]
fn a_plain_request() {
    let text = b"PUT /a/b%20c?size=1&x HTTP/1.1\r\nHost: up.example:8443\r\nContent-Length: 12\r\n\
            X-Empty:\r\nx-two:  1 \t\r\nX-TWO:2\r\nX-Text: \xc3\xa8 \xff\t.\r\n\r\n";
    let seen = good(text);
    assert_eq!(
        seen,
        Seen {
            method: Method::Put,
            path: "/a/b%20c".into(),
            query: Some("size=1&x".into()),
            version: Version::V11,
            framing: Framing::Length(12),
            expect: Expect::None,
            keep_alive: true,
            authority: Some("up.example:8443".into()),
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
fn methods() {
    for (name, method) in [
        ("GET", Method::Get),
        ("HEAD", Method::Head),
        ("PUT", Method::Put),
        ("OPTIONS", Method::Options),
        ("POST", Method::Known),
        ("DELETE", Method::Known),
        ("PATCH", Method::Known),
        ("TRACE", Method::Known),
        ("QUERY", Method::Known),
        ("VERSION-CONTROL", Method::Known),
        ("get", Method::Unknown),
        ("Put", Method::Unknown),
        ("GETT", Method::Unknown),
        ("X!#$%&'*+-.^_`|~0", Method::Unknown),
    ] {
        let seen = good(format!("{name} / HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(seen.method, method, "{name}");
    }
    assert!(REGISTERED.is_sorted());
    good(format!(
        "{} / HTTP/1.1\r\nHost: a\r\n\r\n",
        "M".repeat(MAX_METHOD)
    ));
    bad(
        format!(
            "{} / HTTP/1.1\r\nHost: a\r\n\r\n",
            "M".repeat(MAX_METHOD + 1)
        ),
        501,
    );
    bad("M".repeat(100_000), 501);
}

#[test]
    #[rustfmt::skip]
    fn request_lines() {
        for line in [
            "GET /", "GET  / HTTP/1.1", "GET /  HTTP/1.1", "GET / HTTP/1.1 ", "GET\t/ HTTP/1.1",
            "GET /\tHTTP/1.1", "GET / x HTTP/1.1", "GET /a b HTTP/1.1", "GET", "GET ", "GET  ",
            "GET / ", " GET / HTTP/1.1", "\tGET / HTTP/1.1", "/ HTTP/1.1", "G@T / HTTP/1.1",
            "G\u{e9}T / HTTP/1.1", "GET(x) / HTTP/1.1", "GET: / HTTP/1.1", "GET / http/1.1",
            "GET / HTTP/1", "GET / HTTP/1.", "GET / HTTP/.1", "GET / HTTP/1.1.1",
            "GET / HTTP/01.1", "GET / HTTP/1.10", "GET / HTTP/11", "GET / HTTP 1.1",
            "GET / HTTP/1,1", "GET / HTTP/+1.1", "GET / HTTP/1.x", "GET / HTTPS/1.1",
            "GET / XHTTP/1.1", "GET / HTTP/1.1x", "GET / ICY/1.1", "GET /\u{c} HTTP/1.1",
            "GET /\u{b}HTTP/1.1", "GET /\0 HTTP/1.1", "GET /\u{7f} HTTP/1.1", "GET / HTTP/1.1\r",
            "GET / HTTP/1.1\r\r", "HTTP/1.1 200 OK", "{\"json\": 1}", "\u{16}\u{3}\u{1}",
            "<policy-file-request/>", "\0", "\u{feff}GET / HTTP/1.1",
        ] {
            bad(format!("{line}\r\nHost: a\r\n\r\n"), 400);
        }
        for version in ["0.9", "1.2", "1.9", "2.0", "3.1", "0.0", "9.9"] {
            bad(format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n"), 505);
        }
        bad("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505);
        assert_eq!(good("GET / HTTP/1.0\r\n\r\n").version, Version::V10);
    }

#[test]
    #[rustfmt::skip]
    fn targets() {
        for (target, path, query) in [
            ("/", "/", None),
            ("/?", "/", Some("")),
            ("/a?b?c", "/a", Some("b?c")),
            ("//a//b", "//a//b", None),
            ("/tr%c3%a8s%20+x", "/tr%c3%a8s%20+x", None),
            ("/très_cool.jpg", "/très_cool.jpg", None),
            ("/a:;<=>@[\\]^`{|}\"'~b", "/a:;<=>@[\\]^`{|}\"'~b", None),
            ("/%zz%", "/%zz%", None),
            ("http://up.example/a?b", "/a", Some("b")),
            ("HTTPS://up.example:8443/a", "/a", None),
            ("http://up.example", "/", None),
            ("http://up.example?b", "/", Some("b")),
            ("http://[::1]:80/a", "/a", None),
            ("http://a//b", "//b", None),
            ("/http://a/b", "/http://a/b", None),
        ] {
            let seen = good(to(target));
            assert_eq!(
                (&*seen.path, seen.query.as_deref()),
                (path, query),
                "{target:?}"
            );
        }
        assert_eq!(
            good(to("http://b.example:1/x")).authority.as_deref(),
            Some("b.example:1")
        );
        assert_eq!(good(to("/x")).authority.as_deref(), Some("a"));
        for target in [
            "a", "a/b", "*", "?a", "a:80", "//", ".", "ftp://a/b", "http:/a", "http:a", "http://",
            "http:///a", "http://?b", "http://u@a/b", "http://u:p@a/b", "http://a:b/c",
            "http://a:99999/c", "http://[::1/c", "http://a b/c", "https:", "/a#b", "/#", "#",
            "/a?b#c", "http://a#b", "ws://a/b", "/\u{7f}", "file:///etc/passwd", "urn:a:b",
            "http://\u{e9}/",
        ] {
            if target != "//" {
                bad(to(target), 400);
            }
        }
        bad(b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400);
        bad(b"GET /\xc3 HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    }

#[test]
    #[rustfmt::skip]
    fn asterisk_and_authority_targets() {
        let seen = good("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!((seen.method, &*seen.path), (Method::Options, "*"));
        for method in ["GET", "PUT", "options", "POST"] {
            bad(format!("{method} * HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
        }
        for target in ["a.example:443", "[::1]:443", "1.2.3.4:1"] {
            let seen = good(format!("CONNECT {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
            assert_eq!((seen.method, &*seen.path), (Method::Known, ""));
            assert_eq!(seen.authority.as_deref(), Some(target));
        }
        for target in [
            "/", "*", "a", "a:", ":443", "http://a:443/", "[::1]", "a:443/x", "a:b", "a:443:443",
        ] {
            bad(format!("CONNECT {target} HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
        }
    }

#[test]
    #[rustfmt::skip]
    fn hosts() {
        for host in [
            " a", "a", " a ", "\ta\t", " up.example", " UP.example.:8080", " a_b.example",
            " 127.0.0.1", " 127.0.0.1:80", " [::1]", " [::1]:80", " [2001:db8::1.2.3.4]:65535",
            " a:", " a%20b", " xn--mnchen-3ya.example", " localhost:0",
        ] {
            let seen = good(hosted(host));
            assert_eq!(seen.authority.as_deref(), Some(host.trim()));
        }
        for host in [
            "", " ", "\t", " :80", " a b", " a,b", " a, a", " a/b", " a?b", " a#b", " u@a", " a:b",
            " a:80:80", " a:-1", " a:+80", " a:65536", " a:000080", " [::1", " ::1", " [::1]x",
            " [::1]:x", " [fe80::1%25eth0]", " [v1.a]", " []", " [1.2.3.4]", " a%2", " a%zz",
            " \u{e9}", " a\\b", " http://a", " a\"", " <a>", " a\tb", " a{b}", " a|b", " a`",
        ] {
            bad(hosted(host), 400);
        }
        bad("GET / HTTP/1.1\r\n\r\n", 400);
        bad("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400);
        bad("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400);
        bad("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nhOST: b\r\n\r\n", 400);
        bad("GET http://a/ HTTP/1.1\r\n\r\n", 400);
        bad("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 400);
        bad("GET / HTTP/1.0\r\nHost: a b\r\n\r\n", 400);
        bad("GET / HTTP/1.0\r\nHost:\r\n\r\n", 400);
        assert_eq!(good("GET / HTTP/1.0\r\n\r\n").authority, None);
        assert_eq!(
            good("GET / HTTP/1.0\r\nHost: a\r\n\r\n")
                .authority
                .as_deref(),
            Some("a")
        );
    }

#[test]
    #[rustfmt::skip]
    fn lengths() {
        for (value, length) in [
            (" 0", 0),
            (" 5", 5),
            ("5", 5),
            (" 5 ", 5),
            ("\t5\t", 5),
            (" 005", 5),
            (" 18446744073709551615", u64::MAX),
        ] {
            assert_eq!(
                good(with(&format!("Content-Length:{value}\r\n"))).framing,
                Framing::Length(length)
            );
            assert_eq!(
                good(with_1_0(&format!("Content-Length:{value}\r\n"))).framing,
                Framing::Length(length)
            );
        }
        for value in [
            "", " ", " +5", " -5", " -0", " 5 5", " 5,5", " 5, 5", " 5,", " ,5", " 0x5", " 5a",
            " a", " 5.0", " 5e1", " 5;", " \"5\"", " 18446744073709551616",
            " 99999999999999999999999999", " \u{665}", " 1_000", " 5\tx", " 5\u{b}", " ٥",
        ] {
            bad(with(&format!("Content-Length:{value}\r\n")), 400);
            bad(with_1_0(&format!("Content-Length:{value}\r\n")), 400);
        }
        bad(with("Content-Length: 5\r\nContent-Length: 5\r\n"), 400);
        bad(with("Content-Length: 5\r\ncontent-length: 6\r\n"), 400);
        bad(
            with("Content-Length: 5\r\nX: y\r\nContent-Length:\r\n"),
            400,
        );
        assert_eq!(good(with("")).framing, Framing::None);
        // Other fields than this one.
        for field in [
            "Content_Length: 5",
            "Content-Lengt: 5",
            "X-Content-Length: 5",
            "ContentLength: 5",
        ] {
            assert_eq!(good(with(&format!("{field}\r\n"))).framing, Framing::None);
        }
    }

#[test]
    #[rustfmt::skip]
    fn transfer_codings() {
        for value in [
            " chunked", "chunked", " Chunked ", " CHUNKED", "\tchunked\t",
        ] {
            assert_eq!(
                good(with(&format!("Transfer-Encoding:{value}\r\n"))).framing,
                Framing::Chunked,
                "{value:?}"
            );
        }
        for value in [
            " gzip, chunked", " gzip,chunked", " identity", " identity, chunked", " gzip",
            " xchunked", " chunkedx", " chunke", " cow", " x-gzip , chunked", " gzip;q=1",
            " gzip;q=1, chunked", " 'chunked'", " chunked.",
        ] {
            bad(with(&format!("Transfer-Encoding:{value}\r\n")), 501);
        }
        for value in [
            "", " ", " ,", " chunked,", " ,chunked", " chunked, chunked", " chunked,chunked",
            " chunked, gzip", " chunked, identity", " chunked;q=1", " chunked;", " chunked ; a=b",
            " \"chunked\"", " chunked chunked", " chunked gzip", " [chunked]", " chunked\u{b}",
            " \u{b}chunked", " chunked\u{c}", " chunked\0", " chun\tked", " gzip chunked",
            " gzip,,chunked", " chunked;a=\"b\"", " chunked\u{a0}", " chunked/1", " =chunked",
            " chunked\\",
        ] {
            bad(with(&format!("Transfer-Encoding:{value}\r\n")), 400);
        }
        bad(
            with("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"),
            501,
        );
        bad(
            with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
            400,
        );
        bad(
            with("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
            400,
        );
        bad(
            with("Transfer-Encoding: chunked\r\nTransfer-Encoding:\r\n"),
            400,
        );
        bad(with_1_0("Transfer-Encoding: chunked\r\n"), 400);
        bad(with_1_0("Transfer-Encoding: identity\r\n"), 400);
    }

#[test]
    #[rustfmt::skip]
    fn two_framings_at_once() {
        for fields in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
            "transfer-encoding: identity\r\ncontent-length: 5\r\n",
            "Transfer-Encoding: gzip, chunked\r\nContent-Length: 5\r\n",
            "Transfer-Encoding:\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nTransfer-Encoding: xchunked\r\n",
            "Content-Length: x\r\nTransfer-Encoding: chunked\r\n",
        ] {
            bad(with(fields), 400);
            bad(with_1_0(fields), 400);
        }
    }

/// Lines that one parser takes for a framing and another does not.
    #[test]
    #[rustfmt::skip]
    fn field_lines_that_smuggle() {
        for line in [
            "Transfer-Encoding : chunked", "Transfer-Encoding\t: chunked", "Content-Length : 5",
            " Transfer-Encoding: chunked", "\tTransfer-Encoding: chunked",
            "X: y\r\n Transfer-Encoding: chunked", "X: y\r\n\tfolded", "X:\r\n y",
            "Transfer-Encoding:\r\n chunked", "Transfer-Encoding: chunked\r\n ",
            "Transfer\u{0}-Encoding: chunked", "Transfer-Encoding\u{0}: chunked",
            "Transfer-Encoding", "Transfer-Encoding chunked", ": chunked", " : chunked",
            "X: y\nTransfer-Encoding: chunked", "X: y\rTransfer-Encoding: chunked",
            "X: y\r\n\rTransfer-Encoding: chunked", "X: y\r\r\nTransfer-Encoding: chunked",
            "X: y\n\r\nGET /evil HTTP/1.1", "X: y\0", "X: \u{1}y", "X: y\u{7f}", "X: y\u{8}",
            "X: \u{1b}[31m", "Tr\u{e4}nsfer: x", "\u{a0}Transfer-Encoding: chunked",
            "Transfer Encoding: chunked", "Transfer-Encoding{}: chunked", "[X]: y", "X@: y",
            "X\"Y\": z", "X(c): y", "X,Y: z", "X;Y: z", "X=Y: z", "<X>: y", "X/Y: z", "X?Y: z",
            "X\\Y: z", "GET /evil HTTP/1.1", "\u{b}X: y", "X\u{b}: y", "Host\u{c}: b",
            "X: y\r\n\n",
        ] {
            bad(with(&format!("{line}\r\n")), 400);
        }
    }

#[test]
fn expectations() {
    for (fields, expect) in [
        ("", Expect::None),
        ("Expect: 100-continue\r\n", Expect::Continue),
        ("Expect: 100-Continue\r\n", Expect::Continue),
        ("expect:100-CONTINUE \r\n", Expect::Continue),
        ("Expect: 100-continue, 100-continue\r\n", Expect::Continue),
        ("Expect:\r\n", Expect::None),
        ("Expect: ,\r\n", Expect::None),
        ("Expect: 200-ok\r\n", Expect::Other),
        ("Expect: 100-continue, x\r\n", Expect::Other),
        ("Expect: 100-continue\r\nExpect: x=y\r\n", Expect::Other),
        ("Expect: 100-continue;a=b\r\n", Expect::Other),
        ("Expect: \"100-continue\"\r\n", Expect::Other),
        ("Expect: 100 continue\r\n", Expect::Other),
    ] {
        assert_eq!(good(with(fields)).expect, expect, "{fields:?}");
        let in_1_0 = if expect == Expect::Continue {
            Expect::None
        } else {
            expect
        };
        assert_eq!(
            good(with_1_0(fields)).expect,
            in_1_0,
            "{fields:?} in HTTP/1.0"
        );
    }
}

#[test]
fn keeping_alive() {
    for (fields, in_1_1, in_1_0) in [
        ("", true, false),
        ("Connection: close\r\n", false, false),
        ("connection: Close\r\n", false, false),
        ("Connection: keep-alive\r\n", true, true),
        ("Connection: Keep-Alive\r\n", true, true),
        ("Connection: keep-alive, close\r\n", false, false),
        ("Connection: close, keep-alive\r\n", false, false),
        (
            "Connection: keep-alive\r\nConnection: close\r\n",
            false,
            false,
        ),
        (
            "Connection: te\r\nConnection: upgrade ,\tclose\r\n",
            false,
            false,
        ),
        ("Connection: te ,, keep-alive\r\n", true, true),
        ("Connection:\r\n", true, false),
        ("Connection: closed\r\n", true, false),
        ("Connection: \"close\"\r\n", true, false),
        ("Connection: Upgrade\r\nUpgrade: h2c\r\n", true, false),
        ("Proxy-Connection: close\r\n", true, false),
    ] {
        assert_eq!(good(with(fields)).keep_alive, in_1_1, "{fields:?}");
        assert_eq!(
            good(with_1_0(fields)).keep_alive,
            in_1_0,
            "{fields:?} in HTTP/1.0"
        );
    }
}

#[test]
    #[rustfmt::skip]
    fn empty_lines_before_the_request() {
        for n in 0..=4 {
            let seen = good("\r\n".repeat(n) + &to("/x?y"));
            assert_eq!((&*seen.path, seen.query.as_deref()), ("/x", Some("y")));
        }
        bad("\r\n".repeat(5) + &to("/"), 400);
        for text in [
            "\n", "\n\r\n", "\r\n\n", "\r\r\n", " \r\n", "\r\n \r\n", "\r\nx\r\n", "\rG",
        ] {
            bad(text.to_owned() + &to("/"), 400);
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
    fn faults_are_told_early() {
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
                    .map_err(|fault| fault.status()),
                Err(status),
                "{bytes:?}"
            );
            bad(bytes, status);
        }
        for bytes in [
            "", "G", "GET", "GET ", "GET /", "GET / HTTP/2.0", "GET / HTTP/1.1\r\n\r",
            "GET / HTTP/1.1\r\nX",
        ] {
            assert_eq!(outcome(bytes.as_bytes()), None, "{bytes:?}");
        }
    }

#[test]
fn sizes() {
    let target = |n: usize| to(&format!("/{}", "a".repeat(n - 1)));
    assert_eq!(good(target(8000)).path.len(), 8000);
    assert_eq!(good(target(MAX_TARGET)).path.len(), MAX_TARGET);
    bad(target(MAX_TARGET + 1), 414);
    bad(target(MAX_TARGET + 2), 414);
    bad(target(MAX_TARGET + 20), 414);
    bad(target(40_000), 414);
    bad(format!("GET /{}", "a".repeat(MAX_TARGET + 20)), 414);
    bad(format!("GET /{}\0", "a".repeat(MAX_TARGET + 20)), 414);

    let fields = |n: usize| with(&"X: y\r\n".repeat(n - 1));
    good(fields(60));
    good(fields(MAX_FIELDS));
    bad(fields(MAX_FIELDS + 1), 431);
    bad(fields(1000), 431);

    let sized = |n: usize| {
        let rest = n - with("X: \r\n").len();
        with(&format!("X: {}\r\n", "a".repeat(rest)))
    };
    good(sized(4096 + 100));
    assert_eq!(sized(MAX_HEAD).len(), MAX_HEAD);
    good(sized(MAX_HEAD));
    bad(sized(MAX_HEAD + 1), 431);
    bad(sized(MAX_HEAD + 2), 431);
    bad(sized(MAX_HEAD + 4), 431);
    bad(sized(100_000), 431);
    assert_eq!(outcome(&sized(100_000).as_bytes()[..MAX_HEAD - 1]), None);
}

#[test]
fn parse_alone_wants_a_whole_head() {
    let text = to("/");
    for n in 0..text.len() {
        assert!(
            RequestHead::parse(&text.as_bytes()[..n]).is_err(),
            "{n} bytes"
        );
    }
    assert!(RequestHead::parse(format!("{text}x").as_bytes()).is_err());
    assert!(RequestHead::parse(format!("{text}{text}").as_bytes()).is_err());
}

/// The search costs one look at each byte, however the bytes arrive.
#[test]
fn the_scan_goes_on_where_it_stopped() {
    let text = with(&format!("X: {}\r\n", "a".repeat(30_000)));
    let mut scan = Scan::default();
    for end in 0..text.len() {
        let before = scan.at;
        assert_eq!(scan.scan(&text.as_bytes()[..end]), Ok(None));
        assert!(
            scan.at >= before && scan.at + 1 >= end,
            "{} of {end}",
            scan.at
        );
    }
}

/// Whatever comes, nothing panics, and the pieces it comes in change nothing.
    #[test]
    #[rustfmt::skip]
    fn mutations_are_judged_alike_in_any_pieces() {
        let corpus = [
            to("/a?b"),
            to("http://up.example:80/a?b"),
            with("Content-Length: 5\r\n"),
            with("Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n"),
            with("Connection: close, te\r\nX: \u{e9}\r\n"),
            with_1_0("Connection: keep-alive\r\n"),
            "OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\n\r\n".into(),
            "\r\n\r\nCONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        ];
        let pieces: [&[u8]; 16] = [
            b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b"chunked",
            b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"\xff", b"HTTP/1.1",
            b"?", b"#", b"\r\n\r\n",
        ];
        let mut seed = 0x2545_f491_4f6c_dd1du64;
        let mut below = move |n: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed % n as u64) as usize
        };
        let (mut good, mut bad) = (0, 0);
        for round in 0..20_000 {
            let mut bytes = corpus[round % corpus.len()].clone().into_bytes();
            for _ in 0..=below(3) {
                let at = below(bytes.len() + 1);
                match below(4) {
                    0 if at < bytes.len() => bytes[at] = below(256) as u8,
                    1 if at < bytes.len() => {
                        let end = bytes.len().min(at + 1 + below(8));
                        bytes.drain(at..end);
                    }
                    2 => {
                        let end = bytes.len().min(at + below(20));
                        let copy = bytes[at..end].to_vec();
                        bytes.splice(at..at, copy);
                    }
                    _ => {
                        let piece = pieces[below(pieces.len())];
                        bytes.splice(at..at, piece.iter().copied());
                    }
                }
            }
            let whole = feed(&bytes, [].into_iter());
            let first = below(bytes.len() + 1);
            assert_eq!(
                feed(&bytes, 0..bytes.len()),
                whole,
                "{}",
                bytes.escape_ascii()
            );
            assert_eq!(
                feed(&bytes, [first].into_iter()),
                whole,
                "{} at {first}",
                bytes.escape_ascii()
            );
            match whole {
                Some(Ok((n, _))) => {
                    good += 1;
                    let head = &bytes[..n];
                    assert!(head.ends_with(b"\r\n\r\n"));
                    let lone = |pair: &[u8]| (pair[0] == b'\r') != (pair[1] == b'\n');
                    assert!(!head.windows(2).any(lone), "{}", head.escape_ascii());
                }
                Some(Err(fault)) => {
                    bad += 1;
                    assert!([400, 414, 431, 501, 505].contains(&fault.status()));
                }
                None => {}
            }
        }
        assert!(good > 1000 && bad > 1000, "{good} good, {bad} bad");
    }
