//! An object store: this program, started as one.

use std::env;
use std::net::SocketAddr;
use std::process::Command;

use crate::common::outcome::Outcome;
use crate::object_store::{ARGUMENT, STALLED};
use crate::process::Process;
use crate::servers::launch::{await_listening, free_address};
use crate::servers::setup::ServerSetup;

/// What a store begins with.
#[derive(Clone, Copy, Debug)]
pub enum StoredObjects {
    /// So many objects.
    Count(usize),
    /// Nothing, and it accepts uploads and reads none of them.
    Stalled,
}

/// A running object store. It has the core of the client.
#[derive(Debug)]
pub struct StoreProcess {
    pub address: SocketAddr,
    pub process: Process,
}

impl StoreProcess {
    pub fn start(setup: &ServerSetup<'_>, objects: StoredObjects) -> Outcome<StoreProcess> {
        let address = free_address()?;
        let program = env::current_exe().map_err(|e| format!("path of this program: {e}"))?;
        let mut command = Command::new(program);
        command.args([ARGUMENT, &address.to_string()]);
        match objects {
            StoredObjects::Count(count) => command.arg(count.to_string()),
            StoredObjects::Stalled => command.args(["0", STALLED]),
        };
        let mut process = Process::start("object store", &mut command, &setup.folder)?;
        await_listening(address, &mut process, setup.stop)?;
        Ok(StoreProcess { address, process })
    }
}
