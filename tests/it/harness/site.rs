//! A running program with its configuration and link, and shortcuts for most tests.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::dir::TempDir;

pub use super::files::seed;
use super::files::walk;
use super::program::value_of;
use super::server::{COMPONENT, SECRET};
use super::xml::Element;
use super::{Client, Fields, Link, Program, Reply, Server, eventually, request};
use crate::harness::server::error_of;

/// The URL prefix of every slot. The program itself speaks plain HTTP in most tests, as behind a proxy.
pub const BASE: &str = "https://upload.localhost/files/";

/// Romeo's owner folder (the published vector of HttpUploadComponent's layout).
pub const ROMEO: &str = "romeo@montague.tld";
pub const ROMEO_FOLDER: &str = "Q_7dsld2o0PGmDXH553Cx_WVmKY";

pub const JULIET: &str = "juliet@capulet.tld";

/// The owner folder of a bare JID.
pub fn owner_folder(owner: &str) -> String {
    data_encoding::BASE64URL_NOPAD.encode(&sha1_smol::Sha1::from(owner).digest().bytes())
}

/// A slot, as the request targets that a client would send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Path and query.
    pub put: String,
    /// Path.
    pub get: String,
}

impl Slot {
    /// Reads either syntax of a slot element and checks that its URLs are clean.
    #[track_caller]
    pub fn of(element: &Element) -> Slot {
        let url = |name: &str| {
            let child = element
                .child(name)
                .unwrap_or_else(|| panic!("no {name} in {element:?}"));
            child
                .attribute("url")
                .map_or_else(|| child.text.clone(), str::to_owned)
        };
        Slot::from_urls(&url("put"), &url("get"))
    }

    /// Checks that the URLs are clean.
    #[track_caller]
    pub fn from_urls(put: &str, get: &str) -> Slot {
        for url in [put, get] {
            let clean =
                |c: char| c.is_ascii_alphanumeric() || "-._~:/?#[]@!$&'()*+,;=%".contains(c);
            assert!(url.chars().all(clean), "not clean by RFC 3986: {url}");
            assert!(url.starts_with(BASE), "elsewhere: {url}");
        }
        assert!(!get.contains(['?', '#']), "{get}");
        let origin = "https://upload.localhost".len();
        Slot {
            // Nor the other way round.
            put: put[origin..].to_owned(),
            get: get[origin..].to_owned(),
        }
    }

    /// The path of the PUT without its query.
    pub fn put_path(&self) -> &str {
        self.put.split('?').next().unwrap()
    }

    /// Below the storage folder.
    pub fn stored_at(&self) -> PathBuf {
        let below = self.get.strip_prefix("/files/").unwrap();
        percent_encoding::percent_decode_str(below)
            .decode_utf8()
            .unwrap()
            .into_owned()
            .into()
    }
}

/// What to start.
#[derive(Debug)]
pub struct Plan {
    dir: TempDir,
    keys: Vec<(String, String)>,
    server: Option<Server>,
    descriptors: Option<u64>,
    with_link: bool,
}

impl Plan {
    /// The minimal configuration with an XMPP server; only montague.tld and capulet.tld are allowed.
    pub fn new() -> Plan {
        let server = Server::new();
        let mut plan = Plan::alone();
        plan = plan
            .set("component_jid", COMPONENT)
            .set("component_secret", SECRET)
            .set("component_host", "127.0.0.1")
            .set("component_port", server.address().port());
        plan.server = Some(server);
        plan
    }

    /// The same without an XMPP server.
    pub fn alone() -> Plan {
        let dir = TempDir::new();
        fs::create_dir(dir.path().join("store")).unwrap();
        let store = dir.path().join("store");
        let plan = Plan {
            dir,
            keys: Vec::new(),
            server: None,
            descriptors: None,
            with_link: true,
        };
        plan.set("storage_path", store.display())
            .set("http_address", "127.0.0.1")
            .set("http_port", 0)
            .set("get_url", BASE)
            .set("put_url", BASE)
            .set("whitelist", "[montague.tld, capulet.tld]")
            .set("shutdown_timeout", 5)
    }

    pub fn set(mut self, key: &str, value: impl std::fmt::Display) -> Plan {
        self.keys.retain(|(other, _)| other != key);
        self.keys.push((key.to_owned(), value.to_string()));
        self
    }

    pub fn without(mut self, key: &str) -> Plan {
        self.keys.retain(|(other, _)| other != key);
        self
    }

    /// A limit of open files for the program.
    pub fn descriptors(mut self, limit: u64) -> Plan {
        self.descriptors = Some(limit);
        self
    }

