//! Rate limits: sliding windows over the slots issued to each owner.
//!
//! A request for `size` bytes at second `t` passes a window if the slots issued in `(t - delta, t]` plus the requested
//! one stay within the window's limit; exactly the limit is allowed. A refusal gives the exact second at which the
//! same request will pass if no other slot is issued until then, or says that it never will.
//!
//! This module knows neither rules nor files: limits are passed in as an argument. Slots issued before the process
//! started, or before an owner was dropped from memory, are reconstructed by the caller from the modification times
//! and sizes of the owner's files; until then the owner is [`RateCheck::Unknown`]. Time is wall-clock time in Unix
//! seconds, because windows outlive the process. If the clock is set back, slots that would lie in the future count
//! as issued now, so a window never blocks an owner for longer than its length. If the clock had jumped far ahead, the
//! files are read again.
//!
//! # Cost
//!
//! A request costs one hash table lookup and a binary search per window. An owner costs at most [`MAX_CHECKPOINTS`]
//! checkpoints of 32 bytes, 8 KiB in total, and at most [`MAX_OWNERS`] owners are remembered. A checkpoint covers one
//! second, so windows are exact until an owner gets slots in more than that many distinct seconds of the longest
//! window. Beyond that, neighbouring checkpoints are merged into the latest of them. The error is always on the
//! restrictive side: a window of `delta` counts a slot for less than `delta * n / 64` seconds longer than `delta`,
//! where `n` is the number of distinct deltas of the rule. For a single window of one hour that is at most 31 s, of
//! one day 17 minutes.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, UNIX_EPOCH};

use crate::policy::rules::{Limits, MAX_WINDOWS};
use crate::refusal::Refusal;

/// Maximum number of owners in memory. Beyond it, owners without recent requests become unknown again.
pub const MAX_OWNERS: usize = 4096;

/// Maximum number of checkpoints per owner.
pub const MAX_CHECKPOINTS: usize = 256;

/// Approximate number of checkpoints that thinning leaves. Half of the maximum, so that thinning is rare.
const TARGET_CHECKPOINTS: u64 = 128;

/// Maximum number of distinct deltas that thinning takes into account: all that one rule can have.
const MAX_DELTAS: usize = 2 * MAX_WINDOWS;

/// The unit that a window counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowKind {
    Bytes,
    Uploads,
}

/// A window and its current usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowUsage {
    pub kind: WindowKind,
    /// Length of the window.
    pub delta: Duration,
    /// Bytes or slots; inclusive.
    pub limit: u64,
    /// Bytes or slots issued within the window; above the limit if the limit has been lowered.
    pub used: u64,
}

/// Whether a slot may be issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateCheck {
    /// Every window has room.
    Allowed,
    /// The owner's files must be loaded first ([`Rates::loaded`]).
    Unknown,
    /// At least one window is full.
    Refused {
        /// The window that stays full for longest.
        over: WindowUsage,
        /// The Unix second at which the same request passes all windows; `None` means never.
        retry: Option<u64>,
    },
}

impl WindowUsage {
    /// The refusal of a request for `size` bytes that does not pass this window; `retry` as in [`RateCheck::Refused`].
    pub fn refusal(&self, size: u64, retry: Option<u64>) -> Refusal {
        Refusal::Rate {
            bytes: self.kind == WindowKind::Bytes,
            size,
            used: self.used,
            limit: self.limit,
            delta: self.delta,
            retry: retry.and_then(|at| UNIX_EPOCH.checked_add(Duration::from_secs(at))),
        }
    }
}

/// The windows of all owners.
#[derive(Debug)]
pub struct Rates {
    /// Maximum number of owners in memory, at least 4.
    capacity: usize,
    /// Owners with requests since `older` was filled; at most half of the capacity.
    recent: HashMap<Vec<u8>, Record>,
    /// Owners without requests since then; dropped when `recent` is full. At most half of the capacity.
    older: HashMap<Vec<u8>, Record>,
}

impl Default for Rates {
    fn default() -> Rates {
        Rates::new(MAX_OWNERS)
    }
}

impl Rates {
    /// Creates a table of at most `capacity` owners, but no fewer than 4.
    fn new(capacity: usize) -> Rates {
        Rates {
            capacity: capacity.max(4),
            recent: HashMap::new(),
            older: HashMap::new(),
        }
    }

