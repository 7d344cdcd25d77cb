"""The parameters of the list of jobs."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Query

from stream_app.jobs.states import Status
from streaming_exporter.events import Word


@dataclass(frozen=True, slots=True)
class JobListParameters:
    """Which jobs a call lists, and which page of them."""

    status: Annotated[Status | None, Query(description="Only jobs with this status")] = None
    export_type: Annotated[Word | None, Query(description="Only jobs of this dataset")] = None
    user_id: Annotated[
        str | None,
        Query(
            max_length=255,
            description="Only jobs of this user. Other users need the role exports:admin or exports:operate",
        ),
    ] = None
    since: Annotated[
        str | None,
        Query(
            max_length=100,
            description="Only jobs requested since then: a time, a date (a day of UTC, or of the zone that "
            "it names, as `2026-10-31[Europe/Berlin]`), or a relative time such as `today` or `now-7d`",
        ),
    ] = None
    until: Annotated[
        str | None,
        Query(
            max_length=100, description="Only jobs requested before this time, or on this day at the latest"
        ),
    ] = None
    code: Annotated[
        str | None, Query(max_length=100, description="Only jobs with this error code, such as `timeout`")
    ] = None
    q: Annotated[
        str | None,
        Query(
            max_length=200,
            description="Only jobs with each of these words in their name, or in a name of their dataset",
        ),
    ] = None
    name: Annotated[
        str | None,
        Query(max_length=200, description="Only jobs with this name; of other users: needs exports:admin"),
    ] = None
    limit: Annotated[int, Query(ge=1, le=100)] = 20
    cursor: Annotated[str | None, Query(max_length=200, description="`next_cursor` of the page before")] = (
        None
    )
