"""The view of the page for those who operate the service, in a real browser on the whole system."""

import asyncio
import re
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, cast
from uuid import uuid4

import asyncpg
import httpx2
import pytest
from faust.types import EventT
from faust.types.tuples import ConsumerMessage
from playwright.sync_api import Browser, Locator, Route, expect

from producers.tokens import sign_token
from stream_app.composition.worker import create_app
from stream_app.doctor.findings import FindingFactory
from stream_app.kafka.event_producer import EventProducer
from stream_app.settings import Settings
from streaming_exporter.errors import Unreadable
from streaming_exporter.events import Topic
from tests.e2e.browser import Visit, confirm, visiting
from tests.e2e.conftest import System
from tests.waiting import WITHIN, patient, until

pytestmark = pytest.mark.browser

PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


@pytest.fixture
def operator(settings: Settings) -> str:
    """A token with the role exports:operate, which does not see the data of users."""
    return sign_token(settings, f"operator-{uuid4().hex[:6]}", ["exports:operate"])


LARGE = 1234567890123456789
"""A whole number that browsers would round to 1234567890123456800."""


@pytest.fixture
def resumed(system: System) -> Iterator[None]:
    """Leave no pause to other tests."""
    yield
    for pause in system.client.get("/exports/pauses").json()["pauses"]:
        system.client.delete("/exports/pauses", params={"scope": pause["scope"]})


def opened(visit: Visit, token: str) -> None:
    """Sign in and go to the view by the keyboard."""
    visit.sign_in(token)
    visit.page.get_by_role("link", name="Operation", exact=True).press("Enter")
    expect(visit.page.get_by_role("heading", name="Operation", exact=True)).to_be_visible()


def put_aside(settings: Settings, value: bytes, reason: str) -> None:
    """Dead-letter a message as a worker does."""

    async def publish() -> None:
        app = create_app(settings)
        message = ConsumerMessage(
            settings.topic(Topic.REQUESTS), 0, 17, 0.0, 1, [], b"k", value, None, generation_id=1
        )
        event = type("Received", (), {"message": message})()
        await EventProducer(app, settings.kafka_topic_prefix).dead_letter(
            cast(EventT[bytes], event), Unreadable(reason)
        )
        await app.producer.stop()

    asyncio_run(publish())


def test_users_do_not_load_the_view(visit: Visit, customer: str) -> None:
    asked: list[str] = []
    visit.page.on("request", lambda request: asked.append(request.url))
    visit.sign_in(customer)
    expect(visit.page.get_by_role("link", name="Operation", exact=True)).to_be_hidden()
    visit.page.goto(f"{visit.url}/#operations")
    expect(visit.page.get_by_role("heading", name="New export")).to_be_visible()
    assert not [url for url in asked if "operat" in url.rpartition("/")[2].partition("#")[0]]


@pytest.mark.parametrize("answer", ["a module of another version", "no answer"])
def test_a_view_that_cannot_be_loaded_says_so_and_ends_with_the_session(
    visit: Visit, operator: str, answer: str
) -> None:
    """During an upgrade a new module can name what an old one does not have. Other calls are answered."""
    page = visit.page
    other = 'import { isNotThere } from "./dom.js"; export const Operations = isNotThere;'

    def load(route: Route) -> None:
        if answer == "no answer":
            route.abort()
        else:
            route.fulfill(body=other, content_type="text/javascript")

    page.clock.install(time=time.time())
    page.route("**/page/operations.js", load)
    # A stream of events that is silent for the time that passes here would count as ended.
    page.route("**/exports/events", lambda route: route.fulfill(status=404, json={"detail": ""}))
    probes: list[str] = []
    page.on("request", lambda request: probes.append(request.url) if "healthz" in request.url else None)
    problem = page.locator("#operations-problem")

    def pass_time(rounds: int) -> None:
        for _ in range(rounds):
            page.clock.run_for(5_000)
            page.wait_for_timeout(100)

    with page.expect_request("**/page/operations.js"):
        visit.sign_in(operator)
    page.get_by_role("button", name="Sign out").click()
    pass_time(8)
    expect(problem).to_be_hidden()
    page.get_by_label("Token").fill(operator)
    page.get_by_role("button", name="Sign in", exact=True).click()
    expect(page.get_by_role("heading", name="New export")).to_be_visible()
    expect(problem).to_be_hidden()
    pass_time(8)
    expect(problem).to_have_text("A part of the page could not be loaded. Load the page again.")
    assert probes == []
    visit.forgive("status of 404")
    page.unroute_all()
    page.reload()
    expect(page.get_by_role("link", name="Operation", exact=True)).to_be_visible()
    expect(problem).to_be_hidden()
    if answer == "no answer":
        visit.forgive("ERR_FAILED")


