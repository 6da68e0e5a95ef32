//! Request bodies, whole and in pieces.

use super::*;
use crate::http::tests::Rng;

/// The result of a body: its data, and how many bytes of input it took.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Done(Vec<u8>, usize),
    More(Vec<u8>),
    Failed(BodyFault),
}

/// Feeds input in pieces of `size` bytes, and moves up to `max_direct` bytes of each run of data without showing them.
fn feed(framing: Framing, input: &[u8], size: usize, max_direct: u64) -> Outcome {
    let mut body = Body::new(framing);
    let mut data = Vec::new();
    let mut at = 0;
    loop {
        let direct_now = body.direct().min(max_direct).min((input.len() - at) as u64);
        if direct_now > 0 {
            data.extend_from_slice(&input[at..at + direct_now as usize]);
            body.moved(direct_now);
            at += direct_now as usize;
        }
        let piece = &input[at..input.len().min(at + size)];
        let direct_before = body.direct();
        match body.step(piece) {
            Ok(Step::Data(n)) => {
                assert!((1..=piece.len()).contains(&n) && n as u64 <= direct_before);
                data.extend_from_slice(&piece[..n]);
                at += n;
            }
            Ok(Step::Skip(n)) => {
                assert!((1..=piece.len()).contains(&n));
                at += n;
            }
            Ok(Step::More) => {
                assert!(piece.is_empty() && body.known_rest() != Some(0));
                return Outcome::More(data);
            }
            Ok(Step::Done) => {
                assert!(body.direct() == 0 && body.known_rest() == Some(0));
                assert_eq!(body.received(), data.len() as u64);
                assert_eq!(body.step(b"x"), Ok(Step::Done));
                return Outcome::Done(data, at);
            }
            Err(error) => {
                assert_eq!(body.step(b"0\r\n\r\n"), Err(error), "an error is final");
                assert!(error.to_string().ends_with('.'));
                return Outcome::Failed(error);
            }
        }
    }
}

/// Feeds the input whole, byte by byte, in other pieces, and with data moved directly; the result must always be the
/// same.
#[track_caller]
fn outcome(framing: Framing, input: &[u8]) -> Outcome {
    let whole = feed(framing, input, usize::MAX >> 1, 0);
    for (size, max_direct) in [
        (1, 0),
        (2, 0),
        (7, 0),
        (1, 1),
        (3, u64::MAX),
        (usize::MAX >> 1, u64::MAX),
    ] {
        let again = feed(framing, input, size, max_direct);
        assert_eq!(
            again,
            whole,
            "{} in pieces of {size}, {max_direct} of them moved directly",
            input.escape_ascii()
        );
    }
    whole
}

