//! Decisions: from a configuration and a request to a response.

use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::config;
use crate::jid::BareJid;
use crate::layout::{self, Expiry, RANDOM_BYTES};
use crate::purpose::Purpose;
use crate::refusal::Refusal;
use crate::slot::{Slot, SlotRequest};

const BASE: &str = "\
storage_path: /srv/upslot
get_url: https://get.example/files/
put_url: https://put.example/up
put_timeout: 300
";

fn service(more: &str) -> Service {
    let reading = config::read(&format!("{BASE}{more}")).unwrap();
    let mut service = Service::new(&reading.config, b"a secret of some length");
    service.set_date(at(0));
    service
}

/// A time, in seconds after a fixed point.
fn at(seconds: u64) -> Now {
    let mono = std::time::Instant::now();
    Now {
        mono,
        wall: UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds),
    }
}

fn slot_request(name: &str, size: u64, content_type: Option<&str>) -> SlotRequest {
    SlotRequest {
        owner: BareJid::parse("romeo@montague.tld").unwrap(),
        name: name.to_owned(),
        size,
        content_type: content_type.map(str::to_owned),
        purpose: crate::purpose::Purpose::Message,
    }
}

fn head(line: &str, fields: &str) -> RequestHead {
    let text = format!("{line} HTTP/1.1\r\nHost: put.example\r\n{fields}\r\n");
    RequestHead::parse(text.as_bytes()).unwrap()
}

/// The status that a decision leads to: 201 for an accepted upload, 200 for a download.
fn status(decision: &Decision) -> u16 {
    match decision {
        Decision::Answer(answer) => answer.status,
        Decision::Download(_) => 200,
        Decision::Upload(_) => 201,
        Decision::Delete(_) => 204,
        Decision::Refuse(refusal) => refusal.status(),
    }
}

#[track_caller]
fn check(service: &Service, line: &str, fields: &str, expected: u16) {
    let decision = service.decide(&head(line, fields), at(0));
    assert_eq!(
        status(&decision),
        expected,
        "{line} with {fields:?}: {decision:?}"
    );
}

fn issue(service: &Service, request: &SlotRequest) -> Slot {
    let folder = layout::owner_folder(&request.owner);
    let limits = service.check_request(request).unwrap();
    service
        .issue(request, &folder, limits, &[7; RANDOM_BYTES], 0, at(0))
        .map(|(path, slot)| {
            assert!(slot.get.ends_with(&path.encoded()), "{slot:?}");
            slot
        })
        .unwrap()
}

/// The target of the PUT of a slot of 5 bytes.
fn target(service: &Service, content_type: Option<&str>) -> String {
    let slot = issue(service, &slot_request("a b.jpg", 5, content_type));
    slot.put
        .strip_prefix("https://put.example")
        .unwrap()
        .to_owned()
}

#[test]
fn slot_urls_are_ascii_and_start_with_their_prefixes() {
    let slot = issue(&service(""), &slot_request("très #?%.jpg", 5, None));
    let path = "Q_7dsld2o0PGmDXH553Cx_WVmKY/BwcHBwcHBwcHBwcHBwcHBwcH~5~m/tr%C3%A8s%20%23%3F%25.jpg";
    let path = path.replace("BwcHBwcHBwcHBwcHBwcHBwcH", "BwcHBwcHBwcHBwcHBwcH");
    assert_eq!(slot.get, format!("https://get.example/files/{path}"));
    assert!(slot.put.starts_with(&format!(
        "https://put.example/up/{path}?size=5&until=1800000300&sig="
    )));
}

