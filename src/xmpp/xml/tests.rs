//! Unit tests.

use super::super::element::COMPONENT;
use super::*;

const OPEN: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' \
                        xmlns:stream='http://etherx.jabber.org/streams' id='3BF96D32'>";

/// Parses the pieces; returns all events, and the error.
fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<XmlEvent>, Option<XmlError>) {
    let mut reader = Reader::new();
    let mut events = Vec::new();
    for piece in pieces {
        let mut rest = piece;
        loop {
            match reader.next_event(&mut rest) {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(
                        reader.next_event(&mut rest),
                        Err(error),
                        "an error is final"
                    );
                    return (events, Some(error));
                }
            }
            assert!(events.len() < 100_000);
        }
        assert!(rest.is_empty(), "all input is consumed");
        assert!(reader.kept.capacity() <= 2 * MAX_STANZA);
    }
    (events, None)
}

/// Parses the bytes whole, byte by byte, and split at every byte; all results must agree.
#[track_caller]
fn read_all_ways(bytes: &[u8]) -> (Vec<XmlEvent>, Option<XmlError>) {
    let whole = read([bytes]);
    assert_eq!(read(bytes.chunks(1)), whole, "byte by byte");
    if bytes.len() < 2000 {
        for at in 0..bytes.len() {
            let (a, b) = bytes.split_at(at);
            assert_eq!(read([a, b]), whole, "split at {at}");
        }
    }
    whole
}

