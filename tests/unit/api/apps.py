"""Applications without services. Each is built once a process, because that takes longer than most tests."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from api.app import create_app
from stream_app.settings import Settings

ROOT = Path(__file__).parents[3]


@cache
def app_of(**changes: Any) -> FastAPI:
    """Return the application with these settings. Calls that need a service fail."""
    app = create_app(Settings(_env_file=None, **changes))
    app.state.services = None
    return app


@cache
def openapi() -> dict[str, Any]:
    """Return the document that the application with the default settings builds. It must not be changed."""
    return app_of().openapi()


def published_paths() -> dict[str, Any]:
    """Return the calls of the published document, which another test compares with :func:`openapi`."""
    paths: dict[str, Any] = json.loads((ROOT / "docs" / "openapi.json").read_text("utf-8"))["paths"]
    return paths
