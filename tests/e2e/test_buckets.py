"""Uploads to and downloads from object stores, through upslot and past it."""

import asyncio
import json
import os
import re
import urllib.parse

from browser import UnprotectedServer, browser
from buckets import check_download, download, files, section, virtual_host, with_bucket
from harness import (ACCOUNTS, KIB, MIB, PASSWORD, Garage, check, content, delete_url, external_url, http_request,
                     owner_folder, put, run, slot_from_api, test, until)
from integrations import KEY, NAMES, OTHER_KEY


async def modes(case, kind, names, sizes, public):
    """All values of `put` and `get`, which an operator changes while upslot runs."""
    store = await case.object_store(kind)
    bucket = await store.bucket(public=public)
    up = await with_bucket(case, bucket, max_file_size=20 * MIB)
    romeo = await case.client()
    count, older = 0, {}
    for put_mode in "relay", "direct":
        for get_mode in ("redirect", "relay") + (("public",) if public else ()):
            settings = {"put": put_mode, "get": get_mode}
            if get_mode == "public":
                settings["public_url"] = f"{store.endpoint}/{bucket.name}/"
            if settings != {"put": "relay", "get": "redirect"}:
                up.configure(s3=section(bucket, **settings))
                await up.reload()
            kept = {}
            for number, (name, stored) in enumerate(names):
                sent = content(sizes[number] if number < len(sizes) else 100 + number, seed=number)
                kept[await romeo.upload(name, sent)] = sent, stored
            await misuse(romeo, put_mode, get_mode)
            # The store tells browsers what upslot told it at the upload.
            as_told = put_mode == "relay" or get_mode != "public"
            for url, (sent, name) in kept.items():
                await check_download(url, sent, name if as_told else None)
            if get_mode == "public":
                assert all(url.startswith(store.endpoint) for url in kept), kept.keys()
            for url, sent in older.items():
                await check_download(url, sent)
            count += len(kept) + 1
            older[url] = sent
    check("files", len(await files(bucket)), count)
    check("warnings", up.logged(r" (WARN|ERROR) (?!.*config warning)"), [])


async def misuse(romeo, put_mode, get_mode):
    """A slot is for its size, type and, when upslot takes the upload, for one file. HTML is not shown as such."""
    page = b"<script>alert(1)</script>"
    slot = await romeo.slot("page.html", len(page), "text/html")
    fields = {"Content-Type": "text/html"}
    for body in (page + b"x", page[1:]):
        reply = await put(slot.put, body, headers=fields)
        assert reply.status in (400, 403, 413), f"{len(body)} bytes, {put_mode}: {reply.status}"
    check("before", (await download(slot.get)).status, 403 if get_mode == "public" else 404)
    reply = await put(slot.put, page, headers=fields)
    check("PUT", reply.status, {"relay": 201, "direct": 200}[put_mode])
    if put_mode == "relay":
        check("again", (await put(slot.put, page, headers=fields)).status, 409)
    else:
        check("other type", (await put(slot.put, page, headers={"Content-Type": "text/plain"})).status, 403)
    shown = await check_download(slot.get, page)
    if put_mode == "relay" or get_mode != "public":
        assert shown.headers["Content-Disposition"].startswith("attachment"), shown.headers


@test(deadline=200)
async def ceph(case):
    await modes(case, "ceph", NAMES, (1, 5 * MIB), True)


@test(deadline=200)
async def seaweedfs(case):
    await modes(case, "seaweedfs", NAMES[:6], (1, 2 * MIB), False)


@test(deadline=200)
async def garage(case):
    if not Garage.program():
        print("NOT TESTED: there is no program garage; `tests/run garage` builds one")
        return
    await modes(case, "garage", NAMES[:6], (1, 2 * MIB), False)


