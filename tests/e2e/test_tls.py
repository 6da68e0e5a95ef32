"""HTTPS by upslot itself."""

import asyncio
import http.client
import shutil
import socket
import ssl

from harness import MIB, check, content, curl, get, put, test


def peer(up, context):
    """Serial number of the certificate, protocol version and ALPN of a new connection."""
    context.set_alpn_protocols(["h2", "http/1.1"])
    with socket.create_connection(("127.0.0.1", up.port), timeout=10) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as wrapped:
            return wrapped.getpeercert()["serialNumber"], wrapped.version(), wrapped.selected_alpn_protocol()


async def secured(case, **settings):
    """An upslot with copies of the certificate and the key, which a test may replace."""
    chain, key = case.folder / "chain.pem", case.folder / "key.pem"
    shutil.copy(case.authority.chain, chain)
    shutil.copy(case.authority.key, key)
    return await case.upslot(http_certfile=str(chain), http_keyfile=str(key), **settings), chain, key


@test(servers=("prosody", "ejabberd"))
async def upload_and_download(case):
    up, _, _ = await secured(case)
    romeo = await case.client()
    body = content(3 * MIB)
    slot = await romeo.slot("secret plans.bin", len(body))
    assert slot.put.startswith("https://") and slot.get.startswith("https://")
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        slot = await romeo.slot("secret plans.bin", len(body))
        context = case.authority.context(version)
        check("PUT", (await put(slot.put, body, context=context)).status, 201)
        assert (await get(slot.get, context=context)).body == body
    done = await curl("--cacert", case.authority.pem, "-r", "1000-1999", slot.get)
    check("range", (done.code, done.out == body[1000:2000]), (206, True))


@test()
async def versions_and_alpn(case):
    up, _, _ = await secured(case)
    for version, name in ((ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")):
        _, found, alpn = await asyncio.to_thread(peer, up, case.authority.context(version))
        check("version and ALPN", (found, alpn), (name, "http/1.1"))


@test()
async def new_certificate_on_sighup(case):
    up, chain, key = await secured(case)
    first = (await asyncio.to_thread(peer, up, case.authority.context()))[0]
    romeo = await case.client()
    slot = await romeo.slot("a.bin", 5)

    # A connection from before the reload goes on after it.
    kept = http.client.HTTPSConnection("127.0.0.1", up.port, context=case.authority.context(), timeout=20)

    def request(method, url, body=None):
        kept.request(method, url.removeprefix(f"https://127.0.0.1:{up.port}"), body=body)
        answer = kept.getresponse()
        return answer.status, answer.read()

    check("PUT", (await asyncio.to_thread(request, "PUT", slot.put, b"hello"))[0], 201)
    old_socket = kept.sock
    new_chain, new_key = case.authority.issue("renewed")
    shutil.copy(new_chain, chain)
    shutil.copy(new_key, key)
    await up.reload()
    second = (await asyncio.to_thread(peer, up, case.authority.context()))[0]
    assert first != second, "the old certificate is still served"
    check("GET on the old connection", await asyncio.to_thread(request, "GET", slot.get), (200, b"hello"))
    assert kept.sock is old_socket, "the old connection was closed"
    kept.close()

    # A key that does not fit is refused, and what was there stays.
    shutil.copy(case.authority.key, key)
    await up.reload(r"\bconfig not reloaded\b")
    check("certificate", (await asyncio.to_thread(peer, up, case.authority.context()))[0], second)


@test()
async def plain_http_to_the_tls_port_does_no_harm(case):
    up, _, _ = await secured(case)
    raw = await case.raw(up)
    await raw.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await asyncio.wait_for(raw.reader.read(), 20)
    reply = await get(f"https://127.0.0.1:{up.port}/", context=case.authority.context())
    check("GET /", reply.status, 200)
