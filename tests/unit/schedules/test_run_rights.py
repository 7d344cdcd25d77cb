"""What a run of a schedule can export is decided when it is due, by the claims that the schedule keeps."""

from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from stream_app.datasets.bundles import Bundle, BundleSettings
from stream_app.datasets.models import ColumnSettings, Dataset, Scope
from stream_app.jobs.new_job import NewJob
from stream_app.jobs.request_validator import RequestValidator
from stream_app.schedules.grants import SchedulePermissions, granted_until
from stream_app.schedules.models import DueSchedule
from stream_app.schedules.run_planner import RunPlanner
from stream_app.settings import Settings
from tests.rows import each_row

NOW = datetime(2026, 3, 2, 0, 0, 30, tzinfo=UTC)
DUE = datetime(2026, 3, 2, tzinfo=UTC)
MADE = DUE - timedelta(days=3)
ORDERS = {
    "name": "orders",
    "table": "orders",
    "owner": "customer_id",
    "time": "placed_at",
    "scopes": {"organisation": Scope(column="org", claim="org", roles=("org-admin",))},
}
CLAIMS = {"org": "acme", "roles": ["org-admin", "orders"]}


def planned(
    dataset: dict[str, Any], *, users: str = "*", bundles: dict[str, Bundle] | None = None, **values: Any
) -> NewJob:
    """Return the job of the only run of a schedule that is due; ``users`` can export all rows."""
    known = Dataset.model_validate(ORDERS | dataset)
    datasets = {known.name: known, **(bundles or {})}
    validator = RequestValidator({"csv"}, datasets)
    settings = Settings(_env_file=None, schedule_grant_days=30, schedule_all_users=users)
    planner = RunPlanner(validator, datasets, settings)
    (found,) = planner.plan_all([due(**values)], {}, NOW)
    assert found.error is None
    (job,) = found.jobs
    return job


def due(**values: Any) -> DueSchedule:
    """Return a daily schedule that is due."""
    content: dict[str, Any] = {item.name: None for item in fields(DueSchedule)}
    content |= {
        "id": UUID(int=7), "user_id": "u", "export_type": "orders", "format": "csv", "schedule": "daily",
        "time_of_day": "00:00", "timezone": "UTC", "window": "none", "catch_up": "last", "delay": 0,
        "scope": "organisation", "active": True, "next_run": DUE, "failures": 0, "now": NOW, "version": "1",
        "created_at": MADE,
        "claims": CLAIMS, "claims_until": NOW + timedelta(days=1), **values,
    }  # fmt: skip
    return DueSchedule(**content)


ENDS = [None, NOW - timedelta(days=1), NOW, NOW + timedelta(days=1), NOW + timedelta(days=20)]


@pytest.mark.parametrize("scope", ["all", "own"])
@pytest.mark.parametrize("claims", [None, {}, CLAIMS])
@each_row("all_rows_until", ENDS)
@each_row("claims_until", ENDS)
def test_the_end_of_a_grant_tells_when_runs_are_refused(
    scope: str, claims: Any, all_rows_until: datetime | None, claims_until: datetime | None
) -> None:
    schedule = due(scope=scope, claims=claims, all_rows_until=all_rows_until, claims_until=claims_until)
    end = granted_until(schedule)
    rights = SchedulePermissions({"u"}, timedelta(days=30))
    assert (end is None) == (scope == "own" and not claims)
    for moment in (NOW, *(one for one in ENDS if one and one > NOW), NOW + timedelta(days=25)):
        assert (rights.refusal(schedule, moment) is not None) == (end is not None and end <= moment)


@each_row(
    ("dataset", "schedule", "code"),
    [
        ({}, {}, None),
        ({"roles": ["orders"]}, {}, None),
        ({"roles": ["others"]}, {}, "unknown_dataset"),
        ({"roles": ["orders"]}, {"claims": None, "scope": "own"}, "unknown_dataset"),
        ({}, {"claims": None, "scope": "own", "claims_until": None}, None),
        ({}, {"claims_until": NOW}, "grant_lapsed"),
        # Rows can arrive late, so the run waits; its rights end before it starts.
        ({}, {"claims_until": NOW + timedelta(hours=1), "delay": 7_200}, "grant_lapsed"),
        ({}, {"claims_until": NOW + timedelta(hours=3), "delay": 7_200}, None),
        ({}, {"claims_until": None}, "grant_lapsed"),
        ({}, {"claims_until": NOW, "scope": "own"}, "grant_lapsed"),
        ({}, {"claims": {"org": "acme"}}, "scope_not_allowed"),
        ({}, {"claims": {"roles": ["org-admin"]}}, "missing_claim"),
        ({"scopes": {}}, {}, "unknown_scope"),
        ({}, {"window": "previous_period"}, None),
        (
            {"column_settings": {"placed_at": ColumnSettings(roles=("pii",))}},
            {"window": "previous_period"},
            "no_time_column",
        ),
        (
            {"column_settings": {"placed_at": ColumnSettings(mask="null")}},
            {"window": "previous_period"},
            "no_time_column",
        ),
        (
            {"column_settings": {"placed_at": ColumnSettings(roles=("org-admin",))}},
            {"window": "previous_period"},
            None,
        ),
    ],
)
def test_the_rules_of_the_dataset_and_the_grant_are_checked_when_a_run_is_due(
    dataset: dict[str, Any], schedule: dict[str, Any], code: str | None
) -> None:
    job = planned(dataset, **schedule)
    outcome = job.outcome
    assert (outcome.error.code if outcome and outcome.error else None) == code
    if outcome is None and schedule.get("claims", CLAIMS):
        assert job.claims == CLAIMS


