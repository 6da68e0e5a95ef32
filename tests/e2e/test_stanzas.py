"""Hostile stanzas through real XMPP servers: large, deep or unusual ones, and floods. They reach the component as the server
serializes them, and must not affect other users."""

import asyncio
import base64
import re

from harness import ACCOUNTS, MIB, PASSWORD, PATIENCE, UPLOAD, api_url, check, free_port, get, put, test

PING = "<ping xmlns='urn:xmpp:ping'/>"
XML = "http://www.w3.org/XML/1998/namespace"


class RawUser:
    """An account on a raw TCP connection, to send stanzas that no library would. All input is kept in `received`."""

    def __init__(self, server, jid, resource):
        self.server, self.jid, self.resource, self.received = server, jid, resource, ""
        self.more = asyncio.Event()

    async def start(self):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.server.client_port)
        self.reading = asyncio.ensure_future(self.read())
        user, domain = self.jid.split("@")
        header = (f"<?xml version='1.0'?><stream:stream xmlns='jabber:client' to='{domain}' version='1.0' "
                  f"xmlns:stream='http://etherx.jabber.org/streams'>")
        login = base64.b64encode(f"\0{user}\0{PASSWORD}".encode()).decode()
        await self.send(header)
        await self.answer("</stream:features>")
        await self.send(f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{login}</auth>")
        await self.answer("<success ")
        seen = len(self.received)
        await self.send(header)
        await self.answer("</stream:features>", seen)
        await self.send(f"<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>"
                        f"<resource>{self.resource}</resource></bind></iq>")
        await self.answer("</jid>")
        await self.send("<iq type='set' id='session'><session xmlns='urn:ietf:params:xml:ns:xmpp-session'/></iq>")
        await self.answer("session")
        return self

    async def read(self):
        while piece := await self.reader.read(65536):
            self.received += piece.decode("utf-8", "replace")
            self.more.set()

    async def send(self, text):
        self.writer.write(text.encode())
        await asyncio.wait_for(self.writer.drain(), PATIENCE)

    async def answer(self, pattern, since=0):
        """Waits for a match after the first `since` received characters."""

        async def look():
            while not (found := re.compile(pattern, re.S).search(self.received, since)):
                self.more.clear()
                await self.more.wait()
            return found

        try:
            return await asyncio.wait_for(look(), PATIENCE)
        except asyncio.TimeoutError:
            raise AssertionError(f"never received {pattern}; last was {self.received[-500:]}") from None

    async def stop(self):
        self.reading.cancel()
        self.writer.transport.abort()


async def raw_user(case, jid=ACCOUNTS[0], resource="raw"):
    user = RawUser(await case.server(), jid, resource)
    await user.start()
    case._closing.push_async_callback(user.stop)
    return user


async def quick(start, what):
    """Awaits a result that must take less than a second. On a busy machine it may take a second longer than a repetition
    that follows at once."""
    loop, took = asyncio.get_running_loop(), []
    while len(took) < 1 or 1 <= took[0] and len(took) < 2:
        begun = loop.time()
        found = await start()
        took.append(loop.time() - begun)
    assert took[0] < 1 + sum(took[1:]), f"{what} took {took[0]:.2f} s, and {took[1]:.2f} s when repeated"
    return found


def message(inside="", more=""):
    return f"<message to='{UPLOAD}' {more}>{inside}</message>"


def iq(id, inside, type="get"):
    return f"<iq type='{type}' id='{id}' to='{UPLOAD}'>{inside}</iq>"


def numbered(form, count):
    return " ".join(form.format(n) for n in range(count))


# Description, stanza, and, for a request, a pattern of its answer.
HOSTILE = [
    ("41 levels", message("<x>" * 41 + "</x>" * 41), None),
    ("1000 levels", message("<x>" * 1000 + "</x>" * 1000), None),
    ("a body of 70,000 bytes", message("<body>" + "y" * 70_000 + "</body>"), None),
    ("a body of 200 KiB", message("<body>" + "y" * 200 * 1024 + "</body>"), None),
    ("apostrophes, which servers escape", message("<body>" + "'" * 200_000 + "</body>"), None),
    ("10,000 attributes", message("<x " + numbered("a{0}='{0}'", 10_000) + "/>"), None),
    ("5,000 declarations", message("<x " + numbered("xmlns:a{0}='u{0}'", 5_000) + "/>"), None),
    ("1,000 attributes with prefixes", message("<x " + numbered("xmlns:a{0}='u{0}' a{0}:b='1'", 1_000) + "/>"), None),
    ("a name of the xml namespace", message("<xml:y/>"), None),
    ("attributes of the xml namespace", message("<y xml:zzz='1' xml:yyy='2' xml:lang='en'/>"), None),
    ("xmlns:xml declared again", message(f"<y xmlns:xml='{XML}' xml:lang='a'/>"), None),
    ("a prefix declared on the message", message("<q:y><q:z q:a='1' r:a='2'/></q:y>", "xmlns:q='u' xmlns:r='v'"), None),
    ("the stream's prefix bound to something else", message("<stream:z stream:b='1'/>", "xmlns:stream='u'"), None),
    ("elements of the stream inside a message",
     message("<stream:error/><stream:stream/><iq xmlns='jabber:component:accept' type='get'/>"), None),
    ("names and text far from ASCII", message("<豈\u0660>\U0001fffe\ufdd0\x7f\x85\u2028</豈\u0660>"), None),
    ("control characters by reference", message("<a b='&#13;&#9;&#10;'>&#13;&#9;&#10;</a>"), None),
    ("sections that touch", message("<body><![CDATA[a]]]]><![CDATA[>b]]>]]&gt;<![CDATA[<!-- -->]]></body>"), None),
    ("a namespace that the server repeats 1,000 times",
     message("<x xmlns:q='" + "n" * 5_000 + "'>" + "<q:y/>" * 1_000 + "</x>"), None),
    ("an empty namespace, and quotes in one", message("<y xmlns=''/><y xmlns='a&quot;b&apos;c&lt;&amp;'/>"), None),
    ("an error", message("<error type='cancel'/>", "type='error'"), None),
    ("a type that is none", message("<body>x</body>", "type='&lt;x&gt;'"), None),
    ("a resource of 1,023 bytes", f"<message to='{UPLOAD}/{'r' * 1023}'><body/></message>", None),
    ("an iq of 100 KB", iq("large", "<x xmlns='a'>" + "y" * 100_000 + "</x>"), "not-acceptable"),
    ("an iq of 100 levels", iq("deep", "<x xmlns='a'>" + "<y>" * 100 + "</y>" * 100 + "</x>", "set"), "not-acceptable"),
    ("an iq of the xml namespace", iq("names", "<xml:y/>"), "not-acceptable"),
    ("an iq with 10,000 attributes", iq("attributes", "<x xmlns='a' " + numbered("a{0}='{0}'", 10_000) + "/>"),
     "not-acceptable"),
    ("a file name of 30,000 characters",
     iq("name", f"<request xmlns='urn:xmpp:http:upload:0' filename='{'n' * 30_000}' size='5'/>"), "<slot "),
    ("an id of 100 KB", iq("i" * 100_000, PING), None),
    ("an iq without an id of any length", iq("", PING), None),
    ("an iq without a payload", iq("empty", ""), "bad-request"),
    ("an iq with two payloads", iq("two", PING + PING), "bad-request"),
    ("a result", iq("result", "", "result"), None),
    ("a thousand presences", f"<presence to='{UPLOAD}'/>" * 1_000, None),
    ("a thousand pings", iq("ping", PING) * 1_000, "type=.result."),
]


@test(servers=("prosody", "ejabberd"), deadline=180)
async def hostile_stanzas_affect_no_other_user(case):
    """One user sends all of these within a minute; after each, another user gets a slot in less than a second."""
    up = await case.upslot(api={"port": free_port()}, log_level="info")
    other = await case.client(ACCOUNTS[1])
    check("first slot", (await put((await other.slot("first.txt", 5)).put, b"hello")).status, 201)
    hostile = await raw_user(case)
    loop = asyncio.get_running_loop()
    begun, since = loop.time(), up.mark()
    for what, stanza, expected in HOSTILE:
        seen = len(hostile.received)
        await hostile.send(stanza)
        slot = await quick(lambda: other.slot("a.txt", 5), f"a slot after {what}")
        assert slot.put.startswith(up.url), what
        if expected:
            id = re.search("id='([^']*)'", stanza)[1]
            answer = await hostile.answer(f"<iq [^>]*id=.{id}.*?({expected}|</iq>)", seen)
            # Servers answer some requests themselves.
            assert answer[1] != "</iq>" or "service-unavailable" in answer[0], f"{what}: {answer[0][:500]}"
        # The server did not end the stream, so it has accepted the stanza.
        assert "<stream:error" not in hostile.received[seen:], f"{what}: {hostile.received[seen:][:500]}"
    took = loop.time() - begun
    assert took < 60, f"{took:.0f} s"
    lines = up.process.lines[since:]
    assert not [line for line in lines if "link down" in line or " WARN " in line or " ERROR " in line], lines
    check("upload afterwards", (await put(slot.put, b"hello")).status, 201)

    page = (await get(api_url(up, "metrics"))).body.decode()
    reasons = dict(re.findall(r'upslot_stanzas_skipped_total\{reason="(\w+)"\} (\d+)', page))
    assert {"too_large", "too_deep", "names"} <= reasons.keys(), reasons
    check("reconnects", re.search(r"upslot_link_reconnects_total (\d+)", page)[1], "0")
    skipped = [line for line in lines if "stanza skipped" in line]
    # An id of 100 KB that the server writes before `from` hides the sender.
    unknown = [line for line in skipped if f'from="{ACCOUNTS[0]}/raw"' not in line]
    assert len(skipped) >= 10 and len(unknown) <= 1 and all('kind="iq" from=""' in line for line in unknown), skipped
    assert up.memory() < 24 * MIB, up.memory()


@test(servers=("prosody", "ejabberd"), deadline=120)
async def flood_of_slot_requests(case):
    """One user sends requests without a pause, forty at a time; another user still gets slots and downloads. More at a time
    would fill the queues of the server."""
    await case.upslot(log_level="info")
    other = await case.client(ACCOUNTS[1])
    slot = await other.slot("a.txt", 5)
    check("upload", (await put(slot.put, b"hello")).status, 201)
    hostile = await raw_user(case)
    request = iq("flood", "<request xmlns='urn:xmpp:http:upload:0' filename='a.txt' size='5'/>")
    disco = iq("flood", "<query xmlns='http://jabber.org/protocol/disco#info'/>")

    async def flood():
        while True:
            seen = len(hostile.received)
            await hostile.send((request + disco) * 20)
            while hostile.received.count("flood", seen) < 40:
                await hostile.answer("flood", len(hostile.received))

    flooding = case.background(flood())
    rounds = 0
    while rounds < 20 or hostile.received.count("flood") <= 100:
        rounds += 1
        await quick(lambda: other.slot("b.txt", 5), "a slot")
        check("download", (await quick(lambda: get(slot.get), "a download")).body, b"hello")
        assert not flooding.done(), flooding
