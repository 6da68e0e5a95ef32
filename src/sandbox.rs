//! Sandboxing with Landlock, as far as the kernel supports it, once all listeners and files are open.
//!
//! At that point, all permissions that the process will need are known, and everything else is denied. It may still
//! write below the storage folder, read the configuration and the files named there (for a reload), resolve names, and
//! connect to the XMPP server and the object store. It can no longer bind TCP ports, connect to other ports, start
//! programs, send signals to other processes, or connect to their abstract Unix sockets.
//!
//! Rules apply to folders instead of files, because a renewed certificate, a rotated log and a configuration saved by
//! an editor are new files under the same name. A rule is bound to the folder that was opened, not to its path. To find
//! the storage folder after it was deleted and recreated, or mounted over, its parent gets the same permissions, unless
//! the parent is the root of the file system or the user's home.
//!
//! Landlock confines the calling thread and all threads that it starts later. Every helper thread is started later.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, NetPort,
    PathBeneath, PathFd, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope, make_bitflags,
};

use crate::config::{Config, Listen, keys};
use crate::setup::{self, LinkTarget};
use crate::tls;

/// The newest Landlock ABI whose restrictions have all been tested with this program.
const TESTED_ABI: ABI = ABI::V6;

/// DNS over TCP, for answers that do not fit in a datagram. Landlock does not restrict UDP.
const DNS_PORT: u16 = 53;

/// Folders that the C library reads to resolve a name: its configuration, its NSS modules and their configuration, and
/// settings that change at run time.
const RESOLVER_FOLDERS: [&str; 13] = [
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

/// Lists the name servers; often a symbolic link.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Maximum number of symbolic links followed, as in the kernel.
const MAX_LINKS: usize = 40;

const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});

/// All operations of the store on files, folders and symbolic links. Linking an unnamed file into another folder needs
/// `Refer`.
const STORE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
    ReadFile | ReadDir | WriteFile | Truncate | MakeReg | MakeDir | MakeSym | RemoveFile | RemoveDir | Refer
});

/// Reopening the log.
const LOG: BitFlags<AccessFs> = make_bitflags!(AccessFs::{WriteFile | MakeReg});

/// Removing a Unix socket at shutdown.
const SOCKET: BitFlags<AccessFs> = make_bitflags!(AccessFs::{RemoveFile});

/// The permissions that the program needs from now on. Paths are absolute and free of links; each stands for a folder
/// with everything below it, or for a single file if its folder is the root of the file system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    store: Vec<PathBuf>,
    read: Vec<PathBuf>,
    log: Vec<PathBuf>,
    sockets: Vec<PathBuf>,
    /// TCP ports to connect to.
    ports: Vec<u16>,
    /// Whether host names can be resolved.
    names: bool,
}

impl Permissions {
    /// The permissions needed under this configuration. The storage folder, if there is one, must exist.
    pub fn new(
        config: &Config,
        config_path: &Path,
        logfile: Option<&Path>,
        target: Option<&LinkTarget>,
    ) -> Permissions {
        let mut permissions = Permissions::default();
        if let Ok(store) = config.storage_path.canonicalize() {
            let home =
                std::env::var_os("HOME").and_then(|home| Path::new(&home).canonicalize().ok());
            let parent = parent_of_store(&store, home.as_deref());
            permissions.store.push(store);
            permissions.store.extend(parent);
        }
        add(&mut permissions.read, places(config_path));
        for (_, path) in setup::named_files(config) {
            add(&mut permissions.read, places(path));
        }
        if let Some(logfile) = logfile {
            add(&mut permissions.log, places(logfile));
        }
        let api = config.api.iter().flat_map(|api| &api.listen);
        for listen in config.listen.iter().chain(api) {
            if let Listen::Unix(path) = listen {
                add(&mut permissions.sockets, places(path));
            }
        }
        if let Some(target) = target {
            permissions.add_peer(&target.host, target.port);
        }
        if let Some(store) = &config.s3 {
            let origin = &store.internal_endpoint;
            match store.path_style {
                true => permissions.add_peer(&origin.host, origin.port),
                // The bucket is the first label, so that even localhost must be resolved.
                false => {
                    permissions.add_peer(&format!("{}.{}", store.bucket, origin.host), origin.port)
                }
            }
            // A reload may turn to the system's bundle.
            if let Some(path) = tls::system_bundle().filter(|_| origin.tls) {
                add(&mut permissions.read, places(&path));
            }
        }
        permissions
    }

    /// Adds what is needed to connect to a server.
    fn add_peer(&mut self, host: &str, port: u16) {
        add(&mut self.ports, vec![port]);
        if is_name(host) {
            self.names = true;
            add(&mut self.ports, vec![DNS_PORT]);
            add(&mut self.read, places(Path::new(RESOLV_CONF)));
            for path in RESOLVER_FOLDERS {
                let folder = Path::new(path).canonicalize();
                add(&mut self.read, folder.into_iter().collect());
            }
        }
    }
}

/// The confinement of this process.
#[derive(Clone, Debug)]
pub struct Sandbox {
    permissions: Permissions,
    enforcement: Enforcement,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Enforcement {
    /// No restrictions, for this reason.
    Off(String),
    /// The restrictions of this Landlock ABI version: files, and since versions 4 and 6 TCP and signals.
    Landlock(i32),
}

impl Sandbox {
    /// A sandbox that is turned off in the configuration.
    pub fn off() -> Sandbox {
        Sandbox {
            permissions: Permissions::default(),
            enforcement: Enforcement::Off("it is off in the configuration".to_owned()),
        }
    }