    /// Does not accept the link during the start.
    pub fn without_link(mut self) -> Plan {
        self.with_link = false;
        self
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// Puts a file into the store before the start.
    pub fn seed(self, path: &str, bytes: &[u8]) -> Plan {
        seed(&self.store(), path, bytes);
        self
    }

    /// Writes the configuration, for commands without a running program.
    pub fn write(&self) -> PathBuf {
        let config = self.dir.path().join("config.yml");
        write_config(&config, &self.keys);
        config
    }

    #[track_caller]
    pub fn start(self) -> Site {
        let config = self.write();
        let mut program = Program::start(&config, self.descriptors, &[]);
        program.hide(SECRET);
        if self.server.is_none() {
            program.allow("component_jid: is absent");
        }
        program.wait_line(&["ready ", "pid="]);
        let listening = program.listening(1).remove(0);
        let http = listening
            .strip_prefix("http://")
            .or_else(|| listening.strip_prefix("https://"))
            .and_then(|address| address.parse().ok())
            .unwrap_or_else(|| "127.0.0.1:1".parse().unwrap());
        let link = match &self.server {
            Some(server) if self.with_link => {
                let link = server.accept_link();
                program.wait_line(&["link up ", "jid="]);
                Some(link)
            }
            _ => None,
        };
        Site {
            program,
            link,
            server: self.server,
            http,
            keys: self.keys,
            descriptors: self.descriptors,
            dir: self.dir,
        }
    }
}

fn write_config(path: &Path, keys: &[(String, String)]) {
    let text: String = keys
        .iter()
        .map(|(key, value)| format!("{key}: {value}\n"))
        .collect();
    fs::write(path, text).unwrap();
}

/// A running program and its surroundings. Fields are dropped in this order.
#[derive(Debug)]
pub struct Site {
    pub program: Program,
    /// The link, once it is up.
    pub link: Option<Link>,
    pub server: Option<Server>,
    pub http: SocketAddr,
    keys: Vec<(String, String)>,
    descriptors: Option<u64>,
    pub dir: TempDir,
}

impl Site {
    pub fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// Where the local API listens.
    #[track_caller]
    pub fn api(&self) -> SocketAddr {
        let line = self
            .program
            .wait_line(&["listening ", "on=http", "for=api"]);
        let address = value_of(&line, "on").unwrap();
        address.split("//").nth(1).unwrap().parse().unwrap()
    }

    /// GETs from the local API on a connection of its own.
    #[track_caller]
    pub fn ask_api(&self, target: &str) -> Reply {
        Client::local(self.api()).get(target)
    }

    /// A slot from the local API; must be granted.
    #[track_caller]
    pub fn api_slot(&self, query: &str) -> Slot {
        let reply = self.ask_api(&format!("/slot/?{query}")).is(200);
        let (put, get) = reply.text().split_once('\n').expect("two lines");
        Slot::from_urls(put, get)
    }

    /// Stops the program gracefully and starts it again with the same configuration and store.
    #[track_caller]
    pub fn restart(&mut self) {
        self.program.signal(rustix::process::Signal::TERM);
        if let Some(mut link) = self.link.take() {
            if link.closed_in_order() {
                link.try_send(b"</stream:stream>");
            }
        }
        assert_eq!(self.program.exit_code(), Some(0));
        let alone = self.server.is_none();
        self.start_again();
        if alone {
            self.program.allow("component_jid: is absent");
        }
    }

    pub fn client(&self) -> Client {
        Client::connect(self.http)
    }

    pub fn link(&mut self) -> &mut Link {
        self.link.as_mut().expect("the link is not up")
    }

    /// A slot for a message; must be granted.
    #[track_caller]
    pub fn slot(&mut self, owner: &str, name: &str, size: u64, kind: Option<&str>) -> Slot {
        self.ask(owner, name, size, kind, "")
            .unwrap_or_else(|refused| panic!("refused: {refused:?}"))
    }

    #[track_caller]
    pub fn ask(
        &mut self,
        owner: &str,
        name: &str,
        size: u64,
        kind: Option<&str>,
        inside: &str,
    ) -> Result<Slot, Element> {
        self.link().ask(owner, name, size, kind, inside)
    }

    /// PUTs a body on a connection of its own.
    #[track_caller]
    pub fn put(&self, slot: &Slot, body: &[u8]) -> Reply {
        self.client().ask("PUT", &slot.put, &[], body)
    }

    /// PUTs to a target on a connection of its own.
    #[track_caller]
    pub fn put_at(&self, target: &str, fields: Fields<'_>, body: &[u8]) -> Reply {
        self.client().ask("PUT", target, fields, body)
    }

    /// Requests a slot for Romeo and uploads a file.
    #[track_caller]
    pub fn upload(&mut self, name: &str, kind: Option<&str>, body: &[u8]) -> Slot {
        let slot = self.slot("romeo@montague.tld/garden", name, body.len() as u64, kind);
        self.put(&slot, body).is(201);
        slot
    }

