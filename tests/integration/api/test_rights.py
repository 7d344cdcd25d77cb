"""Datasets, columns and rows that are not for a user are in no response: every route, every kind of user."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx2
import pytest
import pytest_asyncio
from sqlalchemy import update

from producers.tokens import sign_token
from stream_app.datasets.file import DatasetsFile
from stream_app.datasets.models import ColumnSettings, Dataset, Scope
from stream_app.datasets.registry import Datasets
from stream_app.exports.tables.catalog import Catalog
from stream_app.schedules.models import Schedule, ScheduledExport
from stream_app.schedules.store import ScheduleStore
from stream_app.storage.object_store import ObjectStore
from tests.integration.api.conftest import Harness, order
from tests.integration.api.test_authorization import BRIEF, CASES, FURTHER_NAMES, Case, answer
from tests.integration.api.test_jobs import complete, place

VAULT = "hidden_vault"
"""A dataset for the role ``vault``."""
NOTHING = "h_no_dataset"
PEOPLE = "people"
"""A dataset for everybody, with columns and scopes that are not."""


@asynccontextmanager
async def people_table(dsn: str) -> AsyncIterator[str]:
    """Create the table of people for the block; yield its name."""
    schema = f"test_{uuid4().hex[:8]}"
    database = await asyncpg.connect(dsn)
    await database.execute(
        f"""
        CREATE SCHEMA {schema}; GRANT USAGE ON SCHEMA {schema} TO PUBLIC;
        CREATE TABLE {schema}.people (id int PRIMARY KEY, owner text, org text, hidden_margin int, email text,
            hidden_at timestamptz);
        INSERT INTO {schema}.people
            SELECT n, CASE n % 4 WHEN 0 THEN 'ada' ELSE 'user' || n END,
                CASE n % 2 WHEN 0 THEN 'acme' ELSE 'globex' END, n, 'n' || n || '@example.com', now()
            FROM generate_series(1, 1000) AS n;
        ANALYZE {schema}.people; GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO PUBLIC
        """
    )
    try:
        yield f"{schema}.people"
    finally:
        await database.execute(f"DROP SCHEMA {schema} CASCADE")
        await database.close()


def offer(api: Harness, table: str) -> None:
    """Give the API datasets of this table that have rights."""
    common = {"table": table, "owner": "owner"}
    known = api.services
    datasets = Datasets(
        DatasetsFile(
            datasets={
                **{name: known.datasets[name] for name in known.datasets},
                VAULT: Dataset(name=VAULT, roles=("vault",), **common),
                PEOPLE: Dataset(
                    name=PEOPLE,
                    time="hidden_at",
                    order=("hidden_margin", "id"),
                    column_settings={
                        "hidden_margin": ColumnSettings(roles=("finance",)),
                        "hidden_at": ColumnSettings(roles=("finance",)),
                        "email": ColumnSettings(mask="null", unmasked_for=("pii",)),
                    },
                    scopes={
                        "organisation": Scope(column="org", claim="org"),
                        "led": Scope(column="org", claim="org", roles=("org-admin",)),
                    },
                    **common,
                ),
            }
        )
    )
    api.use(
        datasets=datasets,
        validator=replace(known.validator, datasets=datasets),
        catalog=Catalog(known.estimate_sources),
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def people(source_dsn: str) -> AsyncIterator[str]:
    """A table of people that no test changes."""
    async with people_table(source_dsn) as table:
        yield table


@pytest_asyncio.fixture(loop_scope="module")
async def shop(api: Harness, people: str) -> Harness:
    """The API with datasets that have rights."""
    offer(api, people)
    return api


def told(response: httpx2.Response, name: str) -> tuple[int, str, str]:
    """Return what a response says, without the name that was asked for and without ids."""
    headers = {
        key: value for key, value in response.headers.items() if key not in ("x-request-id", "content-length")
    }
    body = response.json() if response.content else {}
    if isinstance(body, dict):
        body.pop("request_id", None)
    return response.status_code, str(headers).replace(name, NOTHING), str(body).replace(name, NOTHING)


BODIES: list[dict[str, Any]] = [
    {}, {"columns": ["id"]}, {"columns": ["nope"]}, {"filters": {"hidden_margin": 1}}, {"format": "nope"},
    {"scope": "all"}, {"scope": "organisation"}, {"scope": "nope"}, {"recipients": ["nobody"]},
    {"options": {"nope": 1}}, {"parameters": {"a": 1}}, {"claims": {"roles": ["vault"]}},
]  # fmt: skip


@pytest.mark.parametrize("roles", [(), ("finance",), ("exports:all",), ("exports:operate",)])
async def test_a_dataset_for_others_has_the_responses_of_no_dataset(
    shop: Harness, roles: tuple[str, ...]
) -> None:
    async with shop.user(*roles, org="acme") as client:

        async def ask(name: str) -> list[tuple[int, str, str]]:
            found = []
            for body in BODIES:
                request = order(
                    export_type=name, **{key: value for key, value in body.items() if key != "format"}
                )
                request |= {"format": body.get("format", "csv")}
                for path, more in (
                    ("/exports/jobs", {}),
                    ("/exports/jobs:estimate", {}),
                    ("/exports/schedules", {"schedule": "daily", "window": "since_last_run"}),
                ):
                    found.append(told(await client.post(path, json=request | more), name))
            found.append(told(await client.get("/exports/jobs", params={"export_type": name}), name))
            return found

        there, none = await ask(VAULT), await ask(NOTHING)
        assert there == none
        assert all(status in (200, 403, 422) for status, _, _ in there)
        assert "hidden_" not in str(there)


def for_vault(case: Case) -> Case:
    """Return the call for the dataset with rights, where it names one."""
    is_order = isinstance(case.body, dict) and "export_type" in case.body
    return replace(case, body=case.body | {"export_type": VAULT}) if is_order else case


async def test_no_route_tells_a_user_of_datasets_and_columns_for_others(
    shop: Harness, storage: ObjectStore
) -> None:
    """Each route of the table of routes, about the job, the schedule and the file of a user with the role."""
    owner = f"owner-{uuid4()}"
    async with shop.user("vault", user_id=owner) as client:
        job_id = await place(client, export_type=VAULT)
        await complete(shop, storage, job_id)
        made = await client.post("/exports/schedules", json=order(export_type=VAULT, schedule="daily"))
    names = {"owner": owner, "job_id": job_id, "schedule_id": made.json()["id"]}
    names |= FURTHER_NAMES

    async def check(case: Case, roles: tuple[str, ...]) -> None:
        asked = for_vault(case)
        hours = BRIEF if case.call.endswith("/events") else 1
        token = sign_token(shop.settings, f"user-{uuid4()}", roles, hours=hours)
        response = await answer(shop.app, asked, token, names)
        assert response.status_code != 401, case
        assert "hidden_margin" not in response.text, case
        assert "hidden_at" not in response.text, case
        if asked is case:
            assert VAULT not in response.text, case
        else:
            assert response.status_code in (403, 422), case
            assert response.text.count(VAULT) <= 1, "only the name that was asked for"

    for case in CASES:
        await asyncio.gather(*(check(case, roles) for roles in ((), ("pii",), ("exports:all",))))


async def test_a_job_and_its_file_stay_with_a_user_who_lost_the_role(
    shop: Harness, storage: ObjectStore
) -> None:
    user = f"user-{uuid4()}"
    async with shop.user("vault", user_id=user) as before:
        job_id = await place(before, export_type=VAULT)
        await complete(shop, storage, job_id)
        schedule = (
            await before.post("/exports/schedules", json=order(export_type=VAULT, schedule="daily"))
        ).json()
    async with shop.user(user_id=user) as after:
        job = (await after.get(f"/exports/jobs/{job_id}")).json()
        assert (job["status"], job["export_type"]) == ("completed", VAULT)
        assert (await after.get(f"/exports/jobs/{job_id}/download")).status_code == 307
        assert job_id in (await after.get("/exports/jobs")).text
        assert VAULT not in (await after.get("/exports/datasets")).text
        again = await after.post("/exports/jobs", json=order(export_type=VAULT))
        assert (again.status_code, again.json()["code"]) == (422, "unknown_dataset")
        path = f"/exports/schedules/{schedule['id']}"
        assert (await after.patch(path, json={"active": False})).status_code == 200
        assert (await after.patch(path, json={"active": True})).json()["code"] == "unknown_dataset"
        assert (await after.post(f"{path}:run")).status_code == 409
        assert (await after.get(path)).json()["export_type"] == VAULT
        assert (await after.delete(path)).status_code == 204


async def listed(client: httpx2.AsyncClient, name: str = PEOPLE) -> dict[str, Any]:
    found = (await client.get("/exports/datasets")).json()["datasets"]
    (dataset,) = (item for item in found if item["name"] == name)
    return dict(dataset)


@pytest.mark.parametrize(
    ("roles", "claims", "columns", "scopes", "has_time"),
    [
        ((), {}, ["id", "owner", "org", "email*"], ["own"], False),
        (("pii",), {"org": "acme"}, ["id", "owner", "org", "email"], ["own", "organisation"], False),
        (
            ("finance", "org-admin"),
            {"org": ["acme", "globex"]},
            ["id", "owner", "org", "hidden_margin", "email*", "hidden_at"],
            ["own", "organisation", "led"],
            True,
        ),
        (("exports:all",), {"org": {}}, ["id", "owner", "org", "email*"], ["own", "all"], False),
        (
            ("exports:admin",),
            {"org": ""},
            ["id", "owner", "org", "hidden_margin", "email", "hidden_at"],
            ["own", "all"],
            True,
        ),
    ],
)
async def test_the_list_has_what_the_user_sees(
    shop: Harness,
    roles: tuple[str, ...],
    claims: dict[str, Any],
    columns: list[str],
    scopes: list[str],
    has_time: bool,
) -> None:
    async with shop.user(*roles, **claims) as client:
        dataset = await listed(client)
    shown = [f"{item['name']}*" if item["masked"] else item["name"] for item in dataset["columns"]]
    assert shown == columns
    assert [item["operators"] for item in dataset["columns"] if item["masked"]] in ([], [[]])
    assert dataset["scopes"] == scopes
    assert (dataset["has_time"], dataset["time"]) == (has_time, "hidden_at" if has_time else None)


CLOSED: list[tuple[dict[str, Any], str, str]] = [
    ({"columns": ["hidden_margin"]}, "unknown_column", "columns.0"),
    ({"filters": {"hidden_margin": 1}}, "unknown_column", "filters.hidden_margin"),
    ({"filters": {"hidden_at": "now-99999y"}}, "unknown_column", "filters.hidden_at"),
    ({"filters": {"hidden_at": {"near": "x"}}}, "unknown_column", "filters.hidden_at"),
    ({"filters": {"email": "n1@example.com"}}, "masked_column", "filters.email"),
    ({"filters": {"email": {"is_null": False}}}, "masked_column", "filters.email"),
    ({"scope": "nope"}, "unknown_scope", "scope"),
    ({"scope": "led"}, "scope_not_allowed", "scope"),
    ({"scope": "organisation"}, "missing_claim", "scope"),
    ({"claims": {"org": "acme"}}, "invalid_request", "claims"),
]


async def test_closed_columns_and_scopes_are_refused_in_every_way_to_ask(shop: Harness) -> None:
    async with shop.user("other") as client:
        for body, code, field in CLOSED:
            wanted = order(export_type=PEOPLE, **body)
            for path, more in (
                ("/exports/jobs", {}),
                ("/exports/jobs:estimate", {}),
                ("/exports/schedules", {"schedule": "daily"}),
            ):
                response = await client.post(path, json=wanted | more)
                problem = response.json()
                assert (problem["code"], problem["field"]) == (code, field), response.text
                assert response.status_code == (
                    403 if code in ("scope_not_allowed", "missing_claim") else 422
                )
                assert "hidden_" not in problem["detail"].partition("allowed: ")[2]


async def test_a_window_needs_a_time_column_that_the_user_sees(shop: Harness) -> None:
    wanted = order(export_type=PEOPLE, schedule="daily", window="previous_period")
    async with shop.user() as client:
        assert (await client.post("/exports/schedules", json=wanted)).json()["code"] == "no_time_column"
    async with shop.user("finance") as client:
        assert (await client.post("/exports/schedules", json=wanted)).status_code == 201


@pytest.mark.parametrize(
    ("scope", "rows", "exact"),
    [("own", 250, True), ("organisation", 500, True), ("led", 1000, True), ("all", 1000, False)],
)
async def test_estimates_count_the_rows_of_the_scope(
    shop: Harness, scope: str, rows: int, exact: bool
) -> None:
    """S5: of other rows than all of them no number comes from the planner."""
    org = ["acme", "globex", "initech"] if scope == "led" else "acme"
    async with shop.user("org-admin", "exports:all", user_id="ada", org=org) as client:
        response = await client.post("/exports/jobs:estimate", json=order(export_type=PEOPLE, scope=scope))
    assert response.status_code == 200, response.text
    assert (response.json()["rows"], response.json()["exact"]) == (rows, exact)


async def test_an_estimate_depends_on_rows_of_the_scope_only(api: Harness, source_dsn: str) -> None:
    """S5: neither the rows of other organisations nor the planner's statistics about them change it."""
    database = await asyncpg.connect(source_dsn)
    bodies = [order(export_type=PEOPLE, scope="organisation", filters=f) for f in ({}, {"id": {"gt": 700}})]
    async with people_table(source_dsn) as table, api.user(org="acme") as client:
        offer(api, table)

        async def ask() -> list[dict[str, Any]]:
            return [(await client.post("/exports/jobs:estimate", json=body)).json() for body in bodies]

        before = await ask()
        assert [item["rows"] for item in before] == [500, 150]
        await database.execute(
            f"DELETE FROM {table} WHERE org = 'globex' AND id > 500;"
            f"UPDATE {table} SET email = repeat(email, 50), owner = 'ada', hidden_margin = 0"
            f" WHERE org = 'globex'; ANALYZE {table}"
        )
        assert await ask() == before
    await database.close()


