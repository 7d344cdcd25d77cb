"""The Helm chart renders what the kustomization has, with rights no wider, and refuses wrong values.

``make chart`` renders the files that these tests read, and validates them by the schemas of Kubernetes.
"""

import json
import re
import tomllib
from copy import deepcopy
from typing import Any

import jsonschema_rs
import pytest

from stream_app.composition.stop_timeout import stop_timeout
from stream_app.doctor.findings import State
from stream_app.doctor.part import Part
from stream_app.doctor.unwise_settings import check_settings
from stream_app.setting_sources import is_secret
from stream_app.settings import Settings
from tests.rows import each_row
from tests.unit import test_kubernetes as kustomization
from tools import yaml_text
from tools.chart import CHART, EXAMPLES, RENDERED, ROOT, digest, examples, merged

Manifest = dict[str, Any]

DEFAULTS: Manifest = yaml_text.load((CHART / "values.yaml").read_text("utf-8"))
SCHEMA: Manifest = json.loads((CHART / "values.schema.json").read_text("utf-8"))
VALUES = {name: merged(DEFAULTS, values) for name, values in examples()}
PROCESSES = ("worker", "api", "ticker", "migrate")


def read(name: str) -> list[Manifest]:
    return list(yaml_text.load_all((RENDERED / name).read_text("utf-8")))


MANIFESTS = {name: read(name) for name in EXAMPLES}
WITH_PODS = [
    (name, manifest)
    for name in EXAMPLES
    for manifest in MANIFESTS[name]
    if manifest["kind"] in ("Deployment", "Job", "Pod")
]


def find(example: str, kind: str, name: str) -> Manifest:
    (found,) = (m for m in MANIFESTS[example] if (m["kind"], m["metadata"]["name"]) == (kind, name))
    return found


def pod(manifest: Manifest) -> Manifest:
    spec: Manifest = manifest["spec"] if manifest["kind"] == "Pod" else manifest["spec"]["template"]["spec"]
    return spec


def workload(example: str, process: str, prefix: str = "exporter") -> Manifest:
    return find(example, "Job" if process == "migrate" else "Deployment", f"{prefix}-{process}")


def variables(example: str, process: str, prefix: str = "exporter") -> dict[str, str]:
    """Return what the process gets from the chart, without secrets."""
    (container,) = pod(workload(example, process, prefix))["containers"]
    found = {item["name"]: item["value"] for item in container.get("env", ())}
    for source in container["envFrom"]:
        if "configMapRef" in source:
            found = find(example, "ConfigMap", source["configMapRef"]["name"])["data"] | found
    return found


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_is_tested_is_what_the_chart_renders(name: str) -> None:
    first = (RENDERED / name).read_text("utf-8").partition("\n")[0]
    assert first == f"# make chart writes this. Chart: {digest()}", "the chart has changed: run `make chart`"


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    chart = yaml_text.load((CHART / "Chart.yaml").read_text("utf-8"))
    assert chart["appVersion"] == project["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", chart["version"])


@pytest.mark.parametrize("process", PROCESSES)
def test_each_process_runs_as_in_the_kustomization(process: str) -> None:
    """Containers, probes, rights, resources, mounts and time to stop are the same."""
    ours = deepcopy(pod(workload("values.yaml", process)))
    theirs = deepcopy(kustomization.pod(f"exporter-{process}"))
    for spec in (ours, theirs):
        for constraint in spec.get("topologySpreadConstraints", ()):
            del constraint["labelSelector"]
        (container,) = spec["containers"]
        container.pop("env", None)
        container.pop("image")
        container.pop("imagePullPolicy", None)
    assert ours == theirs


