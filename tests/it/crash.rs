//! SIGKILL at random moments under a mixed load, again and again on the same store: what was answered with 201 is
//! there byte for byte, nothing is partial or left over, what is gone stays gone, and the sums are those of the tree.
//!
//! A [`World`] is what the clients know: of every file what it is, what was asked, and what was answered before the
//! kill. What was not answered may have happened or not. The seed of everything that is drawn by lot is printed;
//! `UPSLOT_SEED` repeats it, as far as two runs of several threads can be the same.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ring::digest::{SHA256, digest};
use ring::hmac;

use crate::harness::http::chunked;
use crate::harness::site::owner_folder;
use crate::harness::wait::long;
use crate::harness::{
    PATIENCE, Plan, Program, Site, Slot, eventually, pseudo_random, request, unix_now,
};
use crate::purposes::until;

/// Rounds on one store, and stores.
const ROUNDS: u64 = 10;
const STORES: u64 = 24;

/// Clients at a time.
const THREADS: u64 = 6;

const KEY: &str = "correct horse battery staple, and more of it";
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
    put: String,
    get: String,
    token: Option<String>,
    /// Below the storage folder.
    path: String,
    /// Where in the pool its body is.
    start: usize,
    size: usize,
    /// It may be removed to make room.
    hoarded: bool,
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
            && !self.hoarded
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
    hoarded: Mutex<HashMap<String, u64>>,
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

fn mac(message: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, KEY.as_bytes());
    HEXLOWER.encode(hmac::sign(&key, message.as_bytes()).as_ref())
}

