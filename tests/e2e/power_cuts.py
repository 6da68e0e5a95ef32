"""Power cuts with `fsync: true`: the uploads and removals of a test, and the checks of every tree that may be left.

strace records the system calls with which the program stores and removes files; `disk_model` derives the trees that a
power cut between two of them may leave, depending on which unsynced changes are lost. Every such tree is checked. The
program is started on some of them, and must find every file that it confirmed, clean up, and count correctly.
"""

import asyncio
import contextlib
import hashlib
import os
import random
import re
import shutil
import signal
import urllib.parse

from disk_model import (ANY, BEGIN, DATA_LOST, END, KEPT, LOST, Disk, Fate, create_tree, read_trace, read_tree,
                        strace)
from harness import (ACCOUNTS, LONG, base64url, check, content, delete_url, external_url, file_share_token, free_port,
                     get, http_request, owner_folder, run, until)

KEY = "it was the nightingale, and not the lark"
DELETE_KEY = "it was the lark, the herald of the morn"
ROMEO, BENVOLIO, JULIET = ACCOUNTS

# Random fates tried at each cut, and trees per test on which the program is started.
FATES, STARTS = (40, 80) if LONG else (4, 12)

# The files that remain in the internal folder of upslot.
INTERNAL = re.compile(
    rb"\.upslot(/slot_secret|/removals|/share(/[\w-]+(\.new)?)?|/tombstones(/[0-9a-f]{2})?|/clock(/[0-9a-f-]+)?)?")


class Upload:
    """A file that a test stores: the request, and the path in the store."""

    def __init__(self, put_url, get_url, path, body, kind=None, alias=None, **fields):
        self.put, self.get, self.path, self.body, self.alias = put_url, get_url, os.fsencode(path), body, alias
        self.fields = fields | ({"Content_Type": kind} if kind else {})
        # Whether the program will remove it: it expires, or is evicted or trimmed.
        self.to_be_removed = False
        # Whether the slot is revoked, because a command has removed all files of its owner.
        self.revoked = False
        # The names of all files imply a different type.
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
    """An upslot under strace, and all requests to it."""

    def __init__(self, case, up, api):
        self.case, self.up, self.api = case, up, api
        # Everything below this folder is modelled: the storage folder and its parents, which the program creates.
        self.base = case.folder / "disk"
        self.base.mkdir()
        up.store = self.base / "some" / "where" / "store"
        up.configure(storage_path=str(up.store))
        self.disk = Disk(self.base)
        self.uploads, self.traces, self.slots = [], [], 0
        # The uploads that a command removes, by its trace.
        self.commands = {}
        # The uploads that their user deletes by a command over XMPP.
        self.deleted_by_user = set()
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
        """The system calls of a start and a shutdown; its files are deleted."""
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
        await until(lambda: re.search(rf"^{pid} +\+\+\+ .* \+\+\+$", trace.read_text(), re.MULTILINE),
                    "the end of the trace")

    async def slot(self, jid, size, kind=None, name="a.bin"):
        asked = urllib.parse.urlencode({"jid": jid, "name": name, "size": size} | ({"type": kind} if kind else {}))
        reply = await get(f"http://127.0.0.1:{self.api}/slot/?{asked}")
        check("slot", reply.status, 200)
        return reply.body.decode().split("\n")

    def body(self, size):
        self.slots += 1
        return content(size, self.slots)

    async def own(self, jid, size, kind=None, **fields):
        """An upload in a slot of upslot."""
        put, got = await self.slot(jid, size, kind)
        path = urllib.parse.unquote(got.removeprefix(self.up.url))
        self.uploads.append(Upload(put, got, path, self.body(size), kind, **fields))
        return self.uploads[-1]

    def external(self, size):
        """An upload that another server signed."""
        body = self.body(size)
        path = f"external/{self.slots}.bin"
        self.uploads.append(Upload(external_url(self.up, path, size, KEY), self.up.url + path, path, body))
        return self.uploads[-1]

    def shared(self, jid, size, kind=None):
        """An upload with a token of Prosody's file share."""
        body = self.body(size)
        slot = f"slot-{self.slots}"
        token = file_share_token(jid, slot, "b.bin", size, KEY, kind)
        digest = base64url(hashlib.sha256(slot.encode()).digest()[:15])
        url = f"{self.up.url}{slot}/b.bin"
        path = f"{owner_folder(jid)}/{digest}~{size:x}~mn/b.bin"
        self.uploads.append(Upload(url, url, path, body, kind, alias=os.fsencode(f".upslot/share/{digest}"),
                                   Authorization=f"Bearer {token}"))
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
        """Stores them concurrently: the last bytes of all are sent at the same time."""
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
        """Runs `upslot remove` while the service does not run."""
        self.traces.append(self.case.folder / f"trace-{len(self.traces)}")
        self.commands[self.traces[-1]] = set(uploads)
        # Without `-D` the trace is complete when the command has ended.
        command = [word for word in strace(self.traces[-1]) if word != "-D"]
        ran = await run([*command, os.environ["UPSLOT_BIN"], *self.up.arguments, "remove", word])
        check(f"remove {word}: {ran.err}", ran.code, 0)

    async def delete(self, upload):
        reply = await http_request("DELETE", delete_url(self.up, os.fsdecode(upload.path), KEY, DELETE_KEY))
        check("DELETE", reply.status, 204)


async def site(case, **settings):
    api = free_port()
    up = await case.upslot(start=False, log_level="info", fsync=True, api={"port": api}, **settings)
    return Site(case, up, api)


# The checks ----------------------------------------------------------------------------------------------------------

