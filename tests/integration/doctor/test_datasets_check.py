"""``exporter datasets check`` and ``show`` on real databases, as docs/sources.md describes them."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from openpyxl import Workbook
from openpyxl.cell.rich_text import CellRichText, TextBlock
from openpyxl.cell.text import InlineFont
from pydantic import SecretStr
from typer.testing import CliRunner

from dev.stack import Stack
from stream_app.datasets.caller import Caller
from stream_app.doctor.datasets import check_tables
from stream_app.doctor.datasets_file import cli as datasets_command
from stream_app.doctor.datasets_file.check import check_datasets_file
from stream_app.doctor.datasets_file.remarks import as_json, worst_of
from stream_app.doctor.datasets_file.view import view_dataset
from stream_app.doctor.findings import State
from stream_app.settings import Settings
from streaming_exporter.errors import Rejected


@pytest.fixture
async def schema(source_dsn: str, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """A schema with a table that is right, one that is unwise, and a second source: the same server."""
    name = f"test_{uuid4().hex[:12]}"
    connection = await asyncpg.connect(source_dsn)
    await connection.execute(
        f"""
        CREATE SCHEMA {name}; GRANT USAGE ON SCHEMA {name} TO PUBLIC;
        CREATE TABLE {name}.orders (
            id int PRIMARY KEY, customer_id text, org_id text, placed_at timestamptz, email text,
            margin numeric
        );
        CREATE INDEX ON {name}.orders (customer_id); CREATE INDEX ON {name}.orders (placed_at, id);
        CREATE INDEX ON {name}.orders (org_id);
        CREATE TABLE {name}.unwise (owner_id text, at timestamptz, note text);
        CREATE TABLE {name}.secret (id int PRIMARY KEY);
        CREATE TABLE {name}.tenants (id int PRIMARY KEY, org text);
        ALTER TABLE {name}.tenants ENABLE ROW LEVEL SECURITY;
        CREATE POLICY p ON {name}.tenants USING (org = current_setting('app.tenant'));
        GRANT SELECT ON {name}.orders, {name}.tenants TO PUBLIC;
        GRANT SELECT, INSERT ON {name}.unwise TO PUBLIC
        """
    )
    monkeypatch.setenv("CRM_DATABASE_URL", stack.settings()["EXPORTER_SOURCE_DATABASE_URL"])
    monkeypatch.delenv("GONE_URL", raising=False)
    yield name
    await connection.execute(f"DROP SCHEMA {name} CASCADE")
    await connection.close()


def with_file(settings: Settings, folder: Path, text: str) -> Settings:
    path = folder / "datasets.toml"
    path.write_text(text, "utf-8")
    return settings.model_copy(update={"datasets_file": path})


def right(schema: str) -> str:
    return f"""
[sources.crm]
url_env = "CRM_DATABASE_URL"

[datasets.orders]
source = "crm"
table = "{schema}.orders"
owner = "customer_id"
time = "placed_at"
order = ["placed_at", "id"]
only = ["id", "email", "margin", "placed_at"]
[datasets.orders.scopes.organisation]
column = "org_id"
claim = "org"
roles = ["org-admin"]
[datasets.orders.columns.email]
label = "E-mail"
mask = "email"
unmasked_for = ["exports:pii"]
[datasets.orders.columns.margin]
roles = ["exports:finance"]

