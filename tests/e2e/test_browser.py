"""Uploads that try to run in a real browser, and those that should be seen in it.

Each of the dangerous ones is visited on three servers: a bare one, where it must be seen to run; upslot as it comes,
where it is saved and not shown; and an upslot that was told to show everything, where the policy of the answers alone
stands between the upload and its script.
"""

import asyncio
import base64
import json
import struct
import urllib.parse
import zlib
from collections import namedtuple

import harness
from browser import Bare, Beacon, browser
from harness import ACCOUNTS, OTHER_DOMAIN, DOMAIN, check, content, free_port, get, http_request, test

# Everything that a browser could make a document of.
ACTIVE = ["text/html", "application/xhtml+xml", "image/svg+xml", "text/xml", "application/xml", "text/xsl",
          "application/xslt+xml", "application/rss+xml", "application/mathml+xml", "image/x-evil+xml",
          "multipart/x-mixed-replace", "multipart/related", "message/rfc822", "text/javascript",
          "application/pdf", "text/plain", "application/wasm", "text/css", "application/x-shockwave-flash", "image/*",
          "video/*", "audio/*"]

# Pages that load at a time: there are few processors.
AT_ONCE = 4

# What is uploaded: `body` makes it out of the name under which its script reports, and the listener's URL. `runs` says
# whether a bare server must be seen to let it run; what does not run there either shows nothing about upslot, but must
# not run on it. `always`: in the short form, too.
Payload = namedtuple("Payload", "name type body runs always")


def script(id, way, beacon):
    return (f"console.log('RAN {id} {way}');try{{document.title='RAN'}}catch(e){{}};"
            f"fetch('{beacon}hit-{id}',{{mode:'no-cors'}})")


def escaped(text):
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;").replace("'", "&#39;")


def embedded(text, type="text/html"):
    """A document in a URL."""
    return f"data:{type};base64,{base64.b64encode(text.encode()).decode()}"


def html(id, beacon):
    """A page that tries every way there is."""
    def run(way):
        return escaped(script(id, way, beacon))

    def page(way):
        return f"<script>{script(id, way, beacon)}</script>"

    return f"""<!DOCTYPE html><html><head><title>{id}</title>
<script>{script(id, "script", beacon)}</script>
<script src="{embedded(script(id, "data", beacon), "text/javascript")}"></script>
<script type="module">{script(id, "module", beacon)}</script>
<script src="?"></script><link rel="import" href="?">
<style>@import "javascript:{run('import')}";</style>
<meta http-equiv="Content-Security-Policy" content="script-src * 'unsafe-inline' 'unsafe-eval' data: blob:">
<base href="javascript:/a/-{run('base')}//">
</head><body onload="{run('onload')}" onpageshow="{run('onpageshow')}">
<img src="data:," onerror="{run('onerror')}"><svg onload="{run('svg')}"><script>{run('svgscript')}</script>
<animate onbegin="{run('animate')}" attributeName="x" dur="1s"/></svg>
<iframe srcdoc="{escaped(page("srcdoc"))}"></iframe>
<iframe src="javascript:{run('javascript')}"></iframe>
<iframe src="{embedded(page("dataframe"))}"></iframe><object data="{embedded(page("object"))}"></object>
<embed src="javascript:{run('embed')}">
<input autofocus onfocus="{run('onfocus')}"><details open ontoggle="{run('ontoggle')}"></details>
<video><source onerror="{run('source')}"></video><marquee onstart="{run('marquee')}"></marquee>
</body></html>"""


def xhtml(id, beacon):
    return (f'<html xmlns="http://www.w3.org/1999/xhtml"><head><title>{id}</title></head><body>'
            f'<script>{escaped(script(id, "xhtml", beacon))}</script></body></html>')


