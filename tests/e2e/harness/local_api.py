"""The local API: slots without XMPP, health and metrics. The upslot must have `api` in its configuration."""

import re
import urllib.parse

from .base import ACCOUNTS, check, until
from .clients import Slot
from .http import get
from .processes import free_port


def api_url(up, path):
    return f"http://127.0.0.1:{up.settings['api']['port']}/{path}"


async def request_slot(up, name, size, jid=ACCOUNTS[0], **more):
    """The reply to a slot request; `more` are further fields of the query."""
    query = {"jid": jid, "name": name, "size": size, **more}
    return await get(api_url(up, "slot/?" + urllib.parse.urlencode(query)))


async def slot_from_api(up, name, size, jid=ACCOUNTS[0], **more):
    reply = await request_slot(up, name, size, jid, **more)
    check("slot", (reply.status, reply.body if reply.status != 200 else b""), (200, b""))
    return Slot(*reply.body.decode().split(), {})


async def health(up):
    reply = await get(api_url(up, "health"))
    return reply.status, reply.body.decode()


async def metric(up, name):
    """The value of a metric; None when `/metrics` does not have it."""
    page = (await get(api_url(up, "metrics"))).body.decode()
    found = re.search(rf"^upslot_{re.escape(name)} (\S+)$", page, re.MULTILINE)
    return found and float(found[1])


async def quiet_upslot(case, start=True, **settings):
    """An upslot with only the local API, and with so little in its log that few of its calls are writes."""
    up = await case.upslot(start=False, api={"port": free_port()}, **{"log_level": "error", **settings})
    if start:
        await up.start_quietly()
    return up


async def until_slots_are(status, up, size, name="small.bin"):
    """Waits until slot requests for this size get that status."""

    async def answered():
        return (await request_slot(up, name, size)).status == status

    await until(answered, f"status {status} for slots of {size} bytes")
