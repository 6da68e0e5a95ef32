"""Migration: config.yml and store of HttpUploadComponent work unchanged; the stores of other programs are imported."""

import os
import time
import urllib.parse
from pathlib import Path
from types import SimpleNamespace

from harness import (ACCOUNTS, DOMAIN, KIB, UPLOAD, Ejabberd, Process, Prosody, check, content, free_port, get,
                     owner_folder, port_open, put, run, test, until)
from integrations import KEY, SHARE, ejabberd_upload, upload_external

# The scripts of prosody-modules.
EXAMPLES = Path("/usr/share/doc/prosody-modules/examples")

# The folder with the Python package of django-xmpp-http-upload.
DJANGO_UPLOAD = os.environ.get("DJANGO_UPLOAD") or "target/django-xmpp-http-upload"

# Names and types of the files that other programs store.
FILES = [("très cool.jpg", "image/jpeg"), ("#?%&+.txt", "text/plain"), ("no extension", None), ("page.html", "text/html"),
         ("sound", "audio/ogg"), ("large.bin", None)]

# A Django site. The app's own list of URLs needs a Django before 4.0.
DJANGO_SETTINGS = """\
DEBUG = True
SECRET_KEY = "a secret for this test"
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = ["django.contrib.contenttypes", "xmpp_http_upload"]
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": "{folder}/db.sqlite3"}}}}
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
REST_FRAMEWORK = {{"DEFAULT_AUTHENTICATION_CLASSES": [], "UNAUTHENTICATED_USER": None}}
ROOT_URLCONF = "urls"
MEDIA_ROOT = "{folder}/media"
MEDIA_URL = "/media/"
XMPP_HTTP_UPLOAD_ACCESS = ((".*", {{}}),)
"""
DJANGO_URLS = """\
from django.conf import settings
from django.urls import include, re_path
from django.views.static import serve
from xmpp_http_upload import views

upload = [re_path(r"^slot/$", views.RequestSlotView.as_view(), name="slot"),
          re_path(r"^share/(?P<hash>[a-zA-Z0-9]{32})/(?P<filename>.*)$", views.UploadView.as_view(), name="share")]
urlpatterns = [re_path("^", include((upload, "xmpp-http-upload"))),
               re_path(r"^media/(?P<path>.*)$", serve, {"document_root": settings.MEDIA_ROOT})]
"""

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


def prosody_with_http(case, port, services, scheme="http"):
    """A Prosody that serves HTTP on the port; `scheme` is that of its links."""
    folder = case.folder / "server"
    folder.mkdir()
    server = Prosody(folder, case.authority, services, component=False)
    settings = (f'http_ports = {{ {port} }}\nhttp_interfaces = {{ "127.0.0.1" }}\nhttps_ports = {{ }}\n'
                f'http_external_url = "{scheme}://127.0.0.1:{port}/"\n')
    server.config.write_text(server.config.read_text().replace("storage = ", f"{settings}storage = ", 1))
    return server


def ejabberd_with_http(case, port, docroot):
    """An ejabberd that stores uploads and serves them on the port."""
    folder = case.folder / "server"
    folder.mkdir()
    extra = ejabberd_upload(put_url=f"http://127.0.0.1:{port}/upload", docroot=docroot)
    server = Ejabberd(folder, case.authority, extra, component=False)
    listener = (f'listen:\n  - {{port: {port}, ip: "127.0.0.1", module: ejabberd_http, '
                f'request_handlers: {{"/upload": mod_http_upload}}}}\n')
    server.config.write_text(server.config.read_text().replace("listen:\n", listener, 1))
    return server


async def server_with_uploads(case, port):
    """An XMPP server that stores uploads itself and serves them on the port; and what to import."""
    if case.server_kind == "prosody":
        server = prosody_with_http(case, port, f'Component "{UPLOAD}" "http_file_share"\nhttp_host = "127.0.0.1"\n')
        source = ["prosody-file-share", server.folder / "data" / UPLOAD.replace(".", "%2e")]
    else:
        source = ["ejabberd", case.folder / "uploads"]
        server = ejabberd_with_http(case, port, source[1])
    await server.start()
    case.ends(server)
    return server, source