async def test_a_request_carries_the_claims_that_the_dataset_names_and_no_response_has_them(
    shop: Harness,
) -> None:
    async with shop.user("pii", "unrelated", org="acme-secret", other="x") as client:
        job_id = await place(client, export_type=PEOPLE, scope="organisation")
        plain = await place(client)
        for path in (f"/exports/jobs/{job_id}", "/exports/jobs"):
            shown = (await client.get(path)).text
            assert "acme-secret" not in shown
            assert "claims" not in shown
    (event,) = await shop.published(job_id)
    assert event.data["claims"] == {"org": "acme-secret", "roles": ["pii"]}
    (other,) = await shop.published(plain)
    assert "claims" not in other.data
    job = await shop.queries.get(UUID(job_id))
    assert job is not None
    assert job.claims == event.data["claims"]
    async with shop.user("exports:operate") as operator:
        assert "acme-secret" not in (await operator.get(f"/exports/jobs/{job_id}")).text


async def test_the_same_idempotency_key_is_the_same_job_after_a_change_of_roles(shop: Harness) -> None:
    user, headers = f"user-{uuid4()}", {"Idempotency-Key": f"key-{uuid4()}"}
    ids = set()
    for roles in (("pii",), ("pii", "finance"), ()):
        async with shop.user(*roles, user_id=user) as client:
            response = await client.post("/exports/jobs", json=order(export_type=PEOPLE), headers=headers)
            assert response.status_code == 202, response.text
            ids.add(response.json()["export_job_id"])
    assert len(ids) == 1


