//! From a request target to a path in the store.
//!
//! A reverse proxy may keep the path prefix of `put_url` and `get_url`, strip it, or double it; all three are accepted.
//! The path is decoded exactly once and by segment, so that an encoded slash never becomes a separator.

use std::borrow::Cow;

use crate::layout::{StorePath, decode_segment};

/// The resource that a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The service itself.
    Root,
    /// A file that may exist.
    File(StorePath),
    /// No valid path in the store.
    Nothing,
}

/// The path prefixes of the service's URLs.
#[derive(Clone, Debug)]
pub struct Prefixes {
    /// The decoded segments of each prefix; longest prefix first.
    prefixes: Vec<Vec<Vec<u8>>>,
}

impl Prefixes {
    /// `paths` are the decoded paths of the configured URLs, such as `/` and `/upload/`.
    pub fn new(paths: &[&[u8]]) -> Prefixes {
        let mut prefixes: Vec<Vec<Vec<u8>>> = paths
            .iter()
            .map(|path| {
                path.split(|b| *b == b'/')
                    .filter(|segment| !segment.is_empty())
                    .map(<[u8]>::to_vec)
                    .collect()
            })
            .filter(|prefix: &Vec<Vec<u8>>| !prefix.is_empty())
            .collect();
        prefixes.sort_by_key(|prefix| std::cmp::Reverse(prefix.len()));
        prefixes.dedup();
        Prefixes { prefixes }
    }

    /// The resource that the path of a request target names; the path is as it was sent.
    pub fn place(&self, path: &[u8]) -> Place {
        let Some(segments) = self.segments(path) else {
            return Place::Nothing;
        };
        if segments.is_empty() || (segments.len() == 1 && segments[0].is_empty()) {
            return Place::Root;
        }
        match StorePath::from_segments(segments.iter().map(|segment| &**segment)) {
            Some(path) => Place::File(path),
            None => Place::Nothing,
        }
    }

    /// The decoded segments of the path of a request target, without its prefix. They may contain any byte.
    pub fn segments<'a>(&self, path: &'a [u8]) -> Option<Vec<Cow<'a, [u8]>>> {
        let relative = path.strip_prefix(b"/")?;
        let mut segments = Vec::with_capacity(8);
        for raw in relative.split(|b| *b == b'/') {
            segments.push(decode_segment(raw)?);
        }
        // A proxy may have doubled the prefix.
        for _ in 0..2 {
            let matches = |prefix: &&Vec<Vec<u8>>| {
                let is_equal = |(own, found): (&Vec<u8>, &Cow<'_, [u8]>)| **own == **found;
                prefix.len() <= segments.len() && prefix.iter().zip(&segments).all(is_equal)
            };
            let Some(prefix) = self.prefixes.iter().find(matches) else {
                break;
            };
            segments.drain(..prefix.len());
        }
        Some(segments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(prefixes: &[&str], path: &str, place: &str) {
        let bytes: Vec<&[u8]> = prefixes.iter().map(|p| p.as_bytes()).collect();
        let found = match Prefixes::new(&bytes).place(path.as_bytes()) {
            Place::Root => "root".to_owned(),
            Place::Nothing => "nothing".to_owned(),
            Place::File(path) => String::from_utf8_lossy(path.as_bytes()).into_owned(),
        };
        assert_eq!(found, place, "{path} with prefixes {prefixes:?}");
    }

    #[test]
    fn a_prefix_may_be_kept_stripped_or_doubled() {
        for path in [
            "/up/load/o/r/n",
            "/o/r/n",
            "/up/load/up/load/o/r/n",
            "/%75p/lo%61d/o/r/n",
        ] {
            check(&["/up/load/"], path, "o/r/n");
        }
        check(
            &["/up/load/"],
            "/up/load/up/load/up/load/o/r/n",
            "up/load/o/r/n",
        );
        check(&["/"], "/o/r/n", "o/r/n");
        check(&["/get/", "/put/"], "/put/o/r/n", "o/r/n");
        check(&["/a/", "/a/b/"], "/a/b/o/n", "o/n");
        check(&["/up/"], "/up", "root");
        check(&["/up/"], "/up/", "root");
        check(&["/up/"], "/", "root");
        check(&["/up/"], "/up/up/", "root");
    }

    #[test]
    fn paths_are_decoded_once_and_stay_inside() {
        check(&["/"], "/o/r/tr%C3%a8s%20cool.jpg", "o/r/très cool.jpg");
        check(&["/"], "/o/r/très", "o/r/très");
        check(&["/"], "/o/r/a+b", "o/r/a+b");
        check(&["/"], "/o/r/%2541", "o/r/%41");
        for path in [
            "",
            "*",
            "o/r/n",
            "//o/r/n",
            "/o",
            "/o/",
            "/o//n",
            "/o/r/",
            "/./r/n",
            "/../o/n",
            "/o/%2e%2e/n",
            "/o/..%2fn",
            "/o/r%2Fn",
            "/o/%00",
            "/o/.n",
            "/.upslot/secret",
            "/o/%2eupslot",
            "/o/%zz",
            "/o/%",
        ] {
            check(&["/"], path, "nothing");
        }
    }
}
