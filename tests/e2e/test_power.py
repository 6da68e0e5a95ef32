"""Power cuts: with `fsync: true`, an upload that was answered with 201 is stored."""

import os

from disk_model import BEGIN, SYNCS, read_trace
from harness import KIB, check, get, test
from power_cuts import BENVOLIO, JULIET, KEY, ROMEO, check_power_cuts, site


@test(servers=(None,), deadline=300)
async def one_upload_after_another(case):
    """From the first start, which creates the storage folder and the key."""
    it = await site(case, global_quota=1 << 40)
    await it.start()
    for jid, size, kind, fields in [(ROMEO, 1, None, {}), (ROMEO, 5 * KIB, "image/jpeg", {}),
                                    (ROMEO, 300 * KIB, None, {"Expect": "100-continue"}),
                                    (JULIET, 40 * KIB, "text/html", {})]:
        await it.store(await it.own(jid, size, kind, **fields))
    await it.stop()
    await check_power_cuts(it)


@test(servers=(None,), deadline=300)
async def many_uploads_at_once(case):
    """So many that they are synced together, in folders that the first of them create."""
    it = await site(case, global_quota=1 << 40)
    await it.start()
    uploads = [await it.own(f"user{number % 12}@montague.example", 500 * (1 + number), number % 3 and "image/png")
               for number in range(32)]
    await it.store_all(uploads)
    await it.stop()
    await check_power_cuts(it)
    syncs = [call.name for phase, call in read_trace(it.traces[0]) if phase == BEGIN and call.name in SYNCS]
    together = syncs.count("syncfs")
    assert together > 1 and len(syncs) < 2 * len(uploads), f"not synced together: {syncs}"


@test(servers=(None,), deadline=300)
async def without_unnamed_files(case):
    """On a file system without unnamed files: temporary names in the internal folder, linked and removed."""
    it = await site(case, global_quota=1 << 40)
    opens = [call for call in await it.calls_at_start() if call.name == "openat"]
    number = 1 + next(number for number, call in enumerate(opens) if "O_TMPFILE" in call.arguments[2])
    await it.start("-e", f"inject=openat:error=EOPNOTSUPP:when={number}")
    await it.up.line(r"naming=\"temporary names\"")
    await it.store(await it.own(ROMEO, 100 * KIB, "image/jpeg"))
    await it.store_all([await it.own(jid, 3000, "image/png") for jid in (ROMEO, JULIET, BENVOLIO, JULIET)])
    await it.store(await it.own(JULIET, 1))
    check("leftovers", it.up.leftovers(), [])
    await it.stop()
    await check_power_cuts(it)


@test(servers=(None,), deadline=300)
async def uploads_of_a_file_share(case):
    """Each has a second path, which is confirmed as well."""
    it = await site(case, file_share_secret=KEY, slot_secret="a key from the configuration", global_quota=1 << 40)
    await it.start()
    # When the first is stored, nothing has been synced yet.
    await it.store(it.shared(ROMEO, 5000, "image/jpeg"))
    await it.store(it.shared(JULIET, 20))
    await it.store_all([it.shared(jid, 700) for jid in (ROMEO, JULIET, BENVOLIO, JULIET)])
    await it.stop()
    await check_power_cuts(it)


@test(servers=(None,), deadline=300)
async def after_a_kill(case):
    """Folders that a killed process created but did not sync may be lost, unless a confirmed file is stored in them."""
    it = await site(case, slot_secret="a key from the configuration", global_quota=1 << 40)
    # The first links are tests at start, the next one names the upload.
    links = [call for call in await it.calls_at_start() if call.name == "linkat"]
    await it.start("-e", f"inject=linkat:signal=KILL:when={len(links) + 1}")
    slot = await it.own(ROMEO, 5000)
    raw = await case.raw(it.up)
    await raw.send_head("PUT", slot.put, Content_Length=5000)
    await raw.send(slot.body)
    await it.up.process.ended()
    await it.recorded()
    check("folders of the killed process", [path for path in it.up.files() if path.endswith("/")],
          [os.fsdecode(os.path.dirname(slot.path)) + "/"])
    await it.start()
    await it.store(slot)
    await it.store(await it.own(ROMEO, 200, "image/png"))
    await it.store(await it.own(JULIET, 200, "image/png"))
    await it.stop()
    await check_power_cuts(it)


@test(servers=(None,))
async def killed_before_an_alias(case):
    """A file without its second path gets it at the next attempt, which finds that the slot is used."""
    it = await site(case, file_share_secret=KEY)
    await it.start("-e", "inject=symlinkat:signal=KILL:when=1")
    upload = it.shared(ROMEO, 5000)
    raw = await case.raw(it.up)
    await raw.send_head("PUT", upload.put, Content_Length=5000, **upload.fields)
    await raw.send(upload.body)
    await it.up.process.ended()
    await it.recorded()
    await it.start()
    check("GET", (await get(upload.get)).status, 404)
    await it.store(upload, 409)
    check("GET", (await get(upload.get)).body, upload.body)
