"""The API with two sources, one of which does not answer, and with a datasets file that changes."""

import asyncio
import time
from pathlib import Path

import pytest

from api import services as services_module
from api.datasets import routes
from producers.tokens import sign_token
from stream_app.datasets.watcher import DatasetsWatcher
from stream_app.settings import Settings
from tests.integration.api.conftest import changed, client_of, order, running
from tests.tcp_proxy import proxied
from tests.waiting import patient, until_async

NEAR = '[datasets.near]\ntable = "public.ledger"\nowner = "user_id"\n'
FAR = (
    '[sources.far]\nurl_env = "FAR_DATABASE_URL"\n'
    '[datasets.far]\nsource = "far"\ntable = "public.proofs"\nowner = "user_id"\n'
)

LIMIT = patient(2)
"""Time limit of the calls. Four calls that wait for each other would take four times as long."""


def with_datasets(settings: Settings, folder: Path, text: str) -> tuple[Settings, Path]:
    path = folder / "datasets.toml"
    path.write_text(text)
    return changed(settings, datasets_file=path), path


async def test_a_source_that_hangs_is_an_error_of_its_datasets(
    api_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list comes in time, other datasets can be requested, and the API stays ready."""
    monkeypatch.setattr(routes, "CATALOGUE_SECONDS", LIMIT)
    monkeypatch.setattr(services_module, "TABLE_SECONDS", LIMIT)
    settings, _ = with_datasets(api_settings, tmp_path, NEAR + FAR)
    async with proxied(settings.source_dsn) as (proxy, url):
        monkeypatch.setenv("FAR_DATABASE_URL", url)
        proxy.is_silent = True
        async with running(settings) as app, client_of(app, sign_token(settings, "u")) as client:
            began = time.monotonic()
            found = {
                item["name"]: item for item in (await client.get("/exports/datasets")).json()["datasets"]
            }
            assert time.monotonic() - began < 3 * LIMIT
            assert found["near"]["error"] is None
            assert found["near"]["columns"]
            assert "its source database does not answer" in found["far"]["error"]
            assert (await client.post("/exports/jobs", json=order(export_type="near"))).status_code == 202
            began = time.monotonic()
            calls = (client.post("/exports/jobs", json=order(export_type="far")) for _ in range(4))
            assert [answer.status_code for answer in await asyncio.gather(*calls)] == [503] * 4
            assert time.monotonic() - began < 3 * LIMIT, "users wait for the answer, and not for each other"

            async def seen() -> bool:
                answer = await client.get("/readyz")
                assert answer.status_code == 200
                return bool(answer.json()["sources"] == {"default": "ok", "far": "unavailable"})

            await until_async(seen)
            proxy.is_silent = False
            await proxy.drop()

            async def again() -> bool:
                listed = (await client.get("/exports/datasets")).json()["datasets"]
                return all(item["error"] is None for item in listed)

            await until_async(again)
            assert (await client.get("/readyz")).json()["sources"]["far"] == "ok"


async def test_a_changed_file_is_used_and_a_faulty_one_is_shown_to_operators(
    api_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, path = with_datasets(api_settings, tmp_path, NEAR)
    monkeypatch.setenv("FAR_DATABASE_URL", settings.source_dsn)

    class Fast(DatasetsWatcher):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **{**options, "poll": 0.05})  # type: ignore[arg-type]

    monkeypatch.setattr(services_module, "DatasetsWatcher", Fast)
    async with running(settings) as app, client_of(app, sign_token(settings, "u")) as client:

        async def names() -> list[str]:
            return [item["name"] for item in (await client.get("/exports/datasets")).json()["datasets"]]

        assert await names() == ["near"]
        path.write_text(NEAR + FAR)

        async def both() -> bool:
            return await names() == ["near", "far"]

        await until_async(both)
        assert (
            await client.post("/exports/jobs", json=order(export_type="far", scope="all"))
        ).status_code == 403
        path.write_text(NEAR + FAR.replace("table", "tabel"))

        async def problem() -> str:
            answer = await client.get("/readyz")
            assert answer.status_code == 200
            return str(answer.json()["datasets"]["problem"] or "")

        assert "did you mean table?" in await until_async(problem)
        assert await names() == ["near", "far"], "the last file that was right is in use"
        path.write_text(FAR)

        async def only_far() -> bool:
            return await names() == ["far"]

        await until_async(only_far)
        assert (await client.get("/readyz")).json()["datasets"]["problem"] is None
        refused = await client.post("/exports/jobs", json=order(export_type="near"))
        assert (refused.status_code, refused.json()["code"]) == (422, "unknown_dataset")
