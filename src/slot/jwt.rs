//! Bearer tokens of Prosody's mod_http_file_share, which hands out slots and leaves HTTP to us.
//!
//! A PUT comes with `Authorization: Bearer` (RFC 6750) and a JSON Web Token (RFC 7519) in compact form (RFC 7515
//! §3.1) that tells slot, owner, size, type and the moment when the file goes. It is good from its issue to its `exp`
//! for the start of a PUT; one under way may end later.
//!
//! The only algorithm is HS256, HMAC-SHA-256 (RFC 7518 §3.2), whatever the token says of itself: the signature is
//! checked first, and nothing is parsed that the server did not sign. This module knows nothing of URLs and of the
//! PUT's own fields; it compares what it is given.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use hifijson::SliceLexer;
use hifijson::token::Lex;
use hifijson::value::{Value, parse_bounded};
use ring::hmac;

use crate::jid::BareJid;

/// Longest token in bytes; a long file name in escapes makes 3 KiB.
const MAX_TOKEN: usize = 8192;

/// How deep JSON may nest; what we read does not nest at all.
const MAX_DEPTH: usize = 4;

/// How far the server's clock may be ahead of ours, in seconds (RFC 7519 §4.1.5 allows a few minutes).
const CLOCK_SKEW: u64 = 300;

/// Longest type that is taken over, in bytes.
const MAX_TYPE: usize = 255;

/// Checks tokens.
pub struct FileShare {
    key: hmac::Key,
}

impl FileShare {
    /// The secret is taken as it is configured, without decoding.
    pub fn new(secret: &[u8]) -> FileShare {
        FileShare {
            key: hmac::Key::new(hmac::HMAC_SHA256, secret),
        }
    }

    /// Verifies a token at the moment `now` (Unix seconds). The comparison takes the same time wherever two
    /// signatures differ.
    pub fn verify(&self, token: &[u8], now: u64) -> Result<Claims, JwtDenial> {
        if token.len() > MAX_TOKEN {
            return Err(JwtDenial::Malformed);
        }
        let mut parts = token.split(|b| *b == b'.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(JwtDenial::Malformed);
        };
        let signed = &token[..header.len() + 1 + payload.len()];
        let (header, payload, signature) = (decode(header)?, decode(payload)?, decode(signature)?);
        hmac::verify(&self.key, signed, &signature).map_err(|_| JwtDenial::Forged)?;
        check_header(&header)?;
        Claims::parse(&payload, now)
    }
}

impl fmt::Debug for FileShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileShare(..)")
    }
}

/// What the server says of the upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The first segment of the URL's path below the base; not empty.
    pub slot: String,
    /// Who uploads.
    pub sub: Option<BareJid>,
    /// The file name as it was asked for; the URL's is the one that counts.
    pub filename: Option<String>,
    /// Exact length of the body in bytes; may be 0.
    pub filesize: u64,
    /// The type to store and serve: visible ASCII and spaces, 255 bytes at most. `None` leaves it to the PUT.
    pub filetype: Option<String>,
    /// When the file goes, in Unix seconds; always in the future. `None` if never.
    pub expires: Option<u64>,
    /// Until when a PUT may start, in Unix seconds.
    pub exp: u64,
}

impl Claims {
    /// Whether the token is for this slot: the first segment below the base, decoded. Another one means 403.
    pub fn is_for(&self, slot_segment: &[u8]) -> bool {
        self.slot.as_bytes() == slot_segment
    }

    /// Whether the token is for exactly `size` bytes in this slot. A size that alone differs means 413.
    pub fn matches(&self, slot_segment: &[u8], size: u64) -> bool {
        self.is_for(slot_segment) && self.filesize == size
    }

