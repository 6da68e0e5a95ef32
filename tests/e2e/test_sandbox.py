"""Confinement: the systemd unit and its filter of system calls, an unprivileged user, kernels with and without Landlock,
and secrets."""

import asyncio
import os
import re
import shutil
import signal
import socket
from pathlib import Path

from harness import (ENVIRONMENT, KIB, MIB, NOBODY, PATIENCE, UNPRIVILEGED, Process, check, content, get, nsenter,
                     open_folder, put, run, test, traced, unshare, until, upload)

UNIT = Path(__file__).resolve().parents[2] / "contrib" / "service" / "upslot.service"
# The highest exposure level of the unit, as systemd-analyze computes it.
MAX_EXPOSURE = 1.5


# The systemd unit ----------------------------------------------------------------------------------------------------

def directives(name):
    """The values of a directive in the unit."""
    return re.findall(rf"(?m)^{name}=(.*)$", UNIT.read_text())


async def members(name, known):
    """The calls of a set of systemd, including the sets in it; `known` is a cache."""
    if not name.startswith("@"):
        return {name}
    if name not in known:
        ran = await run(["systemd-analyze", "syscall-filter", name])
        assert ran.code == 0, ran.err
        words = [line.strip() for line in ran.out.decode().splitlines()[1:]]
        known[name] = set()
        for word in words:
            if word and not word.startswith("#"):
                known[name] |= await members(word, known)
    return known[name]


async def allowed_calls():
    """The calls that the unit allows. Lists that begin with ~ remove calls."""
    allowed, known = set(), {}
    for line in directives("SystemCallFilter"):
        for word in line.lstrip("~").split():
            if line.startswith("~"):
                allowed -= await members(word, known)
            else:
                allowed |= await members(word, known)
    assert len(allowed) > 100, allowed
    return allowed


@test(servers=(None,))
async def unit_exposure_is_low(case):
    ran = await run(["systemd-analyze", "security", "--offline=yes", "--no-pager", UNIT])
    found = re.search(r"Overall exposure level for upslot\.service: ([0-9.]+)", ran.out.decode())
    assert found, ran
    assert float(found[1]) <= MAX_EXPOSURE, f"exposure of {found[1]}:\n{ran.out.decode()}"
    # Not part of the exposure level.
    check("core dumps", directives("LimitCORE"), ["0"])
    check("error of a forbidden call", directives("SystemCallErrorNumber"), ["EPERM"])
    assert any("component_secret" in line for line in directives("LoadCredential"))


async def use_all_features(case, up, romeo):
    """Uploads that are small, large, aborted and concurrent; ranges, reloads, an eviction."""
    for size in (1, 100 * KIB, 5 * MIB):
        slot = await upload(romeo, "a.bin", content(size))
        check("range", (await get(slot.get, headers={"Range": "bytes=0-0"})).status, 206)
    broken = await romeo.slot("broken.bin", MIB)
    raw = await case.raw(up)
    await raw.send_head("PUT", broken.put, Content_Length=MIB)
    await raw.send(bytes(10 * KIB))
    await up.receiving(KIB)
    raw.close()
    many = [await romeo.slot("many.bin", 10 * KIB) for _ in range(20)]
    replies = await asyncio.gather(*(put(slot.put, content(10 * KIB)) for slot in many))
    check("concurrent uploads", {reply.status for reply in replies}, {201})
    await up.reload()
    up.configure(evict_on_quota=True, user_quota_hard=MIB + 200 * KIB, purposes={"message": {}, "ephemeral": {}})
    await up.reload()
    await upload(romeo, "evicts.bin", content(MIB))