#[test]
fn a_put_must_match_its_slot() {
    let service = service("");
    let target = target(&service, Some("image/jpeg"));
    let put = format!("PUT {target}");
    for fields in [
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nContent-Type: image/jpeg\r\n",
        "Content-Length: 5\r\nContent-Type: IMAGE/jpeg; q=1\r\n",
        "Content-Length: 5\r\nContent-Type: \r\n",
        "Content-Length: 5\r\nContent-Type: application/octet-stream\r\n",
        "Content-Length: 5\r\nExpect: 100-continue\r\n",
        "Content-Length: 5\r\nIf-None-Match: *\r\n",
    ] {
        check(&service, &put, fields, 201);
    }
    for (fields, expected) in [
        ("", 411),
        ("Content-Length: 0\r\n", 400),
        ("Content-Length: 4\r\n", 400),
        ("Content-Length: 6\r\n", 413),
        ("Content-Length: 5\r\nContent-Type: image/png\r\n", 415),
        ("Content-Length: 5\r\nExpect: the-unexpected\r\n", 417),
        ("Content-Length: 5\r\nContent-Range: bytes 0-4/5\r\n", 400),
        ("Content-Length: 5\r\nIf-Match: *\r\n", 412),
    ] {
        check(&service, &put, fields, expected);
    }
    let length = "Content-Length: 5\r\n";
    let prefixed = put.replace("/up/", "/up/up/");
    check(&service, &prefixed, length, 201);
    check(&service, &put.replace("/up/", "/"), length, 201);
    check(&service, &put.replace("a%20b", "a%20c"), length, 403);
    check(&service, &put.replace("~m/", "~k/"), length, 403);
    check(&service, put.split('?').next().unwrap(), length, 403);
    check(&service, "PUT /", length, 403);
    check(&service, "PUT /up/../x", length, 403);
    let late = service.decide(&head(&put, length), at(301));
    assert_eq!(status(&late), 403);
    assert_eq!(status(&service.decide(&head(&put, length), at(300))), 201);
}

#[test]
fn a_slot_without_a_type_stores_the_type_of_the_put() {
    let service = service("");
    let target = target(&service, None);
    for (put, stored) in [
        ("image/png", Some("image/png")),
        ("application/octet-stream", None),
        ("", None),
        ("not a type", None),
    ] {
        let request = head(
            &format!("PUT {target}"),
            &format!("Content-Length: 5\r\nContent-Type: {put}\r\n"),
        );
        let Decision::Upload(grant) = service.decide(&request, at(0)) else {
            panic!("refused with {put:?}");
        };
        assert_eq!(
            service.content_type(&grant, &request).as_deref(),
            stored,
            "{put:?}"
        );
    }
}

#[test]
fn other_methods_and_targets_get_the_right_status() {
    let service = service("");
    for (line, expected) in [
        ("GET /", 200),
        ("HEAD /files/", 200),
        ("GET /files/o/r/n", 200),
        ("GET /o/r/n", 200),
        ("HEAD /files/o/r/n?x=y", 200),
        ("GET /files/o", 404),
        ("GET /files/o/", 404),
        ("GET /files/o/.n", 404),
        ("GET /files/.upslot/slot_secret", 404),
        ("GET /files/o/%2e%2e/n", 404),
        ("OPTIONS *", 204),
        ("OPTIONS /files/o/r/n", 204),
        ("DELETE /files/o/r/n", 405),
        ("POST /", 405),
        ("BREW /pot", 501),
    ] {
        check(&service, line, "", expected);
    }
    let elsewhere = self::service("serve_downloads: false\n");
    check(&elsewhere, "GET /files/o/r/n", "", 403);
    check(&elsewhere, "HEAD /files/o/r/n", "", 403);
    check(&elsewhere, "GET /", "", 200);
}

#[test]
fn an_ephemeral_file_expires_at_its_second() {
    let service = service("");
    let end = at(100).unix();
    let line = format!("GET /o/aaaaaaaaaaaaaaaaaaaa~e{end:x}/n");
    let Decision::Download(DownloadRequest {
        path: Some(path), ..
    }) = service.decide(&head(&line, ""), at(99))
    else {
        panic!("the target may name a file");
    };
    assert!(!service.is_expired(&path, at(99)) && service.is_expired(&path, at(100)));
}

