"""`--check-config --online` and `upslot doctor` against real object stores: a good one passes, and what is wrong is named with
its cause and its remedy."""

import asyncio
import glob
import json
import os
import re
from pathlib import Path

from buckets import files, section, virtual_host, with_bucket
from harness import (DOMAIN, ENVIRONMENT, SECRET, Bucket, Garage, Process, check, free_port, port_open, run, test)

PAGE = Path(__file__).resolve().parents[2] / "contrib" / "docs" / "object-store.md"

# Commands that run at the same time.
AT_ONCE = 8

# A skipped check is not about this configuration.
USUALLY_SKIPPED = {"store-endpoint", "store-url-type"}


class Examined:
    """What a command found: by check, the status, the problem and the whole line."""

    def __init__(self, ran):
        self.code, self.text = ran.code, ran.out.decode() + ran.err
        lines = re.findall(r"(?m)^((ok|notice|fail|skipped) +(\S+) +(?:.*?\. \[([a-z0-9.-]+)\] Remedy: )?.*)$", self.text)
        self.checks = {name: (status, problem, line) for line, status, name, problem in lines}

    def named(self):
        """The checks that complain, with their problems."""
        return {(name, problem) for name, (status, problem, _) in self.checks.items() if status in ("fail", "notice")}


class Checker:
    """Runs the command with configurations that differ in the section `s3`."""

    def __init__(self, case, store):
        self.folder, self.authority, self.count = case.folder, case.authority, 0
        self.limit, self.store = asyncio.Semaphore(AT_ONCE), store

    async def online(self, bucket, before=(), env=(), web=True, **settings):
        self.count += 1
        config, url = self.folder / f"online-{self.count}.yml", "http://127.0.0.1:1/"
        config.write_text(json.dumps({
            "api": {"address": "127.0.0.1", "port": 1}, "whitelist": [DOMAIN], "slot_secret": SECRET, "get_url": url,
            "put_url": url, "allow_web_clients": web, "s3": section(bucket, **settings)}))
        async with self.limit:
            ran = await run([*before, os.environ["UPSLOT_BIN"], "-c", config, "--check-config", "--online"],
                            env=ENVIRONMENT | dict(env), timeout=60)
        return Examined(ran)

    async def good(self, what, bucket, **options):
        found = await self.online(bucket, **options)
        skipped = {name for name, (status, *_) in found.checks.items() if status == "skipped"}
        may_be_skipped = USUALLY_SKIPPED if options.get("web", True) else USUALLY_SKIPPED | {"store-cors"}
        assert found.code == 0 and not found.named() and skipped <= may_be_skipped, f"{what}: {found.text}"

    async def bad(self, what, check, problem, part, bucket, **options):
        """The check fails with this problem, and its line contains `part`."""
        found = await self.online(bucket, **options)
        status, named, line = found.checks[check]
        assert (found.code, status, named) == (1, "fail", problem) and part in line, f"{what}: {found.text}"
        return found


def shifted(seconds):
    """A wrapper with another wall clock."""
    library, = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
    return ["env", f"LD_PRELOAD={library}", f"FAKETIME={seconds:+d}s", "FAKETIME_DONT_FAKE_MONOTONIC=1",
            "DONT_FAKE_MONOTONIC=1"]


async def proxy(case, store):
    """A web server at one port, and at another one a reverse proxy that does not pass `Host`."""
    folder, site, port = case.folder / "nginx", free_port(), free_port()
    folder.mkdir()
    paths = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(
        ("user root;\n" if os.geteuid() == 0 else "") +
        f"daemon off;\nerror_log stderr;\npid {folder}/pid;\nevents {{ }}\nhttp {{\naccess_log off;\n{paths}"
        f"server {{ listen 127.0.0.1:{site}; location / {{ return 200 'It works!'; }} }}\n"
        f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {store.endpoint}; }} }}\n}}\n")
    process = await Process.start("nginx", ["nginx", "-e", "stderr", "-p", folder, "-c", folder / "nginx.conf"])
    case.ends(type("Proxy", (), {"process": process})())
    await port_open(port, process)
    return f"http://127.0.0.1:{site}", f"http://127.0.0.1:{port}"


