"""Answers of lists that come late, in another order or not at all, and what a user does meanwhile."""

import re
import time
from collections.abc import Callable, Sized
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from playwright.sync_api import Locator, Page, Request, Route, expect

from producers.tokens import sign_token
from stream_app.settings import Settings
from tests.e2e.browser import Visit, confirm_asked
from tests.e2e.conftest import UNFINISHED, System
from tests.waiting import until

pytestmark = pytest.mark.browser

Record = dict[str, Any]

JOBS = "**/exports/jobs?*"
SCHEDULES = "**/exports/schedules?*"
ESTIMATES = "**/exports/jobs:estimate"

AWAY = {"code": "state_database_unavailable", "detail": "A database does not answer"}
TOO_SLOW = {"code": "search_too_slow", "detail": "The jobs were not found within 10 s"}
TOO_MANY = {"code": "too_many_calls", "detail": "Too many calls at once"}


def ordered(system: System, token: str, dataset: str = "markup") -> Record:
    """Return an export of the user that has ended."""
    headers = {"Authorization": f"Bearer {token}", "Prefer": "wait=30"}
    body = {"export_type": dataset, "format": "csv", "scope": "all"}
    answer = system.client.post("/exports/jobs", json=body, headers=headers).raise_for_status()
    job: Record = answer.json()
    if job["status"] in UNFINISHED:  # on a busy machine
        job = system.ended(job["export_job_id"])
    assert job["status"] == "completed"
    return job


def signed_in_with_an_export(visit: Visit, system: System, token: str) -> tuple[Locator, Locator]:
    """Sign in, with a clock that can be moved; return the card of an export and its button "Run again"."""
    ordered(system, token)
    visit.page.clock.install(time=time.time())
    visit.sign_in(token)
    card = cards(visit)
    return card, card.get_by_role("button", name=re.compile("^Run again"))


def scheduled(system: System, token: str) -> Record:
    """Return a new schedule of the user."""
    headers = {"Authorization": f"Bearer {token}"}
    body = {"export_type": "markup", "format": "csv", "scope": "all", "schedule": "daily"}
    answer = system.client.post("/exports/schedules", json=body, headers=headers).raise_for_status()
    [schedule] = system.client.get("/exports/schedules", headers=headers).json()["schedules"]
    assert schedule["id"] == answer.json()["id"]
    found: Record = schedule
    return found


def held(page: Page, pattern: str) -> list[Route]:
    """Return the list to which calls are added; the test answers them."""
    routes: list[Route] = []
    page.route(pattern, lambda route: routes.append(route))
    return routes


def released(page: Page, pattern: str) -> None:
    """Hold no further call. Those that are held stay so: of two handlers, the later one is asked."""
    page.route(pattern, lambda route: route.continue_())


def wait_for(page: Page, routes: Sized, number: int) -> None:
    """Wait until there are so many calls."""

    def called() -> bool:
        page.wait_for_timeout(20)
        return len(routes) >= number

    until(called)


def cards(visit: Visit) -> Locator:
    return visit.page.locator("#job-list > li")


