//! Requests with raw bytes in the target, checks of response fields, and snapshots of folders.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::harness::signing::{DELETE_SECRET, KEY};
use crate::harness::{Client, Plan, Site};

/// The content of every file that must not be served.
pub const CANARY: &[u8] = b"CANARY-not-to-be-seen";

/// A plan with every integration enabled.
pub fn every_integration() -> Plan {
    Plan::new()
        .set("external_secret", format!("'{KEY}'"))
        .set("external_delete_secret", format!("'{DELETE_SECRET}'"))
        .set("file_share_secret", format!("'{KEY}'"))
        .set("api", "{port: 0}")
        .set("fsync", false)
}

/// Kind, inode and content of everything below a folder; links are not followed.
pub fn snapshot(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let facts = fs::symlink_metadata(&path).unwrap();
            let kind = facts.file_type();
            let what = if kind.is_dir() {
                folders.push(path.clone());
                "folder".to_owned()
            } else if kind.is_file() {
                let content = fs::read(&path).unwrap();
                format!("file {} {}", facts.ino(), content.escape_ascii())
            } else if kind.is_symlink() {
                format!("link {}", fs::read_link(&path).unwrap().display())
            } else {
                format!("other {}", facts.ino())
            };
            found.insert(path.strip_prefix(root).unwrap().to_owned(), what);
        }
    }
    found
}

/// Everything that clients must not change: all except the visible files of the store.
pub fn hidden_files(site: &Site) -> BTreeMap<PathBuf, String> {
    let mut all = snapshot(site.dir.path());
    all.retain(|path, _| match path.strip_prefix("store") {
        Err(_) => true,
        Ok(below) => below
            .components()
            .any(|part| part.as_os_str().as_encoded_bytes().starts_with(b".")),
    });
    all
}

/// Sends requests one after the other, reconnecting where needed.
pub struct Asker<'a> {
    site: &'a Site,
    client: Option<Client>,
}

impl Asker<'_> {
    pub fn new(site: &Site) -> Asker<'_> {
        Asker { site, client: None }
    }

    /// Status and body; the head is checked.
    #[track_caller]
    pub fn ask(&mut self, method: &str, target: &[u8], body: &[u8]) -> (u16, Vec<u8>) {
        let mut client = self.client.take().unwrap_or_else(|| self.site.client());
        let mut bytes = [method.as_bytes(), b" ", target, b" HTTP/1.1\r\nHost: a\r\n"].concat();
        if method == "PUT" {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        if method == "PUT" {
            bytes.extend_from_slice(body);
        }
        client.send(&bytes);
        let reply = client.reply_to(method);
        assert_plain_fields(&reply.fields);
        if reply.field("Connection") != Some("close") {
            self.client = Some(client);
        }
        (reply.status, reply.body)
    }
}

/// A response has only fields that upslot writes.
#[track_caller]
pub fn assert_plain_fields(fields: &[(String, String)]) {
    const KNOWN: [&str; 21] = [
        "accept-ranges",
        "access-control-allow-headers",
        "access-control-allow-methods",
        "access-control-allow-origin",
        "access-control-expose-headers",
        "access-control-max-age",
        "allow",
        "cache-control",
        "connection",
        "content-disposition",
        "content-length",
        "content-range",
        "content-security-policy",
        "content-type",
        "date",
        "etag",
        "last-modified",
        "retry-after",
        "location",
        "www-authenticate",
        "x-content-type-options",
    ];
    let mut seen = BTreeSet::new();
    for (name, value) in fields {
        let lower = name.to_ascii_lowercase();
        assert!(KNOWN.contains(&&*lower), "{name}: {value} in {fields:?}");
        assert!(seen.insert(lower), "{name} twice in {fields:?}");
        assert!(
            value.bytes().all(|b| (b' '..=b'~').contains(&b)),
            "{name}: {value:?}"
        );
    }
}

pub fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Sends bytes and returns everything that comes back.
#[track_caller]
pub fn raw_answer(site: &Site, bytes: &[u8]) -> Vec<u8> {
    let mut client = site.client();
    client.send(bytes);
    client.shut_write();
    client.drain()
}
