"""Names and values that all tests use, the marker of a test, assertions and waiting."""

import asyncio
import base64
import hashlib
import inspect
import os
import random

DOMAIN = "montague.example"
OTHER_DOMAIN = "capulet.example"
UPLOAD = "upload." + DOMAIN
SECRET = "correct horse battery staple"
PASSWORD = "wherefore art thou"
ACCOUNTS = ["romeo@" + DOMAIN, "benvolio@" + DOMAIN, "juliet@" + OTHER_DOMAIN]
NAMESPACES = ["urn:xmpp:http:upload:0", "urn:xmpp:http:upload", "eu:siacs:conversations:http:upload"]
STANZAS = "{urn:ietf:params:xml:ns:xmpp-stanzas}"

KIB, MIB = 1024, 1024 * 1024

# The limit for one step, in seconds: generous, because a build or another test run may share the machine.
PATIENCE = 30

# True if tests that have a long form are to run in that form.
LONG = os.environ.get("UPSLOT_TESTS") == "long"


def test(servers=("prosody",), deadline=90):
    """Marks a test; conftest.py runs it once per XMPP server in `servers`, where `None` means without a server. The
    deadline is in seconds."""

    def mark(function):
        function.servers, function.deadline = servers, deadline
        return function

    return mark


def check(what, found, expected):
    """An assertion that shows both sides."""
    assert found == expected, f"{what}: found {short(found)}, expected {short(expected)}"


def short(value):
    text = repr(value)
    return text if len(text) < 400 else f"{text[:200]}… ({len(text)} characters)"


async def until(condition, what, timeout=PATIENCE):
    """Waits for a condition that no event announces, and returns its first true result. The condition may be async."""
    deadline = asyncio.get_running_loop().time() + timeout
    while True:
        result = condition()
        if inspect.isawaitable(result):
            result = await result
        if result:
            return result
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"not within {timeout} s: {what}")
        await asyncio.sleep(0.02)


def owner_folder(jid):
    """The name of the folder in the store that holds the files of this bare JID."""
    return base64.urlsafe_b64encode(hashlib.sha1(jid.encode()).digest()).decode().rstrip("=")


def content(size, seed=1):
    """Bytes without repetitions; equal for equal arguments."""
    return random.Random(seed).randbytes(size)
