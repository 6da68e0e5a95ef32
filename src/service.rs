//! What the program decides: who gets a slot, which PUT is granted, what a GET is answered.
//!
//! Pure: it is told what the store knows, and the loop does what it says. Every front end comes through here, so
//! that one rule holds for all.

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::config::Config;
use crate::expiry::{self, Lifetime};
use crate::http::condition::{self, Verdict};
use crate::http::exchange::{Fault, Timeouts};
use crate::http::head::{Expect, Framing, Method, RequestHead};
use crate::http::mime::{self, Patterns};
use crate::http::response::{Answer, Common, FileFacts};
use crate::http::route::{Place, Prefixes};
use crate::jid::BareJid;
use crate::layout::{RANDOM, StorePath};
use crate::now::Now;
use crate::policy::{Policy, Room, Stored};
use crate::slot::grant::{Denial, Grant};
use crate::slot::own::Signer;
use crate::slot::{Refusal, Slot, SlotRequest, name};

/// Everything that decides, made from one configuration.
#[derive(Debug)]
pub struct Service {
    policy: Policy,
    signer: Signer,
    common: Common,
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
    /// Serve this file, or say that it is not there.
    Download(StorePath),
    /// Take the body, if there is room.
    Upload(Grant),
    /// Say no, and log why.
    Refuse(PutRefusal),
}

/// Why a PUT, or anything that is no mere look, is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutRefusal {
    Denied(Denial),
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
    Fault(Fault),
}

impl PutRefusal {
    /// The HTTP status (RFC 9110 §15.5, §15.6; 507 is RFC 4918 §11.5).
    pub fn status(&self) -> u16 {
        match self {
            PutRefusal::Denied(_) | PutRefusal::DownloadsElsewhere => 403,
            PutRefusal::Used => 409,
            PutRefusal::NoLength => 411,
            PutRefusal::TooLong { .. } => 413,
            PutRefusal::TooShort { .. } | PutRefusal::Partial => 400,
            PutRefusal::TypeDiffers { .. } => 415,
            PutRefusal::Expectation => 417,
            PutRefusal::Precondition => 412,
            PutRefusal::NoRoom(_) | PutRefusal::Storage { .. } => 507,
            PutRefusal::Method { known: true } => 405,
            PutRefusal::Method { known: false } => 501,
            PutRefusal::Busy => 503,
            PutRefusal::Fault(fault) => fault.status(),
        }
    }
}

impl fmt::Display for PutRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PutRefusal::Denied(denial) => denial.fmt(f),
            PutRefusal::Used => f.write_str("The upload slot is already used."),
            PutRefusal::NoLength => {
                f.write_str("A PUT needs a Content-Length or the chunked coding.")
            }
            PutRefusal::TooLong { size } => {
                write!(f, "The body has more than the {size} bytes of its slot.")
            }
            PutRefusal::TooShort { size } => {
                write!(f, "The body has less than the {size} bytes of its slot.")
            }
            PutRefusal::TypeDiffers { slot, put } => write!(
                f,
                "The slot is for the type {}, not {}.",
                slot.escape_debug(),
                put.escape_debug()
            ),
            PutRefusal::Expectation => {
                f.write_str("The only expectation that can be met is 100-continue.")
            }
            PutRefusal::Partial => f.write_str("A PUT with Content-Range cannot be taken."),
            PutRefusal::Precondition => f.write_str("The condition of the request does not hold."),
            PutRefusal::NoRoom(refusal) => refusal.fmt(f),
            PutRefusal::Storage { full: true } => f.write_str("The service's disk is full."),
            PutRefusal::Storage { full: false } => {
                f.write_str("The service cannot store files at the moment.")
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
            PutRefusal::Fault(fault) => fault.fmt(f),
        }
    }
}

