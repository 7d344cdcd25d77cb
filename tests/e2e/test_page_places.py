"""The buttons of an export stay in their places, whatever becomes of it, so that a click hits its button."""

import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from playwright.sync_api import Locator, Route, expect

from producers.tokens import sign_token
from stream_app.messages.catalogue import text
from stream_app.settings import Settings
from tests.e2e.browser import Visit
from tests.e2e.conftest import System
from tests.waiting import until

pytestmark = pytest.mark.browser

PLACES = """(card) => {
  const whole = card.getBoundingClientRect();
  return [...card.querySelectorAll("button")]
    .filter((button) => button.checkVisibility({ visibilityProperty: true }))
    .map((button) => [button.textContent, button.getBoundingClientRect()])
    .map(([name, own]) => [name, [own.left - whole.left, own.top - whole.top, own.right - whole.left,
                                  own.bottom - whole.top]]);
}"""
"""Returns the texts and the places of all buttons at one moment, because the page can be scrolling."""

Job = dict[str, Any]
Place = tuple[float, float, float, float]
"""Left, top, right and bottom of a button on its card, in pixels."""

PHONE = {"has_touch": True, "is_mobile": True}
VIEWS = [
    pytest.param({}, id="desktop"),
    pytest.param({"locale": "de-DE"}, id="desktop-german"),
    pytest.param({"viewport": {"width": 360, "height": 780}, "locale": "de-DE", **PHONE}, id="phone-german"),
    pytest.param({"viewport": {"width": 320, "height": 640}, **PHONE}, id="small-phone"),
]

PENDING: Job = {"status": "pending"}
STARTING: Job = {"status": "processing", "attempt": 1}
RUNNING: Job = {"status": "processing", "attempt": 1, "row_count": 700, "estimated_rows": 1_000}
RETRIED: Job = {"status": "pending", "attempt": 1}
AGAIN: Job = {"status": "processing", "attempt": 2, "row_count": 300_000, "estimated_rows": 1_000_000}
STOPPING: Job = {"status": "processing", "attempt": 1, "row_count": 800, "cancel_requested": True}
READY: Job = {
    "status": "completed", "attempt": 1, "row_count": 1_000, "file_size": 40_000_000, "file_count": 1,
    "file_name": "orders-2026-11-27.csv", "download_url": "/exports/jobs/x/download",
    "files_url": "/exports/jobs/x/files", "warnings": {"cut_cells": 3, "long_numbers": 2},
}  # fmt: skip
GONE: Job = {"status": "expired", "download_url": None, "files_url": None}
ERROR = {"code": "source_unavailable", "message": "The database cannot be reached. " * 6}
SEVERAL: Job = {"file_count": 3, "file_name": "manifest.json", "download_url": None}

LIVES: dict[str, list[Job]] = {
    "a file that is removed": [PENDING, STARTING, RUNNING, READY, READY | GONE | {"cancel_requested": True}],
    "files that expire": [PENDING, RUNNING, RETRIED, AGAIN, READY | SEVERAL | {"attempt": 2},
                          READY | GONE | {"attempt": 2}],
    "an archive with a password": [PENDING, RUNNING, READY | {"encrypt": {"zip_password": True}},
                                   READY | GONE | {"encrypt": {"zip_password": True}}],
    "a failure": [STARTING, RUNNING, {"status": "failed", "attempt": 1, "error": ERROR}],
    "a cancellation": [PENDING, RUNNING, STOPPING, {"status": "cancelled", "attempt": 1}],
    "a cancellation that was late": [RUNNING, STOPPING, READY],
    "a run of a schedule": [PENDING, RUNNING, READY | {"destination": "archive"}],
}  # fmt: skip
"""What happens to an export, state by state."""


@dataclass
class Card:
    """The newest export of the page, whose states come from the test."""

    visit: Visit
    base: Job
    texts: Any
    job: Job = field(default_factory=dict)

    def begin(self, number: int, more: Job) -> Locator:
        """Make a new export, and return its card."""
        at = (datetime.now(UTC) + timedelta(seconds=number)).isoformat()
        self.job = self.base | {"export_job_id": str(uuid4()), "created_at": at} | more
        return self.visit.page.locator(f"#job-{self.job['export_job_id']}")

    def answer(self, route: Route) -> None:
        route.fulfill(json={"jobs": [self.job] if self.job else [], "next_cursor": None})

    def become(self, card: Locator, state: Job) -> None:
        """Show the export in another state. The clock of the page goes on until it has asked for it."""
        self.job |= state
        key = f"page.status.{self.job['status']}"
        if self.job["cancel_requested"]:
            key = {"processing": "page.jobs.cancelling", "expired": "page.status.removed"}.get(
                self.job["status"], key
            )
        shown = card.locator(".state")
        said = card.locator(".facts")
        before = said.text_content() if said.count() else None

        def is_shown() -> bool:
            self.visit.page.clock.run_for(1_500)
            return (
                shown.count() == 1
                and shown.text_content() == self.texts(key)
                and (said.text_content() != before or self.job["cancel_requested"])
            )

        until(is_shown)

    def places(self, card: Locator) -> dict[str, Place]:
        """Return the places of the buttons that can be seen, by their texts."""
        found = card.evaluate(PLACES)
        return {name: tuple(place) for name, place in found}


