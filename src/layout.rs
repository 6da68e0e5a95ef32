//! Paths of files below `storage_path`: building, parsing and encoding them.
//!
//! ```text
//! <owner folder>/<random>~<size>~<suffix>/<name>
//! <owner folder>/<random>~<suffix>/<name>   slots of versions that did not note the size
//! <owner folder>/<random>/<name>            legacy trees, served and counted in place
//! <owner folder>/<name>
//! ```
//!
//! The owner folder is base64url(SHA-1(bare JID)) without padding, as in HttpUploadComponent. The suffix is the tag: a
//! letter for the purpose, followed, if the file's expiry differs from the default of its purpose, by `t` and the
//! maximum age, `x` and the expiry time, or `n` for no expiry. An age counts from the time at which the file is stored,
//! so it does not depend on the clock at the time of issue. The sweep therefore needs nothing but the tree. The size is that
//! of the file in bytes, in hexadecimal digits: a PUT must have exactly the size of its slot, so an owner's use follows
//! from the names in the owner folder. This module accesses no files; it only validates and builds paths.
//!
//! | suffix | meaning |
//! | --- | --- |
//! | `m`, `p`, `k` | message, profile, permanent |
//! | `e<hex>` | ephemeral, not served from this Unix second on |
//! | `mt<hex>`, `pt<hex>`, `kt<hex>` | message, profile, permanent; expires this many seconds after it was stored |
//! | `e<hex>t<hex>` | ephemeral; also expires this many seconds after it was stored, if that is sooner |
//! | `mx<hex>`, `px<hex>`, `kx<hex>` | message, profile, permanent; expires at this Unix second |
//! | `mn`, `pn`, `kn` | message, profile, permanent; never expires by age |

use std::borrow::Cow;
use std::fmt::Write;

use data_encoding::BASE64URL_NOPAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};

use crate::jid::BareJid;
use crate::purpose::Purpose;

/// Number of random bytes in a slot: 120 bits.
pub const RANDOM_BYTES: usize = 15;

/// Most bytes that a slot adds to its owner's folder and its file's name: two slashes, the random bytes as text, the
/// size, the suffix.
const MAX_SLOT_LENGTH: usize = 2 + RANDOM_BYTES.div_ceil(3) * 4 + 1 + 17 + 34;

/// Maximum length of a folder or file name in bytes, on every Linux file system.
pub const MAX_NAME: usize = 255;

/// Maximum depth of a path that is served or counted; upslot's own paths have three segments.
pub const MAX_DEPTH: usize = 8;

/// The folder below `storage_path` for upslot's internal files; like every dot file it is never served.
pub const INTERNAL: &str = ".upslot";

/// All characters that are encoded in a URL path segment: everything but the unreserved ones of RFC 3986 §2.3.
pub const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The folder that holds an owner's files: 27 characters of base64url.
pub fn owner_folder(owner: &BareJid) -> String {
    let mut sha1 = sha1_smol::Sha1::new();
    sha1.update(owner.as_str().as_bytes());
    BASE64URL_NOPAD.encode(&sha1.digest().bytes())
}

/// Length of a SHA-1 digest, which an owner folder's name encodes.
const SHA1: usize = 20;

/// An owner, named by an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    Jid(BareJid),
    /// The name of the owner folder, as `list --all` prints it.
    Folder(String),
}

impl Owner {
    /// Parses an address, or the name of an owner folder.
    pub fn parse(word: &str) -> Option<Owner> {
        let folder = BASE64URL_NOPAD.decode(word.as_bytes());
        if folder.is_ok_and(|digest| digest.len() == SHA1) {
            return Some(Owner::Folder(word.to_owned()));
        }
        BareJid::parse(word).map(Owner::Jid)
    }

    /// The name of the owner folder.
    pub fn folder(&self) -> String {
        match self {
            Owner::Jid(jid) => owner_folder(jid),
            Owner::Folder(folder) => folder.clone(),
        }
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Owner::Jid(jid) => jid.fmt(f),
            Owner::Folder(folder) => write!(f, "owner folder {folder}"),
        }
    }
}

/// A validated relative path of a file below `storage_path`: two to eight segments, none of which is empty, hidden,
/// longer than [`MAX_NAME`], or contains NUL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StorePath {
    bytes: Vec<u8>,
}

