"""Rows, columns and numbers of one caller never reach another, by two tables that differ in the rest."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app.datasets.caller import Caller
from stream_app.datasets.models import ColumnSettings, Dataset, Scope
from stream_app.exports.filters.relative_dates import resolve_request
from stream_app.exports.queries.row_query import row_query
from stream_app.exports.queries.sql_text import render
from stream_app.exports.sources.source import Source
from stream_app.exports.tables.catalog import Catalog
from stream_app.exports.tables.rights import shows_planner_numbers, visible_table
from stream_app.exports.tables.source_table import SourceTable
from stream_app.settings import Settings
from streaming_exporter.errors import Rejected
from streaming_exporter.events import ExportRequest

COLUMNS = ("id", "owner", "org", "total", "margin", "email", "at")
ROLES = ("finance", "pii", "org-admin")
"""Roles of the datasets file."""

_CREATE = """
CREATE SCHEMA "{schema}"; GRANT USAGE ON SCHEMA "{schema}" TO PUBLIC;
CREATE SCHEMA "{schema}_other"; GRANT USAGE ON SCHEMA "{schema}_other" TO PUBLIC;
CREATE TABLE "{schema}".t (id int PRIMARY KEY, owner text, org text, total numeric, margin int, email text,
    at timestamptz);
INSERT INTO "{schema}".t
    SELECT n, (ARRAY['ada', 'bob', 'eve'])[1 + n % 3], (ARRAY['acme', 'globex'])[1 + n % 2], n * 1.5, 100 - n,
        'name' || n || '@example.com', '2026-01-01Z'::timestamptz + n * interval '1 hour'
    FROM generate_series(1, 24) AS n;
