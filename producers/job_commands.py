"""Implements the commands about jobs. They import this module late, because its imports are slow."""

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import typer

from producers.console import INTERRUPTED, about_job, print_json
from producers.display import display, size
from producers.tokens import sign_token, subject_of
from stream_app.command_errors import exit_with
from stream_app.setting_sources import SettingSource, settings_file, sources_of
from stream_app.settings import Settings
from streaming_exporter.api_answers import Job
from streaming_exporter.client import Client
from streaming_exporter.downloads import fetch_all
from streaming_exporter.errors import (
    RETRYABLE_STATUSES,
    ApiError,
    BadSettings,
    JobEnded,
    PublishError,
    UsageError,
)
from streaming_exporter.events import CsvOptions, ExportRequest, Options, PdfOptions
from streaming_exporter.file_warnings import warning_texts
from streaming_exporter.publisher import Publisher

INTERVAL = 0.25
"""Seconds between two polls of a job."""
ADMISSION_SECONDS = 30.0
"""Time-out of the admission: the API does not know a request until a worker has admitted it."""
OUTAGE_SECONDS = 15.0
"""Time after which an outage of the API ends the command."""
MAX_PAUSE_SECONDS = 60.0
"""The longest pause that an answer with ``Retry-After`` makes."""
EXISTENCE_SECONDS = 3.0
"""Time in which the job of a request that was published just before a command is on record."""


def follow(
    api: Client,
    job_id: UUID,
    show: Callable[[Job | None], None],
    *,
    interval: float = INTERVAL,
    admission_seconds: float = ADMISSION_SECONDS,
    outage_seconds: float = OUTAGE_SECONDS,
) -> Job:
    """Poll a job until it has ended; call ``show`` with each response (``None``: not admitted yet).

    A refusal that can pass (too many calls, a time-out, an error of the server) is an outage, and so is an
    answer that there is no such job, or that is not of this API, after the job was seen: it comes from a
    proxy whose API is away. A 404 that is not of this API is an outage before that, too.
    ``Retry-After`` is kept to. The time for which the API asks because of too many calls does not count as an
    outage, and an outage lasts for at least two of the times for which the API asks.

    Raises:
        JobEnded: the job ended without a file.
        ApiError: no worker admitted the request in time, or the API refused or was unavailable too long.
    """
    reached = time.monotonic()
    unknown_since: float | None = None
    is_known = False
    while True:
        now, pause = time.monotonic(), interval
        try:
            job = api.job(job_id)
            if job is None and is_known:
                raise ApiError(f"the API does not know the job {job_id} any more", status=404)
        except ApiError as error:
            if error.retry_after is not None:
                pause = max(interval, min(error.retry_after, MAX_PAUSE_SECONDS))
            if not _can_pass(error, is_known=is_known) or now - reached > max(outage_seconds, 2 * pause):
                raise
            if error.status in RETRYABLE_STATUSES:
                reached += pause
        else:
            reached = now
            unknown_since = None if job is not None else unknown_since or now
            if unknown_since is not None and now - unknown_since > admission_seconds:
                raise ApiError(
                    f"no worker has admitted the request within {admission_seconds:g} s. Check that a worker "
                    "is running (exporter worker) and that the token belongs to the user of the job. "
                    f"The request is not lost. To follow it: exporter watch {job_id}"
                )
            show(job)
            if job is not None:
                is_known = True
                if job.finished:
                    return _with_file(job)
        time.sleep(pause)


def _can_pass(error: ApiError, *, is_known: bool) -> bool:
    """Return whether an error is an outage; ``is_known``: the job was seen."""
    is_404 = error.status == 404
    return error.is_retryable or (is_404 and error.is_foreign) or (is_known and (is_404 or error.is_foreign))


def record_with_delivery(api: Client, job_id: UUID) -> dict[str, Any]:
    """Return a job as the API does. If it has a destination, ``delivery`` is how far its files are sent.

    It is ``None`` until the job is completed.
    """
    record = api.record(job_id)
    if record.get("destination") is None:
        return record
    found = api.call("GET", f"/exports/jobs/{job_id}/deliveries")["deliveries"]
    return record | {"delivery": next((item for item in found if item["channel"] == "destination"), None)}


