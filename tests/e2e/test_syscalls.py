"""System calls: how the bytes of a body move, and that an idle process makes none."""

import asyncio
import re

from harness import KIB, MIB, Strace, check, content, curl, owner_folder, test

BIG = 100 * MIB
# The largest number of bytes that one call may move.
PIECE = 256 * KIB
IDLE_SECONDS = 10
def moved(calls, *names):
    """The positive results of the calls of these names."""
    return [call.result for call in calls if call.name in names and call.result > 0]


READS = ("read", "readv", "pread64", "preadv", "preadv2", "recvfrom", "recvmsg", "recv")
WRITES = ("write", "writev", "pwrite64", "pwritev", "pwritev2", "sendto", "sendmsg", "send")


@test(servers=(None,), deadline=180)
async def plain_get_uses_sendfile(case):
    up = await case.upslot(start=False, log_level="info")
    folder = up.store / owner_folder("romeo@montague.example") / "abcdefghijklm"
    folder.mkdir(parents=True)
    with open(folder / "big.bin", "wb") as file:
        file.truncate(BIG)
    await up.start()
    url = f"{up.url}{owner_folder('romeo@montague.example')}/abcdefghijklm/big.bin"
    strace = await Strace().start(case, up)
    done = await curl("-o", "/dev/null", "-w", "%{stderr}\nsize=%{size_download}\nstatus=%{http_code}", url)
    calls = await strace.stop()
    check("download", (done.code, re.search(r"size=(\d+)", done.err)[1]), (200, str(BIG)))
    check("bytes by sendfile", sum(moved(calls, "sendfile", "sendfile64")), BIG)
    copied = moved(calls, *READS, *WRITES)
    assert sum(copied) < 64 * KIB, f"{sum(copied)} bytes passed through memory"


@test(deadline=240)
async def put_uses_constant_memory(case):
    up = await case.upslot(max_file_size=BIG, log_level="info")
    romeo = await case.client()
    path = case.folder / "big.bin"
    with open(path, "wb") as file:
        file.truncate(BIG)
    small = await romeo.slot("small.bin", MIB)
    small_path = case.folder / "small.bin"
    small_path.write_bytes(content(MIB))
    check("small PUT", (await curl("-T", small_path, small.put)).code, 201)
    before = up.memory()
    slot = await romeo.slot("big.bin", BIG)
    strace = await Strace().start(case, up)
    done = await curl("-T", path, slot.put, timeout=180)
    calls = await strace.stop()
    check("PUT", done.code, 201)
    into_file = moved(calls, *WRITES, "splice")
    assert sum(into_file) >= BIG, f"only {sum(into_file)} bytes in the trace"
    largest = max(moved(calls, *READS, *WRITES, "splice"))
    assert largest <= PIECE, f"one call moved {largest} bytes"
    # The size of the buffer does not depend on the body either.
    asked = [int(found[1]) for call in calls if call.name in ("read", "recvfrom")
             if (found := re.search(r"(?:, | )(\d+)(?:, \w+, NULL, NULL)?\) += ", call.text))]
    assert asked and max(asked) <= PIECE, f"reads of up to {max(asked, default=0)} bytes"
    grown = up.memory() - before
    assert grown < MIB, f"memory grew by {grown} bytes for a body of {BIG}"
    syncs = [call for call in calls if call.name in ("fdatasync", "fsync", "syncfs")]
    assert syncs, "201 without a sync of the file"


@test(servers=("prosody", "ejabberd"))
async def idle_makes_no_calls(case):
    up = await case.upslot(log_level="info", expire_interval=3600, expire_maxage=86400)
    # Idle connections must not cost anything.
    for _ in range(5):
        raw = await case.raw(up)
        await raw.send_head("GET", f"http://127.0.0.1:{up.port}/")
        status, fields = await raw.head()
        await raw.body(int(fields["content-length"]))
        check("GET /", status, 200)
    strace = await Strace().start(case, up)
    # The period over which calls are counted.
    await asyncio.sleep(IDLE_SECONDS)
    calls = await strace.stop()
    assert len(calls) <= 5, f"{len(calls)} system calls in {IDLE_SECONDS} s:\n" + "\n".join(
        call.text for call in calls[:20])
