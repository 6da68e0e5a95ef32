//! Reads the configuration file and the secrets and certificates that it names.
//!
//! [`read`] is for the start and for a reload; [`inspect`] is for `--check-config` and the other commands, which may run
//! before the service, and as another user.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ClientConfig;

use crate::config::secret::{self, MIN_SLOT_SECRET};
use crate::config::{
    self, Component, Config, KeyLines, ObjectStore, Reading, SecretKey, SecretSource, keys,
};
use crate::jid::BareJid;
use crate::sys;
use crate::tls::{self, FileError};

/// Longest secret file; bytes.
const MAX_SECRET: u64 = 4096;

/// Where service managers and container engines put secrets. They control access and the mode of the files.
const MANAGED: [&str; 2] = ["/run/credentials", "/run/secrets"];

/// Where systemd puts the credentials of a unit, for this unit alone and while it runs.
const CREDENTIALS: &str = "/run/credentials";

/// Keys of the section `s3` that name files.
const STORE_SECRET_FILE: &str = "s3.secret_key_file";
const STORE_CA_FILE: &str = "s3.ca_file";

/// A usable configuration with the contents of the files that it names.
pub struct Setup {
    pub config: Config,
    /// Warnings, one sentence each.
    pub warnings: Vec<String>,
    /// The XMPP server.
    pub target: Option<LinkTarget>,
    /// The key that signs slots, when the operator chose one.
    pub slot_secret: Option<SecretKey>,
    pub tls: Option<tls::TlsIdentity>,
    /// For connections to the object store, if they are encrypted.
    pub store_tls: Option<Arc<ClientConfig>>,
}

/// A configuration that cannot be used.
#[derive(Debug)]
pub struct SetupError {
    /// Errors, one sentence each; never empty.
    pub errors: Vec<String>,
    /// Warnings too: a misspelt key explains a missing one.
    pub warnings: Vec<String>,
    /// The files that the configuration names, by their keys; empty if it could not be read.
    pub files: Vec<(&'static str, PathBuf)>,
}

/// The XMPP server that the link connects to, and the component's secret.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkTarget {
    pub jid: BareJid,
    pub secret: String,
    pub host: String,
    pub port: u16,
}

impl fmt::Debug for LinkTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LinkTarget({} at {}:{})", self.jid, self.host, self.port)
    }
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Reads a configuration and the files that it names. Fails with all errors at once.
pub fn read(path: &Path) -> Result<Setup, SetupError> {
    read_for(path, Occasion::Service)
}

/// The same for commands: a credential that systemd provides when the unit starts is not an error, and a storage folder
/// that this user cannot write to is a warning.
pub fn inspect(path: &Path) -> Result<Setup, SetupError> {
    read_for(path, Occasion::Command)
}

/// The purpose of reading a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Occasion {
    Service,
    Command,
}

fn read_for(path: &Path, occasion: Occasion) -> Result<Setup, SetupError> {
    let name = path.display();
    let reading = read_text(path)?;
    let (mut config, lines) = (reading.config, reading.lines);
    let mut warnings: Vec<String> = reading.warnings.iter().map(ToString::to_string).collect();
    let mut errors = Vec::new();
    let component = config.component.as_ref().map(target).transpose();
    let target = usable(component.map_err(|error| vec![error]), &mut errors);
    let slot_secret = slot_secret(&config).map_err(|error| vec![error]);
    let slot_secret = usable(slot_secret, &mut errors);
    let files = config.tls.as_ref();
    let loaded = files.map(|files| tls::load(&files.certfile, &files.keyfile));
    let tls = usable(loaded.transpose(), &mut errors);
    let store = config.s3.as_deref_mut().map(object_store).transpose();
    let store_tls = usable(store, &mut errors).flatten();
    if occasion == Occasion::Command {
        let mut later = Vec::new();
        for (key, path) in named_files(&config) {
            if let Some(why) = exists_later(path) {
                warnings.push(format!("{}: {} {why}.", lines.named(key), path.display()));
                later.push(key);
            }
        }
        errors.retain(|error| !later.contains(&error.about));
        if config.s3.is_none() {
            warnings.extend(check_storage(&config, &lines));
        }
    }
    warnings.extend(check_secret_files(&config, target.as_ref(), &lines));
    warnings.extend(check_permissions(path, &config, &lines));
    let warnings = warnings
        .iter()
        .map(|warning| format!("{name}: {warning}"))
        .collect();
    if errors.is_empty() {
        return Ok(Setup {
            config,
            warnings,
            target,
            slot_secret,
            tls,
            store_tls,
        });
    }
    let text = |error: &FileError| format!("{name}: {}: {}", lines.named(error.about), error.why);
    let files = named_files(&config).into_iter();
    Err(SetupError {
        errors: errors.iter().map(text).collect(),
        warnings,
        files: files.map(|(key, path)| (key, path.to_owned())).collect(),
    })
}

