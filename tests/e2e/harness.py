"""What the end-to-end tests stand on: real XMPP servers, the real program, real clients.

A test is an `async def` that takes a `Case` and is marked with `@test`. The case starts whatever the test asks for
(an upslot, a client, a raw connection) and ends all of it afterwards, whether the test passed or not. The XMPP servers
belong to a `Group`, which is one file of tests; a test that has to restart its server takes one of its own.

Nothing here sleeps for luck: every wait is for a log line, an open port, a stanza or a condition, and has a deadline.
"""

import asyncio
import base64
import contextlib
import glob
import hashlib
import http.client
import inspect
import io
import itertools
import json
import os
import random
import re
import signal
import socket
import ssl
import subprocess
import urllib.parse
import xml.etree.ElementTree as ET
from collections import namedtuple
from pathlib import Path

import slixmpp
from slixmpp.exceptions import IqError

DOMAIN = "montague.example"
OTHER_DOMAIN = "capulet.example"
UPLOAD = "upload." + DOMAIN
SECRET = "correct horse battery staple"
PASSWORD = "wherefore art thou"
ACCOUNTS = ["romeo@" + DOMAIN, "benvolio@" + DOMAIN, "juliet@" + OTHER_DOMAIN]
NAMESPACES = ["urn:xmpp:http:upload:0", "urn:xmpp:http:upload", "eu:siacs:conversations:http:upload"]
STANZAS = "{urn:ietf:params:xml:ns:xmpp-stanzas}"

KIB, MIB = 1024, 1024 * 1024

# How long one step may take. Generous: a build or another test run may share the machine.
PATIENCE = 30

# Whether tests that have a long form take it.
LONG = os.environ.get("UPSLOT_TESTS") == "long"


# Tests ---------------------------------------------------------------------------------------------------------------

def test(servers=("prosody",), deadline=90):
    """Marks a test; conftest.py runs it once for each of the XMPP servers named. `None` is no server at all."""

    def mark(function):
        function.servers, function.deadline = servers, deadline
        return function

    return mark


def check(what, found, expected):
    """An assertion that shows both sides."""
    assert found == expected, f"{what}: found {short(found)}, expected {short(expected)}"


def short(value):
    text = repr(value)
    return text if len(text) < 400 else f"{text[:200]}… ({len(text)} characters)"


async def until(condition, what, timeout=PATIENCE):
    """Waits for something that announces itself in no other way; returns the first true answer."""
    deadline = asyncio.get_running_loop().time() + timeout
    while True:
        answer = condition()
        if answer:
            return answer
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"in {timeout} s never saw {what}")
        await asyncio.sleep(0.02)


# Processes and ports -------------------------------------------------------------------------------------------------

PORTS_GIVEN = set()


def free_port():
    """A free loopback port below the range from which the kernel takes the ports of outgoing connections."""
    while True:
        port = random.randrange(15000, 32000)
        if port in PORTS_GIVEN:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        PORTS_GIVEN.add(port)
        return port


