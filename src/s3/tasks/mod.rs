//! Work that needs many requests to the store: to count or to search an owner's files, to delete some, to sum up all
//! owners, to trim, to sweep.
//!
//! - [`aliases`] finds aliases without files;
//! - [`pages`] lists objects page by page;
//! - [`removals`] deletes objects, a few at a time;
//! - [`sought`] looks for certain files in a list;
//! - [`work`] the jobs of users and operators; counting an owner is a search that selects nothing;
//! - [`trim`] an owner's oldest files;
//! - [`sweep`] all files: those that have expired, and what is left of soft quotas.
//!
//! A task says which request it wants next, as long as it wants one, and takes the answers in any order. It has one list
//! and at most [`MAX_REMOVALS`] other requests outstanding. It holds one page of objects at a time, so that its memory does
//! not grow with the number of objects, and works through it in small steps, so that nothing else waits for long. Its driver retries what may succeed later; for a task, a failure is final:
//! if it concerns one object, the others still get their turn, and if it concerns the store, the task ends with it.

pub mod aliases;
pub mod pages;
pub mod removals;
pub mod sought;
pub mod sweep;
pub mod trim;
pub mod work;

#[cfg(test)]
mod tests;

use crate::http::client::Response;
use crate::s3::bucket::StoreRequest;
use crate::s3::error::{FailureKind, StoreFailure};

/// Most requests other than lists that a task has outstanding.
pub const MAX_REMOVALS: usize = 4;

/// A request that a task wants to have sent; its answer is reported with the same number.
#[derive(Debug)]
pub struct TaskRequest {
    pub id: u32,
    pub request: StoreRequest,
}

/// An answer of the store, or why there is none.
pub type TaskAnswer = Result<Response, StoreFailure>;

/// Numbers the requests of one task.
#[derive(Debug, Default)]
pub struct RequestIds(u32);

impl RequestIds {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(1);
        self.0
    }
}

/// Whether the next request will fail for the same reason.
fn concerns_all(failure: &StoreFailure) -> bool {
    failure.is_retryable()
        || matches!(
            failure.kind,
            FailureKind::BadSignature
                | FailureKind::UnknownAccessKey
                | FailureKind::NoBucket
                | FailureKind::Skewed
                | FailureKind::WrongRegion(_)
        )
}
