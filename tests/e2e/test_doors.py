"""Every other door: XMPP servers that hand out slots themselves and leave HTTP to upslot, or ask its API for slots."""

import asyncio
import hashlib
import hmac
import os
import re
import time
import urllib.parse

from harness import (ACCOUNTS, DOMAIN, KIB, MIB, NAMESPACES, PASSWORD, PATIENCE, UPLOAD, check, content, free_port,
                     get, http_request, owner_folder, put, run, slot_request, test)

ROMEO, BENVOLIO, _ = ACCOUNTS
KEY = "it was the nightingale, and not the lark"
OTHER_KEY = "it was the lark, the herald of the morn"
SHARE = "share." + DOMAIN

# The name that a client asks for, and the one under which upslot keeps it.
NAMES = [
    ("notes.txt", "notes.txt"),
    ("très cool.jpg", "très cool.jpg"),
    ("😀 🏳️‍🌈.png", "😀 🏳️‍🌈.png"),
    ("#?%.txt", "#?%.txt"),
    ("100%41 & <b>+\"'.txt", "100%41 & <b>+\"'.txt"),
    ("semi;colon,comma=.tar.gz", "semi;colon,comma=.tar.gz"),
    ("Καλημέρα.pdf", "Καλημέρα.pdf"),
    ("中文 文件", "中文 文件"),
    ("back\\slash~(1).txt", "back\\slash~(1).txt"),
    ("a" * 251 + ".jpg", "a" * 251 + ".jpg"),
    ("é" * 125 + ".jpg", "é" * 125 + ".jpg"),
]


def share(url, name=UPLOAD, key=KEY, **settings):
    lines = "".join(f"http_file_share_{setting} = {value}\n" for setting, value in settings.items())
    return (f'Component "{name}" "http_file_share"\nhttp_file_share_base_url = "{url}"\n'
            f'http_file_share_secret = "{key}"\n{lines}')


def upload_external(url, protocol="v1", name=UPLOAD):
    return (f'Component "{name}" "http_upload_external"\nhttp_upload_external_base_url = "{url}"\n'
            f'http_upload_external_secret = "{KEY}"\nhttp_upload_external_protocol = "{protocol}"\n')


def ejabberd_upload(**settings):
    lines = "".join(f'      {setting}: "{value}"\n' for setting, value in settings.items())
    return f"append_host_config:\n  {DOMAIN}:\n    modules:\n     mod_http_upload:\n      access: all\n{lines}"


async def door(case, extra, component=False, scheme="http", start=True, **settings):
    """An XMPP server whose configuration is `extra` of the URL of an upslot, and that upslot."""
    port = free_port()
    server = await case.own_server(extra(f"{scheme}://127.0.0.1:{port}/files/"), component)
    up = await case.upslot(server, port=port, start=start, **settings)
    return server, up


async def with_headers(slot, body, **headers):
    """A PUT as a client makes it that heeds the slot's header fields."""
    return await put(slot.put, body, headers=slot.headers | {k.replace("_", "-"): v for k, v in headers.items()})


def name_offered(reply):
    disposition = reply.headers["Content-Disposition"]
    if encoded := re.search(r"filename\*=UTF-8''([^;]+)", disposition):
        return urllib.parse.unquote(encoded[1], errors="strict")
    return re.sub(r"\\(.)", r"\1", re.search(r'filename="((?:[^"\\]|\\.)*)"', disposition)[1])


async def came_back(url, sent, what):
    reply = await get(url)
    check(f"GET of {what}", (reply.status, reply.body == sent), (200, True))
    head = await http_request("HEAD", url)
    check(f"HEAD of {what}", (head.status, head.headers["Content-Length"]), (200, str(len(sent))))
    return reply


async def gone(url, timeout=PATIENCE):
    """Waits until a file is not served any more; the moment at which it was served last."""
    deadline, last = time.time() + timeout, None
    while (status := (await get(url)).status) == 200:
        last = time.time()
        assert last < deadline, f"{url} is still there"
        await asyncio.sleep(0.05)
    check("status of what is gone", status, 404)
    return last


