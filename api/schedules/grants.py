"""The roles and claims of schedules: they are those of the token with which the owner last called.

Only the owner can give them to a schedule. An administrator who changes or runs it does not.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from api.auth.authenticator import User
from api.auth.callers import RequestClaims, claims_for, kept_claims
from api.errors import Problem
from api.jobs.cancellation import publish_cancellation
from api.schedules.schemas import ScheduleOrder
from api.services import ApiServices
from stream_app.datasets.rights import ALL
from stream_app.schedules.grants import SchedulePermissions
from stream_app.schedules.models import Schedule

log = structlog.get_logger(__name__)


async def end_lost_grants(services: ApiServices, user: User, schedule_id: UUID) -> None:
    """Take from a schedule what its owner's token lacks: scope ``all``, roles and claims.

    Runs on record that need it, and whose time to start has not come, are cancelled, so that the next run
    exports their windows. This is committed before the call continues, which can be refused.
    """
    async with services.schedules.transaction() as connection:
        current = await services.schedules.lock(connection, schedule_id, user_id=user.id)
        if current is None:
            return
        lost = _lost(services, user, current)
        if lost:
            await services.schedules.update(connection, schedule_id, lost)
            log.info("schedule.grant_ended", schedule_id=str(schedule_id), user_id=user.id)
        planned = await services.schedules.planned_runs(connection, schedule_id)
        cancelled = [run.id for run in planned if _lacks(services, user, current, run)]
        for job_id in cancelled:
            await services.queue.cancellations.cancel(connection, job_id)
    for job_id in cancelled:
        publish_cancellation(services, job_id, by=user.id)


def claims_of(
    services: ApiServices, user: User, owner: str, order: ScheduleOrder, current: Schedule | None
) -> RequestClaims:
    """Return the claims for a request of a schedule: those of the owner's token, or those it has."""
    if user.id == owner:
        dataset = services.datasets.get(order.export_type)
        return claims_for(user, dataset, services.datasets.destination(order.destination))
    return dict((current.claims if current is not None else None) or {})


def grant_columns(
    services: ApiServices,
    user: User,
    owner: str,
    order: ScheduleOrder,
    current: Schedule | None,
    claims: RequestClaims,
) -> dict[str, Any]:
    """Return the columns with the grants of a schedule that ``user`` makes or changes.

    Raises:
        Problem: the user cannot give the schedule its scope.
    """
    rights, now = SchedulePermissions.of(services.settings), services.clock.now()
    values = _renewed_claims(claims, rights, now) if user.id == owner else {}
    if order.scope != ALL:
        return {**values, "all_rows_until": None}
    if user.id != owner:
        if current is None or current.scope != ALL:
            raise _refused("Only the owner of a schedule can set its scope to all")
        return values
    _require_all_rows(user)
    if not rights.allows(owner):
        raise _refused(
            "Your schedules cannot use scope all. Operators: add the user to EXPORTER_SCHEDULE_ALL_USERS"
        )
    return {**values, "all_rows_until": now + rights.grant}


async def renew_grants(
    services: ApiServices, user: User, schedule: Schedule, now: datetime, connection: AsyncConnection
) -> Schedule:
    """Return the schedule for a run that ``user`` starts, with the grants renewed if they are its owner.

    Raises:
        Problem: the schedule cannot export its rows at the moment.
    """
    rights = SchedulePermissions.of(services.settings)
    values: dict[str, Any] = {}
    if user.id == schedule.user_id:
        if schedule.scope == ALL:
            _require_all_rows(user)
            if rights.allows(user.id):
                values["all_rows_until"] = now + rights.grant
        dataset = services.datasets.get(schedule.export_type)
        if dataset is not None:
            claims = claims_for(user, dataset, services.datasets.destination(schedule.destination))
            values |= _renewed_claims(claims, rights, now)
    if any(getattr(schedule, name) != value for name, value in values.items()):
        schedule = await services.schedules.update(connection, schedule.id, values)
    refusal = rights.refusal(schedule, now)
    if refusal is not None:
        raise Problem(403, refusal.code, str(refusal), field=refusal.field)
    return schedule


def _lost(services: ApiServices, user: User, current: Schedule) -> dict[str, Any]:
    """Return the columns to change, because the token of the owner lacks what they have."""
    values: dict[str, Any] = {}
    if current.all_rows_until is not None and not user.can_export_all:
        values["all_rows_until"] = None
    kept = _kept(services, user, current, current)
    if kept != current.claims:
        values["claims"] = kept
    return values


def _lacks(services: ApiServices, user: User, current: Schedule, run: Row[Any]) -> bool:
    """Return whether the token of the owner lacks a right of a planned run."""
    if run.scope == ALL and not user.can_export_all:
        return True
    return bool(_kept(services, user, current, run) != run.claims)


def _kept(services: ApiServices, user: User, current: Schedule, item: Schedule | Row[Any]) -> Any:
    """Return which of the claims of a schedule, or of a run of it, the token of the owner has."""
    dataset = services.datasets.get(current.export_type)
    if not item.claims or dataset is None:
        return item.claims
    has = claims_for(user, dataset, services.datasets.destination(item.destination))
    return kept_claims(item.claims, has)


def _renewed_claims(claims: RequestClaims, rights: SchedulePermissions, now: datetime) -> dict[str, Any]:
    return {"claims": claims or None, "claims_until": now + rights.grant if claims else None}


def _require_all_rows(user: User) -> None:
    if not user.can_export_all:
        raise _refused("Scope all needs the role exports:all. Ask for that role, or use scope own")


def _refused(detail: str) -> Problem:
    return Problem(403, "scope_not_allowed", detail, field="scope")