async def run_import(up, *arguments):
    done = await run([os.environ["UPSLOT_BIN"], "-c", up.config, "import", *arguments])
    check("exit code", (done.code, done.err), (0, ""))
    return done.out.decode()


async def check_import(up, source, old, owners, typed=True):
    """Imports the files of another program, whose URLs and contents are in `old`; `owners` has the number of files of
    each. Compares them with those that the other program serves, with `typed` also their types. Returns the report of
    the import."""
    before, kept = {url: await get(url) for url in old}, up.files()
    for url, data in old.items():
        check(f"{url} before", (before[url].status, before[url].body == data), (200, True))
    said = await run_import(up, *source, "--dry-run")
    assert said.startswith(f"{len(old)} files would be imported"), said
    check("files after a dry run", up.files(), kept)
    report = await run_import(up, *source)
    assert report.startswith(f"{len(old)} files were imported"), report
    imported = up.files() - kept
    check("number of files", len(imported), len(old))
    check("owner folders", {path.split("/")[0] for path in imported}, {owner_folder(jid) for jid in owners})
    for jid, number in owners.items():
        listed = await run([os.environ["UPSLOT_BIN"], "-c", up.config, "list", jid])
        assert f"{number} files of {jid}" in listed.out.decode(), listed
    for _ in range(2):
        for url, data in old.items():
            moved = urllib.parse.urlsplit(url)._replace(netloc=f"127.0.0.1:{up.port}").geturl()
            reply = await get(moved)
            check(f"{moved} afterwards", (reply.status, reply.body == data), (200, True))
            if typed:
                types = [r.headers["Content-Type"].split(";")[0] for r in (reply, before[url])]
                check(f"type of {moved}", types[0], types[1])
        said = await run_import(up, *source)
        assert said.startswith("0 files were imported") and f"{len(old)} files imported before" in said, said
        check("files after another import", up.files(), kept | imported)
        await up.restart()
    # The other program's own copies are untouched.
    for url, data in old.items():
        check(f"{url} at the server", (await get(url)).body == data, True)
    return report


def content_of(number, name):
    return content(2000 * KIB if name == "large.bin" else 100 + number, seed=number)


@test(servers=("prosody", "ejabberd"))
async def old_links_work_after_an_import(case):
    """Files that the real servers have stored are served by upslot under their old paths."""
    server, source = await server_with_uploads(case, free_port())
    up = await case.upslot(server)
    clients = [await case.client(jid, server) for jid in ACCOUNTS[:2]]
    old = {}
    for number, (name, type) in enumerate(FILES):
        data = content_of(number, name)
        old[await clients[number % 2].upload(name, data, type)] = data
    # A slot that is never used.
    await clients[0].slot("unused.txt", 10)
    report = await check_import(up, source, old, dict.fromkeys(ACCOUNTS[:2], 3), typed=case.server_kind == "prosody")
    check("slots never used", report.count("the file is missing"), case.server_kind == "prosody")


