//! Tests of [`super`].

use super::*;
use crate::policy::rules::{ByteWindow, UploadWindow};

const HOUR: u64 = 3_600;
const DAY: u64 = 86_400;
const YEAR: u64 = 365 * DAY;

/// 2026-01-01T00:00:00Z.
const T: u64 = 1_767_225_600;

const OWNER: &[u8] = b"romeo";

/// Limits from pairs of seconds and bytes, and of seconds and uploads.
fn rule(bytes: &[(u64, u64)], uploads: &[(u64, u64)]) -> Limits {
    let byte = |(delta, bytes): &(u64, u64)| ByteWindow {
        delta: Duration::from_secs(*delta),
        bytes: *bytes,
    };
    let upload = |(delta, uploads): &(u64, u64)| UploadWindow {
        delta: Duration::from_secs(*delta),
        uploads: *uploads,
    };
    Limits {
        bytes: bytes.iter().map(byte).collect(),
        uploads: uploads.iter().map(upload).collect(),
        ..Limits::default()
    }
}

/// Rates that have loaded one owner without files.
fn fresh(limits: &Limits, now: u64) -> Rates {
    let mut rates = Rates::default();
    rates.learned(OWNER, limits, &[], now);
    rates
}

/// `allowed`, `unknown`, `bytes 1000/1000 retry 10` with the retry counted from `T`, or `uploads 3/3 never`.
fn show(outcome: Outcome) -> String {
    match outcome {
        Outcome::Allowed => "allowed".into(),
        Outcome::Unknown => "unknown".into(),
        Outcome::Refused { over, retry } => {
            let kind = match over.kind {
                Kind::Bytes => "bytes",
                Kind::Uploads => "uploads",
            };
            let retry = match retry {
                Some(retry) => format!("retry {}", i128::from(retry) - i128::from(T)),
                None => "never".into(),
            };
            format!("{kind} {}/{} {retry}", over.used, over.limit)
        }
    }
}

#[track_caller]
fn check(rates: &mut Rates, limits: &Limits, size: u64, now: u64, outcome: &str) {
    let found = show(rates.check(OWNER, limits, size, now));
    assert_eq!(found, outcome, "{size} bytes at T + {}", now - T);
}

/// Issues slots of `(size, second after T)`, each of which must be allowed.
#[track_caller]
fn issue(rates: &mut Rates, limits: &Limits, slots: &[(u64, u64)]) {
    for (size, after) in slots {
        check(rates, limits, *size, T + after, "allowed");
        rates.issued(OWNER, limits, *size, T + after);
    }
}

#[test]
fn without_windows_nothing_is_counted() {
    let none = Limits {
        max_file_size: Some(1),
        ..Limits::default()
    };
    let mut rates = Rates::default();
    check(&mut rates, &none, u64::MAX, T, "allowed");
    rates.issued(OWNER, &none, u64::MAX, T);
    rates.learned(OWNER, &none, &[(T, 1)], T);
    assert_eq!(rates.uses(OWNER, &none, T), Some(vec![]));
    assert!(rates.recent.is_empty() && rates.older.is_empty());
}

#[test]
fn bytes_slide_and_the_retry_is_exact() {
    let limits = rule(&[(HOUR, 1000)], &[]);
    let mut rates = fresh(&limits, T);
    issue(&mut rates, &limits, &[(400, 0), (300, 10), (300, 10)]);
    check(&mut rates, &limits, 0, T + 10, "allowed");
    check(&mut rates, &limits, 1, T + 10, "bytes 1000/1000 retry 3600");
    check(
        &mut rates,
        &limits,
        400,
        T + 10,
        "bytes 1000/1000 retry 3600",
    );
    check(
        &mut rates,
        &limits,
        401,
        T + 10,
        "bytes 1000/1000 retry 3610",
    );
    check(
        &mut rates,
        &limits,
        1000,
        T + 10,
        "bytes 1000/1000 retry 3610",
    );
    check(&mut rates, &limits, 1001, T + 10, "bytes 1000/1000 never");
    check(
        &mut rates,
        &limits,
        u64::MAX,
        T + 10,
        "bytes 1000/1000 never",
    );
    check(
        &mut rates,
        &limits,
        400,
        T + 3599,
        "bytes 1000/1000 retry 3600",
    );
    check(&mut rates, &limits, 400, T + 3600, "allowed");
    check(
        &mut rates,
        &limits,
        401,
        T + 3609,
        "bytes 600/1000 retry 3610",
    );
    check(&mut rates, &limits, 1000, T + 3610, "allowed");
    check(&mut rates, &limits, 1001, T + 9000, "bytes 0/1000 never");
}

