//! Downloads from an object store: finding the object, and the response or redirection.
//!
//! ```text
//!   LookingUp ── facts ──▶ redirected, or a response without a body
//!    ▲ │  ▲ │
//!    │ │  └─┘ 404: the next candidate
//!    │ ▼
//!   Opening ── head of the object ──▶ Relaying (see `object_relay`)
//! ```
//!
//! A candidate is looked up by HEAD, unless its facts are cached. If the object is relayed, a GET follows for the first
//! range that the response needs; a plain GET needs no HEAD. The client is answered when the store has begun to send the
//! object that was looked up, so that everything that can go wrong before has its own response. If it sends another
//! object, because the cached facts are out of date, the lookup begins again.
//!
//! A connection that waits for the store is not driven until the store has answered. All deadlines are those of the
//! driver of the store.

use std::collections::VecDeque;
use std::ops::Range;

use crate::config::GetMode;
use crate::http::client::Response;
use crate::http::head::Method;
use crate::http::response::Answer;
use crate::layout::StorePath;
use crate::now::Now;
use crate::reactor::bucket_store::BucketStore;
use crate::reactor::client::object_relay::Relay;
use crate::reactor::client::{Activity, Client, StepResult};
use crate::reactor::object_facts::ObjectHead;
use crate::reactor::shared::Shared;
use crate::reactor::upstream::{RequestClass, StreamId, UpstreamToken};
use crate::s3::error::{FailureKind, StoreFailure};
use crate::service::{DownloadRequest, PutRefusal, StoredFile};
use crate::transport::Moved;

/// How often a lookup begins again.
const MAX_REPETITIONS: u8 = 2;

/// Most bytes of an error document that are read.
const ERROR_DOCUMENT: usize = 4096;

/// A download in progress.
#[derive(Debug)]
pub(super) enum ObjectGet {
    /// Waits for the response to a small request.
    LookingUp(ObjectSearch),
    /// Waits for the beginning of the object.
    Opening(Opening),
    /// The response is sent.
    Relaying(Relay),
}

/// The search for the object that a request names.
#[derive(Debug)]
pub(super) struct ObjectSearch {
    /// The path whose object was asked for; `None` for an alias.
    asked: Option<StorePath>,
    rest: VecDeque<Candidate>,
    /// The number of the last request.
    part: u8,
    repetitions: u8,
}

/// Where the object may be.
#[derive(Debug)]
enum Candidate {
    Path(StorePath),
    /// Under the path in the alias of this slot.
    Alias(Vec<u8>),
}

/// A GET that was sent to the store, and what is expected of its response.
#[derive(Debug)]
pub(super) struct Opening {
    search: ObjectSearch,
    path: StorePath,
    stream: StreamId,
    /// `None` if anything is welcome.
    expected: Option<Expected>,
    /// The beginning of an error document, which tells what a status of an error means.
    document: Vec<u8>,
}

/// The object that was looked up, and the response for it.
#[derive(Debug)]
struct Expected {
    facts: StoredFile,
    span: Range<u64>,
    answer: Answer,
}

/// What the beginning of a response means.
enum Opened {
    Object(ObjectHead),
    /// There is no such object any more.
    Nothing,
    /// It is another object than was looked up.
    Changed,
    Failed(StoreFailure),
}

impl ObjectSearch {
    fn new(download: DownloadRequest) -> ObjectSearch {
        let DownloadRequest { path, again, slot } = download;
        let paths = path.into_iter().chain(again).map(Candidate::Path);
        ObjectSearch {
            asked: None,
            rest: paths.chain(slot.map(Candidate::Alias)).collect(),
            part: 0,
            repetitions: 0,
        }
    }
}

impl ObjectGet {
    /// Whether it waits for the response to a small request.
    pub(super) fn is_looking_up(&self) -> bool {
        matches!(self, ObjectGet::LookingUp(_))
    }

    /// Whether it waits for the beginning of the object.
    pub(super) fn is_opening(&self) -> bool {
        matches!(self, ObjectGet::Opening(_))
    }

    /// The object that is being sent.
    pub(super) fn relay(&mut self) -> Option<&mut Relay> {
        match self {
            ObjectGet::Relaying(relay) => Some(relay),
            ObjectGet::LookingUp(_) | ObjectGet::Opening(_) => None,
        }
    }

    /// Ends it in any state.
    pub(super) fn end(self, shared: &mut Shared) {
        match self {
            ObjectGet::LookingUp(_) => {}
            ObjectGet::Opening(opening) => shared.end_stream(opening.stream),
            ObjectGet::Relaying(relay) => relay.end(shared),
        }
    }
}

impl Client {
    /// Looks up the object that a GET or HEAD names.
    pub(super) fn get_object(&mut self, download: DownloadRequest, shared: &mut Shared, now: Now) {
        self.look_up(ObjectSearch::new(download), shared, now);
    }

