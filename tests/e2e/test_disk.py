"""Trouble with the disk: full, failing, slow, gone, read-only, or of a kind that can do little.

Where a mount is needed the store is one in a mount namespace of upslot's own, so that nothing stays mounted; who is
not root takes a user namespace as well. Where calls must fail, strace makes them."""

import asyncio
import contextlib
import itertools
import json
import os
import platform
import re
import shutil
import signal
import time
import urllib.parse
from pathlib import Path

from harness import (ACCOUNTS, KIB, LONG, MIB, PATIENCE, Faults, Process, Slot, check, content, free_port, get,
                     owner_folder, port_open, put, run, test, until)

NAMESPACES = ["-m"] if os.geteuid() == 0 else ["-Urm"]


async def on_disk(case, mount, api=False, **settings):
    """An upslot whose store is what `mount` mounts at "$1"; also the store as seen from here."""
    if api:
        settings["api"] = {"port": free_port()}
    up = await case.upslot(start=False, **settings)
    up.wrapper = ["unshare", *NAMESPACES, "sh", "-ec", f'store="$1"; shift; {mount}; exec "$@"', "sh", up.store]
    await up.start()
    return up, Path(f"/proc/{up.process.pid}/root{up.store}")


async def on_small_disk(case, size, more="", **settings):
    """An upslot whose store has so many bytes."""
    return await on_disk(case, f'mount -t tmpfs -o size={size}{more} none "$store"', **settings)


async def mounts(up, *command):
    """Runs a command where upslot's mounts are."""
    into = ["-m"] if os.geteuid() == 0 else ["-m", "-U", "--preserve-credentials"]
    ran = await run(["nsenter", "-t", up.process.pid, "--root", *into, *command])
    assert ran.code == 0, f"{command}: {ran.err}"


async def alone(case, start=True, **settings):
    """An upslot without XMPP; slots come from its local API. It says little, so that few of its calls are writes."""
    up = await case.upslot(start=False, api={"port": free_port()}, **{"log_level": "error", **settings})
    if start:
        await up.start_quietly()
    return up


def api(up, what):
    return f"http://127.0.0.1:{up.settings['api']['port']}/{what}"


async def ask(up, name, size, jid=ACCOUNTS[0], **more):
    """Asks the local API for a slot."""
    query = {"jid": jid, "name": name, "size": size, **more}
    return await get(api(up, "slot/?" + urllib.parse.urlencode(query)))


async def slot_of(up, name, size, jid=ACCOUNTS[0], **more):
    reply = await ask(up, name, size, jid, **more)
    check("slot", (reply.status, reply.body if reply.status != 200 else b""), (200, b""))
    return Slot(*reply.body.decode().split(), {})


async def health(up):
    reply = await get(api(up, "health"))
    return reply.status, reply.body.decode()


def said(up, pattern, since=0):
    """Log lines that match."""
    return [line for line in up.process.lines[since:] if re.search(pattern, line)]


def no_leftovers(up, expected, store=None):
    check("files and folders", up.files(store), expected)
    check("leftovers", up.leftovers(), [])


# Full ----------------------------------------------------------------------------------------------------------------

@test(deadline=120)
async def full_disk(case):
    up, store = await on_small_disk(case, 8 * MIB, min_free_space=0)
    romeo, benvolio = await case.client(ACCOUNTS[0]), await case.client(ACCOUNTS[1])
    body = content(5 * MIB)
    # Both have room when the slots are given, but not together.
    first, second = await romeo.slot("first.bin", len(body)), await benvolio.slot("second.bin", len(body))
    check("first PUT", (await put(first.put, body)).status, 201)

    tally, enough = [], asyncio.Event()

    async def downloads():
        while not enough.is_set():
            reply = await get(first.get)
            assert reply.status == 200 and reply.body == body, f"a download failed: {reply.status}"
            tally.append(reply.status)

    task = case.background(downloads())
    for _ in range(3):
        check("PUT to the full disk", (await put(second.put, body)).status, 507)
        check("GET of it", (await get(second.get)).status, 404)
    check("complaints", len(said(up, "ERROR store failed")), 1)
    check("files and folders", len(up.files(store)), 1)
    assert not task.done() and tally, f"downloads of others suffered: {task}"
    small = await benvolio.slot("small.bin", 100 * KIB)
    check("PUT that fits", (await put(small.put, content(100 * KIB))).status, 201)

    # A download under way would hold its file, and the room, open.
    enough.set()
    await task
    for path in up.files(store):
        (store / path).unlink()
    # A file that was asked for over and over is held open for the rest of a second, or until the disk is full.
    deadline = time.monotonic() + PATIENCE
    while (status := (await put(second.put, body)).status) != 201:
        check("PUT when there is room again", status, 507)
        assert time.monotonic() < deadline, "room that came back was not used"
    assert (await get(second.get)).body == body


