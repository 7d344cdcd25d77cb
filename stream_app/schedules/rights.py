"""Which rows a run may take: decided when it is due, by what holds then."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

from sqlalchemy import Row

from stream_app.errors import Rejected
from stream_app.settings import Settings

EVERYBODY = "*"


@dataclass(frozen=True, slots=True)
class Rights:
    """The rule for scope ``all``: its owner showed the role not long ago, and the operators allow it.

    ``users`` are those whose schedules may take every row. There is no token when a run is due, so what a
    token once allowed holds for ``grant`` at most, and not even so long for a user who is taken off the list.
    """

    users: Collection[str]
    grant: timedelta

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The rule as the settings want it."""
        names = filter(None, map(str.strip, settings.schedule_all_users.split(",")))
        return cls(frozenset(names), timedelta(days=settings.schedule_grant_days))

    def allow(self, user_id: str) -> bool:
        """Whether the operators let this user's schedules take every row."""
        return EVERYBODY in self.users or user_id in self.users

    def refusal(self, schedule: Row[Any], now: datetime) -> Rejected | None:
        """Why a run of ``schedule`` at ``now`` must not take its rows; ``None`` if it may."""
        if schedule.scope != "all":
            return None
        if not self.allow(schedule.user_id):
            return Rejected(
                "schedules of this user may not take every row any more",
                code="scope_not_allowed",
                field="scope",
            )
        if schedule.all_rows_until is None or schedule.all_rows_until <= now:
            return Rejected(
                f"the leave to take every row has lapsed after {self.grant.days} days; its owner renews it "
                "by resuming the schedule with a token that has the role exports:all",
                code="grant_lapsed",
                field="scope",
            )
        return None
