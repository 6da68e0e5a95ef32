//! The helper thread that waits for stable storage, so that the loop never does.
//!
//! It does nothing else: it takes what came in while it was busy as one batch, brings it to stable storage, says so
//! through a channel, and wakes the loop. One or two waiting jobs are synced by themselves, more by one `syncfs` per
//! file system, which costs about as much as one of them. The thread is started with the first job.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use mio::Waker;

use crate::sys;

/// Jobs up to this many are synced one by one.
const ONE_BY_ONE: usize = 2;

/// Small, because the thread's stack counts on small hosts; bytes.
const STACK: usize = 128 * 1024;

/// What must reach stable storage.
#[derive(Debug)]
pub enum Work {
    /// A file's data.
    File(Arc<OwnedFd>),
    /// The entries of folders, the innermost last.
    Folders(Vec<OwnedFd>),
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
    jobs: Option<Sender<Job>>,
    done: (Sender<Done>, Receiver<Done>),
}

impl Syncer {
    pub fn new(waker: Arc<Waker>) -> Syncer {
        Syncer {
            waker,
            jobs: None,
            done: mpsc::channel(),
        }
    }

    /// Hands a job over; `key` comes back with its result. Fails when the thread cannot be started.
    pub fn submit(&mut self, key: usize, work: Work) -> io::Result<()> {
        let jobs = match &self.jobs {
            Some(jobs) => jobs,
            None => {
                let (sender, receiver) = mpsc::channel();
                let done = self.done.0.clone();
                let waker = Arc::clone(&self.waker);
                thread::Builder::new()
                    .name("syncer".to_owned())
                    .stack_size(STACK)
                    .spawn(move || run(&receiver, &done, &waker))?;
                self.jobs.insert(sender)
            }
        };
        jobs.send(Job { key, work })
            .map_err(|_| io::Error::other("the syncing thread is gone"))
    }

    /// A job that is done.
    pub fn next_done(&mut self) -> Option<Done> {
        self.done.1.try_recv().ok()
    }
}

fn run(jobs: &Receiver<Job>, done: &Sender<Done>, waker: &Waker) {
    while let Ok(first) = jobs.recv() {
        let mut batch = vec![first];
        batch.extend(jobs.try_iter());
        for (key, result) in sync(batch) {
            if done.send((key, result)).is_err() {
                return;
            }
        }
        // The loop sleeps at most a minute should this fail.
        let _ = waker.wake();
    }
}

fn sync(batch: Vec<Job>) -> Vec<Done> {
    if batch.len() <= ONE_BY_ONE {
        return batch
            .iter()
            .map(|job| (job.key, sync_one(&job.work)))
            .collect();
    }
    let mut synced: Vec<(u64, Result<(), rustix::io::Errno>)> = Vec::new();
    let mut results = Vec::with_capacity(batch.len());
    for job in &batch {
        let fd = match &job.work {
            Work::File(file) => Some(&**file),
            Work::Folders(folders) => folders.last(),
        };
        let Some(fd) = fd else {
            results.push((job.key, Ok(())));
            continue;
        };
        let outcome = sys::look_open(fd)
            .map(|facts| facts.identity.0)
            .and_then(|device| {
                let before = synced
                    .iter()
                    .find(|(synced, _)| *synced == device)
                    .map(|(_, r)| *r);
                let result = before.unwrap_or_else(|| {
                    let result = rustix::fs::syncfs(fd);
                    synced.push((device, result));
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
    match work {
        Work::File(file) => rustix::fs::fdatasync(file)?,
        Work::Folders(folders) => {
            for folder in folders.iter().rev() {
                rustix::fs::fsync(folder)?;
            }
        }
    }
    Ok(())
}
