"""Slots of Prosody's mod_http_upload_external, slots of ejabberd's mod_http_upload, and all integrations at once."""

import os
import time
import urllib.parse

from harness import (DOMAIN, KIB, MIB, NAMESPACES, check, content, external_url, free_port, get, owner_folder, put,
                     request_slot, slot_from_api, slot_request, test)
from integrations import (BENVOLIO, KEY, ROMEO, SHARE, check_download, check_uploads, ejabberd_upload, integration,
                          put_with_headers, share, slot_urls, upload_by_go_sendxmpp, upload_external)


# Prosody's mod_http_upload_external ----------------------------------------------------------------------------------

def v1(url):
    return upload_external(url, "v1")


def v2(url):
    return upload_external(url, "v2")


@test()
async def external_v1(case):
    await external(case, v1, "v")


@test()
async def external_v2(case):
    await external(case, v2, "v2")


async def external(case, protocol, parameter):
    up, romeo = await integration(case, protocol, external_secret=KEY)
    await check_uploads(up, romeo, lambda stored, _, offered: check("offered name", offered, stored))

    slot = await romeo.slot("très cool.jpg", 1000, "image/jpeg")
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(slot.put).query)
    check("signed parameters", list(query), [parameter])
    body, digest = content(1000), query[parameter][0]
    for url, what in [(slot.get, "without a signature"), (slot.put.replace(digest, digest[:-1]), "cut"),
                      (slot.put.replace(digest, "0" * 64), "another signature"),
                      (slot.put.replace("cool.jpg", "cool.png"), "another path")]:
        check(what, (await put(url, body, headers={"Content-Type": "image/jpeg"})).status, 403)
    for other in (body + b"x", body[1:]):
        check("another size", (await put(slot.put, other, headers={"Content-Type": "image/jpeg"})).status, 403)
    check("GET before", (await get(slot.get)).status, 404)
    upper = slot.put.replace(digest, digest.upper())
    check("PUT", (await put(upper, body, headers={"Content-Type": "image/jpeg"})).status, 201)
    check("again", (await put(slot.put, body, headers={"Content-Type": "image/jpeg"})).status, 409)
    check("type", (await check_download(slot.get, body, "jpg")).headers["Content-Type"], "image/jpeg")


@test()
async def external_types(case):
    up, romeo = await integration(case, v2, external_secret=KEY)
    # File name, type in the slot request, type in the PUT, status, type in the GET.
    for name, asked, sent, status, served in [
            ("a.bin", "image/avif", "image/avif", 201, "image/avif"),
            ("a.png", "image/png", "IMAGE/PNG; charset=binary", 201, "image/png"),
            ("a.png", "image/png", "application/octet-stream", 201, "image/png"),
            ("a.png", "image/png", "", 201, "image/png"),
            ("a.png", "image/png", None, 201, "image/png"),
            ("a.png", None, "image/png", 201, None),
            ("a.bin", "image/png", "text/html", 403, None),
            ("a.html", "text/html", "text/html", 201, "text/html"),
            ("a.txt", "text/plain; charset=utf-8", "text/plain; charset=utf-8", 201, "text/plain; charset=utf-8")]:
        answer = await romeo.ask(slot_request(NAMESPACES[0], name, 4, asked))
        put_url, get_url = slot_urls(answer, NAMESPACES[0])
        reply = await put(put_url, b"data", headers={} if sent is None else {"Content-Type": sent})
        check(f"PUT of {name} as {sent} for {asked}", reply.status, status)
        if status == 201:
            reply = await check_download(get_url, b"data", name)
            assert served in (None, reply.headers["Content-Type"]), f"{asked} became {reply.headers['Content-Type']}"
            assert "default-src 'none'" in reply.headers["Content-Security-Policy"], "no policy against scripts"
    old = await romeo.ask(slot_request(NAMESPACES[1], "old.jpg", 4, "image/jpeg"))
    put_url, get_url = slot_urls(old, NAMESPACES[1])
    check("PUT", (await put(put_url, b"data", headers={"Content-Type": "image/jpeg"})).status, 201)
    check("type", (await check_download(get_url, b"data", "old.jpg")).headers["Content-Type"], "image/jpeg")


@test()
async def external_link_is_void_after_expiry(case):
    up, romeo = await integration(case, v1, external_secret=KEY, expire_maxage=3600, expire_interval=1)
    slot = await romeo.slot("old.bin", 1000)
    check("PUT", (await put(slot.put, bytes(1000))).status, 201)
    since = up.mark()
    path, = up.files()
    os.utime(up.store / path, (time.time() - 7200,) * 2)
    await up.line(r"\bsweep done\b.*\bremoved=1\b", since)
    for _ in range(2):
        reply = await put(slot.put, bytes(1000))
        assert reply.status in (409, 410), f"a signature was accepted twice: {reply.status}"
        check("GET", (await get(slot.get)).status, 404)
        await up.restart()
    new = await romeo.slot("old.bin", 1000)
    check("a new slot", (await put(new.put, bytes(1000))).status, 201)


