"""Every response has headers that limit what browsers can do with it; new routes too (S1, S21)."""

import re
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from starlette.routing import Mount
from structlog.testing import capture_logs

from api.middleware.response_headers import DEFAULTS
from tests.rows import each_row
from tests.unit.api.apps import app_of

JOB = "4f1c7a52-6f0e-4b0e-9d5b-0f6f5d1f3a10"
CACHEABLE = {"/", "/docs", "/docs/assets/{name}", "/page"}
"""Paths whose responses are equal for all users. No other response is cached."""


def routes(app: Any) -> Iterator[tuple[str, str]]:
    for route in getattr(app, "original_router", app).routes:
        if isinstance(route, Mount):
            yield "GET", route.path
        elif hasattr(route, "original_router"):
            yield from routes(route)
        else:
            yield from ((method, route.path) for method in route.methods)


ROUTES = sorted(set(routes(app_of())))


def address(path: str) -> str:
    names = {"job_id": JOB, "schedule_id": JOB, "token": "x.y", "name": "swagger-ui.css"}
    return re.sub(r"{(\w+)}", lambda found: names.get(found[1], "1"), path) + (
        "/style.css" if path == "/page" else ""
    )


async def ask(method: str, path: str, **changes: Any) -> httpx2.Response:
    """Return the response. Without services most responses are errors, which are checked too."""
    transport = httpx2.ASGITransport(app_of(**changes), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://api") as client:
        with capture_logs():  # formatting a traceback for a terminal takes long
            return await client.request(method, path, headers={"Accept": "text/html"})


def directives(response: httpx2.Response) -> dict[str, list[str]]:
    parts = (part.split() for part in response.headers["content-security-policy"].split(";"))
    return {name: sources for name, *sources in parts}


def assert_closed(response: httpx2.Response) -> None:
    rules = directives(response)
    assert rules["default-src"] in (["'none'"], ["'self'"])
    assert rules["base-uri"] == rules["frame-ancestors"] == ["'none'"]
    for name, sources in rules.items():
        for source in sources:
            if name != "require-trusted-types-for":
                assert re.fullmatch(r"'none'|'self'|data:|'sha256-[\w+/=]+'", source), (name, source)
                assert source != "data:" or name == "img-src"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"


@each_row(("method", "path"), ROUTES)
async def test_every_response_has_a_strict_policy_and_is_not_cached(method: str, path: str) -> None:
    response = await ask(method, address(path))
    assert_closed(response)
    kept = "no-cache" if path in CACHEABLE and response.status_code < 400 else "no-store"
    assert response.headers["cache-control"] == kept
    assert "strict-transport-security" not in response.headers, "not behind https"


@each_row("path", ["/nowhere", "/exports/nowhere", "/page/nowhere", "/docs/assets/nowhere"])
@each_row("method", ["GET", "PATCH", "FOO"])
async def test_errors_have_the_headers_too(method: str, path: str) -> None:
    response = await ask(method, path)
    assert response.status_code in (401, 404, 405)
    assert_closed(response)


# The test of the policy shows that all responses have the headers that the middleware adds to each of them.
@each_row(("method", "path"), {path.split("/")[1]: (method, path) for method, path in ROUTES}.values())
async def test_behind_https_every_response_has_hsts(method: str, path: str) -> None:
    response = await ask(method, address(path), public_url="https://exports.example.com")
    assert response.headers["strict-transport-security"] == "max-age=31536000"


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_pages_name_no_other_host_and_run_no_script_of_their_own(path: str) -> None:
    page = (await ask("GET", path)).text
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?(?:\w+:)?//", page)
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+\s*=|javascript:|<style|\sstyle\s*=", page)


async def test_all_files_of_the_reference_exist() -> None:
    page = (await ask("GET", "/docs")).text
    names = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(names) == 4
    for name in names:
        assert (await ask("GET", f"/{name}")).status_code == 200, name


async def test_the_reference_can_be_left_out() -> None:
    for path in ("/docs", "/redoc", "/openapi.json", "/docs/assets/reference.js"):
        assert (await ask("GET", path, api_docs=False)).status_code == 404


PROVIDER = {
    "oidc_client_id": "page",
    "oidc_issuer": "https://ID.example.com:443/realms/shop",
    "jwt_jwks_url": "https://id.example.com/jwks",
    "jwt_issuer": "https://id.example.com/realms/shop",
    "jwt_audience": "exports",
}


@pytest.mark.parametrize("path", ["/", "/page/main.js"])
async def test_the_page_connects_only_to_the_api_and_to_the_identity_provider(path: str) -> None:
    """Entry 16: no other directive changes, and other responses have the same policy as before."""
    for further, expected in (
        ("", ["'self'", "https://id.example.com"]),
        (
            "https://token.example.com:8443",
            ["'self'", "https://id.example.com", "https://token.example.com:8443"],
        ),
    ):
        rules = directives(await ask("GET", path, **PROVIDER, oidc_origins=further))
        assert rules.pop("connect-src") == expected
        assert rules == directives(await ask("GET", path))
    for other in ("/docs", "/healthz", "/nowhere"):
        assert directives(await ask("GET", other, **PROVIDER)) == directives(await ask("GET", other))


async def test_the_page_is_told_how_users_sign_in() -> None:
    """Entry 16: everyone can read it, and it has no secret. Local tools are named on this machine only."""
    hint = {"sign_in_hint": "Ask the help desk", "sign_in_url": "https://help.example.com/token"}
    provider = PROVIDER | {"oidc_scopes": "profile  api", "oidc_audience": "exports"}
    response = await ask("GET", "/page/sign-in.json", **provider, **hint)
    assert response.status_code == 200
    assert response.json() == {
        "oidc": {
            "issuer": "https://ID.example.com:443/realms/shop",
            "client_id": "page",
            "scope": "openid profile api",
            "audience": "exports",
            "origins": ["https://id.example.com"],
        },
        "hint": "Ask the help desk",
        "url": "https://help.example.com/token",
        "local": False,
    }
    nothing = {"oidc": None, "hint": None, "url": None}
    assert (await ask("GET", "/page/sign-in.json")).json() == {**nothing, "local": True}
    public = await ask("GET", "/page/sign-in.json", public_url="https://exports.example.com")
    assert public.json() == {**nothing, "local": False}


def test_the_default_allows_nothing() -> None:
    assert DEFAULTS["Content-Security-Policy"] == (
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
