"""What the object stores themselves enforce of a signed URL, without an upslot. The manual relies on it."""

import asyncio
import contextlib
import time

from harness import KIB, Garage, check, content, error_code, http_request, test, until
from harness.http import RawConnection

BODY = content(20 * KIB)
TYPE = "text/plain"


async def sent(store, url, body, promised, **fields):
    """The status of a PUT whose Content-Length may be a lie. After a body that is too short the client closes its side;
    None if the store then closes without an answer."""
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    target = url.removeprefix(store.endpoint)
    with contextlib.closing(RawConnection(*await asyncio.open_connection("127.0.0.1", store.port))) as connection:
        length = f"Content-Length: {promised}\r\n" if promised is not None else ""
        await connection.send(f"PUT {target} HTTP/1.1\r\nHost: 127.0.0.1:{store.port}\r\n{length}{head}\r\n".encode())
        await connection.send(body)
        if len(body) < (promised or 0):
            connection.writer.write_eof()
        with contextlib.suppress(asyncio.IncompleteReadError):
            return (await connection.head())[0]


async def stored(bucket, key):
    reply = await bucket.request("GET", key)
    return {200: reply.body, 404: None}[reply.status]


async def enforces_the_signature(bucket):
    """The size, the type, the time and the path of a slot hold."""
    store, size, other = bucket.store, len(BODY), {"Content-Type": TYPE}

    def signed(key, **options):
        return bucket.url("PUT", key, headers={"Content-Length": size, **other}, **options)

    check("right", await sent(store, signed("a/right"), BODY, size, **other), 200)
    check("right", await stored(bucket, "a/right"), BODY)
    refused = {
        "longer": (signed("a/no"), BODY + b"x", size + 1, other),
        "shorter": (signed("a/no"), BODY[1:], size - 1, other),
        "no length": (signed("a/no"), BODY, None, other),
        "chunked": (signed("a/no"), b"5\r\nhello\r\n0\r\n\r\n", None, other | {"Transfer-Encoding": "chunked"}),
        "other type": (signed("a/no"), BODY, size, {"Content-Type": "text/html"}),
        "no type": (signed("a/no"), BODY, size, {}),
        "other path": (signed("a/no").replace("a/no", "a/none"), BODY, size, other),
        "expired": (signed("a/no", lifetime=60, at=time.time() - 100), BODY, size, other),
    }
    for what, (url, body, promised, fields) in refused.items():
        status = await sent(store, url, body, promised, **fields)
        assert status in (400, 403, 411), f"{what}: {status}"
    cut = await sent(store, signed("a/no"), BODY[:-1], size, **other)
    assert cut is None or cut >= 400, f"broken off: {cut}"
    check("stored", await bucket.keys("a/"), ["a/right"])


async def answers_requests(bucket, fields_always):
    """Names, ranges, response fields, pages and deletion are as upslot needs them."""
    names = sorted(["b/ü + &%.txt", "b/'(1)'!*~.txt", "b/x/y", *(f"b/{number}" for number in range(8))],
                   key=lambda name: name.encode())
    for name in names:
        check(name, (await bucket.request("PUT", name, body=BODY)).status, 200)
    check("pages", await bucket.keys("b/", page=3), names)
    check("page", await bucket.keys("b/x", page=3), ["b/x/y"])
    check("wrong prefix", await bucket.keys("c/"), [])
    shown = {"response-content-type": "image/png", "response-content-disposition": "attachment",
             "response-cache-control": "max-age=9"}

    def fields(reply):
        return {name: reply.headers[name.removeprefix("response-")] for name in shown}

    check("fields", fields(await bucket.request("GET", names[-2], query=shown)), shown)
    # Garage answers HEAD and ranges without them.
    head = await bucket.request("HEAD", names[-2], query=shown)
    check("fields of HEAD", fields(head) == shown, fields_always)
    part = await http_request("GET", bucket.url("GET", names[-2], query=shown), headers={"Range": "bytes=1000-1999"})
    check("range", (part.status, part.body), (206, BODY[1000:2000]))
    check("position", part.headers["Content-Range"], f"bytes 1000-1999/{len(BODY)}")
    check("fields of a range", fields(part) == shown, fields_always)
    outside = await bucket.request("GET", names[0], headers={"Range": f"bytes={len(BODY)}-"})
    check("outside", (outside.status, error_code(outside)), (416, "InvalidRange"))
    head = await bucket.request("HEAD", names[0])
    check("HEAD", (head.status, head.headers["Content-Length"]), (200, str(len(BODY))))
    check("HEAD by GET", (await http_request("HEAD", bucket.url("GET", names[0]))).status, 403)
    for name in names:
        check(name, (await bucket.request("DELETE", name)).status, 204)
    check("deleted", [(await bucket.request(method, names[0])).status for method in ("HEAD", "GET", "DELETE")],
          [404, 404, 204])
    missing = await bucket.request("GET", names[0])
    check("missing", error_code(missing), "NoSuchKey")


