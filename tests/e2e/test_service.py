"""Under service managers and container engines, and on hosts that lack something: signals during the start, sockets that
systemd passes, an empty read-only root under changing users, no IPv6."""

import asyncio
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import stat
from pathlib import Path

from harness import PATIENCE, Faults, Process, check, content, curl, free_port, get, put, run, test, until
from test_sandbox import open_folder, traced, upload

HERE = Path(__file__).resolve().parent
CONTRIB = HERE.parents[1] / "contrib"
WITHOUT_IPV6 = ["/usr/bin/python3", HERE / "without_ipv6.py"]
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "RUST_LOG"}
# Microseconds for which the start stands still.
STANDSTILL = 1_500_000


async def start(up, *more):
    """Starts it without waiting for anything."""
    argv = [*up.wrapper, os.environ["UPSLOT_BIN"], *up.arguments, *more]
    up.process = await Process.start("upslot", argv, env=ENVIRONMENT, cwd=up.folder)
    return up.process


# Signals --------------------------------------------------------------------------------------------------------------

@test(servers=(None,), deadline=180)
async def signals_between_the_open_port_and_ready(case):
    # The start stands still at a call that comes when the port is open already.
    for call in ("eventfd2", "landlock_create_ruleset"):
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            trace = case.folder / f"trace-{call}-{number}"
            up = await case.upslot(start=False, wrapper=traced(
                trace, "-e", f"trace={call}", "-e", f"inject={call}:delay_enter={STANDSTILL}:when=1"))
            process = await start(up)

            def is_open():
                with socket.socket() as probe:
                    return probe.connect_ex(("127.0.0.1", up.port)) == 0

            await until(is_open, "an open port")
            assert not [line for line in process.lines if "ready" in line], "it was too late"
            process.child.send_signal(number)
            await process.line(r"\bready pid=")
            if number == signal.SIGHUP:
                await process.line(r"\bconfig reloaded\b")
                check("GET /", (await get(f"http://127.0.0.1:{up.port}/")).status, 200)
                process.child.send_signal(signal.SIGTERM)
            await process.line(r"\bshutting down signal=")
            check(f"exit code after {number.name} at {call}", await process.ended(), 0)


@test(servers=(None,))
async def a_request_that_has_arrived_is_answered_at_the_end(case):
    up = await case.upslot(start=False)
    await up.start()
    check("GET /", (await get(f"http://127.0.0.1:{up.port}/")).status, 200)
    # The loop stands still after it found no more connections: what comes then, and the signal, are for the next turn.
    async with Faults(case, up, f"accept4:delay_exit={STANDSTILL}:when=2"):
        since = up.mark()
        first = await case.raw(up)
        await up.line("connection accepted", since)
        # The call in which it stands still follows at once, and nothing announces it.
        await asyncio.sleep(STANDSTILL / 5e6)
        late = await case.raw(up)
        await late.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        up.process.child.send_signal(signal.SIGTERM)
        status, fields = await late.head()
    check("answer", (status, fields.get("connection")), (200, "close"))
    # The other one waits for nothing.
    check("idle connection", await asyncio.wait_for(first.reader.read(), PATIENCE), b"")
    check("exit", await up.process.ended(), 0)


# Without IPv6 ---------------------------------------------------------------------------------------------------------

def listening(up):
    """Where it listens: the public side, and the local API."""
    found = [re.search(r"listening on=http://(\S+):\d+( for=api)?", line) for line in up.process.lines]
    return [[f[1] for f in found if f and bool(f[2]) == local] for local in (False, True)]


def warnings(up, word):
    return [line for line in up.process.lines if " WARN " in line and word in line]


