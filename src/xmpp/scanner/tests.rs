//! Unit tests; the tests of [`super::super::xml`] cover the scanner as well.

use super::super::syntax::is_xml_char;
use super::*;

const OPEN: &str = "<?xml version='1.0'?><stream:stream xmlns:stream='s' id='1'>";

/// The boundaries with their end offsets, and the error.
type Found = (Vec<(usize, Boundary)>, Option<XmlError>);

fn scan<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Found {
    let mut scanner = Scanner::new();
    let (mut found, mut before) = (Vec::new(), 0);
    for piece in pieces {
        let mut at = 0;
        while at < piece.len() {
            match scanner.scan(&piece[at..]) {
                Ok((taken, boundary)) => {
                    assert!(taken > 0);
                    at += taken;
                    found.extend(boundary.map(|boundary| (before + at, boundary)));
                    if boundary == Some(Boundary::Closed) {
                        return (found, None);
                    }
                }
                Err(error) => return (found, Some(error)),
            }
        }
        before += piece.len();
    }
    (found, None)
}

/// Scans the text whole, byte by byte, and split at every byte; all results must agree.
#[track_caller]
fn check(text: &[u8]) -> Found {
    let whole = scan([text]);
    assert_eq!(scan(text.chunks(1)), whole, "byte by byte");
    for at in 0..text.len().min(2000) {
        let (a, b) = text.split_at(at);
        assert_eq!(scan([a, b]), whole, "split at {at}");
    }
    whole
}

#[test]
fn finds_where_stanzas_end() {
    let parts = [
        ("<?xml version='1.0'?>", Boundary::Declaration),
        (
            "\n<stream:stream xmlns:stream='s' id=\"1'>\" >",
            Boundary::Header,
        ),
        ("<a/>", Boundary::Stanza),
        (" \r\n\t<a b = '>' c='/>'  />", Boundary::Stanza),
        ("<a></a >", Boundary::Stanza),
        ("<a>]]<b>]</b>&gt;&#62;&#x3E;<c/></a>", Boundary::Stanza),
        ("<a><![CDATA[</a>]] ]>&x;<]]]></a>", Boundary::Stanza),
        ("<a><a><a></a></a><a/></a>", Boundary::Stanza),
        (
            "<é:ü.-1 ö='\u{10FFFF}\u{FFFD}\u{D7FF}\u{E000}\u{F000}'/>",
            Boundary::Stanza,
        ),
        (
            "<a>\u{7F}\u{80}\u{7FF}\u{800}\u{10000}\u{1FFFF}</a>",
            Boundary::Stanza,
        ),
        ("</stream:stream\n>", Boundary::Closed),
    ];
    let text: String = parts.iter().map(|(text, _)| *text).collect();
    let mut end = 0;
    let expected = parts.map(|(text, boundary)| {
        end += text.len();
        (end, boundary)
    });
    assert_eq!(check(text.as_bytes()), (expected.to_vec(), None));
}

#[test]
fn counts_levels() {
    for (stanza, levels) in [
        ("<a/>", 1),
        ("<a></a>", 1),
        ("<a><b/></a>", 2),
        ("<a><b/><b><c/></b></a>", 3),
        ("<a><b></b><b></b></a>", 2),
    ] {
        let mut scanner = Scanner::new();
        // The previous stanza does not count.
        for text in [OPEN, "<a><a><a><a/></a></a></a>", stanza] {
            let mut rest = text.as_bytes();
            while !rest.is_empty() {
                let (taken, _) = scanner.scan(rest).unwrap();
                rest = &rest[taken..];
            }
        }
        assert_eq!(scanner.levels(), levels, "{stanza}");
    }
}

