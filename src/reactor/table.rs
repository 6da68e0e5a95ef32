//! Connections by key.
//!
//! A key is a generation and an index: generation << 16 | index, so that a late event, deadline or result for a
//! place that was used again meanwhile is told apart and ignored. Keys fit the `usize` of 32-bit hosts.

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

/// The table; owns its values.
#[derive(Debug)]
pub struct Table<T> {
    places: Vec<Place<T>>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct Place<T> {
    generation: u16,
    value: Option<T>,
}

impl<T> Default for Table<T> {
    fn default() -> Table<T> {
        Table {
            places: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Table<T> {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts a value into a free place, which `make` is told; `None` when all keys are in use.
    pub fn insert_with<E>(
        &mut self,
        make: impl FnOnce(Key) -> Result<T, E>,
    ) -> Option<Result<Key, E>> {
        let index = match self.free.last() {
            Some(index) => *index,
            None if self.places.len() < Key::FIRST_RESERVED as usize => {
                self.places.push(Place {
                    generation: 0,
                    value: None,
                });
                self.free.push(self.places.len() - 1);
                self.places.len() - 1
            }
            None => return None,
        };
        let place = &mut self.places[index];
        let key = Key::new(place.generation, index);
        Some(make(key).map(|value| {
            place.value = Some(value);
            self.free.pop();
            key
        }))
    }

    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let place = self.places.get_mut(key.index())?;
        if place.generation != key.generation() {
            return None;
        }
        place.value.as_mut()
    }

    /// Takes a value out; its key is never given out again until 65,536 more have had the place.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let place = self.places.get_mut(key.index())?;
        if place.generation != key.generation() {
            return None;
        }
        let value = place.value.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(key.index());
        Some(value)
    }

    /// All values with their keys.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut T)> {
        self.places
            .iter_mut()
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
}
