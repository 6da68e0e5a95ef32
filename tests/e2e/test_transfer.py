"""Slots, uploads and downloads: sizes, names, types and namespaces."""

import re
import urllib.parse

from harness import (ACCOUNTS, KIB, MIB, NAMESPACES, check, content, get, http_request, owner_folder, put,
                     refusal_of, slot_request, test)

LIMIT = 3 * MIB + 17


@test(servers=("prosody", "ejabberd"))
async def sizes(case):
    up = await case.upslot(max_file_size=LIMIT)
    romeo = await case.client()
    for size in (1, 10 * KIB, MIB, LIMIT):
        sent = content(size, seed=size)
        url = await romeo.upload(f"{size}.bin", sent)
        reply = await get(url)
        check(f"status of {size} bytes", reply.status, 200)
        check(f"length of {size} bytes", reply.headers["Content-Length"], str(size))
        assert reply.body == sent, f"the download of {size} bytes differs"
        head = await http_request("HEAD", url)
        check("HEAD", (head.status, head.headers["Content-Length"], head.body), (200, str(size), b""))
    check("files", len(up.files()), 4)
    for path in up.files():
        check("owner folder", path.split("/")[0], owner_folder(ACCOUNTS[0]))


@test(servers=("prosody", "ejabberd"))
async def one_byte_more_is_refused(case):
    await case.upslot(max_file_size=LIMIT)
    romeo = await case.client()
    await romeo.slot("exactly.bin", LIMIT)
    for namespace in NAMESPACES:
        refusal = await romeo.refusal("more.bin", LIMIT + 1, namespace)
        check("error", (refusal.type, refusal.condition), ("modify", "not-acceptable"))
        limit = refusal.xml.findtext(f"{{{namespace}}}file-too-large/{{{namespace}}}max-file-size")
        check(f"limit in {namespace}", limit, str(LIMIT))
        assert str(LIMIT) in refusal.text, f"the text does not name the limit: {refusal.text}"


@test(servers=("prosody", "ejabberd"))
async def malformed_requests_are_refused(case):
    await case.upslot()
    romeo = await case.client()
    for fields in ('size="5"', 'filename="a"', 'filename="" size="5"', 'filename="a" size="0"',
                   'filename="a" size="-5"', 'filename="a" size="five"', 'filename="a" size=""'):
        answer = await romeo.ask(f'<request xmlns="{NAMESPACES[0]}" {fields}/>')
        check(fields, (refusal_of(answer).type, refusal_of(answer).condition), ("modify", "bad-request"))
        assert answer.find(f"{{{NAMESPACES[0]}}}request") is not None, "the request is not in the answer"


# The file name in the slot request, and the name of the stored and the downloaded file.
NAMES = [
    ("très cool.jpg", "très cool.jpg"),
    ("😀 🏳️‍🌈.png", "😀 🏳️‍🌈.png"),
    ("#?%.txt", "#?%.txt"),
    ("100%41 & <b>+\"'.txt", "100%41 & <b>+\"'.txt"),
    ("a" * 251 + ".jpg", "a" * 251 + ".jpg"),
    ("é" * 126 + "é.jpg", "é" * 125 + ".jpg"),
    ("a" * 300 + ".jpg", "a" * 251 + ".jpg"),
    (".htaccess", "_htaccess"),
    ("..", None),
    ("Καλημέρα.pdf", "Καλημέρα.pdf"),
    ("中文 文件", "中文 文件"),
    ("semi;colon,comma=.tar.gz", "semi;colon,comma=.tar.gz"),
]


