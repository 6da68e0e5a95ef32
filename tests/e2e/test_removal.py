"""`upslot remove` under difficult conditions: killed at any moment, with concurrent uploads, run by another user than
upslot, with several nodes, and on a full disk."""

import asyncio
import contextlib
import hashlib
import os
import random
import shutil

from harness import (ACCOUNTS, LONG, MIB, NOBODY, UNPRIVILEGED, Process, check, content, external_url, fill, free_port,
                     get, nsenter, open_folder, owner_folder, put, request_slot, run, slot_from_api, test,
                     with_mounted_store)

KEY = "it was the nightingale, and not the lark"
ROMEO = ACCOUNTS[0]


async def with_api(case, **settings):
    return await case.upslot(api={"port": free_port()}, log_level="info", external_secret=KEY, **settings)


def program(up):
    return os.environ["UPSLOT_BIN"], "-c", up.config


async def remove(up, *words, code=0, wrapper=()):
    ran = await run([*wrapper, *program(up), "remove", *words])
    assert ran.code == code, f"remove {words}: {ran}"
    return ran.out.decode() + ran.err


def tombstones(store):
    """The digests of all paths that may not be stored again."""
    found = set()
    for shard in (store / ".upslot" / "tombstones").glob("*"):
        data = shard.read_bytes()
        check(f"size of {shard.name}", len(data) % 16, 0)
        found |= {bytes.fromhex(shard.name) + data[at:at + 16] for at in range(0, len(data), 16)}
    return found


def tombstone(path):
    return hashlib.sha256(path.encode()).digest()[:17]


@test(servers=(None,), deadline=400 if LONG else 200)
async def killed_at_any_moment(case):
    """Each file is intact, or deleted and recorded; the next run completes the removal."""
    up = await with_api(case, user_quota_hard=10 * MIB, max_file_size=10 * MIB)
    chance, folder = random.Random(11), owner_folder(ROMEO)
    for attempt in range(12 if LONG else 2):
        paths = {f"{folder}/r{attempt}-{number}/{number}.bin": content(100 + number, number) for number in range(400)}
        for path, body in paths.items():
            (up.store / path).parent.mkdir(parents=True)
            (up.store / path).write_bytes(body)
        kills = 0
        while True:
            child = await asyncio.create_subprocess_exec(*map(str, program(up)), "remove", ROMEO,
                                                         stdout=asyncio.subprocess.DEVNULL,
                                                         stderr=asyncio.subprocess.DEVNULL)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(child.wait(), chance.uniform(0.01, 0.12) + 0.02 * kills)
            done = child.returncode is not None
            if not done:
                child.kill()
                await child.wait()
                kills += 1
            recorded = tombstones(up.store)
            for path, body in paths.items():
                if (up.store / path).exists():
                    assert (up.store / path).read_bytes() == body, f"{path} is damaged"
                else:
                    assert tombstone(path) in recorded, f"{path} is deleted and could be stored again"
            if done:
                check("exit code", child.returncode, 0)
                break
        assert kills, "the command was never killed"
        check("files", up.files(), set())
        output = await remove(up, ROMEO)
        assert "Nothing is stored of" in output, output
        for path, body in list(paths.items())[::80]:
            check("PUT again", (await put(external_url(up, path, len(body), KEY), body)).status, 409)
        # The whole quota is free.
        await slot_from_api(up, "a.bin", 10 * MIB)
    check("leftovers", sorted(set(up.leftovers()) - {f"{number:02x}" for number in range(256)}), ["removals"])


@test(servers=(None,), deadline=200)
async def concurrent_uploads(case):
    """After its end no file of an earlier slot is stored, whether the upload or the removal was faster."""
    up = await with_api(case, user_quota_hard=50 * MIB, max_file_size=50 * MIB, fsync=False)
    stored = refused = 0
    for attempt in range(30 if LONG else 10):
        slots = [await slot_from_api(up, "a.bin", 3000 + number) for number in range(60)]
        links = [external_url(up, f"{owner_folder(ROMEO)}/{attempt}-{number}/b.bin", 500, KEY) for number in range(5)]
        for link in links:
            check("PUT", (await put(link, content(500))).status, 201)

        async def upload(number, slot):
            await asyncio.sleep(number * 0.0005)
            return (await put(slot.put, content(3000 + number))).status

        putting = [asyncio.ensure_future(upload(number, slot)) for number, slot in enumerate(slots)]
        await asyncio.sleep(0.002 * attempt)
        await remove(up, ROMEO)
        check(f"files after removal {attempt}", up.files(), set())
        statuses = await asyncio.gather(*putting)
        assert set(statuses) <= {201, 403}, statuses
        stored, refused = stored + statuses.count(201), refused + statuses.count(403)
        check(f"files after all uploads of {attempt}", up.files(), set())
        for slot in slots:
            check("GET", (await get(slot.get)).status, 404)
        for link in links:
            check("PUT again", (await put(link, content(500))).status, 409)
        # A new slot works at once, and the whole quota is free.
        fresh = await slot_from_api(up, "a.bin", 50 * MIB)
        small = await slot_from_api(up, "a.bin", 5)
        check("PUT of a new slot", (await put(small.put, b"hello")).status, 201)
        assert fresh.put
    assert stored and refused, f"not concurrent: {stored} stored, {refused} refused"


