"""Every route is called by every kind of user. A route without a row here fails the test."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import httpx2
import pytest
import pytest_asyncio
from fastapi import FastAPI
from starlette.routing import Mount

from api.app import create_app
from producers.tokens import sign_token
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore
from tests.integration.api.conftest import Harness, changed, client_of, harness_of, order
from tests.integration.api.test_jobs import complete, place
from tests.waiting import patient

AUDIENCE = "https://exports.example.com"
BRIEF = patient(2) / 3600
"""Hours for which the tokens of listeners are valid. Their streams end then."""


@dataclass(frozen=True)
class Rule:
    """Expected statuses: without a valid token, of another user, the owner, `exports:all`, an administrator.

    ``operator`` has only the role `exports:operate` and can see the status of jobs, but no data.
    """

    invalid: int
    other: int
    owner: int
    all_rows: int
    admin: int
    operator: int


def public(status: int) -> Rule:
    return Rule(status, status, status, status, status, status)


def anybody(status: int) -> Rule:
    return Rule(401, status, status, status, status, status)


def owned(status: int) -> Rule:
    """Return the rule of a call for the owner of a job and administrators; operators get 403."""
    return Rule(401, 404, status, 404, status, 403)


def overseen(status: int) -> Rule:
    return Rule(401, 404, status, 404, status, status)


def operated(status: int) -> Rule:
    """Return the rule of a call for those who operate the service."""
    return Rule(401, 403, 403, 403, status, status)


def scheduled(status: int) -> Rule:
    """Return the rule of a call for the owner of a schedule and administrators, not for operators."""
    return Rule(401, 404, status, 404, status, 404)


@dataclass(frozen=True)
class Case:
    """One call. ``{job_id}`` and ``{schedule_id}`` are the owner's; ``{token}`` is invalid."""

    call: str
    rule: Rule
    body: Any = None
    query: str = ""


FURTHER_NAMES = {
    "token": "x.y",
    "part": "other",
    "name": "x",
    "number": "1",
    "letter_id": "999999999",
    "language": "xx",
}
"""Values of the other parameters in paths."""

SCHEDULE = order(schedule="daily", time_of_day="06:00")
PRIVILEGED = Rule(401, 403, 403, 202, 202, 403)

