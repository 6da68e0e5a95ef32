"""Lists and executes commands as Gajim does, by its library nbxmpp. A program of its own, because nbxmpp needs the main
loop of GLib.

    nbxmpp_commands.py JID PASSWORD ADDRESS SERVICE

Deletes one of the account's uploads, and then all. Prints one line of JSON for each answer.
"""

import json
import sys

from gi.repository import GLib
from nbxmpp.client import Client
from nbxmpp.const import AdHocAction, ConnectionProtocol, ConnectionType
from nbxmpp.errors import StanzaError
from nbxmpp.modules import dataforms

DEADLINE = 20

jid, password, address, service = sys.argv[1:]
user, domain = jid.split("@")
loop = GLib.MainLoop()
failures = []


def fail(why):
    failures.append(why)
    loop.quit()


def show(**what):
    print(json.dumps(what), flush=True)


def conversation():
    """Yields methods with their arguments; is resumed with their results."""
    commands = yield "request_command_list", (service,), {}
    show(commands=[[str(c.jid), c.node, c.name] for c in commands])
    commands = {command.node: command for command in commands}
    stage = yield "execute_command", (commands["uploads"],), {}
    form = dataforms.extend_form(node=stage.data)
    show(node="uploads", status=stage.status.value, title=form.title,
         fields=[[f.label, f.value] for f in form.iter_fields() if f.type_ == "text-single"])

    stage = yield "execute_command", (commands["delete"],), {}
    form = dataforms.extend_form(node=stage.data)
    values = [value for value, _ in form["files"].iter_options()]
    show(node="delete", actions=sorted(action.value for action in stage.actions), default=stage.default.value,
         options=len(values))
    # Gajim returns the whole form, with its options.
    form["files"].values = values[:1]
    form.type_ = "submit"
    assert form.is_valid()
    stage = yield "execute_command", (stage,), {"action": AdHocAction.NEXT, "dataform": form}
    form = dataforms.extend_form(node=stage.data)
    show(node="delete", actions=sorted(action.value for action in stage.actions), instructions=form.instructions,
         fixed=[f.value for f in form.iter_fields() if f.type_ == "fixed"])
    form.type_ = "submit"
    done = yield "execute_command", (stage,), {"action": AdHocAction.COMPLETE, "dataform": form}
    show(node="delete", status=done.status.value, notes=[[n.type.value, n.text] for n in done.notes])
    try:
        yield "execute_command", (stage,), {"action": AdHocAction.COMPLETE, "dataform": form}
    except StanzaError as error:
        show(node="delete", condition=error.condition)

    stage = yield "execute_command", (commands["delete-all"],), {}
    stage = yield "execute_command", (stage,), {"action": AdHocAction.CANCEL}
    show(node="delete-all", status=stage.status.value)
    stage = yield "execute_command", (commands["delete-all"],), {}
    done = yield "execute_command", (stage,), {"action": AdHocAction.COMPLETE}
    show(node="delete-all", status=done.status.value, notes=[[n.type.value, n.text] for n in done.notes])


def go_on(result=None, error=None):
    try:
        method, arguments, options = talk.throw(error) if error else talk.send(result)
    except StopIteration:
        loop.quit()
    except Exception as problem:
        fail(repr(problem))
    else:
        getattr(client.get_module("AdHoc"), method)(*arguments, **options, callback=finish)


# The library keeps only a weak reference to it.
def finish(task):
    try:
        found = task.finish()
    except Exception as problem:
        go_on(error=problem)
    else:
        go_on(found)


talk = conversation()
client = Client(log_context="test")
client.set_domain(domain)
client.set_username(user)
client.set_resource("nbxmpp")
client.set_password(password)
client.set_custom_host(address, ConnectionProtocol.TCP, ConnectionType.PLAIN)
client.set_connection_types([ConnectionType.PLAIN])
client.set_mechs(["SCRAM-SHA-1", "SCRAM-SHA-256", "PLAIN"])
client.set_sm_disabled(True)
client.subscribe("connected", lambda *_: go_on())
client.subscribe("disconnected", lambda *_: fail("disconnected"))
client.subscribe("connection-failed", lambda *_: fail("connection failed"))
client.connect()
GLib.timeout_add_seconds(DEADLINE, fail, "too slow")
loop.run()
sys.exit("; ".join(failures) or 0)
