//! What the loop's drivers share during a call: the deciding parts, the store, and who waits for what.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::clock::FileTimes;
use crate::config::Config;
use crate::http::api::{Health, StoreStatus};
use crate::jid::BareJid;
use crate::layout::{self, StorePath};
use crate::log_limiter::LogLimiter;
use crate::metrics::{self, Gauges, Metrics};
use crate::now::Now;
use crate::policy::pool;
use crate::policy::rates::{self, RateCheck, Rates};
use crate::policy::rules::{Limits, RuleDecision};
use crate::policy::{SpaceCheck, Usage};
use crate::reactor::open_files::OpenFileCache;
use crate::reactor::random::RandomPool;
use crate::reactor::table::Key;
use crate::refusal::Refusal;
use crate::repeat_limiter::RepeatLimiter;
use crate::service::Service;
use crate::slot::revoked::{REMEMBERED, Revoked};
use crate::slot::used::UsedSlots;
use crate::slot::{Slot, SlotRequest};
use crate::store::Store;
use crate::store::journal::{Note, What};
use crate::store::trim::{Order, Trims};
use crate::store::upload::Upload;
use crate::store::usage::{Counted, UsageTracker};
use crate::syncer::{Syncer, Work};
use crate::sys::{self, FileKind};
use crate::transport;
use crate::xmpp::upload::SlotIq;

/// Size of the one buffer through which bytes pass that cannot go from descriptor to descriptor.
const SCRATCH: usize = 64 * 1024;

/// Size of the one buffer that bodies are received into: a body that comes fast is written in pieces of this size, which
/// costs less a byte than pieces of 64 KiB. Still larger ones cost less again, but on ext4 at times three times as much,
/// when no memory is at hand in such pieces. What is never used of it is never in memory.
const BODY: usize = 256 * 1024;

/// Requests that may wait for the store at a time; more are refused.
const MOST_WAITING: usize = 1024;

/// The same for one owner, so that one cannot take all places. Clients send a few dozen files at once.
const MOST_WAITING_FOR_ONE: usize = 64;

/// How often it is tried out whether a store that failed works again.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// How soon it is tried out what still has room, when something had none.
const FIRST_PROBE: Duration = Duration::from_secs(1);

/// What is written to try it out: more than a file system keeps beside its folders; bytes.
const PROBE: [u8; 8192] = [0; 8192];

/// The syncer's keys of that, and of the graves that the sweep waits for; no connection has them.
pub const PROBE_KEY: usize = usize::MAX;
pub const TOMBSTONES_KEY: usize = usize::MAX - 1;

/// The syncer's key of the clock's record.
pub const CLOCK_KEY: usize = usize::MAX - 2;

/// How often room is made for one request before it is refused: others may use up what was freed for it.
const TRIES: u8 = 4;

/// The shared parts.
#[derive(Debug)]
pub struct Shared {
    pub config: Config,
    pub service: Service,
    pub store: Store,
    pub open_files: OpenFileCache,
    pub usage: UsageTracker,
    pub trims: Trims,
    pub syncer: Syncer,
    pub waiting: Waiting,
    pub addresses: AddressCounts,
    pub rates: Rates,
    pub revoked: Revoked,
    pub used: UsedSlots,
    /// The latest moment at which a slot expires that was issued so far; Unix seconds.
    slots_expire: u64,
    /// The limits of owners whose files are being looked at for the sake of rates.
    loading: HashMap<Vec<u8>, Limits>,
    pub metrics: Metrics,
    /// Where the kernel counts the process's memory.
    memory_counts: Option<OwnedFd>,
    pub link: metrics::LinkStatus,
    /// Open connections, and how many there may be.
    pub connections: (usize, usize),
    /// Bytes that connections moved, of late.
    pub moved: usize,
    started: Instant,
    pub scratch: Box<[u8]>,
    /// What TLS receives and sends.
    pub wire: Box<[u8]>,
    /// What bodies are received into.
    pub body: Box<[u8]>,
    pub monitor: StoreMonitor,
    repeat_limiter: RepeatLimiter,
    /// Lines about refused slots, other refused requests, and skipped stanzas.
    granted_slots: LogLimiter,
    refused_slots: LogLimiter,
    pub refused_requests: LogLimiter,
    pub skipped_stanzas: LogLimiter,
    pub random: RandomPool,
}

