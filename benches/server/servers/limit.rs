//! A limit line: this program itself, started again as a bare loop.

use std::env;
use std::fs;
use std::process::Command;

use crate::cases::SMALL;
use crate::common::kind::Kind;
use crate::common::outcome::Outcome;
use crate::limit::{ARGUMENT, Line};
use crate::servers::launch::{free_address, make};
use crate::servers::server::Server;
use crate::servers::setup::Setup;

/// What it is, for the user to see.
pub const SETTINGS: &str =
    "this program as a bare loop: it parses nothing, logs nothing, and has one answer";

/// Starts it. What it is to send lies there before.
pub fn start(kind: Kind, setup: &Setup<'_>) -> Outcome<Server> {
    let size = setup.size;
    let line = match (kind, setup.put) {
        (Kind::LimitSplice, _) => Line::Splice,
        (_, true) => Line::Write,
        (_, false) if size <= SMALL => Line::Memory,
        (_, false) => Line::File,
    };
    let root = make(&setup.folder, "files")?;
    if matches!(line, Line::Memory | Line::File) {
        let path = root.join("0");
        fs::hard_link(&setup.body, &path).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    let address = free_address()?;
    let program = env::current_exe().map_err(|e| format!("This program: {e}"))?;
    let mut command = Command::new(program);
    command.args([ARGUMENT, line.name()]);
    command.arg(address.to_string()).arg(&root);
    command.arg(size.to_string());
    if let Some(certificate) = setup.tls {
        command.args([&certificate.chain, &certificate.key]);
    }
    Server::start(kind, &mut command, address, root, setup)
}
