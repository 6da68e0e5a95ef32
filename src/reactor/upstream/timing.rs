//! The deadlines of requests and connections.

use std::collections::BTreeSet;
use std::time::Instant;

use mio::Registry;

use crate::now::Now;
use crate::reactor::upstream::call::{CallId, CallState};
use crate::reactor::upstream::connection::Stage;
use crate::reactor::upstream::{Timed, Upstream};
use crate::s3::error::StoreFailure;

impl Upstream {
    pub(super) fn arm_call(&mut self, id: CallId, now: Instant) {
        if let Some(call) = self.calls.get(id) {
            let deadline = call.deadline(now);
            let timed = Timed::Call(id);
            arm(&mut self.deadlines, timed, &mut call.armed, deadline);
        }
    }

    pub(super) fn arm_connection(&mut self, token: usize) {
        if let Some(connection) = self.pool.get(token) {
            let deadline = connection.deadline();
            let timed = Timed::Connection(token);
            arm(&mut self.deadlines, timed, &mut connection.armed, deadline);
        }
    }

    /// Handles all deadlines that are due.
    pub(super) fn pass_deadlines(&mut self, registry: &Registry, now: Now) {
        while let Some((_, timed)) = self.deadlines.first().filter(|(at, _)| *at <= now.mono) {
            let timed = *timed;
            self.deadlines.pop_first();
            match timed {
                Timed::Call(id) => self.check_call(id, now),
                Timed::Connection(token) => self.check_connection(token, registry, now),
            }
        }
    }

    fn check_connection(&mut self, token: usize, registry: &Registry, now: Now) {
        let Some(connection) = self.pool.get(token) else {
            return;
        };
        connection.armed = None;
        let is_due = connection.deadline().is_some_and(|at| at <= now.mono);
        match connection.stage {
            Stage::Idle { .. } if is_due => self.close(token),
            _ if is_due => self.work(token, registry, now),
            _ => self.arm_connection(token),
        }
    }

    fn check_call(&mut self, id: CallId, now: Now) {
        let Some(call) = self.calls.get(id) else {
            return;
        };
        call.armed = None;
        if call.deadline(now.mono).is_none_or(|at| at > now.mono) {
            return self.arm_call(id, now.mono);
        }
        if call.until().is_some_and(|until| until <= now.mono) {
            return self.out_of_time(id);
        }
        if self.calls.becomes_slow(id, now.mono) {
            self.must_assign = true;
            return self.arm_call(id, now.mono);
        }
        let Some(call) = self.calls.get(id) else {
            return;
        };
        match call.state {
            CallState::Resting { .. } => {
                self.calls.wait(id);
                self.must_assign = true;
            }
            CallState::Placed(token) => match call.exchange.deadline_passed() {
                Ok(()) => self.pool.enqueue(token),
                Err(failure) => {
                    // On a new connection it would take as long again.
                    if let Some(connection) = self.pool.get(token) {
                        connection.is_reused = false;
                    }
                    return self.call_failed(id, failure, now);
                }
            },
            CallState::Waiting | CallState::Failed(_) => {}
        }
        self.arm_call(id, now.mono);
    }

    /// The time of a small request is over.
    fn out_of_time(&mut self, id: CallId) {
        if let Some(token) = self.calls.displace(id) {
            self.close(token);
        }
        let failure = StoreFailure::unreachable("the store did not answer in time");
        self.report.became_unreachable(&failure.message);
        self.finish_with(id, failure);
    }
}

/// Checks a deadline at that time at the latest.
fn arm(
    deadlines: &mut BTreeSet<(Instant, Timed)>,
    timed: Timed,
    armed: &mut Option<Instant>,
    deadline: Option<Instant>,
) {
    let Some(deadline) = deadline else {
        return;
    };
    if let Some(at) = *armed {
        if at <= deadline {
            return;
        }
        deadlines.remove(&(at, timed));
    }
    *armed = Some(deadline);
    deadlines.insert((deadline, timed));
}
