//! The state of the checks over HTTP, and requests as the checks make them.

use std::io::Write;

use crate::client::{self, Connection, Limits, Route};
use crate::config::Config;
use crate::config::object_store::{GetMode, PutMode};
use crate::doctor::certificates;
use crate::doctor::judge::{Asked, Problem, Verdict, finding, unexpected};
use crate::doctor::proxy::Proxy;
use crate::doctor::report::{Finding, Report};
use crate::doctor::slots::{Slots, TestSlot};
use crate::http::client::Response;
use crate::http::head::RequestHead;
use crate::http::origin::Origin;
use crate::now::Now;
use crate::reactor::random;
use crate::service::{Decision, Service};
use crate::sys;

/// Collects findings, and shows each as soon as it is there.
pub struct Reporter<'a> {
    pub report: Report,
    /// Where lines are written, and whether with colours; `None` for JSON.
    pub lines: Option<(&'a mut dyn Write, bool)>,
}

impl Reporter<'_> {
    pub fn add(&mut self, finding: Finding) {
        if let Some((out, coloured)) = &mut self.lines {
            // A closed output is not an error.
            let _ = writeln!(out, "{}", finding.line(*coloured));
            let _ = out.flush();
        }
        self.report.findings.push(finding);
    }

    pub fn add_all(&mut self, findings: impl IntoIterator<Item = Finding>) {
        for finding in findings {
            self.add(finding);
        }
    }
}

impl std::fmt::Debug for Reporter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.report.fmt(f)
    }
}

/// The finding that not all checks were made, if so.
pub fn incomplete(limits: &Limits) -> Option<Finding> {
    let (problem, text) = match () {
        () if limits.is_interrupted() => ("interrupted", "the checks were interrupted"),
        () if limits.is_over() => ("time-limit", "the checks took too long"),
        () => return None,
    };
    let remedy = "run the checks again";
    Some(Finding::fail("complete", problem, text, remedy))
}

/// Which URL a request goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Put,
    Get,
}

/// The checks over HTTP in progress.
#[derive(Debug)]
pub struct Session<'a> {
    pub config: &'a Config,
    pub service: Service,
    /// `None` if the key that signs slots cannot be read.
    pub slots: Option<Slots>,
    pub put: Route,
    pub get: Route,
    /// Further addresses of the host of `put_url`.
    pub others: Vec<Route>,
    /// upslot's own listener, without a proxy.
    pub direct: Option<Route>,
    pub limits: Limits,
    pub now: Now,
    /// The proxy in front of either URL, as far as it is known.
    pub proxies: [Proxy; 2],
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// For messages, such as `PUT of 1 byte`.
    pub what: &'a str,
    pub method: &'a str,
    pub target: &'a str,
    pub fields: &'a [(&'a str, &'a str)],
    pub body: &'a [u8],
}

impl<'a> Session<'a> {
    pub fn route(&self, side: Side) -> &Route {
        match side {
            Side::Put => &self.put,
            Side::Get => &self.get,
        }
    }

    pub fn proxy(&self, side: Side) -> Proxy {
        self.proxies[usize::from(side == Side::Get)]
    }

    /// Notes which proxy a response comes from.
    pub fn recognise(&mut self, side: Side, response: &Response) {
        let known = &mut self.proxies[usize::from(side == Side::Get)];
        if *known == Proxy::Other {
            *known = Proxy::of(response);
        }
    }

