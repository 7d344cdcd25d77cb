"""Every state of the page: accessible by axe-core, in light, dark and on phones (people, item 7)."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx2
import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect

from dev.postgres import SOURCE
from producers.tokens import sign_token
from stream_app.settings import Settings
from tests.e2e.accessibility import (
    assert_accessible,
    assert_buttons_have_different_names,
    assert_controls_are_large,
    assert_fits,
)
from tests.e2e.browser import Visit, unasked, visiting
from tests.e2e.conftest import System
from tests.e2e.test_delivery import body as body_of
from tests.e2e.test_delivery import mails_to
from tests.gate import closed_gate
from tests.waiting import first_below, patient, until

pytestmark = pytest.mark.browser

CONTRAST = "color-contrast"
PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 780}, "has_touch": True, "is_mobile": True}
ZOOMED: ViewportSize = {"width": 320, "height": 256}
"""A window of 1280 by 1024 pixels at a zoom of 400 %."""

OF_JOBS = ("Waiting", "Running", "Ready", "Failed", "Cancelled", "Removed")

BYTES = 75_000
REQUESTS = 34
SECONDS = 4.0
"""Budgets of a first visit: bytes as they are sent, requests, time until users can sign in on a slow line."""


class States:
    """Checks each state of one tab, in light and in dark."""

    def __init__(self, visit: Visit, kind: str) -> None:
        self._visit = visit
        self._kind = kind
        visit.page.emulate_media(reduced_motion="reduce")

    def check(self, name: str, *, names: bool = True) -> None:
        page = self._visit.page
        page.emulate_media(color_scheme="light")
        page.evaluate("scrollTo(0, 0)")
        assert_accessible(page)
        if names:
            assert_buttons_have_different_names(page)
        if self._kind == "phone":
            assert_controls_are_large(page)
        assert_fits(page)
        self._visit.shot(f"{self._kind}-{name}", full_page=True)
        page.emulate_media(color_scheme="dark")
        assert_accessible(page, CONTRAST)
        self._visit.shot(f"{self._kind}-{name}-dark", full_page=True)
        page.emulate_media(color_scheme="light")


@contextmanager
def states(browser: Browser, system: System, kind: str, **options: Any) -> Iterator[tuple[Visit, States]]:
    store = system.stack.settings()["EXPORTER_S3_ENDPOINT"]
    with visiting(browser, system.api.url, store, **options) as visit:
        yield visit, States(visit, kind)


def open_all(visit: Visit) -> None:
    """Open all parts of the form, with a filter of each kind and a schedule."""
    for column, condition in [
        ("id", "between"), ("total", "at least"), ("note", "one of"), ("paid", "is"),
        ("placed_at", "between"), ("placed_at", "in the period"),
    ]:  # fmt: skip
        visit.filter(column, condition)
    closed = visit.page.locator("#builder details:not([open]) > summary")
    for _ in range(closed.count()):
        closed.first.click()
    visit.page.get_by_label("Repeat").select_option(label="Every month")


@pytest.mark.slow
def test_every_state_is_accessible(browser: Browser, system: System, settings: Settings) -> None:
    """On a desktop and on a phone with the same user, whose exports are in all states."""
    user = f"user-{uuid4().hex[:8]}"
    token = sign_token(settings, user, ["exports:all"])
    with states(browser, system, "desktop") as (visit, desktop):
        page = visit.page
        visit.open()
        expect(page.get_by_label("Token")).to_be_focused()
        desktop.check("sign-in")
        page.get_by_label("Token").fill("hello")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_be_visible()
        desktop.check("sign-in-refused")
        visit.sign_in(token)
        expect(page.get_by_text("No schedules yet.")).to_be_visible()
        desktop.check("empty")
        with closed_gate(system.stack.postgres.admin_url(SOURCE)):
            every_job(system, token)
            page.reload()
            assert_states_are_shown(page)
            page.locator("#schedule-list > li").first.get_by_text("Past runs").click()
            page.get_by_role("button", name="Copy link").first.click()
            expect(page.get_by_text("After signing in, it opens this export").first).to_be_visible()
            desktop.check("jobs")
            with states(browser, system, "phone", **PHONE) as (other, phone):
                other.sign_in(token)
                assert_states_are_shown(other.page)
                phone.check("jobs")

        def asked() -> bool:
            unasked(page, "Remove").first.click()
            return page.locator(".danger").is_visible()

        until(asked)  # the question is shown for four seconds
        desktop.check("confirm")
        visit.choose("orders", "csv")
        open_all(visit)
        desktop.check("form")
        page.get_by_role("button", name="Schedule", exact=True).click()  # the values are missing
        desktop.check("form-invalid")
        download, unsubscribe = links(system, token, f"{user}@example.com")
        for name, path in [
            ("files", download), ("unsubscribe", unsubscribe),
            ("bad-link", "/exports/links/x.y"), ("bad-unsubscribe", "/exports/unsubscribe/x.y"),
        ]:  # fmt: skip
            page.goto(f"{visit.url}{path}")
            desktop.check(name)
            if name == "unsubscribe":
                page.get_by_role("button").click()
                expect(page.get_by_role("button")).to_have_count(0)
                desktop.check("unsubscribed")
        visit.forgive("status of 404")
        visit.open()
        page.get_by_role("button", name="Sign out").click()
        visit.sign_in(sign_token(settings, f"operator-{uuid4().hex[:8]}", ["exports:operate"]))
        page.get_by_role("link", name="Operation", exact=True).click()
        expect(page.get_by_role("heading", name="Operation", exact=True)).to_be_visible()
        desktop.check("operation", names=False)
        page.get_by_role("button", name="Sign out").click()
        visit.sign_in(token)
        expect(page.get_by_role("heading", name="New export")).to_be_visible()
        page.set_viewport_size(ZOOMED)
        assert_fits(page)
        visit.shot("zoomed-top")
        page.evaluate("scrollTo(0, 600)")
        assert page.evaluate("document.querySelector('header').getBoundingClientRect().bottom") <= 0
        visit.shot("zoomed")
    with states(browser, system, "phone", **PHONE) as (visit, phone):
        page = visit.page
        visit.open()
        expect(page.get_by_label("Token")).to_be_focused()
        phone.check("sign-in")
        visit.sign_in(token)
        visit.choose("orders", "csv")
        open_all(visit)
        phone.check("form")
        page.reload()
        expect(page.locator(".estimate")).to_contain_text(" rows")
        page.context.set_offline(True)
        page.get_by_label("Format").select_option("ndjson")
        expect(page.locator("#connection")).to_be_visible()
        phone.check("offline")
        page.context.set_offline(False)
        expect(page.locator("#connection")).to_be_hidden()
        visit.forgive("ERR_INTERNET_DISCONNECTED|ERR_FAILED")


def assert_states_are_shown(page: Page) -> None:
    """Wait until the page shows exports and schedules in all states."""
    for state in (*OF_JOBS, "Paused", "Active"):
        expect(page.locator(".state", has_text=state).first).to_be_visible()


def links(system: System, token: str, address: str) -> tuple[str, str]:
    """Return the paths of the links to several files and to unsubscribe, which a mail brings."""
    body = {
        "export_type": "markup",
        "format": "csv",
        "scope": "all",
        "split": {"rows": 4},
        "recipients": [address],
    }
    headers = {"Authorization": f"Bearer {token}"}
    system.client.post("/exports/jobs", json=body, headers=headers).raise_for_status()

    (mail,) = mails_to(system, address)
    (download,) = set(re.findall(r"/exports/links/[\w.-]+", body_of(mail)))
    return download, urlsplit(mail["List-Unsubscribe"].strip("<>")).path


def every_job(system: System, token: str) -> None:
    """Make two schedules, and exports in all states: two run until the gate is opened, and others wait."""
    with httpx2.Client(
        base_url=system.api.url, headers={"Authorization": f"Bearer {token}"}, timeout=patient(30)
    ) as user:

        def ask(dataset: str, kind: str, *, ends: bool) -> str:
            body = {"export_type": dataset, "format": kind, "scope": "all"}
            answer = user.post("/exports/jobs", json=body).raise_for_status()
            job_id = answer.json()["export_job_id"]
            if ends:
                system.ended(job_id)
            return f"/exports/jobs/{job_id}"

        for schedule in ("daily", "weekly"):
            body = {"export_type": "orders", "format": "csv", "schedule": schedule, "time_of_day": "06:00"}
            answer = user.post("/exports/schedules", json=body).raise_for_status()
        user.patch(f"/exports/schedules/{answer.json()['id']}", json={"active": False}).raise_for_status()
        ask("markup", "csv", ends=True)
        user.delete(ask("markup", "json", ends=True)).raise_for_status()
        ask("million", "pdf", ends=True)
        gated = [ask("gated", kind, ends=False) for kind in ("csv", "json", "ndjson", "excel", "parquet")]
        user.delete(gated[-1]).raise_for_status()


def test_a_first_visit_is_quick_on_a_slow_line(browser: Browser, system: System) -> None:
    """150 ms and 1.6 Mbit/s, and a processor that is four times slower."""

    def first_visit() -> float:
        with states(browser, system, "slow") as (visit, _):
            line = visit.page.context.new_cdp_session(visit.page)
            sent: list[float] = []
            line.on("Network.loadingFinished", lambda event: sent.append(event["encodedDataLength"]))
            line.send("Network.enable")
            line.send(
                "Network.emulateNetworkConditions",
                {"offline": False, "latency": 150, "downloadThroughput": 200_000, "uploadThroughput": 94_000},
            )
            line.send("Emulation.setCPUThrottlingRate", {"rate": 4})
            began = time.monotonic()
            visit.open()
            expect(visit.page.get_by_label("Token")).to_be_focused()
            seconds = time.monotonic() - began
            print(f"{sum(sent):.0f} bytes, {len(sent)} requests, {seconds:.2f} s")
            assert sum(sent) <= BYTES
            assert len(sent) <= REQUESTS
            return seconds

    first_below(patient(SECONDS), first_visit)
