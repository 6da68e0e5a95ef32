//! Start, reload and shutdown.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mio::{Poll, Token, Waker};
use rustls::ClientConfig;

use crate::activation::PassedSocket;
use crate::certificate::ExpiryMonitor;
use crate::config::{self, Config, SecretKey, keys};
use crate::notify::Notifier;
use crate::now::Now;
#[cfg(feature = "s3")]
use crate::reactor::bucket_store::BucketStore;
use crate::reactor::component::Link;
use crate::reactor::connections::Connections;
use crate::reactor::executions::Executions;
use crate::reactor::listener::{self, Listener};
use crate::reactor::random;
use crate::reactor::shared::{Shared, Status};
use crate::reactor::storage::Storage;
use crate::reactor::table::Key;
use crate::reactor::timekeeper::Timekeeper;
#[cfg(feature = "s3")]
use crate::reactor::upstream::UpstreamTarget;
use crate::reactor::{
    Acceptor, Context, FIRST_LISTENER, LINK, MAX_REJECTED, Reactor, SIGNALS, StartError, Tls,
    WAKER, Xmpp,
};
use crate::sandbox::{Permissions, Sandbox};
use crate::service::Service;
use crate::setup::{self, LinkTarget, Setup};
use crate::signals::Signals;
use crate::store::sweep::Sweep;
use crate::store::{SLOT_SECRET_LENGTH, Store};
use crate::syncer::Syncer;
use crate::sys;
use crate::tls::TlsIdentity;

/// The default of `max_connections`.
const MAX_CONNECTIONS: usize = 1024;

/// Descriptors reserved for other uses than connections: listeners, the link, the store, walks, the log.
const RESERVED_DESCRIPTORS: u64 = 40;

/// Descriptors reserved for connections to an object store that are no client connection's second one: those of small
/// requests, and idle ones. Without one, the store would seem to be unreachable for everyone.
const STORE_DESCRIPTORS: u64 = 100;

impl Reactor {
    /// Opens the store and the listeners, except those that the service manager passed, and then enters the sandbox.
    /// The link is opened in the first turn, which also handles signals that arrived meanwhile.
    pub fn start(
        setup: Setup,
        config_path: PathBuf,
        logfile: Option<&Path>,
        mut signals: Signals,
        passed: Vec<PassedSocket>,
    ) -> Result<Reactor, StartError> {
        let Setup { config, target, .. } = setup;
        let poll = Poll::new().map_err(cannot("poll"))?;
        let descriptors = sys::raise_descriptor_limit();
        let listeners = listen(&config, setup.tls.is_some(), passed, poll.registry())?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(cannot("make a waker"))?;
        let waker = Arc::new(waker);
        let now = sys::now();
        let mut storage = open_storage(&config, setup.store_tls, &waker, now)?;
        let slot_secret = match (setup.slot_secret, storage.folder()) {
            (Some(secret), _) => secret,
            (None, Some(store)) => own_secret(store)?,
            (None, None) => return Err("slot_secret: required with s3.".to_owned()),
        };
        // Connected now, because the sandbox may prevent it later.
        let mut notifier = Notifier::from_environment();
        let timekeeper = Timekeeper::start(storage.folder_mut(), config.fsync, now);
        let service = Service::new(&config, slot_secret.as_bytes());
        let syncer = Syncer::new(Arc::clone(&waker));
        let needs = Permissions::new(&config, &config_path, logfile, target.as_ref());
        let (limits, unused) = divide_descriptors(&config, descriptors);
        let acceptor = Acceptor::new(listeners, limits);
        let mut shared = Shared::new(config, service, storage, syncer, now);
        shared.open_files.set_capacity(unused);
        shared.load(now);
        let sandbox = match shared.config.sandbox {
            true => Sandbox::enter(needs),
            false => Sandbox::off(),
        };
        log_listeners(&acceptor.listeners);
        log::info!("sandbox {sandbox}");
        let tls = monitored(setup.tls, &mut shared.status, now);
        let watched = signals.watch(poll.registry(), SIGNALS);
        watched.map_err(cannot("watch signals"))?;
        log::info!("ready pid={}", std::process::id());
        notifier.ready(now.mono);
        let link = target.map(|target| Link::new(target, LINK, now));
        Ok(Reactor {
            poll,
            acceptor,
            connections: Connections::new(now.mono),
            xmpp: Xmpp::new(link, waker, Executions::new(slot_secret.as_bytes())),
            signals,
            notifier,
            sweep: Sweep::new(&shared.sweep_plan(), now),
            shared,
            timekeeper,
            tls,
            context: Context {
                config_path,
                slot_secret,
                sandbox,
                on_reload: |_| {},
            },
            ending: None,
        })
    }

