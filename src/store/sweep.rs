//! The sweep: removes what has expired, one owner folder after the other, in slices.
//!
//! ```text
//!   Waiting(until) ── due ──▶ listing owners ⇄ walking one owner ── end of the list ──▶ Waiting(until)
//! ```
//!
//! A file with a modification time in the future gets the present time: it counts from when it is first seen. So do files
//! whose times the clock got wrong get the right ones, see [`crate::clock`]; while the clock is in doubt, nothing is
//! removed for its age.
//!
//! A file whose path has to be remembered is not removed at once, because a power cut could then forget the path and
//! not the removal: some are gathered, their graves are synced by the helper thread, and then they go.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime};

use crate::clock::TOLERANCE;
use crate::expiry::{self, Lifetime};
use crate::layout::StorePath;
use crate::now::Now;
use crate::policy::pool::{self, Bytes, Pool};
use crate::store::Store;
use crate::store::trim::{Order, Trims};
use crate::store::usage::Usage;
use crate::store::walk::{Owners, Slice, Step, Walk};

/// The first sweep comes at most so long after the start.
const FIRST: Duration = Duration::from_secs(300);

/// Most files whose graves are synced together.
const MOST_BURIED: usize = 64;

/// For how long at most a clock that has jumped is not acted upon; the operator may set it back.
const SETTLING: Duration = Duration::from_secs(3600);

/// A modification time that is ahead by less is not wrong: another host or a file server may have set it.
const AHEAD: Duration = Duration::from_secs(TOLERANCE as u64);

/// When a sweep that could not begin is tried anew.
const RETRY: Duration = Duration::from_secs(60);

/// What the sweep goes by; from the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Time between two sweeps; zero is off.
    pub interval: Duration,
    pub lifetime: Lifetime,
    /// Bytes per owner that the sweep trims to, profile pictures and permanent files apart; 0 is off.
    pub soft_quota: u64,
    /// Whether graves are synced before their files go.
    pub fsync: bool,
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
    /// Files that are over, and whose paths were remembered.
    buried: VecDeque<StorePath>,
    graves: Graves,
    report: Report,
    /// Whether everything was seen.
    whole: bool,
    /// One of the files with a time in the future.
    future: Option<StorePath>,
    /// One of those whose time could not be set.
    unset: Option<StorePath>,
}

/// How far the graves of the gathered files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Graves {
    Gathering,
    /// Enough are gathered; [`Sweep::graves`] is to be asked for.
    Full,
    Syncing,
    /// The files go.
    Synced,
}

#[derive(Debug)]
struct OwnerPass {
    owner: Vec<u8>,
    walk: Walk,
    /// Bytes that stay, by kind.
    kept: Bytes,
    kept_files: u64,
    /// Of these, bytes that go when their graves are synced.
    going: Bytes,
    /// The owner's number of changes that would be ours alone.
    changes: Option<u64>,
}

impl OwnerPass {
    fn keep(&mut self, kind: usize, size: u64) {
        self.kept[kind] = self.kept[kind].saturating_add(size);
        self.kept_files += 1;
    }