#[test]
fn uploads_slide_and_the_retry_is_exact() {
    let limits = rule(&[], &[(60, 3)]);
    let mut rates = fresh(&limits, T);
    issue(&mut rates, &limits, &[(1, 0), (u64::MAX, 0), (1, 30)]);
    check(&mut rates, &limits, 1, T + 30, "uploads 3/3 retry 60");
    check(&mut rates, &limits, 1, T + 59, "uploads 3/3 retry 60");
    issue(&mut rates, &limits, &[(1, 60), (1, 60)]);
    check(&mut rates, &limits, 1, T + 60, "uploads 3/3 retry 90");
    let none = rule(&[], &[(60, 0)]);
    check(&mut rates, &none, 1, T + 60, "uploads 3/0 never");
}

#[test]
fn the_window_that_stays_full_longest_is_reported() {
    let limits = rule(&[(HOUR, 1000), (DAY, 5000)], &[(60, 2), (DAY, 100)]);
    let mut rates = fresh(&limits, T);
    issue(&mut rates, &limits, &[(500, 0), (500, 5)]);
    check(&mut rates, &limits, 1, T + 5, "bytes 1000/1000 retry 3600");
    check(&mut rates, &limits, 1001, T + 5, "bytes 1000/1000 never");
    check(&mut rates, &limits, 5001, T + 5, "bytes 1000/1000 never");
    issue(&mut rates, &limits, &[(1, 3600), (1, 3610)]);
    check(&mut rates, &limits, 1, T + 3615, "uploads 2/2 retry 3660");
    let uses = rates.uses(OWNER, &limits, T + 3615).unwrap();
    let uses: Vec<u64> = uses.iter().map(|window| window.used).collect();
    assert_eq!(uses, [2, 1002, 2, 4]);
}

/// A rule as in django-xmpp-http-upload: one megabyte and three uploads per hour.
#[test]
fn a_typical_rule_with_two_windows() {
    let limits = rule(&[(HOUR, 1 << 20)], &[(HOUR, 3)]);
    let mut rates = fresh(&limits, T);
    issue(&mut rates, &limits, &[(512 << 10, 0), (512 << 10, 600)]);
    let full = "bytes 1048576/1048576 retry 3600";
    check(&mut rates, &limits, 1, T + 1200, full);
    check(&mut rates, &limits, 1, T + 3599, full);
    issue(&mut rates, &limits, &[(1, 3600), (1, 3601)]);
    check(&mut rates, &limits, 1, T + 3602, "uploads 3/3 retry 4200");
    check(
        &mut rates,
        &limits,
        512 << 10,
        T + 3602,
        "bytes 524290/1048576 retry 4200",
    );
    check(
        &mut rates,
        &limits,
        1 << 20,
        T + 3602,
        "bytes 524290/1048576 retry 7201",
    );
}

