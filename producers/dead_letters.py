"""The commands ``exporter dead-letters``: list, show, redrive and discard messages that cannot be read."""

import json
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from producers.console import FAILED, JsonLines, exit_on_error
from producers.dead_letter_api import MILLISECOND, NOT_FOUND, KnownStates, mark_reader, marker, states_of
from producers.option_groups import grouped
from producers.tables import plain
from producers.tokens import Token
from stream_app.kafka.dead_letter_marks import LetterState
from streaming_exporter.errors import UsageError

cli = typer.Typer(
    help="Messages that could not be read.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Since = Annotated[
    str | None,
    typer.Option(
        metavar="TIME", help="Not before this time: 2026-11-24T06:00:00Z, or 90m, 2h, 7d for so long ago"
    ),
]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Before this time, in the same forms")]
Reason = Annotated[
    str | None, typer.Option("--error", metavar="TEXT", help="Only those whose reason contains this text")
]
FromTopic = Annotated[str | None, typer.Option("--topic", help="Only those from this topic")]
Again = Annotated[bool, typer.Option("--again", help="Also those that were redriven or discarded before")]
ApiUrl = Annotated[
    str | None, typer.Option("--api-url", metavar="URL", help="URL of the API. Default: EXPORTER_PUBLIC_URL")
]


@dataclass(frozen=True, slots=True)
class DeadLetterOptions:
    """The options of the commands that do something with dead letters."""

    letter_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Dead letters as `list` shows them")
    ] = None
    since: Since = None
    until: Until = None
    error: Reason = None
    topic: FromTopic = None
    everything: Annotated[bool, typer.Option("--all", help="All dead letters")] = False
    again: Again = False
    token: Token = None
    api_url: ApiUrl = None

    def selection(self, settings: Any) -> Any:
        """Return the selection of the arguments: ids, or some filters, or all.

        Raises:
            UsageError: not exactly one of these is given.
        """
        from stream_app.kafka.dead_letter_topic import Selection, parse_id

        parsed = tuple(parse_id(text) for text in self.letter_ids or ())
        filters = (self.since, self.until, self.error, self.topic)
        if sum((bool(parsed), any(filters), self.everything)) != 1:
            raise UsageError(
                "choose the dead letters: give ids, or some of --since --until --error --topic, or --all"
            )
        return Selection(ids=parsed) if parsed else _selection(settings, *filters)

    def allow_unmarked(self, error: Exception, *, dry: bool = False) -> None:
        """Say that the letters are published without a mark, because of ``error``; with ``dry`` would be.

        Raises:
            UsageError: neither ids nor ``--again`` are given. Without marks, letters that were redriven or
                discarded before would be published too.
        """
        if not self.again and not self.letter_ids:
            raise UsageError(
                f"the marks cannot be read: {error}. Letters that were redriven or discarded before can be "
                "among these: name the letters by their ids; --again publishes all the same"
            ) from error
        done = (
            "Would be published without a mark, because no API"
            if dry
            else "Published without a mark, because no API did it"
        )
        typer.secho(f"{done}: {error}", fg="yellow", err=True)

    def marker(self, settings: Any, action: str) -> AbstractContextManager[Any]:
        """Return :func:`marker` for ``action`` at the API of the options."""
        return marker(settings, self.api_url, self.token, action, again=self.again)


