//! Users' commands over XMPP (XEP-0050): answers requests, and runs the searches and deletions in the store for them.
//!
//! ```text
//!   request ─▶ decision ─┬─ no store needed ───────────────────▶ reply
//!                        └─▶ job ─ slice after slice ─▶ outcome ─▶ reply
//! ```
//!
//! [`crate::service::commands`] decides, [`crate::store::jobs`] works. A command costs the other users nothing but its
//! slice of each turn.

use crate::jid::BareJid;
use crate::layout;
use crate::listing::Listing;
use crate::now::Now;
use crate::policy::Usage;
use crate::policy::rates::{Rates, WindowUsage};
use crate::reactor::component::Link;
use crate::reactor::executions::{Executions, Request};
use crate::reactor::shared::Shared;
use crate::reactor::sync_token::SyncToken;
use crate::reactor::{Reactor, Xmpp, random};
use crate::service::commands::{self, MAX_OWNERS, Next, Outcome, Search, Step, Task};
use crate::service::explain::{self, StoredUsage};
use crate::service::sessions::Number;
use crate::slot::SlotRequest;
use crate::store::jobs::{Finished, Found, ToSync, Work};
use crate::store::walk::Slice;
use crate::syncer;
use crate::sys;
use crate::xmpp::adhoc::{COMMANDS, CommandError, CommandIq, NodeIq};

impl Reactor {
    /// Answers a service discovery request to a node.
    pub(super) fn answer_node(&mut self, iq: NodeIq) {
        let (service, storage) = (&self.shared.service, &self.shared.storage);
        let folder = layout::owner_folder(&iq.owner);
        let has_files = || storage.has_owner(&folder);
        let Some(link) = &mut self.xmpp.link else {
            return;
        };
        let reply = match &*iq.node {
            COMMANDS => {
                let commands = service.commands(&iq.owner, has_files);
                iq.list(link.jid(), &commands)
            }
            node => match service.command(node, &iq.owner, has_files) {
                Ok(command) => iq.command(command.listed()),
                Err(error) => iq.failed(&error),
            },
        };
        link.send(&reply);
    }

    /// Answers a request to execute a command, or begins the job that it needs.
    pub(super) fn answer_command(&mut self, mut iq: Box<CommandIq>, now: Now) {
        match self.begin_command(&mut iq, now) {
            Ok(Step { number, next }) => self.follow(iq, number, next, now),
            Err(error) => {
                log::debug!("command refused from={} why={error:?}", iq.owner);
                self.reply(&iq.failed(&error));
            }
        }
    }

    fn begin_command(&self, iq: &mut CommandIq, now: Now) -> Result<Step, CommandError> {
        let (service, storage) = (&self.shared.service, &self.shared.storage);
        let folder = layout::owner_folder(&iq.owner);
        let command = service.command(&iq.node, &iq.owner, || storage.has_owner(&folder))?;
        let new = random::bytes().ok_or(CommandError::Busy)?;
        let Executions { sessions, jobs } = &self.xmpp.executions;
        let step = service.step(command, iq, sessions, new, now.mono)?;
        match step.next {
            Next::Work(_) if !jobs.has_room(&folder) => Err(CommandError::Busy),
            _ => Ok(step),
        }
    }

    fn follow(&mut self, mut iq: Box<CommandIq>, number: Number, next: Next, now: Now) {
        let executions = &mut self.xmpp.executions;
        let reply = match next {
            Next::Cancel => {
                executions.sessions.end(number);
                let id = executions.id(&iq, number);
                iq.canceled(&id)
            }
            Next::Ask(stage) => {
                let form = commands::form_of(&stage);
                executions.conclude(*iq, number, Outcome::Ask(stage, Vec::new(), form), now)
            }
            Next::Work(task) => {
                if task.completes() {
                    executions.sessions.end(number);
                }
                iq.take_form();
                let folder = task.folder(&iq.owner).into_bytes();
                if matches!(task, Task::DeleteOwner(_)) {
                    self.shared.revoke_slots(&folder, now);
                }
                let work = match task.search() {
                    Search::Files(selection) => Work::Search {
                        owner: folder,
                        selection,
                        since: self.shared.service.recent_since(now),
                    },
                    Search::Delete(files) => Work::Delete {
                        owner: folder,
                        files,
                    },
                    Search::Owners => Work::Sum {
                        largest: MAX_OWNERS,
                    },
                };
                let user = layout::owner_folder(&iq.owner);
                let request = Request { iq, number, task };
                return executions.jobs.push(&user, work, request);
            }
        };
        self.reply(&reply);
    }

