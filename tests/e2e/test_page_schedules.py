"""Names, schedules that are changed, the runs of schedules, and the search of exports, in a real browser."""

import csv
import io
import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from playwright.sync_api import Locator, Route, expect

from tests.e2e.browser import Visit, confirm
from tests.e2e.conftest import System
from tests.e2e.tables import psql

pytestmark = pytest.mark.browser


def pictures(visit: Visit, name: str) -> None:
    """Take pictures of the page in light, in dark and on a phone, where nothing is too wide."""
    page = visit.page
    visit.shot(f"a-{name}", full_page=True)
    page.emulate_media(color_scheme="dark")
    visit.shot(f"a-{name}-dark", full_page=True)
    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": 390, "height": 844})
    visit.assert_fits()
    visit.shot(f"a-{name}-phone", full_page=True)
    page.set_viewport_size({"width": 1280, "height": 900})


def schedules(system: System, token: str) -> list[dict[str, Any]]:
    answer = system.client.get("/exports/schedules", headers={"Authorization": f"Bearer {token}"})
    found: list[dict[str, Any]] = answer.json()["schedules"]
    return found


def test_a_schedule_is_named_changed_copied_and_its_runs_have_files(
    visit: Visit, system: System, customer: str, tmp_path: Path
) -> None:
    """Entries 12, 13 and 14."""
    visit.sign_in(customer)
    page = visit.page
    visit.choose("orders", "csv")
    page.get_by_label("Name", exact=True).fill("Orders of the week")
    page.get_by_label("Repeat").select_option(label="Every week")
    page.get_by_label("Which rows").select_option(label="Rows of the previous week")
    expect(page.locator(".estimate")).to_contain_text("in the last period: ")
    expect(page.locator(".estimate")).to_contain_text("0 rows")
    pictures(visit, "estimate")
    page.get_by_role("button", name="Schedule", exact=True).click()
    card = page.locator("#schedule-list > li").first
    expect(card).to_be_focused()
    expect(card.get_by_role("heading")).to_have_text("Orders of the week orders · CSV")

    card.get_by_role("button", name="Edit").click()
    editing = page.locator(".editing")
    expect(editing).to_contain_text("You are changing the schedule “Orders of the week”")
    expect(page.get_by_label("Dataset", exact=True)).to_be_disabled()
    expect(page.get_by_label("Name", exact=True)).to_have_value("Orders of the week")
    page.get_by_label("Name", exact=True).fill("All orders")
    page.get_by_label("Repeat").select_option(label="By a cron expression")
    page.get_by_label("Cron expression").fill("0 6 * *")
    page.get_by_role("button", name="Save changes").click()
    expect(page.get_by_label("Cron expression")).to_be_focused()
    page.get_by_label("Cron expression").fill("0 6 * * MON-FRI")
    page.get_by_label("Which rows").select_option(label="All rows, in each run")
    visit.filter("paid", "is").get_by_label("Value for paid").select_option(label="true")
    expect(page.locator(".estimate")).not_to_contain_text("last period")
    pictures(visit, "editing")
    page.get_by_role("button", name="Save changes").click()
    expect(card.get_by_role("heading")).to_have_text("All orders orders · CSV")
    expect(card).to_contain_text("Custom schedule (cron 0 6 * * MON-FRI, Europe/Berlin)")
    expect(editing).to_be_hidden()
    [stored] = schedules(system, customer)
    assert (stored["name"], stored["window"], stored["filters"]) == (
        "All orders",
        "none",
        {"paid": {"eq": True}},
    )

    card.get_by_role("button", name="Duplicate").click()
    expect(page.get_by_label("Name", exact=True)).to_have_value("All orders (copy)")
    expect(page.get_by_label("Cron expression")).to_have_value("0 6 * * MON-FRI")
    page.get_by_role("button", name="Schedule", exact=True).click()
    expect(page.locator("#schedule-list > li")).to_have_count(2)
    copy, original = schedules(system, customer)
    same = ("schedule", "timezone", "filters", "format", "window", "options", "scope")
    assert {name: copy[name] for name in same} == {name: original[name] for name in same}

    card = page.locator("#schedule-list > li").last
    card.get_by_role("button", name="Run now").click()
    job = page.locator("#job-list > li").first
    expect(job.locator(".state")).to_have_text("Ready")
    expect(job.get_by_role("heading")).to_have_text("All orders orders · CSV")
    expect(job.locator(".facts")).to_contain_text(".csv · ")
    job.get_by_role("button", name="Made by a schedule").click()
    expect(card).to_be_focused()
    card.get_by_text("Past runs").click()
    entry = card.locator(".history li").first
    expect(entry).to_contain_text(": Ready · ")
    with page.expect_download() as download:
        entry.get_by_role("button", name="Download the file of").click()
    path = tmp_path / "orders.csv"
    download.value.save_as(path)
    paid = psql(
        system.stack,
        "COPY (SELECT id FROM shop.orders WHERE paid AND customer_id = 'customer-1' ORDER BY placed_at, id) "
        "TO STDOUT",
    )
    rows = csv.reader(io.StringIO(path.read_text("utf-8-sig"), newline=""))
    assert [row[0] for row in rows] == ["id", *paid.split()]
    pictures(visit, "runs")
    entry.get_by_role("button", name="Show the export of").click()
    expect(job).to_be_focused()

    job.get_by_role("button", name=re.compile("^Run again")).click()
    expect(page.locator("#job-list > li")).to_have_count(2)
    expect(page.locator("#job-list > li").first.locator(".state")).to_have_text("Ready")


