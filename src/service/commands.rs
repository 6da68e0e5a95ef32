//! The commands that users and administrators can execute over XMPP (XEP-0050): who may, which stages they have, and
//! what the store has to do for them.
//!
//! ```text
//!   uploads         list ─▶ result
//!   delete          list ─▶ choose ─▶ look ─▶ confirm ─▶ delete ─▶ result
//!   delete-all      count ─▶ confirm ─▶ delete ─▶ result
//!   usage           count ─▶ result                                       (administrators)
//!   delete-user     name ─▶ count ─▶ confirm ─▶ delete ─▶ result           (administrators)
//!   explain         ask ─▶ count ─▶ result                                 (administrators)
//! ```
//!
//! A user is the bare JID that the XMPP server stamped on the request. Only files in the folder of that owner are listed,
//! and a file is chosen by its ID among those, so no request can name a file of another owner. [`replies`] makes the
//! forms.

mod replies;

use std::time::Instant;

use crate::jid::BareJid;
use crate::layout::{self, FileId, Owner};
use crate::listing::Selection;
use crate::refusal::sanitized;
use crate::service::Service;
use crate::service::explain;
use crate::service::sessions::{Number, Sessions, Stage};
use crate::slot::SlotRequest;
use crate::xmpp::adhoc::{Action, CommandError, CommandIq, CommandNode};
use crate::xmpp::form::Submission;

pub use replies::{Outcome, deleted, explained, form_of, usage};

/// Maximum number of files in a form. Each takes some hundred bytes, and clients return the whole form.
pub const MAX_LISTED: usize = 50;

/// Maximum number of owners in a form.
pub const MAX_OWNERS: usize = 20;

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Uploads,
    Delete,
    DeleteAll,
    Usage,
    DeleteUser,
    Explain,
}

impl Command {
    const ALL: [Command; 6] = [
        Command::Uploads,
        Command::Delete,
        Command::DeleteAll,
        Command::Usage,
        Command::DeleteUser,
        Command::Explain,
    ];

    /// The command of a node.
    pub fn find(node: &str) -> Option<Command> {
        Command::ALL
            .into_iter()
            .find(|command| command.listed().node == node)
    }

    /// Node and name.
    pub fn listed(self) -> CommandNode {
        let (node, name) = match self {
            Command::Uploads => ("uploads", "My uploads"),
            Command::Delete => ("delete", "Delete an upload"),
            Command::DeleteAll => ("delete-all", "Delete all my uploads"),
            Command::Usage => ("usage", "Usage"),
            Command::DeleteUser => ("delete-user", "Delete a user's uploads"),
            Command::Explain => ("explain", "Explain"),
        };
        CommandNode { node, name }
    }

    fn is_for_admins(self) -> bool {
        match self {
            Command::Uploads | Command::Delete | Command::DeleteAll => false,
            Command::Usage | Command::DeleteUser | Command::Explain => true,
        }
    }

    /// What begins an execution.
    fn begin(self) -> Next {
        match self {
            Command::Uploads => Next::Work(Task::ShowUploads),
            Command::Delete => Next::Work(Task::OfferFiles),
            Command::DeleteAll => Next::Work(Task::CountAll),
            Command::Usage => Next::Work(Task::ShowUsage),
            Command::DeleteUser => Next::Ask(Stage::NameOwner),
            Command::Explain => Next::Ask(Stage::DescribeRequest),
        }
    }
}

/// What a request leads to, in the session with this number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub number: Number,
    pub next: Next,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// The session is cancelled.
    Cancel,
    /// Wait for this, with the form of [`form_of`].
    Ask(Stage),
    /// Look into the store, and then reply.
    Work(Task),
}

/// What the store has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    ShowUploads,
    OfferFiles,
    CheckFiles(Vec<FileId>),
    CountAll,
    CountOwner(Owner),
    DeleteFiles(Vec<FileId>),
    DeleteAll,
    DeleteOwner(Owner),
    Explain(SlotRequest),
    ShowUsage,
}

/// How the store is searched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Search {
    /// Find files of an owner, and sum up all.
    Files(Selection),
    /// Delete files of an owner: those with these IDs, or all.
    Delete(Option<Vec<FileId>>),
    /// Sum up all owners.
    Owners,
}

impl Task {
    /// The owner folder that it is about.
    pub fn folder(&self, user: &BareJid) -> String {
        match self {
            Task::CountOwner(owner) | Task::DeleteOwner(owner) => owner.folder(),
            Task::Explain(request) => layout::owner_folder(&request.owner),
            _ => layout::owner_folder(user),
        }
    }

    pub fn search(&self) -> Search {
        match self {
            Task::ShowUploads => Search::Files(Selection::Oldest(MAX_LISTED)),
            Task::OfferFiles => Search::Files(Selection::Newest(MAX_LISTED)),
            Task::CheckFiles(ids) => Search::Files(Selection::Ids(ids.clone())),
            Task::CountAll | Task::CountOwner(_) | Task::Explain(_) => {
                Search::Files(Selection::Ids(Vec::new()))
            }
            Task::DeleteFiles(ids) => Search::Delete(Some(ids.clone())),
            Task::DeleteAll | Task::DeleteOwner(_) => Search::Delete(None),
            Task::ShowUsage => Search::Owners,
        }
    }

    /// Whether it completes the command, so that its session ends when it begins.
    pub fn completes(&self) -> bool {
        match self {
            Task::OfferFiles | Task::CheckFiles(_) | Task::CountAll | Task::CountOwner(_) => false,
            Task::ShowUploads
            | Task::DeleteFiles(_)
            | Task::DeleteAll
            | Task::DeleteOwner(_)
            | Task::Explain(_)
            | Task::ShowUsage => true,
        }
    }
}

