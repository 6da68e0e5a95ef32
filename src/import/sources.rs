//! Reads the records and folders of other programs, one entry at a time.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::Dir;

use crate::import::lua::{Item, Items, Table};
use crate::import::place::Placer;
use crate::import::record::{HIDDEN, Reason, Record, SHARE_FOLDER};
use crate::layout::{self, LinkDigest, MAX_DEPTH, slot_digest};
use crate::sys::{self, FileKind};

/// Bytes of a list that are read at a time.
const PIECE: usize = 64 * 1024;

/// Longest row of an exported table in bytes.
const MAX_ROW: u64 = 64 * 1024;

/// Maximum number of records that are remembered to find files without one: 8 bytes each.
const MAX_SEEN: usize = 1 << 20;

/// Longest media type in the file beside one of `share.php`, in bytes.
const MAX_TYPE: usize = 256;

/// The files whose records were read.
#[derive(Default)]
struct Seen(HashSet<[u8; 8]>);

impl Seen {
    fn add(&mut self, record: &Result<Record, Reason>) {
        if let (Ok(record), true) = (record, self.0.len() < MAX_SEEN) {
            self.0.insert(short(&record.link));
        }
    }

    /// Whether a file has no record; never if there are too many records.
    fn lacks(&self, link: &LinkDigest) -> bool {
        self.0.len() < MAX_SEEN && !self.0.contains(&short(link))
    }
}

fn short(link: &LinkDigest) -> [u8; 8] {
    let mut short = [0; 8];
    short.copy_from_slice(&link[..8]);
    short
}

/// Prosody's `mod_http_file_share`: `index` is its list of uploads.
pub fn file_share(placer: &mut Placer, index: &Path) -> Result<(), String> {
    let mut seen = Seen::default();
    each_item(index, |item| {
        let (record, shown) = match &item {
            Item::Table(table) => {
                let slot = table.text("key").unwrap_or_default();
                (Record::of_file_share(table), slot.as_bytes())
            }
            Item::Broken => (Err("the record is damaged"), index.as_os_str().as_bytes()),
        };
        seen.add(&record);
        placer.place(record, shown)
    })?;
    let Ok(folder) = sys::open_folder_below(placer.source().as_fd(), SHARE_FOLDER.as_bytes())
    else {
        return Ok(());
    };
    each_file(folder, 1, &mut |entry| {
        let (record, shown) = match entry {
            Ok(path) => (Record::of_unlisted(path), path),
            Err((path, reason)) => (Err(reason), path),
        };
        match &record {
            Ok(record) if !seen.lacks(&record.link) => Ok(()),
            _ => placer.place(record, shown),
        }
    })
}

/// `mod_http_upload` of Prosody or Metronome: `data` is the server's data folder, with a list for each user.
pub fn http_upload(placer: &mut Placer, data: &Path) -> Result<(), String> {
    let mut seen = Seen::default();
    let root = sys::open_root(data).map_err(|error| cannot_read(data, &error))?;
    for host in names(&root).map_err(|error| cannot_read(data, &error))? {
        let lists = [&host, &b"/http_upload"[..]].concat();
        let Ok(lists) = sys::open_folder_below(root.as_fd(), &lists) else {
            continue;
        };
        let Some(domain) = decoded(&host) else {
            continue;
        };
        each_file(lists, 1, &mut |entry| {
            let Some((name, user)) = entry
                .ok()
                .and_then(|name| Some((name, decoded(name.strip_suffix(b".list")?)?)))
            else {
                return Ok(());
            };
            let owner = format!("{user}@{domain}");
            let path = data
                .join(std::ffi::OsStr::from_bytes(&host))
                .join("http_upload");
            let list = path.join(std::ffi::OsStr::from_bytes(name));
            each_item(&list, |item| {
                let record = match &item {
                    Item::Table(table) => Record::of_http_upload(&owner, table),
                    Item::Broken => Err("the record is damaged"),
                };
                seen.add(&record);
                placer.place(record, shown_upload(&item, &owner).as_bytes())
            })
        })?;
    }
    let folder = placer.source().try_clone();
    let folder = folder.map_err(|error| error.to_string())?;
    each_file(folder, 2, &mut |entry| match entry {
        Ok(path) => match Record::of_plain(path) {
            Ok(record) if !seen.lacks(&record.link) => Ok(()),
            record => placer.place(record, path),
        },
        // Left out with its record.
        Err((path, _)) if !seen.lacks(&slot_digest(path)) => Ok(()),
        Err((path, reason)) => placer.place(Err(reason), path),
    })
}

fn shown_upload(item: &Item, owner: &str) -> String {
    let text = |table: &Table, name| table.text(name).unwrap_or_default().to_owned();
    match item {
        Item::Table(table) => format!("{}/{}", text(table, "dir"), text(table, "filename")),
        Item::Broken => owner.to_owned(),
    }
}

/// A program that uses the paths of its files in the links, at most `depth` segments long.
pub fn tree(
    placer: &mut Placer,
    depth: usize,
    record_of: fn(&[u8]) -> Result<Record, Reason>,
) -> Result<(), String> {
    let folder = placer.source().try_clone();
    let folder = folder.map_err(|error| error.to_string())?;
    each_file(folder, depth, &mut |entry| match entry {
        Ok(path) => placer.place(record_of(path), path),
        Err((path, reason)) => placer.place(Err(reason), path),
    })
}

