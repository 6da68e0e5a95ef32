//! `upslot doctor`: checks everything between a client and the store, as a client on this machine sees it, and says what to
//! change.
//!
//! - [`report`] findings as text and JSON;
//! - [`proxy`] and [`judge`] what is wrong with a response, and what to change;
//! - [`slots`] slots for test files;
//! - [`network`] names and addresses; [`certificates`] TLS;
//! - [`session`] requests of the checks; [`uploads`], [`bodies`], [`downloads`] the checks over HTTP;
//! - [`service`] the running upslot; [`component`] the XMPP server; [`storage`] the storage folder, or
//!   `object_store` the store instead of it, and `engine` what is special about an engine;
//! - this file: the order of the checks, and the removal of the test files.
//!
//! `report`, `proxy`, `judge`, `slots` and `engine` are pure and belong to layer 3.
//!
//! It is a command and not part of the loop: it blocks, but every step has a deadline. All test files belong to one owner
//! and are removed at the end, also after a failure or Ctrl-C.

pub mod bodies;
pub mod certificates;
pub mod component;
pub mod downloads;
#[cfg(feature = "s3")]
pub mod engine;
pub mod judge;
pub mod network;
#[cfg(feature = "s3")]
pub mod object_store;
pub mod proxy;
pub mod report;
pub mod service;
pub mod session;
pub mod slots;
pub mod storage;
pub mod uploads;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use crate::client::{self, Endpoint, Limits, Route};
use crate::config::BaseUrl;
use crate::doctor::certificates::Roots;
use crate::doctor::component::Running;
use crate::doctor::judge::Problem;
use crate::doctor::proxy::Proxy;
use crate::doctor::report::{Finding, Report};
use crate::doctor::session::{Reporter, Session, incomplete};
use crate::doctor::slots::{Slots, TestSlot};
use crate::doctor::storage::Storage;
use crate::doctor::uploads::Reached;
use crate::http::origin::Origin;
use crate::layout::Owner;
#[cfg(feature = "s3")]
use crate::objects::client::BucketClient;
use crate::reactor::random;
use crate::remove::{self, Target};
use crate::service::Service;
use crate::setup::Setup;
use crate::sys;
#[cfg(feature = "s3")]
use crate::units;

/// Time limit of the whole command without `--full`.
const TIMEOUT: Duration = Duration::from_secs(180);

/// The checks that need a slot, besides those of one upload.
const AFTER_UPLOAD: [&str; 12] = [
    "not-found",
    "download",
    "download-cors",
    "download-fields",
    "download-caching",
    "head",
    "range",
    "not-modified",
    "names",
    "upload-chunked",
    "upload-size",
    "upload-slow",
];

/// Those of them that concern the bodies of uploads through upslot.
const OF_BODIES: [&str; 3] = ["upload-chunked", "upload-size", "upload-slow"];

/// Checks of uploads through upslot that need no file.
const WITHOUT_FILE: [&str; 2] = ["request-buffering", "authorization"];

/// What the command line asks for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Also send a file of `max_file_size`.
    pub full: bool,
    /// The root certificates to trust instead of those of the system.
    pub ca_file: Option<PathBuf>,
}

/// Runs all checks. Findings are written to `lines` as they come, with colours or without.
pub fn run(
    setup: &Setup,
    options: &Options,
    lines: Option<(&mut dyn Write, bool)>,
) -> Result<Report, String> {
    let mut limits = Limits {
        deadline: sys::monotonic() + TIMEOUT,
        interrupted: client::interrupted()
            .map_err(|error| format!("cannot install signal handlers: {error}."))?,
    };
    if options.full {
        limits.deadline += bodies::full_timeout(setup.config.max_file_size);
    }
    let mut out = Reporter {
        report: Report::default(),
        lines,
    };
    let storage = files(setup, options, &limits, &mut out);
    let slots = slots(setup, &storage, &mut out);
    let direct = running(setup, &storage, &limits, &mut out);
    if let Some(session) = session(setup, options, &limits, slots, direct, &mut out) {
        over_http(session, setup, options, &storage, &mut out);
    }
    out.add_all(incomplete(&limits));
    if let Some((lines, _)) = &mut out.lines {
        // A closed output is not an error.
        let _ = writeln!(lines, "{}", out.report.summary());
    }
    Ok(out.report)
}

