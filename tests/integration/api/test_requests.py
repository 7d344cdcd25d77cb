"""POST records a request, and then publishes it from the record."""

import asyncio
import json
from collections import Counter
from dataclasses import replace
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from stream_app.exports.formats.registry import FORMATS
from stream_app.exports.sources.source import Source
from stream_app.exports.tables.catalog import Catalog
from streaming_exporter.errors import InDoubt, PublishError, Retryable
from streaming_exporter.events import EventType
from tests.integration.api.conftest import Harness, changed, order


async def test_a_request_is_recorded_and_published(api: Harness) -> None:
    async with api.user(user_id="user-7") as client:
        wanted = order(
            filters={"id": {"gte": 1, "lt": 100}}, columns=["id", "kind"], options={"compression": "gzip"}
        )
        response = await client.post("/exports/jobs", json=wanted)
        assert response.status_code == 202
        job_id = response.json()["export_job_id"]
        assert response.json() == {"export_job_id": job_id, "status": "pending"}
        assert response.headers["location"] == f"/exports/jobs/{job_id}"

        seen = (await client.get(response.headers["location"])).json()
        assert (seen["status"], seen["user_id"], seen["columns"]) == ("pending", "user-7", ["id", "kind"])
    await api.app.state.services.relay.settle()
    [event] = await api.published(job_id)
    assert (event.type, event.source) == (EventType.REQUESTED, "/exporter/api")
    assert event.data == {"user_id": "user-7", **wanted}
    job = await api.queries.get(UUID(job_id))
    assert job is not None
    assert job.admitted_at is None


async def test_a_decimal_number_keeps_its_digits_as_a_text(api: Harness) -> None:
    """In the record, in the event and for the worker that reads it; ``ndjson`` writes such numbers."""
    body = json.dumps(order(filters={"amount": {"eq": 0, "in": [1.5]}}))
    body = body.replace('"eq": 0', '"eq": 123456789012.123456')
    expected = {"amount": {"eq": "123456789012.123456", "in": [1.5]}}
    async with api.user() as client:
        headers = {"content-type": "application/json"}
        response = await client.post("/exports/jobs", content=body, headers=headers)
        assert response.status_code == 202, response.text
        job_id = response.json()["export_job_id"]
        assert (await client.get(f"/exports/jobs/{job_id}")).json()["filters"] == expected
        estimate = await client.post("/exports/jobs:estimate", content=body, headers=headers)
        assert estimate.status_code == 200, estimate.text
    await api.app.state.services.relay.settle()
    [event] = await api.published(job_id)
    assert event.data["filters"] == expected


