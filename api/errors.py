"""RFC 9457: every error is an ``application/problem+json`` document."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from streaming_exporter.errors import ExporterError, InDoubt, Rejected, Retryable, Unreadable

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 5


class FieldProblem(BaseModel):
    """One thing that is wrong with the request."""

    field: str
    message: str


class ProblemDocument(BaseModel):
    """An error as RFC 9457 wants it; ``code`` is stable, ``detail`` is for people."""

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
    """An error with its HTTP status."""

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
        """The document, ready to be sent."""
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
        # ASCII, because what a client sent is repeated here and need not be encodable.
        return Response(json.dumps(document), self.status, self.headers, MEDIA_TYPE)


def title(status: int) -> str:
    """The words for a status."""
    return {413: "Content Too Large", 422: "Unprocessable Content"}.get(status) or HTTPStatus(status).phrase


def not_found() -> Problem:
    """No such job, or not this user's: nobody can tell which."""
    return Problem(404, "not_found", "There is no such job, or it is not yours")


def problem_of(error: ExporterError) -> Problem:
    """What an error of the service means over HTTP; what only concerns operators stays in the log."""
    if isinstance(error, Rejected):
        return Problem(422, error.code, str(error), field=error.field)
    if isinstance(error, Unreadable):
        return Problem(422, error.code, str(error))
    if isinstance(error, InDoubt):
        return Problem(
            503,
            error.code,
            "A part of the service did not confirm the change. It may have been made: look, then repeat it",
            headers={"Retry-After": str(RETRY_SECONDS)},
        )
    if isinstance(error, Retryable):
        return Problem(
            503,
            error.code,
            "A part of the service cannot be reached at the moment; nothing was changed, try again",
            headers={"Retry-After": str(RETRY_SECONDS)},
        )
    return internal_error()


def internal_error() -> Problem:
    """A mistake in the service."""
    return Problem(500, "internal_error", "Something went wrong here; the request id leads to the log")


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's description of the problems that a call may answer with."""
    schema = {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}
    return {
        status: {"description": title(status), "content": {MEDIA_TYPE: schema}} for status in sorted(statuses)
    }
