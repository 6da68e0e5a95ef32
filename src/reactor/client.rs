//! The driver of one HTTP connection: it does what the exchange wants, with the transport and the store.
//!
//! [`uploads`] has what concerns a body that is stored, [`removals`] a file that is to go, [`local`] the local API.

mod local;
mod removals;
mod uploads;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::http::exchange::{Ended, Exchange, RequestError, Want};
use crate::http::forwarded;
use crate::http::head::RequestHead;
use crate::layout::StorePath;
use crate::now::Now;
use crate::reactor::listener::Peer;
use crate::reactor::shared::Shared;
use crate::reactor::table::Key;
use crate::reactor::waiting::{Attempt, Lookup};
use crate::service::{Decision, DownloadRequest, PutRefusal, StoredFile};
use crate::store::Download;
use crate::syncer::Work;
use crate::sys;
use crate::transport::{Moved, Transport};

use removals::Removal;
use uploads::{Pending, UploadStage};

/// What one connection may use per turn; on an SD card this bounds a turn to tens of milliseconds.
const STEPS: usize = 16;
pub const BYTES: usize = 256 * 1024;

/// Up to this size a file is read and written with its head, which costs less than to send it by itself; bytes.
const SMALL_FILE: u64 = 32 * 1024;

/// Most bytes read at once while a request head is awaited.
const HEAD_READ: usize = 16 * 1024;

/// How long TLS may take to bring out the rest of what was written, at the end of a connection.
const CLOSING_TIME: Duration = Duration::from_secs(20);

/// What came of driving a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum DriveOutcome {
    /// An event, a result or a deadline will tell when to go on.
    Blocked,
    /// The turn's budget is used up.
    Again,
    /// It is over.
    Ended,
}

/// Why a client gets no service; known when it is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    Admitted,
    /// Too many connections: every request is answered with 503.
    Rejected,
}

/// Which listener a connection came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Public,
    /// The local API.
    LocalApi,
}

/// How a connection came in.
#[derive(Clone, Copy, Debug)]
pub struct AcceptedSocket {
    pub peer: Peer,
    pub endpoint: Endpoint,
    pub acceptance: Acceptance,
    /// What is counted for it in [`crate::reactor::connection_limits::AddressCounts`].
    pub counted: Option<IpAddr>,
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    key: Key,
    peer: Peer,
    transport: Transport,
    exchange: Exchange,
    upload: Option<Box<Pending>>,
    removal: Option<Box<Removal>>,
    /// Shared with the files that are asked for over and over.
    download: Option<Arc<OwnedFd>>,
    /// Bytes of the file that were sent.
    sent: u64,
    acceptance: Acceptance,
    endpoint: Endpoint,
    /// The client behind a trusted proxy, as of the present request.
    forwarded: Option<IpAddr>,
    /// What is counted in [`crate::reactor::connection_limits::AddressCounts`].
    counted: Option<IpAddr>,
    attempt: Attempt,
    /// Whether its PUT waits for the store to be looked at, or its DELETE for stable storage.
    waits: bool,
    /// When the TLS handshake must be over; later, when the end of the connection must be.
    until: Option<Instant>,
    closing: bool,
    why: Option<Box<str>>,
    /// Whether it is on the run queue.
    pub queued: bool,
    /// The earliest of its entries among the deadlines.
    pub armed: Option<Instant>,
}

/// What one step came to.
enum StepResult {
    Moved,
    Blocked,
}

impl Client {
    /// A connection that was just accepted.
    pub fn new(
        key: Key,
        accepted_socket: AcceptedSocket,
        transport: Transport,
        shared: &Shared,
        now: Now,
    ) -> Client {
        let mut timeouts = shared.service.timeouts();
        let AcceptedSocket {
            peer,
            endpoint,
            acceptance,
            counted,
        } = accepted_socket;
        if acceptance == Acceptance::Rejected {
            timeouts = timeouts.with_short_idle();
        }
        Client {
            key,
            peer,
            until: transport.is_tls().then(|| now.mono + timeouts.header()),
            transport,
            exchange: Exchange::new(timeouts, now.mono),
            upload: None,
            removal: None,
            download: None,
            sent: 0,
            acceptance,
            endpoint,
            forwarded: None,
            counted,
            attempt: Attempt::default(),
            waits: false,
            closing: false,
            why: None,
            queued: false,
            armed: None,
        }
    }

    pub fn transport(&mut self) -> &mut Transport {
        &mut self.transport
    }

    /// The moment at which [`Client::due`] must be called.
    pub fn deadline(&self) -> Option<Instant> {
        [self.exchange.deadline(), self.until]
            .into_iter()
            .flatten()
            .min()
    }

