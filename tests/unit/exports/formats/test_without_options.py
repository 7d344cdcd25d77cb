"""Without a time zone, a locale and labels, statements have nothing of them: they cost nothing."""

from dataclasses import replace

import pytest

from stream_app.exports.columns import KIND_OF_TYPE, Column, DataType, Kind
from stream_app.exports.formats.registry import FORMATS
from stream_app.exports.queries.sql_text import render
from stream_app.time_zones import find_zone
from streaming_exporter.events import Options

INSTANT = DataType("timestamptz", Kind.TIMESTAMPTZ)

COLUMNS = [
    *(Column(f"a {name}", name, name, kind) for name, kind in KIND_OF_TYPE.items()),
    Column("list", "timestamptz[]", "timestamptz", Kind.ARRAY),
    Column("range", "tstzrange", "tstzrange", Kind.OTHER, shape=DataType("tstzrange", bounds=INSTANT)),
    Column("parts", "visit", "visit", Kind.OTHER, shape=DataType("visit", fields=(("at", INSTANT),))),
]

FUNCTIONS = ("width_bucket(", "timezone('", "to_char(", "split_part(", "rpad(")
"""Functions that only the options need."""


def statement(name: str, columns: list[Column], options: Options) -> str:
    return render(FORMATS[name].copy_select(columns, options).select)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_statements_have_no_function_that_only_the_options_need(name: str) -> None:
    plain = statement(name, COLUMNS, Options())
    assert not [function for function in FUNCTIONS if function in plain]
    # The options that are for other parts of a file change nothing; a language gives truth values words.
    others = [item for item in COLUMNS if name != "pdf" or item.kind is not Kind.BOOLEAN]
    changed = Options(headers="labels", language="de", title="Mine")
    assert statement(name, others, changed) == statement(name, others, Options())


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_only_instants_depend_on_the_zone(name: str) -> None:
    zone = find_zone("Europe/Berlin")
    for item in COLUMNS:
        zoned = item.in_zone(zone)
        is_instant = "timestamptz" in item.type or item.name in ("range", "parts")
        assert (zoned is not item) == is_instant
        changes = statement(name, [zoned], Options()) != statement(name, [item], Options())
        # An instant of Parquet has no zone, but texts in arrays and ranges have.
        assert changes == (is_instant and (name != "parquet" or item.kind is not Kind.TIMESTAMPTZ))


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_captions_are_no_part_of_values(name: str) -> None:
    """PostgreSQL makes whole objects only where JSON needs them, with the captions as keys."""
    captioned = [replace(item, caption=f"Caption {item.name}") for item in COLUMNS[:5]]
    assert statement(name, captioned, Options()) == statement(name, COLUMNS[:5], Options())