def svg(id, beacon):
    def run(way):
        return escaped(script(id, way, beacon))

    space = 'xmlns="http://www.w3.org/2000/svg"'
    used = embedded(f"<svg id='a' {space}><script>{script(id, 'use', beacon)}</script></svg>", "image/svg+xml")
    inside = escaped(f"<script>{script(id, 'foreign', beacon)}</script>")
    return f"""<svg {space} xmlns:xlink="http://www.w3.org/1999/xlink" onload="{run("onload")}">
<script>{run("script")}</script><image href="x:" onerror="{run("image")}"/>
<foreignObject width="9" height="9"><iframe xmlns="http://www.w3.org/1999/xhtml" srcdoc="{inside}"/></foreignObject>
<use xlink:href="{used}#a"/><set attributeName="x" onbegin="{run("set")}"/>
<a xlink:href="javascript:{run("a")}"><rect width="99" height="99"/></a></svg>"""


def xslt(id, beacon):
    """A document that is its own stylesheet."""
    return (f'<?xml version="1.0"?><?xml-stylesheet type="text/xsl" href="#s"?><!DOCTYPE d [<!ATTLIST xsl:stylesheet id ID '
            f'#REQUIRED>]><d><xsl:stylesheet id="s" version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform">'
            f'<xsl:template match="/"><html><body><script>{escaped(script(id, "xslt", beacon))}</script></body></html>'
            f'</xsl:template></xsl:stylesheet><h:script xmlns:h="http://www.w3.org/1999/xhtml">'
            f'{escaped(script(id, "beside", beacon))}</h:script></d>')


def pdf(id, beacon):
    code = f"app.alert('RAN {id}'); try {{ app.launchURL('{beacon}hit-{id}'); }} catch (e) {{}}"
    code = code.replace("(", "\\(").replace(")", "\\)")
    return (f"%PDF-1.7\n1 0 obj<</Type/Catalog/Pages 2 0 R/OpenAction<</S/JavaScript/JS({code})>>>>endobj\n"
            f"2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]"
            f"/AA<</O<</S/JavaScript/JS({code})>>>>>>endobj\ntrailer<</Root 1 0 R>>\n")


def png(more=b"", side=3):
    """A small picture; `more` stands in it as text."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + b"\x40\x80\xc0" * side) * side
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
            + (chunk(b"tEXt", b"Comment\0" + more) if more else b"")
            + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def message(id, beacon):
    """A page in a mail."""
    return ("MIME-Version: 1.0\r\nContent-Type: multipart/related; boundary=b; type=\"text/html\"\r\n\r\n--b\r\n"
            f"Content-Type: text/html\r\n\r\n{html(id, beacon)}\r\n--b--\r\n")


def replacing(id, beacon):
    """A page that a picture's server might replace by the next."""
    part = "--b\r\nContent-Type: text/html\r\n\r\n"
    return f"{part}{html(id, beacon)}\r\n{part}.\r\n--b--\r\n"


def plain_script(id, beacon):
    return script(id, "js", beacon)


def in_gif(id, beacon):
    """A GIF by its first bytes, and script by the same: they are the name of a variable."""
    return b"GIF89a/*" + bytes(8) + b"*/=1;" + script(id, "gif", beacon).encode()


def in_png(id, beacon):
    return png(f"<html><body><script>{script(id, 'png', beacon)}</script>".encode())


def in_jpeg(id, beacon):
    return b"\xff\xd8\xff\xe0\0\x10JFIF\0" + html(id, beacon).encode()


