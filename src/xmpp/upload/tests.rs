//! Unit tests.

use std::time::Duration;

use super::super::element::COMPONENT;
use super::super::tests::{parse, written};
use super::*;

/// 2026-01-01T00:00:00Z.
const NOW: u64 = 1_767_225_600;
const ALL: [&str; 4] = ["message", "profile", "ephemeral", "permanent"];

fn slot_iq(request: &str, purposes: &[&str]) -> SlotIq {
    let payload = parse(request);
    let namespace = namespace(&payload).expect("a slot request");
    let answer = Element::new("iq", COMPONENT).with("id", "1");
    let owner = BareJid::parse("romeo@montague.tld").unwrap();
    SlotIq::read(payload, namespace, answer, owner, true, purposes, NOW)
}

/// Checks the fields of a well-formed request.
#[track_caller]
fn check(request: &str, name: &str, size: u64, content_type: Option<&str>, purpose: Purpose) {
    let read = slot_iq(request, &ALL).request;
    let expected = SlotRequest {
        owner: BareJid::parse("romeo@montague.tld").unwrap(),
        name: name.to_owned(),
        size,
        content_type: content_type.map(str::to_owned),
        purpose,
    };
    assert_eq!(read, Ok(expected), "{request}");
}

/// Checks that a request is malformed and that the message contains a word.
#[track_caller]
fn check_malformed(request: &str, word: &str) {
    match slot_iq(request, &ALL).request {
        Err(Refusal::Malformed(how)) => {
            assert!(how.contains(word) && how.ends_with('.'), "{request}: {how}")
        }
        other => panic!("{request}: {other:?}"),
    }
}

#[test]
fn reads_both_syntaxes_in_every_namespace() {
    for namespace in [UPLOAD_0, UPLOAD, UPLOAD_CONVERSATIONS] {
        let message = Purpose::Message;
        check(
            &format!(
                "<request xmlns='{namespace}' filename='très cool.jpg' size='23456' content-type='image/jpeg'/>"
            ),
            "très cool.jpg",
            23456,
            Some("image/jpeg"),
            message,
        );
        check(
            &format!(
                "<request xmlns='{namespace}'>\n <filename> très cool.jpg\n</filename><size>\t23456 </size>\
                     <content-type> image/jpeg </content-type></request>"
            ),
            "très cool.jpg",
            23456,
            Some("image/jpeg"),
            message,
        );
        check(
            &format!("<up:request xmlns:up='{namespace}' filename='a' size='1'>\n  </up:request>"),
            "a",
            1,
            None,
            message,
        );
        check(
            &format!(
                "<up:request xmlns:up='{namespace}'><up:size>1</up:size><q:filename xmlns:q='{namespace}'>\
                     <![CDATA[a&b]]>&lt;</q:filename></up:request>"
            ),
            "a&b<",
            1,
            None,
            message,
        );
    }
}

#[test]
fn keeps_the_name_and_ignores_an_empty_type() {
    let request = |rest: &str| format!("<request xmlns='{UPLOAD_0}' {rest}/>");
    for (rest, name, size, content_type) in [
        ("filename=' a ' size='1'", " a ", 1, None),
        ("filename='a/../b' size='1'", "a/../b", 1, None),
        ("filename='&lt;&#x1F600;&amp;' size='1'", "<😀&", 1, None),
        ("filename='a' size=' 007 '", "a", 7, None),
        ("filename='a' size='1' content-type=''", "a", 1, None),
        ("filename='a' size='1' content-type='  '", "a", 1, None),
        (
            "filename='a' size='1' content-type=' t/s; c=u '",
            "a",
            1,
            Some("t/s; c=u"),
        ),
        (
            "filename='a' size='18446744073709551615'",
            "a",
            u64::MAX,
            None,
        ),
        (
            "filename='a' size='18446744073709551616'",
            "a",
            u64::MAX,
            None,
        ),
        (
            "filename='a' size='99999999999999999999999999999'",
            "a",
            u64::MAX,
            None,
        ),
    ] {
        check(&request(rest), name, size, content_type, Purpose::Message);
    }
    // Attributes of other namespaces are ignored.
    check_malformed(
        &format!("<request xmlns='{UPLOAD_0}' xmlns:p='n' p:filename='a' size='1'/>"),
        "name",
    );
}