    /// Whether a slot of `size` bytes may be issued. Counts nothing; [`Rates::issued`] does.
    pub fn check(&mut self, owner: &[u8], limits: &Limits, size: u64, now: u64) -> RateCheck {
        let reach = reach(limits);
        if reach == 0 {
            return RateCheck::Allowed;
        }
        let now = now.max(1);
        let Some(record) = self.known(owner, reach, now) else {
            return RateCheck::Unknown;
        };
        let mut outcome = RateCheck::Allowed;
        let mut longest = 0;
        for window in windows(limits) {
            let amount = match window.kind {
                WindowKind::Bytes => size,
                WindowKind::Uploads => 1,
            };
            let over = record.fill(window, now);
            if u128::from(over.used) + u128::from(amount) <= u128::from(over.limit) {
                continue;
            }
            let retry = record.room_at(window, amount);
            if retry.unwrap_or(u64::MAX) > longest {
                longest = retry.unwrap_or(u64::MAX);
                outcome = RateCheck::Refused { over, retry };
            }
        }
        outcome
    }

    /// Every window with its current usage; `None` if the owner's files must be loaded first.
    pub fn uses(&mut self, owner: &[u8], limits: &Limits, now: u64) -> Option<Vec<WindowUsage>> {
        let reach = reach(limits);
        if reach == 0 {
            return Some(Vec::new());
        }
        let now = now.max(1);
        let record = self.known(owner, reach, now)?;
        Some(
            windows(limits)
                .map(|window| record.fill(window, now))
                .collect(),
        )
    }

    /// A slot of `size` bytes was issued.
    pub fn issued(&mut self, owner: &[u8], limits: &Limits, size: u64, now: u64) {
        let reach = reach(limits);
        if reach == 0 {
            return;
        }
        let now = now.max(1);
        if self.record(owner, now).is_none() {
            self.insert(owner.to_vec(), Record::since(now), now);
        }
        if let Some(record) = self.record(owner, now) {
            record.advance(reach, now);
            record.add(now, u128::from(size), 1);
            record.thin(limits, now);
        }
    }

    /// Loads the stored files of an owner as pairs of modification time (Unix seconds) and size, in any order. Files
    /// that are older than the longest window may be left out; see [`reach`].
    ///
    /// Slots issued in the meantime are kept, and a file is counted only if it predates the owner's record; the slots
    /// of later files are already counted.
    pub fn loaded(&mut self, owner: &[u8], limits: &Limits, files: &[(u64, u64)], now: u64) {
        let reach = reach(limits);
        if reach == 0 {
            return;
        }
        let now = now.max(1);
        if self.record(owner, now).is_none() {
            self.insert(owner.to_vec(), Record::since(u64::MAX), now);
        }
        if let Some(record) = self.record(owner, now) {
            record.load(limits, files, now);
            record.advance(reach, now);
        }
    }

    /// Drops all owners; each is loaded again at its next request. For use after the storage folder was replaced.
    pub fn forget(&mut self) {
        self.recent.clear();
        self.older.clear();
    }

    /// Drops one owner, who is loaded again at the next request.
    pub fn forget_owner(&mut self, owner: &[u8]) {
        self.recent.remove(owner);
        self.older.remove(owner);
    }

    /// The record of an owner, if it covers the last `reach` seconds.
    fn known(&mut self, owner: &[u8], reach: u64, now: u64) -> Option<&Record> {
        let record = self.record(owner, now)?;
        record.advance(reach, now);
        (record.since <= now.saturating_sub(reach)).then_some(record)
    }

    fn record(&mut self, owner: &[u8], now: u64) -> Option<&mut Record> {
        if let Some((owner, record)) = self.older.remove_entry(owner) {
            self.insert(owner, record, now);
        }
        self.recent.get_mut(owner)
    }

    fn insert(&mut self, owner: Vec<u8>, record: Record, now: u64) {
        if self.recent.len() >= self.capacity / 2 {
            // Owners with empty windows are dropped first. If that frees too little, which would soon repeat the
            // scan, the owners without recent requests are dropped as well.
            self.recent.retain(|_, record| record.is_live(now));
            if self.recent.len() > self.capacity / 4 {
                self.older = std::mem::take(&mut self.recent);
            }
        }
        self.recent.insert(owner, record);
    }
}

