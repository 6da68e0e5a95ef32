//! Checks of uploads: preflight, PUT, names, chunks, the path through the proxy.

use crate::client;
use crate::doctor::judge::{self, Problem, Verdict, is_denied, unexpected};
use crate::doctor::proxy::{self, Proxy, is_from_upslot};
use crate::doctor::report::{Finding, quoted};
use crate::doctor::session::{Reporter, Request, Session, Side};
use crate::http::client::Response;
use crate::http::cors::METHODS;
use crate::sys;

/// The checks of one upload.
pub const CHECKS: [&str; 3] = ["upload", "http-version", "upload-response"];

/// Why a check of uploads through upslot is skipped.
pub const BYPASS: &str = "clients upload to the object store (put: direct)";

/// The type of the test files.
pub const TEXT: &str = "text/plain";

/// A name with everything that proxies like to change.
const HARD_NAME: &str = "Prüfung 100% #1?.txt";

/// Names with one such thing each, to find out which one is changed.
const SUSPECTS: [(&str, &str); 5] = [
    ("blanks", "a b.txt"),
    ("%", "a%41.txt"),
    ("#", "a#b.txt"),
    ("?", "a?b.txt"),
    ("umlauts", "äöü.txt"),
];

/// Who answers requests to `put_url`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    Upslot,
    /// A proxy, or another program.
    Other,
    Nothing,
}

/// The fields of a browser's preflight request (Fetch standard).
const PREFLIGHT: [(&str, &str); 3] = [
    ("Origin", "https://web.example"),
    ("Access-Control-Request-Method", "PUT"),
    ("Access-Control-Request-Headers", "content-type"),
];

/// The preflight request, which is also the simplest one that upslot answers itself; and the clock, which slots depend on.
pub fn preflight(session: &mut Session<'_>, out: &mut Reporter<'_>) -> Reached {
    let mut reached = Reached::Nothing;
    let mut date = None;
    session.run("preflight", out, |session| {
        let target = session.config.put_url.path.clone();
        let expected = session.expected("OPTIONS", &target);
        let request = Request {
            what: "OPTIONS",
            method: "OPTIONS",
            target: &target,
            fields: &PREFLIGHT,
            body: b"",
        };
        let response = session.ask(Side::Put, request)?;
        let field = response.field("date");
        date = field.and_then(|date| httpdate::parse_http_date(date).ok());
        reached = match is_answer_to_options(&response) {
            true => Reached::Upslot,
            false => Reached::Other,
        };
        let (asked, proxy) = (
            session.asked(Side::Put, "OPTIONS"),
            session.proxy(Side::Put),
        );
        match response.status {
            200 | 204 => judge::cors("the answer to OPTIONS", &expected, &response, proxy),
            _ => Err(unexpected(&response, asked)),
        }
    });
    match date {
        None => out.add(Finding::skipped("clock", "there is no answer with a Date")),
        Some(date) => session.run("clock", out, |_| judge::clock(date, sys::now().wall)),
    }
    reached
}

fn is_answer_to_options(response: &Response) -> bool {
    response.status == 204 && response.field("allow") == Some(METHODS)
}

/// Whether the other addresses of the host lead to upslot, too.
pub fn other_addresses(session: &mut Session<'_>, out: &mut Reporter<'_>) {
    for route in std::mem::take(&mut session.others) {
        session.run("other-address", out, |session| {
            let shown = route.endpoint.to_string();
            let target = &session.config.put_url.path;
            let response = client::request(&route, &session.limits, "OPTIONS", target, &[], b"");
            let found = match response {
                Ok(response) if is_answer_to_options(&response) => {
                    return Ok(format!("{shown} leads to upslot, too"));
                }
                Ok(response) => format!("{shown} answers {} to OPTIONS", response.status),
                Err(why) => format!("{shown}: {why}"),
            };
            let text = format!("{found}, unlike {}", session.put.endpoint);
            let remedy = "let every address of the name lead to the same site (nginx: listen on IPv4 and IPv6), or remove the DNS record";
            Err(Problem::new("address-differs", text, remedy))
        });
    }
}

