//! Checks of downloads: content, fields, ranges, conditions, missing files.

use std::time::SystemTime;

use crate::doctor::judge::{self, Problem, Verdict, unexpected};
use crate::doctor::proxy;
use crate::doctor::report::Finding;
use crate::doctor::session::{Reporter, Request, Session, Side};
use crate::doctor::slots::TestSlot;
use crate::doctor::uploads::{TEXT, cors_of, get};
use crate::http::client::Response;
use crate::http::head::RequestHead;
use crate::service::StoredFile;

/// The checks of one download.
const CHECKS: [&str; 7] = [
    "download",
    "download-cors",
    "download-fields",
    "download-caching",
    "head",
    "range",
    "not-modified",
];

/// The range that is requested.
const RANGE: [usize; 2] = [100, 199];

/// The text that is stored: long enough to be compressed.
fn text() -> Vec<u8> {
    let lines = (0..100).map(|n| format!("Line {n} of a test file of upslot doctor.\n"));
    lines.collect::<String>().into_bytes()
}

/// Whether a request for a file that does not exist gets upslot's 404, with CORS fields.
pub fn not_found(session: &mut Session<'_>, slot: &TestSlot) -> Verdict {
    let what = "GET of a missing file";
    let response = session.ask(Side::Get, get(what, &slot.get))?;
    let proxy = session.proxy(Side::Get);
    match response.status {
        404 if session.redirects() => judge::cors("404", &cors_of(session), &response, proxy),
        404 => judge::cors("404", &expected_cors(session), &response, proxy),
        200 => {
            let text = format!("{what}: 200, although it is not stored yet");
            let remedy = "another site or program answers here: get_url must lead to upslot";
            Err(Problem::new("not-upslot", text, remedy))
        }
        _ => Err(unexpected(&response, session.asked(Side::Get, what))),
    }
}

/// Stores a text, and reads it in all ways that clients do. Returns the slot of the text.
pub fn check(session: &mut Session<'_>, out: &mut Reporter<'_>) -> Option<TestSlot> {
    let bytes = text();
    let slot = match session.slot("text.txt", bytes.len() as u64, Some(TEXT)) {
        Ok(slot) => slot,
        Err(problem) => {
            out.add(problem.finding("download"));
            return None;
        }
    };
    // Before the file is stored: a cache may keep this answer.
    session.run("not-found", out, |session| not_found(session, &slot));
    let mut found = None;
    session.run("download", out, |session| {
        session.store("PUT of a text", &slot, &bytes, TEXT)?;
        let response = get_compressible(session, &slot)?;
        let expected = expected(session, &slot, bytes.len(), &response);
        let proxy = session.proxy(Side::Get);
        let verdict = judge::content(&expected, &bytes, &response, proxy);
        found = Some((expected, response));
        verdict
    });
    let why = "no download";
    if found.is_none() {
        out.add_all(CHECKS[1..].iter().map(|check| Finding::skipped(check, why)));
        return None;
    }
    let (expected, response) = found.unwrap_or_default();
    fields(session, out, &slot, &expected, &response);
    variants(session, out, &slot, &bytes, &response);
    Some(slot)
}

/// Downloads a file as browsers do.
fn get_compressible(session: &mut Session<'_>, slot: &TestSlot) -> Result<Response, Problem> {
    let fields = [
        ("Origin", "https://web.example"),
        ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ];
    let request = Request {
        fields: &fields,
        ..get("GET of a text", &slot.get)
    };
    session.ask_for(Side::Get, 200, request)
}

/// The response that upslot itself gives. Where another web server serves the files, only what upslot's documentation
/// asks of it.
fn expected(session: &Session<'_>, slot: &TestSlot, size: usize, found: &Response) -> Response {
    if !session.config.serve_downloads || session.redirects() {
        let kept = [
            "content-type",
            "cache-control",
            "content-security-policy",
            "content-disposition",
        ];
        let mut response = expected_cors(session);
        let fields = found
            .fields
            .iter()
            .filter(|(name, _)| kept.contains(&name.as_str()));
        response.fields.extend(fields.cloned());
        let mut require = |name: &str, value: &str| {
            if response.field(name).is_none() {
                response.fields.push((name.to_owned(), value.to_owned()));
            }
        };
        // An object store has its own fields, which the checks of the store judge.
        if !session.redirects() {
            require("x-content-type-options", "nosniff");
            require("content-security-policy", "default-src 'none'");
        }
        return response;
    }
    let head = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\n\r\n",
        slot.get, session.get.origin.authority
    );
    let Ok(request) = RequestHead::parse(head.as_bytes()) else {
        return Response::default();
    };
    let wall: SystemTime = session.now.wall;
    let file = StoredFile {
        size: size as u64,
        modified: wall,
        stored: wall,
        content_type: Some(TEXT.to_owned()),
        // The bytes of an object are not examined for their charset.
        utf8: session.config.s3.is_none() && session.service.shows_charset(&slot.path, Some(TEXT)),
    };
    let answer = session
        .service
        .download(&request, &slot.path, &file, session.now);
    Response::of_head(&answer.head).unwrap_or_default()
}

