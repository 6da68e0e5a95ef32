"""A slow disk, and a storage folder that becomes read-only, is covered by a mount, or is removed while upslot runs."""

import asyncio
import contextlib
import os
import re
import shutil

from slixmpp.exceptions import IqError

from harness import (KIB, MIB, Faults, check, content, free_port, get, health, nsenter, owner_folder, put, quiet_upslot,
                     request_slot, slot_from_api, test, until, with_small_store)


@test(deadline=120)
async def slow_sync_delays_only_its_upload(case):
    """Only the upload whose file is being synced waits for it."""
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
        check("health", (await health(up))[0], 200)
        check("GET before the file is synced", (await get(second.get)).status, 404)
        assert not putting.done(), "201 before the file was synced"
        check("PUT", (await putting).status, 201)
    assert any("(DELAYED)" in line for line in faults.calls), faults.calls
    check("GET", (await get(second.get)).body, body)


@test(servers=(None,), deadline=120)
async def slow_writes_do_not_block_others(case):
    """Small requests are answered while a large body is written slowly."""
    up = await quiet_upslot(case, fsync=False)
    body = content(6 * MIB)
    small, large = await slot_from_api(up, "small.bin", 5), await slot_from_api(up, "large.bin", len(body))
    check("PUT", (await put(small.put, b"hello")).status, 201)
    async with Faults(case, up, "write:delay_enter=150000", threads=False):
        putting = case.background(put(large.put, body))
        await up.receiving(64 * KIB)
        for _ in range(3):
            check("GET", (await get(small.get)).body, b"hello")
        check("slot", (await request_slot(up, "more.bin", 5)).status, 200)
        assert not putting.done(), "the other requests were answered only after the upload"
        check("PUT", (await putting).status, 201)
    assert (await get(large.get)).body == body


@test(deadline=120)
async def read_only_and_back(case):
    up, store = await with_small_store(case, 8 * MIB, min_free_space=0, expire_interval=1, expire_maxage=3600)
    romeo = await case.client()
    kept, late = await romeo.slot("kept.bin", 5), await romeo.slot("late.bin", 5)
    check("PUT", (await put(kept.put, b"hello")).status, 201)
    await nsenter(up, "mount", "-o", "remount,ro", up.store)
    since = up.mark()
    for _ in range(5):
        check("PUT to the read-only store", (await put(late.put, b"world")).status, 503)
        check("GET", (await get(kept.get)).body, b"hello")
        await romeo.slot("more.bin", 5)
    check("errors in the log", len(up.logged("ERROR ", since)), 1)
    await nsenter(up, "mount", "-o", "remount,rw", up.store)
    check("PUT to the writable store", (await put(late.put, b"world")).status, 201)
    check("GET", (await get(late.get)).body, b"world")
    check("recovery in the log", len(up.logged("store recovered", since)), 1)

    # Many files expire while the store is read-only: one warning, and they are deleted as soon as possible.
    folder = store / owner_folder("old@montague.example") / "random"
    folder.mkdir(parents=True)
    for number in range(30):
        (folder / f"{number}.bin").write_bytes(b"old")
        os.utime(folder / f"{number}.bin", (1_600_000_000, 1_600_000_000))
    await nsenter(up, "mount", "-o", "remount,ro", up.store)
    left = len(list(folder.iterdir())) if folder.exists() else 0
    if left:
        since = up.mark()
        for _ in range(2):
            await up.line("sweep done", up.mark())
        assert len(up.logged("WARN  file not removed", since)) <= 1, up.logged("WARN ", since)
    await nsenter(up, "mount", "-o", "remount,rw", up.store)
    await until(lambda: not folder.parent.exists(), "the deletion of the expired files")
    check("GET", (await get(kept.get)).body, b"hello")


@test(deadline=120)
async def mounted_over_and_back(case):
    """The folder that is at `storage_path` now is used, without a restart and without a wrong 404."""
    up, store = await with_small_store(case, 8 * MIB, min_free_space=0, user_quota_hard=10_000)
    romeo = await case.client()
    body = content(8000)
    first, second = await romeo.slot("first.bin", len(body)), await romeo.slot("second.bin", 2000)
    check("PUT", (await put(first.put, body)).status, 201)

    # A running upload is refused, and never stored in part.
    raw = await case.raw(up)
    await raw.send_head("PUT", second.put, Content_Length=2000)
    await up.receiving(0)
    await nsenter(up, "mount", "-t", "tmpfs", "none", up.store)
    # The owner has no files in the new folder, only the running upload.
    third = await until_granted(romeo, "third.bin", 8000, first.get)
    check("PUT", (await put(third.put, content(8000, 3))).status, 201)
    check("GET of a file below the mount", (await get(first.get)).status, 404)
    check("GET", (await get(third.get)).body, content(8000, 3))
    check("warnings", len(up.logged("WARN  storage folder replaced")), 1)
    await raw.send(body[:2000])
    status, _ = await raw.head()
    check("PUT begun in the other folder", status, 503)
    check("files", len(up.files(store)), 1)

    await nsenter(up, "umount", "-l", up.store)
    # The folder is checked once a second at most.
    await asyncio.sleep(1.1)
    check("first GET from the uncovered folder", (await get(first.get)).body, body)
    check("GET of a file of the unmounted folder", (await get(third.get)).status, 404)
    refusal = await romeo.refusal("large.bin", 2001)
    check("error", refusal.condition, "resource-constraint")
    check("PUT again", (await put(second.put, body[:2000])).status, 201)
    check("GET", (await get(second.get)).body, body[:2000])
    check("files", len(up.files(store)), 2)


async def until_granted(romeo, name, size, url):
    """Waits for a slot in the new folder. A request for a missing file makes the program check the folder."""

    async def granted():
        await get(url + "-missing")
        with contextlib.suppress(IqError):
            return await romeo.slot(name, size)

    return await until(granted, "a slot in the new folder")


@test(deadline=120)
async def removed_and_created_again(case):
    up = await case.upslot(api={"port": free_port()})
    romeo = await case.client()
    slots = [await romeo.slot(f"{number}.bin", 5) for number in range(7)]
    check("PUT", (await put(slots[0].put, b"hello")).status, 201)
    shutil.rmtree(up.store)
    since = up.mark()
    for slot in slots[1:]:
        check("PUT without a folder", (await put(slot.put, b"world")).status, 503)
        check("GET without a folder", (await get(slots[0].get)).status, 404)
    check("errors in the log", len(up.logged("ERROR ", since)), 1)
    removed = rf"ERROR store failed .*storage folder {re.escape(str(up.store))} was removed"
    check("errors that name the folder", len(up.logged(removed, since)), 1)
    check("health", (await health(up))[0], 503)
    await romeo.slot("link.bin", 5)
    up.store.mkdir()
    # The new folder is found without any upload.
    await up.line("storage folder replaced", since)
    await up.line("store recovered", since)
    check("health", (await health(up))[0], 200)
    for slot in slots[1:]:
        check("PUT", (await put(slot.put, b"world")).status, 201)
    check("GET", (await get(slots[1].get)).body, b"world")
    check("files", len(up.files()), 6)
