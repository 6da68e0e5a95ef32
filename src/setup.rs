//! From a configuration file to everything that the program starts with: the file itself, the secrets and the
//! certificate that it names. The same at start, at a reload, and for `--check-config`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::config::{self, Component, Config, SecretSource};
use crate::jid::BareJid;
use crate::tls;

/// Longest secret file; bytes.
const MAX_SECRET: u64 = 4096;

/// Shortest key that signs slots; bytes.
const MIN_SLOT_SECRET: usize = 16;

/// Everything that was read.
pub struct Setup {
    pub config: Config,
    /// What is odd, one sentence each.
    pub warnings: Vec<String>,
    /// Where the link leads.
    pub target: Option<Target>,
    /// The key that signs slots, when the operator chose one.
    pub slot_secret: Option<Vec<u8>>,
    pub tls: Option<tls::Identity>,
}

/// A configuration that cannot be used.
#[derive(Debug)]
pub struct Failure {
    /// Everything that is wrong, one sentence each; never empty.
    pub faults: Vec<String>,
    /// What is odd besides: a misspelt key explains a missing one.
    pub warnings: Vec<String>,
}

impl From<Vec<String>> for Failure {
    fn from(faults: Vec<String>) -> Failure {
        Failure {
            faults,
            warnings: Vec::new(),
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
    if !faults.is_empty() {
        return Err(faults.into());
    }
    Ok(Setup {
        warnings: reading
            .warnings
            .iter()
            .map(|warning| format!("{name}: {warning}"))
            .collect(),
        config,
        target,
        slot_secret,
        tls,
    })
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

fn slot_secret(config: &Config) -> Result<Option<Vec<u8>>, String> {
    if let Some(secret) = &config.slot_secret {
        return Ok(Some(secret.as_bytes().to_vec()));
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
    Ok(Some(secret))
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
