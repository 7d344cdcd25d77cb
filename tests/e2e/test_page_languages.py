"""The page is in the language of the browser, or in the one that the user chooses."""

import re
from typing import Any

import pytest
from playwright.sync_api import Route, expect

from tests.e2e.browser import Visit
from tests.e2e.conftest import System

pytestmark = pytest.mark.browser

ENGLISH = r"\b(rows|ready|download|columns|files|schedules?|usual|none|every|yes|no)\b"


@pytest.mark.parametrize("visit", [{"locale": "de-DE"}], indirect=True)
def test_the_page_is_in_german(visit: Visit, customer: str) -> None:
    """With its numbers and dates; no English text and no key is left. The choice of English is remembered."""
    texts = visit.sign_in_as(customer, "de")
    page = visit.page
    page.get_by_label("Datensatz").select_option("shop_orders")
    page.get_by_label("Format").select_option("excel")
    expect(page.locator(".estimate")).to_contain_text(re.compile(r"72 Zeilen, \d+(,\d)? kB"))
    page.get_by_role("button", name=texts("page.filters.add")).click()
    for part in page.locator("#builder details").all():
        part.locator("summary").click()
    page.get_by_label(texts("page.repeat.title")).select_option("weekly")
    expect(page.get_by_label(texts("page.repeat.weekday"), exact=True).locator("option").first).to_have_text(
        "Montag"
    )
    shown = page.locator("body").inner_text()
    page.get_by_label(texts("page.repeat.title")).select_option("")
    page.locator("#builder .drop").click()
    page.get_by_role("button", name=texts("page.form.export"), exact=True).click()
    card = page.locator("#job-list > li").first
    expect(card.locator(".state")).to_have_text("Fertig")
    expect(card).to_contain_text("heute, ")
    expect(card).to_contain_text("72 Zeilen")
    shown += card.inner_text()
    assert "page." not in shown
    assert not re.findall(ENGLISH, shown, flags=re.IGNORECASE)
    page.get_by_label("Sprache", exact=True).select_option("en")
    expect(page.locator("html")).to_have_attribute("lang", "en")
    expect(page.get_by_role("heading", name="New export")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="New export")).to_be_visible()
    expect(page.locator("#language")).to_have_value("en")


@pytest.mark.parametrize("visit", [{"locale": "de-DE"}], indirect=True)
@pytest.mark.parametrize(
    ("paused", "shown"),
    [
        (
            {"paused_code": "repeated_failures", "failures": 3, "paused_reason": "paused after 3 failures"},
            "Nach 3 Fehlschlägen in Folge pausiert. Die Gründe stehen bei den früheren Läufen",
        ),
        (
            {"paused_code": "unknown_dataset", "failures": 0, "paused_reason": "there is no dataset 'gone'"},
            "Diesen Datensatz gibt es nicht, oder Sie dürfen ihn nicht exportieren: gone",
        ),
        (
            {"paused_code": None, "failures": 0, "paused_reason": "a reason of a version before the codes"},
            "A reason of a version before the codes",
        ),
        (
            {"active": True, "failures": 2, "paused_code": None, "paused_reason": None},
            "Die letzten 2 Läufe sind fehlgeschlagen. Die Gründe stehen bei den früheren Läufen",
        ),
    ],
)
def test_why_a_schedule_is_paused_is_in_the_language_of_the_page(
    visit: Visit, system: System, customer: str, paused: dict[str, Any], shown: str
) -> None:
    """A schedule that has failed and goes on says so, too."""
    headers = {"Authorization": f"Bearer {customer}"}
    body = {"export_type": "orders", "format": "csv", "schedule": "daily", "time_of_day": "06:00"}
    made = system.client.post("/exports/schedules", json=body, headers=headers).raise_for_status().json()

    def with_pause(route: Route) -> None:
        answer = route.fetch()
        found = answer.json()
        for schedule in found["schedules"]:
            if schedule["id"] == made["id"]:
                assert {"paused_code", "paused_reason", "failures"} <= schedule.keys()
                schedule |= {"active": False, "next_runs": [], **paused}
        route.fulfill(response=answer, json=found)

    visit.page.route("**/exports/schedules?*", with_pause)
    visit.sign_in_as(customer, "de")
    expect(visit.page.locator(f"#schedule-{made['id']} .error")).to_have_text(shown)
    system.client.delete(f"/exports/schedules/{made['id']}", headers=headers).raise_for_status()


@pytest.mark.parametrize("visit", [{"locale": "de-DE"}], indirect=True)
def test_why_an_export_is_too_large_is_in_the_language_of_the_page(visit: Visit, anybody: str) -> None:
    visit.sign_in_as(anybody, "de")
    page = visit.page
    page.get_by_label("Datensatz").select_option("million")
    page.get_by_label("Format").select_option("pdf")
    expect(page.locator(".estimate")).to_contain_text(
        "Höchstens 100.000 Zeilen sind möglich. Setzen Sie Filter"
    )
