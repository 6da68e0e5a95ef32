//! CORS: its fields are on every response, or on none.

use crate::harness::site::{ROMEO, ROMEO_FOLDER};
use crate::harness::{Plan, Reply, Site, request};

/// A request of every kind, with its status.
fn requests(site: &mut Site, target: &str) -> Vec<(Vec<u8>, u16)> {
    let origin = ("Origin", "https://web.example");
    let slot = site.slot(ROMEO, "a.txt", 5, Some("text/plain"));
    let forged = format!("{}x", slot.put);
    let mut list = vec![
        (request("GET", target, &[origin], b""), 200),
        (request("HEAD", target, &[origin], b""), 200),
        (
            request("GET", target, &[origin, ("Range", "bytes=0-1")], b""),
            206,
        ),
        (
            request("GET", target, &[origin, ("Range", "bytes=0-1,3-4")], b""),
            206,
        ),
        (
            request("GET", target, &[origin, ("If-None-Match", "*")], b""),
            304,
        ),
        (
            request("GET", target, &[origin, ("If-Match", "\"a\"")], b""),
            412,
        ),
        (
            request("GET", target, &[origin, ("Range", "bytes=99-")], b""),
            416,
        ),
        (request("GET", "/files/none", &[origin], b""), 404),
        (request("GET", "/", &[origin], b""), 200),
        (request("PUT", &forged, &[origin], b"hello"), 403),
        (request("PUT", &slot.put, &[origin], b"hell"), 400),
        (request("PUT", &slot.put, &[origin], b"hello!"), 413),
        (
            request(
                "PUT",
                &slot.put,
                &[origin, ("Content-Type", "image/png")],
                b"hello",
            ),
            415,
        ),
        (
            request("PUT", &slot.put, &[origin, ("Expect", "x")], b"hello"),
            417,
        ),
        (request("POST", target, &[origin], b""), 405),
        (request("BREW", target, &[origin], b""), 501),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), 400),
        (b"GET / HTTP/9.1\r\nHost: a\r\n\r\n".to_vec(), 505),
        (
            format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(9000)).into_bytes(),
            414,
        ),
        (
            format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(40_000)).into_bytes(),
            431,
        ),
        (
            format!("PUT {} HTTP/1.1\r\nHost: a\r\n\r\n", slot.put).into_bytes(),
            411,
        ),
    ];
    list.push((request("PUT", &slot.put, &[origin], b"hello"), 201));
    list.push((request("PUT", &slot.put, &[origin], b"hello"), 409));
    list
}

fn cors_fields(reply: &Reply) -> Vec<&str> {
    let names = reply.fields.iter().map(|(name, _)| name.as_str());
    names
        .filter(|name| name.to_ascii_lowercase().starts_with("access-control-"))
        .collect()
}

#[test]
fn on_every_answer() {
    let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/digits.txt");
    let mut site = Plan::new().seed(&path, b"0123456789").start();
    for (bytes, status) in requests(&mut site, &format!("/files/{path}")) {
        let mut client = site.client();
        client.send(&bytes);
        let method = if bytes.starts_with(b"HEAD") {
            "HEAD"
        } else {
            "GET"
        };
        let reply = client.reply_to(method).is(status);
        assert_eq!(reply.expect("Access-Control-Allow-Origin"), "*", "{status}");
        assert!(!reply.has("Access-Control-Allow-Credentials"), "{status}");
    }
}

#[test]
fn on_none_when_off() {
    let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/digits.txt");
    let mut site = Plan::new()
        .set("allow_web_clients", false)
        .seed(&path, b"0123456789")
        .start();
    let target = format!("/files/{path}");
    let mut list = requests(&mut site, &target);
    let preflight = [
        ("Origin", "https://web.example"),
        ("Access-Control-Request-Method", "PUT"),
    ];
    list.push((request("OPTIONS", &target, &preflight, b""), 204));
    for (bytes, status) in list {
        let mut client = site.client();
        client.send(&bytes);
        let method = if bytes.starts_with(b"HEAD") {
            "HEAD"
        } else {
            "GET"
        };
        let reply = client.reply_to(method).is(status);
        assert!(
            cors_fields(&reply).is_empty(),
            "{status}: {:?}",
            reply.fields
        );
        if status == 204 {
            assert!(reply.expect("Allow").contains("PUT"));
        }
    }
}