/// The CORS fields that downloads need. Those of an object store are checked with the store.
fn expected_cors(session: &Session<'_>) -> Response {
    let mut response = Response::default();
    if session.redirects() {
        return response;
    }
    if session.config.serve_downloads {
        return cors_of(session);
    }
    if session.config.allow_web_clients {
        let field = ("access-control-allow-origin".to_owned(), "*".to_owned());
        response.fields.push(field);
    }
    response
}

/// Judges the fields of the download.
fn fields(
    session: &mut Session<'_>,
    out: &mut Reporter<'_>,
    slot: &TestSlot,
    expected: &Response,
    found: &Response,
) {
    if session.redirects() {
        session.run("download-cors", out, |session| redirect(session, slot));
        let why = "the object store sends its own fields (see store-url-get)";
        out.add(Finding::skipped("download-fields", why));
    } else {
        upslot_fields(session, out, expected, found);
    }
    session.run("download-caching", out, |_| {
        judge::validators(expected, found)
    });
}

/// Whether web clients may follow upslot to the object store.
fn redirect(session: &mut Session<'_>, slot: &TestSlot) -> Verdict {
    let answer = session.ask_upslot(Side::Get, get("GET of a text", &slot.get))?;
    let proxy = session.proxy(Side::Get);
    judge::cors("the redirect", &cors_of(session), &answer, proxy)
}

/// Judges the fields that upslot adds.
fn upslot_fields(
    session: &mut Session<'_>,
    out: &mut Reporter<'_>,
    expected: &Response,
    found: &Response,
) {
    session.run("download-cors", out, |session| {
        judge::cors("the download", expected, found, session.proxy(Side::Get))
    });
    session.run("download-fields", out, |_| judge::security(expected, found));
}

/// HEAD, a range, and a conditional request.
fn variants(
    session: &mut Session<'_>,
    out: &mut Reporter<'_>,
    slot: &TestSlot,
    bytes: &[u8],
    response: &Response,
) {
    session.run("head", out, |session| {
        let request = Request {
            method: "HEAD",
            fields: &[("Accept-Encoding", "gzip, br")],
            ..get("HEAD", &slot.get)
        };
        let head = session.ask_for(Side::Get, 200, request)?;
        judge::length(bytes.len(), &head, session.proxy(Side::Get))
    });
    session.run("range", out, |session| {
        let [first, last] = RANGE;
        let range = format!("bytes={first}-{last}");
        let request = Request {
            fields: &[("Range", &range)],
            ..get("GET of a range", &slot.get)
        };
        let part = session.ask(Side::Get, request)?;
        judge::range(bytes, RANGE, &part)
    });
    session.run("not-modified", out, |session| {
        let etag = response.field("etag").unwrap_or("*");
        let request = Request {
            fields: &[("If-None-Match", etag)],
            ..get("GET of a known file", &slot.get)
        };
        let answer = session.ask(Side::Get, request)?;
        judge::conditional(&answer)?;
        let proxy = session.proxy(Side::Get);
        judge::cors("304", &expected_cors(session), &answer, proxy)
    });
}

/// Whether a file that was removed is still served.
pub fn removed(session: &mut Session<'_>, slot: &TestSlot) -> Verdict {
    let response = session.ask(Side::Get, get("GET of a removed file", &slot.get))?;
    let proxy = session.proxy(Side::Get);
    match response.status {
        404 => Ok("a removed file is not served any more".to_owned()),
        200 => {
            let text = format!("{} serves a file that upslot has removed", proxy.name());
            Err(Problem::new("cached", text, proxy::remedy("cached", proxy)).minor())
        }
        _ => Err(unexpected(
            &response,
            session.asked(Side::Get, "GET of a removed file"),
        )),
    }
}