#[test]
fn types_and_sizes_are_checked_without_the_store() {
    let service = service(
        "max_file_size: 1000\nallowed_file_types: [image/*, text/plain]\nwhitelist: montague.tld\n",
    );
    assert_eq!(
        service.check_request(&slot_request("a", 1000, Some("image/jpeg"))),
        Ok(None)
    );
    assert_eq!(
        service.check_request(&slot_request("a", 1000, Some("Text/Plain; charset=utf-8"))),
        Ok(None)
    );
    assert_eq!(
        service.check_request(&slot_request("a", 1001, Some("image/jpeg"))),
        Err(Refusal::TooLarge {
            size: 1001,
            limit: 1000
        })
    );
    for content_type in [
        None,
        Some("application/zip"),
        Some("application/octet-stream"),
    ] {
        let checked = service.check_request(&slot_request("a", 1, content_type));
        assert!(
            matches!(checked, Err(Refusal::TypeNotAllowed { .. })),
            "{content_type:?}"
        );
    }
    let mut unlisted = slot_request("a", 1, Some("image/jpeg"));
    unlisted.owner = BareJid::parse("tybalt@capulet.tld").unwrap();
    assert!(matches!(
        service.check_request(&unlisted),
        Err(Refusal::NotAllowed { .. })
    ));
}

fn download(
    service: &Service,
    line: &str,
    fields: &str,
    name: &str,
    content_type: Option<&str>,
) -> (u16, String) {
    let path = StorePath::from_segments([&b"o"[..], b"r", name.as_bytes()].into_iter()).unwrap();
    let found = StoredFile {
        size: 1000,
        modified: at(0).wall,
        stored: at(0).wall,
        content_type: content_type.map(str::to_owned),
        utf8: service.shows_charset(&path, content_type),
    };
    let answer = service.download(&head(line, fields), &path, &found, at(10));
    (answer.status, String::from_utf8(answer.head).unwrap())
}

#[track_caller]
fn has(head: &str, field: &str) {
    assert!(
        head.contains(&format!("\r\n{field}\r\n")),
        "{field} is not in:\n{head}"
    );
}

#[test]
fn a_download_has_the_right_header_fields() {
    let service = service("expire_interval: 60\nexpire_maxage: 1000\n");
    let (status, head) = download(&service, "GET /", "", "très.jpg", None);
    assert_eq!(status, 200);
    for field in [
        "Content-Type: image/jpeg",
        "Content-Length: 1000",
        "Accept-Ranges: bytes",
        "X-Content-Type-Options: nosniff",
        "Cache-Control: max-age=990, immutable, no-transform",
        "Access-Control-Allow-Origin: *",
        "Last-Modified: Fri, 15 Jan 2027 08:00:00 GMT",
    ] {
        has(&head, field);
    }
    assert!(
        head.contains("Content-Disposition: inline;")
            && head.contains("filename*=UTF-8''tr%C3%A8s.jpg")
    );
    assert!(head.contains("Content-Security-Policy: default-src 'none'"));
    let (_, head) = download(&service, "GET /", "", "a.html", None);
    assert!(head.contains("Content-Disposition: attachment;"), "{head}");
    let (_, head) = download(&service, "GET /", "", "a.svg", Some("image/svg+xml"));
    assert!(head.contains("Content-Disposition: attachment;"), "{head}");
    let (_, head) = download(&service, "GET /", "", "a.html", Some("bad\r\ntype"));
    has(&head, "Content-Type: text/html");
}

