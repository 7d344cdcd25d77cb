"""The ``exporter`` command."""

import json
import logging
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from producers import arguments, completion, dead_letters, operate_commands, schedules
from producers.console import AsJson, ExtensibleGroup, about_job, exit_on_error, print_json
from producers.option_groups import grouped
from producers.request_options import ContentOptions, NotificationOptions, RequestOptions, RequestTarget
from producers.tokens import Token
from stream_app.termination import exit_on_sigterm

if TYPE_CHECKING:
    from producers.request_dialog import RequestDraft

cli = typer.Typer(
    cls=ExtensibleGroup,
    help="Request exports, follow them, download their files, and run the service.",
    epilog="Settings are EXPORTER_* variables. Exit codes: 0 success, 1 failure, 2 wrong usage.",
    no_args_is_help=True,
    rich_markup_mode=None,  # rich's help takes longer to import than most commands to run
    pretty_exceptions_enable=False,
)

cli.add_typer(schedules.cli, name="schedule")
cli.add_typer(dead_letters.cli, name="dead-letters")
cli.registered_commands.extend(operate_commands.cli.registered_commands)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("streaming-exporter-service"))
        raise typer.Exit


@cli.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version")
    ] = False,
) -> None:
    """Handle the options of `exporter` itself."""


JobId = Annotated[
    UUID,
    typer.Argument(
        metavar="JOB",
        help="Id of the job, which `exporter request` prints",
        autocompletion=completion.jobs,
    ),
]
Output = Annotated[
    Path, typer.Option("--output", metavar="DIR", help="Folder for the file. Default: the current one")
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Replace files of the same names. Default: the name of the new file gets a number, such as "
        "'ledger (2).csv'",
    ),
]
ApiUrl = Annotated[
    str | None, typer.Option("--api-url", metavar="URL", help="URL of the API. Default: EXPORTER_PUBLIC_URL")
]
AsUser = Annotated[str | None, typer.Option("--user-id", help="User of the job, if the token is signed here")]


@cli.command()
@grouped
def request(
    target: RequestTarget,
    content: ContentOptions,
    options: RequestOptions,
    notifications: NotificationOptions,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the job until it ends")] = False,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Follow the job, then download its file into DIR")
    ] = None,
    overwrite: Overwrite = False,
    token: Token = None,
    api_url: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Publish a request for an export and print the id of the job.

    On a terminal it asks for the dataset, the format and the user where they are not given, and for filters.
    """
    import asyncio  # slow to import, as are the others

    from producers import job_commands, request_dialog
    from stream_app.setting_errors import load_settings

    with exit_on_error():
        settings = load_settings()
        draft = request_dialog.RequestDraft(
            target.export_type, target.file_format, target.user_id, tuple(content.filters or ()), output
        )
        if draft.missing() and request_dialog.is_possible() and not as_json:
            draft = request_dialog.Dialog(settings, api_url, token).complete(
                draft,
                asks_for_filters=not content.filters and content.filters_json is None,
                asks_for_output=output is None and not watch,
            )
        request_dialog.require_all(draft)
        user_id, output = draft.user_id, draft.output
        request = job_commands.parse_request(_request_fields(draft, content, options, notifications))
        api = job_commands.open_api(settings, api_url, token, user_id) if watch or output else None
        job = asyncio.run(job_commands.publish_request(settings, request, options.job_id))
        if not as_json:
            typer.echo(job)
        elif api is None:
            print_json({"export_job_id": job, "status": "requested"})
        if api is not None:
            job_commands.follow_to_end(api, job, output, overwrite=overwrite, as_json=as_json)


def _request_fields(
    draft: "RequestDraft",
    content: ContentOptions,
    options: RequestOptions,
    notifications: NotificationOptions,
) -> dict[str, Any]:
    """Return the fields of a request; those that were not given are ``None``.

    Raises:
        UsageError: an argument is invalid.
    """
    return {
        "user_id": draft.user_id,
        "export_type": draft.export_type,
        "format": draft.file_format,
        **replace(content, filters=list(draft.filters)).fields(options.timezone),
        "consistency": options.consistency,
        "claims": arguments.parse_claims(options.claim or (), options.role or ()) or None,
        "priority": options.priority,
        **asdict(notifications),
    }


@cli.command()
def status(
    job_id: JobId,
    user_id: AsUser = None,
    token: Token = None,
    api_url: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Print a job as JSON, and its delivery to a destination.

    The JSON is that of the API. With `--json` it is one line.
    """
    from producers import job_commands
    from stream_app.setting_errors import load_settings

    with (
        exit_on_error(),
        job_commands.open_api(load_settings(), api_url, token, user_id, role=job_commands.OPERATE) as api,
    ):
        record = job_commands.record_with_delivery(api, job_id)
        typer.echo(json.dumps(record, indent=None if as_json else 2, ensure_ascii=False))


