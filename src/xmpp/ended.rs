//! Why a stream is over, and what its operator can do about it.
//!
//! Sources: RFC 6120 §4.9 (stream errors), XEP-0114 §3. Nothing here ever holds the secret.

use std::fmt;
use std::time::Duration;

use super::element::Element;

/// Namespace of the conditions inside a stream error (RFC 6120 §4.9.2).
pub const STREAM_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-streams";
/// For the server's stream header, and again for its answer to the handshake.
pub const OPENING_TIMEOUT: Duration = Duration::from_secs(10);
/// A server that said nothing for so long is asked whether it is there.
pub const SILENCE: Duration = Duration::from_secs(60);
/// And has so long to say anything at all.
pub const PING_TIMEOUT: Duration = Duration::from_secs(30);
/// A server that took none of what was sent to it for so long is given up.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// For the server's end of a stream that we ended.
pub const CLOSING_TIMEOUT: Duration = Duration::from_secs(3);
/// The most of a stream error's text that is kept for the log.
const MAX_ERROR_TEXT: usize = 500;

/// How far the stream was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waiting for the server's stream header.
    Opening,
    /// Waiting for the server's answer to the handshake.
    Proving,
    /// Stanzas flow.
    Open,
}

/// Why a stream is over. `Display` is one line for the operator that says what to change, if anything; it never
/// holds the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The server says that our secret is wrong.
    NotAuthorized,
    /// The server says that somebody else has our name.
    Conflict,
    /// The server says that it has no such component.
    HostUnknown,
    /// The server says that it stops.
    SystemShutdown,
    /// Any other stream error from the server.
    StreamError { condition: String, text: String },
    /// What the server sent is no XML, or not what belongs there.
    Malformed { phase: Phase, why: &'static str },
    /// The server sent XML that XMPP forbids (RFC 6120 §11.1).
    RestrictedXml { what: &'static str },
    /// The server did not answer while the stream was being set up.
    Timeout { phase: Phase },
    /// The server stopped answering on an open stream.
    Silent,
    /// The server stopped taking what is sent to it.
    Stalled,
    /// The server ended the stream or the connection without a reason.
    PeerClosed { phase: Phase },
    /// We ended the stream.
    Closed,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Opening => "before it sent a stream header",
            Phase::Proving => "before it answered the handshake",
            Phase::Open => "while the link was up",
        })
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // ejabberd says this of a name that it does not know, too.
            Ended::NotAuthorized => f.write_str(
                "the XMPP server rejects the secret: component_secret differs from the one that the server has \
                 configured for this component, or it has no component of this name",
            ),
            Ended::Conflict => f.write_str(
                "another program or another instance is connected to the XMPP server under this name: stop it, or \
                 give each its own component_jid",
            ),
            Ended::HostUnknown => f.write_str(
                "the XMPP server has no component of this name configured, or component_port is not its port for \
                 components: compare component_jid and component_port with the server's configuration",
            ),
            Ended::SystemShutdown => f.write_str("the XMPP server is shutting down"),
            Ended::StreamError { condition, text } => {
                write!(f, "the XMPP server ended the stream with {condition}")?;
                if !text.is_empty() {
                    write!(f, " ({text})")?;
                }
                match condition.as_str() {
                    "invalid-namespace" => f.write_str(
                        ": component_port is not the port where it listens for components",
                    ),
                    _ => Ok(()),
                }
            }
            Ended::Malformed {
                phase: Phase::Open,
                why,
            } => write!(f, "the XMPP server sent what is no XMPP: {why}"),
            Ended::Malformed { why, .. } => write!(
                f,
                "what answers is no XMPP server for components ({why}): check component_host and component_port"
            ),
            Ended::RestrictedXml { what } => {
                write!(f, "the XMPP server sent XML that XMPP forbids: {what}")
            }
            Ended::Timeout { phase } => write!(
                f,
                "the XMPP server did not answer for {} s {phase}: check component_host and component_port",
                OPENING_TIMEOUT.as_secs()
            ),
            Ended::Silent => write!(
                f,
                "the XMPP server sent nothing for {} s and did not answer a ping",
                (SILENCE + PING_TIMEOUT).as_secs()
            ),
            Ended::Stalled => write!(
                f,
                "the XMPP server took nothing of what was sent to it for {} s",
                STALL_TIMEOUT.as_secs()
            ),
            Ended::PeerClosed {
                phase: phase @ Phase::Opening,
            } => write!(
                f,
                "the XMPP server closed the connection {phase}: check that component_port is its port for components"
            ),
            Ended::PeerClosed { phase } => {
                write!(f, "the XMPP server closed the connection {phase}")
            }
            Ended::Closed => f.write_str("closed in good order"),
        }
    }
}

/// What the server says about the end (RFC 6120 §4.9.3).
pub fn stream_error(error: &Element) -> Ended {
    let mut conditions = error
        .elements()
        .filter(|child| *child.namespace == *STREAM_ERRORS && *child.name != *"text");
    let condition = conditions
        .next()
        .map_or("undefined-condition", |c| &*c.name);
    match condition {
        "not-authorized" => Ended::NotAuthorized,
        "conflict" => Ended::Conflict,
        "host-unknown" => Ended::HostUnknown,
        "system-shutdown" => Ended::SystemShutdown,
        condition => Ended::StreamError {
            condition: condition.chars().take(MAX_ERROR_TEXT).collect(),
            text: error
                .child("text", STREAM_ERRORS)
                .map(Element::text)
                .unwrap_or_default()
                .chars()
                .take(MAX_ERROR_TEXT)
                .collect(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_to_change() {
        let text = |text: &str| text.to_owned();
        let phase = Phase::Opening;
        for (ended, word) in [
            (Ended::NotAuthorized, "component_secret"),
            (Ended::Conflict, "another instance"),
            (Ended::HostUnknown, "component_jid"),
            (Ended::SystemShutdown, "shutting down"),
            (
                Ended::StreamError {
                    condition: text("invalid-namespace"),
                    text: text("no"),
                },
                "component_port",
            ),
            (
                Ended::StreamError {
                    condition: text("reset"),
                    text: text("bye"),
                },
                "reset (bye)",
            ),
            (
                Ended::Malformed {
                    phase,
                    why: "a tag",
                },
                "component_port",
            ),
            (
                Ended::Malformed {
                    phase: Phase::Open,
                    why: "a tag",
                },
                "no XMPP: a tag",
            ),
            (Ended::RestrictedXml { what: "a comment" }, "a comment"),
            (Ended::Stalled, "60 s"),
            (Ended::Timeout { phase }, "10 s before it sent"),
            (Ended::Silent, "90 s"),
            (Ended::PeerClosed { phase }, "component_port"),
            (Ended::PeerClosed { phase: Phase::Open }, "up"),
            (Ended::Closed, "closed"),
        ] {
            let line = ended.to_string();
            assert!(line.contains(word) && !line.contains('\n'), "{line}");
        }
    }
}
