"""Several nodes before an object store of several nodes, and the loss of any of them under load."""

import asyncio
import os
import signal
from pathlib import Path

from buckets import Load, download, with_bucket
from harness import (ACCOUNTS, DOMAIN, KIB, MIB, SECRET, UPLOAD, Garage, Process, check, content, free_port, get, health,
                     port_open, put, request_slot, run, slot_from_api, test, until)

CLUSTER = Path(__file__).resolve().parents[2] / "contrib" / "cluster"

# The longest time without a successful upload, in seconds, while an engine notices that one of its nodes is lost.
UNNOTICED = 25

# The longest time until a request to a store that hangs ends, in seconds.
HUNG = 40

GATEWAY = "radosgw-client.gateway"


async def more_uploads(load, count):
    """Waits for further uploads."""
    target = len(load.stored) + count
    await until(lambda: len(load.stored) >= target, f"{count} further uploads", timeout=60)


@test(servers=(None,), deadline=150)
async def osd_lost_and_back(case):
    store = await case.object_store("ceph")
    up = await with_bucket(case, await store.bucket())
    load = Load(case, up)
    await more_uploads(load, 20)
    osd = store.daemons["ceph-osd-1"]
    await osd.stop(signal.SIGKILL)
    try:
        await more_uploads(load, 40)
        await load.check()
    finally:
        await store.start_osd(1)
    await more_uploads(load, 20)
    await load.stop()
    print(f"{len(load.stored)} uploads, failed: {load.failures}, longest gap: {load.longest:.1f} s")
    check("failures", load.failures, [])
    assert load.longest < UNNOTICED, load.longest


@test(servers=(None,), deadline=150)
async def garage_node_lost_and_back(case):
    if not Garage.program():
        print("NOT TESTED: there is no program garage; `tests/run garage` builds one")
        return
    store = await case.object_store("garage")
    up = await with_bucket(case, await store.bucket())
    load = Load(case, up)
    await more_uploads(load, 20)
    await store.daemons["garage-2"].stop(signal.SIGKILL)
    try:
        await more_uploads(load, 40)
        await load.check()
    finally:
        await store.start_node(2)
    await more_uploads(load, 20)
    await load.stop()
    print(f"{len(load.stored)} uploads, failed: {load.failures}, longest gap: {load.longest:.1f} s")
    check("failures", load.failures, [])
    assert load.longest < UNNOTICED, load.longest


@test(servers=("prosody",), deadline=150)
async def gateway_stopped_and_started(case):
    store = await case.object_store("ceph")
    up = await with_bucket(case, await store.bucket(), user_quota_hard=1000 * KIB)
    benvolio, body = await case.client(ACCOUNTS[1]), content(20 * KIB)
    used, unused = [await slot_from_api(up, name, len(body)) for name in ("used.bin", "unused.bin")]
    check("PUT", (await put(used.put, body)).status, 201)
    check("health", (await health(up))[0], 200)
    since = up.mark()
    # Killed, it would be waited for by its successor, for changes of buckets.
    await store.daemons[GATEWAY].stop()
    reply = await put(unused.put, body)
    check("PUT", (reply.status, reply.headers["Retry-After"] is not None), (503, True))
    missing = await get(used.get.replace("used", "other"))
    check("GET", (missing.status, missing.headers["Retry-After"] is not None), (503, True))
    # A slot request whose quota is known needs nothing of the store, and others are told to come back.
    check("slot", (await request_slot(up, "more.bin", 10)).status, 200)
    refusal = await benvolio.refusal("more.bin", 10)
    check("slot of another user", (refusal.type, refusal.condition), ("wait", "resource-constraint"))
    check("front page", (await get(up.url)).status, 200)
    await until(lambda: unhealthy(up), "an unhealthy answer")
    await up.line(r" ERROR store failed", since)
    await store.start_gateway()
    await until(lambda: healthy(up), "a healthy answer")
    await up.line(r" INFO .*store recovered", since)
    check("PUT to the same slot", (await put(unused.put, body)).status, 201)
    for slot in used, unused:
        check("GET", (await download(slot.get)).body, body)
    assert len(up.logged(r" (WARN|ERROR) ", since)) == 1, up.logged(r" (WARN|ERROR) ", since)


