//! The decisions: which slot requests are granted, which PUTs are accepted, and how other requests are answered.
//!
//! Pure: the caller supplies the state of the store and carries out the decision. All integrations use this module, so
//! that the same rules apply to each.
//!
//! - [`refusal`] reasons for refusals; [`limits`] limits and lifetimes from the configuration;
//! - [`announced`] what the service says about itself;
//! - [`target`] the files that a URL may name; [`grants`] the signature schemes of PUTs; [`slots`] slot requests;
//! - [`objects`] URLs of an object store;
//! - [`explain`] the explanation of a decision on a slot request;
//! - [`commands`] what users and administrators can do over XMPP; [`sessions`] commands that wait for their user;
//! - this file: the decision on a request, and the responses.

mod announced;
pub mod commands;
pub mod explain;
mod grants;
mod limits;
#[cfg(feature = "s3")]
mod objects;
mod refusal;
pub mod sessions;
mod slots;
mod target;

use std::time::SystemTime;

use crate::config::{Config, Purposes};
use crate::expiry::{self, Lifetime};
use crate::http::accept;
use crate::http::api::Reply;
use crate::http::charset;
use crate::http::exchange::Timeouts;
use crate::http::head::{Expect, Method, RequestHead};
use crate::http::mime::{self, Patterns};
use crate::http::response::{Answer, Common, FileFacts};
use crate::http::route::Resource;
use crate::jid::BareJid;
use crate::layout::StorePath;
use crate::now::Now;
use crate::policy::Policy;
use crate::slot::grant::Grant;

use announced::Announced;
use grants::Schemes;
use limits::{lifetime, policy};
pub use refusal::PutRefusal;
pub use target::DownloadRequest;
use target::Urls;

/// All rules, built from one configuration.
#[derive(Debug)]
pub struct Service {
    policy: Policy,
    /// Users who may execute the commands of administrators.
    admins: Vec<BareJid>,
    purposes: Purposes,
    announced: Announced,
    schemes: Schemes,
    urls: Urls,
    /// Fields common to responses of the public listener.
    common: Common,
    /// Fields common to responses of the local API: no CORS fields and no `custom_headers`.
    local: Common,
    lifetime: Lifetime,
    types: FileTypes,
    serve_downloads: bool,
    timeouts: Timeouts,
    /// The object store, if files are kept in one.
    #[cfg(feature = "s3")]
    objects: Option<Box<objects::Objects>>,
}

/// The general lists of MIME types; the configuration parser has already checked them.
#[derive(Debug)]
struct FileTypes {
    /// Which may be uploaded; `None` for all.
    allowed: Option<Patterns>,
    /// Which are shown inline.
    safe: Patterns,
}

impl FileTypes {
    fn new(config: &Config) -> FileTypes {
        let patterns = |words: &[String]| Patterns::parse(words).ok();
        let safe = config.safe_file_types.as_deref().and_then(patterns);
        FileTypes {
            allowed: config.allowed_file_types.as_deref().and_then(patterns),
            safe: safe.unwrap_or_else(Patterns::default_safe),
        }
    }
}

/// What the caller must do with a request.
#[derive(Debug)]
pub enum Decision {
    Answer(Answer),
    /// Serve the file, or answer with 404.
    Download(DownloadRequest),
    /// Receive the body, if the quotas and the disk allow it.
    Upload(Grant),
    /// Delete this file.
    Delete(StorePath),
    /// Refuse the request, and log why.
    Refuse(PutRefusal),
}

impl Service {
    /// A service whose slots are not accepted anywhere, for commands that only need its decisions.
    pub fn unsigned(config: &Config) -> Service {
        Service::new(config, b"nothing is signed here")
    }

    /// Creates the service; slots are signed with `secret`.
    pub fn new(config: &Config, secret: &[u8]) -> Service {
        Service {
            policy: policy(config),
            admins: config.admins.clone(),
            purposes: config.purposes,
            announced: Announced::new(config),
            schemes: Schemes::new(config, secret),
            urls: Urls::new(config),
            common: Common::new(config.allow_web_clients, config.custom_headers.clone()),
            local: Common::new(false, Vec::new()),
            lifetime: lifetime(config),
            types: FileTypes::new(config),
            serve_downloads: config.serve_downloads,
            timeouts: Timeouts::new(
                config.header_timeout,
                config.body_timeout,
                config.idle_timeout,
            ),
            #[cfg(feature = "s3")]
            objects: config.s3.as_deref().map(objects::Objects::boxed),
        }
    }

    /// The timeouts of HTTP connections.
    pub fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// Whether files are kept in an object store.
    pub fn keeps_objects(&self) -> bool {
        #[cfg(feature = "s3")]
        let keeps = self.objects.is_some();
        #[cfg(not(feature = "s3"))]
        let keeps = false;
        keeps
    }

    /// The lifetimes of files.
    pub fn lifetime(&self) -> Lifetime {
        self.lifetime
    }

    /// The limits that `explain` shows.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Whether PUTs with external signatures are accepted. Those never expire, so deleted paths need tombstones.
    pub fn takes_external(&self) -> bool {
        self.schemes.external.is_some()
    }

    /// Updates the `Date` field of responses.
    pub fn set_date(&mut self, now: Now) {
        self.common.set_date(now);
        self.local.set_date(now);
        #[cfg(feature = "s3")]
        if let Some(objects) = &mut self.objects {
            objects.bucket.set_date(now);
        }
    }

