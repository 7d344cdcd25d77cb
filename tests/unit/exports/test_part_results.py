"""The files of the parts of an export, as one list."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from pydantic_core import from_json, to_json

from stream_app.exports.files.encryption import FINGERPRINT
from stream_app.exports.part_results import (
    PartResult,
    check_columns,
    check_password_keys,
    combined_files,
    write_combined,
)
from stream_app.exports.task import ExportedFile, ExportResult
from stream_app.storage.listing import part_of_key, part_prefix
from stream_app.storage.object_store import ObjectStore, StoredObject
from streaming_exporter.errors import Rejected

AS_OF = datetime(2026, 11, 26, tzinfo=UTC)


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


def test_files_with_different_passwords_do_not_belong_together() -> None:
    """The secret was changed between two parts. Workers of earlier versions do not name their key."""
    first, second, other = (
        replace(part(number, 1), origin=origin)
        for number, origin in enumerate([{FINGERPRINT: "k"}, {}, {FINGERPRINT: "l"}], 1)
    )
    check_password_keys([first, second, replace(first)])
    with pytest.raises(Rejected, match="request it again") as raised:
        check_password_keys([first, second, other])
    assert raised.value.code == "secret_changed"


def test_a_result_is_the_same_after_it_was_stored() -> None:
    result = part(1, 5, 5)
    stored: dict[str, Any] = from_json(to_json(result.to_json()))
    assert PartResult.from_json(stored) == result


def test_the_values_of_filters_are_stored_once_and_the_manifest_has_them() -> None:
    """The results of all parts are read at once, and filters can have many values."""
    filters, parameters = {"id": list(range(50_000))}, {"region": ["x" * 50_000]}
    files = part(1, 5).files
    manifest = {"columns": [], "filters": filters, "parameters": parameters, "scope": "all", "warnings": {}}
    result = ExportResult(5, 9, "sha", "b", "k", "text/csv", "f", AS_OF, manifest, files)
    stored = [to_json(PartResult.of(result, number).to_json()) for number in (1, 2, 3)]
    assert len(stored[0]) > 300_000
    assert max(map(len, stored[1:])) < 1_000
    parts = [PartResult.from_json(from_json(item)) for item in stored]
    check_columns(parts)
    written: list[bytes] = []

    class Store:
        bucket = "b"

        def put(self, key: str, chunks: Iterator[bytes], **_: object) -> StoredObject:
            written.extend(chunks)
            return StoredObject(key, len(written[0]), "sha")

    write_combined(cast(ObjectStore, Store()), "k", parts, combined_files(parts, max_files=9), {})
    (content,) = written
    assert {name: from_json(content)[name] for name in ("filters", "parameters", "scope")} == {
        "filters": filters,
        "parameters": parameters,
        "scope": "all",
    }


def test_objects_tell_their_part_and_no_two_attempts_have_one_name() -> None:
    one, two = part_prefix(7, 2), part_prefix(7, 2)
    assert one != two
    assert part_of_key(f"jobs/j/1-f/{one}ledger.csv", "jobs/j/1-f") == (7, 2)
    assert part_of_key(f"jobs/j/2-f/{one}ledger.csv", "jobs/j/1-f") is None
    assert part_of_key("jobs/j/1-f/part-00007-ledger.csv", "jobs/j/1-f") is None
