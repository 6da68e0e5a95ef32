//! The helper thread that waits for stable storage, so that the loop never does.
//!
//! It does nothing else: it takes what came in while it was busy as one batch, brings it to stable storage, says so
//! through a channel, and wakes the loop. One or two waiting jobs are synced by themselves, more by one `syncfs` per
//! file system, which costs about as much as one of them. So that many come in one batch, the loop hands over what a
//! turn brought all at once. The thread is started with the first job.
//!
//! A job names the folders that were changed for it. Those that it found may still be lost, should a process that was
//! killed have made them: so the first job on a file system syncs all of it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use mio::Waker;
use rustix::io::retry_on_intr;

use crate::sys;

/// Jobs up to this many are synced one by one.
const ONE_BY_ONE: usize = 2;

/// Small, because the thread's stack counts on small hosts; bytes.
const STACK: usize = 128 * 1024;

/// What must reach stable storage.
#[derive(Debug)]
pub enum Work {
    /// A file's data and attributes.
    File(Arc<OwnedFd>),
    /// The entries of folders, the innermost last; or a file and the folders above it.
    Folders(Vec<OwnedFd>),
    /// Everything on the file system of this folder.
    FileSystem(OwnedFd),
}

#[derive(Debug)]
struct Job {
    key: usize,
    work: Work,
}

/// A job's key and result.
type Done = (usize, io::Result<()>);

/// The loop's end of the helper thread.
#[derive(Debug)]
pub struct Syncer {
    waker: Arc<Waker>,
    /// The jobs of this turn.
    gathered: Vec<Job>,
    jobs: Option<Sender<Vec<Job>>>,
    done: (Sender<Done>, Receiver<Done>),
}

impl Syncer {
    pub fn new(waker: Arc<Waker>) -> Syncer {
        Syncer {
            waker,
            gathered: Vec::new(),
            jobs: None,
            done: mpsc::channel(),
        }
    }

    /// Takes a job, for [`Syncer::hand_over`]; `key` comes back with its result. Fails when the thread cannot be
    /// started.
    pub fn submit(&mut self, key: usize, work: Work) -> io::Result<()> {
        if self.jobs.is_none() {
            let (sender, receiver) = mpsc::channel();
            let done = self.done.0.clone();
            let waker = Arc::clone(&self.waker);
            thread::Builder::new()
                .name("syncer".to_owned())
                .stack_size(STACK)
                .spawn(move || run(&receiver, &done, &waker))?;
            self.jobs = Some(sender);
        }
        self.gathered.push(Job { key, work });
        Ok(())
    }

    /// Hands over what the turn brought.
    pub fn hand_over(&mut self) {
        if self.gathered.is_empty() {
            return;
        }
        let gathered = std::mem::take(&mut self.gathered);
        let lost = match &self.jobs {
            Some(jobs) => jobs.send(gathered).err().map(|lost| lost.0),
            None => Some(gathered),
        };
        for job in lost.into_iter().flatten() {
            let gone = io::Error::other("the syncing thread is gone");
            let _ = self.done.0.send((job.key, Err(gone)));
            let _ = self.waker.wake();
        }
    }

    /// A job that is done.
    pub fn next_done(&mut self) -> Option<Done> {
        self.done.1.try_recv().ok()
    }
}

fn run(jobs: &Receiver<Vec<Job>>, done: &Sender<Done>, waker: &Waker) {
    let mut known = Vec::new();
    while let Ok(mut batch) = jobs.recv() {
        batch.extend(jobs.try_iter().flatten());
        for (key, result) in sync(batch, &mut known) {
            if done.send((key, result)).is_err() {
                return;
            }
        }
        // The loop sleeps at most a minute should this fail.
        let _ = waker.wake();
    }
}

/// Syncs a batch. `known` are the file systems that were synced as a whole, by device.
fn sync(batch: Vec<Job>, known: &mut Vec<u64>) -> Vec<Done> {
    let few = batch.len() <= ONE_BY_ONE;
    let mut synced: Vec<(u64, Result<(), rustix::io::Errno>)> = Vec::new();
    let mut results = Vec::with_capacity(batch.len());
    for job in &batch {
        let fd = match &job.work {
            Work::File(file) => Some(&**file),
            Work::Folders(folders) => folders.last(),
            Work::FileSystem(folder) => Some(folder),
        };
        let Some(fd) = fd else {
            results.push((job.key, Ok(())));
            continue;
        };
        let device = sys::look_open(fd).map(|facts| facts.identity.0);
        let one = few && !matches!(job.work, Work::FileSystem(_));
        if one && device.as_ref().is_ok_and(|device| known.contains(device)) {
            results.push((job.key, sync_one(&job.work)));
            continue;
        }
        let outcome = device.and_then(|device| {
            let before = synced
                .iter()
                .find(|(synced, _)| *synced == device)
                .map(|(_, r)| *r);
            let result = before.unwrap_or_else(|| {
                let result = rustix::fs::syncfs(fd);
                synced.push((device, result));
                if result.is_ok() && !known.contains(&device) {
                    known.push(device);
                }
                result
            });
            Ok(result?)
        });
        // Whatever is wrong with the whole file system, this one file may still be well.
        let outcome = outcome.or_else(|_| sync_one(&job.work));
        results.push((job.key, outcome));
    }
    results
}

fn sync_one(work: &Work) -> io::Result<()> {
    // A signal may interrupt it on file systems of the network.
    match work {
        // Not fdatasync, which promises no attributes and so may lose the type; a new file costs the same.
        Work::File(file) => retry_on_intr(|| rustix::fs::fsync(file))?,
        Work::Folders(folders) => {
            for folder in folders.iter().rev() {
                retry_on_intr(|| rustix::fs::fsync(folder))?;
            }
        }
        Work::FileSystem(folder) => retry_on_intr(|| rustix::fs::syncfs(folder))?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mio::{Events, Poll, Token};

    use super::*;

    /// Hands over one batch of as many files as folders, and waits for all results.
    fn check(jobs: usize) {
        let mut poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let mut syncer = Syncer::new(waker);
        let temporary = sys::open_root(&std::env::temp_dir()).unwrap();
        for key in 0..jobs {
            let work = if key % 2 == 0 {
                Work::File(Arc::new(sys::open_unnamed(&temporary, 0o600).unwrap()))
            } else {
                Work::Folders(vec![temporary.try_clone().unwrap()])
            };
            syncer.submit(key, work).unwrap();
        }
        syncer.hand_over();
        let mut events = Events::with_capacity(1);
        let mut keys = Vec::new();
        let until = sys::monotonic() + Duration::from_secs(60);
        while keys.len() < jobs {
            assert!(sys::monotonic() < until, "{keys:?} of {jobs}");
            poll.poll(&mut events, Some(Duration::from_secs(1)))
                .unwrap();
            while let Some((key, result)) = syncer.next_done() {
                result.unwrap();
                keys.push(key);
            }
        }
        keys.sort_unstable();
        assert_eq!(keys, Vec::from_iter(0..jobs));
    }

    #[test]
    fn every_job_of_a_batch_has_its_result() {
        for jobs in [1, ONE_BY_ONE, ONE_BY_ONE + 1, 40] {
            check(jobs);
        }
    }
}
