"""A name server that never answers, and the number of bytes that one turn of the loop moves."""

import asyncio
import re
import signal
import time
from collections import Counter
from pathlib import Path

from harness import KIB, MIB, PATIENCE, Strace, check, curl, owner_folder, test, unshare, until

# The bytes that a connection may move in one step. In the turn in which its head arrives it may take two steps.
BUDGET = 256 * KIB
# 16 steps of a turn.
FILE_BUDGET = 16 * BUDGET

# Becomes the program, in a network namespace where port 53 is open and never read.
SILENT_NAME_SERVER = """
import fcntl, os, socket, struct, sys
lo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
fcntl.ioctl(lo, 0x8914, struct.pack("16sH14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
silent.bind(("127.0.0.1", 53))
silent.set_inheritable(True)
os.execvp(sys.argv[1], sys.argv[1:])
"""


async def without_names(case, options, **settings):
    """An upslot whose name server never answers, reached through a Unix socket."""
    resolv, switch, address = case.folder / "resolv.conf", case.folder / "nsswitch.conf", case.folder / "http.sock"
    resolv.write_text(f"nameserver 127.0.0.1\noptions {options}\n")
    switch.write_text("hosts: files dns\n")
    script = case.folder / "silent.py"
    script.write_text(SILENT_NAME_SERVER)
    mounts = ('mount --bind "$1" /etc/resolv.conf && if [ -e /etc/nsswitch.conf ]; then mount --bind "$2" '
              '/etc/nsswitch.conf; fi && shift 2 && exec "$@"')
    up = await case.upslot(start=False, http_address=f"unix:{address}", component_jid="upload.montague.example",
                           component_secret="a secret", component_port=5347, **settings)
    up.wrapper = [*unshare("mn"), "sh", "-c", mounts, "sh", resolv, switch, "/usr/bin/python3", script]
    await up.start(linked=False)
    return up, address


async def timed_get(address):
    """The status of a GET, and its duration in seconds."""
    started = time.monotonic()
    reader, writer = await asyncio.open_unix_connection(address)
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), PATIENCE)
    writer.close()
    return int(answer.split(b" ", 2)[1]), time.monotonic() - started


def threads(up):
    return sorted((task / "comm").read_text().strip() for task in Path(f"/proc/{up.process.pid}/task").iterdir())


@test(servers=(None,))
async def silent_name_server(case):
    # With these options the C library waits for minutes.
    up, address = await without_names(case, "timeout:30 attempts:5", component_host="xmpp.one.example")
    await until(lambda: "resolver" in threads(up), "a resolver thread")
    for number in range(10):
        status, took = await timed_get(address)
        check("GET /", status, 200)
        assert took < 5, f"an answer after {took:.1f} s: the loop waited for the name server"
        # Other names are resolved by the same thread.
        up.configure(component_host=f"xmpp.{number}.example")
        await up.reload()
        check("waiting threads", threads(up).count("resolver"), 1)
    used = up.ticks()
    await asyncio.sleep(2)
    assert up.ticks() - used <= 4, f"{up.ticks() - used} ticks in two seconds of waiting"
    check("waiting threads", threads(up).count("resolver"), 1)
    check("links that failed", up.logged("link down"), [])
    started = time.monotonic()
    check("exit code", await up.process.stop(signal.SIGTERM, timeout=20), 0)
    assert time.monotonic() - started < 10, "the shutdown waited for the name server"


@test(servers=(None,))
async def last_configured_name_is_resolved(case):
    up, address = await without_names(case, "timeout:2 attempts:1", component_host="xmpp.first.example")
    await until(lambda: "resolver" in threads(up), "a resolver thread")
    for name in ("second", "third"):
        up.configure(component_host=f"xmpp.{name}.example")
        await up.reload()
    line = await up.line(r"\blink down\b.*xmpp\.(\w+)\.example cannot be resolved")
    check("the name in the log", line[1], "third")
    check("GET /", (await timed_get(address))[0], 200)
    # It tries again, and warns only once.
    await until(lambda: "resolver" in threads(up), "the next attempt", timeout=60)
    check("warnings", len(up.logged(" WARN .*link down")), 1)


@test(servers=(None,), deadline=180)
async def turns_respect_the_budget(case):
    """Between two calls of epoll no connection moves more than its budget, so that fast clients do not delay others. Files
    that are sent from memory may use it several times, in pieces of its size."""
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
    # Per descriptor, which is the first argument. A turn ends with a call of epoll.
    received, sent, piece, total, moved = 0, 0, 0, 0, Counter()
    for call in calls:
        if call.name.startswith("epoll_"):
            received = max(received, *(size for (_, is_file), size in moved.items() if not is_file), 0)
            sent = max(sent, *(size for (_, is_file), size in moved.items() if is_file), 0)
            moved.clear()
        elif call.name in ("sendfile", "sendfile64", "recvfrom", "recv", "read", "readv") and call.result > 0:
            is_file = call.name.startswith("sendfile")
            moved[re.search(r"\((\d+)", call.text)[1], is_file] += call.result
            piece = max(piece, call.result)
            total += call.result
    assert total >= 4 * 32 * MIB, f"only {total} bytes in the trace"
    assert received <= 2 * BUDGET, f"{received} bytes received from one connection in one turn"
    assert sent <= FILE_BUDGET, f"{sent} bytes sent to one connection in one turn"
    assert piece <= BUDGET, f"{piece} bytes in one call"