/// Reads the configuration alone, without the files that it names.
pub fn read_text(path: &Path) -> Result<Reading, SetupError> {
    let name = path.display();
    let bytes = read_bounded(path, config::MAX_TEXT as u64).map_err(|error| SetupError {
        errors: vec![cannot_read(path, &error)],
        warnings: Vec::new(),
        files: Vec::new(),
    })?;
    config::read_bytes(&bytes).map_err(|found| SetupError {
        errors: found
            .errors
            .iter()
            .map(|e| format!("{name}: {e}"))
            .collect(),
        warnings: found
            .warnings
            .iter()
            .map(|w| format!("{name}: {w}"))
            .collect(),
        files: Vec::new(),
    })
}

/// The content of a file; `None` if there is none, or if it is unusable, which adds to `errors`.
fn usable<T>(content: Result<Option<T>, Vec<FileError>>, errors: &mut Vec<FileError>) -> Option<T> {
    content.unwrap_or_else(|found| {
        errors.extend(found);
        None
    })
}

/// Warns about spaces around a secret in a file; one in the configuration itself has been checked with it.
fn check_secret_files(
    config: &Config,
    target: Option<&LinkTarget>,
    lines: &KeyLines,
) -> Vec<String> {
    let mut secrets: Vec<(&str, &Path, &[u8])> = Vec::new();
    if let Some(SecretSource::File(path)) = config.component.as_ref().map(|c| &c.secret) {
        let secret = target.map_or(&[][..], |target| target.secret.as_bytes());
        secrets.push((keys::COMPONENT_SECRET_FILE.name(), path, secret));
    }
    if let Some(store) = &config.s3 {
        let secret = store.secret_key.as_bytes();
        let path = store.secret_key_file.as_deref();
        secrets.extend(path.map(|path| (STORE_SECRET_FILE, path, secret)));
    }
    let spaced = secrets
        .iter()
        .filter(|(.., text)| text.trim_ascii().len() < text.len());
    spaced
        .map(|(key, path, _)| {
            format!(
                "{}: {} begins or ends with a space, which is part of the secret.",
                lines.named(key),
                path.display()
            )
        })
        .collect()
}

/// Reports an unreadable configuration, with its whole path and the alternatives.
fn cannot_read(path: &Path, error: &std::io::Error) -> String {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let what = format!(
        "{}: cannot read the configuration: {error}",
        whole.display()
    );
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            format!(
                "{what}. Without -c FILE, upslot reads config.yml in the working directory, else \
                 /etc/upslot/config.yml; upslot --demo needs neither."
            )
        }
        _ => format!("{what}."),
    }
}

/// Why a file that cannot be read now will exist when the service starts; `None` for any other file.
fn exists_later(path: &Path) -> Option<&'static str> {
    if !path.starts_with(CREDENTIALS) {
        return None;
    }
    match File::open(path).err()?.kind() {
        std::io::ErrorKind::NotFound => {
            Some("does not exist yet; systemd creates it when the unit starts (LoadCredential=)")
        }
        std::io::ErrorKind::PermissionDenied => {
            Some("is not readable for this user; systemd provides it to the unit alone")
        }
        _ => None,
    }
}