@test()
async def external_go_sendxmpp(case):
    authority = case.authority
    _, romeo = await integration(case, v2, scheme="https", external_secret=KEY, http_certfile=str(authority.chain),
                                  http_keyfile=str(authority.key))
    body = content(200 * KIB)
    url = await upload_by_go_sendxmpp(case, romeo.server, "très cool.txt", body)
    reply = await get(url, context=authority.context())
    check("GET", (reply.status, reply.body == body), (200, True))


@test()
async def prosody_filer_store_is_served(case):
    up, romeo = await integration(case, v1, start=False, external_secret=KEY)
    old = {
        "4a771ac1-f0b2-4a4a-9700-f2a26fa2bb67/très cool.jpg": (content(50 * KIB, 1), "image/jpeg"),
        "0d1b1c8a-35c7-4a3c-8d2d-7f1f0a2f3b11/#?%.txt": (b"old notes\n", "text/plain"),
        "9b8f7e6d-1234-4abc-9def-0123456789ab/no_extension": (b"plain", "application/octet-stream"),
        "thomas/abc/catmetal.jpg": (content(23026, 2), "image/jpeg"),
    }
    for path, (data, _) in old.items():
        file = up.store / path
        file.parent.mkdir(parents=True)
        file.write_bytes(data)
        os.utime(file, (time.time() - 10 * 86400,) * 2)
    await up.start()
    for path, (data, type) in old.items():
        url = up.url + urllib.parse.quote(path)
        reply = await check_download(url, data, path)
        check(f"type of {path}", reply.headers["Content-Type"].split(";")[0], type)
        # The link of the original upload.
        check(f"PUT over {path}", (await put(external_url(up, path, len(data), KEY), bytes(len(data)))).status, 409)
        await check_download(url, data, path)
    sent = content(5000)
    url = await romeo.upload("new.jpg", sent)
    await check_download(url, sent, "new.jpg")
    new, = up.files() - old.keys()
    check("path of a new file", new, urllib.parse.unquote(url.removeprefix(up.url)))


# ejabberd's mod_http_upload ------------------------------------------------------------------------------------------

@test(servers=("ejabberd",))
async def ejabberd_external_secret(case):
    up, romeo = await integration(case, lambda url: ejabberd_upload(put_url=url.rstrip("/"), external_secret=KEY),
                                  external_secret=KEY)

    def check_name(_, url, offered):
        path = urllib.parse.unquote(url)
        check(f"folders of {path}", path.count("/") - up.url.count("/"), 2)
        check("offered name", offered, path.rsplit("/", 1)[1])

    await check_uploads(up, romeo, check_name)

    for namespace in NAMESPACES[:2]:
        answer = await romeo.ask(slot_request(namespace, "très cool.jpg", 1000, "image/jpeg"))
        put_url, get_url = slot_urls(answer, namespace)
        body = content(1000)
        for other in (body + b"x", body[1:]):
            check("another size", (await put(put_url, other)).status, 403)
        check("without a signature", (await put(put_url.split("?")[0], body)).status, 403)
        check("PUT", (await put(put_url, body, headers={"Content-Type": "image/jpeg"})).status, 201)
        check("again", (await put(put_url, body)).status, 409)
        check("type", (await check_download(get_url, body, "jpg")).headers["Content-Type"], "image/jpeg")


@test(servers=("ejabberd",))
async def ejabberd_service_url(case):
    port = free_port()
    up, romeo = await integration(case, lambda url: ejabberd_upload(service_url=f"http://127.0.0.1:{port}/slot/"),
                                  api={"port": port}, max_file_size=4 * MIB, user_quota_hard=5 * MIB,
                                  whitelist=[ROMEO, BENVOLIO])
    await check_uploads(up, romeo)
    for path in up.files():
        check("owner folder", path.split("/")[0], owner_folder(ROMEO))
    stored = {path.rsplit("/", 1)[1] for path in up.files()}
    for name in ("notes.txt", "très_cool.jpg", "Καλημέρα.pdf", "中文_文件", "semicoloncomma.tar.gz"):
        assert name in stored, f"{name} is not among {stored}"

    for namespace in NAMESPACES[:2]:
        answer = await romeo.ask(slot_request(namespace, "très cool.jpg", 1000, "image/jpeg"))
        put_url, get_url = slot_urls(answer, namespace)
        body = content(1000)
        check("another type", (await put(put_url, body, headers={"Content-Type": "image/png"})).status, 415)
        check("too long", (await put(put_url, body + b"x", headers={"Content-Type": "image/jpeg"})).status, 413)
        check("PUT", (await put(put_url, body, headers={"Content-Type": "image/jpeg"})).status, 201)
        check("again", (await put(put_url, body, headers={"Content-Type": "image/jpeg"})).status, 409)
        check("type", (await check_download(get_url, body, "jpg")).headers["Content-Type"], "image/jpeg")

    check("too large", (await romeo.refusal("large.bin", 4 * MIB + 1)).condition, "not-acceptable")
    check("over the quota", (await romeo.refusal("large.bin", 4 * MIB)).condition, "not-allowed")
    benvolio = await case.client(BENVOLIO, romeo.server)
    await benvolio.upload("other.bin", bytes(4 * MIB))
    up.configure(whitelist=[BENVOLIO])
    await up.reload()
    check("not allowed", (await romeo.refusal("a.bin", 1)).condition, "not-allowed")