    /// Sets a function to call at every reload, with the log level of the new configuration.
    pub fn on_reload(&mut self, hook: fn(log::LevelFilter)) {
        self.context.on_reload = hook;
    }

    /// Handles the signals that arrived. True if the process must exit immediately.
    pub(super) fn handle_signals(&mut self, now: Now) -> bool {
        let signals = self.signals.take();
        let ends = signals.terminate + signals.interrupt;
        if ends > 0 {
            if self.ending.is_some() || ends > 1 {
                log::warn!("forced shutdown");
                self.notifier.stopping(now.mono);
                return true;
            }
            let signal = if signals.terminate > 0 {
                "SIGTERM"
            } else {
                "SIGINT"
            };
            log::info!("shutting down signal={signal}");
            self.notifier.stopping(now.mono);
            self.begin_shutdown(now);
        }
        if signals.reload && self.ending.is_none() {
            self.notifier.reloading(now.mono);
            self.reload(now);
            // Reading the files may have taken a while.
            self.notifier.ready(sys::monotonic());
        }
        false
    }

    /// Begins the shutdown: accepts no connections and no requests, and lets requests under way finish.
    fn begin_shutdown(&mut self, now: Now) {
        self.ending = Some(now.mono + self.shared.config.shutdown_timeout);
        self.acceptor.listeners.clear();
        if let Some(link) = &mut self.xmpp.link {
            link.close(now);
            self.xmpp.has_work = true;
        }
        let idle: Vec<Key> = self
            .connections
            .table
            .iter_mut()
            .filter_map(|(key, client)| {
                // A request that has arrived is answered, even if it is not read yet.
                let is_idle = client.disable_keep_alive() && !client.transport().has_unread_input();
                is_idle.then_some(key)
            })
            .collect();
        for key in idle {
            self.remove(key);
        }
    }

    /// Whether the shutdown is complete.
    pub(super) fn has_ended(&self, now: Now) -> bool {
        let Some(until) = self.ending else {
            return false;
        };
        let link_is_closed = self.xmpp.link.as_ref().is_none_or(Link::is_closed);
        let is_recording = self.shared.storage.is_recording();
        if self.connections.table.is_empty() && link_is_closed && !is_recording {
            return true;
        }
        if until <= now.mono {
            let unrecorded = if is_recording {
                " why=\"revocations not recorded\""
            } else {
                ""
            };
            log::warn!(
                "shutdown_timeout is over connections={}{unrecorded}",
                self.connections.table.len()
            );
            return true;
        }
        false
    }

    /// Reads the configuration again and applies what a running process can apply.
    pub(super) fn reload(&mut self, now: Now) {
        let setup = match setup::read(&self.context.config_path) {
            Ok(setup) => setup,
            Err(failure) => {
                self.shared.status.reload_failed = true;
                for warning in failure.warnings {
                    log::warn!("config warning={warning:?}");
                }
                for error in failure.errors {
                    log::error!("config not reloaded why={error:?}");
                }
                for (key, path) in failure.files {
                    if !self.context.sandbox.allows_reading(&path) {
                        log::error!(
                            "config key={key} needs a restart why=\"the sandbox does not reach {}\"",
                            path.display()
                        );
                    }
                }
                return;
            }
        };
        for warning in &setup.warnings {
            log::warn!("config warning={warning:?}");
        }
        for key in config::restart_keys(&self.shared.config, &setup.config) {
            match self.is_overridden(key) {
                true => log::warn!(
                    "config key={key} has no effect why=\"the service manager passes the sockets\""
                ),
                false => log::warn!("config key={key} needs a restart to take effect"),
            }
        }
        (self.context.on_reload)(setup.config.log_level);
        self.shared.open_files.close();
        self.apply(setup, now);
        self.shared.status.reload_failed = false;
        log::info!("config reloaded");
    }

    /// Whether passed sockets override this key.
    fn is_overridden(&self, key: &str) -> bool {
        let local = match key {
            _ if key == keys::HTTP_ADDRESS.name() || key == keys::HTTP_PORT.name() => false,
            _ if key == keys::API.name() => true,
            _ => return false,
        };
        let mut passed = self.acceptor.listeners.iter().filter(|l| l.is_passed());
        passed.any(|listener| listener.is_local() == local)
    }

