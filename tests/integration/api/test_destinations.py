"""Destinations over HTTP: who sees and uses them, and the test of one."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from stream_app.datasets.destinations import S3Destination
from tests.integration.api.conftest import Harness, order
from tests.integration.api.test_jobs import place


@pytest.fixture
def places(api: Harness) -> Iterator[Harness]:
    """The API with two destinations: for everybody, and for the role partner."""
    datasets, bucket = api.app.state.services.datasets, api.settings.s3_bucket
    before = datasets.content
    found = (
        S3Destination(name="own", kind="s3", bucket=bucket, prefix="sent", label="Our own"),
        S3Destination(
            name="lake", kind="s3", bucket="none", roles=("partner",), endpoint="https://lake.example"
        ),
    )
    datasets.replace(replace(before, destinations={item.name: item for item in found}))
    yield api
    datasets.replace(before)


async def names(client: Any) -> dict[str, Any]:
    listed = (await client.get("/exports/destinations")).json()["destinations"]
    return {item["name"]: item["host"] for item in listed}


async def test_the_catalogue_has_those_that_the_form_can_offer(places: Harness) -> None:
    async with places.user("partner") as partner, places.user("exports:operate") as operator:
        for user, expected in ((partner, ["own", "lake"]), (operator, ["own"])):
            listed = (await user.get("/exports/datasets")).json()["destinations"]
            assert [item["name"] for item in listed] == expected
            assert listed[0] | {"host": None} == {
                "name": "own",
                "kind": "s3",
                "label": "Our own",
                "labels": {},
                "datasets": None,
                "host": None,
            }


async def test_users_see_those_they_can_use_and_no_hosts(places: Harness) -> None:
    async with (
        places.user() as plain,
        places.user("partner") as partner,
        places.user("exports:operate") as operator,
    ):
        assert await names(plain) == {"own": None}
        assert await names(partner) == {"own": None, "lake": None}
        assert await names(operator) == {"own": None, "lake": "https://lake.example"}


async def test_a_request_names_one_that_is_for_its_user(places: Harness) -> None:
    async with places.user() as plain, places.user("partner") as partner:
        refused = await plain.post("/exports/jobs", json=order(destination="lake"))
        unknown = await plain.post("/exports/jobs", json=order(destination="nowhere"))
        assert (refused.status_code, refused.json()["code"]) == (422, "unknown_destination")
        assert refused.json()["detail"].replace("lake", "X") == unknown.json()["detail"].replace(
            "nowhere", "X"
        )
        assert refused.json()["field"] == "destination"
        job = await place(partner, destination="lake")
        assert (await partner.get(f"/exports/jobs/{job}")).json()["destination"] == "lake"
        again = await partner.post(f"/exports/jobs/{job}:rerun")
        assert again.status_code == 202
    record = await places.queries.get(UUID(job))
    assert record is not None
    assert record.claims == {"roles": ["partner"]}


async def test_a_schedule_keeps_the_role_and_loses_it_with_the_token(places: Harness) -> None:
    body = order(destination="lake", schedule="daily", time_of_day="06:00")
    async with places.user("partner", user_id="p") as partner, places.user(user_id="p") as without:
        refused = await without.post("/exports/schedules", json=body)
        assert (refused.status_code, refused.json()["code"]) == (422, "unknown_destination")
        made = (await partner.post("/exports/schedules", json=body)).json()
        assert made["destination"] == "lake"
        assert made["granted_until"] is not None
        path = f"/exports/schedules/{made['id']}"
        assert (await partner.post(f"{path}:run")).status_code == 202
        lost = await without.post(f"{path}:run")
        assert lost.status_code == 409
        assert "there is no destination" in lost.json()["detail"]
        patched = await partner.patch(path, json={"destination": None})
        assert patched.json()["destination"] is None


async def test_operators_test_a_destination(places: Harness) -> None:
    async with places.user("exports:operate") as operator, places.user() as plain:
        tested = (await operator.post("/exports/destinations/own:test")).json()
        assert tested == {
            "ok": True,
            "steps": [{"step": step, "error": None} for step in ("sign in", "write", "read", "remove")],
        }
        assert (await plain.post("/exports/destinations/own:test")).status_code == 403
        assert (await operator.post("/exports/destinations/nowhere:test")).status_code == 404