@test()
async def disk_that_fills_in_the_middle_of_a_put(case):
    up, store = await on_small_disk(case, 8 * MIB, min_free_space=0)
    romeo = await case.client()
    body = content(6 * MIB)
    slot = await romeo.slot("big.bin", len(body))
    raw = await case.raw(up)
    await raw.send_head("PUT", slot.put, Content_Length=len(body))
    await raw.send(body[:2 * MIB])
    await up.receiving(MIB)
    filler = store / "filler"
    fill(filler)
    await raw.send(body[2 * MIB:])
    check("PUT", (await raw.head())[0], 507)
    filler.unlink()
    check("files and folders", up.files(store), set())
    check("PUT again", (await put(slot.put, body)).status, 201)
    assert (await get(slot.get)).body == body


def fill(path, leave=0):
    """Takes as much as there is, until the disk says no, and gives some of it back."""
    with open(path, "wb", buffering=0) as file:
        try:
            while file.write(bytes(4 * KIB)):
                pass
        except OSError:
            pass
        file.truncate(file.tell() - leave)


@test()
async def free_space_is_left(case):
    await on_small_disk(case, 8 * MIB, min_free_space=6 * MIB)
    romeo = await case.client()
    await romeo.slot("fits.bin", MIB)
    refusal = await romeo.refusal("large.bin", 3 * MIB)
    check("error", (refusal.type, refusal.condition), ("wait", "resource-constraint"))


@test()
async def no_inodes_left(case):
    """A disk that has bytes and no inodes is full, for a PUT and, as soon as it is seen, for a slot."""
    up, store = await on_small_disk(case, 8 * MIB, ",nr_inodes=24", min_free_space=KIB)
    romeo = await case.client()
    late = await romeo.slot("late.txt", 5)
    with contextlib.suppress(OSError):
        for number in range(24):
            (store / f"taken-{number}").touch(exist_ok=False)
    check("PUT", (await put(late.put, b"hello")).status, 507)
    # How much is free is looked at once a second.
    deadline = time.monotonic() + PATIENCE
    while True:
        answer = await romeo.ask(f'<request xmlns="urn:xmpp:http:upload:0" filename="more.txt" size="5"/>')
        if answer.get("type") == "error":
            break
        assert time.monotonic() < deadline, "slots were given for what cannot be stored"
    assert "resource-constraint" in str([child.tag for part in answer for child in part])
    for path in store.glob("taken-*"):
        path.unlink()
    check("files and folders", up.files(store), set())
    deadline = time.monotonic() + PATIENCE
    while (status := (await put(late.put, b"hello")).status) != 201:
        check("PUT when there are inodes again", status, 507)
        assert time.monotonic() < deadline, "inodes that came back were not seen"
    check("GET", (await get(late.get)).body, b"hello")


@test(servers=(None,))
async def a_write_that_takes_only_a_part_is_continued(case):
    """The disk takes a part of a piece and is full; before the program asks again there is room."""
    up, store = await on_small_disk(case, 4 * MIB, min_free_space=0, api=True, log_level="info")
    body = content(700 * KIB)
    for attempt in range(5):
        slot = await slot_of(up, f"part-{attempt}.bin", len(body))
        raw = await case.raw(up)
        await raw.send_head("PUT", slot.put, Content_Length=len(body))
        # No multiple of a page: the place at which the disk is full is in the middle of a piece.
        await raw.send(body[:100_001])
        await up.receiving(100_001)
        filler = store / "filler"
        fill(filler, leave=200 * KIB)
        async with Faults(case, up, "write:delay_exit=500000", threads=False) as faults:
            sending = case.background(raw.send(body[100_001:]))
            await until(lambda: os.statvfs(store).f_bavail == 0, "the disk full")
            filler.unlink()
            status, _ = await raw.head()
            await sending
        if status == 507:
            # There was no room for so long that the program asked again.
            continue
        check("PUT", status, 201)
        reply = await get(slot.get)
        assert reply.body == body, f"{len(reply.body)} bytes came back, not the same"
        for path in up.files(store):
            (store / path).unlink()
        writes = [re.search(r"(\d+)\)?\s+= (\d+) \(DELAYED\)", line) for line in faults.calls]
        if any(found and int(found[2]) < int(found[1]) for found in writes):
            return
    raise AssertionError("no write was cut short: " + "\n".join(faults.calls))


@test(servers=(None,))
async def a_limit_of_file_sizes_is_not_the_end(case):
    """What the shell calls `ulimit -f`: the kernel would end the process by a signal."""
    up = await case.upslot(start=False, api={"port": free_port()})
    up.wrapper = ["prlimit", f"--fsize={MIB}"]
    await up.start()
    slot = await slot_of(up, "large.bin", 2 * MIB)
    check("PUT over the limit", (await put(slot.put, content(2 * MIB))).status, 507)
    no_leftovers(up, set())
    small = await slot_of(up, "small.bin", 5)
    check("PUT within the limit", (await put(small.put, b"hello")).status, 201)
    check("GET", (await get(small.get)).body, b"hello")


# Full in ways that bytes do not show -----------------------------------------------------------------------------------

async def metric(up, name):
    """A number that `/metrics` tells; None when it does not."""
    found = re.search(rf"^upslot_{re.escape(name)} (\S+)$", (await get(api(up, "metrics"))).body.decode(), re.MULTILINE)
    return found and float(found[1])


