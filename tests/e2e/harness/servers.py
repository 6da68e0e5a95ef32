"""XMPP servers with a configuration of their own, and the certification authority that they share."""

import asyncio
import glob
import os
import ssl
import subprocess
from pathlib import Path

from .base import ACCOUNTS, DOMAIN, OTHER_DOMAIN, PASSWORD, PATIENCE, SECRET, UPLOAD
from .ceph import Ceph
from .object_stores import Garage, SeaweedFS
from .processes import Process, free_port, port_open


class Authority:
    """A private certification authority, and certificates for the servers of these tests."""

    def __init__(self, folder):
        self.folder, self.pem = folder, folder / "ca.pem"
        self._openssl("req", "-x509", *self._new_key("ca"), "-out", self.pem, "-days", "2",
                      "-subj", "/CN=upslot tests", "-addext", "basicConstraints=critical,CA:TRUE",
                      "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        self.chain, self.key = self.issue("server")

    def issue(self, name, days=2):
        """Issues a certificate; returns the paths of its chain and its key."""
        names = [DOMAIN, OTHER_DOMAIN, UPLOAD, "localhost"]
        extensions = self.folder / f"{name}.ext"
        extensions.write_text("subjectAltName=" + ",".join(["DNS:" + n for n in names] + ["IP:127.0.0.1"]) +
                              "\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n")
        request, chain = self.folder / f"{name}.csr", self.folder / f"{name}.pem"
        self._openssl("req", *self._new_key(name), "-out", request, "-subj", f"/CN={name}")
        self._openssl("x509", "-req", "-in", request, "-CA", self.pem, "-CAkey", self.folder / "ca.key",
                      "-CAcreateserial", "-days", days, "-extfile", extensions, "-out", chain)
        return chain, self.folder / f"{name}.key"

    def context(self, version=None):
        """A TLS context for clients that trusts only this authority."""
        context = ssl.create_default_context(cafile=self.pem)
        if version:
            context.minimum_version = context.maximum_version = version
        return context

    def _new_key(self, name):
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                "-keyout", self.folder / f"{name}.key"]

    def _openssl(self, *arguments):
        done = subprocess.run(["openssl", *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=PATIENCE)
        assert done.returncode == 0, done.stderr.decode()


class Prosody:
    """A Prosody with its own configuration, data and ports."""

    kind = "prosody"

    def __init__(self, folder, authority, extra="", component=True):
        """`extra` is appended to the configuration. Without `component` the server accepts no component, so that
        `extra` can give the name to another service."""
        self.folder, self.client_port = folder, free_port()
        self.component_port = free_port() if component else None
        components = f"""
component_ports = {{ {self.component_port} }}
component_interfaces = {{ "127.0.0.1" }}""" if component else ""
        if component:
            extra = f'Component "{UPLOAD}"\ncomponent_secret = "{SECRET}"\n{extra}'
        for account in ACCOUNTS:
            user, domain = account.split("@")
            accounts = folder / "data" / domain.replace(".", "%2e") / "accounts"
            accounts.mkdir(parents=True, exist_ok=True)
            (accounts / f"{user}.dat").write_text(f'return {{ ["password"] = "{PASSWORD}"; }};\n')
        (folder / "certs").mkdir()
        self.config = folder / "prosody.cfg.lua"
        self.config.write_text(f"""
run_as_root = true
pidfile = "{folder}/prosody.pid"
data_path = "{folder}/data"
log = {{ {{ levels = {{ min = "info" }}, to = "console" }} }}
modules_enabled = {{ "roster", "saslauth", "tls", "disco", "ping" }}
modules_disabled = {{ "s2s" }}
interfaces = {{ "127.0.0.1" }}
local_interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {self.client_port} }}
c2s_direct_tls_ports = {{ }}{components}
authentication = "internal_plain"
storage = "internal"
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
ssl = {{ certificate = "{authority.chain}", key = "{authority.key}" }}
VirtualHost "{DOMAIN}"
VirtualHost "{OTHER_DOMAIN}"
disco_items = {{ {{ "{UPLOAD}", "uploads" }} }}
{extra}
""")

    async def start(self):
        self.process = await Process.start("prosody", ["prosody", "-F", "--config", self.config])
        for port in filter(None, (self.client_port, self.component_port)):
            await port_open(port, self.process)


class Ejabberd:
    """An ejabberd with its own configuration, database and ports. It is started without `ejabberdctl`, as an Erlang node
    without a name, which needs no cookie, no distribution port and no port mapper."""

    kind = "ejabberd"

    def __init__(self, folder, authority, extra="", component=True):
        self.folder, self.client_port = folder, free_port()
        self.component_port = free_port() if component else None
        components = f"""
  - port: {self.component_port}
    ip: "127.0.0.1"
    module: ejabberd_service
    access: all
    hosts: {{"{UPLOAD}": {{password: "{SECRET}"}}}}""" if component else ""
        (folder / "server.pem").write_text(authority.chain.read_text() + authority.key.read_text())
        self.config = folder / "ejabberd.yml"
        self.config.write_text(f"""
hosts: ["{DOMAIN}", "{OTHER_DOMAIN}"]
loglevel: info
auth_method: internal
auth_password_format: plain
certfiles: ["{folder}/server.pem"]
ca_file: "{authority.pem}"
listen:
  - {{port: {self.client_port}, ip: "127.0.0.1", module: ejabberd_c2s, access: all, starttls: true}}{components}
modules:
  mod_disco: {{extra_domains: []}}
  mod_ping: {{}}
  mod_roster: {{}}
{extra}
""")

    async def start(self):
        libraries = {str(Path(found).parent.parent) for found in glob.glob("/usr/lib/*/ejabberd-*/ebin")}
        assert libraries, "ejabberd's modules were not found under /usr/lib"
        names = [account.split("@") for account in ACCOUNTS]
        accounts = ", ".join(f'ejabberd_auth:try_register(<<"{u}">>, <<"{d}">>, <<"{PASSWORD}">>)' for u, d in names)
        self.process = await Process.start(
            "ejabberd",
            ["erl", "-noinput", "+K", "true", "-mnesia", "dir", f'"{self.folder}/database"', "-s", "ejabberd",
             "-eval", f'{accounts}, io:format("accounts registered~n").'],
            cwd=self.folder,
            env=dict(os.environ, HOME=str(self.folder), ERL_LIBS=":".join(libraries),
                     EJABBERD_CONFIG_PATH=str(self.config), EJABBERD_LOG_PATH=f"{self.folder}/log/ejabberd.log",
                     ERL_CRASH_DUMP=f"{self.folder}/crash.dump"))
        # Erlang loads its modules slowly on a busy machine.
        await self.process.line("accounts registered", timeout=2 * PATIENCE)
        for port in filter(None, (self.client_port, self.component_port)):
            await port_open(port, self.process)


SERVERS = {"prosody": Prosody, "ejabberd": Ejabberd}
OBJECT_STORES = {store.name: store for store in (Ceph, SeaweedFS, Garage)}


class Group:
    """The certification authority, and the XMPP servers and object stores that all tests share. One of these starts when a
    test first uses it."""

    def __init__(self, folder, authority):
        self.folder, self.authority, self.servers, self.object_stores = folder, authority, {}, {}

    async def server(self, kind):
        if kind not in self.servers:
            self.servers[kind] = await self.new_server(kind)
        elif not self.servers[kind].process.running:
            await self.servers[kind].start()
        return self.servers[kind]

    async def new_server(self, kind, extra="", component=True):
        server = SERVERS[kind](self._new_folder(kind), self.authority, extra, component)
        await server.start()
        return server

    async def object_store(self, kind):
        store = self.object_stores.get(kind)
        if store and not all(process.running for process in store.processes()):
            # A test failed between stopping a part of it and starting that again.
            await self.object_stores.pop(kind).stop()
            store = None
        if not store:
            store = self.object_stores[kind] = OBJECT_STORES[kind](self._new_folder(kind), self.authority)
            await store.start()
        return store

    def _new_folder(self, kind):
        folder = self.folder / f"{kind}-{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        return folder

    async def close(self):
        await asyncio.gather(*(server.process.stop(timeout=10) for server in self.servers.values()),
                             *(store.stop() for store in self.object_stores.values()))
