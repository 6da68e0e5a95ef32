"""One test while it runs."""

import asyncio
import contextlib

from .base import ACCOUNTS
from .clients import Client
from .http import RawConnection
from .program import Upslot


class Case:
    """Everything that one test has started; stopped in reverse order at the end of the test."""

    def __init__(self, group, folder, server_kind):
        self.group, self.folder, self.server_kind = group, folder, server_kind
        self.authority = group.authority
        self.started, self._closing, self._count = [], contextlib.AsyncExitStack(), 0
        self._stores = []

    async def server(self):
        return await self.group.server(self.server_kind) if self.server_kind else None

    async def own_server(self, extra="", component=True):
        """A server for this test only, which may stop or configure it."""
        server = await self.group.new_server(self.server_kind, extra, component)
        self.ends(server)
        return server

    async def object_store(self, kind):
        """One of the object stores that all tests share: `ceph`, `seaweedfs` or `garage`."""
        try:
            store = await self.group.object_store(kind)
        finally:
            self._stores += filter(None, [self.group.object_stores.get(kind)])
        return store

    def ends(self, started):
        """Stops `started.process` at the end of the test, and shows its output if the test fails."""

        async def end():
            if hasattr(started, "process"):
                await started.process.stop(timeout=10)

        self.started.append(started)
        self._closing.push_async_callback(end)

    async def upslot(self, server=None, start=True, linked=True, **options):
        """An upslot with the given server, or with the server of the group."""
        server = server or await self.server()
        self._count += 1
        up = Upslot(self.folder / f"upslot-{self._count}", server, **options)
        self.ends(up)
        if start:
            await up.start(linked)
        return up

    async def client(self, jid=ACCOUNTS[0], server=None):
        client = await Client(jid, server or await self.server()).start()
        self._closing.push_async_callback(client.stop)
        return client

    async def raw(self, up):
        connection = await RawConnection.open(up)
        self._closing.callback(connection.close)
        return connection

    def background(self, coroutine):
        """Starts a task that is cancelled at the end of the test."""
        task = asyncio.ensure_future(coroutine)
        self._closing.callback(task.cancel)
        return task

    async def close(self):
        await self._closing.aclose()

    def logs(self):
        """The processes whose output is shown when the test fails."""
        shared = [server for server in self.group.servers.values() if server.kind == self.server_kind]
        own = [started.process for started in self.started + shared if hasattr(started, "process")]
        return own + [process for store in self._stores for process in store.processes()]