async def is_full(up, size, name="more.bin"):
    """Slots of this size are refused, and everything says why."""
    refused = await metric(up, 'slot_refusals_total{reason="free_space"}') or 0
    check("slot", (await ask(up, name, size)).status, 507)
    check("refusals", await metric(up, 'slot_refusals_total{reason="free_space"}'), refused + 1)
    check("health", await health(up), (503, "link none\nstore full\n"))


async def is_good_again(up, size):
    """Slots are granted again, without anybody's help."""
    deadline = time.monotonic() + PATIENCE
    while (status := (await ask(up, "again.bin", size)).status) != 200:
        check("slot", status, 507)
        assert time.monotonic() < deadline, "slots are still refused"
        await asyncio.sleep(0.1)
    check("health", await health(up), (200, "link none\nstore good\n"))


@test(servers=(None,))
async def slots_are_refused_before_inodes_run_out(case):
    """With the last few inodes what was granted can still be stored."""
    up, store = await on_small_disk(case, 8 * MIB, ",nr_inodes=400", api=True, min_free_space=0)
    granted = await slot_of(up, "granted.bin", 5)
    plenty = await metric(up, "free_inodes")
    check("free inodes", plenty, float(os.statvfs(store).f_favail))
    for number in range(int(plenty) - 5):
        (store / f"taken-{number}").touch(exist_ok=False)
    await until_metric(up, "free_inodes", 5)
    await is_full(up, 5)
    check("complaints", len(said(up, "WARN  few inodes left")), 1)
    check("PUT", (await put(granted.put, b"hello")).status, 201)
    check("GET", (await get(granted.get)).body, b"hello")
    check("failures", said(up, "ERROR "), [])
    for path in store.glob("taken-*"):
        path.unlink()
    await is_good_again(up, 5)
    check("PUT", (await put((await slot_of(up, "a", 5)).put, b"hello")).status, 201)


async def until_metric(up, name, value):
    deadline = time.monotonic() + PATIENCE
    while (found := await metric(up, name)) != value:
        assert time.monotonic() < deadline, f"{name} is {found}, not {value}"
        await asyncio.sleep(0.1)


@test(servers=(None,), deadline=200)
async def what_has_no_room_is_not_promised(case):
    """Whatever part of a PUT finds no room: slots are refused until a file and a folder can be made."""
    up = await case.upslot(api={"port": free_port()}, min_free_space=0)
    for rule in ("mkdirat:error=ENOSPC", "mkdirat:error=EDQUOT", "openat:error=EDQUOT", "write:error=EDQUOT",
                 "fsync,syncfs:error=EDQUOT"):
        late = await slot_of(up, "late.bin", 20_000)
        since = up.mark()
        async with Faults(case, up, rule, threads="fsync" in rule):
            check(f"PUT with {rule}", (await put(late.put, content(20_000))).status, 507)
            await is_full(up, 20_000)
            # It is tried out, and stays so: for the smallest file as well.
            await until_refused(up, 1)
            await is_full(up, 1)
            check(f"PUT with {rule}", (await put(late.put, content(20_000))).status, 507)
        await is_good_again(up, 20_000)
        # The log is written by the same call.
        errors = 0 if rule.startswith("write") else 1
        check(f"what was said of {rule}",
              (len(said(up, "ERROR ", since)), len(said(up, "store works again", since))), (errors, 1))
        check("PUT", (await put(late.put, content(20_000))).status, 201)
        check("leftovers", up.leftovers(), [])


async def until_refused(up, size):
    deadline = time.monotonic() + PATIENCE
    while (await ask(up, "small.bin", size)).status != 507:
        assert time.monotonic() < deadline, f"slots for {size} bytes are still granted"
        await asyncio.sleep(0.1)


@test(servers=(None,), deadline=200)
async def a_quota_of_the_file_system(case):
    """A real one, of a file system that has no number of inodes. It is not full for what still fits."""
    image = case.folder / "image"
    with open(image, "wb") as file:
        file.truncate(128 * MIB)
    check("mkfs", (await run(["mkfs.btrfs", "-q", image])).code, 0)
    mount = f"""mount -o loop "{image}" "$store"; cd "$store"
        {{ btrfs quota enable . && btrfs subvolume create files && btrfs qgroup limit 8M files; }} > /dev/null
        cd /; mount --bind "$store/files" "$store" """
    up, store = await on_disk(case, mount, api=True, min_free_space=0)
    check("number of inodes", (os.statvfs(store).f_files, await metric(up, "free_inodes")), (0, None))
    body = content(5 * MIB)
    first, second = await slot_of(up, "first.bin", len(body)), await slot_of(up, "second.bin", len(body))
    check("PUT", (await put(first.put, body)).status, 201)
    check("PUT over the quota", (await put(second.put, body)).status, 507)
    await is_full(up, len(body))
    # What was tried out in between shows that small files have room.
    await until_granted(up, 5000)
    await is_full(up, len(body))
    check("small PUT", (await put((await slot_of(up, "small.bin", 5000)).put, content(5000))).status, 201)
    await is_full(up, len(body))
    # What belongs to the mount namespace of the program is removed from there.
    await mounts(up, os.environ["UPSLOT_BIN"], "-c", up.config, "remove", first.get)
    await is_good_again(up, len(body))
    check("PUT again", (await put(second.put, body)).status, 201)
    assert (await get(second.get)).body == body
    check("complaints", len(said(up, "ERROR ")), 1)


