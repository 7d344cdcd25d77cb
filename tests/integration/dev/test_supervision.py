"""Real processes that are killed with SIGKILL are started again, five times in a minute at most (P21)."""

import os
import signal
import smtplib
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from dev import supervision
from dev.app_process import AppProcess, TickerProcess
from dev.cache import ServiceError
from dev.process import ManagedProcess
from dev.smtp import SmtpService
from dev.stack import Stack
from dev.supervision import MAX_DEATHS, Supervision
from tests.integration.dev.processes import wait_gone
from tests.waiting import patient, until


class Apps:
    """A stack of two processes that do nothing."""

    def __init__(self, folder: Path) -> None:
        self.apps = [
            TickerProcess(name, ["http.server", "--bind", "127.0.0.1", "0"], dict(os.environ), folder)
            for name in ("ticker", "worker-1")
        ]

    def processes(self) -> dict[str, AppProcess]:
        return {app.name: app for app in self.apps}


@pytest.fixture
def apps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Apps]:
    monkeypatch.setattr(supervision, "FIRST_BACK_OFF", 0.02)
    apps = Apps(tmp_path)
    try:
        for app in apps.apps:
            app.start()
        yield apps
    finally:
        for app in apps.apps:
            app.kill()


def test_a_process_that_is_killed_again_and_again_is_given_up_with_a_clear_end(apps: Apps) -> None:
    app, other = apps.apps
    untouched = other.pid
    said: list[str] = []
    pids = {app.pid}

    with Supervision(cast(Stack, apps), said.append) as watching:
        for _ in range(MAX_DEATHS - 1):
            os.kill(app.pid, signal.SIGKILL)
            until(watching.look, within=30)
            assert app.running
            pids.add(app.pid)
        os.kill(app.pid, signal.SIGKILL)
        with pytest.raises(
            ServiceError, match=r"ticker ended with -9 \(SIGKILL\), for the 5th time .* given up"
        ):
            until(watching.look, within=30)

    assert len(pids) == len(said) + 1 == MAX_DEATHS
    assert [line.rpartition("(")[2] for line in said] == [f"{n} of 5)" for n in range(1, MAX_DEATHS)]
    assert other.running
    assert other.pid == untouched


def test_no_start_outlives_the_supervision(apps: Apps) -> None:
    app, _ = apps.apps
    with Supervision(cast(Stack, apps), lambda _: None) as watching:
        app.is_ready = lambda: False  # type: ignore[method-assign]  # its start would take 90 s
        killed = app.pid
        os.kill(killed, signal.SIGKILL)
        until(lambda: not watching.look() and app.pid != killed, within=30)
        started = app.pid
    wait_gone(started)
    assert not app.running


class OneService:
    """A stack of one service."""

    def __init__(self, service: ManagedProcess) -> None:
        self._service = service

    def processes(self) -> dict[str, ManagedProcess]:
        return {self._service.name: self._service}


def test_a_service_that_is_killed_is_started_again_with_its_port_and_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "FIRST_BACK_OFF", 0.02)
    service = SmtpService(tmp_path)
    said: list[str] = []

    def send(subject: str) -> None:
        with smtplib.SMTP("127.0.0.1", service.port, timeout=patient(10)) as client:
            client.sendmail("a@localhost", ["b@localhost"], f"Subject: {subject}\r\n\r\n")

    try:
        service.start()
        send("before")
        with Supervision(cast(Stack, OneService(service)), said.append) as watching:
            os.kill(service.pid, signal.SIGKILL)
            until(watching.look, within=30)
        send("after")
        assert [mail["Subject"] for mail in service.mails()] == ["before", "after"]
    finally:
        service.stop()
    assert said == ["smtp ended with -9 (SIGKILL) and is started again in 0.02 s (1 of 5)"]
