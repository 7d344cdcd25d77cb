"""HEAD has the status and the headers of GET, also over a real connection, and begins no stream."""

import httpx2
import pytest

from tests.integration.api.conftest import Harness
from tests.integration.api.test_events import served
from tests.integration.api.test_jobs import place
from tests.waiting import at_most, patient, until_async

PATHS = ["/healthz", "/readyz", "/exports/jobs", "/exports/datasets", "/openapi.json", "/page/sign-in.json"]
CHANGING = {"date", "x-request-id"}


@pytest.mark.parametrize("path", PATHS)
async def test_head_is_get_without_its_body(api: Harness, path: str) -> None:
    async with api.user() as client:

        async def answers() -> list[httpx2.Response] | None:
            """Return the answers to GET and HEAD, unless what they show has changed between them.

            A part that still connects is not ready.
            """
            got, probed, later = await client.get(path), await client.head(path), await client.get(path)
            return [got, probed] if got.is_success and got.content == later.content else None

        got, probed = await until_async(answers)
    assert got.content
    assert (probed.status_code, probed.content) == (200, b"")
    shown, expected = (
        {name: value for name, value in answer.headers.items() if name not in CHANGING}
        for answer in (probed, got)
    )
    assert shown == expected


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/exports/jobs", "/exports/events", "/"])
async def test_a_connection_is_used_again_after_head(api: Harness, path: str) -> None:
    """A body would be read as the next answer, and a stream would have no end."""
    async with api.user() as client, served(api.app) as address, at_most(60):
        headers = {"Authorization": client.headers["Authorization"]}
        async with httpx2.AsyncClient(
            base_url=address, headers=headers, limits=httpx2.Limits(max_connections=1), timeout=patient(60)
        ) as caller:
            for _ in range(3):
                assert (await caller.head(path)).status_code == 200
                assert (await caller.get("/healthz")).json()["status"] == "ok"


async def test_head_of_a_stream_has_its_headers(api: Harness) -> None:
    async with api.user() as client, at_most(60):
        job = await place(client)
        for path in ("/exports/events", f"/exports/jobs/{job}/events"):
            answer = await client.head(path)
            assert (answer.status_code, answer.content) == (200, b"")
            assert answer.headers["content-type"].startswith("text/event-stream")
        assert (await client.head("/exports/jobs:estimate")).status_code == 405


async def test_metrics_name_the_method_and_the_route(api: Harness) -> None:
    async with api.user() as client:
        await client.head("/exports/datasets")
        numbers = (await client.get("/metrics")).text
    found = [line for line in numbers.splitlines() if 'route="/exports/datasets"' in line]
    assert any('method="HEAD"' in line for line in found)
