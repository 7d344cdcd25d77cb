"""``python -m dev demo``: one request event per format, from Kafka to files on disk."""

import asyncio
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from dev.cache import ServiceError
from dev.progress import Progress as Steps
from dev.progress import console
from dev.stack import ROOT, Stack
from producers.display import size
from producers.tokens import sign_token
from stream_app.exports.formats.registry import FORMATS
from stream_app.settings import Settings
from streaming_exporter.client import Client
from streaming_exporter.downloads import fetch
from streaming_exporter.events import ExportRequest
from streaming_exporter.publisher import Publisher

USER = "user-1"
TIMEOUT = 600.0
"""Seconds within which every export must have ended."""


@dataclass
class DemoJob:
    """The job of one format."""

    format: str
    job_id: UUID
    task: TaskID
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> str:
        return str(self.record.get("status", "waiting"))

    @property
    def finished(self) -> bool:
        return self.status not in ("waiting", "pending", "processing")


def demo(ledger_rows: int, folder: Path, output: Path) -> None:
    """Start a stack in ``folder``, export the ledger in every format, download and check the files, stop.

    Raises:
        ServiceError: a service failed, or an export did.
    """
    with Stack(folder / "demo", ledger_rows=ledger_rows, progress=Steps()) as stack:
        api = stack.start_all()
        given = {key.removeprefix("EXPORTER_").lower(): value for key, value in stack.settings().items()}
        settings = Settings.model_validate(given)
        export_every_format(settings, api.url, ledger_rows, output)
        console.print(next_step())


def next_step() -> str:
    """Return what to do after the demonstration, in a checkout or with the installed package."""
    if (ROOT / "Makefile").is_file():
        return (
            "Next: [bold]make up[/] keeps it running, with a page. docs/tutorial.md exports your own tables."
        )
    return (
        "Next: [bold]exporter up[/] keeps it running; with EXPORTER_SOURCE_DATABASE_URL and "
        "EXPORTER_DATASETS_FILE it exports tables of your own."
    )


def export_every_format(settings: Settings, api_url: str, ledger_rows: int, output: Path) -> None:
    """Publish one request event per format, show the progress, download the files and check them.

    Raises:
        ServiceError: an export did not complete.
    """
    console.print(f"\nOne [bold]export.requested[/] event per format goes to Kafka, as {USER}:")
    with Client(api_url, sign_token(settings, USER)) as client, _bars() as bars:
        orders = asyncio.run(_publish(settings, bars))
        _follow(client, orders, bars, ledger_rows)
        bars.stop()
        _collect(client, orders, output)


async def _publish(settings: Settings, bars: Progress) -> list[DemoJob]:
    orders = []
    async with Publisher(settings, source="/demo") as publisher:
        for name in FORMATS:
            # A huge PDF cannot be read, so it has the user's own rows only. Other formats export all rows.
            scope = "own" if name == "pdf" else "all"
            request = ExportRequest.parse(
                {"user_id": USER, "export_type": "ledger", "format": name, "scope": scope}
            )
            event = await publisher.request(request)
            orders.append(DemoJob(name, event.job_id, bars.add_task(name, total=None, status="waiting")))
    return orders


def _follow(client: Client, orders: list[DemoJob], bars: Progress, rows: int) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not all(order.finished for order in orders):
        if time.monotonic() > deadline:
            raise ServiceError(f"the exports did not end within {TIMEOUT:.0f} s")
        for order in orders:
            if not order.finished and client.job(order.job_id) is not None:
                order.record = client.record(order.job_id)
                done = order.record.get("row_count") or 0
                total = done if order.finished else order.record.get("estimated_rows") or rows
                bars.update(order.task, completed=done, total=max(done, total), status=order.status)
        time.sleep(0.1)


def _collect(client: Client, orders: list[DemoJob], output: Path) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("format", "rows", "size", "time", "file"):
        table.add_column(name, justify="left" if name in ("format", "file") else "right", no_wrap=True)
    failed = [order for order in orders if order.status != "completed"]
    for order in orders:
        if order in failed:
            table.add_row(order.format, "", "", "", f"[red]{order.status}[/]: {order.record.get('error')}")
            continue
        path = fetch(client, order.job_id, output)  # checks the sha256
        shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        rows, seconds = order.record["row_count"], _seconds(order.record)
        table.add_row(order.format, f"{rows:,}", size(path.stat().st_size), f"{seconds:.2f} s", str(shown))
    console.print("\nDownloaded. Each sha256 is the one that the service recorded:\n")
    console.print(table)
    console.print()
    if failed:
        raise ServiceError(f"{len(failed)} of {len(orders)} exports did not complete")


def _seconds(record: dict[str, Any]) -> float:
    """Return the seconds from the start of the attempt to its end."""
    started, completed = (datetime.fromisoformat(record[name]) for name in ("started_at", "completed_at"))
    return (completed - started).total_seconds()


def _bars() -> Progress:
    return Progress(
        TextColumn("  {task.description:<10}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("rows  {task.fields[status]}"),
        TimeElapsedColumn(),
        console=console,
    )
