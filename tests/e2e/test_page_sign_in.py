"""Sign-in by OpenID Connect on the page, with a real provider, and sessions that end."""

import json
import re
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, Page, Request, Response, Route, expect

from dev.process import free_ports
from producers.tokens import sign_token
from stream_app.settings import Settings
from tests.e2e.browser import Visit, visiting
from tests.e2e.conftest import System
from tests.e2e.identity_provider import IdentityProvider

pytestmark = pytest.mark.browser

AHEAD = 3 * 3600
"""Seconds by which the clock of a browser is ahead of the service."""

STORED = "JSON.stringify({...sessionStorage})"


@pytest.fixture(scope="module")
def provider(system: System) -> Iterator[IdentityProvider]:
    """The provider, with an API whose page signs in there."""
    (port,) = free_ports(1)
    provider = IdentityProvider(f"http://127.0.0.1:{port}/", system.stack.run_dir)
    provider.start()
    api = system.stack.start_api(port, settings=system.extra | provider.settings())
    yield provider
    api.stop()
    provider.stop()


@pytest.fixture
def tab(provider: IdentityProvider, browser: Browser, system: System) -> Iterator[Visit]:
    """A tab on that API. No other host is asked but the provider."""
    if not provider.running:
        provider.start()
    provider.set_seconds(code=60, token=3600)
    store = system.stack.settings()["EXPORTER_S3_ENDPOINT"]
    with visiting(browser, provider.page.rstrip("/"), store) as opened:
        know(opened, provider)
        yield opened


def know(tab: Visit, provider: IdentityProvider) -> None:
    """Allow the tab to visit the provider, whose own pages name a font on the internet."""
    tab.allowed |= {urlsplit(provider.address).netloc, "fonts.googleapis.com"}
    tab.page.route("https://fonts.googleapis.com/**", lambda route: route.fulfill(content_type="text/css"))
    tab.page.route("**/favicon.ico", lambda route: route.fulfill(status=204))


def sign_in(tab: Visit, name: str = "ada") -> None:
    """Sign in on the page."""
    tab.page.get_by_role("button", name="Sign in", exact=True).click()
    enter(tab.page, name)
    expect(tab.page.get_by_role("heading", name="New export")).to_be_visible()


def enter(page: Page, name: str = "ada") -> None:
    """Enter a name at the provider, and allow the page to act for the user."""
    page.get_by_placeholder("Enter any login").fill(name)
    page.get_by_placeholder("and password").fill("x")
    page.get_by_role("button", name="Sign-in").click()
    page.get_by_role("button", name="Continue").click()


def stored(page: Page) -> dict[str, str]:
    return json.loads(page.evaluate(STORED))  # type: ignore[no-any-return]


def test_a_user_signs_in_exports_and_signs_out(tab: Visit, provider: IdentityProvider) -> None:
    page = tab.page
    asked: list[Request] = []
    page.on("request", lambda request: asked.append(request))
    tab.open()
    sign_in(tab, "ada+exports:admin")
    expect(page.locator("#who")).to_contain_text("ada+exports:admin (admin) signed in until ")
    (sent,) = [request for request in asked if urlsplit(request.url).path == "/auth"]
    wanted = parse_qs(urlsplit(sent.url).query)
    assert wanted["response_type"] == ["code"]
    assert wanted["code_challenge_method"] == ["S256"]
    assert {"state", "nonce", "code_challenge", "audience", "resource"} <= set(wanted)
    (exchange,) = [request for request in asked if urlsplit(request.url).path == "/token"]
    assert "client_secret" not in (exchange.post_data or "")
    assert exchange.headers.get("authorization") is None
    # Neither code nor token stays in the address, in another storage, or with another tab.
    assert page.evaluate("[location.href, localStorage.length, document.cookie]") == [provider.page, 0, ""]
    assert set(stored(page)) == {"exports.token", "exports.session"}
    page.reload()
    expect(page.get_by_role("heading", name="New export")).to_be_visible()
    tab.choose("orders", "csv")
    expect(tab.export().locator(".state")).to_have_text("Ready")
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("button", name="Yes, sign me out").click()
    expect(page.get_by_role("button", name="Sign in", exact=True)).to_be_focused()
    assert stored(page) == {}
    page.get_by_role("button", name="Sign in", exact=True).click()
    expect(page.get_by_placeholder("Enter any login")).to_be_visible()  # the provider's session has ended too
    tab.forgiven.append("status of 401")  # a call can be on its way when the user signs out


