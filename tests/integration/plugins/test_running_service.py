"""A worker with plug-ins: it uses the good ones, says which it refuses, and works without these."""

import asyncio
import json
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from dev.app_process import AppProcess
from dev.stack import ROOT, Stack
from stream_app.storage.object_store import ObjectStore
from streaming_exporter.events import ExportRequest, request_event
from streaming_exporter.kafka_connection import ensure_topics
from tests.e2e.deployment import Deployment
from tests.installations import build_wheel
from tests.log_files import logged
from tests.waiting import until_async

BROKEN = """
[streaming_exporter.formats]
gone = broken_package.gone:Format
csv = exporter_example_plugins.tsv:TsvFormat
later = broken_package:LaterFormat

[streaming_exporter.masks]
gone_mask = broken_package.gone:Mask
"""

LATER = """
from exporter_example_plugins.tsv import TsvFormat

class LaterFormat(TsvFormat):
    name = "later"
    interface = 99
"""

DATASETS = """
[datasets.accounts]
table = "{schema}.accounts"
order = ["id"]

[datasets.accounts.columns.number]
mask = "iban"
unmasked_for = ["bank"]

[datasets.closed]
table = "{schema}.accounts"

[datasets.closed.columns.number]
mask = "gone_mask"
"""


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A folder with the example package, and a package whose plug-ins cannot be used."""
    folder = tmp_path / "packages"
    with zipfile.ZipFile(build_wheel(ROOT / "examples" / "plugins", tmp_path / "wheel")) as wheel:
        wheel.extractall(folder)
    info = folder / "broken_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(BROKEN)
    (folder / "broken_package.py").write_text(LATER)
    return folder


@pytest.fixture
async def accounts(source_dsn: str) -> AsyncIterator[str]:
    """A table of bank accounts; yields its schema."""
    connection = await asyncpg.connect(source_dsn)
    await connection.execute(
        """CREATE SCHEMA plugins; GRANT USAGE ON SCHEMA plugins TO PUBLIC;
        CREATE TABLE plugins.accounts (id int PRIMARY KEY, number text);
        INSERT INTO plugins.accounts VALUES (1, 'DE89370400440532013000'), (2, NULL);
        GRANT SELECT ON plugins.accounts TO PUBLIC"""
    )
    yield "plugins"
    await connection.execute("DROP SCHEMA plugins CASCADE")
    await connection.close()


def lines(worker: AppProcess, event: str) -> list[dict[str, Any]]:
    """Return the lines of the worker's log with this event."""
    return [line for line in logged(worker.log) if line["event"] == event]


@pytest.mark.slow
async def test_a_worker_uses_the_good_plugins_and_refuses_the_others(
    stack: Stack, packages: Path, accounts: str, tmp_path: Path
) -> None:
    file = tmp_path / "datasets.toml"
    file.write_text(DATASETS.format(schema=accounts))
    variables = {"PYTHONPATH": str(packages), "EXPORTER_LOG_FORMAT": "json"}
    deployment = await asyncio.to_thread(Deployment, stack, EXPORTER_DATASETS_FILE=str(file))
    await ensure_topics(deployment.settings)
    worker = await asyncio.to_thread(stack.start_worker, settings={**deployment.variables, **variables})
    database = await asyncpg.connect(deployment.settings.database_url.get_secret_value())
    try:

        async def export(name: str, kind: str, **claims: Any) -> Any:
            request = ExportRequest(
                user_id="u",
                export_type=name,
                format=kind,
                scope="all",
                claims=claims,
                columns=["id", "number"],
            )
            event = request_event(request, source="/t")
            await deployment.publish([event])
            job = "SELECT * FROM export_jobs WHERE id = $1 AND status IN ('completed', 'failed')"
            return await until_async(lambda: database.fetchrow(job, event.job_id))

        storage = ObjectStore(deployment.settings)
        masked = await export("accounts", "tsv")
        assert storage.read(masked["file_path"]) == b"id\tnumber\n1\tDE****3000\n2\t\\N\n"
        assert masked["content_type"] == "text/tab-separated-values; charset=utf-8"
        plain = await export("accounts", "csv", roles=["bank"])
        assert b"DE89370400440532013000" in storage.read(plain["file_path"])
        for name, kind, code in (
            ("accounts", "gone", "unknown_format"),
            ("accounts", "later", "unknown_format"),
            ("closed", "csv", "missing_mask"),
        ):
            failed = await export(name, kind)
            assert (failed["status"], failed["error_code"]) == ("failed", code)
        loaded = {line["name"] for line in lines(worker, "plugin.loaded")}
        refused = {line["name"]: line["reason"] for line in lines(worker, "plugin.refused")}
        assert loaded == {"tsv", "iban"}
        assert refused.keys() == {"gone", "csv", "later", "gone_mask"}
        assert "made for version 99" in refused["later"]
        assert "No module named" in refused["gone"]
        doctor = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "producers", "doctor", "--json"],
            env={**stack.environment(), **deployment.variables, **variables},
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        findings = json.loads(doctor.stdout)["findings"]
        problems = {item["check"] for item in findings if item["area"] == "plug-ins" and item["advice"]}
        assert problems == refused.keys()
    finally:
        await database.close()
        await asyncio.to_thread(worker.stop)
        await asyncio.to_thread(deployment.close)
