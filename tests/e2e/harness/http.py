"""HTTP requests by Python, by curl, and byte by byte."""

import asyncio
import contextlib
import http.client
import re
import urllib.parse
from collections import namedtuple

from .base import KIB, PATIENCE
from .processes import Ran, run

Reply = namedtuple("Reply", "status headers body")


async def http_request(method, url, body=None, headers=None, context=None, timeout=PATIENCE):
    """Makes one HTTP request on a new connection."""

    def work():
        parts = urllib.parse.urlsplit(url)
        kind, extra = (http.client.HTTPSConnection, {"context": context}) if parts.scheme == "https" \
            else (http.client.HTTPConnection, {})
        # The C library may not know that all names below localhost are this machine.
        host = "127.0.0.1" if parts.hostname.endswith(".localhost") else parts.hostname
        connection = kind(host, parts.port, timeout=timeout, **extra)
        with contextlib.closing(connection):
            target = parts.path + (f"?{parts.query}" if parts.query else "")
            connection.request(method, target, body=body, headers={"Host": parts.netloc} | dict(headers or {}))
            answer = connection.getresponse()
            return Reply(answer.status, answer.headers, answer.read())

    return await asyncio.to_thread(work)


async def get(url, **options):
    return await http_request("GET", url, **options)


async def put(url, body, **options):
    return await http_request("PUT", url, body, **options)


async def curl(*arguments, timeout=60):
    """Runs curl; `code` in the result is the last HTTP status."""
    ran = await run(["curl", "-sS", "--noproxy", "*", "--max-time", timeout, "-w", "%{stderr}\nstatus=%{http_code}",
                     *arguments], timeout + 5)
    assert ran.code == 0, f"curl ended with {ran.code}: {ran.err}"
    return Ran(int(re.findall(r"status=(\d+)", ran.err)[-1]), ran.out, ran.err)


class RawConnection:
    """A TCP connection to the HTTP port, for requests that are sent in pieces."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, up):
        return cls(*await asyncio.open_connection("127.0.0.1", up.port, limit=64 * KIB))

    async def send(self, data):
        self.writer.write(data)
        await asyncio.wait_for(self.writer.drain(), PATIENCE)

    async def send_head(self, method, url, **fields):
        parts = urllib.parse.urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        head = [f"{method} {target} HTTP/1.1", f"Host: {parts.netloc}"]
        head += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
        await self.send(("\r\n".join(head) + "\r\n\r\n").encode())

    async def head(self):
        """Reads a response head; returns the status and the fields with lower-case names."""
        text = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), PATIENCE)).decode()
        status, *lines = text.rstrip().split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines)
        return int(status.split()[1]), {name.lower(): value for name, value in fields.items()}

    async def body(self, size):
        return await asyncio.wait_for(self.reader.readexactly(size), PATIENCE)

    def close(self):
        self.writer.transport.abort()
