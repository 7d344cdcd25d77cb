"""What the runs of a schedule can export: there is no token when a run is due. Pure.

The roles and claims of the owner count for some time after the owner last proved them with a token.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from stream_app.datasets.caller import Caller
from stream_app.datasets.models import Dataset
from stream_app.datasets.rights import ALL, visible_dataset
from stream_app.schedules.models import Schedule
from stream_app.settings import Settings
from streaming_exporter.errors import Rejected

EVERYBODY = "*"


@dataclass(frozen=True, slots=True)
class SchedulePermissions:
    """Decides whether a run of a schedule can export its rows.

    Scope ``all`` also needs the operators, who list the users whose schedules can have it.

    Attributes:
        users: the users whose schedules can export all rows, or ``*``.
        grant: how long roles and claims count.
    """

    users: Collection[str]
    grant: timedelta

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the permissions that the settings describe."""
        names = filter(None, map(str.strip, settings.schedule_all_users.split(",")))
        return cls(frozenset(names), timedelta(days=settings.schedule_grant_days))

    def allows(self, user_id: str) -> bool:
        """Return whether the operators allow this user's schedules to export all rows."""
        return EVERYBODY in self.users or user_id in self.users

    def refusal(self, schedule: Schedule, now: datetime) -> Rejected | None:
        """Return why a run of ``schedule`` at ``now`` cannot export its rows, or ``None`` if it can.

        Whether its roles and claims suffice for the dataset is checked with its request.
        """
        if schedule.scope == ALL:
            if not self.allows(schedule.user_id):
                return Rejected(
                    "schedules of this user cannot export the rows of all users any more; operators: "
                    "EXPORTER_SCHEDULE_ALL_USERS",
                    code="scope_not_allowed",
                    field="scope",
                )
            if schedule.all_rows_until is None or schedule.all_rows_until <= now:
                return Rejected(
                    f"the permission to export the rows of all users expired after {self.grant.days} days; "
                    "the owner renews it by resuming the schedule with a token that has the role exports:all",
                    code="grant_lapsed",
                    field="scope",
                )
        if schedule.claims and (schedule.claims_until is None or schedule.claims_until <= now):
            return Rejected(
                f"the roles and claims of the schedule expired after {self.grant.days} days; the owner "
                "renews them by resuming the schedule with a token that has them",
                code="grant_lapsed",
            )
        return None


def granted_until(schedule: Schedule) -> datetime | None:
    """Return the time until which runs have what :meth:`SchedulePermissions.refusal` asks for.

    It is ``None`` if they need nothing. When a permission was taken away is not on record, so for that it is
    the time at which the schedule was made: a past one that stays the same.
    """
    ends = []
    if schedule.scope == ALL:
        ends.append(schedule.all_rows_until or schedule.created_at)
    if schedule.claims:
        ends.append(schedule.claims_until or schedule.created_at)
    return min(ends, default=None)


def caller_of(schedule: Schedule) -> Caller:
    """Return the caller of the schedule's runs: its owner, with the claims that the schedule keeps."""
    return Caller.of_claims(schedule.user_id, schedule.claims)


def dataset_of(datasets: Mapping[str, Dataset], schedule: Schedule) -> Dataset | None:
    """Return the dataset as the schedule's owner sees it; ``None`` if it does not exist for them."""
    dataset = datasets.get(schedule.export_type)
    try:
        return None if dataset is None else visible_dataset(dataset, caller_of(schedule))
    except Rejected:
        return None
