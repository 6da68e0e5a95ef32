//! The same, for tables.

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ring::hmac;

use super::signing::KEY;
use super::site::ROMEO;
use super::{Fields, Plan, Reply, Site, unix_now};

pub const UUID: &str = "4a771ac1-f0b2-4a4a-9700-f2a26fa2bb67";

pub fn external() -> Plan {
    Plan::alone().set("external_secret", format!("'{KEY}'"))
}

#[track_caller]
pub fn put(site: &Site, target: &str, fields: Fields<'_>, body: &[u8]) -> Reply {
    site.client().ask("PUT", target, fields, body)
}

pub fn mac(key: &str, message: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    hmac::sign(&key, message.as_bytes()).as_ref().to_vec()
}

pub fn hex(key: &str, message: &str) -> String {
    HEXLOWER.encode(&mac(key, message))
}

/// The query of a PUT: `kind` matters for all but `v`.
pub fn query(scheme: &str, path: &str, size: usize, kind: &str) -> String {
    let message = match scheme {
        "v" => format!("{path} {size}"),
        _ => format!("{path}\0{size}\0{kind}"),
    };
    format!("{scheme}={}", hex(KEY, &message))
}

pub const HS256: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

pub fn token_with(key: &str, header: &str, payload: &str) -> String {
    let signed = format!(
        "{}.{}",
        BASE64URL_NOPAD.encode(header.as_bytes()),
        BASE64URL_NOPAD.encode(payload.as_bytes())
    );
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&mac(key, &signed)))
}

/// What a token says; the tests alter what they are about.
#[derive(Clone, Copy)]
pub struct Claims<'a> {
    pub sub: &'a str,
    pub slot: &'a str,
    pub name: &'a str,
    pub size: usize,
    pub kind: &'a str,
    /// Seconds from now.
    pub exp: i64,
    pub expires: Option<u64>,
}

impl Claims<'_> {
    pub fn json(&self) -> String {
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

    pub fn token(&self) -> String {
        token_with(KEY, HS256, &self.json())
    }

    pub fn target(&self) -> String {
        let name: String =
            percent_encoding::utf8_percent_encode(self.name, percent_encoding::NON_ALPHANUMERIC)
                .collect();
        format!("/files/{}/{name}", self.slot)
    }

    #[track_caller]
    pub fn put(&self, site: &Site) -> Reply {
        share_put(site, &self.target(), &self.token(), &vec![b'h'; self.size])
    }
}

pub const CLAIMS: Claims = Claims {
    sub: ROMEO,
    slot: "0192f0aa",
    name: "très cool.jpg",
    size: 5,
    kind: "image/jpeg",
    exp: 300,
    expires: None,
};
#[track_caller]
pub fn share_put(site: &Site, target: &str, token: &str, body: &[u8]) -> Reply {
    site.client().ask(
        "PUT",
        target,
        &[("Authorization", &format!("Bearer {token}"))],
        body,
    )
}