fn token(item: &Item, slot: &str) -> String {
    let now = unix_now();
    let expires = item
        .until
        .map_or(String::new(), |u| format!(",\"expires\":{u}"));
    let claims = format!(
        "{{\"iat\":{now},\"exp\":{},\"sub\":\"{}\",\"slot\":\"{slot}\",\"filename\":\"s.bin\",\"filesize\":{}{expires}}}",
        now + 300,
        item.owner,
        item.size
    );
    let head = BASE64URL_NOPAD.encode(br#"{"alg":"HS256","typ":"JWT"}"#);
    let signed = format!("{head}.{}", BASE64URL_NOPAD.encode(claims.as_bytes()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, KEY.as_bytes());
    let tag = hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", BASE64URL_NOPAD.encode(tag.as_ref()))
}

/// The name that stands for a slot of the file share.
fn alias(slot: &str) -> String {
    BASE64URL_NOPAD.encode(&digest(&SHA256, slot.as_bytes()).as_ref()[..15])
}

/// One client of one round.
struct Load<'a> {
    world: &'a World,
    store: &'a Path,
    http: SocketAddr,
    api: SocketAddr,
    round: u64,
    number: u64,
    dice: Dice,
    uploads: u64,
}

impl Load<'_> {
    fn run(mut self, ephemeral: Vec<(Slot, u64, u64)>) {
        let mut ephemeral = ephemeral.into_iter();
        loop {
            let done = match self.dice.below(100) {
                0..=49 => self.upload(),
                50..=56 => match ephemeral.next() {
                    Some((slot, size, until)) => self.upload_ephemeral(&slot, size, until),
                    None => self.upload(),
                },
                57..=80 => self.download(),
                81..=88 => self.delete(),
                89..=92 => self.make_old(),
                _ => self.upload_again(),
            };
            if let Err(error) = done {
                if !self.world.killed.load(Ordering::SeqCst) {
                    self.fault(format!("a connection failed before the kill: {error}"));
                }
                return;
            }
            if self.world.killed.load(Ordering::SeqCst) {
                return;
            }
        }
    }

    fn fault(&self, what: String) {
        self.world.faults.lock().unwrap().push(what);
    }

    fn change(&self, at: usize, change: impl FnOnce(&mut Item)) {
        change(&mut self.world.items.lock().unwrap()[at]);
    }

    /// One of the items that are such.
    fn any(&mut self, such: impl Fn(&Item) -> bool) -> Option<(usize, Item)> {
        let items = self.world.items.lock().unwrap();
        let most = items.len() as u64;
        (0..20).find_map(|_| {
            let at = self.dice.below(most.max(1)) as usize;
            let item = items.get(at).filter(|item| such(item))?;
            Some((at, item.clone()))
        })
    }

    fn new_item(&mut self, kind: Kind, size: u64) -> Item {
        // Eight files of an owner pass no quota.
        let hoarded = kind == Kind::Own && self.dice.below(3) == 0;
        let owner = match hoarded {
            true => "hoarder@montague.tld".to_owned(),
            false => format!(
                "k{}-{}-{}@capulet.tld",
                self.round,
                self.number,
                self.uploads / 8
            ),
        };
        self.uploads += 1;
        Item {
            kind,
            round: self.round,
            owner,
            put: String::new(),
            get: String::new(),
            token: None,
            path: String::new(),
            start: self.dice.below(POOL as u64 - size) as usize,
            size: size as usize,
            hoarded,
            until: None,
            begun: Instant::now(),
            stored: None,
            aged: false,
            deletion: Deletion::No,
            gone: false,
        }
    }

    fn upload(&mut self) -> io::Result<()> {
        let size = 1 + match self.dice.below(10) {
            0..=5 => self.dice.below(3000),
            6..=8 => self.dice.below(30_000),
            _ => 40_000 + self.dice.below(80_000),
        };
        let kind =
            [Kind::Own, Kind::Own, Kind::Shared, Kind::External][self.dice.below(4) as usize];
        let mut item = self.new_item(kind, size);
        let number = self.world.serial.fetch_add(1, Ordering::Relaxed);
        match kind {
            Kind::Own => {
                if item.hoarded {
                    let mut hoarded = self.world.hoarded.lock().unwrap();
                    *hoarded.entry(item.owner.clone()).or_default() += size;
                }
                let owner = item.owner.replace('@', "%40");
                let query = format!("/slot/?jid={owner}&name={number}.bin&size={size}");
                let (status, text) = Wire::open(self.api)?.ask("GET", &query)?;
                let text = String::from_utf8(text).unwrap();
                let Some((put, get)) = text.split_once('\n').filter(|_| status == 200) else {
                    // What is under way cannot be evicted.
                    if !(item.hoarded && status == 403) {
                        self.fault(format!(
                            "slot of {} for {size}: {status} {text}",
                            item.owner
                        ));
                    }
                    return Ok(());
                };
                let slot = Slot::from_urls(put, get);
                item.path = slot.stored_at().to_str().unwrap().to_owned();
                (item.put, item.get) = (slot.put, slot.get);
            }
            Kind::Shared => {
                let slot = format!("slot-{number}");
                let soon = self.dice.below(3) == 0;
                item.until = soon.then(|| unix_now() + 1 + self.dice.below(3));
                let suffix = item
                    .until
                    .map_or("mn".to_owned(), |until| format!("mx{until:x}"));
                item.path = format!(
                    "{}/{}~{suffix}/s.bin",
                    owner_folder(&item.owner),
                    alias(&slot)
                );
                item.put = format!("/files/{slot}/s.bin");
                item.get.clone_from(&item.put);
                item.token = Some(format!("Bearer {}", token(&item, &slot)));
            }
            Kind::External => {
                item.path = format!("{}/{number}/e.bin", owner_folder(&item.owner));
                item.get = format!("/files/{}", item.path);
                item.put = format!("{}?v={}", item.get, mac(&format!("{} {size}", item.path)));
            }
        }
        self.begin(item)
    }

    fn upload_ephemeral(&mut self, slot: &Slot, size: u64, until: u64) -> io::Result<()> {
        let mut item = self.new_item(Kind::Own, size);
        item.hoarded = false;
        item.until = Some(until);
        item.path = slot.stored_at().to_str().unwrap().to_owned();
        (item.put, item.get) = (slot.put.clone(), slot.get.clone());
        self.begin(item)
    }

    /// The first try to store it.
    fn begin(&mut self, mut item: Item) -> io::Result<()> {
        item.begun = Instant::now();
        let at = {
            let mut items = self.world.items.lock().unwrap();
            items.push(item.clone());
            items.len() - 1
        };
        let Some((status, text)) = self.put(&item)? else {
            return Ok(());
        };
        let stored = Instant::now();
        let lapsed = item.until.is_some_and(|until| until <= unix_now());
        match status {
            201 => {
                self.change(at, |item| item.stored = Some(stored));
                one_more(&self.world.seen.stored);
            }
            507 if item.hoarded => {}
            // A token whose file would be over at once.
            403 if lapsed => {}
            _ => self.fault(format!("PUT of {item:?}: {status} {text}")),
        }
        Ok(())
    }

    /// One PUT, in one of several ways; nothing when it was broken off.
    fn put(&mut self, item: &Item) -> io::Result<Option<(u16, String)>> {
        let body = item.body(&self.world.pool);
        let mut wire = Wire::open(self.http)?;
        let mut fields: Vec<(&str, &str)> = Vec::new();
        if let Some(token) = &item.token {
            fields.push(("Authorization", token));
        }
        let length = body.len().to_string();
        let way = self.dice.below(10);
        match way {
            // With an expectation.
            0 | 1 => {
                fields.extend([("Content-Length", &*length), ("Expect", "100-continue")]);
                wire.stream
                    .write_all(&request("PUT", &item.put, &fields, b""))?;
                let (status, text) = wire.reply()?;
                if status != 100 {
                    return Ok(Some((status, String::from_utf8(text).unwrap())));
                }
                wire.stream.write_all(body)?;
            }
            // In chunks.
            2 | 3 if item.kind != Kind::External => {
                fields.push(("Transfer-Encoding", "chunked"));
                let chunks = chunked(body, 1 + body.len() / 3);
                wire.stream
                    .write_all(&request("PUT", &item.put, &fields, b""))?;
                wire.stream.write_all(&chunks)?;
            }
            // Broken off within the body.
            4 if body.len() > 1 => {
                fields.push(("Content-Length", &*length));
                let part = &body[..self.dice.below(body.len() as u64) as usize];
                wire.stream
                    .write_all(&request("PUT", &item.put, &fields, part))?;
                return Ok(None);
            }
            // In pieces.
            5 | 6 => {
                fields.push(("Content-Length", &*length));
                wire.stream
                    .write_all(&request("PUT", &item.put, &fields, b""))?;
                for piece in body.chunks(1 + body.len() / 4) {
                    wire.stream.write_all(piece)?;
                    thread::yield_now();
                }
            }
            _ => wire
                .stream
                .write_all(&request("PUT", &item.put, &fields, body))?,
        }
        let (status, text) = wire.reply()?;
        Ok(Some((status, String::from_utf8(text).unwrap())))
    }

    fn download(&mut self) -> io::Result<()> {
        let Some((at, item)) = self.any(|item| item.stored.is_some()) else {
            return Ok(());
        };
        let gone = item.must_be_gone();
        let (status, body) = Wire::open(self.http)?.ask("GET", &item.get)?;
        // What has changed meanwhile may have changed the answer.
        let now = self.world.items.lock().unwrap()[at].clone();
        let there = now.must_be_there();
        let right = match status {
            200 => !gone && body == item.body(&self.world.pool),
            404 => !there,
            _ => false,
        };
        if !right {
            self.fault(format!("GET: {status}, {} bytes, of {now:?}", body.len()));
        }
        Ok(())
    }

    fn delete(&mut self) -> io::Result<()> {
        let such = |item: &Item| {
            item.kind == Kind::External && item.stored.is_some() && item.deletion == Deletion::No
        };
        let Some((at, item)) = self.any(|item| such(item) && !item.aged) else {
            return Ok(());
        };
        // Of two clients who chose the same, one goes on.
        let mut mine = false;
        self.change(at, |item| {
            mine = item.deletion == Deletion::No;
            item.deletion = Deletion::Asked;
        });
        if !mine {
            return Ok(());
        }
        let tag = mac(&format!("{}\0{DELETE_KEY}", item.path));
        let target = format!("{}?token={tag}", item.get);
        let (status, text) = Wire::open(self.http)?.ask("DELETE", &target)?;
        let now = self.world.items.lock().unwrap()[at].clone();
        match status {
            204 => {
                self.change(at, |item| item.deletion = Deletion::Done);
                one_more(&self.world.seen.deleted);
            }
            404 if now.aged => {}
            _ => self.fault(format!("DELETE: {status} {text:?} of {item:?}")),
        }
        Ok(())
    }

    /// Makes a file so old that the next sweep takes it.
    fn make_old(&mut self) -> io::Result<()> {
        let such = |item: &Item| {
            item.kind != Kind::Shared && item.until.is_none() && !item.hoarded && !item.aged
        };
        let round = self.round;
        let found = self.any(|item| {
            such(item)
                && item.stored.is_some()
                && item.deletion == Deletion::No
                && item.round == round
        });
        if let Some((at, item)) = found {
            self.change(at, |item| item.aged = true);
            let old = SystemTime::now() - Duration::from_secs(7200);
            // A DELETE may have been faster.
            if let Ok(file) = fs::File::options()
                .write(true)
                .open(self.store.join(&item.path))
            {
                file.set_modified(old)?;
            }
        }
        Ok(())
    }

    /// A slot makes one file.
    fn upload_again(&mut self) -> io::Result<()> {
        let found = self.any(|item| item.stored.is_some() && !item.hoarded && !item.aged);
        let Some((at, item)) = found else {
            return Ok(());
        };
        let Some((status, text)) = self.put(&item)? else {
            return Ok(());
        };
        let now = self.world.items.lock().unwrap()[at].clone();
        let lapses = now.until.is_some_and(|until| until <= unix_now() + 1);
        let right = match status {
            409 => true,
            // The token lapses with the file; a slot of ours does not, and its file may have been swept.
            201 | 403 => lapses || (now.aged && now.kind == Kind::Own),
            _ => false,
        };
        if !right {
            self.fault(format!("PUT again: {status} {text} of {now:?}"));
        }
        Ok(())
    }
}