def overlap(one: Place, other: Place) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def note(known: dict[str, Place], now: dict[str, Place], state: str) -> None:
    """Check the places of now against those of all earlier states, and add them."""
    for name, place in now.items():
        assert known.setdefault(name, place) == pytest.approx(place, abs=0.5), f"{name} has moved: {state}"
        taken = [other for other in known if other != name and overlap(known[other], place)]
        assert not taken, f"{name} is where {taken} was or is: {state}"


@pytest.fixture
def card(visit: Visit, system: System, settings: Settings) -> Card:
    """A page that shows one export of the test, and asks for its state."""
    user = f"user-{uuid4().hex[:8]}"
    token = sign_token(settings, user, ["exports:all"])
    order = {"export_type": "orders", "format": "csv", "scope": "all", "filters": {"paid": True}}
    asked = system.client.post(
        "/exports/jobs", json=order, headers={"Authorization": f"Bearer {token}", "Prefer": "wait=30"}
    )
    made = asked.raise_for_status().json()
    blank = dict.fromkeys(("row_count", "estimated_rows", "file_size", "file_count", "file_name", "sha256",
                           "completed_at", "download_url", "files_url", "error"))  # fmt: skip
    base = made | blank | {"status": "pending", "attempt": 0, "warnings": {}, "cancel_requested": False}
    language = "de" if visit.page.evaluate("navigator.language").startswith("de") else "en"
    opened = Card(visit, base, lambda key: text(language, key))
    page = visit.page
    page.clock.install(time=time.time())
    page.route("**/exports/events", lambda route: route.fulfill(status=404, json={"detail": ""}))
    page.route("**/exports/jobs?*", opened.answer)
    page.route("**/exports/jobs/*-*", lambda route: route.fulfill(json=opened.job))
    page.route("**/deliveries", lambda route: route.fulfill(json={"deliveries": []}))
    page.route("**:password", lambda route: route.fulfill(json={"password": "a b c d"}))
    visit.sign_in_as(token, language)
    visit.forgiven.append("status of 404")
    return opened


@pytest.mark.parametrize("visit", VIEWS, indirect=True)
def test_the_buttons_of_an_export_stay_in_their_places(card: Card) -> None:
    """What two states have is where it was, and none comes to the place of another. The focus stays."""
    texts = card.texts
    lasting = {texts(f"page.jobs.{name}") for name in ("edit_and_run", "copy_link")}
    for number, (life, states) in enumerate(LIVES.items()):
        schedule = {"schedule_id": str(uuid4())} if life == "a run of a schedule" else {}
        shown = card.begin(number, schedule)
        known: dict[str, Place] = {}
        for state in states:
            card.become(shown, state)
            if state is states[0]:
                shown.get_by_role("button", name=texts("page.jobs.copy_link")).focus()
            where = f"{life}, {json.dumps(state)}"
            note(known, card.places(shown), where)
            expect(shown.get_by_role("button", name=texts("page.jobs.copy_link"))).to_be_focused()
            if "encrypt" in state and state["status"] == "completed":
                shown.get_by_role("button", name=texts("page.encryption.show_password")).click()
                expect(shown.get_by_text("a b c d")).to_be_focused()
                note(known, card.places(shown), f"{where}, with its password")
                shown.get_by_role("button", name=texts("page.jobs.copy_link")).focus()
        assert lasting < known.keys()


@pytest.mark.parametrize("state", [READY, STOPPING, {"status": "failed", "attempt": 1, "error": ERROR}])
def test_the_focus_of_a_button_that_goes_moves_to_one_that_does_nothing_by_itself(
    card: Card, state: Job
) -> None:
    """A key that was meant for "Cancel" starts no download and no export."""
    shown = card.begin(0, {})
    card.become(shown, RUNNING)
    shown.get_by_role("button", name="Cancel").focus()
    card.become(shown, state)
    expect(shown.get_by_role("button", name="Cancel")).to_be_hidden()
    expect(shown.get_by_role("button", name="Edit and run again")).to_be_focused()
