//! What the process takes away from itself once everything is open: Landlock, as far as the kernel has it.
//!
//! What the program needs for the rest of its life is known by then, and is all that stays allowed: to write below
//! the folder of the files, to read the configuration and what it names at a reload, to look up names, to connect to
//! the XMPP server. No new TCP port can be bound, no other port be connected to, no program be started, and nobody
//! outside be signalled or reached through an abstract Unix socket.
//!
//! Rules are on folders, because a renewed certificate, a rotated log and a configuration that an editor wrote are
//! new files under old names. A rule holds for the folder that was opened, not for its name. So that a storage folder
//! which is removed and made anew, or mounted over, is found again, its parent is opened to the same extent, unless
//! that would be too much: the root of the file system, or the user's home.
//!
//! The kernel confines the calling thread and the threads that it starts later. Every helper thread starts later.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, NetPort,
    PathBeneath, PathFd, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope, make_bitflags,
};

use crate::config::{Config, Listen};
use crate::setup::{self, Target};

/// The newest kernel interface whose every restriction was tried out with this program.
const TRIED: ABI = ABI::V6;

/// DNS over TCP, for answers that do not fit into a datagram. What goes over UDP is not restricted.
const DNS: u16 = 53;

/// What the C library reads to look up a name: its settings and those of its modules; the modules themselves; and
/// where settings are kept that change while the system runs.
const RESOLVER: [&str; 13] = [
    "/etc",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/nix/store",
    "/gnu/store",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager",
    "/run/connman",
    "/run/dhcpcd",
    "/run/host/etc",
];

/// What usually tells the name servers; often a link.
const NAME_SERVERS: &str = "/etc/resolv.conf";

/// Most links that are followed; as many as the kernel does.
const MOST_LINKS: usize = 40;

const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});

/// Everything that the store does with files, folders and links to removed paths. `Refer` is what gives an unnamed
/// file its name in another folder.
const STORE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
    ReadFile | ReadDir | WriteFile | Truncate | MakeReg | MakeDir | MakeSym | RemoveFile | RemoveDir | Refer
});

/// Opening the log anew.
const LOG: BitFlags<AccessFs> = make_bitflags!(AccessFs::{WriteFile | MakeReg});

/// Removing a Unix socket at the end.
const SOCKET: BitFlags<AccessFs> = make_bitflags!(AccessFs::{RemoveFile});

/// What the program needs from now on. Paths are absolute and without links; a path is a folder with all below it, or
/// a single file where its folder is the root of the file system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    store: Vec<PathBuf>,
    read: Vec<PathBuf>,
    log: Vec<PathBuf>,
    sockets: Vec<PathBuf>,
    /// TCP ports to connect to.
    ports: Vec<u16>,
    /// Whether names can be looked up.
    names: bool,
}

impl Needs {
    /// The needs of a program that runs with this configuration. The storage folder must be there.
    pub fn new(
        config: &Config,
        config_path: &Path,
        logfile: Option<&Path>,
        target: Option<&Target>,
    ) -> Needs {
        let mut needs = Needs::default();
        if let Ok(store) = config.storage_path.canonicalize() {
            let home =
                std::env::var_os("HOME").and_then(|home| Path::new(&home).canonicalize().ok());
            let parent = parent_of_store(&store, home.as_deref());
            needs.store.push(store);
            needs.store.extend(parent);
        }
        add(&mut needs.read, places(config_path));
        for (_, path) in setup::files(config) {
            add(&mut needs.read, places(path));
        }
        if let Some(logfile) = logfile {
            add(&mut needs.log, places(logfile));
        }
        let api = config.api.iter().flat_map(|api| &api.listen);
        for listen in config.listen.iter().chain(api) {
            if let Listen::Unix(path) = listen {
                add(&mut needs.sockets, places(path));
            }
        }
        if let Some(target) = target {
            needs.ports.push(target.port);
            if is_name(&target.host) {
                needs.names = true;
                needs.ports.push(DNS);
                add(&mut needs.read, places(Path::new(NAME_SERVERS)));
                for path in RESOLVER {
                    add(
                        &mut needs.read,
                        Path::new(path).canonicalize().into_iter().collect(),
                    );
                }
            }
        }
        needs
    }
}

/// The confinement of this process.
#[derive(Clone, Debug)]
pub struct Sandbox {
    needs: Needs,
    holds: Holds,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Holds {
    /// Nothing, and why.
    Nothing(String),
    /// Files; and the network and who else can be reached, as far as this version of the interface goes.
    From(i32),
}

impl Sandbox {
    /// No confinement, as configured.
    pub fn off() -> Sandbox {
        Sandbox {
            needs: Needs::default(),
            holds: Holds::Nothing("it is off in the configuration".to_owned()),
        }
    }

    /// Confines the calling thread, and those that it starts from now on, for ever. What the kernel cannot do is left
    /// out; the display tells what holds.
    pub fn enter(needs: Needs) -> Sandbox {
        let holds = match confine(&needs) {
            Ok(status) => match (status.ruleset, status.landlock) {
                (RulesetStatus::NotEnforced, LandlockStatus::NotImplemented) => Holds::Nothing(
                    "the kernel, or who filters calls to it, has no Landlock".to_owned(),
                ),
                (RulesetStatus::NotEnforced, LandlockStatus::NotEnabled) => {
                    Holds::Nothing("Landlock is not switched on in this kernel".to_owned())
                }
                (RulesetStatus::NotEnforced, LandlockStatus::Available { .. }) => {
                    Holds::Nothing("the kernel is older than 5.19".to_owned())
                }
                (
                    _,
                    LandlockStatus::Available {
                        effective_abi,
                        kernel_abi,
                    },
                ) => Holds::From(kernel_abi.unwrap_or(effective_abi as i32)),
                (_, _) => Holds::Nothing("the kernel does not say".to_owned()),
            },
            // Of the many things that this error can say, all but the kernel's word are about mistakes in this file.
            Err(_) => {
                let error = std::io::Error::last_os_error();
                Holds::Nothing(format!("the kernel refuses: {error}"))
            }
        };
        Sandbox { needs, holds }
    }

