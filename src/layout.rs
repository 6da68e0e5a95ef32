//! Where a file lies below `storage_path`, and back.
//!
//! ```text
//! <owner folder>/<random>~<suffix>/<name>
//! <owner folder>/<random>/<name>            trees of predecessors, served and counted in place
//! <owner folder>/<name>
//! ```
//!
//! The owner folder is base64url(SHA-1(bare JID)) without padding, as HttpUploadComponent has it. The suffix is the
//! mark: a letter for the purpose, then, where the file does not live as long as its purpose says, `t` and its age at the
//! end, `x` and the end itself, or `n` for a file without one. An age counts from when the file is stored, so that it
//! holds whatever the clock showed then. So the tree alone says all that the sweep must know. This module knows
//! nothing of files; it only judges and builds paths.
//!
//! | suffix | means |
//! | --- | --- |
//! | `m`, `p`, `k` | message, profile, permanent |
//! | `e<hex>` | ephemeral, not to be had from this Unix second on |
//! | `mt<hex>`, `pt<hex>`, `kt<hex>` | message, profile, permanent, removed so many seconds after it was stored |
//! | `e<hex>t<hex>` | ephemeral, and removed so many seconds after it was stored, if that is sooner |
//! | `mx<hex>`, `px<hex>`, `kx<hex>` | the same, removed from this Unix second on |
//! | `mn`, `pn`, `kn` | the same, never removed for its age |

use std::borrow::Cow;

use data_encoding::BASE64URL_NOPAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};

use crate::jid::BareJid;
use crate::slot::Purpose;

/// Random bytes of a slot: 120 bits.
pub const RANDOM: usize = 15;

/// Most bytes that a slot adds to its owner's folder and its file's name: two slashes, the random bytes as text, the
/// mark.
const SLOT_FOLDER: usize = 2 + RANDOM.div_ceil(3) * 4 + 1 + 34;

/// Longest name of one folder or file, in bytes, on every Linux file system.
pub const MAX_NAME: usize = 255;

/// Deepest path that is served or counted; upslot's own have three segments.
pub const MAX_DEPTH: usize = 8;

/// The folder below `storage_path` that is upslot's own; like every dot name it is never served.
pub const INTERNAL: &str = ".upslot";

/// What a path segment of a URL keeps unencoded: the unreserved characters of RFC 3986 §2.3.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
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

/// A checked relative path of a file below `storage_path`: two to eight segments, none of them empty, hidden, longer
/// than a name may be, or holding a NUL.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct StorePath {
    bytes: Vec<u8>,
}

impl StorePath {
    /// The path of a new slot's file. `name` has passed [`crate::slot::name::clean`].
    pub fn of_slot(
        owner: &BareJid,
        mark: Mark,
        random: &[u8; RANDOM],
        name: &str,
    ) -> Option<StorePath> {
        StorePath::in_folder(&owner_folder(owner), mark, random, name)
    }

    /// The same, of an owner whose folder is known.
    pub fn in_folder(
        owner_folder: &str,
        mark: Mark,
        random: &[u8; RANDOM],
        name: &str,
    ) -> Option<StorePath> {
        if !is_sound(name.as_bytes()) {
            return None;
        }
        let mut path = String::with_capacity(owner_folder.len() + SLOT_FOLDER + name.len());
        path.push_str(owner_folder);
        path.push('/');
        BASE64URL_NOPAD.encode_append(random, &mut path);
        path.push('~');
        push_suffix(mark, &mut path);
        path.push('/');
        path.push_str(name);
        Some(StorePath {
            bytes: path.into_bytes(),
        })
    }

    /// Takes decoded segments; `None` when they name no file that could ever be served.
    pub fn from_segments<'a>(segments: impl Iterator<Item = &'a [u8]>) -> Option<StorePath> {
        let mut bytes = Vec::with_capacity(96);
        let mut depth = 0;
        for segment in segments {
            depth += 1;
            if !is_sound(segment) || depth > MAX_DEPTH {
                return None;
            }
            if depth > 1 {
                bytes.push(b'/');
            }
            bytes.extend_from_slice(segment);
        }
        (depth >= 2).then_some(StorePath { bytes })
    }

    /// The path, segments joined by `/`, no leading one.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The first segment.
    pub fn owner_folder(&self) -> &[u8] {
        self.segments().next().unwrap_or_default()
    }

    /// Everything above the file.
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

    /// What the tree tells, for paths of upslot's own making.
    pub fn mark(&self) -> Option<Mark> {
        let mut segments = self.segments();
        let folder = segments.nth(1)?;
        segments.next()?;
        mark_of(folder)
    }

    /// The path, percent-encoded for a URL.
    pub fn encoded(&self) -> String {
        let mut url = String::with_capacity(self.bytes.len() + 16);
        self.encode_to(&mut url);
        url
    }

    /// Appends the path, percent-encoded.
    pub fn encode_to(&self, url: &mut String) {
        for (at, segment) in self.segments().enumerate() {
            if at > 0 {
                url.push('/');
            }
            url.extend(percent_encode(segment, SEGMENT));
        }
    }

    fn split(&self) -> (&[u8], &[u8]) {
        match self.bytes.iter().rposition(|b| *b == b'/') {
            Some(at) => (&self.bytes[..at], &self.bytes[at + 1..]),
            None => (&[], &self.bytes),
        }
    }
}