class OneSchedule:
    """A schedule with scope ``organisation`` of a user with roles, and calls about it."""

    def __init__(self, shop: Harness, user: str, schedule_id: str) -> None:
        self.shop, self.user, self.id = shop, user, UUID(schedule_id)

    @classmethod
    async def make(cls, shop: Harness) -> "OneSchedule":
        user = f"user-{uuid4()}"
        wanted = order(export_type=PEOPLE, scope="organisation", schedule="daily")
        async with shop.user("pii", user_id=user, org="acme") as client:
            response = await client.post("/exports/schedules", json=wanted)
            assert response.status_code == 201, response.text
            assert "claims" not in response.text
            return cls(shop, user, response.json()["id"])

    async def row(self) -> Schedule:
        found = await ScheduleStore(self.shop.engine).get(self.id, user_id=None)
        assert found is not None
        return found

    async def set(self, **values: Any) -> None:
        async with self.shop.engine.begin() as connection:
            await connection.execute(
                update(ScheduledExport).where(ScheduledExport.id == self.id).values(**values)
            )

    async def call(
        self, method: str, suffix: str, body: Any = None, *roles: str, user: str | None = None, **claims: Any
    ) -> httpx2.Response:
        async with self.shop.user(*roles, user_id=user or self.user, **claims) as client:
            return await client.request(method, f"/exports/schedules/{self.id}{suffix}", json=body)


