"""Symbolic links in the store: planted ones, on kernels with and without `openat2`, and ones that replace folders while
files are opened."""

import asyncio
import os
import urllib.parse

from harness import ACCOUNTS, LONG, check, content, free_port, get, owner_folder, put, slot_from_api, test, until

OWNER = owner_folder(ACCOUNTS[0])

# Results of openat2(2) that strace injects: a kernel without it, a container engine that forbids it, and a tree that is
# renamed whenever a path is resolved.
RESULTS = {"": (), "without it": ("error=ENOSYS",), "forbidden": ("error=EPERM",), "always racing": ("error=EAGAIN",)}


async def slots_of(case, names, wrapper=()):
    """An upslot with only the local API, and slots for five bytes."""
    up = await case.upslot(start=False, api={"port": free_port()}, fsync=False, user_quota_hard=10_000_000,
                           max_file_size=1_000_000, expire_interval=3600, expire_maxage=100_000)
    up.wrapper = list(wrapper)
    await up.start()
    return up, [await slot_from_api(up, name, 5) for name in names]


def place(up, url):
    return up.store / urllib.parse.unquote(url.removeprefix(up.url))


@test(servers=(None,), deadline=180)
async def links_are_not_followed_on_any_kernel(case):
    for number, (kind, errors) in enumerate(RESULTS.items()):
        trace = case.folder / f"strace-{number}.out"
        # Traced calls are slow; with a BPF filter only this one is traced.
        wrapper = ["strace", "-D", "-f", "--seccomp-bpf", "-o", trace, "-e", "trace=openat2"]
        wrapper += ["-e", f"inject=openat2:{errors[0]}"] if errors else []
        up, slots = await slots_of(case, [f"{n}.txt" for n in range(6)], wrapper)
        outside = case.folder / f"outside-{number}"
        (outside / "x").mkdir(parents=True)
        secret = outside / "secret.txt"
        secret.write_bytes(b"CANARY")
        folder = up.store / OWNER / "abcdefghijklm"
        folder.mkdir(parents=True)
        (folder / "real.txt").write_bytes(b"hello")
        os.symlink(secret, folder / "link.txt")
        os.symlink("real.txt", folder / "beside.txt")
        os.symlink(outside, up.store / OWNER / "linkedfolder1")
        os.symlink(outside, up.store / "linkedowner")
        os.symlink("/proc/self/root", up.store / "linkedroot")
        os.mkfifo(folder / "pipe.txt")
        check(f"{kind}: a file", (await get(f"{up.url}{OWNER}/abcdefghijklm/real.txt")).body, b"hello")
        for path in (f"{OWNER}/abcdefghijklm/link.txt", f"{OWNER}/abcdefghijklm/beside.txt",
                     f"{OWNER}/abcdefghijklm/pipe.txt", f"{OWNER}/linkedfolder1/secret.txt", "linkedowner/secret.txt",
                     "linkedowner/x", f"linkedroot{secret}", f"{OWNER}/abcdefghijklm/link.txt/x"):
            reply = await get(up.url + path)
            check(f"{kind}: {path}", (reply.status, b"CANARY" in reply.body), (404, False))

        # Links and a pipe at the places of uploads; the last two slots are free.
        places = [place(up, slot.get) for slot in slots[:4]]
        for number in (0, 1, 3):
            places[number].parent.mkdir()
        os.symlink(secret, places[0])
        os.symlink(outside / "new.txt", places[1])
        os.symlink(outside, places[2].parent)
        os.mkfifo(places[3])
        for slot in slots[:4]:
            reply = await put(slot.put, b"owned")
            assert reply.status in (409, 503), f"{kind}: {reply}"
        check(f"{kind}: outside", (sorted(p.name for p in outside.iterdir()), secret.read_bytes()),
              (["secret.txt", "x"], b"CANARY"))
        for slot in slots[4:]:
            check(f"{kind}: PUT", (await put(slot.put, b"hello")).status, 201)
            check(f"{kind}: GET", (await get(slot.get)).body, b"hello")
        await up.process.stop()
        calls = await until(lambda: "+++ exited" in trace.read_text() and trace.read_text(), "the end of the trace")
        assert "openat2(" in calls, "no openat2 in the trace"
        check(f"{kind}: injected result", f"= -1 {errors[0][6:] if errors else '?'}" in calls, bool(errors))


@test(servers=(None,), deadline=600 if LONG else 180)
async def folders_swapped_during_downloads(case):
    """A loop replaces a folder by a link and back while a file in it is requested: the answer is that file, or 404."""
    up, _ = await slots_of(case, [])
    outside = case.folder / "outside"
    outside.mkdir()
    (outside / "a.txt").write_bytes(b"CANARY")
    folder = up.store / OWNER / "abcdefghijklm"
    away = up.store / OWNER / "away"
    folder.mkdir(parents=True)
    body = content(1000)
    (folder / "a.txt").write_bytes(body)
    stop = asyncio.Event()

    def swap():
        while not stop.is_set():
            os.rename(folder, away)
            os.symlink(outside, folder)
            os.unlink(folder)
            os.rename(away, folder)

    swapping = asyncio.ensure_future(asyncio.to_thread(swap))
    seen, enough = {200: 0, 404: 0}, 2000 if LONG else 100
    try:
        while min(seen.values()) < enough:
            reply = await get(f"{up.url}{OWNER}/abcdefghijklm/a.txt")
            assert reply.status in seen, reply
            assert reply.status == 404 or reply.body == body, reply.body[:20]
            seen[reply.status] += 1
    finally:
        stop.set()
        await swapping