#[test]
fn ranges_and_conditions_are_answered() {
    let service = service("");
    let etag = "If-None-Match: \"18fae27693b40000-3e8\"\r\n";
    for (line, fields, expected, field) in [
        (
            "GET /",
            "Range: bytes=0-1\r\n",
            206,
            "Content-Range: bytes 0-1/1000",
        ),
        ("GET /", "Range: bytes=-1\r\n", 206, "Content-Length: 1"),
        (
            "GET /",
            "Range: bytes=1000-\r\n",
            416,
            "Content-Range: bytes */1000",
        ),
        ("GET /", "Range: bytes=x\r\n", 200, "Content-Length: 1000"),
        (
            "HEAD /",
            "Range: bytes=0-1\r\n",
            200,
            "Content-Length: 1000",
        ),
        (
            "GET /",
            "If-Match: \"x\"\r\n",
            412,
            "Cache-Control: no-store",
        ),
        ("GET /", etag, 304, "ETag: \"18fae27693b40000-3e8\""),
        (
            "GET /",
            "If-Range: \"x\"\r\nRange: bytes=0-1\r\n",
            200,
            "Content-Length: 1000",
        ),
        (
            "GET /",
            "If-Modified-Since: Fri, 15 Jan 2027 08:00:00 GMT\r\n",
            304,
            "Accept-Ranges: bytes",
        ),
    ] {
        let (status, head) = download(&service, line, fields, "a.jpg", None);
        assert_eq!(status, expected, "{line} {fields}");
        has(&head, field);
        has(&head, "Access-Control-Allow-Origin: *");
    }
    let (status, head) = download(
        &service,
        "GET /",
        "Range: bytes=0-1,10-11\r\n",
        "a.jpg",
        None,
    );
    assert_eq!(status, 206);
    assert!(
        head.contains("Content-Type: multipart/byteranges; boundary="),
        "{head}"
    );
}

#[test]
fn cors_can_be_disabled_and_fields_added() {
    let service =
        service("allow_web_clients: false\ncustom_headers: {X-A: b, Cache-Control: private}\n");
    let (_, head) = download(&service, "GET /", "", "a.jpg", None);
    assert!(!head.contains("Access-Control"), "{head}");
    has(&head, "X-A: b");
    has(&head, "Cache-Control: private");
    assert_eq!(head.matches("Cache-Control").count(), 1);
    let Decision::Answer(answer) = service.decide(&self::head("OPTIONS /", ""), at(0)) else {
        panic!("OPTIONS is not answered");
    };
    let options = String::from_utf8_lossy(&answer.head).into_owned();
    has(&options, "Allow: GET, HEAD, OPTIONS, PUT");
    assert!(!options.contains("Access-Control"), "{options}");
}

#[test]
fn expiry_frees_space_at_a_known_time() {
    let expiring = service("expire_interval: 60\nexpire_maxage: 1000\n");
    let interval = Duration::from_secs(60);
    assert_eq!(
        expiring.expires_at(at(0).wall, interval),
        Some(at(1060).wall)
    );
    let permanent = service("expire_interval: 0\nexpire_maxage: 1000\n");
    assert_eq!(permanent.expires_at(at(0).wall, interval), None);
}

/// The HMAC of `message` in hex.
fn signed(key: &str, message: &str) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key.as_bytes());
    data_encoding::HEXLOWER.encode(ring::hmac::sign(&key, message.as_bytes()).as_ref())
}