async def until_granted(up, size):
    deadline = time.monotonic() + PATIENCE
    while (await ask(up, "small.bin", size)).status != 200:
        assert time.monotonic() < deadline, f"slots for {size} bytes are still refused"
        await asyncio.sleep(0.1)


# Failing -------------------------------------------------------------------------------------------------------------

STATUS = {"ENOSPC": 507, "EDQUOT": 507, "EIO": 503, "EROFS": 503, "EMFILE": 503, "ENOMEM": 503}
# What a PUT asks of the disk, and how each of it may fail.
MAY_FAIL = {
    "openat": ["ENOSPC", "EIO", "EMFILE", "EDQUOT", "EROFS", "ENOMEM"],
    "openat2": ["EIO", "EMFILE", "ENOMEM"],
    "write": ["ENOSPC", "EIO", "EDQUOT", "EROFS"],
    "fsetxattr": ["ENOSPC", "EIO", "EDQUOT"],
    "mkdirat": ["ENOSPC", "EIO", "EDQUOT", "EROFS", "ENOMEM"],
    "linkat": ["ENOSPC", "EIO", "EDQUOT", "EROFS", "ENOMEM"],
    "fsync": ["ENOSPC", "EIO", "EDQUOT"],
}
IN_THE_HELPER_THREAD = ("fsync",)


async def every_call_fails_once(case, up):
    """Each call that a PUT makes fails once, in each way: the PUT is refused, leaves nothing, takes nothing from the
    quota, and succeeds when it is repeated."""
    body = content(6000)
    owners = (f"u{number}@montague.example" for number in itertools.count())

    async def new_slot():
        owner = next(owners)
        return owner, await slot_of(up, "a b.bin", len(body), owner, content_type="image/x-thing")

    # The first starts the helper thread.
    _, slot = await new_slot()
    check("first PUT", (await put(slot.put, body)).status, 201)
    _, slot = await new_slot()
    async with Faults(case, up, trace=MAY_FAIL) as clean:
        check("clean PUT", (await put(slot.put, body)).status, 201)
    counts = {call: sum(bool(re.match(rf"\d+\s+{call}\(", line)) for line in clean.calls) for call in MAY_FAIL}
    # The syncing thread wakes the loop by a write of its own.
    counts["write"] = sum(bool(re.match(rf"{up.process.pid}\s+write\(", line)) for line in clean.calls)
    for call in MAY_FAIL:
        assert counts[call] >= 1, f"{call} was not seen: {clean.calls}"

    tried = 0
    for call, ways in MAY_FAIL.items():
        for error, number in itertools.product(ways, range(1, counts[call] + 1)):
            what = f"PUT when {call} number {number} fails with {error}"
            owner, slot = await new_slot()
            before = up.files()
            async with Faults(case, up, f"{call}:error={error}:when={number}",
                              threads=call in IN_THE_HELPER_THREAD) as faults:
                check(what, (await put(slot.put, body)).status, STATUS[error])
            assert any("(INJECTED)" in line for line in faults.calls), f"{what}: it did not fail, {faults.calls}"
            check(f"GET after a {what}", (await get(slot.get)).status, 404)
            check(f"tree after a {what}", up.files(), before)
            check(f"leftovers of a {what}", up.leftovers(), [])
            # The quota of 10,000 bytes has room for one of 6,000 if nothing is held of the failed one, and then for
            # 4,000 exactly.
            check(f"repeated {what}", (await put(slot.put, body)).status, 201)
            reply = await get(slot.get)
            check(f"what a repeated {what} stored", (reply.body, reply.headers["Content-Type"]),
                  (body, "image/x-thing"))
            check("slot that fits", (await ask(up, "b", 4000, owner)).status, 200)
            check("slot over the quota", (await ask(up, "b", 4001, owner)).status, 403)
            tried += 1
    return tried


@test(servers=(None,), deadline=300)
async def every_call_of_a_put_may_fail(case):
    up = await alone(case, user_quota_hard=10_000)
    tried = await every_call_fails_once(case, up)
    assert tried >= 20, f"only {tried} ways were tried"


def without_unnamed_files(case, up):
    """Has the program find at its start that the file system has no unnamed files: where there is a call `open`, the
    first `openat` that concerns the store makes one, elsewhere the second."""
    number = 1 if platform.machine() == "x86_64" else 2
    up.wrapper = ["strace", "-D", "-I1", "-qq", "-o", case.folder / "start.out", "-P", up.store,
                  "-e", "trace=openat", "-e", f"inject=openat:error=EOPNOTSUPP:when={number}", "--"]