    /// Looks up the next candidate.
    fn look_up(&mut self, mut search: ObjectSearch, shared: &mut Shared, now: Now) {
        while let Some(candidate) = search.rest.pop_front() {
            let bucket = shared.service.bucket();
            let (key, path) = match candidate {
                Candidate::Path(path) if shared.service.is_expired(&path, now) => continue,
                Candidate::Path(path) if self.may_open_at_once(&search, shared) => {
                    match shared.begin_get(&path, None, self.key, now) {
                        Some(stream) => return self.await_object(search, path, stream, None),
                        None => continue,
                    }
                }
                Candidate::Path(path) => (bucket.and_then(|b| b.key(&path)), Some(path)),
                Candidate::Alias(slot) => (bucket.and_then(|b| b.alias_key(&slot)), None),
            };
            let Some(key) = key else {
                continue;
            };
            search.asked = match path {
                Some(path) => match shared.known_facts(&path, now) {
                    Some(facts) => return self.found(search, path, facts, shared, now),
                    None => Some(path),
                },
                None => None,
            };
            search.part = search.part.wrapping_add(1);
            let Shared {
                service, storage, ..
            } = shared;
            if let (Some(bucket), Some(store)) = (service.bucket(), storage.bucket_mut()) {
                let request = match &search.asked {
                    Some(_) => bucket.head(&key, now),
                    None => bucket.get(&key, None, now),
                };
                let token = UpstreamToken::Client(self.key, search.part);
                let upstream = &mut store.upstream;
                upstream.submit(request, RequestClass::User, token, now);
            }
            self.set_object_get(ObjectGet::LookingUp(search));
            return;
        }
        self.log_refused(404);
        self.exchange.answer(shared.service.not_found(), now.mono);
    }

    /// Whether the response needs the whole object if there is one. After a failure small requests come first, because
    /// they are repeated with delays.
    fn may_open_at_once(&self, search: &ObjectSearch, shared: &Shared) -> bool {
        shared.service.get_mode() == Some(GetMode::Relay)
            && search.repetitions == 0
            && matches!(self.exchange.request(), Some(Ok(request)) if request.is_plain_get())
    }

    /// The store has answered a request of a download.
    pub(super) fn object_get_answered(
        &mut self,
        get: ObjectGet,
        part: u8,
        result: Result<Response, StoreFailure>,
        shared: &mut Shared,
        now: Now,
    ) {
        let mut search = match get {
            ObjectGet::LookingUp(search) if search.part == part => search,
            // The answer to an earlier request.
            other => return self.set_object_get(other),
        };
        let response = match result {
            Ok(response) => response,
            Err(failure) => return self.store_unavailable(&failure, shared, now),
        };
        let Response { status, body, .. } = &response;
        match (*status, search.asked.take()) {
            (200, Some(path)) => match ObjectHead::of(&response) {
                Some(head) => {
                    let facts = head.facts;
                    shared.record_facts(&path, &facts, now);
                    self.found(search, path, facts, shared, now);
                }
                None => self.store_unavailable(&incomplete(*status), shared, now),
            },
            (200, None) => {
                let path = StorePath::from_segments(body.split(|b| *b == b'/'));
                search.rest.extend(path.map(Candidate::Path));
                self.look_up(search, shared, now);
            }
            _ => {
                let failure = StoreFailure::of(*status, &response.fields, body, now.wall);
                match failure.kind {
                    FailureKind::NotFound => self.look_up(search, shared, now),
                    _ => self.store_unavailable(&failure, shared, now),
                }
            }
        }
    }

    /// The object exists: answers, or asks for the first range that the response needs.
    fn found(
        &mut self,
        search: ObjectSearch,
        path: StorePath,
        facts: StoredFile,
        shared: &mut Shared,
        now: Now,
    ) {
        let Some(Ok(request)) = self.exchange.request() else {
            return;
        };
        let service = &shared.service;
        if service.get_mode() != Some(GetMode::Relay) {
            let answer = service.redirect(request, &path, &facts, now);
            shared.status.metrics.downloaded(0);
            return self.exchange.answer(answer, now.mono);
        }
        let answer = service.download(request, &path, &facts, now);
        match answer.first_span() {
            Some(span) if request.method() == Method::Get => {
                let expected = Expected {
                    span: span.clone(),
                    facts,
                    answer,
                };
                self.open(search, path, expected, shared, now);
            }
            _ => {
                shared.status.metrics.downloaded(0);
                self.exchange.answer(answer, now.mono);
            }
        }
    }

    /// Asks for the part of an object that the response needs.
    fn open(
        &mut self,
        search: ObjectSearch,
        path: StorePath,
        expected: Expected,
        shared: &mut Shared,
        now: Now,
    ) {
        let range = Some((&expected.span, expected.facts.size));
        match shared.begin_get(&path, range, self.key, now) {
            Some(stream) => self.await_object(search, path, stream, Some(expected)),
            None => self.exchange.answer(shared.service.not_found(), now.mono),
        }
    }

    fn await_object(
        &mut self,
        search: ObjectSearch,
        path: StorePath,
        stream: StreamId,
        expected: Option<Expected>,
    ) {
        self.set_object_get(ObjectGet::Opening(Opening {
            search,
            path,
            stream,
            expected,
            document: Vec::new(),
        }));
    }

