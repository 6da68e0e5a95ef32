"""System calls of the program, observed and made to fail by strace."""

import itertools
import re
import signal
from collections import namedtuple

from .processes import Process

Call = namedtuple("Call", "name result text")


def traced(file, *options):
    """A wrapper that starts a program under strace; the process that is started is the program itself."""
    return ["strace", "-D", "-f", "-qq", "-o", file, *options]


async def attach(arguments):
    strace = await Process.start("strace", ["strace", *arguments])
    try:
        await strace.line(r"attached")
    except AssertionError as error:
        raise AssertionError(f"strace could not attach: {strace.lines}") from error
    return strace


class Strace:
    """Records the system calls of a running upslot between `start` and `stop`."""

    async def start(self, case, up):
        self.file = case.folder / "strace.out"
        self.process = await attach(["-f", "-o", self.file, "-p", up.process.pid])
        return self

    async def stop(self):
        await self.process.stop(signal.SIGINT)
        calls = []
        for line in self.file.read_text().splitlines():
            call = re.match(r"\d+\s+(?:<\.\.\. )?(\w+)(?:\(| resumed>).*=\s(-?\d+)", line)
            if call:
                calls.append(Call(call[1], int(call[2]), line))
        return calls


class Faults:
    """Makes system calls of a running process fail or take long: `async with Faults(case, up, "fsync:error=EIO")`. It
    ends with the block; the trace is then in `calls`."""

    numbers = itertools.count()

    def __init__(self, case, up, *rules, threads=True, path=None, trace=()):
        """`rules` are values of strace's option `inject`. Traced are the calls named by them and by `trace`; with
        `path`, only those that access this path; without `threads`, only those of the loop's thread."""
        self.file, self.calls = case.folder / f"strace-{next(self.numbers)}.out", []
        names = {name for rule in rules for name in rule.split(":")[0].split(",")} | set(trace)
        self.arguments = [*(["-f"] if threads else []), *(["-P", path] if path else []), "-o", self.file,
                          "-e", "trace=" + ",".join(sorted(names)), "-e", "signal=none"]
        for rule in rules:
            self.arguments += ["-e", "inject=" + rule]
        self.arguments += ["-p", up.process.pid]

    async def __aenter__(self):
        self.process = await attach(self.arguments)
        return self

    async def __aexit__(self, *_):
        await self.process.stop(signal.SIGINT)
        self.calls = self.file.read_text().splitlines()

    def hits(self):
        """The number of calls that were changed so far, without those that are still running."""
        return self.file.read_text().count("(INJECTED)") + self.file.read_text().count("(DELAYED)")
