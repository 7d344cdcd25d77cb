"""Dashboard, alerts and documents name only existing metrics and alerts."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.metrics import MetricWrapperBase
from promql_parser import Expr, MatrixSelector, VectorSelector, parse, walk

from stream_app.observability import metrics
from tests.rows import each_row
from tools import yaml_text

ROOT = Path(__file__).parents[2]
OBSERVE = ROOT / "observe"
DOCUMENT = (ROOT / "docs" / "observability.md").read_text()
DASHBOARD: dict[str, Any] = json.loads((OBSERVE / "grafana/dashboards/exporter.json").read_text())
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml_text.load((OBSERVE / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
FAMILIES = {
    family.name: family
    for process in metrics.REGISTRIES
    for family in metrics.registry_for(process).collect()
}
SERIES = {name + suffix: name for name, family in FAMILIES.items() for suffix in SUFFIXES[family.type]}
"""The family of each series."""
LABELS = {
    metric._name: set(metric._labelnames)
    for metric in vars(metrics).values()
    if isinstance(metric, MetricWrapperBase)
}
OF_DEPLOYMENT = {"namespace", "deployment"}
"""Labels that tell deployments in one Prometheus apart. Scrapes add them."""

OF_PROMETHEUS = {"instance", "job", "le"} | OF_DEPLOYMENT
EXPRESSIONS = [
    *(pytest.param(rule["expr"], id=rule["alert"]) for rule in RULES),
    *(
        pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")
        for panel in PANELS
        for target in panel["targets"]
    ),
]


def selectors(expression: str) -> tuple[list[VectorSelector], set[str]]:
    """Return the selectors of an expression, and the names of its range selectors."""
    found: list[VectorSelector] = []
    ranges: set[str] = set()

    def visit(part: Expr) -> None:
        if isinstance(part, VectorSelector):
            found.append(part)
        elif isinstance(part, MatrixSelector):
            ranges.add(part.vector_selector.name or "")

    walk(parse(expression.replace("$__rate_interval", "5m").replace("$__interval", "5m")), visit)
    return found, ranges


@each_row("expression", EXPRESSIONS)
def test_expressions_use_existing_metrics_and_labels(expression: str) -> None:
    found, _ = selectors(expression)
    assert found
    known = set(OF_PROMETHEUS)
    for selector in found:
        assert selector.name == "up" or selector.name in SERIES
        labels = LABELS.get(SERIES.get(selector.name, ""), set())
        assert {matcher.name for matcher in selector.matchers.matchers} <= labels | OF_PROMETHEUS
        known |= labels
    for grouping in re.findall(r"\bby \(([^)]*)\)", expression):
        assert set(grouping.split(", ")) <= known


@each_row("expression", EXPRESSIONS)
def test_counters_are_used_only_with_rates_and_increases(expression: str) -> None:
    """They begin at 0 in every process, so only their increase has a meaning."""
    found, ranges = selectors(expression)
    for name in {selector.name for selector in found}:
        if name is not None and name.endswith(("_total", "_bucket", "_sum", "_count")):
            assert name in ranges


def test_every_metric_is_documented_and_on_the_dashboard_or_in_an_alert() -> None:
    ours = {name for name in FAMILIES if name.startswith("exporter_")}
    assert ours
    assert ours == set(re.findall(r"`(exporter_\w+)`", DOCUMENT))
    shown = " ".join(str(part) for item in EXPRESSIONS for part in item.values)
    assert not {name for name in ours if name not in shown}


def test_every_panel_says_what_it_shows() -> None:
    """P19: the dashboard explains itself, and counts of few jobs are not shown as rates."""
    assert not [panel["title"] for panel in PANELS if len(panel["description"]) < 20]
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)
    assert not [
        expression
        for panel in PANELS
        for expression in (item["expr"] for item in panel["targets"])
        if "rate(exporter_" in expression and "event_loop" not in expression
    ]


def test_variables_are_labels_and_are_used() -> None:
    variables = {item["name"] for item in DASHBOARD["templating"]["list"]}
    assert variables == {"dataset", "format"} | OF_DEPLOYMENT
    for name in variables:
        users = [item for item in EXPRESSIONS if f'{name}=~"${name}"' in str(item.values[0])]
        assert len(users) >= 5


def test_alerts_have_a_summary_a_severity_and_a_line_in_the_document() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)
    for rule in RULES:
        assert rule["labels"]["severity"] in {"page", "warn"}
        assert rule["annotations"]["summary"]
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s"))
    assert set(names) == set(re.findall(r"\| `(Exporter\w+)` \|", DOCUMENT))


def expression_of(alert: str) -> str:
    (found,) = (rule["expr"] for rule in RULES if rule["alert"] == alert)
    return str(found)


def test_the_jobs_of_the_chart_and_of_prometheus_are_those_of_the_alerts() -> None:
    """A PodMonitor names its job NAMESPACE/NAME unless it is relabelled."""
    (selector,) = selectors(expression_of("ExporterTargetDown"))[0]
    (pattern,) = (item.value for item in selector.matchers.matchers if item.name == "job")
    rendered = yaml_text.load_all((ROOT / "tests/unit/data/chart/everything.yaml").read_text())
    endpoints = [
        endpoint
        for manifest in rendered
        if manifest["kind"] == "PodMonitor"
        for endpoint in manifest["spec"]["podMetricsEndpoints"]
    ]
    jobs = [
        rule["replacement"]
        for endpoint in endpoints
        for rule in endpoint["relabelings"]
        if rule["targetLabel"] == "job"
    ]
    scrapes = yaml_text.load((OBSERVE / "prometheus.yml").read_text())["scrape_configs"]
    names = [
        rule["replacement"]
        for endpoint in endpoints
        for rule in endpoint["relabelings"]
        if rule["targetLabel"] == "deployment"
    ]
    assert names == ["exports", "exports"]
    assert len(jobs) == len(endpoints) == 2
    for job in (*jobs, *(scrape["job_name"] for scrape in scrapes)):
        assert re.fullmatch(pattern, job)


def relabelled(labels: dict[str, str]) -> dict[str, str]:
    """Return the labels of a target by the ``relabel_configs`` of the document."""
    (block,) = (
        found for found in re.findall(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL) if "target_label" in found
    )
    prefix = "__meta_kubernetes_pod_label_"
    found = {prefix + re.sub(r"\W", "_", name): value for name, value in labels.items()}
    found |= {"job": "pods", "__meta_kubernetes_namespace": "exports"}
    for rule in yaml_text.load(block):
        value = ";".join(found.get(name, "") for name in rule["source_labels"])
        if match := re.fullmatch(rule.get("regex", "(.*)"), value):
            template = re.sub(r"\$(\d)", r"\\\1", rule.get("replacement", "$1"))
            found[rule["target_label"]] = match.expand(template)
    return {name: value for name, value in found.items() if value and not name.startswith("__")}


@pytest.mark.parametrize("folder", ["tests/unit/data/chart", "deploy/kubernetes/base"])
def test_the_relabelling_of_the_document_fits_all_pods_with_annotations(folder: str) -> None:
    """Without their jobs no target is known, and without ``deployment`` two releases are one."""
    files = ["values.yaml"] if folder.startswith("tests") else ["worker.yaml", "api.yaml"]
    pods = [
        manifest["spec"]["template"]["metadata"]
        for file in files
        for manifest in yaml_text.load_all((ROOT / folder / file).read_text())
        if manifest["kind"] == "Deployment"
    ]
    found = [
        relabelled(pod["labels"]) for pod in pods if "prometheus.io/scrape" in pod.get("annotations", {})
    ]
    assert {labels["job"] for labels in found} == {"exporter-worker", "exporter-api"}
    assert {labels["namespace"] for labels in found} == {"exports"}
    release = {"exporter"} if folder.startswith("tests") else {None}
    assert {labels.get("deployment") for labels in found} == release


@each_row("expression", EXPRESSIONS)
def test_jobs_of_others_with_similar_names_are_none_of_ours(expression: str) -> None:
    """Their targets have no metric of a worker or an API, so they would be deployments without both."""
    for selector in selectors(expression)[0]:
        patterns = [item.value for item in selector.matchers.matchers if item.name == "job"]
        assert selector.name != "up" or len(patterns) == 1
        for pattern in patterns:
            names = ("exporter-worker", "exporter-api", "exporter-postgres", "exporter-api-probe", "exporter")
            assert [name for name in names if re.fullmatch(pattern, name)] == [
                "exporter-worker",
                "exporter-api",
            ]


def test_an_alert_about_a_metric_of_the_api_fires_when_no_api_answers() -> None:
    expression = " ".join(expression_of("ExporterQueueUnread").split())
    assert "or absent(" in expression
    assert expression.count(") unless on (namespace, deployment) exporter_queue_read") == 1


@each_row("rule", RULES)
def test_an_alert_is_about_one_deployment(rule: dict[str, Any]) -> None:
    """Otherwise the workers of a test system hide that production has none."""
    expression = rule["expr"]
    aggregations = re.findall(r"\b(?:sum|min|max|avg|count|group)\b(.{0,27})", expression, re.DOTALL)
    assert aggregations or rule["alert"] == "ExporterTargetDown"
    assert [found for found in aggregations if not found.startswith(" by (namespace, deployment")] == []
    for matching in re.findall(r"\bon \(([^)]*)\)", expression):
        assert set(matching.split(", ")) == OF_DEPLOYMENT


@each_row("panel", PANELS)
def test_a_panel_is_about_the_chosen_deployments(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        for selector in selectors(target["expr"])[0]:
            chosen = {item.name: item.value for item in selector.matchers.matchers}
            assert {name: chosen.get(name) for name in OF_DEPLOYMENT} == {
                name: f"${name}" for name in OF_DEPLOYMENT
            }


def test_a_pause_of_claims_is_no_long_wait_and_has_an_alert_of_its_own() -> None:
    """A pause of one user or dataset does not hide the jobs of others: theirs are not counted."""
    oldest = expression_of("ExporterOldestPendingTooOld")
    (left, right), _ = selectors(oldest)
    assert (left.name, right.name) == ("exporter_oldest_pending_seconds", "exporter_claims_paused")
    assert "unless on (namespace, deployment) exporter_claims_paused" in oldest
    assert [(item.name, str(item.op), item.value) for item in right.matchers.matchers] == [
        ("scope", "MatchOp.Equal", "everything")
    ]
    assert "exporter_claims_paused" in expression_of("ExporterClaimsPaused")


def test_late_schedules_and_all_faults_of_parts_have_an_alert() -> None:
    assert 'exporter_schedules{state="late"}' in expression_of("ExporterSchedulesLate")
    assert 'exporter_errors_total{kind!="refused"}' in expression_of("ExporterPartErrors")


def test_panels_do_not_overlap_and_use_the_provisioned_source() -> None:
    source = yaml_text.load((OBSERVE / "grafana/provisioning/datasources/prometheus.yml").read_text())
    uid = source["datasources"][0]["uid"]
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + across, place["y"] + down)
            for across in range(place["w"])
            for down in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        assert all(0 <= across < 24 for across, _ in cells)
        taken |= cells
    assert {panel["datasource"]["uid"] for panel in PANELS} == {uid}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_prometheus_and_grafana_use_files_of_the_compose_file() -> None:
    services = yaml_text.load((ROOT / "docker-compose.yml").read_text())["services"]
    scrapes = yaml_text.load((OBSERVE / "prometheus.yml").read_text())
    ports = {
        job["dns_sd_configs"][0]["names"][0]: job["dns_sd_configs"][0]["port"]
        for job in scrapes["scrape_configs"]
    }
    assert ports == {
        "api": int(services["api"]["environment"]["EXPORTER_METRICS_PORT"]),
        "worker": int(services["worker"]["environment"]["EXPORTER_METRICS_PORT"]),
    }
    mounted = {
        volume.split(":")[1] for name in ("prometheus", "grafana") for volume in services[name]["volumes"]
    }
    assert {f"/etc/prometheus/{name}" for name in scrapes["rule_files"]} <= mounted
    provider = yaml_text.load((OBSERVE / "grafana/provisioning/dashboards/exporter.yml").read_text())
    assert provider["providers"][0]["options"]["path"] in mounted
    assert all(services[name]["profiles"] == ["observe"] for name in ("prometheus", "grafana"))
