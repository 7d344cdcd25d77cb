"""Where the files of a job are stored at a destination, and the list of them. Pure."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from stream_app.datasets.destination_paths import JobFacts, PathPattern
from stream_app.datasets.destinations import Destination, S3Destination
from stream_app.destinations.progress import DeliveryProgress
from stream_app.destinations.session import OutgoingFile
from stream_app.exports.task import ExportedFile
from stream_app.notifications.notification import Notification, RequestSummary
from stream_app.storage.manifest import MANIFEST, MANIFEST_TYPE

MAX_KEY = 1_024
"""Bytes of a key of S3."""

OWN_KEYS = ("files", "entries", "seconds")
"""Keys of the service's own manifest that are not passed on: they name its bucket, or its stages."""


_NUMBER = re.compile(r"-[0-9]{5}(?=\.)")
"""The number in the name of one of several files."""


def path_facts(notification: Notification, requested: RequestSummary, progress: DeliveryProgress) -> JobFacts:
    """Return what paths can have of the job."""
    return JobFacts(
        job_id=str(notification.job_id),
        dataset=notification.export_type,
        name=notification.name,
        user=notification.user_id,
        format=notification.format,
        schedule=progress.schedule,
        moment=requested.run_at or requested.requested_at,
        zone=progress.zone,
        window_from=_moment(notification.window[0]) if notification.window else None,
        is_gap=notification.is_gap,
    )


def outgoing_files(
    destination: Destination, facts: JobFacts, files: Sequence[ExportedFile]
) -> list[OutgoingFile]:
    """Return the files as they are stored at the destination.

    Raises:
        ValueError: two of them have the same path, or a path is too long.
    """
    pattern = PathPattern.parse(destination.path)
    found = [
        OutgoingFile(
            pattern.path(facts, file_name=file.file_name, number=file.number),
            file.file_name,
            file.content_type,
            file.file_size,
            file.sha256,
        )
        for file in files
    ]
    for file in found:
        _check_key(destination, file.path)
    if len({file.path for file in found}) < len(found):
        raise ValueError("several files of the job have the same path")
    return found


def further_paths(
    destination: Destination, facts: JobFacts, files: Sequence[ExportedFile], number: int
) -> list[str]:
    """Return where a file of the job with a further number would be stored.

    A larger set of another job, with the same path of its first file, has its files there. None where two
    sets could have the path, or where the files have no numbers.
    """
    pattern = PathPattern.parse(destination.path)
    if not pattern.tells_numbers:
        return []
    names = {_NUMBER.sub(f"-{number:05}", file.file_name) for file in files}
    taken = {pattern.path(facts, file_name=file.file_name, number=file.number) for file in files}
    return sorted({pattern.path(facts, file_name=name, number=number) for name in names} - taken)


def whole_path(destination: Destination, path: str) -> str:
    """Return a path with the prefix of the destination, for people."""
    if isinstance(destination, S3Destination):
        return f"{destination.prefix.strip('/')}/{path}".lstrip("/")
    prefix = destination.prefix.rstrip("/")
    return f"{prefix}/{path}" if destination.prefix else path


def _check_key(destination: Destination, path: str) -> None:
    """Check that the path with the prefix is a key of S3.

    Raises:
        ValueError: it is too long. Servers answer that in many ways, some with an error that passes.
    """
    if isinstance(destination, S3Destination):
        size = len(whole_path(destination, path).encode())
        if size > MAX_KEY:
            raise ValueError(f"the path has {size:,} bytes with the prefix; S3 allows {MAX_KEY:,}")


def manifest_of(
    destination: Destination,
    facts: JobFacts,
    summary: Mapping[str, Any],
    files: Sequence[ExportedFile],
    outgoing: Sequence[OutgoingFile],
) -> tuple[OutgoingFile, bytes] | None:
    """Return the list of files that is stored after them, and its content; ``None`` if there is none.

    Raises:
        ValueError: its path is too long, or that of a file.
    """
    if destination.manifest == "never" or (destination.manifest == "several" and len(files) < 2):
        return None
    pattern = PathPattern.parse(destination.manifest_path or destination.path)
    path = pattern.path(facts, file_name=MANIFEST, number="manifest")
    _check_key(destination, path)
    if any(file.path == path for file in outgoing):
        raise ValueError("the manifest has the path of a file")
    prefix = destination.prefix.strip("/")
    root = f"s3://{destination.bucket}/" if isinstance(destination, S3Destination) else ""
    urls = [f"{root}{prefix}/{file.path}" if prefix else f"{root}{file.path}" for file in outgoing]
    listed = [
        {
            "number": file.number,
            "file_name": file.file_name,
            "path": sent.path,
            "content_type": file.content_type,
            "rows": file.row_count,
            "bytes": file.file_size,
            "sha256": file.sha256,
        }
        for file, sent in zip(files, outgoing, strict=True)
    ]
    content: dict[str, Any] = {name: value for name, value in summary.items() if name not in OWN_KEYS}
    content |= {"job_id": facts.job_id, "dataset": facts.dataset, "format": facts.format}
    content["rows"] = sum(file.row_count for file in files)
    content["bytes"] = sum(file.file_size for file in files)
    content["files"] = listed
    if root:
        content["entries"] = [
            {"url": url, "mandatory": True, "meta": {"content_length": file.size}}
            for url, file in zip(urls, outgoing, strict=True)
        ]
    data = json.dumps(content, ensure_ascii=False, indent=1).encode()
    digest = hashlib.sha256(data).hexdigest()
    return OutgoingFile(path, MANIFEST, MANIFEST_TYPE, len(data), digest), data


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None