@cli.command("list")
def list_(
    since: Since = None,
    until: Until = None,
    error: Reason = None,
    topic: FromTopic = None,
    state: Annotated[LetterState | None, typer.Option(help="Only those in this state; needs the API")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Limit: only the newest")] = 50,
    token: Token = None,
    api_url: ApiUrl = None,
    as_json: JsonLines = False,
) -> None:
    """List dead letters, newest last, with their reasons.

    The API knows which were redriven or discarded. Without an API the state is not shown.
    """
    from stream_app.setting_errors import load_settings

    with exit_on_error():
        settings = load_settings()
        selection = _selection(settings, since, until, error, topic)
        found, number, states = _list_letters(settings, api_url, token, selection, state, limit)
        for letter in found:
            document = {**letter.as_json(), "state": states.state_of(letter)}
            typer.echo(json.dumps(document) if as_json else _line(letter, states.state_of(letter)))
        left = number - len(found)
        typer.echo(
            ("" if state is None or states.are_complete else "at least ")
            + f"{number} dead letters"
            + (f", the oldest {left} are not shown (--limit)" if left else ""),
            err=True,
        )
        if not states.are_complete:
            typer.secho(
                "the states of older letters are not known; narrow with --since or --until",
                fg="yellow",
                err=True,
            )
            if state is not None:
                raise typer.Exit(FAILED)


@cli.command()
def show(
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="OFFSET or PARTITION:OFFSET, from `list`")],
    as_json: JsonLines = False,
) -> None:
    """Show one dead letter: its reason, its headers and its bytes."""
    import asyncio

    from stream_app.kafka.dead_letter_topic import Selection, newest_letters, parse_id
    from stream_app.setting_errors import load_settings
    from streaming_exporter.errors import UsageError

    with exit_on_error():
        selection = Selection(ids=(parse_id(letter_id),))
        found, _ = asyncio.run(newest_letters(load_settings(), selection, 1))
        if not found:
            raise UsageError(
                f"there is no dead letter {letter_id}, or it was already deleted; `list` shows all"
            )
        document = found[0].as_json(whole=True)
        if as_json:
            typer.echo(json.dumps(document))
            return
        value = document.pop("value")
        for name, content in document.items():
            if content not in (None, []):
                typer.echo(plain(f"{name}: {content if isinstance(content, str) else json.dumps(content)}"))
        shown = value if isinstance(value, str) else json.dumps(value)
        typer.echo("\n" + plain(shown, kept="\n\t"))


@cli.command()
@grouped
def redrive(
    options: DeadLetterOptions,
    dry: Annotated[bool, typer.Option("--dry-run", help="Only print what would be published")] = False,
    as_json: JsonLines = False,
) -> None:
    """Publish dead letters again where they came from.

    They are unchanged, so their reason must have been fixed first.
    The API marks each as redriven and refuses it the next time. If no API answers, only letters that are
    given by their ids, or with --again, are published, without a mark. The id of a request names its job, so
    publishing it twice starts one job. Dead letters stay. --dry-run reads the marks, and refuses what would
    be refused.
    """
    import asyncio

    from producers.redrive import RedriveResult, redrive_letters
    from stream_app.setting_errors import load_settings

    numbers = {"published": 0, "refused": 0}
    seen: list[str] = []

    def report(one: RedriveResult) -> None:
        done = "refused" if one.problem else "published"
        numbers[done] += 1
        seen.append(one.letter.name)
        if as_json:
            document = {**one.letter.as_json(), "done": done, "dry_run": dry, "problem": one.problem}
            typer.echo(json.dumps(document))
        else:
            where = one.problem or f"{'would be published' if dry else 'published'} to {one.letter.topic}"
            typer.echo(plain(f"{one.letter.name}  {one.letter.job or '-'}  {where}"))

    with exit_on_error():
        settings = load_settings()
        selection = options.selection(settings)
        with ExitStack() as stack:
            mark = None
            try:
                if not dry:
                    mark = stack.enter_context(options.marker(settings, "redrive"))
                elif not options.again:
                    mark = stack.enter_context(mark_reader(settings, options.api_url, options.token))
            except UsageError as error:  # there is no token for the API here
                options.allow_unmarked(error, dry=dry)
            tried = mark and _with_fallback(mark, options, dry=dry)
            asyncio.run(redrive_letters(settings, selection, dry=dry, report=report, mark=tried))
        verb = "to be published" if dry else "published"
        _say_missing(selection.ids, seen)
        typer.echo(f"{numbers['published']} {verb}, {numbers['refused']} refused", err=True)
        if numbers["refused"] or sum(numbers.values()) < len(set(selection.ids)):
            raise typer.Exit(FAILED)


@cli.command()
@grouped
def discard(
    options: DeadLetterOptions,
    as_json: JsonLines = False,
) -> None:
    """Mark dead letters as done without publishing them. They stay on their topic. Needs the API."""
    import asyncio

    from producers.redrive import mark_all
    from stream_app.setting_errors import load_settings

    with exit_on_error():
        settings = load_settings()
        selection = options.selection(settings)
        with options.marker(settings, "discard") as mark:
            results = asyncio.run(mark_all(settings, selection, mark))
        for one in results:
            done = "refused" if one.problem else "discarded"
            document = {**one.letter.as_json(), "done": done, "problem": one.problem}
            line = f"{one.letter.name}  {one.letter.job or '-'}  {one.problem or done}"
            typer.echo(json.dumps(document) if as_json else plain(line))
        _say_missing(selection.ids, [one.letter.name for one in results])
        refused = sum(one.problem is not None for one in results)
        typer.echo(f"{len(results) - refused} discarded, {refused} refused", err=True)
        if refused or len(results) < len(set(options.letter_ids or ())):
            raise typer.Exit(FAILED)


