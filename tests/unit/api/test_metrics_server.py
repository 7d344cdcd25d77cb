"""The server of the API's metrics is started again if it ends, and leaves no port open."""

import socket
from types import SimpleNamespace
from typing import Any, cast

import httpx2
import pytest
from structlog.testing import capture_logs

from api import background
from api.operations import metrics_server
from api.operations.metrics_server import serve_metrics
from api.services import ApiServices
from dev.process import free_ports, is_free
from stream_app.settings import Settings
from tests.waiting import patient, until_async


class Metrics:
    """Metrics of nothing."""

    async def render(self) -> str:
        return "exporter_up 1\n"


def services(port: int) -> ApiServices:
    settings = Settings(_env_file=None, metrics_port=port, metrics_host="127.0.0.1")
    return cast(ApiServices, SimpleNamespace(settings=settings, queue_metrics=Metrics()))


async def answer(port: int) -> str:
    async with httpx2.AsyncClient(timeout=patient(10)) as client:
        try:
            return (await client.get(f"http://127.0.0.1:{port}/metrics")).text
        except httpx2.TransportError:
            return ""


@pytest.mark.parametrize("end", ["an error", "by itself"])
async def test_a_server_that_ends_is_logged_and_started_again(
    end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "RESTART_SECONDS", 0.01)
    main_loop, ends = metrics_server._Server.main_loop, [end]

    async def loop(server: Any) -> None:
        if ends:
            ends.pop()
            if end == "an error":
                raise LookupError("unforeseen")
            return
        await main_loop(server)

    monkeypatch.setattr(metrics_server._Server, "main_loop", loop)
    (port,) = free_ports(1)
    with capture_logs() as lines:
        async with serve_metrics(services(port)):
            await until_async(lambda: not ends)
            await until_async(lambda: answer(port))
            assert await answer(port) == "exporter_up 1\n"
    assert [line["task"] for line in lines if line["event"] == "background.ended"] == ["metrics_server"]
    assert is_free(port)


async def test_a_server_whose_port_is_taken_is_logged_and_the_api_runs() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, capture_logs() as lines:
        async with serve_metrics(services(other.getsockname()[1])):
            pass
    assert [line["event"] for line in lines] == ["metrics.listen_failed"]


async def test_a_server_that_never_ran_leaves_its_port() -> None:
    (port,) = free_ports(1)
    async with serve_metrics(services(port)):
        pass
    assert is_free(port)
