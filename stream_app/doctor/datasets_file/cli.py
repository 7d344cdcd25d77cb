"""The commands ``exporter datasets``: check the datasets file, and show what a caller sees of a dataset."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream_app.command_errors import FAILED, AsJson, exit_on_error

if TYPE_CHECKING:
    from stream_app.settings import Settings

TIMED_OUT = "the source database does not answer"

cli = typer.Typer(
    help="The datasets file: check it, show what a caller sees.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

File = Annotated[
    Path | None,
    typer.Option("--file", metavar="PATH", help="The file, or a folder. Default: EXPORTER_DATASETS_FILE"),
]


@cli.command()
def check(file: File = None, as_json: AsJson = False) -> None:
    """Compare the datasets file with the databases, without changes. The exit code is 1 if it is wrong.

    A problem is what does not work; a warning is what works and is unwise. Each has its line.
    """
    import asyncio  # slow to import, as are the others

    from rich.console import Console

    from stream_app.doctor.datasets_file import remarks
    from stream_app.doctor.datasets_file.check import check_datasets_file
    from stream_app.doctor.findings import State

    with exit_on_error(TIMED_OUT):
        found = asyncio.run(check_datasets_file(_settings(file)))
    if as_json:
        typer.echo(remarks.as_json(found))
    else:
        remarks.show(found, Console())
        problems = sum(remark.state is State.PROBLEM for remark in found)
        typer.echo(f"{problems} problems, {len(found) - problems} warnings", err=True)
    raise typer.Exit(FAILED if remarks.worst_of(found) is State.PROBLEM else 0)


@cli.command()
def show(
    name: Annotated[str, typer.Argument(help="Name of the dataset or bundle")],
    as_user: Annotated[str, typer.Option("--as-user", metavar="USER", help="Id of the user")],
    claim: Annotated[
        list[str] | None,
        typer.Option("--claim", metavar="NAME=VALUE", help="Claim of the user, such as org=acme; repeatable"),
    ] = None,
    role: Annotated[list[str] | None, typer.Option("--role", help="Role of the user; repeatable")] = None,
    scope: Annotated[
        str | None, typer.Option(help="Scope of the rows. Default: own, if there is one")
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", metavar="NAME=VALUE", help="Parameter of the query; repeatable"),
    ] = None,
    file: File = None,
    as_json: AsJson = False,
) -> None:
    """Print what a user sees of a dataset.

    Its columns, masks, operators and scopes, and the SQL that would run. Of a bundle: the same for each of
    its datasets.
    """
    import asyncio
    import json

    from rich.console import Console

    from stream_app.datasets.arguments import parse_claims, parse_parameters
    from stream_app.datasets.caller import Caller
    from stream_app.doctor.datasets_file.show import (
        bundle_as_json,
        dataset_as_json,
        show_bundle,
        show_dataset,
    )
    from stream_app.doctor.datasets_file.view import find_bundle, view_dataset

    with exit_on_error(TIMED_OUT):
        caller = Caller.of_claims(as_user, parse_claims(claim or (), role or ()))
        values, settings = parse_parameters(parameter or ()), _settings(file)
        bundle = find_bundle(settings, name, caller)
        names = [name] if bundle is None else [member.name for member in bundle.members]
        views = [
            asyncio.run(view_dataset(settings, each, caller, scope=scope, parameters=values))
            for each in names
        ]
    if as_json:
        shown = [dataset_as_json(view) for view in views]
        content = shown[0] if bundle is None else bundle_as_json(bundle, shown)
        typer.echo(json.dumps(content, indent=2, ensure_ascii=False))
        return
    console = Console()
    if bundle is not None:
        show_bundle(bundle, console)
    for view in views:
        show_dataset(view, console)


def _settings(file: Path | None) -> "Settings":
    from stream_app.setting_errors import load_settings

    settings = load_settings()
    return settings if file is None else settings.model_copy(update={"datasets_file": file})
