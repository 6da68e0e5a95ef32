//! A limit server: this program, started as a bare loop.

use std::env;
use std::fs;
use std::process::Command;

use crate::common::outcome::Outcome;
use crate::common::server_kind::ServerKind;
use crate::limit::{ARGUMENT, LimitMode, MEMORY_FILE};
use crate::servers::launch::free_address;
use crate::servers::server::Server;
use crate::servers::setup::ServerSetup;

/// For the report.
pub const SETTINGS: &str = "this program as a bare loop: no parsing, no logging; a constant response for get-1-file, else open, fstat, send, sendfile";

/// Starts a limit server, with the file that it serves already in place.
pub fn start(kind: ServerKind, setup: &ServerSetup<'_>) -> Outcome<Server> {
    let mode = match (kind, setup.for_put, setup.shared_files) {
        (ServerKind::LimitSplice, _, _) => LimitMode::Splice,
        (_, true, _) => LimitMode::Write,
        (_, false, None) => LimitMode::Memory,
        (_, false, Some(_)) => LimitMode::Open(setup.kind),
    };
    let root = setup.document_root("files")?;
    if mode == LimitMode::Memory {
        let path = root.join(MEMORY_FILE);
        fs::hard_link(&setup.body_file, &path).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    let address = free_address()?;
    let program = env::current_exe().map_err(|e| format!("path of this program: {e}"))?;
    let mut command = Command::new(program);
    command.args([ARGUMENT, mode.name()]);
    command.arg(address.to_string()).arg(&root);
    command.arg(setup.size.to_string());
    if let Some(certificate) = setup.tls {
        command.args([&certificate.chain, &certificate.key]);
    }
    Server::start(kind, &mut command, address, root, setup)
}
