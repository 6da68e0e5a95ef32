//! The slots of one owner whose uploads are not seen, because they go to an object store directly. A slot counts against
//! the quotas until a list shows its file, or a list that was begun after its end does not.
//!
//! Memory is bounded: beyond [`MAX_SLOTS`] only sums are kept, until a list is begun after all of these slots have expired.

use std::time::Instant;

use crate::layout::FileId;
use crate::policy::pool::{Bytes, Pool, QuotaClass};
use crate::store::usage::count::{Counts, Sum};
use crate::store::usage::{OwnerEntry, UsageTracker};

/// Maximum number of slots of one owner that are known by their files; 10 KB.
const MAX_SLOTS: usize = 256;

/// A slot whose upload is not seen.
#[derive(Clone, Copy, Debug)]
pub struct GrantedSlot {
    pub file: FileId,
    pub class: QuotaClass,
    pub size: u64,
    /// When no upload can begin any more.
    pub expires: Instant,
}

impl UsageTracker {
    /// The caller has counted an owner since `begun`. Of the files of its granted slots, these were among those counted.
    pub fn set_counted(
        &mut self,
        owner: &[u8],
        stored: Counts,
        shown: &[FileId],
        begun: Instant,
        now: Instant,
    ) {
        let entry = self.entry(owner, now);
        entry.stored = Some(stored);
        entry.counted = now;
        entry.is_measured = true;
        let before = Pool::ALL.sum(&entry.granted_bytes());
        let found = entry.settle(shown, begun);
        let left = Pool::ALL.sum(&entry.granted_bytes());
        self.granted = self.granted.saturating_sub(before.saturating_sub(left));
        if let Some(sum) = &mut self.total {
            found.iter().for_each(|slot| sum.add(1, slot.size));
        }
    }

    /// The caller has counted all files since `begun`. Of the files of all granted slots, these were among those counted.
    pub fn set_total(&mut self, files: u64, bytes: u64, shown: &[FileId], begun: Instant) {
        self.total = Some(Sum { bytes, files });
        self.granted = 0;
        for entry in self.owners.values_mut() {
            for slot in entry.settle(shown, begun) {
                entry.changes += 1;
                if let Some(stored) = &mut entry.stored {
                    stored.add(slot.class, slot.size);
                }
            }
            let left = Pool::ALL.sum(&entry.granted_bytes());
            self.granted = self.granted.saturating_add(left);
        }
    }

    /// A slot was granted whose upload will not be seen.
    pub fn grant(&mut self, owner: &[u8], slot: GrantedSlot, now: Instant) {
        self.granted = self.granted.saturating_add(slot.size);
        let entry = self.entry(owner, now);
        // A count in progress does not look for its file.
        entry.changes += 1;
        entry.granted.get_or_insert_default().add(slot);
    }

    /// The files of an owner's granted slots that were not seen.
    pub fn granted_files(&self, owner: &[u8]) -> Vec<FileId> {
        let entry = self.owners.get(owner);
        entry.map_or_else(Vec::new, |entry| entry.granted_files().collect())
    }

    /// Those of all owners.
    pub fn all_granted_files(&self) -> Vec<FileId> {
        let entries = self.owners.values();
        entries.flat_map(OwnerEntry::granted_files).collect()
    }
}

impl OwnerEntry {
    pub(super) fn granted_bytes(&self) -> Bytes {
        let granted = self.granted.as_ref();
        granted.map_or(Bytes::default(), |slots| slots.bytes())
    }

    fn granted_files(&self) -> impl Iterator<Item = FileId> + '_ {
        self.granted.iter().flat_map(|slots| slots.files())
    }

    /// See [`GrantedSlots::settle`].
    fn settle(&mut self, shown: &[FileId], begun: Instant) -> Vec<GrantedSlot> {
        let Some(slots) = &mut self.granted else {
            return Vec::new();
        };
        let found = slots.settle(shown, begun);
        if slots.is_empty() {
            self.granted = None;
        }
        found
    }
}

/// Those of one owner.
#[derive(Debug, Default)]
pub(super) struct GrantedSlots {
    slots: Vec<GrantedSlot>,
    /// Bytes of the others, and when the last of them expires.
    others: Option<(Bytes, Instant)>,
}

impl GrantedSlots {
    pub(super) fn add(&mut self, slot: GrantedSlot) {
        if self.slots.len() < MAX_SLOTS {
            return self.slots.push(slot);
        }
        let (bytes, until) = self.others.get_or_insert((Bytes::default(), slot.expires));
        bytes[slot.class] = bytes[slot.class].saturating_add(slot.size);
        *until = slot.expires.max(*until);
    }

    /// Their bytes.
    pub(super) fn bytes(&self) -> Bytes {
        let mut sums = self.others.map_or(Bytes::default(), |(bytes, _)| bytes);
        for slot in &self.slots {
            sums[slot.class] = sums[slot.class].saturating_add(slot.size);
        }
        sums
    }

    pub(super) fn files(&self) -> impl Iterator<Item = FileId> + '_ {
        self.slots.iter().map(|slot| slot.file)
    }

    /// When the last of them expires.
    pub(super) fn until(&self) -> Option<Instant> {
        let slots = self.slots.iter().map(|slot| slot.expires);
        slots.chain(self.others.map(|(_, until)| until)).max()
    }

    /// A list that was begun at this time showed these files, which are sorted. Returns those of the slots.
    pub(super) fn settle(&mut self, shown: &[FileId], begun: Instant) -> Vec<GrantedSlot> {
        let is_shown = |slot: &GrantedSlot| shown.binary_search(&slot.file).is_ok();
        let stored = self.slots.iter().copied().filter(is_shown).collect();
        self.slots
            .retain(|slot| !is_shown(slot) && slot.expires > begun);
        self.others = self.others.filter(|(_, until)| *until > begun);
        stored
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.others.is_none()
    }
}
