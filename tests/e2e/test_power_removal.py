"""Power cuts: with `fsync: true`, a file whose removal was confirmed stays removed, and no removed file can be stored
again.
"""

import os
import time

from harness import KIB, check, test, until
from power_cuts import DELETE_KEY, JULIET, KEY, ROMEO, check_power_cuts, site


@test(servers=(None,), deadline=300)
async def uploads_that_are_removed(case):
    """A file whose DELETE was answered stays deleted, and its upload URL stays used."""
    it = await site(case, external_secret=KEY, external_delete_secret=DELETE_KEY, global_quota=1 << 40,
                    slot_secret="a key from the configuration")
    await it.start()
    uploads = [it.external(1000 * (1 + number)) for number in range(6)]
    for upload in uploads[:3]:
        await it.store(upload)
    for upload in uploads[:2]:
        await it.delete(upload)
    await it.store_all(uploads[3:])
    await it.delete(uploads[4])
    await it.stop()
    await check_power_cuts(it)


@test(servers=(None,), deadline=300)
async def uploads_that_a_command_removes(case):
    """Files that the command reports as removed stay removed; until then each is stored or cannot be stored again."""
    it = await site(case, external_secret=KEY, file_share_secret=KEY, global_quota=1 << 40,
                    slot_secret="a key from the configuration")
    await it.start()
    romeo = [await it.own(ROMEO, 3000 + number) for number in range(3)] + [it.shared(ROMEO, 900)]
    others = [await it.own(JULIET, 2000), it.shared(JULIET, 30), it.external(500), it.external(700)]
    await it.store_all(romeo + others)
    await it.stop()
    for upload in romeo:
        upload.revoked = True
    await it.remove(others[2].get, [others[2]])
    await it.remove(ROMEO, romeo)
    await check_power_cuts(it)


@test(deadline=300)
async def uploads_that_their_user_deletes(case):
    """The same for a command over XMPP: what it reports as deleted stays deleted."""
    it = await site(case, global_quota=1 << 40, slot_secret="a key from the configuration")
    await it.start()
    romeo = [await it.own(ROMEO, 3000 + number) for number in range(4)]
    await it.store_all(romeo + [await it.own(JULIET, 2000)])
    it.deleted_by_user = set(romeo)
    for upload in romeo:
        upload.to_be_removed = True
    client = await case.client(ROMEO)
    session = ""
    for status in ("executing", "completed"):
        answer = await client.ask(
            f'<command xmlns="http://jabber.org/protocol/commands" node="delete-all" {session}/>', type="set")
        command = answer.find("{http://jabber.org/protocol/commands}command")
        check("status", command.get("status"), status)
        session = f'sessionid="{command.get("sessionid")}"'
    await it.store_all(romeo, 409)
    await it.stop()
    await check_power_cuts(it)


@test(servers=(None,), deadline=300)
async def uploads_that_expire(case):
    """A signed link stays used after its file has expired, whatever part of the sweep is lost."""
    it = await site(case, external_secret=KEY, global_quota=1 << 40, slot_secret="a key from the configuration",
                    expire_interval=1, expire_maxage=3600)
    await it.start()
    uploads = [it.external(1000 * (1 + number)) for number in range(10)]
    await it.store_all(uploads)
    long_ago = time.time() - 7200
    for upload in uploads[:7]:
        upload.to_be_removed = True
        os.utime(it.up.store / os.fsdecode(upload.path), (long_ago, long_ago))
    await until(lambda: len(it.up.files()) == 3, "the sweep")
    await it.store_all(uploads[:2], 409)
    await it.stop()
    await check_power_cuts(it)


@test(servers=(None,), deadline=300)
async def evicted_files(case):
    """The PUT URL of an evicted file stays used, whatever part of the eviction is lost."""
    it = await site(case, global_quota=1 << 40, slot_secret="a key from the configuration",
                    user_quota_hard=10 * KIB, evict_on_quota=True)
    it.afterwards = {"user_quota_hard": None, "evict_on_quota": None}
    await it.start()
    uploads = []
    # Each file from the fourth of an owner on evicts the owner's oldest one.
    for _ in range(5):
        for jid in (ROMEO, JULIET):
            uploads.append(await it.own(jid, 3 * KIB))
            await it.store(uploads[-1])
    evicted = uploads[:4]
    for upload in evicted:
        upload.to_be_removed = True
    check("evicted", set(map(os.fsencode, it.up.files())), {upload.path for upload in uploads[4:]})
    await it.store_all(evicted, 409)
    await it.stop()
    await check_power_cuts(it)


@test(servers=(None,), deadline=300)
async def files_evicted_by_a_put(case):
    """The PUT exceeds the quota, because its slot was granted before the quota was used up."""
    it = await site(case, global_quota=1 << 40, slot_secret="a key from the configuration",
                    user_quota_hard=10 * KIB, evict_on_quota=True)
    it.afterwards = {"user_quota_hard": None, "evict_on_quota": None}
    await it.start()
    uploads = [await it.own(ROMEO, 3 * KIB) for _ in range(6)]
    for upload in uploads:
        await it.store(upload)
    for upload in uploads[:3]:
        upload.to_be_removed = True
    check("evicted", set(map(os.fsencode, it.up.files())), {upload.path for upload in uploads[3:]})
    await it.stop()
    await check_power_cuts(it)


@test(servers=(None,), deadline=300)
async def trimmed_files(case):
    """The same for files over the soft quota: of slots and of signed links, of two owners."""
    it = await site(case, external_secret=KEY, global_quota=1 << 40, slot_secret="a key from the configuration",
                    user_quota_soft=10 * KIB, expire_interval=1)
    it.afterwards = {"user_quota_soft": None, "expire_interval": None}
    await it.start()
    owners = ([], [])
    for _ in range(3):
        owners[0].append(await it.own(ROMEO, 3 * KIB))
        owners[1].append(it.external(3 * KIB))
        await it.store(owners[0][-1])
        await it.store(owners[1][-1])
    for number in range(3, 6):
        more = [await it.own(ROMEO, 3 * KIB), it.external(3 * KIB)]
        await it.store_all(more)
        for owner, upload in zip(owners, more):
            owner.append(upload)
            owner[number - 3].to_be_removed = True
        await until(lambda: len(it.up.files()) == 6, "the sweep")
    uploads = owners[0] + owners[1]
    trimmed = [upload for upload in uploads if upload.to_be_removed]
    check("remaining files", set(map(os.fsencode, it.up.files())), {upload.path for upload in uploads if upload not in trimmed})
    await it.store_all(trimmed, 409)
    await it.stop()
    await check_power_cuts(it)