def test_the_provider_leads_back_to_what_the_address_names(tab: Visit, provider: IdentityProvider) -> None:
    """P7: a link to an export, which does not exist any more. The first sign-in fails."""
    link = f"{provider.page}#job-{uuid4()}"
    tab.page.goto(link)
    tab.page.get_by_role("button", name="Sign in", exact=True).click()
    tab.page.get_by_role("link", name="Cancel").click()
    expect(tab.page.get_by_role("alert")).to_contain_text("You did not allow")
    sign_in(tab)
    expect(tab.page.get_by_role("alert")).to_contain_text("This export no longer exists")
    assert tab.page.url == link
    tab.forgive("status of 404")


def test_a_sign_in_that_fails_says_why(tab: Visit, provider: IdentityProvider) -> None:
    page = tab.page
    alert = page.get_by_role("alert")

    def refused(said: str) -> None:
        expect(alert).to_contain_text(said)
        expect(page.get_by_role("heading", name="New export")).to_be_hidden()
        assert page.url == provider.page
        assert stored(page) == {}

    for query in ("code=x&state=y", "error=access_denied&state=y", "code=x&state="):
        page.goto(f"{provider.page}?{query}")  # this page did not begin the sign-in
        refused("was not started in this tab")
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.get_by_role("link", name="Cancel").click()
    refused("You did not allow")

    def late(route: Route) -> None:
        time.sleep(1.5)  # the code is valid for one second
        route.continue_()

    provider.set_seconds(code=1)
    page.route("**/token", late)
    page.get_by_role("button", name="Sign in", exact=True).click()
    enter(page)
    refused("took too long")
    page.unroute("**/token")

    def changed(route: Route) -> None:
        answer: Any = route.fetch()
        body = answer.json()
        header, claims, signature = body["id_token"].split(".")
        body["id_token"] = f"{header}.e30.{signature}"
        assert claims
        route.fulfill(response=answer, json=body)

    provider.set_seconds(code=60)
    page.route("**/token", changed)
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.get_by_role("button", name="Continue").click()  # the provider still knows the user
    refused("was not started in this tab")
    page.unroute("**/token")

    provider.kill()
    page.reload()
    page.get_by_role("button", name="Sign in", exact=True).click()
    refused("The sign-in service does not answer")
    tab.forgive("status of 400|ERR_CONNECTION_REFUSED")
    provider.start()
    sign_in(tab)


def test_a_session_is_renewed_and_at_its_end_the_form_is_kept(tab: Visit, provider: IdentityProvider) -> None:
    """The browser's clock is three hours ahead of the service and the provider."""
    page = tab.page
    page.clock.install(time=time.time() + AHEAD)
    renewals: list[Request] = []
    page.on(
        "request", lambda one: renewals.append(one) if "=refresh_token" in (one.post_data or "") else None
    )
    tab.open()
    sign_in(tab)
    first = stored(page)["exports.token"]
    tab.choose("orders", "ndjson")
    tab.filter("total", "at least").get_by_label("Value for total").fill("20")
    tab.filter("note", "starts with")  # its value is still empty
    page.locator("summary", has_text="Mail").click()
    page.get_by_label("Send a mail to these addresses").fill("ada@example.com")
    assert renewals == []
    with page.expect_request("**/token") as renewal:
        page.clock.fast_forward("54:30")
    assert "grant_type=refresh_token" in (renewal.value.post_data or "")
    page.wait_for_function("token => sessionStorage['exports.token'] !== token", arg=first)
    expect(page.locator("#session")).to_be_hidden()

    provider.restart()  # it knows neither the session nor the refresh token any more
    with page.expect_request("**/token"):
        page.clock.fast_forward("54:30")  # of the new session: its begin has the time of the service
    page.clock.fast_forward("01:00")
    assert len(renewals) == 2
    expect(page.locator("#session")).to_contain_text(re.compile(r"Your session ends at \d\d:\d\d"))
    page.get_by_role("button", name="Sign in again").click()
    enter(page)
    expect(page.get_by_role("heading", name="New export")).to_be_visible()
    expect(page.get_by_label("Dataset")).to_have_value("orders")
    expect(page.get_by_label("Format")).to_have_value("ndjson")
    expect(page.get_by_label("Value for total")).to_have_value("20")
    expect(page.get_by_label("Value for note")).to_have_value("")
    expect(page.get_by_label("Send a mail to these addresses")).to_have_value("ada@example.com")
    assert set(stored(page)) == {"exports.token", "exports.session"}
    tab.forgive("status of 400")


