"""Combines the results of the parts of an export to one list of files with one manifest."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Self

from stream_app.exports.files.encryption import FINGERPRINT
from stream_app.exports.files.manifest import too_many_files, write_manifest
from stream_app.exports.task import ExportedFile, ExportResult
from stream_app.storage.manifest import MANIFEST, MANIFEST_TYPE
from stream_app.storage.object_store import ObjectStore
from streaming_exporter.errors import Rejected

_OF_FIRST_PART = frozenset({"filters", "parameters"})
"""What only the first part says about the origin of the rows.

These values are the same for all parts, and they can be large: the holder of the job reads the results of
hundreds of parts at once.
"""


@dataclass(frozen=True, slots=True)
class PartResult:
    """The result of one part.

    Attributes:
        files: its files, numbered from 1.
        as_of: the time of the snapshot that it read.
        origin: describes the origin of the rows, as in a manifest. The first part has all of it.
    """

    files: tuple[ExportedFile, ...]
    as_of: datetime
    origin: Mapping[str, Any]

    @classmethod
    def of(cls, result: ExportResult, number: int) -> Self:
        """Return the result of the export of the part ``number``."""
        origin = {
            name: value
            for name, value in result.manifest.items()
            if number == 1 or name not in _OF_FIRST_PART
        }
        return cls(result.files, result.as_of, origin)

    def to_json(self) -> dict[str, Any]:
        """Return the result as a JSON object."""
        return {
            "files": [asdict(file) for file in self.files],
            "as_of": self.as_of.isoformat(),
            "origin": dict(self.origin),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Return the result that :meth:`to_json` has written."""
        files = tuple(ExportedFile(**file) for file in value["files"])
        return cls(files, datetime.fromisoformat(value["as_of"]), value["origin"])


def check_columns(parts: Sequence[PartResult]) -> None:
    """Check that all parts have the same columns.

    The table or the dataset can change between parts that have snapshots of their own.

    Raises:
        Rejected: the columns differ, so the files do not belong together.
    """
    for number, part in enumerate(parts, 1):
        if part.origin.get("columns") != parts[0].origin.get("columns"):
            raise Rejected(
                f"the columns of the dataset changed during the export: part {number} does not have those of "
                "part 1; request it again",
                code="columns_changed",
            )


def check_password_keys(parts: Sequence[PartResult]) -> None:
    """Check that one password opens the files of all parts.

    The secret can change between parts, and workers of earlier versions do not say which key they had.

    Raises:
        Rejected: the files have different passwords.
    """
    if len({key for part in parts if (key := part.origin.get(FINGERPRINT)) is not None}) > 1:
        raise Rejected(
            "the secret of the service changed during the export, so its files do not have the same "
            "password; request it again",
            code="secret_changed",
        )


def combined_files(parts: Sequence[PartResult], *, max_files: int) -> list[ExportedFile]:
    """Return the files of all parts in the order of their rows, with consecutive numbers and names.

    Files without rows are left out, except that there is at least one file.

    Raises:
        Rejected: there are more than ``max_files`` files.
    """
    found = [file for part in parts for file in part.files]
    kept = [file for file in found if file.row_count] or found[:1]
    if len(kept) > max_files:
        raise too_many_files(max_files)
    # With snapshots of their own the parts can have read on different days: one date is in all names.
    stem, _, _ = kept[0].file_name.rpartition(f"-{kept[0].number:05}.")
    return [_numbered(file, number, stem) for number, file in enumerate(kept, 1)]


def _numbered(file: ExportedFile, number: int, stem: str) -> ExportedFile:
    _, _, extension = file.file_name.rpartition(f"-{file.number:05}.")
    return replace(file, number=number, file_name=f"{stem}-{number:05}.{extension}")


def write_combined(
    storage: ObjectStore,
    key: str,
    parts: Sequence[PartResult],
    files: Sequence[ExportedFile],
    facts: Mapping[str, Any],
) -> ExportResult:
    """Write the manifest of all parts and return the result of the export.

    Args:
        storage: the object store.
        key: the key of the manifest.
        parts: the parts, with the first one first: it describes the origin of the rows.
        files: their files, see :func:`combined_files`.
        facts: what the manifest says about the job beside that.
    """
    as_of = min(part.as_of for part in parts)
    rows = sum(file.row_count for file in files)
    size = sum(file.file_size for file in files)
    summary = {
        **facts,
        "rows": rows,
        "bytes": size,
        "file_count": len(files),
        **parts[0].origin,
        "as_of": as_of.isoformat(),
        "warnings": _warnings(parts),
    }
    stored = write_manifest(storage, key, summary, files)
    return ExportResult(
        row_count=rows,
        file_size=size,
        sha256=stored.sha256,
        bucket=storage.bucket,
        key=stored.key,
        content_type=MANIFEST_TYPE,
        file_name=MANIFEST,
        as_of=as_of,
        manifest=summary,
        files=tuple(files),
    )


_ONCE = frozenset({"row_level_security"})
"""Warnings about the whole table. All others are counts."""


def _warnings(parts: Sequence[PartResult]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part.origin.get("warnings", {}))
    return {name: 1 if name in _ONCE else count for name, count in total.items()}
