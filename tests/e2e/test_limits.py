"""Permissions, quotas and expiry."""

import os
import time

from harness import (ACCOUNTS, DOMAIN, KIB, MIB, NAMESPACES, check, content, get, owner_folder, put, refusal_of,
                     slot_request, test)

ROMEO, BENVOLIO, JULIET = ACCOUNTS
HOUR = 3600


async def store(client, name, size):
    """Uploads a file of that size; returns its GET URL."""
    slot = await client.slot(name, size)
    check(f"PUT of {name}", (await put(slot.put, content(size))).status, 201)
    return slot.get


def age(up, name, seconds):
    """Makes the file of that name older by that many seconds."""
    path, = (up.store / path for path in up.files() if path.endswith("/" + name))
    os.utime(path, (time.time() - seconds,) * 2)


@test(servers=("prosody", "ejabberd"))
async def whitelist_of_domains(case):
    up = await case.upslot(whitelist=[DOMAIN])
    romeo, juliet = await case.client(ROMEO), await case.client(JULIET)
    await store(romeo, "allowed.bin", 100)
    since = up.mark()
    for namespace, expected in zip(NAMESPACES, [("auth", "forbidden")] + [("cancel", "not-allowed")] * 2):
        refusal = await juliet.refusal("refused.bin", 100, namespace)
        check(f"error in {namespace}", (refusal.type, refusal.condition), expected)
        assert refusal.text, "no text"
    await up.line(rf"\bslot refused\b.*owner={JULIET}", since)


@test()
async def whitelist_of_one_jid(case):
    await case.upslot(whitelist=JULIET)
    romeo, juliet = await case.client(ROMEO), await case.client(JULIET)
    await store(juliet, "allowed.bin", 100)
    check("error", (await romeo.refusal("refused.bin", 100)).condition, "forbidden")


@test()
async def missing_whitelist_allows_everyone_with_a_warning(case):
    up = await case.upslot()
    assert up.logged(" WARN .*whitelist"), "no warning at the start"
    await store(await case.client(JULIET), "allowed.bin", 100)


@test(servers=("prosody", "ejabberd"))
async def hard_quota(case):
    up = await case.upslot(user_quota_hard=100 * KIB)
    romeo, benvolio = await case.client(ROMEO), await case.client(BENVOLIO)
    await store(romeo, "first.bin", 60 * KIB)
    since = up.mark()
    refusal = await romeo.refusal("second.bin", 40 * KIB + 1)
    check("error", (refusal.type, refusal.condition), ("wait", "resource-constraint"))
    assert str(100 * KIB) in refusal.text and str(60 * KIB) in refusal.text, f"no numbers: {refusal.text}"
    await up.line(rf"\bslot refused\b.*owner={ROMEO}", since)
    await store(benvolio, "other.bin", 60 * KIB)
    # The first request after a start counts the stored files.
    await up.restart()
    check("after a restart", (await romeo.refusal("second.bin", 40 * KIB + 1)).condition, "resource-constraint")
    await store(romeo, "exactly.bin", 40 * KIB)


@test()
async def concurrent_slots_cannot_exceed_the_hard_quota(case):
    up = await case.upslot(user_quota_hard=100 * KIB)
    romeo = await case.client(ROMEO)
    answers = [await romeo.ask(slot_request(NAMESPACES[0], f"{n}.bin", 60 * KIB)) for n in range(3)]
    slots = [found.get("url") for answer in answers for found in answer.iter(f"{{{NAMESPACES[0]}}}put")]
    check("the first PUT", (await put(slots[0], content(60 * KIB))).status, 201)
    for url in slots[1:]:
        check("a later PUT", (await put(url, content(60 * KIB))).status, 507)
    check("files", len(up.files()), 1)


@test()
async def hard_quota_with_eviction(case):
    up = await case.upslot(user_quota_hard=100 * KIB, evict_on_quota=True)
    romeo = await case.client(ROMEO)
    for number in range(3):
        await store(romeo, f"{number}.bin", 30 * KIB)
        age(up, f"{number}.bin", (9 - number) * HOUR)
    await store(romeo, "new.bin", 50 * KIB)
    check("files", {path.rsplit("/", 1)[1] for path in up.files()}, {"2.bin", "new.bin"})


