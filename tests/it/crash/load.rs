//! One client: uploads sent in several ways, downloads, deletions.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};
use std::{fs, io, thread};

use data_encoding::BASE64URL_NOPAD;
use ring::digest::{SHA256, digest};

use super::{DELETE_KEY, Deletion, Dice, Item, Kind, POOL, Wire, World, one_more};
use crate::harness::http::chunked;
use crate::harness::signing::{Claims, delete_query, put_query};
use crate::harness::site::owner_folder;
use crate::harness::{Slot, request, unix_now};

/// One client of one round.
pub struct Load<'a> {
    pub world: &'a World,
    pub store: &'a Path,
    pub http: SocketAddr,
    pub api: SocketAddr,
    pub round: u64,
    pub number: u64,
    pub dice: Dice,
    pub uploads: u64,
}

impl Load<'_> {
    pub fn run(mut self, ephemeral: Vec<(Slot, u64, u64)>) {
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
                    self.report(format!("a connection failed before the kill: {error}"));
                }
                return;
            }
            if self.world.killed.load(Ordering::SeqCst) {
                return;
            }
        }
    }

    fn report(&self, what: String) {
        self.world.violations.lock().unwrap().push(what);
    }

    fn change(&self, at: usize, change: impl FnOnce(&mut Item)) {
        change(&mut self.world.items.lock().unwrap()[at]);
    }

    /// A random item that satisfies the condition.
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
        // Eight files of an owner exceed no quota.
        let crowded = kind == Kind::Own && self.dice.below(3) == 0;
        let owner = match crowded {
            true => "over-quota@montague.tld".to_owned(),
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
            // Nor the other way round.
            put: String::new(),
            get: String::new(),
            token: None,
            path: String::new(),
            start: self.dice.below(POOL as u64 - size) as usize,
            size: size as usize,
            evictable: crowded,
            until: None,
            begun: Instant::now(),
            stored: None,
            aged: false,
            deletion: Deletion::No,
            deleted: false,
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
                if item.evictable {
                    let mut crowded = self.world.requested.lock().unwrap();
                    *crowded.entry(item.owner.clone()).or_default() += size;
                }
                let owner = item.owner.replace('@', "%40");
                let query = format!("/slot/?jid={owner}&name={number}.bin&size={size}");
                let (status, text) = Wire::open(self.api)?.ask("GET", &query)?;
                let text = String::from_utf8(text).unwrap();
                let Some((put, get)) = text.split_once('\n').filter(|_| status == 200) else {
                    // Running uploads cannot be evicted.
                    if !(item.evictable && status == 403) {
                        self.report(format!(
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
                    "{}/{}~{:x}~{suffix}/s.bin",
                    owner_folder(&item.owner),
                    alias(&slot),
                    item.size
                );
                item.put = format!("/files/{slot}/s.bin");
                item.get.clone_from(&item.put);
                item.token = Some(bearer(&item, &slot));
            }
            Kind::External => {
                item.path = format!("{}/{number}/e.bin", owner_folder(&item.owner));
                item.get = format!("/files/{}", item.path);
                let query = put_query("v", &item.path, item.size, "");
                item.put = format!("{}?{query}", item.get);
            }
        }
        self.begin(item)
    }

    fn upload_ephemeral(&mut self, slot: &Slot, size: u64, until: u64) -> io::Result<()> {
        let mut item = self.new_item(Kind::Own, size);
        item.evictable = false;
        item.until = Some(until);
        item.path = slot.stored_at().to_str().unwrap().to_owned();
        (item.put, item.get) = (slot.put.clone(), slot.get.clone());
        self.begin(item)
    }

    /// The first attempt to upload it.
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
        let expired = item.until.is_some_and(|until| until <= unix_now());
        match status {
            201 => {
                self.change(at, |item| item.stored = Some(stored));
                one_more(&self.world.seen.stored);
            }
            507 if item.evictable => {}
            // A token whose file has expired.
            403 if expired => {}
            _ => self.report(format!("PUT of {item:?}: {status} {text}")),
        }
        Ok(())
    }

    /// One PUT, sent in one of several ways; `None` if the client aborted it.
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
            // Aborted within the body.
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
        let missing = item.must_be_missing();
        let (status, body) = Wire::open(self.http)?.ask("GET", &item.get)?;
        // The item may have changed meanwhile.
        let now = self.world.items.lock().unwrap()[at].clone();
        let there = now.must_be_served();
        let right = match status {
            200 => !missing && body == item.body(&self.world.pool),
            404 => !there,
            _ => false,
        };
        if !right {
            self.report(format!("GET: {status}, {} bytes, of {now:?}", body.len()));
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
        // Of two clients that chose the same item, one continues.
        let mut mine = false;
        self.change(at, |item| {
            mine = item.deletion == Deletion::No;
            item.deletion = Deletion::Asked;
        });
        if !mine {
            return Ok(());
        }
        let query = delete_query(&item.path, DELETE_KEY);
        let target = format!("{}?{query}", item.get);
        let (status, text) = Wire::open(self.http)?.ask("DELETE", &target)?;
        let now = self.world.items.lock().unwrap()[at].clone();
        match status {
            204 => {
                self.change(at, |item| item.deletion = Deletion::Done);
                one_more(&self.world.seen.deleted);
            }
            404 if now.aged => {}
            _ => self.report(format!("DELETE: {status} {text:?} of {item:?}")),
        }
        Ok(())
    }

    /// Sets a file's time back so far that the next sweep deletes it.
    fn make_old(&mut self) -> io::Result<()> {
        let such = |item: &Item| {
            item.kind != Kind::Shared && item.until.is_none() && !item.evictable && !item.aged
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

    /// Repeats a PUT: a slot creates one file.
    fn upload_again(&mut self) -> io::Result<()> {
        let found = self.any(|item| item.stored.is_some() && !item.evictable && !item.aged);
        let Some((at, item)) = found else {
            return Ok(());
        };
        let Some((status, text)) = self.put(&item)? else {
            return Ok(());
        };
        let now = self.world.items.lock().unwrap()[at].clone();
        let has_expired = now.until.is_some_and(|until| until <= unix_now() + 1);
        let right = match status {
            409 => true,
            // The token expires with the file; an own slot does not, and its file may have been swept.
            201 | 403 => has_expired || (now.aged && now.kind == Kind::Own),
            _ => false,
        };
        if !right {
            self.report(format!("PUT again: {status} {text} of {now:?}"));
        }
        Ok(())
    }
}

fn bearer(item: &Item, slot: &str) -> String {
    let claims = Claims::new(slot)
        .with("sub", &item.owner)
        .named("s.bin")
        .sized(item.size)
        .without("filetype");
    match item.until {
        Some(until) => claims.with_raw("expires", until).bearer(),
        None => claims.bearer(),
    }
}

/// The alias of a slot of the file share.
fn alias(slot: &str) -> String {
    BASE64URL_NOPAD.encode(&digest(&SHA256, slot.as_bytes()).as_ref()[..15])
}
