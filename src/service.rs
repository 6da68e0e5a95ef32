//! What the program decides: who gets a slot, which PUT is granted, what a GET is answered.
//!
//! Pure: it is told what the store knows, and the loop does what it says. Every front end comes through here, so
//! that one rule holds for all.

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::config::{Config, Purposes, SecretKey};
use crate::expiry::{self, Lifetime};
use crate::http::api::Reply;
use crate::http::charset;
use crate::http::condition::{self, ConditionResult};
use crate::http::exchange::{RequestError, Timeouts};
use crate::http::head::{Expect, Framing, Method, RequestHead};
use crate::http::mime::{self, Patterns};
use crate::http::response::{Answer, Common, FileFacts};
use crate::http::route::{Prefixes, Resource};
use crate::http::syntax::bearer_token;
use crate::jid::BareJid;
use crate::layout::{self, Expiry, RANDOM_BYTES, StorePath, Tag};
use crate::now::Now;
use crate::policy::pool::{self, QUOTA_CLASSES};
use crate::policy::rates;
use crate::policy::rules::{Limits, Rule};
use crate::policy::{Policy, SpaceCheck, Usage};
use crate::purpose::Purpose;
use crate::refusal::{Refusal, sanitized};
use crate::slot::external::External;
use crate::slot::grant::{Denial, Grant, Issued, Scheme};
use crate::slot::jwt::{FileShare, JwtDenial};
use crate::slot::own::{Signer, Terms};
use crate::slot::{Slot, SlotRequest, name};

/// What a request target encodes of characters that people put into URLs; `%` is taken as it is.
const IN_A_TARGET: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'`');

/// What a slot's URL usually needs beyond prefix and path, for escapes; and what a PUT's query does. Bytes.
const URL_ROOM: usize = 16;
const QUERY_ROOM: usize = 144;

/// Everything that decides, made from one configuration.
#[derive(Debug)]
pub struct Service {
    policy: Policy,
    purposes: Purposes,
    announced: Vec<&'static str>,
    signer: Signer,
    external: Option<External>,
    delete_secret: Option<SecretKey>,
    file_share: Option<FileShare>,
    common: Common,
    /// What answers of the local API have in common: no CORS fields, and none of the operator's.
    local: Common,
    prefixes: Prefixes,
    put_prefix: String,
    get_prefix: String,
    put_timeout: Duration,
    lifetime: Lifetime,
    allowed_types: Option<Patterns>,
    safe_types: Patterns,
    serve_downloads: bool,
    timeouts: Timeouts,
}

/// What to do with a request.
#[derive(Debug)]
pub enum Decision {
    Answer(Answer),
    /// Serve the file, or say that it is not there.
    Download(DownloadRequest),
    /// Take the body, if there is room.
    Upload(Grant),
    /// Remove this file.
    Delete(StorePath),
    /// Say no, and log why.
    Refuse(PutRefusal),
}

/// What a GET may mean, in the order in which it is tried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DownloadRequest {
    /// The path as it was sent.
    pub path: Option<StorePath>,
    /// The path if the whole URL had been percent-encoded once more, as ejabberd 23.01 does to the URLs of the slot
    /// API.
    pub again: Option<StorePath>,
    /// The slot that Prosody's file share gave it.
    pub slot: Option<Vec<u8>>,
}

/// Why a PUT, or anything that is no mere look, is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutRefusal {
    Denied(Denial),
    /// The token of Prosody's file share is missing or no token; or it is one, and denied.
    NoToken,
    Token(JwtDenial),
    OtherSlot,
    Used,
    NoLength,
    TooLong {
        size: u64,
    },
    TooShort {
        size: u64,
    },
    TypeDiffers {
        slot: String,
        put: String,
    },
    Expectation,
    Partial,
    Precondition,
    /// As at a slot request: no room.
    NoRoom(Refusal),
    /// The store failed; says how.
    Storage {
        full: bool,
    },
    DownloadsElsewhere,
    Method {
        known: bool,
    },
    Busy,
    RequestError(RequestError),
}

