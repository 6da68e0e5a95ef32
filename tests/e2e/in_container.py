"""`in_container.py ROOT USER BIND=PATH … PROGRAM …` executes the program as a container engine would.

The root is a read-only file system that contains only the bound files and folders; the user has the group 0, no
capability, and no way to gain one. Paths that are given as `PATH:rw` are writable. Must run as root in a mount
namespace."""

import ctypes
import os
import subprocess
import sys

PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
LAST_CAPABILITY = int(open("/proc/sys/kernel/cap_last_cap").read())

root, user, *rest = sys.argv[1:]
binds = []
while "=" in rest[0]:
    binds.append(rest.pop(0).split("=", 1))


def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True)


mount("--make-rprivate", "/")
mount("-t", "tmpfs", "-o", "mode=755", "none", root)
os.mkdir(f"{root}/proc")
mount("-t", "proc", "proc", f"{root}/proc")
for source, place in binds:
    writable = place.endswith(":rw")
    target = root + place.removesuffix(":rw")
    if os.path.isdir(source):
        os.makedirs(target)
    else:
        open(target, "x").close()
    mount("--bind", source, target)
    if not writable:
        mount("-o", "remount,bind,ro", target)
mount("-o", "remount,ro", root)
os.chroot(root)
os.chdir("/")
libc = ctypes.CDLL(None, use_errno=True)
for capability in range(LAST_CAPABILITY + 1):
    assert libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0
os.setgroups([])
os.setgid(0)
os.setuid(int(user))
assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
os.execv(rest[0], rest)