@test(servers=(None,), deadline=300)
async def a_file_system_without_unnamed_files(case):
    up = await alone(case, start=False, user_quota_hard=10_000)
    without_unnamed_files(case, up)
    await up.start_quietly()
    assert said(up, "store open .*temporary names"), said(up, "store open")
    # Only one tracer can follow a process at a time.
    await until(lambda: tracer(up) != 0, "the tracer of the start")
    os.kill(tracer(up), signal.SIGINT)
    await until(lambda: tracer(up) == 0, "the program without a tracer")
    tried = await every_call_fails_once(case, up)
    assert tried >= 20, f"only {tried} ways were tried"
    # A client that goes away, too.
    slot = await slot_of(up, "broken.bin", 5000, "broken@montague.example")
    raw = await case.raw(up)
    await raw.send_head("PUT", slot.put, Content_Length=5000)
    await raw.send(content(4000))
    await until(up.leftovers, "the temporary name")
    before = up.files()
    raw.close()
    await until(lambda: not up.leftovers(), "the temporary name gone")
    check("files and folders", up.files(), before)


def tracer(up):
    status = Path(f"/proc/{up.process.pid}/status").read_text()
    return int(re.search(r"TracerPid:\s+(\d+)", status)[1])


@test(servers=(None,))
async def a_file_system_without_attributes(case):
    up = await alone(case)
    slot = await slot_of(up, "picture.png", 5, content_type="image/x-thing")
    async with Faults(case, up, "fsetxattr:error=EOPNOTSUPP") as faults:
        check("PUT", (await put(slot.put, b"hello")).status, 201)
    assert any("(INJECTED)" in line for line in faults.calls), faults.calls
    reply = await get(slot.get)
    check("by its name", (reply.body, reply.headers["Content-Type"]), (b"hello", "image/png"))


OTHER_FILE_SYSTEMS = {
    # It tells no size, and keeps no attributes.
    "ramfs": 'mount -t ramfs none "$store"',
    "overlay": 'mount -t tmpfs none "$store"; mkdir "$store/low" "$store/up" "$store/work"; '
               'mount -t overlay -o "lowerdir=$store/low,upperdir=$store/up,workdir=$store/work" none "$store"',
}


@test(servers=(None,))
async def other_file_systems(case):
    for kind, mount in OTHER_FILE_SYSTEMS.items():
        up, store = await on_disk(case, mount, api=True, user_quota_hard=MIB)
        for number in range(3):
            body = content(200 * KIB, number)
            slot = await slot_of(up, f"{number}.png", len(body))
            check(f"PUT on {kind}", (await put(slot.put, body)).status, 201)
            check(f"second PUT on {kind}", (await put(slot.put, body)).status, 409)
            reply = await get(slot.get)
            assert (reply.status, reply.headers["Content-Type"]) == (200, "image/png") and reply.body == body
        check(f"files on {kind}", len(up.files(store)), 3)
        check(f"slot over the quota on {kind}", (await ask(up, "more", MIB - 600 * KIB + 1)).status, 403)


@test(deadline=120)
async def a_flood_while_the_disk_fails(case):
    """Syncing fails: nobody is told 201, the log says so once, the rest goes on, and it is over by itself."""
    up = await case.upslot(api={"port": free_port()}, user_quota_hard=10 * MIB)
    romeo = await case.client()
    body = content(50 * KIB)
    kept = await romeo.slot("kept.bin", len(body))
    check("PUT", (await put(kept.put, body)).status, 201)
    slots = [await romeo.slot(f"{number}.bin", len(body)) for number in range(40)]
    since = up.mark()
    async with Faults(case, up, "fsync,syncfs:error=EIO"):
        replies = await asyncio.gather(*(put(slot.put, body) for slot in slots))
        check("statuses", {reply.status for reply in replies}, {503})
        assert all(reply.headers["Retry-After"] for reply in replies)
        check("tree", len(up.files()), 1)
        check("GET of another", (await get(kept.get)).body, body)
        await romeo.slot("link.bin", 5)
        check("health", (await health(up))[0], 503)
    check("complaints", len(said(up, "ERROR ", since)), 1)
    assert not said(up, "works again", since)
    # Nobody uploads, and still it is found out that the disk works.
    await up.line("INFO  store works again", since)
    check("health", (await health(up))[0], 200)
    for slot in slots:
        check("PUT again", (await put(slot.put, body)).status, 201)
    check("complaints", (len(said(up, "ERROR ", since)), len(said(up, "works again", since))), (1, 1))
    check("link", said(up, "link (up|down)", since), [])
    # The sums are right: 41 files are there, and nothing more is held.
    left = 10 * MIB - 41 * len(body)
    await romeo.slot("fits.bin", left)
    refusal = await romeo.refusal("large.bin", left + 1)
    check("error", refusal.condition, "resource-constraint")