CREATE TABLE "{schema}_other".t (LIKE "{schema}".t INCLUDING ALL);
GRANT SELECT ON "{schema}_other".t TO PUBLIC;
GRANT SELECT ON ALL TABLES IN SCHEMA "{schema}" TO PUBLIC;
"""

_OTHER = {
    "owner": "'somebody'",
    "org": "'somewhere'",
    "total": "total * -3 + 7",
    "margin": "(margin * 37) % 101",
    "email": "md5(email) || '@other.example'",
    "at": "at - id * interval '7 days'",
}
"""Other values for each column."""


@dataclass
class Probe:
    """The table, and the same table as it could also be, for tests that are not asynchronous."""

    loop: asyncio.AbstractEventLoop
    admin: asyncpg.Connection
    source: Source
    table: SourceTable
    schema: str

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def described(self, dataset: Dataset, schema: str) -> SourceTable:
        every = self.table.all_columns
        columns = tuple(every[name] for name in dataset.columns or every)
        return replace(self.table, dataset=dataset, columns=columns, schema=schema)


@pytest.fixture(scope="module")
def probe(source_dsn: str, settings: Settings) -> Iterator[Probe]:
    loop = asyncio.new_event_loop()
    schema = f"test_{uuid4().hex[:12]}"
    admin = loop.run_until_complete(asyncpg.connect(source_dsn))
    loop.run_until_complete(admin.execute(_CREATE.format(schema=schema)))
    source = Source(settings, connections=2)
    dataset = Dataset(name="things", table=f"{schema}.t")
    table = loop.run_until_complete(Catalog(source).table(dataset))
    yield Probe(loop, admin, source, table, schema)
    loop.run_until_complete(admin.execute(f'DROP SCHEMA "{schema}", "{schema}_other" CASCADE'))
    loop.run_until_complete(admin.close())
    loop.run_until_complete(source.close())
    loop.close()


some_roles = st.none() | st.lists(st.sampled_from(ROLES), unique=True, min_size=1, max_size=2).map(tuple)


@st.composite
def columns(draw: st.DrawFn) -> ColumnSettings:
    mask = draw(st.none() | st.just("null"))
    unmasked = draw(st.lists(st.sampled_from(ROLES), max_size=1).map(tuple)) if mask else ()
    return ColumnSettings(mask=mask, unmasked_for=unmasked, roles=draw(some_roles))


datasets = st.builds(
    Dataset,
    name=st.just("things"),
    table=st.just("t"),
    owner=st.just("owner"),
    time=st.none() | st.just("at"),
    columns=st.none() | st.lists(st.sampled_from(COLUMNS), unique=True, min_size=2).map(tuple),
    order=st.none() | st.lists(st.sampled_from(COLUMNS), unique=True, min_size=1, max_size=3).map(tuple),
    roles=st.none() | st.just(("org-admin",)),
    column_settings=st.dictionaries(
        st.sampled_from(["total", "margin", "email", "at"]), columns(), max_size=3
    ),
    scopes=st.just(
        {
            "organisation": Scope(column="org", claim="org"),
            "led": Scope(column="org", claim="org", roles=("org-admin",)),
        }
    ),
)
claims = st.fixed_dictionaries(
    {"roles": st.lists(st.sampled_from(ROLES), unique=True)},
    optional={"org": st.sampled_from(["acme", ["acme", "globex"], [], "initech"])},
)
filters = st.sampled_from(
    [
        {"total": {"gt": 9}}, {"margin": {"lte": 90}}, {"email": {"prefix": "name1"}}, {"org": "acme"},
        {"owner": {"ne": "ada"}}, {"at": {"gte": "2026-01-01T08:00:00Z"}}, {"id": {"in": [1, 2, 3, 12]}},
        {"email": {"is_null": False}}, {"margin": "x"}, {"at": "now-1d"}, {"at": "now-99999y"}, {"none": 1},
    ]
)  # fmt: skip
requests = st.fixed_dictionaries(
    {
        "user_id": st.sampled_from(["ada", "bob", "nobody"]),
        "scope": st.sampled_from(["own", "organisation", "led", "all"]),
        "claims": claims,
        "filters": st.just({}) | filters,
    },
    optional={"columns": st.lists(st.sampled_from(COLUMNS), unique=True, min_size=1, max_size=3)},
)


def seen_columns(dataset: Dataset, caller: Caller) -> set[str]:
    """Return the columns whose values the caller can see or use. The test's own words, not the service's."""
    named = dataset.columns or COLUMNS
    found = set()
    for name in {*named, *filter(None, [dataset.time])}:
        rules = dataset.column_settings.get(name, ColumnSettings())
        shown = rules.roles is None or bool(caller.roles & set(rules.roles))
        if shown and (rules.mask is None or caller.roles & set(rules.unmasked_for)):
            found.add(name)
    return found


def other_world(schema: str, dataset: Dataset, request: ExportRequest) -> str:
    """Return SQL that fills the other table: it differs in all that the caller must not see."""
    org = request.claims.get("org", [])
    orgs = ", ".join(f"'{name}'" for name in ([org] if isinstance(org, str) else [*org, "-"])) or "'-'"
    mine = {"own": f"owner = '{request.user_id}'", "all": "true"}.get(request.scope, f"org IN ({orgs})")
    seen = seen_columns(dataset, Caller.of(request))
    values = ["id"]
    for name in COLUMNS[1:]:
        is_same = name in seen or name in ("owner", "org")
        values.append(f"CASE WHEN {mine} THEN {name if is_same else _OTHER[name]} ELSE {_OTHER[name]} END")
    table = f'"{schema}_other".t'
    return (
        f"TRUNCATE {table}; INSERT INTO {table} SELECT {', '.join(values)} "
        f'FROM "{schema}".t WHERE {mine} OR id % 3 = 0 ORDER BY id DESC'
    )


async def answered(probe: Probe, table: SourceTable, request: ExportRequest) -> Any:
    """Return the columns, rows and numbers that an export and an estimate are made of, or the error."""
    try:
        visible = visible_table(table, Caller.of(request))
        wanted = resolve_request(request, visible.filterable, datetime(2026, 1, 2, tzinfo=UTC))
        rows = row_query(visible, wanted)
    except Rejected as error:
        return error.code, error.field, str(error)
    sql = render(rows.select)
    async with probe.source.snapshot("test", search_path=table.search_path) as snapshot:
        found = [tuple(row.values()) for row in await snapshot.connection.fetch(sql)]
    facts = [(item.name, item.type, item.mask) for item in rows.columns]
    key, order = visible.primary_key, visible.visible_order
    return facts, key, order, len(found), sorted(map(repr, found)), shows_planner_numbers(visible, request)


@settings(max_examples=120, deadline=None)
@given(dataset=datasets, request=requests)
def test_rows_columns_and_numbers_depend_on_what_the_caller_sees(
    probe: Probe, dataset: Dataset, request: dict[str, Any]
) -> None:
    """Two tables that differ in rows of others and in closed columns give the same answer."""
    wanted = ExportRequest.parse({"export_type": "things", "format": "csv", **request})
    probe.run(probe.admin.execute(other_world(probe.schema, dataset, wanted)))
    here = probe.run(answered(probe, probe.described(dataset, probe.schema), wanted))
    there = probe.run(answered(probe, probe.described(dataset, f"{probe.schema}_other"), wanted))
    assert here == there


@settings(max_examples=60, deadline=None)
@given(dataset=datasets, request=requests)
def test_a_caller_gets_all_rows_of_the_scope_and_no_others(
    probe: Probe, dataset: Dataset, request: dict[str, Any]
) -> None:
    asked = {**request, "filters": {}, "columns": ["id"]}
    open_dataset = dataset.model_copy(update={"columns": None})
    wanted = ExportRequest.parse({"export_type": "things", "format": "csv", **asked})
    roles, org = set(wanted.claims["roles"]), wanted.claims.get("org", [])
    found = probe.run(answered(probe, probe.described(open_dataset, probe.schema), wanted))
    orgs = {org} if isinstance(org, str) else set(org)
    if dataset.roles is not None and "org-admin" not in roles:
        assert found[0] == "unknown_dataset"
    elif request["scope"] == "led" and "org-admin" not in roles:
        assert found[0] == "scope_not_allowed"
    elif request["scope"] in ("organisation", "led") and not orgs:
        assert found[0] == "missing_claim"
    else:
        mine = {
            "all": range(1, 25),
            "own": [n for n in range(1, 25) if ["ada", "bob", "eve"][n % 3] == request["user_id"]],
        }.get(request["scope"], [n for n in range(1, 25) if ["acme", "globex"][n % 2] in orgs])
        assert found[4] == sorted(repr((n,)) for n in mine)