#[test]
fn refuses_a_request_without_a_name_or_a_size() {
    for (rest, word) in [
        ("", "name"),
        ("size='1'", "name"),
        ("filename='' size='1'", "name"),
        ("filename=' &#9;&#10; ' size='1'", "name"),
        ("filename='a'", "size is missing"),
        ("filename='a' size=''", "not a number"),
        ("filename='a' size='0'", "empty"),
        ("filename='a' size='000'", "empty"),
        ("filename='a' size='-1'", "not a number"),
        ("filename='a' size='+1'", "not a number"),
        ("filename='a' size='1.5'", "not a number"),
        ("filename='a' size='1e3'", "not a number"),
        ("filename='a' size='0x10'", "not a number"),
        ("filename='a' size='1 2'", "not a number"),
        ("filename='a' size='١'", "not a number"),
        ("filename='a' size='many'", "not a number"),
    ] {
        check_malformed(&format!("<request xmlns='{UPLOAD_0}' {rest}/>"), word);
    }
    for (inner, word) in [
        ("", "name"),
        (" ", "name"),
        ("<filename/><size>1</size>", "name"),
        ("<filename> </filename><size>1</size>", "name"),
        ("<filename>a</filename>", "size is missing"),
        ("<filename>a</filename><size/>", "not a number"),
        ("<filename>a</filename><size>0</size>", "empty"),
        (
            "<filename>a</filename><size xmlns='n'>1</size>",
            "size is missing",
        ),
    ] {
        check_malformed(
            &format!("<request xmlns='{UPLOAD}'>{inner}</request>"),
            word,
        );
    }
    // With mixed syntaxes, only one of them is read.
    check_malformed(
        &format!("<request xmlns='{UPLOAD_0}' filename='a'><size>1</size></request>"),
        "size is missing",
    );
}

fn with_purpose(namespace: &str, purpose: &str) -> String {
    format!("<request xmlns='{namespace}' filename='a' size='1'>\n{purpose}</request>")
}

#[test]
fn reads_purposes() {
    let word = |word: &str| format!("<{word} xmlns='{PURPOSE}'/>");
    let until = |stamp: &str| format!("<ephemeral xmlns='{PURPOSE}' expire-before='{stamp}'/>");
    for (purpose, expected) in [
        (String::new(), Purpose::Message),
        (
            "<profile xmlns='n'/><profile/>".to_owned(),
            Purpose::Message,
        ),
        (word("message"), Purpose::Message),
        (word("profile"), Purpose::Profile),
        (word("permanent"), Purpose::Permanent),
        (
            format!("<p:profile xmlns:p='{PURPOSE}'/>"),
            Purpose::Profile,
        ),
        (
            until("2026-01-01T00:00:01Z"),
            Purpose::Ephemeral {
                expire_before: NOW + 1,
            },
        ),
        (
            until(" 2026-01-02T00:00:00.999+01:00 "),
            Purpose::Ephemeral {
                expire_before: NOW + 23 * 3600,
            },
        ),
    ] {
        for namespace in [UPLOAD_0, UPLOAD, UPLOAD_CONVERSATIONS] {
            check(&with_purpose(namespace, &purpose), "a", 1, None, expected);
        }
    }
    for (purpose, part) in [
        (word("message") + &word("profile"), "More than one"),
        (word("profile") + &word("profile"), "More than one"),
        (word("holiday"), "unknown"),
        (word("ephemeral"), "needs the attribute"),
        (until(""), "XEP-0082"),
        (until("tomorrow"), "XEP-0082"),
        (until("1767225601"), "XEP-0082"),
        (until("2026-01-01T00:00:00Z"), "past"),
        (until("2026-01-01T00:00:00.5Z"), "past"),
        (until("2026-01-01T00:59:59+01:00"), "past"),
        (until("1776-07-04T00:00:00Z"), "past"),
    ] {
        check_malformed(&with_purpose(UPLOAD_0, &purpose), part);
    }
}

#[test]
fn refuses_purposes_that_are_not_announced() {
    let asks = |word: &str, announced: &[&str]| {
        let purpose = format!("<{word} xmlns='{PURPOSE}' expire-before='2027-01-01T00:00:00Z'/>");
        slot_iq(&with_purpose(UPLOAD_0, &purpose), announced).request
    };
    for word in ["profile", "ephemeral", "permanent"] {
        let Err(Refusal::Malformed(how)) = asks(word, &["message"]) else {
            panic!("{word} is taken");
        };
        assert_eq!(how, format!("The purpose {word} is not offered here."));
        assert!(asks(word, &[word]).is_ok());
    }
    assert!(
        asks("message", &[]).is_ok(),
        "the default is always accepted"
    );
}

#[test]
fn refuses_an_iq_of_type_set() {
    let payload = parse(&format!(
        "<request xmlns='{UPLOAD_0}' filename='a' size='1'/>"
    ));
    let answer = Element::new("iq", COMPONENT);
    let owner = BareJid::parse("a@b").unwrap();
    let iq = SlotIq::read(payload, UPLOAD_0, answer, owner, false, &ALL, NOW);
    assert!(matches!(iq.request, Err(Refusal::Malformed(_))));
}

