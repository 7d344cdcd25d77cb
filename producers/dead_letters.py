"""``exporter dead-letters``: what could not be read, and publishing it again."""

import json
from typing import Annotated, Any

import typer

from producers.console import FAILED, exit_on_error

cli = typer.Typer(
    help="What could not be read: list, show, redrive.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Since = Annotated[
    str | None, typer.Option(metavar="TIME", help="From then on: 2026-11-24T06:00:00Z, or 90m, 2h, 7d ago")
]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Before then, in the same forms")]
Reason = Annotated[str | None, typer.Option("--error", metavar="TEXT", help="Whose reason has this text")]
FromTopic = Annotated[str | None, typer.Option("--topic", help="That came from this topic")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, a line for each")]


@cli.command("list")
def list_(
    since: Since = None,
    until: Until = None,
    error: Reason = None,
    topic: FromTopic = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The newest so many")] = 50,
    as_json: AsJson = False,
) -> None:
    """List dead letters, the newest last: id, time, where it was, job, reason."""
    import asyncio

    from producers import dead_letter_topic as letters
    from stream_app.setting_errors import load_settings

    with exit_on_error():
        settings = load_settings()
        selection = _selection(settings, since, until, error, topic)
        found, number = asyncio.run(letters.newest(settings, selection, limit))
        for letter in found:
            typer.echo(json.dumps(letter.as_json()) if as_json else _line(letter))
        left = number - len(found)
        typer.echo(
            f"{number} dead letters" + (f", the oldest {left} not shown (--limit)" if left else ""), err=True
        )


@cli.command()
def show(
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="OFFSET or PARTITION:OFFSET, from `list`")],
    as_json: AsJson = False,
) -> None:
    """Show one dead letter: its reason, its headers and its bytes."""
    import asyncio

    from producers import dead_letter_topic as letters
    from stream_app.setting_errors import load_settings
    from streaming_exporter.errors import UsageError

    with exit_on_error():
        selection = letters.Selection(ids=(letters.parse_id(letter_id),))
        found, _ = asyncio.run(letters.newest(load_settings(), selection, 1))
        if not found:
            raise UsageError(f"there is no dead letter {letter_id} (any more)")
        told = found[0].as_json(whole=True)
        if as_json:
            typer.echo(json.dumps(told))
            return
        value = told.pop("value")
        for name, content in told.items():
            typer.echo(_plain(f"{name}: {content if isinstance(content, str) else json.dumps(content)}"))
        shown = value if isinstance(value, str) else json.dumps(value)
        typer.echo("\n" + _plain(shown, kept="\n\t"))


@cli.command()
def redrive(
    letter_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Dead letters as `list` shows them")
    ] = None,
    since: Since = None,
    until: Until = None,
    error: Reason = None,
    topic: FromTopic = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them")] = False,
    dry: Annotated[bool, typer.Option("--dry-run", help="Say what would be published")] = False,
    as_json: AsJson = False,
) -> None:
    """Publish dead letters again where they came from, as they were, once their reason is mended.

    A request's id names its job, so publishing twice asks once. Dead letters stay on their topic.
    """
    import asyncio

    from producers import dead_letter_topic as letters
    from stream_app.setting_errors import load_settings
    from streaming_exporter.errors import UsageError

    numbers = {"published": 0, "refused": 0}

    def report(one: letters.RedriveResult) -> None:
        done = "refused" if one.problem else "published"
        numbers[done] += 1
        if as_json:
            told = {**one.letter.as_json(), "done": done, "dry_run": dry, "problem": one.problem}
            typer.echo(json.dumps(told))
        else:
            where = one.problem or f"{'would go' if dry else 'published'} to {one.letter.topic}"
            typer.echo(_plain(f"{one.letter.name}  {one.letter.job or '-'}  {where}"))

    with exit_on_error():
        settings = load_settings()
        ids = tuple(letters.parse_id(text) for text in letter_ids or ())
        filters = (since, until, error, topic)
        if sum((bool(ids), any(filters), everything)) != 1:
            raise UsageError("say which: some ids, or some of --since --until --error --topic, or --all")
        selection = letters.Selection(ids=ids) if ids else _selection(settings, *filters)
        asyncio.run(letters.redrive(settings, selection, dry=dry, report=report))
        verb = "to be published" if dry else "published"
        typer.echo(f"{numbers['published']} {verb}, {numbers['refused']} refused", err=True)
        if numbers["refused"] or (ids and sum(numbers.values()) < len(set(ids))):
            raise typer.Exit(FAILED)


def _selection(
    settings: Any, since: str | None, until: str | None, error: str | None, topic: str | None
) -> Any:
    """What the options say; a topic is named with or without the prefix of this deployment."""
    from producers import dead_letter_topic as letters

    prefix = settings.kafka_topic_prefix
    if topic is not None and not topic.startswith(prefix):
        topic = prefix + topic
    return letters.Selection(
        since=letters.parse_time(since, "--since"),
        until=letters.parse_time(until, "--until"),
        error=error,
        topic=topic,
    )


def _line(letter: Any) -> str:
    where = f"{letter.topic}[{letter.partition}]@{letter.offset}"
    return _plain(
        f"{letter.name}  {letter.at:%Y-%m-%d %H:%M:%SZ}  {where}  {letter.job or '-'}  {letter.error}"
    )


def _plain(text: str, *, kept: str = "") -> str:
    """What a terminal shows and does not obey: the text is of whoever wrote the message."""
    return "".join(
        char if char.isprintable() or char in kept else "\N{REPLACEMENT CHARACTER}" for char in text
    )
