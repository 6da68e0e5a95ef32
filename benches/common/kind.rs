//! The servers that the whole-server bench compares.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Upslot,
    Nginx,
    Lighttpd,
    /// A bare loop.
    Limit,
    /// Another one, for PUT.
    LimitSplice,
}

impl Kind {
    /// In the order of their turns.
    pub const ALL: &[Kind] = &[
        Kind::Upslot,
        Kind::Nginx,
        Kind::Lighttpd,
        Kind::Limit,
        Kind::LimitSplice,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Upslot => "upslot",
            Kind::Nginx => "nginx",
            Kind::Lighttpd => "lighttpd",
            Kind::Limit => "limit",
            Kind::LimitSplice => "limit-splice",
        }
    }
}
