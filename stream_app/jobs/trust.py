"""How far a lifecycle event that ends a job is believed. Pure.

Whoever may write to ``exports.events`` could say that a job's file is another one. So what leads to a file is
only taken over where it fits the job: a key of that job and attempt, a media type that files of the format
have, a time that is over no later than the service itself would say.
"""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from stream_app.errors import Unreadable
from stream_app.events import Event, LifecycleData
from stream_app.exports.compression import COMPRESSIONS
from stream_app.exports.formats.base import Format
from stream_app.exports.inventory import ATTEMPTS_PREFIX
from stream_app.jobs.states import OUTCOMES

COMPRESSED = frozenset(compression.media_type for compression in COMPRESSIONS.values())


def trusted(event: Event, *, formats: Mapping[str, Format], kept: timedelta, now: datetime) -> Event:
    """The outcome as it is taken over; ``kept`` is how long files are kept.

    Raises:
        Unreadable: it contradicts itself, or leads to what is not this attempt's.
    """
    data = event.lifecycle
    status = OUTCOMES[event.type]
    if data.job_id != event.job_id:
        raise Unreadable(f"data.job_id: {data.job_id} is not the subject, {event.job_id}")
    if data.status != status:
        raise Unreadable(f"data.status: {data.status!r} contradicts the type, {event.type}")
    if data.key is not None and not _is_own(data):
        raise Unreadable(f"data.key: {data.key!r:.200} is no file of attempt {data.attempt} of {data.job_id}")
    changed = _corrected(data, formats, kept, now)
    if not changed:
        return event
    believed = event.model_copy(update={"data": {**event.data, **changed}})
    believed.__dict__.pop("lifecycle", None)  # what was read from the data before
    return believed


def _is_own(data: LifecycleData) -> bool:
    """``…/jobs/<job>/<attempt>/<file>``; what stands before is the deployment's, and can change with time."""
    pattern = rf"([^/]+/)*{ATTEMPTS_PREFIX}/{data.job_id}/{data.attempt}(-[^/]+)?/[^/]+"
    key = data.key or ""
    return re.fullmatch(pattern, key) is not None and not {".", ".."} & set(key.split("/"))


def _corrected(
    data: LifecycleData, formats: Mapping[str, Format], kept: timedelta, now: datetime
) -> dict[str, Any]:
    """What is said instead of what no worker would have said."""
    changed: dict[str, Any] = {}
    if data.key is not None and data.file_name is not None:
        name = data.key.rpartition("/")[2]
        if data.file_name != name:
            changed["file_name"] = name
    output = formats.get(data.format)
    if data.content_type is not None:
        known = {output.media_type} | COMPRESSED if output is not None else COMPRESSED
        if data.content_type not in known:
            changed["content_type"] = output.media_type if output is not None else None
    if data.expires_at is not None:
        latest = min(data.completed_at or now, now) + kept
        if data.expires_at > latest:
            changed["expires_at"] = latest.isoformat()
    return changed
