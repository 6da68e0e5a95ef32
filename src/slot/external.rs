//! PUTs that an XMPP server signed with a secret it shares with us, and its signed DELETE.
//!
//! The server hands out the slot by itself; all that reaches us is the PUT. An HMAC-SHA-256 (RFC 2104) in hex stands
//! in one parameter of the query:
//!
//! | parameter | signed bytes | server |
//! | --- | --- | --- |
//! | `v` | path, space, size | Prosody's mod_http_upload_external; ejabberd's `external_secret` |
//! | `v2` | path, NUL, size, NUL, type | mod_http_upload_external with protocol v2 |
//! | `token` | path, NUL, size, NUL, type | Metronome |
//! | `token` of a DELETE | path, NUL, delete secret | Metronome |
//!
//! The path is the decoded one below the base URL, of any depth; the size is decimal. Of several parameters the first
//! of `v2`, `token`, `v` decides alone: if it fails, none of the others is asked.
//!
//! Such a signature names neither an owner nor a time. It never lapses, so whoever stores must remember which paths
//! were used. This module knows nothing of bases and prefixes, and of no table of types.

use data_encoding::HEXLOWER_PERMISSIVE;
use ring::hmac;

use crate::layout::StorePath;
use crate::slot::grant::Denial;

/// What a slot request without a type is taken to mean, and what many clients send for any file.
const UNKNOWN_TYPE: &str = "application/octet-stream";

/// Bytes of an HMAC-SHA-256.
const TAG: usize = 32;

/// Checks what the XMPP server signed.
pub struct External {
    key: hmac::Key,
}

impl External {
    /// The secret is taken as it is configured, without decoding.
    pub fn new(secret: &[u8]) -> External {
        External {
            key: hmac::Key::new(hmac::HMAC_SHA256, secret),
        }
    }

    /// Whether the query carries a signature of this family, be it valid or not.
    pub fn recognises(query: &[u8]) -> bool {
        parameters(query).any(|(key, _)| matches!(key, b"v2" | b"token" | b"v"))
    }

    /// Verifies the query of a PUT of `size` bytes to `path` and gives the type that the server approved: the one to
    /// store and to serve, whatever the PUT says. `None` leaves it to the PUT, because `v` signs no type.
    ///
    /// The size is that of `Content-Length`. It is among the signed bytes and nowhere else, so that a chunked PUT
    /// cannot be judged before its end: the caller answers such a one with 411.
    ///
    /// The server signed the type of the slot request. The PUT's own may differ in harmless ways, so these are tried:
    /// `content_type` as sent, without parameters, that in lower case, `application/octet-stream`, and `guess`, which
    /// the file name's extension suggests. A match with any of them proves that the server signed that one.
    pub fn verify(
        &self,
        path: &StorePath,
        query: &[u8],
        size: u64,
        content_type: Option<&[u8]>,
        guess: &str,
    ) -> Result<Option<String>, Denial> {
        let signatures = Signatures::parse(query)?;
        let Some(tag) = signatures.v2.or(signatures.token) else {
            let tag = signatures.v.ok_or(Denial::Unsigned)?;
            let size = format!(" {size}");
            self.check(&tag, &[path.as_bytes(), size.as_bytes()])?;
            return Ok(None);
        };
        let size = format!("\0{size}\0");
        candidates(content_type.unwrap_or_default(), guess)
            .into_iter()
            .find(|candidate| {
                let message = [path.as_bytes(), size.as_bytes(), candidate.as_bytes()];
                self.check(&tag, &message).is_ok()
            })
            .map(|approved| Some(approved).filter(|approved| !approved.is_empty()))
            .ok_or(Denial::Forged)
    }

    /// Verifies the query of a DELETE of `path`, as Metronome sends it.
    pub fn verify_delete(
        &self,
        path: &StorePath,
        query: &[u8],
        delete_secret: &[u8],
    ) -> Result<(), Denial> {
        let tag = Signatures::parse(query)?.token.ok_or(Denial::Unsigned)?;
        self.check(&tag, &[path.as_bytes(), b"\0", delete_secret])
    }

