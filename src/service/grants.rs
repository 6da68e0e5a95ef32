//! The signature schemes of PUTs, in the order in which they are tried, and the checks common to all of them.

use std::time::Duration;

use crate::config::{Config, SecretKey};
use crate::http::condition::{self, ConditionResult};
use crate::http::head::{Framing, RequestHead};
use crate::http::mime;
use crate::http::route::Resource;
use crate::http::syntax::bearer_token;
use crate::jid::BareJid;
use crate::layout::{self, Expiry, StorePath, Tag};
use crate::now::Now;
use crate::purpose::Purpose;
use crate::service::{PutRefusal, Service};
use crate::slot::external::External;
use crate::slot::grant::{Denial, Grant, Issued, Scheme};
use crate::slot::jwt::{FileShare, JwtDenial};
use crate::slot::name;
use crate::slot::own::Signer;

/// The schemes, with their secrets.
#[derive(Debug)]
pub(super) struct Schemes {
    pub own: Signer,
    /// The time within which a PUT to one of upslot's own slots must start.
    pub put_timeout: Duration,
    pub external: Option<External>,
    pub delete_secret: Option<SecretKey>,
    pub file_share: Option<FileShare>,
}

impl Schemes {
    /// `secret` signs upslot's own slots.
    pub fn new(config: &Config, secret: &[u8]) -> Schemes {
        let external = config.external_secret.as_ref();
        let delete_secret = config.external_delete_secret.as_ref();
        let file_share = config.file_share_secret.as_ref();
        Schemes {
            own: Signer::new(secret),
            put_timeout: config.put_timeout,
            external: external.map(|secret| External::new(secret.as_bytes())),
            delete_secret: delete_secret.map(|secret| SecretKey::new(secret.as_bytes())),
            file_share: file_share.map(|secret| FileShare::new(secret.as_bytes())),
        }
    }
}

impl Service {
    /// Verifies a PUT as far as possible without the store.
    pub(super) fn grant(
        &self,
        request: &RequestHead,
        resource: Resource,
        now: Now,
    ) -> Result<Grant, PutRefusal> {
        let grant = self.verified(request, resource, now)?;
        // A file that is already expired must not be stored.
        if self.is_expired(&grant.path, now) {
            return Err(PutRefusal::Denied(Denial::Expired));
        }
        // RFC 9110 §14.5: a partial PUT must not be stored as a whole file.
        if request.field("content-range").is_some() {
            return Err(PutRefusal::Partial);
        }
        if condition::evaluate(request, None) != ConditionResult::Proceed {
            return Err(PutRefusal::Precondition);
        }
        let size = grant.size;
        match request.framing() {
            Framing::None if size > 0 => return Err(PutRefusal::NoLength),
            Framing::Length(length) if length > size => return Err(PutRefusal::TooLong { size }),
            Framing::Length(length) if length < size => return Err(PutRefusal::TooShort { size }),
            Framing::None | Framing::Length(_) | Framing::Chunked => {}
        }
        let put = request.field("content-type");
        // An external signature covers the type that is stored, so that of the PUT does not matter.
        let approved = grant.scheme == Scheme::External;
        if !approved && !mime::same_type(grant.content_type.as_deref(), put) {
            return Err(PutRefusal::TypeDiffers {
                slot: grant.content_type.unwrap_or_default(),
                put: String::from_utf8_lossy(put.unwrap_or_default()).into_owned(),
            });
        }
        Ok(grant)
    }

