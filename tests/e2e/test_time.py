"""Jumps of the wall clock, a clock that is not set, and a process that is stopped.

libfaketime changes the wall clock of one process; the monotonic clock and the kernel, which dates the files, are not
affected."""

import asyncio
import email.utils
import glob
import os
import re
import signal
import time
from pathlib import Path

from harness import (ACCOUNTS, KIB, LONG, MIB, NAMESPACES, PATIENCE, Faults, check, content, free_port, get, owner_folder,
                     put, slot_from_api, slot_request, test, until)

DAY = 86_400
YEAR = 365 * DAY


class Clock:
    """The wall clock of one upslot."""

    def __init__(self, case, up):
        libraries = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
        assert libraries, "libfaketime was not found under /usr/lib"
        self.up, self.file = up, up.folder / "clock"
        self.write(0)
        up.wrapper = ["env", f"LD_PRELOAD={libraries[0]}", f"FAKETIME_TIMESTAMP_FILE={self.file}", "FAKETIME_NO_CACHE=1",
                      "FAKETIME_DONT_FAKE_MONOTONIC=1", "DONT_FAKE_MONOTONIC=1"]
        # The library must be able to read its file at every call.
        up.configure(sandbox="off")

    def write(self, seconds):
        new = self.file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.rename(self.file)

    async def set(self, seconds):
        """Sets it to that many seconds ahead of the real clock, and checks that the program uses it."""
        self.write(seconds)
        answer = await get(f"http://127.0.0.1:{self.up.port}/")
        shown = email.utils.parsedate_to_datetime(answer.headers["Date"]).timestamp()
        assert abs(shown - time.time() - seconds) < 60, f"the program's clock is {shown - time.time():+.0f} s, not {seconds:+d}"


async def does_not_spin(up):
    """An idle process uses almost no processor time in two seconds."""
    before = up.ticks()
    await asyncio.sleep(2)
    used = up.ticks() - before
    assert used < 50, f"an idle process used {used} of 200 ticks"


@test(deadline=180)
async def clock_jumps_a_year_and_back(case):
    """Deadlines and running transfers use the monotonic clock, slots and rates the wall clock."""
    up = await case.upslot(start=False, header_timeout=1, body_timeout=60, idle_timeout=60,
                           access=[{"jid": ACCOUNTS[0]},
                                   {"jid": ACCOUNTS[1], "uploads_per_timedelta": {"delta": 2, "uploads": 2}}])
    clock = Clock(case, up)
    await up.start()
    romeo, benvolio = await case.client(ACCOUNTS[0]), await case.client(ACCOUNTS[1])
    body = content(100 * KIB)
    kept = await romeo.slot("kept.bin", len(body))
    check("PUT", (await put(kept.put, body)).status, 201)
    since = up.mark()
    for seconds in (YEAR, -YEAR, 0):
        slot, late = await romeo.slot("running.bin", len(body)), await romeo.slot("late.bin", 5)
        half = await case.raw(up)
        await half.send_head("PUT", slot.put, Content_Length=len(body))
        await half.send(body[:50 * KIB])
        await up.receiving(50 * KIB)
        idle = await case.raw(up)
        await idle.send_head("GET", kept.get)
        check("GET", (await idle.head())[0], 200)
        await idle.body(len(body))
        slow = await case.raw(up)
        await slow.send(b"GET / HTTP/1.1\r\n")

        before = 0 if seconds == YEAR else YEAR if seconds == -YEAR else -YEAR
        await clock.set(seconds)
        # A slow head gets its answer when its timeout has passed.
        started = time.monotonic()
        check("slow head", (await slow.head())[0], 408)
        assert time.monotonic() - started < PATIENCE
        # A running upload continues, and an idle connection stays open.
        await half.send(body[50 * KIB:])
        check("running PUT", (await half.head())[0], 201)
        check("GET of its file", (await get(slot.get)).body, body)
        await idle.send_head("GET", kept.get)
        check("GET on the idle connection", (await idle.head())[0], 200)
        # A slot of last year has expired; a slot of next year has not.
        check("PUT with the earlier slot", (await put(late.put, b"hello")).status, 403 if seconds > before else 201)
        fresh = await romeo.slot("fresh.bin", 5)
        check("PUT with a new slot", (await put(fresh.put, b"hello")).status, 201)
        check("second PUT", (await put(fresh.put, b"hello")).status, 409)
        # Slots that were granted in another year do not count for longer than the window.
        await until_granted(benvolio)
        await benvolio.slot("second.bin", 5)
        check("third slot", (await benvolio.refusal("third.bin", 5)).condition, "resource-constraint")
    check("link", [line for line in up.process.lines[since:] if re.search("link (up|down)", line)], [])
    await does_not_spin(up)