    pub fn asked<'b>(&self, side: Side, what: &'b str) -> Asked<'b> {
        Asked {
            what,
            tls: self.route(side).origin.tls,
            proxy: self.proxy(side),
        }
    }

    /// Makes a request; a missing response is a problem.
    pub fn ask_upslot(&mut self, side: Side, request: Request<'_>) -> Result<Response, Problem> {
        let Request {
            what,
            method,
            target,
            fields,
            body,
        } = request;
        let route = self.route(side).clone();
        let response = client::request(&route, &self.limits, method, target, fields, body);
        let response = response.map_err(|why| self.no_response(side, what, &why))?;
        self.recognise(side, &response);
        Ok(response)
    }

    /// The same; a redirect to the object store is followed, as by clients.
    pub fn ask(&mut self, side: Side, request: Request<'_>) -> Result<Response, Problem> {
        let response = self.ask_upslot(side, request)?;
        let location = response.field("location");
        match location.filter(|_| side == Side::Get && self.redirects() && response.status == 307) {
            Some(location) => self.ask_store(location, request),
            None => Ok(response),
        }
    }

    /// Makes a request at a URL of the object store, as a client that follows a redirect.
    fn ask_store(&mut self, url: &str, request: Request<'_>) -> Result<Response, Problem> {
        let Request {
            what,
            method,
            fields,
            body,
            ..
        } = request;
        let failed = |why: String| {
            let text = format!("{what}: {why}");
            Problem::new(
                "store-unreachable",
                text,
                "see the lines about the store above",
            )
        };
        let (origin, target) = Origin::split(url)
            .ok_or_else(|| failed("the URL of the store is malformed".to_owned()))?;
        let tls = match origin.tls {
            true => certificates::config(rustls::ALL_VERSIONS).ok(),
            false => None,
        };
        let mut head = client::head(method, target, &origin, fields);
        head.extend_from_slice(body);
        let reached = client::reach(&origin, tls, &self.limits);
        reached
            .and_then(|(_, mut connection)| {
                connection.send(&head);
                connection.response(method == "HEAD")
            })
            .map_err(|why| failed(format!("{origin}: {why}")))
    }

    /// Whether clients download from the object store, to which upslot redirects them.
    pub fn redirects(&self) -> bool {
        let store = self.config.s3.as_deref();
        store.is_some_and(|store| store.get != GetMode::Relay)
    }

    /// Whether clients upload to the object store only.
    pub fn bypasses(&self) -> bool {
        let store = self.config.s3.as_deref();
        let is_direct = store.is_some_and(|store| store.put == PutMode::Direct);
        // Uploads that the XMPP server has signed come to upslot in any case.
        let config = self.config;
        is_direct && config.external_secret.is_none() && config.file_share_secret.is_none()
    }

    /// The URL of an upload to the object store.
    fn direct_url(&self, slot: &TestSlot, size: u64, content_type: &str) -> Option<String> {
        #[cfg(feature = "s3")]
        if let Some(bucket) = self.service.bucket().filter(|_| self.bypasses()) {
            let lifetime = self.config.put_timeout;
            return bucket.put_url(&slot.path, size, Some(content_type), lifetime, sys::now());
        }
        let _ = (slot, size, content_type);
        None
    }

    /// The same, and any other status is a problem.
    pub fn ask_for(
        &mut self,
        side: Side,
        status: u16,
        request: Request<'_>,
    ) -> Result<Response, Problem> {
        let response = self.ask(side, request)?;
        match response.status == status {
            true => Ok(response),
            false => Err(unexpected(&response, self.asked(side, request.what))),
        }
    }

    pub fn no_response(&self, side: Side, what: &str, why: &str) -> Problem {
        let origin = &self.route(side).origin;
        let text = format!("{what}: {origin}: {why}");
        Problem::new(
            "no-response",
            text,
            "check the log of the reverse proxy and that of upslot",
        )
    }

    /// Opens a connection to a URL's server.
    pub fn open(&self, side: Side, what: &str) -> Result<Connection, Problem> {
        let opened = Connection::open(self.route(side), &self.limits);
        opened.map_err(|error| self.no_response(side, what, &client::describe(&error)))
    }

    /// A slot for a test file.
    pub fn slot(
        &self,
        name: &str,
        size: u64,
        content_type: Option<&str>,
    ) -> Result<TestSlot, Problem> {
        let failed = || {
            Problem::new(
                "no-slot",
                "no slot can be signed",
                "check the system's random numbers",
            )
        };
        let slots = self.slots.as_ref().ok_or_else(failed)?;
        let random = random::bytes().ok_or_else(failed)?;
        slots
            .issue(name, size, content_type, &random, sys::now())
            .ok_or_else(failed)
    }

    /// Stores a test file; the response is 201, or 200 from an object store.
    pub fn store(
        &mut self,
        what: &str,
        slot: &TestSlot,
        bytes: &[u8],
        content_type: &str,
    ) -> Result<Response, Problem> {
        let length = bytes.len().to_string();
        let fields = [("Content-Type", content_type), ("Content-Length", &length)];
        let direct = self.direct_url(slot, bytes.len() as u64, content_type);
        let request = Request {
            what,
            method: "PUT",
            target: &slot.put,
            fields: &fields,
            body: bytes,
        };
        let Some(url) = direct else {
            return self.ask_for(Side::Put, 201, request);
        };
        let response = self.ask_store(&url, request)?;
        match response.status {
            200..300 => Ok(response),
            status => {
                let text = format!("{what}: the object store answers {status}");
                let remedy = "see the lines about the store above";
                Err(Problem::new("store-refused", text, remedy))
            }
        }
    }

    /// The response that upslot itself gives to a request without a body, if that needs no store.
    pub fn expected(&self, method: &str, target: &str) -> Response {
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: {}\r\n\r\n",
            self.put.origin.authority
        );
        let request = RequestHead::parse(head.as_bytes()).ok();
        let answer = request.and_then(|request| match self.service.decide(&request, self.now) {
            Decision::Answer(answer) => Response::of_head(&answer.head),
            _ => None,
        });
        answer.unwrap_or_default()
    }

    /// Whether the checks that follow are skipped; adds a finding for each of them then.
    pub fn skips(
        &self,
        checks: &[&'static str],
        why: Option<&str>,
        out: &mut Reporter<'_>,
    ) -> bool {
        let why = match why {
            _ if self.limits.is_interrupted() => "interrupted",
            _ if self.limits.is_over() => "the time is up",
            Some(why) => why,
            None => return false,
        };
        out.add_all(checks.iter().map(|check| Finding::skipped(check, why)));
        true
    }

    /// Runs one check, unless the command is to end.
    pub fn run(
        &mut self,
        check: &'static str,
        out: &mut Reporter<'_>,
        body: impl FnOnce(&mut Session<'a>) -> Verdict,
    ) {
        if self.skips(&[check], None, out) {
            return;
        }
        let verdict = body(self);
        out.add(match self.limits.is_interrupted() {
            true => Finding::skipped(check, "interrupted"),
            false => finding(check, verdict),
        });
    }
}
