"""``exporter worker`` and ``exporter migrate``; ``python -m stream_app`` runs a worker."""

import json
import logging
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from stream_app.command_errors import FAILED, USAGE, AsJson, error_fields, exit_with
from stream_app.destinations.command import cli as destinations
from stream_app.doctor.datasets_file.cli import cli as datasets
from stream_app.doctor.part import Part
from stream_app.termination import exit_on_sigterm

if TYPE_CHECKING:
    from stream_app.doctor.findings import Finding
    from stream_app.jobs.erasure import ErasureResult
    from stream_app.settings import Settings
    from streaming_exporter.errors import ExporterError

CANCEL_SECONDS = 60
"""Seconds of each wait of ``forget``: for the jobs that it has cancelled, and for files at destinations."""

cli = typer.Typer(
    add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False
)
cli.add_typer(datasets, name="datasets")
cli.add_typer(destinations, name="destinations")


@cli.command()
def worker() -> None:
    """Run a worker until SIGTERM, which drains it.

    It admits requests, runs exports and records what happened.
    """
    exit_on_sigterm()
    import asyncio

    from stream_app.garbage_collection import without_collections

    with without_collections():
        import faust
        import uvloop

        from stream_app.composition.health import create_worker_health
        from stream_app.composition.worker import create_app
        from stream_app.observability import telemetry
        from stream_app.observability.metrics_server import start_metrics_server
        from stream_app.setting_errors import warn_of_unknown_settings
        from stream_app.worker.health import wait_for_topics
        from streaming_exporter.errors import ExporterError

    settings = _logging_settings()
    warn_of_unknown_settings()
    if settings.ready_file is not None:
        settings.ready_file.unlink(missing_ok=True)
    if settings.metrics_port is not None:
        start_metrics_server(settings.metrics_host, settings.metrics_port)
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        app = create_app(settings)
        loop.run_until_complete(wait_for_topics(settings, app.conf.broker_client_id))
    except ExporterError as error:
        raise _failed(error) from error
    running = faust.Worker(
        app,
        create_worker_health(settings, app),
        loop=loop,
        loglevel=settings.log_level,
        override_logging=False,
        quiet=True,
    )
    running.spinner = None  # it writes control characters among the lines of the log
    with telemetry.exporting_spans("exporter-worker", app.conf.broker_client_id):
        running.execute_from_commandline()


@cli.command()
def migrate(as_json: AsJson = False) -> None:
    """Create or upgrade the tables of the service.

    They are in EXPORTER_DATABASE_URL. Tables that a newer version has upgraded are left as they are.
    """
    exit_on_sigterm()
    from stream_app.db.engine import outages_are_retryable
    from stream_app.db.migrations import upgrade
    from streaming_exporter.errors import ExporterError

    settings = _logging_settings()
    try:
        with outages_are_retryable():
            newer = upgrade(settings)
    except ExporterError as error:
        raise _failed(error) from error
    if as_json:
        typer.echo(json.dumps({"migrated": newer is None, "newer_revision": newer}))
    elif newer is not None:
        typer.echo(
            f"The tables are newer than this version: they have revision {newer}. Nothing was changed."
        )
    else:
        typer.echo("The tables are up to date.")


