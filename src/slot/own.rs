//! upslot's own scheme: slots are signed, not stored.
//!
//! The query of the PUT URL carries the size, the type, the expiry time, and an HMAC-SHA-256 (RFC 2104) over these and
//! the path, which encodes owner and purpose. A slot therefore survives a restart, costs no memory, and is accepted by
//! every node that has the same secret.
//!
//! The signed message is `upslot1`, path, size, expiry time in Unix seconds, and the owner's total limit (numbers in
//! decimal; 0 for no limit), then `-` for no type or `+` followed by the type. The fields are joined by NUL, which
//! cannot occur in any of them.

use data_encoding::BASE64URL_NOPAD;
use ring::hmac;

use crate::decimal::{self, DigitBuffer};
use crate::layout::{StorePath, decode_segment, encode_query_value, query_parameters};
use crate::slot::grant::{Denial, Grant, Issued, Scheme, set_once};

/// Signs slots and verifies them.
pub struct Signer {
    key: hmac::Key,
}

impl Signer {
    pub fn new(secret: &[u8]) -> Signer {
        Signer {
            key: hmac::Key::new(hmac::HMAC_SHA256, secret),
        }
    }

    /// Appends the query, including its `?`, that authorises a PUT to `path` under these terms.
    pub fn sign(&self, path: &StorePath, terms: &Terms<'_>, url: &mut String) {
        push_number("?size=", terms.size, url);
        if let Some(content_type) = terms.content_type {
            url.push_str("&type=");
            encode_query_value(content_type.as_bytes(), url);
        }
        if let Some(total) = terms.total {
            push_number("&total=", total, url);
        }
        push_number("&until=", terms.until, url);
        url.push_str("&sig=");
        let tag = hmac::sign(&self.key, &message(path, terms));
        BASE64URL_NOPAD.encode_append(tag.as_ref(), url);
    }

    /// Verifies the query of a PUT to `path` at time `now` (Unix seconds). Signatures are compared in constant time.
    pub fn verify(&self, path: &StorePath, query: &[u8], now: u64) -> Result<Grant, Denial> {
        let parameters = Parameters::parse(query)?;
        let Some(signature) = parameters.signature else {
            return Err(Denial::Unsigned);
        };
        let (Some(size), Some(until)) = (parameters.size, parameters.until) else {
            return Err(Denial::Forged);
        };
        let terms = Terms {
            size,
            content_type: parameters.content_type.as_deref(),
            total: parameters.total.filter(|total| *total > 0),
            until,
        };
        hmac::verify(&self.key, &message(path, &terms), &signature).map_err(|_| Denial::Forged)?;
        if now > until {
            return Err(Denial::Expired);
        }
        Ok(Grant {
            path: path.clone(),
            size,
            total: terms.total,
            content_type: parameters.content_type,
            issued: Issued::ExpiresAt(until),
            scheme: Scheme::Own,
        })
    }
}

/// The signed parameters of a slot.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// Bytes.
    pub size: u64,
    pub content_type: Option<&'a str>,
    /// Limit on the total size of the owner's files in bytes.
    pub total: Option<u64>,
    /// The last second in which a PUT may start (Unix time).
    pub until: u64,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer(..)")
    }
}

/// Most bytes of a signed message that are neither path nor type.
const MAX_FIXED: usize = 8 + 3 * (1 + size_of::<DigitBuffer>()) + 2;

/// Appends a parameter of the query.
fn push_number(name: &str, number: u64, url: &mut String) {
    url.push_str(name);
    decimal::push(number, url);
}

fn message(path: &StorePath, terms: &Terms<'_>) -> Vec<u8> {
    let (has_type, content_type) = match terms.content_type {
        Some(content_type) => (b"\0+", content_type),
        None => (b"\0-", ""),
    };
    let mut message = Vec::with_capacity(path.as_bytes().len() + content_type.len() + MAX_FIXED);
    message.extend_from_slice(b"upslot1\0");
    message.extend_from_slice(path.as_bytes());
    for number in [terms.size, terms.until, terms.total.unwrap_or(0)] {
        message.push(0);
        message.extend_from_slice(decimal::digits(number, &mut DigitBuffer::default()));
    }
    message.extend_from_slice(has_type);
    message.extend_from_slice(content_type.as_bytes());
    message
}

/// The parsed query. A repeated parameter, or one that is not in the canonical form that [`Signer::sign`] writes, makes
/// the whole query invalid.
#[derive(Default)]
struct Parameters {
    size: Option<u64>,
    content_type: Option<String>,
    until: Option<u64>,
    total: Option<u64>,
    signature: Option<Vec<u8>>,
}

