"""Both clients have a method for each call of the API, or a reason why they have none."""

import json
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest

from streaming_exporter import AsyncExportClient, ExportClient, ExportRequest
from streaming_exporter.errors import ApiError, ExporterError

ROOT = Path(__file__).parents[3]
JOB = UUID("4f1c0de0-0000-4000-8000-000000000001")
REQUEST = ExportRequest(user_id="u", export_type="ledger", format="csv")

CALLS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "requestExport": ("submit", (REQUEST,)),
    "listExports": ("jobs", ()),
    "estimateExport": ("estimate", (REQUEST,)),
    "getExport": ("job", (JOB,)),
    "cancelExport": ("cancel", (JOB,)),
    "rerunExport": ("rerun", (JOB,)),
    "watchExport": ("events", (JOB,)),
    "downloadExport": ("link", (JOB,)),
    "showPassword": ("password", (JOB,)),
    "listFiles": ("files", (JOB,)),
    "downloadFile": ("link", (JOB, 1)),
    "getManifest": ("manifest", (JOB,)),
    "listDeliveries": ("deliveries", (JOB,)),
    "listDatasets": ("datasets", ()),
    "listDestinations": ("destinations", ()),
}
"""The operations of openapi.json that the Python clients have a method for, with arguments of that method."""

SCHEDULES = "people make schedules on the page and with `exporter schedule`; programs use `call`"
OPERATORS = "for operators, who have the page and the `exporter` command"
OF_LINKS = "the token is in a link of a mail, and the reader's browser opens it"
HEAD = "for programs that ask a link for its headers before they follow it"
PROBES = "for probes and Prometheus"
ELSEWHERE: dict[str, str] = {
    "createSchedule": SCHEDULES,
    "listSchedules": SCHEDULES,
    "estimateSchedule": SCHEDULES,
    "getSchedule": SCHEDULES,
    "changeSchedule": SCHEDULES,
    "deleteSchedule": SCHEDULES,
    "estimateChangedSchedule": SCHEDULES,
    "runSchedule": SCHEDULES,
    "listRuns": SCHEDULES,
    "watchExports": "for the page, which shows all jobs of a user; a program follows its own jobs",
    "revokeLinks": "a person does it on the page after a mail went astray; programs use `call`",
    "getWebhookSecret": "read once, by hand, when a receiver is set up",
    "getCurrentUser": "for the page; a program knows whose token it has",
    "followLink": OF_LINKS,
    "listFilesOfLink": OF_LINKS,
    "downloadFileOfLink": OF_LINKS,
    "confirmUnsubscribe": OF_LINKS,
    "unsubscribe": OF_LINKS,
    "testDestination": OPERATORS,
    "explainExport": OPERATORS,
    "getUsage": OPERATORS,
    "listPauses": OPERATORS,
    "pauseClaims": OPERATORS,
    "resumeClaims": OPERATORS,
    "cancelExports": OPERATORS,
    "getOperations": OPERATORS,
    "getDoctorReport": OPERATORS,
    "listDeadLetters": OPERATORS,
    "getDeadLetter": OPERATORS,
    "redriveDeadLetters": OPERATORS,
    "discardDeadLetters": OPERATORS,
    "probeDownload": HEAD,
    "probeFile": HEAD,
    "probeLink": HEAD,
    "getHealth": PROBES,
    "getReadiness": PROBES,
    "getMetrics": PROBES,
}
"""The operations without a method of their own, each with the reason."""

OPERATIONS: dict[str, tuple[str, str]] = {
    operation["operationId"]: (method.upper(), path)
    for path, methods in json.loads((ROOT / "docs" / "openapi.json").read_text("utf-8"))["paths"].items()
    for method, operation in methods.items()
    if "operationId" in operation
}

TYPESCRIPT_NAMES = {"submit": "request"}
"""Methods whose names differ in TypeScript."""

ONE_FILE = {"downloadExport": "`link` takes the number of the file: 1 for the only one"}
"""Operations that only the Python clients use, because another one does the same."""


def test_every_call_of_the_api_has_a_method_or_a_reason() -> None:
    assert CALLS.keys() | ELSEWHERE.keys() == OPERATIONS.keys()
    assert not CALLS.keys() & ELSEWHERE.keys()


