//! Signatures and tokens: a grant needs a signature with the secret over exactly the granted request. The signatures
//! are computed independently here, from the documentation of each scheme.

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ring::hmac;
use upslot::http::syntax::{bearer_token, trim};
use upslot::jid::BareJid;
use upslot::layout::StorePath;
use upslot::purpose::Purpose;
use upslot::slot::external::External;
use upslot::slot::grant::Denial;
use upslot::slot::jwt::{FileShare, JwtDenial};
use upslot::slot::own::{Signer, Terms};

use super::{Choices, NOW, assert_sentence, reference};

pub const SECRET: &[u8] = b"correct horse battery staple";

pub fn run(data: &[u8]) {
    let mut choices = Choices(data);
    match choices.byte() % 6 {
        0 => own(choices),
        1 => own_altered(choices),
        2 => external(choices),
        3 | 4 => token(choices),
        _ => bearer(choices.rest()),
    }
}

pub fn mac(message: &[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    hmac::sign(&key, message).as_ref().to_vec()
}

pub fn parameters(query: &[u8]) -> Vec<(&[u8], &[u8])> {
    let mut found = Vec::new();
    for part in query.split(|b| *b == b'&') {
        match part.iter().position(|b| *b == b'=') {
            Some(at) => found.push((&part[..at], &part[at + 1..])),
            None => found.push((part, &b""[..])),
        }
    }
    found
}

/// The parameters that have a value; upslot's own scheme ignores names without one.
fn valued(query: &[u8]) -> Vec<(&[u8], &[u8])> {
    let parts = query.split(|b| *b == b'&');
    let split = |part: &'_ [u8]| part.iter().position(|b| *b == b'=');
    parts
        .filter_map(|part| split(part).map(|at| (&part[..at], &part[at + 1..])))
        .collect()
}

/// The terms in a slot's query, and the message that must have been signed.
struct Own {
    size: u64,
    total: u64,
    until: u64,
    content_type: Option<String>,
    message: Vec<u8>,
}

/// Parses a query strictly: each parameter occurs once and in canonical form.
fn read_own(path: &[u8], query: &[u8]) -> Option<Own> {
    let parameters = valued(query);
    let one = |name: &str| -> Option<Option<&[u8]>> {
        let mut same = parameters.iter().filter(|(key, _)| *key == name.as_bytes());
        let first = same.next().map(|(_, value)| *value);
        same.next().is_none().then_some(first)
    };
    let number = |name: &str| -> Option<Option<u64>> {
        let Some(text) = one(name)? else {
            return Some(None);
        };
        let text = std::str::from_utf8(text).ok()?;
        let number: u64 = text.parse().ok()?;
        (number.to_string() == text).then_some(Some(number))
    };
    let (size, until) = (number("size")??, number("until")??);
    let total = number("total")?.unwrap_or(0);
    let content_type = match one("type")? {
        Some(text) => Some(String::from_utf8(reference::decode(text)?).ok()?),
        None => None,
    };
    if content_type
        .as_ref()
        .is_some_and(|text| text.contains('\0'))
    {
        return None;
    }
    let last = match &content_type {
        Some(text) => format!("+{text}"),
        None => "-".to_owned(),
    };
    let rest = format!("\0{size}\0{until}\0{total}\0{last}");
    Some(Own {
        size,
        total,
        until,
        content_type,
        message: [b"upslot1\0", path, rest.as_bytes()].concat(),
    })
}

/// Whether the signature in a query matches its terms.
pub fn is_own(path: &[u8], query: &[u8]) -> bool {
    let Some(own) = read_own(path, query) else {
        return false;
    };
    let signatures: Vec<&[u8]> = valued(query)
        .into_iter()
        .filter(|(key, _)| *key == b"sig")
        .map(|(_, value)| value)
        .collect();
    signatures == [BASE64URL_NOPAD.encode(&mac(&own.message)).as_bytes()]
}

#[track_caller]
fn check_own(path: &StorePath, query: &[u8]) {
    let result = Signer::new(SECRET).verify(path, query, NOW);
    let signed = is_own(path.as_bytes(), query);
    match (result, read_own(path.as_bytes(), query)) {
        (Ok(grant), Some(own)) => {
            assert!(signed, "granted without a valid signature");
            assert!(own.until >= NOW, "granted after expiry");
            assert_eq!(
                (grant.size, grant.total.unwrap_or(0)),
                (own.size, own.total)
            );
            assert_eq!(grant.content_type, own.content_type);
            assert_eq!(grant.path, *path);
        }
        (Ok(_), None) => panic!("granted for malformed terms"),
        (Err(Denial::Expired), Some(own)) => assert!(signed && own.until < NOW),
        (Err(denial), _) => {
            assert_sentence(&denial.to_string());
            assert!(!signed, "denied despite a valid signature");
        }
    }
}

fn path(name: &str) -> Option<StorePath> {
    let owner = BareJid::parse("romeo@montague.tld").unwrap();
    StorePath::for_slot(&owner, Purpose::Message.into(), &[7; 15], name)
}

/// Replaces each placeholder in a query by a signature.
fn fill(query: &[u8], signatures: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let replace = |byte: &u8| match signatures
        .iter()
        .find(|(placeholder, _)| placeholder == byte)
    {
        Some((_, signature)) => signature.clone(),
        None => vec![*byte],
    };
    query.iter().flat_map(replace).collect()
}

/// A query from the input, in which `~` is replaced by the signature of the query's terms.
fn own(mut choices: Choices<'_>) {
    let path = path("a.jpg").unwrap();
    let query = choices.rest();
    let signature = read_own(path.as_bytes(), query)
        .map(|own| BASE64URL_NOPAD.encode(&mac(&own.message)))
        .unwrap_or_default();
    let filled = fill(query, &[(b'~', signature.into_bytes())]);
    check_own(&path, query);
    check_own(&path, &filled);
}

/// A slot signed by upslot, and altered versions of it.
fn own_altered(mut choices: Choices<'_>) {
    let (size, total) = (choices.number(), choices.number());
    let until = (NOW - 50).saturating_add(choices.byte().into());
    let content_type = String::from_utf8_lossy(choices.until(b'\n')).into_owned();
    let name = String::from_utf8_lossy(choices.until(b'\n')).into_owned();
    let Some(path) = path(&upslot::slot::name::clean(&name)) else {
        return;
    };
    let terms = Terms {
        size: size.into(),
        content_type: Some(&*content_type).filter(|text| !text.is_empty() && !text.contains('\0')),
        total: Some(total.into()).filter(|total| *total > 0),
        until,
    };
    let mut url = String::new();
    Signer::new(SECRET).sign(&path, &terms, &mut url);
    assert!(url.is_ascii() && !url.contains([' ', '#', '"']));
    let query = url.as_bytes()[1..].to_vec();
    assert!(
        is_own(path.as_bytes(), &query),
        "the signature differs from the documentation"
    );
    check_own(&path, &query);

    // A signature with another secret, or for another path, is invalid.
    let mut forged = String::new();
    Signer::new(b"another secret").sign(&path, &terms, &mut forged);
    check_own(&path, &forged.as_bytes()[1..]);
    if let Some(other) = self::path("other") {
        check_own(&other, &query);
    }
    check_own(&path, &altered(query, &mut choices));
}

/// Inserts, removes and changes bytes as chosen by the input.
fn altered(mut bytes: Vec<u8>, choices: &mut Choices<'_>) -> Vec<u8> {
    while !choices.0.is_empty() {
        let (action, at, byte) = (choices.byte(), choices.byte(), choices.byte());
        let at = usize::from(at) % bytes.len().max(1);
        match action % 4 {
            0 if at < bytes.len() => bytes[at] = byte,
            1 if at < bytes.len() => drop(bytes.remove(at)),
            2 => bytes.insert(at.min(bytes.len()), byte),
            _ => {
                let end = (at + usize::from(byte)).min(bytes.len());
                let piece = bytes.get(at..end).unwrap_or_default().to_vec();
                bytes.extend(piece);
                bytes.truncate(2000);
            }
        }
    }
    bytes
}

/// Whether a query carries a valid signature of mod_http_upload_external, Metronome or ejabberd.
pub fn is_external(path: &[u8], query: &[u8], size: u64, types: &[Vec<u8>]) -> bool {
    let parameters = parameters(query);
    let of = |name: &str| parameters.iter().find(|(key, _)| *key == name.as_bytes());
    let known = |key: &[u8]| matches!(key, b"v" | b"v2" | b"token");
    let names: Vec<&[u8]> = parameters
        .iter()
        .map(|(k, _)| *k)
        .filter(|k| known(k))
        .collect();
    if (1..names.len()).any(|n| names[..n].contains(&names[n])) {
        return false;
    }
    let (value, messages) = match (of("v2").or(of("token")), of("v")) {
        (Some((_, value)), _) => {
            let message = |t: &Vec<u8>| [path, format!("\0{size}\0").as_bytes(), t].concat();
            (value, types.iter().map(message).collect())
        }
        (None, Some((_, value))) => (value, vec![[path, format!(" {size}").as_bytes()].concat()]),
        (None, None) => return false,
    };
    let signature = value.to_ascii_lowercase();
    let matches = |message: &Vec<u8>| HEXLOWER.encode(&mac(message)).as_bytes() == signature;
    messages.iter().any(matches)
}

/// The types that an XMPP server may have signed for a PUT with type `put`.
pub fn signed_types(put: &[u8], guess: &str) -> Vec<Vec<u8>> {
    let essence = put
        .split(|b| *b == b';')
        .next()
        .unwrap_or_default()
        .trim_ascii();
    vec![
        put.to_vec(),
        essence.to_vec(),
        essence.to_ascii_lowercase(),
        b"application/octet-stream".to_vec(),
        guess.as_bytes().to_vec(),
    ]
}

/// A query from the input, in which `~`, `}` and `|` are replaced by the signatures of `v`, `v2` and a DELETE.
fn external(mut choices: Choices<'_>) {
    let size = u64::from(choices.number());
    let put = choices.until(b'\n');
    let path = StorePath::from_segments([&b"a"[..], b"b.jpg"].into_iter()).unwrap();
    let raw = path.as_bytes();
    let types = signed_types(put, "image/jpeg");
    let hex = |message: Vec<u8>| HEXLOWER.encode(&mac(&message)).into_bytes();
    let v = hex([raw, format!(" {size}").as_bytes()].concat());
    let v2 = hex([
        raw,
        format!("\0{size}\0").as_bytes(),
        &types[usize::from(size as u8) % 5],
    ]
    .concat());
    let delete = hex([raw, b"\0", b"delete it"].concat());
    let signatures = [(b'~', v), (b'}', v2), (b'|', delete.clone())];
    let query = fill(choices.rest(), &signatures);
    let external = External::new(SECRET);
    let result = external.verify(&path, &query, size, Some(put), "image/jpeg");
    let is_well_formed = |(key, value): &(&[u8], &[u8])| {
        !matches!(*key, b"v" | b"v2" | b"token")
            || value.len() == 64 && value.iter().all(u8::is_ascii_hexdigit)
    };
    let well_formed = parameters(&query).iter().all(is_well_formed);
    let signed = well_formed && is_external(raw, &query, size, &types);
    // A type that is not UTF-8 cannot have been part of a slot request.
    if signed != result.is_ok() {
        assert!(
            std::str::from_utf8(put).is_err() && result.is_err(),
            "{result:?}, signed {signed}"
        );
    }
    if let Ok(Some(approved)) = &result {
        assert!(!approved.is_empty() && types.contains(&approved.clone().into_bytes()));
    }
    let deletes = external.verify_delete(&path, &query, b"delete it").is_ok();
    let tokens: Vec<Vec<u8>> = parameters(&query)
        .iter()
        .filter(|(key, _)| *key == b"token")
        .map(|(_, value)| value.to_ascii_lowercase())
        .collect();
    if deletes {
        assert!(
            well_formed && tokens == [delete],
            "deleted without a valid signature"
        );
    }
    assert!(
        External::new(b"another")
            .verify(&path, &query, size, Some(put), "a/b")
            .is_err()
    );
}

/// A token built from two JSON texts of the input; its header may name another algorithm.
fn token(mut choices: Choices<'_>) {
    let (kind, at, byte) = (choices.byte(), choices.number(), choices.byte());
    let header: &[u8] = match kind % 4 {
        0 => choices.until(b'\n'),
        1 => br#"{"alg":"none"}"#,
        _ => br#"{"typ":"JWT","alg":"HS256"}"#,
    };
    let payload = choices.rest();
    let signed = format!(
        "{}.{}",
        BASE64URL_NOPAD.encode(header),
        BASE64URL_NOPAD.encode(payload)
    );
    let token = format!(
        "{signed}.{}",
        BASE64URL_NOPAD.encode(&mac(signed.as_bytes()))
    );
    let share = FileShare::new(SECRET);
    let result = share.verify(token.as_bytes(), NOW);
    match &result {
        Ok(claims) => {
            let contains =
                |text: &[u8], part: &str| reference::find(text, part.as_bytes()).is_some();
            assert!(contains(header, "HS256") || header.contains(&b'\\'));
            assert!(claims.exp > NOW && claims.expires.is_none_or(|expires| expires > NOW));
            assert!(!claims.slot.is_empty());
            assert!(claims.is_for(claims.slot.as_bytes()) && !claims.is_for(b""));
            for number in [claims.exp, claims.filesize] {
                assert!(contains(payload, &number.to_string()));
            }
            if let Some(filetype) = &claims.filetype {
                assert!(
                    filetype.len() <= 255 && filetype.bytes().all(|b| matches!(b, b' '..=b'~'))
                );
            }
        }
        Err(denial) => assert_sentence(&denial.to_string()),
    }
    check_altered_token(&token, at, byte);
    // Every token expires.
    let late = share.verify(token.as_bytes(), u64::MAX);
    assert!(late.is_err());
    for raw in [payload, signed.as_bytes()] {
        if let Ok(claims) = share.verify(raw, NOW) {
            panic!("accepted without a signature: {claims:?}");
        }
    }
}

/// Another secret or any altered byte makes a token invalid.
fn check_altered_token(token: &str, at: u16, byte: u8) {
    let forged = FileShare::new(b"another").verify(token.as_bytes(), NOW);
    assert!(forged.is_err());
    let mut altered = token.as_bytes().to_vec();
    let at = usize::from(at) % altered.len();
    if altered[at] != byte {
        altered[at] = byte;
        let denial = FileShare::new(SECRET)
            .verify(&altered, NOW)
            .expect_err("an altered token was accepted");
        assert!(matches!(denial, JwtDenial::Forged | JwtDenial::Malformed));
    }
}

/// The token extracted from an `Authorization` field is exactly its last part.
fn bearer(value: &[u8]) {
    let Some(token) = bearer_token(value) else {
        return;
    };
    assert!(!token.is_empty());
    let value = trim(value);
    assert!(value[..6].eq_ignore_ascii_case(b"bearer") && value[6] == b' ');
    assert!(
        value.ends_with(token)
            && value[6..value.len() - token.len()]
                .iter()
                .all(|b| *b == b' ')
    );
}
