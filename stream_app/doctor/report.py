"""Findings for people and for programs."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from stream_app.doctor.findings import Finding, State, worst

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
