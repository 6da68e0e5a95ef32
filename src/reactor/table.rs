//! The table of connections, indexed by key.
//!
//! A key combines a generation and an index, as generation << 16 | index, so that a late event, deadline or result for
//! a cell that has been reused is recognised and ignored. Keys fit the `usize` of 32-bit hosts.
//!
//! Cells are allocated in rows, so that the table grows without copying, wastes little memory, and releases memory when
//! a load peak is over.

/// Identifies a connection: the index of its cell and the cell's generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(u32);

impl Key {
    /// The first index that is reserved for the loop's own event sources.
    pub const FIRST_RESERVED: u32 = 0xff00;

    /// The key in a poll token; `None` for the loop's own event sources.
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

/// Number of cells in a row.
const ROW: usize = 64;

/// The table, which owns its values.
#[derive(Debug)]
pub struct Table<T> {
    rows: Vec<Row<T>>,
    /// Indices of free cells; the most recently used one is last and is reused first.
    free: Vec<u16>,
    /// The initial generation of new cells, later than those of all dropped rows.
    generation: u16,
}

#[derive(Debug)]
struct Row<T> {
    cells: Box<[Cell<T>]>,
    used: usize,
}

#[derive(Debug)]
struct Cell<T> {
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

    /// Inserts the value that `make` returns for its new key; `None` if all keys are in use.
    pub fn insert_with<E>(
        &mut self,
        make: impl FnOnce(Key) -> Result<T, E>,
    ) -> Option<Result<Key, E>> {
        if self.free.is_empty() {
            self.add_row()?;
        }
        let index = usize::from(*self.free.last()?);
        let row = self.rows.get_mut(index / ROW)?;
        let cell = row.cells.get_mut(index % ROW)?;
        let key = Key::new(cell.generation, index);
        Some(make(key).map(|value| {
            cell.value = Some(value);
            row.used += 1;
            self.free.pop();
            key
        }))
    }

    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let row = self.rows.get_mut(key.index() / ROW)?;
        let cell = row.cells.get_mut(key.index() % ROW)?;
        if cell.generation != key.generation() {
            return None;
        }
        cell.value.as_mut()
    }

    /// Removes a value. Its key is not reused before tens of thousands of other values have used the cell.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let row = self.rows.get_mut(key.index() / ROW)?;
        let cell = row.cells.get_mut(key.index() % ROW)?;
        if cell.generation != key.generation() {
            return None;
        }
        let value = cell.value.take()?;
        cell.generation = cell.generation.wrapping_add(1);
        row.used -= 1;
        self.free.push(key.index() as u16);
        self.drop_rows();
        Some(value)
    }

    /// Adds a row of free cells; `None` if all keys are in use.
    fn add_row(&mut self) -> Option<()> {
        let first = self.rows.len() * ROW;
        if first + ROW > Key::FIRST_RESERVED as usize {
            return None;
        }
        let cell = || Cell {
            generation: self.generation,
            value: None,
        };
        self.rows.push(Row {
            cells: std::iter::repeat_with(cell).take(ROW).collect(),
            used: 0,
        });
        self.free
            .extend((first..first + ROW).rev().map(|index| index as u16));
        Some(())
    }

    /// Drops unused rows at the end, except for the first row and one spare row.
    fn drop_rows(&mut self) {
        while let [_, .., before, last] = &self.rows[..] {
            if before.used + last.used > 0 {
                return;
            }
            for cell in &last.cells {
                // Generations wrap around; the later of two is the one at the shorter distance.
                if cell.generation.wrapping_sub(self.generation) < 0x8000 {
                    self.generation = cell.generation;
                }
            }
            self.rows.pop();
            let cells = self.rows.len() * ROW;
            self.free.retain(|index| usize::from(*index) < cells);
        }
    }

    /// All values with their keys.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut T)> {
        self.rows
            .iter_mut()
            .flat_map(|row| row.cells.iter_mut())
            .enumerate()
            .filter_map(|(index, cell)| {
                let key = Key::new(cell.generation, index);
                cell.value.as_mut().map(|value| (key, value))
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
    fn a_stale_key_finds_nothing() {
        let mut table = Table::default();
        let first = insert(&mut table, 1);
        let second = insert(&mut table, 2);
        assert_eq!(table.len(), 2);
        assert_eq!(table.remove(first), Some(1));
        let third = insert(&mut table, 3);
        assert_eq!(third.index(), first.index(), "the cell is reused");
        assert_ne!(third, first);
        assert_eq!(table.get_mut(first), None);
        assert_eq!(table.remove(first), None);
        assert_eq!(table.get_mut(third), Some(&mut 3));
        assert_eq!(table.get_mut(second), Some(&mut 2));
        assert_eq!(Key::from_token(third.to_token()), Some(third));
        assert_eq!(table.iter_mut().count(), 2);
    }

    #[test]
    fn a_failed_insertion_uses_no_cell() {
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
    fn unused_rows_are_dropped_and_their_keys_are_not_reused() {
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
