"""Attacks that need a system which is not like others: a kernel without `openat2`, and one whose folders change while
they are looked at."""

import asyncio
import os
import urllib.parse

from harness import ACCOUNTS, LONG, check, content, free_port, get, http_request, owner_folder, test, until

OWNER = owner_folder(ACCOUNTS[0])

# What strace makes of the call: a kernel that has none, a container engine that knows none, and a tree that is renamed
# whenever it is resolved (openat2(2)).
WAYS = {"": (), "without it": ("error=ENOSYS",), "forbidden": ("error=EPERM",), "always racing": ("error=EAGAIN",)}


async def slots_of(case, names, wrapper=()):
    """An upslot with nothing but the slot API, and slots for five bytes."""
    api = free_port()
    up = await case.upslot(start=False, api={"port": api}, fsync=False, user_quota_hard=10_000_000,
                           max_file_size=1_000_000, expire_interval=3600, expire_maxage=100_000)
    up.wrapper = list(wrapper)
    await up.start()
    found = []
    for name in names:
        query = urllib.parse.urlencode({"jid": ACCOUNTS[0], "name": name, "size": 5})
        reply = await get(f"http://127.0.0.1:{api}/slot/?{query}")
        check("slot", reply.status, 200)
        found.append(reply.body.decode().split("\n"))
    return up, found


def place(up, url):
    return up.store / urllib.parse.unquote(url.removeprefix(up.url))


@test(servers=(None,), deadline=180)
async def links_lead_nowhere_on_any_kernel(case):
    for number, (kind, errors) in enumerate(WAYS.items()):
        trace = case.folder / f"strace-{number}.out"
        # Followed calls are slow; those that are not asked for are not followed.
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
        check(f"{kind}: what is there", (await get(f"{up.url}{OWNER}/abcdefghijklm/real.txt")).body, b"hello")
        for path in (f"{OWNER}/abcdefghijklm/link.txt", f"{OWNER}/abcdefghijklm/beside.txt",
                     f"{OWNER}/abcdefghijklm/pipe.txt", f"{OWNER}/linkedfolder1/secret.txt", "linkedowner/secret.txt",
                     "linkedowner/x", f"linkedroot{secret}", f"{OWNER}/abcdefghijklm/link.txt/x"):
            reply = await get(up.url + path)
            check(f"{kind}: {path}", (reply.status, b"CANARY" in reply.body), (404, False))

        # What is in the way of an upload: each of its levels, then nothing.
        (put, get_url), (put2, get2), (put3, get3), (put4, get4), *_ = slots
        place(up, get_url).parent.mkdir()
        os.symlink(secret, place(up, get_url))
        place(up, get2).parent.mkdir()
        os.symlink(outside / "new.txt", place(up, get2))
        os.symlink(outside, place(up, get3).parent)
        place(up, get4).parent.mkdir()
        os.mkfifo(place(up, get4))
        for url in (put, put2, put3, put4):
            reply = await http_request("PUT", url, b"owned")
            assert reply.status in (409, 503), f"{kind}: {reply}"
        check(f"{kind}: outside", (sorted(p.name for p in outside.iterdir()), secret.read_bytes()),
              (["secret.txt", "x"], b"CANARY"))
        for url, got in slots[4:]:
            check(f"{kind}: PUT", (await http_request("PUT", url, b"hello")).status, 201)
            check(f"{kind}: GET", (await get(got)).body, b"hello")
        await up.process.stop()
        calls = await until(lambda: "+++ exited" in trace.read_text() and trace.read_text(), "the end of the trace")
        assert "openat2(" in calls, "the call was never made"
        check(f"{kind}: whether it failed as told", f"= -1 {errors[0][6:] if errors else '?'}" in calls, bool(errors))


@test(servers=(None,), deadline=600 if LONG else 180)
async def folders_that_change_under_a_download(case):
    """Somebody renames folders and puts links in their place as fast as he can, while files in them are asked for: what
    is served is the file that was asked for, or nothing."""
    up, _ = await slots_of(case, [])
    outside = case.folder / "outside"
    outside.mkdir()
    (outside / "a.txt").write_bytes(b"CANARY")
    folder = up.store / OWNER / "abcdefghijklm"
    away = up.store / OWNER / "away"
    folder.mkdir(parents=True)
    body = content(1000)
    (folder / "a.txt").write_bytes(body)
    over = asyncio.Event()

    def swap():
        while not over.is_set():
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
        over.set()
        await swapping