#[test]
fn earlier_slots_are_loaded_from_the_files() {
    let limits = rule(&[(HOUR, 1000)], &[(DAY, 4)]);
    let mut rates = Rates::default();
    check(&mut rates, &limits, 1, T, "unknown");
    assert_eq!(rates.uses(OWNER, &limits, T), None);
    // Unordered; one too old for the byte window, one too old for both windows, one in the future.
    let files = [
        (T - 10, 300),
        (T - HOUR, 5000),
        (T + YEAR, 500),
        (T - DAY, 1),
    ];
    rates.learned(OWNER, &limits, &files, T);
    check(&mut rates, &limits, 200, T, "allowed");
    check(&mut rates, &limits, 201, T, "bytes 800/1000 retry 3590");
    issue(&mut rates, &limits, &[(200, 1)]);
    check(
        &mut rates,
        &limits,
        1,
        T + HOUR * 2,
        "uploads 4/4 retry 82800",
    );
    // Loading again changes nothing.
    rates.learned(OWNER, &limits, &files, T + 2);
    check(
        &mut rates,
        &limits,
        1,
        T + HOUR * 2,
        "uploads 4/4 retry 82800",
    );
}

#[test]
fn slots_issued_before_loading_are_counted_once() {
    let limits = rule(&[(HOUR, 1000)], &[]);
    let mut rates = Rates::default();
    rates.issued(OWNER, &limits, 100, T);
    check(&mut rates, &limits, 1, T + 5, "unknown");
    // The second file belongs to the slot issued above.
    rates.learned(OWNER, &limits, &[(T - 9, 200), (T + 3, 100)], T + 5);
    check(&mut rates, &limits, 701, T + 5, "bytes 300/1000 retry 3591");
    check(&mut rates, &limits, 700, T + 5, "allowed");
}

#[test]
fn longer_windows_after_a_reload_load_the_files_again() {
    let (short, long) = (rule(&[(60, 1000)], &[]), rule(&[(HOUR, 1000)], &[]));
    let mut rates = fresh(&short, T);
    issue(&mut rates, &short, &[(500, 0), (400, 100)]);
    check(&mut rates, &long, 100, T + 120, "unknown");
    // The slot at T has left the short window, so its file is counted; the other slot is still recorded.
    rates.learned(OWNER, &long, &[(T + 1, 500), (T + 101, 400)], T + 120);
    check(&mut rates, &long, 101, T + 120, "bytes 900/1000 retry 3601");
    check(&mut rates, &short, 600, T + 120, "allowed");
}

#[test]
fn a_clock_set_back_blocks_no_longer_than_the_window() {
    let limits = rule(&[(HOUR, 1000)], &[(HOUR, 5)]);
    for jump in [1, HOUR, YEAR] {
        let mut rates = fresh(&limits, T + jump);
        rates.issued(OWNER, &limits, 600, T + jump);
        rates.issued(OWNER, &limits, 400, T + jump);
        let mut now = T;
        while rates.check(OWNER, &limits, 1000, now) == Outcome::Unknown {
            assert_eq!(now, T, "loaded once");
            rates.learned(OWNER, &limits, &[(T - 5, 0), (T + jump, 1000)], now);
            now += 1;
        }
        let left = "bytes 1000/1000 retry 3600";
        check(&mut rates, &limits, 1, T + 10, left);
        check(&mut rates, &limits, 1, T + HOUR - 1, left);
        check(&mut rates, &limits, 1000, T + HOUR, "allowed");
    }
}

#[test]
fn after_a_clock_jumped_ahead_the_files_are_loaded_again() {
    let limits = rule(&[(HOUR, 1000)], &[]);
    let mut rates = fresh(&limits, T);
    issue(&mut rates, &limits, &[(900, 0)]);
    check(&mut rates, &limits, 1000, T + YEAR, "allowed");
    check(&mut rates, &limits, 1000, T + 10, "unknown");
    rates.learned(OWNER, &limits, &[(T, 900)], T + 10);
    check(
        &mut rates,
        &limits,
        101,
        T + 10,
        "bytes 900/1000 retry 3600",
    );
    check(&mut rates, &limits, 101, T + HOUR, "allowed");
}

