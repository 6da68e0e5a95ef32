//! Checks the object store with a test object: the rights of the access key, presigned URLs, clock, CORS.
//!
//! For `upslot doctor` and `--check-config --online`. The object lies in an owner folder of its own, as those of the doctor's
//! other test files, and is deleted at the end, whatever fails before.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::ClientConfig;

use crate::client::{self, Endpoint, Limits, Route};
use crate::config::object_store::{GetMode, PutMode};
use crate::config::{Config, ObjectStore};
use crate::doctor::report::{Finding, Report, quoted};
use crate::doctor::session::incomplete;
use crate::doctor::slots::Slots;
use crate::http::client::Response;
use crate::http::origin::Origin;
use crate::layout::{RANDOM_BYTES, StorePath};
use crate::objects::client::BucketClient;
use crate::reactor::random;
use crate::s3::bucket::{ObjectKey, Shown};
use crate::s3::error::{FailureKind, StoreFailure};
use crate::setup::Setup;
use crate::sys;
use crate::tls;

/// The checks after the first one, which is `store-list`.
const LATER: [&str; 12] = [
    "store-clock",
    "store-put",
    "store-head",
    "store-range",
    "store-conditional",
    "store-url-put",
    "store-url-type",
    "store-url-get",
    "store-anonymous",
    "store-cors",
    "store-delete",
    "store-gone",
];

/// Those that need the test object.
const WITH_OBJECT: [&str; 6] = [
    "store-head",
    "store-range",
    "store-conditional",
    "store-url-get",
    "store-anonymous",
    "store-gone",
];

const NAME: &str = "upslot-check.txt";
const BODY: &[u8] = b"A test object of upslot. It may be deleted.\n";

/// What a presigned download is to be sent as: nothing that a store would choose by itself.
const SHOWN: Shown<'static> = Shown {
    content_type: "application/x-upslot-check",
    disposition: "attachment; filename=\"upslot-check.txt\"",
    cache_control: "private, max-age=77",
};

/// Time limit of `--check-config --online`.
const TIMEOUT: Duration = Duration::from_secs(180);

/// How long presigned URLs of the checks are valid.
const LIFETIME: Duration = Duration::from_secs(600);

/// A difference of the clocks that is told; much larger ones make signatures invalid.
const NOTED_SKEW: Duration = Duration::from_secs(60);

/// The place in the documentation about CORS.
const CORS: &str = "contrib/docs/object-store.md#cors-for-web-clients";

/// The state of the checks.
struct Check<'a> {
    config: &'a Config,
    store: &'a ObjectStore,
    client: BucketClient,
    /// The store as clients reach it, or why that is not possible.
    public: Result<Public, String>,
    limits: &'a Limits,
    path: StorePath,
    key: ObjectKey,
    findings: Vec<Finding>,
}

/// How clients reach the store.
struct Public {
    roots: Option<Arc<ClientConfig>>,
}

/// All findings, within [`TIMEOUT`]; the first SIGINT or SIGTERM ends the checks, and the test object is deleted.
pub fn report(setup: &Setup) -> Result<Report, String> {
    let limits = Limits {
        deadline: sys::monotonic() + TIMEOUT,
        interrupted: client::interrupted()
            .map_err(|error| format!("cannot install signal handlers: {error}."))?,
    };
    let mut findings = check(setup, &limits);
    findings.extend(incomplete(&limits));
    Ok(Report { findings })
}

/// Checks the store of the configuration; no findings if it has none.
pub fn check(setup: &Setup, limits: &Limits) -> Vec<Finding> {
    let Some(store) = setup.config.s3.as_deref() else {
        return Vec::new();
    };
    let client = match BucketClient::limited(setup, limits) {
        Ok(Some(client)) => client,
        Ok(None) => return Vec::new(),
        Err(why) => {
            return nothing(failed(
                "store-list",
                "list",
                &StoreFailure::unreachable(why),
            ));
        }
    };
    let object = test_path(&setup.config).and_then(|path| {
        let key = client.bucket.key(&path)?;
        Some((path, key))
    });
    let Some((path, key)) = object else {
        let why = "no key for a test object";
        let remedy = "shorten s3.prefix, or check the system's random numbers";
        return nothing(Finding::fail("store-list", "store-key", why, remedy));
    };
    let mut check = Check {
        config: &setup.config,
        store,
        client,
        public: Public::new(setup, store),
        limits,
        path,
        key,
        findings: Vec::new(),
    };
    check.run(setup);
    check.findings
}

