"""Input of clients is only data in SQL, headers, file names and responses."""

import re
from typing import Any
from uuid import UUID

import asyncpg
import httpx2
import pytest

from stream_app.storage.object_store import ObjectStore
from tests.integration.api.conftest import Harness, order
from tests.integration.api.test_jobs import complete, place
from tests.waiting import WITHIN, patient

PAYLOADS = [
    "x' OR '1'='1",
    "'; DROP TABLE ledger; --",
    "\\'; SELECT pg_sleep(5); --",
    '"; DELETE FROM export_jobs; --',
    "$$; COPY ledger TO PROGRAM 'id'; $$",
    ":kind %(kind)s $1 {0} %s",
    "a\r\nSet-Cookie: session=stolen",
    "../../../etc/passwd",
    "<script>alert(1)</script>",
    "\u2028\u202e\ufeff'",
]
FILTERS: list[Any] = [
    lambda payload: payload,
    lambda payload: {"ne": payload, "gte": payload},
    lambda payload: {"in": [payload, "a"]},
    lambda payload: {"not_in": [payload]},
    lambda payload: {"prefix": payload},
    lambda payload: {"contains": payload},
]
TOKEN = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"")


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record every statement that asyncpg sends to the source."""
    sent: list[str] = []
    copy, fetch = asyncpg.Connection.copy_from_query, asyncpg.Connection.fetchval

    async def copying(self: Any, query: str, *args: Any, **options: Any) -> Any:
        assert not args, "COPY takes no parameters"
        sent.append(query)
        return await copy(self, query, *args, **options)

    async def fetching(self: Any, query: str, *args: Any, **options: Any) -> Any:
        sent.append(query)
        return await fetch(self, query, *args, **options)

    monkeypatch.setattr(asyncpg.Connection, "copy_from_query", copying)
    monkeypatch.setattr(asyncpg.Connection, "fetchval", fetching)
    return sent


def literals(statement: str) -> list[str]:
    """Return the text constants of a statement, without quotes."""
    return [token[1:-1].replace("''", "'") for token in TOKEN.findall(statement) if token[0] == "'"]


@pytest.mark.parametrize("payload", PAYLOADS)
async def test_filter_values_reach_postgresql_only_as_quoted_constants(
    api: Harness, statements: list[str], payload: str
) -> None:
    async with api.user("exports:all", user_id=f"u {payload}".replace("\r\n", " ")) as client:
        for scope in ("own", "all"):
            for wanted in FILTERS:
                statements.clear()
                body = order(filters={"kind": wanted(payload)}, scope=scope, columns=["id", "kind"])
                response = await client.post("/exports/jobs:estimate", json=body)
                assert response.status_code == 200, response.text
                carrying = [statement for statement in statements if "ledger" in statement]
                assert carrying, "the sample, and the plan where there are more rows"
                for statement in carrying:
                    assert any(_holds(text, payload) for text in literals(statement)), statement
                    rest = TOKEN.sub("", statement)
                    assert not re.search(r"['\"$%\\;]|--|DROP|DELETE|script|passwd|Cookie|pg_sleep", rest), (
                        rest
                    )
        equal = order(filters={"kind": payload}, scope="all")
        assert (await client.post("/exports/jobs:estimate", json=equal)).json()["rows"] == 0


def _holds(constant: str, payload: str) -> bool:
    """Return whether the constant is the payload, plain, escaped for LIKE, or inside an array."""
    return payload in {constant, re.sub(r"/(.)", r"\1", constant)} or payload in re.sub(
        r"\\(.)", r"\1", constant
    )


@pytest.mark.parametrize("payload", PAYLOADS)
async def test_names_are_looked_up_and_never_written_into_statements(
    api: Harness, statements: list[str], payload: str
) -> None:
    bodies = {
        "unknown_dataset": order(export_type=payload),
        "unknown_format": order(format=payload),
        "unknown_column": order(columns=[payload]),
        "unknown_operator": order(filters={"kind": {payload: "a"}}),
    }
    async with api.user() as client:
        for code, body in bodies.items():
            for path in ("/exports/jobs", "/exports/jobs:estimate"):
                response = await client.post(path, json=body)
                assert (response.status_code, response.json()["code"]) == (422, code)
                assert response.headers["content-type"] == "application/problem+json"
                assert response.headers["x-content-type-options"] == "nosniff"
        response = await client.post("/exports/jobs", json=order(filters={payload: "a"}))
        assert (response.status_code, response.json()["code"]) == (422, "unknown_column")
        for parameters in ({"export_type": payload}, {"status": payload}, {"cursor": payload}):
            response = await client.get("/exports/jobs", params=parameters)
            assert response.status_code in (200, 422)
            assert response.json().get("jobs", []) == []
    assert not [statement for statement in statements if "FROM" in statement and "DROP" in statement]
    assert await api.count() == 0


@pytest.mark.parametrize("payload", ["';DROP\tTABLE", "<script>", "../../etc", "a'b", "{0}%s$1"])
async def test_headers_are_data(api: Harness, payload: str) -> None:
    async with api.user() as client:
        sent = {"X-Request-ID": payload, "Idempotency-Key": payload, "If-None-Match": payload}
        response = await client.post("/exports/jobs", json=order(), headers=sent)
        assert response.status_code == (422 if "\t" in payload else 202)
        if response.status_code == 202:
            UUID(response.json()["export_job_id"])
            seen = await client.get(response.headers["location"], headers=sent)
            assert seen.status_code == 200
        assert response.headers["x-request-id"] != payload or re.fullmatch(r"[\w./]+", payload)


@pytest.mark.parametrize(
    "name",
    [
        'a"; filename="b.exe',
        "a\r\nSet-Cookie: x=y.csv",
        "../../etc/passwd",
        "<script>.csv",
        "Größe €ﬀ.csv",
        "a'*=UTF-8''b.csv",
    ],
)
async def test_file_names_cannot_leave_their_header(api: Harness, storage: ObjectStore, name: str) -> None:
    async with api.user() as client:
        job_id = await place(client)
        await complete(api, storage, job_id, file_name=name)
        response = await client.get(f"/exports/jobs/{job_id}/download")
        assert response.status_code == 307
        link = response.headers["location"]
    assert not set(link) & set('\r\n <>"')
    async with httpx2.AsyncClient(timeout=patient(WITHIN)) as store:
        answer = await store.get(link)
    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers
    shown = answer.headers["content-disposition"]
    assert re.fullmatch(
        r'attachment; filename="[^"/\\]*"(; filename\*=UTF-8\'\'[\w.%~!#$&+^`|-]*)?', shown
    ), shown
