//! Connections by key.
//!
//! A key is a generation and an index: generation << 16 | index, so that a late event, deadline or result for a
//! place that was used again meanwhile is told apart and ignored. Keys fit the `usize` of 32-bit hosts.
//!
//! Places come and go in rows, so that the table grows without copying, has little room to spare, and gives memory back
//! when a flood is over.

/// A connection's place, as it was when it was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(u32);

impl Key {
    /// Indices from here on are not for connections; the loop's own sources have them.
    pub const FIRST_RESERVED: u32 = 0xff00;

    /// A key from a poll token; `None` for the loop's own sources.
    pub fn from_token(token: usize) -> Option<Key> {
        let key = Key(u32::try_from(token).ok()?);
        (key.index() < Key::FIRST_RESERVED as usize).then_some(key)
    }

    pub fn to_token(self) -> usize {
        self.0 as usize
    }

    fn new(generation: u16, index: usize) -> Key {
        Key(u32::from(generation) << 16 | index as u32)
    }

    fn index(self) -> usize {
        (self.0 & 0xffff) as usize
    }

    fn generation(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.index(), self.generation())
    }
}

/// Places in a row.
const ROW: usize = 64;

/// The table; owns its values.
#[derive(Debug)]
pub struct Table<T> {
    rows: Vec<Row<T>>,
    /// Free places; those used last come first.
    free: Vec<u16>,
    /// What the generations of a new row begin with: later than all of rows that were given back.
    generation: u16,
}

#[derive(Debug)]
struct Row<T> {
    places: Box<[Place<T>]>,
    taken: usize,
}

#[derive(Debug)]
struct Place<T> {
    generation: u16,
    value: Option<T>,
}

impl<T> Default for Table<T> {
    fn default() -> Table<T> {
        Table {
            rows: Vec::new(),
            free: Vec::new(),
            generation: 0,
        }
    }
}

impl<T> Table<T> {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.rows.len() * ROW - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts a value into a free place, which `make` is told; `None` when all keys are in use.
    pub fn insert_with<E>(
        &mut self,
        make: impl FnOnce(Key) -> Result<T, E>,
    ) -> Option<Result<Key, E>> {
        if self.free.is_empty() {
            self.add_row()?;
        }
        let index = usize::from(*self.free.last()?);
        let row = self.rows.get_mut(index / ROW)?;
        let place = row.places.get_mut(index % ROW)?;
        let key = Key::new(place.generation, index);
        Some(make(key).map(|value| {
            place.value = Some(value);
            row.taken += 1;
            self.free.pop();
            key
        }))
    }

    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let row = self.rows.get_mut(key.index() / ROW)?;
        let place = row.places.get_mut(key.index() % ROW)?;
        if place.generation != key.generation() {
            return None;
        }
        place.value.as_mut()
    }

    /// Takes a value out; its key is not given out again until tens of thousands more have had the place.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let row = self.rows.get_mut(key.index() / ROW)?;
        let place = row.places.get_mut(key.index() % ROW)?;
        if place.generation != key.generation() {
            return None;
        }
        let value = place.value.take()?;
        place.generation = place.generation.wrapping_add(1);
        row.taken -= 1;
        self.free.push(key.index() as u16);
        self.drop_rows();
        Some(value)
    }

    /// Makes room for more; `None` when all keys are in use.
    fn add_row(&mut self) -> Option<()> {
        let first = self.rows.len() * ROW;
        if first + ROW > Key::FIRST_RESERVED as usize {
            return None;
        }
        let place = || Place {
            generation: self.generation,
            value: None,
        };
        self.rows.push(Row {
            places: std::iter::repeat_with(place).take(ROW).collect(),
            taken: 0,
        });
        self.free
            .extend((first..first + ROW).rev().map(|index| index as u16));
        Some(())
    }

    /// Gives back rows at the end that nobody uses, but for the first and one to spare.
    fn drop_rows(&mut self) {
        while let [_, .., before, last] = &self.rows[..] {
            if before.taken + last.taken > 0 {
                return;
            }
            for place in &last.places {
                // As far as numbers go round, the later of two is the one at the shorter distance.
                if place.generation.wrapping_sub(self.generation) < 0x8000 {
                    self.generation = place.generation;
                }
            }
            self.rows.pop();
            let left = self.rows.len() * ROW;
            self.free.retain(|index| usize::from(*index) < left);
        }
    }

    /// All values with their keys.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut T)> {
        self.rows
            .iter_mut()
            .flat_map(|row| row.places.iter_mut())
            .enumerate()
            .filter_map(|(index, place)| {
                let key = Key::new(place.generation, index);
                place.value.as_mut().map(|value| (key, value))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(table: &mut Table<u32>, value: u32) -> Key {
        table.insert_with(|_| Ok::<_, ()>(value)).unwrap().unwrap()
    }

    #[test]
    fn a_late_key_finds_nothing() {
        let mut table = Table::default();
        let first = insert(&mut table, 1);
        let second = insert(&mut table, 2);
        assert_eq!(table.len(), 2);
        assert_eq!(table.remove(first), Some(1));
        let third = insert(&mut table, 3);
        assert_eq!(third.index(), first.index(), "the place is used again");
        assert_ne!(third, first);
        assert_eq!(table.get_mut(first), None);
        assert_eq!(table.remove(first), None);
        assert_eq!(table.get_mut(third), Some(&mut 3));
        assert_eq!(table.get_mut(second), Some(&mut 2));
        assert_eq!(Key::from_token(third.to_token()), Some(third));
        assert_eq!(table.iter_mut().count(), 2);
    }

    #[test]
    fn a_failed_insertion_takes_no_place() {
        let mut table: Table<u32> = Table::default();
        assert_eq!(table.insert_with(|_| Err("no")), Some(Err("no")));
        assert_eq!(table.len(), 0);
        insert(&mut table, 1);
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn the_table_is_full_before_the_reserved_keys() {
        let mut table = Table::default();
        for value in 0..Key::FIRST_RESERVED {
            insert(&mut table, value);
        }
        assert!(table.insert_with(|_| Ok::<_, ()>(0)).is_none());
        assert_eq!(Key::from_token(Key::FIRST_RESERVED as usize), None);
    }

    #[test]
    fn rows_go_when_nobody_uses_them_and_their_keys_do_not_come_back() {
        let mut table = Table::default();
        for _ in 0..3 {
            let keys: Vec<Key> = (0..20 * ROW as u32)
                .map(|value| insert(&mut table, value))
                .collect();
            assert_eq!(table.len(), 20 * ROW);
            assert_eq!(table.rows.len(), 20);
            for key in &keys {
                assert!(table.remove(*key).is_some());
            }
            assert_eq!(table.len(), 0);
            assert!(table.rows.len() <= 2, "{}", table.rows.len());
            assert_eq!(table.free.len(), table.rows.len() * ROW);
            let again: Vec<Key> = (0..20 * ROW as u32)
                .map(|value| insert(&mut table, value))
                .collect();
            for key in keys {
                assert!(!again.contains(&key), "{key}");
                assert_eq!(table.get_mut(key), None);
            }
            for key in again {
                table.remove(key);
            }
        }
    }
}
