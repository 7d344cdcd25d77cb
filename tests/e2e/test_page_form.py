"""The form of the page: days, what it keeps and what not, whose rows, and what cannot be sent."""

import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from babel.dates import format_date
from playwright.sync_api import Locator, expect
from sqlalchemy import select

from api.schedules.schemas import ScheduleOrder
from dev.postgres import STATE
from producers.tokens import sign_token
from stream_app.exports.columns import Column, Kind
from stream_app.exports.filters.conditions import conditions
from stream_app.exports.filters.relative_dates import resolve_filters
from stream_app.exports.queries.row_query import reference
from stream_app.exports.queries.sql_text import render
from stream_app.notifications.request_words import PERIODS
from stream_app.settings import Settings
from tests.e2e.browser import Visit
from tests.e2e.conftest import System
from tests.e2e.tables import psql

pytestmark = pytest.mark.browser

WEEK = (
    "customer_id = 'customer-1' AND placed_at >= '2026-01-05 00:00 {0}'"
    " AND placed_at < '2026-01-12 00:00 {0}'"
)

MARKUP = (
    "CREATE OR REPLACE VIEW shop.markup AS SELECT n AS id, (enum_range(NULL::shop.mark))[n % 2 + 1] AS mark,"
    " '{}'::text AS \"<b>title</b>\" FROM generate_series(1, 10) n"
)


OF_OTHER_SCHEDULES = {"parameters", "destination", "window_from", "active"}
"""Fields of a request for a schedule that other tests have, or that a duplicate does not take over."""

OF_ONE_SCHEDULE = {
    "id", "name", "window_from", "created_at", "granted_until", "last_run", "next_run", "next_runs",
    "failures",
}  # fmt: skip
"""Fields of a schedule that a duplicate has its own values of: its name, times and counters."""


def sent(visit: Visit, press: str = "Export") -> dict[str, Any]:
    """Send the form; return the body of the request."""

    def is_sent(request: Any) -> bool:
        return bool(
            request.method == "POST" and request.url.endswith(("/exports/jobs", "/exports/schedules"))
        )

    button = visit.page.get_by_role("button", name=press, exact=True)
    expect(button).not_to_have_attribute("aria-busy", "true")  # the one before waits for its file
    with visit.page.expect_request(is_sent) as request:
        button.click()
    request.value.response()  # so that the export does not appear in the list of a later test
    body: dict[str, Any] = json.loads(request.value.post_data or "")
    return body


def between(visit: Visit, first: str, last: str) -> Locator:
    row = visit.filter("placed_at", "between")
    row.get_by_label("Value for placed_at, from, date").fill(first)
    row.get_by_label("Value for placed_at, to, date").fill(last)
    return row


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Pacific/Auckland"])
def test_between_two_days_takes_both_days_of_the_zone(
    visit: Visit, system: System, customer: str, tmp_path: Path, zone: str
) -> None:
    """people A1: the last day is not lost, and the card says which days, of which zone."""
    visit.sign_in(customer)
    visit.choose("orders", "csv")
    visit.shot("form")
    row = between(visit, "2026-01-12", "2026-01-05")
    visit.page.get_by_label("Time zone of days and times").select_option(zone)
    visit.page.get_by_role("button", name="Export", exact=True).click()
    expect(
        row.get_by_label("Value for placed_at, to, date")
    ).to_be_focused()  # the end is before the beginning
    row.get_by_label("Value for placed_at, from, date").fill("2026-01-05")
    row.get_by_label("Value for placed_at, to, date").fill("2026-01-11")
    visit.shot("form-between", full_page=True)
    with visit.page.expect_download() as download:
        card = visit.export()
    shown = "placed_at: 5 Jan 2026 to 11 Jan 2026"
    expect(card).to_contain_text(shown if zone == "UTC" else f"{shown} ({zone})")
    path = tmp_path / "orders.csv"
    download.value.save_as(path)
    rows = csv.DictReader(io.StringIO(path.read_text("utf-8-sig"), newline=""))
    wanted = psql(system.stack, f"SELECT id FROM shop.orders WHERE {WEEK.format(zone)} ORDER BY id")
    assert sorted(int(row["id"]) for row in rows) == [int(line) for line in wanted.split()[1:-2]]
    card.get_by_role("button", name="Edit and run again").click()
    expect(visit.page.get_by_label("Time zone of days and times")).to_have_value(zone)
    expect(visit.page.get_by_label("Value for placed_at, to, date")).to_have_value("2026-01-11")