def test_a_search_that_is_too_slow_is_not_repeated_and_the_view_goes_on(visit: Visit, operator: str) -> None:
    page = visit.page
    page.clock.install(time=time.time())
    opened(visit, operator)
    expect(page.get_by_text("Slots in use", exact=True)).to_be_visible()
    asked: list[str] = []
    detail = "The jobs were not found within 10 s"

    def search(route: Route) -> None:
        asked.append(route.request.url)
        route.fulfill(status=503, json={"code": "search_too_slow", "detail": detail})

    page.route("**/exports/jobs?*status=failed*", search)
    page.get_by_label("Status", exact=True).select_option("failed")
    expect(page.get_by_role("alert").filter(has_text=detail).first).to_be_visible()
    for _ in range(3):
        with page.expect_response("**/exports/operations"):
            page.clock.run_for(5_100)
    expect(page.get_by_role("alert").filter(has_text=detail).first).to_be_visible()
    assert len(asked) == 1
    page.get_by_label("Status", exact=True).select_option("cancelled")
    expect(page.locator("#operations").get_by_role("alert").filter(has_text=detail)).to_have_count(0)
    visit.forgive("status of 503")


def test_what_the_view_cannot_show_hides_no_other_list_and_ends_no_reading(
    visit: Visit, operator: str
) -> None:
    def change(route: Route) -> None:
        answer = route.fetch()
        found = answer.json()
        found["pauses"] = [{"scope": "user:u", "paused_by": "p", "paused_at": "no time", "reason": None}]
        found["lost_deliveries"] = []
        route.fulfill(response=answer, json=found)

    page = visit.page
    page.clock.install(time=time.time())
    page.route("**/exports/operations", change)
    opened(visit, operator)
    view = page.locator("#operations")
    expect(view.get_by_role("alert").first).not_to_be_empty()
    expect(view.get_by_text("Slots in use", exact=True)).to_be_visible()
    expect(view.get_by_role("list", name="Workers").get_by_role("listitem").first).to_be_visible()
    for _ in range(2):
        with page.expect_response("**/exports/operations"):
            page.clock.run_for(5_100)


def metrics_at(url: str) -> str:
    return httpx2.get(url, timeout=patient(WITHIN)).text


@pytest.mark.usefixtures("resumed")
def test_operators_pause_explain_repeat_and_cancel(visit: Visit, system: System, operator: str) -> None:
    """P19: workers, the queue, why a job waits, pause and resume, run again, cancel: live and by keyboard."""
    page = visit.page
    opened(visit, operator)
    tiles, workers = page.locator(".tiles"), page.get_by_role("list", name="Workers")
    expect(tiles).to_contain_text("Slots in use")
    expect(workers.get_by_role("listitem").filter(has_text="slots in use").first).to_be_visible()
    expect(page.get_by_role("list", name="Parts of the service")).to_contain_text("State database: OK")
    expect(page.get_by_role("heading", name="New export")).to_be_hidden()
    visit.shot("operations")

    page.locator("summary", has_text="Pause").press("Enter")
    page.get_by_label("What to pause").select_option(label="Dataset orders")
    page.get_by_label("Reason").fill("month end")
    confirm(page, re.compile("^Pause$"), "Really pause?", key="Enter")
    pauses = page.get_by_role("list", name="Pauses")
    expect(pauses).to_contain_text("Dataset orders")
    expect(pauses).to_contain_text("month end")

    until(lambda: "exporter_worker_claims_paused 1.0" in metrics_at(system.metrics))
    waits = system.ask(export_type="orders", format="csv", scope="all", filters={"paid": True})
    jobs = page.get_by_role("list", name="Exports of all users")
    card = jobs.locator(f"[data-key='{waits}']")
    expect(card).to_contain_text("Waiting")
    expect(card).to_contain_text("User tester")
    card.get_by_role("button", name="Why?").press("Enter")
    expect(card).to_contain_text("Operators have paused such exports · place ")
    assert "paid" not in card.inner_text(), "filters are the user's"
    visit.shot("operations-paused", full_page=True)
    confirm(card, "Cancel", "Really cancel?", key="Enter")
    expect(card).to_contain_text("Cancelled")

    pauses.get_by_role("button", name="Resume").press("Enter")
    expect(page.get_by_text("Nothing is paused.")).to_be_visible()
    card.get_by_role("button", name="Run again").press("Enter")
    again = jobs.get_by_role("listitem").filter(has_text=re.compile("· run again")).first
    expect(again).to_contain_text("Ready")
    page.get_by_label("Status", exact=True).select_option(label="Cancelled")
    expect(card).to_be_visible()
    expect(again).to_be_hidden()
    page.get_by_label("User", exact=True).fill("nobody-at-all")
    page.get_by_label("User", exact=True).press("Enter")
    expect(page.get_by_text("No export matches.", exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="Cancel all unfinished exports of this user")).to_be_visible()
    page.get_by_role("link", name="New", exact=True).click()
    expect(page.get_by_role("heading", name="New export")).to_be_visible()
    expect(page.get_by_role("heading", name="Operation", exact=True)).to_be_hidden()