class Process:
    """A child whose output is kept line by line. It dies with this program, whatever becomes of it."""

    def __init__(self, name, child):
        self.name, self.child, self.pid = name, child, child.pid
        self.lines = []
        self._more = asyncio.Event()
        self._reading = asyncio.ensure_future(self._read())

    @classmethod
    async def start(cls, name, argv, **options):
        # setpriv asks the kernel to end the child if this program ends first, and becomes the child.
        child = await asyncio.create_subprocess_exec(
            "setpriv", "--pdeathsig", "KILL", *map(str, argv),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, limit=4 * MIB, **options)
        return cls(name, child)

    async def _read(self):
        while line := await self.child.stdout.readline():
            self.lines.append(line.decode("utf-8", "replace").rstrip("\n"))
            self._more.set()
        self._more.set()

    async def line(self, pattern, since=0, timeout=PATIENCE):
        """The first line from number `since` on that matches; ends early if the process ends."""

        async def look():
            seen = since
            while True:
                self._more.clear()
                for number in range(seen, len(self.lines)):
                    if found := re.search(pattern, self.lines[number]):
                        return found
                seen = len(self.lines)
                if self._reading.done():
                    raise AssertionError(f"{self.name} ended without the line /{pattern}/")
                await self._more.wait()

        try:
            return await asyncio.wait_for(look(), timeout)
        except asyncio.TimeoutError:
            raise AssertionError(f"{self.name}: no line /{pattern}/ in {timeout} s") from None

    @property
    def running(self):
        return self.child.returncode is None

    async def ended(self, timeout=PATIENCE):
        """Waits for the end; the exit code, negative for a signal."""
        code = await asyncio.wait_for(self.child.wait(), timeout)
        await asyncio.wait([self._reading], timeout=1)
        return code

    async def stop(self, number=signal.SIGTERM, timeout=PATIENCE):
        """Sends the signal and sees the process out, by force if it must be. The exit code."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                self.child.send_signal(number)
            try:
                await asyncio.wait_for(self.child.wait(), timeout)
            except asyncio.TimeoutError:
                self.lines.append(f"*** did not end in {timeout} s after signal {number}: killed by the test")
                with contextlib.suppress(ProcessLookupError):
                    self.child.kill()
        return await self.ended()


Ran = namedtuple("Ran", "code out err")


async def run(argv, timeout=60, **options):
    """Runs a command to its end."""
    child = await asyncio.create_subprocess_exec(
        *map(str, argv), stdin=options.pop("stdin", subprocess.DEVNULL), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, **options)
    try:
        out, err = await asyncio.wait_for(child.communicate(), timeout)
    except (asyncio.TimeoutError, asyncio.CancelledError):
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
        raise
    return Ran(child.returncode, out, err.decode("utf-8", "replace"))


async def port_open(port, process, timeout=PATIENCE):
    def accepts():
        assert process.running, f"{process.name} ended while it was awaited on port {port}"
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", port)) == 0

    await until(accepts, f"{process.name} listening on port {port}", timeout)


# Certificates --------------------------------------------------------------------------------------------------------

class Authority:
    """A private certification authority, and certificates for the servers of these tests."""

    def __init__(self, folder):
        self.folder, self.pem = folder, folder / "ca.pem"
        self._openssl("req", "-x509", *self._new_key("ca"), "-out", self.pem, "-days", "2",
                      "-subj", "/CN=upslot tests", "-addext", "basicConstraints=critical,CA:TRUE",
                      "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        self.chain, self.key = self.issue("server")

    def issue(self, name, days=2):
        """A fresh certificate; the paths of the chain and of the key."""
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
        """A client's TLS context that trusts this authority and nobody else."""
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


# XMPP servers --------------------------------------------------------------------------------------------------------

class Prosody:
    """A Prosody with its own configuration, data and ports."""

    kind = "prosody"

    def __init__(self, folder, authority, extra="", component=True):
        """`extra` is more of its configuration. Without `component` it has no place for upslot's component, and
        `extra` may give its name to another service."""
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
    """An ejabberd with its own configuration, database and ports. It is started without `ejabberdctl`, as a node that
    has no name: so it needs no cookie, opens no port for other nodes and starts no port mapper."""

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
             "-eval", f'{accounts}, io:format("accounts are there~n").'],
            cwd=self.folder,
            env=dict(os.environ, HOME=str(self.folder), ERL_LIBS=":".join(libraries),
                     EJABBERD_CONFIG_PATH=str(self.config), EJABBERD_LOG_PATH=f"{self.folder}/log/ejabberd.log",
                     ERL_CRASH_DUMP=f"{self.folder}/crash.dump"))
        await self.process.line("accounts are there")
        for port in filter(None, (self.client_port, self.component_port)):
            await port_open(port, self.process)


SERVERS = {"prosody": Prosody, "ejabberd": Ejabberd}