FULL = {"org": "acme", "roles": ["pii"]}


async def test_a_schedule_keeps_the_claims_of_its_owner_for_the_time_of_a_grant(shop: Harness) -> None:
    schedule = await OneSchedule.make(shop)
    row = await schedule.row()
    assert row.claims == FULL
    shown = (await schedule.call("GET", "")).json()["granted_until"]
    assert datetime.fromisoformat(shown) == row.claims_until
    days = timedelta(days=shop.settings.schedule_grant_days)
    assert row.claims_until is not None
    assert abs(row.claims_until - datetime.now(UTC) - days) < timedelta(minutes=5)
    await schedule.set(claims_until=datetime.now(UTC) - timedelta(seconds=1))
    lapsed = await schedule.call("POST", ":run", None, "exports:admin", user="somebody", org="globex")
    assert (lapsed.status_code, lapsed.json()["code"]) == (403, "grant_lapsed")
    patched = await schedule.call("PATCH", "", {"delay": 5}, "exports:admin", user="somebody", org="globex")
    assert patched.status_code == 200, patched.text
    row = await schedule.row()
    assert row.claims == FULL, "an administrator lends no right"
    assert row.claims_until is not None
    assert row.claims_until < datetime.now(UTC)
    renewed = await schedule.call("PATCH", "", {"active": True}, "pii", org="acme")
    assert renewed.status_code == 200, renewed.text
    ran = await schedule.call("POST", ":run", None, "exports:admin", user="somebody")
    assert ran.status_code == 202, ran.text
    job = await shop.queries.get(UUID(ran.json()["export_job_id"]))
    assert job is not None
    assert (job.claims, job.user_id, job.scope) == (FULL, schedule.user, "organisation")


