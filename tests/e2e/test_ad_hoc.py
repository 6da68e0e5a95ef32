"""Commands over XMPP (XEP-0050): by slixmpp and by Gajim's library, with real servers between them and upslot."""

import asyncio
import json
from pathlib import Path

from harness import ACCOUNTS, PASSWORD, PATIENCE, UPLOAD, check, get, run, test, upload

COMMANDS = "http://jabber.org/protocol/commands"
DATA = "{jabber:x:data}"


class Session:
    """An execution by slixmpp's plugin, one step at a time."""

    def __init__(self, client):
        self.plugin, self.answers = client.xmpp["xep_0050"], asyncio.Queue()
        self.state = {"next": self.took, "error": self.took}

    def took(self, iq, session):
        self.state = session
        self.answers.put_nowait(iq)

    async def answer(self):
        return await asyncio.wait_for(self.answers.get(), PATIENCE)

    async def start(self, node):
        self.plugin.start_command(UPLOAD, node, self.state)
        return await self.answer()

    async def step(self, method, form=None):
        self.state["payload"] = form
        getattr(self.plugin, f"{method}_command")(self.state)
        return await self.answer()


async def with_commands(case, jid):
    client = await case.client(jid)
    for plugin in ("xep_0004", "xep_0050"):
        client.xmpp.register_plugin(plugin)
    return client


def fields(answer):
    """The fields of the form of an answer, by name."""
    return {field.get("var"): field for field in answer.xml.iter(DATA + "field")}


def value(field):
    return field.findtext(DATA + "value")


async def names(client):
    items = await client.xmpp["xep_0050"].get_commands(UPLOAD, timeout=PATIENCE)
    return [name for _, _, name in sorted(items["disco_items"]["items"], key=str)]


@test(servers=("prosody", "ejabberd"))
async def slixmpp(case):
    up = await case.upslot(whitelist=[ACCOUNTS[0]], admins=[ACCOUNTS[1]])
    romeo, benvolio = await with_commands(case, ACCOUNTS[0]), await with_commands(case, ACCOUNTS[1])
    juliet = await with_commands(case, ACCOUNTS[2])
    own = {"My uploads", "Delete an upload", "Delete all my uploads"}
    admins = {"Usage", "Delete a user's uploads", "Explain"}
    for client, expected in ((romeo, own), (benvolio, admins), (juliet, set())):
        check(f"commands of {client.jid}", set(await names(client)), expected)
    slots = [await upload(romeo, name, b"x" * 1000) for name in ("a & <b>.txt", "très cool.txt", "c.txt")]

    answer = await Session(romeo).start("uploads")
    check("status", answer["command"]["status"], "completed")
    found = fields(answer)
    check("uploads", value(found["files"]), "3 files")
    check("links", {value(found[f"upload-{n}"]) for n in (1, 2, 3)}, {slot.get for slot in slots})

    session = Session(romeo)
    answer = await session.start("delete")
    check("actions", answer["command"]["actions"], {"next"})
    options = fields(answer)["files"].iter(DATA + "option")
    chosen = next(value(option) for option in options if "très cool.txt" in option.get("label"))
    form = romeo.xmpp["xep_0004"].make_form(ftype="submit")
    form.add_field(var="files", ftype="list-multi", value=[chosen])
    answer = await session.step("continue", form)
    check("actions", answer["command"]["actions"], {"prev", "complete"})
    answer = await session.step("complete")
    check("notes", answer["command"]["notes"], [("info", "Deleted 1 file, 1000 B.")])
    check("deleted", [(await get(slot.get)).status for slot in slots], [200, 404, 200])
    await up.line(rf"uploads deleted owner={ACCOUNTS[0]} by={ACCOUNTS[0]} files=1 bytes=1000 complete=true")
    session.state |= {"next": session.took, "error": session.took}
    answer = await session.step("complete")
    check("error", answer["type"], "error")
    assert answer.xml.find(f".//{{{COMMANDS}}}session-expired") is not None, answer

    # Another user may not, an administrator may.
    answer = await Session(juliet).start("uploads")
    check("error", (answer["type"], answer["error"]["condition"]), ("error", "forbidden"))
    session = Session(benvolio)
    await session.start("delete-user")
    form = benvolio.xmpp["xep_0004"].make_form(ftype="submit")
    form.add_field(var="user", value=ACCOUNTS[0])
    answer = await session.step("continue", form)
    check("status", answer["command"]["status"], "executing")
    answer = await session.step("complete")
    check("notes", answer["command"]["notes"], [("info", "Deleted 2 files, 2.0 KiB.")])
    check("deleted", [(await get(slot.get)).status for slot in slots], [404] * 3)
    check("files", up.files(), set())


@test(servers=("prosody", "ejabberd"))
async def gajim(case):
    """The answers are those that Gajim's library reads and its windows can show: forms without tables."""
    await case.upslot(whitelist=[ACCOUNTS[0]])
    server = await case.server()
    romeo = await case.client()
    for name in ("a & <b>.txt", "très cool.txt", "c.txt"):
        await upload(romeo, name, b"x" * 1000)
    done = await run(["/usr/bin/python3", Path(__file__).parent / "nbxmpp_commands.py", ACCOUNTS[0], PASSWORD,
                      f"127.0.0.1:{server.client_port}", UPLOAD])
    assert done.code == 0, f"nbxmpp ended with {done.code}: {done.out} {done.err}"
    answers = [json.loads(line) for line in done.out.splitlines()]
    check("commands", answers[0]["commands"],
          [[UPLOAD, "uploads", "My uploads"], [UPLOAD, "delete", "Delete an upload"],
           [UPLOAD, "delete-all", "Delete all my uploads"]])
    check("title", answers[1]["title"], "My uploads")
    fields = dict(answers[1]["fields"])
    check("uploads", fields["Uploads"], "3 files")
    check("links", len([v for v in fields.values() if v.startswith("http")]), 3)
    check("offer", (answers[2]["actions"], answers[2]["default"], answers[2]["options"]),
          (["cancel", "next"], "next", 3))
    check("consent", (answers[3]["actions"], len(answers[3]["fixed"])), (["cancel", "complete", "prev"], 1))
    check("deleted", answers[4]["notes"], [["info", "Deleted 1 file, 1000 B."]])
    check("again", answers[5]["condition"], "not-allowed")
    check("cancelled", answers[6]["status"], "canceled")
    check("all deleted", answers[7]["notes"], [["info", "Deleted 2 files, 2.0 KiB."]])