async def notes_are_listed(bucket):
    """Of the objects of upslot itself, those that concern slots are listed alone."""
    notes = [f".upslot/{folder}/{number}" for folder in ("revoked", "tombstones") for number in range(3)]
    others = [f".upslot/aliases/{number}" for number in range(5)] + [".upslot/conditional", ".upslot/probe"]
    for prefix in "", "some/where/":
        after = f"{prefix}.upslot/q"
        check("none", await bucket.keys(f"{prefix}.upslot/", 50, after), [])
        for name in [*others, *notes, ".upsloty", "zone/x"]:
            check(name, (await bucket.request("PUT", prefix + name, body=b"")).status, 200)
        expected = [prefix + name for name in notes]
        for page in 50, 2:
            check("notes", await bucket.keys(f"{prefix}.upslot/", page, after), expected)
        for name in notes[:-1]:
            check(name, (await bucket.request("DELETE", prefix + name)).status, 204)

        async def listed():
            return await bucket.keys(f"{prefix}.upslot/", 50, after)

        async def without_deleted():
            return await listed() == expected[-1:]

        if isinstance(bucket.store, Garage):
            # Each node leaves deleted objects out before its list is merged with that of another one, which may not know of
            # the deletion yet.
            await until(without_deleted, "deleted notes gone from the list")
        check("one note", await listed(), expected[-1:])


async def repeated_uploads(bucket, conditional):
    """Whether a second PUT can be refused by the store."""
    codes = []
    for body in BODY, BODY[::-1]:
        reply = await bucket.request("PUT", "c/once", body=body, headers={"If-None-Match": "*"})
        codes.append((reply.status, error_code(reply)))
    check("conditional", codes, [(200, None), (412, "PreconditionFailed") if conditional else (200, None)])
    check("kept", await stored(bucket, "c/once") == BODY, conditional)


async def rights(bucket):
    """The key of upslot is enough for objects, and not for the bucket itself."""
    for query in "policy", "cors":
        reply = await bucket.store.configure(bucket, query, "{}")
        assert reply.status in (400, 403, 501), f"{query}: {reply.status}"
    check("bucket", (await bucket.request("DELETE")).status, 403)
    other = await bucket.store.bucket()
    other.name += "-missing"
    reply = await other.request("GET", query={"list-type": "2"})
    check("no bucket", (reply.status, error_code(reply)), (404, "NoSuchBucket"))
    bucket.access = bucket.access._replace(secret_key="wrong")
    reply = await bucket.request("PUT", "d", body=BODY)
    # Garage gives one code for everything that it forbids; the message tells more.
    garage = bucket.store.name == "garage"
    check("wrong key", (reply.status, error_code(reply)), (403, "AccessDenied" if garage else "SignatureDoesNotMatch"))
    assert b"ignature" in reply.body, reply.body


async def engine(case, kind, conditional=True, fields_always=True):
    bucket = await (await case.object_store(kind)).bucket(cors=True)
    await enforces_the_signature(bucket)
    await answers_requests(bucket, fields_always)
    await notes_are_listed(bucket)
    await repeated_uploads(bucket, conditional)
    asked = {"Origin": "https://chat.example", "Access-Control-Request-Method": "PUT",
             "Access-Control-Request-Headers": "content-type"}
    reply = await http_request("OPTIONS", bucket.url("PUT", "e"), headers=asked)
    check("CORS", reply.status, 200)
    assert reply.headers["Access-Control-Allow-Origin"] in ("*", asked["Origin"]), reply.headers
    await rights(bucket)


@test(servers=(None,), deadline=200)
async def ceph(case):
    await engine(case, "ceph")


@test(servers=(None,), deadline=200)
async def seaweedfs(case):
    await engine(case, "seaweedfs")


@test(servers=(None,), deadline=200)
async def garage(case):
    if not Garage.program():
        print("NOT TESTED: there is no program garage; `tests/run garage` builds one")
        return
    await engine(case, "garage", conditional=False, fields_always=False)
