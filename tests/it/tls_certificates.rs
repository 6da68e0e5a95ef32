//! TLS: certificates that change under load, or expire.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use std::{fs, thread};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CertifiedKey, IsCa, KeyPair,
    date_time_ymd, generate_simple_self_signed,
};
use rustix::process::Signal;
use rustls::pki_types::CertificateDer;

use crate::harness::http::HOST;
use crate::harness::site::{ROMEO, ROMEO_FOLDER};
use crate::harness::tls::{BOTH, certify, trusting};
use crate::harness::{Client, Plan, Slot, eventually, pseudo_random, request, tls, unix_now};

#[test]
fn a_new_certificate_on_reload() {
    let (plan, old) = tls::plan(Plan::alone());
    let mut site = plan.start();
    let old_config = Arc::new(trusting(&[&old], BOTH));
    let mut kept = Client::tls(site.http, &old_config, HOST);
    kept.get("/").is(200);

    let new = certify(site.dir.path());
    site.program.signal(Signal::HUP);
    site.program.wait_line(&["config reloaded"]);
    let new_config = Arc::new(trusting(&[&new], BOTH));
    Client::tls(site.http, &new_config, HOST).get("/").is(200);
    assert!(
        Client::try_tls(site.http, &old_config, HOST).is_err(),
        "the old certificate is still in use"
    );
    // No connection was dropped.
    kept.get("/").is(200);

    // An invalid certificate is reported, and the previous one stays in use.
    site.program.allow("config not reloaded");
    fs::write(site.dir.path().join("cert.pem"), "no certificate at all").unwrap();
    site.program.signal(Signal::HUP);
    site.program
        .wait_line(&["ERROR", "config not reloaded ", "why="]);
    Client::tls(site.http, &new_config, HOST).get("/").is(200);
    kept.get("/").is(200);
}

/// Certificates are replaced under load: no connection is dropped, no request fails, and new connections after a reload
/// get the new certificate.
#[test]
fn reloads_under_load() {
    const ROUNDS: usize = 10;
    let certificates: Vec<CertifiedKey<KeyPair>> = (0..=ROUNDS)
        .map(|_| generate_simple_self_signed([HOST.to_owned()]).unwrap())
        .collect();
    let ders: Vec<_> = certificates.iter().map(|made| made.cert.der()).collect();
    let config = trusting(&ders, BOTH);
    let (plan, _) = tls::plan(Plan::new());
    let install = |dir: &Path, made: &CertifiedKey<KeyPair>| {
        fs::write(dir.join("cert.pem"), made.cert.pem()).unwrap();
        fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    };
    install(plan.dir(), &certificates[0]);
    let path = format!("{ROMEO_FOLDER}/Abcdefghijk12/large.bin");
    let large = pseudo_random(34, 8_000_000);
    let mut site = plan.seed(&path, &large).start();
    let target = format!("/files/{path}");
    let slots: Vec<Vec<Slot>> = (0..3)
        .map(|_| {
            (0..40)
                .map(|i| site.slot(ROMEO, &format!("{i}.bin"), 70_000, None))
                .collect()
        })
        .collect();
    let upload = pseudo_random(35, 70_000);

    let over = AtomicBool::new(false);
    let requests = AtomicUsize::new(0);
    let http = site.http;
    let is_over = || over.load(Ordering::Relaxed);
    let one_more = || requests.fetch_add(1, Ordering::Relaxed);
    let connect = || Client::tls(http, &Arc::new(config.clone()), HOST);
    thread::scope(|scope| {
        // One long connection and many short ones, with uploads and downloads.
        for slots in &slots {
            let (connect, upload, is_over, one_more) = (&connect, &upload, &is_over, &one_more);
            scope.spawn(move || {
                let mut kept = connect();
                let mut slots = slots.iter();
                while !is_over() {
                    kept.get("/").is(200);
                    if let Some(slot) = slots.next() {
                        let mut fresh = connect();
                        fresh.ask("PUT", &slot.put, &[], upload).is(201);
                        assert!(kept.get(&slot.get).is(200).body == *upload);
                    } else {
                        connect().get("/").is(200);
                    }
                    one_more();
                }
            });
        }
        // A download that lasts until the end.
        scope.spawn(|| {
            let mut slow = connect();
            slow.send(&request("GET", &target, &[], b""));
            assert_eq!(slow.reply_head().is(200).body_length, large.len());
            let mut came = Vec::new();
            while came.len() < large.len() {
                let most = if is_over() { 1 << 20 } else { 2000 };
                let piece = slow.read(most).unwrap();
                assert!(!piece.is_empty(), "dropped after {} bytes", came.len());
                came.extend(piece);
                if !is_over() {
                    thread::sleep(Duration::from_millis(5));
                }
            }
            assert!(came == large);
        });
        // Stop the other threads even after a failure.
        let reloaded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for (round, made) in certificates.iter().enumerate().skip(1) {
                let before = requests.load(Ordering::Relaxed);
                install(site.dir.path(), made);
                site.program.signal(Signal::HUP);
                site.program.wait_lines(&["config reloaded"], round);
                let mut fresh = connect();
                let shown = fresh.session().peer_certificates().unwrap();
                assert!(
                    shown[0] == *made.cert.der(),
                    "an old certificate in round {round}"
                );
                fresh.get("/").is(200);
                eventually("requests between two reloads", || {
                    requests.load(Ordering::Relaxed) > before + 3
                });
            }
        }));
        over.store(true, Ordering::Relaxed);
        reloaded.unwrap();
    });
    // The program did not abort a connection either.
    let lines = site.program.lines();
    assert!(
        !lines.iter().any(|line| line.contains("upload aborted")),
        "{}",
        lines.join("\n")
    );
}

