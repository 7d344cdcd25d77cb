"""How the image's test reads the Compose file, and what it asks of podman and Docker."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from dev.cache import UsageError
from dev.compose import ComposeService, interpolate, read_services
from dev.container_engine import ContainerEngine
from dev.image import COMPOSE_FILE

SECRET = {"EXPORTER_JWT_SECRET": "s" * 40}
SERVICES = read_services(COMPOSE_FILE, SECRET)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("a-${A}-b", "a-1-b"),
        ("${A:-2}", "1"),
        ("${EMPTY:-2}", "2"),
        ("${B:-x${A}y}", "x1y"),
        ("${B:-${C:-${A}}}", "1"),
        ("${B}", ""),
    ],
)
def test_variables_are_replaced_as_compose_does(text: str, expected: str) -> None:
    assert interpolate(text, {"A": "1", "EMPTY": ""}) == expected


def test_a_variable_without_a_value_is_named_with_the_reason() -> None:
    with pytest.raises(UsageError, match="EXPORTER_JWT_SECRET is not set: set it in"):
        read_services(COMPOSE_FILE, {})


def test_a_key_that_the_test_would_ignore_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "compose.yml"
    file.write_text("services: {a: {build: ., privileged: true}}")
    with pytest.raises(UsageError, match="service a of the Compose file uses privileged"):
        read_services(file, {})


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.parametrize("program", ["podman", "docker"])
def test_a_container_gets_all_that_the_compose_file_states(name: str, program: str) -> None:
    service = SERVICES[name]
    arguments = ContainerEngine(program).run_arguments("image:1", "c", service)
    given = list(pairwise(arguments))
    assert tuple(arguments[-len(service.command) :]) == service.command
    assert "--read-only" in arguments
    assert ("--read-only-tmpfs=false" in arguments) == (program == "podman")
    assert {("--cap-drop", "ALL"), ("--tmpfs", "/tmp:size=256m"), ("--network", "host")} <= set(given)
    assert ("--security-opt", "no-new-privileges:true") in given
    assert {key for flag, key in given if flag == "--env"} == service.environment.keys()
    assert not any(SECRET["EXPORTER_JWT_SECRET"] in part for part in arguments)
    for volume in service.volumes:
        assert ("--volume", volume) in given
        assert Path(volume.split(":")[0]).is_absolute()


def test_a_user_of_the_compose_file_replaces_that_of_the_image(tmp_path: Path) -> None:
    file = tmp_path / "compose.yml"
    file.write_text('services: {a: {build: ., command: [x], user: "1:2", stop_grace_period: 1m30s}}')
    service: ComposeService = read_services(file, {})["a"]
    assert service.stop_seconds == 90
    arguments = ContainerEngine("docker").run_arguments("image:1", "c", service)
    assert arguments[-4:] == ["--user", "1:2", "image:1", "x"]


def test_podman_comes_before_docker_and_one_of_them_is_needed() -> None:
    assert ContainerEngine.find(lambda _: True).program == "podman"
    assert ContainerEngine.find(lambda program: program == "docker").program == "docker"
    with pytest.raises(UsageError, match="neither podman nor Docker works on this machine"):
        ContainerEngine.find(lambda _: False)


def test_without_an_engine_the_command_ends_with_2_and_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dev", "image"],
        env={**os.environ, "PATH": str(tmp_path)},
        cwd=COMPOSE_FILE.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [
        "error: neither podman nor Docker works on this machine: install or start one of them"
    ]