impl StorePath {
    /// The path of the file of a new slot. `name` has passed [`crate::slot::name::clean`].
    pub fn for_slot(
        owner: &BareJid,
        tag: Tag,
        random: &[u8; RANDOM_BYTES],
        name: &str,
    ) -> Option<StorePath> {
        StorePath::in_owner_folder(&owner_folder(owner), tag, random, name)
    }

    /// Like [`StorePath::for_slot`], for an owner folder that has already been computed.
    pub fn in_owner_folder(
        owner_folder: &str,
        tag: Tag,
        random: &[u8; RANDOM_BYTES],
        name: &str,
    ) -> Option<StorePath> {
        if !is_valid(name.as_bytes()) {
            return None;
        }
        let mut path = String::with_capacity(owner_folder.len() + MAX_SLOT_LENGTH + name.len());
        path.push_str(owner_folder);
        path.push('/');
        BASE64URL_NOPAD.encode_append(random, &mut path);
        path.push('~');
        if let Some(size) = tag.size {
            let _ = write!(path, "{size:x}~");
        }
        push_suffix(tag, &mut path);
        path.push('/');
        path.push_str(name);
        Some(StorePath {
            bytes: path.into_bytes(),
        })
    }

    /// Builds a path from decoded segments; `None` if they cannot name a servable file.
    pub fn from_segments<'a>(segments: impl Iterator<Item = &'a [u8]>) -> Option<StorePath> {
        let mut bytes = Vec::with_capacity(96);
        let mut depth = 0;
        for segment in segments {
            depth += 1;
            if !is_valid(segment) || depth > MAX_DEPTH {
                return None;
            }
            if depth > 1 {
                bytes.push(b'/');
            }
            bytes.extend_from_slice(segment);
        }
        (depth >= 2).then_some(StorePath { bytes })
    }

    /// The path of an object of one segment, which another program stored; no folder has such a file.
    pub fn flat(segment: &[u8]) -> Option<StorePath> {
        is_valid(segment).then(|| StorePath {
            bytes: segment.to_vec(),
        })
    }

    /// The segments joined by `/`, without a leading slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The first segment.
    pub fn owner_folder(&self) -> &[u8] {
        self.segments().next().unwrap_or_default()
    }

    /// The path without the file's name.
    pub fn folder(&self) -> &[u8] {
        self.split().0
    }

    /// The file's name.
    pub fn name(&self) -> &[u8] {
        self.split().1
    }

    /// All segments.
    pub fn segments(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.split(|b| *b == b'/')
    }

    /// The tag in the folder name; `None` for legacy and foreign files.
    pub fn tag(&self) -> Option<Tag> {
        let mut segments = self.segments();
        let folder = segments.nth(1)?;
        segments.next()?;
        tag_of(folder)
    }

    /// The path, percent-encoded for a URL.
    pub fn encoded(&self) -> String {
        let mut url = String::with_capacity(self.bytes.len() + 16);
        self.encode_into(&mut url);
        url
    }

    /// Appends the path, percent-encoded.
    pub fn encode_into(&self, url: &mut String) {
        encode_path(&self.bytes, url);
    }

    fn split(&self) -> (&[u8], &[u8]) {
        match self.bytes.iter().rposition(|b| *b == b'/') {
            Some(at) => (&self.bytes[..at], &self.bytes[at + 1..]),
            None => (&[], &self.bytes),
        }
    }
}

impl std::fmt::Debug for StorePath {
    /// For the log: escaped, and quoted if it contains white space.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = String::from_utf8_lossy(&self.bytes);
        let quote = if text.contains(char::is_whitespace) {
            "\""
        } else {
            ""
        };
        write!(f, "{quote}{}{quote}", text.escape_debug())
    }
}

/// Whether a segment can occur in the path of a servable file.
fn is_valid(segment: &[u8]) -> bool {
    !segment.is_empty()
        && segment.len() <= MAX_NAME
        && segment[0] != b'.'
        && !segment.iter().any(|b| *b == b'/' || *b == 0)
}

/// Identifies a file among those of its owner, in a form that reveals nothing and is shorter than a path. A file is found
/// by comparing it with each file of the owner folder, so that it can never name one of another owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileId([u8; FILE_ID]);

/// Bytes of a file's ID: enough that two files of one owner do not have the same.
const FILE_ID: usize = 12;

impl FileId {
    pub fn of(path: &StorePath) -> FileId {
        FileId(short_digest(path.as_bytes()))
    }