def test_periods_are_relative_to_the_day_of_the_export(visit: Visit, customer: str) -> None:
    """people B15: a schedule of last month is chosen, not computed."""
    visit.sign_in(customer)
    visit.choose("orders", "ndjson")
    visit.filter("placed_at", "in the period").get_by_label("Value for placed_at").select_option("last month")
    body = sent(visit)
    assert body["filters"] == {"placed_at": {"gte": "start_of_month-1mo", "lt": "start_of_month"}}
    card = visit.page.locator("#job-list > li").first
    expect(card).to_contain_text(re.compile(r"placed_at: last month \(1 \w+ \d{4} to \d\d \w+ \d{4}\)"))
    expect(card.locator(".state")).to_have_text("Ready")  # its buttons stay in their places from now on
    card.get_by_role("button", name="Edit and run again").click()
    expect(visit.page.get_by_label("Value for placed_at").locator("option:checked")).to_have_text(
        "last month"
    )


def test_names_of_fields_in_errors_are_not_capitalised(visit: Visit) -> None:
    visit.open()
    texts = [
        "filters.knd: the dataset has no column 'knd'",
        "filters.größe: the dataset has no column 'größe'",
        "filters.order-no: it is no number",
        "filters.order no: it is no number",
        "filters.ledger.kind[0]: it is no number",
        "größe: it is no number",
        "format: there is no format",
        "the export failed",
        "ältere Dateien fehlen. sie sind gelöscht: alle",
    ]
    shown = visit.page.evaluate(
        "async (texts) => texts.map((await import('/page/words.js')).sentence)",
        texts,
    )
    assert shown == [*texts[:7], "The export failed", "Ältere Dateien fehlen. sie sind gelöscht: alle"]


MOMENTS = ("2026-03-29T22:30:00Z", "2026-12-31T23:30:00Z", "2028-02-29T12:00:00Z", "2026-11-01T00:00:00Z")


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Pacific/Auckland"])
def test_cards_say_which_days_a_period_was(visit: Visit, zone: str) -> None:
    """They are those that the export had, at the ends of months, years and hours of summer time."""
    visit.open()
    cases = list(product(MOMENTS, PERIODS.items()))
    texts = visit.page.evaluate(
        """async ([zone, cases]) => {
            const { filtersText } = await import('/page/filter_texts.js');
            return cases.map(([gte, lt, now]) => filtersText({ at: { gte, lt } }, '', zone, now));
        }""",
        [zone, [[*period, moment] for moment, (period, _) in cases]],
    )
    for (moment, ((gte, lt), name)), shown in zip(cases, texts, strict=True):
        wanted = {"at": {"gte": gte, "lt": lt}}
        kinds, now = {"at": Kind.TIMESTAMPTZ}, datetime.fromisoformat(moment)
        found = resolve_filters(wanted, kinds, now, ZoneInfo(zone))["at"]
        first, end = (
            datetime.fromisoformat(found[name]).astimezone(ZoneInfo(zone)).date() for name in ("gte", "lt")
        )
        last = end - timedelta(days=1)
        days = [format_date(day, "d MMM y", locale="en_GB") for day in (first, last)]
        text = days[0] if first == last else " to ".join(days)
        assert shown.replace("Sept", "Sep").endswith(f" ({text})".replace("Sept", "Sep")), (moment, name)


ZONES = ("UTC", "Europe/Berlin", "America/New_York")
TIMES = (
    "2026-07-01", "2026-07-01[Europe/Berlin]", "2026-07-01T09:30", "2026-07-01T09:30:15", "2026-07-01T00:00",
    "2026-07-01T00:00Z", "2026-07-01T09:30Z", "2026-07-01T09:30+02:00", "2026-06-30T22:00:00Z",
    "2026-07-01T00:00[Europe/Berlin]", "2026-07-01T09:30[Europe/Berlin]", "2026-07-01T04:00:00Z",
)  # fmt: skip
COLUMNS = {
    Kind.TIMESTAMP: Column("at", "timestamp without time zone", "timestamp", Kind.TIMESTAMP),
    Kind.TIMESTAMPTZ: Column("at", "timestamp with time zone", "timestamptz", Kind.TIMESTAMPTZ),
}


