"""Output while parts start: one line for each step, with its duration."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

console = Console(stderr=True, highlight=False, soft_wrap=True)


class Progress:
    """Prints steps from several threads. On a terminal the steps that run are shown below the lines."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._lock = threading.Lock()
        self._running: dict[str, str] = {}
        self._status = console.status("") if console.is_terminal and not quiet else None

    @contextmanager
    def step(self, name: str) -> Iterator["Step"]:
        """Measure the block and print its line; a block that raises prints nothing."""
        step = Step(self, name)
        started = time.monotonic()
        self.update(name, name)
        try:
            yield step
        except BaseException:
            self.update(name, None)
            raise
        self.update(name, None)
        seconds = time.monotonic() - started
        self.say(f"[green]✓[/] [bold]{name:<10}[/] [cyan]{seconds:5.1f} s[/]  {escape(step.result)}")

    def say(self, markup: str) -> None:
        if not self._quiet:
            with self._lock:
                console.print(markup)

    def update(self, name: str, text: str | None) -> None:
        """Change the text of a step that runs, or remove it with ``None``."""
        with self._lock:
            if text is None:
                self._running.pop(name, None)
            else:
                self._running[name] = text
            if self._status is None:
                return
            if self._running:
                self._status.update("starting " + escape(", ".join(self._running.values())))
                self._status.start()
            else:
                self._status.stop()


class Step:
    """One step. ``result`` is shown when it ends."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress = progress
        self._name = name
        self.result = ""

    def note(self, text: str) -> None:
        """Print the reason why the step takes longer than usual."""
        self._progress.say(f"  [bold]{self._name:<10}[/] {escape(text)} …")
