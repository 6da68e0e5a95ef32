"""Use of resources: memory over many requests, and few descriptors."""

import asyncio
import contextlib
import os
import random
import re
import time
import urllib.parse
from collections import Counter

from harness import (DOMAIN, KIB, LONG, PATIENCE, Faults, Slot, check, content, free_port, get, put, slot_from_api, test,
                     until)

REQUESTS = 100_000 if LONG else 8_000
WARM_UP = 3_000
# The allowed growth of resident memory between warm-up and end: request heads and TLS states in use, and fragments in the
# allocator. A leak of one hundred bytes per request would be 10 MB in the long form.
TOLERANCE = 512 * KIB


class Connection:
    """A persistent connection that is opened again after it was closed."""

    def __init__(self, opened):
        self.opened, self.streams = opened, None

    async def ask(self, method, target, body=b"", **fields):
        """Returns the status and the body; status 0 if there is no answer."""
        if self.streams is None:
            self.streams = await self.opened()
        reader, writer = self.streams
        head = [f"{method} {target} HTTP/1.1", "Host: a", *(f"{name}: {value}" for name, value in fields.items())]
        if body or method == "PUT":
            head.append(f"Content-Length: {len(body)}")
        try:
            writer.write(("\r\n".join(head) + "\r\n\r\n").encode() + body)
            text = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)).decode().lower()
            length = re.search(r"\r\ncontent-length: (\d+)", text)
            length = int(length[1]) if length and method != "HEAD" and " 304 " not in text[:20] else 0
            answer = await asyncio.wait_for(reader.readexactly(length), PATIENCE)
        except (OSError, asyncio.IncompleteReadError):
            self.close()
            return 0, b""
        if "\r\nconnection: close" in text:
            self.close()
        return int(text.split()[1]), answer

    async def send_garbage(self, data):
        """Sends bytes that are not a request, and waits for the end of the connection."""
        self.close()
        reader, writer = await self.opened()
        try:
            writer.write(data)
            with contextlib.suppress(OSError):
                writer.write_eof() if writer.can_write_eof() else None
            with contextlib.suppress(OSError):
                return await asyncio.wait_for(reader.read(-1), PATIENCE)
        finally:
            writer.transport.abort()

    def close(self):
        if self.streams:
            self.streams[1].transport.abort()
            self.streams = None


def resident(up):
    return int(re.search(r"VmRSS:\s+(\d+) kB", up.status())[1]) * KIB


def descriptors(up):
    return len(os.listdir(f"/proc/{up.process.pid}/fd"))


def target(url):
    """The request target of a URL."""
    parts = urllib.parse.urlsplit(url)
    return parts.path + (f"?{parts.query}" if parts.query else "")


class LoadClient:
    """Makes random requests of all kinds, on persistent connections to the HTTP port and to the local API."""

    KINDS = ["get"] * 6 + ["put"] * 2 + ["range", "head", "missing", "again", "forged", "slot", "iq", "refused_slot",
                                         "aborted", "garbage"]

    def __init__(self, number, http, api, xmpp):
        self.dice, self.http, self.api, self.xmpp = random.Random(number), Connection(http), Connection(api), xmpp
        self.body, self.stored = content(self.dice.choice([100, 5_000, 60_000]), number), None

    async def step(self):
        """One request; returns its kind and the status, which is 0 if there is no answer."""
        kind = self.dice.choice(self.KINDS)
        if self.stored is None:
            kind = "put"
        return kind, await getattr(self, kind)()

    async def new_slot(self):
        owner = f"u{self.dice.randrange(200)}@{DOMAIN}"
        query = urllib.parse.urlencode({"jid": owner, "name": "ein Bild.png", "size": len(self.body)})
        status, text = await self.api.ask("GET", f"/slot/?{query}")
        check("slot", status, 200)
        return Slot(*map(target, text.decode().split()), {})

    async def put(self):
        self.stored = await self.new_slot()
        return (await self.http.ask("PUT", self.stored.put, self.body))[0]

    async def get(self):
        status, found = await self.http.ask("GET", self.stored.get)
        assert status == 200 and found == self.body, f"{status}, {len(found)} bytes"
        return status

    async def range(self):
        wanted = f"bytes={self.dice.randrange(90)}-99,3-7"
        return (await self.http.ask("GET", self.stored.get, Range=wanted))[0]

    async def head(self):
        return (await self.http.ask("HEAD", self.stored.get))[0]

    async def missing(self):
        return (await self.http.ask("GET", f"/files/none/{self.dice.random()}"))[0]

    async def again(self):
        return (await self.http.ask("PUT", self.stored.put, self.body))[0]

    async def forged(self):
        return (await self.http.ask("PUT", self.stored.put[:-4] + "aaaa", self.body))[0]

    async def slot(self):
        await self.new_slot()
        return 200

    async def iq(self):
        await self.xmpp.slot("a.bin", self.dice.randrange(1, 1000))
        return 200

    async def refused_slot(self):
        return (await self.api.ask("GET", "/slot/?jid=a@b&name=x&size=999999999"))[0]

    async def aborted(self):
        slot = await self.new_slot()
        self.http.close()
        _, writer = self.http.streams = await self.http.opened()
        writer.write(f"PUT {slot.put} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(self.body)}\r\n\r\n".encode())
        writer.write(self.body[:50])
        await writer.drain()
        self.http.close()
        return 0

    async def garbage(self):
        await self.http.send_garbage(self.dice.randbytes(self.dice.randrange(1, 2000)) + b"\r\n\r\n")
        return 0

    def close(self):
        self.http.close()
        self.api.close()