async def until_granted(client):
    async def granted():
        return (await client.ask(slot_request(NAMESPACES[0], "first.bin", 5))).get("type") == "result"

    await until(granted, "a slot after the clock jump")


@test(servers=(None,), deadline=120)
async def brief_clock_jump_removes_nothing(case):
    """The sweep waits before it acts on a jump of a year."""
    up = await case.upslot(start=False, expire_interval=2, expire_maxage=30 * DAY)
    clock = Clock(case, up)
    folder = up.store / owner_folder(ACCOUNTS[0]) / "random"
    folder.mkdir(parents=True)
    for age, name in ((1, "young.bin"), (29, "old.bin"), (31, "older.bin")):
        (folder / name).write_bytes(b"hello")
        os.utime(folder / name, (time.time() - age * DAY,) * 2)
    await up.start()
    await up.line(r"sweep done .*removed=1\b")
    check("files", sorted(os.listdir(folder)), ["old.bin", "young.bin"])
    await clock.set(YEAR)
    await up.line(r"WARN  clock jumped forward seconds=3153\d+ sweep_in=2\b")
    since = up.mark()
    await clock.set(0)
    await up.line(r"WARN  clock jumped back seconds=3153\d+ sweep_in=2\b", since)
    await up.line(r"sweep done .*removed=0\b", since)
    check("files", sorted(os.listdir(folder)), ["old.bin", "young.bin"])


def dated(path, time):
    """Dates a file as the kernel would have done with the program's clock."""
    os.utime(path, (time,) * 2)


def age(path, now):
    return now - os.stat(path).st_mtime


@test(servers=(None,), deadline=120)
async def permanent_clock_jump_ages_nothing(case):
    """A year that did not pass does not count, neither for upslot's files nor for older ones."""
    up = await case.upslot(start=False, expire_interval=2, expire_maxage=30 * DAY)
    clock = Clock(case, up)
    folder = up.store / owner_folder(ACCOUNTS[0]) / "random"
    folder.mkdir(parents=True)
    for days, name in ((1, "young.bin"), (29, "old.bin"), (31, "older.bin")):
        (folder / name).write_bytes(b"hello")
        dated(folder / name, time.time() - days * DAY)
    await up.start()
    await up.line(r"sweep done .*removed=1\b")
    for jump in (YEAR, 3 * YEAR):
        since = up.mark()
        await clock.set(jump)
        await up.line(r"WARN  clock jumped forward ", since)
        reply = await get(f"{up.url}{owner_folder(ACCOUNTS[0])}/random/old.bin")
        left = int(re.search(r"max-age=(\d+)", reply.headers["Cache-Control"])[1])
        assert DAY - 100 < left <= DAY, f"it may be cached for {left} s"
        await up.line(r"sweep done files=2 removed=0 .*times_corrected=2", since)
        check("files", sorted(os.listdir(folder)), ["old.bin", "young.bin"])
        days = round(age(folder / "old.bin", time.time() + jump) / DAY)
        check("age of the file itself", days, 29)
        since = up.mark()
        await up.line(r"sweep done files=2 removed=0 bytes=0 ms=\d+$", since)
    # They expire at their age.
    dated(folder / "old.bin", time.time() + jump - 31 * DAY)
    await up.line(r"sweep done .*removed=1\b", since)
    check("files", os.listdir(folder), ["young.bin"])
    await up.restart()
    since = up.mark()
    await up.line(r"sweep done files=1 removed=0\b", since)


async def upload_by_api(up, body):
    """Uploads a file; returns its URL and its path."""
    before = up.files()
    slot = await slot_from_api(up, "a.bin", len(body))
    check("PUT", (await put(slot.put, body)).status, 201)
    path, = up.files() - before
    return slot.get, up.store / path