@test(servers=(None,), deadline=180)
async def addresses_without_ipv6(case):
    for http, without, with_it in [
            ("::", ["0.0.0.0"], ["[::]"]),
            ("localhost", ["127.0.0.1"], ["127.0.0.1", "[::1]"]),
            (["0.0.0.0", "::"], ["0.0.0.0"], ["[::]"]),
            (["::1", "127.0.0.1"], ["127.0.0.1"], ["[::1]", "127.0.0.1"]),
            (["::", f"unix:{case.folder}/http.sock"], ["0.0.0.0"], ["[::]"]),
    ]:
        for lacks, expected in ((True, without), (False, with_it)):
            api = free_port()
            # The API takes the same addresses, where they are of TCP.
            inner = [http] if isinstance(http, str) else [one for one in http if not one.startswith("unix")]
            up = await case.upslot(start=False, http_address=http, api={"port": api, "address": inner},
                                   wrapper=WITHOUT_IPV6 if lacks else ())
            await up.start()
            check(f"{http}, IPv6 is lacking: {lacks}", listening(up), [expected, expected])
            check("warnings", len(warnings(up, "address family missing")), 1 if lacks else 0)
            check("GET /", (await get(f"http://127.0.0.1:{up.port}/")).status, 200)
            check("GET /health", (await get(f"http://127.0.0.1:{api}/health")).status, 200)
            # Nothing has changed for a reload.
            since = up.mark()
            await up.reload()
            check("after a reload", [line for line in up.process.lines[since:] if "restart" in line], [])
            healthy = await run([*up.wrapper, os.environ["UPSLOT_BIN"], "-c", up.config, "health"])
            check("health", healthy.code, 0)
            check("exit", await up.process.stop(), 0)


@test(servers=(None,))
async def what_is_ipv6_alone_does_not_start_without_it(case):
    for settings, key in [({"http_address": "::1"}, "http_address"), ({"http_address": ["2001:db8::1", "::1"]}, "http_address"),
                          ({"api": {"port": free_port(), "address": "::1"}}, "api")]:
        up = await case.upslot(start=False, wrapper=WITHOUT_IPV6, **settings)
        process = await start(up)
        await process.line(rf"ERROR cannot start why=.*{key}: cannot listen on \[\S+\]:\d+, because this system has no IPv6")
        check("exit", await process.ended(), 1)


@test(servers=(None,))
async def an_ipv4_port_that_is_taken_is_still_an_error(case):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for http in ("::", "localhost", ["0.0.0.0", "::"]):
            up = await case.upslot(start=False, wrapper=WITHOUT_IPV6, http_address=http, http_port=port)
            process = await start(up)
            await process.line(r"ERROR cannot start why=.*http_address: cannot listen on .*in use")
            check("exit", await process.ended(), 1)


@test()
async def the_link_without_ipv6(case):
    server = await case.server()
    # Every address of a name is tried, and the first of this one is out of reach.
    hosts = case.folder / "hosts"
    hosts.write_text("::1 xmpp.sandbox.test\n127.0.0.1 xmpp.sandbox.test\n")
    unshare = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-Urm"]
    mounts = [*unshare, "sh", "-c", 'hosts="$1"; shift; mount --bind "$hosts" /etc/hosts && exec "$@"', "sh", hosts]
    for host, wrapper in (("localhost", []), ("xmpp.sandbox.test", mounts)):
        up = await case.upslot(wrapper=[*wrapper, *WITHOUT_IPV6], component_host=host)
        await upload(await case.client(), "a.bin", content(10))
        check("exit", await up.process.stop(), 0)
    # An address that cannot be reached is said so, and tried again.
    up = await case.upslot(start=False, wrapper=WITHOUT_IPV6, component_host="::1")
    await up.start(linked=False)
    await up.line(rf"WARN  link down why=\"cannot connect to \[::1\]:{server.component_port}: this system has no IPv6")
    await up.line(r"DEBUG link down why=.*no IPv6")
    up.configure(component_host="127.0.0.1")
    await up.reload()
    await up.line(r"\blink up\b")


@test(servers=(None,))
async def the_demonstration_without_ipv6(case):
    up = await case.upslot(start=False, wrapper=WITHOUT_IPV6, arguments=["--demo"])
    process = await start(up)
    url = (await process.line(r"listening on=(http://127\.0\.0\.1:\d+)"))[1]
    await process.line(r"\bready pid=")
    check("GET /", (await get(url + "/")).status, 200)
    check("exit", await process.stop(), 0)


