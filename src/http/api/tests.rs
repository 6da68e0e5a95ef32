//! Unit tests.

use super::*;

const GOOD: &str = "jid=romeo%40montague.tld&name=tr%C3%A8s%20cool.jpg&size=23456";

fn refusals() -> Vec<(Refusal, u16, &'static str)> {
    vec![
        (
            Refusal::Malformed("The file name cannot be stored.".to_owned()),
            400,
            "The file name cannot be stored.",
        ),
        (
            Refusal::NotAllowed {
                owner: BareJid::parse("a@b").unwrap(),
            },
            403,
            "You are not allowed to upload files.",
        ),
        (
            Refusal::TooLarge {
                size: 11,
                limit: 10,
            },
            413,
            "Files may not be larger than 10 bytes.",
        ),
        (
            Refusal::TypeNotAllowed {
                content_type: "a/b".to_owned(),
            },
            415,
            "Files of the type a/b may not be uploaded here.",
        ),
        (
            Refusal::OwnerQuota {
                size: 1,
                stored: 100,
                limit: 100,
                retry: None,
            },
            403,
            "User may not upload more than 100 bytes.",
        ),
        (
            Refusal::GlobalQuota {
                size: 1,
                stored: 9,
                limit: 9,
            },
            507,
            "The service stores 9 of at most 9 bytes, which leaves no room for 1 byte.",
        ),
        (
            Refusal::FreeSpace {
                size: 1,
                free: 0,
                reserve: 5,
            },
            507,
            "The service's disk is full; there is no room for 1 byte.",
        ),
        (
            Refusal::Busy,
            503,
            "The service is busy; please try again in a moment.",
        ),
    ]
}

/// Checks the fields of a slot request.
#[track_caller]
fn check(query: &str, name: &str, size: u64, content_type: Option<&str>) {
    let asked = slot_request(query.as_bytes()).unwrap_or_else(|r| panic!("{query}: {r}"));
    let request = SlotRequest {
        owner: BareJid::parse("romeo@montague.tld").unwrap(),
        name: name.to_owned(),
        size,
        content_type: content_type.map(str::to_owned),
        purpose: Purpose::Message,
    };
    assert_eq!(asked.request, request, "{query}");
}

#[track_caller]
fn malformed(query: &str, refusal: ApiRefusal, body: &str) {
    assert_eq!(slot_request(query.as_bytes()), Err(refusal), "{query}");
    let reply = Reply::malformed(&refusal);
    assert_eq!((reply.status, reply.body.as_str()), (400, body), "{query}");
    assert!(refusal.to_string().ends_with('.'));
}

#[track_caller]
fn check_route(prefix: &str, path: &str, endpoint: ApiRoute) {
    assert_eq!(
        route(prefix, path.as_bytes()),
        endpoint,
        "{path} at {prefix}"
    );
}

#[test]
fn each_endpoint_has_one_spelling() {
    check_route("/", "/slot/", ApiRoute::Slot);
    check_route("/", "/max_size/", ApiRoute::MaxSize);
    check_route("/", "/health", ApiRoute::Health);
    check_route("/", "/metrics", ApiRoute::Metrics);
    check_route("/up/load/", "/up/load/slot/", ApiRoute::Slot);
    check_route("/up/load/", "/up/load/max_size/", ApiRoute::MaxSize);
    check_route("/up/load/", "/health", ApiRoute::Health);
    check_route("/up/load/", "/metrics", ApiRoute::Metrics);
    for path in [
        "",
        "/",
        "*",
        "/slot",
        "/slot//",
        "//slot/",
        "/./slot/",
        "/x/../slot/",
        "/SLOT/",
        "/%73lot/",
        "/slot%2F",
        "/slot/x",
        "/max_size",
        "/health/",
        "/metrics/",
        "/Health",
        "/up/slot/",
    ] {
        check_route("/", path, ApiRoute::Unknown);
    }
    for path in [
        "/slot/",
        "/up/slot/",
        "/up/load/",
        "/up/loadslot/",
        "/up/load/health",
        "/up/load/up/load/slot/",
    ] {
        check_route("/up/load/", path, ApiRoute::Unknown);
    }
}

#[test]
fn endpoints_allow_only_get_and_head() {
    for endpoint in [ApiRoute::MaxSize, ApiRoute::Health, ApiRoute::Metrics] {
        assert!(endpoint.takes(Method::Get) && endpoint.takes(Method::Head));
    }
    assert!(ApiRoute::Slot.takes(Method::Get));
    for method in [
        Method::Head,
        Method::Put,
        Method::Options,
        Method::Unsupported,
        Method::Unknown,
    ] {
        assert!(!ApiRoute::Slot.takes(method), "{method:?}");
    }
    assert!(!ApiRoute::Health.takes(Method::Put));
    let reply = Reply::method_not_allowed(ApiRoute::Slot);
    assert_eq!((reply.status, reply.field), (405, Some(("Allow", "GET"))));
}

