"""Service discovery, and the answers that every XMPP entity gives."""

from harness import DOMAIN, NAMESPACES, OTHER_DOMAIN, ACCOUNTS, UPLOAD, check, refusal_of, test

INFO = "{http://jabber.org/protocol/disco#info}"
ITEMS = "{http://jabber.org/protocol/disco#items}"
DATA = "{jabber:x:data}"


def limits(query):
    """The max-file-size of each data form, by FORM_TYPE."""
    found = {}
    for form in query.iter(DATA + "x"):
        fields = {field.get("var"): field for field in form.iter(DATA + "field")}
        check("type of the form", form.get("type"), "result")
        check("type of FORM_TYPE", fields["FORM_TYPE"].get("type"), "hidden")
        found[fields["FORM_TYPE"].findtext(DATA + "value")] = fields["max-file-size"].findtext(DATA + "value")
    return found


@test(servers=("prosody", "ejabberd"))
async def items_and_info(case):
    await case.upslot(max_file_size=1234567)
    romeo = await case.client()
    items = await romeo.ask(f'<query xmlns="{ITEMS[1:-1]}"/>', to=DOMAIN)
    assert UPLOAD in [item.get("jid") for item in items.iter(ITEMS + "item")], "the domain does not list the service"
    info = await romeo.ask(f'<query xmlns="{INFO[1:-1]}"/>')
    identities = [(i.get("category"), i.get("type"), i.get("name")) for i in info.iter(INFO + "identity")]
    check("identities", identities, [("store", "file", "HTTP File Upload")])
    features = {feature.get("var") for feature in info.iter(INFO + "feature")}
    missing = {*NAMESPACES, "urn:xmpp:ping", "jabber:iq:version", INFO[1:-1]} - features
    check("missing features", missing, set())
    check("limits", limits(info), {NAMESPACES[0]: "1234567", NAMESPACES[1]: "1234567"})
    empty = await romeo.ask(f'<query xmlns="{ITEMS[1:-1]}"/>')
    check("items of the service itself", list(empty.iter(ITEMS + "item")), [])


@test(servers=("prosody", "ejabberd"))
async def slixmpp_finds_the_service(case):
    await case.upslot()
    romeo = await case.client()
    found = await romeo.xmpp["xep_0363"].find_upload_service(timeout=20)
    check("service", str(found["from"]), UPLOAD)


@test()
async def found_from_another_domain(case):
    await case.upslot()
    juliet = await case.client(ACCOUNTS[2])
    found = await juliet.xmpp["xep_0363"].find_upload_service(domain=OTHER_DOMAIN, timeout=20)
    check("service", str(found["from"]), UPLOAD)


@test(servers=("prosody", "ejabberd"))
async def ping_and_version(case):
    await case.upslot()
    romeo = await case.client()
    check("ping", (await romeo.ask('<ping xmlns="urn:xmpp:ping"/>')).get("type"), "result")
    version = await romeo.ask('<query xmlns="jabber:iq:version"/>')
    check("name", version.findtext(".//{jabber:iq:version}name"), "upslot")
    assert version.findtext(".//{jabber:iq:version}version"), "no version"


@test(servers=("prosody", "ejabberd"))
async def unknown_requests_are_refused(case):
    await case.upslot()
    romeo = await case.client()
    for namespace in (INFO, ITEMS):
        refusal = refusal_of(await romeo.ask(f'<query xmlns="{namespace[1:-1]}" node="balcony"/>'))
        check(f"unknown node of {namespace}", refusal.condition, "item-not-found")
    for type in ("get", "set"):
        refusal = refusal_of(await romeo.ask('<query xmlns="urn:example:nothing"/>', type=type))
        check(f"unknown {type}", refusal.condition, "service-unavailable")
    refusal = refusal_of(await romeo.ask(f'<request xmlns="{NAMESPACES[0]}" filename="a" size="1"/>', type="set"))
    check("slot request as a set", (refusal.type, refusal.condition), ("modify", "bad-request"))
    # Messages and presence get no answer and have no effect.
    romeo.xmpp.send_message(mto=UPLOAD, mbody="hello", mtype="chat")
    romeo.xmpp.send_presence(pto=UPLOAD)
    check("ping afterwards", (await romeo.ask('<ping xmlns="urn:xmpp:ping"/>')).get("type"), "result")
    check("messages received", romeo.messages.qsize(), 0)