def test_each_schedule_is_shown_once(visit: Visit, system: System, anybody: str) -> None:
    """Two readings under way at once, and a page of older ones that is overtaken by a reading."""
    page = visit.page
    one = scheduled(system, anybody)
    many = [one | {"id": str(uuid4()), "name": f"Number {number}"} for number in range(30)]

    def answer(route: Route) -> None:
        begin = 20 if "cursor=" in route.request.url else 0
        limit = int(re.findall(r"limit=(\d+)", route.request.url)[0])
        shown = many[begin : begin + limit]
        more = begin + limit < len(many)
        route.fulfill(json={"schedules": shown, "next_cursor": "next" if more else None})

    page.route(SCHEDULES, answer)
    page.route("**/exports/schedules/*", lambda route: route.fulfill(json=one))
    visit.sign_in(anybody)
    shown = page.locator("#schedule-list > li")
    expect(shown).to_have_count(20)
    older = page.locator("#older-schedules")

    routes = held(page, SCHEDULES)
    older.click()
    wait_for(page, routes, 1)
    for card in (0, 1):
        shown.nth(card).get_by_role("button", name="Pause").click()
        wait_for(page, routes, card + 2)
    for route in routes:
        answer(route)
    page.route(SCHEDULES, answer)
    expect(older).not_to_have_attribute("aria-busy", "true")
    expect(shown.first.get_by_role("button", name="Pause")).not_to_have_attribute("aria-busy", "true")
    expect(shown).to_have_count(20)

    older.focus()
    older.press("Enter")
    expect(shown).to_have_count(30)
    expect(older).to_be_hidden()
    expect(shown.nth(20)).to_be_focused()
    # What is open stays through the next reading, and what the user types, too.
    page.route("**/runs?*", lambda route: route.fulfill(json={"runs": [], "next_cursor": None}))
    shown.nth(25).get_by_text("Past runs").click()
    expect(shown.nth(25)).to_contain_text("None yet.")
    routes = held(page, "**/exports/schedules/*")
    shown.first.get_by_role("button", name="Pause").click()
    wait_for(page, routes, 1)
    name = page.get_by_label("Name", exact=True)
    name.focus()
    with page.expect_response(SCHEDULES):
        routes[0].fulfill(json=one)
    expect(shown.first.get_by_role("button", name="Pause")).not_to_have_attribute("aria-busy", "true")
    expect(name).to_be_focused()
    expect(shown).to_have_count(30)
    expect(shown.nth(25)).to_contain_text("None yet.")


def test_all_schedules_that_are_shown_are_read_again(visit: Visit, system: System, anybody: str) -> None:
    """More of them than one call lists."""
    page = visit.page
    one = scheduled(system, anybody)
    many = [one | {"id": str(uuid4()), "name": f"Number {number}"} for number in range(130)]

    def answer(route: Route) -> None:
        limit, begin = (
            int(re.findall(rf"{name}=(\d+)", f"{route.request.url}&cursor=0")[0])
            for name in ("limit", "cursor")
        )
        assert limit <= 100
        end = begin + limit
        following = str(end) if end < len(many) else None
        route.fulfill(json={"schedules": many[begin:end], "next_cursor": following})

    page.clock.install(time=time.time())
    page.route(SCHEDULES, answer)
    visit.sign_in(anybody)
    shown = page.locator("#schedule-list > li")
    for count in (20, 40, 60, 80, 100, 120):
        expect(shown).to_have_count(count)
        page.locator("#older-schedules").click()
    expect(shown).to_have_count(130)
    many[125]["name"] = "Another name"
    page.clock.fast_forward(301_000)
    expect(shown.nth(125)).to_contain_text("Another name")
    expect(shown).to_have_count(130)
    expect(page.locator("#older-schedules")).to_be_hidden()


def test_what_replaces_the_form_is_not_sent(visit: Visit, system: System, anybody: str) -> None:
    """The user sends the form and, before the estimate has come, puts another export into it."""
    page = visit.page
    ordered(system, anybody)
    visit.sign_in(anybody)
    sent: list[Request] = []
    page.on(
        "request", lambda one: sent.append(one) if (one.method, one.url[-5:]) == ("POST", "/jobs") else None
    )
    visit.choose("orders", "csv")
    expect(page.locator(".estimate")).to_contain_text("rows")
    routes = held(page, ESTIMATES)
    page.get_by_label("Name", exact=True).fill("Not this one")
    page.get_by_role("button", name="Export", exact=True).click()
    wait_for(page, routes, 1)
    released(page, ESTIMATES)
    cards(visit).get_by_role("button", name="Edit and run again").click()
    expect(page.locator("#builder").get_by_label("Dataset")).to_have_value("markup")
    expect(page.locator(".estimate")).to_contain_text("10 rows")
    expect(page.get_by_role("button", name="Export", exact=True)).not_to_have_attribute("aria-busy", "true")
    assert sent == []
    expect(cards(visit)).to_have_count(1)