#[test]
fn an_externally_signed_put_is_accepted() {
    let service = service("external_secret: correct horse battery staple\n");
    let path = "4a771ac1-f0b2-4a4a-9700-f2a26fa2bb67/tr%c3%a8s%20cool.jpg";
    let v = "212eb66427e3cb987986d586d16214fdda08527a11b1542dd9a31c6c6ec7d2e9";
    let v2 = "9fd17fe95a0cd01a221b83ed9550daf6407f1150c352655b0502cceaf543260c";
    let length = "Content-Length: 23456\r\n";
    let typed = "Content-Length: 23456\r\nContent-Type: image/jpeg; x=y\r\n";
    let other = "Content-Length: 23456\r\nContent-Type: image/png\r\n";
    check(&service, &format!("PUT /{path}?v={v}"), length, 201);
    check(&service, &format!("PUT /up/{path}?v={v}"), length, 201);
    check(
        &service,
        &format!("PUT /{path}?v={v}"),
        "Content-Length: 23457\r\n",
        403,
    );
    check(
        &service,
        &format!("PUT /{path}?v={v}"),
        "Transfer-Encoding: chunked\r\n",
        411,
    );
    check(&service, &format!("PUT /{path}x?v={v}"), length, 403);
    check(&service, &format!("PUT /{path}?v2={v2}"), typed, 201);
    check(&service, &format!("PUT /{path}?token={v2}"), typed, 201);
    // The signature covers the type that the extension implies.
    check(&service, &format!("PUT /{path}?v2={v2}"), other, 201);
    check(
        &service,
        &format!("PUT /{path}?v2={v2}&v={v}"),
        "Content-Length: 1\r\n",
        403,
    );
    check(&service, &format!("PUT /{path}"), length, 403);
    let disabled = self::service("");
    check(&disabled, &format!("PUT /{path}?v={v}"), length, 403);
}

#[test]
fn a_delete_needs_a_valid_signature() {
    let path = "uuid/a.jpg";
    let delete = signed("a secret of the server", &format!("{path}\0delete me"));
    let keys = "external_secret: a secret of the server\nexternal_delete_secret: delete me\n";
    let service = service(keys);
    check(&service, &format!("DELETE /{path}?token={delete}"), "", 204);
    check(
        &service,
        &format!("DELETE /uuid/b.jpg?token={delete}"),
        "",
        403,
    );
    check(&service, &format!("DELETE /{path}"), "", 403);
    check(&service, "POST /uuid/a.jpg", "", 405);
    let disabled = self::service("external_secret: a secret of the server\n");
    check(
        &disabled,
        &format!("DELETE /{path}?token={delete}"),
        "",
        405,
    );
}

/// A token of Prosody's mod_http_file_share.
fn token(key: &str, claims: &str) -> String {
    let encode = |text: &str| data_encoding::BASE64URL_NOPAD.encode(text.as_bytes());
    let signed = format!(
        "{}.{}",
        encode(r#"{"alg":"HS256","typ":"JWT"}"#),
        encode(claims)
    );
    let hmac_key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key.as_bytes());
    let tag = ring::hmac::sign(&hmac_key, signed.as_bytes());
    format!(
        "{signed}.{}",
        data_encoding::BASE64URL_NOPAD.encode(tag.as_ref())
    )
}