def rows_of(tests: dict[str, str], kind: Kind, zone: str) -> set[tuple[str, datetime]]:
    """Return the limits of the rows that the service reads: signs with times."""
    found = conditions({"at": tests}, {"at": COLUMNS[kind]}, reference, zone=ZoneInfo(zone))
    limits = re.findall(r"(>=|<=|<|>) CAST\('([^']*)' AS ", render(select(reference("at")).where(*found)))
    assert limits
    moments = [(sign, datetime.fromisoformat(text)) for sign, text in limits]
    return {(sign, moment if moment.tzinfo else moment.replace(tzinfo=UTC)) for sign, moment in moments}


@pytest.mark.parametrize("kind", COLUMNS)
def test_filters_that_are_edited_select_the_same_rows(visit: Visit, kind: Kind) -> None:
    """What the form shows in another way is the same time for the service."""
    visit.open()
    shown = 0
    edited = list(product(ZONES, TIMES, ("gte", "lt", "lte", "gt")))
    values = visit.page.evaluate(
        """async ([kind, cases]) => {
            const { inputs } = await import('/page/filters.js');
            return cases.map(([zone, text, operator]) => {
                const input = inputs({ kind, name: 'at', operators: [operator] }, operator, () => zone);
                return input.write(text) ? input.read() : null;
            });
        }""",
        [kind.value, edited],
    )
    for (zone, text, operator), read in zip(edited, values, strict=True):
        if read is not None:
            shown += 1
            same = rows_of({operator: text}, kind, zone)
            assert rows_of({operator: read}, kind, zone) == same, (zone, text, operator, read)
    assert shown >= 4 * 3 * len(ZONES)
    changed = 0
    ends = [end.replace("2026-07-01", "2026-08-01").replace("06-30", "07-31") for end in TIMES]
    periods = [({"gte": first, "lt": end}, zone) for zone, first, end in product(ZONES, TIMES, ends)]
    converted = visit.page.evaluate(
        """async ([kind, cases]) => {
            const { asDays } = await import('/page/filter_texts.js');
            return cases.map(([tests, zone]) => asDays(tests, zone, kind));
        }""",
        [kind.value, periods],
    )
    for (tests, zone), days in zip(periods, converted, strict=True):
        changed += days != tests
        assert rows_of(days, kind, zone) == rows_of(tests, kind, zone), (zone, tests, days)
    assert changed >= len(ZONES)
    plain = {"gte": "2026-06-30T22:00Z", "lt": "2026-07-31T22:00Z"}
    assert (
        visit.page.evaluate(
            "async (tests) => (await import('/page/filter_texts.js')).asDays(tests, 'Europe/Berlin', 'text')",
            plain,
        )
        == plain
    )


def test_a_schedule_has_days_and_times_of_its_own_zone(visit: Visit, customer: str) -> None:
    """The zone is that of its filters and of its files: the form and the file show the same 07:00."""
    visit.sign_in(customer)
    page = visit.page
    visit.choose("orders", "csv")
    visit.filter("placed_at", "until").get_by_label("Value for placed_at, date").fill("2026-01-05")
    page.get_by_label("Repeat").select_option(label="Every day")
    expect(page.get_by_label("Time zone of days and times")).to_be_hidden()
    expect(page.get_by_text("Of filters and of times in the file, too")).to_be_visible()
    page.get_by_label("Time zone", exact=True).fill("Asia/Tokyo")
    body = sent(visit, "Schedule")
    assert body["timezone"] == body["options"]["timezone"] == "Asia/Tokyo"
    assert body["filters"] == {"placed_at": {"lte": "2026-01-05"}}
    card = page.locator("#schedule-list > li").first
    expect(card).to_contain_text("placed_at until 5 Jan 2026 (inclusive) (Asia/Tokyo)")
    card.get_by_role("button", name="Edit").click()
    expect(page.get_by_role("heading", name="Change the schedule")).to_be_visible()
    expect(page.get_by_label("Time zone of days and times")).to_be_hidden()
    page.get_by_label("Time zone", exact=True).fill("Europe/Paris")
    with page.expect_request(lambda request: request.method == "PATCH") as change:
        page.get_by_role("button", name="Save changes").click()
    changed = json.loads(change.value.post_data or "")
    assert changed["timezone"] == changed["options"]["timezone"] == "Europe/Paris"
    expect(page.get_by_role("heading", name="New export")).to_be_visible()