/// What somebody wants to store.
#[derive(Clone, Copy, Debug)]
pub struct SpaceRequest<'a> {
    /// The owner folder; `None` when the file counts as nobody's.
    pub owner: Option<&'a [u8]>,
    pub kind: usize,
    /// Bytes.
    pub size: u64,
    /// Bytes that a rule allows the owner in all; 0 is off.
    pub total: u64,
}

/// A slot request that passed all checks.
#[derive(Debug)]
pub struct ApprovedSlot {
    /// The owner's folder.
    owner: String,
    limits: Option<Limits>,
}

/// Whether bytes may be stored, now or after a wait.
#[derive(Debug)]
pub enum Admission {
    Granted,
    /// The store is being looked at; ask again when the owner is woken.
    Wait,
    Refused(Refusal),
}

/// How far the search for room has come for one request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attempt {
    tries: u8,
    /// The owner could not be counted.
    failed: bool,
    /// The youngest of the files that have to go, when room cannot be made but time will make it.
    newest: Option<SystemTime>,
}

/// What came of a look into the store.
#[derive(Clone, Copy, Debug)]
pub enum Lookup {
    /// The owner was counted.
    Counted,
    /// The owner could not be counted.
    Failed,
    /// Room was looked for; the youngest of the files that have to go, as in [`crate::store::trim::Trimmed`].
    Searched(Option<SystemTime>),
}

impl Attempt {
    /// The store was looked at once more.
    pub fn after(self, look: Lookup) -> Attempt {
        match look {
            Lookup::Counted => self,
            Lookup::Failed => Attempt {
                failed: true,
                ..self
            },
            Lookup::Searched(newest) => Attempt {
                tries: self.tries.saturating_add(1),
                newest: newest.or(self.newest),
                ..self
            },
        }
    }
}

impl Shared {
    pub fn new(config: Config, service: Service, store: Store, syncer: Syncer, now: Now) -> Shared {
        Shared {
            config,
            service,
            store,
            open_files: OpenFileCache::default(),
            usage: UsageTracker::default(),
            trims: Trims::default(),
            syncer,
            waiting: Waiting::default(),
            addresses: AddressCounts::default(),
            rates: Rates::default(),
            revoked: Revoked::default(),
            used: UsedSlots::default(),
            slots_expire: 0,
            loading: HashMap::new(),
            metrics: Metrics::default(),
            memory_counts: sys::open_memory_counts(),
            link: metrics::LinkStatus::None,
            connections: (0, 0),
            moved: 0,
            started: now.mono,
            scratch: vec![0; SCRATCH].into_boxed_slice(),
            wire: vec![0; transport::wire_size(SCRATCH)].into_boxed_slice(),
            body: vec![0; BODY].into_boxed_slice(),
            monitor: StoreMonitor::default(),
            repeat_limiter: RepeatLimiter::default(),
            granted_slots: LogLimiter::default(),
            refused_slots: LogLimiter::default(),
            refused_requests: LogLimiter::default(),
            skipped_stanzas: LogLimiter::default(),
            random: RandomPool::default(),
        }
    }

