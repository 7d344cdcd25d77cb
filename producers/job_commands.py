"""What the commands do, once it is known what was asked for. Imported by those that need it: it is slow."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import typer

from producers.console import INTERRUPTED
from producers.display import display, size
from producers.download import fetch
from producers.tokens import sign_token
from stream_app.setting_sources import Source, settings_file, sources_of
from stream_app.settings import Settings
from streaming_exporter.api_answers import Job
from streaming_exporter.client import Client
from streaming_exporter.errors import ApiError, JobEnded, UsageError
from streaming_exporter.events import ExportRequest, Options
from streaming_exporter.publisher import Publisher

INTERVAL = 0.25
ADMISSION_SECONDS = 30.0
"""How long a request may go unseen: until a worker has admitted it, the API does not know it."""
OUTAGE_SECONDS = 15.0


def follow(
    api: Client,
    job_id: UUID,
    show: Callable[[Job | None], None],
    *,
    interval: float = INTERVAL,
    admission_seconds: float = ADMISSION_SECONDS,
    outage_seconds: float = OUTAGE_SECONDS,
) -> Job:
    """Ask for the job until it has ended; ``show`` is told each answer (``None``: not admitted yet).

    Raises:
        JobEnded: it ended without a file.
        ApiError: no worker admitted it in time, or the API refused or was away too long.
    """
    started = reached = time.monotonic()
    while True:
        now = time.monotonic()
        try:
            job = api.job(job_id)
        except ApiError as error:
            if (error.status is not None and error.status < 500) or now - reached > outage_seconds:
                raise
        else:
            reached = now
            if job is None and now - started > admission_seconds:
                raise ApiError(
                    f"no worker has admitted the request within {admission_seconds:g} s; is one running "
                    "(exporter worker), and does this token belong to the job's user? "
                    f"The request is kept: exporter watch {job_id}"
                )
            show(job)
            if job is not None and job.finished:
                return _with_file(job)
        time.sleep(interval)


def _with_file(job: Job) -> Job:
    if job.status == "completed":
        return job
    reason = f": {job.error.message} ({job.error.code})" if job.error else ""
    raise JobEnded(f"export {job.export_job_id} {job.status}{reason}")


ADMIN = "exports:admin"
"""Sees every job with what is in it: for who fetches files."""
OPERATE = "exports:operate"
"""Sees how every job stands: for who only looks."""


def parse_request(data: dict[str, Any]) -> ExportRequest:
    """The request that ``data`` describes.

    Raises:
        UsageError: an option that no format has, which the service would ignore.
        Rejected: a value of the wrong shape.
    """
    unknown = set(data["options"] or ()) - set(Options.model_fields)
    if unknown:
        raise UsageError(
            f"--option: there is no option {', '.join(sorted(unknown))}; "
            f"allowed: {', '.join(Options.model_fields)}"
        )
    return ExportRequest.parse(data)


async def publish_request(settings: Settings, request: ExportRequest, job_id: UUID | None) -> UUID:
    """Publish a request; returns the job's id."""
    async with Publisher(settings) as publisher:
        return (await publisher.request(request, job_id)).job_id


async def publish_cancellation(settings: Settings, job_id: UUID) -> None:
    """Publish the wish that a job ends."""
    async with Publisher(settings) as publisher:
        await publisher.cancel(job_id)


def open_api(
    settings: Settings, url: str | None, token: str | None, user_id: str | None, *, role: str = ADMIN
) -> Client:
    """The API with the token given, the configured one, or one that is signed here.

    A token that is signed here is the user's; without one it is the command's own, with ``role`` and no more.

    Raises:
        UsageError: the token and the URL come from different places.
    """
    if token is None:
        _refuse_foreign_url(settings, url, "jwt_secret" if settings.token is None else "token")
    if token is None and settings.token is not None:
        token = settings.token.get_secret_value()
    if token is None:
        token = sign_token(settings, user_id) if user_id else sign_token(settings, "exporter-command", [role])
    return Client((url or settings.public_url).rstrip("/"), token)


def _refuse_foreign_url(settings: Settings, url: str | None, secret: str) -> None:
    """A token goes only to the URL that stands where the token, or the secret that signs it, does."""
    of_secret, of_url = sources_of(secret), sources_of("public_url")
    if url is not None:
        foreign = of_secret == {Source.FILE} and (
            of_url == {Source.ENVIRONMENT} or url.rstrip("/") != settings.public_url
        )
    else:
        foreign = bool(of_secret and of_url) and not of_secret & of_url
    if foreign:
        raise UsageError(
            f"EXPORTER_{secret.upper()} comes from the {_or(of_secret)} and the API's URL from the "
            f"{'command line' if url is not None else _or(of_url)}: a token is only sent to a URL that comes "
            f"from the same place. Pass --token{'' if url is not None else ' or --api-url'}, "
            f"or set both in one place (settings file: {settings_file() or 'none'})"
        )


def _or(sources: frozenset[str]) -> str:
    return " or the ".join(sorted(sources))


def follow_to_end(api: Client, job_id: UUID, folder: Path | None) -> None:
    """Show a job's progress until it ends, then download its file into ``folder``, if one is given."""
    try:
        with api, display() as shown:
            job = follow(api, job_id, shown.job)
            path = fetch(api, job_id, folder, shown.download) if folder else None
    except KeyboardInterrupt:
        typer.secho(
            f"The export goes on: exporter watch {job_id}, or exporter cancel {job_id}", fg="yellow", err=True
        )
        raise typer.Exit(INTERRUPTED) from None
    summary = f"{job.row_count or 0:,} rows, {size(job.file_size or 0)}"
    typer.echo(f"{path}: {summary}, sha256 verified" if path else f"completed: {summary}", err=True)