@test(deadline=300 if not LONG else 1800)
async def memory_over_many_requests(case):
    chain, key = case.authority.issue("resources")
    socket_path = case.folder / "http.sock"
    up = await case.upslot(start=False, http_certfile=str(chain), http_keyfile=str(key), api={"port": free_port()},
                           http_address=["127.0.0.1", f"unix:{socket_path}"], fsync=False, log_level="error",
                           user_quota_hard=2 ** 40, global_quota=2 ** 50, max_file_size=100_000,
                           access=[{"jid": ".", "uploads_per_timedelta": {"delta": 5, "uploads": 10 ** 9}}])
    await up.start_quietly()
    context = case.authority.context()

    def over_tls():
        return asyncio.open_connection("127.0.0.1", up.port, ssl=context, server_hostname=DOMAIN)

    def over_unix():
        return asyncio.open_unix_connection(socket_path)

    def api():
        return asyncio.open_connection("127.0.0.1", up.settings["api"]["port"])

    romeo = await case.client()
    counts, after_warm_up = Counter(), None
    numbers = iter(range(WARM_UP + REQUESTS))

    async def client(number):
        nonlocal after_warm_up
        client = LoadClient(number, over_tls if number % 2 else over_unix, api, romeo)
        for request in numbers:
            counts[await client.step()] += 1
            if request == WARM_UP:
                after_warm_up = resident(up)
        client.close()

    started = time.monotonic()
    await asyncio.gather(*(client(number) for number in range(24)))
    took, after = time.monotonic() - started, resident(up)
    expected = {"get": 200, "put": 201, "range": 206, "head": 200, "missing": 404, "again": 409, "forged": 403}
    for kind, status in expected.items():
        assert counts[kind, status] > REQUESTS // 100, counts
    print(f"      {REQUESTS} requests in {took:.0f} s; resident {after_warm_up // KIB} KiB after the warm-up, "
          f"{after // KIB} KiB at the end, at most {up.memory() // KIB} KiB")
    assert after - after_warm_up < TOLERANCE, f"{after - after_warm_up} bytes more than after the warm-up"