    /// Parses what [`FileId::text`] returns.
    pub fn parse(text: &str) -> Option<FileId> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
        Some(FileId(bytes.try_into().ok()?))
    }

    pub fn text(&self) -> String {
        BASE64URL_NOPAD.encode(&self.0)
    }
}

/// Digest of a name that another server gave: of a slot, or of the path in an old link.
pub type LinkDigest = [u8; RANDOM_BYTES];

/// Digest that represents an external slot's name in a path. It is as long as the random bytes of upslot's own slots,
/// so that both have the same form.
pub fn slot_digest(slot: &[u8]) -> LinkDigest {
    short_digest(slot)
}

/// The first bytes of a SHA-256 digest.
fn short_digest<const LENGTH: usize>(bytes: &[u8]) -> [u8; LENGTH] {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    let mut short = [0; LENGTH];
    short.copy_from_slice(&digest.as_ref()[..LENGTH]);
    short
}

/// The digests under which the file of an old link may have been imported: of the requested path without its first
/// segments, because a prefix may stand before what the other program knew, and of the last segment but one, which is the
/// slot of Prosody's mod_http_file_share.
pub fn link_digests(path: &[u8]) -> impl Iterator<Item = LinkDigest> {
    let starts = (0..path.len())
        .rev()
        .filter(|at| *at == 0 || path[at - 1] == b'/');
    let mut segments = path.rsplit(|b| *b == b'/').skip(1);
    let slot = segments.next().map(slot_digest);
    starts
        .take(MAX_DEPTH)
        .map(|at| slot_digest(&path[at..]))
        .chain(slot)
}

/// Decodes one segment of a URL's path, once. `None` if a `%` is not followed by two hex digits.
pub fn decode_segment(raw: &[u8]) -> Option<Cow<'_, [u8]>> {
    let mut rest = raw;
    while let Some(at) = rest.iter().position(|b| *b == b'%') {
        let hex = rest.get(at + 1..at + 3)?;
        if !hex.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        rest = &rest[at + 3..];
    }
    Some(percent_decode(raw).into())
}

/// Percent-encodes one segment of a URL's path.
pub fn encode_segment(segment: &[u8]) -> String {
    percent_encode(segment, SEGMENT).collect()
}

/// Appends a URL's path, percent-encoded except for its slashes.
pub fn encode_path(path: &[u8], url: &mut String) {
    const PATH: &AsciiSet = &SEGMENT.remove(b'/');
    url.extend(percent_encode(path, PATH));
}

/// Appends one value of a URL's query, percent-encoded. A slash is left alone: it has no special meaning there
/// (RFC 3986 §3.4), and some XMPP servers encode every `%` of a URL a second time.
pub fn encode_query_value(value: &[u8], url: &mut String) {
    encode_path(value, url);
}

/// Splits a query at each `&` into names and values, without decoding them. The value is `None` if there is no `=`.
pub fn query_parameters(query: &[u8]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    query
        .split(|b| *b == b'&')
        .map(|part| match part.iter().position(|b| *b == b'=') {
            Some(at) => (&part[..at], Some(&part[at + 1..])),
            None => (part, None),
        })
}

/// The expiry of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Expiry {
    /// As configured for its purpose.
    Default,
    /// Never by age.
    Never,
    /// At this Unix second.
    At(u64),
    /// This many seconds after it was stored.
    Age(u64),
}

/// The purpose, expiry and size of a file, encoded in the name of its folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag {
    pub purpose: Purpose,
    /// For ephemeral files, whose purpose holds the expiry time, only `Default` and `Age` are used.
    pub end: Expiry,
    /// Bytes; `None` if the name does not tell.
    pub size: Option<u64>,
}

impl From<Purpose> for Tag {
    fn from(purpose: Purpose) -> Tag {
        Tag {
            purpose,
            end: Expiry::Default,
            size: None,
        }
    }
}

/// Appends the part of a slot's folder name that follows the last `~`.
fn push_suffix(tag: Tag, path: &mut String) {
    path.push(match tag.purpose {
        Purpose::Message => 'm',
        Purpose::Profile => 'p',
        Purpose::Permanent => 'k',
        Purpose::Ephemeral { expire_before } => {
            path.push_str(&format!("e{expire_before:x}"));
            if let Expiry::Age(age) = tag.end {
                path.push_str(&format!("t{age:x}"));
            }
            return;
        }
    });
    match tag.end {
        Expiry::Default => {}
        Expiry::Never => path.push('n'),
        Expiry::At(end) => path.push_str(&format!("x{end:x}")),
        Expiry::Age(age) => path.push_str(&format!("t{age:x}")),
    }
}

