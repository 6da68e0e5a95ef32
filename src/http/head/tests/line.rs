//! The request line: methods, targets and versions.

use super::*;
use crate::http::head::line::REGISTERED;
use crate::http::head::scan::MAX_METHOD;

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
        let summary = accepts(format!("{name} / HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(summary.method, method, "{name}");
    }
    assert!(REGISTERED.is_sorted());
    accepts(format!(
        "{} / HTTP/1.1\r\nHost: a\r\n\r\n",
        "M".repeat(MAX_METHOD)
    ));
    rejects(
        format!(
            "{} / HTTP/1.1\r\nHost: a\r\n\r\n",
            "M".repeat(MAX_METHOD + 1)
        ),
        501,
    );
    rejects("M".repeat(100_000), 501);
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
        rejects(format!("{line}\r\nHost: a\r\n\r\n"), 400);
    }
    for version in ["0.9", "1.2", "1.9", "2.0", "3.1", "0.0", "9.9"] {
        rejects(format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n"), 505);
    }
    rejects("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505);
    assert_eq!(accepts("GET / HTTP/1.0\r\n\r\n").version, Version::V10);
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
        let summary = accepts(get(target));
        assert_eq!(
            (&*summary.path, summary.query.as_deref()),
            (path, query),
            "{target:?}"
        );
    }
    for target in [
        "a", "a/b", "*", "?a", "a:80", ".", "ftp://a/b", "http:/a", "http:a", "http://",
        "http:///a", "http://?b", "http://u@a/b", "http://u:p@a/b", "http://a:b/c",
        "http://a:99999/c", "http://[::1/c", "http://a b/c", "https:", "/a#b", "/#", "#",
        "/a?b#c", "http://a#b", "ws://a/b", "/\u{7f}", "file:///etc/passwd", "urn:a:b",
        "http://\u{e9}/",
    ] {
        rejects(get(target), 400);
    }
    rejects(b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    rejects(b"GET /\xc3 HTTP/1.1\r\nHost: a\r\n\r\n", 400);
}

#[test]
#[rustfmt::skip]
fn asterisk_and_authority_targets() {
    let summary = accepts("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((summary.method, &*summary.path), (Method::Options, "*"));
    for method in ["GET", "PUT", "options", "POST"] {
        rejects(format!("{method} * HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
    }
    for target in ["a.example:443", "[::1]:443", "1.2.3.4:1"] {
        let summary = accepts(format!("CONNECT {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!((summary.method, &*summary.path), (Method::Known, ""));
    }
    for target in [
        "/", "*", "a", "a:", ":443", "http://a:443/", "[::1]", "a:443/x", "a:b", "a:443:443",
    ] {
        rejects(format!("CONNECT {target} HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
    }
}
