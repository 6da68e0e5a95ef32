//! The running upslot itself, without a proxy: its listener and `/health`.

use std::net::SocketAddr;

use crate::client::{self, Endpoint, Limits, Route};
use crate::config::{Config, Listen};
use crate::doctor::certificates;
use crate::doctor::report::{Finding, quoted};
use crate::health;
use crate::http::client::Response;
use crate::http::origin::Origin;
use crate::metrics::LinkStatus;

/// Requests the public page of upslot's own listener. Returns how to reach it.
pub fn listener(config: &Config, origin: &Origin, limits: &Limits) -> (Finding, Option<Route>) {
    let tls = config.tls.is_some();
    let tls = tls
        .then(|| certificates::config(rustls::ALL_VERSIONS).ok())
        .flatten();
    let mut failures = Vec::new();
    for endpoint in endpoints(&config.listen) {
        let route = Route {
            endpoint,
            origin: origin.clone(),
            tls: tls.clone(),
        };
        let shown = route.endpoint.to_string();
        match client::request(&route, limits, "GET", "/", &[], b"") {
            Ok(response) if is_page(&response) => {
                let finding = Finding::ok("listener", format!("upslot answers at {shown}"));
                return (finding, Some(route));
            }
            Ok(response) => failures.push(format!(
                "{shown}: another program answers {}",
                response.status
            )),
            Err(why) => failures.push(format!("{shown}: {why}")),
        }
    }
    let finding = match failures.is_empty() {
        true => Finding::skipped(
            "listener",
            "the port of http_address is chosen by the system",
        ),
        false => {
            let remedy = "start upslot (systemctl start upslot) and see its log; other checks go on, because it may run elsewhere";
            Finding::fail("listener", "not-running", failures.join("; "), remedy)
        }
    };
    (finding, None)
}

/// Whether a response is upslot's public page.
fn is_page(response: &Response) -> bool {
    let mark = health::PAGE_MARK.as_bytes();
    let has_mark = response
        .body
        .windows(mark.len())
        .any(|window| window == mark);
    response.status == 200 && has_mark
}

/// Requests `/health`; also returns what it says about the link.
pub fn api(config: &Config, limits: &Limits) -> (Finding, Option<LinkStatus>) {
    let Some(api) = &config.api else {
        return (Finding::skipped("api", "api is not set"), None);
    };
    let token = api.token.as_ref();
    let token = token.map(|token| format!("Bearer {}", token.expose()));
    let fields: Vec<(&str, &str)> = token
        .iter()
        .map(|t| ("Authorization", t.as_str()))
        .collect();
    let mut failures = Vec::new();
    for endpoint in endpoints(&api.listen) {
        let shown = endpoint.to_string();
        let Some((origin, _)) = Origin::split("http://localhost/") else {
            break;
        };
        let route = Route {
            endpoint,
            origin,
            tls: None,
        };
        match client::request(&route, limits, "GET", "/health", &fields, b"") {
            Ok(response) => return judge_health(&shown, &response),
            Err(why) => failures.push(format!("{shown}: {why}")),
        }
    }
    let remedy = "start upslot, and check address and port of api";
    (
        Finding::fail("api", "api", failures.join("; "), remedy),
        None,
    )
}

/// Judges the answer to `/health`.
fn judge_health(shown: &str, response: &Response) -> (Finding, Option<LinkStatus>) {
    let body = String::from_utf8_lossy(&response.body);
    let has = |line: &str| body.lines().any(|found| found == line);
    let link = match () {
        () if has("link up") => Some(LinkStatus::Up),
        () if has("link down") => Some(LinkStatus::Down),
        () if has("link none") => Some(LinkStatus::None),
        () => None,
    };
    let text = format!("{shown}/health: {}", quoted(&response.body));
    let finding = match response.status {
        200 if link.is_some() => Finding::ok("api", text),
        503 if link == Some(LinkStatus::Down) => Finding::fail(
            "api",
            "link-down",
            text,
            "see the line component below, and \"link down\" in the log of upslot",
        ),
        503 if link.is_some() => Finding::fail(
            "api",
            "store-failing",
            text,
            "see the lines about storage, and \"store failed\" in the log of upslot",
        ),
        403 => Finding::skipped(
            "api",
            format!("{shown}: api.allow does not include this machine"),
        ),
        status => {
            let text = format!("{shown}/health: {status}");
            Finding::fail(
                "api",
                "api",
                text,
                "check port and token of api: another program or configuration answers",
            )
        }
    };
    (finding, link)
}

/// The addresses at which this machine reaches listeners.
fn endpoints(listeners: &[Listen]) -> Vec<Endpoint> {
    let addresses = listeners.iter().flat_map(|listen| match listen {
        Listen::Unix(path) => vec![Endpoint::Unix(path.clone())],
        Listen::Tcp(address) if address.port() == 0 => Vec::new(),
        Listen::Tcp(address) => {
            let reachable: Vec<SocketAddr> = health::reachable(*address);
            reachable.into_iter().map(Endpoint::Tcp).collect()
        }
    });
    addresses.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::report::Status;

    #[test]
    fn health_is_judged() {
        for (status, body, expected, link) in [
            (
                200,
                "link up\nstore good\n",
                (Status::Ok, None),
                Some(LinkStatus::Up),
            ),
            (
                200,
                "link none\nstore good\n",
                (Status::Ok, None),
                Some(LinkStatus::None),
            ),
            (
                503,
                "link down\nstore good\n",
                (Status::Fail, Some("link-down")),
                Some(LinkStatus::Down),
            ),
            (
                503,
                "link up\nstore full\n",
                (Status::Fail, Some("store-failing")),
                Some(LinkStatus::Up),
            ),
            (403, "no\n", (Status::Skipped, None), None),
            (401, "no\n", (Status::Fail, Some("api")), None),
            (200, "hello\n", (Status::Fail, Some("api")), None),
        ] {
            let response = Response {
                status,
                body: body.into(),
                ..Response::default()
            };
            let (finding, found) = judge_health("127.0.0.1:1", &response);
            assert_eq!(
                (finding.status, finding.problem),
                expected,
                "{status} {body}"
            );
            assert_eq!(found, link);
        }
    }
}