    /// Decides on a request, as far as possible without the store.
    pub fn decide(&self, request: &RequestHead, now: Now) -> Decision {
        let resource = self.urls.prefixes.resource(request.path());
        let read_only = matches!(request.method(), Method::Get | Method::Head);
        if request.expect() == Expect::Other {
            return Decision::Refuse(PutRefusal::Expectation);
        }
        match (request.method(), resource) {
            (Method::Options, _) => Decision::Answer(self.common.options()),
            (Method::Get | Method::Head, Resource::Root) => {
                let page = accept::prefers_html(request).then_some(&self.announced.page);
                Decision::Answer(self.common.root(page))
            }
            _ if read_only && !self.serve_downloads => {
                Decision::Refuse(PutRefusal::DownloadsElsewhere)
            }
            (Method::Get | Method::Head, resource) => self.download_request(request, resource),
            (Method::Put, resource) => match self.grant(request, resource, now) {
                Ok(grant) => Decision::Upload(grant),
                Err(refusal) => Decision::Refuse(refusal),
            },
            (Method::Unsupported, Resource::File(path))
                if self.schemes.delete_secret.is_some() && request.method_str() == "DELETE" =>
            {
                match self.may_delete(request, &path) {
                    Ok(()) => Decision::Delete(path),
                    Err(denial) => Decision::Refuse(PutRefusal::Denied(denial)),
                }
            }
            (Method::Unsupported, _) => Decision::Refuse(PutRefusal::Method { known: true }),
            (Method::Unknown, _) => Decision::Refuse(PutRefusal::Method { known: false }),
        }
    }

    /// The media type to store with a file: the slot's, else that of the PUT. `None` if there is none, or if the file
    /// name already implies it.
    pub fn content_type(&self, grant: &Grant, request: &RequestHead) -> Option<String> {
        let put = || {
            let put = std::str::from_utf8(request.field("content-type")?).ok()?;
            let specific = mime::is_valid(put) && mime::essence(put) != mime::UNKNOWN;
            specific.then_some(put)
        };
        let content_type = grant.content_type.as_deref().or_else(put)?;
        (content_type != mime::by_extension(grant.path.name())).then(|| content_type.to_owned())
    }

    /// Whether an upload must be checked for valid UTF-8. `content_type` is the media type that will be stored.
    pub fn needs_charset(&self, path: &StorePath, content_type: Option<&str>) -> bool {
        charset::needs_charset(effective_type(path, content_type))
    }

    /// Whether responses with this file need to know if it is UTF-8, because they show it as text and may name the
    /// charset.
    pub fn shows_charset(&self, path: &StorePath, content_type: Option<&str>) -> bool {
        let content_type = effective_type(path, content_type);
        charset::needs_charset(content_type)
            && self.types.safe.served(content_type) == content_type
            && self.types.safe.show_inline(content_type)
    }

    /// The response to GET and HEAD of an open file.
    pub fn download(
        &self,
        request: &RequestHead,
        path: &StorePath,
        file: &StoredFile,
        now: Now,
    ) -> Answer {
        let (content_type, inline) = self.shown_as(path, file.content_type.as_deref());
        let labelled = file.utf8.then(|| charset::with_utf8(content_type));
        let content_type = labelled.as_deref().unwrap_or(content_type);
        let facts = FileFacts {
            name: path.name(),
            size: file.size,
            modified: file.modified,
            content_type,
            inline,
            expires_at: self.lifetime.end(path.tag(), file.stored.min(now.wall)),
        };
        self.common.file(request, &facts, now)
    }

    /// The media type that is served for a file, and whether browsers may display it.
    fn shown_as<'a>(
        &'a self,
        path: &'a StorePath,
        content_type: Option<&'a str>,
    ) -> (&'a str, bool) {
        let served = self.types.safe.served(effective_type(path, content_type));
        (served, self.types.safe.show_inline(served))
    }

    /// The response to a request for a file that does not exist.
    pub fn not_found(&self) -> Answer {
        self.common.not_found()
    }

    /// The response to a completed DELETE.
    pub fn deleted(&self) -> Answer {
        self.common.answer(204).empty()
    }

    /// Whether a file has expired and must not be served, even if it is not deleted yet.
    pub fn is_expired(&self, path: &StorePath, now: Now) -> bool {
        expiry::hard_end(path.tag()).is_some_and(|end| end <= now.wall)
    }

    /// A response of the local API; it must not be cached, and has no CORS fields.
    pub fn local(&self, reply: Reply) -> Answer {
        let mut builder = self
            .local
            .answer(reply.status)
            .field("Cache-Control", "no-store");
        if let Some((name, value)) = reply.field {
            builder = builder.field(name, value);
        }
        builder.body(reply.content_type, reply.body)
    }

    /// The local API's response to a request that is refused before it is routed.
    pub fn refuse_locally(&self, refusal: &PutRefusal) -> Answer {
        self.local.refusal(refusal.status(), refusal)
    }

    /// The response to a completed upload.
    pub fn created(&self, grant: &Grant) -> Answer {
        self.common
            .answer(201)
            .field(
                "Location",
                format!("{}{}", self.urls.get_prefix, grant.location()),
            )
            .text(&"The file is stored.")
    }

    /// The public listener's response to a refused request.
    pub fn refuse(&self, refusal: &PutRefusal) -> Answer {
        self.common.refusal(refusal.status(), refusal)
    }
}

/// The media type of a file: the stored one if it is valid in a header field, else the one that its name implies.
fn effective_type<'a>(path: &StorePath, content_type: Option<&'a str>) -> &'a str {
    match content_type {
        Some(stored) if mime::is_valid(stored) => stored,
        _ => mime::by_extension(path.name()),
    }
}

/// The facts about an open file that its response depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFile {
    /// Bytes.
    pub size: u64,
    pub modified: SystemTime,
    /// When it was stored, corrected for clock jumps since.
    pub stored: SystemTime,
    pub content_type: Option<String>,
    /// Whether [`Service::shows_charset`] holds and the bytes are UTF-8.
    pub utf8: bool,
}

#[cfg(test)]
mod tests;
