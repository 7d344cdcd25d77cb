"""The page sends files to destinations, says how far they are, and tests destinations for operators."""

import json
import re
from uuid import uuid4

import pytest
from playwright.sync_api import expect

from dev.postgres import STATE
from producers.tokens import sign_token
from stream_app.settings import Settings
from tests.e2e.accessibility import (
    assert_accessible,
    assert_buttons_have_different_names,
    assert_controls_are_large,
)
from tests.e2e.browser import Visit
from tests.e2e.conftest import System
from tests.e2e.tables import psql
from tests.e2e.test_page_form import sent

pytestmark = pytest.mark.browser


@pytest.fixture
def partner(settings: Settings) -> str:
    """A token of a new user who can use the destinations."""
    return sign_token(settings, f"user-{uuid4().hex[:8]}", ["partner"])


def test_users_without_destinations_do_not_load_the_module(visit: Visit, customer: str) -> None:
    asked: list[str] = []
    visit.page.on("request", lambda request: asked.append(request.url))
    visit.sign_in(customer)
    expect(visit.page.get_by_label("Send to")).to_have_count(0)
    assert not [url for url in asked if "destination" in url]


@pytest.mark.slow
def test_an_export_is_sent_and_its_card_says_how_far(visit: Visit, system: System, partner: str) -> None:
    visit.sign_in(partner)
    page = visit.page
    visit.choose("ledger", "csv")
    field = page.get_by_label("Send to")
    expect(field).to_be_hidden()
    visit.choose("orders", "csv")
    field.select_option(label="Archive")
    with page.expect_download():
        assert sent(visit)["destination"] == "archive"
    expect(field).to_have_value("")
    card = visit.newest()
    expect(card).to_contain_text(re.compile(r"Sent to Archive: sent/orders/\S+\.csv"))
    card.get_by_role("button", name=re.compile("^Edit and run again")).click()
    expect(field).to_have_value("archive")
    field.select_option(label="Closed server")
    with page.expect_download():
        assert sent(visit)["destination"] == "closed"
    waiting = visit.newest()
    expect(waiting).to_contain_text("Waits to be sent to Closed server")
    expect(waiting).to_contain_text("The destination cannot be reached. It is tried again by itself")
    job = (waiting.get_attribute("id") or "").removeprefix("job-")
    failing = f"UPDATE deliveries SET status = 'failed', finished_at = now() WHERE job_id = '{job}'"
    psql(system.stack, failing, database=STATE)
    expect(waiting).to_contain_text("Could not be sent to Closed server")
    expect(waiting).to_contain_text("Ask the operators of the service to send it again")
    assert_accessible(page)
    assert_buttons_have_different_names(page)
    page.set_viewport_size({"width": 360, "height": 740})
    visit.assert_fits()


def test_a_schedule_names_its_destination_and_keeps_it(visit: Visit, partner: str) -> None:
    visit.sign_in(partner)
    page = visit.page
    visit.choose("orders", "csv")
    page.get_by_label("Send to").select_option(label="Archive")
    page.get_by_label("Repeat").select_option(label="Every day")
    assert sent(visit, "Schedule")["destination"] == "archive"
    card = page.locator("#schedule-list > li")
    expect(card).to_contain_text("sent to Archive")
    card.get_by_role("button", name=re.compile("^Duplicate")).click()
    expect(page.get_by_label("Send to")).to_have_value("archive")
    card.get_by_role("button", name=re.compile("^Edit")).click()
    expect(page.get_by_label("Send to")).to_have_value("archive")
    page.get_by_label("Send to").select_option(label="No destination")
    with page.expect_request(lambda request: request.method == "PATCH") as request:
        page.get_by_role("button", name="Save changes").click()
    assert json.loads(request.value.post_data or "")["destination"] is None
    expect(card).not_to_contain_text("sent to Archive")


PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


@pytest.mark.slow
@pytest.mark.parametrize("visit", [PHONE], indirect=True)
def test_operators_test_a_destination(visit: Visit, settings: Settings) -> None:
    visit.sign_in(sign_token(settings, f"operator-{uuid4().hex[:6]}", ["exports:operate"]))
    page = visit.page
    page.get_by_role("link", name="Operation", exact=True).press("Enter")
    page.locator("summary", has_text="Destinations").click()
    results = page.get_by_role("list", name="Destinations")
    works = results.get_by_role("listitem").filter(has=page.get_by_role("heading", name="Archive archive"))
    works.get_by_role("button", name="Test Archive archive").click()
    expect(works.get_by_role("status")).to_have_text("The destination works.")
    steps = works.get_by_role("list", name="Steps of the test").get_by_role("listitem")
    expect(steps).to_have_text(["Sign in: done", "Write: done", "Read: done", "Remove: done"])
    fails = results.locator("li.job").filter(has_text="Closed server")
    fails.get_by_role("button", name="Test Closed server closed").click()
    expect(fails.get_by_role("status")).to_contain_text("does not work")
    expect(fails).to_contain_text("Write: the destination cannot be reached")
    assert_accessible(page)
    assert_controls_are_large(page)
    visit.assert_fits()