/// Files and empty folders below the storage folder, without the program's own.
fn tree(store: &Path) -> (HashMap<String, u64>, Vec<String>) {
    let (mut files, mut empty) = (HashMap::new(), Vec::new());
    let mut folders = vec![store.to_owned()];
    while let Some(folder) = folders.pop() {
        let mut entries = 0;
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let below = path.strip_prefix(store).unwrap().to_str().unwrap();
            if below == ".upslot" {
                continue;
            }
            entries += 1;
            match entry.metadata() {
                Ok(facts) if facts.is_dir() => folders.push(path),
                Ok(facts) => {
                    files.insert(below.to_owned(), facts.len());
                }
                Err(_) => {}
            }
        }
        if entries == 0 && folder != store {
            empty.push(
                folder
                    .strip_prefix(store)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned(),
            );
        }
    }
    (files, empty)
}

fn metric(site: &Site, name: &str) -> Option<u64> {
    let page = site.ask_api("/metrics").is(200);
    let line = page
        .text()
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|number| number.parse().ok())
}

/// Everything that must hold when the program has been started again.
fn check(site: &Site, world: &World, dice: &mut Dice, round: u64, all: bool) {
    let store = site.store();
    let mut items = world.items.lock().unwrap();
    let mut wire = Wire::open(site.http).unwrap();
    for item in items.iter_mut() {
        let recent = item.round + 1 >= round;
        if !all && !recent && dice.below(10) > 0 {
            continue;
        }
        let (gone, there) = (item.must_be_gone(), item.must_be_there());
        let (status, body) = wire.ask("GET", &item.get).unwrap();
        match status {
            200 => assert!(
                body == item.body(&world.pool),
                "{} bytes: {item:?}",
                body.len()
            ),
            404 => {}
            _ => panic!("{status}: {item:?}"),
        }
        assert!(status == 404 || !gone, "back again: {item:?}");
        assert!(
            status == 200 || !there || !item.must_be_there(),
            "lost: {item:?}"
        );
        if status == 404 && item.stored.is_some() && !item.gone {
            item.gone = true;
            let seen = &world.seen;
            one_more(match (item.until, item.hoarded) {
                (Some(_), _) => &seen.lapsed,
                (None, true) => &seen.evicted,
                (None, false) => &seen.expired,
            });
        }
        let removed = item.deletion == Deletion::Done || (item.gone && item.kind == Kind::External);
        if removed {
            assert!(is_buried(&store, &item.path), "no grave: {item:?}");
        }
        if item.stored.is_none() && recent && !item.hoarded && item.until.is_none() {
            // It was broken off, or not answered: then it is there or can be stored. One that has its name but no alias
            // yet gets that.
            let was_there = store.join(&item.path).exists();
            assert!(was_there || status == 404, "served from nowhere: {item:?}");
            one_more(&world.seen.unanswered);
            let fields: Vec<_> = item.token.iter().map(|t| ("Authorization", &**t)).collect();
            let put = request("PUT", &item.put, &fields, item.body(&world.pool));
            // A refusal may end its connection.
            let mut other = Wire::open(site.http).unwrap();
            other.stream.write_all(&put).unwrap();
            let (again, text) = other.reply().unwrap();
            let expected = if was_there { 409 } else { 201 };
            assert_eq!(
                again,
                expected,
                "{:?}: {item:?}",
                String::from_utf8_lossy(&text)
            );
            let (status, body) = wire.ask("GET", &item.get).unwrap();
            assert!(
                status == 200 && body == item.body(&world.pool),
                "{status}: {item:?}"
            );
            item.stored = Some(Instant::now());
        }
    }
    check_tree(&store, world, &items);
    check_hoarders(&store, &items, world);
    // A sweep may be under way.
    eventually("sums that are those of the tree", || {
        let before = tree(&store).0;
        let sums = (
            metric(site, "upslot_stored_files"),
            metric(site, "upslot_stored_bytes"),
        );
        let (files, bytes) = (before.len() as u64, before.values().sum());
        sums == (Some(files), Some(bytes)) || {
            let changed = tree(&store).0 != before || sums.0.is_none();
            assert!(changed, "{sums:?}, not {files} and {bytes}");
            false
        }
    });
}

