"""Calls about the file of a finished job: download and manifest."""

from datetime import datetime
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict

from api.auth.authenticator import CurrentUser, User
from api.errors import Problem, problem_responses
from api.jobs.routes import POLL_SECONDS, find_job_with_data
from api.jobs.schemas import is_expired
from api.services import ApiServices, InjectedServices
from stream_app.jobs.models import ExportJob
from stream_app.jobs.states import UNFINISHED, Status

router = APIRouter(prefix="/exports/jobs", tags=["files"])


class DownloadLink(BaseModel):
    """The URL of the file, valid for a few minutes."""

    url: str


class Manifest(BaseModel):
    """The properties of a finished file, with which a client can verify it."""

    model_config = ConfigDict(extra="allow")

    export_job_id: UUID
    file_name: str
    content_type: str
    rows: int
    bytes: int
    sha256: str
    as_of: datetime


_REDIRECT: dict[int | str, dict[str, Any]] = {
    307: {
        "description": "Redirect to the file; the URL is valid for a few minutes",
        "headers": {"Location": {"description": "A presigned URL", "schema": {"type": "string"}}},
    },
    **problem_responses(401, 404, 409, 410, 500, 503),
}


@router.get(
    "/{job_id}/download",
    operation_id="downloadExport",
    summary="Download the file",
    status_code=307,
    response_class=Response,
    responses={
        200: {"model": DownloadLink, "description": "The same URL in a body, for `Accept: application/json`"},
        **_REDIRECT,
    },
)
async def download_export(
    job_id: UUID, services: InjectedServices, user: CurrentUser, request: Request
) -> Response:
    """Redirects to a new presigned URL of the object store. Do not send the token there.

    Scripts in browsers cannot read the target of a redirect. If the header is exactly
    `Accept: application/json`, the response is 200 with `{"url": …}`.
    """
    answer = await _redirect(services, user, await _finished(services, user, job_id))
    if request.headers.get("accept") != "application/json":
        return answer
    link = DownloadLink(url=answer.headers["location"])
    return JSONResponse(link.model_dump(), headers={"Cache-Control": "no-store"})


@router.head(
    "/{job_id}/download",
    operation_id="probeDownload",
    summary="Check whether the file can be downloaded",
    status_code=307,
    response_class=Response,
    responses=_REDIRECT,
)
async def probe_download(job_id: UUID, services: InjectedServices, user: CurrentUser) -> Response:
    """The same response as GET, with a URL that is signed for HEAD."""
    return await _redirect(services, user, await _finished(services, user, job_id), method="HEAD")


@router.get(
    "/{job_id}/manifest",
    operation_id="getManifest",
    summary="Rows, bytes, SHA-256 and origin of the file",
    response_model=Manifest,
    responses=problem_responses(401, 404, 409, 410, 500, 503),
)
async def get_manifest(job_id: UUID, services: InjectedServices, user: CurrentUser) -> Manifest:
    """A client verifies the downloaded file with these values."""
    job = await _finished(services, user, job_id)
    known = {
        "file_name": job.file_name,
        "content_type": job.content_type,
        "rows": job.row_count,
        "bytes": job.file_size,
        "sha256": job.sha256,
        "as_of": job.as_of,
    }
    return Manifest.model_validate({**(job.manifest or {}), **known, "export_job_id": job.id})


async def _finished(services: ApiServices, user: User, job_id: UUID) -> ExportJob:
    """Return the job if the user can see it and its file exists.

    Raises:
        Problem: 404 if the user cannot see the job, and what :func:`finished` raises.
    """
    return finished(await find_job_with_data(services, user, job_id), services.clock.now())


def finished(job: ExportJob, now: datetime) -> ExportJob:
    """Return the job if its file exists at ``now``, by the database's clock.

    Raises:
        Problem: 409 if there is no file yet or never will be, 410 if the file has expired.
    """
    if job.status in UNFINISHED:
        raise Problem(
            409,
            "not_ready",
            f"The export is {job.status}, so there is no file yet. Try again later",
            headers={"Retry-After": str(POLL_SECONDS)},
        )
    if job.status == Status.FAILED:
        raise Problem(409, "export_failed", f"The export failed: {job.error_message}")
    if job.status == Status.CANCELLED:
        raise Problem(
            409, "export_cancelled", "The export was cancelled, so there is no file. Request the export again"
        )
    if job.status == Status.EXPIRED or is_expired(job, now):
        raise Problem(410, "expired", "The file has expired and was removed. Request the export again")
    return job


async def _redirect(services: ApiServices, user: User, job: ExportJob, *, method: str = "GET") -> Response:
    answer = await presigned(services, job, method=method)
    services.download_audit.downloaded(job, by=user.id, method=method)
    return answer


async def presigned(services: ApiServices, job: ExportJob, *, method: str = "GET") -> Response:
    """Return a redirect to a new presigned URL of a finished job's file.

    Raises:
        Problem: 410 if the file no longer exists.
    """
    if job.file_path is None or job.file_name is None or job.content_type is None:
        raise Problem(410, "gone", "The file no longer exists. Request the export again")
    # In a thread, because the credentials of a role can need a call over the network.
    link = await services.storage.call(
        services.storage.presigned_url, job.file_path, job.file_name, job.content_type, method=method
    )
    return Response(status_code=307, headers={"Location": link, "Cache-Control": "no-store"})
