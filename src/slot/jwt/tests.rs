//! Tests of [`super`].

use super::*;

const KEY_A: &[u8] = b"U2VjcmV0VG9rZW4wMzYz";
const TOKEN_A: &str = concat!(
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.",
    "eyJleHAiOjE2MTIxMTM0NjAsImV4cGlyZXMiOjE2MTI3MTc5NjAsImZpbGVuYW1lIjoicGljdHVyZS5wbmciLCJmaWxlc2l6ZSI6NzE2OCwi",
    "ZmlsZXR5cGUiOiJpbWFnZS9wbmciLCJpYXQiOjE2MTIxMTMxNjAsInNsb3QiOiJSVmJLQWdXUGNyVVlBb2RqIiwic3ViIjoidXNlckBleGFt",
    "cGxlLmNvbSJ9.",
    "4GiEI4ed8M6rouL4pvN1yGl23ns5dxlokCjwnWR6xCo",
);
const KEY: &[u8] = b"correct horse battery staple";
const TOKEN: &str = concat!(
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.",
    "eyJpYXQiOjE3NjcyMjU2MDAsImV4cCI6MTc2NzIyNjIwMCwic3ViIjoicm9tZW9AbW9udGFndWUudGxkIiwic2xvdCI6IjAxOTJmMGFhLTdj",
    "MTEtN2UzYS05ZDUzLTFiMmMzZDRlNWY2MCIsImV4cGlyZXMiOjE3Njc4MzA0MDAsImZpbGVuYW1lIjoidHLDqHMgY29vbC5qcGciLCJmaWxl",
    "c2l6ZSI6MjM0NTYsImZpbGV0eXBlIjoiaW1hZ2UvanBlZyJ9.",
    "if979BhBnvuqBf503vg4RvqPVbIUrtfN6jxjtO0STO8",
);
const SLOT: &str = "0192f0aa-7c11-7e3a-9d53-1b2c3d4e5f60";
const IAT: u64 = 1_767_225_600;
const EXP: u64 = 1_767_226_200;

const HS256: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
const MINIMAL: &str = r#"{"slot":"s","filesize":5,"exp":1767226200}"#;

fn sign(header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> String {
    let signed = format!(
        "{}.{}",
        BASE64URL_NOPAD.encode(header.as_ref()),
        BASE64URL_NOPAD.encode(payload.as_ref())
    );
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, KEY), signed.as_bytes());
    format!("{signed}.{}", BASE64URL_NOPAD.encode(tag.as_ref()))
}

fn verify(token: impl AsRef<[u8]>, now: u64) -> Result<Claims, JwtDenial> {
    FileShare::new(KEY).verify(token.as_ref(), now)
}

#[track_caller]
fn check(token: impl AsRef<[u8]>, denial: Option<JwtDenial>) {
    let token = token.as_ref();
    let result = verify(token, IAT);
    assert_eq!(result.err(), denial, "{}", token.escape_ascii());
}

#[track_caller]
fn check_payload(payload: impl AsRef<[u8]>, denial: Option<JwtDenial>) {
    let payload = payload.as_ref();
    let result = verify(sign(HS256, payload), IAT);
    assert_eq!(result.err(), denial, "{}", payload.escape_ascii());
}

fn claims() -> Claims {
    Claims {
        slot: SLOT.to_owned(),
        sub: BareJid::parse("romeo@montague.tld"),
        filename: Some("très cool.jpg".to_owned()),
        filesize: 23456,
        filetype: Some("image/jpeg".to_owned()),
        expires: Some(1_767_830_400),
        issued: IAT,
        exp: EXP,
    }
}

#[test]
fn a_token_of_the_server_is_valid_until_it_expires() {
    let result = FileShare::new(KEY_A).verify(TOKEN_A.as_bytes(), 1_612_113_200);
    let expected = Claims {
        slot: "RVbKAgWPcrUYAodj".to_owned(),
        sub: BareJid::parse("user@example.com"),
        filename: Some("picture.png".to_owned()),
        filesize: 7168,
        filetype: Some("image/png".to_owned()),
        expires: Some(1_612_717_960),
        issued: 1_612_113_160,
        exp: 1_612_113_460,
    };
    assert_eq!(result, Ok(expected));
    for now in [IAT, IAT + 1, EXP - 1, IAT - CLOCK_SKEW] {
        assert_eq!(verify(TOKEN, now), Ok(claims()));
    }
    for now in [EXP, EXP + 1, u64::MAX] {
        assert_eq!(verify(TOKEN, now), Err(JwtDenial::Expired));
    }
    for now in [0, IAT - CLOCK_SKEW - 1] {
        assert_eq!(verify(TOKEN, now), Err(JwtDenial::NotYet));
    }
}

