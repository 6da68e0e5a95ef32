//! Altered and transplanted slots, signatures and tokens.

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};

use crate::harness::raw::every_integration;
use crate::harness::signing::{Claims, KEY, hex, jwt};
use crate::harness::site::{JULIET, ROMEO, ROMEO_FOLDER, owner_folder};
use crate::harness::{Plan, Slot, eventually, unix_now};
use crate::purposes::{inside, until};

/// The parameters of a slot's query, in order.
fn parameters(slot: &Slot) -> Vec<(String, String)> {
    let (_, query) = slot.put.split_once('?').unwrap();
    query
        .split('&')
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap();
            (name.to_owned(), value.to_owned())
        })
        .collect()
}

fn target_of(path: &str, parameters: &[(String, String)]) -> String {
    let query: Vec<String> = parameters
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    format!("{path}?{}", query.join("&"))
}

/// Each part of a valid slot is replaced by the same part of another: all mixtures are refused.
#[test]
fn parts_of_two_slots_cannot_be_mixed() {
    let mut site = Plan::new()
        .set(
            "access",
            "[{jid: '^romeo@', max_total_size: 100000}, {jid: '^benvolio@', max_total_size: 200000}, {jid: .}]",
        )
        .set("purposes", "{message: {}, ephemeral: {}, permanent: {}}")
        .start();
    let later = unix_now() + 3600;
    let (before, permanent) = (until(later), inside("permanent"));
    let slots = [
        site.slot(ROMEO, "a.txt", 5, Some("text/plain")),
        site.slot(ROMEO, "a.txt", 5, Some("text/plain")),
        site.slot(ROMEO, "b.txt", 5, Some("text/plain")),
        site.slot(ROMEO, "a.txt", 6, Some("text/plain")),
        site.slot(ROMEO, "a.txt", 5, Some("text/html")),
        site.slot(ROMEO, "a.txt", 5, None),
        site.slot("benvolio@montague.tld", "a.txt", 5, Some("text/plain")),
        site.slot(JULIET, "a.txt", 5, Some("text/plain")),
        site.ask(ROMEO, "a.txt", 5, Some("text/plain"), &before)
            .unwrap(),
        site.ask(ROMEO, "a.txt", 5, Some("text/plain"), &permanent)
            .unwrap(),
    ];
    // Another second, so that the expiry differs as well.
    eventually("the next second", || {
        let slot = site.slot(ROMEO, "a.txt", 5, Some("text/plain"));
        parameters(&slot) != parameters(&slots[0]) && slot.put.contains("until=")
    });
    let late = site.slot(ROMEO, "a.txt", 5, Some("text/plain"));
    let all: Vec<&Slot> = slots.iter().chain([&late]).collect();
    let mut tried = 0;
    let mut client = site.client();
    let mut refuse = |target: &str, size: usize| {
        tried += 1;
        client.ask("PUT", target, &[], &vec![b'x'; size]).is(403);
    };
    for one in &all {
        for other in &all {
            if one == other {
                continue;
            }
            let (mine, others) = (parameters(one), parameters(other));
            // The path of one with the query of the other.
            for size in [5, 6] {
                refuse(&target_of(one.put_path(), &others), size);
            }
            // A folder or the name of the other.
            let (a, b): (Vec<&str>, Vec<&str>) = (
                one.put_path().split('/').collect(),
                other.put_path().split('/').collect(),
            );
            for at in 2..a.len() {
                let mut mixed = a.clone();
                mixed[at] = b[at];
                if mixed != a {
                    refuse(&target_of(&mixed.join("/"), &mine), 5);
                }
            }
            // Each parameter: the other's value, added or missing.
            for name in ["size", "type", "total", "until", "sig"] {
                let value = others.iter().find(|(other, _)| other == name);
                let mut mixed = mine.clone();
                mixed.retain(|(other, _)| other != name);
                mixed.extend(value.cloned());
                let mut sorted = (mixed.clone(), mine.clone());
                sorted.0.sort();
                sorted.1.sort();
                if sorted.0 != sorted.1 {
                    refuse(&target_of(one.put_path(), &mixed), 5);
                    refuse(&target_of(one.put_path(), &mixed), 6);
                }
            }
        }
    }
    assert!(tried > 500, "{tried}");
    assert!(site.files().is_empty(), "{:?}", site.files());
    // Every bit of the signature counts, and only one encoding is accepted.
    let (path, mine) = (late.put_path(), parameters(&late));
    let signature = &mine.iter().find(|(name, _)| name == "sig").unwrap().1;
    let tag = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
    let with = |signature: &str| {
        let mut forged = mine.clone();
        for (name, value) in &mut forged {
            if name == "sig" {
                signature.clone_into(value);
            }
        }
        target_of(path, &forged)
    };
    let mut client = site.client();
    for bit in 0..tag.len() * 8 {
        let mut tag = tag.clone();
        tag[bit / 8] ^= 1 << (bit % 8);
        client
            .ask("PUT", &with(&BASE64URL_NOPAD.encode(&tag)), &[], b"hello")
            .is(403);
    }
    for other in [
        format!("{signature}="),
        format!("{signature}%3D"),
        signature.replace('-', "+").replace('_', "/") + "A",
        HEXLOWER.encode(&tag),
        format!("%{:02x}{}", signature.as_bytes()[0], &signature[1..]),
        signature[..signature.len() - 1].to_owned() + "_",
        String::new(),
    ] {
        client.ask("PUT", &with(&other), &[], b"hello").is(403);
    }
    client.ask("PUT", &late.put, &[], b"hello").is(201);
}

