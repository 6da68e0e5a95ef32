//! How much was issued lately: sliding windows over each owner's slots.
//!
//! A slot of `size` bytes asked for in second `t` passes a window when what was issued in `(t - delta, t]` and the
//! slot itself stay within the window's limit; exactly the limit is allowed. A refusal tells the exact second in
//! which the same slot will pass, if nothing else is issued until then, or that it never will.
//!
//! It refuses to know rules and files: limits come as an argument, and what was issued before this process lived, or
//! before an owner was forgotten, is learned from the files' times and sizes by whoever can read them. Such an owner
//! is [`Outcome::Unknown`] until then. Time is the wall clock's, in Unix seconds, because windows outlive the
//! process. When that clock goes back, whatever would lie in the future counts as issued now, so nobody is locked
//! out for longer than a window is long; when it went far ahead, the files are asked once more.
//!
//! # Cost
//!
//! A request costs one look into a table and a binary search per window. An owner costs at most [`MOST_MARKS`] marks
//! of 32 bytes, 8 KiB, and there are at most [`MOST_OWNERS`] of them. One mark stands for one second, so windows are
//! exact until an owner gets slots in more than that many different seconds of the longest window. Past it,
//! neighbours are counted as if issued together with the last of them. That is always on the safe side: a window of
//! `delta` counts a slot for less than `delta * n / 64` seconds longer than `delta`, where `n` is the number of
//! different deltas of the rule. For the only window of an hour that is at most 31 s, of a day 17 minutes.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::policy::rules::{Limits, MOST_WINDOWS};

/// Owners that are remembered. Past it those who were not asked for lately are unknown again.
pub const MOST_OWNERS: usize = 4096;

/// Marks of one owner.
pub const MOST_MARKS: usize = 256;

/// About how many marks of one owner are left by thinning. Half of what may be, so that thinning is rare.
const THINNED: u64 = 128;

/// Different deltas for which thinning is exact about the edges: all that one rule can have.
const MOST_DELTAS: usize = 2 * MOST_WINDOWS;

/// What a window counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bytes,
    Uploads,
}

/// A window and what is in it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    pub kind: Kind,
    /// Length of the window.
    pub delta: Duration,
    /// Bytes or slots; exactly so many are allowed.
    pub limit: u64,
    /// Bytes or slots issued within the window; may be above the limit when the limit was higher before.
    pub used: u64,
}

/// Whether a slot may be issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every window has room.
    Allowed,
    /// The owner's files must be learned first ([`Rates::learned`]).
    Unknown,
    /// At least one window has no room.
    Refused {
        /// The window that stands in the way for longest.
        over: Use,
        /// The second in which the same slot passes all windows, Unix time; `None` is never.
        retry: Option<u64>,
    },
}

/// The windows of all owners.
#[derive(Debug)]
pub struct Rates {
    /// Owners that are remembered, at least 4.
    most: usize,
    /// Owners asked for since `older` was filled; at most half of all.
    recent: HashMap<Vec<u8>, Record>,
    /// Owners not asked for since; forgotten when `recent` is full. At most half of all.
    older: HashMap<Vec<u8>, Record>,
}

impl Default for Rates {
    fn default() -> Rates {
        Rates::new(MOST_OWNERS)
    }
}

impl Rates {
    /// Remembers at most so many owners; fewer than 4 are taken for 4.
    pub fn new(most: usize) -> Rates {
        Rates {
            most: most.max(4),
            recent: HashMap::new(),
            older: HashMap::new(),
        }
    }

    /// Number of owners remembered now.
    pub fn owners(&self) -> usize {
        self.recent.len() + self.older.len()
    }

    /// Whether a slot of `size` bytes may be issued. Changes no count; [`Rates::issued`] does.
    pub fn check(&mut self, owner: &[u8], limits: &Limits, size: u64, now: u64) -> Outcome {
        let reach = reach(limits);
        if reach == 0 {
            return Outcome::Allowed;
        }
        let now = now.max(1);
        let Some(record) = self.known(owner, reach, now) else {
            return Outcome::Unknown;
        };
        let mut outcome = Outcome::Allowed;
        let mut longest = 0;
        for window in windows(limits) {
            let amount = match window.kind {
                Kind::Bytes => size,
                Kind::Uploads => 1,
            };
            let over = record.fill(window, now);
            if u128::from(over.used) + u128::from(amount) <= u128::from(over.limit) {
                continue;
            }
            let retry = record.room_at(window, amount);
            if retry.unwrap_or(u64::MAX) > longest {
                longest = retry.unwrap_or(u64::MAX);
                outcome = Outcome::Refused { over, retry };
            }
        }
        outcome
    }

