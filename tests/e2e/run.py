"""Runs the end-to-end tests: `run.py [--list] [part of a name …]`.

The program under test is the file named by UPSLOT_BIN. Prints one line per test, the logs of what failed, and last
`N passed, N failed`; the exit code is 0 only if nothing failed.
"""

import asyncio
import contextlib
import importlib
import logging
import os
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(HERE))
logging.basicConfig(level=logging.CRITICAL)

import harness  # noqa: E402

SUBJECTS = ["discovery", "transfer", "http", "legacy", "limits", "restart", "tls", "proxy", "clients", "disk",
            "syscalls", "doors", "power", "browser", "sandbox", "service", "attack", "network", "framing",
            "time", "resources"]
LOG_LINES_SHOWN = 60


def chosen(names):
    for subject in SUBJECTS:
        importlib.import_module(f"test_{subject}")
    return [t for t in harness.TESTS if not names or any(name in t.name for name in names)]


async def run_one(test, group, folder):
    """Runs one test; the report of its failure, or None."""
    case = harness.Case(group, folder, test.server)
    failure = None
    try:
        await asyncio.wait_for(test.function(case), test.deadline)
    except asyncio.TimeoutError:
        failure = f"over its deadline of {test.deadline} s, or a wait in it timed out\n" + traceback.format_exc()
    except Exception:
        failure = traceback.format_exc()
    finally:
        try:
            await asyncio.wait_for(case.close(), 60)
        except Exception:
            failure = (failure or "") + "while ending what the test had started:\n" + traceback.format_exc()
    if failure:
        for process in case.logs():
            lines = process.lines[-LOG_LINES_SHOWN:]
            failure += f"--- {process.name}, its last {len(lines)} lines\n" + "\n".join(lines) + "\n"
    return failure


async def run_all(tests):
    failures = []
    with tempfile.TemporaryDirectory(prefix="upslot-e2e-", ignore_cleanup_errors=True) as scratch:
        scratch = Path(scratch)
        for name in ("ca", "group"):
            (scratch / name).mkdir()
        authority = harness.Authority(scratch / "ca")
        group, subject = None, None
        async with contextlib.AsyncExitStack() as stack:
            for number, test in enumerate(tests):
                if test.function.__module__ != subject:
                    await stack.aclose()
                    subject = test.function.__module__
                    folder = scratch / "group" / subject
                    folder.mkdir()
                    group = harness.Group(folder, authority)
                    stack.push_async_callback(group.close)
                folder = scratch / f"case-{number}"
                folder.mkdir()
                started = time.monotonic()
                failure = await run_one(test, group, folder)
                print(f"{'FAIL' if failure else 'ok  '}  {test.name}  {time.monotonic() - started:.1f} s", flush=True)
                if failure:
                    failures.append(test.name)
                    print("    " + failure.rstrip().replace("\n", "\n    "), flush=True)
    for name in failures:
        print(f"failed: {name}")
    print(f"{len(tests) - len(failures)} passed, {len(failures)} failed")
    return not failures and bool(tests)


def main():
    names = [a for a in sys.argv[1:] if not a.startswith("--")]
    tests = chosen(names)
    if "--list" in sys.argv:
        print("\n".join(test.name for test in tests))
        return 0
    if not os.access(os.environ.get("UPSLOT_BIN", ""), os.X_OK):
        print("UPSLOT_BIN must name the upslot program", file=sys.stderr)
        return 2
    os.environ["UPSLOT_BIN"] = os.path.abspath(os.environ["UPSLOT_BIN"])
    if not tests:
        print("no test has such a name", file=sys.stderr)
        return 2

    async def whole():
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        # So that everything is ended in order when the run is.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, task.cancel)
        # A client whose connection ends reports it to the loop as well; the tests see it where they wait.
        loop.set_exception_handler(lambda *_: None)
        return await run_all(tests)

    try:
        return 0 if asyncio.run(whole()) else 1
    except asyncio.CancelledError:
        print("ended by a signal", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
