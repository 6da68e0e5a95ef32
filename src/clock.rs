//! Whether the wall clock can be trusted, and how its jumps affect the times of files.
//!
//! The age of a file is counted from its modification time, which comes from the wall clock. That clock may be wrong: a
//! board without a battery starts in 1970 and gets the time from the network later; an operator sets a wrong date and
//! corrects it. Time since boot, which includes suspension, tells such jumps from elapsed time: wall clock minus time
//! since boot is the time of boot, and only a jump changes it.
//!
//! - When the clock jumps forward, no file has become older. A [`Correction`] shifts the times of files stored until
//!   then, until the sweep has written the new times to the files. If the clock has been wrong since boot, only files
//!   stored since then are shifted: it was in doubt, or was set for the first time in a boot that is not the first.
//! - When it jumps back, corrections that are not written yet are undone; files whose times are then in the future
//!   count from the next sweep.
//! - A clock that is behind an earlier time is in doubt: no file expires by age until it is set or, if that never
//!   happens, until a day has passed.
//!
//! Pure: the clocks are passed as numbers, and the state that outlives the process is a [`Record`] for the store. All
//! times are in whole Unix seconds; times before 1970 are negative.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use crate::now::unix;

/// Smaller jumps are ordinary clock corrections; seconds.
pub const TOLERANCE: i64 = 60;

/// An earlier time is always wrong: 2026-01-01.
const EARLIEST: i64 = 1_767_225_600;

/// Time after boot in which a jump counts as the first setting of the clock; seconds.
const FIRST_SETTING: i64 = 3600;

/// Maximum time for which a clock is in doubt; seconds.
const DOUBT: i64 = 86_400;

/// How often the record is written; seconds.
pub const RECORD_INTERVAL: i64 = 3600;

/// Added to the times of files stored while the clock was in doubt, to rank them youngest: a thousand years.
const RANK: Duration = Duration::from_secs(31_557_600_000);

/// Maximum number of corrections; beyond that the oldest are joined.
const MAX_CORRECTIONS: usize = 16;

/// Files with modification times in this range have wrong times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Correction {
    /// The first and the last modification time concerned.
    from: i64,
    until: i64,
    /// The number of seconds by which the files were really stored later.
    shift: i64,
}

impl Correction {
    fn has(&self, time: i64) -> bool {
        (self.from..=self.until).contains(&time)
    }
}

/// A change of the clock, or of the trust in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// By so many seconds.
    Forward(u64),
    Back(u64),
    /// The clock is trusted after the maximum time in doubt, or because it has reached an earlier time.
    Believed,
}

/// Maps modification times to the times at which files were stored, by the present clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileTimes {
    is_known: bool,
    /// In the order of application.
    corrections: Vec<Correction>,
    /// The range of modification times of files stored while the clock was in doubt.
    doubtful: Option<(i64, i64)>,
}

impl Default for FileTimes {
    /// Modification times are correct.
    fn default() -> FileTimes {
        FileTimes {
            is_known: true,
            corrections: Vec::new(),
            doubtful: None,
        }
    }
}

impl FileTimes {
    /// Whether the clock can be trusted, so that ages are known.
    pub fn is_known(&self) -> bool {
        self.is_known
    }

    /// Whether each file was stored at its modification time, as far as is known.
    pub fn are_exact(&self) -> bool {
        self.is_known && self.corrections.is_empty()
    }

    /// When a file with this modification time was stored; in the future, if the time did not come from this clock.
    pub fn stored(&self, modified: SystemTime) -> SystemTime {
        if self.corrections.is_empty() {
            return modified;
        }
        let time = seconds(modified);
        // Times from a clock that was not set are not affected by earlier jumps.
        let of_its_boot =
            |correction: &Correction| correction.from > i64::MIN && correction.has(time);
        let first = self.corrections.iter().rposition(of_its_boot).unwrap_or(0);
        let shifted = self.corrections[first..]
            .iter()
            .fold(time, |time, correction| match correction.has(time) {
                true => time.saturating_add(correction.shift),
                false => time,
            });
        let shift = Duration::from_secs(u64::try_from(shifted - time).unwrap_or(0));
        modified.checked_add(shift).unwrap_or(modified)
    }

