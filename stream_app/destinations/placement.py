"""Where the files of a job are stored at a destination, and the list of them. Pure."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from stream_app.datasets.destination_paths import JobFacts, PathPattern
from stream_app.datasets.destinations import Destination, S3Destination
from stream_app.destinations.session import OutgoingFile
from stream_app.exports.task import ExportedFile
from stream_app.notifications.notification import Notification, Requested
from stream_app.storage.manifest import MANIFEST, MANIFEST_TYPE

OWN_KEYS = ("files", "entries", "seconds")
"""Keys of the service's own manifest that are not passed on: they name its bucket, or its stages."""


@dataclass(frozen=True, slots=True)
class DeliveryProgress:
    """What the attempts of a delivery have done. It is stored in ``deliveries.progress``.

    Attributes:
        place: identifies the place; in another place everything is sent again.
        zone: the time zone of dates in paths, and ``schedule`` the schedule's name. They are kept, because
            both can change, and all attempts must use the same paths.
        files: the number of files that are complete.
        sent: bytes of these files and of the file that is being sent.
        path: where the first file is stored, with the prefix of the destination.
    """

    place: str
    zone: str
    schedule: str | None
    files: int = 0
    sent: int = 0
    path: str | None = None

    @classmethod
    def of(cls, notification: Notification, requested: Requested, destination: Destination) -> Self:
        """Return the progress so far: that of earlier attempts, or none."""
        known, place = notification.progress, place_of(destination)
        if known.get("place") == place:
            return cls(
                place,
                known["zone"],
                known.get("schedule"),
                known.get("files", 0),
                known.get("bytes", 0),
                known.get("path"),
            )
        rhythm = notification.rhythm
        schedule = rhythm.name if rhythm is not None else None
        if schedule is None and requested.schedule_id is not None:
            schedule = str(requested.schedule_id)
        return cls(place, _zone_of(notification), schedule)

    def as_json(self) -> dict[str, Any]:
        """Return it as it is stored."""
        return {
            "place": self.place,
            "zone": self.zone,
            "schedule": self.schedule,
            "files": self.files,
            "bytes": self.sent,
            "path": self.path,
        }


def place_of(destination: Destination) -> str:
    """Return a text that is different for each place and each pattern of paths."""
    if isinstance(destination, S3Destination):
        where: list[Any] = ["s3", destination.endpoint, destination.bucket]
    else:
        where = ["sftp", destination.host, destination.port, destination.user]
    where += [destination.prefix, destination.path]
    return hashlib.sha256(json.dumps(where).encode()).hexdigest()[:32]


def facts_of(notification: Notification, requested: Requested, progress: DeliveryProgress) -> JobFacts:
    """Return what paths can have of the job."""
    return JobFacts(
        job_id=str(notification.job_id),
        dataset=notification.export_type,
        name=notification.name,
        user=notification.user_id,
        format=notification.format,
        schedule=progress.schedule,
        moment=requested.run_at or requested.at,
        zone=progress.zone,
        window_from=_moment(notification.window[0]) if notification.window else None,
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
    if len({file.path for file in found}) < len(found):
        raise ValueError("several files of the job have the same path")
    return found


def whole_path(destination: Destination, file: OutgoingFile) -> str:
    """Return the path of a file with the prefix of the destination, for people."""
    if isinstance(destination, S3Destination):
        return f"{destination.prefix.strip('/')}/{file.path}".lstrip("/")
    prefix = destination.prefix.rstrip("/")
    return f"{prefix}/{file.path}" if destination.prefix else file.path


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


def _zone_of(notification: Notification) -> str:
    """Return the time zone of dates in paths: that of the schedule, else of the file, else UTC."""
    options = notification.options if isinstance(notification.options, Mapping) else {}
    rhythm = notification.rhythm
    wanted = (rhythm.timezone if rhythm else None, options.get("timezone"), notification.timezone)
    for name in wanted:
        if isinstance(name, str) and name:
            try:
                ZoneInfo(name)
            except (ZoneInfoNotFoundError, ValueError, OSError):
                continue
            return name
    return "UTC"


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None
