"""Calls behind the links in mails: download and unsubscribe. The link itself is the authorization."""

import asyncio
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

import structlog
from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import HTMLResponse

from api import audit_log
from api.documented_route import DocumentedRoute
from api.errors import Problem, problem_of, problem_responses
from api.files.link_pages import LinkPages, wants_html
from api.files.routes import (
    FileCursor,
    FileLimit,
    FileNumber,
    FilePage,
    file_of,
    file_page,
    finished,
    presigned,
)
from api.services import ApiServices, InjectedServices
from stream_app.exports.task import ExportedFile
from stream_app.jobs.job_files import has_several_files
from stream_app.jobs.models import ExportJob
from stream_app.notifications.delivery_links import BadLink, Purpose
from stream_app.notifications.notification import Recipient
from streaming_exporter.errors import ExporterError

router = APIRouter(prefix="/exports", tags=["links"], route_class=DocumentedRoute)
log = structlog.get_logger(__name__)

SHOWN_FILES = 1_000
"""Files that the page of a link lists."""

_REDIRECT: dict[int | str, dict[str, Any]] = {
    307: {
        "description": "Redirect to the file; the URL is valid for a few minutes",
        "headers": {"Location": {"description": "A presigned URL", "schema": {"type": "string"}}},
    },
    **problem_responses(404, 409, 410, 500, 503),
}


Accept = Annotated[
    str, Header(description="With `text/html`, errors are a page instead of a problem document")
]


@router.get(
    "/links/{token}",
    operation_id="followLink",
    status_code=307,
    response_class=Response,
    responses=_REDIRECT,
)
async def follow_link(
    token: str, services: InjectedServices, request: Request, accept: Accept = ""
) -> Response:
    """Download the file of a link in a mail.

    This call needs no token: the link is signed for one recipient of one job. A revoked link is 410.

    A job with several files has a page that lists them for `Accept: text/html`, otherwise 409 with the code
    `several_files`: `GET /exports/links/{token}/files` lists them.
    """
    return await _followed(services, request, token, accept, method="GET")


@router.head(
    "/links/{token}",
    operation_id="probeLink",
    status_code=307,
    response_class=Response,
    responses=_REDIRECT,
)
async def probe_link(
    token: str, services: InjectedServices, request: Request, accept: Accept = ""
) -> Response:
    """Check whether a link in a mail is still valid.

    The same response as GET, with a URL that is signed for HEAD.
    """
    return await _followed(services, request, token, accept, method="HEAD")


async def _followed(
    services: ApiServices, request: Request, token: str, accept: str, *, method: str
) -> Response:
    try:
        followed = await _follow(services, token, method=method)
        if wants_html(accept) and has_several_files(followed.job):
            files = await file_page(services, followed.job, f"{token}/files", limit=SHOWN_FILES, cursor=None)
            pages = LinkPages.of(request, followed.recipient)
            return await asyncio.to_thread(pages.files, files, followed.job)
        file = await _only_file(services, followed.job, token)
        return await _redirect(services, followed, file, method=method)
    except (Problem, ExporterError) as error:
        return _problem_page(request, accept, error)


@router.get(
    "/links/{token}/files",
    operation_id="listFilesOfLink",
    response_model=FilePage,
    responses=problem_responses(404, 409, 410, 422, 500, 503),
)
async def list_files_of_link(
    token: str, services: InjectedServices, limit: FileLimit = 100, cursor: FileCursor = None
) -> FilePage:
    """The files behind a link in a mail.

    A single file is listed too.
    """
    followed = await _follow(services, token)
    folder = f"/exports/links/{token}/files"
    return await file_page(services, followed.job, folder, limit=limit, cursor=cursor)


@router.get(
    "/links/{token}/files/{number}",
    operation_id="downloadFileOfLink",
    status_code=307,
    response_class=Response,
    responses=_REDIRECT,
)
async def download_file_of_link(token: str, number: FileNumber, services: InjectedServices) -> Response:
    """Download one of the files behind a link in a mail.

    This call needs no token either.
    """
    followed = await _follow(services, token)
    return await _redirect(services, followed, await file_of(services, followed.job, number))


@router.head(
    "/links/{token}/files/{number}",
    operation_id="probeFileOfLink",
    status_code=307,
    response_class=Response,
    responses=_REDIRECT,
)
async def probe_file_of_link(token: str, number: FileNumber, services: InjectedServices) -> Response:
    """Check whether one of the files behind a link can be downloaded.

    The same response as GET, with a URL that is signed for HEAD.
    """
    followed = await _follow(services, token, method="HEAD")
    file = await file_of(services, followed.job, number)
    return await _redirect(services, followed, file, method="HEAD")


