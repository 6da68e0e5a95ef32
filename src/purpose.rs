//! The purposes of uploads.

/// The purpose of an upload, as the client declares it (XEP-0363 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Part of a message; the default when no purpose is given.
    Message,
    /// An avatar or other profile data.
    Profile,
    /// Must not be served at or after this time (Unix seconds).
    Ephemeral { expire_before: u64 },
    /// To be stored permanently.
    Permanent,
}

impl Purpose {
    /// One of each kind, in the order of the quota classes.
    pub const ALL: [Purpose; 4] = [
        Purpose::Message,
        Purpose::Profile,
        Purpose::Ephemeral { expire_before: 0 },
        Purpose::Permanent,
    ];

    /// The element name in `urn:xmpp:http:upload:purpose:0`, also used as configuration key.
    pub fn word(&self) -> &'static str {
        match self {
            Purpose::Message => "message",
            Purpose::Profile => "profile",
            Purpose::Ephemeral { .. } => "ephemeral",
            Purpose::Permanent => "permanent",
        }
    }
}