def test_a_pasted_token_that_ends_keeps_the_form(visit: Visit, settings: Settings) -> None:
    """It warns 5 minutes before, by the time of the service. Only the same user finds what was entered."""
    page = visit.page
    page.clock.install(time=time.time() + AHEAD)
    visit.sign_in(sign_token(settings, "ada", hours=2))
    visit.choose("orders", "csv")
    visit.filter("total", "at least").get_by_label("Value for total").fill("20")
    page.clock.fast_forward("01:54:00")
    expect(page.locator("#session")).to_be_hidden()
    page.clock.fast_forward("01:30")
    expect(page.locator("#session")).to_contain_text("Your session ends at ")
    page.get_by_role("button", name="Sign in again").click()
    page.get_by_role("button", name="Back").click()
    expect(page.get_by_label("Value for total")).to_have_value("20")
    page.clock.fast_forward("05:00")
    expect(page.get_by_role("alert")).to_contain_text("Your session has ended")
    assert stored(page) == {}
    for user, value, hours in (("ada", "20", 24), ("bob", None, 72)):
        page.get_by_label("Token").fill(sign_token(settings, user, hours=hours))
        page.get_by_role("button", name="Sign in", exact=True).click()
        expect(page.get_by_role("heading", name="New export")).to_be_visible()
        expect(page.locator("#who")).to_contain_text(user)
        if value:
            expect(page.get_by_label("Value for total")).to_have_value(value)
        else:
            expect(page.get_by_label("Value for total")).to_have_count(0)
        page.clock.fast_forward(hours * 3_600_000)
        expect(page.get_by_role("alert")).to_contain_text("Your session has ended")


def test_a_token_that_the_service_refuses_is_renewed_and_the_list_goes_on(tab: Visit) -> None:
    """Such a token was revoked, or its key was removed, before its end."""
    page = tab.page
    tab.open()
    sign_in(tab)
    first = stored(page)["exports.token"]

    def refuse(route: Route) -> None:
        if route.request.headers["authorization"] == f"Bearer {first}":
            route.fulfill(status=401, json={"code": "invalid_token", "detail": "The token is not valid"})
        else:
            route.continue_()

    page.route("**/exports/jobs?*", refuse)

    def listed(answer: Response) -> bool:
        return "/exports/jobs?" in answer.url and answer.request.headers["authorization"] != f"Bearer {first}"

    with page.expect_response(listed) as answer:
        page.get_by_label("Only with the status").select_option("failed")
    assert answer.value.ok
    assert stored(page)["exports.token"] != first
    expect(page.get_by_label("Only with the status")).to_have_value("failed")
    page.unroute("**/exports/jobs?*")
    page.get_by_label("Only with the status").select_option("")
    tab.choose("orders", "csv")
    expect(tab.export().locator(".state")).to_have_text("Ready")
    tab.forgive("status of 401")


