"""A client that sends too much does not delay others (S11): another user is measured in each flood."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from dev.app_process import ApiProcess
from dev.stack import Stack
from producers.tokens import sign_token
from stream_app.settings import Settings
from tests.e2e.deployment import Deployment
from tests.e2e.flood import KINDS
from tests.e2e.tables import psql
from tests.waiting import patient, until

ROOT = Path(__file__).parents[2]
SECONDS = 3.0
CALLS = 40
"""The least number of calls of the other user.

If hundreds of clients connect at the same moment, the next call waits until all of them have their responses:
some seconds on a busy machine. That is one call, and not one in ten.
"""
BEARABLE = patient(0.1)
"""Limit of the 90th percentile of the other user's calls in seconds, on an idle machine."""
BUSY = 8.0
"""Limit of the same as a multiple of the time without the flood, on a busy machine."""
TRIES = 3
"""Measurements on a busy machine."""


@pytest.fixture(scope="module")
def deployment(stack: Stack) -> Iterator[Deployment]:
    """A deployment without a worker: exports that a flood orders would take the processors from the API.

    Without one no export ends, so the flood must not reach the limit of a user: orders are accepted.
    """
    own = Deployment(stack, EXPORTER_USER_PENDING_LIMIT="1000000")
    yield own
    own.close()


@pytest.fixture(scope="module")
def flooded(stack: Stack, deployment: Deployment) -> Iterator[ApiProcess]:
    """The API of the deployment."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    api = stack.start_api(settings=deployment.variables)
    yield api
    api.stop()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def waits(api: ApiProcess, token: str) -> list[float]:
    """Return the seconds of each call of the other user, in ascending order."""
    found: list[float] = []
    headers = {"Authorization": f"Bearer {token}"}
    with httpx2.Client(base_url=api.address, headers=headers, timeout=patient(30)) as client:
        client.get("/exports/jobs")
        ends = time.monotonic() + SECONDS
        while time.monotonic() < ends or len(found) < CALLS:
            began = time.monotonic()
            assert client.get("/exports/jobs").status_code == 200
            found.append(time.monotonic() - began)
            time.sleep(0.02)
    return sorted(found)


@contextmanager
def flooding(api: ApiProcess, kind: str, token: str) -> Iterator[None]:
    """Flood the API during the block."""
    port = api.address.rpartition(":")[2]
    command = [sys.executable, "-m", "tests.e2e.flood", kind, port, token]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, env=os.environ) as flood:
        try:
            assert flood.stdout is not None
            assert flood.stdout.readline() == b"ready\n"
            yield
        finally:
            flood.kill()


def wait_for_order(stack: Stack, deployment: Deployment) -> None:
    """Wait until a further order is accepted: then none of those before was refused for the user's limit."""

    def orders() -> int:
        return int(psql(stack, "SELECT count(*) FROM export_jobs", database=deployment.name).splitlines()[1])

    known = orders()
    until(lambda: orders() > known)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_another_user_is_served_during_a_flood(
    stack: Stack, deployment: Deployment, flooded: ApiProcess, settings: Settings, kind: str
) -> None:
    """Other programs only make a time longer, so the shortest times are compared, each of several tries."""
    token, of_flooder = sign_token(settings, "bystander"), sign_token(settings, f"flooder-{kind}")
    before: list[float] = []
    during: list[float] = []
    while len(during) < TRIES and min(during, default=BEARABLE) >= BEARABLE:
        quiet = waits(flooded, token)
        with flooding(flooded, kind, of_flooder):
            busy = waits(flooded, token)
            if kind == "orders":
                wait_for_order(stack, deployment)
        for times, found in ((before, quiet), (during, busy)):
            times.append(found[int(len(found) * 0.9)])
        print(
            f"{kind}: p90 {before[-1] * 1000:.0f} -> {during[-1] * 1000:.0f} ms, "
            f"longest {busy[-1] * 1000:.0f} ms"
        )
    assert min(during) < max(BEARABLE, BUSY * min(before)), (before, during)