# In a network of its own with IPv6 switched off.
IPV6_IS_OFF = """
import fcntl, os, socket, struct, sys
lo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
fcntl.ioctl(lo, 0x8914, struct.pack("16sH14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
for name in ("all", "default", "lo"):
    open(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6", "w").write("1")
os.execvp(sys.argv[1], sys.argv[1:])
"""


@test(servers=(None,))
async def ipv6_that_is_switched_off(case):
    if not Path("/proc/sys/net/ipv6").exists():
        print("NOT TESTED: this kernel has no IPv6 that could be switched off")
        return
    unshare = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-Urn"]
    wrapper = [*unshare, "/usr/bin/python3", "-c", IPV6_IS_OFF]
    users = [] if os.geteuid() == 0 else ["-U", "--preserve-credentials"]
    for http in ("localhost", "::", ["2001:db8::1", "127.0.0.1"]):
        up = await case.upslot(start=False, wrapper=wrapper, http_address=http)
        await up.start()
        got = await run(["nsenter", "-t", up.process.pid, *users, "-n", "curl", "-sS", "--noproxy", "*",
                         "--max-time", "10", f"http://127.0.0.1:{up.port}/"])
        assert b"upslot" in got.out, got
        check("exit", await up.process.stop(), 0)
    up = await case.upslot(start=False, wrapper=wrapper, http_address="::1")
    process = await start(up)
    await process.line(r"cannot listen on \[::1\]:\d+, because this system has no IPv6")
    check("exit", await process.ended(), 1)


# systemd --------------------------------------------------------------------------------------------------------------

@test(servers=(None,))
async def the_units_are_right(case):
    for name in ("upslot.service", "upslot.socket"):
        # The program stands elsewhere here, and the units refer to each other.
        text = (CONTRIB / "service" / name).read_text().replace("/usr/local/bin/upslot", os.environ["UPSLOT_BIN"])
        (case.folder / name).write_text(text)
    for name in ("upslot.service", "upslot.socket"):
        ran = await run(["systemd-analyze", "verify", "--man=no", case.folder / name])
        check(f"{name}", (ran.code, ran.err.strip()), (0, ""))
    text = (CONTRIB / "service" / "upslot.service").read_text()
    for line in ("Type=notify", "NotifyAccess=main", "WatchdogSec=2min"):
        assert re.search(rf"(?m)^{line}$", text), line


class Activated:
    """An upslot that systemd-socket-activate starts with the sockets at the first connection."""

    def __init__(self, up, names, *places, options=()):
        self.up = up
        listens = [word for place in places for word in ("-l", place)]
        self.argv = ["systemd-socket-activate", *options, *listens, *(["--fdname=" + names] if names else [])]

    async def start(self):
        up = self.up
        argv = [*self.argv, os.environ["UPSLOT_BIN"], *up.arguments]
        up.process = await Process.start("upslot", argv, env=ENVIRONMENT, cwd=up.folder)
        await up.process.line(r"^Listening on ")
        return up.process


@test(servers=(None,))
async def sockets_from_systemd(case):
    http, api, unix = free_port(), free_port(), case.folder / "http.sock"
    with socket.socket() as taken:
        # Would the configured port be opened, it would fail.
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        up = await case.upslot(start=False, http_port=taken.getsockname()[1],
                               api={"port": taken.getsockname()[1], "address": "127.0.0.2"})
        process = await Activated(up, "http:api:http", f"127.0.0.1:{http}", f"127.0.0.1:{api}", unix).start()
        check("GET /", (await get(f"http://127.0.0.1:{http}/")).status, 200)
        check("GET /health", (await get(f"http://127.0.0.1:{api}/health")).status, 200)
        check("/health on the public side", (await get(f"http://127.0.0.1:{http}/health")).status, 404)
        check("GET / by Unix socket", (await curl("--unix-socket", unix, "http://a/")).code, 200)
        for line in (rf"listening on=http://127.0.0.1:{http} passed=true", rf"on=http://127.0.0.1:{api} for=api passed=true",
                     rf"listening on=unix:{unix} passed=true"):
            await process.line(line)
        check("public and API", listening(up), [["127.0.0.1"], ["127.0.0.1"]])
        # Uploads and downloads go as ever.
        slot = (await curl(f"http://127.0.0.1:{api}/slot/?name=a.bin&size=10&jid=romeo@montague.example")).out.decode()
        links = [re.sub(r":\d+/", f":{http}/", link) for link in slot.split("\n")]
        check("PUT", (await put(links[0], content(10))).status, 201)
        check("GET", (await get(links[1])).body, content(10))
        # A reload leaves them alone, and what the configuration says of addresses has no effect.
        up.configure(http_port=1, api={"port": 2})
        await up.reload()
        for key in ("http_port", "api"):
            await process.line(rf"WARN  config key={key} has no effect why=.*service manager")
        check("GET / after it", (await get(f"http://127.0.0.1:{http}/")).status, 200)
        check("exit", await process.stop(), 0)
    assert stat.S_ISSOCK(unix.stat().st_mode), "a socket that is not ours was removed"


