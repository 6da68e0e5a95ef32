//! Which uploads to an object store may end: of several to the same path, one at a time, and none after one that was stored.
//!
//! Not every store honours `If-None-Match`, so the first upload that has its whole body claims the path. A claim lasts until
//! that upload has failed, or until no upload to the path is left that began before it was stored; those that begin later
//! find the object.

use std::collections::HashMap;

use crate::layout::StorePath;

/// The paths of all uploads in progress.
#[derive(Debug, Default)]
pub struct PathClaims(HashMap<StorePath, PathUploads>);

#[derive(Debug, Default)]
struct PathUploads {
    count: usize,
    is_claimed: bool,
}

impl PathClaims {
    /// An upload begins.
    pub fn begin(&mut self, path: &StorePath) {
        self.0.entry(path.clone()).or_default().count += 1;
    }

    /// Claims the path for an upload in progress; false if another one has it.
    pub fn claim(&mut self, path: &StorePath) -> bool {
        let uploads = self.0.get_mut(path);
        uploads.is_some_and(|uploads| !std::mem::replace(&mut uploads.is_claimed, true))
    }

    /// The upload that claimed the path was not stored.
    pub fn release(&mut self, path: &StorePath) {
        if let Some(uploads) = self.0.get_mut(path) {
            uploads.is_claimed = false;
        }
    }

    /// An upload has ended.
    pub fn end(&mut self, path: &StorePath) {
        if let Some(uploads) = self.0.get_mut(path) {
            uploads.count -= 1;
            if uploads.count == 0 {
                self.0.remove(path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> StorePath {
        StorePath::from_segments([b"owner", name.as_bytes()].into_iter()).unwrap()
    }

    #[test]
    fn one_upload_at_a_time_may_end() {
        let mut claims = PathClaims::default();
        let (a, b) = (path("a"), path("b"));
        assert!(!claims.claim(&a));
        for path in [&a, &a, &a, &b] {
            claims.begin(path);
        }
        assert!(claims.claim(&a) && !claims.claim(&a) && claims.claim(&b));
        // The first failed, and the second is stored.
        claims.release(&a);
        claims.end(&a);
        assert!(claims.claim(&a));
        claims.end(&a);
        // The third began before that.
        assert!(!claims.claim(&a));
        claims.end(&a);
        claims.end(&b);
        assert!(claims.0.is_empty());
        claims.begin(&a);
        assert!(claims.claim(&a));
    }
}