#[test]
fn a_token_is_for_one_slot_and_one_size() {
    let claims = verify(TOKEN, IAT).unwrap();
    assert!(claims.is_for(SLOT.as_bytes()));
    assert_eq!(claims.filesize, 23456);
    for slot in [
        "",
        "0192f0aa-7c11-7e3a-9d53-1b2c3d4e5f61",
        &SLOT[1..],
        &SLOT.to_uppercase(),
    ] {
        assert!(!claims.is_for(slot.as_bytes()), "{slot}");
    }
}

#[test]
fn any_alteration_is_denied() {
    assert_eq!(
        FileShare::new(b"another key").verify(TOKEN.as_bytes(), IAT),
        Err(JwtDenial::Forged)
    );
    assert_eq!(
        FileShare::new(KEY).verify(TOKEN_A.as_bytes(), IAT),
        Err(JwtDenial::Forged)
    );
    for length in 0..TOKEN.len() {
        assert!(verify(&TOKEN[..length], IAT).is_err(), "{length} bytes");
    }
    for at in 0..TOKEN.len() {
        for bit in 0..8 {
            let mut altered = TOKEN.as_bytes().to_vec();
            altered[at] ^= 1 << bit;
            assert!(verify(&altered, IAT).is_err(), "bit {bit} of byte {at}");
        }
    }
    let (_, signature) = TOKEN.rsplit_once('.').unwrap();
    for (header, payload) in [(HS256, MINIMAL), (r#"{"alg":"none"}"#, MINIMAL)] {
        let good = sign(header, payload);
        let (signed, _) = good.rsplit_once('.').unwrap();
        check(format!("{signed}.{signature}"), Some(JwtDenial::Forged));
        check(format!("{signed}."), Some(JwtDenial::Forged));
        check(signed, Some(JwtDenial::Malformed));
    }
}

#[test]
fn a_token_has_three_parts_in_base64url_without_padding() {
    let good = sign(HS256, MINIMAL);
    check(&good, None);
    for token in [
        String::new(),
        ".".to_owned(),
        "...".to_owned(),
        "a.b".to_owned(),
        "a.b.c".to_owned(),
        "é.é.é".to_owned(),
        "\0.\0.\0".to_owned(),
        format!("{good}="),
        format!("{good}=="),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}.{good}"),
        format!("{good} "),
        format!(" {good}"),
        format!("{good}\n"),
        good.replacen('.', "=.", 1),
        good.replacen('.', "", 1),
        good.replace('.', "+."),
    ] {
        check(&token, Some(JwtDenial::Malformed));
    }
    check("..", Some(JwtDenial::Forged));
}

#[test]
fn an_overlong_token_is_malformed() {
    let name = "n".repeat(5900);
    let payload = MINIMAL.replace("{", &format!("{{\"filename\":\"{name}\","));
    let token = sign(HS256, &payload);
    assert!(
        token.len() > 7900 && token.len() <= MAX_TOKEN,
        "{}",
        token.len()
    );
    check(token, None);
    let payload = payload.replace("nnn", "nnnn");
    let token = sign(HS256, payload);
    assert!(token.len() > MAX_TOKEN);
    check(token, Some(JwtDenial::Malformed));
    check("a".repeat(1 << 20), Some(JwtDenial::Malformed));
    check(".".repeat(MAX_TOKEN), Some(JwtDenial::Malformed));
}

