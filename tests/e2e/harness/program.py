"""The program under test."""

import asyncio
import contextlib
import json
import os
import re
import signal
from pathlib import Path

from .base import KIB, PATIENCE, SECRET, UPLOAD, until
from .http import RawConnection
from .processes import Process, free_port


ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "RUST_LOG"}


class Upslot:
    """An upslot with its own configuration and store. The store is kept when it restarts."""

    def __init__(self, folder, server, text=None, wrapper=(), arguments=None, port=None, **settings):
        # A server without a component port gets no component.
        server = server if server and server.component_port else None
        self.folder, self.server, self.wrapper = folder, server, list(wrapper)
        self.store, self.config, self.port = folder / "store", folder / "config.yml", port or free_port()
        self.store.mkdir(parents=True, exist_ok=True)
        tls = "http_certfile" in settings
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}/files/"
        self.arguments = ["-c", self.config] if arguments is None else arguments
        self.settings = {
            "storage_path": str(self.store), "http_address": "127.0.0.1", "http_port": self.port,
            "get_url": self.url, "put_url": self.url, "log_level": "debug",
        }
        if server:
            self.settings |= {"component_jid": UPLOAD, "component_secret": SECRET, "component_host": "127.0.0.1",
                              "component_port": server.component_port}
        self.configure(**settings)
        if text is not None:
            self.config.write_text(text.format(port=self.port, store=self.store, secret=SECRET, jid=UPLOAD,
                                               component_port=server.component_port))

    def configure(self, **settings):
        """Changes the configuration file; `None` removes a key. JSON values are valid YAML."""
        self.settings = {k: v for k, v in (self.settings | settings).items() if v is not None}
        self.config.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in self.settings.items()))

    async def spawn(self, binary=None, env=ENVIRONMENT):
        """Starts the program and waits for nothing."""
        binary = binary or os.environ["UPSLOT_BIN"]
        self.process = await Process.start("upslot", [*self.wrapper, binary, *self.arguments], env=env,
                                           cwd=self.folder)
        return self.process

    async def start(self, linked=True):
        """Starts the program and waits until it is ready and, if it has a server, linked."""
        await self.spawn()
        await self.process.line(r"\bready pid=\d+")
        if self.server and linked:
            await self.process.line(r"\blink up\b")
        return self

    async def start_quietly(self):
        """Starts an upslot whose `log_level` hides the line that says it is ready."""
        level = self.settings["log_level"]
        self.configure(log_level="info")
        await self.start()
        self.configure(log_level=level)
        # This is its last line. A connection that is closed afterwards shows that the reload is complete.
        await self.reload("whitelist: is absent")
        with contextlib.closing(await RawConnection.open(self)) as raw:
            raw.writer.write_eof()
            await asyncio.wait_for(raw.reader.read(), PATIENCE)

    async def restart(self, number=signal.SIGTERM):
        await self.process.stop(number)
        await self.start()

    def mark(self):
        """The number of log lines so far, for `line(since=…)`."""
        return len(self.process.lines)

    def logged(self, pattern, since=0):
        """The log lines so far that match."""
        return [line for line in self.process.lines[since:] if re.search(pattern, line)]

    async def line(self, pattern, since=0, timeout=PATIENCE):
        return await self.process.line(pattern, since, timeout)

    async def reload(self, expected=r"\bconfig reloaded\b"):
        since = self.mark()
        self.process.child.send_signal(signal.SIGHUP)
        await self.line(expected, since)

    def listening(self):
        """The TCP addresses on which it listens, according to the log: for clients, and for the local API."""
        found = [re.search(r"listening on=http://(\S+):\d+( for=api)?", line) for line in self.process.lines]
        return [[f[1] for f in found if f and bool(f[2]) == api] for api in (False, True)]

    def files(self, store=None):
        """The relative paths of all files and of all empty folders (with a slash) of the store, without `.upslot`."""
        store, found = store or self.store, set()
        for folder, folders, files in os.walk(store):
            if Path(folder) == store:
                folders[:] = [name for name in folders if name != ".upslot"]
            elif not folders and not files:
                found.add(os.path.relpath(folder, store) + "/")
            found |= {os.path.relpath(os.path.join(folder, name), store) for name in files}
        return found

    def leftovers(self):
        """The names of all files in `.upslot`, except for the secret and the records of the clock."""
        own = self.store / ".upslot"
        files = [path for path in own.rglob("*") if path.is_file()] if own.exists() else []
        return sorted(path.name for path in files if "secret" not in path.name and path.parent.name != "clock")

    def writing(self):
        """The sizes of the files that upslot has open for writing."""
        opened, sizes = Path(f"/proc/{self.process.pid}"), []
        for entry in (opened / "fd").iterdir():
            with contextlib.suppress(OSError):
                flags = re.search(r"flags:\s+(\d+)", (opened / "fdinfo" / entry.name).read_text())[1]
                if int(flags, 8) & os.O_ACCMODE != os.O_RDONLY and entry.is_file():
                    sizes.append(entry.stat().st_size)
        return sizes

    async def receiving(self, amount):
        """Waits until an unfinished upload has about that many bytes on disk; the last few may still be buffered."""
        await until(lambda: any(size + 2048 > amount for size in self.writing()), f"{amount} bytes of an upload written")

    def memory(self):
        """The peak of its resident memory, in bytes."""
        return int(re.search(r"VmHWM:\s+(\d+) kB", self.status())[1]) * KIB

    def status(self):
        """The text of its /proc/PID/status."""
        return Path(f"/proc/{self.process.pid}/status").read_text()

    def ticks(self):
        """The processor time that it has used so far, in hundredths of a second."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        fields = stat[stat.rindex(")") + 2:].split()
        return int(fields[11]) + int(fields[12])