    /// Whether this file may be read, as far as the sandbox is concerned: a folder that it did not know at the start
    /// may not.
    pub fn reads(&self, path: &Path) -> bool {
        let all =
            |places: &[PathBuf], path: &Path| places.iter().any(|open| path.starts_with(open));
        matches!(self.holds, Holds::Nothing(_))
            || places(path)
                .iter()
                .all(|place| all(&self.needs.read, place) || all(&self.needs.store, place))
    }

    /// The key of the configuration by which this target is out of reach, if it is.
    pub fn bars(&self, target: &Target) -> Option<&'static str> {
        match self.holds {
            Holds::From(abi)
                if abi >= ABI::V4 as i32 && !self.needs.ports.contains(&target.port) =>
            {
                Some("component_port")
            }
            Holds::From(_) if is_name(&target.host) && !self.needs.names => Some("component_host"),
            _ => None,
        }
    }
}

impl fmt::Display for Sandbox {
    /// What holds, as the log has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let abi = match &self.holds {
            Holds::Nothing(why) => return write!(f, "none why={why:?}"),
            Holds::From(abi) => *abi,
        };
        let Needs {
            store,
            read,
            log,
            sockets,
            ports,
            ..
        } = &self.needs;
        write!(
            f,
            "landlock={abi} store={:?} read={:?}",
            list(store),
            list(read)
        )?;
        if !log.is_empty() {
            write!(f, " log={:?}", list(log))?;
        }
        if !sockets.is_empty() {
            write!(f, " sockets={:?}", list(sockets))?;
        }
        if abi < ABI::V4 as i32 {
            return f.write_str(" connect=any bind=any signal=any");
        }
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        let ports = if ports.is_empty() {
            "none".to_owned()
        } else {
            ports.join(",")
        };
        let signal = if abi < ABI::V6 as i32 { "any" } else { "own" };
        write!(f, " connect={ports} bind=none signal={signal}")
    }
}

/// Paths in one text.
fn list(paths: &[PathBuf]) -> String {
    let paths: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    paths.join(" ")
}

fn confine(needs: &Needs) -> Result<RestrictionStatus, RulesetError> {
    let mut rules = Ruleset::default()
        // Without it no upload could get its name: before ABI 2 there is no sandbox rather than no service.
        .set_compatibility(CompatLevel::SoftRequirement)
        .handle_access(AccessFs::Refer)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(TRIED))?
        .handle_access(AccessNet::from_all(TRIED))?
        .scope(Scope::from_all(TRIED))?
        .create()?;
    let Needs {
        store,
        read,
        log,
        sockets,
        ports,
        ..
    } = needs;
    for (paths, access) in [(store, STORE), (read, READ), (log, LOG), (sockets, SOCKET)] {
        for path in paths {
            // What is not there, or not ours, needs no permission.
            if let Ok(place) = PathFd::new(path) {
                let access = if path.is_dir() {
                    access
                } else {
                    access & AccessFs::from_file(TRIED)
                };
                if !access.is_empty() {
                    rules = rules.add_rule(PathBeneath::new(place, access))?;
                }
            }
        }
    }
    for port in ports {
        rules = rules.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
    }
    rules.restrict_self()
}

/// The folder in which a storage folder can be made anew. None where it would open too much.
fn parent_of_store(store: &Path, home: Option<&Path>) -> Option<PathBuf> {
    let is_too_much = |folder: &Path| folder.parent().is_none() || home == Some(folder);
    let parent = store.parent().filter(|parent| !is_too_much(parent));
    parent.map(Path::to_owned)
}

/// Adds what is not there yet.
fn add(paths: &mut Vec<PathBuf>, more: Vec<PathBuf>) {
    for path in more {
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
}

/// Whether a look-up is needed; see [`crate::resolve`].
fn is_name(host: &str) -> bool {
    let number = host.trim_start_matches('[').trim_end_matches(']');
    number.parse::<IpAddr>().is_err() && !host.eq_ignore_ascii_case("localhost")
}

/// The folders that must be open so that a file can be found under its name: its own, and that of each file to which
/// a link leads (certbot's certificates are links into a second folder). Instead of the root of the file system it is
/// the file alone: a single file mounted into a container has no folder of its own.
fn places(path: &Path) -> Vec<PathBuf> {
    let mut places = Vec::new();
    let Ok(mut at) = std::path::absolute(path) else {
        return places;
    };
    for _ in 0..MOST_LINKS {
        let (Some(folder), Some(name)) = (at.parent(), at.file_name()) else {
            break;
        };
        let Ok(folder) = folder.canonicalize() else {
            break;
        };
        let file = folder.join(name);
        let link = std::fs::read_link(&file);
        let is_root = folder.parent().is_none();
        places.push(if is_root { file } else { folder.clone() });
        match link {
            Ok(target) => at = folder.join(target),
            Err(_) => break,
        }
    }
    places
}

#[cfg(test)]
mod tests;
