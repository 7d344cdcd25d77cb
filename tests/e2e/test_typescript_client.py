"""The TypeScript client: built strictly from openapi.json, and its own tests against the running system."""

import json
import os
import re
import time

import pytest

from producers.tokens import sign_token
from stream_app.notifications.webhook import receiver_key, secret_text, signature_headers
from stream_app.settings import Settings
from tests.e2e.conftest import System
from tests.node_packages import CLIENT, build_client, run


@pytest.mark.slow
def test_the_typescript_client_passes_its_tests_on_the_running_system(
    system: System, settings: Settings
) -> None:
    build_client()
    key = receiver_key(b"k" * 32, "user-1", "https://hooks.example.com/x")
    body = b'{"type":"export.completed","timestamp":"-","data":{"job_id":"1","status":"completed"}}'
    signed = {
        "secret": secret_text(key),
        "body": body.decode(),
        "headers": signature_headers([b"o" * 32, key], "msg_1", int(time.time()), body),
    }
    variables = {
        **os.environ,
        "EXPORTER_API_URL": system.api.address,
        "EXPORTER_TOKEN": sign_token(settings, "typescript-1", ["exports:all"]),
        "SIGNED_WEBHOOK": json.dumps(signed),
    }
    # The files wait most of the time. By default a machine of two processors runs one after the other.
    beside = "--test-concurrency=8"
    said = run("node", "--test", beside, "--test-reporter=tap", "dist/test/", env=variables)
    assert re.search(r"^# pass (\d+)$", said, re.MULTILINE), said
    assert "# fail 0" in said
    assert "# skipped 0" in said
    assert int(re.findall(r"^# pass (\d+)$", said, re.MULTILINE)[0]) >= 10


def test_the_lock_file_of_the_typescript_client_names_no_registry() -> None:
    lock = json.loads((CLIENT / "package-lock.json").read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert packages
    assert all("resolved" not in package and package["integrity"] for package in packages.values())
