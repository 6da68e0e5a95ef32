"""Dubious requests through real proxies: whatever nginx or HAProxy forwards means the same to upslot.

Every request of a client goes to a proxy, from an address of its own (127.10.0.0/16), and from there through a relay
that keeps what was said to upslot. Afterwards three accounts are compared: what the proxy says that it forwarded, what
the relay saw, read by a small reader of its own, and what upslot says that it was asked. A request that was hidden in
a body, and any other end of a body than the proxy's, makes them differ; stored files are compared byte for byte.
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
import time
import urllib.parse
from collections import Counter, namedtuple

from harness import LONG, PATIENCE, Process, check, free_port, port_open, test, until

SLOT_SECRET = "a secret that signs the slots of this test"
# Where clients come from; a number follows.
CLIENTS = "127.10."
GENERATED = 10_000 if LONG else 200
AT_A_TIME = 16


# Requests ------------------------------------------------------------------------------------------------------------

def signed(path, size):
    """The target of a PUT of `size` bytes to `path`; slots are signed as src/slot/own.rs says."""
    end = int(time.time()) + 3600
    message = b"\0".join([b"upslot1", path.encode(), b"%d" % size, b"%d" % end, b"0", b"-"])
    tag = base64.urlsafe_b64encode(hmac.digest(SLOT_SECRET.encode(), message, "sha256")).decode().rstrip("=")
    return f"/{path}?size={size}&until={end}&sig={tag}"


# A request that must never be one; what is in it makes it look like the proxy's own.
HIDDEN = "GET /pub/r/smuggled HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 127.10.255.255\r\n\r\n"
BODY = "hello" + HIDDEN
GET = "GET /pub/r/a.txt HTTP/1.1\r\nHost: a\r\n\r\n"
LENGTH = f"Content-Length: {len(BODY)}\r\n"
CODED = "Transfer-Encoding: chunked\r\n"
CHUNKED = f"{len(BODY):x}\r\n{BODY}\r\n0\r\n\r\n"


def put(fields, rest, line="PUT {put} HTTP/1.1", host="Host: a\r\n"):
    return f"{line}\r\n{host}{fields}\r\n{rest}"


def get(target, fields="", line="GET {} HTTP/1.1"):
    return line.format(target) + f"\r\nHost: a\r\n{fields}\r\n"


def framings():
    """Heads and bodies that two readers could take apart in two ways. A GET follows each of them."""
    number, half = len(BODY), len(BODY) // 2
    yield put(LENGTH, BODY)
    yield put(CODED, CHUNKED)
    # Lengths.
    for value in (f"+{number}", f"-{number}", f"0{number}", f"000000000000000000{number}", f"{number} ", f"\t{number}",
                  f"{number},{number}", f"{number}, {number}", f"{number},5", f"5,{number}", f"{number};", f"{number}a",
                  f"0x{number:x}", f"{number}.0", f"{number}e0", f"'{number}'", f'"{number}"', "", " ", "0", "5",
                  f"{number}\x0b", f"{number}\x00", "18446744073709551615", "18446744073709551616",
                  f"1844674407370955161600{number}", f"9223372036854775808", f"{number}\r", f"{number}\r\n 5",
                  f"{number}\r\n\t", f"5 {number}", f"{number}\xa0", f"\xa0{number}", "NaN"):
        yield put(f"Content-Length: {value}\r\n", BODY)
    for first, second in ((number, number), (number, 5), (5, number), (0, number), (number, 0)):
        yield put(f"Content-Length: {first}\r\nContent-Length: {second}\r\n", BODY)
        yield put(f"Content-Length: {first}\r\nX: y\r\ncontent-length: {second}\r\n", BODY)
    # Names that are nearly the right one.
    for name in ("Content-Length ", "Content-Length\t", " Content-Length", "Content_Length", "Content-Length\x00",
                 "Content-Length\xad", "Content-Len\xadgth", "Content Length", "content-length", "CONTENT-LENGTH",
                 "X\r\nContent-Length", "X: y\nContent-Length", "X: y\rContent-Length", "\x00Content-Length", "",
                 "Content-Length:", "\xefContent-Length", "X\x00: y\r\nContent-Length"):
        yield put(f"{name}: {number}\r\n", BODY)
        yield put(f"{name}: 5\r\n{LENGTH}", BODY)
        coding = name.replace("Content", "Transfer").replace("Length", "Encoding").replace("Len", "Enco").replace(
            "content", "transfer").replace("length", "encoding").replace("CONTENT", "TRANSFER").replace(
            "LENGTH", "ENCODING").replace("gth", "ding")
        yield put(f"{coding}: chunked\r\n", CHUNKED)
        yield put(f"{coding}: chunked\r\n{LENGTH}", BODY)
    # Codings.
    for value in ("chunked", "Chunked", "CHUNKED", "chunked ", "\tchunked", "chunked,", ",chunked", "chunked, chunked",
                  "identity", "identity, chunked", "chunked, identity", "gzip, chunked", "chunked, gzip", "xchunked",
                  "chunkedx", "chunked;q=1", "chunked;", '"chunked"', "'chunked'", "chunked\x0b", "\x0bchunked",
                  "chun\x00ked", "chunk ed", "", " ", "\xa0chunked", "chunked\xa0", "cow", "cow, chunked", "chunked\r",
                  "\r\n chunked", "x\r\n chunked", "chunked\r\n x", "trailers, chunked", "chu\xadnked"):
        yield put(f"Transfer-Encoding: {value}\r\n", CHUNKED)
        yield put(f"Transfer-Encoding: {value}\r\n{LENGTH}", BODY)
        yield put(f"{LENGTH}Transfer-Encoding: {value}\r\n", CHUNKED)
    for first, second in (("chunked", "chunked"), ("chunked", "identity"), ("identity", "chunked"), ("x", "chunked"),
                          ("chunked", "x"), ("", "chunked"), ("chunked", ""), ("gzip", "chunked")):
        yield put(f"Transfer-Encoding: {first}\r\nTransfer-Encoding: {second}\r\n", CHUNKED)
    for line in ("PUT {put} HTTP/1.0", "PUT {put} HTTP/1.01", "PUT {put} HTTP/2.0", "PUT {put}", "PUT {put} http/1.1",
                 "PUT {put} HTTP/1.1 ", "PUT  {put} HTTP/1.1", "PUT\t{put}\tHTTP/1.1", " PUT {put} HTTP/1.1",
                 "put {put} HTTP/1.1", "PUT {put} HTTP/1.1\r", "PUT {put} HTTP/0.9", "PUT {put} HTTP/1.2",
                 "\r\nPUT {put} HTTP/1.1", "\nPUT {put} HTTP/1.1", "POST {put} HTTP/1.1", "GET {put} HTTP/1.1",
                 "PUT http://a{put} HTTP/1.1", "PUT {put} HTTP/1.1\r\nX: y", "PUT\x00 {put} HTTP/1.1"):
        yield put(LENGTH, BODY, line)
        yield put(CODED, CHUNKED, line)
        yield put("Connection: keep-alive\r\n" + LENGTH, BODY, line)
    # Chunks.
    for chunks in (f"{number:X}\r\n{BODY}\r\n0\r\n\r\n", f"000{number:x}\r\n{BODY}\r\n000\r\n\r\n",
                   f"0x{number:x}\r\n{BODY}\r\n0\r\n\r\n", f"+{number:x}\r\n{BODY}\r\n0\r\n\r\n",
                   f" {number:x}\r\n{BODY}\r\n0\r\n\r\n", f"{number:x} \r\n{BODY}\r\n0\r\n\r\n",
                   f"{number:x}\t\r\n{BODY}\r\n0\r\n\r\n", f"{number:x};a\r\n{BODY}\r\n0;b\r\n\r\n",
                   f"{number:x};a=b\r\n{BODY}\r\n0\r\n\r\n", f"{number:x}; a = \"b;c\"\r\n{BODY}\r\n0\r\n\r\n",
                   f"{number:x};a=\"\r\n\"\r\n{BODY}\r\n0\r\n\r\n", f"{number:x};\n\r\n{BODY}\r\n0\r\n\r\n",
                   f"{number:x}\n{BODY}\r\n0\r\n\r\n", f"{number:x}\r{BODY}\r\n0\r\n\r\n",
                   f"{number:x}\r\n{BODY}\n0\r\n\r\n", f"{number:x}\r\n{BODY}0\r\n\r\n",
                   f"{number:x}\r\n{BODY}\r\n0\n\n", f"{number:x}\r\n{BODY}\r\n0\r\n\n",
                   f"{number:x}\r\n{BODY}\r\n0\r\n", f"{number:x}\r\n{BODY}\r\n0", f"{number:x}\r\n{BODY}",
                   f"{half:x}\r\n{BODY[:half]}\r\n{number - half:x}\r\n{BODY[half:]}\r\n0\r\n\r\n",
                   f"{number - 1:x}\r\n{BODY}\r\n0\r\n\r\n", f"{number + 1:x}\r\n{BODY}\r\n0\r\n\r\n",
                   f"10000000000000000{number:x}\r\n{BODY}\r\n0\r\n\r\n", f"f{'f' * 15}\r\n{BODY}\r\n0\r\n\r\n",
                   f"8000000000000000\r\n{BODY}\r\n0\r\n\r\n", f"-{number:x}\r\n{BODY}\r\n0\r\n\r\n",
                   f"{'0' * 40}{number:x}\r\n{BODY}\r\n0\r\n\r\n", f"{number:x}g\r\n{BODY}\r\n0\r\n\r\n",
                   f"{number:x}\x00\r\n{BODY}\r\n0\r\n\r\n", f"\r\n{number:x}\r\n{BODY}\r\n0\r\n\r\n",
                   f"{number:x}\r\n{BODY}\r\n0\r\nX: y\r\n\r\n", f"{number:x}\r\n{BODY}\r\n0\r\n{LENGTH}\r\n",
                   f"{number:x}\r\n{BODY}\r\n0\r\n{CODED}Host: b\r\n\r\n", f"{number:x}\r\n{BODY}\r\n0\r\n{GET}",
                   f"{number:x}\r\n{BODY}\r\n0\r\nX : y\r\n\r\n", f"{number:x}\r\n{BODY}\r\n0\r\nbad\r\n\r\n",
                   f"{number:x}\r\n{BODY}\r\n0\r\nX: y\r\n z\r\n\r\n", f"{number:x}\r\n{BODY}\r\n0\r\nX: y\n\r\n",
                   f"{number:x};{'a' * 3000}\r\n{BODY}\r\n0\r\n\r\n", f"{number:x}\r\n{BODY}\r\n0\r\nX: {'y' * 9000}\r\n\r\n"):
        yield put(CODED, chunks)
        yield get("/pub/r/a.txt", CODED) + chunks
    # Expectations, upgrades and connections.
    for field in ("Expect: 100-continue", "Expect: 100-Continue", "Expect: 100-continue, 100-continue", "Expect: x",
                  "Expect:", "Expect: 100-continue\r\nExpect: x", "Expect : 100-continue", "Upgrade: h2c",
                  "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
                  "Connection: Upgrade\r\nUpgrade: websocket", "Connection: close", "Connection: keep-alive, close",
                  "Connection: Content-Length", "Connection: Transfer-Encoding", "Connection: X-Forwarded-For",
                  "Proxy-Connection: keep-alive", "TE: trailers", "Trailer: Content-Length", "Content-Encoding: gzip",
                  "X-Forwarded-For: 127.10.255.255", "Forwarded: for=127.10.255.255", "Max-Forwards: 0",
                  "X: caf\xe9", "X\xe9: y", "X: a\x00b", "X: a\rb", "X: a\nb", "X:", "X", ":", ": x", "X: y\r\n z",
                  "X: y\r\n\tz", "X;: y", "X(: y", "X[]: y", "\"X\": y", "X: " + "y" * 4000, "Y" * 300 + ": z",
                  "Content-Range: bytes 0-4/5", "Content-Type: text/plain\r\nContent-Type: image/png", "X_Y: z",
                  "Method: GET", "X-HTTP-Method-Override: DELETE", "HTTP/1.1 200 OK", "GET / HTTP/1.1"):
        yield put(f"{field}\r\n{LENGTH}", BODY)
        yield put(f"{LENGTH}{field}\r\n", BODY)
        yield put(f"{CODED}{field}\r\n", CHUNKED)
        yield get("/pub/r/a.txt", f"{field}\r\n{LENGTH}") + BODY
    for host in ("", "Host: a\r\nHost: b\r\n", "Host: a\r\nHost: a\r\n", "Host:\r\n", "Host: a b\r\n", "Host: a,b\r\n",
                 "Host : a\r\n", "Host: a:b\r\n", "Host: a/b\r\n", "Host: [::1]\r\n", "Host: a@b\r\n", "Host: a\x00\r\n"):
        yield put(LENGTH, BODY, host=host)
    # Bodies where none are expected, and bare ends of lines.
    for line in ("GET /pub/r/a.txt HTTP/1.1", "HEAD /pub/r/a.txt HTTP/1.1", "OPTIONS /pub/r/a.txt HTTP/1.1",
                 "OPTIONS * HTTP/1.1", "DELETE /pub/r/a.txt HTTP/1.1", "POST /pub/r/a.txt HTTP/1.1",
                 "TRACE /pub/r/a.txt HTTP/1.1", "CONNECT a:80 HTTP/1.1", "PATCH /pub/r/a.txt HTTP/1.1",
                 "get /pub/r/a.txt HTTP/1.1", "G\xe9T /pub/r/a.txt HTTP/1.1", "BREW /pub/r/a.txt HTTP/1.1",
                 "GET /pub/r/a.txt", "GET /pub/r/a.txt HTTP/1.0", "PRI * HTTP/2.0"):
        for fields, body in ((LENGTH, BODY), (CODED, CHUNKED), (LENGTH + CODED, CHUNKED), ("", BODY)):
            yield put(fields, body, line)
            yield put(fields, body, line).replace("\r\n", "\n")
    yield "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    yield "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    yield "\x00" * 100
    yield GET[:-2] + "X" * 40_000 + "\r\n\r\n"
    yield "GET /" + "a" * 9000 + " HTTP/1.1\r\nHost: a\r\n\r\n"


def targets():
    """Spellings of the path of a file, and of what lies beside, above or hidden below it."""
    for path in ("/pub/r/a.txt", "/pub/r/b%20c.txt", "/pub/r/b c.txt", "/pub/r/%61.txt", "/pub/r/a%2Etxt", "/pub/r/a%2etxt",
                 "/pub%2Fr/a.txt", "/pub%2fr/a.txt", "/pub/r%5ca.txt", "/pub/r\\a.txt", "//pub/r/a.txt", "/pub//r/a.txt",
                 "/pub/r//a.txt", "/./pub/r/a.txt", "/pub/./r/a.txt", "/pub/r/./a.txt", "/pub/x/../r/a.txt",
                 "/pub/r/../r/a.txt", "/pub/%2e%2e/pub/r/a.txt", "/pub/%2E%2E/other/r/d.txt", "/pub/..%2fother/r/d.txt",
                 "/pub/r/..;/../other/r/d.txt", "/pub/r/a.txt;x", "/pub;x/r/a.txt", "/pub/r/a.txt?x", "/pub/r/a.txt?x?y=/",
                 "/pub/r/a.txt#x", "/pub/r/a.txt%23", "/pub/r/a.txt%3f", "/pub/r/a.txt%00", "/pub/r/a.txt%00.jpg",
                 "/pub/r/a.txt%0d%0aX:%20y", "/pub/r/a.txt%20", "/pub/r/a.txt/", "/pub/r/a.txt/.", "/pub/r/a.txt/..",
                 "/pub/r/%2561.txt", "/pub/r/%25%36%31.txt", "/pub/%252e%252e/pub/r/a.txt", "/pub/r/%c0%ae%c0%ae/a.txt",
                 "/pub/r/tr%C3%A8s.txt", "/pub/r/tr\xc3\xa8s.txt", "/pub/r/tr%E8s.txt", "/pub/r/tr\xe8s.txt", "/pub/r/%zz",
                 "/pub/r/%", "/pub/r/%6", "/pub/r/a.txt\x00", "/pub/r/a\x01.txt", "/pub/r/a\x7f.txt", "/pub/r/a\tb",
                 "/.upslot/slot_secret", "/%2eupslot/slot_secret", "/pub/../.upslot/slot_secret", "/pub/r/.hidden",
                 "/pub/r/%2ehidden", "/../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/pub/r/..", "/..", "/.", "/", "//", "",
                 "*", "pub/r/a.txt", "http://a/pub/r/a.txt", "http://a", "HTTP://A/pub/r/a.txt", "http://a:80/pub/r/a.txt",
                 "http://a/../pub/r/a.txt", "https://a/pub/r/a.txt", "ftp://a/pub/r/a.txt", "//a/pub/r/a.txt",
                 "http:/pub/r/a.txt", "http://u@a/pub/r/a.txt", "http://a?x", "http://a/pub/r/a.txt?http://b/",
                 "/pub/r/a.txt HTTP/1.1", "/pub/r/a+b.txt", "/pub/r/a%2Bb.txt", "/pub/r/[x].txt", "/pub/r/{x}.txt",
                 "/pub/r/a.txt|", "/pub/r/\"a.txt", "/pub/r/<a>.txt", "/pub/r/^a`.txt", "/pub/r/a&b.txt", "/pub/r/a=b.txt"):
        yield path


def cases():
    """What is sent, as text of one byte per character; `{put}` is a signed target for `BODY`."""
    for framing in framings():
        yield framing + GET
    for path in targets():
        yield get(path) + GET
        yield get(path, line="HEAD {} HTTP/1.1") + GET
        yield get(path, line="GET {} HTTP/1.0")
    dice = random.Random(5)
    lines = [c for c in framings() if c.startswith("PUT {put} HTTP/1.1\r\nHost: a\r\n") and len(c) < 2000]
    fields = [line + "\r\n" for c in lines for line in c[len("PUT {put} HTTP/1.1\r\nHost: a\r\n"):].split("\r\n\r\n")[0].split("\r\n")]
    bodies = [c.split("\r\n\r\n", 1)[1] for c in lines]
    starts = [c.split("\r\n", 1)[0] for c in framings() if len(c) < 2000] + ["PUT {put} HTTP/1.1"] * 40
    for _ in range(GENERATED):
        text = ""
        for _ in range(dice.choice((1, 1, 2, 3))):
            some = [dice.choice(fields) for _ in range(dice.choice((0, 1, 2, 2, 3)))]
            if dice.random() < 0.8:
                some.insert(dice.randrange(len(some) + 1), "Host: a\r\n")
            if dice.random() < 0.5:
                some.append(dice.choice((LENGTH, CODED)))
            text += dice.choice(starts) + "\r\n" + "".join(some) + "\r\n" + dice.choice(bodies)
        for _ in range(dice.choice((0, 0, 0, 1, 2))):
            at = dice.randrange(len(text))
            text = text[:at] + dice.choice("\0\t\n\r \x0b\x7f\xa0:;,%\"0a") + text[at + dice.randrange(2):]
        yield text + GET


# Readers of what went through the relay ------------------------------------------------------------------------------

class Odd(Exception):
    """What no strict reader takes for a request."""


def read_fields(data, at):
    """The lines of a head, and where it ends."""
    end = data.find(b"\r\n\r\n", at)
    if end < 0:
        raise Odd("no end of the head")
    lines = data[at:end].split(b"\r\n")
    if any(re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", line) for line in lines):
        raise Odd("a control character")
    fields = []
    for line in lines[1:]:
        if not (found := re.fullmatch(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*", line, re.S)):
            raise Odd(f"no field: {line!r}")
        fields.append((found[1].lower(), found[2]))
    return lines[0], fields, end + 4


def read_body(data, at, fields):
    """The body behind a head, and where it ends."""
    lengths = [value for name, value in fields if name == b"content-length"]
    codings = [value for name, value in fields if name == b"transfer-encoding"]
    if codings:
        if lengths or len(codings) > 1 or codings[0].lower() != b"chunked":
            raise Odd("a coding beside something else")
        body = b""
        while True:
            end = data.find(b"\r\n", at)
            if end < 0 or not (found := re.fullmatch(rb"([0-9A-Fa-f]{1,16})[ \t]*(;.*)?", data[at:end], re.S)):
                raise Odd("no size of a chunk")
            size, at = int(found[1], 16), end + 2
            if not size:
                break
            if data[at + size:at + size + 2] != b"\r\n":
                raise Odd("a chunk without its end")
            body, at = body + data[at:at + size], at + size + 2
        while not data.startswith(b"\r\n", at):
            end = data.find(b"\r\n", at)
            if end < 0:
                raise Odd("trailers without an end")
            at = end + 2
        return body, at + 2
    if len(lengths) > 1 or lengths and not re.fullmatch(rb"[0-9]+", lengths[0]):
        raise Odd("lengths")
    size = int(lengths[0]) if lengths else 0
    if at + size > len(data):
        raise Odd("a body cut short")
    return data[at:at + size], at + size


def read_requests(data):
    """The whole requests on a connection to upslot, (method, target, fields, body); one that breaks off in its body or
    has an odd one, without the body; and what is odd."""
    requests, at = [], 0
    while at < len(data):
        partial = []
        try:
            line, fields, behind = read_fields(data, at)
            if not (found := re.fullmatch(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([^ ]+) HTTP/1\.[01]", line)):
                raise Odd(f"no request line: {line!r}")
            partial = [(found[1].decode(), found[2], fields, None)]
            body, at = read_body(data, behind, fields)
        except Odd as odd:
            odd.method = data[at:].lstrip(b"\r\n").split(b" ")[0].decode("latin-1")
            odd.seen = data[at:].split(b"\r\n\r\n")[0] + b"\r\n"
            return requests, partial, odd
        requests.append((found[1].decode(), found[2], fields, body))
    return requests, [], None


def read_answers(data, methods):
    """upslot's answers on a connection, the interim ones left out: (status, whether it is the last, body)."""
    answers, at = [], 0
    while at < len(data):
        line, fields, at = read_fields(data, at)
        status = int(re.fullmatch(rb"HTTP/1\.1 (\d{3}) .*", line)[1])
        if status < 200:
            continue
        to_head = len(answers) < len(methods) and methods[len(answers)] == "HEAD"
        body = b""
        if not to_head and status not in (204, 304):
            body, at = read_body(data, at, fields)
        answers.append((status, (b"connection", b"close") in fields, body))
    return answers


