"""Failing system calls: a status for the client, one line in the log, no partial file, and recovery.

strace makes the calls fail."""

import asyncio
import itertools
import os
import platform
import re
import signal
import urllib.parse

from harness import (ACCOUNTS, KIB, LONG, MIB, PATIENCE, Faults, check, content, free_port, get, health, owner_folder,
                     port_open, put, quiet_upslot, request_slot, slot_from_api, test, until, with_mounted_store)


STATUS = {"ENOSPC": 507, "EDQUOT": 507, "EIO": 503, "EROFS": 503, "EMFILE": 503, "ENOMEM": 503}
# The calls of an upload that access the disk, and their possible errors.
MAY_FAIL = {
    "openat": ["ENOSPC", "EIO", "EMFILE", "EDQUOT", "EROFS", "ENOMEM"],
    "openat2": ["EIO", "EMFILE", "ENOMEM"],
    "write": ["ENOSPC", "EIO", "EDQUOT", "EROFS"],
    "fsetxattr": ["ENOSPC", "EIO", "EDQUOT"],
    "mkdirat": ["ENOSPC", "EIO", "EDQUOT", "EROFS", "ENOMEM"],
    "linkat": ["ENOSPC", "EIO", "EDQUOT", "EROFS", "ENOMEM"],
    "fsync": ["ENOSPC", "EIO", "EDQUOT"],
}
HELPER_THREAD_CALLS = ("fsync",)


async def every_call_fails_once(case, up):
    """Lets each call of an upload fail once with each error: the upload is refused, leaves nothing behind, uses no quota,
    and succeeds when it is repeated."""
    body = content(6000)
    owners = (f"u{number}@montague.example" for number in itertools.count())

    async def new_slot():
        owner = next(owners)
        return owner, await slot_from_api(up, "a b.bin", len(body), owner, content_type="image/x-thing")

    # The first upload starts the helper thread.
    _, slot = await new_slot()
    check("first PUT", (await put(slot.put, body)).status, 201)
    _, slot = await new_slot()
    async with Faults(case, up, trace=MAY_FAIL) as clean:
        check("clean PUT", (await put(slot.put, body)).status, 201)
    counts = {call: sum(bool(re.match(rf"\d+\s+{call}\(", line)) for line in clean.calls) for call in MAY_FAIL}
    # The helper thread also writes, to wake the loop.
    counts["write"] = sum(bool(re.match(rf"{up.process.pid}\s+write\(", line)) for line in clean.calls)
    for call in MAY_FAIL:
        assert counts[call] >= 1, f"{call} was not seen: {clean.calls}"

    tried = 0
    for call, errors in MAY_FAIL.items():
        for error, number in itertools.product(errors, range(1, counts[call] + 1)):
            what = f"PUT when {call} number {number} fails with {error}"
            owner, slot = await new_slot()
            before = up.files()
            async with Faults(case, up, f"{call}:error={error}:when={number}",
                              threads=call in HELPER_THREAD_CALLS) as faults:
                check(what, (await put(slot.put, body)).status, STATUS[error])
            assert any("(INJECTED)" in line for line in faults.calls), f"{what}: no call failed, {faults.calls}"
            check(f"GET after a {what}", (await get(slot.get)).status, 404)
            check(f"tree after a {what}", up.files(), before)
            check(f"leftovers of a {what}", up.leftovers(), [])
            # The quota of 10,000 bytes allows these 6,000 only if the failed upload uses nothing, and then exactly 4,000.
            check(f"repeated {what}", (await put(slot.put, body)).status, 201)
            reply = await get(slot.get)
            check(f"stored by a repeated {what}", (reply.body, reply.headers["Content-Type"]),
                  (body, "image/x-thing"))
            check("slot that fits", (await request_slot(up, "b", 4000, owner)).status, 200)
            check("slot over the quota", (await request_slot(up, "b", 4001, owner)).status, 403)
            tried += 1
    return tried