def made_by(operation: str) -> tuple[list[str], Callable[[httpx2.Request], httpx2.Response]]:
    """Return the list of operations that a handler has seen, and the handler, which refuses all calls."""
    seen: list[str] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        seen.extend(
            name
            for name, (method, path) in OPERATIONS.items()
            if method == request.method and re.fullmatch(re.sub(r"\{\w+\}", "[^/:]+", path), request.url.path)
        )
        return httpx2.Response(403, json={"title": "Forbidden", "code": operation})

    return seen, handle


@pytest.mark.parametrize("operation", CALLS)
def test_the_synchronous_client_makes_the_call(operation: str) -> None:
    seen, handle = made_by(operation)
    name, arguments = CALLS[operation]
    with ExportClient("http://api", "token") as client:
        client._http.close()
        client._http = httpx2.Client(base_url="http://api", transport=httpx2.MockTransport(handle))
        with suppress(ExporterError):
            answer = getattr(client, name)(*arguments)
            next(iter(answer))
    assert seen == [operation]


@pytest.mark.parametrize("operation", CALLS)
async def test_the_asynchronous_client_makes_the_call(operation: str) -> None:
    seen, handle = made_by(operation)
    name, arguments = CALLS[operation]
    async with AsyncExportClient("http://api", "token") as client:
        await client._http.aclose()
        client._http = httpx2.AsyncClient(base_url="http://api", transport=httpx2.MockTransport(handle))
        with suppress(ExporterError):
            answer = getattr(client, name)(*arguments)
            await (anext(answer) if hasattr(answer, "__anext__") else answer)
    assert seen == [operation]


@pytest.mark.parametrize("content", ["{}", '{"export_job_id": 7}', "[]", "<html>", ""])
@pytest.mark.parametrize("name", sorted({name for name, _ in CALLS.values()} - {"events"}))
def test_an_answer_of_another_server_is_an_error_of_the_api(name: str, content: str) -> None:
    """A page of a proxy can have the status 200. ``events`` asks again instead."""
    arguments = next(arguments for other, arguments in CALLS.values() if other == name)

    def handle(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, text=content)

    with ExportClient("http://api", "token") as client:
        client._http.close()
        client._http = httpx2.Client(base_url="http://api", transport=httpx2.MockTransport(handle))
        try:
            answer = getattr(client, name)(*arguments)
            found = list(answer) if name == "jobs" else answer
        except ApiError as error:
            assert (error.idempotency_key is not None) == (name in ("submit", "rerun")), error
            return
    assert name in ("cancel", "datasets", "estimate", "manifest"), found


@pytest.mark.parametrize("name", ["submit", "rerun", "link"])
async def test_an_answer_of_another_server_is_an_error_of_the_asynchronous_client_too(name: str) -> None:
    arguments = next(arguments for other, arguments in CALLS.values() if other == name)
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, text="{}"))
    async with AsyncExportClient("http://api", "token") as client:
        await client._http.aclose()
        client._http = httpx2.AsyncClient(base_url="http://api", transport=transport)
        with pytest.raises(ApiError) as caught:
            await getattr(client, name)(*arguments)
    assert (caught.value.idempotency_key is not None) == (name != "link")


@pytest.mark.parametrize("operation", sorted(CALLS.keys() - ONE_FILE.keys()))
def test_the_typescript_client_has_the_method_and_its_readme_names_it(operation: str) -> None:
    """Its own tests make the calls on the running system."""
    folder = ROOT / "clients" / "typescript"
    source, readme = ((folder / name).read_text("utf-8") for name in ("src/client.ts", "README.md"))
    method = TYPESCRIPT_NAMES.get(CALLS[operation][0], CALLS[operation][0])
    assert re.search(rf"(?m)^  async \*?{method}\(", source)
    assert f"`{method}`" in readme
    http_method, path = OPERATIONS[operation]
    end = path.rpartition("}")[2]
    assert end in source
    if not end:  # a job or a file itself: only the method and the id tell the calls apart
        body = re.search(rf"(?ms)^  async \*?{method}\(.*?^  }}$", source)
        assert body
        assert ("this.read<" if http_method == "GET" else f'method: "{http_method}"') in body[0]
        assert "jobPath(id)" in body[0]


def test_the_reference_of_the_clients_names_every_method() -> None:
    page = (ROOT / "docs" / "clients.md").read_text("utf-8")
    for client in (ExportClient, AsyncExportClient):
        methods = {name for name in vars(client) if not name.startswith("_")}
        methods -= {"record"}  # the job as JSON
        assert [name for name in sorted(methods) if f"`{name}(" not in page] == []