    /// Whether an owner may store so many bytes more. Looks into the store in slices where it must.
    pub fn admit(
        &mut self,
        space_request: &SpaceRequest<'_>,
        attempt: Attempt,
        now: Now,
    ) -> Admission {
        let SpaceRequest {
            owner,
            kind,
            size,
            total,
        } = *space_request;
        let mut stored = Usage {
            owner: None,
            total: self.usage.total(),
            free: self.store.free_space(now.mono),
        };
        if let Some(owner) = owner.filter(|_| self.service.needs_owner_usage(total)) {
            match self.usage.of_owner(owner, now.mono) {
                Some(bytes) => stored.owner = Some(bytes),
                // Nothing is promised on numbers that nobody knows.
                None if attempt.failed => return Admission::Refused(Refusal::Busy),
                None => {
                    self.usage.ask(owner);
                    return Admission::Wait;
                }
            }
        }
        let (mut refusal, need, pool, evict) = match self.service.room(size, kind, total, &stored) {
            SpaceCheck::Enough => return Admission::Granted,
            SpaceCheck::Refused(refusal) => return Admission::Refused(refusal),
            SpaceCheck::OverQuota {
                refusal,
                need,
                pool,
                evict,
            } => (refusal, need, pool, evict),
        };
        // Nothing is looked for in vain: files must be of the kind that goes, and room must come of it.
        let ages = !self.service.lifetime().message.is_zero();
        let tries = if evict { TRIES } else { u8::from(ages) };
        let Some(owner) = owner.filter(|_| attempt.tries < tries) else {
            if let Refusal::OwnerQuota { retry, .. } = &mut refusal {
                let interval = self.config.sweep_interval();
                let newest = attempt.newest.filter(|_| !evict);
                *retry = newest.and_then(|newest| self.service.expires_at(newest, interval));
            }
            return Admission::Refused(refusal);
        };
        self.trims.push(Order {
            owner: owner.to_vec(),
            need,
            pool,
            remove: evict,
        });
        Admission::Wait
    }

    /// Judges a slot request with everything that is known; `None` while the store is being looked at.
    pub fn check_slot(
        &mut self,
        request: &SlotRequest,
        attempt: Attempt,
        now: Now,
    ) -> Result<Option<ApprovedSlot>, Refusal> {
        let limits = self.service.check_request(request)?.cloned();
        if self.lacks_room(request.size, now) {
            return Err(Refusal::FreeSpace {
                size: request.size,
                free: self.store.free_space(now.mono).unwrap_or(0),
                reserve: self.config.min_free_space,
            });
        }
        let owner = layout::owner_folder(&request.owner);
        let space_request = SpaceRequest {
            owner: Some(owner.as_bytes()),
            kind: pool::class_of(request.purpose),
            size: request.size,
            total: limits
                .as_ref()
                .and_then(|limits| limits.max_total_size)
                .unwrap_or(0),
        };
        match self.admit(&space_request, attempt, now) {
            Admission::Granted => {}
            Admission::Wait => return Ok(None),
            Admission::Refused(refusal) => return Err(refusal),
        }
        if let Some(limits) = &limits {
            match self
                .rates
                .check(owner.as_bytes(), limits, request.size, now.unix())
            {
                RateCheck::Allowed => {}
                RateCheck::Unknown if attempt.failed => return Err(Refusal::Busy),
                RateCheck::Unknown => {
                    self.usage.ask(owner.as_bytes());
                    self.loading.insert(owner.into_bytes(), limits.clone());
                    return Ok(None);
                }
                RateCheck::Refused { over, retry } => {
                    return Err(Refusal::Rate {
                        bytes: over.kind == rates::WindowKind::Bytes,
                        size: request.size,
                        used: over.used,
                        limit: over.limit,
                        delta: over.delta,
                        retry: retry.and_then(|at| UNIX_EPOCH.checked_add(Duration::from_secs(at))),
                    });
                }
            }
        }
        Ok(Some(ApprovedSlot { owner, limits }))
    }