async def by_go_sendxmpp(case, server, name, body):
    """Uploads over verified TLS and sends the link; the link that the receiver gets."""
    benvolio = await case.client(BENVOLIO, server)
    path = case.folder / name
    path.write_bytes(body)
    done = await run(
        ["go-sendxmpp", "-u", ROMEO, "-p", PASSWORD, "-j", f"127.0.0.1:{server.client_port}", "--http-upload", path,
         BENVOLIO],
        env=dict(os.environ, SSL_CERT_FILE=str(case.authority.pem), HOME=str(case.folder)), cwd=case.folder)
    assert done.code == 0, f"go-sendxmpp ended with {done.code}: {done.out} {done.err}"
    message = await asyncio.wait_for(benvolio.messages.get(), PATIENCE)
    return re.search(r"https://\S+", message["body"])[0]


# Prosody's mod_http_file_share ---------------------------------------------------------------------------------------

@test()
async def file_share(case):
    server, up = await door(case, share, file_share_secret=KEY)
    romeo = await case.client(ROMEO, server)
    kept = {}
    for size in (1, 10 * KIB, 3 * MIB + 17):
        sent = content(size, seed=size)
        kept[await romeo.upload(f"{size}.bin", sent)] = sent
    for url, sent in kept.items():
        reply = await came_back(url, sent, url)
        check("type", reply.headers["Content-Type"], "application/octet-stream")
    check("files", len(up.files()), 3)
    for path in up.files():
        check("owner folder", path.split("/")[0], owner_folder(ROMEO))
    # Between the slot and its PUT too.
    slot = await romeo.slot("later.jpg", 5, "image/jpeg")
    await up.restart()
    for url, sent in kept.items():
        await came_back(url, sent, f"{url} after a restart")
    check("PUT after a restart", (await with_headers(slot, b"later", Content_Type="image/jpeg")).status, 201)
    await up.restart()
    check("type", (await came_back(slot.get, b"later", "later.jpg")).headers["Content-Type"], "image/jpeg")


@test()
async def file_share_names(case):
    server, up = await door(case, share, file_share_secret=KEY)
    romeo = await case.client(ROMEO, server)
    for number, (name, stored) in enumerate(NAMES):
        sent = content(100 + number, seed=number)
        url = await romeo.upload(name, sent)
        check("name offered", name_offered(await came_back(url, sent, name)), stored)
        # The slot alone says which file it is.
        slot = url.removeprefix(up.url).split("/")[0]
        await came_back(f"{up.url}{slot}/another%20name.txt", sent, f"{name} under another name")


@test()
async def file_share_names_that_cannot_be_kept(case):
    """The name in the URL is for people only, so that none can stand in the way of an upload."""
    server, up = await door(case, share, file_share_secret=KEY)
    romeo = await case.client(ROMEO, server)
    refused = []
    for number, (name, stored) in enumerate([
            (".htaccess", "_htaccess"), ("a" * 300 + ".jpg", "a" * 251 + ".jpg"), ("...", None)]):
        sent = content(100 + number, seed=number)
        slot = await romeo.slot(name, len(sent))
        reply = await with_headers(slot, sent)
        if reply.status != 201:
            refused.append((name[:9], reply.status))
            continue
        offered = name_offered(await came_back(slot.get, sent, name))
        assert stored in (None, offered), f"{name} is offered as {offered}"
    check("names that were refused", refused, [])


@test()
async def file_share_only_with_its_token(case):
    server, up = await door(case, share, file_share_secret=KEY)
    romeo = await case.client(ROMEO, server)
    slot, other = await romeo.slot("a.png", 1000, "image/png"), await romeo.slot("b.png", 1000, "image/png")
    body = content(1000)
    bare = await put(slot.put, body)
    check("without a token", (bare.status, bare.headers["WWW-Authenticate"].split()[0]), (401, "Bearer"))
    for authorization in ("Bearer", "Bearer x", "Basic cm9tZW86", "Bearer a.b.c"):
        reply = await put(slot.put, body, headers={"Authorization": authorization})
        check(authorization, (reply.status, reply.headers["WWW-Authenticate"].split()[0]), (401, "Bearer"))
    token = slot.headers["Authorization"]
    forged = token[:-1] + ("A" if token[-1] != "A" else "Q")
    # What is left of the last digit of base64 must be zero, so that another one may also be malformed.
    assert (await put(slot.put, body, headers={"Authorization": forged})).status in (401, 403)
    check("another slot's", (await put(slot.put, body, headers=other.headers)).status, 403)
    check("too long", (await with_headers(slot, body + b"x")).status, 413)
    assert (await with_headers(slot, body[1:])).status in (400, 413)
    check("another type", (await with_headers(slot, body, Content_Type="text/html")).status, 415)
    check("GET before", (await get(slot.get)).status, 404)
    check("files", up.files(), set())
    check("PUT", (await with_headers(slot, body, Content_Type="image/png")).status, 201)
    check("again", (await with_headers(slot, body, Content_Type="image/png")).status, 409)
    check("again under another name", (await put(slot.put + "x", body, headers=slot.headers)).status, 409)
    check("type", (await came_back(slot.get, body, "a.png")).headers["Content-Type"], "image/png")
    # A client library misspells the name of the field.
    reply = await put(other.put, body, headers={"Authorisation": other.headers["Authorization"]})
    check("misspelt", reply.status, 201)


