//! SIGKILL at random moments under a mixed load, repeatedly on the same store: files answered with 201 are complete,
//! nothing is partial or left over, deleted files stay deleted, and the sums match the tree.
//!
//! [`World`] records for every file what clients requested, and what was answered before the kill. A request without an
//! answer may or may not have taken effect. The random seed is printed; `UPSLOT_SEED` repeats it, as far as the order of
//! threads allows.

mod check;
mod load;

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};
use std::{fs, io, thread};

use crate::harness::signing::KEY;
use crate::harness::wait::long;
use crate::harness::{PATIENCE, Plan, Program, Site, eventually, pseudo_random, request, unix_now};
use crate::purposes::until;
use check::{check, tree};
use load::Load;

/// Rounds per store, and number of stores.
const ROUNDS: u64 = 10;
const STORES: u64 = 24;

/// Concurrent clients.
const THREADS: u64 = 6;

const DELETE_KEY: &str = "delete me, I have been here for long enough";

/// Quotas per owner in bytes. Most owners stay below both, so that their files are never evicted.
const SOFT: u64 = 1_200_000;
const HARD: u64 = 1_400_000;

/// Bodies are slices of this many random bytes.
const POOL: usize = 1 << 20;

/// Files whose uploads are this close together have no defined order.
const TOLERANCE: Duration = Duration::from_millis(50);

/// A random number generator (xorshift64*).
#[derive(Clone, Debug)]
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16) % end
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// With a slot of the component.
    Own,
    /// With a token of Prosody's file share, and an alias.
    Shared,
    /// With a signature that never expires.
    External,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deletion {
    No,
    Asked,
    Done,
}

/// One file, as its clients see it.
#[derive(Clone, Debug)]
struct Item {
    kind: Kind,
    round: u64,
    owner: String,
    // Nor the other way round.
    put: String,
    get: String,
    token: Option<String>,
    /// Below the storage folder.
    path: String,
    /// The offset of its body in the pool.
    start: usize,
    size: usize,
    /// It may be evicted.
    evictable: bool,
    /// Unix time from which it must not be served.
    until: Option<u64>,
    begun: Instant,
    /// When its 201 was received.
    stored: Option<Instant>,
    /// Its modification time was set so far back that the sweep deletes it.
    aged: bool,
    deletion: Deletion,
    /// It was seen to be deleted.
    deleted: bool,
}

impl Item {
    fn body<'a>(&self, pool: &'a [u8]) -> &'a [u8] {
        &pool[self.start..self.start + self.size]
    }

    /// Whether it must be served now and for another second.
    fn must_be_served(&self) -> bool {
        self.stored.is_some()
            && !self.evictable
            && !self.aged
            && self.deletion == Deletion::No
            && self.until.is_none_or(|until| until > unix_now() + 1)
    }

    /// Whether it must not be served.
    fn must_be_missing(&self) -> bool {
        self.deleted
            || self.deletion == Deletion::Done
            || self.until.is_some_and(|until| until <= unix_now())
    }
}

/// A connection that may end at any time.
struct Wire {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Wire {
    fn open(address: SocketAddr) -> io::Result<Wire> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let unread = Vec::new();
        Ok(Wire { stream, unread })
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut chunk = [0; 64 * 1024];
        match self.stream.read(&mut chunk)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            n => {
                self.unread.extend_from_slice(&chunk[..n]);
                Ok(())
            }
        }
    }

    /// Status and body of the next answer.
    fn reply(&mut self) -> io::Result<(u16, Vec<u8>)> {
        let head_end = loop {
            let end = self.unread.windows(4).position(|w| w == b"\r\n\r\n");
            match end {
                Some(at) => break at + 4,
                None => self.fill()?,
            }
        };
        let head: Vec<u8> = self.unread.drain(..head_end).collect();
        let head = String::from_utf8(head).unwrap();
        let status = head[9..12].parse().unwrap();
        let length = head
            .lines()
            .find_map(|l| l.strip_prefix("Content-Length: "));
        let length = length.map_or(0, |length| length.parse().unwrap());
        while self.unread.len() < length {
            self.fill()?;
        }
        Ok((status, self.unread.drain(..length).collect()))
    }

    fn ask(&mut self, method: &str, target: &str) -> io::Result<(u16, Vec<u8>)> {
        self.stream.write_all(&request(method, target, &[], b""))?;
        self.reply()
    }
}

/// State shared by all clients.
struct World {
    pool: Vec<u8>,
    items: Mutex<Vec<Item>>,
    /// Violations; the first one fails the test.
    violations: Mutex<Vec<String>>,
    /// Set before the kill: later connection errors are expected.
    killed: AtomicBool,
    serial: AtomicUsize,
    /// Bytes requested by owners above their quota.
    requested: Mutex<HashMap<String, u64>>,
    seen: Seen,
}

/// Counters that show that the load had the intended effects.
#[derive(Debug, Default)]
struct Seen {
    stored: AtomicUsize,
    unanswered: AtomicUsize,
    deleted: AtomicUsize,
    evicted: AtomicUsize,
    ephemeral: AtomicUsize,
    expired: AtomicUsize,
}

