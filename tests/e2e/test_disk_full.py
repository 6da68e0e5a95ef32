"""A full disk: no bytes, no inodes, no quota, and limits that look like it.

Where a mount is needed, the store is a file system in a mount namespace of upslot's own. strace makes calls fail."""

import asyncio
import contextlib
import os
import re

from harness import (ACCOUNTS, KIB, MIB, NAMESPACES, Faults, check, content, fill, free_port, get, health, metric, nsenter,
                     put, refusal_of, request_slot, run, slot_from_api, slot_request, test, until, until_slots_are,
                     with_mounted_store, with_small_store)


async def until_stored(slot, body):
    """Repeats an upload until the disk is no longer full."""

    async def stored():
        status = (await put(slot.put, body)).status
        assert status in (201, 507), status
        return status == 201

    await until(stored, "an upload with free space")


@test(deadline=120)
async def full_disk(case):
    up, store = await with_small_store(case, 8 * MIB, min_free_space=0)
    romeo, benvolio = await case.client(ACCOUNTS[0]), await case.client(ACCOUNTS[1])
    body = content(5 * MIB)
    # Each of them fits when the slots are granted, but not both.
    first, second = await romeo.slot("first.bin", len(body)), await benvolio.slot("second.bin", len(body))
    check("first PUT", (await put(first.put, body)).status, 201)

    statuses, stop = [], asyncio.Event()

    async def downloads():
        while not stop.is_set():
            reply = await get(first.get)
            assert reply.status == 200 and reply.body == body, f"a download failed: {reply.status}"
            statuses.append(reply.status)

    task = case.background(downloads())
    for _ in range(3):
        check("PUT to the full disk", (await put(second.put, body)).status, 507)
        check("GET of it", (await get(second.get)).status, 404)
    check("errors in the log", len(up.logged("ERROR store failed")), 1)
    check("files and folders", len(up.files(store)), 1)
    assert not task.done() and statuses, f"downloads of another file failed: {task}"
    small = await benvolio.slot("small.bin", 100 * KIB)
    check("PUT that fits", (await put(small.put, content(100 * KIB))).status, 201)

    # A running download would keep its file open, and so the space in use.
    stop.set()
    await task
    for path in up.files(store):
        (store / path).unlink()
    # A file that was often requested stays open for up to a second.
    await until_stored(second, body)
    assert (await get(second.get)).body == body


@test()
async def disk_fills_during_an_upload(case):
    up, store = await with_small_store(case, 8 * MIB, min_free_space=0)
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


@test()
async def min_free_space_is_kept(case):
    await with_small_store(case, 8 * MIB, min_free_space=6 * MIB)
    romeo = await case.client()
    await romeo.slot("fits.bin", MIB)
    refusal = await romeo.refusal("large.bin", 3 * MIB)
    check("error", (refusal.type, refusal.condition), ("wait", "resource-constraint"))


@test()
async def no_inodes_left(case):
    """Without inodes the disk is full: for uploads at once, for slots as soon as upslot has noticed it."""
    up, store = await with_small_store(case, 8 * MIB, ",nr_inodes=24", min_free_space=KIB)
    romeo = await case.client()
    late = await romeo.slot("late.txt", 5)
    with contextlib.suppress(OSError):
        for number in range(24):
            (store / f"taken-{number}").touch(exist_ok=False)
    check("PUT", (await put(late.put, b"hello")).status, 507)

    async def refused():
        answer = await romeo.ask(slot_request(NAMESPACES[0], "more.txt", 5))
        return answer if answer.get("type") == "error" else None

    # Free space and inodes are read once a second.
    refusal = refusal_of(await until(refused, "a refused slot"))
    check("error", refusal.condition, "resource-constraint")
    for path in store.glob("taken-*"):
        path.unlink()
    check("files and folders", up.files(store), set())
    await until_stored(late, b"hello")
    check("GET", (await get(late.get)).body, b"hello")


@test(servers=(None,))
async def short_writes_are_continued(case):
    """The disk is full after a part of a write; there is space again before the next write."""
    up, store = await with_small_store(case, 4 * MIB, min_free_space=0, api=True, log_level="info")
    body = content(700 * KIB)
    for attempt in range(5):
        slot = await slot_from_api(up, f"part-{attempt}.bin", len(body))
        raw = await case.raw(up)
        await raw.send_head("PUT", slot.put, Content_Length=len(body))
        # Not a multiple of a page, so that the disk becomes full within a write.
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
            # The disk was still full at the next write.
            continue
        check("PUT", status, 201)
        reply = await get(slot.get)
        assert reply.body == body, f"the {len(reply.body)} bytes of the download differ"
        for path in up.files(store):
            (store / path).unlink()
        writes = [re.search(r"(\d+)\)?\s+= (\d+) \(DELAYED\)", line) for line in faults.calls]
        if any(found and int(found[2]) < int(found[1]) for found in writes):
            return
    raise AssertionError("no short write: " + "\n".join(faults.calls))


