"""Asks on a terminal for the missing options of ``exporter request``: user, dataset, format and filters."""

import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.prompt import Confirm, Prompt

from producers import job_commands
from producers.arguments import parse_filters
from stream_app.settings import Settings
from streaming_exporter.errors import ApiError, UsageError


@dataclass(frozen=True, slots=True)
class RequestDraft:
    """What is exported, as far as it is known; ``output`` is the folder for the file."""

    export_type: str | None
    file_format: str | None
    user_id: str | None
    filters: tuple[str, ...] = ()
    output: Path | None = None

    def missing(self) -> list[str]:
        """Return the options that a request needs and that are not known."""
        needed = {
            "--export-type": self.export_type,
            "--format": self.file_format,
            "--user-id": self.user_id,
        }
        return [option for option, value in needed.items() if value is None]


def is_possible() -> bool:
    """Return whether a person can answer: standard input and standard error are a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def require_all(draft: RequestDraft) -> None:
    """Check that nothing is missing.

    Raises:
        UsageError: with the options that are missing.
    """
    if missing := draft.missing():
        raise UsageError(f"missing: {', '.join(missing)}; on a terminal the command asks for them")


class Dialog:
    """One dialog. It is written to standard error, so that standard output holds the id of the job alone."""

    def __init__(self, settings: Settings, api_url: str | None, token: str | None) -> None:
        """Prepare the dialog; ``api_url`` and ``token`` are the options of the command."""
        self._settings = settings
        self._api_url = api_url
        self._token = token
        self._console = Console(stderr=True, highlight=False)

    def complete(self, draft: RequestDraft, *, asks_for_filters: bool, asks_for_output: bool) -> RequestDraft:
        """Ask for what is missing, show the command that does the same, and have it confirmed.

        Raises:
            typer.Abort: it was not confirmed, or the input has ended.
        """
        try:
            return self._complete(draft, asks_for_filters, asks_for_output)
        except EOFError:
            raise typer.Abort from None

    def _complete(self, draft: RequestDraft, asks_for_filters: bool, asks_for_output: bool) -> RequestDraft:
        if draft.user_id is None:
            draft = replace(draft, user_id=self._text("User whose export it is"))
        catalogue = self._catalogue(draft.user_id)
        if draft.export_type is None:
            draft = replace(draft, export_type=self._dataset(catalogue))
        dataset = next((one for one in catalogue["datasets"] if one["name"] == draft.export_type), None)
        if draft.file_format is None:
            draft = replace(draft, file_format=self._format(catalogue, dataset))
        if asks_for_filters:
            columns = columns_of(dataset, catalogue) if dataset is not None else None
            draft = replace(draft, filters=self._filters(columns))
        self._console.print(f"\nThe same without questions:\n  {escape(_command(draft))}\n")
        if not Confirm.ask("Request it?", default=True, console=self._console):
            raise typer.Abort
        if asks_for_output and Confirm.ask(
            "Wait for it and download it into this folder?", default=True, console=self._console
        ):
            draft = replace(draft, output=Path())
        return draft

    def _catalogue(self, user_id: str | None) -> dict[str, Any]:
        """Return what the API offers to the user; without the API nothing, and any name can be given."""
        try:
            with job_commands.open_api(self._settings, self._api_url, self._token, user_id) as api:
                return api.datasets()
        except (ApiError, UsageError) as error:
            self._console.print(f"Names are not listed: {escape(str(error))}", style="yellow")
            return {"datasets": [], "formats": []}

    def _dataset(self, catalogue: dict[str, Any]) -> str:
        usable = [one for one in catalogue["datasets"] if not one.get("error")]
        return self._choice(
            "Dataset", {one["name"]: one.get("label") or one["description"] for one in usable}
        )

    def _format(self, catalogue: dict[str, Any], dataset: dict[str, Any] | None) -> str:
        allowed = dataset["formats"] if dataset is not None else []
        names = {one["name"]: one["description"] for one in catalogue["formats"]}
        if allowed:
            names = {name: names.get(name, "") for name in allowed}
        return self._choice("Format", names)

    def _filters(self, columns: list[str] | None) -> tuple[str, ...]:
        """Ask for filters on ``columns``; ``None`` if they are not known."""
        if columns is not None:
            self._console.print(f"Columns: {escape(', '.join(columns))}")
        example = "kind=proof or created_at>=2026-01-01"
        if columns and "." in columns[0]:  # a bundle: the filters are those of its datasets
            example = f"{columns[0]}=…"
        filters: list[str] = []
        while text := Prompt.ask(
            f"Filter, such as {escape(example)} (empty: no more)",
            default="",
            show_default=False,
            console=self._console,
        ).strip():
            try:
                unknown = set(parse_filters([*filters, text])) - set(columns) if columns else set()
            except UsageError as error:
                self._console.print(escape(str(error)), style="red")
                continue
            if unknown:
                self._console.print(f"There is no column {escape(', '.join(unknown))}", style="red")
                continue
            filters.append(text)
        return tuple(filters)

    def _choice(self, what: str, names: dict[str, str]) -> str:
        """Ask for one of ``names``, by its name or its number; without names for any text."""
        if not names:
            return self._text(what)
        width = max(map(len, names))
        for number, (name, description) in enumerate(names.items(), 1):
            self._console.print(f"  {number:2}  {escape(name):{width}}  {escape(description)}", no_wrap=True)
        known = list(names)
        while True:
            text = self._text(f"{what}, by name or number")
            if text.isdecimal() and text not in names and 0 < int(text) <= len(known):
                return known[int(text) - 1]
            if text in names:
                return text
            self._console.print(f"There is no {what.lower()} {escape(text)}", style="red")

    def _text(self, what: str) -> str:
        """Ask until the answer is not empty."""
        while True:
            if text := Prompt.ask(what, console=self._console).strip():
                return text


def columns_of(dataset: dict[str, Any], catalogue: dict[str, Any]) -> list[str]:
    """Return the names of the columns that filters can have.

    Those of a bundle are the columns of its datasets, such as ``ledger.kind``.
    """
    bundle = dataset.get("bundle")
    if not bundle:
        return [one["name"] for one in dataset["columns"]]
    known = {one["name"]: one for one in catalogue["datasets"]}
    return [
        f"{name}.{one['name']}"
        for name in bundle["datasets"]
        if name in known
        for one in known[name]["columns"]
    ]


def _command(draft: RequestDraft) -> str:
    """Return the command that requests the same without questions."""
    words = ["exporter", "request"]
    words += ["--export-type", draft.export_type or "", "--format", draft.file_format or ""]
    words += ["--user-id", draft.user_id or ""]
    for each in draft.filters:
        words += ["--filter", each]
    return shlex.join(words)