[datasets.sums]
query = "select org_id, count(*) as number from {schema}.orders where org_id = :org group by org_id"
[datasets.sums.parameters.org]
required = true
"""


async def test_a_right_file_has_no_remarks(schema: str, settings: Settings, tmp_path: Path) -> None:
    assert await check_datasets_file(with_file(settings, tmp_path, right(schema))) == []


WRONG = """
[sources.crm]
url_env = "GONE_URL"
conections = 3
[datasets.orders]
table = "{schema}.ordres"
[datasets.names]
table = "{schema}.orders"
owner = "custmer_id"
time = "email"
order = ["id", "placed"]
formats = ["csv", "excell"]
timezone = "Europe/Berlinn"
[datasets.names.scopes.organisation]
column = "organisation_id"
[datasets.names.columns.emial]
mask = "email"
[datasets.query]
query = "select id, nothing from {schema}.orders"
[datasets.secret]
table = "{schema}.secret"
[datasets.mask.columns.email]
mask = "no_such_function(email)"
[datasets.mask]
table = "{schema}.orders"
[datasets.deletions]
table = "{schema}.orders"
time = "placed_at"
deleted_at = "email"
[datasets.no_deletions]
table = "{schema}.orders"
time = "placed_at"
deleted_at = "removed"
"""

FOUND = {
    "3 sources.crm.url_env": "the variable GONE_URL is not set",
    "4 sources.crm.conections": "there is no key 'conections'; did you mean connections?",
    "6 datasets.orders.table": r"there is no table '.*\.ordres' .*; did you mean .*\.orders\?",
    "9 datasets.names.owner": "no column 'custmer_id'; did you mean customer_id",
    "10 datasets.names.time": "the column has the type text; allowed: dates and timestamps",
    "11 datasets.names.order.1": "no column 'placed'; did you mean placed_at",
    "12 datasets.names.formats.1": "no format 'excell'; did you mean excel",
    "13 datasets.names.timezone": "Berlinn",
    "15 datasets.names.scopes.organisation.column": "no column 'organisation_id'",
    "16 datasets.names.columns.emial": "no column 'emial'; did you mean email",
    "19 datasets.query.query": 'line 1 of the query: column "nothing" does not exist',
    "21 datasets.secret.table": "has no permission to SELECT",
    "22 datasets.mask.columns": "function no_such_function.* does not exist",
    "29 datasets.deletions.deleted_at": "the column has the type text; allowed: timestamps",
    "33 datasets.no_deletions.deleted_at": "no column 'removed'",
}


async def test_every_fault_is_found_at_its_line(schema: str, settings: Settings, tmp_path: Path) -> None:
    """An entry with a fault in one key is compared with the database without that key."""
    remarks = await check_datasets_file(with_file(settings, tmp_path, WRONG.format(schema=schema)))
    problems = {
        f"{remark.fault.line} {'.'.join(map(str, remark.fault.place))}": remark.fault.text
        for remark in remarks
        if remark.state is State.PROBLEM
    }
    assert problems.keys() == FOUND.keys()
    for place, text in FOUND.items():
        assert re.search(text, problems[place]), (place, problems[place])
    assert json.loads(as_json(remarks))["state"] == "problem"


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("select id,\n  nothing\nfrom {schema}.orders", 'in line 2 of the query: column "nothing"'),
        ("select id\nfrom {schema}.orders\nwhere", "in line [34] of the query: syntax error"),
        ("select * from {schema}.orders a, {schema}.orders b", "have the same name.*: 'id'"),
        ("select (1, 2) as pair, :p as p", "has the type record.*: 'pair'"),
        ("select id from {schema}.orders where id = :p", "in line 1 of the query: operator does not exist"),
    ],
)
async def test_operators_see_why_a_query_is_refused(
    query: str, text: str, schema: str, settings: Settings, tmp_path: Path
) -> None:
    """With PostgreSQL's own message and the line."""
    content = f"[datasets.q]\nquery = {json.dumps(query.format(schema=schema))}\n"
    if ":p" in query:
        content += "[datasets.q.parameters.p]\ntype = 'text'\n"
    (remark,) = await check_datasets_file(with_file(settings, tmp_path, content))
    assert remark.fault.place == ("datasets", "q", "query")
    assert re.search(text, remark.fault.text), remark.fault.text


async def test_a_hash_without_a_good_secret_is_a_problem(
    schema: str, settings: Settings, tmp_path: Path
) -> None:
    content = f"""
[datasets.orders]
table = "{schema}.orders"
[datasets.orders.columns.email]
mask = "hash"
"""
    weak = settings.model_copy(update={"link_secret": SecretStr("change-me")})
    (remark,) = await check_datasets_file(with_file(weak, tmp_path, content))
    assert remark.fault.place == ("datasets", "orders", "columns", "email", "mask")
    assert "set EXPORTER_LINK_SECRET" in remark.fault.text
    assert await check_datasets_file(with_file(settings, tmp_path, content)) == []


