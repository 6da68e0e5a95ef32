"""A disk that is full. The store is a small tmpfs in a mount namespace of upslot's own, so that nothing stays mounted;
who is not root takes a user namespace as well."""

import asyncio
import os
from pathlib import Path

from harness import ACCOUNTS, KIB, MIB, check, content, get, put, test


async def on_small_disk(case, size, **settings):
    """An upslot whose store has so many bytes; also the store as seen from here."""
    unshare = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-Urm"]
    script = f'store="$1"; shift; mount -t tmpfs -o size={size} none "$store" && exec "$@"'
    up = await case.upslot(start=False, **settings)
    up.wrapper = [*unshare, "sh", "-c", script, "sh", up.store]
    await up.start()
    return up, Path(f"/proc/{up.process.pid}/root{up.store}")


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
    check("files and folders", len(up.files(store)), 1)
    assert not task.done() and tally, f"downloads of others suffered: {task}"
    small = await benvolio.slot("small.bin", 100 * KIB)
    check("PUT that fits", (await put(small.put, content(100 * KIB))).status, 201)

    # A download under way would hold its file, and the room, open.
    enough.set()
    await task
    for path in up.files(store):
        (store / path).unlink()
    check("PUT when there is room again", (await put(second.put, body)).status, 201)
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
    # As much as there is, until the disk says no.
    with open(filler, "wb", buffering=0) as file:
        try:
            while file.write(bytes(64 * KIB)):
                pass
        except OSError:
            pass
    await raw.send(body[2 * MIB:])
    check("PUT", (await raw.head())[0], 507)
    filler.unlink()
    check("files and folders", up.files(store), set())
    check("PUT again", (await put(slot.put, body)).status, 201)
    assert (await get(slot.get)).body == body


@test()
async def free_space_is_left(case):
    await on_small_disk(case, 8 * MIB, min_free_space=6 * MIB)
    romeo = await case.client()
    await romeo.slot("fits.bin", MIB)
    refusal = await romeo.refusal("large.bin", 3 * MIB)
    check("error", (refusal.type, refusal.condition), ("wait", "resource-constraint"))
