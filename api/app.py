"""Builds the ASGI application of the API."""

import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware

from api import error_handlers as handlers
from api import errors as problems
from api.auth import routes as users
from api.datasets import routes as datasets
from api.destinations import routes as destinations
from api.files import deliveries, delivery_links
from api.files import routes as files
from api.jobs import event_stream as events
from api.jobs import routes as jobs
from api.middleware.head_requests import HeadRequests
from api.middleware.request_context import HEADER, RequestContext
from api.middleware.request_limits import RequestLimits
from api.middleware.response_headers import hsts_headers
from api.operations import control_routes, dead_letter_routes, metrics_server
from api.operations import routes as operations
from api.page import routes as page
from api.parameters import reject_repeated_fields, reject_unknown_parameters
from api.schedules import routes as schedules
from api.server import STOP
from api.services import open_services
from stream_app.observability import telemetry
from stream_app.settings import Settings

DESCRIPTION = """Request exports, follow their progress, and download the files.

Every error is an [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457) problem with a stable `code`.
HEAD is answered wherever GET is, with the same status and headers."""


def create_app(settings: Settings, *, host: str | None = None) -> FastAPI:
    """Build the ASGI application; ``host`` is the address it listens on, if that is known."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        # Here, because uvicorn ends the process by its signal, so code after its run() does not run.
        with telemetry.exporting_spans("exporter-api", f"{socket.gethostname()}-{os.getpid()}"):
            async with open_services(settings) as services:
                app.state.services = services
                async with metrics_server.serve_metrics(services):
                    yield {STOP: services.job_waits.stop}

    app = FastAPI(
        title="Streaming exporter",
        description=DESCRIPTION,
        version=version("streaming-exporter-service"),
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json" if settings.api_docs else None,
        separate_input_output_schemas=False,
        dependencies=[Depends(reject_unknown_parameters), Depends(reject_repeated_fields)],
        # Its spans contain paths with the links of mails, and texts of errors. See
        # stream_app.observability.tracing.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.public_details = operations.details_are_public(settings, host)
    app.add_middleware(HeadRequests)
    app.add_middleware(RequestLimits, settings=settings)
    app.add_middleware(RequestContext, headers=hsts_headers(settings))
    if settings.cors_origins:
        app.add_middleware(CORSMiddleware, **_cors(settings))
    handlers.install(app)
    of_users = (
        *(jobs, events, files, deliveries, delivery_links),
        *(schedules, datasets, destinations, users),
    )
    for routes in (*of_users, control_routes, dead_letter_routes, operations):
        app.include_router(routes.router)
    page.install_page(app, settings, host)
    if settings.api_docs:
        page.install_reference(app)
    _document_problems(app)
    return app


def _cors(settings: Settings) -> dict[str, Any]:
    """Return the CORS settings. Cookies are not allowed: calls from other origins send a token."""
    return {
        "allow_origins": [origin.strip() for origin in settings.cors_origins.split(",")],
        "allow_methods": ["GET", "HEAD", "POST", "PATCH", "DELETE"],
        "allow_headers": [
            "Authorization", "Content-Type", "Idempotency-Key", "If-None-Match", "Last-Event-ID", "Prefer",
            HEADER,
        ],
        "expose_headers": ["ETag", "Location", "Preference-Applied", "Retry-After", HEADER],
        "max_age": 3600,
    }  # fmt: skip


def _document_problems(app: FastAPI) -> None:
    """Add the schema of problems to OpenAPI, in place of FastAPI's own schema of errors."""
    generate = app.openapi
    changed: dict[str, Any] | None = None

    def openapi() -> dict[str, Any]:
        nonlocal changed
        document = generate()
        if document is changed:  # FastAPI builds it once; everybody can ask for it
            return document
        changed = document
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schema = problems.ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        schemas["ProblemDocument"] = schema
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        for path in document["paths"].values():
            for operation in path.values():
                if "HTTPValidationError" in str(operation["responses"].get("422")):
                    del operation["responses"]["422"]
                if "requestBody" in operation:
                    operation["responses"] |= json.loads(
                        json.dumps(problems.problem_responses(400, 408, 413))
                    )
        return document

    app.openapi = openapi  # type: ignore[method-assign]