@test(servers=(None,))
async def sockets_from_systemd_by_halves(case):
    # One key's sockets are passed, the other's addresses are opened.
    for names, opened in [("http", "api"), ("api", "http"), (None, "api")]:
        passed, own = free_port(), free_port()
        port, api = (own, passed) if names == "api" else (passed, own)
        settings = {"http_port": own, "api": {"port": 1}} if names == "api" else {"http_port": 1, "api": {"port": own}}
        up = await case.upslot(start=False, **settings)
        process = await Activated(up, names, f"127.0.0.1:{passed}").start()
        # Any connection starts it.
        await get(f"http://127.0.0.1:{passed}/")
        await process.line(r"\bready pid=")
        check(f"GET / where {opened} is not passed", (await get(f"http://127.0.0.1:{port}/")).status, 200)
        check("GET /health", (await get(f"http://127.0.0.1:{api}/health")).status, 200)
        check("exit", await process.stop(), 0)


@test(servers=(None,))
async def tls_on_a_socket_from_systemd(case):
    port = free_port()
    chain, key = case.authority.issue("passed")
    up = await case.upslot(start=False, http_certfile=str(chain), http_keyfile=str(key))
    process = await Activated(up, "upslot.socket", f"[::]:{port}").start()
    reply = await get(f"https://127.0.0.1:{port}/", context=case.authority.context(ssl.TLSVersion.TLSv1_3))
    check("GET / over TLS, of IPv4 through an IPv6 socket", reply.status, 200)
    await process.line(r"listening on=https://\[::\]:\d+ passed=true")
    check("exit", await process.stop(), 0)


@test(servers=(None,))
async def sockets_that_are_of_no_use(case):
    for names, options, settings, why in [
            ("htp", [], {}, 'a socket named .*htp.*, expected http or api'),
            ("api", [], {}, "api: nothing, but the service manager passes a socket for it"),
            ("http", ["-d"], {}, "no listening stream socket"),
            # A connection instead of a listening socket.
            ("http", ["-a", "--inetd"], {}, None),
    ]:
        port = free_port()
        up = await case.upslot(start=False, **settings)
        process = await Activated(up, names, f"127.0.0.1:{port}", options=options).start()
        kind = socket.SOCK_DGRAM if "-d" in options else socket.SOCK_STREAM
        with socket.socket(socket.AF_INET, kind) as one:
            one.connect(("127.0.0.1", port))
            one.send(b"x")
            if why is None:
                # It does not concern us: nothing is announced, and the configured port is opened.
                await process.line(r"\bready pid=")
                check("GET /", (await get(f"http://127.0.0.1:{up.port}/")).status, 200)
                await process.stop()
                continue
            await process.line(rf"ERROR cannot start why=.*{why}")
        check("exit", await process.ended(), 1)
    # For another process, or none at all.
    for environment in ({"LISTEN_FDS": "1", "LISTEN_PID": "1"}, {"LISTEN_FDS": "1"}):
        up = await case.upslot(start=False)
        up.process = await Process.start("upslot", [os.environ["UPSLOT_BIN"], *up.arguments],
                                         env=ENVIRONMENT | environment, cwd=up.folder)
        await up.line(r"\bready pid=")
        check("GET /", (await get(f"http://127.0.0.1:{up.port}/")).status, 200)
        check("exit", await up.process.stop(), 0)
    # Descriptors that are announced and not there.
    script = 'LISTEN_PID=$$ LISTEN_FDS="$1" exec "$2" -c "$3"'
    for count, why in (("3", "descriptor 3"), ("65", "LISTEN_FDS is"), ("x", "LISTEN_FDS is")):
        up = await case.upslot(start=False)
        up.process = await Process.start("upslot", ["sh", "-c", script, "sh", count, os.environ["UPSLOT_BIN"], up.config],
                                         env=ENVIRONMENT, cwd=up.folder)
        await up.line(rf"ERROR cannot start why=.*{why}")
        check("exit", await up.process.ended(), 1)


