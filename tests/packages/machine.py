"""Debian systems that boot their own systemd, in containers of systemd-nspawn without a network."""

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
# The roots are kept here between runs.
WORK = Path(os.environ.get("CARGO_TARGET_DIR") or TOP / "target") / "packages"

MIRROR = "http://deb.debian.org/debian"

# What a server usually has, the shells whose completions are tested, and a second reader of manual pages.
INCLUDED = "systemd,ca-certificates,curl,logrotate,man-db,mandoc,bash-completion,zsh,fish"

PATIENCE = 120


def archive(suite, included=INCLUDED):
    """The root of a clean system, as an archive."""
    WORK.mkdir(parents=True, exist_ok=True)
    path = WORK / f"{suite}-{'full' if included else 'minimal'}.tar"
    if not path.exists():
        partial = path.with_suffix(".partial.tar")
        options = [f"--include={included}"] if included else []
        subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", *options, suite, partial, MIRROR], check=True)
        partial.rename(path)
    return path


@contextlib.contextmanager
def unpacked(path):
    """A folder with the content of an archive."""
    root = WORK / f"root-{path.stem}-{os.getpid()}"
    root.mkdir()
    try:
        subprocess.run(["tar", "-C", root, "-xf", path], check=True)
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)
        Path(f"{root}.log").unlink(missing_ok=True)


class Machine:
    """A booted system."""

    def __init__(self, root):
        self.root = root
        self.process = None

    def boot(self):
        with open(f"{self.root}.log", "ab") as log:
            self.process = subprocess.Popen(
                ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--private-network", "--boot", "-D", self.root],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(lambda: self.process.poll() is not None or self.leader(), "the first process of the container")
        assert self.process.poll() is None, Path(f"{self.root}.log").read_text(errors="replace")
        until(lambda: self.run("systemctl", "is-system-running", check=False).stdout.strip() in ("running", "degraded"),
              "the end of the boot")

    def shut_down(self):
        # systemd-nspawn passes this on as an orderly shutdown.
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def leader(self):
        """The process ID, outside the container, of its first process."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for child in children:
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{child}/status").read_text()
                numbers = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()
                if numbers[-1] == "1" and len(numbers) == 3:
                    return child
        return None

    def run(self, *command, check=True, stdin=""):
        """Runs a command inside."""
        enter = ["nsenter", "-t", self.leader(), "-m", "-u", "-i", "-n", "-p", "--root", "--wd"]
        ran = subprocess.run([*enter, "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=/root",
                              "DEBIAN_FRONTEND=noninteractive", "TERM=dumb", *map(str, command)],
                             input=stdin, capture_output=True, text=True, timeout=300)
        if check:
            assert ran.returncode == 0, f"{command}: {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
        return ran

    def shell(self, script, check=True):
        return self.run("sh", "-euc", script, check=check).stdout.strip()

    def show(self, name):
        return self.run("systemctl", "show", "--value", "-p", name, "upslot").stdout.strip()


def until(condition, what):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"no {what} within {PATIENCE} s"
        time.sleep(0.2)
