"""What the attempts of a delivery to a destination have done, and the facts that all of them use. Pure."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from stream_app.datasets.destinations import Destination, S3Destination
from stream_app.notifications.notification import Notification, RequestSummary

_KEPT = ("place", "zone", "schedule", "path")
"""What is kept of the progress at an earlier place, besides the number of its files."""


@dataclass(frozen=True, slots=True)
class DeliveryProgress:
    """What the attempts of a delivery have done. It is stored in ``deliveries.progress``.

    Attributes:
        place: identifies the place; in another place everything is sent again.
        bucket: the bucket of S3, else empty. Jobs of one destination with the same bucket and path share
            files: another name of the host, or another user, is no proof of another place.
        zone: the time zone of dates in paths, and ``schedule`` the schedule's name. They are kept, because
            both can change, and all attempts must use the same paths.
        files: the number of files that are complete.
        sent_files: the largest number of files that were complete since all were removed. A removal that has
            begun, and a destination that was moved back, do not count as empty.
        sent: bytes of the complete files and of the file that is being sent.
        path: where the first file is stored, with the prefix of the destination.
        upload: the unfinished upload of a file in S3, where other jobs have the same path.
        writing: the last attempt that has begun to write or to remove files; 0 if none has.
        manifest: the path of the list of the files, where other jobs have it too, once the attempt has begun
            to write or to remove the list.
        removed: whether all that was sent was removed again, after the last attempt that has begun to write.
        alone: whether the attempt has removed what larger sets of other jobs had at its paths.
        waits: how many attempts have waited until other clients close files of larger sets.
        left: earlier places that possibly have files, because an attempt has begun to write there and not all
            was removed. The service cannot remove them, because it does not know any more how to sign in
            there. ``files`` is how many are known to be there, 0 if none is: the worker died before it could
            record one, or its connection was lost. ``looked`` says that they were looked for at the same path
            of the new place, before anything was written there, and ``found`` that they were there: it is the
            same place, or the files were copied to another one.
    """

    place: str
    zone: str
    schedule: str | None
    files: int = 0
    sent: int = 0
    sent_files: int = 0
    path: str | None = None
    upload: str | None = None
    writing: int = 0
    manifest: str | None = None
    removed: bool = False
    alone: bool = False
    left: tuple[Mapping[str, Any], ...] = ()
    bucket: str = ""
    waits: int = 0

    @classmethod
    def of(cls, notification: Notification, requested: RequestSummary, destination: Destination) -> Self:
        """Return the progress so far: that of earlier attempts, or none."""
        place = place_of(destination)
        bucket = destination.bucket if isinstance(destination, S3Destination) else ""
        known, left = _at_place(notification.progress, place)
        if known.get("place") == place:
            return cls(
                place,
                known["zone"],
                known.get("schedule"),
                known.get("files", 0),
                known.get("bytes", 0),
                0 if known.get("removed") else files_at(known),
                known.get("path"),
                known.get("upload"),
                known.get("writing", 1),  # versions before did not record it
                removed=known.get("removed", False),
                left=left,
                bucket=bucket,
                waits=0 if known.get("removed") else known.get("waits", 0),
            )
        summary = notification.schedule_summary
        schedule = summary.name if summary is not None else None
        if schedule is None and requested.schedule_id is not None:
            schedule = str(requested.schedule_id)
        return cls(place, _zone_of(notification), schedule, left=left, bucket=bucket)

    def as_json(self) -> dict[str, Any]:
        """Return it as it is stored."""
        return {
            "place": self.place,
            "bucket": self.bucket,
            "zone": self.zone,
            "schedule": self.schedule,
            "files": self.files,
            "bytes": self.sent,
            "sent_files": max(self.sent_files, self.files),
            "path": self.path,
            "upload": self.upload,
            "writing": self.writing,
            "manifest": self.manifest,
            "removed": self.removed,
            **({"waits": self.waits} if self.waits else {}),
            **({"alone": True} if self.alone else {}),
            **({"left": list(self.left)} if self.left else {}),
        }

    @property
    def is_begun(self) -> bool:
        """Whether files of the delivery are possibly at the place."""
        return bool(self.writing) and not self.removed

    def earlier_files(self, path: str, total: int) -> int:
        """Return how many of all files are possibly at ``path``, sent with other settings of the place."""
        doubtful = (earlier for earlier in self.left if _is_in_doubt(earlier, path))
        return max((min(files_at(earlier), total) or total for earlier in doubtful), default=0)

    def certainly_elsewhere(self, path: str) -> tuple[Mapping[str, Any], ...]:
        """Return the earlier places that have another path, or whose files were not found at ``path``."""
        return tuple(
            earlier for earlier in self.left if not _is_in_doubt(earlier, path) and not earlier.get("found")
        )

    def looked(self, path: str, found: bool) -> Self:
        """Return the progress after the files of an earlier place were looked for at ``path``.

        If they were found, the host has another name, or the user was changed; or the files were copied to
        a new host, so that the earlier place has them too. Only people can tell, so it is kept.
        """
        mark = {"looked": True} | ({"found": True} if found else {})
        left = tuple({**earlier, **mark} if _is_in_doubt(earlier, path) else earlier for earlier in self.left)
        return replace(self, left=left)

    @property
    def elsewhere(self) -> tuple[Mapping[str, Any], ...]:
        """The earlier places that are not the place of this delivery, as far as is known."""
        return elsewhere(self.left)


def elsewhere(left: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """Return the earlier places whose files were not found after the destination was moved."""
    return tuple(earlier for earlier in left if not earlier.get("found"))


def files_at(stored: Mapping[str, Any]) -> int:
    """Return how many files are known to have been at a place, by the stored progress; 0 if none is known."""
    return max(stored.get("files") or 0, stored.get("sent_files") or 0)


def text_of_left(files: int, places: Sequence[Mapping[str, Any]] = ()) -> str | None:
    """Return what is left at the destination, and at its earlier places, for the owner of the job."""
    texts = []
    if files:
        texts.append(
            f"{_were(files)} sent before could not be removed from the destination, "
            "and the set is not complete"
        )
    if places:
        known = [files_at(earlier) for earlier in places]
        were = _were(sum(known)) if any(known) else "files that were possibly"
        at_least = "at least " if any(known) and not all(known) else ""
        texts.append(
            f"{at_least}{were} sent before the destination was moved could not be removed from its "
            "earlier place"
        )
    return "; ".join(texts) or None


def _were(files: int) -> str:
    return "1 file that was" if files == 1 else f"{files:,} files that were"


def _is_in_doubt(earlier: Mapping[str, Any], path: str) -> bool:
    return earlier.get("path") == path and not earlier.get("looked")


def _at_place(
    known: Mapping[str, Any], place: str
) -> tuple[Mapping[str, Any], tuple[Mapping[str, Any], ...]]:
    """Return the progress at a place, and the earlier places that possibly have files.

    A destination that is moved back has the same paths, and all files are sent again: people were told that
    files are left there, or they were found elsewhere, so they are possibly removed by now.
    """
    left = list(known.get("left", ()))
    if known.get("place") == place:
        return known, tuple(left)
    if (known.get("path") or files_at(known)) and known.get("writing", 1) and not known.get("removed"):
        left.append({name: known.get(name) for name in _KEPT} | {"files": files_at(known)})
    here: Mapping[str, Any] = {}
    for earlier in left:
        if earlier["place"] == place:
            here = {**earlier, "files": 0, "sent_files": files_at(earlier)}
    return here, tuple(earlier for earlier in left if earlier["place"] != place)


def place_of(destination: Destination) -> str:
    """Return a text that is different for each place and each pattern of paths."""
    if isinstance(destination, S3Destination):
        where: list[Any] = ["s3", destination.endpoint, destination.bucket]
    else:
        where = ["sftp", destination.host, destination.port, destination.user]
    where += [destination.prefix, destination.path]
    return hashlib.sha256(json.dumps(where).encode()).hexdigest()[:32]


def _zone_of(notification: Notification) -> str:
    """Return the time zone of dates in paths: that of the schedule, else of the file, else UTC."""
    options = notification.options if isinstance(notification.options, Mapping) else {}
    summary = notification.schedule_summary
    wanted = (summary.timezone if summary else None, options.get("timezone"), notification.timezone)
    for name in wanted:
        if isinstance(name, str) and name:
            try:
                ZoneInfo(name)
            except (ZoneInfoNotFoundError, ValueError, OSError):
                continue
            return name
    return "UTC"
