"""`without_ipv6.py PROGRAM …` executes the program as if the kernel had no IPv6: a filter makes `socket(AF_INET6, …)` fail
with EAFNOSUPPORT."""

import errno
import os
import socket
import sys

import seccomp

rules = seccomp.SyscallFilter(seccomp.ALLOW)
rules.add_rule(seccomp.ERRNO(errno.EAFNOSUPPORT), "socket", seccomp.Arg(0, seccomp.EQ, int(socket.AF_INET6)))
rules.load()
os.execv(sys.argv[1], sys.argv[1:])
