//! From a configuration file to everything that the program starts with: the file itself, the secrets and the
//! certificate that it names. [`read`] is for the start and for a reload; [`inspect`] is for `--check-config` and the
//! other commands, which may be run before the service, and as another user.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::config::secret;
use crate::config::{self, Component, Config, Lines, SecretKey, SecretSource};
use crate::jid::BareJid;
use crate::{sys, tls};

/// Longest secret file; bytes.
const MAX_SECRET: u64 = 4096;

/// Shortest key that signs slots; bytes.
const MIN_SLOT_SECRET: usize = 16;

/// Where service managers and container engines put secrets. Who gets in there, and with what mode the files are
/// made, is for them to say.
const MANAGED: [&str; 2] = ["/run/credentials", "/run/secrets"];

/// Where systemd puts the credentials of a unit, while it runs and for nobody else.
const CREDENTIALS: &str = "/run/credentials";

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
    read_for(path, Occasion::Service)
}

/// The same for what is not the service itself: a credential that systemd provides when the unit starts is no error,
/// and a storage folder that this user cannot write to is a warning.
pub fn inspect(path: &Path) -> Result<Setup, Failure> {
    read_for(path, Occasion::Command)
}

/// What a configuration is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Occasion {
    Service,
    Command,
}

fn read_for(path: &Path, occasion: Occasion) -> Result<Setup, Failure> {
    let name = path.display();
    let bytes =
        read_bounded(path, config::MAX_TEXT as u64).map_err(|error| vec![missing(path, &error)])?;
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
    let (config, lines) = (reading.config, reading.lines);
    let mut warnings: Vec<String> = reading.warnings.iter().map(ToString::to_string).collect();
    // What is not there yet cannot be read.
    let mut later: Vec<&Path> = Vec::new();
    if occasion == Occasion::Command {
        for (key, path) in files(&config) {
            if let Some(why) = comes_later(path) {
                warnings.push(format!("{}: {} {why}.", lines.named(key), path.display()));
                later.push(path);
            }
        }
        warnings.extend(storage(&config, &lines));
    }
    let mut faults: Vec<Flaw> = Vec::new();
    let mut keep = |flaw: Flaw| {
        let file = files(&config)
            .into_iter()
            .find(|(key, _)| flaw.is_about(key));
        if !file.is_some_and(|(_, path)| later.contains(&path)) {
            faults.push(flaw);
        }
    };
    let target = config
        .component
        .as_ref()
        .and_then(|component| target(component).map_err(&mut keep).ok());
    let slot_secret = slot_secret(&config).map_err(&mut keep).ok().flatten();
    let tls = config.tls.as_ref().and_then(|files| {
        let loaded = tls::load(&files.certfile, &files.keyfile);
        let flaws = |errors: Vec<tls::TlsError>| {
            for tls::TlsError { key, why } in errors {
                keep(Flaw { about: key, why });
            }
        };
        loaded.map_err(flaws).ok()
    });
    if let (
        Some(target),
        Some(Component {
            secret: SecretSource::File(path),
            ..
        }),
    ) = (&target, &config.component)
    {
        // Within the configuration it was warned about already.
        let text = &target.secret;
        if text.trim().len() < text.len() {
            warnings.push(format!(
                "{}: {} begins or ends with a blank, which counts as a part of the secret.",
                lines.named("component_secret_file"),
                path.display()
            ));
        }
    }
    warnings.extend(exposed(path, &config, &lines));
    let warnings = warnings
        .iter()
        .map(|warning| format!("{name}: {warning}"))
        .collect();
    if !faults.is_empty() {
        let said = |Flaw { about, why }: &Flaw| format!("{name}: {}: {why}", lines.named(about));
        return Err(Failure {
            faults: faults.iter().map(said).collect(),
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

/// What is wrong with a file that a key names.
struct Flaw {
    /// The key.
    about: &'static str,
    /// With the file; a sentence that begins with a small letter.
    why: String,
}

impl Flaw {
    fn is_about(&self, name: &str) -> bool {
        self.about == name
    }
}

/// Says that there is no configuration, from where it was looked for, and how to begin without one.
fn missing(path: &Path, error: &std::io::Error) -> String {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let what = format!(
        "{}: cannot read the configuration: {error}",
        whole.display()
    );
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            format!(
                "{what}. Without -c FILE, config.yml is read here or else /etc/upslot/config.yml; upslot --demo needs \
                 neither."
            )
        }
        _ => format!("{what}."),
    }
}

/// Why a file that cannot be read now will be there when the service starts; `None` for any other file.
fn comes_later(path: &Path) -> Option<&'static str> {
    if !path.starts_with(CREDENTIALS) {
        return None;
    }
    match File::open(path).err()?.kind() {
        std::io::ErrorKind::NotFound => Some(
            "is not there yet; systemd puts it there when the unit starts, as LoadCredential= in the unit says",
        ),
        std::io::ErrorKind::PermissionDenied => {
            Some("is not for this user; systemd puts it there for the unit alone")
        }
        _ => None,
    }
}

/// Says whether the storage folder cannot be written to, as far as this user can tell without writing.
fn storage(config: &Config, lines: &Lines) -> Option<String> {
    let path = &config.storage_path;
    let (named, shown, user) = (lines.named("storage_path"), path.display(), sys::user());
    if !path.exists() {
        // The first folder above it that is there.
        let above = path.ancestors().skip(1).find(|above| above.exists());
        let above = above
            .filter(|above| !above.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let why = sys::not_writable(above)?;
        let above = above.display();
        return Some(format!(
            "{named}: {shown} is not there, and user {user} cannot make it in {above} ({why}); systemd makes it where the \
             unit says StateDirectory=."
        ));
    }
    if !path.is_dir() {
        return Some(format!("{named}: {shown} is no folder."));
    }
    let why = sys::not_writable(path)?;
    Some(format!(
        "{named}: user {user} cannot write to {shown} ({why}); it must belong to the user that upslot runs as."
    ))
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
fn exposed(path: &Path, config: &Config, lines: &Lines) -> Vec<String> {
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
        Some(format!(
            "{}: {}: {remedy}",
            lines.named(key),
            path.display()
        ))
    });
    inside.into_iter().chain(beside).collect()
}

fn target(component: &Component) -> Result<Target, Flaw> {
    let secret = match &component.secret {
        SecretSource::Inline(secret) => secret.expose().to_owned(),
        SecretSource::File(path) => {
            let key = "component_secret_file";
            let bytes = read_secret(key, path)?;
            let shown = path.display();
            let flaw = |found: &str| Flaw {
                about: key,
                why: format!(
                    "found {found} in {shown}, expected the secret itself in one line of UTF-8."
                ),
            };
            let text = String::from_utf8(bytes).map_err(|_| flaw("bytes that are not UTF-8"))?;
            if let Some(found) = secret::flaw(&text) {
                return Err(flaw(found));
            }
            text
        }
    };
    let jid = BareJid::parse(&component.jid).ok_or_else(|| Flaw {
        about: "component_jid",
        why: format!("{} is no JID.", component.jid),
    })?;
    Ok(Target {
        jid,
        secret,
        host: component.host.clone(),
        port: component.port,
    })
}

fn slot_secret(config: &Config) -> Result<Option<SecretKey>, Flaw> {
    if let Some(secret) = &config.slot_secret {
        return Ok(Some(SecretKey::new(secret.as_bytes())));
    }
    let Some(path) = &config.slot_secret_file else {
        return Ok(None);
    };
    let key = "slot_secret_file";
    let secret = read_secret(key, path)?;
    // Any bytes are good here, but for those of an example.
    let placeholder = std::str::from_utf8(&secret)
        .ok()
        .and_then(secret::placeholder);
    let short = format!("{} bytes", secret.len());
    let found = placeholder.or((secret.len() < MIN_SLOT_SECRET).then_some(&short));
    if let Some(found) = found {
        let why = format!(
            "found {found} in {}, expected a secret of at least {MIN_SLOT_SECRET} bytes.",
            path.display()
        );
        return Err(Flaw { about: key, why });
    }
    Ok(Some(SecretKey::new(secret)))
}

/// A secret's file without the line end that editors leave.
fn read_secret(key: &'static str, path: &Path) -> Result<Vec<u8>, Flaw> {
    let shown = path.display();
    let flaw = |why: String| Flaw { about: key, why };
    let bytes = read_bounded(path, MAX_SECRET).map_err(|error| {
        let hint = match path.starts_with(CREDENTIALS) {
            true => "; systemd puts it there, as LoadCredential= in the unit says",
            false => "",
        };
        flaw(format!("cannot read {shown}: {error}{hint}."))
    })?;
    let secret = without_line_end(&bytes);
    if secret.is_empty() {
        return Err(flaw(format!(
            "found nothing in {shown}, expected a secret."
        )));
    }
    Ok(secret.to_owned())
}

fn without_line_end(mut bytes: &[u8]) -> &[u8] {
    while let [rest @ .., b'\n' | b'\r'] = bytes {
        bytes = rest;
    }
    bytes
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