/// The same for signatures of other servers: every bit and every field.
#[test]
fn external_signatures_cannot_be_transplanted() {
    let site = every_integration().start();
    let mut site = site;
    site.program.allow("external_delete_secret");
    let mut client = site.client();
    let mut number = 0;
    for scheme in ["v", "v2", "token"] {
        number += 1;
        let path = format!("{ROMEO_FOLDER}/external{number}/a.txt");
        let message = match scheme {
            "v" => format!("{path} 5"),
            _ => format!("{path}\x005\0text/plain"),
        };
        let good = hex(KEY, &message);
        let tag = HEXLOWER.decode(good.as_bytes()).unwrap();
        let plain = [("Content-Type", "text/plain")];
        for bit in 0..tag.len() * 8 {
            let mut tag = tag.clone();
            tag[bit / 8] ^= 1 << (bit % 8);
            let target = format!("/files/{path}?{scheme}={}", HEXLOWER.encode(&tag));
            client.ask("PUT", &target, &plain, b"hello").is(403);
        }
        let juliets = owner_folder(JULIET);
        for (path, body) in [
            (path.replace(ROMEO_FOLDER, &juliets), &b"hello"[..]),
            (path.replace("external", "External"), b"hello"),
            (path.replace("a.txt", "b.txt"), b"hello"),
            (path.replace("a.txt", "a.txt%20"), b"hello"),
            (path.replace("a.txt", "A.TXT"), b"hello"),
            (format!("{path}/a.txt"), b"hello"),
            (path.clone(), b"hello!"),
            (path.clone(), b"hell"),
            (path.clone(), b""),
        ] {
            let target = format!("/files/{path}?{scheme}={good}");
            client.ask("PUT", &target, &plain, body).is(403);
        }
        // Under other parameter names and in other places.
        for target in [
            format!("/files/{path}?sig={good}"),
            format!("/files/{path}?{}={good}", scheme.to_uppercase()),
            format!("/files/{path}?%76={good}"),
            format!("/files/{path};{scheme}={good}"),
            format!("/files/{path}?x={scheme}={good}"),
            format!("/files/{path}?{scheme}={good}%00"),
            format!("/files/{path}?{scheme}=0x{good}"),
            format!("/files/{path}?{scheme}[]={good}"),
        ] {
            let status = client.ask("PUT", &target, &plain, b"hello").status;
            assert!(matches!(status, 401 | 403), "{target}: {status}");
        }
        let target = format!("/files/{path}?{scheme}={good}");
        client.ask("DELETE", &target, &[], b"").is(403);
        client.ask("PUT", &target, &plain, b"hello").is(201);
        client.ask("PUT", &target, &plain, b"HELLO").is(409);
        assert_eq!(client.get(&format!("/files/{path}")).is(200).body, b"hello");
    }
    assert_eq!(site.files().len(), 3);
}

