"""The dashboard and the alert rules in contrib: valid, and about metrics that exist. promtool comes from Debian's package
prometheus."""

import asyncio
import json
import os
import re
import subprocess
from pathlib import Path

from harness import api_url, check, free_port, get, metric, request_slot, slot_from_api, test, until

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "contrib/prometheus/upslot.rules.yml"
DASHBOARD = ROOT / "contrib/grafana/upslot.json"
OPERATIONS = ROOT / "contrib/docs/operations.md"
PROMTOOL = os.environ.get("PROMTOOL") or "promtool"


async def promtool(*arguments, text=""):
    """Its output; it must exit with 0."""
    run = await asyncio.to_thread(subprocess.run, [os.path.abspath(PROMTOOL) if "/" in PROMTOOL else PROMTOOL, *arguments],
                                  input=text, text=True, capture_output=True)
    assert run.returncode == 0, f"promtool {arguments}:\n{run.stdout}{run.stderr}"
    return run.stdout


def panels():
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def expressions():
    """The expressions of the dashboard, with values for its variables."""
    values = {"$__rate_interval": "5m", "$job": "upslot", "$instance": ".*"}
    for panel in panels():
        for target in panel["targets"]:
            expression = target["expr"]
            for name, value in values.items():
                expression = expression.replace(name, value)
            yield expression


@test(servers=(None,), deadline=180)
async def alerts_fire_when_they_must(case):
    await promtool("check", "rules", str(RULES))
    await promtool("test", "rules", str(Path(__file__).parent / "prometheus/rules.test.yml"))
    # Every alert is tested and documented.
    names = re.findall(r"- alert: (\w+)", RULES.read_text())
    assert len(names) > 10, names
    tested, documented = (Path(__file__).parent / "prometheus/rules.test.yml").read_text(), OPERATIONS.read_text()
    for name in names:
        assert f'alertname="{name}"' in tested, name
        assert f"`{name}`" in documented, name


@test(servers=(None,), deadline=60)
async def dashboard_can_be_imported(case):
    dashboard = json.loads(DASHBOARD.read_text())
    check("dashboard", (dashboard["id"], dashboard["uid"], dashboard["title"]), (None, "upslot", "upslot"))
    assert dashboard["schemaVersion"] >= 36
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    check("variables", list(variables), ["datasource", "job", "instance"])
    check("data source", (variables["datasource"]["type"], variables["datasource"]["query"]), ("datasource", "prometheus"))
    source = {"type": "prometheus", "uid": "${datasource}"}
    ids, covered = set(), set()
    for panel in dashboard["panels"]:
        assert panel["id"] not in ids, panel["title"]
        ids.add(panel["id"])
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & covered, panel["title"]
        covered |= cells
        if panel["type"] != "row":
            assert panel["type"] in ("stat", "timeseries"), panel["type"]
            check(panel["title"], [panel["datasource"], *(target["datasource"] for target in panel["targets"])],
                  [source] * (1 + len(panel["targets"])))
            references = [target["refId"] for target in panel["targets"]]
            check(panel["title"], len(set(references)), len(references))
    # promtool checks expressions in rules only.
    rules = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(expressions())]
    assert len(rules) > 25
    file = case.folder / "panels.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    await promtool("check", "rules", str(file))


@test(deadline=120)
async def every_metric_exists(case):
    """Each metric in the dashboard and the rules is one of a real upslot, and each of those is documented."""
    authority = case.authority
    up = await case.upslot(http_certfile=str(authority.chain), http_keyfile=str(authority.key),
                           api={"port": free_port()}, global_quota=10**12, expire_interval=1, max_file_size=1000)
    await slot_from_api(up, "a.bin", 5)
    check("too large", (await request_slot(up, "a.bin", 1001)).status, 413)

    async def is_swept():
        return await metric(up, "sweep_last_duration_seconds") is not None and await metric(up, "stored_bytes") is not None

    await until(is_swept, "a sweep")
    page = (await get(api_url(up, "metrics"))).body.decode()
    await promtool("check", "metrics", text=page)
    # An object store that does not answer is enough.
    keys = {"endpoint": f"http://127.0.0.1:{free_port()}", "bucket": "uploads", "access_key": "upslot", "secret_key": "0" * 40}
    of_objects = await case.upslot(linked=False, api={"port": free_port()}, s3=keys, slot_secret="0" * 64)
    page_of_objects = (await get(api_url(of_objects, "metrics"))).body.decode()
    await promtool("check", "metrics", text=page_of_objects)
    existing = set(re.findall(r"^# TYPE (\w+) ", page + page_of_objects, re.MULTILINE))
    described = RULES.read_text() + "\n".join(expressions())
    used = set(re.findall(r"\bupslot_\w+", described))
    assert len(used) > 25, used
    check("metrics that do not exist", used - existing, set())
    check("metrics without documentation", {name for name in existing if name not in OPERATIONS.read_text()}, set())
    # The panels show everything.
    shown = set(re.findall(r"\bupslot_\w+", "\n".join(expressions())))
    check("metrics without a panel", existing - shown, set())
    labels = {"outcome": {"granted", "refused", "published"}}
    for name, values in re.findall(r'(outcome|reason)=~?"([^"]*)"', described):
        for value in values.split("|"):
            documented = value in labels["outcome"] if name == "outcome" else f"`{value}`" in OPERATIONS.read_text()
            assert documented, (name, value)
