//! From a configuration file to everything that the program starts with: the file itself, the secrets and the
//! certificate that it names. The same at start, at a reload, and for `--check-config`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::config::{self, Component, Config, SecretKey, SecretSource};
use crate::jid::BareJid;
use crate::{sys, tls};

/// Longest secret file; bytes.
const MAX_SECRET: u64 = 4096;

/// Shortest key that signs slots; bytes.
const MIN_SLOT_SECRET: usize = 16;

/// Where service managers and container engines put secrets. Who gets in there, and with what mode the files are
/// made, is for them to say.
const MANAGED: [&str; 2] = ["/run/credentials", "/run/secrets"];

/// Everything that was read.
pub struct Setup {
    pub config: Config,
    /// What is odd, one sentence each.
    pub warnings: Vec<String>,
    /// Where the link leads.
    pub target: Option<Target>,
    /// The key that signs slots, when the operator chose one.
    pub slot_secret: Option<SecretKey>,
    pub tls: Option<tls::Identity>,
}

/// A configuration that cannot be used.
#[derive(Debug)]
pub struct Failure {
    /// Everything that is wrong, one sentence each; never empty.
    pub faults: Vec<String>,
    /// What is odd besides: a misspelt key explains a missing one.
    pub warnings: Vec<String>,
    /// The files that the configuration names, by their keys, as far as it came to that.
    pub files: Vec<(&'static str, PathBuf)>,
}

impl From<Vec<String>> for Failure {
    fn from(faults: Vec<String>) -> Failure {
        Failure {
            faults,
            warnings: Vec::new(),
            files: Vec::new(),
        }
    }
}

/// Where the link leads, and the secret that opens it.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    pub jid: BareJid,
    pub secret: String,
    pub host: String,
    pub port: u16,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Target({} at {}:{})", self.jid, self.host, self.port)
    }
}

impl std::fmt::Debug for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setup")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Reads a configuration and what it names. Fails with everything that is wrong at once.
pub fn read(path: &Path) -> Result<Setup, Failure> {
    let name = path.display();
    let bytes = read_bounded(path, config::MAX_TEXT as u64)
        .map_err(|error| vec![format!("{name}: cannot read the configuration: {error}.")])?;
    let reading = config::read_bytes(&bytes).map_err(|faulty| Failure {
        faults: faulty
            .faults
            .iter()
            .map(|fault| format!("{name}: {fault}"))
            .collect(),
        warnings: faulty
            .warnings
            .iter()
            .map(|warning| format!("{name}: {warning}"))
            .collect(),
        files: Vec::new(),
    })?;
    let config = reading.config;
    let mut faults = Vec::new();
    let target = config.component.as_ref().and_then(|component| {
        target(component)
            .map_err(|fault| faults.push(format!("{name}: {fault}")))
            .ok()
    });
    let slot_secret = slot_secret(&config)
        .map_err(|fault| faults.push(format!("{name}: {fault}")))
        .ok()
        .flatten();
    let tls = config.tls.as_ref().and_then(|files| {
        tls::load(&files.certfile, &files.keyfile)
            .map_err(|error| faults.push(format!("{name}: http_certfile: {error}")))
            .ok()
    });
    let warnings = reading
        .warnings
        .iter()
        .map(ToString::to_string)
        .chain(exposed(path, &config))
        .map(|warning| format!("{name}: {warning}"))
        .collect();
    if !faults.is_empty() {
        return Err(Failure {
            faults,
            warnings,
            files: files(&config)
                .into_iter()
                .map(|(key, path)| (key, path.to_owned()))
                .collect(),
        });
    }
    Ok(Setup {
        warnings,
        config,
        target,
        slot_secret,
        tls,
    })
}

/// The files that a configuration names, by their keys.
pub fn files(config: &Config) -> Vec<(&'static str, &Path)> {
    let mut files = secret_files(config);
    if let Some(tls) = &config.tls {
        files.push(("http_certfile", &tls.certfile));
    }
    files
}

/// Those of them that nobody else should read.
fn secret_files(config: &Config) -> Vec<(&'static str, &Path)> {
    let mut files: Vec<(&'static str, &Path)> = Vec::new();
    if let Some(SecretSource::File(path)) = config.component.as_ref().map(|c| &c.secret) {
        files.push(("component_secret_file", path));
    }
    if let Some(path) = &config.slot_secret_file {
        files.push(("slot_secret_file", path));
    }
    if let Some(tls) = &config.tls {
        files.push(("http_keyfile", &tls.keyfile));
    }
    files
}

/// The keys whose values are secrets, where they stand in the configuration itself.
fn secret_keys(config: &Config) -> Vec<&'static str> {
    let component = config.component.as_ref().map(|c| &c.secret);
    let token = config.api.as_ref().and_then(|api| api.token.as_ref());
    let keys = [
        (
            "component_secret",
            matches!(component, Some(SecretSource::Inline(_))),
        ),
        ("slot_secret", config.slot_secret.is_some()),
        ("api: token", token.is_some()),
        ("external_secret", config.external_secret.is_some()),
        (
            "external_delete_secret",
            config.external_delete_secret.is_some(),
        ),
        ("file_share_secret", config.file_share_secret.is_some()),
    ];
    keys.iter()
        .filter(|(_, there)| *there)
        .map(|(key, _)| *key)
        .collect()
}

