"""PUT and GET by curl: expectations, chunks, ranges, conditional requests, refusals."""

import asyncio
import re

from harness import KIB, MIB, check, content, curl, get, http_request, put, test


async def with_slot(case, size, **settings):
    """An upslot, a client, and a slot for a file of that size."""
    up = await case.upslot(**settings)
    romeo = await case.client()
    return up, romeo, await romeo.slot("file.bin", size)


def forged(url):
    """The URL with another signature."""
    return url[:-4] + ("AAAA" if url[-4:] != "AAAA" else "BBBB")


def file_with(case, body):
    path = case.folder / "body.bin"
    path.write_bytes(body)
    return path


@test()
async def put_with_expect_continue(case):
    body = content(2 * MIB)
    up, _, slot = await with_slot(case, len(body))
    path = file_with(case, body)
    done = await curl("-v", "-T", path, "-H", "Expect: 100-continue", "--expect100-timeout", "20", slot.put)
    check("status", done.code, 201)
    assert re.search(r"< HTTP/1\.1 100 ", done.err), "no 100 Continue was sent"
    check("Location", re.search(r"< Location: (\S+)", done.err, re.I)[1], slot.get)
    assert (await get(slot.get)).body == body


@test()
async def refusal_instead_of_continue(case):
    body = content(2 * MIB)
    up, _, slot = await with_slot(case, len(body))
    path = file_with(case, body)
    done = await curl("-v", "-T", path, "-H", "Expect: 100-continue", "--expect100-timeout", "20",
                      "-w", "%{stderr}\nsent=%{size_upload}\nstatus=%{http_code}", forged(slot.put))
    check("status", done.code, 403)
    assert "< HTTP/1.1 100" not in done.err, "100 was sent before the refusal"
    check("bytes sent", re.search(r"sent=(\d+)", done.err)[1], "0")
    check("files", up.files(), set())
    check("another expectation", (await put(slot.put, body, headers={"Expect": "dinner"})).status, 417)


@test()
async def chunked_put(case):
    body = content(300 * KIB)
    up, romeo, slot = await with_slot(case, len(body))
    path = file_with(case, body)
    chunked = ["-H", "Transfer-Encoding: chunked", "-H", "Expect:"]
    done = await curl(*chunked, "-T", path, slot.put)
    check("status", done.code, 201)
    assert (await get(slot.get)).body == body
    for size, status in ((len(body) - 1, 413), (len(body) + 1, 400)):
        slot = await romeo.slot("wrong.bin", size)
        check(f"{len(body)} bytes for {size}", (await curl(*chunked, "-T", path, slot.put)).code, status)
        check("GET", (await get(slot.get)).status, 404)
    check("files", len(up.files()), 1)


@test()
async def refused_puts(case):
    up, romeo, slot = await with_slot(case, 10)
    check("unsigned", (await put(slot.get, b"0123456789")).status, 403)
    check("forged", (await put(forged(slot.put), b"0123456789")).status, 403)
    check("other path", (await put(slot.put.replace("file.bin", "fool.bin"), b"0123456789")).status, 403)
    check("too long", (await put(slot.put, b"0123456789A")).status, 413)
    check("too short", (await put(slot.put, b"012345678")).status, 400)
    check("files", up.files(), set())
    check("valid", (await put(slot.put, b"0123456789")).status, 201)
    check("again", (await put(slot.put, b"9876543210")).status, 409)
    check("content", (await get(slot.get)).body, b"0123456789")
    reply = await http_request("DELETE", slot.get)
    check("DELETE", reply.status, 405)
    assert "PUT" in reply.headers["Allow"]
    check("no length", (await curl("-X", "PUT", slot.put)).code, 411)


@test()
async def early_refusal_reaches_a_client_that_keeps_sending(case):
    """A client that sends 5 MiB without waiting can read the refusal."""
    body = content(5 * MIB)
    _, _, slot = await with_slot(case, len(body))
    for attempt in range(5):
        done = await curl("-T", file_with(case, body), "-H", "Expect:", forged(slot.put))
        check("status", done.code, 403)
        assert len(done.out.splitlines()) == 1, f"not one readable line: {done.out}"