    /// Since when the client has owed a whole request head, so that it may be closed to make room. Who is only to be
    /// told that there is none leaves by itself.
    pub fn evictable_since(&self) -> Option<Instant> {
        match self.acceptance {
            Acceptance::Admitted => self.exchange.awaiting_request_since(),
            Acceptance::Rejected => None,
        }
    }

    /// It will be closed to make room.
    pub fn mark_evicted(&mut self) {
        self.why = Some("it made room for another".into());
    }

    /// Takes limits that changed.
    pub fn set_timeouts(&mut self, shared: &Shared) {
        self.exchange.set_timeouts(shared.service.timeouts());
    }

    /// Takes no further request. True when there is nothing to finish.
    pub fn disable_keep_alive(&mut self) -> bool {
        self.exchange.disable_keep_alive();
        self.is_awaiting_request()
    }

    /// Whether no whole request head has come.
    pub fn is_awaiting_request(&self) -> bool {
        self.exchange.is_awaiting_request()
    }

    /// Goes on as far as the budget and the socket let it.
    pub fn drive(&mut self, shared: &mut Shared, now: Now) -> DriveOutcome {
        let mut budget = BYTES;
        let outcome = self.drive_within(&mut budget, shared, now);
        shared.connections.moved += BYTES - budget;
        outcome
    }

    fn drive_within(&mut self, budget: &mut usize, shared: &mut Shared, now: Now) -> DriveOutcome {
        for _ in 0..STEPS {
            if self.exchange.want() == Want::Close {
                return self.close(shared, now);
            }
            match self.step(shared, now, budget) {
                Ok(StepResult::Moved) if *budget == 0 => return DriveOutcome::Again,
                Ok(StepResult::Moved) => {}
                Ok(StepResult::Blocked) => return DriveOutcome::Blocked,
                Err(error) => {
                    if self.download.is_some() && sys::is_disk_error(&error) {
                        shared.unreadable(&error, now);
                    }
                    self.why = Some(error.to_string().into());
                    return DriveOutcome::Ended;
                }
            }
        }
        DriveOutcome::Again
    }

    /// A deadline of it has come.
    pub fn due(&mut self, shared: &mut Shared, now: Now) -> DriveOutcome {
        let over = |until: Option<Instant>| until.is_some_and(|until| until <= now.mono);
        if over(self.until) {
            if self.closing {
                return DriveOutcome::Ended;
            }
            if !self.transport.is_established() {
                self.why = Some("the TLS handshake took too long".into());
                return DriveOutcome::Ended;
            }
            self.until = None;
        }
        if self.exchange.is_answering() && over(self.exchange.deadline()) {
            // The kernel announces room only when there is much of it; a slow reader may have made some.
            self.transport.assume_writable();
            match self.drive(shared, now) {
                DriveOutcome::Blocked => {}
                other => return other,
            }
        }
        self.exchange.deadline_passed(now.mono);
        self.drive(shared, now)
    }

    /// The store was looked at for the sake of its PUT.
    pub fn wake(&mut self, lookup: Lookup) {
        self.waits = false;
        self.attempt = self.attempt.after(lookup);
    }

    /// Gives back what it holds of shared things, before it is dropped.
    pub fn dispose(&mut self, shared: &mut Shared) {
        if let Some(pending) = &self.upload {
            log::info!(
                "upload aborted path={:?} from={}",
                pending.grant.path,
                self.from()
            );
            shared.status.metrics.upload_refused("aborted", 0);
        }
        self.end_upload(shared);
        self.end_download(shared);
        if self.transport.is_tls() {
            // close_notify, if there is room for it.
            let _ = self.transport.shut_write();
        }
        if let Some(group) = self.counted.take() {
            shared.connections.addresses.remove(group);
        }
    }

    /// Brings out the rest. Input that came meanwhile is taken out, for the kernel answers unread input with a reset
    /// that can overtake what was written.
    fn close(&mut self, shared: &mut Shared, now: Now) -> DriveOutcome {
        // All input was read, and nothing is left to be said; or who took nothing for so long has no more time for it.
        if let Some(Ended::ClientClosed | Ended::Stalled) = self.exchange.ended() {
            return DriveOutcome::Ended;
        }
        match self.transport.shut_write() {
            Ok(false) => {
                if !std::mem::replace(&mut self.closing, true) {
                    self.until = Some(now.mono + CLOSING_TIME);
                }
                DriveOutcome::Blocked
            }
            Ok(true) => {
                let _ = self.transport.discard_input(&mut shared.buffers.scratch);
                DriveOutcome::Ended
            }
            Err(_) => DriveOutcome::Ended,
        }
    }