/// Parses the tag in the name of a slot's folder; `None` for legacy and foreign folders.
pub fn tag_of(folder: &[u8]) -> Option<Tag> {
    let (random, suffix) = folder.split_at_checked(RANDOM_BYTES.div_ceil(3) * 4 + 1)?;
    if random.last() != Some(&b'~') {
        return None;
    }
    let (size, suffix) = match suffix.iter().position(|b| *b == b'~') {
        Some(at) => (Some(lower_hex(&suffix[..at])?), &suffix[at + 1..]),
        None => (None, suffix),
    };
    let (letter, rest) = suffix.split_first()?;
    let purpose = match letter {
        b'm' => Purpose::Message,
        b'p' => Purpose::Profile,
        b'k' => Purpose::Permanent,
        b'e' => {
            let mut parts = rest.splitn(2, |byte| *byte == b't');
            let expire_before = lower_hex(parts.next()?)?;
            let age = parts.next().map(lower_hex);
            return Some(Tag {
                purpose: Purpose::Ephemeral { expire_before },
                end: match age {
                    None => Expiry::Default,
                    Some(age) => Expiry::Age(age?),
                },
                size,
            });
        }
        _ => return None,
    };
    let end = match rest {
        [] => Expiry::Default,
        [b'n'] => Expiry::Never,
        [b'x', hex @ ..] => Expiry::At(lower_hex(hex)?),
        [b't', hex @ ..] => Expiry::Age(lower_hex(hex)?),
        _ => return None,
    };
    Some(Tag { purpose, end, size })
}