@dataclass(frozen=True, slots=True)
class _Followed:
    """The finished job of a valid link, and who follows it."""

    job: ExportJob
    actor: str
    recipient: Recipient


async def _follow(services: ApiServices, token: str, *, method: str = "GET") -> _Followed:
    """Return what a link leads to, and record that it was followed.

    Raises:
        Problem: the link is not valid, was revoked, or the job has no files any more.
    """
    delivery_id = _read(services, "links", token)
    recipient = await services.outbox.recipient(delivery_id)
    if recipient is None:
        raise _no_such_link()
    if recipient.revoked_at is not None:
        raise Problem(
            410, "link_revoked", "This link has been withdrawn. Ask the person who sent it for a new one"
        )
    job = await services.job_queries.get(recipient.job_id)
    if job is None:
        raise Problem(410, "gone", "The file no longer exists. Request the export again")
    audit_log.set_actor(f"delivery:{delivery_id}")
    audit_log.set_object("job", job.id, owner=job.user_id)
    finished(job, services.clock.now())
    log.info(
        "link.followed",
        delivery=str(delivery_id),
        address_hash=services.address_hash(recipient.address),
        job=str(job.id),
        owner=job.user_id,
        method=method,
    )
    return _Followed(job, f"delivery:{delivery_id}", recipient)


async def _redirect(
    services: ApiServices, followed: _Followed, file: ExportedFile, *, method: str = "GET"
) -> Response:
    answer = await presigned(services, file, method=method)
    services.download_audit.downloaded(followed.job, file.number, by=followed.actor, method=method)
    return answer


@router.get(
    "/unsubscribe/{token}",
    operation_id="confirmUnsubscribe",
    response_class=HTMLResponse,
    responses=problem_responses(404, 500, 503),
)
async def confirm_unsubscribe(
    token: str, services: InjectedServices, request: Request, accept: Accept = ""
) -> HTMLResponse:
    """Show the page that confirms unsubscribing.

    The page has a button, so a program that only follows links does not unsubscribe the recipient.
    """
    try:
        recipient = await _unsubscribing(services, token)
        return await asyncio.to_thread(LinkPages.of(request, recipient).question, recipient)
    except (Problem, ExporterError) as error:
        return _problem_page(request, accept, error)


@router.post(
    "/unsubscribe/{token}",
    operation_id="unsubscribe",
    response_class=HTMLResponse,
    responses=problem_responses(404, 500, 503),
)
async def unsubscribe(
    token: str, services: InjectedServices, request: Request, accept: Accept = ""
) -> HTMLResponse:
    """Unsubscribe from the mails of a schedule or of a user.

    One-click unsubscribing (RFC 8058): mail programs call this themselves. The body is ignored.
    """
    try:
        recipient = await _unsubscribing(services, token)
        audit_log.set_object("job", recipient.job_id, owner=None)
        await services.outbox.unsubscribe(recipient.address, recipient.topic)
    except (Problem, ExporterError) as error:
        return _problem_page(request, accept, error)
    log.info(
        "mail.unsubscribed", address_hash=services.address_hash(recipient.address), topic=recipient.topic
    )
    return LinkPages.of(request, recipient).stopped(recipient)


async def _unsubscribing(services: ApiServices, token: str) -> Recipient:
    """Return the recipient of a link that unsubscribes, and record who follows it.

    Raises:
        Problem: the link is not valid.
    """
    delivery_id = _read(services, "unsubscribe", token)
    audit_log.set_actor(f"delivery:{delivery_id}")
    recipient = await services.outbox.recipient(delivery_id)
    if recipient is None:
        raise _no_such_link()
    return recipient


def _problem_page(request: Request, accept: str, error: Problem | ExporterError) -> HTMLResponse:
    """Return an error as a page if a person reads it; programs get the error itself."""
    if not wants_html(accept):
        raise error
    return LinkPages.of(request).problem(error if isinstance(error, Problem) else problem_of(error))


async def _only_file(services: ApiServices, job: ExportJob, token: str) -> ExportedFile:
    """Return the file of a job that has a single one.

    Raises:
        Problem: 409 if there are several, 410 if the file no longer exists.
    """
    if has_several_files(job) and job.file_count != 1:
        address = f"/exports/links/{token}/files"
        raise Problem(
            409,
            "several_files",
            f"The export has several files. GET {address} lists them",
            headers={"Link": f'<{address}>; rel="collection"'},
        )
    return await file_of(services, job, 1)


def _read(services: ApiServices, purpose: Purpose, token: str) -> UUID:
    try:
        return services.delivery_links.read(purpose, token)
    except BadLink as error:
        raise _no_such_link() from error


def _no_such_link() -> Problem:
    return Problem(404, "bad_link", "This link is incomplete or invalid. Open it from the e-mail again")