    /// The new target of the link, or the present one if the sandbox does not allow the new one.
    fn permitted_target(&self, target: LinkTarget) -> Option<LinkTarget> {
        let Some(key) = self.context.sandbox.blocking_key(&target) else {
            return Some(target);
        };
        log::warn!(
            "config key={key} needs a restart to take effect why=\"the sandbox does not reach it\""
        );
        self.xmpp.link.as_ref().map(|link| link.target().clone())
    }

    pub(super) fn apply(&mut self, setup: Setup, now: Now) {
        let Setup {
            mut config,
            target,
            tls,
            store_tls,
            ..
        } = setup;
        #[cfg(feature = "s3")]
        self.apply_object_store(&mut config, store_tls, now);
        #[cfg(not(feature = "s3"))]
        let _ = (&mut config, store_tls);
        if self.tls.config.is_some() && tls.is_some() {
            self.tls = monitored(tls, &mut self.shared.status, now);
        }
        let target = target.and_then(|target| self.permitted_target(target));
        match (&mut self.xmpp.link, target) {
            (Some(link), Some(target)) => link.set_target(target, now),
            (Some(_), None) => self.xmpp.link = None,
            (None, Some(target)) => {
                self.xmpp.link = Some(Link::new(target, LINK, now));
            }
            (None, None) => {}
        }
        self.shared.service = Service::new(&config, self.context.slot_secret.as_bytes());
        self.shared.service.set_date(now);
        let storage = &mut self.shared.storage;
        storage.set_modes(config.file_mode, config.dir_mode);
        let descriptors = sys::raise_descriptor_limit();
        let (limits, unused) = divide_descriptors(&config, descriptors);
        self.shared.open_files.set_capacity(unused);
        (self.acceptor.limit, self.acceptor.max_rejected) = limits;
        self.shared.config = config;
        self.sweep.set_plan(&self.shared.sweep_plan(), now.mono);
        self.shared.set_tombstone_policy(now);
        self.shared.recount(now);
        #[cfg(feature = "s3")]
        self.shared.plan_tasks(now);
        for (_, client) in self.connections.table.iter_mut() {
            client.set_timeouts(&self.shared);
        }
    }
}

#[cfg(feature = "s3")]
impl Reactor {
    /// Takes over what can change of the object store. The files stay where they are until a restart, so that another
    /// place is not taken over, and neither is a section that is new or gone.
    fn apply_object_store(
        &mut self,
        config: &mut Config,
        tls: Option<Arc<ClientConfig>>,
        now: Now,
    ) {
        let old = &self.shared.config;
        let is_same = match (&old.s3, &config.s3) {
            (Some(old), Some(new)) => old.is_same_place(new),
            (None, None) => return,
            _ => false,
        };
        if !is_same {
            config.s3.clone_from(&old.s3);
            config.storage_path.clone_from(&old.storage_path);
            config.min_free_space = old.min_free_space;
            config.fsync = old.fsync;
            return;
        }
        let Some(bucket) = self.shared.storage.bucket_mut() else {
            return;
        };
        match upstream_target(config, tls) {
            Ok(Some(target)) => bucket.set_target(target, now),
            Ok(None) => {}
            Err(why) => log::error!("object store not changed why={why:?}"),
        }
    }
}

fn cannot(what: &str) -> impl Fn(io::Error) -> StartError {
    move |error| format!("cannot {what}: {error}.")
}

/// Opens the folder of the stored files, or prepares the connections to an object store.
fn open_storage(
    config: &Config,
    tls: Option<Arc<ClientConfig>>,
    waker: &Arc<Waker>,
    now: Now,
) -> Result<Storage, StartError> {
    #[cfg(feature = "s3")]
    if let Some(target) = upstream_target(config, tls.clone())? {
        let bucket = BucketStore::new(target, Arc::clone(waker), now);
        return Ok(Storage::Bucket(Box::new(bucket)));
    }
    let _ = (tls, waker, now);
    Ok(Storage::Folder(Box::new(open_store(config)?)))
}

