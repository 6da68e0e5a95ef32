//! Uploads that another server signed: `v`, `v2`, `token`, and the tokens of Prosody's file share.

use std::thread;
use std::time::{Duration, Instant};

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ring::hmac;

use crate::harness::http::chunked;
use crate::harness::site::{ROMEO, ROMEO_FOLDER, age, owner_folder, seed};
use crate::harness::{Fields, Plan, Reply, Site, request, unix_now};

const KEY: &str = "correct horse battery staple";
/// The one of the vector, though the program finds it short.
const DELETE_SECRET: &str = "delete me";
const UUID: &str = "4a771ac1-f0b2-4a4a-9700-f2a26fa2bb67";

fn mac(key: &str, message: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    hmac::sign(&key, message.as_bytes()).as_ref().to_vec()
}

fn hex(key: &str, message: &str) -> String {
    HEXLOWER.encode(&mac(key, message))
}

/// The query of a PUT: `kind` matters for all but `v`.
fn query(scheme: &str, path: &str, size: usize, kind: &str) -> String {
    let message = match scheme {
        "v" => format!("{path} {size}"),
        _ => format!("{path}\0{size}\0{kind}"),
    };
    format!("{scheme}={}", hex(KEY, &message))
}

fn external() -> Plan {
    Plan::alone().set("external_secret", format!("'{KEY}'"))
}

/// Makes the target below the prefix, and the body, from a path and its good query.
type Alter<'a> = dyn Fn(&str, &str) -> (String, Vec<u8>) + 'a;

#[track_caller]
fn put(site: &Site, target: &str, fields: Fields<'_>, body: &[u8]) -> Reply {
    site.client().ask("PUT", target, fields, body)
}

#[test]
fn the_published_vectors() {
    let mut site = external().start();
    site.program.hide(KEY);
    let body = vec![b'x'; 23456];
    let path = format!("/files/{UUID}/tr%c3%a8s%20cool.jpg");
    let v = "212eb66427e3cb987986d586d16214fdda08527a11b1542dd9a31c6c6ec7d2e9";
    put(
        &site,
        &format!("{path}?v={v}"),
        &[("Content-Type", "image/jpeg")],
        &body,
    )
    .is(201);
    assert_eq!(site.files(), [format!("{UUID}/très cool.jpg")]);
    let got = site.get(&path.replace("%c3%a8", "%C3%A8")).is(200);
    assert!(got.body == body);
    assert_eq!(got.expect("Content-Type"), "image/jpeg");
    let v2 = "9fd17fe95a0cd01a221b83ed9550daf6407f1150c352655b0502cceaf543260c";
    put(
        &site,
        &format!("{path}?v2={v2}"),
        &[("Content-Type", "image/jpeg")],
        &body,
    )
    .is(409);
    // Three segments, with the name raw in the target.
    let ejabberd = "43feddb25776a343c69835c7e79dc2c7f59598a6/a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0/très_cool.jpg";
    let v = "64430ebca8f196162769a37afbd0bb8c79cbbd58c3068eb24617a767047a1021";
    put(&site, &format!("/files/{ejabberd}?v={v}"), &[], &body).is(201);
    assert!(site.files().contains(&ejabberd.to_owned()));
    site.get(&format!("/files/{ejabberd}")).is(200);
    for line in site.program.lines() {
        assert!(
            !line.contains(v) && !line.contains(v2),
            "a signature in the log: {line}"
        );
    }
}

