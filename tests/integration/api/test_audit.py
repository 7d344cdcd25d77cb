"""Every call writes an audit line: actor, action, object, owner and outcome (S8)."""

import json
import re
from typing import Any
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from api.app import create_app
from producers.tokens import sign_token
from stream_app.notifications.delivery_links import DeliveryLinks
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore
from tests.integration.api.conftest import Harness, client_of, order
from tests.integration.api.test_jobs import complete, place
from tests.waiting import patient

SCHEDULE = order(schedule="daily", time_of_day="06:00")
BODIES: dict[str, Any] = {
    "requestExport": order(), "estimateExport": order(), "createSchedule": SCHEDULE,
    "changeSchedule": {"active": False},
}  # fmt: skip
OPERATIONS = [
    (operation["operationId"], method.upper(), path)
    for path, methods in create_app(Settings(_env_file=None)).openapi()["paths"].items()
    for method, operation in methods.items()
]
BRIEF = patient(2) / 3600
"""Hours for which the tokens of listeners are valid. Their streams end then."""


def audited(logs: list[Any]) -> list[dict[str, Any]]:
    return [line for line in logs if line["event"] == "call.audited"]


@pytest.mark.parametrize("who", ["anonymous", "owner", "other", "admin"])
async def test_every_operation_leaves_a_line_with_an_actor(
    api: Harness, storage: ObjectStore, who: str
) -> None:
    owner = f"owner-{uuid4()}"
    people = {
        "anonymous": (None, "anonymous"),
        "owner": (sign_token(api.settings, owner, hours=BRIEF), owner),
        "other": (sign_token(api.settings, "other-1", hours=BRIEF), "other-1"),
        "admin": (sign_token(api.settings, "admin-1", ["exports:admin"], hours=BRIEF), "admin-1"),
    }
    async with api.user(user_id=owner) as client:
        job_id = await place(client)
        schedule_id = (await client.post("/exports/schedules", json=SCHEDULE)).json()["id"]
    await complete(api, storage, job_id)
    ids = {"job_id": job_id, "schedule_id": schedule_id, "token": "x.y"}
    missing = []
    for name, method, path in sorted(OPERATIONS, key=lambda item: item[1] == "DELETE"):
        token, actor = people[who]
        if token is not None:
            token = sign_token(api.settings, actor, ["exports:admin"] if who == "admin" else [], hours=BRIEF)
        address = re.sub(r"{(\w+)}", lambda found: str(ids.get(found[1], "1")), path)
        async with client_of(api.app, token) as client:
            with capture_logs() as logs:
                body = {"json": BODIES[name]} if name in BODIES else {}
                response = await client.request(method, address, **body)
        lines = audited(logs)
        if len(lines) != 1:
            missing.append(name)
            continue
        (line,) = lines
        public = path in ("/healthz", "/readyz", "/metrics") or "token" in path
        # If a body is refused before it is read, no route is known yet.
        assert line["action"] in (name, f"{method} {address}")
        assert line["actor"] == ("anonymous" if public else actor), name
        assert line["status"] == response.status_code
        assert line["outcome"] == ("allowed" if response.status_code < 400 else "refused"), name
        assert line["client"] == "127.0.0.1"
        if "{job_id}" in path and line["outcome"] == "allowed":
            assert (line["object"], line["owner"]) == (f"job:{job_id}", owner), name
        if "{schedule_id}" in path and line["outcome"] == "allowed":
            assert line["owner"] == owner, name
        assert "x.y" not in json.dumps(line)
    assert missing == []


async def test_lines_are_numbered_without_gaps_and_have_the_roles(api: Harness) -> None:
    with capture_logs() as logs:
        async with api.user("exports:admin", "b", "a") as admin, api.user() as nobody:
            for client in (admin, nobody, admin):
                await client.get("/exports/jobs")
                await client.get("/exports/nowhere")
    lines = audited(logs)
    numbers = [line["number"] for line in lines]
    assert numbers == list(range(numbers[0], numbers[0] + 6))
    assert lines[0]["roles"] == ["a", "b", "exports:admin"]
    assert lines[0]["object"] == "jobs:all"
    assert lines[1]["status"] == 404


async def test_refusals_leave_lines_too(api: Harness) -> None:
    with capture_logs() as logs:
        async with client_of(api.app, None) as client:
            await client.post("/exports/jobs", json=order())
            await client.get("/exports/jobs", headers={"Authorization": "Bearer a.b.c"})
        async with api.user() as client:
            await client.post("/exports/jobs", json=order(scope="all"))
    assert [(line["status"], line["outcome"]) for line in audited(logs)] == [
        (401, "refused"),
        (401, "refused"),
        (403, "refused"),
    ]


async def test_a_cancellation_event_names_its_user(api: Harness) -> None:
    async with api.user(user_id="ada") as ada, api.user("exports:operate", user_id="olga") as olga:
        job_id = await place(ada)
        assert (await olga.delete(f"/exports/jobs/{job_id}")).status_code == 202
    events = [event for event in await api.published(job_id) if event.type == "export.cancel_requested"]
    assert [event.data for event in events] == [{"by": "olga"}]


async def test_the_actor_of_a_link_is_its_delivery(api: Harness) -> None:
    path = DeliveryLinks(api.settings).unsubscribe(uuid4()).partition("/exports")[2]
    async with client_of(api.app, None) as client:
        with capture_logs() as logs:
            await client.get(f"/exports{path}")
    (line,) = audited(logs)
    assert line["actor"].startswith("delivery:")
    assert path.rpartition("/")[2] not in json.dumps(line)


async def test_an_operator_sees_no_data(api: Harness, storage: ObjectStore) -> None:
    """S14: an operator sees the status of a job, and no text of its user."""
    secret = f"kind-{uuid4().hex}"
    async with api.user(user_id="ada") as ada, api.user("exports:operate", user_id="olga") as olga:
        job_id = await place(ada, filters={"kind": {"in": ["proof", secret]}}, columns=["id", "kind"])
        own = await place(olga, columns=["id"])
        for path in ("/exports/jobs", "/exports/jobs?user_id=ada", f"/exports/jobs/{job_id}"):
            response = await olga.get(path)
            assert response.status_code == 200
            assert job_id in response.text
            assert secret not in response.text
        view = (await olga.get(f"/exports/jobs/{job_id}")).json()
        assert (view["user_id"], view["status"], view["columns"]) == ("ada", "pending", None)
        assert (await olga.get(f"/exports/jobs/{own}")).json()["columns"] == ["id"]
        await api.set(job_id, status="failed", error_code="bad", error_message=f"no {secret} here")
        view = (await olga.get(f"/exports/jobs/{job_id}")).json()
        assert view["error"] == {"code": "bad", "message": "only the user of the job can see the reason"}
        async with olga.stream("GET", f"/exports/jobs/{job_id}/events") as stream:
            told = "".join([part async for part in stream.aiter_text()])
        assert '"failed"' in told
        assert secret not in told
        # An operator cannot remove the file of a job that has ended.
        assert (await olga.delete(f"/exports/jobs/{job_id}")).status_code == 403
