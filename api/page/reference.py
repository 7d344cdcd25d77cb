"""Serves the reference at ``/docs``: Swagger UI from this machine, under a policy without foreign origins."""

from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, FastAPI
from fastapi.responses import FileResponse, RedirectResponse
from starlette.exceptions import HTTPException

from api.middleware.response_headers import policy

OWN = Path(__file__).with_name("reference_static")
SWAGGER = Path(str(files("fastapi_offline"))) / "static"
"""Only the files are used: the package's own page has a script in its markup, which the policy forbids."""

ASSETS = {
    "reference.js": OWN / "reference.js",
    "swagger-ui-bundle.js": SWAGGER / "swagger-ui-bundle.js",
    "swagger-ui.css": SWAGGER / "swagger-ui.css",
}

HEADERS = {
    "Content-Security-Policy": policy(
        script_src="'self'",
        style_src="'self'",
        img_src="'self' data:",  # icons in Swagger UI's own styles
        connect_src="'self'",
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}

router = APIRouter(include_in_schema=False)


@router.api_route("/docs", methods=["GET", "HEAD"])
async def reference() -> FileResponse:
    """The page."""
    return FileResponse(OWN / "reference.html", headers=HEADERS)


@router.api_route("/redoc", methods=["GET", "HEAD"])
async def other_reference() -> RedirectResponse:
    """Where the reference was once served by a second program."""
    return RedirectResponse("docs", status_code=308)


@router.api_route("/docs/assets/{name}", methods=["GET", "HEAD"])
async def asset(name: str) -> FileResponse:
    """What the page loads."""
    path = ASSETS.get(name)
    if path is None:
        raise HTTPException(404)
    return FileResponse(path, headers=HEADERS)


def install(app: FastAPI) -> None:
    """Serve the reference at ``/docs``, and what it loads below it."""
    app.include_router(router)