#[test]
fn what_the_server_signed_and_nothing_else() {
    let site = external().start();
    let mut number = 0;
    for scheme in ["v", "v2", "token"] {
        let jpeg = [("Content-Type", "image/jpeg")];
        // Each row has a path of its own; what is refused leaves nothing.
        let mut row = |what: &str, alter: &Alter<'_>, fields: Fields<'_>, status: u16| {
            number += 1;
            let path = format!("{UUID}/{number}/a.jpg");
            let good = query(scheme, &path, 5, "image/jpeg");
            let (target, body) = alter(&path, &good);
            let before = site.files().len();
            let reply = put(&site, &format!("/files/{target}"), fields, &body);
            assert_eq!(reply.status, status, "{scheme}: {what}: {}", reply.text());
            assert_eq!(
                site.files().len() - before,
                usize::from(status == 201),
                "{scheme}: {what}"
            );
        };
        let hello = || b"hello".to_vec();
        row("good", &|p, q| (format!("{p}?{q}"), hello()), &jpeg, 201);
        row(
            "among others",
            &|p, q| (format!("{p}?a=b&{q}&x"), hello()),
            &jpeg,
            201,
        );
        row(
            "upper-case hex",
            &|p, q| {
                let (name, hex) = q.split_once('=').unwrap();
                (format!("{p}?{name}={}", hex.to_uppercase()), hello())
            },
            &jpeg,
            201,
        );
        row(
            "other path",
            &|p, q| (format!("{p}x?{q}"), hello()),
            &jpeg,
            403,
        );
        row(
            "deeper path",
            &|p, q| (format!("{p}/a?{q}"), hello()),
            &jpeg,
            403,
        );
        row(
            "one byte more",
            &|p, q| (format!("{p}?{q}"), b"hello!".to_vec()),
            &jpeg,
            403,
        );
        row(
            "one byte less",
            &|p, q| (format!("{p}?{q}"), b"hell".to_vec()),
            &jpeg,
            403,
        );
        row(
            "other key",
            &|p, _| {
                let message = match scheme {
                    "v" => format!("{p} 5"),
                    _ => format!("{p}\x005\0image/jpeg"),
                };
                (
                    format!("{p}?{scheme}={}", hex("another key", &message)),
                    hello(),
                )
            },
            &jpeg,
            403,
        );
        row(
            "truncated",
            &|p, q| (format!("{p}?{}", &q[..q.len() - 1]), hello()),
            &jpeg,
            403,
        );
        row(
            "too long",
            &|p, q| (format!("{p}?{q}0"), hello()),
            &jpeg,
            403,
        );
        row(
            "twice",
            &|p, q| (format!("{p}?{q}&{q}"), hello()),
            &jpeg,
            403,
        );
        row(
            "empty",
            &|p, _| (format!("{p}?{scheme}="), hello()),
            &jpeg,
            403,
        );
        row("none", &|p, _| (p.to_owned(), hello()), &jpeg, 403);
        row(
            "as another scheme",
            &|p, q| {
                let (_, hex) = q.split_once('=').unwrap();
                let other = if scheme == "v" { "v2" } else { "v" };
                (format!("{p}?{other}={hex}"), hello())
            },
            &jpeg,
            403,
        );
        row(
            "a higher one fails",
            &|p, q| {
                let other = if scheme == "v2" { "v2=00&token" } else { "v2" };
                (format!("{p}?{other}={}&{q}", "0".repeat(64)), hello())
            },
            &jpeg,
            403,
        );
        // A type of its own is signed by v2 and token alone.
        let status = if scheme == "v" { 201 } else { 403 };
        row(
            "other type",
            &|p, q| (format!("{p}?{q}"), hello()),
            &[("Content-Type", "image/png")],
            201,
        );
        number += 1;
        let path = format!("{UUID}/{number}/a.bin");
        let target = format!("/files/{path}?{}", query(scheme, &path, 5, "image/jpeg"));
        put(&site, &target, &[("Content-Type", "image/png")], b"hello").is(status);
        // Without a length the signature cannot be judged.
        let path = format!("{UUID}/{number}/chunked.jpg");
        let target = format!("/files/{path}?{}", query(scheme, &path, 5, "image/jpeg"));
        let fields = [
            ("Transfer-Encoding", "chunked"),
            ("Content-Type", "image/jpeg"),
        ];
        let mut client = site.client();
        client.send(&request("PUT", &target, &fields, &chunked(b"hello", 5)));
        client.reply_to("PUT").is(411);
        put(&site, &target, &jpeg, b"hello").is(201);
        put(&site, &target, &jpeg, b"hello").is(409);
        // The refusal alone, and no 100, where the right is missing.
        let path = format!("{UUID}/{number}/expect.jpg");
        let target = format!("/files/{path}?{}", query(scheme, &path, 5, "image/jpeg"));
        let expect = [
            ("Expect", "100-continue"),
            ("Content-Length", "6"),
            ("Content-Type", "image/jpeg"),
        ];
        let mut client = site.client();
        client.send(&request("PUT", &target, &expect, b""));
        client.reply_to("PUT").is(403);
    }
}

