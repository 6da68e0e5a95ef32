"""systemd: the units, socket activation, and a running service manager with its watchdog."""

import asyncio
import contextlib
import http.client
import os
import re
import signal
import socket
import ssl
import stat
from pathlib import Path

from harness import (ENVIRONMENT, PATIENCE, Process, check, content, curl, free_port, get, put, run, test, until)

SERVICE = Path(__file__).resolve().parents[2] / "contrib" / "service"


@test(servers=(None,))
async def units_are_valid(case):
    for name in ("upslot.service", "upslot.socket"):
        # The units refer to each other, and to the path of an installed program.
        text = (SERVICE / name).read_text().replace("/usr/local/bin/upslot", os.environ["UPSLOT_BIN"])
        (case.folder / name).write_text(text)
    for name in ("upslot.service", "upslot.socket"):
        ran = await run(["systemd-analyze", "verify", "--man=no", case.folder / name])
        check(f"{name}", (ran.code, ran.err.strip()), (0, ""))
    text = (SERVICE / "upslot.service").read_text()
    for line in ("Type=notify", "NotifyAccess=main", "WatchdogSec=2min"):
        assert re.search(rf"(?m)^{line}$", text), line


class Activated:
    """An upslot that systemd-socket-activate starts at the first connection."""

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
async def socket_activation(case):
    http, api, unix = free_port(), free_port(), case.folder / "http.sock"
    with socket.socket() as taken:
        # The configured ports are in use, so that opening them would fail.
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
        check("public and API", up.listening(), [["127.0.0.1"], ["127.0.0.1"]])
        slot = (await curl(f"http://127.0.0.1:{api}/slot/?name=a.bin&size=10&jid=romeo@montague.example")).out.decode()
        links = [re.sub(r":\d+/", f":{http}/", link) for link in slot.split("\n")]
        check("PUT", (await put(links[0], content(10))).status, 201)
        check("GET", (await get(links[1])).body, content(10))
        # A reload keeps the sockets; addresses in the configuration have no effect.
        up.configure(http_port=1, api={"port": 2})
        await up.reload()
        for key in ("http_port", "api"):
            await process.line(rf"WARN  config key={key} has no effect why=.*service manager")
        check("GET / after it", (await get(f"http://127.0.0.1:{http}/")).status, 200)
        check("exit", await process.stop(), 0)
    assert stat.S_ISSOCK(unix.stat().st_mode), "a socket of the service manager was removed"


@test(servers=(None,))
async def partial_socket_activation(case):
    # The sockets of one key are passed; the addresses of the other are opened.
    for names, opened in [("http", "api"), ("api", "http"), (None, "api")]:
        passed, own = free_port(), free_port()
        port, api = (own, passed) if names == "api" else (passed, own)
        settings = {"http_port": own, "api": {"port": 1}} if names == "api" else {"http_port": 1, "api": {"port": own}}
        up = await case.upslot(start=False, **settings)
        process = await Activated(up, names, f"127.0.0.1:{passed}").start()
        # The first connection starts the program.
        await get(f"http://127.0.0.1:{passed}/")
        await process.line(r"\bready pid=")
        check(f"GET / where {opened} is not passed", (await get(f"http://127.0.0.1:{port}/")).status, 200)
        check("GET /health", (await get(f"http://127.0.0.1:{api}/health")).status, 200)
        check("exit", await process.stop(), 0)


@test(servers=(None,))
async def tls_on_an_activated_socket(case):
    port = free_port()
    chain, key = case.authority.issue("passed")
    up = await case.upslot(start=False, http_certfile=str(chain), http_keyfile=str(key))
    process = await Activated(up, "upslot.socket", f"[::]:{port}").start()
    reply = await get(f"https://127.0.0.1:{port}/", context=case.authority.context(ssl.TLSVersion.TLSv1_3))
    check("GET / over TLS, of IPv4 through an IPv6 socket", reply.status, 200)
    await process.line(r"listening on=https://\[::\]:\d+ passed=true")
    check("exit", await process.stop(), 0)


