"""Problems (RFC 9457): the documents of all errors, and the table from the service's errors to problems."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from streaming_exporter.errors import ExporterError, InDoubt, Rejected, Retryable, Unreadable

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 5


class FieldProblem(BaseModel):
    """One field of the request with an error."""

    field: str
    message: str


class ProblemDocument(BaseModel):
    """An error as RFC 9457 defines it. ``code`` is stable and for programs, ``detail`` is for people."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "about:blank",
                "title": "Unprocessable Content",
                "status": 422,
                "detail": "format: there is no format 'doc'; allowed: csv, json, ndjson",
                "code": "unknown_format",
                "field": "format",
                "request_id": "5d4f3f0a6f0b4b7f9a3c1f7d2c9e8b10",
            }
        }
    )

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    field: str | None = None
    errors: list[FieldProblem] | None = None
    export_job_id: UUID | None = None
    request_id: str | None = None


class Problem(Exception):
    """An error of a call, with its HTTP status. ``headers`` are added to the response."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        field: str | None = None,
        errors: list[FieldProblem] | None = None,
        headers: Mapping[str, str] | None = None,
        export_job_id: UUID | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.field = field
        self.errors = errors
        self.headers = dict(headers or {})
        self.export_job_id = export_job_id

    def response(self, request_id: str | None = None) -> Response:
        """Return the response with the problem document."""
        document = ProblemDocument(
            title=title(self.status),
            status=self.status,
            detail=self.detail,
            code=self.code,
            field=self.field,
            errors=self.errors,
            export_job_id=self.export_job_id,
            request_id=request_id,
        ).model_dump(mode="json", exclude_none=True)
        # ASCII, because the detail can repeat text of the client that cannot be encoded as UTF-8.
        return Response(json.dumps(document), self.status, self.headers, MEDIA_TYPE)


def title(status: int) -> str:
    """Return the title of an HTTP status, as RFC 9110 names it."""
    return {413: "Content Too Large", 422: "Unprocessable Content"}.get(status) or HTTPStatus(status).phrase


def not_found() -> Problem:
    """Return the problem of a job that does not exist or belongs to another user; both get the same text."""
    return Problem(404, "not_found", "There is no such job, or it belongs to another user")


@dataclass(frozen=True, slots=True)
class _Mapping:
    """Maps an error of the service to a problem. If ``detail`` is ``None``, the error's text is used."""

    error: type[ExporterError]
    status: int
    detail: str | None = None


_MAPPINGS = (
    _Mapping(Rejected, 422),
    _Mapping(Unreadable, 422),
    _Mapping(
        InDoubt,
        503,
        "A part of the service did not confirm the change, so it is not known whether the change was made. "
        "Check the current state before you repeat the request",
    ),
    _Mapping(
        Retryable,
        503,
        "A part of the service is unavailable at the moment, so nothing was changed. Try again later",
    ),
)
"""The first entry whose class fits counts: ``InDoubt`` stands before its base class ``Retryable``."""


NOT_ALLOWED = frozenset({"scope_not_allowed", "missing_claim"})
"""Codes of requests that are valid, but that the user lacks a role or a claim for."""


def problem_of(error: ExporterError) -> Problem:
    """Return the problem of an error of the service; an error that only concerns operators is a 500."""
    for mapping in _MAPPINGS:
        if isinstance(error, mapping.error):
            field = error.field if isinstance(error, Rejected) else None
            status = 403 if error.code in NOT_ALLOWED else mapping.status
            headers = {"Retry-After": str(RETRY_SECONDS)} if mapping.status == 503 else None
            return Problem(status, error.code, mapping.detail or str(error), field=field, headers=headers)
    return internal_error()


def internal_error() -> Problem:
    """Return the problem of a fault of the service."""
    return Problem(
        500,
        "internal_error",
        "The service has failed. Give its operators the request id, so that they find the reason in the log",
    )


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return OpenAPI's description of the problems that a call can answer with."""
    schema = {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}
    return {
        status: {"description": title(status), "content": {MEDIA_TYPE: schema}} for status in sorted(statuses)
    }