@test(servers=(None,))
async def file_size_limit_of_the_process(case):
    """`ulimit -f`: at this limit the kernel sends SIGXFSZ, which must not end the process."""
    up = await case.upslot(start=False, api={"port": free_port()})
    up.wrapper = ["prlimit", f"--fsize={MIB}"]
    await up.start()
    slot = await slot_from_api(up, "large.bin", 2 * MIB)
    check("PUT over the limit", (await put(slot.put, content(2 * MIB))).status, 507)
    check("files and folders", up.files(), set())
    check("leftovers", up.leftovers(), [])
    small = await slot_from_api(up, "small.bin", 5)
    check("PUT within the limit", (await put(small.put, b"hello")).status, 201)
    check("GET", (await get(small.get)).body, b"hello")


# Inodes and quotas ---------------------------------------------------------------------------------------------------

async def check_full(up, size, name="more.bin"):
    """Slots of this size are refused; metrics and health give the reason."""
    refused = await metric(up, 'slot_refusals_total{reason="free_space"}') or 0
    check("slot", (await request_slot(up, name, size)).status, 507)
    check("refusals", await metric(up, 'slot_refusals_total{reason="free_space"}'), refused + 1)
    check("health", await health(up), (503, "link none\nstore full\n"))


async def until_recovered(up, size):
    """Waits until slots are granted again, which needs no action of an operator."""
    await until_slots_are(200, up, size)
    check("health", await health(up), (200, "link none\nstore good\n"))


@test(servers=(None,))
async def slots_are_refused_before_inodes_run_out(case):
    """The last inodes are reserved for slots that were already granted."""
    up, store = await with_small_store(case, 8 * MIB, ",nr_inodes=400", api=True, min_free_space=0)
    granted = await slot_from_api(up, "granted.bin", 5)
    free = await metric(up, "free_inodes")
    check("free inodes", free, float(os.statvfs(store).f_favail))
    for number in range(int(free) - 5):
        (store / f"taken-{number}").touch(exist_ok=False)

    async def almost_none():
        return await metric(up, "free_inodes") == 5

    await until(almost_none, "five free inodes in the metrics")
    await check_full(up, 5)
    check("warnings", len(up.logged("WARN  few inodes left")), 1)
    check("PUT", (await put(granted.put, b"hello")).status, 201)
    check("GET", (await get(granted.get)).body, b"hello")
    check("errors in the log", up.logged("ERROR "), [])
    for path in store.glob("taken-*"):
        path.unlink()
    await until_recovered(up, 5)
    check("PUT", (await put((await slot_from_api(up, "a", 5)).put, b"hello")).status, 201)


@test(servers=(None,), deadline=200)
async def no_slots_while_nothing_can_be_stored(case):
    """If any call of an upload finds no space, slots are refused until a file and a folder can be created again."""
    up = await case.upslot(api={"port": free_port()}, min_free_space=0)
    for rule in ("mkdirat:error=ENOSPC", "mkdirat:error=EDQUOT", "openat:error=EDQUOT", "write:error=EDQUOT",
                 "fsync,syncfs:error=EDQUOT"):
        late = await slot_from_api(up, "late.bin", 20_000)
        since = up.mark()
        async with Faults(case, up, rule, threads="fsync" in rule):
            check(f"PUT with {rule}", (await put(late.put, content(20_000))).status, 507)
            await check_full(up, 20_000)
            # The probe fails as well, so that not even the smallest file gets a slot.
            await until_slots_are(507, up, 1)
            await check_full(up, 1)
            check(f"PUT with {rule}", (await put(late.put, content(20_000))).status, 507)
        await until_recovered(up, 20_000)
        # The log itself needs the call `write`.
        errors = 0 if rule.startswith("write") else 1
        check(f"log lines with {rule}",
              (len(up.logged("ERROR ", since)), len(up.logged("store recovered", since))), (errors, 1))
        check("PUT", (await put(late.put, content(20_000))).status, 201)
        check("leftovers", up.leftovers(), [])


@test(servers=(None,), deadline=200)
async def file_system_quota(case):
    """A quota of btrfs, which reports no inodes. What still fits is still accepted."""
    image = case.folder / "image"
    with open(image, "wb") as file:
        file.truncate(128 * MIB)
    check("mkfs", (await run(["mkfs.btrfs", "-q", image])).code, 0)
    mount = f"""mount -o loop "{image}" "$store"; cd "$store"
        {{ btrfs quota enable . && btrfs subvolume create files && btrfs qgroup limit 8M files; }} > /dev/null
        cd /; mount --bind "$store/files" "$store" """
    up, store = await with_mounted_store(case, mount, api=True, min_free_space=0)
    check("number of inodes", (os.statvfs(store).f_files, await metric(up, "free_inodes")), (0, None))
    body = content(5 * MIB)
    first, second = await slot_from_api(up, "first.bin", len(body)), await slot_from_api(up, "second.bin", len(body))
    check("PUT", (await put(first.put, body)).status, 201)
    check("PUT over the quota", (await put(second.put, body)).status, 507)
    await check_full(up, len(body))
    # The probe shows that small files fit.
    await until_slots_are(200, up, 5000)
    await check_full(up, len(body))
    check("small PUT", (await put((await slot_from_api(up, "small.bin", 5000)).put, content(5000))).status, 201)
    await check_full(up, len(body))
    # The store exists only in upslot's mount namespace.
    await nsenter(up, os.environ["UPSLOT_BIN"], "-c", up.config, "remove", first.get)
    await until_recovered(up, len(body))
    check("PUT again", (await put(second.put, body)).status, 201)
    assert (await get(second.get)).body == body
    check("errors in the log", len(up.logged("ERROR ")), 1)