CASES = [
    Case("POST /exports/jobs", anybody(202), order()),
    Case("POST /exports/jobs", PRIVILEGED, order(scope="all")),
    Case("POST /exports/jobs:estimate", anybody(200), order()),
    Case("POST /exports/jobs:estimate", Rule(401, 403, 403, 200, 200, 403), order(scope="all")),
    Case("GET /exports/jobs", anybody(200)),
    Case("GET /exports/jobs", Rule(401, 403, 200, 403, 200, 200), query="?user_id={owner}"),
    Case("GET /exports/jobs/{job_id}", overseen(200)),
    Case("DELETE /exports/jobs/{job_id}", overseen(202)),
    Case("POST /exports/jobs/{job_id}:rerun", overseen(202)),
    Case("POST /exports/jobs/{job_id}:password", Rule(401, 404, 409, 404, 403, 403)),
    Case("GET /exports/jobs/{job_id}/why", Rule(401, 404, 403, 404, 200, 200)),
    Case("POST /exports/jobs:cancel", operated(202), {"user_id": "nobody"}),
    Case("GET /exports/usage", operated(200)),
    Case("GET /exports/operations", operated(200)),
    Case("GET /exports/operations/doctor", operated(200)),
    Case("GET /exports/dead-letters", operated(200), query="?since=tomorrow"),
    Case("GET /exports/dead-letters/{letter_id}", operated(404)),
    Case("POST /exports/dead-letters:redrive", operated(200), {"letters": [{"id": "999999999"}]}),
    Case("POST /exports/dead-letters:discard", operated(200), {"letters": [{"id": "999999999"}]}),
    Case("GET /exports/pauses", operated(200)),
    Case("POST /exports/pauses", operated(200), {"scope": "dataset:ledger"}),
    Case("DELETE /exports/pauses", operated(404), query="?scope=dataset:none"),
    Case("GET /exports/jobs/{job_id}/events", overseen(200)),
    Case("GET /exports/events", anybody(200)),
    Case("GET /exports/jobs/{job_id}/download", owned(307)),
    Case("HEAD /exports/jobs/{job_id}/download", owned(307)),
    Case("GET /exports/jobs/{job_id}/manifest", owned(200)),
    Case("GET /exports/jobs/{job_id}/files", owned(200)),
    Case("GET /exports/jobs/{job_id}/files/{number}", owned(307)),
    Case("HEAD /exports/jobs/{job_id}/files/{number}", owned(307)),
    Case("GET /exports/jobs/{job_id}/deliveries", owned(200)),
    Case("DELETE /exports/jobs/{job_id}/links", owned(200)),
    # Webhooks are not set up here, so every user gets the same error.
    Case("GET /exports/webhook-secret", anybody(422), query="?url=https://hooks.example.com/x"),
    Case("GET /exports/datasets", anybody(200)),
    Case("GET /exports/destinations", anybody(200)),
    Case("POST /exports/destinations/{name}:test", operated(404)),
    Case("GET /exports/me", anybody(200)),
    Case("POST /exports/schedules", anybody(201), SCHEDULE),
    Case("POST /exports/schedules", Rule(401, 403, 403, 201, 201, 403), SCHEDULE | {"scope": "all"}),
    Case("POST /exports/schedules:estimate", anybody(200), SCHEDULE),
    Case("POST /exports/schedules:estimate", Rule(401, 403, 403, 200, 200, 403), SCHEDULE | {"scope": "all"}),
    Case("POST /exports/schedules/{schedule_id}:estimate", scheduled(200), {"format": "json"}),
    Case("GET /exports/schedules", anybody(200)),
    Case("GET /exports/schedules", Rule(401, 403, 200, 403, 200, 403), query="?user_id={owner}"),
    Case("GET /exports/schedules/{schedule_id}", scheduled(200)),
    Case("PATCH /exports/schedules/{schedule_id}", scheduled(200), {"active": False}),
    Case("PATCH /exports/schedules/{schedule_id}", Rule(401, 404, 403, 404, 403, 404), {"scope": "all"}),
    Case("DELETE /exports/schedules/{schedule_id}", scheduled(204)),
    Case("POST /exports/schedules/{schedule_id}:run", scheduled(202)),
    Case("GET /exports/schedules/{schedule_id}/runs", scheduled(200)),
    # These calls need a signature in the path. Here it is wrong.
    Case("GET /exports/links/{token}", public(404)),
    Case("HEAD /exports/links/{token}", public(404)),
    Case("GET /exports/links/{token}/files", public(404)),
    Case("GET /exports/links/{token}/files/{number}", public(404)),
    Case("HEAD /exports/links/{token}/files/{number}", public(404)),
    Case("GET /exports/unsubscribe/{token}", public(404)),
    Case("POST /exports/unsubscribe/{token}", public(404)),
    Case("GET /healthz", public(200)),
    Case("GET /readyz", public(200)),
    Case("GET /metrics", public(200)),
    Case("GET /", public(200)),
    Case("GET /page/sign-in.json", public(200)),
    Case("GET /page/messages/{language}.json", public(404)),
    Case("HEAD /page/messages/{language}.json", public(404)),
    Case("GET /page/messages/{language}/{part}.json", public(404)),
    Case("HEAD /page/messages/{language}/{part}.json", public(404)),
    Case("HEAD /", public(200)),
    Case("GET /docs", public(200)),
    Case("GET /docs/assets/{name}", public(404)),
    Case("GET /redoc", public(308)),
    Case("GET /openapi.json", public(200)),
]


def routes(app: Any) -> Iterator[str]:
    for route in getattr(app, "original_router", app).routes:
        if isinstance(route, Mount):
            assert route.path == "/page", "the page's own files; everything else is in the table"
        elif hasattr(route, "original_router"):
            yield from routes(route)
        else:
            yield from (f"{method} {route.path}" for method in route.methods)


def test_every_route_has_a_row(settings: Settings) -> None:
    known = {case.call for case in CASES}
    found = set(routes(create_app(settings)))
    # The framework itself answers HEAD of its pages.
    assert {call for call in found if not re.fullmatch(r"HEAD /(docs.*|redoc|openapi.json)", call)} == known


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def strict(api_settings: Settings) -> AsyncIterator[Harness]:
    """The API with a required audience, which runs for all tests of this module."""
    async with harness_of(changed(api_settings, jwt_audience=AUDIENCE)) as made:
        yield made