def test_dead_letters_and_doctor_on_a_phone(
    browser: Browser, system: System, operator: str, settings: Settings
) -> None:
    """P19: only administrators see the content; redrive and discard ask first."""
    name = uuid4().hex[:8]
    put_aside(settings, f'{{"secret": "{name}", "id": {LARGE}}}'.encode(), f"not a CloudEvent, got '{name}'")
    store = system.stack.settings()["EXPORTER_S3_ENDPOINT"]
    admin = sign_token(settings, "the-admin", ["exports:admin"])
    with visiting(browser, system.api.url, store, **PHONE) as visit:
        page = visit.page
        for token, sees in ((operator, False), (admin, True)):
            opened(visit, token)
            page.locator("summary", has_text="Dead letters").press("Enter")
            card = page.get_by_role("list", name="Dead letters").get_by_role("listitem").first
            expect(card).to_contain_text("not a CloudEvent")
            assert (name in card.inner_text()) == sees
            look = card.get_by_role("button", name="Look")
            expect(look).to_have_count(int(sees))
            if sees:
                look.click()
                expect(card.locator("pre")).to_contain_text(name)
                expect(card.locator("pre")).to_contain_text(f'"id": {LARGE}')
            visit.assert_fits()
            visit.shot(f"operations-letters-{'admin' if sees else 'operator'}", full_page=True)
            if not sees:
                page.get_by_role("button", name="Sign out").click()
        confirm(card, "Discard", "Really discard?")
        expect(page.get_by_text("The message is discarded.")).to_be_visible()
        page.locator("summary", has_text="Checks of the service").click()
        expect(page.get_by_text("checks found nothing.")).to_be_visible()
        visit.assert_fits()
        visit.shot("operations-doctor", full_page=True)


def names_of(buttons: Locator) -> list[str]:
    """Return the accessible names of buttons."""
    script = (
        "(all) => all.map((one) => one.getAttribute('aria-labelledby').split(' ')"
        ".map((id) => document.getElementById(id).textContent).join(' '))"
    )
    found: list[str] = buttons.evaluate_all(script)
    return found


@pytest.mark.usefixtures("resumed")
def test_operators_turn_pages_and_stop_one_user(
    visit: Visit, system: System, operator: str, settings: Settings
) -> None:
    """More than 100 jobs of one user: pages, a name for each button, a pause of this user only."""
    page, flooder = visit.page, f"flooder-{uuid4().hex[:6]}"
    asyncio_run(insert_jobs(settings, flooder, 130))
    opened(visit, operator)
    page.get_by_label("User", exact=True).fill(flooder)
    page.get_by_label("User", exact=True).press("Enter")
    jobs = page.get_by_role("list", name="Exports of all users").get_by_role("listitem")
    expect(jobs).to_have_count(20)
    more = page.get_by_role("button", name="Show more", exact=True)
    for count in (40, 60, 80, 100):
        more.click()
        expect(jobs).to_have_count(count)
    names = names_of(page.get_by_role("list", name="Exports of all users").get_by_role("button"))
    assert len(names) == len(set(names)) > 100
    expect(jobs.first).to_contain_text("missing_column: A column of the dataset no longer exists. The logs")
    assert "secret" not in jobs.first.inner_text()
    first = jobs.first.get_attribute("data-key")
    page.get_by_role("button", name="Older exports").click()
    expect(jobs).to_have_count(30)
    expect(page.get_by_role("button", name="Older exports")).to_be_hidden()
    visit.shot("operations-older")
    page.get_by_role("button", name="Back to the newest").click()
    expect(jobs).to_have_count(20)
    assert jobs.first.get_attribute("data-key") == first
    confirm(page, "Pause this user", "Really pause?")
    pauses = page.get_by_role("list", name="Pauses")
    expect(pauses).to_contain_text(f"User {flooder}")
    pauses.get_by_role("button", name=f"Resume User {flooder}").click()
    expect(page.get_by_text("Nothing is paused.")).to_be_visible()