    /// A sort key that orders files by the time at which they were stored. Files stored while the clock was in doubt
    /// rank as younger than all others, whatever the time proves to be.
    pub fn rank(&self, modified: SystemTime) -> SystemTime {
        let stored = self.stored(modified);
        let is_doubtful = |(from, until)| (from..=until).contains(&seconds(modified));
        match self.doubtful {
            Some(period) if is_doubtful(period) => stored.checked_add(RANK).unwrap_or(stored),
            _ => stored,
        }
    }
}

fn seconds(time: SystemTime) -> i64 {
    i64::try_from(unix(time)).unwrap_or(i64::MAX)
}

/// The state that outlives the process; one per boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The time of boot, by the clock at that time.
    boot: i64,
    /// The last time shown by the clock.
    wall: i64,
    is_known: bool,
    /// The latest time shown by the clock while it was trusted.
    highest: i64,
    /// Seconds for which it was in doubt.
    doubt: i64,
    /// See [`Clock`].
    is_unset: bool,
    doubtful: Option<(i64, i64)>,
    corrections: Vec<Correction>,
}

impl Record {
    /// As text, for [`Record::parse`].
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "boot {}\nwall {}\nknown {}\nhighest {}\ndoubt {}\nunset {}\n",
            self.boot,
            self.wall,
            i64::from(self.is_known),
            self.highest,
            self.doubt,
            i64::from(self.is_unset)
        );
        // Writing to a string cannot fail.
        if let Some((from, until)) = self.doubtful {
            let _ = writeln!(text, "doubtful {from} {until}");
        }
        for Correction { from, until, shift } in &self.corrections {
            let _ = writeln!(text, "correction {from} {until} {shift}");
        }
        text
    }

    /// Parses a record; `None` if it is not complete.
    pub fn parse(text: &[u8]) -> Option<Record> {
        let text = std::str::from_utf8(text).ok()?.strip_suffix('\n')?;
        let mut lines = text.lines();
        let mut number = |name: &str| {
            let line = lines.next()?.strip_prefix(name)?;
            line.strip_prefix(' ')?.parse::<i64>().ok()
        };
        let mut record = Record {
            boot: number("boot")?,
            wall: number("wall")?,
            is_known: number("known")? != 0,
            highest: number("highest")?,
            doubt: number("doubt")?.max(0),
            is_unset: number("unset")? != 0,
            doubtful: None,
            corrections: Vec::new(),
        };
        for line in lines {
            let mut words = line.split(' ');
            let name = words.next()?;
            let numbers: Option<Vec<i64>> = words.map(|word| word.parse().ok()).collect();
            match (name, &numbers?[..]) {
                ("doubtful", &[from, until]) => record.doubtful = Some((from, until)),
                ("correction", &[from, until, shift]) if shift > 0 => {
                    push(&mut record.corrections, Correction { from, until, shift });
                }
                _ => return None,
            }
        }
        Some(record)
    }
}

/// The observed wall clock.
#[derive(Debug)]
pub struct Clock {
    /// The time of boot, by the wall clock.
    boot: i64,
    /// Seconds since boot at the last observation.
    uptime: i64,
    is_known: bool,
    highest: i64,
    doubt: i64,
    /// Whether there was an earlier boot with a clock that may have been right, and no jump since: the first jump may be
    /// the setting of the clock.
    is_unset: bool,
    /// The range of times that the clock showed in earlier boots while it was in doubt and files may have been stored.
    doubtful: Option<(i64, i64)>,
    corrections: Vec<Correction>,
}

impl Clock {
    /// Continues from the stored records, each with the ID of its boot. `wall` is the wall clock, `uptime` the seconds
    /// since boot.
    pub fn start(
        records: &[(String, Record)],
        boot_id: Option<&str>,
        wall: i64,
        uptime: i64,
    ) -> (Clock, Option<Change>) {
        let is_own = |name: &String| Some(name.as_str()) == boot_id;
        let others = || records.iter().filter(|(name, _)| !is_own(name));
        let mut corrections = Vec::new();
        for (_, record) in others() {
            for correction in &record.corrections {
                push(&mut corrections, *correction);
            }
        }
        let mut clock = match records.iter().find(|(name, _)| is_own(name)) {
            Some((_, own)) => {
                for correction in &own.corrections {
                    push(&mut corrections, *correction);
                }
                Clock {
                    boot: own.boot,
                    uptime,
                    is_known: own.is_known,
                    highest: own.highest,
                    doubt: own.doubt,
                    is_unset: own.is_unset,
                    doubtful: own.doubtful,
                    corrections,
                }
            }
            None => {
                let others: Vec<&Record> = others().map(|(_, record)| record).collect();
                Clock::after_boot(&others, corrections, wall, uptime)
            }
        };
        let change = clock.observe(wall, uptime);
        (clock, change)
    }

