"""Mounts, namespaces and users of upslot's own. A test that is not run as root takes a user namespace as well."""

import contextlib
import os
import tempfile
from pathlib import Path

from .base import KIB
from .processes import free_port, run

ROOT = os.geteuid() == 0
NOBODY = 65534
UNPRIVILEGED = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all",
                "--bounding-set=-all", "--no-new-privs"]


def unshare(namespaces="m"):
    """A wrapper that starts a program in namespaces of its own: `m` for mounts, `n` for the network."""
    return ["unshare", ("-" if ROOT else "-Ur") + namespaces]


async def nsenter(up, *command, namespaces=("-m", "--root")):
    """Runs a command in upslot's namespaces."""
    users = [] if ROOT else ["-U", "--preserve-credentials"]
    ran = await run(["nsenter", "-t", up.process.pid, *users, *namespaces, *command])
    assert ran.code == 0, f"{command}: {ran.err}"
    return ran


async def with_mounted_store(case, mount, api=False, **settings):
    """An upslot whose store is what the script `mount` mounts at "$store", and the path of the store as seen from
    outside of its namespace."""
    if api:
        settings["api"] = {"port": free_port()}
    up = await case.upslot(start=False, **settings)
    up.wrapper = [*unshare(), "sh", "-ec", f'store="$1"; shift; {mount}; exec "$@"', "sh", up.store]
    await up.start()
    return up, Path(f"/proc/{up.process.pid}/root{up.store}")


async def with_small_store(case, size, options="", **settings):
    """An upslot whose store is a file system of that many bytes."""
    return await with_mounted_store(case, f'mount -t tmpfs -o size={size}{options} none "$store"', **settings)


def fill(path, leave=0):
    """Writes a file until the disk is full, then makes it shorter by `leave` bytes."""
    with open(path, "wb", buffering=0) as file:
        try:
            while file.write(bytes(4 * KIB)):
                pass
        except OSError:
            pass
        file.truncate(file.tell() - leave)


@contextlib.contextmanager
def open_folder():
    """A folder that every user can enter, unlike the folder of a test."""
    with tempfile.TemporaryDirectory(prefix="upslot-e2e-") as folder:
        os.chmod(folder, 0o711)
        yield Path(folder)
