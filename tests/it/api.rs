//! The local API: slots for other programs, health, metrics; and the wall between it and the public port.

use std::collections::HashMap;

use crate::harness::site::{ROMEO_FOLDER, owner_folder};
use crate::harness::{Client, Plan, Reply, Site, Slot, eventually, request};

const TOKEN: &str = "sesame-open-thyself";
const ROMEO: &str = "jid=romeo%40montague.tld";

fn with_api() -> Plan {
    Plan::alone().set("api", "{port: 0}")
}

#[track_caller]
fn check(site: &Site, target: &str, status: u16, body: &str) {
    let reply = site.ask_api(target);
    assert_eq!(
        (reply.status, reply.text()),
        (status, body),
        "{target}: {:?}",
        reply.fields
    );
    assert_private(&reply);
}

/// Nothing for web clients, nothing to be kept by caches.
#[track_caller]
fn assert_private(reply: &Reply) {
    for (name, _) in &reply.fields {
        let name = name.to_ascii_lowercase();
        assert!(
            !name.starts_with("access-control-"),
            "{name} on the local API"
        );
    }
    if reply.status == 200 {
        assert_eq!(reply.expect("Cache-Control"), "no-store");
    }
}

#[track_caller]
fn fill(site: &Site, slot: &Slot, kind: &str, body: &[u8]) -> Reply {
    site.client()
        .ask("PUT", &slot.put, &[("Content-Type", kind)], body)
}

#[test]
fn a_slot_in_three_forms() {
    let site = with_api().start();
    let query = format!("{ROMEO}&name=tr%C3%A8s%20cool.jpg&size=5&content_type=image%2Fjpeg");
    // Two lines, the PUT first, and no line end behind the second.
    let text = site.ask_api(&format!("/slot/?{query}")).is(200);
    assert_eq!(text.expect("Content-Type"), "text/plain");
    assert_private(&text);
    let (put, get) = text.text().split_once('\n').unwrap();
    assert!(!get.contains('\n'), "{get:?}");
    let plain = Slot::from_urls(put, get);
    assert!(
        plain.get.starts_with(&format!("/files/{ROMEO_FOLDER}/")),
        "{plain:?}"
    );
    assert!(plain.get.ends_with("/tr%C3%A8s_cool.jpg"), "{plain:?}");
    let same = site
        .ask_api(&format!("/slot/?{query}&output=text/plain"))
        .is(200);
    assert_eq!(same.text().lines().count(), 2);
    assert_eq!(same.expect("Content-Type"), "text/plain");

    let json = site
        .ask_api(&format!("/slot/?{query}&output=application/json"))
        .is(200);
    assert_eq!(json.expect("Content-Type"), "application/json");
    let inside = json.text().strip_prefix("{\"get\": \"").unwrap();
    let (get, rest) = inside.split_once("\", \"put\": \"").unwrap();
    let json = Slot::from_urls(rest.strip_suffix("\"}").unwrap(), get);

    let xml = site
        .ask_api(&format!("/slot/?{query}&output=application%2Fxml"))
        .is(200);
    assert_eq!(xml.expect("Content-Type"), "application/xml");
    let Some(found) = crate::harness::xml::whole(xml.text()) else {
        panic!("no element: {}", xml.text());
    };
    assert_eq!(found.space, "urn:xmpp:http:upload:0");
    let xml = Slot::of(&found);

    for slot in [&plain, &json, &xml] {
        fill(&site, slot, "image/png", b"hello").is(415);
        let stored = fill(&site, slot, "image/jpeg", b"hello").is(201);
        assert!(stored.expect("Location").ends_with(&slot.get));
        let got = site.get(&slot.get).is(200);
        assert_eq!(got.expect("Content-Type"), "image/jpeg");
        fill(&site, slot, "image/jpeg", b"hello").is(409);
    }
    assert_eq!(site.files().len(), 3);
}

#[test]
fn the_type_by_either_name() {
    let site = with_api().start();
    let slot = |kind: &str| site.api_slot(&format!("{ROMEO}&name=a.bin&size=5{kind}"));
    for (said, put, status) in [
        ("&type=image/jpeg", "image/png", 415),
        ("&type=image/jpeg&content_type=image/png", "image/png", 415),
        ("&type=image/jpeg&content_type=image/png", "image/jpeg", 201),
        ("&content_type=image/jpeg", "image/png", 415),
        // An XMPP server says so when the client named none.
        ("&content_type=application/octet-stream", "image/png", 201),
        ("&content_type=", "image/png", 201),
        ("", "image/png", 201),
    ] {
        let slot = slot(said);
        assert_eq!(
            fill(&site, &slot, put, b"hello").status,
            status,
            "{said} {put}"
        );
        if status == 201 {
            assert_eq!(site.get(&slot.get).expect("Content-Type"), put);
        }
    }
}