@pytest.mark.parametrize(
    ("method", "suffix", "body", "roles", "claims", "status", "kept"),
    [
        ("PATCH", "", {"active": False}, (), {"org": "acme"}, 200, {"org": "acme"}),
        ("PATCH", "", {"active": False}, ("pii",), {"org": "globex"}, 200, {"roles": ["pii"]}),
        ("PATCH", "", {"active": False}, (), {}, 200, None),
        ("PATCH", "", {"active": False}, ("pii", "finance"), {"org": "acme"}, 200, FULL),
        ("PATCH", "", {"format": "json"}, (), {}, 403, None),
        ("PATCH", "", {"scope": "led"}, ("pii",), {"org": "acme"}, 403, FULL),
        ("POST", ":run", None, (), {}, 409, None),
        ("PATCH", "", {"format": "json"}, ("finance",), {"org": ["globex"]}, 200,
         {"org": ["globex"], "roles": ["finance"]}),
        ("POST", ":run", None, ("finance",), {"org": "globex"}, 202, {"org": "globex", "roles": ["finance"]}),
        ("GET", "", None, (), {}, 200, FULL),
    ],
)  # fmt: skip
async def test_a_call_of_the_owner_ends_and_renews_the_claims_of_a_schedule(
    shop: Harness,
    method: str,
    suffix: str,
    body: Any,
    roles: tuple[str, ...],
    claims: dict[str, Any],
    status: int,
    kept: dict[str, Any] | None,
) -> None:
    """S6: what the owner's token lacks is taken away by each of these calls, also by one that is refused."""
    schedule = await OneSchedule.make(shop)
    response = await schedule.call(method, suffix, body, *roles, **claims)
    assert response.status_code == status, response.text
    row = await schedule.row()
    assert row.claims == kept