    /// Continues from the records of earlier boots only.
    fn after_boot(
        records: &[&Record],
        corrections: Vec<Correction>,
        wall: i64,
        uptime: i64,
    ) -> Clock {
        let highest = records.iter().map(|record| record.highest).max();
        let highest = highest.unwrap_or(EARLIEST);
        let in_doubt = || records.iter().filter(|record| !record.is_known);
        let doubtful = in_doubt().fold(None, |period, record| {
            let until = record.wall.saturating_add(RECORD_INTERVAL + TOLERANCE);
            let period = join(period, record.boot, until);
            match record.doubtful {
                Some((from, until)) => join(period, from, until),
                None => period,
            }
        });
        let doubt = in_doubt().map(|record| record.doubt).max();
        let mut clock = Clock {
            boot: wall.saturating_sub(uptime),
            uptime,
            is_known: false,
            highest,
            doubt: doubt.unwrap_or(0),
            is_unset: !records.is_empty() && highest >= EARLIEST,
            doubtful,
            corrections,
        };
        if clock.has_caught_up(wall) {
            clock.is_known = true;
            clock.doubt = 0;
            clock.count_doubtful_from(wall);
        }
        clock
    }

    /// Observes both clocks.
    pub fn observe(&mut self, wall: i64, uptime: i64) -> Option<Change> {
        let passed = uptime.saturating_sub(self.uptime).max(0);
        self.uptime = uptime;
        let boot = wall.saturating_sub(uptime);
        let before = std::mem::replace(&mut self.boot, boot);
        let jump = boot.saturating_sub(before);
        let was_known = self.is_known;
        let mut change = None;
        if jump >= TOLERANCE {
            self.went_forward(before, jump, wall);
            change = Some(Change::Forward(jump.unsigned_abs()));
        } else if jump <= -TOLERANCE {
            self.went_back(before, jump.saturating_neg(), wall);
            change = Some(Change::Back(jump.unsigned_abs()));
        }
        if !self.is_known {
            self.doubt = self.doubt.saturating_add(passed);
            if self.has_caught_up(wall) || self.doubt >= DOUBT {
                self.is_known = true;
                // So the earlier time was wrong, and so were the jumps that led to it.
                let ahead = self.highest.saturating_sub(wall);
                self.undo_corrections(ahead, |correction| correction.from == i64::MIN);
                self.highest = wall;
                change = change.or(Some(Change::Believed));
            }
        }
        if self.is_known {
            self.highest = self.highest.max(wall);
            if !was_known {
                self.doubt = 0;
                self.count_doubtful_from(wall);
            }
        }
        change
    }

    /// Whether the clock can be trusted.
    pub fn is_known(&self) -> bool {
        self.is_known
    }

    /// The interpretation of modification times by the present clock.
    pub fn file_times(&self) -> FileTimes {
        let wall = self.boot.saturating_add(self.uptime);
        FileTimes {
            is_known: self.is_known,
            corrections: self.corrections.clone(),
            doubtful: match self.is_known {
                true => None,
                false => join(self.doubtful, self.boot, wall),
            },
        }
    }

    /// Whether there are corrections that the sweep has not written to the files yet.
    pub fn has_corrections(&self) -> bool {
        !self.corrections.is_empty()
    }

    /// All files have correct times now.
    pub fn corrected(&mut self) {
        self.corrections.clear();
    }

    /// The state to be stored.
    pub fn record(&self) -> Record {
        Record {
            boot: self.boot,
            wall: self.boot.saturating_add(self.uptime),
            is_known: self.is_known,
            highest: self.highest,
            doubt: self.doubt,
            is_unset: self.is_unset,
            doubtful: self.doubtful,
            corrections: self.corrections.clone(),
        }
    }

    /// The error of the clock in earlier boots is unknown: files stored in them count from now.
    fn count_doubtful_from(&mut self, wall: i64) {
        if let Some((from, until)) = self.doubtful.take() {
            let shift = wall.saturating_sub(from);
            if shift > 0 {
                push(&mut self.corrections, Correction { from, until, shift });
            }
        }
    }