def payloads():
    made = []

    def add(name, types, body, runs=False, always=False):
        made.extend(Payload(name, type, body, runs, always) for type in types)

    # As what they are: by type in all spellings, by extension alone, under another one's extension.
    add("page.html", ["text/html", "text/html\t"], html, runs=True, always=True)
    add("page.html", ["text/html;", "TEXT/HTML", "text/html; charset=utf-8", 'text/html; charset="utf-8"; x=y',
                      "text/html;charset=utf-7", None, ""], html, runs=True)
    add("page.jpg", ["text/html"], html, runs=True)
    add("page.xhtml", ["application/xhtml+xml"], xhtml, runs=True, always=True)
    add("page.xml", ["text/xml", "application/xml"], xhtml, runs=True)
    add("page.xml", ["application/rss+xml", "image/x-evil+xml", "application/mathml+xml", None], xhtml)
    add("style.xml", ["application/xml"], xslt, runs=True, always=True)
    add("style.xml", ["text/xml"], xslt, runs=True)
    add("style.xsl", ["text/xsl", "application/xslt+xml", None], xslt)
    add("picture.svg", ["image/svg+xml"], svg, runs=True, always=True)
    add("picture.svg", ["image/svg+xml; charset=utf-8", "IMAGE/SVG+XML", "image/svg+xml;x"], svg, runs=True)
    add("picture.svgz", ["image/svg+xml"], svg, runs=True)
    add("picture.svg", [None, "image/svg"], svg)
    # As what they are not: sniffed, if anything.
    add("noextension", [None], html, runs=True, always=True)
    add("noextension", ["unknown/unknown", "application/unknown"], html, runs=True)
    add("page.html", ["text/plain"], html, always=True)
    add("page.html", ["text/plain; charset=utf-7", "application/octet-stream", "image/png", "image/jpeg", "image/gif",
                      "video/mp4", "audio/mpeg", "application/pdf", "text/css", "application/json", "text/vtt",
                      "application/x-shockwave-flash", "application/wasm", "x/y", "text/htm"], html)
    for name, type in (("a.gif", "image/gif"), ("a.png", "image/png"), ("a.jpg", "image/jpeg"), ("a", None),
                       ("a.txt", "text/plain")):
        add(name, [type], in_gif, always=type == "image/gif")
        add(name, [type], in_png, always=type == "image/png")
        add(name, [type], in_jpeg, always=type == "image/jpeg")
    # In what holds other things, and as what is no document.
    add("page.mhtml", ["multipart/related; boundary=b"], message, always=True)
    add("page.mht", ["message/rfc822"], message)
    add("page.mix", ["multipart/x-mixed-replace; boundary=b"], replacing)
    add("page.js", ["text/javascript", "application/javascript", None], plain_script)
    # Under names that are more than names.
    add('"><script>console.log(1)</script>.html', ["text/html"], html, runs=True)
    add("javascript:console.log(1)%0a.html", ["text/html"], html, runs=True)
    add("\u202elmth.gpj", ["text/html"], html, runs=True)
    return [payload for payload in made if payload.always or harness.LONG]


class Site:
    """An upslot and how uploads get into it, the way of an XMPP server with the slot API."""

    def __init__(self, up, api):
        self.up, self.api = up, api

    @classmethod
    async def start(cls, case, **settings):
        api = free_port()
        up = await case.upslot(api={"port": api}, whitelist=[DOMAIN, OTHER_DOMAIN], fsync=False, **settings)
        return cls(up, api)

    async def upload(self, name, body, type):
        """The GET URL."""
        fields = {"jid": ACCOUNTS[0], "name": name, "size": len(body)} | ({"content_type": type} if type else {})
        slot = await get(f"http://127.0.0.1:{self.api}/slot/?{urllib.parse.urlencode(fields)}")
        assert slot.status == 200, slot
        put_url, get_url = slot.body.decode().split("\n")
        headers = {"Content-Type": type} if type is not None else {}
        reply = await http_request("PUT", put_url, body, headers=headers)
        assert reply.status == 201, (name, type, reply)
        return get_url


def ran(page, beacon, id):
    """What tells that script of this name ran, or tried to."""
    told = [text for text in page.console + page.dialogs if f"RAN {id}" in text]
    return told + (["a call to the listener"] if id in beacon.hits else [])


async def in_turns(window, work, items):
    """Does work for each with a page of its own, some at once."""
    waiting = list(items)[::-1]

    async def one():
        page = await window.page()
        while waiting:
            await work(page, waiting.pop())

    await asyncio.gather(*(one() for _ in range(AT_ONCE)))