    /// Takes the same time wherever two signatures differ.
    fn check(&self, tag: &[u8; TAG], message: &[&[u8]]) -> Result<(), Denial> {
        hmac::verify(&self.key, &message.concat(), tag).map_err(|_| Denial::Forged)
    }
}

impl std::fmt::Debug for External {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("External(..)")
    }
}

/// The types that the server may have signed, the likeliest first. One that is not UTF-8 cannot have been in a slot
/// request.
fn candidates(content_type: &[u8], guess: &str) -> Vec<String> {
    let mut candidates = Vec::with_capacity(5);
    if let Ok(sent) = std::str::from_utf8(content_type) {
        let essence = sent.split(';').next().unwrap_or_default().trim_ascii();
        candidates.push(sent.to_owned());
        candidates.push(essence.to_owned());
        candidates.push(essence.to_ascii_lowercase());
    }
    candidates.push(UNKNOWN_TYPE.to_owned());
    candidates.push(guess.to_owned());
    candidates.dedup();
    candidates
}

/// The query's signatures. One that stands twice, or is not 64 hex digits, spoils all of them.
#[derive(Default)]
struct Signatures {
    v2: Option<[u8; TAG]>,
    token: Option<[u8; TAG]>,
    v: Option<[u8; TAG]>,
}

impl Signatures {
    /// Unknown parameters are passed by: clients and proxies add some.
    fn parse(query: &[u8]) -> Result<Signatures, Denial> {
        let mut signatures = Signatures::default();
        for (key, value) in parameters(query) {
            let place = match key {
                b"v2" => &mut signatures.v2,
                b"token" => &mut signatures.token,
                b"v" => &mut signatures.v,
                _ => continue,
            };
            if place.replace(tag(value)?).is_some() {
                return Err(Denial::Forged);
            }
        }
        Ok(signatures)
    }
}

/// Names and values; a name without `=` has an empty value.
fn parameters(query: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    query
        .split(|b| *b == b'&')
        .map(|part| match part.iter().position(|b| *b == b'=') {
            Some(at) => (&part[..at], &part[at + 1..]),
            None => (part, &[][..]),
        })
}