#[test]
fn nothing_is_signed_without_a_secret() {
    let site = Plan::alone().start();
    let path = format!("{UUID}/a.jpg");
    for scheme in ["v", "v2", "token"] {
        for key in [KEY, ""] {
            let hex = hex(key, &format!("{path}\x005\0image/jpeg"));
            put(
                &site,
                &format!("/files/{path}?{scheme}={hex}"),
                &[("Content-Type", "image/jpeg")],
                b"hello",
            )
            .is(403);
        }
    }
}

#[test]
fn the_approved_type_is_kept_and_served() {
    let site = external().start();
    for (number, (signed, sent, name, served)) in [
        ("image/jpeg", Some("image/jpeg"), "a.jpg", "image/jpeg"),
        ("image/jpeg", Some("IMAGE/JPEG; a=b"), "a.bin", "image/jpeg"),
        ("image/jpeg", None, "a.jpg", "image/jpeg"),
        (
            "image/jpeg",
            Some("application/octet-stream"),
            "a.jpg",
            "image/jpeg",
        ),
        (
            "text/plain; charset=utf-8",
            Some("text/plain; charset=utf-8"),
            "a.bin",
            "text/plain; charset=utf-8",
        ),
        (
            "application/octet-stream",
            Some("text/html"),
            "a.html",
            "application/octet-stream",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        for scheme in ["v2", "token"] {
            let path = format!("{UUID}/{scheme}{number}/{name}");
            let target = format!("/files/{path}?{}", query(scheme, &path, 5, signed));
            let fields: Vec<_> = sent
                .map(|sent| ("Content-Type", sent))
                .into_iter()
                .collect();
            put(&site, &target, &fields, b"hello").is(201);
            let got = site.get(&format!("/files/{path}")).is(200);
            assert_eq!(
                got.expect("Content-Type"),
                served,
                "signed {signed}, sent {sent:?}"
            );
        }
    }
    // v signs no type: the PUT's is taken, else the extension's.
    for (name, sent, served) in [
        ("a.bin", Some("image/png"), "image/png"),
        ("a.png", None, "image/png"),
    ] {
        let path = format!("{UUID}/v/{name}");
        let fields: Vec<_> = sent
            .map(|sent| ("Content-Type", sent))
            .into_iter()
            .collect();
        put(
            &site,
            &format!("/files/{path}?{}", query("v", &path, 5, "")),
            &fields,
            b"hello",
        )
        .is(201);
        assert_eq!(
            site.get(&format!("/files/{path}"))
                .is(200)
                .expect("Content-Type"),
            served
        );
    }
}

/// Whichever way an upload comes, the type that was signed is labelled as its bytes are.
#[test]
fn signed_text_is_labelled() {
    let site = external()
        .set("file_share_secret", format!("'{KEY}'"))
        .start();
    let coffee = "Grüße ☕".as_bytes();
    let labelled = "text/plain; charset=utf-8";
    let cases: &[(&str, &str, &[u8], &str)] = &[
        ("a.bin", "text/plain", coffee, labelled),
        ("a.txt", "text/plain", coffee, labelled),
        ("a.bin", "text/plain", b"Gr\xfc\xdfe", "text/plain"),
        (
            "a.txt",
            "text/plain;charset=latin1",
            coffee,
            "text/plain;charset=latin1",
        ),
        (
            "a.txt",
            "application/pgp-encrypted",
            coffee,
            "application/pgp-encrypted",
        ),
    ];
    for (number, (name, kind, body, told)) in cases.iter().enumerate() {
        for scheme in ["v", "v2", "token"] {
            let path = format!("{UUID}/{scheme}{number}/{name}");
            let target = format!("/files/{path}?{}", query(scheme, &path, body.len(), kind));
            put(&site, &target, &[("Content-Type", kind)], body).is(201);
            let got = site.get(&format!("/files/{path}")).is(200);
            assert_eq!(got.expect("Content-Type"), *told, "{scheme} {name} {kind}");
        }
        let claims = Claims {
            slot: &format!("slot-{number}"),
            name,
            kind,
            size: body.len(),
            ..CLAIMS
        };
        share_put(&site, &claims.target(), &claims.token(), body).is(201);
        let got = site.get(&claims.target()).is(200);
        assert_eq!(got.expect("Content-Type"), *told, "JWT {name} {kind}");
    }
    // With no type at all, the name tells it.
    for scheme in ["v", "v2", "token"] {
        let path = format!("{UUID}/{scheme}/untyped.txt");
        let kind = if scheme == "v" { "" } else { "text/plain" };
        let target = format!("/files/{path}?{}", query(scheme, &path, coffee.len(), kind));
        put(&site, &target, &[], coffee).is(201);
        let got = site.get(&format!("/files/{path}")).is(200);
        assert_eq!(got.expect("Content-Type"), labelled, "{scheme}");
    }
}

#[test]
fn a_prefix_may_be_kept_stripped_or_doubled() {
    let site = external().start();
    for (number, prefix) in [
        "/files/",
        "/",
        "/files/files/",
        "http://upload.localhost/files/",
    ]
    .into_iter()
    .enumerate()
    {
        for scheme in ["v", "v2", "token"] {
            let path = format!("{UUID}-{number}{scheme}/a.jpg");
            let target = format!("{prefix}{path}?{}", query(scheme, &path, 5, "image/jpeg"));
            put(&site, &target, &[("Content-Type", "image/jpeg")], b"hello").is(201);
            assert!(site.files().contains(&path), "{target}");
            site.get(&format!("{prefix}{path}")).is(200);
            site.get(&format!("/files/{path}")).is(200);
            put(
                &site,
                &format!("/files/{path}?{}", query(scheme, &path, 5, "image/jpeg")),
                &[("Content-Type", "image/jpeg")],
                b"hello",
            )
            .is(409);
        }
    }
    // What cannot be a file is not one, signed or not.
    for path in [
        "a",
        "../a",
        "a/../b",
        "a/./b",
        "a//b",
        ".upslot/share/x",
        "a/\0b",
    ] {
        let encoded: String = path
            .chars()
            .map(|c| {
                if c == '\0' {
                    "%00".to_owned()
                } else {
                    c.to_string()
                }
            })
            .collect();
        put(
            &site,
            &format!("/files/{encoded}?{}", query("v", path, 5, "")),
            &[],
            b"hello",
        )
        .is(403);
    }
}

#[test]
fn a_signature_does_not_bring_back_what_expired() {
    let mut site = external()
        .set("expire_interval", 1)
        .set("expire_maxage", 1000)
        .set("user_quota_soft", 1000)
        .start();
    let jpeg = [("Content-Type", "image/jpeg")];
    let paths = ["v", "v2", "token"].map(|scheme| (scheme, format!("{UUID}-{scheme}/a.jpg")));
    let targets: Vec<String> = paths
        .iter()
        .map(|(scheme, path)| format!("/files/{path}?{}", query(scheme, path, 5, "image/jpeg")))
        .collect();
    for ((_, path), target) in paths.iter().zip(&targets) {
        put(&site, target, &jpeg, b"hello").is(201);
        site.get(&format!("/files/{path}")).is(200);
    }
    // One folder of two files that are too many together: the soft quota takes the older one.
    let trimmed = format!("{UUID}/1/a.jpg");
    let target = format!("/files/{trimmed}?{}", query("v", &trimmed, 600, ""));
    put(&site, &target, &jpeg, &[b'x'; 600]).is(201);
    age(&site.store().join(&trimmed), 500);
    let other = format!("{UUID}/2/a.jpg");
    put(
        &site,
        &format!("/files/{other}?{}", query("v", &other, 600, "")),
        &jpeg,
        &[b'x'; 600],
    )
    .is(201);
    site.program.wait_line(&["owner trimmed "]);
    site.get(&format!("/files/{trimmed}")).is(404);
    put(&site, &target, &jpeg, &[b'x'; 600]).is(409);
    for (_, path) in &paths {
        age(&site.store().join(path), 1100);
    }
    crate::harness::eventually("the sweep", || site.files() == [other.clone()]);
    for _ in 0..2 {
        for ((_, path), target) in paths.iter().zip(&targets) {
            site.get(&format!("/files/{path}")).is(404);
            put(&site, target, &jpeg, b"hello").is(409);
            // However it is spelt.
            put(&site, &target.replace("/files/", "/"), &jpeg, b"hello").is(409);
        }
        put(&site, &target, &jpeg, &[b'x'; 600]).is(409);
        site.restart();
    }
    assert_eq!(site.files(), [other]);
    // A path that never was is free.
    let path = format!("{UUID}-new/a.jpg");
    put(
        &site,
        &format!("/files/{path}?{}", query("v", &path, 5, "")),
        &jpeg,
        b"hello",
    )
    .is(201);
}

#[test]
fn a_signed_delete() {
    let mut site = external()
        .set("external_delete_secret", format!("'{DELETE_SECRET}'"))
        .start();
    site.program.hide(DELETE_SECRET);
    site.program.allow("external_delete_secret");
    let path = format!("{UUID}/très cool.jpg");
    let target = format!("/files/{UUID}/tr%C3%A8s%20cool.jpg");
    let good = "13d50f9fac1df132ae3a3d91d3cef2b02ea9994807c424980522a533af1d5661";
    assert_eq!(good, hex(KEY, &format!("{path}\0{DELETE_SECRET}")));
    let upload = format!("{target}?{}", query("token", &path, 5, "image/jpeg"));
    let jpeg = [("Content-Type", "image/jpeg")];
    put(&site, &upload, &jpeg, b"hello").is(201);
    let mut client = site.client();
    for wrong in [
        String::new(),
        "?".into(),
        format!("?token={}", "0".repeat(64)),
        format!("?token={}", &good[..63]),
        format!("?v={good}"),
        format!("?v2={good}"),
        format!("?token={}", hex(KEY, &format!("{path}\0"))),
        format!(
            "?token={}",
            hex("another key", &format!("{path}\0{DELETE_SECRET}"))
        ),
        // What gave the right to upload gives none to remove.
        format!("?{}", query("token", &path, 5, "image/jpeg")),
    ] {
        client
            .ask("DELETE", &format!("{target}{wrong}"), &[], b"")
            .is(403);
    }
    client
        .ask(
            "DELETE",
            &format!("/files/{UUID}/other.jpg?token={good}"),
            &[],
            b"",
        )
        .is(403);
    // And the other way round.
    put(
        &site,
        &format!(
            "/files/{UUID}/b.jpg?token={}",
            hex(KEY, &format!("{UUID}/b.jpg\0{DELETE_SECRET}"))
        ),
        &jpeg,
        b"hello",
    )
    .is(403);
    // However often it was asked for until then, it is gone at once.
    for _ in 0..20 {
        client.get(&target).is(200);
    }
    client
        .ask("DELETE", &format!("{target}?token={good}"), &[], b"")
        .is(204);
    client.get(&target).is(404);
    assert!(site.entries().is_empty(), "{:?}", site.entries());
    client
        .ask("DELETE", &format!("{target}?token={good}"), &[], b"")
        .is(404);
    put(&site, &upload, &jpeg, b"hello").is(409);
    site.restart();
    site.program.allow("external_delete_secret");
    put(&site, &upload, &jpeg, b"hello").is(409);
    assert!(site.files().is_empty());
    // Without the secret nobody deletes anything.
    let site = external().seed(&path, b"hello").start();
    let reply = site
        .client()
        .ask("DELETE", &format!("{target}?token={good}"), &[], b"")
        .is(405);
    assert!(!reply.expect("Allow").contains("DELETE"));
    site.get(&target).is(200);
}

#[test]
fn a_file_that_was_there_before_is_served_and_not_replaced() {
    // The store of another backend of this kind.
    let path = format!("{UUID}/old.jpg");
    let site = external().seed(&path, b"old").start();
    assert_eq!(
        site.get(&format!("/files/{path}"))
            .is(200)
            .expect("Content-Type"),
        "image/jpeg"
    );
    put(
        &site,
        &format!("/files/{path}?{}", query("v", &path, 5, "")),
        &[],
        b"hello",
    )
    .is(409);
    assert_eq!(site.get(&format!("/files/{path}")).is(200).body, b"old");
}

// --- Prosody's file share --------------------------------------------------------------------------------------------

const HS256: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

fn share() -> Plan {
    Plan::alone().set("file_share_secret", format!("'{KEY}'"))
}

fn token_with(key: &str, header: &str, payload: &str) -> String {
    let signed = format!(
        "{}.{}",
        BASE64URL_NOPAD.encode(header.as_bytes()),
        BASE64URL_NOPAD.encode(payload.as_bytes())
    );
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&mac(key, &signed)))
}