#[test]
fn reads_slot_requests() {
    check(GOOD, "très_cool.jpg", 23456, None);
    check(
        &format!("{GOOD}&content_type=image%2Fjpeg"),
        "très_cool.jpg",
        23456,
        Some("image/jpeg"),
    );
    // As ejabberd sends it, with a resource and unknown parameters.
    check(
        "jid=Romeo@montague.tld/orchard&name=a.jpg&size=1&x=y&content_type=image/jpeg",
        "a.jpg",
        1,
        Some("image/jpeg"),
    );
    check(
        "size=1&size=7&name=b&name=a&jid=x&jid=romeo@montague.tld",
        "a",
        7,
        None,
    );
    check(
        "jid=ro%00meo%0a@montague.tld&name=a%00%0db&size=1",
        "ab",
        1,
        None,
    );
    assert_eq!(
        slot_request(GOOD.as_bytes()).unwrap().output,
        Ok(Output::Text)
    );
}

#[test]
fn the_type_has_two_parameter_names() {
    for (rest, content_type) in [
        ("type=a/b", Some("a/b")),
        ("content_type=a/b", Some("a/b")),
        ("type=a/b&content_type=c/d", Some("a/b")),
        ("content_type=c/d&type=a/b", Some("a/b")),
        ("type=&content_type=c/d", Some("c/d")),
        ("type=+&content_type=+c/d+", Some("c/d")),
        (
            "type=text/plain%3B+charset%3Dutf-8",
            Some("text/plain; charset=utf-8"),
        ),
        ("content_type=application/octet-stream", None),
        ("content_type=Application%2FOctet-Stream", None),
        (
            "type=application/octet-stream",
            Some("application/octet-stream"),
        ),
        ("type=&content_type=", None),
        ("", None),
    ] {
        check(
            &format!("{GOOD}&{rest}"),
            "très_cool.jpg",
            23456,
            content_type,
        );
    }
}

#[test]
fn checks_have_the_order_of_the_original() {
    let missing = ApiRefusal::Missing;
    malformed("", missing("jid"), "");
    malformed("name=a&size=1", missing("jid"), "");
    malformed("jid=a@b&size=1", missing("name"), "");
    malformed("jid=a@b&name=a", missing("size"), "");
    malformed("JID=a@b&name=a&size=1", missing("jid"), "");
    for size in [
        "", "x", "1.0", "0x10", "1e3", "1 000", "1_000", "--1", "+", "%D9%A1",
    ] {
        malformed(&format!("jid=&name=&size={size}"), ApiRefusal::Size, "");
    }
    let empty = "Empty JID or size passed.";
    for query in [
        "jid=&name=a&size=1",
        "jid=a@b&name=&size=1",
        "jid=a@b&name=%2F%20&size=1",
        "jid=a@b&name=/&size=1",
        "jid=a@b&name=..&size=1",
        "jid=a@b&name=%2F.%2F.&size=1",
        "jid=a@b&name=a&size=0",
        "jid=a@b&name=a&size=-1",
        "jid=a@b&name=a&size=-99999999999999999999999",
        "jid=a@@b&name=a&size=0&output=x",
    ] {
        malformed(query, ApiRefusal::Empty, empty);
    }
    let address = "The JID is not an address.";
    for jid in ["a@@b", "@b", "%00", "%20", "a b@c", "/x"] {
        malformed(
            &format!("jid={jid}&name=a&size=1&output=x"),
            ApiRefusal::Address,
            address,
        );
    }
    malformed(
        "jid=a@b&name=a&size=%",
        ApiRefusal::Query(QueryError::Percent),
        "The query has a % without two hex digits.",
    );
}

#[test]
fn sizes_are_integers_of_any_length() {
    for (text, size) in [
        ("1", Some(1)),
        ("007", Some(7)),
        (" 5 ", Some(5)),
        ("+5", Some(5)),
        ("-0", Some(0)),
        ("-5", Some(0)),
        ("18446744073709551615", Some(u64::MAX)),
        ("18446744073709551616", Some(u64::MAX)),
        ("- 5", None),
        ("5-", None),
        ("", None),
    ] {
        assert_eq!(integer(text), size, "{text:?}");
    }
}

