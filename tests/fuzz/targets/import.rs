//! Records of other programs, which `upslot import` reads: lists of Prosody and Metronome, rows of Django, and paths.

use upslot::import::lua::{Item, Items, MAX_ITEM, Table};
use upslot::import::record::{FileOwner, Reason, Record};
use upslot::layout::{StorePath, Tag};
use upslot::purpose::Purpose;
use upslot::slot::name;

use super::{Choices, expand, reference, split};

/// Longest input that is read in pieces, in bytes.
const LONGEST: usize = MAX_ITEM / 16;

pub fn run(data: &[u8]) {
    let mut choices = Choices(data);
    let seed = choices.number();
    let bytes = expand(choices.rest());
    let whole = tables(&[&bytes]);
    // An unfinished item is read again with each piece, and the length at which that is given up depends on the pieces.
    if bytes.len() < LONGEST {
        assert_eq!(tables(&split(&bytes, seed)), whole);
    }
    for table in &whole {
        check(Record::of_file_share(table));
        check(Record::of_http_upload("romeo@montague.tld", table));
    }
    for line in bytes.split(|b| *b == b'\n') {
        if let Some(record) = Record::of_django(line) {
            check(record);
        }
        check(Record::of_docroot(line));
        check(Record::of_plain(line));
        check(Record::of_unlisted(line));
        let content_type = std::str::from_utf8(line).ok();
        check(Record::of_hashed(line, content_type));
        check(Record::of_hashed(
            format!("store-{}", "0a".repeat(32)).as_bytes(),
            content_type,
        ));
    }
}

fn tables(pieces: &[&[u8]]) -> Vec<Table> {
    let mut items = Items::default();
    let mut tables = Vec::new();
    let mut take = |items: &mut Items| {
        while let Some(item) = items.next_item() {
            if let Item::Table(table) = item {
                tables.push(table);
            }
        }
    };
    for piece in pieces {
        items.feed(piece);
        take(&mut items);
    }
    items.end();
    take(&mut items);
    assert!(items.is_at_end());
    tables
}

/// The file is below the folder of the import, and can be stored.
fn check(record: Result<Record, Reason>) {
    let Ok(record) = record else {
        return;
    };
    assert_eq!(name::clean(&record.name), record.name);
    let segments = record.file.split(|b| *b == b'/');
    for segment in segments {
        assert!(!matches!(segment, b"" | b"." | b".."), "{record:?}");
    }
    if let FileOwner::Folder(folder) = &record.owner {
        assert_eq!(folder.len(), 27);
        let tag = Tag::from(Purpose::Message);
        let path = StorePath::in_owner_folder(folder, tag, &record.link, &record.name);
        reference::assert_inside_storage(&path.unwrap());
    }
}