#[test]
fn checks_in_their_order_with_their_texts() {
    const EMPTY: &str = "Empty JID or size passed.";
    const DENIED: &str = "You are not allowed to upload files.";
    const LARGE: &str = "Files may not be larger than 1000 bytes.";
    const OUTPUT: &str = "Unsupported content type in output.";
    let site = with_api().set("max_file_size", 1000).start();
    for (query, status, body) in [
        ("", 400, ""),
        ("name=a&size=5", 400, ""),
        (&format!("{ROMEO}&size=5"), 400, ""),
        (&format!("{ROMEO}&name=a"), 400, ""),
        ("jid=&name=&size=x", 400, ""),
        (&format!("{ROMEO}&name=a&size="), 400, ""),
        (&format!("{ROMEO}&name=a&size=1.5"), 400, ""),
        (&format!("{ROMEO}&name=a&size=1e3"), 400, ""),
        (&format!("{ROMEO}&name=a&size=0"), 400, EMPTY),
        (&format!("{ROMEO}&name=a&size=-5"), 400, EMPTY),
        (&format!("{ROMEO}&name=&size=5"), 400, EMPTY),
        (&format!("{ROMEO}&name=%2F%2F&size=5"), 400, EMPTY),
        ("jid=&name=a&size=5", 400, EMPTY),
        ("jid=tybalt@evil.tld&name=a&size=0", 400, EMPTY),
        ("jid=tybalt@evil.tld&name=a&size=5", 403, DENIED),
        ("jid=tybalt@evil.tld&name=a&size=9999", 403, DENIED),
        (
            "jid=tybalt@evil.tld&name=a&size=5&output=text/xml",
            403,
            DENIED,
        ),
        (&format!("{ROMEO}&name=a&size=1001"), 413, LARGE),
        (
            &format!("{ROMEO}&name=a&size=99999999999999999999999"),
            413,
            LARGE,
        ),
        (
            &format!("{ROMEO}&name=a&size=1001&output=text/xml"),
            413,
            LARGE,
        ),
        (
            &format!("{ROMEO}&name=a&size=1000&output=text/xml"),
            400,
            OUTPUT,
        ),
        (&format!("{ROMEO}&name=a&size=1000&output="), 400, OUTPUT),
    ] {
        check(&site, &format!("/slot/?{query}"), status, body);
    }
    // A JID that is none, and what cannot be decoded.
    for query in [
        "jid=a@b@c&name=a&size=5",
        "jid=%zz&name=a&size=5",
        "jid=%ff&name=a&size=5",
    ] {
        site.ask_api(&format!("/slot/?{query}")).is(400);
    }
    site.api_slot(&format!("{ROMEO}&name=a&size=1000"));
    assert!(site.files().is_empty());
}

#[test]
fn names_are_cleaned_so_that_the_slot_works() {
    let site = with_api().start();
    for (name, end) in [
        ("a%2Fb.jpg", "/ab.jpg"),
        ("tr%C3%A8s+cool.jpg", "/tr%C3%A8s_cool.jpg"),
        ("%20a%20b.jpg%20", "/a_b.jpg"),
        ("a%00%0d%0ab.jpg", "/ab.jpg"),
        ("a%3F%23%25%26.jpg", "/a.jpg"),
        ("%2e%2e%2f%2e%2e%2fpasswd", "passwd"),
        (".hidden", "/_.hidden"),
        ("%F0%9F%98%80.png", "/_.png"),
        ("%F0%9F%98%80%F0%9F%8E%89", "/_"),
        ("%21%21.tar.gz", "/_.tar.gz"),
        (&"x".repeat(400), "x"),
    ] {
        let slot = site.api_slot(&format!("{ROMEO}&name={name}&size=5"));
        assert!(slot.get.ends_with(end), "{name}: {slot:?}");
        assert_eq!(slot.get.split('/').count(), 5, "{slot:?}");
        site.put(&slot, b"hello").is(201);
        assert_eq!(site.get(&slot.get).is(200).body, b"hello");
    }
    // Control characters are dropped from the JID too, and the resource does not matter.
    for jid in ["romeo%00%0a@montague.tld", "Romeo@montague.tld/orchard"] {
        let slot = site.api_slot(&format!("jid={jid}&name=a&size=5"));
        assert!(slot.get.contains(ROMEO_FOLDER), "{slot:?}");
    }
}

