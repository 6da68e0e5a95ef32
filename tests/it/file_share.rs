//! Uploads by a token of Prosody's `mod_http_file_share`.

use std::fs;
use std::io::ErrorKind;
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use rustix::process::Signal;

use crate::harness::downloads::served_until;
use crate::harness::files::seed;
use crate::harness::http::chunked;
use crate::harness::signing::{Claims, HS256, KEY, jwt};
use crate::harness::site::ROMEO_FOLDER;
use crate::harness::{PATIENCE, Plan, Reply, Site, eventually, request, unix_now};

fn share() -> Plan {
    Plan::alone().set("file_share_secret", format!("'{KEY}'"))
}

fn image_claims(slot: &str) -> Claims {
    Claims::new(slot)
        .named("très cool.jpg")
        .with("filetype", "image/jpeg")
}

#[track_caller]
fn share_put(site: &Site, target: &str, token: &str, body: &[u8]) -> Reply {
    let bearer = format!("Bearer {token}");
    site.put_at(target, &[("Authorization", &bearer)], body)
}

#[test]
fn one_upload_per_token() {
    let mut site = share().start();
    site.program.hide(KEY);
    let claims = image_claims("0192f0aa");
    let token = claims.token();
    site.program.hide(&token);
    let reply = share_put(&site, &claims.target, &token, b"hello").is(201);
    assert!(
        reply.expect("Location").contains("/files/0192f0aa/"),
        "{:?}",
        reply.fields
    );
    let files = site.files();
    assert_eq!(files.len(), 1);
    assert!(
        files[0].starts_with(&format!("{ROMEO_FOLDER}/"))
            && files[0].ends_with("~mn/très cool.jpg"),
        "{files:?}"
    );
    // Served by its slot under any name, with the type of the token.
    for target in [
        &*claims.target,
        "/files/0192f0aa/other.png",
        "/0192f0aa/x",
        "/files/files/0192f0aa/x",
    ] {
        let got = site.get(target).is(200);
        assert_eq!(
            (got.expect("Content-Type"), &*got.body),
            ("image/jpeg", &b"hello"[..]),
            "{target}"
        );
        let head = site.client().ask("HEAD", target, &[], b"").is(200);
        assert_eq!(head.expect("Content-Length"), "5");
    }
    let ranged = site
        .client()
        .ask("GET", &claims.target, &[("Range", "bytes=1-2")], b"")
        .is(206);
    assert_eq!(ranged.body, b"el");
    site.get("/files/0192f0ab/other.png").is(404);
    for _ in 0..2 {
        share_put(&site, &claims.target, &token, b"hello").is(409);
        share_put(&site, "/files/0192f0aa/other.png", &token, b"hello").is(409);
        assert_eq!(site.files(), files);
        site.restart();
        site.get(&claims.target).is(200);
    }
}

#[test]
fn one_file_for_two_tokens_of_a_slot() {
    let site = share().start();
    let claims = image_claims("0192f0aa");
    share_put(&site, &claims.target, &claims.token(), b"hello").is(201);
    // Another token for the same slot does not replace the file.
    share_put(
        &site,
        &claims.target,
        &claims.clone().named("b.jpg").token(),
        b"HELLO",
    )
    .is(409);
    assert_eq!(site.get(&claims.target).is(200).body, b"hello");
}