impl PutRefusal {
    /// One word for counting.
    pub fn reason(&self) -> &'static str {
        match self {
            PutRefusal::Denied(Denial::Unsigned) | PutRefusal::NoToken => "unsigned",
            PutRefusal::Denied(Denial::Forged) | PutRefusal::OtherSlot => "forged",
            PutRefusal::Denied(Denial::Expired) => "expired",
            PutRefusal::Token(_) => "token",
            PutRefusal::Used => "used",
            PutRefusal::NoLength => "no_length",
            PutRefusal::TooLong { .. } => "too_long",
            PutRefusal::TooShort { .. } => "too_short",
            PutRefusal::TypeDiffers { .. } => "type",
            PutRefusal::Expectation => "expectation",
            PutRefusal::Partial => "partial",
            PutRefusal::Precondition => "precondition",
            PutRefusal::NoRoom(refusal) => refusal.reason(),
            PutRefusal::Storage { .. } => "storage",
            PutRefusal::DownloadsElsewhere => "elsewhere",
            PutRefusal::Method { .. } => "method",
            PutRefusal::Busy => "busy",
            PutRefusal::RequestError(RequestError::HeadTimeout | RequestError::BodyTimeout) => {
                "slow"
            }
            PutRefusal::RequestError(_) => "malformed",
        }
    }

    /// The HTTP status (RFC 9110 §15.5, §15.6; 507 is RFC 4918 §11.5).
    pub fn status(&self) -> u16 {
        match self {
            PutRefusal::NoToken | PutRefusal::Token(JwtDenial::Malformed) => 401,
            PutRefusal::Denied(_)
            | PutRefusal::Token(_)
            | PutRefusal::OtherSlot
            | PutRefusal::DownloadsElsewhere => 403,
            PutRefusal::Used => 409,
            PutRefusal::NoLength => 411,
            PutRefusal::TooLong { .. } => 413,
            PutRefusal::TooShort { .. } | PutRefusal::Partial => 400,
            PutRefusal::TypeDiffers { .. } => 415,
            PutRefusal::Expectation => 417,
            PutRefusal::Precondition => 412,
            PutRefusal::NoRoom(Refusal::Busy) => 503,
            PutRefusal::NoRoom(_) | PutRefusal::Storage { full: true } => 507,
            PutRefusal::Method { known: true } => 405,
            PutRefusal::Method { known: false } => 501,
            // RFC 4918 §11.5: 507 is about room, and not to be repeated by itself.
            PutRefusal::Busy | PutRefusal::Storage { full: false } => 503,
            PutRefusal::RequestError(fault) => fault.status(),
        }
    }
}

impl fmt::Display for PutRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PutRefusal::Denied(denial) => denial.fmt(f),
            PutRefusal::NoToken => f.write_str("The upload needs the token of its slot."),
            PutRefusal::Token(denial) => denial.fmt(f),
            PutRefusal::OtherSlot => f.write_str("The token is for another slot."),
            PutRefusal::Used => f.write_str("The upload slot is already used."),
            PutRefusal::NoLength => {
                f.write_str("A PUT needs a Content-Length or the chunked coding.")
            }
            PutRefusal::TooLong { size } => {
                write!(
                    f,
                    "The request body is longer than the {size} bytes of the slot."
                )
            }
            PutRefusal::TooShort { size } => {
                write!(
                    f,
                    "The request body is shorter than the {size} bytes of the slot."
                )
            }
            PutRefusal::TypeDiffers { slot, put } => write!(
                f,
                "The slot is for the type {}, not {}.",
                sanitized(slot),
                sanitized(put)
            ),
            PutRefusal::Expectation => {
                f.write_str("The only expectation that can be met is 100-continue.")
            }
            PutRefusal::Partial => f.write_str("A PUT with Content-Range cannot be taken."),
            PutRefusal::Precondition => f.write_str("The condition of the request does not hold."),
            PutRefusal::NoRoom(refusal) => refusal.fmt(f),
            PutRefusal::Storage { full: true } => f.write_str("The service's disk is full."),
            PutRefusal::Storage { full: false } => {
                f.write_str("The service's disk does not work at the moment.")
            }
            PutRefusal::DownloadsElsewhere => {
                f.write_str("Downloads are served by another server.")
            }
            PutRefusal::Method { known } => f.write_str(if *known {
                "Only GET, HEAD, OPTIONS and PUT are served here."
            } else {
                "The method is not known."
            }),
            PutRefusal::Busy => f.write_str("Too many connections; please try again in a moment."),
            PutRefusal::RequestError(fault) => fault.fmt(f),
        }
    }
}

