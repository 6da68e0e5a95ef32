"""Behind nginx, with the sites of contrib/web; only ports, certificates and folders are replaced."""

import os
from pathlib import Path

from harness import KIB, MIB, Process, check, content, free_port, get, http_request, port_open, put, test

SITES = Path(__file__).resolve().parents[2] / "contrib" / "web"


class Nginx:
    """An nginx with one site."""

    def __init__(self, case, site):
        self.folder = case.folder / "nginx"
        self.folder.mkdir()
        self.site, self.port, self.authority = site, free_port(), case.authority
        self.url = f"https://127.0.0.1:{self.port}/"

    async def start(self, case, upslot_port, **replaced):
        site = self.site
        for old, new in {
            "listen 443 ssl;": f"listen 127.0.0.1:{self.port} ssl;",
            "    listen [::]:443 ssl;\n": "",
            "/etc/letsencrypt/live/upload.example.org/fullchain.pem": str(self.authority.chain),
            "/etc/letsencrypt/live/upload.example.org/privkey.pem": str(self.authority.key),
            "127.0.0.1:8080": f"127.0.0.1:{upslot_port}",
            **replaced,
        }.items():
            assert old in site, f"the site does not contain {old!r}"
            site = site.replace(old, new)
        paths = "".join(f"{kind}_temp_path {self.folder}/{kind};\n"
                        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (self.folder / "nginx.conf").write_text(
            ("user root;\n" if os.geteuid() == 0 else "") +
            f"daemon off;\nerror_log stderr info;\npid {self.folder}/nginx.pid;\nevents {{ }}\n"
            f"http {{\naccess_log off;\n{paths}{site}\n}}\n")
        self.process = await Process.start(
            "nginx", ["nginx", "-e", "stderr", "-p", self.folder, "-c", self.folder / "nginx.conf"])
        case.ends(self)
        await port_open(self.port, self.process)


async def round_trip(romeo, context, body, name="très cool #1.jpg", type="image/jpeg"):
    slot = await romeo.slot(name, len(body), type)
    check("PUT", (await put(slot.put, body, headers={"Content-Type": type}, context=context)).status, 201)
    reply = await get(slot.get, context=context)
    check("GET", (reply.status, reply.body == body, reply.headers["Content-Type"]), (200, True, type))
    check("length", reply.headers["Content-Length"], str(len(body)))
    part = await get(slot.get, headers={"Range": "bytes=10-19"}, context=context)
    check("range", (part.status, part.body), (206, body[10:20]))
    return slot


@test()
async def nginx_in_front(case):
    nginx = Nginx(case, (SITES / "nginx.conf").read_text())
    up = await case.upslot(get_url=nginx.url, put_url=nginx.url, trusted_proxies=["127.0.0.1"])
    await nginx.start(case, up.port)
    romeo = await case.client()
    context = case.authority.context()
    for size in (KIB, 5 * MIB):
        slot = await round_trip(romeo, context, content(size))
    check("again", (await put(slot.put, content(5 * MIB), context=context)).status, 409)
    check("missing file", (await get(slot.get + "x", context=context)).status, 404)


@test()
async def nginx_with_path_prefixes(case):
    """upslot accepts paths whether the proxy keeps, removes or repeats the prefix /upload/."""
    locations = {
        "keeps": "proxy_pass http://upslot;",
        "strips": "rewrite ^/upload(/.*)$ $1 break; proxy_pass http://upslot;",
        "doubles": "rewrite ^(/upload/.*)$ /upload$1 break; proxy_pass http://upslot;",
    }
    for way, line in locations.items():
        case.folder = case.folder / way
        case.folder.mkdir()
        nginx = Nginx(case, (SITES / "nginx.conf").read_text())
        up = await case.upslot(get_url=nginx.url + "upload/", put_url=nginx.url + "upload")
        await nginx.start(case, up.port, **{"location / {": "location /upload/ {",
                                            "proxy_pass http://upslot;": line})
        await round_trip(await case.client(), case.authority.context(), content(3000))
        await up.process.stop()


@test()
async def nginx_serves_the_store(case):
    nginx = Nginx(case, (SITES / "nginx-serves-files.conf").read_text())
    up = await case.upslot(get_url=nginx.url, put_url=nginx.url, serve_downloads=False)
    await nginx.start(case, up.port, **{"root /var/lib/upslot;": f"root {up.store};"})
    romeo = await case.client()
    context = case.authority.context()
    slot = await round_trip(romeo, context, content(2 * MIB))
    # The answer came from nginx; upslot itself serves no downloads.
    path = slot.get.removeprefix(nginx.url)
    for method in ("GET", "HEAD"):
        check(method, (await http_request(method, f"http://127.0.0.1:{up.port}/{path}")).status, 403)
    # The secret that signs slots is not served.
    for hidden in (".upslot/", ".upslot/secret", ".upslot/slot_secret"):
        check(hidden, (await get(nginx.url + hidden, context=context)).status, 404)