def test_a_schedule_of_another_program_keeps_its_zones(
    visit: Visit, system: System, settings: Settings
) -> None:
    """Its files have times in UTC, and the form says so. A change of its name does not change them.

    A duplicate has everything that the schedule has, also numbers that browsers round, and fields without a
    control in the form.
    """
    token = sign_token(settings, f"zones-{uuid4().hex[:8]}", roles=["exports:all"])
    headers = {"Authorization": f"Bearer {token}"}
    own = {"schedule": "weekly", "day": 2, "time_of_day": "07:00", "timezone": "Asia/Tokyo"}
    moment = {"gte": "2026-01-05T09:30[Asia/Tokyo]"}
    numbers = {"lt": 1234567890123456789, "not_in": [9007199254740993, 1]}
    body = {
        "export_type": "orders", "format": "csv", "name": "Orders", "columns": ["id", "placed_at"],
        "filters": {"placed_at": moment, "id": numbers}, "scope": "all", "options": {"header": False},
        "split": {"bytes": 5_400_000}, "consistency": "part", "encrypt": {"zip_password": True}, **own,
        "delay": 600, "catch_up": "all", "recipients": ["ada@example.com"],
        "webhook": "https://hooks.example.com/orders",
    }  # fmt: skip
    assert body.keys() | {"window"} == ScheduleOrder.model_fields.keys() - OF_OTHER_SCHEDULES
    made = system.client.post("/exports/schedules", json=body, headers=headers)
    assert made.status_code == 201, made.text
    visit.sign_in(token)
    page = visit.page
    page.locator("#schedule-list > li").get_by_role("button", name="Edit").click()
    expect(page.get_by_label("Time zone of days and times")).to_have_value("UTC")
    expect(page.get_by_text("Of times in the file", exact=True)).to_be_visible()
    expect(page.get_by_text("Of days in filters, too")).to_be_visible()
    expect(page.get_by_label("Value for placed_at, time")).to_have_value("09:30")
    page.get_by_label("Name", exact=True).fill("Another")
    with page.expect_request(lambda request: request.method == "PATCH") as change:
        page.get_by_role("button", name="Save changes").click()
    changed = json.loads(change.value.post_data or "")
    texts = {"lt": "1234567890123456789", "not_in": ["9007199254740993", "1"]}
    assert changed["filters"] == {"placed_at": moment, "id": texts}
    assert changed["timezone"] == "Asia/Tokyo"
    assert "timezone" not in (changed["options"] or {})
    card = page.locator("#schedule-list > li")
    expect(card.get_by_role("heading")).to_contain_text("Another")
    windowed = {"filters": {"id": numbers}, "window": "previous_period"}
    path = f"/exports/schedules/{made.json()['id']}"
    system.client.patch(path, json=windowed, headers=headers).raise_for_status()
    page.reload()
    card.get_by_role("button", name="Duplicate").click()
    expect(page.locator(".estimate")).to_contain_text("in the last period: ")  # the button stays in its place
    page.get_by_role("button", name=re.compile("^Schedule and mail")).click()
    expect(card).to_have_count(2)
    found = system.client.get("/exports/schedules", headers=headers).json()["schedules"]
    copy, original = [{name: one[name] for name in one.keys() - OF_ONE_SCHEDULE} for one in found]
    assert original["filters"] == {"id": numbers}
    assert copy == original | {"filters": {"id": texts}}
    assert copy["options"] == body["options"]
    kept = ("delay", "catch_up", "webhook", "consistency", "split")
    assert {name: copy[name] for name in kept} == {name: body[name] for name in kept}


