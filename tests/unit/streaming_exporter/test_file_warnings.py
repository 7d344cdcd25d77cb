"""Warnings of a file in words (people A3)."""

import re
from pathlib import Path

import pytest

from stream_app.jobs.file_warnings import warnings_of
from stream_app.messages.catalogue import DEFAULT, messages
from streaming_exporter.file_warnings import TEXTS, warning_texts

ROOT = Path(__file__).parents[3]


def names_in_code() -> set[str]:
    """Return the names of all warnings that the formats and the pipeline count."""
    code = "".join(path.read_text() for path in (ROOT / "stream_app" / "exports").rglob("*.py"))
    constants = dict(re.findall(r'^([A-Z_]+) = "([a-z_]+)"$', code, re.MULTILINE))
    used = re.findall(r"warnings\[([A-Z_]+)\]", code)
    return {
        *re.findall(r'warnings\["([a-z_]+)"\]', code),
        *re.findall(r'_count\(tally, "([a-z_]+)"', code),
        *(constants[name] for name in used),
    }


def test_every_warning_has_a_text_for_commands_mails_and_the_page() -> None:
    known = {key.removeprefix("warnings.") for key in messages(DEFAULT) if key.startswith("warnings.")}
    assert names_in_code() == set(TEXTS) == known - {"other"}


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_has_its_number(name: str) -> None:
    (one,), (many,) = warning_texts({name: 1}), warning_texts({name: 48_241})
    assert "{" not in one + many
    assert one[0].islower() or one[0] == "1"
    if name != "row_level_security":
        assert "48,241" in many


def test_an_unknown_warning_is_shown_with_its_name() -> None:
    assert warning_texts({"odd_values": 2000, "cut_cells": 0}) == ["odd values: 2,000"]


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        ({"warnings": {"cut_cells": 2, "escaped_characters": 0, "odd": "x"}}, {"cut_cells": 2}),
        ({"rows": 1}, {}),
        ({"warnings": None}, {}),
        (None, {}),
        ([], {}),
    ],
)
def test_the_warnings_of_a_manifest(manifest: object, expected: dict[str, int]) -> None:
    assert warnings_of(manifest) == expected
