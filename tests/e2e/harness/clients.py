"""XMPP clients, by slixmpp."""

import asyncio
import inspect
import io
import xml.etree.ElementTree as ET
from collections import namedtuple

import slixmpp
from slixmpp.exceptions import IqError

from .base import NAMESPACES, PASSWORD, PATIENCE, STANZAS, UPLOAD, check
from .http import get, put

Slot = namedtuple("Slot", "put get headers")
Refusal = namedtuple("Refusal", "type condition text xml")


class Client:
    """An XMPP account that is online."""

    def __init__(self, jid, server):
        self.jid, self.server = jid, server
        self.messages = asyncio.Queue()
        self.xmpp = slixmpp.ClientXMPP(f"{jid}/test", PASSWORD,
                                       plugin_config={"feature_mechanisms": {"unencrypted_plain": True}})
        for plugin in ("xep_0030", "xep_0066", "xep_0092", "xep_0199", "xep_0363"):
            self.xmpp.register_plugin(plugin)
        if slixmpp.__version_info__[:2] < (1, 9):
            # These versions pass coroutines to asyncio.wait, which Python 3.11 rejects.
            disco = self.xmpp["xep_0030"]
            get_info = disco.get_info
            disco.get_info = lambda *args, **options: asyncio.ensure_future(get_info(*args, **options))

    async def start(self):
        online = asyncio.get_running_loop().create_future()

        def finish(failure):
            if not online.done():
                online.set_exception(AssertionError(failure)) if failure else online.set_result(None)

        self.xmpp.add_event_handler("session_start", lambda _: finish(None))
        self.xmpp.add_event_handler("failed_auth", lambda _: finish(f"{self.jid} could not log in"))
        self.xmpp.add_event_handler("message", self.messages.put_nowait)
        if "address" in inspect.signature(self.xmpp.connect).parameters:
            self.xmpp.connect(address=("127.0.0.1", self.server.client_port), disable_starttls=True,
                              force_starttls=False)
        else:
            # slixmpp 1.10 and later.
            self.xmpp.enable_starttls = self.xmpp.enable_direct_tls = False
            self.xmpp.enable_plaintext = True
            self.xmpp.connect("127.0.0.1", self.server.client_port)
        await asyncio.wait_for(online, PATIENCE)
        self.xmpp.send_presence()
        return self

    async def stop(self):
        closing = self.xmpp.disconnect(wait=1)
        if closing is not None:
            await asyncio.wait([asyncio.ensure_future(closing)], timeout=3)
        self.xmpp.abort()

    async def ask(self, payload, to=UPLOAD, type="get"):
        """Sends an IQ; returns the whole answer as XML, a result or an error."""
        iq = self.xmpp.make_iq(ito=to, itype=type)
        iq.append(ET.fromstring(payload))
        try:
            return (await iq.send(timeout=PATIENCE)).xml
        except IqError as error:
            return error.iq.xml

    async def slot(self, name, size, type="application/octet-stream", to=UPLOAD):
        """Requests a slot (XEP-0363)."""
        answer = await self.xmpp["xep_0363"].request_slot(to, name, size, type, timeout=PATIENCE)
        slot = answer["http_upload_slot"]
        headers = {header["name"]: header["value"] for header in slot["put"]["headers"]}
        return Slot(slot["put"]["url"], slot["get"]["url"], headers)

    async def refusal(self, name, size, namespace=NAMESPACES[0], to=UPLOAD):
        """Requests a slot that must be refused; returns the error."""
        answer = await self.ask(slot_request(namespace, name, size), to=to)
        check("type of the answer", answer.get("type"), "error")
        return refusal_of(answer)

    async def upload(self, name, content, type=None):
        """Discovers the service, requests a slot and uploads, all by slixmpp; returns the GET URL."""
        return await self.xmpp["xep_0363"].upload_file(
            name, size=len(content), content_type=type, input_file=io.BytesIO(content), timeout=PATIENCE)


def slot_request(namespace, name, size, type=None):
    """A slot request in the syntax of the namespace."""
    element = ET.Element(f"{{{namespace}}}request")
    fields = {"filename": name, "size": str(size)} | ({"content-type": type} if type else {})
    for field, value in fields.items():
        if namespace == NAMESPACES[0]:
            element.set(field, value)
        else:
            ET.SubElement(element, f"{{{namespace}}}{field}").text = value
    return ET.tostring(element, encoding="unicode")


def refusal_of(answer):
    error = next(child for child in answer if child.tag.endswith("}error"))
    conditions = [child.tag.removeprefix(STANZAS) for child in error if child.tag.startswith(STANZAS)]
    text = error.findtext(STANZAS + "text")
    return Refusal(error.get("type"), next(c for c in conditions if c != "text"), text, error)


async def upload(client, name, body):
    """Uploads in a new slot and downloads again; returns the slot."""
    slot = await client.slot(name, len(body))
    check("PUT", (await put(slot.put, body)).status, 201)
    check("GET", (await get(slot.get)).body, body)
    return slot