impl Service {
    /// `secret` signs slots.
    pub fn new(config: &Config, secret: &[u8]) -> Service {
        let patterns = |words: &[String]| Patterns::parse(words).ok();
        Service {
            policy: policy(config),
            purposes: config.purposes,
            announced: config.purposes.announced(),
            external: config
                .external_secret
                .as_ref()
                .map(|s| External::new(s.as_bytes())),
            delete_secret: config
                .external_delete_secret
                .as_ref()
                .map(|s| SecretKey::new(s.as_bytes())),
            file_share: config
                .file_share_secret
                .as_ref()
                .map(|s| FileShare::new(s.as_bytes())),
            signer: Signer::new(secret),
            common: Common::new(config.allow_web_clients, config.custom_headers.clone()),
            local: Common::new(false, Vec::new()),
            prefixes: Prefixes::new(&[
                config.put_url.decoded.as_bytes(),
                config.get_url.decoded.as_bytes(),
            ]),
            put_prefix: config.put_url.prefix.clone(),
            get_prefix: config.get_url.prefix.clone(),
            put_timeout: config.put_timeout,
            lifetime: lifetime(config),
            // The configuration has checked the patterns.
            allowed_types: config.allowed_file_types.as_deref().and_then(patterns),
            safe_types: config
                .safe_file_types
                .as_deref()
                .and_then(patterns)
                .unwrap_or_else(Patterns::default_safe),
            serve_downloads: config.serve_downloads,
            timeouts: Timeouts::new(
                config.header_timeout,
                config.body_timeout,
                config.idle_timeout,
            ),
        }
    }

    /// How long HTTP clients may take.
    pub fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// How long files live.
    pub fn lifetime(&self) -> Lifetime {
        self.lifetime
    }

    /// Bytes of the largest file that this address may upload, with the purpose that needs no name; what service
    /// discovery announces. Whoever may not upload at all is told the general limit: the refusal says the rest.
    pub fn max_file_size(&self, asker: &BareJid) -> u64 {
        let limits = self.policy.admit(asker).ok().flatten();
        self.policy.max_file_size(pool::kind(None), limits)
    }

    /// Bytes of the largest file that this address may upload, or why it may not.
    pub fn max_size(&self, asker: &BareJid) -> Result<u64, Refusal> {
        let limits = self.policy.admit(asker)?;
        Ok(self.policy.max_file_size(pool::kind(None), limits))
    }

    /// The words of the purposes that are announced.
    pub fn purposes(&self) -> &[&'static str] {
        &self.announced
    }

    /// The limits, for `explain`.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Whether PUTs may come with a signature that never lapses, so that removed paths must be remembered.
    pub fn takes_external(&self) -> bool {
        self.external.is_some()
    }

    /// As far back as the windows of any rule look.
    pub fn longest_reach(&self) -> Duration {
        let limits = self.policy.rules.iter().filter_map(Rule::limits);
        Duration::from_secs(limits.map(rates::reach).max().unwrap_or(0))
    }

    /// Brings the answers' date up to the second.
    pub fn set_date(&mut self, now: Now) {
        self.common.set_date(now);
        self.local.set_date(now);
    }

    /// Whether an owner's stored bytes must be known before room can be judged.
    pub fn needs_owner_usage(&self, total: u64) -> bool {
        self.policy.needs_owner_usage(total)
    }

    /// Judges of a slot request what needs no look at the store; the limits of the rule that allows it are returned.
    pub fn check_request(&self, request: &SlotRequest) -> Result<Option<&Limits>, Refusal> {
        let limits = self.policy.admit(&request.owner)?;
        if self.purposes.limits(request.purpose).is_none() {
            let word = request.purpose.word();
            return Err(Refusal::Malformed(format!(
                "The purpose {word} is not offered here."
            )));
        }
        let limit = self
            .policy
            .max_file_size(pool::class_of(request.purpose), limits);
        if request.size > limit {
            return Err(Refusal::TooLarge {
                size: request.size,
                limit,
            });
        }
        let by_rule = limits
            .and_then(|limits| limits.allowed_file_types.as_deref())
            .and_then(|words| Patterns::parse(words).ok());
        let content_type = request.content_type.as_deref().unwrap_or(mime::UNKNOWN);
        let mut lists = [&by_rule, &self.allowed_types].into_iter().flatten();
        if lists.any(|allowed| !allowed.allow(content_type)) {
            return Err(Refusal::TypeNotAllowed {
                content_type: content_type.to_owned(),
            });
        }
        Ok(limits)
    }

