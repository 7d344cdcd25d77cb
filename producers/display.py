"""Shows progress on standard error: a progress bar on a terminal, plain lines elsewhere."""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from streaming_exporter.api_answers import Job

if TYPE_CHECKING:
    from rich.progress import TaskID


class Display(Protocol):
    """Shows the progress of a job, then of its download."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def job(self, job: Job | None) -> None:
        """Show the progress of the export."""

    def download(self, done: int, total: int) -> None:
        """Show the progress of the download, in bytes."""


def display() -> Display:
    """Return the display for standard error."""
    return Bar() if sys.stderr.isatty() else Lines()


class Lines:
    """Prints a line at each change of the status, and every few seconds while rows are written."""

    SECONDS = 2.0

    def __init__(self) -> None:
        self._status: str | None = None
        self._last = float("-inf")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def job(self, job: Job | None) -> None:
        status = job.status if job else "waiting for a worker"
        now = time.monotonic()
        if status == self._status and (
            job is None or job.row_count is None or now - self._last < self.SECONDS
        ):
            return
        self._status, self._last = status, now
        rows = f", {job.row_count:,} rows" if job and job.row_count else ""
        print(f"{status}{rows}", file=sys.stderr)

    def download(self, done: int, total: int) -> None:
        if done >= total:
            print(f"downloaded {size(total)}", file=sys.stderr)


class Bar:
    """Shows a progress bar with rows, rows per second, elapsed time, and the estimated remaining time."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[amount]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )
        self._export: TaskID = self._progress.add_task("waiting for a worker", total=None, amount="")
        self._download: TaskID | None = None
        self._rows_since: float | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def job(self, job: Job | None) -> None:
        if job is None:
            return
        rows = job.row_count or 0
        if rows and self._rows_since is None:
            self._rows_since = time.monotonic()
        total = rows if job.finished else max(rows, job.estimated_rows or 0) or None
        if job.finished and not rows:
            rows = total = 1
        self._progress.update(
            self._export,
            description=f"{job.export_type} {job.format}: {job.status}",
            completed=rows,
            total=total,
            amount=self._amount(job),
        )

    def _amount(self, job: Job) -> str:
        if job.row_count is None:
            return ""
        text = f"{job.row_count:,} rows"
        if not job.finished and job.estimated_rows:
            text += f" of about {job.estimated_rows:,}"
        elapsed = time.monotonic() - self._rows_since if self._rows_since else 0
        return text + (f", {job.row_count / elapsed:,.0f}/s" if elapsed > 0.5 else "")

    def download(self, done: int, total: int) -> None:
        if self._download is None:
            self._download = self._progress.add_task("download", total=total, amount="")
        self._progress.update(self._download, completed=done, amount=f"{size(done)} of {size(total)}")


def size(count: int) -> str:
    """Return a number of bytes as a text with a decimal unit, such as ``1.5 MB``."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"
