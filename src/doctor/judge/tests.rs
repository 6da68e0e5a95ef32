use super::*;

fn response(status: u16, fields: &[(&str, &str)], body: &str) -> Response {
    let field = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Response {
        minor: 1,
        status,
        fields: fields.iter().map(field).collect(),
        body: body.into(),
    }
}

const PLAIN: (&str, &str) = ("content-type", "text/plain; charset=utf-8");

#[track_caller]
fn check(verdict: Verdict, problem: Option<&str>) {
    match (verdict, problem) {
        (Ok(found), None) => assert!(!found.is_empty()),
        (Err(found), Some(name)) => {
            assert_eq!(found.name, name, "{found:?}");
            for line in [&found.found, &found.remedy] {
                let is_clause = !line.is_empty() && !line.contains('\n') && !line.ends_with('.');
                assert!(is_clause, "{line:?}");
            }
        }
        (verdict, problem) => panic!("{verdict:?} instead of {problem:?}"),
    }
}

#[test]
fn unexpected_statuses_are_named() {
    let asked = |tls, proxy| Asked {
        what: "PUT",
        tls,
        proxy,
    };
    let html = [("content-type", "text/html"), ("server", "nginx")];
    for (status, problem) in [
        (400, "not-upslot"),
        (401, "proxy-authentication"),
        (403, "method-refused"),
        (404, "not-upslot"),
        (405, "method-refused"),
        (408, "slow-upload-cut"),
        (411, "chunked-refused"),
        (413, "body-limit"),
        (417, "expect-refused"),
        (500, "proxy-error"),
        (501, "method-refused"),
        (502, "bad-gateway"),
        (503, "bad-gateway"),
        (504, "bad-gateway"),
        (200, "not-upslot"),
    ] {
        let page = response(status, &html, "<html>");
        let found = unexpected(&page, asked(true, Proxy::Nginx));
        assert!(
            found.found.contains(&format!("nginx answers {status}")),
            "{found:?}"
        );
        check(Err(found), Some(problem));
    }
    let body = "The URL's signature is not valid for this path.\n";
    let denied = response(403, &[PLAIN], body);
    assert!(is_denied(&denied));
    check(
        Err(unexpected(&denied, asked(true, Proxy::Other))),
        Some("path-changed"),
    );
    let full = response(507, &[PLAIN], "The service's disk is full.\n");
    let found = unexpected(&full, asked(true, Proxy::Other));
    assert!(
        found
            .found
            .contains("upslot answers 507: The service's disk is full")
    );
    check(Err(found), Some("refused"));
}

#[test]
fn redirects_are_named() {
    for (tls, to, remedy) in [
        (false, "https://up.example/a", "https:"),
        (true, "https://up.example/a/", "remove the redirect"),
        (false, "http://other.example/", "remove the redirect"),
    ] {
        let moved = response(301, &[("location", to)], "");
        let asked = Asked {
            what: "PUT",
            tls,
            proxy: Proxy::Nginx,
        };
        let found = unexpected(&moved, asked);
        assert!(
            found.found.ends_with(to) && found.remedy.contains(remedy),
            "{found:?}"
        );
        check(Err(found), Some("redirect"));
    }
}

#[test]
fn cors_fields_occur_once() {
    let origin = ("access-control-allow-origin", "*");
    let expose = ("access-control-expose-headers", "ETag");
    let expected = response(200, &[origin, expose], "");
    for (fields, problem) in [
        (&[origin, expose][..], None),
        (&[("server", "x"), expose, origin], None),
        (&[origin], Some("cors-missing")),
        (&[], Some("cors-missing")),
        (&[origin, expose, origin], Some("cors-duplicated")),
        (
            &[("access-control-allow-origin", "*, *"), expose],
            Some("cors-duplicated"),
        ),
        (
            &[("access-control-allow-origin", "https://a.example"), expose],
            Some("cors-changed"),
        ),
    ] {
        let found = response(200, fields, "");
        check(cors("GET", &expected, &found, Proxy::Caddy), problem);
    }
    // With allow_web_clients: false, none is needed.
    check(
        cors(
            "GET",
            &response(200, &[], ""),
            &response(200, &[], ""),
            Proxy::Other,
        ),
        None,
    );
}

#[test]
fn security_fields_arrive() {
    let nosniff = ("x-content-type-options", "nosniff");
    let policy = ("content-security-policy", "default-src 'none'");
    let expected = response(200, &[nosniff, policy], "");
    for (fields, problem) in [
        (&[policy, nosniff][..], None),
        (&[nosniff], Some("security-field-missing")),
        (
            &[nosniff, policy, policy],
            Some("security-field-duplicated"),
        ),
        (
            &[nosniff, ("content-security-policy", "x")],
            Some("security-field-changed"),
        ),
        (
            &[nosniff, policy, ("content-disposition", "inline")],
            Some("security-field-changed"),
        ),
    ] {
        check(security(&expected, &response(200, fields, "")), problem);
    }
}

