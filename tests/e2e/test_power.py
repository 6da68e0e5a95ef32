"""Power cuts: with `fsync: true`, an upload answered with 201 is there, and a removed file cannot be stored again.

strace records the system calls with which the program stores and removes files; `disk_model` gives the trees that a
power cut between two of them may leave, depending on which unsynced changes are lost. Every such tree is checked. For
some of them the program is started on the tree, and has to find every promised file, clean up, and count right.
"""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import os
import random
import re
import shutil
import signal
import time
import urllib.parse

from disk_model import (ANY, BEGIN, DATA_LOST, END, KEPT, LOST, SYNCS, Disk, Fate, found_tree, lay_out, read_trace,
                        strace)
from harness import (ACCOUNTS, KIB, LONG, check, content, free_port, get, http_request, owner_folder, run, test, until)

KEY = "it was the nightingale, and not the lark"
DELETE_KEY = "it was the lark, the herald of the morn"
ROMEO, BENVOLIO, JULIET = ACCOUNTS

# Random fates tried at each cut, and trees made real per test.
FATES, REAL = (40, 80) if LONG else (4, 12)

# The files that upslot keeps in its internal folder.
OWN = re.compile(
    rb"\.upslot(/slot_secret|/removals|/share(/[\w-]+(\.new)?)?|/tombstones(/[0-9a-f]{2})?|/clock(/[0-9a-f-]+)?)?")


class Upload:
    """One file that a test stores: how, and where it must be."""

    def __init__(self, put, got, path, body, kind=None, alias=None, **fields):
        self.put, self.get, self.path, self.body, self.alias = put, got, os.fsencode(path), body, alias
        self.fields = fields | ({"Content_Type": kind} if kind else {})
        # Whether the program will remove it: it expires, or is evicted or trimmed.
        self.to_be_removed = False
        # Whether the slot is revoked, because a command has removed all files of its owner.
        self.revoked = False
        # The name of every file here has another type.
        self.attributes = {b"user.mime_type": kind.encode()} if kind else {}
        if kind and kind.startswith("text/") and "charset" not in kind:
            self.attributes[b"user.charset"] = b"utf-8" if is_utf8(body) else b"unknown-8bit"


def is_utf8(body):
    with contextlib.suppress(UnicodeDecodeError):
        return "\0" not in body.decode()
    return False


def url_path(url):
    return urllib.parse.urlsplit(url).path