class Group:
    """What the tests of one file share: the authority and the XMPP servers, each started when first asked for."""

    def __init__(self, folder, authority):
        self.folder, self.authority, self.servers = folder, authority, {}

    async def server(self, kind):
        if kind not in self.servers:
            self.servers[kind] = await self.new_server(kind)
        elif not self.servers[kind].process.running:
            await self.servers[kind].start()
        return self.servers[kind]

    async def new_server(self, kind, extra="", component=True):
        folder = self.folder / f"{kind}-{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        server = SERVERS[kind](folder, self.authority, extra, component)
        await server.start()
        return server

    async def close(self):
        await asyncio.gather(*(server.process.stop(timeout=10) for server in self.servers.values()))


# The program ---------------------------------------------------------------------------------------------------------

class Upslot:
    """The program with a configuration of its own. Its store outlives a restart."""

    def __init__(self, folder, server, text=None, wrapper=(), arguments=None, port=None, **settings):
        # A server without a port for components is reached in no way.
        server = server if server and server.component_port else None
        self.folder, self.server, self.wrapper = folder, server, list(wrapper)
        self.store, self.config, self.port = folder / "store", folder / "config.yml", port or free_port()
        self.store.mkdir(parents=True, exist_ok=True)
        tls = "http_certfile" in settings
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}/files/"
        self.arguments = ["-c", self.config] if arguments is None else arguments
        self.settings = {
            "storage_path": str(self.store), "http_address": "127.0.0.1", "http_port": self.port,
            "get_url": self.url, "put_url": self.url, "log_level": "debug",
        }
        if server:
            self.settings |= {"component_jid": UPLOAD, "component_secret": SECRET, "component_host": "127.0.0.1",
                              "component_port": server.component_port}
        self.configure(**settings)
        if text is not None:
            self.config.write_text(text.format(port=self.port, store=self.store, secret=SECRET, jid=UPLOAD,
                                               component_port=server.component_port))

    def configure(self, **settings):
        """Writes the configuration; what JSON prints is YAML too. `None` removes a key."""
        self.settings = {k: v for k, v in (self.settings | settings).items() if v is not None}
        self.config.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in self.settings.items()))

    async def start(self, linked=True):
        environment = {k: v for k, v in os.environ.items() if k != "RUST_LOG"}
        self.process = await Process.start("upslot", [*self.wrapper, os.environ["UPSLOT_BIN"], *self.arguments],
                                           env=environment, cwd=self.folder)
        await self.process.line(r"\bready pid=\d+")
        if self.server and linked:
            await self.process.line(r"\blink up\b")
        return self

    async def start_quietly(self):
        """Starts what would not say that it is ready, because its `log_level` is above that."""
        level = self.settings["log_level"]
        self.configure(log_level="info")
        await self.start()
        self.configure(log_level=level)
        # The last that it says. What comes after has been handled when it answers.
        await self.reload("whitelist: is absent")
        with contextlib.closing(await RawConnection.open(self)) as raw:
            raw.writer.write_eof()
            await asyncio.wait_for(raw.reader.read(), PATIENCE)

    async def restart(self, number=signal.SIGTERM):
        await self.process.stop(number)
        await self.start()

    def mark(self):
        """The number of log lines so far, for `line(since=…)`."""
        return len(self.process.lines)

    async def line(self, pattern, since=0, timeout=PATIENCE):
        return await self.process.line(pattern, since, timeout)

    async def reload(self, expected=r"\bconfig reloaded\b"):
        since = self.mark()
        self.process.child.send_signal(signal.SIGHUP)
        await self.line(expected, since)

    def files(self, store=None):
        """Every file and every empty folder of the store, as relative paths, but not upslot's own folder."""
        store, found = store or self.store, set()
        for folder, folders, files in os.walk(store):
            if Path(folder) == store:
                folders[:] = [name for name in folders if name != ".upslot"]
            elif not folders and not files:
                found.add(os.path.relpath(folder, store) + "/")
            found |= {os.path.relpath(os.path.join(folder, name), store) for name in files}
        return found

    def leftovers(self):
        """What lies in upslot's own folder, but for the secret and what is known of the clock."""
        own = self.store / ".upslot"
        files = [path for path in own.rglob("*") if path.is_file()] if own.exists() else []
        return sorted(path.name for path in files if "secret" not in path.name and path.parent.name != "clock")

    def writing(self):
        """The sizes of the files that upslot has open for writing."""
        opened, sizes = Path(f"/proc/{self.process.pid}"), []
        for entry in (opened / "fd").iterdir():
            with contextlib.suppress(OSError):
                flags = re.search(r"flags:\s+(\d+)", (opened / "fdinfo" / entry.name).read_text())[1]
                if int(flags, 8) & os.O_ACCMODE != os.O_RDONLY and entry.is_file():
                    sizes.append(entry.stat().st_size)
        return sizes

    async def receiving(self, amount):
        """Waits until a file that upslot has open for writing holds about that many bytes: the last few may wait to be
        written in one portion."""
        await until(lambda: any(size + 2048 > amount for size in self.writing()), f"{amount} bytes of an upload under way")

    def memory(self):
        """The most memory it has used so far, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * KIB


class Faults:
    """Lets system calls of a running process fail or take long, by strace: `async with Faults(case, up, "fsync:error=EIO")`.
    Only calls of the loop's own thread, unless `threads` says all. It is over with the block; what was traced is then
    in `calls`."""

    def __init__(self, case, up, *rules, threads=True, path=None, trace=()):
        """`rules` are what stands behind strace's `inject=`. Only those calls are traced that they name, and `trace`;
        with `path` only those that concern this path."""
        self.file, self.calls = case.folder / f"strace-{next(self.numbers)}.out", []
        names = {name for rule in rules for name in rule.split(":")[0].split(",")} | set(trace)
        self.argv = ["strace", *(["-f"] if threads else []), *(["-P", path] if path else []), "-o", self.file,
                     "-e", "trace=" + ",".join(sorted(names)), "-e", "signal=none"]
        for rule in rules:
            self.argv += ["-e", "inject=" + rule]
        self.argv += ["-p", up.process.pid]

    numbers = itertools.count()

    async def __aenter__(self):
        self.process = await Process.start("strace", self.argv)
        try:
            await self.process.line(r"attached")
        except AssertionError as error:
            raise AssertionError(f"strace could not attach: {self.process.lines}") from error
        return self

    async def __aexit__(self, *_):
        await self.process.stop(signal.SIGINT)
        self.calls = self.file.read_text().splitlines()

    def hits(self):
        """How many calls were tampered with so far, the running ones not counted."""
        return self.file.read_text().count("(INJECTED)") + self.file.read_text().count("(DELAYED)")


def owner_folder(jid):
    return base64.urlsafe_b64encode(hashlib.sha1(jid.encode()).digest()).decode().rstrip("=")


# Clients -------------------------------------------------------------------------------------------------------------

Slot = namedtuple("Slot", "put get headers")
Refusal = namedtuple("Refusal", "type condition text xml")


class Client:
    """An XMPP account that is online, by slixmpp."""

    def __init__(self, jid, server):
        self.jid, self.server = jid, server
        self.messages = asyncio.Queue()
        self.xmpp = slixmpp.ClientXMPP(f"{jid}/test", PASSWORD,
                                       plugin_config={"feature_mechanisms": {"unencrypted_plain": True}})
        for plugin in ("xep_0030", "xep_0066", "xep_0092", "xep_0199", "xep_0363"):
            self.xmpp.register_plugin(plugin)
        if slixmpp.__version_info__[:2] < (1, 9):
            # This one hands coroutines to asyncio.wait when it looks for a service, which Python 3.11 refuses.
            disco = self.xmpp["xep_0030"]
            get_info = disco.get_info
            disco.get_info = lambda *args, **options: asyncio.ensure_future(get_info(*args, **options))

    async def start(self):
        online = asyncio.get_running_loop().create_future()

        def finish(failure):
            if not online.done():
                online.set_exception(AssertionError(failure)) if failure else online.set_result(None)

        self.xmpp.add_event_handler("session_start", lambda _: finish(None))
        self.xmpp.add_event_handler("failed_auth", lambda _: finish(f"{self.jid} was not let in"))
        self.xmpp.add_event_handler("message", self.messages.put_nowait)
        if "address" in inspect.signature(self.xmpp.connect).parameters:
            self.xmpp.connect(address=("127.0.0.1", self.server.client_port), disable_starttls=True,
                              force_starttls=False)
        else:
            # slixmpp 1.10 and later.
            self.xmpp.enable_starttls = self.xmpp.enable_direct_tls = False
            self.xmpp.enable_plaintext = True
            self.xmpp.connect("127.0.0.1", self.server.client_port)
        await asyncio.wait_for(online, PATIENCE)
        self.xmpp.send_presence()
        return self

    async def stop(self):
        gone = self.xmpp.disconnect(wait=1)
        if gone is not None:
            await asyncio.wait([asyncio.ensure_future(gone)], timeout=3)
        self.xmpp.abort()

    async def ask(self, payload, to=UPLOAD, type="get"):
        """Sends an IQ; the whole answer as XML, be it a result or an error."""
        iq = self.xmpp.make_iq(ito=to, itype=type)
        iq.append(ET.fromstring(payload))
        try:
            return (await iq.send(timeout=PATIENCE)).xml
        except IqError as error:
            return error.iq.xml

    async def slot(self, name, size, type="application/octet-stream", to=UPLOAD):
        """A slot by XEP-0363."""
        answer = await self.xmpp["xep_0363"].request_slot(to, name, size, type, timeout=PATIENCE)
        slot = answer["http_upload_slot"]
        headers = {header["name"]: header["value"] for header in slot["put"]["headers"]}
        return Slot(slot["put"]["url"], slot["get"]["url"], headers)

    async def refusal(self, name, size, namespace=NAMESPACES[0], to=UPLOAD):
        """Asks for a slot that must be refused; the error."""
        answer = await self.ask(slot_request(namespace, name, size), to=to)
        check("type of the answer", answer.get("type"), "error")
        return refusal_of(answer)

    async def upload(self, name, content, type=None):
        """Discovers the service, gets a slot and uploads, all by slixmpp; the GET URL."""
        return await self.xmpp["xep_0363"].upload_file(
            name, size=len(content), content_type=type, input_file=io.BytesIO(content), timeout=PATIENCE)


def slot_request(namespace, name, size, type=None):
    """A slot request in the syntax of its namespace."""
    element = ET.Element(f"{{{namespace}}}request")
    fields = {"filename": name, "size": str(size)} | ({"content-type": type} if type else {})
    for field, value in fields.items():
        if namespace == NAMESPACES[0]:
            element.set(field, value)
        else:
            ET.SubElement(element, f"{{{namespace}}}{field}").text = value
    return ET.tostring(element, encoding="unicode")


def refusal_of(answer):
    error = next(child for child in answer if child.tag.endswith("}error"))
    conditions = [child.tag.removeprefix(STANZAS) for child in error if child.tag.startswith(STANZAS)]
    text = error.findtext(STANZAS + "text")
    return Refusal(error.get("type"), next(c for c in conditions if c != "text"), text, error)


Reply = namedtuple("Reply", "status headers body")


async def http_request(method, url, body=None, headers=None, context=None, timeout=PATIENCE):
    """One HTTP request on a connection of its own."""

    def work():
        parts = urllib.parse.urlsplit(url)
        kind, extra = (http.client.HTTPSConnection, {"context": context}) if parts.scheme == "https" \
            else (http.client.HTTPConnection, {})
        connection = kind(parts.hostname, parts.port, timeout=timeout, **extra)
        with contextlib.closing(connection):
            target = parts.path + (f"?{parts.query}" if parts.query else "")
            connection.request(method, target, body=body, headers=headers or {})
            answer = connection.getresponse()
            return Reply(answer.status, answer.headers, answer.read())

    return await asyncio.to_thread(work)


async def get(url, **options):
    return await http_request("GET", url, **options)


async def put(url, body, **options):
    return await http_request("PUT", url, body, **options)


async def curl(*arguments, timeout=60):
    """Runs curl; its output, and the last status as `code`."""
    ran = await run(["curl", "-sS", "--noproxy", "*", "--max-time", timeout, "-w", "%{stderr}\nstatus=%{http_code}",
                     *arguments], timeout + 5)
    assert ran.code == 0, f"curl ended with {ran.code}: {ran.err}"
    return Ran(int(re.findall(r"status=(\d+)", ran.err)[-1]), ran.out, ran.err)


class RawConnection:
    """A TCP connection to the HTTP port, to send in pieces."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, up):
        return cls(*await asyncio.open_connection("127.0.0.1", up.port, limit=64 * KIB))

    async def send(self, data):
        self.writer.write(data)
        await asyncio.wait_for(self.writer.drain(), PATIENCE)

    async def send_head(self, method, url, **fields):
        parts = urllib.parse.urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        head = [f"{method} {target} HTTP/1.1", f"Host: {parts.netloc}"]
        head += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
        await self.send(("\r\n".join(head) + "\r\n\r\n").encode())

    async def head(self):
        """Reads one response head; the status and the fields."""
        text = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), PATIENCE)).decode()
        status, *lines = text.rstrip().split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines)
        return int(status.split()[1]), {name.lower(): value for name, value in fields.items()}

    async def body(self, size):
        return await asyncio.wait_for(self.reader.readexactly(size), PATIENCE)

    def close(self):
        self.writer.transport.abort()