    /// Finds the scheme of a PUT and verifies its signature.
    fn verified(
        &self,
        request: &RequestHead,
        resource: Resource,
        now: Now,
    ) -> Result<Grant, PutRefusal> {
        let query = request.query().unwrap_or_default();
        let schemes = &self.schemes;
        let verify = |path: &StorePath, query: &[u8]| schemes.own.verify(path, query, now.unix());
        let own = match &resource {
            Resource::File(path) => verify(path, query),
            Resource::Root | Resource::NotFound => Err(Denial::Unsigned),
        };
        let denial = match own {
            Ok(grant) => return Ok(grant),
            Err(denial) => denial,
        };
        if let Some((path, query)) = self.encoded_again(request) {
            match verify(&path, &query) {
                Ok(grant) => return Ok(grant),
                Err(Denial::Expired) => return Err(PutRefusal::Denied(Denial::Expired)),
                Err(Denial::Forged | Denial::Unsigned) => {}
            }
        }
        if denial != Denial::Unsigned {
            return Err(PutRefusal::Denied(denial));
        }
        if let (Some(external), Resource::File(path)) = (&schemes.external, &resource) {
            if External::recognises(query) {
                return external_grant(external, request, path);
            }
        }
        let (Some(file_share), Some((slot, name))) = (&schemes.file_share, self.share(request))
        else {
            return Err(PutRefusal::Denied(denial));
        };
        // One client library spells the field name in British English.
        let authorization = request
            .field("authorization")
            .or_else(|| request.field("authorisation"))
            .ok_or(PutRefusal::NoToken)?;
        file_share_grant(file_share, authorization, slot, name, now)
    }

    /// Verifies the signature that Metronome adds to a DELETE.
    pub(super) fn may_delete(&self, request: &RequestHead, path: &StorePath) -> Result<(), Denial> {
        let Schemes {
            external: Some(external),
            delete_secret: Some(secret),
            ..
        } = &self.schemes
        else {
            return Err(Denial::Unsigned);
        };
        let query = request.query().unwrap_or_default();
        external.verify_delete(path, query, secret.as_bytes())
    }
}

/// Verifies a PUT signed by the XMPP server (mod_http_upload_external).
fn external_grant(
    external: &External,
    request: &RequestHead,
    path: &StorePath,
) -> Result<Grant, PutRefusal> {
    // The signature covers the size, which only Content-Length declares.
    let Framing::Length(size) = request.framing() else {
        return Err(PutRefusal::NoLength);
    };
    let query = request.query().unwrap_or_default();
    let implied = mime::by_extension(path.name());
    let content_type = external
        .verify(path, query, size, request.field("content-type"), implied)
        .map_err(PutRefusal::Denied)?;
    Ok(Grant {
        path: path.clone(),
        size,
        content_type: content_type.filter(|t| mime::is_valid(t)),
        total: None,
        issued: Issued::Unknown,
        scheme: Scheme::External,
    })
}

/// Verifies a PUT with a token of Prosody's mod_http_file_share. The file is stored in its owner's folder; the slot and
/// the file name in the URL become its alias.
fn file_share_grant(
    file_share: &FileShare,
    authorization: &[u8],
    slot: Vec<u8>,
    name: Vec<u8>,
    now: Now,
) -> Result<Grant, PutRefusal> {
    let token = bearer_token(authorization).ok_or(PutRefusal::NoToken)?;
    let claims = file_share
        .verify(token, now.unix())
        .map_err(PutRefusal::Token)?;
    if !claims.is_for(&slot) {
        return Err(PutRefusal::OtherSlot);
    }
    // A token without an owner counts against no user's quota: the slot is treated as the owner.
    let owner = claims.sub.clone().or_else(|| BareJid::parse(&claims.slot));
    let tag = Tag {
        purpose: Purpose::Message,
        end: claims.expires.map_or(Expiry::Never, Expiry::At),
        size: Some(claims.filesize),
    };
    let file_name = claims
        .filename
        .as_deref()
        .filter(|file_name| !file_name.is_empty());
    let file_name = name::clean(file_name.unwrap_or("file"));
    let digest = layout::slot_digest(claims.slot.as_bytes());
    let path = owner
        .and_then(|owner| StorePath::for_slot(&owner, tag, &digest, &file_name))
        .ok_or(PutRefusal::Token(JwtDenial::Malformed))?;
    Ok(Grant {
        path,
        size: claims.filesize,
        content_type: claims
            .filetype
            .filter(|t| mime::is_valid(t) && t != mime::UNKNOWN),
        total: None,
        issued: Issued::At(claims.issued),
        scheme: Scheme::FileShare { slot, name },
    })
}
