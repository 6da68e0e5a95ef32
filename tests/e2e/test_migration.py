"""Migration: config.yml and store of HttpUploadComponent work unchanged; the stores of Prosody and ejabberd are imported."""

import os
import time
import urllib.parse

from harness import (ACCOUNTS, KIB, UPLOAD, Ejabberd, Prosody, check, content, free_port, get, owner_folder, put, run, test,
                     until)
from integrations import ejabberd_upload

# In the style of its sample: spaces before colons, comments, plain and quoted values.
CONFIG = """\
# Configuration of the component
component_jid : {jid}
component_secret : "{secret}"
component_port : {component_port}

storage_path : '{store}'   # must be writable

whitelist:
    - montague.example
    - "juliet@capulet.example"

max_file_size : 20971520 #20MiB

http_address : 127.0.0.1
http_port : {port}
#http_keyfile : /etc/ssl/private/upload.key
#http_certfile : /etc/ssl/certs/upload.pem

get_url : http://127.0.0.1:{port}
put_url : http://127.0.0.1:{port}

expire_interval : 82800 #time in secs between expiry runs (82800 secs = 23 hours). set to '0' to disable
expire_maxage : 2592000
user_quota_hard : 204800 #200KiB
user_quota_soft : 0

allow_web_clients : true
"""


def old_store(up):
    """Creates files as HttpUploadComponent stores them, ten days old; returns their contents by relative path."""
    folder = owner_folder(ACCOUNTS[0])
    files = {
        f"{folder}/a1B2c3D4e5F6g/trscool.jpg": content(50 * KIB, 1),
        f"{folder}/Zz9Yy8Xx7Ww6V/notes.txt": b"old notes\n",
        f"{folder}/Q1w2E3r4T5y6U": content(30 * KIB, 2),
        f"{folder}/0000000000000/a:b@c=1;[x].pdf": content(1000, 3),
        f"{folder}/1111111111111/no_extension": b"plain",
        f"{owner_folder('someone@else.example')}/abcdefghijklm/cat.png": content(2000, 4),
    }
    for path, data in files.items():
        file = up.store / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        os.utime(file, (time.time() - 10 * 86400,) * 2)
    return files


@test(servers=("prosody", "ejabberd"))
async def config_and_store_work_unchanged(case):
    up = await case.upslot(text=CONFIG, start=False, arguments=[])
    files = old_store(up)
    await up.start()
    for path, data in files.items():
        reply = await get(f"http://127.0.0.1:{up.port}/{path}")
        check(f"old link {path}", (reply.status, reply.body == data), (200, True))
        reply = await get(f"http://127.0.0.1:{up.port}/{urllib.parse.quote(path)}")
        check(f"old link {path}, encoded", (reply.status, reply.body == data), (200, True))
    types = {path.rsplit("/")[-1]: (await get(f"http://127.0.0.1:{up.port}/{path}")).headers["Content-Type"]
             for path in files}
    check("JPEG", types["trscool.jpg"], "image/jpeg")
    check("PNG", types["cat.png"], "image/png")
    check("text", types["notes.txt"].split(";")[0], "text/plain")

    romeo = await case.client()
    check("errors in the log", up.logged(" ERROR "), [])
    url = await romeo.upload("new.jpg", content(60 * KIB, 5))
    check("new file", (await get(url)).body, content(60 * KIB, 5))
    for path, data in files.items():
        check("old link afterwards", (await get(f"http://127.0.0.1:{up.port}/{path}")).status, 200)


@test(servers=("prosody", "ejabberd"))
async def old_files_count_towards_the_quota(case):
    up = await case.upslot(text=CONFIG, start=False, arguments=["--config", "config.yml"])
    used = sum(len(data) for path, data in old_store(up).items() if path.startswith(owner_folder(ACCOUNTS[0])))
    await up.start()
    romeo = await case.client()
    left = 204800 - used
    refusal = await romeo.refusal("too-much.bin", left + 1)
    check("error", (refusal.type, refusal.condition), ("wait", "resource-constraint"))
    slot = await romeo.slot("fits.bin", left)
    check("within the quota", (await put(slot.put, bytes(left))).status, 201)


