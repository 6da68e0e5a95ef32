//! The loop's view of the wall clock, and the clock record at start.

use crate::clock::{Change, Clock, RECORD_INTERVAL};
use crate::now::Now;
use crate::store::Store;
use crate::sys;

/// The name of the record on hosts without a boot ID.
const UNKNOWN_BOOT: &str = "unknown";

/// The clock, and the state of its record.
#[derive(Debug)]
pub struct Timekeeper {
    pub clock: Clock,
    /// The name of the record: the boot ID.
    pub name: String,
    pub stage: Stage,
    /// Whether the record has to be written again.
    pub is_changed: bool,
    /// Seconds since boot at which it must be written at the latest.
    pub due: i64,
}

/// The step that the record waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Idle,
    SyncingTree,
    SyncingFile,
    SyncingFolders,
}

impl Timekeeper {
    /// Reads the records of the store and replaces them by a single one.
    pub fn start(store: &mut Store, fsync: bool, now: Now) -> (Timekeeper, Option<Change>) {
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
                let folder = store.name_clock_record(&name)?;
                if fsync {
                    rustix::fs::fsync(&folder)?;
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

/// The wall clock and the time since boot, in seconds.
pub fn clocks(now: Now) -> (i64, i64) {
    let seconds = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
    (seconds(now.unix()), seconds(sys::since_boot().as_secs()))
}
