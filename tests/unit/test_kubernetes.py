"""The Kubernetes manifests agree with settings, commands and each other, as far as a parser can tell."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from dev.sample import DATASETS
from producers.__main__ import cli
from stream_app.composition.stop_timeout import stop_timeout
from stream_app.doctor.findings import State
from stream_app.doctor.part import Part
from stream_app.doctor.unwise_settings import check_settings
from stream_app.settings import Settings
from stream_app.unsafe_settings import refuse_open_key_set, refuse_weak_secrets
from stream_app.worker.liveness import FRESH_SECONDS
from tools import yaml_text

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
SETTINGS = dict(line.split("=", 1) for line in (FOLDER / "base" / "settings.env").read_text().splitlines())


def manifests(name: str) -> list[dict[str, Any]]:
    return [manifest for manifest in yaml_text.load_all((FOLDER / name).read_text("utf-8")) if manifest]


KUSTOMIZATION = manifests("base/kustomization.yaml")[0]
RESOURCES = [m for name in KUSTOMIZATION["resources"] for m in manifests(f"base/{name}")]
SECRETS = {m["metadata"]["name"]: m["stringData"] for m in manifests("base/secrets.example.yaml")}
SCALING = {m["kind"]: m for m in manifests("keda/scaling.yaml")}
WORKLOADS = {m["metadata"]["name"]: m for m in RESOURCES if m["kind"] in ("Deployment", "Job")}


def test_the_image_is_the_one_of_this_version() -> None:
    project = tomllib.loads((FOLDER.parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
    assert [image["newTag"] for image in KUSTOMIZATION["images"]] == [project["version"]]


def pod(name: str) -> dict[str, Any]:
    spec: dict[str, Any] = WORKLOADS[name]["spec"]["template"]["spec"]
    return spec


def container(name: str) -> dict[str, Any]:
    only: dict[str, Any]
    (only,) = pod(name)["containers"]
    return only


def environment(name: str) -> dict[str, str]:
    found = {item["name"]: item["value"] for item in container(name).get("env", ())}
    for source in container(name)["envFrom"]:
        found |= SECRETS[source["secretRef"]["name"]] if "secretRef" in source else SETTINGS
    return found


def test_every_process_has_a_manifest() -> None:
    assert WORKLOADS.keys() == {"exporter-migrate", "exporter-worker", "exporter-ticker", "exporter-api"}
    assert SECRETS.keys() == {*WORKLOADS}
    kinds = {"Deployment", "Job", "Service", "PodDisruptionBudget", "NetworkPolicy"}
    assert {m["kind"] for m in RESOURCES} == kinds
    for manifest in RESOURCES:
        assert manifest["apiVersion"] in {"apps/v1", "batch/v1", "v1", "policy/v1", "networking.k8s.io/v1"}


def fields(name: str) -> dict[str, str]:
    return {key.removeprefix("EXPORTER_").lower(): value for key, value in environment(name).items()}


@pytest.mark.parametrize("name", WORKLOADS)
def test_each_variable_is_a_setting_and_its_value_is_valid(name: str) -> None:
    assert all(key.startswith("EXPORTER_") for key in environment(name))
    assert fields(name).keys() <= Settings.model_fields.keys()
    Settings.model_validate(fields(name))


@pytest.mark.parametrize("name", WORKLOADS)
def test_each_command_exists_and_takes_its_arguments(name: str) -> None:
    program, command, *arguments = container(name)["args"]
    assert program == "exporter"
    group = typer.main.get_command(cli)
    found = group.get_command(typer.Context(group), command)  # type: ignore[attr-defined]
    assert found is not None, f"exporter has no command {command}"
    found.make_context(command, list(arguments))


@pytest.mark.parametrize("name", WORKLOADS)
def test_they_run_without_privileges_and_within_limits(name: str) -> None:
    assert pod(name)["securityContext"]["runAsNonRoot"] is True
    assert pod(name)["automountServiceAccountToken"] is False
    assert pod(name)["enableServiceLinks"] is False
    contained = container(name)["securityContext"]
    assert contained["readOnlyRootFilesystem"] is True
    assert contained["allowPrivilegeEscalation"] is False
    assert contained["capabilities"] == {"drop": ["ALL"]}
    assert container(name)["resources"]["limits"]["memory"]
    assert container(name)["image"] == KUSTOMIZATION["images"][0]["name"]


@pytest.mark.parametrize("name", ["exporter-api", "exporter-worker"])
def test_the_datasets_are_mounted_where_the_setting_names_them(name: str) -> None:
    maps = {item["name"]: item for item in KUSTOMIZATION["configMapGenerator"]}
    (volume,) = (item["configMap"]["name"] for item in pod(name)["volumes"] if "configMap" in item)
    (file,) = maps[volume]["files"]
    mounted = {item["name"]: item["mountPath"] for item in container(name)["volumeMounts"]}
    assert mounted["datasets"] == environment(name)["EXPORTER_DATASETS_FILE"]
    assert (FOLDER / "base" / file).read_bytes() == DATASETS.read_bytes()


def test_the_worker_has_time_to_drain() -> None:
    settings = Settings.model_validate(fields("exporter-worker"))
    assert pod("exporter-worker")["terminationGracePeriodSeconds"] > stop_timeout(settings)
    assert settings.user_slots < settings.worker_slots


def test_the_worker_is_ready_by_its_file() -> None:
    worker = container("exporter-worker")
    file = environment("exporter-worker")["EXPORTER_READY_FILE"]
    command = worker["readinessProbe"]["exec"]["command"][-1]
    assert f"{file} -newermt '-{FRESH_SECONDS:.0f} seconds'" in command
    assert file.startswith(worker["volumeMounts"][0]["mountPath"] + "/")
    assert "livenessProbe" not in worker, "a worker that waits for an outage to end must not be restarted"


def test_the_api_is_probed_where_it_answers() -> None:
    api = container("exporter-api")
    assert api["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "metrics"}
    assert api["readinessProbe"]["httpGet"] == {"path": "/readyz?needs=database", "port": "http"}
    assert str(api["ports"][0]["containerPort"]) in api["args"]
    (service,) = [m for m in RESOURCES if m["kind"] == "Service"]
    assert service["spec"]["ports"][0]["targetPort"] == api["ports"][0]["name"]


@pytest.mark.parametrize("name", ["exporter-worker", "exporter-api"])
def test_metrics_are_scraped_where_they_are_served(name: str) -> None:
    port = WORKLOADS[name]["spec"]["template"]["metadata"]["annotations"]["prometheus.io/port"]
    assert int(port) in [item["containerPort"] for item in container(name)["ports"]]
    assert port in (environment(name).get("EXPORTER_METRICS_PORT"), container(name)["args"][-1])


def test_every_pod_has_a_network_policy() -> None:
    """S24: each port of a policy is a port of the container."""
    covered = {}
    for policy in (m["spec"] for m in RESOURCES if m["kind"] == "NetworkPolicy"):
        selector = policy["podSelector"]
        names = [selector["matchLabels"]["app.kubernetes.io/name"]] if "matchLabels" in selector else []
        names += [value for rule in selector.get("matchExpressions", ()) for value in rule["values"]]
        assert policy["policyTypes"] == ["Ingress"]
        for rule in policy.get("ingress", ()):
            assert rule["from"], "from everywhere"
        for name in names:
            covered[name] = {port["port"] for rule in policy.get("ingress", ()) for port in rule["ports"]}
    assert covered.keys() == WORKLOADS.keys()
    for name, ports in covered.items():
        assert ports == {port["name"] for port in container(name).get("ports", ())}


@pytest.mark.parametrize("name", WORKLOADS)
def test_examples_have_no_unwise_settings_except_placeholders(name: str) -> None:
    """S2, S24: the API starts with the example after the passwords are filled in."""
    given = {key: value.replace("change-me", "q7Zw2Lm9Xr4Tv8Kb") for key, value in fields(name).items()}
    settings = Settings.model_validate(given)
    part = {"exporter-api": Part.API, "exporter-worker": Part.WORKER}.get(name, Part.ALL)
    bad = {f.check for f in check_settings(settings, part) if f.state is State.PROBLEM}
    # The doctor does not run in the others, which have fewer settings.
    unused = {"EXPORTER_JWT_SECRET", "EXPORTER_DATABASE_URL", "EXPORTER_S3_PUBLIC_ENDPOINT"}
    assert bad <= (unused if part is Part.ALL else set())
    assert name != "exporter-worker" or Part.of(settings) is Part.WORKER
    if name == "exporter-api":
        refuse_open_key_set(settings)
        refuse_weak_secrets(settings, "0.0.0.0")


def test_each_process_has_only_the_secrets_that_it_needs() -> None:
    """S24"""
    keys = {name: secrets.get("EXPORTER_S3_ACCESS_KEY") for name, secrets in SECRETS.items()}
    assert keys["exporter-worker"] != keys["exporter-api"]
    assert keys["exporter-ticker"] is keys["exporter-migrate"] is None
    for name in ("exporter-ticker", "exporter-migrate", "exporter-worker"):
        assert not [key for key in SECRETS[name] if key.startswith("EXPORTER_JWT")]


def test_selectors_find_their_pods() -> None:
    labels = [WORKLOADS[name]["spec"]["template"]["metadata"]["labels"] for name in WORKLOADS]
    for manifest in RESOURCES:
        selector = manifest["spec"].get("selector")
        if selector is not None:
            assert selector.get("matchLabels", selector) in labels


def test_the_queue_is_counted_by_slots_of_users_and_of_workers() -> None:
    scaled = SCALING["ScaledObject"]["spec"]
    (trigger,) = scaled["triggers"]
    assert scaled["scaleTargetRef"]["name"] in WORKLOADS
    assert trigger["authenticationRef"]["name"] == SCALING["TriggerAuthentication"]["metadata"]["name"]
    assert trigger["metadata"]["targetQueryValue"] == SETTINGS["EXPORTER_WORKER_SLOTS"]
    assert trigger["metadata"]["query"] == f"SELECT exporter_demand({SETTINGS['EXPORTER_USER_SLOTS']})"