/// Length of the longest window in seconds; 0 if there are no windows. Older slots and files do not count.
pub fn reach(limits: &Limits) -> u64 {
    windows(limits).map(seconds).max().unwrap_or(0)
}

/// All windows of some limits, with a usage of 0.
fn windows(limits: &Limits) -> impl Iterator<Item = WindowUsage> + '_ {
    let bytes = limits.bytes.iter().map(|window| WindowUsage {
        kind: WindowKind::Bytes,
        delta: window.delta,
        limit: window.bytes,
        used: 0,
    });
    let uploads = limits.uploads.iter().map(|window| WindowUsage {
        kind: WindowKind::Uploads,
        delta: window.delta,
        limit: window.uploads,
        used: 0,
    });
    bytes.chain(uploads)
}

fn seconds(window: WindowUsage) -> u64 {
    window.delta.as_secs().max(1)
}

/// The slots issued to one owner. All times are at least 1, so that 0 precedes everything.
#[derive(Debug)]
struct Record {
    /// The record is complete for all times after this second.
    since: u64,
    /// Length in seconds of the longest window at the last request.
    reach: u64,
    /// Totals of the last checkpoint that was dropped from the front of `checkpoints`.
    dropped: Totals,
    /// Times increase strictly, totals never decrease.
    checkpoints: VecDeque<Checkpoint>,
}

/// Cumulative totals up to and including this second.
#[derive(Clone, Copy, Debug)]
struct Checkpoint {
    time: u64,
    totals: Totals,
}

/// Sums over all recorded slots. They cannot overflow: 2^64 slots of 2^64 bytes fit.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    bytes: u128,
    uploads: u64,
}

impl Totals {
    fn of(&self, kind: WindowKind) -> u128 {
        match kind {
            WindowKind::Bytes => self.bytes,
            WindowKind::Uploads => u128::from(self.uploads),
        }
    }
}

impl Record {
    fn since(since: u64) -> Record {
        Record {
            since,
            reach: 0,
            dropped: Totals::default(),
            checkpoints: VecDeque::new(),
        }
    }

    /// Totals of the whole record.
    fn total(&self) -> Totals {
        self.checkpoints
            .back()
            .map_or(self.dropped, |checkpoint| checkpoint.totals)
    }

    /// Totals up to and including this second.
    fn until(&self, time: u64) -> Totals {
        let after = self
            .checkpoints
            .partition_point(|checkpoint| checkpoint.time <= time);
        match after.checked_sub(1).and_then(|at| self.checkpoints.get(at)) {
            Some(checkpoint) => checkpoint.totals,
            None => self.dropped,
        }
    }

    /// The window with its current usage.
    fn fill(&self, window: WindowUsage, now: u64) -> WindowUsage {
        let before = self.until(now.saturating_sub(seconds(window)));
        let used = self.total().of(window.kind) - before.of(window.kind);
        WindowUsage {
            used: u64::try_from(used).unwrap_or(u64::MAX),
            ..window
        }
    }

    /// The second at which a window that has no room for `amount` will have it; `None` means never.
    fn room_at(&self, window: WindowUsage, amount: u64) -> Option<u64> {
        let allowance = window.limit.checked_sub(amount)?;
        // There is room once the checkpoint at which the totals reach `excess` has left the window.
        let excess = (self.total().of(window.kind)).saturating_sub(u128::from(allowance));
        let at = self
            .checkpoints
            .partition_point(|checkpoint| checkpoint.totals.of(window.kind) < excess);
        let last = self.checkpoints.get(at)?;
        Some(last.time.saturating_add(seconds(window)))
    }