#[test]
fn preflights() {
    let mut site = Plan::new().start();
    let slot = site.slot(ROMEO, "a.txt", 5, None);
    let fields = [
        ("Origin", "https://web.example"),
        ("Access-Control-Request-Method", "PUT"),
        (
            "Access-Control-Request-Headers",
            "authorization, content-type",
        ),
    ];
    let mut client = site.client();
    // For a slot, a file, a missing file and the server: no slot is needed or used.
    for target in [&slot.put, &slot.get, "/files/none", "/", "*", &slot.put] {
        let reply = client.ask("OPTIONS", target, &fields, b"").is(204);
        assert_eq!(reply.expect("Access-Control-Allow-Origin"), "*", "{target}");
        let list = |name: &str| -> Vec<String> {
            reply
                .expect(name)
                .split(',')
                .map(|word| word.trim().to_ascii_lowercase())
                .collect()
        };
        for method in ["options", "head", "get", "put"] {
            assert!(
                list("Access-Control-Allow-Methods").contains(&method.to_owned()),
                "{target}: {method}"
            );
        }
        // XEP-0363 §9.
        for field in ["authorization", "content-type"] {
            assert!(
                list("Access-Control-Allow-Headers").contains(&field.to_owned()),
                "{target}: {field}"
            );
        }
        assert!(
            reply
                .expect("Access-Control-Max-Age")
                .parse::<u64>()
                .is_ok()
        );
    }
    client.ask("PUT", &slot.put, &fields[..1], b"hello").is(201);
    let reply = client
        .ask("GET", &slot.get, &[fields[0], ("Range", "bytes=0-1")], b"")
        .is(206);
    let exposed = reply
        .expect("Access-Control-Expose-Headers")
        .to_ascii_lowercase();
    assert!(exposed.contains("content-range"), "{exposed}");
}

/// Origins that a server might trust, and values that it must not reflect.
const ORIGINS: [&str; 14] = [
    "https://web.example",
    "https://upload.localhost",
    "https://upload.localhost.evil.example",
    "http://127.0.0.1",
    "null",
    "*",
    "",
    "file://",
    "chrome-extension://abcdefghijklmnop",
    "https://xn--e1awd7f.example",
    "https://m\u{fc}nchen.example",
    "https://web.example, https://other.example",
    "https://web.example\" evil=\"1",
    "javascript:alert(1)",
];

/// The response does not depend on the origin, cookies or requested headers, and never allows credentials.
#[test]
fn nothing_is_reflected_and_credentials_are_never_allowed() {
    let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/digits.txt");
    let mut site = Plan::new().seed(&path, b"0123456789").start();
    let target = format!("/files/{path}");
    let slot = site.slot(ROMEO, "a.txt", 5, None);
    let mut client = site.client();
    for (method, target) in [
        ("GET", &*target),
        ("HEAD", &target),
        ("GET", "/files/none"),
        ("GET", "/"),
        ("OPTIONS", &target),
        ("OPTIONS", &slot.put),
        ("OPTIONS", "*"),
        ("DELETE", &target),
    ] {
        let model = client.ask(method, target, &[], b"").lasting_fields();
        assert!(
            model.contains(&("Access-Control-Allow-Origin".to_owned(), "*".to_owned())),
            "{method} {target}: {model:?}"
        );
        for origin in ORIGINS {
            let fields = [
                ("Origin", origin),
                ("Cookie", "session=marker"),
                ("Authorization", "Basic bWFya2Vy"),
                ("Access-Control-Request-Method", "MARKER"),
                ("Access-Control-Request-Headers", "x-marker, cookie, *"),
                ("Access-Control-Request-Private-Network", "true"),
                ("Sec-Fetch-Mode", "cors"),
                ("Sec-Fetch-Site", "cross-site"),
            ];
            let reply = client.ask(method, target, &fields, b"");
            assert_eq!(reply.lasting_fields(), model, "{method} {target} {origin}");
            for (name, value) in &reply.fields {
                let said = format!("{name}: {value}").to_ascii_lowercase();
                assert!(!said.contains("credentials"), "{said}");
                assert!(!said.contains("private-network"), "{said}");
                assert!(!said.contains("marker"), "{said}");
                assert!(!said.contains("web.example"), "{said}");
            }
            let text = String::from_utf8_lossy(&reply.body).to_lowercase();
            assert!(!text.contains("marker"), "{text}");
        }
    }
    // An origin with a line break is rejected or ignored.
    for origin in ["https://a\r\nX-Evil: 1", "https://a\0", "https://a\u{1}"] {
        let mut client = site.client();
        client.send(&request("GET", &target, &[("Origin", origin)], b""));
        let reply = client.reply();
        assert!(matches!(reply.status, 200 | 400), "{}", reply.status);
        assert!(!reply.has("X-Evil"));
    }
    client.ask("PUT", &slot.put, &[], b"hello").is(201);
}

/// With the fields turned off, the operator's own are sent verbatim on every response.
#[test]
fn custom_cors_headers() {
    let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/digits.txt");
    let site = Plan::alone()
        .set("allow_web_clients", false)
        .set(
            "custom_headers",
            "{Access-Control-Allow-Origin: 'https://web.example'}",
        )
        .seed(&path, b"0123456789")
        .start();
    for origin in ORIGINS {
        let target = format!("/files/{path}");
        let reply = site
            .client()
            .ask("GET", &target, &[("Origin", origin)], b"")
            .is(200);
        let origin_field = reply.expect("Access-Control-Allow-Origin");
        assert_eq!(origin_field, "https://web.example", "{origin}");
        assert_eq!(cors_fields(&reply).len(), 1, "{:?}", reply.fields);
    }
}
