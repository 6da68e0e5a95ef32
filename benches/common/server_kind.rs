//! The servers that the whole-server bench compares.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerKind {
    Upslot,
    Nginx,
    Lighttpd,
    /// A bare loop.
    Limit,
    /// Another one, for PUT.
    LimitSplice,
}

impl ServerKind {
    /// In the order of their turns.
    pub const ALL: &[ServerKind] = &[
        ServerKind::Upslot,
        ServerKind::Nginx,
        ServerKind::Lighttpd,
        ServerKind::Limit,
        ServerKind::LimitSplice,
    ];

    pub fn name(self) -> &'static str {
        match self {
            ServerKind::Upslot => "upslot",
            ServerKind::Nginx => "nginx",
            ServerKind::Lighttpd => "lighttpd",
            ServerKind::Limit => "limit",
            ServerKind::LimitSplice => "limit-splice",
        }
    }
}