#[test]
fn validators_arrive() {
    let (etag, ranges) = (("etag", "\"a\""), ("accept-ranges", "bytes"));
    let (modified, control) = (
        ("last-modified", "x"),
        ("cache-control", "max-age=9, immutable, no-transform"),
    );
    let expected = response(200, &[etag, ranges, modified, control], "");
    for (fields, problem) in [
        (
            &[
                etag,
                ranges,
                modified,
                ("cache-control", "max-age=8,immutable, no-transform"),
            ][..],
            None,
        ),
        (&[("etag", "\"b\""), ranges, modified, control], None),
        (&[ranges, modified, control], Some("etag-missing")),
        (
            &[("etag", "W/\"a\""), ranges, modified, control],
            Some("etag-weakened"),
        ),
        (&[etag, modified, control], Some("validator-missing")),
        (&[etag, ranges, control], Some("validator-missing")),
        (&[etag, ranges, modified], Some("cache-control-changed")),
        (
            &[etag, ranges, modified, control, ("cache-control", "public")],
            Some("cache-control-changed"),
        ),
    ] {
        check(validators(&expected, &response(200, fields, "")), problem);
    }
}

#[test]
fn downloads_come_back_unchanged() {
    let (length, kind) = (("content-length", "4"), ("content-type", "text/plain"));
    let expected = response(200, &[length, kind], "");
    for (fields, body, problem) in [
        (&[length, kind][..], "text", None),
        (
            &[length, kind, ("content-encoding", "gzip")],
            "text",
            Some("compressed"),
        ),
        (&[length, kind], "next", Some("content-changed")),
        (&[kind], "text", Some("length-missing")),
        (&[length], "text", Some("content-type-changed")),
        (
            &[length, ("content-type", "text/html")],
            "text",
            Some("content-type-changed"),
        ),
        (&[length, kind, kind], "text", Some("content-type-changed")),
    ] {
        check(
            content(
                &expected,
                b"text",
                &response(200, fields, body),
                Proxy::Other,
            ),
            problem,
        );
    }
    let shorter = response(200, &[("content-length", "3")], "");
    check(length_of(&shorter), Some("compressed"));
}

fn length_of(found: &Response) -> Verdict {
    length(4, found, Proxy::Nginx)
}

#[test]
fn ranges_and_conditions() {
    let part = |value: &str, body: &str| response(206, &[("content-range", value)], body);
    for (found, problem) in [
        (part("bytes 1-2/4", "ex"), None),
        (part("bytes 1-2/4", "te"), Some("range-wrong")),
        (part("bytes 0-2/4", "ex"), Some("range-wrong")),
        (response(200, &[], "text"), Some("range-ignored")),
        (response(416, &[], ""), Some("range-ignored")),
    ] {
        check(range(b"text", [1, 2], &found), problem);
    }
    check(conditional(&response(304, &[], "")), None);
    check(
        conditional(&response(200, &[], "")),
        Some("condition-ignored"),
    );
}

#[test]
fn clocks_are_compared() {
    let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let now = at(1_800_000_000);
    for (date, problem, minor) in [
        (now, None, false),
        (at(1_800_000_005), None, false),
        (at(1_800_000_006), Some("clock-skew"), true),
        (at(1_799_999_990), Some("clock-skew"), true),
        (at(1_800_000_061), Some("clock-skew"), false),
        (at(1_799_990_000), Some("clock-skew"), false),
    ] {
        let verdict = clock(date, now);
        if let Err(problem) = &verdict {
            assert_eq!(problem.minor, minor, "{date:?}");
        }
        check(verdict, problem);
    }
}

#[test]
fn an_announced_file_is_judged() {
    check(announced("1 MiB", Announced::Continue, Proxy::Nginx), None);
    check(
        announced("1 MiB", Announced::Silence, Proxy::Nginx),
        Some("expect-ignored"),
    );
    let caddy = announced("1 MiB", Announced::Continue, Proxy::Caddy).unwrap();
    assert!(caddy.contains("--full"), "{caddy}");
}

#[test]
fn a_problem_becomes_a_finding() {
    let problem = Problem::of_proxy("compressed", "gzip", Proxy::Nginx);
    let failed = finding("download", Err(problem.clone()));
    assert_eq!(failed.status.name(), "fail");
    assert_eq!(failed.remedy.as_deref(), Some("gzip off; in the location"));
    assert_eq!(
        finding("download", Err(problem.minor())).status.name(),
        "notice"
    );
    assert_eq!(
        finding("download", Ok("fine".to_owned())).status.name(),
        "ok"
    );
}
