"""The files of the parts of an export, as one list."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic_core import from_json, to_json

from stream_app.exports.part_results import PartResult, check_columns, combined_files
from stream_app.exports.task import ExportedFile
from stream_app.storage.listing import part_of_key, part_prefix
from streaming_exporter.errors import Rejected


def part(number: int, *rows: int, day: int = 26, extension: str = "csv.gz") -> PartResult:
    files = tuple(
        ExportedFile(
            n, f"a-1.b-00001-2026-11-{day}-{n:05}.{extension}", f"{number}/{n}", "t", count, 9, "sha"
        )
        for n, count in enumerate(rows, 1)
    )
    return PartResult(files, datetime(2026, 11, day, tzinfo=UTC), {"warnings": {"cut": 1}})


def numbered(*parts: PartResult, max_files: int = 100) -> list[tuple[int, str, str]]:
    files = combined_files(parts, max_files=max_files)
    return [(file.number, file.file_name, file.key) for file in files]


@pytest.mark.parametrize("extension", ["csv", "csv.gz", "parquet"])
def test_numbers_and_names_are_consecutive(extension: str) -> None:
    """The first part gives the date, also where another one read its rows on the next day."""
    parts = [part(1, 5, 5, 2, extension=extension), part(2, 3, day=27, extension=extension)]
    stem = "a-1.b-00001-2026-11-26"
    assert numbered(*parts) == [
        (1, f"{stem}-00001.{extension}", "1/1"),
        (2, f"{stem}-00002.{extension}", "1/2"),
        (3, f"{stem}-00003.{extension}", "1/3"),
        (4, f"{stem}-00004.{extension}", "2/1"),
    ]


def test_files_without_rows_are_left_out_except_for_the_only_one() -> None:
    assert [key for _, _, key in numbered(part(1, 0), part(2, 4), part(3, 0), part(4, 1))] == ["2/1", "4/1"]
    assert [key for _, _, key in numbered(part(1, 0), part(2, 0))] == ["1/1"]


def test_the_limit_of_files_holds_for_all_parts_together() -> None:
    assert len(numbered(part(1, 1, 1), part(2, 1), max_files=3)) == 3
    with pytest.raises(Rejected, match="more than 3 files"):
        numbered(part(1, 1, 1), part(2, 1, 1), max_files=3)


def test_files_with_different_columns_do_not_belong_together() -> None:
    columns = [{"name": "id", "type": "integer"}]
    parts = [replace(part(number, 1), origin={"columns": columns}) for number in (1, 2)]
    check_columns(parts)
    changed = replace(parts[1], origin={"columns": [*columns, {"name": "late", "type": "text"}]})
    with pytest.raises(Rejected, match="part 3 does not have those of part 1") as raised:
        check_columns([*parts, changed])
    assert raised.value.code == "columns_changed"


def test_a_result_is_the_same_after_it_was_stored() -> None:
    result = part(1, 5, 5)
    stored: dict[str, Any] = from_json(to_json(result.to_json()))
    assert PartResult.from_json(stored) == result


def test_objects_tell_their_part_and_no_two_attempts_have_one_name() -> None:
    one, two = part_prefix(7, 2), part_prefix(7, 2)
    assert one != two
    assert part_of_key(f"jobs/j/1-f/{one}ledger.csv", "jobs/j/1-f") == (7, 2)
    assert part_of_key(f"jobs/j/2-f/{one}ledger.csv", "jobs/j/1-f") is None
    assert part_of_key("jobs/j/1-f/part-00007-ledger.csv", "jobs/j/1-f") is None