class StallingClients:
    """Clients that stall within the head or the body, and clients that upload without delay."""

    def __init__(self, up, slots, body, end):
        self.up, self.slots, self.body, self.end = up, iter(slots), body, end
        self.statuses, self.stored = Counter(), []

    async def run(self, number):
        """Runs one client until the end; its number determines its behaviour."""
        slot = next(self.slots)
        # A slot is used again until its upload has succeeded.
        while time.monotonic() < self.end:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.up.port)
            except OSError:
                continue
            try:
                if number % 4 == 0:
                    writer.write(b"GET / HTTP/1.1\r\nHo")
                    await asyncio.sleep(0.5)
                    continue
                status = await self.upload(reader, writer, slot, 0.3 if number % 4 == 1 else 0)
            except (OSError, asyncio.IncompleteReadError):
                status = 0
            finally:
                writer.transport.abort()
            self.statuses[status] += 1
            if status == 201:
                self.stored.append(slot)
                slot = next(self.slots)
            else:
                # Earlier than `Retry-After` says.
                await asyncio.sleep(0.1)

    async def upload(self, reader, writer, slot, delay):
        size = len(self.body)
        writer.write(f"PUT {target(slot.put)} HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n".encode())
        writer.write(self.body[:10 * KIB])
        await writer.drain()
        await asyncio.sleep(delay)
        writer.write(self.body[10 * KIB:])
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
        return int(head.split()[1])


@test(servers=(None,), deadline=180)
async def few_descriptors(case):
    """With 64 descriptors and many clients: each 201 is a stored file, other clients get 503 or a closed connection, the
    loop does not spin, and everything works afterwards."""
    up = await case.upslot(start=False, api={"port": free_port()}, user_quota_hard=10 ** 9)
    up.wrapper = ["prlimit", "--nofile=64:64"]
    await up.start()
    body = content(30 * KIB)
    before = descriptors(up)

    slots = [await slot_from_api(up, "a.bin", len(body), f"u{number}@{DOMAIN}") for number in range(4000 if LONG else 600)]
    clients = StallingClients(up, slots, body, time.monotonic() + (30 if LONG else 3))
    await asyncio.gather(*(clients.run(number) for number in range(120)))
    statuses, stored = clients.statuses, clients.stored
    # A connection without a request may be closed in favour of another.
    assert set(statuses) <= {0, 201, 503}, statuses
    assert statuses[201] >= 20, statuses
    await until(lambda: descriptors(up) <= before + 4, "closed descriptors")
    for slot in stored:
        reply = await get(slot.get)
        assert reply.status == 200 and reply.body == body, f"{reply.status} after 201"
    files = up.files()
    assert not any(name.endswith("/") for name in files), f"empty folders: {files}"
    assert len(stored) <= len(files) <= len(stored) + statuses.get(0, 0), (len(stored), len(files), statuses)
    # The number of warnings does not depend on the number of requests, and there are no errors.
    lines = [line for line in up.logged(" (WARN|ERROR) ") if "config warning" not in line]
    assert not any(" ERROR " in line for line in lines), lines
    assert len(lines) <= 10, lines
    before_idle = up.ticks()
    await asyncio.sleep(2)
    assert up.ticks() - before_idle < 50, "the idle loop spins"
    slot = await slot_from_api(up, "after.bin", len(body))
    check("PUT", (await put(slot.put, body)).status, 201)
    print(f"      {statuses}")


@test(servers=(None,))
async def accept_without_descriptors(case):
    """Without a descriptor for a new connection, accept is repeated twice a second, at no cost; open connections continue;
    the waiting one is served as soon as a descriptor is free."""
    up = await case.upslot(api={"port": free_port()})
    body = content(30 * KIB)
    for error in ["EMFILE"] + ["ENFILE"] * LONG:
        slot = await slot_from_api(up, error, len(body))
        busy = await case.raw(up)
        await busy.send_head("PUT", slot.put, Content_Length=len(body))
        await busy.send(body[:10 * KIB])
        await up.receiving(10 * KIB)
        since = up.mark()
        async with Faults(case, up, f"accept4:error={error}") as faults:
            waiting = case.background(get(f"http://127.0.0.1:{up.port}/"))
            await until(lambda: faults.hits() > 0, "a failed accept")
            before = up.ticks()
            await asyncio.sleep(2)
            assert up.ticks() - before < 50, "the loop spins"
            assert faults.hits() < 20, f"{faults.hits()} attempts in 2 s"
            assert not waiting.done()
            await busy.send(body[10 * KIB:])
            check("running PUT", (await busy.head())[0], 201)
        check("waiting GET", (await waiting).status, 200)
        check("GET", (await get(slot.get)).body, body)
        check("warnings", len(up.logged("WARN  out of descriptors", since)), 1)
