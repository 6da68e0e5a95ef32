//! Checks the object store with a test object: the rights of the access key, presigned URLs, clock, CORS.
//!
//! For `upslot doctor` and `--check-config --online`. The object lies in an owner folder of its own, as those of the doctor's
//! other test files, and is deleted at the end, whatever fails before. This file is about the access key, `clients` about what
//! clients do there.

mod clients;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::ClientConfig;

use crate::client::{self, Limits};
use crate::config::{Config, ObjectStore};
use crate::doctor::certificates::{self, Roots};
use crate::doctor::engine::Engine;
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
use crate::s3::listing::ObjectPage;
use crate::setup::Setup;
use crate::sys;

/// The checks after the first one, which is `store-list`.
const LATER: [&str; 13] = [
    "store-clock",
    "store-put",
    "store-head",
    "store-range",
    "store-conditional",
    "store-endpoint",
    "store-url-put",
    "store-url-type",
    "store-url-get",
    "store-anonymous",
    "store-cors",
    "store-delete",
    "store-gone",
];

/// Those of them that read the test object with the access key.
const READING: [&str; 3] = ["store-head", "store-range", "store-conditional"];

const NAME: &str = "upslot-check.txt";
const BODY: &[u8] = b"A test object of upslot. It may be deleted.\n";

/// Time limit of `--check-config --online`.
const TIMEOUT: Duration = Duration::from_secs(180);

/// How long presigned URLs of the checks are valid.
const LIFETIME: Duration = Duration::from_secs(600);

/// A difference of the clocks that is told; much larger ones make signatures invalid.
const NOTED_SKEW: Duration = Duration::from_secs(60);

/// The state of the checks.
struct Check<'a> {
    config: &'a Config,
    store: &'a ObjectStore,
    client: BucketClient,
    engine: Engine,
    /// Accepts any certificate.
    tls: Option<Arc<ClientConfig>>,
    /// What clients trust.
    roots: &'a Result<Roots, String>,
    limits: &'a Limits,
    path: StorePath,
    key: ObjectKey,
    findings: Vec<Finding>,
}

/// All findings, within [`TIMEOUT`]; the first SIGINT or SIGTERM ends the checks, and the test object is deleted.
pub fn report(setup: &Setup) -> Result<Report, String> {
    let limits = Limits {
        deadline: sys::monotonic() + TIMEOUT,
        interrupted: client::interrupted()
            .map_err(|error| format!("cannot install signal handlers: {error}."))?,
    };
    let mut findings = check(setup, &Roots::load(None), &limits);
    findings.extend(incomplete(&limits));
    Ok(Report { findings })
}