    /// Confines the calling thread and all threads that it starts from now on. This cannot be undone. Restrictions that
    /// the kernel does not support are left out; `Display` shows what is in force.
    pub fn enter(permissions: Permissions) -> Sandbox {
        let none = |why: &str| Enforcement::Off(why.to_owned());
        let enforcement = match confine(&permissions) {
            Ok(status) => match (status.ruleset, status.landlock) {
                (RulesetStatus::NotEnforced, LandlockStatus::NotImplemented) => {
                    none("the kernel has no Landlock, or a system call filter blocks it")
                }
                (RulesetStatus::NotEnforced, LandlockStatus::NotEnabled) => {
                    none("Landlock is not enabled in this kernel")
                }
                (RulesetStatus::NotEnforced, LandlockStatus::Available { .. }) => {
                    none("the kernel is older than 5.19")
                }
                (
                    _,
                    LandlockStatus::Available {
                        effective_abi,
                        kernel_abi,
                    },
                ) => Enforcement::Landlock(kernel_abi.unwrap_or(effective_abi as i32)),
                (_, _) => none("the kernel reports no status"),
            },
            // All variants of this error but a failed system call mean a bug in this file.
            Err(_) => {
                let error = std::io::Error::last_os_error();
                Enforcement::Off(format!("the kernel refuses: {error}"))
            }
        };
        Sandbox {
            permissions,
            enforcement,
        }
    }

    /// Whether the sandbox allows reading this file. Folders that were not known at start are not readable.
    pub fn allows_reading(&self, path: &Path) -> bool {
        let covers =
            |folders: &[PathBuf], path: &Path| folders.iter().any(|open| path.starts_with(open));
        matches!(self.enforcement, Enforcement::Off(_))
            || places(path).iter().all(|place| {
                covers(&self.permissions.read, place) || covers(&self.permissions.store, place)
            })
    }

    /// The configuration key because of which the sandbox blocks this target, if it does.
    pub fn blocking_key(&self, target: &LinkTarget) -> Option<&'static str> {
        match self.enforcement {
            Enforcement::Landlock(abi)
                if abi >= ABI::V4 as i32 && !self.permissions.ports.contains(&target.port) =>
            {
                Some(keys::COMPONENT_PORT.name())
            }
            Enforcement::Landlock(_) if is_name(&target.host) && !self.permissions.names => {
                Some(keys::COMPONENT_HOST.name())
            }
            _ => None,
        }
    }
}

impl fmt::Display for Sandbox {
    /// The restrictions in force, for the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let abi = match &self.enforcement {
            Enforcement::Off(why) => return write!(f, "none why={why:?}"),
            Enforcement::Landlock(abi) => *abi,
        };
        let Permissions {
            store,
            read,
            log,
            sockets,
            ports,
            ..
        } = &self.permissions;
        write!(f, "landlock={abi}")?;
        if !store.is_empty() {
            write!(f, " store={:?}", list(store))?;
        }
        write!(f, " read={:?}", list(read))?;
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

/// The paths, separated by spaces.
fn list(paths: &[PathBuf]) -> String {
    let paths: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    paths.join(" ")
}

fn confine(permissions: &Permissions) -> Result<RestrictionStatus, RulesetError> {
    let mut rules = Ruleset::default()
        // Publishing an upload needs `Refer`. Before ABI 2, which introduced it, the sandbox is left off instead of
        // breaking the service.
        .set_compatibility(CompatLevel::SoftRequirement)
        .handle_access(AccessFs::Refer)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(TESTED_ABI))?
        .handle_access(AccessNet::from_all(TESTED_ABI))?
        .scope(Scope::from_all(TESTED_ABI))?
        .create()?;
    let Permissions {
        store,
        read,
        log,
        sockets,
        ports,
        ..
    } = permissions;
    for (paths, access) in [(store, STORE), (read, READ), (log, LOG), (sockets, SOCKET)] {
        for path in paths {
            // A path that does not exist or cannot be opened needs no permission.
            if let Ok(fd) = PathFd::new(path) {
                let access = if path.is_dir() {
                    access
                } else {
                    access & AccessFs::from_file(TESTED_ABI)
                };
                if !access.is_empty() {
                    rules = rules.add_rule(PathBeneath::new(fd, access))?;
                }
            }
        }
    }
    for port in ports {
        rules = rules.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
    }
    rules.restrict_self()
}

/// The parent of the storage folder, in which it can be recreated; `None` if allowing access to it would be too broad.
fn parent_of_store(store: &Path, home: Option<&Path>) -> Option<PathBuf> {
    let is_too_broad = |folder: &Path| folder.parent().is_none() || home == Some(folder);
    let parent = store.parent().filter(|parent| !is_too_broad(parent));
    parent.map(Path::to_owned)
}

/// Adds items that are not in the list yet.
fn add<T: PartialEq>(list: &mut Vec<T>, more: Vec<T>) {
    for item in more {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}

/// Whether the host must be resolved; see [`crate::resolve`].
fn is_name(host: &str) -> bool {
    let number = host.trim_start_matches('[').trim_end_matches(']');
    number.parse::<IpAddr>().is_err() && !host.eq_ignore_ascii_case("localhost")
}

/// The folders that must be accessible to open a file by its path: its own, and those of all links on the way (certbot's
/// certificates are links into a second folder). If the folder is the root of the file system, as for a single file
/// mounted into a container, the file itself takes its place.
fn places(path: &Path) -> Vec<PathBuf> {
    let mut places = Vec::new();
    let Ok(mut at) = std::path::absolute(path) else {
        return places;
    };
    for _ in 0..MAX_LINKS {
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