/// This finding, and that nothing else was checked.
fn nothing(finding: Finding) -> Vec<Finding> {
    let skipped = LATER.map(|check| Finding::skipped(check, "see store-list"));
    [finding].into_iter().chain(skipped).collect()
}

/// A path in the folder of an owner that is no user, with an expiry time.
fn test_path(config: &Config) -> Option<StorePath> {
    let (owner, random) = (random::bytes::<8>()?, random::bytes::<RANDOM_BYTES>()?);
    let now = sys::now();
    // The signature is not used.
    let slots = Slots::new(config, &owner, &owner, now)?;
    let slot = slots.issue(NAME, BODY.len() as u64, None, &random, now)?;
    Some(slot.path)
}

impl Check<'_> {
    fn run(&mut self, setup: &Setup) {
        let listed = self.client.bucket.list("", None, 1, sys::now());
        match self.client.ask(&listed) {
            Ok(response) => {
                self.ok("store-list", "the access key may list the bucket");
                self.findings.push(clock(&response, sys::now().wall));
            }
            Err(failure) => {
                let finding = failed("store-list", "list", &failure);
                if !matches!(failure.kind, FailureKind::Denied) {
                    return self.findings = nothing(finding);
                }
                self.findings.push(finding);
                self.skip("store-clock", "see store-list");
            }
        }
        let put = self.client.bucket.put_small(&self.key, BODY, sys::now());
        match self.client.ask(&put) {
            Ok(_) => {
                self.ok("store-put", "the access key may write objects");
                self.head();
                self.range();
                self.conditional();
                self.presigned_put();
                self.presigned_type();
                self.presigned_get();
                self.anonymous();
                self.cors();
            }
            Err(failure) => {
                self.findings.push(failed("store-put", "write", &failure));
                for check in WITH_OBJECT.iter().filter(|check| **check != "store-gone") {
                    self.skip(check, "there is no test object (see store-put)");
                }
                self.presigned_put();
                self.presigned_type();
                self.cors();
            }
        }
        self.delete(setup);
    }

    fn ok(&mut self, check: &'static str, found: impl Into<String>) {
        self.findings.push(Finding::ok(check, found));
    }

    fn skip(&mut self, check: &'static str, why: impl Into<String>) {
        self.findings.push(Finding::skipped(check, why));
    }

    /// Whether clients send requests to the store.
    fn is_used_by_clients(&self) -> bool {
        self.store.put == PutMode::Direct || self.store.get != GetMode::Relay
    }

    fn head(&mut self) {
        let request = self.client.bucket.head(&self.key, sys::now());
        let finding = match self.client.ask(&request) {
            Ok(response) => match response.field("content-length") {
                Some(length) if length == BODY.len().to_string() => {
                    Finding::ok("store-head", "the access key may read objects")
                }
                other => wrong(
                    "store-head",
                    &format!("Content-Length: {}", other.unwrap_or("none")),
                ),
            },
            Err(failure) => failed("store-head", "read", &failure),
        };
        self.findings.push(finding);
    }

    fn range(&mut self) {
        let range = 2..6;
        let request = self.client.bucket.get(&self.key, Some(range), sys::now());
        let finding = match self.client.ask(&request) {
            Ok(response) if response.status == 206 && response.body == BODY[2..6] => {
                Finding::ok("store-range", "the store answers ranges")
            }
            Ok(response) => wrong(
                "store-range",
                &format!(
                    "a request for 4 bytes: status {} with {} bytes",
                    response.status,
                    response.body.len()
                ),
            ),
            Err(failure) => failed("store-range", "read", &failure),
        };
        self.findings.push(finding);
    }

    fn conditional(&mut self) {
        let (bucket, shown) = (&self.client.bucket, Shown::default());
        let request = bucket.put_whole(&self.key, BODY, &shown, true, sys::now());
        let answer = self.client.ask_once(&request);
        let finding = match answer {
            Ok(response) if [409, 412].contains(&response.status) => {
                Finding::ok("store-conditional", "the store honours If-None-Match")
            }
            Ok(response) if response.status == 200 => Finding::ok(
                "store-conditional",
                "the store ignores If-None-Match, so upslot looks before each upload whether the object exists",
            ),
            Ok(response) => match StoreFailure::check(&response, sys::now().wall) {
                Err(failure) => failed("store-conditional", "write", &failure),
                Ok(()) => wrong("store-conditional", &format!("status {}", response.status)),
            },
            Err(failure) => failed("store-conditional", "write", &failure),
        };
        self.findings.push(finding);
    }

    /// Sends a request as a client does: to the public endpoint, without a signature but that of the URL.
    fn as_client(
        &self,
        method: &str,
        url: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response, String> {
        let public = self.public.as_ref().map_err(String::clone)?;
        let (origin, target) = Origin::split(url).ok_or("the URL is not valid")?;
        let found = client::lookup(&origin.host, origin.port, self.limits)?;
        let mut failure = String::new();
        for address in found {
            let route = Route {
                endpoint: Endpoint::Tcp(address),
                tls: public.roots.clone().filter(|_| origin.tls),
                origin: origin.clone(),
            };
            match client::request(&route, self.limits, method, target, fields, body) {
                Ok(response) => return Ok(response),
                Err(why) => failure = format!("{address}: {why}"),
            }
        }
        Err(failure)
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
    fn presigned_put(&mut self) {
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
                    let remedy = "let everybody read the objects of the bucket, and let public_url lead to the bucket";
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
        let method = match self.store.put {
            PutMode::Direct => "PUT",
            PutMode::Relay => "GET",
        };
        let fields = [
            ("Origin", "https://web.example"),
            ("Access-Control-Request-Method", method),
        ];
        let url = self.client.bucket.public_url(&self.path);
        let url = match self.store.put {
            PutMode::Relay => url.unwrap_or_else(|| self.unsigned_url()),
            PutMode::Direct => self.unsigned_url(),
        };
        let finding = match self.as_client("OPTIONS", &url, &fields, b"") {
            Err(why) => self.unanswered(check, false, &why),
            Ok(response)
                if response.status < 300
                    && response.field("access-control-allow-origin").is_some() =>
            {
                Finding::ok(check, format!("web clients may send {method} to the store"))
            }
            Ok(response) => {
                let text = format!(
                    "the bucket does not let web clients send {method} (OPTIONS: status {})",
                    response.status
                );
                let remedy = format!(
                    "set CORS rules for the bucket, see {CORS}, or allow_web_clients: false"
                );
                Finding::notice(check, "store-no-cors", text, remedy)
            }
        };
        self.findings.push(finding);
    }

    /// Deletes the object, also after Ctrl-C.
    fn delete(&mut self, setup: &Setup) {
        if self.limits.is_over() {
            if let Ok(Some(client)) = BucketClient::of(setup) {
                self.client = client;
            }
        }
        let shown = self.key.as_str().to_owned();
        let request = self.client.bucket.delete(&self.key, sys::now());
        match self.client.ask(&request) {
            Ok(_) => self.ok("store-delete", "the access key may delete objects"),
            Err(failure) if failure.kind == FailureKind::NotFound => {
                self.ok("store-delete", "the access key may delete objects");
            }
            Err(failure) => {
                let mut finding = failed("store-delete", "delete", &failure);
                finding.found = format!(
                    "{}; the test object {} may stay",
                    finding.found,
                    quoted(shown)
                );
                self.findings.push(finding);
                return self.skip("store-gone", "see store-delete");
            }
        }
        let request = self.client.bucket.head(&self.key, sys::now());
        let finding = match self.client.ask(&request) {
            Err(failure) if failure.kind == FailureKind::NotFound => {
                Finding::ok("store-gone", "the test object is gone")
            }
            // So do stores without the right to list.
            Err(failure) if failure.kind == FailureKind::Denied => {
                Finding::skipped("store-gone", format!("{failure}"))
            }
            Err(failure) => failed("store-gone", "read", &failure),
            Ok(_) => {
                let text = format!("{} is still there after DELETE", quoted(shown));
                let remedy = "check whether the bucket is replicated with a delay, or something restores objects";
                Finding::notice("store-gone", "store-not-gone", text, remedy)
            }
        };
        self.findings.push(finding);
    }
}

impl Public {
    /// The internal endpoint's roots if it is the same; those of the system otherwise, as clients have them.
    fn new(setup: &Setup, store: &ObjectStore) -> Result<Public, String> {
        let urls = [
            Some(store.endpoint.tls),
            store
                .public_url
                .as_ref()
                .map(|url| url.starts_with("https:")),
        ];
        let is_same = store.endpoint == store.internal_endpoint;
        if !urls.contains(&Some(true)) || is_same && setup.store_tls.is_some() {
            return Ok(Public {
                roots: setup.store_tls.clone(),
            });
        }
        let bundle = tls::system_bundle().ok_or("this system has no root certificates")?;
        let roots = tls::read_roots("s3", &bundle).map_err(|error| error.why)?;
        let config = tls::client_config(roots).map_err(|error| error.to_string())?;
        Ok(Public {
            roots: Some(config),
        })
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

/// The clock of the store.
fn clock(response: &Response, now: SystemTime) -> Finding {
    if let Err(failure) = StoreFailure::check_clock(response, now) {
        return failed("store-clock", "list", &failure);
    }
    let date = response.field("date");
    let Some(date) = date.and_then(|date| httpdate::parse_http_date(date).ok()) else {
        return Finding::skipped("store-clock", "the store sends no Date");
    };
    let ahead = now.duration_since(date);
    let skew = ahead.unwrap_or_else(|error| error.duration());
    let text = format!("the clocks differ by {} s", skew.as_secs());
    match skew > NOTED_SKEW {
        true => {
            let remedy = "set the clocks of this host and of the store (NTP): signatures are valid for some minutes only";
            Finding::notice("store-clock", "store-clock", text, remedy)
        }
        false => Finding::ok("store-clock", text),
    }
}

/// An answer that no store should give.
fn wrong(check: &'static str, what: &str) -> Finding {
    let remedy = "check that endpoint and internal_endpoint lead to the S3 interface of the store, and that no cache or proxy before it changes answers";
    Finding::fail(
        check,
        "store-answer",
        format!("unexpected answer: {}", quoted(what)),
        remedy,
    )
}

/// A request that failed, which needs this right.
fn failed(check: &'static str, right: &str, failure: &StoreFailure) -> Finding {
    let remedy = match failure.kind {
        FailureKind::Denied => format!(
            "give the access key the right to {right} objects in the bucket (it needs list, read, write and delete)"
        ),
        _ => failure.remedy().trim_end_matches('.').to_owned(),
    };
    let found = failure.to_string();
    let found = found.trim_end_matches('.');
    Finding::fail(
        check,
        problem(&failure.kind),
        format!("cannot {right}: {found}"),
        remedy,
    )
}

/// The stable name of a failure.
fn problem(kind: &FailureKind) -> &'static str {
    match kind {
        FailureKind::NotFound => "store-missing",
        FailureKind::Exists => "store-exists",
        FailureKind::Denied => "store-denied",
        FailureKind::BadSignature => "store-signature",
        FailureKind::UnknownAccessKey => "store-access-key",
        FailureKind::NoBucket => "store-bucket",
        FailureKind::Skewed => "store-clock",
        FailureKind::WrongRegion(_) => "store-region",
        FailureKind::SlowDown => "store-busy",
        FailureKind::Full => "store-full",
        FailureKind::Unavailable => "store-unavailable",
        FailureKind::Malformed => "store-answer",
        FailureKind::Unreachable => "store-unreachable",
    }
}