#[test]
fn extremes_do_not_panic() {
    let ends = [0, 1, 2, T, u64::MAX / 2, u64::MAX - 1, u64::MAX];
    for delta in ends {
        let limits = rule(&[(delta, u64::MAX), (1, 0)], &[(delta, u64::MAX)]);
        let mut rates = Rates::default();
        for now in ends.iter().chain(ends.iter().rev()) {
            for size in ends {
                rates.check(OWNER, &limits, size, *now);
                rates.issued(OWNER, &limits, size, *now);
                rates.learned(OWNER, &limits, &ends.map(|time| (time, u64::MAX)), *now);
                assert_ne!(rates.check(OWNER, &limits, size, *now), Outcome::Unknown);
                assert!(rates.uses(OWNER, &limits, *now).is_some());
            }
        }
    }
    let (days, mut rates) = (
        rule(&[(DAY, u64::MAX)], &[(DAY, u64::MAX)]),
        Rates::default(),
    );
    rates.learned(OWNER, &days, &[(T, u64::MAX), (T, u64::MAX)], T);
    let most = u64::MAX;
    check(
        &mut rates,
        &days,
        1,
        T,
        &format!("bytes {most}/{most} retry 86400"),
    );
}

#[test]
fn owners_are_independent_and_their_number_is_bounded() {
    let owners = |rates: &Rates| rates.recent.len() + rates.older.len();
    let limits = rule(&[(HOUR, 1000)], &[]);
    let mut rates = Rates::new(8);
    let name = |at: u64| at.to_be_bytes();
    for at in 0..1000 {
        rates.learned(&name(at), &limits, &[(T, at)], T);
        assert_eq!(rates.check(&name(at), &limits, 1, T), Outcome::Allowed);
        // An owner with recent requests is not dropped.
        assert_ne!(rates.check(&name(0), &limits, 1, T), Outcome::Unknown);
        assert!(owners(&rates) <= 8);
    }
    assert_eq!(rates.check(&name(1), &limits, 1, T), Outcome::Unknown);
    let last = rates.uses(&name(999), &limits, T).unwrap();
    assert_eq!(last[0].used, 999);
    // Owners with empty windows are dropped first.
    let mut rates = Rates::new(8);
    rates.learned(&name(0), &limits, &[(T, 1)], T);
    for at in 1..1000 {
        rates.learned(&name(at), &limits, &[], T);
    }
    assert_eq!(rates.check(&name(0), &limits, 1, T), Outcome::Allowed);
    rates.forget();
    assert_eq!(owners(&rates), 0);
}

/// A direct implementation of the definition.
struct Naive(Vec<(u64, u64)>);

impl Naive {
    /// Whether the slot passes if every window of `delta` seconds is `extra(delta)` seconds longer.
    fn allows(&self, limits: &Limits, size: u64, now: u64, extra: impl Fn(u64) -> u64) -> bool {
        windows(limits).all(|window| {
            let delta = seconds(window) + extra(seconds(window));
            let within = |(time, _): &&(u64, u64)| time + delta > now && *time <= now;
            let within = self.0.iter().filter(within);
            match window.kind {
                Kind::Bytes => within.map(|(_, size)| size).sum::<u64>() + size <= window.limit,
                Kind::Uploads => (within.count() as u64) < window.limit,
            }
        })
    }
}

/// A small pseudo-random generator (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end
    }
}