@test()
async def old_links_of_prosody_modules(case):
    """The community module `mod_http_upload`, and both versions of `share.php`, with slots from the real Prosody."""
    port, php_port, root = free_port(), free_port(), case.folder / "root"
    root.mkdir()
    services = {"share.php": UPLOAD, "share_v2.php": SHARE, "http_upload": f"files.{DOMAIN}"}
    stores = {"http_upload": case.folder / "server" / "data" / "http_upload"}
    for script in ("share.php", "share_v2.php"):
        stores[script] = case.folder / f"store of {script}"
        stores[script].mkdir()
        text = (EXAMPLES / script).read_text()
        for value, new in (("/tmp", stores[script]), ("this is your secret string", KEY)):
            check(f"{value} in {script}", text.count(f"= '{value}';"), 1)
            text = text.replace(f"= '{value}';", f"= '{new}';")
        (root / script).write_text(text)
    php = await Process.start("php", ["php", "-S", f"127.0.0.1:{php_port}", "-t", root])
    case.ends(SimpleNamespace(process=php))

    url = f"http://127.0.0.1:{php_port}"
    components = (f'Component "{services["http_upload"]}" "http_upload"\n'
                  f'http_host = "127.0.0.1"\nhttp_upload_file_size_limit = {4000 * KIB}\n' +
                  upload_external(f"{url}/share.php/", "v1", services["share.php"]) +
                  upload_external(f"{url}/share_v2.php/", "v2", services["share_v2.php"]))
    server = prosody_with_http(case, port, components, "https")
    await server.start()
    case.ends(server)
    await port_open(php_port, php)
    up = await case.upslot(server)
    clients = [await case.client(jid, server) for jid in ACCOUNTS[:2]]
    for kind, service in services.items():
        old = {}
        for number, (name, type) in enumerate(FILES):
            data, type = content_of(number, name), type or "application/octet-stream"
            slot = await clients[number % 2].slot(name, len(data), type, service)
            # The module insists on HTTPS; there is no proxy for TLS here.
            put_url, get_url = (url.replace("https:", "http:", 1) for url in (slot.put, slot.get))
            check(f"PUT of {name}", (await put(put_url, data, headers={"Content-Type": type})).status, 201)
            old[get_url] = data
        await clients[0].slot("unused.txt", 10, to=service)
        if kind == "http_upload":
            source, owners = ["prosody-http-upload", stores[kind]], dict.fromkeys(ACCOUNTS[:2], 3)
        else:
            # A user of its own for each version.
            owner = f"{kind}@{DOMAIN}"
            source, owners = ["share.php", stores[kind], "--owner", owner], {owner: 6}
        report = await check_import(up, source, old, owners, typed=kind == "share_v2.php")
        check("slots never used", report.count("the file is missing"), kind == "http_upload")


@test(servers=(None,))
async def old_links_of_django(case):
    """django-xmpp-http-upload."""
    port, folder = free_port(), case.folder
    (folder / "site_settings.py").write_text(DJANGO_SETTINGS.format(folder=folder))
    (folder / "urls.py").write_text(DJANGO_URLS)
    django = ["/usr/bin/python3", "-m", "django"]
    path = f"{folder}:{os.path.abspath(DJANGO_UPLOAD)}"
    env = dict(os.environ, DJANGO_SETTINGS_MODULE="site_settings", PYTHONPATH=path)
    done = await run([*django, "migrate"], env=env, cwd=folder)
    check("migrate", done.code, 0)
    command = [*django, "runserver", "--noreload", f"127.0.0.1:{port}"]
    process = await Process.start("django", command, env=env, cwd=folder)
    case.ends(SimpleNamespace(process=process))
    up = await case.upslot()
    await port_open(port, process)
    old = {}
    for number, (name, type) in enumerate(FILES):
        data = content_of(number, name)
        query = {"jid": ACCOUNTS[number % 2], "name": name, "size": len(data)} | ({"type": type} if type else {})
        slot = await get(f"http://127.0.0.1:{port}/slot/?{urllib.parse.urlencode(query)}")
        put_url, get_url = slot.body.decode().split("\n")
        reply = await put(put_url, data, headers={"Content-Type": type or "application/octet-stream"})
        check(f"PUT of {name}", reply.status, 201)
        # Of this name, Django keeps only the extension.
        if name != "#?%&+.txt":
            old[get_url] = data
    await get(f"http://127.0.0.1:{port}/slot/?jid={ACCOUNTS[0]}&name=unused.txt&size=10")
    columns = "SELECT jid, name, size, type, hash, file FROM xmpp_http_upload_upload"
    table = folder / "uploads.json"
    table.write_bytes((await run(["sqlite3", "-json", "db.sqlite3", columns], cwd=folder)).out)
    source = ["django", folder / "media", "--index", table]
    report = await check_import(up, source, old, {ACCOUNTS[0]: 3, ACCOUNTS[1]: 2}, typed=False)
    for reason in ("the upload slot was never used", "its name begins with a dot"):
        check(reason, report.count(f"1 file left out: {reason}"), 1)
    # Links of a site that serves downloads itself; these have the types of the table.
    files = [file for file in FILES if file[0] != "#?%&+.txt"]
    for (url, data), (name, type) in zip(old.items(), files):
        reply = await get(f"http://127.0.0.1:{up.port}/share/" + "/".join(url.split("/")[-2:]))
        check(f"{name} by its other link", (reply.status, reply.body == data), (200, True))
        check(f"type of {name}", reply.headers["Content-Type"].split(";")[0], type or "application/octet-stream")