@test()
async def soft_quota_trims_the_oldest_first(case):
    up = await case.upslot(user_quota_soft=100 * KIB, expire_interval=0)
    romeo, benvolio = await case.client(ROMEO), await case.client(BENVOLIO)
    urls = []
    for number in range(5):
        urls.append(await store(romeo, f"{number}.bin", 30 * KIB))
    # The age has another order than the names and the uploads.
    for number, hours in enumerate((3, 50, 1, 40, 2)):
        age(up, f"{number}.bin", hours * HOUR)
    other = await store(benvolio, "other.bin", 90 * KIB)
    up.configure(expire_interval=1)
    await up.process.stop()
    await up.start()
    await up.line(rf"\bowner trimmed owner={owner_folder(ROMEO)} files=2\b")
    check("kept", [(await get(url)).status for url in urls], [200, 404, 200, 404, 200])
    check("the other owner's", (await get(other)).status, 200)
    check("files and folders", len(up.files()), 4)


@test()
async def old_files_expire(case):
    up = await case.upslot(expire_maxage=2 * HOUR, expire_interval=1)
    romeo, benvolio = await case.client(ROMEO), await case.client(BENVOLIO)
    old, young = await store(romeo, "old.bin", 5000), await store(romeo, "young.bin", 5000)
    alone = await store(benvolio, "alone.bin", 5000)
    since = up.mark()
    for name in ("old.bin", "alone.bin"):
        age(up, name, 2 * HOUR + 60)
    age(up, "young.bin", 2 * HOUR - 600)
    await up.line(r"\bsweep done\b.*\bremoved=[12]\b", since)
    await up.line(r"\bsweep done\b.*\bremoved=0\b", up.mark())
    check("kept", [(await get(url)).status for url in (old, young, alone)], [404, 200, 404])
    check("files", {path.rsplit("/", 1)[1] for path in up.files()}, {"young.bin"})
    assert not (up.store / owner_folder(BENVOLIO)).exists(), "an empty owner folder was left behind"


@test()
async def maxage_zero_disables_expiry(case):
    """HttpUploadComponent deleted everything when a soft quota was set without a maximum age."""
    up = await case.upslot(expire_maxage=0, expire_interval=1, user_quota_soft=MIB)
    romeo = await case.client(ROMEO)
    url = await store(romeo, "ancient.bin", 5000)
    age(up, "ancient.bin", 10000 * HOUR)
    await up.line(r"\bsweep done\b.*\bremoved=0\b", up.mark())
    await up.line(r"\bsweep done\b.*\bremoved=0\b", up.mark())
    check("kept", (await get(url)).status, 200)


@test()
async def expired_files_free_their_quota(case):
    up = await case.upslot(user_quota_hard=100 * KIB, expire_maxage=2 * HOUR, expire_interval=1)
    romeo = await case.client(ROMEO)
    await store(romeo, "old.bin", 90 * KIB)
    refusal = await romeo.refusal("new.bin", 90 * KIB)
    check("error", refusal.condition, "resource-constraint")
    since = up.mark()
    age(up, "old.bin", 3 * HOUR)
    await up.line(r"\bsweep done\b.*\bremoved=1\b", since)
    await store(romeo, "new.bin", 90 * KIB)


@test()
async def global_quota(case):
    await case.upslot(global_quota=100 * KIB)
    romeo, benvolio = await case.client(ROMEO), await case.client(BENVOLIO)
    await store(romeo, "first.bin", 60 * KIB)
    refusal = await benvolio.refusal("second.bin", 60 * KIB)
    check("error", (refusal.type, refusal.condition), ("wait", "resource-constraint"))


@test()
async def disallowed_types(case):
    await case.upslot(allowed_file_types=["image/*", "text/plain"])
    romeo = await case.client(ROMEO)
    await romeo.slot("a.png", 10, "image/png")
    answer = await romeo.ask(slot_request(NAMESPACES[0], "a.html", 1, "text/html"))
    check("type", answer.get("type"), "error")
    check("error", (refusal_of(answer).type, refusal_of(answer).condition), ("modify", "not-acceptable"))