#[test]
fn uses_constant_memory() {
    let mut scanner = Scanner::new();
    let mut feed = |text: &str| scanner.scan(text.as_bytes()).unwrap();
    feed("<?xml version='1.0'?>");
    feed("<s>");
    for _ in 0..100_000 {
        assert_eq!(feed("<a x='1' xmlns:é='&amp;'>text"), (30, None));
    }
    for _ in 1..100_000 {
        assert_eq!(feed("<![CDATA[]]]]></a>"), (18, None));
    }
    assert_eq!(feed("</a>"), (4, Some(Boundary::Stanza)));
    assert_eq!(feed("</s>"), (4, Some(Boundary::Closed)));
}

#[test]
fn end_tags_repeat_the_names_of_start_tags_at_any_depth() {
    let deep = |end: &str| {
        let (start, names) = ("<a><bb><c:c>".repeat(500), "</c:c></bb></a>".repeat(499));
        format!("{OPEN}{start}{end}{names}<z/>")
    };
    let (found, error) = scan([deep("</c:c></bb></a>").as_bytes()]);
    assert_eq!((found.len(), error), (4, None));
    for end in [
        "</c:c></a></bb>",
        "</bb></c:c></a>",
        "</c:c></bb></b>",
        "</c:></bb></a>",
        "</c:cc></b></a>",
    ] {
        let (found, error) = scan([deep(end).as_bytes()]);
        let expected = XmlError::Malformed("an end tag without a matching start tag");
        assert_eq!((found.len(), error), (2, Some(expected)), "{end}");
    }
    for text in [
        "</stream:streams>",
        "</stream>",
        "<a></b>",
        "<a><b></a></b>",
    ] {
        let (_, error) = check(format!("{OPEN}{text}<z/>").as_bytes());
        assert!(matches!(error, Some(XmlError::Malformed(_))), "{text}");
    }
}

/// Compares the UTF-8 check with that of the standard library.
#[test]
fn checks_utf_8_as_the_standard_library_does() {
    let bytes: Vec<u8> = (0x7E..=0x81)
        .chain([0x8F, 0x90, 0x9F, 0xA0, 0xBD, 0xBE, 0xBF])
        .chain([0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC, 0xED, 0xEE, 0xEF])
        .chain([0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF])
        .collect();
    let check = |text: &[u8]| {
        let valid = std::str::from_utf8(text).is_ok_and(|text| text.chars().all(is_xml_char));
        let stanza = [OPEN.as_bytes(), b"<a b='", text, b"'>x", text, b"</a>"].concat();
        let (found, error) = scan([&stanza[..]]);
        let expected = if valid { (3, None) } else { (2, error) };
        assert_eq!((found.len(), error), expected, "{text:?}");
        assert_eq!(error.is_none(), valid, "{text:?}");
    };
    for a in &bytes {
        check(&[*a]);
        for b in &bytes {
            check(&[*a, *b]);
            for c in &bytes {
                check(&[*a, *b, *c]);
                if *a >= 0xF0 {
                    for d in &bytes {
                        check(&[*a, *b, *c, *d]);
                    }
                }
            }
        }
    }
}

#[test]
fn references_are_those_of_xml() {
    for (reference, valid) in [
        ("&lt;", true),
        ("&quot;", true),
        ("&#9;", true),
        ("&#00000000000000000000000000000065;", true),
        ("&#x00000000000000000000000041;", true),
        ("&#xfFFd;", true),
        ("&#x10FFFF;", true),
        ("&#xFFFE;", false),
        ("&#xD800;", false),
        ("&#0;", false),
        ("&#1;", false),
        ("&#x110000;", false),
        ("&#4294967361;", false),
        ("&#x100000041;", false),
        ("&#X41;", false),
        ("&#x;", false),
        ("&#;", false),
        ("&;", false),
        ("&l;", false),
        ("&ltt;", false),
        ("&quott;", false),
        ("& lt;", false),
        ("&lt", false),
    ] {
        for stanza in [
            format!("<a>{reference}</a>"),
            format!("<a b='{reference}'/>"),
        ] {
            let (found, error) = check(format!("{OPEN}{stanza}").as_bytes());
            assert_eq!(
                (found.len() == 3, error.is_none()),
                (valid, valid),
                "{stanza}"
            );
        }
    }
}