    /// Moves the record to the current time: no checkpoint lies in the future, and those that have left every window are
    /// dropped.
    fn advance(&mut self, reach: u64, now: u64) {
        self.reach = reach;
        if self
            .checkpoints
            .back()
            .is_some_and(|checkpoint| checkpoint.time > now)
        {
            let totals = self.total();
            let past = self
                .checkpoints
                .partition_point(|checkpoint| checkpoint.time < now);
            self.checkpoints.truncate(past);
            self.checkpoints.push_back(Checkpoint { time: now, totals });
        }
        let edge = now.saturating_sub(reach);
        while self
            .checkpoints
            .front()
            .is_some_and(|checkpoint| checkpoint.time <= edge)
        {
            if let Some(checkpoint) = self.checkpoints.pop_front() {
                self.dropped = checkpoint.totals;
            }
        }
        if self.checkpoints.is_empty() {
            self.checkpoints = VecDeque::new();
        }
        self.since = self.since.max(edge);
    }

    /// Adds slots issued in the last second of the record or later.
    fn add(&mut self, time: u64, bytes: u128, uploads: u64) {
        let before = self.total();
        let totals = Totals {
            bytes: before.bytes.saturating_add(bytes),
            uploads: before.uploads.saturating_add(uploads),
        };
        match self.checkpoints.back_mut() {
            Some(last) if last.time >= time => last.totals = totals,
            _ => self.checkpoints.push_back(Checkpoint { time, totals }),
        }
    }

    /// Merges stored files into the record.
    fn load(&mut self, limits: &Limits, files: &[(u64, u64)], now: u64) {
        let edge = now.saturating_sub(reach(limits));
        let mut events: Vec<(u64, u128, u64)> = files
            .iter()
            .filter(|(modified, _)| *modified <= self.since)
            .map(|(modified, size)| ((*modified).clamp(1, now), u128::from(*size), 1))
            .filter(|(time, ..)| *time > edge)
            .collect();
        let mut before = self.dropped;
        for checkpoint in &self.checkpoints {
            let bytes = checkpoint.totals.bytes - before.bytes;
            let uploads = checkpoint.totals.uploads - before.uploads;
            events.push((checkpoint.time.min(now), bytes, uploads));
            before = checkpoint.totals;
        }
        events.sort_unstable_by_key(|(time, ..)| *time);
        *self = Record::since(0);
        for (time, bytes, uploads) in events {
            self.add(time, bytes, uploads);
            self.thin(limits, now);
        }
    }

    /// Merges neighbouring checkpoints if there are too many: of all checkpoints in a cell, only the last is kept.
    ///
    /// Cells lie on a fixed grid that is finer for recent checkpoints. The cells of a finer grid subdivide those of
    /// the next coarser one, so repeated merging never moves a slot out of its cell. Window boundaries are cell
    /// boundaries, so a slot that has left a window never re-enters it.
    fn thin(&mut self, limits: &Limits, now: u64) {
        if self.checkpoints.len() <= MAX_CHECKPOINTS {
            return;
        }
        let mut deltas: Vec<u64> = windows(limits).map(seconds).collect();
        deltas.sort_unstable();
        deltas.dedup();
        let excess = deltas.len().saturating_sub(MAX_DELTAS);
        deltas.drain(..excess);
        // Each delta gets an equal share of the checkpoints. At most `TARGET_CHECKPOINTS + 2 * MAX_DELTAS` remain.
        let share = deltas.len() as u64;
        let width = |delta: &u64| {
            let width = u128::from(*delta) * u128::from(share);
            let width = width.div_ceil(u128::from(TARGET_CHECKPOINTS));
            u64::try_from(width.next_power_of_two()).unwrap_or(u64::MAX)
        };
        let widths: Vec<u64> = deltas.iter().map(width).collect();
        let cell = |checkpoint: &Checkpoint| {
            let age = now.saturating_sub(checkpoint.time);
            let grid = deltas.partition_point(|delta| *delta <= age);
            (
                grid,
                widths.get(grid).map_or(0, |width| checkpoint.time / width),
            )
        };
        let cells: Vec<(usize, u64)> = self.checkpoints.iter().map(cell).collect();
        let mut next = 0;
        self.checkpoints.retain(|_| {
            next += 1;
            cells.get(next) != cells.get(next - 1)
        });
    }

    /// Whether any slot is still within a window.
    fn is_live(&self, now: u64) -> bool {
        let expires = |checkpoint: &Checkpoint| checkpoint.time.saturating_add(self.reach);
        self.checkpoints
            .back()
            .is_some_and(|checkpoint| expires(checkpoint) > now)
    }
}

#[cfg(test)]
mod tests;