    fn step(
        &mut self,
        shared: &mut Shared,
        now: Now,
        budget: &mut usize,
    ) -> io::Result<StepResult> {
        let want = self.exchange.want();
        if self.transport.is_tls() {
            let flushed = self.transport.flush()?;
            self.exchange
                .flushed(self.transport.take_flushed(), now.mono);
            let reads = matches!(
                want,
                Want::Head(_) | Want::Body(_) | Want::Discard(_) | Want::Decide
            );
            if !flushed && !reads {
                return Ok(StepResult::Blocked);
            }
        }
        match want {
            Want::Head(most) => {
                self.end_download(shared);
                self.leave_address(shared);
                let most = most.min(HEAD_READ);
                match self.transport.read(
                    &mut shared.buffers.scratch[..most],
                    &mut shared.buffers.wire,
                )? {
                    Moved::Bytes(n) => {
                        *budget = budget.saturating_sub(n);
                        self.exchange
                            .received(&shared.buffers.scratch[..n], now.mono);
                    }
                    Moved::End => self.exchange.peer_closed(),
                    Moved::NoBytes if self.transport.received_plain_http() => {
                        self.exchange.reject_plain_http();
                    }
                    Moved::NoBytes => {}
                    Moved::Blocked => return Ok(StepResult::Blocked),
                }
            }
            Want::Decide => {
                if self.waits {
                    return Ok(StepResult::Blocked);
                }
                self.until = None;
                return Ok(self.decide(shared, now));
            }
            Want::Body(most) => return self.move_in(most, shared, now, budget),
            Want::Publish => {
                let Some(pending) = &mut self.upload else {
                    return Err(io::Error::other("a body without an upload"));
                };
                if pending.stage != UploadStage::Receiving {
                    return Ok(StepResult::Blocked);
                }
                let content_type = pending.content_type.as_deref();
                let completed = shared.store.complete(&mut pending.upload, content_type);
                if let Err(error) = completed {
                    self.storage_failed("write", &error, shared, now);
                    return Ok(StepResult::Moved);
                }
                if shared.config.fsync {
                    pending.stage = UploadStage::SyncingFile;
                    let work = Work::File(pending.upload.file());
                    self.submit(work, shared, now);
                } else {
                    self.publish(shared, now);
                }
            }
            Want::Write => return self.write(shared, now, budget),
            Want::File { start, end } => {
                let Some(file) = &self.download else {
                    return Err(io::Error::other("an answer without its file"));
                };
                let most = usize::try_from(end - start)
                    .unwrap_or(usize::MAX)
                    .min(*budget);
                match self.transport.send_file(
                    file,
                    start,
                    most,
                    &mut shared.buffers.scratch,
                    &mut shared.buffers.wire,
                )? {
                    Moved::Bytes(0) => {
                        log::warn!("file cut short conn={} while it was sent", self.key);
                        self.exchange.file_failed();
                    }
                    Moved::Bytes(n) => {
                        *budget = budget.saturating_sub(n);
                        self.sent += n as u64;
                        self.exchange.sent_file(n as u64, now.mono);
                    }
                    _ => return Ok(StepResult::Blocked),
                }
            }
            Want::Discard(most) => {
                let most = most.min(shared.buffers.scratch.len());
                match self.transport.read(
                    &mut shared.buffers.scratch[..most],
                    &mut shared.buffers.wire,
                )? {
                    Moved::Bytes(n) => {
                        *budget = budget.saturating_sub(n);
                        self.exchange
                            .discard(&shared.buffers.scratch[..n], now.mono);
                    }
                    Moved::End => self.exchange.peer_closed(),
                    Moved::NoBytes => {}
                    Moved::Blocked => return Ok(StepResult::Blocked),
                }
            }
            Want::Linger => {
                if !self.transport.shut_write()? {
                    return Ok(StepResult::Blocked);
                }
                match self.transport.discard_input(&mut shared.buffers.scratch)? {
                    Moved::Bytes(n) => {
                        *budget = budget.saturating_sub(n);
                        self.exchange.lingered(n as u64, now.mono);
                    }
                    Moved::End => self.exchange.peer_closed(),
                    Moved::NoBytes => {}
                    Moved::Blocked => return Ok(StepResult::Blocked),
                }
            }
            Want::Close => {}
        }
        Ok(StepResult::Moved)
    }

