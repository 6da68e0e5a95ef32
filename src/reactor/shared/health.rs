//! Failures of the store, and the health and metrics that the local API exposes.

use std::io;

use crate::http::api::{Health, StoreStatus};
#[cfg(feature = "s3")]
use crate::http::client::Response;
use crate::layout::StorePath;
#[cfg(feature = "s3")]
use crate::metrics::ObjectStoreGauges;
use crate::metrics::{Gauges, StoreGauges};
use crate::now::{Now, unix};
use crate::reactor::shared::Shared;
use crate::reactor::storage::Storage;
#[cfg(feature = "s3")]
use crate::reactor::store_monitor::{PROBE, StoreProbe};
#[cfg(feature = "s3")]
use crate::reactor::upstream::{RequestClass, StoreChange, Upstream, UpstreamToken};
#[cfg(feature = "s3")]
use crate::s3::error::{FailureKind, StoreFailure};
use crate::sys::{self, FileKind};

/// What a probe of an object store lists: at most one object.
#[cfg(feature = "s3")]
const PROBED: &str = ".upslot/probe";

impl Shared {
    /// Whether a file of this size cannot be stored: a file of that size or a smaller one did not fit recently, or the
    /// file system is almost out of inodes.
    pub fn lacks_room(&mut self, size: u64, now: Now) -> bool {
        if let Some((free, least)) = self.storage.lacks_inodes(now.mono) {
            let limiter = &mut self.log_limits.repeated;
            if limiter.should_log("inodes", now.mono) {
                log::warn!("few inodes left, slots are refused free={free} least={least}");
            }
            return true;
        }
        self.monitor.lacks_room(size)
    }

    /// Logs that an owner folder cannot be used, because a file of another kind has its name.
    pub fn obstructed(&mut self, path: &StorePath, kind: FileKind, now: Now) {
        let found = match kind {
            FileKind::File => "a file",
            _ => "a link, or something else that is not a folder,",
        };
        let Some(store) = self.storage.folder() else {
            return;
        };
        let owner = path.owner_folder().escape_ascii().to_string();
        if self.log_limits.repeated.should_log(&owner, now.mono) {
            log::error!(
                "owner folder cannot be used path={:?} why=\"{found} has its name\"",
                store.path().join(&owner).display().to_string()
            );
        }
    }

    /// Handles a failed operation of the store. `size` is the size of the file for which there was no space, if that
    /// was the reason; 0 if a file of any size would have failed.
    pub fn store_failed(&mut self, operation: &str, error: &io::Error, size: u64, now: Now) {
        #[cfg(feature = "s3")]
        if let Some(failure) = error.get_ref().and_then(|cause| cause.downcast_ref()) {
            return self.object_store_failed(failure, now);
        }
        // Cached open files use descriptors and, if they were deleted, disk space.
        self.open_files.close();
        if !sys::is_out_of_descriptors(error) {
            // In a deleted folder the kernel's errors are misleading.
            let gone = self.storage.folder().filter(|store| store.is_gone());
            let why = match gone {
                Some(store) => {
                    format!("the storage folder {} was removed", store.path().display())
                }
                None => format!("{operation}: {error}"),
            };
            let shortage = sys::is_full(error).then_some(size);
            self.monitor.failed(why, shortage, now.mono);
        } else if self.log_limits.repeated.should_log(operation, now.mono) {
            log::warn!("out of descriptors what={operation:?}");
        }
    }

    /// Logs that a stored file could not be read.
    pub fn unreadable(&mut self, error: &io::Error, now: Now) {
        self.open_files.close();
        let why = error.to_string();
        if self.log_limits.repeated.should_log(&why, now.mono) {
            log::error!("file cannot be read why={why:?}");
        }
    }

    /// Probes a store that failed, if a probe is due.
    pub fn probe_store(&mut self, now: Now) {
        if self.monitor.due().is_none_or(|due| due > now.mono) {
            return;
        }
        #[cfg(feature = "s3")]
        if let (Some(bucket), Some(store)) = (self.service.bucket(), self.storage.bucket_mut()) {
            let (probe, request) = match (self.monitor.object_probe(), bucket.probe_key()) {
                (StoreProbe::Write, Some(key)) => {
                    (StoreProbe::Write, bucket.put_small(&key, &PROBE, now))
                }
                _ => (StoreProbe::List, bucket.list(PROBED, None, 1, now)),
            };
            let (class, token) = (RequestClass::User, UpstreamToken::Probe);
            store.upstream.submit(request, class, token, now);
            return self.monitor.asked(probe, now.mono);
        }
        self.check_root(now);
        if let Some(store) = self.storage.folder_mut() {
            self.monitor.begin_probe(store, &mut self.syncer, now.mono);
        }
    }

