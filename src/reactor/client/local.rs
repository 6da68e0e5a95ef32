//! The part of a connection's driver that answers the local API: slots for other programs, health, metrics.
//!
//! It has a listener of its own; nothing of it can be reached through the public one, and nothing public through it.

use std::net::IpAddr;

use crate::http::api::{self, ApiRefusal, ApiRoute, Reply};
use crate::http::head::{Expect, RequestHead};
use crate::layout;
use crate::now::Now;
use crate::reactor::client::{Client, StepResult};
use crate::reactor::listener::Peer;
use crate::reactor::shared::{Shared, Waiter};
use crate::refusal::Refusal;
use crate::service::PutRefusal;

impl Client {
    /// Decides on a request to the local API.
    pub(super) fn decide_locally(&mut self, shared: &mut Shared, now: Now) -> StepResult {
        let Some(Ok(request)) = self.exchange.request() else {
            return StepResult::Moved;
        };
        // The peer's own address counts; what proxies say of others does not.
        let peer: Option<IpAddr> = match self.peer {
            Peer::Tcp(address) => Some(address.ip()),
            Peer::Unix => None,
        };
        if request.expect() == Expect::Other {
            self.refuse(&PutRefusal::Expectation, shared, now);
            return StepResult::Moved;
        }
        let reply = match admit(request, peer, shared) {
            Ok(ApiRoute::Slot) => {
                let query = request.query().unwrap_or_default().to_vec();
                match self.slot(&query, shared, now) {
                    Some(reply) => reply,
                    None => return StepResult::Blocked,
                }
            }
            Ok(ApiRoute::MaxSize) => max_size(request.query().unwrap_or_default(), shared, now),
            Ok(ApiRoute::Health) => Reply::health(shared.health(now)),
            Ok(ApiRoute::Metrics) => Reply::metrics(shared.expose(now)),
            Ok(ApiRoute::Unknown) => Reply::not_found(),
            Err(reply) => {
                shared.metrics.request_refused("api", reply.status);
                log::info!(
                    "api refused status={} why={:?} from={}",
                    reply.status,
                    reply.body,
                    self.peer
                );
                reply
            }
        };
        let answer = shared.service.local(reply);
        self.exchange.answer(answer, now.mono);
        StepResult::Moved
    }

    /// The answer to a slot request; `None` while the store is being looked at.
    fn slot(&mut self, query: &[u8], shared: &mut Shared, now: Now) -> Option<Reply> {
        let asked = match api::slot_request(query) {
            Ok(asked) => asked,
            Err(refusal) => return Some(malformed(&refusal)),
        };
        let request = &asked.request;
        let checked = match shared.check_slot(request, self.attempt, now) {
            Ok(None) => {
                let owner = layout::owner_folder(&request.owner);
                let waiter = Waiter::Put(self.key);
                if shared.waiting.push(owner.as_bytes(), waiter).is_ok() {
                    self.waits = true;
                    return None;
                }
                Err(Refusal::Busy)
            }
            Ok(Some(approved)) => Ok(approved),
            Err(refusal) => Err(refusal),
        };
        self.attempt = Default::default();
        let granted = checked.and_then(|approved| match asked.output {
            Ok(output) => {
                let slot = shared.issue_slot(request, &approved, now)?;
                Ok(Reply::granted(&slot, output))
            }
            Err(refusal) => Ok(malformed(&refusal)),
        });
        Some(granted.unwrap_or_else(|refusal| {
            shared.note_refused_slot(&request.owner, &refusal, now);
            Reply::refused(&refusal)
        }))
    }
}

/// Who may ask, for what, and how: the peer's address, the bearer token, the path, the method, in this order.
fn admit(request: &RequestHead, peer: Option<IpAddr>, shared: &Shared) -> Result<ApiRoute, Reply> {
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
        endpoint if !endpoint.takes(request.method()) => Err(Reply::method_not_allowed(endpoint)),
        endpoint => Ok(endpoint),
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

/// The original answers some of these with an empty body; the log says why all the same.
fn malformed(refusal: &ApiRefusal) -> Reply {
    log::info!("api refused status=400 why={:?}", refusal.to_string());
    Reply::malformed(refusal)
}
