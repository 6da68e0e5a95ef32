//! The beginning, the reload and the end.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mio::{Poll, Token, Waker};

use crate::activation::PassedSocket;
use crate::certificate::ExpiryMonitor;
use crate::config::{self, Config, SecretKey};
use crate::notify::Notifier;
use crate::now::Now;
use crate::reactor::component::Link;
use crate::reactor::listener::{self, Listener};
use crate::reactor::shared::Shared;
use crate::reactor::table::Key;
use crate::reactor::timekeeper::Timekeeper;
use crate::reactor::{
    Acceptor, Connections, Context, LINK, MAX_REJECTED, Reactor, SIGNALS, StartError, Tls, WAKER,
    Xmpp,
};
use crate::resolve::Resolver;
use crate::sandbox::{Permissions, Sandbox};
use crate::service::Service;
use crate::setup::{self, LinkTarget, Setup};
use crate::signals::Signals;
use crate::store::Store;
use crate::store::sweep::{Plan, Sweep};
use crate::syncer::Syncer;
use crate::sys;
use crate::tls::TlsIdentity;

/// Most connections where the configuration names no number.
const MAX_CONNECTIONS: usize = 1024;

/// Descriptors kept for everything but connections: listeners, the link, the store, walks, the log.
const RESERVED_DESCRIPTORS: u64 = 40;

/// The name of the generated slot secret in the store's internal folder, and its length in bytes.
const SECRET_FILE: &str = "slot_secret";
const SECRET_LENGTH: usize = 32;

impl Reactor {
    /// Opens everything: the store and the listeners, of which some may have been passed; then confines this thread and
    /// all that it will start. The link is tried with the first turn, and signals that came meanwhile are looked at.
    pub fn start(
        setup: Setup,
        config_path: PathBuf,
        logfile: Option<&Path>,
        mut signals: Signals,
        passed: Vec<PassedSocket>,
    ) -> Result<Reactor, StartError> {
        let Setup {
            config,
            target,
            slot_secret,
            tls,
            ..
        } = setup;
        let poll = Poll::new().map_err(|e| format!("cannot poll: {e}."))?;
        let descriptors = sys::raise_descriptor_limit();
        let listeners = listen(&config, tls.is_some(), passed, poll.registry())?;
        let mut store = Store::open(&config.storage_path, config.file_mode, config.dir_mode)
            .map_err(|error| error.to_string())?;
        sys::clear_umask();
        log::info!(
            "store open path={} naming={:?}",
            config.storage_path.display(),
            store.naming()
        );
        let slot_secret = match slot_secret {
            Some(secret) => secret,
            None => own_secret(&store)?,
        };
        let waker =
            Waker::new(poll.registry(), WAKER).map_err(|e| format!("cannot make a waker: {e}."))?;
        let waker = Arc::new(waker);
        // Connected now, because the sandbox may not let us later.
        let mut notifier = Notifier::from_environment();
        let now = sys::now();
        let (timekeeper, clock_change) = Timekeeper::start(&mut store, config.fsync, now);
        let service = Service::new(&config, slot_secret.as_bytes());
        let syncer = Syncer::new(Arc::clone(&waker));
        let needs = Permissions::new(&config, &config_path, logfile, target.as_ref());
        let sweep = Sweep::new(&plan(&config, &service), now);
        let (limit, max_rejected) = connection_limits(&config, descriptors);
        let mut shared = Shared::new(config, service, store, syncer, now);
        shared
            .admission
            .usage
            .set_times(shared.store.times().clone());
        shared.set_tombstone_policy();
        shared.recall_removals(now);
        shared.count_total();
        let link = target.map(|target| Link::new(target, LINK, jitter(&mut shared), now));
        let sandbox = match shared.config.sandbox {
            true => Sandbox::enter(needs),
            false => Sandbox::off(),
        };
        for listener in &listeners {
            let what = if listener.is_local() { " for=api" } else { "" };
            let by = if listener.is_passed() {
                " passed=true"
            } else {
                ""
            };
            log::info!("listening on={listener}{what}{by}");
        }
        log::info!("sandbox {sandbox}");
        let tls = watched(tls, now);
        signals
            .watch(poll.registry(), SIGNALS)
            .map_err(|e| format!("cannot watch signals: {e}."))?;
        log::info!("ready pid={}", std::process::id());
        notifier.ready(now.mono);
        let mut reactor = Reactor {
            poll,
            acceptor: Acceptor {
                listeners,
                limit,
                max_rejected,
                paused_until: None,
                out_of_descriptors: false,
            },
            connections: Connections::default(),
            shared,
            xmpp: Xmpp {
                link,
                has_work: false,
                was_up: false,
                resolver: Resolver::new(waker),
            },
            signals,
            notifier,
            sweep,
            timekeeper,
            tls,
            context: Context {
                config_path,
                slot_secret,
                sandbox,
                on_reload: |_| {},
            },
            ending: None,
        };
        if let Some(change) = clock_change {
            // The first sweep does not come at once.
            reactor.clock_changed(change, None);
        }
        Ok(reactor)
    }