    /// Undoes corrections for jumps forward, the last one first, as far as the clock went back.
    fn undo_corrections(&mut self, mut jump: i64, concerns: impl Fn(&Correction) -> bool) {
        for correction in self.corrections.iter_mut().rev() {
            if jump >= TOLERANCE && concerns(correction) {
                let taken = jump.min(correction.shift);
                correction.shift -= taken;
                jump -= taken;
            }
        }
        self.corrections
            .retain(|correction| correction.shift >= TOLERANCE);
    }

    fn has_caught_up(&self, wall: i64) -> bool {
        wall.saturating_add(TOLERANCE) >= self.highest
    }

    fn went_forward(&mut self, before: i64, jump: i64, wall: i64) {
        let unset = std::mem::take(&mut self.is_unset);
        let is_first_setting = !self.is_known || unset && self.uptime < FIRST_SETTING;
        // The time without the jump, and a second for fractions.
        let shown = before.saturating_add(self.uptime).saturating_add(1);
        let (from, until) = match is_first_setting {
            // It was never right in any boot.
            _ if self.highest < EARLIEST => (i64::MIN, shown.max(self.highest)),
            true => (before, shown),
            false => (i64::MIN, shown),
        };
        if !self.is_known && self.has_caught_up(wall) {
            self.count_doubtful_from(wall);
        }
        let shift = jump;
        push(&mut self.corrections, Correction { from, until, shift });
    }

    fn went_back(&mut self, before: i64, jump: i64, wall: i64) {
        self.undo_corrections(jump, |_| true);
        self.is_unset = false;
        if self.is_known {
            self.highest = wall;
        } else {
            // Files stored meanwhile are as doubtful as those stored now.
            let shown = before.saturating_add(self.uptime);
            self.doubtful = join(self.doubtful, before, shown);
        }
    }
}

/// The smallest range that includes both.
fn join(period: Option<(i64, i64)>, from: i64, until: i64) -> Option<(i64, i64)> {
    Some(match period {
        Some((first, last)) => (first.min(from), last.max(until)),
        None => (from, until),
    })
}

