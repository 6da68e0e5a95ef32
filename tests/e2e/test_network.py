"""A network at its worst, as far as it takes the system's own means: a name server that never answers, and a look at
the system calls of one turn."""

import asyncio
import os
import re
import signal
import time
from collections import Counter
from pathlib import Path

from harness import MIB, PATIENCE, check, curl, owner_folder, test, until
from test_syscalls import Strace

# What a connection may move at a time. In the turn in which its head comes, it may once with the head and once more.
BUDGET = 256 * 1024

# Becomes the program, in a network of its own where port 53 is open and nobody reads from it.
DEAF_NAME_SERVER = """
import fcntl, os, socket, struct, sys
lo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
fcntl.ioctl(lo, 0x8914, struct.pack("16sH14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
deaf = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
deaf.bind(("127.0.0.1", 53))
deaf.set_inheritable(True)
os.execvp(sys.argv[1], sys.argv[1:])
"""


async def without_names(case, options, **settings):
    """An upslot whose name server never answers, reached through a Unix socket."""
    resolv, switch, door = case.folder / "resolv.conf", case.folder / "nsswitch.conf", case.folder / "door"
    resolv.write_text(f"nameserver 127.0.0.1\noptions {options}\n")
    switch.write_text("hosts: files dns\n")
    script = case.folder / "deaf.py"
    script.write_text(DEAF_NAME_SERVER)
    unshare = ["unshare", "-mn"] if os.geteuid() == 0 else ["unshare", "-Urmn"]
    mounts = ('mount --bind "$1" /etc/resolv.conf && if [ -e /etc/nsswitch.conf ]; then mount --bind "$2" '
              '/etc/nsswitch.conf; fi && shift 2 && exec "$@"')
    up = await case.upslot(start=False, http_address=f"unix:{door}", component_jid="upload.montague.example",
                           component_secret="not to be told", component_port=5347, **settings)
    up.wrapper = [*unshare, "sh", "-c", mounts, "sh", resolv, switch, "/usr/bin/python3", script]
    await up.start(linked=False)
    return up, door


async def asked(door):
    """Status of a GET, and how long it took."""
    started = time.monotonic()
    reader, writer = await asyncio.open_unix_connection(door)
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), PATIENCE)
    writer.close()
    return int(answer.split(b" ", 2)[1]), time.monotonic() - started


def threads(up):
    return sorted((task / "comm").read_text().strip() for task in Path(f"/proc/{up.process.pid}/task").iterdir())


def ticks(up):
    """Processor time used so far, in hundredths of a second."""
    fields = Path(f"/proc/{up.process.pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return int(fields[11]) + int(fields[12])


@test(servers=(None,))
async def a_name_server_that_never_answers(case):
    # With these options the C library waits for minutes.
    up, door = await without_names(case, "timeout:30 attempts:5", component_host="xmpp.one.example")
    await until(lambda: "resolver" in threads(up), "a thread that waits for the name server")
    for number in range(10):
        status, took = await asked(door)
        check("GET /", status, 200)
        assert took < 5, f"an answer after {took:.1f} s: the loop waited for the name server"
        # Other names, too, by one thread at most.
        up.configure(component_host=f"xmpp.{number}.example")
        await up.reload()
        check("waiting threads", threads(up).count("resolver"), 1)
    used = ticks(up)
    await asyncio.sleep(2)
    assert ticks(up) - used <= 4, f"{ticks(up) - used} ticks in two seconds of waiting"
    check("waiting threads", threads(up).count("resolver"), 1)
    assert not [line for line in up.process.lines if "link down" in line], "it gave up"
    started = time.monotonic()
    check("exit code", await up.process.stop(signal.SIGTERM, timeout=20), 0)
    assert time.monotonic() - started < 10, "the end waited for the name server"


@test(servers=(None,))
async def the_last_name_is_looked_up_in_the_end(case):
    up, door = await without_names(case, "timeout:2 attempts:1", component_host="xmpp.first.example")
    await until(lambda: "resolver" in threads(up), "a thread that waits for the name server")
    for name in ("second", "third"):
        up.configure(component_host=f"xmpp.{name}.example")
        await up.reload()
    line = await up.line(r"\blink down\b.*xmpp\.(\w+)\.example cannot be resolved")
    check("the name in the log", line[1], "third")
    check("GET /", (await asked(door))[0], 200)
    # It goes on trying, and says so once.
    await until(lambda: "resolver" in threads(up), "the next look-up", timeout=60)
    warnings = [line for line in up.process.lines if " WARN " in line and "link down" in line]
    check("warnings", len(warnings), 1)


@test(servers=(None,), deadline=180)
async def turns_are_short(case):
    """Between two looks for events no connection moves much more than its budget: whoever has a fast network gets no
    more of the loop than others."""
    up = await case.upslot(start=False, log_level="info", api={"port": 0}, max_file_size=64 * MIB, fsync=False)
    folder = up.store / owner_folder("romeo@montague.example") / "abcdefghijklm"
    folder.mkdir(parents=True)
    big = folder / "big.bin"
    with open(big, "wb") as file:
        file.truncate(32 * MIB)
    await up.start()
    api = (await up.line(r"listening on=(\S+) for=api"))[1]
    slot = await curl(f"{api}/slot/?name=up.bin&size={32 * MIB}&jid=romeo@montague.example")
    put_url = slot.out.decode().split("\n")[0]
    get_url = f"{up.url}{owner_folder('romeo@montague.example')}/abcdefghijklm/big.bin"
    strace = await Strace().start(case, up)
    answers = await asyncio.gather(curl("-T", big, put_url), *(curl("-o", "/dev/null", get_url) for _ in range(3)))
    calls = await strace.stop()
    check("statuses", [answer.code for answer in answers], [201, 200, 200, 200])
    # By the descriptor, which is the first argument; a turn ends with a look for events.
    most, total, moved = 0, 0, Counter()
    for call in calls:
        if call.name.startswith("epoll_"):
            most = max(most, *moved.values(), 0)
            moved.clear()
        elif call.name in ("sendfile", "sendfile64", "recvfrom", "recv", "read", "readv") and call.result > 0:
            moved[re.search(r"\((\d+)", call.text)[1]] += call.result
            total += call.result
    assert total >= 4 * 32 * MIB, f"only {total} bytes were seen"
    assert most <= 2 * BUDGET, f"{most} bytes of one connection in one turn"
