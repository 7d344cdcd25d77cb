"""Runs the tasks of a worker that are not agents, as a service of its app."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

from mode import Service

from stream_app.kafka.transport import App
from stream_app.worker.watchdog import Stuck


def add_background_tasks(
    app: App,
    tasks: Callable[[], Iterable[Coroutine[Any, Any, None]]],
    *,
    drain: Callable[[], Awaitable[None]],
    close: Callable[[], Awaitable[None]],
) -> None:
    """Add a service that runs tasks while the app runs.

    The app drains before it stops anything, so that exports can end while Kafka is still connected.

    Args:
        tasks: makes the tasks when the app has started. None of them must end before the app stops.
        drain: runs when the app stops, before the tasks are cancelled, unless they have never run.
        close: runs after the tasks have ended.
    """

    @app.service
    class BackgroundTasks(Service):
        async def on_started(self) -> None:
            if app.is_stopping:  # the signal came while it started
                return
            app.drain = drain
            for task in tasks():
                self.add_future(self._require_endless(task))

        async def _require_endless(self, task: Coroutine[Any, Any, None]) -> None:
            """Run a task that must not end.

            If it ends, the worker ends too: otherwise it would continue without that task.
            """
            try:
                await task
            except asyncio.CancelledError:
                if self.should_stop:
                    raise
            if not app.is_stopping:
                raise Stuck(f"a task of the worker has ended: {task!r}")

        async def on_shutdown(self) -> None:
            await close()