@test()
async def file_share_with_another_secret(case):
    server, up = await door(case, share, file_share_secret=OTHER_KEY)
    romeo = await case.client(ROMEO, server)
    slot = await romeo.slot("a.bin", 10)
    check("PUT", (await with_headers(slot, bytes(10))).status, 403)
    check("files", up.files(), set())
    # The right secret comes with a reload, and the slot lives still.
    up.configure(file_share_secret=KEY)
    await up.reload()
    check("PUT", (await with_headers(slot, bytes(10))).status, 201)
    await came_back(slot.get, bytes(10), "a.bin")


@test()
async def file_share_counts_by_uploader(case):
    server, up = await door(case, share, file_share_secret=KEY, user_quota_hard=100 * KIB)
    romeo, benvolio = await case.client(ROMEO, server), await case.client(BENVOLIO, server)
    await romeo.upload("first.bin", bytes(60 * KIB))
    full = await romeo.slot("second.bin", 60 * KIB)
    check("over the quota", (await with_headers(full, bytes(60 * KIB))).status, 507)
    check("GET", (await get(full.get)).status, 404)
    sent = content(60 * KIB)
    await came_back(await benvolio.upload("other.bin", sent), sent, "the other account's")
    check("owners", {path.split("/")[0] for path in up.files()}, {owner_folder(ROMEO), owner_folder(BENVOLIO)})
    # What is stored counts after a restart.
    await up.restart()
    check("over the quota", (await with_headers(full, bytes(60 * KIB))).status, 507)
    fits = await romeo.slot("fits.bin", 40 * KIB)
    check("to the last byte", (await with_headers(fits, bytes(40 * KIB))).status, 201)


@test()
async def file_share_files_go_when_the_server_says(case):
    server, up = await door(case, lambda url: share(url, expires_after=4), file_share_secret=KEY, expire_interval=1,
                            expire_maxage=0)
    romeo = await case.client(ROMEO, server)
    body = b"brief as the lightning"
    asked = time.time()
    slot = await romeo.slot("short.txt", len(body), "text/plain")
    told = time.time()
    check("PUT", (await with_headers(slot, body, Content_Type="text/plain")).status, 201)
    await came_back(slot.get, body, "short.txt")
    last = await gone(slot.get)
    assert last, "it was gone before its time"
    # Prosody counts whole seconds; the request that came too early may have been a moment before.
    assert int(asked) + 3.5 <= last <= told + 4.5, f"served for {last - asked:.2f} s after the slot"
    await up.line(r"\bsweep done\b.*\bremoved=1\b")
    check("files", up.files(), set())
    # The token is good for longer than the file, and must not bring it back.
    check("again", (await with_headers(slot, body, Content_Type="text/plain")).status, 403)
    check("GET", (await get(slot.get)).status, 404)
    await up.line(r"\bsweep done\b.*\bremoved=0\b", up.mark())
    check("what is kept of it", up.leftovers(), [])


@test()
async def file_share_and_go_sendxmpp(case):
    authority = case.authority
    server, up = await door(case, share, scheme="https", file_share_secret=KEY, http_certfile=str(authority.chain),
                            http_keyfile=str(authority.key))
    body = content(200 * KIB)
    url = await by_go_sendxmpp(case, server, "très cool.txt", body)
    reply = await get(url, context=authority.context())
    check("GET", (reply.status, reply.body == body), (200, True))
    check("owner", {path.split("/")[0] for path in up.files()}, {owner_folder(ROMEO)})


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
    server, up = await door(case, protocol, external_secret=KEY)
    romeo = await case.client(ROMEO, server)
    for size in (1, 3 * MIB + 17):
        sent = content(size, seed=size)
        await came_back(await romeo.upload(f"{size}.bin", sent), sent, f"{size} bytes")
    kept = {}
    for number, (name, stored) in enumerate(NAMES):
        sent = content(100 + number, seed=number)
        url = await romeo.upload(name, sent)
        check("name offered", name_offered(await came_back(url, sent, name)), stored)
        kept[url] = sent
    await up.restart()
    for url, sent in kept.items():
        await came_back(url, sent, f"{url} after a restart")

    slot = await romeo.slot("très cool.jpg", 1000, "image/jpeg")
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(slot.put).query)
    check("what is signed", list(query), [parameter])
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
    check("type", (await came_back(slot.get, body, "jpg")).headers["Content-Type"], "image/jpeg")