async def put_everywhere(sites, number, payload, beacon):
    """A payload on each of the servers, each with a name of its own for its reports: names and URLs."""
    placed = []
    for label, site in zip("xyz", sites):
        id = f"{label}{number}x"
        body = payload.body(id, beacon.url)
        body = body.encode() if isinstance(body, str) else body
        url = site.add(id, body, payload.type) if isinstance(site, Bare) else await site.upload(
            payload.name, body, payload.type)
        placed.append((id, url))
    return placed


@test(servers=(None,), deadline=900 if harness.LONG else 180)
async def uploads_do_not_run(case):
    window, bare, beacon = await browser(case), await Bare().start(case), await Beacon().start(case)
    sites = [bare, await Site.start(case), await Site.start(case, safe_file_types=ACTIVE)]
    seen = []

    async def one(page, item):
        number, payload = item
        (free, url), *others = await put_everywhere(sites, number, payload, beacon)
        if payload.runs:
            await page.visit(url)
            await page.until(lambda: ran(page, beacon, free), f"{payload.name} {payload.type} run on a bare server")
            seen.append(payload)
        for id, url in others:
            await page.visit(url)
            await page.settle()
            assert not ran(page, beacon, id), f"{payload.name} {payload.type} ran: {ran(page, beacon, id)} at {url}"
            if not page.downloads:
                title = await page.run("document.title")
                assert title != "RAN", f"{payload.name} {payload.type}: its title is {title}"

    chosen = payloads()
    await in_turns(window, one, enumerate(chosen))
    # Late ones, and those of a page that was left.
    await asyncio.sleep(1)
    late = {id for id in beacon.hits if not id.startswith("x")}
    assert not late, f"script called from {late}"
    check("payloads that were seen to run where nothing protects", len(seen), sum(p.runs for p in chosen))


@test(servers=(None,), deadline=180)
async def script_in_a_pdf_runs_only_where_pdfs_are_shown(case):
    """A PDF is saved, so that nothing in it runs. Where the operator lets it be shown, Chromium's viewer runs what it
    brings, in a box of its own, whatever the answer's policy is. What it may is to open a dialog: no call goes out, and
    the page stays what and where it is."""
    window, bare, beacon = await browser(case), await Bare().start(case), await Beacon().start(case)
    stock, shown = await Site.start(case), await Site.start(case, safe_file_types=["application/pdf"])
    page = await window.page()
    await page.visit(await stock.upload("paper.pdf", pdf("zpdf", beacon.url).encode(), "application/pdf"))
    await page.settle()
    check("saved as", [download["name"] for download in page.downloads.values()], ["paper.pdf"])
    assert not page.dialogs and not page.console and "zpdf" not in beacon.hits, (page.dialogs, page.console)
    await page.close()
    for site in (bare, shown):
        id = "xpdf" if site is bare else "ypdf"
        body = pdf(id, beacon.url).encode()
        url = bare.add(id, body, "application/pdf") if site is bare else await shown.upload(
            "paper.pdf", body, "application/pdf")
        page = await window.page()
        await page.visit(url)
        await page.until(lambda: len(page.dialogs) > 1, "both scripts of the PDF")
        await page.settle()
        check("where the page is", await page.run("location.href + ' ' + document.contentType"),
              f"{url} application/pdf")
        assert not page.console and not page.downloads and id not in beacon.hits, (page.console, page.downloads)
        await page.close()


# What another page does with an upload.
def embedding(urls):
    """Shows each of them in every way in which a document shows another, or loads it."""
    parts = []
    for url in urls:
        url = escaped(url)
        parts.append(f'<iframe src="{url}"></iframe><object data="{url}"></object><embed src="{url}">'
                     f'<img src="{url}"><link rel="stylesheet" href="{url}"><video src="{url}"></video>'
                     f'<object data="{url}" type="image/svg+xml"></object>'
                     f'<svg><use href="{url}#a"/><image href="{url}"/></svg>')
    return "<!DOCTYPE html><title>other</title>" + "".join(parts)