/// The object store of the configuration, if it has one.
#[cfg(feature = "s3")]
fn upstream_target(
    config: &Config,
    tls: Option<Arc<ClientConfig>>,
) -> Result<Option<UpstreamTarget>, StartError> {
    let Some(store) = &config.s3 else {
        return Ok(None);
    };
    let origin = store.internal_origin();
    log::info!("object store endpoint={origin} bucket={}", store.bucket);
    UpstreamTarget::new(&origin, tls, config.body_timeout).map(Some)
}

/// Opens the store.
fn open_store(config: &Config) -> Result<Store, StartError> {
    let store = Store::open(&config.storage_path, config.file_mode, config.dir_mode)
        .map_err(|error| error.to_string())?;
    // The configured modes apply as they are.
    sys::clear_umask();
    log::info!(
        "store open path={} naming={:?}",
        config.storage_path.display(),
        store.naming()
    );
    Ok(store)
}

/// The TLS identity of new connections, with the monitor of its certificate.
fn monitored(tls: Option<TlsIdentity>, status: &mut Status, now: Now) -> Tls {
    let Some(TlsIdentity { config, not_after }) = tls else {
        return Tls::default();
    };
    status.certificate_expiry = not_after;
    if not_after.is_none() {
        log::warn!("certificate does not say when it expires");
    }
    Tls {
        config: Some(config),
        certificate: not_after.map(|not_after| ExpiryMonitor::new(not_after, now)),
    }
}

/// Divides the descriptors: the maximum number of connections, each of which may need a second descriptor for a file; the
/// maximum number of connections beyond it that are accepted only to be answered with 503, and must not use the
/// descriptors of the others; and the number of descriptors that are left even then.
fn divide_descriptors(config: &Config, descriptors: u64) -> ((usize, usize), usize) {
    let reserved = match config.s3 {
        None => RESERVED_DESCRIPTORS,
        Some(_) => RESERVED_DESCRIPTORS + STORE_DESCRIPTORS,
    };
    let possible = usize::try_from(descriptors.saturating_sub(reserved)).unwrap_or(usize::MAX);
    let rejected = MAX_REJECTED.min(possible / 4).max(1);
    let most = possible.saturating_sub(rejected) / 2;
    let wanted = config.max_connections.unwrap_or(MAX_CONNECTIONS);
    let granted = wanted.min(most.max(1));
    if granted < wanted {
        log::warn!("max_connections limited to={granted} descriptors={descriptors}");
    }
    let unused = possible.saturating_sub(2 * granted + rejected);
    ((granted, rejected), unused)
}

fn log_listeners(listeners: &[Listener]) {
    for listener in listeners {
        let purpose = if listener.is_local() { " for=api" } else { "" };
        let origin = match listener.is_passed() {
            true => " passed=true",
            false => "",
        };
        log::info!("listening on={listener}{purpose}{origin}");
    }
}

/// Opens all listeners, those of the local API last, and registers them.
fn listen(
    config: &Config,
    tls: bool,
    passed: Vec<PassedSocket>,
    registry: &mio::Registry,
) -> Result<Vec<Listener>, StartError> {
    let listeners = listener::open_all(config, tls, passed).map_err(|errors| errors.join("\n"))?;
    for (index, listener) in listeners.iter().enumerate() {
        let token = Token(FIRST_LISTENER + index);
        listener
            .register(registry, token)
            .map_err(|error| format!("cannot watch {listener}: {error}."))?;
    }
    Ok(listeners)
}

/// The slot secret in the store, which is created at the first start.
fn own_secret(store: &Store) -> Result<SecretKey, StartError> {
    let failure = |operation: &str, error: io::Error| {
        // The file belongs to another user.
        let remedy = match error.kind() {
            io::ErrorKind::PermissionDenied => format!(
                " All files below storage_path must belong to user {}; in a container with changing users: chgrp -R 0 \
                 and chmod -R g=u.",
                sys::user()
            ),
            _ => String::new(),
        };
        format!(
            "slot_secret: cannot {operation} .upslot/{}: {error}.{remedy}",
            Store::SLOT_SECRET
        )
    };
    if let Some(secret) = store.slot_secret().map_err(|e| failure("read", e))? {
        return Ok(SecretKey::new(secret));
    }
    let secret: [u8; SLOT_SECRET_LENGTH] = random::bytes()
        .ok_or_else(|| "slot_secret: the system gives no random bytes.".to_owned())?;
    store
        .write_internal(Store::SLOT_SECRET, &secret)
        .map_err(|e| failure("write", e))?;
    Ok(SecretKey::new(secret.to_vec()))
}
