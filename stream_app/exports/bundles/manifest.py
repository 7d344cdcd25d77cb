"""The manifest of a bundle's file: in the archive for programs, and on the job's record. Pure."""

from collections.abc import Sequence
from typing import Any

from stream_app.exports.bundles.members import BundleFacts, WrittenMember
from stream_app.exports.formats.base import Format
from stream_app.exports.task import ROW_SECURITY


def archive_manifest(
    facts: BundleFacts, file_format: Format, written: Sequence[WrittenMember]
) -> dict[str, Any]:
    """Return the content of ``manifest.json`` in the archive, which has no checksum of the archive itself."""
    rows = sum(item.member.row_count for item in written)
    return {"rows": rows, "user_id": facts.request.user_id, **bundle_origin(facts, file_format, written)}


def bundle_origin(
    facts: BundleFacts, file_format: Format, written: Sequence[WrittenMember]
) -> dict[str, Any]:
    """Return where the rows of a bundle come from, as a JSON object.

    Sources are not named: their names are about the operators' databases.
    """
    request = facts.request
    warnings: dict[str, int] = {}
    for item in written:
        for name, number in item.warnings.items():
            warnings[name] = 1 if name == ROW_SECURITY else warnings.get(name, 0) + number
    return {
        "bundle": facts.name,
        **({"kind": facts.kind} if facts.kind else {}),
        **({"label": facts.title} if facts.title != facts.name else {}),
        "format": file_format.name,
        "scope": request.scope,
        **({"window": dict(facts.window)} if facts.window else {}),
        **({"timezone": request.options.timezone} if request.options.timezone else {}),
        "options": request.options.model_dump(mode="json", exclude_defaults=True),
        "as_of": facts.as_of.isoformat(),
        "snapshots": _snapshots(written),
        "files": [_file(facts, item) for item in written],
        "warnings": warnings,
    }


def _snapshots(written: Sequence[WrittenMember]) -> list[dict[str, Any]]:
    """Return the snapshots, each with its time and the datasets that have the data of that moment."""
    found: dict[int, dict[str, Any]] = {}
    for item in written:
        member = item.member
        entry = found.setdefault(
            member.snapshot,
            {"number": member.snapshot, "as_of": member.document.as_of.isoformat(), "datasets": []},
        )
        entry["datasets"].append(member.document.dataset)
    return list(found.values())


def _file(facts: BundleFacts, item: WrittenMember) -> dict[str, Any]:
    member, document = item.member, item.member.document
    in_archive = {
        "file_name": item.file_name,
        "content_type": item.content_type,
        "bytes": item.file_size,
        "sha256": item.sha256,
    }
    return {
        "dataset": document.dataset,
        **({"label": document.title} if document.title else {}),
        **(in_archive if item.file_name else {"sheets": list(item.sheets)}),
        "rows": member.row_count,
        "columns": [{"name": column.name, "type": column.type} for column in document.columns],
        "order": list(document.order),
        "filters": dict(document.filters),
        **({"parameters": dict(member.parameters)} if member.parameters else {}),
        **({"session": list(member.dataset.session)} if member.dataset.session else {}),
        **({"window_column": member.window_column} if facts.window else {}),
        **({"timezone": document.options.timezone} if document.options.timezone else {}),
        "snapshot": member.snapshot,
        "as_of": document.as_of.isoformat(),
        "warnings": dict(item.warnings),
    }
