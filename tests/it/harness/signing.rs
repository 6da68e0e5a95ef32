//! Signed links and tokens, as an XMPP server makes them: `external_secret` (`v`, `v2`, `token`) and the JSON Web Tokens
//! of Prosody's `mod_http_file_share`.

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use ring::hmac;

use super::site::ROMEO;
use super::{Plan, Reply, Site, unix_now};

/// The secret of every scheme; the published vectors of `external_secret` were made with it.
pub const KEY: &str = "correct horse battery staple";

/// Short enough for a warning at the start.
pub const DELETE_SECRET: &str = "a secret for deleting alone";

/// The folder of an upload in the published vectors.
pub const UUID: &str = "4a771ac1-f0b2-4a4a-9700-f2a26fa2bb67";

/// The header of every valid token.
pub const HS256: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// A plan that accepts signed links only.
pub fn external_plan() -> Plan {
    Plan::alone().set("external_secret", format!("'{KEY}'"))
}

pub fn mac(key: &str, message: impl AsRef<[u8]>) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    hmac::sign(&key, message.as_ref()).as_ref().to_vec()
}

pub fn hex(key: &str, message: impl AsRef<[u8]>) -> String {
    HEXLOWER.encode(&mac(key, message))
}

/// The query of a signed PUT. `v` does not sign the type.
pub fn put_query(scheme: &str, path: impl AsRef<[u8]>, size: usize, kind: &str) -> String {
    let rest = match scheme {
        "v" => format!(" {size}"),
        _ => format!("\0{size}\0{kind}"),
    };
    let message = [path.as_ref(), rest.as_bytes()].concat();
    format!("{scheme}={}", hex(KEY, message))
}

/// The query of a signed DELETE.
pub fn delete_query(path: impl AsRef<[u8]>, delete_secret: &str) -> String {
    let message = [path.as_ref(), b"\0", delete_secret.as_bytes()].concat();
    format!("token={}", hex(KEY, message))
}

/// A token with this header and payload (RFC 7515 §7.1).
pub fn jwt(key: &str, header: &str, payload: &str) -> String {
    let signed = format!(
        "{}.{}",
        BASE64URL_NOPAD.encode(header.as_bytes()),
        BASE64URL_NOPAD.encode(payload.as_bytes())
    );
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&mac(key, &signed)))
}

/// The claims of a token for an upload of five bytes by Romeo; each can be changed. Values are written as given, JSON
/// escapes included.
#[derive(Clone)]
pub struct Claims {
    pub fields: Vec<(String, String)>,
    /// Where the file is uploaded and downloaded.
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
        self.with_raw(name, format!("\"{text}\""))
    }

    /// With another value.
    pub fn with_raw(mut self, name: &str, value: impl std::fmt::Display) -> Claims {
        let value = value.to_string();
        match self.fields.iter_mut().find(|(other, _)| other == name) {
            Some(field) => field.1 = value,
            None => self.fields.push((name.to_owned(), value)),
        }
        self
    }

    pub fn without(mut self, name: &str) -> Claims {
        self.fields.retain(|(other, _)| other != name);
        self
    }

    /// With another file name, in the claims and in the target.
    pub fn named(mut self, name: &str) -> Claims {
        let folder = self.target.rfind('/').unwrap();
        self.target.truncate(folder + 1);
        self.target
            .extend(utf8_percent_encode(name, NON_ALPHANUMERIC));
        self.with("filename", name)
    }

    pub fn sized(self, size: usize) -> Claims {
        self.with_raw("filesize", size)
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
        jwt(KEY, HS256, &self.json())
    }

    /// The value of the `Authorization` field.
    pub fn bearer(&self) -> String {
        format!("Bearer {}", self.token())
    }

    #[track_caller]
    pub fn put(&self, site: &Site, body: &[u8]) -> Reply {
        let fields = [("Authorization", &*self.bearer())];
        site.client().ask("PUT", &self.target, &fields, body)
    }
}
