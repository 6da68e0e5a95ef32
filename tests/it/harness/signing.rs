//! The rights that an XMPP server gives: signed links and tokens.

/// The secret that all schemes share in these tests.
pub const KEY: &str = "correct horse battery staple";
pub const DELETE_SECRET: &str = "a secret for deleting alone";

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ring::hmac;

use crate::harness::site::ROMEO;
use crate::harness::{Site, unix_now};

pub fn hex(message: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, KEY.as_bytes());
    HEXLOWER.encode(hmac::sign(&key, message).as_ref())
}

/// The right to PUT five bytes to a path, as the XMPP server would sign it if it were talked into it.
pub fn signed_put(path: &[u8]) -> String {
    format!("v={}", hex(&[path, b" 5"].concat()))
}

pub fn signed_delete(path: &[u8]) -> String {
    format!(
        "token={}",
        hex(&[path, b"\0", DELETE_SECRET.as_bytes()].concat())
    )
}

/// A token of the file share; values go in as they are, escapes and all.
#[derive(Clone)]
pub struct Claims {
    pub fields: Vec<(String, String)>,
    pub target: String,
}

impl Claims {
    pub fn new(slot: &str) -> Claims {
        let now = unix_now();
        let fields = [
            ("iat", now.to_string()),
            ("exp", (now + 300).to_string()),
            ("sub", format!("\"{ROMEO}\"")),
            ("slot", format!("\"{slot}\"")),
            ("filename", "\"a.txt\"".to_owned()),
            ("filesize", "5".to_owned()),
            ("filetype", "\"text/plain\"".to_owned()),
        ];
        Claims {
            fields: fields
                .map(|(name, value)| (name.to_owned(), value))
                .to_vec(),
            target: format!("/files/{slot}/a.txt"),
        }
    }

    /// With another text.
    pub fn with(self, name: &str, text: &str) -> Claims {
        self.with_raw(name, &format!("\"{text}\""))
    }

    /// With another value.
    pub fn with_raw(mut self, name: &str, value: &str) -> Claims {
        self.fields.retain(|(other, _)| other != name);
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn without(mut self, name: &str) -> Claims {
        self.fields.retain(|(other, _)| other != name);
        self
    }

    pub fn json(&self) -> String {
        let fields: Vec<String> = self
            .fields
            .iter()
            .map(|(name, value)| format!("\"{name}\":{value}"))
            .collect();
        format!("{{{}}}", fields.join(","))
    }

    pub fn token(&self) -> String {
        token_of(r#"{"alg":"HS256","typ":"JWT"}"#, &self.json())
    }

    pub fn target(&self) -> String {
        self.target.clone()
    }

    #[track_caller]
    pub fn put(&self, site: &Site, body: &[u8]) -> crate::harness::Reply {
        let authorization = format!("Bearer {}", self.token());
        site.client().ask(
            "PUT",
            &self.target,
            &[("Authorization", &authorization)],
            body,
        )
    }
}

pub fn token_of(header: &str, payload: &str) -> String {
    let signed = format!(
        "{}.{}",
        BASE64URL_NOPAD.encode(header.as_bytes()),
        BASE64URL_NOPAD.encode(payload.as_bytes())
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, KEY.as_bytes());
    let tag = hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", BASE64URL_NOPAD.encode(tag.as_ref()))
}
