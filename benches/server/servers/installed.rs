//! Which servers are installed, and their start.

use std::path::{Path, PathBuf};

use crate::common::kind::Kind;
use crate::common::outcome::Outcome;
use crate::servers::launch::version;
use crate::servers::lighttpd::{self, Lighttpd};
use crate::servers::limit;
use crate::servers::nginx::{self, Nginx};
use crate::servers::server::Server;
use crate::servers::setup::Setup;
use crate::servers::upslot;

/// What of the servers is there.
#[derive(Debug)]
pub struct Installed {
    upslot: PathBuf,
    nginx: Option<Nginx>,
    lighttpd: Option<Lighttpd>,
}

impl Installed {
    pub fn look(upslot: &Path) -> Installed {
        Installed {
            upslot: upslot.to_owned(),
            nginx: Nginx::find(),
            lighttpd: Lighttpd::find(),
        }
    }

    /// Why a server cannot take part in a case, if so.
    pub fn lacks(&self, kind: Kind, put: bool, tls: bool) -> Option<&'static str> {
        match kind {
            Kind::Upslot | Kind::Limit | Kind::LimitSplice => None,
            Kind::Nginx => match &self.nginx {
                Some(nginx) => nginx.lacks(put, tls),
                None => Some("the program"),
            },
            Kind::Lighttpd => match &self.lighttpd {
                Some(lighttpd) => lighttpd.lacks(put, tls),
                None => Some("the program"),
            },
        }
    }

    /// A server's version, and what is set, for the user.
    pub fn shown(&self, kind: Kind) -> String {
        let absent = || "not installed".to_owned();
        match kind {
            Kind::Upslot => format!("{}; log_level warn", version(&self.upslot, "-V")),
            Kind::Nginx => self.nginx.as_ref().map_or_else(absent, |nginx| {
                format!("{}; {}", nginx.version, nginx::SETTINGS)
            }),
            Kind::Lighttpd => self.lighttpd.as_ref().map_or_else(absent, |lighttpd| {
                format!("{}; {}", lighttpd.version, lighttpd::SETTINGS)
            }),
            Kind::Limit => limit::SETTINGS.to_owned(),
            Kind::LimitSplice => format!("{}; its PUT splices", limit::SETTINGS),
        }
    }

    pub fn start(&self, kind: Kind, setup: &Setup<'_>) -> Outcome<Server> {
        let absent = || format!("{} is not installed.", kind.name());
        match kind {
            Kind::Upslot => upslot::start(&self.upslot, setup),
            Kind::Nginx => self.nginx.as_ref().ok_or_else(absent)?.start(setup),
            Kind::Lighttpd => self.lighttpd.as_ref().ok_or_else(absent)?.start(setup),
            Kind::Limit | Kind::LimitSplice => limit::start(kind, setup),
        }
    }
}