    /// Sets the modification time of the file that the walk has found, if it is wrong and the clock is right; then tells
    /// whether it was in the future.
    fn set_time(
        &mut self,
        store: &Store,
        modified: SystemTime,
        now: Now,
        set: impl FnOnce(bool),
    ) -> io::Result<()> {
        let times = store.times();
        let stored = times.stored(modified);
        let counted = if is_ahead(stored, now) {
            now.wall
        } else {
            stored
        };
        if counted == modified || !times.is_known() {
            return Ok(());
        }
        match self.walk.set_modified(counted) {
            Ok(()) => set(is_ahead(modified, now)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Whether a modification time is in the future.
fn is_ahead(modified: SystemTime, now: Now) -> bool {
    modified
        .duration_since(now.wall)
        .is_ok_and(|by| by >= AHEAD)
}

/// What one sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Files looked at.
    pub files: u64,
    pub removed: u64,
    /// Bytes removed.
    pub bytes: u64,
    /// Files that had a modification time in the future.
    pub future: u64,
    /// Other files that got another modification time, because the clock had been wrong.
    pub corrected: u64,
    /// Files whose modification time could not be set.
    pub unset: u64,
    /// Whether all files were seen, and have the times that they should have.
    pub whole: bool,
    pub took: Duration,
}

impl Sweep {
    /// A sweep that is first due one interval, but at most five minutes, from now.
    pub fn new(plan: &Plan, now: Now) -> Sweep {
        Sweep {
            due: (!plan.interval.is_zero()).then(|| now.mono + plan.interval.min(FIRST)),
            pass: None,
        }
    }

    /// The wall clock has jumped: nothing is done until that has lasted for a while. Returns how long that is, if there
    /// is a sweep at all.
    pub fn settle(&mut self, plan: &Plan, now: Instant) -> Option<Duration> {
        self.pass = None;
        let pause = plan.interval.min(SETTLING);
        self.due = self.due.map(|_| now + pause);
        self.due.map(|_| pause)
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
            Some(pass) if pass.graves == Graves::Syncing => None,
            Some(pass) => Some(pass.begun),
            None => self.due,
        }
    }

    /// What has to be synced before the sweep goes on, once; then [`Sweep::graves_synced`] is to be told.
    pub fn graves(&mut self, store: &Store) -> Option<io::Result<Vec<OwnedFd>>> {
        let pass = self.pass.as_mut()?;
        if pass.graves != Graves::Full {
            return None;
        }
        pass.graves = Graves::Syncing;
        Some(store.graves_of(&pass.buried))
    }

    /// The graves are on stable storage; or they are not, and their files go all the same: a disk in trouble must not
    /// keep what is over.
    pub fn graves_synced(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            log::error!("graves not synced why={:?}", error.to_string());
        }
        if let Some(pass) = &mut self.pass {
            // Those of a pass that was given up are nothing to this one.
            if pass.graves == Graves::Syncing {
                pass.graves = Graves::Synced;
            }
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
        if self.due().is_none_or(|due| due > now.mono) {
            return None;
        }
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
                        buried: VecDeque::new(),
                        graves: Graves::Gathering,
                        report: Report::default(),
                        whole: true,
                        future: None,
                        unset: None,
                    });
                }
                Err(error) => {
                    log::error!("sweep failed why={:?}", error.to_string());
                    self.due = Some(now.mono + plan.interval.min(RETRY));
                    return None;
                }
            }
        }
        let pass = self.pass.as_mut()?;
        if !pass.go_on(plan, store, usage, trims, slice, now) {
            return None;
        }
        // Whoever was not met has no folder any more, or it could not be read.
        usage.distrust(pass.begun);
        usage.recount_total(store.root());
        if let Some(path) = &pass.future {
            let files = pass.report.future;
            log::warn!(
                "files have a time in the future, which counts from now files={files} path={path:?}"
            );
        }
        if let Some(path) = &pass.unset {
            let files = pass.report.unset;
            log::warn!("times of files cannot be set files={files} path={path:?}");
        }
        let mut report = pass.report;
        report.whole = pass.whole && pass.unset.is_none();
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
            match self.graves {
                Graves::Gathering => {}
                Graves::Full | Graves::Syncing => return false,
                Graves::Synced => {
                    match self.buried.pop_front() {
                        Some(path) => self.remove_buried(&path, plan, store, usage, now),
                        None => self.graves = Graves::Gathering,
                    }
                    continue;
                }
            }
            let Some(current) = &mut self.current else {
                match self.owners.step() {
                    None if self.drop_an_alias(store, now) => {}
                    None if !self.buried.is_empty() => self.graves = Graves::Full,
                    None => {
                        self.whole &= self.owners.trouble().is_none();
                        return true;
                    }
                    Some(None) => {}
                    Some(Some(owner)) => {
                        let walk = Walk::new(store.root(), &owner, true);
                        if let Err(error) = &walk {
                            self.whole &= error.kind() == io::ErrorKind::NotFound;
                        }
                        let walk = walk.ok();
                        self.current = walk.map(|walk| OwnerPass {
                            changes: usage.changes(&owner),
                            owner,
                            walk,
                            kept: Bytes::default(),
                            kept_files: 0,
                            going: Bytes::default(),
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
                    let mut over = is_over(plan, store, &path, modified, now);
                    let mut counts_from_change = false;
                    if !over {
                        if let Err(error) =
                            current.set_time(store, modified, now, |is_future| match is_future {
                                true => {
                                    self.report.future += 1;
                                    self.future.get_or_insert_with(|| path.clone());
                                }
                                false => self.report.corrected += 1,
                            })
                        {
                            let why = error.to_string();
                            log::debug!("time not set path={path:?} why={why:?}");
                            self.report.unset += 1;
                            self.unset.get_or_insert_with(|| path.clone());
                            // It must not stay for ever; and before its last change it was not seen.
                            let changed = current.walk.changed().unwrap_or(now.wall);
                            over = is_ahead(modified, now)
                                && is_over(plan, store, &path, changed, now);
                            counts_from_change = over;
                        }
                    }
                    if !over {
                        current.keep(kind, size);
                        continue;
                    }
                    if plan.fsync
                        && !counts_from_change
                        && store.is_to_be_buried(&path, modified)
                        && store.bury(&path).is_ok()
                    {
                        current.keep(kind, size);
                        current.going[kind] = current.going[kind].saturating_add(size);
                        self.buried.push_back(path);
                        if self.buried.len() >= MOST_BURIED {
                            self.graves = Graves::Full;
                        }
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
                        // Somebody else was quicker.
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                        Err(error) => {
                            store.complain("file not removed", &path, &error);
                        }
                    }
                }
                Step::Done => {
                    // What was not seen is not known to be gone.
                    let whole = current.walk.trouble().is_none();
                    self.whole &= whole;
                    if let Some(changes) = current.changes.filter(|_| whole) {
                        let (bytes, files) = (current.kept, current.kept_files);
                        usage.learned(&current.owner, changes, bytes, files, now.mono);
                    }
                    let expendable = Pool::EXPENDABLE
                        .sum(&current.kept)
                        .saturating_sub(Pool::EXPENDABLE.sum(&current.going));
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

    /// Removes a file whose grave lasts, if it is still over.
    fn remove_buried(
        &mut self,
        path: &StorePath,
        plan: &Plan,
        store: &mut Store,
        usage: &mut Usage,
        now: Now,
    ) {
        let Ok(Some(file)) = store.download(path) else {
            return;
        };
        if !is_over(plan, store, path, file.modified, now) {
            return;
        }
        match store.remove(path) {
            Ok(true) => {
                usage.removed(path.owner_folder(), pool::kind(path.mark()), file.size);
                self.report.removed += 1;
                self.report.bytes += file.size;
                log::debug!("file expired path={path:?} bytes={}", file.size);
            }
            Ok(false) => {}
            Err(error) => {
                store.complain("file not removed", path, &error);
            }
        }
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

/// Whether a file has to go. While the clock is in doubt, only one whose path tells its end does: the clock shows too
/// little rather than too much.
fn is_over(plan: &Plan, store: &Store, path: &StorePath, modified: SystemTime, now: Now) -> bool {
    let times = store.times();
    let end = match times.is_known() {
        true => {
            let stored = times.stored(modified).min(now.wall);
            plan.lifetime.end(path.mark(), stored)
        }
        false => expiry::hard_end(path.mark()),
    };
    end.is_some_and(|end| end <= now.wall)
}
