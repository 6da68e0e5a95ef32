//! The local API: slots for other programs, health, metrics.
//!
//! It has its own listener: nothing of it can be reached through the public listener, and the reverse.

use std::net::IpAddr;

use crate::http::api::{self, ApiRefusal, ApiRoute, Reply, SlotQuery};
use crate::http::head::{Expect, RequestHead};
use crate::layout;
use crate::now::Now;
use crate::reactor::client::{Activity, Client, StepResult};
use crate::reactor::listener::Peer;
use crate::reactor::shared::Shared;
use crate::reactor::waiting::{Attempt, Waiter};
use crate::refusal::Refusal;
use crate::service::PutRefusal;

/// A request to the slot API that waits for the owner's usage.
#[derive(Debug)]
pub(super) struct WaitingSlot {
    asked: SlotQuery,
    pub(super) attempt: Attempt,
}

impl Client {
    /// Acts on a request to the local API.
    pub(super) fn decide_api(&mut self, shared: &mut Shared, now: Now) -> StepResult {
        let Some(Ok(request)) = self.exchange.request() else {
            return StepResult::Moved;
        };
        // The address of the socket counts, never one that a proxy reports.
        let peer: Option<IpAddr> = match self.address.peer() {
            Peer::Tcp(address) => Some(address.ip()),
            Peer::Unix => None,
        };
        if request.expect() == Expect::Other {
            self.refuse(&PutRefusal::Expectation, shared, now);
            return StepResult::Moved;
        }
        let query = request.query().unwrap_or_default();
        let reply = match route(request, peer, shared) {
            Ok(ApiRoute::Slot) => match api::slot_request(query) {
                Ok(asked) => {
                    let attempt = Attempt::default();
                    return self.answer_slot_request(WaitingSlot { asked, attempt }, shared, now);
                }
                Err(refusal) => malformed(&refusal),
            },
            Ok(ApiRoute::MaxSize) => max_size(query, shared, now),
            Ok(ApiRoute::Health) => Reply::health(shared.health(now)),
            Ok(ApiRoute::Metrics) => Reply::metrics(shared.expose(now)),
            Ok(ApiRoute::Unknown) => Reply::not_found(),
            Err(reply) => {
                shared.status.metrics.request_refused("api", reply.status);
                log::info!(
                    "api refused status={} why={:?} from={}",
                    reply.status,
                    reply.body,
                    self.address.peer()
                );
                reply
            }
        };
        self.reply(reply, shared, now)
    }

    fn reply(&mut self, reply: Reply, shared: &Shared, now: Now) -> StepResult {
        self.exchange.answer(shared.service.local(reply), now.mono);
        StepResult::Moved
    }

    /// Answers a slot request, or lets it wait for the owner's usage.
    pub(super) fn answer_slot_request(
        &mut self,
        waiting: WaitingSlot,
        shared: &mut Shared,
        now: Now,
    ) -> StepResult {
        let asked = &waiting.asked;
        let request = &asked.request;
        let checked = match shared.check_slot(request, waiting.attempt, now) {
            Ok(Some(approved)) => Ok(approved),
            Ok(None) => {
                let owner = layout::owner_folder(&request.owner);
                let waiter = Waiter::Connection(self.key);
                let waiters = &mut shared.admission.waiting;
                if waiters.push(owner.as_bytes(), waiter).is_ok() {
                    self.activity = Activity::WaitingForSlot(Box::new(waiting));
                    return StepResult::Blocked;
                }
                Err(Refusal::Busy)
            }
            Err(refusal) => Err(refusal),
        };
        let granted = checked.and_then(|approved| match &asked.output {
            Ok(output) => {
                let slot = shared.issue_slot(request, &approved, now)?;
                Ok(Reply::granted(&slot, *output))
            }
            Err(refusal) => Ok(malformed(refusal)),
        });
        let reply = granted.unwrap_or_else(|refusal| {
            shared.note_refused_slot(&request.owner, &refusal, now);
            Reply::refused(&refusal)
        });
        self.reply(reply, shared, now)
    }
}

/// Checks the peer's address, the bearer token, the path and the method, in this order.
fn route(request: &RequestHead, peer: Option<IpAddr>, shared: &Shared) -> Result<ApiRoute, Reply> {
    let Some(api) = &shared.config.api else {
        return Err(Reply::not_found());
    };
    if !api.admits(peer) {
        return Err(Reply::forbidden());
    }
    let header = request.field("authorization");
    let authorised = |token: &crate::config::Secret| api::authorised(header, token.expose());
    if !api.token.as_ref().is_none_or(authorised) {
        return Err(Reply::unauthorised(header));
    }
    match api::route(&api.prefix, request.path()) {
        ApiRoute::Unknown => Err(Reply::not_found()),
        route if !route.takes(request.method()) => Err(Reply::method_not_allowed(route)),
        route => Ok(route),
    }
}

fn max_size(query: &[u8], shared: &mut Shared, now: Now) -> Reply {
    let asked = match api::max_size_request(query) {
        Ok(asked) => asked,
        Err(refusal) => return malformed(&refusal),
    };
    match (shared.service.max_size(&asked.jid), asked.output) {
        (Err(refusal), _) => {
            shared.note_refused_slot(&asked.jid, &refusal, now);
            Reply::refused(&refusal)
        }
        (Ok(_), Err(refusal)) => malformed(&refusal),
        (Ok(bytes), Ok(output)) => Reply::max_size(bytes, output),
    }
}

/// ejabberd's API answers some of these with an empty body; the log has the reason.
fn malformed(refusal: &ApiRefusal) -> Reply {
    log::info!("api refused status=400 why={:?}", refusal.to_string());
    Reply::malformed(refusal)
}