/// Stores a file of one byte. Returns whether uploads work.
pub fn upload(session: &mut Session<'_>, out: &mut Reporter<'_>) -> bool {
    let what = "PUT of 1 byte";
    let mut stored = None;
    session.run("upload", out, |session| {
        let slot = session.slot("upslot-doctor.txt", 1, Some(TEXT))?;
        let begun = sys::monotonic();
        match session.store(what, &slot, b"1", TEXT) {
            Ok(response) => {
                let (status, ms) = (response.status, begun.elapsed().as_millis());
                let text = format!("{what}: {status} in {ms} ms");
                stored = Some((slot, response));
                Ok(text)
            }
            Err(problem) => Err(explain(session, problem)),
        }
    });
    let Some((slot, response)) = stored else {
        let why = "uploads do not work (see upload)";
        out.add_all(CHECKS[1..].iter().map(|check| Finding::skipped(check, why)));
        return false;
    };
    if session.bypasses() {
        out.add_all(
            CHECKS[1..]
                .iter()
                .map(|check| Finding::skipped(check, BYPASS)),
        );
        return true;
    }
    session.run("http-version", out, |_| match response.minor {
        0 => {
            let remedy = "let the web server speak HTTP/1.1 to clients, so that connections are reused and chunked uploads work";
            Err(Problem::new("http-1.0", "the responses are HTTP/1.0", remedy).minor())
        }
        _ => Ok("the responses are HTTP/1.1".to_owned()),
    });
    session.run("upload-response", out, |session| {
        let proxy = session.proxy(Side::Put);
        match response.field("location") {
            Some(location) if location == slot.url => {}
            other => {
                let text = format!("Location is changed to {}", quoted(other.unwrap_or("nothing")));
                let remedy = match proxy {
                    Proxy::Nginx => "proxy_redirect off; or reload upslot, if get_url has changed",
                    Proxy::Apache => "remove ProxyPassReverse, or reload upslot, if get_url has changed",
                    _ => "let the proxy pass Location on unchanged, or reload upslot, if get_url has changed",
                };
                return Err(Problem::new("location-changed", text, remedy).minor());
            }
        }
        judge::cors("the answer to PUT", &cors_of(session), &response, proxy)
    });
    true
}

/// The CORS fields of every response.
pub fn cors_of(session: &Session<'_>) -> Response {
    let answer = session.service.not_found();
    Response::of_head(&answer.head).unwrap_or_default()
}

/// Finds out more about a failed upload by going around the proxy.
fn explain(session: &mut Session<'_>, problem: Problem) -> Problem {
    let Some(direct) = session.direct.clone() else {
        return problem;
    };
    let shown = direct.endpoint.to_string();
    match problem.name {
        "path-changed" => {
            let Ok(slot) = session.slot("upslot-doctor.txt", 1, None) else {
                return problem;
            };
            let fields = [("Content-Length", "1")];
            let response =
                client::request(&direct, &session.limits, "PUT", &slot.put, &fields, b"1");
            match response {
                Ok(response) if response.status == 201 => Problem {
                    found: format!(
                        "{}; at {shown}, without the proxy, an upload works, so the proxy changes the path",
                        problem.found
                    ),
                    ..problem
                },
                Ok(response) if is_denied(&response) => Problem::new(
                    "secret-differs",
                    format!(
                        "upslot at {shown} does not accept slots that are signed with the configured key"
                    ),
                    "restart upslot if slot_secret or put_url has changed, and check that this configuration and storage_path are those of the running upslot",
                ),
                _ => problem,
            }
        }
        "bad-gateway" => Problem {
            found: format!("{}, but upslot answers at {shown}", problem.found),
            ..problem
        },
        _ => problem,
    }
}

