//! The helper thread that syncs files and folders to stable storage, so that the loop never blocks on it.
//!
//! The thread takes all jobs that arrived while it was busy as one batch, syncs them, sends the results through a
//! channel, and wakes the loop. A batch of one or two jobs is synced job by job, a larger one with one `syncfs` per
//! file system, which costs about as much as a single `fsync`. To get large batches, the loop submits all jobs of a
//! turn together. The thread is started with the first job.
//!
//! A job names only the folders that were modified for it. Folders that already existed may not have been synced, if
//! the process that created them was killed; therefore the first job on a file system syncs all of it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use mio::Waker;
use rustix::io::retry_on_intr;

use crate::sys;

/// Maximum size of a batch whose jobs are synced individually.
const MAX_INDIVIDUAL: usize = 2;

/// Stack size of the thread in bytes; small, because memory is scarce on small hosts.
const STACK: usize = 128 * 1024;

/// The files or folders to sync.
#[derive(Debug)]
pub enum Work {
    /// The data and attributes of a file.
    File(Arc<OwnedFd>),
    /// The entries of folders, the innermost last; or a file last, after the folders above it.
    Folders(Vec<OwnedFd>),
    /// The whole file system of this folder.
    FileSystem(OwnedFd),
}

#[derive(Debug)]
struct Job<T> {
    token: T,
    work: Work,
}

/// A job's token and result.
type Done<T> = (T, io::Result<()>);

/// The loop's handle to the helper thread. The token of a job identifies its requester.
#[derive(Debug)]
pub struct Syncer<T> {
    waker: Arc<Waker>,
    /// The jobs of this turn.
    batch: Vec<Job<T>>,
    jobs: Option<Sender<Vec<Job<T>>>>,
    done: (Sender<Done<T>>, Receiver<Done<T>>),
}

impl<T: Send + 'static> Syncer<T> {
    pub fn new(waker: Arc<Waker>) -> Syncer<T> {
        Syncer {
            waker,
            batch: Vec::new(),
            jobs: None,
            done: mpsc::channel(),
        }
    }

    /// Queues a job for the next [`Syncer::submit_batch`]; `token` is returned with the result.
    pub fn submit(&mut self, token: T, work: Work) {
        self.batch.push(Job { token, work });
    }

    /// Passes the jobs of this turn to the thread. If it cannot be started, that is their result.
    pub fn submit_batch(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        if self.jobs.is_none() {
            match self.start_thread() {
                Ok(jobs) => self.jobs = Some(jobs),
                Err(error) => {
                    for job in batch {
                        let error = io::Error::new(error.kind(), error.to_string());
                        let _ = self.done.0.send((job.token, Err(error)));
                    }
                    let _ = self.waker.wake();
                    return;
                }
            }
        }
        if let Some(jobs) = &self.jobs {
            // The thread ends only with the loop.
            let _ = jobs.send(batch);
        }
    }

    fn start_thread(&self) -> io::Result<Sender<Vec<Job<T>>>> {
        let (jobs, receiver) = mpsc::channel();
        let done = self.done.0.clone();
        let waker = Arc::clone(&self.waker);
        thread::Builder::new()
            .name("syncer".to_owned())
            .stack_size(STACK)
            .spawn(move || run(&receiver, &done, &waker))?;
        Ok(jobs)
    }

    /// The next completed job.
    pub fn next_done(&mut self) -> Option<Done<T>> {
        self.done.1.try_recv().ok()
    }
}

fn run<T>(jobs: &Receiver<Vec<Job<T>>>, done: &Sender<Done<T>>, waker: &Waker) {
    let mut known = Vec::new();
    while let Ok(mut batch) = jobs.recv() {
        batch.extend(jobs.try_iter().flatten());
        for finished in sync(batch, &mut known) {
            if done.send(finished).is_err() {
                return;
            }
        }
        // If this fails, the loop still wakes within a minute.
        let _ = waker.wake();
    }
}

/// Syncs a batch. `known` are the devices of file systems that have been synced as a whole.
fn sync<T>(batch: Vec<Job<T>>, known: &mut Vec<u64>) -> Vec<Done<T>> {
    let few = batch.len() <= MAX_INDIVIDUAL;
    let mut synced: Vec<(u64, Result<(), rustix::io::Errno>)> = Vec::new();
    let mut results = Vec::with_capacity(batch.len());
    for job in batch {
        let fd = match &job.work {
            Work::File(file) => Some(&**file),
            Work::Folders(folders) => folders.last(),
            Work::FileSystem(folder) => Some(folder),
        };
        let Some(fd) = fd else {
            results.push((job.token, Ok(())));
            continue;
        };
        let device = sys::stat_open(fd).map(|facts| facts.identity.0);
        let one = few && !matches!(job.work, Work::FileSystem(_));
        if one && device.as_ref().is_ok_and(|device| known.contains(device)) {
            results.push((job.token, sync_one(&job.work)));
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
        // Even if syncing the whole file system failed, this one job may succeed.
        let outcome = outcome.or_else(|_| sync_one(&job.work));
        results.push((job.token, outcome));
    }
    results
}

fn sync_one(work: &Work) -> io::Result<()> {
    // A signal may interrupt fsync on network file systems.
    match work {
        // Not fdatasync, which does not cover extended attributes and may lose the MIME type; for a new file it costs
        // the same.
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

    /// Submits one batch that alternates files and folders, and waits for all results.
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
            syncer.submit(key, work);
        }
        syncer.submit_batch();
        let mut events = Events::with_capacity(1);
        let mut keys = Vec::new();
        let deadline = sys::monotonic() + Duration::from_secs(60);
        while keys.len() < jobs {
            assert!(sys::monotonic() < deadline, "{keys:?} of {jobs}");
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
    fn every_job_of_a_batch_gets_its_result() {
        for jobs in [1, MAX_INDIVIDUAL, MAX_INDIVIDUAL + 1, 40] {
            check(jobs);
        }
    }
}
