"""Settings that are allowed and unwise, and how findings are shown."""

import io
import json
from typing import Any

import pytest
from pydantic import SecretStr
from rich.console import Console

from stream_app.doctor.findings import Area, State, worst
from stream_app.doctor.hazards import check_settings
from stream_app.doctor.report import as_json, show
from stream_app.settings import Settings

SAFE: dict[str, Any] = {
    "jwt_secret": SecretStr("x" * 32),
    "public_url": "https://exports.example.com",
    "s3_public_endpoint": "https://files.example.com",
}


def found(**changed: Any) -> dict[str, State]:
    settings = Settings(_env_file=None, **{**SAFE, **changed})
    return {finding.check: finding.state for finding in check_settings(settings)}


def test_nothing_unwise() -> None:
    assert found() == {"values": State.OK}


@pytest.mark.parametrize(
    ("changed", "check", "state"),
    [
        ({"jwt_secret": Settings(_env_file=None).jwt_secret}, "EXPORTER_JWT_SECRET", State.PROBLEM),
        ({"s3_public_endpoint": None}, "EXPORTER_S3_PUBLIC_ENDPOINT", State.PROBLEM),
        ({"s3_public_endpoint": "localhost:9000"}, "EXPORTER_S3_PUBLIC_ENDPOINT", State.PROBLEM),
        ({"lease_seconds": 3}, "EXPORTER_LEASE_SECONDS", State.WARNING),
        ({"user_slots": 9}, "EXPORTER_USER_SLOTS", State.WARNING),
        (
            {"retention_days": 1, "download_url_seconds": 600_000},
            "EXPORTER_DOWNLOAD_URL_SECONDS",
            State.WARNING,
        ),
    ],
)
def test_unwise(changed: dict[str, Any], check: str, state: State) -> None:
    assert found(**changed) == {check: state}


def test_on_one_machine_it_may_be_as_it_likes() -> None:
    states = found(
        public_url="http://127.0.0.1:8000",
        s3_public_endpoint=None,
        jwt_secret=Settings(_env_file=None).jwt_secret,
    )
    assert states == {"EXPORTER_JWT_SECRET": State.WARNING}


def test_shown() -> None:
    area = Area("kafka")
    findings = [
        area.ok("a", "fine"),
        area.warning("b", "topic[3]", "wait"),
        area.problem("c", "gone", "mend"),
    ]
    assert worst(findings) is State.PROBLEM
    assert worst([]) is State.OK
    content = json.loads(as_json(findings))
    assert content["state"] == "problem"
    assert content["findings"][1]["advice"] == "wait"
    console = Console(file=io.StringIO(), width=100)
    show(findings, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "topic[3]" in text
    assert text.splitlines()[-1] == "1 problem, 1 warning"