async def test_what_is_unwise_is_a_warning(schema: str, settings: Settings, tmp_path: Path) -> None:
    book: Any = Workbook()
    book.active["A1"] = CellRichText("a ", TextBlock(InlineFont(b=True), "mark"))
    book.save(tmp_path / "unwise.xlsx")
    text = f"""
[datasets.unwise]
template = "unwise.xlsx"
table = "{schema}.unwise"
owner = "owner_id"
time = "at"
order = ["note"]
[datasets.hidden]
table = "{schema}.tenants"
[datasets.useless]
table = "{schema}.orders"
[datasets.useless.session]
"app.tenant" = {{ claim = "org" }}
[datasets.tenants]
table = "{schema}.tenants"
[datasets.tenants.session]
"app.tenant" = {{ claim = "org" }}
"""
    remarks = await check_datasets_file(with_file(settings, tmp_path, text))
    assert worst_of(remarks) is State.WARNING
    found = {(".".join(map(str, item.fault.place)), item.fault.text.split(";")[0]) for item in remarks}
    role = "exporter_reader"
    assert found == {
        (
            "datasets.unwise.template",
            "files do not have these parts of the template: "
            "sheet 'Sheet': text with more than one format 'A1'",
        ),
        ("datasets.unwise.table", f"the role {role} can write"),
        ("datasets.unwise.table", "it has no primary key, so errors cannot name a row by its key"),
        ("datasets.unwise.owner", "no index begins with owner_id"),
        ("datasets.unwise.time", "no index begins with at"),
        ("datasets.unwise.order", "no index begins with note"),
        ("datasets.hidden", "row-level security hides rows of the table from the service's role"),
        (
            "datasets.useless.session",
            "no policy of row-level security applies to the service's role, so the settings hide no row",
        ),
    }
    (finding,) = [finding async for finding in check_tables(with_file(settings, tmp_path, text))]
    assert finding.values == {"count": len(found) - 1}, "the template is a finding of its own"


