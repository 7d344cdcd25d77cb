"""A process that dies is started again, unless it dies too often (P21)."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, cast

import pytest

from dev.app_process import AppProcess
from dev.cache import ServiceError
from dev.stack import Stack
from dev.supervision import FIRST_BACK_OFF, MAX_DEATHS, WITHIN, Supervision


class Child:
    exit_code = -9

    def error(self, what: str) -> ServiceError:
        return ServiceError(f"it {what}")

    def kill(self) -> None:
        pass


class App(AppProcess):
    """A process that dies on command. Its first ``fails`` starts end before it is ready."""

    def __init__(self, name: str = "worker-1") -> None:
        super().__init__(name, ["nothing"], {}, Path("/nowhere"))
        self._child = cast(Any, Child())
        self.dead = True
        self.starts = 0
        self.fails = 0

    @property
    def running(self) -> bool:
        return not self.dead

    def start(self) -> None:
        self.starts += 1
        if self.fails:
            self.fails -= 1
            raise ServiceError(f"{self.name} was not ready within 90 s.\n--- its log")
        self.dead = False


class Watched:
    """A stack with some processes."""

    def __init__(self, *processes: Any) -> None:
        self._processes = processes

    def processes(self) -> dict[str, Any]:
        return {str(number): process for number, process in enumerate(self._processes)}


class Starts(Executor):
    """Runs each start when ``run`` is called."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Future[Any], Callable[[], object]]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._waiting.append((future, lambda: fn(*args, **kwargs)))
        return future

    def run(self) -> None:
        for future, start in self._waiting:
            try:
                future.set_result(start())
            except ServiceError as error:
                future.set_exception(error)
        self._waiting.clear()


class Scene:
    """The supervision of some processes, whose time passes on command."""

    def __init__(self, *processes: Any) -> None:
        self.now = 0.0
        self.said: list[str] = []
        self.starts = Starts()
        self.supervision = Supervision(
            cast(Stack, Watched(*processes)),
            self.said.append,
            clock=lambda: self.now,
            executor=self.starts,
        )

    def restart(self) -> bool:
        """Let each dead process start once; return whether one is ready again."""
        self.supervision.look()
        self.now += FIRST_BACK_OFF * 2**MAX_DEATHS
        self.supervision.look()
        self.starts.run()
        return self.supervision.look()


def test_a_process_is_started_again_with_a_line_that_states_its_exit_and_the_back_off() -> None:
    app = App()
    scene = Scene(app)
    assert scene.restart() is True
    assert scene.supervision.look() is False
    assert app.starts == 1
    assert scene.said == ["worker-1 ended with -9 (SIGKILL) and is started again in 0.5 s (1 of 5)"]


def test_the_back_off_doubles_and_is_waited_for() -> None:
    app = App()
    scene = Scene(app)
    for death in range(MAX_DEATHS - 1):
        app.dead = True
        scene.supervision.look()
        back_off = FIRST_BACK_OFF * 2**death
        assert f"started again in {back_off:g} s ({death + 1} of 5)" in scene.said[-1]
        scene.now += back_off * 0.9
        scene.supervision.look()
        scene.starts.run()
        assert app.starts == death
        scene.now += back_off * 0.2
        scene.supervision.look()
        scene.starts.run()
        assert scene.supervision.look()
        assert app.starts == death + 1


def test_five_deaths_in_a_minute_end_the_stack() -> None:
    app = App()
    scene = Scene(app)
    for _ in range(MAX_DEATHS - 1):
        app.dead = True
        scene.supervision.look()
        scene.now += 10
        scene.supervision.look()
        scene.starts.run()
        assert scene.supervision.look()
    app.dead = True
    with pytest.raises(ServiceError, match=r"\(SIGKILL\), for the 5th time within 40 s, and is given up"):
        scene.supervision.look()
    assert app.starts == len(scene.said) == MAX_DEATHS - 1


def test_failed_starts_count_as_deaths_however_long_they_took() -> None:
    app = App()
    app.fails = 99
    scene = Scene(app)
    scene.supervision.look()
    for _ in range(MAX_DEATHS - 2):
        scene.now += 2 * WITHIN
        scene.supervision.look()
        scene.starts.run()
        scene.supervision.look()
    assert scene.said[-1] == ("worker-1 was not ready within 90 s and is started again in 4 s (4 of 5)")
    scene.now += 2 * WITHIN
    scene.supervision.look()
    scene.starts.run()
    with pytest.raises(ServiceError, match="was not ready within 90 s, for the 5th time"):
        scene.supervision.look()
    assert app.starts == MAX_DEATHS - 1


def test_old_deaths_do_not_count() -> None:
    app = App()
    scene = Scene(app)
    for _ in range(3 * MAX_DEATHS):
        app.dead = True
        assert scene.restart()
        scene.now += WITHIN / 2
    assert app.starts == 3 * MAX_DEATHS


def test_the_deaths_of_each_process_are_counted_separately() -> None:
    apps = [App("worker-1"), App("ticker"), App("api")]
    scene = Scene(*apps)
    for _ in range(MAX_DEATHS - 1):
        for app in apps:
            app.dead = True
        assert scene.restart()
        scene.now -= FIRST_BACK_OFF * 2**MAX_DEATHS  # all deaths are in one minute
    assert [app.starts for app in apps] == [MAX_DEATHS - 1] * 3


def test_a_slow_start_hides_no_other_death() -> None:
    slow, other = App("worker-1"), App("api")
    other.dead = False
    scene = Scene(slow, other)
    scene.supervision.look()
    scene.now += 1
    scene.supervision.look()  # the start of the worker runs from here on
    other.dead = True
    scene.supervision.look()
    assert [line.split()[0] for line in scene.said] == ["worker-1", "api"]