@test(servers=(None,))
async def a_disk_that_fails_and_works_by_turns(case):
    """It is said once that it fails, and once that it works; not at every turn."""
    up = await case.upslot(api={"port": free_port()})
    slots = [await slot_of(up, f"{number}.bin", 5000) for number in range(30)]
    # The first upload syncs more than those that follow.
    check("PUT", (await put((await slot_of(up, "first.bin", 5000)).put, content(5000))).status, 201)
    # Every second file: that of one, then that and two folders of the next.
    async with Faults(case, up, "fsync:error=EIO:when=1+4"):
        statuses = [(await put(slot.put, content(5000))).status for slot in slots]
    check("statuses", statuses, [503, 201] * 15)
    check("complaints", (len(said(up, "ERROR ")), len(said(up, "works again"))), (1, 1))
    check("files", len(up.files()), 16)


@test(servers=(None,))
async def one_sync_of_all_that_fails_is_no_failure_of_each(case):
    """Many files are synced by one call; if that fails, each is asked for by itself."""
    up = await case.upslot(api={"port": free_port()})
    slots = [await slot_of(up, f"{number}.bin", 5000) for number in range(24)]
    async with Faults(case, up, "syncfs:error=EIO", trace=("fsync",)) as faults:
        replies = await asyncio.gather(*(put(slot.put, content(5000)) for slot in slots))
    check("statuses", {reply.status for reply in replies}, {201})
    assert any("syncfs(" in line for line in faults.calls), "no call synced many"
    check("complaints", said(up, "ERROR "), [])


@test(servers=(None,))
async def a_body_that_cannot_be_written(case):
    """The disk fails within the body: the client reads why, even if it has much left to send."""
    up = await alone(case)
    body = content(3 * MIB)
    slot = await slot_of(up, "big.bin", len(body))
    raw = await case.raw(up)
    await raw.send_head("PUT", slot.put, Content_Length=len(body))
    await raw.send(body[:MIB])
    await up.receiving(MIB)
    async with Faults(case, up, "write:error=EIO:when=1", threads=False):
        await raw.send(body[MIB:])
        check("PUT", (await raw.head())[0], 503)
    no_leftovers(up, set())
    check("PUT again", (await put(slot.put, body)).status, 201)
    assert (await get(slot.get)).body == body


@test(servers=(None,))
async def files_that_cannot_be_read(case):
    """What is there and cannot be had is not said to be missing; a body that cannot go on ends, and is not filled up."""
    up = await case.upslot(api={"port": free_port()})
    body, small = content(8 * MIB), content(5000)
    large_slot, small_slot = await slot_of(up, "l.bin", len(body)), await slot_of(up, "s.bin", len(small))
    check("PUT", (await put(large_slot.put, body)).status, 201)
    check("PUT", (await put(small_slot.put, small)).status, 201)
    since = up.mark()
    async with Faults(case, up, "openat2:error=EIO"):
        for _ in range(20):
            reply = await get(large_slot.get)
            check("GET", (reply.status, reply.headers["Retry-After"] is not None), (503, True))
    check("complaints about opening", len(said(up, "WARN |ERROR ", since)), 1)
    async with Faults(case, up, "sendfile:error=EIO:when=3+"):
        raw = await case.raw(up)
        await raw.send_head("GET", large_slot.get)
        check("head", (await raw.head())[0], 200)
        received = await asyncio.wait_for(raw.reader.read(-1), PATIENCE)
        assert len(received) < len(body) and body.startswith(received), f"{len(received)} bytes"
        check("GET of another", (await get(small_slot.get)).body, small)
    async with Faults(case, up, "pread64:error=EIO"):
        raw = await case.raw(up)
        await raw.send_head("GET", small_slot.get)
        check("nothing is made up", await asyncio.wait_for(raw.reader.read(-1), PATIENCE), b"")
    check("complaints", len(said(up, "WARN |ERROR ", since)), 1)
    # As soon as it can be read it is.
    assert (await get(large_slot.get)).body == body
    check("GET", (await get(small_slot.get)).body, small)


@test(servers=(None,), deadline=200)
async def what_cannot_be_counted_is_not_nothing(case):
    """A folder that cannot be listed does not open the quota, and the sums are right as soon as it can be."""
    up = await case.upslot(start=False, api={"port": free_port()}, user_quota_hard=100_000)
    calls = {"getdents64:error=EIO": "EIO", "openat2:error=EMFILE": "EMFILE", "openat2:error=EIO": "EIO",
             "newfstatat:error=EIO:when=2+": "EIO"}
    for number in range(len(calls)):
        for file in range(3):
            folder = up.store / owner_folder(f"u{number}@montague.example") / f"random{file}"
            folder.mkdir(parents=True)
            (folder / "old.bin").write_bytes(bytes(20_000))
    await up.start()
    for number, rule in enumerate(calls):
        owner, since = f"u{number}@montague.example", up.mark()
        async with Faults(case, up, rule, threads=False) as faults:
            for _ in range(5):
                reply = await ask(up, "new.bin", 50_000, owner)
                check(f"slot when {rule}", reply.status, 503)
        assert any("(INJECTED)" in line for line in faults.calls), faults.calls
        assert len(said(up, "ERROR |WARN ", since)) <= 1, said(up, "ERROR |WARN ", since)
        check("slot over the quota", (await ask(up, "new.bin", 40_001, owner)).status, 403)
        check("slot that fits", (await ask(up, "new.bin", 40_000, owner)).status, 200)


