"""Values of parameters reach PostgreSQL as they are, whatever they look like, and never as SQL."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from stream_app.datasets.caller import Caller
from stream_app.datasets.models import ColumnSettings, Dataset, Parameter
from stream_app.exports.queries.row_query import row_query
from stream_app.exports.queries.sql_text import render
from stream_app.exports.sources.source import Source
from stream_app.exports.tables.catalog import Catalog
from stream_app.exports.tables.rights import visible_table
from stream_app.exports.tables.source_table import SourceTable
from stream_app.settings import Settings
from streaming_exporter.errors import Rejected
from streaming_exporter.events import ExportRequest

ATTACKS = [
    "'; drop table t; --", "') as dataset; drop table t; --", "\\", "\\'", "'", "''", "\\'; --", '"', "$$",
    "$t$", "/*", "*/", "--", "\n--\n", "\r\n", ":p", "::text", "%s", "%", "{}", "E'\\''", "\u2019", "\uff07",
    "ｄ", "🙂", "\u202e", "\ufeff", "a\u0301", "\x01\x02", "\t", " ", "", "NULL", "' || current_user || '",
    "\\x27", "\\u0027",
]  # fmt: skip


@dataclass
class Database:
    """The source, for properties, which are not asynchronous."""

    loop: asyncio.AbstractEventLoop
    source: Source

    def table(
        self, query: str, columns: Mapping[str, ColumnSettings] | None = None, **parameters: Parameter
    ) -> SourceTable:
        dataset = Dataset(name="q", query=query, parameters=parameters, column_settings=columns or {})
        return self.loop.run_until_complete(Catalog(self.source).table(dataset))

    def row(self, table: SourceTable, **request: Any) -> dict[str, Any]:
        wanted = {"user_id": "u", "export_type": "q", "format": "csv", "scope": "all", **request}
        sql = render(row_query(table, ExportRequest.parse(wanted)).select)

        async def read() -> dict[str, Any]:
            async with self.source.snapshot("test", search_path=table.search_path) as snapshot:
                (found,) = await snapshot.fetch(sql)
                return dict(found)

        return self.loop.run_until_complete(read())


@pytest.fixture(scope="module")
def postgres(settings: Settings) -> Iterator[Database]:
    loop = asyncio.new_event_loop()
    source = Source(settings, connections=2)
    yield Database(loop, source)
    loop.run_until_complete(source.close())
    loop.close()


PLACES = """
select :p as plain, ':p' as text, E'\\':p' as escaped, $$:p$$ as dollars, U&':p' as unicode, -- :p '
    (array[:p, 'x'])[1:1] /* :p /* ' */ */ as list, :p::varchar as cast, concat(:p,:p) as twice