@test()
async def slot_expires(case):
    _, romeo, slot = await with_slot(case, 3, put_timeout=1)
    # The slot expires after one second, rounded up to a whole one.
    await asyncio.sleep(2.5)
    check("late PUT", (await put(slot.put, b"abc")).status, 403)


@test()
async def ranges(case):
    body = content(100 * KIB)
    _, _, slot = await with_slot(case, len(body))
    check("PUT", (await put(slot.put, body)).status, 201)
    for wanted, expected in (("0-99", body[:100]), ("1000-", body[1000:]), ("-7", body[-7:]), ("0-1", body[:2]),
                             ("0-999999999", body)):
        done = await curl("-r", wanted, "-D", "-", slot.get)
        head, _, found = done.out.partition(b"\r\n\r\n")
        check(f"status of {wanted}", done.code, 206)
        assert found == expected, f"{wanted}: wrong bytes"
        check("length", re.search(rb"(?i)content-length: (\d+)", head)[1], str(len(expected)).encode())
    reply = await get(slot.get, headers={"Range": "bytes=999999999-"})
    check("past the end", (reply.status, reply.headers["Content-Range"]), (416, f"bytes */{len(body)}"))
    reply = await get(slot.get, headers={"Range": "bytes=0-9,50-59"})
    check("two ranges", reply.status, 206)
    boundary = re.fullmatch(r"multipart/byteranges; ?boundary=\"?([^\"]+)\"?", reply.headers["Content-Type"])[1]
    parts = reply.body.split(b"--" + boundary.encode())
    check("parts", [p.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for p in parts[1:-1]], [body[:10], body[50:60]])
    # A download that was interrupted is resumed.
    half = case.folder / "half.bin"
    half.write_bytes(body[:5000])
    check("resumed", (await curl("-C", "-", "-o", half, slot.get)).code, 206)
    assert half.read_bytes() == body


@test()
async def conditions_and_caching(case):
    _, _, slot = await with_slot(case, 5)
    await put(slot.put, b"hello")
    first = await get(slot.get)
    tag = first.headers["ETag"]
    assert re.fullmatch(r'"[^"]+"', tag), f"not a strong tag: {tag}"
    assert "immutable" in first.headers["Cache-Control"]
    check("If-None-Match", (await get(slot.get, headers={"If-None-Match": tag})).status, 304)
    check("If-Match", (await get(slot.get, headers={"If-Match": '"other"'})).status, 412)
    since = {"If-Modified-Since": first.headers["Last-Modified"]}
    check("If-Modified-Since", (await get(slot.get, headers=since)).status, 304)
    check("If-Range", (await get(slot.get, headers={"If-Range": '"other"', "Range": "bytes=0-1"})).status, 200)


@test()
async def cors(case):
    _, _, slot = await with_slot(case, 5)
    preflight = {"Origin": "https://chat.example", "Access-Control-Request-Method": "PUT",
                 "Access-Control-Request-Headers": "content-type"}
    reply = await http_request("OPTIONS", slot.put, headers=preflight)
    check("preflight", (reply.status, reply.headers["Access-Control-Allow-Origin"]), (204, "*"))
    assert "PUT" in reply.headers["Access-Control-Allow-Methods"]
    assert "content-type" in reply.headers["Access-Control-Allow-Headers"].lower()
    origin = {"Origin": "https://chat.example"}
    for status, reply in ((201, await put(slot.put, b"hello", headers=origin)),
                          (200, await get(slot.get, headers=origin)),
                          (404, await get(slot.get + "x", headers=origin)),
                          (409, await put(slot.put, b"hello", headers=origin)),
                          (206, await get(slot.get, headers=origin | {"Range": "bytes=0-0"}))):
        check("answer", (reply.status, reply.headers["Access-Control-Allow-Origin"]), (status, "*"))


@test(servers=(None,))
async def without_xmpp(case):
    up = await case.upslot()
    reply = await get(f"http://127.0.0.1:{up.port}/")
    check("GET /", (reply.status, len(reply.body.splitlines())), (200, 1))
    for path in ("nothing", "../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", ".upslot/", "//etc/passwd"):
        check(path, (await curl("--path-as-is", up.url + path)).code, 404)