class Relay:
    """Stands before upslot and keeps both directions of every connection."""

    def __init__(self, port_behind):
        self.port, self.port_behind, self.connections = free_port(), port_behind, []

    async def start(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", self.port)

    async def serve(self, reader, writer):
        there, back = bytearray(), bytearray()
        self.connections.append((there, back))
        behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", self.port_behind)

        async def copy(source, sink, kept):
            with contextlib.suppress(ConnectionError):
                while data := await source.read(65536):
                    kept += data
                    sink.write(data)
                    await sink.drain()
                sink.write_eof()

        try:
            await asyncio.gather(copy(reader, behind_writer, there), copy(behind_reader, writer, back))
        finally:
            for one in (writer, behind_writer):
                one.close()


# The proxies ---------------------------------------------------------------------------------------------------------

class Proxies:
    """An nginx and an HAProxy, each with several ways to forward; all of them to the relay."""

    NAMES = ("nginx", "nginx, HTTP/1.0", "nginx, buffering, lenient", "haproxy", "haproxy, lenient")

    def __init__(self, case, relay_port):
        self.folder = case.folder / "proxies"
        self.folder.mkdir()
        self.ports = [free_port() for _ in self.NAMES]
        forward = "proxy_pass http://relay; proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header Forwarded '';"
        kept = f"{forward} proxy_http_version 1.1; proxy_set_header Connection '';"
        first, second, third, fourth, fifth = self.ports
        paths = "".join(f"{kind}_temp_path {self.folder}/{kind};\n"
                        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (self.folder / "nginx.conf").write_text(
            ("user root;\n" if os.geteuid() == 0 else "") + f"""
daemon off;
error_log stderr error;
pid {self.folder}/nginx.pid;
events {{ }}
http {{
{paths}
log_format forwarded escape=json
    '{{"log": "nginx", "client": "$remote_addr", "method": "$request_method", "path": "$uri", "status": "$status", '
    '"upstream": "$upstream_status"}}';
access_log /dev/stdout forwarded;
client_max_body_size 0;
client_body_timeout 5s;
client_header_timeout 5s;
proxy_ignore_client_abort on;
upstream relay {{ server 127.0.0.1:{relay_port} max_fails=0; keepalive 4; }}
server {{ listen 127.0.0.1:{first}; location / {{ {kept} proxy_request_buffering off; }} }}
server {{ listen 127.0.0.1:{second}; location / {{ {forward} }} }}
server {{
    listen 127.0.0.1:{third};
    underscores_in_headers on;
    ignore_invalid_headers off;
    merge_slashes off;
    location / {{ {kept} }}
}}
}}
""")
        (self.folder / "haproxy.cfg").write_text(f"""
global
    log stdout format raw local0
defaults
    mode http
    log global
    timeout connect 5s
    timeout client 5s
    timeout server 10s
    http-reuse always
    option forwardfor
    log-format '{{"log": "haproxy", "client": "%ci", "method": "%HM", "status": "%ST", "server": "%s", "ends": "%ts"}}'
frontend strict
    bind 127.0.0.1:{fourth}
    http-request del-header X-Forwarded-For
    default_backend relay
frontend lenient
    bind 127.0.0.1:{fifth}
    option accept-invalid-http-request
    http-request del-header X-Forwarded-For
    default_backend relay
backend relay
    server relay 127.0.0.1:{relay_port}
""")

    async def start(self, case):
        self.nginx = await Process.start(
            "nginx", ["nginx", "-e", "stderr", "-p", self.folder, "-c", self.folder / "nginx.conf"])
        self.haproxy = await Process.start("haproxy", ["haproxy", "-db", "-f", self.folder / "haproxy.cfg"])
        for process in (self.nginx, self.haproxy):
            case.ends(namedtuple("Started", "process")(process))
        for port in self.ports:
            await port_open(port, self.nginx if port in self.ports[:3] else self.haproxy)

    def forwarded(self):
        """What the proxies say that they had answered by upslot: how many requests of each client and method."""
        told, paths = Counter(), {}
        for line in self.nginx.lines + self.haproxy.lines:
            if not line.startswith('{"log"'):
                continue
            entry = json.loads(line)
            upstream = entry.get("upstream", "").split(", ")[-1]
            if entry.get("server") == "relay":
                upstream = entry["status"]
            if upstream.isdigit() and upstream != "502":
                told[entry["client"], entry["method"]] += 1
                paths.setdefault(entry["client"], []).append(entry)
        return told, paths


async def send(port, address, text):
    """Sends the bytes from this address, ends the sending side, and reads until the proxy closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    answer = b""
    try:
        writer.write(text)
        writer.write_eof()
        while data := await asyncio.wait_for(reader.read(65536), PATIENCE):
            answer += data
    except OSError:
        # A proxy that refuses may close before it has read everything.
        pass
    finally:
        writer.transport.abort()
    return answer


# The comparison ------------------------------------------------------------------------------------------------------

def escaped(text):
    """Bytes as upslot's log shows them."""
    special = {9: "\\t", 10: "\\n", 13: "\\r", 34: '\\"', 39: "\\'", 92: "\\\\"}
    return "".join(special.get(b) or (chr(b) if 32 <= b < 127 else f"\\x{b:02x}") for b in text)


def path_of(method, target):
    """The part of a target that names a file; upslot's log shows it."""
    if method == "CONNECT":
        return b""
    if found := re.match(rb"(?i)https?://[^/?]*", target):
        target = target[found.end():]
    return target.split(b"?")[0] or b"/"


class Account:
    """Everything that went through the relay, taken apart."""

    def __init__(self, relay):
        # By client, method and path: what upslot has to have been asked, what it may have been asked, and by client
        # and method what it answered.
        self.must, self.may, self.answered, self.broken_off = Counter(), Counter(), Counter(), Counter()
        self.stored, self.served, self.faults = {}, [], 0
        for there, back in relay.connections:
            self.take(bytes(there), bytes(back))

    def take(self, there, back):
        requests, partial, odd = read_requests(there)
        methods = [method for method, *_ in requests + partial]
        if odd and not partial:
            methods += [odd.method]
        answers = read_answers(back, methods)
        assert len(answers) <= len(requests) + bool(odd), \
            f"{len(answers)} answers to {len(requests)} requests: {there!r}\n{back!r}"
        for (method, target, fields, body), answer in zip(requests + partial, answers + [None] * len(requests + partial)):
            clients = [value.decode("latin-1") for name, value in fields if name == b"x-forwarded-for"]
            assert len(clients) == 1 and clients[0].startswith(CLIENTS), f"whose request is this? {there!r}"
            key = clients[0], method, escaped(path_of(method, target))
            self.may[key] += 1
            if answer is None:
                self.broken_off[clients[0], method] += 1
                continue
            status, closes, content = answer
            # Whether the proxy still waits for the answer to a request that its client breaks off is its own affair.
            (self.broken_off if body is None else self.answered)[clients[0], method] += 1
            if status in (400, 414, 431, 501, 505) and closes:
                self.faults += 1
            else:
                self.must[key] += 1
            if status == 201:
                assert body is not None, f"stored, and not whole: {there!r}"
                self.stored[path_of(method, target).decode("latin-1").lstrip("/")] = body
            if status == 200 and method == "GET" and content.startswith(b"file "):
                self.served.append((clients[0], target, content))
        if odd and len(answers) > len(requests + partial):
            # What no strict reader understands is refused, and ends the connection.
            status, closes, _ = answers[-1]
            client = re.findall(rb"(?i)\r\nx-forwarded-for: (127\.10\.[0-9.]+)\r\n", odd.seen)[-1]
            # Nor is it known whether the client sent all of it.
            self.broken_off[client.decode(), odd.method] += 1
            assert status >= 400 and closes, f"{status} to what is odd: {odd} in {odd.seen[:500]!r}"
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
            texts[address] = text.replace("{put}", signed(f"put/{number}/f", len(BODY))).encode("latin-1")
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

    # The logs may come a moment later than the answers.
    with contextlib.suppress(AssertionError):
        await until(lambda: not Account(relay).must - logged(), "all in upslot's log")
        await until(lambda: not Account(relay).answered - proxies.forwarded()[0], "all in the proxies' logs")
    account, asked, (told, paths) = Account(relay), logged(), proxies.forwarded()

    def shown(counter):
        return "\n".join(f"{count} of {key}: {texts.get(key[0])!r}, {paths.get(key[0])}"
                         for key, count in list(counter.items())[:5])

    smuggled = asked - account.may
    assert not smuggled, "upslot was asked what no proxy has forwarded:\n" + shown(smuggled)
    lost = account.must - asked
    assert not lost, "upslot answered what it was not asked:\n" + shown(lost)
    unheard = account.answered - told
    assert not unheard, "upslot answered what the proxies did not ask:\n" + shown(unheard)
    unsaid = told - account.answered - account.broken_off
    assert not unsaid, "the proxies tell of answers that upslot did not give:\n" + shown(unsaid)

    # What is stored is what the proxy delimited, and as long as the slot says.
    files = {name for name in up.files() if name.startswith("put/")}
    check("stored files", files ^ set(account.stored), set())
    for name in files:
        content = (up.store / name).read_bytes()
        assert content == account.stored[name], f"{name}: {content!r}, sent {account.stored[name]!r}"
        check(f"length of {name}", len(content), len(BODY))
    # The file that upslot sends is the one that the path names, decoded once, to nginx as well; or, where there is no
    # such file, the one that it names when the whole URL was encoded once more, as ejabberd 23.01 does it.
    for client, target, content in account.served:
        name = content.removeprefix(b"file ")
        path = path_of("GET", target).lstrip(b"/")
        once = urllib.parse.unquote_to_bytes(path)
        again = urllib.parse.unquote_to_bytes(once.split(b"?")[0])
        assert name == once or name == again and not os.path.exists(os.path.join(os.fsencode(up.store), once)), \
            f"{target} is {name}"
        assert b"/." not in b"/" + name, f"{target} is hidden, and served"
        read = [entry["path"] for entry in paths[client] if entry["log"] == "nginx"]
        assert not read or "/" + os.fsdecode(once) in read, f"nginx reads {target} as one of {read}"
    assert len(account.stored) > 100 and len(account.served) > 100 and account.faults > 10, \
        f"{len(account.stored)} stored, {len(account.served)} served, {account.faults} refused: the cases show little"
