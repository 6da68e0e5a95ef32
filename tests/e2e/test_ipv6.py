"""Hosts without IPv6: a kernel that lacks it, and one where it is disabled."""

import os
import socket
from pathlib import Path

from harness import check, content, free_port, get, nsenter, run, test, unshare, upload

WITHOUT_IPV6 = ["/usr/bin/python3", Path(__file__).with_name("without_ipv6.py")]


@test(servers=(None,), deadline=180)
async def addresses_without_ipv6(case):
    for http, without, with_it in [
            ("::", ["0.0.0.0"], ["[::]"]),
            ("localhost", ["127.0.0.1"], ["127.0.0.1", "[::1]"]),
            (["0.0.0.0", "::"], ["0.0.0.0"], ["[::]"]),
            (["::1", "127.0.0.1"], ["127.0.0.1"], ["[::1]", "127.0.0.1"]),
            (["::", f"unix:{case.folder}/http.sock"], ["0.0.0.0"], ["[::]"]),
    ]:
        for lacks, expected in ((True, without), (False, with_it)):
            api = free_port()
            # The local API has the same TCP addresses.
            inner = [http] if isinstance(http, str) else [one for one in http if not one.startswith("unix")]
            up = await case.upslot(start=False, http_address=http, api={"port": api, "address": inner},
                                   wrapper=WITHOUT_IPV6 if lacks else ())
            await up.start()
            check(f"{http}, without IPv6: {lacks}", up.listening(), [expected, expected])
            check("warnings", len(up.logged("WARN .*address family missing")), 1 if lacks else 0)
            check("GET /", (await get(f"http://127.0.0.1:{up.port}/")).status, 200)
            check("GET /health", (await get(f"http://127.0.0.1:{api}/health")).status, 200)
            # A reload with the same addresses needs no restart.
            since = up.mark()
            await up.reload()
            check("after a reload", up.logged("restart", since), [])
            healthy = await run([*up.wrapper, os.environ["UPSLOT_BIN"], "-c", up.config, "health"])
            check("health", healthy.code, 0)
            check("exit", await up.process.stop(), 0)


@test(servers=(None,))
async def ipv6_only_addresses_fail(case):
    for settings, key in [({"http_address": "::1"}, "http_address"), ({"http_address": ["2001:db8::1", "::1"]}, "http_address"),
                          ({"api": {"port": free_port(), "address": "::1"}}, "api")]:
        up = await case.upslot(start=False, wrapper=WITHOUT_IPV6, **settings)
        process = await up.spawn()
        await process.line(rf"ERROR cannot start why=.*{key}: cannot listen on \[\S+\]:\d+, because this system has no IPv6")
        check("exit", await process.ended(), 1)


@test(servers=(None,))
async def ipv4_port_in_use_is_an_error(case):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for http in ("::", "localhost", ["0.0.0.0", "::"]):
            up = await case.upslot(start=False, wrapper=WITHOUT_IPV6, http_address=http, http_port=port)
            process = await up.spawn()
            await process.line(r"ERROR cannot start why=.*http_address: cannot listen on .*in use")
            check("exit", await process.ended(), 1)


@test()
async def link_without_ipv6(case):
    server = await case.server()
    # All addresses of a name are tried; the first of this one cannot be reached.
    hosts = case.folder / "hosts"
    hosts.write_text("::1 xmpp.sandbox.test\n127.0.0.1 xmpp.sandbox.test\n")
    mounts = [*unshare(), "sh", "-c", 'hosts="$1"; shift; mount --bind "$hosts" /etc/hosts && exec "$@"', "sh", hosts]
    for host, wrapper in (("localhost", []), ("xmpp.sandbox.test", mounts)):
        up = await case.upslot(wrapper=[*wrapper, *WITHOUT_IPV6], component_host=host)
        await upload(await case.client(), "a.bin", content(10))
        check("exit", await up.process.stop(), 0)
    # An unreachable address is logged, and tried again.
    up = await case.upslot(start=False, wrapper=WITHOUT_IPV6, component_host="::1")
    await up.start(linked=False)
    await up.line(rf"WARN  link down why=\"cannot connect to \[::1\]:{server.component_port}: this system has no IPv6")
    await up.line(r"DEBUG link down why=.*no IPv6")
    up.configure(component_host="127.0.0.1")
    await up.reload()
    await up.line(r"\blink up\b")


@test(servers=(None,))
async def demo_without_ipv6(case):
    up = await case.upslot(start=False, wrapper=WITHOUT_IPV6, arguments=["--demo"])
    process = await up.spawn()
    url = (await process.line(r"listening on=(http://127\.0\.0\.1:\d+)"))[1]
    await process.line(r"\bready pid=")
    check("GET /", (await get(url + "/")).status, 200)
    check("exit", await process.stop(), 0)


# Becomes the program, in a network namespace where IPv6 is disabled.
DISABLE_IPV6 = """
import fcntl, os, socket, struct, sys
lo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
fcntl.ioctl(lo, 0x8914, struct.pack("16sH14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
for name in ("all", "default", "lo"):
    open(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6", "w").write("1")
os.execvp(sys.argv[1], sys.argv[1:])
"""


@test(servers=(None,))
async def ipv6_disabled(case):
    if not Path("/proc/sys/net/ipv6").exists():
        print("NOT TESTED: this kernel has no IPv6 that could be disabled")
        return
    wrapper = [*unshare("n"), "/usr/bin/python3", "-c", DISABLE_IPV6]
    for http in ("localhost", "::", ["2001:db8::1", "127.0.0.1"]):
        up = await case.upslot(start=False, wrapper=wrapper, http_address=http)
        await up.start()
        got = await nsenter(up, "curl", "-sS", "--noproxy", "*", "--max-time", "10", f"http://127.0.0.1:{up.port}/",
                            namespaces=("-n",))
        assert b"upslot" in got.out, got
        check("exit", await up.process.stop(), 0)
    up = await case.upslot(start=False, wrapper=wrapper, http_address="::1")
    process = await up.spawn()
    await process.line(r"cannot listen on \[::1\]:\d+, because this system has no IPv6")
    check("exit", await process.ended(), 1)