#[test]
fn the_largest_size() {
    let site = with_api()
        .set("max_file_size", 1000)
        .set(
            "access",
            "[{jid: '^romeo@', max_file_size: 500}, {jid: '^mercutio@', upload: false}, {jid: .}]",
        )
        .start();
    for (query, status, body) in [
        ("jid=romeo@montague.tld", 200, "500"),
        ("jid=juliet@capulet.tld", 200, "1000"),
        (
            "jid=romeo@montague.tld&output=application/json",
            200,
            "{\"max_size\": 500}",
        ),
        (
            "jid=mercutio@montague.tld",
            403,
            "You are not allowed to upload files.",
        ),
        (
            "jid=tybalt@evil.tld",
            403,
            "You are not allowed to upload files.",
        ),
        (
            "jid=romeo@montague.tld&output=text/html",
            400,
            "Unsupported content type in output.",
        ),
        ("", 400, ""),
    ] {
        check(&site, &format!("/max_size/?{query}"), status, body);
    }
    let xml = site
        .ask_api("/max_size/?jid=romeo@montague.tld&output=application/xml")
        .is(200);
    assert_eq!(xml.expect("Content-Type"), "application/xml");
    assert!(xml.text().contains(">500<"), "{}", xml.text());
    site.ask_api("/max_size/?jid=").is(400);
    site.ask_api("/max_size/?jid=a@b@c").is(400);
}

#[test]
fn nobody_without_the_token() {
    let mut site = Plan::alone()
        .set("api", format!("{{port: 0, token: {TOKEN}}}"))
        .start();
    site.program.hide(TOKEN);
    let slot = format!("/slot/?{ROMEO}&name=a&size=5");
    let mut client = Client::local(site.api());
    for target in [
        &*slot,
        "/max_size/?jid=romeo@montague.tld",
        "/health",
        "/metrics",
        "/none",
    ] {
        let reply = client.get(target).is(401);
        let challenge = reply.expect("WWW-Authenticate");
        assert!(
            challenge.starts_with("Bearer") && !challenge.contains("error="),
            "{challenge}"
        );
        assert_private(&reply);
        for wrong in [
            "Bearer sesame-open-thysel",
            "Bearer sesame-open-thyselff",
            "Bearer SESAME-OPEN-THYSELF",
            "Bearer",
            "Bearer ",
            "Basic sesame-open-thyself",
            "sesame-open-thyself",
            "Bearersesame-open-thyself",
        ] {
            let reply = client
                .ask("GET", target, &[("Authorization", wrong)], b"")
                .is(401);
            assert!(
                reply.expect("WWW-Authenticate").starts_with("Bearer"),
                "{wrong}"
            );
        }
        for (name, value) in [
            ("Authorisation", "Bearer"),
            ("X-Token", ""),
            ("Cookie", "token="),
        ] {
            let value = format!("{value} {TOKEN}");
            client.ask("GET", target, &[(name, &value)], b"").is(401);
        }
    }
    for query in ["access_token", "token", "Authorization"] {
        client.get(&format!("{slot}&{query}={TOKEN}")).is(401);
    }
    for (target, status) in [
        (&*slot, 200),
        ("/health", 200),
        ("/metrics", 200),
        ("/none", 404),
    ] {
        for scheme in ["Bearer", "bearer", "BEARER"] {
            let right = format!("{scheme} {TOKEN}");
            client
                .ask("GET", target, &[("Authorization", &right)], b"")
                .is(status);
        }
    }
    // The token opens nothing on the public port.
    let right = format!("Bearer {TOKEN}");
    site.client()
        .ask("GET", &slot, &[("Authorization", &right)], b"")
        .is(404);
}

