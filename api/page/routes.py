"""Serves the page at ``/`` and the API reference at ``/docs``, each with a strict Content-Security-Policy."""

import os
import re
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import RedirectResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import Scope

from api.middleware.response_headers import content_security_policy
from api.page.compressed_files import compressed_content, compressed_response
from api.page.localized import language_of, localized_html, messages_json
from api.page.sign_in import SignIn, sign_in_of
from stream_app.messages.catalogue import LANGUAGES, PARTS_ON_DEMAND
from stream_app.settings import Settings

PAGE_FILES = Path(__file__).with_name("static")
REFERENCE = Path(__file__).with_name("reference_static")
SWAGGER = Path(str(files("fastapi_offline"))) / "static"
"""Folder of Swagger UI. The HTML of that package is not used, because the policy forbids its script."""

REFERENCE_ASSETS = {
    "reference.js": REFERENCE / "reference.js",
    "swagger-ui-bundle.js": SWAGGER / "swagger-ui-bundle.js",
    "swagger-ui.css": SWAGGER / "swagger-ui.css",
}


REFERENCE_HEADERS = {
    "Content-Security-Policy": content_security_policy(
        script_src="'self'",
        style_src="'self'",
        img_src="'self' data:",  # the styles of Swagger UI contain icons
        connect_src="'self'",
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}

reference_router = APIRouter(include_in_schema=False)


def page_headers(sign_in: SignIn) -> dict[str, str]:
    """Return the headers of the page and of its files: it connects only to the API and to the provider."""
    provider = [] if sign_in.oidc is None else [f"connect-src 'self' {' '.join(sign_in.oidc.origins)}"]
    policy = [
        "default-src 'self'",
        *provider,
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "object-src 'none'",
        "require-trusted-types-for 'script'",
    ]
    return {
        "Content-Security-Policy": "; ".join(policy),
        "Cross-Origin-Opener-Policy": "same-origin",
        # Not `immutable`: the names stay the same, so each visit asks whether the files have changed.
        "Cache-Control": "no-cache",
    }


_NO_CODE = re.compile(
    rb"^[ \t]*(?://.*|/\*\*(?s:.*?)\*/[ \t]*)?\n"  # comments in lines of their own, and empty lines
    rb"|(?<=[;,{}()])[ \t]+// .*$"  # comments at the ends of lines
    rb"|^[ \t]+",
    re.MULTILINE,
)


@lru_cache(maxsize=64)
def _script(path: str, modified: float) -> bytes:
    """Return a script without comments and indentation, a fifth of its compressed bytes."""
    del modified
    return _NO_CODE.sub(b"", Path(path).read_bytes())


class PageFiles(StaticFiles):
    """The styles and scripts of the page, with ``headers``."""

    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__(directory=PAGE_FILES)
        self._headers = headers

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """Return the file with the headers, which a 304 carries too."""
        path = os.fspath(full_path)
        if path.endswith(".js"):
            script = _script(path, stat_result.st_mtime)
            return compressed_content(script, "text/javascript", scope, self._headers)
        response = compressed_response(path, scope, self._headers, stat_result)
        response.status_code = status_code
        if self.is_not_modified(response.headers, Headers(scope=scope)):
            response = NotModifiedResponse(response.headers)
            response.headers.update(self._headers)
        return response


@reference_router.api_route("/docs", methods=["GET", "HEAD"])
async def reference(request: Request) -> Response:
    """Return the reference: Swagger UI, served from this machine without any other origin."""
    return compressed_response(REFERENCE / "reference.html", request.scope, REFERENCE_HEADERS)


@reference_router.api_route("/redoc", methods=["GET", "HEAD"])
async def former_reference() -> RedirectResponse:
    """Redirect the path of a second reference, which earlier versions had, to the reference."""
    return RedirectResponse("docs", status_code=308)


@reference_router.api_route("/docs/assets/{name}", methods=["GET", "HEAD"])
def reference_asset(name: str, request: Request) -> Response:
    """Return a file that the reference loads."""
    path = REFERENCE_ASSETS.get(name)
    if path is None:
        raise HTTPException(404)
    return compressed_response(path, request.scope, REFERENCE_HEADERS)


def install_page(app: FastAPI, settings: Settings, host: str | None) -> None:
    """Serve the page at ``/``, and its files and the settings of its sign-in below ``/page``."""
    sign_in = sign_in_of(settings, host)
    headers = page_headers(sign_in)
    router = APIRouter(include_in_schema=False)

    @router.api_route("/", methods=["GET", "HEAD"])
    async def index(request: Request) -> Response:
        """Return the page in the user's language."""
        language = language_of(request)
        own = headers | {"Content-Language": language, "Vary": "Accept-Language, Cookie"}
        html = localized_html(PAGE_FILES / "index.html", language)
        return compressed_content(html, "text/html", request.scope, own)

    @router.api_route("/page/messages/{language}.json", methods=["GET", "HEAD"])
    async def messages(language: str, request: Request) -> Response:
        """Return the messages of the page in one language."""
        if language not in LANGUAGES:
            raise HTTPException(404)
        return compressed_content(messages_json(language), "application/json", request.scope, headers)

    @router.api_route("/page/messages/{language}/{part}.json", methods=["GET", "HEAD"])
    async def messages_of_part(language: str, part: str, request: Request) -> Response:
        """Return the messages of a part of the page that only some users need."""
        if language not in LANGUAGES or part not in PARTS_ON_DEMAND:
            raise HTTPException(404)
        return compressed_content(messages_json(language, part), "application/json", request.scope, headers)

    @router.get("/page/sign-in.json", response_model=SignIn)
    async def how_to_sign_in() -> SignIn:
        """Return how users sign in. Everyone can read it, because the page needs it first."""
        return sign_in

    app.include_router(router)
    app.mount("/page", PageFiles(headers))


def install_reference(app: FastAPI) -> None:
    """Serve the reference at ``/docs`` and its files below it."""
    app.include_router(reference_router)