#[test]
fn tokens_cannot_be_transplanted() {
    let mut site = every_integration().start();
    site.program.allow("external_delete_secret");
    let good = Claims::new("slot");
    let json = good.json();
    let mut tried = 0;
    let mut refuse = |what: &str, token: &str, target: &str, body: &[u8]| {
        tried += 1;
        let authorization = format!("Bearer {token}");
        let fields = [("Authorization", authorization.as_str())];
        let status = site.client().ask("PUT", target, &fields, body).status;
        assert!(
            matches!(status, 400 | 401 | 403 | 413 | 415),
            "{what}: {status}"
        );
    };
    let target = good.target.clone();
    let token = good.token();
    // Every bit of the signature.
    let (signed, tag) = token.rsplit_once('.').unwrap();
    let tag = BASE64URL_NOPAD.decode(tag.as_bytes()).unwrap();
    for bit in 0..tag.len() * 8 {
        let mut tag = tag.clone();
        tag[bit / 8] ^= 1 << (bit % 8);
        let token = format!("{signed}.{}", BASE64URL_NOPAD.encode(&tag));
        refuse("a bit of the signature", &token, &target, b"hello");
    }
    // Algorithms.
    for alg in [
        "none", "None", "NONE", "HS384", "HS512", "RS256", "ES256", "hs256", "Hs256", "HS256 ", "",
    ] {
        let header = format!("{{\"alg\":\"{alg}\",\"typ\":\"JWT\"}}");
        let token = jwt(KEY, &header, &json);
        refuse(alg, &token, &target, b"hello");
        let (signed, _) = token.rsplit_once('.').unwrap();
        refuse(alg, &format!("{signed}."), &target, b"hello");
        refuse(alg, signed, &target, b"hello");
    }
    for header in [
        r#"{"typ":"JWT"}"#,
        r#"{"alg":null,"typ":"JWT"}"#,
        r#"{"alg":["HS256"],"typ":"JWT"}"#,
        r#"{"alg":"none","alg":"HS256"}"#,
        r#"{"alg":"HS256","alg":"none"}"#,
        r#"{"ALG":"HS256"}"#,
        r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
        r#"{"alg":"HS256","typ":"at+jwt"}"#,
        "",
    ] {
        refuse(header, &jwt(KEY, header, &json), &target, b"hello");
    }
    // Claims: missing, duplicate, of the wrong type, expired.
    for name in ["exp", "slot", "filesize"] {
        let claims = good.clone().without(name);
        refuse(name, &claims.token(), &target, b"hello");
    }
    for (name, value) in &good.fields {
        let doubled = json.replace('}', &format!(",\"{name}\":{value}}}"));
        refuse(
            name,
            &jwt(KEY, r#"{"alg":"HS256"}"#, &doubled),
            &target,
            b"hello",
        );
    }
    let now = unix_now();
    for (name, value) in [
        ("exp", "0"),
        ("exp", "-1"),
        ("exp", "1e99"),
        ("exp", "\"9999999999\""),
        ("exp", "null"),
        ("exp", "99999999999999999999999"),
        ("exp", "true"),
        ("nbf", "9999999999"),
        ("iat", "9999999999"),
        ("aud", "\"elsewhere\""),
        ("filesize", "-5"),
        ("filesize", "5.5"),
        ("filesize", "\"5\""),
        ("filesize", "4"),
        ("filesize", "6"),
        ("filesize", "[5]"),
        ("slot", "\"slo\""),
        ("slot", "\"slot \""),
        ("slot", "\"SLOT\""),
        ("slot", "\"slot\\u0000\""),
        ("slot", "5"),
        ("slot", "\"\""),
        ("sub", "5"),
        ("sub", "\"a@b@c\""),
        ("sub", "\"\""),
        ("expires", "1"),
    ] {
        let claims = good.clone().with_raw(name, value);
        refuse(
            &format!("{name}: {value}"),
            &claims.token(),
            &target,
            b"hello",
        );
    }
    let expired = good.clone().with_raw("exp", (now - 1).to_string());
    refuse("expired", &expired.token(), &target, b"hello");
    // Spellings.
    for token in [
        format!("{token}="),
        format!("{token}=="),
        token.replace('-', "+").replace('_', "/") + "+",
        format!("{token}.{token}"),
        format!(" {token}"),
        format!("{token}\t{token}"),
        token.to_uppercase(),
        token.replacen('.', "%2E", 1),
    ] {
        if token != good.token() && token.trim() != good.token() {
            refuse(&token, &token, &target, b"hello");
        }
    }
    // Other targets and sizes.
    for (target, body) in [
        ("/files/slot2/a.txt", &b"hello"[..]),
        ("/files/slot/a.txt/b", b"hello"),
        ("/files/slot", b"hello"),
        ("/files/Slot/a.txt", b"hello"),
        ("/files/slot/a.txt", b"hello!"),
        ("/files/slot/a.txt", b"hell"),
        ("/files/slot/a.txt", b""),
    ] {
        refuse(target, &token, target, body);
    }
    let bearer = format!("Bearer {token}");
    let kind = [("Authorization", &*bearer), ("Content-Type", "text/html")];
    site.client().ask("PUT", &target, &kind, b"hello").is(415);
    // In other places.
    for target in [
        format!("{target}?token={token}"),
        format!("{target}?access_token={token}"),
        format!("{target}?jwt={token}"),
    ] {
        let status = site.client().ask("PUT", &target, &[], b"hello").status;
        assert!(matches!(status, 401 | 403), "{target}: {status}");
    }
    for name in [
        "Cookie",
        "X-Authorization",
        "Proxy-Authorization",
        "WWW-Authenticate",
    ] {
        let status = site
            .client()
            .ask("PUT", &target, &[(name, &bearer)], b"hello")
            .status;
        assert!(matches!(status, 401 | 403), "{name}: {status}");
    }
    assert!(tried > 300, "{tried}");
    assert!(site.files().is_empty(), "{:?}", site.files());
    good.put(&site, b"hello").is(201);
    good.put(&site, b"HELLO").is(409);
    // The file is in the uploader's folder, whatever the name of the slot.
    let claims = Claims::new(&owner_folder(JULIET)).with("filename", "x.txt");
    claims.put(&site, b"hello").is(201);
    site.assert_all_files_in(ROMEO_FOLDER);
}
