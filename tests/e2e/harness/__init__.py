"""The basis of the end-to-end tests: real XMPP servers, the real program, real clients.

A test is an `async def` that takes a `Case` and is marked with `@test`. The case starts what the test asks for (an
upslot, a client, a raw connection) and stops all of it at the end, whether the test passed or not. The XMPP servers of the
`Group` are shared by all tests; a test that restarts or configures its server starts one of its own.

Nothing sleeps in the hope that something has happened: every wait is for a log line, an open port, a stanza or a
condition, and has a deadline.

base        names, the marker, assertions, waiting
processes   child processes and ports
servers     Prosody, ejabberd, the certification authority
program     upslot itself
tracing     its system calls, observed and made to fail
isolation   mounts, namespaces and users
http        HTTP requests by Python, by curl, byte by byte
local_api   slots, health and metrics from the local API
signing     upload links as other servers sign them
clients     XMPP clients
s3          an S3 client
object_stores, ceph
            SeaweedFS, Garage and Ceph
cases       one test while it runs
"""

from .base import (ACCOUNTS, DOMAIN, KIB, LONG, MIB, NAMESPACES, OTHER_DOMAIN, PASSWORD, PATIENCE, SECRET, STANZAS,
                   UPLOAD, check, content, owner_folder, short, test, until)
from .cases import Case
from .ceph import Ceph
from .clients import Client, Refusal, Slot, refusal_of, slot_request, upload
from .http import RawConnection, Reply, curl, get, http_request, put
from .isolation import (NOBODY, UNPRIVILEGED, fill, nsenter, open_folder, unshare, with_mounted_store,
                        with_small_store)
from .local_api import api_url, health, metric, quiet_upslot, request_slot, slot_from_api, until_slots_are
from .object_stores import Garage, ObjectStore, SeaweedFS
from .processes import Process, Ran, free_port, port_open, run
from .program import ENVIRONMENT, Upslot
from .s3 import Access, Bucket, error_code, presign
from .servers import Authority, Ejabberd, Group, Prosody
from .signing import base64url, delete_url, external_url, file_share_token, own_slot_target
from .tracing import Call, Faults, Strace, traced

