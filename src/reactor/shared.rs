//! What the loop's drivers share during a call: the deciding parts, the store, and who waits for what.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::time::SystemTime;

use ring::rand::{SecureRandom, SystemRandom};

use crate::config::Config;
use crate::layout::RANDOM;
use crate::now::Now;
use crate::policy::{Room, Stored};
use crate::reactor::table::Key;
use crate::service::Service;
use crate::slot::Refusal;
use crate::store::Store;
use crate::store::trim::{Order, Trims};
use crate::store::usage::Usage;
use crate::syncer::Syncer;
use crate::xmpp::upload::SlotIq;

/// Size of the one buffer through which bytes pass that cannot go from descriptor to descriptor.
const SCRATCH: usize = 64 * 1024;

/// Requests that may wait for the store at a time; more are refused.
const MOST_WAITING: usize = 1024;

/// How often room is made for one request before it is refused: others may use up what was freed for it.
const TRIES: u8 = 4;

/// The shared parts.
#[derive(Debug)]
pub struct Shared {
    pub config: Config,
    pub service: Service,
    pub store: Store,
    pub usage: Usage,
    pub trims: Trims,
    pub syncer: Syncer,
    pub waiting: Waiting,
    pub addresses: Addresses,
    pub scratch: Box<[u8]>,
    pub trouble: Trouble,
    random: SystemRandom,
}

/// Whether bytes may be stored, now or after a wait.
#[derive(Debug)]
pub enum Admission {
    Granted,
    /// The store is being looked at; ask again when the owner is woken.
    Wait,
    Refused(Refusal),
}

/// How far the search for room has come for one request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Effort {
    tries: u8,
    /// The youngest of the files that have to go, when room cannot be made but time will make it.
    newest: Option<SystemTime>,
}

impl Effort {
    /// Room was looked for once more.
    pub fn repeated(self, newest: Option<SystemTime>) -> Effort {
        Effort {
            tries: self.tries.saturating_add(1),
            newest: newest.or(self.newest),
        }
    }
}

impl Shared {
    pub fn new(config: Config, service: Service, store: Store, syncer: Syncer) -> Shared {
        Shared {
            config,
            service,
            store,
            usage: Usage::default(),
            trims: Trims::default(),
            syncer,
            waiting: Waiting::default(),
            addresses: Addresses::default(),
            scratch: vec![0; SCRATCH].into_boxed_slice(),
            trouble: Trouble::default(),
            random: SystemRandom::new(),
        }
    }

    /// Random bytes for a slot; `None` when the system gives none.
    pub fn random(&self) -> Option<[u8; RANDOM]> {
        let mut bytes = [0; RANDOM];
        self.random.fill(&mut bytes).ok()?;
        Some(bytes)
    }

    /// Whether the owner may store so many bytes more. Looks into the store in slices where it must.
    pub fn admit(&mut self, owner: &[u8], size: u64, effort: Effort, now: Now) -> Admission {
        let mut stored = Stored {
            owner: 0,
            total: self.usage.total(),
            free: self.store.free_space(now.mono),
        };
        if self.service.counts_owners() {
            match self.usage.of_owner(owner, now.mono) {
                Some(bytes) => stored.owner = bytes,
                None => return Admission::Wait,
            }
        }
        let (need, remove, refusal) = match self.service.room(size, &stored) {
            Room::Enough => return Admission::Granted,
            Room::Evict(need) => {
                let limit = self.config.user_quota_hard;
                let refusal = Refusal::OwnerQuota {
                    size,
                    stored: stored.owner,
                    limit,
                    retry: None,
                };
                (need, true, refusal)
            }
            Room::Refused(Refusal::OwnerQuota {
                size,
                stored,
                limit,
                ..
            }) => {
                let interval = self.config.expire_interval;
                let retry = effort
                    .newest
                    .and_then(|newest| self.service.gone_by_age(newest, interval));
                let ages = !self.service.lifetime().max_age.is_zero();
                let need = stored.saturating_add(size).saturating_sub(limit);
                let refusal = Refusal::OwnerQuota {
                    size,
                    stored,
                    limit,
                    retry,
                };
                if !ages || retry.is_some() || effort.tries > 0 || size > limit {
                    return Admission::Refused(refusal);
                }
                (need, false, refusal)
            }
            Room::Refused(refusal) => return Admission::Refused(refusal),
        };
        if effort.tries >= TRIES {
            return Admission::Refused(refusal);
        }
        self.trims.push(Order {
            owner: owner.to_vec(),
            need,
            remove,
        });
        Admission::Wait
    }

    /// Notices another tree at `storage_path`, and counts it anew.
    pub fn look_at_root(&mut self, now: Now) {
        if self.store.look_at_root(now.mono) {
            self.usage.forget();
            self.count_total();
        }
    }

    /// Learns the sum of all stored bytes, if somebody counts it.
    pub fn count_total(&mut self) {
        if self.config.global_quota > 0 {
            self.usage.want_total(self.store.root());
        }
    }

    /// Whether anybody counts stored bytes.
    pub fn counts(&self) -> bool {
        self.service.counts_owners() || self.config.global_quota > 0
    }
}

/// Trouble with the store, logged when it changes.
#[derive(Debug, Default)]
pub struct Trouble {
    last: Option<String>,
}

impl Trouble {
    /// Something failed.
    pub fn note(&mut self, what: &str, error: &io::Error) {
        let why = format!("{what}: {error}");
        if self.last.as_ref() == Some(&why) {
            log::debug!("store failed why={why:?}");
        } else {
            log::error!("store failed why={why:?}");
            self.last = Some(why);
        }
    }

    /// Something worked.
    pub fn clear(&mut self) {
        if self.last.take().is_some() {
            log::info!("store works again");
        }
    }
}

/// Who waits until the store knows more of an owner.
#[derive(Debug)]
pub enum Waiter {
    /// A slot request of the component.
    Slot(Box<SlotIq>, Effort),
    /// A connection whose PUT is to be decided.
    Put(Key),
}

/// All who wait, by owner folder.
#[derive(Debug, Default)]
pub struct Waiting {
    owners: HashMap<Vec<u8>, Vec<Waiter>>,
    count: usize,
}

impl Waiting {
    /// Lets somebody wait; gives them back when too many do.
    pub fn push(&mut self, owner: &[u8], waiter: Waiter) -> Result<(), Waiter> {
        if self.count >= MOST_WAITING {
            return Err(waiter);
        }
        self.count += 1;
        self.owners.entry(owner.to_vec()).or_default().push(waiter);
        Ok(())
    }

    /// Everybody who waits for this owner.
    pub fn take(&mut self, owner: &[u8]) -> Vec<Waiter> {
        let waiters = self.owners.remove(owner).unwrap_or_default();
        self.count -= waiters.len();
        waiters
    }
}

/// Open connections by client address; IPv6 by its /64, because a host has all of one.
#[derive(Debug, Default)]
pub struct Addresses {
    counts: HashMap<IpAddr, usize>,
}

impl Addresses {
    /// Counts one more connection; returns how many there are now, and what to give back to [`Addresses::remove`].
    pub fn add(&mut self, address: IpAddr) -> (usize, IpAddr) {
        let group = group(address);
        let count = self.counts.entry(group).or_insert(0);
        *count += 1;
        (*count, group)
    }

    pub fn remove(&mut self, group: IpAddr) {
        if let Some(count) = self.counts.get_mut(&group) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&group);
            }
        }
    }
}

fn group(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
        v4 => v4,
    }
}
