"""`python -m benchmarks.monitoring`: a Prometheus on Ray's exporter, asked what the dashboard asks.

Needs `prometheus` and `promtool` on PATH (Debian's package prometheus). They take the PodMonitor's
relabelling and the alerts as they are in k8s/. Under load every query of the dashboard must return
data, and those that users look at are drawn. The last line printed is one JSON object. QUICK=1:
three minutes of load become one.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.fault_servers import free_port
from benchmarks.local_cluster import K8S, MODEL, LocalCluster, document, local_cluster, wait_for
from benchmarks.machine import describe_machine, is_quick
from benchmarks.plots import draw_lines
from benchmarks.steady_load import SteadyLoad
from cluster.yaml_file import read_yaml, write_yaml
from deployments.serve_status import DIRECT

NUM_STREAMS = 3
NUM_TOKENS = 24
START_S = 420.0
LOAD_S = 75.0 if is_quick() else 180.0
SCRAPE_S = 5
STEP_S = 5
WINDOW = "45s"  # Grafana's $__rate_interval: at least four scrapes
MONITORING = K8S / "components" / "monitoring"
DRAWN = (
    "Tokens per second",
    "Time to first token",
    "Share of rounds, by drafter",
    "Accepted tokens of a draft",
)


def queries() -> Iterator[tuple[str, str, str]]:
    """Panel, query and legend of all there are on the dashboard."""
    dashboard = json.loads((MONITORING / "hedgerow.json").read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            expr = target["expr"].replace("$__rate_interval", WINDOW)
            yield panel["title"], expr, target["legendFormat"]


def relabelling() -> list[dict[str, Any]]:
    """The PodMonitor's, in Prometheus' own spelling."""
    monitor: Any = read_yaml(MONITORING / "pod-monitor.yaml")
    rules = monitor["spec"]["podMetricsEndpoints"][0]["metricRelabelings"]
    return [{_snake(key): value for key, value in rule.items()} for rule in rules]


def _snake(name: str) -> str:
    return re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", name)


class Prometheus:
    """Scrapes `ports` on the loopback until it is stopped."""

    def __init__(self, folder: Path, ports: Sequence[int]) -> None:
        self._port = free_port()
        rules: Any = read_yaml(MONITORING / "prometheus-rule.yaml")
        write_yaml(folder / "rules.yaml", rules["spec"])
        scrape = {
            "job_name": "hedgerow",
            "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in ports]}],
            "metric_relabel_configs": relabelling(),
        }
        config = {
            "global": {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": f"{SCRAPE_S}s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [scrape],
        }
        path = folder / "prometheus.yaml"
        write_yaml(path, config)
        subprocess.run(["promtool", "check", "config", str(path)], check=True)
        with (folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={path}",
                    f"--storage.tsdb.path={folder / 'tsdb'}",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def ask(self, path: str, **parameters: object) -> Any:
        query = urllib.parse.urlencode(parameters)
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}?{query}"
        with DIRECT.open(url, timeout=30) as answer:
            return json.load(answer)["data"]

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)


def prove(cluster: LocalCluster) -> dict[str, Any]:
    url = f"http://127.0.0.1:{cluster.port}"
    cluster.start()
    cluster.deploy(document(cluster.port))
    found: dict[str, Any] = {"running_s": wait_for(cluster.is_running, START_S, "RUNNING")}
    cluster.note()
    prometheus = Prometheus(cluster.folder, cluster.metrics_ports)
    try:
        started_s = time.time()
        with SteadyLoad(url, MODEL, NUM_STREAMS, NUM_TOKENS) as load:
            time.sleep(LOAD_S)
            found |= _asked(prometheus)
            found["num_requests"] = len(load.answers)
            found["none_failed"] = not load.failures
        _draw(prometheus, started_s, time.time())
    finally:
        prometheus.stop()
    return found


def _asked(prometheus: Prometheus) -> dict[str, Any]:
    """Every query once, under load. Nothing but absent trouble may be without data."""
    empty, num_queries = [], 0
    for title, expr, _ in queries():
        num_queries += 1
        result = prometheus.ask("query", query=expr)["result"]
        values = [float(series["value"][1]) for series in result]
        if not any(value == value for value in values):  # NaN is not itself
            empty.append(f"{title}: {expr}")
    targets = prometheus.ask("targets")["activeTargets"]
    alerts = prometheus.ask("alerts")["alerts"]
    return {
        "num_queries": num_queries,
        "without_data": empty,
        "all_have_data": not empty,
        "all_scraped": all(target["health"] == "up" for target in targets),
        "num_rules": len(prometheus.ask("rules")["groups"][0]["rules"]),
        "alerts": sorted({alert["labels"]["alertname"] for alert in alerts}),
    }


def _draw(prometheus: Prometheus, start_s: float, end_s: float) -> None:
    panels: dict[str, dict[str, list[float]]] = {title: {} for title in DRAWN}
    times = [start_s + STEP_S * i for i in range(int((end_s - start_s) / STEP_S) + 1)]
    for title, expr, legend in queries():
        if title not in panels:
            continue
        ranged = {"start": times[0], "end": times[-1], "step": STEP_S}
        for series in prometheus.ask("query_range", query=expr, **ranged)["result"]:
            known = {round(float(at)): float(value) for at, value in series["values"]}
            name = _legend(legend, series["metric"])
            panels[title][name] = [known.get(round(at), float("nan")) for at in times]
    x = [at - start_s for at in times]
    drawn = {title: lines for title, lines in panels.items() if lines}
    draw_lines("monitoring.png", "From Prometheus, under load", drawn, x, ("seconds", ""))


def _legend(template: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda name: labels.get(name[1], ""), template)


def main() -> int:
    print(describe_machine())
    if not (shutil.which("prometheus") and shutil.which("promtool")):
        print("needs prometheus and promtool: apt-get install prometheus", file=sys.stderr)
        return 1
    with local_cluster() as cluster:
        found = prove(cluster)
    print(json.dumps(found))
    return 0 if all(value is not False for value in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
