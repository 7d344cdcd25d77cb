"""Prints what a caller sees of a dataset or a bundle, for people or as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from stream_app.datasets.bundles import Bundle
from stream_app.datasets.format_choice import allowed_formats
from stream_app.doctor.datasets_file.view import DatasetView
from stream_app.exports.formats.registry import FORMATS


def bundle_as_json(bundle: Bundle, members: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a bundle with the views of its datasets as JSON."""
    return {
        "bundle": bundle.name,
        "label": bundle.label,
        "description": bundle.description,
        "kind": bundle.kind,
        "roles": list(bundle.roles or ()),
        "formats": sorted(allowed_formats(bundle, FORMATS)),
        "filters": {name: dict(filters) for name, filters in bundle.filters.items()},
        "datasets": list(members),
    }


def show_bundle(bundle: Bundle, console: Console) -> None:
    """Print the facts about a bundle for people. Those about its datasets follow."""
    facts = {
        "bundle": bundle.name + (f" ({bundle.label})" if bundle.label else ""),
        "description": bundle.description,
        "kind": bundle.kind or "",
        "datasets": _listed([member.name for member in bundle.members]),
        "roles": _listed(bundle.roles or ()),
        "formats": _listed(sorted(allowed_formats(bundle, FORMATS))),
        **{f"filters of {name}": str(dict(filters)) for name, filters in bundle.filters.items()},
    }
    _show_facts(facts, console)


def dataset_as_json(view: DatasetView) -> dict[str, Any]:
    """Return the view of a dataset as JSON."""
    return asdict(view)


def show_dataset(view: DatasetView, console: Console) -> None:
    """Print the view of a dataset for people."""
    facts = {
        "dataset": view.name + (f" ({view.label})" if view.label else ""),
        "description": view.description,
        "source": view.source,
        "rows from": view.origin,
        "as user": view.user,
        "with roles": _listed(view.roles),
        "with claims": ", ".join(f"{name}={value}" for name, value in view.claims.items()),
        "scopes": _listed(view.scopes),
        "formats": _listed(view.formats),
        "rows at most": f"{view.max_rows:,}" if view.max_rows else "",
        "encryption": view.encrypt or "",
        "files are kept": f"{view.retention_days:g} days" if view.retention_days else "",
        "time zone": view.timezone or "",
        "parameters": ", ".join(f"{name} ({kind})" for name, kind in view.parameters.items()),
        "order": _listed(view.order),
    }
    _show_facts(facts, console)
    columns = Table("column", "type", "label", "mask", "operators", box=None, pad_edge=False)
    for item in view.columns:
        row = (item.name, item.type, item.label or "", item.mask or "", " ".join(item.operators))
        columns.add_row(*map(_plain, row))
    console.print()
    console.print(columns)
    for name, value in view.session.items():
        console.print(f"\n-- set_config('{name}', '{value}', true)", markup=False, highlight=False)
    text = view.sql or f"no rows: {view.problem}"
    console.print(f"\n-- scope {view.scope}\n{text}", markup=False, highlight=False, soft_wrap=True)


def _show_facts(facts: Mapping[str, str], console: Console) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        if value:
            table.add_row(name, _plain(value))
    console.print(table)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


def _plain(text: str) -> str:
    return text.replace("[", "\\[")
