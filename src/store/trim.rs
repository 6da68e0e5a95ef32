//! Removes an owner's oldest files until so many bytes are free, or only looks at which they would be.
//!
//! The search and the removal go in slices. Memory is bounded: at most so many files are picked in one pass, and a
//! further pass picks the next.

use std::collections::VecDeque;
use std::time::SystemTime;

use crate::expiry::{Candidate, Coverage, Found, Oldest};
use crate::layout::StorePath;
use crate::policy::pool::{self, Pool};
use crate::store::Store;
use crate::store::usage::Usage;
use crate::store::walk::{Slice, Step, Walk};

/// Files picked in one pass.
const MOST_PICKED: usize = 1024;

/// Orders to trim, one after the other.
#[derive(Debug, Default)]
pub struct Trims {
    queue: VecDeque<Trim>,
}

#[derive(Debug)]
struct Trim {
    order: Order,
    stage: Stage,
    freed: u64,
    files: u64,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub owner: Vec<u8>,
    /// Bytes.
    pub need: u64,
    /// Files of these kinds may go.
    pub pool: Pool,
    /// False: nothing is removed, only [`Trimmed::newest`] is found.
    pub remove: bool,
}

#[derive(Debug)]
enum Stage {
    Waiting,
    Looking {
        walk: Walk,
        oldest: Oldest,
    },
    Removing {
        victims: VecDeque<Candidate>,
        enough: bool,
    },
}

/// What was done.
#[derive(Debug)]
pub struct Trimmed {
    pub order: Order,
    /// Bytes and files removed.
    pub freed: u64,
    pub files: u64,
    /// The modification time of the youngest of the files that have to go; `None` when all together are too few.
    pub newest: Option<SystemTime>,
}

impl Trims {
    pub fn push(&mut self, order: Order) {
        if self.queue.iter().any(|trim| trim.order == order) {
            return;
        }
        self.queue.push_back(Trim {
            order,
            stage: Stage::Waiting,
            freed: 0,
            files: 0,
        });
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Goes on until the slice is used up; returns an order that was carried out.
    pub fn go_on(
        &mut self,
        store: &mut Store,
        usage: &mut Usage,
        slice: &mut Slice,
    ) -> Option<Trimmed> {
        let trim = self.queue.front_mut()?;
        let newest = trim.go_on(store, usage, slice)?;
        let Trim {
            order,
            freed,
            files,
            ..
        } = self.queue.pop_front()?;
        Some(Trimmed {
            order,
            freed,
            files,
            newest,
        })
    }
}

impl Trim {
    /// `Some` when it is over.
    fn go_on(
        &mut self,
        store: &mut Store,
        usage: &mut Usage,
        slice: &mut Slice,
    ) -> Option<Option<SystemTime>> {
        loop {
            match &mut self.stage {
                Stage::Waiting => {
                    let Ok(walk) = Walk::new(store.root(), &self.order.owner, false) else {
                        return Some(None);
                    };
                    let oldest =
                        Oldest::new(self.order.need.saturating_sub(self.freed), MOST_PICKED);
                    self.stage = Stage::Looking { walk, oldest };
                }
                Stage::Looking { walk, oldest } => {
                    if !slice.take() {
                        return None;
                    }
                    match walk.step(store.root()) {
                        Step::File {
                            path,
                            size,
                            modified,
                        } => {
                            if self.order.pool.has(kind_at(path)) {
                                oldest.consider(Candidate {
                                    modified: store.times().rank(modified),
                                    path: path.to_vec(),
                                    size,
                                });
                            }
                        }
                        Step::Other => {}
                        Step::Done => {
                            let oldest = std::mem::replace(oldest, Oldest::new(0, 0));
                            let Found { victims, coverage } = oldest.finish();
                            let newest = victims.last().map(|victim| victim.modified);
                            let enough = coverage == Coverage::Enough;
                            // Nothing is removed in vain.
                            if !self.order.remove
                                || victims.is_empty()
                                || coverage == Coverage::Never
                            {
                                return Some(newest.filter(|_| enough));
                            }
                            self.stage = Stage::Removing {
                                victims: victims.into(),
                                enough,
                            };
                        }
                    }
                }
                Stage::Removing { victims, enough } => {
                    let Some(victim) = victims.front() else {
                        if *enough {
                            return Some(None);
                        }
                        self.stage = Stage::Waiting;
                        continue;
                    };
                    if !slice.take() {
                        return None;
                    }
                    match remove(store, victim) {
                        // What cannot be removed would be picked again for ever.
                        None => return Some(None),
                        Some(true) => {
                            usage.removed(&self.order.owner, kind_at(&victim.path), victim.size);
                        }
                        // Somebody else was quicker, who may not have said so.
                        Some(false) => usage.removed_elsewhere(&self.order.owner, 0, 0),
                    }
                    self.freed += victim.size;
                    self.files += 1;
                    victims.pop_front();
                }
            }
        }
    }
}

/// The kind of the file at a path.
pub(super) fn kind_at(path: &[u8]) -> usize {
    let path = StorePath::from_segments(path.split(|b| *b == b'/'));
    pool::kind(path.and_then(|path| path.mark()))
}

/// Whether the file was there to be removed; `None` when it cannot be.
fn remove(store: &mut Store, victim: &Candidate) -> Option<bool> {
    let path = StorePath::from_segments(victim.path.split(|b| *b == b'/'))?;
    match store.remove(&path) {
        Ok(removed) => Some(removed),
        Err(error) => {
            store.complain("file not removed", &path, &error);
            None
        }
    }
}
