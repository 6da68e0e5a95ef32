//! The page for people who open the service's address, and the contact addresses in service discovery (XEP-0157).

use rustix::process::Signal;

use crate::harness::site::ROMEO;
use crate::harness::xml::Element;
use crate::harness::{Plan, Reply, Site, request};

/// What Firefox sends.
const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

const LINE: &str = "upslot stores and serves files that are shared over XMPP (XEP-0363).\n";

#[track_caller]
fn root(site: &Site, accept: Option<&str>) -> Reply {
    let fields: Vec<(&str, &str)> = accept
        .map(|accept| ("Accept", accept))
        .into_iter()
        .collect();
    let reply = site.client().ask("GET", "/", &fields, b"").is(200);
    assert_eq!(reply.expect("Vary"), "Accept", "{accept:?}");
    reply
}

#[track_caller]
fn page(site: &Site) -> String {
    let reply = root(site, Some(BROWSER));
    assert_eq!(reply.expect("Content-Type"), "text/html; charset=utf-8");
    assert_eq!(reply.expect("X-Content-Type-Options"), "nosniff");
    let policy = reply.expect("Content-Security-Policy");
    assert!(
        policy.starts_with("default-src 'none'; style-src 'sha256-"),
        "{policy}"
    );
    for part in [
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    let page = reply.text().to_owned();
    assert!(
        page.starts_with("<!DOCTYPE html>\n") && page.ends_with("</html>\n"),
        "{page}"
    );
    assert!(!page.contains("<script"), "{page}");
    page
}

#[test]
fn browsers_get_a_page_and_other_clients_one_line() {
    let site = Plan::alone()
        .set("api", "{port: 0}")
        .set("max_file_size", "3 MiB")
        .set("contact", "mailto:a&b@example.org?subject=%3Cupload%3E")
        .set("custom_headers", "{X-Frame-Options: DENY}")
        .start();
    for accept in [
        None,
        Some("*/*"),
        Some("text/plain"),
        Some("text/html;q=0.2, */*"),
    ] {
        let reply = root(&site, accept);
        assert_eq!(reply.text(), LINE, "{accept:?}");
        assert_eq!(reply.expect("Content-Type"), "text/plain; charset=utf-8");
    }
    let found = page(&site);
    assert!(found.contains("<h1>upload.localhost</h1>"), "{found}");
    assert!(
        found.contains("<dt>Largest file</dt><dd>3 MiB</dd>"),
        "{found}"
    );
    let link = "<a href=\"mailto:a&amp;b@example.org?subject=%3Cupload%3E\">";
    assert!(found.contains(link), "{found}");

    let mut client = site.client();
    let browser: &[(&str, &str)] = &[("Accept", BROWSER)];
    let get = client.ask("GET", "/files/", browser, b"").is(200);
    assert_eq!(get.text(), found);
    assert_eq!(get.expect("X-Frame-Options"), "DENY");
    let head = client.ask("HEAD", "/", browser, b"").is(200);
    assert_eq!(head.lasting_fields(), get.lasting_fields());
    assert_eq!(head.expect("Content-Length"), found.len().to_string());
    // Only the root has a page; the local API has none.
    client.ask("GET", "/files/no/such", browser, b"").is(404);
    client.ask("PUT", "/", browser, b"").is(403);
    let mut local = crate::harness::Client::local(site.api());
    local.ask("GET", "/", browser, b"").is(404);
    // The longest list of media types that fits into a head.
    let long = "text/x;q=0.001,".repeat(2000) + "text/html";
    let mut client = site.client();
    client.send(&request("GET", "/", &[("Accept", &long)], b""));
    assert_eq!(client.reply().is(200).text(), found);
}

#[test]
fn a_reload_changes_the_page_and_the_contact_addresses() {
    let mut site = Plan::new().start();
    let before = page(&site);
    assert!(
        !before.contains("Contact") && !before.contains("Terms of use"),
        "{before}"
    );
    assert_eq!(contact_fields(&mut site), [""; 0]);

    site.rewrite(
        "contact",
        "[mailto:admin@example.org, 'xmpp:admin@example.org?message', https://example.org/c]",
    );
    site.rewrite("terms_url", "https://example.org/terms");
    site.rewrite("expire_interval", "1 d");
    site.rewrite("expire_maxage", "30 d");
    site.program.signal(Signal::HUP);
    site.program.wait_line(&["config reloaded"]);
    let after = page(&site);
    for part in [
        "<a href=\"mailto:admin@example.org\">",
        "<a href=\"xmpp:admin@example.org?message\">",
        "<a href=\"https://example.org/c\">",
        "<a href=\"https://example.org/terms\">Terms of use</a>",
        "<dd>after 30 days</dd>",
    ] {
        assert!(after.contains(part), "{part}\n{after}");
    }
    let values = "mailto:admin@example.org xmpp:admin@example.org?message https://example.org/c";
    assert_eq!(
        contact_fields(&mut site),
        ["abuse", "admin", "support"].map(|role| format!("{role}-addresses list-multi {values}"))
    );

    site.program.allow("config not reloaded");
    site.rewrite("contact", "javascript:alert(1)");
    site.program.signal(Signal::HUP);
    site.program.wait_line(&["config not reloaded", "contact"]);
    assert_eq!(page(&site), after);
}

/// The fields of the form with contact addresses in the response to disco#info: name, type and values.
fn contact_fields(site: &mut Site) -> Vec<String> {
    let query = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
    let answer = site.link().iq("get", ROMEO, query);
    let info = answer.child("query").expect("a query");
    let values = |field: &Element| -> Vec<String> {
        field
            .children
            .iter()
            .map(|value| value.text.clone())
            .collect()
    };
    let is_contact = |form: &&Element| {
        let first = form.children.first();
        first.is_some_and(|field| values(field) == ["http://jabber.org/network/serverinfo"])
    };
    let forms = info.children.iter().filter(|child| child.name == "x");
    let fields = forms
        .filter(is_contact)
        .flat_map(|form| &form.children[1..]);
    fields
        .map(|field| {
            let (name, kind) = (field.attribute("var"), field.attribute("type"));
            let values = values(field).join(" ");
            format!(
                "{} {} {values}",
                name.unwrap_or_default(),
                kind.unwrap_or_default()
            )
        })
        .collect()
}