class PowerCutModel:
    """Replays the traces and checks every tree that a power cut may leave."""

    def __init__(self, site):
        self.site, self.disk = site, site.disk
        self.store = os.fsencode(os.path.relpath(site.up.store, site.base)) + b"/"
        self.by_path = {upload.path: upload for upload in site.uploads}
        self.by_target = {url_path(upload.get): upload for upload in site.uploads}
        # Uploads that were confirmed, those that may be removed, and those whose removal was confirmed.
        self.confirmed, self.removed = set(), set()
        self.removable = {upload for upload in site.uploads if upload.to_be_removed}
        self.ready, self.cuts, self.requests = False, 0, {}
        self.secret = None
        # A uniform sample of the trees, with the sets above and the power cut of each.
        self.random, self.sample, self.seen = random.Random(7), [], 0

    def follow(self, trace):
        self.disk.rebooted()
        self.by_command = self.site.commands.get(trace, set())
        self.removable |= self.by_command
        with contextlib.suppress(OSError):
            self.secret = (self.site.up.store / ".upslot" / "slot_secret").read_bytes()
        for number, (phase, call) in enumerate(read_trace(trace)):
            changed = self.disk.follow(phase, call)
            if self.note(phase, call) or changed:
                self.cuts += 1
                self.check_tree(f"{trace.name}, step {number}: {phase} of {call.name}")

    def note(self, phase, call):
        """Notes requests and responses; whether one of them confirms something."""
        data = call.arguments[1] if len(call.arguments) > 1 and isinstance(call.arguments[1], bytes) else b""
        if phase == END and call.name == "recvfrom" and re.match(rb"[A-Z]+ /", data):
            method, target = data.split(b" ")[:2]
            self.requests[call.arguments[0]] = (method, url_path(os.fsdecode(target)))
            if method == b"DELETE":
                self.removable.add(self.by_target[url_path(os.fsdecode(target))])
        if phase == END or call.name not in ("sendto", "write", "writev", "sendmsg"):
            return False
        if call.name == "write" and re.search(rb" INFO +ready pid=", data):
            self.ready = True
            return True
        if call.name == "write" and data.startswith(b"Removed ") and self.by_command:
            self.removed |= self.by_command
            return True
        if b">Deleted " in data:
            self.removed |= self.site.deleted_by_user
            return True
        if data.startswith(b"HTTP/1.1 201 "):
            location = re.search(rb"\r\nLocation: ([^\r]+)\r\n", data)[1].decode()
            self.confirmed.add(self.by_target[url_path(location)])
            return True
        method, target = self.requests.get(call.arguments[0], (b"", ""))
        if data.startswith(b"HTTP/1.1 204 ") and method == b"DELETE":
            self.removed.add(self.by_target[target])
            return True
        return False

    def check_tree(self, where):
        rules = [KEPT, LOST, DATA_LOST] + [ANY] * FATES
        for number, rule in enumerate(rules):
            fate = Fate(rule, self.cuts * 1000 + number)
            tree = self.disk.tree(fate)
            try:
                self.check_state(tree)
            except AssertionError as error:
                raise AssertionError(f"power cut at {where}, {fate}: {error}") from None
            # Before the first start is complete there is nothing to lose.
            if self.ready:
                self.add_to_sample(tree, f"power cut at {where}, {fate}")

    def add_to_sample(self, tree, where):
        self.seen += 1
        entry = (tree, set(self.confirmed), set(self.removable), set(self.removed), where)
        if len(self.sample) < STARTS:
            self.sample.append(entry)
        elif (place := self.random.randrange(self.seen)) < STARTS:
            self.sample[place] = entry

    def check_state(self, tree):
        below = {path[len(self.store):]: found for path, found in tree.items() if path.startswith(self.store)}
        for upload in self.confirmed - self.removable:
            assert upload.path in below, f"confirmed but missing: {upload.path}"
            if upload.alias:
                check("confirmed link", below.get(upload.alias), ("link", upload.path))
        for upload in self.site.uploads:
            if upload.alias and upload.alias in below and upload not in self.removable:
                assert upload.path in below, f"a slot is used although its file was never stored: {upload.path}"
        for upload in self.removed:
            assert upload.path not in below, f"removed but present: {upload.path}"
        for upload in self.confirmed & self.removable:
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
                assert self.secret and found[1] == self.secret, "the key of the slots is incomplete"
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
    """Checks every tree that the traces allow, then starts the program on some of them."""
    model = PowerCutModel(site)
    for trace in site.traces:
        await asyncio.to_thread(model.follow, trace)
    # The model is complete if it yields the real tree without a power cut.
    modelled, real = model.disk.tree(Fate(KEPT)), read_tree(site.base)
    check("paths by the model", sorted(modelled), sorted(real))
    for path in real:
        assert modelled[path] == real[path], f"the model differs from the disk: {path}"
    check("uploads confirmed", model.confirmed, set(site.uploads))
    assert site.deleted_by_user <= model.removed, "the command did not report the deletion"
    assert model.cuts > 3 * len(site.uploads), f"only {model.cuts} cuts"
    for number, kept in enumerate(model.sample):
        try:
            await start_on(site, site.case.folder / f"after-{number}", *kept)
        except AssertionError as error:
            raise AssertionError(f"{kept[-1]}: {error}") from None


async def start_on(site, folder, tree, confirmed, removable, removed, _):
    """Creates a tree on disk and starts the program on it."""
    up = site.up
    folder.mkdir()
    create_tree(tree, folder)
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
            expected = 200 if upload in confirmed - removable else 404 if upload in removed else status
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
                                  (up.store / ".upslot").rglob("*")) if not INTERNAL.fullmatch(path)]
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