impl Parameters {
    /// Unknown parameters are ignored, because clients and proxies add their own.
    fn parse(query: &[u8]) -> Result<Parameters, Denial> {
        let mut parameters = Parameters::default();
        for (key, value) in query_parameters(query) {
            let Some(value) = value else {
                continue;
            };
            match key {
                b"size" => set_once(&mut parameters.size, parse_canonical(value))?,
                b"until" => set_once(&mut parameters.until, parse_canonical(value))?,
                b"total" => set_once(&mut parameters.total, parse_canonical(value))?,
                b"type" => set_once(&mut parameters.content_type, parse_text(value))?,
                b"sig" => set_once(
                    &mut parameters.signature,
                    BASE64URL_NOPAD.decode(value).ok(),
                )?,
                _ => {}
            }
        }
        Ok(parameters)
    }
}

fn parse_text(value: &[u8]) -> Option<String> {
    let text = String::from_utf8(decode_segment(value)?.into_owned()).ok()?;
    (!text.contains('\0')).then_some(text)
}

/// Parses a decimal number without a leading zero, so that each number has exactly one representation.
fn parse_canonical(text: &[u8]) -> Option<u64> {
    let canonical = text == b"0" || text.first().is_some_and(|b| *b != b'0');
    canonical.then(|| decimal::parse(text))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jid::BareJid;
    use crate::purpose::Purpose;

    const NOW: u64 = 1_800_000_000;

    fn path(name: &str) -> StorePath {
        let owner = BareJid::parse("romeo@montague.tld").unwrap();
        StorePath::for_slot(&owner, Purpose::Message.into(), &[7; 15], name).unwrap()
    }

    fn query(signer: &Signer, path: &StorePath, content_type: Option<&str>) -> String {
        let terms = Terms {
            size: 23456,
            content_type,
            total: Some(1000),
            until: NOW,
        };
        let mut query = String::new();
        signer.sign(path, &terms, &mut query);
        query
    }

    fn signer() -> Signer {
        Signer::new(b"correct horse battery staple")
    }

    #[track_caller]
    fn check(path: &StorePath, query: &str, now: u64, denial: Option<Denial>) {
        let result = signer().verify(path, query.trim_start_matches('?').as_bytes(), now);
        assert_eq!(result.err(), denial, "{query}");
    }

    #[test]
    fn a_slot_is_valid_until_it_expires() {
        let path = path("a.jpg");
        for content_type in [
            None,
            Some("image/jpeg"),
            Some("text/plain; charset=\"a&b\""),
        ] {
            let query = query(&signer(), &path, content_type);
            check(&path, &query, NOW - 300, None);
            check(&path, &query, NOW, None);
            check(&path, &query, NOW + 1, Some(Denial::Expired));
            let grant = signer().verify(&path, &query.as_bytes()[1..], NOW).unwrap();
            assert_eq!(grant.size, 23456);
            assert_eq!(grant.content_type.as_deref(), content_type);
            assert!(query.is_ascii() && !query.contains(' '), "{query}");
            check(&path, &format!("{query}&unknown=1"), NOW, None);
        }
    }

    #[test]
    fn any_alteration_is_denied() {
        let good = path("a.jpg");
        let good_query = query(&signer(), &good, Some("image/jpeg"));
        check(&path("b.jpg"), &good_query, NOW, Some(Denial::Forged));
        for (from, to) in [
            ("size=23456", "size=23457"),
            ("size=23456", "size=023456"),
            ("size=23456", "size="),
            ("size=23456&", ""),
            ("image/jpeg", "image/png"),
            ("&type=image/jpeg", ""),
            ("until=1800000000", "until=1800000001"),
            ("sig=", "sig=AAAA"),
            ("sig=", "sig=!"),
            ("size=23456", "size=23456&size=23456"),
            ("size=23456", "size=1&size=23456"),
            ("&until", "&until=1&until"),
            ("&sig", "&sig=AAAA&sig"),
            ("total=1000", "total=1001"),
            ("&total=1000", ""),
        ] {
            assert!(good_query.contains(from), "{from}");
            check(
                &good,
                &good_query.replace(from, to),
                NOW,
                Some(Denial::Forged),
            );
        }
        for at in 0..good_query.len() {
            let mut altered = good_query.clone().into_bytes();
            altered[at] ^= 1;
            let altered = String::from_utf8(altered).unwrap();
            let result = signer().verify(&good, &altered.as_bytes()[1..], NOW);
            assert!(at == 0 || result.is_err(), "byte {at} altered: {altered}");
        }
        check(&good, "", NOW, Some(Denial::Unsigned));
        check(
            &good,
            &good_query[..good_query.len() - 1],
            NOW,
            Some(Denial::Forged),
        );
        let other = query(&Signer::new(b"another key"), &good, Some("image/jpeg"));
        check(&good, &other, NOW, Some(Denial::Forged));
    }

    #[test]
    fn no_type_and_an_empty_type_differ() {
        let path = path("a");
        let without = query(&signer(), &path, None);
        check(
            &path,
            &without.replace("&until", "&type=&until"),
            NOW,
            Some(Denial::Forged),
        );
    }
}
