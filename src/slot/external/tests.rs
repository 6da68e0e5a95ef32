//! Tests of [`super`].

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
    StorePath::from_segments(segments.iter().map(|segment| &**segment)).unwrap()
}

/// A PUT; tests override the fields they are about.
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
fn check(put: Put, result: Result<Option<&str>, Denial>) {
    let found = External::new(put.key.as_bytes()).verify(
        &path(put.path),
        put.query.as_bytes(),
        put.size,
        put.content_type.map(str::as_bytes),
        put.guess,
    );
    let result = result.map(|approved| approved.map(str::to_owned));
    assert_eq!(found, result, "{}", put.query);
    let recognised = External::recognises(put.query.as_bytes());
    assert_eq!(recognised, result != Err(Denial::Unsigned), "{}", put.query);
}

#[track_caller]
fn check_query(query: &str, result: Result<Option<&str>, Denial>) {
    check(Put { query, ..PUT }, result);
}

/// A signed PUT: key, path, size, parameter and signature, and the type that it approves.
type Vector = (
    &'static str,
    &'static str,
    u64,
    &'static str,
    &'static str,
    Option<&'static str>,
);

const JPEG: Option<&str> = Some("image/jpeg");
const OCTETS: Option<&str> = Some(UNKNOWN_TYPE);
const UPPER_CASE_PATH: &str = "4a771ac1-f0b2-4a4a-9700-f2a26fa2bb67/tr%C3%A8s%20cool.jpg";
const EJABBERD_PATH: &str = "43feddb25776a343c69835c7e79dc2c7f59598a6/a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0/très_cool.jpg";
const EJABBERD_V1: &str = "64430ebca8f196162769a37afbd0bb8c79cbbd58c3068eb24617a767047a1021";
const CATMETAL: &str = "thomas/abc/catmetal.jpg";
const CATMETAL_V1: &str = "7b8879e2d1c733b423a70cde30cecc3a3c64a03f790d1b5bcbb2a6aca52b477e";
const CATMETAL_V2: &str = "7318cd44d4c40731e3b2ff869f553ab2326eae631868e7b8054db20d4aee1c06";
const FOO_V1: &str = "e6df55a04516617d6a86ad6ca23879819591085a1a8c0041f4da06824f5d2db7";
const FOO_V2: &str = "a19d27add075aa60035e27c05e794f13079ba48c508852b3d7160a6bec0f85ab";

const VECTORS: [Vector; 12] = [
    (KEY, PATH, SIZE, "v", V1, None),
    (KEY, UPPER_CASE_PATH, SIZE, "v", V1, None),
    (KEY, PATH, SIZE, "v2", V2_JPEG, JPEG),
    (KEY, PATH, SIZE, "token", V2_JPEG, JPEG),
    (KEY, PATH, SIZE, "v2", V2_OCTETS, OCTETS),
    (KEY, PATH, SIZE, "token", V2_OCTETS, OCTETS),
    (KEY, EJABBERD_PATH, SIZE, "v", EJABBERD_V1, None),
    ("mysecret", CATMETAL, 23026, "v", CATMETAL_V1, None),
    ("mysecret", CATMETAL, 23026, "v2", CATMETAL_V2, JPEG),
    ("mysecret", CATMETAL, 23026, "token", CATMETAL_V2, JPEG),
    ("secret string", "foo/bar.jpg", 1_048_576, "v", FOO_V1, None),
    (
        "secret string",
        "foo/bar.jpg",
        1_048_576,
        "v2",
        FOO_V2,
        JPEG,
    ),
];

#[test]
fn signatures_of_all_servers_verify() {
    for (key, path, size, name, hex, approved) in VECTORS {
        for query in [
            format!("{name}={hex}"),
            format!("{name}={}", hex.to_uppercase()),
            format!("a=b&x&{name}={hex}&=&v3=1&w=%zz"),
        ] {
            let put = Put {
                key,
                path,
                size,
                query: &query,
                ..PUT
            };
            check(put, Ok(approved));
        }
    }
}

#[test]
fn a_signature_is_for_one_key_path_and_size() {
    for (key, path, size, name, hex, _) in VECTORS {
        let query = &format!("{name}={hex}");
        let put = Put {
            key,
            path,
            size,
            query,
            ..PUT
        };
        for key in ["another key", ""] {
            check(Put { key, ..put }, Err(Denial::Forged));
        }
        for path in ["a/b", &format!("{path}/x"), &format!("{path}%20{size}")] {
            check(Put { path, ..put }, Err(Denial::Forged));
        }
        for size in [size - 1, size + 1, size * 10, 0, u64::MAX] {
            check(Put { size, ..put }, Err(Denial::Forged));
        }
    }
}

#[test]
fn altered_and_repeated_signatures_are_denied() {
    for (key, path, size, name, hex, _) in VECTORS {
        let query = format!("{name}={hex}");
        let cut = (0..hex.len()).map(|length| format!("{name}={}", &hex[..length]));
        let malformed = [
            format!("{query}00"),
            format!("{query}0"),
            format!("{query} "),
            format!("{name}= {hex}"),
            format!("{name}=={hex}"),
            format!("{query}&{query}"),
            format!("{query}&{name}="),
            format!("{name}&{query}"),
        ];
        for query in &cut.chain(malformed).collect::<Vec<_>>() {
            let put = Put {
                key,
                path,
                size,
                query,
                ..PUT
            };
            check(put, Err(Denial::Forged));
        }
        let store_path = self::path(path);
        for at in name.len() + 1..query.len() {
            for byte in [b'0', b'f', b'g', b'%', 0, 0xff] {
                let mut altered = query.clone().into_bytes();
                if altered[at] == byte {
                    continue;
                }
                altered[at] = byte;
                let external = External::new(key.as_bytes());
                let result = external.verify(&store_path, &altered, size, Some(b"image/jpeg"), "");
                assert_eq!(result, Err(Denial::Forged), "byte {at}");
            }
        }
    }
}

#[test]
fn one_of_the_candidate_types_must_be_the_signed_one() {
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
fn a_type_with_parameters_or_an_empty_one_is_approved_as_signed() {
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
        let result = if approved {
            Ok(Some(signed))
        } else {
            Err(Denial::Forged)
        };
        check(put, result);
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
    let result = External::new(KEY.as_bytes()).verify(
        &path(PATH),
        format!("v2={V2_JPEG}").as_bytes(),
        SIZE,
        Some(b"image/jp\xffg"),
        "text/plain",
    );
    assert_eq!(result, Err(Denial::Forged));
}

#[test]
fn only_the_parameter_of_highest_precedence_is_checked() {
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
    let result = External::new(key.as_bytes()).verify_delete(&path(url), query.as_bytes(), secret);
    assert_eq!(result.err(), denial, "{query}");
}

#[test]
fn a_delete_needs_its_own_token() {
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
fn debug_output_does_not_show_the_secret() {
    assert_eq!(format!("{:?}", External::new(b"s3cret")), "External(..)");
}
