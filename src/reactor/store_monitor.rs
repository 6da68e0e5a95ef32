//! The health of the store: failures are logged when they change, and a store that failed is probed until it works.
//!
//! Probing is necessary because `/health` reports the failure, and a load balancer may then send no more uploads.

use std::io;
use std::time::{Duration, Instant};

use crate::log_limiter::RepeatLimiter;
use crate::reactor::sync_token::SyncToken;
use crate::store::Store;
use crate::store::upload::Upload;
use crate::syncer::{Syncer, Work};
use crate::sys;

/// How often a store that failed is probed.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// The delay of the first probe after a lack of space, which finds out which sizes still fit.
const FIRST_PROBE: Duration = Duration::from_secs(1);

/// Most different failures that are logged until the store works again. Object stores choose their own words.
const MAX_LOGGED: usize = 16;

/// The data that a probe writes. More than a file system stores inline in an inode.
pub const PROBE: [u8; 8192] = [0; 8192];

/// The state of the store, as far as recent operations show it.
#[derive(Debug, Default)]
pub struct StoreMonitor {
    /// Whether the last operation failed for another reason than a lack of space.
    failing: bool,
    /// Whether an object store has denied a write. That it can be read proves nothing then.
    denies_writes: bool,
    /// Files of this size and larger do not fit.
    short_of: Option<u64>,
    /// The failures logged since the store last worked.
    logged: Vec<String>,
    /// Limits the log of an almost full disk, which accepts one file and refuses the next.
    repeat_limiter: RepeatLimiter,
    /// When to probe next.
    probe_at: Option<Instant>,
    /// When it was last probed.
    probed_at: Option<Instant>,
    /// The file of the probe under way.
    probe: Option<Upload>,
    /// The probe that an object store has not answered.
    asked: Option<StoreProbe>,
}

/// What an object store is asked for to see whether it works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "s3"), allow(dead_code))]
pub enum StoreProbe {
    /// A listing, which tells more about a failure than other reads.
    List,
    /// A small object is stored, because the store can be read while uploads fail.
    Write,
}

impl StoreMonitor {
    /// Records a failure. `shortage` is the size of the file that did not fit, if that was the reason.
    pub fn failed(&mut self, why: String, shortage: Option<u64>, now: Instant) {
        let mut next = now + PROBE_INTERVAL;
        match shortage {
            None => self.failing = true,
            Some(size) => {
                self.short_of = Some(self.short_of.map_or(size, |least| least.min(size)));
                // Many uploads may fail at the same time; one probe is enough for all.
                next = now + FIRST_PROBE;
                next = next.max(self.probed_at.map_or(next, |at| at + FIRST_PROBE));
            }
        }
        if self.probe.is_none() && self.asked.is_none() {
            self.probe_at = Some(self.probe_at.map_or(next, |at| at.min(next)));
        }
        let is_known = self.logged.contains(&why) || self.logged.len() >= MAX_LOGGED;
        if is_known || !self.repeat_limiter.should_log(&why, now) {
            log::debug!("store failed why={why:?}");
        } else {
            log::error!("store failed why={why:?}");
            self.logged.push(why);
        }
    }

    /// Records that an object store has denied a write. Until one succeeds, it is failing.
    #[cfg(feature = "s3")]
    pub fn denied(&mut self, why: String, now: Instant) {
        self.denies_writes = true;
        self.failed(why, None, now);
    }

    /// Records that a file of this size was stored.
    pub fn worked(&mut self, size: u64) {
        self.failing = false;
        self.denies_writes = false;
        if self.lacks_room(size) {
            self.short_of = None;
        }
        self.recover();
    }

    /// Records that an object store can be read.
    #[cfg(feature = "s3")]
    pub fn was_read(&mut self) {
        self.failing = self.denies_writes;
        self.recover();
    }

    fn recover(&mut self) {
        if self.has_failed() {
            return;
        }
        self.probe_at = None;
        if !std::mem::take(&mut self.logged).is_empty() {
            log::info!("store recovered");
        }
    }

    /// Whether the last operation failed.
    fn has_failed(&self) -> bool {
        self.failing || self.short_of.is_some()
    }

    /// Whether the last operation failed for another reason than a lack of space.
    pub fn is_failing(&self) -> bool {
        self.failing
    }

    /// Whether a file of this size is known not to fit.
    pub fn lacks_room(&self, size: u64) -> bool {
        self.short_of.is_some_and(|least| size >= least)
    }

    /// When [`StoreMonitor::begin_probe`] must be called.
    pub fn due(&self) -> Option<Instant> {
        self.probe_at
    }