/// Warns if the storage folder is not writable, as far as this user can tell without writing.
fn check_storage(config: &Config, lines: &KeyLines) -> Option<String> {
    let path = &config.storage_path;
    let (named, shown, user) = (lines.named("storage_path"), path.display(), sys::user());
    if !path.exists() {
        // The nearest parent that exists.
        let above = path.ancestors().skip(1).find(|above| above.exists());
        let above = above
            .filter(|above| !above.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let why = sys::not_writable(above)?;
        let above = above.display();
        return Some(format!(
            "{named}: {shown} does not exist, and user {user} cannot create it in {above} ({why}); with StateDirectory= in the \
             unit, systemd creates it."
        ));
    }
    if !path.is_dir() {
        return Some(format!("{named}: {shown} is not a folder."));
    }
    let why = sys::not_writable(path)?;
    Some(format!(
        "{named}: user {user} cannot write to {shown} ({why}); it must belong to the user that upslot runs as."
    ))
}

/// The files that a configuration names, by their keys.
pub fn named_files(config: &Config) -> Vec<(&'static str, &Path)> {
    let mut files = secret_files(config);
    if let Some(tls) = &config.tls {
        files.push((keys::HTTP_CERTFILE.name(), &tls.certfile));
    }
    let ca_file = config.s3.as_ref().and_then(|store| store.ca_file.as_ref());
    files.extend(ca_file.map(|path| (STORE_CA_FILE, path.as_path())));
    files
}

/// Those of them that other users should not be able to read.
fn secret_files(config: &Config) -> Vec<(&'static str, &Path)> {
    let mut files: Vec<(&'static str, &Path)> = Vec::new();
    if let Some(SecretSource::File(path)) = config.component.as_ref().map(|c| &c.secret) {
        files.push((keys::COMPONENT_SECRET_FILE.name(), path));
    }
    if let Some(path) = &config.slot_secret_file {
        files.push((keys::SLOT_SECRET_FILE.name(), path));
    }
    if let Some(tls) = &config.tls {
        files.push((keys::HTTP_KEYFILE.name(), &tls.keyfile));
    }
    let store = config.s3.as_ref();
    let key_file = store.and_then(|store| store.secret_key_file.as_ref());
    files.extend(key_file.map(|path| (STORE_SECRET_FILE, path.as_path())));
    files
}

/// The keys with a secret in the configuration itself.
fn secret_keys(config: &Config) -> Vec<&'static str> {
    let component = config.component.as_ref().map(|c| &c.secret);
    let token = config.api.as_ref().and_then(|api| api.token.as_ref());
    let inline = matches!(component, Some(SecretSource::Inline(_)));
    let store = config.s3.as_ref();
    let present = [
        (inline, keys::COMPONENT_SECRET.name()),
        (config.slot_secret.is_some(), keys::SLOT_SECRET.name()),
        (
            store.is_some_and(|store| store.secret_key_file.is_none()),
            "s3: secret_key",
        ),
        (token.is_some(), "api: token"),
        (
            config.external_secret.is_some(),
            keys::EXTERNAL_SECRET.name(),
        ),
        (
            config.external_delete_secret.is_some(),
            keys::EXTERNAL_DELETE_SECRET.name(),
        ),
        (
            config.file_share_secret.is_some(),
            keys::FILE_SHARE_SECRET.name(),
        ),
    ];
    let set = present.into_iter().filter(|(is_set, _)| *is_set);
    set.map(|(_, key)| key).collect()
}

fn is_managed(real: &Path) -> bool {
    MANAGED.iter().any(|folder| real.starts_with(folder))
}

/// Warns about secrets that every user of the machine can read.
fn check_permissions(path: &Path, config: &Config, lines: &KeyLines) -> Vec<String> {
    let remedy = |path: &Path| {
        let real = sys::is_readable_by_all(path).filter(|real| !is_managed(real))?;
        Some(format!(
            "every user of this machine can read it; make upslot's user or group its owner, then chmod o-rwx {}.",
            real.display()
        ))
    };
    let mut warnings = Vec::new();
    let secrets = secret_keys(config);
    if !secrets.is_empty() {
        let secrets = secrets.join(", ");
        warnings.extend(
            remedy(path).map(|remedy| format!("it contains secrets ({secrets}), and {remedy}")),
        );
    }
    for (key, path) in secret_files(config) {
        let (named, shown) = (lines.named(key), path.display());
        warnings.extend(remedy(path).map(|remedy| format!("{named}: {shown}: {remedy}")));
    }
    warnings
}

fn target(component: &Component) -> Result<LinkTarget, FileError> {
    let secret = match &component.secret {
        SecretSource::Inline(secret) => secret.expose().to_owned(),
        SecretSource::File(path) => read_secret_text(keys::COMPONENT_SECRET_FILE.name(), path)?,
    };
    let jid = BareJid::parse(&component.jid).ok_or_else(|| FileError {
        about: keys::COMPONENT_JID.name(),
        why: format!("{} is not a JID.", component.jid),
    })?;
    Ok(LinkTarget {
        jid,
        secret,
        host: component.host.clone(),
        port: component.port,
    })
}

fn slot_secret(config: &Config) -> Result<Option<SecretKey>, FileError> {
    if let Some(secret) = &config.slot_secret {
        return Ok(Some(SecretKey::new(secret.as_bytes())));
    }
    let Some(path) = &config.slot_secret_file else {
        return Ok(None);
    };
    let key = keys::SLOT_SECRET_FILE.name();
    let secret = read_secret(key, path)?;
    // Any bytes are valid, except those of a placeholder.
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
        return Err(FileError { about: key, why });
    }
    Ok(Some(SecretKey::new(secret)))
}

