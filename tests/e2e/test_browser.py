"""Uploads that try to run script in a real browser.

Each is visited on three servers: an unprotected one, where its script must run; an upslot with defaults, which offers it
as a download; and an upslot that displays all types, where only the Content-Security-Policy stops the script.
"""

import asyncio
import json

from browser import UnprotectedServer, Beacon, Site, browser
from browser_payloads import ACTIVE, Payload, escaped, in_gif, payloads, pdf, plain_script
from harness import LONG, check, test


# The number of pages that load at the same time.
AT_ONCE = 4


def ran(page, beacon, id):
    """The traces of a script of this name: console lines, dialogs, a request to the beacon."""
    traces = [text for text in page.console + page.dialogs if f"RAN {id}" in text]
    return traces + (["a request to the beacon"] if id in beacon.hits else [])


async def on_pages(window, work, items):
    """Calls `work(page, item)` for all items, on several pages at the same time."""
    waiting = list(items)[::-1]

    async def one():
        page = await window.page()
        while waiting:
            await work(page, waiting.pop())

    await asyncio.gather(*(one() for _ in range(AT_ONCE)))


async def upload_everywhere(sites, number, payload, beacon):
    """Uploads a payload to each server, under different report names; returns pairs of name and URL."""
    placed = []
    for label, site in zip("xyz", sites):
        id = f"{label}{number}x"
        body = payload.body(id, beacon.url)
        body = body.encode() if isinstance(body, str) else body
        url = site.add(id, body, payload.type) if isinstance(site, UnprotectedServer) else await site.upload(
            payload.name, body, payload.type)
        placed.append((id, url))
    return placed


@test(servers=(None,), deadline=900 if LONG else 180)
async def no_upload_runs_script(case):
    window, bare, beacon = await browser(case), await UnprotectedServer().start(case), await Beacon().start(case)
    sites = [bare, await Site.start(case), await Site.start(case, safe_file_types=ACTIVE)]
    seen = []

    async def one(page, item):
        number, payload = item
        (free, url), *others = await upload_everywhere(sites, number, payload, beacon)
        if payload.runs:
            await page.visit(url)
            await page.until(lambda: ran(page, beacon, free), f"{payload.name} {payload.type} on the unprotected server")
            seen.append(payload)
        for id, url in others:
            await page.visit(url)
            await page.settle()
            assert not ran(page, beacon, id), f"{payload.name} {payload.type} ran: {ran(page, beacon, id)} at {url}"
            if not page.downloads:
                title = await page.run("document.title")
                assert title != "RAN", f"{payload.name} {payload.type}: its title is {title}"

    chosen = payloads()
    await on_pages(window, one, enumerate(chosen))
    # Scripts that run late, and scripts of pages that were left.
    await asyncio.sleep(1)
    late = {id for id in beacon.hits if not id.startswith("x")}
    assert not late, f"script called from {late}"
    check("payloads that ran on the unprotected server", len(seen), sum(p.runs for p in chosen))


@test(servers=(None,), deadline=180)
async def pdf_script_runs_only_if_pdfs_are_displayed(case):
    """By default a PDF is downloaded, so that no script in it runs. If the operator allows it to be displayed, Chromium's
    viewer runs its scripts in its own sandbox, whatever the policy says. They can only open dialogs: no request is sent,
    and the page stays what and where it is."""
    window, bare, beacon = await browser(case), await UnprotectedServer().start(case), await Beacon().start(case)
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
        check("location and type of the page", await page.run("location.href + ' ' + document.contentType"),
              f"{url} application/pdf")
        assert not page.console and not page.downloads and id not in beacon.hits, (page.console, page.downloads)
        await page.close()


def embedding(urls):
    """A page that embeds the URLs in every way."""
    parts = []
    for url in urls:
        url = escaped(url)
        parts.append(f'<iframe src="{url}"></iframe><object data="{url}"></object><embed src="{url}">'
                     f'<img src="{url}"><link rel="stylesheet" href="{url}"><video src="{url}"></video>'
                     f'<object data="{url}" type="image/svg+xml"></object>'
                     f'<svg><use href="{url}#a"/><image href="{url}"/></svg>')
    return "<!DOCTYPE html><title>other</title>" + "".join(parts)


def loading(urls):
    """A page that loads the URLs as scripts in every way."""
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


@test(servers=(None,), deadline=600 if LONG else 180)
async def no_upload_runs_script_in_other_pages(case):
    """Pages of other origins embed uploads, and a page of the same origin loads them as scripts."""
    window, bare, beacon = await browser(case), await UnprotectedServer().start(case), await Beacon().start(case)
    stock, every = await Site.start(case), await Site.start(
        case, safe_file_types=[type for type in ACTIVE if "javascript" not in type])
    foreign = await UnprotectedServer().start(case)
    ids, urls = {}, {site: [] for site in (bare, stock, every)}
    for number, payload in enumerate(payloads()):
        for site, (id, url) in zip(urls, await upload_everywhere([bare, stock, every], number, payload, beacon)):
            ids[id] = payload
            urls[site].append(url)
    page = await window.page()
    await page.visit(foreign.add("frames", embedding(urls[bare]), "text/html"))
    frames = [id for id, payload in ids.items() if id.startswith("x") and payload.runs]
    await page.until(lambda: all(ran(page, beacon, id) for id in frames), "scripts of the unprotected server in frames")
    for site in (stock, every):
        page = await window.page()
        await page.visit(foreign.add("frames", embedding(urls[site]), "text/html"))
        await page.settle()
        for id, payload in ids.items():
            if not id.startswith("x"):
                assert not ran(page, beacon, id), f"{payload.name} {payload.type}: {ran(page, beacon, id)} in a frame"

    # Files with and without a script type, loaded as scripts.
    scripts = [Payload(name, type, plain_script, runs, True) for name, type, runs in (
        ("a.js", "text/javascript", True), ("a.mjs", None, False), ("a.js", "application/x-javascript; x=y", True),
        ("a.txt", "text/plain", True), ("a.bin", "application/octet-stream", True), ("a", None, True),
        ("a.json", "application/json", False), ("a.html", "text/html", True), ("a.css", "text/css", False))]
    scripts += [Payload("a.gif", "image/gif", in_gif, False, True), Payload("a.bin", "x/y", in_gif, True, True)]
    for origin, site in (("x", bare), ("y", stock), ("z", every)):
        names, where = [], []
        for number, payload in enumerate(scripts):
            # The letter tells the three servers apart.
            id = f"{origin}{number}s"
            body = payload.body(id, beacon.url)
            body = body if isinstance(body, bytes) else body.encode()
            names.append(id)
            where.append(bare.add(id, body, payload.type) if site is bare else await site.upload(
                payload.name, body, payload.type))
        home = (bare.url if site is bare else site.up.url) + "app.html"
        page = await window.page()
        await page.intercept(home, loading(where))
        await page.visit(home)
        done = await page.run("loadAll()")
        await page.settle()
        if site is bare:
            for id, payload in zip(names, scripts):
                assert not payload.runs or ran(page, beacon, id), f"{payload.type} does not run as script"
            kinds = {line.split(" http")[0] for line in done}
            check("ways to load script", kinds, {"import", "service worker", "importScripts"})
        else:
            check("loaded scripts", done, [])
            for id, payload in zip(names, scripts):
                assert not ran(page, beacon, id), f"{payload.name} {payload.type}: {ran(page, beacon, id)} as script"
    late = {id for id in beacon.hits if not id.startswith("x")}
    assert not late, f"script called from {late}"
