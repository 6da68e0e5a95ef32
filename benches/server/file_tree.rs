//! The files that GETs request: upslot stores them once per run, and then all servers serve the same ones, from the same
//! pages of the page cache.

use std::fs::{self, File};
use std::path::{Component, Path, PathBuf};

use crate::bench::{Bench, TIME_LIMIT};
use crate::cases::{DEEP, Gets};
use crate::common::outcome::Outcome;
use crate::common::server_kind::ServerKind;
use crate::link::Target;
use crate::load::{Plan, Request};
use crate::servers::{Server, ServerSetup};

/// How many slots are requested and used at a time while the files are stored.
const BATCH: usize = 5_000;
const CONNECTIONS: usize = 8;

/// A folder of files.
#[derive(Debug)]
pub struct FileTree {
    /// upslot's storage folder. The other servers serve its parent.
    pub folder: PathBuf,
    /// The files by size.
    stored: Vec<(u64, Vec<String>)>,
}

/// The folders of a run.
#[derive(Debug)]
pub struct FileTrees {
    /// As close to the root of the file system as TMPDIR permits.
    pub shallow: FileTree,
    /// At depth [`DEEP`], unless TMPDIR is deeper.
    pub deep: FileTree,
}

impl FileTrees {
    /// `shallow` and `deep` are folders for this run only.
    pub fn new(shallow: PathBuf, deep: PathBuf) -> FileTrees {
        let mut deep = deep;
        while depth(&deep) < DEEP {
            deep.push("folder");
        }
        FileTrees {
            shallow: FileTree::new(shallow),
            deep: FileTree::new(deep),
        }
    }

    /// The folder for a case.
    pub fn of(&mut self, gets: Gets) -> &mut FileTree {
        match gets.deep {
            true => &mut self.deep,
            false => &mut self.shallow,
        }
    }
}

fn depth(path: &Path) -> usize {
    let names = path.components();
    names
        .filter(|part| matches!(part, Component::Normal(_)))
        .count()
}

impl FileTree {
    fn new(folder: PathBuf) -> FileTree {
        FileTree {
            folder,
            stored: Vec::new(),
        }
    }

    /// For the report.
    pub fn depth(&self) -> usize {
        depth(&self.folder)
    }

    /// The targets of `count` different files of `size` bytes; stores what is missing.
    pub fn targets(&mut self, bench: &Bench<'_>, size: u64, count: usize) -> Outcome<&[String]> {
        let index = self.index_of(size);
        let missing = count.saturating_sub(self.stored[index].1.len());
        if missing > 0 {
            let more = self.store(bench, size, missing)?;
            self.stored[index].1.extend(more);
        }
        Ok(&self.stored[index].1[..count])
    }

    /// The targets of `count` files that no case has requested before.
    pub fn more_targets(
        &mut self,
        bench: &Bench<'_>,
        size: u64,
        count: usize,
    ) -> Outcome<&[String]> {
        let index = self.index_of(size);
        let present = self.stored[index].1.len();
        Ok(&self.targets(bench, size, present + count)?[present..])
    }

    /// The place of the files of that size.
    fn index_of(&mut self, size: u64) -> usize {
        let index = self.stored.iter().position(|(stored, _)| *stored == size);
        index.unwrap_or_else(|| {
            self.stored.push((size, Vec::new()));
            self.stored.len() - 1
        })
    }

    /// Stores more files.
    fn store(&self, bench: &Bench<'_>, size: u64, count: usize) -> Outcome<Vec<String>> {
        let failed = |e: std::io::Error| format!("{}: {e}", self.folder.display());
        fs::create_dir_all(&self.folder).map_err(failed)?;
        let setup = ServerSetup {
            for_put: true,
            shared_files: Some(&self.folder),
            ..bench.setup(ServerKind::Upslot, "stored", false, size)?
        };
        let mut server = bench.start_with(ServerKind::Upslot, setup)?;
        let targets = store_files(bench, &mut server, size, count)
            .map_err(|why| bench.explain_failure(&mut server, why))?;
        Ok(targets.into_iter().map(|target| target.get).collect())
    }
}

/// Stores files, and syncs them, so that the disk is idle during the measurement.
pub fn store_files(
    bench: &Bench<'_>,
    server: &mut Server,
    size: u64,
    count: usize,
) -> Outcome<Vec<Target>> {
    let mut stored = Vec::with_capacity(count);
    while stored.len() < count {
        let batch = BATCH.min(count - stored.len());
        stored.extend(store_batch(bench, server, size, batch)?);
    }
    let scratch = bench.scratch.path();
    let failed = |e: std::io::Error| format!("{}: {e}", scratch.display());
    let folder = File::open(scratch).map_err(failed)?;
    rustix::fs::syncfs(&folder).map_err(|e| failed(e.into()))?;
    Ok(stored)
}

fn store_batch(
    bench: &Bench<'_>,
    server: &mut Server,
    size: u64,
    count: usize,
) -> Outcome<Vec<Target>> {
    let targets = server.new_targets(count, size, bench.stop)?;
    let requests: Vec<Request> = targets
        .iter()
        .map(|target| Request::put(&target.put, size))
        .collect();
    bench.connect(server, CONNECTIONS.min(count))?.run(Plan {
        requests: &requests,
        order: &[],
        count,
        first_connection: 0,
        time_limit: TIME_LIMIT * 60,
        reconnect: false,
        compare_bodies: false,
    })?;
    Ok(targets)
}
