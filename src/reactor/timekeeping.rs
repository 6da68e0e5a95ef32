//! Watches the wall clock, and keeps what has to be known of it after a restart.
//!
//! ```text
//!   Idle ── a jump, an hour ──▶ SyncingFile ── rename ──▶ SyncingFolders ──▶ Idle
//!   Idle ── all times are right ──▶ SyncingTree ──▶ SyncingFile ...
//! ```
//!
//! A correction is on stable storage soon after the jump, and is dropped there only when the times that the sweep has
//! set are.

use std::io;
use std::time::Duration;

use crate::clock::{Change, Clock, RECORD_INTERVAL};
use crate::now::Now;
use crate::reactor::Reactor;
use crate::reactor::life::plan;
use crate::reactor::shared::CLOCK_KEY;
use crate::store::Store;
use crate::syncer::Work;
use crate::sys;

/// The name of the record where the host does not tell its boots apart.
const UNKNOWN_BOOT: &str = "unknown";

/// The clock, and how far its record is.
#[derive(Debug)]
pub(super) struct Timekeeper {
    clock: Clock,
    /// The name of the record: the identity of the boot.
    name: String,
    stage: Stage,
    /// Whether the record has to be written again.
    is_changed: bool,
    /// Seconds since boot when it has to be at the latest.
    due: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Idle,
    SyncingTree,
    SyncingFile,
    SyncingFolders,
}

impl Timekeeper {
    /// Takes up the records of the store and replaces them by one.
    pub(super) fn start(store: &mut Store, fsync: bool, now: Now) -> (Timekeeper, Option<Change>) {
        let boot_id = sys::boot_id();
        let (wall, uptime) = clocks(now);
        let records = store.clock_records();
        let (clock, change) = Clock::start(&records, boot_id.as_deref(), wall, uptime);
        let name = boot_id.unwrap_or(UNKNOWN_BOOT.to_owned());
        store.set_times(clock.file_times(), false);
        let written = store
            .write_clock_record(&name, &clock.record())
            .and_then(|file| {
                if fsync {
                    rustix::fs::fsync(&file)?;
                }
                for folder in store.name_clock_record(&name)?.iter().rev() {
                    if fsync {
                        rustix::fs::fsync(folder)?;
                    }
                }
                Ok(())
            });
        match written {
            Ok(()) => store.drop_other_clock_records(&name),
            Err(error) => log::error!("clock record not kept why={:?}", error.to_string()),
        }
        if !clock.is_known() {
            log::warn!("clock is not set: no file expires by age until it is, or for a day");
        }
        let keeper = Timekeeper {
            clock,
            name,
            stage: Stage::Idle,
            is_changed: false,
            due: uptime.saturating_add(RECORD_INTERVAL),
        };
        (keeper, change)
    }
}

impl Reactor {
    /// Looks at the clock, once a turn.
    pub(super) fn watch_clock(&mut self, now: Now) {
        let (wall, uptime) = clocks(now);
        let keeper = &mut self.timekeeper;
        let change = keeper.clock.observe(wall, uptime);
        if change.is_some() || !keeper.clock.is_known() {
            let times = keeper.clock.file_times();
            self.shared.set_times(times, change.is_some());
        }
        if let Some(change) = change {
            let plan = plan(&self.shared.config, &self.shared.service);
            let pause = match change {
                Change::Forward(_) | Change::Back(_) => self.sweep.settle(&plan, now.mono),
                Change::Believed => None,
            };
            self.clock_changed(change, pause);
        }
        if self.timekeeper.due <= uptime {
            self.timekeeper.is_changed = true;
        }
        self.keep_clock_record(now);
    }

    /// Says what has become of the clock, and for how long the sweep waits for it to stay so.
    pub(super) fn clock_changed(&mut self, change: Change, pause: Option<Duration>) {
        let pause = pause.map_or(String::new(), |pause| {
            format!(" sweep_in={}", pause.as_secs())
        });
        match change {
            Change::Forward(seconds) => log::warn!("clock jumped forward seconds={seconds}{pause}"),
            Change::Back(seconds) => log::warn!("clock jumped back seconds={seconds}{pause}"),
            Change::Believed => log::warn!("clock is believed though nothing has set it"),
        }
        self.timekeeper.is_changed = true;
    }

    /// A sweep has seen every file, and set the times that were wrong.
    pub(super) fn times_corrected(&mut self, now: Now) {
        let keeper = &mut self.timekeeper;
        if !keeper.clock.is_known() || !keeper.clock.has_corrections() {
            return;
        }
        keeper.clock.corrected();
        self.shared
            .set_times(self.timekeeper.clock.file_times(), false);
        if !self.shared.config.fsync {
            self.timekeeper.is_changed = true;
            return;
        }
        match self.shared.store.root().try_clone_to_owned() {
            Ok(root) => self.submit_clock(Stage::SyncingTree, Work::FileSystem(root), now),
            Err(error) => clock_record_failed(&error),
        }
    }

    /// What was handed to the syncing thread has its result.
    pub(super) fn clock_synced(&mut self, result: io::Result<()>, now: Now) {
        let stage = std::mem::replace(&mut self.timekeeper.stage, Stage::Idle);
        if let Err(error) = result {
            return clock_record_failed(&error);
        }
        match stage {
            Stage::SyncingTree => self.timekeeper.is_changed = true,
            Stage::SyncingFile => self.name_clock_record(now),
            Stage::SyncingFolders | Stage::Idle => {}
        }
        self.keep_clock_record(now);
    }

    fn keep_clock_record(&mut self, now: Now) {
        let keeper = &mut self.timekeeper;
        if keeper.stage != Stage::Idle || !keeper.is_changed {
            return;
        }
        keeper.is_changed = false;
        keeper.due = clocks(now).1.saturating_add(RECORD_INTERVAL);
        let store = &self.shared.store;
        match store.write_clock_record(&keeper.name, &keeper.clock.record()) {
            Ok(file) if self.shared.config.fsync => {
                self.submit_clock(Stage::SyncingFile, Work::File(file), now);
            }
            Ok(_) => self.name_clock_record(now),
            Err(error) => clock_record_failed(&error),
        }
    }

    fn name_clock_record(&mut self, now: Now) {
        match self.shared.store.name_clock_record(&self.timekeeper.name) {
            Ok(folders) if self.shared.config.fsync => {
                self.submit_clock(Stage::SyncingFolders, Work::Folders(folders), now);
            }
            Ok(_) => {}
            Err(error) => clock_record_failed(&error),
        }
    }

    fn submit_clock(&mut self, stage: Stage, work: Work, now: Now) {
        self.timekeeper.stage = stage;
        if let Err(error) = self.shared.syncer.submit(CLOCK_KEY, work) {
            self.clock_synced(Err(error), now);
        }
    }
}

/// The wall clock and the time since boot, in seconds.
fn clocks(now: Now) -> (i64, i64) {
    let seconds = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
    (seconds(now.unix()), seconds(sys::since_boot().as_secs()))
}

/// It is tried again within the hour.
fn clock_record_failed(error: &io::Error) {
    log::error!("clock record not kept why={:?}", error.to_string());
}