@test(servers=("prosody",))
async def go_sendxmpp(case):
    """A client that verifies certificates uploads to upslot and to the store, and the receiver finds the file."""
    authority = case.authority
    store = await case.object_store("ceph")
    bucket, server = await store.bucket(), await case.server()
    secure = {"endpoint": f"https://127.0.0.1:{store.tls_port}", "ca_file": str(authority.pem)}
    up = await with_bucket(case, bucket, s3=secure, http_certfile=str(authority.chain), http_keyfile=str(authority.key))
    benvolio, body, path = await case.client(ACCOUNTS[1]), content(200 * KIB), case.folder / "très cool.txt"
    path.write_bytes(body)
    for put_mode, get_mode in ("relay", "redirect"), ("direct", "relay"):
        up.configure(s3=section(bucket, put=put_mode, get=get_mode, **secure))
        await up.reload()
        done = await run(
            ["go-sendxmpp", "-u", ACCOUNTS[0], "-p", PASSWORD, "-j", f"127.0.0.1:{server.client_port}",
             "--http-upload", path, ACCOUNTS[1]],
            env=dict(os.environ, SSL_CERT_FILE=str(authority.pem), HOME=str(case.folder)), cwd=case.folder)
        assert done.code == 0, f"go-sendxmpp, {put_mode}: {done.out} {done.err}"
        message = await asyncio.wait_for(benvolio.messages.get(), 30)
        url = re.search(r"https://\S+", message["body"])[0]
        assert url.startswith(up.url), url
        reply = await http_request("GET", url, context=authority.context())
        check(f"GET, {get_mode}", reply.status, 307 if get_mode == "redirect" else 200)
        reply = await download(url, context=authority.context())
        check("content", (reply.status, reply.body == body), (200, True))
    check("files", len(await files(bucket)), 2)


@test()
async def bucket_in_the_host(case):
    """With `path_style: false`, requests and links of all modes have the bucket in the name of the host."""
    store = await case.object_store("ceph")
    bucket = await store.bucket(public=True)
    settings, wrapper = virtual_host(bucket, case.folder)
    up = await with_bucket(case, bucket, start=False, s3=settings)
    up.wrapper = wrapper
    await up.start()
    romeo, place = await case.client(), settings["endpoint"].replace("://", f"://{bucket.name}.") + "/"
    kept = {}
    for put_mode, get_mode in ("relay", "redirect"), ("direct", "relay"), ("direct", "public"):
        public = {"public_url": place} if get_mode == "public" else {}
        up.configure(s3=section(bucket, put=put_mode, get=get_mode, **settings, **public))
        await up.reload()
        body = content(30 * KIB, seed=len(kept))
        slot = await romeo.slot("très cool.bin", len(body))
        check(put_mode, slot.put.startswith(place), put_mode == "direct")
        check(get_mode, slot.get.startswith(place), get_mode == "public")
        check("PUT", (await put(slot.put, body, headers={"Content-Type": "application/octet-stream"})).status,
              {"relay": 201, "direct": 200}[put_mode])
        kept[slot.get] = body
        for url, sent in kept.items():
            reply = await http_request("GET", url)
            if reply.status == 307:
                assert reply.headers["Location"].startswith(place), reply.headers["Location"]
            await check_download(url, sent)
    check("files", len(await files(bucket)), len(kept))


# Uploads and downloads by fetch(), which the page of another origin may use only as far as CORS allows.
FETCH = """(async () => {
    const [put, get, size, type] = %s, result = {};
    const body = new Uint8Array(size).map((_, at) => at %% 251);
    try {
        result.put = (await fetch(put, {method: "PUT", headers: {"Content-Type": type}, body})).status;
        const reply = await fetch(get), bytes = new Uint8Array(await reply.arrayBuffer());
        result.get = reply.status;
        result.redirected = reply.redirected;
        result.same = bytes.length == size && bytes.every((byte, at) => byte == body[at]);
    } catch (error) {
        result.error = String(error);
    }
    return result;
})()"""


