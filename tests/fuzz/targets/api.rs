//! The local API: the PUT of a slot that it grants is accepted, and every response format has the same two URLs.

use std::time::{Duration, Instant, UNIX_EPOCH};

use hifijson::SliceLexer;
use hifijson::token::Lex;
use hifijson::value::{Value, parse_bounded};
use upslot::config;
use upslot::http::api::{self, Output, Reply};
use upslot::http::forwarded;
use upslot::http::head::RequestHead;
use upslot::http::syntax;
use upslot::layout::owner_folder;
use upslot::now::Now;
use upslot::service::{Decision, Service};
use upslot::slot::Slot;
use upslot::xmpp::xml::{Reader, XmlEvent};

use super::{Choices, NOW, assert_sentence, reference};

thread_local! {
    static SERVICE: Service = {
        let text = "storage_path: /srv/upslot\nget_url: https://get.example/files/\n\
                    put_url: https://put.example/up\nmax_file_size: 1TB\n";
        Service::new(&config::read(text).unwrap().config, b"a secret of some length")
    };
}

pub fn run(data: &[u8]) {
    let mut choices = Choices(data);
    let which = choices.byte();
    let bytes = choices.rest();
    match which % 4 {
        0 | 1 => slot(bytes),
        2 => bearer(bytes),
        _ => forwarded_for(bytes),
    }
}

fn slot(query: &[u8]) {
    if let Ok(asked) = api::max_size_request(query) {
        assert!(!asked.jid.as_str().is_empty());
    }
    let parsed = match api::slot_request(query) {
        Ok(parsed) => parsed,
        Err(refusal) => {
            assert_sentence(&refusal.to_string());
            return;
        }
    };
    let request = parsed.request;
    assert!(request.size > 0 && !request.name.is_empty());
    let plain = |c: char| c.is_alphanumeric() || "_-.".contains(c);
    assert!(request.name.chars().all(plain) && request.name != ".." && request.name != ".");
    let owner = request.owner.as_str();
    assert!(!owner.contains(|c: char| c.is_control() || c.is_whitespace()));

    let now = Now {
        mono: Instant::now(),
        wall: UNIX_EPOCH + Duration::from_secs(NOW),
    };
    let folder = owner_folder(&request.owner);
    let (slot, decision) = SERVICE.with(|service| {
        let limits = match service.check_request(&request) {
            Ok(limits) => limits,
            Err(refusal) => {
                assert_sentence(&refusal.to_string());
                return (None, None);
            }
        };
        let (_, slot) = service
            .issue(&request, &folder, limits, &[7; 15], 0, now)
            .unwrap();
        let target = slot.put.strip_prefix("https://put.example").unwrap();
        let head = format!(
            "PUT {target} HTTP/1.1\r\nHost: put.example\r\nContent-Length: {}\r\n\r\n",
            request.size
        );
        let decision = RequestHead::parse(head.as_bytes()).map(|head| service.decide(&head, now));
        (Some(slot), Some(decision))
    });
    let (Some(slot), Some(decision)) = (slot, decision) else {
        return;
    };
    match decision {
        Ok(Decision::Upload(grant)) => {
            reference::assert_inside_storage(&grant.path);
            assert_eq!(grant.size, request.size);
            assert_eq!(grant.path.owner_folder(), folder.as_bytes());
            assert!(slot.get.ends_with(&grant.path.encoded()));
        }
        other => panic!("a slot whose PUT is not accepted: {other:?}"),
    }
    check_formats(&slot);
    // upslot's own URLs are ASCII; the response formats must not depend on it.
    check_formats(&Slot {
        put: String::from_utf8_lossy(query).into_owned(),
        get: format!("{}\u{1}\u{fffe}\u{7f}", request.name),
    });
}

/// Checks that all response formats have the same URLs.
fn check_formats(slot: &Slot) {
    let json = Reply::granted(slot, Output::Json).body;
    let value = SliceLexer::new(json.as_bytes())
        .exactly_one(Lex::ws_peek, |next, lexer| parse_bounded(4, next, lexer));
    let Ok(Value::Object(members)) = value else {
        panic!("no JSON: {json}");
    };
    let [(get, Value::String(get_url)), (put, Value::String(put_url))] = &members[..] else {
        panic!("{json}");
    };
    assert_eq!((&**get, &**get_url), ("get", slot.get.as_str()));
    assert_eq!((&**put, &**put_url), ("put", slot.put.as_str()));

    let xml = Reply::granted(slot, Output::Xml).body;
    if xml.len() > 60_000 {
        return;
    }
    let mut reader = Reader::new();
    let opened = reader.next_event(&mut &b"<stream>"[..]);
    assert!(matches!(opened, Ok(Some(XmlEvent::Opened(_)))));
    let Ok(Some(XmlEvent::Stanza(read))) = reader.next_event(&mut xml.as_bytes()) else {
        panic!("no XML: {xml}");
    };
    let url = |name: &str| {
        let child = read.child(name, "urn:xmpp:http:upload:0").unwrap();
        child.attribute("url").unwrap().to_owned()
    };
    let replaced = |text: &str| -> String {
        let forbidden = |c: char| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}');
        text.chars()
            .map(|c| if forbidden(c) { '\u{fffd}' } else { c })
            .collect()
    };
    assert_eq!(
        (url("put"), url("get")),
        (replaced(&slot.put), replaced(&slot.get))
    );
}

/// The token is accepted only as the whole rest of the value after the scheme.
fn bearer(value: &[u8]) {
    let token = "0123456789abcdef";
    let trimmed = syntax::trim(value);
    let (scheme, rest) = trimmed.split_at(trimmed.len().min(6));
    let blanks = rest.iter().take_while(|b| **b == b' ').count();
    let shown =
        scheme.eq_ignore_ascii_case(b"bearer") && blanks > 0 && &rest[blanks..] == token.as_bytes();
    assert_eq!(api::authorised(Some(value), token), shown);
    assert!(!api::authorised(Some(value), "") && !api::authorised(None, token));
}

/// Only the addresses that trusted proxies add are used.
fn forwarded_for(lines: &[u8]) {
    let mut text = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
    for line in lines.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        text.extend([line, b"\r\n"].concat());
    }
    let sent_by_client = text.clone();
    text.extend_from_slice(b"\r\n");
    let trusted = ["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
    let Ok(request) = RequestHead::parse(&text) else {
        return;
    };
    let _ = forwarded::client_address(&request, &trusted);
    // The proxy adds the address of its client, which overrides the fields that the client sent.
    let mut text = sent_by_client;
    text.extend_from_slice(b"X-Forwarded-For: 192.0.2.7\r\n\r\n");
    if let Ok(request) = RequestHead::parse(&text) {
        let found = forwarded::client_address(&request, &trusted);
        assert_eq!(found, Some("192.0.2.7".parse().unwrap()));
    }
}