@pytest.mark.parametrize(
    ("roles", "claims", "ends"),
    [
        (("pii", "finance"), {"org": "acme"}, False),
        (("pii", "finance", "exports:all"), {"org": ["globex", "acme"]}, False),
        (("pii",), {"org": "acme"}, True),
        (("pii", "finance"), {"org": "globex"}, True),
    ],
)
async def test_a_run_that_waits_for_its_start_ends_with_the_rights_of_the_owner(
    shop: Harness, roles: tuple[str, ...], claims: dict[str, Any], ends: bool
) -> None:
    """It waits for late rows. Its window is returned, and the next run has the rights of then."""
    schedule = await OneSchedule.make(shop)
    has = {"org": "acme"}
    change = {"window": "previous_period", "delay": 3_600}
    changed = await schedule.call("PATCH", "", change, "pii", "finance", **has)
    assert changed.status_code == 200, changed.text
    waiting, due = [
        (await schedule.call("POST", ":run", None, "pii", "finance", **has)).json()["export_job_id"]
        for _ in range(2)
    ]
    await shop.set(due, not_before=None)
    assert (await schedule.call("PATCH", "", {"active": False}, *roles, **claims)).status_code == 200
    for job_id, is_cancelled in ((waiting, ends), (due, False)):
        job = await shop.queries.get(UUID(job_id))
        assert job is not None
        assert job.claims == {"org": "acme", "roles": ["finance", "pii"]}
        assert (job.outcome or {}).get("status") == ("cancelled" if is_cancelled else None)
    published = await shop.published(waiting)
    assert ("export.cancel_requested" in [event.type for event in published]) is ends


async def test_a_run_for_all_rows_that_waits_for_its_start_ends_with_the_role(shop: Harness) -> None:
    """The schedule has another scope by then."""
    schedule = await OneSchedule.make(shop)
    job_id = (await schedule.call("POST", ":run", None, "pii", org="acme")).json()["export_job_id"]
    later = datetime.now(UTC) + timedelta(hours=1)
    await shop.set(job_id, scope="all", claims=None, not_before=later)
    for roles, status in ((("pii", "exports:all"), None), (("pii",), "cancelled")):
        answer = await schedule.call("PATCH", "", {"active": False}, *roles, org="acme")
        assert answer.status_code == 200, answer.text
        job = await shop.queries.get(UUID(job_id))
        assert job is not None
        assert (job.outcome or {}).get("status") == status


async def test_a_run_whose_rights_end_before_it_starts_is_refused(shop: Harness) -> None:
    schedule = await OneSchedule.make(shop)
    change = {"window": "previous_period", "delay": 7_200}
    changed = await schedule.call("PATCH", "", change, "pii", "finance", org="acme")
    assert changed.status_code == 200, changed.text
    for hours, status in ((1, 403), (3, 202)):
        await schedule.set(claims_until=datetime.now(UTC) + timedelta(hours=hours))
        ran = await schedule.call("POST", ":run", None, "exports:admin", user="somebody")
        assert ran.status_code == status, ran.text
        if status == 403:
            assert ran.json()["code"] == "grant_lapsed"


async def test_a_schedule_of_a_dataset_without_rights_has_no_grant(shop: Harness) -> None:
    async with shop.user("pii", org="acme") as client:
        made = (await client.post("/exports/schedules", json=order(schedule="daily"))).json()
    row = await ScheduleStore(shop.engine).get(UUID(made["id"]), user_id=None)
    assert row is not None
    assert (row.claims, row.claims_until) == (None, None)
    assert made["granted_until"] is None
