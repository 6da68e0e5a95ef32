//! Header fields: syntax, `Host`, framing, `Expect` and `Connection`.

use super::*;

#[test]
#[rustfmt::skip]
fn hosts() {
    for host in [
        " a", "a", " a ", "\ta\t", " up.example", " UP.example.:8080", " a_b.example",
        " 127.0.0.1", " 127.0.0.1:80", " [::1]", " [::1]:80", " [2001:db8::1.2.3.4]:65535",
        " a:", " a%20b", " xn--mnchen-3ya.example", " localhost:0",
    ] {
        let summary = accepts(get_from_host(host));
        assert_eq!(summary.host.as_deref(), Some(host.trim()));
    }
    for host in [
        "", " ", "\t", " :80", " a b", " a,b", " a, a", " a/b", " a?b", " a#b", " u@a", " a:b",
        " a:80:80", " a:-1", " a:+80", " a:65536", " a:000080", " [::1", " ::1", " [::1]x",
        " [::1]:x", " [fe80::1%25eth0]", " [v1.a]", " []", " [1.2.3.4]", " a%2", " a%zz",
        " \u{e9}", " a\\b", " http://a", " a\"", " <a>", " a\tb", " a{b}", " a|b", " a`",
    ] {
        rejects(get_from_host(host), 400);
    }
    rejects("GET / HTTP/1.1\r\n\r\n", 400);
    rejects("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400);
    rejects("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400);
    rejects("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nhOST: b\r\n\r\n", 400);
    rejects("GET http://a/ HTTP/1.1\r\n\r\n", 400);
    rejects("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 400);
    rejects("GET / HTTP/1.0\r\nHost: a b\r\n\r\n", 400);
    rejects("GET / HTTP/1.0\r\nHost:\r\n\r\n", 400);
    assert_eq!(accepts("GET / HTTP/1.0\r\n\r\n").host, None);
    assert_eq!(
        accepts("GET / HTTP/1.0\r\nHost: a\r\n\r\n")
            .host
            .as_deref(),
        Some("a")
    );
}

#[test]
#[rustfmt::skip]
fn content_lengths() {
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
            accepts(put_with(&format!("Content-Length:{value}\r\n"))).framing,
            Framing::Length(length)
        );
        assert_eq!(
            accepts(put_1_0_with(&format!("Content-Length:{value}\r\n"))).framing,
            Framing::Length(length)
        );
    }
    for value in [
        "", " ", " +5", " -5", " -0", " 5 5", " 5,5", " 5, 5", " 5,", " ,5", " 0x5", " 5a",
        " a", " 5.0", " 5e1", " 5;", " \"5\"", " 18446744073709551616",
        " 99999999999999999999999999", " \u{665}", " 1_000", " 5\tx", " 5\u{b}", " ٥",
    ] {
        rejects(put_with(&format!("Content-Length:{value}\r\n")), 400);
        rejects(put_1_0_with(&format!("Content-Length:{value}\r\n")), 400);
    }
    rejects(put_with("Content-Length: 5\r\nContent-Length: 5\r\n"), 400);
    rejects(put_with("Content-Length: 5\r\ncontent-length: 6\r\n"), 400);
    rejects(
        put_with("Content-Length: 5\r\nX: y\r\nContent-Length:\r\n"),
        400,
    );
    assert_eq!(accepts(put_with("")).framing, Framing::None);
    // Fields with similar names.
    for field in [
        "Content_Length: 5",
        "Content-Lengt: 5",
        "X-Content-Length: 5",
        "ContentLength: 5",
    ] {
        assert_eq!(accepts(put_with(&format!("{field}\r\n"))).framing, Framing::None);
    }
}

#[test]
#[rustfmt::skip]
fn transfer_codings() {
    for value in [
        " chunked", "chunked", " Chunked ", " CHUNKED", "\tchunked\t",
    ] {
        assert_eq!(
            accepts(put_with(&format!("Transfer-Encoding:{value}\r\n"))).framing,
            Framing::Chunked,
            "{value:?}"
        );
    }
    for value in [
        " gzip, chunked", " gzip,chunked", " identity", " identity, chunked", " gzip",
        " xchunked", " chunkedx", " chunke", " cow", " x-gzip , chunked", " gzip;q=1",
        " gzip;q=1, chunked", " 'chunked'", " chunked.",
    ] {
        rejects(put_with(&format!("Transfer-Encoding:{value}\r\n")), 501);
    }
    for value in [
        "", " ", " ,", " chunked,", " ,chunked", " chunked, chunked", " chunked,chunked",
        " chunked, gzip", " chunked, identity", " chunked;q=1", " chunked;", " chunked ; a=b",
        " \"chunked\"", " chunked chunked", " chunked gzip", " [chunked]", " chunked\u{b}",
        " \u{b}chunked", " chunked\u{c}", " chunked\0", " chun\tked", " gzip chunked",
        " gzip,,chunked", " chunked;a=\"b\"", " chunked\u{a0}", " chunked/1", " =chunked",
        " chunked\\",
    ] {
        rejects(put_with(&format!("Transfer-Encoding:{value}\r\n")), 400);
    }
    rejects(
        put_with("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"),
        501,
    );
    rejects(
        put_with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        400,
    );
    rejects(
        put_with("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
        400,
    );
    rejects(
        put_with("Transfer-Encoding: chunked\r\nTransfer-Encoding:\r\n"),
        400,
    );
    rejects(put_1_0_with("Transfer-Encoding: chunked\r\n"), 400);
    rejects(put_1_0_with("Transfer-Encoding: identity\r\n"), 400);
}

#[test]
#[rustfmt::skip]
fn content_length_beside_transfer_encoding() {
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
        rejects(put_with(fields), 400);
        rejects(put_1_0_with(fields), 400);
    }
}

/// Field lines that some parsers read as `Transfer-Encoding` or `Content-Length` and others do not.
#[test]
#[rustfmt::skip]
fn malformed_field_lines() {
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
        rejects(put_with(&format!("{line}\r\n")), 400);
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
        assert_eq!(accepts(put_with(fields)).expect, expect, "{fields:?}");
        let in_1_0 = if expect == Expect::Continue {
            Expect::None
        } else {
            expect
        };
        assert_eq!(
            accepts(put_1_0_with(fields)).expect,
            in_1_0,
            "{fields:?} in HTTP/1.0"
        );
    }
}

#[test]
fn keep_alive() {
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
        assert_eq!(accepts(put_with(fields)).keep_alive, in_1_1, "{fields:?}");
        assert_eq!(
            accepts(put_1_0_with(fields)).keep_alive,
            in_1_0,
            "{fields:?} in HTTP/1.0"
        );
    }
}