/// Adds a correction unless it exists; if there are too many, the oldest two are joined, so that no file becomes older
/// than with either of them.
fn push(corrections: &mut Vec<Correction>, correction: Correction) {
    if corrections.contains(&correction) {
        return;
    }
    corrections.push(correction);
    if corrections.len() > MAX_CORRECTIONS {
        let first = corrections.remove(0);
        if let Some(second) = corrections.first_mut() {
            *second = Correction {
                from: first.from.min(second.from),
                until: first.until.max(second.until),
                shift: first.shift.saturating_add(second.shift),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    /// 2026-06-01, the truth at the beginning of each test.
    const NOW: i64 = 1_780_272_000;
    const HOUR: i64 = 3600;
    const DAY: i64 = 86_400;
    const YEAR: i64 = 365 * DAY;

    /// A host with an upslot on it.
    struct Host {
        /// The true time.
        time: i64,
        /// By how much the wall clock is wrong.
        error: i64,
        booted: i64,
        boot: usize,
        records: Vec<(String, Record)>,
        clock: Clock,
    }

    impl Host {
        /// Its first start; the host was booted two hours ago.
        fn new(error: i64) -> Host {
            let (clock, change) = Clock::start(&[], Some("boot-0"), NOW + error, 2 * HOUR);
            assert_eq!(change, None);
            let booted = NOW - 2 * HOUR;
            let mut host = Host {
                time: NOW,
                error,
                booted,
                boot: 0,
                records: Vec::new(),
                clock,
            };
            host.keep();
            host
        }

        fn wall(&self) -> i64 {
            self.time + self.error
        }

        fn keep(&mut self) {
            let record = Record::parse(self.clock.record().to_text().as_bytes()).unwrap();
            assert_eq!(record, self.clock.record());
            self.records = vec![(format!("boot-{}", self.boot), record)];
        }

        fn look(&mut self) -> Option<Change> {
            let change = self.clock.observe(self.wall(), self.time - self.booted);
            if change.is_some() {
                self.keep();
            }
            change
        }

        /// Time passes.
        fn pass(&mut self, seconds: i64) -> Option<Change> {
            self.time += seconds;
            self.look()
        }

        fn set(&mut self, error: i64) -> Option<Change> {
            self.error = error;
            self.look()
        }

        /// Another process on the same host.
        fn restart(&mut self) -> Option<Change> {
            let name = format!("boot-{}", self.boot);
            let uptime = self.time - self.booted;
            let (clock, change) = Clock::start(&self.records, Some(&name), self.wall(), uptime);
            self.clock = clock;
            self.keep();
            change
        }

        /// A boot after some time, with a clock that is wrong by so much then; upslot starts a minute later.
        fn reboot(&mut self, after: i64, error: i64) -> Option<Change> {
            self.time += after;
            self.booted = self.time;
            self.boot += 1;
            self.error = error;
            self.time += 60;
            self.restart()
        }

        /// Seconds since a file with this modification time was stored, as it is counted now.
        #[track_caller]
        fn age(&self, modified: i64) -> i64 {
            let file = UNIX_EPOCH + Duration::from_secs(u64::try_from(modified).unwrap());
            let stored = self.clock.file_times().stored(file);
            self.wall() - i64::try_from(unix(stored)).unwrap()
        }
    }

    #[test]
    fn time_that_passes_is_no_jump() {
        let mut host = Host::new(0);
        for seconds in [0, 1, 60, HOUR, YEAR] {
            assert_eq!(host.pass(seconds), None);
        }
        // Small corrections, one way and the other, however many.
        for error in [30, 59, 100, 155, 100, 41, 0, -59, -110] {
            assert_eq!(host.set(error), None, "{error}");
        }
        assert!(host.clock.is_known() && !host.clock.has_corrections());
        host.keep();
        assert_eq!(host.restart(), None);
        assert_eq!(host.reboot(DAY, 0), None);
        assert!(host.clock.is_known() && !host.clock.has_corrections());
    }

    #[test]
    fn no_file_is_older_after_a_jump() {
        for jump in [60, HOUR, DAY, YEAR, 74 * YEAR] {
            let mut host = Host::new(0);
            host.pass(10 * HOUR);
            let before = host.wall();
            let jumped = Some(Change::Forward(jump.unsigned_abs()));
            assert_eq!(host.set(jump), jumped);
            host.pass(10);
            let after = host.wall();
            for age in [0, HOUR, DAY, 300 * DAY] {
                assert_eq!(host.age(before - age), age + 10, "{jump}");
            }
            assert_eq!(host.age(after), 0, "what is stored now is not concerned");
            // Nor do they become older by a restart.
            assert_eq!(host.restart(), None);
            assert_eq!(host.age(before - DAY), DAY + 10);
            // When all files say so themselves, nothing has to be kept.
            host.clock.corrected();
            assert_eq!(host.age(after - DAY), DAY);
        }
    }

    #[test]
    fn jumps_add_up_and_are_taken_back() {
        let mut host = Host::new(0);
        let old = host.wall() - DAY;
        host.set(YEAR);
        let in_between = host.wall();
        host.set(3 * YEAR);
        assert_eq!((host.age(old), host.age(in_between)), (DAY, 0));
        assert_eq!(
            host.set(YEAR + DAY),
            Some(Change::Back((2 * YEAR - DAY).unsigned_abs()))
        );
        assert_eq!((host.age(old), host.age(in_between)), (DAY, 0));
        host.set(YEAR);
        assert_eq!((host.age(old), host.age(in_between)), (DAY, 0));
        host.set(5);
        assert!(!host.clock.has_corrections());
        assert_eq!(host.age(old), DAY + 5);
        assert!(host.age(in_between) < 0, "the sweep counts it from now");
        // Back from the start, and forward again: what was in the future never becomes old.
        host.set(-YEAR);
        assert!(host.clock.is_known(), "it was set");
        assert!(host.age(old) < 0);
        let stored = host.wall();
        host.set(0);
        assert_eq!(host.age(stored), 0);
        assert!(host.age(old) <= DAY);
    }

    #[test]
    fn a_clock_that_is_not_set_is_in_doubt_until_it_is() {
        // A first start in 1970, and one that is only behind what was seen.
        for error in [-NOW + 100, -30 * DAY] {
            let mut host = Host::new(if error == -30 * DAY { 0 } else { error });
            let genuine = NOW - DAY;
            if error == -30 * DAY {
                assert_eq!(host.reboot(HOUR, error), None);
            }
            assert!(!host.clock.is_known(), "{error}");
            host.pass(HOUR);
            let stored = host.wall();
            let rank = |modified: i64| {
                let modified = Duration::from_secs(modified.unsigned_abs());
                host.clock.file_times().rank(UNIX_EPOCH + modified)
            };
            assert!(
                rank(stored) > rank(genuine),
                "the order is right all the same"
            );
            assert!(rank(stored) > rank(stored - 10));
            host.pass(HOUR);
            assert_eq!(host.restart(), None);
            assert!(!host.clock.is_known(), "a restart does not set it");
            assert_eq!(host.set(0), Some(Change::Forward(error.unsigned_abs())));
            assert!(host.clock.is_known());
            assert_eq!(host.age(stored), HOUR, "{error}");
            assert_eq!(host.age(genuine), host.wall() - genuine, "{error}");
        }
    }

    #[test]
    fn a_jump_while_upslot_was_not_running_is_seen() {
        let mut host = Host::new(-NOW + 100);
        let stored = host.wall();
        host.time += HOUR;
        host.error = 0;
        assert_eq!(
            host.restart(),
            Some(Change::Forward((NOW - 100).unsigned_abs()))
        );
        assert!(host.clock.is_known());
        assert_eq!(host.age(stored), HOUR);
        host.error = -YEAR;
        assert_eq!(host.restart(), Some(Change::Back(YEAR.unsigned_abs())));
        assert!(host.clock.is_known());
    }

    #[test]
    fn a_time_that_was_never_known_counts_from_when_it_is() {
        let mut host = Host::new(-NOW + 100);
        let first = host.wall();
        // Cut off before the time came, twice.
        host.pass(HOUR / 2);
        let last = host.wall();
        assert_eq!(host.reboot(DAY, -NOW - DAY - 1900), None);
        assert!(!host.clock.is_known());
        assert_eq!(host.reboot(DAY, 0), None);
        assert!(host.clock.is_known());
        for stored in [first, last] {
            assert!(host.age(stored) <= 0);
        }
        host.clock.corrected();
        host.keep();
        assert_eq!(host.reboot(DAY, 0), None);
        assert!(!host.clock.has_corrections());
        // And where it comes after the second boot, exactly or later.
        let mut host = Host::new(-NOW + 100);
        let first = host.wall();
        host.reboot(DAY, -NOW - DAY + 40);
        let second = host.wall();
        host.pass(10);
        assert!(matches!(host.set(0), Some(Change::Forward(_))));
        assert!(host.age(first) <= DAY && host.age(second) <= 10);
    }

    #[test]
    fn doubt_has_an_end() {
        // The highest time was a mistake, and the clock is right: nothing will ever set it.
        let mut host = Host::new(0);
        host.set(74 * YEAR);
        assert_eq!(host.reboot(HOUR, 0), None);
        assert!(!host.clock.is_known());
        assert_eq!(host.pass(DAY - HOUR), None);
        host.keep();
        assert_eq!(host.restart(), None);
        assert_eq!(host.pass(HOUR), Some(Change::Believed));
        assert!(host.clock.is_known());
        assert_eq!(host.reboot(HOUR, 0), None);
        assert!(host.clock.is_known());
        // Also where it is never on for a day.
        host.set(74 * YEAR);
        let boots = (1..100).find(|_| {
            host.reboot(HOUR, 0);
            (0..6).any(|_| {
                let change = host.pass(HOUR);
                host.keep();
                change == Some(Change::Believed)
            })
        });
        assert_eq!(boots, Some(4));
        // A clock that stood still for a while catches up by itself.
        let mut host = Host::new(0);
        host.pass(HOUR);
        host.keep();
        host.reboot(60, -DAY / 48);
        assert!(!host.clock.is_known());
        assert_eq!(host.pass(HOUR), Some(Change::Believed));
    }

    #[test]
    fn the_first_setting_after_a_boot_concerns_no_file_from_before() {
        // The clock goes on where it stood when the host was switched off.
        let mut host = Host::new(0);
        let old = host.wall() - DAY;
        host.keep();
        host.reboot(3 * DAY, -3 * DAY);
        assert!(host.clock.is_known(), "nothing tells that it is wrong");
        let stored = host.wall();
        host.pass(60);
        assert_eq!(host.restart(), None);
        assert_eq!(host.set(0), Some(Change::Forward((3 * DAY).unsigned_abs())));
        assert_eq!(host.age(stored), 60);
        assert_eq!(host.age(old), 4 * DAY + 120);
        // The next jump is another matter.
        host.set(YEAR);
        assert_eq!(host.age(old), 4 * DAY + 120);
    }

    #[test]
    fn a_boot_without_the_time_is_not_concerned_by_jumps_before_it() {
        let mut host = Host::new(0);
        let old = host.wall() - DAY;
        host.set(YEAR);
        host.reboot(DAY, -NOW - DAY + 100);
        host.pass(HOUR);
        let stored = host.wall();
        host.pass(HOUR);
        host.set(YEAR);
        assert_eq!(host.age(stored), HOUR);
        assert_eq!(host.age(old), host.time - NOW + DAY);
    }

    #[test]
    fn corrections_are_few_and_joined_to_the_safe_side() {
        let mut host = Host::new(0);
        let old = host.wall() - DAY;
        for number in 1..=40 {
            host.pass(60);
            host.set(number * HOUR);
            let stored = host.wall();
            host.pass(60);
            assert_eq!(host.age(stored), 60);
            assert!(host.age(old) <= DAY + number * 120);
            assert!(host.clock.corrections.len() <= MAX_CORRECTIONS);
        }
        assert!(host.clock.record().to_text().len() < 4096);
        assert_eq!(host.restart(), None);
    }

    #[test]
    fn other_boots_corrections_are_taken_over() {
        let mut host = Host::new(0);
        let old = host.wall() - DAY;
        host.set(YEAR);
        let age = host.age(old);
        let (time, error) = (host.time, host.error);
        host.reboot(HOUR, error);
        assert_eq!(host.age(old), age + host.time - time);
        // Where boots cannot be told apart, nothing is concluded from the moment of boot.
        let records = [("unknown".to_owned(), host.clock.record())];
        let (clock, change) = Clock::start(&records, None, host.wall() + DAY, 5);
        assert_eq!(
            (change, clock.is_known(), clock.has_corrections()),
            (None, true, true)
        );
    }

    #[test]
    fn records_that_are_not_whole_are_none() {
        let mut host = Host::new(-NOW + 100);
        host.reboot(DAY, -NOW);
        host.set(-YEAR);
        let record = host.clock.record();
        assert!(record.doubtful.is_some() || !record.corrections.is_empty());
        let text = record.to_text();
        assert_eq!(Record::parse(text.as_bytes()), Some(record));
        for length in 0..text.len() {
            if text.as_bytes()[..length].ends_with(b"\n") && length > text.find("unset").unwrap() {
                continue;
            }
            assert_eq!(Record::parse(&text.as_bytes()[..length]), None, "{length}");
        }
        for bad in [
            "",
            "\n",
            "boot 1\n",
            "boot 1\nwall 1\nknown 1\nhighest 1\ndoubt 1\nunset 1\ncorrection 1 2\n",
            "boot 1\nwall 1\nknown 1\nhighest 1\ndoubt 1\nunset 1\ncorrection 1 2 -3\n",
            "boot 1\nwall 1\nknown 1\nhighest 1\ndoubt 1\nunset 1\nother 1\n",
            "boot 99999999999999999999\nwall 1\nknown 1\nhighest 1\ndoubt 1\nunset 1\n",
        ] {
            assert_eq!(Record::parse(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(Record::parse(b"\xff\n"), None);
    }

    /// Whatever a record or a clock says, nothing overflows.
    #[test]
    fn extreme_numbers() {
        let extremes = [i64::MIN, -1, 0, NOW, i64::MAX];
        for boot in extremes {
            for highest in extremes {
                for wall in [0, NOW, i64::MAX] {
                    let text = format!(
                        "boot {boot}\nwall {wall}\nknown 0\nhighest {highest}\ndoubt {wall}\nunset 1\n\
                         doubtful {} {}\ncorrection {} {} {}\n",
                        i64::MIN,
                        i64::MAX,
                        i64::MIN,
                        i64::MAX,
                        i64::MAX
                    );
                    let record = Record::parse(text.as_bytes()).unwrap();
                    for name in ["own", "other"] {
                        let records = [(name.to_owned(), record.clone())];
                        let (mut clock, _) = Clock::start(&records, Some("own"), wall, 100);
                        for wall in [0, i64::MAX, NOW] {
                            clock.observe(wall, 200);
                            clock
                                .file_times()
                                .stored(UNIX_EPOCH + Duration::from_secs(1000));
                        }
                    }
                }
            }
        }
    }
}