@pytest.mark.parametrize(
    ("users", "until", "said"),
    [
        ("*", timedelta(days=1), None),
        ("a, u", timedelta(seconds=1), None),
        ("a,b", timedelta(days=1), "schedules of this user cannot export the rows of all users any more"),
        ("", timedelta(days=1), "EXPORTER_SCHEDULE_ALL_USERS"),
        ("*", timedelta(0), "expired after 30 days; the owner renews it by resuming"),
        ("*", -timedelta(days=1), "expired after 30 days"),
        ("*", None, "expired after 30 days"),
    ],
)
def test_all_rows_need_the_operators_and_a_grant(
    users: str, until: timedelta | None, said: str | None
) -> None:
    granted = None if until is None else NOW + until
    job = planned({}, users=users, scope="all", all_rows_until=granted)
    if said is None:
        assert job.outcome is None
        return
    assert job.outcome is not None
    assert job.outcome.error is not None
    assert said in job.outcome.error.message
    assert job.outcome.error.message.startswith("scope: ")
    assert job.outcome.error.code == ("scope_not_allowed" if users in ("", "a,b") else "grant_lapsed")


def test_a_run_of_a_dataset_that_is_gone_fails_and_keeps_its_window() -> None:
    job = planned({"name": "others"}, window="previous_period")
    assert job.outcome is not None
    assert job.outcome.error is not None
    assert job.outcome.error.code == "unknown_dataset"
    assert job.window is not None


def test_a_lapsed_grant_says_how_it_is_renewed() -> None:
    outcome = planned({}, claims_until=NOW).outcome
    assert outcome is not None
    assert outcome.error is not None
    assert "expired after 30 days; the owner renews them by resuming the schedule" in outcome.error.message


def test_the_window_of_a_run_without_a_visible_time_column_is_on_record() -> None:
    """So a later run can export it, when the owner has the role again."""
    job = planned(
        {"column_settings": {"placed_at": ColumnSettings(roles=("pii",))}}, window="previous_period"
    )
    assert job.window is not None
    assert job.filters in (None, {})
    assert "placed_at" not in str(job.window)


def test_relative_parameters_of_a_run_are_days_of_its_time_zone() -> None:
    """Also those by default, so that a run that starts late exports the same rows."""
    parameters = {"first": {"type": "date"}, "last": {"type": "date", "default": "today"}, "word": {}}
    dataset = {
        "table": None,
        "query": "select * from orders where day between :first and :last and word = :word",
        "parameters": parameters,
    }
    given = {"first": "today-7d", "word": "today"}
    job = planned(dataset, parameters=given, timezone="America/New_York", time_of_day="19:00", scope="own")
    assert job.parameters == {"first": "2026-02-22", "last": "2026-03-01", "word": "today"}


def test_filters_for_a_dataset_that_a_bundle_no_longer_has_fail_the_run() -> None:
    """Without these filters the run would have more rows than were asked for."""
    member = Dataset.model_validate(ORDERS)
    bundle = Bundle.of(BundleSettings(name="all", datasets=("orders",)), [member])

    def run(filters: dict[str, Any]) -> NewJob:
        return planned({}, bundles={"all": bundle}, export_type="all", scope="own", filters=filters)

    kept = run({"orders": {"org": "acme"}, "orders.kind": "x"})
    assert (kept.outcome, kept.filters) == (None, {"orders": {"org": "acme", "kind": "x"}})
    lost = run({"ledger": {"kind": "proof"}, "orders": {"org": "acme"}})
    assert lost.outcome is not None
    assert lost.outcome.error is not None
    assert "has no dataset 'ledger'" in lost.outcome.error.message
