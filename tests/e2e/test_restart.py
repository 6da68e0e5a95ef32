"""Start, restart, reload and end: of the XMPP server, and of upslot by signals and by force."""

import asyncio
import signal
import socket

from harness import (ACCOUNTS, KIB, MIB, PATIENCE, SECRET, Faults, check, content, get, put, test, traced, until)

# The time for which strace delays a call, in microseconds.
DELAY = 1_500_000


async def download_repeatedly(url, expected, statuses):
    """Downloads until it is cancelled or a download fails."""
    while True:
        reply = await get(url)
        assert (reply.status, reply.body) == (200, expected), f"GET: {reply.status}, {len(reply.body)} bytes"
        statuses.append(reply.status)


@test(servers=("prosody", "ejabberd"), deadline=150)
async def xmpp_server_restarted(case):
    server = await case.own_server()
    up = await case.upslot(server=server)
    romeo = await case.client(server=server)
    body = content(50 * KIB)
    url = await romeo.upload("before.bin", body)
    early = await romeo.slot("early.bin", 10)
    statuses = []
    downloads = case.background(download_repeatedly(url, body, statuses))
    # An orderly shutdown, then a crash.
    for number in (signal.SIGTERM, signal.SIGKILL):
        since = up.mark()
        await romeo.stop()
        await server.process.stop(number)
        await up.line(r"\blink down\b", since)
        if number == signal.SIGTERM:
            check("PUT without XMPP", (await put(early.put, bytes(10))).status, 201)
        seen = len(statuses)
        await until(lambda: len(statuses) > seen + 20 or downloads.done(), "downloads without the server")
        since = up.mark()
        await server.start()
        # The longest delay between two attempts is a minute.
        await up.line(r"\blink up\b", since, timeout=65)
        romeo = await case.client(server=server)
        url = await romeo.upload("after.bin", body)
        check("GET", (await get(url)).body, body)
    assert not downloads.done(), f"a download failed: {downloads.exception()}"


@test(servers=("prosody", "ejabberd"))
async def xmpp_server_starts_later(case):
    server = await case.own_server()
    await server.process.stop()
    up = await case.upslot(server=server, linked=False)
    check("GET /", (await get(f"http://127.0.0.1:{up.port}/")).status, 200)
    await up.line(r"\blink down\b")
    since = up.mark()
    await server.start()
    await up.line(r"\blink up\b", since, timeout=65)
    await (await case.client(server=server)).slot("a.bin", 1)


@test(servers=("prosody", "ejabberd"))
async def restarted_between_slot_put_and_get(case):
    up = await case.upslot()
    romeo = await case.client()
    body = content(300 * KIB)
    slot = await romeo.slot("très cool.bin", len(body))
    await up.restart()
    check("PUT", (await put(slot.put, body)).status, 201)
    await up.restart(signal.SIGKILL)
    check("GET", (await get(slot.get)).body, body)
    check("used slot", (await put(slot.put, body)).status, 409)


@test()
async def killed_during_an_upload(case):
    up = await case.upslot()
    romeo = await case.client()
    body = content(4 * MIB)
    slot = await romeo.slot("big.bin", len(body))
    raw = await case.raw(up)
    await raw.send_head("PUT", slot.put, Content_Length=len(body))
    await raw.send(body[:2 * MIB])
    await up.receiving(MIB)
    check("GET of an unfinished upload", (await get(slot.get)).status, 404)
    # No file has a name yet; the folder for it may exist.
    check("files", [path for path in up.files() if not path.endswith("/")], [])
    await up.process.stop(signal.SIGKILL)
    await up.start()
    check("files", [path for path in up.files() if not path.endswith("/")], [])
    check("leftovers", up.leftovers(), [])
    check("GET", (await get(slot.get)).status, 404)
    check("the same slot again", (await put(slot.put, body)).status, 201)
    assert (await get(slot.get)).body == body


@test()
async def aborted_upload_can_be_repeated(case):
    up = await case.upslot()
    romeo = await case.client()
    body = content(4 * MIB)
    slot = await romeo.slot("big.bin", len(body))
    for _ in range(3):
        raw = await case.raw(up)
        await raw.send_head("PUT", slot.put, Content_Length=len(body))
        await raw.send(body[:2 * MIB])
        await up.receiving(MIB)
        since = up.mark()
        raw.close()
        await up.line(r"\bconnection closed\b", since)
    check("files and folders", up.files(), set())
    check("leftovers", up.leftovers(), [])
    check("the same slot again", (await put(slot.put, body)).status, 201)
    assert (await get(slot.get)).body == body


