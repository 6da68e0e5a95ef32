//! A limit server: this program, started as a bare loop.

use std::env;
use std::fs;
use std::process::Command;

use crate::cases::SMALL;
use crate::common::outcome::Outcome;
use crate::common::server_kind::ServerKind;
use crate::limit::{ARGUMENT, LimitMode};
use crate::servers::launch::{create_folder, free_address};
use crate::servers::server::Server;
use crate::servers::setup::ServerSetup;

/// For the report.
pub const SETTINGS: &str =
    "this program as a bare loop: no parsing, no logging, a constant response";

/// Starts a limit server, with the file that it serves already in place.
pub fn start(kind: ServerKind, setup: &ServerSetup<'_>) -> Outcome<Server> {
    let size = setup.size;
    let mode = match (kind, setup.for_put) {
        (ServerKind::LimitSplice, _) => LimitMode::Splice,
        (_, true) => LimitMode::Write,
        (_, false) if size <= SMALL => LimitMode::Memory,
        (_, false) => LimitMode::File,
    };
    let root = create_folder(&setup.folder, "files")?;
    if matches!(mode, LimitMode::Memory | LimitMode::File) {
        let path = root.join("0");
        fs::hard_link(&setup.body_file, &path).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    let address = free_address()?;
    let program = env::current_exe().map_err(|e| format!("path of this program: {e}"))?;
    let mut command = Command::new(program);
    command.args([ARGUMENT, mode.name()]);
    command.arg(address.to_string()).arg(&root);
    command.arg(size.to_string());
    if let Some(certificate) = setup.tls {
        command.args([&certificate.chain, &certificate.key]);
    }
    Server::start(kind, &mut command, address, root, setup)
}