    fn parse(payload: &[u8], now: u64) -> Result<Claims, JwtDenial> {
        let mut claims = Members::parse(payload)?;
        // RFC 7519 §4.1.3: a token for somebody named who is not us must be rejected.
        if claims.0.contains_key("aud") {
            return Err(JwtDenial::Forged);
        }
        let latest = now.saturating_add(CLOCK_SKEW);
        for begin in [claims.integer("iat")?, claims.integer("nbf")?] {
            if begin.is_some_and(|begin| begin > latest) {
                return Err(JwtDenial::NotYet);
            }
        }
        let exp = claims.integer("exp")?.ok_or(JwtDenial::Malformed)?;
        if exp <= now {
            return Err(JwtDenial::Expired);
        }
        let expires = claims.integer("expires")?;
        if expires.is_some_and(|expires| expires <= now) {
            return Err(JwtDenial::FileExpired);
        }
        // An owner that cannot be read must not escape a quota.
        let sub = match claims.text("sub")? {
            Some(sub) => Some(BareJid::parse(&sub).ok_or(JwtDenial::Malformed)?),
            None => None,
        };
        Ok(Claims {
            slot: claims
                .text("slot")?
                .filter(|slot| !slot.is_empty())
                .ok_or(JwtDenial::Malformed)?,
            sub,
            filename: claims.text("filename")?,
            filesize: claims.integer("filesize")?.ok_or(JwtDenial::Malformed)?,
            filetype: claims.text("filetype")?.filter(|text| is_plain(text)),
            expires,
            exp,
        })
    }
}

/// Why a token gives no right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwtDenial {
    /// It is no token of this kind: 401, as if there were none.
    Malformed,
    /// The server that has our secret did not sign it with HS256 for us: 403.
    Forged,
    /// It was issued in the future; one of two clocks is wrong: 403.
    NotYet,
    /// Its time to start a PUT is over: 403.
    Expired,
    /// The file would be gone at once: 403.
    FileExpired,
}

impl fmt::Display for JwtDenial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            JwtDenial::Malformed => {
                "The request carries no readable bearer token; ask the XMPP server for an upload slot."
            }
            JwtDenial::Forged => "The bearer token's signature is not valid.",
            JwtDenial::NotYet => {
                "The bearer token is from the future; the clocks of the servers differ."
            }
            JwtDenial::Expired => "The bearer token has expired; ask for a new upload slot.",
            JwtDenial::FileExpired => "The file's time has passed; ask for a new upload slot.",
        })
    }
}

/// The token in the value of an `Authorization` field: `Bearer`, in any case, spaces, and a token of RFC 6750 §2.1.
/// `None` for another scheme or a malformed value.
pub fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.trim_ascii().split_at_checked(b"Bearer".len())?;
    let start = rest.iter().position(|b| *b != b' ')?;
    let token = &rest[start..];
    let sound = token
        .iter()
        .all(|b| b.is_ascii_alphanumeric() || b"-._~+/=".contains(b));
    (scheme.eq_ignore_ascii_case(b"Bearer") && start > 0 && sound).then_some(token)
}

/// base64url without padding (RFC 7515 §2); bits left over must be zero, so that one token has one spelling.
fn decode(part: &[u8]) -> Result<Vec<u8>, JwtDenial> {
    BASE64URL_NOPAD
        .decode(part)
        .map_err(|_| JwtDenial::Malformed)
}

fn check_header(header: &[u8]) -> Result<(), JwtDenial> {
    let mut header = Members::parse(header)?;
    let typ = header.text("typ")?;
    if typ.is_some_and(|typ| !typ.eq_ignore_ascii_case("JWT")) {
        return Err(JwtDenial::Malformed);
    }
    // RFC 7515 §4.1.11: an extension that must be understood is not.
    if header.0.contains_key("crit") {
        return Err(JwtDenial::Malformed);
    }
    match header.text("alg")?.as_deref() {
        Some("HS256") => Ok(()),
        Some(_) => Err(JwtDenial::Forged),
        None => Err(JwtDenial::Malformed),
    }
}

