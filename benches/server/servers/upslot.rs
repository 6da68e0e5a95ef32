//! upslot, configured as its operators do, with the scripted XMPP server at the other end of its link.

use std::path::Path;
use std::process::Command;

use crate::common::outcome::Outcome;
use crate::common::server_kind::ServerKind;
use crate::link::{COMPONENT, DOMAIN, LinkListener, SECRET};
use crate::process::Process;
use crate::servers::launch::{await_listening, create_folder, free_address, quoted, write_file};
use crate::servers::server::Server;
use crate::servers::setup::ServerSetup;

/// Starts upslot, and waits until its link is up and it accepts connections.
pub fn start(program: &Path, setup: &ServerSetup<'_>) -> Outcome<Server> {
    let root = match setup.shared_files {
        Some(files) => files.to_owned(),
        None => create_folder(&setup.folder, "store")?,
    };
    let address = free_address()?;
    let listener = LinkListener::new()?;
    let mut config = format!(
        "component_jid: {COMPONENT}\n\
         component_secret: \"{SECRET}\"\n\
         component_host: 127.0.0.1\n\
         component_port: {}\n\
         storage_path: {}\n\
         whitelist: [{DOMAIN}]\n\
         max_file_size: 1073741824\n\
         max_connections: {}\n\
         http_address: 127.0.0.1\n\
         http_port: {}\n\
         get_url: http://localhost{prefix}\n\
         put_url: http://localhost{prefix}\n\
         fsync: {}\n\
         log_level: warn\n",
        listener.address.port(),
        quoted(&root)?,
        setup.connections,
        address.port(),
        setup.durable,
        prefix = setup.prefix(),
    );
    config.push_str(&setup.extra_config);
    if let Some(certificate) = setup.tls {
        config.push_str(&format!(
            "http_certfile: {}\nhttp_keyfile: {}\n",
            quoted(&certificate.chain)?,
            quoted(&certificate.key)?
        ));
    }
    let file = setup.folder.join("config.yml");
    write_file(&file, &config)?;
    let mut command = Command::new(program);
    command.arg("-c").arg(&file);
    let mut process = Process::start("upslot", &mut command, &setup.folder)?;
    let link = listener.accept(&mut process, setup.stop)?;
    await_listening(address, &mut process, setup.stop)?;
    let mut server = Server::new(ServerKind::Upslot, process, address, root, setup);
    server.link = Some(link);
    Ok(server)
}
