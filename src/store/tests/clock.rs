//! Ages of files on hosts with wrong clocks: what the sweep removes, and when. The clocks are virtual.

use std::time::UNIX_EPOCH;

use super::*;
use crate::clock::{Change, Clock};

/// 2026-06-01.
const NOW: i64 = 1_780_272_000;
const HOUR: i64 = 3600;
const DAY: i64 = 86_400;
const YEAR: i64 = 365 * DAY;

/// The lifetime of files in these tests.
const MAX_AGE: i64 = 30 * DAY;

/// By how much a file may expire too early, because of small errors of an ordinary clock.
const TOLERANCE: i64 = 60;

/// A host that runs upslot; these are its only clocks.
struct Host {
    folder: Folder,
    store: Store,
    plan: Plan,
    clock: Clock,
    sweep: Sweep,
    start: Instant,
    /// The true time, the error of the wall clock, and the true time of the boot.
    time: i64,
    error: i64,
    booted: i64,
    boots: usize,
    /// The stored files, with the true time of each.
    stored: Vec<(String, i64)>,
    reports: Vec<Report>,
    /// The events so far, for the message of a failed test.
    events: Vec<String>,
}

impl Host {
    fn new(name: &str, error: i64) -> Host {
        let folder = Folder::new(name);
        let plan = Plan {
            interval: Duration::from_secs(HOUR.unsigned_abs()),
            ..plan(MAX_AGE.unsigned_abs(), 0)
        };
        let (clock, _) = Clock::start(&[], Some("boot-0"), NOW + error, DAY);
        let start = sys::monotonic();
        let mut store = folder.open();
        store.set_times(clock.file_times(), false);
        let now = Now {
            mono: start,
            wall: at(NOW + error),
        };
        let mut host = Host {
            store,
            plan,
            clock,
            sweep: Sweep::new(&plan, now),
            folder,
            start,
            time: NOW,
            error,
            booted: NOW - DAY,
            boots: 0,
            stored: Vec::new(),
            reports: Vec::new(),
            events: Vec::new(),
        };
        host.save_record();
        host
    }

    fn wall(&self) -> i64 {
        self.time + self.error
    }

    fn now(&self) -> Now {
        Now {
            mono: self.start + Duration::from_secs((self.time - NOW).unsigned_abs()),
            wall: at(self.wall()),
        }
    }

    /// Saves the clock record as the reactor does.
    fn save_record(&mut self) {
        let name = format!("boot-{}", self.boots);
        let record = self.clock.record();
        self.store.write_clock_record(&name, &record).unwrap();
        self.store.name_clock_record(&name).unwrap();
        self.store.drop_other_clock_records(&name);
    }

    /// One turn of the loop.
    fn turn(&mut self) {
        let change = self.clock.observe(self.wall(), self.time - self.booted);
        let jumped = change.is_some();
        self.store.set_times(self.clock.file_times(), jumped);
        let now = self.now();
        if let Some(Change::Forward(_) | Change::Back(_)) = change {
            self.sweep.settle(&self.plan, now.mono);
        }
        if jumped {
            self.save_record();
        }
        let (mut usage, mut trims) = (UsageTracker::default(), Trims::default());
        while self.sweep.due().is_some_and(|due| due <= now.mono) {
            let mut slice = Slice::begin(sys::monotonic);
            let report = self.sweep.go_on(
                &self.plan,
                &mut self.store,
                &mut usage,
                &mut trims,
                &mut slice,
                now,
            );
            if let Some(report) = report {
                self.reports.push(report);
                if report.whole && self.clock.is_known() && self.clock.has_corrections() {
                    self.clock.corrected();
                    self.store.set_times(self.clock.file_times(), false);
                    self.save_record();
                }
            }
        }
    }

    /// Lets time pass, with at least one turn of the loop per hour.
    fn pass(&mut self, seconds: i64) {
        let end = self.time + seconds;
        while self.time < end {
            self.time = end.min(self.time + HOUR);
            self.turn();
        }
    }