@test(servers=(None,), deadline=300)
async def every_call_of_an_upload_fails_once(case):
    up = await quiet_upslot(case, user_quota_hard=10_000)
    tried = await every_call_fails_once(case, up)
    assert tried >= 20, f"only {tried} errors were tried"


def hide_unnamed_files(case, up):
    """Makes the file system look as if it had no O_TMPFILE. The program tests that by its first `openat` in the store on
    machines that have the call `open`, elsewhere by its second."""
    number = 1 if platform.machine() == "x86_64" else 2
    up.wrapper = ["strace", "-D", "-I1", "-qq", "-o", case.folder / "start.out", "-P", up.store,
                  "-e", "trace=openat", "-e", f"inject=openat:error=EOPNOTSUPP:when={number}", "--"]


@test(servers=(None,), deadline=300)
async def without_unnamed_files(case):
    up = await quiet_upslot(case, start=False, user_quota_hard=10_000)
    hide_unnamed_files(case, up)
    await up.start_quietly()
    assert up.logged("store open .*temporary names"), up.logged("store open")
    # A process can have only one tracer.
    await until(lambda: tracer(up) != 0, "the tracer")
    os.kill(tracer(up), signal.SIGTERM)
    await until(lambda: tracer(up) == 0, "the end of the tracer")
    tried = await every_call_fails_once(case, up)
    assert tried >= 20, f"only {tried} errors were tried"
    # A client that disconnects.
    slot = await slot_from_api(up, "broken.bin", 5000, "broken@montague.example")
    raw = await case.raw(up)
    await raw.send_head("PUT", slot.put, Content_Length=5000)
    await raw.send(content(4000))
    await until(up.leftovers, "the temporary name")
    before = up.files()
    raw.close()
    await until(lambda: not up.leftovers(), "the removal of the temporary name")
    check("files and folders", up.files(), before)


def tracer(up):
    """The process that traces the program, or 0."""
    return int(re.search(r"TracerPid:\s+(\d+)", up.status())[1])


@test(servers=(None,))
async def without_extended_attributes(case):
    up = await quiet_upslot(case)
    slot = await slot_from_api(up, "image.png", 5, content_type="image/x-thing")
    async with Faults(case, up, "fsetxattr:error=EOPNOTSUPP") as faults:
        check("PUT", (await put(slot.put, b"hello")).status, 201)
    assert any("(INJECTED)" in line for line in faults.calls), faults.calls
    reply = await get(slot.get)
    check("type by the file name", (reply.body, reply.headers["Content-Type"]), (b"hello", "image/png"))


OTHER_FILE_SYSTEMS = {
    # It reports no size and keeps no extended attributes.
    "ramfs": 'mount -t ramfs none "$store"',
    "overlay": 'mount -t tmpfs none "$store"; mkdir "$store/low" "$store/up" "$store/work"; '
               'mount -t overlay -o "lowerdir=$store/low,upperdir=$store/up,workdir=$store/work" none "$store"',
}


@test(servers=(None,))
async def ramfs_and_overlay(case):
    for kind, mount in OTHER_FILE_SYSTEMS.items():
        up, store = await with_mounted_store(case, mount, api=True, user_quota_hard=MIB)
        for number in range(3):
            body = content(200 * KIB, number)
            slot = await slot_from_api(up, f"{number}.png", len(body))
            check(f"PUT on {kind}", (await put(slot.put, body)).status, 201)
            check(f"second PUT on {kind}", (await put(slot.put, body)).status, 409)
            reply = await get(slot.get)
            assert (reply.status, reply.headers["Content-Type"]) == (200, "image/png") and reply.body == body
        check(f"files on {kind}", len(up.files(store)), 3)
        check(f"slot over the quota on {kind}", (await request_slot(up, "more", MIB - 600 * KIB + 1)).status, 403)


