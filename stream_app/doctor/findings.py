"""What was looked at, how it is, and what to do about it."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from rich.console import Console
from rich.table import Table


class State(StrEnum):
    """How something is: a warning can wait, a problem cannot."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """``area`` and ``check`` name what was looked at, ``advice`` says what to do where it is not ok."""

    area: str
    check: str
    state: State
    what: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Area:
    """Makes the findings of one area."""

    name: str

    def ok(self, check: str, what: str) -> Finding:
        return Finding(self.name, check, State.OK, what)

    def warning(self, check: str, what: str, advice: str) -> Finding:
        return Finding(self.name, check, State.WARNING, what, advice)

    def problem(self, check: str, what: str, advice: str) -> Finding:
        return Finding(self.name, check, State.PROBLEM, what, advice)

    def problem_if(self, wrong: bool, check: str, good: str, bad: str, advice: str) -> Finding:
        """A problem if ``wrong``, else ok."""
        return self.problem(check, bad, advice) if wrong else self.ok(check, good)


def worst(findings: Iterable[Finding]) -> State:
    """The most serious state there is."""
    order = list(State)
    return max((finding.state for finding in findings), key=order.index, default=State.OK)


STYLES = {State.OK: "green", State.WARNING: "yellow", State.PROBLEM: "bold red"}


def as_json(findings: Sequence[Finding]) -> str:
    """``{"state": …, "findings": [{area, check, state, what, advice}]}``."""
    content = {"state": worst(findings), "findings": [asdict(finding) for finding in findings]}
    return json.dumps(content, indent=2, ensure_ascii=False)


def show(findings: Sequence[Finding], console: Console) -> None:
    """A table, and a line that sums it up."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    area = ""
    for finding in findings:
        style = STYLES[finding.state]
        advice = f"\n[dim]→[/] {finding.advice}" if finding.advice else ""
        table.add_row(
            f"[{style}]{finding.state}[/]",
            "" if finding.area == area else finding.area,
            finding.check,
            finding.what.replace("[", "\\[") + advice,
        )
        area = finding.area
    console.print(table)
    bad = [sum(finding.state is state for finding in findings) for state in (State.PROBLEM, State.WARNING)]
    console.print(
        f"\n{_count(bad[0], 'problem')}, {_count(bad[1], 'warning')}", style=STYLES[worst(findings)]
    )


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
