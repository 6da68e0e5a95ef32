"""Uploads that try to run script: pages, images, XML, PDFs, and files that are two formats at once."""

import base64
import struct
import zlib
from collections import namedtuple

from harness import LONG


# All types that a browser could show as a document.
ACTIVE = ["text/html", "application/xhtml+xml", "image/svg+xml", "text/xml", "application/xml", "text/xsl",
          "application/xslt+xml", "application/rss+xml", "application/mathml+xml", "image/x-evil+xml",
          "multipart/x-mixed-replace", "multipart/related", "message/rfc822", "text/javascript",
          "application/pdf", "text/plain", "application/wasm", "text/css", "application/x-shockwave-flash", "image/*",
          "video/*", "audio/*"]


# An upload: `body` makes its content from the name under which its script reports and the URL of the beacon. `runs` is
# true if the script must run on the unprotected server; otherwise the payload proves nothing there, but must not run on
# upslot either. Payloads with `always` are part of the short form of the test.
Payload = namedtuple("Payload", "name type body runs always")


def script(id, way, beacon):
    return (f"console.log('RAN {id} {way}');try{{document.title='RAN'}}catch(e){{}};"
            f"fetch('{beacon}hit-{id}',{{mode:'no-cors'}})")


def escaped(text):
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;").replace("'", "&#39;")


def embedded(text, type="text/html"):
    """A data URL."""
    return f"data:{type};base64,{base64.b64encode(text.encode()).decode()}"


def html(id, beacon):
    """A page that tries to run script in every way."""
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
    """A small image; `more` is in its text chunk."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + b"\x40\x80\xc0" * side) * side
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
            + (chunk(b"tEXt", b"Comment\0" + more) if more else b"")
            + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def message(id, beacon):
    """A page in a MIME message."""
    return ("MIME-Version: 1.0\r\nContent-Type: multipart/related; boundary=b; type=\"text/html\"\r\n\r\n--b\r\n"
            f"Content-Type: text/html\r\n\r\n{html(id, beacon)}\r\n--b--\r\n")


def replacing(id, beacon):
    """A page in a stream of parts that replace each other."""
    part = "--b\r\nContent-Type: text/html\r\n\r\n"
    return f"{part}{html(id, beacon)}\r\n{part}.\r\n--b--\r\n"


def plain_script(id, beacon):
    return script(id, "js", beacon)


def in_gif(id, beacon):
    """A GIF whose first bytes are also the name of a variable in a script."""
    return b"GIF89a/*" + bytes(8) + b"*/=1;" + script(id, "gif", beacon).encode()


def in_png(id, beacon):
    return png(f"<html><body><script>{script(id, 'png', beacon)}</script>".encode())


def in_jpeg(id, beacon):
    return b"\xff\xd8\xff\xe0\0\x10JFIF\0" + html(id, beacon).encode()


def payloads():
    made = []

    def add(name, types, body, runs=False, always=False):
        made.extend(Payload(name, type, body, runs, always) for type in types)

    # With their own type in all spellings, with the extension only, and with the extension of another type.
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
    add("image.svg", ["image/svg+xml"], svg, runs=True, always=True)
    add("image.svg", ["image/svg+xml; charset=utf-8", "IMAGE/SVG+XML", "image/svg+xml;x"], svg, runs=True)
    add("image.svgz", ["image/svg+xml"], svg, runs=True)
    add("image.svg", [None, "image/svg"], svg)
    # With a wrong type, for browsers that sniff.
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
    # In containers, and as types that are not documents.
    add("page.mhtml", ["multipart/related; boundary=b"], message, always=True)
    add("page.mht", ["message/rfc822"], message)
    add("page.mix", ["multipart/x-mixed-replace; boundary=b"], replacing)
    add("page.js", ["text/javascript", "application/javascript", None], plain_script)
    # Under names that contain markup, URLs or direction marks.
    add('"><script>console.log(1)</script>.html', ["text/html"], html, runs=True)
    add("javascript:console.log(1)%0a.html", ["text/html"], html, runs=True)
    add("\u202elmth.gpj", ["text/html"], html, runs=True)
    return [payload for payload in made if payload.always or LONG]
