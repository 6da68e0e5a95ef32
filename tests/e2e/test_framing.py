"""Ambiguous requests through real proxies: upslot must read what nginx and HAProxy forward as they do.

Each request has a client address of its own (127.10.0.0/16) and passes a proxy and a relay that records everything.
Afterwards three accounts are compared: the log of the proxy, the record of the relay, read by a strict reader, and the
log of upslot. They differ if a request was smuggled in a body or a body was delimited differently. Stored files are
compared byte by byte.
"""

import asyncio
import contextlib
import os
import re
import urllib.parse
from collections import Counter

from framing_proxies import Proxies, Relay, read_answers, read_requests, send
from framing_requests import BODY, cases
from harness import LONG, check, own_slot_target, test, until

SLOT_SECRET = "a secret that signs the slots of this test"
# The network of the clients; the number of the request follows.
CLIENTS = "127.10."
AT_A_TIME = 16


def escaped(text):
    """Bytes as upslot's log escapes them."""
    special = {9: "\\t", 10: "\\n", 13: "\\r", 34: '\\"', 39: "\\'", 92: "\\\\"}
    return "".join(special.get(b) or (chr(b) if 32 <= b < 127 else f"\\x{b:02x}") for b in text)


def path_of(method, target):
    """The path in a request target, as upslot logs it."""
    if method == "CONNECT":
        return b""
    if found := re.match(rb"(?i)https?://[^/?]*", target):
        target = target[found.end():]
    return target.split(b"?")[0] or b"/"


class Record:
    """All requests and answers that passed the relay."""

    def __init__(self, relay):
        # By client, method and path: requests that upslot must have logged, and that it may have logged. By client and
        # method: requests that it answered, and requests that were incomplete.
        self.must, self.may, self.answered, self.incomplete = Counter(), Counter(), Counter(), Counter()
        self.stored, self.served, self.faults = {}, [], 0
        for there, back in relay.connections:
            self.take(bytes(there), bytes(back))

    def take(self, there, back):
        requests, partial, malformed = read_requests(there)
        methods = [method for method, *_ in requests + partial]
        if malformed and not partial:
            methods += [malformed.method]
        answers = read_answers(back, methods)
        assert len(answers) <= len(requests) + bool(malformed), \
            f"{len(answers)} answers to {len(requests)} requests: {there!r}\n{back!r}"
        for (method, target, fields, body), answer in zip(requests + partial, answers + [None] * len(requests + partial)):
            clients = [value.decode("latin-1") for name, value in fields if name == b"x-forwarded-for"]
            assert len(clients) == 1 and clients[0].startswith(CLIENTS), f"whose request is this? {there!r}"
            key = clients[0], method, escaped(path_of(method, target))
            self.may[key] += 1
            if answer is None:
                self.incomplete[clients[0], method] += 1
                continue
            status, closes, content = answer
            # A proxy may or may not wait for the answer to an incomplete request.
            (self.incomplete if body is None else self.answered)[clients[0], method] += 1
            if status in (400, 414, 431, 501, 505) and closes:
                self.faults += 1
            else:
                self.must[key] += 1
            if status == 201:
                assert body is not None, f"stored, and not whole: {there!r}"
                self.stored[path_of(method, target).decode("latin-1").lstrip("/")] = body
            if status == 200 and method == "GET" and content.startswith(b"file "):
                self.served.append((clients[0], target, content))
        if malformed and len(answers) > len(requests + partial):
            # A malformed request must be refused and the connection closed.
            status, closes, _ = answers[-1]
            client = re.findall(rb"(?i)\r\nx-forwarded-for: (127\.10\.[0-9.]+)\r\n", malformed.head)[-1]
            # The client may not have sent all of it.
            self.incomplete[client.decode(), malformed.method] += 1
            assert status >= 400 and closes, f"{status} to a malformed request: {malformed} in {malformed.head[:500]!r}"
            self.faults += 1