@test()
async def external_types(case):
    server, up = await door(case, v2, external_secret=KEY)
    romeo = await case.client(ROMEO, server)
    # Name, type in the slot, type in the PUT, status, type in the GET.
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
        put_url, get_url = (answer.find(f".//{{{NAMESPACES[0]}}}{tag}").get("url") for tag in ("put", "get"))
        reply = await put(put_url, b"data", headers={} if sent is None else {"Content-Type": sent})
        check(f"PUT of {name} as {sent} for {asked}", reply.status, status)
        if status == 201:
            reply = await came_back(get_url, b"data", name)
            assert served in (None, reply.headers["Content-Type"]), f"{asked} became {reply.headers['Content-Type']}"
            assert "default-src 'none'" in reply.headers["Content-Security-Policy"], "no policy against scripts"
    old = await romeo.ask(slot_request(NAMESPACES[1], "old.jpg", 4, "image/jpeg"))
    put_url, get_url = (old.findtext(f".//{{{NAMESPACES[1]}}}{tag}") for tag in ("put", "get"))
    check("PUT", (await put(put_url, b"data", headers={"Content-Type": "image/jpeg"})).status, 201)
    check("type", (await came_back(get_url, b"data", "old.jpg")).headers["Content-Type"], "image/jpeg")


@test()
async def external_does_not_bring_back_what_expired(case):
    server, up = await door(case, v1, external_secret=KEY, expire_maxage=3600, expire_interval=1)
    romeo = await case.client(ROMEO, server)
    slot = await romeo.slot("old.bin", 1000)
    check("PUT", (await put(slot.put, bytes(1000))).status, 201)
    since = up.mark()
    path, = up.files()
    os.utime(up.store / path, (time.time() - 7200,) * 2)
    await up.line(r"\bsweep done\b.*\bremoved=1\b", since)
    for _ in range(2):
        reply = await put(slot.put, bytes(1000))
        assert reply.status in (409, 410), f"a signature was good twice: {reply.status}"
        check("GET", (await get(slot.get)).status, 404)
        await up.restart()
    new = await romeo.slot("old.bin", 1000)
    check("a new slot", (await put(new.put, bytes(1000))).status, 201)


@test()
async def external_and_go_sendxmpp(case):
    authority = case.authority
    server, _ = await door(case, v2, scheme="https", external_secret=KEY, http_certfile=str(authority.chain),
                           http_keyfile=str(authority.key))
    body = content(200 * KIB)
    url = await by_go_sendxmpp(case, server, "très cool.txt", body)
    reply = await get(url, context=authority.context())
    check("GET", (reply.status, reply.body == body), (200, True))


@test()
async def prosody_filers_tree_stays(case):
    server, up = await door(case, v1, start=False, external_secret=KEY)
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
        reply = await came_back(url, data, path)
        check(f"type of {path}", reply.headers["Content-Type"].split(";")[0], type)
        # Its own signature, once more.
        digest = hmac.new(KEY.encode(), f"{path} {len(data)}".encode(), hashlib.sha256).hexdigest()
        check(f"PUT over {path}", (await put(f"{url}?v={digest}", bytes(len(data)))).status, 409)
        await came_back(url, data, path)
    romeo = await case.client(ROMEO, server)
    sent = content(5000)
    url = await romeo.upload("new.jpg", sent)
    await came_back(url, sent, "new.jpg")
    new, = up.files() - old.keys()
    check("where new ones lie", new, urllib.parse.unquote(url.removeprefix(up.url)))


# ejabberd's mod_http_upload ------------------------------------------------------------------------------------------