impl Service {
    /// `secret` signs slots.
    pub fn new(config: &Config, secret: &[u8]) -> Service {
        let patterns = |words: &[String]| Patterns::parse(words).ok();
        Service {
            policy: Policy {
                whitelist: config.whitelist.clone(),
                max_file_size: config.max_file_size,
                owner_quota: config.user_quota_hard,
                evict: config.evict_on_quota,
                global_quota: config.global_quota,
                min_free_space: config.min_free_space,
            },
            signer: Signer::new(secret),
            common: Common::new(config.allow_web_clients, config.custom_headers.clone()),
            prefixes: Prefixes::new(&[
                config.put_url.decoded.as_bytes(),
                config.get_url.decoded.as_bytes(),
            ]),
            put_prefix: config.put_url.prefix.clone(),
            get_prefix: config.get_url.prefix.clone(),
            put_timeout: config.put_timeout,
            lifetime: Lifetime {
                max_age: if config.expire_interval.is_zero() {
                    Duration::ZERO
                } else {
                    config.expire_maxage
                },
            },
            // The configuration has checked the patterns.
            allowed_types: config.allowed_file_types.as_deref().and_then(patterns),
            safe_types: config
                .safe_file_types
                .as_deref()
                .and_then(patterns)
                .unwrap_or_else(Patterns::default_safe),
            serve_downloads: config.serve_downloads,
            timeouts: Timeouts {
                header: config.header_timeout,
                body: config.body_timeout,
                idle: config.idle_timeout,
            },
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

    /// Bytes of the largest file that this address may upload; what service discovery announces.
    pub fn max_file_size(&self, _asker: &BareJid) -> u64 {
        self.policy.max_file_size
    }

    /// Brings the answers' date up to the second.
    pub fn set_date(&mut self, now: Now) {
        self.common.set_date(now);
    }

    /// Whether an owner's stored bytes must be known before room can be judged.
    pub fn counts_owners(&self) -> bool {
        self.policy.counts_owners()
    }

    /// Judges of a slot request what needs no look at the store.
    pub fn judge(&self, request: &SlotRequest) -> Result<(), Refusal> {
        self.policy.judge(request)?;
        let allowed = self.allowed_types.as_ref().is_none_or(|allowed| {
            allowed.allow(request.content_type.as_deref().unwrap_or(mime::UNKNOWN))
        });
        if !allowed {
            return Err(Refusal::TypeNotAllowed {
                content_type: request
                    .content_type
                    .clone()
                    .unwrap_or_else(|| mime::UNKNOWN.to_owned()),
            });
        }
        Ok(())
    }

    /// Whether so many bytes more may be stored.
    pub fn room(&self, size: u64, stored: &Stored) -> Room {
        self.policy.room(size, stored)
    }

    /// When files that are `newest` or older will have been removed for their age.
    pub fn gone_by_age(&self, newest: SystemTime, interval: Duration) -> Option<SystemTime> {
        if self.lifetime.max_age.is_zero() {
            return None;
        }
        newest
            .checked_add(self.lifetime.max_age)?
            .checked_add(interval)
    }

    /// Hands out a slot; everything else has been judged.
    pub fn issue(
        &self,
        request: &SlotRequest,
        random: &[u8; RANDOM],
        now: Now,
    ) -> Result<Slot, Refusal> {
        let name = name::clean(&request.name);
        let path = StorePath::of_slot(&request.owner, request.purpose, random, &name)
            .ok_or_else(|| Refusal::Malformed("The file name cannot be stored.".to_owned()))?;
        // A type that cannot be sent back is not worth binding the PUT to.
        let content_type = request
            .content_type
            .as_deref()
            .filter(|t| mime::is_valid(t));
        let until = now.unix().saturating_add(self.put_timeout.as_secs());
        let query = self.signer.query(&path, request.size, content_type, until);
        let encoded = path.encoded();
        Ok(Slot {
            put: format!("{}{encoded}{query}", self.put_prefix),
            get: format!("{}{encoded}", self.get_prefix),
        })
    }

    /// Decides on a request as far as it can be without a look at the store.
    pub fn decide(&self, request: &RequestHead, now: Now) -> Decision {
        let place = self.prefixes.place(request.path());
        let read_only = matches!(request.method(), Method::Get | Method::Head);
        if request.expect() == Expect::Other {
            return Decision::Refuse(PutRefusal::Expectation);
        }
        match (request.method(), place) {
            (Method::Options, _) => Decision::Answer(self.common.options()),
            (Method::Get | Method::Head, Place::Root) => Decision::Answer(
                self.common
                    .answer(200)
                    .text(&"upslot stores and serves files that are shared over XMPP (XEP-0363)."),
            ),
            _ if read_only && !self.serve_downloads => {
                Decision::Refuse(PutRefusal::DownloadsElsewhere)
            }
            (Method::Get | Method::Head, Place::File(path)) => {
                let over = expiry::hard_end(path.purpose()).is_some_and(|end| end <= now.wall);
                if over {
                    Decision::Answer(self.common.not_found())
                } else {
                    Decision::Download(path)
                }
            }
            (Method::Get | Method::Head, Place::Nothing) => {
                Decision::Answer(self.common.not_found())
            }
            (Method::Put, Place::File(path)) => match self.grant(request, &path, now) {
                Ok(grant) => Decision::Upload(grant),
                Err(refusal) => Decision::Refuse(refusal),
            },
            (Method::Put, Place::Root | Place::Nothing) => {
                Decision::Refuse(PutRefusal::Denied(Denial::Unsigned))
            }
            (Method::Known, _) => Decision::Refuse(PutRefusal::Method { known: true }),
            (Method::Unknown, _) => Decision::Refuse(PutRefusal::Method { known: false }),
        }
    }

    /// What is stored as a file's type: the slot's, else the PUT's, if it says something.
    pub fn content_type(&self, grant: &Grant, request: &RequestHead) -> Option<String> {
        grant.content_type.clone().or_else(|| {
            let put = std::str::from_utf8(request.field("content-type")?).ok()?;
            let telling = mime::is_valid(put) && mime::essence(put) != mime::UNKNOWN;
            telling.then(|| put.to_owned())
        })
    }

    /// The answer to GET and HEAD of a file that is open.
    pub fn download(
        &self,
        request: &RequestHead,
        path: &StorePath,
        file: &Found<'_>,
        now: Now,
    ) -> Answer {
        let content_type = match file.content_type {
            Some(kept) if mime::is_valid(kept) => kept,
            _ => mime::by_extension(path.name()),
        };
        let facts = FileFacts {
            name: path.name(),
            size: file.size,
            modified: file.modified,
            content_type,
            inline: self.safe_types.show_inline(content_type),
            end: self.lifetime.end(path.purpose(), file.modified),
        };
        self.common.file(request, &facts, now)
    }

    /// The answer to everything that names no file.
    pub fn not_found(&self) -> Answer {
        self.common.not_found()
    }

    /// The answer to an upload that is stored.
    pub fn created(&self, path: &StorePath) -> Answer {
        self.common
            .answer(201)
            .field("Location", format!("{}{}", self.get_prefix, path.encoded()))
            .text(&"The file is stored.")
    }

    /// The answer that says no.
    pub fn refuse(&self, refusal: &PutRefusal) -> Answer {
        self.common.refusal(refusal.status(), refusal)
    }

    /// Every check of a PUT that needs no look at the store.
    fn grant(
        &self,
        request: &RequestHead,
        path: &StorePath,
        now: Now,
    ) -> Result<Grant, PutRefusal> {
        let query = request.query().unwrap_or_default();
        let grant = self
            .signer
            .verify(path, query, now.unix())
            .map_err(PutRefusal::Denied)?;
        // RFC 9110 §14.5: a partial PUT must not be taken for a whole one.
        if request.field("content-range").is_some() {
            return Err(PutRefusal::Partial);
        }
        if condition::evaluate(request, None) != Verdict::Proceed {
            return Err(PutRefusal::Precondition);
        }
        let size = grant.size;
        match request.framing() {
            Framing::None => return Err(PutRefusal::NoLength),
            Framing::Length(length) if length > size => return Err(PutRefusal::TooLong { size }),
            Framing::Length(length) if length < size => return Err(PutRefusal::TooShort { size }),
            Framing::Length(_) | Framing::Chunked => {}
        }
        let put = request.field("content-type");
        if !mime::same_type(grant.content_type.as_deref(), put) {
            return Err(PutRefusal::TypeDiffers {
                slot: grant.content_type.unwrap_or_default(),
                put: String::from_utf8_lossy(put.unwrap_or_default()).into_owned(),
            });
        }
        Ok(grant)
    }
}

/// What the store tells of a file that it opened.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// Bytes.
    pub size: u64,
    pub modified: SystemTime,
    pub content_type: Option<&'a str>,
}

#[cfg(test)]
mod tests;