@test(servers=(None,), deadline=1200 if LONG else 180)
async def proxies_and_upslot_agree_on_every_request(case):
    up = await case.upslot(slot_secret=SLOT_SECRET, trusted_proxies=["127.0.0.1"])
    names = ["pub/r/a.txt", "pub/r/b c.txt", "pub/r/très.txt", "pub/r/smuggled", "pub/r/.hidden", "pub/r/a+b.txt",
             "pub/r/[x].txt", "pub/r/{x}.txt", "pub/r/a&b.txt", "pub/r/a=b.txt", "pub/r/a.txt;x", "pub/r/%61.txt",
             "other/r/d.txt", "a.txt"]
    for name in names:
        path = up.store / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("file " + name)
    relay = Relay(up.port)
    await relay.start()
    case.background(relay.server.serve_forever())
    proxies = Proxies(case, relay.port)
    await proxies.start(case)

    texts, todo = {}, asyncio.Queue()
    for text in cases():
        for port in proxies.ports:
            number = len(texts)
            address = f"{CLIENTS}{number >> 8}.{number & 255}"
            texts[address] = text.replace("{put}", own_slot_target(f"put/{number}/f", len(BODY), SLOT_SECRET)).encode("latin-1")
            todo.put_nowait((port, address))
    assert len(texts) < 65_000

    async def work():
        while not todo.empty():
            port, address = todo.get_nowait()
            await send(port, address, texts[address])

    await asyncio.gather(*(work() for _ in range(AT_A_TIME)))

    def logged():
        lines = (re.search(r"request conn=\S+ from=(\S+) method=(\S+) path=(.*)", line) for line in up.process.lines)
        return Counter(found.groups() for found in lines if found)

    # Log lines may arrive later than the answers.
    with contextlib.suppress(AssertionError):
        await until(lambda: not Record(relay).must - logged(), "all in upslot's log")
        await until(lambda: not Record(relay).answered - proxies.forwarded()[0], "all in the proxies' logs")
    record, asked, (forwarded, paths) = Record(relay), logged(), proxies.forwarded()

    def shown(counter):
        return "\n".join(f"{count} of {key}: {texts.get(key[0])!r}, {paths.get(key[0])}"
                         for key, count in list(counter.items())[:5])

    smuggled = asked - record.may
    assert not smuggled, "upslot read requests that no proxy forwarded:\n" + shown(smuggled)
    lost = record.must - asked
    assert not lost, "upslot answered requests that it did not log:\n" + shown(lost)
    unforwarded = record.answered - forwarded
    assert not unforwarded, "upslot answered requests that the proxies did not log:\n" + shown(unforwarded)
    unanswered = forwarded - record.answered - record.incomplete
    assert not unanswered, "the proxies log answers that upslot did not give:\n" + shown(unanswered)
    check_files(up, record, paths)
    assert len(record.stored) > 100 and len(record.served) > 100 and record.faults > 10, \
        f"{len(record.stored)} stored, {len(record.served)} served, {record.faults} refused: too few for a result"


def check_files(up, record, paths):
    """Compares stored files with the bodies of uploads, and downloads with the paths of their requests."""
    # Stored files are the bodies as the proxy delimited them, with the size of the slot.
    files = {name for name in up.files() if name.startswith("put/")}
    check("stored files", files ^ set(record.stored), set())
    for name in files:
        content = (up.store / name).read_bytes()
        assert content == record.stored[name], f"{name}: {content!r}, sent {record.stored[name]!r}"
        check(f"length of {name}", len(content), len(BODY))
    # upslot sends the file that the path, decoded once, names for nginx as well; or, if there is none, the file that the
    # path decoded twice names, because ejabberd 23.01 encodes URLs twice.
    for client, target, content in record.served:
        name = content.removeprefix(b"file ")
        path = path_of("GET", target).lstrip(b"/")
        once = urllib.parse.unquote_to_bytes(path)
        again = urllib.parse.unquote_to_bytes(once.split(b"?")[0])
        assert name == once or name == again and not os.path.exists(os.path.join(os.fsencode(up.store), once)), \
            f"{target} is {name}"
        assert b"/." not in b"/" + name, f"the hidden {target} was served"
        read = [entry["path"] for entry in paths[client] if entry["log"] == "nginx"]
        assert not read or "/" + os.fsdecode(once) in read, f"nginx reads {target} as {read}"
