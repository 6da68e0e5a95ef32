//! Finds aliases that point to nothing, because a life-cycle rule of the bucket deleted their files. The list of all objects
//! is enough for that: the name of an alias is the random part of its file's path.
//!
//! In the order of keys, the files of a few owners come before all aliases, and those of the others after them. The names of
//! the former are kept to be compared with aliases, and the names of aliases with the latter. Memory is bounded: beyond
//! [`MAX_NAMES`] of either, a sweep checks a part of the aliases, which is another one in each sweep.

use std::collections::BTreeSet;

use data_encoding::BASE64URL_NOPAD;

use crate::layout::{INTERNAL, LinkDigest, StorePath};
use crate::s3::bucket::{Bucket, Internal};

/// Maximum number of names of either kind.
const MAX_NAMES: usize = 65_536;

/// The aliases of one list.
#[derive(Debug)]
pub struct UnusedAliases {
    /// What names are combined with. Those with the smallest results are checked.
    mask: LinkDigest,
    /// The smallest result that is not checked.
    end: Option<LinkDigest>,
    /// Files that came before the aliases.
    early: BTreeSet<LinkDigest>,
    /// Aliases whose files were not seen.
    unused: BTreeSet<LinkDigest>,
    last_key: String,
    /// Whether the list is in the order of keys.
    is_sorted: bool,
}

impl UnusedAliases {
    /// `mask` should be another one in each sweep.
    pub fn new(mask: LinkDigest) -> UnusedAliases {
        UnusedAliases {
            mask,
            end: None,
            early: BTreeSet::new(),
            unused: BTreeSet::new(),
            last_key: String::new(),
            is_sorted: true,
        }
    }

    /// The list shows this key.
    pub fn look_at_key(&mut self, key: &str) {
        if key < self.last_key.as_str() {
            self.is_sorted = false;
        }
        self.last_key.clear();
        self.last_key.push_str(key);
    }

    /// The list shows this file.
    pub fn look_at_file(&mut self, path: &StorePath) {
        let folder = path.segments().nth(1).unwrap_or_default();
        let random = folder.split(|b| *b == b'~').next().unwrap_or_default();
        let Some(name) = self.masked(random) else {
            return;
        };
        if path.as_bytes() < INTERNAL.as_bytes() {
            self.early.insert(name);
            self.shrink();
        } else {
            self.unused.remove(&name);
        }
    }

    /// The list shows an alias that may be deleted if there is no file.
    pub fn look_at_alias(&mut self, name: &str) {
        if let Some(name) = self.masked(name.as_bytes()) {
            if !self.early.contains(&name) {
                self.unused.insert(name);
                self.shrink();
            }
        }
    }

    /// The digest of a name, unless it is not checked.
    fn masked(&self, name: &[u8]) -> Option<LinkDigest> {
        let digest = BASE64URL_NOPAD.decode(name).ok()?;
        let digest = self.combined(digest.try_into().ok()?);
        self.end.is_none_or(|end| digest < end).then_some(digest)
    }

    fn combined(&self, mut digest: LinkDigest) -> LinkDigest {
        for (byte, mask) in digest.iter_mut().zip(self.mask) {
            *byte ^= mask;
        }
        digest
    }

    fn shrink(&mut self) {
        for names in [&mut self.early, &mut self.unused] {
            if names.len() > MAX_NAMES {
                self.end = names.pop_last();
            }
        }
        let Some(end) = self.end else {
            return;
        };
        // What is not checked of one kind is not checked of the other.
        for names in [&mut self.early, &mut self.unused] {
            while names.last().is_some_and(|last| *last >= end) {
                names.pop_last();
            }
        }
    }

    /// Whether there are any. To be asked when the whole list was seen.
    pub fn is_empty(&self) -> bool {
        self.unused.is_empty() || !self.is_sorted
    }

    /// Takes the key of one.
    pub fn take(&mut self, bucket: &Bucket) -> Option<String> {
        let digest = self.unused.pop_first()?;
        let name = BASE64URL_NOPAD.encode(&self.combined(digest));
        let key = bucket.internal_key(Internal::Aliases, &name)?;
        Some(key.as_str().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::slot_digest;
    use crate::s3::bucket::tests::store;

    fn name(number: usize) -> String {
        BASE64URL_NOPAD.encode(&slot_digest(&number.to_be_bytes()))
    }

    /// A file of an owner before the aliases, or of one after them.
    fn file(number: usize) -> StorePath {
        let owner = if number % 2 == 0 { "-" } else { "A" };
        let folder = format!("{}~a~m", name(number));
        let path = [owner.as_bytes(), folder.as_bytes(), b"a.png"];
        StorePath::from_segments(path.into_iter()).unwrap()
    }

    /// The number of aliases found, of so many that have a file and so many others.
    fn found(used: usize, unused: usize, mask: u8) -> usize {
        let mut aliases = UnusedAliases::new([mask; 15]);
        let before = (0..used).filter(|number| number % 2 == 0);
        before.for_each(|number| aliases.look_at_file(&file(number)));
        (0..used + unused).for_each(|number| aliases.look_at_alias(&name(number)));
        let after = (0..used).filter(|number| number % 2 == 1);
        after.for_each(|number| aliases.look_at_file(&file(number)));
        assert!(aliases.early.len() <= MAX_NAMES && aliases.unused.len() <= MAX_NAMES);
        let bucket = Bucket::new(&store("", true));
        let mut keys = BTreeSet::new();
        while !aliases.is_empty() {
            keys.extend(aliases.take(&bucket));
        }
        for number in 0..used {
            assert!(!keys.contains(&format!(".upslot/aliases/{}", name(number))));
        }
        keys.len()
    }

    #[test]
    fn aliases_without_files_are_found() {
        assert_eq!(found(1000, 10, 0), 10);
        // Too many for one sweep.
        let many = 2 * MAX_NAMES;
        let first = found(many + many / 4, 100, 0);
        assert!((1..100).contains(&first), "{first}");
        assert_eq!(found(0, MAX_NAMES + 100, 9), MAX_NAMES);
    }

    #[test]
    fn nothing_follows_from_a_list_without_order() {
        let mut aliases = UnusedAliases::new([0; 15]);
        aliases.look_at_key("b");
        aliases.look_at_alias(&name(1));
        assert!(!aliases.is_empty());
        aliases.look_at_key("a");
        assert!(aliases.is_empty());
    }
}
