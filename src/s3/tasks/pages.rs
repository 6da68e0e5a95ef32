//! Lists objects page by page.

use std::time::SystemTime;
use std::vec;

use crate::expiry::StoredFile;
use crate::now::Now;
use crate::s3::bucket::Bucket;
use crate::s3::error::StoreFailure;
use crate::s3::listing::{PageReader, StoredObject};
use crate::s3::tasks::{RequestIds, TaskAnswer, TaskRequest};
use crate::s3::xml::InvalidXml;

/// Number of objects that are asked for at once. With the longest keys, encoded, such a page has 1.7 MB.
const PAGE: usize = 500;

/// Number of objects that are parsed, decoded or handed out at a time: some 50 us of work.
const PART: usize = 32;

/// All objects whose keys have the same beginning.
#[derive(Debug)]
pub struct Pages {
    below: String,
    token: Option<String>,
    stage: PagesStage,
    /// Number of pages so far, and the token of one of them, to find out whether a store goes around in circles.
    count: u64,
    earlier: Option<String>,
}

#[derive(Debug)]
enum PagesStage {
    Due,
    Asked(u32),
    Reading(Box<PageReader>),
    /// The objects of a page that were not handed out yet, if any; and whether it is the last page.
    HandingOut(vec::IntoIter<StoredObject>, bool),
    Done,
}

/// A part of the objects.
#[derive(Debug, Default)]
pub struct ObjectsPart {
    pub objects: Vec<StoredObject>,
    /// Objects whose keys are not UTF-8, or too long.
    pub skipped: u64,
}

impl Pages {
    /// Below the configured prefix, those whose keys go on like this.
    pub fn new(below: String) -> Pages {
        Pages {
            below,
            token: None,
            stage: PagesStage::Due,
            count: 0,
            earlier: None,
        }
    }

    /// Those of an owner; none, if no key can begin with its folder.
    pub fn of_owner(owner: &[u8]) -> Pages {
        let below = Bucket::owner_prefix(owner);
        let is_none = below.is_none();
        let mut pages = Pages::new(below.unwrap_or_default());
        if is_none {
            pages.end();
        }
        pages
    }

    /// Nothing more is wanted.
    pub fn end(&mut self) {
        self.stage = PagesStage::Done;
    }

    pub fn is_done(&self) -> bool {
        matches!(self.stage, PagesStage::Done)
    }

    /// Whether the next page is to be asked for.
    pub fn is_due(&self) -> bool {
        matches!(self.stage, PagesStage::Due)
    }

    /// Asks for the next page, unless one is outstanding.
    pub fn want(&mut self, ids: &mut RequestIds, bucket: &Bucket, now: Now) -> Option<TaskRequest> {
        if !self.is_due() {
            return None;
        }
        let id = ids.next();
        self.stage = PagesStage::Asked(id);
        let request = bucket.list(&self.below, self.token.as_deref(), PAGE, now);
        Some(TaskRequest { id, request })
    }

    /// Whether an answer with this number is for a list.
    pub fn is_asked(&self, id: u32) -> bool {
        matches!(self.stage, PagesStage::Asked(asked) if asked == id)
    }

    /// Takes the answer to a list. A failure ends all.
    pub fn answered(&mut self, answer: TaskAnswer, now: Now) -> Result<(), StoreFailure> {
        self.stage = PagesStage::Done;
        let response = answer?;
        StoreFailure::check(&response, now.wall)?;
        let reader = PageReader::new(response.body).map_err(invalid)?;
        self.stage = PagesStage::Reading(Box::new(reader));
        Ok(())
    }

    /// Whether there is something to do without an answer.
    pub fn has_work(&self) -> bool {
        matches!(
            self.stage,
            PagesStage::Reading(_) | PagesStage::HandingOut(..)
        )
    }

    /// Does some of this work, and hands out a part of the objects if that was the work. Objects are handed out when the
    /// whole of their page was read. A failure ends all.
    pub fn go_on(&mut self) -> Result<ObjectsPart, StoreFailure> {
        match std::mem::replace(&mut self.stage, PagesStage::Done) {
            PagesStage::Reading(mut reader) => {
                if !reader.go_on(PART).map_err(invalid)? {
                    self.stage = PagesStage::Reading(reader);
                    return Ok(ObjectsPart::default());
                }
                let page = reader.finish(self.token.as_deref()).map_err(invalid)?;
                self.turn_page(&page.next)?;
                let objects = page.objects.into_iter();
                self.stage = PagesStage::HandingOut(objects, page.next.is_none());
                Ok(ObjectsPart {
                    objects: Vec::new(),
                    skipped: page.skipped,
                })
            }
            PagesStage::HandingOut(mut rest, is_last) => {
                let objects = rest.by_ref().take(PART).collect();
                self.stage = match rest.len() {
                    0 if is_last => PagesStage::Done,
                    0 => PagesStage::Due,
                    _ => PagesStage::HandingOut(rest, is_last),
                };
                let skipped = 0;
                Ok(ObjectsPart { objects, skipped })
            }
            other => {
                self.stage = other;
                Ok(ObjectsPart::default())
            }
        }
    }

    /// Keeps the token of the next page.
    fn turn_page(&mut self, next: &Option<String>) -> Result<(), StoreFailure> {
        self.token.clone_from(next);
        self.count += 1;
        if self.token.is_some() && self.token == self.earlier {
            return Err(invalid(InvalidXml("the list repeats its pages")));
        }
        // The longest circle is found when the distance of these pages is as long.
        if self.count.is_power_of_two() {
            self.earlier.clone_from(&self.token);
        }
        Ok(())
    }
}

fn invalid(InvalidXml(why): InvalidXml) -> StoreFailure {
    StoreFailure::malformed(200, why)
}

/// The file of an object; `None` if it is none of upslot's. A time in the future counts from now.
pub fn file_of(object: &StoredObject, bucket: &Bucket, now: SystemTime) -> Option<StoredFile> {
    Some(StoredFile {
        path: bucket.path_of(&object.key)?,
        modified: object.modified.min(now),
        size: object.size,
    })
}