    /// Hands out a slot that was judged, and counts it.
    pub fn issue_slot(
        &mut self,
        request: &SlotRequest,
        approved: &ApprovedSlot,
        now: Now,
    ) -> Result<Slot, Refusal> {
        let random = self.random.take().ok_or(Refusal::Busy)?;
        let limits = approved.limits.as_ref();
        let owner = approved.owner.as_bytes();
        let revoked_until = self.revoked.until(owner);
        let (path, slot) = self.service.issue(
            request,
            &approved.owner,
            limits,
            &random,
            revoked_until,
            now,
        )?;
        let expires = now.unix().saturating_add(self.config.put_timeout.as_secs());
        self.slots_expire = self.slots_expire.max(expires);
        if let Some(limits) = limits {
            self.rates
                .issued(approved.owner.as_bytes(), limits, request.size, now.unix());
        }
        self.metrics.slot_granted();
        // "upload published" has the same path, but only the folder of the owner.
        let owner = request.owner.as_str();
        if let Some(suppressed) = self.granted_slots.allows(owner, now.mono) {
            log::info!(
                "slot granted owner={owner} path={path:?} bytes={} purpose={}{suppressed}",
                request.size,
                request.purpose.word()
            );
        }
        Ok(slot)
    }

    /// A slot request is refused: one line with the address, the rule and the numbers, unless there are too many.
    pub fn note_refused_slot(&mut self, owner: &BareJid, refusal: &Refusal, now: Now) {
        self.metrics.slot_refused(refusal.reason());
        let Some(suppressed) = self.refused_slots.allows(owner.as_str(), now.mono) else {
            return;
        };
        let why = refusal.to_string();
        match self.service.policy().rules.decide(owner) {
            RuleDecision::Allowed { rule, .. } | RuleDecision::Denied { rule: Some(rule) } => {
                let rule = rule.to_string();
                log::info!("slot refused owner={owner} rule={rule:?} why={why:?}{suppressed}");
            }
            RuleDecision::Denied { rule: None } => {
                log::info!("slot refused owner={owner} rule=none why={why:?}{suppressed}");
            }
            RuleDecision::NoRules => {
                log::info!("slot refused owner={owner} why={why:?}{suppressed}");
            }
        }
    }

    /// An owner was counted.
    pub fn counted(&mut self, counted: &Counted, now: Now) {
        let limits = self.loading.remove(&counted.owner);
        if let Some(error) = &counted.error {
            self.store_failed("count", error, 0, now);
        } else if let Some(limits) = limits {
            self.rates
                .loaded(&counted.owner, &limits, &counted.recent, now.unix());
        }
    }

    /// Whether so many bytes cannot be stored because something as large had no room lately, or because there are next
    /// to no inodes.
    fn lacks_room(&mut self, size: u64, now: Now) -> bool {
        if let Some((free, least)) = self.store.lacks_inodes(now.mono) {
            if self.repeat_limiter.should_log("inodes", now.mono) {
                log::warn!("few inodes left, slots are refused free={free} least={least}");
            }
            return true;
        }
        self.monitor.lacks_room(size)
    }