@test(deadline=120)
async def many_uploads_while_syncing_fails(case):
    """While syncing fails, no upload gets 201, one line is logged, everything else works, and recovery is automatic."""
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
    check("log lines", len(up.logged("ERROR ", since)), 1)
    assert not up.logged("store recovered", since)
    # Without any upload, the probe finds that the disk works.
    await up.line("INFO  store recovered", since)
    check("health", (await health(up))[0], 200)
    for slot in slots:
        check("PUT again", (await put(slot.put, body)).status, 201)
    check("log lines", (len(up.logged("ERROR ", since)), len(up.logged("store recovered", since))), (1, 1))
    check("link", up.logged("link (up|down)", since), [])
    # Exactly the 41 files count towards the quota.
    left = 10 * MIB - 41 * len(body)
    await romeo.slot("fits.bin", left)
    refusal = await romeo.refusal("large.bin", left + 1)
    check("error", refusal.condition, "resource-constraint")


@test(servers=(None,))
async def alternating_failures_are_logged_once(case):
    """The log has one line for the failure and one for the recovery, not one per upload."""
    up = await case.upslot(api={"port": free_port()})
    slots = [await slot_from_api(up, f"{number}.bin", 5000) for number in range(30)]
    # The first upload syncs more folders than the others.
    check("PUT", (await put((await slot_from_api(up, "first.bin", 5000)).put, content(5000))).status, 201)
    # Every second upload fails: one syncs a file, the next a file and two folders.
    async with Faults(case, up, "fsync:error=EIO:when=1+4"):
        statuses = [(await put(slot.put, content(5000))).status for slot in slots]
    check("statuses", statuses, [503, 201] * 15)
    check("log lines", (len(up.logged("ERROR ")), len(up.logged("store recovered"))), (1, 1))
    check("files", len(up.files()), 16)


@test(servers=(None,))
async def failed_batch_sync_falls_back_to_single_files(case):
    """Many files are synced by one call; if that fails, each file is synced on its own."""
    up = await case.upslot(api={"port": free_port()})
    slots = [await slot_from_api(up, f"{number}.bin", 5000) for number in range(24)]
    async with Faults(case, up, "syncfs:error=EIO", trace=("fsync",)) as faults:
        replies = await asyncio.gather(*(put(slot.put, content(5000)) for slot in slots))
    check("statuses", {reply.status for reply in replies}, {201})
    assert any("syncfs(" in line for line in faults.calls), "no call synced several files"
    check("errors in the log", up.logged("ERROR "), [])


@test(servers=(None,))
async def write_error_within_a_body(case):
    """The disk fails within the body: the client can read the reason although it has not sent everything."""
    up = await quiet_upslot(case)
    body = content(3 * MIB)
    slot = await slot_from_api(up, "big.bin", len(body))
    raw = await case.raw(up)
    await raw.send_head("PUT", slot.put, Content_Length=len(body))
    await raw.send(body[:MIB])
    await up.receiving(MIB)
    async with Faults(case, up, "write:error=EIO:when=1", threads=False):
        await raw.send(body[MIB:])
        check("PUT", (await raw.head())[0], 503)
    check("files and folders", up.files(), set())
    check("leftovers", up.leftovers(), [])
    check("PUT again", (await put(slot.put, body)).status, 201)
    assert (await get(slot.get)).body == body


@test(servers=(None,))
async def read_errors(case):
    """A file that cannot be read is not reported as missing; a download that fails is cut off, never padded."""
    up = await case.upslot(api={"port": free_port()})
    body, small = content(8 * MIB), content(5000)
    large_slot, small_slot = await slot_from_api(up, "l.bin", len(body)), await slot_from_api(up, "s.bin", len(small))
    check("PUT", (await put(large_slot.put, body)).status, 201)
    check("PUT", (await put(small_slot.put, small)).status, 201)
    since = up.mark()
    async with Faults(case, up, "openat2:error=EIO"):
        for _ in range(20):
            reply = await get(large_slot.get)
            check("GET", (reply.status, reply.headers["Retry-After"] is not None), (503, True))
    check("log lines about opening", len(up.logged("WARN |ERROR ", since)), 1)
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
        check("answer without content", await asyncio.wait_for(raw.reader.read(-1), PATIENCE), b"")
    check("log lines", len(up.logged("WARN |ERROR ", since)), 1)
    # Both are served as soon as they can be read.
    assert (await get(large_slot.get)).body == body
    check("GET", (await get(small_slot.get)).body, small)