def test_the_days_of_a_run_stay_days(visit: Visit, system: System, customer: str) -> None:
    """Whole days between two times are shown and sent as days, in the zone of the export.

    The form has no window of a schedule's run, and says so.
    """
    days = {"gte": "2025-12-31T23:00:00Z", "lt": "2026-01-31T23:00:00Z"}
    body = {
        "export_type": "orders", "format": "csv", "filters": {"placed_at": days},
        "options": {"timezone": "Europe/Berlin"},
    }  # fmt: skip
    headers = {"Authorization": f"Bearer {customer}"}
    made = system.client.post("/exports/jobs", json=body, headers=headers).raise_for_status().json()
    system.ended(made["export_job_id"])
    window = json.dumps({"from": days["gte"], "to": days["lt"], "timezone": "Europe/Berlin"})
    change = f"UPDATE export_jobs SET \"window\" = '{window}' WHERE id = '{made['export_job_id']}'"
    psql(system.stack, change, database=STATE)
    visit.sign_in(customer)
    card = visit.page.locator(f"#job-{made['export_job_id']}")
    card.get_by_role("button", name="Edit and run again").click()
    expect(visit.page.locator("#builder").get_by_role("alert")).to_contain_text(
        "not only those of 1 Jan 2026"
    )
    row = visit.page.locator(".filter")
    expect(row).to_have_count(1)
    expect(row.get_by_label("Condition")).to_have_value("between")
    expect(row.get_by_label("Value for placed_at, to, date")).to_have_value("2026-01-31")
    assert sent(visit)["filters"] == {"placed_at": {"gte": "2026-01-01", "lte": "2026-01-31"}}


def test_addresses_are_taken_as_mail_programs_write_them(visit: Visit, customer: str) -> None:
    """With the names of people. What cannot be an address is named at the field, before anything is sent."""
    visit.sign_in(customer)
    page = visit.page
    visit.choose("orders", "csv")
    page.locator("summary", has_text="Mail").click()
    field = page.get_by_label("Send a mail to these addresses")
    pasted = "Lovelace, Ada <ada@example.com>; Ben <ben@example.com>, <carl@example.com>"
    field.fill(f"{pasted}\ndora@example.com ada@example.com")
    expect(page.locator("summary", has_text="Mail")).to_have_text("Mail 4 addresses")
    field.fill("ada@example.com, ben.example.com")
    page.locator("summary", has_text="Mail").click()
    page.get_by_role("button", name="Export and mail to 2").click()
    expect(field).to_be_focused()
    assert "“ben.example.com” is not a valid e-mail address" in field.evaluate("own => own.validationMessage")
    field.fill("ada@example.com, ben@-.com")  # only the service sees that this is none
    page.get_by_role("button", name="Export and mail to 2").click()
    expect(page.locator("#builder .alert")).to_have_text("“ben@-.com” is not a valid e-mail address")
    expect(field).to_be_focused()
    visit.forgive("422")
    field.fill("Ada <ada@example.com>\nben@example.com")
    assert sent(visit, "Export and mail to 2")["recipients"] == ["ada@example.com", "ben@example.com"]


@pytest.mark.parametrize("visit", [{"locale": "de-DE"}], indirect=True)
def test_files_begin_in_the_language_and_the_locale_of_the_browser(visit: Visit, customer: str) -> None:
    """Also of a dataset without labels. Files for programs begin without a locale."""
    texts = visit.sign_in_as(customer, "de")
    page = visit.page
    page.get_by_label("Datensatz").select_option("orders")
    page.locator("summary", has_text=texts("page.options.title")).click()
    locale = page.get_by_label(texts("page.options.locale"))
    language = page.get_by_label(texts("page.options.language"))
    for kind, first in {"pdf": "de-DE", "json": "", "excel": "de-DE", "csv": "de-DE", "parquet": ""}.items():
        page.get_by_label("Format").select_option(kind)
        expect(locale).to_have_value(first)
        expect(language).to_have_value("de")
    page.get_by_label("Format").select_option("pdf")
    expect(locale.locator("option:checked")).to_have_text("Deutsch (Deutschland): 31.12.2026 · 1.234,50")
    language.select_option("en")
    page.get_by_label("Format").select_option("excel")
    expect(language).to_have_value("en")  # what was chosen stays
    expect(page.locator(".estimate")).not_to_be_empty()  # the button stays in its place
    with page.expect_response(lambda answer: answer.url.endswith("/exports/jobs")) as made:
        page.get_by_role("button", name=texts("page.form.export"), exact=True).click()
    options = json.loads(made.value.request.post_data or "")["options"]
    assert options == {"language": "en", "locale": "de-DE", "timezone": "Europe/Berlin"}
    card = page.locator(f"#job-{made.value.json()['export_job_id']}")
    expect(card.locator(".state")).to_have_text(texts("page.status.completed"))  # its buttons stay there
    card.get_by_role("button", name=texts("page.jobs.edit_and_run")).click()
    expect(language).to_have_value("en")
    expect(locale).to_have_value("de-DE")


