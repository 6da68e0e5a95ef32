//! `upslot --demo`: the complete service on loopback, without an XMPP server or a configuration file.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use crate::config;
use crate::setup::Setup;
use crate::sys;

/// Preferred ports of HTTP and of the local API.
const PORTS: [u16; 2] = [8080, 8081];

/// The resources of a demo. Its folder is deleted on drop.
#[derive(Debug)]
pub struct Demo {
    folder: PathBuf,
    ports: [u16; 2],
}

impl Demo {
    /// Creates a new folder and finds free ports.
    pub fn new() -> io::Result<Demo> {
        let name = format!("upslot-demo-{}-{:x}", std::process::id(), sys::now().unix());
        let folder = std::env::temp_dir().join(name);
        sys::create_private_folder(&folder)?;
        let mut ports = [0; 2];
        let mut listeners = Vec::new();
        for (port, preferred) in ports.iter_mut().zip(PORTS) {
            let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
            let listener = bind(preferred).or_else(|_| bind(0))?;
            *port = listener.local_addr()?.port();
            // Stays open until both ports are found, so that they differ.
            listeners.push(listener);
        }
        Ok(Demo { folder, ports })
    }

    /// The folder of the stored files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The built-in configuration.
    pub fn setup(&self) -> Result<Setup, String> {
        let [http, api] = self.ports;
        let text = format!(
            "storage_path: '{}'\nhttp_address: 127.0.0.1\nhttp_port: {http}\n\
             get_url: http://127.0.0.1:{http}/\nput_url: http://127.0.0.1:{http}/\napi: {{port: {api}}}\n",
            self.folder.display()
        );
        let reading = config::read(&text).map_err(|errors| errors.to_string())?;
        Ok(Setup {
            config: reading.config,
            warnings: Vec::new(),
            target: None,
            slot_secret: None,
            tls: None,
            store_tls: None,
        })
    }

    /// The commands to try, printed at start.
    pub fn commands(&self) -> String {
        let [http, api] = self.ports;
        format!(
            "\
upslot demo: HTTP on 127.0.0.1:{http}, local API on 127.0.0.1:{api},
files in {} (deleted on exit). In another terminal:

  # Request a slot, as an XMPP server would. The response has two lines: the PUT URL and the GET URL.
  slot=$(curl -sS 'http://127.0.0.1:{api}/slot/?jid=romeo@example.org&name=hello.txt&size=6&type=text/plain')
  put=$(echo \"$slot\" | head -n 1)
  get=$(echo \"$slot\" | tail -n 1)

  # Upload and download.
  printf 'hello\\n' | curl -sS -H 'Content-Type: text/plain' --upload-file - \"$put\"
  curl -sS -i \"$get\"

  # Health and metrics.
  curl -sS http://127.0.0.1:{api}/health
  curl -sS http://127.0.0.1:{api}/metrics

Press Ctrl-C to stop.
",
            self.folder.display()
        )
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_configuration_is_valid_and_its_folder_is_deleted() {
        let demo = Demo::new().unwrap();
        let folder = demo.folder().to_owned();
        let setup = demo.setup().unwrap();
        assert!(folder.is_dir());
        assert_eq!(setup.config.storage_path, folder);
        let [http, api] = demo.ports;
        assert!(http != api && http != 0 && api != 0);
        assert!(
            demo.commands()
                .contains(&format!("http://127.0.0.1:{api}/slot/"))
        );
        drop(demo);
        assert!(!folder.exists());
    }
}