"""


@pytest.fixture(scope="module")
def places(postgres: Database) -> SourceTable:
    return postgres.table(PLACES, p=Parameter())


@given(st.sampled_from(ATTACKS) | st.text(max_size=30) | st.text("'\\\"$:-*/\n;)", max_size=12))
@example("\0")
@example("a\ud800")
def test_a_text_is_what_the_request_gave(postgres: Database, places: SourceTable, value: str) -> None:
    if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        with pytest.raises(Rejected, match=r"^parameters\.p: "):
            row_query(
                places,
                ExportRequest(
                    user_id="u", export_type="q", format="csv", scope="all", parameters={"p": value}
                ),
            )
        return
    assert postgres.row(places, parameters={"p": value}) == {
        "plain": value,
        "text": ":p",
        "escaped": "':p",
        "dollars": ":p",
        "unicode": ":p",
        "list": [value],
        "cast": value,
        "twice": value * 2,
    }


TYPED: dict[str, Any] = {
    "integer": st.integers(-(2**31), 2**31 - 1),
    "bigint": st.integers(-(2**63), 2**63 - 1),
    "numeric": st.decimals(allow_nan=False, allow_infinity=False, places=6).map(str),
    "float": st.floats(-1e300, 1e300).filter(lambda number: number == 0 or abs(number) > 1e-300),
    "boolean": st.booleans(),
    "date": st.dates().map(str),
    "time": st.times().map(str),
    "timestamp": st.datetimes().map(lambda moment: moment.isoformat()),
    "timestamptz": st.datetimes(timezones=st.just(UTC)).map(lambda moment: moment.isoformat()),
    "uuid": st.uuids().map(str),
    "text": st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
}
SQL_NAMES = {
    "float": "double precision",
    "time": "time without time zone",
    "timestamp": "timestamp without time zone",
    "timestamptz": "timestamp with time zone",
}


@pytest.mark.parametrize("name", TYPED)
def test_a_value_has_the_type_of_its_parameter(postgres: Database, name: str) -> None:
    """PostgreSQL gets the value with its type, and reads the text of the value as it was written."""
    type_name = SQL_NAMES.get(name, name)
    query = f"select pg_typeof(:p)::text as type, :p = (:raw)::{type_name} as same"
    table = postgres.table(query, p=Parameter.model_validate({"type": name}), raw=Parameter())

    @given(TYPED[name])
    def check(value: Any) -> None:
        raw = str(value).lower() if isinstance(value, bool) else str(value)
        row = postgres.row(table, parameters={"p": value, "raw": raw})
        assert (row["type"], row["same"]) == (type_name, True)

    check()


def quoted(text: str) -> st.SearchStrategy[str]:
    """Return ways to write ``text`` as a constant of SQL."""
    doubled = text.replace("'", "''")
    escaped = text.replace("\\", "\\\\")
    ways = [
        f"'{doubled}'",
        "E'" + escaped.replace("'", "''") + "'",
        "e'" + escaped.replace("'", "\\'") + "'",
        "U&'" + doubled.replace("\\", "\\\\") + "'",
        "E'' -- '\n '" + escaped.replace("'", "\\'") + "'",
        f"'' \n '{doubled}'",
    ]
    if "$" not in text:
        ways += [f"$${text}$$", f"$tag_1${text}$tag_1$"]
    return st.sampled_from(ways)


pieces = st.sampled_from(
    ["a", " ", ":p", ":q", "'", "\\", "--", "/*", "*/", "\n", ")", ";", "E'", "U&", "é", "::"]
)
constants = (
    st.lists(pieces, max_size=6).map("".join).flatmap(lambda text: st.tuples(st.just(text), quoted(text)))
)
between = st.sampled_from([" ", "\n", "/* :p ' */", "-- :p '\n", '/*/* " */ $$ */', "\t"])
terms = st.lists(st.tuples(between, st.just((None, ":p")) | constants, between), min_size=1, max_size=4)


@given(terms, st.sampled_from(ATTACKS))
def test_only_places_outside_of_constants_and_comments_are_parameters(
    postgres: Database, parts: list[tuple[str, tuple[str | None, str], str]], value: str
) -> None:
    """PostgreSQL itself says where a string or a comment ends: it must agree with the service."""
    listed = ",".join(before + sql + after for before, (_, sql), after in parts)
    query = f'select :p as ":p", array[{listed}]::text[] as found'
    table = postgres.table(query, p=Parameter())
    wanted = [value if text is None else text for _, (text, _), _ in parts]
    assert postgres.row(table, parameters={"p": value}) == {":p": value, "found": wanted}


between_constants = [
    " ", "\n", "\r", "\t", "-- ' :p\n", "/* ' :p */", "/**/", "'", "\\", ":p", "E", "$$", '"',
]  # fmt: skip
gaps = st.lists(st.sampled_from(between_constants), max_size=4).map("".join)


@given(constants, gaps, constants, gaps, st.sampled_from(ATTACKS))
@example(("x", "E'x'"), " /* */\n", ("\\", "'\\'"), " ", "' or true --")
@example(("x", "E'x'"), " -- ' \n", ("\\", "'\\'"), " ", "' or true --")
@example(("x", "E'x'"), "\n", ("'", "'\\''"), " ", "' or true --")
def test_text_that_looks_like_two_constants(
    postgres: Database, first: tuple[str, str], gap: str, second: tuple[str, str], end: str, value: str
) -> None:
    """A query is refused when it is read or described, or the value is where it should be."""
    try:
        query = f"select {first[1]}{gap}{second[1]}{end} as t, :p as p"
        table = postgres.table(query, p=Parameter())
    except (ValidationError, Rejected):
        return
    assert postgres.row(table, parameters={"p": value})["p"] == value


@pytest.fixture(scope="module")
def masked(postgres: Database) -> SourceTable:
    settings = {name: ColumnSettings(mask=name) for name in ("email", "last4")}
    table = postgres.table("select :p as email, :p as last4", settings, p=Parameter())
    return visible_table(table, Caller("u"))


sendable = st.characters(exclude_characters="\0", exclude_categories=["Cs"])


@given(st.text(sendable, max_size=20) | st.emails() | st.text("ab1@. -*\n", max_size=12))
def test_masks_show_less_than_the_value(postgres: Database, masked: SourceTable, value: str) -> None:
    """At most the first character and the domain of an address, and at most half of any other text."""
    row = postgres.row(masked, parameters={"p": value})
    local, at, domain = value.partition("@")
    assert row["email"] in ("***", f"***{at}{domain}", f"{value[:1]}***{at}{domain}")
    if row["email"] != "***":
        assert local
        assert "." in domain
    if not row["email"].startswith("***"):
        assert len(local) >= 3
    shown = row["last4"].removeprefix("****")
    assert len(shown) in (0, 4)
    assert len(shown) * 2 <= len(value)
