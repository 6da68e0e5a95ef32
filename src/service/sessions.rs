//! The sessions of ad-hoc commands: executions that wait for the user's next action (XEP-0050 §3.3).
//!
//! The ID of a session is signed for its user and command. So an ID that was made up or belongs to another user is told
//! apart from one that is over, without remembering sessions that are over. Memory is bounded: a session has a fixed
//! size but for the files chosen, of which there are few; a user has few sessions, and beyond [`MAX_SESSIONS`] the one
//! that was unused for the longest time ends.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use data_encoding::BASE64URL_NOPAD;
use ring::hmac;

use crate::jid::BareJid;
use crate::layout::{FileId, Owner};
use crate::xmpp::adhoc::{Action, CommandError, CommandIq};

/// How long a session waits for the next action.
pub const LIFETIME: Duration = Duration::from_secs(600);

/// Maximum number of sessions.
pub const MAX_SESSIONS: usize = 1024;

/// Maximum number of sessions of one user; another one ends the oldest.
pub const MAX_PER_USER: usize = 4;

/// Bytes of a session's number.
const NUMBER: usize = 8;

/// What a session waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The choice of files to delete.
    ChooseFiles,
    /// The consent to delete these files.
    ConfirmFiles(Vec<FileId>),
    /// The consent to delete all files of the user.
    ConfirmAll,
    /// The name of an owner whose files are to be deleted.
    NameOwner,
    /// The consent to delete all files of this owner.
    ConfirmOwner(Owner),
    /// The slot request to be explained.
    DescribeRequest,
}

impl Stage {
    /// The possible actions besides cancelling; the first one is the default.
    pub fn actions(&self) -> &'static [Action] {
        match self {
            Stage::ChooseFiles | Stage::NameOwner => &[Action::Next],
            Stage::ConfirmAll | Stage::DescribeRequest => &[Action::Complete],
            Stage::ConfirmFiles(_) | Stage::ConfirmOwner(_) => &[Action::Complete, Action::Prev],
        }
    }
}

/// A session's number, unique to it. The ID contains it.
pub type Number = [u8; NUMBER];

#[derive(Debug)]
struct Session {
    number: Number,
    user: BareJid,
    stage: Stage,
    used: Instant,
}

/// All sessions.
#[derive(Debug)]
pub struct Sessions {
    key: hmac::Key,
    /// In the order of their last use.
    open: VecDeque<Session>,
}

impl Sessions {
    /// No sessions; their IDs will be signed with this secret.
    pub fn new(secret: &[u8]) -> Sessions {
        Sessions {
            key: hmac::Key::new(hmac::HMAC_SHA256, secret),
            open: VecDeque::new(),
        }
    }

    /// The ID of a session of this user and command.
    pub fn id(&self, user: &BareJid, node: &str, number: Number) -> String {
        let tag = hmac::sign(&self.key, &message(user, node, &number));
        BASE64URL_NOPAD.encode(&[&number, tag.as_ref()].concat())
    }

    /// The number of the session that a request names, and what it waits for.
    pub fn find(&self, iq: &CommandIq, now: Instant) -> Result<(Number, &Stage), CommandError> {
        let id = iq.session.as_deref().unwrap_or_default();
        let bytes = BASE64URL_NOPAD.decode(id.as_bytes());
        let bytes = bytes.map_err(|_| CommandError::BadSession)?;
        let (number, tag) = bytes
            .split_first_chunk::<NUMBER>()
            .ok_or(CommandError::BadSession)?;
        hmac::verify(&self.key, &message(&iq.owner, &iq.node, number), tag)
            .map_err(|_| CommandError::BadSession)?;
        let mut open = self.open.iter();
        let session = open.find(|session| session.number == *number && is_alive(session, now));
        let session = session.ok_or(CommandError::SessionExpired)?;
        Ok((*number, &session.stage))
    }

    /// Begins a session, or takes it to another stage.
    pub fn set(&mut self, user: &BareJid, number: Number, stage: Stage, now: Instant) {
        self.end(number);
        self.open.retain(|session| is_alive(session, now));
        let of_user = self.open.iter().filter(|session| session.user == *user);
        if of_user.count() >= MAX_PER_USER {
            let oldest = self.open.iter().position(|session| session.user == *user);
            oldest.and_then(|at| self.open.remove(at));
        }
        if self.open.len() >= MAX_SESSIONS {
            self.open.pop_front();
        }
        self.open.push_back(Session {
            number,
            user: user.clone(),
            stage,
            used: now,
        });
    }