    /// Whether so many bytes more may be stored.
    pub fn room(&self, size: u64, kind: usize, total: u64, stored: &Usage) -> SpaceCheck {
        self.policy.room(size, kind, total, stored)
    }

    /// When messages' files that are `newest` or older will have been removed for their age.
    pub fn expires_at(&self, newest: SystemTime, interval: Duration) -> Option<SystemTime> {
        if self.lifetime.message.is_zero() {
            return None;
        }
        newest
            .checked_add(self.lifetime.message)?
            .checked_add(interval)
    }

    /// Issues a slot that was checked, within the limits that [`Service::check_request`] found, below its owner's folder; with
    /// the path of its file. It expires later than `revoked_until`, see [`crate::slot::revoked`].
    pub fn issue(
        &self,
        request: &SlotRequest,
        owner_folder: &str,
        limits: Option<&Limits>,
        random: &[u8; RANDOM_BYTES],
        revoked_until: u64,
        now: Now,
    ) -> Result<(StorePath, Slot), Refusal> {
        let name = name::clean(&request.name);
        let tag = tag(request.purpose, limits);
        let path = StorePath::in_owner_folder(owner_folder, tag, random, &name)
            .ok_or_else(|| Refusal::Malformed("The file name cannot be stored.".to_owned()))?;
        // A type that cannot be sent back is not worth binding the PUT to.
        let content_type = request
            .content_type
            .as_deref()
            .filter(|t| mime::is_valid(t));
        let terms = Terms {
            size: request.size,
            content_type,
            total: limits.and_then(|limits| limits.max_total_size).unwrap_or(0),
            until: now
                .unix()
                .saturating_add(self.put_timeout.as_secs())
                .max(revoked_until.saturating_add(1)),
        };
        let room = path.as_bytes().len() + URL_ROOM;
        let mut get = String::with_capacity(self.get_prefix.len() + room);
        get.push_str(&self.get_prefix);
        path.encode_into(&mut get);
        let mut put = String::with_capacity(self.put_prefix.len() + room + QUERY_ROOM);
        put.push_str(&self.put_prefix);
        put.push_str(&get[self.get_prefix.len()..]);
        self.signer.sign(&path, &terms, &mut put);
        Ok((path, Slot { put, get }))
    }

