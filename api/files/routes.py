"""Calls about the files of a finished job: the list, downloads and the manifest."""

from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict

from api import pagination
from api.auth.authenticator import CurrentUser, User
from api.documented_route import DocumentedRoute
from api.errors import Problem, problem_responses
from api.files import passwords
from api.jobs.routes import POLL_SECONDS, find_job_with_data
from api.jobs.schemas import is_expired
from api.services import ApiServices, InjectedServices
from stream_app.exports.task import ExportedFile
from stream_app.jobs.download_names import download_name
from stream_app.jobs.job_files import has_several_files
from stream_app.jobs.models import ExportJob
from stream_app.jobs.states import UNFINISHED, Status

router = APIRouter(prefix="/exports/jobs", tags=["files"], route_class=DocumentedRoute)


class DownloadLink(BaseModel):
    """The URL of the file, valid for a few minutes."""

    url: str


class FileView(BaseModel):
    """One file of a job. ``file_size`` is in bytes."""

    number: int
    file_name: str
    content_type: str
    row_count: int
    file_size: int
    sha256: str
    download_url: str

    @classmethod
    def of(cls, file: ExportedFile, folder: str) -> Self:
        """Return the view of a file. ``folder`` is the address of the job's files."""
        known = {name: getattr(file, name) for name in cls.model_fields if hasattr(file, name)}
        return cls(**known, download_url=f"{folder}/{file.number}")


class FilePage(BaseModel):
    """Files by their numbers. ``next_cursor`` is the cursor of the page with further ones."""

    files: list[FileView]
    next_cursor: str | None


class Manifest(BaseModel):
    """The properties of a finished file, with which a client can verify it.

    Of several files: the totals, and the name and the SHA-256 of the manifest that is beside them.
    """

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
    """Download the file.

    Redirects to a new presigned URL of the object store. Do not send the token there.

    Scripts in browsers cannot read the target of a redirect. If the header is exactly
    `Accept: application/json`, the response is 200 with `{"url": …}`.

    A job with several files has 409 with the code `several_files`: `GET /exports/jobs/{job_id}/files` lists
    them.
    """
    job = await _finished(services, user, job_id)
    answer = await _redirect(services, user, job, await only_file(services, job))
    return _for_scripts(answer, request)


@router.head(
    "/{job_id}/download",
    operation_id="probeDownload",
    status_code=307,
    response_class=Response,
    responses=_REDIRECT,
)
async def probe_download(job_id: UUID, services: InjectedServices, user: CurrentUser) -> Response:
    """Check whether the file can be downloaded.

    The same response as GET, with a URL that is signed for HEAD.
    """
    job = await _finished(services, user, job_id)
    return await _redirect(services, user, job, await only_file(services, job), method="HEAD")


class FilePassword(BaseModel):
    """The password of all zip archives of a job."""

    password: str


@router.post(
    "/{job_id}:password",
    operation_id="showPassword",
    response_model=FilePassword,
    responses={
        200: {"headers": {"Cache-Control": {"description": "no-store", "schema": {"type": "string"}}}},
        **problem_responses(401, 403, 404, 409, 410, 422, 500, 503),
    },
)
async def show_password(
    job_id: UUID, services: InjectedServices, user: CurrentUser, response: Response
) -> FilePassword:
    """Show the password of the zip archives, once.

    The password of a job with `encrypt.zip_password`. It is never mailed, and it is shown once.

    Only the user of the job can ask for it. The second call has 410 with the code `password_shown`: who has
    lost the password runs the job again, which makes files with another one. If the service has another
    secret now than the worker that made the files, the call has 409 with the code `missing_secret`, and does
    not count.
    """
    job = await find_job_with_data(services, user, job_id)
    password = await passwords.show(services, user, job)
    response.headers["Cache-Control"] = "no-store"
    return FilePassword(password=password)


FileLimit = Annotated[int, Query(ge=1, le=1000, description="Files in one page")]
FileCursor = Annotated[str | None, Query(max_length=200, description="`next_cursor` of the page before")]
FileNumber = Annotated[int, Path(ge=1, le=2**31 - 1, description="The number of the file, from 1")]


@router.get(
    "/{job_id}/files",
    operation_id="listFiles",
    response_model=FilePage,
    responses=problem_responses(401, 404, 409, 410, 422, 500, 503),
)
async def list_files(
    job_id: UUID,
    services: InjectedServices,
    user: CurrentUser,
    limit: FileLimit = 100,
    cursor: FileCursor = None,
) -> FilePage:
    """The files of a job.

    The files are complete in themselves, and have the rows in their order. A single file is listed too.
    """
    job = await _finished(services, user, job_id)
    return await file_page(services, job, f"/exports/jobs/{job_id}/files", limit=limit, cursor=cursor)