class Site:
    """An upslot under strace, and everything that was asked of it."""

    def __init__(self, case, up, api):
        self.case, self.up, self.api = case, up, api
        # Everything below this folder is modelled: the storage folder and some above it, all made by the program.
        self.base = case.folder / "disk"
        self.base.mkdir()
        up.store = self.base / "some" / "where" / "store"
        up.configure(storage_path=str(up.store))
        self.disk = Disk(self.base)
        self.uploads, self.traces, self.slots = [], [], 0
        # What a command removes, by its trace.
        self.commands = {}
        # Settings that change before the program is started on a tree that a power cut left.
        self.afterwards = {}

    async def start(self, *more):
        """Starts it; `more` are words for strace."""
        self.traces.append(self.case.folder / f"trace-{len(self.traces)}")
        self.up.wrapper = strace(self.traces[-1], *more)
        await self.up.start()
        return self

    async def stop(self, number=signal.SIGTERM):
        await self.up.process.stop(number)
        await self.recorded()

    async def calls_at_start(self):
        """What it calls until it is ready and ends; nothing of that stays."""
        await self.start()
        await self.stop()
        calls = [call for phase, call in read_trace(self.traces.pop()) if phase == BEGIN]
        shutil.rmtree(self.base)
        self.base.mkdir()
        self.disk = Disk(self.base)
        return calls

    async def recorded(self):
        """Waits until strace has written the last line."""
        pid, trace = self.up.process.pid, self.traces[-1]
        await until(lambda: re.search(rf"^{pid} +\+\+\+ .* \+\+\+$", trace.read_text(), re.MULTILINE), "the end of it")

    async def slot(self, jid, size, kind=None, name="a.bin"):
        asked = urllib.parse.urlencode({"jid": jid, "name": name, "size": size} | ({"type": kind} if kind else {}))
        reply = await get(f"http://127.0.0.1:{self.api}/slot/?{asked}")
        check("slot", reply.status, 200)
        return reply.body.decode().split("\n")

    def body(self, size):
        self.slots += 1
        return content(size, self.slots)

    async def own(self, jid, size, kind=None, **fields):
        """An upload in a slot of ours."""
        put, got = await self.slot(jid, size, kind)
        path = urllib.parse.unquote(got.removeprefix(self.up.url))
        self.uploads.append(Upload(put, got, path, self.body(size), kind, **fields))
        return self.uploads[-1]

    def external(self, size):
        """An upload that another server signed."""
        body = self.body(size)
        path = f"external/{self.slots}.bin"
        tag = hmac.new(KEY.encode(), f"{path} {size}".encode(), hashlib.sha256).hexdigest()
        self.uploads.append(Upload(f"{self.up.url}{path}?v={tag}", self.up.url + path, path, body))
        return self.uploads[-1]

    def shared(self, jid, size, kind=None):
        """An upload with a token of Prosody's file share."""
        body = self.body(size)
        slot, now = f"slot-{self.slots}", int(time.time())
        claims = {"slot": slot, "iat": now, "exp": now + 600, "sub": jid, "filename": "b.bin", "filesize": size}
        claims |= {"filetype": kind} if kind else {}
        words = [encoded(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims)]
        words.append(encoded(hmac.new(KEY.encode(), ".".join(words).encode(), hashlib.sha256).digest()))
        digest = encoded(hashlib.sha256(slot.encode()).digest()[:15])
        url = f"{self.up.url}{slot}/b.bin"
        path = f"{owner_folder(jid)}/{digest}~{size:x}~mn/b.bin"
        self.uploads.append(Upload(url, url, path, body, kind, alias=os.fsencode(f".upslot/share/{digest}"),
                                   Authorization="Bearer " + ".".join(words)))
        return self.uploads[-1]

    async def refused(self, upload, statuses):
        raw = await self.case.raw(self.up)
        await raw.send_head("PUT", upload.put, Content_Length=len(upload.body), **upload.fields)
        status = (await raw.head())[0]
        assert status in statuses, f"PUT {upload.path}: {status}"
        raw.close()

    async def store(self, upload, status=201):
        await self.store_all([upload], status)

    async def store_all(self, uploads, status=201):
        """Stores them as nearly at once as can be: the last bytes of all are sent together."""
        raws = []
        for upload in uploads:
            raws.append(await self.case.raw(self.up))
            await raws[-1].send_head("PUT", upload.put, Content_Length=len(upload.body), **upload.fields)
            if "Expect" in upload.fields:
                check("first answer", (await raws[-1].head())[0], 100)
            await raws[-1].send(upload.body[:-1])
        await asyncio.gather(*(raw.send(upload.body[-1:]) for raw, upload in zip(raws, uploads)))
        for raw in raws:
            check("PUT", (await raw.head())[0], status)
            raw.close()

    async def remove(self, word, uploads):
        """A command, while the program does not run."""
        self.traces.append(self.case.folder / f"trace-{len(self.traces)}")
        self.commands[self.traces[-1]] = set(uploads)
        # No `-D`: the record is whole when the command has ended.
        command = [word for word in strace(self.traces[-1]) if word != "-D"]
        ran = await run([*command, os.environ["UPSLOT_BIN"], *self.up.arguments, "remove", word])
        check(f"remove {word}: {ran.err}", ran.code, 0)

    async def delete(self, upload):
        path = os.fsdecode(upload.path)
        tag = hmac.new(KEY.encode(), f"{path}\0{DELETE_KEY}".encode(), hashlib.sha256).hexdigest()
        reply = await http_request("DELETE", f"{self.up.url}{path}?token={tag}")
        check("DELETE", reply.status, 204)


