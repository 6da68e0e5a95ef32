"""Upload links as XMPP servers sign them, and as upslot signs its own."""

import base64
import hashlib
import hmac
import json
import time
import urllib.parse


def base64url(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def external_url(up, path, size, secret):
    """The PUT URL of mod_http_upload_external, version 1; such a link does not expire."""
    tag = hmac.new(secret.encode(), f"{path} {size}".encode(), hashlib.sha256).hexdigest()
    return f"{up.url}{urllib.parse.quote(path)}?v={tag}"


def delete_url(up, path, secret, delete_secret):
    """The URL of a signed DELETE; it does not expire."""
    tag = hmac.new(secret.encode(), f"{path}\0{delete_secret}".encode(), hashlib.sha256).hexdigest()
    return f"{up.url}{urllib.parse.quote(path)}?token={tag}"


def file_share_token(jid, slot, name, size, secret, type=None):
    """The bearer token of mod_http_file_share, a JSON Web Token."""
    now = int(time.time())
    claims = {"slot": slot, "iat": now, "exp": now + 600, "sub": jid, "filename": name, "filesize": size}
    claims |= {"filetype": type} if type else {}
    signed = ".".join(base64url(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
    return f"{signed}.{base64url(hmac.digest(secret.encode(), signed.encode(), 'sha256'))}"


def own_slot_target(path, size, secret):
    """The request target of a PUT in a slot of upslot itself, signed as src/slot/own.rs describes."""
    end = int(time.time()) + 3600
    message = b"\0".join([b"upslot1", path.encode(), b"%d" % size, b"%d" % end, b"0", b"-"])
    tag = base64url(hmac.digest(secret.encode(), message, "sha256"))
    return f"/{path}?size={size}&until={end}&sig={tag}"
