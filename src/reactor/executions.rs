//! The commands in progress: sessions that wait for their users, and requests that wait for the store.

use crate::now::Now;
use crate::service::commands::{Outcome, Task};
use crate::service::sessions::{Number, Sessions};
use crate::store::jobs::Jobs;
use crate::xmpp::adhoc::CommandIq;
use crate::xmpp::element::Element;

/// The commands in progress.
#[derive(Debug)]
pub struct Executions {
    pub sessions: Sessions,
    pub jobs: Jobs<Request>,
}

/// A request whose job is in progress.
#[derive(Debug)]
pub struct Request {
    pub iq: Box<CommandIq>,
    pub number: Number,
    pub task: Task,
}

impl Executions {
    /// No commands; their sessions will be signed with this secret.
    pub fn new(secret: &[u8]) -> Executions {
        Executions {
            sessions: Sessions::new(secret),
            jobs: Jobs::default(),
        }
    }

    /// The ID of the session of a request.
    pub fn id(&self, iq: &CommandIq, number: Number) -> String {
        self.sessions.id(&iq.owner, &iq.node, number)
    }

    /// The reply to a request, and the state of its session from now on.
    pub fn conclude(
        &mut self,
        iq: CommandIq,
        number: Number,
        outcome: Outcome,
        now: Now,
    ) -> Element {
        let id = self.id(&iq, number);
        match outcome {
            Outcome::Ask(stage, notes, form) => {
                let actions = stage.actions();
                self.sessions.set(&iq.owner, number, stage, now.mono);
                iq.executing(&id, actions, &notes, form)
            }
            Outcome::Done(notes, form) => {
                self.sessions.end(number);
                iq.completed(&id, &notes, form)
            }
            Outcome::Failed(error) => iq.failed(&error),
        }
    }
}
