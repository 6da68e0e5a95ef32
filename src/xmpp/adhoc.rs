//! The syntax of ad-hoc commands (XEP-0050 v1.3), and their part of service discovery.
//!
//! A command is a node of the component. An execution is a session of one or more stages; each stage but the last has a
//! form and the actions that lead on. This module knows no command: it reads requests and writes replies.
//!
//! All texts are English. A request in another language is answered all the same, and the answer says in which language
//! it is: nearly all clients send the language of their user, and a refusal would help no user. Only what is no
//! language tag at all is refused.

use super::element::{Element, XML, stanza_error};
use super::form::{DATA_FORM, Form, Submission};
use crate::jid::BareJid;

/// The namespace of commands, and the node that lists them.
pub const COMMANDS: &str = "http://jabber.org/protocol/commands";
pub const DISCO_INFO: &str = "http://jabber.org/protocol/disco#info";
pub const DISCO_ITEMS: &str = "http://jabber.org/protocol/disco#items";

/// Longest node and session in bytes that an error repeats; ours are shorter.
const MAX_ECHO: usize = 128;

/// Longest language tag (RFC 5646 §4.4.1 recommends to expect 35 characters).
const MAX_LANGUAGE: usize = 64;

/// What a request wants of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Begin a session, or go on with the default action of the stage.
    Execute,
    Cancel,
    Prev,
    Next,
    Complete,
}

impl Action {
    /// Parses the value of the attribute.
    fn parse(word: &str) -> Option<Action> {
        [
            Action::Execute,
            Action::Cancel,
            Action::Prev,
            Action::Next,
            Action::Complete,
        ]
        .into_iter()
        .find(|action| action.word() == word)
    }

    fn word(self) -> &'static str {
        match self {
            Action::Execute => "execute",
            Action::Cancel => "cancel",
            Action::Prev => "prev",
            Action::Next => "next",
            Action::Complete => "complete",
        }
    }
}

/// Why a command is refused (XEP-0050 §4.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// There is no such action.
    MalformedAction,
    /// The action is not one of those of the stage.
    BadAction,
    BadLocale,
    /// The form is missing or has an invalid value; a sentence for the user.
    BadPayload(String),
    /// There never was such a session of this user and command.
    BadSession,
    /// The session was completed or cancelled, or has expired.
    SessionExpired,
    /// The user may not execute the command.
    Forbidden,
    /// There is no such command.
    NotFound,
    /// Too many commands wait for the store.
    Busy,
    /// The store could not be read.
    Failed,
}

impl CommandError {
    /// Type, condition, the condition of XEP-0050, and the text.
    fn parts(&self) -> (&'static str, &'static str, Option<&'static str>, &str) {
        let bad = |specific, text| ("modify", "bad-request", Some(specific), text);
        match self {
            CommandError::MalformedAction => bad("malformed-action", "There is no such action."),
            CommandError::BadAction => {
                bad("bad-action", "The action is not possible at this stage.")
            }
            CommandError::BadLocale => bad("bad-locale", "This is not a language tag."),
            CommandError::BadPayload(text) => ("modify", "bad-request", Some("bad-payload"), text),
            CommandError::BadSession => bad("bad-sessionid", "There is no such session of yours."),
            CommandError::SessionExpired => (
                "cancel",
                "not-allowed",
                Some("session-expired"),
                "The session is over; please start the command again.",
            ),
            CommandError::Forbidden => {
                ("cancel", "forbidden", None, "You may not use this command.")
            }
            CommandError::NotFound => (
                "cancel",
                "item-not-found",
                None,
                "There is no such command.",
            ),
            CommandError::Busy => (
                "wait",
                "resource-constraint",
                None,
                "The service is busy; please try again in a moment.",
            ),
            CommandError::Failed => (
                "wait",
                "internal-server-error",
                None,
                "The store cannot be read; please try again later.",
            ),
        }
    }
}

/// How serious a note is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoteKind {
    Info,
    Warn,
    Error,
}

/// A text beside the form, or instead of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub kind: NoteKind,
    pub text: String,
}

/// A request to begin, continue or cancel a command, with what its reply needs.
#[derive(Clone, Debug)]
pub struct CommandIq {
    /// The requester.
    pub owner: BareJid,
    pub node: String,
    /// The session to go on with; `None` begins one.
    pub session: Option<String>,
    /// The action, or why the request is malformed.
    pub action: Result<Action, CommandError>,
    form: Option<Submission>,
    /// The reply: addressed, but without a type and children.
    reply: Element,
}

impl CommandIq {
    /// Reads a request; `None` if `payload` is not one. `reply` is addressed but empty.
    pub fn read(mut payload: Element, reply: Element, owner: BareJid) -> CommandIq {
        let action = match payload.attribute("action") {
            _ if !has_valid_language(&payload) => Err(CommandError::BadLocale),
            None => Ok(Action::Execute),
            Some(word) => Action::parse(word).ok_or(CommandError::MalformedAction),
        };
        CommandIq {
            owner,
            node: payload.take("node").unwrap_or_default(),
            session: payload.take("sessionid").filter(|id| !id.is_empty()),
            action,
            form: Submission::of(payload),
            reply,
        }
    }

    /// Takes the form that was submitted, which is not needed for the reply.
    pub fn take_form(&mut self) -> Option<Submission> {
        self.form.take()
    }

