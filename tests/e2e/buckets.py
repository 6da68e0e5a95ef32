"""Upslots before object stores, and checks of their uploads and downloads."""

import asyncio
import urllib.parse

from harness import DOMAIN, KIB, SECRET, check, content, free_port, http_request, put, slot_from_api, unshare
from integrations import offered_name

# A download is redirected so often at most.
REDIRECTS = 2


def section(bucket, **settings):
    """The section `s3` for a bucket."""
    store = bucket.store
    return {"endpoint": store.endpoint, "region": store.region, "bucket": bucket.name,
            "access_key": bucket.access.access_key, "secret_key": bucket.access.secret_key} | settings


async def with_bucket(case, bucket, server=None, start=True, s3=None, **settings):
    """An upslot that keeps its files in a bucket, with the local API."""
    settings = {"whitelist": [DOMAIN], "api": {"port": free_port()}, "slot_secret": SECRET} | settings
    return await case.upslot(server, start, storage_path=None, s3=section(bucket, **(s3 or {})), **settings)


def virtual_host(bucket, folder):
    """Settings for a bucket whose name is in the host, and a wrapper in which that host leads to this machine."""
    domain = bucket.store.domain or "s3.localhost"
    hosts = folder / f"hosts-{bucket.name}"
    hosts.write_text(f"127.0.0.1 localhost {domain} {bucket.name}.{domain}\n")
    wrapper = [*unshare(), "sh", "-ec", 'mount --bind "$1" /etc/hosts; shift; exec "$@"', "sh", hosts]
    return {"path_style": False, "endpoint": f"http://{domain}:{bucket.store.port}"}, wrapper


async def files(bucket, prefix=""):
    """The keys of all files."""
    return {key for key in await bucket.keys(prefix) if not key.startswith(prefix + ".upslot/")}


async def download(url, method="GET", **options):
    """A request that follows redirects."""
    for _ in range(REDIRECTS + 1):
        reply = await http_request(method, url, **options)
        if reply.status != 307:
            return reply
        url = urllib.parse.urljoin(url, reply.headers["Location"])
    raise AssertionError(f"too many redirects: {url}")


async def check_download(url, sent, name=None):
    """Checks GET, HEAD and a range; with a name, also that browsers neither show it as HTML nor change the name."""
    whole, head = await download(url), await download(url, "HEAD")
    check(f"GET {url}", (whole.status, whole.body == sent), (200, True))
    check(f"HEAD {url}", (head.status, head.headers["Content-Length"], head.body), (200, str(len(sent)), b""))
    start, end = len(sent) // 3, len(sent) - 1 - len(sent) // 4
    part = await download(url, headers={"Range": f"bytes={start}-{end}"})
    check(f"range of {url}", (part.status, part.body == sent[start:end + 1]), (206, True))
    check("position", part.headers["Content-Range"], f"bytes {start}-{end}/{len(sent)}")
    if name:
        check("name", offered_name(whole), name)
    return whole


async def check_missing(url):
    check(f"GET {url}", (await download(url)).status, 404)


class Load:
    """Uploads and downloads of several clients until the test stops them. What a client was told is stored is checked
    afterwards; everything else is counted, with the longest time in which no upload succeeded."""

    def __init__(self, case, up, clients=4, size=48 * KIB, context=None):
        """Slots are from `up`."""
        self.up, self.size, self.context = up, size, context
        self.stored, self.failures, self.last, self.longest = {}, [], None, 0
        self.stopped = False
        self.clients = [case.background(self.client(number)) for number in range(clients)]

    async def client(self, number):
        count = 0
        while not self.stopped:
            count += 1
            await self.upload(f"{number}-{count}.bin", content(self.size, seed=1000 * number + count))

    async def upload(self, name, body):
        try:
            slot = await slot_from_api(self.up, name, len(body))
            status = (await put(slot.put, body, context=self.context)).status
        except (OSError, AssertionError, EOFError) as error:
            status = error
        if status == 201:
            self.stored[slot.get] = body
            now = asyncio.get_running_loop().time()
            self.longest = max(self.longest, now - (self.last or now))
            self.last = now
        else:
            self.failures.append(status)
            await asyncio.sleep(0.1)

    async def stop(self):
        """Ends the uploads, and checks that everything is there that was acknowledged."""
        self.stopped = True
        await asyncio.gather(*self.clients)
        await self.check()

    async def check(self):
        for url, body in list(self.stored.items()):
            reply = await download(url, context=self.context)
            check(f"GET {url}", (reply.status, reply.body == body), (200, True))