def bearers(settings: Settings, hours: float) -> dict[str, Callable[[str], str | None]]:
    """Return a function that makes the tokens of all kinds of users for the id of the owner."""
    other_audience = changed(settings, jwt_audience="https://other.example.com")
    other_secret = changed(settings, jwt_secret="another-secret-that-is-long-enough-for-hs256")
    return {
        "no token": lambda _: None,
        "garbage": lambda _: "a.b.c",
        "expired": lambda owner: sign_token(settings, owner, ["exports:admin"], hours=-1),
        "wrong audience": lambda owner: sign_token(other_audience, owner, ["exports:admin"]),
        "no audience": lambda owner: sign_token(
            changed(settings, jwt_audience=None), owner, ["exports:admin"]
        ),
        "forged": lambda owner: sign_token(other_secret, owner, ["exports:admin"]),
        "other": lambda _: sign_token(settings, f"other-{uuid4()}", hours=hours),
        "owner": lambda owner: sign_token(settings, owner, hours=hours),
        "exports:all": lambda _: sign_token(settings, f"all-{uuid4()}", ["exports:all"], hours=hours),
        "exports:operate": lambda _: sign_token(
            settings, f"operator-{uuid4()}", ["exports:operate"], hours=hours
        ),
        "exports:admin": lambda _: sign_token(settings, f"admin-{uuid4()}", ["exports:admin"], hours=hours),
    }


async def answer(app: FastAPI, case: Case, token: str | None, names: dict[str, str]) -> httpx2.Response:
    method, _, path = (case.call + case.query).partition(" ")
    async with client_of(app, token) as client:
        body = {} if case.body is None else {"json": case.body}
        return await client.request(method, path.format_map(names), **body)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.call}{case.query} {case.body or ''}")
async def test_who_can_call(strict: Harness, storage: ObjectStore, case: Case) -> None:
    rule = case.rule
    wanted = {
        "other": rule.other,
        "owner": rule.owner,
        "exports:all": rule.all_rows,
        "exports:admin": rule.admin,
        "exports:operate": rule.operator,
    }

    async def make_owner() -> dict[str, str]:
        """Make an owner with what the call needs; return the values of the parameters in the path."""
        owner = f"owner-{uuid4()}"
        names = {"owner": owner, "job_id": "", "schedule_id": "", **FURTHER_NAMES}
        async with strict.user(user_id=owner) as client:
            if "job" in case.call or "events" in case.call:
                names["job_id"] = await place(client)
                if "{job_id}/" in case.call:
                    await complete(strict, storage, names["job_id"])
            if "schedule" in case.call:
                names["schedule_id"] = (await client.post("/exports/schedules", json=SCHEDULE)).json()["id"]
        return names

    unchanged = await make_owner()
    reads = case.call.startswith(("GET ", "HEAD "))

    async def status(name: str, bearer: Callable[[str], str | None]) -> tuple[str, int]:
        # A call with an invalid token, or one that reads, must change nothing for the others.
        names = unchanged if reads or name not in wanted else await make_owner()
        token = bearer(names["owner"])
        probe = replace(case, call=case.call.replace("GET ", "HEAD ", 1))
        probed = await answer(strict.app, probe, token, names) if probe != case else None
        response = await answer(strict.app, case, token, names)
        if probed is not None:
            assert (probed.status_code, probed.content) == (response.status_code, b"")
            assert probed.headers.get("content-type") == response.headers.get("content-type")
        if name not in ("owner", "exports:admin", "exports:operate"):
            assert names["owner"] not in response.text, "no other user's data"
        if response.status_code == 401:
            assert response.headers["www-authenticate"].startswith("Bearer")
        return name, response.status_code

    tokens = bearers(strict.settings, BRIEF if case.call.endswith("/events") else 1)
    found = dict(await asyncio.gather(*(status(name, bearer) for name, bearer in tokens.items())))
    assert found == {name: wanted.get(name, rule.invalid) for name in tokens}