/// What may be written into a header field without a second thought.
fn is_plain(content_type: &str) -> bool {
    !content_type.is_empty()
        && content_type.len() <= MAX_TYPE
        && content_type.bytes().all(|b| matches!(b, b' '..=b'~'))
}

/// The members of one JSON object (RFC 8259); a name that stands twice spoils it (RFC 7519 §4).
struct Members<'a>(BTreeMap<Cow<'a, str>, Value<&'a str, Cow<'a, str>>>);

impl<'a> Members<'a> {
    fn parse(json: &'a [u8]) -> Result<Members<'a>, JwtDenial> {
        let value = SliceLexer::new(json).exactly_one(Lex::ws_peek, |next, lexer| {
            parse_bounded(MAX_DEPTH, next, lexer)
        });
        let Ok(Value::Object(pairs)) = value else {
            return Err(JwtDenial::Malformed);
        };
        let mut members = BTreeMap::new();
        for (name, value) in pairs {
            if members.insert(name, value).is_some() {
                return Err(JwtDenial::Malformed);
            }
        }
        Ok(Members(members))
    }

    /// A string; absent and `null` are the same.
    fn text(&mut self, name: &str) -> Result<Option<String>, JwtDenial> {
        match self.0.remove(name) {
            Some(Value::String(text)) => Ok(Some(text.into_owned())),
            None | Some(Value::Null) => Ok(None),
            Some(_) => Err(JwtDenial::Malformed),
        }
    }

    /// A whole number from 0, exact; absent and `null` are the same. Lua 5.4 writes `.0` behind one that it
    /// calculated from a fraction, as in half a day from now; that changes no number.
    fn integer(&mut self, name: &str) -> Result<Option<u64>, JwtDenial> {
        match self.0.remove(name) {
            Some(Value::Number((digits, _))) => digits
                .strip_suffix(".0")
                .unwrap_or(digits)
                .parse()
                .map(Some)
                .map_err(|_| JwtDenial::Malformed),
            None | Some(Value::Null) => Ok(None),
            Some(_) => Err(JwtDenial::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
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
    const LEAST: &str = r#"{"slot":"s","filesize":5,"exp":1767226200}"#;

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
        let verdict = verify(token, IAT);
        assert_eq!(verdict.err(), denial, "{}", token.escape_ascii());
    }

    #[track_caller]
    fn check_payload(payload: impl AsRef<[u8]>, denial: Option<JwtDenial>) {
        let payload = payload.as_ref();
        let verdict = verify(sign(HS256, payload), IAT);
        assert_eq!(verdict.err(), denial, "{}", payload.escape_ascii());
    }

    fn claims() -> Claims {
        Claims {
            slot: SLOT.to_owned(),
            sub: BareJid::parse("romeo@montague.tld"),
            filename: Some("très cool.jpg".to_owned()),
            filesize: 23456,
            filetype: Some("image/jpeg".to_owned()),
            expires: Some(1_767_830_400),
            exp: EXP,
        }
    }

    #[test]
    fn a_token_of_the_server_is_good_until_it_expires() {
        let verdict = FileShare::new(KEY_A).verify(TOKEN_A.as_bytes(), 1_612_113_200);
        let expected = Claims {
            slot: "RVbKAgWPcrUYAodj".to_owned(),
            sub: BareJid::parse("user@example.com"),
            filename: Some("picture.png".to_owned()),
            filesize: 7168,
            filetype: Some("image/png".to_owned()),
            expires: Some(1_612_717_960),
            exp: 1_612_113_460,
        };
        assert_eq!(verdict, Ok(expected));
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
        assert!(claims.matches(SLOT.as_bytes(), 23456));
        for size in [23455, 23457, 0, u64::MAX] {
            assert!(claims.is_for(SLOT.as_bytes()));
            assert!(!claims.matches(SLOT.as_bytes(), size));
        }
        for slot in [
            "",
            "0192f0aa-7c11-7e3a-9d53-1b2c3d4e5f61",
            &SLOT[1..],
            &SLOT.to_uppercase(),
        ] {
            assert!(!claims.is_for(slot.as_bytes()), "{slot}");
            assert!(!claims.matches(slot.as_bytes(), 23456), "{slot}");
        }
    }

    #[test]
    fn whatever_is_altered_is_refused() {
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
        for (header, payload) in [(HS256, LEAST), (r#"{"alg":"none"}"#, LEAST)] {
            let good = sign(header, payload);
            let (signed, _) = good.rsplit_once('.').unwrap();
            check(format!("{signed}.{signature}"), Some(JwtDenial::Forged));
            check(format!("{signed}."), Some(JwtDenial::Forged));
            check(signed, Some(JwtDenial::Malformed));
        }
    }

    #[test]
    fn a_token_has_three_parts_in_base64url_without_padding() {
        let good = sign(HS256, LEAST);
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
    fn a_long_token_is_not_even_looked_at() {
        let name = "n".repeat(5900);
        let payload = LEAST.replace("{", &format!("{{\"filename\":\"{name}\","));
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
            check(sign(header, LEAST), denial);
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
            LEAST,
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
                check_payload(LEAST.replace('{', &format!("{{\"x\":{nested},")), denial);
                nested.truncate(open.len() * depth);
                check_payload(nested, malformed);
            }
        }
    }

    #[test]
    fn every_claim_has_its_form() {
        let malformed = Some(JwtDenial::Malformed);
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
            let payload = LEAST.replace("\"filesize\":5", &format!("\"filesize\":{size}"));
            let verdict = verify(sign(HS256, payload), IAT).map(|claims| claims.filesize);
            assert_eq!(verdict, accepted.ok_or(JwtDenial::Malformed), "{size}");
        }
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
            check_payload(LEAST.replace('{', &format!("{{{claim},")), denial);
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
    fn a_type_that_fits_no_header_field_is_left_to_the_put() {
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
            let payload = LEAST.replace('{', &format!("{{\"filetype\":\"{filetype}\","));
            let claims = verify(sign(HS256, payload), IAT).unwrap();
            assert_eq!(claims.filetype.as_deref(), kept.then_some(filetype));
        }
    }

    #[test]
    fn junk_with_a_good_signature_does_no_harm() {
        let corpus = [
            HS256,
            LEAST,
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
            let _ = verify(sign(&junk, LEAST), IAT);
        }
    }

    #[track_caller]
    fn check_bearer(value: &str, token: Option<&str>) {
        let found = bearer(value.as_bytes());
        assert_eq!(found, token.map(str::as_bytes), "{value:?}");
    }

    #[test]
    fn the_scheme_comes_in_any_case() {
        for value in [
            "Bearer a.b-c_d",
            "bearer a.b-c_d",
            "BEARER   a.b-c_d",
            " Bearer a.b-c_d\t",
        ] {
            check_bearer(value, Some("a.b-c_d"));
        }
        check_bearer("Bearer ab+/~==", Some("ab+/~=="));
        check_bearer("Bearer Bearer", Some("Bearer"));
        for value in [
            "",
            " ",
            "Bearer",
            "Bearer ",
            "Bearera.b.c",
            "Bearer\ta.b.c",
            "Bearer \ta.b.c",
            "Bearer a b",
            "Bearer a,b",
            "Bearer \"a\"",
            "Bearer=a",
            "Basic a.b.c",
            "Beare a.b.c",
            "Bearer é",
            "Bearer a\u{0}",
            "ééé a.b.c",
            "a.b.c",
        ] {
            check_bearer(value, None);
        }
    }

    #[test]
    fn the_secret_stays_out_of_the_log() {
        assert_eq!(format!("{:?}", FileShare::new(b"s3cret")), "FileShare(..)");
    }
}