def encoded(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


async def site(case, **settings):
    api = free_port()
    up = await case.upslot(start=False, log_level="info", fsync=True, api={"port": api}, **settings)
    return Site(case, up, api)


# The checks ----------------------------------------------------------------------------------------------------------

class PowerCutModel:
    """Follows the record and checks every tree that a power cut may leave."""

    def __init__(self, site):
        self.site, self.disk = site, site.disk
        self.store = os.fsencode(os.path.relpath(site.up.store, site.base)) + b"/"
        self.by_path = {upload.path: upload for upload in site.uploads}
        self.by_target = {url_path(upload.get): upload for upload in site.uploads}
        # Uploads that were answered, those that may be removed, and those whose removal was answered.
        self.promised, self.removed = set(), set()
        self.removable = {upload for upload in site.uploads if upload.to_be_removed}
        self.ready, self.cuts, self.requests = False, 0, {}
        self.secret = None
        # Some of the trees, each as likely as any other: (seen so far, tree, promised, where).
        self.random, self.kept, self.seen = random.Random(7), [], 0

    def follow(self, trace):
        self.disk.rebooted()
        self.doomed = self.site.commands.get(trace, set())
        self.removable |= self.doomed
        with contextlib.suppress(OSError):
            self.secret = (self.site.up.store / ".upslot" / "slot_secret").read_bytes()
        for number, (phase, call) in enumerate(read_trace(trace)):
            changed = self.disk.follow(phase, call)
            if self.listen(phase, call) or changed:
                self.cuts += 1
                self.check_tree(f"{trace.name}, step {number}: {phase} of {call.name}")

    def listen(self, phase, call):
        """What was asked and answered; whether a promise came of it."""
        said = call.arguments[1] if len(call.arguments) > 1 and isinstance(call.arguments[1], bytes) else b""
        if phase == END and call.name == "recvfrom" and re.match(rb"[A-Z]+ /", said):
            method, target = said.split(b" ")[:2]
            self.requests[call.arguments[0]] = (method, url_path(os.fsdecode(target)))
            if method == b"DELETE":
                self.removable.add(self.by_target[url_path(os.fsdecode(target))])
        if phase == END or call.name not in ("sendto", "write", "writev", "sendmsg"):
            return False
        if call.name == "write" and re.search(rb" INFO +ready pid=", said):
            self.ready = True
            return True
        if call.name == "write" and said.startswith(b"Removed ") and self.doomed:
            self.removed |= self.doomed
            return True
        if said.startswith(b"HTTP/1.1 201 "):
            location = re.search(rb"\r\nLocation: ([^\r]+)\r\n", said)[1].decode()
            self.promised.add(self.by_target[url_path(location)])
            return True
        method, target = self.requests.get(call.arguments[0], (b"", ""))
        if said.startswith(b"HTTP/1.1 204 ") and method == b"DELETE":
            self.removed.add(self.by_target[target])
            return True
        return False

    def check_tree(self, where):
        rules = [KEPT, LOST, DATA_LOST] + [ANY] * FATES
        for number, rule in enumerate(rules):
            fate = Fate(rule, self.cuts * 1000 + number)
            tree = self.disk.tree(fate)
            try:
                self.judge_tree(tree)
            except AssertionError as error:
                raise AssertionError(f"power cut at {where}, {fate}: {error}") from None
            # Before the first start was complete there was nothing to lose.
            if self.ready:
                self.keep(tree, f"power cut at {where}, {fate}")

    def keep(self, tree, where):
        self.seen += 1
        entry = (tree, set(self.promised), set(self.removable), set(self.removed), where)
        if len(self.kept) < REAL:
            self.kept.append(entry)
        elif (place := self.random.randrange(self.seen)) < REAL:
            self.kept[place] = entry

    def judge_tree(self, tree):
        below = {path[len(self.store):]: found for path, found in tree.items() if path.startswith(self.store)}
        for upload in self.promised - self.removable:
            assert upload.path in below, f"promised but missing: {upload.path}"
            if upload.alias:
                check("promised link", below.get(upload.alias), ("link", upload.path))
        for upload in self.site.uploads:
            if upload.alias and upload.alias in below and upload not in self.removable:
                assert upload.path in below, f"a slot used up by a file that was never there: {upload.path}"
        for upload in self.removed:
            assert upload.path not in below, f"removed but there: {upload.path}"
        for upload in self.promised & self.removable:
            recorded = has_tombstone(below, upload.path)
            assert upload.path in below or recorded, f"removed without a tombstone: {upload.path}"
        for path, found in below.items():
            if found[0] != "file":
                continue
            if path in self.by_path:
                upload = self.by_path[path]
                assert found[1] == upload.body, f"{len(found[1])} of {len(upload.body)} bytes, or others: {path}"
                check(f"attributes of {path}", found[2], upload.attributes)
            elif path == b".upslot/slot_secret":
                assert self.secret and found[1] == self.secret, "the key of the slots is not whole"
            else:
                assert path.startswith(b".upslot/"), f"an unexpected file: {path}"
        if self.ready and self.secret is not None:
            assert b".upslot/slot_secret" in below, "the key of the slots is lost"


def has_tombstone(tree, path):
    digest = hashlib.sha256(path).digest()
    found = tree.get(b".upslot/tombstones/%02x" % digest[0])
    tombstones = found[1] if found else b""
    return any(tombstones[at:at + 16] == digest[1:17] for at in range(0, len(tombstones) - 15, 16))


async def check_power_cuts(site):
    """Checks every tree that the record allows, then starts the program on some of them."""
    model = PowerCutModel(site)
    for trace in site.traces:
        await asyncio.to_thread(model.follow, trace)
    # The model is complete: without a power cut, it gives the real tree.
    modelled, real = model.disk.tree(Fate(KEPT)), found_tree(site.base)
    check("paths by the record", sorted(modelled), sorted(real))
    for path in real:
        assert modelled[path] == real[path], f"the record differs from the disk: {path}"
    check("uploads promised", model.promised, set(site.uploads))
    assert model.cuts > 3 * len(site.uploads), f"only {model.cuts} cuts"
    for number, kept in enumerate(model.kept):
        try:
            await start_on(site, site.case.folder / f"after-{number}", *kept)
        except AssertionError as error:
            raise AssertionError(f"{kept[-1]}: {error}") from None


async def start_on(site, folder, tree, promised, removable, removed, _):
    """Creates a tree on disk and starts the program on it."""
    up = site.up
    folder.mkdir()
    lay_out(tree, folder)
    up.store = folder / os.path.relpath(site.up.store, site.base)
    up.configure(storage_path=str(up.store), **site.afterwards)
    up.wrapper = []
    try:
        await up.start()
        paths = {os.fsencode(path) for path in up.files() if not path.endswith("/")}
        raw = await site.case.raw(up)
        for upload in site.uploads:
            await raw.send_head("GET", upload.get)
            status, fields = await raw.head()
            body = await raw.body(int(fields["content-length"]))
            expected = 200 if upload in promised - removable else 404 if upload in removed else status
            check(f"GET {upload.path}", status, expected)
            assert status in (200, 404), f"GET {upload.path}: {status}"
            if status == 200:
                assert body == upload.body, f"GET {upload.path}: {len(body)} bytes"
                if kind := upload.fields.get("Content_Type"):
                    check(f"type of {upload.path}", fields["content-type"], kind)
        raw.close()
        start = os.fsencode(up.store.relative_to(folder)) + b"/"
        below = {path.removeprefix(start): found for path, found in tree.items()}
        sizes = sum((up.store / os.fsdecode(path)).stat().st_size for path in paths)
        url = f"http://127.0.0.1:{site.api}/metrics"
        for name, number in (("stored_bytes", sizes), ("stored_files", len(paths))):
            check(name, int(re.search(rf"^upslot_{name} (\d+)$", (await get(url)).body.decode(), re.MULTILINE)[1]),
                  number)
        left = [path for path in (os.fsencode(os.path.relpath(entry, up.store)) for entry in
                                  (up.store / ".upslot").rglob("*")) if not OWN.fullmatch(path)]
        check("left over", left, [])
        # A slot can be used unless its file is stored or has a tombstone.
        for upload in site.uploads:
            used = upload.path in paths or has_tombstone(below, upload.path)
            if upload.revoked and upload in removable:
                assert used, f"neither stored nor recorded: {upload.path}"
                await site.refused(upload, (403, 409))
            elif "Expect" not in upload.fields or not used:
                await site.store(upload, 409 if used else 201)
            if not has_tombstone(below, upload.path):
                reply = await get(upload.get)
                check(f"GET {upload.path} again", reply.status, 200)
                assert reply.body == upload.body, f"GET {upload.path} again: {len(reply.body)} bytes"
    finally:
        await up.process.stop(signal.SIGKILL)
        up.store = site.base / os.path.relpath(up.store, folder)


# Tests ---------------------------------------------------------------------------------------------------------------

@test(servers=(None,), deadline=300)
async def one_upload_after_another(case):
    """From the very first start, with a storage folder and a key to be made."""
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
    """So many that they are synced together, into folders that some of them make and others find."""
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
    """On a file system that has none: names in a folder of its own, linked and removed."""
    it = await site(case, global_quota=1 << 40)
    opens = [call for call in await it.calls_at_start() if call.name == "openat"]
    number = 1 + next(number for number, call in enumerate(opens) if "O_TMPFILE" in call.arguments[2])
    await it.start("-e", f"inject=openat:error=EOPNOTSUPP:when={number}")
    await it.up.line(r"naming=\"temporary names\"")
    await it.store(await it.own(ROMEO, 100 * KIB, "image/jpeg"))
    await it.store_all([await it.own(jid, 3000, "image/png") for jid in (ROMEO, JULIET, BENVOLIO, JULIET)])
    await it.store(await it.own(JULIET, 1))
    check("left over", it.up.leftovers(), [])
    await it.stop()
    await check_power_cuts(it)


@test(servers=(None,), deadline=300)
async def uploads_of_a_file_share(case):
    """Each has a second way to it, which is promised as well."""
    it = await site(case, file_share_secret=KEY, slot_secret="a key that need not be made", global_quota=1 << 40)
    await it.start()
    # The first in the store finds nothing that was synced before.
    await it.store(it.shared(ROMEO, 5000, "image/jpeg"))
    await it.store(it.shared(JULIET, 20))
    await it.store_all([it.shared(jid, 700) for jid in (ROMEO, JULIET, BENVOLIO, JULIET)])
    await it.stop()
    await check_power_cuts(it)


@test(servers=(None,), deadline=300)
async def after_a_kill(case):
    """The folders that a killed process had made and not yet synced are no promise, but what comes into them is."""
    it = await site(case, slot_secret="a key that need not be made", global_quota=1 << 40)
    # The first links are tried out at start, the next one names the upload.
    links = [call for call in await it.calls_at_start() if call.name == "linkat"]
    await it.start("-e", f"inject=linkat:signal=KILL:when={len(links) + 1}")
    slot = await it.own(ROMEO, 5000)
    raw = await case.raw(it.up)
    await raw.send_head("PUT", slot.put, Content_Length=5000)
    await raw.send(slot.body)
    await it.up.process.ended()
    await it.recorded()
    check("folders of the killed", [path for path in it.up.files() if path.endswith("/")],
          [os.fsdecode(os.path.dirname(slot.path)) + "/"])
    await it.start()
    await it.store(slot)
    await it.store(await it.own(ROMEO, 200, "image/png"))
    await it.store(await it.own(JULIET, 200, "image/png"))
    await it.stop()
    await check_power_cuts(it)


@test(servers=(None,), deadline=300)
async def uploads_that_are_removed(case):
    """A file whose DELETE was answered stays deleted, and its upload URL stays used."""
    it = await site(case, external_secret=KEY, external_delete_secret=DELETE_KEY, global_quota=1 << 40,
                    slot_secret="a key that need not be made")
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
    """Files that the command reports as removed stay removed; before, each file is there or cannot be stored again."""
    it = await site(case, external_secret=KEY, file_share_secret=KEY, global_quota=1 << 40,
                    slot_secret="a key that need not be made")
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


@test(servers=(None,), deadline=300)
async def uploads_that_expire(case):
    """A signed link stays used after its file has expired, whatever part of the sweep is lost."""
    it = await site(case, external_secret=KEY, global_quota=1 << 40, slot_secret="a key that need not be made",
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
    """The PUT link of a file that was evicted stays used, whatever of the eviction is lost."""
    it = await site(case, global_quota=1 << 40, slot_secret="a key that need not be made",
                    user_quota_hard=10 * KIB, evict_on_quota=True)
    it.afterwards = {"user_quota_hard": None, "evict_on_quota": None}
    await it.start()
    uploads = []
    # The fourth file, and each one after it, evicts the oldest: by the slot request of one owner and another in turn.
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
    """Here the PUT finds the quota used up, because its slot was granted before that."""
    it = await site(case, global_quota=1 << 40, slot_secret="a key that need not be made",
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
    """The same for files over the soft quota, in slots and behind signed links, of two owners."""
    it = await site(case, external_secret=KEY, global_quota=1 << 40, slot_secret="a key that need not be made",
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
    check("left", set(map(os.fsencode, it.up.files())), {upload.path for upload in uploads if upload not in trimmed})
    await it.store_all(trimmed, 409)
    await it.stop()
    await check_power_cuts(it)


@test(servers=(None,))
async def killed_before_an_alias(case):
    """A file that has its name and no other yet gets that with the next try, which finds the slot used."""
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
