"""A headless Chromium, driven by its DevTools protocol, and its servers: one without any protective header, and a
beacon that scripts call.

A script that runs is seen in two ways: on the console, which DevTools report for every frame and worker, and by its
request to the beacon. The unprotected server proves that both ways work.
"""

import asyncio
import base64
import contextlib
import itertools
import json
import os
import re

import aiohttp

from harness import DOMAIN, OTHER_DOMAIN, PATIENCE, Process, free_port, put, slot_from_api

# How long a loaded page is watched for script that runs late, in seconds.
SETTLE = 0.4


class Browser:
    """A Chromium with its own profile."""

    async def start(self, folder):
        self.folder, self.downloads = folder / "chromium", folder / "downloads"
        self.folder.mkdir()
        self.downloads.mkdir()
        self.process = await Process.start("chromium", [
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-dev-shm-usage", "--no-proxy-server", "--mute-audio", "--password-store=basic",
            "--autoplay-policy=no-user-gesture-required", "--log-level=3", "--remote-debugging-port=0",
            # Only loopback can be reached.
            "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
            f"--user-data-dir={self.folder}", "about:blank"], env=dict(os.environ, HOME=str(self.folder)))
        found = await self.process.line(r"DevTools listening on (ws://\S+)", timeout=2 * PATIENCE)
        self._http = aiohttp.ClientSession()
        self._socket = await self._http.ws_connect(found[1], max_msg_size=0)
        self._ids, self._answers, self._pages = itertools.count(1), {}, {}
        self._children = {}
        self._waiting = {}
        self._reading = asyncio.ensure_future(self._read())
        return self

    async def stop(self):
        self._reading.cancel()
        await self._http.close()
        await self.process.stop(timeout=10)

    async def command(self, method, session=None, **parameters):
        number = next(self._ids)
        message = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_str(json.dumps(message))
        return await asyncio.wait_for(answer, PATIENCE)

    async def _read(self):
        async for message in self._socket:
            message = json.loads(message.data)
            if "id" in message:
                answer = self._answers.pop(message["id"])
                if answer.done():
                    continue
                if "error" in message:
                    answer.set_exception(AssertionError(f"DevTools: {message['error']}"))
                else:
                    answer.set_result(message["result"])
                continue
            session, method, event = message.get("sessionId"), message["method"], message["params"]
            if method == "Target.attachedToTarget" and session:
                # Frames and workers of a page are watched like the page.
                page = self._children.get(session) or self._pages.get(session)
                if page:
                    self._children[event["sessionId"]] = page
                    asyncio.ensure_future(page.watch(event["sessionId"]))
            elif method.startswith("Browser.download"):
                for page in self._pages.values():
                    page.take(method, event)
            else:
                page = self._pages.get(session) or self._children.get(session)
                if page:
                    page.take(method, event)

    async def page(self):
        target = (await self.command("Target.createTarget", url="about:blank"))["targetId"]
        session = (await self.command("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        page = self._pages[session] = Page(self, target, session)
        await self.command("Browser.setDownloadBehavior", behavior="allowAndName", eventsEnabled=True,
                           downloadPath=str(self.downloads))
        for domain in ("Page", "Network", "Log"):
            await self.command(f"{domain}.enable", session)
        await page.watch(session)
        return page


class Page:
    """A page, and its events."""

    def __init__(self, browser, target, session):
        self.browser, self.target, self.session = browser, target, session
        self.console, self.events, self.requests = [], [], {}
        self.responses, self.downloads, self.dialogs = [], {}, []
        self.frame, self._fulfil = target, {}
        self._happened = asyncio.Event()

    async def watch(self, session):
        with contextlib.suppress(AssertionError, asyncio.TimeoutError):
            await self.browser.command("Runtime.enable", session)
            await self.browser.command("Target.setAutoAttach", session, autoAttach=True, flatten=True,
                                       waitForDebuggerOnStart=False)

    def take(self, method, event):
        if method == "Runtime.consoleAPICalled":
            self.console += [str(argument.get("value", "")) for argument in event["args"]]
        elif method == "Page.javascriptDialogOpening":
            self.dialogs.append(event["message"])
            self._later("Page.handleJavaScriptDialog", accept=False)
        elif method == "Network.requestWillBeSent":
            self.requests[event["requestId"]] = event["request"]
        elif method == "Network.responseReceived":
            self.responses.append((self.requests.get(event["requestId"], {}), event["response"]))
        elif method == "Browser.downloadWillBegin" and event["frameId"] in self._frames():
            self.downloads[event["guid"]] = {"name": event["suggestedFilename"], "state": "inProgress"}
        elif method == "Browser.downloadProgress" and event["guid"] in self.downloads:
            self.downloads[event["guid"]]["state"] = event["state"]
        elif method == "Fetch.requestPaused":
            self._later("Fetch.fulfillRequest", requestId=event["requestId"], responseCode=200,
                        responseHeaders=[{"name": "Content-Type", "value": "text/html; charset=utf-8"}],
                        body=base64.b64encode(self._fulfil[event["request"]["url"]].encode()).decode())
        self.events.append((method, event))
        self._happened.set()

    def _frames(self):
        return {self.frame} | {event["frameId"] for method, event in self.events if method == "Page.frameAttached"}

    def _later(self, method, **parameters):
        asyncio.ensure_future(self.browser.command(method, self.session, **parameters))

    async def until(self, condition, what, timeout=PATIENCE):
        """Waits for events until the condition is true; returns its result."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while not (answer := condition()):
            self._happened.clear()
            try:
                await asyncio.wait_for(self._happened.wait(), max(deadline - loop.time(), 0.001))
            except asyncio.TimeoutError:
                raise AssertionError(f"the browser: not within {timeout} s: {what}") from None
        return answer

    async def intercept(self, url, html):
        """Answers requests for this URL within the browser, with this page."""
        self._fulfil[url] = html
        await self.browser.command("Fetch.enable", self.session,
                                   patterns=[{"urlPattern": known} for known in self._fulfil])

    async def visit(self, url):
        """Opens the URL; returns when the page and its resources have loaded, or its download has begun."""
        start = len(self.events)
        self.downloads = {}
        await self.browser.command("Page.navigate", self.session, url=url)

        def over():
            names = [method for method, _ in self.events[start:]]
            stopped = any(method == "Page.frameStoppedLoading" and event["frameId"] == self.frame
                          for method, event in self.events[start:])
            return stopped and ("Page.loadEventFired" in names or self.downloads or "Page.frameNavigated" not in names)

        await self.until(over, f"the end of loading {url}")
        return self

    async def run(self, script):
        """Runs script in the page by DevTools, which the page's policy cannot prevent; returns its awaited value."""
        done = await self.browser.command("Runtime.evaluate", self.session, expression=script, awaitPromise=True,
                                          returnByValue=True, userGesture=True)
        assert "exceptionDetails" not in done, f"in the page: {done['exceptionDetails']}"
        return done["result"].get("value")

    async def settle(self):
        """Gives late script time to run. That no script runs has no event."""
        await asyncio.sleep(SETTLE)
        return self

    async def close(self):
        await self.browser.command("Target.closeTarget", targetId=self.target)
        self.browser._pages.pop(self.session, None)


class Server:
    """A minimal HTTP server: one answer per connection."""

    def __init__(self):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"

    async def start(self, case):
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        case._closing.callback(server.close)
        return self

    async def _serve(self, reader, writer):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status, body, fields = self.answer(head.split(" ")[1].lstrip("/"))
            lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close", *fields]
            writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
            await writer.drain()
        writer.close()


class UnprotectedServer(Server):
    """Serves files with their type and no protective header."""

    def __init__(self):
        super().__init__()
        self.files = {}

    def add(self, name, body, type=None):
        self.files[name] = (body.encode() if isinstance(body, str) else body, type)
        return self.url + name

    def answer(self, name):
        if name not in self.files:
            return 404, b"", ["Content-Type: text/plain"]
        body, type = self.files[name]
        return 200, body, [f"Content-Type: {type}"] if type is not None else []


class Beacon(Server):
    """Records the names under which scripts call it."""

    def __init__(self):
        super().__init__()
        self.hits = set()

    def answer(self, name):
        if found := re.match(r"hit-(\w+)", name):
            self.hits.add(found[1])
        return 200, b"", ["Access-Control-Allow-Origin: *", "Content-Type: text/plain"]


class Site:
    """An upslot to which files are uploaded with slots of its local API."""

    def __init__(self, up):
        self.up = up

    @classmethod
    async def start(cls, case, **settings):
        return cls(await case.upslot(api={"port": free_port()}, whitelist=[DOMAIN, OTHER_DOMAIN], fsync=False, **settings))

    async def upload(self, name, body, type):
        """Uploads a file; returns its GET URL."""
        slot = await slot_from_api(self.up, name, len(body), **({"content_type": type} if type else {}))
        reply = await put(slot.put, body, headers={"Content-Type": type} if type is not None else {})
        assert reply.status == 201, (name, type, reply)
        return slot.get


async def browser(case):
    started = await Browser().start(case.folder)
    case.started.append(started)
    case._closing.push_async_callback(started.stop)
    return started