    /// Calls this at every reload, with the log level of the new configuration.
    pub fn on_reload(&mut self, hook: fn(log::LevelFilter)) {
        self.context.on_reload = hook;
    }

    /// True when the process is to end at once.
    pub(super) fn obey_signals(&mut self, now: Now) -> bool {
        let asked = self.signals.take();
        let ends = asked.terminate + asked.interrupt;
        if ends > 0 {
            if self.ending.is_some() || ends > 1 {
                log::warn!("forced shutdown");
                self.notifier.stopping(now.mono);
                return true;
            }
            let signal = if asked.terminate > 0 {
                "SIGTERM"
            } else {
                "SIGINT"
            };
            log::info!("shutting down signal={signal}");
            self.notifier.stopping(now.mono);
            self.begin_to_end(now);
        }
        if asked.reload && self.ending.is_none() {
            self.notifier.reloading(now.mono);
            self.reload(now);
            // Reading may have taken its time.
            self.notifier.ready(sys::monotonic());
        }
        false
    }

    /// No new connection, no new request; what is under way is finished.
    pub(super) fn begin_to_end(&mut self, now: Now) {
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
                // A request that has arrived is answered, even if the loop has not come to read it.
                let is_idle = client.disable_keep_alive() && !client.transport().has_unread_input();
                is_idle.then_some(key)
            })
            .collect();
        for key in idle {
            self.remove(key);
        }
    }

    pub(super) fn has_ended(&self, now: Now) -> bool {
        let Some(until) = self.ending else {
            return false;
        };
        let link_is_over = self.xmpp.link.as_ref().is_none_or(Link::is_closed);
        if self.connections.table.is_empty() && link_is_over {
            return true;
        }
        if until <= now.mono {
            log::warn!(
                "shutdown_timeout is over connections={}",
                self.connections.table.len()
            );
            return true;
        }
        false
    }

    /// Reads the configuration anew and applies what can be applied to a running process.
    pub(super) fn reload(&mut self, now: Now) {
        let setup = match setup::read(&self.context.config_path) {
            Ok(setup) => setup,
            Err(failure) => {
                for warning in failure.warnings {
                    log::warn!("config warning={warning:?}");
                }
                for fault in failure.errors {
                    log::error!("config not reloaded why={fault:?}");
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
        log::info!("config reloaded");
    }

    /// Whether sockets that were passed take the place of what this key says.
    fn is_overridden(&self, key: &str) -> bool {
        let local = match key {
            "http_address" | "http_port" => false,
            "api" => true,
            _ => return false,
        };
        let mut passed = self.acceptor.listeners.iter().filter(|l| l.is_passed());
        passed.any(|listener| listener.is_local() == local)
    }

    /// The target, if the sandbox lets us get there, else the present one.
    fn within_reach(&self, target: LinkTarget) -> Option<LinkTarget> {
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
            config,
            target,
            tls,
            ..
        } = setup;
        if self.tls.config.is_some() && tls.is_some() {
            self.tls = watched(tls, now);
        }
        let target = target.and_then(|target| self.within_reach(target));
        match (&mut self.xmpp.link, target) {
            (Some(link), Some(target)) => link.set_target(target, now),
            (Some(_), None) => self.xmpp.link = None,
            (None, Some(target)) => {
                self.xmpp.link = Some(Link::new(target, LINK, jitter(&mut self.shared), now))
            }
            (None, None) => {}
        }
        self.shared.service = Service::new(&config, self.context.slot_secret.as_bytes());
        self.shared.service.set_date(now);
        self.shared
            .store
            .set_modes(config.file_mode, config.dir_mode);
        self.sweep
            .set_plan(&plan(&config, &self.shared.service), now.mono);
        (self.acceptor.limit, self.acceptor.max_rejected) =
            connection_limits(&config, sys::raise_descriptor_limit());
        self.shared.config = config;
        self.shared.set_tombstone_policy();
        self.shared.recount(now);
        for (_, client) in self.connections.table.iter_mut() {
            client.set_timeouts(&self.shared);
        }
    }
}

/// What new connections are served with, and the watch over its certificate.
fn watched(tls: Option<TlsIdentity>, now: Now) -> Tls {
    let Some(TlsIdentity { config, not_after }) = tls else {
        return Tls {
            config: None,
            certificate: None,
        };
    };
    if not_after.is_none() {
        log::warn!("certificate does not say when it expires");
    }
    Tls {
        config: Some(config),
        certificate: not_after.map(|not_after| ExpiryMonitor::new(not_after, now)),
    }
}

/// Where the link's jitter begins.
fn jitter(shared: &mut Shared) -> u32 {
    let [a, b, c, d, ..] = shared.slots.random.take().unwrap_or_default();
    u32::from_le_bytes([a, b, c, d])
}

/// What the sweep goes by.
pub(super) fn plan(config: &Config, service: &Service) -> Plan {
    Plan {
        interval: config.sweep_interval(),
        lifetime: service.lifetime(),
        soft_quota: if config.expire_interval.is_zero() {
            0
        } else {
            config.user_quota_soft
        },
        fsync: config.fsync,
    }
}

/// Connections that can be had, each of which may need a second descriptor for its file; and those beyond them that
/// are taken to be told so, which must not use up what the others need to finish.
fn connection_limits(config: &Config, descriptors: u64) -> (usize, usize) {
    let possible =
        usize::try_from(descriptors.saturating_sub(RESERVED_DESCRIPTORS)).unwrap_or(usize::MAX);
    let rejected = MAX_REJECTED.min(possible / 4).max(1);
    let possible = possible.saturating_sub(rejected) / 2;
    let wanted = config.max_connections.unwrap_or(MAX_CONNECTIONS);
    let most = Key::FIRST_RESERVED as usize - MAX_REJECTED;
    let granted = wanted.min(possible.max(1)).min(most);
    if granted < wanted {
        log::warn!("max_connections limited to={granted} descriptors={descriptors}");
    }
    (granted, rejected)
}

/// Opens all listeners, the local API's last, and lets the loop hear of them.
fn listen(
    config: &Config,
    tls: bool,
    passed: Vec<PassedSocket>,
    registry: &mio::Registry,
) -> Result<Vec<Listener>, StartError> {
    let mut listeners =
        listener::open_all(config, tls, passed).map_err(|errors| errors.join("\n"))?;
    for (index, listener) in listeners.iter_mut().enumerate() {
        let token = Token(Key::FIRST_RESERVED as usize + index);
        listener
            .register(registry, token)
            .map_err(|error| format!("cannot watch {listener}: {error}."))?;
    }
    Ok(listeners)
}

/// The slot secret that the store keeps; made at the first start.
fn own_secret(store: &Store) -> Result<SecretKey, StartError> {
    let fault = |what: &str, error: io::Error| {
        // Another user has made it.
        let remedy = match error.kind() {
            io::ErrorKind::PermissionDenied => format!(
                " What is below storage_path must belong to user {}; in a container under changing users: chgrp -R 0 \
                 and chmod -R g=u.",
                sys::user()
            ),
            _ => String::new(),
        };
        format!("slot_secret: cannot {what} .upslot/{SECRET_FILE}: {error}.{remedy}")
    };
    if let Some(secret) = store
        .read_internal(SECRET_FILE)
        .map_err(|e| fault("read", e))?
    {
        if secret.len() >= SECRET_LENGTH {
            return Ok(SecretKey::new(secret));
        }
    }
    let mut secret = vec![0; SECRET_LENGTH];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut secret)
        .map_err(|_| "slot_secret: the system gives no random bytes.".to_owned())?;
    store
        .write_internal(SECRET_FILE, &secret)
        .map_err(|e| fault("write", e))?;
    Ok(SecretKey::new(secret))
}