@cli.command()
def resend(
    job_id: Annotated[UUID, typer.Argument(metavar="JOB", help="The job whose deliveries are sent again")],
    to: Annotated[
        str | None, typer.Option(help="Only to this address, even if it was refused before")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send the deliveries of a job again.

    Mails, chat messages, webhooks and files that failed, were skipped, or of which it is not known whether
    they were sent.
    """
    import asyncio

    from stream_app.db.engine import create_engine
    from stream_app.notifications.outbox import Outbox
    from streaming_exporter.errors import ExporterError

    settings = _logging_settings()

    async def due() -> list[str]:
        engine = create_engine(settings, application="exporter resend")
        try:
            return await Outbox(engine).resend(job_id, to)
        finally:
            await engine.dispose()

    try:
        addresses = asyncio.run(due())
    except ExporterError as error:
        raise _failed(error) from error
    if as_json:
        typer.echo(json.dumps({"export_job_id": str(job_id), "addresses": addresses}))
        return
    typer.echo("\n".join(addresses) or "Nothing about that job is failed, skipped or ambiguous.")


@cli.command()
def forget(
    user_id: Annotated[str | None, typer.Option(help="Remove the data of this user")] = None,
    address: Annotated[
        str | None, typer.Option(help="Remove this mail address, or this URL of a webhook or a chat")
    ] = None,
    leave_files: Annotated[
        bool,
        typer.Option(
            "--leave-files",
            help="Erase also the records of files that could not be removed from destinations, and print "
            "where they are",
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove the personal data of a user, or one address.

    Files, filters, addresses and schedules; or the address everywhere.
    The user's unfinished jobs are cancelled first, and incomplete sets of files are removed from
    destinations. Events in Kafka, lines in logs, mails and sets of files that were sent are not removed: they
    end with their own retention.
    """
    import asyncio

    from streaming_exporter.errors import ExporterError

    if (user_id is None) == (address is None):
        raise exit_with("give either --user-id or --address", USAGE, "usage")
    settings = _logging_settings()
    if not yes:
        typer.confirm(f"Remove the data of {user_id or address}? This cannot be undone.", abort=True)
    try:
        done = asyncio.run(_erase(settings, user_id, address, leave_files=leave_files))
    except ExporterError as error:
        raise _failed(error, "run the command again") from error
    if as_json:
        typer.echo(json.dumps(asdict(done)))
        return
    if user_id is None and not (done.jobs or done.schedules or done.deliveries):
        typer.echo("No job, schedule or delivery has this address. Check how it is written.", err=True)
    typer.echo(
        f"Erased {done.jobs} jobs, removed {done.files} files, {done.schedules} schedules "
        f"and {done.deliveries} deliveries."
        if user_id is not None
        else f"Removed the address from {done.jobs} jobs, {done.schedules} schedules "
        f"and {done.deliveries} deliveries."
    )


async def _erase(
    settings: "Settings", user_id: str | None, address: str | None, *, leave_files: bool
) -> "ErasureResult":
    from stream_app.db.engine import create_engine
    from stream_app.jobs.erasure import PersonalDataEraser
    from stream_app.jobs.queue import JobQueue
    from stream_app.storage.object_store import ObjectStore

    engine, storage = create_engine(settings, application="exporter forget"), ObjectStore(settings)
    eraser = PersonalDataEraser(
        engine,
        lambda key: storage.run_in_thread(storage.removal.remove_job, key),
        lambda line: typer.echo(line, err=True),
    )
    try:
        if user_id is None:
            return await eraser.erase_address(address or "")
        await eraser.pause_schedules(user_id)
        if jobs := await eraser.unfinished(user_id):
            typer.echo(f"Cancelling {len(jobs)} unfinished jobs …", err=True)
            queue = JobQueue.of(settings, engine)
            for job_id in jobs:  # the workers publish the outcomes
                async with queue.transaction() as connection:
                    await queue.cancellations.cancel(connection, job_id)
        return await eraser.erase_user(user_id, wait_seconds=CANCEL_SECONDS, leave_files=leave_files)
    finally:
        storage.close()
        await engine.dispose()


@cli.command()
def doctor(
    full: Annotated[bool, typer.Option("--full", help="Check every file and job, not a sample")] = False,
    as_json: AsJson = False,
    ready: Annotated[
        bool, typer.Option("--ready", help="Only check whether the worker of EXPORTER_READY_FILE is ready")
    ] = False,
    part: Annotated[
        Part | None,
        typer.Option(
            help="The part of the service whose settings and rights these are. "
            "Default: worker if EXPORTER_READY_FILE is set, otherwise all"
        ),
    ] = None,
) -> None:
    """Compare database, topics and bucket, without changes.

    Only one small object is written to the bucket, and removed. The exit code is 1 if there is a problem.
    """
    import asyncio

    settings = _settings()
    if ready:
        from stream_app.worker.liveness import is_ready

        raise typer.Exit(0 if is_ready(settings.ready_file) else FAILED)
    import structlog
    from rich.console import Console

    from stream_app.doctor.checks import run_checks
    from stream_app.doctor.findings import State, show, worst
    from stream_app.doctor.findings import as_json as json_of

    checked = part or Part.of(settings)

    async def collect() -> "list[Finding]":
        return [finding async for finding in run_checks(settings, full=full, part=checked)]

    logging.getLogger().addHandler(logging.NullHandler())  # what libraries log is among the findings
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    findings = asyncio.run(collect())
    if as_json:
        typer.echo(json_of(findings))
    else:
        show(findings, Console())
    raise typer.Exit(FAILED if worst(findings) is State.PROBLEM else 0)


def _failed(error: "ExporterError", advice: str = "") -> typer.Exit:
    """Print an error as one line; return the exit with its code, which is 2 for settings."""
    from streaming_exporter.errors import BadSettings, Retryable

    text = str(error)
    if isinstance(error, Retryable) and text.startswith("state database: "):
        text += "; check that PostgreSQL runs and that EXPORTER_DATABASE_URL is right"
    code = USAGE if isinstance(error, BadSettings) else FAILED
    return exit_with(f"{text}, then {advice}" if advice else text, code, error.code, error_fields(error))


def _settings() -> "Settings":
    """Return the settings. If some cannot be used, print a line for each and end the command."""
    from stream_app.setting_errors import load_settings
    from streaming_exporter.errors import BadSettings

    try:
        return load_settings()
    except BadSettings as error:
        raise exit_with(str(error), USAGE, error.code) from error


def _logging_settings() -> "Settings":
    """Return the settings, after the log was directed to standard error: it is no result."""
    from stream_app.observability import logs

    settings = _settings()
    logs.configure(settings)
    return settings


if __name__ == "__main__":
    sys.argv[1:] = sys.argv[1:] or ["worker"]
    cli()
