"""A Ceph cluster with an S3 gateway: a monitor, three OSDs in memory, and radosgw, on loopback and in a folder of
its own."""

import asyncio
import base64
import json
import os
import struct
import uuid

import rados

from .base import MIB, PATIENCE, check
from .object_stores import ObjectStore
from .processes import free_port, port_open, run

OSDS = range(3)

# What upslot needs.
RIGHTS = {"read": "s3:GetObject", "write": "s3:PutObject", "delete": "s3:DeleteObject", "list": "s3:ListBucket"}

# The gateway would create them one after the other when it first needs them, which takes far longer.
POOLS = [".rgw.root", *(f"default.rgw.{name}" for name in ("log", "control", "meta", "buckets.index", "buckets.data"))]

CONFIG = """
[global]
fsid = {fsid}
mon host = [v1:127.0.0.1:{monitor_port}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind msgr2 = false
keyring = {folder}/keyring
run dir = {folder}/run
admin socket = {folder}/run/$name.asok
pid file =
log file =
log to stderr = true
err to stderr = true
mon cluster log file = none
mon data = {folder}/mon
osd data = {folder}/osd.$id
rgw data = {folder}/rgw
# The disk of a test machine may be almost full.
mon data avail warn = 1
mon data avail crit = 1
# Otherwise each change of the cluster takes a second.
paxos propose interval = 0.05
paxos min wait = 0.01
osd objectstore = memstore
memstore device bytes = {device}
# All copies are on one host.
osd crush chooseleaf type = 0
osd pool default size = 3
osd pool default min size = 2
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
# An OSD that is killed is noticed by the others within seconds.
osd heartbeat interval = 1
osd heartbeat grace = 4
mon osd min down reporters = 1
[client.gateway]
rgw frontends = beast endpoint=127.0.0.1:{port} ssl_endpoint=127.0.0.1:{tls_port} ssl_certificate={certificate} \
ssl_private_key={key}
rgw dns name = {domain}
rgw run sync thread = false
rgw thread pool size = 32
rgw enable usage log = false
"""


def new_key():
    """A key of cephx."""
    return base64.b64encode(struct.pack("<HIIH", 1, 0, 0, 16) + os.urandom(16)).decode()


class Ceph(ObjectStore):
    """Three copies of each object; an upload is acknowledged when two of them are there."""

    name = "ceph"

    def __init__(self, folder, authority):
        super().__init__(folder, authority)
        self.tls_port = free_port()
        # That of the monitor, which speaks no HTTP.
        self.other_port = self.monitor_port = free_port()
        self.fsid = str(uuid.uuid4())
        self.uuids = {number: str(uuid.uuid4()) for number in OSDS}
        for name in ("run", "rgw", *(f"osd.{number}" for number in OSDS)):
            (folder / name).mkdir()
        certificate, key = authority.issue("ceph", days=30)
        self.config = folder / "ceph.conf"
        self.config.write_text(CONFIG.format(fsid=self.fsid, monitor_port=self.monitor_port, folder=folder,
                                             device=1024 * MIB, port=self.port, tls_port=self.tls_port, domain=self.domain,
                                             certificate=certificate, key=key))
        rights = {
            "mon.": {"mon": "allow *"},
            "client.admin": {"mon": "allow *", "osd": "allow *"},
            "client.gateway": {"mon": "allow rw", "osd": "allow rwx"},
        } | {f"osd.{number}": {"mon": "allow profile osd", "osd": "allow *"} for number in OSDS}
        (folder / "keyring").write_text("".join(
            f"[{name}]\nkey = {new_key()}\n" + "".join(f'caps {kind} = "{what}"\n' for kind, what in caps.items())
            for name, caps in rights.items()))

    async def start(self):
        monitors = self.folder / "monmap"
        await self._run("monmaptool", "--create", "--fsid", self.fsid, "--addv", "a",
                        f"[v1:127.0.0.1:{self.monitor_port}]", monitors)
        await self._run("ceph-mon", "-i", "a", "--mkfs", "--monmap", monitors, "--keyring", self.folder / "keyring")
        await self._start("ceph-mon", "-i", "a")
        self.cluster = rados.Rados(conffile=str(self.config), rados_id="admin")
        await asyncio.to_thread(self.cluster.connect, 2 * PATIENCE)
        for number, osd_uuid in self.uuids.items():
            await self._command(prefix="osd new", uuid=osd_uuid, id=number)
        await asyncio.gather(self._pools(), *(self._new_osd(number) for number in OSDS))
        await self._user("owner", self.owner)
        await self._user("upslot", self.access)
        await self.start_gateway()

    async def create(self, owned, public):
        await super().create(owned, public)
        await self.allow(owned, RIGHTS.values(), public)

    async def bucket_without(self, right):
        """Objects are always readable for the key that stored them."""
        bucket = await self.bucket()
        await self.allow(self.owned(bucket), set(RIGHTS.values()) - {RIGHTS[right]})
        return bucket

    async def allow(self, owned, rights, public=False):
        """Gives upslot's key these rights to a bucket and no others; everyone may read the objects of a public one."""
        bucket = f"arn:aws:s3:::{owned.name}"
        objects, whole = ([right for right in sorted(rights) if (right == "s3:ListBucket") == of_bucket]
                          for of_bucket in (False, True))
        policy = {"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Principal": {"AWS": ["arn:aws:iam:::user/upslot"]}, "Action": actions, "Resource": where}
            for actions, where in ((whole, bucket), (objects, bucket + "/*")) if actions]}
        if public:
            policy["Statement"].append({"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject",
                                        "Resource": bucket + "/*"})
        reply = await self.configure(owned, "policy", json.dumps(policy))
        check("policy", (reply.status, reply.body), (204, b""))

    async def _pools(self):
        for pool in POOLS:
            # Ceph 18 wants to be sure of a name that begins with a dot.
            await self._command(prefix="osd pool create", pool=pool, pg_num=1, yes_i_really_mean_it=True)
            await self._command(prefix="osd pool application enable", pool=pool, app="rgw")

    async def _new_osd(self, number):
        await self._run("ceph-osd", "-i", number, "--mkfs", "--osd-uuid", self.uuids[number])
        await self.start_osd(number)

    async def start_osd(self, number):
        await self._start("ceph-osd", "-i", number)

    async def start_gateway(self):
        process = await self._start("radosgw", "-n", "client.gateway")
        await port_open(self.port, process, timeout=3 * PATIENCE)

    async def _start(self, program, *name):
        # Debian 13's OSDs look for their plug-ins in a folder relative to the root.
        return await self.daemon(f"{program}-{name[-1]}", [program, "-c", self.config, *name, "-f"], cwd="/")

    async def _run(self, program, *arguments):
        ran = await run([program, "-c", self.config, *arguments], timeout=2 * PATIENCE, cwd=self.folder)
        assert ran.code == 0, f"{program} {arguments}: {ran.err}"
        return ran.out

    async def _command(self, **command):
        """A command for the monitor."""
        code, _, error = await asyncio.to_thread(self.cluster.mon_command, json.dumps(command), b"", PATIENCE)
        assert code == 0, f"{command}: {error}"

    async def _user(self, name, keys):
        await self._run("radosgw-admin", "user", "create", f"--uid={name}", f"--display-name={name}",
                        f"--access-key={keys.access_key}", f"--secret-key={keys.secret_key}")