    /// Every window with what is in it; `None` when the owner's files must be learned first.
    pub fn uses(&mut self, owner: &[u8], limits: &Limits, now: u64) -> Option<Vec<Use>> {
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
            record.turn(reach, now);
            record.add(now, u128::from(size), 1);
            record.thin(limits, now);
        }
    }

    /// The files of an owner as they are stored: times of modification, Unix, and bytes, in any order. Files as old
    /// as the longest window may be left out; see [`reach`].
    ///
    /// What was issued meanwhile is kept, and a file is counted only if it is older than that record, because its
    /// slot is in there already.
    pub fn learned(&mut self, owner: &[u8], limits: &Limits, files: &[(u64, u64)], now: u64) {
        let reach = reach(limits);
        if reach == 0 {
            return;
        }
        let now = now.max(1);
        if self.record(owner, now).is_none() {
            self.insert(owner.to_vec(), Record::since(u64::MAX), now);
        }
        if let Some(record) = self.record(owner, now) {
            record.learn(limits, files, now);
            record.turn(reach, now);
        }
    }

    /// Forgets everyone; all are learned again when they ask. For when another storage folder is in place.
    pub fn forget(&mut self) {
        self.recent.clear();
        self.older.clear();
    }

    /// Forgets one owner.
    pub fn forget_owner(&mut self, owner: &[u8]) {
        self.recent.remove(owner);
        self.older.remove(owner);
    }

    /// The record of an owner, if it holds everything as far back as `reach`.
    fn known(&mut self, owner: &[u8], reach: u64, now: u64) -> Option<&Record> {
        let record = self.record(owner, now)?;
        record.turn(reach, now);
        (record.since <= now.saturating_sub(reach)).then_some(record)
    }

    fn record(&mut self, owner: &[u8], now: u64) -> Option<&mut Record> {
        if let Some((owner, record)) = self.older.remove_entry(owner) {
            self.insert(owner, record, now);
        }
        self.recent.get_mut(owner)
    }

    fn insert(&mut self, owner: Vec<u8>, record: Record, now: u64) {
        if self.recent.len() >= self.most / 2 {
            // Those whose windows are empty go first. Only if that was little, so that it is not done again soon,
            // do those go who were not asked for.
            self.recent.retain(|_, record| record.is_live(now));
            if self.recent.len() > self.most / 4 {
                self.older = std::mem::take(&mut self.recent);
            }
        }
        self.recent.insert(owner, record);
    }
}

/// Seconds of the longest window; 0 without any. What is older does not count.
pub fn reach(limits: &Limits) -> u64 {
    windows(limits).map(seconds).max().unwrap_or(0)
}

/// The windows of some limits, as if empty.
fn windows(limits: &Limits) -> impl Iterator<Item = Use> + '_ {
    let bytes = limits.bytes.iter().map(|window| Use {
        kind: Kind::Bytes,
        delta: window.delta,
        limit: window.bytes,
        used: 0,
    });
    let uploads = limits.uploads.iter().map(|window| Use {
        kind: Kind::Uploads,
        delta: window.delta,
        limit: window.uploads,
        used: 0,
    });
    bytes.chain(uploads)
}

fn seconds(window: Use) -> u64 {
    window.delta.as_secs().max(1)
}

/// What one owner was issued. Every time in it is at least 1, so that 0 is before everything.
#[derive(Debug)]
struct Record {
    /// Everything issued after this second is here.
    since: u64,
    /// Seconds of the longest window at the last look.
    reach: u64,
    /// What was dropped from the front of `marks`.
    dropped: Totals,
    /// Times rise strictly, totals never fall.
    marks: VecDeque<Mark>,
}

/// Everything issued up to and in this second.
#[derive(Clone, Copy, Debug)]
struct Mark {
    time: u64,
    totals: Totals,
}

/// Sums over all that was ever recorded. Wide enough that they need no care: 2^64 slots of 2^64 bytes fit.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    bytes: u128,
    uploads: u64,
}

impl Totals {
    fn of(&self, kind: Kind) -> u128 {
        match kind {
            Kind::Bytes => self.bytes,
            Kind::Uploads => u128::from(self.uploads),
        }
    }
}

impl Record {
    fn since(since: u64) -> Record {
        Record {
            since,
            reach: 0,
            dropped: Totals::default(),
            marks: VecDeque::new(),
        }
    }

    /// Everything recorded.
    fn total(&self) -> Totals {
        self.marks.back().map_or(self.dropped, |mark| mark.totals)
    }

    /// Everything recorded up to and in this second.
    fn until(&self, time: u64) -> Totals {
        let after = self.marks.partition_point(|mark| mark.time <= time);
        match after.checked_sub(1).and_then(|at| self.marks.get(at)) {
            Some(mark) => mark.totals,
            None => self.dropped,
        }
    }

    /// The window with what is in it.
    fn fill(&self, window: Use, now: u64) -> Use {
        let before = self.until(now.saturating_sub(seconds(window)));
        let used = self.total().of(window.kind) - before.of(window.kind);
        Use {
            used: u64::try_from(used).unwrap_or(u64::MAX),
            ..window
        }
    }