def _with_file(job: Job) -> Job:
    if job.status == "completed":
        return job
    reason = f": {job.error.message} ({job.error.code})" if job.error else ""
    raise JobEnded(f"export {job.export_job_id} {job.status}{reason}")


ADMIN = "exports:admin"
"""Role for downloads: it can see every job with its data."""
OPERATE = "exports:operate"
"""Role for watching: it can see the status of every job."""


OWN_OPTIONS: dict[str, frozenset[str]] = {
    "csv": frozenset(CsvOptions.model_fields),
    "json": frozenset(),
    "ndjson": frozenset(),
    "excel": frozenset(),
    "pdf": frozenset(PdfOptions.model_fields),
    "parquet": frozenset(),
}
"""The options that are only about one format, of the formats of the service. Other packages add formats."""


def refuse_foreign_options(file_format: str, options: Mapping[str, Any]) -> None:
    """Refuse options of other formats before a request is published: workers ignore them in events.

    Raises:
        UsageError: one of ``options`` belongs to other formats. The text has the options of this one.
    """
    own = OWN_OPTIONS.get(file_format)
    if own is None:
        return
    others = frozenset().union(*OWN_OPTIONS.values()) - own
    foreign = sorted(others & options.keys())
    if foreign:
        allowed = [name for name in Options.model_fields if name not in others]
        raise UsageError(
            f"--option: the format {file_format} has no option {', '.join(foreign)}; leave it out; "
            f"allowed: {', '.join(allowed)}"
        )


def parse_request(data: dict[str, Any]) -> ExportRequest:
    """Return the request that ``data`` describes.

    Raises:
        UsageError: an option is unknown, or belongs to another format; the service would ignore it.
        Rejected: a value has the wrong type.
    """
    unknown = set(data["options"] or ()) - set(Options.model_fields)
    if unknown:
        raise UsageError(
            f"--option: there is no option {', '.join(sorted(unknown))}; "
            f"allowed: {', '.join(Options.model_fields)}"
        )
    refuse_foreign_options(data["format"], data["options"] or {})
    request = ExportRequest.parse(data)
    for address in request.recipients:
        if not re.fullmatch(r"[^@\s]+@[^@\s]+|(?ai:(slack|teams):https?)://\S+", address):
            shown = address.partition("://")[0]  # the rest of a URL can be a secret
            raise UsageError(
                f"--recipient {shown!r}: expected a mail address such as ada@example.com, or slack: or "
                "teams: and the URL of an incoming webhook"
            )
    return request


async def publish_request(settings: Settings, request: ExportRequest, job_id: UUID | None) -> UUID:
    """Publish a request; return the id of the job.

    Raises:
        PublishError: Kafka did not confirm it. The text has the option that repeats the same request.
    """
    async with Publisher(settings) as publisher:
        try:
            return (await publisher.request(request, job_id)).job_id
        except PublishError as error:
            raise _repeatable(
                error, f"repeat it with --job-id {error.job_id}, so that it is one job"
            ) from error


async def publish_cancellation(settings: Settings, job_id: UUID) -> None:
    """Publish the cancellation of a job.

    Raises:
        PublishError: Kafka did not confirm it.
    """
    async with Publisher(settings) as publisher:
        try:
            await publisher.cancel(job_id)
        except PublishError as error:
            raise _repeatable(error, "repeat the command, which does no harm") from error


def rerun(api: Client, job_id: UUID, idempotency_key: str | None) -> dict[str, Any]:
    """Run a job again; return the id and the status of the new job, as the API does.

    Raises:
        ApiError: the API refused the call, or its answer was lost. Then the text says how to repeat it.
    """
    key = idempotency_key or str(uuid4())
    try:
        return api.call("POST", f"/exports/jobs/{job_id}:rerun", idempotency_key=key)
    except ApiError as error:
        if not error.is_in_doubt:
            raise
        text = f"{error}; repeat it with --idempotency-key {key}, so that it is one job"
        in_doubt = ApiError(text, status=error.status, problem_code=error.problem_code, is_in_doubt=True)
        in_doubt.idempotency_key = key
        raise in_doubt from error


def _repeatable(error: PublishError, advice: str) -> PublishError:
    """Return the error with the advice, if the event can have arrived."""
    if not error.is_in_doubt:
        return error
    return PublishError(f"{error}; {advice}", job_id=error.job_id, is_in_doubt=True)


