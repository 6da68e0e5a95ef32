//! Failures of the store, and the health and metrics that the local API exposes.

use std::io;

use crate::http::api::{Health, StoreStatus};
use crate::layout::StorePath;
use crate::metrics::{Gauges, StoreGauges};
use crate::now::{Now, unix};
use crate::reactor::shared::Shared;
use crate::sys::{self, FileKind};

impl Shared {
    /// Whether a file of this size cannot be stored: a file of that size or a smaller one did not fit recently, or the
    /// file system is almost out of inodes.
    pub fn lacks_room(&mut self, size: u64, now: Now) -> bool {
        if let Some((free, least)) = self.store.lacks_inodes(now.mono) {
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
        let owner = path.owner_folder().escape_ascii().to_string();
        if self.log_limits.repeated.should_log(&owner, now.mono) {
            log::error!(
                "owner folder cannot be used path={:?} why=\"{found} has its name\"",
                self.store.path().join(&owner).display().to_string()
            );
        }
    }

    /// Handles a failed operation of the store. `size` is the size of the file for which there was no space, if that
    /// was the reason; 0 if a file of any size would have failed.
    pub fn store_failed(&mut self, operation: &str, error: &io::Error, size: u64, now: Now) {
        // Cached open files use descriptors and, if they were deleted, disk space.
        self.open_files.close();
        if !sys::is_out_of_descriptors(error) {
            // In a deleted folder the kernel's errors are misleading.
            let why = match self.store.is_gone() {
                true => format!(
                    "the storage folder {} was removed",
                    self.store.path().display()
                ),
                false => format!("{operation}: {error}"),
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
        self.check_root(now);
        self.monitor
            .begin_probe(&mut self.store, &mut self.syncer, now.mono);
    }

    /// The contents of `/health`.
    pub fn health(&mut self, now: Now) -> Health {
        let policy = self.service.policy();
        let stored = self.admission.usage.total();
        let full = self
            .store
            .free_space(now.mono)
            .zip(policy.min_free_space)
            .is_some_and(|(free, reserve)| free < reserve)
            || stored
                .zip(policy.global_quota)
                .is_some_and(|(total, quota)| total >= quota)
            || self.monitor.lacks_room(u64::MAX)
            || self.store.lacks_inodes(now.mono).is_some();
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
                free_bytes: self.store.free_space(now.mono),
                free_inodes: self.store.space(now.mono).and_then(|space| space.inodes),
            },
            time: now.unix(),
            reload_failed: status.reload_failed,
            certificate_expiry: status.certificate_expiry.map(unix),
            resident_bytes: status.memory_counts.as_ref().and_then(sys::resident_memory),
        };
        status.metrics.expose(&gauges)
    }
}