#[test]
fn nobody_from_elsewhere() {
    let site = Plan::alone()
        .set("api", "{port: 0, allow: [192.0.2.0/24, '2001:db8::/32']}")
        .set("trusted_proxies", "[127.0.0.0/8]")
        .start();
    let mut client = Client::local(site.api());
    for target in [
        &*format!("/slot/?{ROMEO}&name=a&size=5"),
        "/health",
        "/metrics",
        "/none",
    ] {
        for fields in [
            &[][..],
            &[("X-Forwarded-For", "192.0.2.1")],
            &[("Forwarded", "for=192.0.2.1")],
            &[("X-Real-IP", "192.0.2.1")],
        ] {
            assert_private(&client.ask("GET", target, fields, b"").is(403));
        }
    }
    // And the other way round: what a proxy says locks nobody out.
    let site = with_api().set("trusted_proxies", "[127.0.0.0/8]").start();
    Client::local(site.api())
        .ask("GET", "/health", &[("X-Forwarded-For", "192.0.2.1")], b"")
        .is(200);
}

#[test]
fn one_spelling_and_one_method() {
    let site = with_api().start();
    let query = format!("?{ROMEO}&name=a&size=5");
    let mut client = Client::local(site.api());
    for path in [
        "/slot",
        "//slot/",
        "/Slot/",
        "/%73lot/",
        "/slot//",
        "/slot/x",
        "/./slot/",
        "/x/../slot/",
        "/api/slot/",
        "/files/slot/",
        "/max_size",
        "/max%5fsize/",
        "/health/",
        "/Health",
        "/metrics/",
        "/",
        "/.upslot/",
    ] {
        let reply = client.get(&format!("{path}{query}")).is(404);
        assert_private(&reply);
    }
    for method in ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let reply = client
            .ask(method, &format!("/slot/{query}"), &[], b"")
            .is(405);
        assert_eq!(reply.expect("Allow"), "GET");
        assert_private(&reply);
    }
    for path in ["/max_size/", "/health", "/metrics"] {
        let reply = client.ask("POST", path, &[], b"").is(405);
        assert_eq!(reply.expect("Allow"), "GET, HEAD");
    }
    assert!(
        client
            .ask("HEAD", "/health", &[], b"")
            .is(200)
            .body
            .is_empty()
    );

    let site = Plan::alone()
        .set("api", "{port: 0, prefix: /up/load/}")
        .start();
    let mut client = Client::local(site.api());
    client.get(&format!("/up/load/slot/{query}")).is(200);
    client
        .get("/up/load/max_size/?jid=romeo@montague.tld")
        .is(200);
    client.get("/health").is(200);
    for path in [
        "/slot/",
        "/up/load/up/load/slot/",
        "/up/load/health",
        "/up/load/metrics",
    ] {
        client.get(&format!("{path}{query}")).is(404);
    }
}

#[test]
fn two_ports_that_know_nothing_of_each_other() {
    let mut site = Plan::new()
        .set("api", "{port: 0}")
        .set("custom_headers", "{X-Public: yes-it-is}")
        .start();
    let stored = site.upload("a.txt", None, b"hello");
    let slot = site.slot("romeo@montague.tld", "b.txt", 5, None);
    // Nothing of the API on the public port, under whatever prefix.
    let mut public = site.client();
    let missing = public.get("/files/none").is(404);
    for path in ["slot/", "max_size/", "health", "metrics"] {
        for prefix in ["/", "/files/"] {
            let target = format!("{prefix}{path}?{ROMEO}&name=a&size=5");
            let reply = public.get(&target).is(404);
            assert_eq!(
                (reply.lasting_fields(), reply.body),
                (missing.lasting_fields(), missing.body.clone())
            );
            let status = public.ask("PUT", &target, &[], b"").status;
            assert_eq!(status, 403, "{target}");
        }
    }
    // Nothing public on the API's port.
    let mut local = Client::local(site.api());
    for (method, target, body) in [
        ("GET", &*stored.get, &b""[..]),
        ("HEAD", &stored.get, b""),
        ("PUT", &slot.put, b"hello"),
        ("OPTIONS", &stored.get, b""),
        ("OPTIONS", "*", b""),
        ("GET", "/", b""),
        ("DELETE", &stored.get, b""),
    ] {
        let fields = [
            ("Origin", "https://web.example"),
            ("Access-Control-Request-Method", "PUT"),
        ];
        let reply = local.ask(method, target, &fields, body);
        assert!(
            matches!(reply.status, 404 | 405),
            "{method} {target}: {}",
            reply.status
        );
        assert_private(&reply);
        assert!(!reply.has("X-Public"));
    }
    assert_eq!(site.files().len(), 1);
    site.put(&slot, b"hello").is(201);
}