    /// Learns what other processes have removed; true when they have.
    pub fn look_for_removals(&mut self, now: Now) -> bool {
        let notes = match self.store.new_notes() {
            Ok(notes) => notes,
            Err(error) => {
                let why = error.to_string();
                // A disk that fails is told of by what needs it, and then nothing can be uploaded either.
                if sys::is_store_error(&error)
                    || !self.repeat_limiter.should_log("removals", now.mono)
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
        self.store.removed_elsewhere(now.mono);
        for note in &notes {
            let owner = note.owner.escape_ascii();
            match note.what {
                What::Revoked => {
                    self.revoke(note);
                    self.rates.forget_owner(&note.owner);
                    log::info!("slots revoked owner={owner} why=command");
                }
                What::Begun => {}
                What::Removed { files, bytes } => {
                    self.usage.removed_elsewhere(&note.owner, files, bytes);
                    log::info!(
                        "files removed elsewhere owner={owner} files={files} bytes={bytes} why=command"
                    );
                }
            }
        }
        true
    }

    /// Learns which slots were revoked before this process, or this tree, was there. Nothing else is known yet that
    /// could be wrong.
    pub fn recall_removals(&mut self, now: Now) {
        self.store.trim_journal(now.wall);
        while let Ok(notes) = self.store.new_notes() {
            if notes.is_empty() {
                return;
            }
            let young = |note: &&Note| {
                note.what == What::Revoked && note.at.saturating_add(REMEMBERED) > now.unix()
            };
            for note in notes.iter().filter(young) {
                self.revoke(note);
            }
        }
    }

    fn revoke(&mut self, note: &Note) {
        let life = self.config.put_timeout.as_secs();
        let expires = note.at.saturating_add(life).max(self.slots_expire);
        self.revoked.revoke(&note.owner, note.at, expires);
    }

    /// Something has the place of an owner's folder.
    pub fn obstructed(&mut self, path: &StorePath, kind: FileKind, now: Now) {
        let what = match kind {
            FileKind::File => "a file",
            _ => "a link, or something else that is no folder,",
        };
        let owner = path.owner_folder().escape_ascii().to_string();
        if self.repeat_limiter.should_log(&owner, now.mono) {
            log::error!(
                "owner folder cannot be used path={:?} why=\"{what} has its place\"",
                self.store.path().join(&owner).display().to_string()
            );
        }
    }

    /// The store failed at something; `size` is that of the file for which there was no room, if that was why. 0: any
    /// file would have failed.
    pub fn store_failed(&mut self, what: &str, error: &io::Error, size: u64, now: Now) {
        // What is kept open takes descriptors and, if it was removed meanwhile, room on the disk.
        self.open_files.close();
        if !sys::is_out_of_descriptors(error) {
            let why = match self.store.is_gone() {
                // Whatever the kernel says of a folder that was removed.
                true => format!(
                    "the storage folder {} was removed",
                    self.store.path().display()
                ),
                false => format!("{what}: {error}"),
            };
            let shortage = sys::is_full(error).then_some(size);
            self.monitor.note(why, shortage, now.mono);
        } else if self.repeat_limiter.should_log(what, now.mono) {
            log::warn!("out of descriptors what={what:?}");
        }
    }

    /// A file that is there could not be read.
    pub fn unreadable(&mut self, error: &io::Error, now: Now) {
        self.open_files.close();
        let why = error.to_string();
        if self.repeat_limiter.should_log(&why, now.mono) {
            log::error!("file cannot be read why={why:?}");
        }
    }

    /// Tries out whether a store that failed works again, if it is time: nobody may come to upload because `/health`
    /// says that nobody should.
    pub fn probe_store(&mut self, now: Now) {
        if self.monitor.due().is_none_or(|due| due > now.mono) {
            return;
        }
        self.check_root(now);
        self.monitor.probe_at = None;
        self.monitor.probed_at = Some(now.mono);
        let probed = self.store.probe_upload(&PROBE).and_then(|upload| {
            let work = Work::File(upload.file());
            self.monitor.probe = Some(upload);
            self.syncer.submit(PROBE_KEY, work)
        });
        if probed.is_err() {
            self.probed(probed, now);
        }
    }

    /// What came of trying the store out.
    pub fn probed(&mut self, result: io::Result<()>, now: Now) {
        if let Some(upload) = self.monitor.probe.take() {
            self.store.end(upload);
        }
        match result {
            Ok(()) => {
                let short_of = self.monitor.short_of.unwrap_or(0);
                let room = short_of <= PROBE.len() as u64
                    || self.store.has_room(short_of).unwrap_or(false);
                let size = if room { u64::MAX } else { PROBE.len() as u64 };
                self.monitor.worked(size);
            }
            Err(_) if !self.monitor.has_failed() => {}
            Err(error) => match sys::is_full(&error) {
                true => {
                    self.monitor.failing = false;
                    self.monitor.short_of = Some(0);
                }
                false => self.monitor.failing = true,
            },
        }
        if self.monitor.has_failed() {
            self.monitor.probe_at = Some(now.mono + PROBE_INTERVAL);
        }
    }

    /// What `/health` says.
    pub fn health(&mut self, now: Now) -> Health {
        let reserve = self.config.min_free_space;
        let quota = self.config.global_quota;
        let full = self
            .store
            .free_space(now.mono)
            .is_some_and(|free| free < reserve)
            || self
                .usage
                .total()
                .is_some_and(|total| quota > 0 && total >= quota)
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
            link: self.link,
            store,
        }
    }

    /// What `/metrics` says.
    pub fn expose(&mut self, now: Now) -> String {
        let gauges = Gauges {
            version: env!("CARGO_PKG_VERSION"),
            uptime: now.mono.saturating_duration_since(self.started),
            connections: self.connections.0,
            connections_limit: self.connections.1,
            link: self.link,
            stored_bytes: self.usage.stored().map(|(_, bytes)| bytes),
            stored_files: self.usage.stored().map(|(files, _)| files),
            free_bytes: self.store.free_space(now.mono),
            free_inodes: self.store.space(now.mono).and_then(|space| space.inodes),
            resident_bytes: self.memory_counts.as_ref().and_then(sys::resident_memory),
        };
        self.metrics.expose(&gauges)
    }

    /// From now on modification times mean this. `jumped` as [`Store::set_times`] has it.
    pub fn set_times(&mut self, times: FileTimes, jumped: bool) {
        self.usage.set_times(times.clone());
        self.store.set_times(times, jumped);
        // What is kept open says how long it may be cached.
        if jumped {
            self.open_files.close();
        }
    }

    /// Notices another tree at `storage_path`, and counts it anew. True when there is one.
    pub fn check_root(&mut self, now: Now) -> bool {
        let replaced = self.store.check_root(now.mono);
        if replaced {
            self.usage.forget();
            self.rates.forget();
            self.used.forget();
            self.recall_removals(now);
            self.count_total();
        }
        replaced
    }

    /// Tells the store which removed paths somebody may have a right to, as service and configuration have it.
    pub fn set_tombstone_policy(&mut self) {
        let records_foreign = self.service.takes_external();
        self.store
            .set_tombstone_policy(records_foreign, self.config.put_timeout);
    }

    /// Believes no number any more that is older than this.
    pub fn recount(&mut self, now: Now) {
        self.usage.distrust(now.mono);
        self.usage.recount_total(self.store.root());
        self.count_total();
    }

    /// Learns the sum of all stored bytes, if somebody counts it.
    pub fn count_total(&mut self) {
        if self.config.global_quota > 0 {
            self.usage.want_total(self.store.root());
        }
    }

    /// Whether anybody counts stored bytes.
    pub fn counts(&self) -> bool {
        // A rule's total counts owners too, and may come at any time.
        self.service
            .needs_owner_usage(u64::from(!self.service.policy().rules.is_empty()))
            || self.config.global_quota > 0
    }
}

/// Trouble with the store, logged when it changes.
#[derive(Debug, Default)]
pub struct StoreMonitor {
    /// The last attempt failed, and not for want of room.
    failing: bool,
    /// Files of so many bytes, and larger ones, have no room.
    short_of: Option<u64>,
    /// What was logged since it worked last; the same words are few.
    open: Vec<String>,
    /// A disk that is nearly full takes one file and refuses the next.
    repeat_limiter: RepeatLimiter,
    /// When to try it out.
    probe_at: Option<Instant>,
    /// When it was tried out last.
    probed_at: Option<Instant>,
    /// What it is being tried out with.
    probe: Option<Upload>,
}

impl StoreMonitor {
    /// Something failed; for want of room if there is a `shortage`, the size of the file that had none.
    fn note(&mut self, why: String, shortage: Option<u64>, now: Instant) {
        let mut soon = now + PROBE_INTERVAL;
        match shortage {
            None => self.failing = true,
            Some(size) => {
                self.short_of = Some(self.short_of.map_or(size, |least| least.min(size)));
                // What has room still, the probe tells; but many may fail at the same time.
                soon = now + FIRST_PROBE;
                soon = soon.max(self.probed_at.map_or(soon, |at| at + FIRST_PROBE));
            }
        }
        if self.probe.is_none() {
            self.probe_at = Some(self.probe_at.map_or(soon, |at| at.min(soon)));
        }
        if self.open.contains(&why) || !self.repeat_limiter.should_log(&why, now) {
            log::debug!("store failed why={why:?}");
        } else {
            log::error!("store failed why={why:?}");
            self.open.push(why);
        }
    }