#[track_caller]
fn decodes(framing: Framing, input: &[u8], data: &[u8]) {
    for trailing in [
        &b""[..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0",
        b"\r\n",
        b"5\r\n",
    ] {
        let all = [input, trailing].concat();
        let expected = Outcome::Done(data.to_vec(), input.len());
        assert_eq!(outcome(framing, &all), expected, "{}", all.escape_ascii());
    }
    // Every proper prefix waits for more.
    for n in 0..input.len() {
        assert!(
            matches!(outcome(framing, &input[..n]), Outcome::More(_)),
            "{}",
            input[..n].escape_ascii()
        );
    }
}

#[track_caller]
fn decodes_chunked(input: impl AsRef<[u8]>, data: &str) {
    decodes(Framing::Chunked, input.as_ref(), data.as_bytes());
}

#[track_caller]
fn rejects(input: impl AsRef<[u8]>) {
    let input = input.as_ref();
    match outcome(Framing::Chunked, input) {
        Outcome::Failed(_) => {}
        other => panic!("{}: {other:?}", input.escape_ascii()),
    }
}

#[test]
fn known_lengths() {
    decodes(Framing::None, b"", b"");
    decodes(Framing::Length(0), b"", b"");
    decodes(Framing::Length(1), b"a", b"a");
    decodes(Framing::Length(5), b"a\r\n\0b", b"a\r\n\0b");
    let mut body = Body::new(Framing::Length(u64::MAX));
    assert_eq!(body.direct(), u64::MAX);
    body.moved(u64::MAX - 1);
    assert_eq!(
        (body.received(), body.known_rest()),
        (u64::MAX - 1, Some(1))
    );
    assert_eq!(body.step(b"ab"), Ok(Step::Data(1)));
    assert_eq!(body.step(b"b"), Ok(Step::Done));
}

#[test]
fn chunks() {
    decodes_chunked("0\r\n\r\n", "");
    decodes_chunked("000\r\n\r\n", "");
    decodes_chunked("5\r\nhello\r\n0\r\n\r\n", "hello");
    decodes_chunked("1\r\na\r\n1\r\nb\r\n01\r\nc\r\n0\r\n\r\n", "abc");
    decodes_chunked(
        "a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n",
        "01234567890123456789",
    );
    decodes_chunked("5\r\n\r\n0\r\n\r\n0\r\n\r\n", "\r\n0\r\n");
    decodes_chunked("0000000000000005\r\nhello\r\n0\r\n\r\n", "hello");
    let mut body = Body::new(Framing::Chunked);
    assert_eq!((body.direct(), body.known_rest()), (0, None));
    assert_eq!(body.step(b"5\r\nhello\r\n"), Ok(Step::Skip(3)));
    assert_eq!((body.direct(), body.known_rest()), (5, None));
    body.moved(4);
    assert_eq!(body.step(b"o\r\n"), Ok(Step::Data(1)));
    assert_eq!(body.step(b""), Ok(Step::More));
    assert_eq!(body.step(b"\r\n0\r\n\r\nnext"), Ok(Step::Skip(7)));
    assert_eq!(body.step(b"next"), Ok(Step::Done));
    assert_eq!(body.received(), 5);
}

#[test]
#[rustfmt::skip]
fn extensions() {
    for extension in [
        ";a", ";a=b", ";a=\"b\"", ";a=\"\"", ";a;b;c=d", ";a=\"b;\\\"c\\\\ \t\u{e9}\"", " ;a",
        "\t; a", " ; a = b", ";a =\"b\"", ";a= b", ";a=b ;c", ";a=\"b\" ; c", ";a ;b",
        ";!#$%&'*+-.^_`|~=x",
    ] {
        decodes_chunked(
            format!("5{extension}\r\nhello\r\n0{extension}\r\n\r\n"),
            "hello",
        );
    }
    for extension in [
        ";", ";;", ";;a", ";a;", ";=b", ";a=", ";a=;b", ";a=b=c", ";a=\"b", ";a=\"b\"c",
        ";a=\"\0\"", ";a=\"\n\"", ";a=\"\\\r\"", ";a=b ", ";a ", " ", "\t", " a", " ;", ";a b",
        ";a=b c", ";a,b", ";a=\u{e9}", ";\u{e9}", ";a\0", ";a\n", ";a=\"b\" ", ";a=\"b\"=c",
        ";a\u{b}", ";(c)", ";a/b", ";[a]", ";a=b\rx", ";a=\"\u{7f}\"",
    ] {
        rejects(format!("5{extension}\r\nhello\r\n0\r\n\r\n"));
        rejects(format!("0{extension}\r\n\r\n"));
    }
}

#[test]
#[rustfmt::skip]
fn malformed_chunks() {
    for input in [
        "\r\n", "\n", ";a\r\n", " 5\r\nhello\r\n", "5 \r\nhello\r\n", "5\t\r\nhello\r\n",
        "+5\r\nhello\r\n", "-5\r\nhello\r\n", "-1\r\n", "0x5\r\nhello\r\n", "x5\r\n", "5h\r\n",
        "5_0\r\n", "5,5\r\n", "5.0\r\n", "g\r\n", "5\nhello\r\n", "5\rhello\r\n", "5\r\rhello",
        "5\r\nhello\n", "5\r\nhello0\r\n", "5\r\nhello!\r\n", "5\r\nhello\r0\r\n",
        "5\r\nhello\r\r\n", "5\r\nhell\r\n0\r\n\r\n", "5\r\nhello\r\n\r\n",
        "5\r\nhello\r\n 0\r\n\r\n", "5\r\nhello\r\n\n0\r\n", "0\n\n", "0\r\n\n", "0\n\r\n",
        "0\r\n\rx", "0\r\r\n", "0\rx", "00000000000000005\r\n", "10000000000000000\r\n",
        "ffffffffffffffffff\r\n", "fffffffffffffffff\r\n", "5\0\r\n", "\0",
        "GET / HTTP/1.1\r\n", "5;\r\n", "\u{ff15}\r\n",
    ] {
        rejects(input);
    }
}

#[test]
fn sizes_close_to_64_bits() {
    let mut body = Body::new(Framing::Chunked);
    assert_eq!(body.step(b"fffffffffffffffe\r\n"), Ok(Step::Skip(18)));
    body.moved(u64::MAX - 1);
    assert_eq!(body.step(b"\r\n1\r\n"), Ok(Step::Skip(5)));
    assert_eq!(body.direct(), 1);
    let mut other = body.clone();
    body.moved(1);
    assert_eq!(body.received(), u64::MAX);
    assert!(body.step(b"\r\n1\r\n").is_err());
    other.moved(1);
    assert_eq!(other.step(b"\r\n0\r\n\r\n"), Ok(Step::Skip(7)));
    assert_eq!(other.known_rest(), Some(0));
}

#[test]
#[rustfmt::skip]
fn trailers() {
    for trailer in [
        "A: b\r\n", "A:\r\n", "A:b\r\nC: d e\t\u{e9}\r\n", "a: b\r\na: b\r\n",
        "Expires: 0\r\nETag: \"x\"\r\n",
        // Trailer fields with a meaning in the head are discarded.
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Host: evil\r\n",
    ] {
        decodes_chunked(format!("1\r\na\r\n0\r\n{trailer}\r\n"), "a");
    }
    for trailer in [
        "A\r\n", "A b: c\r\n", "A : b\r\n", " A: b\r\n", "A: b\r\n c\r\n", "A: b\r\n\tc\r\n",
        ": b\r\n", "A: \0\r\n", "A: b\n", "A: b\rC: d\r\n", "A: b\r\r\n", "\u{e9}: b\r\n",
        "A: b\u{7f}\r\n", "A\0: b\r\n", "GET / HTTP/1.1\r\nHost: a\r\n",
    ] {
        rejects(format!("0\r\n{trailer}\r\n"));
    }
}

#[test]
fn limits() {
    // Many small chunks are legal.
    let many = "1\r\na\r\n".repeat(5000) + "0\r\n\r\n";
    assert_eq!(
        outcome(Framing::Chunked, many.as_bytes()),
        Outcome::Done(vec![b'a'; 5000], many.len())
    );
    // Long extensions, and endless short ones, are not.
    let long = |n: usize| format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(n));
    decodes_chunked(long(1000), "a");
    rejects(long(1100));
    rejects(format!("1;a=\"{}\"\r\na\r\n", "x".repeat(1100)));
    rejects(format!("1;{}a\r\na\r\n", " ".repeat(1100)));
    rejects(format!("1{};a\r\na\r\n", " ".repeat(1100)));
    rejects(format!("1{}\r\na\r\n", ";a".repeat(600)));
    rejects("1;xxxxxxxxxxxxxxx\r\na\r\n".repeat(1100));
    rejects(format!("{}1\r\n", "0".repeat(16)));
    // Trailer fields are limited as well.
    decodes_chunked(format!("0\r\n{}\r\n", "A: b\r\n".repeat(32)), "");
    rejects(format!("0\r\n{}\r\n", "A: b\r\n".repeat(33)));
    assert!(matches!(
        outcome(
            Framing::Chunked,
            format!("0\r\nA: {}\r\n\r\n", "b".repeat(8000)).as_bytes()
        ),
        Outcome::Done(..)
    ));
    rejects(format!("0\r\nA: {}\r\n\r\n", "b".repeat(8200)));
    rejects(format!("0\r\n{}", "a".repeat(8200)));
}

