//! `upslot --demo`: the whole service on loopback, without an XMPP server and without a configuration.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use crate::config;
use crate::setup::Setup;
use crate::sys;

/// The ports that are taken if they are free: of HTTP, and of the local API.
const PORTS: [u16; 2] = [8080, 8081];

/// What a demonstration runs on. Its folder is removed when this is dropped.
#[derive(Debug)]
pub struct Demo {
    folder: PathBuf,
    ports: [u16; 2],
}

impl Demo {
    /// Makes a new folder and finds free ports.
    pub fn new() -> io::Result<Demo> {
        let name = format!("upslot-demo-{}-{:x}", std::process::id(), sys::now().unix());
        let folder = std::env::temp_dir().join(name);
        sys::make_private_folder(&folder)?;
        let mut ports = [0; 2];
        let mut held = Vec::new();
        for (port, wish) in ports.iter_mut().zip(PORTS) {
            let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
            let listener = bind(wish).or_else(|_| bind(0))?;
            *port = listener.local_addr()?.port();
            // Held until both are found, so that they differ.
            held.push(listener);
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
        let reading = config::read(&text).map_err(|faulty| faulty.to_string())?;
        Ok(Setup {
            config: reading.config,
            warnings: Vec::new(),
            target: None,
            slot_secret: None,
            tls: None,
        })
    }

    /// What to type.
    pub fn commands(&self) -> String {
        let [http, api] = self.ports;
        format!(
            "\
upslot runs for demonstration: HTTP on 127.0.0.1:{http}, its local API on 127.0.0.1:{api},
files in {} (removed at the end). From another terminal:

  # Ask for a slot, as an XMPP server would. Two lines come back: where to PUT, where to GET.
  slot=$(curl -sS 'http://127.0.0.1:{api}/slot/?jid=romeo@example.org&name=hello.txt&size=6&type=text/plain')
  put=$(echo \"$slot\" | head -n 1)
  get=$(echo \"$slot\" | tail -n 1)

  # Upload, and download.
  printf 'hello\\n' | curl -sS -H 'Content-Type: text/plain' --upload-file - \"$put\"
  curl -sS -i \"$get\"

  # How it is, and what it counts.
  curl -sS http://127.0.0.1:{api}/health
  curl -sS http://127.0.0.1:{api}/metrics

Ctrl-C ends it.
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
    fn the_built_in_configuration_is_sound_and_its_folder_goes() {
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