def content(size, seed=1):
    """Bytes that do not repeat, the same for the same arguments."""
    return random.Random(seed).randbytes(size)


# One test under way --------------------------------------------------------------------------------------------------

class Case:
    """Everything that one test started; closed at its end in reverse order."""

    def __init__(self, group, folder, server_kind):
        self.group, self.folder, self.server_kind = group, folder, server_kind
        self.authority = group.authority
        self.started, self._closing, self._count = [], contextlib.AsyncExitStack(), 0

    async def server(self):
        return await self.group.server(self.server_kind) if self.server_kind else None

    async def own_server(self, extra="", component=True):
        """A server that no other test uses, for tests that stop it or need more of its configuration."""
        server = await self.group.new_server(self.server_kind, extra, component)
        self.ends(server)
        return server

    def ends(self, started):
        """Has what was started ended, and its log shown if the test fails."""

        async def end():
            if hasattr(started, "process"):
                await started.process.stop(timeout=10)

        self.started.append(started)
        self._closing.push_async_callback(end)

    async def upslot(self, server=None, start=True, linked=True, **options):
        """A running upslot, linked to the group's server or to the one given."""
        server = server or await self.server()
        self._count += 1
        up = Upslot(self.folder / f"upslot-{self._count}", server, **options)
        self.ends(up)
        if start:
            await up.start(linked)
        return up

    async def client(self, jid=ACCOUNTS[0], server=None):
        client = await Client(jid, server or await self.server()).start()
        self._closing.push_async_callback(client.stop)
        return client

    async def raw(self, up):
        connection = await RawConnection.open(up)
        self._closing.callback(connection.close)
        return connection

    def background(self, coroutine):
        """A task that is cancelled at the end of the test if it still runs."""
        task = asyncio.ensure_future(coroutine)
        self._closing.callback(task.cancel)
        return task

    async def close(self):
        await self._closing.aclose()

    def logs(self):
        """The processes whose output may explain a failure."""
        shared = [server for server in self.group.servers.values() if server.kind == self.server_kind]
        return [started.process for started in self.started + shared if hasattr(started, "process")]
