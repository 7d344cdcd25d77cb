"""A process that dies is started again, unless it dies too often (P21)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from dev.app_process import AppProcess
from dev.cache import ServiceError
from dev.stack import Stack
from dev.supervision import MAX_DEATHS, WITHIN, Supervision


class Child:
    exit_code = -9

    def error(self, what: str) -> ServiceError:
        return ServiceError(f"it {what}")


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
            raise ServiceError("not ready")
        self.dead = False


class Service:
    """A service of the stack, which is no process of the project."""

    child = Child()
    running = False


class Watched:
    """A stack with some processes."""

    def __init__(self, *processes: Any) -> None:
        self.processes = processes

    def dead(self) -> Any:
        return next((process for process in self.processes if not process.running), None)


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.fixture
def said() -> list[str]:
    return []


Make = Callable[..., Supervision]


@pytest.fixture
def watching(now: list[float], said: list[str]) -> Make:
    return lambda *processes: Supervision(cast(Stack, Watched(*processes)), said.append, clock=lambda: now[0])


def test_a_process_is_started_again_with_a_line(watching: Make, said: list[str]) -> None:
    app = App()
    supervision = watching(app)
    assert supervision.look() is True
    assert supervision.look() is False
    assert app.starts == 1
    assert said == ["worker-1 ended with -9 and is started again (1 of 5)"]


def test_five_deaths_in_a_minute_end_the_stack(watching: Make, said: list[str]) -> None:
    app = App()
    supervision = watching(app)
    for _ in range(MAX_DEATHS - 1):
        app.dead = True
        assert supervision.look()
    app.dead = True
    with pytest.raises(ServiceError, match="the 5th time within 60 s; giving up"):
        supervision.look()
    assert app.starts == len(said) == MAX_DEATHS - 1


def test_failed_starts_count_as_deaths(watching: Make) -> None:
    app = App()
    app.fails = 99
    with pytest.raises(ServiceError, match="giving up"):
        watching(app).look()
    assert app.starts == MAX_DEATHS - 1


def test_old_deaths_do_not_count(watching: Make, now: list[float]) -> None:
    app = App()
    supervision = watching(app)
    for _ in range(3 * MAX_DEATHS):
        app.dead = True
        assert supervision.look()
        now[0] += WITHIN / (MAX_DEATHS - 2)
    assert app.starts == 3 * MAX_DEATHS


def test_the_deaths_of_each_process_are_counted_separately(watching: Make) -> None:
    apps = [App("worker-1"), App("ticker"), App("api")]
    supervision = watching(*apps)
    for _ in range(MAX_DEATHS - 1):
        for app in apps:
            app.dead = True
        while supervision.look():
            pass
    assert [app.starts for app in apps] == [MAX_DEATHS - 1] * 3


def test_the_death_of_a_service_ends_the_stack(watching: Make) -> None:
    """Its data can be lost."""
    with pytest.raises(ServiceError, match="ended with -9"):
        watching(Service()).look()