#[test]
fn agrees_with_the_definition_to_the_second() {
    for seed in 1..=40 {
        let mut random = Random(seed);
        let mut random_windows = |longest: u64, most: u64| {
            let count = random.below(3);
            let one = |_| (1 + random.below(longest), 1 + random.below(most));
            (0..count).map(one).collect::<Vec<_>>()
        };
        let limits = rule(&random_windows(200, 3000), &random_windows(200, 20));
        let mut rates = fresh(&limits, T);
        let mut naive = Naive(Vec::new());
        let mut now = T;
        for _ in 0..500 {
            now += random.below(12).saturating_sub(4);
            let size = random.below(1200);
            let outcome = rates.check(OWNER, &limits, size, now);
            let allowed = naive.allows(&limits, size, now, |_| 0);
            assert_eq!(outcome == Outcome::Allowed, allowed, "seed {seed}");
            match outcome {
                Outcome::Allowed => {
                    rates.issued(OWNER, &limits, size, now);
                    naive.0.push((now, size));
                }
                Outcome::Refused { retry, .. } => {
                    let first =
                        (now..now + 300).find(|later| naive.allows(&limits, size, *later, |_| 0));
                    assert_eq!(retry, first, "seed {seed}");
                }
                Outcome::Unknown => panic!("seed {seed}"),
            }
        }
    }
}

#[test]
fn checkpoints_are_bounded_and_err_on_the_restrictive_side() {
    let rules = [
        rule(&[(HOUR, 50_000)], &[]),
        rule(&[(60, 1_500), (HOUR, 60_000)], &[(DAY, 20_000)]),
        rule(&[(DAY, 900_000)], &[(20, 8), (10 * DAY, 90_000)]),
    ];
    for (seed, limits) in (1..).zip(&rules) {
        let mut random = Random(seed);
        let mut rates = fresh(limits, T);
        let mut naive = Naive(Vec::new());
        let mut deltas: Vec<u64> = windows(limits).map(seconds).collect();
        deltas.dedup();
        let bound = |delta: u64| delta * deltas.len() as u64 / 64;
        let (mut now, mut late, mut thinned) = (T, 0, 0);
        for _ in 0..6000 {
            now += random.below(4);
            if random.below(400) == 0 {
                now += random.below(HOUR);
            }
            let size = random.below(100);
            let allowed = naive.allows(limits, size, now, |_| 0);
            if rates.check(OWNER, limits, size, now) == Outcome::Allowed {
                assert!(allowed, "rule {seed}");
                rates.issued(OWNER, limits, size, now);
                naive.0.push((now, size));
            } else if allowed {
                late += 1;
                assert!(!naive.allows(limits, size, now, bound), "rule {seed}");
            }
            let marks = rates.recent[OWNER].marks.len();
            thinned = thinned.max(marks);
            assert!(marks <= MOST_MARKS);
        }
        assert_eq!(thinned, MOST_MARKS, "rule {seed} was not thinned");
        assert!(naive.0.len() > 1000, "rule {seed}: {}", naive.0.len());
        assert!(late < 600, "rule {seed}: {late} refused early");
    }
}

#[test]
fn the_rule_with_most_deltas_is_rarely_thinned() {
    let deltas = [
        1,
        7,
        60,
        500,
        HOUR,
        7000,
        DAY,
        3 * DAY,
        YEAR,
        3 * YEAR,
        1 << 40,
    ];
    let wide = rule(
        &deltas.map(|delta| (delta, u64::MAX)),
        &[(u64::MAX, u64::MAX)],
    );
    let files: Vec<(u64, u64)> = (0..20_000).map(|at| (T - at * at / 7, 1)).collect();
    let mut rates = Rates::default();
    rates.learned(OWNER, &wide, &files, T);
    let mut random = Random(9);
    let (mut now, mut before, mut passes) = (T, 0, 0);
    for _ in 0..20_000 {
        now += random.below(3);
        rates.issued(OWNER, &wide, 1, now);
        let marks = rates.recent[OWNER].marks.len();
        assert!(marks <= MOST_MARKS);
        passes += u32::from(marks + 1 < before);
        before = marks;
    }
    // Each pass makes room for about a hundred slots, which keeps the amortised cost low.
    assert!(passes < 20_000 / 50, "{passes}");
    let uses = rates.uses(OWNER, &wide, now).unwrap();
    assert_eq!(uses.last().map(|window| window.used), Some(40_000));
}
