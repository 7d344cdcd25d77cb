"""Calls behind the links in mails: download and unsubscribe. The link itself is the authorization."""

from base64 import b64encode
from hashlib import sha256
from html import escape
from typing import Annotated, Any
from uuid import UUID

import structlog
from fastapi import APIRouter, Header, Response
from fastapi.responses import HTMLResponse

from api import audit_log
from api.errors import Problem, problem_responses
from api.files.routes import finished, presigned
from api.middleware.response_headers import content_security_policy
from api.services import ApiServices, InjectedServices
from stream_app.notifications.delivery_links import BadLink, Purpose

router = APIRouter(prefix="/exports", tags=["links"])
log = structlog.get_logger(__name__)

_STYLE = "body{font:16px/1.5 system-ui,sans-serif;max-width:32em;margin:4em auto;padding:0 1em}"
_STYLE_HASH = b64encode(sha256(_STYLE.encode()).digest()).decode()
_POLICY = content_security_policy(style_src=f"'sha256-{_STYLE_HASH}'", form_action="'self'")

_REDIRECT: dict[int | str, dict[str, Any]] = {
    307: {
        "description": "Redirect to the file; the URL is valid for a few minutes",
        "headers": {"Location": {"description": "A presigned URL", "schema": {"type": "string"}}},
    },
    **problem_responses(404, 409, 410, 500, 503),
}


@router.get(
    "/links/{token}",
    operation_id="followLink",
    summary="Download the file of a link in a mail",
    status_code=307,
    response_class=Response,
    responses=_REDIRECT,
)
async def follow_link(
    token: str,
    services: InjectedServices,
    accept: Annotated[
        str, Header(description="With `text/html`, errors are a page instead of a problem document")
    ] = "",
) -> Response:
    """This call needs no token: the link is signed for one recipient of one job. A revoked link is 410."""
    try:
        return await _redirect(services, token)
    except Problem as problem:
        if "text/html" not in accept:
            raise
        return _page(f"<p>{escape(problem.detail)}.</p>", problem.status)


@router.head(
    "/links/{token}",
    operation_id="probeLink",
    summary="Check whether a link in a mail is still valid",
    status_code=307,
    response_class=Response,
    responses=_REDIRECT,
)
async def probe_link(token: str, services: InjectedServices) -> Response:
    """The same response as GET, with a URL that is signed for HEAD."""
    return await _redirect(services, token, method="HEAD")


async def _redirect(services: ApiServices, token: str, *, method: str = "GET") -> Response:
    delivery_id = _read(services, "links", token)
    recipient = await services.outbox.recipient(delivery_id)
    if recipient is None:
        raise _no_such_link()
    if recipient.revoked_at is not None:
        raise Problem(410, "link_revoked", "This link was revoked. Ask the owner of the export for a new one")
    job = await services.job_queries.get(recipient.job_id)
    if job is None:
        raise Problem(410, "gone", "The file no longer exists. Request the export again")
    answer = await presigned(services, finished(job, services.clock.now()), method=method)
    audit_log.set_actor(f"delivery:{delivery_id}")
    audit_log.set_object("job", job.id, owner=job.user_id)
    services.download_audit.downloaded(job, by=f"delivery:{delivery_id}", method=method)
    log.info(
        "link.followed",
        delivery=str(delivery_id),
        address_hash=services.address_hash(recipient.address),
        job=str(job.id),
        owner=job.user_id,
        method=method,
    )
    return answer


@router.get(
    "/unsubscribe/{token}",
    operation_id="confirmUnsubscribe",
    summary="Show the page that confirms unsubscribing",
    response_class=HTMLResponse,
    responses=problem_responses(404, 500, 503),
)
async def confirm_unsubscribe(token: str, services: InjectedServices) -> HTMLResponse:
    """The page has a button, so programs that only follow links do not unsubscribe anybody."""
    audit_log.set_actor(f"delivery:{_read(services, 'unsubscribe', token)}")
    return _page("<p>Do you want to stop receiving these mails?</p><button>Unsubscribe</button>")


@router.post(
    "/unsubscribe/{token}",
    operation_id="unsubscribe",
    summary="Unsubscribe from the mails of a schedule or of a user",
    response_class=HTMLResponse,
    responses=problem_responses(404, 500, 503),
)
async def unsubscribe(token: str, services: InjectedServices) -> HTMLResponse:
    """One-click unsubscribing (RFC 8058): mail programs call this themselves. The body is ignored."""
    delivery_id = _read(services, "unsubscribe", token)
    recipient = await services.outbox.recipient(delivery_id)
    if recipient is None:
        raise _no_such_link()
    audit_log.set_actor(f"delivery:{delivery_id}")
    audit_log.set_object("job", recipient.job_id, owner=None)
    await services.outbox.unsubscribe(recipient.address, recipient.topic)
    log.info(
        "mail.unsubscribed", address_hash=services.address_hash(recipient.address), topic=recipient.topic
    )
    return _page(f"<p>{escape(recipient.address)} will not receive any more of these mails.</p>")


def _read(services: ApiServices, purpose: Purpose, token: str) -> UUID:
    try:
        return services.delivery_links.read(purpose, token)
    except BadLink as error:
        raise _no_such_link() from error


def _no_such_link() -> Problem:
    return Problem(404, "bad_link", "This link is not valid. Copy the complete link from the mail")


def _page(body: str, status: int = 200) -> HTMLResponse:
    return HTMLResponse(
        '<!DOCTYPE html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        "<title>Mails about exports</title>"
        f"<style>{_STYLE}</style><body>"
        f'<form method="post">{body}</form></body></html>',
        status_code=status,
        headers={
            "Content-Security-Policy": _POLICY,
            "X-Robots-Tag": "noindex",
        },
    )
