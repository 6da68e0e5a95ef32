//! State that connections and the link use in common: the configuration, the store, and the limits.
//!
//! [`slots`] issues slots, [`health`] handles failures of the store; this file keeps the state up to date when the
//! configuration, the clock, or the contents of the store change.

mod health;
#[cfg(feature = "s3")]
mod object_store;
mod slots;

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime};

use crate::clock::FileTimes;
use crate::config::Config;
use crate::log_limiter::{LogLimiter, RepeatLimiter};
use crate::metrics::{LinkStatus, Metrics};
use crate::now::Now;
use crate::reactor::admission::Admission;
use crate::reactor::connection_limits::ConnectionLimits;
use crate::reactor::open_files::OpenFileCache;
use crate::reactor::random::RandomPool;
use crate::reactor::storage::Storage;
use crate::reactor::store_monitor::StoreMonitor;
use crate::reactor::sync_token::SyncToken;
pub use crate::reactor::waiting::Attempt;
use crate::service::Service;
use crate::slot::revoked::{REMEMBERED, Revoked};
use crate::slot::used::UsedSlots;
use crate::store::Store;
use crate::store::journal::{Note, What};
use crate::store::removal::TombstonePolicy;
use crate::store::sweep::Plan;
use crate::store::walk::WalkMode;
use crate::syncer::Syncer;
use crate::sys;
use crate::transport;

/// Size of the buffer for data that cannot be moved from descriptor to descriptor.
const SCRATCH: usize = transport::MAX_WRITE;

/// Size of the buffer for request bodies. Writing 256 KiB at a time costs less per byte than 64 KiB. Larger writes cost
/// even less, but on ext4 they are sometimes three times slower if memory is fragmented. Unused parts of the buffer take
/// no memory.
const BODY: usize = 256 * 1024;

/// How long the count of an owner's files in an object store is used.
#[cfg(feature = "s3")]
const COUNT_AGE: Duration = Duration::from_secs(300);

/// How old a count may be on which a refusal is based. Commands and other nodes may have deleted files.
#[cfg(feature = "s3")]
const REFUSAL_AGE: Duration = Duration::from_secs(5);

/// The shared state.
#[derive(Debug)]
pub struct Shared {
    pub config: Config,
    pub service: Service,
    pub storage: Storage,
    pub open_files: OpenFileCache,
    pub syncer: Syncer<SyncToken>,
    pub status: Status,
    pub admission: Admission,
    pub slots: IssuedSlots,
    pub monitor: StoreMonitor,
    pub connections: ConnectionLimits,
    pub buffers: Buffers,
    pub log_limits: LogLimits,
}

/// What `/health` and `/metrics` report of the process.
#[derive(Debug)]
pub struct Status {
    pub metrics: Metrics,
    pub link: LinkStatus,
    /// Whether the last reload failed.
    pub reload_failed: bool,
    /// The end of the validity of the TLS certificate.
    pub certificate_expiry: Option<SystemTime>,
    started: Instant,
    /// The file of the kernel with the memory use of the process.
    memory_counts: Option<OwnedFd>,
}

/// The state of issued slots, beyond what their signatures hold.
#[derive(Debug, Default)]
pub struct IssuedSlots {
    pub revoked: Revoked,
    pub used: UsedSlots,
    pub random: RandomPool,
    /// The latest expiry time of all issued slots; Unix seconds.
    last_expiry: u64,
}

/// Buffers that all connections use in turn.
#[derive(Debug)]
pub struct Buffers {
    pub scratch: Box<[u8]>,
    /// Encrypted TLS data.
    pub wire: Box<[u8]>,
    /// Request bodies.
    pub body: Box<[u8]>,
}

/// Limits on log lines.
#[derive(Debug, Default)]
pub struct LogLimits {
    /// Failures of the host that repeat.
    pub repeated: RepeatLimiter,
    pub granted_slots: LogLimiter,
    pub refused_slots: LogLimiter,
    pub refused_requests: LogLimiter,
    pub skipped_stanzas: LogLimiter,
}