@cli.command()
def watch(
    job_id: JobId,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Download the file into DIR when the job is completed")
    ] = None,
    overwrite: Overwrite = False,
    user_id: AsUser = None,
    token: Token = None,
    api_url: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Follow a job until it ends."""
    from producers import job_commands
    from stream_app.setting_errors import load_settings

    with exit_on_error():
        role = job_commands.ADMIN if output else job_commands.OPERATE
        api = job_commands.open_api(load_settings(), api_url, token, user_id, role=role)
        job_commands.follow_to_end(api, job_id, output, overwrite=overwrite, as_json=as_json)


@cli.command()
def download(
    job_id: JobId,
    output: Output = Path(),
    overwrite: Overwrite = False,
    user_id: AsUser = None,
    token: Token = None,
    api_url: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Download and verify all files of a finished job.

    Their SHA-256 is compared. A download that was interrupted is continued by the same command.
    """
    from producers import job_commands
    from producers.display import display
    from stream_app.setting_errors import load_settings
    from streaming_exporter.downloads import fetch_all

    with (
        exit_on_error(),
        job_commands.open_api(load_settings(), api_url, token, user_id) as api,
    ):
        with display() as shown:
            paths = fetch_all(api, job_id, output, shown.download, overwrite=overwrite)
        if as_json:
            print_json({"export_job_id": job_id, "files": paths})
            return
        for path in paths:
            typer.echo(path)


@cli.command()
def cancel(
    job_id: JobId,
    user_id: AsUser = None,
    token: Token = None,
    api_url: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Cancel a job.

    Publishes its cancellation, and checks that there is such a job.
    """
    import asyncio

    from producers import job_commands
    from stream_app.setting_errors import load_settings

    with exit_on_error():
        settings = load_settings()
        asyncio.run(job_commands.publish_cancellation(settings, job_id))
        with about_job(job_id):
            doubt = job_commands.check_existence(settings, job_id, api_url, token, user_id)
        if as_json:
            print_json({"export_job_id": job_id, "status": "cancel_requested", "doubt": doubt or None})
            return
        typer.echo(f"Cancellation requested: {job_id}" + (f" ({doubt})" if doubt else ""), err=True)


@cli.command()
def rerun(
    job_id: JobId,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the new job until it ends")] = False,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Follow the new job, then download its file into DIR")
    ] = None,
    overwrite: Overwrite = False,
    idempotency_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="The same key again is the same new job. Default: a new key"),
    ] = None,
    user_id: AsUser = None,
    token: Token = None,
    api_url: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Run a job again, for the same user.

    The request is the same, and the period too. Prints the id of the new job.
    """
    from producers import job_commands
    from stream_app.setting_errors import load_settings

    with exit_on_error():
        role = job_commands.ADMIN if output else job_commands.OPERATE
        settings = load_settings()
        with job_commands.open_api(settings, api_url, token, user_id, role=role) as api:
            accepted = job_commands.rerun(api, job_id, idempotency_key)
        new, is_followed = UUID(accepted["export_job_id"]), watch or output is not None
        if not as_json:
            typer.echo(new)
        elif not is_followed:
            print_json(accepted)
        if is_followed:
            with about_job(new):
                api = job_commands.open_api(settings, api_url, token, user_id, role=role)
            job_commands.follow_to_end(api, new, output, overwrite=overwrite, as_json=as_json)


@cli.command()
def password(
    job_id: JobId,
    user_id: AsUser = None,
    token: Token = None,
    api_url: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Print the password of the zip archives of a job. It is shown once."""
    from producers import job_commands
    from stream_app.setting_errors import load_settings

    with exit_on_error():
        api = job_commands.open_api(load_settings(), api_url, token, user_id)
        shown = api.call("POST", f"/exports/jobs/{job_id}:password")
        if as_json:
            print_json(shown)
        else:
            typer.echo(shown["password"])


@cli.command()
def token(
    user_id: Annotated[str, typer.Option(help="User of the token (its subject)")],
    role: Annotated[
        list[str] | None, typer.Option(help="Role: exports:all, exports:operate or exports:admin; repeatable")
    ] = None,
    claim: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE[,VALUE…]", help="Claim, such as org=acme; repeatable"),
    ] = None,
    hours: Annotated[float, typer.Option(min=0.01, help="Hours that the token is valid")] = 12,
    as_json: AsJson = False,
) -> None:
    """Sign a token with EXPORTER_JWT_SECRET and print it."""
    from producers.arguments import parse_claims
    from producers.tokens import sign_token
    from stream_app.setting_errors import load_settings

    with exit_on_error():
        claims = parse_claims(claim or ())
        signed = sign_token(load_settings(), user_id, role or (), hours=hours, claims=claims)
        if as_json:
            print_json({"token": signed, "user_id": user_id, "expires_in": round(hours * 3600)})
        else:
            typer.echo(signed)


@cli.command()
def tick() -> None:
    """Run the ticker of schedules until SIGTERM.

    It publishes a schedule.tick at each minute boundary.
    """
    exit_on_sigterm()
    import asyncio

    from producers import ticker
    from producers.json_log import JsonFormatter
    from stream_app.setting_errors import load_settings, warn_of_unknown_settings

    with exit_on_error():
        settings = load_settings()
        logging.basicConfig(
            level=settings.log_level, format="%(asctime)s %(levelname)s %(message)s", force=True
        )
        if settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty()):
            for handler in logging.getLogger().handlers:
                handler.setFormatter(JsonFormatter())
        for chatty in ("aiokafka", "asyncio"):
            logging.getLogger(chatty).setLevel(logging.CRITICAL)
        warn_of_unknown_settings()
        asyncio.run(ticker.run(settings))


if __name__ == "__main__":
    cli(prog_name="exporter")