def loading(urls):
    """Loads each of them as script, in every way."""
    tags = "".join(f'<script src="{escaped(url)}"></script><script type="module" src="{escaped(url)}"></script>'
                   for url in urls)
    return f"""<!DOCTYPE html><title>other</title>{tags}<script>
const urls = {json.dumps(urls)};
async function loadAll() {{
    const done = [];
    for (const url of urls) {{
        await import(url).then(() => done.push("import " + url), () => 0);
        for (const type of ["classic", "module"]) {{
            await new Promise(resolve => {{
                try {{
                    const worker = new Worker(url, {{type}});
                    worker.onerror = resolve;
                    setTimeout(resolve, 150);
                }} catch (error) {{ resolve(); }}
            }});
            if (navigator.serviceWorker) {{
                const scope = new URL("./", url).pathname;
                await navigator.serviceWorker.register(url, {{type, scope}}).then(
                    () => done.push("service worker " + url), () => 0);
            }}
        }}
        const helper = new Blob(["importScripts(" + JSON.stringify(url) + ");postMessage(1)"],
            {{type: "text/javascript"}});
        await new Promise(resolve => {{
            const worker = new Worker(URL.createObjectURL(helper));
            worker.onmessage = () => {{ done.push("importScripts " + url); resolve(); }};
            worker.onerror = resolve;
        }});
    }}
    return done;
}}
</script>"""


@test(servers=(None,), deadline=600 if harness.LONG else 180)
async def other_pages_make_no_upload_run(case):
    """Pages of other origins that show uploads, and a page of the same origin that loads them as script."""
    window, bare, beacon = await browser(case), await Bare().start(case), await Beacon().start(case)
    stock, every = await Site.start(case), await Site.start(
        case, safe_file_types=[type for type in ACTIVE if "javascript" not in type])
    foreign = await Bare().start(case)
    ids, urls = {}, {site: [] for site in (bare, stock, every)}
    for number, payload in enumerate(payloads()):
        for site, (id, url) in zip(urls, await put_everywhere([bare, stock, every], number, payload, beacon)):
            ids[id] = payload
            urls[site].append(url)
    page = await window.page()
    await page.visit(foreign.add("frames", embedding(urls[bare]), "text/html"))
    frames = [id for id, payload in ids.items() if id.startswith("x") and payload.runs]
    await page.until(lambda: all(ran(page, beacon, id) for id in frames), "uploads of a bare server run in frames")
    for site in (stock, every):
        page = await window.page()
        await page.visit(foreign.add("frames", embedding(urls[site]), "text/html"))
        await page.settle()
        for id, payload in ids.items():
            if not id.startswith("x"):
                assert not ran(page, beacon, id), f"{payload.name} {payload.type}: {ran(page, beacon, id)} in a frame"

    # As script: what is none by its type, and what is.
    scripts = [Payload(name, type, plain_script, runs, True) for name, type, runs in (
        ("a.js", "text/javascript", True), ("a.mjs", None, False), ("a.js", "application/x-javascript; x=y", True),
        ("a.txt", "text/plain", True), ("a.bin", "application/octet-stream", True), ("a", None, True),
        ("a.json", "application/json", False), ("a.html", "text/html", True), ("a.css", "text/css", False))]
    scripts += [Payload("a.gif", "image/gif", in_gif, False, True), Payload("a.bin", "x/y", in_gif, True, True)]
    for origin, site in (("x", bare), ("y", stock), ("z", every)):
        names, where = [], []
        for number, payload in enumerate(scripts):
            # All three are told apart by their letter.
            id = f"{origin}{number}s"
            body = payload.body(id, beacon.url)
            body = body if isinstance(body, bytes) else body.encode()
            names.append(id)
            where.append(bare.add(id, body, payload.type) if site is bare else await site.upload(
                payload.name, body, payload.type))
        home = (bare.url if site is bare else site.up.url) + "app.html"
        page = await window.page()
        await page.own(home, loading(where))
        await page.visit(home)
        done = await page.run("loadAll()")
        await page.settle()
        if site is bare:
            for id, payload in zip(names, scripts):
                assert not payload.runs or ran(page, beacon, id), f"{payload.type} does not run as script"
            kinds = {line.split(" http")[0] for line in done}
            check("ways to load script", kinds, {"import", "service worker", "importScripts"})
        else:
            check("script that was loaded", done, [])
            for id, payload in zip(names, scripts):
                assert not ran(page, beacon, id), f"{payload.name} {payload.type}: {ran(page, beacon, id)} as script"
    late = {id for id in beacon.hits if not id.startswith("x")}
    assert not late, f"script called from {late}"