@test()
async def whitelist_of_the_old_config(case):
    await case.upslot(text=CONFIG)
    juliet = await case.client(ACCOUNTS[2])
    await juliet.slot("allowed-by-jid.bin", 10)


@test()
async def logfile_option(case):
    up = await case.upslot(text=CONFIG, start=False, arguments=["-c", "config.yml", "-l", "upload.log"])
    log = up.folder / "upload.log"
    await up.spawn()
    await until(lambda: log.exists() and "link up" in log.read_text(), "the link in the log file")
    check("GET /", (await get(f"http://127.0.0.1:{up.port}/")).status, 200)
    check("exit code", await up.process.stop(), 0)
    assert "stopped" in log.read_text()


async def server_with_uploads(case, port):
    """An XMPP server that stores uploads itself and serves them on the port; and what to import."""
    folder = case.folder / "server"
    folder.mkdir()
    if case.server_kind == "prosody":
        extra = f'Component "{UPLOAD}" "http_file_share"\nhttp_host = "127.0.0.1"\n'
        server = Prosody(folder, case.authority, extra, component=False)
        old = "storage = "
        new = (f'http_ports = {{ {port} }}\nhttp_interfaces = {{ "127.0.0.1" }}\nhttps_ports = {{ }}\n'
               f'http_external_url = "http://127.0.0.1:{port}/"\n{old}')
        source = ["prosody-file-share", folder / "data" / UPLOAD.replace(".", "%2e")]
    else:
        docroot = folder / "uploads"
        extra = ejabberd_upload(put_url=f"http://127.0.0.1:{port}/upload", docroot=docroot)
        server = Ejabberd(folder, case.authority, extra, component=False)
        old = "listen:\n"
        new = (f'{old}  - {{port: {port}, ip: "127.0.0.1", module: ejabberd_http, '
               f'request_handlers: {{"/upload": mod_http_upload}}}}\n')
        source = ["ejabberd", docroot]
    server.config.write_text(server.config.read_text().replace(old, new, 1))
    await server.start()
    case.ends(server)
    return server, source


@test(servers=("prosody", "ejabberd"))
async def old_links_work_after_an_import(case):
    """Files that the real servers have stored are served by upslot under their old paths."""
    port = free_port()
    server, source = await server_with_uploads(case, port)
    up = await case.upslot(server)
    clients = [await case.client(jid, server) for jid in ACCOUNTS[:2]]
    old = {}
    for number, (name, type) in enumerate([("très cool.jpg", "image/jpeg"), ("#?%&+.txt", "text/plain"),
                                           ("no extension", None), ("page.html", "text/html"),
                                           ("sound", "audio/ogg"), ("large.bin", None)]):
        data = content(2000 * KIB if name == "large.bin" else 100 + number, seed=number)
        old[await clients[number % 2].upload(name, data, type)] = data
    # A slot that is never used.
    await clients[0].slot("unused.txt", 10)
    before = {url: await get(url) for url in old}
    for url, data in old.items():
        check(f"{url} before", (before[url].status, before[url].body == data), (200, True))

    async def imported(*options):
        done = await run([os.environ["UPSLOT_BIN"], "-c", up.config, "import", *source, *options])
        check("exit code", (done.code, done.err), (0, ""))
        return done.out.decode()

    said = await imported("--dry-run")
    assert said.startswith("6 files would be imported"), said
    check("files after a dry run", up.files(), set())
    said = await imported()
    assert said.startswith("6 files were imported"), said
    check("slots never used", said.count("the file is missing"), case.server_kind == "prosody")
    check("owner folders", {path.split("/")[0] for path in up.files()}, {owner_folder(jid) for jid in ACCOUNTS[:2]})
    for _ in range(2):
        for url, data in old.items():
            moved = url.replace(f":{port}/", f":{up.port}/")
            reply = await get(moved)
            check(f"{moved} afterwards", (reply.status, reply.body == data), (200, True))
            if case.server_kind == "prosody":
                types = [r.headers["Content-Type"].split(";")[0] for r in (reply, before[url])]
                check(f"type of {moved}", types[0], types[1])
        said = await imported()
        assert said.startswith("0 files were imported") and "6 files imported before" in said, said
        await up.restart()
    # The server's own copies are untouched.
    for url, data in old.items():
        check(f"{url} at the server", (await get(url)).body == data, True)
