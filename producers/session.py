"""What the commands do, once it is known what was asked for. Imported by those that need it: it is slow."""

from pathlib import Path
from typing import Any
from uuid import UUID

import typer

from producers.client import Api
from producers.console import INTERRUPTED
from producers.display import display, size
from producers.download import fetch
from producers.errors import UsageError
from producers.publisher import Publisher
from producers.tokens import mint
from producers.watch import follow
from stream_app.events import ExportRequest, Options
from stream_app.setting_sources import ENVIRONMENT, FILE, settings_file, sources_of
from stream_app.settings import Settings

ADMIN = "exports:admin"
"""Sees every job with what is in it: for who fetches files."""
OPERATE = "exports:operate"
"""Sees how every job stands: for who only looks."""


def order_of(data: dict[str, Any]) -> ExportRequest:
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


async def publish_request(settings: Settings, order: ExportRequest, job_id: UUID | None) -> UUID:
    """Publish a request; returns the job's id."""
    async with Publisher(settings) as publisher:
        return (await publisher.request(order, job_id)).job_id


async def publish_cancellation(settings: Settings, job_id: UUID) -> None:
    """Publish the wish that a job ends."""
    async with Publisher(settings) as publisher:
        await publisher.cancel(job_id)


def open_api(
    settings: Settings, url: str | None, token: str | None, user_id: str | None, *, role: str = ADMIN
) -> Api:
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
        token = mint(settings, user_id) if user_id else mint(settings, "exporter-command", [role])
    return Api((url or settings.public_url).rstrip("/"), token)


def _refuse_foreign_url(settings: Settings, url: str | None, secret: str) -> None:
    """A token goes only to the URL that stands where the token, or the secret that signs it, does."""
    of_secret, of_url = sources_of(secret), sources_of("public_url")
    if url is not None:
        foreign = of_secret == {FILE} and (of_url == {ENVIRONMENT} or url.rstrip("/") != settings.public_url)
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


def follow_to_end(api: Api, job_id: UUID, folder: Path | None) -> None:
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
