"""Container engines: an empty read-only root under changing users, and the configuration for Kubernetes."""

import json
import os
import re
import shutil
from pathlib import Path

from harness import Process, check, content, curl, free_port, get, open_folder, put, run, test

HERE = Path(__file__).resolve().parent
CONTAINER = HERE.parents[1] / "contrib" / "container"


async def static_program():
    """The statically linked program, as in the image, but a debug build without debug information."""
    if given := os.environ.get("UPSLOT_STATIC"):
        return Path(given)
    top = HERE.parents[1]
    host = re.search(r"(?m)^host: (\S+)$", (await run(["rustc", "-vV"], cwd=top)).out.decode())[1]
    flags = dict(os.environ, RUSTFLAGS="-C target-feature=+crt-static", CARGO_PROFILE_DEV_DEBUG="false")
    built = await run(["cargo", "build", "--locked", "--bin", "upslot", "--target", host], timeout=900, cwd=top, env=flags)
    assert built.code == 0, built.err
    target = Path(os.environ.get("CARGO_TARGET_DIR") or top / "target")
    return target / host / "debug" / "upslot"


@test(servers=(None,), deadline=1000)
async def empty_root_and_changing_users(case):
    if os.geteuid() != 0:
        print("NOT TESTED: only root can change users and mount file systems")
        return
    program = await static_program()
    file = (await run(["ldd", program]))
    assert "statically linked" in file.out.decode() or "not a dynamic executable" in file.err, file
    http, api = free_port(), free_port()
    with open_folder() as folder:
        root, data, config, binary = folder / "root", folder / "data", folder / "config.yml", folder / "upslot"
        root.mkdir()
        shutil.copy(program, binary)
        # Owner and mode of the data folder, and the commands, are those of the Containerfile.
        image = (CONTAINER / "Containerfile").read_text()
        made = re.search(r"--chown=(\d+):(\d+) --chmod=(\d+) /image/data", image)
        commands = {word: json.loads(re.search(rf"(?m)^{word} .*?(\[.*\])$", image)[1])
                    for word in ("ENTRYPOINT", "CMD", "HEALTHCHECK")}
        check("user of the image", re.findall(r"(?m)^USER (.*)$", image), [f"{made[1]}:0"])
        data.mkdir()
        os.chown(data, int(made[1]), int(made[2]))
        data.chmod(int(made[3], 8))
        config.write_text(f"storage_path: /data\nhttp_address: '::'\nhttp_port: {http}\nget_url: http://127.0.0.1:{http}/\n"
                          f"put_url: http://127.0.0.1:{http}/\napi: {{port: {api}}}\n"
                          "expire_interval: 1\nexpire_maxage: 100000\n")
        binds = [f"{binary}=/upslot", f"{config}=/config.yml", f"{data}=/data:rw"]

        def contained(user, *command):
            return ["unshare", "-m", "/usr/bin/python3", HERE / "in_container.py", root, user, *binds, *command]

        slots, older = [], None
        for user in (1000640000, int(made[1]), 1000650000):
            process = await Process.start("upslot", contained(user, *commands["ENTRYPOINT"], *commands["CMD"]), env={})
            try:
                await process.line(r"\bready pid=")
                status = Path(f"/proc/{process.pid}/status").read_text()
                check("user and group", re.findall(r"(?m)^[UG]id:\s+(\d+)", status), [str(user), "0"])
                check("capabilities", set(re.findall(r"Cap(?:Prm|Eff|Bnd|Amb):\s+(\w+)", status)), {"0" * 16})
                lines = (await curl(f"http://127.0.0.1:{api}/slot/?name={user}.bin&size=10&jid=romeo@montague.example")).out
                slots.append(lines.decode().split("\n"))
                check(f"PUT by {user}", (await put(slots[-1][0], content(10))).status, 201)
                for slot in slots:
                    check("GET of an upload", (await get(slot[1])).body, content(10))
                if older:
                    # A slot that was granted under the previous user.
                    check("PUT to an older slot", (await put(older, content(10))).status, 201)
                lines = (await curl(f"http://127.0.0.1:{api}/slot/?name=later.bin&size=10&jid=romeo@montague.example")).out
                older = lines.decode().split("\n")[0]
                healthy = await run(contained(user, *commands["HEALTHCHECK"]), env={})
                check("health", (healthy.code, healthy.out.decode().split(":")[0]), (0, "healthy"))
                problems = [line for line in process.lines if re.search(r" (WARN|ERROR) ", line)
                            and not re.search("is absent|is not https", line)]
                check("warnings", problems, [])
            finally:
                code = await process.stop()
            check("exit", code, 0)
            stopped = await run(contained(user, *commands["HEALTHCHECK"]), env={})
            check("health after the end", (stopped.code, stopped.err.split(":")[0]), (1, "unhealthy"))


@test(servers=(None,))
async def kubernetes_config_is_valid(case):
    text = (CONTAINER / "kubernetes.yml").read_text()
    lines = re.search(r"(?m)^  config\.yml: \|\n((?:    .*\n)+)", text)[1]
    secret, config = case.folder / "secret", case.folder / "config.yml"
    secret.write_text("secret\n")
    secret.chmod(0o600)
    config.write_text(re.sub(r"(?m)^    ", "", lines).replace("/run/secrets/upslot/component_secret", str(secret)))
    ran = await run([os.environ["UPSLOT_BIN"], "-c", config, "--check-config"])
    check("errors and warnings", (ran.code, ran.err), (0, ""))