@pytest.mark.parametrize(("example", "prefix"), [("values.yaml", "exporter"), ("everything.yaml", "exports")])
def test_a_worker_has_time_for_its_exports_and_for_a_delivery(example: str, prefix: str) -> None:
    """The second example has a long time-out of deliveries."""
    worker = workload(example, "worker", prefix)
    found = {item["name"]: item["value"] for item in pod(worker)["containers"][0]["env"]}
    settings = VALUES[example]["settings"] | found
    times: dict[str, Any] = {
        name.removeprefix("EXPORTER_").lower(): float(value)
        for name, value in settings.items()
        if name in ("EXPORTER_DRAIN_SECONDS", "EXPORTER_DELIVERY_TIMEOUT_SECONDS")
    }
    needed = stop_timeout(Settings.model_validate(times))
    assert needed < pod(worker)["terminationGracePeriodSeconds"] <= needed + 10


@pytest.mark.parametrize("process", PROCESSES)
def test_each_process_has_the_variables_of_the_kustomization(process: str) -> None:
    secrets = kustomization.SECRETS[f"exporter-{process}"]
    theirs = {
        key: value
        for key, value in kustomization.environment(f"exporter-{process}").items()
        if key not in secrets
    }
    assert variables("values.yaml", process) == theirs


@pytest.mark.parametrize("process", ["worker", "api"])
def test_helm_test_checks_a_process_with_what_that_process_has(process: str) -> None:
    """The doctor has the settings, secrets, account and files of its process, and finds no problem."""
    (theirs,) = pod(workload("everything.yaml", process, "exports"))["containers"]
    tester = pod(find("everything.yaml", "Pod", f"exports-doctor-{process}"))
    (ours,) = tester["containers"]
    assert ours["args"] == ["exporter", "doctor", "--part", process]
    for key in ("image", "envFrom", "volumeMounts", "securityContext"):
        assert ours[key] == theirs[key]
    accounts = [
        spec.get("serviceAccountName")
        for spec in (tester, pod(workload("everything.yaml", process, "exports")))
    ]
    assert accounts[0] == accounts[1]
    secrets = kustomization.SECRETS[f"exporter-{process}"]
    given = {
        name.removeprefix("EXPORTER_").lower(): value.replace("change-me", "q7Zw2Lm9Xr4Tv8Kb")
        for name, value in (variables("values.yaml", process) | secrets).items()
    }
    settings = Settings.model_validate(given)
    assert [f for f in check_settings(settings, Part(process)) if f.state is State.PROBLEM] == []


def test_pods_are_reached_by_the_same_ports_as_in_the_kustomization() -> None:
    for process in PROCESSES:
        policy = find("values.yaml", "NetworkPolicy", f"exporter-{process}")["spec"]
        theirs = next(
            m["spec"]
            for m in kustomization.RESOURCES
            if m["kind"] == "NetworkPolicy"
            and m["metadata"]["name"]
            == (f"exporter-{process}" if process in ("api", "worker") else "exporter-no-ingress")
        )
        assert policy["policyTypes"] == theirs["policyTypes"] == ["Ingress"]
        assert policy.get("ingress") == theirs.get("ingress")


def test_budgets_and_scaling_are_those_of_the_kustomization() -> None:
    for m in kustomization.RESOURCES:
        if m["kind"] == "PodDisruptionBudget":
            ours = find("values.yaml", "PodDisruptionBudget", m["metadata"]["name"])["spec"]
            limits = ("minAvailable", "maxUnavailable")
            assert [ours.get(key) for key in limits] == [m["spec"].get(key) for key in limits]
    ours = deepcopy(find("everything.yaml", "ScaledObject", "exports-worker")["spec"])
    theirs = deepcopy(kustomization.SCALING["ScaledObject"]["spec"])
    assert ours["triggers"][0]["metadata"].pop("targetQueryValue") == "6", (
        "the slots of this example's workers"
    )
    theirs["triggers"][0]["metadata"].pop("targetQueryValue")
    assert ours.pop("scaleTargetRef") == {"name": "exports-worker"}
    theirs.pop("scaleTargetRef")
    assert ours["triggers"][0].pop("authenticationRef") == {"name": "exports-queue"}
    theirs["triggers"][0].pop("authenticationRef")
    assert ours == theirs
    assert "replicas" not in workload("everything.yaml", "worker", "exports")["spec"]