# A systemd of our own, for the user, in a part of the control groups that was made for it. It insists on a system that
# was booted with systemd.
MANAGER = """
    set -e
    for group in $1; do echo $$ > "$group/cgroup.procs"; done
    mount -t tmpfs none /run
    mkdir -p /run/systemd/system
    exec /lib/systemd/systemd --user --unit=default.target --log-target=console
"""


@contextlib.contextmanager
def control_groups(name):
    """A group of that name in each hierarchy that systemd uses."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    groups = [Path(fields[1]) / name for fields in mounts
              if fields[2] == "cgroup2" or (fields[2] == "cgroup" and "name=systemd" in fields[3])]
    made = []
    try:
        for group in groups:
            group.mkdir()
            made.append(group)
        yield made
    finally:
        for group in made:
            for inner in sorted(group.rglob("*"), reverse=True):
                if inner.is_dir():
                    with contextlib.suppress(OSError):
                        inner.rmdir()
            with contextlib.suppress(OSError):
                group.rmdir()


class Systemd:
    """A running user manager, and systemctl for it."""

    def __init__(self, folder):
        (folder / "run").mkdir(mode=0o700)
        self.units = folder / "units"
        self.units.mkdir()
        (self.units / "default.target").write_text("[Unit]\n")
        self.environment = dict(ENVIRONMENT, XDG_RUNTIME_DIR=str(folder / "run"), HOME=str(folder),
                                SYSTEMD_UNIT_PATH=str(self.units))

    async def start(self, groups):
        self.process = await Process.start(
            "systemd", ["unshare", "-mC", "sh", "-c", MANAGER, "sh", " ".join(map(str, groups))], env=self.environment)

    async def ctl(self, *words):
        return await run(["systemctl", "--user", "--no-pager", *words], timeout=PATIENCE, env=self.environment)

    async def does(self, *words):
        ran = await self.ctl(*words)
        assert ran.code == 0, f"systemctl {words}: {ran.err}"

    async def show(self, name):
        return (await self.ctl("show", "--value", "-p", name, "upslot.service")).out.decode().strip()

    async def shows(self, name, expected):
        """Waits for a property."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while (found := await self.show(name)) != expected:
            assert asyncio.get_running_loop().time() < deadline, f"{name} stays {found!r}, expected {expected!r}"
            await asyncio.sleep(0.1)