def found(visit: Visit) -> Locator:
    return visit.page.locator("#job-list h3")


def test_exports_are_found_by_words_status_and_dataset(visit: Visit, system: System, anybody: str) -> None:
    """Entries 24 and 28."""
    headers = {"Authorization": f"Bearer {anybody}"}
    days = {"gte": "2026-01-15T23:00:00Z", "lt": "2026-01-22T23:00:00Z"}
    berlin = {"timezone": "Europe/Berlin"}
    for more in (
        {"name": "October", "filters": {"placed_at": days}, "options": berlin},
        {"name": "Empty", "filters": {"id": -1, "placed_at": {"gte": "now-7d"}}},
        {"export_type": "markup"},
    ):
        body = {"export_type": "orders", "format": "csv", "scope": "all", **more}
        system.client.post("/exports/jobs", json=body, headers=headers).raise_for_status()
    visit.sign_in(anybody)
    page = visit.page
    expect(found(visit)).to_have_count(3)
    expect(page.locator("#job-list .state")).to_have_text(["Ready"] * 3)
    page.get_by_role("searchbox", name="Search exports").fill("octo")
    expect(found(visit)).to_have_text(["October orders · CSV"])
    card = page.locator("#job-list > li").first
    expect(card).to_contain_text("placed_at: 16 Jan 2026 to 22 Jan 2026 (Europe/Berlin)")
    page.get_by_role("searchbox").fill("nothing like it")
    expect(page.get_by_text("No export matches.")).to_be_visible()
    pictures(visit, "nothing-found")
    page.get_by_role("button", name="Show all").click()
    expect(found(visit)).to_have_count(3)
    empty = page.locator("#job-list > li", has=page.get_by_role("heading", name="Empty"))
    expect(empty).to_contain_text("No row matched, so the file is empty")
    expect(empty).to_contain_text("placed_at: the last 7 days")
    page.get_by_label("Only exports of").select_option("markup")
    expect(found(visit)).to_have_text(["markup CSV"])
    page.get_by_label("Only with the status").select_option("failed")
    expect(found(visit)).to_have_count(0)
    page.get_by_role("button", name="Show all").click()
    confirm(empty, "Remove", "Remove the file?")
    expect(empty.locator(".state")).to_have_text("Removed")
    pictures(visit, "list")
    page.get_by_role("link", name="To the schedules").click()
    expect(page.locator("#schedules")).to_be_in_viewport()


def test_a_text_filter_needs_a_text(visit: Visit, customer: str) -> None:
    """Entry 26: "is" without a text would find nothing; the message is that of the page."""
    visit.sign_in(customer)
    visit.choose("orders", "csv")
    value = visit.filter("note", "is").get_by_label("Value for note")
    visit.page.get_by_role("button", name="Export", exact=True).click()
    expect(value).to_be_focused()
    assert value.evaluate("own => own.validationMessage") == "Fill in this field"
    value.fill("x")
    expect(visit.page.locator(".estimate")).to_contain_text("No row matches, so the file would be empty")
    pictures(visit, "no-rows")


