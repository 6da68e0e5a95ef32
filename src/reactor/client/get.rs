//! Downloads: opening the file that a GET names, and sending it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::http::head::RequestHead;
use crate::http::response::Answer;
use crate::layout::StorePath;
use crate::now::Now;
use crate::reactor::client::{Activity, Client, StepResult};
use crate::reactor::open_files::OpenFile;
use crate::reactor::shared::Shared;
use crate::service::{DownloadRequest, PutRefusal, StoredFile};
use crate::store::Download;
use crate::sys;
use crate::transport::Moved;

/// Up to this size in bytes a file is written together with its response head, which costs less than `sendfile`. Over
/// TLS, for which there is no `sendfile`, the start of any file is.
const SMALL_FILE: u64 = 32 * 1024;

/// A file that is being sent.
#[derive(Debug)]
pub(super) struct Get {
    /// Also in the cache of open files, if it is requested often.
    file: Arc<OwnedFd>,
    /// Bytes of the file that were sent.
    sent: u64,
}

/// The result of opening the file of a GET.
pub(super) enum OpenOutcome {
    File(Arc<OwnedFd>, Answer),
    NotFound,
    /// `storage_path` was replaced meanwhile: decide again.
    Replaced,
    Refused(PutRefusal),
}

impl Get {
    /// Closes the file, because an idle connection keeps none open.
    pub(super) fn end(self, shared: &mut Shared) {
        shared.status.metrics.downloaded(self.sent);
    }
}

/// The file that a GET or HEAD names, and the response, if the file is in the cache.
pub(super) fn from_cache(
    request: &RequestHead,
    shared: &mut Shared,
    now: Now,
) -> Option<(Arc<OwnedFd>, Answer)> {
    if !request.names_file_by_path() {
        return None;
    }
    let removals = shared.storage.removals();
    let cached = shared.open_files.get(request.path(), removals, now)?;
    let build = |found: &OpenFile| {
        let OpenFile { path, facts, .. } = found;
        shared.service.download(request, path, facts, now)
    };
    let answer = match request.is_plain_get() {
        true => cached
            .answer
            .get_or_insert_with(|| build(&cached.open))
            .copy(),
        false => build(&cached.open),
    };
    Some((Arc::clone(&cached.open.file), answer))
}

/// Opens the file that a GET or HEAD names, and builds the response.
pub(super) fn open(
    download: DownloadRequest,
    request: &RequestHead,
    shared: &mut Shared,
    now: Now,
) -> OpenOutcome {
    let removals = shared.storage.removals();
    match find(download, shared, now) {
        Ok(Some((path, file))) => {
            let store = shared.storage.folder();
            let content_type = file.content_type.as_deref();
            let utf8 = shared.service.shows_charset(&path, content_type)
                && store.is_some_and(|store| store.is_utf8(&file));
            let modified = file.modified;
            let facts = StoredFile {
                size: file.size,
                modified,
                stored: store.map_or(modified, |store| store.times().stored(modified)),
                content_type: file.content_type,
                utf8,
            };
            let answer = shared.service.download(request, &path, &facts, now);
            let file = Arc::new(file.file);
            if request.names_file_by_path() {
                let open = OpenFile {
                    file: Arc::clone(&file),
                    path,
                    facts,
                };
                let files = &mut shared.open_files;
                files.record(request.path(), open, removals, now);
            }
            OpenOutcome::File(file, answer)
        }
        Ok(None) if shared.check_root(now) => OpenOutcome::Replaced,
        Ok(None) => OpenOutcome::NotFound,
        Err(error) if sys::is_out_of_descriptors(&error) => {
            shared.store_failed("open", &error, 0, now);
            OpenOutcome::Refused(PutRefusal::Busy)
        }
        Err(error) => {
            shared.unreadable(&error, now);
            OpenOutcome::Refused(PutRefusal::Storage { full: false })
        }
    }
}

