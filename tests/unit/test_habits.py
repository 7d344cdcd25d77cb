"""The files by which a public project is judged exist, and workflows call what works on every machine."""

import re
from pathlib import Path

import pytest

from tools import yaml_text

ROOT = Path(__file__).parents[2]
WORKFLOWS = {
    path.name: yaml_text.load(path.read_text("utf-8")) for path in (ROOT / ".github/workflows").iterdir()
}
TARGETS = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8")))


def commands(workflow: str) -> list[str]:
    jobs = WORKFLOWS[workflow]["jobs"].values()
    return [step["run"] for job in jobs for step in job["steps"] if "run" in step]


def test_the_workflow_runs_what_ci_runs_elsewhere() -> None:
    assert any(command.endswith(".ci/run") for command in commands("check.yml"))


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflows_have_few_rights_and_call_targets_that_exist(name: str) -> None:
    assert WORKFLOWS[name]["permissions"] == {"contents": "read"}
    called = [re.findall(r"\bmake ([a-z-]+)", command) for command in commands(name)]
    assert {target for targets in called for target in targets} <= TARGETS
    for job in WORKFLOWS[name]["jobs"].values():
        assert job["timeout-minutes"] <= 60


@pytest.mark.parametrize("package", ["faust-streaming", "aiokafka"])
def test_libraries_whose_parts_are_replaced_have_an_upper_bound(package: str) -> None:
    for file in ("pyproject.toml", "streaming_exporter/pyproject.toml"):
        pattern = rf'"{package}(?:\[[^\]]*\])?([<>=~!][^"]*)"'
        for found in re.findall(pattern, (ROOT / file).read_text("utf-8")):
            assert re.search(r"<\d", found), f"{file}: {package}{found}"


def test_each_week_the_bounds_are_tried() -> None:
    assert commands("newest.yml") == ["make newest"]
    assert WORKFLOWS["newest.yml"][True]["schedule"], "YAML reads the key `on` as true"