/// Checks how a stanza is written after parsing.
#[track_caller]
fn check(stanza: &str, written: &str) {
    let (events, error) = read_all_ways(format!("{OPEN}{stanza}<after/>").as_bytes());
    assert_eq!(error, None, "{stanza}");
    let [
        XmlEvent::Opened(_),
        XmlEvent::Stanza(element),
        XmlEvent::Stanza(_),
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    let mut out = Vec::new();
    element.write(COMPONENT, &mut out);
    assert_eq!(String::from_utf8(out.clone()).unwrap(), written);

    // Parsing the output again gives the same element.
    let again = [OPEN.as_bytes(), &out].concat();
    let (events, error) = read([&again[..]]);
    assert_eq!(error, None);
    assert_eq!(events[1], XmlEvent::Stanza(element.clone()));
}

/// Checks that these bytes after the stream header are a fatal error.
#[track_caller]
fn check_error(stanza: impl AsRef<[u8]>, expected: fn(&'static str) -> XmlError) {
    let mut bytes = OPEN.as_bytes().to_vec();
    bytes.extend_from_slice(stanza.as_ref());
    bytes.extend_from_slice(b" <after/></stream:stream>");
    let (events, error) = read_all_ways(&bytes);
    let stanza = String::from_utf8_lossy(stanza.as_ref());
    let error = error.unwrap_or_else(|| panic!("no error in {stanza}: {events:?}"));
    let (XmlError::Malformed(what) | XmlError::Restricted(what)) = error;
    assert_eq!(error, expected(what), "{stanza}");
    assert_eq!(events.len(), 1, "{stanza}: {events:?}");
}

/// Checks that a stanza is skipped and the next one is parsed.
#[track_caller]
fn check_skipped(stanza: &str, expected: Why) -> Element {
    let (events, error) = read_all_ways(format!("{OPEN}{stanza} <after/>").as_bytes());
    let shown: String = stanza.chars().take(100).collect();
    assert_eq!(error, None, "{shown}");
    let [_, XmlEvent::Skipped(skipped), XmlEvent::Stanza(after)] = &events[..] else {
        panic!("{shown}: {events:?}");
    };
    assert!(after.is("after", COMPONENT));
    match (skipped.why, expected) {
        (Why::Names(_), Why::Names("")) => {}
        (why, expected) => assert_eq!(why, expected, "{shown}"),
    }
    assert!(skipped.stanza.children.is_empty());
    skipped.stanza.clone()
}

/// Stands for any violation of the namespace rules.
const NAMES: Why = Why::Names("");

#[test]
fn reads_a_stream_from_end_to_end() {
    let text = format!("{OPEN} \n<a/>\t<b x='1'>t</b>\r\n</stream:stream >trailing <<");
    let (events, error) = read_all_ways(text.as_bytes());
    assert_eq!(error, None);
    let [
        XmlEvent::Opened(root),
        XmlEvent::Stanza(a),
        XmlEvent::Stanza(b),
        XmlEvent::Closed,
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert!(root.is("stream", "http://etherx.jabber.org/streams"));
    assert_eq!(root.attribute("id"), Some("3BF96D32"));
    assert!(root.attributes.len() == 1 && root.children.is_empty());
    assert!(a.is("a", COMPONENT) && b.is("b", COMPONENT));
    assert_eq!(b.text(), "t");
}

#[test]
fn refuses_text_after_a_stanza() {
    let (events, error) = read_all_ways(format!("{OPEN}<a>x</a> text").as_bytes());
    assert_eq!(events.len(), 2);
    assert_eq!(error, Some(XmlError::Malformed("text outside a stanza")));
}

#[test]
fn accepts_every_form_of_tag_and_text() {
    check("<a/>", "<a/>");
    check("<a></a>", "<a/>");
    check("<a  x = '1'\n\ty=\"2\" />", "<a x='1' y='2'/>");
    check("<a x='>' y='/>'/>", "<a x='&gt;' y='/&gt;'/>");
    check("<a x='\"' y=\"'\"/>", "<a x='&quot;' y='&apos;'/>");
    check("<a x=''></a\n>", "<a x=''/>");
    check("<a>one<b/>two</a>", "<a>one<b/>two</a>");
    check("<a> \n </a>", "<a> \n </a>");
    check("<a>]] ></a>", "<a>]] &gt;</a>");
    check("<ü-1.2·/>", "<ü-1.2·/>");
    check("<a>😀 é</a>", "<a>😀 é</a>");
}

#[test]
fn resolves_references_and_sections() {
    check(
        "<a>&lt;&gt;&amp;&apos;&quot;</a>",
        "<a>&lt;&gt;&amp;'\"</a>",
    );
    check("<a>&#65;&#x41;&#x1F600;</a>", "<a>AA😀</a>");
    check("<a>&amp;lt;&amp;amp;</a>", "<a>&amp;lt;&amp;amp;</a>");
    check(
        "<a x='&lt;&amp;&gt;&apos;&quot;&#65;'/>",
        "<a x='&lt;&amp;&gt;&apos;&quot;A'/>",
    );
    check("<a x='&amp;amp;'/>", "<a x='&amp;amp;'/>");
    check(
        "<a><![CDATA[<b>&amp;]]]]></a>",
        "<a>&lt;b&gt;&amp;amp;]]</a>",
    );
    check("<a>x<![CDATA[y]]>z<![CDATA[]]></a>", "<a>xyz</a>");
    check("<a><![CDATA[]]></a>", "<a/>");
    check("<a><![CDATA[]>]]]></a>", "<a>]&gt;]</a>");
}

#[test]
fn normalises_line_ends_and_white_space() {
    check("<a>1\r\n2\r3\n4&#13;5</a>", "<a>1\n2\n3\n4&#13;5</a>");
    check("<a><![CDATA[1\r\n2]]></a>", "<a>1\n2</a>");
    check(
        "<a x='1\r\n2\r3\n4\t5&#13;&#10;&#9;6'/>",
        "<a x='1 2 3 4 5&#13;&#10;&#9;6'/>",
    );
}

#[test]
fn resolves_namespaces() {
    check("<p:a xmlns:p='n'/>", "<a xmlns='n'/>");
    check(
        "<p:a xmlns:p='n'><b/><p:c/></p:a>",
        "<a xmlns='n'><b xmlns='jabber:component:accept'/><c/></a>",
    );
    check(
        "<a xmlns='n'><b xmlns=''><c/></b><d/></a>",
        "<a xmlns='n'><b xmlns=''><c/></b><d/></a>",
    );
    check(
        "<a xmlns:p='1'><p:b xmlns:p='2'/><p:c/></a>",
        "<a><b xmlns='2'/><c xmlns='1'/></a>",
    );
    check("<a xml:lang='en'/>", "<a xml:lang='en'/>");
    check(
        "<a xmlns:xml='http://www.w3.org/XML/1998/namespace' xml:lang='en'/>",
        "<a xml:lang='en'/>",
    );
    check(
        "<a p:x='1' x='2' xmlns:p='n'/>",
        "<a xmlns:ns0='n' ns0:x='1' x='2'/>",
    );
    check("<a xmlnsx='1'/>", "<a xmlnsx='1'/>");
    check(
        "<stream:a/>",
        "<a xmlns='http://etherx.jabber.org/streams'/>",
    );
    check("<a xmlns='a&amp;b'/>", "<a xmlns='a&amp;b'/>");
}

#[test]
fn rejects_malformed_xml() {
    for stanza in [
        "text",
        "&amp;",
        "<![CDATA[x]]>",
        "<>",
        "</>",
        "< a/>",
        "<a",
        "<<a/>",
        "<a<b/>",
        "<a/ >",
        "<a//>",
        "<a / >",
        "<a/b>",
        "<1/>",
        "<-a/>",
        "<a!/>",
        "<a x/>",
        "<a x=1/>",
        "<a x='1/>",
        "<a x='1'y='2'/>",
        "<a x='<'/>",
        "<a 'x'/>",
        "<a x='1''/>",
        "<a ='1'/>",
        "<a x='1' x='2'/>",
        "<a 1='1'/>",
        "<a x=='1'/>",
        "<a></b>",
        "<a></ a>",
        "<a></a x='1'>",
        "<a></a/>",
        "</a>",
        "<a></A>",
        "<p:a xmlns:p='n'></a>",
        "<a>]]></a>",
        "<a>&</a>",
        "<a>& </a>",
        "<a>&amp</a>",
        "<a>&amp<b/>;</a>",
        "<a>&#;</a>",
        "<a>&#x;</a>",
        "<a>&#+65;</a>",
        "<a>&#xG;</a>",
        "<a>&#65 ;</a>",
        "<a>&;</a>",
        "<a xmlns='1' xmlns='2'/>",
        "<a xmlns:p='1' xmlns:p='2'/>",
        "<a xml:lang='en' xml:lang='de'/>",
        "<a><b></a></b>",
        "<a><b></c></b></a>",
        "<a><a></b></a>",
        "<a>&#x110000;</a>",
        "<a>&#xD800;</a>",
        "<a x='&'/>",
        "<a x='&#99999999999;'/>",
    ] {
        check_error(stanza, XmlError::Malformed);
    }
}

#[test]
fn refuses_characters_that_xml_forbids() {
    for c in ["\u{0}", "\u{1}", "\u{B}", "\u{1F}", "\u{FFFE}", "\u{FFFF}"] {
        check_error(format!("<a>{c}</a>"), XmlError::Malformed);
        check_error(format!("<a x='{c}'/>"), XmlError::Malformed);
        check_error(format!("<a><![CDATA[{c}]]></a>"), XmlError::Malformed);
        check_error(c, XmlError::Malformed);
        let reference = format!("&#{};", u32::from(c.chars().next().unwrap()));
        check_error(format!("<a>{reference}</a>"), XmlError::Malformed);
        check_error(format!("<a x='{reference}'/>"), XmlError::Malformed);
    }
    for bytes in [
        &b"\xFF"[..],
        b"\xC3",
        b"\xC0\x80",
        b"\xED\xA0\x80",
        b"\xF8\x88\x80\x80\x80",
    ] {
        check_error([b"<a>", bytes, b"</a>"].concat(), XmlError::Malformed);
        check_error([b"<a x='", bytes, b"'/>"].concat(), XmlError::Malformed);
        check_error([b"<a", bytes, b"/>"].concat(), XmlError::Malformed);
    }
}

#[test]
fn skips_invalid_names_and_namespaces() {
    for stanza in [
        "<p:a/>",
        "<a p:x='1'/>",
        "<a xmlns:p=''/>",
        "<a xmlns:='n'/>",
        "<a xmlns:1='n'/>",
        "<:a/>",
        "<a:/>",
        "<xmlns:a/>",
        "<a xmlns:p:q='n'/>",
        "<p:q:a xmlns:p='n'/>",
        "<a :x='1'/>",
        "<a xmlns:xml='n'/>",
        "<a xmlns:xmlns='n'/>",
        "<a xmlns:p='http://www.w3.org/XML/1998/namespace'/>",
        "<a xmlns='http://www.w3.org/XML/1998/namespace'/>",
        "<a xmlns='http://www.w3.org/2000/xmlns/'/>",
        "<a xmlns:p='http://www.w3.org/2000/xmlns/'/>",
        "<a xmlns:p='n' xmlns:q='n' p:x='1' q:x='2'/>",
        "<a><b xmlns:p='n'/><p:c/></a>",
        "<a\u{2190}/>",
        "<a \u{2190}='1'/>",
        "<\u{B7}/>",
        // As Prosody writes `<xml:y xml:z='1'/>`.
        "<a><y xmlns='http://www.w3.org/XML/1998/namespace'/></a>",
        "<a><y xmlns:ns1='http://www.w3.org/XML/1998/namespace' ns1:z='1' xml:lang='en'/></a>",
        // As ejabberd writes `<message xmlns:q='u'><q:y q:a='1'/></message>`.
        "<a><y xmlns='u' q:a='1'/></a>",
    ] {
        check_skipped(stanza, NAMES);
    }
    let declared: String = (0..100).map(|n| format!(" xmlns:p{n}='n'")).collect();
    check_skipped(&format!("<a{declared}/>"), NAMES);
    // Declarations in a stanza do not apply to the next one.
    let (events, _) = read_all_ways(format!("{OPEN}<a xmlns:p='n' :x=''/><p:b/>").as_bytes());
    assert!(matches!(&events[2], XmlEvent::Skipped(_)), "{events:?}");
}

#[test]
fn a_skipped_stanza_has_the_attributes_for_a_reply() {
    let big = "x".repeat(MAX_STANZA);
    let iq = "<iq type='get' id='a&amp;b' from='a@b/&lt;' to='u.x' xml:lang='en' p:id='z'";
    let expected = [
        ("type", "get"),
        ("id", "a&b"),
        ("from", "a@b/<"),
        ("to", "u.x"),
    ];
    let attributes = |stanza: &Element| -> Vec<(String, String)> {
        let pairs = stanza.attributes.iter();
        pairs
            .map(|a| (a.name.to_string(), a.value.clone()))
            .collect()
    };
    let owned = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    for (stanza, why) in [
        (format!("{iq}/>"), NAMES),
        (format!("{iq}><b/></iq>"), NAMES),
        (
            format!("{iq}><b>= 'b' from='evil' id='evil'</b></iq>"),
            NAMES,
        ),
        (format!("{iq}>= 'b' from='evil' id='evil'</iq>"), NAMES),
        (format!("{iq} x='>'>{big}</iq>"), Why::TooLarge),
        (format!("{iq} x='{big}'/>"), Why::TooLarge),
        (format!("{iq} x='é{big}' y='1'>é</iq>"), Why::TooLarge),
        (
            format!(
                "{}{}{}</iq>",
                iq.replace(" p:id='z'", ">"),
                "<x>".repeat(40),
                "</x>".repeat(40)
            ),
            Why::TooDeep,
        ),
    ] {
        let skipped = check_skipped(&stanza, why);
        assert!(skipped.is("iq", COMPONENT), "{skipped:?}");
        assert_eq!(attributes(&skipped), owned);
    }
    // Attributes too far from the start, or too long, are missing.
    let late = check_skipped(&format!("<iq x='{big}' id='1' from='a@b'/>"), Why::TooLarge);
    assert_eq!(attributes(&late), []);
    let (id, from) = ("i".repeat(MAX_ID), "f".repeat(MAX_ADDRESS));
    check(
        &format!("<iq id='{id}' from='{from}'/>"),
        &format!("<iq id='{id}' from='{from}'/>"),
    );
    let long = check_skipped(&format!("<iq id='{id}i' from='{from}'/>"), Why::LongAddress);
    assert_eq!(attributes(&long), [("from".to_owned(), from.clone())]);
    let long = check_skipped(
        &format!("<iq from='{from}&apos;' id='{id}'/>"),
        Why::LongAddress,
    );
    assert_eq!(attributes(&long), [("id".to_owned(), id)]);
    let long = check_skipped(&format!("<iq to='{from}é' type='{big}'/>"), Why::TooLarge);
    assert_eq!(attributes(&long), []);
    // Its namespace is known as well.
    for (stanza, name, namespace) in [
        ("<iq xmlns='jabber:client' p:x=''/>", "iq", "jabber:client"),
        ("<iq xmlns='&amp;' p:x=''/>", "iq", "&"),
        ("<p:iq/>", "p:iq", COMPONENT),
    ] {
        assert!(check_skipped(stanza, NAMES).is(name, namespace), "{stanza}");
    }
    let far = check_skipped(&format!("<iq xmlns='{from}' p:x=''/>"), NAMES);
    assert!(far.is("iq", ""));
    let named = check_skipped(&format!("<{from} p:x=''/>"), NAMES);
    assert!(named.is("", COMPONENT));
}

#[test]
fn refuses_what_xmpp_forbids() {
    for stanza in [
        "<!-- c -->",
        "<a><!-- c --></a>",
        "<?pi?>",
        "<a><?pi x?></a>",
        "<?xml version='1.0'?>",
        "<!DOCTYPE a>",
        "<!ENTITY a 'b'>",
        "<a><![cdata[x]]></a>",
        "<a><![INCLUDE[x]]></a>",
        "<a>&nbsp;</a>",
        "<a x='&foo;'/>",
        "<a>&AMP;</a>",
        "<a>&ltx;</a>",
    ] {
        check_error(stanza, XmlError::Restricted);
    }
    for start in [
        "<?xml-stylesheet?><s>",
        "<?pi x?><s>",
        " <?xml version='1.0'?><s>",
    ] {
        let (events, error) = read_all_ways(start.as_bytes());
        assert!(events.is_empty());
        assert!(
            matches!(error, Some(XmlError::Restricted(_))),
            "{start}: {error:?}"
        );
    }
}

#[test]
fn accepts_only_declarations_of_utf_8() {
    for (declaration, valid) in [
        ("", true),
        ("\n ", true),
        ("<?xml version='1.0'?>", true),
        (
            "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone='yes'?>\n",
            true,
        ),
        ("<?xml version='1.0' encoding='utf-8' ?>", true),
        ("<?xml version='1.1'?>", false),
        ("<?xml version='1.0' encoding='latin1'?>", false),
        ("<?xml encoding='utf-8'?>", false),
        ("<?xml version='1.0' version='1.0'?>", false),
        ("<?xml version='1.0' x?>", false),
        ("\u{FEFF}", false),
        ("x", false),
        ("</a>", false),
        ("<a/>", false),
    ] {
        let (events, error) = read_all_ways(format!("{declaration}<s>").as_bytes());
        assert_eq!(
            (events.len(), error.is_none()),
            (valid.into(), valid),
            "{declaration}"
        );
    }
}

/// A stanza of exactly `size` bytes.
fn stanza_of(size: usize, filler: &str) -> String {
    let (start, end) = ("<a>", "</a>");
    let count = (size - start.len() - end.len()) / filler.len();
    let mut stanza = format!("{start}{}", filler.repeat(count));
    stanza.push_str(&"x".repeat(size - stanza.len() - end.len()));
    stanza.push_str(end);
    stanza
}

#[test]
fn skips_beyond_the_limit_of_a_stanza_to_the_byte() {
    for filler in ["x", "<b/>", "<![CDATA[]]>", "&lt;", "<b xmlns='n'>é</b>"] {
        let stanza = stanza_of(MAX_STANZA, filler);
        let twice = format!("{OPEN}{stanza}  {stanza}");
        let (events, error) = read_all_ways(twice.as_bytes());
        assert_eq!((events.len(), error), (3, None), "{filler}");
        let read = |event: &XmlEvent| matches!(event, XmlEvent::Stanza(_));
        assert!(events[1..].iter().all(read), "{filler}");
        check_skipped(&stanza_of(MAX_STANZA + 1, filler), Why::TooLarge);
    }
    // An endless stanza is not an error and uses no memory.
    let x = "x".repeat(3 * MAX_STANZA);
    for start in [
        "<",
        "<a ",
        "<a x='",
        "<a></",
        "<a><![CDATA[",
        "<a>",
        "<a>&#",
        "<a>&#x",
    ] {
        let x = if start.ends_with(['#', 'x']) {
            x.replace('x', "0")
        } else {
            x.clone()
        };
        let (events, error) = read_all_ways(format!("{OPEN}{start}{x}").as_bytes());
        assert_eq!((events.len(), error), (1, None), "{start}");
    }
    // Errors are detected in skipped stanzas as well.
    for end in [
        "<!-- -->",
        "&nbsp;",
        "\u{1}",
        "</b>",
        "]]>",
        "<b x=1>",
        "<?a?>",
        "<b></c></a>",
    ] {
        check_error(
            format!("<a>{x}{end}"),
            match end {
                "<!-- -->" | "&nbsp;" | "<?a?>" => XmlError::Restricted,
                _ => XmlError::Malformed,
            },
        );
    }
    check_error(
        [b"<a>", x.as_bytes(), b"\xFF</a>"].concat(),
        XmlError::Malformed,
    );
    for start in [
        format!("<?xml {x}"),
        format!("<s x='{x}'>"),
        format!("<s x='{x}"),
    ] {
        let (_, error) = read_all_ways(start.as_bytes());
        let what = "a stream header of more than 64 KiB";
        assert_eq!(error, Some(XmlError::Malformed(what)));
    }
}

#[test]
fn skips_beyond_the_limit_of_levels() {
    let nested = |levels| format!("{}{}", "<a>".repeat(levels), "</a>".repeat(levels));
    let most = usize::try_from(MAX_DEPTH).unwrap();
    let (events, error) = read_all_ways(format!("{OPEN}{}", nested(most)).as_bytes());
    assert_eq!((events.len(), error), (2, None));
    assert!(matches!(events[1], XmlEvent::Stanza(_)));
    check_skipped(&nested(most + 1), Why::TooDeep);
    check_skipped(&nested(20_000), Why::TooLarge);
    let inside = |child: &str| nested(most).replace("<a></a>", &format!("<a>{child}</a>"));
    check_skipped(&inside("<b/>"), Why::TooDeep);
    check_skipped(&inside("<b></b>"), Why::TooDeep);
}

#[test]
fn drops_white_space_between_stanzas_at_once() {
    let mut reader = Reader::new();
    assert!(reader.next_event(&mut OPEN.as_bytes()).unwrap().is_some());
    for _ in 0..1000 {
        assert_eq!(reader.next_event(&mut &[b' '; 1024][..]), Ok(None));
        assert_eq!(reader.kept.len(), 0);
    }
}

#[test]
fn shares_a_long_namespace_among_children() {
    let stanza = format!(
        "<a xmlns='{}'>{}</a>",
        "n".repeat(30_000),
        "<b/>".repeat(8_000)
    );
    let (events, _) = read([OPEN.as_bytes(), stanza.as_bytes()]);
    let XmlEvent::Stanza(element) = &events[1] else {
        panic!("no stanza");
    };
    assert!(
        element
            .elements()
            .all(|b| b.namespace.as_ptr() == element.namespace.as_ptr())
    );
    assert!(element.weight() > 200_000_000);
}

#[test]
fn is_not_slow_with_many_attributes_and_prefixes() {
    // Quadratic time would be seconds instead of milliseconds.
    let attributes: String = (0..6_000).map(|n| format!(" a{n}=''")).collect();
    let (events, error) = read([OPEN.as_bytes(), format!("<a{attributes}/>").as_bytes()]);
    assert_eq!((events.len(), error), (2, None));
    let declared: String = (0..60).map(|n| format!(" xmlns:p{n}='n'")).collect();
    let used = "<p0:b/>".repeat(8_000);
    let (events, error) = read([
        OPEN.as_bytes(),
        format!("<a{declared}>{used}</a>").as_bytes(),
    ]);
    assert_eq!((events.len(), error), (2, None));
}

#[test]
fn never_panics_and_never_depends_on_the_split() {
    let corpus = [
        "<iq type='get' id='1' to='u.x' from='a@b/c'><query xmlns='n'/></iq>",
        "<p:a xmlns:p='n' p:x='&lt;&#65;' xml:lang=\"en\">t&amp;<![CDATA[<x>]]]>]]><b/></p:a>",
        "<message><body>é😀\r\n</body></message> \n <presence/>",
        "<stream:error><conflict xmlns='e'/></stream:error></stream:stream>",
    ];
    let spice: &[&[u8]] = &[
        b"<",
        b">",
        b"/",
        b"'",
        b"\"",
        b"&",
        b";",
        b"]",
        b"!",
        b"?",
        b"=",
        b":",
        b"]]>",
        b"<![CDATA[",
        b"<a>",
        b"</a>",
        b"&#0;",
        b"xmlns",
        b" xmlns:p='q'",
        b"\0",
        b"\xFF",
        b"\xC3",
        b" ",
        b"-->",
    ];
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % below as u64).unwrap()
    };
    let (mut valid, mut faulty) = (0, 0);
    for _ in 0..8_000 {
        let mut bytes = OPEN.as_bytes().to_vec();
        let from = bytes.len();
        bytes.extend_from_slice(corpus[next(corpus.len())].as_bytes());
        bytes.extend_from_slice(corpus[next(corpus.len())].as_bytes());
        for _ in 0..=next(3) {
            let at = from + next(bytes.len() - from);
            match next(3) {
                0 => drop(bytes.remove(at)),
                1 => bytes[at] = spice[next(spice.len())][0],
                _ => drop(bytes.splice(at..at, spice[next(spice.len())].iter().copied())),
            }
        }
        let whole = read([&bytes[..]]);
        assert_eq!(read(bytes.chunks(1)), whole);
        let at = next(bytes.len());
        assert_eq!(read([&bytes[..at], &bytes[at..]]), whole);
        for event in &whole.0 {
            let XmlEvent::Stanza(element) = event else {
                continue;
            };
            let mut out = OPEN.as_bytes().to_vec();
            element.write(COMPONENT, &mut out);
            let (again, error) = read([&out[..]]);
            assert_eq!(error, None);
            assert_eq!(again[1], *event);
        }
        match whole.1 {
            None => valid += 1,
            Some(_) => faulty += 1,
        }
    }
    assert!(
        valid > 200 && faulty > 2_000,
        "{valid} sound, {faulty} faulty"
    );
}