@test(deadline=180)
async def unit_allows_every_call(case):
    allowed = await allowed_calls()
    trace = case.folder / "trace"
    http, log = case.folder / "http.sock", case.folder / "upslot.log"
    settings = {"expire_interval": 1, "expire_maxage": 3600, "user_quota_hard": 50 * MIB, "global_quota": 100 * MIB}
    up = await case.upslot(wrapper=traced(trace), **settings)
    romeo = await case.client()
    await use_all_features(case, up, romeo)
    await up.process.stop()
    calls = names_in(trace)

    # TLS, a Unix socket, the local API, a log file, a name that must be resolved, a kernel without openat2.
    chain, key = case.authority.issue("unit")
    api = {"address": f"unix:{case.folder}/api.sock", "port": 1, "token": "a-token-of-some-length"}
    for number, (options, more) in enumerate([
            ((), {"http_certfile": str(chain), "http_keyfile": str(key), "api": api}),
            (("-e", "inject=openat2:error=ENOSYS"), {"http_address": f"unix:{http}"}),
    ]):
        trace = case.folder / f"trace-{number}"
        up = await case.upslot(wrapper=traced(trace, *options), linked=False, start=False, component_jid="up.example",
                               component_secret="secret", component_host="xmpp.invalid", **more)
        up.arguments = ["-c", up.config, "-l", log]
        log.unlink(missing_ok=True)
        await up.spawn()
        await until(lambda: log.exists() and "link down" in log.read_text(), "a name that cannot be resolved")
        if number == 0:
            with_tls = await get(f"https://127.0.0.1:{up.port}/", context=case.authority.context())
            check("GET / over TLS", with_tls.status, 200)
        up.process.child.send_signal(signal.SIGHUP)
        await until(lambda: "config reloaded" in log.read_text(), "a reload")
        check("exit", await up.process.stop(), 0)
        calls |= names_in(trace)
    expected = {"accept4", "linkat", "landlock_restrict_self", "sendfile", "fsync", "clone3", "prctl", "openat2"}
    assert expected <= calls, f"calls that were not exercised: {expected - calls}"
    check("calls that the unit forbids", calls - allowed, set())
    families = directives("RestrictAddressFamilies")[0].split()
    used = {found[1] for trace in case.folder.glob("trace*")
            for found in re.finditer(r"\bsocket\((AF_\w+)", trace.read_text())}
    # The C library uses netlink to sort addresses, and works without it.
    check("address families", used - set(families) - {"AF_NETLINK"}, set())


@test(deadline=120)
async def works_under_the_unit(case):
    # The parts of the unit that root can have without systemd: its filter of system calls, a read-only system except for
    # the store, a /proc with processes only. A host name makes the C library load its modules under these.
    if os.geteuid() != 0:
        print("NOT TESTED: only root can mount file systems")
        return
    calls, hosts = case.folder / "calls", case.folder / "hosts"
    calls.write_text("\n".join(await allowed_calls()))
    hosts.write_text("127.0.0.1 xmpp.sandbox.test\n")
    families = ",".join(str(int(getattr(socket, name))) for name in directives("RestrictAddressFamilies")[0].split())
    script = """
        set -e
        store="$1" hosts="$2"; shift 2
        mount --bind "$hosts" /etc/hosts
        mount --bind "$store" "$store"
        mount -o remount,bind,ro /
        mount -t proc -o subset=pid,hidepid=invisible proc /proc
        if touch "$store/../x" 2> /dev/null; then echo "the system is not read-only" >&2; exit 1; fi
        exec "$@"
    """
    up = await case.upslot(start=False, component_host="xmpp.sandbox.test", user_quota_hard=50 * MIB)
    filtered = ["/usr/bin/python3", Path(__file__).with_name("filtered.py"), calls, families]
    # The service manager must be notified from there as well.
    notified, messages = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), []
    notified.bind(str(case.folder / "notify"))
    notified.setblocking(False)
    asyncio.get_running_loop().add_reader(notified, lambda: messages.append(notified.recv(4096).decode()))
    up.wrapper = ["env", f"NOTIFY_SOCKET={case.folder}/notify", "WATCHDOG_USEC=1000000", "unshare", "-m", "sh", "-c", script,
                  "sh", up.store, hosts, *filtered]
    await up.start()
    await up.line(r"INFO  sandbox (landlock=|none why=.*kernel)")
    check("filter", re.search(r"Seccomp:\s+(\d)", up.status())[1], "2")
    await use_all_features(case, up, await case.client())
    await until(lambda: any("WATCHDOG=1" in message for message in messages), "a message for the watchdog")
    check("exit", await up.process.stop(), 0)
    for word in ("READY=1", "STATUS=XMPP link up", "RELOADING=1", "STOPPING=1"):
        await until(lambda: any(word in message for message in messages), f"{word} in {messages}")
    asyncio.get_running_loop().remove_reader(notified)
    notified.close()


