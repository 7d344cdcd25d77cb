"""The commands ``exporter destinations``: list the destinations, and test one."""

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from stream_app.command_errors import FAILED, AsJson, JsonLines, exit_on_error
from streaming_exporter.errors import UsageError

if TYPE_CHECKING:
    from stream_app.datasets.destinations import Destination
    from stream_app.settings import Settings

TIMED_OUT = "the destination does not answer"

cli = typer.Typer(
    help="The destinations of the datasets file: list them, test one.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@cli.command("list")
def list_all(as_json: JsonLines = False) -> None:
    """List the destinations, and who can use them.

    Also where they are, and which of their secrets are missing.
    """
    with exit_on_error(TIMED_OUT):
        _, destinations = _loaded()
        lines = [_described(item) for item in destinations.values()]
    if as_json:
        for line in lines:
            typer.echo(line.as_json())
        return
    for line in lines:
        typer.echo(f"{line.name}: {line.kind} {line.place}, for {line.people}")
        for text in line.missing:
            typer.secho(f"  {text}", fg="red", err=True)


@cli.command("test")
def run_test(
    name: Annotated[str, typer.Argument(help="Name of the destination")],
    as_json: AsJson = False,
) -> None:
    """Sign in, write a small file, read it and remove it. The exit code is 1 if a step fails."""
    from stream_app.destinations.probe import probe

    with exit_on_error(TIMED_OUT):
        settings, destinations = _loaded()
        if name not in destinations:
            raise UsageError(
                f"there is no destination {name!r}; allowed: {', '.join(destinations) or 'none'}"
            )
        steps = []
        for step in probe(destinations[name], settings):
            steps.append(step)
            if not as_json:
                text = "ok" if step.error is None else f"{step.error} ({step.detail})"
                typer.secho(f"{step.step}: {text}", fg=None if step.error is None else "red")
    has_failed = any(step.error is not None for step in steps)
    if as_json:
        typer.echo(json.dumps({"ok": not has_failed, "steps": [asdict(step) for step in steps]}))
    raise typer.Exit(FAILED if has_failed else 0)


def _loaded() -> "tuple[Settings, dict[str, Destination]]":
    from stream_app.datasets.file import load_datasets
    from stream_app.setting_errors import load_settings

    settings = load_settings()
    return settings, dict(load_datasets(settings.datasets_file).destinations)


@dataclass(frozen=True, slots=True)
class _Described:
    """What ``list`` shows of a destination. ``missing`` are texts about secrets that are not there."""

    name: str
    kind: str
    place: str
    path: str
    people: str
    datasets: list[str] | None
    missing: list[str]

    def as_json(self) -> str:
        content = {key if key != "people" else "for": value for key, value in asdict(self).items()}
        return json.dumps(content, ensure_ascii=False)


def _described(destination: "Destination") -> _Described:
    from stream_app.datasets.destinations import S3Destination
    from stream_app.destinations.secrets import missing_secrets

    if isinstance(destination, S3Destination):
        server = destination.endpoint or "the store of the service"
        place = f"{server} {destination.bucket}/{destination.prefix.strip('/')}"
    else:
        place = f"{destination.user}@{destination.host}:{destination.port} {destination.prefix or '.'}"
    people = [*(f"role {role}" for role in destination.roles or ()), *(destination.users or ())]
    return _Described(
        name=destination.name,
        kind=destination.kind,
        place=place,
        path=destination.path,
        people=", ".join(people) or "everybody",
        datasets=list(destination.datasets) if destination.datasets else None,
        missing=[f"{key}: {text}" for key, text in missing_secrets(destination)],
    )
