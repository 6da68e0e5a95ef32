//! The servers that the whole-server bench compares.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerKind {
    Upslot,
    Nginx,
    Lighttpd,
    /// A bare loop that only moves bytes: the lower bound.
    Limit,
    /// The same for PUT with splice.
    LimitSplice,
}

impl ServerKind {
    /// In the order in which they take turns.
    pub const ALL: &[ServerKind] = &[
        ServerKind::Upslot,
        ServerKind::Nginx,
        ServerKind::Lighttpd,
        ServerKind::Limit,
        ServerKind::LimitSplice,
    ];

    /// In reports and on the command line.
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