/// Opens the first file that exists among the candidates.
fn find(
    download: DownloadRequest,
    shared: &mut Shared,
    now: Now,
) -> io::Result<Option<(StorePath, Download)>> {
    let store = shared.storage.require_folder()?;
    let DownloadRequest { path, again, slot } = download;
    // The first candidate, unless it is found.
    let mut requested = None;
    let open = |path: &StorePath| match shared.service.is_expired(path, now) {
        true => Ok(None),
        false => store.download(path),
    };
    for path in path.into_iter().chain(again) {
        match open(&path)? {
            Some(file) => return Ok(Some((path, file))),
            None => requested = requested.or(Some(path)),
        }
    }
    let by_slot = || slot.and_then(|slot| store.alias(&slot));
    let by_old_link = || store.old_link_of(requested?.as_bytes());
    for path in std::iter::once_with(by_slot)
        .chain(std::iter::once_with(by_old_link))
        .flatten()
    {
        if let Some(file) = open(&path)? {
            return Ok(Some((path, file)));
        }
    }
    Ok(None)
}

impl Client {
    /// Starts to send a file.
    pub(super) fn begin_download(&mut self, file: Arc<OwnedFd>, answer: Answer, now: Now) {
        self.activity = Activity::Get(Get { file, sent: 0 });
        self.exchange.answer(answer, now.mono);
    }

    /// Sends a part of the file.
    pub(super) fn send_file(
        &mut self,
        start: u64,
        end: u64,
        shared: &mut Shared,
        now: Now,
        budget: &mut usize,
    ) -> io::Result<StepResult> {
        let Activity::Get(get) = &mut self.activity else {
            return Err(io::Error::other("a response without its file"));
        };
        let most = usize::try_from(end - start)
            .unwrap_or(usize::MAX)
            .min(*budget);
        let buffers = &mut shared.buffers;
        let (scratch, wire) = (&mut buffers.scratch, &mut buffers.wire);
        match self
            .transport
            .send_file(&get.file, start, most, scratch, wire)?
        {
            Moved::Bytes(0) => {
                log::warn!("file cut short conn={} while it was sent", self.key);
                self.exchange.file_failed();
            }
            Moved::Bytes(n) => {
                *budget = budget.saturating_sub(n);
                get.sent += n as u64;
                self.exchange.sent_file(n as u64, now.mono);
            }
            Moved::End | Moved::NoBytes | Moved::Blocked => return Ok(StepResult::Blocked),
        }
        Ok(StepResult::Moved)
    }

    /// Writes the output of the exchange. A file that follows is written with it, in the same packets, as far as that
    /// costs less.
    pub(super) fn write(
        &mut self,
        shared: &mut Shared,
        now: Now,
        budget: &mut usize,
    ) -> io::Result<StepResult> {
        #[cfg(feature = "s3")]
        if let (Activity::ObjectGet(_), Some(span)) =
            (&self.activity, self.exchange.trailing_file_span())
        {
            return self.relay_object(span.start, span.end, shared, now, budget);
        }
        let output = self.exchange.output();
        let small = match (&self.activity, self.exchange.trailing_file_span()) {
            (Activity::Get(get), Some(span))
                if self.transport.is_tls() || span.end - span.start <= SMALL_FILE =>
            {
                let end = (output.len() as u64).saturating_add(span.end - span.start);
                let end = end.min(shared.buffers.scratch.len() as u64) as usize;
                // A truncated file is sent by `send_file`, which handles that.
                let room = shared.buffers.scratch.get_mut(output.len()..end);
                let is_whole = |room: &mut [u8]| {
                    sys::read_at(&get.file, room, span.start).map(|read| read == room.len())
                };
                room.map(is_whole)
                    .transpose()?
                    .unwrap_or(false)
                    .then_some(end)
            }
            _ => None,
        };
        let buffers = &mut shared.buffers;
        let moved = match small {
            Some(end) => {
                buffers.scratch[..output.len()].copy_from_slice(output);
                self.transport
                    .write(&buffers.scratch[..end], false, &mut buffers.wire)?
            }
            None => {
                let more = self.exchange.file_follows();
                self.transport.write(output, more, &mut buffers.wire)?
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
            if let Activity::Get(get) = &mut self.activity {
                get.sent += sent;
            }
            self.exchange.sent_file(sent, now.mono);
        }
        Ok(StepResult::Moved)
    }
}
