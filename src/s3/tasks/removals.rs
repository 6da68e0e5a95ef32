//! Deletes objects, a few at a time.
//!
//! ```text
//!                                                                        ┌─▶ delete alias
//!   put tombstone, if it needs one ──▶ delete object ──▶ if it may have ─┤
//!                                                        an alias        └─▶ find alias ──▶ blank alias
//! ```
//!
//! The alias of a slot is kept, without the path, while a token for the slot may be valid.
//!
//! A tombstone is stored before its file is deleted. Otherwise an upload URL that is still valid could store the path
//! again. If it cannot be stored, the file is deleted all the same: a full store must not keep files from being deleted.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::FileTimes;
use crate::expiry::{StoredFile, TombstonePolicy};
use crate::now::Now;
use crate::s3::bucket::{Bucket, REMOVED_ALIAS, REQUEST_LIFETIME, StoreRequest};
use crate::s3::error::{FailureKind, StoreFailure};
use crate::s3::tasks::{MAX_REMOVALS, RequestIds, TaskAnswer, TaskRequest, concerns_all};
use crate::slot::revoked::REMEMBERED;

/// Objects that could not be deleted, after which no others are tried.
const MAX_FAILED: u64 = 100;

/// Objects to be deleted, and how many have been.
#[derive(Debug)]
pub struct Removals {
    policy: TombstonePolicy,
    queue: VecDeque<Removal>,
    outstanding: Vec<(u32, Removal)>,
    /// Files deleted, and their bytes.
    pub files: u64,
    pub bytes: u64,
    /// Objects that could not be deleted.
    pub failed: u64,
    /// The first failure.
    pub error: Option<StoreFailure>,
    /// Whether there is no use in going on.
    pub is_stopped: bool,
}

#[derive(Debug)]
struct Removal {
    victim: Victim,
    step: RemovalStep,
    /// What is done about the alias that the file may have.
    alias: Option<RemovalStep>,
}

/// What is deleted.
#[derive(Debug)]
pub enum Victim {
    File(StoredFile),
    /// An internal object, by its key.
    Internal(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RemovalStep {
    Tombstone,
    Object,
    DeleteAlias,
    FindAlias,
    BlankAlias,
}

impl Removals {
    pub fn new(policy: TombstonePolicy) -> Removals {
        // The clock of the store may differ.
        let slot_life = policy.slot_life + Duration::from_secs(REQUEST_LIFETIME);
        Removals {
            policy: TombstonePolicy {
                slot_life,
                ..policy
            },
            queue: VecDeque::new(),
            outstanding: Vec::new(),
            files: 0,
            bytes: 0,
            failed: 0,
            error: None,
            is_stopped: false,
        }
    }

    /// Whether more should be added, so that some requests are always outstanding.
    pub fn has_room(&self) -> bool {
        self.queue.len() < MAX_REMOVALS
    }

    /// Adds an object; the caller adds no more than a page at a time.
    pub fn push(&mut self, victim: Victim, now: Now) {
        let (mut step, mut alias) = (RemovalStep::Object, None);
        if let Victim::File(StoredFile { path, modified, .. }) = &victim {
            let times = FileTimes::default();
            if self
                .policy
                .needs_tombstone(path, *modified, &times, now.wall)
            {
                step = RemovalStep::Tombstone;
            }
            // Slots of other servers have an alias and a tag, as upslot's own have.
            if self.policy.foreign && path.tag().is_some() {
                let age = now.wall.duration_since(*modified).unwrap_or_default();
                alias = Some(match age.as_secs() > REMEMBERED {
                    true => RemovalStep::DeleteAlias,
                    false => RemovalStep::FindAlias,
                });
            }
        }
        self.queue.push_back(Removal {
            victim,
            step,
            alias,
        });
    }

    /// Whether everything is deleted that was added.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.outstanding.is_empty()
    }

    pub fn want(&mut self, ids: &mut RequestIds, bucket: &Bucket, now: Now) -> Option<TaskRequest> {
        while self.outstanding.len() < MAX_REMOVALS {
            let mut removal = self.queue.pop_front()?;
            let Some(request) = removal.request(bucket, now) else {
                continue;
            };
            let id = ids.next();
            self.outstanding.push((id, removal));
            return Some(TaskRequest { id, request });
        }
        None
    }

    /// Takes an answer, unless it is for another request.
    pub fn answered(&mut self, id: u32, answer: TaskAnswer, now: Now) {
        let mut outstanding = self.outstanding.iter();
        let Some(at) = outstanding.position(|(other, _)| *other == id) else {
            return;
        };
        let (_, mut removal) = self.outstanding.swap_remove(at);
        let answer = answer.and_then(|response| StoreFailure::check(&response, now.wall));
        let is_found = answer.is_ok();
        // Not all stores say that it is deleted if there is nothing.
        let answer = answer.or_else(|failure| match failure.kind {
            FailureKind::NotFound => Ok(()),
            _ => Err(failure),
        });
        let is_done = answer.is_ok();
        if let Err(failure) = answer {
            self.take_failure(failure, removal.step);
        }
        let next = match (removal.step, &removal.victim) {
            (RemovalStep::Tombstone, _) => Some(RemovalStep::Object),
            (RemovalStep::Object, Victim::File(file)) if is_done => {
                self.files += 1;
                self.bytes = self.bytes.saturating_add(file.size);
                removal.alias
            }
            (RemovalStep::FindAlias, _) if is_found => Some(RemovalStep::BlankAlias),
            _ => None,
        };
        if let Some(step) = next.filter(|_| !self.is_stopped) {
            removal.step = step;
            self.queue.push_front(removal);
        }
    }

    fn take_failure(&mut self, failure: StoreFailure, step: RemovalStep) {
        if step == RemovalStep::Object {
            self.failed += 1;
        }
        if concerns_all(&failure) || self.failed >= MAX_FAILED {
            self.stop();
        }
        self.error.get_or_insert(failure);
    }

    /// Drops what is not deleted yet.
    pub fn stop(&mut self) {
        self.is_stopped = true;
        self.failed += self.queue.len() as u64;
        self.queue.clear();
    }
}

impl Removal {
    /// The request for this step, or for the next one that is possible.
    fn request(&mut self, bucket: &Bucket, now: Now) -> Option<StoreRequest> {
        let file = match &self.victim {
            Victim::File(file) => file,
            Victim::Internal(key) => return Some(bucket.delete(&bucket.listed_key(key)?, now)),
        };
        if self.step == RemovalStep::Tombstone {
            if let Some(key) = bucket.tombstone_key(&file.path) {
                return Some(bucket.put_small(&key, b"", now));
            }
            self.step = RemovalStep::Object;
        }
        let alias = bucket.alias_key_of(&file.path);
        Some(match self.step {
            RemovalStep::Tombstone | RemovalStep::Object => {
                bucket.delete(&bucket.key(&file.path)?, now)
            }
            RemovalStep::DeleteAlias => bucket.delete(&alias?, now),
            RemovalStep::FindAlias => bucket.head(&alias?, now),
            RemovalStep::BlankAlias => bucket.put_small(&alias?, REMOVED_ALIAS, now),
        })
    }
}