async def lacks(checker, store, right, name):
    bucket = await store.bucket_without(right)
    return await checker.bad(f"no right to {right}", name, "store-denied", f"the right to {right}", bucket, web=False)


async def cors(checker, store):
    """The remedy holds the rules; with them, nothing is left to complain about."""
    bucket = await store.bucket()
    owned, direct = store.owned(bucket), {"put": "direct"}
    only_one = json.dumps({"CORSRules": [{"AllowedOrigins": ["https://web.example"], "AllowedMethods": ["GET", "PUT"],
                                          "AllowedHeaders": ["content-type"]}]})
    # SeaweedFS allows everything if there are no rules.
    found = await checker.online(bucket, **direct)
    if store.name != "seaweedfs":
        check("no rules", (found.code, found.named()), (0, {("store-cors", "store-no-cors")}))
        assert "send PUT" in found.checks["store-cors"][2], found.text
    await set_cors(store, owned, only_one)
    found = await checker.online(bucket, **direct)
    check("one origin", (found.code, found.named()), (0, {("store-cors", "store-no-cors")}))
    line = found.checks["store-cors"][2]
    assert "with Origin: null" in line and f"--endpoint-url {store.endpoint} " in line, line
    rules = re.search(r"--cors-configuration '(.*?)'", line)[1]
    check("rules of the page", json.loads(rules), json.loads(documented("`cors.json`:")))
    await set_cors(store, owned, rules)
    await checker.good("as the remedy says", bucket, **direct)


async def set_cors(store, owned, rules):
    """What `aws s3api put-bucket-cors` does."""
    tags = {"AllowedOrigins": "AllowedOrigin", "AllowedMethods": "AllowedMethod", "AllowedHeaders": "AllowedHeader"}
    parts = ""
    for rule in json.loads(rules)["CORSRules"]:
        for name, values in rule.items():
            for value in values if isinstance(values, list) else [values]:
                parts += f"<{tags.get(name, name)}>{value}</{tags.get(name, name)}>"
    text = f"<CORSConfiguration><CORSRule>{parts}</CORSRule></CORSConfiguration>"
    check("CORS", (await store.configure(owned, "cors", text)).status, 200)


async def examine(case, kind, rights):
    """`rights` are those that the engine can withhold, with the check that names each."""
    store = await case.object_store(kind)
    bucket, checker = await store.bucket(cors=True), Checker(case, store)
    secret, plain = bucket.access.secret_key, store.endpoint
    site, other_host = await proxy(case, store)
    unknown = {"endpoint": plain.replace("http:", "https:")}
    named, in_hosts = virtual_host(bucket, case.folder)
    wrong = [
        ("secret", "store-list", "store-signature", "secret_key", {"secret_key": secret[:-1] + "x"}),
        ("access key", "store-list", "store-access-key", "access_key", {"access_key": "GK" + "0123456789ab" * 2}),
        ("scheme", "store-list", "store-scheme", f"write {plain} in s3.endpoint", unknown),
        ("public scheme", "store-endpoint", "store-scheme", f"write {plain} in s3.endpoint",
         {**unknown, "internal_endpoint": plain}),
        ("web server", "store-list", "store-answer", "the S3 interface", {"endpoint": site}),
        ("nothing", "store-list", "store-unreachable", "port", {"endpoint": f"http://127.0.0.1:{free_port()}"}),
        ("Host", "store-url-put", "store-signature", "`Host`",
         {"endpoint": other_host, "internal_endpoint": plain, "put": "direct"}),
        ("slow clock", "store-list", "store-clock", "Set the clocks", {"before": shifted(-1200)}),
        ("fast clock", "store-clock", "store-clock", "Set the clocks", {"before": shifted(1200)}),
        ("name of the host", "store-list", "store-unreachable", "path_style: true", named),
    ]
    runs = [checker.bad(what, name, problem, part, bucket, **settings) for what, name, problem, part, settings in wrong]
    runs.append(checker.bad("bucket", "store-list", "store-bucket", "Create the bucket",
                            Bucket(store, "nothing-here", bucket.access)))
    runs += [checker.good("relayed", bucket), checker.good("direct", bucket, put="direct"), cors(checker, store)]
    runs += [lacks(checker, store, right, name) for right, name in rights.items()]
    if store.domain:
        runs.append(checker.good("bucket in the host", bucket, put="direct", before=in_hosts, **named))
    else:
        runs.append(checker.bad("bucket in the host", "store-list", "store-host-name", "-s3.domainName", bucket,
                                before=in_hosts, **named))
    await asyncio.gather(*runs, other_port(checker, store, bucket))
    check("left behind", await bucket.keys(), [])
    return store, bucket, checker