@test(servers=("prosody",), deadline=150)
async def gateway_hangs(case):
    """A gateway that is stopped accepts connections and answers nothing: what needs it ends within the deadlines, everything
    else goes on, and all is well when it continues."""
    store = await case.object_store("ceph")
    up = await with_bucket(case, await store.bucket(), s3={"get": "relay"}, max_file_size=24 * MIB, body_timeout=5)
    # More than the buffers of both connections take.
    body = content(24 * MIB)
    used, half, unused = [await slot_from_api(up, name, len(body)) for name in ("used.bin", "half.bin", "unused.bin")]
    check("PUT", (await put(used.put, body)).status, 201)
    # An upload and a download that are in progress.
    upload, started = await case.raw(up), await case.raw(up)
    await upload.send_head("PUT", half.put, Content_Length=len(body))
    await upload.send(body[:4 * MIB])
    await started.send_head("GET", used.get)
    status, _ = await started.head()
    check("GET", status, 200)
    since, gateway = up.mark(), store.daemons[GATEWAY]
    gateway.child.send_signal(signal.SIGSTOP)
    try:
        new, early = case.background(put(unused.put, body)), case.background(get(used.get))
        rest = case.background(upload.send(body[4 * MIB:]))
        await local_parts_go_on(up)
        # The part of the upload that the store did not take is refused, and the download breaks off.
        status, fields = await upload.head()
        check("PUT in progress", (status, "retry-after" in fields), (503, True))
        rest.cancel()
        begun = await asyncio.wait_for(started.reader.read(-1), HUNG)
        assert len(begun) < len(body), "a whole file from a store that hangs"
        reply = await asyncio.wait_for(new, HUNG)
        check("new PUT", (reply.status, reply.headers["Retry-After"] is not None), (503, True))
        await up.line(r" ERROR store failed", since)
        check("health", (await health(up))[0], 503)
        await local_parts_go_on(up)
    finally:
        gateway.child.send_signal(signal.SIGCONT)
    await until(lambda: healthy(up), "a healthy answer")
    await up.line(r" INFO .*store recovered", since)
    # It waited all the time, or was refused.
    assert (await early).status in (200, 503)
    for slot in half, unused:
        check("PUT to the same slot", (await put(slot.put, body)).status, 201)
    for slot in used, half, unused:
        check("GET", (await download(slot.get)).body == body, True)
    assert len(up.logged(r" (WARN|ERROR) ", since)) == 1, up.logged(r" (WARN|ERROR) ", since)


async def local_parts_go_on(up):
    """What needs nothing of the store is answered at once."""
    before = asyncio.get_running_loop().time()
    check("slot", (await request_slot(up, "more.bin", 10)).status, 200)
    check("front page", (await get(up.url)).status, 200)
    check("health", (await health(up))[0] in (200, 503), True)
    assert asyncio.get_running_loop().time() - before < 3, "requests without the store wait"


async def unhealthy(up):
    return (await health(up))[0] == 503


async def healthy(up):
    return (await health(up))[0] == 200


class HAProxy:
    """A HAProxy with the sections of contrib/cluster/haproxy.cfg; only addresses, ports and certificates are replaced."""

    def __init__(self, case):
        self.port, self.store_port = free_port(), free_port()
        self.config, self.pem = case.folder / "haproxy.cfg", case.folder / "haproxy.pem"
        self.pem.write_text(case.authority.chain.read_text() + case.authority.key.read_text())
        self.context, self.url = case.authority.context(), f"https://127.0.0.1:{self.port}/"

    async def start(self, case, nodes, gateway):
        text = replaced((CLUSTER / "haproxy.cfg").read_text(), {
            ":::443 v4v6": f"127.0.0.1:{self.port}",
            "/etc/haproxy/certs/upload.example.org.pem": str(self.pem),
            "10.0.0.5:7480": f"127.0.0.1:{self.store_port}",
            **{f"10.0.1.{number}:7480": f"127.0.0.1:{gateway}" for number in (1, 2, 3)},
            "    default-server check port 8081 ": "    default-server check ",
            **{f"10.0.0.{number}:8080": f"127.0.0.1:{up.port} port {up.settings['api']['port']}"
               for number, up in enumerate(nodes, start=1)},
        })
        self.config.write_text(text)
        self.process = await Process.start("haproxy", ["haproxy", "-db", "-f", self.config])
        case.ends(self)
        await port_open(self.port, self.process)


def replaced(text, changes):
    for old, new in changes.items():
        assert old in text, f"there is no {old!r}"
        text = text.replace(old, new)
    return text