    /// The second in which a window that has no room for `amount` has it; `None` is never.
    fn room_at(&self, window: Use, amount: u64) -> Option<u64> {
        let free_if_empty = window.limit.checked_sub(amount)?;
        // So much must have left the window, and it leaves with this mark.
        let gone = (self.total().of(window.kind)).saturating_sub(u128::from(free_if_empty));
        let at = self
            .marks
            .partition_point(|mark| mark.totals.of(window.kind) < gone);
        let last = self.marks.get(at)?;
        Some(last.time.saturating_add(seconds(window)))
    }

    /// Follows the clock: nothing lies in the future, and what has left every window is dropped.
    fn turn(&mut self, reach: u64, now: u64) {
        self.reach = reach;
        if self.marks.back().is_some_and(|mark| mark.time > now) {
            let totals = self.total();
            let past = self.marks.partition_point(|mark| mark.time < now);
            self.marks.truncate(past);
            self.marks.push_back(Mark { time: now, totals });
        }
        let edge = now.saturating_sub(reach);
        while self.marks.front().is_some_and(|mark| mark.time <= edge) {
            if let Some(mark) = self.marks.pop_front() {
                self.dropped = mark.totals;
            }
        }
        if self.marks.is_empty() {
            self.marks = VecDeque::new();
        }
        self.since = self.since.max(edge);
    }

    /// Adds what was issued in the last second of the record, or later.
    fn add(&mut self, time: u64, bytes: u128, uploads: u64) {
        let before = self.total();
        let totals = Totals {
            bytes: before.bytes.saturating_add(bytes),
            uploads: before.uploads.saturating_add(uploads),
        };
        match self.marks.back_mut() {
            Some(last) if last.time >= time => last.totals = totals,
            _ => self.marks.push_back(Mark { time, totals }),
        }
    }

    /// Puts the files beneath what is recorded.
    fn learn(&mut self, limits: &Limits, files: &[(u64, u64)], now: u64) {
        let edge = now.saturating_sub(reach(limits));
        let mut events: Vec<(u64, u128, u64)> = files
            .iter()
            .filter(|(modified, _)| *modified <= self.since)
            .map(|(modified, size)| ((*modified).clamp(1, now), u128::from(*size), 1))
            .filter(|(time, ..)| *time > edge)
            .collect();
        let mut before = self.dropped;
        for mark in &self.marks {
            let bytes = mark.totals.bytes - before.bytes;
            let uploads = mark.totals.uploads - before.uploads;
            events.push((mark.time.min(now), bytes, uploads));
            before = mark.totals;
        }
        events.sort_unstable_by_key(|(time, ..)| *time);
        *self = Record::since(0);
        for (time, bytes, uploads) in events {
            self.add(time, bytes, uploads);
            self.thin(limits, now);
        }
    }

    /// Merges neighbours when there are too many marks; a mark is merged by forgetting all but the last of a cell.
    ///
    /// Cells lie on a fixed grid that is finer for younger marks, and one grid's cells are whole cells of the next,
    /// so what is merged again and again still never leaves its cell. A cell ends where a window begins, so what has
    /// left a window does not come back into it.
    fn thin(&mut self, limits: &Limits, now: u64) {
        if self.marks.len() <= MOST_MARKS {
            return;
        }
        let mut deltas: Vec<u64> = windows(limits).map(seconds).collect();
        deltas.sort_unstable();
        deltas.dedup();
        let extra = deltas.len().saturating_sub(MOST_DELTAS);
        deltas.drain(..extra);
        // Each delta gets an equal share of the marks. At most `THINNED + 2 * MOST_DELTAS` stay.
        let share = deltas.len() as u64;
        let width = |delta: &u64| {
            let width = u128::from(*delta) * u128::from(share);
            let width = width.div_ceil(u128::from(THINNED));
            u64::try_from(width.next_power_of_two()).unwrap_or(u64::MAX)
        };
        let widths: Vec<u64> = deltas.iter().map(width).collect();
        let cell = |mark: &Mark| {
            let age = now.saturating_sub(mark.time);
            let grid = deltas.partition_point(|delta| *delta <= age);
            (grid, widths.get(grid).map_or(0, |width| mark.time / width))
        };
        let cells: Vec<(usize, u64)> = self.marks.iter().map(cell).collect();
        let mut next = 0;
        self.marks.retain(|_| {
            next += 1;
            cells.get(next) != cells.get(next - 1)
        });
    }

    /// Whether anything is still in a window.
    fn is_live(&self, now: u64) -> bool {
        let leaves = |mark: &Mark| mark.time.saturating_add(self.reach);
        self.marks.back().is_some_and(|mark| leaves(mark) > now)
    }
}

#[cfg(test)]
mod tests;