async def set_clock_after_upload(case, way):
    """Uploads while the clock is not set, then sets the clock: of the running program, while it is stopped, or before it
    is killed and started again."""
    up = await case.upslot(start=False, api={"port": free_port()}, expire_interval=2, expire_maxage=30 * DAY,
                           access=[{"jid": "^romeo@", "expire_maxage": 20 * DAY}])
    clock = Clock(case, up)
    start = 1000 - int(time.time())
    clock.write(start)
    folder = up.store / owner_folder(ACCOUNTS[1]) / "random"
    folder.mkdir(parents=True)
    for days, name in ((29, "old.bin"), (31, "older.bin")):
        (folder / name).write_bytes(b"hello")
        dated(folder / name, time.time() - days * DAY)
    await up.start()
    await up.line("WARN  clock is not set")
    url, file = await upload_by_api(up, b"hello")
    dated(file, time.time() + start)
    since = up.mark()
    for _ in range(2):
        await up.line(r"sweep done files=3 removed=0 bytes=0 ms=\d+$", since)
        since = up.mark()
    check(f"{way}: files before the clock is set", sorted(os.listdir(folder)), ["old.bin", "older.bin"])
    assert age(file, time.time()) > YEAR, "its time was changed before the clock was set"
    if way == "running":
        await clock.set(0)
    elif way == "stopped":
        await up.process.stop()
        clock.write(0)
        await up.start()
    else:
        # It is killed before the next sweep.
        await up.process.stop(signal.SIGKILL)
        up.configure(expire_interval=3600)
        await up.start()
        since = up.mark()
        await clock.set(0)
        await up.line(r"WARN  clock jumped forward ", since)
        record = up.store / ".upslot" / "clock" / Path(
            "/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
        await until(lambda: "correction" in record.read_text(), "the correction on disk")
        await up.process.stop(signal.SIGKILL)
        assert age(file, time.time()) > YEAR
        up.configure(expire_interval=2)
        await up.start()
    await up.line(r"sweep done files=3 removed=1 .*times_corrected=1$")
    check(f"{way}: files after it", os.listdir(folder), ["old.bin"])
    check("GET", (await get(url)).status, 200)
    seconds = age(file, time.time())
    assert -5 < seconds < 170, f"{way}: it is {seconds:.0f} s old"
    # The correction is permanent.
    await up.restart()
    since = up.mark()
    await up.line(r"sweep done files=2 removed=0 bytes=0 ms=\d+$", since)
    dated(file, time.time() - 19 * DAY)
    await up.line(r"sweep done files=2 removed=0 bytes=0 ms=\d+$", up.mark())
    dated(file, time.time() - 21 * DAY)
    await up.line(r"sweep done .*removed=1\b", since)
    check("GET", (await get(url)).status, 404)
    await up.process.stop()


@test(servers=(None,), deadline=180)
async def upload_before_the_clock_is_set(case):
    """A board without a clock battery starts in 1970 and accepts uploads; later its clock is set over the network."""
    # Most of the time is spent waiting for sweeps.
    await asyncio.gather(*(set_clock_after_upload(case, way) for way in ("running", "stopped", "killed before the sweep")))


@test(servers=(None,), deadline=120)
async def future_file_times_count_from_discovery(case):
    """Restored files with a time in the future, and files that were dated by a fast clock."""
    up = await case.upslot(start=False, api={"port": free_port()}, expire_interval=2, expire_maxage=30 * DAY)
    clock = Clock(case, up)
    folder = up.store / owner_folder(ACCOUNTS[0]) / "random"
    folder.mkdir(parents=True)
    for name, ahead in (("year.bin", YEAR), ("century.bin", 100 * YEAR), ("hour.bin", 3600), ("past.bin", -DAY)):
        (folder / name).write_bytes(b"hello")
        dated(folder / name, time.time() + ahead)
    await up.start()
    await up.line(r"WARN  files have a time in the future, which counts from now files=3 path=\S+/random/\w+\.bin")
    await up.line(r"sweep done files=4 removed=0\b")
    for path in folder.iterdir():
        expected = DAY if path.name == "past.bin" else 0
        assert expected <= age(path, time.time()) + 1 < expected + 60, path
    for _ in range(2):
        await up.line(r"sweep done files=4 removed=0\b", up.mark())
    check("warnings", sum("time in the future" in line for line in up.process.lines), 1)
    # The clock is set back: files stored meanwhile count from that moment.
    await clock.set(YEAR)
    url, file = await upload_by_api(up, b"hello")
    dated(file, time.time() + YEAR)
    since = up.mark()
    await clock.set(0)
    await up.line(r"WARN  clock jumped back ", since)
    await up.line(r"WARN  files have a time in the future, .* files=\d+", since)
    await up.line(r"sweep done files=5 removed=0\b", since)
    assert -5 < age(file, time.time()) < 60
    for path in (file, folder / "century.bin"):
        dated(path, time.time() - 31 * DAY)
    await up.line(r"sweep done .*removed=2\b", since)
    check("GET", (await get(url)).status, 404)


@test(deadline=180 if not LONG else 600)
async def stopped_and_continued(case):
    """SIGSTOP for longer than every timeout: data that arrived meanwhile counts, other connections time out."""
    timeouts = {} if LONG else {"header_timeout": 2, "body_timeout": 2, "idle_timeout": 2}
    server = await case.own_server()
    up = await case.upslot(server, api={"port": free_port()}, max_file_size=50 * MIB, **timeouts)
    romeo = await case.client(server=server)
    body, large = content(60 * KIB), content(20 * MIB)
    first = await romeo.slot("large.bin", len(large))
    check("PUT", (await put(first.put, large)).status, 201)

    uploads = []
    for number in range(40):
        slot = await romeo.slot(f"{number}.bin", len(body))
        uploads.append((slot, await case.raw(up)))
    stalled_slot, stalled = await romeo.slot("stalled.bin", len(body)), await case.raw(up)
    for slot, raw in [*uploads, (stalled_slot, stalled)]:
        await raw.send_head("PUT", slot.put, Content_Length=len(body))
        await raw.send(body[:20 * KIB])
    reading = await case.raw(up)
    await reading.send_head("GET", first.get)
    check("head", (await reading.head())[0], 200)
    slow = await case.raw(up)
    await slow.send(b"GET / HTTP/1.1\r\n")
    await until(lambda: sum(size + 2048 > 20 * KIB for size in up.writing()) == 41, "all uploads begun")

    os.kill(up.process.pid, signal.SIGSTOP)
    stopped = asyncio.ensure_future(asyncio.sleep(300 if LONG else 4))
    since = up.mark()
    await server.process.stop()
    for _, raw in uploads:
        await raw.send(body[20 * KIB:])
    await server.start()
    received = bytearray()

    async def read():
        # First what is in the socket buffers; the rest follows when the process continues.
        while piece := await reading.reader.read(64 * KIB):
            received.extend(piece)
            if len(received) == len(large):
                return

    reader = case.background(read())
    await stopped
    os.kill(up.process.pid, signal.SIGCONT)

    for slot, raw in uploads:
        check("PUT", (await raw.head())[0], 201)
        check("GET", (await get(slot.get)).body, body)
    await asyncio.wait_for(reader, PATIENCE)
    assert received == large, f"{len(received)} bytes of the download"
    check("stalled upload", (await stalled.head())[0], 408)
    check("slow head", (await slow.head())[0], 408)
    await up.line("link up", since, timeout=90)
    romeo = await case.client(server=server)
    slot = await romeo.slot("after.bin", len(body))
    check("PUT", (await put(slot.put, body)).status, 201)
    check("files", len(up.files()), 42)
    check("GET of the stalled upload", (await get(stalled_slot.get)).status, 404)
    await does_not_spin(up)


@test(servers=(None,), deadline=120)
async def stopped_between_events_and_clock(case):
    """Data that arrives after the events were collected and before the clock is read has arrived in time."""
    up = await case.upslot(api={"port": free_port()}, body_timeout=2)
    body = content(60 * KIB)
    slot = await slot_from_api(up, "a.bin", len(body))
    raw, poke = await case.raw(up), await case.raw(up)
    await raw.send_head("PUT", slot.put, Content_Length=len(body))
    await raw.send(body[:20 * KIB])
    await up.receiving(20 * KIB)
    waits = "epoll_wait,epoll_pwait,epoll_pwait2"
    async with Faults(case, up, f"{waits}:delay_exit=3000000:when=1", threads=False):
        await poke.send(b"GET / HTTP/1.1\r\n")
        # It is stopped for three seconds; the only event that it has seen is the poke.
        stat = Path(f"/proc/{up.process.pid}/stat")
        await until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "t", "the stopped program")
        await raw.send(body[20 * KIB:])
        check("PUT", (await raw.head())[0], 201)
    check("GET", (await get(slot.get)).body, body)