/// Servers write lower case, but backends of either kind are in use.
fn tag(hex: &[u8]) -> Result<[u8; TAG], Denial> {
    let mut tag = [0; TAG];
    if hex.len() != TAG * 2 {
        return Err(Denial::Forged);
    }
    HEXLOWER_PERMISSIVE
        .decode_mut(hex, &mut tag)
        .map_err(|_| Denial::Forged)?;
    Ok(tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::decode_segment;

    const KEY: &str = "correct horse battery staple";
    const PATH: &str = "4a771ac1-f0b2-4a4a-9700-f2a26fa2bb67/tr%c3%a8s%20cool.jpg";
    const SIZE: u64 = 23456;
    const V1: &str = "212eb66427e3cb987986d586d16214fdda08527a11b1542dd9a31c6c6ec7d2e9";
    const V2_JPEG: &str = "9fd17fe95a0cd01a221b83ed9550daf6407f1150c352655b0502cceaf543260c";
    const V2_OCTETS: &str = "914ebd33e9b058a7c64a3b8380aefccf202e63788417b56eb2be3b649099a14f";
    const DELETE: &str = "13d50f9fac1df132ae3a3d91d3cef2b02ea9994807c424980522a533af1d5661";
    const DELETE_SECRET: &[u8] = b"delete me";

    fn path(url: &str) -> StorePath {
        let segments: Vec<_> = url
            .split('/')
            .map(|segment| decode_segment(segment.as_bytes()).unwrap())
            .collect();
        StorePath::from_segments(segments.iter().map(Vec::as_slice)).unwrap()
    }

    /// A PUT; the table's rows alter what they are about.
    #[derive(Clone, Copy)]
    struct Put<'a> {
        key: &'a str,
        path: &'a str,
        query: &'a str,
        size: u64,
        content_type: Option<&'a str>,
        guess: &'a str,
    }

    const PUT: Put = Put {
        key: KEY,
        path: PATH,
        query: "",
        size: SIZE,
        content_type: Some("image/jpeg"),
        guess: "image/jpeg",
    };

    #[track_caller]
    fn check(put: Put, verdict: Result<Option<&str>, Denial>) {
        let found = External::new(put.key.as_bytes()).verify(
            &path(put.path),
            put.query.as_bytes(),
            put.size,
            put.content_type.map(str::as_bytes),
            put.guess,
        );
        let verdict = verdict.map(|approved| approved.map(str::to_owned));
        assert_eq!(found, verdict, "{}", put.query);
        let recognised = External::recognises(put.query.as_bytes());
        assert_eq!(
            recognised,
            verdict != Err(Denial::Unsigned),
            "{}",
            put.query
        );
    }

    #[track_caller]
    fn check_query(query: &str, verdict: Result<Option<&str>, Denial>) {
        check(Put { query, ..PUT }, verdict);
    }

    #[test]
    fn what_the_servers_sign_is_good() {
        for (key, path, size, query, approved) in [
            (KEY, PATH, SIZE, format!("v={V1}"), None),
            (
                KEY,
                &PATH.replace("%c3%a8", "%C3%A8"),
                SIZE,
                format!("v={V1}"),
                None,
            ),
            (KEY, PATH, SIZE, format!("v2={V2_JPEG}"), Some("image/jpeg")),
            (
                KEY,
                PATH,
                SIZE,
                format!("token={V2_JPEG}"),
                Some("image/jpeg"),
            ),
            (
                KEY,
                PATH,
                SIZE,
                format!("v2={V2_OCTETS}"),
                Some(UNKNOWN_TYPE),
            ),
            (
                KEY,
                PATH,
                SIZE,
                format!("token={V2_OCTETS}"),
                Some(UNKNOWN_TYPE),
            ),
            (
                KEY,
                "43feddb25776a343c69835c7e79dc2c7f59598a6/a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0/très_cool.jpg",
                SIZE,
                "v=64430ebca8f196162769a37afbd0bb8c79cbbd58c3068eb24617a767047a1021".to_owned(),
                None,
            ),
            (
                "mysecret",
                "thomas/abc/catmetal.jpg",
                23026,
                "v=7b8879e2d1c733b423a70cde30cecc3a3c64a03f790d1b5bcbb2a6aca52b477e".to_owned(),
                None,
            ),
            (
                "mysecret",
                "thomas/abc/catmetal.jpg",
                23026,
                "v2=7318cd44d4c40731e3b2ff869f553ab2326eae631868e7b8054db20d4aee1c06".to_owned(),
                Some("image/jpeg"),
            ),
            (
                "mysecret",
                "thomas/abc/catmetal.jpg",
                23026,
                "token=7318cd44d4c40731e3b2ff869f553ab2326eae631868e7b8054db20d4aee1c06".to_owned(),
                Some("image/jpeg"),
            ),
            (
                "secret string",
                "foo/bar.jpg",
                1_048_576,
                "v=e6df55a04516617d6a86ad6ca23879819591085a1a8c0041f4da06824f5d2db7".to_owned(),
                None,
            ),
            (
                "secret string",
                "foo/bar.jpg",
                1_048_576,
                "v2=a19d27add075aa60035e27c05e794f13079ba48c508852b3d7160a6bec0f85ab".to_owned(),
                Some("image/jpeg"),
            ),
        ] {
            let put = Put {
                key,
                path,
                size,
                query: &query,
                ..PUT
            };
            check(put, Ok(approved));
            let store_path = self::path(path);
            let (name, hex) = query.split_once('=').unwrap();
            let upper = format!("{name}={}", hex.to_uppercase());
            check(
                Put {
                    query: &upper,
                    ..put
                },
                Ok(approved),
            );
            let among = format!("a=b&x&{query}&=&v3=1&w=%zz");
            check(
                Put {
                    query: &among,
                    ..put
                },
                Ok(approved),
            );

            let forged = Err(Denial::Forged);
            check(
                Put {
                    key: "another key",
                    ..put
                },
                forged,
            );
            check(Put { key: "", ..put }, forged);
            check(Put { path: "a/b", ..put }, forged);
            let deeper = format!("{path}/x");
            check(
                Put {
                    path: &deeper,
                    ..put
                },
                forged,
            );
            let longer = format!("{path}%20{size}");
            check(
                Put {
                    path: &longer,
                    ..put
                },
                forged,
            );
            for size in [size - 1, size + 1, size * 10, 0, u64::MAX] {
                check(Put { size, ..put }, forged);
            }
            for cut in 0..hex.len() {
                let cut = format!("{name}={}", &hex[..cut]);
                check(Put { query: &cut, ..put }, forged);
            }
            for at in 0..hex.len() {
                for byte in [b'0', b'f', b'g', b'%', 0, 0xff] {
                    let mut altered = query.clone().into_bytes();
                    let place = &mut altered[name.len() + 1 + at];
                    if *place == byte {
                        continue;
                    }
                    *place = byte;
                    let verdict = External::new(key.as_bytes()).verify(
                        &store_path,
                        &altered,
                        size,
                        Some(b"image/jpeg"),
                        "",
                    );
                    assert_eq!(verdict, Err(Denial::Forged));
                }
            }
            for query in [
                format!("{query}00"),
                format!("{query}0"),
                format!("{query} "),
                format!("{name}= {hex}"),
                format!("{name}=={hex}"),
                format!("{query}&{query}"),
                format!("{query}&{name}="),
                format!("{name}&{query}"),
            ] {
                check(
                    Put {
                        query: &query,
                        ..put
                    },
                    forged,
                );
            }
        }
    }

    #[test]
    fn one_of_the_likely_types_must_be_the_signed_one() {
        let typed = |content_type, guess| Put {
            content_type,
            guess,
            ..PUT
        };
        for name in ["v2", "token"] {
            let query = &format!("{name}={V2_JPEG}");
            let jpeg = Ok(Some("image/jpeg"));
            for put in [
                typed(Some("image/jpeg"), ""),
                typed(Some("image/jpeg;charset=utf-8"), ""),
                typed(Some("Image/JPEG ; q=\";\""), ""),
                typed(Some(UNKNOWN_TYPE), "image/jpeg"),
                typed(Some(""), "image/jpeg"),
                typed(Some("image/png"), "image/jpeg"),
                typed(None, "image/jpeg"),
            ] {
                check(Put { query, ..put }, jpeg);
            }
            for put in [
                typed(Some("image/png"), "image/png"),
                typed(Some("image/jpg"), UNKNOWN_TYPE),
                typed(Some(""), ""),
                typed(None, UNKNOWN_TYPE),
                typed(Some("x;image/jpeg"), "IMAGE/JPEG"),
            ] {
                check(Put { query, ..put }, Err(Denial::Forged));
            }
            let query = &format!("{name}={V2_OCTETS}");
            for content_type in [None, Some(""), Some("image/png"), Some("a/b; c=d")] {
                let put = typed(content_type, "image/jpeg");
                check(Put { query, ..put }, Ok(Some(UNKNOWN_TYPE)));
            }
        }
    }

    #[test]
    fn a_type_of_many_parts_or_of_none_is_approved_as_it_was_signed() {
        let sign = |content_type: &str| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, KEY.as_bytes());
            let message = [
                path(PATH).as_bytes(),
                b"\x0023456\0",
                content_type.as_bytes(),
            ]
            .concat();
            let tag = hmac::sign(&key, &message);
            format!("v2={}", HEXLOWER_PERMISSIVE.encode(tag.as_ref()))
        };
        for (signed, sent, approved) in [
            (
                "text/plain; charset=utf-8",
                Some("text/plain; charset=utf-8"),
                true,
            ),
            ("text/plain; charset=utf-8", Some("text/plain"), false),
            ("Text/Plain", Some("Text/Plain;a=b"), true),
            ("text/plain", Some("Text/Plain;a=b"), true),
        ] {
            let put = Put {
                query: &sign(signed),
                content_type: sent,
                ..PUT
            };
            let verdict = if approved {
                Ok(Some(signed))
            } else {
                Err(Denial::Forged)
            };
            check(put, verdict);
        }
        for content_type in [None, Some("")] {
            let query = &sign("");
            check(
                Put {
                    query,
                    content_type,
                    ..PUT
                },
                Ok(None),
            );
        }
        let verdict = External::new(KEY.as_bytes()).verify(
            &path(PATH),
            format!("v2={V2_JPEG}").as_bytes(),
            SIZE,
            Some(b"image/jp\xffg"),
            "text/plain",
        );
        assert_eq!(verdict, Err(Denial::Forged));
    }

    #[test]
    fn the_highest_parameter_decides_alone() {
        let jpeg = Ok(Some("image/jpeg"));
        let octets = Ok(Some(UNKNOWN_TYPE));
        check_query(&format!("v={V1}&token={V2_OCTETS}&v2={V2_JPEG}"), jpeg);
        check_query(&format!("v2={V2_JPEG}&token={V2_OCTETS}&v={V1}"), jpeg);
        check_query(&format!("v={V1}&token={V2_OCTETS}"), octets);
        check_query(&format!("v2={V2_JPEG}&v={V2_JPEG}"), jpeg);
        for query in [
            format!("v={V1}&v2={V1}"),
            format!("v={V1}&token={V1}"),
            format!("token={V2_JPEG}&v2={V1}"),
            format!("v={V1}&v2="),
            format!("v={V1}&v2"),
            format!("v2={V2_JPEG}&v=junk"),
            format!("v={V1}&v={V1}&v2={V2_JPEG}"),
        ] {
            check_query(&query, Err(Denial::Forged));
        }
    }

    #[test]
    fn a_query_without_signature_is_unsigned() {
        for query in [
            "",
            "&",
            "=",
            "&&==",
            "x",
            "v3=1&expires=1",
            "V=1",
            "vv=1",
            "v1=1",
            "size=1&until=2&sig=AAAA",
            "%76=1",
            "?v=1",
        ] {
            check_query(query, Err(Denial::Unsigned));
        }
        for query in ["v", "v=", "token=\u{0}", "v2=%", "v=\u{e9}", "x&v"] {
            check_query(query, Err(Denial::Forged));
        }
    }

    #[track_caller]
    fn check_delete(key: &str, url: &str, query: &str, secret: &[u8], denial: Option<Denial>) {
        let verdict =
            External::new(key.as_bytes()).verify_delete(&path(url), query.as_bytes(), secret);
        assert_eq!(verdict.err(), denial, "{query}");
    }

    #[test]
    fn only_its_own_token_deletes_a_file() {
        let good = format!("token={DELETE}");
        let forged = Some(Denial::Forged);
        check_delete(KEY, PATH, &good, DELETE_SECRET, None);
        let upper = format!("token={}", DELETE.to_uppercase());
        check_delete(KEY, PATH, &upper, DELETE_SECRET, None);
        check_delete("another key", PATH, &good, DELETE_SECRET, forged);
        check_delete(KEY, "a/b", &good, DELETE_SECRET, forged);
        for secret in [&b"delete m"[..], b"delete me!", b"", b"\0delete me"] {
            check_delete(KEY, PATH, &good, secret, forged);
        }
        for query in [
            format!("token={V2_JPEG}"),
            format!("{good}&{good}"),
            format!("token={}", &DELETE[1..]),
            "token=".to_owned(),
            "token".to_owned(),
        ] {
            check_delete(KEY, PATH, &query, DELETE_SECRET, forged);
        }
        for query in [
            String::new(),
            format!("v={DELETE}"),
            format!("v2={DELETE}"),
            format!("v={V1}"),
        ] {
            check_delete(KEY, PATH, &query, DELETE_SECRET, Some(Denial::Unsigned));
        }
        check_query(&good, Err(Denial::Forged));
    }

    #[test]
    fn the_secret_stays_out_of_the_log() {
        assert_eq!(format!("{:?}", External::new(b"s3cret")), "External(..)");
    }
}
