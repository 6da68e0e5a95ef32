"""What the program may use of its host: memory over many requests, and descriptors when there are few."""

import asyncio
import contextlib
import os
import random
import re
import time
import urllib.parse
from pathlib import Path

from harness import DOMAIN, KIB, LONG, PATIENCE, Faults, Slot, check, content, free_port, get, put, test, until

REQUESTS = 100_000 if LONG else 8_000
WARM_UP = 3_000
# Resident memory after the warm-up and at the end may differ by what the allocator keeps in pieces: what is in use
# differs from moment to moment by some heads of requests and some states of TLS. One hundred bytes that were kept of
# each request would be 10 MB in the long form.
TOLERANCE = 512 * KIB


class Connection:
    """A kept connection that is opened again whenever it has ended."""

    def __init__(self, opened):
        self.opened, self.streams = opened, None

    async def ask(self, method, target, body=b"", **fields):
        """The status and the body; status 0 when there is no answer."""
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

    async def spoil(self, data):
        """Sends what is no request, and sees the connection end."""
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
    status = Path(f"/proc/{up.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * KIB


def descriptors(up):
    return len(os.listdir(f"/proc/{up.process.pid}/fd"))


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

    def plain():
        return asyncio.open_unix_connection(socket_path)

    def local():
        return asyncio.open_connection("127.0.0.1", up.settings["api"]["port"])

    romeo = await case.client()
    counts = {}
    left = iter(range(WARM_UP + REQUESTS))
    marks = {WARM_UP: None}
    resting = asyncio.Event()

    async def client(number):
        dice = random.Random(number)
        http, other = Connection(over_tls if number % 2 else plain), Connection(local)
        body = content(dice.choice([100, 5_000, 60_000]), number)
        stored = None

        def target(url):
            parts = urllib.parse.urlsplit(url)
            return parts.path + (f"?{parts.query}" if parts.query else "")

        async def slot():
            owner = f"u{dice.randrange(200)}@{DOMAIN}"
            query = urllib.parse.urlencode({"jid": owner, "name": "ein Bild.png", "size": len(body)})
            status, text = await other.ask("GET", f"/slot/?{query}")
            check("slot", status, 200)
            return Slot(*map(target, text.decode().split()), {})

        async def one(kind):
            nonlocal stored
            if kind == "put" or stored is None:
                stored = await slot()
                return await http.ask("PUT", stored.put, body)
            if kind == "get":
                status, found = await http.ask("GET", stored.get)
                assert status == 200 and found == body, f"{status}, {len(found)} bytes"
                return status, b""
            if kind == "range":
                return await http.ask("GET", stored.get, Range=f"bytes={dice.randrange(90)}-99,3-7")
            if kind == "head":
                return await http.ask("HEAD", stored.get)
            if kind == "missing":
                return await http.ask("GET", f"/files/none/{dice.random()}")
            if kind == "again":
                return await http.ask("PUT", stored.put, body)
            if kind == "forged":
                return await http.ask("PUT", stored.put[:-4] + "aaaa", body)
            if kind == "slot":
                await slot()
                return 200, b""
            if kind == "iq":
                await romeo.slot("a.bin", dice.randrange(1, 1000))
                return 200, b""
            if kind == "refused slot":
                return await other.ask("GET", "/slot/?jid=a@b&name=x&size=999999999")
            if kind == "broken off":
                fresh = await slot()
                http.close()
                _, writer = http.streams = await http.opened()
                writer.write(f"PUT {fresh.put} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode())
                writer.write(body[:50])
                await writer.drain()
                http.close()
                return 0, b""
            await http.spoil(dice.randbytes(dice.randrange(1, 2000)) + b"\r\n\r\n")
            return 0, b""

        kinds = ["get"] * 6 + ["put"] * 2 + ["range", "head", "missing", "again", "forged", "slot", "iq",
                                             "refused slot", "broken off", "garbage"]
        for turn in left:
            kind = dice.choice(kinds)
            status, _ = await one(kind)
            counts[kind, status] = counts.get((kind, status), 0) + 1
            if turn == WARM_UP:
                # All of them are idle for a moment, as at the end.
                marks[WARM_UP] = resident(up)
        http.close()
        other.close()

    started = time.monotonic()
    await asyncio.gather(*(client(number) for number in range(24)))
    took = time.monotonic() - started
    after = resident(up)
    grown = after - marks[WARM_UP]
    expected = {"get": 200, "put": 201, "range": 206, "head": 200, "missing": 404, "again": 409, "forged": 403}
    for kind, status in expected.items():
        assert counts[kind, status] > REQUESTS // 100, counts
    print(f"      {REQUESTS} requests in {took:.0f} s; resident {marks[WARM_UP] // KIB} KiB after the warm-up, "
          f"{after // KIB} KiB at the end, at most {up.memory() // KIB} KiB")
    assert grown < TOLERANCE, f"{grown} bytes more than after the warm-up"


@test(servers=(None,), deadline=180)
async def few_descriptors(case):
    """With 64 descriptors and many clients at once: whoever was told 201 has stored, everybody else was told
    something else, nothing spins, and afterwards all is well."""
    up = await case.upslot(start=False, api={"port": free_port()}, user_quota_hard=10 ** 9)
    up.wrapper = ["prlimit", "--nofile=64:64"]
    await up.start()
    body = content(30 * KIB)
    before = descriptors(up)

    slots = [await slot_of(up, "a.bin", body, f"u{number}@{DOMAIN}") for number in range(4000 if LONG else 600)]
    statuses, stored, enough = {}, [], time.monotonic() + (30 if LONG else 3)
    waiting = iter(slots)

    async def client(number):
        # A crowd that holds connections open, in heads and in bodies, beside those that want something.
        kind = number % 4
        slot = next(waiting)
        # It asks again with the same slot until it has stored.
        while time.monotonic() < enough:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", up.port)
            except OSError:
                continue
            try:
                target = slot.put.split(f":{up.port}")[1]
                if kind == 0:
                    writer.write(b"GET / HTTP/1.1\r\nHo")
                    await asyncio.sleep(0.5)
                    continue
                writer.write(f"PUT {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode())
                writer.write(body[:10 * KIB])
                await writer.drain()
                await asyncio.sleep(0.3 if kind == 1 else 0)
                writer.write(body[10 * KIB:])
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
                status = int(head.split()[1])
            except (OSError, asyncio.IncompleteReadError):
                status = 0
            finally:
                writer.transport.abort()
            statuses[status] = statuses.get(status, 0) + 1
            if status == 201:
                stored.append(slot)
                slot = next(waiting)
            elif kind != 0:
                # As `Retry-After` asks, if sooner.
                await asyncio.sleep(0.1)

    used = cpu(up)
    await asyncio.gather(*(client(number) for number in range(120)))
    # Who has said nothing yet may be closed to make room.
    assert set(statuses) <= {0, 201, 503}, statuses
    assert statuses[201] >= 20, statuses
    await until(lambda: descriptors(up) <= before + 4, "descriptors given back")
    for slot in stored:
        reply = await get(slot.get)
        assert reply.status == 200 and reply.body == body, f"201 was said, and now {reply.status}"
    files = up.files()
    assert not any(name.endswith("/") for name in files), f"empty folders: {files}"
    assert len(stored) <= len(files) <= len(stored) + statuses.get(0, 0), (len(stored), len(files), statuses)
    # Warnings do not follow the number of requests, and nothing is called an error.
    lines = [line for line in up.process.lines if re.search(" (WARN|ERROR) ", line) and "config warning" not in line]
    assert not any(" ERROR " in line for line in lines), lines
    assert len(lines) <= 10, lines
    before_idle = cpu(up)
    await asyncio.sleep(2)
    assert cpu(up) - before_idle < 50, "it spins with nothing to do"
    slot = await slot_of(up, "after.bin", body)
    check("PUT", (await put(slot.put, body)).status, 201)
    print(f"      {statuses}")


def cpu(up):
    stat = Path(f"/proc/{up.process.pid}/stat").read_text()
    fields = stat[stat.rindex(")") + 2:].split()
    return int(fields[11]) + int(fields[12])


@test(servers=(None,))
async def accepting_without_descriptors(case):
    """No descriptor for a new connection: it is tried again twice a second, which costs nothing; open connections go
    on; and the one that waits is served as soon as there is one."""
    up = await case.upslot(api={"port": free_port()})
    body = content(30 * KIB)
    for error in ["EMFILE"] + ["ENFILE"] * LONG:
        slot = await slot_of(up, error, body)
        busy = await case.raw(up)
        await busy.send_head("PUT", slot.put, Content_Length=len(body))
        await busy.send(body[:10 * KIB])
        await up.receiving(10 * KIB)
        since = up.mark()
        async with Faults(case, up, f"accept4:error={error}") as faults:
            waiting = case.background(get(f"http://127.0.0.1:{up.port}/"))
            await until(lambda: faults.hits() > 0, "a refused connection")
            before = cpu(up)
            await asyncio.sleep(2)
            assert cpu(up) - before < 50, "it spins"
            assert faults.hits() < 20, f"{faults.hits()} attempts in 2 s"
            assert not waiting.done()
            await busy.send(body[10 * KIB:])
            check("PUT under way", (await busy.head())[0], 201)
        check("GET of who waited", (await waiting).status, 200)
        check("GET", (await get(slot.get)).body, body)
        check("warnings", len([line for line in up.process.lines[since:] if "WARN  out of descriptors" in line]), 1)


async def slot_of(up, name, body, jid="romeo@" + DOMAIN):
    query = urllib.parse.urlencode({"jid": jid, "name": name, "size": len(body)})
    reply = await get(f"http://127.0.0.1:{up.settings['api']['port']}/slot/?{query}")
    check("slot", reply.status, 200)
    return Slot(*reply.body.decode().split(), {})
