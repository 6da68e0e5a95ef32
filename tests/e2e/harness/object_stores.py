"""Real object stores, each in a folder of its own and on loopback. All tests share them; a test makes a bucket of its own."""

import asyncio
import base64
import hashlib
import json
import os
import secrets
import shutil
import signal

from .base import PATIENCE, check, until
from .http import get
from .processes import Process, free_port, port_open, run
from .s3 import Access, Bucket

CORS = """<CORSConfiguration><CORSRule>
<AllowedOrigin>*</AllowedOrigin><AllowedMethod>PUT</AllowedMethod><AllowedMethod>GET</AllowedMethod>
<AllowedMethod>HEAD</AllowedMethod><AllowedHeader>content-type</AllowedHeader>
</CORSRule></CORSConfiguration>"""


def new_access():
    """The keys of a user."""
    return Access("GK" + secrets.token_hex(12), secrets.token_hex(32))


class ObjectStore:
    """What the engines have in common. The user `owner` makes the buckets and may do everything with them; `access` is the
    key of upslot, which has no more rights than upslot needs."""

    region = "us-east-1"
    # A name that leads to the store, which reads buckets from names below it.
    domain = "s3.localhost"

    def __init__(self, folder, authority):
        self.folder, self.port = folder, free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.owner, self.access = new_access(), new_access()
        self.buckets, self.daemons = 0, {}

    async def bucket(self, cors=False, public=False):
        """A new bucket, as upslot sees it; everyone may read the objects of a public one."""
        self.buckets += 1
        owned = Bucket(self, f"uploads-{self.buckets}", self.owner)
        await self.create(owned, public)
        if cors:
            check("CORS", (await self.configure(owned, "cors", CORS)).status, 200)
        return Bucket(self, owned.name, self.access)

    async def create(self, owned, public):
        check("new bucket", (await owned.request("PUT", body=b"")).status, 200)

    def owned(self, bucket):
        """The same bucket as its owner sees it."""
        return Bucket(self, bucket.name, self.owner)

    async def configure(self, owned, what, text):
        """Sets CORS rules, a policy or rules of expiry."""
        digest = base64.b64encode(hashlib.md5(text.encode()).digest()).decode()
        return await owned.request("PUT", query={what: ""}, body=text.encode(), headers={"Content-MD5": digest})

    async def daemon(self, name, argv, cwd=None):
        self.daemons[name] = await Process.start(name, argv, cwd=cwd or self.folder)
        return self.daemons[name]

    def processes(self):
        return list(self.daemons.values())

    async def stop(self):
        # Nothing is kept, so they need not end in order.
        await asyncio.gather(*(process.stop(signal.SIGKILL) for process in self.processes()))


class SeaweedFS(ObjectStore):
    """All of its services in one process."""

    name = "seaweedfs"
    # Reads no bucket from a host name.
    domain = None

    def __init__(self, folder, authority):
        super().__init__(folder, authority)
        # Keys that lack a right. The right to write includes that to delete.
        self.lacking = {right: new_access() for right in ("read", "write", "list")}
        self.other_port = free_port()

    async def bucket_without(self, right):
        bucket = await self.bucket()
        bucket.access = self.lacking[right]
        return bucket

    async def start(self):
        program = os.environ["SEAWEEDFS"]
        identities = self.folder / "identities.json"
        needed = ["Read", "Write", "List"]
        rights = [("owner", self.owner, ["Admin"]), ("upslot", self.access, needed)]
        for right, keys in self.lacking.items():
            rights.append((f"without-{right}", keys, [action for action in needed if action.lower() != right]))
        identities.write_text(json.dumps({"identities": [
            {"name": name, "credentials": [{"accessKey": keys.access_key, "secretKey": keys.secret_key}],
             "actions": actions} for name, keys, actions in rights]}))
        ports = [f"-{service}.port{kind}={free_port()}" for service in ("master", "volume", "filer")
                 for kind in ("", ".grpc") if service + kind != "filer"]
        process = await self.daemon("seaweedfs", [
            program, "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={self.folder}", "-filer", "-s3", *ports,
            f"-filer.port={self.other_port}",
            f"-filer.localSocket={self.folder}/filer.sock", f"-s3.port={self.port}", f"-s3.port.grpc={free_port()}",
            f"-s3.config={identities}", "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false",
            "-master.volumeSizeLimitMB=64", "-volume.max=0", "-volume.minFreeSpace=1",
        ])
        await port_open(self.port, process, timeout=2 * PATIENCE)

        async def takes_objects():
            owned = Bucket(self, "first", self.owner)
            await owned.request("PUT", body=b"")
            return (await owned.request("PUT", "first", body=b"first")).status == 200

        await until(takes_objects, "an object stored", timeout=2 * PATIENCE)


class Garage(ObjectStore):
    """Three nodes with three copies. A node of its own for each of the loopback addresses 127.0.0.1 to 127.0.0.3."""

    name, region, nodes = "garage", "garage", 3

    def __init__(self, folder, authority):
        super().__init__(folder, authority)
        self.other_port = free_port()

    @staticmethod
    def program():
        """The program; None if there is none."""
        return os.environ.get("GARAGE") or shutil.which("garage")

    async def start(self):
        secret, rpc = secrets.token_hex(32), free_port()
        self.configs = []
        for number in range(1, self.nodes + 1):
            folder, host = self.folder / f"node-{number}", f"127.0.0.{number}"
            folder.mkdir()
            config = folder / "garage.toml"
            config.write_text(f"""
metadata_dir = "{folder}/meta"
data_dir = "{folder}/data"
db_engine = "lmdb"
replication_factor = 3
rpc_bind_addr = "{host}:{rpc}"
rpc_public_addr = "{host}:{rpc}"
rpc_secret = "{secret}"
[s3_api]
s3_region = "{self.region}"
api_bind_addr = "{host}:{self.port}"
root_domain = ".s3.localhost"
[admin]
api_bind_addr = "{host}:{self.other_port}"
""")
            self.configs.append(config)
            await self.start_node(number)
        ids = [(await self._garage("node", "id", "-q", number=number)).split("@")[0]
               for number in range(1, self.nodes + 1)]
        for number, node in enumerate(ids[1:], start=2):
            await self._garage("node", "connect", f"{node}@127.0.0.{number}:{rpc}")
        for node in ids:
            await self._garage("layout", "assign", "-z", node[:8], "-c", "1G", node)
        await self._garage("layout", "apply", "--version", "1")
        for name, keys in ("owner", self.owner), ("upslot", self.access):
            await self._garage("key", "import", "--yes", "-n", name, keys.access_key, keys.secret_key)

    async def create(self, owned, public):
        assert not public, "a Garage has no policies"
        await self._garage("bucket", "create", owned.name)
        await self._garage("bucket", "allow", "--read", "--write", "--owner", owned.name, "--key", "owner")
        await self._garage("bucket", "allow", "--read", "--write", owned.name, "--key", "upslot")

    async def bucket_without(self, right):
        """`--read` is needed for the list, too, and `--write` to delete."""
        bucket = await self.bucket()
        await self._garage("bucket", "deny", f"--{right}", bucket.name, "--key", "upslot")
        return bucket

    async def start_node(self, number):
        process = await self.daemon(f"garage-{number}", [self.program(), "-c", self.configs[number - 1], "server"])
        await port_open(self.port, process, host=f"127.0.0.{number}")

    async def _garage(self, *arguments, number=1):
        ran = await run([self.program(), "-c", self.configs[number - 1], *arguments], PATIENCE, cwd=self.folder)
        assert ran.code == 0, f"garage {arguments}: {ran.err}"
        return ran.out.decode().strip()
