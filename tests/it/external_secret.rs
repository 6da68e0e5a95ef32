//! Links for upload and deletion, signed by the XMPP server with `external_secret`: `v`, `v2`, `token`.

use crate::harness::files::age;
use crate::harness::http::chunked;
use crate::harness::signing::{KEY, UUID, external_plan, hex, put_query};
use crate::harness::{Fields, Plan, request};

/// From the published vectors; the program warns that it is short.
const DELETE_SECRET: &str = "delete me";

/// The target of a signed PUT.
fn put_target(scheme: &str, path: &str, size: usize, kind: &str) -> String {
    format!("/files/{path}?{}", put_query(scheme, path, size, kind))
}

/// Makes the target below the prefix and the body from a path and its valid query.
type Alter<'a> = dyn Fn(&str, &str) -> (String, Vec<u8>) + 'a;

#[test]
fn published_vectors() {
    let mut site = external_plan().start();
    site.program.hide(KEY);
    let body = vec![b'x'; 23456];
    let path = format!("/files/{UUID}/tr%c3%a8s%20cool.jpg");
    let v = "212eb66427e3cb987986d586d16214fdda08527a11b1542dd9a31c6c6ec7d2e9";
    site.put_at(
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
    site.put_at(
        &format!("{path}?v2={v2}"),
        &[("Content-Type", "image/jpeg")],
        &body,
    )
    .is(409);
    // Three segments, with an unencoded name.
    let ejabberd = "43feddb25776a343c69835c7e79dc2c7f59598a6/a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0/très_cool.jpg";
    let v = "64430ebca8f196162769a37afbd0bb8c79cbbd58c3068eb24617a767047a1021";
    site.put_at(&format!("/files/{ejabberd}?v={v}"), &[], &body)
        .is(201);
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
fn only_what_was_signed() {
    let site = external_plan().start();
    let mut number = 0;
    for scheme in ["v", "v2", "token"] {
        let jpeg = [("Content-Type", "image/jpeg")];
        // Each row has its own path; a refused upload leaves nothing.
        let mut row = |what: &str, alter: &Alter<'_>, fields: Fields<'_>, status: u16| {
            number += 1;
            let path = format!("{UUID}/{number}/a.jpg");
            let good = put_query(scheme, &path, 5, "image/jpeg");
            let (target, body) = alter(&path, &good);
            let before = site.files().len();
            let reply = site.put_at(&format!("/files/{target}"), fields, &body);
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
        row(
            "other type",
            &|p, q| (format!("{p}?{q}"), hello()),
            &[("Content-Type", "image/png")],
            201,
        );
    }
}

#[test]
fn type_length_and_expectation_are_checked_with_the_signature() {
    let site = external_plan().start();
    for scheme in ["v", "v2", "token"] {
        let jpeg = [("Content-Type", "image/jpeg")];
        // Only v2 and token sign the type.
        let status = if scheme == "v" { 201 } else { 403 };
        let path = format!("{UUID}/{scheme}/a.bin");
        let target = put_target(scheme, &path, 5, "image/jpeg");
        site.put_at(&target, &[("Content-Type", "image/png")], b"hello")
            .is(status);
        // Without a length the signature cannot be checked.
        let path = format!("{UUID}/{scheme}/chunked.jpg");
        let target = put_target(scheme, &path, 5, "image/jpeg");
        let fields = [
            ("Transfer-Encoding", "chunked"),
            ("Content-Type", "image/jpeg"),
        ];
        let mut client = site.client();
        client.send(&request("PUT", &target, &fields, &chunked(b"hello", 5)));
        client.reply_to("PUT").is(411);
        site.put_at(&target, &jpeg, b"hello").is(201);
        site.put_at(&target, &jpeg, b"hello").is(409);
        // A refusal comes without a 100.
        let path = format!("{UUID}/{scheme}/expect.jpg");
        let target = put_target(scheme, &path, 5, "image/jpeg");
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
fn no_signed_uploads_without_a_secret() {
    let site = Plan::alone().start();
    let path = format!("{UUID}/a.jpg");
    for scheme in ["v", "v2", "token"] {
        for key in [KEY, ""] {
            let hex = hex(key, format!("{path}\x005\0image/jpeg"));
            site.put_at(
                &format!("/files/{path}?{scheme}={hex}"),
                &[("Content-Type", "image/jpeg")],
                b"hello",
            )
            .is(403);
        }
    }
}

#[test]
fn a_prefix_may_be_kept_stripped_or_doubled() {
    let site = external_plan().start();
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
            let target = format!(
                "{prefix}{path}?{}",
                // Nor the other way round.
                put_query(scheme, &path, 5, "image/jpeg")
            );
            site.put_at(&target, &[("Content-Type", "image/jpeg")], b"hello")
                .is(201);
            assert!(site.files().contains(&path), "{target}");
            site.get(&format!("{prefix}{path}")).is(200);
            site.get(&format!("/files/{path}")).is(200);
            site.put_at(
                &format!(
                    "/files/{path}?{}",
                    // Nor the other way round.
                    put_query(scheme, &path, 5, "image/jpeg")
                ),
                &[("Content-Type", "image/jpeg")],
                b"hello",
            )
            .is(409);
        }
    }
    // Invalid paths are refused, signed or not.
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
        site.put_at(
            &format!("/files/{encoded}?{}", put_query("v", path, 5, "")),
            &[],
            b"hello",
        )
        .is(403);
    }
}

#[test]
fn a_signature_does_not_restore_an_expired_file() {
    let mut site = external_plan()
        .set("expire_interval", 1)
        .set("expire_maxage", 1000)
        .set("user_quota_soft", 1000)
        .start();
    let jpeg = [("Content-Type", "image/jpeg")];
    let paths = ["v", "v2", "token"].map(|scheme| (scheme, format!("{UUID}-{scheme}/a.jpg")));
    let targets: Vec<String> = paths
        .iter()
        .map(|(scheme, path)| put_target(scheme, path, 5, "image/jpeg"))
        .collect();
    for ((_, path), target) in paths.iter().zip(&targets) {
        site.put_at(target, &jpeg, b"hello").is(201);
        site.get(&format!("/files/{path}")).is(200);
    }
    // One folder with two files above the soft quota: the older one is deleted.
    let trimmed = format!("{UUID}/1/a.jpg");
    let target = put_target("v", &trimmed, 600, "");
    site.put_at(&target, &jpeg, &[b'x'; 600]).is(201);
    age(&site.store().join(&trimmed), 500);
    let other = format!("{UUID}/2/a.jpg");
    site.put_at(&put_target("v", &other, 600, ""), &jpeg, &[b'x'; 600])
        .is(201);
    site.program.wait_line(&["owner trimmed "]);
    site.get(&format!("/files/{trimmed}")).is(404);
    site.put_at(&target, &jpeg, &[b'x'; 600]).is(409);
    for (_, path) in &paths {
        age(&site.store().join(path), 1100);
    }
    crate::harness::eventually("the sweep", || site.files() == [other.clone()]);
    for _ in 0..2 {
        for ((_, path), target) in paths.iter().zip(&targets) {
            site.get(&format!("/files/{path}")).is(404);
            site.put_at(target, &jpeg, b"hello").is(409);
            // With another prefix as well.
            site.put_at(&target.replace("/files/", "/"), &jpeg, b"hello")
                .is(409);
        }
        site.put_at(&target, &jpeg, &[b'x'; 600]).is(409);
        site.restart();
    }
    assert_eq!(site.files(), [other]);
    // An unused path is free.
    let path = format!("{UUID}-new/a.jpg");
    site.put_at(&put_target("v", &path, 5, ""), &jpeg, b"hello")
        .is(201);
}

#[test]
fn signed_delete() {
    let mut site = external_plan()
        .set("external_delete_secret", format!("'{DELETE_SECRET}'"))
        .start();
    site.program.hide(DELETE_SECRET);
    site.program.allow("external_delete_secret");
    let path = format!("{UUID}/très cool.jpg");
    let target = format!("/files/{UUID}/tr%C3%A8s%20cool.jpg");
    let good = "13d50f9fac1df132ae3a3d91d3cef2b02ea9994807c424980522a533af1d5661";
    assert_eq!(good, hex(KEY, format!("{path}\0{DELETE_SECRET}")));
    let upload = format!("{target}?{}", put_query("token", &path, 5, "image/jpeg"));
    let jpeg = [("Content-Type", "image/jpeg")];
    site.put_at(&upload, &jpeg, b"hello").is(201);
    let mut client = site.client();
    for wrong in [
        String::new(),
        "?".into(),
        format!("?token={}", "0".repeat(64)),
        format!("?token={}", &good[..63]),
        format!("?v={good}"),
        format!("?v2={good}"),
        format!("?token={}", hex(KEY, format!("{path}\0"))),
        format!(
            "?token={}",
            hex("another key", format!("{path}\0{DELETE_SECRET}"))
        ),
        // A signature for an upload does not permit deletion.
        // And the other way round.
        format!("?{}", put_query("token", &path, 5, "image/jpeg")),
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
    site.put_at(
        &format!(
            "/files/{UUID}/b.jpg?token={}",
            hex(KEY, format!("{UUID}/b.jpg\0{DELETE_SECRET}"))
        ),
        &jpeg,
        b"hello",
    )
    .is(403);
    // Deletion takes effect at once, even for a file that is requested often.
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
    site.put_at(&upload, &jpeg, b"hello").is(409);
    site.restart();
    site.program.allow("external_delete_secret");
    site.put_at(&upload, &jpeg, b"hello").is(409);
    assert!(site.files().is_empty());
    // Without the secret, DELETE is not supported.
    let site = external_plan().seed(&path, b"hello").start();
    let reply = site
        .client()
        .ask("DELETE", &format!("{target}?token={good}"), &[], b"")
        .is(405);
    assert!(!reply.expect("Allow").contains("DELETE"));
    site.get(&target).is(200);
}

#[test]
fn existing_files_are_served_and_not_replaced() {
    // The store of another program for these links.
    let path = format!("{UUID}/old.jpg");
    let site = external_plan().seed(&path, b"old").start();
    assert_eq!(
        site.get(&format!("/files/{path}"))
            .is(200)
            .expect("Content-Type"),
        "image/jpeg"
    );
    site.put_at(&put_target("v", &path, 5, ""), &[], b"hello")
        .is(409);
    assert_eq!(site.get(&format!("/files/{path}")).is(200).body, b"old");
}