@test()
async def sigterm_lets_running_transfers_finish(case):
    up = await case.upslot(max_file_size=64 * MIB)
    romeo = await case.client()
    big = content(32 * MIB)
    slot = await romeo.slot("big.bin", len(big))
    check("PUT", (await put(slot.put, big)).status, 201)
    other = await romeo.slot("other.bin", 4 * MIB)
    # An upload, a download, and an idle connection.
    upload, download, idle = [await case.raw(up) for _ in range(3)]
    await idle.send_head("GET", up.url)
    status, fields = await idle.head()
    await idle.body(int(fields["content-length"]))
    await upload.send_head("PUT", other.put, Content_Length=4 * MIB)
    await upload.send(big[:2 * MIB])
    await up.receiving(MIB)
    await download.send_head("GET", slot.get)
    status, fields = await download.head()
    found = await download.body(MIB)

    up.process.child.send_signal(signal.SIGTERM)
    await up.line(r"\bshutting down\b.*SIGTERM")
    check("the idle connection", await asyncio.wait_for(idle.reader.read(1), 10), b"")

    async def refused():
        try:
            await case.raw(up)
        except OSError:
            return True
        return False

    assert await refused(), "a new connection was accepted"
    await upload.send(big[2 * MIB:4 * MIB])
    status, _ = await upload.head()
    check("running PUT", status, 201)
    found += await download.body(len(big) - MIB)
    assert found == big, "the download is damaged"
    check("exit code", await up.process.ended(20), 0)
    assert any("stopped" in line for line in up.process.lines), "no last line in the log"
    await up.start()
    check("GET", (await get(other.get)).body, big[:4 * MIB])


@test()
async def second_signal_forces_shutdown(case):
    up = await case.upslot()
    romeo = await case.client()
    slot = await romeo.slot("big.bin", 4 * MIB)
    upload = await case.raw(up)
    await upload.send_head("PUT", slot.put, Content_Length=4 * MIB)
    await upload.send(bytes(2 * MIB))
    await up.receiving(MIB)
    up.process.child.send_signal(signal.SIGTERM)
    await up.line(r"\bshutting down\b")
    up.process.child.send_signal(signal.SIGINT)
    await up.process.ended(5)
    check("files", [path for path in up.files() if not path.endswith("/")], [])


@test(servers=("prosody", "ejabberd"))
async def wrong_secret(case):
    up = await case.upslot(linked=False, component_secret="not the secret")
    found = await up.line(r"\b(WARN|ERROR)\b.*secret")
    assert "not the secret" not in found.string and SECRET not in found.string, "a secret is in the log"
    check("GET /", (await get(f"http://127.0.0.1:{up.port}/")).status, 200)
    up.configure(component_secret=SECRET)
    since = up.mark()
    await up.reload()
    await up.line(r"\blink up\b", since)
    url = await (await case.client()).upload("a.bin", b"abc")
    check("GET", (await get(url)).body, b"abc")


@test()
async def reload_changes_limits_and_survives_errors(case):
    up = await case.upslot(max_file_size=10_000)
    romeo = await case.client()
    slot = await romeo.slot("a.bin", 10_000)
    upload = await case.raw(up)
    await upload.send_head("PUT", slot.put, Content_Length=10_000)
    await upload.send(bytes(5000))
    await up.receiving(5000)
    check("before", (await romeo.refusal("b.bin", 10_001)).condition, "not-acceptable")

    up.configure(max_file_size=20_000, whitelist=[ACCOUNTS[0]])
    await up.reload()
    await romeo.slot("b.bin", 20_000)
    check("whitelist", (await (await case.client(ACCOUNTS[1])).refusal("c.bin", 1)).condition, "forbidden")

    up.configure(max_file_size="plenty")
    await up.reload(r"\bconfig not reloaded\b")
    await romeo.slot("b.bin", 20_000)
    check("still", (await romeo.refusal("b.bin", 20_001)).condition, "not-acceptable")

    # The running upload was not affected.
    await upload.send(bytes(5000))
    check("running PUT", (await upload.head())[0], 201)


@test(servers=(None,), deadline=180)
async def signals_during_startup(case):
    # The start is delayed at a call that follows the opening of the port.
    for call in ("eventfd2", "landlock_create_ruleset"):
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            trace = case.folder / f"trace-{call}-{number}"
            up = await case.upslot(start=False, wrapper=traced(
                trace, "-e", f"trace={call}", "-e", f"inject={call}:delay_enter={DELAY}:when=1"))
            process = await up.spawn()

            def is_open():
                with socket.socket() as probe:
                    return probe.connect_ex(("127.0.0.1", up.port)) == 0

            await until(is_open, "an open port")
            assert not [line for line in process.lines if "ready" in line], "the start was already complete"
            process.child.send_signal(number)
            await process.line(r"\bready pid=")
            if number == signal.SIGHUP:
                await process.line(r"\bconfig reloaded\b")
                check("GET /", (await get(f"http://127.0.0.1:{up.port}/")).status, 200)
                process.child.send_signal(signal.SIGTERM)
            await process.line(r"\bshutting down signal=")
            check(f"exit code after {number.name} at {call}", await process.ended(), 0)


@test(servers=(None,))
async def pending_request_is_answered_at_shutdown(case):
    up = await case.upslot(start=False)
    await up.start()
    check("GET /", (await get(f"http://127.0.0.1:{up.port}/")).status, 200)
    # The loop is delayed after its last accept: the next connection and the signal come before the next turn.
    async with Faults(case, up, f"accept4:delay_exit={DELAY}:when=2"):
        since = up.mark()
        first = await case.raw(up)
        await up.line("connection accepted", since)
        # The delayed call follows at once, and has no event.
        await asyncio.sleep(DELAY / 5e6)
        late = await case.raw(up)
        await late.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        up.process.child.send_signal(signal.SIGTERM)
        status, fields = await late.head()
    check("answer", (status, fields.get("connection")), (200, "close"))
    # The connection without a request is closed.
    check("idle connection", await asyncio.wait_for(first.reader.read(), PATIENCE), b"")
    check("exit", await up.process.ended(), 0)
