"""Checks schedules that are late or failed, and deliveries that failed or wait."""

from collections.abc import AsyncIterator

from sqlalchemy.ext.asyncio import AsyncConnection

from stream_app.doctor.findings import Finding, FindingFactory
from stream_app.notifications.statistics import COUNT as DELIVERIES
from stream_app.schedules.statistics import COUNT as SCHEDULES
from stream_app.schedules.statistics import LATE

SCHEDULE_AREA, DELIVERY_AREA = FindingFactory("schedules"), FindingFactory("deliveries")

WAITS_LONG_SECONDS = 3600


async def check_schedules(connection: AsyncConnection) -> AsyncIterator[Finding]:
    """Yield a finding about late runs, and one about failed ones."""
    found = (await connection.execute(SCHEDULES, {"late": LATE})).one()
    yield SCHEDULE_AREA.problem_if(
        found.late > 0,
        "runs",
        f"{found.active} are active, none is late",
        "late_schedules",
        count=found.late,
    )
    if failed := found.failing + found.paused_by_service:
        yield SCHEDULE_AREA.warning(
            "failures", "failing_schedules", count=failed, paused=found.paused_by_service
        )
    else:
        yield SCHEDULE_AREA.ok("failures", "no last run failed")


async def check_deliveries(connection: AsyncConnection) -> AsyncIterator[Finding]:
    """Yield a finding about deliveries that failed, and one about those that wait."""
    found = (await connection.execute(DELIVERIES)).one()
    if found.failed + found.ambiguous:
        yield DELIVERY_AREA.warning(
            "failures", "lost_deliveries", failed=found.failed, ambiguous=found.ambiguous
        )
    else:
        yield DELIVERY_AREA.ok("failures", "no delivery of the last 7 days failed")
    if found.oldest_seconds >= WAITS_LONG_SECONDS:
        minutes = round(found.oldest_seconds / 60)
        yield DELIVERY_AREA.warning("waiting", "waiting_deliveries", count=found.waiting, minutes=minutes)
    else:
        yield DELIVERY_AREA.ok("waiting", f"{found.waiting} deliveries wait")


async def check_schedules_and_deliveries(connection: AsyncConnection) -> AsyncIterator[Finding]:
    """Yield the findings of both."""
    for findings in (check_schedules(connection), check_deliveries(connection)):
        async for finding in findings:
            yield finding
