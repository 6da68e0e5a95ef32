//! Identifies the requester of a sync job, to which the result is passed.

use crate::reactor::table::Key;

/// The requester of a sync job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncToken {
    /// The upload or deletion of a connection.
    Connection(Key),
    /// The tombstones of a sweep.
    Sweep,
    /// The tombstones of trimmed or evicted files.
    Trim,
    /// The deletion with this number that a user asked for.
    Job(u64),
    /// The probe of a store that failed.
    Probe,
    /// The record of the clock.
    Clock,
}
