//! The object store that holds the files instead of a folder: the connections to it, and what is known of its objects.

use std::sync::Arc;
use std::time::Instant;

use mio::Waker;

use crate::now::Now;
use crate::reactor::bucket_tasks::BucketTasks;
use crate::reactor::conditional_puts::ConditionalPuts;
use crate::reactor::note_lists::NoteLists;
use crate::reactor::object_facts::ObjectFacts;
use crate::reactor::path_claims::PathClaims;
use crate::reactor::revocations::Revocations;
use crate::reactor::upstream::{Upstream, UpstreamTarget};

/// The object store. The bucket itself, with its keys and signatures, belongs to [`crate::service::Service`], because it
/// follows the configuration.
#[derive(Debug)]
pub struct BucketStore {
    pub upstream: Upstream,
    /// Of objects that were requested a short time ago.
    pub facts: ObjectFacts,
    pub tasks: BucketTasks,
    /// The uploads in progress.
    pub claims: PathClaims,
    pub revocations: Revocations,
    pub notes: NoteLists,
    pub conditional: ConditionalPuts,
}

impl BucketStore {
    /// Nothing is connected yet. `waker` wakes the loop when the name of the store is resolved.
    pub fn new(target: UpstreamTarget, waker: Arc<Waker>, now: Now) -> BucketStore {
        BucketStore {
            upstream: Upstream::new(target, waker, now),
            facts: ObjectFacts::default(),
            tasks: BucketTasks::default(),
            claims: PathClaims::default(),
            revocations: Revocations::default(),
            notes: NoteLists::default(),
            conditional: ConditionalPuts::default(),
        }
    }

    /// Changes how the store is reached; see [`Upstream::set_target`].
    pub fn set_target(&mut self, target: UpstreamTarget, now: Now) {
        self.upstream.set_target(target, now);
        self.conditional = ConditionalPuts::default();
    }

    /// Whether the loop must continue with work on the store at once.
    pub fn has_work(&self) -> bool {
        self.upstream.has_work() || self.tasks.has_work() || self.notes.is_due()
    }

    /// When the loop must continue with work on the store.
    pub fn deadline(&self) -> Option<Instant> {
        let deadlines = [
            self.upstream.deadline(),
            self.tasks.deadline(),
            self.revocations.deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }
}
