"""Findings of the doctor: what was checked, the result, and what to do."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum

from rich.console import Console
from rich.table import Table

from stream_app.messages.catalogue import DEFAULT, text
from streaming_exporter.errors import ExporterError

Value = int | float | str
"""What stands in the text of a finding."""


NOT_ALLOWED_CODE = "not_allowed"
"""The code of ``NotAllowed``, the error of a part that answers and refuses, for lack of a right.

Commands that do not use Kafka import this module, so it does not import that class."""


class State(StrEnum):
    """The state of a part: a warning can wait, a problem cannot."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        area, check: names of the part and of the check.
        what: the result as a text.
        advice: what to do, unless the state is ok.
        code: the name of the texts of a warning or a problem in the catalogue of messages, from which the
            page has them in other languages.
        values: what the placeholders of these texts stand for.
    """

    area: str
    check: str
    state: State
    what: str
    advice: str = ""
    code: str = ""
    values: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FindingFactory:
    """Creates the findings of one area.

    The texts of warnings and problems are the messages ``findings.CODE.what`` and ``findings.CODE.advice``.
    """

    name: str

    def ok(self, check: str, what: str) -> Finding:
        """Return a finding without a fault."""
        return Finding(self.name, check, State.OK, what)

    def warning(self, check: str, code: str, **values: Value) -> Finding:
        """Return a warning with the texts of ``code``. ``values`` are put into them."""
        return self._bad(State.WARNING, check, code, values)

    def problem(self, check: str, code: str, **values: Value) -> Finding:
        """Return a problem with the texts of ``code``. ``values`` are put into them."""
        return self._bad(State.PROBLEM, check, code, values)

    def problem_if(self, wrong: bool, check: str, good: str, code: str, **values: Value) -> Finding:
        """Return a problem if ``wrong``, or else ok with the text ``good``."""
        return self._bad(State.PROBLEM, check, code, values) if wrong else self.ok(check, good)

    def problem_of(self, error: ExporterError) -> Finding:
        """Return the problem of a part that could not be checked. One that refuses the check does answer."""
        if error.code == NOT_ALLOWED_CODE:
            return self.problem("rights", NOT_ALLOWED_CODE, reason=str(error))
        return self.problem("answers", "unavailable", reason=str(error))

    def _bad(self, state: State, check: str, code: str, values: Mapping[str, Value]) -> Finding:
        what, advice = (text(DEFAULT, f"findings.{code}.{part}", **values) for part in ("what", "advice"))
        return Finding(self.name, check, state, what, advice, code, values)


def worst(findings: Iterable[Finding]) -> State:
    """Return the most serious state of ``findings``."""
    order = list(State)
    return max((finding.state for finding in findings), key=order.index, default=State.OK)


STYLES = {State.OK: "green", State.WARNING: "yellow", State.PROBLEM: "bold red"}


def as_json(findings: Sequence[Finding]) -> str:
    """Return ``{"state": …, "findings": [{area, check, state, what, advice, code, values}]}`` as text."""
    content = {"state": worst(findings), "findings": [asdict(finding) for finding in findings]}
    return json.dumps(content, indent=2, ensure_ascii=False)


def show(findings: Sequence[Finding], console: Console) -> None:
    """Print the findings as a table, and a line with their numbers."""
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