# What should be seen -------------------------------------------------------------------------------------------------

# The smallest AVIF: two by two.
AVIF = base64.b64decode(
    "AAAAIGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZk1BMUIAAADybWV0YQAAAAAAAAAoaGRscgAAAAAAAAAAcGljdAAAAAAAAAAAAAAAAGxpYmF2aWYAAAAA"
    "DnBpdG0AAAAAAAEAAAAeaWxvYwAAAABEAAABAAEAAAABAAABGgAAAB0AAAAoaWluZgAAAAAAAQAAABppbmZlAgAAAAABAABhdjAxQ29sb3IAAAAAamlw"
    "cnAAAABLaXBjbwAAABRpc3BlAAAAAAAAAAIAAAACAAAAEHBpeGkAAAAAAwgICAAAAAxhdjFDgQ0MAAAAABNjb2xybmNseAACAAIAAYAAAAAXaXBtYQAA"
    "AAAAAAABAAEEAQKDBAAAACVtZGF0EgAKCBgANogQEAwgMg8f8D///8WfhwB8+ErK42A=")


def wav(seconds, rate=8000):
    """A tone."""
    samples = bytes(128 + (64 if n // 20 % 2 else -64) for n in range(rate)) * seconds
    return (b"RIFF" + struct.pack("<I", 36 + len(samples)) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, rate, rate,
            1, 8) + b"data" + struct.pack("<I", len(samples)) + samples)


def ebml(id, *parts):
    """One element of Matroska, with its size in eight bytes."""
    body = b"".join(part if isinstance(part, bytes) else part.to_bytes(8, "big") for part in parts)
    return bytes.fromhex(id) + (len(body) | 1 << 56).to_bytes(8, "big") + body


def webm(frames, side, seconds, padding):
    """A film of one VP8 key frame per second, each with so much padding that a player must ask for its pieces."""
    head = ebml("1A45DFA3", ebml("4286", 1), ebml("42F7", 1), ebml("42F2", 4), ebml("42F3", 8), ebml("4282", b"webm"),
                ebml("4287", 2), ebml("4285", 2))
    info = ebml("1549A966", ebml("2AD7B1", 1_000_000), ebml("4489", struct.pack(">d", seconds * 1000)),
                ebml("4D80", b"t"), ebml("5741", b"t"))
    tracks = ebml("1654AE6B", ebml("AE", ebml("D7", 1), ebml("73C5", 1), ebml("83", 1), ebml("86", b"V_VP8"),
                                   ebml("E0", ebml("B0", side), ebml("BA", side))))
    clusters = [ebml("1F43B675", ebml("E7", second * 1000), ebml("A3", b"\x81\0\0\x80", frame),
                     ebml("EC", bytes(padding))) for second, frame in enumerate(frames)]

    def cues(start):
        points = []
        for second, cluster in enumerate(clusters):
            points.append(ebml("BB", ebml("B3", second * 1000), ebml("B7", ebml("F7", 1), ebml("F1", start))))
            start += len(cluster)
        return ebml("1C53BB6B", *points)

    start = len(info + tracks) + len(cues(0))
    return head + ebml("18538067", info, tracks, cues(start), *clusters)


ENCODE = """(async () => {
    const canvas = new OffscreenCanvas(64, 64), pen = canvas.getContext("2d"), frames = [];
    const encoder = new VideoEncoder({error: e => console.log("" + e), output: chunk => {
        const bytes = new Uint8Array(chunk.byteLength);
        chunk.copyTo(bytes);
        frames.push(btoa(String.fromCharCode(...bytes)));
    }});
    encoder.configure({codec: "vp8", width: 64, height: 64});
    for (let second = 0; second < SECONDS; second++) {
        pen.fillStyle = `rgb(${second * 4}, 128, 64)`;
        pen.fillRect(0, 0, 64, 64);
        const frame = new VideoFrame(canvas, {timestamp: second * 1e6, duration: 1e6});
        encoder.encode(frame, {keyFrame: true});
        frame.close();
    }
    await encoder.flush();
    return frames;
})()"""

PICTURE = """(type => new Promise((resolve, reject) => {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 5;
    canvas.getContext("2d").fillRect(1, 1, 2, 2);
    canvas.toBlob(blob => blob.type === type ? blob.arrayBuffer().then(
        buffer => resolve(btoa(String.fromCharCode(...new Uint8Array(buffer))))) : reject(blob.type), type);
}))"""

SEEK = """(async place => {
    const media = document.querySelector("video, audio");
    if (media.readyState < 1) await new Promise(resolve => media.onloadedmetadata = resolve);
    const duration = media.duration;
    const sought = new Promise(resolve => media.onseeked = resolve);
    media.currentTime = place;
    await sought;
    const played = new Promise(resolve => media.ontimeupdate = () => media.currentTime > place && resolve());
    await media.play();
    await played;
    media.pause();
    return [duration, media.videoWidth || 0, media.error === null];
})"""


@test(servers=(None,), deadline=180)
async def pictures_films_and_sound_are_shown(case):
    window, stock = await browser(case), await Site.start(case, max_file_size=64 * harness.MIB)
    other = await Bare().start(case)
    page = await window.page()
    await page.visit(other.add("studio", "<title>studio</title>", "text/html"))
    pictures = {"p.png": ("image/png", png(), 3), "p.avif": ("image/avif", AVIF, 2),
                "p.gif": ("image/gif", base64.b64decode("R0lGODlhAQABAAAAACwAAAAAAQABAAACAUwAOw=="), 1)}
    for type in ("image/jpeg", "image/webp"):
        made = base64.b64decode(await page.run(f"{PICTURE}({json.dumps(type)})"))
        pictures["p." + type[6:]] = (type, made, 5)
    seconds = 40
    frames = [base64.b64decode(frame) for frame in await page.run(ENCODE.replace("SECONDS", str(seconds)))]
    film = webm(frames, 64, seconds, 512 * harness.KIB)

    for name, (type, body, side) in pictures.items():
        url = await stock.upload(name, body, type)
        await page.visit(url)
        check(f"{type} in a tab", await page.run("[document.contentType, document.images[0].naturalWidth]"),
              [type, side])
        await page.visit(other.add("shows", f"<img id=i src='{url}'>", "text/html"))
        check(f"{type} in another's page", await page.run("i.naturalWidth"), side)

    for name, type, body, last, width in (("film.webm", "video/webm", film, 35, 64),
                                          ("tone.wav", "audio/wav", wav(600), 590, 0)):
        url = await stock.upload(name, body, type)
        for where in (url, other.add("plays", f"<video src='{url}' preload=metadata></video>", "text/html")):
            page.responses.clear()
            await page.visit(where)
            duration, wide, sound = await page.run(f"{SEEK}({last})")
            assert abs(duration - (seconds if width else 600)) < 1.5, duration
            check(f"{type} after seeking", [wide, sound], [width, True])
            parts = [(request.get("headers", {}).get("Range"), answer["status"]) for request, answer in page.responses
                     if answer["url"] == url]
            far = [part for part, status in parts if status == 206 and part and int(part[6:].split("-")[0]) > 100_000]
            assert far, f"{type} was not asked for in pieces: {parts}"

    url = await stock.upload("note.txt", b"a note <b>in plain</b> words\n", "text/plain")
    await page.visit(url)
    check("text in a tab", await page.run("[document.contentType, document.body.innerText.trim()]"),
          ["text/plain", "a note <b>in plain</b> words"])
    check("downloads", page.downloads, {})


@test(servers=(None,), deadline=120)
async def text_is_read_as_it_was_written(case):
    """The browser is told which text is UTF-8, and left to guess where it is not."""
    window, stock, bare = await browser(case), await Site.start(case), await Bare().start(case)
    page = await window.page()
    text = "Grüße ☕"
    read = "[document.characterSet, document.body.innerText.trim()]"
    # Without a charset it is garbled: what is shown below is upslot's doing.
    await page.visit(bare.add("garbled", text.encode(), "text/plain"))
    charset, shown = await page.run(read)
    assert shown != text, (charset, shown)
    long = "\n".join([text] * 20_000)
    for name, body, type, expected in [
            ("note.txt", text.encode(), "text/plain", ["UTF-8", text]),
            ("untyped.txt", text.encode(), None, ["UTF-8", text]),
            ("note.bin", text.encode(), "text/plain; format=flowed", ["UTF-8", text]),
            ("marked.txt", b"\xef\xbb\xbf" + text.encode(), "text/plain", ["UTF-8", text]),
            ("long.txt", long.encode(), "text/plain", ["UTF-8", long]),
            ("latin.txt", "Grüße".encode("latin-1"), "text/plain", ["windows-1252", "Grüße"]),
            ("koi8.txt", "Привет".encode("koi8-r"), "text/plain; charset=koi8-r", ["KOI8-R", "Привет"])]:
        await page.visit(await stock.upload(name, body, type))
        check(name, await page.run(read), expected)
    # Files that were there before, and are not known better than by a look into them.
    folder = stock.up.store / harness.owner_folder(ACCOUNTS[0]) / "abcdefghijklm"
    folder.mkdir(parents=True)
    for name, body, expected in [("old.txt", long.encode(), ["UTF-8", long]),
                                 ("old-latin.txt", "Grüße".encode("latin-1"), ["windows-1252", "Grüße"])]:
        (folder / name).write_bytes(body)
        await page.visit(stock.up.url + str((folder / name).relative_to(stock.up.store)))
        check(name, await page.run(read), expected)
    check("downloads", page.downloads, {})


@test(servers=(None,), deadline=120)
async def saved_under_its_own_name(case):
    window, stock = await browser(case), await Site.start(case)
    # What Chromium itself takes out of a name becomes an underscore.
    names = {"très cool 💚 日本.zip": None, "page.html": None, "picture.svg": None, "a;b=c, d'e.bin": None,
             "100%25 sure.bin": None, "a\"b\\c.bin": "a_b_c.bin", "<b>.bin": "_b_.bin", "x" * 200 + ".zip": None}
    body = content(10_000)
    for name, offered in names.items():
        folder = stock.up.store / harness.owner_folder(ACCOUNTS[0]) / "abcdefghijklm"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)
        page = await window.page()
        await page.visit(stock.up.url + urllib.parse.quote(str((folder / name).relative_to(stock.up.store))))
        await page.until(lambda: [d for d in page.downloads.values() if d["state"] == "completed"], "the download")
        (guid, saved), = page.downloads.items()
        check("the name offered", saved["name"], offered or name)
        check("whether all bytes were saved", (window.downloads / guid).read_bytes() == body, True)
        await page.close()
