"""Options that commands share are options of each of them, in their order and with their own help."""

from dataclasses import dataclass
from typing import Annotated

import typer
from typer.testing import CliRunner

from producers.option_groups import grouped

Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="The names")]


@dataclass(frozen=True, slots=True)
class Which:
    """What is chosen."""

    names: Names = None
    size: Annotated[int, typer.Option(min=1, help="How many")] = 3


@dataclass(frozen=True, slots=True)
class How:
    """How it is done."""

    kind: Annotated[str, typer.Option(help="Of which kind")]


cli = typer.Typer(rich_markup_mode=None)
seen: list[tuple[Which, How, bool]] = []


@cli.command()
@grouped
def run(how: How, which: Which, loud: Annotated[bool, typer.Option("--loud", help="Say it")] = False) -> None:
    """Do it."""
    seen.append((which, how, loud))


def test_values_and_defaults_reach_the_command_in_its_groups() -> None:
    result = CliRunner().invoke(cli, ["a", "b", "--kind", "k", "--loud"])
    assert result.exit_code == 0, result.output
    assert seen == [(Which(["a", "b"], 3), How("k"), True)]


def test_the_help_has_the_options_of_the_groups_in_the_order_of_the_command() -> None:
    shown = CliRunner().invoke(cli, ["--help"]).output
    assert "Do it." in shown
    places = [shown.index(text) for text in ("--kind", "--size", "--loud")]
    assert places == sorted(places)
    assert "[default: 3; x>=1]" in " ".join(shown.split())


def test_a_required_option_of_a_group_and_a_wrong_value_are_told() -> None:
    missing, wrong = (CliRunner().invoke(cli, words) for words in ([], ["--kind", "k", "--size", "0"]))
    assert (missing.exit_code, wrong.exit_code) == (2, 2)
    assert "--kind" in missing.output
    assert "--size" in wrong.output
