"""Slots of Prosody's mod_http_file_share, whose uploads carry a bearer token."""

import time

from harness import KIB, MIB, check, content, get, owner_folder, put, test
from integrations import (BENVOLIO, KEY, NAMES, OTHER_KEY, ROMEO, check_download, integration, offered_name,
                          put_with_headers, share, until_deleted, upload_by_go_sendxmpp)


@test()
async def uploads_survive_restarts(case):
    up, romeo = await integration(case, share, file_share_secret=KEY)
    kept = {}
    for size in (1, 10 * KIB, 3 * MIB + 17):
        sent = content(size, seed=size)
        kept[await romeo.upload(f"{size}.bin", sent)] = sent
    for url, sent in kept.items():
        reply = await check_download(url, sent, url)
        check("type", reply.headers["Content-Type"], "application/octet-stream")
    check("files", len(up.files()), 3)
    for path in up.files():
        check("owner folder", path.split("/")[0], owner_folder(ROMEO))
    # Also between the slot and its PUT.
    slot = await romeo.slot("later.jpg", 5, "image/jpeg")
    await up.restart()
    for url, sent in kept.items():
        await check_download(url, sent, f"{url} after a restart")
    check("PUT after a restart", (await put_with_headers(slot, b"later", Content_Type="image/jpeg")).status, 201)
    await up.restart()
    check("type", (await check_download(slot.get, b"later", "later.jpg")).headers["Content-Type"], "image/jpeg")


@test()
async def names(case):
    up, romeo = await integration(case, share, file_share_secret=KEY)
    for number, (name, stored) in enumerate(NAMES):
        sent = content(100 + number, seed=number)
        url = await romeo.upload(name, sent)
        check("offered name", offered_name(await check_download(url, sent, name)), stored)
        # The slot in the path identifies the file; the name does not.
        slot = url.removeprefix(up.url).split("/")[0]
        await check_download(f"{up.url}{slot}/another%20name.txt", sent, f"{name} under another name")


@test()
async def names_that_must_be_changed(case):
    """The name in the URL is only for display, so that no name makes an upload fail."""
    up, romeo = await integration(case, share, file_share_secret=KEY)
    rejected = []
    for number, (name, stored) in enumerate([
            (".htaccess", "_htaccess"), ("a" * 300 + ".jpg", "a" * 251 + ".jpg"), ("...", None)]):
        sent = content(100 + number, seed=number)
        slot = await romeo.slot(name, len(sent))
        reply = await put_with_headers(slot, sent)
        if reply.status != 201:
            rejected.append((name[:9], reply.status))
            continue
        offered = offered_name(await check_download(slot.get, sent, name))
        assert stored in (None, offered), f"{name} is offered as {offered}"
    check("rejected names", rejected, [])


@test()
async def token_is_required(case):
    up, romeo = await integration(case, share, file_share_secret=KEY)
    slot, other = await romeo.slot("a.png", 1000, "image/png"), await romeo.slot("b.png", 1000, "image/png")
    body = content(1000)
    bare = await put(slot.put, body)
    check("without a token", (bare.status, bare.headers["WWW-Authenticate"].split()[0]), (401, "Bearer"))
    for authorization in ("Bearer", "Bearer x", "Basic cm9tZW86", "Bearer a.b.c"):
        reply = await put(slot.put, body, headers={"Authorization": authorization})
        check(authorization, (reply.status, reply.headers["WWW-Authenticate"].split()[0]), (401, "Bearer"))
    token = slot.headers["Authorization"]
    forged = token[:-1] + ("A" if token[-1] != "A" else "Q")
    # Another last character may make the base64 malformed, because its unused bits must be zero.
    assert (await put(slot.put, body, headers={"Authorization": forged})).status in (401, 403)
    check("another slot's", (await put(slot.put, body, headers=other.headers)).status, 403)
    check("too long", (await put_with_headers(slot, body + b"x")).status, 413)
    assert (await put_with_headers(slot, body[1:])).status in (400, 413)
    check("another type", (await put_with_headers(slot, body, Content_Type="text/html")).status, 415)
    check("GET before", (await get(slot.get)).status, 404)
    check("files", up.files(), set())
    check("PUT", (await put_with_headers(slot, body, Content_Type="image/png")).status, 201)
    check("again", (await put_with_headers(slot, body, Content_Type="image/png")).status, 409)
    check("again under another name", (await put(slot.put + "x", body, headers=slot.headers)).status, 409)
    check("type", (await check_download(slot.get, body, "a.png")).headers["Content-Type"], "image/png")
    # One client library misspells the name of the field.
    reply = await put(other.put, body, headers={"Authorisation": other.headers["Authorization"]})
    check("misspelled", reply.status, 201)