fn one_more(count: &AtomicUsize) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// One round: load, kill, restart, check.
fn round(site: &mut Site, world: &World, dice: &mut Dice, round: u64) {
    let mut ephemeral = Vec::new();
    for _ in 0..3 {
        let (size, end) = (1 + dice.below(5000), unix_now() + 2 + dice.below(3));
        let slot = site.ask("ephemeral@capulet.tld", "e.bin", size, None, &until(end));
        ephemeral.push((slot.unwrap(), size, end));
    }
    world.killed.store(false, Ordering::SeqCst);
    // Sometimes long enough for a sweep, which runs every second.
    let moment = match dice.below(4) {
        0 => 700 + dice.below(500),
        _ => 10 + dice.below(500),
    };
    let (http, api, store) = (site.http, site.api(), site.store());
    thread::scope(|scope| {
        for number in 0..THREADS {
            let load = Load {
                world,
                store: &store,
                http,
                api,
                round,
                number,
                dice: Dice::new(dice.below(1 << 40)),
                uploads: 0,
            };
            let ephemeral = if number == 0 {
                std::mem::take(&mut ephemeral)
            } else {
                Vec::new()
            };
            scope.spawn(move || load.run(ephemeral));
        }
        // The random moment is the point; there is no event to wait for.
        thread::sleep(Duration::from_millis(moment));
        world.killed.store(true, Ordering::SeqCst);
        site.program.kill();
    });
    let violations = world.violations.lock().unwrap();
    assert!(violations.is_empty(), "{}", violations.join("\n"));
    drop(violations);
    // Sometimes the next program is killed during its start, without an XMPP link.
    if dice.below(4) == 0 {
        let whole = fs::read_to_string(site.dir.path().join("config.yml")).unwrap();
        let alone = whole.lines().filter(|line| !line.starts_with("component_"));
        let config = site.dir.path().join("alone.yml");
        fs::write(
            &config,
            alone.map(|line| format!("{line}\n")).collect::<String>(),
        )
        .unwrap();
        let mut starting = Program::start(&config, None, &[]);
        starting.allow("component_jid: is absent");
        thread::sleep(Duration::from_millis(dice.below(15)));
        starting.kill();
    }
    site.rewrite("fsync", dice.below(2) == 0);
    site.start_again();
    check(site, world, dice, round, false);
}

/// Several rounds on a new store, then a final check after the last sweep.
fn rounds(seed: u64, most: u64) -> World {
    let mut dice = Dice::new(seed);
    let mut site = Plan::new()
        .set("api", "{port: 0}")
        .set("purposes", "{message: {}, ephemeral: {}}")
        .set("external_secret", format!("'{KEY}'"))
        .set("external_delete_secret", format!("'{DELETE_KEY}'"))
        .set("file_share_secret", format!("'{KEY}'"))
        .set("max_file_size", 200_000)
        .set("global_quota", 1_u64 << 40)
        .set("user_quota_soft", SOFT)
        .set("user_quota_hard", HARD)
        .set("evict_on_quota", true)
        .set("expire_interval", 1)
        .set("expire_maxage", 3600)
        .start();
    let world = World {
        pool: pseudo_random(seed, POOL),
        items: Mutex::default(),
        violations: Mutex::default(),
        killed: AtomicBool::new(false),
        serial: AtomicUsize::new(0),
        requested: Mutex::default(),
        seen: Seen::default(),
    };
    for number in 0..most {
        eprintln!("seed {seed}, round {number}");
        round(&mut site, &world, &mut dice, number);
    }
    // Without load the sweep deletes all expired files and empty folders.
    let latest = world
        .items
        .lock()
        .unwrap()
        .iter()
        .filter_map(|item| item.until)
        .max();
    eventually("the last expiry", || {
        latest.is_none_or(|latest| latest < unix_now())
    });
    eventually("a tidy store", || {
        let (files, empty) = tree(&site.store());
        let items = world.items.lock().unwrap();
        let expired = |item: &Item| item.must_be_missing() || item.aged;
        empty.is_empty()
            && !items
                .iter()
                .any(|item| expired(item) && files.contains_key(&item.path))
    });
    check(&site, &world, &mut dice, most, true);
    world
}

#[test]
fn killed_at_any_moment_under_load() {
    let given = std::env::var("UPSLOT_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let clock = || SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros() as u64;
    let seed: u64 = given.unwrap_or_else(clock);
    let stores = if long() { STORES } else { 1 };
    let mut total = [0; 6];
    for number in 0..stores {
        let seen = rounds(seed.wrapping_add(number), ROUNDS).seen;
        let counts = [
            seen.stored,
            seen.unanswered,
            seen.deleted,
            seen.evicted,
            seen.ephemeral,
            seen.expired,
        ];
        for (total, count) in total.iter_mut().zip(counts) {
            *total += count.into_inner();
        }
    }
    eprintln!("{} rounds: {total:?}", stores * ROUNDS);
    let [stored, unanswered, ..] = total;
    assert!(stored > 0 && unanswered > 0, "no load: {total:?}");
    assert!(!long() || total.iter().all(|count| *count > 0), "{total:?}");
}