#[test]
fn health() {
    let site = with_api().start();
    check(&site, "/health", 200, "link none\nstore good\n");
    drop(site);
    let site = with_api().set("min_free_space", 1_u64 << 60).start();
    check(&site, "/health", 503, "link none\nstore full\n");
    drop(site);
    let mut site = Plan::new().set("api", "{port: 0}").start();
    check(&site, "/health", 200, "link up\nstore good\n");
    site.link().hang_up();
    site.program.wait_line(&["link down "]);
    check(&site, "/health", 503, "link down\nstore good\n");
    site.relink();
    eventually("the link", || site.ask_api("/health").status == 200);
    let metrics = metrics(&site);
    assert_eq!(metrics["upslot_link_reconnects_total"], 1.0);
    assert_eq!(metrics["upslot_link_up"], 1.0);
}

/// Every sample of the page, judged by the rules of the exposition format.
#[track_caller]
fn metrics(site: &Site) -> HashMap<String, f64> {
    let reply = site.ask_api("/metrics").is(200);
    assert_eq!(
        reply.expect("Content-Type"),
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let text = reply.text();
    assert!(text.ends_with('\n'));
    let mut samples = HashMap::new();
    let mut kinds: HashMap<&str, &str> = HashMap::new();
    let is_name = |name: &str| {
        name.starts_with("upslot_")
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').unwrap();
            assert!(is_name(name) && !words.is_empty(), "{line}");
            continue;
        }
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(
                is_name(name) && matches!(kind, "counter" | "gauge"),
                "{line}"
            );
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(kinds.insert(name, kind).is_none(), "{name} twice");
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap();
        let value: f64 = value.parse().unwrap();
        assert!(value.is_finite() && value >= 0.0, "{line}");
        let name = sample.split('{').next().unwrap();
        assert!(kinds.contains_key(name), "no type for {line}");
        if let Some(labels) = sample
            .strip_prefix(name)
            .filter(|labels| !labels.is_empty())
        {
            let labels = labels.strip_prefix('{').unwrap().strip_suffix('}').unwrap();
            for label in labels.split(',') {
                let (name, text) = label.split_once("=\"").unwrap();
                assert!(name.bytes().all(|b| b.is_ascii_lowercase()), "{line}");
                assert!(
                    text.ends_with('"') && !text[..text.len() - 1].contains('"'),
                    "{line}"
                );
            }
        }
        assert!(
            samples.insert(sample.to_owned(), value).is_none(),
            "{sample} twice"
        );
    }
    samples
}

#[test]
fn counters_move() {
    let site = with_api().set("max_file_size", 1000).start();
    let before = metrics(&site);
    let slot = site.api_slot(&format!("{ROMEO}&name=a&size=5"));
    site.ask_api(&format!("/slot/?{ROMEO}&name=a&size=1001"))
        .is(413);
    site.ask_api("/slot/?jid=tybalt@evil.tld&name=a&size=5")
        .is(403);
    site.put(&slot, b"hello").is(201);
    site.put(&slot, b"hello").is(409);
    site.client().ask("PUT", "/files/a/b", &[], b"").is(403);
    site.get(&slot.get).is(200);
    let moved = [
        ("upslot_slots_total{outcome=\"granted\"}", 1.0),
        ("upslot_slots_total{outcome=\"refused\"}", 2.0),
        ("upslot_slot_refusals_total{reason=\"too_large\"}", 1.0),
        ("upslot_slot_refusals_total{reason=\"not_allowed\"}", 1.0),
        ("upslot_uploads_total{outcome=\"published\"}", 1.0),
        ("upslot_uploads_total{outcome=\"refused\"}", 2.0),
        ("upslot_upload_bytes_total", 5.0),
        (
            "upslot_upload_refusals_total{reason=\"used\",status=\"409\"}",
            1.0,
        ),
        (
            "upslot_upload_refusals_total{reason=\"unsigned\",status=\"403\"}",
            1.0,
        ),
        ("upslot_downloads_total", 1.0),
        ("upslot_download_bytes_total", 5.0),
    ];
    // A download counts when its connection goes on or ends.
    eventually("the download", || {
        metrics(&site)["upslot_downloads_total"] > 0.0
    });
    let after = metrics(&site);
    for (name, by) in moved {
        let difference = after[name] - before.get(name).copied().unwrap_or(0.0);
        assert!((difference - by).abs() < 0.1, "{name}: {difference}");
    }
    for name in [
        "upslot_connections",
        "upslot_connections_limit",
        "upslot_connections_accepted_total",
        "upslot_sweeps_total",
        "upslot_free_bytes",
        "upslot_resident_memory_bytes",
        "upslot_uptime_seconds",
    ] {
        assert!(after.contains_key(name), "no {name}");
    }
    assert!(after["upslot_resident_memory_bytes"] > 100_000.0);
}

