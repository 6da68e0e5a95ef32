"""How pytest runs the end-to-end tests: `pytest tests/e2e`, with UPSLOT_BIN naming the program under test.

A test is an `async def` marked with `harness.test`. It runs once per XMPP server, within its deadline, on the event loop
of the session. All tests of a session share a `Group` of servers.
"""

import asyncio
import contextlib
import logging
import os
import signal
import tempfile
import threading
from pathlib import Path

import pytest

import harness

LOG_LINES_SHOWN = 60

# The limit for stopping the processes of a test, in seconds.
CLOSING_TIME = 60


class EndToEnd(pytest.Item):
    """One test with one XMPP server."""

    def __init__(self, *, function, server, **arguments):
        super().__init__(**arguments)
        self.function, self.server = function, server
        # For `-k subject.test`.
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
    """The event loop, the scratch folder and the shared servers."""

    def __init__(self):
        self.resources = contextlib.ExitStack()
        self.runner = self.resources.enter_context(asyncio.Runner())
        scratch = tempfile.TemporaryDirectory(prefix="upslot-e2e-", ignore_cleanup_errors=True)
        self.scratch = Path(self.resources.enter_context(scratch))
        (self.scratch / "ca").mkdir()
        servers = self.scratch / "servers"
        servers.mkdir()
        self.group, self.count = harness.Group(servers, harness.Authority(self.scratch / "ca")), 0
        # slixmpp also reports lost connections to the loop; tests notice them where they wait.
        self.runner.get_loop().set_exception_handler(lambda *_: None)

    async def run(self, item):
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

    def close(self):
        self.runner.run(self.group.close())
        self.resources.close()


SESSION = pytest.StashKey[Session]()


def pytest_configure(config):
    program = os.environ.get("UPSLOT_BIN", "")
    if not os.access(program, os.X_OK):
        raise pytest.UsageError("UPSLOT_BIN must name the upslot program")
    os.environ["UPSLOT_BIN"] = os.path.abspath(program)
    logging.basicConfig(level=logging.CRITICAL)


def pytest_sessionstart(session):
    # As with Ctrl-C, all processes are stopped in order. A process of xdist may run its tests on another thread, where
    # Python has no handlers of signals; the first process then ends it.
    if threading.current_thread() is threading.main_thread():
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
