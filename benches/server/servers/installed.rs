//! Which servers are installed, and their start.

use std::path::{Path, PathBuf};

use crate::common::outcome::Outcome;
use crate::common::server_kind::ServerKind;
use crate::servers::launch::program_version;
use crate::servers::lighttpd::{self, Lighttpd};
use crate::servers::limit;
use crate::servers::nginx::{self, Nginx};
use crate::servers::server::Server;
use crate::servers::setup::ServerSetup;
use crate::servers::upslot;

/// The servers that are installed.
#[derive(Debug)]
pub struct InstalledServers {
    upslot: PathBuf,
    nginx: Option<Nginx>,
    lighttpd: Option<Lighttpd>,
}

impl InstalledServers {
    pub fn detect(upslot: &Path) -> InstalledServers {
        InstalledServers {
            upslot: upslot.to_owned(),
            nginx: Nginx::find(),
            lighttpd: Lighttpd::find(),
        }
    }

    /// What a server lacks for a case, if anything.
    pub fn missing(&self, kind: ServerKind, put: bool, tls: bool) -> Option<&'static str> {
        match kind {
            ServerKind::Upslot | ServerKind::Limit | ServerKind::LimitSplice => None,
            ServerKind::Nginx => match &self.nginx {
                Some(nginx) => nginx.missing(put, tls),
                None => Some("the program"),
            },
            ServerKind::Lighttpd => match &self.lighttpd {
                Some(lighttpd) => lighttpd.missing(put, tls),
                None => Some("the program"),
            },
        }
    }

    /// The version and the settings of a server, for the report.
    pub fn description(&self, kind: ServerKind) -> String {
        let absent = || "not installed".to_owned();
        match kind {
            ServerKind::Upslot => {
                format!("{}; log_level warn", program_version(&self.upslot, "-V"))
            }
            ServerKind::Nginx => self.nginx.as_ref().map_or_else(absent, |nginx| {
                format!("{}; {}", nginx.version, nginx::SETTINGS)
            }),
            ServerKind::Lighttpd => self.lighttpd.as_ref().map_or_else(absent, |lighttpd| {
                format!("{}; {}", lighttpd.version, lighttpd::SETTINGS)
            }),
            ServerKind::Limit => limit::SETTINGS.to_owned(),
            ServerKind::LimitSplice => format!("{}; its PUT splices", limit::SETTINGS),
        }
    }

    /// Starts a server and waits until it accepts connections.
    pub fn start(&self, kind: ServerKind, setup: &ServerSetup<'_>) -> Outcome<Server> {
        let absent = || format!("{} is not installed", kind.name());
        match kind {
            ServerKind::Upslot => upslot::start(&self.upslot, setup),
            ServerKind::Nginx => self.nginx.as_ref().ok_or_else(absent)?.start(setup),
            ServerKind::Lighttpd => self.lighttpd.as_ref().ok_or_else(absent)?.start(setup),
            ServerKind::Limit | ServerKind::LimitSplice => limit::start(kind, setup),
        }
    }
}