async def node(case, haproxy, bucket, server):
    """An upslot with contrib/cluster/config.yml; only addresses, ports, names and paths are replaced."""
    port, api = free_port(), free_port()
    secrets = {"component_secret": SECRET, "slot_secret": "the same on all nodes", "s3_secret_key":
               bucket.access.secret_key}
    for name, secret in secrets.items():
        path = case.folder / name
        path.write_text(secret)
        path.chmod(0o600)
    text = replaced((CLUSTER / "config.yml").read_text(), {
        "component_jid: upload.example.org": f"component_jid: {UPLOAD}",
        "component_host: 10.0.0.10": "component_host: 127.0.0.1",
        "component_port: 5347": f"component_port: {server.component_port}",
        "https://upload.example.org/": haproxy.url,
        "http_address: 0.0.0.0": "http_address: 127.0.0.1",
        "http_port: 8080": f"http_port: {port}",
        "trusted_proxies: 10.0.0.0/24": "trusted_proxies: 127.0.0.1",
        "address: 0.0.0.0": "address: 127.0.0.1",
        "port: 8081": f"port: {api}",
        "/etc/upslot/": f"{case.folder}/",
        "whitelist: example.org": f"whitelist: {DOMAIN}",
        "https://s3.example.org": bucket.store.endpoint,
        "http://10.0.0.5:7480": f"http://127.0.0.1:{haproxy.store_port}",
        "bucket: uploads": f"bucket: {bucket.name}",
        "access_key: upslot": f"access_key: {bucket.access.access_key}",
    })
    up = await case.upslot(server, start=False, port=port, api={"port": api})
    up.config.write_text(text)
    return up


async def round_trip(client, haproxy, body, to=UPLOAD):
    slot = await client.slot("file.bin", len(body), to=to)
    check("PUT", (await put(slot.put, body, context=haproxy.context)).status, 201)
    check("GET", (await download(slot.get, context=haproxy.context)).body, body)
    return slot


@test(servers=("prosody", "ejabberd"), deadline=200)
async def nodes_of_the_example(case):
    """Prosody accepts one node at a time, ejabberd all of them."""
    server = await case.server()
    bucket = await (await case.object_store("ceph")).bucket()
    haproxy = HAProxy(case)
    nodes = [await node(case, haproxy, bucket, server) for _ in range(2)]
    await haproxy.start(case, nodes, bucket.store.port)
    await nodes[0].start()
    await nodes[1].start(linked=server.kind == "ejabberd")
    if server.kind == "prosody":
        await nodes[1].line(r'link down why="another program or another instance is connected')

    async def in_use():
        return (await get(haproxy.url, context=haproxy.context)).status == 200

    await until(in_use, "a node that HAProxy uses")
    romeo, body = await case.client(), content(20 * KIB)
    await round_trip(romeo, haproxy, body)
    # A slot of the first node is for the second, too.
    slot = await slot_from_api(nodes[0], "moved.bin", len(body))
    moved = [url.replace(haproxy.url, f"http://127.0.0.1:{nodes[1].port}/") for url in (slot.put, slot.get)]
    check("PUT at the other node", (await put(moved[0], body)).status, 201)
    check("PUT again", (await put(slot.put, body, context=haproxy.context)).status, 409)
    left, revoked = [await slot_from_api(nodes[0], name, len(body), jid=jid)
                     for name, jid in (("left.bin", ACCOUNTS[0]), ("revoked.bin", ACCOUNTS[1]))]

    # Both nodes must be in use before one of them is lost.
    load = Load(case, nodes[1], context=haproxy.context)
    await more_uploads(load, 20)
    for up in nodes:
        await up.line("upload published")
    await nodes[0].process.stop(signal.SIGKILL)
    lost = asyncio.get_running_loop().time()
    await more_uploads(load, 20)
    print(f"20 uploads {asyncio.get_running_loop().time() - lost:.1f} s after the loss of a node")
    await nodes[1].line(r"link up", timeout=70)
    print(f"link up {asyncio.get_running_loop().time() - lost:.1f} s after the loss of a node")
    await round_trip(romeo, haproxy, body)
    check("slot of the lost node", (await put(left.put, body, context=haproxy.context)).status, 201)
    await load.stop()
    print(f"{len(load.stored)} uploads, failed: {load.failures}, longest gap: {load.longest:.1f} s")
    assert load.longest < 10, load.longest

    # What a node revokes is revoked at the other one.
    await nodes[0].start(linked=server.kind == "ejabberd")
    removed = await run([os.environ["UPSLOT_BIN"], "-c", nodes[0].config, "remove", ACCOUNTS[1]])
    check("remove", (removed.code, removed.err), (0, ""))
    for up in nodes:
        url = revoked.put.replace(haproxy.url, f"http://127.0.0.1:{up.port}/")
        assert (await put(url, body)).status in (403, 410), "a revoked slot was accepted"