    /// An object store has answered a probe, or not.
    #[cfg(feature = "s3")]
    pub fn store_probed(&mut self, result: Result<Response, StoreFailure>, now: Now) {
        let probe = self.monitor.answered(now.mono);
        let checked = result.and_then(|response| StoreFailure::check(&response, now.wall));
        match (probe, checked) {
            (Some(StoreProbe::Write), Ok(())) => self.monitor.worked(u64::MAX),
            (_, Ok(())) => self.monitor.was_read(),
            // A size of 0: nothing fits.
            (Some(StoreProbe::Write), Err(failure)) => {
                self.upload_failed(&failure, 0, now);
            }
            (_, Err(failure)) => self.object_store_failed(&failure, now),
        }
    }

    /// What is observed of the connections to an object store has changed.
    #[cfg(feature = "s3")]
    pub fn store_changed(&mut self, change: StoreChange, now: Now) {
        match change {
            StoreChange::Unreachable(why) => {
                self.object_store_failed(&StoreFailure::unreachable(why), now);
            }
            StoreChange::Reachable if self.monitor.is_failing() => {
                self.monitor.probe_soon(now.mono);
            }
            StoreChange::Reachable => {}
            StoreChange::ClockSkew { by, store_is_ahead } => {
                let direction = if store_is_ahead { "ahead" } else { "behind" };
                let seconds = by.as_secs();
                log::warn!(
                    "clock of the object store differs seconds={seconds} store_is={direction}"
                );
            }
        }
    }

    /// Handles a failed request to an object store.
    #[cfg(feature = "s3")]
    pub fn object_store_failed(&mut self, failure: &StoreFailure, now: Now) {
        if failure.kind == FailureKind::Unreachable && self.monitor.is_failing() {
            // The reason is logged, or follows from one that is.
            return log::debug!("store failed why=\"{failure}\"");
        }
        self.monitor.failed(reason(failure), None, now.mono);
    }

    /// The contents of `/health`.
    pub fn health(&mut self, now: Now) -> Health {
        let policy = self.service.policy();
        let stored = self.admission.usage.total();
        let full = self
            .storage
            .free_space(now.mono)
            .zip(policy.min_free_space)
            .is_some_and(|(free, reserve)| free < reserve)
            || stored
                .zip(policy.global_quota)
                .is_some_and(|(total, quota)| total >= quota)
            || self.monitor.lacks_room(u64::MAX)
            || self.storage.lacks_inodes(now.mono).is_some();
        let store = if self.monitor.is_failing() {
            StoreStatus::Failing
        } else if full {
            StoreStatus::Full
        } else {
            StoreStatus::Good
        };
        Health {
            link: self.status.link,
            store,
        }
    }

    /// The contents of `/metrics`.
    pub fn expose(&mut self, now: Now) -> String {
        let free_bytes = self.storage.free_space(now.mono);
        let free_inodes = self.storage.space(now.mono).and_then(|space| space.inodes);
        let status = &self.status;
        let stored = self.admission.usage.stored();
        let gauges = Gauges {
            version: env!("CARGO_PKG_VERSION"),
            uptime: now.mono.saturating_duration_since(status.started),
            connections: self.connections.open,
            connections_limit: self.connections.limit,
            link: status.link,
            store: StoreGauges {
                is_failing: self.monitor.is_failing(),
                stored_bytes: stored.map(|(_, bytes)| bytes),
                stored_files: stored.map(|(files, _)| files),
                free_bytes,
                free_inodes,
            },
            object_store: match &self.storage {
                Storage::Folder(_) => None,
                #[cfg(feature = "s3")]
                Storage::Bucket(bucket) => Some(object_store_gauges(&bucket.upstream)),
            },
            time: now.unix(),
            reload_failed: status.reload_failed,
            certificate_expiry: status.certificate_expiry.map(unix),
            resident_bytes: status.memory_counts.as_ref().and_then(sys::resident_memory),
        };
        status.metrics.expose(&gauges)
    }
}

/// A failure and its remedy, for the log.
#[cfg(feature = "s3")]
pub(super) fn reason(failure: &StoreFailure) -> String {
    format!("{failure}: {}", failure.remedy())
}

#[cfg(feature = "s3")]
fn object_store_gauges(upstream: &Upstream) -> ObjectStoreGauges<'_> {
    let counts = upstream.counts();
    ObjectStoreGauges {
        requests: &counts.requests,
        retries: counts.retries,
        opened_connections: counts.connections,
        sent_bytes: counts.bytes_sent,
        received_bytes: counts.bytes_received,
        open_connections: upstream.open_connections(),
        open_requests: upstream.open_requests(),
    }
}