@each_row("manifest", [pytest.param(m, id=f"{name}-{m['metadata']['name']}") for name, m in WITH_PODS])
def test_no_pod_has_more_rights_than_it_needs(manifest: Manifest) -> None:
    spec = pod(manifest)
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize("example", EXAMPLES)
def test_selectors_find_exactly_one_kind_of_pod(example: str) -> None:
    labels = [
        manifest["spec"]["template"]["metadata"]["labels"]
        for name, manifest in WITH_PODS
        if name == example and manifest["kind"] != "Pod"
    ]
    for manifest in MANIFESTS[example]:
        spec = manifest.get("spec", {})
        selector = spec.get("podSelector", spec.get("selector"))
        if selector is not None:
            wanted = selector.get("matchLabels", selector).items()
            assert sum(wanted <= given.items() for given in labels) == 1


def test_every_part_is_rendered_where_it_is_asked_for() -> None:
    kinds = {name: {m["kind"] for m in MANIFESTS[name]} for name in EXAMPLES}
    assert kinds["everything.yaml"] - kinds["values.yaml"] == {
        "Ingress", "PodMonitor", "ScaledObject", "TriggerAuthentication",
    }  # fmt: skip
    assert "Secret" not in kinds["everything.yaml"], "secrets exist before"
    spec = pod(workload("everything.yaml", "worker", "exports"))
    (container,) = spec["containers"]
    assert {"secretRef": {"name": "worker-from-vault"}} in container["envFrom"]
    assert container["image"].endswith("@sha256:" + "0" * 64)
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert spec["serviceAccountName"] == "exporter-files"
    settings = find("everything.yaml", "ConfigMap", "exports-settings")["data"]
    assert settings["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector.monitoring.svc:4318"
    assert "kafka-authority" in str(spec["volumes"])
    given = {item["name"]: item["value"] for item in container["env"]}
    assert given["SSL_CERT_FILE"] == "/etc/authorities/all.pem"
    assert given["CRM_DATABASE_URL_FILE"] == "/run/secrets/crm"
    template = workload("everything.yaml", "worker", "exports")["spec"]["template"]["metadata"]
    assert "prometheus.io/scrape" not in template["annotations"], "PodMonitor and annotation count twice"


def test_what_platforms_decide_differently_can_be_changed() -> None:
    """OpenShift chooses the user, clusters of IPv6 have no 0.0.0.0, and not only an ingress calls the API."""
    for example, manifest in WITH_PODS:
        fixed = pod(manifest)["securityContext"].keys() & {"runAsUser", "runAsGroup"}
        assert fixed == (set() if example == "everything.yaml" else {"runAsUser", "runAsGroup"})
    for process in ("worker", "api"):
        assert variables("everything.yaml", process, "exports")["EXPORTER_METRICS_HOST"] == "::"
    Settings.model_validate({"metrics_host": "::"})
    (api,) = pod(workload("everything.yaml", "api", "exports"))["containers"]
    assert api["args"][2:4] == ["--host", "::"]
    policy = find("everything.yaml", "NetworkPolicy", "exports-api")["spec"]
    calls, scrapes = policy["ingress"]
    assert [list(peer) for peer in calls["from"]] == [
        ["namespaceSelector"],
        ["namespaceSelector"],
        ["ipBlock"],
    ]
    assert [calls["ports"], scrapes["ports"]] == [[{"port": "http"}], [{"port": "metrics"}]]
    assert len(scrapes["from"]) == 1


def test_values_of_an_earlier_chart_are_enough() -> None:
    """``helm upgrade --reuse-values`` does not read the defaults of the new chart: the address was empty."""
    templates = "".join(path.read_text("utf-8") for path in sorted((CHART / "templates").rglob("*.yaml")))
    defaults = re.findall(r"\.Values\.listenHost(?: \| default \"([^\"]*)\")?", templates)
    assert defaults == [DEFAULTS["listenHost"]] * 3


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_schema_takes_the_examples(example: str) -> None:
    jsonschema_rs.validate(SCHEMA, VALUES[example])


@each_row("example", EXAMPLES)
@each_row("process", PROCESSES)
def test_each_variable_is_a_setting_and_its_value_is_valid(example: str, process: str) -> None:
    values = VALUES[example]
    given = values["settings"] | values[process]["env"]
    given = {key: value for key, value in given.items() if key.startswith("EXPORTER_")}
    fields = {key.removeprefix("EXPORTER_").lower(): value for key, value in given.items()}
    assert fields.keys() <= Settings.model_fields.keys()
    secrets = kustomization.SECRETS["exporter-worker"].items()
    Settings.model_validate(fields | {key.removeprefix("EXPORTER_").lower(): value for key, value in secrets})


@each_row(
    ("part", "wrong"),
    [
        ("setings", {}),
        ("settings", {"EXPORTER_S3_SECRET_KEY": "in plain text"}),
        ("settings", {"S3_BUCKET": "exports"}),
        ("worker", {"env": {"CRM_DATABASE_URL": "postgresql://u:p@h/d"}}),
        ("settings", {"OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Bearer x"}),
        ("api", {"env": {"AWS_SECRET_ACCESS_KEY": "in plain text"}}),
        ("settings", {"EXPORTER_KAFKA_PARTITIONS": 8}),
        ("settings", {"EXPORTER_DRAIN_SECONDS": "a minute"}),
        ("worker", {"replicas": -1}),
        ("worker", {"securityContext": {"privileged": True}}),
        ("worker", {"env": {"EXPORTER_DATABASE_URL": "postgresql://u:p@h/d"}}),
        ("image", {"digest": "latest"}),
        ("keda", {"minReplicas": 0}),
        ("networkPolicy", {"enabled": "yes"}),
        ("networkPolicy", {"apiFrom": "everybody"}),
        ("podSecurityContext", {"runAsNonRoot": False}),
        ("podSecurityContext", {"seccompProfile": {"type": "Unconfined"}}),
        ("datasets", {"datasets.json": "{}"}),
    ],
)
def test_the_schema_refuses_wrong_values(part: str, wrong: Manifest) -> None:
    with pytest.raises(jsonschema_rs.ValidationError):
        jsonschema_rs.validate(SCHEMA, merged(VALUES["values.yaml"], {part: wrong}))


@pytest.mark.parametrize("missing", SCHEMA["properties"]["settings"]["required"])
def test_addresses_are_required(missing: str) -> None:
    values = deepcopy(VALUES["values.yaml"])
    del values["settings"][missing]
    with pytest.raises(jsonschema_rs.ValidationError, match=missing):
        jsonschema_rs.validate(SCHEMA, values)


@pytest.mark.parametrize("part", ["settings", "worker", "api", "ticker", "migrate"])
def test_every_setting_is_allowed_among_the_values_and_a_secret_by_the_name_of_its_file(part: str) -> None:
    names = [f"EXPORTER_{name.upper()}" for name in Settings.model_fields]
    secret = [f"EXPORTER_{name.upper()}" for name, field in Settings.model_fields.items() if is_secret(field)]
    given = dict.fromkeys({*names} - {*secret}, "7") | {f"{name}_FILE": "/run/x" for name in secret}
    values = merged(VALUES["values.yaml"], {part: given if part == "settings" else {"env": given}})
    jsonschema_rs.validate(SCHEMA, values)


def test_the_schema_knows_which_settings_are_secrets() -> None:
    pattern = re.compile(SCHEMA["definitions"]["variables"]["propertyNames"]["not"]["pattern"])
    for name, field in Settings.model_fields.items():
        assert bool(pattern.search(f"EXPORTER_{name.upper()}")) == ("Secret" in str(field.annotation)), name