@pytest.mark.parametrize("press", ["Export", "Schedule"])
def test_nothing_of_an_export_slips_into_the_next(visit: Visit, customer: str, press: str) -> None:
    """people A2: addresses, filters, columns, options, files, repetition are gone after each export."""
    visit.sign_in(customer)
    page = visit.page
    visit.choose("orders", "csv")
    plain = {"export_type": "orders", "format": "csv", "options": {"bom": True, "timezone": "Europe/Berlin"}}
    expect(page.locator("summary", has_text="Mail")).to_have_text("Mail none")
    page.locator("summary", has_text="Mail").click()
    page.get_by_label("Send a mail to these addresses").fill("boss@example.com\nada@example.com")
    page.locator("summary", has_text="Mail").click()
    expect(page.locator("summary", has_text="Mail")).to_have_text("Mail 2 addresses")
    page.locator("summary", has_text="Options").click()
    page.get_by_label("Separator of columns").select_option(label="Tab")
    page.get_by_label("Text for missing values").fill("NULL")
    page.locator("summary", has_text="Options").click()
    expect(page.locator("summary", has_text="Options")).to_contain_text("Separator: Tab")
    expect(page.locator("summary", has_text="Options")).to_contain_text("Text for missing values: NULL")
    page.locator("summary", has_text="Columns").click()
    page.get_by_role("checkbox", name="items").uncheck()
    page.locator("summary", has_text="Files").click()
    page.get_by_label("Divide into").select_option(label="A number of rows in each")
    page.get_by_label("Rows in each file").fill("300")
    page.get_by_label("Time zone of days and times").select_option("Asia/Tokyo")
    between(visit, "2026-01-05", "2026-01-11")
    if press == "Schedule":
        page.get_by_label("Repeat").select_option(label="Every day")
        expect(page.get_by_text("Of filters and of times in the file, too")).to_be_hidden()
        expect(page.get_by_text("Of days in filters, too")).to_be_hidden()
    visit.shot(f"form-full-{press}", full_page=True)
    full = sent(visit, f"{press} and mail to 2")
    assert full["recipients" if press == "Export" else "email_recipients"] == [
        "boss@example.com",
        "ada@example.com",
    ]
    assert full["options"] == {"delimiter": "\t", "null": "NULL", "bom": True, "timezone": "Asia/Tokyo"}
    assert {"columns", "split", "filters"} <= full.keys()
    expect(page.get_by_role("button", name="Export", exact=True)).to_be_visible()
    assert sent(visit) == plain
    page.get_by_label("Dataset").select_option("ledger")
    assert sent(visit) == {**plain, "export_type": "ledger"}


def test_datasets_that_cannot_be_exported_are_last(visit: Visit, anybody: str) -> None:
    """people A6: the page opens on a dataset that works."""
    page = visit.page

    def broken_first(route: Any) -> None:
        answer = route.fetch()
        document = answer.json()
        document["datasets"].sort(key=lambda dataset: dataset["error"] is None)
        route.fulfill(response=answer, json=document)

    page.route("**/exports/datasets", broken_first)
    visit.sign_in(anybody)
    options = page.get_by_label("Dataset").locator("option")
    expect(options.last).to_have_text("gone (not available)")
    expect(options.last).to_be_disabled()
    assert page.get_by_label("Dataset").input_value() != "gone"
    expect(page.locator(".hint.wrong")).to_have_count(0)


