"""Uploads that a real browser displays or saves: images, video, audio, text, and the name of a download."""

import base64
import json
import struct
import urllib.parse

from browser import UnprotectedServer, Site, browser
from browser_payloads import png
from harness import ACCOUNTS, KIB, MIB, check, content, owner_folder, test


# An AVIF of two by two pixels.
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
    """A Matroska element, with its size in eight bytes."""
    body = b"".join(part if isinstance(part, bytes) else part.to_bytes(8, "big") for part in parts)
    return bytes.fromhex(id) + (len(body) | 1 << 56).to_bytes(8, "big") + body


def webm(frames, side, seconds, padding):
    """A video with one VP8 key frame per second, padded so much that a player must request ranges."""
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

IMAGE = """(type => new Promise((resolve, reject) => {
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
async def images_video_and_audio(case):
    window, stock = await browser(case), await Site.start(case, max_file_size=64 * MIB)
    other = await UnprotectedServer().start(case)
    page = await window.page()
    await page.visit(other.add("studio", "<title>studio</title>", "text/html"))
    images = {"p.png": ("image/png", png(), 3), "p.avif": ("image/avif", AVIF, 2),
                "p.gif": ("image/gif", base64.b64decode("R0lGODlhAQABAAAAACwAAAAAAQABAAACAUwAOw=="), 1)}
    for type in ("image/jpeg", "image/webp"):
        made = base64.b64decode(await page.run(f"{IMAGE}({json.dumps(type)})"))
        images["p." + type[6:]] = (type, made, 5)
    seconds = 40
    frames = [base64.b64decode(frame) for frame in await page.run(ENCODE.replace("SECONDS", str(seconds)))]
    video = webm(frames, 64, seconds, 512 * KIB)

    for name, (type, body, side) in images.items():
        url = await stock.upload(name, body, type)
        await page.visit(url)
        check(f"{type} in a tab", await page.run("[document.contentType, document.images[0].naturalWidth]"),
              [type, side])
        await page.visit(other.add("shows", f"<img id=i src='{url}'>", "text/html"))
        check(f"{type} in a page of another origin", await page.run("i.naturalWidth"), side)

    for name, type, body, last, width in (("video.webm", "video/webm", video, 35, 64),
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
            assert far, f"{type} was requested without ranges: {parts}"

    url = await stock.upload("note.txt", b"a note <b>in plain</b> words\n", "text/plain")
    await page.visit(url)
    check("text in a tab", await page.run("[document.contentType, document.body.innerText.trim()]"),
          ["text/plain", "a note <b>in plain</b> words"])
    check("downloads", page.downloads, {})


@test(servers=(None,), deadline=60)
async def page_for_people(case):
    """The page at `/`, whose policy allows its style sheet."""
    window = await browser(case)
    site = await Site.start(case, contact="mailto:a&b@example.org", terms_url="https://example.org/terms")
    page = await window.page()
    await page.visit(site.up.url)
    host = f"127.0.0.1:{site.up.port}"
    check("page", await page.run("[document.contentType, document.title, document.links[1].href, document.links[2].href]"),
          ["text/html", f"{host}: XMPP file upload", "mailto:a&b@example.org", "https://example.org/terms"])
    check("style", await page.run("getComputedStyle(document.querySelector('dd')).marginBottom"), "8px")


@test(servers=(None,), deadline=120)
async def text_has_its_charset(case):
    """Text that is valid UTF-8 is sent as UTF-8; for other text the browser guesses."""
    window, stock, bare = await browser(case), await Site.start(case), await UnprotectedServer().start(case)
    page = await window.page()
    text = "Grüße ☕"
    read = "[document.characterSet, document.body.innerText.trim()]"
    # Without a charset the browser garbles it.
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
    # Files of another program, for which upslot must look into the content.
    folder = stock.up.store / owner_folder(ACCOUNTS[0]) / "abcdefghijklm"
    folder.mkdir(parents=True)
    for name, body, expected in [("old.txt", long.encode(), ["UTF-8", long]),
                                 ("old-latin.txt", "Grüße".encode("latin-1"), ["windows-1252", "Grüße"])]:
        (folder / name).write_bytes(body)
        await page.visit(stock.up.url + str((folder / name).relative_to(stock.up.store)))
        check(name, await page.run(read), expected)
    check("downloads", page.downloads, {})


@test(servers=(None,), deadline=120)
async def downloads_keep_their_name(case):
    window, stock = await browser(case), await Site.start(case)
    # Chromium replaces some characters by underscores.
    names = {"très cool 💚 日本.zip": None, "page.html": None, "picture.svg": None, "a;b=c, d'e.bin": None,
             "100%25 sure.bin": None, "a\"b\\c.bin": "a_b_c.bin", "<b>.bin": "_b_.bin", "x" * 200 + ".zip": None}
    body = content(10_000)
    for name, offered in names.items():
        folder = stock.up.store / owner_folder(ACCOUNTS[0]) / "abcdefghijklm"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)
        page = await window.page()
        await page.visit(stock.up.url + urllib.parse.quote(str((folder / name).relative_to(stock.up.store))))
        await page.until(lambda: [d for d in page.downloads.values() if d["state"] == "completed"], "the download")
        (guid, saved), = page.downloads.items()
        check("offered name", saved["name"], offered or name)
        check("saved completely", (window.downloads / guid).read_bytes() == body, True)
        await page.close()
