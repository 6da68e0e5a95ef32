"""How pytest runs the end-to-end tests: `pytest tests/e2e`, with UPSLOT_BIN naming the program under test.

A test is an `async def` marked with `harness.test`. It runs once per XMPP server, within its deadline, on the one event
loop of the session. The tests of one file share a `Group` of servers, which ends with the file.
"""

import asyncio
import contextlib
import logging
import os
import signal
import tempfile
from pathlib import Path

import pytest

import harness

LOG_LINES_SHOWN = 60

# How long a test may take to end its processes, in seconds.
CLOSING_TIME = 60


class EndToEnd(pytest.Item):
    """One test with one XMPP server."""

    def __init__(self, *, function, server, **arguments):
        super().__init__(**arguments)
        self.function, self.server = function, server
        # `-k subject.test` selects it as well.
        self.extra_keyword_matches.add(f"{self.subject}.{function.__name__}")

    @property
    def subject(self):
        return self.function.__module__.removeprefix("test_")

    def runtest(self):
        session = self.config.stash[SESSION]
        session.runner.run(session.run(self))

    def repr_failure(self, error, style=None):
        if isinstance(error.value, asyncio.TimeoutError):
            self.add_report_section("call", "deadline", f"The deadline is {self.function.deadline} s.")
        error.traceback = error.traceback.cut(path=self.path)
        return super().repr_failure(error, style)

    def reportinfo(self):
        code = self.function.__code__
        return self.path, code.co_firstlineno, f"{self.subject}.{self.name}"


class Session:
    """The loop, and the servers of the file whose tests run now."""

    def __init__(self):
        self.resources = contextlib.ExitStack()
        self.runner = self.resources.enter_context(asyncio.Runner())
        scratch = tempfile.TemporaryDirectory(prefix="upslot-e2e-", ignore_cleanup_errors=True)
        self.scratch = Path(self.resources.enter_context(scratch))
        (self.scratch / "ca").mkdir()
        self.authority = harness.Authority(self.scratch / "ca")
        self.group, self.subject, self.count = None, None, 0
        # A client whose connection ends reports it to the loop as well; the tests see it where they wait.
        self.runner.get_loop().set_exception_handler(lambda *_: None)

    async def run(self, item):
        if item.subject != self.subject:
            await self.close_group()
            folder = self.scratch / item.subject
            folder.mkdir()
            self.group, self.subject = harness.Group(folder, self.authority), item.subject
        self.count += 1
        folder = self.scratch / f"case-{self.count}"
        folder.mkdir()
        case = harness.Case(self.group, folder, item.server)
        try:
            await asyncio.wait_for(item.function(case), item.function.deadline)
        finally:
            for process in case.logs():
                lines = "\n".join(process.lines[-LOG_LINES_SHOWN:])
                item.add_report_section("call", process.name, lines)
            await asyncio.wait_for(case.close(), CLOSING_TIME)

    async def close_group(self):
        if self.group:
            await self.group.close()
        self.group = self.subject = None

    def close(self):
        self.runner.run(self.close_group())
        self.resources.close()


SESSION = pytest.StashKey[Session]()


def pytest_configure(config):
    program = os.environ.get("UPSLOT_BIN", "")
    if not os.access(program, os.X_OK):
        raise pytest.UsageError("UPSLOT_BIN must name the upslot program")
    os.environ["UPSLOT_BIN"] = os.path.abspath(program)
    logging.basicConfig(level=logging.CRITICAL)


def pytest_sessionstart(session):
    # As with Ctrl-C, the processes are ended in order.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    if not session.config.option.collectonly:
        session.config.stash[SESSION] = Session()


def pytest_sessionfinish(session):
    if SESSION in session.config.stash:
        session.config.stash[SESSION].close()


def pytest_pycollect_makeitem(collector, name, obj):
    if not hasattr(obj, "deadline") or obj.__module__ != collector.module.__name__:
        return []
    return [
        EndToEnd.from_parent(collector, name=name + (f"[{server}]" if server else ""), function=obj, server=server)
        for server in obj.servers
    ]