/// What a token says; the tests alter what they are about.
#[derive(Clone, Copy)]
struct Claims<'a> {
    sub: &'a str,
    slot: &'a str,
    name: &'a str,
    size: usize,
    kind: &'a str,
    /// Seconds from now.
    exp: i64,
    expires: Option<u64>,
}

const CLAIMS: Claims = Claims {
    sub: ROMEO,
    slot: "0192f0aa",
    name: "très cool.jpg",
    size: 5,
    kind: "image/jpeg",
    exp: 300,
    expires: None,
};

impl Claims<'_> {
    fn json(&self) -> String {
        let now = unix_now();
        let exp = now.saturating_add_signed(self.exp);
        let expires = self
            .expires
            .map_or(String::new(), |expires| format!(",\"expires\":{expires}"));
        format!(
            "{{\"iat\":{now},\"exp\":{exp},\"sub\":\"{}\",\"slot\":\"{}\",\"filename\":\"{}\",\"filesize\":{},\
             \"filetype\":\"{}\"{expires}}}",
            self.sub, self.slot, self.name, self.size, self.kind
        )
    }

    fn token(&self) -> String {
        token_with(KEY, HS256, &self.json())
    }

    fn target(&self) -> String {
        let name: String =
            percent_encoding::utf8_percent_encode(self.name, percent_encoding::NON_ALPHANUMERIC)
                .collect();
        format!("/files/{}/{name}", self.slot)
    }

    #[track_caller]
    fn put(&self, site: &Site) -> Reply {
        share_put(site, &self.target(), &self.token(), &vec![b'h'; self.size])
    }
}