@test(servers=(None,))
async def web_client(case):
    """A page of another origin uploads to upslot and to the store, and follows upslot's redirect to the store, as far as the
    rules of the bucket let it."""
    store = await case.object_store("ceph")
    page_server = await UnprotectedServer().start(case)
    page = await (await browser(case)).page()
    await page.visit(page_server.add("chat", "<p>A web client.", "text/html"))
    origin, size = page_server.url.rstrip("/"), 100 * KIB
    open_, closed, one = await store.bucket(cors=True), await store.bucket(), await store.bucket()
    rules = "".join(f"<AllowedMethod>{method}</AllowedMethod>" for method in ("GET", "PUT"))
    rules += f"<AllowedOrigin>{origin}</AllowedOrigin><AllowedHeader>content-type</AllowedHeader>"
    rules = f"<CORSConfiguration><CORSRule>{rules}</CORSRule></CORSConfiguration>"
    check("CORS", (await store.configure(store.owned(one), "cors", rules)).status, 200)
    good, failed = {"get": 200, "same": True}, {"error": "TypeError: Failed to fetch"}
    direct, redirect = {"put": "direct", "get": "relay"}, {"put": "relay", "get": "redirect"}
    cases = [
        (open_, direct, {"put": 200, "redirected": False} | good),
        (open_, redirect, {"put": 201, "redirected": True} | good),
        (closed, direct, failed),
        (closed, redirect, {"put": 201} | failed),
        # Browsers send `Origin: null` after a redirect to another origin.
        (one, direct, {"put": 200, "redirected": False} | good),
        (one, redirect, {"put": 201} | failed),
    ]
    for number, (bucket, modes, expected) in enumerate(cases):
        if number % 2 == 0:
            up = await with_bucket(case, bucket, start=False)
        up.configure(s3=section(bucket, **modes))
        await (up.reload() if number % 2 else up.start())
        slot = await slot_from_api(up, "photo.jpg", size, content_type="image/jpeg")
        found = await page.run(FETCH % json.dumps([slot.put, slot.get, size, "image/jpeg"]))
        check(f"{bucket.name}, {modes}", found, expected)


# Keys of other modules: with several segments, and the ones of a single segment that begin with a UUID or a number.
OLD = {
    # MongooseIM: 32 random bytes and the name.
    "0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9/très cool.jpg": "image/jpeg",
    # ejabberd's mod_s3_upload: the hash of the user, 20 random characters and the name.
    "da39a3ee5e6b4b0d3255bfef95601890afd80709/3f2a9c0d1e5b7a486c1d/notes #1 100%.txt": "text/plain",
    # The same without a path in its URL: the time and a number of the node.
    "MIIBQ7VQZP91XQ2-cat.jpg": "image/jpeg",
    # Prosody's mod_http_upload_s3, in three forms.
    "4a771ac1-f0b2-4a4a-9700-f2a26fa2bb67/photo.png": "image/png",
    "4a771ac1-f0b2-4a4a-9700-f2a26fa2bb68-page.html": "text/html",
    "4a771ac1-f0b2-4a4a-9700-f2a26fa2bb69": "image/png",
}


@test()
async def links_of_other_modules(case):
    """Old links stay valid when their host leads to upslot, and sweeps delete files of upslot only if these have a prefix
    of their own."""
    store = await case.object_store("ceph")
    bucket = await store.bucket(public=True)
    bodies = {key: content(1000 + number, seed=number) for number, key in enumerate(OLD)}
    for key, type in OLD.items():
        stored = await bucket.request("PUT", key, body=bodies[key], headers={"Content-Type": type})
        check(key, stored.status, 200)
    up = await with_bucket(case, bucket)
    romeo = await case.client()
    new = await romeo.upload("new.bin", b"new")
    for get_mode in "redirect", "relay":
        up.configure(s3=section(bucket, get=get_mode))
        await up.reload()
        for key, type in OLD.items():
            url = up.url + urllib.parse.quote(key)
            reply = await check_download(url, bodies[key])
            if type == "text/html":
                assert reply.headers["Content-Disposition"].startswith("attachment"), (key, reply.headers)
        await check_download(new, b"new")
    await up.process.stop()

    # Everything of upslot itself has a prefix now, and everything that has it expires at once.
    up = await with_bucket(case, bucket, s3={"prefix": "upslot/"}, expire_maxage=1, expire_interval=1)
    newer = await romeo.upload("newer.bin", b"newer")
    check("prefix", len(await files(bucket, "upslot/")), 1)

    async def swept():
        return not await files(bucket, "upslot/")

    await until(swept, "an expired file deleted")
    check("GET", (await download(newer)).status, 404)
    check("left alone", OLD.keys() - await files(bucket), set())
    for key in OLD:
        name = urllib.parse.quote(key)
        # As before, and not below the prefix.
        check(key, (await http_request("GET", f"{store.endpoint}/{bucket.name}/{name}")).body, bodies[key])
        check(f"upslot: {key}", (await download(up.url + name)).status, 404)