/// Stores and reads a file whose name proxies like to change.
pub fn names(session: &mut Session<'_>) -> Verdict {
    let failed = match round_trip(
        session,
        "PUT of a name with blanks, %, #, ? and umlauts",
        HARD_NAME,
    ) {
        Ok(()) => return Ok("blanks, %, #, ? and umlauts in names arrive unchanged".to_owned()),
        Err(problem) => problem,
    };
    let mut changed = Vec::new();
    for (what, name) in SUSPECTS {
        if session.limits.is_over() {
            break;
        }
        if round_trip(session, what, name).is_err() {
            changed.push(what);
        }
    }
    let proxy = session.proxy(Side::Put);
    let which = match changed.is_empty() {
        true => String::new(),
        false => format!("; names with {} fail", changed.join(", ")),
    };
    Err(Problem::of_proxy(
        "name-decoded",
        format!("{}{which}", failed.found),
        proxy,
    ))
}

fn round_trip(session: &mut Session<'_>, what: &str, name: &str) -> Result<(), Problem> {
    let slot = session.slot(name, 5, Some(TEXT))?;
    session.store(what, &slot, b"names", TEXT)?;
    let what = what.replacen("PUT", "GET", 1);
    let response = session.ask_for(Side::Get, 200, get(&what, &slot.get))?;
    match response.body == b"names" {
        true => Ok(()),
        false => Err(Problem::new(
            "content-changed",
            "another file came back",
            "",
        )),
    }
}

/// A GET without further fields.
pub fn get<'a>(what: &'a str, target: &'a str) -> Request<'a> {
    Request {
        what,
        method: "GET",
        target,
        fields: &[],
        body: b"",
    }
}

/// Stores a file that is sent in chunks (RFC 9112 §7.1).
pub fn chunked(session: &mut Session<'_>) -> Verdict {
    let what = "PUT in chunks";
    let slot = session.slot("chunked.txt", 8, Some(TEXT))?;
    let fields = [("Content-Type", TEXT), ("Transfer-Encoding", "chunked")];
    let request = Request {
        what,
        method: "PUT",
        target: &slot.put,
        fields: &fields,
        body: b"4\r\nchun\r\n4\r\nked!\r\n0\r\n\r\n",
    };
    let response = session.ask(Side::Put, request)?;
    match response.status {
        201 => Ok("uploads in chunks arrive".to_owned()),
        status if is_from_upslot(&response) || status == 413 => {
            Err(unexpected(&response, session.asked(Side::Put, what)))
        }
        status => {
            let proxy = session.proxy(Side::Put);
            let text = format!("{what}: {} answers {status}", proxy.name());
            Err(Problem::of_proxy("chunked-refused", text, proxy))
        }
    }
}

/// Whether `Authorization` arrives, which only tokens of Prosody's mod_http_file_share need. An invalid token and a
/// missing one get different answers.
pub fn authorization(session: &mut Session<'_>, out: &mut Reporter<'_>) {
    if session.config.file_share_secret.is_none() {
        let why = "only file_share_secret needs Authorization, and it is not set";
        return out.add(Finding::skipped("authorization", why));
    }
    session.run("authorization", out, |session| {
        let target = format!("{}upslot-doctor/token.txt", session.config.put_url.path);
        let fields = [
            ("Authorization", "Bearer upslot.doctor.test"),
            ("Content-Length", "1"),
        ];
        let request = Request {
            what: "PUT with a token",
            method: "PUT",
            target: &target,
            fields: &fields,
            body: b"1",
        };
        let response = session.ask(Side::Put, request)?;
        let proxy = session.proxy(Side::Put);
        if !is_from_upslot(&response) {
            return Err(unexpected(
                &response,
                session.asked(Side::Put, request.what),
            ));
        }
        match response.body.starts_with(b"The upload needs the token") {
            true => Err(Problem::new(
                "authorization-dropped",
                "the proxy does not pass Authorization on",
                proxy::remedy("authorization-dropped", proxy),
            )),
            false => Ok("Authorization arrives".to_owned()),
        }
    });
}