async def other_port(checker, store, bucket):
    """A port of the engine that is not that of S3."""
    found = await checker.online(bucket, endpoint=f"http://127.0.0.1:{store.other_port}")
    status, problem, line = found.checks["store-list"]
    assert (found.code, status) == (1, "fail") and problem in ("store-answer", "store-unreachable"), found.text
    assert "port" in line or "S3 interface" in line, line


def documented(before):
    """The block of JSON that follows this text of the documentation."""
    page = PAGE.read_text()
    assert before in page, f"the page does not contain {before!r}"
    return re.search(r"```json\n(.*?)```", page[page.index(before):], re.S)[1].strip()


async def documented_policies(checker, store):
    """The policies of the page are all that upslot needs."""
    bucket = await store.bucket()
    owned = store.owned(bucket)
    own, public = documented("For Ceph, it is a policy"), documented("For `get: public`, add a statement")
    policy = json.loads(own.replace(":::uploads", f":::{bucket.name}"))

    async def set_policy():
        check("policy", (await store.configure(owned, "policy", json.dumps(policy))).status, 204)

    settings = {"get": "public", "public_url": f"{store.endpoint}/{bucket.name}/"}
    await set_policy()
    await checker.good("policy of the page", bucket, web=False)
    await checker.bad("private bucket", "store-anonymous", "store-public-url", "a policy", bucket, **settings)
    policy["Statement"].append(json.loads(public.replace(":::uploads", f":::{bucket.name}")))
    await set_policy()
    await checker.good("public policy of the page", bucket, web=False, **settings)


@test(servers=("prosody",), deadline=150)
async def ceph(case):
    store, bucket, checker = await examine(
        case, "ceph", {"list": "store-list", "write": "store-put", "delete": "store-delete"})
    secure, authority = f"https://127.0.0.1:{store.tls_port}", str(case.authority.pem)
    trusted = {"endpoint": secure, "ca_file": authority}
    await asyncio.gather(
        checker.bad("plain", "store-list", "store-scheme", f"write {secure} in s3.endpoint", bucket,
                    endpoint=secure.replace("https:", "http:")),
        checker.bad("unknown authority", "store-list", "store-unreachable", "`ca_file`", bucket, endpoint=secure),
        # What upslot trusts, clients do not.
        checker.bad("private authority", "store-endpoint", "tls-unknown-issuer", "clients do not have the authority", bucket, **trusted),
        checker.good("private authority of all", bucket, env={"SSL_CERT_FILE": authority}, **trusted),
        checker.good("for upslot only", bucket, endpoint=store.endpoint, internal_endpoint=secure, ca_file=authority),
        checker.good("region", bucket, region="mars-1"),
        documented_policies(checker, store),
    )
    up = await with_bucket(case, bucket)
    doctor = Examined(await run([os.environ["UPSLOT_BIN"], "-c", up.config, "doctor"], env=ENVIRONMENT, timeout=60))
    check("doctor", (doctor.code, doctor.named()), (0, set()))
    assert doctor.checks["download"][0] == doctor.checks["upload"][0] == "ok", doctor.text
    check("left behind", await files(bucket), set())


@test(servers=(None,), deadline=100)
async def seaweedfs(case):
    await examine(case, "seaweedfs", {"list": "store-list", "write": "store-put", "read": "store-head"})


@test(servers=(None,), deadline=100)
async def garage(case):
    if not Garage.program():
        print("NOT TESTED: there is no program garage; `tests/run garage` builds one")
        return
    _, bucket, checker = await examine(case, "garage", {"read": "store-head", "write": "store-put"})
    await checker.bad("region", "store-list", "store-region", "`region`", bucket, region="us-east-1")