/// Writes a certificate that expires in `seconds`, followed by that of its issuer.
fn expiring(
    dir: &Path,
    seconds: i64,
    issuer: Option<&CertifiedIssuer<'_, KeyPair>>,
) -> CertificateDer<'static> {
    let end = unix_now().checked_add_signed(seconds).unwrap();
    let mut params = CertificateParams::new([HOST.to_owned()]).unwrap();
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(end);
    let key = KeyPair::generate().unwrap();
    let made = match issuer {
        None => params.self_signed(&key).unwrap(),
        Some(issuer) => params.signed_by(&key, issuer).unwrap(),
    };
    let chain = made.pem() + &issuer.map(|issuer| issuer.pem()).unwrap_or_default();
    fs::write(dir.join("cert.pem"), chain).unwrap();
    fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
    made.der().clone()
}

const SOON: &str = "certificate expires soon at=";
const OVER: &str = "certificate has expired at=";

#[test]
fn expiry_is_reported_in_advance() {
    const DAY: i64 = 86_400;
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_after = date_time_ymd(2090, 1, 1);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    for (days, issuer, expected) in [
        (15, None, None),
        (13, None, Some(("WARN", SOON))),
        (1, Some(&issuer), Some(("WARN", SOON))),
        (400, Some(&issuer), None),
        (-1, None, Some(("ERROR", OVER))),
        (-400, Some(&issuer), Some(("ERROR", OVER))),
    ] {
        let (plan, _) = tls::plan(Plan::alone());
        expiring(plan.dir(), days * DAY, issuer);
        let mut site = plan.start();
        // The certificate is served in any case; the client decides whether to accept it.
        let distrusting = Arc::new(trusting(&[], BOTH));
        let refused = Client::try_tls(site.http, &distrusting, HOST).unwrap_err();
        assert!(refused.to_string().contains("certificate"), "{refused}");
        site.program.wait_line(&["ready "]);
        if let Some((level, text)) = expected {
            site.program.allow(text);
            site.program.wait_line(&[level, text]);
        }
        // The warning is repeated at a reload; a new certificate ends it.
        site.program.signal(Signal::HUP);
        site.program.wait_line(&["config reloaded"]);
        if let Some((level, text)) = expected {
            site.program.wait_lines(&[level, text], 2);
        }
        let new = expiring(site.dir.path(), 90 * DAY, None);
        site.program.signal(Signal::HUP);
        site.program.wait_lines(&["config reloaded"], 2);
        let config = Arc::new(trusting(&[&new], BOTH));
        Client::tls(site.http, &config, HOST).get("/").is(200);
        let lines = site.program.lines();
        let logged = lines
            .iter()
            .filter(|line| line.contains("certificate"))
            .count();
        assert_eq!(
            logged,
            if expected.is_some() { 2 } else { 0 },
            "{}",
            lines.join("\n")
        );
    }
}

/// A running program warns as soon as the expiry is near or past.
#[test]
fn a_certificate_expires_while_in_use() {
    const FORTNIGHT: i64 = 14 * 86_400;
    thread::scope(|scope| {
        for (seconds, before, then) in [
            (FORTNIGHT + 4, None, ("WARN", SOON)),
            (4, Some(SOON), ("ERROR", OVER)),
        ] {
            scope.spawn(move || {
                // No other timer may wake the loop meanwhile.
                let (plan, _) = tls::plan(Plan::alone().set("header_timeout", 60));
                let certificate = expiring(plan.dir(), seconds, None);
                let mut site = plan.start();
                let config = Arc::new(trusting(&[&certificate], BOTH));
                let mut kept = Client::tls(site.http, &config, HOST);
                kept.get("/").is(200);
                let (level, text) = then;
                for part in before.into_iter().chain([text]) {
                    site.program.allow(part);
                    site.program.wait_line(&[part]);
                }
                let line = site.program.wait_line(&[level, text]);
                let at = line.split("at=").nth(1).unwrap().to_owned();
                assert!(
                    at.ends_with('Z') && at.len() == "2026-01-01T00:00:00Z".len(),
                    "{line}"
                );
                // It keeps serving.
                kept.get("/").is(200);
                site.program.assert_idle("a certificate near its end");
                let lines = site.program.lines();
                let logged = lines.iter().filter(|line| line.contains(text)).count();
                assert_eq!(logged, 1, "{}", lines.join("\n"));
            });
        }
    });
}