    /// Whether the last attempt failed.
    fn has_failed(&self) -> bool {
        self.failing || self.short_of.is_some()
    }

    /// Whether the last attempt failed, and not for want of room.
    fn is_failing(&self) -> bool {
        self.failing
    }

    /// Whether there is no room for a file of so many bytes, as far as is known.
    fn lacks_room(&self, size: u64) -> bool {
        self.short_of.is_some_and(|least| size >= least)
    }

    /// When [`Shared::probe_store`] must be called.
    pub fn due(&self) -> Option<Instant> {
        self.probe_at
    }

    /// A file of so many bytes was stored.
    pub fn worked(&mut self, size: u64) {
        self.failing = false;
        if self.lacks_room(size) {
            self.short_of = None;
        }
        if self.short_of.is_some() {
            return;
        }
        self.probe_at = None;
        if !std::mem::take(&mut self.open).is_empty() {
            log::info!("store recovered");
        }
    }
}

/// Who waits until the store knows more of an owner.
#[derive(Debug)]
pub enum Waiter {
    /// A slot request of the component.
    Slot(Box<SlotIq>, Attempt),
    /// A connection whose PUT is to be decided.
    Put(Key),
}

/// All who wait, by owner folder.
#[derive(Debug, Default)]
pub struct Waiting {
    owners: HashMap<Vec<u8>, Vec<Waiter>>,
    count: usize,
}

impl Waiting {
    /// Lets somebody wait; gives them back when too many do.
    pub fn push(&mut self, owner: &[u8], waiter: Waiter) -> Result<(), Waiter> {
        let same = self.owners.get(owner).map_or(0, Vec::len);
        if self.count >= MOST_WAITING || same >= MOST_WAITING_FOR_ONE {
            return Err(waiter);
        }
        self.count += 1;
        self.owners.entry(owner.to_vec()).or_default().push(waiter);
        Ok(())
    }