    /// Decides on a request as far as it can be without a look at the store.
    pub fn decide(&self, request: &RequestHead, now: Now) -> Decision {
        let resource = self.prefixes.resource(request.path());
        let read_only = matches!(request.method(), Method::Get | Method::Head);
        if request.expect() == Expect::Other {
            return Decision::Refuse(PutRefusal::Expectation);
        }
        match (request.method(), resource) {
            (Method::Options, _) => Decision::Answer(self.common.options()),
            (Method::Get | Method::Head, Resource::Root) => Decision::Answer(
                self.common
                    .answer(200)
                    .text(&"upslot stores and serves files that are shared over XMPP (XEP-0363)."),
            ),
            _ if read_only && !self.serve_downloads => {
                Decision::Refuse(PutRefusal::DownloadsElsewhere)
            }
            (Method::Get | Method::Head, resource) => self.download_request(request, resource),
            (Method::Put, resource) => match self.grant(request, resource, now) {
                Ok(grant) => Decision::Upload(grant),
                Err(refusal) => Decision::Refuse(refusal),
            },
            (Method::Unsupported, Resource::File(path))
                if self.delete_secret.is_some() && request.method_str() == "DELETE" =>
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

    /// What is stored as a file's type: the slot's, else the PUT's, if it says something that the name does not.
    pub fn content_type(&self, grant: &Grant, request: &RequestHead) -> Option<String> {
        let put = || {
            let put = std::str::from_utf8(request.field("content-type")?).ok()?;
            let telling = mime::is_valid(put) && mime::essence(put) != mime::UNKNOWN;
            telling.then_some(put)
        };
        let content_type = grant.content_type.as_deref().or_else(put)?;
        (content_type != mime::by_extension(grant.path.name())).then(|| content_type.to_owned())
    }

    /// Whether it must be known of an upload if it is UTF-8. `content_type` is what is stored as its type.
    pub fn needs_charset(&self, path: &StorePath, content_type: Option<&str>) -> bool {
        charset::needs_charset(effective_type(path, content_type))
    }

    /// Whether it must be known of a file if it is UTF-8, so that its answers may say so: those that show it as text.
    pub fn shows_charset(&self, path: &StorePath, content_type: Option<&str>) -> bool {
        let content_type = effective_type(path, content_type);
        charset::needs_charset(content_type)
            && self.safe_types.served(content_type) == content_type
            && self.safe_types.show_inline(content_type)
    }

    /// The answer to GET and HEAD of a file that is open.
    pub fn download(
        &self,
        request: &RequestHead,
        path: &StorePath,
        file: &StoredFile<'_>,
        now: Now,
    ) -> Answer {
        let content_type = self
            .safe_types
            .served(effective_type(path, file.content_type));
        let inline = self.safe_types.show_inline(content_type);
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

    /// The answer to everything that names no file.
    pub fn not_found(&self) -> Answer {
        self.common.not_found()
    }

    /// The answer to a DELETE that is done.
    pub fn deleted(&self) -> Answer {
        self.common.answer(204).empty()
    }

    /// Whether a file's end has come, so that it must not be served, swept or not.
    pub fn is_expired(&self, path: &StorePath, now: Now) -> bool {
        expiry::hard_end(path.tag()).is_some_and(|end| end <= now.wall)
    }

    /// The answer of the local API. It is never cached, and nothing of it is for web clients.
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

    /// The local API's way to say no to what is not understood at all.
    pub fn refuse_locally(&self, refusal: &PutRefusal) -> Answer {
        self.local.refusal(refusal.status(), refusal)
    }

    /// The answer to an upload that is stored.
    pub fn created(&self, grant: &Grant) -> Answer {
        self.common
            .answer(201)
            .field(
                "Location",
                format!("{}{}", self.get_prefix, grant.location()),
            )
            .text(&"The file is stored.")
    }

    /// The answer that says no.
    pub fn refuse(&self, refusal: &PutRefusal) -> Answer {
        self.common.refusal(refusal.status(), refusal)
    }

    /// What a GET may mean.
    fn download_request(&self, request: &RequestHead, resource: Resource) -> Decision {
        let path = match resource {
            Resource::File(path) => Some(path),
            Resource::Root | Resource::NotFound => None,
        };
        let again = self.encoded_again(request).map(|(path, _)| path);
        let download_request = DownloadRequest {
            again: again.filter(|again| Some(again) != path.as_ref()),
            slot: self.share(request).map(|(slot, _)| slot),
            path,
        };
        if download_request == DownloadRequest::default() {
            return Decision::Answer(self.common.not_found());
        }
        Decision::Download(download_request)
    }

    /// The files that a URL of ours may stand for, in the order in which they are tried: the path of a slot's PUT or
    /// GET URL, whatever its query says. `None` when it is a URL of another service, or stands for no file.
    pub fn files_of_url(&self, url: &str) -> Option<DownloadRequest> {
        let url = url.split('#').next().unwrap_or_default();
        let (authority, target) = split_url(url)?;
        let ours = [&self.put_prefix, &self.get_prefix];
        let is_ours = |prefix: &&String| split_url(prefix).is_some_and(|own| own.0 == authority);
        if !ours.iter().any(is_ours) {
            return None;
        }
        // Whoever copied it from a browser or a message may have brought characters along that a request must encode.
        let target: String = percent_encoding::utf8_percent_encode(target, IN_A_TARGET).collect();
        let head = format!("GET {target} HTTP/1.1\r\nHost: upslot\r\n\r\n");
        let request = RequestHead::parse(head.as_bytes()).ok()?;
        let resource = self.prefixes.resource(request.path());
        match self.download_request(&request, resource) {
            Decision::Download(download_request) => Some(download_request),
            _ => None,
        }
    }

    /// Every check of a PUT that needs no look at the store.
    fn grant(
        &self,
        request: &RequestHead,
        resource: Resource,
        now: Now,
    ) -> Result<Grant, PutRefusal> {
        let grant = self.granted(request, resource, now)?;
        // A slot does not outlive its file.
        if self.is_expired(&grant.path, now) {
            return Err(PutRefusal::Denied(Denial::Expired));
        }
        // RFC 9110 §14.5: a partial PUT must not be taken for a whole one.
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
        // An external signature has approved the type that is stored, whatever the PUT calls it.
        let approved = grant.scheme == Scheme::External;
        if !approved && !mime::same_type(grant.content_type.as_deref(), put) {
            return Err(PutRefusal::TypeDiffers {
                slot: grant.content_type.unwrap_or_default(),
                put: String::from_utf8_lossy(put.unwrap_or_default()).into_owned(),
            });
        }
        Ok(grant)
    }

    /// Finds the scheme by which a PUT shows its right, and the right itself.
    fn granted(
        &self,
        request: &RequestHead,
        resource: Resource,
        now: Now,
    ) -> Result<Grant, PutRefusal> {
        let query = request.query().unwrap_or_default();
        let verify = |path: &StorePath, query: &[u8]| self.signer.verify(path, query, now.unix());
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
        if let (Some(external), Resource::File(path)) = (&self.external, &resource) {
            if External::recognises(query) {
                return externally_granted(external, request, path);
            }
        }
        let (Some(file_share), Some((slot, name))) = (&self.file_share, self.share(request)) else {
            return Err(PutRefusal::Denied(denial));
        };
        // One client library spells the field as it speaks.
        let authorization = request
            .field("authorization")
            .or_else(|| request.field("authorisation"))
            .ok_or(PutRefusal::NoToken)?;
        shared(file_share, authorization, slot, name, now)
    }

    /// The path and the query if the whole URL was percent-encoded once more on its way to the client, its `?`
    /// included. What comes of it has to be as sound as any other path, and as well signed.
    fn encoded_again(&self, request: &RequestHead) -> Option<(StorePath, Vec<u8>)> {
        let raw = request.path();
        // A slash that was encoded once is no separator, here or anywhere.
        let slash = |w: &[u8]| w.eq_ignore_ascii_case(b"%2f");
        if !raw.contains(&b'%') || raw.windows(3).any(slash) {
            return None;
        }
        let decode = |raw: &[u8]| -> Vec<u8> { percent_encoding::percent_decode(raw).collect() };
        let mut path = decode(request.path());
        let query = match (request.query(), path.iter().position(|b| *b == b'?')) {
            (Some(query), _) => decode(query),
            (None, Some(at)) => path.split_off(at).split_off(1),
            (None, None) => Vec::new(),
        };
        match self.prefixes.resource(&path) {
            Resource::File(path) => Some((path, query)),
            Resource::Root | Resource::NotFound => None,
        }
    }

    /// The slot and the file name in a URL of Prosody's file share. The name is cosmetic, so it may be anything.
    fn share(&self, request: &RequestHead) -> Option<(Vec<u8>, Vec<u8>)> {
        self.file_share.as_ref()?;
        let segments = self.prefixes.segments(request.path())?;
        let [slot, name] = &segments[..] else {
            return None;
        };
        (!slot.is_empty() && !name.is_empty()).then(|| (slot.to_vec(), name.to_vec()))
    }

    /// Whether a DELETE has the signature that Metronome gives it.
    fn may_delete(&self, request: &RequestHead, path: &StorePath) -> Result<(), Denial> {
        let (Some(external), Some(secret)) = (&self.external, &self.delete_secret) else {
            return Err(Denial::Unsigned);
        };
        let query = request.query().unwrap_or_default();
        external.verify_delete(path, query, secret.as_bytes())
    }
}

/// What a URL has between its scheme and its path, in lower case and without the scheme's own port, and the rest of
/// it. `aesgcm` is what clients make of `https` for files that they encrypt (XEP-0454).
fn split_url(url: &str) -> Option<(String, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let port = match &*scheme.to_ascii_lowercase() {
        "https" | "aesgcm" => ":443",
        "http" => ":80",
        _ => return None,
    };
    let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let authority = authority.to_ascii_lowercase();
    let authority = authority.strip_suffix(port).unwrap_or(&authority);
    let target = if target.starts_with('/') { target } else { "/" };
    Some((authority.to_owned(), target))
}

/// The type of a file: what was stored as such, if it can be sent, else what its name suggests.
fn effective_type<'a>(path: &StorePath, content_type: Option<&'a str>) -> &'a str {
    match content_type {
        Some(kept) if mime::is_valid(kept) => kept,
        _ => mime::by_extension(path.name()),
    }
}

/// The right of a PUT that another server signed.
fn externally_granted(
    external: &External,
    request: &RequestHead,
    path: &StorePath,
) -> Result<Grant, PutRefusal> {
    // The size is among what is signed, and nowhere else.
    let Framing::Length(size) = request.framing() else {
        return Err(PutRefusal::NoLength);
    };
    let query = request.query().unwrap_or_default();
    let guess = mime::by_extension(path.name());
    let content_type = external
        .verify(path, query, size, request.field("content-type"), guess)
        .map_err(PutRefusal::Denied)?;
    Ok(Grant {
        path: path.clone(),
        size,
        content_type: content_type.filter(|t| mime::is_valid(t)),
        total: 0,
        issued: Issued::Unknown,
        scheme: Scheme::External,
    })
}

/// The right of a PUT that brings the token of Prosody's file share. The file goes into its uploader's folder; the
/// slot and the file name in the URL are how it is asked for.
fn shared(
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
    // A token without an uploader names nobody's quota; its files are the slot's own.
    let owner = claims.sub.clone().or_else(|| BareJid::parse(&claims.slot));
    let tag = Tag {
        purpose: Purpose::Message,
        end: claims.expires.map_or(Expiry::Never, Expiry::At),
    };
    let kept = claims.filename.as_deref().filter(|kept| !kept.is_empty());
    let kept = name::clean(kept.unwrap_or("file"));
    let digest = layout::slot_digest(claims.slot.as_bytes());
    let path = owner
        .and_then(|owner| StorePath::for_slot(&owner, tag, &digest, &kept))
        .ok_or(PutRefusal::Token(JwtDenial::Malformed))?;
    Ok(Grant {
        path,
        size: claims.filesize,
        content_type: claims
            .filetype
            .filter(|t| mime::is_valid(t) && t != mime::UNKNOWN),
        total: 0,
        issued: Issued::At(claims.issued),
        scheme: Scheme::FileShare { slot, name },
    })
}

/// The limits of a configuration.
fn policy(config: &Config) -> Policy {
    let purposes = purposes();
    let limits = purposes.map(|purpose| config.purposes.limits(purpose).unwrap_or_default());
    Policy {
        whitelist: config.whitelist.clone(),
        rules: config.access.clone(),
        max_file_size: limits.map(|own| own.max_file_size.unwrap_or(config.max_file_size)),
        owner_quota: config.user_quota_hard,
        class_quotas: limits.map(|own| own.user_quota_hard),
        evict: config.evict_on_quota,
        global_quota: config.global_quota,
        min_free_space: config.min_free_space,
    }
}

/// How long files live by a configuration. Without an interval nothing goes by age, but for purposes that say so
/// themselves.
fn lifetime(config: &Config) -> Lifetime {
    let general = if config.expire_interval.is_zero() {
        Duration::ZERO
    } else {
        config.expire_maxage
    };
    let of = |purpose: Purpose, general: Duration| {
        let limits = config.purposes.limits(purpose).unwrap_or_default();
        limits.expire_maxage.unwrap_or(general)
    };
    let [message, profile, ephemeral, permanent] = purposes();
    Lifetime {
        message: of(message, general),
        profile: of(profile, Duration::ZERO),
        ephemeral: of(ephemeral, general),
        permanent: of(permanent, Duration::ZERO),
    }
}

/// One purpose of each kind, in the order of the kinds.
fn purposes() -> [Purpose; QUOTA_CLASSES] {
    [
        Purpose::Message,
        Purpose::Profile,
        Purpose::Ephemeral { expire_before: 0 },
        Purpose::Permanent,
    ]
}

/// What the tree is to tell of a new file.
fn tag(purpose: Purpose, limits: Option<&Limits>) -> Tag {
    let by_rule = limits.and_then(|limits| limits.expire_maxage);
    let end = match (purpose, by_rule) {
        (_, None) => Expiry::Default,
        (_, Some(age)) if !age.is_zero() => Expiry::Age(age.as_secs()),
        // Its own end stays.
        (Purpose::Ephemeral { .. }, _) => Expiry::Default,
        _ => Expiry::Never,
    };
    Tag { purpose, end }
}

/// What the store tells of a file that it opened.
#[derive(Clone, Copy, Debug)]
pub struct StoredFile<'a> {
    /// Bytes.
    pub size: u64,
    pub modified: SystemTime,
    /// When it was stored, by the clock as it is now.
    pub stored: SystemTime,
    pub content_type: Option<&'a str>,
    /// Whether [`Service::shows_charset`] holds and the bytes are UTF-8.
    pub utf8: bool,
}

#[cfg(test)]
mod tests;