/// Reads the files of an object store: its secret key, and the roots for encrypted connections, of which it returns the
/// configuration.
fn object_store(store: &mut ObjectStore) -> Result<Option<Arc<ClientConfig>>, Vec<FileError>> {
    let secret = store.secret_key_file.as_deref();
    let secret = secret.map(|path| read_secret_text(STORE_SECRET_FILE, path));
    let (secret, tls) = match (secret.transpose(), store_tls(store)) {
        (Ok(secret), Ok(tls)) => (secret, tls),
        (secret, tls) => return Err(secret.err().into_iter().chain(tls.err()).collect()),
    };
    if let Some(secret) = secret {
        store.secret_key = SecretKey::new(secret);
    }
    Ok(tls)
}

fn store_tls(store: &ObjectStore) -> Result<Option<Arc<ClientConfig>>, FileError> {
    if !store.internal_endpoint.tls {
        return Ok(None);
    }
    let about = keys::S3.name();
    let roots = match &store.ca_file {
        Some(path) => tls::read_roots(STORE_CA_FILE, path)?,
        None => {
            let bundle = tls::system_bundle().ok_or_else(|| FileError {
                about,
                why:
                    "this system has no root certificates: install ca-certificates, or set ca_file."
                        .to_owned(),
            })?;
            tls::read_roots(about, &bundle)?
        }
    };
    let config = tls::client_config(roots).map_err(|error| FileError {
        about,
        why: format!("TLS is not possible: {error}."),
    })?;
    Ok(Some(config))
}

/// The text in a secret's file.
fn read_secret_text(key: &'static str, path: &Path) -> Result<String, FileError> {
    let bytes = read_secret(key, path)?;
    let shown = path.display();
    let flaw = |found: &str| FileError {
        about: key,
        why: format!("found {found} in {shown}, expected the secret itself in one line of UTF-8."),
    };
    let text = String::from_utf8(bytes).map_err(|_| flaw("bytes that are not UTF-8"))?;
    match secret::flaw(&text) {
        Some(found) => Err(flaw(found)),
        None => Ok(text),
    }
}