NO_API = (None, NOT_FOUND, 405)
"""Statuses that say that no API can mark letters: no answer, or an API without these calls."""


def _with_fallback(mark: Any, options: DeadLetterOptions, *, dry: bool) -> Any:
    """Return ``mark``. If no API can mark letters, it says so, or refuses to go on without the marks."""
    from producers.redrive import CannotMark
    from streaming_exporter.errors import ApiError

    def tried(letter: Any) -> str | None:
        try:
            problem: str | None = mark(letter)
        except ApiError as error:
            if error.status not in NO_API:
                raise
            options.allow_unmarked(error, dry=dry)
            raise CannotMark from error
        return problem

    return tried


def _selection(
    settings: Any, since: str | None, until: str | None, error: str | None, topic: str | None
) -> Any:
    """Return the selection of the options. The prefix of a topic's name is optional."""
    from stream_app.kafka.dead_letter_topic import Selection

    prefix = settings.kafka_topic_prefix
    if topic is not None and not topic.startswith(prefix):
        topic = prefix + topic
    return Selection(
        since=parse_time(since, "--since"),
        until=parse_time(until, "--until"),
        error=error,
        topic=topic,
    )


def parse_time(text: str | None, option: str) -> datetime | None:
    """Parse a time in ISO 8601 (UTC if it has no zone), or a duration before now: ``90m``, ``2h``, ``7d``.

    Raises:
        UsageError: the text is neither.
    """
    from stream_app.datasets.written_times import read_moment

    if text is None:
        return None
    units = {"m": "minutes", "h": "hours", "d": "days"}
    if text[:-1].isdecimal() and text[-1] in units and len(text) <= 6:
        return datetime.now(UTC) - timedelta(**{units[text[-1]]: int(text[:-1])})
    try:
        moment = read_moment(text)
    except ValueError as error:
        raise UsageError(
            f"{option} {text!r}: expected a time such as 2026-11-24T06:00:00Z or a date, both in UTC if they "
            "name no offset, or a duration before now such as 90m, 2h, 7d"
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _list_letters(
    settings: Any,
    api_url: str | None,
    token: str | None,
    selection: Any,
    state: LetterState | None,
    limit: int,
) -> tuple[Sequence[Any], int, KnownStates]:
    """Return the newest letters of ``selection`` in ``state``, the number of all these, and their states.

    Without ``state`` the states are not known if no API says them; then a warning is printed.
    """
    import asyncio

    from stream_app.kafka.dead_letter_topic import newest_letters
    from streaming_exporter.errors import ApiError

    states = KnownStates()
    if state is not None:
        states = states_of(settings, api_url, token, selection, state.value)

    def is_listed(letter: Any) -> bool:
        return state is None or states.state_of(letter) == state.value

    found, number = asyncio.run(newest_letters(settings, selection, limit, is_listed))
    if state is None and found:
        shown = replace(selection, since=found[0].at, until=found[-1].at + MILLISECOND)
        try:
            states = states_of(settings, api_url, token, shown)
        except (ApiError, UsageError) as problem:
            typer.secho(f"It is not known what was done with them: {problem}", fg="yellow", err=True)
    return found, number, states


def _line(letter: Any, state: str | None) -> str:
    where = f"{letter.topic}[{letter.partition}]@{letter.offset}"
    facts = (letter.name, f"{letter.at:%Y-%m-%d %H:%M:%SZ}", state, where, letter.job or "-", letter.error)
    return plain("  ".join(filter(None, facts)))


def _say_missing(ids: Iterable[tuple[int, int]], found: Iterable[str]) -> None:
    """Say which of the dead letters that were named do not exist."""
    for name in sorted({f"{partition}:{offset}" for partition, offset in ids} - set(found)):
        typer.echo(
            f"{name}  there is no such dead letter, or it was already deleted; `list` shows all", err=True
        )