@test(servers=(None,), deadline=60 if not LONG else 240)
async def a_store_that_cannot_be_summed(case):
    """The sum of all files is needed for `global_quota`; it is learned later if it cannot be at the start."""
    up = await case.upslot(start=False, api={"port": free_port()}, global_quota=100_000)
    folder = up.store / owner_folder(ACCOUNTS[1]) / "random"
    folder.mkdir(parents=True)
    (folder / "old.bin").write_bytes(bytes(90_000))
    # The first two list the program's own folder, for leftovers.
    up.wrapper = ["strace", "-D", "-qq", "-o", case.folder / "start.out",
                  "-e", "trace=getdents64", "-e", "inject=getdents64:error=EIO:when=3", "--"]
    await up.start()
    await up.line("WARN  store not counted")
    assert not said(up, "store counted"), said(up, "store counted")
    check("slot", (await ask(up, "a", 20_000)).status, 200)
    if LONG:
        await up.line("store counted files=1 bytes=90000", timeout=120)
        check("slot over the quota", (await ask(up, "a", 20_000)).status, 507)
        check("slot that fits", (await ask(up, "a", 10_000)).status, 200)


@test(servers=(None,))
async def a_folder_that_is_swept_under_a_publication(case):
    """Another node's sweep removes the slot's folder after it was made and before the file gets its name in it."""
    up = await alone(case, user_quota_hard=100_000)
    body = content(5000)
    slot = await slot_of(up, "a.bin", len(body))
    folder = up.store / "/".join(urllib.parse.urlsplit(slot.get).path.split("/")[2:4])
    async with Faults(case, up, "linkat:delay_enter=1500000:when=1", threads=False) as faults:
        putting = case.background(put(slot.put, body))
        await until(folder.is_dir, "the slot's folder")
        folder.rmdir()
        folder.parent.rmdir()
        check("PUT", (await putting).status, 201)
    check("tries", sum("linkat(" in line for line in faults.calls), 2)
    check("GET", (await get(slot.get)).body, body)
    check("files and folders", len(up.files()), 1)


@test(servers=(None,))
async def a_log_that_cannot_be_written(case):
    """The log's own disk is full: nothing else suffers."""
    up = await case.upslot(start=False, api={"port": free_port()}, log_level="debug")
    up.arguments += ["-l", "/dev/full"]
    up.process = await Process.start("upslot", [os.environ["UPSLOT_BIN"], *up.arguments], cwd=up.folder)
    await port_open(up.settings["api"]["port"], up.process)
    slot = await slot_of(up, "a.bin", 5)
    check("PUT", (await put(slot.put, b"hello")).status, 201)
    check("GET", (await get(slot.get)).body, b"hello")
    check("exit code", await up.process.stop(), 0)


# Slow ----------------------------------------------------------------------------------------------------------------

@test(deadline=120)
async def a_disk_that_syncs_slowly(case):
    """Who waits for stable storage waits alone."""
    up = await case.upslot(api={"port": free_port()})
    romeo = await case.client()
    body = content(100 * KIB)
    first, second = await romeo.slot("first.bin", len(body)), await romeo.slot("second.bin", len(body))
    check("PUT", (await put(first.put, body)).status, 201)
    async with Faults(case, up, "fsync:delay_enter=5000000:when=1") as faults:
        putting = case.background(put(second.put, body))
        await up.receiving(len(body))
        for number in range(10):
            check("GET", (await get(first.get)).body, body)
            await romeo.slot(f"{number}.bin", 5)
        check("ping", (await health(up))[0], 200)
        check("GET of what is not promised yet", (await get(second.get)).status, 404)
        assert not putting.done(), "201 before the file was synced"
        check("PUT", (await putting).status, 201)
    assert any("(DELAYED)" in line for line in faults.calls), faults.calls
    check("GET", (await get(second.get)).body, body)


@test(servers=(None,), deadline=120)
async def a_disk_that_writes_slowly(case):
    """A body that the disk takes slowly does not keep small requests waiting until it is through."""
    up = await alone(case, fsync=False)
    body = content(6 * MIB)
    small, large = await slot_of(up, "small.bin", 5), await slot_of(up, "large.bin", len(body))
    check("PUT", (await put(small.put, b"hello")).status, 201)
    async with Faults(case, up, "write:delay_enter=150000", threads=False):
        putting = case.background(put(large.put, body))
        await up.receiving(64 * KIB)
        for _ in range(3):
            check("GET", (await get(small.get)).body, b"hello")
        check("slot", (await ask(up, "more.bin", 5)).status, 200)
        assert not putting.done(), "the others were served only after the body"
        check("PUT", (await putting).status, 201)
    assert (await get(large.get)).body == body


# Gone and back -------------------------------------------------------------------------------------------------------