@test(servers=(None,), deadline=200)
async def quota_holds_while_counting_fails(case):
    """A folder that cannot be listed does not lift the quota; the usage is right as soon as it can be listed."""
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
                reply = await request_slot(up, "new.bin", 50_000, owner)
                check(f"slot when {rule}", reply.status, 503)
        assert any("(INJECTED)" in line for line in faults.calls), faults.calls
        assert len(up.logged("ERROR |WARN ", since)) <= 1, up.logged("ERROR |WARN ", since)
        check("slot over the quota", (await request_slot(up, "new.bin", 40_001, owner)).status, 403)
        check("slot that fits", (await request_slot(up, "new.bin", 40_000, owner)).status, 200)


@test(servers=(None,), deadline=60 if not LONG else 240)
async def failed_store_count_is_repeated(case):
    """`global_quota` needs the size of the whole store. If counting fails at the start, it is repeated later."""
    up = await case.upslot(start=False, api={"port": free_port()}, global_quota=100_000)
    folder = up.store / owner_folder(ACCOUNTS[1]) / "random"
    folder.mkdir(parents=True)
    (folder / "old.bin").write_bytes(bytes(90_000))
    up.wrapper = ["strace", "-D", "-qq", "-o", case.folder / "start.out", "-P", folder.parent,
                  "-e", "trace=getdents64", "-e", "inject=getdents64:error=EIO:when=1", "--"]
    await up.start()
    await up.line("WARN  store not counted")
    assert not up.logged("store counted"), up.logged("store counted")
    check("slot", (await request_slot(up, "a", 20_000)).status, 200)
    if LONG:
        await up.line("store counted files=1 bytes=90000", timeout=120)
        check("slot over the quota", (await request_slot(up, "a", 20_000)).status, 507)
        check("slot that fits", (await request_slot(up, "a", 10_000)).status, 200)


@test(servers=(None,))
async def folder_removed_before_publication(case):
    """The sweep of another node removes the slot's folder between its creation and the publication of the file."""
    up = await quiet_upslot(case, user_quota_hard=100_000)
    body = content(5000)
    slot = await slot_from_api(up, "a.bin", len(body))
    folder = up.store / "/".join(urllib.parse.urlsplit(slot.get).path.split("/")[2:4])
    async with Faults(case, up, "linkat:delay_enter=1500000:when=1", threads=False) as faults:
        putting = case.background(put(slot.put, body))
        await until(folder.is_dir, "the slot's folder")
        folder.rmdir()
        folder.parent.rmdir()
        check("PUT", (await putting).status, 201)
    check("attempts", sum("linkat(" in line for line in faults.calls), 2)
    check("GET", (await get(slot.get)).body, body)
    check("files and folders", len(up.files()), 1)


@test(servers=(None,))
async def log_cannot_be_written(case):
    """The disk of the log file is full: everything else works."""
    up = await case.upslot(start=False, api={"port": free_port()}, log_level="debug")
    up.arguments += ["-l", "/dev/full"]
    await up.spawn()
    await port_open(up.settings["api"]["port"], up.process)
    slot = await slot_from_api(up, "a.bin", 5)
    check("PUT", (await put(slot.put, b"hello")).status, 201)
    check("GET", (await get(slot.get)).body, b"hello")
    check("exit code", await up.process.stop(), 0)