@test(servers=(None,))
async def unusable_sockets(case):
    for names, options, settings, why in [
            ("htp", [], {}, 'a socket named .*htp.*, expected http or api'),
            ("api", [], {}, "api: nothing, but the service manager passes a socket for it"),
            ("http", ["-d"], {}, "not a listening stream socket"),
            # A connected socket.
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
                # It is not announced in LISTEN_FDS, and the configured port is opened.
                await process.line(r"\bready pid=")
                check("GET /", (await get(f"http://127.0.0.1:{up.port}/")).status, 200)
                await process.stop()
                continue
            await process.line(rf"ERROR cannot start why=.*{why}")
        check("exit", await process.ended(), 1)
    # LISTEN_PID of another process, or none.
    for environment in ({"LISTEN_FDS": "1", "LISTEN_PID": "1"}, {"LISTEN_FDS": "1"}):
        up = await case.upslot(start=False)
        await up.spawn(env=ENVIRONMENT | environment)
        await up.line(r"\bready pid=")
        check("GET /", (await get(f"http://127.0.0.1:{up.port}/")).status, 200)
        check("exit", await up.process.stop(), 0)
    # Announced descriptors that do not exist.
    script = 'LISTEN_PID=$$ LISTEN_FDS="$1" exec "$2" -c "$3"'
    for count, why in (("3", "descriptor 3"), ("65", "LISTEN_FDS is"), ("x", "LISTEN_FDS is")):
        up = await case.upslot(start=False)
        up.process = await Process.start("upslot", ["sh", "-c", script, "sh", count, os.environ["UPSLOT_BIN"], up.config],
                                         env=ENVIRONMENT, cwd=up.folder)
        await up.line(rf"ERROR cannot start why=.*{why}")
        check("exit", await up.process.ended(), 1)


# Starts a user instance of systemd in control groups of its own. It requires a system that was booted with systemd.
MANAGER = """
    set -e
    for group in $1; do echo $$ > "$group/cgroup.procs"; done
    mount -t tmpfs none /run
    mkdir -p /run/systemd/system
    exec /lib/systemd/systemd --user --unit=default.target --log-target=console
"""


@contextlib.contextmanager
def control_groups(name):
    """Creates a group of that name in each hierarchy that systemd uses."""
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
    """A user instance of systemd, and its systemctl."""

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

    async def must(self, *words):
        ran = await self.ctl(*words)
        assert ran.code == 0, f"systemctl {words}: {ran.err}"

    async def show(self, name):
        return (await self.ctl("show", "--value", "-p", name, "upslot.service")).out.decode().strip()

    async def until(self, name, expected):
        """Waits until a property of the service has that value."""

        async def has_value():
            return await self.show(name) == expected

        await until(has_value, f"{name}={expected}")


@test(deadline=180)
async def running_systemd(case):
    if os.geteuid() != 0:
        print("NOT TESTED: only root can create control groups")
        return
    with contextlib.ExitStack() as stack:
        try:
            groups = stack.enter_context(control_groups(f"upslot-e2e-{os.getpid()}"))
        except OSError as error:
            print(f"NOT TESTED: no control groups can be created here: {error}")
            return
        systemd = Systemd(case.folder)
        up = await case.upslot(start=False)
        port = free_port()
        install_units(systemd, up, port)
        await systemd.start(groups)
        try:
            deadline = asyncio.get_running_loop().time() + PATIENCE
            while (answer := await systemd.ctl("show-environment")).code != 0:
                if not systemd.process.running or asyncio.get_running_loop().time() > deadline:
                    print(f"NOT TESTED: no systemd can run here: {answer.err} {systemd.process.lines}")
                    return
                await asyncio.sleep(0.1)
            await check_start_and_watchdog(systemd, up)
            await check_start_on_demand(systemd, port)
        finally:
            await systemd.process.stop(signal.SIGKILL)
            # The services, if the test has failed.
            for group in groups:
                with contextlib.suppress(OSError):
                    (group / "cgroup.kill").write_text("1")


def install_units(systemd, up, port):
    """Units with the lines of the shipped ones that do not need a whole system."""
    shipped = (SERVICE / "upslot.service").read_text()
    kept = re.findall(r"(?m)^(?:Type|NotifyAccess|ExecReload|Restart|RestartSec|LimitCORE)=.*$", shipped)
    check("lines of the unit", len(kept), 6)
    (systemd.units / "upslot.service").write_text("\n".join([
        "[Unit]", "DefaultDependencies=no", "[Service]", *kept, "WatchdogSec=2", "Environment=RUST_LOG=",
        f"ExecStart={os.environ['UPSLOT_BIN']} -c {up.config}"]))
    socket_unit = (SERVICE / "upslot.socket").read_text().replace("127.0.0.1:8080", f"127.0.0.1:{port}")
    (systemd.units / "upslot.socket").write_text(socket_unit.replace("[Unit]", "[Unit]\nDefaultDependencies=no"))


async def check_start_and_watchdog(systemd, up):
    # systemctl returns when the service is ready; the link is in its status.
    await systemd.must("start", "upslot.service")
    check("state", await systemd.show("ActiveState"), "active")
    check("GET /", (await get(f"http://127.0.0.1:{up.port}/")).status, 200)
    await systemd.until("StatusText", "XMPP link up")
    await systemd.must("reload", "upslot.service")
    await systemd.until("SubState", "running")
    # An idle service survives its watchdog.
    await asyncio.sleep(5)
    check("restarts", await systemd.show("NRestarts"), "0")
    # A service whose loop hangs is killed and restarted.
    text = up.config.read_text()
    up.config.unlink()
    os.mkfifo(up.config)
    pid = await systemd.show("MainPID")
    os.kill(int(pid), signal.SIGHUP)
    await systemd.until("NRestarts", "1")
    # The new process waits in its start for the configuration.
    await until(lambda: feed(up.config, text), "a reader of the configuration")
    await systemd.until("SubState", "running")
    up.config.unlink()
    up.config.write_text(text)
    check("GET / of the new process", (await get(f"http://127.0.0.1:{up.port}/")).status, 200)
    await systemd.must("stop", "upslot.service")
    check("result", await systemd.show("Result"), "success")


async def check_start_on_demand(systemd, port):
    """With a socket unit the service starts on demand, and no client is refused during a restart."""
    url = f"http://127.0.0.1:{port}/"
    await systemd.must("start", "upslot.socket")
    check("GET / that starts it", (await get(url)).status, 200)
    await systemd.until("SubState", "running")
    restart = asyncio.ensure_future(systemd.must("restart", "upslot.service"))
    while not restart.done():
        # An accepted connection without a request is closed like an idle one; no connection is refused.
        with contextlib.suppress(ConnectionResetError, http.client.RemoteDisconnected, BrokenPipeError):
            check("GET / during a restart", (await get(url)).status, 200)
    check("GET / after it", (await get(url)).status, 200)
    await restart
    await systemd.must("stop", "upslot.socket", "upslot.service")
    check("result", await systemd.show("Result"), "success")


def feed(path, text):
    """Writes a text to a FIFO; false if no reader has opened it."""
    try:
        pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return False
    with open(pipe, "w") as file:
        file.write(text)
    return True