    fn set(&mut self, error: i64) {
        self.error = error;
        self.turn();
    }

    /// Kills the process and starts another one on the same host.
    fn restart(&mut self) {
        self.store = self.folder.open();
        let name = format!("boot-{}", self.boots);
        let records = self.store.clock_records();
        let uptime = self.time - self.booted;
        let (clock, change) = Clock::start(&records, Some(&name), self.wall(), uptime);
        self.clock = clock;
        self.store
            .set_times(self.clock.file_times(), change.is_some());
        self.save_record();
        self.sweep = Sweep::new(&self.plan, self.now());
        self.turn();
    }

    /// Switches the host off for `after` seconds; afterwards its clock is wrong by `error`.
    fn reboot(&mut self, after: i64, error: i64) {
        self.time += after;
        self.booted = self.time - 60;
        self.boots += 1;
        self.error = error;
        self.restart();
    }

    /// Stores a file with the modification time that the kernel would set.
    fn put(&mut self) -> String {
        let path = format!("o/r{:05}/n", self.stored.len());
        self.stored.push((path.clone(), self.time));
        self.place(&path, self.wall());
        path
    }

    /// Creates a file with this modification time.
    fn place(&self, path: &str, modified: i64) {
        self.folder.file(path, 1, 0);
        sys::set_modified(File::open(self.folder.0.join(path)).unwrap(), at(modified)).unwrap();
    }

    fn has(&self, path: &str) -> bool {
        self.folder.0.join(path).exists()
    }

    /// Checks that no file was removed too early, and that no file is older than this.
    #[track_caller]
    fn check(&self, oldest: i64) {
        for (path, stored) in &self.stored {
            let age = self.time - stored;
            if self.has(path) {
                assert!(
                    age <= oldest,
                    "{path} is stored after {age} s: {:#?}",
                    self.events
                );
            } else {
                assert!(
                    age >= MAX_AGE - TOLERANCE,
                    "{path} was removed after {age} s: {:#?}",
                    self.events
                );
            }
        }
    }
}

