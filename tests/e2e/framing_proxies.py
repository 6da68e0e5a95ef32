"""nginx and HAProxy before a relay that records what they send to upslot, and a strict HTTP reader for the record."""

import asyncio
import contextlib
import json
import os
import re
from collections import Counter, namedtuple

from harness import PATIENCE, Process, free_port, port_open


class Malformed(Exception):
    """Bytes that no strict reader accepts as a request."""


def read_fields(data, at):
    """The request line and the fields of a head, and the offset of its end."""
    end = data.find(b"\r\n\r\n", at)
    if end < 0:
        raise Malformed("no end of the head")
    lines = data[at:end].split(b"\r\n")
    if any(re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", line) for line in lines):
        raise Malformed("a control character")
    fields = []
    for line in lines[1:]:
        if not (found := re.fullmatch(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*", line, re.S)):
            raise Malformed(f"no field: {line!r}")
        fields.append((found[1].lower(), found[2]))
    return lines[0], fields, end + 4


def read_body(data, at, fields):
    """The body that follows a head, and the offset of its end."""
    lengths = [value for name, value in fields if name == b"content-length"]
    codings = [value for name, value in fields if name == b"transfer-encoding"]
    if codings:
        if lengths or len(codings) > 1 or codings[0].lower() != b"chunked":
            raise Malformed("a coding beside something else")
        body = b""
        while True:
            end = data.find(b"\r\n", at)
            if end < 0 or not (found := re.fullmatch(rb"([0-9A-Fa-f]{1,16})[ \t]*(;.*)?", data[at:end], re.S)):
                raise Malformed("no size of a chunk")
            size, at = int(found[1], 16), end + 2
            if not size:
                break
            if data[at + size:at + size + 2] != b"\r\n":
                raise Malformed("a chunk without its end")
            body, at = body + data[at:at + size], at + size + 2
        while not data.startswith(b"\r\n", at):
            end = data.find(b"\r\n", at)
            if end < 0:
                raise Malformed("trailers without an end")
            at = end + 2
        return body, at + 2
    if len(lengths) > 1 or lengths and not re.fullmatch(rb"[0-9]+", lengths[0]):
        raise Malformed("lengths")
    size = int(lengths[0]) if lengths else 0
    if at + size > len(data):
        raise Malformed("a body cut short")
    return data[at:at + size], at + size


def read_requests(data):
    """The complete requests on a connection, as (method, target, fields, body); a last one with an incomplete or
    malformed body, without the body; and the error."""
    requests, at = [], 0
    while at < len(data):
        partial = []
        try:
            line, fields, behind = read_fields(data, at)
            if not (found := re.fullmatch(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([^ ]+) HTTP/1\.[01]", line)):
                raise Malformed(f"no request line: {line!r}")
            partial = [(found[1].decode(), found[2], fields, None)]
            body, at = read_body(data, behind, fields)
        except Malformed as malformed:
            malformed.method = data[at:].lstrip(b"\r\n").split(b" ")[0].decode("latin-1")
            malformed.head = data[at:].split(b"\r\n\r\n")[0] + b"\r\n"
            return requests, partial, malformed
        requests.append((found[1].decode(), found[2], fields, body))
    return requests, [], None


def read_answers(data, methods):
    """The final answers on a connection, as (status, whether it closes the connection, body)."""
    answers, at = [], 0
    while at < len(data):
        line, fields, at = read_fields(data, at)
        status = int(re.fullmatch(rb"HTTP/1\.1 (\d{3}) .*", line)[1])
        if status < 200:
            continue
        to_head = len(answers) < len(methods) and methods[len(answers)] == "HEAD"
        body = b""
        if not to_head and status not in (204, 304):
            body, at = read_body(data, at, fields)
        answers.append((status, (b"connection", b"close") in fields, body))
    return answers


class Relay:
    """A proxy before upslot that records both directions of every connection."""

    def __init__(self, port_behind):
        self.port, self.port_behind, self.connections = free_port(), port_behind, []

    async def start(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", self.port)

    async def serve(self, reader, writer):
        there, back = bytearray(), bytearray()
        self.connections.append((there, back))
        behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", self.port_behind)

        async def copy(source, sink, kept):
            with contextlib.suppress(ConnectionError):
                while data := await source.read(65536):
                    kept += data
                    sink.write(data)
                    await sink.drain()
                sink.write_eof()

        try:
            await asyncio.gather(copy(reader, behind_writer, there), copy(behind_reader, writer, back))
        finally:
            for one in (writer, behind_writer):
                one.close()


# The proxies ---------------------------------------------------------------------------------------------------------

class Proxies:
    """An nginx and an HAProxy with several configurations, all of which forward to the relay."""

    NAMES = ("nginx", "nginx, HTTP/1.0", "nginx, buffering, lenient", "haproxy", "haproxy, lenient")

    def __init__(self, case, relay_port):
        self.folder = case.folder / "proxies"
        self.folder.mkdir()
        self.ports = [free_port() for _ in self.NAMES]
        forward = "proxy_pass http://relay; proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header Forwarded '';"
        kept = f"{forward} proxy_http_version 1.1; proxy_set_header Connection '';"
        first, second, third, fourth, fifth = self.ports
        paths = "".join(f"{kind}_temp_path {self.folder}/{kind};\n"
                        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (self.folder / "nginx.conf").write_text(
            ("user root;\n" if os.geteuid() == 0 else "") + f"""
daemon off;
error_log stderr error;
pid {self.folder}/nginx.pid;
events {{ }}
http {{
{paths}
log_format forwarded escape=json
    '{{"log": "nginx", "client": "$remote_addr", "method": "$request_method", "path": "$uri", "status": "$status", '
    '"upstream": "$upstream_status"}}';
access_log /dev/stdout forwarded;
client_max_body_size 0;
client_body_timeout 5s;
client_header_timeout 5s;
proxy_ignore_client_abort on;
upstream relay {{ server 127.0.0.1:{relay_port} max_fails=0; keepalive 4; }}
server {{ listen 127.0.0.1:{first}; location / {{ {kept} proxy_request_buffering off; }} }}
server {{ listen 127.0.0.1:{second}; location / {{ {forward} }} }}
server {{
    listen 127.0.0.1:{third};
    underscores_in_headers on;
    ignore_invalid_headers off;
    merge_slashes off;
    location / {{ {kept} }}
}}
}}
""")
        (self.folder / "haproxy.cfg").write_text(f"""
global
    log stdout format raw local0
defaults
    mode http
    log global
    timeout connect 5s
    timeout client 5s
    timeout server 10s
    http-reuse always
    option forwardfor
    log-format '{{"log": "haproxy", "client": "%ci", "method": "%HM", "status": "%ST", "server": "%s", "ends": "%ts"}}'
frontend strict
    bind 127.0.0.1:{fourth}
    http-request del-header X-Forwarded-For
    default_backend relay
frontend lenient
    bind 127.0.0.1:{fifth}
    option accept-invalid-http-request
    http-request del-header X-Forwarded-For
    default_backend relay
backend relay
    server relay 127.0.0.1:{relay_port}
""")

    async def start(self, case):
        self.nginx = await Process.start(
            "nginx", ["nginx", "-e", "stderr", "-p", self.folder, "-c", self.folder / "nginx.conf"])
        self.haproxy = await Process.start("haproxy", ["haproxy", "-db", "-f", self.folder / "haproxy.cfg"])
        for process in (self.nginx, self.haproxy):
            case.ends(namedtuple("Started", "process")(process))
        for port in self.ports:
            await port_open(port, self.nginx if port in self.ports[:3] else self.haproxy)

    def forwarded(self):
        """The requests that upslot answered, according to the proxies' logs: numbers by client and method, and the log
        entries by client."""
        numbers, paths = Counter(), {}
        for line in self.nginx.lines + self.haproxy.lines:
            if not line.startswith('{"log"'):
                continue
            entry = json.loads(line)
            upstream = entry.get("upstream", "").split(", ")[-1]
            if entry.get("server") == "relay":
                upstream = entry["status"]
            if upstream.isdigit() and upstream != "502":
                numbers[entry["client"], entry["method"]] += 1
                paths.setdefault(entry["client"], []).append(entry)
        return numbers, paths


async def send(port, address, text):
    """Sends the bytes from this address, shuts down the sending side, and reads until the proxy closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    answer = b""
    try:
        writer.write(text)
        writer.write_eof()
        while data := await asyncio.wait_for(reader.read(65536), PATIENCE):
            answer += data
    except OSError:
        # A proxy that refuses may close before it has read everything.
        pass
    finally:
        writer.transport.abort()
    return answer