    /// Everybody who waits for this owner.
    pub fn take(&mut self, owner: &[u8]) -> Vec<Waiter> {
        let waiters = self.owners.remove(owner).unwrap_or_default();
        self.count -= waiters.len();
        waiters
    }
}

/// Open connections by client address; IPv6 by its /64, because a host has all of one.
#[derive(Debug, Default)]
pub struct AddressCounts {
    counts: HashMap<IpAddr, usize>,
}

impl AddressCounts {
    /// Counts one more connection; returns how many there are now, and what to give back to [`AddressCounts::remove`].
    pub fn add(&mut self, address: IpAddr) -> (usize, IpAddr) {
        let group = group(address);
        let count = self.counts.entry(group).or_insert(0);
        *count += 1;
        (*count, group)
    }

    pub fn remove(&mut self, group: IpAddr) {
        if let Some(count) = self.counts.get_mut(&group) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&group);
            }
        }
    }
}

fn group(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_owner_does_not_fill_the_waiting_room() {
        let waiter = || Waiter::Put(Key::from_token(0).unwrap());
        let mut waiting = Waiting::default();
        let fill = |waiting: &mut Waiting, owner: &str| {
            let pushed = (0..2 * MOST_WAITING).map(|_| waiting.push(owner.as_bytes(), waiter()));
            pushed.filter(Result::is_ok).count()
        };
        assert_eq!(fill(&mut waiting, "flood"), MOST_WAITING_FOR_ONE);
        assert_eq!(fill(&mut waiting, "other"), MOST_WAITING_FOR_ONE);
        assert_eq!(waiting.take(b"flood").len(), MOST_WAITING_FOR_ONE);
        assert_eq!(fill(&mut waiting, "flood"), MOST_WAITING_FOR_ONE);
        let all: usize = (0..100).map(|n| fill(&mut waiting, &n.to_string())).sum();
        assert_eq!(all + 2 * MOST_WAITING_FOR_ONE, MOST_WAITING);
    }
}