@test(servers=(None,), deadline=120)
async def run_by_root(case):
    """Run by root, it leaves only files that the user of upslot can read; another user gets an error."""
    if os.geteuid() != 0:
        print("NOT TESTED: only root can run as another user")
        return
    with open_folder() as folder:
        up = await case.upslot(start=False, api={"port": free_port()}, log_level="info", external_secret=KEY,
                               wrapper=UNPRIVILEGED)
        binary = folder / "upslot"
        shutil.copy(os.environ["UPSLOT_BIN"], binary)
        up.store, up.config = folder / "store", folder / "config.yml"
        up.store.mkdir()
        os.chown(up.store, NOBODY, NOBODY)
        up.configure(storage_path=str(up.store))
        up.config.chmod(0o644)

        async def start():
            up.process = await Process.start("upslot", [*UNPRIVILEGED, binary, "-c", up.config], cwd=folder)
            await up.process.line(r"\bready pid=\d+")

        await start()
        used, opened = await slot_from_api(up, "a.bin", 5), await slot_from_api(up, "a.bin", 5)
        links = [external_url(up, f"elsewhere/{number}.bin", 5, KEY) for number in range(40)]
        for url in [used.put, *links]:
            check("PUT", (await put(url, b"hello")).status, 201)
        other_user = ["setpriv", "--reuid=4711", "--regid=4711", "--clear-groups"]
        ran = await run([*other_user, binary, "-c", up.config, "remove", ROMEO])
        assert ran.code == 1 and "error: " in ran.err and "ermission denied" in ran.err, ran
        check("GET", (await get(used.get)).status, 200)
        for words in [[ROMEO], *([link] for link in links)]:
            ran = await run([binary, "-c", up.config, "remove", *words])
            check(f"remove {words}: {ran.err}", ran.code, 0)
        check("files", up.files(), set())
        owners = {path.lstat().st_uid for path in (up.store / ".upslot").rglob("*")}
        check("owners", (owners, (up.store / ".upslot").stat().st_uid), ({NOBODY}, NOBODY))
        modes = {path.stat().st_mode & 0o7777 for path in (up.store / ".upslot").rglob("*") if path.is_file()}
        check("modes", modes, {0o600})
        check("GET", (await get(used.get)).status, 404)
        await up.line("files removed elsewhere")
        for _ in range(2):
            for url in links:
                check("PUT again", (await put(url, b"hello")).status, 409)
            for slot in (used, opened):
                check("PUT", (await put(slot.put, b"hello")).status, 403)
            check("errors in the log", up.logged(" ERROR "), [])
            await up.process.stop()
            await start()
        check("PUT", (await put((await slot_from_api(up, "a.bin", 5)).put, b"hello")).status, 201)
        await up.process.stop()


@test(servers=(None,), deadline=120)
async def several_nodes(case):
    """All nodes that use the store know of the removal at once."""
    settings = {"user_quota_hard": 1000, "max_file_size": 1000, "slot_secret": "shared by all nodes of the test"}
    first = await with_api(case, **settings)
    second = await with_api(case, **settings)
    await second.process.stop()
    second.store = first.store
    second.configure(storage_path=str(first.store), get_url=first.url, put_url=first.url)
    await second.start()

    def at(up, url):
        return url.replace(first.url, up.url)

    used, opened = await slot_from_api(first, "a.bin", 600), await slot_from_api(first, "a.bin", 300)
    check("PUT", (await put(used.put, content(600))).status, 201)
    for up in (first, second):
        check("GET", (await get(at(up, used.get))).status, 200)
        check("slot over the quota", (await request_slot(up, "a.bin", 500)).status, 403)
    await remove(first, ROMEO)
    for up in (second, first):
        for slot in (used, opened):
            check("GET", (await get(at(up, slot.get))).status, 404)
            check("PUT", (await put(at(up, slot.put), content(600 if slot == used else 300))).status, 403)
        await slot_from_api(up, "a.bin", 1000)
    check("files", first.files(), set())


@test(servers=(None,), deadline=120)
async def on_a_full_disk(case):
    """If there is no space to record a removal, it is recorded as soon as there is."""
    up, store = await with_mounted_store(case, f'mount -t tmpfs -o size={4 * MIB},nr_inodes=100 none "$store"', api=True,
                              external_secret=KEY, min_free_space=0)
    link = external_url(up, f"{owner_folder(ROMEO)}/x/a.bin", MIB, KEY)
    check("PUT", (await put(link, content(MIB))).status, 201)
    late = await slot_from_api(up, "a.bin", 5)
    fill(store / "filler")
    with contextlib.suppress(OSError):
        for number in range(100):
            (store / f"taken-{number}").touch(exist_ok=False)
    check("PUT to the full disk", (await put(late.put, b"hello")).status, 507)
    await nsenter(up, *program(up), "remove", ROMEO)
    check("files", [path for path in up.files(store) if "/" in path], [])
    check("PUT again", (await put(link, content(MIB))).status, 409)
    # The earlier slot is void, also when there is space again.
    (store / "filler").unlink()
    for path in store.glob("taken-*"):
        path.unlink()
    check("PUT", (await put(late.put, b"hello")).status, 403)
    check("files", up.files(store), set())