fn lower_hex(text: &[u8]) -> Option<u64> {
    let lower = text.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    u64::from_str_radix(std::str::from_utf8(text).ok()?, 16)
        .ok()
        .filter(|_| lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> BareJid {
        BareJid::parse("romeo@montague.tld").unwrap()
    }

    #[test]
    fn the_owner_folder_matches_http_upload_component() {
        assert_eq!(owner_folder(&owner()), "Q_7dsld2o0PGmDXH553Cx_WVmKY");
    }

    #[test]
    fn an_owner_is_an_address_or_a_folder() {
        let jid = |text: &str| Some(Owner::Jid(BareJid::parse(text).unwrap()));
        assert_eq!(
            Owner::parse("Romeo@Montague.tld/orchard"),
            jid("romeo@montague.tld")
        );
        assert_eq!(Owner::parse("montague.tld"), jid("montague.tld"));
        let folder = "Q_7dsld2o0PGmDXH553Cx_WVmKY";
        assert_eq!(Owner::parse(folder), Some(Owner::Folder(folder.to_owned())));
        assert_eq!(Owner::parse(folder).unwrap().folder(), folder);
        assert_eq!(jid("romeo@montague.tld").unwrap().folder(), folder);
        assert_eq!(Owner::parse("a b"), None);
    }

    #[test]
    fn purpose_and_expiry_round_trip_through_the_path() {
        let at = 1_767_225_600;
        let ends = [
            Expiry::Default,
            Expiry::Never,
            Expiry::At(at),
            Expiry::At(0),
            Expiry::Age(0),
            Expiry::Age(u64::MAX),
        ];
        let purposes = [Purpose::Message, Purpose::Profile, Purpose::Permanent];
        let mut marks: Vec<Tag> = purposes
            .iter()
            .flat_map(|purpose| {
                ends.map(|end| Tag {
                    purpose: *purpose,
                    end,
                    size: None,
                })
            })
            .collect();
        marks.push(Purpose::Ephemeral { expire_before: at }.into());
        marks.push(Purpose::Ephemeral { expire_before: 0 }.into());
        marks.push(Tag {
            purpose: Purpose::Ephemeral {
                expire_before: u64::MAX,
            },
            end: Expiry::Age(u64::MAX),
            size: None,
        });
        let sized =
            |tag: Tag| [None, Some(0), Some(0xe1), Some(u64::MAX)].map(|size| Tag { size, ..tag });
        for tag in marks.into_iter().flat_map(sized) {
            let path =
                StorePath::for_slot(&owner(), tag, &[0xff; RANDOM_BYTES], "a b.jpg").unwrap();
            assert_eq!(path.tag(), Some(tag), "{path:?}");
            assert_eq!(path.name(), b"a b.jpg");
            assert_eq!(path.owner_folder(), b"Q_7dsld2o0PGmDXH553Cx_WVmKY");
            assert!(path.encoded().ends_with("/a%20b.jpg"), "{}", path.encoded());
        }
    }

    #[test]
    fn legacy_and_foreign_folders_have_no_tag() {
        for folder in [
            "",
            "m",
            "~m",
            "AbCdEfGhIjKlM",
            "4a771ac1-f0b2-4a4a-9700-f2a26fa2bb67",
            "aaaaaaaaaaaaaaaaaaaa~",
            "aaaaaaaaaaaaaaaaaaaa~x",
            "aaaaaaaaaaaaaaaaaaaa~e",
            "aaaaaaaaaaaaaaaaaaaa~eXYZ",
            "aaaaaaaaaaaaaaaaaaaa~e+1",
            "aaaaaaaaaaaaaaaaaaaa~eFF",
            "aaaaaaaaaaaaaaaaaaaa~e11111111111111111",
            "aaaaaaaaaaaaaaaaaaa~mm",
            "aaaaaaaaaaaaaaaaaaaa~mm",
            "aaaaaaaaaaaaaaaaaaaa~mx",
            "aaaaaaaaaaaaaaaaaaaa~mxG",
            "aaaaaaaaaaaaaaaaaaaa~mt",
            "aaaaaaaaaaaaaaaaaaaa~mt1t1",
            "aaaaaaaaaaaaaaaaaaaa~e1t",
            "aaaaaaaaaaaaaaaaaaaa~et1",
            "aaaaaaaaaaaaaaaaaaaa~e1t1t1",
            "aaaaaaaaaaaaaaaaaaaa~e1x1",
            "aaaaaaaaaaaaaaaaaaaa~~m",
            "aaaaaaaaaaaaaaaaaaaa~1~",
            "aaaaaaaaaaaaaaaaaaaa~1",
            "aaaaaaaaaaaaaaaaaaaa~1~1~m",
            "aaaaaaaaaaaaaaaaaaaa~1F~m",
            "aaaaaaaaaaaaaaaaaaaa~+1~m",
            "aaaaaaaaaaaaaaaaaaaa~m~m",
            "aaaaaaaaaaaaaaaaaaaa~11111111111111111~m",
            "aaaaaaaaaaaaaaaaaaaa~mnn",
            "aaaaaaaaaaaaaaaaaaaa~en",
        ] {
            assert_eq!(tag_of(folder.as_bytes()), None, "{folder}");
        }
    }

    #[track_caller]
    fn check(path: &str, accepted: bool) {
        let parsed = StorePath::from_segments(path.as_bytes().split(|b| *b == b'/'));
        assert_eq!(parsed.is_some(), accepted, "{path:?}");
        if let Some(parsed) = parsed {
            assert_eq!(parsed.as_bytes(), path.as_bytes());
        }
    }

    #[test]
    fn only_paths_of_servable_files_are_valid() {
        check("a/b", true);
        check("a/b/c", true);
        check("a/b/très cool.jpg", true);
        check("1/2/3/4/5/6/7/8", true);
        check("1/2/3/4/5/6/7/8/9", false);
        for path in [
            "",
            "a",
            "/a",
            "a/",
            "a//b",
            "../a",
            "a/..",
            "a/.",
            "a/.b",
            ".upslot/secret",
            "a/b\0",
        ] {
            check(path, false);
        }
        check(&format!("a/{}", "x".repeat(255)), true);
        check(&format!("a/{}", "x".repeat(256)), false);
        assert!(StorePath::from_segments([&b"a"[..], b"b/c"].into_iter()).is_none());
    }

    #[test]
    fn segments_are_decoded_once() {
        assert_eq!(*decode_segment(b"a%20b").unwrap(), *b"a b");
        assert_eq!(*decode_segment(b"%252F").unwrap(), *b"%2F");
        assert_eq!(decode_segment(b"a+b%c3%A8").unwrap(), "a+bè".as_bytes());
        for raw in [&b"%"[..], b"%4", b"%zz", b"%%41", b"a%2"] {
            assert_eq!(decode_segment(raw), None, "{}", raw.escape_ascii());
        }
    }
}
