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

use crate::clock::{Change, RECORD_INTERVAL};
use crate::now::Now;
use crate::reactor::Reactor;
use crate::reactor::lifecycle::plan;
use crate::reactor::sync_token::SyncToken;
use crate::reactor::timekeeper::{Stage, clocks};
use crate::syncer::Work;

impl Reactor {
    /// Checks the clock, once per turn.
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

    /// Logs a change of the clock; `pause` is how long the sweep waits for the clock to stay.
    pub(super) fn clock_changed(&mut self, change: Change, pause: Option<Duration>) {
        let pause = pause.map_or(String::new(), |pause| {
            format!(" sweep_in={}", pause.as_secs())
        });
        match change {
            Change::Forward(seconds) => log::warn!("clock jumped forward seconds={seconds}{pause}"),
            Change::Back(seconds) => log::warn!("clock jumped back seconds={seconds}{pause}"),
            Change::Believed => log::warn!("clock is used although nothing has set it"),
        }
        self.timekeeper.is_changed = true;
    }

    /// A sweep has visited every file and corrected its modification time.
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

    /// The result of a sync job.
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

    /// Writes the record, if it has changed and is not being written.
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

    /// Gives the record that was written its name.
    fn name_clock_record(&mut self, now: Now) {
        match self.shared.store.name_clock_record(&self.timekeeper.name) {
            Ok(folder) if self.shared.config.fsync => {
                self.submit_clock(Stage::SyncingFolders, Work::Folders(vec![folder]), now);
            }
            Ok(_) => {}
            Err(error) => clock_record_failed(&error),
        }
    }

    fn submit_clock(&mut self, stage: Stage, work: Work, now: Now) {
        self.timekeeper.stage = stage;
        if let Err(error) = self.shared.syncer.submit(SyncToken::Clock, work) {
            self.clock_synced(Err(error), now);
        }
    }
}

/// The record is written again within an hour.
fn clock_record_failed(error: &io::Error) {
    log::error!("clock record not kept why={:?}", error.to_string());
}
