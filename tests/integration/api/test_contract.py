"""Random calls get documented responses: no 5xx, and no data of other users."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx2
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.app import create_app
from api.jobs.event_stream import _moment
from producers.tokens import sign_token
from stream_app.settings import Settings
from tests.integration.api.conftest import order
from tests.waiting import patient

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
MARKER = "somebody-elses-secret"

document = create_app(Settings(_env_file=None)).openapi()
SECURED = {
    f"{method.upper()} {path}"
    for path, item in document["paths"].items()
    for method, operation in item.items()
    # Removed, because generated tokens would replace the valid one.
    if operation.pop("security", None)
}
# A stream does not end by itself, so it has its own tests.
schema = schemathesis.openapi.from_dict(document).exclude(path="/exports/events")

# Random requests only, because the systematic ones are hundreds for each call.
schema.config.phases.coverage.enabled = False


@dataclass(frozen=True)
class Server:
    """The API on a port, with a job and a schedule of another user."""

    url: str
    settings: Settings
    strangers: dict[str, str]

    def bearer(self, user_id: str, **token: Any) -> dict[str, str]:
        return {"Authorization": f"Bearer {sign_token(self.settings, user_id, **token)}"}


@pytest.fixture(scope="module")
def server(api_settings: Settings) -> Iterator[Server]:
    running = uvicorn.Server(uvicorn.Config(create_app(api_settings), port=0, log_config=None))
    # Not run(), which would handle the signals of the whole process.
    thread = threading.Thread(target=lambda: asyncio.run(running.serve()))
    thread.start()
    while not running.started:
        assert thread.is_alive()
        threading.Event().wait(0.02)
    url = f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    stranger = {"Authorization": f"Bearer {sign_token(api_settings, f'stranger-{uuid4()}')}"}
    with httpx2.Client(base_url=url, headers=stranger, timeout=patient(30)) as client:
        wanted = order(filters={"kind": MARKER})
        job = client.post("/exports/jobs", json=wanted).json()
        schedule = client.post("/exports/schedules", json=wanted | {"schedule": "daily"}).json()
    strangers = {"job_id": job["export_job_id"], "schedule_id": schedule["id"]}
    yield Server(url, api_settings, strangers)
    running.should_exit = running.force_exit = True
    thread.join(patient(20))


@schema.parametrize()
@examples(
    max_examples=6, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
def test_random_calls_get_documented_responses(case: schemathesis.Case[Any], server: Server) -> None:
    user = server.bearer("the-caller")
    response = case.call(base_url=server.url, headers=user, timeout=patient(30), allow_redirects=False)
    case.validate_response(response, checks=CHECKS)
    assert response.status_code != 401, "the token is good"
    assert MARKER not in response.text

    if case.operation.label in SECURED:
        expired = server.bearer("the-caller", hours=-1)
        response = case.call(base_url=server.url, headers=expired, timeout=patient(30), allow_redirects=False)
        # Before authentication only the syntax is checked.
        assert response.status_code in (400, 401, 404, 422), response.text
        case.validate_response(response, checks=CHECKS)
        assert MARKER not in response.text

    if case.path_parameters and (known := case.path_parameters.keys() & server.strangers.keys()):
        for name in known:
            case.path_parameters[name] = server.strangers[name]
        response = case.call(base_url=server.url, headers=user, timeout=patient(30), allow_redirects=False)
        assert response.status_code in (400, 404, 422), response.text
        assert MARKER not in response.text


@given(st.text(max_size=100) | st.integers().map(str) | st.from_regex(r"[0-9]{1,13}"))
def test_any_last_event_id_is_a_moment_or_none(event_id: str) -> None:
    moment = _moment(event_id)
    assert moment is None or datetime(1970, 1, 1, tzinfo=UTC) <= moment < datetime(2300, 1, 1, tzinfo=UTC)
