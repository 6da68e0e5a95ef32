//! Files in a store: written, aged, listed, with their extended attributes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::XattrFlags;

/// Writes a file below a storage folder, with its folders.
pub fn seed(store: &Path, path: &str, bytes: &[u8]) -> PathBuf {
    let file = store.join(path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, bytes).unwrap();
    file
}

/// Sets a file's age.
pub fn age(file: &Path, seconds: u64) {
    let time = SystemTime::now() - Duration::from_secs(seconds);
    fs::File::options()
        .write(true)
        .open(file)
        .unwrap()
        .set_modified(time)
        .unwrap();
}

/// Stores a file's media type; false where the file system has no extended attributes.
pub fn set_kept_type(file: &Path, kind: &[u8]) -> bool {
    set_attribute(file, "user.mime_type", kind)
}

/// Sets an extended attribute; false where the file system has none.
pub fn set_attribute(file: &Path, name: &str, value: &[u8]) -> bool {
    rustix::fs::setxattr(file, name, value, XattrFlags::empty()).is_ok()
}

/// A file's stored media type.
pub fn kept_type(file: &Path) -> Option<String> {
    attribute(file, "user.mime_type")
}

/// An extended attribute of a file.
pub fn attribute(file: &Path, name: &str) -> Option<String> {
    let mut buffer = [0; 256];
    let length = rustix::fs::getxattr(file, name, &mut buffer[..]).ok()?;
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

pub fn walk(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            let below = path
                .strip_prefix(root)
                .unwrap()
                .to_string_lossy()
                .into_owned();
            if below == ".upslot" {
                continue;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
                found.push(below + "/");
            } else {
                found.push(below);
            }
        }
    }
    found.sort();
    found
}