fn at(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

#[test]
fn files_expire_at_their_age() {
    let mut host = Host::new("clock-plain", 0);
    let path = host.put();
    host.pass(MAX_AGE - 1);
    assert!(host.has(&path));
    host.pass(2 * HOUR);
    host.check(MAX_AGE + 2 * HOUR);
    assert!(!host.has(&path));
}

#[test]
fn an_upload_before_the_time_is_known() {
    for kill in [false, true] {
        let mut host = Host::new("clock-1970", -NOW + 100);
        // Files from before, with correct times.
        host.place("o/old/n", NOW - 29 * DAY);
        host.place("o/older/n", NOW - 31 * DAY);
        let path = host.put();
        host.pass(3 * HOUR);
        assert!(
            host.has("o/older/n"),
            "nothing expires before the time is known"
        );
        assert!(host.reports.iter().all(|report| report.future == 0));
        if kill {
            host.error = 0;
            host.restart();
        } else {
            host.set(0);
        }
        host.pass(2 * HOUR);
        assert!(host.has(&path) && host.has("o/old/n"));
        assert!(!host.has("o/older/n"), "the time is known");
        host.pass(MAX_AGE - 6 * HOUR);
        assert!(host.has(&path), "killed: {kill}");
        assert!(!host.has("o/old/n"));
        host.pass(3 * HOUR);
        assert!(!host.has(&path));
    }
}

/// A correction outlives any number of processes until a sweep has written it into the files.
#[test]
fn a_kill_between_jump_and_sweep() {
    let mut host = Host::new("clock-kill", 0);
    let path = host.put();
    host.pass(DAY);
    host.set(YEAR);
    for _ in 0..5 {
        host.restart();
        host.time += 100;
    }
    assert!(host.clock.has_corrections());
    host.pass(2 * HOUR);
    assert!(
        !host.clock.has_corrections(),
        "the modification time is corrected"
    );
    let modified = sys::stat(&host.folder.0.join(&path)).unwrap().modified;
    assert_eq!(modified, at(NOW + YEAR));
    host.reboot(HOUR, YEAR);
    host.pass(28 * DAY);
    assert!(host.has(&path));
    host.pass(DAY);
    assert!(!host.has(&path));
}

#[test]
fn times_in_the_future_count_from_when_they_are_seen() {
    let mut host = Host::new("clock-future", 0);
    host.place("o/year/n", NOW + YEAR);
    host.place("o/century/n", NOW + 100 * YEAR);
    // Other hosts' clocks may be a little ahead.
    host.place("o/seconds/n", NOW + HOUR + 30);
    host.pass(2 * HOUR);
    host.pass(MAX_AGE - 2 * HOUR);
    assert!(host.has("o/year/n") && host.has("o/century/n"));
    host.pass(3 * HOUR);
    assert!(host.folder.tree().is_empty(), "{:?}", host.folder.tree());
    let seen: Vec<u64> = host.reports.iter().map(|report| report.future).collect();
    assert_eq!(seen.iter().sum::<u64>(), 2, "it is reported once");
}

#[test]
fn a_clock_that_is_set_back_changes_nothing() {
    let mut host = Host::new("clock-back", 0);
    let path = host.put();
    host.pass(10 * DAY);
    host.set(YEAR);
    host.pass(HOUR / 2);
    host.set(0);
    let modified = sys::stat(&host.folder.0.join(&path)).unwrap().modified;
    assert_eq!(modified, at(NOW), "the file was not changed");
    host.pass(20 * DAY - 2 * HOUR);
    host.check(MAX_AGE);
    host.pass(4 * HOUR);
    assert!(!host.has(&path));
    // Set back permanently: the age of a file with a time in the future counts from that moment.
    let path = host.put();
    host.pass(10 * DAY);
    host.set(-YEAR);
    host.pass(MAX_AGE - HOUR);
    assert!(host.has(&path));
    host.pass(4 * HOUR);
    assert!(!host.has(&path));
}

/// The clock jumps during a sweep: nothing is removed by the new time.
#[test]
fn a_jump_during_a_sweep() {
    let mut host = Host::new("clock-pass", 0);
    for _ in 0..500 {
        host.put();
    }
    host.time += HOUR;
    let now = host.now();
    let (mut usage, mut trims) = (UsageTracker::default(), Trims::default());
    let mut slice = Slice::begin(sys::monotonic);
    let report = host.sweep.go_on(
        &host.plan,
        &mut host.store,
        &mut usage,
        &mut trims,
        &mut slice,
        now,
    );
    assert_eq!(report, None, "the sweep takes more than one slice");
    host.set(YEAR);
    host.pass(3 * HOUR);
    host.check(MAX_AGE);
    assert_eq!(host.folder.tree().len(), 1 + 2 * 500);
}

/// An upload that was completed before the jump and is published after a sweep.
#[test]
fn an_upload_across_a_jump() {
    let mut host = Host::new("clock-across", 0);
    let mut upload = host.store.begin(1).unwrap();
    host.store.append(&mut upload, b"x").unwrap();
    host.store.complete(&mut upload, None).unwrap();
    sys::set_modified(upload.file(), at(100)).unwrap();
    let before = host.store.begin(1).unwrap();
    host.set(YEAR);
    host.store
        .publish(&upload, &path("o/r/n"), true, sys::now().wall)
        .unwrap();
    let age = |at: &str| {
        let modified = sys::stat(&host.folder.0.join(at)).unwrap().modified;
        sys::now().wall.duration_since(modified).unwrap_or_default()
    };
    assert!(
        age("o/r/n") < Duration::from_secs(60),
        "its time was corrected"
    );
    host.store.end(upload);
    host.store.end(before);
}

/// The oldest files are trimmed first, even if the clock is not trusted.
#[test]
fn trimming_follows_the_true_order_of_storing() {
    let mut host = Host::new("clock-order", -NOW + 100);
    host.place("o/genuine/n", NOW - DAY);
    let first = host.put();
    host.time += 10;
    let second = host.put();
    host.turn();
    let order = Order {
        owner: b"o".to_vec(),
        need: 2,
        pool: Pool::EVICTABLE,
        remove: true,
    };
    let mut usage = UsageTracker::default();
    assert_eq!(trim(&mut host.store, &mut usage, order.clone()).files, 2);
    assert!(!host.has("o/genuine/n") && !host.has(&first) && host.has(&second));
    host.set(0);
    host.place("o/genuine/n", NOW - 5);
    let order = Order { need: 1, ..order };
    assert_eq!(trim(&mut host.store, &mut usage, order).files, 1);
    assert!(!host.has("o/genuine/n") && host.has(&second));
}

/// Random jumps of the clock, kills and reboots. Excludes situations that upslot cannot recognise; see
/// contrib/docs/operations.md, "The clock".
#[test]
fn files_expire_in_time_with_any_wrong_clock() {
    for seed in 0..seeds() {
        let mut dice = Dice(seed.wrapping_mul(2_654_435_761) | 1);
        let mut host = Host::new("clock-any", if seed % 3 == 0 { -NOW + 100 } else { 0 });
        // By how much the events may extend the life of a file: by the width of each jump, and by its lifetime each time
        // that its modification time was in the future.
        let mut slack = 2 * DAY + HOUR * 24;
        for _ in 0..40 {
            let what = dice.below(10);
            host.events.push(format!(
                "{what} at {} error {}",
                host.time - NOW,
                host.error
            ));
            match what {
                0..=3 => {
                    host.put();
                }
                4 => {
                    let jump = [100, HOUR, 3 * DAY, YEAR][dice.below(4)];
                    let back = dice.below(2) == 0 && host.wall() - jump > 100;
                    slack += jump.min(MAX_AGE) + MAX_AGE;
                    let error = host.error + if back { -jump } else { jump };
                    // A jump within the first hour after a boot counts as setting the clock.
                    host.pass(2 * HOUR);
                    host.set(error);
                }
                5 => host.set(0),
                6 => host.restart(),
                7 => {
                    // With a battery, without one, or with a clock that continues where it stopped; the last one is set
                    // before any other event.
                    slack += DAY + MAX_AGE;
                    let time = host.time;
                    match dice.below(3) {
                        0 => host.reboot(DAY, host.error),
                        1 => host.reboot(DAY, -time - DAY + 100),
                        _ => {
                            let error = host.error;
                            host.save_record();
                            host.reboot(DAY, error - DAY);
                            host.put();
                            host.time += 100;
                            host.set(error);
                        }
                    }
                }
                8 => host.time += i64::from(dice.next() % 4000),
                _ => {
                    let seconds = [HOUR, DAY, 8 * DAY][dice.below(3)];
                    host.pass(seconds);
                }
            }
            host.check(MAX_AGE + slack);
        }
        host.set(0);
        host.pass(MAX_AGE + 2 * DAY);
        host.check(MAX_AGE + slack);
        host.pass(MAX_AGE);
        assert!(
            host.folder.tree().is_empty(),
            "{seed}: {:?}",
            host.folder.tree()
        );
    }
}

/// Number of random histories; more in the long form of the tests.
fn seeds() -> u32 {
    match std::env::var("UPSLOT_TESTS").as_deref() {
        Ok("long") => 60,
        _ => 12,
    }
}

/// A generator of pseudo-random numbers (xorshift).
struct Dice(u32);

impl Dice {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }

    fn below(&mut self, number: usize) -> usize {
        self.next() as usize % number
    }
}