def test_what_cannot_work_is_not_sent(visit: Visit, anybody: str) -> None:
    """people B20: an export that is certain to fail has no request; an empty one is announced."""
    visit.sign_in(anybody)
    page = visit.page
    visit.choose("orders", "pdf")

    def too_many(route: Any) -> None:
        answer = {"rows": 100_001, "bytes": None, "exact": False, "at_least": True, "row_limit": 100_000}
        route.fulfill(json=answer | {"fits": False, "reason": "A pdf file can have at most 100,000 rows"})

    page.route("**/exports/jobs:estimate", too_many)
    visit.filter("paid", "is")
    button = page.get_by_role("button", name="Export", exact=True)
    expect(button).to_have_attribute("aria-disabled", "true")
    button.click(force=True)
    expect(page.locator("#builder").get_by_role("alert")).to_contain_text("at most 100,000 rows")
    expect(page.get_by_text("No exports yet.")).to_be_visible()
    page.unroute("**/exports/jobs:estimate")
    visit.choose("orders", "csv")
    visit.filter("id", "below").get_by_label("Value for id").fill("0")
    expect(page.locator(".estimate")).to_contain_text("No row matches, so the file would be empty")
    expect(button).not_to_have_attribute("aria-disabled", "true")


def test_warnings_of_a_file_are_on_its_card(visit: Visit, system: System, anybody: str) -> None:
    """people A3: also of a file that is one of several."""
    psql(system.stack, MARKUP.format("=1+1"))
    try:
        visit.sign_in(anybody)
        visit.choose("markup", "csv")
        card = visit.export()
        said = "10 texts begin like a formula and got an apostrophe in front"
        expect(card.get_by_label("Warnings about the file")).to_have_text(said)
        visit.choose("markup", "csv")
        visit.page.locator("summary", has_text="Files").click()
        visit.page.get_by_label("Divide into").select_option(label="A number of rows in each")
        visit.page.get_by_label("Rows in each file").fill("4")
        expect(visit.export().get_by_label("Warnings about the file")).to_have_text(said)
        visit.page.emulate_media(color_scheme="dark")
        visit.shot("warnings-dark")
    finally:
        psql(system.stack, MARKUP.format("<i>a</i>"))


def test_again_keeps_whose_rows_it_was(visit: Visit, system: System, settings: Settings) -> None:
    """people A8: an admin's "Again" on the export of another user says whose rows it will have."""
    user = "customer-3"
    order = {"export_type": "orders", "format": "ndjson", "filters": {"id": {"lt": 100}}}
    headers = {"Authorization": f"Bearer {sign_token(settings, user)}"}
    job = system.client.post("/exports/jobs", json=order, headers=headers).raise_for_status().json()
    ended = system.ended(job["export_job_id"])
    visit.sign_in(sign_token(settings, f"admin-{uuid4().hex[:6]}", ["exports:admin"]))
    card = visit.page.locator(f"#job-{job['export_job_id']}")
    expect(card).to_contain_text(f"for {user}")
    card.get_by_role("button", name="Edit and run again").click()
    expect(visit.page.locator("#builder").get_by_role("alert")).to_contain_text(
        "This will export the rows of customer-3, by the filter on customer_id. The export is yours"
    )
    with visit.page.expect_response(lambda answer: answer.url.endswith("/exports/jobs")) as answer:
        visit.page.get_by_role("button", name="Export", exact=True).click()
    again = system.ended(answer.value.json()["export_job_id"])
    assert system.file(again["export_job_id"]) == system.file(ended["export_job_id"])


def test_an_admin_sees_whose_schedules_they_are(visit: Visit, system: System, settings: Settings) -> None:
    """people A8."""
    owner = f"owner-{uuid4().hex[:6]}"
    order = {"export_type": "orders", "format": "csv", "schedule": "daily", "time_of_day": "06:00"}
    headers = {"Authorization": f"Bearer {sign_token(settings, owner)}"}
    system.client.post("/exports/schedules", json=order, headers=headers).raise_for_status()
    visit.sign_in(sign_token(settings, f"admin-{uuid4().hex[:6]}", ["exports:admin"]))
    expect(visit.page.locator("#schedule-list > li").filter(has_text=f"for {owner}")).to_have_count(1)