#[track_caller]
fn share_put(site: &Site, target: &str, token: &str, body: &[u8]) -> Reply {
    put(
        site,
        target,
        &[("Authorization", &format!("Bearer {token}"))],
        body,
    )
}

#[test]
fn a_token_gives_one_upload() {
    let mut site = share().start();
    site.program.hide(KEY);
    let claims = CLAIMS;
    let token = claims.token();
    site.program.hide(&token);
    let reply = share_put(&site, &claims.target(), &token, b"hello").is(201);
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
    // By its slot, under whatever name; with the type of the token.
    for target in [
        &*claims.target(),
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
        .ask("GET", &claims.target(), &[("Range", "bytes=1-2")], b"")
        .is(206);
    assert_eq!(ranged.body, b"el");
    site.get("/files/0192f0ab/other.png").is(404);
    for _ in 0..2 {
        share_put(&site, &claims.target(), &token, b"hello").is(409);
        share_put(&site, "/files/0192f0aa/other.png", &token, b"hello").is(409);
        assert_eq!(site.files(), files);
        site.restart();
        site.get(&claims.target()).is(200);
    }
}

#[test]
fn one_slot_makes_one_file_whatever_its_tokens_say() {
    let site = share().start();
    let claims = CLAIMS;
    share_put(&site, &claims.target(), &claims.token(), b"hello").is(201);
    // Another token for the same slot does not replace the file.
    share_put(
        &site,
        &claims.target(),
        &Claims {
            name: "b.jpg",
            ..claims
        }
        .token(),
        b"HELLO",
    )
    .is(409);
    assert_eq!(site.get(&claims.target()).is(200).body, b"hello");
}

#[test]
fn tokens_that_give_nothing() {
    let site = share().start();
    let claims = CLAIMS;
    let target = claims.target();
    let good = claims.token();
    let none = r#"{"alg":"none","typ":"JWT"}"#;
    let unsigned = token_with(KEY, none, &claims.json());
    let unsigned = &unsigned[..=unsigned.rfind('.').unwrap()];
    // Missing or no token at all.
    for fields in [
        &[][..],
        &[("Authorization", "")],
        &[("Authorization", "Bearer")],
        &[("Authorization", "Bearer a.b")],
        &[("Authorization", "Bearer ....")],
        &[("Authorization", "Basic cm9tZW86anVsaWV0")],
        &[("Authorization", &*good)],
    ] {
        let reply = put(&site, &target, fields, b"hello").is(401);
        assert!(
            reply.expect("WWW-Authenticate").starts_with("Bearer"),
            "{fields:?}"
        );
        assert!(reply.has("Access-Control-Allow-Origin"));
    }
    // Whole, but not for this.
    for (what, token) in [
        (
            "other key",
            token_with("another key", HS256, &claims.json()),
        ),
        ("no key", token_with("", HS256, &claims.json())),
        ("altered", {
            let altered = claims.json().replace(":5,", ":5000,");
            let head = good.split('.').next().unwrap();
            let tag = good.rsplit('.').next().unwrap();
            format!(
                "{head}.{}.{tag}",
                BASE64URL_NOPAD.encode(altered.as_bytes())
            )
        }),
        ("expired", Claims { exp: -1, ..claims }.token()),
        (
            "other slot",
            Claims {
                slot: "0192f0ab",
                ..claims
            }
            .token(),
        ),
        (
            "longer slot",
            Claims {
                slot: "0192f0aaa",
                ..claims
            }
            .token(),
        ),
        (
            "file expired",
            Claims {
                expires: Some(unix_now() - 1),
                ..claims
            }
            .token(),
        ),
        ("alg none", token_with(KEY, none, &claims.json())),
        (
            "alg HS512",
            token_with(KEY, r#"{"alg":"HS512","typ":"JWT"}"#, &claims.json()),
        ),
        (
            "alg hs256",
            token_with(KEY, r#"{"alg":"hs256","typ":"JWT"}"#, &claims.json()),
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
    // The size is exact, the type is bound.
    share_put(&site, &target, &good, b"hello!").is(413);
    let short = share_put(&site, &target, &good, b"hell").status;
    assert!(matches!(short, 400 | 413), "{short}");
    let authorization = format!("Bearer {good}");
    put(
        &site,
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
    // The token is no right to anything else.
    for method in ["DELETE", "POST", "PATCH"] {
        site.client()
            .ask(method, &target, &[("Authorization", &authorization)], b"")
            .is(405);
    }
    crate::harness::eventually("an empty store", || site.entries().is_empty());
    site.get(&target).is(404);
    // After all these, the token is still good.
    let mut client = site.client();
    client.send(&request("PUT", &target, &fields, &chunked(b"hello", 2)));
    client.reply_to("PUT").is(201);
    // Without the secret there are no tokens.
    let site = Plan::alone().start();
    share_put(&site, &target, &good, b"hello").is(403);
}

#[test]
fn the_field_in_other_spellings() {
    let site = share().start();
    for (number, (field, scheme)) in [
        ("authorization", "bearer"),
        ("AUTHORIZATION", "BEARER"),
        ("Authorisation", "Bearer"),
    ]
    .into_iter()
    .enumerate()
    {
        let claims = Claims {
            slot: &format!("slot-{number}"),
            ..CLAIMS
        };
        put(
            &site,
            &claims.target(),
            &[(field, &format!("{scheme} {}", claims.token()))],
            b"hello",
        )
        .is(201);
    }
    // An empty file is legal in this scheme.
    let claims = Claims {
        slot: "empty",
        size: 0,
        ..CLAIMS
    };
    claims.put(&site).is(201);
    assert!(site.get(&claims.target()).is(200).body.is_empty());
}

#[test]
fn the_name_in_the_url_is_for_show() {
    let site = share().start();
    let long = "x".repeat(300);
    for (number, name) in ["other.png", ".profile", "..profile", &long]
        .into_iter()
        .enumerate()
    {
        let claims = Claims {
            slot: &format!("name-{number}"),
            name,
            ..CLAIMS
        };
        let reply = claims.put(&site);
        assert_eq!(reply.status, 201, "{name}: {}", reply.text());
        site.get(&claims.target()).is(200);
    }
    // The tree is left by none of them.
    for (number, name) in ["%2e%2e", "a%2Fb", "..", "."].into_iter().enumerate() {
        let claims = Claims {
            slot: &format!("odd-{number}"),
            ..CLAIMS
        };
        let target = format!("/files/{}/{name}", claims.slot);
        let status = share_put(&site, &target, &claims.token(), b"hello").status;
        assert!(matches!(status, 201 | 403), "{name}: {status}");
    }
    assert!(
        site.files()
            .iter()
            .all(|file| file.starts_with(ROMEO_FOLDER)),
        "{:?}",
        site.files()
    );
}

#[test]
fn the_end_of_a_shared_file() {
    let mut site = share()
        .set("expire_interval", 3600)
        .set("expire_maxage", 100_000)
        .start();
    let until = unix_now() + 3;
    let claims = Claims {
        expires: Some(until),
        ..CLAIMS
    };
    let token = claims.token();
    share_put(&site, &claims.target(), &token, b"hello").is(201);
    assert!(
        site.files()[0].contains(&format!("~mx{until:x}/")),
        "{:?}",
        site.files()
    );
    let mut client = site.client();
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        let before = unix_now();
        let reply = client.get(&claims.target());
        let after = unix_now();
        match reply.status {
            200 => assert!(before < until, "served at {before}, past {until}"),
            404 => {
                assert!(after >= until, "gone at {after}, before {until}");
                break;
            }
            status => panic!("{status}"),
        }
        assert!(Instant::now() < deadline, "still served");
        thread::sleep(Duration::from_millis(50));
    }
    // Not swept yet; the token is good for some minutes more, but the file's time is over.
    assert_eq!(site.files().len(), 1);
    let status = share_put(&site, &claims.target(), &token, b"hello").status;
    assert!(matches!(status, 403 | 409), "{status}");
    site.get(&claims.target()).is(404);
    site.rewrite("expire_interval", 1);
    site.restart();
    crate::harness::eventually("the sweep", || site.files().is_empty());
    let status = share_put(&site, &claims.target(), &token, b"hello").status;
    assert!(matches!(status, 403 | 409), "{status}");
    site.get(&claims.target()).is(404);
    // The slot is known as used for as long as its token could be good, and forgotten a day later.
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
    crate::harness::eventually("the end of the alias", || {
        std::fs::read_dir(&shares).unwrap().count() == 0
    });
}

#[test]
fn one_quota_for_all_ways() {
    let mut site = Plan::new()
        .set("file_share_secret", format!("'{KEY}'"))
        .set("external_secret", format!("'{KEY}'"))
        .set("api", "{port: 0}")
        .set("user_quota_hard", 1000)
        .set("max_file_size", 1000)
        .seed(&format!("{ROMEO_FOLDER}/0123456789abc/old.bin"), &[0; 100])
        .start();
    Claims {
        slot: "one",
        size: 500,
        ..CLAIMS
    }
    .put(&site)
    .is(201);
    assert!(site.ask(ROMEO, "a.bin", 401, None, "").is_err());
    let slot = site.slot(ROMEO, "a.bin", 300, None);
    site.put(&slot, &[b'x'; 300]).is(201);
    site.ask_api(&format!("/slot/?jid={ROMEO}&name=a&size=101"))
        .is(403);
    // The resource does not make another owner.
    Claims {
        slot: "two",
        size: 101,
        sub: "Romeo@montague.tld/x",
        ..CLAIMS
    }
    .put(&site)
    .is(507);
    Claims {
        slot: "two",
        size: 100,
        sub: "Romeo@montague.tld/x",
        ..CLAIMS
    }
    .put(&site)
    .is(201);
    assert!(site.ask(ROMEO, "a.bin", 1, None, "").is_err());
    Claims {
        slot: "three",
        size: 1000,
        sub: "juliet@capulet.tld",
        ..CLAIMS
    }
    .put(&site)
    .is(201);
    // What names no owner counts as nobody's.
    let path = format!("{UUID}/a.bin");
    put(
        &site,
        &format!("/files/{path}?{}", query("v", &path, 5000, "")),
        &[],
        &[b'x'; 5000],
    )
    .is(201);
    let folder = site.store().join(owner_folder("juliet@capulet.tld"));
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 1);
    // A file of the old kind still goes its way beside all that.
    seed(
        &site.store(),
        &format!("{ROMEO_FOLDER}/0123456789abd"),
        b"old",
    );
    site.get(&format!("/files/{ROMEO_FOLDER}/0123456789abd"))
        .is(200);
}