@test(deadline=120)
async def read_only_and_back(case):
    up, store = await on_small_disk(case, 8 * MIB, min_free_space=0, expire_interval=1, expire_maxage=3600)
    romeo = await case.client()
    kept, late = await romeo.slot("kept.bin", 5), await romeo.slot("late.bin", 5)
    check("PUT", (await put(kept.put, b"hello")).status, 201)
    await mounts(up, "mount", "-o", "remount,ro", up.store)
    since = up.mark()
    for _ in range(5):
        check("PUT to what is read-only", (await put(late.put, b"world")).status, 503)
        check("GET", (await get(kept.get)).body, b"hello")
        await romeo.slot("more.bin", 5)
    check("complaints", len(said(up, "ERROR ", since)), 1)
    await mounts(up, "mount", "-o", "remount,rw", up.store)
    check("PUT when it can be written again", (await put(late.put, b"world")).status, 201)
    check("GET", (await get(late.get)).body, b"world")
    check("that is said", len(said(up, "store works again", since)), 1)

    # Many files expire while it is read-only: one complaint, and they go when they can.
    folder = store / owner_folder("old@montague.example") / "random"
    folder.mkdir(parents=True)
    for number in range(30):
        (folder / f"{number}.bin").write_bytes(b"old")
        os.utime(folder / f"{number}.bin", (1_600_000_000, 1_600_000_000))
    await mounts(up, "mount", "-o", "remount,ro", up.store)
    left = len(list(folder.iterdir())) if folder.exists() else 0
    if left:
        since = up.mark()
        for _ in range(2):
            await up.line("sweep done", up.mark())
        assert len(said(up, "WARN  file not removed", since)) <= 1, said(up, "WARN ", since)
    await mounts(up, "mount", "-o", "remount,rw", up.store)
    await until(lambda: not folder.parent.exists(), "what has expired gone")
    check("GET", (await get(kept.get)).body, b"hello")


@test(deadline=120)
async def a_folder_that_is_mounted_over_and_back(case):
    """What stands at `storage_path` is what is served, without a restart and without a false 404."""
    up, store = await on_small_disk(case, 8 * MIB, min_free_space=0, user_quota_hard=10_000)
    romeo = await case.client()
    body = content(8000)
    first, second = await romeo.slot("first.bin", len(body)), await romeo.slot("second.bin", 2000)
    check("PUT", (await put(first.put, body)).status, 201)

    # One that is under way stays whole, or is refused.
    raw = await case.raw(up)
    await raw.send_head("PUT", second.put, Content_Length=2000)
    await up.receiving(0)
    await mounts(up, "mount", "-t", "tmpfs", "none", up.store)
    # The owner has nothing there but what is under way, and all the rest of the quota.
    third = await asked_until_granted(romeo, "third.bin", 8000, first.get)
    check("PUT", (await put(third.put, content(8000, 3))).status, 201)
    check("GET of what is below", (await get(first.get)).status, 404)
    check("GET", (await get(third.get)).body, content(8000, 3))
    check("changes", len(said(up, "WARN  storage folder replaced")), 1)
    await raw.send(body[:2000])
    status, _ = await raw.head()
    check("PUT from one disk to another", status, 503)
    check("files", len(up.files(store)), 1)

    await mounts(up, "umount", "-l", up.store)
    # How things stand is looked at once a second at most.
    await asyncio.sleep(1.1)
    check("the first GET of what is there again", (await get(first.get)).body, body)
    check("GET of what has gone", (await get(third.get)).status, 404)
    refusal = await romeo.refusal("large.bin", 2001)
    check("error", refusal.condition, "resource-constraint")
    check("PUT again", (await put(second.put, body[:2000])).status, 201)
    check("GET", (await get(second.get)).body, body[:2000])
    check("files", len(up.files(store)), 2)


async def asked_until_granted(romeo, name, size, missing):
    """A slot that is granted once the program has seen that another folder is in place, which a request for what is
    not there makes it see."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        await get(missing + "-not-there")
        with contextlib.suppress(Exception):
            return await romeo.slot(name, size)
    raise AssertionError("the new folder was not seen")


@test(deadline=120)
async def a_folder_that_is_removed_and_made_anew(case):
    up = await case.upslot(api={"port": free_port()})
    romeo = await case.client()
    slots = [await romeo.slot(f"{number}.bin", 5) for number in range(7)]
    check("PUT", (await put(slots[0].put, b"hello")).status, 201)
    shutil.rmtree(up.store)
    since = up.mark()
    for slot in slots[1:]:
        check("PUT without a folder", (await put(slot.put, b"world")).status, 503)
        check("GET without a folder", (await get(slots[0].get)).status, 404)
    check("complaints", len(said(up, "ERROR ", since)), 1)
    check("what it names", len(said(up, rf"ERROR store failed .*storage folder {re.escape(str(up.store))} was removed", since)), 1)
    check("health", (await health(up))[0], 503)
    await romeo.slot("link.bin", 5)
    up.store.mkdir()
    # Nobody uploads, and still it is taken.
    await up.line("storage folder replaced", since)
    await up.line("store works again", since)
    check("health", (await health(up))[0], 200)
    for slot in slots[1:]:
        check("PUT", (await put(slot.put, b"world")).status, 201)
    check("GET", (await get(slots[1].get)).body, b"world")
    check("files", len(up.files()), 6)
