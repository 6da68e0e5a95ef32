//! Access to the local API, and its separation from the public listener.

use crate::harness::local_api::{assert_private, with_api};
use crate::harness::{Client, Plan};

const TOKEN: &str = "sesame-open-thyself";
const ROMEO: &str = "jid=romeo%40montague.tld";

#[test]
fn the_token_is_required() {
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
    // The token permits nothing on the public port.
    let right = format!("Bearer {TOKEN}");
    site.client()
        .ask("GET", &slot, &[("Authorization", &right)], b"")
        .is(404);
}

#[test]
fn only_allowed_networks_are_admitted() {
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
    // Nor does a forwarding field exclude an allowed client.
    let site = with_api().set("trusted_proxies", "[127.0.0.0/8]").start();
    Client::local(site.api())
        .ask("GET", "/health", &[("X-Forwarded-For", "192.0.2.1")], b"")
        .is(200);
}

#[test]
fn exact_paths_and_methods() {
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
fn public_and_local_listeners_are_separate() {
    let mut site = Plan::new()
        .set("api", "{port: 0}")
        .set("custom_headers", "{X-Public: yes-it-is}")
        .start();
    let stored = site.upload("a.txt", None, b"hello");
    let slot = site.slot("romeo@montague.tld", "b.txt", 5, None);
    // The public port does not serve the API under any prefix.
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
    // The API's port does not serve files or uploads.
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
fn an_empty_allow_list_admits_no_client() {
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