async def test_a_request_during_an_outage_of_kafka_is_published_later(
    api: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R5, R8: the record is the outbox; its relay publishes until the job is admitted."""
    services = api.app.state.services

    async def publish(_: object) -> None:
        raise PublishError("away")

    async with api.user() as client:
        with monkeypatch.context() as patched:
            patched.setattr(services.publisher, "publish", publish)
            response = await client.post("/exports/jobs", json=order(filters={"id": {"lt": 9}}))
            assert response.status_code == 202
            job_id = response.json()["export_job_id"]
            await services.relay.settle()
            await api.set(job_id, lease_until=text("now() - interval '1 s'"))
            with pytest.raises(PublishError):
                await services.relay.step()
        assert await api.published(job_id) == []
        assert await services.relay.step() == 0, "not before its time"
        await api.set(job_id, lease_until=text("now() - interval '1 s'"))
        assert await services.relay.step() == 1
    [event] = await api.published(job_id)
    job = await api.queries.get(UUID(job_id))
    assert job is not None
    assert (event.source, event.time) == ("/exporter/api", job.created_at)
    assert event.data["filters"] == {"id": {"lt": 9}}
    await api.set(job_id, lease_until=text("now() - interval '1 s'"), admitted_at=job.created_at)
    assert await services.relay.step() == 0


async def test_a_commit_without_an_answer_is_in_doubt(api: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """R5: if the row is found, the request is accepted. Otherwise the response is in_doubt with the id."""
    services = api.app.state.services
    submit = services.queue.admission.submit

    async def committed(row: Any, **limit: Any) -> Any:
        await submit(row, **limit)
        raise InDoubt("connection lost")

    async def lost(*_: Any, **__: Any) -> Any:
        raise InDoubt("connection lost")

    async with api.user() as client:
        monkeypatch.setattr(services.queue.admission, "submit", committed)
        assert (await client.post("/exports/jobs", json=order())).status_code == 202
        monkeypatch.setattr(services.queue.admission, "submit", lost)
        answer = await client.post("/exports/jobs", json=order(), headers={"Idempotency-Key": "k"})
        content = answer.json()
        assert (answer.status_code, content["code"]) == (503, "in_doubt")
        assert "it is not known whether job" in content["detail"]
        assert answer.headers["location"] == f"/exports/jobs/{content['export_job_id']}"
        monkeypatch.setattr(services.queue.admission, "submit", submit)
        again = await client.post("/exports/jobs", json=order(), headers={"Idempotency-Key": "k"})
        assert again.json()["export_job_id"] == content["export_job_id"]
    assert await api.count() == 2


@pytest.mark.parametrize("error", [Retryable("away"), asyncpg.InterfaceError("the connection is closed")])
async def test_a_request_stays_in_doubt_if_its_row_cannot_be_read(
    api: Harness, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Another error than an outage is no sign either that the request was not recorded."""
    services = api.app.state.services

    async def lost(*_: Any, **__: Any) -> Any:
        raise InDoubt("connection lost")

    async def fail(_: UUID) -> Any:
        raise error

    monkeypatch.setattr(services.queue.admission, "submit", lost)
    monkeypatch.setattr(services.job_queries, "get", fail)
    async with api.user() as client:
        answer = await client.post("/exports/jobs", json=order())
    assert (answer.status_code, answer.json()["code"]) == (503, "in_doubt")
    assert answer.headers["location"] == f"/exports/jobs/{answer.json()['export_job_id']}"


async def test_concurrent_requests_do_not_exceed_the_limit(
    api: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Q3: jobs are counted under a lock, over all connections and processes."""
    services = api.app.state.services
    limited = services.settings.model_copy(update={"user_pending_limit": 5})
    monkeypatch.setattr(api.app.state, "services", replace(services, settings=limited))
    name = "user-of-many"
    async with api.user(user_id=name) as client:
        schedule = (
            await client.post("/exports/schedules", json=order(schedule="daily", time_of_day="06:00"))
        ).json()
        calls = [client.post("/exports/jobs", json=order()) for _ in range(30)]
        calls += [client.post(f"/exports/schedules/{schedule['id']}:run") for _ in range(10)]
        answers = await asyncio.gather(*calls)
    assert Counter(answer.status_code for answer in answers) == {202: 5, 429: 35}
    assert await api.count() == 5


async def test_two_hundred_concurrent_requests_are_all_answered(api: Harness) -> None:
    """The limit of jobs allows some of them, and another user is not affected."""
    assert api.settings.user_pending_limit == 100
    async with api.user() as client, api.user() as other:
        calls = [asyncio.create_task(client.post("/exports/jobs", json=order())) for _ in range(200)]
        await asyncio.sleep(0)
        others = [other.post("/exports/jobs", json=order()), other.get("/exports/jobs")]
        assert [answer.status_code for answer in await asyncio.gather(*others)] == [202, 200]
        assert not all(call.done() for call in calls)
        answers = await asyncio.gather(*calls)
    assert Counter(answer.status_code for answer in answers) == {202: 100, 429: 100}
    codes = {answer.json()["code"] for answer in answers if answer.status_code == 429}
    assert codes == {"too_many_jobs"}


async def test_a_request_that_kafka_does_not_take_is_refused(api: Harness) -> None:
    """The API takes its body, but the event around it has more bytes, and would never be published."""
    filters = {"kind": {"in": ["x" * 1_000] * 1_030}}
    body = json.dumps(order(filters=filters), separators=(",", ":"))
    assert 1_000_000 < len(body) < 1_048_576
    async with api.user() as client:
        answer = await client.post(
            "/exports/jobs", content=body, headers={"content-type": "application/json"}
        )
        listed = await client.get("/exports/jobs")
    assert (answer.status_code, answer.json()["code"]) == (422, "too_large")
    assert "Shorten its filters" in answer.json()["detail"]
    assert listed.json()["jobs"] == []


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"export_type": "nope"}, "unknown_dataset", "export_type"),
        ({"format": "doc"}, "unknown_format", "format"),
        ({"columns": ["id", "nope"]}, "unknown_column", "columns.1"),
        ({"columns": []}, "invalid_request", "columns"),
        ({"filters": {"nope": 1}}, "unknown_column", "filters.nope"),
        ({"filters": {"id": {"prefix": "a"}}}, "unknown_operator", "filters.id"),
        ({"filters": {"id": {"gte": "five"}}}, "bad_filter_value", "filters.id.gte"),
        ({"filters": {"kind": {"in": []}}}, "bad_filter_value", "filters.kind.in"),
        ({"filters": {"kind": "a\0b"}}, "invalid_text", None),
        ({"filters": [1]}, "invalid_request", "filters"),
        ({"options": {"compression": "rar"}}, "invalid_request", "options.compression"),
        ({"options": {"headers": "both"}}, "invalid_request", "options.headers"),
        ({"options": {"timezone": "Europe/Berlim"}}, "unknown_timezone", "options.timezone"),
        ({"options": {"timezone": "../../etc"}}, "invalid_request", "options.timezone"),
        ({"options": {"locale": "de-XX"}}, "unknown_locale", "options.locale"),
        ({"options": {"language": "deutsch!"}}, "invalid_request", "options.language"),
        ({"scope": "mine"}, "unknown_scope", "scope"),
        ({"fliters": {}}, "invalid_request", "fliters"),
        ({"user_id": "somebody else"}, "invalid_request", "user_id"),
    ],
)
async def test_invalid_requests_are_refused_at_once(
    api: Harness, changes: dict[str, Any], code: str, field: str | None
) -> None:
    async with api.user() as client:
        response = await client.post("/exports/jobs", json=order(**changes))
    content = response.json()
    assert (response.status_code, content["code"], content.get("field")) == (422, code, field)
    assert await api.count() == 0


OWN_OPTIONS: dict[str, dict[str, Any]] = {
    "csv": {"delimiter": ";", "header": True, "bom": False, "null": "-", "guard_formulas": True},
    "pdf": {"title": "Ledger", "page_size": "A4"},
}


@pytest.mark.parametrize("name", FORMATS)
async def test_options_of_other_formats_are_refused(api: Harness, name: str) -> None:
    """Entry 20: every option of a single format, at every call; also where it has its default."""
    async with api.user() as client:
        listed = (await client.get("/exports/datasets")).json()["formats"]
        [allowed] = [item["options"] for item in listed if item["name"] == name]
        schedule: dict[str, Any] = {"schedule": "daily"}
        for owner, options in OWN_OPTIONS.items():
            for option, value in options.items():
                assert (option in allowed) == (owner == name)
                for path, more in (("jobs", {}), ("jobs:estimate", {}), ("schedules", schedule)):
                    body = order(format=name, options={option: value}, **more)
                    answer = await client.post(f"/exports/{path}", json=body)
                    if owner == name:
                        assert answer.status_code in (200, 201, 202), answer.text
                        continue
                    problem = answer.json()
                    found = answer.status_code, problem["code"], problem["field"]
                    assert found == (422, "foreign_option", f"options.{option}")
                    assert problem["detail"].endswith(f"allowed: {', '.join(allowed)}")
        assert (
            await client.post("/exports/jobs", json=order(format=name, options={"timezone": "UTC"}))
        ).is_success


async def test_events_with_options_of_other_formats_keep_their_meaning(api: Harness) -> None:
    """Entry 20: only calls over HTTP refuse them."""
    data = {"user_id": "u", **order(options={"page_size": "A3", "title": "x"})}
    assert api.app.state.services.validator.validate(data).options.page_size == "A3"


async def test_a_schedule_with_options_of_other_formats_can_be_changed(api: Harness) -> None:
    """Those that are stored have no effect: they end with a change, and refuse none."""
    async with api.user() as client:
        body = order(options={"delimiter": ";", "timezone": "Asia/Tokyo"}, schedule="daily")
        made = (await client.post("/exports/schedules", json=body)).json()
        path = f"/exports/schedules/{made['id']}"
        changed = await client.patch(path, json={"format": "pdf"})
        assert changed.json()["options"] == {"timezone": "Asia/Tokyo"}, changed.text
        answer = await client.patch(path, json={"options": {"delimiter": ";"}})
        assert (answer.status_code, answer.json()["field"]) == (422, "options.delimiter")


@pytest.mark.parametrize(
    "body",
    [
        b'{"export_type":"ledger","format":"csv","filters":{"amount":NaN}}',
        b'{"export_type":"ledger","format":"csv","filters":{"amount":1e999}}',
        b'{"export_type":"ledger","format":"csv","filters":{"kind":"\\ud800"}}',
        b'{"export_type":"ledger","format":"csv","filters":{"\\udfff":"x"}}',
        b'{"export_type":"\\ud800","format":"csv"}',
        b'{"export_type":"ledger","format":"csv","columns":["\\ud800"]}',
        b'{"export_type":"ledger","format":"csv","filters":{"id":' + b"[" * 5000 + b"]" * 5000 + b"}}",
        b"{" + b'"a":{' * 100_000,
        b"[" * 100_000,
        b'{"export_type":"ledger","format":"csv","filters":{"id":' + b"9" * 5000 + b"}}",
    ],
    ids=range(10),
)
async def test_malicious_json_is_refused(api: Harness, body: bytes) -> None:
    async with api.user() as client:
        response = await client.post(
            "/exports/jobs", content=body, headers={"content-type": "application/json"}
        )
    assert response.status_code in (400, 422), response.text
    assert await api.count() == 0


async def test_scope_all_needs_a_role(api: Harness) -> None:
    async with api.user() as client:
        response = await client.post("/exports/jobs", json=order(scope="all"))
        assert (response.status_code, response.json()["code"]) == (403, "scope_not_allowed")
    for role in ("exports:all", "exports:admin"):
        async with api.user(role) as client:
            response = await client.post("/exports/jobs", json=order(scope="all"))
            assert response.status_code == 202
            [event] = await api.published(response.json()["export_job_id"])
            assert event.data["scope"] == "all"


async def test_the_same_key_is_the_same_job(api: Harness) -> None:
    wanted = order(filters={"amount": {"gte": 1.50}, "kind": {"in": ["a", "b"]}})
    async with api.user() as client:
        first, second = [
            await client.post("/exports/jobs", json=wanted, headers={"Idempotency-Key": "k"})
            for _ in range(2)
        ]
        await api.set(first.json()["export_job_id"], status="processing")
        third = await client.post("/exports/jobs", json=wanted, headers={"Idempotency-Key": "k"})
    assert first.json() == second.json()
    assert third.status_code == 202
    assert third.json() == first.json() | {"status": "processing"}
    assert await api.count() == 1
    assert len(await api.published(first.json()["export_job_id"])) == 1


async def test_a_repeated_request_is_not_validated_again(
    api: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"Idempotency-Key": "k"}
    wanted = order(filters={"id": {"lt": 100}})
    async with api.user() as client:
        first = await client.post("/exports/jobs", json=wanted, headers=headers)
        nowhere = SecretStr("postgresql://x@127.0.0.1:1/x")
        away = Source(changed(api.settings, source_database_url=nowhere), connections=1)
        services = replace(api.app.state.services, estimate_sources=away, catalog=Catalog(away))
        monkeypatch.setattr(api.app.state, "services", services)
        again = await client.post("/exports/jobs", json=wanted, headers=headers)
        other = await client.post("/exports/jobs", json=order(columns=["nope"]), headers=headers)
        new = await client.post("/exports/jobs", json=wanted)
        await away.close()
    assert (again.status_code, again.json()) == (202, first.json())
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert new.status_code == 503


async def test_the_same_key_at_the_same_time(api: Harness) -> None:
    async with api.user() as client:
        responses = await asyncio.gather(
            *(client.post("/exports/jobs", json=order(), headers={"Idempotency-Key": "k"}) for _ in range(8))
        )
    assert {response.status_code for response in responses} == {202}
    [job_id] = {response.json()["export_job_id"] for response in responses}
    assert await api.count() == 1
    assert len(await api.published(job_id)) == 1


@pytest.mark.parametrize(
    "changes",
    [{"format": "json"}, {"filters": {"id": 1}}, {"columns": ["id"]}, {"options": {"compression": "gzip"}}],
)
async def test_the_same_key_with_another_request(api: Harness, changes: dict[str, Any]) -> None:
    async with api.user() as client:
        await client.post("/exports/jobs", json=order(), headers={"Idempotency-Key": "k"})
        response = await client.post("/exports/jobs", json=order(**changes), headers={"Idempotency-Key": "k"})
    assert (response.status_code, response.json()["code"]) == (422, "idempotency_key_reused")


async def test_keys_are_each_users_own(api: Harness) -> None:
    ids = set()
    for user_id, key in (("a", "bc"), ("ab", "c"), ("b", "bc")):
        async with api.user(user_id=user_id) as client:
            response = await client.post("/exports/jobs", json=order(), headers={"Idempotency-Key": key})
            ids.add(response.json()["export_job_id"])
    assert len(ids) == 3


@pytest.mark.parametrize("key", ["", "with space", "x" * 256, "tab\t"])
async def test_keys_that_are_refused(api: Harness, key: str) -> None:
    async with api.user() as client:
        response = await client.post("/exports/jobs", json=order(), headers={"Idempotency-Key": key})
    assert (response.status_code, response.json()["field"]) == (422, "idempotency-key")


async def test_too_many_unfinished_jobs(api: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    services = api.app.state.services
    limited = services.settings.model_copy(update={"user_pending_limit": 2})
    monkeypatch.setattr(api.app.state, "services", replace(services, settings=limited))
    async with api.user() as client, api.user() as other:
        headers = {"Idempotency-Key": "first"}
        first = await client.post("/exports/jobs", json=order(), headers=headers)
        await client.post("/exports/jobs", json=order())
        refused = await client.post("/exports/jobs", json=order())
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_jobs")
        assert int(refused.headers["retry-after"]) > 0
        again = await client.post("/exports/jobs", json=order(), headers=headers)
        assert again.json() == first.json(), "what is accepted already is no new job"
        assert (await other.post("/exports/jobs", json=order())).status_code == 202
        await api.set(first.json()["export_job_id"], status="failed")
        assert (await client.post("/exports/jobs", json=order())).status_code == 202