def schedule(system: System, token: str, **values: Any) -> str:
    """Make a schedule, and return its id."""
    body = {"export_type": "orders", "format": "csv", "schedule": "daily", "time_of_day": "06:30", **values}
    answer = system.client.post("/exports/schedules", json=body, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def test_a_time_zone_that_the_browser_does_not_know_hides_no_schedule(
    visit: Visit, system: System, anybody: str
) -> None:
    """An old browser lacks zones that are new."""
    schedule(system, anybody, name="In Berlin", timezone="Europe/Berlin")
    unknown = schedule(system, anybody, name="New", timezone="Asia/Kolkata", window="previous_period")
    page = visit.page

    def rename(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, body=answer.text().replace("Asia/Kolkata", "Asia/Newland"))

    page.route(re.compile(r"/exports/schedules(/.*/runs)?\?"), rename)
    visit.sign_in(anybody)
    card = page.locator(f"#schedule-{unknown}")
    expect(page.locator("#schedule-list > li")).to_have_count(2)
    expect(card.locator(".runs li").first).to_contain_text(re.compile(r"01:00 \(UTC\)"))
    expect(card).to_contain_text("06:30 (Asia/Newland)")
    expect(page.locator("#schedules-problem")).to_be_empty()
    headers = {"Authorization": f"Bearer {anybody}"}
    assert system.client.post(f"/exports/schedules/{unknown}:run", headers=headers).status_code == 202
    card.get_by_text("Past runs").click()
    expect(card.locator(".history li").first).to_contain_text(re.compile(r"\(UTC\): .* to .* \(UTC\)"))
    confirm(card, "Delete", "Delete the schedule?")
    expect(page.locator("#schedule-list > li")).to_have_count(1)


def test_a_card_says_which_day_of_the_month_it_is(visit: Visit, system: System, anybody: str) -> None:
    made = {day: schedule(system, anybody, schedule="monthly", day=day) for day in (28, 30, 31)}
    visit.sign_in(anybody)
    for day, words in {
        28: "On day 28 of every month at 06:30 (UTC)",
        30: "On day 30 of every month, in shorter months on the last day, at 06:30 (UTC)",
        31: "On the last day of every month at 06:30 (UTC)",
    }.items():
        expect(visit.page.locator(f"#schedule-{made[day]}")).to_contain_text(words)


def test_a_schedule_that_the_page_cannot_show_hides_no_other_one(
    visit: Visit, system: System, anybody: str
) -> None:
    shown = schedule(system, anybody, name="Shown")
    hidden = schedule(system, anybody, name="From another version")
    page = visit.page

    def change(route: Route) -> None:
        answer = route.fetch()
        found = answer.json()
        for item in found["schedules"]:
            if item["id"] == hidden:
                item["next_runs"] = ["no time"]
        route.fulfill(response=answer, json=found)

    page.route("**/exports/schedules?*", change)
    visit.sign_in(anybody)
    expect(page.locator(f"#schedule-{shown}")).to_be_visible()
    expect(page.locator("#schedules-problem")).not_to_be_empty()


def test_a_schedule_that_the_page_cannot_show_does_not_hide_older_ones(
    visit: Visit, system: System, anybody: str
) -> None:
    made = schedule(system, anybody)
    (one,) = schedules(system, anybody)
    assert one["id"] == made
    many = [one | {"id": str(uuid4())} for _ in range(30)]
    for item in (many[3], many[25]):
        item["next_runs"] = ["no time"]

    def answer(route: Route) -> None:
        first = "cursor=" not in route.request.url
        found = many[:20] if first else many[20:]
        route.fulfill(json={"schedules": found, "next_cursor": "next" if first else None})

    page = visit.page
    page.route("**/exports/schedules?*", answer)
    visit.sign_in(anybody)
    shown = page.locator("#schedule-list > li")
    expect(shown).to_have_count(19)
    expect(page.locator("#schedules-problem")).not_to_be_empty()
    older = page.locator("#older-schedules")
    older.focus()
    older.press("Enter")
    expect(shown).to_have_count(28)
    expect(older).to_be_hidden()
    expect(page.locator(f"#schedule-{many[20]['id']}")).to_be_focused()
