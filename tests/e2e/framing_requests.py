"""Requests that two HTTP readers might delimit differently, as text of one byte per character."""

import random

from harness import LONG

GENERATED = 10_000 if LONG else 200


# A request within a body, which must never be taken for one. It looks as if the proxy had sent it.
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
    """Heads and bodies that two readers might delimit differently. A GET follows each of them."""
    number, half = len(BODY), len(BODY) // 2
    yield put(LENGTH, BODY)
    yield put(CODED, CHUNKED)
    # Lengths.
    for value in (f"+{number}", f"-{number}", f"0{number}", f"000000000000000000{number}", f"{number} ", f"\t{number}",
                  f"{number},{number}", f"{number}, {number}", f"{number},5", f"5,{number}", f"{number};", f"{number}a",
                  f"0x{number:x}", f"{number}.0", f"{number}e0", f"'{number}'", f'"{number}"', "", " ", "0", "5",
                  f"{number}\x0b", f"{number}\x00", "18446744073709551615", "18446744073709551616",
                  f"1844674407370955161600{number}", "9223372036854775808", f"{number}\r", f"{number}\r\n 5",
                  f"{number}\r\n\t", f"5 {number}", f"{number}\xa0", f"\xa0{number}", "NaN"):
        yield put(f"Content-Length: {value}\r\n", BODY)
    for first, second in ((number, number), (number, 5), (5, number), (0, number), (number, 0)):
        yield put(f"Content-Length: {first}\r\nContent-Length: {second}\r\n", BODY)
        yield put(f"Content-Length: {first}\r\nX: y\r\ncontent-length: {second}\r\n", BODY)
    # Names that resemble the right one.
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
    # Bodies of methods that have none, and bare line feeds.
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
    """Spellings of the path of a file, and of paths beside it, above it, and hidden."""
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
    """All requests; `{put}` stands for a signed target for `BODY`."""
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