/// The content of a secret's file, without the line end that editors add.
fn read_secret(key: &'static str, path: &Path) -> Result<Vec<u8>, FileError> {
    let shown = path.display();
    let flaw = |why: String| FileError { about: key, why };
    let bytes = read_bounded(path, MAX_SECRET).map_err(|error| {
        let hint = match path.starts_with(CREDENTIALS) {
            true => "; systemd provides it (LoadCredential= in the unit)",
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
            "the file is larger than {most} bytes"
        )));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #[cfg(feature = "s3")]
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::service::Service;

    const SECRETS: &str = "component_secret: hush-1\nslot_secret: hush-2-0123456789\nexternal_secret: hush-3\n\
                           external_delete_secret: hush-4\nfile_share_secret: hush-5-0123456789\n\
                           api: {port: 1, token: hush-6-0123456789}\n";

    #[test]
    fn debug_output_contains_no_secrets() {
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

    /// A configuration with an object store, in a new folder that also has root certificates and a secret.
    #[cfg(feature = "s3")]
    fn with_store(name: &str, entries: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("upslot-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["s3.example".to_owned()]).unwrap();
        let write = |name: &str, text: &str| {
            std::fs::write(folder.join(name), text).unwrap();
            let private = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(folder.join(name), private).unwrap();
        };
        write("ca.pem", &made.cert.pem());
        write("key.pem", &made.signing_key.serialize_pem());
        write("secret", "hush-7\n");
        write("spaced", "hush-8 \n");
        write("template", "${S3_SECRET}\n");
        let text = format!(
            "component_jid: up.example\ncomponent_secret: hush-1\nget_url: https://a/\nput_url: https://a/\n\
             whitelist: a.example\nslot_secret: hush-2-0123456789\ns3:\n  endpoint: https://s3.example\n  \
             bucket: uploads\n  access_key: upslot\n{entries}"
        );
        write(
            "config.yml",
            &text.replace("DIR", &folder.display().to_string()),
        );
        folder
    }

    #[cfg(feature = "s3")]
    #[test]
    fn reads_the_files_of_an_object_store() {
        let files = "  secret_key_file: DIR/secret\n  ca_file: DIR/ca.pem\n";
        let folder = with_store("store", files);
        let setup = read(&folder.join("config.yml")).unwrap();
        assert!(!format!("{setup:?}").contains("hush"));
        assert_eq!(setup.warnings, [""; 0]);
        let store = setup.config.s3.as_deref().unwrap();
        assert_eq!(store.secret_key.as_bytes(), b"hush-7");
        let tls = setup.store_tls.unwrap();
        assert_eq!(tls.alpn_protocols, [b"http/1.1".to_vec()]);
        let named: Vec<&str> = named_files(&setup.config)
            .iter()
            .map(|(key, _)| *key)
            .collect();
        assert_eq!(named, [STORE_SECRET_FILE, STORE_CA_FILE]);

        let plain = "  secret_key: hush-9-0123456789\n  internal_endpoint: http://127.0.0.1:3900\n";
        let second = with_store("store-plain", plain);
        let setup = read(&second.join("config.yml")).unwrap();
        assert!(setup.store_tls.is_none());
        let inline = ["component_secret", "slot_secret", "s3: secret_key"];
        assert_eq!(secret_keys(&setup.config), inline);
        for folder in [folder, second] {
            std::fs::remove_dir_all(folder).unwrap();
        }
    }

    #[cfg(feature = "s3")]
    #[test]
    fn unusable_files_of_an_object_store_are_reported() {
        for (entries, expected) in [
            (
                "  secret_key_file: DIR/none\n  ca_file: DIR/key.pem\n",
                &[
                    ("s3.secret_key_file (line 11): ", "No such file"),
                    ("s3.ca_file (line 12): ", "found a private key alone in"),
                ][..],
            ),
            (
                "  secret_key_file: DIR/template\n  ca_file: DIR/none\n",
                &[
                    ("s3.secret_key_file (line 11): ", "${NAME}"),
                    ("s3.ca_file (line 12): ", "No such file"),
                ],
            ),
            (
                "  secret_key: hush-9-0123456789\n  ca_file: DIR/secret\n",
                &[("s3.ca_file (line 12): ", "no PEM")],
            ),
        ] {
            let folder = with_store("store-errors", entries);
            let errors = read(&folder.join("config.yml")).unwrap_err().errors;
            std::fs::remove_dir_all(folder).unwrap();
            assert_eq!(errors.len(), expected.len(), "{errors:?}");
            for (error, (position, part)) in errors.iter().zip(expected) {
                assert!(
                    error.contains(position) && error.contains(part) && error.ends_with('.'),
                    "{error}"
                );
            }
        }
        let spaced = "  secret_key_file: DIR/spaced\n  ca_file: DIR/ca.pem\n";
        let folder = with_store("store-spaced", spaced);
        // A file of the configuration that exists only while the unit runs.
        let later = std::fs::read_to_string(folder.join("config.yml")).unwrap();
        let warnings = read(&folder.join("config.yml")).unwrap().warnings;
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        let position = "s3.secret_key_file (line 11): ";
        assert!(warnings[0].contains(position) && warnings[0].contains("ends with a space"));
        let credential = "/run/credentials/upslot-test.service/secret_key";
        let spaced = folder.join("spaced").display().to_string();
        std::fs::write(
            folder.join("config.yml"),
            later.replace(&spaced, credential),
        )
        .unwrap();
        let warnings = inspect(&folder.join("config.yml")).unwrap().warnings;
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains(position) && warnings[0].contains("does not exist yet"));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn secrets_of_service_managers_and_containers_are_recognised() {
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
