#!/usr/bin/python3
"""Sends a file from one XMPP account to another through the server's upload service, and reports each step.

Part of contrib/quickstart, which starts the servers and creates the accounts. Needs python3-slixmpp and
python3-aiohttp. The accounts are romeo@localhost and juliet@localhost. Their passwords are in the environment variables
ROMEO_PASSWORD and JULIET_PASSWORD, because command lines are visible to other users.
"""

import argparse
import asyncio
import hashlib
import inspect
import io
import mimetypes
import os
import pathlib
import sys

import aiohttp
import slixmpp

# Seconds for any one step; all of them happen on loopback.
STEP_DEADLINE = 30
# The file that is sent by default. URLs must preserve its spaces, accent and punctuation.
NAME = "très cool #1 (100 %).bin"
SIZE = 300_000


def say(text):
    print(f"  {text}", flush=True)


class Account(slixmpp.ClientXMPP):
    """One logged-in account, on an unencrypted loopback connection."""

    def __init__(self, jid, password, endpoint):
        super().__init__(jid, password)
        for plugin in ("xep_0030", "xep_0066", "xep_0363"):
            self.register_plugin(plugin)
        # The password never crosses the connection with SCRAM; slixmpp 1.9 and newer have to be told.
        self["feature_mechanisms"].unencrypted_scram = True
        self.endpoint = endpoint
        self.started = asyncio.get_running_loop().create_future()
        self.links = asyncio.Queue()
        self.add_event_handler("session_start", lambda _: self.settle(None))
        for event in ("failed_auth", "failed_all_auth", "connection_failed", "disconnected"):
            self.add_event_handler(event, lambda reason, event=event: self.settle(f"{jid}: {event} {reason}"))
        self.add_event_handler("message", lambda message: self.links.put_nowait(message["oob"]["url"]))

    def settle(self, trouble):
        if self.started.done():
            return
        if trouble is None:
            self.started.set_result(None)
        else:
            self.started.set_exception(ConnectionError(trouble))

    async def log_in(self):
        host, port = self.endpoint
        if "host" in inspect.signature(self.connect).parameters:
            # slixmpp 1.9 and newer.
            self.enable_direct_tls = False
            self.enable_starttls = False
            self.enable_plaintext = True
            self.connect(host, port)
        else:
            self.connect((host, port), force_starttls=False, disable_starttls=True)
        await asyncio.wait_for(self.started, STEP_DEADLINE)
        self.send_presence()

    async def log_out(self):
        await asyncio.wait_for(self.disconnect(), STEP_DEADLINE)


async def find_service(account):
    """The address of the upload service and the largest size it announces (XEP-0363 section 3)."""
    # The library's own search fails in Debian 12 (slixmpp 1.8.3 with Python 3.11), so it is done here.
    disco = account["xep_0030"]
    items = await disco.get_items(jid=account.boundjid.host, timeout=STEP_DEADLINE)
    for jid, _, _ in items["disco_items"]["items"]:
        info = (await disco.get_info(jid=jid, timeout=STEP_DEADLINE))["disco_info"]
        if account["xep_0363"].stanza.Request.namespace not in info["features"]:
            continue
        for form in info.iterables:
            values = form["values"]
            if "max-file-size" in values:
                return jid, int(values["max-file-size"])
        raise LookupError(f"{jid} announces no max-file-size")
    raise LookupError("the server lists no upload service")


async def download(link):
    deadline = aiohttp.ClientTimeout(total=STEP_DEADLINE)
    async with aiohttp.ClientSession(timeout=deadline) as session:
        async with session.get(link) as response:
            response.raise_for_status()
            return response.headers.get("Content-Type"), await response.read()


async def round_trip(server, name, content):
    romeo = Account("romeo@localhost", os.environ["ROMEO_PASSWORD"], server)
    juliet = Account("juliet@localhost", os.environ["JULIET_PASSWORD"], server)
    await romeo.log_in()
    await juliet.log_in()
    say("romeo@localhost and juliet@localhost are logged in.")

    service, limit = await find_service(romeo)
    say(f"romeo discovered the upload service of the server: {service}, for files of up to {int(limit) / 2**20:g} MiB.")

    romeo["xep_0363"].upload_service = slixmpp.JID(service)
    content_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    link = await asyncio.wait_for(
        romeo["xep_0363"].upload_file(
            pathlib.Path(name), len(content), content_type, input_file=io.BytesIO(content), timeout=STEP_DEADLINE
        ),
        STEP_DEADLINE,
    )
    say(f"romeo requested a slot for '{name}' ({len(content)} bytes) from {service}, and uploaded the file. Its link:")
    say(f"  {link}")

    message = romeo.make_message(mto="juliet@localhost", mbody=link, mtype="chat")
    message["oob"]["url"] = link
    message.send()
    received = await asyncio.wait_for(juliet.links.get(), STEP_DEADLINE)
    if received != link:
        raise ValueError(f"juliet received another link: {received}")
    say("romeo sent the link to juliet in a message, and juliet received it.")

    received_type, received_content = await asyncio.wait_for(download(received), STEP_DEADLINE)
    if received_content != content:
        raise ValueError(f"juliet received {len(received_content)} bytes that differ from the {len(content)} sent")
    digest = hashlib.sha256(content).hexdigest()
    say(f"juliet downloaded {len(received_content)} bytes of type {received_type}, identical to the file:")
    say(f"  SHA-256 {digest}")

    await romeo.log_out()
    await juliet.log_out()
    return link


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", required=True, metavar="HOST:PORT", help="client port of the XMPP server")
    parser.add_argument("--save-link", metavar="FILE", help="write the link of the file to FILE")
    parser.add_argument("file", nargs="?", type=pathlib.Path, help="file to send (default: random bytes)")
    arguments = parser.parse_args()
    host, _, port = arguments.server.rpartition(":")
    if arguments.file:
        name, content = arguments.file.name, arguments.file.read_bytes()
    else:
        name, content = NAME, os.urandom(SIZE)
    link = asyncio.run(round_trip((host, int(port)), name, content))
    if arguments.save_link:
        pathlib.Path(arguments.save_link).write_text(link, encoding="ascii")


if __name__ == "__main__":
    try:
        main()
    except slixmpp.exceptions.IqError as refusal:
        print(f"The transfer failed: {refusal.condition}: {refusal.text}", file=sys.stderr)
        sys.exit(1)
    except Exception as error:  # Reported in one line, and by the exit code.
        print(f"The transfer failed: {type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)