#[test]
fn hs256_is_the_only_algorithm() {
    for (header, denial) in [
        (HS256, None),
        (r#"{"alg":"HS256"}"#, None),
        (
            r#" { "typ" : "jwt" , "alg" : "HS256" , "kid" : [ { } ] } "#,
            None,
        ),
        (r#"{"alg":"HS\u003256"}"#, None),
        (r#"{"alg":"none"}"#, Some(JwtDenial::Forged)),
        (r#"{"alg":"HS512"}"#, Some(JwtDenial::Forged)),
        (r#"{"alg":"hs256"}"#, Some(JwtDenial::Forged)),
        (r#"{"alg":"HS256 "}"#, Some(JwtDenial::Forged)),
        (r#"{"alg":""}"#, Some(JwtDenial::Forged)),
        (
            r#"{"alg":"HS256","crit":["x"]}"#,
            Some(JwtDenial::Malformed),
        ),
        (
            r#"{"alg":"HS256","alg":"HS256"}"#,
            Some(JwtDenial::Malformed),
        ),
        (
            r#"{"alg":"HS256","\u0061lg":"none"}"#,
            Some(JwtDenial::Malformed),
        ),
        (r#"{"alg":"HS256","typ":"JWE"}"#, Some(JwtDenial::Malformed)),
        (r#"{"alg":"HS256","typ":1}"#, Some(JwtDenial::Malformed)),
        (r#"{"alg":["HS256"]}"#, Some(JwtDenial::Malformed)),
        (r#"{"alg":null}"#, Some(JwtDenial::Malformed)),
        (r#"{"typ":"JWT"}"#, Some(JwtDenial::Malformed)),
        ("{}", Some(JwtDenial::Malformed)),
        ("[]", Some(JwtDenial::Malformed)),
        ("", Some(JwtDenial::Malformed)),
        ("HS256", Some(JwtDenial::Malformed)),
    ] {
        check(sign(header, MINIMAL), denial);
    }
}

#[test]
fn claims_are_strict_json() {
    let malformed = Some(JwtDenial::Malformed);
    for payload in [
        "",
        " ",
        "null",
        "1",
        "\"slot\"",
        "[]",
        "{",
        "{}",
        "hello",
        "{'slot':1}",
        r#"{slot:"s","filesize":5,"exp":1767226200}"#,
        r#"{"slot":"s","filesize":5,"exp":1767226200"#,
        r#"{"slot":"s","filesize":5,"exp":1767226200,}"#,
        r#"{"slot":"s","filesize":5 "exp":1767226200}"#,
        r#"{"slot":"s","filesize":5,"exp":1767226200}}"#,
        r#"{"slot":"s","filesize":5,"exp":1767226200}{}"#,
        r#"[{"slot":"s","filesize":5,"exp":1767226200}]"#,
        "{\"slot\":\"s\n\",\"filesize\":5,\"exp\":1767226200}",
        "{\"slot\":\"s\",\"filesize\":5,\"exp\":1767226200}\0",
        "\u{feff}{\"slot\":\"s\",\"filesize\":5,\"exp\":1767226200}",
        r#"{"slot":"\ud800","filesize":5,"exp":1767226200}"#,
        r#"{"slot":"\x41","filesize":5,"exp":1767226200}"#,
        r#"{"slot":"s","slot":"s","filesize":5,"exp":1767226200}"#,
        r#"{"slot":"s","filesize":5,"filesize":6,"exp":1767226200}"#,
        r#"{"slot":"s","filesize":5,"exp":1767226200,"\u0065xp":1767226200}"#,
        r#"{"slot":"s","filesize":5,"exp":1767226200,"x":1,"x":1}"#,
    ] {
        check_payload(payload, malformed);
    }
    check_payload(
        b"{\"slot\":\"s\xff\",\"filesize\":5,\"exp\":1767226200}",
        malformed,
    );
    check_payload(
        b"{\"slot\":\"s\xed\xa0\x80\",\"filesize\":5,\"exp\":1767226200}",
        malformed,
    );
    for payload in [
        MINIMAL,
        r#"{"exp":1767226200,"filesize":5,"slot":"s"}"#,
        " {\t\"exp\" : 1767226200 ,\r\n \"filesize\" : 5 , \"slot\" : \"s\" } ",
        r#"{"slot":"\u0073\ud83d\ude00","filesize":5,"exp":1767226200}"#,
        r#"{"slot":"s","filesize":5,"exp":1767226200,"x":{"slot":[1.5e3,true,null]}}"#,
        r#"{"slot":"s","filesize":5,"exp":1767226200,"sub":null,"iat":null,"expires":null}"#,
    ] {
        check_payload(payload, None);
    }
    for (depth, denial) in [(2, None), (3, malformed), (2000, malformed)] {
        for (open, close) in [("[", "]"), ("{\"x\":", "}")] {
            let depth = if open == "[" { depth } else { depth.min(900) };
            let mut nested = open.repeat(depth) + "0" + &close.repeat(depth);
            check_payload(MINIMAL.replace('{', &format!("{{\"x\":{nested},")), denial);
            nested.truncate(open.len() * depth);
            check_payload(nested, malformed);
        }
    }
}

#[test]
fn the_size_is_a_whole_number() {
    for (size, accepted) in [
        ("0", Some(0)),
        ("5", Some(5)),
        ("5.0", Some(5)),
        ("9007199254740993", Some(9_007_199_254_740_993)),
        ("18446744073709551615", Some(u64::MAX)),
        ("18446744073709551616", None),
        ("100000000000000000000000000000000000000000", None),
        ("-1", None),
        ("-0", None),
        ("+1", None),
        ("01", None),
        ("00", None),
        ("1.5", None),
        ("1.00001", None),
        ("1.", None),
        (".0", None),
        ("1e3", None),
        ("1E0", None),
        ("1.0e0", None),
        ("1e400", None),
        ("0x10", None),
        ("inf", None),
        ("NaN", None),
        ("\"5\"", None),
        ("true", None),
        ("null", None),
        ("[5]", None),
        ("{}", None),
        ("", None),
    ] {
        let payload = MINIMAL.replace("\"filesize\":5", &format!("\"filesize\":{size}"));
        let result = verify(sign(HS256, payload), IAT).map(|claims| claims.filesize);
        assert_eq!(result, accepted.ok_or(JwtDenial::Malformed), "{size}");
    }
}

#[test]
fn claims_are_type_checked() {
    let malformed = Some(JwtDenial::Malformed);
    for (claim, denial) in [
        ("\"sub\":\"montague.tld\"", None),
        ("\"sub\":\"\"", malformed),
        ("\"sub\":\"a@b@c\"", malformed),
        ("\"sub\":\"a b@c\"", malformed),
        ("\"sub\":1", malformed),
        ("\"filename\":1", malformed),
        ("\"filename\":\"\"", None),
        ("\"filetype\":{}", malformed),
        ("\"iat\":\"1767225600\"", malformed),
        ("\"iat\":-1", malformed),
        ("\"iat\":1767225900", None),
        ("\"iat\":1767225901", Some(JwtDenial::NotYet)),
        ("\"nbf\":1767225900", None),
        ("\"nbf\":1767225901", Some(JwtDenial::NotYet)),
        ("\"aud\":\"someone\"", Some(JwtDenial::Forged)),
        ("\"expires\":1767225601", None),
        ("\"expires\":1767268800.0", None),
        ("\"expires\":1767237942.8571", malformed),
        ("\"expires\":1767225600", Some(JwtDenial::FileExpired)),
        ("\"expires\":0", Some(JwtDenial::FileExpired)),
        ("\"expires\":-1", malformed),
    ] {
        check_payload(MINIMAL.replace('{', &format!("{{{claim},")), denial);
    }
    for payload in [
        r#"{"filesize":5,"exp":1767226200}"#,
        r#"{"slot":"s","exp":1767226200}"#,
        r#"{"slot":"s","filesize":5}"#,
        r#"{"slot":"","filesize":5,"exp":1767226200}"#,
        r#"{"slot":1,"filesize":5,"exp":1767226200}"#,
        r#"{"slot":"s","filesize":5,"exp":"1767226200"}"#,
        r#"{"slot":"s","filesize":5,"exp":null}"#,
        r#"{"Slot":"s","filesize":5,"exp":1767226200}"#,
    ] {
        check_payload(payload, malformed);
    }
}

#[test]
fn a_type_that_fits_no_header_field_is_ignored() {
    let long = "x".repeat(MAX_TYPE);
    for (filetype, kept) in [
        ("image/jpeg", true),
        ("text/plain; charset=utf-8", true),
        (&long, true),
        (&format!("{long}x"), false),
        ("", false),
        ("a/b\\r\\nX: y", false),
        ("a/b\\u0000", false),
        ("a/b\\u007f", false),
        ("a/é", false),
    ] {
        let payload = MINIMAL.replace('{', &format!("{{\"filetype\":\"{filetype}\","));
        let claims = verify(sign(HS256, payload), IAT).unwrap();
        assert_eq!(claims.filetype.as_deref(), kept.then_some(filetype));
    }
}

#[test]
fn signed_junk_does_not_panic() {
    let corpus = [
        HS256,
        MINIMAL,
        r#"{"a":[{"b":"\u00e9\n"},-1.5e+3,true,null]}"#,
    ];
    let pieces = b"{}[]\":,\\ue0-+.\x00\x7f\xc3\xff ";
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    for _ in 0..20_000 {
        let mut junk = corpus[next(corpus.len())].as_bytes().to_vec();
        for _ in 0..=next(4) {
            let at = next(junk.len());
            match next(3) {
                0 => junk[at] = pieces[next(pieces.len())],
                1 => junk.insert(at, pieces[next(pieces.len())]),
                _ => junk.truncate(at.max(1)),
            }
        }
        let _ = verify(sign(HS256, &junk), IAT);
        let _ = verify(sign(&junk, MINIMAL), IAT);
    }
}

#[test]
fn debug_output_does_not_show_the_secret() {
    assert_eq!(format!("{:?}", FileShare::new(b"s3cret")), "FileShare(..)");
}
