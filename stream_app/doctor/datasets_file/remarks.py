"""Remarks about the datasets file: what is wrong or unwise, and at which line."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stream_app.datasets.faults import Fault, dotted
from stream_app.doctor.findings import STYLES, State


@dataclass(frozen=True, slots=True)
class Remark:
    """What is wrong (a problem) or unwise (a warning) in the datasets file."""

    state: State
    fault: Fault


def worst_of(remarks: Sequence[Remark]) -> State:
    """Return the most serious state."""
    states = list(State)
    return max((remark.state for remark in remarks), key=states.index, default=State.OK)


def as_json(remarks: Sequence[Remark]) -> str:
    """Return ``{"state": …, "findings": [{state, file, line, place, text}]}`` as text."""
    findings = [
        {
            "state": remark.state,
            "file": None if remark.fault.file is None else str(remark.fault.file),
            "line": remark.fault.line,
            "place": dotted(remark.fault.place),
            "text": remark.fault.text,
        }
        for remark in remarks
    ]
    return json.dumps({"state": worst_of(remarks), "findings": findings}, indent=2, ensure_ascii=False)


def show(remarks: Sequence[Remark], console: Console) -> None:
    """Print the remarks: a table on a terminal, else a line ``file:line: state: place: text`` for each."""
    if not console.is_terminal:
        for remark in remarks:
            console.print(_line(remark), markup=False, highlight=False, soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for remark in remarks:
        fault = remark.fault
        where = "" if fault.file is None else f"{fault.file.name}:{fault.line or 1} "
        text = f"[dim]{escape(where)}[/][bold]{escape(dotted(fault.place))}[/]\n{escape(fault.text)}"
        table.add_row(f"[{STYLES[remark.state]}]{remark.state}[/]", text)
    console.print(table)


def _line(remark: Remark) -> str:
    fault = remark.fault
    line = "" if fault.line is None else f":{fault.line}"
    where = "" if fault.file is None else f"{fault.file}{line}: "
    what = f"{dotted(fault.place)}: " if fault.place else ""
    return f"{where}{remark.state}: {what}{fault.text}"