#[test]
#[rustfmt::skip]
fn splitting_does_not_change_the_result_of_mutated_bodies() {
    let corpus: [&[u8]; 5] = [
        b"5\r\nhello\r\n0\r\n\r\n", b"1\r\na\r\n2;x=y\r\nbc\r\n0\r\nA: b\r\n\r\n",
        b"3 ; n = \"q\\\"\" ;m\r\nabc\r\n00;z\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        b"a\r\n0123456789\r\nB\r\n0123456789A\r\n0\r\nTrailer: x\r\nOther:\r\n\r\n",
        b"0\r\n\r\n",
    ];
    let tokens: Vec<&[u8]> = b"\r\n\r\n 0159aAfFg;=\"\\:\t\0\xff-+x".chunks(1).collect();
    let mut rng = Rng::new(2);
    let (mut done, mut failed) = (0, 0);
    for round in 0..20_000 {
        let mut input = corpus[round % corpus.len()].to_vec();
        rng.mutate(&mut input, &tokens);
        match outcome(Framing::Chunked, &input) {
            Outcome::Done(..) => done += 1,
            Outcome::Failed(_) => failed += 1,
            Outcome::More(_) => {}
        }
    }
    assert!(done > 1000 && failed > 1000, "{done} done, {failed} failed");
}
