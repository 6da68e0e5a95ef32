"""Configurations of XMPP servers that hand out slots themselves and leave HTTP to upslot, and checks of their uploads."""

import asyncio
import os
import re
import time
import urllib.parse

from harness import (ACCOUNTS, DOMAIN, MIB, PASSWORD, PATIENCE, UPLOAD, check, content, free_port, get, http_request,
                     put, run)


ROMEO, BENVOLIO, _ = ACCOUNTS
KEY = "it was the nightingale, and not the lark"
OTHER_KEY = "it was the lark, the herald of the morn"
SHARE = "share." + DOMAIN

# The file name in the slot request, and the name under which upslot stores the file.
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


async def integration(case, extra, component=False, scheme="http", start=True, **settings):
    """An upslot with an XMPP server whose configuration `extra` makes from upslot's URL, and a client of Romeo."""
    port = free_port()
    server = await case.own_server(extra(f"{scheme}://127.0.0.1:{port}/files/"), component)
    up = await case.upslot(server, port=port, start=start, **settings)
    return up, await case.client(ROMEO, server)


def slot_urls(answer, namespace):
    """The PUT and the GET URL in the answer to a slot request; the oldest protocol has them as text."""
    found = (answer.find(f".//{{{namespace}}}{tag}") for tag in ("put", "get"))
    return [element.get("url") or element.text for element in found]


async def put_with_headers(slot, body, **headers):
    """A PUT of a client that sends the header fields of the slot."""
    return await put(slot.put, body, headers=slot.headers | {k.replace("_", "-"): v for k, v in headers.items()})


def offered_name(reply):
    """The file name in Content-Disposition."""
    disposition = reply.headers["Content-Disposition"]
    if encoded := re.search(r"filename\*=UTF-8''([^;]+)", disposition):
        return urllib.parse.unquote(encoded[1], errors="strict")
    return re.sub(r"\\(.)", r"\1", re.search(r'filename="((?:[^"\\]|\\.)*)"', disposition)[1])


async def check_download(url, sent, what):
    """Checks GET and HEAD; returns the reply to GET."""
    reply = await get(url)
    check(f"GET of {what}", (reply.status, reply.body == sent), (200, True))
    head = await http_request("HEAD", url)
    check(f"HEAD of {what}", (head.status, head.headers["Content-Length"]), (200, str(len(sent))))
    return reply


async def check_uploads(up, client, check_name=None):
    """Uploads files of several sizes and names, and checks their downloads, the named ones again after a restart.
    `check_name` gets the name that is to be stored, the URL, and the name that the download offers."""
    for size in (1, 3 * MIB + 17):
        sent = content(size, seed=size)
        await check_download(await client.upload(f"{size}.bin", sent), sent, f"{size} bytes")
    kept = {}
    for number, (name, stored) in enumerate(NAMES):
        sent = content(100 + number, seed=number)
        url = await client.upload(name, sent)
        reply = await check_download(url, sent, name)
        if check_name:
            check_name(stored, url, offered_name(reply))
        kept[url] = sent
    await up.restart()
    for url, sent in kept.items():
        await check_download(url, sent, f"{url} after a restart")


async def until_deleted(url, timeout=PATIENCE):
    """Waits until a file is no longer served; returns the time of the last successful GET."""
    deadline, last = time.time() + timeout, None
    while (status := (await get(url)).status) == 200:
        last = time.time()
        assert last < deadline, f"{url} is still served"
        await asyncio.sleep(0.05)
    check("status afterwards", status, 404)
    return last


async def upload_by_go_sendxmpp(case, server, name, body):
    """Uploads over verified TLS and sends the link; returns the link that the recipient gets."""
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