@test(servers=("prosody", "ejabberd"))
async def names(case):
    up = await case.upslot()
    romeo = await case.client()
    for number, (name, stored) in enumerate(NAMES):
        sent = content(100 + number)
        slot = await romeo.slot(name, len(sent))
        assert re.fullmatch(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+", slot.put + slot.get), f"not a URL: {slot}"
        check(f"PUT of {name}", (await put(slot.put, sent)).status, 201)
        reply = await get(slot.get)
        check(f"GET of {name}", (reply.status, reply.body), (200, sent))
        last = urllib.parse.unquote(slot.get.rsplit("/", 1)[1], errors="strict")
        if stored:
            check("name in the URL", last, stored)
        assert len(last.encode()) <= 255 and not last.startswith("."), f"{name} became {last}"
        assert last in {path.rsplit("/", 1)[1] for path in up.files()}, f"{last} is not in the store"
        disposition = reply.headers["Content-Disposition"]
        encoded = re.search(r"filename\*=UTF-8''([^;]+)", disposition)
        plain = re.search(r'filename="((?:[^"\\]|\\.)*)"', disposition)
        offered = urllib.parse.unquote(encoded[1]) if encoded else re.sub(r"\\(.)", r"\1", plain[1])
        check("name in Content-Disposition", offered, last)


@test(servers=("prosody", "ejabberd"))
async def names_through_slixmpp(case):
    await case.upslot()
    romeo = await case.client()
    for number, (name, _) in enumerate(NAMES):
        if name != "..":
            sent = content(500 + number)
            url = await romeo.upload(name, sent)
            check(f"GET of {name}", (await get(url)).body, sent)


@test()
async def slashes_and_control_characters_in_names(case):
    up = await case.upslot()
    romeo = await case.client()
    for name in ("../../etc/passwd", "/etc/passwd", "a/b.txt", "..\\..\\x", "tab\there.txt", "a\u007fb\u0085c"):
        slot = await romeo.slot(name, 3)
        check(f"PUT of {name}", (await put(slot.put, b"abc")).status, 201)
        check(f"GET of {name}", (await get(slot.get)).body, b"abc")
        last = urllib.parse.unquote(slot.get.rsplit("/", 1)[1])
        assert not re.search(r"[/\x00-\x1f\x7f-\x9f]", last), f"{name} became {last!r}"
    for path in up.files():
        check("depth", path.count("/"), 2)


@test(servers=("prosody", "ejabberd"))
async def old_namespaces(case):
    await case.upslot()
    romeo = await case.client()
    for namespace in NAMESPACES[1:]:
        answer = await romeo.ask(slot_request(namespace, "très cool.jpg", 5, "image/jpeg"))
        check("type", answer.get("type"), "result")
        slot = answer.find(f"{{{namespace}}}slot")
        put_url, get_url = slot.findtext(f"{{{namespace}}}put"), slot.findtext(f"{{{namespace}}}get")
        check("PUT", (await put(put_url, b"12345", headers={"Content-Type": "image/jpeg"})).status, 201)
        reply = await get(get_url)
        check("GET", (reply.status, reply.body, reply.headers["Content-Type"]), (200, b"12345", "image/jpeg"))


@test()
async def types(case):
    await case.upslot()
    romeo = await case.client()
    # Type in the slot request, type in the PUT, status, type in the GET, whether it is displayed inline.
    cases = [
        ("image/avif", "image/avif", 201, "image/avif", True),
        ("image/png", "IMAGE/PNG; charset=binary", 201, "image/png", True),
        ("image/png", "application/octet-stream", 201, "image/png", True),
        ("image/png", "", 201, "image/png", True),
        ("image/png", None, 201, "image/png", True),
        ("image/png", "text/html", 415, None, False),
        ("text/html", "text/html", 201, "text/html", False),
        ("image/svg+xml", "image/svg+xml", 201, "image/svg+xml", False),
    ]
    for number, (asked, sent, status, served, inline) in enumerate(cases):
        slot = await romeo.slot(f"file-{number}", 4, asked)
        reply = await put(slot.put, b"data", headers={} if sent is None else {"Content-Type": sent})
        check(f"PUT of {sent} for {asked}", reply.status, status)
        if served:
            reply = await get(slot.get)
            check(f"type of {asked}", reply.headers["Content-Type"].split(";")[0], served)
            check("disposition", reply.headers["Content-Disposition"].split(";")[0],
                  "inline" if inline else "attachment")
            check("nosniff", reply.headers["X-Content-Type-Options"], "nosniff")
            assert "default-src 'none'" in reply.headers["Content-Security-Policy"], "no policy against scripts"