#[test]
fn a_put_with_a_token_is_stored_for_its_owner() {
    let key = "a key of the file share";
    let service = service(&format!("file_share_secret: {key}\n"));
    let (iat, exp, expires) = (at(0).unix(), at(300).unix(), at(9999).unix());
    let claims = format!(
        r#"{{"slot":"slot-1","sub":"romeo@montague.tld","iat":{iat},"exp":{exp},"expires":{expires},"filename":"a b.jpg","filesize":5,"filetype":"image/jpeg"}}"#
    );
    let good = format!("Authorization: Bearer {}\r\n", token(key, &claims));
    let length = "Content-Length: 5\r\n";
    let put = "PUT /up/slot-1/a%20b.jpg";
    check(&service, put, &format!("{good}{length}"), 201);
    check(
        &service,
        put,
        &format!("{}{length}", good.replace("Authorization", "Authorisation")),
        201,
    );
    check(&service, put, length, 401);
    check(
        &service,
        put,
        &format!("Authorization: Basic eDp5\r\n{length}"),
        401,
    );
    check(
        &service,
        put,
        &format!("Authorization: Bearer x.y.z\r\n{length}"),
        401,
    );
    check(
        &service,
        "PUT /up/slot-2/a%20b.jpg",
        &format!("{good}{length}"),
        403,
    );
    check(&service, put, &format!("{good}Content-Length: 6\r\n"), 413);
    check(&service, put, &format!("{good}Content-Length: 4\r\n"), 400);
    check(
        &service,
        put,
        &format!("{good}Transfer-Encoding: chunked\r\n"),
        201,
    );
    let forged = good.replace(&token(key, &claims), &token("another key", &claims));
    check(&service, put, &format!("{forged}{length}"), 403);
    let late = service.decide(&head(put, &format!("{good}{length}")), at(300));
    assert_eq!(status(&late), 403);
    let Decision::Upload(grant) = service.decide(&head(put, &format!("{good}{length}")), at(0))
    else {
        panic!("a valid token was refused");
    };
    assert_eq!(grant.path.owner_folder(), b"Q_7dsld2o0PGmDXH553Cx_WVmKY");
    assert_eq!(
        grant.path.tag().map(|tag| tag.end),
        Some(Expiry::At(expires))
    );
    assert_eq!(grant.path.name(), b"a b.jpg");
    assert_eq!(grant.location(), "slot-1/a%20b.jpg");
    for name in [".htaccess", "...", &"a".repeat(300)] {
        check(
            &service,
            &format!("PUT /slot-1/{name}"),
            &format!("{good}{length}"),
            201,
        );
        check(&service, &format!("GET /slot-1/{name}"), "", 200);
    }
    assert_eq!(grant.content_type.as_deref(), Some("image/jpeg"));
    assert!(grant.has_owner());
}

#[test]
fn a_url_that_was_encoded_twice_is_accepted() {
    let service = service("");
    let slot = issue(
        &service,
        &slot_request("très 100%.jpg", 5, Some("image/svg+xml")),
    );
    // Everything but the unreserved characters and slashes, as ejabberd does it.
    let again = |url: &str| -> String {
        let path = url.split_once(".example").unwrap().1;
        path.bytes()
            .map(|b| match b {
                b'/' | b'-' | b'_' | b'.' => char::from(b).to_string(),
                b if b.is_ascii_alphanumeric() => char::from(b).to_string(),
                b => format!("%{b:02X}"),
            })
            .collect()
    };
    let only_percent = |url: &str| url.split_once(".example").unwrap().1.replace('%', "%25");
    let length = "Content-Length: 5\r\n";
    check(&service, &format!("PUT {}", again(&slot.put)), length, 201);
    check(
        &service,
        &format!("PUT {}", only_percent(&slot.put)),
        length,
        201,
    );
    check(
        &service,
        &format!("PUT {}", again(&slot.put).replace("5", "6")),
        length,
        403,
    );
    for get in [again(&slot.get), only_percent(&slot.get)] {
        let Decision::Download(download_request) =
            service.decide(&head(&format!("GET {get}"), ""), at(0))
        else {
            panic!("{get} may name a file");
        };
        let found = download_request.again.or(download_request.path).unwrap();
        assert_eq!(found.name(), "très 100%.jpg".as_bytes());
    }
    let long = issue(&service, &slot_request(&"é".repeat(127), 5, None));
    check(&service, &format!("PUT {}", again(&long.put)), length, 201);
    check(&service, &format!("GET {}", again(&long.get)), "", 200);
    for line in [
        "/o/r/%252e%252e",
        "/o/%252e%252e/n",
        "/o/%252eupslot",
        "/o/r/%2500",
    ] {
        let decision = service.decide(&head(&format!("GET {line}"), ""), at(0));
        if let Decision::Download(download_request) = decision {
            assert_eq!(download_request.again, None, "{line}");
        }
    }
    let plain = service.decide(&head("GET /o/r/a%20b", ""), at(0));
    assert!(matches!(
        plain,
        Decision::Download(DownloadRequest { again: None, .. })
    ));
}