impl Service {
    /// The commands that a user may execute. `has_files` tells whether there may be files of the user.
    pub fn commands(&self, user: &BareJid, has_files: impl Fn() -> bool) -> Vec<CommandNode> {
        Command::ALL
            .into_iter()
            .filter(|command| self.may_execute(*command, user, &has_files))
            .map(Command::listed)
            .collect()
    }

    /// The command of a node, if the user may execute it.
    pub fn command(
        &self,
        node: &str,
        user: &BareJid,
        has_files: impl Fn() -> bool,
    ) -> Result<Command, CommandError> {
        let command = Command::find(node).ok_or(CommandError::NotFound)?;
        match self.may_execute(command, user, has_files) {
            true => Ok(command),
            false => Err(CommandError::Forbidden),
        }
    }

    fn may_execute(&self, command: Command, user: &BareJid, has_files: impl Fn() -> bool) -> bool {
        match command.is_for_admins() {
            true => self.admins.contains(user),
            false => self.policy.admit(user).is_ok() || has_files(),
        }
    }

    /// Decides what a request of a user who may execute the command leads to. `new` is the number of the session if one
    /// begins.
    pub fn step(
        &self,
        command: Command,
        iq: &mut CommandIq,
        sessions: &Sessions,
        new: Number,
        now: Instant,
    ) -> Result<Step, CommandError> {
        let action = iq.action.clone()?;
        if iq.session.is_none() {
            return match action {
                Action::Execute => Ok(Step {
                    number: new,
                    next: command.begin(),
                }),
                Action::Cancel => Err(CommandError::BadSession),
                Action::Prev | Action::Next | Action::Complete => Err(CommandError::BadAction),
            };
        }
        let (number, stage) = sessions.find(iq, now)?;
        let step = |next| Ok(Step { number, next });
        let action = match action {
            Action::Cancel => return step(Next::Cancel),
            Action::Execute => stage.actions().first(),
            ref action => stage.actions().iter().find(|allowed| *allowed == action),
        };
        match (action, stage) {
            (None, _) => Err(CommandError::BadAction),
            (Some(Action::Prev), _) => step(command.begin()),
            (_, Stage::ConfirmFiles(ids)) => step(Next::Work(Task::DeleteFiles(ids.clone()))),
            (_, Stage::ConfirmAll) => step(Next::Work(Task::DeleteAll)),
            (_, Stage::ConfirmOwner(owner)) => step(Next::Work(Task::DeleteOwner(owner.clone()))),
            (_, Stage::ChooseFiles | Stage::NameOwner | Stage::DescribeRequest) => {
                let stage = stage.clone();
                let form = iq
                    .take_form()
                    .filter(|form| form.is(replies::form_type(&stage)))
                    .ok_or_else(|| bad("Please fill in the form."))?;
                step(Next::Work(self.task(&stage, &form, &iq.owner)?))
            }
        }
    }

    /// What a form that was filled in asks for.
    fn task(&self, stage: &Stage, form: &Submission, user: &BareJid) -> Result<Task, CommandError> {
        match stage {
            Stage::NameOwner => {
                let owner = form.value("user").and_then(|text| Owner::parse(&text));
                owner.map(Task::CountOwner).ok_or_else(|| {
                    bad("Please enter the address of a user, or the name of an owner folder.")
                })
            }
            Stage::DescribeRequest => {
                let mut words = vec![form.value("user").unwrap_or_default()];
                let (size, content_type) = (form.value("size"), form.value("type"));
                // A type is recognised by its position, after the size.
                let size = size.or_else(|| content_type.as_ref().map(|_| "1".to_owned()));
                words.extend(size.into_iter().chain(content_type));
                let request = explain::parse(&words);
                request
                    .map(Task::Explain)
                    .map_err(|why| bad(&format!("{}.", sanitized(&why))))
            }
            _ => self.chosen_files(form, user).map(Task::CheckFiles),
        }
    }

    /// The files chosen in a form: from the list, or by a link.
    fn chosen_files(&self, form: &Submission, user: &BareJid) -> Result<Vec<FileId>, CommandError> {
        let mut chosen = Vec::new();
        for value in form.values("files").take(MAX_LISTED + 1) {
            let id = FileId::parse(&value)
                .ok_or_else(|| bad("Please choose uploads from the list only."))?;
            if !chosen.contains(&id) {
                chosen.push(id);
            }
        }
        if let Some(link) = form.value("link") {
            let folder = layout::owner_folder(user);
            let named = self.files_of_url(&link).unwrap_or_default();
            let path = named.path.or(named.again);
            let id = path
                .filter(|path| path.owner_folder() == folder.as_bytes())
                .map(|path| FileId::of(&path))
                .ok_or_else(|| bad("This is not the link of one of your uploads."))?;
            if !chosen.contains(&id) {
                chosen.push(id);
            }
        }
        match chosen.len() {
            0 => Err(bad("Please choose at least one upload.")),
            1..=MAX_CHOSEN => Ok(chosen),
            _ => Err(bad("Please choose fewer uploads at a time.")),
        }
    }
}

/// Maximum number of files that a form may choose: those of the list, and one by its link.
const MAX_CHOSEN: usize = MAX_LISTED + 1;

fn bad(text: &str) -> CommandError {
    CommandError::BadPayload(text.to_owned())
}