#[test]
fn invalid_tokens() {
    let site = share().start();
    let claims = image_claims("0192f0aa");
    let target = claims.target.clone();
    let good = claims.token();
    let none = r#"{"alg":"none","typ":"JWT"}"#;
    let unsigned = jwt(KEY, none, &claims.json());
    let unsigned = &unsigned[..=unsigned.rfind('.').unwrap()];
    // Missing or malformed.
    for fields in [
        &[][..],
        &[("Authorization", "")],
        &[("Authorization", "Bearer")],
        &[("Authorization", "Bearer a.b")],
        &[("Authorization", "Bearer ....")],
        &[("Authorization", "Basic cm9tZW86anVsaWV0")],
        &[("Authorization", &*good)],
    ] {
        let reply = site.put_at(&target, fields, b"hello").is(401);
        assert!(
            reply.expect("WWW-Authenticate").starts_with("Bearer"),
            "{fields:?}"
        );
        assert!(reply.has("Access-Control-Allow-Origin"));
    }
    // Well-formed, but invalid.
    for (what, token) in [
        ("other key", jwt("another key", HS256, &claims.json())),
        ("no key", jwt("", HS256, &claims.json())),
        ("altered", {
            let altered = claims.json().replace(":5,", ":5000,");
            let head = good.split('.').next().unwrap();
            let tag = good.rsplit('.').next().unwrap();
            format!(
                "{head}.{}.{tag}",
                BASE64URL_NOPAD.encode(altered.as_bytes())
            )
        }),
        (
            "expired",
            claims.clone().with_raw("exp", unix_now() - 1).token(),
        ),
        (
            "other slot",
            claims.clone().with("slot", "0192f0ab").token(),
        ),
        (
            "longer slot",
            claims.clone().with("slot", "0192f0aaa").token(),
        ),
        (
            "file expired",
            claims.clone().with_raw("expires", unix_now() - 1).token(),
        ),
        ("alg none", jwt(KEY, none, &claims.json())),
        (
            "alg HS512",
            jwt(KEY, r#"{"alg":"HS512","typ":"JWT"}"#, &claims.json()),
        ),
        (
            "alg hs256",
            jwt(KEY, r#"{"alg":"hs256","typ":"JWT"}"#, &claims.json()),
        ),
    ] {
        let reply = share_put(&site, &target, &token, b"hello");
        assert_eq!(reply.status, 403, "{what}: {}", reply.text());
    }
    let reply = share_put(&site, &target, unsigned, b"hello");
    assert!(
        matches!(reply.status, 401 | 403),
        "alg none without a signature: {}",
        reply.status
    );
    // Size and type must match.
    share_put(&site, &target, &good, b"hello!").is(413);
    let short = share_put(&site, &target, &good, b"hell").status;
    assert!(matches!(short, 400 | 413), "{short}");
    let authorization = format!("Bearer {good}");
    site.put_at(
        &target,
        &[
            ("Authorization", &authorization),
            ("Content-Type", "image/png"),
        ],
        b"hello",
    )
    .is(415);
    let fields = [
        ("Authorization", &*authorization),
        ("Transfer-Encoding", "chunked"),
    ];
    let mut client = site.client();
    client.send(&request("PUT", &target, &fields, &chunked(b"hello!", 6)));
    client.reply_to("PUT").is(413);
    // The token permits no other method.
    for method in ["DELETE", "POST", "PATCH"] {
        site.client()
            .ask(method, &target, &[("Authorization", &authorization)], b"")
            .is(405);
    }
    crate::harness::eventually("an empty store", || site.entries().is_empty());
    site.get(&target).is(404);
    // The token is still valid.
    let mut client = site.client();
    client.send(&request("PUT", &target, &fields, &chunked(b"hello", 2)));
    client.reply_to("PUT").is(201);
    // Without the secret, tokens are refused.
    let site = Plan::alone().start();
    share_put(&site, &target, &good, b"hello").is(403);
}

#[test]
fn spellings_of_the_authorization_field() {
    let site = share().start();
    for (number, (field, scheme)) in [
        ("authorization", "bearer"),
        ("AUTHORIZATION", "BEARER"),
        ("Authorisation", "Bearer"),
    ]
    .into_iter()
    .enumerate()
    {
        let claims = image_claims(&format!("slot-{number}"));
        site.put_at(
            &claims.target,
            &[(field, &format!("{scheme} {}", claims.token()))],
            b"hello",
        )
        .is(201);
    }
    // An empty file is allowed in this scheme.
    let claims = image_claims("empty").sized(0);
    claims.put(&site, b"").is(201);
    assert!(site.get(&claims.target).is(200).body.is_empty());
}

#[test]
fn the_name_in_the_url_is_ignored() {
    let site = share().start();
    let long = "x".repeat(300);
    for (number, name) in ["other.png", ".profile", "..profile", &long]
        .into_iter()
        .enumerate()
    {
        let claims = image_claims(&format!("name-{number}")).named(name);
        let reply = claims.put(&site, b"hello");
        assert_eq!(reply.status, 201, "{name}: {}", reply.text());
        site.get(&claims.target).is(200);
    }
    // None of them leaves the store.
    for (number, name) in ["%2e%2e", "a%2Fb", "..", "."].into_iter().enumerate() {
        let claims = image_claims(&format!("odd-{number}"));
        let target = format!("/files/odd-{number}/{name}");
        let status = share_put(&site, &target, &claims.token(), b"hello").status;
        assert!(matches!(status, 201 | 403), "{name}: {status}");
    }
    site.assert_all_files_in(ROMEO_FOLDER);
}

#[test]
fn shared_files_expire() {
    let mut site = share()
        .set("expire_interval", 3600)
        .set("expire_maxage", 100_000)
        .start();
    let until = unix_now() + 3;
    let claims = image_claims("0192f0aa").with_raw("expires", until);
    let token = claims.token();
    share_put(&site, &claims.target, &token, b"hello").is(201);
    assert!(
        site.files()[0].contains(&format!("~mx{until:x}/")),
        "{:?}",
        site.files()
    );
    let mut client = site.client();
    served_until(&mut client, &claims.target, until);
    // Not swept yet; the token is valid for some more minutes, but the file has expired.
    assert_eq!(site.files().len(), 1);
    let status = share_put(&site, &claims.target, &token, b"hello").status;
    assert!(matches!(status, 403 | 409), "{status}");
    site.get(&claims.target).is(404);
    site.rewrite("expire_interval", 1);
    site.restart();
    crate::harness::eventually("the sweep", || site.files().is_empty());
    let status = share_put(&site, &claims.target, &token, b"hello").status;
    assert!(matches!(status, 403 | 409), "{status}");
    site.get(&claims.target).is(404);
    // The alias is kept while the token could be valid, and deleted a day later.
    let shares = site.store().join(".upslot/share");
    let alias = std::fs::read_dir(&shares).unwrap().next().unwrap().unwrap();
    let days_ago = rustix::fs::Timespec {
        tv_sec: i64::try_from(unix_now()).unwrap() - 2 * 86_400,
        tv_nsec: 0,
    };
    let times = rustix::fs::Timestamps {
        last_access: days_ago,
        last_modification: days_ago,
    };
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::utimensat(rustix::fs::CWD, alias.path(), &times, flags).unwrap();
    crate::harness::eventually("deletion of the alias", || {
        std::fs::read_dir(&shares).unwrap().count() == 0
    });
}

/// A PUT whose token was valid when it arrived waits until the owner's files are counted, even if the token expires
/// meanwhile.
#[test]
fn a_waiting_upload_outlives_its_token() {
    const FILES: usize = 20_000;
    let plan = share()
        .set("user_quota_hard", "1 GiB")
        .set("log_level", "debug");
    let first = seed(&plan.store(), &format!("{ROMEO_FOLDER}/0.bin"), b"x");
    for number in 1..FILES {
        fs::hard_link(&first, first.with_file_name(format!("{number}.bin"))).unwrap();
    }
    let mut site = plan.start();
    // If the files are counted before the program is stopped, another attempt begins with a restart.
    for attempt in 1..10 {
        let expires = unix_now() + 3;
        let claims = Claims::new(&format!("0192f0a{attempt}")).with_raw("exp", expires);
        let bearer = claims.bearer();
        let fields = [
            ("Authorization", &*bearer),
            ("Content-Length", "5"),
            ("Expect", "100-continue"),
        ];
        let mut waiting = site.client();
        waiting.send(&request("PUT", &claims.target, &fields, b""));
        site.program
            .wait_line(&["request conn=", "method=PUT", &claims.target]);
        // The program has decided on the PUT when it answers a later request.
        site.get("/").is(200);
        site.program.signal(Signal::STOP);
        eventually("the token to expire", || unix_now() > expires);
        waiting.set_patience(Duration::from_millis(10));
        let answered = waiting.read(1);
        site.program.signal(Signal::CONT);
        match answered {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            _ => {
                site.restart();
                continue;
            }
        }
        waiting.set_patience(PATIENCE);
        waiting.reply_to("PUT").is(100);
        waiting.send(b"hello");
        waiting.reply_to("PUT").is(201);
        let late = Claims::new("0192f0b0").with_raw("exp", expires);
        late.put(&site, b"hello").is(403);
        return;
    }
    panic!("the files were counted too quickly");
}