    /// Ends a session.
    pub fn end(&mut self, number: Number) {
        self.open.retain(|session| session.number != number);
    }
}

fn is_alive(session: &Session, now: Instant) -> bool {
    now.saturating_duration_since(session.used) < LIFETIME
}

/// What the signature covers. The first field tells it from the messages that sign slots; NUL occurs in no JID.
fn message(user: &BareJid, node: &str, number: &Number) -> Vec<u8> {
    [
        b"upslot-session1\0",
        user.as_str().as_bytes(),
        b"\0",
        number,
        node.as_bytes(),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xmpp::element::{COMPONENT, Element};

    fn jid(text: &str) -> BareJid {
        BareJid::parse(text).unwrap()
    }

    fn iq(user: &str, node: &str, id: &str) -> CommandIq {
        let payload = Element::new("command", "")
            .with("node", node)
            .with("sessionid", id);
        CommandIq::read(payload, Element::new("iq", COMPONENT), jid(user))
    }

    fn number(n: u64) -> Number {
        n.to_be_bytes()
    }

    #[test]
    fn an_id_is_valid_for_its_user_and_command_while_the_session_lasts() {
        let start = Instant::now();
        let mut sessions = Sessions::new(b"secret");
        let romeo = jid("romeo@montague.tld");
        let id = sessions.id(&romeo, "node", number(1));
        let find = |sessions: &Sessions, user: &str, node: &str, id: &str, now: Instant| {
            sessions
                .find(&iq(user, node, id), now)
                .map(|(number, stage)| (number, stage.clone()))
        };
        let good = |sessions: &Sessions, now| find(sessions, romeo.as_str(), "node", &id, now);
        assert_eq!(good(&sessions, start), Err(CommandError::SessionExpired));
        sessions.set(&romeo, number(1), Stage::ChooseFiles, start);
        assert_eq!(good(&sessions, start), Ok((number(1), Stage::ChooseFiles)));
        sessions.set(&romeo, number(1), Stage::ConfirmAll, start + LIFETIME / 2);
        let last = start + LIFETIME / 2 + LIFETIME - Duration::from_millis(1);
        assert_eq!(good(&sessions, last), Ok((number(1), Stage::ConfirmAll)));
        let over = last + Duration::from_millis(1);
        assert_eq!(good(&sessions, over), Err(CommandError::SessionExpired));
        sessions.end(number(1));
        assert_eq!(good(&sessions, start), Err(CommandError::SessionExpired));
        sessions.set(&romeo, number(1), Stage::ConfirmAll, start);
        let other = Sessions::new(b"other").id(&romeo, "node", number(1));
        let altered = id.replacen(&id[..1], if id.starts_with('A') { "B" } else { "A" }, 1);
        for (user, node, id) in [
            ("juliet@capulet.tld", "node", &*id),
            ("romeo@montague.tld", "other", &id),
            ("romeo@montague.tld", "node", &other),
            ("romeo@montague.tld", "node", &altered),
            ("romeo@montague.tld", "node", &id[..id.len() - 2]),
            ("romeo@montague.tld", "node", "AAAA"),
            ("romeo@montague.tld", "node", "not base64!"),
        ] {
            let found = find(&sessions, user, node, id, start);
            assert_eq!(found, Err(CommandError::BadSession), "{user} {node} {id}");
        }
    }

    #[test]
    fn sessions_are_few() {
        let start = Instant::now();
        let mut sessions = Sessions::new(b"secret");
        let juliet = jid("juliet@capulet.tld");
        sessions.set(&juliet, number(u64::MAX), Stage::ConfirmAll, start);
        let romeo = jid("romeo@montague.tld");
        for n in 0..100 {
            sessions.set(&romeo, number(n), Stage::ChooseFiles, start);
        }
        assert_eq!(sessions.open.len(), 1 + MAX_PER_USER);
        let oldest = sessions.open.iter().find(|session| session.user == romeo);
        assert_eq!(oldest.unwrap().number, number(96));
        for n in 100..3000 {
            let user = jid(&format!("{n}@montague.tld"));
            sessions.set(&user, number(n), Stage::ChooseFiles, start);
            assert!(sessions.open.len() <= MAX_SESSIONS);
        }
        assert_eq!(sessions.open.front().unwrap().number, number(3000 - 1024));
        // Expired sessions take no place.
        sessions.set(&romeo, number(1), Stage::ChooseFiles, start + LIFETIME);
        assert_eq!(sessions.open.len(), 1);
    }
}