    /// Writes the output; a small file that follows it goes along, in the same packets.
    fn write(
        &mut self,
        shared: &mut Shared,
        now: Now,
        budget: &mut usize,
    ) -> io::Result<StepResult> {
        let output = self.exchange.output();
        let small = match (&self.download, self.exchange.trailing_file_span()) {
            (Some(file), Some(span)) if span.end - span.start <= SMALL_FILE => {
                let end = output.len() + (span.end - span.start) as usize;
                // A file that was cut short is noticed where it is sent alone.
                let room = shared.buffers.scratch.get_mut(output.len()..end);
                let whole = |room: &mut [u8]| {
                    sys::read_at(file, room, span.start).map(|read| read == room.len())
                };
                room.map(whole).transpose()?.unwrap_or(false).then_some(end)
            }
            _ => None,
        };
        let moved = match small {
            Some(end) => {
                shared.buffers.scratch[..output.len()].copy_from_slice(output);
                self.transport.write(
                    &shared.buffers.scratch[..end],
                    false,
                    &mut shared.buffers.wire,
                )?
            }
            None => {
                let more = self.exchange.file_follows();
                self.transport
                    .write(output, more, &mut shared.buffers.wire)?
            }
        };
        let Moved::Bytes(n) = moved else {
            return Ok(StepResult::Blocked);
        };
        *budget = budget.saturating_sub(n);
        let written = n.min(output.len());
        let sent = (n - written) as u64;
        self.exchange.wrote(written, now.mono);
        if sent > 0 {
            self.sent += sent;
            self.exchange.sent_file(sent, now.mono);
        }
        Ok(StepResult::Moved)
    }

    fn decide(&mut self, shared: &mut Shared, now: Now) -> StepResult {
        let request = match self.exchange.request() {
            Some(Ok(request)) => request,
            Some(Err(fault)) => {
                let refusal = PutRefusal::RequestError(fault.clone());
                if matches!(fault, RequestError::Head(_) | RequestError::HeadTimeout) {
                    // A proxy speaks for somebody new in each request, and in this one for nobody knows whom.
                    self.forwarded = None;
                }
                self.refuse(&refusal, shared, now);
                return StepResult::Moved;
            }
            None => return StepResult::Moved,
        };
        if self.endpoint == Endpoint::LocalApi {
            return self.decide_locally(shared, now);
        }
        self.forwarded = self.proxied(request, shared);
        if !self.is_welcome(shared) {
            self.refuse(&PutRefusal::Busy, shared, now);
            return StepResult::Moved;
        }
        let Some(Ok(request)) = self.exchange.request() else {
            return StepResult::Moved;
        };
        log::debug!(
            "request conn={} from={} method={} path={}",
            self.key,
            self.from(),
            request.method_str().escape_debug(),
            request.path().escape_ascii()
        );
        let removals = shared.store.removals();
        let plain = request.is_plain_get();
        if plain {
            if let Some((file, answer)) = shared.open_files.get(request.path(), removals, now) {
                self.download = Some(file);
                self.exchange.answer(answer, now.mono);
                return StepResult::Moved;
            }
        }
        match shared.service.decide(request, now) {
            Decision::Answer(answer) => {
                if answer.status >= 400 {
                    log::debug!(
                        "request refused status={} from={}",
                        answer.status,
                        self.from()
                    );
                }
                self.exchange.answer(answer, now.mono);
            }
            Decision::Refuse(refusal) => self.refuse(&refusal, shared, now),
            Decision::Download(download_request) => match find(download_request, shared, now) {
                Ok(Some((path, file))) => {
                    let content_type = file.content_type.as_deref();
                    let found = StoredFile {
                        size: file.size,
                        modified: file.modified,
                        stored: shared.store.times().stored(file.modified),
                        content_type,
                        utf8: shared.service.shows_charset(&path, content_type)
                            && shared.store.is_utf8(&file),
                    };
                    let answer = shared.service.download(request, &path, &found, now);
                    let file = Arc::new(file.file);
                    if plain {
                        let path = request.path();
                        shared
                            .open_files
                            .record(path, &file, &answer, removals, now);
                    }
                    self.download = Some(file);
                    self.exchange.answer(answer, now.mono);
                }
                // It may be in the tree that has come in the place of ours.
                Ok(None) if shared.check_root(now) => {}
                Ok(None) => {
                    log::debug!("request refused status=404 from={}", self.from());
                    self.exchange.answer(shared.service.not_found(), now.mono);
                }
                Err(error) if sys::is_out_of_descriptors(&error) => {
                    shared.store_failed("open", &error, 0, now);
                    self.refuse(&PutRefusal::Busy, shared, now);
                }
                Err(error) => {
                    shared.unreadable(&error, now);
                    self.refuse(&PutRefusal::Storage { full: false }, shared, now);
                }
            },
            Decision::Delete(path) => self.delete(path, shared, now),
            Decision::Upload(grant) => {
                let content_type = shared.service.content_type(&grant, request);
                return self.begin(grant, content_type, shared, now);
            }
        }
        StepResult::Moved
    }