@test(servers=("ejabberd",))
async def ejabberd_service_url_and_rates(case):
    port = free_port()
    up, romeo = await integration(case, lambda url: ejabberd_upload(service_url=f"http://127.0.0.1:{port}/slot/"),
                                  api={"port": port},
                                  access=[{"jid": "^romeo@", "uploads_per_timedelta": {"delta": 3600, "uploads": 2}}])
    benvolio = await case.client(BENVOLIO, romeo.server)
    for name in ("a.bin", "b.bin"):
        await check_download(await romeo.upload(name, b"data"), b"data", name)
    check("a third one", (await romeo.refusal("c.bin", 1)).condition, "resource-constraint")
    check("no rule", (await benvolio.refusal("c.bin", 1)).condition, "not-allowed")


# All at once ---------------------------------------------------------------------------------------------------------

@test()
async def several_integrations_share_one_store(case):
    port = free_port()

    def components(url):
        return share(url, name=SHARE) + upload_external(url, name="signed." + DOMAIN)

    up, romeo = await integration(case, components, component=True, api={"port": port}, file_share_secret=KEY,
                                  external_secret=KEY, user_quota_hard=100 * KIB)
    benvolio = await case.client(BENVOLIO, romeo.server)

    async def status(jid, size):
        return (await request_slot(up, "api file.bin", size, jid)).status

    # 30 KiB by each integration that names the owner.
    kept = {}
    slot = await romeo.slot("component.bin", 30 * KIB)
    kept[slot.get] = content(30 * KIB, 1)
    check("PUT of the component's", (await put(slot.put, kept[slot.get])).status, 201)
    slot = await slot_from_api(up, "api file.bin", 30 * KIB)
    kept[slot.get] = content(30 * KIB, 2)
    check("PUT of the API's", (await put(slot.put, kept[slot.get])).status, 201)
    slot = await romeo.slot("share.bin", 30 * KIB, to=SHARE)
    kept[slot.get] = content(30 * KIB, 3)
    check("PUT of the file share's", (await put_with_headers(slot, kept[slot.get])).status, 201)
    check("owners", {path.split("/")[0] for path in up.files()}, {owner_folder(ROMEO)})

    # Each of them sees 10 KiB left.
    for _ in range(2):
        refusal = await romeo.refusal("more.bin", 10 * KIB + 1)
        check("component", (refusal.type, refusal.condition), ("wait", "resource-constraint"))
        check("API", await status(ROMEO, 10 * KIB + 1), 403)
        slot = await romeo.slot("more.bin", 10 * KIB + 1, to=SHARE)
        check("file share", (await put_with_headers(slot, bytes(10 * KIB + 1))).status, 507)
        check("API, within the quota", await status(ROMEO, 10 * KIB), 200)
        await up.restart()

    # A signed link has no owner, and other accounts have their own quota.
    slot = await romeo.slot("signed.bin", 90 * KIB, to="signed." + DOMAIN)
    kept[slot.get] = content(90 * KIB, 4)
    check("PUT of the signed one", (await put(slot.put, kept[slot.get])).status, 201)
    slot = await benvolio.slot("other.bin", 100 * KIB, to=SHARE)
    kept[slot.get] = content(100 * KIB, 5)
    check("PUT of the other account's", (await put_with_headers(slot, kept[slot.get])).status, 201)
    check("API, the other account", await status(BENVOLIO, 1), 403)

    # Both integrations have the same secret here; still, a slot of one is not valid for the other.
    slot = await romeo.slot("fits.bin", 10 * KIB, to=SHARE)
    check("without its token", (await put(slot.put, bytes(10 * KIB))).status, 401)
    check("with it", (await put_with_headers(slot, bytes(10 * KIB))).status, 201)
    check("component, nothing left", (await romeo.refusal("more.bin", 1)).condition, "resource-constraint")
    for url, sent in kept.items():
        await check_download(url, sent, url)
    check("the API on the public port", (await get(f"http://127.0.0.1:{up.port}/slot/?jid=a@b")).status, 404)
    check("files on the API's port",
          (await get(next(iter(kept)).replace(str(up.port), str(port)))).status, 404)