def test_an_export_that_ends_before_the_events_begin_is_shown_as_ended(
    visit: Visit, system: System, anybody: str
) -> None:
    """The stream tells of unfinished exports only. A double click does not confirm the removal."""
    page = visit.page
    job = ordered(system, anybody)
    running = job | {"status": "processing", "download_url": None, "files_url": None, "row_count": 0}
    listed: list[Route] = []

    def answer(route: Route) -> None:
        listed.append(route)
        if len(listed) == 1:
            route.fulfill(json={"jobs": [running], "next_cursor": None})
        else:
            route.continue_()

    page.route(JOBS, answer)
    visit.sign_in(anybody)
    expect(page.locator("#live")).to_have_text("live")
    card = cards(visit)
    expect(card.locator(".state")).to_have_text("Ready")
    card.get_by_role("button", name="Remove").dblclick()
    question = card.get_by_role("button", name="Remove the file?")
    expect(question.and_(page.locator("button:not([aria-busy])"))).to_be_visible()
    confirm_asked(card, "Remove", "Remove the file?", key="Enter")
    expect(card.locator(".state")).to_have_text("Removed")


def test_a_page_that_begins_in_an_outage_of_a_database_is_complete_afterwards(
    visit: Visit, system: System, anybody: str
) -> None:
    """The service answers, with an error, so there is no return to wait for."""
    page = visit.page
    ordered(system, anybody)
    scheduled(system, anybody)
    page.clock.install(time=time.time())
    for pattern in (JOBS, SCHEDULES):
        page.route(pattern, lambda route: route.fulfill(status=503, json=AWAY))

    def broken(route: Route) -> None:
        catalogue = route.fetch().json()
        for dataset in catalogue["datasets"]:
            dataset["error"] = "The database cannot be reached"
        route.fulfill(json=catalogue)

    page.route("**/exports/datasets", broken)
    visit.sign_in(anybody)
    expect(page.locator("#live")).to_have_text("live")
    for place in ("#jobs-problem", "#schedules-problem"):
        expect(page.locator(place)).to_be_visible()
    page.get_by_label("Name", exact=True).fill("Mine")
    page.unroute_all()
    page.clock.fast_forward(16_000)
    expect(cards(visit)).to_have_count(1)
    expect(page.locator("#schedule-list > li")).to_have_count(1)
    expect(page.get_by_role("alert")).to_have_count(0)
    chosen = page.locator("#builder").get_by_label("Dataset").locator("option:checked")
    expect(chosen).not_to_contain_text("not available")
    expect(page.locator(".estimate")).to_contain_text("row")
    expect(page.get_by_label("Name", exact=True)).to_have_value("Mine")
    visit.forgive("status of 503")