    /// Answers if the store has begun to send the object.
    pub(super) fn continue_opening(&mut self, shared: &mut Shared, now: Now) -> StepResult {
        let opened = match &mut self.activity {
            Activity::ObjectGet(get) => match &mut **get {
                ObjectGet::Opening(opening) => shared.opened(opening, now),
                _ => None,
            },
            _ => None,
        };
        let Some(opened) = opened else {
            return StepResult::Blocked;
        };
        let opening = match std::mem::take(&mut self.activity) {
            Activity::ObjectGet(get) => match *get {
                ObjectGet::Opening(opening) => opening,
                _ => return StepResult::Blocked,
            },
            _ => return StepResult::Blocked,
        };
        if let Opened::Object(head) = opened {
            self.begin_relay(opening, head, shared, now);
            return StepResult::Moved;
        }
        let Opening {
            mut search,
            path,
            stream,
            ..
        } = opening;
        shared.end_stream(stream);
        shared.forget_object(&path);
        let failure = match opened {
            Opened::Object(_) => return StepResult::Moved,
            Opened::Nothing => {
                self.look_up(search, shared, now);
                return StepResult::Moved;
            }
            Opened::Changed => incomplete(200),
            Opened::Failed(failure) => failure,
        };
        let is_final = failure.kind != FailureKind::Malformed && !failure.is_retryable();
        if is_final || search.repetitions >= MAX_REPETITIONS {
            self.store_unavailable(&failure, shared, now);
        } else {
            search.repetitions += 1;
            search.rest.push_front(Candidate::Path(path));
            self.look_up(search, shared, now);
        }
        StepResult::Moved
    }

    /// Answers with the object that the store has begun to send.
    fn begin_relay(&mut self, opening: Opening, head: ObjectHead, shared: &mut Shared, now: Now) {
        let Some(Ok(request)) = self.exchange.request() else {
            return shared.end_stream(opening.stream);
        };
        let Opening {
            path,
            stream,
            expected,
            ..
        } = opening;
        let answer = match expected {
            Some(expected) => expected.answer,
            None => {
                shared.record_facts(&path, &head.facts, now);
                shared.service.download(request, &path, &head.facts, now)
            }
        };
        self.set_object_get(ObjectGet::Relaying(Relay::new(
            self.key, path, stream, head,
        )));
        self.exchange.answer(answer, now.mono);
    }

    fn set_object_get(&mut self, get: ObjectGet) {
        self.activity = Activity::ObjectGet(Box::new(get));
    }

    /// Refuses a request because of a failure of the store.
    pub(super) fn store_unavailable(
        &mut self,
        failure: &StoreFailure,
        shared: &mut Shared,
        now: Now,
    ) {
        shared.object_store_failed(failure, now);
        self.refuse(&PutRefusal::ObjectStore, shared, now);
    }
}

impl Shared {
    /// What the store has begun to send; `None` if it has not.
    fn opened(&mut self, opening: &mut Opening, now: Now) -> Option<Opened> {
        let BucketStore {
            upstream, facts, ..
        } = self.storage.bucket_mut()?;
        let response = match upstream.head(opening.stream)? {
            Ok(response) => response,
            Err(failure) => return Some(Opened::Failed(failure)),
        };
        let head = ObjectHead::of(response);
        let status = response.status;
        Some(match (status, head, &opening.expected) {
            (200, Some(head), None) => match facts.get(&opening.path, now.mono) {
                Some(known) if !head.is_part_of(known, None, &(0..known.size)) => Opened::Changed,
                _ => Opened::Object(head),
            },
            (200 | 206, Some(head), Some(expected))
                if head.is_part_of(&expected.facts, None, &expected.span) =>
            {
                Opened::Object(head)
            }
            (200, Some(head), Some(expected)) if head.facts.size == expected.facts.size => {
                let why = "the store does not support ranges";
                Opened::Failed(StoreFailure::malformed(status, why))
            }
            (200 | 206, Some(_), _) | (416, ..) => Opened::Changed,
            (200 | 206, None, _) => Opened::Failed(incomplete(status)),
            _ => {
                let document = &mut opening.document;
                let mut piece = [0; ERROR_DOCUMENT];
                while document.len() < ERROR_DOCUMENT {
                    let room = &mut piece[document.len()..];
                    match upstream.read_body(opening.stream, room) {
                        Ok(Moved::Bytes(n)) => document.extend_from_slice(&room[..n]),
                        Ok(Moved::Blocked | Moved::NoBytes) => return None,
                        Ok(Moved::End) | Err(_) => break,
                    }
                }
                let failure = match upstream.head(opening.stream)? {
                    Ok(Response { fields, .. }) => {
                        StoreFailure::of(status, fields, document, now.wall)
                    }
                    Err(failure) => failure,
                };
                match failure.kind {
                    FailureKind::NotFound => Opened::Nothing,
                    _ => Opened::Failed(failure),
                }
            }
        })
    }
}

/// The response lacks what every store sends, or is about another object than the one before.
fn incomplete(status: u16) -> StoreFailure {
    StoreFailure::malformed(
        status,
        "the size or the time of an object is missing or unsteady",
    )
}