@test()
async def quotas_and_deletion(case):
    """Quotas are counted in the bucket, deleted files do not come back, and unused slots of a removed user are void."""
    bucket = await (await case.object_store("ceph")).bucket()
    quota, size = 300 * KIB, 100 * KIB
    # A file from before, which counts.
    older = f"{owner_folder(ACCOUNTS[0])}/{'0' * 20}~19000~m/older.bin"
    check(older, (await bucket.request("PUT", older, body=content(size))).status, 200)
    up = await with_bucket(case, bucket, user_quota_hard=quota, external_secret=KEY, external_delete_secret=OTHER_KEY)
    romeo, benvolio = await case.client(), await case.client(ACCOUNTS[1])
    slots = []
    for _ in range(2):
        slots.append(await romeo.slot("a.bin", size))
        check("PUT", (await put(slots[-1].put, content(size))).status, 201)
    refusal = await romeo.refusal("b.bin", 1)
    check("full", (refusal.type, refusal.condition), ("wait", "resource-constraint"))
    other = await benvolio.slot("b.bin", size)

    path = "outside/link.bin"
    link = external_url(up, path, 3, KEY)
    check("PUT", (await put(link, b"one")).status, 201)
    check("DELETE", (await http_request("DELETE", delete_url(up, path, KEY, OTHER_KEY))).status, 204)
    for _ in range(2):
        check("deleted", (await download(up.url + path)).status, 404)
        check("PUT again", (await put(link, b"two")).status, 409)
        await up.restart()

    command = [os.environ["UPSLOT_BIN"], "-c", up.config]
    listed = await run([*command, "list", ACCOUNTS[0]])
    check("list", (listed.code, listed.err), (0, ""))
    assert all(name in listed.out.decode() for name in ("older.bin", "a.bin")), listed.out
    removed = await run([*command, "remove", slots[0].get])
    assert removed.code == 0 and "files removed" in removed.err, removed
    check("removed", [(await download(slot.get)).status for slot in slots], [404, 200])
    left, void = [await romeo.slot(name, size // 2) for name in ("left.bin", "void.bin")]

    session = '<command xmlns="http://jabber.org/protocol/commands" node="delete-all"{}/>'
    answer = await romeo.ask(session.format(""), type="set")
    id = answer.find("{http://jabber.org/protocol/commands}command").get("sessionid")
    answer = await romeo.ask(session.format(f' sessionid="{id}" action="complete"'), type="set")
    check("answer", answer.get("type"), "result")
    check("files", await files(bucket), set())
    check("used", (await put(left.put, content(size // 2))).status, 201)
    removed = await run([*command, "remove", ACCOUNTS[0]])
    assert removed.code == 0 and "files=1 " in removed.err, removed
    check("files", await files(bucket), set())
    check("void", (await put(void.put, content(size // 2))).status, 403)
    check("slot of another user", (await put(other.put, content(size))).status, 201)

    async def new_slot_is_valid():
        return (await put((await romeo.slot("new.bin", 10)).put, content(10))).status == 201

    # Slots of the same second are void, too.
    await until(new_slot_is_valid, "a new slot")
