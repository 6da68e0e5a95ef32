//! The part of a sweep that concerns one owner, and the rules by which it decides about a file or a folder.

use std::io;
use std::time::{Duration, SystemTime};

use crate::clock::{FileTimes, TOLERANCE};
use crate::expiry::{self, Lifetime};
use crate::layout::{StorePath, Tag};
use crate::now::Now;
use crate::store::Store;
use crate::store::usage::{Counts, UsageTracker};
use crate::store::walk::{Walk, WalkMode};

/// Smaller differences are not in the future: another host or a file server may have set the time.
const AHEAD: Duration = Duration::from_secs(TOLERANCE as u64);

/// Number of folders per sweep that are opened although their file cannot have expired yet. They take a tenth of the
/// time that a sweep of 100,000 files takes otherwise.
pub(in crate::store) const SPOT_CHECKS: u64 = 4096;

/// The owner whose files are being walked.
#[derive(Debug)]
pub(super) struct OwnerPass {
    pub(super) owner: Vec<u8>,
    pub(super) walk: Walk,
    /// The files seen that are still there.
    pub(super) remaining: Counts,
    /// The part of these that is in the batch.
    pub(super) pending_removal: Counts,
    /// The owner's number of changes, if only the sweep makes any.
    pub(super) changes: Option<u64>,
    /// Whether all files were looked at, not only the names of their folders.
    pub(super) is_measured: bool,
}

impl OwnerPass {
    pub(super) fn begin(
        owner: Vec<u8>,
        mode: WalkMode,
        store: &Store,
        usage: &UsageTracker,
    ) -> io::Result<OwnerPass> {
        Ok(OwnerPass {
            walk: Walk::new(store.root(), &owner, mode)?,
            changes: usage.changes(&owner),
            owner,
            remaining: Counts::default(),
            pending_removal: Counts::default(),
            is_measured: true,
        })
    }

    /// Whether the file in the folder that the walk has found cannot have expired yet, judging by the folder's time.
    pub(super) fn cannot_expire(
        &self,
        tag: Tag,
        lifetime: Lifetime,
        store: &Store,
        now: Now,
    ) -> bool {
        let Ok(folder) = self.walk.stat() else {
            return false;
        };
        let end = lifetime.end(Some(tag), folder.modified);
        store.times().are_exact()
            && !is_ahead(folder.modified, now)
            && end.is_none_or(|end| end > now.wall)
    }

    /// Sets the modification time of the file that the walk has found, if it is wrong and the clock is right; then tells
    /// whether it was in the future.
    pub(super) fn set_time(
        &mut self,
        store: &Store,
        modified: SystemTime,
        now: Now,
        set: impl FnOnce(bool),
    ) -> io::Result<()> {
        let times = store.times();
        let stored = times.stored(modified);
        let counted = if is_ahead(stored, now) {
            now.wall
        } else {
            stored
        };
        if counted == modified || !times.is_known() {
            return Ok(());
        }
        match self.walk.set_modified(counted) {
            Ok(()) => set(is_ahead(modified, now)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Which of the folders that need not be opened are opened all the same.
#[derive(Debug)]
pub(super) struct SpotChecks {
    /// The number of the first one in this pass.
    pub(super) start: u64,
    /// The number of folders so far.
    pub(super) seen: u64,
}

impl SpotChecks {
    /// Counts a folder; true if it is to be opened.
    pub(super) fn include_next(&mut self) -> bool {
        let number = self.seen;
        self.seen += 1;
        (self.start..self.end()).contains(&number)
    }

    fn end(&self) -> u64 {
        self.start + SPOT_CHECKS
    }

    /// Where those of the next pass begin.
    pub(super) fn next_start(&self) -> u64 {
        match self.end() < self.seen {
            true => self.end(),
            false => 0,
        }
    }
}

/// Whether a modification time is in the future.
pub(super) fn is_ahead(modified: SystemTime, now: Now) -> bool {
    modified
        .duration_since(now.wall)
        .is_ok_and(|by| by >= AHEAD)
}

/// Whether a file has expired. While the clock is in doubt, only a file whose path tells its end may expire: the clock
/// is likely to be behind, not ahead.
pub(super) fn is_expired(
    lifetime: Lifetime,
    times: &FileTimes,
    path: &StorePath,
    modified: SystemTime,
    now: Now,
) -> bool {
    let end = match times.is_known() {
        true => lifetime.end(path.tag(), times.stored(modified).min(now.wall)),
        false => expiry::hard_end(path.tag()),
    };
    end.is_some_and(|end| end <= now.wall)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spot_checks_reach_all_folders_in_turn() {
        let folders = 2 * SPOT_CHECKS + 10;
        let mut checked = 0;
        let mut start = 0;
        for expected in [SPOT_CHECKS, SPOT_CHECKS, 10, SPOT_CHECKS] {
            let mut pass = SpotChecks { start, seen: 0 };
            let included = (0..folders).filter(|_| pass.include_next());
            let included: Vec<u64> = included.collect();
            assert_eq!(included.first(), Some(&(checked % folders)));
            assert_eq!(included.len() as u64, expected);
            checked += expected;
            start = pass.next_start();
        }
        let mut pass = SpotChecks { start: 0, seen: 0 };
        assert!((0..SPOT_CHECKS).all(|_| pass.include_next()));
        assert_eq!(pass.next_start(), 0);
    }
}