@pytest.mark.parametrize(
    "held", ["**/exports/jobs?*", "**/exports/schedules?*", "**/exports/operations", "**/page/operations.js"]
)
def test_an_answer_after_a_session_shows_nothing(visit: Visit, settings: Settings, held: str) -> None:
    """The sign-in alone is shown then, for each call that was under way when the session ended."""
    page = visit.page
    page.clock.install()
    page.goto(visit.url + ("/#operations" if held.endswith("/operations") else "/"))
    token = sign_token(settings, "ada", ["exports:admin"], hours=2)
    page.evaluate("token => sessionStorage.setItem('exports.token', token)", token)
    routes: list[Route] = []
    page.route(held, lambda route: routes.append(route))
    with page.expect_request(held):
        page.reload()
    page.clock.fast_forward("02:00:01")
    page.route(held, lambda route: route.continue_())  # of two handlers, the later one
    for route in routes:
        route.continue_()
    expect(page.locator("#sign-in-problem")).to_contain_text("Your session has ended")
    page.wait_for_load_state("networkidle")
    expect(page.get_by_role("alert")).to_have_count(1)
    for part in ("#desk", "#operations", "#places"):
        expect(page.locator(part)).to_be_hidden()


def test_a_session_that_is_renewed_while_the_user_signs_out_has_ended(tab: Visit) -> None:
    page = tab.page
    page.clock.install()
    tab.open()
    sign_in(tab)
    renewals: list[Route] = []
    page.route("**/exports/me", lambda route: renewals.append(route))
    page.route("**/revocation", lambda route: None)  # the tab stays, because the provider does not answer
    with page.expect_request("**/exports/me"):
        page.clock.fast_forward("54:30")
    with page.expect_request("**/revocation"):
        page.get_by_role("button", name="Sign out").click()
    with page.expect_response("**/exports/me") as answer:
        renewals[0].continue_()
    answer.value.finished()
    assert stored(page) == {}
    expect(page.locator("#desk")).to_be_hidden()


def test_an_action_whose_token_is_refused_is_done_with_a_new_token(tab: Visit) -> None:
    """As after a computer has slept longer than a token lives. The service has done nothing yet."""
    page = tab.page
    tab.open()
    sign_in(tab)
    first = stored(page)["exports.token"]

    def refuse(route: Route) -> None:
        if route.request.method == "POST" and route.request.headers["authorization"] == f"Bearer {first}":
            route.fulfill(status=401, json={"code": "expired_token", "detail": "The token has expired"})
        else:
            route.continue_()

    page.route("**/exports/**", refuse)
    tab.choose("orders", "csv")
    expect(page.locator(".estimate")).to_contain_text("rows")
    expect(tab.export().locator(".state")).to_have_text("Ready")
    assert stored(page)["exports.token"] != first
    tab.forgive("status of 401")


def test_calls_of_a_user_who_has_left_are_not_repeated(visit: Visit, settings: Settings) -> None:
    """An export that Ada requested when she left is not requested again with Bob's token."""
    page = visit.page
    page.clock.install()
    visit.sign_in(sign_token(settings, "ada", ["exports:admin"]))
    visit.choose("orders", "csv")
    expect(page.locator(".estimate")).to_contain_text("rows")
    requested: list[Route] = []
    page.route("**/exports/jobs", lambda route: requested.append(route))
    with page.expect_request("**/exports/jobs"):
        page.get_by_role("button", name="Export", exact=True).click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("button", name="Sign in", exact=True)).to_be_visible()
    page.get_by_label("Token").fill(sign_token(settings, "bob"))
    page.get_by_role("button", name="Sign in", exact=True).click()
    expect(page.locator("#who")).to_contain_text("bob")
    with page.expect_console_message(lambda message: "ERR_FAILED" in message.text):
        requested[0].abort()  # the call can be repeated, because it has a key
    page.clock.fast_forward("00:05")  # longer than the pause before a repetition
    page.wait_for_function("() => true")
    assert len(requested) == 1
    expect(page.get_by_label("Token")).to_have_value("")
    assert page.locator("#operations").inner_html() == ""
    visit.forgive("ERR_FAILED")