@test(servers=("ejabberd",))
async def ejabberd_external_secret(case):
    server, up = await door(case, lambda url: ejabberd_upload(put_url=url.rstrip("/"), external_secret=KEY),
                            external_secret=KEY)
    romeo = await case.client(ROMEO, server)
    for size in (1, 3 * MIB + 17):
        sent = content(size, seed=size)
        await came_back(await romeo.upload(f"{size}.bin", sent), sent, f"{size} bytes")
    kept = {}
    for number, (name, _) in enumerate(NAMES):
        sent = content(100 + number, seed=number)
        url = await romeo.upload(name, sent)
        kept[url] = sent
        offered = name_offered(await came_back(url, sent, name))
        check(f"folders of {name}", urllib.parse.unquote(url).count("/") - up.url.count("/"), 2)
        check("name offered", offered, urllib.parse.unquote(url).rsplit("/", 1)[1])
    await up.restart()
    for url, sent in kept.items():
        await came_back(url, sent, f"{url} after a restart")

    for namespace in NAMESPACES[:2]:
        answer = await romeo.ask(slot_request(namespace, "très cool.jpg", 1000, "image/jpeg"))
        put_url, get_url = ((found := answer.find(f".//{{{namespace}}}{tag}")).get("url") or found.text
                            for tag in ("put", "get"))
        body = content(1000)
        for other in (body + b"x", body[1:]):
            check("another size", (await put(put_url, other)).status, 403)
        check("without a signature", (await put(put_url.split("?")[0], body)).status, 403)
        check("PUT", (await put(put_url, body, headers={"Content-Type": "image/jpeg"})).status, 201)
        check("again", (await put(put_url, body)).status, 409)
        check("type", (await came_back(get_url, body, "jpg")).headers["Content-Type"], "image/jpeg")


@test(servers=("ejabberd",))
async def ejabberd_service_url(case):
    port = free_port()
    server, up = await door(case, lambda url: ejabberd_upload(service_url=f"http://127.0.0.1:{port}/slot/"),
                            api={"port": port}, max_file_size=4 * MIB, user_quota_hard=5 * MIB,
                            whitelist=[ROMEO, BENVOLIO])
    romeo = await case.client(ROMEO, server)
    for size in (1, 3 * MIB + 17):
        sent = content(size, seed=size)
        await came_back(await romeo.upload(f"{size}.bin", sent), sent, f"{size} bytes")
    kept = {}
    for number, (name, _) in enumerate(NAMES):
        sent = content(100 + number, seed=number)
        url = await romeo.upload(name, sent)
        await came_back(url, sent, name)
        kept[url] = sent
    await up.restart()
    for url, sent in kept.items():
        await came_back(url, sent, f"{url} after a restart")
    for path in up.files():
        check("owner folder", path.split("/")[0], owner_folder(ROMEO))
    stored = {path.rsplit("/", 1)[1] for path in up.files()}
    for name in ("notes.txt", "très_cool.jpg", "Καλημέρα.pdf", "中文_文件", "semicoloncomma.tar.gz"):
        assert name in stored, f"{name} is not among {stored}"

    for namespace in NAMESPACES[:2]:
        answer = await romeo.ask(slot_request(namespace, "très cool.jpg", 1000, "image/jpeg"))
        put_url, get_url = ((found := answer.find(f".//{{{namespace}}}{tag}")).get("url") or found.text
                            for tag in ("put", "get"))
        body = content(1000)
        check("another type", (await put(put_url, body, headers={"Content-Type": "image/png"})).status, 415)
        check("too long", (await put(put_url, body + b"x", headers={"Content-Type": "image/jpeg"})).status, 413)
        check("PUT", (await put(put_url, body, headers={"Content-Type": "image/jpeg"})).status, 201)
        check("again", (await put(put_url, body, headers={"Content-Type": "image/jpeg"})).status, 409)
        check("type", (await came_back(get_url, body, "jpg")).headers["Content-Type"], "image/jpeg")

    check("too large", (await romeo.refusal("large.bin", 4 * MIB + 1)).condition, "not-acceptable")
    check("over the quota", (await romeo.refusal("large.bin", 4 * MIB)).condition, "not-allowed")
    benvolio = await case.client(BENVOLIO, server)
    await benvolio.upload("other.bin", bytes(4 * MIB))
    up.configure(whitelist=[BENVOLIO])
    await up.reload()
    check("not allowed", (await romeo.refusal("a.bin", 1)).condition, "not-allowed")