#[test]
fn recognises_slot_requests() {
    for (xml, is_one) in [
        ("<request xmlns='urn:xmpp:http:upload:0'/>", true),
        ("<request xmlns='urn:xmpp:http:upload'/>", true),
        (
            "<request xmlns='eu:siacs:conversations:http:upload'/>",
            true,
        ),
        ("<request xmlns='urn:xmpp:http:upload:1'/>", false),
        ("<slot xmlns='urn:xmpp:http:upload:0'/>", false),
        ("<request/>", false),
    ] {
        assert_eq!(namespace(&parse(xml)).is_some(), is_one, "{xml}");
    }
}

#[test]
fn the_reply_uses_the_syntax_of_the_request() {
    let slot = Slot {
        put: "https://u.x/p?a=1&b='2'".to_owned(),
        get: "https://u.x/g".to_owned(),
    };
    for namespace in [UPLOAD_0, UPLOAD, UPLOAD_CONVERSATIONS] {
        let iq = slot_iq(
            &format!("<request xmlns='{namespace}' filename='a' size='1'/>"),
            &[],
        );
        assert_eq!(
            written(&iq.granted(slot.clone())),
            format!(
                "<iq id='1' type='result'><slot xmlns='{namespace}'>\
                     <put url='https://u.x/p?a=1&amp;b=&apos;2&apos;'/><get url='https://u.x/g'/></slot></iq>"
            )
        );
        let iq = slot_iq(
            &format!(
                "<p:request xmlns:p='{namespace}'><p:filename>a</p:filename><p:size>1</p:size></p:request>"
            ),
            &[],
        );
        assert_eq!(
            written(&iq.granted(slot.clone())),
            format!(
                "<iq id='1' type='result'><slot xmlns='{namespace}'>\
                     <put>https://u.x/p?a=1&amp;b='2'</put><get>https://u.x/g</get></slot></iq>"
            )
        );
    }
}

fn refusals() -> Vec<Refusal> {
    let owner = BareJid::parse("romeo@montague.tld").unwrap();
    vec![
        Refusal::Malformed("No <name>.".to_owned()),
        Refusal::NotAllowed { owner },
        Refusal::TooLarge { size: 9, limit: 8 },
        Refusal::TypeNotAllowed {
            content_type: "a/b".to_owned(),
        },
        Refusal::OwnerQuota {
            size: 9,
            stored: 8,
            limit: 10,
            retry: None,
        },
        Refusal::OwnerQuota {
            size: 9,
            stored: 8,
            limit: 10,
            retry: Some(UNIX_EPOCH + Duration::from_millis(1_512_344_524_001)),
        },
        Refusal::GlobalQuota {
            size: 9,
            stored: 8,
            limit: 10,
        },
        Refusal::FreeSpace {
            size: 9,
            free: 8,
            reserve: 7,
        },
        Refusal::Busy,
    ]
}

/// Checks type, condition and detail of the error for every refusal.
#[track_caller]
fn check_refusals(namespace: &str, expected: &[(&str, &str, &str)]) {
    let request = format!("<request xmlns='{namespace}' filename='a' size='1'/>");
    let iq = slot_iq(&request, &[]);
    let refusals = refusals();
    assert_eq!(refusals.len(), expected.len());
    for (refusal, (kind, condition, detail)) in refusals.iter().zip(expected) {
        let mut text = Vec::new();
        Element::new("t", COMPONENT)
            .with_text(refusal.to_string())
            .write(COMPONENT, &mut text);
        let text = String::from_utf8(text).unwrap();
        let text = &text["<t>".len()..text.len() - "</t>".len()];
        assert_eq!(
            written(&iq.clone().refused(refusal)),
            format!(
                "<iq id='1' type='error'>{request}<error type='{kind}'>\
                     <{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>\
                     <text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas' xml:lang='en'>{text}</text>\
                     {detail}</error></iq>"
            )
        );
    }
}

#[test]
fn maps_every_refusal_to_its_error() {
    for namespace in [UPLOAD_0, UPLOAD, UPLOAD_CONVERSATIONS] {
        let too_large = format!(
            "<file-too-large xmlns='{namespace}'><max-file-size>8</max-file-size></file-too-large>"
        );
        let (kind, condition) = match namespace {
            UPLOAD_0 => ("auth", "forbidden"),
            _ => ("cancel", "not-allowed"),
        };
        check_refusals(
            namespace,
            &[
                ("modify", "bad-request", ""),
                (kind, condition, ""),
                ("modify", "not-acceptable", &too_large),
                ("modify", "not-acceptable", ""),
                ("wait", "resource-constraint", ""),
                (
                    "wait",
                    "resource-constraint",
                    "<retry xmlns='urn:xmpp:http:upload:0' stamp='2017-12-03T23:42:05Z'/>",
                ),
                ("wait", "resource-constraint", ""),
                ("wait", "resource-constraint", ""),
                ("wait", "resource-constraint", ""),
            ],
        );
    }
}