    /// Writes a file to find out whether the store works again. The result is passed to [`StoreMonitor::probed`].
    pub fn begin_probe(&mut self, store: &mut Store, syncer: &mut Syncer<SyncToken>, now: Instant) {
        self.probe_at = None;
        self.probed_at = Some(now);
        match store.probe_upload(&PROBE) {
            Ok(upload) => {
                syncer.submit(SyncToken::Probe, Work::File(upload.file()));
                self.probe = Some(upload);
            }
            Err(error) => self.probed(Err(error), store, now),
        }
    }

    /// Probes an object store as soon as possible: at the start, and when it can be reached again.
    pub fn probe_soon(&mut self, now: Instant) {
        if self.asked.is_none() {
            self.probe_at = Some(now);
        }
    }

    /// How to probe an object store.
    #[cfg(feature = "s3")]
    pub fn object_probe(&self) -> StoreProbe {
        match self.denies_writes || self.short_of.is_some() {
            true => StoreProbe::Write,
            false => StoreProbe::List,
        }
    }

    /// An object store was probed. The answer is passed to [`StoreMonitor::worked`], [`StoreMonitor::was_read`] or
    /// [`StoreMonitor::failed`] after [`StoreMonitor::answered`].
    #[cfg(feature = "s3")]
    pub fn asked(&mut self, probe: StoreProbe, now: Instant) {
        self.probe_at = None;
        self.probed_at = Some(now);
        self.asked = Some(probe);
    }

    /// An object store has answered a probe, which is returned. Whether it has room for an upload shows only the next one.
    #[cfg(feature = "s3")]
    pub fn answered(&mut self, now: Instant) -> Option<StoreProbe> {
        if self.has_failed() {
            self.probe_at = Some(now + PROBE_INTERVAL);
        }
        self.asked.take()
    }

    /// Evaluates the result of a probe.
    pub fn probed(&mut self, result: io::Result<()>, store: &mut Store, now: Instant) {
        if let Some(upload) = self.probe.take() {
            store.end(upload);
        }
        let probe_size = PROBE.len() as u64;
        match result {
            Ok(()) => {
                let short_of = self.short_of.unwrap_or(0);
                let fits = short_of <= probe_size || store.has_room(short_of).unwrap_or(false);
                self.worked(if fits { u64::MAX } else { probe_size });
            }
            Err(_) if !self.has_failed() => {}
            Err(error) if sys::is_full(&error) => {
                self.failing = false;
                self.short_of = Some(0);
            }
            Err(_) => self.failing = true,
        }
        if self.has_failed() {
            self.probe_at = Some(now + PROBE_INTERVAL);
        }
    }
}

#[cfg(test)]
#[cfg(feature = "s3")]
mod tests {
    use super::*;

    #[test]
    fn an_object_store_is_probed_until_it_works() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut monitor = StoreMonitor::default();
        monitor.probe_soon(now);
        assert_eq!(monitor.due(), Some(now));
        monitor.asked(StoreProbe::List, now);
        // Other requests fail meanwhile.
        monitor.failed("x".to_owned(), None, at(1));
        assert_eq!(monitor.due(), None);
        monitor.answered(at(2));
        assert_eq!(monitor.due(), Some(at(7)));
        monitor.asked(StoreProbe::List, at(7));
        monitor.answered(at(8));
        assert!(monitor.is_failing());
        assert_eq!(monitor.due(), Some(at(13)));
        // It can be reached again.
        monitor.probe_soon(at(9));
        monitor.asked(StoreProbe::List, at(9));
        assert_eq!(monitor.answered(at(9)), Some(StoreProbe::List));
        monitor.was_read();
        assert_eq!((monitor.is_failing(), monitor.due()), (false, None));
    }

    #[test]
    fn only_a_write_clears_a_denied_write() {
        let now = Instant::now();
        let mut monitor = StoreMonitor::default();
        assert_eq!(monitor.object_probe(), StoreProbe::List);
        monitor.asked(StoreProbe::List, now);
        monitor.denied("x".to_owned(), now);
        // The answer to a probe from before.
        assert_eq!(monitor.answered(now), Some(StoreProbe::List));
        monitor.was_read();
        assert!(monitor.is_failing());
        assert_eq!(monitor.due(), Some(now + PROBE_INTERVAL));
        assert_eq!(monitor.object_probe(), StoreProbe::Write);
        monitor.failed("y".to_owned(), None, now);
        monitor.was_read();
        assert!(monitor.is_failing());
        monitor.worked(1);
        assert_eq!((monitor.is_failing(), monitor.due()), (false, None));
        assert_eq!(monitor.object_probe(), StoreProbe::List);
        // That there was no room is not known from a listing either.
        monitor.failed("full".to_owned(), Some(10), now);
        monitor.was_read();
        assert!(monitor.lacks_room(10));
    }

    #[test]
    fn few_words_of_an_object_store_are_kept() {
        let mut monitor = StoreMonitor::default();
        for number in 0..1000 {
            monitor.failed(number.to_string(), None, Instant::now());
        }
        assert_eq!(monitor.logged.len(), MAX_LOGGED);
    }
}
