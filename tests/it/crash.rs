//! SIGKILL at random moments under a mixed load, again and again on the same store: what was answered with 201 is
//! there byte for byte, nothing is partial or left over, what is gone stays gone, and the sums are those of the tree.
//!
//! A [`World`] is what the clients know: of every file what it is, what was asked, and what was answered before the
//! kill. What was not answered may have happened or not. The seed of everything that is drawn by lot is printed;
//! `UPSLOT_SEED` repeats it, as far as two runs of several threads can be the same.

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

/// Rounds on one store, and stores.
const ROUNDS: u64 = 10;
const STORES: u64 = 24;

/// Clients at a time.
const THREADS: u64 = 6;

const DELETE_KEY: &str = "delete me, I have been here for long enough";

/// Quotas per owner; bytes. Most owners stay below both, so that their files may never go.
const SOFT: u64 = 1_200_000;
const HARD: u64 = 1_400_000;

/// Bodies are parts of this many random bytes.
const POOL: usize = 1 << 20;

/// What a reader has not got of a file's last change may be so old; two files of that moment have no order.
const BLUR: Duration = Duration::from_millis(50);

/// Draws lots.
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
    /// In a slot of ours.
    Own,
    /// By a token of Prosody's file share, with an alias.
    Shared,
    /// By a signature that never lapses.
    External,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deletion {
    No,
    Asked,
    Done,
}

/// One file, as its clients know it.
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
    /// Where in the pool its body is.
    start: usize,
    size: usize,
    /// It may be removed to make room.
    crowded: bool,
    /// Unix second from which it must not be had.
    until: Option<u64>,
    begun: Instant,
    /// When its 201 was read.
    stored: Option<Instant>,
    /// It was made so old that the sweep takes it.
    aged: bool,
    deletion: Deletion,
    /// It was seen to be gone.
    gone: bool,
}

impl Item {
    fn body<'a>(&self, pool: &'a [u8]) -> &'a [u8] {
        &pool[self.start..self.start + self.size]
    }

    /// Whether it has to be there now, and for a second yet.
    fn must_be_there(&self) -> bool {
        self.stored.is_some()
            && !self.crowded
            && !self.aged
            && self.deletion == Deletion::No
            && self.until.is_none_or(|until| until > unix_now() + 1)
    }

    /// Whether it must not be had.
    fn must_be_gone(&self) -> bool {
        self.gone
            || self.deletion == Deletion::Done
            || self.until.is_some_and(|until| until <= unix_now())
    }
}

/// A connection that may end at any moment.
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

/// What all clients know.
struct World {
    pool: Vec<u8>,
    items: Mutex<Vec<Item>>,
    /// What must not be; the first of it ends the test.
    faults: Mutex<Vec<String>>,
    /// Set before the kill: what fails from then on is no fault.
    killed: AtomicBool,
    serial: AtomicUsize,
    /// Bytes that hoarders asked for.
    crowded: Mutex<HashMap<String, u64>>,
    seen: Seen,
}

/// That the load was what it was meant to be.
#[derive(Debug, Default)]
struct Seen {
    stored: AtomicUsize,
    unanswered: AtomicUsize,
    deleted: AtomicUsize,
    evicted: AtomicUsize,
    lapsed: AtomicUsize,
    expired: AtomicUsize,
}

fn one_more(count: &AtomicUsize) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// One round: load, kill, start again. Returns when it was checked.
fn round(site: &mut Site, world: &World, dice: &mut Dice, round: u64) {
    let mut ephemeral = Vec::new();
    for _ in 0..3 {
        let (size, end) = (1 + dice.below(5000), unix_now() + 2 + dice.below(3));
        let slot = site.ask("ephemeral@capulet.tld", "e.bin", size, None, &until(end));
        ephemeral.push((slot.unwrap(), size, end));
    }
    world.killed.store(false, Ordering::SeqCst);
    // Now and then so long that the sweep, which comes every second, is under way.
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
        // The moment is the test; nothing is awaited.
        thread::sleep(Duration::from_millis(moment));
        world.killed.store(true, Ordering::SeqCst);
        site.program.kill();
    });
    let faults = world.faults.lock().unwrap();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    drop(faults);
    // Now and then the next one is killed while it starts; the XMPP server hears nothing of that one.
    if dice.below(4) == 0 {
        let whole = fs::read_to_string(site.dir.path().join("config.yml")).unwrap();
        let alone = whole.lines().filter(|line| !line.starts_with("component_"));
        let config = site.dir.path().join("alone.yml");
        fs::write(
            &config,
            alone.map(|line| format!("{line}\n")).collect::<String>(),
        )
        .unwrap();
        let mut hasty = Program::start(&config, None, &[]);
        hasty.allow("component_jid: is absent");
        thread::sleep(Duration::from_millis(dice.below(15)));
        hasty.kill();
    }
    site.rewrite("fsync", dice.below(2) == 0);
    site.start_again();
    check(site, world, dice, round, false);
}

/// A store of its own, some rounds, and what the sweep leaves in the end.
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
        faults: Mutex::default(),
        killed: AtomicBool::new(false),
        serial: AtomicUsize::new(0),
        crowded: Mutex::default(),
        seen: Seen::default(),
    };
    for number in 0..most {
        eprintln!("seed {seed}, round {number}");
        round(&mut site, &world, &mut dice, number);
    }
    // Nobody disturbs it: the sweep takes all that is over, and every empty folder.
    let latest = world
        .items
        .lock()
        .unwrap()
        .iter()
        .filter_map(|item| item.until)
        .max();
    eventually("the last of what lapses", || {
        latest.is_none_or(|latest| latest < unix_now())
    });
    eventually("a tidy store", || {
        let (files, empty) = tree(&site.store());
        let items = world.items.lock().unwrap();
        let over = |item: &Item| item.must_be_gone() || item.aged;
        empty.is_empty()
            && !items
                .iter()
                .any(|item| over(item) && files.contains_key(&item.path))
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
            seen.lapsed,
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
