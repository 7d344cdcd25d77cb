"""What the page says while the service does not answer (people, 1 C 25)."""

import os
import signal
import time
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from tests.e2e.browser import Visit
from tests.e2e.conftest import System

pytestmark = pytest.mark.browser


FRESH = 2.0
"""Seconds since the last event of the stream. It counts as ended 12 s after it, and one comes every 5 s."""


def received_parts(page: Page) -> list[float]:
    """Return the list to which the times of a stream's beginning and of each of its parts are added."""
    times: list[float] = []
    streams: set[str] = set()

    def begins(event: Any) -> None:
        if event["response"]["url"].endswith("/exports/events"):
            streams.add(event["requestId"])
            times.append(time.monotonic())

    def brings(event: Any) -> None:
        if event["requestId"] in streams:
            times.append(time.monotonic())

    network = page.context.new_cdp_session(page)
    network.on("Network.responseReceived", begins)
    network.on("Network.dataReceived", brings)
    network.send("Network.enable")
    return times


def test_a_service_that_hangs_is_told_and_nothing_is_requested_twice(
    visit: Visit, system: System, anybody: str
) -> None:
    """The live sign does not stay green, users hear that the page tries again, and the messages vanish."""
    page = visit.page
    page.clock.install()
    received = received_parts(page)
    visit.sign_in(anybody)
    expect(page.locator("#live")).to_have_text("live")
    visit.choose("markup", "csv")
    expect(page.locator(".estimate")).to_contain_text("10 rows")
    keys: list[str] = []

    def note(request: Any) -> None:
        if request.method == "POST" and request.url.endswith("/exports/jobs"):
            keys.append(request.headers["idempotency-key"])

    page.on("request", note)
    while time.monotonic() - received[-1] > FRESH:
        page.wait_for_timeout(20)
    os.kill(system.api.pid, signal.SIGSTOP)
    try:
        page.get_by_role("button", name="Export", exact=True).click()
        page.clock.fast_forward(5_500)
        expect(page.locator("#connection")).to_have_text("Waiting for an answer of the service …")
        page.clock.fast_forward(8_000)
        expect(page.locator("#live")).to_have_text("not connected")
        expect(page.locator("#connection")).to_have_text("The service does not answer. Trying again …")
        page.clock.fast_forward(8_000)  # the call has ended, and is repeated
        page.clock.fast_forward(2_000)
    finally:
        os.kill(system.api.pid, signal.SIGCONT)
    expect(page.locator("#job-list > li .state")).to_have_text("Ready")
    expect(page.locator("#connection")).to_be_hidden()
    expect(page.locator("#live")).to_have_text("live")
    expect(page.get_by_role("alert")).to_have_count(0)
    assert len(set(keys)) == 1
    jobs = system.client.get("/exports/jobs", headers={"Authorization": f"Bearer {anybody}"}).json()["jobs"]
    assert len(jobs) == 1


def test_a_schedule_whose_answer_is_lost_is_made_once(visit: Visit, system: System, anybody: str) -> None:
    page = visit.page
    visit.sign_in(anybody)
    visit.choose("orders", "csv")
    page.get_by_label("Repeat").select_option(label="Every week")
    keys: list[str] = []

    def lose(route: Route) -> None:
        if route.request.method == "POST":
            keys.append(route.request.headers["idempotency-key"])
            if len(keys) == 1:
                assert route.fetch().status == 201
                route.abort()
                return
        route.continue_()

    page.route("**/exports/schedules", lose)
    page.get_by_role("button", name="Schedule", exact=True).click()
    expect(page.locator("#schedule-list > li")).to_have_count(1)
    assert len(keys) == 2
    assert len(set(keys)) == 1
    headers = {"Authorization": f"Bearer {anybody}"}
    assert len(system.client.get("/exports/schedules", headers=headers).json()["schedules"]) == 1
    visit.forgive("ERR_FAILED")


def test_a_message_about_the_connection_vanishes_when_the_service_is_back(visit: Visit, anybody: str) -> None:
    page = visit.page
    visit.sign_in(anybody)
    page.route("**/*", lambda route: route.abort())
    visit.choose("orders", "csv")
    expect(page.locator(".estimate")).to_contain_text("cannot be reached")
    expect(page.locator("#connection")).to_be_visible()
    page.unroute("**/*")
    expect(page.locator("#connection")).to_be_hidden()
    expect(page.locator(".estimate")).to_contain_text("rows")
    visit.forgive("ERR_FAILED")