    /// Whether there is work on jobs now. While the server does not read, there is none: replies are large.
    pub(super) fn is_searching(&self) -> bool {
        let Xmpp {
            link, executions, ..
        } = &self.xmpp;
        self.shared.storage.folder().is_some()
            && executions.jobs.has_work()
            && !link.as_ref().is_some_and(Link::is_congested)
    }

    /// Works on jobs for one slice, and answers the requests whose jobs are done.
    pub(super) fn work_on_commands(&mut self, now: Now) {
        let is_searching = self.is_searching();
        let Shared {
            config,
            storage,
            admission,
            syncer,
            ..
        } = &mut self.shared;
        let Some(store) = storage.folder_mut() else {
            return;
        };
        let jobs = &mut self.xmpp.executions.jobs;
        let mut done = Vec::new();
        if is_searching {
            let mut slice = Slice::begin(sys::monotonic);
            let usage = &mut admission.usage;
            while let Some(finished) = jobs.go_on(config.fsync, store, usage, &mut slice, now) {
                done.push(finished);
            }
        }
        while let Some((number, needed)) = jobs.to_sync(store) {
            let token = SyncToken::Job(number);
            match needed {
                Ok(ToSync::Folders(folders)) => {
                    syncer.submit(token, syncer::Work::Folders(folders));
                }
                Ok(ToSync::FileSystem(root)) => {
                    syncer.submit(token, syncer::Work::FileSystem(root));
                }
                Err(error) => jobs.synced(number, Err(error)),
            }
        }
        for finished in done {
            self.finish_command(finished, now);
        }
    }

    pub(super) fn finish_command(&mut self, finished: Finished<Request>, now: Now) {
        let Finished {
            request: Request { iq, number, task },
            found,
            error,
        } = finished;
        let shared = &mut self.shared;
        match &error {
            Some(error) if sys::is_store_error(error) => {
                shared.store_failed("command", error, 0, now);
            }
            // One user's files, such as those that belong to another user of the system.
            Some(error) => log::error!(
                "command failed owner={} by={} why={:?}",
                owner_of(&task, &iq.owner),
                iq.owner,
                error.to_string()
            ),
            None => {}
        }
        let outcome = match (found, &task) {
            (Found::Deleted { files, bytes }, _) => {
                if files > 0 || error.is_some() {
                    log::info!(
                        "uploads deleted owner={} by={} files={files} bytes={bytes} complete={}",
                        owner_of(&task, &iq.owner),
                        iq.owner,
                        error.is_none()
                    );
                }
                commands::deleted(files, bytes, error.is_none())
            }
            _ if error.is_some() => Outcome::Failed(CommandError::Failed),
            (Found::Files(listing), Task::Explain(request)) => {
                shared.explain_slot(request, listing, now)
            }
            (Found::Files(listing), task) => {
                let windows = shared.windows_of(&iq.owner, &listing, now);
                shared.service.found(task, &iq.owner, &listing, &windows)
            }
            (Found::Owners(totals), _) => {
                commands::usage(&totals, shared.storage.free_space(now.mono))
            }
        };
        let reply = self.xmpp.executions.conclude(*iq, number, outcome, now);
        self.reply(&reply);
        // Writes the reply.
        self.xmpp.has_work = true;
    }
}

/// The owner of the files that a task deletes, for the log.
fn owner_of(task: &Task, user: &BareJid) -> String {
    match task {
        Task::DeleteOwner(owner) => owner.to_string(),
        _ => user.to_string(),
    }
}

impl Shared {
    /// How much of the user's rates is used; of a user who has issued no slot yet, by the files.
    fn windows_of(&mut self, user: &BareJid, listing: &Listing, now: Now) -> Vec<WindowUsage> {
        let Some(limits) = self.service.policy().admit(user).ok().flatten() else {
            return Vec::new();
        };
        let owner = layout::owner_folder(user);
        let owner = owner.as_bytes();
        let known = self.admission.rates.uses(owner, limits, now.unix());
        known.unwrap_or_else(|| {
            let mut rates = Rates::default();
            rates.loaded(owner, limits, &listing.recent, now.unix());
            let uses = rates.uses(owner, limits, now.unix());
            uses.unwrap_or_default()
        })
    }

    /// The answer of the command `explain`.
    fn explain_slot(&mut self, request: &SlotRequest, listing: Listing, now: Now) -> Outcome {
        let stored = StoredUsage {
            usage: Usage {
                owner: Some(listing.bytes),
                total: self.admission.usage.stored().map(|(_, bytes)| bytes),
                free: self.storage.free_space(now.mono),
            },
            recent: listing.recent,
            is_missing: false,
        };
        let described = explain::describe(&self.config, &self.service, request, &stored, now);
        commands::explained(&described)
    }
}