#[test]
fn the_output_is_checked_last() {
    for (rest, output) in [
        ("", Ok(Output::Text)),
        ("&output=text/plain", Ok(Output::Text)),
        ("&output=application%2Fjson", Ok(Output::Json)),
        ("&output=application/xml", Ok(Output::Xml)),
        ("&output=text/xml", Err(ApiRefusal::Output)),
        ("&output=", Err(ApiRefusal::Output)),
        ("&output=Text/Plain", Err(ApiRefusal::Output)),
        ("&output=text/plain;q=1", Err(ApiRefusal::Output)),
    ] {
        let asked = slot_request(format!("{GOOD}{rest}").as_bytes()).unwrap();
        assert_eq!(asked.output, output, "{rest}");
        let asked = max_size_request(format!("jid=a@b{rest}").as_bytes()).unwrap();
        assert_eq!(asked.output, output, "{rest}");
    }
    assert_eq!(
        Reply::malformed(&ApiRefusal::Output).body,
        "Unsupported content type in output."
    );
}

#[test]
fn names_are_cleaned_as_django_does() {
    for (name, cleaned) in [
        ("a/b.jpg", "ab.jpg"),
        ("../../etc/passwd", "_....etcpasswd"),
        (" très  cool.jpg\n", "très__cool.jpg"),
        ("a\tb\u{a0}c", "abc"),
        ("фото №1.jpg", "фото_1.jpg"),
        ("写真①.png", "写真①.png"),
        ("😀.png", "_.png"),
        ("😀", "_"),
        ("😀😀.tar.gz", "_.tar.gz"),
        ("😀.🎉", "_"),
        ("№!.pdf", "_.pdf"),
        ("a.😀", "a."),
        ("/.png", "_.png"),
        (".htaccess", "_.htaccess"),
        ("tre\u{300}s.jpg", "tres.jpg"),
        ("a\\b:c*d?e\"f<g>h|i%#&+=~.x", "abcdefghi.x"),
        ("a-b_c.d", "a-b_c.d"),
        ("a\0\u{7f}\u{85}b", "ab"),
        ("...", "_"),
        ("../..", "_"),
        ("./.", ""),
        (" \0", ""),
        (".", ""),
        ("..", ""),
        ("/", ""),
        ("", ""),
    ] {
        assert_eq!(valid_name(name), cleaned, "{name:?}");
        assert_eq!(valid_name(cleaned), cleaned, "{name:?}");
    }
}

#[test]
fn parses_max_size_requests() {
    let asked = max_size_request(b"jid=Romeo%40montague.tld%2Forchard").unwrap();
    assert_eq!(asked.jid.as_str(), "romeo@montague.tld");
    for (query, refusal) in [
        ("", ApiRefusal::Missing("jid")),
        ("jid", ApiRefusal::Address),
        ("jid=@", ApiRefusal::Address),
        ("jid=%zz", ApiRefusal::Query(QueryError::Percent)),
    ] {
        assert_eq!(max_size_request(query.as_bytes()), Err(refusal), "{query}");
    }
}

#[test]
fn results_have_the_type_that_was_asked_for() {
    let slot = Slot {
        put: "https://up.example/a/b/tr%C3%A8s_cool.jpg?size=1&sig=x".to_owned(),
        get: "https://up.example/a/b/tr%C3%A8s_cool.jpg".to_owned(),
    };
    for (output, content_type, granted, max_size) in [
        (
            Output::Text,
            "text/plain",
            "https://up.example/a/b/tr%C3%A8s_cool.jpg?size=1&sig=x\nhttps://up.example/a/b/tr%C3%A8s_cool.jpg",
            "20971520",
        ),
        (
            Output::Json,
            "application/json",
            r#"{"get": "https://up.example/a/b/tr%C3%A8s_cool.jpg", "put": "https://up.example/a/b/tr%C3%A8s_cool.jpg?size=1&sig=x"}"#,
            r#"{"max_size": 20971520}"#,
        ),
        (
            Output::Xml,
            "application/xml",
            r#"<slot xmlns="urn:xmpp:http:upload:0"><put url="https://up.example/a/b/tr%C3%A8s_cool.jpg?size=1&amp;sig=x"/><get url="https://up.example/a/b/tr%C3%A8s_cool.jpg"/></slot>"#,
            r#"<max-file-size xmlns="urn:xmpp:http:upload:0">20971520</max-file-size>"#,
        ),
    ] {
        let reply = Reply::granted(&slot, output);
        assert_eq!((reply.status, reply.content_type), (200, content_type));
        assert_eq!(reply.body, granted);
        let reply = Reply::max_size(20_971_520, output);
        assert_eq!((reply.status, reply.content_type), (200, content_type));
        assert_eq!(reply.body, max_size);
    }
    assert_eq!(Reply::max_size(0, Output::Text).body, "0");
}