#[test]
fn pipelined_downloads_are_counted() {
    let site = with_api().start();
    let slot = site.api_slot(&format!("{ROMEO}&name=a&size=5"));
    site.put(&slot, b"hello").is(201);
    let before = metrics(&site);
    let mut client = site.client();
    client.send(&request("GET", &slot.get, &[], b"").repeat(3));
    for _ in 0..3 {
        client.reply_to("GET").is(200);
    }
    let counted = || {
        let after = metrics(&site);
        let difference = |name: &str| after[name] - before[name];
        (
            difference("upslot_downloads_total"),
            difference("upslot_download_bytes_total"),
        )
    };
    eventually("three downloads", || counted() == (3.0, 15.0));
}

#[test]
fn limits_and_quotas() {
    let site = with_api()
        .set("max_file_size", 1000)
        .set("user_quota_hard", 1500)
        .set("global_quota", 3000)
        .set("allowed_file_types", "[image/*, text/plain]")
        .start();
    let ask = |owner: &str, size: u64| {
        site.ask_api(&format!(
            "/slot/?jid={owner}&name=a&size={size}&type=text/plain"
        ))
    };
    let body = vec![b'x'; 1000];
    for (owner, size) in [
        ("a@montague.tld", 1000),
        ("a@montague.tld", 500),
        ("b@montague.tld", 1000),
    ] {
        let slot = site.api_slot(&format!("jid={owner}&name=a&size={size}&type=text/plain"));
        site.put(&slot, &body[..size]).is(201);
    }
    let reply = ask("a@montague.tld", 1).is(403);
    assert_eq!(reply.text(), "User may not upload more than 1500 bytes.");
    ask("c@montague.tld", 500).is(200);
    ask("c@montague.tld", 501).is(507);
    for kind in ["type=video/mp4", "type=application/octet-stream", ""] {
        let reply = site
            .ask_api(&format!("/slot/?jid=c@montague.tld&name=a&size=5&{kind}"))
            .is(415);
        assert!(!reply.body.is_empty());
    }
    site.program
        .wait_line(&["slot refused ", "owner=a@montague.tld", "1500"]);
}

#[test]
fn old_files_count_at_the_first_request() {
    let site = with_api()
        .set("user_quota_hard", 1000)
        .set("max_file_size", 1000)
        .seed(&format!("{ROMEO_FOLDER}/0123456789abc/old.bin"), &[0; 600])
        .seed(&format!("{ROMEO_FOLDER}/0123456789abd"), &[0; 300])
        .seed(
            &format!("{}/0123456789abc/a", owner_folder("juliet@capulet.tld")),
            &[0; 1],
        )
        .start();
    // In one go, so that the second stands behind one that waits for the store.
    let mut client = Client::local(site.api());
    let mut both = Vec::new();
    for size in [101, 100] {
        let target = format!("/slot/?{ROMEO}&name=a&size={size}");
        both.extend(crate::harness::request("GET", &target, &[], b""));
    }
    client.send(&both);
    assert_eq!(
        client.reply().is(403).text(),
        "User may not upload more than 1000 bytes."
    );
    client.reply().is(200);
    client
        .get("/slot/?jid=juliet@capulet.tld&name=a&size=999")
        .is(200);
    client
        .get("/slot/?jid=juliet@capulet.tld&name=a&size=1000")
        .is(403);
    // Who hangs up while it is waiting harms nobody.
    let mut hasty = Client::local(site.api());
    hasty.send(&crate::harness::request(
        "GET",
        "/slot/?jid=benvolio@montague.tld&name=a&size=5",
        &[],
        b"",
    ));
    drop(hasty);
    client.get("/health").is(200);
}

