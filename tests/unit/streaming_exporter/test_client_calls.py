"""Both clients have a method for each call of the API, or a reason why they have none."""

import json
import re
from collections.abc import Callable
from contextlib import suppress
from inspect import isasyncgenfunction
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest

from streaming_exporter import AsyncExportClient, ExportClient, ExportRequest
from streaming_exporter.errors import ApiError, ExporterError
from tests.rows import each_row

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
    "probeFileOfLink": HEAD,
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


@each_row("operation", CALLS)
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


@each_row("operation", CALLS)
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


def foreign(status: int, text: str = "", **headers: str) -> Any:
    return pytest.param(httpx2.Response(status, text=text, headers=headers), id=f"{status} {text}".strip())


FOREIGN = [
    *(foreign(200, content) for content in ("{}", '{"export_job_id": 7}', "[]", "")),
    foreign(200, "<html>", **{"content-type": "text/html"}),
    foreign(200, "event: job\ndata: {}\n\n", **{"content-type": "text/event-stream"}),
    foreign(202, "<html>"),
    foreign(204),
    foreign(301, location="https://api/login?state=private"),
    foreign(302, location="/login"),
    foreign(304),
    foreign(307, location="https://api{path}"),
    foreign(307, location="http://[login"),
    foreign(307),
    foreign(308, location="https://ada:private@api{path}"),
]
"""Answers of a proxy or a page for signing in, which is in front of the API or in its place."""

foreign_answers = each_row("answer", FOREIGN)
every_method = pytest.mark.parametrize(("name", "arguments"), dict(CALLS.values()).items(), ids=str)


def answering(answer: httpx2.Response) -> httpx2.MockTransport:
    """Return a transport with one answer for all calls. `{path}` in its location is the path of the call."""

    def handle(request: httpx2.Request) -> httpx2.Response:
        headers = {**answer.headers}
        if "location" in headers:
            headers["location"] = headers["location"].replace("{path}", request.url.path)
        return httpx2.Response(answer.status_code, content=answer.content, headers=headers)

    return httpx2.MockTransport(handle)


def assert_names_the_server(error: ApiError, name: str, answer: httpx2.Response) -> None:
    assert error.status == answer.status_code
    assert str(error).startswith("http://api does not answer as the exporter's API does"), error
    assert "private" not in str(error)
    if answer.headers.get("location", "").startswith("https://"):
        assert str(error).endswith("it redirects the call to https://api")
    assert (error.idempotency_key is not None) == (name in ("submit", "rerun")), error


@foreign_answers
@every_method
@pytest.mark.timeout(60)  # for all answers: one of them is a redirect without end
def test_an_answer_of_another_server_is_an_error_of_the_api(
    name: str, arguments: tuple[Any, ...], answer: httpx2.Response
) -> None:
    with ExportClient("http://api", "token") as client:
        client._http.close()
        client._http = httpx2.Client(base_url="http://api", transport=answering(answer))
        with pytest.raises(ApiError) as caught:
            list(getattr(client, name)(*arguments))
    assert_names_the_server(caught.value, name, answer)


@foreign_answers
@every_method
@pytest.mark.timeout(60)  # for all answers: one of them is a redirect without end
async def test_an_answer_of_another_server_is_an_error_of_the_asynchronous_client_too(
    name: str, arguments: tuple[Any, ...], answer: httpx2.Response
) -> None:
    async with AsyncExportClient("http://api", "token") as client:
        await client._http.aclose()
        client._http = httpx2.AsyncClient(base_url="http://api", transport=answering(answer))
        call = getattr(client, name)
        with pytest.raises(ApiError) as caught:
            await (anext(call(*arguments)) if isasyncgenfunction(call) else call(*arguments))
    assert_names_the_server(caught.value, name, answer)


def test_a_link_is_that_of_the_object_store() -> None:
    link = "https://store/bucket/exports/jobs/1/download?X-Amz-Signature=1"
    with ExportClient("http://api", "token") as client:
        client._http.close()
        transport = answering(httpx2.Response(307, headers={"location": link}))
        client._http = httpx2.Client(base_url="http://api", transport=transport)
        assert client.link(JOB) == link


@each_row("operation", sorted(CALLS.keys() - ONE_FILE.keys()))
def test_the_typescript_client_has_the_method_and_its_readme_names_it(operation: str) -> None:
    """Its own tests make the calls on the running system."""
    folder = ROOT / "clients" / "typescript"
    source, readme = ((folder / name).read_text("utf-8") for name in ("src/client.ts", "README.md"))
    method = TYPESCRIPT_NAMES.get(CALLS[operation][0], CALLS[operation][0])
    assert re.search(rf"(?m)^  (async )?\*?{method}\(", source)
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