def names_in(trace):
    """The names of all calls in a trace."""
    names = set(re.findall(r"(?m)^\d+\s+(?:<\.\.\. )?(\w+)(?:\(| resumed>)", trace.read_text()))
    assert len(names) > 20, names
    return names


# Without privileges --------------------------------------------------------------------------------------------------

async def as_nobody(case, folder, wrapper=(), **settings):
    """An upslot without any privilege, which runs in this folder."""
    up = await case.upslot(start=False, wrapper=[*wrapper, *(UNPRIVILEGED if os.geteuid() == 0 else [])], **settings)
    shutil.rmtree(up.folder)
    up.folder, up.store, up.config = folder, folder / "store", folder / "config.yml"
    up.arguments = ["-c", up.config]
    up.store.mkdir()
    binary = folder / "upslot"
    shutil.copy(os.environ["UPSLOT_BIN"], binary)
    up.configure(storage_path=str(up.store))
    if os.geteuid() == 0:
        os.chown(up.store, NOBODY, NOBODY)
        os.chown(up.config, 0, NOBODY)
    up.config.chmod(0o640)
    await up.spawn(binary, {name: value for name, value in ENVIRONMENT.items() if name != "HOME"})
    await up.process.line(r"\bready pid=\d+")
    await up.process.line(r"\blink up\b")
    return up


@test()
async def no_privileges_needed(case):
    with open_folder() as folder:
        up = await as_nobody(case, folder)
        status = up.status()
        if os.geteuid() == 0:
            check("user", re.search(r"Uid:\s+(\d+)\s+(\d+)", status).groups(), (str(NOBODY), str(NOBODY)))
        check("capabilities", set(re.findall(r"Cap(?:Prm|Eff|Bnd|Amb):\s+(\w+)", status)), {"0" * 16})
        romeo = await case.client()
        await upload(romeo, "a.bin", content(MIB))
        await up.reload()
        await upload(romeo, "b.bin", content(10))
        check("warnings", [line for line in up.logged(" (WARN|ERROR) ") if "whitelist" not in line and "https" not in line],
              [])
        check("exit", await up.process.stop(), 0)


@test()
async def memory_is_protected(case):
    with open_folder() as folder:
        up = await as_nobody(case, folder, ["sh", "-c", 'ulimit -c unlimited 2>/dev/null; exec "$@"', "sh"])
        process = Path(f"/proc/{up.process.pid}")
        limit = re.search(r"Max core file size\s+(\w+)\s+(\w+)", (process / "limits").read_text()).groups()
        check("size of core dumps", limit, ("0", "0"))
        # The files in /proc of a process that is not dumpable belong to root.
        check("owner", {(process / name).stat().st_uid for name in ("mem", "environ", "maps", "fd")}, {0})
        if os.geteuid() == 0:
            # Another process of the same user cannot read it, but can read an ordinary process.
            reading = 'head -c 1 "/proc/$1/environ" > /dev/null'
            protected = await run([*UNPRIVILEGED, "sh", "-c", reading, "sh", up.process.pid])
            assert protected.code != 0 and "ermission denied" in protected.err, protected
            ordinary = await Process.start("sleep", [*UNPRIVILEGED, "sleep", "600"])
            comm = Path(f"/proc/{ordinary.pid}/comm")
            await until(lambda: comm.read_text() == "sleep\n", "a running sleep")
            check("reading an ordinary process", (await run([*UNPRIVILEGED, "sh", "-c", reading, "sh", ordinary.pid])).code, 0)
            await ordinary.stop()
        os.kill(up.process.pid, signal.SIGABRT)
        check("exit", await up.process.ended(), -signal.SIGABRT)
        check("core dumps", [name for name in os.listdir(folder) if "core" in name], [])


