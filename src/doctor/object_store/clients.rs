//! The checks of what clients do at the store: reach it, trust its certificate, upload, download, and ask for CORS.

use crate::client;
use crate::config::ObjectStore;
use crate::config::object_store::{GetMode, PutMode};
use crate::doctor::certificates;
use crate::doctor::judge::Problem;
use crate::doctor::object_store::{BODY, Check, LIFETIME, failed, unreachable, wrong};
use crate::doctor::report::Finding;
use crate::http::client::Response;
use crate::http::origin::Origin;
use crate::s3::bucket::Shown;
use crate::s3::error::StoreFailure;
use crate::sys;

/// The checks that need an answer of the public endpoint.
const SENT_BY_CLIENTS: [&str; 5] = [
    "store-url-put",
    "store-url-type",
    "store-url-get",
    "store-anonymous",
    "store-cors",
];

/// Problems of certificates that `ca_file` hides from upslot.
const UNKNOWN_ISSUER: [&str; 3] = [
    "tls-unknown-issuer",
    "tls-self-signed",
    "tls-intermediate-missing",
];

/// What a presigned download is to be sent as: nothing that a store would choose by itself.
const SHOWN: Shown<'static> = Shown {
    content_type: "application/x-upslot-check",
    disposition: "attachment; filename=\"upslot-check.txt\"",
    cache_control: "private, max-age=77",
};

/// The origin of a page, and what browsers send instead of it after a redirect to another origin.
const WEB_CLIENT: &str = "https://web.example";
const REDIRECTED: &str = "null";

/// The place in the documentation about CORS.
const CORS: &str = "contrib/docs/object-store.md#cors-for-web-clients";