@test(deadline=180)
async def a_systemd_that_runs(case):
    if os.geteuid() != 0:
        print("NOT TESTED: only root can make control groups")
        return
    with contextlib.ExitStack() as stack:
        try:
            groups = stack.enter_context(control_groups(f"upslot-e2e-{os.getpid()}"))
        except OSError as error:
            print(f"NOT TESTED: no control groups can be made here: {error}")
            return
        systemd = Systemd(case.folder)
        up = await case.upslot(start=False)
        shipped = (CONTRIB / "service/upslot.service").read_text()
        kept = re.findall(r"(?m)^(?:Type|NotifyAccess|ExecReload|Restart|RestartSec|LimitCORE)=.*$", shipped)
        check("lines of the unit", len(kept), 6)
        (systemd.units / "upslot.service").write_text("\n".join([
            "[Unit]", "DefaultDependencies=no", "[Service]", *kept, "WatchdogSec=2", "Environment=RUST_LOG=",
            f"ExecStart={os.environ['UPSLOT_BIN']} -c {up.config}"]))
        port = free_port()
        socket_unit = (CONTRIB / "service/upslot.socket").read_text().replace("127.0.0.1:8080", f"127.0.0.1:{port}")
        (systemd.units / "upslot.socket").write_text(socket_unit.replace("[Unit]", "[Unit]\nDefaultDependencies=no"))
        await systemd.start(groups)
        try:
            deadline = asyncio.get_running_loop().time() + PATIENCE
            while (answer := await systemd.ctl("show-environment")).code != 0:
                if not systemd.process.running or asyncio.get_running_loop().time() > deadline:
                    print(f"NOT TESTED: no systemd runs here: {answer.err} {systemd.process.lines}")
                    return
                await asyncio.sleep(0.1)
            # Started when it is ready; then it says how its link is.
            await systemd.does("start", "upslot.service")
            check("state", await systemd.show("ActiveState"), "active")
            check("GET /", (await get(f"http://127.0.0.1:{up.port}/")).status, 200)
            await systemd.shows("StatusText", "XMPP link up")
            await systemd.does("reload", "upslot.service")
            await systemd.shows("SubState", "running")
            # Idle, it outlives its watchdog.
            await asyncio.sleep(5)
            check("restarts", await systemd.show("NRestarts"), "0")
            # Its loop hangs: it is killed and restarted.
            text = up.config.read_text()
            up.config.unlink()
            os.mkfifo(up.config)
            pid = await systemd.show("MainPID")
            os.kill(int(pid), signal.SIGHUP)
            await systemd.shows("NRestarts", "1")
            # The new one waits in the start until the configuration comes, once.
            await until(lambda: feed(up.config, text), "a reader of the configuration")
            await systemd.shows("SubState", "running")
            up.config.unlink()
            up.config.write_text(text)
            check("GET / of the new one", (await get(f"http://127.0.0.1:{up.port}/")).status, 200)
            await systemd.does("stop", "upslot.service")
            check("result", await systemd.show("Result"), "success")
            # With a socket it starts when it is needed, and no client is refused while it restarts.
            await systemd.does("start", "upslot.socket")
            check("GET / that starts it", (await get(f"http://127.0.0.1:{port}/")).status, 200)
            await systemd.shows("SubState", "running")
            restart = asyncio.ensure_future(systemd.does("restart", "upslot.service"))
            while not restart.done():
                # One that was accepted and has not asked is closed, as idle ones are; none is refused.
                with contextlib.suppress(ConnectionResetError, http.client.RemoteDisconnected, BrokenPipeError):
                    check("GET / during a restart", (await get(f"http://127.0.0.1:{port}/")).status, 200)
            check("GET / after it", (await get(f"http://127.0.0.1:{port}/")).status, 200)
            await restart
            await systemd.does("stop", "upslot.socket", "upslot.service")
            check("result", await systemd.show("Result"), "success")
        finally:
            await systemd.process.stop(signal.SIGKILL)
            # What it had started, if the test went wrong.
            for group in groups:
                with contextlib.suppress(OSError):
                    (group / "cgroup.kill").write_text("1")


def feed(path, text):
    """Writes a text into a FIFO, if a reader has it open."""
    try:
        pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return False
    with open(pipe, "w") as file:
        file.write(text)
    return True


# Containers -----------------------------------------------------------------------------------------------------------

async def static_program():
    """The program without any library, as the image has it; built as contrib/docs/installation.md says, but without optimisation."""
    if given := os.environ.get("UPSLOT_STATIC"):
        return Path(given)
    top = HERE.parents[1]
    host = re.search(r"(?m)^host: (\S+)$", (await run(["rustc", "-vV"], cwd=top)).out.decode())[1]
    flags = dict(os.environ, RUSTFLAGS="-C target-feature=+crt-static")
    built = await run(["cargo", "build", "--locked", "--bin", "upslot", "--target", host], timeout=900, cwd=top, env=flags)
    assert built.code == 0, built.err
    target = Path(os.environ.get("CARGO_TARGET_DIR") or top / "target")
    return target / host / "debug" / "upslot"