    /// Says no, in the protocol and in the log.
    fn refuse(&mut self, refusal: &PutRefusal, shared: &mut Shared, now: Now) {
        let uploading = self.upload.is_some();
        self.end_upload(shared);
        let put = uploading
            || matches!(self.exchange.request(), Some(Ok(request)) if request.method_str() == "PUT");
        let from = self.from().to_string();
        if let Some(suppressed) = shared.log_limits.refused_requests.allows(&from, now.mono) {
            log::info!(
                "{} refused status={} why={:?} from={from}{suppressed}",
                if put { "upload" } else { "request" },
                refusal.status(),
                refusal.to_string(),
            );
        }
        if put {
            shared
                .status
                .metrics
                .upload_refused(refusal.reason(), refusal.status());
        } else {
            shared
                .status
                .metrics
                .request_refused(refusal.reason(), refusal.status());
        }
        let mut answer = match self.endpoint {
            Endpoint::Public => shared.service.refuse(refusal),
            Endpoint::LocalApi => shared.service.refuse_locally(refusal),
        };
        let broken = matches!(refusal, PutRefusal::RequestError(_) | PutRefusal::Busy);
        if broken || uploading && !matches!(refusal, PutRefusal::Used) {
            answer = answer.closing();
        }
        self.exchange.answer(answer, now.mono);
    }

    /// Closes the file of an answer that is out: an idle connection holds none open.
    fn end_download(&mut self, shared: &mut Shared) {
        if self.download.take().is_some() {
            shared
                .status
                .metrics
                .downloaded(std::mem::take(&mut self.sent));
        }
    }

    /// The client's own address, where a trusted proxy tells it.
    fn proxied(&self, request: &RequestHead, shared: &Shared) -> Option<IpAddr> {
        let trusted = &shared.config.trusted_proxies;
        let by_proxy = match self.peer {
            Peer::Tcp(address) => forwarded::is_trusted(address.ip().to_canonical(), trusted),
            Peer::Unix => !trusted.is_empty(),
        };
        by_proxy
            .then(|| forwarded::client_address(request, trusted))
            .flatten()
    }

    /// Whether it may be served; counts clients behind a proxy by what the proxy says.
    fn is_welcome(&mut self, shared: &mut Shared) -> bool {
        if self.acceptance == Acceptance::Rejected {
            return false;
        }
        let most = shared.config.max_connections_per_address;
        let Some(address) = self.forwarded.filter(|_| most > 0) else {
            return true;
        };
        if let Some(before) = self.counted.take() {
            shared.connections.addresses.remove(before);
        }
        let (count, group) = shared.connections.addresses.add(address);
        self.counted = Some(group);
        count <= most
    }

    /// Between two requests a connection of a proxy is nobody's: whoever was behind it is not there any more.
    fn leave_address(&mut self, shared: &mut Shared) {
        if self.forwarded.take().is_some() {
            if let Some(group) = self.counted.take() {
                shared.connections.addresses.remove(group);
            }
        }
    }

    fn from(&self) -> From {
        From {
            forwarded: self.forwarded,
            peer: self.peer,
        }
    }
}

/// The file that a GET asks for, whichever of its meanings is there.
fn find(
    download_request: DownloadRequest,
    shared: &mut Shared,
    now: Now,
) -> io::Result<Option<(StorePath, Download)>> {
    let DownloadRequest { path, again, slot } = download_request;
    let by_slot = || slot.and_then(|slot| shared.store.alias(&slot));
    for path in path
        .into_iter()
        .chain(again)
        .chain(std::iter::once_with(by_slot).flatten())
    {
        if shared.service.is_expired(&path, now) {
            continue;
        }
        if let Some(file) = shared.store.download(&path)? {
            return Ok(Some((path, file)));
        }
    }
    Ok(None)
}

/// Who a client is, for the log.
struct From {
    forwarded: Option<IpAddr>,
    peer: Peer,
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.forwarded {
            Some(address) => write!(f, "{address}"),
            None => write!(f, "{}", self.peer),
        }
    }
}

impl fmt::Display for Client {
    /// For the log: who it was and why it is over.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "conn={} from={} why=\"", self.key, self.from())?;
        match (&self.why, self.exchange.ended()) {
            (Some(why), _) => write!(f, "{}", why.escape_debug())?,
            (None, Some(ended)) => write!(f, "{ended}")?,
            (None, None) => f.write_str("the process ends")?,
        }
        f.write_str("\"")
    }
}