def test_a_failed_action_is_told_until_it_is_repeated_and_is_done_once(
    visit: Visit, system: System, anybody: str
) -> None:
    page, (card, again) = visit.page, signed_in_with_an_export(visit, system, anybody)
    keys: list[str] = []

    def refused(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        route.abort()

    page.route("**:rerun", refused)
    again.click()
    for number, pause in ((1, 1_100), (2, 3_100)):
        wait_for(page, keys, number)
        page.clock.fast_forward(pause)
    problem = card.get_by_role("alert")
    expect(problem).to_contain_text("cannot be reached")
    page.clock.fast_forward(2_100)
    expect(page.locator("#connection")).to_be_hidden()
    expect(problem).to_contain_text("cannot be reached")

    routes = held(page, "**:rerun")
    again.click()
    wait_for(page, routes, 1)
    name = page.get_by_label("Name", exact=True)
    name.focus()
    assert {*keys, routes[0].request.headers["idempotency-key"]} == set(keys[:1])
    routes[0].continue_()
    expect(cards(visit)).to_have_count(2)
    expect(problem).to_have_count(0)
    expect(again.last).not_to_have_attribute("aria-busy", "true")
    expect(name).to_be_focused()
    visit.forgive("ERR_FAILED")


def test_an_action_whose_answer_is_lost_is_done_once_although_its_repetition_is_refused(
    visit: Visit, system: System, anybody: str
) -> None:
    """The first attempt is done, its answer is lost, and the service has no place for the second one."""
    page, (_, again) = visit.page, signed_in_with_an_export(visit, system, anybody)
    routes = held(page, "**:rerun")
    again.click()
    wait_for(page, routes, 1)
    made = routes[0].fetch().json()
    routes[0].abort()
    page.clock.fast_forward(1_100)
    wait_for(page, routes, 2)
    routes[1].fulfill(status=429, json=TOO_MANY)
    expect(cards(visit).get_by_role("alert").filter(has_text="Too many calls")).to_be_visible()
    released(page, "**:rerun")
    with page.expect_response("**:rerun") as answer:
        again.last.click()
    assert answer.value.json()["export_job_id"] == made["export_job_id"]
    expect(cards(visit)).to_have_count(2)
    visit.forgive("ERR_FAILED")
    visit.forgive("status of 429")


@pytest.mark.parametrize(
    ("status", "problem", "least", "most"),
    [(503, AWAY, 3, 8), (503, TOO_SLOW, 1, 1), (422, TOO_SLOW | {"code": "invalid"}, 1, 1)],
    ids=["outage", "too slow", "invalid"],
)
def test_a_search_is_repeated_with_pauses_if_that_can_help(
    visit: Visit, system: System, anybody: str, status: int, problem: Record, least: int, most: int
) -> None:
    """Without events, and while an export runs, which is read as often as before."""
    page = visit.page
    job = ordered(system, anybody) | {"status": "pending", "row_count": None, "download_url": None}
    asked: list[str] = []

    def search(route: Route) -> None:
        asked.append("list")
        route.fulfill(status=status, json=problem)

    def one(route: Route) -> None:
        asked.append("one")
        route.fulfill(json=job)

    page.clock.install(time=time.time())
    page.route("**/exports/events", lambda route: route.fulfill(status=404, json={"detail": ""}))
    page.route(JOBS, lambda route: route.fulfill(json={"jobs": [job], "next_cursor": None}))
    page.route("**/exports/jobs/*-*", one)
    page.route("**/exports/jobs?*status=failed*", search)
    visit.sign_in(anybody)
    expect(cards(visit)).to_have_count(1)
    page.get_by_label("Only with the status").select_option("failed")
    alert = page.locator("#jobs-problem")
    expect(alert).to_have_text(problem["detail"])
    alert.evaluate(
        "(own) => new MutationObserver(() => (own.dataset.told = 'again')).observe(own, {childList: true})"
    )
    for _ in range(40):
        page.clock.run_for(1_500)
        page.wait_for_timeout(30)
    assert least <= asked.count("list") <= most, asked
    assert (asked.count("one") >= 10) == (most == 1), asked
    expect(alert).to_be_visible()
    assert alert.get_attribute("data-told") is None
    visit.forgive(f"status of {status}")
    visit.forgive("status of 404")


def test_jobs_stay_while_a_proxy_answers_in_place_of_the_service(
    visit: Visit, system: System, anybody: str
) -> None:
    """A proxy without a service behind it answers each call with 404. Events do not come at all."""
    page = visit.page
    job = ordered(system, anybody) | {"status": "pending", "row_count": None, "download_url": None}
    lists: list[str] = []

    def proxy(route: Route) -> None:
        if "/exports/jobs?" in route.request.url:
            lists.append(route.request.url)
        route.fulfill(status=404, body="default backend - 404")

    def passed(condition: Callable[[], bool]) -> None:
        """Let the clock of the page run until the condition holds."""

        def holds() -> bool:
            page.clock.run_for(1_500)
            page.wait_for_timeout(20)
            return condition()

        until(holds)

    page.clock.install(time=time.time())
    page.route("**/exports/events", proxy)
    page.route(JOBS, lambda route: route.fulfill(json={"jobs": [job], "next_cursor": None}))
    visit.sign_in(anybody)
    expect(cards(visit)).to_have_count(1)
    expect(page.locator("#connection")).to_be_hidden()
    page.route("**/*", proxy)
    passed(lambda: len(lists) >= 3)
    expect(cards(visit)).to_have_count(1)
    expect(page.locator("#connection")).to_be_visible()
    problem = page.locator("#link-problem")
    page.evaluate(f"location.hash = 'job-{job['export_job_id']}'")
    passed(problem.is_visible)
    expect(problem).to_contain_text("cannot be reached")
    page.unroute("**/*")
    passed(page.locator("#connection").is_hidden)
    passed(problem.is_hidden)
    expect(cards(visit)).to_have_count(1)
    visit.forgive("status of 404")


def test_a_search_that_fails_is_repeated_and_old_days_are_told(
    visit: Visit, system: System, settings: Settings
) -> None:
    page = visit.page
    token = sign_token(settings, f"user-{uuid4().hex[:8]}", ["exports:all"], hours=72)
    ordered(system, token)
    page.clock.install(time=time.time())
    visit.sign_in(token)
    expect(cards(visit)).to_contain_text("today, ")
    expect(page.locator("#live")).to_have_text("live")
    page.route("**status=failed*", lambda route: route.fulfill(status=503, json=AWAY))
    page.get_by_label("Only with the status").select_option("failed")
    expect(page.locator("#jobs-problem")).to_be_visible()
    page.unroute("**status=failed*")
    page.clock.fast_forward(16_000)
    expect(page.get_by_text("No export matches.")).to_be_visible()
    expect(cards(visit)).to_have_count(0)
    expect(page.locator("#jobs-problem")).to_be_hidden()
    page.get_by_role("button", name="Show all").click()
    expect(cards(visit)).to_contain_text("today, ")
    page.clock.fast_forward("24:00:00")
    expect(cards(visit)).not_to_contain_text("today, ")
    visit.forgive("status of 503")


def test_the_last_choice_of_an_operator_is_shown(visit: Visit, settings: Settings) -> None:
    """A choice that is made while an earlier one is being read. The view is not read twice at once."""
    page = visit.page
    page.clock.install(time=time.time())
    visit.sign_in(sign_token(settings, f"operator-{uuid4().hex[:6]}", ["exports:operate"]))
    page.get_by_role("link", name="Operation", exact=True).click()
    expect(page.get_by_text("Slots in use", exact=True)).to_be_visible()
    page.locator("summary", has_text="Dead letters").click()
    for pattern, label, first, last in (
        ("**/exports/dead-letters?*", "State", "redriven", "discarded"),
        (JOBS, "Status", "failed", "cancelled"),
    ):
        choice = page.get_by_label(label, exact=True)
        routes = held(page, pattern)
        choice.select_option(first)
        wait_for(page, routes, 1)
        choice.select_option(last)
        released(page, pattern)
        with page.expect_request(re.compile(f"={last}")):
            for route in routes:
                route.continue_()
    views = held(page, "**/exports/operations")
    page.clock.fast_forward(5_100)
    wait_for(page, views, 1)
    page.clock.fast_forward(6_000)
    page.clock.fast_forward(6_000)
    with page.expect_response("**/exports/dead-letters?*"):
        page.get_by_role("button", name="Read again").click()
    assert len(views) == 1
    views[0].continue_()


def test_an_estimate_of_an_ended_session_is_asked_for_again(visit: Visit, settings: Settings) -> None:
    page = visit.page
    page.clock.install(time=time.time())
    user = f"user-{uuid4().hex[:8]}"
    visit.sign_in(sign_token(settings, user, ["exports:all"], hours=2))
    visit.choose("orders", "csv")
    expect(page.locator(".estimate")).to_contain_text("rows")
    routes = held(page, ESTIMATES)
    visit.choose("markup", "csv")
    page.clock.fast_forward(400)
    wait_for(page, routes, 1)
    page.clock.fast_forward("02:00:01")
    expect(page.locator("#sign-in-problem")).to_contain_text("Your session has ended")
    released(page, ESTIMATES)
    routes[0].continue_()
    page.get_by_label("Token").fill(sign_token(settings, user, ["exports:all"], hours=12))
    page.get_by_role("button", name="Sign in", exact=True).click()
    expect(page.locator("#builder").get_by_label("Dataset")).to_have_value("markup")
    expect(page.locator(".estimate")).to_contain_text("10 rows")


def test_a_list_that_has_grown_by_itself_begins_anew(visit: Visit, system: System, anybody: str) -> None:
    """It stays small in a tab that is open for days, and few of the running exports are read one by one."""
    page = visit.page
    base = ordered(system, anybody)
    begin = datetime.fromisoformat(base["created_at"])
    known: dict[str, Record] = {}
    asked: list[str] = []

    def newest(route: Route) -> None:
        asked.append("list")
        jobs: list[Record] = []
        for status in ["pending"] * 6 + ["completed"] * 34:
            at = begin + timedelta(seconds=len(known))
            job = base | {"export_job_id": str(uuid4()), "status": status, "created_at": at.isoformat()}
            known[job["export_job_id"]] = job
            jobs.append(job)
        route.fulfill(json={"jobs": jobs, "next_cursor": "older"})

    def one(route: Route) -> None:
        asked.append("one")
        route.fulfill(json=known[route.request.url.rpartition("/")[2]])

    page.clock.install(time=time.time())
    page.route("**/exports/events", lambda route: route.fulfill(status=404, json={"detail": ""}))
    page.route(JOBS, newest)
    page.route("**/exports/jobs/*-*", one)
    visit.sign_in(anybody)
    most = 0

    def is_small_again() -> bool:
        nonlocal most
        page.clock.run_for(1_500)
        count = cards(visit).count()
        most = max(most, count)
        return most > 200 and count == 40

    until(is_small_again)
    assert most == 240
    rounds = "".join(asked).split("list")
    assert max(text.count("one") for text in rounds) == 10
    visit.forgive("status of 404")


def test_a_long_list_with_the_focus_is_not_read_again_and_again(
    visit: Visit, system: System, anybody: str
) -> None:
    """It becomes shorter when the focus has left it. Events tell what changes meanwhile."""
    page = visit.page
    base = ordered(system, anybody)
    many = [base | {"export_job_id": str(uuid4())} for _ in range(240)]
    many[0] |= {"status": "pending", "download_url": None, "row_count": None}
    asked: list[Route] = []

    def listed(route: Route) -> None:
        asked.append(route)
        route.fulfill(json={"jobs": many, "next_cursor": None})

    page.clock.install(time=time.time())
    page.route(JOBS, listed)
    page.route("**/exports/jobs/*-*", lambda route: route.fulfill(json=many[0]))
    visit.sign_in(anybody)
    expect(cards(visit)).to_have_count(240)
    expect(page.locator("#live")).to_have_text("live")
    cards(visit).nth(100).focus()
    page.wait_for_timeout(500)
    del many[40:]
    before = len(asked)
    # Less than the time after which a stream without events counts as ended, on a busy machine, too.
    for _ in range(3):
        page.clock.run_for(1_500)
        page.wait_for_timeout(50)
    assert len(asked) == before
    page.get_by_label("Name", exact=True).focus()
    page.clock.run_for(1_600)
    expect(cards(visit)).to_have_count(40)