@test()
async def naming_through_proc_without_privileges(case):
    # As on kernels before 6.10, where naming a file by its descriptor needs a privilege.
    with open_folder() as folder:
        trace = folder / "trace"
        trace.touch()
        trace.chmod(0o666)
        up = await as_nobody(case, folder, traced(trace, "-e", "trace=linkat", "-e", "inject=linkat:error=ENOENT:when=1"))
        await up.line(r'naming="unnamed files through /proc"')
        await upload(await case.client(), "a.bin", content(MIB))
        assert "/proc/self/fd/" in trace.read_text()


@test()
async def kernel_without_landlock(case):
    romeo = await case.client()
    for error, why in [("ENOSYS", "has no Landlock"), ("EPERM", "has no Landlock"),
                       ("EOPNOTSUPP", "not enabled")]:
        inject = f"inject=landlock_create_ruleset:error={error}"
        up = await case.upslot(wrapper=traced(case.folder / "trace", "-e", "trace=landlock_create_ruleset", "-e", inject))
        await up.line(rf'INFO  sandbox none why=".*{why}.*"')
        await upload(romeo, f"{error}.bin", content(10))
        await up.process.stop()


@test()
async def landlock_refused_by_the_kernel(case):
    inject = "inject=landlock_restrict_self:error=E2BIG"
    up = await case.upslot(wrapper=traced(case.folder / "trace", "-e", "trace=landlock_restrict_self", "-e", inject))
    await up.line(r'INFO  sandbox none why=".*the kernel refuses: Argument list too long')
    await upload(await case.client(), "a.bin", content(10))


@test()
async def names_are_resolved_in_the_sandbox(case):
    # The C library loads its modules and reads its settings when the first name is resolved, after the start.
    hosts = case.folder / "hosts"
    hosts.write_text("127.0.0.1 xmpp.sandbox.test\n")
    script = 'hosts="$1"; shift; mount --bind "$hosts" /etc/hosts && exec "$@"'
    up = await case.upslot(wrapper=[*unshare(), "sh", "-c", script, "sh", hosts], component_host="xmpp.sandbox.test")
    await upload(await case.client(), "a.bin", content(10))
    await up.line(r"INFO  sandbox .*connect=(\d+,53|any) ")


@test()
async def mount_over_the_store(case):
    # Landlock rules are for folders, not for names; a later mount is covered by the rule for the folder above.
    up = await case.upslot(wrapper=unshare())
    romeo = await case.client()
    before = await upload(romeo, "before.bin", content(10))

    async def answers(slot, status):
        while (await get(slot.get)).status != status:
            # A missing file makes the program check the storage folder, at most once a second.
            check("GET of a missing file", (await get(slot.get + "x")).status, 404)
            await asyncio.sleep(0.1)

    await nsenter(up, "mount", "-t", "tmpfs", "none", up.store)
    await asyncio.wait_for(answers(before, 404), PATIENCE)
    await upload(romeo, "over.bin", content(MIB))
    await nsenter(up, "umount", "-l", up.store)
    await asyncio.wait_for(answers(before, 200), PATIENCE)
    await upload(romeo, "after.bin", content(MIB))


@test()
async def secrets_are_read_once(case):
    secret, slots, trace = case.folder / "secret", case.folder / "slots", case.folder / "trace"
    slots.write_text("0123456789abcdef0123456789abcdef")
    up = await case.upslot(start=False, wrapper=traced(trace, "-e", "trace=open,openat,openat2"))
    secret.write_text(up.settings["component_secret"] + "\n")
    up.configure(component_secret=None, component_secret_file=str(secret), slot_secret_file=str(slots))
    await up.start()
    romeo = await case.client()
    for number in range(5):
        await upload(romeo, f"{number}.bin", content(KIB))

    def opened():
        return [len(re.findall(rf'"{re.escape(str(path))}"', trace.read_text())) for path in (secret, slots)]

    check("opened", opened(), [1, 1])
    await up.reload()
    check("opened after a reload", opened(), [2, 2])
