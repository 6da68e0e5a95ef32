//! The sweep: removes what has expired, one owner folder after the other, in slices.
//!
//! ```text
//!   Waiting(until) ── due ──▶ listing owners ⇄ walking one owner ── end of the list ──▶ Waiting(until)
//! ```

use std::time::{Duration, Instant};

use crate::expiry::Lifetime;
use crate::layout::StorePath;
use crate::now::Now;
use crate::policy::pool::{self, Bytes, Pool};
use crate::store::Store;
use crate::store::trim::{Order, Trims};
use crate::store::usage::Usage;
use crate::store::walk::{Owners, Slice, Step, Walk};

/// The first sweep comes at most so long after the start.
const FIRST: Duration = Duration::from_secs(300);

/// What the sweep goes by; from the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Time between two sweeps; zero is off.
    pub interval: Duration,
    pub lifetime: Lifetime,
    /// Bytes per owner that the sweep trims to, profile pictures and permanent files apart; 0 is off.
    pub soft_quota: u64,
}

/// The sweep of the whole store.
#[derive(Debug)]
pub struct Sweep {
    due: Option<Instant>,
    pass: Option<Pass>,
}

#[derive(Debug)]
struct Pass {
    begun: Instant,
    owners: Owners,
    aliases: Option<rustix::fs::Dir>,
    current: Option<OwnerPass>,
    report: Report,
}

#[derive(Debug)]
struct OwnerPass {
    owner: Vec<u8>,
    walk: Walk,
    /// Bytes that stay, by kind.
    kept: Bytes,
    kept_files: u64,
    /// The owner's number of changes that would be ours alone.
    changes: Option<u64>,
}

impl OwnerPass {
    fn keep(&mut self, kind: usize, size: u64) {
        self.kept[kind] = self.kept[kind].saturating_add(size);
        self.kept_files += 1;
    }
}

/// What one sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Files looked at.
    pub files: u64,
    pub removed: u64,
    /// Bytes removed.
    pub bytes: u64,
    pub took: Duration,
}

impl Sweep {
    /// A sweep that is first due one interval, but at most five minutes, from now.
    pub fn new(plan: &Plan, now: Instant) -> Sweep {
        Sweep {
            due: (!plan.interval.is_zero()).then(|| now + plan.interval.min(FIRST)),
            pass: None,
        }
    }

    /// Takes a plan that changed; a pass under way goes on.
    pub fn set_plan(&mut self, plan: &Plan, now: Instant) {
        if plan.interval.is_zero() {
            self.due = None;
        } else {
            let latest = now + plan.interval;
            self.due = Some(
                self.due
                    .map_or(now + plan.interval.min(FIRST), |due| due.min(latest)),
            );
        }
    }

    /// When there is something to do next; the past while a pass is under way.
    pub fn due(&self) -> Option<Instant> {
        match &self.pass {
            Some(pass) => Some(pass.begun),
            None => self.due,
        }
    }

    /// Goes on, if it is time, until the slice is used up; reports a pass that ended.
    pub fn go_on(
        &mut self,
        plan: &Plan,
        store: &mut Store,
        usage: &mut Usage,
        trims: &mut Trims,
        slice: &mut Slice,
        now: Now,
    ) -> Option<Report> {
        if self.pass.is_none() {
            let due = self.due.filter(|due| *due <= now.mono)?;
            self.due = Some(due.max(now.mono) + plan.interval);
            match Owners::new(store.root()) {
                Ok(owners) => {
                    self.pass = Some(Pass {
                        begun: now.mono,
                        owners,
                        aliases: store.aliases(),
                        current: None,
                        report: Report::default(),
                    });
                }
                Err(error) => {
                    log::error!("sweep failed why={:?}", error.to_string());
                    return None;
                }
            }
        }
        let pass = self.pass.as_mut()?;
        if !pass.go_on(plan, store, usage, trims, slice, now) {
            return None;
        }
        let mut report = pass.report;
        report.took = now.mono.saturating_duration_since(pass.begun);
        self.pass = None;
        Some(report)
    }
}

impl Pass {
    /// True at the end.
    fn go_on(
        &mut self,
        plan: &Plan,
        store: &mut Store,
        usage: &mut Usage,
        trims: &mut Trims,
        slice: &mut Slice,
        now: Now,
    ) -> bool {
        while slice.take() {
            let Some(current) = &mut self.current else {
                match self.owners.step() {
                    None if self.drop_an_alias(store, now) => {}
                    None => return true,
                    Some(None) => {}
                    Some(Some(owner)) => {
                        let walk = Walk::new(store.root(), &owner, true).ok();
                        self.current = walk.map(|walk| OwnerPass {
                            changes: usage.changes(&owner),
                            owner,
                            walk,
                            kept: Bytes::default(),
                            kept_files: 0,
                        });
                    }
                }
                continue;
            };
            match current.walk.step(store.root()) {
                Step::Other => {}
                Step::File {
                    path,
                    size,
                    modified,
                } => {
                    self.report.files += 1;
                    // A path that nobody could ask for is nobody's upload, but it is there.
                    let Some(path) = StorePath::from_segments(path.split(|b| *b == b'/')) else {
                        current.keep(pool::kind(None), size);
                        continue;
                    };
                    let mark = path.mark();
                    let kind = pool::kind(mark);
                    let end = plan.lifetime.end(mark, modified);
                    if end.is_none_or(|end| end > now.wall) {
                        current.keep(kind, size);
                        continue;
                    }
                    store.before_removal(&path, modified);
                    match current.walk.remove() {
                        Ok(()) => {
                            usage.removed(&current.owner, kind, size);
                            current.changes = current.changes.map(|changes| changes + 1);
                            self.report.removed += 1;
                            self.report.bytes += size;
                            log::debug!("file expired path={path:?} bytes={size}");
                        }
                        Err(error) => {
                            log::warn!(
                                "file not removed path={path:?} why={:?}",
                                error.to_string()
                            );
                        }
                    }
                }
                Step::Done => {
                    if let Some(changes) = current.changes {
                        usage.learned(&current.owner, changes, current.kept, current.kept_files);
                    }
                    let expendable = Pool::EXPENDABLE.sum(&current.kept);
                    if plan.soft_quota > 0 && expendable > plan.soft_quota {
                        trims.push(Order {
                            owner: std::mem::take(&mut current.owner),
                            need: expendable - plan.soft_quota,
                            pool: Pool::EXPENDABLE,
                            remove: true,
                        });
                    }
                    self.current = None;
                }
            }
        }
        false
    }

    /// Looks at one more alias; false at the end.
    fn drop_an_alias(&mut self, store: &Store, now: Now) -> bool {
        let Some(Some(Ok(entry))) = self.aliases.as_mut().map(rustix::fs::Dir::read) else {
            return false;
        };
        store.drop_dead_alias(entry.file_name().to_bytes(), now.wall);
        true
    }
}