@test(servers=("ejabberd",))
async def ejabberd_service_url_and_rates(case):
    port = free_port()
    server, _ = await door(case, lambda url: ejabberd_upload(service_url=f"http://127.0.0.1:{port}/slot/"),
                           api={"port": port},
                           access=[{"jid": "^romeo@", "uploads_per_timedelta": {"delta": 3600, "uploads": 2}}])
    romeo, benvolio = await case.client(ROMEO, server), await case.client(BENVOLIO, server)
    for name in ("a.bin", "b.bin"):
        await came_back(await romeo.upload(name, b"data"), b"data", name)
    check("a third one", (await romeo.refusal("c.bin", 1)).condition, "resource-constraint")
    check("no rule", (await benvolio.refusal("c.bin", 1)).condition, "not-allowed")


# Several at once -----------------------------------------------------------------------------------------------------

@test()
async def several_doors_and_one_store(case):
    port = free_port()
    server, up = await door(case, lambda url: share(url, name=SHARE) + upload_external(url, name="signed." + DOMAIN),
                            component=True, api={"port": port}, file_share_secret=KEY, external_secret=KEY,
                            user_quota_hard=100 * KIB)
    romeo, benvolio = await case.client(ROMEO, server), await case.client(BENVOLIO, server)
    api = f"http://127.0.0.1:{port}/slot/?"

    async def asked(jid, size):
        query = urllib.parse.urlencode({"jid": jid, "name": "api file.bin", "size": size})
        return await get(api + query)

    # 30 KiB by each door that names an owner.
    kept = {}
    slot = await romeo.slot("component.bin", 30 * KIB)
    kept[slot.get] = content(30 * KIB, 1)
    check("PUT of the component's", (await put(slot.put, kept[slot.get])).status, 201)
    reply = await asked(ROMEO, 30 * KIB)
    check("API", reply.status, 200)
    put_url, get_url = reply.body.decode().split("\n")
    kept[get_url] = content(30 * KIB, 2)
    check("PUT of the API's", (await put(put_url, kept[get_url])).status, 201)
    slot = await romeo.slot("share.bin", 30 * KIB, to=SHARE)
    kept[slot.get] = content(30 * KIB, 3)
    check("PUT of the file share's", (await with_headers(slot, kept[slot.get])).status, 201)
    check("owners", {path.split("/")[0] for path in up.files()}, {owner_folder(ROMEO)})

    # 10 KiB are left at each of them, and not a byte more.
    for _ in range(2):
        refusal = await romeo.refusal("more.bin", 10 * KIB + 1)
        check("component", (refusal.type, refusal.condition), ("wait", "resource-constraint"))
        check("API", (await asked(ROMEO, 10 * KIB + 1)).status, 403)
        slot = await romeo.slot("more.bin", 10 * KIB + 1, to=SHARE)
        check("file share", (await with_headers(slot, bytes(10 * KIB + 1))).status, 507)
        check("API, what is left", (await asked(ROMEO, 10 * KIB)).status, 200)
        await up.restart()

    # A signature names no owner, and others have a quota of their own.
    slot = await romeo.slot("signed.bin", 90 * KIB, to="signed." + DOMAIN)
    kept[slot.get] = content(90 * KIB, 4)
    check("PUT of the signed one", (await put(slot.put, kept[slot.get])).status, 201)
    slot = await benvolio.slot("other.bin", 100 * KIB, to=SHARE)
    kept[slot.get] = content(100 * KIB, 5)
    check("PUT of the other account's", (await with_headers(slot, kept[slot.get])).status, 201)
    check("the other account at the API", (await asked(BENVOLIO, 1)).status, 403)

    # The two servers' secrets are the same here, and still each opens its own door alone.
    slot = await romeo.slot("fits.bin", 10 * KIB, to=SHARE)
    check("without its token", (await put(slot.put, bytes(10 * KIB))).status, 401)
    check("with it", (await with_headers(slot, bytes(10 * KIB))).status, 201)
    check("component, nothing left", (await romeo.refusal("more.bin", 1)).condition, "resource-constraint")
    for url, sent in kept.items():
        await came_back(url, sent, url)
    check("the API on the public port", (await get(api.replace(str(port), str(up.port)) + "jid=a@b")).status, 404)
    check("files on the API's port",
          (await get(next(iter(kept)).replace(str(up.port), str(port)))).status, 404)