impl std::fmt::Debug for StorePath {
    /// For the log: escaped, and quoted where it would fall apart.
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

/// Whether a segment can be the name of what is served.
fn is_sound(segment: &[u8]) -> bool {
    !segment.is_empty()
        && segment.len() <= MAX_NAME
        && segment[0] != b'.'
        && !segment.iter().any(|b| *b == b'/' || *b == 0)
}

/// What stands for a slot's name in a path: as many bytes as a slot of our own has, so that both look alike.
pub fn digest_of(slot: &[u8]) -> [u8; RANDOM] {
    let digest = ring::digest::digest(&ring::digest::SHA256, slot);
    let mut short = [0; RANDOM];
    short.copy_from_slice(&digest.as_ref()[..RANDOM]);
    short
}

/// Decodes one segment of a URL's path, once. `None` when a `%` is not followed by two hex digits.
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

/// Appends one value of a URL's query, percent-encoded. A slash stays: it means nothing there (RFC 3986 §3.4), and some
/// servers encode every `%` of a URL once more.
pub fn encode_value_to(value: &[u8], url: &mut String) {
    const VALUE: &AsciiSet = &SEGMENT.remove(b'/');
    url.extend(percent_encode(value, VALUE));
}

/// How the life of a file ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// As is usual for its purpose.
    Usual,
    /// Not by age.
    Never,
    /// It is removed from this Unix second on.
    At(u64),
    /// It is removed so many seconds after it was stored.
    Age(u64),
}

/// What the tree tells of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mark {
    pub purpose: Purpose,
    /// Ephemeral files, whose end is in their purpose, have no other but an age.
    pub end: End,
}

impl From<Purpose> for Mark {
    fn from(purpose: Purpose) -> Mark {
        Mark {
            purpose,
            end: End::Usual,
        }
    }
}

/// What stands behind the `~` of a slot's folder.
fn push_suffix(mark: Mark, path: &mut String) {
    path.push(match mark.purpose {
        Purpose::Message => 'm',
        Purpose::Profile => 'p',
        Purpose::Permanent => 'k',
        Purpose::Ephemeral { expire_before } => {
            path.push_str(&format!("e{expire_before:x}"));
            if let End::Age(age) = mark.end {
                path.push_str(&format!("t{age:x}"));
            }
            return;
        }
    });
    match mark.end {
        End::Usual => {}
        End::Never => path.push('n'),
        End::At(end) => path.push_str(&format!("x{end:x}")),
        End::Age(age) => path.push_str(&format!("t{age:x}")),
    }
}

/// What a slot's folder tells; `None` for folders of other making.
pub fn mark_of(folder: &[u8]) -> Option<Mark> {
    let (random, suffix) = folder.split_at_checked(RANDOM.div_ceil(3) * 4 + 1)?;
    if random.last() != Some(&b'~') {
        return None;
    }
    let (letter, rest) = suffix.split_first()?;
    let purpose = match letter {
        b'm' => Purpose::Message,
        b'p' => Purpose::Profile,
        b'k' => Purpose::Permanent,
        b'e' => {
            let mut parts = rest.splitn(2, |byte| *byte == b't');
            let expire_before = lower_hex(parts.next()?)?;
            let age = parts.next().map(lower_hex);
            return Some(Mark {
                purpose: Purpose::Ephemeral { expire_before },
                end: match age {
                    None => End::Usual,
                    Some(age) => End::Age(age?),
                },
            });
        }
        _ => return None,
    };
    let end = match rest {
        [] => End::Usual,
        [b'n'] => End::Never,
        [b'x', hex @ ..] => End::At(lower_hex(hex)?),
        [b't', hex @ ..] => End::Age(lower_hex(hex)?),
        _ => return None,
    };
    Some(Mark { purpose, end })
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
    fn the_owner_folder_is_that_of_http_upload_component() {
        assert_eq!(owner_folder(&owner()), "Q_7dsld2o0PGmDXH553Cx_WVmKY");
    }

    #[test]
    fn a_slot_s_path_tells_its_purpose_and_its_end() {
        let at = 1_767_225_600;
        let ends = [
            End::Usual,
            End::Never,
            End::At(at),
            End::At(0),
            End::Age(0),
            End::Age(u64::MAX),
        ];
        let purposes = [Purpose::Message, Purpose::Profile, Purpose::Permanent];
        let mut marks: Vec<Mark> = purposes
            .iter()
            .flat_map(|purpose| {
                ends.map(|end| Mark {
                    purpose: *purpose,
                    end,
                })
            })
            .collect();
        marks.push(Purpose::Ephemeral { expire_before: at }.into());
        marks.push(Purpose::Ephemeral { expire_before: 0 }.into());
        marks.push(Mark {
            purpose: Purpose::Ephemeral {
                expire_before: u64::MAX,
            },
            end: End::Age(u64::MAX),
        });
        for mark in marks {
            let path = StorePath::of_slot(&owner(), mark, &[0xff; RANDOM], "a b.jpg").unwrap();
            assert_eq!(path.mark(), Some(mark), "{path:?}");
            assert_eq!(path.name(), b"a b.jpg");
            assert_eq!(path.owner_folder(), b"Q_7dsld2o0PGmDXH553Cx_WVmKY");
            assert!(path.encoded().ends_with("/a%20b.jpg"), "{}", path.encoded());
        }
    }

    #[test]
    fn folders_of_other_making_tell_nothing() {
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
            "aaaaaaaaaaaaaaaaaaaa~mnn",
            "aaaaaaaaaaaaaaaaaaaa~en",
        ] {
            assert_eq!(mark_of(folder.as_bytes()), None, "{folder}");
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
    fn only_paths_of_visible_files_pass() {
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
