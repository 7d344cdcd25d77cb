"""`make audit` reports known vulnerabilities, and reports an unreachable list."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

FILE = Path(__file__).parents[2] / "requirements" / "audit.py"


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def program(folder: Path, said: str, code: int = 0) -> str:
    """Write a program that answers as the auditing program does."""
    (folder / "said").write_text(said)
    path = folder / "uv"
    path.write_text(f"#!/bin/sh\ncat {folder}/said\nexit {code}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("said", ["", "Traceback: no route to host", "{}", "null", '{"dependencies": null}'])
def test_an_unreachable_list_is_reported(
    audit: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], said: str
) -> None:
    assert audit.known_faults(program(tmp_path, said, 1)) == 0
    assert "NOT CHECKED" in capsys.readouterr().out


def test_known_vulnerabilities_are_reported(
    audit: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fault = {"id": "CVE-2026-1", "fix_versions": ["1.1"]}
    packages = [
        {"name": "sound", "version": "2", "vulns": []},
        {"name": "faulty", "version": "1", "vulns": [fault, {"id": "CVE-2026-2", "fix_versions": []}]},
        {"name": "odd", "skip_reason": "not on the list"},
    ]
    assert audit.known_faults(program(tmp_path, json.dumps({"dependencies": packages}), 1)) == 1
    said = capsys.readouterr().out
    assert "faulty 1: CVE-2026-1, fixed in 1.1" in said
    assert "faulty 1: CVE-2026-2, fixed in no version" in said
    assert "NOT CHECKED: odd: not on the list" in said
    assert "2 packages were looked up, 1 have known faults" in said