impl Default for Buffers {
    fn default() -> Buffers {
        Buffers {
            scratch: vec![0; SCRATCH].into_boxed_slice(),
            wire: vec![0; transport::wire_size(SCRATCH)].into_boxed_slice(),
            body: vec![0; BODY].into_boxed_slice(),
        }
    }
}

impl Shared {
    pub fn new(
        config: Config,
        service: Service,
        storage: Storage,
        syncer: Syncer<SyncToken>,
        now: Now,
    ) -> Shared {
        Shared {
            config,
            service,
            storage,
            open_files: OpenFileCache::default(),
            syncer,
            status: Status {
                metrics: Metrics::default(),
                link: LinkStatus::None,
                reload_failed: false,
                certificate_expiry: None,
                started: now.mono,
                memory_counts: sys::open_memory_counts(),
            },
            admission: Admission::default(),
            slots: IssuedSlots::default(),
            monitor: StoreMonitor::default(),
            connections: ConnectionLimits::default(),
            buffers: Buffers::default(),
            log_limits: LogLimits::default(),
        }
    }

    /// Takes over the state of the store at the start.
    pub fn load(&mut self, now: Now) {
        if let Some(store) = self.storage.folder() {
            self.admission.usage.set_times(store.times().clone());
        }
        self.set_tombstone_policy(now);
        self.recall_removals(now);
        self.count_total();
        #[cfg(feature = "s3")]
        self.plan_tasks(now);
    }

    /// Plans the sweep of an object store, and how often its files are counted. Counts are used for a short time only,
    /// because other nodes change the store, too.
    #[cfg(feature = "s3")]
    pub fn plan_tasks(&mut self, now: Now) {
        let interval = self.config.sweep_interval();
        let has_quota = self.service.policy().global_quota.is_some();
        if let Some(bucket) = self.storage.bucket_mut() {
            let usage = &mut self.admission.usage;
            usage.set_max_age(COUNT_AGE, Some(REFUSAL_AGE));
            bucket.tasks.plan_sweep(interval, now.mono);
            bucket.tasks.plan_total(has_quota, now.mono);
            // At the start, the operator learns whether the store works; after a reload, whether it works now.
            self.monitor.probe_soon(now.mono);
        }
    }

    /// Reads which files other processes have deleted; true if there are any.
    pub fn look_for_removals(&mut self, now: Now) -> bool {
        let Some(store) = self.storage.folder_mut() else {
            return false;
        };
        let notes = match store.new_notes() {
            Ok(notes) => notes,
            Err(error) => {
                let why = error.to_string();
                // If the disk fails, the operations that need it log that.
                if sys::is_store_error(&error)
                    || !self.log_limits.repeated.should_log("removals", now.mono)
                {
                    log::debug!("removals by commands cannot be read why={why:?}");
                } else {
                    log::error!("removals by commands cannot be read why={why:?}");
                }
                return false;
            }
        };
        if notes.is_empty() {
            return false;
        }
        store.removed_elsewhere(now.mono);
        for note in &notes {
            let owner = note.owner.escape_ascii();
            match note.what {
                What::Revoked => {
                    self.revoke(note);
                    self.admission.rates.forget_owner(&note.owner);
                    log::info!("slots revoked owner={owner} why=command");
                }
                What::Begun => {}
                What::Removed { files, bytes } => {
                    self.admission
                        .usage
                        .removed_elsewhere(&note.owner, files, bytes);
                    log::info!(
                        "files removed elsewhere owner={owner} files={files} bytes={bytes} why=command"
                    );
                }
                What::Added { files, bytes } => {
                    let usage = &mut self.admission.usage;
                    usage.added_elsewhere(&note.owner, files, bytes);
                    log::debug!(
                        "files added elsewhere owner={owner} files={files} bytes={bytes} why=command"
                    );
                }
            }
        }
        true
    }

    /// Reads which slots were revoked before the process was started or `storage_path` was replaced. Files that were
    /// deleted do not matter, because nothing is counted yet.
    pub fn recall_removals(&mut self, now: Now) {
        if let Some(store) = self.storage.folder_mut() {
            store.trim_journal(now.wall);
        }
        while let Some(Ok(notes)) = self.storage.folder_mut().map(Store::new_notes) {
            if notes.is_empty() {
                return;
            }
            let is_recent = |note: &&Note| {
                note.what == What::Revoked && note.at.saturating_add(REMEMBERED) > now.unix()
            };
            for note in notes.iter().filter(is_recent) {
                self.revoke(note);
            }
        }
    }

