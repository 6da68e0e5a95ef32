//! lighttpd 1.4 as one process in the foreground.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::outcome::Outcome;
use crate::common::server_kind::ServerKind;
use crate::servers::launch::{
    create_folder, find_program, free_address, program_version, quoted, write_file,
};
use crate::servers::server::Server;
use crate::servers::setup::ServerSetup;

/// For the report.
pub const SETTINGS: &str = "one process, sendfile, mod_webdav PUT into folders created in advance, mod_openssl, no access log";

/// Where distributions install its modules; the first that exists is used.
const MODULES: &[&str] = &[
    "/usr/lib/lighttpd",
    "/usr/lib64/lighttpd",
    "/usr/local/lib/lighttpd",
];

#[derive(Clone, Debug)]
pub struct Lighttpd {
    program: PathBuf,
    /// As the program prints it.
    pub version: String,
    modules: PathBuf,
}

impl Lighttpd {
    pub fn find() -> Option<Lighttpd> {
        let program = find_program("lighttpd")?;
        let modules = MODULES.iter().map(Path::new).find(|path| path.is_dir());
        Some(Lighttpd {
            version: program_version(&program, "-v"),
            modules: modules.unwrap_or(Path::new(MODULES[0])).to_owned(),
            program,
        })
    }

    /// The missing module, if any, for PUT or for TLS.
    pub fn missing(&self, put: bool, tls: bool) -> Option<&'static str> {
        let installed = |module: &str| self.modules.join(format!("{module}.so")).is_file();
        if put && !installed("mod_webdav") {
            Some("mod_webdav")
        } else if tls && !installed("mod_openssl") {
            Some("mod_openssl")
        } else {
            None
        }
    }

    pub fn start(&self, setup: &ServerSetup<'_>) -> Outcome<Server> {
        let root = setup.document_root("www")?;
        let temporary = create_folder(&setup.folder, "tmp")?;
        let address = free_address()?;
        let put = self.missing(true, false).is_none();
        let mut modules = Vec::new();
        let mut extra = String::new();
        if put {
            modules.push("\"mod_webdav\"");
            extra.push_str("webdav.activate = \"enable\"\n");
        }
        if let Some(certificate) = setup.tls {
            modules.push("\"mod_openssl\"");
            extra.push_str(&format!(
                "ssl.engine = \"enable\"\nssl.pemfile = {}\n",
                quoted(&certificate.both)?
            ));
        }
        // max-keep-alive-requests has its largest value: by default, a connection is closed after 1,000 requests, which
        // upslot never does.
        let config = format!(
            "server.modules = ({modules})\n\
             server.document-root = {root}\n\
             server.bind = \"{ip}\"\n\
             server.port = {port}\n\
             server.upload-dirs = ({temporary})\n\
             server.network-backend = \"sendfile\"\n\
             server.max-keep-alive-requests = 65535\n\
             server.max-keep-alive-idle = 60\n\
             server.max-connections = {connections}\n\
             server.max-fds = {files}\n\
             mimetype.assign = (\".jpg\" => \"image/jpeg\")\n\
             {extra}",
            connections = setup.connections,
            modules = modules.join(", "),
            root = quoted(&root)?,
            ip = address.ip(),
            port = address.port(),
            files = setup.connections * 2 + 100,
            temporary = quoted(&temporary)?,
        );
        let file = setup.folder.join("lighttpd.conf");
        write_file(&file, &config)?;
        let mut command = Command::new(&self.program);
        command.arg("-D").arg("-f").arg(&file);
        command.arg("-m").arg(&self.modules);
        Server::start(ServerKind::Lighttpd, &mut command, address, root, setup)
    }
}
