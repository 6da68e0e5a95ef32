"""An S3 client of a few lines: requests that are signed in their query, with AWS Signature Version 4."""

import hashlib
import hmac
import time
import urllib.parse
import xml.etree.ElementTree as ET
from collections import namedtuple

from .base import PATIENCE, check
from .http import http_request

Access = namedtuple("Access", "access_key secret_key")

XML = "{http://s3.amazonaws.com/doc/2006-03-01/}"


def quote(text, safe=""):
    return urllib.parse.quote(text, safe=safe + "-._~")


def presign(endpoint, access, region, method, path, query=(), headers=(), lifetime=300, at=None):
    """The signed URL of a request. The given headers are signed, and have to be sent as they are."""
    date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at))
    scope = f"{date[:8]}/{region}/s3/aws4_request"
    fields = {"host": urllib.parse.urlsplit(endpoint).netloc} | {k.lower(): str(v) for k, v in dict(headers).items()}
    names = ";".join(sorted(fields))
    query = dict(query) | {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256", "X-Amz-Credential": f"{access.access_key}/{scope}", "X-Amz-Date": date,
        "X-Amz-Expires": str(lifetime), "X-Amz-SignedHeaders": names,
    }
    query = "&".join(f"{quote(name)}={quote(value)}" for name, value in sorted(query.items()))
    path = quote(path, "/")
    lines = "".join(f"{name}:{fields[name].strip()}\n" for name in sorted(fields))
    request = "\n".join([method, path, query, lines, names, "UNSIGNED-PAYLOAD"])
    text = "\n".join(["AWS4-HMAC-SHA256", date, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = ("AWS4" + access.secret_key).encode()
    for part in (*scope.split("/"), text):
        key = hmac.digest(key, part.encode(), "sha256")
    return f"{endpoint}{path}?{query}&X-Amz-Signature={key.hex()}"


def error_code(reply):
    """The code in an error answer; None if there is none."""
    return ET.fromstring(reply.body).findtext("Code") if reply.body.startswith(b"<") else None


class Bucket:
    """A bucket as one user sees it."""

    def __init__(self, store, name, access):
        self.store, self.name, self.access = store, name, access

    def url(self, method, key="", **options):
        path = f"/{self.name}/{key}" if key else f"/{self.name}"
        return presign(self.store.endpoint, self.access, self.store.region, method, path, **options)

    async def request(self, method, key="", body=None, query=(), headers=(), timeout=PATIENCE, **options):
        headers = dict(headers) | ({"Content-Length": len(body)} if body is not None else {})
        url = self.url(method, key, query=query, headers=headers, **options)
        return await http_request(method, url, body=body, headers=headers, timeout=timeout)

    async def keys(self, prefix="", page=1000, after=None):
        """All keys with a prefix, or those that follow another one, page by page."""
        found, token = [], None
        start = {"start-after": after} if after else {}
        while True:
            query = {"list-type": "2", "prefix": prefix, "max-keys": str(page), "encoding-type": "url"}
            reply = await self.request("GET", query=query | ({"continuation-token": token} if token else start))
            check("list", reply.status, 200)
            result = ET.fromstring(reply.body)
            keys = [urllib.parse.unquote_plus(key.text) for key in result.iterfind(f"{XML}Contents/{XML}Key")]
            assert len(keys) <= page, f"{len(keys)} keys on a page of {page}"
            found += keys
            token = result.findtext(f"{XML}NextContinuationToken")
            if result.findtext(f"{XML}IsTruncated") != "true":
                return found