impl Check<'_> {
    /// All that concerns clients, and needs the test object only if it is there.
    pub(super) fn clients(&mut self, has_object: bool) {
        if !self.endpoints() {
            return SENT_BY_CLIENTS
                .iter()
                .for_each(|check| self.skip(check, "see store-endpoint"));
        }
        self.presigned_put();
        self.presigned_type();
        match has_object {
            true => {
                self.presigned_get();
                self.anonymous();
            }
            false => {
                for check in ["store-url-get", "store-anonymous"] {
                    self.skip(check, "there is no test object (see store-put)");
                }
            }
        }
        self.cors();
    }

    /// Whether clients reach the hosts that they are sent to, and trust their certificates. False if there is no answer.
    fn endpoints(&mut self) -> bool {
        let ObjectStore { put, get, .. } = self.store;
        let public = self.client.bucket.public_url(&self.path);
        let is_needed = *put == PutMode::Direct || *get == GetMode::Redirect;
        let mut urls = vec![("s3.endpoint", is_needed, self.unsigned_url())];
        urls.extend(public.map(|url| ("s3.public_url", true, url)));
        let mut answers = true;
        for (key, is_needed, url) in urls {
            let finding = match self.endpoint(key, &url) {
                Ok(finding) if is_needed => finding,
                Ok(_) => Finding::skipped("store-endpoint", format!("no client needs {key}")),
                Err(finding) if is_needed => {
                    answers = false;
                    finding
                }
                Err(finding) => {
                    let text = format!("{}; no client needs {key}", finding.found);
                    Finding::skipped("store-endpoint", text)
                }
            };
            self.findings.push(finding);
        }
        answers
    }

    /// Checks the host of a URL that clients get; an error if there is no answer.
    fn endpoint(&self, key: &str, url: &str) -> Result<Finding, Finding> {
        let check = "store-endpoint";
        let Some((origin, _)) = Origin::split(url) else {
            return Err(wrong(check, "the URL is not valid"));
        };
        let (route, connection) = client::reach(&origin, self.tls_for(&origin), self.limits)
            .map_err(|why| {
                self.other_scheme(check, key, &origin)
                    .unwrap_or_else(|| unreachable(check, &format!("{key}: {why}"), self.store))
            })?;
        drop(connection);
        if !origin.tls {
            if let Some(finding) = self.other_scheme(check, key, &origin) {
                return Err(finding);
            }
            let text = format!("{key} is not https, and has no certificate");
            return Ok(Finding::skipped(check, text));
        }
        let verdict = certificates::check_chain(&route, self.roots, self.limits, sys::now().wall);
        Ok(match verdict {
            Err(why) => Finding::skipped(check, why),
            Ok(Ok(text)) => Finding::ok(check, format!("{key}: the certificate is {text}")),
            Ok(Err(problem)) => self.untrusted(key, problem).finding(check),
        })
    }

    /// The problem of a certificate that clients do not trust, although upslot may.
    fn untrusted(&self, key: &str, problem: Problem) -> Problem {
        let is_private = UNKNOWN_ISSUER.contains(&problem.name) && self.store.ca_file.is_some();
        match is_private {
            true => Problem {
                name: "tls-unknown-issuer",
                found: format!(
                    "{key}: clients do not have the authority in ca_file, which is for upslot alone: {}",
                    problem.found
                ),
                remedy: "use a certificate of a public authority there, or relay uploads and downloads; \
                         if all clients have the authority, name it in SSL_CERT_FILE for this check"
                    .to_owned(),
                ..problem
            },
            false => Problem {
                found: format!("{key}: {}", problem.found),
                ..problem
            },
        }
    }

    /// Whether clients send requests to the store.
    fn is_used_by_clients(&self) -> bool {
        self.store.put == PutMode::Direct || self.store.get != GetMode::Relay
    }

    /// Sends a request as a client does, without a signature but that of the URL. Certificates are checked elsewhere.
    fn as_client(
        &self,
        method: &str,
        url: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response, String> {
        let (origin, target) = Origin::split(url).ok_or("the URL is not valid")?;
        let (_, mut connection) = client::reach(&origin, self.tls_for(&origin), self.limits)?;
        let mut head = client::head(method, target, &origin, fields);
        head.extend_from_slice(body);
        connection.send(&head);
        connection.response(method == "HEAD")
    }

    /// The finding if there is no answer: clients do not need the endpoint in all modes.
    fn unanswered(&self, check: &'static str, needed: bool, why: &str) -> Finding {
        let why = format!("s3.endpoint: {why}");
        match needed {
            true => failed(check, "reach", &StoreFailure::unreachable(why)),
            false => Finding::skipped(check, format!("{why}; no client needs it")),
        }
    }

    /// A presigned PUT of one byte more than signed is refused, and with `put: direct` the right size is taken.
    pub(super) fn presigned_put(&mut self) {
        let check = "store-url-put";
        let is_direct = self.store.put == PutMode::Direct;
        let size = BODY.len() as u64;
        let url = self
            .client
            .bucket
            .put_url(&self.path, size, None, LIFETIME, sys::now())
            .unwrap_or_default();
        let length = (size + 1).to_string();
        let longer = [BODY, b"+"].concat();
        let fields = [("Content-Length", length.as_str())];
        let finding = match self.as_client("PUT", &url, &fields, &longer) {
            Err(why) => self.unanswered(check, is_direct, &why),
            Ok(response) if response.status < 300 => {
                let text = "the store takes one byte more than a presigned URL is for";
                let remedy = "use put: relay: this store does not check the signed Content-Length";
                let finding = match is_direct {
                    true => Finding::fail,
                    false => Finding::notice,
                };
                finding(check, "store-size", text, remedy)
            }
            Ok(_) if !is_direct => Finding::ok(check, "one byte more than signed is refused"),
            Ok(_) => {
                let length = size.to_string();
                let fields = [("Content-Length", length.as_str())];
                match self.as_client("PUT", &url, &fields, BODY) {
                    Ok(response) => match StoreFailure::check(&response, sys::now().wall) {
                        Ok(()) => Finding::ok(
                            check,
                            "a presigned upload works, and one byte more is refused",
                        ),
                        Err(failure) => failed(check, "write", &failure),
                    },
                    Err(why) => self.unanswered(check, true, &why),
                }
            }
        };
        self.findings.push(finding);
    }

    /// With `put: direct`, a presigned PUT of another type than signed is refused.
    fn presigned_type(&mut self) {
        let check = "store-url-type";
        if self.store.put != PutMode::Direct || !self.store.sign_content_type {
            return self.skip(check, "the type of uploads is not signed");
        }
        let size = BODY.len() as u64;
        let url = self
            .client
            .bucket
            .put_url(&self.path, size, Some("text/plain"), LIFETIME, sys::now())
            .unwrap_or_default();
        let length = size.to_string();
        let put = |content_type| {
            let fields = [("Content-Type", content_type), ("Content-Length", &*length)];
            self.as_client("PUT", &url, &fields, BODY)
        };
        let finding = match put("text/html") {
            Err(why) => self.unanswered(check, true, &why),
            Ok(response) if response.status < 300 => {
                let text = "the store takes another type than a presigned URL is for";
                let remedy = "let no proxy before the store change Content-Type; downloads are safe with get: redirect and get: relay";
                Finding::notice(check, "store-type", text, remedy)
            }
            Ok(_) => match put("text/plain") {
                Err(why) => self.unanswered(check, true, &why),
                Ok(response) => match StoreFailure::check(&response, sys::now().wall) {
                    Ok(()) => Finding::ok(check, "another type than signed is refused"),
                    Err(failure) => failed(check, "write", &failure),
                },
            },
        };
        self.findings.push(finding);
    }

    /// A presigned GET returns the object with the fields that the URL asks for.
    fn presigned_get(&mut self) {
        let check = "store-url-get";
        let now = sys::now();
        let until = now.unix() + LIFETIME.as_secs();
        let url = self
            .client
            .bucket
            .get_url(&self.path, "GET", &SHOWN, until, now)
            .unwrap_or_default();
        let finding = match self.as_client("GET", &url, &[], b"") {
            Err(why) => self.unanswered(check, self.store.get == GetMode::Redirect, &why),
            Ok(response) => match StoreFailure::check(&response, now.wall) {
                Err(failure) => failed(check, "read", &failure),
                Ok(()) if response.body != BODY => wrong(check, "another object came back"),
                Ok(()) => match ignored(&response) {
                    None => Finding::ok(check, "a presigned download works"),
                    Some(name) => {
                        let text = format!("the store ignores response-{name}");
                        let remedy =
                            "use get: relay: browsers would show files instead of saving them";
                        Finding::notice(check, "store-disposition", text, remedy)
                    }
                },
            },
        };
        self.findings.push(finding);
    }

    /// Without a signature nothing is sent, unless the bucket is meant to be public.
    fn anonymous(&mut self) {
        let check = "store-anonymous";
        if let Some(url) = self.client.bucket.public_url(&self.path) {
            let finding = match self.as_client("GET", &url, &[], b"") {
                Ok(response) if response.status == 200 && response.body == BODY => {
                    Finding::ok(check, "public_url leads to the objects")
                }
                Ok(response) => {
                    let text = format!("GET below public_url: status {}", response.status);
                    let remedy = "let everybody read the objects of the bucket (a policy, see \
                                  contrib/docs/object-store.md#least-rights), and let public_url lead to the bucket";
                    Finding::fail(check, "store-public-url", text, remedy)
                }
                Err(why) => {
                    let remedy = "check public_url: clients must reach it";
                    Finding::fail(
                        check,
                        "store-public-url",
                        format!("public_url: {why}"),
                        remedy,
                    )
                }
            };
            return self.findings.push(finding);
        }
        let url = self.unsigned_url();
        let finding = match self.as_client("GET", &url, &[], b"") {
            Err(why) => self.unanswered(check, false, &why),
            Ok(response) if response.status < 300 => {
                let text = "everybody can read the objects of the bucket without a signature";
                let remedy = "take public access from the bucket, unless old links of another program need it";
                Finding::notice(check, "store-public", text, remedy)
            }
            Ok(response) => {
                let text = format!(
                    "a download without a signature is refused ({})",
                    response.status
                );
                Finding::ok(check, text)
            }
        };
        self.findings.push(finding);
    }

    /// The URL of the object at the public endpoint.
    fn unsigned_url(&self) -> String {
        let now = sys::now();
        let signed =
            self.client
                .bucket
                .get_url(&self.path, "GET", &Shown::default(), now.unix() + 1, now);
        let signed = signed.unwrap_or_default();
        signed.split('?').next().unwrap_or_default().to_owned()
    }

    /// Web clients need the permission of the store for its own URLs.
    fn cors(&mut self) {
        let check = "store-cors";
        if !self.config.allow_web_clients || !self.is_used_by_clients() {
            return self.skip(check, "web clients send nothing to the store");
        }
        let object = self.unsigned_url();
        let public = self.client.bucket.public_url(&self.path);
        let mut wanted = Vec::new();
        if self.store.put == PutMode::Direct {
            wanted.push(("PUT", WEB_CLIENT, object.clone()));
        }
        match (self.store.get, public) {
            (GetMode::Redirect, _) => wanted.push(("GET", REDIRECTED, object)),
            (_, Some(url)) => wanted.push(("GET", WEB_CLIENT, url)),
            _ => {}
        }
        let methods: Vec<&str> = wanted.iter().map(|(method, ..)| *method).collect();
        let text = format!(
            "web clients may send {} to the store",
            methods.join(" and ")
        );
        let mut finding = Finding::ok(check, text);
        for (method, origin, url) in wanted {
            if let Some(found) = self.preflight(check, method, origin, &url) {
                finding = found;
                break;
            }
        }
        self.findings.push(finding);
    }

    /// Asks as a browser does before a request of a page of this origin; the finding if that is not allowed.
    fn preflight(
        &self,
        check: &'static str,
        method: &str,
        origin: &str,
        url: &str,
    ) -> Option<Finding> {
        let mut fields = vec![
            ("Origin", origin),
            ("Access-Control-Request-Method", method),
        ];
        if method == "PUT" {
            fields.push(("Access-Control-Request-Headers", "content-type"));
        }
        let response = match self.as_client("OPTIONS", url, &fields, b"") {
            Ok(response) => response,
            Err(why) => return Some(self.unanswered(check, false, &why)),
        };
        let allowed = response.field("access-control-allow-origin");
        if response.status < 300 && allowed.is_some_and(|allowed| ["*", origin].contains(&allowed))
        {
            return None;
        }
        let mut text = format!(
            "the bucket does not let web clients send {method} (OPTIONS: status {})",
            response.status
        );
        if origin == REDIRECTED {
            text += " after a redirect, which they send with Origin: null";
        }
        let remedy = format!("{}; see {CORS}", self.engine.cors_remedy(self.store));
        Some(Finding::notice(check, "store-no-cors", text, remedy))
    }
}

/// The field of a download that is not as its URL asks for.
fn ignored(response: &Response) -> Option<&'static str> {
    let fields = [
        ("content-type", SHOWN.content_type),
        ("content-disposition", SHOWN.disposition),
        ("cache-control", SHOWN.cache_control),
    ];
    let mut fields = fields.into_iter();
    let differs = fields.find(|(name, value)| response.field(name) != Some(value));
    differs.map(|(name, _)| name)
}