/// Checks where files are kept: the object store, or the storage folder.
fn files(setup: &Setup, options: &Options, limits: &Limits, out: &mut Reporter<'_>) -> Storage {
    #[cfg(feature = "s3")]
    if setup.config.s3.is_some() {
        let roots = Roots::load(options.ca_file.as_deref());
        out.add_all(object_store::check(setup, &roots, limits));
        return Storage {
            store: None,
            writable: true,
            user: None,
        };
    }
    let _ = (options, limits);
    let (findings, storage) = storage::check(&setup.config);
    out.add_all(findings);
    storage
}

/// The slots for test files, if the key that signs them can be read.
fn slots(setup: &Setup, storage: &Storage, out: &mut Reporter<'_>) -> Option<Slots> {
    let slots = storage::slot_secret(setup, storage).and_then(|secret| {
        let random = random::bytes::<8>().ok_or("the system gives no random bytes")?;
        let slots = Slots::new(&setup.config, secret.as_bytes(), &random, sys::now());
        slots.ok_or_else(|| "no slot can be signed".to_owned())
    });
    match slots {
        Ok(slots) => {
            out.add(Finding::ok(
                "slot-secret",
                "the key that signs slots is readable",
            ));
            Some(slots)
        }
        Err(why) => {
            out.add(Finding::skipped(
                "slot-secret",
                format!("{why}; uploads cannot be checked"),
            ));
            None
        }
    }
}

/// Checks the running upslot and the component port. Returns how to reach the former.
fn running(
    setup: &Setup,
    storage: &Storage,
    limits: &Limits,
    out: &mut Reporter<'_>,
) -> Option<Route> {
    let (origin, _) = Origin::split(&setup.config.put_url.prefix)?;
    let (finding, direct) = service::listener(&setup.config, &origin, limits);
    out.add(finding);
    let (finding, link) = service::api(&setup.config, limits);
    out.add(finding);
    let running = Running {
        answers: direct.is_some(),
        link,
        user: storage.user,
    };
    out.add(component::check(setup, running, limits));
    direct
}

/// Checks names, addresses and certificates of both URLs. `None` if no request is possible.
fn session<'a>(
    setup: &'a Setup,
    options: &Options,
    limits: &Limits,
    slots: Option<Slots>,
    direct: Option<Route>,
    out: &mut Reporter<'_>,
) -> Option<Session<'a>> {
    let config = &setup.config;
    let roots = Roots::load(options.ca_file.as_deref());
    let mut puts = routes(&config.put_url, &roots, limits, out).into_iter();
    let put = puts.next();
    let origin = |url: &BaseUrl| Origin::split(&url.prefix).map(|(origin, _)| origin);
    let get = match origin(&config.put_url) == origin(&config.get_url) {
        true => put.clone(),
        false => routes(&config.get_url, &roots, limits, out)
            .into_iter()
            .next(),
    };
    let (Some(put), Some(get)) = (put, get) else {
        let checks = ["preflight", "clock"];
        let checks = checks.iter().chain(&uploads::CHECKS).chain(&AFTER_UPLOAD);
        let checks = checks.chain(&WITHOUT_FILE);
        let why = "put_url or get_url cannot be reached";
        out.add_all(checks.map(|check| Finding::skipped(check, why)));
        return None;
    };
    Some(Session {
        config,
        service: Service::unsigned(config),
        slots,
        put,
        get,
        others: puts.collect(),
        direct,
        limits: limits.clone(),
        now: sys::now(),
        proxies: [Proxy::Other; 2],
    })
}

/// Checks the way to every address of one URL's server; those to which requests are possible.
fn routes(
    url: &BaseUrl,
    roots: &Result<Roots, String>,
    limits: &Limits,
    out: &mut Reporter<'_>,
) -> Vec<Route> {
    let Some((origin, _)) = Origin::split(&url.prefix) else {
        return Vec::new();
    };
    let found = client::lookup(&origin.host, origin.port, limits);
    out.add(network::judge_lookup(&origin, &found));
    let (findings, reached) = network::connect(&found.unwrap_or_default(), limits);
    out.add_all(findings);
    let tls = match origin.tls {
        true => certificates::config(rustls::ALL_VERSIONS).ok(),
        false => None,
    };
    if !origin.tls {
        out.add(plain(&origin, url.secure));
    }
    let routes = reached.into_iter().map(|address| Route {
        endpoint: Endpoint::Tcp(address),
        origin: origin.clone(),
        tls: tls.clone(),
    });
    routes
        .filter(|route| {
            if route.tls.is_none() {
                return true;
            }
            let (findings, speaks) = certificates::check(route, roots, limits, sys::now().wall);
            out.add_all(findings);
            speaks
        })
        .collect()
}

