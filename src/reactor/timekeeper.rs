//! Watches the wall clock for jumps, and records its corrections for the next start.
//!
//! ```text
//!   Idle ── a jump, an hour ──▶ SyncingFile ── rename ──▶ SyncingFolders ──▶ Idle
//!   Idle ── all times are right ──▶ SyncingTree ──▶ SyncingFile ...
//! ```
//!
//! A correction is on stable storage soon after a jump, and is removed from the record only when the modification times
//! that the sweep has corrected are on stable storage.

use std::io;
use std::time::Duration;

use crate::clock::{Change, Clock, RECORD_INTERVAL};
use crate::now::Now;
use crate::reactor::shared::Shared;
use crate::reactor::sync_token::SyncToken;
use crate::store::Store;
#[cfg(feature = "s3")]
use crate::store::sweep;
use crate::store::sweep::Sweep;
use crate::syncer::Work;
use crate::sys;

/// The name of the record on hosts without a boot ID.
const UNKNOWN_BOOT: &str = "unknown";

/// The clock, and the state of its record.
#[derive(Debug)]
pub struct Timekeeper {
    clock: Clock,
    /// The name of the record: the boot ID.
    name: String,
    stage: Stage,
    /// Whether the record has to be written again.
    is_changed: bool,
    /// Seconds since boot at which it must be written at the latest.
    due: i64,
}

/// The step that the record waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Idle,
    SyncingTree,
    SyncingFile,
    SyncingFolders,
}

impl Timekeeper {
    /// Reads the records of the store and replaces them by a single one. Without a folder there are none.
    pub fn start(store: Option<&mut Store>, fsync: bool, now: Now) -> Timekeeper {
        let boot_id = sys::boot_id();
        let (wall, uptime) = clocks(now);
        let records = store.as_deref().map(Store::clock_records);
        let records = records.unwrap_or_default();
        let (clock, change) = Clock::start(&records, boot_id.as_deref(), wall, uptime);
        let name = boot_id.unwrap_or(UNKNOWN_BOOT.to_owned());
        if let Some(store) = store {
            store.set_times(clock.file_times(), false);
            match keep_first_record(store, &name, &clock, fsync) {
                Ok(()) => store.drop_other_clock_records(&name),
                Err(error) => record_failed(&error),
            }
        }
        if !clock.is_known() {
            log::warn!("clock is not set: no file expires by age until it is, or for a day");
        }
        if let Some(change) = change {
            // The first sweep is not due yet, so it need not be delayed.
            log_change(change, None);
        }
        Timekeeper {
            clock,
            name,
            stage: Stage::Idle,
            is_changed: false,
            due: uptime.saturating_add(RECORD_INTERVAL),
        }
    }

    /// Checks the clock, once per turn.
    pub fn watch(&mut self, shared: &mut Shared, sweep: &mut Sweep, now: Now) {
        let (wall, uptime) = clocks(now);
        let change = self.clock.observe(wall, uptime);
        if change.is_some() || !self.clock.is_known() {
            shared.set_times(self.clock.file_times(), change.is_some());
        }
        if let Some(change) = change {
            let pause = match change {
                Change::Forward(_) | Change::Back(_) => {
                    sweep.settle(&shared.sweep_plan(), now.mono)
                }
                Change::Believed => None,
            };
            #[cfg(feature = "s3")]
            if let Some(bucket) = shared.storage.bucket_mut() {
                bucket.tasks.delay_sweep(sweep::SETTLING, now.mono);
            }
            log_change(change, pause);
        }
        if change.is_some() || self.due <= uptime {
            self.is_changed = true;
        }
        self.keep_record(shared, now);
    }

    /// A sweep has visited every file and corrected its modification time.
    pub fn times_corrected(&mut self, shared: &mut Shared) {
        if !self.clock.is_known() || !self.clock.has_corrections() {
            return;
        }
        self.clock.corrected();
        shared.set_times(self.clock.file_times(), false);
        if !shared.config.fsync {
            self.is_changed = true;
            return;
        }
        let Some(store) = shared.storage.folder() else {
            return;
        };
        match store.root().try_clone_to_owned() {
            Ok(root) => self.submit(Stage::SyncingTree, Work::FileSystem(root), shared),
            Err(error) => record_failed(&error),
        }
    }

    /// The result of a sync job.
    pub fn synced(&mut self, result: io::Result<()>, shared: &mut Shared, now: Now) {
        let stage = std::mem::replace(&mut self.stage, Stage::Idle);
        if let Err(error) = result {
            return record_failed(&error);
        }
        match stage {
            Stage::SyncingTree => self.is_changed = true,
            Stage::SyncingFile => self.name_record(shared),
            Stage::SyncingFolders | Stage::Idle => {}
        }
        self.keep_record(shared, now);
    }

    /// Writes the record, if it has changed and is not being written.
    fn keep_record(&mut self, shared: &mut Shared, now: Now) {
        if self.stage != Stage::Idle || !self.is_changed {
            return;
        }
        self.is_changed = false;
        self.due = clocks(now).1.saturating_add(RECORD_INTERVAL);
        let record = self.clock.record();
        let Some(store) = shared.storage.folder_mut() else {
            return;
        };
        match store.write_clock_record(&self.name, &record) {
            Ok(file) if shared.config.fsync => {
                self.submit(Stage::SyncingFile, Work::File(file), shared);
            }
            Ok(_) => self.name_record(shared),
            Err(error) => record_failed(&error),
        }
    }

    /// Gives the record that was written its name.
    fn name_record(&mut self, shared: &mut Shared) {
        let Some(store) = shared.storage.folder_mut() else {
            return;
        };
        match store.name_clock_record(&self.name) {
            Ok(folder) if shared.config.fsync => {
                self.submit(Stage::SyncingFolders, Work::Folders(vec![folder]), shared);
            }
            Ok(_) => {}
            Err(error) => record_failed(&error),
        }
    }

    fn submit(&mut self, stage: Stage, work: Work, shared: &mut Shared) {
        self.stage = stage;
        shared.syncer.submit(SyncToken::Clock, work);
    }
}

/// Writes the record of this start.
fn keep_first_record(store: &mut Store, name: &str, clock: &Clock, fsync: bool) -> io::Result<()> {
    let file = store.write_clock_record(name, &clock.record())?;
    if fsync {
        rustix::fs::fsync(&file)?;
    }
    let folder = store.name_clock_record(name)?;
    if fsync {
        rustix::fs::fsync(&folder)?;
    }
    Ok(())
}

/// Logs a change of the clock; `pause` is how long the sweep waits for the clock to stay.
fn log_change(change: Change, pause: Option<Duration>) {
    let pause = pause.map_or(String::new(), |pause| {
        format!(" sweep_in={}", pause.as_secs())
    });
    match change {
        Change::Forward(seconds) => log::warn!("clock jumped forward seconds={seconds}{pause}"),
        Change::Back(seconds) => log::warn!("clock jumped back seconds={seconds}{pause}"),
        Change::Believed => log::warn!("clock is used although nothing has set it"),
    }
}

/// The record is written again within an hour.
fn record_failed(error: &io::Error) {
    log::error!("clock record not kept why={:?}", error.to_string());
}

/// The wall clock and the time since boot, in seconds.
fn clocks(now: Now) -> (i64, i64) {
    let seconds = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
    (seconds(now.unix()), seconds(sys::since_boot().as_secs()))
}
