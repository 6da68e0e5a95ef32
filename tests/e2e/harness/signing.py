"""Upload links as XMPP servers sign them, and as upslot signs its own."""

import base64
import hashlib
import hmac
import time
import urllib.parse


def external_url(up, path, size, secret):
    """The PUT URL of mod_http_upload_external, version 1; such a link does not expire."""
    tag = hmac.new(secret.encode(), f"{path} {size}".encode(), hashlib.sha256).hexdigest()
    return f"{up.url}{urllib.parse.quote(path)}?v={tag}"


def own_slot_target(path, size, secret):
    """The request target of a PUT in a slot of upslot itself, signed as src/slot/own.rs describes."""
    end = int(time.time()) + 3600
    message = b"\0".join([b"upslot1", path.encode(), b"%d" % size, b"%d" % end, b"0", b"-"])
    tag = base64.urlsafe_b64encode(hmac.digest(secret.encode(), message, "sha256")).decode().rstrip("=")
    return f"/{path}?size={size}&until={end}&sig={tag}"
