//! Lists objects page by page.

use std::time::SystemTime;

use crate::expiry::StoredFile;
use crate::now::Now;
use crate::s3::bucket::Bucket;
use crate::s3::error::StoreFailure;
use crate::s3::listing::{ObjectPage, StoredObject};
use crate::s3::tasks::{RequestIds, TaskAnswer, TaskRequest};

/// Number of objects that are asked for at once. With the longest keys, encoded, such a page has 1.7 MB.
const PAGE: usize = 500;

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PagesStage {
    Due,
    Asked(u32),
    Done,
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
        self.stage == PagesStage::Done
    }

    /// Asks for the next page, unless one is outstanding.
    pub fn want(&mut self, ids: &mut RequestIds, bucket: &Bucket, now: Now) -> Option<TaskRequest> {
        if self.stage != PagesStage::Due {
            return None;
        }
        let id = ids.next();
        self.stage = PagesStage::Asked(id);
        let request = bucket.list(&self.below, self.token.as_deref(), PAGE, now);
        Some(TaskRequest { id, request })
    }

    /// Takes an answer: `None` if it is not for a list, else the page.
    pub fn answered(
        &mut self,
        id: u32,
        answer: &TaskAnswer<'_>,
        now: Now,
    ) -> Option<Result<ObjectPage, StoreFailure>> {
        if self.stage != PagesStage::Asked(id) {
            return None;
        }
        let page = self.parse(answer, now);
        self.stage = match &page {
            Ok(page) if page.next.is_some() => PagesStage::Due,
            _ => PagesStage::Done,
        };
        Some(page)
    }

    fn parse(&mut self, answer: &TaskAnswer<'_>, now: Now) -> Result<ObjectPage, StoreFailure> {
        let page = ObjectPage::of(answer.clone(), self.token.as_deref(), now)?;
        self.token.clone_from(&page.next);
        self.count += 1;
        if self.token.is_some() && self.token == self.earlier {
            let why = "the list repeats its pages";
            return Err(StoreFailure::malformed(200, why));
        }
        // The longest circle is found when the distance of these pages is as long.
        if self.count.is_power_of_two() {
            self.earlier.clone_from(&self.token);
        }
        Ok(page)
    }
}

/// The file of an object; `None` if it is none of upslot's. A time in the future counts from now.
pub fn file_of(object: &StoredObject, bucket: &Bucket, now: SystemTime) -> Option<StoredFile> {
    Some(StoredFile {
        path: bucket.path_of(&object.key)?,
        modified: object.modified.min(now),
        size: object.size,
    })
}
