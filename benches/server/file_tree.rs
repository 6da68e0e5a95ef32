//! Files at the paths that upslot gives them, created without a server, because uploading 100,000 of them takes minutes.
//! Those that GETs request are created once per run, and then all servers serve the same ones, from the same pages of the
//! page cache.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use sha1_smol::Sha1;
use upslot::jid::BareJid;
use upslot::layout::{RANDOM_BYTES, StorePath, Tag};
use upslot::purpose::Purpose;

use crate::bench::Bench;
use crate::cases::{DEEP, Gets};
use crate::common::outcome::Outcome;
use crate::limit::FILE_NAME;
use crate::link::{DOMAIN, OWNERS};

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
    /// As close to the root of the file system as TMPDIR permits, unless the user names it.
    pub shallow: FileTree,
    /// At depth [`DEEP`], unless TMPDIR is deeper.
    pub deep: FileTree,
}

impl FileTrees {
    /// `deep` is a folder for this run only.
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

    /// The targets of `count` different files of `size` bytes; creates what is missing.
    pub fn targets(&mut self, bench: &Bench<'_>, size: u64, count: usize) -> Outcome<&[String]> {
        let index = self.index_of(size);
        let present = self.stored[index].1.len();
        if present < count {
            let more = self.create(bench, size, present..count)?;
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

    /// Creates more files.
    fn create(&self, bench: &Bench<'_>, size: u64, numbers: Range<usize>) -> Outcome<Vec<String>> {
        let paths = create_files(bench, &self.folder, size, OWNERS, numbers)?;
        let target = |path| target(&self.folder, path);
        Ok(paths.iter().map(target).collect())
    }
}

/// The target of a GET for a file below a storage folder that all servers share.
pub fn target(folder: &Path, path: &StorePath) -> String {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    format!("/{name}/{}", path.encoded())
}

/// Creates files as upslot stores them, of `owners` users in turn, and syncs them, so that the disk is idle during the
/// measurement. Returns their paths below the storage folder.
pub fn create_files(
    bench: &Bench<'_>,
    storage: &Path,
    size: u64,
    owners: usize,
    numbers: Range<usize>,
) -> Outcome<Vec<StorePath>> {
    let create = |number| create_file(bench, storage, size, owners, number);
    let paths = numbers.map(create).collect::<Outcome<_>>()?;
    sync(storage)?;
    Ok(paths)
}

/// Creates one of these files.
pub fn create_file(
    bench: &Bench<'_>,
    storage: &Path,
    size: u64,
    owners: usize,
    number: usize,
) -> Outcome<StorePath> {
    bench.stop.check()?;
    let owner = BareJid::parse(&format!("user{}@{DOMAIN}", number % owners));
    let tag = Tag {
        size: Some(size),
        ..Purpose::Message.into()
    };
    let digest = Sha1::from(format!("{size} {number}")).digest().bytes();
    let mut random = [0; RANDOM_BYTES];
    random.copy_from_slice(&digest[..RANDOM_BYTES]);
    let path = owner.and_then(|owner| StorePath::for_slot(&owner, tag, &random, FILE_NAME));
    let path = path.ok_or("upslot has no path for a file")?;
    let file = storage.join(OsStr::from_bytes(path.as_bytes()));
    let created = fs::create_dir_all(file.parent().unwrap_or(storage))
        .and_then(|()| bench.pattern.write_file(&file, size));
    let result = match created {
        // From an earlier run.
        Err(e) if e.kind() == ErrorKind::AlreadyExists => bench.pattern.check_file(&file, size),
        other => other,
    };
    result.map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(path)
}

/// Writes everything to the disk that a folder is on.
pub fn sync(folder: &Path) -> Outcome<()> {
    let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
    let opened = File::open(folder).map_err(failed)?;
    rustix::fs::syncfs(&opened).map_err(|e| failed(e.into()))
}