#[test]
fn urls_are_escaped_in_json_and_xml() {
    let hostile = "a\"b\\c<d>&'\n\0é\u{ffff}";
    assert_eq!(
        Json(hostile).to_string(),
        "\"a\\\"b\\\\c<d>&'\\u000a\\u0000é\u{ffff}\""
    );
    assert_eq!(
        Xml(hostile).to_string(),
        "a&quot;b\\c&lt;d&gt;&amp;&apos;\u{fffd}\u{fffd}é\u{fffd}"
    );
}

#[test]
fn refusals_have_the_texts_of_the_original() {
    for (refusal, status, text) in refusals() {
        let reply = Reply::refused(&refusal);
        assert_eq!((reply.status, reply.body.as_str()), (status, text));
        assert_eq!(reply.content_type, "text/plain; charset=utf-8");
        assert_eq!(status_and_text(&refusal), (status, text.to_owned()));
    }
}

#[test]
fn the_token_is_read_from_the_header_field_only() {
    let token = "0123456789abcdef";
    for (header, good) in [
        ("Bearer 0123456789abcdef", true),
        ("bearer 0123456789abcdef", true),
        ("BEARER   0123456789abcdef", true),
        ("Bearer 0123456789abcdeF", false),
        ("Bearer 0123456789abcde", false),
        ("Bearer 0123456789abcdef0", false),
        ("Bearer 0123456789abcdef, Bearer x", false),
        ("Bearer0123456789abcdef", false),
        ("Bearer", false),
        ("Bearer ", false),
        ("Basic 0123456789abcdef", false),
        ("0123456789abcdef", false),
        ("", false),
        ("é", false),
    ] {
        assert_eq!(authorised(Some(header.as_bytes()), token), good, "{header}");
    }
    assert!(!authorised(None, token));
    assert!(!authorised(Some(b"Bearer "), ""));
    assert!(!authorised(Some(b"Bearer \xff\xfe"), token));
    let bare = Reply::unauthorised(None);
    assert_eq!(bare.status, 401);
    assert_eq!(
        bare.field,
        Some(("WWW-Authenticate", "Bearer realm=\"upslot\""))
    );
    let wrong = Reply::unauthorised(Some(b"Bearer x"));
    assert!(wrong.field.unwrap().1.ends_with("error=\"invalid_token\""));
}

#[test]
fn health_needs_link_and_store() {
    for (link, store, status, body) in [
        (
            LinkStatus::Up,
            StoreStatus::Good,
            200,
            "link up\nstore good\n",
        ),
        (
            LinkStatus::None,
            StoreStatus::Good,
            200,
            "link none\nstore good\n",
        ),
        (
            LinkStatus::Down,
            StoreStatus::Good,
            503,
            "link down\nstore good\n",
        ),
        (
            LinkStatus::Up,
            StoreStatus::Full,
            503,
            "link up\nstore full\n",
        ),
        (
            LinkStatus::None,
            StoreStatus::Failing,
            503,
            "link none\nstore failing\n",
        ),
    ] {
        let reply = Reply::health(Health { link, store });
        assert_eq!((reply.status, reply.body.as_str()), (status, body));
    }
}

#[test]
fn mutated_requests_do_no_harm() {
    let seed = format!("{GOOD}&content_type=image%2Fjpeg&output=application%2Fjson");
    let pieces: [&[u8]; 8] = [
        b"%", b"&size=", b"=", b"+", b"\xff", b"%00", b"&jid=@", b"-",
    ];
    let mut dice = 0x9e37_79b9_u64;
    for _ in 0..5000 {
        let mut raw = seed.as_bytes().to_vec();
        for _ in 0..3 {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            let at = (dice >> 8) as usize % raw.len();
            let piece = pieces[dice as usize % pieces.len()];
            raw.splice(at..=at, piece.iter().copied());
        }
        if let Ok(SlotQuery { request, .. }) = slot_request(&raw) {
            assert!(request.size > 0 && !request.name.is_empty());
            assert!(!request.name.contains(['/', '\0', ' ', '%']));
            assert!(!request.owner.as_str().is_empty());
        }
        assert_eq!(route("/", &raw), ApiRoute::Unknown);
        assert!(!authorised(Some(&raw), "0123456789abcdef"));
    }
}
