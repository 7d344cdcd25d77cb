"""The manifest of several files: an object beside them that lists them, for people and for programs."""

import json
from collections.abc import Mapping, Sequence
from threading import Event
from typing import Any

from stream_app.exports.task import ExportedFile
from stream_app.storage.manifest import MANIFEST, MANIFEST_TYPE
from stream_app.storage.object_store import ObjectStore, StoredObject
from streaming_exporter.errors import Rejected


def write_manifest(
    storage: ObjectStore,
    key: str,
    summary: Mapping[str, Any],
    files: Sequence[ExportedFile],
    *,
    stopped: Event | None = None,
) -> StoredObject:
    """Write the manifest. That comes last: a manifest lists complete files only.

    Args:
        storage: the object store.
        key: the key of the manifest.
        summary: describes the whole export, as a JSON object.
        files: the files.
        stopped: stops the repetition of the store's calls.
    """
    content = json.dumps({**summary, **_listed(storage, files)}, ensure_ascii=False, indent=1).encode()
    return storage.put(
        key,
        iter([content]),
        content_type=MANIFEST_TYPE,
        file_name=MANIFEST,
        metadata=dict,
        stopped=stopped,
    )


def _listed(storage: ObjectStore, files: Sequence[ExportedFile]) -> dict[str, Any]:
    """Return the list of files, once with everything and once as Redshift reads it."""
    url = f"s3://{storage.bucket}"
    return {
        "files": [
            {
                "number": file.number,
                "file_name": file.file_name,
                "key": file.key,
                "url": f"{url}/{file.key}",
                "content_type": file.content_type,
                "rows": file.row_count,
                "bytes": file.file_size,
                "sha256": file.sha256,
                **({"kind": file.content} if file.content else {}),
            }
            for file in files
        ],
        "entries": [
            {
                "url": f"{url}/{file.key}",
                "mandatory": True,
                "meta": {"content_length": file.file_size},
            }
            for file in files
        ],
    }


def too_many_files(limit: int) -> Rejected:
    """Return the error of an export with more than ``limit`` files."""
    return Rejected(
        f"the export has more than {limit:,} files of this size, which is the limit; write "
        "larger files or fewer rows; operators: the setting EXPORTER_SPLIT_MAX_FILES is the limit",
        code="too_many_files",
        field="split",
    )