/// Checks the store of the configuration; no findings if it has none. Clients trust `roots`.
pub fn check(setup: &Setup, roots: &Result<Roots, String>, limits: &Limits) -> Vec<Finding> {
    let Some(store) = setup.config.s3.as_deref() else {
        return Vec::new();
    };
    let client = match BucketClient::limited(setup, limits) {
        Ok(Some(client)) => client,
        Ok(None) => return Vec::new(),
        Err(why) => return nothing(unreachable("store-list", &why, store)),
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
        engine: Engine::Other,
        tls: certificates::config(rustls::ALL_VERSIONS).ok(),
        roots,
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
        if let Err(finding) = self.list() {
            return self.findings = nothing(finding);
        }
        let put = self.client.bucket.put_small(&self.key, BODY, sys::now());
        let stored = self.client.ask(&put);
        match &stored {
            Ok(_) => {
                self.ok("store-put", "the access key may write objects");
                self.head();
                self.range();
                self.conditional();
            }
            Err(failure) => {
                self.findings.push(failed("store-put", "write", failure));
                for check in READING {
                    self.skip(check, "there is no test object (see store-put)");
                }
            }
        }
        self.clients(stored.is_ok());
        self.delete(setup);
    }

    /// Whether the store is one, and its bucket can be listed; an error if nothing else can be checked.
    fn list(&mut self) -> Result<(), Finding> {
        let check = "store-list";
        let request = self.client.bucket.list("", None, 1, sys::now());
        match self.client.ask(&request) {
            Ok(response) => {
                self.engine = Engine::of(&response);
                if let Err(why) = ObjectPage::parse(response.body.clone()) {
                    return Err(self.no_list(&response, &why.to_string()));
                }
                self.ok(check, "the access key may list the bucket");
                self.findings.push(clock(&response, sys::now().wall));
                Ok(())
            }
            // Stores name the error; other servers do not.
            Err(failure)
                if failure.code.is_empty() && failure.status != 0 && is_foreign(&failure.kind) =>
            {
                let origin = self.store.internal_origin();
                let scheme = self.other_scheme(check, self.internal_key(), &origin);
                Err(scheme.unwrap_or_else(|| wrong(check, &failure.to_string())))
            }
            Err(failure) if failure.kind == FailureKind::Denied => {
                self.findings.push(failed(check, "list", &failure));
                self.skip("store-clock", "see store-list");
                Ok(())
            }
            Err(failure) if failure.kind == FailureKind::Unreachable => {
                let origin = self.store.internal_origin();
                let scheme = self.other_scheme(check, self.internal_key(), &origin);
                Err(scheme.unwrap_or_else(|| failed(check, "list", &failure)))
            }
            Err(failure) => Err(failed(check, "list", &failure)),
        }
    }

    /// The finding about a success that is no list of objects.
    fn no_list(&self, response: &Response, why: &str) -> Finding {
        let buckets = b"<ListAllMyBucketsResult";
        let lists_buckets = response
            .body
            .windows(buckets.len())
            .any(|part| part == buckets);
        if self.store.path_style || !lists_buckets {
            return wrong("store-list", why);
        }
        let host = &self.store.internal_endpoint.host;
        let remedy = format!(
            "set {} to {host} in the configuration of the store, or set path_style: true",
            self.engine.host_setting()
        );
        let text = "the store does not read the bucket from the host name (path_style: false)";
        Finding::fail("store-list", "store-host-name", text, remedy)
    }

    /// The key that names where upslot connects to.
    fn internal_key(&self) -> &'static str {
        match self.store.endpoint == self.store.internal_endpoint {
            true => "s3.endpoint",
            false => "s3.internal_endpoint",
        }
    }

    /// The configuration for connections to this origin that accept any certificate.
    fn tls_for(&self, origin: &Origin) -> Option<Arc<ClientConfig>> {
        self.tls.clone().filter(|_| origin.tls)
    }

    /// The finding if a port speaks http where https is configured, or the reverse.
    fn other_scheme(&self, check: &'static str, key: &str, origin: &Origin) -> Option<Finding> {
        let speaks_tls = || client::reach(origin, self.tls.clone(), self.limits).is_ok();
        let (is, other) = match (origin.tls, self.plain_status(origin)) {
            // Servers refuse plain requests at a port with TLS, or close the connection.
            (false, None | Some(400)) if speaks_tls() => ("https", "http"),
            (true, Some(_)) if !speaks_tls() => ("http", "https"),
            _ => return None,
        };
        let text = format!("{key} is {other}, but {} speaks {is}", origin.authority);
        let remedy = format!("write {is}://{} in {key}", origin.authority);
        Some(Finding::fail(check, "store-scheme", text, remedy))
    }

    /// The status of an answer to a request without TLS.
    fn plain_status(&self, origin: &Origin) -> Option<u16> {
        let (_, mut connection) = client::reach(origin, None, self.limits).ok()?;
        connection.send(&client::head("HEAD", "/", origin, &[]));
        connection
            .response(true)
            .ok()
            .map(|response| response.status)
    }

    fn ok(&mut self, check: &'static str, found: impl Into<String>) {
        self.findings.push(Finding::ok(check, found));
    }

    fn skip(&mut self, check: &'static str, why: impl Into<String>) {
        self.findings.push(Finding::skipped(check, why));
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

/// Whether an answer without the name of an error can be that of something else than a store.
fn is_foreign(kind: &FailureKind) -> bool {
    matches!(
        kind,
        FailureKind::NotFound | FailureKind::Denied | FailureKind::Malformed
    )
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

/// There is no way to the store.
fn unreachable(check: &'static str, why: &str, store: &ObjectStore) -> Finding {
    let failure = StoreFailure::unreachable(why.trim_end_matches('.'));
    let finding = failed(check, "reach the store", &failure);
    match store.path_style {
        true => finding,
        false => {
            let remedy = "with path_style: false, the name of the bucket is the first label of the host: let DNS resolve it \
                          (a wildcard record below the endpoint), or set path_style: true";
            Finding {
                remedy: Some(remedy.to_owned()),
                ..finding
            }
        }
    }
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