def cancel_all_of_a_user(visit: Visit, operator: str, answer: Callable[[Route, int], None]) -> list[Route]:
    """Cancel all exports of a user. ``answer`` gets each call with its number.

    Returns:
        The calls so far; the page goes on.
    """
    page, calls = visit.page, list[Route]()

    def cancelled(route: Route) -> None:
        calls.append(route)
        answer(route, len(calls))

    page.route("**/exports/jobs:cancel", cancelled)
    opened(visit, operator)
    page.get_by_label("User", exact=True).fill("nobody-at-all")
    page.get_by_label("User", exact=True).press("Enter")
    confirm(page, "Cancel all unfinished exports of this user", "Really cancel all?")
    return calls


def test_the_page_cancels_until_no_export_is_left(visit: Visit, operator: str) -> None:
    """P19: the service cancels for a limited time in one call."""

    def incomplete(route: Route, call: int) -> None:
        problem = {"code": "cancellation_incomplete", "detail": "repeat the call"}
        route.fulfill(status=503, json=problem) if call < 3 else route.continue_()

    calls = cancel_all_of_a_user(visit, operator, incomplete)
    expect(visit.page.get_by_text("All unfinished exports of this user are cancelled.")).to_be_visible()
    assert len(calls) == 3
    visit.forgive("status of 503")


def test_the_page_says_when_it_gives_up_to_cancel(visit: Visit, operator: str) -> None:
    """P19: it does not say that the rest is being cancelled after its last call has failed."""

    last: list[Route] = []

    def broken(route: Route, call: int) -> None:
        if call == 1:
            route.fulfill(status=500, json={"code": "cancellation_incomplete"})
        else:
            last.append(route)

    page, calls = visit.page, cancel_all_of_a_user(visit, operator, broken)
    expect(page.get_by_text("The rest is being cancelled")).to_be_visible()
    while not last:
        page.wait_for_timeout(20)
    last[0].fulfill(status=500, json={"detail": "It is broken"})
    expect(page.get_by_text("It is broken")).to_be_visible()
    expect(page.get_by_text("The rest is being cancelled")).to_be_hidden()
    assert len(calls) == 2
    visit.forgive("status of 500")


async def insert_jobs(settings: Settings, user: str, count: int) -> None:
    """Insert failed jobs of a user."""
    connection = await asyncpg.connect(settings.database_url.get_secret_value())
    await connection.execute(
        "INSERT INTO export_jobs (id, user_id, export_type, format, status, error_code, error_message, "
        "admitted_at) SELECT gen_random_uuid(), $1, 'orders', 'csv', 'failed', 'missing_column', 'secret', "
        "now() FROM generate_series(1, $2)",
        user,
        count,
    )
    await connection.close()


def asyncio_run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine in a thread of its own: this one has the event loop of the browser."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, coroutine).result()


@pytest.mark.parametrize("visit", [{"locale": "de-DE", "color_scheme": "dark"}], indirect=True)
def test_the_view_is_german_and_dark(visit: Visit, operator: str) -> None:
    texts = visit.sign_in_as(operator, "de")
    visit.page.get_by_role("link", name=texts("page.top.operations"), exact=True).click()
    expect(visit.page.get_by_role("heading", name=texts("page.operations.title"), exact=True)).to_be_visible()
    expect(visit.page.locator(".tiles")).to_contain_text(texts("page.operations.tiles.waiting"))
    found = asdict(FindingFactory("kafka").warning("lag", "long_lag", count=12_345))
    visit.page.route("**/exports/operations/doctor", lambda route: route.fulfill(json={"findings": [found]}))
    visit.page.locator("summary", has_text=texts("page.operations.doctor")).press("Enter")
    expect(visit.page.get_by_role("heading", name="Kafka: Rückstand")).to_be_visible()
    expect(visit.page.get_by_text("12.345 ungelesene Nachrichten")).to_be_visible()
    expect(visit.page.get_by_text(texts("findings.long_lag.advice"))).to_be_visible()
    visit.shot("operations-german", full_page=True)
