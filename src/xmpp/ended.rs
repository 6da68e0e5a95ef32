//! Why a stream ended, as a message that tells the operator what to change.
//!
//! Sources: RFC 6120 §4.9 (stream errors), XEP-0114 §3. The messages never contain the secret.

use std::fmt;
use std::time::Duration;

use super::element::Element;

/// Namespace of stream error conditions (RFC 6120 §4.9.2).
pub const STREAM_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-streams";
/// Timeout for the server's stream header, and again for its response to the handshake.
pub const OPENING_TIMEOUT: Duration = Duration::from_secs(10);
/// After this much silence from the server, a ping is sent.
pub const SILENCE: Duration = Duration::from_secs(60);
/// After the ping, the server has this long to send anything at all.
pub const PING_TIMEOUT: Duration = Duration::from_secs(30);
/// The link is closed when the server accepts no output for this long.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long to wait for the server's closing tag after sending ours.
pub const CLOSING_TIMEOUT: Duration = Duration::from_secs(3);
/// How many characters of a stream error's text are logged.
const MAX_ERROR_TEXT: usize = 500;

/// The phase in which the stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waiting for the server's stream header.
    Opening,
    /// Waiting for the server's response to the handshake.
    Proving,
    /// The handshake succeeded.
    Open,
}

/// Why a stream ended. Its `Display` is one line that tells the operator what to change, if anything; it never contains
/// the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The server rejected the handshake.
    NotAuthorized,
    /// The server says that another connection uses our name.
    Conflict,
    /// The server does not have this component.
    HostUnknown,
    /// The server is shutting down.
    SystemShutdown,
    /// Any other stream error from the server.
    StreamError { condition: String, text: String },
    /// The server sent malformed XML, or an unexpected element.
    Malformed { phase: Phase, why: &'static str },
    /// The server sent XML that XMPP forbids (RFC 6120 §11.1).
    RestrictedXml { what: &'static str },
    /// The server did not respond while the stream was being opened.
    Timeout { phase: Phase },
    /// The server stopped answering on an open stream.
    Silent,
    /// The server stopped accepting output.
    Stalled,
    /// The server closed the stream or the connection without a stream error.
    PeerClosed { phase: Phase },
    /// upslot closed the stream.
    Closed,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Opening => "before it sent a stream header",
            Phase::Proving => "before it responded to the handshake",
            Phase::Open => "while the link was up",
        })
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // ejabberd also sends this error for an unknown component name.
            Ended::NotAuthorized => f.write_str(
                "the XMPP server rejects the secret: component_secret differs from the one that the server has \
                 configured for this component, or it has no component of this name",
            ),
            Ended::Conflict => f.write_str(
                "another program or another instance is connected to the XMPP server under this name: stop it, or \
                 give each its own component_jid",
            ),
            Ended::HostUnknown => f.write_str(
                "the XMPP server has no component of this name configured, or component_port is not its component \
                 port: compare component_jid and component_port with the server's configuration",
            ),
            Ended::SystemShutdown => f.write_str("the XMPP server is shutting down"),
            Ended::StreamError { condition, text } => {
                write!(f, "the XMPP server ended the stream with {condition}")?;
                if !text.is_empty() {
                    write!(f, " ({text})")?;
                }
                match condition.as_str() {
                    "invalid-namespace" => f.write_str(
                        ": component_port is not its component port",
                    ),
                    _ => Ok(()),
                }
            }
            Ended::Malformed {
                phase: Phase::Open,
                why,
            } => write!(f, "the XMPP server sent invalid XML: {why}"),
            Ended::Malformed { why, .. } => write!(
                f,
                "not a component port of an XMPP server ({why}): check component_host and component_port"
            ),
            Ended::RestrictedXml { what } => {
                write!(f, "the XMPP server sent XML that XMPP forbids: {what}")
            }
            Ended::Timeout { phase } => write!(
                f,
                "the XMPP server did not respond for {} s {phase}: check component_host and component_port",
                OPENING_TIMEOUT.as_secs()
            ),
            Ended::Silent => write!(
                f,
                "the XMPP server sent nothing for {} s and did not respond to a ping",
                (SILENCE + PING_TIMEOUT).as_secs()
            ),
            Ended::Stalled => write!(
                f,
                "the XMPP server accepted no data for {} s",
                STALL_TIMEOUT.as_secs()
            ),
            Ended::PeerClosed {
                phase: phase @ Phase::Opening,
            } => write!(
                f,
                "the XMPP server closed the connection {phase}: check that component_port is its component port"
            ),
            Ended::PeerClosed { phase } => {
                write!(f, "the XMPP server closed the connection {phase}")
            }
            Ended::Closed => f.write_str("closed normally"),
        }
    }
}

/// Interprets a `<stream:error/>` from the server (RFC 6120 §4.9.3).
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
    fn messages_tell_what_to_change() {
        let text = |text: &str| text.to_owned();
        let phase = Phase::Opening;
        for (ended, word) in [
            (Ended::NotAuthorized, "component_secret"),
            (Ended::Conflict, "another instance is connected"),
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
                "invalid XML: a tag",
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
