//! upslot, configured as its operators do, with the scripted XMPP server at the other end of its link.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::common::outcome::Outcome;
use crate::common::server_kind::ServerKind;
use crate::link::{COMPONENT, DOMAIN, LinkListener, SECRET};
use crate::object_store::BUCKET;
use crate::process::Process;
use crate::servers::launch::{await_listening, create_folder, free_address, quoted, write_file};
use crate::servers::server::Server;
use crate::servers::setup::ServerSetup;

/// The end of the section `s3`: files pass through upslot.
pub const RELAY: &str = "  put: relay\n  get: relay\n";
/// Uploads go to the store itself.
pub const DIRECT: &str = "  put: direct\n";

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
         whitelist: [{DOMAIN}]\n\
         max_file_size: 1073741824\n\
         max_connections: {}\n\
         http_address: 127.0.0.1\n\
         http_port: {}\n\
         get_url: http://localhost{prefix}\n\
         put_url: http://localhost{prefix}\n\
         log_level: warn\n",
        listener.address.port(),
        setup.connections,
        address.port(),
        prefix = setup.prefix(),
    );
    match setup.object_store {
        Some(store) => config.push_str(&store_section(store)),
        None => config.push_str(&format!(
            "storage_path: {}\nfsync: {}\n",
            quoted(&root)?,
            setup.durable
        )),
    }
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

/// An object store instead of a folder. Lines that follow, with two spaces at their start, belong to it.
fn store_section(store: SocketAddr) -> String {
    format!(
        "slot_secret: \"{SECRET}\"\n\
         s3:\n\
         \x20 endpoint: http://{store}\n\
         \x20 bucket: {BUCKET}\n\
         \x20 access_key: bench\n\
         \x20 secret_key: \"{SECRET}\"\n"
    )
}