fn is_buried(store: &Path, path: &str) -> bool {
    let digest = digest(&SHA256, path.as_bytes());
    let shard = store.join(format!(".upslot/gone/{:02x}", digest.as_ref()[0]));
    let graves = fs::read(shard).unwrap_or_default();
    graves
        .chunks_exact(16)
        .any(|grave| grave == &digest.as_ref()[1..17])
}

/// Every file is somebody's and whole; nothing else lies about.
fn check_tree(store: &Path, world: &World, items: &[Item]) {
    let by_path: HashMap<&str, &Item> = items.iter().map(|i| (i.path.as_str(), i)).collect();
    let (files, empty) = tree(store);
    for (path, size) in &files {
        let item = by_path
            .get(path.as_str())
            .unwrap_or_else(|| panic!("a stranger: {path}"));
        assert_eq!(*size, item.size as u64, "partial: {item:?}");
        // The sweep may take it at any moment.
        if let Ok(content) = fs::read(store.join(path)) {
            assert!(content == item.body(&world.pool), "other bytes: {item:?}");
        }
    }
    // A folder may have been made for a file that was not named any more.
    for folder in &empty {
        let waits = |item: &&Item| item.path.starts_with(&format!("{folder}/"));
        assert!(
            items.iter().any(|item| waits(&item)),
            "a folder for nothing: {folder}"
        );
    }
    let aliases: HashSet<String> = items
        .iter()
        .filter(|item| item.kind == Kind::Shared)
        .map(|item| item.path.split(['/', '~']).nth(1).unwrap().to_owned())
        .collect();
    for entry in fs::read_dir(store.join(".upslot")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        for inner in fs::read_dir(entry.path()).into_iter().flatten() {
            let inner = inner.unwrap();
            let file = inner.file_name().into_string().unwrap();
            match name.as_str() {
                "share" => {
                    assert!(aliases.contains(&file), "a strange alias: {file}");
                    let target = fs::read_link(inner.path()).unwrap();
                    assert!(by_path.contains_key(target.to_str().unwrap()), "{target:?}");
                }
                "gone" => {
                    let size = inner.metadata().unwrap().len();
                    assert!(file.len() == 2 && size % 16 == 0, "{file}: {size}");
                }
                _ => {}
            }
        }
        let own = ["slot_secret", "share", "gone", "clock"];
        assert!(own.contains(&name.as_str()), "left over: .upslot/{name}");
    }
}

/// Who has too much loses the oldest files, and only so many as need be.
fn check_hoarders(store: &Path, items: &[Item], world: &World) {
    let asked = world.hoarded.lock().unwrap();
    for (owner, asked) in asked.iter() {
        let files: Vec<&Item> = items
            .iter()
            .filter(|item| item.hoarded && item.owner == *owner)
            .collect();
        let (left, gone): (Vec<&Item>, Vec<&Item>) = files
            .iter()
            .partition(|item| store.join(&item.path).exists());
        let stored: u64 = left.iter().map(|item| item.size as u64).sum();
        assert!(stored <= HARD, "{owner} has {stored} bytes");
        let gone: Vec<&&Item> = gone.iter().filter(|item| item.stored.is_some()).collect();
        assert!(
            gone.is_empty() || *asked > SOFT,
            "evicted in vain: {gone:?}"
        );
        let oldest_left = left.iter().filter_map(|item| item.stored).min();
        let youngest_gone = gone.iter().max_by_key(|item| item.begun);
        if let (Some(left), Some(gone)) = (oldest_left, youngest_gone) {
            assert!(
                gone.begun < left + BLUR,
                "evicted before older ones: {gone:?}"
            );
        }
    }
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
        hoarded: Mutex::default(),
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
