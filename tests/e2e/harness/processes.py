"""Child processes, their output, and the ports on which they listen."""

import asyncio
import contextlib
import random
import re
import signal
import socket
import subprocess
from collections import namedtuple

from .base import MIB, PATIENCE, until

USED_PORTS = set()


def free_port():
    """A free loopback port, below the range that the kernel uses for outgoing connections."""
    while True:
        port = random.randrange(15000, 32000)
        if port in USED_PORTS:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        USED_PORTS.add(port)
        return port


class Process:
    """A child process and its output, line by line. The kernel kills it if the test program dies."""

    def __init__(self, name, child):
        self.name, self.child, self.pid = name, child, child.pid
        self.lines = []
        self._more = asyncio.Event()
        self._reading = asyncio.ensure_future(self._read())

    @classmethod
    async def start(cls, name, argv, **options):
        # setpriv sets the parent-death signal and then executes the program.
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
        """Waits for a matching line, from line number `since` on; returns the match. Fails early if the process ends."""

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
            last = "\n".join(self.lines[-5:])
            raise AssertionError(f"{self.name}: no line /{pattern}/ within {timeout} s; the last lines:\n{last}") from None

    @property
    def running(self):
        return self.child.returncode is None

    async def ended(self, timeout=PATIENCE):
        """Waits until the process ends; returns the exit code, negative for a signal."""
        code = await asyncio.wait_for(self.child.wait(), timeout)
        await asyncio.wait([self._reading], timeout=1)
        return code

    async def stop(self, number=signal.SIGTERM, timeout=PATIENCE):
        """Sends the signal and waits for the end; kills the process after the timeout. Returns the exit code."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                self.child.send_signal(number)
            try:
                await asyncio.wait_for(self.child.wait(), timeout)
            except asyncio.TimeoutError:
                self.lines.append(f"*** did not end within {timeout} s after signal {number}: killed by the test")
                with contextlib.suppress(ProcessLookupError):
                    self.child.kill()
        return await self.ended()


Ran = namedtuple("Ran", "code out err")


async def run(argv, timeout=60, **options):
    """Runs a command and returns its exit code, standard output and standard error."""
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


async def port_open(port, process, timeout=PATIENCE, host="127.0.0.1"):
    """Waits until the process accepts connections on the port."""

    def accepts():
        assert process.running, f"{process.name} ended before it listened on port {port}"
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex((host, port)) == 0

    await until(accepts, f"{process.name} listening on port {port}", timeout)
