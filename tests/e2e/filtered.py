"""`filtered.py CALLS FAMILIES PROGRAM …` executes the program under a filter like the one that systemd makes from a unit.

The system calls in the file CALLS are allowed, `socket` only for FAMILIES (numbers, separated by commas), and memory that
is or was writable cannot become executable (MemoryDenyWriteExecute). Everything else fails with EPERM."""

import errno
import os
import sys

import seccomp

PROT_WRITE, PROT_EXEC = 2, 4

calls, families, *program = sys.argv[1:]
with open(calls) as file:
    names = set(file.read().split())
rules = seccomp.SyscallFilter(seccomp.ERRNO(errno.EPERM))
for name in names - {"socket", "mprotect", "mmap"}:
    try:
        rules.add_rule(seccomp.ALLOW, name)
    except (RuntimeError, ValueError, OSError):
        # A call that this machine does not have or that the library does not know.
        pass
for family in families.split(","):
    rules.add_rule(seccomp.ALLOW, "socket", seccomp.Arg(0, seccomp.EQ, int(family)))
rules.add_rule(seccomp.ALLOW, "mprotect", seccomp.Arg(2, seccomp.MASKED_EQ, PROT_EXEC, 0))
for protection in (0, PROT_WRITE, PROT_EXEC):
    rules.add_rule(seccomp.ALLOW, "mmap", seccomp.Arg(2, seccomp.MASKED_EQ, PROT_WRITE | PROT_EXEC, protection))
rules.load()
os.execv(program[0], program)