def check_existence(
    settings: Settings, job_id: UUID, url: str | None, token: str | None, user_id: str | None
) -> str:
    """Check over the API that a job exists. It can take a moment until a request is on record.

    Return why it is not known whether it exists, or an empty text.

    Raises:
        ApiError: there is no such job.
    """
    try:
        with open_api(settings, url, token, user_id, role=OPERATE) as api:
            last = time.monotonic() + EXISTENCE_SECONDS
            while api.job(job_id) is None:
                if time.monotonic() > last:
                    break
                time.sleep(INTERVAL)
            else:
                return ""
    except (ApiError, UsageError) as error:
        return f"whether there is such a job is not known: {error}"
    raise ApiError(
        f"there is no job {job_id} on record that this token can see. Check the id. "
        "The cancellation is published: if the request of the job still comes, it is cancelled",
        status=404,
    )


def open_api(
    settings: Settings, url: str | None, token: str | None, user_id: str | None, *, role: str = ADMIN
) -> Client:
    """Return a client of the API with the given token, the configured one, or one that is signed here.

    A token that is signed here belongs to ``user_id``. Without one it is the command's, with only ``role``.

    Raises:
        UsageError: the token and the URL come from different places, or no header can have the token.
    """
    if token is None:
        _refuse_foreign_url(settings, url, "jwt_secret" if settings.token is None else "token")
    if token is None and settings.token is not None:
        token = settings.token.get_secret_value()
    if token is None:
        token = sign_token(settings, user_id) if user_id else sign_token(settings, "exporter-command", [role])
    try:
        return Client((url or settings.public_url).rstrip("/"), token)
    except BadSettings as error:  # commands that can do without the API handle errors of its options
        raise UsageError(str(error)) from error


def warn_of_unused_user(settings: Settings, token: str | None, user_id: str | None) -> None:
    """Say that ``--user-id`` does nothing beside a token of another user: the token decides."""
    if token is None and settings.token is not None:
        token = settings.token.get_secret_value()
    owner = None if token is None else subject_of(token)
    if user_id is not None and owner is not None and owner != user_id:
        typer.secho(
            f"--user-id {user_id} has no effect, because the token is one of {owner!r}: leave out --token "
            "and EXPORTER_TOKEN, so that a token of this user is signed here",
            fg=typer.colors.YELLOW,
            err=True,
        )


def _refuse_foreign_url(settings: Settings, url: str | None, secret: str) -> None:
    """Refuse to send a token to a URL that comes from another place than the token or its secret."""
    of_secret, of_url = sources_of(secret), sources_of("public_url")
    if url is not None:
        foreign = of_secret == {SettingSource.FILE} and (
            of_url == {SettingSource.ENVIRONMENT} or url.rstrip("/") != settings.public_url
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


def follow_to_end(
    api: Client, job_id: UUID, folder: Path | None, *, overwrite: bool = False, as_json: bool = False
) -> None:
    """Show the progress of a job until it ends, then download its files into ``folder`` if one is given.

    A file of the same name with other content stays, unless ``overwrite`` is set. The warnings of the files
    are printed at the end. With ``as_json`` the job and the paths of its files are printed instead.
    """
    try:
        with about_job(job_id), api, display() as shown:
            job = follow(api, job_id, shown.job)
            paths = fetch_all(api, job_id, folder, shown.download, overwrite=overwrite) if folder else []
            record = api.record(job_id) if as_json else None
    except KeyboardInterrupt:
        text = (
            f"The export continues. To follow it: exporter watch {job_id}. To cancel it: "
            f"exporter cancel {job_id}"
        )
        if as_json:
            raise exit_with(text, INTERRUPTED, "interrupted", {"export_job_id": str(job_id)}) from None
        typer.secho(text, fg="yellow", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if record is not None:
        print_json({**record, "files": paths})
        return
    summary = f"{job.row_count or 0:,} rows, {size(job.file_size or 0)}"
    if job.file_count is not None and job.file_count > 1:
        summary = f"{job.file_count:,} files, {summary}"
    where = paths[0] if len(paths) == 1 else folder
    typer.echo(f"{where}: {summary}, sha256 verified" if paths else f"completed: {summary}", err=True)
    for text in warning_texts(job.warnings or {}):
        typer.secho(f"warning: {text}", fg="yellow", err=True)