/// The finding about a URL without TLS.
fn plain(origin: &Origin, secure: bool) -> Finding {
    match secure {
        true => Finding::skipped(
            "tls-certificate",
            format!("{origin} is plain HTTP, on this machine only"),
        ),
        false => {
            let remedy = "write https in put_url and get_url, and let a reverse proxy or http_certfile terminate TLS: clients such as Gajim and Dino refuse http";
            Finding::fail(
                "tls-certificate",
                "no-tls",
                format!("{origin} is plain HTTP"),
                remedy,
            )
        }
    }
}

/// Runs the checks over HTTP, and removes the test files.
fn over_http(
    mut session: Session<'_>,
    setup: &Setup,
    options: &Options,
    storage: &Storage,
    out: &mut Reporter<'_>,
) {
    let session = &mut session;
    let reached = uploads::preflight(session, out);
    uploads::other_addresses(session, out);
    let owner = session.slots.as_ref().map(|slots| slots.owner.clone());
    let Some(owner) = owner else {
        let checks = uploads::CHECKS
            .iter()
            .chain(&AFTER_UPLOAD)
            .chain(&WITHOUT_FILE);
        let why = "the key that signs slots cannot be read (see slot-secret)";
        return out.add_all(checks.map(|check| Finding::skipped(check, why)));
    };
    let silent = (reached == Reached::Nothing).then_some("there is no answer (see preflight)");
    let works = !session.skips(&uploads::CHECKS, silent, out) && uploads::upload(session, out);
    let why = match reached {
        _ if works => None,
        Reached::Upslot => Some("uploads do not work (see upload)"),
        Reached::Other => Some("upslot cannot be reached (see preflight and upload)"),
        Reached::Nothing => silent,
    };
    let mut text = None;
    if !session.skips(&AFTER_UPLOAD, why, out) {
        text = downloads::check(session, out);
        session.run("names", out, uploads::names);
        let bypass = session.bypasses().then_some(uploads::BYPASS);
        if !session.skips(&OF_BODIES, bypass, out) {
            session.run("upload-chunked", out, uploads::chunked);
            session.run("upload-size", out, bodies::size);
            if options.full {
                session.run("upload-full", out, bodies::full);
            }
            session.run("upload-slow", out, bodies::slow);
        }
    }
    let bypass = session.bypasses().then_some(uploads::BYPASS);
    let unreached = why.filter(|_| reached != Reached::Upslot).or(bypass);
    if !session.skips(&WITHOUT_FILE, unreached, out) {
        session.run("request-buffering", out, bodies::buffering);
        uploads::authorization(session, out);
    }
    clean_up(
        session,
        (setup, storage),
        &Owner::Jid(owner),
        text.as_ref(),
        out,
    );
}

/// Removes the test files, and checks that the proxy does not serve them from a cache.
fn clean_up(
    session: &mut Session<'_>,
    (setup, storage): (&Setup, &Storage),
    owner: &Owner,
    text: Option<&TestSlot>,
    out: &mut Reporter<'_>,
) {
    if !storage.writable {
        let text = format!(
            "the test files stay ({}); they are not served after an hour",
            storage::no_access(storage)
        );
        let remedy = format!("upslot remove {owner}, as that user");
        return out.add(Finding::notice("clean-up", "test-files", text, remedy));
    }
    match remove_all(setup, owner) {
        Ok(said) => {
            out.add(Finding::ok("clean-up", said));
            if let Some(slot) = text {
                session.run("removed-file", out, |session| {
                    downloads::removed(session, slot)
                });
            }
        }
        Err(why) => out.add(
            Problem::new("test-files", why, format!("upslot remove {owner}")).finding("clean-up"),
        ),
    }
}

/// Removes all files of an owner; one line without a full stop about it.
fn remove_all(setup: &Setup, owner: &Owner) -> Result<String, String> {
    let line = |text: &str| {
        text.lines()
            .next()
            .unwrap_or_default()
            .trim_end_matches('.')
            .to_owned()
    };
    // Without the limits of the command: also after Ctrl-C.
    #[cfg(feature = "s3")]
    if let Some(mut client) = BucketClient::of(setup)? {
        let discarded = client.discard(&owner.folder()).map_err(|why| line(&why))?;
        return Ok(format!(
            "the {} of the checks are removed",
            units::files(discarded)
        ));
    }
    let mut said = Vec::new();
    let target = Target::Owner(owner.clone());
    let removed = remove::remove(&setup.config, &target, false, &mut said);
    removed.map_err(|why| line(&why))?;
    Ok(line(&String::from_utf8_lossy(&said)))
}
