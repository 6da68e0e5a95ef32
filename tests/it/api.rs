//! Slots from the local API.

use crate::harness::local_api::{assert_private, check, with_api};
use crate::harness::site::{ROMEO_FOLDER, owner_folder};
use crate::harness::{Client, Plan, Reply, Site, Slot};

const ROMEO: &str = "jid=romeo%40montague.tld";

#[track_caller]
fn fill(site: &Site, slot: &Slot, kind: &str, body: &[u8]) -> Reply {
    site.client()
        .ask("PUT", &slot.put, &[("Content-Type", kind)], body)
}

#[test]
fn slots_as_text_json_and_xml() {
    let site = with_api().start();
    let query = format!("{ROMEO}&name=tr%C3%A8s%20cool.jpg&size=5&content_type=image%2Fjpeg");
    // Two lines, the PUT first, no newline at the end.
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
fn names_of_the_type_parameter() {
    let site = with_api().start();
    let slot = |kind: &str| site.api_slot(&format!("{ROMEO}&name=a.bin&size=5{kind}"));
    for (said, put, status) in [
        ("&type=image/jpeg", "image/png", 415),
        ("&type=image/jpeg&content_type=image/png", "image/png", 415),
        ("&type=image/jpeg&content_type=image/png", "image/jpeg", 201),
        ("&content_type=image/jpeg", "image/png", 415),
        // XMPP servers send this if the client sends no type.
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
fn order_and_texts_of_the_checks() {
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
    // Invalid JIDs and encodings.
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
fn names_are_cleaned() {
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
    // Control characters are removed from the JID as well; the resource does not matter.
    for jid in ["romeo%00%0a@montague.tld", "Romeo@montague.tld/orchard"] {
        let slot = site.api_slot(&format!("jid={jid}&name=a&size=5"));
        assert!(slot.get.contains(ROMEO_FOLDER), "{slot:?}");
    }
}

#[test]
fn max_size() {
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
fn existing_files_count_at_the_first_request() {
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
    // Pipelined, so that the second waits behind one that waits for the store.
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
    // A client that disconnects while waiting does no harm.
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
fn double_encoded_urls() {
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
        // No other difference is accepted.
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
    // A name with a literal % is found under its own spelling first.
    let slot = site.upload("a%41.txt", None, b"itself");
    assert!(slot.get.ends_with("/a%2541.txt"), "{slot:?}");
    assert_eq!(site.get(&slot.get).is(200).body, b"itself");
    assert_eq!(site.get(&once_more(&slot.get)).is(200).body, b"itself");
    site.get(&slot.get.replace("%2541", "A")).is(404);
}
