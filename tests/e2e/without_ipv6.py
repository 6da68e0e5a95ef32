"""`without_ipv6.py PROGRAM …` becomes the program on a kernel that has no IPv6, as far as the program can see: a filter
lets `socket(AF_INET6, …)` fail with EAFNOSUPPORT."""

import errno
import os
import socket
import sys

import seccomp

rules = seccomp.SyscallFilter(seccomp.ALLOW)
rules.add_rule(seccomp.ERRNO(errno.EAFNOSUPPORT), "socket", seccomp.Arg(0, seccomp.EQ, int(socket.AF_INET6)))
rules.load()
os.execv(sys.argv[1], sys.argv[1:])