#[test]
fn a_url_that_was_encoded_once_more() {
    let mut site = Plan::new().set("api", "{port: 0}").start();
    let once_more = |target: &str| target.replace('%', "%25");
    let query = "name=tr%C3%A8s%20cool.jpg&size=5&type=text/plain%3B%20charset%3Dutf-8";
    for (put_too, get_too) in [(true, true), (true, false), (false, true)] {
        let slot = site.api_slot(&format!("{ROMEO}&{query}"));
        assert!(slot.put_path().contains('%'), "{slot:?}");
        let put = if put_too {
            once_more(&slot.put)
        } else {
            slot.put.clone()
        };
        let mut client = site.client();
        let kind = [("Content-Type", "text/plain; charset=utf-8")];
        // Nothing else may differ.
        client
            .ask("PUT", &put.replace("size=5", "size=6"), &kind, b"hello!")
            .is(403);
        client
            .ask("PUT", &put.replace("cool", "cold"), &kind, b"hello")
            .is(403);
        client
            .ask("PUT", &once_more(&once_more(&slot.put)), &kind, b"hello")
            .is(403);
        client.ask("PUT", &put, &kind, b"hello").is(201);
        client.ask("PUT", &put, &kind, b"hello").is(409);
        client.ask("PUT", &slot.put, &kind, b"hello").is(409);
        let get = if get_too {
            once_more(&slot.get)
        } else {
            slot.get.clone()
        };
        let got = client.get(&get).is(200);
        assert_eq!(got.expect("Content-Type"), "text/plain; charset=utf-8");
        assert_eq!(
            client
                .ask("HEAD", &get, &[], b"")
                .is(200)
                .expect("Content-Length"),
            "5"
        );
        client.get(&once_more(&once_more(&slot.get))).is(404);
        assert!(site.store().join(slot.stored_at()).exists());
    }
    // A name that has a % of its own is first of all itself.
    let slot = site.upload("a%41.txt", None, b"itself");
    assert!(slot.get.ends_with("/a%2541.txt"), "{slot:?}");
    assert_eq!(site.get(&slot.get).is(200).body, b"itself");
    assert_eq!(site.get(&once_more(&slot.get)).is(200).body, b"itself");
    site.get(&slot.get.replace("%2541", "A")).is(404);
}

#[test]
fn traversal_encoded_twice_leads_nowhere() {
    let site = with_api()
        .seed(&format!("{ROMEO_FOLDER}/0123456789abc/a.txt"), b"hello")
        .start();
    std::fs::write(site.dir.path().join("secret.txt"), b"secret").unwrap();
    std::fs::write(site.store().join(ROMEO_FOLDER).join(".hidden"), b"secret").unwrap();
    let mut client = site.client();
    let missing = client.get("/files/none").is(404);
    for path in [
        "%252e%252e/secret.txt",
        "%252e%252e%252fsecret.txt",
        "..%252fsecret.txt",
        &format!("{ROMEO_FOLDER}/%252e%252e/%252e%252e/secret.txt"),
        &format!("{ROMEO_FOLDER}/..%252f..%252f..%252fsecret.txt"),
        &format!("{ROMEO_FOLDER}/%252ehidden"),
        &format!("{ROMEO_FOLDER}/0123456789abc%252fa.txt"),
        &format!("{ROMEO_FOLDER}/0123456789abc/a.txt%2500"),
        &format!("{ROMEO_FOLDER}/0123456789abc/%252e/a.txt"),
        &format!("{ROMEO_FOLDER}/0123456789abc/%25252e%25252e/a.txt"),
        "%252eupslot/secret",
        "%252eupslot/slot_secret",
        "%25zz/%252e",
    ] {
        for prefix in ["/files/", "/", "/%2566iles/"] {
            let reply = client.get(&format!("{prefix}{path}")).is(404);
            assert_eq!(
                (reply.lasting_fields(), reply.body),
                (missing.lasting_fields(), missing.body.clone()),
                "{prefix}{path}"
            );
        }
        client
            .ask(
                "PUT",
                &format!("/files/{path}?size=5&until=9999999999&sig=AAAA"),
                &[],
                b"hello",
            )
            .is(403);
    }
}

#[test]
fn an_empty_list_is_nobody() {
    let mut site = Plan::alone().set("api", "{port: 0, allow: []}").start();
    site.program.allow("empty list");
    for target in [
        &*format!("/slot/?{ROMEO}&name=a&size=5"),
        "/health",
        "/metrics",
    ] {
        site.ask_api(target).is(403);
    }
}
