"""The examples, each started as its README says: a program asks for an export and gets its file."""

import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from uuid import uuid4

import asyncpg
import httpx2
import pytest

from dev.process import free_ports
from dev.stack import ROOT
from producers.tokens import sign_token
from stream_app.settings import Settings
from tests.e2e.conftest import System
from tests.node_packages import build_client, run
from tests.state_databases import create_database, with_database
from tests.waiting import patient, until

pytestmark = pytest.mark.slow
EXAMPLES = ROOT / "examples"
USER = "user-1"

get, post = partial(httpx2.get, timeout=patient(30)), partial(httpx2.post, timeout=patient(30))
"""Calls, with more time than the library's default: the first one of a program can take seconds."""


@pytest.fixture
def variables(system: System, settings: Settings) -> dict[str, str]:
    """The environment that the READMEs set up."""
    exporter = {name: value for name, value in system.stack.settings().items() if "KAFKA" in name}
    return {
        **os.environ,
        **exporter,
        "EXPORTER_PUBLIC_URL": system.api.address,
        "EXPORTER_TOKEN": sign_token(settings, USER),
        "SHOP_USER": USER,
    }


@pytest.fixture
async def database(system: System, settings: Settings) -> AsyncIterator[str]:
    """The URL of an empty database of the shop."""
    name = f"shop_{uuid4().hex}"
    await create_database(system.stack, name)
    yield with_database(settings, name).database_url.get_secret_value()
    admin = await asyncpg.connect(system.stack.postgres.admin_url())
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


@contextmanager
def running(folder: Path, log: Path, env: Mapping[str, str], *command: str) -> Iterator[None]:
    """Run a program in ``folder`` during the block; its output goes to ``log``."""
    with log.open("w") as output:
        child = subprocess.Popen(command, cwd=folder, env=env, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield
        assert child.poll() is None, log.read_text()
    finally:
        child.terminate()
        child.wait()


def answers(url: str, log: Path) -> None:
    """Wait until a program serves ``url``."""

    def call() -> bool:
        try:
            return get(url).status_code < 500
        except httpx2.TransportError:
            return False

    until(call, within=60, otherwise=log.read_text)


def get_file(url: str, job: str, log: Path) -> bytes:
    """Wait until the job of a program that answers in JSON is completed; return its file."""
    path = f"{url}/exports/{job}"
    until(
        lambda: get(path).json()["status"] == "completed",
        within=60,
        otherwise=lambda: f"{get(path).text}\n{log.read_text()}",
    )
    return get(f"{path}/file", follow_redirects=True).raise_for_status().content


def test_fastapi_closes_a_month_and_exports_it(
    variables: dict[str, str], database: str, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    url, log = f"http://127.0.0.1:{port}", tmp_path / "log"
    env = {**variables, "SHOP_DATABASE_URL": database.replace("postgresql:", "postgresql+asyncpg:")}
    serve = ("-m", "uvicorn", "app:app", "--port", str(port))
    with running(EXAMPLES / "fastapi", log, env, sys.executable, *serve):
        answers(f"{url}/docs", log)
        assert post(f"{url}/months/2026-13:close").status_code == 422
        closed = post(f"{url}/months/2025-10:close").raise_for_status().json()
        assert post(f"{url}/months/2025-10:close").json() == closed
        assert get_file(url, closed["job_id"], log).startswith(b"PK"), "a workbook"


def test_django_has_a_button_progress_and_a_download(
    variables: dict[str, str], database: str, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    url, log, relay_log = f"http://127.0.0.1:{port}", tmp_path / "log", tmp_path / "relay"
    folder, env = EXAMPLES / "django", {**variables, "SHOP_DATABASE_URL": database}
    manage = (sys.executable, "manage.py")
    subprocess.run([*manage, "migrate", "-v0"], cwd=folder, env=env, check=True)
    subprocess.run(
        [*manage, "makemigrations", "--check", "--dry-run", "-v0"], cwd=folder, env=env, check=True
    )
    with (
        running(folder, log, env, *manage, "runserver", "--noreload", str(port)),
        running(folder, relay_log, env, *manage, "relay_exports"),
        httpx2.Client(base_url=url, follow_redirects=True, timeout=patient(30)) as browser,
    ):
        answers(url, log)
        token = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', browser.get("/").text)
        shown = browser.post("/exports/", data={"csrfmiddlewaretoken": token[0]}).raise_for_status()

        def link() -> list[str]:
            page = browser.get(shown.url).raise_for_status()
            return re.findall(r'href="(/exports/[^"]+/file/)"', page.text)

        found = until(link, within=60, otherwise=lambda: log.read_text() + relay_log.read_text())
        assert browser.get(found[0]).raise_for_status().content.startswith(b"id,")
        assert browser.post("/exports/").status_code == 403, "a form of another site"


def test_node_follows_events_and_receives_a_signed_webhook(variables: dict[str, str], tmp_path: Path) -> None:
    build_client()
    folder = EXAMPLES / "node"
    run("npm", "ci", "--prefer-offline", folder=folder)
    (port,) = free_ports(1)
    hook, log = f"http://127.0.0.1:{port}/hook", tmp_path / "log"
    token = {"Authorization": f"Bearer {variables['EXPORTER_TOKEN']}"}
    path = f"{variables['EXPORTER_PUBLIC_URL']}/exports/webhook-secret"
    secret = get(path, params={"url": hook}, headers=token).raise_for_status().json()["secret"]
    env = {**variables, "SHOP_WEBHOOK_URL": hook, "SHOP_WEBHOOK_SECRETS": secret}
    with running(folder, log, env, "node", "webhook.mjs", str(port)):
        answers(hook, log)
        forged = post(hook, json={"type": "export.completed"}, headers={"webhook-id": "1"})
        assert forged.status_code == 401
        said = run("node", "export.mjs", str(tmp_path / "files"), folder=folder, env=env)
        (file,) = (tmp_path / "files").iterdir()
        assert said.split() == [str(file)]
        until(lambda: "export.completed" in log.read_text(), within=60, otherwise=log.read_text)


def test_spring_asks_over_kafka_and_hears_the_outcome(variables: dict[str, str], tmp_path: Path) -> None:
    folder = EXAMPLES / "spring"
    (port,) = free_ports(1)
    url, log = f"http://127.0.0.1:{port}", tmp_path / "log"
    run("mvn", "--quiet", "--batch-mode", "package", folder=folder)
    jar = ("java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-jar", "target/shop.jar")
    with running(folder, log, {**variables, "PORT": str(port)}, *jar):
        answers(f"{url}/exports/{uuid4()}", log)
        job = post(f"{url}/exports").raise_for_status().json()["job_id"]
        assert get_file(url, job, log).startswith(b"id,")
