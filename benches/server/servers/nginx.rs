//! nginx as one process in the foreground: the event loop of a single worker, without a master process, which would
//! only wait.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::outcome::Outcome;
use crate::common::server_kind::ServerKind;
use crate::object_store::BUCKET;
use crate::servers::launch::{
    create_folder, find_program, free_address, program_version, quoted, write_file,
};
use crate::servers::server::Server;
use crate::servers::setup::ServerSetup;

/// For the report.
pub const SETTINGS: &str = "one process, sendfile, tcp_nopush, DAV PUT, client_body_buffer_size by default (16k), \
     ssl_session_cache and ssl_session_tickets by default (none, on), no access log";

/// `on` is the default.
const PROXY_BUFFERING: &str = "on";

#[derive(Clone, Debug)]
pub struct Nginx {
    program: PathBuf,
    /// As the program prints it.
    pub version: String,
    /// The options with which it was built.
    build_options: String,
}

impl Nginx {
    pub fn find() -> Option<Nginx> {
        let program = find_program("nginx")?;
        let output = Command::new(&program).arg("-V").output().ok()?;
        Some(Nginx {
            version: program_version(&program, "-v"),
            build_options: String::from_utf8_lossy(&output.stderr).into_owned(),
            program,
        })
    }

    /// The missing module, if any, for PUT or for TLS.
    pub fn missing(&self, put: bool, tls: bool) -> Option<&'static str> {
        let built = |module: &str| self.build_options.contains(&format!("--with-{module}"));
        if put && !built("http_dav_module") {
            Some("its DAV module")
        } else if tls && !built("http_ssl_module") {
            Some("its TLS module")
        } else {
            None
        }
    }

    pub fn start(&self, setup: &ServerSetup<'_>) -> Outcome<Server> {
        let root = setup.document_root("www")?;
        let address = free_address()?;
        let temporary = create_folder(&setup.folder, "tmp")?;
        // keepalive_requests: by default, a connection is closed after 1,000 requests, which upslot never does.
        let config = format!(
            "daemon off;\n\
             master_process off;\n\
             worker_processes 1;\n\
             pid {pid};\n\
             error_log stderr error;\n\
             events {{\n\
             \x20   worker_connections {connections};\n\
             }}\n\
             http {{\n\
             {paths}\
             \x20   client_body_temp_path {body};\n\
             \x20   access_log off;\n\
             \x20   sendfile on;\n\
             \x20   tcp_nopush on;\n\
             \x20   types {{ image/jpeg jpg; }}\n\
             \x20   keepalive_timeout 60s;\n\
             \x20   keepalive_requests 1000000000;\n\
             \x20   client_max_body_size 0;\n\
             {upstream}\
             \x20   server {{\n\
             \x20       listen {address}{ssl};\n\
             {tls}\
             \x20       root {root};\n\
             \x20       location / {{\n\
             {action}\
             \x20       }}\n\
             \x20   }}\n\
             }}\n",
            connections = setup.connections,
            pid = quoted(&setup.folder.join("pid"))?,
            paths = self.temporary_paths(&temporary)?,
            body = quoted(&temporary.join("body"))?,
            ssl = if setup.tls.is_some() { " ssl" } else { "" },
            tls = match setup.tls {
                Some(certificate) => format!(
                    "        ssl_protocols TLSv1.2 TLSv1.3;\n\
                     \x20       ssl_certificate {};\n\
                     \x20       ssl_certificate_key {};\n",
                    quoted(&certificate.chain)?,
                    quoted(&certificate.key)?
                ),
                None => String::new(),
            },
            root = quoted(&root)?,
            upstream = setup.object_store.map_or_else(String::new, |store| format!(
                "    upstream store {{\n        server {store};\n        keepalive 64;\n    }}\n"
            )),
            action = match setup.object_store {
                Some(_) => proxy_to_store(),
                None if self.missing(true, false).is_none() => {
                    "            dav_methods PUT;\n            create_full_put_path on;\n"
                        .to_owned()
                }
                None => String::new(),
            },
        );
        let file = setup.folder.join("nginx.conf");
        write_file(&file, &config)?;
        let mut command = Command::new(&self.program);
        command.arg("-p").arg(&setup.folder);
        command.arg("-c").arg(&file).args(["-e", "stderr"]);
        Server::start(ServerKind::Nginx, &mut command, address, root, setup)
    }

    /// Paths for temporary files, which are otherwise in folders of the system. For a module that nginx was built
    /// without, the directive would be unknown.
    fn temporary_paths(&self, folder: &Path) -> Outcome<String> {
        let mut paths = String::new();
        for module in ["proxy", "fastcgi", "uwsgi", "scgi"] {
            if !self
                .build_options
                .contains(&format!("--without-http_{module}_module"))
            {
                let path = quoted(&folder.join(module))?;
                paths.push_str(&format!("    {module}_temp_path {path};\n"));
            }
        }
        Ok(paths)
    }
}

/// Passes requests on to the object store, on kept connections and without files in between.
fn proxy_to_store() -> String {
    format!(
        "            proxy_pass http://store/{BUCKET}/;\n\
         \x20           proxy_http_version 1.1;\n\
         \x20           proxy_set_header Connection \"\";\n\
         \x20           proxy_request_buffering off;\n\
         \x20           proxy_buffering {PROXY_BUFFERING};\n\
         \x20           proxy_max_temp_file_size 0;\n"
    )
}