async def test_a_source_that_is_away_is_one_remark(
    schema: str, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRM_DATABASE_URL", "postgresql://reader:hunter2@127.0.0.1:1/crm")
    remarks = await check_datasets_file(with_file(settings, tmp_path, right(schema)))
    (remark,) = remarks
    assert remark.fault.place == ("sources", "crm")
    assert "source database crm" in remark.fault.text
    assert "hunter2" not in remark.fault.text


async def test_a_view_is_that_of_the_caller(schema: str, settings: Settings, tmp_path: Path) -> None:
    own = with_file(settings, tmp_path, right(schema))
    view = await view_dataset(own, "orders", Caller("u'1"))
    assert [item.name for item in view.columns] == ["id", "email", "placed_at"]
    assert view.columns[1].mask == "email"
    assert view.columns[1].label == "E-mail"
    assert (view.scope, view.scopes) == ("own", ["own"])
    assert view.sql is not None
    assert "'u''1'" in view.sql
    assert "margin" not in view.sql
    connection = await asyncpg.connect(settings.source_dsn)
    assert await connection.fetch(view.sql) == []
    await connection.close()
    admin = Caller("u", frozenset({"org-admin", "exports:pii", "exports:finance"}), {"org": "acme"})
    view = await view_dataset(own, "orders", admin, scope="organisation")
    assert [(item.name, item.mask) for item in view.columns] == [
        ("id", None), ("email", None), ("margin", None), ("placed_at", None)
    ]  # fmt: skip
    assert "'acme'" in str(view.sql)
    view = await view_dataset(own, "sums", Caller("u"))
    assert view.sql is None
    assert "org" in str(view.problem)
    view = await view_dataset(own, "sums", Caller("u"), parameters={"org": "acme"})
    assert "'acme'" in str(view.sql)
    with pytest.raises(Rejected, match="did you mean orders"):
        await view_dataset(own, "ordres", Caller("u"))


async def test_relative_parameters_are_shown_as_their_values(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "relative.toml"
    path.write_text(
        '[datasets.days]\nquery = "select 1 as id where :since < now()"\n'
        '[datasets.days.parameters.since]\ntype = "timestamptz"\ndefault = "start_of_month"\n'
    )
    changed = settings.model_copy(update={"datasets_file": path})
    for parameters in ({}, {"since": "now-7d"}):
        view = await view_dataset(changed, "days", Caller("u"), parameters=parameters)
        assert view.problem is None
        assert re.search(r"'20\d\d-\d\d-\d\dT", str(view.sql))


def test_the_commands_print_lines_json_and_exit_codes(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in stack.settings().items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "datasets.toml"
    path.write_text('[datasets.ledger]\ntable = "public.ledger"\nowner = "user_id"\n')
    runner = CliRunner()
    done = runner.invoke(datasets_command.cli, ["check", "--file", str(path)])
    assert done.exit_code == 0, done.output
    shown = ["show", "ledger", "--as-user", "u", "--claim", "org=acme", "--role", "r", "--file", str(path)]
    done = runner.invoke(datasets_command.cli, shown)
    assert done.exit_code == 0, done.output
    assert "user_id" in done.stdout
    assert "SELECT" in done.stdout
    content = json.loads(runner.invoke(datasets_command.cli, [*shown, "--json"]).stdout)
    assert (content["user"], content["claims"], content["roles"]) == ("u", {"org": "acme"}, ["r"])
    path.write_text('[datasets.ledger]\ntable = "public.ledgr"\n')
    done = runner.invoke(datasets_command.cli, ["check", "--file", str(path)])
    assert done.exit_code == 1
    line = done.stdout.splitlines()[0]
    assert line.startswith(f"{path}:2: problem: datasets.ledger.table: there is no table 'public.ledgr'")
    assert line.endswith("did you mean public.ledger?")
    content = json.loads(runner.invoke(datasets_command.cli, ["check", "--file", str(path), "--json"]).stdout)
    assert [item["line"] for item in content["findings"]] == [2]
    done = runner.invoke(datasets_command.cli, ["show", "ledger", "--as-user", "u", "--file", str(path)])
    assert done.exit_code == 1
    path.write_text("[datasets.ledger\n")
    done = runner.invoke(datasets_command.cli, ["check", "--file", str(path)])
    assert done.exit_code == 1
    assert f"{path}:1: problem: " in done.stdout


BUNDLES = """
[bundles.right]
datasets = ["orders", "sums"]
roles = ["exports:all-of-them"]
[bundles.right.filters.orders]
placed_at = { gte = "today-30d" }

[bundles.wrong]
datasets = ["orders"]
[bundles.wrong.filters.orders]
placed = 1

[bundles.person]
kind = "subject_access"
datasets = ["closed"]
[bundles.person.filters.closed]
margin = 1

[datasets.closed]
source = "crm"
table = "{schema}.orders"
owner = "customer_id"
order = ["id"]
roles = ["staff"]
[datasets.closed.columns.margin]
roles = ["exports:finance"]
"""


async def test_bundles_are_checked_with_their_datasets(
    schema: str, settings: Settings, tmp_path: Path
) -> None:
    """What is wrong in the filters of a bundle, and who is refused."""
    text = right(schema) + BUNDLES.replace("{schema}", schema)
    remarks = await check_datasets_file(with_file(settings, tmp_path, text))
    found = {(remark.state, remark.fault.place): remark.fault.text for remark in remarks}
    assert set(found) == {
        (State.PROBLEM, ("bundles", "wrong", "filters", "orders")),
        (State.WARNING, ("bundles", "person", "filters", "closed", "margin")),
        (State.WARNING, ("bundles", "person", "datasets")),
    }
    assert "no column 'placed'" in found[State.PROBLEM, ("bundles", "wrong", "filters", "orders")]
    texts = [
        remark.fault.text for remark in remarks if remark.fault.place == ("bundles", "person", "datasets")
    ]
    assert any("dataset 'closed' needs a role (staff)" in text for text in texts)
    assert any("dataset 'orders' has rows of users too" in text for text in texts)
    assert all(remark.fault.line is not None for remark in remarks)


async def test_a_bundle_is_shown_with_each_dataset(
    schema: str, stack: Stack, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = with_file(settings, tmp_path, right(schema) + BUNDLES.replace("{schema}", schema)).datasets_file
    for name, value in stack.settings().items():
        monkeypatch.setenv(name, value)

    def shown(*arguments: str) -> str:
        command = ["show", "right", "--as-user", "u", "--file", str(path), *arguments]
        result = CliRunner().invoke(datasets_command.cli, command)
        assert result.exit_code == 0, result.output
        return result.output

    everything = ["--role", "exports:all-of-them", "--parameter", "org=acme"]
    content = json.loads(await asyncio.to_thread(shown, "--json", *everything))
    assert [item["name"] for item in content["datasets"]] == ["orders", "sums"]
    assert content["filters"] == {"orders": {"placed_at": {"gte": "today-30d"}}}
    text = await asyncio.to_thread(shown, *everything)
    assert "bundle" in text
    assert "-- scope own" in text
