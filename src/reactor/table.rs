//! The table of connections.
//!
//! A key is a number that is not used again before all others were, so that a late event, deadline or result for a
//! closed connection finds nothing. Keys fit the `usize` of 32-bit hosts.

use std::collections::BTreeMap;

/// Identifies a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(u32);

impl Key {
    /// The first key. The poll tokens below it are for the loop's own event sources.
    pub const FIRST: u32 = 0x1000;

    /// The key in a poll token; `None` for the loop's own event sources.
    pub fn from_token(token: usize) -> Option<Key> {
        let key = u32::try_from(token).ok()?;
        (key >= Key::FIRST).then_some(Key(key))
    }

    pub fn to_token(self) -> usize {
        self.0 as usize
    }

    fn next(self) -> Key {
        Key(self.0.checked_add(1).unwrap_or(Key::FIRST))
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0 - Key::FIRST)
    }
}

/// The table, which owns its values.
#[derive(Debug)]
pub struct Table<T> {
    values: BTreeMap<Key, Box<T>>,
    next: Key,
}

impl<T> Default for Table<T> {
    fn default() -> Table<T> {
        Table {
            values: BTreeMap::new(),
            next: Key(Key::FIRST),
        }
    }
}

impl<T> Table<T> {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Inserts the value that `make` returns for its new key.
    pub fn insert_with<E>(&mut self, make: impl FnOnce(Key) -> Result<T, E>) -> Result<Key, E> {
        let mut key = self.next;
        while self.values.contains_key(&key) {
            key = key.next();
        }
        let value = make(key)?;
        self.values.insert(key, Box::new(value));
        self.next = key.next();
        Ok(key)
    }

    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.values.get_mut(&key).map(Box::as_mut)
    }

    pub fn remove(&mut self, key: Key) -> Option<T> {
        self.values.remove(&key).map(|value| *value)
    }

    /// All values with their keys.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut T)> {
        self.values
            .iter_mut()
            .map(|(key, value)| (*key, value.as_mut()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(table: &mut Table<u32>, value: u32) -> Key {
        table.insert_with(|_| Ok::<_, ()>(value)).unwrap()
    }

    #[test]
    fn a_stale_key_finds_nothing() {
        let mut table = Table::default();
        let first = insert(&mut table, 1);
        let second = insert(&mut table, 2);
        assert_eq!(table.len(), 2);
        assert_eq!(table.remove(first), Some(1));
        let third = insert(&mut table, 3);
        assert_ne!(third, first);
        assert_eq!(table.get_mut(first), None);
        assert_eq!(table.remove(first), None);
        assert_eq!(table.get_mut(third), Some(&mut 3));
        assert_eq!(table.get_mut(second), Some(&mut 2));
        assert_eq!(Key::from_token(third.to_token()), Some(third));
        assert_eq!(table.iter_mut().count(), 2);
    }

    #[test]
    fn a_failed_insertion_adds_nothing() {
        let mut table: Table<u32> = Table::default();
        assert_eq!(table.insert_with(|_| Err("no")), Err("no"));
        assert_eq!(table.len(), 0);
        insert(&mut table, 1);
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn after_the_last_key_come_the_unused_ones_again() {
        let mut table = Table::default();
        let first = insert(&mut table, 1);
        let second = insert(&mut table, 2);
        table.next = Key(u32::MAX);
        assert_eq!(insert(&mut table, 3), Key(u32::MAX));
        table.remove(second);
        assert_eq!(insert(&mut table, 4), second);
        assert_eq!(table.get_mut(first), Some(&mut 1));
        assert_eq!(Key::from_token(Key::FIRST as usize - 1), None);
    }
}
