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
    """The serial number of the certificate, the TLS version and the ALPN protocol of a new connection."""
    context.set_alpn_protocols(["h2", "http/1.1"])
    with socket.create_connection(("127.0.0.1", up.port), timeout=10) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as wrapped:
            return wrapped.getpeercert()["serialNumber"], wrapped.version(), wrapped.selected_alpn_protocol()


async def with_tls(case, **settings):
    """An upslot with copies of certificate and key, which the test may replace."""
    chain, key = case.folder / "chain.pem", case.folder / "key.pem"
    shutil.copy(case.authority.chain, chain)
    shutil.copy(case.authority.key, key)
    return await case.upslot(http_certfile=str(chain), http_keyfile=str(key), **settings), chain, key


@test(servers=("prosody", "ejabberd"))
async def upload_and_download(case):
    up, _, _ = await with_tls(case)
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
    up, _, _ = await with_tls(case)
    for version, name in ((ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")):
        _, found, alpn = await asyncio.to_thread(peer, up, case.authority.context(version))
        check("version and ALPN", (found, alpn), (name, "http/1.1"))


@test()
async def new_certificate_on_sighup(case):
    up, chain, key = await with_tls(case)
    first = (await asyncio.to_thread(peer, up, case.authority.context()))[0]
    romeo = await case.client()
    slot = await romeo.slot("a.bin", 5)

    # A connection that was opened before the reload continues after it.
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

    # A key that does not match is refused, and the earlier certificate stays.
    shutil.copy(case.authority.key, key)
    await up.reload(r"\bconfig not reloaded\b")
    check("certificate", (await asyncio.to_thread(peer, up, case.authority.context()))[0], second)


@test(servers=(None,))
async def plain_http_gets_an_explanation(case):
    up, _, _ = await with_tls(case)
    url = f"http://localhost:{up.port}/files/some/file"
    for arguments in ((url,), ("-T", case.authority.pem, url), ("--http1.0", url), ("-I", url)):
        done = await curl("-o", case.folder / "answer", *arguments)
        check(f"status for {arguments}", done.code, 400)
        if "-I" not in arguments:
            assert "https://" in (case.folder / "answer").read_text(), "the answer does not say what to do"
    # TLS connections still work.
    reply = await get(f"https://127.0.0.1:{up.port}/", context=case.authority.context())
    check("GET /", reply.status, 200)


@test(servers=(None,))
async def no_renegotiation(case):
    """openssl requests many renegotiations of TLS 1.2."""
    up, _, _ = await with_tls(case)
    ran = await run(["openssl", "s_client", "-connect", f"127.0.0.1:{up.port}", "-tls1_2", "-servername", "localhost"],
                    stdin=await input_of(case, b"R\n" * 20 + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), timeout=PATIENCE)
    output = ran.out.decode() + ran.err
    assert "RENEGOTIATING" in output, output
    assert "no renegotiation" in output or "handshake failure" in output or "unexpected message" in output, output
    check("certificates shown", output.count("Server certificate"), 1)
    reply = await get(f"https://127.0.0.1:{up.port}/", context=case.authority.context())
    check("GET /", reply.status, 200)


async def input_of(case, data):
    """A file for standard input."""
    path = case.folder / "input"
    path.write_bytes(data)
    return open(path, "rb")


async def long_lived(case):
    """An upslot with a certificate that is valid for months."""
    chain, key = case.authority.issue("long-lived", days=90)
    return await case.upslot(http_certfile=str(chain), http_keyfile=str(key))


@test(servers=(None,), deadline=900)
async def scanners_find_no_weakness(case):
    up = await long_lived(case)
    # At the same time, because both mostly wait.
    await asyncio.gather(sslscan(up), testssl(case, up))
    # TLS connections still work.
    reply = await get(f"https://127.0.0.1:{up.port}/", context=case.authority.context())
    check("GET /", reply.status, 200)


async def sslscan(up):
    # testssl.sh tests for Heartbleed as well, and faster.
    ran = await run(["sslscan", "--no-colour", "--xml=-", "--no-heartbleed", f"localhost:{up.port}"], timeout=120)
    check("exit code of sslscan", ran.code, 0)
    found = ET.fromstring(ran.out[ran.out.index(b"<?xml"):]).find("ssltest")
    enabled = {(p.get("type"), p.get("version")) for p in found.iter("protocol") if p.get("enabled") == "1"}
    check("versions", enabled, {("tls", "1.2"), ("tls", "1.3")})
    # SSL 2 and 3, TLS 1.0 to 1.3.
    check("tested versions", len(list(found.iter("protocol"))), 6)
    check("renegotiation", found.find("renegotiation").get("supported"), "0")
    assert found.find("compression") is None or found.find("compression").get("supported") == "0", "compression"
    ciphers = [(c.get("sslversion"), c.get("cipher"), c.get("strength")) for c in found.iter("cipher")]
    assert ciphers, "no ciphers at all"
    for version, cipher, strength in ciphers:
        # sslscan rates TLS 1.3 as acceptable, because it does not know the key exchange.
        good = strength == "strong" if version == "TLSv1.2" else strength in ("strong", "acceptable")
        assert good and re.search("GCM|CHACHA20", cipher), f"{version} {cipher} is {strength}"
        assert version == "TLSv1.3" or cipher.startswith("ECDHE-"), f"{cipher} has no forward secrecy"
    for group in found.iter("group"):
        assert int(group.get("bits")) >= 128, group.attrib
    certificate = found.find("certificates/certificate")
    check("expired", certificate.findtext("expired"), "false")


# Findings of testssl.sh that upslot cannot influence. All others must be OK or informational.
IGNORED_FINDINGS = {
    "engine_problem": "the scanner's own OpenSSL lacks an engine for GOST",
    "cert_revocation": "the private authority has no revocation list and no OCSP responder",
    "DNS_CAArecord": "a DNS record of the operator; localhost has none",
    "HSTS": "a policy for the whole host, which the operator sets by custom_headers",
    "certificate_transparency": "the private authority is in no public log",
}


async def testssl(case, up):
    report = case.folder / "testssl.json"
    # Versions, the order of ciphers, renegotiation; the long form tests everything, which takes minutes.
    tests = ["--full"] if LONG else ["-p", "-P", "-R"]
    ran = await run(["testssl", "--color", "0", "--quiet", "--warnings", "off", "--nodns", "none",
                     "--add-ca", case.authority.pem, "--jsonfile", report, *tests, "--ip", "127.0.0.1",
                     f"localhost:{up.port}"], timeout=850)
    findings = json.loads(report.read_text())
    known = {finding["id"]: finding for finding in findings}
    for version in ("SSLv2", "SSLv3", "TLS1", "TLS1_1"):
        check(version, known[version]["finding"], "not offered")
    for version in ("TLS1_2", "TLS1_3"):
        assert known[version]["finding"].startswith("offered"), known[version]
    check("order of ciphers", known["cipher_order"]["finding"], "server")
    for weakness in ("secure_renego", "secure_client_renego", *(("heartbleed", "CCS") if LONG else ())):
        check(weakness, known[weakness]["severity"], "OK")
    bad = [f for f in findings if f["severity"] not in ("OK", "INFO") and f["id"] not in IGNORED_FINDINGS]
    assert not bad, f"{bad}; testssl ended with {ran.code}"
    assert len(findings) > (60 if LONG else 12), f"only {len(findings)} findings"