    /// The reply that asks for the next action: one of `actions`, the first of which is the default.
    pub fn executing(
        self,
        session: &str,
        actions: &[Action],
        notes: &[Note],
        form: Form,
    ) -> Element {
        let default = actions.first().map_or("next", |action| action.word());
        // The schema has them in this order.
        let allowed = ["prev", "next", "complete"]
            .into_iter()
            .filter(|word| actions.iter().any(|action| action.word() == *word));
        let allowed = Element::new("actions", COMMANDS)
            .with("execute", default)
            .with_children(allowed.map(|word| Element::new(word, COMMANDS)));
        let command = self
            .command(session, "executing")
            .with_child(allowed)
            .with_children(notes.iter().map(note))
            .with_child(form.into_element());
        self.result(command)
    }

    /// The last reply of a session.
    pub fn completed(self, session: &str, notes: &[Note], form: Option<Form>) -> Element {
        let command = self
            .command(session, "completed")
            .with_children(notes.iter().map(note))
            .with_children(form.map(Form::into_element));
        self.result(command)
    }

    /// The reply to a cancelled session.
    pub fn canceled(self, session: &str) -> Element {
        let command = self.command(session, "canceled");
        self.result(command)
    }

    /// The error reply. It repeats node and session, by which some clients find out what failed.
    pub fn failed(self, error: &CommandError) -> Element {
        let (kind, condition, specific, text) = error.parts();
        let short = |text: String| Some(text).filter(|text| text.len() <= MAX_ECHO);
        let echo = Element::new("command", COMMANDS)
            .with_some("node", short(self.node))
            .with_some("sessionid", self.session.and_then(short));
        let specific = specific.map(|name| Element::new(name, COMMANDS));
        self.reply
            .with("type", "error")
            .with_child(echo)
            .with_child(stanza_error(kind, condition, Some(text)).with_children(specific))
    }

    fn command(&self, session: &str, status: &'static str) -> Element {
        Element::new("command", COMMANDS)
            .with("node", self.node.clone())
            .with("sessionid", session)
            .with("status", status)
            .with_language("en")
    }

    fn result(self, command: Element) -> Element {
        self.reply.with("type", "result").with_child(command)
    }
}

fn note(note: &Note) -> Element {
    let kind = match note.kind {
        NoteKind::Info => "info",
        NoteKind::Warn => "warn",
        NoteKind::Error => "error",
    };
    Element::new("note", COMMANDS)
        .with("type", kind)
        .with_text(note.text.as_str())
}

/// Whether the language of an element, if it names one, has the form of a language tag (RFC 5646 §2.1).
fn has_valid_language(element: &Element) -> bool {
    let language = element.attributes.iter().find(|attribute| {
        *attribute.name == *"lang" && attribute.namespace.as_deref() == Some(XML)
    });
    language.is_none_or(|language| {
        let is_subtag = |part: &str| {
            (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric())
        };
        let tag = &language.value;
        tag.is_empty() || (tag.len() <= MAX_LANGUAGE && tag.split('-').all(is_subtag))
    })
}

/// A service discovery request to a node (XEP-0030 §3.2, §4.2).
#[derive(Clone, Debug)]
pub struct NodeIq {
    /// The requester.
    pub owner: BareJid,
    pub node: String,
    /// Whether it asks for items, or else for information.
    pub wants_items: bool,
    /// The reply: addressed, but without a type and children.
    reply: Element,
}

/// A command as it is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandNode {
    pub node: &'static str,
    pub name: &'static str,
}

impl NodeIq {
    /// Reads the query of a request. `reply` is addressed but empty.
    pub fn read(mut query: Element, reply: Element, owner: BareJid) -> NodeIq {
        NodeIq {
            owner,
            node: query.take("node").unwrap_or_default(),
            wants_items: *query.namespace == *DISCO_ITEMS,
            reply,
        }
    }

    /// The reply for the list of commands. `component` is our address.
    pub fn list(self, component: &BareJid, commands: &[CommandNode]) -> Element {
        if !self.wants_items {
            let identity = identity("command-list", "Commands");
            return self.result([identity, feature(COMMANDS)]);
        }
        let items = commands.iter().map(|command| {
            Element::new("item", DISCO_ITEMS)
                .with("jid", component.as_str())
                .with("node", command.node)
                .with("name", command.name)
        });
        self.result(items)
    }

    /// The reply for one command. A command has no items.
    pub fn command(self, command: CommandNode) -> Element {
        match self.wants_items {
            true => self.result([]),
            false => {
                let identity = identity("command-node", command.name);
                self.result([identity, feature(COMMANDS), feature(DATA_FORM)])
            }
        }
    }

    /// The error reply.
    pub fn failed(self, error: &CommandError) -> Element {
        let (kind, condition, _, _) = error.parts();
        self.reply
            .with("type", "error")
            .with_child(stanza_error(kind, condition, None))
    }

    fn result(self, children: impl IntoIterator<Item = Element>) -> Element {
        let namespace = match self.wants_items {
            true => DISCO_ITEMS,
            false => DISCO_INFO,
        };
        let query = Element::new("query", namespace)
            .with("node", self.node)
            .with_children(children);
        self.reply.with("type", "result").with_child(query)
    }
}

fn identity(kind: &'static str, name: &'static str) -> Element {
    Element::new("identity", DISCO_INFO)
        .with("category", "automation")
        .with("type", kind)
        .with("name", name)
}

fn feature(name: &'static str) -> Element {
    Element::new("feature", DISCO_INFO).with("var", name)
}

#[cfg(test)]
mod tests;