@test(servers=(None,), deadline=1000)
async def an_empty_root_under_changing_users(case):
    if os.geteuid() != 0:
        print("NOT TESTED: only root can change users and mount file systems")
        return
    program = await static_program()
    file = (await run(["ldd", program]))
    assert "statically linked" in file.out.decode() or "not a dynamic executable" in file.err, file
    http, api = free_port(), free_port()
    with open_folder() as folder:
        root, data, config, binary = folder / "root", folder / "data", folder / "config.yml", folder / "upslot"
        root.mkdir()
        shutil.copy(program, binary)
        # As the Containerfile makes it, and what it starts and asks.
        image = (CONTRIB / "container/Containerfile").read_text()
        made = re.search(r"--chown=(\d+):(\d+) --chmod=(\d+) /image/data", image)
        commands = {word: json.loads(re.search(rf"(?m)^{word} .*?(\[.*\])$", image)[1])
                    for word in ("ENTRYPOINT", "CMD", "HEALTHCHECK")}
        check("user of the image", re.findall(r"(?m)^USER (.*)$", image), [f"{made[1]}:0"])
        data.mkdir()
        os.chown(data, int(made[1]), int(made[2]))
        data.chmod(int(made[3], 8))
        config.write_text(f"storage_path: /data\nhttp_address: '::'\nhttp_port: {http}\nget_url: http://127.0.0.1:{http}/\n"
                          f"put_url: http://127.0.0.1:{http}/\napi: {{port: {api}}}\n"
                          "expire_interval: 1\nexpire_maxage: 100000\n")
        binds = [f"{binary}=/upslot", f"{config}=/config.yml", f"{data}=/data:rw"]

        def contained(user, *command):
            return ["unshare", "-m", "/usr/bin/python3", HERE / "in_container.py", root, user, *binds, *command]

        slots, older = [], None
        for user in (1000640000, int(made[1]), 1000650000):
            process = await Process.start("upslot", contained(user, *commands["ENTRYPOINT"], *commands["CMD"]), env={})
            try:
                await process.line(r"\bready pid=")
                status = Path(f"/proc/{process.pid}/status").read_text()
                check("user and group", re.findall(r"(?m)^[UG]id:\s+(\d+)", status), [str(user), "0"])
                check("capabilities", set(re.findall(r"Cap(?:Prm|Eff|Bnd|Amb):\s+(\w+)", status)), {"0" * 16})
                lines = (await curl(f"http://127.0.0.1:{api}/slot/?name={user}.bin&size=10&jid=romeo@montague.example")).out
                slots.append(lines.decode().split("\n"))
                check(f"PUT by {user}", (await put(slots[-1][0], content(10))).status, 201)
                for slot in slots:
                    check("GET of an upload", (await get(slot[1])).body, content(10))
                if older:
                    # A slot that another user's process gave.
                    check("PUT to an older slot", (await put(older, content(10))).status, 201)
                lines = (await curl(f"http://127.0.0.1:{api}/slot/?name=later.bin&size=10&jid=romeo@montague.example")).out
                older = lines.decode().split("\n")[0]
                healthy = await run(contained(user, *commands["HEALTHCHECK"]), env={})
                check("health", (healthy.code, healthy.out.decode().split(":")[0]), (0, "healthy"))
                troubles = [line for line in process.lines if re.search(r" (WARN|ERROR) ", line)
                            and not re.search("is absent|is not https", line)]
                check("warnings", troubles, [])
            finally:
                code = await process.stop()
            check("exit", code, 0)
            sick = await run(contained(user, *commands["HEALTHCHECK"]), env={})
            check("health of what does not run", (sick.code, sick.err.split(":")[0]), (1, "unhealthy"))


@test(servers=(None,))
async def the_configuration_for_kubernetes_is_right(case):
    text = (CONTRIB / "container/kubernetes.yml").read_text()
    lines = re.search(r"(?m)^  config\.yml: \|\n((?:    .*\n)+)", text)[1]
    secret, config = case.folder / "secret", case.folder / "config.yml"
    secret.write_text("secret\n")
    secret.chmod(0o600)
    config.write_text(re.sub(r"(?m)^    ", "", lines).replace("/run/secrets/upslot/component_secret", str(secret)))
    ran = await run([os.environ["UPSLOT_BIN"], "-c", config, "--check-config"])
    check("faults and warnings", (ran.code, ran.err), (0, ""))