fn is_managed(real: &Path) -> bool {
    MANAGED.iter().any(|folder| real.starts_with(folder))
}

/// Says which secrets every user of the machine can read, and how to end that.
fn exposed(path: &Path, config: &Config) -> Vec<String> {
    let remedy = |path: &Path| {
        let real = sys::is_readable_by_all(path)?;
        if is_managed(&real) {
            return None;
        }
        Some(format!(
            "every user of this machine can read it; once its owner or its group is that of upslot, chmod o-rwx {} \
             ends that.",
            real.display()
        ))
    };
    let keys = secret_keys(config);
    let inside = (!keys.is_empty())
        .then(|| remedy(path))
        .flatten()
        .map(|remedy| format!("it holds secrets ({}), and {remedy}", keys.join(", ")));
    let beside = secret_files(config).into_iter().filter_map(|(key, path)| {
        let remedy = remedy(path)?;
        Some(format!("{key} {}: {remedy}", path.display()))
    });
    inside.into_iter().chain(beside).collect()
}

fn target(component: &Component) -> Result<Target, String> {
    let secret = match &component.secret {
        SecretSource::Inline(secret) => secret.expose().to_owned(),
        SecretSource::File(path) => {
            let bytes = read_secret("component_secret_file", path)?;
            String::from_utf8(bytes).map_err(|_| {
                format!("component_secret_file {}: it is not UTF-8.", path.display())
            })?
        }
    };
    let jid = BareJid::parse(&component.jid)
        .ok_or_else(|| format!("component_jid {}: it is no address.", component.jid))?;
    Ok(Target {
        jid,
        secret,
        host: component.host.clone(),
        port: component.port,
    })
}

fn slot_secret(config: &Config) -> Result<Option<SecretKey>, String> {
    if let Some(secret) = &config.slot_secret {
        return Ok(Some(SecretKey::new(secret.as_bytes())));
    }
    let Some(path) = &config.slot_secret_file else {
        return Ok(None);
    };
    let secret = read_secret("slot_secret_file", path)?;
    if secret.len() < MIN_SLOT_SECRET {
        let path = path.display();
        return Err(format!(
            "slot_secret_file {path}: it holds less than {MIN_SLOT_SECRET} bytes."
        ));
    }
    Ok(Some(SecretKey::new(secret)))
}

/// A secret's file without the line end that editors leave.
fn read_secret(key: &str, path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = read_bounded(path, MAX_SECRET)
        .map_err(|error| format!("{key} {}: cannot be read: {error}.", path.display()))?;
    while matches!(bytes.last(), Some(b'\n' | b'\r')) {
        bytes.pop();
    }
    if bytes.is_empty() {
        return Err(format!("{key} {}: it is empty.", path.display()));
    }
    Ok(bytes)
}

fn read_bounded(path: &Path, most: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(std::io::Error::other(format!(
            "it is larger than {most} bytes"
        )));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Service;

    const SECRETS: &str = "component_secret: hush-1\nslot_secret: hush-2-0123456789\nexternal_secret: hush-3\n\
                           external_delete_secret: hush-4\nfile_share_secret: hush-5-0123456789\n\
                           api: {port: 1, token: hush-6-0123456789}\n";

    #[test]
    fn nothing_that_holds_a_secret_shows_it() {
        let path = std::env::temp_dir().join(format!("upslot-setup-{}.yml", std::process::id()));
        let rest = "storage_path: /srv/files\nget_url: https://a/\nput_url: https://a/\nwhitelist: a.example\n\
                    component_jid: up.example\n";
        std::fs::write(&path, format!("{rest}{SECRETS}")).unwrap();
        let setup = read(&path);
        std::fs::remove_file(&path).unwrap();
        let setup = setup.unwrap();
        let key = setup.slot_secret.clone().unwrap();
        let service = Service::new(&setup.config, key.as_bytes());
        let target = setup.target.clone().unwrap();
        let shown = format!(
            "{setup:?} {service:?} {target:?} {key:?} {:?}",
            setup.config
        );
        let begins = |secret: &[u8]| format!("{secret:?}").trim_matches(['[', ']']).to_owned();
        for beginning in ["hush", &begins(b"hush")] {
            assert!(!shown.contains(beginning), "{beginning} is in {shown}");
        }
    }

    #[test]
    fn secrets_of_service_managers_and_containers_are_theirs() {
        for (path, managed) in [
            ("/run/credentials/upslot.service/component_secret", true),
            ("/run/secrets/component_secret", true),
            ("/run/secretsx/component_secret", false),
            ("/etc/upslot/run/secrets", false),
        ] {
            assert_eq!(is_managed(Path::new(path)), managed, "{path}");
        }
    }
}
