"""Arguments of the command line, as fields of the event."""

import re
from pathlib import Path
from typing import Any

import pytest

from producers.arguments import (
    OPERATORS,
    parse_claims,
    parse_columns,
    parse_filters,
    parse_options,
    parse_parameters,
)
from stream_app.exports.columns import Column, Kind
from stream_app.exports.filters.conditions import operators
from streaming_exporter.errors import UsageError
from tests.rows import each_row


@each_row(
    ("pairs", "expected"),
    [
        (["kind=proof"], {"kind": "proof"}),
        (["id=5"], {"id": "5"}),
        (["note="], {"note": ""}),
        (["note=a=b"], {"note": "a=b"}),
        (["at=2026-01-01T10:00:00Z"], {"at": "2026-01-01T10:00:00Z"}),
        (["sealed=true", "gone=null"], {"sealed": True, "gone": None}),
        (['name="true"'], {"name": "true"}),
        (['name="unfinished'], {"name": '"unfinished'}),
        (["id:gte=5", "id:lt=9"], {"id": {"gte": "5", "lt": "9"}}),
        (["id=5", "id:ne=6"], {"id": {"eq": "5", "ne": "6"}}),
        (["kind:in=a, b"], {"kind": {"in": ["a", "b"]}}),
        (['kind:in=["a,b","c"]'], {"kind": {"in": ["a,b", "c"]}}),
        (["note:is_null=true"], {"note": {"is_null": True}}),
        (["note:contains=true"], {"note": {"contains": "true"}}),
        (["placed_at>=now-7d"], {"placed_at": {"gte": "now-7d"}}),
        (["id>5", "id<=9"], {"id": {"gt": "5", "lte": "9"}}),
        (["id<5", "kind!=proof"], {"id": {"lt": "5"}, "kind": {"ne": "proof"}}),
        (["gone!=null", "sealed!=true"], {"gone": {"ne": None}, "sealed": {"ne": True}}),
        (["note=a>=b", "word=<b>"], {"note": "a>=b", "word": "<b>"}),
        (["kind==proof", "id<>5", "note == a=b"], {"kind": "proof", "id": {"ne": "5"}, "note": "a=b"}),
        (["note:eq==a", "word:eq=>5", 'kind="=a"'], {"note": "=a", "word": ">5", "kind": "=a"}),
        (["id >= 5", "note = x "], {"id": {"gte": "5"}, "note": "x"}),
        (["note= x"], {"note": " x"}),
        (["a!b=c"], {"a!b": "c"}),
        (["at:gte=2026-01-01T10:00:00+02:00"], {"at": {"gte": "2026-01-01T10:00:00+02:00"}}),
        ([], {}),
    ],
)
def test_filters(pairs: list[str], expected: dict[str, Any]) -> None:
    assert parse_filters(pairs) == expected


def test_claims_are_texts_or_lists() -> None:
    assert parse_claims(["org=acme", "region=eu, us", "note=a=b", "empty="], ["pii"]) == {
        "roles": ["pii"],
        "org": "acme",
        "region": ["eu", "us"],
        "note": "a=b",
        "empty": "",
    }
    assert parse_claims([]) == {}
    for wrong in ("org", "=acme"):
        with pytest.raises(UsageError, match="expected NAME=VALUE"):
            parse_claims([wrong])


def test_filters_of_the_document_and_pairs_are_combined() -> None:
    assert parse_filters(["id:lt=9", "a=1"], '{"id": {"gte": 5}, "b:c": 2}') == {
        "id": {"gte": 5, "lt": "9"},
        "a": "1",
        "b:c": 2,
    }


@each_row(
    ("pairs", "document", "said"),
    [
        (["kind"], None, "expected column=value"),
        (["=5"], None, "expected column=value"),
        ([">=5"], None, "allowed signs: >=, <=, !=, <>, ==, =, >, <"),
        (["id:gte>5"], None, "expected column=value or column:op=value"),
        (["id>5", "id:gt=6"], None, "gt on id is given twice"),
        *(
            ([f"id{wrong}5"], None, f"there is no sign '{sign}'; .* id:{operator}={value}5")
            for wrong, sign, operator, value in (
                ("=>", "=>", "eq", ">"),
                ("=<", "=<", "eq", "<"),
                ("=~", "=~", "eq", "~"),
                ("=!", "=!", "eq", "!"),
                ("= =", "==", "eq", "="),
                ("===", "===", "eq", "="),
                ("!==", "!==", "ne", "="),
                ("<=>", "<=>", "lte", ">"),
                (">>", ">>", "gt", ">"),
                ("<<", "<<", "lt", "<"),
            )
        ),
        (["id:near=5"], None, "allowed: eq, ne,"),
        (["id=5", "id=6"], None, "id:in=a,b"),
        ([], "{", "--filters is not JSON"),
        ([], '{"id": {"gt": 1}, "id": {"lt": 9}}', "--filters: the name 'id' is there 2 times in one object"),
        ([], "[1]", "must be a JSON object"),
    ],
)
def test_invalid_arguments_are_explained(pairs: list[str], document: str | None, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_filters(pairs, document)


def test_operators_are_those_of_the_service() -> None:
    served = {name for kind in Kind for name in operators(Column("c", "text", "text", kind))}
    assert set(OPERATORS) == served


def test_options() -> None:
    assert parse_options(["delimiter=;", "header=false"], "gzip") == {
        "delimiter": ";",
        "header": False,
        "compression": "gzip",
    }
    with pytest.raises(UsageError, match="key=value"):
        parse_options(["header"])


def test_options_with_a_name_of_their_own() -> None:
    named = {"language": "de", "timezone": "Europe/Berlin", "locale": "de-DE"}
    assert parse_options(["bom=true"], labels=True, **named) == {"bom": True, "headers": "labels", **named}
    assert parse_options([]) == {}


def test_columns() -> None:
    assert parse_columns(["id, kind", "note"]) == ["id", "kind", "note"]
    assert parse_columns([]) is None


def test_parameters_are_texts_whatever_they_look_like() -> None:
    assert parse_parameters(["region=emea", "n = 5", "text=a=b,c", "flag=true", "none="]) == {
        "region": "emea",
        "n": " 5",
        "text": "a=b,c",
        "flag": "true",
        "none": "",
    }


@pytest.mark.parametrize("pairs", [["region"], ["=emea"], ["a=1", "a=2"]])
def test_wrong_parameters(pairs: list[str]) -> None:
    with pytest.raises(UsageError, match="--parameter"):
        parse_parameters(pairs)


def test_every_filter_of_the_documents_can_be_typed() -> None:
    """V22: the command accepts the filters in the tutorial and in the README."""
    root = Path(__file__).parents[3]
    shown = [
        found
        for path in (root / "README.md", *(root / "docs").glob("*.md"))
        for found in re.findall(r"--filter (?:'([^']+)'|\"([^\"]+)\"|(\S+))", path.read_text("utf-8"))
    ]
    assert len(shown) >= 2
    for found in shown:
        assert parse_filters([next(filter(None, found)).strip("`")])