@test()
async def wrong_secret(case):
    up, romeo = await integration(case, share, file_share_secret=OTHER_KEY)
    slot = await romeo.slot("a.bin", 10)
    check("PUT", (await put_with_headers(slot, bytes(10))).status, 403)
    check("files", up.files(), set())
    # The slot is still valid after a reload with the right secret.
    up.configure(file_share_secret=KEY)
    await up.reload()
    check("PUT", (await put_with_headers(slot, bytes(10))).status, 201)
    await check_download(slot.get, bytes(10), "a.bin")


@test()
async def quota_per_uploader(case):
    up, romeo = await integration(case, share, file_share_secret=KEY, user_quota_hard=100 * KIB)
    benvolio = await case.client(BENVOLIO, romeo.server)
    await romeo.upload("first.bin", bytes(60 * KIB))
    full = await romeo.slot("second.bin", 60 * KIB)
    check("over the quota", (await put_with_headers(full, bytes(60 * KIB))).status, 507)
    check("GET", (await get(full.get)).status, 404)
    sent = content(60 * KIB)
    await check_download(await benvolio.upload("other.bin", sent), sent, "the other account's")
    check("owners", {path.split("/")[0] for path in up.files()}, {owner_folder(ROMEO), owner_folder(BENVOLIO)})
    # Stored files count after a restart.
    await up.restart()
    check("over the quota", (await put_with_headers(full, bytes(60 * KIB))).status, 507)
    fits = await romeo.slot("fits.bin", 40 * KIB)
    check("exactly the quota", (await put_with_headers(fits, bytes(40 * KIB))).status, 201)


@test()
async def files_expire_as_the_server_says(case):
    up, romeo = await integration(case, lambda url: share(url, expires_after=4), file_share_secret=KEY,
                                  expire_interval=1, expire_maxage=0)
    body = b"brief as the lightning"
    requested = time.time()
    slot = await romeo.slot("short.txt", len(body), "text/plain")
    granted = time.time()
    check("PUT", (await put_with_headers(slot, body, Content_Type="text/plain")).status, 201)
    await check_download(slot.get, body, "short.txt")
    last = await until_deleted(slot.get)
    assert last, "deleted too early"
    # Prosody counts whole seconds.
    assert int(requested) + 3.5 <= last <= granted + 4.5, f"served for {last - requested:.2f} s after the slot"
    await up.line(r"\bsweep done\b.*\bremoved=1\b")
    check("files", up.files(), set())
    # The token is valid for longer than the file, but not for a second upload.
    check("again", (await put_with_headers(slot, body, Content_Type="text/plain")).status, 403)
    check("GET", (await get(slot.get)).status, 404)
    await up.line(r"\bsweep done\b.*\bremoved=0\b", up.mark())
    check("leftovers", up.leftovers(), [])


@test()
async def go_sendxmpp(case):
    authority = case.authority
    up, romeo = await integration(case, share, scheme="https", file_share_secret=KEY,
                                  http_certfile=str(authority.chain), http_keyfile=str(authority.key))
    body = content(200 * KIB)
    url = await upload_by_go_sendxmpp(case, romeo.server, "très cool.txt", body)
    reply = await get(url, context=authority.context())
    check("GET", (reply.status, reply.body == body), (200, True))
    check("owner", {path.split("/")[0] for path in up.files()}, {owner_folder(ROMEO)})