@router.get(
    "/{job_id}/files/{number}",
    operation_id="downloadFile",
    status_code=307,
    response_class=Response,
    responses={
        200: {"model": DownloadLink, "description": "The same URL in a body, for `Accept: application/json`"},
        **_REDIRECT,
    },
)
async def download_file(
    job_id: UUID, number: FileNumber, services: InjectedServices, user: CurrentUser, request: Request
) -> Response:
    """Download one of the files.

    Redirects as the download of a single file does. The URL serves ranges of bytes, too.
    """
    job = await _finished(services, user, job_id)
    answer = await _redirect(services, user, job, await file_of(services, job, number))
    return _for_scripts(answer, request)


@router.head(
    "/{job_id}/files/{number}",
    operation_id="probeFile",
    status_code=307,
    response_class=Response,
    responses=_REDIRECT,
)
async def probe_file(
    job_id: UUID, number: FileNumber, services: InjectedServices, user: CurrentUser
) -> Response:
    """Check whether one of the files can be downloaded.

    The same response as GET, with a URL that is signed for HEAD.
    """
    job = await _finished(services, user, job_id)
    return await _redirect(services, user, job, await file_of(services, job, number), method="HEAD")


@router.get(
    "/{job_id}/manifest",
    operation_id="getManifest",
    response_model=Manifest,
    responses=problem_responses(401, 404, 409, 410, 500, 503),
)
async def get_manifest(job_id: UUID, services: InjectedServices, user: CurrentUser) -> Manifest:
    """Rows, bytes, SHA-256 and origin of the file.

    A client verifies the downloaded file with these values.
    """
    job = await _finished(services, user, job_id)
    known = {
        "file_name": job.file_name and download_name(job.file_name, job.export_type, job.name),
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


async def only_file(services: ApiServices, job: ExportJob) -> ExportedFile:
    """Return the file of a finished job that has a single one.

    Raises:
        Problem: 409 if there are several, 410 if the file no longer exists.
    """
    if has_several_files(job) and job.file_count != 1:
        files = "several files" if job.file_count is None else f"{job.file_count:,} files"
        raise Problem(
            409,
            "several_files",
            f"The export has {files}. GET /exports/jobs/{job.id}/files lists them",
            headers={"Link": f'</exports/jobs/{job.id}/files>; rel="collection"'},
        )
    return await file_of(services, job, 1)


async def file_of(services: ApiServices, job: ExportJob, number: int) -> ExportedFile:
    """Return one of the files of a finished job.

    Raises:
        Problem: 404 if the job has no file with this number, 410 if its files no longer exist.
    """
    file = await services.job_files.get(job, number)
    if file is not None:
        return file
    if number > 1 and job.file_path is not None:
        raise Problem(
            404,
            "no_such_file",
            f"The export has no file {number}. GET /exports/jobs/{job.id}/files lists them",
        )
    raise Problem(410, "gone", "The file no longer exists. Request the export again")


async def file_page(
    services: ApiServices, job: ExportJob, folder: str, *, limit: int, cursor: str | None
) -> FilePage:
    """Return a page of the files of a finished job. ``folder`` is the address of its files.

    Raises:
        Problem: 410 if the files no longer exist.
        Rejected: the cursor is not one of this call.
    """
    after = pagination.decode_number(cursor) if cursor else 0
    found = await services.job_files.list(job, after=after, limit=limit + 1)
    if not found and not after:
        raise Problem(410, "gone", "The file no longer exists. Request the export again")
    shown = found[:limit]
    following = pagination.encode_number(shown[-1].number) if len(found) > limit else None
    return FilePage(files=[FileView.of(file, folder) for file in shown], next_cursor=following)


async def _redirect(
    services: ApiServices, user: User, job: ExportJob, file: ExportedFile, *, method: str = "GET"
) -> Response:
    answer = await presigned(services, file, method=method)
    services.download_audit.downloaded(job, file.number, by=user.id, method=method)
    return answer


def _for_scripts(answer: Response, request: Request) -> Response:
    """Return the URL in a body if the request asks for JSON, otherwise the redirect."""
    if request.headers.get("accept") != "application/json":
        return answer
    link = DownloadLink(url=answer.headers["location"])
    return JSONResponse(link.model_dump(), headers={"Cache-Control": "no-store"})


async def presigned(services: ApiServices, file: ExportedFile, *, method: str = "GET") -> Response:
    """Return a redirect to a new presigned URL of a file."""
    # In a thread, because the credentials of a role can need a call over the network.
    link = await services.storage.run_in_thread(
        services.storage.presigned_url, file.key, file.file_name, file.content_type, method=method
    )
    return Response(status_code=307, headers={"Location": link, "Cache-Control": "no-store"})