    /// Uploads `size` bytes for an owner.
    #[track_caller]
    pub fn fill(&mut self, owner: &str, size: usize) -> Slot {
        let slot = self.slot(owner, "a b.bin", size as u64, None);
        self.put(&slot, &vec![b'x'; size]).is(201);
        slot
    }

    /// GETs on a connection of its own.
    #[track_caller]
    pub fn get(&self, target: &str) -> Reply {
        self.client().get(target)
    }

    /// Paths of files in the store, without the program's own folder.
    pub fn files(&self) -> Vec<String> {
        let mut found = walk(&self.store());
        found.retain(|path| !path.ends_with('/'));
        found
    }

    /// Every file belongs to the owner of this folder.
    #[track_caller]
    pub fn assert_all_files_in(&self, folder: &str) {
        let files = self.files();
        assert!(
            files.iter().all(|file| file.starts_with(folder)),
            "{files:?}"
        );
    }

    /// Files and folders in the store; folders end in a slash.
    pub fn entries(&self) -> Vec<String> {
        walk(&self.store())
    }

    /// Changes the configuration file without a reload.
    pub fn rewrite(&mut self, key: &str, value: impl std::fmt::Display) {
        self.keys.retain(|(other, _)| other != key);
        self.keys.push((key.to_owned(), value.to_string()));
        write_config(&self.dir.path().join("config.yml"), &self.keys);
    }

    /// Starts the program again after it has exited, with the same configuration and store.
    #[track_caller]
    pub fn start_again(&mut self) {
        let config = self.dir.path().join("config.yml");
        let mut program = Program::start(&config, self.descriptors, &[]);
        program.hide(SECRET);
        program.wait_line(&["ready ", "pid="]);
        let line = program.wait_line(&["listening ", "on=http"]);
        let address = value_of(&line, "on").unwrap();
        self.http = address.split("//").nth(1).unwrap().parse().unwrap();
        self.program = program;
        if let Some(server) = &self.server {
            self.link = Some(server.accept_link());
            self.program.wait_line(&["link up ", "jid="]);
        }
    }

    /// Accepts the link again after an expected loss.
    #[track_caller]
    pub fn relink(&mut self) {
        self.program.allow("link down");
        self.link = Some(self.server.as_ref().unwrap().accept_link());
    }
}

impl Drop for Site {
    /// Closes the XMPP stream during the shutdown, so that the program need not wait for it.
    fn drop(&mut self) {
        if std::thread::panicking() || self.program.has_ended() {
            return;
        }
        if let Some(mut link) = self.link.take() {
            self.program.signal(rustix::process::Signal::TERM);
            if link.closed_in_order() {
                link.try_send(b"</stream:stream>");
            }
        }
    }
}

/// The store holds nothing but the program's own folder.
#[track_caller]
pub fn assert_empty(site: &Site) {
    eventually("an empty store", || site.entries().is_empty());
}

/// Starts a PUT with `Expect: 100-continue` and waits for the 100.
#[track_caller]
pub fn begin(site: &Site, slot: &Slot, size: usize) -> Client {
    let mut client = site.client();
    let length = size.to_string();
    client.send(&request(
        "PUT",
        &slot.put,
        &[("Content-Length", &length), ("Expect", "100-continue")],
        b"",
    ));
    client.reply().is(100);
    client
}

/// Asserts that the link works: a ping is answered.
#[track_caller]
pub fn assert_alive(site: &mut Site) {
    let answer = site
        .link()
        .iq("get", ROMEO, "<ping xmlns='urn:xmpp:ping'/>");
    assert_eq!(answer.attribute("type"), Some("result"));
}

/// The minimal configuration without an XMPP server.
pub fn minimal_config(dir: &Path, more: &str) -> PathBuf {
    let config = dir.join("config.yml");
    let store = dir.join("store");
    let text = format!(
        "storage_path: {}\nget_url: https://upload.localhost/files/\nput_url: https://upload.localhost/files/\n\
         whitelist: montague.tld\n{more}",
        store.display()
    );
    fs::write(&config, text).unwrap();
    config
}

/// A slot request that is refused because there is no room.
#[track_caller]
pub fn assert_no_room(site: &mut Site, owner: &str, size: u64) {
    let refused = site
        .ask(owner, "a.bin", size, None, "")
        .expect_err("granted");
    let (kind, condition, text) = error_of(&refused);
    assert_eq!(
        (kind.as_str(), condition.as_str()),
        ("wait", "resource-constraint"),
        "{refused:?}"
    );
    assert!(!text.is_empty());
}
