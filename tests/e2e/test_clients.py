"""Clients other than slixmpp."""

import asyncio
import os
import re

from harness import ACCOUNTS, KIB, PASSWORD, check, content, get, run, test


@test(servers=("prosody", "ejabberd"))
async def go_sendxmpp(case):
    """Uploads over HTTPS and sends the link; the receiver downloads it. Both TLS connections are verified."""
    authority = case.authority
    await case.upslot(http_certfile=str(authority.chain), http_keyfile=str(authority.key))
    server = await case.server()
    benvolio = await case.client(ACCOUNTS[1])
    path = case.folder / "très cool.txt"
    body = content(200 * KIB)
    path.write_bytes(body)
    done = await run(
        ["go-sendxmpp", "-u", ACCOUNTS[0], "-p", PASSWORD, "-j", f"127.0.0.1:{server.client_port}",
         "--http-upload", path, ACCOUNTS[1]],
        env=dict(os.environ, SSL_CERT_FILE=str(authority.pem), HOME=str(case.folder)), cwd=case.folder)
    assert done.code == 0, f"go-sendxmpp ended with {done.code}: {done.out} {done.err}"
    message = await asyncio.wait_for(benvolio.messages.get(), 30)
    url = re.search(r"https://\S+", message["body"])[0]
    reply = await get(url, context=authority.context())
    check("GET", (reply.status, reply.body == body), (200, True))