/// `share.php`.
pub fn hashed(placer: &mut Placer) -> Result<(), String> {
    let folder = placer.source().try_clone();
    let folder = folder.map_err(|error| error.to_string())?;
    each_file(folder, 1, &mut |entry| match entry {
        Ok(name) if name.starts_with(b"store-") && name.ends_with(b"-type") => Ok(()),
        Ok(name) => {
            let content_type = kept_type(placer.source().as_fd(), name);
            placer.place(Record::of_hashed(name, content_type.as_deref()), name)
        }
        Err((path, reason)) => placer.place(Err(reason), path),
    })
}

/// The media type that `share.php` keeps beside a file.
fn kept_type(folder: BorrowedFd<'_>, name: &[u8]) -> Option<String> {
    let name = [name, b"-type"].concat();
    if sys::stat_at(folder, &name).ok()?.kind != FileKind::File {
        return None;
    }
    let file = sys::open_below(folder, &name).ok()?;
    let mut buffer = [0; MAX_TYPE];
    let length = sys::read_at(file, &mut buffer, 0).ok()?;
    String::from_utf8(buffer[..length].trim_ascii().to_vec()).ok()
}

/// django-xmpp-http-upload: `table` is the exported table.
pub fn django(placer: &mut Placer, table: &Path) -> Result<(), String> {
    let fail = |error: io::Error| cannot_read(table, &error);
    let mut rows = BufReader::new(open_list(table)?);
    let mut row = Vec::new();
    loop {
        row.clear();
        if (&mut rows)
            .take(MAX_ROW)
            .read_until(b'\n', &mut row)
            .map_err(fail)?
            == 0
        {
            return Ok(());
        }
        if let Some(record) = Record::of_django(&row) {
            let shown = match &record {
                Ok(record) => record.file.clone(),
                Err(_) => row.trim_ascii().to_vec(),
            };
            placer.place(record, &shown)?;
        }
    }
}

/// Visits the items of a list.
fn each_item(path: &Path, mut visit: impl FnMut(Item) -> Result<(), String>) -> Result<(), String> {
    let mut list = open_list(path)?;
    let mut items = Items::default();
    let mut piece = vec![0; PIECE];
    loop {
        match list.read(&mut piece) {
            Ok(0) => items.end(),
            Ok(length) => items.feed(&piece[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(cannot_read(path, &error)),
        }
        while let Some(item) = items.next_item() {
            visit(item)?;
        }
        if items.is_at_end() {
            return Ok(());
        }
    }
}

/// Opens a list of records, which must be a regular file.
fn open_list(path: &Path) -> Result<File, String> {
    let stat = sys::stat(path).map_err(|error| cannot_read(path, &error))?;
    if stat.kind != FileKind::File {
        return Err(format!("{} is not a regular file.", path.display()));
    }
    File::open(path).map_err(|error| cannot_read(path, &error))
}

/// A file below a folder, or something else with the reason why it is left out.
type Found<'a> = Result<&'a [u8], (&'a [u8], Reason)>;

/// Visits the files below a folder, at most `depth` levels deep. Links are not followed, and hidden entries are left out.
fn each_file(
    folder: OwnedFd,
    depth: usize,
    visit: &mut dyn FnMut(Found<'_>) -> Result<(), String>,
) -> Result<(), String> {
    let mut path = Vec::new();
    let mut levels = vec![(open_entries(folder)?, 0)];
    loop {
        let may_enter = levels.len() < depth.min(MAX_DEPTH);
        let Some((entries, length)) = levels.last_mut() else {
            return Ok(());
        };
        path.truncate(*length);
        let entry = match entries.read() {
            None => {
                levels.pop();
                continue;
            }
            Some(entry) => {
                entry.map_err(|error| cannot_read(Path::new("a folder"), &error.into()))?
            }
        };
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        if *length > 0 {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        let parent = entries.fd().map_err(|error| error.to_string())?;
        let kind = sys::stat_at(parent, name).map(|stat| stat.kind);
        match kind {
            _ if name.starts_with(b".") => visit(Err((&path, HIDDEN)))?,
            Ok(FileKind::File) => visit(Ok(&path))?,
            Ok(FileKind::Folder) if may_enter => match sys::open_folder_in(parent.as_fd(), name) {
                Ok(folder) => {
                    let length = path.len();
                    levels.push((open_entries(folder)?, length));
                }
                Err(_) => visit(Err((&path, "the folder cannot be read")))?,
            },
            Ok(FileKind::Folder) => visit(Err((&path, "a folder is not expected there")))?,
            Ok(FileKind::Other) => visit(Err((&path, "it is not a regular file")))?,
            Err(_) => visit(Err((&path, "the file cannot be read")))?,
        }
    }
}

fn open_entries(folder: OwnedFd) -> Result<Dir, String> {
    Dir::read_from(folder).map_err(|error| format!("cannot read a folder: {error}."))
}

/// The names in a folder.
fn names(folder: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if !name.starts_with(b".") {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// A name in the data folder of Prosody, decoded.
fn decoded(name: &[u8]) -> Option<String> {
    String::from_utf8(layout::decode_segment(name)?.into_owned()).ok()
}

fn cannot_read(path: &Path, error: &io::Error) -> String {
    format!("cannot read {}: {error}.", path.display())
}
