"""`upslot doctor` against real proxies with right and with wrong settings: each wrong setting is named.

One upslot runs behind one nginx, one Apache, one Caddy and one HAProxy, each with a site per setting, on a port of its
own. The doctor runs once per site, with a configuration that differs from upslot's only in put_url and get_url.
"""

import asyncio
import glob
import json
import os
import shutil
import socket
import subprocess

from harness import ENVIRONMENT, MIB, NOBODY, PATIENCE, Process, check, free_port, port_open, run, test, until
from test_proxy import SITES, Nginx

# Doctors that run at the same time; they mostly wait.
AT_ONCE = 16

FILE_SHARE_SECRET = "a secret of mod_http_file_share"

# The site whose URL upslot itself has. The doctor must notice that upslot behind the others names another one.
RIGHT = "nginx right"

# The names of the checks that are skipped behind every site here: no component, no api.
ALWAYS_SKIPPED = {"component", "api"}


# Checks that are not made unless earlier ones succeed.
MAY_BE_ABSENT = {"clean-up", "removed-file", "tls-versions"}


class Certificates:
    """An authority with an intermediate, and good and bad certificates."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        self.root = self.authority("root", None)
        self.intermediate = self.authority("intermediate", "root")
        self.good = self.leaf("good")
        self.expired = self.leaf("expired", days=-1)
        self.wrong_name = self.leaf("wrong", names="DNS:other.example")
        self.incomplete = self.leaf("incomplete", chain=False)
        self.self_signed = self.leaf("self", issuer=None)

    def openssl(self, *arguments):
        done = subprocess.run(["openssl", *map(str, arguments)], cwd=self.folder, stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr.decode()

    def request(self, name, subject):
        self.openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout",
                     f"{name}.key", "-out", f"{name}.csr", "-subj", subject)

    def sign(self, name, issuer, days, extensions):
        (self.folder / f"{name}.ext").write_text(extensions)
        by = ["-CA", f"{issuer}.pem", "-CAkey", f"{issuer}.key", "-CAcreateserial"] if issuer \
            else ["-signkey", f"{name}.key"]
        self.openssl("x509", "-req", "-in", f"{name}.csr", *by, "-days", days, "-extfile", f"{name}.ext",
                     "-out", f"{name}.pem")
        return self.folder / f"{name}.pem"

    def authority(self, name, issuer):
        self.request(name, f"/CN=Doctor {name}")
        return self.sign(name, issuer, 60, "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n")

    def leaf(self, name, days=40, names="IP:127.0.0.1,DNS:localhost", issuer="intermediate", chain=True):
        self.request(name, f"/CN={name}.example")
        own = self.sign(name, issuer, days, f"subjectAltName={names}\nbasicConstraints=CA:FALSE\n")
        if issuer and chain:
            own.write_text(own.read_text() + self.intermediate.read_text())
        (self.folder / f"{name}.all").write_text(own.read_text() + (self.folder / f"{name}.key").read_text())
        return own


def has_ipv6():
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
    return True


def key_of(certificate):
    return certificate.with_suffix(".key")


class Proxies:
    """The proxies and their sites: what each site is expected to show."""

    def __init__(self, case, up, below):
        """`below` is an upslot whose URLs have the path /upload/."""
        self.case, self.up, self.below, self.folder = case, up, below, case.folder / "proxies"
        self.folder.mkdir()
        self.certificates = Certificates(case.folder / "certificates")
        self.sites, self.servers = [], []

    def site(self, name, expected, scheme="https", host="127.0.0.1", path="", options=()):
        """Reserves a port for a site, and notes the problems that the doctor has to name."""
        port = self.up.url_port if name == RIGHT else free_port()
        self.sites.append((name, f"{scheme}://{host}:{port}/{path}", set(expected.split()), list(options)))
        return port

    async def start(self, name, argv, ports, **options):
        process = await Process.start(name, argv, **options)
        self.process = process
        self.case.ends(type("Proxy", (), {"process": process})())
        for port in ports:
            await port_open(port, process)
        return process

    # nginx

    def nginx_site(self, name, expected, location="", server="", certificate=None, upstream="http://upslot", tls=True,
                   proxy_pass=None, **more):
        if not tls:
            more.setdefault("scheme", "http")
        port = self.site(f"nginx {name}", expected, **more)
        certificate = certificate or self.certificates.good
        listen = f"listen 127.0.0.1:{port} ssl;\nssl_certificate {certificate};\n" \
                 f"ssl_certificate_key {key_of(certificate)};" if tls else f"listen 127.0.0.1:{port};"
        # The settings of contrib/web/nginx.conf, unless the site sets them.
        defaults = {"client_max_body_size": "0", "proxy_http_version": "1.1", "proxy_request_buffering": "off",
                    "proxy_set_header Connection": '""', "proxy_set_header Host": "$http_host", "gzip": "off"}
        given = location + server
        versions = "" if "ssl_protocols" in given else "ssl_protocols TLSv1.2 TLSv1.3;"
        lines = "".join(f"{key} {value};\n" for key, value in defaults.items() if key + " " not in given)
        self.servers.append(f"server {{\n{listen}\n{versions}\n{server}\nlocation / {{\n"
                            f"{proxy_pass or f'proxy_pass {upstream};'}\n{lines}{location}\n}}\n}}")
        return port

    async def start_nginx(self):
        folder = self.folder / "nginx"
        folder.mkdir()
        certificates, closed = self.certificates, free_port()
        site = self.nginx_site
        site("right", "")
        site("keeps a prefix", "", path="upload/", upstream="http://below")
        site("strips a prefix", "", path="upload/", upstream="http://below",
             server="rewrite ^/upload(/.*)$ $1;")
        site("body limit", "body-limit", "client_max_body_size 1m;")
        site("buffers requests", "request-buffering", "proxy_request_buffering on;")
        site("has no temporary folder", "proxy-error",
             f"proxy_request_buffering on; client_body_temp_path {folder}/gone;")
        site("wrong port", "bad-gateway", upstream=f"http://127.0.0.1:{closed}")
        site("replaces the prefix", "path-changed", upstream="http://below/other/", path="upload/")
        site("hides CORS", "cors-missing", "proxy_hide_header Access-Control-Allow-Origin;")
        site("doubles CORS", "cors-duplicated", "add_header Access-Control-Allow-Origin * always;")
        site("answers OPTIONS", "cors-missing", "if ($request_method = OPTIONS) { return 204; }")
        site("compresses", "compressed etag-weakened length-missing",
             "gzip on; gzip_types text/plain; gzip_proxied any;")
        site("HTTP/1.0", "http-1.0-upstream", "proxy_http_version 1.0;")
        site("redirects to https", "redirect", tls=False,
             proxy_pass="return 301 https://$http_host$request_uri;")
        site("adds a slash", "redirect", server="rewrite ^(.*[^/])$ $1/ permanent;")
        site("refuses methods", "method-refused", "limit_except GET { deny all; }")
        site("drops Authorization", "authorization-dropped", 'proxy_set_header Authorization "";')
        site("decodes names", "name-decoded", proxy_pass="proxy_pass http://upslot$uri$is_args$args;")
        site("hides the policy", "security-field-missing", "proxy_hide_header Content-Security-Policy;")
        site("caches", "cached", f"proxy_cache here; proxy_cache_valid 200 1h;")
        site("asks for a password", "proxy-authentication", f"auth_basic x; auth_basic_user_file {folder}/users;")
        site("cuts slow uploads", "slow-upload-cut", "client_body_timeout 1s;")
        site("TLS 1.2 only", "tls-no-1.3", server="ssl_protocols TLSv1.2;")
        site("TLS 1.3 only", "tls-no-1.2", server="ssl_protocols TLSv1.3;")
        site("expired", "tls-expired", certificate=certificates.expired)
        site("wrong name", "tls-wrong-name", certificate=certificates.wrong_name)
        site("self-signed", "tls-self-signed", certificate=certificates.self_signed)
        site("incomplete chain", "tls-intermediate-missing", certificate=certificates.incomplete)
        self.nginx_site("no TLS at an https URL", "tls-handshake", tls=False, scheme="https")
        if has_ipv6():
            port = site("another IPv6 address", "address-differs", host="localhost")
            good = certificates.good
            self.servers.append(f"server {{\nlisten [::1]:{port} ssl;\nssl_certificate {good};\n"
                                f"ssl_certificate_key {key_of(good)};\nssl_protocols TLSv1.2 TLSv1.3;\n}}")
        (folder / "users").write_text("")
        paths = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi",
                                                                              "scgi"))
        (folder / "nginx.conf").write_text(
            ("user root;\n" if os.geteuid() == 0 else "") +
            f"daemon off;\nerror_log stderr warn;\npid {folder}/nginx.pid;\nevents {{ }}\nhttp {{\naccess_log off;\n"
            f"{paths}proxy_cache_path {folder}/cache keys_zone=here:1m;\n"
            f"upstream upslot {{ server 127.0.0.1:{self.up.port}; keepalive 16; }}\n"
            f"upstream below {{ server 127.0.0.1:{self.below.port}; keepalive 16; }}\n" + "\n".join(self.servers) + "}\n")
        ports = [int(url.split(":")[2].split("/")[0]) for _, url, _, _ in self.sites]
        await self.start("nginx", ["nginx", "-e", "stderr", "-p", folder, "-c", folder / "nginx.conf"], ports)
        shutil.rmtree(folder / "gone")

    # Apache

    async def start_apache(self):
        folder = self.folder / "apache"
        folder.mkdir()
        ports, hosts = [], []

        def site(name, expected, lines="", proxy=None, **more):
            port = self.site(f"Apache {name}", expected, **more)
            ports.append(port)
            good = self.certificates.good
            proxy = proxy or f'ProxyPass "/" "http://127.0.0.1:{self.up.port}/" nocanon'
            hosts.append(f"Listen 127.0.0.1:{port}\n<VirtualHost 127.0.0.1:{port}>\nSSLEngine on\n"
                         f"SSLCertificateFile {good}\nSSLCertificateKeyFile {key_of(good)}\nProxyPreserveHost On\n"
                         f"AllowEncodedSlashes NoDecode\nLimitRequestBody 0\nSetEnv no-gzip 1\n{lines}\n{proxy}\n"
                         "</VirtualHost>")

        site("right", "")
        # Apache 2.4 does not apply this limit to what it passes on.
        site("LimitRequestBody", "", "LimitRequestBody 1000000")
        site("body limit", "body-limit", "RewriteEngine On\n"
             'RewriteCond expr "%{HTTP:Content-Length} -gt 1000000"\nRewriteRule ^ - [R=413]')
        site("without nocanon", "", "AllowEncodedSlashes Off", f'ProxyPass "/" "http://127.0.0.1:{self.up.port}/"')
        site("decodes names", "name-decoded",
             proxy=f'RewriteEngine On\nRewriteRule "^/(.*)$" "http://127.0.0.1:{self.up.port}/$1" [P]')
        site("compresses", "compressed etag-weakened length-missing condition-ignored",
             "UnsetEnv no-gzip\nAddOutputFilterByType DEFLATE text/plain")
        site("doubles CORS", "cors-duplicated", 'Header always set Access-Control-Allow-Origin "*"')
        site("HTTP/1.0", "http-1.0 chunked-refused expect-ignored",
             "SetEnvIf Request_URI . downgrade-1.0 force-response-1.0")
        site("refuses methods", "method-refused",
             "<Location />\n<LimitExcept GET>\nRequire all denied\n</LimitExcept>\n</Location>")
        site("drops Authorization", "authorization-dropped", "RequestHeader unset Authorization")
        modules = "mpm_event authz_core unixd ssl socache_shmcb proxy proxy_http headers rewrite filter deflate " \
                  "env setenvif reqtimeout"
        built_in = subprocess.run(["apache2", "-l"], capture_output=True, text=True).stdout
        load = "".join(f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"
                       for name in modules.split() if f"mod_{name}.c" not in built_in)
        user = "User www-data\nGroup www-data\n" if os.geteuid() == 0 else ""
        (folder / "apache.conf").write_text(
            f'ServerRoot "{folder}"\nPidFile {folder}/pid\nDefaultRuntimeDir {folder}\nErrorLog "|/bin/cat"\n'
            f"Mutex posixsem\nServerName 127.0.0.1\nServerLimit 2\nStartServers 1\nThreadsPerChild 25\n"
            f"MaxRequestWorkers 50\n{load}{user}" + "\n".join(hosts) + "\n")
        await self.start("apache", ["apache2", "-DFOREGROUND", "-f", folder / "apache.conf"], ports)

    # Caddy

    async def start_caddy(self):
        folder = self.folder / "caddy"
        folder.mkdir()
        ports, sites = [], []

        def site(name, expected, lines="", inside="", **more):
            port = self.site(f"Caddy {name}", expected, **more)
            ports.append(port)
            good = self.certificates.good
            sites.append(f"https://127.0.0.1:{port} {{\nbind 127.0.0.1\ntls {good} {key_of(good)}\n{lines}\n"
                         f"reverse_proxy 127.0.0.1:{self.up.port} {{\nheader_up -Forwarded\n{inside}\n"
                         "transport http {\ncompression off\n}\n}\n}")

        site("right", "")
        site("body limit", "body-limit", "request_body {\nmax_size 100KB\n}", options=["--full"])
        site("compresses", "compressed length-missing etag-weakened validator-missing", "encode gzip")
        site("buffers requests", "request-buffering", inside="buffer_requests")
        (folder / "Caddyfile").write_text("{\nadmin off\nauto_https disable_redirects\n}\n" + "\n".join(sites) + "\n")
        env = dict(os.environ, HOME=str(folder), XDG_DATA_HOME=str(folder), XDG_CONFIG_HOME=str(folder))
        await self.start("caddy", ["caddy", "run", "--config", folder / "Caddyfile", "--adapter", "caddyfile"], ports,
                         env=env)

    # HAProxy

    async def start_haproxy(self):
        folder = self.folder / "haproxy"
        folder.mkdir()
        ports, sites = [], []

        def site(name, expected, lines="", backend="upslot", **more):
            port = self.site(f"HAProxy {name}", expected, **more)
            ports.append(port)
            pem = self.certificates.good.with_suffix(".all")
            sites.append(f"frontend f{port}\nmode http\nbind 127.0.0.1:{port} ssl crt {pem} alpn h2,http/1.1\n"
                         f"timeout http-request 10s\noption forwardfor\n{lines}\ndefault_backend {backend}\n")

        site("right", "")
        site("buffers requests", "request-buffering", "option http-buffer-request")
        site("cuts slow uploads", "slow-upload-cut", backend="impatient")
        site("cuts buffered uploads", "slow-upload-cut request-buffering",
             "option http-buffer-request\ntimeout client 2s")
        site("refuses methods", "method-refused", "http-request deny if !METH_GET")
        site("replaces paths", "path-changed", "http-request set-path /other%[path]")
        (folder / "haproxy.cfg").write_text("global\nmaxconn 500\ndefaults\nmode http\ntimeout connect 5s\n"
                                            "timeout server 120s\ntimeout client 60s\n" + "".join(sites) +
                                            f"backend upslot\nserver upslot 127.0.0.1:{self.up.port}\n"
                                            f"backend impatient\ntimeout server 2s\nserver upslot 127.0.0.1:{self.up.port}\n")
        await self.start("haproxy", ["haproxy", "-db", "-f", folder / "haproxy.cfg"], ports)


def doctor_config(up, folder, name, url, **settings):
    """A configuration like that of `up`, for another URL."""
    settings = {**up.settings, "put_url": url, "get_url": url, **settings}
    path = folder / f"{name.replace(' ', '-').replace('/', '-')}.yml"
    path.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in settings.items() if value is not None))
    return path


async def examine(config, *options, before=(), timeout=80):
    """Runs the doctor; its exit code and its report."""
    ran = await run([*before, os.environ["UPSLOT_BIN"], "-c", config, "doctor", "--json", *options], timeout,
                    env=ENVIRONMENT)
    assert ran.code in (0, 1), ran.err
    return ran.code, json.loads(ran.out)


def problems(report):
    return {found["problem"] for found in report["checks"] if found["problem"]}


def shown(report):
    return "\n".join(f"{f['status']:8}{f['check']:20}{f['found']} [{f['problem']}] {f['remedy']}"
                     for f in report["checks"])


@test(servers=(None,), deadline=300)
async def proxies(case):
    port = free_port()
    url = f"https://127.0.0.1:{port}/"
    settings = {"file_share_secret": FILE_SHARE_SECRET, "max_file_size": 2 * MIB}
    up = await case.upslot(linked=False, put_url=url, get_url=url, **settings)
    below = await case.upslot(linked=False, put_url=url + "upload/", get_url=url + "upload/", **settings)
    up.url_port = port
    proxies = Proxies(case, up, below)
    await asyncio.gather(*[start() for start in (proxies.start_nginx, proxies.start_apache, proxies.start_caddy,
                                                   proxies.start_haproxy)])
    turn, failures, checks = asyncio.Semaphore(AT_ONCE), [], {}

    async def site(name, url, expected, options):
        config = doctor_config(below if "/upload/" in url else up, case.folder, name, url)
        async with turn:
            code, report = await examine(config, "--ca-file", proxies.certificates.root, *options)
        found = problems(report)
        checks[name] = {f["check"] for f in report["checks"]} - MAY_BE_ABSENT
        uploads = any(f["check"] == "upload" and f["status"] == "ok" for f in report["checks"])
        location = {"location-changed"} if uploads and name != RIGHT else set()
        # The first expected problem must be named; the others may follow from it.
        wrong = location - found or not expected.issuperset(found - location) or expected and not expected & found
        skipped = {f["check"] for f in report["checks"] if f["status"] == "skipped"} - ALWAYS_SKIPPED
        failed = any(f["status"] == "fail" for f in report["checks"])
        if wrong or not expected and skipped or code != int(failed) or report["ok"] == failed:
            failures.append(f"--- {name}: found {found}, expected {expected}, code {code}\n{shown(report)}")

    await asyncio.gather(*[site(*one) for one in proxies.sites])
    assert not failures, "\n".join(failures)
    # A check that is not made is listed as skipped.
    for name, found in checks.items():
        check(f"checks of {name}", checks[RIGHT] - found, set())
    # Nothing is left behind.
    for each in (up, below):
        await until(lambda: not each.files(), "an empty store")


@test(servers=(None,))
async def complete_sites(case):
    """The sites of contrib/web, one of which serves downloads itself."""
    folder, sites = case.folder, []
    for name, serves in (("nginx.conf", True), ("nginx-serves-files.conf", False)):
        case.folder = folder / name
        case.folder.mkdir()
        nginx = Nginx(case, (SITES / name).read_text())
        up = await case.upslot(linked=False, get_url=nginx.url, put_url=nginx.url, serve_downloads=serves,
                               trusted_proxies=["127.0.0.1"])
        await nginx.start(case, up.port, **({} if serves else {"root /var/lib/upslot;": f"root {up.store};"}))
        sites.append(up)
    reports = await asyncio.gather(*[examine(up.config, "--ca-file", case.authority.pem) for up in sites])
    for up, (code, report) in zip(sites, reports):
        # Debian sets the protocol versions outside of the site; the certificate of these tests expires soon.
        found = problems(report) - {"tls-no-1.3", "tls-expires-soon"}
        assert (code, found) == (0, set()), shown(report)
        check("left behind", up.files(), set())


@test(servers=("prosody", "ejabberd"))
async def xmpp_servers(case):
    """The component port and the secret, with a running upslot and without; its link stays up."""
    server = await case.server()
    up = await case.upslot(server)
    closed = f"http://127.0.0.1:{free_port()}/"
    since = up.mark()

    async def component(name, **settings):
        _, report = await examine(doctor_config(up, case.folder, name, closed, **settings))
        [found] = [f for f in report["checks"] if f["check"] == "component"]
        return found["status"], found["problem"], found["found"]

    status, _, text = await component("running")
    check("running", (status, "the secret was not sent" in text), ("ok", True))
    # For this configuration, the running upslot is another program.
    status, problem, _ = await component("other", http_port=free_port())
    # Prosody refuses a second connection; ejabberd accepts any number.
    conflict = {"prosody": ("fail", "component-conflict"), "ejabberd": ("ok", None)}
    check("other", (status, problem), conflict[server.kind])
    check("link", up.logged("link down", since), [])
    await up.process.stop()
    status, problem, text = await component("stopped")
    check("stopped", (status, problem), ("ok", None))
    check("secret", (await component("secret", component_secret="not this one"))[:2], ("fail", "component-secret"))
    problem = (await component("name", component_jid="other.example"))[1]
    assert problem in ("component-unknown", "component-secret"), problem


@test(servers=(None,))
async def rights_and_clocks(case):
    """What the doctor of another user, or on a machine with a wrong clock, says; and where nginx serves downloads."""
    port = free_port()
    up = await case.upslot(linked=False, http_port=port, put_url=f"http://127.0.0.1:{port}/up/",
                           get_url=f"http://localhost:{port}/get", api={"port": free_port()})
    config = up.config
    library, = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
    ahead = ["env", f"LD_PRELOAD={library}", "FAKETIME=+90s", "FAKETIME_DONT_FAKE_MONOTONIC=1", "DONT_FAKE_MONOTONIC=1"]
    same, other = await asyncio.gather(examine(config), examine(config, before=ahead))
    check("same user", (same[0], problems(same[1])), (0, set()))
    check("clock", (other[0], problems(other[1])), (1, {"clock-skew"}))
    if os.geteuid() == 0:
        # The configuration is readable, the store is not.
        for folder in (case.folder, case.folder.parent):
            folder.chmod(0o755)
        code, report = await examine(config, before=["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"])
        skipped = {f["check"] for f in report["checks"] if f["status"] == "skipped"}
        check("nobody", (code, problems(report)), (0, set()))
        assert {"slot-secret", "upload", "download", "storage-features"} <= skipped, shown(report)
    check("left behind", up.files(), set())