#[test]
fn errors_repeat_only_small_requests() {
    let long = "n".repeat(3_000);
    let request = |children: usize| {
        format!(
            "<request xmlns='{UPLOAD_0}' xmlns:p='{long}' filename='a' size='1'>{}</request>",
            "<p:a/>".repeat(children)
        )
    };
    let refused = |children| written(&slot_iq(&request(children), &[]).refused(&Refusal::Busy));
    assert!(refused(1).contains("<request "));
    let bounded = refused(8_000);
    assert!(!bounded.contains("<request ") && bounded.len() < 1_000);
    assert!(bounded.contains("<error type='wait'>"));
}

#[track_caller]
fn check_date(text: &str, seconds: Option<i64>) {
    assert_eq!(parse_date_time(text), seconds, "{text}");
}

#[test]
fn parses_date_times() {
    for (text, seconds) in [
        ("1970-01-01T00:00:00Z", 0),
        ("1969-07-21T02:56:15Z", -14_159_025),
        ("1969-07-20T21:56:15-05:00", -14_159_025),
        ("2002-09-10T23:41:07Z", 1_031_701_267),
        (
            "2002-09-10T23:41:07.123456789012345678901234567890Z",
            1_031_701_267,
        ),
        ("2017-12-03T23:42:05Z", 1_512_344_525),
        ("2000-02-29T12:00:00+00:00", 951_825_600),
        ("2000-02-29T12:00:00-00:00", 951_825_600),
        ("2000-02-29T12:00:00.0+05:30", 951_825_600 - 19_800),
        ("2000-02-29T12:00:00-14:00", 951_825_600 + 50_400),
        ("2038-01-19T03:14:08Z", 2_147_483_648),
        ("9999-12-31T23:59:59Z", 253_402_300_799),
        ("0001-01-01T00:00:00Z", -62_135_596_800),
    ] {
        check_date(text, Some(seconds));
    }
}

#[test]
fn rejects_invalid_date_times() {
    let good = "2026-12-31T23:59:59.5+01:00";
    assert!(parse_date_time(good).is_some());
    for end in 0..good.len() {
        check_date(&good[..end], None);
    }
    for text in [
        "2026-12-31T23:59:59",
        "2026-12-31 23:59:59Z",
        "2026-12-31t23:59:59z",
        "2026-12-31T23:59:59z",
        "2026-12-31T23:59:59Zx",
        "x2026-12-31T23:59:59Z",
        " 2026-12-31T23:59:59Z",
        "2026-12-31T23:59:59.Z",
        "2026-12-31T23:59:59,5Z",
        "2026-12-31T23:59:59.5",
        "2026-12-31T23:59:59.5.5Z",
        "2026-13-01T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "2026-01-00T00:00:00Z",
        "2026-01-32T00:00:00Z",
        "2026-02-29T00:00:00Z",
        "2100-02-29T00:00:00Z",
        "2026-04-31T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T23:60:00Z",
        "2026-01-01T23:59:60Z",
        "0000-01-01T00:00:00Z",
        "-2026-01-01T00:00:00Z",
        "12026-01-01T00:00:00Z",
        "2026-1-1T0:0:0Z",
        "2026-12-31",
        "23:59:59Z",
        "20261231T23:59:59Z",
        "2026-12-31T23:59:59+0100",
        "2026-12-31T23:59:59+1:00",
        "2026-12-31T23:59:59+01:60",
        "2026-12-31T23:59:59+14:01",
        "2026-12-31T23:59:59+99:00",
        "2026-12-31T23:59:59+01:00Z",
        "+026-12-31T23:59:59Z",
        "2026-12-31T23:59:5éZ",
        "é026-12-31T23:59:59Z",
        "٢٠٢٦-12-31T23:59:59Z",
        "2026-12-31T23:59:59+é1:00",
    ] {
        check_date(text, None);
    }
}

#[test]
fn formats_what_it_parses() {
    let mut seconds = 0_u64;
    // The step covers every hour, day and month.
    while seconds < 253_402_300_800 {
        let text = format_date_time(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(
            parse_date_time(&text),
            i64::try_from(seconds).ok(),
            "{text}"
        );
        seconds += 86_400 * 13 + 12_347;
    }
    let far = UNIX_EPOCH + Duration::from_secs(1 << 40);
    assert_eq!(format_date_time(far), "9999-12-31T23:59:59Z");
    assert_eq!(
        format_date_time(UNIX_EPOCH - Duration::from_secs(1)),
        "1970-01-01T00:00:00Z"
    );
}