#[test]
fn purposes_and_rules_are_encoded_in_the_path() {
    let config = "\
purposes: {message: {}, profile: {}, ephemeral: {}, permanent: {}}
access:
  - {jid: '^romeo@', expire_maxage: 1000, max_total_size: 77}
  - {jid: '^juliet@', expire_maxage: 0}
";
    let service = service(config);
    let until = at(1000).unix();
    let put = |jid: &str, purpose: Purpose| {
        let mut request = slot_request("a", 5, None);
        request.owner = BareJid::parse(jid).unwrap();
        request.purpose = purpose;
        issue(&service, &request).put
    };
    let soon = Purpose::Ephemeral {
        expire_before: until - 1,
    };
    let later = Purpose::Ephemeral {
        expire_before: until + 1,
    };
    for (jid, purpose, tag) in [
        ("romeo@m.tld", Purpose::Message, "~mt3e8/".to_owned()),
        ("romeo@m.tld", Purpose::Permanent, "~kt3e8/".to_owned()),
        ("romeo@m.tld", soon, format!("~e{:x}t3e8/", until - 1)),
        ("romeo@m.tld", later, format!("~e{:x}t3e8/", until + 1)),
        ("juliet@m.tld", Purpose::Message, "~mn/".to_owned()),
        ("juliet@m.tld", Purpose::Profile, "~pn/".to_owned()),
        ("juliet@m.tld", later, format!("~e{:x}/", until + 1)),
    ] {
        let put = put(jid, purpose);
        assert!(put.contains(&tag), "{tag} is not in {put}");
        assert_eq!(put.contains("&total=77"), jid.starts_with("romeo"), "{put}");
    }
    assert_eq!(
        service.purposes(),
        ["message", "profile", "ephemeral", "permanent"]
    );
    let plain = self::service("");
    let mut request = slot_request("a", 5, None);
    request.purpose = Purpose::Profile;
    assert!(matches!(
        plain.check_request(&request),
        Err(Refusal::Malformed(_))
    ));
}

#[cfg(feature = "s3")]
#[test]
fn redirections_stay_the_same_for_a_while_and_end_with_their_file() {
    let service = service(
        "expire_maxage: 86400\nexpire_interval: 60\nslot_secret: 00112233445566778899aabbccddeeff\n\
         s3: {endpoint: 'https://s3.example', bucket: uploads, access_key: a, secret_key: 0123456789abcdef}\n",
    );
    let stored = |path: &str, now: Now| {
        let path = StorePath::from_segments(path.as_bytes().split(|b| *b == b'/')).unwrap();
        let file = StoredFile {
            size: 1,
            modified: at(0).wall,
            stored: at(0).wall,
            content_type: None,
            utf8: false,
        };
        let answer = service.redirect(&head("GET /a/b", ""), &path, &file, now);
        String::from_utf8(answer.head).unwrap()
    };
    let line = |head: &str, name: &str| {
        let found = head.lines().find(|line| line.starts_with(name));
        found
            .unwrap_or_else(|| panic!("no {name}: {head}"))
            .to_owned()
    };
    let start = 900 - at(0).unix() % 900;
    let urls = [start, start + 1, start + 899, start + 900]
        .map(|seconds| line(&stored("o/r/a.png", at(seconds)), "Location: "));
    assert_eq!(urls[0], urls[1]);
    assert_eq!(urls[0], urls[2]);
    assert_ne!(urls[0], urls[3]);
    assert!(
        urls[0].contains("&response-cache-control=max-age%3D"),
        "{urls:?}"
    );
    // 100 seconds before the end of an ephemeral file.
    let end = at(start + 1000).unix();
    let path = format!("o/{}~e{end:x}/a.png", "A".repeat(20));
    let head = stored(&path, at(start + 900));
    assert_eq!(
        line(&head, "Cache-Control: "),
        "Cache-Control: private, max-age=100"
    );
    assert!(
        line(&head, "Location: ").contains("&X-Amz-Expires=100&"),
        "{head}"
    );
}
