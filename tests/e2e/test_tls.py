"""HTTPS by upslot itself."""

import asyncio
import http.client
import json
import re
import shutil
import socket
import ssl
import xml.etree.ElementTree as ET

from harness import LONG, MIB, PATIENCE, check, content, curl, get, put, run, test


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


@test(servers=(None,))
async def plain_http_is_told(case):
    up, _, _ = await secured(case)
    url = f"http://localhost:{up.port}/files/some/file"
    for arguments in ((url,), ("-T", case.authority.pem, url), ("--http1.0", url), ("-I", url)):
        done = await curl("-o", case.folder / "answer", *arguments)
        check(f"status for {arguments}", done.code, 400)
        if "-I" not in arguments:
            assert "https://" in (case.folder / "answer").read_text(), "the answer does not say what to do"
    # Several in a row do no harm.
    reply = await get(f"https://127.0.0.1:{up.port}/", context=case.authority.context())
    check("GET /", reply.status, 200)


@test(servers=(None,))
async def no_renegotiation(case):
    """openssl asks for another handshake within one of TLS 1.2, over and over."""
    up, _, _ = await secured(case)
    ran = await run(["openssl", "s_client", "-connect", f"127.0.0.1:{up.port}", "-tls1_2", "-servername", "localhost"],
                    stdin=await input_of(case, b"R\n" * 20 + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), timeout=PATIENCE)
    said = ran.out.decode() + ran.err
    assert "RENEGOTIATING" in said, said
    assert "no renegotiation" in said or "handshake failure" in said or "unexpected message" in said, said
    check("certificates shown", said.count("Server certificate"), 1)
    reply = await get(f"https://127.0.0.1:{up.port}/", context=case.authority.context())
    check("GET /", reply.status, 200)


async def input_of(case, data):
    """A file to be read as standard input."""
    path = case.folder / "input"
    path.write_bytes(data)
    return open(path, "rb")


async def long_lived(case):
    """An upslot whose certificate is far from its end."""
    chain, key = case.authority.issue("long-lived", days=90)
    return await case.upslot(http_certfile=str(chain), http_keyfile=str(key))


@test(servers=(None,), deadline=900)
async def scanners_find_nothing(case):
    up = await long_lived(case)
    # Both wait more than they work.
    await asyncio.gather(sslscan(up), testssl(case, up))
    # It was not hurt by any of it.
    reply = await get(f"https://127.0.0.1:{up.port}/", context=case.authority.context())
    check("GET /", reply.status, 200)


async def sslscan(up):
    # testssl.sh looks for Heartbleed, too, and waits less for it.
    ran = await run(["sslscan", "--no-colour", "--xml=-", "--no-heartbleed", f"localhost:{up.port}"], timeout=120)
    check("exit code of sslscan", ran.code, 0)
    found = ET.fromstring(ran.out[ran.out.index(b"<?xml"):]).find("ssltest")
    enabled = {(p.get("type"), p.get("version")) for p in found.iter("protocol") if p.get("enabled") == "1"}
    check("versions", enabled, {("tls", "1.2"), ("tls", "1.3")})
    # SSL 2 and 3 and TLS 1.0 and 1.1 were looked for.
    check("versions looked at", len(list(found.iter("protocol"))), 6)
    check("renegotiation", found.find("renegotiation").get("supported"), "0")
    assert found.find("compression") is None or found.find("compression").get("supported") == "0", "compression"
    ciphers = [(c.get("sslversion"), c.get("cipher"), c.get("strength")) for c in found.iter("cipher")]
    assert ciphers, "no ciphers at all"
    for version, cipher, strength in ciphers:
        # sslscan calls those of TLS 1.3 acceptable, because it takes the key exchange for unknown.
        good = strength == "strong" if version == "TLSv1.2" else strength in ("strong", "acceptable")
        assert good and re.search("GCM|CHACHA20", cipher), f"{version} {cipher} is {strength}"
        assert version == "TLSv1.3" or cipher.startswith("ECDHE-"), f"{cipher} has no forward secrecy"
    for group in found.iter("group"):
        assert int(group.get("bits")) >= 128, group.attrib
    certificate = found.find("certificates/certificate")
    check("expired", certificate.findtext("expired"), "false")


# What testssl.sh says of things that are not upslot's; every other finding must be OK or for information.
NOT_OURS = {
    "engine_problem": "the scanner's own OpenSSL lacks an engine for GOST",
    "cert_revocation": "a private authority has no list and no responder of what it revoked",
    "DNS_CAArecord": "a record of the operator's name, and localhost has none",
    "HSTS": "a promise about the operator's whole host for which custom_headers has room; it is not upslot's to give",
    "certificate_transparency": "a private authority is in no public log",
}


async def testssl(case, up):
    report = case.folder / "testssl.json"
    # Versions, the order of ciphers, renegotiation; the long form looks at everything, which takes minutes.
    looks = ["--full"] if LONG else ["-p", "-P", "-R"]
    ran = await run(["testssl", "--color", "0", "--quiet", "--warnings", "off", "--nodns", "none",
                     "--add-ca", case.authority.pem, "--jsonfile", report, *looks, "--ip", "127.0.0.1",
                     f"localhost:{up.port}"], timeout=850)
    findings = json.loads(report.read_text())
    known = {finding["id"]: finding for finding in findings}
    for version in ("SSLv2", "SSLv3", "TLS1", "TLS1_1"):
        check(version, known[version]["finding"], "not offered")
    for version in ("TLS1_2", "TLS1_3"):
        assert known[version]["finding"].startswith("offered"), known[version]
    check("order of ciphers", known["cipher_order"]["finding"], "server")
    for hole in ("secure_renego", "secure_client_renego", *(("heartbleed", "CCS") if LONG else ())):
        check(hole, known[hole]["severity"], "OK")
    bad = [f for f in findings if f["severity"] not in ("OK", "INFO") and f["id"] not in NOT_OURS]
    assert not bad, f"{bad}; testssl ended with {ran.code}"
    assert len(findings) > (60 if LONG else 12), f"only {len(findings)} findings"