    /// Revokes the slots of an owner that were issued until now, also for other processes on the same store.
    pub fn revoke_slots(&mut self, owner: &[u8], now: Now) {
        let note = Note {
            at: now.unix(),
            owner: owner.to_vec(),
            what: What::Revoked,
        };
        let Some(store) = self.storage.folder_mut() else {
            self.revoke(&note);
            #[cfg(feature = "s3")]
            self.add_revocation(owner, now);
            return;
        };
        if let Err(error) = store.note(std::slice::from_ref(&note)) {
            let owner = owner.escape_ascii();
            let why = error.to_string();
            log::error!("revocation not recorded owner={owner} why={why:?}");
            self.revoke(&note);
        }
        // What was recorded takes effect as if another process had recorded it.
        self.look_for_removals(now);
    }

    fn revoke(&mut self, note: &Note) {
        let life = self.config.put_timeout.as_secs();
        let expires = note.at.saturating_add(life).max(self.slots.last_expiry);
        self.slots.revoked.revoke(&note.owner, note.at, expires);
    }

    /// Changes how modification times are read. `jumped` is as for [`Store::set_times`].
    pub fn set_times(&mut self, times: FileTimes, jumped: bool) {
        self.admission.usage.set_times(times.clone());
        self.storage.set_times(times, jumped);
        // Cached responses contain how long clients may cache the file.
        if jumped {
            self.open_files.close();
        }
    }

    /// Checks whether another folder was mounted or moved to `storage_path`, and then counts its files. True if so.
    pub fn check_root(&mut self, now: Now) -> bool {
        let replaced = self.storage.check_root(now.mono);
        if replaced {
            self.admission.usage.forget();
            self.admission.rates.forget();
            self.slots.used.forget();
            self.recall_removals(now);
            self.count_total();
        }
        replaced
    }

    /// Sets for which deleted paths the store records tombstones: those for which an upload URL may still be valid.
    pub fn set_tombstone_policy(&mut self, now: Now) {
        let policy = self.tombstone_policy();
        self.storage.set_tombstone_policy(policy, now.mono);
    }

    /// For which deleted paths an upload URL may still be valid.
    pub fn tombstone_policy(&self) -> TombstonePolicy {
        TombstonePolicy {
            foreign: self.service.takes_external(),
            slot_life: self.config.put_timeout,
        }
    }

    /// Discards all counts, so that owners and the total are counted again.
    pub fn recount(&mut self, now: Now) {
        self.admission.usage.distrust(now.mono);
        let usage = &mut self.admission.usage;
        if let Some(store) = self.storage.folder() {
            usage.recount_total(store.root(), WalkMode::Tidy);
        }
        self.count_total();
    }

    /// Starts to count all stored bytes, if there is a quota on them.
    pub fn count_total(&mut self) {
        let Some(store) = self.storage.folder() else {
            return;
        };
        if self.service.policy().global_quota.is_some() {
            let usage = &mut self.admission.usage;
            usage.want_total(store.root(), WalkMode::Tidy);
        }
    }

    /// The parameters of the sweep.
    pub fn sweep_plan(&self) -> Plan {
        let trims = !self.config.expire_interval.is_zero() && self.config.user_quota_soft > 0;
        Plan {
            // The sweep of an object store is a task of its own.
            interval: match self.storage.is_bucket() {
                true => Duration::ZERO,
                false => self.config.sweep_interval(),
            },
            lifetime: self.service.lifetime(),
            soft_quota: trims.then_some(self.config.user_quota_soft),
            fsync: self.config.fsync,
        }
    }

    /// Whether stored bytes are counted at all.
    pub fn counts(&self) -> bool {
        let policy = self.service.policy();
        // An access rule may limit the stored bytes of an owner.
        !policy.rules.is_empty() || policy.needs_owner_usage(None) || policy.global_quota.is_some()
    }
}
